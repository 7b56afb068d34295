//! Integration tests of the ledger: the file format, and what an auditor finds.

mod format;
mod tampering;
