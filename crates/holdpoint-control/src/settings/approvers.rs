//! Who may approve what: operators with their teams and roles, and what each approval needs.
//! Must not know what an approval is for.

use super::Settings;
use holdpoint_types::{AgentName, ApprovalAsked, OperatorName, TeamName};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The approval that whoever answers for the agent gives.
pub const OWNER: &str = "owner";
/// How long an approval can be given and used, unless the operator says otherwise, in milliseconds.
const EXPIRES_MS: u64 = 3_600_000;

/// A person or system that may speak for the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operator {
    /// The teams that it belongs to: it may approve as `owner` for their agents.
    pub teams: BTreeSet<TeamName>,
    /// What else it may approve as.
    pub roles: BTreeSet<String>,
    /// Its account on this machine, for the command line.
    pub user: Option<String>,
}

/// What an approval needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalRule {
    /// Who may give it: operators with one of these roles.
    pub roles: BTreeSet<String>,
    /// How many of them have to, at least one.
    pub count: u32,
    /// How long it can be given and used, in milliseconds.
    pub expires_ms: u64,
}

/// Why somebody's yes does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApproverFault {
    /// Nobody declared this operator.
    #[error("`{0}` is no declared operator")]
    Undeclared(String),
    /// Who asks for something does not approve it.
    #[error("`{agent}` acts for `{operator}`, who therefore cannot approve what it does")]
    Requester {
        /// The agent.
        agent: AgentName,
        /// Who asked.
        operator: OperatorName,
    },
    /// The operator has none of the roles.
    #[error("`{operator}` has none of the roles that count: {wanted}")]
    NoRole {
        /// Who asked.
        operator: OperatorName,
        /// What would count, for people.
        wanted: String,
    },
}

// === impl Operator ===

impl Operator {
    pub(super) fn describe(&self) -> Value {
        json!({ "teams": self.teams, "roles": self.roles, "user": self.user })
    }
}

// === impl ApprovalRule ===

impl ApprovalRule {
    /// What an approval that nobody declared needs: one operator with its name as a role.
    pub fn named(name: &str) -> Self {
        Self { roles: BTreeSet::from([name.to_owned()]), count: 1, expires_ms: EXPIRES_MS }
    }

    pub(super) fn describe(&self) -> Value {
        json!({ "roles": self.roles, "count": self.count, "expires_ms": self.expires_ms })
    }
}

// === impl Settings ===

impl Settings {
    /// What the approval that rules call `name` needs.
    pub fn approval_rule(&self, name: &str) -> ApprovalRule {
        let declared = self.parts().approvals.get(name).cloned();
        declared.unwrap_or_else(|| ApprovalRule::named(name))
    }

    /// What approvals of these names need together: how many people for each, and how long they
    /// can be given, in milliseconds.
    pub fn approval_needs<'a>(
        &self,
        names: impl Iterator<Item = &'a str>,
    ) -> (BTreeMap<String, u32>, u64) {
        let mut expires_ms = u64::MAX;
        let needs = names.map(|name| {
            let rule = self.approval_rule(name);
            expires_ms = expires_ms.min(rule.expires_ms);
            (name.to_owned(), rule.count.max(1))
        });
        let needs: BTreeMap<_, _> = needs.collect();
        (needs, if expires_ms == u64::MAX { EXPIRES_MS } else { expires_ms })
    }

    /// Which of the approvals that a call of `agent` asks for a yes of `operator` counts for.
    ///
    /// # Errors
    /// When it counts for none.
    pub fn counts_for(
        &self,
        operator: &OperatorName,
        whose: (&AgentName, Option<&TeamName>),
        asked: &ApprovalAsked,
    ) -> Result<BTreeSet<String>, ApproverFault> {
        let names = (asked.needs.keys(), asked.requester.as_ref());
        self.counts_among(operator, whose, names)
    }

    /// The same for approvals of any names, that this operator asks for.
    pub(super) fn counts_among<'a>(
        &self,
        operator: &OperatorName,
        (agent, owner): (&AgentName, Option<&TeamName>),
        (names, requester): (impl Iterator<Item = &'a String> + Clone, Option<&OperatorName>),
    ) -> Result<BTreeSet<String>, ApproverFault> {
        let parts = self.parts();
        let Some(declared) = parts.operators.get(operator) else {
            return Err(ApproverFault::Undeclared(operator.to_string()));
        };
        let acting = parts.agents.get(agent);
        if acting.is_some_and(|acting| acting.requesters.contains(operator))
            || requester == Some(operator)
        {
            let (agent, operator) = (agent.clone(), operator.clone());
            return Err(ApproverFault::Requester { agent, operator });
        }
        let owns = owner.is_some_and(|owner| declared.teams.contains(owner));
        let has = |role: &String| declared.roles.contains(role) || (role == OWNER && owns);
        let counts = names.clone().filter(|name| self.approval_rule(name).roles.iter().any(has));
        let counts: BTreeSet<_> = counts.cloned().collect();
        if counts.is_empty() {
            let roles = names.flat_map(|name| self.approval_rule(name).roles);
            let told = roles.map(|role| match (role == OWNER, owner) {
                (true, Some(owner)) => format!("team `{owner}` (owner)"),
                (true, None) | (false, _) => format!("role `{role}`"),
            });
            let wanted = told.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ");
            return Err(ApproverFault::NoRole { operator: operator.clone(), wanted });
        }
        Ok(counts)
    }

    /// The operators who could approve what a call of `agent` asks for.
    pub fn approvers(
        &self,
        whose: (&AgentName, Option<&TeamName>),
        asked: &ApprovalAsked,
    ) -> Vec<OperatorName> {
        let all = self.parts().operators.keys();
        all.filter(|name| self.counts_for(name, whose, asked).is_ok()).cloned().collect()
    }

    /// The operator with this account on this machine.
    pub fn operator_of_user(&self, user: &str) -> Option<&OperatorName> {
        let mut all = self.parts().operators.iter();
        all.find(|(_, one)| one.user.as_deref() == Some(user)).map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::{ApprovalRule, ApproverFault, Operator};
    use crate::settings::{Agent, Settings, SettingsParts, Team};
    use holdpoint_types::{ActionId, ApprovalAsked, Digest, Mode, Timestamp};
    use std::collections::BTreeMap;

    fn operator(teams: &[&str], roles: &[&str]) -> Operator {
        Operator {
            teams: teams.iter().map(|team| team.parse().unwrap()).collect(),
            roles: roles.iter().map(ToString::to_string).collect(),
            user: None,
        }
    }

    fn settings() -> Settings {
        let agent = Agent {
            owner: "platform".parse().unwrap(),
            mode: Mode::Auto,
            grants: Vec::new(),
            requesters: ["cleo".parse().unwrap()].into(),
        };
        let two = ApprovalRule { count: 2, expires_ms: 60_000, ..ApprovalRule::named("dba") };
        Settings::new(SettingsParts {
            teams: BTreeMap::from([("platform".parse().unwrap(), Team::default())]),
            agents: BTreeMap::from([("coder".parse().unwrap(), agent)]),
            operators: BTreeMap::from([
                ("ada".parse().unwrap(), operator(&["platform"], &["dba"])),
                ("bob".parse().unwrap(), operator(&["billing"], &[])),
                ("cleo".parse().unwrap(), operator(&["platform"], &["dba"])),
            ]),
            approvals: BTreeMap::from([("dba".to_owned(), two)]),
            ..SettingsParts::default()
        })
        .unwrap()
    }

    fn asked(names: &[&str]) -> ApprovalAsked {
        let (needs, _) = settings().approval_needs(names.iter().copied());
        let id = ActionId::new(Timestamp(0), [0; 10]);
        ApprovalAsked {
            id,
            binding: Digest::of(b""),
            needs,
            expires_ms: Timestamp(0),
            requester: None,
            instead_of: None,
        }
    }

    #[test]
    fn a_yes_counts_for_what_its_operator_may_approve() {
        let (settings, agent) = (settings(), "coder".parse().unwrap());
        let owner = "platform".parse().unwrap();
        let whose = (&agent, Some(&owner));
        let counts = |who: &str, names: &[&str]| {
            let counts = settings.counts_for(&who.parse().unwrap(), whose, &asked(names));
            counts.map(|names| names.into_iter().collect::<Vec<_>>().join(" "))
        };
        assert_eq!(counts("ada", &["owner"]), Ok("owner".to_owned()));
        assert_eq!(counts("ada", &["owner", "dba", "legal"]), Ok("dba owner".to_owned()));
        assert!(matches!(counts("bob", &["owner"]), Err(ApproverFault::NoRole { .. })));
        assert!(matches!(counts("cleo", &["owner"]), Err(ApproverFault::Requester { .. })));
        assert!(matches!(counts("dora", &["owner"]), Err(ApproverFault::Undeclared(_))));
        assert!(matches!(counts("ada", &[]), Err(ApproverFault::NoRole { .. })));
        let own = ApprovalAsked { requester: Some("ada".parse().unwrap()), ..asked(&["owner"]) };
        let own = settings.counts_for(&"ada".parse().unwrap(), whose, &own);
        assert!(matches!(own, Err(ApproverFault::Requester { .. })));
        assert_eq!(settings.approvers(whose, &asked(&["owner"])), ["ada".parse().unwrap()]);
    }

    #[test]
    fn several_approvals_need_what_each_needs_and_end_with_the_first() {
        let (needs, expires_ms) = settings().approval_needs(["owner", "dba"].into_iter());
        assert_eq!(needs, BTreeMap::from([("owner".to_owned(), 1), ("dba".to_owned(), 2)]));
        assert_eq!(expires_ms, 60_000);
    }
}
