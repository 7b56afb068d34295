//! Trials of calls.
