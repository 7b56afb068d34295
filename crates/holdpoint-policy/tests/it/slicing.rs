//! A slice decides as the whole set: random sets, random calls, the same causes.

use crate::calls::{call, set};
use holdpoint_types::{EffectClass, Facts, Mode, Request};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use std::collections::BTreeSet;

const NAMES: [&str; 3] = ["a", "b", "c"];
const TOOLS: [&str; 3] = ["a__x", "a__y", "b__x"];

fn pick(kind: &'static str, names: &'static [&'static str]) -> BoxedStrategy<String> {
    select(names).prop_map(move |name| format!("{kind}::\"{name}\"")).boxed()
}

fn principal() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just("principal".to_owned()),
        3 => pick("Agent", &NAMES).prop_map(|agent| format!("principal == {agent}")),
        1 => pick("Agent", &NAMES).prop_map(|agent| format!("principal in {agent}")),
        2 => pick("Team", &NAMES).prop_map(|team| format!("principal in {team}")),
        1 => Just("principal is Agent".to_owned()),
        1 => pick("Team", &NAMES).prop_map(|team| format!("principal is Agent in {team}")),
    ]
}

fn action() -> impl Strategy<Value = String> {
    let actions = ["read", "write", "destroy"].map(|name| format!("Action::\"{name}\""));
    prop_oneof![
        Just("action".to_owned()),
        select(actions.to_vec()).prop_map(|one| format!("action == {one}")),
        select(actions.to_vec()).prop_map(|one| format!("action in {one}")),
        subsequence(actions.to_vec(), 1..=3)
            .prop_map(|some| format!("action in [{}]", some.join(", "))),
    ]
}

fn resource() -> impl Strategy<Value = String> {
    let parent = prop_oneof![
        pick("Surface", &NAMES),
        pick("Environment", &NAMES),
        pick("Tool", &TOOLS),
        pick("Resource", &NAMES),
    ];
    prop_oneof![
        2 => Just("resource".to_owned()),
        2 => pick("Resource", &NAMES).prop_map(|one| format!("resource == {one}")),
        4 => parent.clone().prop_map(|one| format!("resource in {one}")),
        1 => Just("resource is Resource".to_owned()),
        2 => parent.prop_map(|one| format!("resource is Resource in {one}")),
    ]
}

fn condition() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(String::new()),
        2 => Just("when { context.granted }".to_owned()),
        1 => Just("unless { context.freezes.isEmpty() }".to_owned()),
        1 => pick("Surface", &NAMES).prop_map(|one| format!("when {{ resource in {one} }}")),
        1 => pick("Tool", &TOOLS).prop_map(|one| format!("unless {{ context.tool == {one} }}")),
        1 => Just("when { principal.mode == \"auto\" }".to_owned()),
        1 => Just("when { context.call.hasTag(\"/path\") }".to_owned()),
        1 => Just("when { 9223372036854775807 + 1 > 0 }".to_owned()),
        1 => Just("when { context.granted || -9223372036854775808 - 1 < 0 }".to_owned()),
    ]
}

fn policy() -> impl Strategy<Value = String> {
    let effect = select(vec!["permit", "permit", "@hold(\"owner\") permit", "forbid"]);
    (effect, principal(), action(), resource(), condition()).prop_map(
        |(effect, principal, action, resource, condition)| {
            format!("@reason(\"r\") {effect} ({principal}, {action}, {resource}) {condition};\n")
        },
    )
}

pub(crate) fn policies() -> impl Strategy<Value = String> {
    prop::collection::vec(policy(), 0..24).prop_map(|policies| {
        let named = policies.iter().enumerate();
        named.map(|(number, policy)| format!("@id(\"p{number}\") {policy}")).collect()
    })
}

pub(crate) fn names() -> impl Strategy<Value = BTreeSet<String>> {
    subsequence(NAMES.to_vec(), 0..=3)
        .prop_map(|names| names.into_iter().map(str::to_owned).collect())
}

pub(crate) fn question() -> impl Strategy<Value = (Request, Facts)> {
    let who = (select(&NAMES[..]), prop::option::of(select(&NAMES[..])), select(&Mode::ALL[..]));
    let what = (select(&TOOLS[..]), select(&EffectClass::ALL[..]), any::<bool>());
    let target = (select(&NAMES[..]), select(&["a", "b", "d"][..]), names());
    (who, what, target, names()).prop_map(
        |(
            (agent, owner, mode),
            (tool, class, granted),
            (resource, environment, surfaces),
            freezes,
        )| {
            let (mut request, mut facts) = call(class);
            request.agent = agent.parse().unwrap();
            request.tool = tool.parse().unwrap();
            let known = facts.agent.as_mut().unwrap();
            known.owner = owner.map(|name| name.parse().unwrap());
            known.mode = mode;
            facts.grant.by = granted.then(|| tool.to_owned());
            facts.target.resource = resource.to_owned();
            facts.target.environment = environment.to_owned();
            facts.target.surfaces = surfaces;
            facts.freezes = freezes;
            (request, facts)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn a_slice_decides_as_the_whole_set(
        text in policies(),
        questions in prop::collection::vec(question(), 1..12),
    ) {
        let set = set(&text);
        for (request, facts) in questions {
            let sliced = set.evaluate(&request, &facts);
            prop_assert!(!sliced.is_empty());
            prop_assert_eq!(sliced, set.evaluate_whole(&request, &facts));
        }
    }
}
