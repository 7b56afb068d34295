//! Tests of the shell analyser, and that every program of the tables is in the corpus.

use super::shell;
use crate::data::programs;
use crate::{Effects, NoteCode, Place};
use expect_test::{Expect, expect};
use std::collections::BTreeSet;

fn check(text: &str, expected: &Expect) {
    let place = Place {
        cwd: Some("/work".to_owned()),
        home: Some("/home/agent".to_owned()),
        workspace: Some("/work".to_owned()),
        ..Place::default()
    };
    let mut effects = Effects::default();
    shell(text, &place, &mut effects);
    let mut lines: Vec<String> = effects
        .iter()
        .map(|effect| {
            let (class, sure) = (effect.class, effect.certainty.as_str());
            format!("{} {class} {sure} {}", effect.verb, effect.resource)
        })
        .collect();
    lines.extend(effects.notes().map(|note| format!("note {}", note.code.as_str())));
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn a_command_in_a_branch_is_bounded() {
    check(
        "if test -f a; then rm a; fi; rm b",
        &expect![[r#"
        delete destructive bounded file:///work/a
        delete destructive exact file:///work/b"#]],
    );
}

#[test]
fn a_pipeline_hands_on_what_is_known() {
    check(
        "echo a b | xargs rm",
        &expect![[r#"
        delete destructive exact file:///work/a
        delete destructive exact file:///work/b"#]],
    );
    check(
        "cat list | xargs rm",
        &expect![[r#"
        read read exact file:///work/list
        delete destructive opaque file:///*
        note outside_workspace"#]],
    );
}

#[test]
fn a_variable_is_known_until_a_branch_changes_it() {
    check(
        "d=a; rm $d; if test x; then d=b; fi; rm $d",
        &expect![[r#"
        delete destructive opaque file:///*
        delete destructive exact file:///work/a
        note outside_workspace"#]],
    );
}

#[test]
fn another_host_has_another_folder_and_home() {
    check(
        "ssh root@db1 'cd /srv; rm x; rm ~/y; cat z'",
        &expect![[r#"
            read read exact file://db1/srv/z
            delete destructive opaque file://db1/*
            delete destructive exact file://db1/srv/x
            note outside_workspace
            note outside_workspace"#]],
    );
}

#[test]
fn what_cannot_be_read_is_opaque() {
    check(
        "rm 'x",
        &expect![[r#"
        execute destructive opaque host://localhost
        note unreadable"#]],
    );
    check(
        "$X",
        &expect![[r#"
        execute destructive opaque host://localhost
        note unseen_code"#]],
    );
}

#[test]
fn every_program_of_the_tables_is_in_the_corpus() {
    let corpus = [
        include_str!("../../corpus/shell/files.toml"),
        include_str!("../../corpus/shell/hidden.toml"),
        include_str!("../../corpus/shell/wrapped.toml"),
        include_str!("../../corpus/shell/programs.toml"),
        include_str!("../../corpus/shell/others.toml"),
        include_str!("../../corpus/shell/benign.toml"),
        include_str!("../../corpus/shell/found.toml"),
        include_str!("../../corpus/shell/options.toml"),
        include_str!("../../corpus/shell/everyday.toml"),
        include_str!("../../corpus/shell/places.toml"),
        include_str!("../../corpus/git/git.toml"),
    ];
    let words: BTreeSet<&str> = corpus
        .iter()
        .flat_map(|text| text.split(|c: char| c.is_whitespace() || ";|&()`'\"".contains(c)))
        .collect();
    let missing: Vec<&str> = programs().keys().filter(|name| !words.contains(name)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
    assert!(programs().keys().count() >= 60);
}

#[test]
fn programs_in_programs_and_growing_variables_end_at_a_limit() {
    let nested = |program: &str| format!("{}ls", program.repeat(4000));
    let doubling = format!("a=xxxxxxxxxxxxxxxx;{}echo $a", "a=$a$a;".repeat(60));
    for text in [nested("env "), nested("nice "), nested("xargs "), nested("sudo "), doubling] {
        let mut effects = Effects::default();
        crate::shell(&text, &Place::default(), &mut effects);
        assert!(effects.is_opaque(), "{}", &text[..40]);
        assert!(effects.notes().any(|note| note.code == NoteCode::TooLarge));
    }
}

#[test]
fn a_way_out_of_the_devices_is_no_device() {
    let mut effects = Effects::default();
    crate::shell("echo y > /dev/fd/../cwd/x", &Place::default(), &mut effects);
    assert!(effects.class() > Some(holdpoint_types::EffectClass::Read));
}

#[test]
fn a_home_that_was_set_is_the_home() {
    check(
        "HOME=/srv/prod; echo x > ~/y",
        &expect![[r#"
        update write exact file:///srv/prod/y
        note outside_workspace"#]],
    );
}
