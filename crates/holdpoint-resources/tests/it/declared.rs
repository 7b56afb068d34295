//! Declared tools of a real server process: a desk with tickets and messages, whose state lies in a
//! file, so that others can change it too.

use crate::peer::{limits, pipe, role, said, spec};
use crate::permits::{NOW, permit};
use crate::resources::shown;
use expect_test::expect;
use holdpoint_resources::resource::{
    Change, Executed, Forward, Preview, Proposed, Resource as _, ResourceFault, Reverting,
    TargetState, Undo,
};
use holdpoint_resources::{
    Cancels, Declared, DeclaredFault, DeclaredPrepared, DeclaredSpec, DeclaredTools, Ended,
    Expected, Inverse, Limits, Mapped, MappedSource as Source, Reading, ToolCall, Transport,
    Upstream, UpstreamSpec,
};
use holdpoint_types::{Disclosure, Reason, Reversibility, ToolRef};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// A desk with one ticket, and what is declared about its tools.
struct World {
    folder: TempDir,
    upstream: Upstream,
    tools: DeclaredTools,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("desk.json");
        let ticket = json!({ "title": "printer", "state": "open", "pin": "1234", "seen": 0 });
        let desk = json!({ "tickets": { "1": ticket }, "messages": [], "calls": [] });
        std::fs::write(&file, desk.to_string()).unwrap();
        let transport = Transport::Stdio(spec(&format!("desk:{}", file.display())));
        let (server, timeout) = ("desk".parse().unwrap(), Duration::from_secs(20));
        let limits = Limits { message_bytes_max: 1 << 20, ..limits() };
        let spec = UpstreamSpec { server, transport, timeout, limits };
        let upstream = Upstream::new(spec);
        let tools = DeclaredTools::new(declarations(), upstream.clone()).unwrap();
        Self { folder, upstream, tools }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("desk.json")
    }

    fn desk(&self) -> Value {
        read(&self.file())
    }

    /// What somebody else does at the desk.
    fn by_hand(&self, change: impl FnOnce(&mut Value)) {
        let mut desk = self.desk();
        change(&mut desk);
        std::fs::write(self.file(), desk.to_string()).unwrap();
    }

    /// The calls that change something, so far.
    fn calls(&self) -> Vec<String> {
        let calls = self.desk()["calls"].as_array().unwrap().clone();
        calls.iter().map(|it| it.as_str().unwrap().to_owned()).collect()
    }

    async fn preview(&self, name: &str, parameters: &Value) -> Result<Seen, ResourceFault> {
        let tool = tool(name);
        let proposed = Proposed { tool: &tool, parameters, effects: &[], now: NOW };
        Ok(self.tools.preview(proposed).await?.expect("the tool is declared"))
    }

    /// Sends the call as the server would.
    fn forward(&self, name: &str, parameters: &Value, cancels: &Cancels) -> Forward {
        let (upstream, cancels) = (self.upstream.clone(), cancels.clone());
        let call = ToolCall::new(tool(name), parameters.clone());
        Box::new(move |permit| {
            Box::pin(async move { upstream.call(permit, call, NOW, cancels).await })
        })
    }

    async fn execute(
        &self,
        (name, parameters): (&str, &Value),
        prepared: DeclaredPrepared,
        cancels: Cancels,
    ) -> Executed {
        let forward = self.forward(name, parameters, &cancels);
        let permit = permit(&tool(name), parameters);
        self.tools.execute(permit, prepared, (cancels, forward)).await
    }

    async fn run(&self, name: &str, parameters: Value) -> (Preview, Option<Undo>, Ended) {
        let (preview, prepared) = self.preview(name, &parameters).await.unwrap();
        let undo = self.tools.undo(&prepared);
        let executed = self.execute((name, &parameters), prepared, Cancels::default()).await;
        (preview, executed.undo.or(undo), executed.ended)
    }

    async fn revert(&self, undo: &Undo) -> (Vec<Change>, Vec<String>, Ended) {
        let Reverting { preview, conflicts, prepared } =
            self.tools.revert(undo, NOW).await.unwrap();
        let ended = self.take_back(prepared).await;
        let conflicts = conflicts.iter().map(|it| format!("{}: {}", it.resource, it.why));
        (preview.changes, conflicts.collect(), ended)
    }

    async fn take_back(&self, prepared: DeclaredPrepared) -> Ended {
        let (tool, parameters) = ("holdpoint__revert".parse().unwrap(), json!({ "action": "x" }));
        let permit = permit(&tool, &parameters);
        let nowhere: Forward = Box::new(|_| panic!("a revert forwards no call of an agent"));
        self.tools.execute(permit, prepared, (Cancels::default(), nowhere)).await.ended
    }
}

type Seen = (Preview, DeclaredPrepared);

fn tool(name: &str) -> ToolRef {
    ToolRef::new("desk".parse().unwrap(), name).unwrap()
}

fn mapped<const N: usize>(tool: &str, arguments: [(&str, Source); N]) -> Mapped {
    let arguments = arguments.into_iter().map(|(name, from)| (name.to_owned(), from));
    Mapped { tool: tool.to_owned(), arguments: arguments.collect() }
}

fn parameter(pointer: &str) -> Source {
    Source::Parameter(pointer.to_owned())
}

fn before(pointer: &str) -> Source {
    Source::Before(pointer.to_owned())
}

fn members<const N: usize>(members: [(&str, Source); N]) -> Expected {
    let members = members.into_iter().map(|(at, from)| (at.to_owned(), from));
    Expected::With(members.collect())
}

fn reading(id: Source, expected: Expected) -> Option<Reading> {
    Some(Reading {
        call: mapped("ticket_get", [("id", id)]),
        state: "/ticket".to_owned(),
        error_is_absence: true,
        volatile: vec!["/seen".to_owned()],
        redacted: vec!["/pin".to_owned()],
        expected,
    })
}

fn back(call: Mapped) -> Option<Inverse> {
    Some(Inverse { call, leaves: Expected::Unknown })
}

/// What an operator would declare about the desk.
fn declarations() -> DeclaredSpec {
    let own = || parameter("/id");
    let id_made = || Source::Result("/id".to_owned());
    let restore = || {
        mapped(
            "ticket_update",
            [("id", own()), ("title", before("/title")), ("state", before("/state"))],
        )
    };
    let update = Declared {
        read: reading(
            own(),
            members([("/title", parameter("/title")), ("/state", parameter("/state"))]),
        ),
        inverse: back(restore()),
        delay: None,
        disclosure: Disclosure::Wider,
    };
    let closed = members([("/state", Source::Constant(json!("closed")))]);
    let create = Declared {
        read: reading(id_made(), members([("/title", parameter("/title"))])),
        inverse: Some(Inverse {
            call: mapped("ticket_close", [("id", id_made())]),
            leaves: closed,
        }),
        ..update.clone()
    };
    let delete = Declared {
        read: reading(own(), Expected::Gone),
        inverse: back(mapped("ticket_put", [("id", own()), ("ticket", before(""))])),
        ..update.clone()
    };
    let lie = Declared { read: reading(own(), Expected::Unknown), ..update.clone() };
    let broken =
        Declared { inverse: back(mapped("ticket_lie", [("id", own())])), ..update.clone() };
    let send = Declared {
        read: None,
        inverse: None,
        delay: Some(Duration::from_millis(300)),
        disclosure: Disclosure::Left,
    };
    let tools = [
        ("ticket_update", update),
        ("ticket_create", create),
        ("ticket_delete", delete),
        ("ticket_lie", lie),
        ("ticket_rename", broken),
        ("message_send", send),
    ];
    let tools = tools.into_iter().map(|(name, declared)| (name.to_owned(), declared)).collect();
    DeclaredSpec { server: "desk".parse().unwrap(), tools }
}

fn read(file: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
#[ignore = "the server that other tests start"]
fn serve() {
    let (role, mut out) = (role(), pipe());
    let file = PathBuf::from(role.split_once(':').unwrap().1);
    for line in std::io::stdin().lock().lines() {
        let message: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let result = match message["method"].as_str() {
            Some("server/discover") => json!({
                "resultType": "complete", "supportedVersions": ["2026-07-28"],
                "capabilities": { "tools": {} },
            }),
            Some("tools/call") => answer(&file, &message["params"]),
            _ => continue,
        };
        let response = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
        if writeln!(out, "{response}").is_err() {
            return;
        }
    }
}

fn answer(file: &Path, params: &Value) -> Value {
    let (name, arguments) = (params["name"].as_str().unwrap(), &params["arguments"]);
    let id = arguments["id"].as_str().unwrap_or_default().to_owned();
    let mut desk = read(file);
    if name != "ticket_get" {
        desk["calls"].as_array_mut().unwrap().push(format!("{name} {arguments}").into());
    }
    let there = desk["tickets"].get(&id).is_some();
    let mut told = json!({ "ok": true });
    match name {
        "ticket_create" => {
            let ticket = json!({ "title": arguments["title"], "state": "open" });
            desk["tickets"]["2"] = ticket;
            told = json!({ "id": "2" });
        }
        "ticket_put" => desk["tickets"][&id] = arguments["ticket"].clone(),
        "message_send" => desk["messages"].as_array_mut().unwrap().push(arguments.clone()),
        "ticket_lie" => {}
        _ if !there => return json!({ "content": [], "isError": true }),
        "ticket_get" => {
            // Each look changes something that says nothing.
            let seen = desk["tickets"][&id]["seen"].as_u64().unwrap_or_default();
            desk["tickets"][&id]["seen"] = (seen + 1).into();
            told = json!({ "ticket": desk["tickets"][&id] });
        }
        "ticket_close" => desk["tickets"][&id]["state"] = "closed".into(),
        "ticket_delete" => drop(desk["tickets"].as_object_mut().unwrap().remove(&id)),
        "ticket_update" | "ticket_rename" => {
            for member in ["title", "state"] {
                if !arguments[member].is_null() {
                    desk["tickets"][&id][member] = arguments[member].clone();
                }
            }
        }
        _ => return json!({ "content": [], "isError": true }),
    }
    std::fs::write(file, desk.to_string()).unwrap();
    json!({ "resultType": "complete", "content": [], "structuredContent": told })
}

fn is_ok(ended: &Ended) -> bool {
    matches!(ended, Ended::Answered { tool_error: false, .. })
}

fn moved(ended: &Ended) -> bool {
    matches!(ended, Ended::NotSent { reason: Reason::TargetMoved, .. })
}

#[tokio::test]
async fn a_declared_call_is_seen_forwarded_and_taken_back() {
    let world = World::new();
    let call = json!({ "id": "1", "title": "scanner" });
    let (seen, _) = world.preview("ticket_update", &call).await.unwrap();
    let (again, _) = world.preview("ticket_update", &call).await.unwrap();
    assert_eq!(seen.digest(), again.digest(), "what changes by itself is left out");
    assert_eq!(world.calls(), Vec::<String>::new(), "a preview only reads");
    expect![[r#"
        mcp://desk/ticket_update {"title":"printer","state":"open","pin":"(redacted)"} => {"title":"scanner","state":"open","pin":"(redacted)"}
    "#]].assert_eq(&shown(&seen.changes));
    assert_eq!(
        (seen.guarantee, seen.disclosure, seen.exact),
        (Reversibility::Compensable, Disclosure::Wider, false)
    );
    let (_, undo, ended) = world.run("ticket_update", call).await;
    assert!(is_ok(&ended), "{}", said(&ended));
    let undo = undo.unwrap();
    assert_eq!(world.tools.verify(&undo).await, Ok(TargetState::After));
    for changes in [1, 0] {
        let (preview, conflicts, ended) = world.revert(&undo).await;
        assert!(conflicts.is_empty() && is_ok(&ended), "{}", said(&ended));
        assert_eq!(preview.len(), changes);
        assert_eq!(world.tools.verify(&undo).await, Ok(TargetState::Before));
        assert_eq!(world.desk()["tickets"]["1"]["title"], "printer");
    }
    expect![[r#"
        ticket_update {"id":"1","title":"scanner"}
        ticket_update {"id":"1","state":"open","title":"printer"}"#]]
    .assert_eq(&world.calls().join("\n"));
}

#[tokio::test]
async fn a_call_whose_target_moved_is_not_forwarded() {
    let world = World::new();
    let call = json!({ "id": "1", "title": "scanner" });
    let (_, prepared) = world.preview("ticket_update", &call).await.unwrap();
    // Also what no preview shows is compared.
    world.by_hand(|desk| desk["tickets"]["1"]["pin"] = "9999".into());
    let named = ("ticket_update", &call);
    let executed = world.execute(named, prepared, Cancels::default()).await;
    assert!(moved(&executed.ended), "{}", said(&executed.ended));
    let (_, prepared) = world.preview("ticket_update", &call).await.unwrap();
    world.by_hand(|desk| desk["tickets"] = json!({}));
    let executed = world.execute(named, prepared, Cancels::default()).await;
    assert!(moved(&executed.ended), "{}", said(&executed.ended));
    assert_eq!(world.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn what_somebody_changed_later_is_kept_and_reported() {
    let world = World::new();
    let call = json!({ "id": "1", "title": "scanner" });
    let undo = world.run("ticket_update", call).await.1.unwrap();
    world.by_hand(|desk| desk["tickets"]["1"]["state"] = "closed".into());
    let kept = world.calls();
    let conflict = "mcp://desk/ticket_update: it was changed afterwards";
    for _ in 0..2 {
        let (preview, conflicts, ended) = world.revert(&undo).await;
        assert!(preview.is_empty() && is_ok(&ended));
        assert_eq!(conflicts, [conflict]);
    }
    assert!(matches!(world.tools.verify(&undo).await, Ok(TargetState::Changed(_))));
    world.by_hand(|desk| desk["tickets"] = json!({}));
    let (_, conflicts, _) = world.revert(&undo).await;
    assert_eq!(conflicts, ["mcp://desk/ticket_update: it is gone"]);
    assert_eq!(world.calls(), kept);
    // And if it comes between the preview of the revert and its execution.
    world.by_hand(|desk| desk["tickets"]["1"] = json!({ "title": "a", "state": "open" }));
    let undo = world.run("ticket_update", json!({ "id": "1", "title": "b" })).await.1.unwrap();
    let held = world.tools.revert(&undo, NOW).await.unwrap().prepared;
    world.by_hand(|desk| desk["tickets"]["1"]["title"] = "c".into());
    let ended = world.take_back(held).await;
    assert!(moved(&ended), "{}", said(&ended));
    assert_eq!(world.desk()["tickets"]["1"]["title"], "c");
}

#[tokio::test]
async fn what_a_call_makes_is_known_by_its_result() {
    let world = World::new();
    let call = json!({ "title": "new" });
    let (preview, undo, ended) = world.run("ticket_create", call).await;
    assert!(is_ok(&ended), "{}", said(&ended));
    expect![[r#"
        mcp://desk/ticket_create - => {"title":"new"}
    "#]]
    .assert_eq(&shown(&preview.changes));
    let undo = undo.unwrap();
    assert_eq!(world.tools.verify(&undo).await, Ok(TargetState::After));
    // A ticket is closed, not gone, and doing it again changes nothing.
    for changes in [1, 0] {
        let (preview, conflicts, ended) = world.revert(&undo).await;
        assert!(conflicts.is_empty() && is_ok(&ended), "{}", said(&ended));
        assert_eq!(preview.len(), changes);
        assert_eq!(world.desk()["tickets"]["2"]["state"], "closed");
    }
    let TargetState::Changed(conflicts) = world.tools.verify(&undo).await.unwrap() else {
        panic!()
    };
    assert_eq!(conflicts[0].why, "it was taken back as far as its inverse goes");
    assert_eq!(world.calls().len(), 2);
}

#[tokio::test]
async fn what_is_deleted_comes_back_as_it_was() {
    let world = World::new();
    let kept = world.desk()["tickets"]["1"].clone();
    let (preview, undo, ended) = world.run("ticket_delete", json!({ "id": "1" })).await;
    assert!(is_ok(&ended), "{}", said(&ended));
    assert_eq!(preview.counts().deleted, 1);
    let (_, conflicts, ended) = world.revert(&undo.unwrap()).await;
    assert!(conflicts.is_empty() && is_ok(&ended), "{}", said(&ended));
    for member in ["title", "state", "pin"] {
        assert_eq!(world.desk()["tickets"]["1"][member], kept[member]);
    }
}

#[tokio::test]
async fn a_crash_before_the_result_is_known_is_told_from_the_target() {
    let world = World::new();
    let call = json!({ "id": "1", "title": "scanner" });
    let (_, prepared) = world.preview("ticket_update", &call).await.unwrap();
    let undo = world.tools.undo(&prepared).unwrap();
    assert_eq!(world.tools.verify(&undo).await, Ok(TargetState::Before));
    let (preview, conflicts, _) = world.revert(&undo).await;
    assert!(preview.is_empty() && conflicts.is_empty());
    world.execute(("ticket_update", &call), prepared, Cancels::default()).await;
    assert_eq!(world.tools.verify(&undo).await, Ok(TargetState::After));
    let (_, _, ended) = world.revert(&undo).await;
    assert!(is_ok(&ended), "{}", said(&ended));
    assert_eq!(world.desk()["tickets"]["1"]["title"], "printer");
    // What only the result names cannot be found again.
    let call = json!({ "title": "new" });
    let (_, prepared) = world.preview("ticket_create", &call).await.unwrap();
    let undo = world.tools.undo(&prepared).unwrap();
    assert!(matches!(world.tools.verify(&undo).await, Ok(TargetState::Unknown(_))));
    let fault = world.tools.revert(&undo, NOW).await.map(drop);
    assert!(matches!(fault, Err(ResourceFault::Impossible(_))), "{fault:?}");
}

#[tokio::test]
async fn a_server_that_says_done_is_not_believed() {
    let world = World::new();
    let (_, undo, ended) = world.run("ticket_lie", json!({ "id": "1" })).await;
    assert!(is_ok(&ended));
    assert_eq!(world.tools.verify(&undo.unwrap()).await, Ok(TargetState::Before));
    // The same of an inverse.
    let call = json!({ "id": "1", "title": "scanner" });
    let undo = world.run("ticket_rename", call).await.1.unwrap();
    let (_, _, ended) = world.revert(&undo).await;
    let Ended::Answered { tool_error: true, body } = ended else { panic!() };
    let text = "`ticket_lie` answered, but the target is not as it was before";
    assert!(body.raw().get().contains(text), "{}", body.raw());
}

#[tokio::test]
async fn a_message_waits_and_can_be_called_back() {
    let world = World::new();
    let call = json!({ "to": "all", "text": "hello" });
    let named = ("message_send", &call);
    for agent in [true, false] {
        let (seen, prepared) = world.preview("message_send", &call).await.unwrap();
        assert_eq!(
            (seen.guarantee, seen.disclosure),
            (Reversibility::Irreversible, Disclosure::Left)
        );
        assert!(world.tools.undo(&prepared).is_none());
        let cancels = Cancels::default();
        let cancel = if agent { cancels.agent.clone() } else { cancels.stop.clone() };
        let (executed, ()) = tokio::join!(world.execute(named, prepared, cancels), async {
            cancel.cancel();
        });
        let expected = if agent { Reason::CancelledByAgent } else { Reason::CancelledByStop };
        let Ended::NotSent { reason, .. } = executed.ended else { panic!() };
        assert_eq!(reason, expected);
    }
    assert_eq!(world.desk()["messages"], json!([]));
    let begun = std::time::Instant::now();
    let (_, _, ended) = world.run("message_send", call.clone()).await;
    assert!(is_ok(&ended) && begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(world.desk()["messages"], json!([call]));
}

#[tokio::test]
async fn what_is_not_declared_is_not_this_resources_business() {
    let world = World::new();
    for name in ["ticket_close", "ticket_get", "unheard_of"] {
        let (tool, parameters) = (tool(name), json!({ "id": "1" }));
        let proposed = Proposed { tool: &tool, parameters: &parameters, effects: &[], now: NOW };
        assert!(world.tools.preview(proposed).await.unwrap().is_none());
    }
    let other = ToolRef::new("other".parse().unwrap(), "ticket_update").unwrap();
    let proposed = Proposed { tool: &other, parameters: &json!({}), effects: &[], now: NOW };
    assert!(world.tools.preview(proposed).await.unwrap().is_none());
    // A permit for another call forwards none, and waits for none.
    let call = json!({ "to": "all" });
    let (_, prepared) = world.preview("message_send", &call).await.unwrap();
    let nowhere: Forward = Box::new(|_| panic!("it is forwarded"));
    let permit = permit(&tool("message_send"), &json!({ "to": "one" }));
    let executed = world.tools.execute(permit, prepared, (Cancels::default(), nowhere)).await;
    let Ended::NotSent { reason: Reason::CouldNotDecide, .. } = executed.ended else { panic!() };
}

#[tokio::test]
async fn a_target_that_cannot_be_read_has_no_preview() {
    let world = World::new();
    world.by_hand(|desk| desk["tickets"]["1"]["title"] = "x".repeat(257 << 10).into());
    let call = json!({ "id": "1", "title": "scanner" });
    let fault = world.preview("ticket_update", &call).await.err().unwrap();
    assert!(matches!(fault, ResourceFault::TooLarge(_)), "{fault}");
    world.upstream.close().await;
    let fault = world.preview("ticket_update", &call).await.err().unwrap();
    assert_eq!(fault.to_string(), "unavailable: the read: the server is closed");
}

#[test]
fn declarations_that_contradict_themselves_are_refused() {
    let upstream = World::new;
    let refused = |change: &dyn Fn(&mut BTreeMap<String, Declared>)| {
        let mut spec = declarations();
        change(&mut spec.tools);
        DeclaredTools::new(spec, upstream().upstream).map(drop).unwrap_err().to_string()
    };
    let no_read = refused(&|tools| tools.get_mut("ticket_update").unwrap().read = None);
    assert_eq!(no_read, "`ticket_update` has an inverse and no read");
    let changes = refused(&|tools| {
        let read = tools.get_mut("ticket_update").unwrap().read.as_mut().unwrap();
        read.call.tool = "ticket_delete".to_owned();
    });
    assert_eq!(
        changes,
        "`ticket_delete` reads the target of `ticket_update`, and is declared to change something \
         itself"
    );
    let pointer = refused(&|tools| {
        let read = tools.get_mut("ticket_update").unwrap().read.as_mut().unwrap();
        read.volatile.push("seen".to_owned());
    });
    assert_eq!(pointer, DeclaredFault::Pointer("seen".to_owned()).to_string());
    let name = refused(&|tools| {
        let inverse = tools.get_mut("ticket_update").unwrap().inverse.as_mut().unwrap();
        inverse.call.tool = String::new();
    });
    assert_eq!(name, DeclaredFault::Name(String::new()).to_string());
}
