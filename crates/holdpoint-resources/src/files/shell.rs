//! Shell commands: run where only a copy of the workspace can be written, and no network is there.
//!
//! Owns the box in which a command runs, and the copy of what it left into the workspace. Must
//! never run a command outside of the box: where the kernel allows none, there is no preview, and
//! what has no preview does not run.

mod upper;

use super::back::{Plan, Step};
use super::tree::{FilesLimits, Grounds, all_same, same};
use super::{Executor, Files, FilesPrepared, FilesSpec, Kept, changes, lean, outermost, preview};
use crate::clearance::{Clearance, answered, in_doubt, not_sent};
use crate::process::ProcessSpec;
use crate::program::{Bounds, Ran, run};
use crate::resource::{
    Executed, Forward, Preview, Proposed, Resource, ResourceFault, Reverting, TargetState, Undo,
};
use crate::upstream::{Cancels, Ended};
use holdpoint_control::Permit;
use holdpoint_types::{Reason, Reversibility, ServerName, Timestamp};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use upper::Upper;

/// What makes the box.
const BOX: &str = include_str!("shell/box.sh");
/// What it says before the command runs.
const READY: &[u8] = b"holdpoint: ready\n";
/// The namespaces of the box.
const UNSHARE: [&str; 11] = [
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "--net",
    "--ipc",
    "--uts",
    "--pid",
    "--fork",
    "--kill-child",
    "--propagation=private",
];
/// What every command may read, besides the workspace.
const READABLE: [&str; 9] =
    ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr", "/etc", "/opt"];

/// A shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShellSpec {
    /// The server whose tool this is.
    pub server: ServerName,
    /// The one folder that commands change, absolute and without links.
    pub workspace: PathBuf,
    /// What commands may read besides it and the system's programs.
    pub readable: Vec<PathBuf>,
    /// Variables of commands, besides `PATH` and `HOME`.
    pub env: BTreeMap<String, String>,
    /// How much one command may touch.
    pub files: FilesLimits,
    /// How long one may run.
    pub timeout: Duration,
    /// How much one may say, in bytes.
    pub output_bytes_max: usize,
}

/// A shell in one workspace. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shell {
    spec: std::sync::Arc<ShellSpec>,
    files: Files,
}

/// A command that ran in the box, or a revert.
#[derive(Debug)]
pub struct ShellPrepared(Work);

#[derive(Debug)]
enum Work {
    /// What the command left is put into the workspace.
    Commit {
        clearance: Clearance,
        left: Box<(Plan, Kept)>,
        answer: Value,
    },
    Back(FilesPrepared),
}

// === impl Shell ===

impl Shell {
    /// A shell as `spec` says.
    pub fn new(spec: ShellSpec) -> Self {
        let files = Files::new(FilesSpec {
            server: spec.server.clone(),
            executor: Executor::Server,
            roots: vec![spec.workspace.clone()],
            shapes: BTreeMap::new(),
            limits: spec.files,
        });
        Self { spec: std::sync::Arc::new(spec), files }
    }

    /// The definition of the tool that it serves, as `tools/list` gives it.
    pub fn tools() -> Vec<Value> {
        vec![json!({
            "name": "shell_execute",
            "description": "Runs a shell command in the workspace, without network. What it \
                            changes outside of the workspace is lost.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "command": { "type": "string", "minLength": 1, "description": "For `sh -c`." },
                    "cwd": {
                        "type": "string",
                        "description": "Where it runs, in the workspace; else at its top.",
                    },
                },
                "required": ["command"],
                "additionalProperties": false,
            },
            "annotations": {
                "readOnlyHint": false, "destructiveHint": true, "openWorldHint": false,
            },
        })]
    }

    /// Runs the command in the box, and gives what it said and left.
    async fn boxed(&self, command: &str, folder: &Path) -> Result<(Ran, Upper), ResourceFault> {
        let spec = &self.spec;
        let store = store().map_err(|fault| no_box(&format!("no store: {fault}")))?;
        let path = |path: &Path| path.to_string_lossy().into_owned();
        self.check(store.0.path())?;
        let mut words: Vec<String> = UNSHARE.map(str::to_owned).into();
        words.extend(["sh", "-c", BOX, "sh"].map(str::to_owned));
        words.extend([path(&spec.workspace), path(store.0.path()), path(folder)]);
        words.extend(READABLE.map(str::to_owned));
        words.extend(spec.readable.iter().map(|folder| path(folder)));
        words.extend(["--", "sh", "-c", command].map(str::to_owned));
        let mut env = spec.env.clone();
        env.insert("HOME".to_owned(), path(&spec.workspace));
        let process = ProcessSpec { command: words, env, ..ProcessSpec::default() };
        let bounds = Bounds {
            timeout: spec.timeout,
            output_bytes_max: spec.output_bytes_max.saturating_add(READY.len()),
            grace: Duration::from_secs(1),
        };
        let mut ran = run(&process, b"", bounds, &Cancels::default()).await?;
        match ran.stdout.strip_prefix(READY) {
            Some(said) => ran.stdout = said.to_vec(),
            None => return Err(no_box(&ran.told())),
        }
        let (spec, upper) = (std::sync::Arc::clone(&self.spec), store.0.path().join("upper"));
        let read = move || {
            let left = Upper::read(&upper, &spec.workspace, spec.files);
            drop(store);
            left
        };
        let left = tokio::task::spawn_blocking(read).await;
        let left = left.map_err(|fault| ResourceFault::Unavailable(fault.to_string()))??;
        Ok((ran, left))
    }

    /// What the words of `mount` cannot say, or would say of something else, is not boxed.
    fn check(&self, store: &Path) -> Result<(), ResourceFault> {
        let workspace = &self.spec.workspace;
        if store.starts_with(workspace) || workspace.starts_with(store) {
            return Err(no_box("the workspace holds the folder of what is temporary"));
        }
        let odd = |path: &Path| {
            path.to_str().is_none_or(|path| path.contains([',', ':', '\\', '"', '\n']))
        };
        if odd(workspace) || odd(store) {
            return Err(no_box("the path of the workspace has signs that `mount` takes for more"));
        }
        Ok(())
    }

    /// The folder in which a command begins.
    fn folder(&self, cwd: Option<&Value>) -> Result<PathBuf, ResourceFault> {
        let workspace = &self.spec.workspace;
        let wrong = |text: &str| ResourceFault::Invalid(format!("`cwd` {text}"));
        let named = match cwd {
            None | Some(Value::Null) => return Ok(workspace.clone()),
            Some(Value::String(text)) => workspace.join(text),
            Some(_) => return Err(wrong("is no text")),
        };
        let folder = named.canonicalize().map_err(|_| wrong("is not there"))?;
        if folder.starts_with(workspace) { Ok(folder) } else { Err(wrong("leaves the workspace")) }
    }
}

impl Resource for Shell {
    type Prepared = ShellPrepared;

    async fn preview(
        &self,
        proposed: Proposed<'_>,
    ) -> Result<Option<(Preview, ShellPrepared)>, ResourceFault> {
        let tool = proposed.tool;
        if *tool.server() != self.spec.server || tool.name() != "shell_execute" {
            return Ok(None);
        }
        let clearance = Clearance::call(proposed)?;
        let command = proposed.parameters.get("command").and_then(Value::as_str);
        let command = command.filter(|command| !command.contains('\0'));
        let command =
            command.ok_or_else(|| ResourceFault::Invalid("`command` is no text".to_owned()))?;
        let folder = self.folder(proposed.parameters.get("cwd"))?;
        let (ran, upper) = self.boxed(command, &folder).await?;
        let code = ran.status.code();
        let answer = json!({ "exit_code": code, "stdout": ran.text(), "stderr": ran.stderr });
        let mut notes =
            vec!["it ran without network, and its changes elsewhere are lost".to_owned()];
        if code != Some(0) {
            notes.push(format!("the command failed: {}", ran.status));
        }
        let weigh = move |_: &FilesSpec, grounds: &Grounds<'_>| left(grounds, &upper);
        let (changes, more, plan, kept) = self.files.blocking(weigh).await?;
        notes.extend(more);
        let guarantee = match plan.steps.is_empty() {
            true => Reversibility::NoEffect,
            false => Reversibility::Exact,
        };
        let preview = preview((changes, notes), true, guarantee);
        let work = Work::Commit { clearance, left: Box::new((plan, kept)), answer };
        Ok(Some((preview, ShellPrepared(work))))
    }

    fn undo(&self, prepared: &ShellPrepared) -> Option<Undo> {
        match &prepared.0 {
            Work::Commit { left, .. } => Some(left.1.undo()),
            Work::Back(back) => self.files.undo(back),
        }
    }

    async fn execute(
        &self,
        permit: Permit,
        prepared: ShellPrepared,
        around: (Cancels, Forward),
    ) -> Executed {
        let (clearance, left, answer) = match prepared.0 {
            Work::Back(back) => return self.files.execute(permit, back, around).await,
            Work::Commit { clearance, left, answer } => (clearance, left, answer),
        };
        let (cancels, _) = around;
        if let Err(ended) = clearance.begin(permit, &cancels) {
            return ended.into();
        }
        let work = move |_: &FilesSpec, grounds: &Grounds<'_>| Ok(commit(grounds, &left));
        let ended = self.files.blocking(work).await;
        cancels.gone.cancel();
        let lost = |fault: ResourceFault| in_doubt(Reason::UpstreamUnavailable, fault.to_string());
        let ended = match ended {
            Ok(Ok(())) => answered(&answer.to_string(), &answer),
            Ok(Err(ended)) => ended,
            Err(fault) => lost(fault),
        };
        ended.into()
    }

    async fn verify(&self, undo: &Undo) -> Result<TargetState, ResourceFault> {
        self.files.verify(undo).await
    }

    async fn revert(
        &self,
        undo: &Undo,
        now: Timestamp,
    ) -> Result<Reverting<ShellPrepared>, ResourceFault> {
        let Reverting { preview, conflicts, prepared } = self.files.revert(undo, now).await?;
        Ok(Reverting { preview, conflicts, prepared: ShellPrepared(Work::Back(prepared)) })
    }
}

/// Folders that are deleted in the end, even one that the kernel made for itself.
struct Emptied(TempDir);

// === impl Emptied ===

impl Drop for Emptied {
    fn drop(&mut self) {
        let own = fs::Permissions::from_mode(0o700);
        // If that fails, the folder stays where the system keeps what is temporary.
        let _ = fs::set_permissions(self.0.path().join("work/work"), own);
    }
}

type Left = (Vec<crate::resource::Change>, Vec<String>, Plan, Kept);

/// What a command left, beside what is there.
fn left(grounds: &Grounds<'_>, upper: &Upper) -> Result<Left, ResourceFault> {
    let watched = outermost(upper.watched.clone());
    let (before, notes) = grounds.look(&watched)?;
    let after = upper.over(&before);
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let sides = paths.into_iter().map(|path| (path, before.get(path), after.get(path)));
    let differ = sides.filter(|(_, was, is)| !same(*was, *is));
    let steps = differ.map(|(path, was, is)| Step {
        path: path.clone(),
        now: was.map(super::Node::lean),
        then: is.cloned(),
    });
    let plan = Plan { steps: steps.collect(), conflicts: BTreeSet::new() };
    let changes = changes(&before, Some(&after));
    let kept = Kept { watched, before, after: Some(lean(&after)), whole: true };
    Ok((changes, notes, plan, kept))
}

/// Puts what a command left into the workspace, if that still is what the command saw.
fn commit(grounds: &Grounds<'_>, (plan, kept): &(Plan, Kept)) -> Result<(), Ended> {
    let moved = |why: String| not_sent(Reason::TargetMoved, why);
    match grounds.look(&kept.watched) {
        Ok((now, _)) if all_same(&now, &kept.before) => {}
        Ok(_) => return Err(moved("files changed since the command saw them".to_owned())),
        Err(fault) => return Err(moved(fault.to_string())),
    }
    match plan.perform(grounds) {
        Ok(missed) if missed.is_empty() => Ok(()),
        Ok(missed) => {
            let why = format!("{} files changed meanwhile and are kept", missed.len());
            Err(in_doubt(Reason::TargetMoved, why))
        }
        Err(fault) => Err(in_doubt(Reason::UpstreamUnavailable, fault.to_string())),
    }
}

/// Folders for one command.
fn store() -> std::io::Result<Emptied> {
    let store = Emptied(TempDir::with_prefix("holdpoint-")?);
    for folder in ["root", "upper", "work"] {
        fs::create_dir(store.0.path().join(folder))?;
    }
    Ok(store)
}

fn no_box(why: &str) -> ResourceFault {
    ResourceFault::Unavailable(format!("no preview: this system lets no command be boxed: {why}"))
}
