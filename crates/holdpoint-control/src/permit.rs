//! The permit: the value without which nothing is executed.
//!
//! Owns the type and its checks. Must never become `Clone` or constructible outside this crate: an
//! effect without a permit does not compile.

use holdpoint_types::{ActionId, Digest, Epoch, Timestamp, ToolRef};

/// The right to run exactly one action once.
///
/// Minted only by [`crate::Control`], after the decision's record is durable. Consumed by
/// execution. Nobody else makes one, and nobody copies one:
///
/// ```compile_fail,E0599
/// fn nobody_copies_a_permit(permit: &holdpoint_control::Permit) -> holdpoint_control::Permit {
///     holdpoint_control::Permit::clone(permit)
/// }
/// ```
///
/// ```compile_fail,E0624
/// fn nobody_forges_a_permit() {
///     let _ = holdpoint_control::Permit::mint;
/// }
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    action: ActionId,
    tool: ToolRef,
    parameters: Digest,
    policy: Digest,
    epoch: Epoch,
    expires: Timestamp,
    approved: bool,
}

/// Why a permit does not fit what is about to be executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PermitFault {
    /// Minted for another tool.
    #[error("the permit is for `{permitted}`, not for `{asked}`")]
    OtherTool {
        /// What it was minted for.
        permitted: ToolRef,
        /// What was about to run.
        asked: ToolRef,
    },
    /// Minted for other parameters.
    #[error("the permit is for other parameters")]
    OtherParameters,
    /// Too old.
    #[error("the permit expired")]
    Expired,
}

// === impl Permit ===

impl Permit {
    pub(crate) fn mint(
        action: ActionId,
        (tool, parameters): (ToolRef, Digest),
        policy: Digest,
        epoch: Epoch,
        expires: Timestamp,
    ) -> Self {
        Self { action, tool, parameters, policy, epoch, expires, approved: false }
    }

    /// The same, where a person approved the call.
    pub(crate) fn after_approval(self) -> Self {
        Self { approved: true, ..self }
    }

    /// True if a person approved the call: what they did not see is not sent.
    pub fn is_approved(&self) -> bool {
        self.approved
    }

    /// The action it lets run.
    pub fn action(&self) -> ActionId {
        self.action
    }

    /// The tool it lets run.
    pub fn tool(&self) -> &ToolRef {
        &self.tool
    }

    /// Digest of the canonical form of the parameters it lets run.
    pub fn parameters(&self) -> Digest {
        self.parameters
    }

    /// The policy set that decided.
    pub fn policy(&self) -> Digest {
        self.policy
    }

    /// The epoch it is good in.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Checks that this permit is for `tool` with `parameters`, at `now`. Whoever executes calls
    /// this on the very value that is sent.
    ///
    /// # Errors
    /// When the tool or the parameters differ, or the permit expired.
    pub fn check(
        &self,
        tool: &ToolRef,
        parameters: Digest,
        now: Timestamp,
    ) -> Result<(), PermitFault> {
        if self.tool != *tool {
            let permitted = self.tool.clone();
            return Err(PermitFault::OtherTool { permitted, asked: tool.clone() });
        }
        if self.parameters != parameters {
            return Err(PermitFault::OtherParameters);
        }
        if now >= self.expires {
            return Err(PermitFault::Expired);
        }
        Ok(())
    }
}
