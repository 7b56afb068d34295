//! One ref that moves: here or at a remote, forward or back.
//!
//! Owns the comparison with where the ref should be, and the end of a move. Must never move a ref
//! from anywhere else than where it was seen.

use super::plumbing::Ask;
use super::staging::Staged;
use super::{Git, GitSpec};
use crate::clearance::{answered, in_doubt, not_sent, reason, tool_error};
use crate::program::{ProgramFault, Ran};
use crate::resource::{Change, Conflict, Preview, ResourceFault, Undo};
use crate::upstream::{Cancels, Ended};
use holdpoint_types::{Disclosure, Reason, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fmt::Write as _;

/// Where the refs lie that keep commits for an undo: `UNTIL-OID` under this.
const KEPT: &str = "refs/holdpoint/undo/";

/// What made a ref move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Commit,
    Branch,
    Delete,
    Push,
    /// A push, taken back.
    Unpush,
}

/// One ref from here to there. Also what is captured to move it back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Move {
    pub(super) kind: Kind,
    /// Absent for the repository itself.
    pub(super) remote: Option<String>,
    /// The branch, without `refs/heads/`.
    pub(super) branch: String,
    /// Absent if it is made.
    pub(super) from: Option<String>,
    /// Absent if it is deleted.
    pub(super) to: Option<String>,
    /// What of the index goes with it.
    pub(super) staged: Staged,
    /// How long `from` is kept.
    pub(super) until: Timestamp,
}

/// Where a ref is.
#[derive(Debug)]
pub(super) enum Moved {
    Before,
    After,
    Elsewhere(Conflict),
}

// === impl Move ===

impl Move {
    /// What an undo holds.
    pub(super) fn captured(undo: &Undo) -> Result<Self, ResourceFault> {
        let change = Self::deserialize(&undo.data)
            .map_err(|fault| ResourceFault::Invalid(format!("what was captured: {fault}")))?;
        // It goes into command lines and names of refs.
        let hex = |oid: &String| {
            matches!(oid.len(), 40 | 64) && oid.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        if !change.from.iter().chain(&change.to).all(hex) {
            return Err(ResourceFault::Invalid("what was captured names no object".to_owned()));
        }
        Ok(change)
    }

    pub(super) fn reference(&self) -> String {
        format!("refs/heads/{}", self.branch)
    }

    /// The ref as a typed address.
    pub(super) fn address(&self, place: &str) -> String {
        match &self.remote {
            None => format!("{place}#{}", self.branch),
            Some(remote) => format!("{place}/{remote}#{}", self.branch),
        }
    }

    /// The same the other way.
    pub(super) fn inverse(self, until: Timestamp) -> Self {
        let staged = self.staged.inverse();
        let kind = match self.kind {
            Kind::Push | Kind::Unpush => Kind::Unpush,
            kind @ (Kind::Commit | Kind::Branch | Kind::Delete) => kind,
        };
        Self { kind, from: self.to, to: self.from, staged, until, ..self }
    }

    /// What moving it would show; nothing is sent that was not there before.
    pub(super) fn preview(&self, spec: &GitSpec) -> Preview {
        let commit = |oid: &String| json!({ "commit": oid });
        let change = Change {
            resource: self.address(&spec.place),
            before: self.from.as_ref().map(commit),
            after: self.to.as_ref().map(commit),
        };
        let traces = "whoever saw the remote's branch meanwhile keeps what was pushed: clones, \
                      pipelines, webhooks; the remote may refuse to move a branch back";
        let notes = self.remote.iter().map(|_| traces.to_owned()).collect();
        Preview {
            changes: vec![change],
            exact: self.remote.is_none(),
            guarantee: self.kind.guarantee(),
            until: None,
            disclosure: Disclosure::Contained,
            notes,
        }
    }

    fn result(&self) -> Ended {
        let word = |oid: &Option<String>| oid.clone().unwrap_or_else(|| "nothing".to_owned());
        let at = self.remote.as_ref().map(|remote| format!(" at {remote}")).unwrap_or_default();
        let text = format!("{}{at}: {} -> {}", self.reference(), word(&self.from), word(&self.to));
        let told = json!({ "ref": self.reference(), "from": self.from, "to": self.to });
        answered(&text, &told)
    }
}

// === impl Git ===

impl Git {
    /// Until when commits of a ref that is moved now are kept.
    pub(super) fn keep_until(&self, now: Timestamp) -> Timestamp {
        let keep = i64::try_from(self.spec().keep.as_millis()).unwrap_or(i64::MAX);
        Timestamp(now.0.saturating_add(keep))
    }

    /// Where the ref is now.
    pub(super) async fn look(&self, change: &Move) -> Result<Moved, ResourceFault> {
        let now = match &change.remote {
            None => self.local(&change.branch).await?,
            Some(remote) => self.at_remote(remote, &change.branch).await?,
        };
        let why = match (&now, &change.to) {
            (now, _) if *now == change.from => return Ok(Moved::Before),
            (now, to) if now == to => return Ok(Moved::After),
            (None, _) => "it is gone",
            (Some(_), None) => "somebody made it anew",
            (Some(_), Some(_)) => "it was moved afterwards; later commits are kept",
        };
        let resource = change.address(&self.spec().place);
        Ok(Moved::Elsewhere(Conflict { resource, why: why.to_owned() }))
    }

    /// The commit of a branch.
    pub(super) async fn local(&self, branch: &str) -> Result<Option<String>, ResourceFault> {
        let reference = format!("refs/heads/{branch}");
        if self.line(&["symbolic-ref", "--quiet", &reference]).await?.is_some() {
            return Err(ResourceFault::Refused("the branch only names another one".to_owned()));
        }
        self.line(&["rev-parse", "--verify", "--quiet", "--end-of-options", &reference]).await
    }

    /// The commit of a branch at a remote.
    pub(super) async fn at_remote(
        &self,
        remote: &str,
        branch: &str,
    ) -> Result<Option<String>, ResourceFault> {
        let reference = format!("refs/heads/{branch}");
        let words = ["ls-remote", "--refs", "--", remote, &reference];
        let ran = self.run(&words, &Ask::default()).await.map_err(ResourceFault::from)?;
        if !ran.status.success() {
            return Err(ResourceFault::Unavailable(format!("git ls-remote: {}", ran.told())));
        }
        // What was asked for is a pattern, which matches the ends of longer names too.
        let text = ran.text();
        let mut refs = text.lines().filter_map(|line| line.split_once('\t'));
        Ok(refs.find(|(_, name)| *name == reference).map(|(oid, _)| oid.to_owned()))
    }

    /// Refuses to delete what is checked out.
    pub(super) async fn in_use(&self, back: &Move) -> Result<Option<Conflict>, ResourceFault> {
        let deletes = back.remote.is_none() && back.to.is_none() && back.kind != Kind::Commit;
        if !deletes || !self.is_checked_out(&back.branch).await? {
            return Ok(None);
        }
        let resource = back.address(&self.spec().place);
        Ok(Some(Conflict { resource, why: "it is checked out".to_owned() }))
    }

    pub(super) async fn is_checked_out(&self, branch: &str) -> Result<bool, ResourceFault> {
        let ran = self.git(&["worktree", "list", "--porcelain"], &Ask::default()).await?;
        let own = format!("branch refs/heads/{branch}");
        Ok(ran.text().lines().any(|line| line == own))
    }

    /// Sees whether the commit that a ref is to go back to is still there.
    pub(super) async fn check_kept(&self, back: &Move) -> Result<(), ResourceFault> {
        let Some(oid) = &back.to else { return Ok(()) };
        if self.has(oid).await? {
            return Ok(());
        }
        Err(ResourceFault::Impossible("the commit from before was collected".to_owned()))
    }

    pub(super) async fn has(&self, oid: &str) -> Result<bool, ResourceFault> {
        let words = ["cat-file", "-e", &format!("{oid}^{{commit}}")];
        let ran = self.run(&words, &Ask::default()).await.map_err(ResourceFault::from)?;
        Ok(ran.status.success())
    }

    /// Moves a ref of this repository, and keeps its old commit, in one transaction.
    /// It takes an instant: it is not cancelled halfway.
    pub(super) async fn move_ref(&self, change: &Move) -> Ended {
        let lines = transaction(change);
        let message = "holdpoint: by a permitted call";
        let words = ["update-ref", "--no-deref", "-m", message, "--stdin"];
        let ran = match self.run(&words, &Ask::input(lines.as_bytes())).await {
            Ok(ran) => ran,
            Err(ProgramFault::Start(fault)) => {
                return not_sent(Reason::UpstreamUnavailable, fault.to_string());
            }
            Err(fault) => return in_doubt(reason(&fault), fault.to_string()),
        };
        if !ran.status.success() {
            return not_sent(Reason::TargetMoved, format!("git: {}", ran.told()));
        }
        match self.stage(&change.staged).await {
            Ok(()) => change.result(),
            Err(fault) => {
                let text = format!("the branch moved, but the index was left as it is: {fault}");
                answered(&text, &json!({ "ref": change.reference(), "to": change.to }))
            }
        }
    }

    /// Deletes the refs that kept commits for undos whose time is over. What fails is tried again
    /// after the next move.
    pub(super) async fn forget_expired(&self, now: Timestamp) {
        let words = ["for-each-ref", "--format=%(objectname) %(refname)", KEPT];
        let Ok(ran) = self.git(&words, &Ask::default()).await else { return };
        let mut lines = String::new();
        for line in ran.text().lines() {
            let Some((oid, name)) = line.split_once(' ') else { continue };
            let until = name.strip_prefix(KEPT).and_then(|rest| rest.split('-').next());
            if until.and_then(|until| until.parse().ok()).is_some_and(|until: i64| until < now.0) {
                let _ = writeln!(lines, "delete {name} {oid}");
            }
        }
        if !lines.is_empty() {
            let words = ["update-ref", "--no-deref", "--stdin"];
            let _ = self.git(&words, &Ask::input(lines.as_bytes())).await;
        }
    }

    /// Moves a branch of a remote, if both ends are as they were seen.
    pub(super) async fn push(&self, change: &Move, cancels: &Cancels) -> Ended {
        if let Err(ended) = self.check_ends(change).await {
            return ended;
        }
        if let Err(ended) = self.keep(change).await {
            return ended;
        }
        let Some(remote) = &change.remote else {
            return not_sent(Reason::CouldNotDecide, "no remote");
        };
        let (reference, own) =
            (change.reference(), |oid: &Option<String>| oid.clone().unwrap_or_default());
        let lease = format!("--force-with-lease={reference}:{}", own(&change.from));
        let refspec = format!("{}:{reference}", own(&change.to));
        let mut words = vec!["push", "--porcelain", "--no-follow-tags", "--no-signed"];
        words.extend(["--recurse-submodules=no", "--no-force-if-includes", &lease]);
        words.extend((!self.spec().programs).then_some("--no-verify"));
        words.extend(["--", remote, &refspec]);
        match self.run(&words, &Ask::watched(cancels)).await {
            Ok(ran) => self.pushed(change, &ran).await,
            Err(ProgramFault::Start(fault)) => {
                not_sent(Reason::UpstreamUnavailable, fault.to_string())
            }
            Err(fault) => in_doubt(reason(&fault), fault.to_string()),
        }
    }

    async fn check_ends(&self, change: &Move) -> Result<(), Ended> {
        let unavailable =
            |fault: ResourceFault| not_sent(Reason::UpstreamUnavailable, fault.to_string());
        let moved = |what: &str| Err(not_sent(Reason::TargetMoved, what));
        match self.look(change).await.map_err(unavailable)? {
            Moved::Before => {}
            Moved::After => return moved("the remote's branch is there already"),
            Moved::Elsewhere(_) => return moved("the remote's branch was moved since the preview"),
        }
        // A push is of a branch; a revert is of the commit that was captured.
        if change.kind == Kind::Push {
            let local = self.local(&change.branch).await.map_err(unavailable)?;
            if local != change.to {
                return moved("the local branch was moved since the preview");
            }
        }
        Ok(())
    }

    /// Keeps the remote's old commit here: the remote itself may collect it.
    async fn keep(&self, change: &Move) -> Result<(), Ended> {
        let Some(line) = keep_line(change) else { return Ok(()) };
        let words = ["update-ref", "--no-deref", "--stdin"];
        match self.git(&words, &Ask::input(line.as_bytes())).await {
            Ok(_) => Ok(()),
            Err(fault) => Err(not_sent(Reason::UpstreamUnavailable, fault.to_string())),
        }
    }

    /// What became of a push, by what git says of the one ref, else by looking.
    async fn pushed(&self, change: &Move, ran: &Ran) -> Ended {
        let (text, target) = (ran.text(), format!(":{}", change.reference()));
        let mut lines = text
            .lines()
            .filter(|line| line.split('\t').nth(1).is_some_and(|pair| pair.ends_with(&target)));
        let line = lines.next().unwrap_or_default();
        if line.starts_with('!') {
            if line.contains("(stale info)") {
                let text = "the remote's branch was moved since the preview";
                return not_sent(Reason::TargetMoved, text);
            }
            if !line.contains("[remote failure]") {
                let said = line.split('\t').nth(2).unwrap_or_default();
                return tool_error(&format!("not pushed: {said} {}", ran.told()));
            }
        }
        if ran.status.success() {
            return change.result();
        }
        match self.look(change).await {
            Ok(Moved::After) => change.result(),
            Ok(Moved::Before | Moved::Elsewhere(_)) | Err(_) => {
                in_doubt(Reason::UpstreamUnavailable, format!("git push: {}", ran.told()))
            }
        }
    }
}

fn keep_line(change: &Move) -> Option<String> {
    let oid = change.from.as_ref()?;
    Some(format!("update {KEPT}{}-{oid} {oid}\n", change.until.0.max(0)))
}

fn transaction(change: &Move) -> String {
    let reference = change.reference();
    let keep = keep_line(change).unwrap_or_default();
    let line = match (&change.from, &change.to) {
        (Some(from), Some(to)) => format!("update {reference} {to} {from}\n"),
        (None, Some(to)) => format!("create {reference} {to}\n"),
        (Some(from), None) => format!("delete {reference} {from}\n"),
        (None, None) => String::new(),
    };
    format!("start\n{keep}{line}prepare\ncommit\n")
}
