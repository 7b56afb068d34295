//! Laws that hold for any input: an answer comes, soon, and more text never makes it milder.

use holdpoint_effects::{
    Body, Effects, HttpRequest, HttpRules, Keep, Place, file_replace, file_write, graphql, http,
    patch, shell,
};
use proptest::prelude::*;

fn place() -> Place {
    Place {
        cwd: Some("/work/app".to_owned()),
        workspace: Some("/work/app".to_owned()),
        home: Some("/home/agent".to_owned()),
        ..Place::default()
    }
}

fn judged(text: &str) -> Effects {
    let mut effects = Effects::default();
    shell(text, &place(), &mut effects);
    effects
}

/// Pieces of shell that make more trouble together than random bytes do.
fn shellish() -> impl Strategy<Value = String> {
    let pieces = [
        "rm",
        " -rf ",
        "/",
        "*",
        "$(",
        ")",
        "`",
        "'",
        "\"",
        "${x:-",
        "}",
        "{",
        "<<E\n",
        "\nE\n",
        "if ",
        "; then ",
        "; fi",
        "for i in ",
        "; do ",
        "; done",
        "case x in ",
        "esac",
        ";;",
        "((",
        "))",
        "[[ ",
        " ]]",
        "|",
        "&&",
        "||",
        "&",
        ";",
        "\n",
        ">",
        "<(",
        "x=",
        "$x",
        "f() { ",
        "git ",
        "push -f",
        "find . -exec ",
        "\\",
        "#",
        "~",
        "xargs ",
        "sudo ",
        "echo ",
        "$'\\x72",
        "eval ",
        "99999999999999999999",
        "é",
        "\u{fffd}",
        "{a,b}",
        "{1..9}",
        "curl http://",
        "sh -c ",
    ];
    let piece = proptest::sample::select(pieces.to_vec());
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_has_an_answer(text in "\\PC{0,200}", shellish in shellish()) {
        judged(&text);
        judged(&shellish);
        let mut effects = Effects::default();
        file_write(".github/workflows/x.yml", &text, &place(), &mut effects);
        file_write(&text, &shellish, &place(), &mut effects);
        let keep = Keep::new(&["**".to_owned()], "echo $X ($$$) rm", &place()).unwrap();
        let kept = Place { keeps: std::sync::Arc::new(vec![keep]), ..place() };
        file_replace("a", &[(&text, &shellish), (&shellish, &text)], &kept, &mut effects);
        file_write("a.rs", &text, &kept, &mut effects);
        patch(&text, &kept, &mut effects);
        patch(&format!("--- a\n+++ a\n@@ -1 +1 @@\n{text}"), &kept, &mut effects);
        graphql(&text, "https://x", &HttpRules::default(), &mut effects);
        let body = Body::Text(shellish);
        let request = HttpRequest { url: format!("http://{text}"), body, ..HttpRequest::default() };
        http(&request, &place(), &mut effects);
    }

    #[test]
    fn more_commands_never_make_it_milder(text in shellish()) {
        let more = format!("{text}; true");
        prop_assert!(judged(&more).class() >= judged(&text).class(), "{}", text);
        let before = format!("true; {text}");
        prop_assert!(judged(&before).class() >= judged(&text).class(), "{}", text);
    }

    #[test]
    fn a_deletion_is_seen_wherever_it_stands(text in shellish()) {
        let text = format!("rm -rf /work/app/data; {text}");
        let class = judged(&text).class();
        prop_assert_eq!(class, Some(holdpoint_types::EffectClass::Destructive));
    }
}

/// `text` in brackets in a function in a shell in a shell, and so on.
fn nested(text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..7 {
        let quoted = text.replace('\'', r"'\''");
        let (open, close) = ("{ (".repeat(9), ") ; }".repeat(9));
        text = format!("f() {{ {open} bash -c '{quoted}' {close}; }}; f");
    }
    text
}

#[test]
fn deep_and_long_texts_end_at_a_limit() {
    let deep = [
        nested("rm x"),
        "(".repeat(5_000),
        "$(".repeat(5_000),
        "((".repeat(3_000),
        "$((".repeat(3_000),
        "\"$(".repeat(3_000),
        "${a:-".repeat(3_000),
        "`".repeat(5_001),
        "{".repeat(5_000),
        "{a,b}".repeat(200),
        "if true; then ".repeat(1_000),
        "eval eval ".repeat(2_000),
        "f() { f; f; }; f".to_owned(),
        ":(){ :|:& };:".to_owned(),
        "a".repeat(300_000),
        "for i in 1 2 3 4 5 6 7 8; do ".repeat(12) + "rm x" + &"; done".repeat(12),
    ];
    for text in deep {
        let effects = judged(&text);
        let start: String = text.chars().take(40).collect();
        assert!(effects.class() >= Some(holdpoint_types::EffectClass::Destructive), "{start}");
    }
}

#[test]
fn deep_graphql_is_refused() {
    let mut effects = Effects::default();
    graphql(&"{a".repeat(20_000), "https://x", &HttpRules::default(), &mut effects);
    graphql(&"[".repeat(20_000), "https://x", &HttpRules::default(), &mut effects);
    assert!(effects.is_opaque());
}
