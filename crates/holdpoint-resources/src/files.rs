//! Files of a server on the same host: looked at before and after its calls, and put back.
//!
//! Owns what is captured around a call that the server itself executes. Must never follow a link,
//! never leave the roots, and never put back what somebody changed since.

mod back;
mod shape;
mod shell;
mod tree;

pub use shape::FileShape;
pub use shell::{Shell, ShellPrepared, ShellSpec};
pub use tree::FilesLimits;

use crate::clearance::{Clearance, answered, cancelled, in_doubt, not_sent};
use crate::resource::{
    Change, Conflict, Executed, Forward, Preview, Proposed, Resource, ResourceFault, Reverting,
    TargetState, Undo,
};
use crate::upstream::{Cancels, Ended};
use back::Plan;
use holdpoint_control::Permit;
use holdpoint_types::{
    Certainty, Disclosure, Effect, Extent, Reason, Reversibility, ServerName, Timestamp, Verb,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shape::Known;
use similar::TextDiff;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use tree::{Grounds, Node, Snapshot, Watch, all_same, same};

/// Longer texts are not compared line by line.
const DIFF_BYTES: usize = 256 << 10;
/// Texts of more lines are not either: where all of them differ, that takes the square of it.
const DIFF_LINES: usize = 5_000;

/// Who executes the calls that are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executor {
    /// A server, to which each call is sent.
    Server,
    /// The host of a coding agent, which says itself when a call has ended. Only calls are looked
    /// at whose shape is known: what else it runs may go on afterwards.
    Host,
}

/// A server that works on files of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesSpec {
    /// The server beside which this stands.
    pub server: ServerName,
    /// Who executes its calls.
    pub executor: Executor,
    /// The folders in which it works, absolute and without links.
    pub roots: Vec<PathBuf>,
    /// What the parameters of its tools say, by the names of the tools.
    pub shapes: BTreeMap<String, FileShape>,
    /// How much one call may touch.
    pub limits: FilesLimits,
}

/// The files of one server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Files(Arc<FilesSpec>);

/// A previewed call, or a revert.
#[derive(Debug)]
pub struct FilesPrepared {
    clearance: Clearance,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// The server is called.
    Forward(Box<Kept>),
    /// Files are put back.
    Back(Box<(Plan, Kept)>),
}

/// What lies in [`Undo::data`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    watched: Vec<Watch>,
    before: Snapshot,
    /// What is left: seen afterwards, or foreseen. Absent if neither.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    after: Option<Snapshot>,
    /// True if all that the call touches is in it.
    whole: bool,
}

/// What the effects of a call say about files.
#[derive(Debug, Default)]
struct Touched {
    watched: BTreeSet<Watch>,
    /// What they say that cannot be captured.
    beyond: Vec<String>,
}

// === impl Files ===

impl Files {
    /// The files that the server of `spec` works on.
    pub fn new(spec: FilesSpec) -> Self {
        Self(Arc::new(spec))
    }

    /// What it was made from.
    pub fn spec(&self) -> &FilesSpec {
        &self.0
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&FilesSpec, &Grounds<'_>) -> Result<T, ResourceFault> + Send + 'static,
    ) -> Result<T, ResourceFault> {
        let spec = Arc::clone(&self.0);
        let work = move || work(&spec, &Grounds::new(&spec.roots, spec.limits));
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|fault| Err(ResourceFault::Unavailable(fault.to_string())))
    }

    /// Sends the call on, if all still is as it was seen, and looks again afterwards.
    async fn forward(
        &self,
        permit: Permit,
        kept: Kept,
        (cancels, forward): (Cancels, Forward),
    ) -> Executed {
        let watched = kept.watched.clone();
        let look = self.blocking(move |_, grounds| grounds.look(&watched)).await;
        match look {
            Ok((now, _)) if all_same(&now, &kept.before) => {}
            Ok(_) => {
                return not_sent(Reason::TargetMoved, "files changed since they were seen").into();
            }
            Err(fault) => return not_sent(Reason::TargetMoved, fault.to_string()).into(),
        }
        if let Some(reason) = cancelled(&cancels) {
            return not_sent(reason, "cancelled before it was sent").into();
        }
        let ended = forward(permit).await;
        // What a server that may still be at work leaves is not seen yet.
        let undo = match &ended {
            Ended::Answered { .. } => self.seen_after(kept).await,
            Ended::NotSent { .. } | Ended::InDoubt { .. } | Ended::Task { .. } => None,
        };
        Executed { ended, undo }
    }

    async fn seen_after(&self, mut kept: Kept) -> Option<Undo> {
        let watched = kept.watched.clone();
        match self.blocking(move |_, grounds| grounds.look(&watched)).await {
            Ok((after, _)) => {
                let after = lean(&after);
                if kept.after.as_ref().is_some_and(|foreseen| !all_same(foreseen, &after)) {
                    let server = &self.0.server;
                    tracing::warn!(%server, "files are other than their preview said");
                }
                kept.after = Some(after);
                Some(kept.undo())
            }
            Err(fault) => {
                let server = &self.0.server;
                tracing::warn!(%server, %fault, "files cannot be seen after a call");
                None
            }
        }
    }
}

impl Resource for Files {
    type Prepared = FilesPrepared;

    async fn preview(
        &self,
        proposed: Proposed<'_>,
    ) -> Result<Option<(Preview, FilesPrepared)>, ResourceFault> {
        if *proposed.tool.server() != self.0.server {
            return Ok(None);
        }
        let changing = proposed.effects.iter().any(|effect| effect.verb != Verb::Read);
        let hosted = self.0.executor == Executor::Host;
        if !changing || (hosted && !self.0.shapes.contains_key(proposed.tool.name())) {
            return Ok(None);
        }
        let clearance = Clearance::call(proposed)?;
        let effects = proposed.effects.to_vec();
        let (tool, parameters) = (proposed.tool.name().to_owned(), proposed.parameters.clone());
        let work = move |spec: &FilesSpec, grounds: &Grounds<'_>| {
            foresee(spec, grounds, &effects, (&tool, &parameters))
        };
        let (preview, kept) = self.blocking(work).await?;
        if hosted && kept.watched.is_empty() {
            return Ok(None);
        }
        let work = Work::Forward(Box::new(kept));
        Ok(Some((preview, FilesPrepared { clearance, work })))
    }

    fn undo(&self, prepared: &FilesPrepared) -> Option<Undo> {
        Some(match &prepared.work {
            Work::Forward(kept) => kept.undo(),
            Work::Back(back) => back.1.undo(),
        })
    }

    async fn execute(
        &self,
        permit: Permit,
        prepared: FilesPrepared,
        around: (Cancels, Forward),
    ) -> Executed {
        let FilesPrepared { clearance, work } = prepared;
        match work {
            Work::Forward(kept) => match clearance.check(&permit) {
                Ok(()) => self.forward(permit, *kept, around).await,
                Err(ended) => ended.into(),
            },
            Work::Back(back) => {
                let (cancels, _) = around;
                if let Err(ended) = clearance.begin(permit, &cancels) {
                    return ended.into();
                }
                let (plan, _) = *back;
                let count = plan.steps.len();
                let done = self.blocking(move |_, grounds| plan.perform(grounds)).await;
                cancels.gone.cancel();
                match done {
                    Ok(kept) => told(count, &kept).into(),
                    Err(fault) => in_doubt(Reason::UpstreamUnavailable, fault.to_string()).into(),
                }
            }
        }
    }

    async fn look_after(&self, undo: &Undo) -> Result<Option<Undo>, ResourceFault> {
        let mut kept = kept(undo)?;
        let watched = kept.watched.clone();
        let (seen, _) = self.blocking(move |_, grounds| grounds.look(&watched)).await?;
        kept.host_left(&lean(&seen));
        Ok(Some(kept.undo()))
    }

    async fn verify(&self, undo: &Undo) -> Result<TargetState, ResourceFault> {
        let kept = kept(undo)?;
        self.blocking(move |_, grounds| Ok(kept.state(&grounds.look(&kept.watched)?.0))).await
    }

    async fn revert(
        &self,
        undo: &Undo,
        now: Timestamp,
    ) -> Result<Reverting<FilesPrepared>, ResourceFault> {
        let kept = kept(undo)?;
        let work = move |_: &FilesSpec, grounds: &Grounds<'_>| {
            let (current, notes) = grounds.look(&kept.watched)?;
            let sides = (&kept.before, kept.after.as_ref());
            let plan = back::plan(grounds, sides, &current);
            let mut after = current.clone();
            for step in &plan.steps {
                match &step.then {
                    Some(node) => after.insert(step.path.clone(), node.clone()),
                    None => after.remove(&step.path),
                };
            }
            let changes = changes(&current, Some(&after));
            let watched = kept.watched;
            let undo = Kept { watched, before: current, after: Some(lean(&after)), whole: true };
            Ok((changes, notes, plan, undo))
        };
        let (changes, notes, plan, undo) = self.blocking(work).await?;
        let conflicts: Vec<Conflict> = plan.conflicts.iter().cloned().collect();
        let guarantee = Reversibility::Exact;
        let preview = preview((changes, notes), true, guarantee);
        let (clearance, work) = (Clearance::revert(now), Work::Back(Box::new((plan, undo))));
        Ok(Reverting { preview, conflicts, prepared: FilesPrepared { clearance, work } })
    }
}

// === impl Kept ===

impl Kept {
    fn undo(&self) -> Undo {
        let guarantee = if self.whole { Reversibility::Exact } else { Reversibility::Irreversible };
        Undo { guarantee, until: None, data: serde_json::to_value(self).unwrap_or_default() }
    }

    /// Takes in what was `seen` some time after a host's call. Others may have been there: what is
    /// other than foreseen is theirs, and nothing tells what a call left that changed nothing yet.
    fn host_left(&mut self, seen: &Snapshot) {
        match &mut self.after {
            Some(foreseen) => {
                for (path, node) in foreseen {
                    let now = seen.get(path).filter(|now| same(Some(node), Some(now)));
                    if let Some(now) = now {
                        *node = now.clone();
                    }
                }
            }
            None => self.after = (!all_same(&self.before, seen)).then(|| seen.clone()),
        }
    }

    fn state(&self, now: &Snapshot) -> TargetState {
        if self.after.as_ref().is_some_and(|after| all_same(after, now)) {
            return TargetState::After;
        }
        if all_same(&self.before, now) {
            return TargetState::Before;
        }
        let Some(after) = &self.after else {
            let why = "files changed, and what the action left was not seen".to_owned();
            return TargetState::Unknown(why);
        };
        let paths: BTreeSet<&String> =
            now.keys().chain(after.keys()).chain(self.before.keys()).collect();
        let other = paths.into_iter().filter_map(|path| {
            let (was, left, is) = (self.before.get(path), after.get(path), now.get(path));
            let why = match (same(is, was), same(is, left)) {
                (true, _) => return None,
                (false, true) => "is as the action left it",
                (false, false) => "it was changed since",
            };
            Some(Conflict { resource: address(path), why: why.to_owned() })
        });
        TargetState::Changed(other.collect())
    }
}

// === impl Touched ===

impl Touched {
    fn by(effects: &[Effect], grounds: &Grounds<'_>) -> Self {
        let mut touched = Self::default();
        for effect in effects.iter().filter(|effect| effect.verb != Verb::Read) {
            touched.add(effect, grounds);
        }
        touched
    }

    fn add(&mut self, effect: &Effect, grounds: &Grounds<'_>) {
        let resource = &effect.resource;
        let path = resource.strip_prefix("file://").filter(|path| path.starts_with('/'));
        let Some(path) = path else {
            self.beyond.push(format!("`{resource}` is no file of this host"));
            return;
        };
        let path = path.trim_end_matches('/');
        if effect.certainty == Certainty::Opaque || path.contains('*') {
            self.beyond.push(format!("which files are meant by `{resource}` is not known"));
            return;
        }
        if !grounds.covers(path) {
            self.beyond.push(format!("`{resource}` is not below a root"));
            return;
        }
        let deep = match effect.verb {
            // What is moved, deleted or replaced may be a folder.
            Verb::Delete | Verb::Update => true,
            Verb::Grant | Verb::Create | Verb::Schedule => effect.extent == Extent::Whole,
            Verb::Read => return,
            Verb::Send | Verb::Execute | Verb::Unknown => {
                let verb = effect.verb;
                self.beyond.push(format!("what comes of the {verb} of `{resource}` is not known"));
                return;
            }
        };
        self.watched.insert(Watch { path: path.to_owned(), deep });
    }
}

/// What a call would do to files, and what is kept to take it back.
fn foresee(
    spec: &FilesSpec,
    grounds: &Grounds<'_>,
    effects: &[Effect],
    (tool, parameters): (&str, &Value),
) -> Result<(Preview, Kept), ResourceFault> {
    let touched = Touched::by(effects, grounds);
    let mut paths: Vec<String> = touched
        .watched
        .iter()
        .map(|watch| watch.path.clone())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let shape = spec.shapes.get(tool);
    let bytes_max = spec.limits.file_bytes_max;
    let mut watched = touched.watched;
    let nothing = Snapshot::new();
    if let Some(shape) = shape {
        let known = Known { parameters, paths: &paths, before: &nothing, bytes_max };
        for path in shape.missing(&known, grounds) {
            watched.insert(Watch { path: path.clone(), deep: false });
            paths.push(path);
        }
    }
    let watched = outermost(watched);
    let (before, mut notes) = grounds.look(&watched)?;
    let known = Known { parameters, paths: &paths, before: &before, bytes_max };
    let after = match shape {
        Some(shape) => shape.predict(&known).map_err(ResourceFault::TooLarge)?,
        None => deleted(effects, &before),
    };
    let whole = touched.beyond.is_empty();
    notes.extend(touched.beyond);
    match &after {
        None => notes.push("no preview: the parameters do not say what files will be".to_owned()),
        Some(after) if after.iter().any(|after| is_chosen(after, &before, spec.executor)) => {
            notes.push("whoever writes it chooses its mode".to_owned());
        }
        Some(_) => {}
    }
    if let Some(link) = before.iter().find(|(path, node)| is_written_through(path, node, effects)) {
        let text = format!("`{}` is a link; name the file itself", link.0);
        return Err(ResourceFault::Refused(text));
    }
    let exact = whole && after.is_some();
    let guarantee = if whole { Reversibility::Exact } else { Reversibility::Irreversible };
    let changes = changes(&before, after.as_ref());
    let after = after.map(|after| lean(&after));
    let kept = Kept { watched, before, after, whole };
    Ok((preview((changes, notes), exact, guarantee), kept))
}

/// What is left by a call that deletes and does nothing else.
fn deleted(effects: &[Effect], before: &Snapshot) -> Option<Snapshot> {
    let mut changing = effects.iter().filter(|effect| effect.verb != Verb::Read);
    let only =
        |effect: &Effect| effect.verb == Verb::Delete && effect.certainty == Certainty::Exact;
    let left = |path: &&String| {
        !effects.iter().any(|effect| {
            let named = effect.resource.strip_prefix("file://");
            let rest = named.and_then(|named| path.strip_prefix(named.trim_end_matches('/')));
            effect.verb == Verb::Delete
                && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    let kept = before.iter().filter(|(path, _)| left(path));
    changing.all(only).then(|| kept.map(|(path, node)| (path.clone(), node.clone())).collect())
}

/// True for a link that a server would write through.
fn is_written_through(path: &str, node: &Node, effects: &[Effect]) -> bool {
    let named = |effect: &&Effect| effect.resource.strip_prefix("file://") == Some(path);
    let mut own = effects.iter().filter(named).peekable();
    matches!(node, Node::Link { .. })
        && own.peek().is_some()
        && own.all(|effect| !matches!(effect.verb, Verb::Delete | Verb::Read))
}

/// Without what lies below something that is looked at whole.
fn outermost(watched: BTreeSet<Watch>) -> Vec<Watch> {
    let deep: Vec<&str> =
        watched.iter().filter(|watch| watch.deep).map(|watch| &*watch.path).collect();
    let below = |watch: &Watch| {
        deep.iter().any(|path| {
            let rest = watch.path.strip_prefix(path);
            rest.is_some_and(|rest| rest.starts_with('/') || rest.is_empty() && !watch.deep)
        })
    };
    watched.iter().filter(|watch| !below(watch)).cloned().collect()
}

fn changes(before: &Snapshot, after: Option<&Snapshot>) -> Vec<Change> {
    let Some(after) = after else {
        // What is not foreseen may happen to all of it.
        let change = |(path, node): (&String, &Node)| Change {
            resource: address(path),
            before: Some(shown(node)),
            after: Some(json!({ "kind": "unknown" })),
        };
        return before.iter().map(change).collect();
    };
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let sides = paths.into_iter().map(|path| (path, before.get(path), after.get(path)));
    sides
        .filter(|(_, was, is)| !same(*was, *is))
        .map(|(path, was, is)| {
            let mut left = is.map(shown);
            let members = left.as_mut().and_then(Value::as_object_mut);
            if let (Some(members), Some(diff)) = (members, diff(path, was, is)) {
                members.insert("diff".to_owned(), diff.into());
            }
            Change { resource: address(path), before: was.map(shown), after: left }
        })
        .collect()
}

/// What people see of a file: not its contents, which its diff shows.
fn shown(node: &Node) -> Value {
    let mode = |mode: &Option<u32>| mode.map(|mode| format!("{mode:04o}"));
    let mut shown = match node {
        Node::File { digest, bytes, mode: own, .. } => json!({
            "kind": "file", "digest": digest.to_string(), "bytes": bytes, "mode": mode(own),
        }),
        Node::Folder { mode: own } => json!({ "kind": "folder", "mode": mode(own) }),
        Node::Link { target } => json!({ "kind": "link", "target": target }),
    };
    if let Some(members) = shown.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    shown
}

/// The lines that change, where both sides are texts that are not too long.
fn diff(path: &str, was: Option<&Node>, is: Option<&Node>) -> Option<String> {
    let text = |node: Option<&Node>| match node {
        None => Some(String::new()),
        Some(Node::File { content: Some(content), .. }) if content.len() <= DIFF_BYTES => {
            let text = String::from_utf8(content.clone()).ok();
            text.filter(|text| text.lines().count() <= DIFF_LINES)
        }
        Some(_) => None,
    };
    let (old, new) = (text(was)?, text(is)?);
    let name = |node: Option<&Node>| if node.is_some() { path } else { "/dev/null" };
    let diff = TextDiff::from_lines(&old, &new);
    Some(diff.unified_diff().header(name(was), name(is)).to_string())
}

fn preview(
    (changes, notes): (Vec<Change>, Vec<String>),
    exact: bool,
    guarantee: Reversibility,
) -> Preview {
    let disclosure = Disclosure::Contained;
    Preview { changes, exact, guarantee, until: None, disclosure, notes }
}

fn told(count: usize, kept: &[Conflict]) -> Ended {
    let restored = count.saturating_sub(kept.len());
    let said = json!({ "files_restored": restored, "kept": kept });
    answered(&said.to_string(), &said)
}

fn lean(snapshot: &Snapshot) -> Snapshot {
    snapshot.iter().map(|(path, node)| (path.clone(), node.lean())).collect()
}

/// True if whoever executes the call chooses a mode that nobody can foresee. Hosts keep the mode of
/// a file that they write anew; servers may put another file in its place.
fn is_chosen((path, node): (&String, &Node), before: &Snapshot, executor: Executor) -> bool {
    let unsaid = matches!(node, Node::File { mode: None, .. } | Node::Folder { mode: None });
    let kept = executor == Executor::Host && matches!(before.get(path), Some(Node::File { .. }));
    unsaid && !kept
}

fn address(path: &str) -> String {
    format!("file://{path}")
}

fn kept(undo: &Undo) -> Result<Kept, ResourceFault> {
    Kept::deserialize(&undo.data).map_err(|fault| ResourceFault::Invalid(fault.to_string()))
}
