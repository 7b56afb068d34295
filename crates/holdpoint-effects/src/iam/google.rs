//! Allow policies and custom roles of Google Cloud. Format:
//! <https://cloud.google.com/iam/docs/reference/rest/v1/Policy>. Must never leave a member out.

use super::rules::{Rule, Set};
use super::texts;
use serde_json::Value;

/// The rules of a policy or custom role; none if `value` is neither.
pub(super) fn rules(value: &Value) -> Option<Vec<Rule>> {
    let document = value.as_object()?;
    if let Some(permissions) = document.get("includedPermissions") {
        let whats = texts(permissions)?;
        return Some(whats.into_iter().map(|what| rule("holders of the role", what, "")).collect());
    }
    let known = ["bindings", "etag", "version", "auditConfigs", "kind", "resourceId"];
    if !document.keys().all(|key| known.contains(&key.as_str())) {
        return None;
    }
    let mut rules = Vec::new();
    for binding in document.get("bindings")?.as_array()? {
        let role = binding.get("role")?.as_str()?;
        let condition = binding.get("condition").and_then(|condition| condition.get("expression"));
        let when = match condition {
            Some(expression) => expression.as_str()?,
            None => "",
        };
        for member in texts(binding.get("members")?)? {
            rules.push(rule(member, role, when));
        }
        if rules.len() > super::RULES_MAX {
            break;
        }
    }
    Some(rules)
}

fn rule(who: &str, what: &str, when: &str) -> Rule {
    Rule {
        allows: true,
        who: Set::like(who),
        what: Set::like(&what.to_lowercase()),
        on: Set::All,
        when: when.to_owned(),
        narrowed: false,
        scoped: true,
    }
}
