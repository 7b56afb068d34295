//! Child processes as whole trees: started in a group of their own, ended with everything they
//! started.
//!
//! Owns the pipes' other end, the child's last words and its death. Must never leave a descendant
//! alive that it could find, nor hand Holdpoint's own environment variables to a child.

mod tree;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tree::Tree;

/// How much of a child's standard error is kept.
const LAST_WORDS_BYTES_MAX: usize = 64 << 10;
/// How much of a line of standard error is logged.
const LOG_LINE_BYTES_MAX: usize = 4 << 10;
/// How often a tree is looked through for survivors. A fork bomb may outrun any number of rounds.
const KILL_ROUNDS_MAX: usize = 200;
/// The same where nobody can wait.
const DROP_ROUNDS_MAX: usize = 3;
/// How long the killed get to die before the next round.
const KILL_PAUSE: Duration = Duration::from_millis(2);
/// What a child gets when it does not inherit the environment.
const ENVIRONMENT: [&str; 7] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TZ"];
/// Holdpoint's own variables (keys, configuration) start like this and stay here.
const OWN_PREFIX: &str = "HOLDPOINT_";

/// What to start. Its `Debug` text names variables without their values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProcessSpec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables to set. Their values may be secrets: never log them.
    pub env: BTreeMap<String, String>,
    /// The working directory; ours if absent.
    pub cwd: Option<PathBuf>,
    /// True if the child gets our environment (without Holdpoint's own variables), not a minimal
    /// one.
    pub inherit_env: bool,
}

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ProcessFault {
    /// There is no program to start.
    #[error("the command is empty")]
    Empty,
    /// The operating system refused.
    #[error("cannot start `{program}`: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the operating system says.
        source: std::io::Error,
    },
}

/// The child's standard input and output.
#[derive(Debug)]
pub struct Pipes {
    /// What we write to.
    pub stdin: ChildStdin,
    /// What we read from.
    pub stdout: ChildStdout,
}

/// A running child and all that it starts. Dropping it kills them.
#[derive(Debug)]
pub struct Process {
    child: Child,
    tree: Tree,
    words: Arc<Mutex<VecDeque<u8>>>,
    listening: JoinHandle<()>,
    gone: bool,
}

// === impl ProcessSpec ===

impl fmt::Debug for ProcessSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.keys().collect();
        let mut text = f.debug_struct("ProcessSpec");
        text.field("command", &self.command).field("env", &names).field("cwd", &self.cwd);
        text.field("inherit_env", &self.inherit_env).finish()
    }
}

// === impl Process ===

impl Process {
    /// Starts a child. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the command is empty or cannot be started.
    pub fn spawn(spec: &ProcessSpec) -> Result<(Self, Pipes), ProcessFault> {
        let (program, arguments) = spec.command.split_first().ok_or(ProcessFault::Empty)?;
        let start = |source| ProcessFault::Start { program: program.clone(), source };
        let mark = next_mark();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        set_environment(&mut command, spec);
        command.env(tree::MARK, &mark);
        if let Some(cwd) = &spec.cwd {
            command.current_dir(cwd);
        }
        let mut child = command.spawn().map_err(start)?;
        let lost = || start(std::io::Error::other("a pipe is missing"));
        let id = child.id().ok_or_else(lost)?;
        let stdin = child.stdin.take().ok_or_else(lost)?;
        let stdout = child.stdout.take().ok_or_else(lost)?;
        let stderr = child.stderr.take().ok_or_else(lost)?;
        let words = Arc::default();
        let listening = tokio::spawn(listen(stderr, Arc::clone(&words), program.clone()));
        let tree = Tree::new(id, mark);
        let process = Self { child, tree, words, listening, gone: false };
        Ok((process, Pipes { stdin, stdout }))
    }

    /// The child's process id.
    pub fn id(&self) -> u32 {
        self.tree.root()
    }

    /// The last 64 KiB of the child's standard error, unreadable bytes replaced.
    pub fn last_words(&self) -> String {
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(words.make_contiguous()).into_owned()
    }

    /// The same, once its standard error has ended: nothing that was written before is missed.
    /// Waits no longer than `patience`.
    pub async fn all_words(&mut self, patience: Duration) -> String {
        // Who still holds it open may say more, which nobody waits for.
        if !self.listening.is_finished() {
            let _ = tokio::time::timeout(patience, &mut self.listening).await;
        }
        self.last_words()
    }

    /// Waits until the child (not what it started) has ended. May be dropped and called again.
    ///
    /// # Errors
    /// When the operating system cannot say.
    pub async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends the child and everything it started: asks with SIGTERM, after `grace` does not ask.
    pub async fn kill_tree(&mut self, grace: Duration) {
        // Whoever left the group is only found while its parents live, so look before they die.
        self.tree.look();
        let mut ended = matches!(self.child.try_wait(), Ok(Some(_)));
        if !ended {
            self.tree.ask();
            ended = tokio::time::timeout(grace, self.child.wait()).await.is_ok();
        }
        if !ended {
            self.tree.look();
        }
        self.kill_now(ended).await;
        if !ended {
            let _ = self.child.start_kill();
            let _ = self.child.wait().await;
        }
        self.gone = true;
    }

    async fn kill_now(&mut self, ended: bool) {
        for _ in 0..KILL_ROUNDS_MAX {
            if self.tree.kill(ended) == 0 {
                return;
            }
            // The killed need a moment to die before the next look.
            tokio::time::sleep(KILL_PAUSE).await;
        }
        tracing::warn!(root = self.tree.root(), "processes of an ended upstream keep appearing");
    }

    /// Waits up to `grace` for the child to end by itself (its input is closed), then kills the
    /// tree.
    pub async fn close(&mut self, grace: Duration) {
        self.tree.look();
        let _ = tokio::time::timeout(grace, self.child.wait()).await;
        self.kill_tree(grace).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.gone {
            return;
        }
        self.tree.look();
        let ended = matches!(self.child.try_wait(), Ok(Some(_)));
        for _ in 0..DROP_ROUNDS_MAX {
            if self.tree.kill(ended) == 0 {
                break;
            }
            std::thread::sleep(KILL_PAUSE);
        }
        // The runtime reaps the child itself: it was started with `kill_on_drop`.
    }
}

fn set_environment(command: &mut Command, spec: &ProcessSpec) {
    if spec.inherit_env {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with(OWN_PREFIX) {
                command.env_remove(name);
            }
        }
    } else {
        command.env_clear();
        for name in ENVIRONMENT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
    }
    command.envs(&spec.env);
}

/// A text that no other child of any Holdpoint on this machine is marked with.
fn next_mark() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("{}-{count}-{}", std::process::id(), since.as_nanos())
}

/// Reads a child's standard error until it ends, keeping the last of it.
async fn listen(mut stderr: ChildStderr, words: Arc<Mutex<VecDeque<u8>>>, program: String) {
    let mut chunk = [0; 4096];
    let mut line = Vec::new();
    let log = |line: &[u8]| {
        tracing::debug!(program, line = %String::from_utf8_lossy(line), "upstream stderr");
    };
    while let Ok(count @ 1..) = stderr.read(&mut chunk).await {
        let Some(read) = chunk.get(..count) else { return };
        remember(&words, read);
        tell_lines(&mut line, read, log);
    }
}

/// Tells each line that ends in `read`, cut to its limit; `line` is what came of one before.
fn tell_lines(line: &mut Vec<u8>, read: &[u8], tell: impl Fn(&[u8])) {
    for &byte in read {
        if byte == b'\n' {
            tell(line);
            line.clear();
        } else if line.len() < LOG_LINE_BYTES_MAX {
            line.push(byte);
        }
    }
}

fn remember(words: &Mutex<VecDeque<u8>>, read: &[u8]) {
    let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
    words.extend(read);
    let excess = words.len().saturating_sub(LAST_WORDS_BYTES_MAX);
    words.drain(..excess);
}

#[cfg(test)]
mod tests {
    use super::{LOG_LINE_BYTES_MAX, tell_lines};
    use std::cell::RefCell;

    #[test]
    fn a_long_line_of_standard_error_is_logged_once_and_cut() {
        let told = RefCell::new(Vec::new());
        let mut line = Vec::new();
        let long = [&[b'x'; 3 * LOG_LINE_BYTES_MAX][..], b"\nshort\n\nrest"].concat();
        for read in long.chunks(1000) {
            tell_lines(&mut line, read, |line| told.borrow_mut().push(line.to_vec()));
            assert!(line.len() <= LOG_LINE_BYTES_MAX);
        }
        let told = told.into_inner();
        assert_eq!(told, [&[b'x'; LOG_LINE_BYTES_MAX][..], b"short", b""]);
        assert_eq!(line, b"rest");
    }
}
