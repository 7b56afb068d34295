//! Several processes on one store, and the same answer whichever way a call is asked about.

use crate::raw::{Pipe, call, exchange, post, reason};
use crate::world::{PEER, World};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Stdio;

#[test]
fn two_wraps_on_one_store_write_one_valid_log() {
    let world = World::new(PEER);
    let mut pipes = [Pipe::wrap(&world), Pipe::wrap(&world)];
    for at in 0..40_i64 {
        for (who, pipe) in pipes.iter_mut().enumerate() {
            match at % 4 {
                3 => pipe.begin(at, "nothing", json!({})),
                _ => {
                    let path = world.files().join(format!("{who}-{at}"));
                    pipe.begin(at, "touch", json!({ "path": path }));
                }
            }
        }
    }
    for pipe in &pipes {
        for _ in 0..40 {
            let answer = pipe.next().unwrap();
            let expected = match answer["id"].as_i64().unwrap() % 4 {
                3 => "tool_unknown",
                _ => "answered",
            };
            assert_eq!(reason(&answer), expected, "{answer}");
        }
    }
    for pipe in pipes {
        assert_eq!(pipe.end(), (Some(0), vec![]));
    }
    world.must(&["verify"]);
    world.must(&["replay"]);
    let records = world.records();
    let positions: Vec<_> = records.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert_eq!(positions, (0..positions.len() as u64).collect::<Vec<_>>());
    let of = |kind: &str| records.iter().filter(|record| record["kind"] == kind).count();
    assert_eq!((of("decision"), of("outcome")), (80, 60));
    let gateways: BTreeSet<_> = records.iter().map(|it| it["gateway"].to_string()).collect();
    assert!(gateways.len() >= 2, "{gateways:?}");
    assert_eq!(std::fs::read_dir(world.files()).unwrap().count(), 60);
    assert_eq!(
        of("tool_pinned"),
        BTreeSet::from_iter(
            records
                .iter()
                .filter(|it| it["kind"] == "tool_pinned")
                .map(|it| it["tool"].to_string()),
        )
        .len(),
        "each tool was pinned once"
    );
}

/// The causes of a decision without what depends on the moment.
fn causes(decision: &Value) -> BTreeSet<String> {
    let causes = decision.as_array().unwrap().iter();
    causes
        .map(|cause| format!("{} {} {}", cause["ruling"], cause["reason"], cause["rule"]))
        .collect()
}

/// Two more agents, and a surface, for [`PEER`].
const MORE: &str = r#"
[agent.reader]
owner = "platform"
mode = "read-only"
grants = [{ class = "read", tools = ["*"] }, { class = "write", tools = ["*"] }]

[agent.planner]
owner = "platform"
mode = "plan-only"
grants = [{ class = "write", tools = ["peer__touch"] }]

[[surface]]
name = "secrets"
resources = ["file://${files}/secrets/**"]
"#;

/// Tries a call; gives the exit code and the answer.
fn tried(world: &World, agent: &str, (tool, arguments): (&str, &Value)) -> (i32, Value) {
    let file = world.path().join("call.json");
    let trial = json!({ "tool": format!("peer__{tool}"), "arguments": arguments });
    std::fs::write(&file, trial.to_string()).unwrap();
    let command = ["--format", "json", "try", file.to_str().unwrap(), "--as", agent];
    let output = world.run(&command);
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}

/// Demands that a trial and the record of the real decision say the same.
fn same(tried: &Value, real: &Value) {
    assert_eq!(causes(&tried["causes"]), causes(&real["decision"]), "{real}");
    let mut facts = (tried["facts"].clone(), real["facts"].clone());
    facts.0["epoch"].take();
    facts.1["epoch"].take();
    assert_eq!(facts.0, facts.1, "{real}");
}

#[test]
fn a_trial_decides_as_the_real_call() {
    let world = World::new(&format!("{PEER}{MORE}"));
    std::fs::create_dir(world.files().join("secrets")).unwrap();
    let in_files = |name: &str| json!({ "path": world.files().join(name) });
    let agents = ["coder", "reader", "planner"].map(|agent| (agent, world.key(agent)));
    let serve = world.serve();
    let mut table = String::new();
    for (agent, key) in &agents {
        let calls = [
            ("echo", json!({ "text": "hi" })),
            ("touch", in_files(&format!("by-{agent}"))),
            ("touch", in_files(&format!("secrets/by-{agent}"))),
            ("touch", in_files(&format!("secrets/../also-by-{agent}"))),
            ("touch", json!({})),
            ("nothing", json!({})),
        ];
        for (tool, arguments) in calls {
            let answer = post(&serve, ("/peer", key), &call(1, tool, arguments.clone()));
            let newest = world.json(&["log", "--kind", "decision", "--limit", "1"]);
            let real = &newest["records"][0];
            assert_eq!(real["request"]["parameters"], arguments);
            let (code, tried) = tried(&world, agent, (tool, &arguments));
            same(&tried, real);
            let ruling = tried["ruling"].as_str().unwrap();
            let row = format!("{agent:8} {tool:8} {ruling:9} exit {code} {}", reason(&answer.body));
            table.push_str(&format!("{row}\n"));
        }
    }
    expect_test::expect![[r#"
        coder    echo     permit    exit 0 answered
        coder    touch    permit    exit 0 answered
        coder    touch    hold      exit 4 policy_holds
        coder    touch    permit    exit 0 answered
        coder    touch    deny      exit 3 parameters_invalid
        coder    nothing  deny      exit 3 tool_unknown
        reader   echo     permit    exit 0 answered
        reader   touch    deny      exit 3 policy_forbids+agent_read_only
        reader   touch    deny      exit 3 policy_forbids+agent_read_only
        reader   touch    deny      exit 3 policy_forbids+agent_read_only
        reader   touch    deny      exit 3 policy_forbids+parameters_invalid+agent_read_only
        reader   nothing  deny      exit 3 tool_unknown+agent_read_only
        planner  echo     deny      exit 3 no_policy_permits+not_granted
        planner  touch    plan-only exit 3 agent_plan_only
        planner  touch    hold      exit 4 policy_holds
        planner  touch    plan-only exit 3 agent_plan_only
        planner  touch    deny      exit 3 parameters_invalid
        planner  nothing  deny      exit 3 tool_unknown
    "#]]
    .assert_eq(&table);
    let before = world.records().len();
    assert_eq!(tried(&world, "coder", ("touch", &in_files("tried"))).0, 0);
    assert!(!world.files().join("tried").exists(), "a trial runs nothing");
    assert_eq!(world.records().len(), before, "a trial records nothing");
    serve.end();
}

#[test]
fn a_trial_of_what_is_no_call_is_refused() {
    let world = World::new(PEER);
    Pipe::wrap(&world).end();
    for text in
        ["", "[]", "{}", r#"{"tool":1}"#, r#"{"tool":"x__y","arguments":[]}"#, "{\"a\":1,\"a\":2}"]
    {
        let file = world.path().join("call.json");
        std::fs::write(&file, text).unwrap();
        let output = world.run(&["try", file.to_str().unwrap(), "--as", "coder"]);
        assert!([Some(1), Some(2)].contains(&output.status.code()), "{text}: {output:?}");
    }
    let mut command = world.command(&["try", "-", "--as", "nobody"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let call = r#"{"tool":"peer__echo","arguments":{}}"#;
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), call.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(crate::world::text(&output.stdout).contains("agent_unknown"));
}

#[test]
fn a_call_without_a_key_acts_as_the_agent_that_the_operator_named_or_not_at_all() {
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }).to_string();
    let echo = call(1, "echo", json!({ "text": "hi" })).to_string();
    let json = ["Content-Type: application/json"];
    let world = World::new(PEER);
    let serve = world.serve();
    for body in [&list, &echo] {
        let answer = exchange(&serve, "POST /mcp/peer", &json, body.as_bytes());
        assert_eq!(answer.row(), "401 -32600 unauthenticated");
    }
    serve.end();

    let listen = "http = \"127.0.0.1:0\"\nanonymous_agent = \"guest\"";
    let guest = "[agent.guest]\nowner = \"platform\"\n\
                 grants = [{ class = \"read\", tools = [\"peer__echo\"] }]\n";
    let config = PEER.replace("http = \"127.0.0.1:0\"", listen);
    let world = World::new(&format!("{config}\n{guest}"));
    let serve = world.serve();
    let answer = exchange(&serve, "POST /mcp/peer", &json, list.as_bytes());
    let tools = answer.body["result"]["tools"].as_array().unwrap();
    assert_eq!(tools.len(), 1, "{answer:?}");
    let answer = exchange(&serve, "POST /mcp/peer", &json, echo.as_bytes());
    assert_eq!(reason(&answer.body), "answered");
    // A wrong key is no missing key.
    let wrong = [json[0], "Authorization: Bearer hp_000000000000_0"];
    let answer = exchange(&serve, "POST /mcp/peer", &wrong, echo.as_bytes());
    assert_eq!(answer.row(), "401 -32600 unauthenticated");
    serve.end();
    let decided = world.json(&["log", "--kind", "decision"]);
    assert_eq!(decided["records"][0]["agent"], "guest");
}
