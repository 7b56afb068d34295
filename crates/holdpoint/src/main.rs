//! The `holdpoint` program: the command line and the configuration around the other crates.
//! Must not decide anything itself.

mod cli;
mod config;
mod demo;
mod gateway;

use clap::Parser as _;
use std::process::ExitCode;

/// Calls allocate in one thread and free in another; the system's allocator spends a tenth of a
/// call's time on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Whoever installed one before is fine, too.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::Cli::parse().run().into()
}
