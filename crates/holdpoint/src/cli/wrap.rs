//! `holdpoint wrap -- COMMAND`: stands in for a stdio server in a client's `mcpServers`.
//! Standard output belongs to the protocol: must never print anything else there.

mod pipes;

use super::{Exit, Globals, operator};
use crate::config;
use crate::gateway::{Rest, runtime_spec};
use anyhow::{Context as _, bail};
use holdpoint_resources::{Passage, ProcessSpec};
use holdpoint_server::doors::local::{self, Kind};
use holdpoint_server::doors::stdio::host::{Hello, Welcome};
use holdpoint_server::doors::stdio::{self, Wrap, WrapEnd};
use holdpoint_server::runtime::Runtime;
use holdpoint_types::{AgentName, ServerName};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Longest accepted answer to our first line, in bytes.
const WELCOME_BYTES_MAX: u64 = 64 << 10;
/// How long a `serve` may take to start the server.
const WELCOME_PATIENCE: Duration = Duration::from_secs(20);
/// What Holdpoint's own variables start with; they stay here.
const OWN_PREFIX: &str = "HOLDPOINT_";

/// Govern one stdio server: put this in front of its command.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The agent that calls.
    #[arg(long, value_name = "NAME")]
    agent: AgentName,
    /// The server's name in the configuration [default: made from the command].
    #[arg(long, value_name = "NAME")]
    server: Option<ServerName>,
    /// The server's command.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs `holdpoint wrap` until either side ends.
///
/// # Errors
/// When the agent is not declared, or the server or the store cannot be opened.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let config = globals.load_unattended()?;
    if config.settings.agent(&args.agent).is_none() {
        let known: Vec<_> = config.settings.parts().agents.keys().map(AgentName::as_str).collect();
        super::operator::note(&format!(
            "no agent is called `{}` in `{}` (declared: {}); add it with \
             `holdpoint agent add {} --owner TEAM`",
            args.agent,
            config.file.display(),
            known.join(", "),
            args.agent,
        ));
        return Ok(Exit::Usage);
    }
    let server = match &args.server {
        Some(server) => server.clone(),
        None => server_of(&args.command)?,
    };
    if !config.servers.contains_key(&server) {
        let known: Vec<_> = config.servers.keys().map(|name| format!("`{name}`")).collect();
        operator::note(&format!(
            "no server `{server}` is declared (there are {}): each of its tools is destructive",
            known.join(", "),
        ));
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async {
        let (spec, rest) = runtime_spec(config, Kind::Wrap)?;
        match find_serve(&rest.store).await? {
            Some(stream) => {
                let timeout = rest.timeout(&server);
                pass_on(stream, hello(args, server, timeout)?).await
            }
            None => {
                let governing = govern(Runtime::start(spec).await?, rest, (args.clone(), server));
                // As a task it shares its thread with the calls: each hop from here to there and
                // back would cost more than what is done.
                tokio::spawn(governing).await.context("the wrap failed inside")?
            }
        }
    });
    // Standard input may still be open; nothing is read from it any more.
    runtime.shutdown_background();
    ended
}

/// The server's name, made from the last word of the command that looks like a program or package.
fn server_of(command: &[String]) -> anyhow::Result<ServerName> {
    let packages = command.iter().filter(|word| !word.starts_with('-'));
    let mut words = packages.filter(|word| !matches!(word.as_str(), "npx" | "uvx" | "node"));
    let word = words.next().or(command.first()).map(String::as_str).unwrap_or_default();
    let base = word.rsplit('/').next().unwrap_or(word);
    let base = base.split('@').next().unwrap_or(base);
    let name = config::sanitise(base);
    name.parse().with_context(|| format!("no name can be made from `{word}`; give --server NAME"))
}

async fn govern(
    runtime: Runtime,
    rest: Rest,
    (args, server): (Args, ServerName),
) -> anyhow::Result<Exit> {
    let spec = ProcessSpec { command: args.command, inherit_env: true, ..Default::default() };
    let passage = Passage::spawn(&spec, super::serve::SERVER_BYTES_MAX)?;
    runtime.governor().replace_resources(rest.resources(&BTreeMap::new())?);
    let wrap = Wrap {
        agent: args.agent,
        timeout: rest.timeout(&server),
        server,
        json: rest.json(),
        grace: rest.grace(),
    };
    let from = BufReader::new(pipes::input());
    let governor = runtime.governor().clone();
    let end = stdio::run(governor, wrap, passage, from, pipes::output()).await;
    runtime.shut_down().await;
    match end.context("the agent's pipes failed")? {
        WrapEnd::AgentLeft => Ok(Exit::Ok),
        WrapEnd::ServerEnded(words) => {
            let mut stderr = std::io::stderr();
            let _ = write!(stderr, "{words}\nholdpoint: the wrapped server ended\n");
            Ok(Exit::Fault)
        }
    }
}

/// A connection to a `serve` that governs on this store, if there is one.
async fn find_serve(store: &std::path::Path) -> anyhow::Result<Option<UnixStream>> {
    for process in local::live(store)? {
        if process.kind == Kind::Serve
            && let Ok(stream) = UnixStream::connect(&process.wrap_socket).await
            && local::client::is_trusted(&process.wrap_socket, &stream)
        {
            return Ok(Some(stream));
        }
    }
    Ok(None)
}

fn hello(args: &Args, server: ServerName, timeout: Duration) -> anyhow::Result<Hello> {
    let own = |name: &String| name.starts_with(OWN_PREFIX);
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let env: BTreeMap<_, _> = env.filter(|(name, _)| !own(name)).collect();
    Ok(Hello {
        agent: args.agent.clone(),
        server,
        command: args.command.clone(),
        env,
        cwd: std::env::current_dir().context("cannot tell the working folder")?,
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
    })
}

/// Lets a `serve` govern: says what to start, then passes bytes both ways.
async fn pass_on(stream: UnixStream, hello: Hello) -> anyhow::Result<Exit> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = serde_json::to_vec(&hello)?;
    line.push(b'\n');
    write.write_all(&line).await.context("the running `serve` took no first line")?;
    let mut answer = Vec::new();
    let mut limited = (&mut read).take(WELCOME_BYTES_MAX);
    let reading = limited.read_until(b'\n', &mut answer);
    tokio::time::timeout(WELCOME_PATIENCE, reading).await.context("`serve` did not answer")??;
    if answer.last() != Some(&b'\n') {
        bail!("`serve` ended before it answered, or answered more than {WELCOME_BYTES_MAX} bytes");
    }
    let welcome: Welcome =
        serde_json::from_slice(&answer).context("`serve` answered something else")?;
    if !welcome.ok {
        bail!("the running `serve` refused: {}", welcome.error.unwrap_or_default());
    }
    let (mut stdin, mut stdout) = (pipes::input(), pipes::output());
    let up = async {
        let copied = tokio::io::copy(&mut stdin, &mut write).await;
        write.shutdown().await?;
        copied
    };
    let down = async {
        let copied = tokio::io::copy(&mut read, &mut stdout).await;
        stdout.flush().await?;
        copied
    };
    tokio::pin!(up, down);
    tokio::select! {
        // The agent closed its side: what the server still says is passed until it ends.
        _ = &mut up => { (&mut down).await?; Ok(Exit::Ok) }
        _ = &mut down => Ok(Exit::Fault),
    }
}

#[cfg(test)]
mod tests {
    use super::{WELCOME_BYTES_MAX, Welcome, pass_on, server_of};
    use holdpoint_server::doors::stdio::host::Hello;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::UnixStream;

    /// What a wrap says to a `serve` that answers with these bytes.
    async fn passed_on(answer: &[u8]) -> String {
        let (near, far) = UnixStream::pair().unwrap();
        let hello = Hello {
            agent: "coder".parse().unwrap(),
            server: "fs".parse().unwrap(),
            command: vec!["cat".to_owned()],
            env: Default::default(),
            cwd: "/".into(),
            timeout_ms: 1000,
        };
        let serve = async {
            let mut far = BufReader::new(far);
            far.read_line(&mut String::new()).await.unwrap();
            far.write_all(answer).await.unwrap();
        };
        let (passed, ()) = tokio::join!(pass_on(near, hello), serve);
        passed.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn a_serve_that_answers_without_end_is_not_passed_to() {
        let error = Some("no".to_owned());
        let welcome = serde_json::to_vec(&Welcome { ok: false, error }).unwrap();
        let most = usize::try_from(WELCOME_BYTES_MAX).unwrap();
        let long = |bytes: usize| {
            let space = vec![b' '; bytes - welcome.len() - 1];
            [welcome.as_slice(), &space, b"\n"].concat()
        };
        assert_eq!(passed_on(&long(most)).await, "the running `serve` refused: no");
        let unended = "`serve` ended before it answered, or answered more than 65536 bytes";
        assert_eq!(passed_on(&long(most + 1)).await, unended);
        assert_eq!(passed_on(&welcome).await, unended);
        assert_eq!(passed_on(b"hi\n").await, "`serve` answered something else");
    }

    #[test]
    fn a_name_is_made_from_the_command() {
        let check = |command: &[&str], expected: &str| {
            let command: Vec<_> = command.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(server_of(&command).unwrap().as_str(), expected);
        };
        check(
            &["npx", "-y", "@modelcontextprotocol/server-filesystem", "/srv"],
            "server-filesystem",
        );
        check(&["/usr/local/bin/my-server", "--port", "1"], "my-server");
        check(&["uvx", "mcp-server-git@1.2.3"], "mcp-server-git");
        check(&["node", "dist/index.js"], "index.js");
    }
}
