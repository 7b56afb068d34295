//! The one shape of everything that can be previewed, executed, verified and taken back.
//!
//! Owns the trait and the values that cross it. Must never execute without consuming a permit, and
//! never promise more than was captured.

use crate::upstream::{Cancels, Ended};
use futures::future::BoxFuture;
use holdpoint_control::Permit;
use holdpoint_types::{
    ChangeCounts, Digest, Disclosure, Effect, PreviewFacts, Reversibility, Timestamp, ToolRef,
    canonical_digest,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How many times the rows of the limits a change may have that people approved by its size.
pub const WHOLE_ROWS_TIMES: u32 = 10;
/// How many times the bytes of the limits such a change may have.
pub const WHOLE_BYTES_TIMES: u32 = 4;

/// One call, before it is decided.
#[derive(Clone, Copy, Debug)]
pub struct Proposed<'a> {
    /// The tool.
    pub tool: &'a ToolRef,
    /// The parameters: a JSON object, exactly what a permit will be checked against.
    pub parameters: &'a Value,
    /// What the analysis says the call would do; empty where calls of the tool are not analysed.
    pub effects: &'a [Effect],
    /// The time.
    pub now: Timestamp,
}

/// One thing that would be other than it was. At least one side is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// What changes, as a typed address: `pg://orders/public.users/id=7`, `file:///srv/app/x`.
    pub resource: String,
    /// What it is now; absent if it is not there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<Value>,
    /// What it would be; absent if it would be gone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<Value>,
}

/// What an action would cause, as exactly as can be known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preview {
    /// Every change, in a stable order: the same diff has the same digest.
    pub changes: Vec<Change>,
    /// False if more may happen than `changes` says.
    pub exact: bool,
    /// How well it can be taken back.
    pub guarantee: Reversibility,
    /// Until when; only for [`Reversibility::ExactUntil`].
    pub until: Option<Timestamp>,
    /// How far what it shows or sends gets.
    pub disclosure: Disclosure,
    /// What the changes cannot show, and why. Holds no value of a target.
    pub notes: Vec<String>,
}

/// What was captured to take an action back. Lies sealed; only its resource reads `data`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Undo {
    /// How well it can be taken back.
    pub guarantee: Reversibility,
    /// Until when; only for [`Reversibility::ExactUntil`].
    pub until: Option<Timestamp>,
    /// What the resource needs: before-images, what guards them, an inverse call.
    pub data: Value,
}

/// How an executed action ended, and what can be taken back of it.
#[derive(Debug)]
pub struct Executed {
    /// How it ended.
    pub ended: Ended,
    /// What to keep in place of what [`Resource::undo`] gave before; absent to keep that.
    pub undo: Option<Undo>,
}

/// What a target is now, compared with what was captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    /// As it was before the action.
    Before,
    /// As the action left it.
    After,
    /// Neither; everything that is not as it was before, by resource, with the reason. Holds no
    /// value of a target.
    Changed(Vec<Conflict>),
    /// It cannot be told, and why.
    Unknown(String),
}

/// Something that is not put back because it is no longer what the action left.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Conflict {
    /// What.
    pub resource: String,
    /// Why it is kept as it is; holds no value of a target.
    pub why: String,
}

/// A revert, prepared: nothing is changed yet.
#[derive(Debug)]
pub struct Reverting<P> {
    /// What executing `prepared` would put back. Empty if everything is as it was before.
    pub preview: Preview,
    /// What would be kept as it is.
    pub conflicts: Vec<Conflict>,
    /// To be executed, with a permit, or dropped.
    pub prepared: P,
}

/// Why there is no preview, no verification or no revert. Texts hold no value of a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceFault {
    /// The diff is larger than the limits: for example `10001 rows`. Where somebody approves that
    /// much, [`Resource::preview_whole`] looks at it.
    #[error("too large: {0}")]
    Large(String),
    /// The diff is larger than can ever be looked at.
    #[error("too large: {0}")]
    TooLarge(String),
    /// The target is not there.
    #[error("gone: {0}")]
    Gone(String),
    /// The target, or what leads to it, cannot be reached, is locked, or is late.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The target refuses the action: it would fail. What the agent should be told.
    #[error("refused by the target: {0}")]
    Refused(String),
    /// The call, or what was captured, cannot be understood.
    #[error("invalid: {0}")]
    Invalid(String),
    /// It can never be done, and why.
    #[error("impossible: {0}")]
    Impossible(String),
}

/// Sends the call to its server. Only resources that stand beside a server use it; one that serves
/// the tool itself drops it.
pub type Forward = Box<dyn FnOnce(Permit) -> BoxFuture<'static, Ended> + Send>;

/// One kind of target.
///
/// The way of an action: `preview` (nothing is changed; what it holds open is in `Prepared`, and
/// dropping that lets go of everything), `undo` (what must lie durable before the effect),
/// `execute` with a permit. Later `verify`, or `revert` and again `execute` with another permit.
pub trait Resource: Send + Sync + 'static {
    /// What a preview holds open until it is executed or dropped.
    type Prepared: Send + 'static;

    /// True if looking at what `tool` would do keeps others from the target meanwhile.
    fn keeps_busy(&self, _tool: &ToolRef) -> bool {
        false
    }

    /// What is kept in the target to take actions back and is over at `now`, by address: a bounded
    /// number.
    fn expired(
        &self,
        _now: Timestamp,
    ) -> impl Future<Output = Result<Vec<String>, ResourceFault>> + Send {
        std::future::ready(Ok(Vec::new()))
    }

    /// Deletes, for good, what [`Self::expired`] named, if it still is over and our own.
    fn let_go(
        &self,
        _expired: &str,
        _now: Timestamp,
    ) -> impl Future<Output = Result<(), ResourceFault>> + Send {
        std::future::ready(Err(ResourceFault::Impossible("nothing is kept there".to_owned())))
    }

    /// What an operator should know of how the target is reached, in words that hold no secret.
    fn warnings(&self) -> impl Future<Output = Result<Vec<String>, ResourceFault>> + Send {
        std::future::ready(Ok(Vec::new()))
    }

    /// What `proposed` would cause. `None` if this resource has nothing to do with the call.
    fn preview(
        &self,
        proposed: Proposed<'_>,
    ) -> impl Future<Output = Result<Option<(Preview, Self::Prepared)>, ResourceFault>> + Send;

    /// The same with room for [`WHOLE_ROWS_TIMES`] the rows and [`WHOLE_BYTES_TIMES`] the bytes:
    /// somebody approved so much.
    fn preview_whole(
        &self,
        proposed: Proposed<'_>,
    ) -> impl Future<Output = Result<Option<(Preview, Self::Prepared)>, ResourceFault>> + Send {
        self.preview(proposed)
    }

    /// What is kept, durably, before `prepared` is executed; absent where nothing can be undone.
    fn undo(&self, prepared: &Self::Prepared) -> Option<Undo>;

    /// Executes exactly what was previewed, once, or ends as not sent if the target moved since.
    fn execute(
        &self,
        permit: Permit,
        prepared: Self::Prepared,
        around: (Cancels, Forward),
    ) -> impl Future<Output = Executed> + Send;

    /// What to keep in place of `undo`, now that a host says that the action has ended which it
    /// executed by itself; absent to keep that.
    fn look_after(
        &self,
        _undo: &Undo,
    ) -> impl Future<Output = Result<Option<Undo>, ResourceFault>> + Send {
        std::future::ready(Ok(None))
    }

    /// What the target is now.
    fn verify(
        &self,
        undo: &Undo,
    ) -> impl Future<Output = Result<TargetState, ResourceFault>> + Send;

    /// Prepares to take an action back. Doing it twice changes nothing the second time.
    fn revert(
        &self,
        undo: &Undo,
        now: Timestamp,
    ) -> impl Future<Output = Result<Reverting<Self::Prepared>, ResourceFault>> + Send;
}

// === impl Preview ===

impl Preview {
    /// Digest of all that it says but until when: approvals are bound to it, and the same change
    /// looked at later can be taken back until later.
    ///
    /// # Errors
    /// When a value has no canonical form.
    pub fn digest(&self) -> Result<Digest, ResourceFault> {
        let Self { changes, exact, guarantee, until: _, disclosure, notes } = self;
        let bound = (changes, exact, guarantee, disclosure, notes);
        canonical_digest(&bound).map_err(|fault| ResourceFault::Invalid(fault.to_string()))
    }

    /// How many things change.
    pub fn counts(&self) -> ChangeCounts {
        let mut counts = ChangeCounts::default();
        for change in &self.changes {
            match (&change.before, &change.after) {
                (None, _) => counts.created += 1,
                (Some(_), Some(_)) => counts.updated += 1,
                (Some(_), None) => counts.deleted += 1,
            }
        }
        counts
    }

    /// What decisions and records see of it.
    ///
    /// # Errors
    /// As [`Self::digest`].
    pub fn facts(&self) -> Result<PreviewFacts, ResourceFault> {
        let Self { exact, guarantee, until, disclosure, .. } = *self;
        let (digest, counts, notes) = (self.digest()?, self.counts(), self.notes.clone());
        Ok(PreviewFacts { digest, counts, exact, guarantee, until, disclosure, notes })
    }
}
