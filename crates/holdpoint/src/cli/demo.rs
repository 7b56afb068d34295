//! `holdpoint demo`: plays an incident and its benign twin on this machine, for real, and checks
//! every step. Must fail loudly if any expectation fails.

use super::look::{Look, Tone};
use super::{Exit, Globals, answer, why};
use crate::demo::play::play;
use crate::demo::scenario::{Act, FREEZE_DROP, Scenario};
use crate::demo::stage::Stage;
use crate::demo::timeline;
use anyhow::Context as _;
use holdpoint_server::store::Store;
use holdpoint_types::ActionId;
use std::path::{Path, PathBuf};

/// Play the incident of July 2025, with Holdpoint in the way. Needs nothing but this program.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Another scenario file.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Keep the folder with configuration, databases and store, to look around afterwards.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Runs `holdpoint demo`: exit 0 if every step was as expected.
///
/// # Errors
/// When the scenario cannot be read, or the machinery fails.
pub fn run(args: &Args, _globals: &Globals) -> anyhow::Result<Exit> {
    let scenario = match &args.scenario {
        None => Scenario::parse("scenarios/freeze-drop.toml", FREEZE_DROP)?,
        Some(file) => {
            let text = std::fs::read_to_string(file);
            let text = text.with_context(|| format!("cannot read `{}`", file.display()))?;
            Scenario::parse(&file.display().to_string(), &text)?
        }
    };
    let temporary = tempfile::Builder::new().prefix("holdpoint-demo").tempdir()?;
    let dir = match &args.keep {
        Some(dir) => {
            std::fs::create_dir(dir)
                .with_context(|| format!("`{}` must be a new folder", dir.display()))?;
            std::path::absolute(dir)?
        }
        None => temporary.path().to_owned(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let look = Look::of_terminal();
    let good = runtime.block_on(async {
        let title = format!("THE INCIDENT  {}", scenario.title);
        let acts =
            [("incident", title, &scenario.incident), ("twin", TWIN.to_owned(), &scenario.twin)];
        let mut good = true;
        for (name, title, act) in acts {
            let place = dir.join(name);
            std::fs::create_dir_all(&place)?;
            good &= perform(&scenario, (&title, act), &place, &look).await?;
        }
        anyhow::Ok(good)
    })?;
    answer(&farewell(good, args.keep.as_deref(), &look))?;
    Ok(if good { Exit::Ok } else { Exit::Fault })
}

const TWIN: &str = "THE BENIGN TWIN  The same wish where it is harmless";

async fn perform(
    scenario: &Scenario,
    (title, act): (&str, &Act),
    dir: &Path,
    look: &Look,
) -> anyhow::Result<bool> {
    answer(&timeline::opening(title, act, look))?;
    let stage = Stage::set(scenario, act, dir).await?;
    let over = play(act, &stage, |played| answer(&timeline::step(played, look))).await?;
    answer(&timeline::closing(&over, look))?;
    answer(&verified(&stage, look)?)?;
    if let Some(action) = over.refused {
        explain(stage.store(), action, look)?;
    }
    stage.strike().await?;
    Ok(over.is_good())
}

/// Verifies the ledger as an auditor would: offline, with the public key alone.
fn verified(stage: &Stage, look: &Look) -> anyhow::Result<String> {
    let dir = stage.store().dir();
    let verified = Store::verify(dir, stage.store().verifier(), None)?;
    let title = format!("{} records verified with the public key alone", verified.records);
    Ok(timeline::line("ledger", &look.paint(Tone::Good, &title), look))
}

/// `holdpoint why` about one action.
fn explain(store: &Store, action: ActionId, look: &Look) -> anyhow::Result<()> {
    let look = &Look { now: Look::of_terminal().now, ..look.clone() };
    if let Some(text) = why::explain(store, action, look)? {
        let title = format!("holdpoint why {action}");
        answer(&format!("\n{}\n{text}\n", look.paint(Tone::Strong, &title)))?;
    }
    Ok(())
}

fn farewell(good: bool, kept: Option<&Path>, look: &Look) -> String {
    let mut text = match good {
        true => look.paint(Tone::Good, "\nWrong without impact. Every step was as expected."),
        false => look.paint(Tone::Bad, "\nNot as expected: see the lines marked UNEXPECTED."),
    };
    text.push_str(&match kept {
        Some(dir) => {
            format!("\nlook around:  holdpoint log --store {}/incident/store\n", dir.display())
        }
        None => "\nlook around:  holdpoint demo --keep DIR    begin:  holdpoint init\n".to_owned(),
    });
    text
}
