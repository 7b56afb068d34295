//! The decision matrix: every mode, class, surface, freeze and grant with the starter pack, in one
//! file that a person can review. And the laws of the decision.

use crate::world::{Situation, request};
use expect_test::expect_file;
use holdpoint_control::decide;
use holdpoint_policy::{PolicySet, PolicySets, starter_pack};
use holdpoint_types::{
    Cause, EffectClass, Facts, Finding, FindingResult, Mode, PlanBudget, PlanFacts, PlanFit,
    PlanId, PlanWhen, Reason, Ruling, Stop, StopScope, ToolState,
};
use proptest::prelude::*;
use std::fmt::Write as _;
use std::sync::LazyLock;

static STARTER: LazyLock<PolicySets> =
    LazyLock::new(|| PolicySet::load(&starter_pack()).unwrap().into());

const SURFACES: [Option<&str>; 2] = [None, Some("billing")];
const FREEZES: [Option<&str>; 2] = [None, Some("year-end")];
const GRANTS: [Option<&str>; 2] = [None, Some("class srv__tool")];
const ENVIRONMENTS: [&str; 2] = ["dev", "prod"];

fn situations() -> Vec<Situation> {
    let mut all = Vec::new();
    for mode in Mode::ALL {
        for class in EffectClass::ALL {
            for environment in ENVIRONMENTS {
                for surface in SURFACES {
                    for freeze in FREEZES {
                        for grant in GRANTS {
                            let class = class.to_owned();
                            all.push(Situation {
                                mode,
                                class,
                                surface,
                                freeze,
                                grant,
                                environment,
                            });
                        }
                    }
                }
            }
        }
    }
    all
}

fn row(situation: &Situation) -> String {
    let decision = decide(&request(), &situation.facts(), &STARTER);
    let deciding = decision.deciding().map(|cause| match (&cause.rule, &cause.approval) {
        (Some(rule), Some(approval)) => format!("{} [{rule}, needs {approval}]", cause.reason),
        (Some(rule), None) => format!("{} [{rule}]", cause.reason),
        (None, _) => cause.reason.to_string(),
    });
    let deciding: Vec<_> = deciding.collect();
    format!(
        "{:<14} {:<11} {:<4} {:<7} {:<8} {:<7} -> {:<9} {}",
        situation.mode.as_str(),
        situation.class.as_str(),
        situation.environment,
        situation.surface.unwrap_or("-"),
        situation.freeze.unwrap_or("-"),
        if situation.grant.is_some() { "granted" } else { "-" },
        decision.ruling().as_str(),
        deciding.join(", "),
    )
}

#[test]
fn the_matrix_is_as_reviewed() {
    let mut text = String::from(
        "mode           class       env  surface freeze   grant   -> ruling    because\n",
    );
    for situation in situations() {
        writeln!(text, "{}", row(&situation)).unwrap();
    }
    expect_file!["matrix.txt"].assert_eq(&text);
}

#[test]
fn what_is_missing_denies() {
    let open = Situation::open(EffectClass::Read);
    assert_eq!(decide(&request(), &open.facts(), &STARTER).ruling(), Ruling::Permit);
    let empty = PolicySet::load(&[]).unwrap().into();
    let check = |change: fn(&mut Facts), reason: Reason| {
        let mut facts = open.facts();
        change(&mut facts);
        let decision = decide(&request(), &facts, &STARTER);
        assert!(decision.ruling() >= Ruling::Deny, "{reason}: {decision:?}");
        assert!(decision.causes().any(|cause| cause.reason == reason), "{reason}: {decision:?}");
    };
    check(|facts| facts.agent = None, Reason::AgentUnknown);
    check(|facts| facts.agent.as_mut().unwrap().owner = None, Reason::AgentUnowned);
    check(|facts| facts.tool = None, Reason::ToolUnknown);
    check(|facts| facts.grant.by = None, Reason::NotGranted);
    let changed = |facts: &mut Facts| {
        let tool = facts.tool.as_mut().unwrap();
        tool.state = ToolState::Changed { pinned: holdpoint_types::Digest::of(b"before") };
    };
    check(changed, Reason::ToolQuarantined);
    let decision = decide(&request(), &open.facts(), &empty);
    assert_eq!(decision.ruling(), Ruling::Deny);
    assert!(decision.causes().all(|cause| cause.reason == Reason::NoPolicyPermits));
}

fn situation() -> impl Strategy<Value = Situation> {
    prop::sample::select(situations())
}

fn stricter() -> impl Strategy<Value = fn(&mut Facts)> {
    let stop = |facts: &mut Facts| {
        let (reason, by) = ("test".to_owned(), "operator".to_owned());
        let since = crate::world::NOW;
        facts.stops.push(Stop { id: 1, scope: StopScope::All, reason, by, since });
    };
    let finding = |facts: &mut Facts| {
        let unusable = (FindingResult::Opaque, Reason::SchemaUnusable);
        facts.findings.push(Finding::new("schema", unusable, "at `/`"));
    };
    let owner = |facts: &mut Facts| facts.agent.as_mut().unwrap().owner = None;
    let freeze = |facts: &mut Facts| {
        facts.freezes.insert("now".to_owned());
    };
    let surface = |facts: &mut Facts| {
        facts.target.surfaces.insert("secrets".to_owned());
    };
    let choices: Vec<fn(&mut Facts)> = vec![stop, finding, owner, freeze, surface];
    prop::sample::select(choices)
}

#[test]
fn what_is_no_part_of_a_plan_is_denied() {
    let check = |class, fit: PlanFit, expected: Ruling| {
        let mut facts = Situation::open(class).facts();
        let plan = PlanId::new(crate::world::NOW, [4; 10]);
        facts.plan = Some(PlanFacts { plan, version: 2, fit });
        let decision = decide(&request(), &facts, &STARTER);
        assert_eq!(decision.ruling(), expected, "{decision:?}");
        decision
    };
    let nearest = Some("backup".parse().unwrap());
    let why = "next is step `backup`, which calls `fs__copy`, not `srv__tool`".to_owned();
    let denied =
        check(EffectClass::Write, PlanFit::Deviation { nearest, why: why.clone() }, Ruling::Deny);
    let cause = denied.deciding().next().unwrap();
    assert_eq!((cause.reason, &cause.text), (Reason::PlanDeviation, &why));
    assert!(cause.rule.as_ref().unwrap().ends_with(" step backup"), "{:?}", cause.rule);
    // A plan permits nothing by itself: it only takes nothing away.
    let step = || PlanFit::Step { step: "a".parse().unwrap(), uses: PlanBudget::default() };
    check(EffectClass::Write, step(), Ruling::Permit);
    // Who looks at a condition reads, whatever the plan says.
    let condition = || {
        let (step, when) = ("a".parse().unwrap(), PlanWhen::After);
        PlanFit::Condition { step, when, number: 1 }
    };
    check(EffectClass::Read, condition(), Ruling::Permit);
    check(EffectClass::Write, condition(), Ruling::Deny);
    let mut alone = Situation::open(EffectClass::Write);
    alone.grant = None;
    let plan = PlanId::new(crate::world::NOW, [4; 10]);
    let facts = Facts { plan: Some(PlanFacts { plan, version: 2, fit: step() }), ..alone.facts() };
    assert_eq!(decide(&request(), &facts, &STARTER).ruling(), Ruling::Deny);
}

proptest! {
    /// Less autonomy, a higher class, a lost grant, a stop, a finding, a freeze, a surface: none of
    /// them ever makes a decision milder.
    #[test]
    fn bad_news_never_helps(situation in situation(), worse in stricter()) {
        let before = decide(&request(), &situation.facts(), &STARTER).ruling();
        let mut facts = situation.facts();
        worse(&mut facts);
        prop_assert!(decide(&request(), &facts, &STARTER).ruling() >= before);
        let ungranted = Situation { grant: None, ..situation };
        prop_assert!(decide(&request(), &ungranted.facts(), &STARTER).ruling() >= before);
    }

    /// One more effect, whatever it is, never makes a decision milder; and a call is never judged
    /// more mildly than the strictest of its effects alone.
    #[test]
    fn more_effects_never_make_it_milder(
        base in situation(),
        some in prop::collection::vec(situation(), 1..4),
        another in situation(),
    ) {
        let judged = |effects: &[Situation]| {
            let mut facts = base.facts();
            facts.effects = effects.iter().map(|one| one.effect()).collect();
            facts.tool.as_mut().unwrap().class =
                effects.iter().map(|one| one.class).max().unwrap();
            decide(&request(), &facts, &STARTER).ruling()
        };
        let before = judged(&some);
        prop_assert!(some.iter().all(|one| judged(&[*one]) <= before));
        let more: Vec<_> = some.into_iter().chain([another]).collect();
        prop_assert!(judged(&more) >= before);
    }

    /// Replaying a decision from what its record holds gives the same bytes.
    #[test]
    fn a_decision_replays_from_its_record(situation in situation()) {
        let (request, facts) = (request(), situation.facts());
        let decision = decide(&request, &facts, &STARTER);
        let bytes = holdpoint_types::canonical_bytes(&(&request, &facts, &decision)).unwrap();
        let (request, facts, recorded): (_, _, holdpoint_types::Decision) =
            serde_json::from_slice(&bytes).unwrap();
        let again = PolicySet::load(STARTER.ordinary().sources()).unwrap().into();
        let replayed = decide(&request, &facts, &again);
        let replayed = holdpoint_types::canonical_bytes(&replayed).unwrap();
        prop_assert_eq!(replayed, holdpoint_types::canonical_bytes(&recorded).unwrap());
    }

    /// A cause more is never a ruling less, whatever policies say.
    #[test]
    fn joining_is_monotone_over_real_decisions(situation in situation()) {
        let decision = decide(&request(), &situation.facts(), &STARTER);
        for ruling in Ruling::ALL {
            let more = Cause::new(ruling, Reason::ValidatorFailed, "");
            prop_assert!(decision.clone().join([more]).ruling() >= decision.ruling());
        }
    }
}
