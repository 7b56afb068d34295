//! Hostile and broken stdio servers: what their callers are told, and what remains of their
//! processes.

use crate::peer::{call, call_with, limits, said, upstream};
use crate::process::{appears, mark, named, until};
use expect_test::expect;
use holdpoint_resources::{Cancels, Ended, Upstream, UpstreamSpec};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn broken_answers_leave_the_call_in_doubt() {
    let mut all = String::new();
    for name in ["result-list", "flag-text", "old-rpc", "huge", "not-utf8", "cut-off", "batch"] {
        let peer = upstream("modern");
        all += &format!("{name}: {}\n", said(&call(&peer, name, json!({})).await));
    }
    expect![[r#"
        result-list: in doubt, upstream_invalid: the result is no object, or `isError` no boolean
        flag-text: in doubt, upstream_invalid: the result is no object, or `isError` no boolean
        old-rpc: in doubt, upstream_invalid: not a JSON-RPC 2.0 message: `jsonrpc` must be "2.0"
        huge: in doubt, upstream_invalid: a message longer than 262144 bytes
        not-utf8: in doubt, upstream_invalid: the message is not UTF-8 (first bad byte at 23)
        cut-off: in doubt, upstream_invalid: the message is not JSON: EOF while parsing a string at line 1 column 29
        batch: in doubt, upstream_invalid: batches are not accepted; send one message at a time
    "#]]
    .assert_eq(&all);
}

#[tokio::test]
async fn a_flood_ends() {
    let ended = call(&upstream("legacy"), "flood", json!({})).await;
    expect!["in doubt, upstream_invalid: more than 1048576 bytes without an answer"]
        .assert_eq(&said(&ended));
}

#[tokio::test]
async fn a_dead_server_is_started_again() {
    let peer = upstream("modern");
    for _ in 0..2 {
        let ended = call(&peer, "die", json!({})).await;
        expect!["in doubt, upstream_unavailable: the server ended: exit status: 3"]
            .assert_eq(&said(&ended));
    }
    assert!(matches!(call(&peer, "echo", json!({})).await, Ended::Answered { .. }));
}

#[tokio::test]
async fn a_server_that_cannot_start_is_left_alone_for_a_while() {
    let peer = upstream("instant-death");
    let mut last = String::new();
    for _ in 0..8 {
        let ended = call(&peer, "echo", json!({})).await;
        assert!(matches!(ended, Ended::NotSent { .. }), "{ended:?}");
        last = said(&ended);
    }
    assert!(last.starts_with("not sent, upstream_unavailable: restarts in "), "{last}");
}

#[tokio::test]
async fn answers_reach_only_who_asked() {
    let peer = upstream("modern");
    let mut all = String::new();
    for name in ["twice", "echo", "wrong-id", "tool-error"] {
        all += &format!("{name}: {}\n", said(&call(&peer, name, json!({})).await));
    }
    assert!(
        all.starts_with("twice: answered false: {\"n\":1}\necho: answered false: {\"content\"")
    );
    assert!(all.contains("wrong-id: answered false: {\"n\":\"right\"}\ntool-error: answered true"));
}

#[tokio::test]
async fn a_silent_server_times_out_and_lives() {
    let mut spec = upstream("modern").spec().clone();
    spec.timeout = Duration::from_secs(2);
    let peer = Upstream::new(spec);
    // Starting is not part of what is timed here.
    peer.era().await.unwrap();
    let ended = call(&peer, "hang", json!({})).await;
    expect!["in doubt, upstream_timeout: no answer in time; the server was told to cancel"]
        .assert_eq(&said(&ended));
    assert!(matches!(call(&peer, "echo", json!({})).await, Ended::Answered { .. }));
}

/// Starts a call, waits until it is under way, stops it, and says how it ended.
async fn cancelled(peer: &Upstream, name: &str, by_stop: bool) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let (cancels, parameters) = (Cancels::default(), json!({ "file": file }));
    let call = call_with(peer, name, parameters, cancels.clone());
    let cancel = async {
        appears(&file).await;
        if by_stop { cancels.stop.cancel() } else { cancels.agent.cancel() }
    };
    said(&futures::join!(call, cancel).0)
}

#[tokio::test]
async fn a_stop_ends_every_call_somehow() {
    let mut all = String::new();
    for name in ["yield", "finish", "hang"] {
        let peer = upstream("modern");
        all += &format!("{name}: {}\n", cancelled(&peer, name, true).await);
    }
    expect![[r#"
        yield: in doubt, cancelled_by_stop: the server ended the cancelled call with an error
        finish: answered false: {"content":[],"n":"finished"}
        hang: in doubt, cancelled_by_stop: the server did not end the call in time; its processes were killed
    "#]]
    .assert_eq(&all);
}

#[tokio::test]
async fn an_agent_may_cancel_but_not_kill() {
    let peer = upstream("modern");
    expect!["in doubt, cancelled_by_agent: the server was told to cancel and said nothing more"]
        .assert_eq(&cancelled(&peer, "hang", false).await);
    // The same process answers: it was not killed, so nothing had to be started again.
    peer.tools_changed();
    assert!(matches!(call(&peer, "echo", json!({})).await, Ended::Answered { .. }));
    assert!(!peer.tools_changed());
}

#[tokio::test]
async fn so_many_calls_wait_for_one_process() {
    let mut spec = upstream("modern").spec().clone();
    spec.limits.calls_pending_max = 2;
    let (peer, folder) = (Upstream::new(spec), tempfile::tempdir().unwrap());
    let mut waiting = Vec::new();
    for name in ["one", "two"] {
        let file = folder.path().join(name);
        let (peer, parameters) = (peer.clone(), json!({ "file": file }));
        waiting.push(tokio::spawn(async move { call(&peer, "hang", parameters).await }));
        appears(&file).await;
    }
    expect!["not sent, upstream_unavailable: too many calls wait for this server"]
        .assert_eq(&said(&call(&peer, "echo", json!({})).await));
    for one in waiting {
        one.abort();
        assert!(one.await.unwrap_err().is_cancelled());
    }
    assert!(matches!(call(&peer, "echo", json!({})).await, Ended::Answered { .. }));
}

#[tokio::test]
async fn whoever_walks_away_cancels() {
    let (peer, folder) = (upstream("modern"), tempfile::tempdir().unwrap());
    let file = folder.path().join("file");
    tokio::select! {
        ended = call(&peer, "hang", json!({ "file": file })) => panic!("{ended:?}"),
        () = appears(&file) => {}
    }
    let answered = said(&call(&peer, "cancellations", json!({})).await);
    assert_eq!(answered, r#"answered false: {"n":1}"#);
}

#[tokio::test]
async fn a_stop_before_the_call_sends_nothing() {
    let cancels = Cancels::default();
    cancels.stop.cancel();
    let ended = call_with(&upstream("modern"), "echo", json!({}), cancels).await;
    expect!["not sent, cancelled_by_stop: the server was starting"].assert_eq(&said(&ended));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_stop_kills_daemons_too() {
    let (mark, folder) = (mark(11), tempfile::tempdir().unwrap());
    let file = folder.path().join("file");
    let (peer, cancels) = (upstream("legacy"), Cancels::default());
    let call = call_with(&peer, "fork", json!({"mark": mark, "file": file}), cancels.clone());
    let stop = async {
        appears(&file).await;
        until(|| named(&mark).len() >= 3).await;
        cancels.stop.cancel();
        Instant::now()
    };
    let (ended, since) = futures::join!(call, stop);
    assert!(said(&ended).contains("its processes were killed"), "{ended:?}");
    assert_eq!(named(&mark), Vec::<u32>::new());
    assert!(since.elapsed() < limits().grace + Duration::from_secs(5));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_dropped_upstream_leaves_nothing_behind() {
    let (mark, folder) = (mark(12), tempfile::tempdir().unwrap());
    let file = folder.path().join("file");
    let spec =
        UpstreamSpec { timeout: Duration::from_secs(60), ..upstream("modern").spec().clone() };
    let peer = Upstream::new(spec);
    let parameters = json!({"mark": mark, "file": file});
    let work = tokio::spawn(async move {
        call(&peer, "fork", parameters).await;
    });
    until(|| named(&mark).len() >= 3).await;
    work.abort();
    assert!(work.await.unwrap_err().is_cancelled());
    until(|| named(&mark).is_empty()).await;
}
