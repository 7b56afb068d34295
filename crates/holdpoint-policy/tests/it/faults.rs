//! Faults in policy files: all of them at once, each with its place and a way out.

use crate::calls::{call, set, source};
use expect_test::{Expect, expect, expect_file};
use holdpoint_policy::{PolicyFault, PolicySet};
use holdpoint_types::{EffectClass, Ruling};
use proptest::prelude::*;

fn report(faults: &[PolicyFault]) -> String {
    let line = |fault: &PolicyFault| {
        let help = fault
            .suggestion
            .as_ref()
            .map_or_else(String::new, |help| format!("\n    help: {help}"));
        format!("{}:{}:{}\n    {}{help}", fault.file, fault.line, fault.column, fault.message)
    };
    faults.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn refused(files: &[(&str, &str)]) -> String {
    let sources: Vec<_> = files.iter().map(|(name, text)| source(name, text)).collect();
    report(&PolicySet::load(&sources).unwrap_err())
}

fn check(files: &[(&str, &str)], expected: &Expect) {
    expected.assert_eq(&refused(files));
}

#[test]
fn a_word_that_is_never_there_is_doubtful() {
    let doubts = |condition: &str| {
        let text = format!(
            "@id(\"p\") @reason(\"r\")\npermit (principal, action, resource) when {{ {condition} }};"
        );
        let said = crate::calls::set(&text).doubts();
        said.iter().map(|doubt| format!("{doubt}")).collect::<Vec<_>>()
    };
    let never = |what: &str, word: &str| {
        vec![format!("test.cedar:1:1: for policy `p`, `{what}` is never \"{word}\"")]
    };
    for (condition, expected) in [
        ("context.certainty == \"sure\"", never("context.certainty", "sure")),
        ("context.granted && !(\"drop\" != context.verb)", never("context.verb", "drop")),
        ("[\"part\", \"all\"].contains(context.extent)", never("context.extent", "all")),
        ("context.reversibility == \"never\"", never("context.reversibility", "never")),
        ("context.guarantee == \"never\"", never("context.guarantee", "never")),
        ("context.disclosure != \"none\"", never("context.disclosure", "none")),
        ("context.guarantee == \"unknown\" && context.disclosure == \"left\"", vec![]),
        ("context.door == \"http\"", never("context.door", "http")),
        ("context.tool.class == \"destroy\"", never("context.tool.class", "destroy")),
        ("principal.mode == \"Auto\"", never("principal.mode", "Auto")),
        ("context.certainty == \"exact\" || context.verb == \"declared\"", vec![]),
        ("context.tool.server == \"anything\"", vec![]),
        ("principal.mode == \"read-only\" && context.door == \"try\"", vec![]),
    ] {
        assert_eq!(doubts(condition), expected, "{condition}");
    }
}

#[test]
fn every_fault_of_every_file_is_reported_at_once() {
    let one = r#"// The first file.
@id("fine") @reason("fine") permit (principal, action == Action::"read", resource);

@id("syntax")
@reason("a single equals sign")
permit (principal = Agent::"coder", action, resource);

@reason("nameless")
permit (principal, action, resource);

@id("misspelt")
@reson("x")
@hold("owner")
permit (principal, action, resource) when { context.grantd };

@id("held-forbid") @reason("x") @hold("owner")
forbid (principal, action == Action::"wriet", resource);

@id("template") @reason("x")
permit (principal == ?principal, action, resource);
"#;
    let two = r#"@id("fine") @reason("the same id")
permit (principal, action, resource);
@id("two words") @reason("") @hold
permit (principal, action, resource)
when { context.call.getTag("/path") like "/srv/*" };
@id("never") @reason("x")
forbid (principal is Team, action, resource);
@id("types") @reason("x")
permit (principal, action, resource) when { principal.mode == 3 || context.task == Task::"x" };
@id("open") @reason("ünfinished") permit (principal, action, resource) when { "x" /"#;
    let found = refused(&[("one.cedar", one), ("two.cedar", two)]);
    expect_file!["faults.txt"].assert_eq(&format!("{found}\n"));
}

#[test]
fn text_that_reads_otherwise_than_it_is_written_is_refused() {
    let text = "@id(\"a\") @reason(\"x\") permit (principal, action, resource)\n\
                when { principal.mode == \"auto\u{202e}\" };\n\
                @id(\"b\") @reason(\"x\") permit (principal, action, resource)\n\
                when { resource.address like \"file:///srv/данные/*\" };";
    check(
        &[("a.cedar", text)],
        &expect![[r#"
        a.cedar:2:26
            for policy `a`, string `"auto\u{202e}"` contains BIDI control characters"#]],
    );
}

#[test]
fn two_files_of_one_name_are_refused() {
    check(
        &[("a.cedar", ""), ("a.cedar", "// again")],
        &expect![[r#"
        a.cedar:1:1
            two policy files are called `a.cedar`
            help: rename one of them"#]],
    );
}

#[test]
fn a_carriage_return_ends_a_comment_for_cedar_too() {
    let rule = r#"@id("a") @reason("x") forbid (principal, action, resource);"#;
    let set = PolicySet::load(&[source("a.cedar", &format!("// hidden?\r{rule}"))]).unwrap();
    assert_eq!(set.len(), 1);
}

#[test]
fn monstrous_policies_are_refused() {
    let nested = |count: usize| {
        let (open, close) = ("(".repeat(count), ")".repeat(count));
        let rule = r#"@id("a") @reason("x") permit (principal, action, resource)"#;
        format!("{rule} when {{ {open}true{close} }};")
    };
    assert!(PolicySet::load(&[source("a.cedar", &nested(60))]).is_ok());
    check(
        &[("a.cedar", &nested(100_000))],
        &expect![[r#"
        a.cedar:1:1
            the policy is too large: at most 64 nested brackets
            help: split it into several policies"#]],
    );
    check(
        &[("a.cedar", &nested(70))],
        &expect![[r#"
        a.cedar:1:1
            the policy is too large: at most 64 nested brackets
            help: split it into several policies"#]],
    );
}

#[test]
fn large_statements_and_annotations_are_refused() {
    let rule = |reason: &str| {
        format!(r#"@id("a") @reason("{reason}") permit (principal, action, resource);"#)
    };
    assert!(PolicySet::load(&[source("a.cedar", &rule(&"x".repeat(512)))]).is_ok());
    check(
        &[("a.cedar", &rule(&"x".repeat(513)))],
        &expect![[r#"
        a.cedar:1:10
            `@reason` has 513 bytes; at most 512
            help: say why, for the agent and the operator: `@reason("...")`"#]],
    );
    let listed = "\"x\", ".repeat(14_000);
    let large = format!(
        r#"@id("a") @reason("x") permit (principal, action, resource) when {{ [{listed}"x"].contains("y") }};"#
    );
    check(
        &[("a.cedar", &large)],
        &expect![[r#"
        a.cedar:1:1
            the policy is too large: at most 65536 bytes
            help: split it into several policies"#]],
    );
}

#[test]
fn the_deepest_policy_that_is_accepted_can_be_evaluated() {
    let rule = |condition: &str| {
        format!(
            r#"@id("a") @reason("x") permit (principal, action, resource) when {{ {condition} }};"#
        )
    };
    let chain = |count: usize| rule(&format!("true{}", " && 1 == 1".repeat(count)));
    let branches = |count: usize| {
        let branches = "if context.granted then 1 else ".repeat(count);
        rule(&format!("1 == ({branches} 2)"))
    };
    let (request, facts) = call(EffectClass::Read);
    for text in [chain(200), branches(99)] {
        let causes = set(&text).evaluate(&request, &facts);
        assert_eq!(causes[0].ruling, Ruling::Permit, "{causes:?}");
    }
    check(
        &[("a.cedar", &chain(201)), ("b.cedar", &branches(101))],
        &expect![[r#"
        a.cedar:1:1
            the policy is too large: at most 200 operators
            help: split it into several policies
        b.cedar:1:1
            the policy is too large: at most 200 operators
            help: split it into several policies"#]],
    );
}

proptest! {
    #[test]
    fn any_text_gives_a_set_or_faults(text in "[ -~\n]{0,120}") {
        let _ = PolicySet::load(&[source("a.cedar", &text)]);
    }

    #[test]
    fn a_broken_pack_is_never_half_loaded(
        at in 0_usize..5_000,
        byte in prop::sample::select(&b";\"/(}@"[..]),
    ) {
        let pack = holdpoint_policy::starter_pack();
        let whole = PolicySet::load(&pack).unwrap();
        let mut text = pack[0].text.clone();
        text.insert(at % text.len(), char::from(byte));
        match PolicySet::load(&[source("starter.cedar", &text)]) {
            Ok(set) => prop_assert_eq!(set.len(), whole.len()),
            Err(faults) => prop_assert!(!faults.is_empty()),
        }
    }
}
