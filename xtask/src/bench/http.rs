//! The same `tools/call` over HTTP: direct, through the bare proxy, and governed.

use super::gateways::{self, Config, Stores};
use super::process::Served;
use super::sheet::{Sample, Sheet};
use super::{CONCURRENCIES, Places, Plan};
use std::path::Path;

/// How many grants the gateways hold besides the caller's.
const GRANTS: usize = 10_000;

/// One way to the tool.
struct Way {
    title: String,
    /// The title of the way that ratios refer to; none for that way itself.
    base: Option<String>,
    url: String,
    era: &'static str,
    key: Option<String>,
    /// What stands in between, if anything does.
    between: Option<Served>,
}

/// The ways to one upstream server, which lives as long as they do.
struct Ways {
    _upstream: Served,
    ways: Vec<Way>,
}

pub(super) fn measure(places: &Places, plan: &Plan, sheet: &mut Sheet) -> anyhow::Result<()> {
    let stateless = Ways::open(places, "stateless", "modern")?;
    let sessions = Ways::open(places, "sessions", "legacy")?;
    for _ in 0..plan.rounds {
        for concurrency in CONCURRENCIES {
            for way in stateless.ways.iter().chain(&sessions.ways) {
                let name = |title: &str| format!("tools/call, {title}, c={concurrency}");
                super::note(&name(&way.title));
                let sample = way.measure(places, concurrency, plan.seconds)?;
                sheet.add(&name(&way.title), way.base.as_deref().map(name).as_deref(), sample);
            }
        }
    }
    Ok(())
}

// === impl Ways ===

impl Ways {
    fn open(places: &Places, mode: &str, era: &'static str) -> anyhow::Result<Self> {
        let mut echo = places.program("bench-echo");
        echo.arg(mode);
        let upstream = Served::start(echo)?;
        let mut proxy = places.program("bench-proxy");
        proxy.arg(upstream.authority());
        let proxy = Served::start(proxy)?;
        let base = format!("direct, {mode}");
        let way = |what: &str, url: String, key: Option<String>, between: Served| Way {
            title: format!("{what}, {mode}"),
            base: Some(base.clone()),
            url,
            era,
            key,
            between: Some(between),
        };
        let direct = Way {
            title: base.clone(),
            base: None,
            url: upstream.url.clone(),
            era,
            key: None,
            between: None,
        };
        let (served, key) = governed(places, mode, &upstream)?;
        let (in_memory, other_key) = in_memory(places, mode, &upstream)?;
        let ways = vec![
            direct,
            way("bare proxy", proxy.url.clone(), None, proxy),
            way("holdpoint", format!("{}/echo", served.url), Some(key), served),
            way("store in memory", format!("{}/echo", in_memory.url), Some(other_key), in_memory),
        ];
        Ok(Self { _upstream: upstream, ways })
    }
}

// === impl Way ===

impl Way {
    fn measure(&self, places: &Places, concurrency: usize, seconds: f64) -> anyhow::Result<Sample> {
        let before = self.between.as_ref().map(Served::cpu_us).transpose()?;
        let (concurrency, seconds) = (concurrency.to_string(), seconds.to_string());
        let mut words = vec!["http", &self.url, self.era, &concurrency, &seconds];
        words.extend(self.key.as_deref());
        let report = places.ask("bench-load", &words)?;
        let after = self.between.as_ref().map(Served::cpu_us).transpose()?;
        let calls = report["calls"].as_f64().unwrap_or_default();
        let cpu_us = before.zip(after).map(|(before, after)| (after - before) / calls);
        let rss_mib = self.between.as_ref().map(Served::rss_mib).transpose()?;
        Ok(Sample { cpu_us, rss_mib, ..Sample::read(&report) })
    }
}

/// The product: key, policy, schema, durable record.
fn governed(places: &Places, mode: &str, upstream: &Served) -> anyhow::Result<(Served, String)> {
    let name = format!("governed-{mode}");
    governed_in(places, (&places.scratch, &name), upstream)
}

/// The same with its store in a file system that lives in memory: nothing waits for a disk. What
/// the program does is the same to the last line.
fn in_memory(places: &Places, mode: &str, upstream: &Served) -> anyhow::Result<(Served, String)> {
    let name = format!("in-memory-{mode}");
    governed_in(places, (&places.memory, &name), upstream)
}

fn governed_in(
    places: &Places,
    (folder, name): (&Path, &str),
    upstream: &Served,
) -> anyhow::Result<(Served, String)> {
    let stores = Stores::new(folder);
    let key = stores.keys(places, name, std::iter::once("caller".to_owned()))?;
    let upstream = Some(upstream.url.clone());
    let config = stores.configure(name, &Config { upstream, grants: GRANTS, callers: 0 })?;
    Ok((gateways::serve(places, &config)?, key))
}
