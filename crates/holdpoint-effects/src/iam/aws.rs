//! Policy documents of AWS: identity, resource and trust policies. Grammar:
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html>. Must never
//! leave an element out because it does not know it.

use super::rules::{Rule, Set};
use super::{LISTS, texts};
use serde_json::{Map, Value};

/// Where tokens of GitHub's build system come from: without a `sub`, from anybody's build.
const GITHUB: &str = "token.actions.githubusercontent.com";

/// The rules of an AWS policy; none if `value` is not one that is wholly known.
pub(super) fn rules(value: &Value) -> Option<Vec<Rule>> {
    let document = value.as_object()?;
    let known = ["Version", "Id", "Statement"];
    if !document.keys().all(|key| known.contains(&key.as_str())) {
        return None;
    }
    let statements = match document.get("Statement")? {
        Value::Array(list) => list.iter().collect(),
        one => vec![one],
    };
    let mut rules = Vec::new();
    for statement in statements {
        rules.extend(statement_rules(statement.as_object()?)?);
        if rules.len() > super::RULES_MAX {
            break;
        }
    }
    Some(rules)
}

fn statement_rules(statement: &Map<String, Value>) -> Option<Vec<Rule>> {
    const KNOWN: [&str; 9] = [
        "Sid",
        "Effect",
        "Principal",
        "NotPrincipal",
        "Action",
        "NotAction",
        "Resource",
        "NotResource",
        "Condition",
    ];
    if !statement.keys().all(|key| KNOWN.contains(&key.as_str())) {
        return None;
    }
    let allows = match statement.get("Effect")?.as_str()? {
        "Allow" => true,
        "Deny" => false,
        _ => return None,
    };
    let whats = sets(statement, "Action", "NotAction", &str::to_lowercase)??;
    let ons = sets(statement, "Resource", "NotResource", &str::to_owned)?;
    // A trust policy has no resource: it is about the role that it is attached to.
    let (ons, scoped) = match ons {
        Some(ons) => (ons, false),
        None => (vec![Set::All], true),
    };
    let whos = principals(statement)?;
    let condition = statement.get("Condition");
    let when = condition.map(canonical).unwrap_or_default();
    let narrowed = condition.is_some_and(narrows);
    let mut rules = Vec::new();
    for who in &whos {
        let open_build = is_github(who) && !condition.is_some_and(names_a_repository);
        let who = if open_build { &Set::All } else { who };
        for what in &whats {
            for on in &ons {
                if rules.len() > super::RULES_MAX {
                    return Some(rules);
                }
                rules.push(Rule {
                    allows,
                    who: who.clone(),
                    what: what.clone(),
                    on: on.clone(),
                    when: when.clone(),
                    narrowed: narrowed && !open_build,
                    scoped,
                });
            }
        }
    }
    Some(rules)
}

/// The sets under `key` or, turned round, under `not_key`. The outer option is empty if they
/// cannot be read, the inner one if there is neither.
#[expect(clippy::option_option, reason = "a key that cannot be read is not one that is absent")]
fn sets(
    statement: &Map<String, Value>,
    key: &str,
    not_key: &str,
    fold: &dyn Fn(&str) -> String,
) -> Option<Option<Vec<Set>>> {
    match (statement.get(key), statement.get(not_key)) {
        (None, None) => Some(None),
        (Some(yes), None) => {
            let patterns = texts(yes)?;
            Some(Some(patterns.into_iter().map(|text| Set::like(&fold(text))).collect()))
        }
        (None, Some(no)) => {
            let mut patterns: Vec<_> = texts(no)?.into_iter().map(fold).collect();
            patterns.sort();
            Some(Some(vec![Set::Except(patterns)]))
        }
        (Some(_), Some(_)) => None,
    }
}

fn principals(statement: &Map<String, Value>) -> Option<Vec<Set>> {
    match (statement.get("Principal"), statement.get("NotPrincipal")) {
        (None, None) => Some(vec![Set::Like("holder".to_owned())]),
        (Some(yes), None) => Some(named(yes)?.iter().map(|name| Set::like(name)).collect()),
        (None, Some(no)) => Some(vec![Set::Except(named(no)?)]),
        (Some(_), Some(_)) => None,
    }
}

fn named(principal: &Value) -> Option<Vec<String>> {
    if let Some(text) = principal.as_str() {
        return Some(vec![text.to_owned()]);
    }
    let mut names = Vec::new();
    for (kind, value) in principal.as_object()? {
        for name in texts(value)? {
            names.push(match kind.as_str() {
                "AWS" if name.len() == 12 && name.bytes().all(|b| b.is_ascii_digit()) => {
                    format!("arn:aws:iam::{name}:root")
                }
                "AWS" => name.to_owned(),
                _ if name == "*" => "*".to_owned(),
                kind => format!("{kind}:{name}"),
            });
        }
    }
    names.sort();
    Some(names)
}

fn is_github(who: &Set) -> bool {
    matches!(who, Set::Like(name) if name.contains(GITHUB))
}

/// True if a condition ties the build to one owner's repositories.
fn names_a_repository(condition: &Value) -> bool {
    positive(condition).any(|(key, value)| {
        key.ends_with(":sub")
            && texts(value).is_some_and(|subjects| {
                subjects.iter().all(|subject| {
                    let owner = subject.strip_prefix("repo:").unwrap_or("");
                    !owner.is_empty() && !owner.starts_with(['*', '?'])
                })
            })
    })
}

/// True if a condition ties whoever asks to somebody known.
fn narrows(condition: &Value) -> bool {
    positive(condition).any(|(key, value)| {
        LISTS.narrowing_keys.contains(&key)
            && texts(value).is_some_and(|values| {
                !values.is_empty()
                    && !values.iter().any(|value| {
                        value.starts_with('*') || value.ends_with("/0") || value.is_empty()
                    })
            })
    })
}

fn positive(condition: &Value) -> impl Iterator<Item = (String, &Value)> {
    let operators = condition.as_object().into_iter().flatten();
    operators
        .filter(|(operator, _)| LISTS.positive_operators.contains(&operator.to_lowercase()))
        .filter_map(|(_, keys)| keys.as_object())
        .flatten()
        .map(|(key, value)| (key.to_lowercase(), value))
}

fn canonical(condition: &Value) -> String {
    let bytes = holdpoint_types::canonical_bytes(condition);
    bytes.map_or_else(
        |_| condition.to_string(),
        |bytes| String::from_utf8_lossy(&bytes).into_owned(),
    )
}
