//! What holds for every plan and every call: the checker's and the matcher's laws.

use super::{WRITE, call, fit_of, noted, plan, steps, taken};
use crate::plan::{CallState, Called, Foreseen, PlanCall, PlanMatcher, Progress, StepState};
use holdpoint_types::{EffectClass, Facts, Plan, PlanFit, PlanNote, PlanSeverity, Request};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

fn any_step() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["a", "b", "c", "d"]);
    let tool = prop::sample::select(vec!["fs__read", "fs__write", "fs__delete", "fs__none"]);
    let class = prop::sample::select(vec!["read", "write", "destructive"]);
    let target = prop::sample::select(vec![
        "file:///srv/app/x",
        "file:///srv/**",
        "file:///**",
        "nothing",
        "file:///srv/app/old/*",
    ]);
    let after = prop::option::of(prop::collection::btree_set("[a-e]", 0..3));
    let budget = prop::option::of(0..30_u64);
    (name, tool, class, prop::collection::vec(target, 0..3), (after, 0..4_u32, budget)).prop_map(
        |(name, tool, class, targets, (after, calls, resources))| {
            json!({ "id": name, "tool": tool, "class": class, "targets": targets,
                    "after": after, "calls": calls,
                    "budget": resources.map_or(json!({}), |most| json!({ "resources": most })) })
        },
    )
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let steps = prop::collection::vec(any_step(), 0..6);
    (steps, any::<i64>())
        .prop_map(|(steps, expires)| plan(json!({ "steps": steps, "expires_in_s": expires })))
}

/// Steps that differ in nothing but their order.
fn any_graph() -> impl Strategy<Value = Plan> {
    let after = prop::option::of(prop::collection::btree_set(0..5_usize, 0..3));
    let steps = prop::collection::vec(after, 1..6).prop_map(|afters| {
        let count = afters.len();
        let each = afters.into_iter().enumerate().map(|(at, after)| {
            let name = |at: usize| format!("s{at}");
            // Mostly upwards, so that not all of them are cycles.
            let after = after.map(|after| -> BTreeSet<_> {
                let there = after.into_iter().filter(|other| *other < count);
                there.filter(|other| *other < at || *other == 4).map(name).collect()
            });
            json!({ "id": name(at), "tool": "fs__write", "class": "write", "after": after,
                    "targets": ["file:///srv/app/x"] })
        });
        each.collect::<Vec<_>>()
    });
    steps.prop_shuffle().prop_map(|steps| plan(json!({ "steps": steps })))
}

fn any_calls() -> impl Strategy<Value = Vec<PlanCall>> {
    let state = prop::sample::select(CallState::ALL.to_vec());
    let one =
        ("[a-d]", 0..9_u8, state).prop_map(|(step, number, state)| taken(&step, number, state));
    prop::collection::vec(one, 0..8)
}

fn any_call() -> impl Strategy<Value = (Request, Facts)> {
    let tool = prop::sample::select(vec!["fs__read", "fs__write", "fs__delete"]);
    let class = prop::sample::select(EffectClass::ALL.to_vec());
    let path = prop::sample::select(vec!["/srv/app/x", "/srv/app/old/a", "/etc/x"]);
    (tool, class, path).prop_map(|(tool, class, path)| call(tool, class, path))
}

proptest! {
    #[test]
    fn the_checker_is_total_and_always_says_the_same(plan in any_plan()) {
        let notes = noted(&plan, &BTreeMap::new());
        prop_assert_eq!(&notes, &noted(&plan, &BTreeMap::new()));
        for note in &notes {
            prop_assert!(!note.text.is_empty());
            prop_assert!(note.step.iter().all(|name| plan.step(name).is_some()));
        }
        let rank = |note: &PlanNote| note.severity;
        prop_assert!(notes.is_sorted_by(|one, next| rank(one) >= rank(next)));
    }

    #[test]
    fn what_passes_the_checker_can_be_carried_out(plan in any_graph()) {
        let blocked = noted(&plan, &BTreeMap::new())
            .iter()
            .any(|note| note.severity == PlanSeverity::Blocking);
        prop_assume!(!blocked);
        // Some step is open until all are done.
        let mut calls: Vec<PlanCall> = Vec::new();
        loop {
            let progress = Progress::of(0, &calls);
            if progress.is_complete(&plan.steps) {
                break;
            }
            let states = progress.states(&plan.steps);
            let fresh = |at: &usize| {
                let taken = progress.taken(&plan.steps[*at].id);
                matches!(states[*at], StepState::Open(_)) && taken == 0
            };
            let next = (0..plan.steps.len()).find(fresh);
            prop_assert!(next.is_some(), "{:?}", states);
            let step = plan.steps[next.unwrap()].id.clone();
            calls.push(taken(step.as_str(), 1, CallState::Succeeded));
        }
    }

    #[test]
    fn a_call_that_fits_is_within_its_step(
        mut plan in any_plan(), calls in any_calls(), (request, facts) in any_call(),
    ) {
        for (step, name) in plan.steps.iter_mut().zip('a'..) {
            step.id = name.to_string().parse().unwrap();
        }
        let Ok(matcher) = PlanMatcher::new(plan.clone()) else { return Ok(()) };
        let progress = Progress::of(0, &calls);
        let foreseen = Foreseen::Never;
        let called =
            Called { request: &request, facts: &facts, foreseen, schema_fault: &|_| None };
        let fit = matcher.fit(&progress, called);
        prop_assert_eq!(&fit, &matcher.fit(&progress, called));
        match fit {
            PlanFit::Step { step, uses } => {
                let at = plan.steps.iter().position(|one| one.id == step).unwrap();
                let held = &plan.steps[at];
                prop_assert_eq!(&held.tool, &request.tool);
                prop_assert!(facts.aims().all(|aim| aim.class <= held.class));
                prop_assert!(progress.taken(&step) < held.calls);
                let used = progress.used(&step).bounds();
                let bounds = held.budget.bounds().into_iter().zip(used).zip(uses.bounds());
                for (((_, bound), (_, used)), (_, uses)) in bounds {
                    let left = bound.map(|bound| bound.saturating_sub(used.unwrap_or(0)));
                    prop_assert!(left.is_none_or(|left| uses.unwrap_or(0) <= left));
                }
                prop_assert!(request.at < plan.expires);
            }
            PlanFit::FreeRead => {
                prop_assert!(facts.aims().all(|aim| aim.class == EffectClass::Read));
            }
            PlanFit::Deviation { why, .. } => prop_assert!(!why.is_empty()),
            PlanFit::Condition { .. } => prop_assert!(false, "no agent's call is one"),
        }
    }

    #[test]
    fn bad_news_never_opens_a_step(calls in any_calls(), number in 0..8_usize) {
        // What fails instead of succeeding makes no call fit that did not fit before.
        let plan = steps(json!([
            { "id": "a", "tool": "fs__write", "class": "write", "calls": 2,
              "targets": ["file:///srv/app/x"] },
            { "id": "b", "tool": "fs__copy", "class": "write", "calls": 2,
              "targets": ["file:///srv/app/x"] },
        ]));
        let mut worse = calls.clone();
        let Some(one) = worse.get_mut(number) else { return Ok(()) };
        prop_assume!(one.state == CallState::Succeeded);
        one.state = CallState::InDoubt;
        for tool in ["fs__write", "fs__copy"] {
            let call = call(tool, WRITE, "/srv/app/x");
            let fits = |calls: &[PlanCall]| fit_of(&plan, calls, &call).starts_with("step");
            prop_assert!(fits(&calls) || !fits(&worse));
        }
    }
}
