//! Tools of other people's servers, and HTTP behind them, as far as the operator declared how their
//! targets are read, what takes a call back, and how long a message waits before it leaves.
//!
//! Stands beside an [`Upstream`]. Must never call a tool that was not declared for that, never
//! forward a call whose target moved since the preview, and never promise an inverse that cannot
//! be told from its absence. The target is read right before the call, not at one with it: what
//! somebody does in between is only seen afterwards.

mod calls;
mod captured;
mod mapping;

pub(crate) use calls::DeclaredCall;
pub use calls::content as result_content;
pub use mapping::{Mapped, Source};

use crate::clearance::{Clearance, answered, cancelled, not_sent, tool_error};
use crate::mcp::Outcome;
use crate::resource::{
    Change, Conflict, Executed, Forward, Preview, Proposed, Resource, ResourceFault, Reverting,
    TargetState, Undo,
};
use crate::upstream::{Cancels, Ended, Upstream};
use calls::Looked;
use captured::{Captured, Compared, Target};
use holdpoint_control::Permit;
use holdpoint_types::{Disclosure, Reason, Reversibility, ServerName, Timestamp, ToolRef};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// What an operator declared about the tools of one server.
#[derive(Clone, Debug)]
pub struct DeclaredSpec {
    /// The server.
    pub server: ServerName,
    /// By the name of the tool. A tool that is not named here is irreversible and has no preview.
    pub tools: BTreeMap<String, Declared>,
}

/// What is declared about one tool.
#[derive(Clone, Debug)]
pub struct Declared {
    /// How its target is read.
    pub read: Option<Reading>,
    /// What takes a call back. Needs a `read`: else nobody could tell whether it was.
    pub inverse: Option<Inverse>,
    /// How long a call waits before it is forwarded, so that it can still be cancelled. Its permit
    /// is checked before it waits; whoever forwards it checks it by the time of then.
    pub delay: Option<Duration>,
    /// How far what it sends gets.
    pub disclosure: Disclosure,
}

/// How the target of a call is read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The tool that reads, and its arguments. If one of them comes from the result, there is
    /// nothing to read before the call: it makes its target.
    pub call: Mapped,
    /// Where in its result the target is, as a JSON pointer; empty for all of it.
    pub state: String,
    /// True if an answer with `isError` says that the target is not there.
    pub error_is_absence: bool,
    /// Members that change by themselves, as JSON pointers into the target: they are left out.
    pub volatile: Vec<String>,
    /// Members that no preview shows, as JSON pointers into the target.
    pub redacted: Vec<String>,
    /// What the target is expected to become.
    pub expected: Expected,
}

/// What takes a call back.
#[derive(Clone, Debug)]
pub struct Inverse {
    /// The tool, and its arguments.
    pub call: Mapped,
    /// What it makes of what the call left; unknown means: what there was before. A ticket that was
    /// opened is closed, not gone.
    pub leaves: Expected,
}

/// What a target is expected to become.
#[derive(Clone, Debug)]
pub enum Expected {
    /// Nobody can say.
    Unknown,
    /// It will be gone.
    Gone,
    /// The same, with these members (JSON pointers into the target) from elsewhere.
    With(BTreeMap<String, Source>),
}

/// Why declarations are not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeclaredFault {
    /// There is an inverse, and nothing tells whether it was called.
    #[error("`{0}` has an inverse and no read")]
    InverseWithoutRead(String),
    /// A tool that is called without a permit is declared to change something.
    #[error("`{read}` reads the target of `{tool}`, and is declared to change something itself")]
    ReadChanges {
        /// The tool.
        tool: String,
        /// What is declared as its read.
        read: String,
    },
    /// A name is none of a tool.
    #[error("`{0}` is no name of a tool")]
    Name(String),
    /// A JSON pointer begins with `/`, or is empty.
    #[error("`{0}` is no JSON pointer")]
    Pointer(String),
}

/// The declared tools of one server as a resource.
#[derive(Clone, Debug)]
pub struct DeclaredTools {
    spec: DeclaredSpec,
    upstream: Upstream,
}

/// A previewed call.
#[derive(Debug)]
pub struct DeclaredPrepared {
    clearance: Clearance,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// The call itself goes to its server.
    Forward(Captured),
    /// The inverse does.
    Inverse {
        captured: Captured,
        tool: String,
        arguments: Value,
        now: Option<Value>,
    },
    Nothing,
}

// === impl DeclaredTools ===

impl DeclaredTools {
    /// The declared tools of the server `upstream`, or of one agent's connection to it.
    ///
    /// # Errors
    /// When the declarations contradict themselves.
    pub fn new(spec: DeclaredSpec, upstream: Upstream) -> Result<Self, DeclaredFault> {
        for (tool, declared) in &spec.tools {
            check(&spec, tool, declared)?;
        }
        Ok(Self { spec, upstream })
    }

    fn declared(&self, tool: &str) -> Result<&Declared, ResourceFault> {
        let none = || ResourceFault::Impossible(format!("`{tool}` is no longer declared"));
        self.spec.tools.get(tool).ok_or_else(none)
    }

    /// What the target of a call is now; `None` if it is not there, or not yet.
    async fn look(
        &self,
        reading: &Reading,
        captured: &Captured,
    ) -> Result<Option<Value>, ResourceFault> {
        let Some(arguments) = reading.call.arguments(&captured.known())? else { return Ok(None) };
        match self.read(reading, arguments).await? {
            Looked::Absent => Ok(None),
            Looked::There(state) => Ok(Some(state)),
        }
    }

    async fn capture(
        &self,
        declared: &Declared,
        proposed: Proposed<'_>,
    ) -> Result<Captured, ResourceFault> {
        let named = proposed.effects.first().map(|effect| effect.resource.clone());
        let own = || format!("mcp://{}/{}", self.spec.server, proposed.tool.name());
        let mut captured = Captured {
            tool: proposed.tool.name().to_owned(),
            resource: named.unwrap_or_else(own),
            parameters: proposed.parameters.clone(),
            before: None,
            expected: None,
            after: None,
            result: None,
        };
        if let Some(reading) = &declared.read {
            captured.before = self.look(reading, &captured).await?;
            captured.expected = reading.expected.of(captured.before.clone(), &captured.known())?;
        }
        Ok(captured)
    }

    /// Waits as long as is declared. An end before that is an end without a call.
    async fn wait(&self, declared: &Declared, cancels: &Cancels) -> Result<(), Ended> {
        if let Some(delay) = declared.delay {
            tokio::select! {
                biased;
                () = cancels.stop.cancelled() => {}
                () = cancels.agent.cancelled() => {}
                () = tokio::time::sleep(delay) => {}
            }
        }
        match cancelled(cancels) {
            Some(reason) => Err(not_sent(reason, "cancelled before it was sent")),
            None => Ok(()),
        }
    }

    /// Sees that the target is still what it was.
    async fn check_unmoved(
        &self,
        captured: &Captured,
        expected: Option<&Value>,
    ) -> Result<(), Ended> {
        let declared = self.declared(&captured.tool);
        let unavailable =
            |fault: ResourceFault| not_sent(Reason::UpstreamUnavailable, fault.to_string());
        let Some(reading) = &declared.map_err(unavailable)?.read else { return Ok(()) };
        let now = self.look(reading, captured).await.map_err(unavailable)?;
        if now.as_ref() == expected {
            return Ok(());
        }
        Err(not_sent(Reason::TargetMoved, "the target was changed since the preview"))
    }

    async fn forward(
        &self,
        mut captured: Captured,
        permit: Permit,
        (cancels, forward): (Cancels, Forward),
    ) -> Executed {
        let declared = match self.declared(&captured.tool) {
            Ok(declared) => declared,
            Err(fault) => return not_sent(Reason::CouldNotDecide, fault.to_string()).into(),
        };
        if let Err(ended) = self.wait(declared, &cancels).await {
            return ended.into();
        }
        if let Err(ended) = self.check_unmoved(&captured, captured.before.as_ref()).await {
            return ended.into();
        }
        let ended = forward(permit).await;
        let Ended::Answered { body: Outcome::Result(body), tool_error } = &ended else {
            return ended.into();
        };
        if !tool_error {
            captured.result = calls::content(body.get());
        }
        if let Some(reading) = &declared.read
            && (captured.result.is_some() || !reading.call.needs_result())
        {
            let after = self.look(reading, &captured).await.ok();
            captured.after = after.map(|state| Target { state });
        }
        let undo = captured.undo(declared);
        Executed { ended, undo }
    }

    async fn take_back(
        &self,
        work: (Captured, String, Value),
        now: Option<Value>,
        cancels: &Cancels,
    ) -> Executed {
        let (captured, tool, arguments) = work;
        if let Err(ended) = self.check_unmoved(&captured, now.as_ref()).await {
            return ended.into();
        }
        let call = match DeclaredCall::inverse(&self.spec.server, &tool, arguments) {
            Ok(call) => call,
            Err(fault) => return not_sent(Reason::CouldNotDecide, fault.to_string()).into(),
        };
        let ended = self.upstream.run_declared(call, cancels).await.without_task();
        if matches!(ended, Ended::Answered { tool_error: false, .. })
            && !self.is_taken_back(&captured).await
        {
            let text = format!("`{tool}` answered, but the target is not as it was before");
            return tool_error(&text).into();
        }
        ended.into()
    }

    async fn is_taken_back(&self, captured: &Captured) -> bool {
        let Ok(declared) = self.declared(&captured.tool) else { return false };
        let Some(reading) = &declared.read else { return false };
        let Ok(now) = self.look(reading, captured).await else { return false };
        matches!(captured.compare(declared, now.as_ref()), Compared::Before | Compared::TakenBack)
    }

    /// Prepares the inverse of a call whose target is still as the call left it.
    fn prepare_inverse(
        &self,
        captured: Captured,
        (reading, inverse): (&Reading, &Inverse),
        now: Option<Value>,
    ) -> Result<(Preview, Work), ResourceFault> {
        let leaves = captured.leaves(inverse)?.map(|left| left.state);
        let leaves = leaves.unwrap_or_else(|| captured.before.clone());
        let inverse = &inverse.call;
        let unknown = || {
            let text = "the result of the call is not known, and its inverse needs it";
            ResourceFault::Impossible(text.to_owned())
        };
        let arguments = inverse.arguments(&captured.known())?.ok_or_else(unknown)?;
        let again = self.spec.tools.get(&inverse.tool).is_some_and(|it| it.inverse.is_some());
        let guarantee =
            if again { Reversibility::Compensable } else { Reversibility::Irreversible };
        let change = Change {
            resource: captured.resource.clone(),
            before: now.as_ref().map(|state| reading.shown(state)),
            after: leaves.as_ref().map(|state| reading.shown(state)),
        };
        let notes = vec![format!(
            "calls `{}`; who saw or used what was changed meanwhile is not reached by that",
            inverse.tool
        )];
        let preview = Preview {
            changes: vec![change],
            exact: false,
            guarantee,
            until: None,
            disclosure: Disclosure::Contained,
            notes,
        };
        let tool = inverse.tool.clone();
        Ok((preview, Work::Inverse { captured, tool, arguments, now }))
    }
}

impl Resource for DeclaredTools {
    type Prepared = DeclaredPrepared;

    async fn preview(
        &self,
        proposed: Proposed<'_>,
    ) -> Result<Option<(Preview, DeclaredPrepared)>, ResourceFault> {
        if *proposed.tool.server() != self.spec.server {
            return Ok(None);
        }
        let Some(declared) = self.spec.tools.get(proposed.tool.name()) else { return Ok(None) };
        let clearance = Clearance::call(proposed)?;
        let captured = self.capture(declared, proposed).await?;
        let preview = declared.preview(&captured);
        Ok(Some((preview, DeclaredPrepared { clearance, work: Work::Forward(captured) })))
    }

    fn undo(&self, prepared: &DeclaredPrepared) -> Option<Undo> {
        match &prepared.work {
            Work::Forward(captured) => captured.undo(self.declared(&captured.tool).ok()?),
            Work::Inverse { .. } | Work::Nothing => None,
        }
    }

    async fn execute(
        &self,
        permit: Permit,
        prepared: DeclaredPrepared,
        (cancels, forward): (Cancels, Forward),
    ) -> Executed {
        let DeclaredPrepared { clearance, work } = prepared;
        match work {
            // Who forwards it consumes the permit; it need not wait for one that is not for it.
            Work::Forward(captured) => match clearance.check(&permit) {
                Ok(()) => self.forward(captured, permit, (cancels, forward)).await,
                Err(ended) => ended.into(),
            },
            Work::Inverse { captured, tool, arguments, now } => {
                match clearance.begin(permit, &cancels) {
                    Ok(()) => self.take_back((captured, tool, arguments), now, &cancels).await,
                    Err(ended) => ended.into(),
                }
            }
            Work::Nothing => match clearance.begin(permit, &cancels) {
                Ok(()) => {
                    let text = "everything is as it was before";
                    answered(text, &json!({ "changed": false })).into()
                }
                Err(ended) => ended.into(),
            },
        }
    }

    async fn verify(&self, undo: &Undo) -> Result<TargetState, ResourceFault> {
        let captured = Captured::read(undo)?;
        let declared = self.declared(&captured.tool)?;
        let Some(reading) = &declared.read else {
            return Ok(TargetState::Unknown("no tool is declared that reads it".to_owned()));
        };
        if captured.result.is_none() && reading.call.needs_result() {
            let text = "what the call made is not known: its result was not seen";
            return Ok(TargetState::Unknown(text.to_owned()));
        }
        let now = self.look(reading, &captured).await?;
        Ok(match captured.compare(declared, now.as_ref()) {
            Compared::Before => TargetState::Before,
            Compared::After => TargetState::After,
            Compared::Elsewhere(conflict) => TargetState::Changed(vec![conflict]),
            Compared::Unknown(why) => TargetState::Unknown(why.to_owned()),
            Compared::TakenBack => {
                let why = "it was taken back as far as its inverse goes".to_owned();
                TargetState::Changed(vec![Conflict { resource: captured.resource, why }])
            }
        })
    }

    async fn revert(
        &self,
        undo: &Undo,
        now: Timestamp,
    ) -> Result<Reverting<DeclaredPrepared>, ResourceFault> {
        let captured = Captured::read(undo)?;
        let declared = self.declared(&captured.tool)?;
        let (Some(reading), Some(inverse)) = (&declared.read, &declared.inverse) else {
            let text = "no tool is declared that takes it back";
            return Err(ResourceFault::Impossible(text.to_owned()));
        };
        if captured.result.is_none() && reading.call.needs_result() {
            let text = "what the call made is not known: its result was not seen";
            return Err(ResourceFault::Impossible(text.to_owned()));
        }
        let state = self.look(reading, &captured).await?;
        let (conflicts, (preview, work)) = match captured.compare(declared, state.as_ref()) {
            Compared::Before | Compared::TakenBack => (Vec::new(), (nothing(), Work::Nothing)),
            Compared::After => {
                (Vec::new(), self.prepare_inverse(captured, (reading, inverse), state)?)
            }
            Compared::Elsewhere(conflict) => (vec![conflict], (nothing(), Work::Nothing)),
            Compared::Unknown(why) => return Err(ResourceFault::Impossible(why.to_owned())),
        };
        let prepared = DeclaredPrepared { clearance: Clearance::revert(now), work };
        Ok(Reverting { preview, conflicts, prepared })
    }
}

// === impl Declared ===

impl Declared {
    fn guarantee(&self) -> Reversibility {
        match self.inverse {
            Some(_) => Reversibility::Compensable,
            None => Reversibility::Irreversible,
        }
    }

    fn preview(&self, captured: &Captured) -> Preview {
        let mut notes = Vec::new();
        let (before, after) = match &self.read {
            None => {
                notes.push("no tool is declared that reads its target".to_owned());
                (None, Some(json!("(not known)")))
            }
            Some(reading) => {
                let shown = |state: &Option<Value>| state.as_ref().map(|it| reading.shown(it));
                let after = match &captured.expected {
                    None => {
                        notes.push("nobody declared what its target becomes".to_owned());
                        Some(json!("(not known)"))
                    }
                    Some(expected) => shown(&expected.state),
                };
                (shown(&captured.before), after)
            }
        };
        if let Some(delay) = self.delay {
            let seconds = delay.as_secs();
            notes.push(format!("it is sent {seconds} s after it was permitted, unless cancelled"));
        }
        let change = Change { resource: captured.resource.clone(), before, after };
        // Of what is not there and will not be there is nothing to tell.
        let told = change.before.is_some() || change.after.is_some();
        Preview {
            changes: told.then_some(change).into_iter().collect(),
            exact: false,
            guarantee: self.guarantee(),
            until: None,
            disclosure: self.disclosure,
            notes,
        }
    }
}

/// Checks what is declared about one tool.
fn check(spec: &DeclaredSpec, tool: &str, declared: &Declared) -> Result<(), DeclaredFault> {
    let is_tool = |name: &str| match ToolRef::new(spec.server.clone(), name) {
        Ok(_) => Ok(()),
        Err(_) => Err(DeclaredFault::Name(name.to_owned())),
    };
    is_tool(tool)?;
    let Some(reading) = &declared.read else {
        return match declared.inverse {
            Some(_) => Err(DeclaredFault::InverseWithoutRead(tool.to_owned())),
            None => Ok(()),
        };
    };
    let read = &reading.call.tool;
    is_tool(read)?;
    if spec.tools.contains_key(read) {
        return Err(DeclaredFault::ReadChanges { tool: tool.to_owned(), read: read.clone() });
    }
    if let Some(inverse) = &declared.inverse {
        is_tool(&inverse.call.tool)?;
    }
    let inverse = declared.inverse.iter();
    let mapped = inverse.clone().map(|inverse| &inverse.call).chain([&reading.call]);
    let mut pointers: Vec<&String> = mapped.flat_map(Mapped::pointers).collect();
    pointers.extend(reading.pointers());
    pointers.extend(inverse.flat_map(|inverse| inverse.leaves.pointers()));
    match pointers.into_iter().find(|it| !it.is_empty() && !it.starts_with('/')) {
        None => Ok(()),
        Some(pointer) => Err(DeclaredFault::Pointer(pointer.clone())),
    }
}

/// A preview of what changes nothing.
fn nothing() -> Preview {
    Preview {
        changes: Vec::new(),
        exact: true,
        guarantee: Reversibility::NoEffect,
        until: None,
        disclosure: Disclosure::Contained,
        notes: Vec::new(),
    }
}
