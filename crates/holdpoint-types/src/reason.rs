//! Every stable reason code, with what it means and what to do next.
//!
//! Owns the codes that appear in denials, records and API answers; `docs/errors.md` is generated
//! from this file. A code, once released, never changes its meaning. Must not format a whole
//! decision.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Where on its way an action met the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The message could not be accepted.
    Door,
    /// The decision.
    Decision,
    /// The execution, after a permit.
    Execution,
}

macro_rules! reasons {
    ($(
        $variant:ident, $code:literal, $stage:ident,
        $meaning:literal, $agent:literal, $operator:literal;
    )*) => {
        /// Why something was decided as it was, or why it failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = $meaning] $variant,)*
        }

        impl Reason {
            /// All reasons, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code.
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// Where on its way an action meets this reason.
            pub fn stage(self) -> Stage {
                match self { $(Self::$variant => Stage::$stage,)* }
            }

            /// What happened, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }

            /// What the agent should do next.
            pub fn for_agent(self) -> &'static str {
                match self { $(Self::$variant => $agent,)* }
            }

            /// What the operator can do about it.
            pub fn for_operator(self) -> &'static str {
                match self { $(Self::$variant => $operator,)* }
            }
        }
    };
}

reasons! {
    MessageMalformed, "message_malformed", Door,
        "The message is not JSON, or not a JSON-RPC 2.0 message.",
        "Send one valid JSON-RPC 2.0 message.",
        "Look at the client: it sends text that no JSON reader accepts.";
    MessageNotUtf8, "message_not_utf8", Door,
        "The message is not UTF-8.",
        "Encode the message as UTF-8.",
        "Look at the client's encoding.";
    MessageTooLarge, "message_too_large", Door,
        "The message is longer than `limits.message_bytes_max`.",
        "Send less in one call.",
        "Raise `limits.message_bytes_max` if such calls are expected.";
    MessageLate, "message_late", Door,
        "The message did not arrive whole within `limits.body_timeout_ms`.",
        "Send the whole message at once.",
        "Look at the client or the network; raise `limits.body_timeout_ms` if it is just slow.";
    MessageTooDeep, "message_too_deep", Door,
        "Arrays and objects are nested deeper than 64.",
        "Flatten the parameters.",
        "Nothing legitimate nests this deep; look at what the agent was fed.";
    DuplicateKey, "duplicate_key", Door,
        "One object has the same key twice; readers disagree about which one counts.",
        "Send each key once.",
        "Look at the client, or at an attempt to show two readers two different calls.";
    NumberOutOfRange, "number_out_of_range", Door,
        "A number is outside what every JSON reader keeps exactly (RFC 7493).",
        "Send large numbers as strings.",
        "If the tool needs such a number, its schema should take a string.";
    MethodUnknown, "method_unknown", Door,
        "The method is not one that this endpoint serves.",
        "Use `tools/list` and `tools/call`.",
        "This endpoint governs tools; point other traffic at the server itself.";
    RevisionUnsupported, "revision_unsupported", Door,
        "The MCP revision is not one that Holdpoint speaks.",
        "Use revision 2026-07-28 or 2025-11-25.",
        "Update the client, or pin an older revision in it.";
    HeaderMismatch, "header_mismatch", Door,
        "An MCP header is missing or differs from the body.",
        "Send `MCP-Protocol-Version`, `Mcp-Method` and `Mcp-Name` as the body says.",
        "Look at the client or at a proxy that rewrites requests.";
    Unauthenticated, "unauthenticated", Door,
        "The request carries no valid agent key.",
        "Send `Authorization: Bearer <agent key>`.",
        "Issue a key with `holdpoint agent add NAME --owner TEAM`.";
    TokenInvalid, "token_invalid", Door,
        "The access token is not valid here.",
        "Get a new one from the issuer, for the resource that `WWW-Authenticate` leads to.",
        "Compare the token's `iss`, `aud`, `exp` and `alg` with `[listen.oauth]`.";
    TokenUnmapped, "token_unmapped", Door,
        "The access token is valid, but its client and subject are not one declared agent.",
        "Ask the operator to declare an agent for this client; another token will not help.",
        "Name the client or the subject in `oauth` of one `[agent.NAME]`.";
    ScopeInsufficient, "scope_insufficient", Door,
        "The access token's scopes do not reach what the request asks for.",
        "Ask the issuer for the scope that `WWW-Authenticate` names, or do without.",
        "Let the issuer grant the scope to this client if it should reach this class of tools.";
    IssuerUnavailable, "issuer_unavailable", Door,
        "The keys of the access tokens' issuer are not known, or too old to be trusted.",
        "Retry after a pause.",
        "See why the keys cannot be fetched: `holdpoint status`, or the log.";
    OriginRefused, "origin_refused", Door,
        "The request comes from a web page or for a host that this server does not serve.",
        "Call the server by the address in its configuration.",
        "Add the host to `listen.hosts` if it is yours.";
    ServerUnknown, "server_unknown", Door,
        "No upstream server has this name.",
        "Use one of the servers that `tools/list` shows.",
        "Declare it as `[server.NAME]`.";
    PlanUnknown, "plan_unknown", Door,
        "The agent has no plan with this id.",
        "See your plans with `holdpoint_plan_status`.",
        "Compare with `holdpoint plan list`.";
    PlanConflict, "plan_conflict", Door,
        "The plan cannot be proposed beside those that are open.",
        "Revise the plan that is open for this task, or let one end.",
        "See `holdpoint plan list`; refuse what nobody needs.";
    PlanBlocked, "plan_blocked", Door,
        "The checker has notes on the plan that keep it from coming into force.",
        "Change what the blocking notes name, and propose it again.",
        "Read the notes with `holdpoint plan show`.";
    Overloaded, "overloaded", Door,
        "Too many calls are in flight.",
        "Retry after a pause.",
        "Raise `limits.calls_in_flight_max` or `limits.agent_calls_max`, or find out who floods.";
    Draining, "draining", Door,
        "The server is about to end and takes no new calls.",
        "Retry after a pause.",
        "Nothing to do: calls in flight end first, then the server does.";

    PermittedByPolicy, "permitted_by_policy", Decision,
        "A policy permits the call and nothing speaks against it.",
        "Nothing to do.",
        "Nothing to do.";
    AgentUnknown, "agent_unknown", Decision,
        "No agent has this name.",
        "Ask the operator which agent name to use.",
        "Declare it: `holdpoint agent add NAME --owner TEAM`.";
    AgentUnowned, "agent_unowned", Decision,
        "The agent has no owner, so nobody answers for what it does.",
        "Ask the operator to assign an owner.",
        "Set `owner` in `[agent.NAME]` to a declared team.";
    AgentQuarantined, "agent_quarantined", Decision,
        "The agent is quarantined: nothing it asks for runs.",
        "Stop and report what you were doing.",
        "Raise its `mode` when its owner is satisfied.";
    AgentReadOnly, "agent_read_only", Decision,
        "The agent may only read.",
        "Continue with read tools, or report what you would change.",
        "Raise its `mode` if it should write.";
    AgentPlanOnly, "agent_plan_only", Decision,
        "The agent may plan a change but not make it.",
        "Describe the change you would make; do not retry it.",
        "Raise its `mode` if it should execute.";
    AgentApproveWrites, "agent_approve_writes", Decision,
        "Every change by this agent needs its owner's approval.",
        "Go on with other work, and make the same call again once the approval is given.",
        "Decide it with `holdpoint approvals`; raise its `mode` if approvals are not wanted.";
    ToolUnknown, "tool_unknown", Decision,
        "The server does not offer this tool.",
        "Use one of the tools that `tools/list` shows.",
        "Compare with `holdpoint tools`.";
    ToolQuarantined, "tool_quarantined", Decision,
        "The tool's definition changed since it was pinned.",
        "Use another tool; this one is locked until an operator has looked at it.",
        "Compare with `holdpoint tools` and accept with `holdpoint tools pin`.";
    NotGranted, "not_granted", Decision,
        "The agent has no grant that reaches this tool in this class.",
        "Use one of the tools that `tools/list` shows.",
        "Add a grant to `[agent.NAME]` if the agent should have it.";
    DestructiveNotGranted, "destructive_not_granted", Decision,
        "The tool counts as destructive and the agent has no explicit grant for it.",
        "Find a way that destroys nothing, or report what you would need.",
        "Classify the tool if it is milder, or grant it by its full name.";
    EffectsUnreadable, "effects_unreadable", Decision,
        "What the call would do cannot be read from its parameters, so nobody can judge it.",
        "Write it more simply, in smaller pieces, or as one of the forms that the tool documents.",
        "Look at it with `holdpoint effects`; `[invariant]` can let it pass where that is safe.";
    InvariantBroken, "invariant_broken", Decision,
        "The call would break an invariant that holds whatever the policies say.",
        "Find a way that keeps the invariant, or report what you would need.",
        "The rule names the invariant; `[invariant.NAME]` says where it speaks.";
    ValidatorObjects, "validator_objects", Decision,
        "A validator objects to the call.",
        "Read what it says, and change the call accordingly.",
        "The rule names the validator; `[validator.NAME]` says how it is asked.";
    ValidatorUnavailable, "validator_unavailable", Decision,
        "A validator that has to look at such calls gave no answer that can be used.",
        "Try again later.",
        "Look at the validator's evidence with `holdpoint why`, and at its process or endpoint.";
    ChecksFull, "checks_full", Decision,
        "The call needs checks after it, and too many wait to be made already.",
        "Make no more changes for now; reads still go.",
        "See `holdpoint checks`; raise `limits.checks_open_max`, or check less often.";
    PlanDeviation, "plan_deviation", Decision,
        "The call is no part of the plan that its task is held to.",
        "Call what the named step says if it is its turn; if it is done, or it or what it waits \
         for goes no further, propose a revision with `holdpoint_plan_revise`.",
        "See `holdpoint plan show`; a revision has to be accepted before it counts.";
    PlanCondition, "plan_condition", Decision,
        "A condition of the plan's step does not hold, or could not be looked at.",
        "Bring about what the condition says, and make the same call again; or revise the plan.",
        "`holdpoint why` of the named read shows what was asked; see `holdpoint plan show`.";
    ParametersInvalid, "parameters_invalid", Decision,
        "The parameters do not match the tool's schema.",
        "Correct the parameters at the named path and try again.",
        "Nothing to do, unless the tool's schema is wrong.";
    ParametersTooMany, "parameters_too_many", Decision,
        "The parameters hold more values than policies can be asked about.",
        "Send less in one call.",
        "Look at what the agent is trying to send.";
    SchemaUnusable, "schema_unusable", Decision,
        "The tool's schema is invalid or refers to another document.",
        "Use another tool.",
        "Fix the schema in the upstream server.";
    PolicyForbids, "policy_forbids", Decision,
        "A policy forbids the call.",
        "Do not retry; find another way or report what you would need.",
        "Read the named rule; change it if it is wrong.";
    PolicyHolds, "policy_holds", Decision,
        "A policy wants an approval before the call.",
        "Go on with other work, and make the same call again once the approval is given.",
        "See `holdpoint approvals`; then `holdpoint approve ID` or `holdpoint deny ID`.";
    FreezeHolds, "freeze_holds", Decision,
        "A change freeze is in force; only an exception lets a single change through.",
        "Wait until the freeze is over, or make the same call again once the exception is given.",
        "See `holdpoint approvals` for the call, and `holdpoint status` for the freeze.";
    Approved, "approved", Decision,
        "Whoever had to approve exactly this call did so.",
        "Nothing to do.",
        "Nothing to do.";
    ApprovalDenied, "approval_denied", Decision,
        "An operator looked at exactly this call and said no.",
        "Do not make this call again; read why, and find another way.",
        "Nothing to do; the no ends when the approval would have.";
    ApprovalUnknown, "approval_unknown", Door,
        "No call waits for this approval: it was used, denied, has ended, or is void.",
        "Make the call again; it asks for a new approval.",
        "See `holdpoint approvals`.";
    ApproverRefused, "approver_refused", Door,
        "Whoever spoke may not approve this call.",
        "Nothing to do.",
        "Let somebody else approve it, or give the operator the role: `[operator.NAME] roles`.";
    ApprovalsFull, "approvals_full", Decision,
        "Too many calls of this agent wait for approvals already.",
        "Wait until some are decided.",
        "Decide or let expire what `holdpoint approvals` shows.";
    PreviewTooLarge, "preview_too_large", Decision,
        "The call would change more than is looked at before somebody agrees to its size.",
        "Change less in one call, or make the same call again once the approval is given.",
        "An approval is bound to this size and lets it run; or raise the limit that is named.";
    ChangeTooLarge, "change_too_large", Decision,
        "The call would change more than can be seen before, and nothing runs there unseen.",
        "Change less in one call; no approval can make this one run.",
        "Let the agent work in smaller steps, or raise the limit that is named: `rows_max`.";
    UnseenTooLarge, "unseen_too_large", Decision,
        "The call would change more than can be seen before; its server would run it unseen.",
        "Change less in one call, or make the same call again once the approval is given.",
        "An approval lets it run with nothing kept that takes it back; smaller steps can be seen.";
    PreviewUnavailable, "preview_unavailable", Decision,
        "What the call would do could not be seen, and nothing runs there unseen.",
        "Retry after a pause, or report what failed.",
        "Look at the target: the detail says what failed.";
    PreviewTooSoon, "preview_too_soon", Decision,
        "The agent's last look at this target kept it busy for long; now others have it.",
        "Retry after the time that is named, and do less in one call.",
        "Lower `statement_timeout_ms` of the server if its target has to be free sooner.";
    TargetRefuses, "target_refuses", Decision,
        "The target itself refuses the call: it would fail.",
        "Read why, and correct the call.",
        "Nothing to do.";
    NoPolicyPermits, "no_policy_permits", Decision,
        "No policy permits the call.",
        "Find another way or report what you would need.",
        "Add a policy that permits it, if it should be permitted.";
    GuardForbids, "guard_forbids", Decision,
        "A signed policy set guards what the call touches, and forbids it.",
        "Do not retry; find another way or report what you would need.",
        "Read the named rule, `SET/RULE`; only the set's signers can change it.";
    NoGuardPermits, "no_guard_permits", Decision,
        "A signed policy set guards what the call touches, and does not permit it.",
        "Find another way or report what you would need.",
        "If it should be permitted, have the set's signers add a policy and sign it.";
    GuardExpired, "guard_expired", Decision,
        "The signed policy set that guards what the call touches has expired.",
        "Report it; retrying does not help before the set is signed anew.",
        "Have its signers sign it anew with `holdpoint policy sign`.";
    PolicyError, "policy_error", Decision,
        "A policy failed during evaluation, so its answer is unknown.",
        "Report it; retrying will not help.",
        "Run `holdpoint check` and repair the named policy.";
    ValidatorFailed, "validator_failed", Decision,
        "An independent validator found a fault in the call.",
        "Read the finding and change the call.",
        "Read the finding's evidence with `holdpoint why`.";
    Stopped, "stopped", Decision,
        "An operator stopped this part of what agents do.",
        "Stop and wait; do not try another way.",
        "Release it with `holdpoint release` when it is safe.";
    CouldNotDecide, "could_not_decide", Decision,
        "Holdpoint could not gather what the decision needs.",
        "Retry after a pause.",
        "Look at the server's log.";
    LedgerUnavailable, "ledger_unavailable", Decision,
        "The decision could not be recorded, and nothing runs unrecorded.",
        "Retry after a pause.",
        "Look at the store: full, read-only, locked or corrupt. `holdpoint verify` helps.";
    ClockStepped, "clock_stepped", Decision,
        "The clock stepped back further than records may go.",
        "Retry after a pause.",
        "Repair the machine's time.";

    TargetMoved, "target_moved", Execution,
        "The target is not what it was when the call was previewed; nothing was done.",
        "Look at the target, and make the call again if it is still right.",
        "Nothing to do, unless it happens often: then several work on the same target.";
    UpstreamUnavailable, "upstream_unavailable", Execution,
        "The upstream server cannot be reached, or died.",
        "Retry after a pause.",
        "Look at the upstream server; its last words are in the log.";
    UpstreamTimeout, "upstream_timeout", Execution,
        "The upstream server did not answer in time; what it did is not known.",
        "Check the state before you retry.",
        "Check the target; raise the server's `timeout_ms` if it is just slow.";
    UpstreamInvalid, "upstream_invalid", Execution,
        "The upstream server's answer breaks the protocol.",
        "Check the state before you retry.",
        "Look at the upstream server.";
    QuestionForbidden, "question_forbidden", Execution,
        "The server asked something of the agent that the operator forbids.",
        "Do without what the server wanted to know.",
        "See `holdpoint log --kind asked`, and the server's `sampling`, `elicitation`, `roots`.";
    CapabilityMissing, "capability_missing", Execution,
        "The server asked something that the client did not say it can answer.",
        "Do without, or use a client that can be asked.",
        "Nothing to do, unless the agent's client should have the capability.";
    QuestionUnanswered, "question_unanswered", Execution,
        "What the server asked was not answered, so the call could not go on.",
        "Call again if the answer is there now.",
        "Look with `holdpoint log --kind replied`.";
    CheckMissing, "check_missing", Execution,
        "A check after the action was due, and nobody made it in time, or nobody can make it.",
        "Do not take the action for verified; report it.",
        "Look at the target yourself; checks need a process that governs when they are due.";
    TaskRefused, "task_refused", Execution,
        "A task of MCP was asked for, given or followed where none is agreed on.",
        "Call the tool without `task`; if it was called, check the state before you retry.",
        "Look at the upstream server if it answers with tasks that nobody offered to follow.";
    TaskUnknown, "task_unknown", Door,
        "The agent has no task with this id here.",
        "Use the `taskId` that the call was answered with, at the same endpoint.",
        "Nothing to do, unless it happens often: then somebody guesses.";
    TaskCancelled, "task_cancelled", Execution,
        "The upstream server says that the task was cancelled; what it did is not known.",
        "Check the state before you retry.",
        "Check the target with `holdpoint why`.";
    TaskLost, "task_lost", Execution,
        "The task did not end in its time, or its server does not know it any more.",
        "Check the state before you retry.",
        "Check the target; see whether the upstream server was started anew.";
    RequestStateRefused, "request_state_refused", Execution,
        "The `requestState` is changed, used, too old, or was given for another request.",
        "Send the request again without `requestState`.",
        "Nothing to do, unless it happens often: then somebody plays with states.";
    CredentialMissing, "credential_missing", Execution,
        "There is no credential that the upstream server takes; it has not looked at the call.",
        "Report it: an operator has to log in, and retrying does not help before that.",
        "Run the `holdpoint login` that the detail names; `holdpoint status` shows credentials.";
    CredentialTooNarrow, "credential_too_narrow", Execution,
        "The credential does not reach far enough; the upstream server has not looked at the call.",
        "Report which scope is missing; retrying does not help before an operator has extended it.",
        "Run the `holdpoint login … --scope …` that the detail names, if the agent should have it.";
    CancelledByStop, "cancelled_by_stop", Execution,
        "A stop cancelled the call while it ran; what it did is not known.",
        "Stop and wait.",
        "Check the target with `holdpoint why`.";
    CancelledByAgent, "cancelled_by_agent", Execution,
        "The agent cancelled the call while it ran; what it did is not known.",
        "Check the state before you retry.",
        "Nothing to do.";
}

// === impl Reason ===

impl Reason {
    /// The reason with this code.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.code() == code)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = String::deserialize(deserializer)?;
        let unknown = || serde::de::Error::custom(format!("`{code}` is no reason code"));
        Self::from_code(&code).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::Reason;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_and_snake_case() {
        let codes: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for code in codes {
            assert!(
                code.bytes().all(|byte| byte.is_ascii_lowercase() || b"_8".contains(&byte)),
                "{code}"
            );
            assert_eq!(Reason::from_code(code).unwrap().code(), code);
        }
    }
}
