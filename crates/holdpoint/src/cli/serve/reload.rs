//! The configuration, read anew while the daemon runs: all of it comes into force, or nothing.
//! Must never drop a call in flight, and never end the process.

use super::Service;
use crate::config::{self, Colour, Config, Loaded, Unusable};
use crate::gateway::runtime_spec;
use anyhow::{Context as _, bail};
use holdpoint_server::doors::local::Kind;
use holdpoint_server::policies::PolicySpec;
use holdpoint_server::telemetry::Reload;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What only a restart can change.
pub(super) struct Fixed {
    file: PathBuf,
    store: PathBuf,
    policies: PolicySpec,
    http: SocketAddr,
    operations: Option<SocketAddr>,
    tls: bool,
}

// === impl Fixed ===

impl Fixed {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            file: config.file.clone(),
            store: config.store.clone(),
            policies: config.policies.clone(),
            http: config.listen.http,
            operations: config.listen.operations,
            tls: config.listen.tls.is_some(),
        }
    }

    fn check(&self, new: &Config) -> anyhow::Result<()> {
        let differs = [
            ("store.path", self.store != new.store),
            ("policies.path", self.policies.ordinary != new.policies.ordinary),
            ("policies.guard", self.policies.guards != new.policies.guards),
            ("listen.http", self.http != new.listen.http),
            ("listen.operations", self.operations != new.listen.operations),
            ("listen.tls", self.tls != new.listen.tls.is_some()),
        ];
        let keys: Vec<_> = differs.iter().filter(|(_, differs)| *differs).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = keys.iter().map(|(key, _)| format!("`{key}`")).collect();
        bail!("{} can only change with a restart", keys.join(", "))
    }
}

/// Reloads, and says in the log what came of it.
pub(super) async fn reload(service: &mut Service, fixed: &Fixed) {
    let governor = service.runtime().governor().clone();
    match try_reload(service, fixed).await {
        Ok(differs) => {
            let configuration = governor.settings().digest().to_string();
            tracing::info!(%configuration, differs, "configuration in force");
            governor.telemetry().reloaded("configuration", Reload::InForce);
        }
        Err(fault) => {
            let fault = config::printable(&format!("{fault:#}"));
            tracing::error!(%fault, "new configuration refused: the old one stays in force");
            governor.telemetry().reloaded("configuration", Reload::Refused);
        }
    }
}

async fn try_reload(service: &mut Service, fixed: &Fixed) -> anyhow::Result<bool> {
    let Loaded { config, report } = match config::load(&fixed.file) {
        Ok(loaded) => loaded,
        Err(fault) => {
            if let Unusable::Faulty { report, .. } = &fault {
                for line in report.render(Colour::Never).lines() {
                    tracing::error!("{line}");
                }
            }
            return Err(fault.into());
        }
    };
    for line in report.render(Colour::Never).lines() {
        tracing::warn!("{line}");
    }
    fixed.check(&config)?;
    let (spec, rest) = runtime_spec(config, Kind::Serve)?;
    service.replace(spec, &rest).await.context("a part cannot be replaced")
}
