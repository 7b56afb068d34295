//! `holdpoint demo-server`: the tool server that demo and scenarios govern. Hidden: nobody else
//! needs it.
//!
//! Owns its arguments. Must never start without files that exist: it makes none.

use super::Exit;
use crate::demo::server::{BearerToken, DemoServer, Kit, Stock, Web};
use anyhow::{Context as _, ensure};
use std::path::PathBuf;

/// Serves the demo's tools over standard input and output.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The tools to offer.
    #[arg(
        long,
        value_name = "KIT",
        value_enum,
        value_delimiter = ',',
        default_values = ["database", "notes"]
    )]
    tools: Vec<Kit>,
    /// The SQLite database that the tools query and change.
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
    /// The folder that the tools work in.
    #[arg(long, value_name = "DIR")]
    workspace: PathBuf,
    /// The API that the tools may ask, with the token in `ENDPOINT_TOKEN`.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
}

/// Runs until standard input ends and the last call is done.
///
/// # Errors
/// When the file or the folder does not exist, or the service fails.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    if let Some(database) = &args.database {
        ensure!(database.is_file(), "`{}` is no file", database.display());
    }
    ensure!(args.workspace.is_dir(), "`{}` is no folder", args.workspace.display());
    let token = std::env::var("ENDPOINT_TOKEN").ok().map(BearerToken);
    let web = Web { endpoint: args.endpoint, token };
    let Args { tools, database, workspace, .. } = args;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let stock = Stock { kits: tools, database, workspace, web };
    runtime.block_on(DemoServer::new(stock).serve_stdio())?;
    Ok(Exit::Ok)
}
