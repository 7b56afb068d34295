//! Programs that are run to their end: git, terraform.
//!
//! Owns their limits: how long one may run, how much it may say. Must never hand a secret to a
//! command line, nor wait longer than it was told to.

use crate::process::{Process, ProcessFault, ProcessSpec};
use crate::resource::ResourceFault;
use crate::upstream::{Cancels, SecretText};
use std::process::ExitStatus;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

/// How long the last words of a program may take, once it has ended.
const WORDS: Duration = Duration::from_millis(500);
/// A value shorter than this is no secret worth the name, and stands everywhere.
const SECRET_BYTES: usize = 4;
/// How much of standard error is told, in characters.
const TOLD_CHARS_MAX: usize = 400;

/// How much a program may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// How long it may run.
    pub(crate) timeout: Duration,
    /// How much it may write to standard output, in bytes.
    pub(crate) output_bytes_max: usize,
    /// How long it may take to end once it is asked to.
    pub(crate) grace: Duration,
}

/// What a program that ended by itself left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// Why there is no end to tell of. `Start` alone says that nothing was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramFault {
    #[error(transparent)]
    Start(#[from] ProcessFault),
    #[error("`{0}` did not end in time")]
    Late(String),
    #[error("`{program}` writes more than {bytes_max} bytes")]
    TooLong { program: String, bytes_max: usize },
    #[error("`{0}` was ended by a stop")]
    Stopped(String),
    #[error("`{0}` was ended at the agent's wish")]
    Cancelled(String),
    #[error("`{program}` cannot be followed: {source}")]
    Pipe { program: String, source: std::io::Error },
}

// === impl Ran ===

impl Ran {
    /// The end of its standard error, on one line.
    pub(crate) fn told(&self) -> String {
        let words: Vec<&str> = self.stderr.split_whitespace().collect();
        let text = words.join(" ");
        let skipped = text.chars().count().saturating_sub(TOLD_CHARS_MAX);
        text.chars().skip(skipped).collect()
    }

    /// The same without what must not be told: these values, and credentials in addresses.
    #[must_use]
    pub(crate) fn without<'a>(mut self, secrets: impl Iterator<Item = &'a SecretText>) -> Self {
        for secret in secrets.map(SecretText::expose).filter(|it| it.len() >= SECRET_BYTES) {
            self.stderr = self.stderr.replace(secret, "…");
        }
        self.stderr = without_userinfo(&self.stderr);
        self
    }

    /// Its standard output as text; what is no UTF-8 is replaced.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl From<ProgramFault> for ResourceFault {
    fn from(fault: ProgramFault) -> Self {
        match fault {
            ProgramFault::TooLong { .. } => Self::TooLarge(fault.to_string()),
            ProgramFault::Start(_)
            | ProgramFault::Late(_)
            | ProgramFault::Stopped(_)
            | ProgramFault::Cancelled(_)
            | ProgramFault::Pipe { .. } => Self::Unavailable(fault.to_string()),
        }
    }
}

/// Runs a program with this input until it ends, is late, says too much, or is cancelled; then
/// nothing that it started lives on.
pub(crate) async fn run(
    spec: &ProcessSpec,
    input: &[u8],
    bounds: Bounds,
    cancels: &Cancels,
) -> Result<Ran, ProgramFault> {
    let name = || spec.command.first().cloned().unwrap_or_default();
    let (mut process, pipes) = Process::spawn(spec)?;
    let mut stdin = pipes.stdin;
    let write = async move {
        // Who reads nothing ends with a broken pipe, and says itself what it made of that.
        let _ = stdin.write_all(input).await;
        let _ = stdin.shutdown().await;
    };
    let work = async {
        let ((), read) = tokio::join!(write, read_all(pipes.stdout, bounds.output_bytes_max));
        let status = match read {
            Ok(Some(_)) => Some(process.wait().await),
            Ok(None) | Err(_) => None,
        };
        (read, status)
    };
    let ended = tokio::select! {
        biased;
        () = cancels.stop.cancelled() => Err(ProgramFault::Stopped(name())),
        () = cancels.agent.cancelled() => Err(ProgramFault::Cancelled(name())),
        ended = tokio::time::timeout(bounds.timeout, work) => {
            ended.map_err(|_| ProgramFault::Late(name()))
        }
    };
    let pipe = |source| ProgramFault::Pipe { program: name(), source };
    let too_long = || ProgramFault::TooLong { program: name(), bytes_max: bounds.output_bytes_max };
    let ran = match ended {
        Ok((Ok(Some(stdout)), Some(Ok(status)))) => {
            let stderr = process.all_words(WORDS).await;
            Ok(Ran { status, stdout, stderr })
        }
        Ok((Ok(_), None)) | Ok((Ok(None), _)) => Err(too_long()),
        Ok((Err(source), _)) | Ok((_, Some(Err(source)))) => Err(pipe(source)),
        Err(fault) => Err(fault),
    };
    process.kill_tree(bounds.grace).await;
    ran
}

/// All that is said, or `None` if that is more than `bytes_max`.
async fn read_all(
    mut from: impl AsyncRead + Unpin,
    bytes_max: usize,
) -> std::io::Result<Option<Vec<u8>>> {
    let mut read = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    (&mut from).take(limit).read_to_end(&mut read).await?;
    Ok((read.len() <= bytes_max).then_some(read))
}

/// `text` with each `://user:secret@` cut to `://…@`.
fn without_userinfo(text: &str) -> String {
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|it: char| it == '/' || it.is_whitespace()).unwrap_or(part.len());
        let (authority, rest) = part.split_at(end);
        shown += "://";
        match authority.rsplit_once('@') {
            Some((_, host)) => shown += &format!("…@{host}"),
            None => shown += authority,
        }
        shown += rest;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::{Bounds, ProgramFault, run};
    use crate::process::ProcessSpec;
    use crate::upstream::{Cancels, SecretText};
    use std::time::Duration;

    fn shell(script: &str) -> ProcessSpec {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        ProcessSpec { command, ..ProcessSpec::default() }
    }

    fn bounds(timeout: Duration) -> Bounds {
        Bounds { timeout, output_bytes_max: 1000, grace: Duration::from_millis(500) }
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_program_is_heard_to_its_end() {
        let script = "cat; echo oh >&2; exit 3";
        let ran = run(&shell(script), b"in", bounds(LONG), &Cancels::default()).await.unwrap();
        assert_eq!((ran.text().as_str(), ran.told().as_str()), ("in", "oh"));
        assert_eq!(ran.status.code(), Some(3));
        let long =
            "i=0; while [ $i -lt 500 ]; do printf 'word '; i=$((i+1)); done >&2; echo end >&2";
        let ran = run(&shell(long), b"", bounds(LONG), &Cancels::default()).await.unwrap();
        assert_eq!(ran.told().chars().count(), super::TOLD_CHARS_MAX);
        assert!(ran.told().ends_with("word end"));
    }

    #[tokio::test]
    async fn what_a_program_says_of_secrets_is_not_told() {
        let script = "echo 'no https://u:p@ss@host/x for hunter2, see ssh://git@host' >&2";
        let ran = run(&shell(script), b"", bounds(LONG), &Cancels::default()).await.unwrap();
        let secrets = [SecretText::new("hunter2"), SecretText::new("no")];
        let told = ran.without(secrets.iter()).told();
        assert_eq!(told, "no https://…@host/x for …, see ssh://…@host");
    }

    #[tokio::test]
    async fn a_program_that_says_too_much_stalls_or_is_stopped_is_ended() {
        let none = Cancels::default();
        let flood = run(&shell("yes"), b"", bounds(LONG), &none).await;
        assert!(matches!(flood, Err(ProgramFault::TooLong { .. })), "{flood:?}");
        let late = run(&shell("sleep 60"), b"", bounds(Duration::from_millis(50)), &none).await;
        assert!(matches!(late, Err(ProgramFault::Late(_))), "{late:?}");
        let stopped = Cancels::default();
        stopped.stop.cancel();
        let stopped = run(&shell("sleep 60"), b"", bounds(LONG), &stopped).await;
        assert!(matches!(stopped, Err(ProgramFault::Stopped(_))), "{stopped:?}");
        let input = vec![b'x'; 1 << 20];
        let deaf = run(&shell("exec <&-; exit 0"), &input, bounds(LONG), &none).await;
        assert!(deaf.unwrap().status.success());
    }
}
