//! Where a `serve` takes over `wrap`s: the wrap sends what to start, then only passes bytes.
//!
//! Owns the socket and its first line. Must never serve another user: whoever gets in has commands
//! run as the user of this process.

use super::{Wrap, WrapEnd, run};
use crate::doors::local::is_own_user;
use crate::governor::Governor;
use holdpoint_resources::{Passage, ProcessSpec};
use holdpoint_types::{AgentName, ServerName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// Longest first line, in bytes: it holds a whole environment.
const HELLO_BYTES_MAX: u64 = 4 << 20;
/// How long the first line may take.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// What a wrap wants: the first line it sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The agent behind the pipes.
    pub agent: AgentName,
    /// The name of the wrapped server.
    pub server: ServerName,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The wrap's environment. Never logged.
    pub env: BTreeMap<String, String>,
    /// The wrap's working folder.
    pub cwd: PathBuf,
    /// How long one call may take, in milliseconds.
    pub timeout_ms: u64,
}

/// The answer to the first line: `ok`, or why not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// True if everything that follows is passed to the server.
    pub ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// Takes over wraps on `socket` until `done` fires. `like` says how they are governed.
///
/// # Errors
/// When the socket cannot be made.
pub fn open(
    governor: Governor,
    socket: &Path,
    like: WrapLimits,
    done: CancellationToken,
) -> io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = done.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) if is_own_user(&stream) => {
                    let (governor, done) = (governor.clone(), done.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            () = host(governor, stream, like) => {}
                            () = done.cancelled() => {}
                        }
                    });
                }
                Ok(_) => tracing::warn!("another user tried the socket for wraps"),
                Err(fault) => {
                    tracing::warn!(%fault, "the socket for wraps refused a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    });
    Ok(())
}

/// How hosted wraps are governed.
#[derive(Clone, Copy, Debug)]
pub struct WrapLimits {
    /// How much JSON is accepted from the agent.
    pub json: holdpoint_types::JsonLimits,
    /// Longest accepted message of the server, in bytes.
    pub server_bytes_max: usize,
    /// How long a cancelled call may take to end before the server is killed.
    pub grace: Duration,
}

async fn host(governor: Governor, stream: UnixStream, like: WrapLimits) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let begun = begin(&governor, &mut read, like).await;
    let welcome = match &begun {
        Ok(_) => Welcome { ok: true, error: None },
        Err(error) => Welcome { ok: false, error: Some(error.clone()) },
    };
    let mut line = serde_json::to_vec(&welcome).unwrap_or_default();
    line.push(b'\n');
    if write.write_all(&line).await.is_err() {
        return;
    }
    let Ok((wrap, passage)) = begun else { return };
    let (agent, server) = (wrap.agent.clone(), wrap.server.clone());
    match run(governor, wrap, passage, read, write).await {
        Ok(WrapEnd::AgentLeft) => tracing::debug!(%agent, %server, "a wrap ended"),
        Ok(WrapEnd::ServerEnded(words)) => {
            tracing::warn!(%agent, %server, %words, "a wrapped server ended by itself");
        }
        Err(fault) => tracing::debug!(%agent, %server, %fault, "a wrap broke off"),
    }
}

type Passing = (holdpoint_resources::PassageSender, holdpoint_resources::PassageReceiver);

async fn begin(
    governor: &Governor,
    read: &mut (impl AsyncBufReadExt + Unpin),
    like: WrapLimits,
) -> Result<(Wrap, Passing), String> {
    let mut line = Vec::new();
    let mut limited = read.take(HELLO_BYTES_MAX);
    let reading = limited.read_until(b'\n', &mut line);
    let read = tokio::time::timeout(HELLO_PATIENCE, reading).await;
    read.map_err(|_| "no first line in time".to_owned())?.map_err(|fault| fault.to_string())?;
    if line.last() != Some(&b'\n') {
        let text = "the first line has no end, or more than";
        return Err(format!("{text} {HELLO_BYTES_MAX} bytes"));
    }
    let hello: Hello = serde_json::from_slice(&line).map_err(|fault| fault.to_string())?;
    if governor.settings().agent(&hello.agent).is_none() {
        return Err(format!("no agent is called `{}` in the configuration", hello.agent));
    }
    let spec = ProcessSpec {
        command: hello.command,
        env: hello.env,
        cwd: Some(hello.cwd),
        inherit_env: false,
    };
    let passage =
        Passage::spawn(&spec, like.server_bytes_max).map_err(|fault| fault.to_string())?;
    let wrap = Wrap {
        agent: hello.agent,
        server: hello.server,
        json: like.json,
        timeout: Duration::from_millis(hello.timeout_ms),
        grace: like.grace,
    };
    Ok((wrap, passage))
}

#[cfg(test)]
mod tests {
    use super::{HELLO_BYTES_MAX, Hello, WrapLimits, begin};
    use holdpoint_types::JsonLimits;
    use std::time::Duration;

    #[tokio::test]
    async fn a_giant_first_line_starts_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = crate::tests::runtime(dir.path()).await;
        let like = WrapLimits {
            json: JsonLimits::default(),
            server_bytes_max: 1 << 10,
            grace: Duration::from_millis(100),
        };
        let hello = Hello {
            agent: "coder".parse().unwrap(),
            server: "fs".parse().unwrap(),
            command: vec!["cat".to_owned()],
            env: Default::default(),
            cwd: dir.path().to_owned(),
            timeout_ms: 1000,
        };
        let hello = serde_json::to_string(&hello).unwrap();
        let begun = async |line: String| {
            let mut read = tokio::io::BufReader::new(line.as_bytes());
            begin(runtime.governor(), &mut read, like).await.map(|_| ())
        };
        let most = usize::try_from(HELLO_BYTES_MAX).unwrap();
        let long = |bytes: usize| format!("{hello}{}\n", " ".repeat(bytes - hello.len() - 1));
        assert_eq!(begun(long(most)).await, Ok(()));
        // All that is said is within the limit, and still the line is not.
        let refused = "the first line has no end, or more than 4194304 bytes";
        assert_eq!(begun(long(most + 1)).await, Err(refused.to_owned()));
        assert_eq!(begun(hello.clone()).await, Err(refused.to_owned()));
        runtime.shut_down().await;
    }
}
