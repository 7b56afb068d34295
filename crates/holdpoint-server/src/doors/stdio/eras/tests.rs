//! The limits of what waits between two eras, exceeded.

use super::to_legacy::{self, ToLegacy};
use super::to_modern::{self, ToModern};
use super::{Eras, HELD_MAX, Move, Way, own_id, words};
use crate::doors::stdio::tests::line;
use holdpoint_resources::mcp::era::META_SUBSCRIPTION;
use holdpoint_resources::mcp::{Message, RpcId, RpcNotification, RpcRequest, RpcResponse};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// A request of a modern agent that can be asked anything.
fn modern(id: i64, method: &str, params: Value) -> Message {
    let Value::Object(params) = params else { panic!("{params}") };
    let able = json!({ "elicitation": {}, "sampling": {}, "roots": {} });
    let params = words::modern_params(params, (&able, None, None));
    Message::Request(RpcRequest::new(RpcId::Number(id), method, params))
}

fn legacy(id: i64, method: &str, params: Value) -> Message {
    Message::Request(RpcRequest::new(RpcId::Number(id), method, params))
}

fn cancelled(id: i64) -> Message {
    Message::Notification(RpcNotification::cancelled(&RpcId::Number(id), "no longer"))
}

fn result(id: RpcId, result: &Value) -> Message {
    Message::Response(RpcResponse::result_value(id, result))
}

/// A question of a legacy server.
fn question(id: i64) -> Message {
    let params = json!({ "message": "sure?", "requestedSchema": {} });
    legacy(id, "elicitation/create", params)
}

fn older() -> ToLegacy {
    let able = json!({ "capabilities": { "resources": { "subscribe": true } } });
    let Value::Object(server) = able else { panic!("{able}") };
    ToLegacy::new(("coder".parse().unwrap(), "fs".parse().unwrap()), server)
}

fn younger() -> ToModern {
    ToModern::new((json!({ "elicitation": {} }), None), Map::new())
}

/// What is done, a word or two each.
fn done(moves: &[Move]) -> Vec<String> {
    let reason = |message: &Value| message["error"]["data"]["reason"].as_str().map(str::to_owned);
    let said = |message: Value| {
        let method = message["method"].as_str().map(str::to_owned);
        method.or(reason(&message)).unwrap_or_else(|| "result".to_owned())
    };
    let one = |next: &Move| match next {
        Move::ToServer(message) => format!("server: {}", said(json_of(&message.to_bytes()))),
        Move::ToAgent(line) => format!("agent: {}", said(json_of(line))),
        Move::Hear(_) => "hear".to_owned(),
        Move::Open(_) => "open".to_owned(),
        Move::Watch(..) => "watch".to_owned(),
    };
    moves.iter().map(one).collect()
}

fn json_of(line: &[u8]) -> Value {
    serde_json::from_slice(line).unwrap()
}

/// What the agent is told first.
fn told(moves: &[Move]) -> Value {
    let line = moves.iter().find_map(|next| match next {
        Move::ToAgent(line) => Some(json_of(line)),
        _ => None,
    });
    line.unwrap()
}

/// Calls a tool and has the server ask one thing; gives what comes of it.
fn park(bridge: &mut ToLegacy, id: i64) -> Vec<Move> {
    let call = modern(id, "tools/call", json!({ "name": "t", "arguments": { "id": id } }));
    assert_eq!(done(&bridge.heard(&call).unwrap()), ["server: tools/call"]);
    bridge.said(question(id)).unwrap()
}

/// Comes back to a parked call with an answer to each question.
fn come_back(bridge: &mut ToLegacy, id: i64, parked: &Value) -> Vec<Move> {
    let asked = parked["result"]["inputRequests"].as_object().unwrap().keys();
    let replies: Value = asked.map(|key| (key.clone(), json!({ "action": "decline" }))).collect();
    let params = json!({
        "name": "t", "arguments": { "id": id }, "inputResponses": replies,
        "requestState": parked["result"]["requestState"],
    });
    bridge.heard(&modern(1_000_000 + id, "tools/call", params)).unwrap()
}

#[test]
fn so_many_messages_wait_for_a_handshake_and_none_of_them_is_lost() {
    let eras = Eras::new("coder".parse().unwrap(), "fs".parse().unwrap(), None);
    assert_eq!(done(&eras.heard(&modern(0, "tools/list", json!({}))).unwrap()), ["open"]);
    for id in 1..i64::try_from(HELD_MAX).unwrap() {
        assert!(eras.heard(&modern(id, "tools/list", json!({}))).unwrap().is_empty());
    }
    let more = eras.heard(&modern(999, "tools/list", json!({}))).unwrap();
    assert_eq!(done(&more), ["agent: overloaded"]);
    assert_eq!(eras.go(Way::Same).len(), HELD_MAX);
}

#[test]
fn a_modern_agent_has_so_many_requests_at_a_legacy_server() {
    let mut bridge = older();
    let ask = |bridge: &mut ToLegacy, id, method: &str, params| {
        done(&bridge.heard(&modern(id, method, params)).unwrap())
    };
    // What was cancelled does not count, whether the server answers it or not.
    for id in 0..i64::try_from(to_legacy::CALLS_MAX).unwrap() + 9 {
        assert_eq!(ask(&mut bridge, id, "prompts/list", json!({})), ["server: prompts/list"]);
        let moves = bridge.heard(&cancelled(id)).unwrap();
        assert_eq!(done(&moves), ["server: notifications/cancelled"]);
    }
    assert!(bridge.said(result(own_id(7), &json!({}))).unwrap().is_empty());

    let mut passed = 0;
    while ask(&mut bridge, passed, "prompts/list", json!({})) == ["server: prompts/list"] {
        passed += 1;
        assert!(passed < 99_999);
    }
    assert_eq!(usize::try_from(passed).unwrap(), to_legacy::CALLS_MAX);
    assert_eq!(ask(&mut bridge, -1, "tools/call", json!({})), ["agent: overloaded"]);
    let follow = json!({ "notifications": { "resourceSubscriptions": ["x://1", "x://2"] } });
    let listen = "subscriptions/listen";
    assert_eq!(ask(&mut bridge, -2, listen, follow.clone()), ["agent: overloaded"]);

    // One answer makes room for one more: nobody follows a second resource.
    let newest = own_id(u64::try_from(2 * to_legacy::CALLS_MAX + 9).unwrap());
    let last = bridge.said(result(newest, &json!({}))).unwrap();
    assert_eq!(done(&last), ["agent: result"]);
    assert_eq!(ask(&mut bridge, -3, listen, follow), ["server: resources/subscribe"]);
}

#[test]
fn a_legacy_agent_has_so_many_requests_at_a_modern_server() {
    let mut bridge = younger();
    let ask = |bridge: &mut ToModern, id, method: &str, params| {
        done(&bridge.heard(&legacy(id, method, params)).unwrap())
    };
    for id in 0..i64::try_from(to_modern::CALLS_MAX).unwrap() + 9 {
        assert_eq!(ask(&mut bridge, id, "prompts/list", json!({})), ["server: prompts/list"]);
        let moves = bridge.heard(&cancelled(id)).unwrap();
        assert_eq!(done(&moves), ["server: notifications/cancelled"]);
    }
    // A server that confirms no subscription; the agent follows the same thing again and again.
    let again = json!({ "uri": "x://1" });
    let mut passed = 0;
    while ask(&mut bridge, passed, "resources/subscribe", again.clone()) != ["agent: overloaded"] {
        passed += 1;
        assert!(passed < 99_999);
    }
    assert_eq!(usize::try_from(passed).unwrap(), to_modern::CALLS_MAX);
    assert_eq!(ask(&mut bridge, -1, "tools/call", json!({})), ["agent: overloaded"]);
    assert_eq!(ask(&mut bridge, -2, "ping", json!({})), ["agent: result"]);
    bridge.said(result(own_id(1), &json!({}))).unwrap();
    assert_eq!(ask(&mut bridge, -3, "tools/call", json!({})), ["server: tools/call"]);
}

#[test]
fn the_oldest_parked_call_makes_room() {
    let mut bridge = older();
    let most = i64::try_from(to_legacy::PARKED_MAX).unwrap();
    let mut parked = Vec::new();
    for id in 0..most {
        let moves = park(&mut bridge, id);
        assert_eq!(done(&moves), ["agent: result", "watch"]);
        parked.push(told(&moves));
    }
    let moves = park(&mut bridge, most);
    let expected = [
        "server: question_unanswered",
        "server: notifications/cancelled",
        "agent: result",
        "watch",
    ];
    assert_eq!(done(&moves), expected);
    // Its agent is told when it comes back; the others go on.
    let late = come_back(&mut bridge, 0, &parked[0]);
    assert_eq!(done(&late), ["agent: request_state_refused"]);
    for id in 1..most {
        let moves = come_back(&mut bridge, id, &parked[usize::try_from(id).unwrap()]);
        assert_eq!(done(&moves), ["server: result"], "{id}");
    }
}

#[test]
fn a_parked_call_expires() {
    let mut bridge = older();
    let moves = park(&mut bridge, 1);
    let parked = told(&moves);
    let Some(Move::Watch(call, round, patience)) = moves.last() else { panic!("no watch") };
    assert_eq!(*patience, to_legacy::PARKED_FOR);
    // The watch of another round, or of another call, ends nothing.
    assert!(bridge.expired(*call, round - 1).is_empty());
    assert!(bridge.expired(call + 1, *round).is_empty());
    let moves = bridge.expired(*call, *round);
    assert_eq!(done(&moves), ["server: question_unanswered", "server: notifications/cancelled"]);
    assert!(bridge.expired(*call, *round).is_empty());
    let late = come_back(&mut bridge, 1, &parked);
    assert_eq!(done(&late), ["agent: request_state_refused"]);
    // Nobody is told twice, nor is the call kept, once the server has ended it.
    assert!(bridge.said(result(own_id(*call), &json!({}))).unwrap().is_empty());
    let late = come_back(&mut bridge, 1, &parked);
    assert!(told(&late)["error"]["message"].as_str().unwrap().contains("does not wait"));

    // One that ended while it was parked is forgotten with its answer.
    let moves = park(&mut bridge, 2);
    let parked = told(&moves);
    let Some(Move::Watch(call, round, _)) = moves.last() else { panic!("no watch") };
    assert!(bridge.said(result(own_id(*call), &json!({}))).unwrap().is_empty());
    assert_eq!(done(&bridge.expired(*call, *round)), ["server: question_unanswered"]);
    let late = come_back(&mut bridge, 2, &parked);
    assert_eq!(done(&late), ["agent: request_state_refused"]);
}

#[tokio::test]
async fn somebody_looks_after_a_parked_call() {
    let dir = tempfile::tempdir().unwrap();
    let mut line = line(dir.path(), "sleep 60").await;
    let mut bridge = older();
    let moves = park(&mut bridge, 1);
    let Some(Move::Watch(call, round, _)) = moves.last() else { panic!("no watch") };
    line.door.eras.go(Way::ToLegacy(Box::new(bridge)));
    line.door.make(vec![Move::Watch(*call, *round, Duration::ZERO)]).await;
    let ended = [line.moves.recv().await.unwrap(), line.moves.recv().await.unwrap()];
    assert_eq!(done(&ended), ["server: question_unanswered", "server: notifications/cancelled"]);
    line.end().await;
}

#[test]
fn a_parked_call_keeps_so_many_questions_and_asks_them_all() {
    let mut bridge = older();
    let parked = told(&park(&mut bridge, 0));
    let most = i64::try_from(to_legacy::QUEUED_MAX).unwrap();
    for id in 1..=most {
        assert!(bridge.said(question(id)).unwrap().is_empty());
    }
    assert_eq!(done(&bridge.said(question(99)).unwrap()), ["server: overloaded"]);
    let moves = come_back(&mut bridge, 0, &parked);
    assert_eq!(done(&moves), ["server: result", "agent: result", "watch"]);
    let asked = told(&moves)["result"]["inputRequests"].as_object().unwrap().len();
    assert_eq!(asked, to_legacy::QUEUED_MAX);
}

#[test]
fn a_modern_agent_has_so_many_subscriptions_at_a_legacy_server() {
    let mut bridge = older();
    let most = i64::try_from(to_legacy::QUEUED_MAX).unwrap();
    let listen = |bridge: &mut ToLegacy, id| {
        let follow = json!({ "notifications": { "toolsListChanged": true } });
        done(&bridge.heard(&modern(id, "subscriptions/listen", follow)).unwrap())
    };
    for id in 0..most {
        let acknowledged = "agent: notifications/subscriptions/acknowledged";
        assert_eq!(listen(&mut bridge, id), [acknowledged]);
    }
    assert_eq!(listen(&mut bridge, most), ["agent: parameters_invalid"]);
    assert!(bridge.heard(&cancelled(0)).unwrap().is_empty());
    assert_ne!(listen(&mut bridge, most), ["agent: parameters_invalid"]);
}

#[test]
fn a_modern_server_asks_for_so_many_rounds() {
    let mut bridge = younger();
    let call = legacy(1, "tools/call", json!({ "name": "t" }));
    assert_eq!(done(&bridge.heard(&call).unwrap()), ["server: tools/call"]);
    let again = json!({ "resultType": "input_required", "requestState": "s" });
    let mut id = RpcId::Number(1);
    for round in 1..=u64::from(to_modern::ROUNDS_MAX) {
        assert_eq!(done(&bridge.said(result(id, &again)).unwrap()), ["server: tools/call"]);
        id = own_id(round);
    }
    let moves = bridge.said(result(id, &again)).unwrap();
    assert_eq!(done(&moves), ["agent: upstream_invalid"]);
    assert_eq!(told(&moves)["id"], 1);
}

#[test]
fn a_legacy_agent_follows_so_many_resources() {
    let mut bridge = younger();
    let follow = |bridge: &mut ToModern, number: u64, what: &str| {
        let params = json!({ "uri": format!("x://{number}") });
        let id = i64::try_from(number).unwrap();
        done(&bridge.heard(&legacy(id, &format!("resources/{what}"), params)).unwrap())
    };
    let most = u64::try_from(to_modern::FOLLOWED_MAX).unwrap();
    for number in 1..=most {
        let asked = follow(&mut bridge, number, "subscribe");
        assert_eq!(asked, ["server: subscriptions/listen"]);
        let whose = json!({ "_meta": { META_SUBSCRIPTION: own_id(number).to_value() } });
        let note = RpcNotification::new("notifications/subscriptions/acknowledged", whose);
        let confirmed = bridge.said(Message::Notification(note)).unwrap();
        assert_eq!(done(&confirmed), ["agent: result"]);
    }
    assert_eq!(follow(&mut bridge, most + 1, "subscribe"), ["agent: parameters_invalid"]);
    let ended = follow(&mut bridge, 7, "unsubscribe");
    assert_eq!(ended, ["agent: result", "server: notifications/cancelled"]);
    let asked = follow(&mut bridge, most + 1, "subscribe");
    assert_eq!(asked, ["server: subscriptions/listen"]);
}
