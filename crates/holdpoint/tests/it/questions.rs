//! What servers ask of agents leaves records: before the agent hears of it, and what came back.

use crate::raw::{self, Pipe, modern, reason};
use crate::world::{World, asker};
use serde_json::{Value, json};

const CONFIG: &str = r#"
[listen]
http = "127.0.0.1:0"

[team.platform]
on_call = "platform on-call"

[agent.coder]
owner = "platform"
grants = [{ class = "read", tools = ["*"] }]

[server.asker]
command = ["node", "${asker}", "legacy"]
environment = "dev"
read = ["*"]

[server.younger]
command = ["node", "${asker}", "modern"]
environment = "dev"
read = ["*"]

[server.quiet]
command = ["node", "${asker}", "modern"]
environment = "dev"
read = ["*"]
elicitation = "forbid"
"#;

fn wrap(world: &World, server: &str, era: &str) -> Pipe {
    let mut command =
        world.command(&["wrap", "--agent", "coder", "--server", server, "--", "node"]);
    command.arg(asker()).arg(era);
    Pipe::of(command)
}

fn opening(capabilities: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": "open", "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": capabilities,
        "clientInfo": { "name": "test", "version": "1" },
    } })
}

fn of_kind(world: &World, kind: &str) -> Vec<Value> {
    let all = world.records().into_iter();
    all.filter(|record| record["kind"] == kind).collect()
}

#[test]
fn a_question_and_its_reply_are_recorded_with_their_action() {
    let world = World::new(CONFIG);
    let mut pipe = wrap(&world, "asker", "legacy");
    pipe.tell(&opening(json!({ "elicitation": {} })));
    pipe.answer("open");
    pipe.begin(1, "confirm", json!({}));
    let question = pipe.next().unwrap();
    assert_eq!(question["method"], "elicitation/create");
    // The agent has heard of it, so it is durable by now.
    let asked = of_kind(&world, "asked");
    assert_eq!(asked.len(), 1);
    assert_eq!((&asked[0]["method"], &asked[0]["ruling"]), (&question["method"], &json!("passed")));
    pipe.tell(
        &json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "action": "decline" } }),
    );
    assert!(pipe.answer(1).to_string().contains("decline"));
    assert_eq!(pipe.end().0, Some(0));
    let replied = of_kind(&world, "replied");
    assert_eq!(replied[0]["asked"], asked[0]["seq"]);
    assert_eq!(replied[0]["status"], "declined");
    let decision = of_kind(&world, "decision");
    let action = &decision[0]["action"];
    assert_eq!((action, action), (&asked[0]["action"], &replied[0]["action"]));
    let why = world.must(&["why", "last"]);
    assert!(why.contains("asker asked elicitation/create: declined"), "{why}");
    world.must(&["verify"]);
}

#[test]
fn a_question_that_nobody_answers_is_recorded_as_such() {
    let world = World::new(CONFIG);
    let mut pipe = wrap(&world, "asker", "legacy");
    pipe.tell(&opening(json!({ "elicitation": {} })));
    pipe.answer("open");
    pipe.begin(1, "confirm", json!({}));
    assert_eq!(pipe.next().unwrap()["method"], "elicitation/create");
    pipe.end();
    let replied = of_kind(&world, "replied");
    assert_eq!((replied.len(), &replied[0]["status"]), (1, &json!("unanswered")));
}

#[test]
fn a_forbidden_question_is_recorded_and_reaches_nobody() {
    let world = World::new(CONFIG);
    let mut pipe = wrap(&world, "quiet", "legacy");
    pipe.tell(&opening(json!({ "elicitation": {} })));
    pipe.answer("open");
    pipe.begin(1, "confirm", json!({}));
    let answer = pipe.next().unwrap();
    assert_eq!(answer["id"], 1, "no question came before: {answer}");
    assert!(answer.to_string().contains("question_forbidden"), "{answer}");
    pipe.end();
    let asked = of_kind(&world, "asked");
    assert_eq!((asked.len(), &asked[0]["ruling"]), (1, &json!("forbidden")));
    assert!(of_kind(&world, "replied").is_empty());
    world.must(&["verify"]);
}

#[test]
fn questions_in_results_are_recorded_with_their_replies() {
    let world = World::new(CONFIG);
    let key = world.key("coder");
    let serve = world.serve();
    let call = |server: &str, more: Value| {
        let mut params = json!({ "name": "confirm", "arguments": {} });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        raw::post_modern(&serve, (server, &key), &modern(1, "tools/call", params)).body
    };
    let first = call("/younger", json!({}));
    assert_eq!(first["result"]["resultType"], "input_required", "{first}");
    let replies = json!({ "user": { "action": "accept", "content": {} } });
    let state = &first["result"]["requestState"];
    let second = call("/younger", json!({ "inputResponses": replies, "requestState": state }));
    assert!(second.to_string().contains("accept"), "{second}");
    let refused = call("/quiet", json!({}));
    assert_eq!(reason(&refused), "question_forbidden", "{refused}");
    serve.end();
    let asked = of_kind(&world, "asked");
    let rulings: Vec<_> = asked.iter().map(|asked| asked["ruling"].as_str().unwrap()).collect();
    assert_eq!(rulings, ["passed", "forbidden"]);
    let replied = of_kind(&world, "replied");
    assert_eq!((replied.len(), &replied[0]["asked"]), (1, &asked[0]["seq"]));
    assert_eq!(replied[0]["status"], "answered");
    world.must(&["verify"]);
}
