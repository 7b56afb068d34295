//! Programs under measurement: started, watched through `/proc`, and ended.
//! Must never leave one behind.

use anyhow::{Context, bail};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Microseconds in one tick of `/proc/PID/stat`: Linux counts 100 a second for every program.
const TICK_US: f64 = 10_000.0;

/// A program that serves at a URL.
pub(super) struct Served {
    child: Child,
    /// Where it serves.
    pub(super) url: String,
}

// === impl Served ===

impl Served {
    /// Starts a program and reads its URL from its output.
    pub(super) fn start(mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let output = child.stdout.take().context("no output")?;
        let mut served = Self { child, url: String::new() };
        for line in BufReader::new(output).lines() {
            let line = line?;
            if let Some(at) = line.find("http://") {
                let url = line[at..].split(['"', ' ']).next().unwrap_or_default();
                served.url = url.to_owned();
                return Ok(served);
            }
        }
        bail!("{command:?} ended before it served")
    }

    /// `HOST:PORT`.
    pub(super) fn authority(&self) -> &str {
        let rest = self.url.strip_prefix("http://").unwrap_or(&self.url);
        rest.split('/').next().unwrap_or(rest)
    }

    /// CPU time used since it started, all threads, in microseconds.
    pub(super) fn cpu_us(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The program's name stands in parentheses and may hold spaces.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let [user, system] = [11, 12].map(|at| fields.get(at).and_then(|f| f.parse::<f64>().ok()));
        Ok((user.context("no utime")? + system.context("no stime")?) * TICK_US)
    }

    /// Resident memory, in MiB.
    pub(super) fn rss_mib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.context("no VmRSS")? / 1024.0)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
