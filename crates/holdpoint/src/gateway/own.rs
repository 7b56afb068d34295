//! What Holdpoint serves itself, from the checked configuration. Secrets are read here, at the last
//! moment. Must never print one.

use super::{Rest, value, values};
use crate::config::{Config, Served, Serves, Transport, UndoRules, ValueSource};
use anyhow::{Context as _, bail};
use holdpoint_resources as resources;
use holdpoint_resources::{Archive, Place, Resources, SecretText, Upstream, Vault};
use holdpoint_types::ServerName;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Shortest time that an apply may take: killing it may lose what it knows about its state.
const APPLY_MIN: Duration = Duration::from_secs(30 * 60);
/// Most that a shell command may say, in bytes.
const SAID_BYTES_MAX: usize = 256 << 10;
/// Shortest time that it may take to end in good order.
const GRACE_MIN: Duration = Duration::from_secs(30);

/// The tools of what is served.
pub fn tools(serves: &Serves) -> Vec<Value> {
    match &serves.served {
        Served::Sqlite { .. } => resources::Sqlite::tools(),
        Served::Postgres { .. } => resources::Postgres::tools(),
        Served::Git { .. } => resources::Git::tools(),
        Served::Terraform { .. } => resources::Terraform::tools(),
        Served::Shell { .. } => resources::Shell::tools(),
    }
}

/// Everything that stands for servers.
///
/// # Errors
/// When a secret cannot be read; names where it should be, never the secret.
pub fn resources(
    rest: &Rest,
    vault: Vault,
    upstreams: &BTreeMap<ServerName, Upstream>,
) -> anyhow::Result<Resources> {
    let keep = Duration::from_secs(rest.limits.undo_keep_s);
    let mut all = host_resources(rest, vault);
    for (name, server) in &rest.servers {
        if let Transport::Serves(serves) = &server.transport {
            add(&mut all, (rest, name), (serves, keep))
                .with_context(|| format!("server `{name}` cannot be set up"))?;
        }
        if let Some(rules) = &server.undo {
            beside(&mut all, name, rules, upstreams.get(name))
                .with_context(|| format!("server `{name}` cannot be set up"))?;
        }
    }
    Ok(all)
}

/// What stands for hosts.
pub fn host_resources(rest: &Rest, vault: Vault) -> Resources {
    let keep = Duration::from_secs(rest.limits.undo_keep_s);
    let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
    let mut all = Resources::new(Archive::new(&rest.store, vault), keep_ms);
    for (name, rules) in &rest.hosted {
        match rules {
            UndoRules::Files { roots, shapes } => {
                files(&mut all, (name, resources::Executor::Host), (roots, shapes));
            }
            // A host has no tools that anybody else could call.
            UndoRules::Declared(_) => {}
        }
    }
    all
}

/// What an operator should know of the databases that are served, by server, or why that cannot be
/// known. Asks them. A URL that is not there is told by who needs it.
pub async fn warnings(config: &Config) -> Vec<(ServerName, Result<String, String>)> {
    let keep = Duration::from_secs(config.limits.undo_keep_s);
    let (mut all, mut told) = (Resources::default(), Vec::new());
    for (name, server) in &config.servers {
        let Transport::Serves(serves) = &server.transport else { continue };
        let Served::Postgres { url } = &serves.served else { continue };
        if value(url).is_err() {
            continue;
        }
        match postgres(name, serves, (url, keep)) {
            Ok(database) => all.add(name.clone(), Place::Serves, database),
            Err(fault) => told.push((name.clone(), Err(format!("{fault:#}")))),
        }
    }
    let said = all.warnings().await.into_iter();
    told.extend(said.map(|(name, said)| (name, said.map_err(|fault| fault.to_string()))));
    told
}

/// Lets something stand beside a server.
fn beside(
    all: &mut Resources,
    name: &ServerName,
    rules: &UndoRules,
    upstream: Option<&Upstream>,
) -> anyhow::Result<()> {
    match rules {
        UndoRules::Files { roots, shapes } => {
            files(all, (name, resources::Executor::Server), (roots, shapes));
        }
        UndoRules::Declared(tools) => {
            let server = name.clone();
            // A wrapped server has one connection, which is its agent's.
            let Some(upstream) = upstream else {
                tracing::warn!(%server, "`undo` of its tools works only with `serve`: no previews");
                return Ok(());
            };
            let spec = resources::DeclaredSpec { server, tools: tools.clone() };
            let declared = resources::DeclaredTools::new(spec, upstream.clone())?;
            all.add(name.clone(), Place::Beside, declared);
        }
    }
    Ok(())
}

/// Lets files be looked at beside a server or a host.
fn files(
    all: &mut Resources,
    (name, executor): (&ServerName, resources::Executor),
    (roots, shapes): (&[PathBuf], &BTreeMap<String, resources::FileShape>),
) {
    let limits = resources::FilesLimits::default();
    let (server, roots, shapes) = (name.clone(), roots.to_vec(), shapes.clone());
    let spec = resources::FilesSpec { server, executor, roots, shapes, limits };
    all.add(name.clone(), Place::Beside, resources::Files::new(spec));
}

fn add(
    all: &mut Resources,
    (rest, name): (&Rest, &ServerName),
    (serves, keep): (&Serves, Duration),
) -> anyhow::Result<()> {
    let Serves { served, address, .. } = serves;
    let (server, place) = (name.clone(), address.clone());
    let timeout = rest.timeout(name);
    let env = values(&serves.env)?.into_iter();
    let env = env.map(|(name, value)| (name, SecretText::new(value))).collect();
    match served {
        Served::Sqlite { path } => {
            let limits = resources::SqliteLimits {
                busy: Duration::from_millis(serves.lock_timeout_ms),
                statement: Duration::from_millis(serves.statement_timeout_ms),
                rows_max: usize::try_from(serves.rows_max).unwrap_or(usize::MAX),
                kept: keep,
                ..resources::SqliteLimits::default()
            };
            let spec = resources::SqliteSpec { server, place, path: path.clone(), limits };
            all.add(name.clone(), Place::Serves, resources::Sqlite::new(spec));
        }
        Served::Postgres { url } => {
            all.add(name.clone(), Place::Serves, postgres(name, serves, (url, keep))?);
        }
        Served::Git { repository, program, author, transports, remote_inside, programs } => {
            let spec = resources::GitSpec {
                server,
                place,
                repository: repository.clone(),
                program: program.clone(),
                author: author.clone(),
                env,
                transports: transports.clone(),
                remote_inside: *remote_inside,
                programs: *programs,
                keep,
                timeout,
                limits: resources::GitLimits::default(),
            };
            all.add(name.clone(), Place::Serves, resources::Git::new(spec));
        }
        Served::Terraform { directory, program, workspace, stateful } => {
            let spec = resources::TerraformSpec {
                server,
                place,
                directory: directory.clone(),
                folder: rest.store.join("terraform").join(name.as_str()),
                program: program.clone(),
                workspace: workspace.clone(),
                env,
                stateful: stateful.clone(),
                timeout,
                apply_timeout: timeout.max(APPLY_MIN),
                grace: rest.grace().max(GRACE_MIN),
                limits: resources::TerraformLimits::default(),
            };
            all.add(name.clone(), Place::Serves, resources::Terraform::new(spec));
        }
        Served::Shell { workspace, readable } => {
            let spec = shell((server, timeout), (workspace, readable), values(&serves.env)?)?;
            all.add(name.clone(), Place::Serves, resources::Shell::new(spec));
        }
    }
    Ok(())
}

fn shell(
    (server, timeout): (ServerName, Duration),
    (workspace, readable): (&Path, &[PathBuf]),
    env: BTreeMap<String, String>,
) -> anyhow::Result<resources::ShellSpec> {
    Ok(resources::ShellSpec {
        server,
        workspace: without_links(workspace)?,
        readable: readable.to_vec(),
        env,
        files: resources::FilesLimits::default(),
        timeout,
        output_bytes_max: SAID_BYTES_MAX,
    })
}

/// The folder, if commands are run exactly where their analysis has them run.
///
/// # Errors
/// When it is not there, or has another name.
pub fn without_links(folder: &Path) -> anyhow::Result<PathBuf> {
    let real = folder.canonicalize();
    let real = real.with_context(|| format!("`{}` is not there", folder.display()))?;
    if real.as_os_str() != folder.as_os_str() {
        bail!("`{}` is another folder's name: write `{}`", folder.display(), real.display());
    }
    Ok(real)
}

fn postgres(
    name: &ServerName,
    serves: &Serves,
    (url, keep): (&ValueSource, Duration),
) -> anyhow::Result<resources::Postgres> {
    let (server, place) = (name.clone(), serves.address.clone());
    let (url, limits) = (SecretText::new(value(url)?), postgres_limits(serves, keep));
    Ok(resources::Postgres::new(resources::PostgresSpec { server, place, url, limits })?)
}

fn postgres_limits(serves: &Serves, keep: Duration) -> resources::PostgresLimits {
    resources::PostgresLimits {
        lock_timeout: Duration::from_millis(serves.lock_timeout_ms),
        statement_timeout: Duration::from_millis(serves.statement_timeout_ms),
        rows_max: serves.rows_max,
        trash_keep: keep,
        ..resources::PostgresLimits::default()
    }
}
