//! Files of a server on the same host: real folders, and what a server does to them in between.

use crate::permits::{NOW, permit};
use futures::FutureExt;
use holdpoint_resources::mcp::Outcome;
use holdpoint_resources::resource::{
    Executed, Forward, Preview, Proposed, Resource, ResourceFault, TargetState, Undo,
};
use holdpoint_resources::{
    Cancels, Ended, Executor, FileShape, Files, FilesLimits, FilesPrepared, FilesSpec,
};
use holdpoint_types::{Effect, Reason, Reversibility, ToolRef, Verb};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder with some files, and what stands beside their server.
struct Ground {
    files: Files,
    root: PathBuf,
    _folder: TempDir,
}

/// One call.
struct Call {
    name: &'static str,
    parameters: Value,
    effects: Vec<Effect>,
}

// === impl Ground ===

impl Ground {
    fn new() -> Self {
        Self::limited(FilesLimits::default())
    }

    fn limited(limits: FilesLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("root");
        fs::create_dir_all(root.join("sub/deep")).unwrap();
        fs::write(root.join("a.txt"), "one\ntwo\nthree\n").unwrap();
        fs::set_permissions(root.join("a.txt"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(root.join("sub/b.bin"), [0, 255, 1]).unwrap();
        fs::write(root.join("sub/deep/c.txt"), "c\n").unwrap();
        symlink("../a.txt", root.join("sub/link")).unwrap();
        fs::write(root.parent().unwrap().join("outside.txt"), "secret\n").unwrap();
        let shapes = FileShape::of_server_filesystem().into_iter().collect();
        let server = "fs".parse().unwrap();
        let (executor, roots) = (Executor::Server, vec![root.clone()]);
        let spec = FilesSpec { server, executor, roots, shapes, limits };
        Self { files: Files::new(spec), root, _folder: folder }
    }

    fn path(&self, name: &str) -> String {
        self.root.join(name).to_str().unwrap().to_owned()
    }

    fn effect(&self, verb: Verb, name: &str) -> Effect {
        Effect::new(verb, format!("file://{}", self.path(name)), "test")
    }

    fn write(&self, name: &str, content: &str) -> Call {
        Call {
            name: "write_file",
            parameters: json!({ "path": self.path(name), "content": content }),
            effects: vec![self.effect(Verb::Update, name)],
        }
    }

    fn edit(&self, name: &str, old: &str, new: &str) -> Call {
        let edits = json!([{ "oldText": old, "newText": new }]);
        Call {
            name: "edit_file",
            parameters: json!({ "path": self.path(name), "edits": edits }),
            effects: vec![self.effect(Verb::Update, name)],
        }
    }

    fn moved(&self, from: &str, to: &str) -> Call {
        Call {
            name: "move_file",
            parameters: json!({ "source": self.path(from), "destination": self.path(to) }),
            effects: vec![self.effect(Verb::Update, from), self.effect(Verb::Delete, to)],
        }
    }

    fn delete(&self, name: &str) -> Call {
        Call {
            name: "delete",
            parameters: json!({ "path": self.path(name) }),
            effects: vec![self.effect(Verb::Delete, name)],
        }
    }

    async fn preview(&self, call: &Call) -> Result<(Preview, FilesPrepared), ResourceFault> {
        let proposed = Proposed {
            tool: &tool(call.name),
            parameters: &call.parameters,
            effects: &call.effects,
            now: NOW,
        };
        self.files.preview(proposed).await.map(Option::unwrap)
    }

    /// Previews, and executes on a server that does `work`.
    async fn act(&self, call: &Call, work: impl FnOnce() + Send + 'static) -> (Preview, Undo) {
        let (preview, prepared) = self.preview(call).await.unwrap();
        let before = self.files.undo(&prepared).unwrap();
        assert_eq!(self.files.verify(&before).await, Ok(TargetState::Before));
        let permit = permit(&tool(call.name), &call.parameters);
        let Executed { ended, undo } = self.files.execute(permit, prepared, server(work)).await;
        assert!(matches!(ended, Ended::Answered { tool_error: false, .. }), "{ended:?}");
        let undo = undo.unwrap();
        assert_eq!(self.files.verify(&undo).await, Ok(TargetState::After));
        (preview, undo)
    }

    /// Reverts, and gives what was restored and what was kept.
    async fn revert(&self, undo: &Undo) -> (Vec<String>, Vec<(String, String)>) {
        let reverting = self.files.revert(undo, NOW).await.unwrap();
        let short = |resource: &str| {
            resource
                .replace(&format!("file://{}/", self.path("")), "")
                .replace(&format!("file://{}", self.path("")), "")
        };
        let restored = reverting.preview.changes.iter().map(|change| short(&change.resource));
        let restored = restored.collect();
        let kept = reverting.conflicts.iter().map(|kept| (short(&kept.resource), kept.why.clone()));
        let kept = kept.collect();
        let permit = permit(&tool("revert"), &json!({}));
        let ended = self.files.execute(permit, reverting.prepared, nobody()).await.ended;
        assert!(matches!(ended, Ended::Answered { tool_error: false, .. }), "{ended:?}");
        (restored, kept)
    }

    /// All that lies below the root, with modes and contents.
    fn all(&self) -> Vec<String> {
        let mut found = Vec::new();
        walk(&self.root, &mut found);
        found.sort();
        found
    }
}

fn walk(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let what = match &meta {
            meta if meta.is_symlink() => format!("-> {:?}", fs::read_link(&path).unwrap()),
            meta if meta.is_dir() => String::new(),
            _ => format!("{:?}", fs::read(&path).unwrap()),
        };
        found.push(format!("{} {:o} {what}", path.display(), meta.permissions().mode()));
        if meta.is_dir() {
            walk(&path, found);
        }
    }
}

fn tool(name: &str) -> ToolRef {
    ToolRef::new("fs".parse().unwrap(), name).unwrap()
}

fn server(work: impl FnOnce() + Send + 'static) -> (Cancels, Forward) {
    let answer = || {
        let body = serde_json::value::to_raw_value(&json!({ "content": [] })).unwrap();
        Ended::Answered { body: Outcome::Result(body), tool_error: false }
    };
    let forward: Forward = Box::new(move |permit| {
        async move {
            drop(permit);
            work();
            answer()
        }
        .boxed()
    });
    (Cancels::default(), forward)
}

fn nobody() -> (Cancels, Forward) {
    (Cancels::default(), Box::new(|_| panic!("no server is called")))
}

#[tokio::test]
async fn a_file_preview_shows_a_diff_and_the_call_leaves_what_it_says() {
    let ground = Ground::new();
    let before = ground.all();
    let call = ground.edit("a.txt", "two\n", "2\n");
    let path = ground.root.join("a.txt");
    let (preview, undo) =
        ground.act(&call, move || fs::write(path, "one\n2\nthree\n").unwrap()).await;
    assert!(preview.exact && preview.guarantee == Reversibility::Exact, "{preview:?}");
    let after = preview.changes[0].after.as_ref().unwrap();
    let path = ground.path("a.txt");
    let diff = format!("--- {path}\n+++ {path}\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n");
    assert_eq!(after["diff"], json!(diff));
    assert_eq!(preview.changes[0].before.as_ref().unwrap()["mode"], json!("0640"));
    let kept: Vec<&str> = undo.data["after"]
        .as_object()
        .unwrap()
        .values()
        .map(|node| node["digest"].as_str().unwrap())
        .collect();
    assert_eq!(kept, [after["digest"].as_str().unwrap()]);
    assert_eq!(ground.revert(&undo).await, (vec!["a.txt".to_owned()], vec![]));
    assert_eq!(ground.all(), before);
    assert_eq!(ground.files.verify(&undo).await, Ok(TargetState::Before));
    assert_eq!(ground.revert(&undo).await, (vec![], vec![]));
    assert_eq!(ground.all(), before);
}

#[tokio::test]
async fn trees_that_are_deleted_or_moved_come_back_with_links_and_modes() {
    let ground = Ground::new();
    fs::set_permissions(ground.root.join("sub/deep"), fs::Permissions::from_mode(0o750)).unwrap();
    let before = ground.all();
    let sub = ground.root.join("sub");
    let (preview, undo) =
        ground.act(&ground.delete("sub"), move || fs::remove_dir_all(sub).unwrap()).await;
    assert_eq!((preview.counts().deleted, preview.exact), (5, true));
    let reverting = ground.files.revert(&undo, NOW).await.unwrap();
    let again = ground.files.undo(&reverting.prepared).unwrap();
    drop(reverting);
    assert_eq!(ground.revert(&undo).await.1, []);
    assert_eq!(ground.all(), before);
    // A revert can be taken back too.
    assert_eq!(ground.files.verify(&again).await, Ok(TargetState::After));
    assert_eq!(ground.revert(&again).await.1, []);
    assert!(!ground.root.join("sub").exists());
    assert_eq!(ground.revert(&undo).await.1, []);

    let (from, to) = (ground.root.join("sub"), ground.root.join("new"));
    let (preview, undo) =
        ground.act(&ground.moved("sub", "new"), move || fs::rename(from, to).unwrap()).await;
    assert_eq!((preview.counts().deleted, preview.counts().created, preview.exact), (5, 5, true));
    assert_eq!(ground.revert(&undo).await.1, []);
    assert_eq!(ground.all(), before);

    let (from, to) = (ground.root.join("a.txt"), ground.root.join("sub/b.bin"));
    let (preview, undo) = ground
        .act(&ground.moved("a.txt", "sub/b.bin"), move || fs::rename(from, to).unwrap())
        .await;
    assert!(preview.exact);
    assert_eq!(ground.revert(&undo).await.1, []);
    assert_eq!(ground.all(), before);
}

#[tokio::test]
async fn folders_and_new_files_are_taken_away_again() {
    let ground = Ground::new();
    let before = ground.all();
    let call = Call {
        name: "create_directory",
        parameters: json!({ "path": ground.path("x/y/z") }),
        effects: vec![ground.effect(Verb::Create, "x/y/z")],
    };
    let path = ground.root.join("x/y/z");
    let (preview, undo) = ground.act(&call, move || fs::create_dir_all(path).unwrap()).await;
    assert_eq!((preview.counts().created, preview.exact), (3, true), "{preview:?}");
    let path = ground.root.join("x/new.txt");
    let (preview, written) = ground
        .act(&ground.write("x/new.txt", "hello\n"), move || fs::write(path, "hello\n").unwrap())
        .await;
    let diff = preview.changes[0].after.as_ref().unwrap()["diff"].as_str().unwrap().to_owned();
    assert!(
        diff.starts_with("--- /dev/null\n") && diff.ends_with("@@ -0,0 +1 @@\n+hello\n"),
        "{diff}"
    );
    // In the other order a folder is not empty, which is kept with all above it.
    let (restored, kept) = ground.revert(&undo).await;
    assert_eq!(restored, ["x/y", "x/y/z"]);
    assert_eq!(kept, [("x".to_owned(), "something in it is kept".to_owned())]);
    assert_eq!(ground.revert(&written).await.1, []);
    assert_eq!(ground.revert(&undo).await, (vec!["x".to_owned()], vec![]));
    assert_eq!(ground.all(), before);
}

#[tokio::test]
async fn a_revert_of_files_keeps_later_edits_and_reports_them() {
    let ground = Ground::new();
    let sub = ground.root.join("sub");
    let (_, undo) =
        ground.act(&ground.delete("sub"), move || fs::remove_dir_all(sub).unwrap()).await;
    fs::create_dir(ground.root.join("sub")).unwrap();
    fs::write(ground.root.join("sub/b.bin"), "human").unwrap();
    fs::write(ground.root.join("sub/new"), "human").unwrap();
    fs::write(ground.root.join("sub/deep"), "a file now").unwrap();
    let (restored, kept) = ground.revert(&undo).await;
    assert_eq!(restored, ["sub/link"]);
    let changed = "it was changed since";
    let kept: Vec<(&str, &str)> = kept.iter().map(|(path, why)| (&**path, &**why)).collect();
    assert_eq!(
        kept,
        [
            ("sub/b.bin", changed),
            ("sub/deep", changed),
            ("sub/deep/c.txt", "its folder is not there any more"),
        ]
    );
    assert_eq!(fs::read(ground.root.join("sub/b.bin")).unwrap(), b"human");
    assert_eq!(fs::read(ground.root.join("sub/new")).unwrap(), b"human");
    assert_eq!(ground.revert(&undo).await.0, Vec::<String>::new());

    let path = ground.root.join("a.txt");
    let (_, undo) = ground
        .act(&ground.write("a.txt", "agent\n"), move || fs::write(path, "agent\n").unwrap())
        .await;
    // Between the look and the step.
    let reverting = ground.files.revert(&undo, NOW).await.unwrap();
    assert_eq!((reverting.preview.changes.len(), reverting.conflicts.len()), (1, 0));
    fs::write(ground.root.join("a.txt"), "human\n").unwrap();
    let permit = permit(&tool("revert"), &json!({}));
    let ended = ground.files.execute(permit, reverting.prepared, nobody()).await.ended;
    let Ended::Answered { body, .. } = ended else { panic!("{ended:?}") };
    assert!(body.raw().get().contains("\"files_restored\":0"), "{}", body.raw().get());
    assert_eq!(fs::read(ground.root.join("a.txt")).unwrap(), b"human\n");
    assert!(ground.all().iter().all(|line| !line.contains(".holdpoint-")), "{:?}", ground.all());
}

#[tokio::test]
async fn what_moved_since_its_preview_is_not_sent() {
    let ground = Ground::new();
    let call = ground.write("a.txt", "new\n");
    for change in 0..4 {
        let (_, prepared) = ground.preview(&call).await.unwrap();
        let (mut name, mut parameters) = ("write_file", call.parameters.clone());
        match change {
            0 => fs::write(ground.root.join("a.txt"), "one\ntwo\nthree!\n").unwrap(),
            1 => {
                let mode = fs::Permissions::from_mode(0o600);
                fs::set_permissions(ground.root.join("a.txt"), mode).unwrap();
            }
            2 => parameters["content"] = json!("new!\n"),
            _ => name = "edit_file",
        }
        let permit = permit(&tool(name), &parameters);
        let Executed { ended, undo } = ground.files.execute(permit, prepared, nobody()).await;
        let reason = match ended {
            Ended::NotSent { reason, .. } => reason,
            ended => panic!("{ended:?}"),
        };
        assert_eq!(reason == Reason::TargetMoved, change < 2, "{reason}");
        assert!(undo.is_none());
    }
    let (_, prepared) = ground.preview(&ground.delete("sub")).await.unwrap();
    fs::remove_dir_all(ground.root.join("sub")).unwrap();
    let permit = permit(&tool("delete"), &json!({ "path": ground.path("sub") }));
    let ended = ground.files.execute(permit, prepared, nobody()).await.ended;
    assert!(matches!(ended, Ended::NotSent { reason: Reason::TargetMoved, .. }), "{ended:?}");
}

#[tokio::test]
async fn links_are_not_followed_and_roots_not_left() {
    let ground = Ground::new();
    symlink("..", ground.root.join("up")).unwrap();
    for name in ["sub/link", "up/outside.txt", "up/root/a.txt"] {
        let fault = ground.preview(&ground.write(name, "x")).await.unwrap_err().to_string();
        assert!(fault.contains("link"), "{name}: {fault}");
    }
    // The link itself can go, and comes back as a link.
    let link = ground.root.join("up");
    let (_, undo) = ground.act(&ground.delete("up"), move || fs::remove_file(link).unwrap()).await;
    assert_eq!(ground.revert(&undo).await, (vec!["up".to_owned()], vec![]));
    assert_eq!(fs::read_link(ground.root.join("up")).unwrap(), Path::new(".."));
    let outside = ground.root.parent().unwrap().join("outside.txt");
    for resource in [
        format!("file://{}", outside.display()),
        format!("file://{}/../outside.txt", ground.path("sub")),
        format!("file://{}", ground.root.display()),
        format!("file://{}/*.txt", ground.root.display()),
        "file://host/etc/passwd".to_owned(),
        "https://example.com".to_owned(),
    ] {
        let effects = vec![Effect::new(Verb::Update, resource.clone(), "test")];
        let call = Call { name: "write_file", parameters: json!({}), effects };
        let (preview, prepared) = ground.preview(&call).await.unwrap();
        assert!(!preview.exact && preview.guarantee == Reversibility::Irreversible, "{resource}");
        assert!(preview.notes[0].contains(&*resource), "{:?}", preview.notes);
        let undo = ground.files.undo(&prepared).unwrap();
        assert!(!undo.data.to_string().contains("c2VjcmV0"), "{resource}");
    }
    let fifo = ground.root.join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let fault = ground.preview(&ground.delete("fifo")).await.unwrap_err();
    assert!(matches!(fault, ResourceFault::Refused(_)), "{fault}");
    // While a path is looked at, a folder on the way becomes a link.
    let call = ground.write("sub/deep/c.txt", "x");
    let (_, prepared) = ground.preview(&call).await.unwrap();
    fs::rename(ground.root.join("sub"), ground.root.join("old")).unwrap();
    symlink("old", ground.root.join("sub")).unwrap();
    let permit = permit(&tool("write_file"), &call.parameters);
    let ended = ground.files.execute(permit, prepared, nobody()).await.ended;
    assert!(matches!(ended, Ended::NotSent { .. }), "{ended:?}");
}

#[tokio::test]
async fn what_the_parameters_do_not_say_has_no_exact_preview() {
    let ground = Ground::new();
    fs::write(ground.root.join("dos.txt"), "one\r\ntwo\r\n").unwrap();
    let unknown = Call {
        name: "format_file",
        parameters: json!({ "path": ground.path("a.txt") }),
        effects: vec![ground.effect(Verb::Update, "a.txt")],
    };
    for call in [
        unknown,
        ground.edit("a.txt", "  two", "2"),
        ground.edit("a.txt", "two", "$&"),
        ground.edit("dos.txt", "two", "2"),
        ground.edit("sub/b.bin", "two", "2"),
        ground.moved("a.txt", "sub"),
    ] {
        let (preview, _) = ground.preview(&call).await.unwrap();
        assert!(!preview.exact, "{:?}", call.parameters);
        assert_eq!(preview.guarantee, Reversibility::Exact);
        assert!(preview.notes.iter().any(|note| note.starts_with("no preview: ")));
    }
    let mut dry = ground.edit("a.txt", "two", "2");
    dry.parameters["dryRun"] = json!(true);
    let (preview, _) = ground.preview(&dry).await.unwrap();
    assert!(preview.exact && preview.changes.is_empty());
    // A path that is not absolute is the one that the effects name.
    let mut relative = ground.edit("sub/deep/c.txt", "c", "d");
    relative.parameters["path"] = json!("./deep/c.txt");
    assert!(ground.preview(&relative).await.unwrap().0.exact);
    let reading = Call { effects: vec![ground.effect(Verb::Read, "a.txt")], ..relative };
    let proposed = Proposed {
        tool: &tool("read_file"),
        parameters: &reading.parameters,
        effects: &reading.effects,
        now: NOW,
    };
    assert!(ground.files.preview(proposed).await.unwrap().is_none());
}

#[tokio::test]
async fn files_beyond_the_limits_are_too_large() {
    let limits = FilesLimits { files_max: 4, file_bytes_max: 100, bytes_max: 150 };
    let ground = Ground::limited(limits);
    let fault = ground.preview(&ground.delete("sub")).await.unwrap_err();
    assert_eq!(fault.to_string(), "too large: 5 files");
    fs::write(ground.root.join("a.txt"), [b'x'; 101]).unwrap();
    let fault = ground.preview(&ground.delete("a.txt")).await.unwrap_err();
    assert_eq!(fault.to_string(), "too large: 101 bytes");
    fs::write(ground.root.join("sub/b.bin"), [b'x'; 80]).unwrap();
    fs::write(ground.root.join("a.txt"), [b'x'; 80]).unwrap();
    let fault = ground.preview(&ground.moved("a.txt", "sub/b.bin")).await.unwrap_err();
    assert_eq!(fault.to_string(), "too large: 160 bytes");
    let ground = Ground::new();
    let many = "x\n".repeat(6_000);
    let (preview, _) = ground.preview(&ground.write("a.txt", &many)).await.unwrap();
    let after = preview.changes[0].after.as_ref().unwrap();
    assert!(preview.exact && after.get("diff").is_none() && after.get("digest").is_some());
    let deep = ground.root.join(["d"; 250].join("/"));
    fs::create_dir_all(&deep).unwrap();
    let fault = ground.preview(&ground.delete("d")).await.unwrap_err();
    assert!(fault.to_string().contains("deeper than"), "{fault}");
}

#[tokio::test]
async fn after_a_crash_it_is_told_what_files_are() {
    let ground = Ground::new();
    // Foreseen: what was kept before the call tells both sides.
    let (_, prepared) = ground.preview(&ground.write("a.txt", "new\n")).await.unwrap();
    let undo = ground.files.undo(&prepared).unwrap();
    let undo: Undo = serde_json::from_str(&serde_json::to_string(&undo).unwrap()).unwrap();
    drop(prepared);
    assert_eq!(ground.files.verify(&undo).await, Ok(TargetState::Before));
    fs::write(ground.root.join("a.txt"), "ne").unwrap();
    let state = ground.files.verify(&undo).await.unwrap();
    assert!(matches!(state, TargetState::Changed(_)), "{state:?}");
    fs::write(ground.root.join("a.txt"), "new\n").unwrap();
    assert_eq!(ground.files.verify(&undo).await, Ok(TargetState::After));
    assert_eq!(ground.revert(&undo).await.1, []);
    assert_eq!(fs::read(ground.root.join("a.txt")).unwrap(), b"one\ntwo\nthree\n");
    // Not foreseen, and the server never answered: nobody can tell who left this.
    let call = ground.edit("a.txt", " two", "2");
    let (_, prepared) = ground.preview(&call).await.unwrap();
    let undo = ground.files.undo(&prepared).unwrap();
    let path = ground.root.join("a.txt");
    let forward: Forward = Box::new(move |_| {
        fs::write(path, "half").unwrap();
        let detail = "the server died".to_owned();
        async { Ended::InDoubt { reason: Reason::UpstreamUnavailable, detail } }.boxed()
    });
    let permit = permit(&tool(call.name), &call.parameters);
    let executed = ground.files.execute(permit, prepared, (Cancels::default(), forward)).await;
    assert!(executed.undo.is_none() && matches!(executed.ended, Ended::InDoubt { .. }));
    let state = ground.files.verify(&undo).await.unwrap();
    assert!(matches!(state, TargetState::Unknown(_)), "{state:?}");
    let why = "what the action left there was not seen".to_owned();
    assert_eq!(ground.revert(&undo).await, (vec![], vec![("a.txt".to_owned(), why)]));
    assert_eq!(fs::read(ground.root.join("a.txt")).unwrap(), b"half");
}
