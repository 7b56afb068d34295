//! Plans: what has become of them, and of their calls, follows from the records.

use super::{action, ana, decided, gateway, open, outcome, record, tamper, verify};
use crate::store::{Admission, OnProposal, PlanRuling, Proposed, Store, VerifyFault};
use holdpoint_control::plan::{CallState, StepState};
use holdpoint_types::{
    Digest, Epoch, OutcomeStatus, Plan, PlanBasis, PlanBudget, PlanDraft, PlanEnd, PlanFacts,
    PlanFit, PlanId, PlanLooked, PlanProposed, PlanState, Record, RecordBody, Ruling, TaskId,
    Timestamp,
};
use serde_json::json;

fn id(number: u8) -> PlanId {
    PlanId::new(Timestamp(1), [number; 10])
}

fn task(number: u8) -> TaskId {
    TaskId::new(Timestamp(1), [number; 10])
}

/// A plan of two steps that lasts for 1,000 s.
fn plan(number: u8, of_task: u8, parent: Option<u8>) -> PlanProposed {
    let step = |name: &str| json!({ "id": name, "tool": "db__query", "class": "write" });
    let draft = json!({ "purpose": "x", "steps": [step("a"), step("b")], "expires_in_s": 1000 });
    let draft: PlanDraft = serde_json::from_value(draft).unwrap();
    let policy = Digest::of(b"policy");
    let (tools, targets) = Default::default();
    let basis = PlanBasis { policy, tools, targets, parent: parent.map(id) };
    let whose = ("coder".parse().unwrap(), task(of_task));
    let plan = Plan::of(draft, id(number), whose, Timestamp(0), basis);
    PlanProposed { plan, notes: Vec::new() }
}

async fn propose(store: &Store, proposed: PlanProposed, then: OnProposal) -> Proposed {
    store.propose_plan(proposed, then, Timestamp(10)).await.unwrap()
}

async fn accept(store: &Store, number: u8, at_ms: i64) -> PlanRuling {
    let (what, word) = ((id(number), OnProposal::Accept), (ana(), "fine".to_owned()));
    store.rule_plan(what, word, Timestamp(at_ms)).await.unwrap()
}

/// The decision about a call of step `step` of the plan, by what is in the store.
fn call_of(store: &Store, (plan, step): (u8, &str), number: u8, ruling: Ruling) -> Record {
    let mut record = decided(number, ruling, 20);
    if let RecordBody::Decision(decided) = &mut record.body {
        let uses = PlanBudget { resources: Some(1), ..PlanBudget::default() };
        let version = store.plan(id(plan)).unwrap().unwrap().version;
        let fit = PlanFit::Step { step: step.parse().unwrap(), uses };
        decided.more.facts.plan = Some(PlanFacts { plan: id(plan), version, fit });
    }
    record
}

async fn admit(store: &Store, record: Record) -> bool {
    match store.admit(record, Epoch(0)).await.unwrap() {
        Admission::Recorded { .. } => true,
        Admission::PlanMoved => false,
        other => panic!("{other:?}"),
    }
}

fn state(store: &Store, number: u8) -> PlanState {
    store.plan(id(number)).unwrap().unwrap().state
}

fn steps(store: &Store, number: u8) -> Vec<StepState> {
    let row = store.plan(id(number)).unwrap().unwrap();
    row.progress().states(&row.plan.steps)
}

#[tokio::test]
async fn how_far_a_plan_has_come_follows_from_its_records() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    assert_eq!(propose(&store, plan(1, 1, None), OnProposal::Wait).await, Proposed::Recorded);
    assert_eq!((state(&store, 1), store.held_agents()), (PlanState::Proposed, Ok(vec![])));
    assert_eq!(accept(&store, 1, 11).await, PlanRuling::Recorded);
    let again = PlanRuling::NotWaiting(PlanState::Accepted);
    assert_eq!(accept(&store, 1, 12).await, again);
    assert_eq!(accept(&store, 9, 12).await, PlanRuling::Unknown);
    assert_eq!(store.held_agents(), Ok(vec!["coder".parse().unwrap()]));
    // A hold takes nothing.
    let held = call_of(&store, (1, "a"), 1, Ruling::Hold);
    store.append(held).await.unwrap();
    assert_eq!(steps(&store, 1)[0], StepState::Open(1));
    // Of two calls that were compared with the same plan, one is admitted.
    let (one, other) = (
        call_of(&store, (1, "a"), 2, Ruling::Permit),
        call_of(&store, (1, "a"), 3, Ruling::Permit),
    );
    assert!(admit(&store, one).await);
    assert!(!admit(&store, other).await);
    assert_eq!(steps(&store, 1)[0], StepState::Running);
    store.append(outcome(2, 30)).await.unwrap();
    let waiting = |steps: Vec<StepState>| matches!(steps[1], StepState::Waiting(_));
    assert!(!waiting(steps(&store, 1)));
    // A process died with a call: nobody knows what it did, until somebody says so after all.
    assert!(admit(&store, call_of(&store, (1, "b"), 4, Ruling::Permit)).await);
    let in_doubt = vec![action(4), action(2)];
    store.append(record(40, RecordBody::FoundInDoubt { in_doubt })).await.unwrap();
    assert_eq!(steps(&store, 1), [StepState::Done, StepState::InDoubt(action(4))]);
    store.append(outcome(4, 50)).await.unwrap();
    assert_eq!(steps(&store, 1), [StepState::Done, StepState::Done]);
    drop(store);
    let store = open(dir.path(), 2);
    assert_eq!(steps(&store, 1), [StepState::Done, StepState::Done]);
    assert!(verify(dir.path()).is_ok());
    drop(store);
    for forged in [
        "DELETE FROM plans",
        "DELETE FROM plan_calls WHERE step = 'a'",
        "UPDATE plans SET state = 'proposed', bound = 0",
        "UPDATE plans SET version = version + 1",
        "UPDATE plans SET expires_ms = expires_ms + 1",
        "UPDATE plans SET agent = 'other'",
        "UPDATE plan_calls SET state = 'not_sent'",
        "UPDATE plan_calls SET uses = '{}'",
    ] {
        let copy = super::copy(dir.path());
        tamper(copy.path(), forged);
        let what = "list of plans";
        assert_eq!(verify(copy.path()), Err(VerifyFault::State { what }), "{forged}");
    }
}

#[tokio::test]
async fn what_was_found_after_a_step_follows_from_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    let mut proposed = plan(1, 1, None);
    let check = json!({ "says": "x", "tool": "db__read", "result": {} });
    proposed.plan.steps[0].postconditions = vec![serde_json::from_value(check).unwrap()];
    propose(&store, proposed, OnProposal::Accept).await;
    assert!(admit(&store, call_of(&store, (1, "a"), 1, Ruling::Permit)).await);
    let version = || store.plan(id(1)).unwrap().unwrap().version;
    let before = version();
    store.append(outcome(1, 30)).await.unwrap();
    assert_eq!(steps(&store, 1)[0], StepState::Unlooked);
    assert_eq!(store.plan_of_call(action(1)).unwrap().unwrap().plan.id, id(1));
    assert_eq!(store.plan_of_call(action(2)), Ok(None));
    let looked = |unmet: Option<&str>| PlanLooked {
        plan: id(1),
        agent: "coder".parse().unwrap(),
        step: "a".parse().unwrap(),
        reads: vec![action(5)],
        unmet: unmet.map(str::to_owned),
    };
    // Who looked at another state of the plan found nothing.
    let old = store.looked_at_step(looked(None), before, Timestamp(31)).await;
    assert_eq!(old, Ok(false));
    assert_eq!(steps(&store, 1)[0], StepState::Unlooked);
    let now = version();
    let unmet = looked(Some("no rows"));
    assert_eq!(store.looked_at_step(unmet, now, Timestamp(32)).await, Ok(true));
    assert_eq!(store.looked_at_step(looked(None), now, Timestamp(33)).await, Ok(false));
    assert_eq!(steps(&store, 1)[0], StepState::Unmet("no rows".to_owned()));
    assert!(matches!(steps(&store, 1)[1], StepState::Waiting(_)));
    drop(store);
    let store = open(dir.path(), 2);
    assert_eq!(steps(&store, 1)[0], StepState::Unmet("no rows".to_owned()));
    assert!(verify(dir.path()).is_ok());
    drop(store);
    for forged in ["DELETE FROM plan_looks", "UPDATE plan_looks SET seq = seq - 1"] {
        let copy = super::copy(dir.path());
        tamper(copy.path(), forged);
        let what = "list of plans";
        assert_eq!(verify(copy.path()), Err(VerifyFault::State { what }), "{forged}");
    }
}

#[tokio::test]
async fn what_was_never_sent_gives_back_its_step() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    propose(&store, plan(1, 1, None), OnProposal::Accept).await;
    assert!(admit(&store, call_of(&store, (1, "a"), 1, Ruling::Permit)).await);
    let mut ended = outcome(1, 30);
    if let RecordBody::Outcome(ended) = &mut ended.body {
        ended.more.status = OutcomeStatus::NotSent;
    }
    store.append(ended).await.unwrap();
    assert_eq!(steps(&store, 1)[0], StepState::Open(1));
    let row = store.plan(id(1)).unwrap().unwrap();
    assert_eq!(row.calls.first().map(|call| call.state), Some(CallState::NotSent));
    assert!(verify(dir.path()).is_ok());
}

#[tokio::test]
async fn a_call_is_admitted_only_by_the_plan_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    // Nobody is held to what nobody accepted.
    propose(&store, plan(1, 1, None), OnProposal::Wait).await;
    assert!(admit(&store, decided(1, Ruling::Permit, 20)).await);
    let early = call_of(&store, (1, "a"), 2, Ruling::Permit);
    assert!(!admit(&store, early).await);
    accept(&store, 1, 11).await;
    // Whoever did not know of the plan yet compares the call with it now.
    assert!(!admit(&store, decided(3, Ruling::Permit, 20)).await);
    let of_task = |number: u8, of_task: u8| {
        let mut record = decided(number, Ruling::Permit, 20);
        if let RecordBody::Decision(decided) = &mut record.body {
            decided.more.request.task = Some(task(of_task));
        }
        record
    };
    assert!(!admit(&store, of_task(4, 1)).await);
    assert!(admit(&store, of_task(5, 2)).await);
    let fits = call_of(&store, (1, "a"), 6, Ruling::Permit);
    let ended = (PlanEnd::Void, "the policies moved".to_owned());
    assert_eq!(store.end_plan(id(1), ended.clone(), Timestamp(21)).await, Ok(true));
    assert_eq!(store.end_plan(id(1), ended, Timestamp(22)).await, Ok(false));
    assert!(!admit(&store, fits).await);
    // Its task stays held to it, and so does what names no task.
    assert!(!admit(&store, of_task(7, 1)).await);
    assert!(!admit(&store, decided(8, Ruling::Permit, 23)).await);
    // One that is over admits nothing, whether or not anybody recorded that.
    propose(&store, plan(2, 3, None), OnProposal::Accept).await;
    let mut late = call_of(&store, (2, "a"), 9, Ruling::Permit);
    late.at_ms = Timestamp(1_000_000);
    assert!(!admit(&store, late).await);
    let ended = (PlanEnd::Done, "every step is done".to_owned());
    assert_eq!(store.end_plan(id(2), ended, Timestamp(24)).await, Ok(true));
    assert!(admit(&store, decided(10, Ruling::Permit, 25)).await);
    assert!(verify(dir.path()).is_ok());
}

#[tokio::test]
async fn a_task_has_one_plan_and_a_revision_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    let (wait, accepts) = (OnProposal::Wait, OnProposal::Accept);
    propose(&store, plan(1, 1, None), accepts).await;
    assert_eq!(propose(&store, plan(2, 1, None), wait).await, Proposed::TaskTaken(id(1)));
    // The plan holds until its revision is accepted.
    assert_eq!(propose(&store, plan(3, 1, Some(1)), wait).await, Proposed::Recorded);
    assert_eq!(state(&store, 1), PlanState::Accepted);
    assert_eq!(propose(&store, plan(4, 1, Some(1)), wait).await, Proposed::TaskTaken(id(3)));
    // What only waits is revised at once.
    assert_eq!(propose(&store, plan(5, 1, Some(3)), wait).await, Proposed::TaskTaken(id(1)));
    assert_eq!(accept(&store, 3, 11).await, PlanRuling::Recorded);
    let revised = PlanState::Ended(PlanEnd::Revised);
    assert_eq!((state(&store, 1), state(&store, 3)), (revised, PlanState::Accepted));
    assert_eq!(propose(&store, plan(6, 1, Some(1)), wait).await, Proposed::ParentClosed);
    assert_eq!(propose(&store, plan(7, 2, Some(3)), wait).await, Proposed::ParentClosed);
    propose(&store, plan(8, 2, None), wait).await;
    assert_eq!(propose(&store, plan(9, 2, Some(8)), wait).await, Proposed::Recorded);
    assert_eq!((state(&store, 8), state(&store, 9)), (revised, PlanState::Proposed));
    // What nobody accepts in time is over.
    let expired = PlanState::Ended(PlanEnd::Expired);
    assert_eq!(accept(&store, 9, 1_000_000).await, PlanRuling::NotWaiting(expired));
    assert_eq!(state(&store, 9), expired);
    // What is refused leaves everything as it was.
    assert_eq!(propose(&store, plan(10, 1, Some(3)), OnProposal::Refuse).await, Proposed::Recorded);
    assert_eq!((state(&store, 3), state(&store, 10)), (PlanState::Accepted, PlanState::Refused));
    let holding = store.plans_holding((&"coder".parse().unwrap(), Some(task(1)))).unwrap();
    assert_eq!(holding.iter().map(|row| row.plan.id).collect::<Vec<_>>(), [id(3)]);
    assert!(verify(dir.path()).is_ok());
    assert_eq!(gateway(1), store.gateway());
}

#[tokio::test]
async fn an_agent_has_so_many_open_plans() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    for number in 1..=16 {
        let proposed = propose(&store, plan(number, number, None), OnProposal::Wait).await;
        assert_eq!(proposed, Proposed::Recorded);
    }
    let full = propose(&store, plan(17, 17, None), OnProposal::Wait).await;
    assert_eq!(full, Proposed::TooMany(16));
    let what = (id(1), OnProposal::Refuse);
    store.rule_plan(what, (ana(), "no".to_owned()), Timestamp(11)).await.unwrap();
    let again = propose(&store, plan(17, 17, None), OnProposal::Wait).await;
    assert_eq!(again, Proposed::Recorded);
    assert_eq!(store.plans(None).unwrap().len(), 16);
    assert_eq!(store.plans(Some(3)).unwrap().len(), 3);
}
