//! The configuration: any text is read, reported on and shown without a panic, and what is accepted
//! is sane. Must never touch a disk.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;

#[expect(dead_code, unused_imports, reason = "the program uses more of it")]
#[path = "../../crates/holdpoint/src/config/mod.rs"]
mod config;

use config::{Colour, Config, Report, Transport, ValueSource, check};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let file = Path::new("/etc/holdpoint/holdpoint.toml");
    let (found, report) = check("holdpoint.toml", file, text);
    assert_eq!(found.is_none(), report.has_faults(), "a configuration exactly if no fault");
    shown(&report, text);
    if let Some(found) = found {
        sane(&found);
        let (again, _) = check("holdpoint.toml", file, text);
        let again = again.expect("read again with the same end");
        assert_eq!(again.limits, found.limits);
        // Not all that stands beside a server can be compared otherwise.
        assert_eq!(format!("{:?}", again.servers), format!("{:?}", found.servers));
    }
});

/// Every diagnostic says something about a place that is there, and can be shown.
fn shown(report: &Report, text: &str) {
    let plain = report.render(Colour::Never);
    let colourless = plain.chars().all(|shown| shown == '\n' || !shown.is_control());
    assert!(colourless, "a terminal would act upon the report: {plain:?}");
    report.render(Colour::Always);
    let rows = report.to_json();
    assert_eq!(rows.len(), report.diagnostics().len());
    for diagnostic in report.diagnostics() {
        assert!(!diagnostic.message.is_empty());
        if let Some((line, column)) = report.place(diagnostic) {
            assert!(line >= 1 && line <= text.split('\n').count() && column >= 1);
        }
    }
}

/// What is accepted keeps the ranges that the documentation promises.
fn sane(found: &Config) {
    let (limits, door) = (&found.limits, &found.limits.door);
    assert!((1024..=1 << 30).contains(&limits.message_bytes_max));
    assert!(limits.output_stored_bytes_max <= 16 << 20);
    assert!((1..=86_400_000).contains(&limits.call_timeout_ms));
    assert!(limits.stop_grace_ms <= 60_000 && limits.drain_ms <= 3_600_000);
    for count in [
        limits.calls_in_flight_max,
        door.agent_calls_max,
        door.connections_max,
        door.connections_per_address_max,
    ] {
        assert!((1..=65_536).contains(&count));
    }
    assert!((8192..=1 << 20).contains(&door.header_bytes_max));
    assert!((16..=1000).contains(&door.header_count_max));
    for ms in [
        door.queue_wait_ms,
        door.header_timeout_ms,
        door.body_timeout_ms,
        door.idle_timeout_ms,
        door.write_timeout_ms,
    ] {
        assert!((1..=3_600_000).contains(&ms));
    }
    let ordinary = found.policies.ordinary.iter();
    assert!(found.store.is_absolute() && ordinary.clone().all(|path| path.is_absolute()));
    for upstream in found.servers.values() {
        assert!((1..=86_400_000).contains(&upstream.timeout_ms));
        let values = match &upstream.transport {
            Transport::Command(command) => {
                assert!(!command.program.is_empty());
                assert!(command.cwd.iter().all(|path| path.is_absolute()));
                &command.env
            }
            Transport::Url(url) => {
                assert!(url.url.starts_with("http://") || url.url.starts_with("https://"));
                &url.headers
            }
            Transport::Serves(serves) => {
                assert!(serves.address.contains("://") && serves.rows_max > 0);
                &serves.env
            }
        };
        values.values().for_each(referenced);
    }
    found.operators.values().for_each(referenced);
}

fn referenced(value: &ValueSource) {
    match value {
        ValueSource::Literal(_) => {}
        ValueSource::Env(name) => assert!(!name.is_empty() && !name.contains(['=', '\0'])),
        ValueSource::File(path) => assert!(path.is_absolute()),
    }
}
