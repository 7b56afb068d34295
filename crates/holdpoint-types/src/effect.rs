//! Effects: what one concrete call would do to one resource. Must not know how an effect was
//! found, nor where a resource lies: surfaces and environments are the operator's words.

use crate::class::EffectClass;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What is done to a resource, in words that do not depend on the way it is asked for: `DROP
/// TABLE`, `rm`, `kubectl delete` and an HTTP `DELETE` are all [`Verb::Delete`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Looks.
    Read,
    /// Makes something that was not there.
    Create,
    /// Changes or overwrites something that is there.
    Update,
    /// Deletes, empties, drops or destroys.
    Delete,
    /// Changes who may do what.
    Grant,
    /// Sends something to where it cannot be taken back: a message, a publication, a request to
    /// somebody else's system.
    Send,
    /// Runs something that does more than can be seen here.
    Execute,
    /// Has something run later, or on an event.
    Schedule,
    /// Cannot be told.
    Unknown,
}

/// How sure the analysis is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// This happens to this resource, as far as the text says.
    Exact,
    /// At most this: a pattern, a branch that may not be taken, a number of rows unknown.
    Bounded,
    /// The text does not say. Counts as destructive.
    Opaque,
}

/// The best that can ever be done to take an effect back, by the nature of the target. What
/// was really captured may be worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reversibility {
    /// R0: there is nothing to take back.
    NoEffect,
    /// R1: the state before can be captured and restored exactly.
    Exact,
    /// R2: exactly, until a retention period ends.
    ExactUntil,
    /// R3: an inverse exists; traces and side effects stay.
    Compensable,
    /// R4: never.
    Irreversible,
}

/// How much of the resource is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// A named part of it: rows by a predicate, one file.
    Part,
    /// All of it: every row, the whole tree, whatever a wildcard matches.
    Whole,
}

/// One thing that a call would do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Effect {
    /// What is done.
    pub verb: Verb,
    /// How dangerous that is. At least what [`Verb::floor`] says.
    pub class: EffectClass,
    /// To what: a typed address such as `pg://orders/public.users` or `file:///srv/app/x`.
    pub resource: String,
    /// To how much of it.
    pub extent: Extent,
    /// How sure that is.
    pub certainty: Certainty,
    /// How well it could be taken back at best.
    pub ceiling: Reversibility,
    /// What in the call says so, for people: a fragment such as "`DELETE` without `WHERE`".
    pub evidence: String,
}

// === impl Verb ===

impl Verb {
    /// All verbs.
    pub const ALL: [Self; 9] = [
        Self::Read,
        Self::Create,
        Self::Update,
        Self::Delete,
        Self::Grant,
        Self::Send,
        Self::Execute,
        Self::Schedule,
        Self::Unknown,
    ];

    /// The stable word used in records, configuration and the CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Grant => "grant",
            Self::Send => "send",
            Self::Execute => "execute",
            Self::Schedule => "schedule",
            Self::Unknown => "unknown",
        }
    }

    /// The mildest class that this verb can have.
    pub fn floor(self) -> EffectClass {
        match self {
            Self::Read => EffectClass::Read,
            Self::Create | Self::Update | Self::Send | Self::Execute | Self::Schedule => {
                EffectClass::Write
            }
            Self::Delete | Self::Grant | Self::Unknown => EffectClass::Destructive,
        }
    }

    /// What can be taken back at best, where the target says nothing else.
    fn ceiling(self) -> Reversibility {
        match self {
            Self::Read => Reversibility::NoEffect,
            Self::Create | Self::Update | Self::Grant | Self::Schedule => {
                Reversibility::Compensable
            }
            Self::Delete | Self::Send | Self::Execute | Self::Unknown => {
                Reversibility::Irreversible
            }
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Certainty ===

impl Certainty {
    /// The stable word used in records and the CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Bounded => "bounded",
            Self::Opaque => "opaque",
        }
    }
}

// === impl Extent ===

impl Extent {
    /// The stable word used in records and the CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Part => "part",
            Self::Whole => "whole",
        }
    }
}

// === impl Reversibility ===

impl Reversibility {
    /// The stable word used in records and the CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoEffect => "no_effect",
            Self::Exact => "exact",
            Self::ExactUntil => "exact_until",
            Self::Compensable => "compensable",
            Self::Irreversible => "irreversible",
        }
    }
}

// === impl Effect ===

impl Effect {
    /// An exact effect on a part of `resource`, in the verb's own class and with its ceiling.
    pub fn new(verb: Verb, resource: impl Into<String>, evidence: impl Into<String>) -> Self {
        Self {
            verb,
            class: verb.floor(),
            resource: resource.into(),
            extent: Extent::Part,
            certainty: Certainty::Exact,
            ceiling: verb.ceiling(),
            evidence: evidence.into(),
        }
    }

    /// What cannot be told: it counts as destructive and as irreversible.
    pub fn opaque(resource: impl Into<String>, evidence: impl Into<String>) -> Self {
        Self {
            extent: Extent::Whole,
            certainty: Certainty::Opaque,
            ..Self::new(Verb::Unknown, resource, evidence)
        }
    }

    /// The same in `class`, if that is stricter.
    #[must_use]
    pub fn at_least(mut self, class: EffectClass) -> Self {
        self.class = self.class.max(class);
        self
    }

    /// The same on all of the resource.
    #[must_use]
    pub fn whole(mut self) -> Self {
        self.extent = Extent::Whole;
        self
    }

    /// The same, no surer than `certainty`. What is opaque counts as destructive.
    #[must_use]
    pub fn no_surer_than(mut self, certainty: Certainty) -> Self {
        self.certainty = self.certainty.max(certainty);
        match self.certainty {
            Certainty::Opaque => self.at_least(EffectClass::Destructive),
            Certainty::Exact | Certainty::Bounded => self,
        }
    }

    /// The same with another ceiling.
    #[must_use]
    pub fn reversible(mut self, ceiling: Reversibility) -> Self {
        self.ceiling = ceiling;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{Certainty, Effect, Verb};
    use crate::EffectClass;

    #[test]
    fn no_effect_is_milder_than_its_verb() {
        for verb in Verb::ALL {
            let effect = Effect::new(verb, "x://y", "");
            assert_eq!(effect.clone().at_least(EffectClass::Read).class, verb.floor());
            let opaque = effect.no_surer_than(Certainty::Opaque);
            assert_eq!(opaque.class, EffectClass::Destructive);
        }
    }
}
