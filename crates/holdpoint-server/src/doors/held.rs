//! What an agent is told about a call that waits for people: never to wait with it. A modern
//! client that can ask its user gets `input_required` (2026-07-28) and comes back when the user
//! says so; everybody else gets an error with the approval's id. Must never take what comes back
//! for a yes: only the store knows what people said.

use crate::governor::Refusal;
use holdpoint_resources::mcp::era::{self, Era, META_CLIENT_CAPABILITIES, RESULT_INPUT_REQUIRED};
use holdpoint_resources::mcp::{Identity, RpcRequest};
use holdpoint_types::{ApprovalAsked, PreviewFacts};
use serde_json::{Map, Value, json};

/// Where a result carries the approval for programs.
const APPROVAL_KEY: &str = "io.holdpoint/approval";
/// How our states begin. They hold nothing that we did not know: the same call finds its approval.
const STATE: &str = "holdpoint-approval:";
/// The key of the one question that we ask.
const QUESTION: &str = "approval";

/// Who is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// What it speaks.
    pub(super) era: Era,
    /// True if it says that it can ask its user something.
    asks_its_user: bool,
}

// === impl Client ===

impl Client {
    /// Who sent `request` in `era`.
    pub(super) fn of(era: Era, request: &RpcRequest) -> Self {
        let declared = request.meta().and_then(|meta| meta.get(META_CLIENT_CAPABILITIES));
        let elicits =
            declared.and_then(|able| able.get("elicitation")).is_some_and(Value::is_object);
        Self { era, asks_its_user: era == Era::Modern && elicits }
    }

    /// The result for a held call, if the client comes back by itself.
    pub(super) fn result(self, text: &str, refusal: &Refusal) -> Option<Map<String, Value>> {
        let asked = refusal.approval.as_ref().filter(|_| self.asks_its_user)?;
        let schema = json!({ "type": "object", "properties": {} });
        let params = json!({ "mode": "form", "message": text, "requestedSchema": schema });
        let question = json!({ QUESTION: { "method": "elicitation/create", "params": params } });
        let mut result = Map::new();
        result.insert("resultType".into(), RESULT_INPUT_REQUIRED.into());
        result.insert("inputRequests".into(), question);
        result.insert("requestState".into(), format!("{STATE}{}", asked.id).into());
        result.insert("_meta".into(), json!({ APPROVAL_KEY: to_json(refusal) }));
        Some(result)
    }
}

/// Takes what only comes back from our own question out of `request`; nobody else should see it.
pub(super) fn strip(request: &mut RpcRequest) {
    if !is_ours(request) {
        return;
    }
    if let Some(params) = request.params.as_mut().and_then(Value::as_object_mut) {
        params.remove("requestState");
        params.remove("inputResponses");
    }
}

/// True if `request` comes back from our own question.
pub(super) fn is_ours(request: &RpcRequest) -> bool {
    let state = request.param("requestState").and_then(Value::as_str);
    state.is_some_and(|state| state.starts_with(STATE))
}

/// The approval that a held call waits for, for programs.
pub(super) fn to_json(refusal: &Refusal) -> Value {
    let Some(ApprovalAsked { id, needs, expires_ms, instead_of, .. }) = refusal.approval.as_deref()
    else {
        return Value::Null;
    };
    let mut told = json!({
        "id": id,
        "needs": needs,
        "expiresMs": expires_ms,
        "retry": "the same call with the same arguments",
        "preview": refusal.preview,
    });
    if let Some(before) = instead_of {
        told["insteadOf"] = json!(before);
    }
    told
}

/// What a preview says, in one line.
pub(super) fn told(preview: &PreviewFacts) -> String {
    let counts = preview.counts;
    let exact = if preview.exact { "exactly" } else { "at least" };
    let mut text = format!(
        "It would make {}, change {} and delete {} ({exact}); it could be taken back: {}.",
        counts.created,
        counts.updated,
        counts.deleted,
        preview.guarantee.as_str(),
    );
    for note in &preview.notes {
        text.push_str(&format!(" Note: {note}."));
    }
    text
}

/// The result for a client of this era.
pub(super) fn finished(client: Client, result: Map<String, Value>) -> Value {
    era::result_for(client.era, result, &Identity::holdpoint())
}
