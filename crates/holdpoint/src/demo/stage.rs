//! The stage for one act: a folder with databases, notes, a configuration and a running Holdpoint.
//!
//! Everything is the product itself: the same configuration reader, the same doors, a real client.
//! Must never leave the folder it was given.

use super::endpoint::Endpoint;
use super::scenario::{Act, Call, Places, ProposalStep, Scenario, WORKSPACE};
use crate::cli::serve::Service;
use crate::config;
use crate::gateway::runtime_spec;
use anyhow::Context as _;
use holdpoint_policy::starter_pack;
use holdpoint_server::doors::http::AgentKey;
use holdpoint_server::doors::local::Kind;
use holdpoint_server::runtime::Runtime;
use holdpoint_server::store::{NewKey, Store};
use holdpoint_types::{AgentName, Digest, TaskId};
use rmcp::model::{CallToolRequestParams, JsonObject, RequestMetaObject};
use rmcp::service::{RoleClient, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, ClientServiceExt};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Who issues the agent's key and presses stop.
pub const OPERATOR: &str = "on-call";
/// How long a stopped call may take to end: short, so that nobody waits.
const GRACE_MS: i64 = 500;
/// Where an agent declares what it is about.
const TASK_KEY: &str = "io.holdpoint/task";

/// A running act.
pub struct Stage {
    /// Holdpoint.
    pub service: Service,
    /// The agent that makes every call that nobody else makes.
    pub agent: AgentName,
    callers: BTreeMap<AgentName, Caller>,
    databases: BTreeMap<String, PathBuf>,
    workspace: PathBuf,
    places: Places,
    ask: Option<String>,
    // Serves until the stage is gone.
    _endpoint: Option<Endpoint>,
}

/// An agent with its own key and client, at a task of its own.
struct Caller {
    client: RunningService<RoleClient, ()>,
    task: TaskId,
}

// === impl Stage ===

impl Stage {
    /// Fills the databases and the workspace, starts Holdpoint and connects the agent.
    ///
    /// # Errors
    /// When anything of it fails.
    pub async fn set(scenario: &Scenario, act: &Act, dir: &Path) -> anyhow::Result<Self> {
        let workspace = dir.join(WORKSPACE);
        write_files(&workspace, &scenario.files)?;
        let mut databases = BTreeMap::new();
        for (name, seed) in &scenario.databases {
            let path = dir.join(format!("{name}.db"));
            fill(&path, seed).with_context(|| format!("cannot fill the database `{name}`"))?;
            databases.insert(name.clone(), path);
        }
        let behind = scenario.endpoint.as_ref().and_then(|name| databases.get(name));
        let endpoint = match behind {
            Some(database) => Some(Endpoint::start(database.clone()).await?),
            None => None,
        };
        let mut places = places(&workspace, &databases)?;
        places.endpoint = endpoint.as_ref().map(|endpoint| endpoint.url().to_owned());
        let mut config = act.config(&places)?;
        if let Some(more) = &scenario.policies {
            config.insert("policies".to_owned(), write_policies(dir, more)?);
        }
        let file = write_config(config, dir)?;
        let config = config::load(&file)?.config;
        let (spec, rest) = runtime_spec(config, Kind::Serve)?;
        let service = Service::start(Runtime::start(spec).await?, &rest).await?;
        let agent = scenario.agent.clone();
        let mut callers = BTreeMap::new();
        for name in act.agents().chain([&agent]) {
            if !callers.contains_key(name) {
                callers.insert(name.clone(), connect(&service, name).await?);
            }
        }
        let ask = act.ask.clone();
        let _endpoint = endpoint;
        Ok(Self { service, agent, callers, databases, workspace, places, ask, _endpoint })
    }

    /// The store.
    pub fn store(&self) -> &Store {
        self.service.runtime().governor().store()
    }

    /// The MCP client of `agent`.
    ///
    /// # Errors
    /// When it plays no part.
    pub fn peer(&self, agent: &AgentName) -> anyhow::Result<rmcp::Peer<RoleClient>> {
        Ok(self.caller(agent)?.client.peer().clone())
    }

    /// What `agent` is about.
    ///
    /// # Errors
    /// When it plays no part.
    pub fn task(&self, agent: &AgentName) -> anyhow::Result<TaskId> {
        Ok(self.caller(agent)?.task)
    }

    fn caller(&self, agent: &AgentName) -> anyhow::Result<&Caller> {
        self.callers.get(agent).with_context(|| format!("`{agent}` plays no part"))
    }

    /// What `agent` sends to make `call`.
    ///
    /// # Errors
    /// When a parameter names what is not there.
    pub fn params(&self, agent: &AgentName, call: &Call) -> anyhow::Result<CallToolRequestParams> {
        self.asking(agent, &call.tool.to_string(), call.parameters(&self.places)?)
    }

    /// The plan of a proposal.
    ///
    /// # Errors
    /// When it names what is not there.
    pub fn plan(&self, step: &ProposalStep) -> anyhow::Result<JsonObject> {
        Ok(step.plan(&self.places)?)
    }

    /// What `agent` sends to call a tool of this name.
    ///
    /// # Errors
    /// When it plays no part.
    pub fn asking(
        &self,
        agent: &AgentName,
        tool: &str,
        arguments: JsonObject,
    ) -> anyhow::Result<CallToolRequestParams> {
        let mut params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        if let Some(intent) = &self.ask {
            let mut meta = RequestMetaObject::new();
            let task = json!({ "id": self.task(agent)?, "intent": intent });
            meta.insert(TASK_KEY.to_owned(), task);
            params.meta = Some(meta);
        }
        Ok(params)
    }

    /// The digest of a database file's bytes, or of the whole workspace.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn digest(&self, name: &str) -> anyhow::Result<Digest> {
        if name == WORKSPACE {
            let mut found = BTreeMap::new();
            collect(&self.workspace, &mut found)?;
            return Ok(Digest::of(&serde_json::to_vec(&found)?));
        }
        Ok(Digest::of(&std::fs::read(self.database(name)?)?))
    }

    /// The digest of what a database holds: every table with its definition, row by row.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn rows(&self, name: &str) -> anyhow::Result<Digest> {
        let database = rusqlite::Connection::open(self.database(name)?)?;
        Ok(Digest::of(&serde_json::to_vec(&contents(&database)?)?))
    }

    /// The file of a database.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn database(&self, name: &str) -> anyhow::Result<&Path> {
        self.databases.get(name).map(PathBuf::as_path).context("no such database")
    }

    /// Ends everything, and waits for the last record.
    ///
    /// # Errors
    /// When the client cannot be closed.
    pub async fn strike(self) -> anyhow::Result<()> {
        for caller in self.callers.into_values() {
            caller.client.cancel().await?;
        }
        self.service.end().await;
        Ok(())
    }
}

fn write_files(workspace: &Path, files: &BTreeMap<String, String>) -> anyhow::Result<()> {
    std::fs::create_dir_all(workspace)?;
    for (path, text) in files {
        let path = workspace.join(path);
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(path, text)?;
    }
    Ok(())
}

/// Everything in `folder`: the digest of each file, and where each link leads.
fn collect(folder: &Path, found: &mut BTreeMap<String, String>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let what = if kind.is_dir() {
            collect(&path, found)?;
            "folder".to_owned()
        } else if kind.is_symlink() {
            format!("link {}", std::fs::read_link(&path)?.display())
        } else if kind.is_file() {
            Digest::of(&std::fs::read(&path)?).to_string()
        } else {
            "other".to_owned()
        };
        found.insert(path.display().to_string(), what);
    }
    Ok(())
}

fn fill(path: &Path, seed: &str) -> anyhow::Result<()> {
    let database = rusqlite::Connection::open(path)?;
    database.execute_batch(seed)?;
    database.close().map_err(|(_, fault)| fault)?;
    Ok(())
}

/// The definition and the rows of each table, the rows in an order of their own.
fn contents(database: &rusqlite::Connection) -> anyhow::Result<Vec<(String, Vec<String>)>> {
    let tables = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type, name";
    let mut tables = database.prepare(tables)?;
    let tables = tables.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut all = Vec::new();
    for table in tables {
        let (name, definition): (String, String) = table?;
        let mut found = Vec::new();
        if definition.to_ascii_uppercase().starts_with("CREATE TABLE") {
            let quoted = name.replace('"', "\"\"");
            let mut rows = database.prepare(&format!("SELECT * FROM \"{quoted}\""))?;
            let columns = rows.column_count();
            let rows = rows.query_map([], |row| {
                let values = (0..columns).map(|at| Ok(format!("{:?}", row.get_ref(at)?)));
                values.collect::<rusqlite::Result<Vec<_>>>()
            })?;
            for row in rows {
                found.push(row?.join(", "));
            }
            found.sort();
        }
        all.push((definition, found));
    }
    Ok(all)
}

fn places(workspace: &Path, databases: &BTreeMap<String, PathBuf>) -> anyhow::Result<Places> {
    let text = |path: &Path| path.display().to_string();
    let program = std::env::current_exe().context("cannot tell where this program lies")?;
    let databases = databases.iter().map(|(name, path)| (name.clone(), text(path)));
    let (holdpoint, workspace) = (text(&program), text(workspace));
    Ok(Places { holdpoint, workspace, databases: databases.collect(), endpoint: None })
}

/// The act's configuration with what is the stage's business: store, listener, a short grace.
fn write_config(mut config: toml::Table, dir: &Path) -> anyhow::Result<PathBuf> {
    let store = dir.join("store").display().to_string();
    config.insert("store".to_owned(), table(&[("path", store.into())]));
    config.insert("listen".to_owned(), table(&[("http", "127.0.0.1:0".into())]));
    config.insert("limits".to_owned(), table(&[("stop_grace_ms", GRACE_MS.into())]));
    let file = dir.join("holdpoint.toml");
    std::fs::write(&file, toml::to_string(&config)?)?;
    Ok(file)
}

/// The starter pack and what the scenario adds to it.
fn write_policies(dir: &Path, more: &str) -> anyhow::Result<toml::Value> {
    let folder = dir.join("policies");
    std::fs::create_dir_all(&folder)?;
    for source in starter_pack() {
        std::fs::write(folder.join(source.name), source.text)?;
    }
    std::fs::write(folder.join("scenario.cedar"), more)?;
    Ok(table(&[("path", folder.display().to_string().into())]))
}

fn table(pairs: &[(&str, toml::Value)]) -> toml::Value {
    let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
    toml::Value::Table(pairs.collect())
}

async fn connect(service: &Service, agent: &AgentName) -> anyhow::Result<Caller> {
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
    let client = ().serve_with_lifecycle(transport, ClientLifecycleMode::Initialize).await?;
    let mut random = [0; 10];
    getrandom::fill(&mut random).context("the system gives no randomness")?;
    Ok(Caller { client, task: TaskId::new(governor.now(), random) })
}
