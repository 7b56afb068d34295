//! `holdpoint logout`: deletes a credential for an upstream server, and revokes it where it came
//! from. Must never leave it here because it could not be revoked there.

use super::login::{self, Target};
use super::look::json_lines;
use super::{Exit, Format, Globals, answer, operator};
use anyhow::Context as _;
use holdpoint_resources::Revoked;
use holdpoint_server::store::Access;
use serde_json::json;

/// Delete a credential for an upstream server, and revoke it there.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
}

/// Runs `holdpoint logout`.
///
/// # Errors
/// When the configuration or the store cannot be read or written.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let config = globals.load()?;
    let (spec, holder) = login::find(&args.target, &config)?;
    let store = operator::open(&config.store, Access::Operate)?;
    let word = operator::word(&store, "a credential deleted")?;
    let server = spec.server.clone();
    let deleted = operator::wait(async {
        let deleted = holdpoint_resources::log_out(&spec, &holder).await;
        let deleted = deleted.context("the credential cannot be deleted")?;
        if deleted.is_some() {
            let recorded =
                store.credential_deleted((server, login::agent_of(&holder)), word.by, word.at);
            recorded.await?;
        }
        Ok(deleted)
    })?;
    let Some(revoked) = deleted else {
        operator::note(&format!("{holder} had no credential for `{}`", spec.server));
        return Ok(Exit::Fault);
    };
    let (word, detail) = match &revoked {
        Revoked::Done => ("revoked", "and revoked at its authorization server".to_owned()),
        Revoked::NotOffered => {
            ("not_offered", "; its authorization server offers no revocation".to_owned())
        }
        Revoked::Failed(why) => ("failed", format!("; it could not be revoked there: {why}")),
    };
    answer(&match globals.format {
        Format::Json => json_lines(&json!({
            "server": spec.server,
            "agent": login::agent_of(&holder),
            "revoked": word,
        })),
        Format::Text => {
            let space = if detail.starts_with(';') { "" } else { " " };
            format!("deleted the credential of {holder} for `{}`{space}{detail}\n", spec.server)
        }
    })?;
    Ok(Exit::Ok)
}
