//! `holdpoint scenario`: plays incidents and their benign twins on this machine, for real, and
//! counts. Must fail loudly if any expectation fails, and never count what was not played as good.

use super::look::{Look, Tone, count, duration, json_lines};
use super::{Exit, Format, Globals, answer, why};
use crate::demo::people::{Deed, Operated, ruling, word};
use crate::demo::play::{Over, Told, play};
use crate::demo::scenario::{Act, Lack, SHIPPED, Scenario, Shipped};
use crate::demo::stage::Stage;
use crate::demo::timeline;
use anyhow::Context as _;
use holdpoint_server::store::Store;
use holdpoint_types::ActionId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Play real incidents and their benign twins, and check what is decided at every step.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Play scenarios; exit 0 if every step was as expected.
    Run(RunArgs),
    /// List the scenarios that come with the program.
    List,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Scenario files, or names of those that come with the program [default: all that do].
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Show every step.
    #[arg(long)]
    verbose: bool,
    /// Keep the folder with configurations, databases and stores, to look around afterwards.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// How much is shown of a play.
#[derive(Clone, Copy, Debug)]
pub enum Detail<'a> {
    /// Every step, and what `holdpoint why` says.
    Everything(&'a Look),
    /// A line for each act, and whatever was not as expected.
    Lines(&'a Look),
    /// Nothing: the report says it all.
    Nothing,
}

/// A folder to play in, and a runtime.
pub struct Stagehand {
    runtime: tokio::runtime::Runtime,
    dir: PathBuf,
    // Deletes the folder, if nobody wants to keep it.
    _temporary: Option<TempDir>,
}

/// What a scenario came to.
#[derive(Debug)]
pub struct Report {
    name: String,
    title: String,
    acts: Vec<ActReport>,
}

/// What an act came to.
#[derive(Debug)]
struct ActReport {
    name: &'static str,
    over: Over,
    steps: Vec<Value>,
    took: Duration,
}

/// What all came to.
#[derive(Debug, Default)]
struct Total {
    scenarios: usize,
    played: usize,
    unexpected: usize,
    changed: usize,
    left_out: usize,
    pending: BTreeMap<Lack, usize>,
}

// === impl Stagehand ===

impl Stagehand {
    /// A new folder at `keep`, or one that is deleted in the end.
    ///
    /// # Errors
    /// When the folder is there already, or cannot be made.
    pub fn new(prefix: &str, keep: Option<&Path>) -> anyhow::Result<Self> {
        let (dir, temporary) = match keep {
            Some(dir) => {
                std::fs::create_dir(dir)
                    .with_context(|| format!("`{}` must be a new folder", dir.display()))?;
                (std::path::absolute(dir)?, None)
            }
            None => {
                let temporary = tempfile::Builder::new().prefix(prefix).tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        Ok(Self { runtime, dir, _temporary: temporary })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Plays both acts of a scenario in `dir`.
    ///
    /// # Errors
    /// When the machinery fails.
    pub fn perform(
        &self,
        (name, scenario): &(String, Scenario),
        dir: &Path,
        detail: Detail<'_>,
    ) -> anyhow::Result<Report> {
        let title = format!("THE INCIDENT  {}", scenario.title);
        let twin = "THE BENIGN TWIN  The same wish where it is harmless".to_owned();
        let acts = [("incident", title, &scenario.incident), ("twin", twin, &scenario.twin)];
        let mut reports = Vec::new();
        for (act_name, title, act) in acts {
            let place = dir.join(act_name);
            std::fs::create_dir_all(&place)?;
            let act = (act_name, title.as_str(), act);
            let report = self.runtime.block_on(play_act(scenario, act, &place, detail))?;
            if let Detail::Lines(look) = detail {
                answer(&act_line(name, &report, look))?;
            }
            reports.push(report);
        }
        Ok(Report { name: name.clone(), title: scenario.title.clone(), acts: reports })
    }
}

// === impl Report ===

impl Report {
    /// True if everything was as expected.
    pub fn is_good(&self) -> bool {
        self.acts.iter().all(|act| act.over.is_good())
    }

    fn to_json(&self) -> Value {
        let acts = self.acts.iter().map(|act| {
            let kept = act.over.kept.iter().map(
                |(name, (before, after))| json!({ "name": name, "unchanged": before == after }),
            );
            let restored = act.over.restored.iter().map(
                |(name, (before, after))| json!({ "name": name, "restored": before == after }),
            );
            json!({
                "act": act.name,
                "good": act.over.is_good(),
                "kept": kept.collect::<Vec<_>>(),
                "restored": restored.collect::<Vec<_>>(),
                "steps": act.steps,
            })
        });
        let acts: Vec<Value> = acts.collect();
        json!({ "name": self.name, "title": self.title, "good": self.is_good(), "acts": acts })
    }
}

// === impl Total ===

impl Total {
    fn add(&mut self, report: &Report) {
        self.scenarios += 1;
        for over in report.acts.iter().map(|act| &act.over) {
            self.played += over.played;
            self.unexpected += over.unexpected;
            self.changed += over.changed().len();
            self.left_out += over.left_out;
            for (lack, steps) in &over.pending {
                *self.pending.entry(*lack).or_default() += steps;
            }
        }
    }

    fn is_good(&self) -> bool {
        self.unexpected == 0 && self.changed == 0
    }

    fn pending_steps(&self) -> usize {
        self.pending.values().sum()
    }

    fn line(&self, look: &Look) -> String {
        let expected = self.played.saturating_sub(self.unexpected);
        let mut text = match self.scenarios {
            1 => "1 scenario".to_owned(),
            many => format!("{many} scenarios"),
        };
        text.push_str(&format!(", {} as expected", count(wide(expected), "step")));
        if !self.is_good() {
            let bad = format!(
                ", {} not as expected, {} changed that must not",
                self.unexpected,
                count(wide(self.changed), "thing")
            );
            text.push_str(&look.paint(Tone::Bad, &bad));
        }
        text.push_str(&left_out_words(self.left_out));
        text.push_str(&pending_words(&self.pending));
        format!("\n{text}\n")
    }

    fn to_json(&self) -> Value {
        let pending = self.pending.iter().map(|(lack, steps)| (lack.as_str(), *steps));
        json!({
            "scenarios": self.scenarios,
            "steps": self.played,
            "unexpected": self.unexpected,
            "changed": self.changed,
            "left_out": self.left_out,
            "pending_steps": self.pending_steps(),
            "pending": pending.collect::<BTreeMap<_, _>>(),
        })
    }
}

// === functions ===

/// Runs `holdpoint scenario`.
///
/// # Errors
/// When a scenario cannot be read, or the machinery fails.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    match &args.what {
        What::Run(args) => run_all(args, globals),
        What::List => list(globals),
    }
}

/// A scenario that comes with the program.
///
/// # Errors
/// When it cannot be played.
pub fn parse(shipped: Shipped) -> anyhow::Result<(String, Scenario)> {
    let file = format!("scenarios/{}.toml", shipped.name);
    Ok((shipped.name.to_owned(), Scenario::parse(&file, shipped.text)?))
}

/// A scenario from a file, named after it.
///
/// # Errors
/// When it cannot be read or played.
pub fn read(file: &Path) -> anyhow::Result<(String, Scenario)> {
    let text = std::fs::read_to_string(file);
    let text = text.with_context(|| format!("cannot read `{}`", file.display()))?;
    let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    Ok((name.unwrap_or_default(), Scenario::parse(&file.display().to_string(), &text)?))
}

fn run_all(args: &RunArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let scenarios = chosen(&args.files)?;
    let look = Look::of_terminal();
    let detail = match (globals.format, args.verbose) {
        (Format::Json, _) => Detail::Nothing,
        (Format::Text, true) => Detail::Everything(&look),
        (Format::Text, false) => Detail::Lines(&look),
    };
    let hand = Stagehand::new("holdpoint-scenario", args.keep.as_deref())?;
    let (mut total, mut reports) = (Total::default(), Vec::new());
    for (number, scenario) in scenarios.iter().enumerate() {
        // Two files may have the same name.
        let place = hand.dir().join(format!("{}-{}", number.saturating_add(1), scenario.0));
        let report = hand.perform(scenario, &place, detail)?;
        total.add(&report);
        reports.push(report.to_json());
    }
    match globals.format {
        Format::Text => answer(&total.line(&look))?,
        Format::Json => {
            let whole = json!({
                "good": total.is_good(),
                "total": total.to_json(),
                "scenarios": reports,
            });
            answer(&json_lines(&whole))?;
        }
    }
    Ok(if total.is_good() { Exit::Ok } else { Exit::Fault })
}

/// All are read before any is played.
fn chosen(files: &[PathBuf]) -> anyhow::Result<Vec<(String, Scenario)>> {
    if files.is_empty() {
        return SHIPPED.iter().map(|shipped| parse(*shipped)).collect();
    }
    let known = |file: &Path| SHIPPED.iter().find(|shipped| Path::new(shipped.name) == file);
    files.iter().map(|file| known(file).map_or_else(|| read(file), |one| parse(*one))).collect()
}

fn list(globals: &Globals) -> anyhow::Result<Exit> {
    let all = SHIPPED.iter().map(|shipped| parse(*shipped));
    let all: Vec<(String, Scenario)> = all.collect::<anyhow::Result<_>>()?;
    match globals.format {
        Format::Text => {
            let lines = all.iter().map(|(name, one)| format!("{name:<16} {}\n", one.title));
            answer(&lines.collect::<String>())?;
        }
        Format::Json => {
            let all = all.iter().map(|(name, one)| json!({ "name": name, "title": one.title }));
            answer(&json_lines(&Value::Array(all.collect())))?;
        }
    }
    Ok(Exit::Ok)
}

async fn play_act(
    scenario: &Scenario,
    (name, title, act): (&'static str, &str, &Act),
    dir: &Path,
    detail: Detail<'_>,
) -> anyhow::Result<ActReport> {
    let began = Instant::now();
    if let Detail::Everything(look) = detail {
        answer(&timeline::opening(title, act, look))?;
    }
    let stage = Stage::set(scenario, act, dir).await?;
    let mut steps = Vec::new();
    let over = play(act, &stage, |told| {
        steps.push(step_json(told));
        match (detail, told) {
            (Detail::Everything(look), told) => answer(&timeline::told(told, look)),
            (Detail::Lines(look), told) => answer(&timeline::unexpected(told, look)),
            (Detail::Nothing, _) => Ok(()),
        }
    })
    .await?;
    let records = verified(&stage)?;
    if let Detail::Everything(look) = detail {
        let title = format!("{records} records verified with the public key alone");
        answer(&timeline::closing(&over, look))?;
        answer(&timeline::line("ledger", &look.paint(Tone::Good, &title), look))?;
        if let Some(action) = over.refused {
            explain(stage.store(), action, look)?;
        }
    }
    stage.strike().await?;
    Ok(ActReport { name, over, steps, took: began.elapsed() })
}

/// Verifies the ledger as an auditor would: offline, with the public key alone.
fn verified(stage: &Stage) -> anyhow::Result<u64> {
    let dir = stage.store().dir();
    Ok(Store::verify(dir, stage.store().verifier(), None)?.records)
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

fn step_json(told: &Told<'_>) -> Value {
    let played = match told {
        Told::Pending(step) => return json!({ "say": step.say, "pending": step.lacks.as_str() }),
        Told::LeftOut(step, why) => return json!({ "say": step.say, "left_out": why }),
        Told::Operated(operated) => return operated_json(operated),
        Told::Played(played) => played,
    };
    let causes = played.decision.deciding().map(
        |cause| json!({ "reason": cause.reason.code(), "rule": cause.rule, "text": cause.text }),
    );
    json!({
        "say": played.say,
        "agent": played.agent.map(ToString::to_string),
        "tool": played.call.tool.to_string(),
        "action": played.action.to_string(),
        "ruling": played.decision.ruling().as_str(),
        "causes": causes.collect::<Vec<_>>(),
        "preview": played.seen.as_ref().map(|seen| &seen.facts),
        "waits_for": played.waits_for.map(|id| id.to_string()),
        "outcome": played.outcome.as_ref().map(|outcome| outcome.status.as_str()),
        "unmet": played.unmet,
    })
}

fn operated_json(operated: &Operated<'_>) -> Value {
    let mut told = match &operated.deed {
        Deed::Answered { step, approval, stands } => json!({
            "operator": word(step.answer),
            "by": step.by.to_string(),
            "approval": approval.map(|id| id.to_string()),
            "state": stands.as_ref().map(|(state, _)| state.as_str()),
        }),
        Deed::Reverted { step, ends } => json!({
            "operator": "revert",
            "by": step.by.to_string(),
            "reverts": ends.iter().map(|(_, record)| json!(record)).collect::<Vec<_>>(),
        }),
        Deed::Proposed(_, row) => json!({
            "plan": row.as_ref().map(|row| row.plan.id.to_string()),
            "state": row.as_ref().map(|row| row.state.as_str()),
        }),
        Deed::Ruled(step, row) => json!({
            "operator": ruling(step.answer),
            "by": step.by.to_string(),
            "plan": row.as_ref().map(|row| row.plan.id.to_string()),
            "state": row.as_ref().map(|row| row.state.as_str()),
        }),
        Deed::Changed(step) => json!({ "meanwhile": step.database }),
    };
    told["say"] = json!(operated.say);
    told["unmet"] = json!(operated.unmet);
    told
}

fn act_line(name: &str, act: &ActReport, look: &Look) -> String {
    let over = &act.over;
    let expected = over.played.saturating_sub(over.unexpected);
    let mark = match over.is_good() {
        true => look.paint(Tone::Good, "ok"),
        false => look.paint(Tone::Bad, "UNEXPECTED"),
    };
    let changed = over.changed().into_iter();
    let changed = changed.map(|name| format!(", `{name}` was changed")).collect::<String>();
    let took = duration(u64::try_from(act.took.as_millis()).unwrap_or(u64::MAX));
    format!(
        "{name:<16} {:<9} {mark}  {expected} of {} as expected{changed}{}{}  {took}\n",
        act.name,
        count(wide(over.played), "step"),
        left_out_words(over.left_out),
        pending_words(&over.pending),
    )
}

fn left_out_words(left_out: usize) -> String {
    match left_out {
        0 => String::new(),
        some => format!(", {some} left out: this machine does not allow it"),
    }
}

fn pending_words(pending: &BTreeMap<Lack, usize>) -> String {
    if pending.is_empty() {
        return String::new();
    }
    let words = pending.iter().map(|(lack, steps)| format!("{} {steps}", lack.as_str()));
    let words = words.collect::<Vec<_>>().join(", ");
    format!(", {} pending: {words}", pending.values().sum::<usize>())
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
