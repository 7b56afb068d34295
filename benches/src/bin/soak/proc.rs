//! What the gateway's process holds, from `/proc` and its own metrics. Must never disturb it.

use crate::audit::Audit;
use crate::stage::Stage;
use anyhow::Context as _;

/// One look at the gateway.
pub struct Sample {
    pub memory_mib: f64,
    pub descriptors: usize,
    pub threads: usize,
    pub children: usize,
    pub zombies: usize,
    pub in_flight: u64,
    pub waiting: u64,
    pub connections: u64,
    pub restarts: u64,
}

// === impl Sample ===

impl Sample {
    /// The head of the table.
    pub const HEAD: &str = "    when   MiB   fds threads children zombies in-flight connections \
                            restarts |  records permitted acknowledged effects broken";

    pub async fn take(stage: &Stage) -> anyhow::Result<Self> {
        let pid = stage.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|line| line.split_whitespace().next());
            word.and_then(|word| word.parse::<f64>().ok()).with_context(|| format!("no {name}"))
        };
        let family = family(pid)?;
        let page = reqwest::get(format!("{}/metrics", stage.operations)).await?.text().await?;
        let metric = |name: &str| {
            let lines = page.lines().filter_map(|line| line.strip_prefix(name));
            let values = lines.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok());
            values.sum::<f64>() as u64
        };
        Ok(Self {
            memory_mib: field("VmRSS:")? / 1024.0,
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            threads: field("Threads:")? as usize,
            children: family.iter().filter(|(_, state)| *state != 'Z').count(),
            zombies: family.iter().filter(|(_, state)| *state == 'Z').count(),
            in_flight: metric("holdpoint_calls_in_flight "),
            waiting: metric("holdpoint_requests_waiting "),
            connections: metric("holdpoint_connections "),
            restarts: metric("holdpoint_upstream_restarts{"),
        })
    }

    pub fn row(&self, when: &str, audit: &Audit) -> String {
        format!(
            "{when:>8} {:>5.1} {:>5} {:>7} {:>8} {:>7} {:>9} {:>11} {:>8} | {}",
            self.memory_mib,
            self.descriptors,
            self.threads,
            self.children,
            self.zombies,
            self.in_flight,
            self.connections,
            self.restarts,
            audit.row(),
        )
    }
}

/// The living children of a process.
pub fn children(parent: u32) -> anyhow::Result<Vec<u32>> {
    let living = family(parent)?.into_iter().filter(|(_, state)| *state != 'Z');
    Ok(living.map(|(pid, _)| pid).collect())
}

/// Every child of a process with its state.
fn family(parent: u32) -> anyhow::Result<Vec<(u32, char)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may end between two lines of this.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let state = fields.next().and_then(|state| state.chars().next());
        let of = fields.next().and_then(|parent| parent.parse::<u32>().ok());
        if let (Some(state), true) = (state, of == Some(parent)) {
            found.push((pid, state));
        }
    }
    found.sort_unstable();
    Ok(found)
}
