//! Memory over a million calls by ten thousand agents: it must not grow with either.
//! Must not be part of a whole run: it takes minutes and gigabytes of disk.

use super::gateways::{self, Config, Stores};
use super::process::Served;
use super::sheet::{Sample, Sheet};
use super::{Places, Plan};

/// How many agents call, each in turn.
const AGENTS: usize = 10_000;
/// How many calls there are between two looks, and how many looks.
const CALLS: usize = 100_000;
const LOOKS: usize = 10;
/// How many calls wait at one time.
const CONCURRENCY: usize = 64;

pub(super) fn measure(places: &Places, _plan: &Plan, sheet: &mut Sheet) -> anyhow::Result<()> {
    let mut echo = places.program("bench-echo");
    echo.arg("stateless");
    let upstream = Served::start(echo)?;
    let (stores, name) = (Stores::new(&places.scratch), "memory");
    let keys = stores.keys(places, name, (0..AGENTS).map(|agent| format!("caller-{agent}")))?;
    let path = places.scratch.join("memory.keys");
    std::fs::write(&path, keys)?;
    let keys = path.to_string_lossy();
    let config = Config { upstream: Some(upstream.url.clone()), grants: 0, callers: AGENTS };
    let served = gateways::serve(places, &stores.configure(name, &config)?)?;
    let start = Sample { rss_mib: Some(served.rss_mib()?), ..Sample::default() };
    sheet.add(&format!("{AGENTS} agents, before the first call"), None, start);
    let url = format!("{}/echo", served.url);
    let (concurrency, calls) = (CONCURRENCY.to_string(), CALLS.to_string());
    for look in 1..=LOOKS {
        let name = format!("{AGENTS} agents, after {} calls", look * CALLS);
        super::note(&name);
        let before = served.cpu_us()?;
        let words = ["calls", &url, &concurrency, &calls, &keys];
        let report = places.ask("bench-load", &words)?;
        let cpu_us = Some((served.cpu_us()? - before) / CALLS as f64);
        let rss_mib = Some(served.rss_mib()?);
        sheet.add(&name, None, Sample { cpu_us, rss_mib, ..Sample::read(&report) });
    }
    Ok(())
}
