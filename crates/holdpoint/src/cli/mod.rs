//! The command line: one file per subcommand. Answers go to standard output, logs and complaints
//! to standard error. To add a subcommand, add a file with `Args` and `run`, and one line in
//! [`Command`] and in [`Command::run`]. Must not hold what a subcommand does.

mod agent;
pub mod approvals;
mod approve;
mod check;
mod checkpoint;
mod checks;
mod demo;
mod demo_server;
mod docs;
mod effects;
mod grant;
mod hook;
mod init;
mod line;
mod log;
mod login;
mod logout;
pub mod look;
mod operator;
mod plan;
mod policy;
mod release;
mod replay;
mod revert;
#[cfg(test)]
mod samples;
mod scenario;
pub mod serve;
mod status;
mod stop;
mod tail;
mod tools;
mod tree;
mod try_call;
mod verify;
mod why;
mod wrap;

use crate::config::{self, Colour, Loaded, Report, Search, Unusable};
use holdpoint_server::operate::Answer;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

/// The control plane for AI agents that act.
#[derive(Debug, clap::Parser)]
#[command(name = "holdpoint", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// The flags that every subcommand takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Globals {
    /// The configuration [default: ./holdpoint.toml (not for `wrap` and `hook`), then the user's,
    /// then the system's].
    #[arg(long, global = true, value_name = "FILE", env = "HOLDPOINT_CONFIG")]
    pub config: Option<PathBuf>,
    /// How the answer is written.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// How logs are written to standard error. `HOLDPOINT_LOG` says which: a level, or
    /// `target=level`, separated by commas.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t = Format::Text,
        value_name = "FORMAT",
        env = "HOLDPOINT_LOG_FORMAT"
    )]
    pub log_format: Format,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// Something broke.
    Fault,
    /// The command line or the configuration is wrong.
    Usage,
    /// The action was denied.
    Denied,
    /// The action was held.
    Held,
    /// What was verified is not as it should be.
    Unverified,
}

/// What the operator asked for cannot be done as asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongUsage(pub String);

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Play the incident of July 2025, with Holdpoint in the way. Needs nothing but this program.
    Demo(demo::Args),
    /// Govern agents over HTTP, and every `wrap` on this machine.
    Serve(serve::Args),
    /// Govern one stdio server: put this in front of its command.
    Wrap(wrap::Args),
    /// Decide a call that a coding agent's host executes itself: for the hooks of that host.
    Hook(hook::Args),
    /// Show what would be decided about a call, without executing it.
    Try(try_call::Args),
    /// Show what a command, a text or a call would do, and why.
    Effects(effects::Args),
    /// Write a first configuration, or import an existing `mcpServers` file.
    Init(init::Args),
    /// Report everything that is wrong with the configuration and the policies.
    Check(check::Args),
    /// Make keys for signers, show digests of policy sets, and sign guard sets.
    Policy(policy::Args),
    /// Show the plans of agents, accept or refuse them.
    Plan(plan::Args),
    /// Stop a part of what agents do.
    Stop(stop::Args),
    /// Release a stop.
    Release(release::Args),
    /// Show who governs, what is stopped, what runs, and how the store is.
    Status(status::Args),
    /// Add agents, issue and revoke their keys.
    Agent(agent::Args),
    /// Get a credential for an upstream server that wants OAuth.
    Login(login::Args),
    /// Delete a credential for an upstream server, and revoke it there.
    Logout(logout::Args),
    /// List the tools that were seen; show, pin or classify them.
    Tools(tools::Args),
    /// Show records, newest last.
    Log(log::Args),
    /// Show new records as they become durable.
    Tail(tail::Args),
    /// Explain one action, from the request to the proof of its records.
    Why(why::Args),
    /// Show what was found after actions, and what is still to be looked at.
    Checks(checks::Args),
    /// Show the calls that wait for approvals, and what exactly each would do.
    Approvals(approvals::Args),
    /// Say yes to exactly one held call, by the id of its approval.
    Approve(approve::Args),
    /// Say no to a held call, by the id of its approval.
    Deny(approve::Args),
    /// Grant something to an agent for a limited time; list and revoke such grants.
    Grant(grant::Args),
    /// Take back an action, or all actions of a task or a plan.
    Revert(revert::Args),
    /// Verify the ledger offline, with nothing but the public key.
    Verify(verify::Args),
    /// Print the newest signed checkpoint, to be kept elsewhere.
    Checkpoint(checkpoint::Args),
    /// Decide every recorded action again, and report any difference.
    Replay(replay::Args),
    /// Play real incidents and their benign twins, and check what is decided at every step.
    Scenario(scenario::Args),
    /// Serve the demo's tools.
    #[command(hide = true)]
    DemoServer(demo_server::Args),
    /// Write or check the generated documentation.
    #[command(hide = true)]
    Docs(docs::Args),
}

// === impl Cli ===

impl Cli {
    /// Runs the subcommand and reports what went wrong.
    pub fn run(self) -> Exit {
        start_logging(self.command.log_default(), self.globals.log_format);
        match self.command.run(&self.globals) {
            Ok(exit) => exit,
            Err(error) => complain(&error),
        }
    }
}

// === impl Globals ===

impl Globals {
    /// Finds, reads and checks the configuration; warnings go to standard error.
    ///
    /// # Errors
    /// When there is none, or it has faults.
    pub fn load(&self) -> Result<config::Config, Unusable> {
        self.load_from(Search::HereFirst)
    }

    /// The same for a program that somebody else starts, in a folder that nobody vouches for.
    ///
    /// # Errors
    /// When there is none, or it has faults.
    pub fn load_unattended(&self) -> Result<config::Config, Unusable> {
        self.load_from(Search::NotHere)
    }

    fn load_from(&self, search: Search) -> Result<config::Config, Unusable> {
        let file = config::find(self.config.as_deref(), search)?;
        let Loaded { config, report } = config::load(&file)?;
        print_report(&report);
        Ok(config)
    }
}

// === impl Exit ===

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Fault => 1,
            Exit::Usage => 2,
            Exit::Denied => 3,
            Exit::Held => 4,
            Exit::Unverified => 5,
        })
    }
}

// === impl Command ===

impl Command {
    fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        match self {
            Self::Demo(args) => demo::run(&args, globals),
            Self::Serve(args) => serve::run(&args, globals),
            Self::Wrap(args) => wrap::run(&args, globals),
            Self::Hook(args) => hook::run(&args, globals),
            Self::Try(args) => try_call::run(&args, globals),
            Self::Effects(args) => effects::run(&args, globals),
            Self::Init(args) => init::run(&args, globals),
            Self::Check(args) => check::run(&args, globals),
            Self::Policy(args) => policy::run(&args, globals),
            Self::Plan(args) => plan::run(&args, globals),
            Self::Stop(args) => stop::run(&args, globals),
            Self::Release(args) => release::run(&args, globals),
            Self::Status(args) => status::run(&args, globals),
            Self::Agent(args) => agent::run(&args, globals),
            Self::Login(args) => login::run(&args, globals),
            Self::Logout(args) => logout::run(&args, globals),
            Self::Tools(args) => tools::run(&args, globals),
            Self::Log(args) => log::run(&args, globals),
            Self::Tail(args) => tail::run(&args, globals),
            Self::Why(args) => why::run(&args, globals),
            Self::Verify(args) => verify::run(&args, globals),
            Self::Checkpoint(args) => checkpoint::run(&args, globals),
            Self::Checks(args) => checks::run(&args, globals),
            Self::Revert(args) => revert::run(&args, globals),
            Self::Approvals(args) => approvals::run(&args, globals),
            Self::Approve(args) => approve::run(&args, Answer::Yes, globals),
            Self::Deny(args) => approve::run(&args, Answer::No, globals),
            Self::Grant(args) => grant::run(&args, globals),
            Self::Replay(args) => replay::run(&args, globals),
            Self::Scenario(args) => scenario::run(&args, globals),
            Self::DemoServer(args) => demo_server::run(args),
            Self::Docs(args) => docs::run(&args, globals),
        }
    }

    /// What is logged unless `HOLDPOINT_LOG` says otherwise.
    fn log_default(&self) -> &'static str {
        match self {
            Self::Serve(_) => "info",
            // Checks that must fail are part of what is played.
            Self::Demo(_) | Self::Scenario(_) => "error,holdpoint_server::governor::checks=off",
            _ => "warn",
        }
    }
}

/// Writes to standard output. A reader that went away (`| head`) is no fault.
///
/// # Errors
/// When standard output cannot be written for any other reason.
pub fn answer(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes diagnostics to standard error, in colour on a terminal.
pub fn print_report(report: &Report) {
    let mut out = std::io::stderr().lock();
    let plain = !out.is_terminal() || std::env::var_os("NO_COLOR").is_some();
    let colour = if plain { Colour::Never } else { Colour::Always };
    // There is nobody left to tell if standard error is gone.
    let _ = out.write_all(report.render(colour).as_bytes());
}

fn complain(error: &anyhow::Error) -> Exit {
    let unusable = error.downcast_ref::<Unusable>();
    if let Some(Unusable::Faulty { report, .. }) = unusable {
        print_report(report);
    }
    let text = config::printable(&format!("{error:#}"));
    // There is nobody left to tell if standard error is gone.
    let _ = writeln!(std::io::stderr(), "holdpoint: {text}");
    let wrong = error.chain().any(|cause| cause.is::<WrongUsage>() || cause.is::<Unusable>());
    if wrong { Exit::Usage } else { Exit::Fault }
}

fn start_logging(default: &str, format: Format) {
    let filter = std::env::var("HOLDPOINT_LOG").unwrap_or_else(|_| default.to_owned());
    // Whatever is asked for: at lower levels it tells codes, and what came with tokens.
    // The other one tells the text of every statement.
    let quiet = ["rmcp::transport::auth=warn", "tokio_postgres=warn"];
    let quiet = quiet.iter().filter_map(|directive| directive.parse().ok());
    let filter = tracing_subscriber::EnvFilter::new(filter);
    let filter = quiet.fold(filter, tracing_subscriber::EnvFilter::add_directive);
    // A log on a full disk must not end the thread that wanted to say so.
    let logs = tracing_subscriber::fmt().log_internal_errors(false);
    let logs = logs.with_env_filter(filter).with_writer(std::io::stderr);
    // A second start in one process keeps the first.
    let _ = match format {
        Format::Text => logs.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => logs.json().flatten_event(true).with_current_span(false).try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::{Cli, Exit};
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exit_codes_are_stable() {
        use std::process::ExitCode;
        let all = [Exit::Ok, Exit::Fault, Exit::Usage, Exit::Denied, Exit::Held, Exit::Unverified];
        for (code, exit) in (0u8..).zip(all) {
            let (found, expected) = (ExitCode::from(exit), ExitCode::from(code));
            assert_eq!(format!("{found:?}"), format!("{expected:?}"));
        }
    }
}
