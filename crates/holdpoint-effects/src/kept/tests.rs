//! What takes a check away, and what does not.

use super::Keep;
use super::pattern::{Pattern, PatternFault};
use crate::{
    Analyser, Effects, Family, NoteCode, Place, Source, file_delete, file_replace, file_write,
    patch,
};
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;

const PATTERN: &str = "require_role($$$)";

fn place(pattern: &str) -> Place {
    let mut place = Place {
        cwd: Some("/work/app".to_owned()),
        workspace: Some("/work/app".to_owned()),
        ..Place::default()
    };
    let paths = ["src/api/**".to_owned(), "tests/auth.py".to_owned()];
    place.keeps = Arc::new(vec![Keep::new(&paths, pattern, &place).unwrap()]);
    place
}

fn lost(judge: impl FnOnce(&Place, &mut Effects)) -> bool {
    let mut effects = Effects::default();
    judge(&place(PATTERN), &mut effects);
    effects.notes().any(|note| note.code == NoteCode::CheckRemoved)
}

fn replaces(path: &str, old: &str, new: &str) -> bool {
    lost(|place, effects| file_replace(path, &[(old, new)], place, effects))
}

const FILE: &str = "src/api/users.py";
const CHECK: &str = "def list(user):\n    require_role(user, \"admin\")\n    return rows()\n";

#[test]
fn an_edit_that_takes_a_check_away_is_seen() {
    for (old, new) in [
        (CHECK, "def list(user):\n    return rows()\n"),
        (CHECK, "def list(user):\n    # require_role(user, \"admin\")\n    return rows()\n"),
        (CHECK, "def list(user):\n    \"require_role(user)\"\n    return rows()\n"),
        (CHECK, "def list(user):\n    '''\n    require_role(user, \"admin\")\n    '''\n"),
        ("    require_role(user, \"admin\")\n", ""),
        ("    require_role(user, \"admin\")\n", "    pass\n"),
        // Cut anywhere.
        ("require_role", "allow"),
        ("    require_role", "    # require_role"),
        ("require_ro", "x"),
        ("quire_", "x"),
        ("role(user", "roles(user"),
        ("role(user, \"admin\")", "role"),
        ("(user, \"admin\")\n    return", "\n    return"),
        ("\"admin\")", "\"admin\""),
        // Comments and strings around it.
        ("def list(user):\n", "def list(user):\n    '''\n"),
        ("list(user):", "list(user): x = \""),
    ] {
        assert!(replaces(FILE, old, new), "{old:?} -> {new:?}");
        assert!(!replaces("src/other.py", old, new), "{old:?} -> {new:?}");
    }
}

#[test]
fn an_edit_that_leaves_the_check_is_no_alarm() {
    for (old, new) in [
        (CHECK, "def list(user):\n    require_role(user, \"owner\")\n    return rows()\n"),
        (CHECK, "def list(user, page):\n    require_role(\n        user, \"admin\",\n    )\n"),
        ("return rows()", "return rows(limit=10)"),
        ("\"admin\"", "\"owner\""),
        ("user, \"admin\")", "user, \"owner\", strict=True)"),
        ("# don't ask", "# do not ask"),
        ("import os\n", "import os\nimport sys\n"),
        ("", "# a comment\n"),
        ("x = require(a)", "x = demand(a)"),
        ("if (a) {\n  b();\n}", "if (a && c) {\n  b();\n}"),
        ("role = 1", "level = 1"),
    ] {
        assert!(!replaces(FILE, old, new), "{old:?} -> {new:?}");
    }
}

#[test]
fn a_file_written_anew_must_have_the_check() {
    let writes = |path: &str, text: &str| lost(|place, all| file_write(path, text, place, all));
    assert!(!writes(FILE, CHECK));
    assert!(!writes("tests/other.py", "pass"));
    for text in ["pass\n", "# require_role(user)\n", "x = 'require_role(user)'\n", "", "'''\n"] {
        assert!(writes(FILE, text), "{text:?}");
    }
    // In Rust a string may have many lines, and `'` may be no string.
    assert!(writes("src/api/a.rs", "let x = \"\n require_role(user)\n\";"));
    assert!(!writes("src/api/a.rs", "fn a<'a>(x: &'a str) { require_role(x) }"));
    assert!(writes("src/api/a.ts", "/* require_role(x) */ // require_role(x)"));
    assert!(!writes("src/api/a.ts", "const a = 'x'; // note\nrequire_role(x);"));
    // A language that is not known: no way to read it may lose it.
    assert!(writes("src/api/a.zig", "// require_role(x)"));
    assert!(!writes("src/api/a.zig", "require_role(x)"));
}

#[test]
fn what_deletes_or_moves_the_file_takes_the_check_away() {
    let text = Source::parse("/text").unwrap();
    let family = Family::Shell { text, cwd: None };
    let runs = |text: &str| {
        lost(|place, effects| {
            let analyser = Analyser { place: place.clone(), family: family.clone() };
            analyser.analyse(&json!({ "text": text }), effects);
        })
    };
    for text in [
        "rm src/api/users.py",
        "rm -rf src",
        "rm src/*/users.py",
        "mv src/api/users.py /tmp/x",
        "mv src old",
        "git rm src/api/users.py",
        "sed -i /require_role/d src/api/users.py",
        "echo pass > src/api/users.py",
        "cp other.py src/api/users.py",
        "cat > src/api/users.py <<'E'\n# require_role(x)\nE",
        "echo x > $FILE",
        "patch -p1 < x.patch",
    ] {
        assert!(runs(text), "{text}");
    }
    for text in [
        "cat src/api/users.py",
        "rm -rf build",
        "rm src/other.py",
        "mv src/other.py src/another.py",
        "sed -i s/a/b/ src/other.py",
        "cat > src/api/users.py <<'E'\nrequire_role(x)\nE",
        "echo '# more' >> src/api/users.py",
        "grep -r require_role src",
        "mkdir -p src/api/v2",
        "ls src/api",
    ] {
        assert!(!runs(text), "{text}");
    }
    assert!(lost(|place, effects| file_delete("src/api/../api/users.py", place, effects)));
}

#[test]
fn a_check_that_another_edit_puts_elsewhere_is_gone() {
    let check = "    require_role(user, \"admin\")\n";
    let said = "  Lists rows.\n";
    let moved = format!("{said}{check}");
    let edits = [(said, moved.as_str()), (check, "")];
    assert!(lost(|place, effects| file_replace(FILE, &edits, place, effects)));
    let changed = [(said, "  Lists all rows.\n"), ("    return rows()\n", "    return []\n")];
    assert!(!lost(|place, effects| file_replace(FILE, &changed, place, effects)));
}

#[test]
fn a_patch_is_judged_hunk_by_hunk() {
    let patched = |text: &str| lost(|place, effects| patch(text, place, effects));
    let hunk = |lines: &str| {
        format!("--- a/src/api/users.py\n+++ b/src/api/users.py\n@@ -1,3 +1,2 @@\n{lines}")
    };
    let gone = " def list(user):\n-    require_role(user)\n     return rows()\n";
    assert!(patched(&hunk(gone)));
    assert!(!patched(&hunk(" def list(user):\n-    log(user)\n     return rows()\n")));
    assert!(!patched(&hunk(gone).replace("src/api", "src/web")));
    assert!(patched("--- a/src/api/users.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"));
    let git = "diff --git a/src/api/a.py b/lib/a.py\nsimilarity index 100%\nrename from \
               src/api/a.py\nrename to lib/a.py\n";
    assert!(patched(git));
    assert!(patched("diff --git a/src/api/a.py b/src/api/a.py\nGIT binary patch\nliteral 3\nx\n"));
    let envelope = |lines: &str| {
        format!("*** Begin Patch\n*** Update File: src/api/users.py\n@@\n{lines}*** End Patch\n")
    };
    assert!(patched(&envelope(gone)));
    assert!(!patched(&envelope(" a\n-b\n+c\n")));
    assert!(patched("*** Begin Patch\n*** Delete File: src/api/users.py\n*** End Patch"));
}

#[test]
fn patterns_are_read_strictly() {
    let fault = |text: &str| Pattern::parse(text).unwrap_err();
    assert_eq!(fault(""), PatternFault::Length);
    assert_eq!(fault(&"a ".repeat(65)), PatternFault::Length);
    assert_eq!(fault("$$$ require_role"), PatternFault::Edge);
    assert_eq!(fault("require_role $X"), PatternFault::Edge);
    assert_eq!(fault("require_role("), PatternFault::Unbalanced);
    assert_eq!(fault("(a)"), PatternFault::NoWord);
    for text in ["@login_required", "if !$USER.is_admin() { $$$ }", "$this->authorize($X, 'a')"] {
        assert!(Pattern::parse(text).is_ok(), "{text}");
    }
}

#[test]
fn one_argument_is_one_argument() {
    let found = |pattern: &str, text: &str| {
        let mut effects = Effects::default();
        file_write("src/api/a.py", text, &place(pattern), &mut effects);
        !effects.notes().any(|note| note.code == NoteCode::CheckRemoved)
    };
    assert!(found("check($X)", "check(a.b(c, d))"));
    assert!(!found("check($X)", "check(a, b)"));
    assert!(!found("check($X)", "check()"));
    assert!(found("check($X, $$$)", "check(a, b, c)"));
    assert!(found("check($$$)", "check()"));
    assert!(found("check($$$, 'admin')", "check(a, [b, c], \"admin\")"));
    assert!(!found("check($$$, 'admin')", "check(a, 'user')"));
    assert!(!found("check($$$)", "recheck(a) check (b]"));
}

/// Text that repeats, without end, what the pattern asks for.
#[test]
fn a_search_has_an_end() {
    let pattern = "chk($$$ a $$$ b $$$ c $$$ d)";
    let text = "chk(a b c ".repeat(20_000);
    let mut effects = Effects::default();
    file_write("src/api/a.py", &text, &place(pattern), &mut effects);
    file_replace("src/api/a.py", &[(&text, &text)], &place(pattern), &mut effects);
    assert!(effects.notes().any(|note| note.code == NoteCode::CheckRemoved));
}

fn line() -> impl Strategy<Value = String> {
    let lines = [
        "def list(user):\n",
        "    require_role(user, \"admin\")\n",
        "    require_role(\n        user,\n    )\n",
        "    # a note\n",
        "    x = 'text'\n",
        "    return rows(user)\n",
        "    y = [1, (2), {}]\n",
        "    '''long\n    text'''\n",
    ];
    proptest::sample::select(lines.to_vec()).prop_map(str::to_owned)
}

fn new() -> impl Strategy<Value = String> {
    prop_oneof!["", "x", "pass\n", "# ", "'''", "\"", "\\)", "user", "[a-z#'\"()\n_ ]{0,6}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Whatever an edit cuts out of a file, and whatever it puts there: if the file has fewer
    /// checks afterwards, that is seen from the edit alone.
    #[test]
    fn no_edit_takes_a_check_away_unseen(
        lines in proptest::collection::vec(line(), 1..8),
        cut in (0.0..1.0_f64, 0.0..1.0_f64),
        new in new(),
    ) {
        let file = lines.concat();
        let at = |share: f64| (share * file.len() as f64) as usize;
        let (from, to) = (at(cut.0.min(cut.1)), at(cut.0.max(cut.1)));
        // That a word becomes another one beside the edit is not looked for everywhere.
        let after = format!("{} {new} {}", &file[..from], &file[to..]);
        let pattern = Pattern::parse(PATTERN).unwrap();
        let count = |text: &str| {
            pattern.count(&super::Text::read(text, super::Style::of("a.py")[0])).unwrap()
        };
        // What ends a string with its line is no program any more.
        let runs = super::Text::read(&after, super::Style::of("a.py")[0]).odd.0 == 0;
        // Where nothing is replaced, whole lines are put in between.
        if runs && from < to && file[from..to] != new && count(&after) < count(&file) {
            prop_assert!(replaces(FILE, &file[from..to], &new), "{:?} -> {new:?}", &file[from..to]);
        }
    }

    /// Whole lines beside the checks can be edited.
    #[test]
    fn whole_lines_beside_the_check_can_go(
        lines in proptest::collection::vec(line(), 1..6),
        others in proptest::collection::vec(line(), 0..6),
    ) {
        // A line at the very left might be the rest of a comment.
        let context = "    begin()\n";
        let old = context.to_owned() + &lines.concat();
        let checks = old.matches("require_role(").count();
        let kept = "    require_role(x)\n".repeat(checks);
        let new = context.to_owned() + &others.concat() + &kept;
        prop_assert!(!replaces(FILE, &old, &new), "{old:?}");
    }
}
