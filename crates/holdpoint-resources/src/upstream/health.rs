//! How an upstream server is, for operators: state, era, restarts, last fault.
//! Must never connect, wait or change anything: looking is free.

use super::{State, Upstream};
use crate::mcp::Era;
use std::time::Duration;

/// Whether a server can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nobody needed it yet.
    Idle,
    /// It is being started or reached.
    Connecting,
    /// It is there.
    Up,
    /// It failed and is not back yet.
    Down,
}

/// How a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether it can be used.
    pub condition: Condition,
    /// The era that it speaks, while it is up.
    pub era: Option<Era>,
    /// How often it was started or reached anew after the first time.
    pub restarts: u64,
    /// Failures in a row.
    pub failures: u32,
    /// What went wrong last, and how long ago.
    pub last_fault: Option<(String, Duration)>,
}

// === impl Condition ===

impl Condition {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Idle, Self::Connecting, Self::Up, Self::Down];

    /// The stable word in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

// === impl Upstream ===

impl Upstream {
    /// How it is now.
    pub fn health(&self) -> Health {
        let own = self.0.signs.agents();
        if !own.is_empty() {
            return together(own.iter().map(Self::health));
        }
        let slot = self.slot();
        let (condition, era) = match &slot.state {
            State::Up(connected) if !connected.is_dead() => (Condition::Up, Some(connected.era)),
            State::Up(_) => (Condition::Down, None),
            State::Connecting(_) => (Condition::Connecting, None),
            State::Idle if slot.failures > 0 => (Condition::Down, None),
            State::Idle => (Condition::Idle, None),
        };
        let last_fault = slot.last_fault.as_ref();
        Health {
            condition,
            era,
            restarts: slot.opened.saturating_sub(1),
            failures: slot.failures,
            last_fault: last_fault.map(|(fault, at)| (fault.to_string(), at.elapsed())),
        }
    }
}

/// How a server is whose agents have connections of their own: as good as the best of them.
fn together(each: impl Iterator<Item = Health>) -> Health {
    let rank = |health: &Health| match health.condition {
        Condition::Up => 3,
        Condition::Connecting => 2,
        Condition::Down => 1,
        Condition::Idle => 0,
    };
    let start = Health {
        condition: Condition::Idle,
        era: None,
        restarts: 0,
        failures: 0,
        last_fault: None,
    };
    each.fold(start, |all, one| {
        let better = rank(&one) > rank(&all);
        let faults = all.last_fault.into_iter().chain(one.last_fault);
        Health {
            condition: if better { one.condition } else { all.condition },
            era: if better { one.era } else { all.era },
            restarts: all.restarts.saturating_add(one.restarts),
            failures: all.failures.max(one.failures),
            last_fault: faults.min_by_key(|(_, age)| *age),
        }
    })
}
