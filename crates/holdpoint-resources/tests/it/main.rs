//! Integration tests: real servers of both eras, hostile servers, and what becomes of their
//! processes.

mod bridge;
mod calls;
mod cluster;
mod declared;
mod files;
mod files_host;
mod files_server;
mod git;
mod hostile;
mod http;
mod passage;
mod peer;
mod permits;
mod postgres;
mod postgres_laws;
mod postgres_revert;
mod postgres_trash;
mod postgres_wire;
mod process;
mod resources;
mod rmcp_peers;
mod shell;
mod sqlite;
mod sqlite_laws;
mod terraform;
