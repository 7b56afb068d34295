//! The `holdpoint` program: the command line and the configuration around the other crates.
//! Must not decide anything itself.

mod cli;
mod config;
mod demo;
mod gateway;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Whoever installed one before is fine, too.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::Cli::parse().run().into()
}
