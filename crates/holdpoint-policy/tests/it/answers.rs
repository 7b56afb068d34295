//! What a set says about a call.

use crate::calls::{call, lines, set, source};
use expect_test::{Expect, expect};
use holdpoint_policy::{PolicySet, RuleEffect, schema_text, starter_pack};
use holdpoint_types::{
    ChangeCounts, Decision, Digest, Disclosure, EffectClass, Facts, Mode, PlanBudget, PlanFacts,
    PlanFit, PlanId, PreviewFacts, Reason, Request, Reversibility, Ruling, Timestamp, Unseen,
};
use serde_json::{Value, json};

const ANY: &str = "(principal, action, resource)";

fn check(text: &str, expected: &Expect) {
    let (request, facts) = call(EffectClass::Write);
    check_call(text, &(request, facts), expected);
}

fn check_call(text: &str, (request, facts): &(Request, Facts), expected: &Expect) {
    let set = set(text);
    let causes = set.evaluate(request, facts);
    assert_eq!(causes, set.evaluate_whole(request, facts));
    expected.assert_eq(&lines(&causes));
}

fn ruling(text: &str, (request, facts): &(Request, Facts)) -> Ruling {
    Decision::from_iter(set(text).evaluate(request, facts)).ruling()
}

#[test]
fn an_empty_set_denies() {
    let expected = expect![[r#"
        deny no_policy_permits -:
            no policy permits `coder` to use `fs__write_file` (write) in `dev` with a grant"#]];
    check("// nothing here", &expected);
    let (request, facts) = call(EffectClass::Read);
    let nothing = PolicySet::load(&[]).unwrap();
    assert!(nothing.is_empty());
    assert_eq!(nothing.evaluate(&request, &facts)[0].reason, Reason::NoPolicyPermits);
}

#[test]
fn a_class_can_need_a_plan() {
    let text = format!(
        r#"@id("any") @reason("may") permit {ANY};
           @id("planned") @reason("destroying needs a plan")
           forbid (principal, action == Action::"destroy", resource)
           unless {{ context.planned }};"#
    );
    let check = |class, fit: Option<PlanFit>, expected: Ruling| {
        let (request, mut facts) = call(class);
        let plan = PlanId::new(Timestamp(0), [1; 10]);
        facts.plan = fit.map(|fit| PlanFacts { plan, version: 1, fit });
        assert_eq!(ruling(&text, &(request, facts.clone())), expected, "{:?}", facts.plan);
    };
    let step = || PlanFit::Step { step: "a".parse().unwrap(), uses: PlanBudget::default() };
    let deviation = PlanFit::Deviation { nearest: None, why: "no".to_owned() };
    check(EffectClass::Write, None, Ruling::Permit);
    check(EffectClass::Destructive, None, Ruling::Deny);
    check(EffectClass::Destructive, Some(deviation), Ruling::Deny);
    check(EffectClass::Destructive, Some(step()), Ruling::Permit);
    check(EffectClass::Destructive, Some(PlanFit::FreeRead), Ruling::Permit);
}

#[test]
fn permits_hold_or_permit() {
    let text = format!(
        r#"@id("a") @reason("may") permit {ANY};
           @id("b") @reason("ask") @hold("owner") permit {ANY};
           @id("c") @reason("other") permit (principal, action == Action::"read", resource);"#
    );
    check(
        &text,
        &expect![[r#"
        permit permitted_by_policy a:
            may
        hold policy_holds b [owner]:
            ask"#]],
    );
}

#[test]
fn every_satisfied_forbid_is_named_and_no_permit() {
    let text = format!(
        r#"@id("p") @reason("may") permit {ANY};
           @id("f2") @reason("never") forbid {ANY};
           @id("f1") @reason("not coder") forbid (principal == Agent::"coder", action, resource);
           @id("f3") @reason("not other") forbid (principal == Agent::"other", action, resource);"#
    );
    check(
        &text,
        &expect![[r#"
        deny policy_forbids f1:
            not coder
        deny policy_forbids f2:
            never"#]],
    );
}

#[test]
fn a_policy_that_fails_denies_and_is_named() {
    let text = format!(
        r#"@id("p") @reason("may") permit {ANY};
           @id("f") @reason("x") forbid {ANY} when {{ 9223372036854775807 + 1 == 0 }};"#
    );
    check(
        &text,
        &expect![[r#"
        permit permitted_by_policy p:
            may
        deny policy_error f:
            integer overflow while attempting to add the values `9223372036854775807` and `1`"#]],
    );
    let text =
        format!(r#"@id("p") @reason("x") permit {ANY} when {{ 9223372036854775807 * 2 > 0 }};"#);
    check(
        &text,
        &expect![[r#"
        deny no_policy_permits -:
            no policy permits `coder` to use `fs__write_file` (write) in `dev` with a grant
        deny policy_error p:
            integer overflow while attempting to multiply the values `9223372036854775807` and `2`"#]],
    );
}

#[test]
fn an_unknown_agent_or_tool_is_denied() {
    let (request, facts) = call(EffectClass::Read);
    let permissive = format!(r#"@id("p") @reason("may") permit {ANY};"#);
    let no_tool = Facts { tool: None, ..facts.clone() };
    check_call(
        &permissive,
        &(request.clone(), no_tool),
        &expect![[r#"
        deny tool_unknown -:
            The server does not offer this tool."#]],
    );
    let neither = Facts { tool: None, agent: None, ..facts };
    check_call(
        &permissive,
        &(request, neither),
        &expect![[r#"
        deny agent_unknown -:
            No agent has this name.
        deny tool_unknown -:
            The server does not offer this tool."#]],
    );
}

#[test]
fn parameters_are_tags() {
    let rule = |condition: &str| {
        format!(r#"@id("p") @reason("may") permit {ANY} when {{ {condition} }};"#)
    };
    let has = |key: &str, test: &str| {
        rule(&format!(r#"context.call.hasTag("{key}") && context.call.getTag("{key}") {test}"#))
    };
    let call = call(EffectClass::Write);
    assert_eq!(ruling(&has("/path", r#"like "/srv/app/*""#), &call), Ruling::Permit);
    assert_eq!(ruling(&has("/path", r#"like "/etc/*""#), &call), Ruling::Deny);
    assert_eq!(ruling(&has("/options/0/mode", r#"== "420""#), &call), Ruling::Permit);
    assert_eq!(ruling(&has("/options", r#"== "420""#), &call), Ruling::Deny);
}

#[test]
fn parameters_beyond_the_limit_deny_where_a_policy_looks_at_them() {
    let (request, facts) = call(EffectClass::Write);
    let many = Request { parameters: json!({ "a": vec![Value::Null; 5_000] }), ..request };
    let blind = format!(r#"@id("p") @reason("hasTag in words only") permit {ANY}; // getTag"#);
    assert_eq!(ruling(&blind, &(many.clone(), facts.clone())), Ruling::Permit);
    let looking = format!(
        r#"{blind}
        @id("f") @reason("x") forbid {ANY} when {{ context.call.hasTag("/force") }};"#
    );
    check_call(
        &looking,
        &(many, facts),
        &expect![[r#"
        deny parameters_too_many -:
            The parameters hold more values than policies can be asked about."#]],
    );
}

#[test]
fn policies_see_every_fact() {
    let all = r#"@id("p") @reason("may") permit (
            principal in Team::"platform",
            action == Action::"destroy",
            resource in Tool::"fs__write_file"
        ) when {
            principal == Agent::"coder" &&
            principal has owner && principal.owner == Team::"platform" &&
            principal.mode == "approve-writes" && context.granted &&
            context.freezes.contains("xmas") && !context.freezes.contains("easter") &&
            context.tool == Tool::"fs__write_file" && context.tool.server == "fs" &&
            context.tool.class == "destructive" && context.tool.open_world &&
            context has task && context.task == Task::"00000000-0000-7000-8000-000000000000" &&
            context.environment == Environment::"dev" && resource in Environment::"dev" &&
            !context.environment_resolved && context.door == "try" &&
            context.surfaces.containsAll([Surface::"ci", Surface::"auth"]) &&
            resource in Surface::"ci" && !(resource in Surface::"prod") &&
            resource is Resource in Surface::"auth" &&
            resource.address like "file:///srv/*" && resource == Resource::"file:///srv/app/x"
        };"#;
    let (mut request, mut facts) = call(EffectClass::Destructive);
    assert_eq!(ruling(all, &(request.clone(), facts.clone())), Ruling::Deny);
    request.task = Some("00000000-0000-7000-8000-000000000000".parse().unwrap());
    request.door = holdpoint_types::Door::Try;
    facts.agent.as_mut().unwrap().mode = Mode::ApproveWrites;
    facts.tool.as_mut().unwrap().open_world = true;
    facts.freezes.insert("xmas".to_owned());
    facts.target.environment_resolved = false;
    facts.target.surfaces = ["ci", "auth"].map(str::to_owned).into();
    assert_eq!(ruling(all, &(request, facts)), Ruling::Permit);
}

#[test]
fn policies_see_previews_once_there_are_some() {
    let (request, mut facts) = call(EffectClass::Write);
    let is = |condition: &str, facts: &Facts| {
        let text = format!(r#"@id("p") @reason("may") permit {ANY} when {{ {condition} }};"#);
        ruling(&text, &(request.clone(), facts.clone())) == Ruling::Permit
    };
    let unknown = r#"context.guarantee == "unknown" && context.disclosure == "unknown" &&
        !context.exact && context.changes == -1 && context.created == -1 &&
        context.updated == -1 && context.deleted == -1"#;
    assert!(is(unknown, &facts));
    // Who looked and saw nothing knows no more.
    let (reason, detail) = (Reason::PreviewTooLarge, "too large: 9 rows".to_owned());
    facts.unseen = Some(Unseen { reason, detail });
    assert!(is(unknown, &facts));
    facts.unseen = None;
    let mut seen = PreviewFacts {
        digest: Digest::of(b"diff"),
        counts: ChangeCounts { created: 1, updated: 2, deleted: 4 },
        exact: true,
        guarantee: Reversibility::ExactUntil,
        until: Some(Timestamp(1)),
        disclosure: Disclosure::Wider,
        notes: Vec::new(),
    };
    facts.preview = Some(seen.clone());
    assert!(!is(unknown, &facts));
    assert!(is(
        r#"context.guarantee == "exact_until" && context.disclosure == "wider" &&
            context.exact && context.changes == 7 && context.created == 1 &&
            context.updated == 2 && context.deleted == 4"#,
        &facts
    ));
    // More than Cedar can count is very much, and never an error.
    seen.counts = ChangeCounts { created: u64::MAX, updated: u64::MAX, deleted: 0 };
    facts.preview = Some(seen);
    assert!(is("context.changes == 9223372036854775807", &facts));
}

#[test]
fn the_digest_names_the_files_whatever_their_order() {
    let one = source("1.cedar", r#"@id("a") @reason("x") permit (principal, action, resource);"#);
    let two = source("2.cedar", r#"@id("b") @reason("x") forbid (principal, action, resource);"#);
    let digest = |sources: &[_]| PolicySet::load(sources).unwrap().digest();
    let both = digest(&[one.clone(), two.clone()]);
    assert_eq!(both, digest(&[two.clone(), one.clone()]));
    assert_ne!(both, digest(std::slice::from_ref(&one)));
    let renamed = holdpoint_types::PolicySource { name: "3.cedar".to_owned(), ..two };
    assert_ne!(both, digest(&[one, renamed]));
}

#[test]
fn a_set_can_be_looked_at() {
    let set = PolicySet::load(&starter_pack()).unwrap();
    assert_eq!(set.len(), set.rules().len());
    assert_eq!(set.sources(), starter_pack());
    let held = set.rule("prod-environment-holds").unwrap();
    assert_eq!((held.effect, held.hold.as_deref()), (RuleEffect::Permit, Some("owner")));
    let line = starter_pack()[0].text.lines().nth(held.line - 1).unwrap().to_owned();
    assert!(held.text.starts_with(&line), "{line}");
    assert_eq!(set.rule("change-freeze").unwrap().effect.as_str(), "forbid");
    assert!(set.rule("no-such-rule").is_none());
}

#[test]
fn freezes_are_mentioned_by_policies_and_not_by_words() {
    assert!(PolicySet::load(&starter_pack()).unwrap().mentions_freezes());
    let words = r#"// context.freezes
        @id("a") @reason("about freezes") permit (principal, action, resource) when { true };"#;
    assert!(!set(words).mentions_freezes());
    let quoted = r#"@id("a") @reason("x") permit (principal, action, resource)
        unless { context["freezes"].isEmpty() };"#;
    assert!(set(quoted).mentions_freezes());
}

#[test]
fn the_schema_that_ships_is_the_one_that_checks() {
    for word in ["action destroy", "entity Surface", "granted: Bool"] {
        assert!(schema_text().contains(word), "{word}");
    }
}

#[test]
fn one_set_answers_many_threads_alike() {
    let set = PolicySet::load(&starter_pack()).unwrap();
    let (request, facts) = call(EffectClass::Write);
    let expected = set.evaluate(&request, &facts);
    std::thread::scope(|scope| {
        let ask = || scope.spawn(|| (0..50).map(|_| set.evaluate(&request, &facts)).collect());
        let answers: Vec<_> = (0..4).map(|_| ask()).collect();
        for answer in answers {
            let all: Vec<_> = answer.join().unwrap();
            assert!(all.iter().all(|causes| *causes == expected));
        }
    });
}
