//! The real `@modelcontextprotocol/server-filesystem`, with files looked at around its calls.

use crate::permits::{NOW, permit};
use futures::FutureExt;
use holdpoint_resources::resource::{Executed, Forward, Proposed, Resource, TargetState};
use holdpoint_resources::{
    Cancels, Ended, Executor, FileShape, Files, FilesLimits, FilesSpec, Limits, ProcessSpec,
    ToolCall, Transport, Upstream, UpstreamSpec,
};
use holdpoint_types::{Effect, ToolRef, Verb};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The program of the server; absent, outside of CI, where node or npm are.
fn program() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests-npm");
    let program = dir.join("node_modules/@modelcontextprotocol/server-filesystem/dist/index.js");
    if !program.exists() {
        let install = Command::new("npm").args(["ci", "--no-audit"]).current_dir(&dir).status();
        let installed = install.as_ref().is_ok_and(std::process::ExitStatus::success);
        if !installed {
            assert!(std::env::var_os("CI").is_none(), "npm ci: {install:?}");
            println!("left out: no npm servers: {install:?}");
            return None;
        }
    }
    Some(program)
}

fn upstream(program: &Path, root: &Path) -> Upstream {
    let words = ["node", program.to_str().unwrap(), root.to_str().unwrap()];
    let command = words.map(str::to_owned).to_vec();
    let transport = Transport::Stdio(ProcessSpec { command, ..ProcessSpec::default() });
    let (server, timeout) = ("fs".parse().unwrap(), Duration::from_secs(30));
    Upstream::new(UpstreamSpec { server, transport, timeout, limits: Limits::default() })
}

fn contents(root: &Path) -> Vec<String> {
    let listed = Command::new("sh")
        .args([
            "-c",
            "find . -printf '%p %m %y\\n' | sort; find . -type f | sort | xargs sha256sum",
        ])
        .current_dir(root)
        .output()
        .unwrap();
    String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn what_server_filesystem_does_was_previewed_and_comes_back() {
    let Some(program) = program() else { return };
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::create_dir(root.join("docs")).unwrap();
    fs::write(root.join("docs/a.md"), "# A\n\nprice: 1 $\n").unwrap();
    let server = upstream(&program, &root);
    let spec = FilesSpec {
        executor: Executor::Server,
        server: "fs".parse().unwrap(),
        roots: vec![root.clone()],
        shapes: FileShape::of_server_filesystem().into_iter().collect(),
        limits: FilesLimits::default(),
    };
    let files = Files::new(spec);
    let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
    let effect = |verb, name: &str| Effect::new(verb, format!("file://{}", path(name)), "test");
    let edits =
        json!([{ "oldText": "1 $", "newText": "2 €" }, { "oldText": "# A", "newText": "# B" }]);
    let update = |name| vec![effect(Verb::Update, name)];
    let calls: Vec<(&str, Value, Vec<Effect>)> = vec![
        ("edit_file", json!({ "path": path("docs/a.md"), "edits": edits }), update("docs/a.md")),
        ("write_file", json!({ "path": path("docs/a.md"), "content": "new" }), update("docs/a.md")),
        ("write_file", json!({ "path": path("b"), "content": "b\n" }), update("b")),
        ("create_directory", json!({ "path": path("x/y") }), vec![effect(Verb::Create, "x/y")]),
        (
            "move_file",
            json!({ "source": path("docs"), "destination": path("x/y/docs") }),
            vec![effect(Verb::Update, "docs"), effect(Verb::Update, "x/y/docs")],
        ),
    ];
    let mut done = Vec::new();
    for (name, parameters, effects) in calls {
        let before = contents(&root);
        let tool = ToolRef::new("fs".parse().unwrap(), name).unwrap();
        let proposed =
            Proposed { tool: &tool, parameters: &parameters, effects: &effects, now: NOW };
        let (preview, prepared) = files.preview(proposed).await.unwrap().unwrap();
        assert!(preview.exact && !preview.changes.is_empty(), "{name}: {preview:?}");
        let foreseen = files.undo(&prepared).unwrap();
        let (server, call) = (server.clone(), ToolCall::new(tool.clone(), parameters.clone()));
        let forward: Forward = Box::new(move |permit| {
            async move { server.call(permit, call, NOW, Cancels::default()).await }.boxed()
        });
        let permit = permit(&tool, &parameters);
        let around = (Cancels::default(), forward);
        let Executed { ended, undo } = files.execute(permit, prepared, around).await;
        assert!(matches!(ended, Ended::Answered { tool_error: false, .. }), "{name}: {ended:?}");
        assert_eq!(files.verify(&foreseen).await, Ok(TargetState::After), "{name}");
        assert_ne!(contents(&root), before);
        done.push((undo.unwrap(), before));
    }
    for (undo, before) in done.into_iter().rev() {
        let reverting = files.revert(&undo, NOW).await.unwrap();
        assert_eq!(reverting.conflicts, []);
        let tool = ToolRef::new("fs".parse().unwrap(), "revert").unwrap();
        let unused: Forward = Box::new(|_| panic!("no server is called"));
        let around = (Cancels::default(), unused);
        files.execute(permit(&tool, &json!({})), reverting.prepared, around).await;
        assert_eq!(contents(&root), before);
    }
    server.close().await;
}
