//! Role definitions and role assignments of Azure. Format:
//! <https://learn.microsoft.com/azure/role-based-access-control/role-definitions>. Must never
//! leave a permission out.

use super::rules::{Rule, Set};
use super::texts;
use serde_json::{Map, Value};

/// The rules of a role definition or assignment; none if `value` is neither.
pub(super) fn rules(value: &Value) -> Option<Vec<Rule>> {
    let document = value.as_object()?;
    let inner = get(document, "properties").and_then(Value::as_object).unwrap_or(document);
    if let Some(role) = get(inner, "roleDefinitionId").or_else(|| get(inner, "roleDefinitionName"))
    {
        let who = get(inner, "principalId").and_then(Value::as_str)?;
        let scope = get(inner, "scope").and_then(Value::as_str).unwrap_or("*");
        let when = get(inner, "condition").and_then(Value::as_str).unwrap_or("");
        return Some(vec![rule(who, role.as_str()?, scope, when)]);
    }
    let scopes = texts(get(inner, "assignableScopes")?)?;
    let permissions: Vec<_> = match get(inner, "permissions") {
        Some(list) => list.as_array()?.iter().filter_map(Value::as_object).collect(),
        None => vec![inner],
    };
    let mut rules = Vec::new();
    for permission in permissions {
        for (yes, no) in [("actions", "notActions"), ("dataActions", "notDataActions")] {
            let whats = get(permission, yes).map_or(Some(Vec::new()), texts)?;
            let mut but = get(permission, no).map_or(Some(Vec::new()), texts)?;
            but.sort_unstable();
            for what in whats {
                for scope in &scopes {
                    rules.push(rule("holders of the role", what, scope, &but.join(" ")));
                }
            }
            if rules.len() > super::RULES_MAX {
                break;
            }
        }
    }
    Some(rules)
}

/// Azure's tools write keys in several cases.
fn get<'v>(map: &'v Map<String, Value>, key: &str) -> Option<&'v Value> {
    map.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
}

fn rule(who: &str, what: &str, on: &str, when: &str) -> Rule {
    Rule {
        allows: true,
        who: Set::like(who),
        what: Set::like(&what.to_lowercase()),
        on: Set::like(on),
        when: when.to_owned(),
        narrowed: false,
        scoped: true,
    }
}
