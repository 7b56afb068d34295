//! Files that a coding agent's host changes by itself: what is foreseen, and what is kept of it.

use crate::permits::{NOW, permit};
use futures::FutureExt;
use holdpoint_resources::resource::{Forward, Preview, Proposed, Resource, TargetState};
use holdpoint_resources::{
    Cancels, Ended, Executor, FileShape, Files, FilesLimits, FilesPrepared, FilesSpec,
};
use holdpoint_types::{Digest, Effect, Reason, ToolRef, Verb};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

/// A folder that a host works in.
struct Ground {
    files: Files,
    file: PathBuf,
    _folder: TempDir,
}

// === impl Ground ===

impl Ground {
    fn new(content: Option<&[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let file = root.join("file");
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let files = Files::new(FilesSpec {
            server: "host".parse().unwrap(),
            executor: Executor::Host,
            roots: vec![root],
            shapes: FileShape::of_claude_code().into_iter().collect(),
            limits: FilesLimits::default(),
        });
        Self { files, file, _folder: folder }
    }

    fn parameters(&self, more: &Value) -> Value {
        let mut parameters = json!({ "file_path": self.file });
        parameters.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        parameters
    }

    async fn preview(&self, tool: &str, more: &Value) -> Option<(Preview, FilesPrepared)> {
        let effect = Effect::new(Verb::Update, format!("file://{}", self.file.display()), "test");
        let (tool, parameters, effects) = (named(tool), self.parameters(more), [effect]);
        let proposed =
            Proposed { tool: &tool, parameters: &parameters, effects: &effects, now: NOW };
        self.files.preview(proposed).await.unwrap()
    }
}

fn named(tool: &str) -> ToolRef {
    ToolRef::new("host".parse().unwrap(), tool).unwrap()
}

/// Asserts what is foreseen of one call on a file with this content; `None` if nothing may be.
async fn check(before: Option<&[u8]>, (tool, more): (&str, Value), expected: Option<&str>) {
    let ground = Ground::new(before);
    let (preview, _) = ground.preview(tool, &more).await.unwrap();
    assert_eq!(preview.exact, expected.is_some(), "{tool} {more}: {preview:?}");
    if let Some(expected) = expected {
        let digest = Digest::of(expected.as_bytes()).to_string();
        let after = preview.changes[0].after.as_ref();
        assert_eq!(after.unwrap()["digest"], json!(digest), "{tool} {more}");
    }
}

fn edit(old: &str, new: &str, all: Value) -> (&'static str, Value) {
    ("Edit", json!({ "old_string": old, "new_string": new, "replace_all": all }))
}

#[tokio::test]
async fn what_claude_code_makes_of_a_file_is_foreseen_or_said_not_to_be() {
    let write = |content: &str| ("Write", json!({ "content": content }));
    let text: Option<&[u8]> = Some(b"one\ntwo\ntwo\n");
    check(None, write("a\r\nb\n"), Some("a\r\nb\n")).await;
    check(text, write("a\n"), Some("a\n")).await;
    check(Some(b"a\r\n"), write("a\n"), Some("a\n")).await;
    // The mark of an encoding stays, whatever is written.
    check(Some(b"\xef\xbb\xbfa\n"), write("a\n"), None).await;
    check(Some(b"\xff\xfea\0"), write("a\n"), None).await;
    check(None, write("\u{feff}a\n"), None).await;

    check(text, edit("one", "$& $1 $$", json!(false)), Some("$& $1 $$\ntwo\ntwo\n")).await;
    check(text, edit("two", "2", json!(true)), Some("one\n2\n2\n")).await;
    check(text, edit("one\n", "", json!(false)), Some("two\ntwo\n")).await;
    // It refuses, or does more than it was told.
    check(text, edit("two", "2", json!(false)), None).await;
    check(text, edit("two", "2", json!("yes")), None).await;
    check(text, edit("three", "3", json!(false)), None).await;
    check(text, edit("one", "", json!(false)), None).await;
    check(text, edit("", "new\n", json!(false)), None).await;
    check(Some(b""), edit("", "new\n", json!(false)), None).await;
    check(None, edit("", "new\n", Value::Null), Some("new\n")).await;
    check(None, edit("one", "1", Value::Null), None).await;
    check(Some(b"one\r\n"), edit("one", "1", Value::Null), None).await;
    check(Some(b"one\xff\n"), edit("one", "1", Value::Null), None).await;

    let one = json!({ "old_string": "one", "new_string": "two" });
    let two = json!({ "old_string": "two", "new_string": "x", "replace_all": true });
    let edits = |all: &[&Value]| ("MultiEdit", json!({ "edits": all }));
    check(text, edits(&[&one, &two]), Some("x\nx\nx\n")).await;
    check(text, edits(&[&one, &one]), None).await;
    check(text, ("MultiEdit", json!({ "edits": "one" })), None).await;
    check(text, ("Edit", json!({})), None).await;
    let notebook = Ground::new(text);
    let path = json!({ "notebook_path": notebook.file });
    assert!(!notebook.preview("NotebookEdit", &path).await.unwrap().0.exact);
    // What the rest of a host's tools do may go on after it told of them.
    assert!(notebook.preview("Bash", &json!({ "command": "rm file" })).await.is_none());
}

#[tokio::test]
async fn a_host_gets_no_yes_for_what_moved_since_it_was_seen() {
    let ground = Ground::new(Some(b"one\n"));
    let more = json!({ "content": "two\n" });
    let (_, prepared) = ground.preview("Write", &more).await.unwrap();
    fs::write(&ground.file, "mine\n").unwrap();
    let permit = permit(&named("Write"), &ground.parameters(&more));
    let forward: Forward = Box::new(|_| panic!("the host is told yes"));
    let executed = ground.files.execute(permit, prepared, (Cancels::default(), forward)).await;
    let moved =
        matches!(&executed.ended, Ended::NotSent { reason, .. } if *reason == Reason::TargetMoved);
    assert!(moved, "{executed:?}");
}

#[tokio::test]
async fn what_a_host_left_is_what_was_foreseen_or_what_is_seen_first() {
    let ground = Ground::new(Some(b"one\n"));
    let handed = || -> (Cancels, Forward) {
        let detail = "the host has not told".to_owned();
        let ended = Ended::InDoubt { reason: Reason::UpstreamUnavailable, detail };
        (Cancels::default(), Box::new(|_| async { ended }.boxed()))
    };
    let more = json!({ "content": "two\n" });
    let (_, prepared) = ground.preview("Write", &more).await.unwrap();
    let undo = ground.files.undo(&prepared).unwrap();
    let permitted = permit(&named("Write"), &ground.parameters(&more));
    let executed = ground.files.execute(permitted, prepared, handed()).await;
    assert!(executed.undo.is_none(), "{executed:?}");
    fs::write(&ground.file, "two\nmine\n").unwrap();
    let left = ground.files.look_after(&undo).await.unwrap().unwrap();
    let state = ground.files.verify(&left).await.unwrap();
    assert!(matches!(state, TargetState::Changed(_)), "{state:?}");
    assert_eq!(ground.files.revert(&left, NOW).await.unwrap().conflicts.len(), 1);
    fs::write(&ground.file, "two\n").unwrap();
    let left = ground.files.look_after(&left).await.unwrap().unwrap();
    assert_eq!(ground.files.verify(&left).await, Ok(TargetState::After));

    // Twice in it: which one is meant is not said. What is there first counts as its work, but not
    // what was there before.
    fs::write(&ground.file, "two two\n").unwrap();
    let more = json!({ "old_string": "two", "new_string": "2" });
    let (_, prepared) = ground.preview("Edit", &more).await.unwrap();
    let undo = ground.files.undo(&prepared).unwrap();
    let early = ground.files.look_after(&undo).await.unwrap().unwrap();
    fs::write(&ground.file, "2 two\n").unwrap();
    let state = ground.files.verify(&early).await.unwrap();
    assert!(matches!(state, TargetState::Unknown(_)), "{state:?}");
    let left = ground.files.look_after(&undo).await.unwrap().unwrap();
    assert_eq!(ground.files.verify(&left).await, Ok(TargetState::After));
    assert_eq!(ground.files.revert(&left, NOW).await.unwrap().conflicts, []);
}
