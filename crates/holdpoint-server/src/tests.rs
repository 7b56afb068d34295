//! What unit tests start from: a process that governs, on a store of its own.

use crate::doors::local::Kind;
use crate::governor::Limits;
use crate::runtime::{Runtime, RuntimeSpec};
use holdpoint_control::{Agent, Grant, Settings, SettingsParts, ToolPattern};
use holdpoint_types::{EffectClass, Mode};
use std::path::Path;
use std::time::Duration;

/// A process in which `coder` may read everything.
pub(crate) async fn runtime(dir: &Path) -> Runtime {
    let every = vec![ToolPattern::parse("*").unwrap()];
    let coder = Agent {
        owner: "platform".parse().unwrap(),
        mode: Mode::Auto,
        grants: vec![Grant::new(EffectClass::Read, every).unwrap()],
        requesters: Default::default(),
    };
    let mut parts = SettingsParts::default();
    parts.teams.insert("platform".parse().unwrap(), Default::default());
    parts.agents.insert("coder".parse().unwrap(), coder);
    let limits = Limits {
        calls_in_flight_max: 8,
        checks_open_max: 8,
        output_stored_bytes_max: 1 << 10,
        stop_grace: Duration::from_millis(100),
    };
    let spec = RuntimeSpec {
        store: dir.to_owned(),
        kind: Kind::Serve,
        settings: Settings::new(parts).unwrap(),
        policies: Default::default(),
        strict: Default::default(),
        limits,
        validators: Default::default(),
    };
    Runtime::start(spec).await.unwrap()
}
