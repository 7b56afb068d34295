//! Whose turn it is to look at a target that a look keeps busy.
//!
//! Must never let one agent keep others from a target by looks that lead to nothing.

use holdpoint_types::{AgentName, ServerName};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedMutexGuard;

/// Looks that are shorter leave others room enough.
const LONG: Duration = Duration::from_secs(1);
/// How long a call waits for another one of its agent that looks at the same target.
const PATIENCE: Duration = Duration::from_secs(5);

/// The turns of all agents at all targets.
#[derive(Default)]
pub(super) struct Looks {
    turns: Mutex<BTreeMap<(AgentName, ServerName), Place>>,
}

/// One agent's turn at one target. When it is dropped, the agent leaves the target to others for as
/// long as it kept it busy, unless the look led to a permit.
pub(super) struct Turn {
    rest: OwnedMutexGuard<Rest>,
    since: Instant,
    fruitful: bool,
}

/// Where an agent waits for its turn at a target.
type Place = Arc<tokio::sync::Mutex<Rest>>;

/// Until when an agent leaves a target to others, and for how long it had kept it busy.
#[derive(Default)]
struct Rest(Option<(Instant, Duration)>);

// === impl Looks ===

impl Looks {
    /// The turn of `agent` at `server`.
    ///
    /// # Errors
    /// When it is not its turn: why, and when to try again.
    pub(super) async fn turn(
        &self,
        agent: &AgentName,
        server: &ServerName,
    ) -> Result<Turn, String> {
        let key = (agent.clone(), server.clone());
        let turn = Place::clone(self.turns.lock().entry(key).or_default());
        let Ok(rest) = tokio::time::timeout(PATIENCE, turn.lock_owned()).await else {
            let why = "another call of yours is still looked at there; retry when it has ended";
            return Err(why.to_owned());
        };
        let since = Instant::now();
        if let Some((until, kept)) = rest.0 {
            let left = until.saturating_duration_since(since);
            if !left.is_zero() {
                let seconds = left.as_millis().div_ceil(1000);
                let kept = kept.as_secs_f64();
                return Err(format!(
                    "your last look kept `{server}` busy for {kept:.1} s and led to nothing, so \
                     others have it for as long; retry in {seconds} s"
                ));
            }
        }
        Ok(Turn { rest, since, fruitful: false })
    }
}

// === impl Turn ===

impl Turn {
    /// The look led to a permit.
    pub(super) fn was_fruitful(mut self) {
        self.fruitful = true;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let kept = self.since.elapsed();
        let long = kept >= LONG && !self.fruitful;
        self.rest.0 = long.then(|| (Instant::now() + kept, kept));
    }
}
