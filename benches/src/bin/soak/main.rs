//! The soak: one `holdpoint serve` under load and trouble for a bounded time, watched for leaks and
//! for broken promises.
//!
//! `bench-soak PROGRAMS SCRATCH SECONDS [RATE]`. Owns the order of a run; exits with an error if
//! anything was broken. Must never forgive: what it cannot check counts as broken.

use anyhow::{Context, bail};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

mod agents;
mod audit;
mod proc;
mod stage;
mod trouble;

use agents::Load;
use audit::Audit;
use proc::Sample;
use stage::Stage;

/// How many calls a second all agents make together, unless said otherwise.
const RATE_DEFAULT: f64 = 40.0;
/// How often everything is checked while the load goes on, and how long the load warms up.
const CHECK_EVERY: Duration = Duration::from_secs(60);
const WARM_UP: Duration = Duration::from_secs(10);
/// How long what was going on may take to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an outcome may be on its way into the ledger.
const SETTLE: Duration = Duration::from_secs(2);
/// What may be more at the end than after the warm-up: descriptors and threads by number (pools
/// and caches), memory in MiB (the log's index, arenas of the allocator).
const DESCRIPTORS_MORE: usize = 16;
const THREADS_MORE: usize = 8;
const MEMORY_MORE_MIB: f64 = 24.0;

/// Tells everything to end.
#[derive(Clone, Default)]
struct Whistle(Arc<AtomicBool>);

impl Whistle {
    fn blow(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn blown(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Waits, but not beyond the whistle.
    async fn pause(&self, time: Duration) {
        let end = Instant::now() + time;
        while !self.blown() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20).min(time)).await;
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Whoever installed one before is fine, too.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (programs, scratch, seconds, rate) = match words.as_slice() {
        [programs, scratch, seconds] => (programs, scratch, seconds.parse()?, RATE_DEFAULT),
        [programs, scratch, seconds, rate] => (programs, scratch, seconds.parse()?, rate.parse()?),
        _ => bail!("usage: bench-soak PROGRAMS SCRATCH SECONDS [RATE]"),
    };
    let time = Duration::from_secs_f64(seconds);
    let stage = Stage::build(&PathBuf::from(programs), &PathBuf::from(scratch)).await?;
    let mut audit = Audit::open(&stage)?;
    println!("{}", Sample::HEAD);
    let first = run(&stage, &mut audit, time, rate).await?;
    quiet(&stage).await?;
    let last = check(&stage, &mut audit, "end").await?;
    compare(&first, &last, &mut audit);
    audit.nothing_open()?;
    stage.end()?;
    audit.verify(&stage)?;
    println!("\n{audit}");
    match audit.broken() {
        0 => Ok(()),
        count => bail!("{count} promises broken"),
    }
}

/// Load and trouble for `time`; gives the sample after the warm-up.
async fn run(
    stage: &Arc<Stage>,
    audit: &mut Audit,
    time: Duration,
    rate: f64,
) -> anyhow::Result<Sample> {
    let whistle = Whistle::default();
    let begun = Instant::now();
    let load = Load::start(stage, &whistle, rate);
    let warm = WARM_UP.min(time / 3);
    tokio::time::sleep(warm).await;
    let first = check(stage, audit, "warm").await?;
    let troubles = trouble::start(stage, &whistle, time);
    while let Some(left) = time.checked_sub(begun.elapsed()) {
        tokio::time::sleep(left.min(CHECK_EVERY)).await;
        check(stage, audit, &format!("{} s", begun.elapsed().as_secs())).await?;
        let over = time.saturating_sub(begun.elapsed()).is_zero();
        if !over && troubles.iter().any(|trouble| trouble.is_finished()) {
            // Its error is told below: a run without trouble shows nothing.
            break;
        }
    }
    whistle.blow();
    load.end().await?;
    for trouble in troubles {
        trouble.await??;
    }
    Ok(first)
}

/// Takes a sample, prints it, and checks the ledger against what agents and servers saw.
async fn check(stage: &Stage, audit: &mut Audit, when: &str) -> anyhow::Result<Sample> {
    let seen = stage.seen()?;
    tokio::time::sleep(SETTLE).await;
    audit.read(stage)?;
    audit.compare(&seen);
    audit.verify(stage)?;
    let sample = Sample::take(stage).await?;
    if sample.zombies > 0 {
        tokio::time::sleep(SETTLE).await;
        let again = Sample::take(stage).await?.zombies;
        audit.expect(again == 0, || format!("{again} zombies at {when}"));
    }
    println!("{}", sample.row(when, audit));
    Ok(sample)
}

/// Waits until nothing is in flight.
async fn quiet(stage: &Stage) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let sample = Sample::take(stage).await?;
        // Children beyond those of the servers belong to threads of clients that have left.
        if sample.in_flight == 0 && sample.waiting == 0 && sample.children <= stage::STDIO_SERVERS {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let sample = Sample::take(stage).await.context("the last look")?;
    bail!(
        "stuck: {} in flight, {} waiting, {} children",
        sample.in_flight,
        sample.waiting,
        sample.children
    )
}

/// What was there after the warm-up, and what is there at the end.
fn compare(first: &Sample, last: &Sample, audit: &mut Audit) {
    let grown = [
        ("descriptors", first.descriptors + DESCRIPTORS_MORE, last.descriptors),
        ("threads", first.threads + THREADS_MORE, last.threads),
        ("children", stage::STDIO_SERVERS, last.children),
    ];
    for (what, most, found) in grown {
        audit.expect(found <= most, || {
            format!("{found} {what} at the end, at most {most} expected")
        });
    }
    let most = first.memory_mib + MEMORY_MORE_MIB;
    audit.expect(last.memory_mib <= most, || {
        format!("{:.1} MiB at the end, {:.1} after the warm-up", last.memory_mib, first.memory_mib)
    });
}
