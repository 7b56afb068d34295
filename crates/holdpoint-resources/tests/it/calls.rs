//! Calls on a well-behaved stdio server of either era.

use crate::peer::{ODD, call, limits, said, spec, tool, upstream};
use crate::permits::{NOW, approved, permit};
use expect_test::expect;
use holdpoint_resources::mcp::Era;
use holdpoint_resources::{
    Cancels, Ended, ToolCall, Transport, Upstream, UpstreamFault, UpstreamSpec,
};
use holdpoint_types::{Reason, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn the_era_is_found_out() {
    let cases = [
        ("modern", Era::Modern),
        ("legacy", Era::Legacy),
        ("touchy-legacy", Era::Legacy),
        ("greeting", Era::Modern),
    ];
    for (role, era) in cases {
        assert_eq!(upstream(role).era().await, Ok(era), "{role}");
    }
    let mut limits = limits();
    limits.probe_timeout = Duration::from_millis(200);
    let mute = Upstream::new(UpstreamSpec { limits, ..upstream("mute-legacy").spec().clone() });
    assert_eq!(mute.era().await, Ok(Era::Legacy));
    let future = upstream("future").era().await.unwrap_err();
    expect!["the server speaks no MCP revision that Holdpoint speaks"]
        .assert_eq(&future.to_string());
}

#[tokio::test]
async fn results_come_back_byte_for_byte() {
    for role in ["modern", "legacy"] {
        let ended = call(&upstream(role), "odd", json!({})).await;
        let Ended::Answered { body, tool_error: false } = ended else { panic!("{ended:?}") };
        assert_eq!(body.raw().get(), ODD);
    }
}

#[tokio::test]
async fn a_call_after_an_approval_carries_no_metadata_that_nobody_approved() {
    let parameters = json!({});
    for role in ["modern", "legacy"] {
        for (approval, shown) in [(false, true), (true, false)] {
            let tool = tool("echo");
            let permit =
                if approval { approved(&tool, &parameters) } else { permit(&tool, &parameters) };
            let mut call = ToolCall::new(tool, parameters.clone());
            call.meta =
                Some(json!({ "traceparent": "00-1-2-01", "example.com/tenant": "another" }));
            call.more.insert("dryRun".to_owned(), "another".into());
            let sent = said(&upstream(role).call(permit, call, NOW, Cancels::default()).await);
            assert!(sent.contains("00-1-2-01"), "{role}: {sent}");
            assert_eq!(sent.contains("another"), shown, "{role}: {sent}");
        }
    }
}

#[tokio::test]
async fn a_call_carries_what_it_should_and_no_more() {
    let parameters = json!({"z": 1.0, "a": [null, "é"]});
    let meta = json!({
        "progressToken": 1, "traceparent": "00-1-2-01", "io.holdpoint/task": "t",
        "io.modelcontextprotocol/clientInfo": {"name": "agent"},
    });
    let send = async |role: &str| {
        let tool = tool("echo");
        let permit = permit(&tool, &parameters);
        let mut call = ToolCall::new(tool, parameters.clone());
        call.meta = Some(meta.clone());
        said(&upstream(role).call(permit, call, NOW, Cancels::default()).await)
    };
    expect![[r#"answered false: {"content":[],"params":{"name":"echo","arguments":{"z":1.0,"a":[null,"é"]},"_meta":{"traceparent":"00-1-2-01"}}}"#]]
        .assert_eq(&send("legacy").await);
    expect![[r#"answered false: {"content":[],"params":{"name":"echo","arguments":{"z":1.0,"a":[null,"é"]},"_meta":{"traceparent":"00-1-2-01","io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"holdpoint","version":"0.1.0"},"io.modelcontextprotocol/clientCapabilities":{}}}}"#]]
        .assert_eq(&send("modern").await);
}

#[tokio::test]
async fn errors_and_unfinished_results_are_answers() {
    let peer = upstream("modern");
    let mut all = String::new();
    let names = ["tool-error", "rpc-error", "input", "ask", "changed", "verbose-nulls"];
    for name in names {
        all += &format!("{name}: {}\n", said(&call(&peer, name, json!({})).await));
    }
    expect![[r#"
        tool-error: answered true: {"content":[],"isError":true}
        rpc-error: answered true: {"code":-32602,"message":"no","data":{"x":1}}
        input: answered false: {"resultType":"input_required","inputRequests":{}}
        ask: answered false: {"content":[],"code":-32601}
        changed: answered false: {}
        verbose-nulls: answered false: {}
    "#]]
    .assert_eq(&all);
}

#[tokio::test]
async fn changed_tools_are_noticed_once() {
    let peer = upstream("legacy");
    assert!(!peer.tools_changed());
    call(&peer, "echo", json!({})).await;
    assert!(peer.tools_changed(), "a fresh server may offer anything");
    assert!(!peer.tools_changed());
    call(&peer, "changed", json!({})).await;
    assert!(peer.tools_changed());
}

#[tokio::test]
async fn a_permit_lets_through_only_what_it_is_for() {
    let peer = upstream("modern");
    let (right, other) = (json!({"path": "/a"}), json!({"path": "/b"}));
    let call = |name: &str, parameters: &Value| ToolCall::new(tool(name), parameters.clone());
    let late = Timestamp(NOW.0 + 3_600_000);
    let cases =
        [(call("echo", &other), NOW), (call("odd", &right), NOW), (call("echo", &right), late)];
    for (call, now) in cases {
        let permit = permit(&tool("echo"), &right);
        let ended = peer.call(permit, call, now, Cancels::default()).await;
        let Ended::NotSent { reason: Reason::CouldNotDecide, .. } = ended else {
            panic!("{ended:?}")
        };
    }
}

#[tokio::test]
async fn a_tool_of_another_server_is_not_called() {
    let stranger = holdpoint_types::ToolRef::new("other".parse().unwrap(), "echo").unwrap();
    let permit = permit(&stranger, &json!({}));
    let call = ToolCall::new(stranger, json!({}));
    let ended = upstream("modern").call(permit, call, NOW, Cancels::default()).await;
    expect!["not sent, tool_unknown: `other__echo` is no tool of `peer`"].assert_eq(&said(&ended));
}

#[tokio::test]
async fn all_pages_of_tools_are_read_within_bounds() {
    let tools = upstream("legacy").list_tools().await.unwrap();
    let texts: Vec<String> = tools.iter().map(Value::to_string).collect();
    expect![[r#"
        {"name":"t0","inputSchema":{"type":"object"},"x-new":1.5}
        {"name":"t1","inputSchema":{"type":"object"},"x-new":1.5}
        {"name":"t2","inputSchema":{"type":"object"},"x-new":1.5}"#]]
    .assert_eq(&texts.join("\n"));
    let mut all = String::new();
    for role in ["loops", "endless", "crowd"] {
        let fault = upstream(role).list_tools().await.unwrap_err();
        assert!(matches!(fault, UpstreamFault::Invalid(_)), "{role}");
        all += &format!("{role}: {fault}\n");
    }
    expect![[r#"
        loops: a cursor of `tools/list` came twice
        endless: more than 100 pages of tools
        crowd: more than 10000 tools
    "#]]
    .assert_eq(&all);
}

#[tokio::test]
async fn many_calls_share_one_server() {
    let peer = upstream("modern");
    let calls = (0..100).map(|n| {
        let peer = peer.clone();
        tokio::spawn(async move { (n, call(&peer, "echo", json!({ "n": n })).await) })
    });
    for done in futures::future::join_all(calls).await {
        let (n, ended) = done.unwrap();
        assert!(said(&ended).contains(&format!(r#""arguments":{{"n":{n}}}"#)), "{n}: {ended:?}");
    }
}

/// Runs [`environment_inside`] with variables that a child may or may not see.
#[test]
fn the_environment_is_minimal_unless_inherited() {
    let mut inside = std::process::Command::new(std::env::current_exe().unwrap());
    inside.args(["--exact", "calls::environment_inside", "--ignored"]);
    inside.env("OUTSIDE", "seen").env("HOLDPOINT_KEY", "never seen");
    let output = inside.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
#[ignore = "another test starts it in an environment of its own"]
async fn environment_inside() {
    for inherit_env in [false, true] {
        let process = holdpoint_resources::ProcessSpec { inherit_env, ..spec("modern") };
        let transport = Transport::Stdio(process);
        let peer = Upstream::new(UpstreamSpec { transport, ..upstream("modern").spec().clone() });
        let said = said(&call(&peer, "environment", json!({})).await);
        assert!(said.contains("PEER_ROLE") && said.contains("PATH"), "{said}");
        assert_eq!(said.contains("OUTSIDE"), inherit_env, "{said}");
        assert!(!said.contains("HOLDPOINT_KEY"), "{said}");
    }
}

#[tokio::test]
async fn a_closed_server_takes_no_calls() {
    let peer = upstream("modern");
    call(&peer, "echo", json!({})).await;
    peer.close().await;
    let ended = call(&peer, "echo", json!({})).await;
    expect!["not sent, upstream_unavailable: the server is closed"].assert_eq(&said(&ended));
}
