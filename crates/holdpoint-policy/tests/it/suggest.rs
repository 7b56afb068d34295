//! Suggested rules: the set with them permits what it held, and nothing that is more.

use crate::calls::{call, lines, source};
use expect_test::expect;
use holdpoint_policy::{PolicySet, Shape, Suggestion, starter_pack};
use holdpoint_types::{
    ChangeCounts, Digest, Disclosure, EffectClass, Facts, PreviewFacts, Request, Reversibility,
    Ruling,
};
use std::collections::BTreeSet;

/// A destructive call in `prod` on a dangerous surface, whose preview shows these counts.
fn seen(created: u64, updated: u64, deleted: u64) -> (Request, Facts) {
    let (request, mut facts) = call(EffectClass::Destructive);
    facts.target.environment = "prod".to_owned();
    facts.target.surfaces = BTreeSet::from(["billing".to_owned()]);
    facts.preview = Some(PreviewFacts {
        digest: Digest::of(b"diff"),
        counts: ChangeCounts { created, updated, deleted },
        exact: true,
        guarantee: Reversibility::Exact,
        until: None,
        disclosure: Disclosure::Contained,
        notes: Vec::new(),
    });
    (request, facts)
}

fn says(set: &PolicySet, (request, facts): &(Request, Facts)) -> Ruling {
    set.evaluate(request, facts).iter().map(|cause| cause.ruling).max().unwrap()
}

fn lifted(set: &PolicySet, held: &(Request, Facts)) -> Suggestion {
    let causes = set.evaluate(&held.0, &held.1);
    let holds = causes.iter().filter(|cause| cause.ruling == Ruling::Hold);
    let holds = holds.filter_map(|cause| cause.rule.as_deref()).collect();
    let shape = Shape::of(&held.0, &held.1).unwrap();
    shape.lift(set, &holds, ("approved-x", "People approved it.")).unwrap()
}

#[test]
fn a_suggested_rule_permits_what_was_held_and_nothing_that_is_more() {
    let set = PolicySet::load(&starter_pack()).unwrap();
    let held = seen(0, 2, 12);
    assert_eq!(says(&set, &held), Ruling::Hold);
    let found = lifted(&set, &held);
    expect![[r#"
        @id("approved-x")
        @reason("People approved it.")
        permit (principal == Agent::"coder", action, resource)
        when {
          context.granted &&
          context.tool == Tool::"fs__write_file" &&
          action == Action::"destroy" &&
          resource == Resource::"file:///srv/app/x" &&
          context.environment == Environment::"prod" &&
          context.verb == "declared" && context.extent == "declared" &&
          context.exact && context.guarantee == "exact" && context.disclosure == "contained" &&
          context.created <= 0 && context.updated <= 2 && context.deleted <= 12
        };"#]]
    .assert_eq(&found.permits.text);
    let ids: Vec<_> = found.instead.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(ids, ["dangerous-surface-holds", "prod-environment-holds"]);
    expect![[r#"
        @id("prod-environment-holds")
        @reason("Changes in prod wait for the owner's approval.")
        @hold("owner")
        permit (
          principal,
          action in [Action::"write", Action::"destroy"],
          resource in Environment::"prod"
        )
        when { context.granted }
        unless { context.door == "operator" }
        unless {
          principal == Agent::"coder" &&
          context.tool == Tool::"fs__write_file" &&
          action == Action::"destroy" &&
          resource == Resource::"file:///srv/app/x" &&
          context.environment == Environment::"prod" &&
          context.verb == "declared" && context.extent == "declared" &&
          context.exact && context.guarantee == "exact" && context.disclosure == "contained" &&
          context.created <= 0 && context.updated <= 2 && context.deleted <= 12
        };"#]]
    .assert_eq(&found.instead[1].text);
    assert_eq!(found.set.len(), set.len() + 1);
    for (fewer, ruling) in [
        (seen(0, 2, 12), Ruling::Permit),
        (seen(0, 0, 1), Ruling::Permit),
        (seen(1, 2, 12), Ruling::Hold),
        (seen(0, 3, 12), Ruling::Hold),
        (seen(0, 2, 13), Ruling::Hold),
    ] {
        assert_eq!(says(&found.set, &fewer), ruling, "{:?}", fewer.1.preview);
    }
}

#[test]
fn a_suggested_rule_permits_no_other_call() {
    let set = PolicySet::load(&starter_pack()).unwrap();
    let held = seen(0, 2, 12);
    let found = lifted(&set, &held);
    type Change = fn(&mut Request, &mut Facts);
    let changes: [Change; 9] = [
        |request, _| request.agent = "other".parse().unwrap(),
        |request, _| request.tool = "fs__other".parse().unwrap(),
        |_, facts| facts.target.resource.push('x'),
        |_, facts| facts.target.environment = "staging".to_owned(),
        |_, facts| facts.preview = None,
        |_, facts| facts.preview.as_mut().unwrap().exact = false,
        |_, facts| facts.preview.as_mut().unwrap().guarantee = Reversibility::Irreversible,
        |_, facts| facts.preview.as_mut().unwrap().disclosure = Disclosure::Left,
        |_, facts| facts.tool.as_mut().unwrap().class = EffectClass::Write,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let (mut request, mut facts) = held.clone();
        change(&mut request, &mut facts);
        let causes = found.set.evaluate(&request, &facts);
        let ruling = causes.iter().map(|cause| cause.ruling).max().unwrap();
        assert_eq!(ruling, Ruling::Hold, "{number}: {}", lines(&causes));
    }
}

#[test]
fn a_larger_one_replaces_the_rule_that_was_suggested_before() {
    let set = PolicySet::load(&starter_pack()).unwrap();
    let first = lifted(&set, &seen(0, 0, 3)).set;
    assert_eq!(says(&first, &seen(0, 0, 4)), Ruling::Hold);
    let second = lifted(&first, &seen(0, 0, 4)).set;
    assert_eq!(second.len(), first.len());
    assert_eq!(says(&second, &seen(0, 0, 4)), Ruling::Permit);
    assert_eq!(says(&second, &seen(0, 0, 5)), Ruling::Hold);
}

#[test]
fn a_rule_is_found_where_it_stands_and_hostile_names_stay_names() {
    let rule = "@id(\"h\") @reason(\"r\") @hold(\"owner\") permit (principal, action, resource);";
    let text = format!(
        "// {rule}\n@id(\"p\") @reason(\"p\")\npermit (principal, action, resource) \
                        // ;\n; {rule} // {rule}\n"
    );
    let set = PolicySet::load(&[source("a.cedar", &text)]).unwrap();
    let (request, mut facts) = seen(0, 0, 1);
    let hostile = "pg://x/\"); permit (principal, action, resource); // *\\";
    facts.target.resource = hostile.to_owned();
    let found = lifted(&set, &(request.clone(), facts.clone()));
    assert_eq!(found.set.len(), 3);
    assert!(found.set.sources()[0].text.starts_with(&format!("// {rule}\n")));
    assert_eq!(says(&found.set, &(request.clone(), facts.clone())), Ruling::Permit);
    facts.target.resource.push(' ');
    assert_eq!(says(&found.set, &(request.clone(), facts.clone())), Ruling::Hold);
    // A name that would read otherwise than it is written is in no rule.
    facts.target.resource.push('\u{1b}');
    let shape = Shape::of(&request, &facts).unwrap();
    let faults = shape.lift(&set, &BTreeSet::from(["h"]), ("x", "y")).unwrap_err();
    assert!(faults[0].message.contains("not a printable"), "{faults:?}");
}

#[test]
fn what_no_rule_holds_and_what_nobody_saw_has_no_suggestion() {
    let set = PolicySet::load(&starter_pack()).unwrap();
    let (request, mut facts) = seen(0, 0, 1);
    let shape = Shape::of(&request, &facts).unwrap();
    for holds in [BTreeSet::new(), BTreeSet::from(["mode approve-writes"])] {
        assert!(shape.lift(&set, &holds, ("x", "y")).is_err());
    }
    facts.preview.as_mut().unwrap().exact = false;
    assert_eq!(Shape::of(&request, &facts), None);
    facts.preview = None;
    assert_eq!(Shape::of(&request, &facts), None);
}
