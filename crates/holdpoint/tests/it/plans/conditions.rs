//! Conditions of plans that are looked at: before a step begins, and before it counts as done.

use super::{
    codes, file, id_of, orders, path, propose, sqlite, status, told, touch, two_files, words,
};
use crate::client::{self, Opens, failed, http, reasons, wrap};
use crate::raw::{call, post, reason};
use crate::world::{PEER, Serve, World, peer, text, until};
use serde_json::{Value, json};

/// A world whose database Holdpoint serves, and the way to ask as its agent.
struct Orders {
    world: World,
    key: String,
    serve: Serve,
}

impl Orders {
    fn new() -> Self {
        let world = orders("auto");
        let (key, serve) = (world.key("coder"), world.serve());
        let orders = Self { world, key, serve };
        orders.ask(&json!({ "jsonrpc": "2.0", "id": 0, "method": "tools/list" }));
        orders
    }

    fn ask(&self, message: &Value) -> Value {
        post(&self.serve, ("/orders", &self.key), message).body
    }

    fn execute(&self, sql: &str) -> Value {
        self.ask(&call(1, "sql_execute", json!({ "sql": sql })))
    }

    fn propose(&self, plan: Value) -> Value {
        self.ask(&call(2, "holdpoint_plan_propose", plan))["result"]["structuredContent"].clone()
    }

    fn show(&self, id: &str) -> Value {
        self.world.json(&["plan", "show", id])
    }

    fn records(&self, kind: &str) -> Vec<Value> {
        self.world.json(&["log", "--kind", kind])["records"].as_array().unwrap().clone()
    }

    fn end(self) {
        self.serve.end();
        self.world.must(&["verify"]);
        self.world.must(&["replay"]);
    }
}

/// A condition: so many rows.
fn counts(says: &str, from: &str, rows: u32) -> Value {
    json!({ "says": says, "tool": "sql_query",
            "arguments": { "sql": format!("SELECT count(*) FROM {from}") },
            "result": { "properties": { "rows": { "const": [[rows]] } }, "required": ["rows"] } })
}

/// A step that deletes users.
fn deletes(id: &str) -> Value {
    json!({ "id": id, "tool": "sql_execute", "class": "destructive",
            "targets": ["sqlite://orders/**"], "budget": { "rows": 3 } })
}

#[test]
fn a_step_begins_only_once_what_must_hold_before_it_does() {
    let orders = Orders::new();
    let mut step = deletes("clean");
    step["preconditions"] = json!(["nobody works there", counts("a copy is there", "copy", 2)]);
    // The reads that look are in the plan, so they pass where every read needs a step.
    let plan = orders.propose(json!({ "purpose": "clean", "reads": "listed", "steps": [step] }));
    assert_eq!(plan["state"], "accepted", "{plan}");
    let id = id_of(&plan);
    let free = orders.ask(&call(3, "sql_query", json!({ "sql": "SELECT 1" })));
    assert_eq!(reason(&free), "plan_deviation");
    let clean = || orders.execute("DELETE FROM users WHERE id > 3");
    // It cannot be looked at; then it does not hold.
    let unseen = clean();
    assert_eq!(reason(&unseen), "plan_condition", "{unseen}");
    let said = words(&unseen);
    assert!(
        said.contains("precondition 2 of step `clean` could not")
            && said.contains("`a copy is there`"),
        "{said}"
    );
    let read = said.split_once("(read ").unwrap().1.split_once(')').unwrap().0;
    // `why` of the call, which shortens what is long, names the read all the same.
    let decisions = orders.records("decision");
    let denied = decisions.last().unwrap()["action"].as_str().unwrap();
    assert!(orders.world.must(&["why", denied]).contains(&format!("(read {read})")));
    sqlite(&orders.world, "CREATE TABLE copy AS SELECT * FROM users WHERE id = 4");
    let unmet = clean();
    assert_eq!(reason(&unmet), "plan_condition", "{unmet}");
    assert!(words(&unmet).contains("does not hold"), "{unmet}");
    let show = orders.show(&id);
    assert_eq!(show["steps"][0]["calls"]["taken"], 0, "{show}");
    assert_eq!(show["steps"][0]["used"], json!({ "rows": 0 }));
    assert_eq!(sqlite(&orders.world, "SELECT count(*) FROM users"), "5\n");
    // A stop on the tool that looks leaves the condition unseen.
    orders.world.must(&["stop", "--tool", "orders__sql_query", "--reason", "broken"]);
    sqlite(&orders.world, "INSERT INTO copy SELECT * FROM users WHERE id = 5");
    let stopped = clean();
    assert_eq!(reason(&stopped), "plan_condition", "{stopped}");
    assert!(words(&stopped).contains("not permitted: stopped"), "{stopped}");
    orders.world.must(&["release", "--tool", "orders__sql_query", "--reason", "mended"]);
    assert_eq!(reason(&clean()), "answered");
    assert_eq!(sqlite(&orders.world, "SELECT count(*) FROM users"), "3\n");
    // Each look is an action with a decision of its own, and the call's decision names it.
    let decisions = orders.records("decision");
    let looks: Vec<&Value> =
        decisions.iter().filter(|one| one["request"]["door"] == "plan").collect();
    assert_eq!(looks.len(), 4);
    for look in &looks {
        let plan = &look["facts"]["plan"];
        assert_eq!((&plan["fit"], &plan["step"]), (&json!("condition"), &json!("clean")));
        assert_eq!((&plan["when"], &plan["number"]), (&json!("before"), &json!(2)));
    }
    let last = decisions.last().unwrap();
    let findings = last["facts"]["findings"].to_string();
    let read = looks.last().unwrap()["action"].as_str().unwrap();
    assert!(findings.contains(read) && findings.contains("what must hold does"), "{findings}");
    let why = orders.world.must(&["why", read]);
    assert!(why.contains("looks at condition 2 before step clean"), "{why}");
    let shown = orders.world.must(&["plan", "show", &id]);
    assert!(shown.contains("clean precondition 1: nobody works there"), "{shown}");
    assert!(shown.contains("clean precondition 2: a copy is there"), "{shown}");
    assert!(shown.contains("looked at with: orders__sql_query"), "{shown}");
    orders.end();
}

#[test]
fn conditions_are_looked_at_by_nothing_but_reads() {
    let orders = Orders::new();
    let with = |condition: Value| {
        let mut step = deletes("clean");
        step["postconditions"] = json!([condition]);
        let refused = orders.propose(json!({ "purpose": "x", "steps": [step] }));
        assert_eq!(refused["state"], "refused", "{refused}");
        codes(&refused)
    };
    let mut condition = counts("x", "users", 5);
    condition["tool"] = "orders__none".into();
    assert!(with(condition.clone()).contains(&"blocking condition_unknown".to_owned()));
    let mut condition = counts("x", "users", 5);
    condition["result"] = json!({ "type": "nothing" });
    assert!(with(condition).contains(&"blocking schema_invalid".to_owned()));
    let mut step = deletes("clean");
    step["preconditions"] = vec![counts("x", "users", 5); 9].into();
    let many = orders.propose(json!({ "purpose": "x", "steps": [step] }));
    assert!(codes(&many).contains(&"blocking too_many_conditions".to_owned()), "{many}");
    // What counts is what the call would do.
    for (tool, sql) in [("sql_query", "nonsense"), ("sql_execute", "DELETE FROM users")] {
        let mut condition = counts("x", "users", 5);
        condition["tool"] = tool.into();
        condition["arguments"]["sql"] = sql.into();
        assert!(with(condition).contains(&"blocking condition_not_read".to_owned()), "{sql}");
    }
    // Whoever names the arguments wrongly is told of them, not of the tool.
    for (arguments, why) in [
        (json!({ "sq": 1 }), "`orders__sql_query` do not fit its schema: "),
        (json!({ "sql": "nonsense" }), "`orders__sql_query` cannot be read: "),
    ] {
        let mut condition = counts("x", "users", 5);
        condition["arguments"] = arguments;
        let mut step = deletes("clean");
        step["preconditions"] = json!([condition]);
        let refused = orders.propose(json!({ "purpose": "x", "steps": [step] }));
        let notes = refused["notes"].to_string();
        assert!(notes.contains(&format!("`arguments` of precondition 1 for {why}")), "{notes}");
    }
    assert_eq!(sqlite(&orders.world, "SELECT count(*) FROM users"), "5\n");
    orders.end();
}

#[test]
fn a_step_is_done_only_once_what_must_hold_after_it_does() {
    let orders = Orders::new();
    let mut first = deletes("first");
    first["calls"] = 2.into();
    first["postconditions"] = json!(["all is well", counts("three stay", "users", 3)]);
    let mut second = deletes("second");
    second["postconditions"] = json!([counts("nine stay", "users", 9)]);
    let third = deletes("third");
    let plan = orders.propose(json!({ "purpose": "clean", "steps": [first, second, third] }));
    assert_eq!(plan["state"], "accepted", "{plan}");
    let id = id_of(&plan);
    let remove = |id: u32| orders.execute(&format!("DELETE FROM users WHERE id = {id}"));
    let states = || -> Vec<String> {
        let steps = orders.show(&id)["steps"].as_array().unwrap().clone();
        steps.iter().map(|step| step["state"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(reason(&remove(5)), "answered");
    assert_eq!(states(), ["open", "waiting", "waiting"]);
    assert_eq!(orders.records("plan_looked").len(), 0);
    // The last call is looked at before its answer comes.
    assert_eq!(reason(&remove(4)), "answered");
    assert_eq!(states(), ["done", "open", "waiting"]);
    assert_eq!(orders.records("plan_looked").len(), 1);
    // What does not hold ends the way.
    assert_eq!(reason(&remove(3)), "answered");
    assert_eq!(states(), ["done", "unmet", "waiting"]);
    let stuck = remove(2);
    assert_eq!(reason(&stuck), "plan_deviation", "{stuck}");
    let helps = "waits for `second`, whose postcondition does not hold: revise the plan";
    assert!(words(&stuck).contains(helps), "{stuck}");
    let looked = orders.records("plan_looked");
    assert_eq!(looked.len(), 2);
    assert!(looked[1]["unmet"].as_str().unwrap().contains("does not hold (read "));
    let status = orders.ask(&call(4, "holdpoint_plan_status", json!({ "plan": id })));
    assert!(words(&status).contains("Step `second` goes no further"), "{status}");
    let status = &status["result"]["structuredContent"]["plans"][0];
    assert_eq!((&status["state"], &status["next"]), (&json!("accepted"), &json!([])));
    assert!(status["steps"][1]["unmet"].as_str().unwrap().contains("nine stay"), "{status}");
    let shown = orders.world.must(&["plan", "show", &id]);
    assert!(shown.contains("second goes no further: postcondition 1"), "{shown}");
    let list = text(&orders.world.run(&["plan", "list"]).stdout);
    assert!(list.contains("1/3 done, stuck at second: unmet"), "{list}");
    assert_eq!(sqlite(&orders.world, "SELECT count(*) FROM users"), "2\n");
    // So says the call that the step ended with.
    let read = looked[1]["reads"][0].as_str().unwrap();
    let calls = orders.records("decision").into_iter();
    let calls = calls.filter(|one| one["facts"]["plan"]["fit"] == "step");
    let last = calls.collect::<Vec<_>>();
    let last = last.last().unwrap()["action"].as_str().unwrap().to_owned();
    let why = orders.world.must(&["why", &last]);
    assert!(why.contains("after step  second: goes no further"), "{why}");
    assert!(why.contains(&format!("(read {read})")), "{why}");
    // A revision goes on.
    let revision = json!({ "purpose": "the rest", "plan": id, "steps": [deletes("rest")] });
    let revised = orders.ask(&call(5, "holdpoint_plan_revise", revision));
    assert_eq!(revised["result"]["structuredContent"]["state"], "accepted", "{revised}");
    // Nobody revises it twice.
    let status = orders.ask(&call(6, "holdpoint_plan_status", json!({ "plan": id })));
    let said = words(&status);
    assert!(said.contains("`second` goes no further") && !said.contains("Revise"), "{said}");
    assert_eq!(reason(&remove(2)), "answered");
    orders.end();
}

#[test]
fn a_step_that_may_go_on_is_looked_at_when_the_next_wants_to_begin() {
    let orders = Orders::new();
    let mut first = deletes("first");
    first["calls"] = 3.into();
    first["parameters"] = json!({ "properties": { "sql": { "pattern": "id" } } });
    first["postconditions"] = json!([counts("three stay", "users", 3)]);
    let mut next = deletes("next");
    next["parameters"] = json!({ "properties": { "sql": { "pattern": "name" } } });
    let plan = orders.propose(json!({ "purpose": "clean", "steps": [first, next] }));
    let id = id_of(&plan);
    let next = || orders.execute("DELETE FROM users WHERE name = 'a'");
    assert_eq!(reason(&next()), "plan_deviation");
    assert_eq!(reason(&orders.execute("DELETE FROM users WHERE id = 5")), "answered");
    // It does not hold yet, and the step may go on.
    let early = next().to_string();
    assert!(early.contains("plan_condition") && early.contains("`three stay`"), "{early}");
    assert_eq!(orders.records("plan_looked").len(), 0);
    assert_eq!(reason(&orders.execute("DELETE FROM users WHERE id = 4")), "answered");
    assert_eq!(reason(&next()), "answered");
    assert_eq!(orders.records("plan_looked").len(), 1);
    assert_eq!(orders.show(&id)["steps"][0]["state"], "done");
    // It was found to hold with two calls: a third is none of the step.
    let third = orders.execute("DELETE FROM users WHERE id = 3");
    assert_eq!(reason(&third), "plan_deviation", "{third}");
    orders.end();
}

/// A condition that a tool of the peer is to tell.
fn peer_says(tool: &str, arguments: Value) -> Value {
    json!({ "says": "all is well", "tool": format!("peer__{tool}"), "arguments": arguments,
            "result": { "const": "well" } })
}

#[tokio::test]
async fn what_cannot_be_looked_at_does_not_hold() {
    let config = PEER.replace("timeout_ms = 3000", "timeout_ms = 60000");
    let world = World::new(&format!("{config}\n[plans]\naccept = \"checker\"\n"));
    let key = world.key("coder");
    let serve = world.serve();
    let client = http(&serve, "", &key, Opens::Modern).await;
    let mut before: Option<String> = None;
    let cases = [
        ("echo", json!({ "text": "ill" }), "does not hold"),
        ("protocol_error", json!({}), "the read failed"),
        ("large", json!({}), "could not be looked at"),
        ("hang", json!({}), "no answer within 5 s"),
        ("die", json!({}), "could not be looked at"),
    ];
    for (tool, arguments, why) in cases {
        let mut plan = two_files(&world);
        plan["steps"][0]["preconditions"] = json!([peer_says(tool, arguments)]);
        let name = match &before {
            None => "holdpoint_plan_propose",
            Some(before) => {
                plan["plan"] = before.as_str().into();
                "holdpoint_plan_revise"
            }
        };
        let result = client::call(&client, name, plan).await;
        assert!(!failed(&result), "{}", client::text(&result));
        before = Some(id_of(told(&result)));
        let denied = touch(&client, &world, "one").await;
        let words = client::text(&denied);
        assert_eq!(reasons(&denied)[0], "plan_condition", "{words}");
        assert!(words.contains(why), "{tool}: {words}");
        assert!(!world.files().join("one").exists());
    }
    let mut plan = two_files(&world);
    plan["plan"] = before.unwrap().into();
    plan["steps"][0]["preconditions"] = json!([peer_says("echo", json!({ "text": "well" }))]);
    let result = client::call(&client, "holdpoint_plan_revise", plan).await;
    assert!(!failed(&result), "{}", client::text(&result));
    let done = touch(&client, &world, "one").await;
    assert!(!failed(&done), "{}", client::text(&done));
    drop(client);
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn a_result_that_is_too_long_is_no_answer() {
    let orders = Orders::new();
    let mut step = deletes("clean");
    let mut condition = counts(&"x".repeat(300), "users", 5);
    condition["arguments"]["sql"] = "SELECT hex(zeroblob(40000))".into();
    condition["result"] = json!(true);
    step["preconditions"] = json!([condition]);
    orders.propose(json!({ "purpose": "x", "steps": [step] }));
    let denied = orders.execute("DELETE FROM users WHERE id > 3");
    assert_eq!(reason(&denied), "plan_condition", "{denied}");
    let said = words(&denied);
    assert!(said.contains("more than 65536"), "{denied}");
    // Of its own words the condition keeps a part.
    assert!(said.contains(&"x".repeat(200)) && !said.contains(&"x".repeat(201)), "{said}");
    orders.end();
}

#[tokio::test]
async fn a_crash_before_anybody_looked_leaves_the_step_undone() {
    let world = World::new(&format!("{PEER}\n[plans]\naccept = \"checker\"\n"));
    let key = world.key("coder");
    let serve = world.serve();
    let client = http(&serve, "", &key, Opens::Modern).await;
    let mut plan = two_files(&world);
    plan["steps"][0]["postconditions"] = json!([peer_says("hang", json!({}))]);
    let id = id_of(&propose(&client, plan).await);
    drop(client);
    // The power fails while it is looked at: the call is over, and the step is not.
    std::thread::scope(|scope| {
        let message = call(1, "peer__touch", path(&world, "one"));
        let (serve, key) = (&serve, &key);
        scope.spawn(move || crate::raw::try_post(serve, ("", key), &message));
        until("it is looked at", || {
            let log = world.json(&["log", "--kind", "decision"]).to_string();
            log.contains("\"fit\":\"condition\"").then_some(())
        });
        serve.kill_now();
    });
    drop(serve);
    let states = || {
        let show = world.json(&["plan", "show", &id]);
        (show["steps"][0]["state"].clone(), show["steps"][1]["state"].clone())
    };
    assert_eq!(states(), (json!("unlooked"), json!("waiting")));
    let serve = world.serve();
    let client = http(&serve, "", &key, Opens::Modern).await;
    let denied = touch(&client, &world, "two").await;
    let words = client::text(&denied);
    assert!(reasons(&denied).contains(&"plan_condition".to_owned()), "{words}");
    assert!(words.contains("could not be looked at"), "{words}");
    assert_eq!(states(), (json!("unlooked"), json!("waiting")));
    let seen = status(&client, &id).await;
    assert_eq!(seen["next"], json!([]));
    // Whoever asks hears why, and which read it was.
    let why = seen["steps"][0]["unlooked"].as_str().unwrap();
    assert!(why.contains("could not be looked at (read "), "{seen}");
    let shown = world.must(&["plan", "show", &id]);
    assert!(shown.contains("one was not looked at yet, or could not be"), "{shown}");
    assert!(!world.files().join("two").exists());
    drop(client);
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[tokio::test]
async fn a_wrap_looks_at_conditions_over_its_own_line() {
    let world = World::new(&format!("{PEER}\n[plans]\naccept = \"checker\"\n"));
    let program = peer().display().to_string();
    let client = wrap(&world, "peer", &["node", &program], Opens::Legacy).await;
    client::tools(&client).await;
    let step = |name: &str, says: &str| {
        let mut condition = peer_says("echo", json!({ "text": says }));
        condition["tool"] = "echo".into();
        json!({ "id": name, "tool": "touch", "class": "write",
                "targets": [file(&world, name)], "preconditions": [condition.clone()],
                "postconditions": [condition] })
    };
    let steps = [step("one", "well"), step("two", "ill")];
    propose(&client, json!({ "purpose": "x", "steps": steps })).await;
    let one = client::call(&client, "touch", path(&world, "one")).await;
    assert!(!failed(&one), "{}", client::text(&one));
    let two = client::call(&client, "touch", path(&world, "two")).await;
    assert_eq!(reasons(&two)[0], "plan_condition", "{}", client::text(&two));
    let seen = client::call(&client, "holdpoint_plan_status", json!({})).await;
    let plan = &told(&seen)["plans"][0];
    assert_eq!(plan["steps"][0]["state"], "done", "{plan}");
    client.cancel().await.unwrap();
    let looked = world.json(&["log", "--kind", "plan_looked"]);
    assert_eq!(looked["records"].as_array().unwrap().len(), 1);
    world.must(&["verify"]);
}

#[tokio::test]
async fn a_plan_ends_with_its_last_call() {
    let world = World::new(&format!("{PEER}\n[plans]\naccept = \"checker\"\n"));
    let key = world.key("coder");
    let serve = world.serve();
    let client = http(&serve, "", &key, Opens::Modern).await;
    let id = id_of(&propose(&client, two_files(&world)).await);
    for name in ["one", "two", "other"] {
        let done = touch(&client, &world, name).await;
        assert!(!failed(&done), "{name}: {}", client::text(&done));
    }
    assert_eq!(world.json(&["plan", "show", &id])["state"], "done");
    assert!(text(&world.run(&["plan", "list"]).stdout).contains("no plan"));
    drop(client);
    serve.end();
    world.must(&["verify"]);
}
