//! Checks who may speak for the operator, and what approvals need.
//! Must not read a key.

use super::Checker;
use crate::config::checked::ValueSource;
use crate::config::raw::{At, Named, RawApproval, RawOperator};
use holdpoint_control::{ApprovalRule, OWNER, Operator};
use holdpoint_types::OperatorName;
use std::collections::{BTreeMap, BTreeSet};

/// Most people whom one approval can need.
const COUNT_MAX: u64 = 16;
/// Longest time for which an approval can be given, in seconds: a week.
const EXPIRES_S_MAX: u64 = 7 * 24 * 3600;

// === impl Checker ===

impl Checker<'_> {
    /// The operators, and where the keys of those are who have one.
    pub(super) fn operators(
        &mut self,
        raw: &Named<RawOperator>,
    ) -> (BTreeMap<OperatorName, Operator>, BTreeMap<OperatorName, ValueSource>) {
        let (mut operators, mut keys) = (BTreeMap::new(), BTreeMap::new());
        let mut users = BTreeSet::new();
        for (name, operator) in raw {
            let (span, one) = (operator.span(), operator.get());
            let key = one.key.as_ref().map(|key| self.value_reference(key.span(), key.get()));
            if key.is_none() && one.user.is_none() && !self.dropped.has(span.start, "key") {
                let message = "an operator needs a `key`, a `user`, or both".to_owned();
                let add = "add `user = \"ACCOUNT\"`, or `key = { from_env = \"NAME\" }`";
                self.fault(span.clone(), message, add.to_owned());
            }
            if let Some(user) = &one.user
                && !users.insert(user.get().clone())
            {
                let message = format!("another operator has the account `{}`", user.get());
                self.fault(user.span(), message, None);
            }
            let teams = one.teams.iter().filter_map(|team| self.reference("team", team)).collect();
            let roles = one.roles.iter().filter_map(|role| self.role(role)).collect();
            let user = one.user.as_ref().map(|user| user.get().clone());
            let Some(name) = self.parse_name::<OperatorName>(name) else { continue };
            operators.insert(name.clone(), Operator { teams, roles, user });
            keys.extend(key.flatten().map(|key| (name, key)));
        }
        (operators, keys)
    }

    /// What approvals need. `operators` tells whether anybody can give them.
    pub(super) fn approvals(
        &mut self,
        raw: &Named<RawApproval>,
        operators: &BTreeMap<OperatorName, Operator>,
    ) -> BTreeMap<String, ApprovalRule> {
        let mut rules = BTreeMap::new();
        for (name, approval) in raw {
            let one = approval.get();
            let mut rule = ApprovalRule::named(name.get());
            if let Some(roles) = &one.roles {
                rule.roles = roles.iter().filter_map(|role| self.role(role)).collect();
                if roles.is_empty() {
                    let message = "an approval without roles can be given by nobody".to_owned();
                    self.fault(approval.span(), message, None);
                }
            }
            if let Some(count) = &one.count {
                let count = self.between(count, "count", (1, COUNT_MAX));
                rule.count = u32::try_from(count).unwrap_or(u32::MAX);
            }
            if let Some(expires) = &one.expires_s {
                rule.expires_ms = 1000 * self.between(expires, "expires_s", (1, EXPIRES_S_MAX));
            }
            let can = |one: &&Operator| {
                let owner = rule.roles.contains(OWNER) && !one.teams.is_empty();
                owner || !one.roles.is_disjoint(&rule.roles)
            };
            let able = operators.values().filter(can).count();
            // Where nobody is declared, whoever owns the store speaks, and counts once.
            let able = if operators.is_empty() { 1 } else { able };
            if u32::try_from(able).is_ok_and(|able| able < rule.count) {
                let message = format!(
                    "`{}` needs {} operators with one of its roles, and {able} could give it",
                    name.get(),
                    rule.count,
                );
                let add = "give operators `roles` or `teams`, or lower `count`";
                self.warn(approval.span(), message, add.to_owned());
            }
            rules.insert(name.get().clone(), rule);
        }
        rules
    }

    fn role(&mut self, role: &At<String>) -> Option<String> {
        self.word("role", &role.span(), Some(role))
    }

    fn between(&mut self, value: &At<u64>, key: &str, (min, max): (u64, u64)) -> u64 {
        if !(min..=max).contains(value.get()) {
            let message = format!("`{key}` must be between {min} and {max}");
            self.fault(value.span(), message, None);
            return min;
        }
        *value.get()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::check::check;
    use crate::config::fault::Colour;
    use expect_test::expect;
    use std::path::Path;

    fn shown(text: &str) -> String {
        let (_, report) = check("holdpoint.toml", Path::new("/etc/hp/holdpoint.toml"), text);
        report.render(Colour::Never)
    }

    #[test]
    fn approvals_and_operators_are_checked() {
        let good = r#"
            [team.platform]
            [operator.ada]
            user = "ada"
            teams = ["platform"]
            [operator.bob]
            key = { from_env = "BOB" }
            roles = ["dba"]
            [approval.owner]
            roles = ["owner", "dba"]
            count = 2
            expires_s = 604800
        "#;
        expect![[""]].assert_eq(&shown(good));
        let faults = |text: &str| {
            let lines = shown(text);
            let heads = lines.lines().filter(|line| {
                ["fault", "warning", "error"].iter().any(|word| line.starts_with(word))
            });
            heads.map(|line| format!("{line}\n")).collect::<String>()
        };
        expect![[r#"
            error: an operator needs a `key`, a `user`, or both
            error: the team `platfrom` is not declared
            error: another operator has the account `bob`
            error: `Not A Role` is not a valid role name: use 1 to 64 of `a-z`, `0-9`, `-`, `.` and single `_`, starting with a letter
            error: an approval without roles can be given by nobody
            warning: `owner` needs 1 operators with one of its roles, and 0 could give it
            warning: `dba` needs 1 operators with one of its roles, and 0 could give it
            error: `count` must be between 1 and 16
            warning: `dbb` needs 1 operators with one of its roles, and 0 could give it
            error: `count` must be between 1 and 16
            warning: `legal` needs 1 operators with one of its roles, and 0 could give it
            error: `expires_s` must be between 1 and 604800
            error: the operator `adda` is not declared
        "#]].assert_eq(&faults(
            r#"
            [operator.ada]
            [operator.bob]
            user = "bob"
            teams = ["platfrom"]
            [operator.cleo]
            user = "bob"
            roles = ["Not A Role"]
            [approval.owner]
            roles = []
            [approval.dba]
            count = 17
            [approval.dbb]
            count = 0
            [approval.legal]
            expires_s = 604801
            [team.platform]
            [agent.coder]
            owner = "platform"
            requesters = ["adda"]
            grants = [{ class = "read", tools = ["*"] }]
            "#,
        ));
    }
}
