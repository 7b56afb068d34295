//! The life of an action, step by step and in every order.

use super::{Control, Ending, Input, Output, Proposal};
use holdpoint_types::{
    ActionId, Cause, Decision, Digest, Door, Epoch, Facts, GrantFacts, OutcomeStatus, Reason,
    RecordBody, Request, Ruling, Stop, StopScope, TargetFacts, TaskRecord, Timestamp,
};
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeSet;

const NOW: Timestamp = Timestamp(1_000_000);

fn id(number: u8) -> ActionId {
    ActionId::new(NOW, [number; 10])
}

fn proposal(number: u8, ruling: Ruling, epoch: u64) -> Box<Proposal> {
    let request = Request {
        action: id(number),
        agent: "coder".parse().unwrap(),
        door: Door::McpStdio,
        tool: "fs__write".parse().unwrap(),
        parameters: json!({"path": "/x"}),
        task: None,
        intent: None,
        retrieved: Vec::new(),
        host_call: None,
        at: NOW,
    };
    let target = TargetFacts {
        resource: "file:///x".to_owned(),
        environment: "dev".to_owned(),
        environment_resolved: true,
        surfaces: BTreeSet::new(),
    };
    let facts = Facts {
        agent: None,
        tool: None,
        grant: GrantFacts::default(),
        target,
        effects: Vec::new(),
        freezes: BTreeSet::new(),
        freeze_exceptions: Default::default(),
        stops: Vec::new(),
        epoch: Epoch(epoch),
        findings: Vec::new(),
        preview: None,
        unseen: None,
        approval: None,
        plan: None,
    };
    let decision = Decision::from_iter([Cause::new(ruling, Reason::PermittedByPolicy, "")]);
    let (policy, parameters) = (Digest::of(b"policy"), Digest::of(b"parameters"));
    let (guards, checks) = Default::default();
    let approval = None;
    Box::new(Proposal { request, facts, decision, policy, guards, parameters, checks, approval })
}

fn stop(scope: StopScope) -> Stop {
    Stop { id: 1, scope, reason: "test".to_owned(), by: "operator".to_owned(), since: NOW }
}

fn stops_read(epoch: u64, scopes: &[StopScope]) -> Input {
    let stops = scopes.iter().cloned().map(stop).collect();
    Input::StopsRead { epoch: Epoch(epoch), stops }
}

fn ending() -> Ending {
    Ending { status: OutcomeStatus::Succeeded, reason: None, detail: None, output: None }
}

fn status(output: &Output) -> Option<(OutcomeStatus, Option<Reason>)> {
    match output {
        Output::RecordLater(RecordBody::Outcome(record)) => {
            Some((record.more.status, record.more.reason))
        }
        _ => None,
    }
}

#[test]
fn a_permit_comes_after_the_record_and_only_once() {
    let mut control = Control::default();
    let outputs = control.handle(Input::Proposed(proposal(1, Ruling::Permit, 0)), NOW);
    assert!(matches!(outputs.as_slice(), [Output::Admit(_, Epoch(0))]), "{outputs:?}");
    assert!(control.running().is_empty());
    let outputs = control.handle(Input::Recorded(id(1)), NOW);
    assert!(matches!(outputs.as_slice(), [Output::Execute(_)]), "{outputs:?}");
    assert_eq!(control.running().len(), 1);
    assert_eq!(control.handle(Input::Recorded(id(1)), NOW), []);
    let outputs = control.handle(Input::Ended(id(1), ending()), NOW);
    let statuses: Vec<_> = outputs.iter().map(status).collect();
    assert_eq!(statuses, [Some((OutcomeStatus::Succeeded, None))]);
    assert_eq!(control.handle(Input::Ended(id(1), ending()), NOW), []);
    assert_eq!(control.in_flight(), 0);
}

#[test]
fn a_task_keeps_its_action_open_and_out_of_the_way() {
    let mut control = Control::default();
    let task = TaskRecord { task: Digest::of(b"task") };
    let given = || Input::TaskGiven(id(1), task.clone());
    assert_eq!(control.handle(given(), NOW), [], "of an action that nobody knows");
    let outputs = control.handle(Input::Proposed(proposal(1, Ruling::Permit, 0)), NOW);
    let Some(Output::Admit(RecordBody::Decision(decision), _)) = outputs.first() else {
        panic!("{outputs:?}");
    };
    assert_eq!(control.handle(given(), NOW), [], "of an action that is not permitted yet");
    control.handle(Input::Recorded(id(1)), NOW);
    let outputs = control.handle(given(), NOW);
    assert!(matches!(outputs.as_slice(), [Output::Record(RecordBody::TaskGiven(_))]));
    assert_eq!(control.handle(given(), NOW), [], "given twice");
    assert_eq!((control.in_flight(), control.running().len()), (0, 1));
    let cancel = [Output::Cancel(id(1), Reason::CancelledByStop)];
    assert_eq!(control.handle(stops_read(1, &[StopScope::All]), NOW), cancel);
    let outputs = control.handle(Input::Ended(id(1), ending()), NOW);
    assert!(matches!(outputs.as_slice(), [Output::RecordLater(RecordBody::Outcome(_))]));
    assert_eq!((control.in_flight(), control.running().len()), (0, 0));
    // Another process takes it over while the stop is in force.
    let taken = || Input::TaskTakenOver(decision.clone(), task.clone(), NOW);
    let outputs = control.handle(taken(), NOW);
    assert!(matches!(outputs.first(), Some(Output::Record(RecordBody::TaskGiven(_)))));
    assert_eq!(outputs[1..], cancel);
    assert_eq!(control.handle(taken(), NOW), [], "taken over twice");
    assert_eq!((control.in_flight(), control.running().len()), (0, 1));
    control.handle(Input::Unrecorded(id(1)), NOW);
    assert_eq!((control.in_flight(), control.running().len()), (0, 0));
}

/// A control with a permit out, and the decision's record.
fn permitted() -> (Control, crate::Permit, RecordBody) {
    let mut control = Control::default();
    let mut outputs = control.handle(Input::Proposed(proposal(1, Ruling::Permit, 0)), NOW);
    let Some(Output::Admit(record, _)) = outputs.pop() else { panic!("no record") };
    let Some(Output::Execute(permit)) = control.handle(Input::Recorded(id(1)), NOW).pop() else {
        panic!("no permit");
    };
    (control, permit, record)
}

#[test]
fn what_is_handed_over_to_a_host_is_out_of_the_way_until_the_host_tells_how_it_ended() {
    let (mut control, permit, record) = permitted();
    assert_eq!(control.handle(Input::HandedOver(permit), NOW), []);
    assert_eq!((control.in_flight(), control.running().len()), (0, 0));
    assert_eq!(control.handle(stops_read(1, &[StopScope::All]), NOW), [], "a host is not reached");
    assert_eq!(control.handle(Input::Ended(id(1), ending()), NOW), []);
    // Any process can hear of its end, whatever is stopped by now.
    let RecordBody::Decision(decided) = record else { panic!("no decision") };
    let later = Timestamp(NOW.0 + 5);
    let outputs = Control::default().handle(Input::HostTold(decided, NOW, ending()), later);
    let [Output::Record(RecordBody::Outcome(outcome))] = outputs.as_slice() else {
        panic!("{outputs:?}");
    };
    assert_eq!((outcome.more.status, outcome.more.duration_ms), (OutcomeStatus::Succeeded, 5));
}

#[test]
fn a_stop_that_comes_before_a_host_goes_on_is_kept() {
    let (mut control, permit, _) = permitted();
    let cancel = [Output::Cancel(id(1), Reason::CancelledByStop)];
    assert_eq!(control.handle(stops_read(1, &[StopScope::All]), NOW), cancel);
    let outputs = control.handle(Input::HandedOver(permit), NOW);
    let not_sent = Some((OutcomeStatus::NotSent, Some(Reason::Stopped)));
    assert_eq!(outputs.first().map(status), Some(not_sent));
    let Some(Output::Refuse(_, decision)) = outputs.get(1) else { panic!("{outputs:?}") };
    assert_eq!(decision.ruling(), Ruling::Halt);
    assert_eq!(control.in_flight(), 0);
    // A permit of another control hands nothing over.
    let (_, permit, _) = permitted();
    let outputs = control.handle(Input::HandedOver(permit), NOW);
    assert!(matches!(outputs.as_slice(), [Output::Refuse(..)]), "{outputs:?}");
}

#[test]
fn everything_but_a_permit_is_recorded_and_refused() {
    for ruling in [Ruling::PlanOnly, Ruling::Hold, Ruling::Deny, Ruling::Halt] {
        let mut control = Control::default();
        let outputs = control.handle(Input::Proposed(proposal(1, ruling, 0)), NOW);
        assert!(matches!(outputs.as_slice(), [Output::Record(_)]), "{outputs:?}");
        let outputs = control.handle(Input::Recorded(id(1)), NOW);
        assert!(matches!(outputs.as_slice(), [Output::Refuse(..)]), "{outputs:?}");
        assert_eq!(control.in_flight(), 0);
    }
}

#[test]
fn a_stop_between_record_and_permit_refuses_and_says_it_was_not_sent() {
    let mut control = Control::default();
    control.handle(Input::Proposed(proposal(1, Ruling::Permit, 0)), NOW);
    control.handle(stops_read(1, &[StopScope::All]), NOW);
    let outputs = control.handle(Input::Recorded(id(1)), NOW);
    let [outcome, Output::Refuse(_, decision)] = outputs.as_slice() else {
        panic!("{outputs:?}");
    };
    assert_eq!(status(outcome), Some((OutcomeStatus::NotSent, Some(Reason::Stopped))));
    assert_eq!(decision.ruling(), Ruling::Halt);
}

#[test]
fn a_release_between_record_and_permit_refuses_too() {
    let mut control = Control::default();
    control.handle(Input::Proposed(proposal(1, Ruling::Permit, 0)), NOW);
    control.handle(stops_read(1, &[]), NOW);
    let outputs = control.handle(Input::Recorded(id(1)), NOW);
    assert!(matches!(outputs.as_slice(), [_, Output::Refuse(..)]), "{outputs:?}");
}

#[test]
fn a_stop_cancels_what_it_covers_once_and_outranks_the_agent() {
    let mut control = Control::default();
    control.handle(Input::Proposed(proposal(1, Ruling::Permit, 0)), NOW);
    control.handle(Input::Recorded(id(1)), NOW);
    let agent = Output::Cancel(id(1), Reason::CancelledByAgent);
    assert_eq!(control.handle(Input::CancelAsked(id(1)), NOW), [agent]);
    let other = StopScope::Agent("other".parse().unwrap());
    assert_eq!(control.handle(stops_read(1, &[other]), NOW), []);
    let server = StopScope::Server("fs".parse().unwrap());
    let stopped = Output::Cancel(id(1), Reason::CancelledByStop);
    assert_eq!(control.handle(stops_read(2, std::slice::from_ref(&server)), NOW), [stopped]);
    assert_eq!(control.handle(stops_read(3, &[server]), NOW), []);
    assert_eq!(control.handle(Input::CancelAsked(id(1)), NOW), []);
    let in_doubt = Ending { status: OutcomeStatus::InDoubt, ..ending() };
    let outputs = control.handle(Input::Ended(id(1), in_doubt), NOW);
    let expected = Some((OutcomeStatus::InDoubt, Some(Reason::CancelledByStop)));
    assert_eq!(outputs.first().and_then(status), expected);
}

#[test]
fn an_older_read_takes_no_stop_back() {
    let mut control = Control::default();
    control.handle(stops_read(2, &[StopScope::All]), NOW);
    control.handle(stops_read(1, &[]), NOW);
    assert_eq!(control.stops().len(), 1);
}

#[test]
fn an_unrecorded_action_is_forgotten() {
    let mut control = Control::default();
    control.handle(Input::Proposed(proposal(1, Ruling::Permit, 0)), NOW);
    assert_eq!(control.handle(Input::Unrecorded(id(1)), NOW), []);
    assert_eq!(control.handle(Input::Recorded(id(1)), NOW), []);
    assert_eq!(control.in_flight(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Propose(u8, Ruling),
    Recorded(u8),
    Unrecorded(u8),
    Ended(u8),
    CancelAsked(u8),
    Stop,
    Release,
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0_u8..6;
    prop_oneof![
        (number.clone(), prop::sample::select(Ruling::ALL.to_vec()))
            .prop_map(|(number, ruling)| Step::Propose(number, ruling)),
        number.clone().prop_map(Step::Recorded),
        number.clone().prop_map(Step::Unrecorded),
        number.clone().prop_map(Step::Ended),
        number.prop_map(Step::CancelAsked),
        Just(Step::Stop),
        Just(Step::Release),
    ]
}

proptest! {
    /// Whatever happens in whatever order: no permit without a recorded permit decision, none while
    /// a stop is in force, never two for one action.
    #[test]
    fn permits_keep_their_promises(steps in prop::collection::vec(step(), 0..80)) {
        let mut control = Control::default();
        let mut epoch = 0;
        let mut stopped = false;
        let mut next = 0_u8;
        let mut current = [0_u8; 6];
        let mut permitted = BTreeSet::new();
        let mut executed = BTreeSet::new();
        for step in steps {
            let input = match step {
                Step::Propose(slot, ruling) => {
                    next = next.wrapping_add(1);
                    current[usize::from(slot)] = next;
                    if ruling == Ruling::Permit && !stopped {
                        permitted.insert(id(next));
                    }
                    let ruling = if stopped { ruling.max(Ruling::Halt) } else { ruling };
                    Input::Proposed(proposal(next, ruling, epoch))
                }
                Step::Recorded(slot) => Input::Recorded(id(current[usize::from(slot)])),
                Step::Unrecorded(slot) => Input::Unrecorded(id(current[usize::from(slot)])),
                Step::Ended(slot) => Input::Ended(id(current[usize::from(slot)]), ending()),
                Step::CancelAsked(slot) => Input::CancelAsked(id(current[usize::from(slot)])),
                Step::Stop => {
                    epoch += 1;
                    stopped = true;
                    stops_read(epoch, &[StopScope::All])
                }
                Step::Release => {
                    epoch += 1;
                    stopped = false;
                    stops_read(epoch, &[])
                }
            };
            for output in control.handle(input, NOW) {
                if let Output::Execute(permit) = output {
                    prop_assert!(!stopped);
                    prop_assert_eq!(permit.epoch(), Epoch(epoch));
                    prop_assert!(permitted.contains(&permit.action()));
                    prop_assert!(executed.insert(permit.action()));
                }
            }
        }
    }
}
