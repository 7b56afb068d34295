//! Messages that pass through to a wrapped server and back.

use crate::peer::{ODD, spec, tool};
use crate::permits::{NOW, approved, permit};
use expect_test::expect;
use holdpoint_resources::mcp::{Message, RpcId, RpcRequest};
use holdpoint_resources::{Passage, PassageReceiver, PassageSender, Received, SendFault};
use holdpoint_types::JsonLimits;
use serde_json::{Value, json};
use std::time::Duration;

fn passage() -> (PassageSender, PassageReceiver) {
    Passage::spawn(&spec("legacy"), 64 << 10).unwrap()
}

fn message(text: &str) -> Message {
    Message::from_agent(text.as_bytes(), JsonLimits::default()).unwrap()
}

fn call(name: &str, params: Value) -> RpcRequest {
    let mut params = params;
    params["name"] = name.into();
    RpcRequest::new(RpcId::Number(7), "tools/call", params)
}

fn heard(received: Received) -> String {
    match received {
        Received::Message { line, .. } => String::from_utf8(line.to_vec()).unwrap(),
        Received::Injected { request, outcome } => format!("{request:?}: {}", outcome.raw()),
        Received::Invalid { line, fault } => format!("{fault}: {line:?}"),
        Received::End => "end".to_owned(),
    }
}

#[tokio::test]
async fn bytes_pass_unchanged() {
    let (to, mut from) = passage();
    to.send_ungoverned(&message(r#"{"jsonrpc":"2.0","id":"a","method":"initialize"}"#))
        .await
        .unwrap();
    expect![[r#"{"jsonrpc":"2.0","id":"a","result":{"capabilities":{"tools":{}},"protocolVersion":"2025-06-18","serverInfo":{"name":"peer","version":"1"}}}"#]]
        .assert_eq(&sorted(&heard(from.receive().await)));
    let (name, arguments) = (tool("odd"), json!({}));
    to.send_call(permit(&name, &arguments), &name, &call("odd", json!({})), NOW).await.unwrap();
    let expected = format!(r#"{{"jsonrpc":"2.0","id":7,"result":{ODD}}}"#);
    assert_eq!(heard(from.receive().await), expected);
    from.kill_tree(Duration::from_millis(100)).await;
    assert!(matches!(from.receive().await, Received::End));
}

fn sorted(line: &str) -> String {
    let canonical = |value: &Value| {
        String::from_utf8(holdpoint_types::canonical_bytes(value).unwrap()).unwrap()
    };
    let value: Value = serde_json::from_str(line).unwrap();
    format!(r#"{{"jsonrpc":"2.0","id":{},"result":{}}}"#, value["id"], canonical(&value["result"]))
}

#[tokio::test]
async fn a_call_needs_its_permit() {
    let (to, _from) = passage();
    let disguised =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools\/c\u0061ll","params":{"name":"echo"}}"#;
    let ungoverned = to.send_ungoverned(&message(disguised)).await;
    assert!(matches!(ungoverned, Err(SendFault::NeedsPermit)));
    assert!(matches!(to.inject("tools/call", json!({})).await, Err(SendFault::NeedsPermit)));
    let echo = tool("echo");
    let permitted = || permit(&echo, &json!({"a": 1}));
    let asked = call("echo", json!({"arguments": {"a": 2}}));
    assert!(matches!(
        to.send_call(permitted(), &echo, &asked, NOW).await,
        Err(SendFault::Permit(_))
    ));
    let asked = call("other", json!({"arguments": {"a": 1}}));
    let other = to.send_call(permitted(), &echo, &asked, NOW).await.unwrap_err();
    assert!(matches!(other, SendFault::OtherMessage(_)) && !other.may_have_arrived());
    let mut asked = call("echo", json!({"arguments": {"a": 1}}));
    asked.id = RpcId::Text("holdpoint-0".to_owned());
    assert!(matches!(
        to.send_call(permitted(), &echo, &asked, NOW).await,
        Err(SendFault::ReservedId(_))
    ));
}

#[tokio::test]
async fn the_agents_own_metadata_passes_but_not_holdpoints() {
    let (to, mut from) = passage();
    let params =
        json!({"arguments": {"a": 1}, "_meta": {"progressToken": 5, "io.holdpoint/task": "t"}});
    let echo = tool("echo");
    let permit = permit(&echo, &json!({"a": 1}));
    to.send_call(permit, &echo, &call("echo", params), NOW).await.unwrap();
    expect![[r#"{"jsonrpc":"2.0","id":7,"result":{"content":[],"params":{"arguments":{"a":1},"_meta":{"progressToken":5},"name":"echo"}}}"#]]
        .assert_eq(&heard(from.receive().await));
}

#[tokio::test]
async fn our_own_requests_stay_ours() {
    let (to, mut from) = passage();
    let first = to.inject("tools/list", json!({})).await.unwrap();
    let second = to.inject("unknown/nothing", json!({})).await;
    assert_ne!(first, second.unwrap());
    let Received::Injected { request, outcome } = from.receive().await else { panic!() };
    assert_eq!(request, first);
    assert!(outcome.raw().get().starts_with(r#"{"tools":[{"name":"t0""#));
    let forged = r#"{"jsonrpc":"2.0","id":"holdpoint-1","method":"tools/list"}"#;
    let refused = to.send_ungoverned(&message(forged)).await;
    assert!(matches!(refused, Err(SendFault::ReservedId(_))));
}

#[tokio::test]
async fn broken_lines_are_reported_and_the_rest_still_comes() {
    let (to, mut from) = passage();
    for name in ["huge", "not-utf8", "echo"] {
        let name = tool(name);
        let permit = permit(&name, &json!({}));
        to.send_call(permit, &name, &call(name.name(), json!({})), NOW).await.unwrap();
    }
    expect![[r#"the message has 65537 bytes; the limit is 65536: b"""#]]
        .assert_eq(&heard(from.receive().await));
    expect![[r#"the message is not UTF-8 (first bad byte at 23): b"{\"jsonrpc\":\"2.0\",\"id\":\"\xff\"}""#]]
        .assert_eq(&heard(from.receive().await));
    assert!(heard(from.receive().await).contains(r#""id":7,"result""#));
}

#[tokio::test]
async fn a_gone_child_takes_nothing() {
    let (to, mut from) = passage();
    let die = tool("die");
    to.send_call(permit(&die, &json!({})), &die, &call("die", json!({})), NOW).await.unwrap();
    assert!(matches!(from.receive().await, Received::End));
    assert_eq!(from.wait().await.unwrap().code(), Some(3));
    let list = message(r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#);
    // The first write may still be the one that finds out.
    let _ = to.send_ungoverned(&list).await;
    let fault = to.send_ungoverned(&list).await.unwrap_err();
    assert!(matches!(fault, SendFault::Closed) && !fault.may_have_arrived());
}

#[tokio::test]
async fn a_child_whose_input_closes_may_end_by_itself() {
    let (to, mut from) = passage();
    drop(to);
    from.close(Duration::from_secs(20)).await;
    assert!(from.wait().await.unwrap().success());
}

#[tokio::test]
async fn metadata_that_nobody_approved_is_not_sent_after_an_approval() {
    let (to, mut from) = passage();
    let arguments = json!({ "a": 1 });
    let meta = json!({
        "progressToken": 5, "traceparent": "00-1-2-01", "example.com/tenant": "another",
    });
    let echo = tool("echo");
    let request = call("echo", json!({ "arguments": arguments, "_meta": meta }));
    for (permit, sent) in [
        (permit(&echo, &arguments), meta.clone()),
        (approved(&echo, &arguments), json!({ "progressToken": 5, "traceparent": "00-1-2-01" })),
    ] {
        to.send_call(permit, &echo, &request, NOW).await.unwrap();
        let heard: Value = serde_json::from_str(&heard(from.receive().await)).unwrap();
        assert_eq!(heard["result"]["params"]["_meta"], sent);
    }
}
