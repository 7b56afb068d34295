//! `holdpoint checkpoint`: the newest signed checkpoint, to be kept elsewhere.
//! Must print the note byte for byte: its signature covers every one of them.

use super::look::json_lines;
use super::operator::{self, StoreArgs};
use super::{Exit, Format, Globals, answer};
use holdpoint_ledger::open_checkpoint;
use holdpoint_server::store::Access;
use serde_json::json;

/// Print the newest signed checkpoint. Keep it elsewhere, and verify against it later.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs `holdpoint checkpoint`: exit 1 if there is none yet.
///
/// # Errors
/// When there is no store, or its checkpoint is not signed by its key.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let store = args.store.open(globals, Access::ReadOnly)?;
    let Some(note) = store.checkpoint()? else {
        operator::note("the log is empty, so there is no checkpoint yet");
        return Ok(Exit::Fault);
    };
    let head = open_checkpoint(&note, store.verifier())?;
    answer(&match globals.format {
        Format::Text => note,
        Format::Json => {
            let key = store.verifier().to_string();
            let (origin, size) = (head.origin, head.size);
            let value = json!({
                "origin": origin, "size": size, "root": head.root, "key": key, "note": note,
            });
            json_lines(&value)
        }
    })?;
    Ok(Exit::Ok)
}
