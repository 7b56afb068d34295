//! How resources take a permit, and how those answer that serve their tools themselves.
//!
//! Owns the one check of a permit before an effect that no server causes. Must never let a permit
//! for one call pass for another.

use crate::mcp::Outcome;
use crate::program::ProgramFault;
use crate::resource::{Executed, Proposed, ResourceFault};
use crate::upstream::{Cancels, Ended};
use holdpoint_control::Permit;
use holdpoint_types::{Digest, Reason, Timestamp, ToolRef, canonical_digest};
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use tokio::time::Instant;

/// For what a permit must have been minted.
#[derive(Clone, Debug)]
pub(crate) struct Clearance {
    /// The call; absent for a revert, which its own tool names.
    call: Option<(ToolRef, Digest)>,
    /// The time when it was prepared, by either clock.
    prepared: (Timestamp, Instant),
}

// === impl Clearance ===

impl Clearance {
    /// For exactly this call.
    pub(crate) fn call(proposed: Proposed<'_>) -> Result<Self, ResourceFault> {
        let digest = canonical_digest(proposed.parameters)
            .map_err(|fault| ResourceFault::Invalid(fault.to_string()))?;
        let call = Some((proposed.tool.clone(), digest));
        Ok(Self { call, prepared: (proposed.now, Instant::now()) })
    }

    /// For taking something back: any permit that has not expired. Whoever mints it binds it to
    /// what is taken back.
    pub(crate) fn revert(now: Timestamp) -> Self {
        Self { call: None, prepared: (now, Instant::now()) }
    }

    /// The time, by the clock of who prepared it.
    pub(crate) fn now(&self) -> Timestamp {
        let (now, since) = self.prepared;
        let elapsed = i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp(now.0.saturating_add(elapsed))
    }

    /// Consumes the permit; what it is not for is not executed.
    pub(crate) fn consume(&self, permit: Permit) -> Result<(), Ended> {
        self.check(&permit)
    }

    /// Checks a permit that somebody else will consume.
    pub(crate) fn check(&self, permit: &Permit) -> Result<(), Ended> {
        let own = (permit.tool().clone(), permit.parameters());
        let (tool, parameters) = self.call.as_ref().unwrap_or(&own);
        permit
            .check(tool, *parameters, self.now())
            .map_err(|fault| not_sent(Reason::CouldNotDecide, fault.to_string()))
    }

    /// The same; what was cancelled before is not executed either.
    pub(crate) fn begin(&self, permit: Permit, cancels: &Cancels) -> Result<(), Ended> {
        self.consume(permit)?;
        match cancelled(cancels) {
            Some(reason) => Err(not_sent(reason, "cancelled before it began")),
            None => Ok(()),
        }
    }
}

/// Why a call is not to go on.
pub(crate) fn cancelled(cancels: &Cancels) -> Option<Reason> {
    match (cancels.stop.is_cancelled(), cancels.agent.is_cancelled()) {
        (true, _) => Some(Reason::CancelledByStop),
        (false, true) => Some(Reason::CancelledByAgent),
        (false, false) => None,
    }
}

/// The end of what was not begun.
pub(crate) fn not_sent(reason: Reason, detail: impl Into<String>) -> Ended {
    Ended::NotSent { reason, detail: detail.into() }
}

/// The end of what nobody knows the end of.
pub(crate) fn in_doubt(reason: Reason, detail: impl Into<String>) -> Ended {
    Ended::InDoubt { reason, detail: detail.into() }
}

/// Why a program has no end of its own.
pub(crate) fn reason(fault: &ProgramFault) -> Reason {
    match fault {
        ProgramFault::Start(_) | ProgramFault::Pipe { .. } => Reason::UpstreamUnavailable,
        ProgramFault::Late(_) => Reason::UpstreamTimeout,
        ProgramFault::TooLong { .. } => Reason::UpstreamInvalid,
        ProgramFault::Stopped(_) => Reason::CancelledByStop,
        ProgramFault::Cancelled(_) => Reason::CancelledByAgent,
    }
}

/// The result of a tool, for its agent.
pub(crate) fn answered(text: &str, structured: &Value) -> Ended {
    result(text, Some(structured), false)
}

/// The same, when the target said no and nothing was changed.
pub(crate) fn tool_error(text: &str) -> Ended {
    result(text, None, true)
}

fn result(text: &str, structured: Option<&Value>, tool_error: bool) -> Ended {
    let mut body = json!({ "content": [{ "type": "text", "text": text }], "isError": tool_error });
    if let (Some(members), Some(structured)) = (body.as_object_mut(), structured) {
        members.insert("structuredContent".to_owned(), structured.clone());
    }
    match to_raw_value(&body) {
        Ok(raw) => Ended::Answered { body: Outcome::Result(raw), tool_error },
        // Text and JSON values have a text; it was executed all the same.
        Err(fault) => in_doubt(Reason::UpstreamInvalid, fault.to_string()),
    }
}

impl From<Ended> for Executed {
    /// What was captured before is all there is.
    fn from(ended: Ended) -> Self {
        Self { ended, undo: None }
    }
}
