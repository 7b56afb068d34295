//! Whose turn it is: how many requests each agent may have at one time, and who is next.
//!
//! Freed places go round among the agents that wait, so that one with many requests does not push
//! another aside. Must never let an agent wait for ever, nor keep a place that nobody uses.

use crate::telemetry::Telemetry;
use holdpoint_types::AgentName;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How much is done at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnLimits {
    /// Most requests of all agents together.
    pub all_max: usize,
    /// Most requests of one agent.
    pub agent_max: usize,
    /// Most requests of one agent that wait.
    pub queue_max: usize,
    /// How long a request may wait.
    pub wait: Duration,
}

/// The turns of one door.
#[derive(Default)]
pub(super) struct Turns {
    table: Mutex<Table>,
}

/// One request's turn; over when dropped.
pub(super) struct Turn {
    turns: Arc<Turns>,
    agent: AgentName,
}

/// A request that waits. Dropping it gives up, or gives back what was granted meanwhile.
struct Waiting {
    turns: Arc<Turns>,
    agent: AgentName,
    granted: oneshot::Receiver<()>,
}

/// Counts a request while it waits.
struct Counted<'a>(&'a Telemetry);

#[derive(Default)]
struct Table {
    limits: TurnLimits,
    running: usize,
    lines: BTreeMap<AgentName, Line>,
    /// Agents with requests that wait; the first one is next.
    round: VecDeque<AgentName>,
}

#[derive(Default)]
struct Line {
    running: usize,
    waiting: VecDeque<oneshot::Sender<()>>,
}

/// The answer to who asks for a turn.
enum Asked {
    Granted,
    Full,
    Waits(oneshot::Receiver<()>, Duration),
}

// === impl TurnLimits ===

impl Default for TurnLimits {
    fn default() -> Self {
        let wait = Duration::from_secs(5);
        Self { all_max: 256, agent_max: 64, queue_max: 64, wait }
    }
}

// === impl Turns ===

impl Turns {
    /// Replaces the limits; who has a turn keeps it.
    pub(super) fn limit(&self, limits: TurnLimits) {
        let mut table = self.table.lock();
        table.limits = limits;
        table.grant();
    }

    /// Waits for a turn of `agent`. None if too many wait already, or it takes too long.
    pub(super) async fn take(
        self: &Arc<Self>,
        agent: &AgentName,
        telemetry: &Telemetry,
    ) -> Option<Turn> {
        let (granted, wait) = match self.table.lock().ask(agent) {
            Asked::Granted => return Some(Turn::of(self, agent)),
            Asked::Full => return None,
            Asked::Waits(granted, wait) => (granted, wait),
        };
        let _counted = Counted::new(telemetry);
        let mut waiting = Waiting { turns: Arc::clone(self), agent: agent.clone(), granted };
        let granted = timeout(wait, &mut waiting.granted).await;
        match granted {
            Ok(Ok(())) => Some(Turn::of(self, agent)),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    fn end(&self, agent: &AgentName) {
        let mut table = self.table.lock();
        table.end(agent);
        table.grant();
    }
}

// === impl Turn ===

impl Turn {
    fn of(turns: &Arc<Turns>, agent: &AgentName) -> Self {
        Self { turns: Arc::clone(turns), agent: agent.clone() }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.end(&self.agent);
    }
}

// === impl Waiting ===

impl Drop for Waiting {
    fn drop(&mut self) {
        self.granted.close();
        // Granted after we stopped waiting: nobody else would ever give it back. What was received
        // before is not received again.
        if self.granted.try_recv().is_ok() {
            self.turns.end(&self.agent);
        }
    }
}

// === impl Counted ===

impl<'a> Counted<'a> {
    fn new(telemetry: &'a Telemetry) -> Self {
        telemetry.waits();
        Self(telemetry)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.waited();
    }
}

// === impl Table ===

impl Table {
    fn ask(&mut self, agent: &AgentName) -> Asked {
        let limits = self.limits;
        let line = self.lines.entry(agent.clone()).or_default();
        line.waiting.retain(|waiting| !waiting.is_closed());
        let free = self.running < limits.all_max && line.running < limits.agent_max;
        if free && line.waiting.is_empty() {
            line.running += 1;
            self.running += 1;
            return Asked::Granted;
        }
        if line.waiting.len() >= limits.queue_max {
            self.forget(agent);
            return Asked::Full;
        }
        let (grant, granted) = oneshot::channel();
        line.waiting.push_back(grant);
        if !self.round.contains(agent) {
            self.round.push_back(agent.clone());
        }
        Asked::Waits(granted, limits.wait)
    }

    fn end(&mut self, agent: &AgentName) {
        self.running = self.running.saturating_sub(1);
        if let Some(line) = self.lines.get_mut(agent) {
            line.running = line.running.saturating_sub(1);
        }
        self.forget(agent);
    }

    /// Gives free places to those that wait, one agent after the other.
    fn grant(&mut self) {
        let mut passed = 0;
        while self.running < self.limits.all_max && passed < self.round.len() {
            let Some(agent) = self.round.pop_front() else { return };
            let granted = self.grant_one(&agent);
            passed = if granted { 0 } else { passed + 1 };
            if self.lines.get(&agent).is_some_and(|line| !line.waiting.is_empty()) {
                self.round.push_back(agent);
            } else {
                passed = passed.saturating_sub(1);
                self.forget(&agent);
            }
        }
    }

    fn grant_one(&mut self, agent: &AgentName) -> bool {
        let Some(line) = self.lines.get_mut(agent) else { return false };
        if line.running >= self.limits.agent_max {
            return false;
        }
        while let Some(waiting) = line.waiting.pop_front() {
            // Whoever gave up is passed over.
            if waiting.send(()).is_ok() {
                line.running += 1;
                self.running += 1;
                return true;
            }
        }
        false
    }

    fn forget(&mut self, agent: &AgentName) {
        let unused = |line: &Line| line.running == 0 && line.waiting.is_empty();
        if self.lines.get(agent).is_some_and(unused) {
            self.lines.remove(agent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Telemetry, Turn, TurnLimits, Turns};
    use holdpoint_types::AgentName;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::sync::mpsc;

    fn turns(all_max: usize, agent_max: usize, queue_max: usize) -> Arc<Turns> {
        let turns = Arc::new(Turns::default());
        turns.limit(TurnLimits { all_max, agent_max, queue_max, wait: Duration::from_secs(60) });
        turns
    }

    fn name(text: &str) -> AgentName {
        text.parse().unwrap()
    }

    async fn take(turns: &Arc<Turns>, agent: &str) -> Option<Turn> {
        turns.take(&name(agent), &Telemetry::default()).await
    }

    /// Lets every task run that can.
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn free_places_go_round_among_agents() {
        let turns = turns(1, 1, 8);
        let first = take(&turns, "greedy").await.unwrap();
        let (sender, mut order) = mpsc::unbounded_channel();
        for agent in ["greedy", "greedy", "greedy", "modest"] {
            let (turns, sender) = (Arc::clone(&turns), sender.clone());
            tokio::spawn(async move {
                let turn = take(&turns, agent).await.unwrap();
                sender.send((agent, turn)).unwrap();
            });
            settle().await;
        }
        drop((first, sender));
        let mut seen = Vec::new();
        while let Some((agent, turn)) = order.recv().await {
            seen.push(agent);
            drop(turn);
        }
        assert_eq!(seen, ["greedy", "modest", "greedy", "greedy"]);
        assert!(turns.table.lock().lines.is_empty(), "nothing is kept");
    }

    #[tokio::test]
    async fn an_agent_at_its_own_limit_holds_nobody_else_up() {
        let turns = turns(4, 1, 0);
        let one = take(&turns, "one").await.unwrap();
        assert!(take(&turns, "one").await.is_none(), "no queue");
        let two = take(&turns, "two").await.unwrap();
        drop(one);
        assert!(take(&turns, "one").await.is_some());
        drop(two);
    }

    #[tokio::test]
    async fn who_gives_up_leaves_no_trace() {
        let turns = turns(1, 1, 1);
        let one = take(&turns, "one").await.unwrap();
        let waiting = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { take(&turns, "one").await.is_some() }
        });
        settle().await;
        assert!(take(&turns, "one").await.is_none(), "the queue is full");
        waiting.abort();
        settle().await;
        drop(one);
        assert!(take(&turns, "one").await.is_some());
        assert!(turns.table.lock().lines.is_empty());
        assert_eq!(turns.table.lock().running, 0);
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let turns = turns(1, 1, 1);
        let wait = Duration::from_millis(1);
        turns.limit(TurnLimits { all_max: 1, agent_max: 1, queue_max: 1, wait });
        let one = take(&turns, "one").await.unwrap();
        assert!(take(&turns, "one").await.is_none());
        drop(one);
        assert!(take(&turns, "one").await.is_some());
    }
}
