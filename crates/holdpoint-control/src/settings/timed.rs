//! Grants for a limited time, beside those that are declared. Must never make a grant count after
//! its end, nor change what was declared.

use super::Settings;
use super::approvers::{ApproverFault, OWNER};
use super::parts::{Grant, GrantFault};
use super::pattern::{Matcher, PatternFault, ToolPattern};
use holdpoint_types::{AgentName, EffectClass, OperatorName, TimedGrant, Timestamp, ToolRef};
use std::collections::BTreeSet;

/// Most patterns of one grant.
const PATTERNS_MAX: usize = 100;

/// A grant for a limited time, compiled.
#[derive(Clone, Debug)]
pub struct Timed {
    grant: TimedGrant,
    named: String,
    matcher: Matcher,
}

/// Why a grant for a limited time cannot be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimedFault {
    /// It reaches nothing.
    #[error("a grant needs between 1 and {PATTERNS_MAX} patterns over tools")]
    Patterns,
    /// What cannot be a pattern.
    #[error(transparent)]
    Pattern(#[from] PatternFault),
    /// A class that does not allow the patterns.
    #[error(transparent)]
    Grant(#[from] GrantFault),
}

// === impl Timed ===

impl Timed {
    /// Compiles `grant`, which facts call `named`.
    ///
    /// # Errors
    /// When the configuration would refuse such a grant, too.
    pub fn new(grant: TimedGrant, named: String) -> Result<Self, TimedFault> {
        if grant.tools.is_empty() || grant.tools.len() > PATTERNS_MAX {
            return Err(TimedFault::Patterns);
        }
        let tools = grant.tools.iter().map(|text| ToolPattern::parse(text));
        let tools = Grant::new(grant.class, tools.collect::<Result<_, _>>()?)?;
        let matcher = Matcher::of_tools(tools.tools().iter().enumerate())?;
        Ok(Self { grant, named, matcher })
    }

    /// The grant.
    pub fn grant(&self) -> &TimedGrant {
        &self.grant
    }

    fn reaches(&self, agent: &AgentName, tool: &ToolRef, class: EffectClass) -> bool {
        let grant = &self.grant;
        grant.agent == *agent
            && grant.class == class
            && !self.matcher.owners(&tool.to_string()).is_empty()
    }
}

// === impl Settings ===

impl Settings {
    /// The same settings with exactly these grants for a limited time. The digest stays that of
    /// what was declared.
    #[must_use]
    pub fn with_timed(&self, timed: Vec<Timed>) -> Self {
        Self { timed, ..self.clone() }
    }

    /// The grants for a limited time.
    pub fn timed(&self) -> &[Timed] {
        &self.timed
    }

    /// The same settings without the grants that are over at `now`, if there are any.
    pub fn without_ended(&self, now: Timestamp) -> Option<Self> {
        let ended = |one: &Timed| one.grant.until_ms <= now;
        if !self.timed.iter().any(ended) {
            return None;
        }
        let timed = self.timed.iter().filter(|one| !ended(one)).cloned();
        Some(self.with_timed(timed.collect()))
    }

    /// The grant for a limited time by which `agent` reaches `tool` in `class`: the one that lasts
    /// longest.
    pub(super) fn timed_grant_for(
        &self,
        agent: &AgentName,
        tool: &ToolRef,
        class: EffectClass,
    ) -> Option<String> {
        let reaching = self.timed.iter().filter(|one| one.reaches(agent, tool, class));
        let last = reaching.max_by_key(|one| (one.grant.until_ms, one.grant.id))?;
        Some(last.named.clone())
    }

    /// Whether `operator` may grant something to `agent`: whoever may approve as its owner.
    ///
    /// # Errors
    /// When it may not.
    pub fn may_grant(
        &self,
        operator: &OperatorName,
        agent: &AgentName,
    ) -> Result<(), ApproverFault> {
        let owner = self.parts.agents.get(agent).map(|declared| &declared.owner);
        let names = BTreeSet::from([OWNER.to_owned()]);
        self.counts_among(operator, (agent, owner), (names.iter(), None)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::{Timed, TimedFault};
    use crate::settings::{Agent, Grant, Settings, SettingsParts, Team, ToolPattern};
    use holdpoint_types::{EffectClass, Mode, TimedGrant, Timestamp, ToolRef};
    use std::collections::{BTreeMap, BTreeSet};

    fn timed(id: u64, class: EffectClass, tools: &[&str], until: i64) -> TimedGrant {
        TimedGrant {
            id,
            agent: "coder".parse().unwrap(),
            class,
            tools: tools.iter().map(ToString::to_string).collect(),
            until_ms: Timestamp(until),
            by: "ada".to_owned(),
            because: "a release".to_owned(),
        }
    }

    fn settings(grants: Vec<TimedGrant>) -> Settings {
        let read = Grant::new(EffectClass::Read, vec![ToolPattern::parse("fs__*").unwrap()]);
        let agent = Agent {
            owner: "platform".parse().unwrap(),
            mode: Mode::Auto,
            grants: vec![read.unwrap()],
            requesters: BTreeSet::new(),
        };
        let parts = SettingsParts {
            teams: BTreeMap::from([("platform".parse().unwrap(), Team::default())]),
            agents: BTreeMap::from([
                ("coder".parse().unwrap(), agent.clone()),
                ("other".parse().unwrap(), agent),
            ]),
            ..SettingsParts::default()
        };
        let compiled = grants.into_iter().map(|grant| {
            let named = format!("grant {}", grant.id);
            Timed::new(grant, named).unwrap()
        });
        Settings::new(parts).unwrap().with_timed(compiled.collect())
    }

    #[test]
    fn a_timed_grant_reaches_what_it_names_until_it_ends() {
        use EffectClass::{Destructive, Read, Write};
        let all = vec![
            timed(1, Write, &["fs__write_*"], 10),
            timed(2, Write, &["fs__write_a", "fs__move"], 20),
            timed(3, Destructive, &["fs__delete"], 10),
        ];
        let settings = settings(all);
        let found = |settings: &Settings, agent: &str, tool: &str, class| {
            let tool: ToolRef = tool.parse().unwrap();
            settings.grant_for(&agent.parse().unwrap(), &tool, class)
        };
        for (tool, class, by) in [
            ("fs__write_a", Read, Some("read fs__*")),
            ("fs__write_a", Write, Some("grant 2")),
            ("fs__write_b", Write, Some("grant 1")),
            ("fs__delete", Destructive, Some("grant 3")),
            ("fs__delete", Write, None),
            ("fs__write_a", Destructive, None),
            ("fs__other", Write, None),
        ] {
            assert_eq!(found(&settings, "coder", tool, class).as_deref(), by, "{tool} {class}");
        }
        assert_eq!(found(&settings, "other", "fs__write_a", Write), None);
        assert!(settings.without_ended(Timestamp(9)).is_none());
        let later = settings.without_ended(Timestamp(10)).unwrap();
        assert_eq!(found(&later, "coder", "fs__write_b", Write), None);
        assert_eq!(found(&later, "coder", "fs__delete", Destructive), None);
        assert_eq!(found(&later, "coder", "fs__move", Write).as_deref(), Some("grant 2"));
        assert_eq!(later.digest(), settings.digest());
        let none = later.without_ended(Timestamp(20)).unwrap();
        assert!(none.timed().is_empty());
    }

    #[test]
    fn a_timed_grant_is_checked_like_a_declared_one() {
        let new = |class, tools: &[&str]| Timed::new(timed(1, class, tools, 1), String::new());
        assert_eq!(new(EffectClass::Read, &[]).unwrap_err(), TimedFault::Patterns);
        let many = vec!["a"; 101];
        assert_eq!(new(EffectClass::Read, &many).unwrap_err(), TimedFault::Patterns);
        let vague = new(EffectClass::Destructive, &["fs__*"]).unwrap_err();
        assert!(matches!(vague, TimedFault::Grant(_)), "{vague}");
        let none = new(EffectClass::Write, &["fs__ä"]).unwrap_err();
        assert!(matches!(none, TimedFault::Pattern(_)), "{none}");
    }
}
