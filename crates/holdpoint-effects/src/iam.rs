//! Access policies of AWS, Google Cloud and Azure: what a document newly allows.
//!
//! Owns the comparison of the document before with the one after. Must never judge the new text
//! alone where the old one is known, nor take a document that it does not know for one that
//! allows nothing.

use crate::effects::{Effects, NoteCode, TEXT_BYTES_MAX};
use holdpoint_types::{Effect, JsonLimits, Verb};
use rules::{Rule, Set};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::LazyLock;

mod aws;
mod azure;
mod google;
mod rules;

/// Most rules of one document.
const RULES_MAX: usize = 2048;
/// Deepest nesting of a document.
const DEPTH_MAX: usize = 32;

static LISTS: LazyLock<Lists> =
    LazyLock::new(|| toml::from_str(include_str!("../data/iam.toml")).unwrap_or_default());

/// What is known about single actions and roles.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    escalations: BTreeSet<String>,
    looking: Vec<String>,
    narrowing_keys: BTreeSet<String>,
    positive_operators: BTreeSet<String>,
    owner_roles: BTreeSet<String>,
    everybody: BTreeSet<String>,
}

/// Adds to `effects` what writing the policy document `after` over `before` allows and did not
/// allow until now. Without a `before`, everything in it is new. `resource` is what the document
/// is attached to.
pub fn iam(before: Option<&str>, after: &str, resource: &str, effects: &mut Effects) {
    if after.len().max(before.map_or(0, str::len)) > TEXT_BYTES_MAX {
        let evidence = format!("a policy document of {} bytes", after.len());
        return effects.add_opaque(resource, NoteCode::TooLarge, evidence);
    }
    let read = |text: &str| {
        let limits = JsonLimits { bytes_max: TEXT_BYTES_MAX, depth_max: DEPTH_MAX };
        holdpoint_types::parse(text.as_bytes(), limits).ok()
    };
    let before = match before.map(read) {
        None => None,
        Some(Some(value)) => Some(value),
        // What cannot be read may have allowed nothing.
        Some(None) => None,
    };
    match read(after) {
        Some(after) => change(before.as_ref(), &after, resource, effects),
        None => effects.add_opaque(resource, NoteCode::Unreadable, "a policy that is no JSON"),
    }
}

/// The same for documents that have been read.
pub(crate) fn change(before: Option<&Value>, after: &Value, resource: &str, effects: &mut Effects) {
    let rules = match rules_of(after) {
        Some(rules) if rules.len() <= RULES_MAX => rules,
        Some(_) => {
            return effects.add_opaque(resource, NoteCode::TooLarge, "a policy of many rules");
        }
        None => {
            let evidence = "a policy of a kind that is not known";
            return effects.add_opaque(resource, NoteCode::Unreadable, evidence);
        }
    };
    let old = before.and_then(rules_of).unwrap_or_default();
    if rules == old {
        return effects.add(Effect::new(Verb::Read, resource, "the policy stays as it is"));
    }
    effects.add(Effect::new(Verb::Grant, resource, "changes a policy"));
    let (allows, denies): (Vec<_>, Vec<_>) = rules.iter().partition(|rule| rule.allows);
    for rule in allows {
        let known = |old: &Rule| old.allows && old.covers(rule);
        if !old.contains(rule) && !old.iter().any(known) {
            newly(rule, effects);
        }
    }
    for rule in old.iter().filter(|rule| !rule.allows) {
        if !denies.iter().any(|deny| deny.covers(rule)) {
            effects.note(NoteCode::PrivilegeWidened, "a prohibition is taken away or narrowed");
        }
    }
}

/// True if `value` looks like a policy document of any of the clouds.
pub(crate) fn is_policy(value: &Value) -> bool {
    rules_of(value).is_some()
}

/// True if a role allows everything, or allows giving rights away.
pub(crate) fn is_wide_role(role: &str) -> bool {
    is_owner(role) || role.ends_with("/AdministratorAccess")
}

/// True if `member` is everybody.
pub(crate) fn is_public(member: &str) -> bool {
    is_everybody(&Set::like(member))
}

fn rules_of(value: &Value) -> Option<BTreeSet<Rule>> {
    let found = aws::rules(value).or_else(|| google::rules(value)).or_else(|| azure::rules(value));
    found.map(|rules| rules.into_iter().collect())
}

/// Notes what is wrong with something that is allowed from now on.
fn newly(rule: &Rule, effects: &mut Effects) {
    effects.note(NoteCode::PrivilegeWidened, format!("newly allowed: {rule}"));
    if let Some(why) = wildcard(rule) {
        effects.note(NoteCode::WildcardPrivilege, format!("{why}: {rule}"));
    }
}

/// Why a rule is one for everything or everybody.
fn wildcard(rule: &Rule) -> Option<&'static str> {
    if is_everybody(&rule.who) && !rule.narrowed {
        return Some("for everybody");
    }
    match &rule.what {
        Set::All => return Some("every action"),
        Set::Except(_) => return Some("every action but some"),
        Set::Like(action) if is_owner(action) => return Some("a role that allows everything"),
        Set::Like(action) if whole_service(action) => return Some("every action of a service"),
        Set::Like(action) if escalates(action) && rule.on.is_wide() && !rule.scoped => {
            return Some("an action that raises rights, on everything");
        }
        Set::Like(_) => {}
    }
    let wide = rule.on.is_wide() && !rule.scoped;
    (wide && !looks(&rule.what)).then_some("on every resource")
}

fn is_everybody(who: &Set) -> bool {
    match who {
        Set::All | Set::Except(_) => true,
        Set::Like(who) => LISTS.everybody.contains(&who.to_lowercase()),
    }
}

fn is_owner(role: &str) -> bool {
    let role = role.to_lowercase();
    let last = role.rsplit("roledefinitions/").next().unwrap_or(&role);
    LISTS.owner_roles.contains(last)
}

fn whole_service(action: &str) -> bool {
    let (_, name) = action.split_once([':', '/']).unwrap_or(("", action));
    let open = name.contains('*') && name.chars().all(|letter| matches!(letter, '*' | '?'));
    open || action.starts_with('*')
}

fn escalates(action: &str) -> bool {
    LISTS.escalations.iter().any(|known| rules::matches(action, known))
}

fn looks(what: &Set) -> bool {
    let Set::Like(action) = what else { return false };
    let name = action.rsplit([':']).next().unwrap_or(action);
    action.contains(':') && LISTS.looking.iter().any(|start| name.starts_with(start.as_str()))
}

/// The text, or the list of texts, that `value` is; none if it is anything else.
fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(list) => list.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Effects, LISTS, iam};
    use expect_test::{Expect, expect};

    fn check(before: Option<&str>, after: &str, expected: Expect) {
        let mut effects = Effects::default();
        iam(before, after, "aws://1/role/ci", &mut effects);
        let mut out = String::new();
        for effect in effects.iter() {
            out.push_str(&format!("{} {} {}\n", effect.verb, effect.class, effect.resource));
        }
        for note in effects.notes() {
            out.push_str(&format!("! {}: {}\n", note.code.as_str(), note.evidence));
        }
        expected.assert_eq(&out);
    }

    #[test]
    fn lists_can_be_read() {
        assert!(LISTS.escalations.len() > 30 && LISTS.owner_roles.len() > 20);
    }

    #[test]
    fn only_what_is_new_counts() {
        let old = r#"{"Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;
        let new = r#"{"Statement":[{"Effect":"Allow","Action":"s3:GetObject",
            "Resource":"arn:aws:s3:::a/*"}]}"#;
        check(
            Some(old),
            new,
            expect![[r#"
            grant destructive aws://1/role/ci
        "#]],
        );
        check(
            Some(new),
            old,
            expect![[r#"
            grant destructive aws://1/role/ci
            ! wildcard_privilege: every action of a service: s3:* for holder on *
            ! privilege_widened: newly allowed: s3:* for holder on *
        "#]],
        );
        check(
            Some(old),
            old,
            expect![[r#"
            read read aws://1/role/ci
        "#]],
        );
        check(
            None,
            new,
            expect![[r#"
            grant destructive aws://1/role/ci
            ! privilege_widened: newly allowed: s3:getobject for holder on arn:aws:s3:::a/*
        "#]],
        );
    }
}
