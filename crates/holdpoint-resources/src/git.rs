//! Git: commits, branches and pushes, previewed as the refs, files and commits that they change,
//! and taken back by moving refs to where they were.
//!
//! Serves its tools itself. Must never move a ref that is not where the preview saw it, never touch
//! the work tree, and never run a program that a repository names unless the operator says so.

mod calls;
mod moves;
mod plumbing;
mod preview;
mod staging;

use crate::clearance::{Clearance, answered, not_sent, reason, tool_error};
use crate::resource::{
    Conflict, Executed, Forward, Preview, Proposed, Resource, ResourceFault, Reverting,
    TargetState, Undo,
};
use crate::upstream::{Cancels, Ended, SecretText};
use calls::Call;
use holdpoint_control::Permit;
use holdpoint_types::{Disclosure, Reason, Reversibility, ServerName, Timestamp};
use moves::{Kind, Move, Moved};
use serde_json::{Value, json};
use staging::Staged;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// One repository, and how git is run in it.
#[derive(Clone, Debug)]
pub struct GitSpec {
    /// The name of the server that its tools belong to.
    pub server: ServerName,
    /// Its address: `git://NAME`.
    pub place: String,
    /// The work tree.
    pub repository: PathBuf,
    /// The program `git`.
    pub program: PathBuf,
    /// Whose commits these are: name and address.
    pub author: (String, String),
    /// Variables that git gets besides, for what remotes want: `GIT_SSH_COMMAND`, `GIT_ASKPASS`.
    pub env: BTreeMap<String, SecretText>,
    /// The transports that remotes may use: `https`, `ssh`, `file`.
    pub transports: Vec<String>,
    /// True if remotes belong to the same trust zone as the repository.
    pub remote_inside: bool,
    /// True if hooks and programs that configuration names may run.
    pub programs: bool,
    /// How long the commits of moved refs are kept from being collected.
    pub keep: Duration,
    /// How long one run of git may take.
    pub timeout: Duration,
    /// How much a call may be about.
    pub limits: GitLimits,
}

/// How much one call may be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GitLimits {
    /// Most files of a commit.
    pub files_max: usize,
    /// Most commits of a push.
    pub commits_max: usize,
    /// Most bytes that one run of git may write.
    pub output_bytes_max: usize,
    /// Longest text of a file that a preview shows, in bytes; of longer ones it names the blob.
    pub text_bytes_max: usize,
}

/// One repository as a resource.
#[derive(Clone, Debug)]
pub struct Git(GitSpec);

/// A previewed call. Holds nothing open.
#[derive(Debug)]
pub struct GitPrepared {
    clearance: Clearance,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// Looks, by these arguments.
    Read(Vec<String>),
    /// Moves one ref.
    Move(Box<Move>),
    /// Every ref is where it should be; at most the index lags behind.
    Settle(Staged),
}

// === impl GitLimits ===

impl Default for GitLimits {
    fn default() -> Self {
        Self {
            files_max: 1000,
            commits_max: 1000,
            output_bytes_max: 8 << 20,
            text_bytes_max: 16 << 10,
        }
    }
}

// === impl Git ===

impl Git {
    /// A repository; nothing is looked at yet.
    pub fn new(spec: GitSpec) -> Self {
        Self(spec)
    }

    /// What it was made from.
    pub fn spec(&self) -> &GitSpec {
        &self.0
    }

    /// The tools that it serves, as MCP describes tools.
    pub fn tools() -> Vec<Value> {
        calls::tools()
    }

    async fn read(&self, arguments: &[String], cancels: &Cancels) -> Ended {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match self.run(&words, &plumbing::Ask::watched(cancels)).await {
            Ok(ran) if ran.status.success() => {
                let text = ran.text();
                answered(&text, &json!({ "output": text }))
            }
            Ok(ran) => tool_error(&format!("git: {}", ran.told())),
            Err(fault) => not_sent(reason(&fault), fault.to_string()),
        }
    }

    async fn work(&self, work: Work, clearance: &Clearance, cancels: &Cancels) -> Executed {
        match work {
            Work::Read(arguments) => self.read(&arguments, cancels).await.into(),
            Work::Move(change) => self.do_move(&change, clearance, cancels).await,
            Work::Settle(staged) => {
                let text = match self.stage(&staged).await {
                    Ok(()) => "everything is as it was before".to_owned(),
                    Err(fault) => format!("the refs are as they were; the index: {fault}"),
                };
                answered(&text, &json!({ "changed": false })).into()
            }
        }
    }

    async fn do_move(&self, change: &Move, clearance: &Clearance, cancels: &Cancels) -> Executed {
        if change.remote.is_some() {
            return self.push(change, cancels).await.into();
        }
        let ended = self.move_ref(change).await;
        if matches!(ended, Ended::Answered { tool_error: false, .. }) {
            self.forget_expired(clearance.now()).await;
        }
        ended.into()
    }
}

impl Resource for Git {
    type Prepared = GitPrepared;

    async fn preview(
        &self,
        proposed: Proposed<'_>,
    ) -> Result<Option<(Preview, GitPrepared)>, ResourceFault> {
        if *proposed.tool.server() != self.0.server {
            return Ok(None);
        }
        let Some(call) = Call::read(proposed.tool.name(), proposed.parameters)? else {
            return Ok(None);
        };
        let clearance = Clearance::call(proposed)?;
        self.check_configuration().await?;
        let (preview, work) = match call {
            Call::Read(arguments) => (nothing(), Work::Read(arguments)),
            Call::Commit(commit) => self.preview_commit(commit, proposed.now).await?,
            Call::Branch { name, start } => {
                self.preview_branch(&name, &start, proposed.now).await?
            }
            Call::BranchDelete { name } => self.preview_delete(&name, proposed.now).await?,
            Call::Push(push) => self.preview_push(push, proposed.now).await?,
        };
        Ok(Some((preview, GitPrepared { clearance, work })))
    }

    fn undo(&self, prepared: &GitPrepared) -> Option<Undo> {
        let Work::Move(change) = &prepared.work else { return None };
        let guarantee = change.kind.guarantee();
        let until = (guarantee == Reversibility::ExactUntil).then_some(change.until);
        Some(Undo { guarantee, until, data: serde_json::to_value(change).ok()? })
    }

    async fn execute(
        &self,
        permit: Permit,
        prepared: GitPrepared,
        around: (Cancels, Forward),
    ) -> Executed {
        let GitPrepared { clearance, work } = prepared;
        let (cancels, _) = around;
        if let Err(ended) = clearance.begin(permit, &cancels) {
            return ended.into();
        }
        // The configuration may have been changed since the preview.
        if let Err(fault) = self.check_configuration().await {
            return not_sent(Reason::TargetMoved, fault.to_string()).into();
        }
        let executed = self.work(work, &clearance, &cancels).await;
        // Every git has ended, whatever became of it.
        cancels.gone.cancel();
        executed
    }

    async fn verify(&self, undo: &Undo) -> Result<TargetState, ResourceFault> {
        let change = Move::captured(undo)?;
        self.check_configuration().await?;
        Ok(match self.look(&change).await? {
            Moved::Before => TargetState::Before,
            Moved::After => TargetState::After,
            Moved::Elsewhere(conflict) => TargetState::Changed(vec![conflict]),
        })
    }

    async fn revert(
        &self,
        undo: &Undo,
        now: Timestamp,
    ) -> Result<Reverting<GitPrepared>, ResourceFault> {
        let change = Move::captured(undo)?;
        self.check_configuration().await?;
        let settle = |conflicts: Vec<Conflict>, staged: Staged| {
            let clearance = Clearance::revert(now);
            let prepared = GitPrepared { clearance, work: Work::Settle(staged) };
            Ok(Reverting { preview: nothing(), conflicts, prepared })
        };
        let back = match self.look(&change).await? {
            Moved::Before => return settle(Vec::new(), change.staged.inverse()),
            Moved::Elsewhere(conflict) => return settle(vec![conflict], Staged::default()),
            Moved::After => change.inverse(self.keep_until(now)),
        };
        if let Some(conflict) = self.in_use(&back).await? {
            return settle(vec![conflict], Staged::default());
        }
        self.check_kept(&back).await?;
        let preview = back.preview(&self.0);
        let work = Work::Move(Box::new(back));
        Ok(Reverting {
            preview,
            conflicts: Vec::new(),
            prepared: GitPrepared { clearance: Clearance::revert(now), work },
        })
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

/// How well a ref of this kind can be moved back.
impl Kind {
    fn guarantee(self) -> Reversibility {
        match self {
            Self::Branch => Reversibility::Exact,
            Self::Commit | Self::Delete | Self::Push | Self::Unpush => Reversibility::ExactUntil,
        }
    }
}
