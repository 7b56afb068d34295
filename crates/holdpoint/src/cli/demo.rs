//! `holdpoint demo`: plays an incident and its benign twin on this machine, for real, and checks
//! every step. Must fail loudly if any expectation fails.

use super::look::{Look, Tone};
use super::scenario::{Detail, Stagehand};
use super::{Exit, Globals, answer, scenario};
use crate::demo::scenario::FREEZE_DROP;
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
        None => scenario::parse(FREEZE_DROP)?,
        Some(file) => scenario::read(file)?,
    };
    let hand = Stagehand::new("holdpoint-demo", args.keep.as_deref())?;
    let look = Look::of_terminal();
    let report = hand.perform(&scenario, hand.dir(), Detail::Everything(&look))?;
    answer(&farewell(report.is_good(), args.keep.as_deref(), &look))?;
    Ok(if report.is_good() { Exit::Ok } else { Exit::Fault })
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
