//! `holdpoint serve` as a daemon: health, metrics, logs, drain, reload, the service manager.

use crate::raw::{call, post, reason};
use crate::world::{PATIENCE, PEER, Serve, World, text, until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;

/// The small server's configuration, with health and metrics, and these `[limits]`.
fn config(limits: &str) -> String {
    let config = PEER.replace("[listen]\n", "[listen]\noperations = \"127.0.0.1:0\"\n");
    config.replace("[limits]\n", &format!("[limits]\n{limits}\n"))
}

fn base(serve: &Serve) -> &str {
    serve.operations.as_deref().unwrap().trim_start_matches("http://")
}

/// `GET` from the operations door: status and body; nothing if it is gone.
fn try_get(serve: &Serve, path: &str, head: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(base(serve)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{head}\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = text(&answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// `GET` from the operations door: status and body.
pub fn get(serve: &Serve, path: &str) -> (u16, String) {
    try_get(serve, path, &format!("Host: {}", base(serve))).unwrap()
}

fn echo(words: &str) -> Value {
    call(1, "echo", json!({ "text": words }))
}

/// Waits until a call is in flight.
fn until_running(serve: &Serve) {
    let running = || crate::limits::metric(serve, "holdpoint_calls_in_flight");
    until("a call runs", || (running()? >= 1.0).then_some(()));
}

fn until_draining(serve: &Serve) {
    until("it drains", || (get(serve, "/readyz").0 == 503).then_some(()));
}

#[test]
fn check_says_where_serve_would_not_begin_and_what_is_not_there() {
    let world = World::new(&format!(
        "{PEER}\n\
         [operator.night]\nkey = {{ from_file = \"night.key\" }}\n\
         [server.books]\nserves = {{ sqlite = \"books.db\" }}\n\
         [server.orders]\nserves = {{ postgres = {{ from_env = \"HOLDPOINT_NO_SUCH_URL\" }} }}\n"
    ));
    let check = || {
        let run = world.run(&["check"]);
        assert!(run.status.success(), "{run:?}");
        (text(&run.stdout), text(&run.stderr))
    };
    let refused = |part: &str| {
        let serve = world.run(&["serve"]);
        assert_eq!(serve.status.code(), Some(1), "{serve:?}");
        assert!(text(&serve.stderr).contains(part), "{serve:?}");
    };
    let (said, told) = check();
    for expected in [
        "operator `night` has no key: cannot read",
        "server `orders`: the environment variable `HOLDPOINT_NO_SUCH_URL` is not set",
        "`serve` does not begin where this is so",
        "server `books`: there is no database",
        "3 warnings",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    assert!(!told.contains("a role of its own"), "{told}");
    assert!(said.contains("fit to run, but `serve` does not begin in this environment"), "{said}");
    refused("HOLDPOINT_NO_SUCH_URL");
    let config = std::fs::read_to_string(world.path().join("holdpoint.toml")).unwrap();
    let (config, _) = config.split_once("[server.orders]").unwrap();
    world.write_config(config);
    refused("operator `night` has no key");
    std::fs::write(world.path().join("night.key"), "short").unwrap();
    assert!(check().1.contains("fewer than 32 characters"));
    refused("fewer than 32 characters");
    std::fs::write(world.path().join("night.key"), "k".repeat(32)).unwrap();
    std::fs::write(world.path().join("books.db"), "").unwrap();
    let (said, told) = check();
    assert!(said.contains("fit to run\n"), "{said}{told}");
    assert!(!told.contains("does not begin"), "{told}");
    assert!(!told.contains("books"), "{told}");
    world.serve().end();
}

#[test]
fn health_and_metrics_tell_what_happens() {
    let world = World::new(&config(""));
    let key = world.key("coder");
    let serve = world.serve();
    assert_eq!(get(&serve, "/healthz").0, 200);
    let (status, ready) = get(&serve, "/readyz");
    assert_eq!(status, 200, "{ready}");
    assert_eq!(reason(&post(&serve, ("/peer", &key), &echo("hunter2")).body), "answered");
    let unknown = call(2, "nothing-like-this", json!({}));
    assert_ne!(reason(&post(&serve, ("/peer", &key), &unknown).body), "answered");
    assert_eq!(post(&serve, ("/peer", "guess"), &echo("hi")).status, 401);

    // Outcomes are written a moment after their answers.
    let page = until("nothing waits for the ledger", || {
        let (status, page) = get(&serve, "/metrics");
        assert_eq!(status, 200);
        page.contains("\nholdpoint_ledger_waiting 0\n").then_some(page)
    });
    for line in [
        "holdpoint_decisions_total{ruling=\"permit\",reason=\"permitted_by_policy\"} 1",
        "holdpoint_decisions_total{ruling=\"deny\",reason=\"tool_unknown\"} 1",
        "holdpoint_agent_decisions_total{agent=\"coder\",ruling=\"permit\"} 1",
        "holdpoint_calls_total{server=\"peer\",tool=\"peer__echo\",outcome=\"answered\"} 1",
        "holdpoint_call_seconds_count{server=\"peer\"} 1",
        "holdpoint_decision_seconds_count{ruling=\"permit\"} 1",
        "holdpoint_door_refusals_total{reason=\"unauthenticated\"} 1",
        "holdpoint_http_requests_total{method=\"tools/call\",status=\"200\"} 2",
        "holdpoint_upstream{server=\"peer\",condition=\"up\"} 1",
        "holdpoint_upstream_restarts{server=\"peer\"} 0",
        "holdpoint_calls_in_flight 0",
        "holdpoint_requests_waiting 0",
        "holdpoint_agent_keys 1",
        "holdpoint_stops{scope=\"agent\"} 0",
        "holdpoint_ledger_ok 1",
        "holdpoint_ledger_waiting 0",
        "holdpoint_ready 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
    assert!(!page.contains("hunter2") && !page.contains("nothing-like-this"), "{page}");
    assert!(page.ends_with("# EOF\n"));

    world.must(&["stop", "--agent", "coder", "--reason", "test"]);
    let stops = crate::limits::metric(&serve, "holdpoint_stops{scope=\"agent\"}");
    assert_eq!(stops, Some(1.0));
    serve.end();
}

#[test]
fn a_web_page_cannot_ask_for_metrics() {
    let world = World::new(&config(""));
    let serve = world.serve();
    let port = base(&serve).rsplit(':').next().unwrap();
    for (head, status) in [
        (format!("Host: localhost:{port}"), 200),
        (format!("Host: [::1]:{port}"), 200),
        (format!("Host: evil.example:{port}"), 403),
        (format!("Host: {}\r\nOrigin: http://evil.example", base(&serve)), 403),
        ("Host: ".to_owned(), 403),
    ] {
        assert_eq!(try_get(&serve, "/metrics", &head).unwrap().0, status, "{head}");
    }
}

#[test]
fn a_store_that_cannot_be_written_is_not_ready() {
    let world = World::new(&config(""));
    let serve = world.serve();
    assert_eq!(get(&serve, "/readyz").0, 200);
    std::fs::rename(world.store().join("ledger.db"), world.store().join("moved")).unwrap();
    let (status, told) = get(&serve, "/readyz");
    assert_eq!(status, 503, "{told}");
    assert_eq!(get(&serve, "/healthz").0, 200);
    std::fs::rename(world.store().join("moved"), world.store().join("ledger.db")).unwrap();
    until("it is ready again", || (get(&serve, "/readyz").0 == 200).then_some(()));
}

#[test]
fn a_server_that_died_is_counted_and_shown() {
    let world = World::new(&config(""));
    let key = world.key("coder");
    let serve = world.serve();
    assert_eq!(reason(&post(&serve, ("/peer", &key), &echo("hi")).body), "answered");
    let dead = post(&serve, ("/peer", &key), &call(2, "die", json!({})));
    assert_eq!(reason(&dead.body), "upstream_unavailable");
    until("it is back", || {
        (reason(&post(&serve, ("/peer", &key), &echo("hi")).body) == "answered").then_some(())
    });
    let restarts = crate::limits::metric(&serve, "holdpoint_upstream_restarts{server=\"peer\"}");
    assert!(restarts >= Some(1.0), "{restarts:?}");
    let status = world.json(&["status"]);
    let upstream = &status["gateways"][0]["upstreams"][0];
    assert_eq!((&upstream["server"], &upstream["condition"]), (&json!("peer"), &json!("up")));
    assert!(upstream["restarts"].as_u64() >= Some(1), "{status}");
    assert!(upstream["last_fault"].is_string(), "{status}");
    let shown = world.must(&["status"]);
    assert!(shown.contains("peer  up, ") && shown.contains("last fault"), "{shown}");
}

#[test]
fn a_drain_lets_calls_end_and_takes_no_new_ones() {
    let world = World::new(&config("drain_ms = 20000"));
    let key = world.key("coder");
    let serve = world.serve();
    std::thread::scope(|scope| {
        // Ends by itself after the server's `timeout_ms`.
        let slow = scope.spawn(|| post(&serve, ("/peer", &key), &call(1, "hang", json!({}))));
        until_running(&serve);
        serve.signal(Signal::TERM);
        until_draining(&serve);
        assert_eq!(get(&serve, "/healthz").0, 200);
        let refused = post(&serve, ("/peer", &key), &echo("late"));
        assert_eq!((refused.status, reason(&refused.body).as_str()), (503, "draining"));
        assert_eq!(refused.header("retry-after"), Some("1"));
        assert_eq!(reason(&slow.join().unwrap().body), "upstream_timeout");
    });
    assert_eq!(serve.wait(), Some(0));
    world.must(&["verify"]);
    assert_eq!(world.json(&["status"])["in_doubt"], 0);
}

#[test]
fn a_drain_that_takes_too_long_stops_what_is_left() {
    let config = config("drain_ms = 100").replace("timeout_ms = 3000", "timeout_ms = 60000");
    let world = World::new(&config);
    let key = world.key("coder");
    let serve = world.serve();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| post(&serve, ("/peer", &key), &call(1, "hang", json!({}))));
        until_running(&serve);
        serve.signal(Signal::TERM);
        let answer = slow.join().unwrap();
        assert_eq!(reason(&answer.body), "cancelled_by_stop", "{:?}", answer.body);
    });
    assert_eq!(serve.wait(), Some(0));
    until("the server is gone", || world.processes("peer.mjs").is_empty().then_some(()));
    let records = world.records();
    let outcome = records.iter().find(|record| record["kind"] == "outcome").unwrap();
    assert_eq!(outcome["status"], "in_doubt");
    world.must(&["verify"]);
}

#[test]
fn a_second_signal_ends_at_once() {
    let config = config("drain_ms = 3600000").replace("timeout_ms = 3000", "timeout_ms = 600000");
    let world = World::new(&config);
    let key = world.key("coder");
    let serve = world.serve();
    let hang = call(1, "hang", json!({}));
    std::thread::scope(|scope| {
        scope.spawn(|| crate::raw::try_post(&serve, ("/peer", &key), &hang));
        until_running(&serve);
        serve.signal(Signal::TERM);
        until_draining(&serve);
        serve.signal(Signal::INT);
    });
    assert_eq!(serve.wait(), Some(1));
    world.must(&["verify"]);
    assert_eq!(world.json(&["status"])["in_doubt"], 1);
}

#[test]
fn a_hang_up_brings_all_of_a_new_configuration_into_force_or_nothing() {
    let world = World::new(&config(""));
    let key = world.key("coder");
    let serve = world.serve();
    let ask = |below: &str| reason(&post(&serve, (below, &key), &echo("hi")).body);
    assert_eq!(ask("/peer"), "answered");
    let loaded = |result: &str| {
        let labels = format!("{{what=\"configuration\",result=\"{result}\"}}");
        crate::limits::metric(&serve, &format!("holdpoint_reloads_total{labels}")).unwrap_or(0.0)
    };
    let reload = |config: &str, result: &str| {
        let before = loaded(result);
        world.write_config(config);
        serve.signal(Signal::HUP);
        until(result, || (loaded(result) > before).then_some(()));
    };
    let before = world.processes("peer.mjs");

    let second = "[server.second]\ncommand = [\"node\", \"${peer}\"]\nread = [\"*\"]\n";
    reload(&format!("{}{second}", config("")), "in_force");
    assert_eq!((ask("/peer"), ask("/second")), ("answered".to_owned(), "answered".to_owned()));
    assert!(before.iter().all(|pid| world.processes("peer.mjs").contains(pid)), "kept as it is");

    let broken = format!("{}[server.third]\nurl = 5\n[agent.x]\n", config(""));
    reload(&broken, "refused");
    assert_eq!((ask("/peer"), ask("/second")), ("answered".to_owned(), "answered".to_owned()));
    let log = world.serve_log();
    assert!(log.contains("the key `owner` is missing"), "{log}");
    reload(&config(""), "in_force");
    assert_eq!(ask("/second"), "server_unknown");
    let moved = config("").replace("http = \"127.0.0.1:0\"", "http = \"127.0.0.2:0\"");
    reload(&moved, "refused");
    assert!(world.serve_log().contains("`listen.http` can only change with a restart"));

    let unclassified = config("").replace("class = \"read\"", "class = \"write\"");
    reload(&unclassified, "in_force");
    assert!(ask("/peer").contains("not_granted"));
    let other_host = config("").replace("[listen]\n", "[listen]\nhosts = [\"mcp.example\"]\n");
    reload(&other_host, "in_force");
    assert_eq!(ask("/peer"), "origin_refused");
    serve.end();
    let records = world.records();
    let kinds = records.iter().filter(|record| record["kind"] == "settings_loaded");
    assert!(kinds.count() >= 3, "{records:?}");
    world.must(&["verify"]);
}

#[test]
fn logs_are_json_on_demand_and_hold_no_parameter_and_no_key() {
    let world = World::new(&config(""));
    let key = world.key("coder");
    let arguments = ["serve", "--format", "json", "--log-format", "json"];
    let mut command = world.command(&arguments);
    command.env("HOLDPOINT_LOG", "trace,hyper=info,h2=info,rustls=info,mio=info,polling=info");
    let serve = world.serve_by(command);
    let words = "correct-horse-battery";
    assert_eq!(reason(&post(&serve, ("/peer", &key), &echo(words)).body), "answered");
    let denied = call(2, "touch", json!({ "path": 7, "words": words }));
    assert_eq!(reason(&post(&serve, ("/peer", &key), &denied).body), "parameters_invalid");
    serve.end();
    let log = world.serve_log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = |level: &str, message: &str| {
        lines.iter().any(|line| line["level"] == level && line["message"] == message)
    };
    assert!(said("INFO", "governing") && said("DEBUG", "permitted"), "{log}");
    assert!(said("INFO", "refused") && said("INFO", "ended: every record is durable"), "{log}");
    assert!(!log.contains(words) && !log.contains(&key), "{log}");
}

#[test]
fn the_service_manager_is_told() {
    let world = World::new(&config(""));
    let socket = UnixDatagram::bind(world.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut state = [0; 256];
        let length = socket.recv(&mut state).unwrap();
        text(&state[..length])
    };
    let next_but_watchdog = || std::iter::repeat_with(next).find(|state| state != "WATCHDOG=1");
    // The shell becomes the server, so that it is the process that the watchdog means.
    let mut command = std::process::Command::new("sh");
    let program = env!("CARGO_BIN_EXE_holdpoint");
    let line = format!("WATCHDOG_PID=$$ exec '{program}' serve --format json");
    command.args(["-c", &line]).current_dir(world.path()).env("NO_COLOR", "1");
    command.env("NOTIFY_SOCKET", world.path().join("notify")).env("WATCHDOG_USEC", "50000");
    let serve = world.serve_by(command);
    assert_eq!(next(), "READY=1");
    assert_eq!(next(), "WATCHDOG=1");
    assert_eq!(next(), "WATCHDOG=1");
    serve.signal(Signal::HUP);
    assert_eq!(next_but_watchdog().as_deref(), Some("RELOADING=1"));
    assert_eq!(next_but_watchdog().as_deref(), Some("READY=1"));
    serve.signal(Signal::TERM);
    assert_eq!(next_but_watchdog().as_deref(), Some("STOPPING=1"));
    assert_eq!(serve.wait(), Some(0));
}
