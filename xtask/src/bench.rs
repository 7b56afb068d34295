//! `cargo xtask bench`: builds for release and measures everything in one run, as one table.
//!
//! Owns what is measured and in which order: rounds are interleaved, because machines are noisy.
//! Must never assert: a number is for people to judge.

use anyhow::{Context, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

mod gateways;
mod http;
mod memory;
mod process;
mod sheet;

use gateways::{Config, Stores};
use sheet::{Sample, Sheet};

/// How many waiting actions, and how many calls at the same time.
const CONCURRENCIES: [usize; 3] = [1, 8, 64];
/// Sizes of policy sets.
const POLICIES: [usize; 3] = [100, 1_000, 10_000];
/// Families of analysers.
const FAMILIES: [&str; 7] = ["shell", "workflow", "sql", "http", "terraform", "kubernetes", "iam"];
/// The profile that is measured, and the folder of its programs: what a package would hold.
const PROFILE: &str = "dist";
/// A file system that lives in memory, on every Linux.
const IN_MEMORY: &str = "/dev/shm";
/// The parts of a run, for `--only`.
const PARTS: [&str; 7] = ["http", "decide", "effects", "ledger", "stdio", "start", MEMORY];
/// The part that is measured only if it is asked for.
const MEMORY: &str = "memory";

/// How long and how often everything is measured.
pub struct Plan {
    rounds: usize,
    seconds: f64,
    only: Option<String>,
    built: bool,
}

/// Measures one part.
type Part = fn(&Places, &Plan, &mut Sheet) -> anyhow::Result<()>;

/// Where the programs and the throw-away files are.
struct Places {
    programs: PathBuf,
    scratch: PathBuf,
    /// The same kind of folder in a file system that lives in memory.
    memory: PathBuf,
}

// === impl Plan ===

impl Plan {
    /// Reads `[--quick] [--built] [--only PART]`; `--built` takes the programs as they are.
    ///
    /// # Errors
    /// On any other word.
    pub fn parse(mut words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut plan = Self { rounds: 3, seconds: 2.0, only: None, built: false };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--quick" => (plan.rounds, plan.seconds) = (2, 0.7),
                "--built" => plan.built = true,
                "--only" => {
                    let part = words.next().context("--only needs the name of a part")?;
                    if !PARTS.contains(&part.as_str()) {
                        bail!("a part is one of {}, not `{part}`", PARTS.join(", "));
                    }
                    plan.only = Some(part);
                }
                _ => bail!("usage: cargo xtask bench [--quick] [--built] [--only PART]"),
            }
        }
        Ok(plan)
    }

    fn wants(&self, part: &str) -> bool {
        self.only.as_ref().map_or(part != MEMORY, |only| only == part)
    }
}

// === impl Places ===

impl Places {
    fn program(&self, name: &str) -> Command {
        Command::new(self.programs.join(name))
    }

    /// Runs a program that prints one JSON value.
    fn ask(&self, name: &str, words: &[&str]) -> anyhow::Result<Value> {
        let mut program = self.program(name);
        program.args(words).stderr(std::process::Stdio::inherit());
        let output = program.output().with_context(|| name.to_owned())?;
        if !output.status.success() {
            bail!("{name} {} failed: {}", words.join(" "), output.status);
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("{name} printed no JSON"))
    }
}

/// Builds, measures, prints.
///
/// # Errors
/// When something cannot be built, started or asked; never because of a number.
pub fn run(root: &Path, plan: &Plan) -> anyhow::Result<()> {
    if !plan.built {
        build(root)?;
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let scratch = target.join("bench").join(std::process::id().to_string());
    let memory = Path::new(IN_MEMORY).join(format!("holdpoint-bench-{}", std::process::id()));
    let places = Places { programs: target.join(PROFILE), scratch, memory };
    std::fs::create_dir_all(&places.scratch)?;
    std::fs::create_dir_all(&places.memory)?;
    let mut sheet = Sheet::default();
    let measured = measure(&places, plan, &mut sheet);
    // What was measured before a fault is worth the minutes that it took.
    println!("{sheet}");
    std::fs::remove_dir_all(&places.scratch)?;
    std::fs::remove_dir_all(&places.memory)?;
    measured
}

fn measure(places: &Places, plan: &Plan, sheet: &mut Sheet) -> anyhow::Result<()> {
    let parts: [(&str, Part); 7] = [
        ("http", http::measure),
        ("decide", decisions),
        ("effects", analyses),
        ("ledger", ledgers),
        ("stdio", stdio),
        ("start", starts),
        (MEMORY, memory::measure),
    ];
    for (part, measure) in parts {
        if plan.wants(part) {
            measure(places, plan, sheet).with_context(|| format!("measuring `{part}`"))?;
        }
    }
    Ok(())
}

fn build(root: &Path) -> anyhow::Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--profile", PROFILE, "-p", "holdpoint", "-p", "holdpoint-bench"]);
    if !cargo.current_dir(root).status()?.success() {
        bail!("the build failed");
    }
    Ok(())
}

/// The time of one decision, without a network and without a record.
fn decisions(places: &Places, plan: &Plan, sheet: &mut Sheet) -> anyhow::Result<()> {
    let name = |policies: usize| format!("one decision, {policies} policies");
    for _ in 0..plan.rounds {
        for policies in POLICIES {
            note(&name(policies));
            let report = places.ask("bench-inside", &["decide", &policies.to_string()])?;
            let sample = Sample { per_second: None, ..Sample::read(&report) };
            let base = (policies != POLICIES[0]).then(|| name(POLICIES[0]));
            sheet.add(&name(policies), base.as_deref(), sample);
        }
    }
    Ok(())
}

/// The time to say what one call would do, by its family.
fn analyses(places: &Places, plan: &Plan, sheet: &mut Sheet) -> anyhow::Result<()> {
    for _ in 0..plan.rounds {
        for family in FAMILIES {
            let name = format!("what a call of 2 KB would do, {family}");
            note(&name);
            let report = places.ask("bench-inside", &["effects", family])?;
            sheet.add(&name, None, Sample { per_second: None, ..Sample::read(&report) });
        }
    }
    Ok(())
}

/// Durable records per second.
fn ledgers(places: &Places, plan: &Plan, sheet: &mut Sheet) -> anyhow::Result<()> {
    let ways = [("file", "raw file"), ("sqlite", "bare SQLite table"), ("store", "the store")];
    let name = |title: &str, waiters: usize| format!("durable records, {title}, c={waiters}");
    for round in 0..plan.rounds {
        for waiters in CONCURRENCIES {
            for (way, title) in ways {
                let name_here = name(title, waiters);
                note(&name_here);
                let folder = places.scratch.join(format!("ledger-{way}-{waiters}-{round}"));
                let (waiting, seconds) = (waiters.to_string(), plan.seconds.to_string());
                let folder_text = folder.to_string_lossy();
                let words = ["ledger", way, &waiting, &seconds, &folder_text];
                let report = places.ask("bench-inside", &words)?;
                std::fs::remove_dir_all(&folder)?;
                let base = (way != "file").then(|| name(ways[0].1, waiters));
                sheet.add(&name_here, base.as_deref(), Sample::read(&report));
            }
        }
    }
    Ok(())
}

/// A stdio server by itself and wrapped: calls, and how long it takes to start.
fn stdio(places: &Places, plan: &Plan, sheet: &mut Sheet) -> anyhow::Result<()> {
    let echo = places.programs.join("bench-echo").to_string_lossy().into_owned();
    let stores = Stores::new(&places.scratch);
    let config = stores.configure("wrap", &Config::default())?;
    let product = places.programs.join("holdpoint").to_string_lossy().into_owned();
    let wrapped = [product.as_str(), "--config", &config, "wrap", "--agent", "caller"];
    let wrapped = [wrapped.as_slice(), &["--server", "echo", "--", &echo, "stdio"]].concat();
    let direct = [echo.as_str(), "stdio"].to_vec();
    let seconds = plan.seconds.to_string();
    for _ in 0..plan.rounds {
        for (title, command, base) in
            [("direct", &direct, None), ("wrap", &wrapped, Some("direct"))]
        {
            let name = |what: &str, title: &str| format!("{what}, {title}");
            note(&format!("stdio, {title}"));
            let words = [["stdio", "8", &seconds].as_slice(), command].concat();
            let report = places.ask("bench-load", &words)?;
            let base_calls = base.map(|base| name("tools/call over stdio, c=8", base));
            let calls = name("tools/call over stdio, c=8", title);
            sheet.add(&calls, base_calls.as_deref(), Sample::read(&report));
            let words = [["stdio", "1", "0"].as_slice(), command].concat();
            let started = places.ask("bench-load", &words)?["start_us"].as_f64();
            let sample = Sample { p50_us: started, ..Sample::default() };
            let base_start = base.map(|base| name("start of a stdio server", base));
            let start = name("start of a stdio server", title);
            sheet.add(&start, base_start.as_deref(), sample);
        }
    }
    Ok(())
}

/// How long `serve` takes until it listens, and what it holds then.
fn starts(places: &Places, plan: &Plan, sheet: &mut Sheet) -> anyhow::Result<()> {
    for round in 0..plan.rounds {
        for grants in [1, 10_000] {
            note(&format!("start, {grants} grants"));
            let stores = Stores::new(&places.scratch);
            let upstream = Some("http://127.0.0.1:9/mcp".to_owned());
            let name = format!("start-{grants}-{round}");
            let config = stores.configure(&name, &Config { upstream, grants, callers: 0 })?;
            let begun = std::time::Instant::now();
            let served = gateways::serve(places, &config)?;
            let elapsed = begun.elapsed().as_secs_f64() * 1e6;
            let rss_mib = Some(served.rss_mib()?);
            let sample = Sample { p50_us: Some(elapsed), rss_mib, ..Sample::default() };
            sheet.add(&format!("start of serve to ready, {grants} grants"), None, sample);
        }
    }
    Ok(())
}

/// Says what is being measured: a run takes minutes.
#[expect(clippy::print_stderr, reason = "progress stands beside the table, not in it")]
fn note(what: &str) {
    eprintln!("bench: {what}");
}
