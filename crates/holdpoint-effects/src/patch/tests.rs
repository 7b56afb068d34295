//! What patches touch.

use super::patch;
use crate::{Effects, Place};

fn touched(text: &str) -> Vec<String> {
    let place = Place { cwd: Some("/w".to_owned()), ..Place::default() };
    let mut effects = Effects::default();
    patch(text, &place, &mut effects);
    effects.iter().map(|effect| format!("{} {}", effect.verb, effect.resource)).collect()
}

#[test]
fn every_file_of_a_patch_is_touched() {
    let text = "diff --git a/a.txt b/a.txt\nindex 1..2 100644\n--- a/a.txt\n+++ b/a.txt\n\
                @@ -1,2 +1,2 @@ fn main()\n x\n--- y\n+++ z\n\\ No newline at end of file\n\
                diff --git a/new b/new\nnew file mode 100644\n--- /dev/null\n+++ b/new\n\
                @@ -0,0 +1 @@\n+x\n\
                diff --git a/old b/old\ndeleted file mode 100644\n--- a/old\n+++ /dev/null\n\
                @@ -1 +0,0 @@\n-x\n-- \n2.40\n";
    let found = ["update file:///w/a.txt", "update file:///w/new", "delete file:///w/old"];
    let mut wanted = found.to_vec();
    wanted.sort_by_key(|one| touched(text).iter().position(|other| other == one));
    assert_eq!(touched(text), wanted);
    let plain = "--- a.txt\t2026-01-01\n+++ a.txt\t2026-01-02\n@@ -1 +1 @@\n-a\n+b\n";
    assert_eq!(touched(plain), ["update file:///w/a.txt"]);
    let envelope = "*** Begin Patch\n*** Add File: n\n+x\n*** Update File: a\n*** Move to: b\n@@ f\n \
                    a\n-b\n+c\n*** End of File\n*** Delete File: d\n*** End Patch\n";
    let found = touched(envelope);
    for one in
        ["update file:///w/n", "update file:///w/a", "update file:///w/b", "delete file:///w/d"]
    {
        assert!(found.contains(&one.to_owned()), "{one}: {found:?}");
    }
}

#[test]
fn a_patch_that_is_not_understood_is_opaque() {
    let many: String =
        (0..65).map(|at| format!("--- a{at}\n+++ a{at}\n@@ -1 +1 @@\n-a\n+b\n")).collect();
    for text in [
        "",
        "hello",
        "--- a\n",
        "--- a\n+++ a\n@@ -1,2 +1 @@\n-x\n",
        "--- a\n+++ a\n@@ -1 +1 @@\n-x\n+y\n+z\n",
        "--- \"a\\n\"\n+++ b\n",
        "*** Begin Patch\n*** Update File: a\n@@\n?\n*** End Patch",
        "*** Begin Patch\n*** Update File: a\n@@\n a\n",
        "@@ -1 +1 @@\n-a\n+b\n",
        many.as_str(),
    ] {
        let found = touched(text);
        assert!(found.contains(&"unknown file:///*".to_owned()), "{text:?}: {found:?}");
    }
}
