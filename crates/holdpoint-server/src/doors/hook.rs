//! The door of hooks: a coding agent's host asks before it executes a call itself, and says
//! afterwards how the call ended.
//!
//! Owns what is common to hosts; each has one file for its own words. Must never wait for people,
//! never ask the host's user, and never answer what a host could take for a yes unless it is one.

mod claude_code;

use crate::doors::local::client::{self, AskFault};
use crate::doors::local::{self, Kind};
use crate::governor::{Call, Governor, HOST_CALL_KEY, Refusal, Told};
use crate::store::StoreFault;
use holdpoint_resources::Ended;
use holdpoint_types::{
    ActionId, AgentName, Digest, Door, InvalidName, JsonFault, ServerName, ToolRef,
    canonical_digest,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::Duration;

pub use claude_code::{BYTES_MAX, known_reads};

/// Where the parameters of a host's call hold the folder that it runs in: the same command in
/// another folder is another call.
pub const CWD_KEY: &str = "io.holdpoint/cwd";
/// Longest id that a host may give a session or a call, in bytes.
const ID_BYTES_MAX: usize = 512;

/// A program that runs a coding agent, and executes its tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Host {
    /// Claude Code.
    ClaudeCode,
}

/// What a host's hook was given, and for whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HookAsk {
    /// Who acts.
    pub agent: AgentName,
    /// Whose words these are.
    pub host: Host,
    /// The name under which its tools are known.
    pub server: ServerName,
    /// Longest call, in bytes.
    pub bytes_max: usize,
    /// What the host said, word for word.
    pub said: String,
}

/// Why a hook has no answer. Whoever asked must block the call.
#[derive(Debug, thiserror::Error)]
pub enum HookFault {
    /// It cannot be read.
    #[error("what the host said cannot be read: {0}")]
    Unreadable(String),
    /// It is no JSON that is accepted.
    #[error("what the host said cannot be read: {0}")]
    Json(#[from] JsonFault),
    /// The host's name of a tool is none.
    #[error(transparent)]
    Tool(#[from] InvalidName),
    /// It tells of a call that was not permitted.
    #[error(
        "no permitted call is open under this id: let the same tools ask before \
         (`PreToolUse`) that tell afterwards"
    )]
    NotPermitted,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreFault),
}

/// What a host says.
enum Said {
    /// It wants to execute a call.
    Wants(Wanted),
    /// It executed one.
    Ended { tool: String, id: HostId, ended: Ended },
}

/// A call, in our words.
struct Wanted {
    tool: String,
    input: Map<String, Value>,
    cwd: String,
    id: HostId,
}

/// What a host calls a call.
struct HostId {
    session: String,
    call: String,
}

// === impl Host ===

impl Host {
    /// Every host, in the order of their names.
    pub const ALL: [Self; 1] = [Self::ClaudeCode];

    /// The stable word in configurations and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude-code",
        }
    }
}

// === impl HostId ===

impl HostId {
    fn digest(&self) -> Result<Digest, HookFault> {
        let digest = canonical_digest(&json!([self.session, self.call]));
        digest.map_err(|fault| HookFault::Unreadable(fault.to_string()))
    }
}

/// Asks the `serve` that governs on the store in `dir`, if there is one that can be reached.
///
/// # Errors
/// When there is one and it has no answer: the call must be blocked.
pub async fn ask_serve(
    dir: &Path,
    ask: &HookAsk,
    patience: Duration,
) -> Result<Option<Value>, AskFault> {
    let unusable = |fault: &dyn std::fmt::Display| AskFault::Unreachable(fault.to_string());
    let live = local::live(dir).map_err(|fault| unusable(&fault))?;
    for process in live.into_iter().filter(|process| process.kind == Kind::Serve) {
        let json = serde_json::to_vec(ask).map_err(|fault| unusable(&fault))?;
        match client::tell(&process.socket, ("POST", "/v1/hook"), json.into(), patience).await {
            // It is gone, or going. Whatever it decided, nobody was told.
            Err(AskFault::Unreachable(_)) => {}
            other => return other.map(Some),
        }
    }
    Ok(None)
}

/// Answers what a host's hook was given, in the host's words.
///
/// # Errors
/// When there is no answer: the call must be blocked.
pub async fn answer(governor: &Governor, ask: HookAsk) -> Result<Value, HookFault> {
    let HookAsk { agent, host, server, bytes_max, said } = ask;
    let said = match host {
        Host::ClaudeCode => claude_code::read(said.as_bytes(), bytes_max)?,
    };
    match said {
        Said::Wants(wanted) => {
            let (action, ruled) = governor.decide_for_host(call(agent, server, wanted)?).await;
            Ok(told(host, action, ruled.as_ref().err()))
        }
        Said::Ended { tool, id, ended } => {
            let (tool, host_call) = (ToolRef::new(server, &tool)?, id.digest()?);
            let told = Told { agent, tool, host_call, ended };
            match governor.host_told(told).await? {
                Some(_) => Ok(json!({})),
                None => Err(HookFault::NotPermitted),
            }
        }
    }
}

fn told(host: Host, action: ActionId, refused: Option<&Refusal>) -> Value {
    match host {
        Host::ClaudeCode => claude_code::ruled(action, refused),
    }
}

fn call(agent: AgentName, server: ServerName, wanted: Wanted) -> Result<Call, HookFault> {
    let Wanted { tool, mut input, cwd, id } = wanted;
    let tool = ToolRef::new(server, &tool)?;
    if !cwd.starts_with('/') {
        return Err(HookFault::Unreadable("its folder is no absolute path".to_owned()));
    }
    if input.insert(CWD_KEY.to_owned(), cwd.into()).is_some() {
        return Err(HookFault::Unreadable(format!("the parameter `{CWD_KEY}` is reserved")));
    }
    let meta = json!({
        "io.holdpoint/task": { "id": id.session },
        (HOST_CALL_KEY): id.digest()?.to_string(),
    });
    let (parameters, meta) = (Value::Object(input), Some(meta));
    Ok(Call { agent, door: Door::Hook, tool, parameters, meta, condition: None })
}
