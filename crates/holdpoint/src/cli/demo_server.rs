//! `holdpoint demo-server`: the tool server that the demo governs. Hidden: nobody else needs it.
//!
//! Owns its arguments. Must never start without files that exist: it makes none.

use super::Exit;
use crate::demo::server::DemoServer;
use anyhow::{Context as _, ensure};
use std::path::PathBuf;

/// Serves the demo's tools over standard input and output.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The SQLite database that the tools query and change.
    #[arg(long, value_name = "FILE")]
    database: PathBuf,
    /// The folder of notes that the tools read and add to.
    #[arg(long, value_name = "DIR")]
    workspace: PathBuf,
}

/// Runs until standard input ends and the last call is done.
///
/// # Errors
/// When the file or the folder does not exist, or the service fails.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    ensure!(args.database.is_file(), "`{}` is no file", args.database.display());
    ensure!(args.workspace.is_dir(), "`{}` is no folder", args.workspace.display());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(DemoServer::new(args.database, args.workspace).serve_stdio())?;
    Ok(Exit::Ok)
}
