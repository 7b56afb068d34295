//! Integration tests of the server: real processes, real files, real peers.

mod store;
