//! Finds comparisons with words that can never be there: valid Cedar, and never what was meant.
//! Must not keep a set from loading.

use crate::fault::PolicyFault;
use crate::rule::Rule;
use cedar_policy::Policy;
use holdpoint_types::{EffectClass, Mode, Verb};
use serde_json::Value;

/// What an attribute says of a call that is not analysed.
const DECLARED: &str = "declared";
/// What an attribute says of a call that nobody looked ahead at.
const UNKNOWN: &str = "unknown";

/// The attributes whose words are all known, as they are written in policies.
fn words(attribute: &str) -> Option<Vec<&'static str>> {
    let words = match attribute {
        "context.verb" => {
            let verbs = Verb::ALL.into_iter().map(Verb::as_str);
            verbs.chain([DECLARED]).collect()
        }
        "context.certainty" => vec!["exact", "bounded", "opaque", DECLARED],
        "context.extent" => vec!["part", "whole", DECLARED],
        "context.reversibility" => {
            vec!["no_effect", "exact", "exact_until", "compensable", "irreversible", DECLARED]
        }
        "context.guarantee" => {
            vec!["no_effect", "exact", "exact_until", "compensable", "irreversible", UNKNOWN]
        }
        "context.disclosure" => vec!["contained", "wider", "left", UNKNOWN],
        "context.door" => vec!["mcp_stdio", "mcp_http", "try", "operator", "hook"],
        "context.tool.class" => EffectClass::ALL.into_iter().map(EffectClass::as_str).collect(),
        "principal.mode" => Mode::ALL.into_iter().map(Mode::as_str).collect(),
        _ => return None,
    };
    Some(words)
}

/// What every such attribute ends in: most policies name none and need not be read again.
const LAST: [&str; 9] = [
    "verb",
    "certainty",
    "extent",
    "reversibility",
    "guarantee",
    "disclosure",
    "door",
    "class",
    "mode",
];

/// What is doubtful in a rule.
pub(crate) fn of(rule: &Rule) -> Vec<PolicyFault> {
    if !LAST.iter().any(|attribute| rule.text.contains(attribute)) {
        return Vec::new();
    }
    let policy = Policy::parse(None, rule.text.as_str()).ok();
    // What was loaded once can be parsed, and written, again.
    let Some(json) = policy.and_then(|policy| policy.to_json().ok()) else { return Vec::new() };
    let mut found = Vec::new();
    walk(&json, &mut |attribute, word| {
        let Some(words) = words(attribute).filter(|words| !words.contains(&word)) else { return };
        let (file, line, id) = (rule.file.clone(), rule.line, &rule.id);
        let word = word.escape_debug();
        let message = format!("for policy `{id}`, `{attribute}` is never \"{word}\"");
        let suggestion = Some(format!("it is one of \"{}\"", words.join("\", \"")));
        let fault = PolicyFault { file, line, column: 1, message, suggestion };
        found.extend(Some(fault).filter(|fault| !found.contains(fault)));
    });
    found
}

/// Tells every comparison of an attribute with a text.
fn walk(json: &Value, tell: &mut impl FnMut(&str, &str)) {
    match json {
        Value::Object(object) => {
            for (key, inner) in object {
                let sides = (inner.get("left"), inner.get("right"));
                if let ("==" | "!=", (Some(left), Some(right))) = (key.as_str(), sides) {
                    compared((left, right), tell);
                    compared((right, left), tell);
                }
                if let ("contains", (Some(set), Some(attribute))) = (key.as_str(), sides) {
                    let words = set.get("Set").and_then(Value::as_array);
                    words.into_iter().flatten().for_each(|word| compared((attribute, word), tell));
                }
                walk(inner, tell);
            }
        }
        Value::Array(all) => all.iter().for_each(|inner| walk(inner, tell)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn compared((attribute, word): (&Value, &Value), tell: &mut impl FnMut(&str, &str)) {
    let word = word.get("Value").and_then(Value::as_str);
    if let (Some(attribute), Some(word)) = (path(attribute), word) {
        tell(&attribute, word);
    }
}

/// `context.tool.class` for the expression that says so.
fn path(expression: &Value) -> Option<String> {
    if let Some(variable) = expression.get("Var") {
        return variable.as_str().map(str::to_owned);
    }
    let access = expression.get(".")?;
    let of = path(access.get("left")?)?;
    Some(format!("{of}.{}", access.get("attr")?.as_str()?))
}
