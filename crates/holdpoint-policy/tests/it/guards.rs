//! What guard sets say, and that they only ever add to what is said.

use crate::calls::{call, lines, set, source};
use crate::slicing::{names, policies, question};
use expect_test::{Expect, expect};
use holdpoint_policy::{Guard, GuardFault, GuardScope, Manifest, PolicySet, PolicySets};
use holdpoint_types::{
    Decision, Effect, EffectClass, EffectFacts, Facts, GuardRecord, PolicySource, Request, Ruling,
    TargetFacts, Timestamp, Verb,
};
use proptest::prelude::*;
use std::collections::BTreeSet;

const ALL: &str = r#"@id("all") @reason("may") permit (principal, action, resource);"#;

fn manifest(surfaces: BTreeSet<String>, sources: &[PolicySource]) -> Manifest {
    let scope = GuardScope { surfaces, environments: BTreeSet::new() };
    let files = Manifest::digests(sources);
    Manifest { name: "crown".to_owned(), version: 1, expires: None, scope, files }
}

fn load(manifest: &Manifest, sources: &[PolicySource]) -> Result<Guard, GuardFault> {
    let (note, signers, signed_by) = Default::default();
    let record = GuardRecord { note, signers, signatures_min: 1, signed_by };
    Guard::load(&manifest.text(), sources, record)
}

fn guard(text: &str, surfaces: BTreeSet<String>) -> Guard {
    let sources = [source("crown.cedar", text)];
    load(&manifest(surfaces, &sources), &sources).unwrap()
}

fn on(surfaces: &[&str]) -> BTreeSet<String> {
    surfaces.iter().map(|name| (*name).to_owned()).collect()
}

fn check(guard: Guard, (request, facts): &(Request, Facts), expected: &Expect) {
    let sets = PolicySets::new(set(ALL), [guard]);
    expected.assert_eq(&lines(&sets.evaluate(request, facts)));
}

/// A call that touches `surface`.
fn touching(surface: &str) -> (Request, Facts) {
    let (request, mut facts) = call(EffectClass::Write);
    facts.target.surfaces.insert(surface.to_owned());
    (request, facts)
}

#[test]
fn a_guarded_surface_needs_both_permits() {
    let nothing = || guard("", on(&["auth"]));
    check(
        nothing(),
        &touching("auth"),
        &expect![[r#"
            permit permitted_by_policy all:
                may
            deny no_guard_permits crown:
                no policy permits `coder` to use `fs__write_file` (write) in `dev` with a grant"#]],
    );
    check(
        nothing(),
        &touching("billing"),
        &expect![[r#"
            permit permitted_by_policy all:
                may"#]],
    );
    check(
        guard(ALL, on(&["auth"])),
        &touching("auth"),
        &expect![[r#"
            permit permitted_by_policy all:
                may
            permit permitted_by_policy crown/all:
                may"#]],
    );
    let forbids = r#"@id("no") @reason("never") forbid (principal, action, resource);"#;
    check(
        guard(&format!("{ALL}{forbids}"), on(&["auth"])),
        &touching("auth"),
        &expect![[r#"
            permit permitted_by_policy all:
                may
            deny guard_forbids crown/no:
                never"#]],
    );
    let holds = r#"@id("ask") @reason("two") @hold("cab") permit (principal, action, resource);"#;
    check(
        guard(holds, on(&["auth"])),
        &touching("auth"),
        &expect![[r#"
            permit permitted_by_policy all:
                may
            hold policy_holds crown/ask [cab]:
                two"#]],
    );
}

#[test]
fn a_guard_is_asked_about_what_it_guards_and_nothing_else() {
    let (request, mut facts) = touching("auth");
    let one = |resource: &str, surfaces| EffectFacts {
        effect: Effect::new(Verb::Update, resource, "`x`"),
        grant: facts.grant.clone(),
        target: TargetFacts { resource: resource.to_owned(), surfaces, ..facts.target.clone() },
    };
    facts.effects = vec![one("file:///a", on(&[])), one("file:///b", on(&["auth"]))];
    check(
        guard("", on(&["auth"])),
        &(request, facts),
        &expect![[r#"
            permit permitted_by_policy all:
                may
            deny no_guard_permits crown:
                no policy permits `coder` to use `fs__write_file` (write) in `dev` with a grant (update file:///b: `x`)"#]],
    );
}

#[test]
fn an_environment_can_be_guarded() {
    let sources = [source("crown.cedar", "")];
    let mut manifest = manifest(BTreeSet::new(), &sources);
    manifest.scope.environments = on(&["dev"]);
    let sets = PolicySets::new(set(ALL), [load(&manifest, &sources).unwrap()]);
    let (request, mut facts) = call(EffectClass::Read);
    assert_eq!(Decision::from_iter(sets.evaluate(&request, &facts)).ruling(), Ruling::Deny);
    assert_eq!(sets.guards_of(&facts).len(), 1);
    facts.target.environment = "test".to_owned();
    assert_eq!(Decision::from_iter(sets.evaluate(&request, &facts)).ruling(), Ruling::Permit);
    assert!(sets.guards_of(&facts).is_empty());
}

#[test]
fn an_expired_guard_permits_nothing() {
    let sources = [source("crown.cedar", ALL)];
    let mut manifest = manifest(on(&["auth"]), &sources);
    manifest.expires = Some(Timestamp(1000));
    let sets = PolicySets::new(set(ALL), [load(&manifest, &sources).unwrap()]);
    let (mut request, facts) = touching("auth");
    request.at = Timestamp(999);
    assert_eq!(Decision::from_iter(sets.evaluate(&request, &facts)).ruling(), Ruling::Permit);
    request.at = Timestamp(1000);
    expect![[r#"
        permit permitted_by_policy all:
            may
        deny guard_expired crown:
            The signed policy set that guards what the call touches has expired."#]]
    .assert_eq(&lines(&sets.evaluate(&request, &facts)));
}

#[test]
fn other_files_than_the_signed_ones_do_not_load() {
    let signed = [source("a.cedar", ""), source("b.cedar", ALL)];
    let manifest = manifest(on(&["auth"]), &signed);
    assert!(load(&manifest, &signed).is_ok());
    let others = [
        (vec![source("a.cedar", "")], "`b.cedar` is missing"),
        (vec![source("a.cedar", ""), source("b.cedar", "// x")], "`b.cedar` was changed"),
        (
            vec![source("a.cedar", ""), source("c.cedar", ALL)],
            "`c.cedar` was added, `b.cedar` is missing",
        ),
        ([&signed[..], &[source("z.cedar", "")]].concat(), "`z.cedar` was added"),
        ([&signed[..], &signed[..1]].concat(), "two files have one name"),
    ];
    for (files, why) in others {
        let fault = load(&manifest, &files).unwrap_err().to_string();
        assert_eq!(fault, format!("the files are not those that were signed: {why}"));
    }
    let sources = [source("a.cedar", "permit (")];
    let broken = load(&manifest_of(&sources), &sources).unwrap_err();
    assert!(matches!(broken, GuardFault::Policies(_)), "{broken}");
}

fn manifest_of(sources: &[PolicySource]) -> Manifest {
    manifest(on(&["auth"]), sources)
}

#[test]
fn the_digest_is_of_everything_that_was_signed() {
    let sources = [source("a.cedar", ALL)];
    let first = manifest_of(&sources);
    let mut others = vec![first.clone(); 3];
    others[0].version = 2;
    others[1].scope.surfaces = on(&["auth", "prod"]);
    others[2].expires = Some(Timestamp(1));
    let mut digests: BTreeSet<_> =
        others.iter().map(|one| load(one, &sources).unwrap().digest()).collect();
    digests.insert(load(&first, &sources).unwrap().digest());
    assert_eq!(digests.len(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    /// Whatever a guard says, no decision is milder with it; and where it guards nothing of what a
    /// call touches, not a word of the answer changes.
    #[test]
    fn a_guard_never_makes_a_decision_milder(
        ordinary in policies(),
        guarding in policies(),
        guarded in names(),
        (request, mut facts) in question(),
        others in prop::collection::vec((question(), any::<bool>()), 0..3),
    ) {
        facts.effects = others
            .into_iter()
            .map(|((_, other), whole)| {
                let effect = Effect::new(Verb::Delete, other.target.resource.clone(), "x");
                let effect = if whole { effect.whole() } else { effect };
                EffectFacts { effect, grant: other.grant, target: other.target }
            })
            .collect();
        let without = PolicySets::from(set(&ordinary));
        let guard = guard(&guarding, guarded.clone());
        let alone = guard.evaluate(&request, &facts);
        let with = PolicySets::new(set(&ordinary), [guard]);
        let before = Decision::from_iter(without.evaluate(&request, &facts));
        let after = Decision::from_iter(with.evaluate(&request, &facts));
        prop_assert!(after.ruling() >= before.ruling());
        let touched = facts.aims().any(|aim| !aim.target.surfaces.is_disjoint(&guarded));
        prop_assert_eq!(with.guards_of(&facts).len(), usize::from(touched));
        if touched {
            prop_assert!(after.ruling() >= Decision::from_iter(alone).ruling());
        } else {
            prop_assert_eq!(alone, vec![]);
            prop_assert_eq!(after, before);
        }
    }
}

#[test]
fn a_set_without_guards_is_as_before() {
    let sets = PolicySets::from(PolicySet::load(&[source("a.cedar", ALL)]).unwrap());
    let (request, facts) = touching("auth");
    assert_eq!(sets.evaluate(&request, &facts), sets.ordinary().evaluate(&request, &facts));
    assert_eq!(sets.digest(), sets.ordinary().digest());
}
