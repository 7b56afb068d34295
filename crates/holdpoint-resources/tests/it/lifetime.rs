//! How long a permit is good, wherever one is consumed.

use crate::peer::{spec, tool, upstream};
use crate::permits::{NOW, permit};
use crate::resources::nowhere;
use crate::sqlite::Stage;
use holdpoint_resources::mcp::{RpcId, RpcRequest};
use holdpoint_resources::resource::{Proposed, Resource as _};
use holdpoint_resources::{Cancels, Ended, Passage, SendFault, ToolCall};
use holdpoint_types::{Reason, Timestamp, ToolRef, canonical_digest};
use serde_json::json;

/// So long after it was minted.
fn after(ms: i64) -> Timestamp {
    Timestamp(NOW.0 + ms)
}

fn is_refused(ended: &Ended) -> bool {
    match ended {
        Ended::NotSent { reason: Reason::CouldNotDecide, detail } => detail == EXPIRED,
        Ended::Answered { tool_error: false, .. } => false,
        other => panic!("{other:?}"),
    }
}

const EXPIRED: &str = "the permit expired";

#[test]
fn a_permit_ends_thirty_seconds_after_it_was_minted() {
    let (tool, parameters) = (tool("echo"), json!({ "a": 1 }));
    let digest = canonical_digest(&parameters).unwrap();
    let permit = permit(&tool, &parameters);
    assert_eq!(permit.check(&tool, digest, after(29_999)), Ok(()));
    let late = permit.check(&tool, digest, after(30_000)).unwrap_err();
    assert_eq!(late.to_string(), EXPIRED);
}

#[tokio::test]
async fn nobody_executes_by_a_permit_that_is_older_than_thirty_seconds() {
    let sql = "INSERT INTO t VALUES (1)";
    for (age, late) in [(20_000, false), (30_000, true)] {
        let (name, parameters) = (tool("echo"), json!({}));
        let asked = ToolCall::new(name.clone(), parameters.clone());
        let server = upstream("modern");
        let ended =
            server.call(permit(&name, &parameters), asked, after(age), Cancels::default()).await;
        assert_eq!(is_refused(&ended), late, "a server of `serve`: {ended:?}");

        let (to, from) = Passage::spawn(&spec("legacy"), 64 << 10).unwrap();
        let params = json!({ "name": "echo", "arguments": {} });
        let asked = RpcRequest::new(RpcId::Number(7), "tools/call", params);
        let sent = to.send_call(permit(&name, &parameters), &name, &asked, after(age)).await;
        assert_eq!(matches!(sent, Err(SendFault::Permit(_))), late, "one of `wrap`: {sent:?}");
        drop((to, from));

        let stage = Stage::new("CREATE TABLE t (id INTEGER PRIMARY KEY)");
        let (name, parameters): (ToolRef, _) =
            ("orders__sql_execute".parse().unwrap(), json!({ "sql": sql }));
        let proposed =
            Proposed { tool: &name, parameters: &parameters, effects: &[], now: after(age) };
        let (_, prepared) = stage.sqlite.preview(proposed).await.unwrap().unwrap();
        let around = (Cancels::default(), nowhere());
        let done = stage.sqlite.execute(permit(&name, &parameters), prepared, around).await;
        assert_eq!(is_refused(&done.ended), late, "what is served: {:?}", done.ended);
        assert_eq!(stage.rows("SELECT id FROM t").is_empty(), late);
    }
}
