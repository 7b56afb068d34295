//! The starter pack, as one table: what it says about every kind of call.

use crate::calls::call;
use expect_test::{expect, expect_file};
use holdpoint_policy::{PolicySet, starter_pack};
use holdpoint_types::{Decision, EffectClass, Facts, Mode, Request, Ruling};
use std::fmt::Write;

const SURFACES: [&str; 8] = ["-", "prod", "auth", "network", "billing", "ci", "secrets", "docs"];

fn ruling(set: &PolicySet, request: &Request, facts: &Facts) -> Ruling {
    let causes = set.evaluate(request, facts);
    assert_eq!(causes, set.evaluate_whole(request, facts));
    Decision::from_iter(causes).ruling()
}

/// The first letter of each row: what varies; the columns: the surface that the resource is on.
fn table(set: &PolicySet) -> String {
    let mut table = format!("{:<12}{:<9}{:<8}{:<6}", "class", "granted", "freeze", "env");
    SURFACES.iter().for_each(|surface| write!(table, "{surface:<9}").unwrap());
    for class in EffectClass::ALL {
        for (granted, frozen) in [(true, false), (true, true), (false, false), (false, true)] {
            for environment in ["dev", "prod"] {
                let (granted_word, frozen_word) = (yes(granted), yes(frozen));
                let class_word = class.as_str();
                let row =
                    format!("{class_word:<12}{granted_word:<9}{frozen_word:<8}{environment:<6}");
                write!(table, "\n{row}").unwrap();
                for surface in SURFACES {
                    let (request, mut facts) = call(class);
                    facts.target.environment = environment.to_owned();
                    facts.target.surfaces.extend((surface != "-").then(|| surface.to_owned()));
                    facts.freezes.extend(frozen.then(|| "release".to_owned()));
                    facts.grant.by = facts.grant.by.filter(|_| granted);
                    write!(table, "{:<9}", ruling(set, &request, &facts).as_str()).unwrap();
                }
            }
        }
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn yes(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

#[test]
fn the_pack_decides_as_its_table_says() {
    let set = PolicySet::load(&starter_pack()).unwrap();
    expect_file!["starter.txt"].assert_eq(&table(&set));
}

#[test]
fn modes_and_owners_are_defended_in_depth() {
    let set = PolicySet::load(&starter_pack()).unwrap();
    let mut table = String::new();
    for mode in Mode::ALL {
        write!(table, "{:<15}", mode.as_str()).unwrap();
        for class in EffectClass::ALL {
            let (request, mut facts) = call(class);
            facts.agent.as_mut().unwrap().mode = mode;
            write!(table, " {class}: {:<7}", ruling(&set, &request, &facts).as_str()).unwrap();
        }
        table.push('\n');
    }
    write!(table, "{:<15}", "without owner").unwrap();
    for class in EffectClass::ALL {
        let (request, mut facts) = call(class);
        facts.agent.as_mut().unwrap().owner = None;
        write!(table, " {class}: {:<7}", ruling(&set, &request, &facts).as_str()).unwrap();
    }
    expect![[r#"
        auto            read: permit  write: permit  destructive: permit 
        approve-writes  read: permit  write: permit  destructive: permit 
        plan-only       read: permit  write: permit  destructive: permit 
        read-only       read: permit  write: deny    destructive: deny   
        quarantined     read: deny    write: deny    destructive: deny   
        without owner   read: permit  write: deny    destructive: deny   "#]]
    .assert_eq(&table);
}

#[test]
fn nothing_is_permitted_or_held_without_a_grant() {
    let set = PolicySet::load(&starter_pack()).unwrap();
    let permits = set.rules().filter(|rule| rule.effect.as_str() == "permit");
    let ungranted: Vec<_> = permits.filter(|rule| !rule.text.contains("context.granted")).collect();
    assert!(ungranted.is_empty(), "{ungranted:?}");
}
