//! The stage for one act: a folder with databases, notes, a configuration and a running Holdpoint.
//!
//! Everything is the product itself: the same configuration reader, the same doors, a real client.
//! Must never leave the folder it was given.

use super::scenario::{Act, Places, Scenario};
use crate::cli::serve::Service;
use crate::config;
use crate::gateway::runtime_spec;
use anyhow::Context as _;
use holdpoint_server::doors::http::AgentKey;
use holdpoint_server::doors::local::Kind;
use holdpoint_server::runtime::Runtime;
use holdpoint_server::store::{NewKey, Store};
use holdpoint_types::{AgentName, Digest};
use rmcp::service::{RoleClient, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, ClientServiceExt};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Who issues the agent's key and presses stop.
pub const OPERATOR: &str = "on-call";
/// How long a stopped call may take to end: short, so that nobody waits.
const GRACE_MS: i64 = 500;

/// A running act.
pub struct Stage {
    /// Holdpoint.
    pub service: Service,
    /// The agent's MCP client.
    pub client: RunningService<RoleClient, ()>,
    databases: BTreeMap<String, PathBuf>,
    ask: Option<String>,
}

// === impl Stage ===

impl Stage {
    /// Fills the databases, starts Holdpoint and connects the agent.
    ///
    /// # Errors
    /// When anything of it fails.
    pub async fn set(scenario: &Scenario, act: &Act, dir: &Path) -> anyhow::Result<Self> {
        let workspace = dir.join("workspace");
        std::fs::create_dir_all(&workspace)?;
        let mut databases = BTreeMap::new();
        for (name, seed) in &scenario.databases {
            let path = dir.join(format!("{name}.db"));
            fill(&path, seed).with_context(|| format!("cannot fill the database `{name}`"))?;
            databases.insert(name.clone(), path);
        }
        let file = write_config(act, dir, &places(&workspace, &databases)?)?;
        let config = match config::load(&file) {
            Ok(loaded) => loaded.config,
            Err(config::Unusable::Faulty { report, file }) => {
                let faults = report.render(config::Colour::Never);
                anyhow::bail!("the scenario's configuration `{file}` has faults:\n{faults}");
            }
            Err(fault) => return Err(fault.into()),
        };
        let (spec, rest) = runtime_spec(config, Kind::Serve)?;
        let service = Service::start(Runtime::start(spec).await?, &rest).await?;
        let client = connect(&service, &scenario.agent).await?;
        Ok(Self { service, client, databases, ask: act.ask.clone() })
    }

    /// The store.
    pub fn store(&self) -> &Store {
        self.service.runtime().governor().store()
    }

    /// What the user asked for.
    pub fn ask(&self) -> Option<String> {
        self.ask.clone()
    }

    /// The digest of a database file's bytes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn database(&self, name: &str) -> anyhow::Result<Digest> {
        let path = self.databases.get(name).context("no such database")?;
        Ok(Digest::of(&std::fs::read(path)?))
    }

    /// Ends everything, and waits for the last record.
    ///
    /// # Errors
    /// When the client cannot be closed.
    pub async fn strike(self) -> anyhow::Result<()> {
        self.client.cancel().await?;
        self.service.end().await;
        Ok(())
    }
}

fn fill(path: &Path, seed: &str) -> anyhow::Result<()> {
    let database = rusqlite::Connection::open(path)?;
    database.execute_batch(seed)?;
    database.close().map_err(|(_, fault)| fault)?;
    Ok(())
}

fn places(workspace: &Path, databases: &BTreeMap<String, PathBuf>) -> anyhow::Result<Places> {
    let text = |path: &Path| path.display().to_string();
    let program = std::env::current_exe().context("cannot tell where this program lies")?;
    let databases = databases.iter().map(|(name, path)| (name.clone(), text(path)));
    let (holdpoint, workspace) = (text(&program), text(workspace));
    Ok(Places { holdpoint, workspace, databases: databases.collect() })
}

/// The act's configuration with what is the stage's business: store, listener, a short grace.
fn write_config(act: &Act, dir: &Path, places: &Places) -> anyhow::Result<PathBuf> {
    let mut config = act.config(places)?;
    let table = |pairs: &[(&str, toml::Value)]| {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        toml::Value::Table(pairs.collect())
    };
    let store = dir.join("store").display().to_string();
    config.insert("store".to_owned(), table(&[("path", store.into())]));
    config.insert("listen".to_owned(), table(&[("http", "127.0.0.1:0".into())]));
    config.insert("limits".to_owned(), table(&[("stop_grace_ms", GRACE_MS.into())]));
    let file = dir.join("holdpoint.toml");
    std::fs::write(&file, toml::to_string(&config)?)?;
    Ok(file)
}

async fn connect(
    service: &Service,
    agent: &AgentName,
) -> anyhow::Result<RunningService<RoleClient, ()>> {
    let governor = service.runtime().governor();
    let key = AgentKey::generate()?;
    let owner = governor.settings().agent(agent).and_then(|facts| facts.owner);
    let owner = owner.with_context(|| format!("the agent `{agent}` has no owner"))?;
    let issued =
        NewKey { key_id: key.id().to_owned(), agent: agent.clone(), owner, hash: key.digest() };
    governor.store().issue_key(issued, OPERATOR.to_owned(), governor.now()).await?;
    service.read_keys()?;
    let uri = format!("http://{}/mcp", service.address());
    let config = StreamableHttpClientTransportConfig::with_uri(uri).auth_header(key.reveal());
    // A proxy of the environment has no business between us and loopback.
    let loopback = reqwest::Client::builder().no_proxy().build()?;
    let transport = StreamableHttpClientTransport::with_client(loopback, config);
    Ok(().serve_with_lifecycle(transport, ClientLifecycleMode::Initialize).await?)
}
