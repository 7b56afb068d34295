//! Plans: proposed through real clients, checked, accepted by people, and then held to, call by
//! call; whatever moves, crashes or runs out in between.

mod conditions;

use crate::client::{self, Client, Opens, failed, http, reasons, wrap};
use crate::raw::{Answer, Pipe, call, exchange, modern, post, post_modern, reason};
use crate::world::{PEER, Serve, World, peer, text, until};
use rmcp::model::CallToolResult;
use serde_json::{Value, json};

const ADA: &str = "ada's key of at least thirty-two characters";
const BOB: &str = "bob's key of at least thirty-two characters";

/// A world whose agents may plan, with this in `[plans]` and behind it.
fn world(plans: &str) -> World {
    World::new(&format!("{PEER}\n[plans]\n{plans}\n"))
}

/// A served world, and the key of `coder`.
fn served(plans: &str) -> (World, Serve, String) {
    let world = world(plans);
    let key = world.key("coder");
    let serve = world.serve();
    (world, serve, key)
}

/// The address of a file that the agent may work on.
fn file(world: &World, name: &str) -> String {
    format!("file://{}", world.files().canonicalize().unwrap().join(name).display())
}

fn path(world: &World, name: &str) -> Value {
    json!({ "path": world.files().canonicalize().unwrap().join(name) })
}

/// A plan that makes the files `one` and then `two`.
fn two_files(world: &World) -> Value {
    let step = |name: &str| {
        json!({ "id": name, "tool": "peer__touch", "class": "write",
                "targets": [file(world, name)] })
    };
    json!({ "purpose": "make two files", "steps": [step("one"), step("two")] })
}

fn told(result: &CallToolResult) -> &Value {
    result.structured_content.as_ref().expect("an answer for programs")
}

/// Proposes a plan; gives the answer for programs.
async fn propose(client: &Client, plan: Value) -> Value {
    let result = client::call(client, "holdpoint_plan_propose", plan).await;
    assert!(!failed(&result), "{}", client::text(&result));
    told(&result).clone()
}

async fn status(client: &Client, id: &str) -> Value {
    let plan = json!({ "plan": id });
    let result = client::call(client, "holdpoint_plan_status", plan).await;
    told(&result)["plans"][0].clone()
}

fn id_of(plan: &Value) -> String {
    plan["plan"].as_str().unwrap_or_else(|| panic!("no plan: {plan}")).to_owned()
}

fn accept(world: &World, id: &str) -> Value {
    world.json(&["plan", "accept", id, "--because", "looks right"])
}

/// The codes of notes, with their severities.
fn codes(plan: &Value) -> Vec<String> {
    let notes = plan["notes"].as_array().unwrap().iter();
    let word = |note: &Value, key: &str| note[key].as_str().unwrap().to_owned();
    notes.map(|note| format!("{} {}", word(note, "severity"), word(note, "code"))).collect()
}

async fn touch(client: &Client, world: &World, name: &str) -> CallToolResult {
    client::call(client, "peer__touch", path(world, name)).await
}

#[tokio::test]
async fn a_plan_is_checked_accepted_and_held_to() {
    for opens in Opens::ALL {
        let (world, serve, key) = served("");
        let client = http(&serve, "", &key, opens).await;
        let names = client::tools(&client).await;
        for tool in ["holdpoint_plan_propose", "holdpoint_plan_revise", "holdpoint_plan_status"] {
            assert!(names.iter().any(|name| name == tool), "{names:?}");
        }
        // A faulty plan is refused with notes that say what to change.
        let everything = json!({ "id": "all", "tool": "peer__touch", "class": "write",
            "targets": ["file:///**"], "after": ["later"] });
        let faulty = json!({ "purpose": "x", "steps": [everything], "expires_in_s": -5 });
        let result = client::call(&client, "holdpoint_plan_propose", faulty).await;
        assert!(failed(&result));
        assert_eq!(told(&result)["state"], "refused");
        let found = codes(told(&result));
        for code in ["expiry_past", "after_unknown", "target_everything"] {
            assert!(found.contains(&format!("blocking {code}")), "{found:?}");
        }
        assert!(client::text(&result).contains("is everything"), "{}", client::text(&result));
        // A good one waits, and changes nothing until somebody accepts it.
        let plan = propose(&client, two_files(&world)).await;
        assert_eq!((&plan["state"], &plan["next"]), (&json!("proposed"), &json!([])));
        let id = id_of(&plan);
        assert!(!failed(&touch(&client, &world, "before").await));
        let list = world.run(&["plan", "list"]);
        assert_eq!(list.status.code(), Some(4), "{}", text(&list.stdout));
        assert!(text(&list.stdout).contains(&id));
        assert_eq!(accept(&world, &id)["state"], "accepted");
        assert_eq!(world.run(&["plan", "list"]).status.code(), Some(0));
        assert_eq!(status(&client, &id).await["next"], json!(["one"]));
        // Out of order, then something else: denied, and the nearest step is named.
        let early = touch(&client, &world, "two").await;
        assert_eq!(reasons(&early).first().map(String::as_str), Some("plan_deviation"));
        let words = client::text(&early);
        assert!(words.contains("step `two`") && words.contains("waits for `one`"), "{words}");
        let other = client::text(&touch(&client, &world, "other").await);
        assert!(
            other.contains("plan_deviation") && other.contains("next is step `one`"),
            "{other}"
        );
        assert!(!world.files().join("two").exists() && !world.files().join("other").exists());
        // Reads are free; the steps pass in order; then nothing more does.
        let echo = client::call(&client, "peer__echo", json!({ "text": "hi" })).await;
        assert!(!failed(&echo), "{}", client::text(&echo));
        for name in ["one", "two"] {
            let done = touch(&client, &world, name).await;
            assert!(!failed(&done), "{}", client::text(&done));
        }
        assert!(world.files().join("two").exists());
        let done = status(&client, &id).await;
        assert_eq!((&done["state"], &done["next"]), (&json!("done"), &json!([])));
        let show = world.must(&["plan", "show", &id]);
        assert!(show.contains("1/1") && show.contains("done"), "{show}");
        client.cancel().await.unwrap();
        serve.end();
        let kinds = ["plan_proposed", "plan_refused", "plan_accepted", "plan_ended"];
        for (kind, count) in kinds.iter().zip([2, 1, 1, 1]) {
            let log = world.json(&["log", "--kind", kind]);
            assert_eq!(log["records"].as_array().unwrap().len(), count, "{kind}");
        }
        world.must(&["verify"]);
        world.must(&["replay"]);
    }
}

/// A legacy call with the task that it belongs to.
fn of_task(id: i64, task: &str, tool: &str, arguments: Value) -> Value {
    let mut call = call(id, tool, arguments);
    call["params"]["_meta"] = json!({ "io.holdpoint/task": { "id": task } });
    call
}

#[tokio::test]
async fn who_names_another_task_is_not_held_and_who_names_none_is() {
    let (world, serve, key) = served("accept = \"checker\"");
    let client = http(&serve, "", &key, Opens::Modern).await;
    let plan = propose(&client, two_files(&world)).await;
    assert_eq!(plan["state"], "accepted");
    let task = plan["task"].as_str().unwrap();
    let ask = |message: &Value| reason(&post(&serve, ("", &key), message).body);
    let touch = |name: &str| ("peer__touch", path(&world, name));
    let (tool, arguments) = touch("other");
    assert_eq!(ask(&of_task(1, task, tool, arguments.clone())), "plan_deviation");
    assert_eq!(ask(&call(2, tool, arguments.clone())), "plan_deviation");
    // What it says of itself is no evidence, so policies can ask for a plan.
    let another = "00000000-0000-7000-8000-000000000001";
    assert_eq!(ask(&of_task(3, another, tool, arguments)), "answered");
    let (tool, arguments) = touch("one");
    assert_eq!(ask(&of_task(4, task, tool, arguments)), "answered");
    // Another plan for the task has to be a revision.
    let mut again = two_files(&world);
    again["task"] = task.into();
    let taken = client::call(&client, "holdpoint_plan_propose", again).await;
    assert!(failed(&taken));
    assert_eq!(told(&taken)["reason"], "plan_conflict");
}

#[tokio::test]
async fn a_revision_takes_the_place_of_a_plan_once_it_is_accepted() {
    let (world, serve, key) = served("");
    let client = http(&serve, "", &key, Opens::Modern).await;
    let first = id_of(&propose(&client, two_files(&world)).await);
    accept(&world, &first);
    let mut revision = two_files(&world);
    revision["plan"] = first.as_str().into();
    revision["steps"][0]["targets"] = json!([file(&world, "third")]);
    let result = client::call(&client, "holdpoint_plan_revise", revision).await;
    assert!(!failed(&result), "{}", client::text(&result));
    let second = id_of(told(&result));
    assert_eq!(told(&result)["revises"], first);
    // The old one holds until then.
    let early = touch(&client, &world, "third").await;
    assert_eq!(reasons(&early).first().map(String::as_str), Some("plan_deviation"));
    accept(&world, &second);
    assert_eq!(status(&client, &first).await["state"], "revised");
    assert!(!failed(&touch(&client, &world, "third").await));
    let old = touch(&client, &world, "one").await;
    assert_eq!(reasons(&old).first().map(String::as_str), Some("plan_deviation"));
    // What is over cannot be revised, and another's plan is nobody's.
    let mut late = two_files(&world);
    late["plan"] = first.as_str().into();
    let late = client::call(&client, "holdpoint_plan_revise", late).await;
    assert_eq!(told(&late)["reason"], "plan_conflict");
    let mut unknown = two_files(&world);
    unknown["plan"] = "00000000-0000-7000-8000-000000000001".into();
    let unknown = client::call(&client, "holdpoint_plan_revise", unknown).await;
    assert_eq!(told(&unknown)["reason"], "plan_unknown");
}

#[tokio::test]
async fn a_plan_is_void_once_the_policies_move_and_over_once_its_time_is() {
    let world = World::new(&format!(
        "{PEER}\n[plans]\naccept = \"checker\"\n[policies]\npath = \"policies\"\n"
    ));
    let policies = world.path().join("policies");
    std::fs::create_dir(&policies).unwrap();
    let any = "@id(\"any\") @reason(\"may\") permit (principal, action, resource) \
               when { context.granted };\n";
    std::fs::write(policies.join("any.cedar"), any).unwrap();
    let key = world.key("coder");
    let serve = world.serve();
    let client = http(&serve, "", &key, Opens::Modern).await;
    let id = id_of(&propose(&client, two_files(&world)).await);
    assert!(!failed(&touch(&client, &world, "one").await));
    let more = "@id(\"more\") @reason(\"no\") forbid (principal, action == Action::\"destroy\", \
                resource);\n";
    std::fs::write(policies.join("more.cedar"), more).unwrap();
    until("the plan is void", || {
        let show = world.json(&["plan", "show", &id]);
        (show["state"] == "void").then_some(())
    });
    // Whoever began a plan does not get free because it died.
    let task = status(&client, &id).await["task"].as_str().unwrap().to_owned();
    let ask = |message: &Value| post(&serve, ("", &key), message).body;
    let dead = ask(&of_task(1, &task, "peer__touch", path(&world, "two")));
    assert_eq!(reason(&dead), "plan_deviation");
    let words = dead["result"]["content"][0]["text"].as_str().unwrap();
    assert!(words.contains("is void") && words.contains("propose another"), "{words}");
    let unnamed = ask(&call(9, "peer__touch", path(&world, "two")));
    assert_eq!(reason(&unnamed), "plan_deviation");
    let read = of_task(2, &task, "peer__echo", json!({ "text": "hi" }));
    assert_eq!(reason(&ask(&read)), "answered");
    // One that runs out ends by itself.
    let mut short = two_files(&world);
    short["expires_in_s"] = 1.into();
    let short = propose(&client, short).await;
    let id = id_of(&short);
    until("the plan has expired", || {
        let show = world.json(&["plan", "show", &id]);
        (show["state"] == "expired").then_some(())
    });
    let late = of_task(3, short["task"].as_str().unwrap(), "peer__touch", path(&world, "two"));
    assert_eq!(reason(&ask(&late)), "plan_deviation");
    assert!(!world.files().join("two").exists());
    drop(client);
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[tokio::test]
async fn a_plan_is_void_once_a_tool_moves() {
    let tools = |words: &str| {
        let path = json!({ "path": { "type": "string" } });
        json!([{ "name": "paint", "description": words,
                 "inputSchema": { "type": "object", "properties": path } }])
    };
    let config = PEER.replace(
        "write = [\"touch\", \"append\"]",
        "write = [\"touch\", \"append\", \"paint\"]\nenv = { PEER_TOOLS = \"${files}/tools\" }\n\
         tool.paint.resource = \"file://{/path}\"",
    );
    let world = World::new(&format!("{config}\n[plans]\naccept = \"checker\"\n"));
    std::fs::write(world.files().join("tools"), tools("paints").to_string()).unwrap();
    let key = world.key("coder");
    let serve = world.serve();
    let client = http(&serve, "", &key, Opens::Modern).await;
    let step = json!({ "id": "a", "tool": "peer__paint", "class": "write", "calls": 2,
                       "targets": [file(&world, "x")] });
    let plan = propose(&client, json!({ "purpose": "x", "steps": [step] })).await;
    let id = id_of(&plan);
    let paint = async || client::call(&client, "peer__paint", path(&world, "x")).await;
    assert!(!failed(&paint().await));
    // The definition changes, and an operator vouches for the new one.
    std::fs::write(world.files().join("tools"), tools("paints again").to_string()).unwrap();
    client::tools(&client).await;
    world.must(&["tools", "pin", "peer__paint"]);
    let message = call(1, "peer__paint", path(&world, "x"));
    until("the new definition counts", || {
        let answer = post(&serve, ("", &key), &message).body;
        (reason(&answer) == "plan_deviation").then_some(())
    });
    assert_eq!(status(&client, &id).await["state"], "void");
}

#[tokio::test]
async fn a_policy_can_ask_for_a_plan() {
    let world = World::new(&format!(
        "{PEER}\n[plans]\naccept = \"checker\"\n[policies]\npath = \"policies\"\n"
    ));
    let policies = world.path().join("policies");
    std::fs::create_dir(&policies).unwrap();
    let rules = r#"
@id("any") @reason("may")
permit (principal, action, resource) when { context.granted };

@id("changes-are-planned") @reason("Changes need a plan.")
forbid (principal, action, resource)
unless { action == Action::"read" || context.planned };
"#;
    std::fs::write(policies.join("rules.cedar"), rules).unwrap();
    let key = world.key("coder");
    let serve = world.serve();
    let client = http(&serve, "", &key, Opens::Modern).await;
    let unplanned = touch(&client, &world, "one").await;
    assert_eq!(reasons(&unplanned).first().map(String::as_str), Some("policy_forbids"));
    propose(&client, two_files(&world)).await;
    assert!(!failed(&touch(&client, &world, "one").await));
    // Naming another task leads out of the plan, not past the policy.
    let another = "00000000-0000-7000-8000-000000000001";
    let message = of_task(1, another, "peer__touch", path(&world, "two"));
    assert_eq!(reason(&post(&serve, ("", &key), &message).body), "policy_forbids");
    assert!(!world.files().join("two").exists());
}

#[tokio::test]
async fn how_far_a_plan_has_come_outlives_a_power_cut() {
    let (world, serve, key) = served("accept = \"checker\"");
    let client = http(&serve, "", &key, Opens::Modern).await;
    let mut plan = two_files(&world);
    let third = json!({ "id": "three", "tool": "peer__touch", "class": "write",
                        "targets": [file(&world, "three")] });
    plan["steps"].as_array_mut().unwrap().push(third);
    let plan = propose(&client, plan).await;
    let (id, task) = (id_of(&plan), plan["task"].as_str().unwrap().to_owned());
    assert!(!failed(&touch(&client, &world, "one").await));
    assert_eq!(status(&client, &id).await["next"], json!(["two"]));
    drop(client);
    serve.kill();
    let serve = world.serve();
    let ask = |serve: &Serve, message: &Value| post(serve, ("", &key), message).body;
    let again = of_task(1, &task, "peer__touch", path(&world, "one"));
    let again = ask(&serve, &again);
    assert_eq!(reason(&again), "plan_deviation", "{again}");
    // The power fails during the second step: nobody knows what came of it.
    let mut hangs = path(&world, "two");
    hangs["then"] = "hang".into();
    std::thread::scope(|scope| {
        let message = of_task(2, &task, "peer__touch", hangs);
        let (serve, key) = (&serve, &key);
        scope.spawn(move || crate::raw::try_post(serve, ("", key), &message));
        until("the file is made", || world.files().join("two").exists().then_some(()));
        serve.kill_now();
    });
    drop(serve);
    let serve = world.serve();
    let next = of_task(3, &task, "peer__touch", path(&world, "three"));
    let stuck = ask(&serve, &next);
    assert_eq!(reason(&stuck), "plan_deviation", "{stuck}");
    let show = world.json(&["plan", "show", &id]);
    let states: Vec<_> =
        show["steps"].as_array().unwrap().iter().map(|step| step["state"].clone()).collect();
    assert_eq!(states, ["done", "in_doubt", "waiting"]);
    // A revision without that step goes on.
    let client = http(&serve, "", &key, Opens::Modern).await;
    let mut rest = two_files(&world);
    rest["steps"] = json!([{ "id": "three", "tool": "peer__touch", "class": "write",
                             "targets": [file(&world, "three")] }]);
    rest["plan"] = id.as_str().into();
    let revised = client::call(&client, "holdpoint_plan_revise", rest).await;
    assert!(!failed(&revised), "{}", client::text(&revised));
    assert_eq!(reason(&ask(&serve, &next)), "answered");
    drop(client);
    serve.end();
    world.must(&["verify"]);
}

#[tokio::test]
async fn many_calls_at_one_time_take_a_step_once() {
    let (world, serve, key) = served("accept = \"checker\"");
    let client = http(&serve, "", &key, Opens::Modern).await;
    let step = json!({ "id": "a", "tool": "peer__append", "class": "write", "calls": 3,
                       "targets": ["mcp://peer/append"] });
    propose(&client, json!({ "purpose": "x", "steps": [step] })).await;
    let append = || call(1, "peer__append", path(&world, "log"));
    let answers: Vec<String> = std::thread::scope(|scope| {
        let ask = || reason(&post(&serve, ("", &key), &append()).body);
        let asking: Vec<_> = (0..12).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let count = |word: &str| answers.iter().filter(|answer| *answer == word).count();
    assert_eq!((count("answered"), count("plan_deviation")), (3, 9), "{answers:?}");
    let log = std::fs::read_to_string(world.files().join("log")).unwrap();
    assert_eq!(log.lines().count(), 3);
}

#[tokio::test]
async fn two_processes_share_a_plan() {
    let (world, serve, key) = served("accept = \"checker\"");
    let client = http(&serve, "", &key, Opens::Modern).await;
    propose(&client, two_files(&world)).await;
    assert!(!failed(&touch(&client, &world, "one").await));
    drop(client);
    serve.end();
    // Each wrap governs by itself: there is no serve any more.
    let program = peer().display().to_string();
    let client = wrap(&world, "peer", &["node", &program], Opens::Legacy).await;
    let names = client::tools(&client).await;
    assert!(names.contains(&"holdpoint_plan_status".to_owned()), "{names:?}");
    let again = client::call(&client, "touch", path(&world, "one")).await;
    assert!(reasons(&again).contains(&"plan_deviation".to_owned()), "{again:?}");
    let seen = client::call(&client, "holdpoint_plan_status", json!({})).await;
    assert_eq!(told(&seen)["plans"].as_array().unwrap().len(), 1);
    let two = client::call(&client, "touch", path(&world, "two")).await;
    assert!(!failed(&two), "{}", client::text(&two));
    // Where one server is served, its tools have their short names.
    let step = json!({ "id": "a", "tool": "touch", "class": "write",
                       "targets": [file(&world, "three")] });
    let plan = propose(&client, json!({ "purpose": "x", "steps": [step] })).await;
    assert_eq!(plan["steps"][0]["tool"], "peer__touch");
    client.cancel().await.unwrap();
}

#[test]
fn without_the_table_there_are_no_such_tools() {
    let world = World::new(PEER);
    let key = world.key("coder");
    let serve = world.serve();
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    let tools = post(&serve, ("", &key), &list).body["result"]["tools"].to_string();
    assert!(tools.contains("touch") && !tools.contains("holdpoint_plan"), "{tools}");
    let propose = call(2, "holdpoint_plan_propose", json!({ "purpose": "x", "steps": [] }));
    assert_eq!(reason(&post(&serve, ("", &key), &propose).body), "tool_unknown");
    let modern = modern(3, "tools/call", json!({ "name": "holdpoint_plan_status" }));
    assert_eq!(reason(&post_modern(&serve, ("", &key), &modern).body), "tool_unknown");
}

#[test]
fn a_server_cannot_take_the_names_of_our_tools() {
    let config = PEER.replace(
        "timeout_ms = 3000",
        "timeout_ms = 3000\nenv = { PEER_TOOLS = \"${files}/tools\" }",
    );
    let world = World::new(&format!("{config}\n[plans]\n"));
    let tools = json!([{ "name": "holdpoint_plan_status", "description": "of a server",
                         "inputSchema": { "type": "object" } }]);
    std::fs::write(world.files().join("tools"), tools.to_string()).unwrap();
    let key = world.key("coder");
    let serve = world.serve();
    for below in ["", "/peer"] {
        let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
        let tools = post(&serve, (below, &key), &list).body["result"]["tools"].clone();
        let ours: Vec<_> = tools
            .as_array()
            .unwrap()
            .iter()
            .filter(|tool| tool["name"].as_str().unwrap().ends_with("holdpoint_plan_status"))
            .collect();
        assert_eq!(ours.len(), 1, "{ours:?}");
        assert_ne!(ours[0]["description"], "of a server");
    }
    let stolen = call(2, "peer__holdpoint_plan_status", json!({}));
    assert_eq!(reason(&post(&serve, ("", &key), &stolen).body), "tool_unknown");
}

fn say(serve: &Serve, key: &str, id: &str, body: &Value) -> Answer {
    let head = [format!("Authorization: Bearer {key}"), "Content-Type: application/json".into()];
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    exchange(serve, &format!("POST /api/v1/plans/{id}"), &head, body.to_string().as_bytes())
}

#[test]
fn an_operator_accepts_and_refuses_over_http() {
    let operators = r#"
[operator.ada]
key = { from_file = "ada.key" }
teams = ["platform"]

[operator.bob]
key = { from_file = "bob.key" }
teams = ["platform"]
"#;
    let config = PEER.replace("[agent.coder]\n", "[agent.coder]\nrequesters = [\"bob\"]\n");
    let world = World::new(&format!("{config}\n[plans]\n{operators}"));
    std::fs::write(world.path().join("ada.key"), ADA).unwrap();
    std::fs::write(world.path().join("bob.key"), BOB).unwrap();
    let key = world.key("coder");
    let serve = world.serve();
    let propose = |number: i64| {
        let message = call(number, "holdpoint_plan_propose", two_files(&world));
        let answer = post(&serve, ("", &key), &message).body;
        id_of(&answer["result"]["structuredContent"])
    };
    let id = propose(1);
    let yes = json!({ "accept": true, "because": "looks right" });
    assert_eq!(say(&serve, &key, &id, &yes).row(), "401 - unauthenticated");
    // Nobody accepts what they asked for themselves.
    assert_eq!(say(&serve, BOB, &id, &yes).row(), "403 - approver_refused");
    for because in ["", "two\nlines", &"x".repeat(1001)] {
        let body = json!({ "accept": true, "because": because });
        assert_eq!(say(&serve, ADA, &id, &body).status, 400, "{because:?}");
    }
    assert_eq!(say(&serve, ADA, &id, &yes).body["state"], "accepted");
    assert_eq!(say(&serve, ADA, &id, &yes).row(), "409 - plan_conflict");
    let none = "00000000-0000-7000-8000-000000000001";
    assert_eq!(say(&serve, ADA, none, &yes).row(), "404 - plan_unknown");
    let mut done = 0;
    for name in ["one", "two"] {
        done += 1;
        let message = call(10 + done, "peer__touch", path(&world, name));
        assert_eq!(reason(&post(&serve, ("", &key), &message).body), "answered");
    }
    let id = propose(2);
    let head = [format!("Authorization: Bearer {ADA}")];
    let list = exchange(&serve, "GET /api/v1/plans", &[head[0].as_str()], b"");
    assert!(list.body["plans"].to_string().contains(&id), "{}", list.body);
    let no = json!({ "accept": false, "because": "not today" });
    // Whoever asked may take it back.
    assert_eq!(say(&serve, BOB, &id, &no).body["state"], "refused");
    serve.end();
    let log = world.json(&["log", "--kind", "plan_refused"]);
    assert_eq!(log["records"][0]["by"], "bob");
    world.must(&["verify"]);
}

#[test]
fn a_host_proposes_a_plan_for_its_agent() {
    let operator = |name: &str| {
        let key = format!("key = {{ from_file = \"{name}.key\" }}\nteams = [\"platform\"]");
        format!("[operator.{name}]\n{key}\n")
    };
    let operators = operator("ada") + &operator("bob");
    let world = World::new(&format!("{PEER}\n[plans]\n{operators}"));
    std::fs::write(world.path().join("ada.key"), ADA).unwrap();
    std::fs::write(world.path().join("bob.key"), BOB).unwrap();
    let key = world.key("coder");
    let serve = world.serve();
    let propose = |key: &str, body: &Value| {
        let head =
            [format!("Authorization: Bearer {key}"), "Content-Type: application/json".into()];
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        exchange(&serve, "POST /api/v1/plans", &head, body.to_string().as_bytes())
    };
    let ask = json!({ "agent": "coder", "plan": two_files(&world) });
    assert_eq!(propose(&key, &ask).row(), "401 - unauthenticated");
    let nobody = json!({ "agent": "nobody", "plan": two_files(&world) });
    assert_eq!(propose(ADA, &nobody).row(), "422 - agent_unknown");
    let odd = json!({ "agent": "coder", "plan": { "purpose": "x", "step": [] } });
    assert_eq!(propose(ADA, &odd).row(), "400 - message_malformed");
    // The checker knows the tools, although no client has listed them.
    let plan = propose(ADA, &ask);
    assert_eq!((plan.status, &plan.body["state"]), (201, &json!("proposed")), "{}", plan.body);
    let id = id_of(&plan.body);
    let yes = json!({ "accept": true, "because": "looks right" });
    // Nobody accepts what they proposed themselves.
    assert_eq!(say(&serve, ADA, &id, &yes).row(), "403 - approver_refused");
    assert_eq!(say(&serve, BOB, &id, &yes).body["state"], "accepted");
    let touch = |number: i64, name: &str| {
        let message = call(number, "peer__touch", path(&world, name));
        reason(&post(&serve, ("", &key), &message).body)
    };
    assert_eq!((touch(1, "two"), touch(2, "one")), ("plan_deviation".into(), "answered".into()));
    let mut better = ask.clone();
    better["revises"] = id.into();
    assert_eq!(propose(ADA, &better).status, 201);
    serve.end();
    let log = world.json(&["log", "--kind", "plan_proposed"]);
    let first = &log["records"][0];
    let plan = &first["plan"];
    assert_eq!((&plan["by"], &plan["agent"]), (&json!("ada"), &json!("coder")));
    world.must(&["verify"]);
}

#[test]
fn plans_have_their_limits() {
    let config = PEER.replace("message_bytes_max = 65536", "message_bytes_max = 4000000");
    let world = World::new(&format!("{config}\n[plans]\n"));
    let key = world.key("coder");
    let serve = world.serve();
    let ask = |number: i64, plan: Value| {
        let message = call(number, "holdpoint_plan_propose", plan);
        post(&serve, ("", &key), &message).body["result"]["structuredContent"].clone()
    };
    // Giant ones are not even written down; what they are refused for is said.
    let steps: Vec<_> = (0..10_000)
        .map(|at| json!({ "id": format!("s{at}"), "tool": "peer__touch", "class": "write" }))
        .collect();
    let giant = ask(1, json!({ "purpose": "x", "steps": steps }));
    assert_eq!(giant["reason"], "plan_blocked", "{giant}");
    let many: Vec<_> = steps[..101].to_vec();
    let many = ask(2, json!({ "purpose": "x", "steps": many }));
    assert!(codes(&many).contains(&"blocking too_many_steps".to_owned()), "{many}");
    let unknown = ask(3, json!({ "purpose": "x", "steps": [], "force": true }));
    assert_eq!(unknown["reason"], "parameters_invalid");
    for number in 10..50 {
        let none = ask(number, json!({ "purpose": "x", "steps": [] }));
        assert_eq!(codes(&none), ["blocking no_steps"]);
    }
    let status = call(60, "holdpoint_plan_status", json!({}));
    let told = post(&serve, ("", &key), &status).body["result"]["structuredContent"].clone();
    assert_eq!(told["plans"].as_array().unwrap().len(), 32);
    serve.end();
    let log = world.json(&["log", "--kind", "plan_proposed", "--limit", "1000"]);
    assert_eq!(log["records"].as_array().unwrap().len(), 41);
    world.must(&["verify"]);
}

#[test]
fn a_stopped_or_quarantined_agent_plans_nothing() {
    let world = world("");
    let mut pipe = Pipe::wrap(&world);
    pipe.tell(&json!({ "jsonrpc": "2.0", "id": 0, "method": "tools/list" }));
    pipe.answer(0);
    world.must(&["stop", "--agent", "coder", "--reason", "looks odd"]);
    let answer = pipe.call(1, "holdpoint_plan_propose", two_files(&world));
    assert_eq!(answer["result"]["structuredContent"]["reason"], "stopped", "{answer}");
    let status = pipe.call(2, "holdpoint_plan_status", json!({}));
    assert_eq!(status["result"]["structuredContent"]["plans"], json!([]), "{status}");
    pipe.end();
}

/// A world whose database Holdpoint serves itself, with five rows.
fn orders(mode: &str) -> World {
    orders_with(mode, "")
}

/// The same with more said of the database.
fn orders_with(mode: &str, more: &str) -> World {
    let world = World::new(&format!(
        r#"
[listen]
http = "127.0.0.1:0"

[team.platform]
on_call = "platform on-call"

[agent.coder]
owner = "platform"
mode = "{mode}"
grants = [
  {{ class = "read", tools = ["*"] }},
  {{ class = "write", tools = ["*"] }},
  {{ class = "destructive", tools = ["orders__sql_execute"] }},
]

[server.orders]
environment = "dev"
serves = {{ sqlite = "orders.db"{more} }}

[plans]
accept = "checker"
"#
    ));
    sqlite(&world, "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)");
    sqlite(&world, "INSERT INTO users VALUES (1,'a'), (2,'b'), (3,'c'), (4,'d'), (5,'e')");
    world
}

fn sqlite(world: &World, sql: &str) -> String {
    let mut command = std::process::Command::new("sqlite3");
    let run = command.args(["orders.db", sql]).current_dir(world.path()).output().unwrap();
    assert!(run.status.success(), "{}", text(&run.stderr));
    text(&run.stdout)
}

#[test]
fn a_step_bounds_the_rows_that_its_previews_show() {
    let world = orders("auto");
    let key = world.key("coder");
    let serve = world.serve();
    let ask = |message: &Value| post(&serve, ("/orders", &key), message).body;
    ask(&json!({ "jsonrpc": "2.0", "id": 0, "method": "tools/list" }));
    let execute = |sql: &str| ask(&call(1, "sql_execute", json!({ "sql": sql })));
    let step = json!({ "id": "clean", "tool": "sql_execute", "class": "destructive", "calls": 9,
                       "targets": ["sqlite://orders/**"], "budget": { "rows": 3 } });
    let plan = json!({ "purpose": "remove old users", "steps": [step] });
    let plan = ask(&call(2, "holdpoint_plan_propose", plan))["result"]["structuredContent"].clone();
    assert_eq!(plan["state"], "accepted", "{plan}");
    // Nothing is saved before; what can be taken back exactly is a part of it all the same.
    assert_eq!(codes(&plan), ["advisory recovery_missing"]);
    let many = execute("DELETE FROM users WHERE id > 1");
    assert_eq!(reason(&many), "plan_deviation", "{many}");
    let words = many["result"]["content"][0]["text"].as_str().unwrap();
    assert!(words.contains("touches 4 rows") && words.contains("3 of 3 are left"), "{words}");
    assert_eq!(sqlite(&world, "SELECT count(*) FROM users"), "5\n");
    assert_eq!(reason(&execute("DELETE FROM users WHERE id > 3")), "answered");
    let rest = execute("DELETE FROM users WHERE id > 1");
    assert!(rest.to_string().contains("touches 2 rows, and 1 of 3 are left"), "{rest}");
    assert_eq!(reason(&execute("DELETE FROM users WHERE id = 3")), "answered");
    assert_eq!(sqlite(&world, "SELECT count(*) FROM users"), "2\n");
    let id = id_of(&plan);
    let show = world.json(&["plan", "show", &id]);
    assert_eq!(show["steps"][0]["used"], json!({ "rows": 3 }));
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn a_large_change_is_counted_once_people_approved_its_size() {
    let world = orders_with("auto", ", rows_max = 2");
    let key = world.key("coder");
    let serve = world.serve();
    let ask = |message: &Value| post(&serve, ("/orders", &key), message).body;
    ask(&json!({ "jsonrpc": "2.0", "id": 0, "method": "tools/list" }));
    let execute = |sql: &str| ask(&call(1, "sql_execute", json!({ "sql": sql })));
    let step = json!({ "id": "clean", "tool": "sql_execute", "class": "destructive", "calls": 9,
                       "targets": ["sqlite://orders/**"], "budget": { "rows": 3 } });
    let plan = json!({ "purpose": "remove old users", "steps": [step] });
    let plan = ask(&call(2, "holdpoint_plan_propose", plan))["result"]["structuredContent"].clone();
    let held = |sql: &str| {
        let told = execute(sql);
        assert_eq!(reason(&told), "preview_too_large", "{told}");
        let held = &told["result"]["_meta"]["io.holdpoint/decision"]["held"];
        let id = held["id"].as_str().unwrap();
        world.must(&["approve", id, "--because", "so many are fine"]);
    };
    // A yes to a size is none to what the plan does not have room for.
    let many = "DELETE FROM users WHERE id > 1";
    held(many);
    let denied = execute(many);
    assert_eq!(reason(&denied), "plan_deviation", "{denied}");
    assert!(words(&denied).contains("touches 4 rows, and 3 of 3 are left"), "{denied}");
    assert_eq!(sqlite(&world, "SELECT count(*) FROM users"), "5\n");
    let three = "DELETE FROM users WHERE id > 2";
    held(three);
    let done = execute(three);
    assert_eq!(reason(&done), "answered", "{done}");
    assert_eq!(sqlite(&world, "SELECT count(*) FROM users"), "2\n");
    let show = world.json(&["plan", "show", &id_of(&plan)]);
    assert_eq!(show["steps"][0]["used"], json!({ "rows": 3 }));
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

/// What an answer says to whoever reads it.
fn words(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_default()
}

#[test]
fn a_plan_is_bound_to_what_its_call_would_have_done() {
    let world = orders("auto");
    let key = world.key("coder");
    let serve = world.serve();
    let ask = |message: &Value| post(&serve, ("/orders", &key), message).body;
    ask(&json!({ "jsonrpc": "2.0", "id": 0, "method": "tools/list" }));
    let sql = json!({ "sql": "DELETE FROM users WHERE id > 3" });
    let step = |budget: u64| {
        json!({ "id": "tidy", "tool": "sql_execute", "class": "destructive", "call": sql,
                "targets": ["sqlite://orders/**"], "budget": { "rows": budget } })
    };
    let propose = |step: Value| {
        let plan = json!({ "purpose": "tidy up", "steps": [step] });
        let said = ask(&call(2, "holdpoint_plan_propose", plan));
        said["result"]["structuredContent"].clone()
    };
    let small = propose(step(1));
    assert_eq!(small["state"], "refused", "{small}");
    assert!(codes(&small).contains(&"blocking budget_too_small".to_owned()), "{small}");
    let mut refused = step(5);
    refused["call"]["sql"] = "DELETE FROM customers WHERE id > 3".into();
    let refused = propose(refused);
    assert!(codes(&refused).contains(&"advisory target_unseen".to_owned()), "{refused}");
    assert!(refused["notes"].to_string().contains("no such table"), "{refused}");
    let plan = ask(&call(
        3,
        "holdpoint_plan_revise",
        json!({ "purpose": "tidy up",
        "plan": refused["plan"], "steps": [step(5)] }),
    ));
    let plan = plan["result"]["structuredContent"].clone();
    assert_eq!(plan["state"], "accepted", "{plan}");
    assert_eq!(plan["steps"][0]["would"]["counts"]["deleted"], 2);
    let show = world.must(&["plan", "show", &id_of(&plan)]);
    assert!(show.contains("would do exactly: makes 0, changes 0, deletes 2"), "{show}");
    let other = ask(&call(4, "sql_execute", json!({ "sql": "DELETE FROM users WHERE id > 4" })));
    assert!(other.to_string().contains("whose `call` has other parameters"), "{other}");
    // Somebody changes a row that the call would delete: nobody has agreed to that.
    sqlite(&world, "UPDATE users SET name = 'new' WHERE id = 4");
    let moved = ask(&call(5, "sql_execute", sql.clone()));
    assert!(moved.to_string().contains("the target of step `tidy` moved"), "{moved}");
    assert_eq!(sqlite(&world, "SELECT count(*) FROM users"), "5\n");
    let show = world.json(&["plan", "show", &id_of(&plan)]);
    assert_eq!(show["state"], "void", "{show}");
    // A new plan is bound to how it is now, and its call is made.
    let plan = propose(step(5));
    assert_eq!(plan["state"], "accepted", "{plan}");
    assert_eq!(reason(&ask(&call(6, "sql_execute", sql.clone()))), "answered");
    assert_eq!(sqlite(&world, "SELECT count(*) FROM users"), "3\n");
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn nobody_looks_at_targets_for_a_plan_that_is_not_even_recorded() {
    let world = orders("auto");
    sqlite(&world, "CREATE TABLE more (n INTEGER)");
    let config = std::fs::read_to_string(world.path().join("holdpoint.toml")).unwrap();
    let short = config.replace("\"orders.db\" }", "\"orders.db\", statement_timeout_ms = 1500 }");
    assert_ne!(config, short);
    std::fs::write(world.path().join("holdpoint.toml"), short).unwrap();
    let key = world.key("coder");
    let serve = world.serve();
    let ask = |message: &Value| post(&serve, ("/orders", &key), message).body;
    ask(&json!({ "jsonrpc": "2.0", "id": 0, "method": "tools/list" }));
    let propose = |task: &str, sql: &str| {
        let step = json!({ "id": "fill", "tool": "sql_execute", "class": "write",
                           "targets": ["sqlite://orders/**"], "call": { "sql": sql } });
        let plan = json!({ "purpose": "fill", "task": task, "steps": [step] });
        ask(&call(2, "holdpoint_plan_propose", plan))["result"]["structuredContent"].clone()
    };
    let one = "00000000-0000-7000-8000-000000000001";
    let first = propose(one, "INSERT INTO more VALUES (1)");
    assert_eq!(first["state"], "accepted", "{first}");
    let endless = "INSERT INTO more WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                   SELECT i FROM n WHERE i < 0";
    let taken = propose(one, endless);
    assert_eq!(taken["reason"], "plan_conflict", "{taken}");
    // A long look would keep the agent away for as long.
    let sql = json!({ "sql": "INSERT INTO more VALUES (1)" });
    assert_eq!(reason(&ask(&call(3, "sql_execute", sql))), "answered");
    serve.end();
    world.must(&["verify"]);
}

#[test]
fn a_held_call_of_a_step_takes_it_once_it_is_approved() {
    let world = orders("approve-writes");
    let key = world.key("coder");
    let serve = world.serve();
    let ask = |message: &Value| post(&serve, ("/orders", &key), message).body;
    ask(&json!({ "jsonrpc": "2.0", "id": 0, "method": "tools/list" }));
    let step = json!({ "id": "rename", "tool": "sql_execute", "class": "destructive",
                       "targets": ["sqlite://orders/**"], "budget": { "rows": 1 } });
    let plan = json!({ "purpose": "rename", "steps": [step] });
    let plan = ask(&call(2, "holdpoint_plan_propose", plan))["result"]["structuredContent"].clone();
    let rename = call(3, "sql_execute", json!({ "sql": "UPDATE users SET name='x' WHERE id=1" }));
    let held = ask(&rename);
    let approval = held["result"]["_meta"]["io.holdpoint/decision"]["held"]["id"].clone();
    let approval = approval.as_str().unwrap_or_else(|| panic!("not held: {held}"));
    let id = id_of(&plan);
    let taken = || world.json(&["plan", "show", &id])["steps"][0]["calls"]["taken"].clone();
    assert_eq!(taken(), 0);
    world.must(&["approve", approval, "--because", "one row"]);
    assert_eq!(reason(&ask(&rename)), "answered");
    assert_eq!(
        (taken(), sqlite(&world, "SELECT name FROM users LIMIT 1")),
        (json!(1), "x\n".into())
    );
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[tokio::test]
async fn a_trial_is_compared_with_the_plan_too() {
    let (world, serve, key) = served("accept = \"checker\"");
    let client = http(&serve, "", &key, Opens::Modern).await;
    propose(&client, two_files(&world)).await;
    let trial = |name: &str| {
        let call = json!({ "tool": "peer__touch", "arguments": path(&world, name) });
        std::fs::write(world.path().join("call.json"), call.to_string()).unwrap();
        world.run(&["try", "call.json", "--as", "coder"])
    };
    assert_eq!(trial("one").status.code(), Some(0));
    let two = trial("two");
    assert_eq!(two.status.code(), Some(3));
    assert!(text(&two.stdout).contains("plan_deviation"), "{}", text(&two.stdout));
}
