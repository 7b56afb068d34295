//! `holdpoint why`: the whole chain of one action, from the request to the proof of its records.
//! Must never show as true what only the agent says, nor leave out what is absent.

mod ahead;
mod approval;
mod chain;
mod find;
mod lineage;
mod program;
mod reverts;
mod text;

use super::look::{Look, json_lines};
use super::operator::{self, StoreArgs};
use super::{Exit, Format, Globals, answer};
pub use approval::{Word, used_by, words};
pub use find::{Found, Wanted, find as find_action};
use holdpoint_server::store::{Access, Store};
use holdpoint_types::ActionId;

/// Explain one action: request, facts with the preview, findings, policy, decision, approval,
/// outcome, what took it back, lineage and proof.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The id of the action or of an approval, at least its first 6 hex digits, or `last`.
    #[arg(value_name = "ACTION")]
    action: Wanted,
    #[command(flatten)]
    store: StoreArgs,
}

/// The text of `holdpoint why` about one action; `None` if it is unknown.
///
/// # Errors
/// When the store cannot be read.
pub fn explain(store: &Store, action: ActionId, look: &Look) -> anyhow::Result<Option<String>> {
    Ok(chain::gather(store, action)?.map(|chain| text::render(&chain, look)))
}

/// Runs `holdpoint why`: exit 1 if there is no such action, or more than one.
///
/// # Errors
/// When there is no store, or it cannot be read.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let store = args.store.open(globals, Access::ReadOnly)?;
    let action = match find_action(&store, &args.action)? {
        Found::One(action) => action,
        Found::None => {
            operator::note(&format!("no action is known as `{}`", args.action));
            return Ok(Exit::Fault);
        }
        Found::Many(actions) => {
            let list: Vec<_> = actions.iter().map(ToString::to_string).collect();
            operator::note(&format!("`{}` fits more than one: {}", args.action, list.join(", ")));
            return Ok(Exit::Fault);
        }
    };
    let Some(chain) = chain::gather(&store, action)? else {
        operator::note(&format!("no action is known as `{action}`"));
        return Ok(Exit::Fault);
    };
    let look = Look::of_terminal();
    answer(&match globals.format {
        Format::Json => json_lines(&program::to_json(&chain, look.now)),
        Format::Text => text::render(&chain, &look),
    })?;
    Ok(Exit::Ok)
}
