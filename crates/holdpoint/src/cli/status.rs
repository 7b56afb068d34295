//! `holdpoint status`: who governs, what is stopped, what runs, and how the store is.
//! Must not change anything.

mod credentials;
mod freezes;
mod waiting;

use super::look::{Look, Table, Tone, bytes, count, duration, escaped, json_lines, shortened};
use super::operator::StoreArgs;
use super::release::render_in_force;
use super::{Exit, Format, Globals, answer, operator, stop};
use holdpoint_control::Settings;
use holdpoint_ledger::{Checkpoint, open_checkpoint};
use holdpoint_resources::Standing;
use holdpoint_server::operate;
use holdpoint_server::store::{Access, ControlRow, Store};
use holdpoint_server::wire::{GuardReply, IssuerReply, StatusReply, UpstreamReply};
use holdpoint_types::Timestamp;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use waiting::Waiting;

/// Longest fault of an upstream server that is shown, in characters.
const FAULT_CHARS_MAX: usize = 120;
/// Longest reason why policies were refused that is shown, in characters.
const REFUSED_CHARS_MAX: usize = 400;

/// Show who governs, what is stopped, what runs, and how the store is.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
}

/// All that is shown.
#[derive(Debug)]
struct Status {
    dir: PathBuf,
    control: ControlRow,
    records: u64,
    bytes: u64,
    last_at: Option<Timestamp>,
    checkpoint: Option<Checkpoint>,
    in_doubt: u64,
    gateways: Vec<Result<StatusReply, String>>,
    credentials: Vec<Standing>,
    waiting: Waiting,
    /// Absent if the configuration could not be read.
    settings: Option<Settings>,
}

/// Runs `holdpoint status`.
///
/// # Errors
/// When there is no store, or it cannot be read.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let (store, config) = args.store.open_with_config(globals, Access::ReadOnly)?;
    let credentials = credentials::gather(store.dir(), config.as_ref())?;
    let mut status = operator::wait(gather(&store, credentials))?;
    status.settings = config.map(|config| config.settings);
    match globals.format {
        Format::Json => answer(&json_lines(&to_json(&status, operator::now())))?,
        Format::Text => answer(&render(&status, &Look::of_terminal()))?,
    }
    Ok(Exit::Ok)
}

async fn gather(store: &Store, credentials: Vec<Standing>) -> anyhow::Result<Status> {
    let note = store.checkpoint()?;
    let checkpoint = note.map(|note| open_checkpoint(&note, store.verifier())).transpose()?;
    let control = store.control()?;
    Ok(Status {
        dir: store.dir().to_owned(),
        waiting: Waiting::gather(store, (control.epoch, operator::now()))?,
        control,
        records: store.size()?,
        bytes: size_of(store.dir()),
        last_at: store.last_at()?.filter(|_| checkpoint.is_some()),
        checkpoint,
        in_doubt: u64::try_from(store.in_doubt()?.len())?,
        gateways: operate::status(store.dir()).await,
        credentials,
        settings: None,
    })
}

/// What the files of the store take, in bytes.
fn size_of(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = files.filter_map(|file| file.metadata().ok()).filter(|found| found.is_file());
    sizes.map(|found| found.len()).fold(0, u64::saturating_add)
}

fn to_json(status: &Status, now: Timestamp) -> Value {
    let checkpoint = status.checkpoint.as_ref();
    let checkpoint = checkpoint.map(|found| {
        json!({ "origin": found.origin, "size": found.size, "root": found.root.to_string() })
    });
    let gateways: Vec<_> = status.gateways.iter().filter_map(|found| found.as_ref().ok()).collect();
    let silent: Vec<_> = status.gateways.iter().filter_map(|found| found.as_ref().err()).collect();
    let mut told = json!({
        "store": status.dir.display().to_string(),
        "records": status.records,
        "bytes": status.bytes,
        "last_at_ms": status.last_at.map(|at| at.0),
        "checkpoint": checkpoint,
        "in_doubt": status.in_doubt,
        "epoch": status.control.epoch.0,
        "stops": status.control.stops,
        "freezes": status.settings.as_ref().map(|settings| freezes::to_json(settings, now)),
        "gateways": gateways,
        "unreachable": silent,
        "credentials": status.credentials.iter().map(credentials::to_json).collect::<Vec<_>>(),
    });
    if let (Value::Object(told), Value::Object(more)) = (&mut told, status.waiting.to_json()) {
        told.extend(more);
    }
    told
}

fn render(status: &Status, look: &Look) -> String {
    let stops = match status.control.stops.as_slice() {
        [] => "no stop is in force\n".to_owned(),
        stops => render_in_force(stops, look),
    };
    let freezes = status.settings.as_ref().map(|settings| freezes::render(settings, look));
    let freezes = freezes.unwrap_or_default();
    let credentials = credentials::render(&status.credentials, look);
    let waiting = status.waiting.render(look);
    let (store, gateways) = (render_store(status, look), render_gateways(status, look));
    format!("{store}{stops}{waiting}{freezes}{credentials}{gateways}")
}

fn render_store(status: &Status, look: &Look) -> String {
    let mut table = Table::default();
    let mut row = |title: &str, tone: Tone, text: String| {
        table.push(vec![(Tone::Dim, title.to_owned()), (tone, text)]);
    };
    row("store", Tone::Plain, escaped(&status.dir.display().to_string()));
    let size = format!("{}, {}", count(status.records, "record"), bytes(status.bytes));
    row("size", Tone::Plain, size);
    let last = status.last_at.map_or_else(|| "none".to_owned(), |at| look.time_and_age(at));
    row("last record", Tone::Plain, last);
    let checkpoint = status.checkpoint.as_ref().map_or_else(
        || "none".to_owned(),
        |found| format!("{}, root {}", count(found.size, "record"), found.root.short()),
    );
    row("checkpoint", Tone::Plain, checkpoint);
    row("epoch", Tone::Plain, status.control.epoch.0.to_string());
    match status.in_doubt {
        0 => row("in doubt", Tone::Plain, "none".to_owned()),
        some => {
            let text = format!("{}: see holdpoint log --in-doubt", count(some, "action"));
            row("in doubt", Tone::Bad, text);
        }
    }
    let (tone, text) = status.waiting.approvals(look);
    row("approvals", tone, text);
    table.render("", look)
}

fn render_gateways(status: &Status, look: &Look) -> String {
    if status.gateways.is_empty() {
        return "no process governs\n".to_owned();
    }
    let mut text = String::new();
    for gateway in &status.gateways {
        match gateway {
            Ok(reply) => text.push_str(&render_gateway(reply, status.control.epoch.0, look)),
            Err(silent) => {
                let title = format!("silent: {}", escaped(silent));
                text.push_str(&format!("{}\n", look.paint(Tone::Bad, &title)));
            }
        }
    }
    text
}

fn render_gateway(reply: &StatusReply, epoch: u64, look: &Look) -> String {
    let title = look.paint(Tone::Strong, &format!("gateway {}", escaped(&reply.gateway)));
    let behind = if reply.epoch < epoch { " (behind the store)" } else { "" };
    let ending = if reply.draining { ", about to end" } else { "" };
    let mut table = Table::default();
    for call in &reply.running {
        table.push(stop::row(call, look));
    }
    let running = match reply.running.len() {
        0 => "  nothing runs\n".to_owned(),
        _ => table.render("  ", look),
    };
    let mut servers = Table::default();
    reply.upstreams.iter().for_each(|upstream| servers.push(upstream_row(upstream)));
    let upstreams = servers.render("  ", look);
    let mut issuers = Table::default();
    reply.issuer.iter().for_each(|issuer| issuers.push(issuer_row(issuer)));
    let issuer = issuers.render("  ", look);
    let untold = reply.notify.iter().filter_map(|(name, fault)| Some((name, fault.as_ref()?)));
    let untold: String = untold
        .map(|(name, fault)| {
            let fault = shortened(fault, REFUSED_CHARS_MAX);
            let text = format!("`{}` cannot be told of approvals: {fault}", escaped(name));
            format!("  {}\n", look.paint(Tone::Bad, &text))
        })
        .collect();
    let policy = escaped(reply.policy.get(..19).unwrap_or(&reply.policy));
    let tools = u64::try_from(reply.tools).unwrap_or(u64::MAX);
    let guards: String = reply.guards.iter().map(|guard| guard_line(guard, look)).collect();
    let refused = reply.policies_refused.as_ref().map(|fault| {
        let text = format!("new policies refused: {}", shortened(fault, REFUSED_CHARS_MAX));
        format!("  {}\n", look.paint(Tone::Bad, &text))
    });
    let refused = refused.unwrap_or_default();
    format!(
        "{title}\n  version {}, epoch {}{behind}, policy {policy}, {}{ending}\n\
         {guards}{refused}{upstreams}{issuer}{untold}{running}",
        escaped(&reply.version),
        reply.epoch,
        count(tools, "tool"),
    )
}

fn guard_line(guard: &GuardReply, look: &Look) -> String {
    let expires = guard.expires_ms.map(Timestamp);
    let expires = expires.map_or_else(String::new, |at| format!(", until {}", look.time(at)));
    let guarded = guard.surfaces.iter().chain(&guard.environments);
    let guarded: Vec<_> = guarded.map(|name| escaped(name)).collect();
    format!(
        "  guard set {} over {}: version {}, {}, signed by {}{expires}\n",
        escaped(&guard.name),
        guarded.join(", "),
        guard.version,
        escaped(guard.digest.get(..19).unwrap_or(&guard.digest)),
        escaped(&guard.signed_by.join(", ")),
    )
}

fn upstream_row(upstream: &UpstreamReply) -> Vec<(Tone, String)> {
    let tone = match upstream.condition.as_str() {
        "up" => Tone::Good,
        "down" => Tone::Bad,
        _ => Tone::Dim,
    };
    let era = upstream.era.as_ref().map(|era| format!(", {}", escaped(era))).unwrap_or_default();
    let restarts = match upstream.restarts {
        0 => String::new(),
        some => count(some, "restart"),
    };
    let age = upstream.last_fault_age_ms.unwrap_or_default();
    let fault = upstream.last_fault.as_ref().map_or_else(String::new, |fault| {
        format!("last fault {} ago: {}", duration(age), shortened(fault, FAULT_CHARS_MAX))
    });
    vec![
        (Tone::Plain, escaped(&upstream.server)),
        (tone, format!("{}{era}", escaped(&upstream.condition))),
        (Tone::Careful, restarts),
        (Tone::Dim, fault),
    ]
}

fn issuer_row(issuer: &IssuerReply) -> Vec<(Tone, String)> {
    let tone = if issuer.keys > 0 { Tone::Good } else { Tone::Bad };
    let keys = count(u64::try_from(issuer.keys).unwrap_or(u64::MAX), "key");
    let age = issuer.age_ms.map(|age| format!("fetched {} ago", duration(age)));
    let fault = issuer.last_fault.as_ref();
    let fault = fault.map(|fault| format!("last fault: {}", shortened(fault, FAULT_CHARS_MAX)));
    vec![
        (Tone::Plain, format!("tokens of {}", escaped(&issuer.issuer))),
        (tone, keys),
        (Tone::Dim, age.unwrap_or_default()),
        (Tone::Dim, fault.unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::waiting::Waiting;
    use super::{Status, render, to_json};
    use crate::cli::look::json_lines;
    use crate::cli::look::tests::look;
    use expect_test::{expect, expect_file};
    use holdpoint_ledger::Checkpoint;
    use holdpoint_server::store::ControlRow;
    use holdpoint_server::wire::{IssuerReply, RunningReply, StatusReply, UpstreamReply};
    use holdpoint_types::{Digest, Epoch, Stop, Timestamp};

    fn upstream(server: &str, condition: &str, fault: Option<&str>) -> UpstreamReply {
        UpstreamReply {
            server: server.to_owned(),
            condition: condition.to_owned(),
            era: (condition == "up").then(|| "legacy".to_owned()),
            restarts: u64::from(fault.is_some()),
            failures: u32::from(fault.is_some()),
            last_fault: fault.map(str::to_owned),
            last_fault_age_ms: fault.map(|_| 61_000),
        }
    }

    fn status() -> Status {
        let stop = Stop {
            id: 2,
            scope: "server:db".parse().unwrap(),
            reason: "migration".to_owned(),
            by: "ada".to_owned(),
            since: Timestamp(1_753_000_000_000),
        };
        let running = RunningReply {
            action: "0198".to_owned(),
            agent: "coder".to_owned(),
            tool: "fs__write".to_owned(),
            since_ms: 1_753_000_008_000,
            became: None,
        };
        let reply = StatusReply {
            gateway: "0198-g".to_owned(),
            version: "0.1.0".to_owned(),
            epoch: 2,
            policy: Digest::of(b"policy").to_string(),
            guards: vec![],
            policies_refused: None,
            stops: vec![],
            running: vec![running],
            tools: 14,
            draining: false,
            upstreams: vec![
                upstream("db", "down", Some("the server died")),
                upstream("fs", "up", None),
            ],
            issuer: Some(IssuerReply {
                issuer: "https://auth.example.com".to_owned(),
                keys: 2,
                age_ms: Some(61_000),
                last_fault: None,
            }),
            notify: [
                ("audit".to_owned(), None),
                ("chat".to_owned(), Some("it answered 404 Not Found".to_owned())),
            ]
            .into(),
        };
        let root = Digest::of(b"root");
        Status {
            dir: "/srv/.holdpoint".into(),
            control: ControlRow { epoch: Epoch(3), stops: vec![stop] },
            records: 1204,
            bytes: 3_250_000,
            last_at: Some(Timestamp(1_753_000_007_000)),
            checkpoint: Some(Checkpoint { origin: "log".to_owned(), size: 1204, root }),
            in_doubt: 1,
            gateways: vec![Ok(reply), Err("0199: it did not answer".to_owned())],
            credentials: Vec::new(),
            waiting: Waiting::default(),
            settings: None,
        }
    }

    #[test]
    fn a_status_shows_who_governs_and_what_is_stopped() {
        expect![[r#"
            store        /srv/.holdpoint
            size         1204 records, 3.0 MiB
            last record  2025-07-20T08:26:47.000+00:00 (3 s ago)
            checkpoint   1204 records, root 4813494d137e
            epoch        3
            in doubt     1 action: see holdpoint log --in-doubt
            approvals    none waits
            in force:
            stop 2 on server:db
              reason   migration
              by       ada, 2025-07-20T08:26:40.000+00:00 (10 s ago)
            gateway 0198-g
              version 0.1.0, epoch 2 (behind the store), policy sha256:823412d1eacb, 14 tools
              db  down        1 restart  last fault 1 min ago: the server died
              fs  up, legacy
              tokens of https://auth.example.com  2 keys  fetched 1 min ago
              `chat` cannot be told of approvals: it answered 404 Not Found
              coder  fs__write  began 2 s ago  0198
            silent: 0199: it did not answer
        "#]]
        .assert_eq(&render(&status(), &look()));
        let control = ControlRow { epoch: Epoch(0), stops: vec![] };
        let (checkpoint, last_at, gateways) = (None, None, vec![]);
        let records = 0;
        let idle =
            Status { control, checkpoint, last_at, gateways, records, in_doubt: 0, ..status() };
        expect![[r#"
            store        /srv/.holdpoint
            size         0 records, 3.0 MiB
            last record  none
            checkpoint   none
            epoch        0
            in doubt     none
            approvals    none waits
            no stop is in force
            no process governs
        "#]]
        .assert_eq(&render(&idle, &look()));
    }

    #[test]
    fn a_status_for_programs() {
        let shown = json_lines(&to_json(&status(), look().now));
        expect_file!["status/snapshots/status.json"].assert_eq(&shown);
    }
}
