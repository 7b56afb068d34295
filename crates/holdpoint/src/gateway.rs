//! From the checked configuration to the parts that govern: settings, limits, upstream servers.
//! Secrets are read here, at the last moment. Must never print one.

mod notify;
mod own;
mod secrets;

pub use own::{warnings, without_links};
pub use secrets::{exposed, lacking_for_revert, lacking_for_serve, lacking_for_validators};

use crate::config::{self, Config, OAuthClient, Transport, UnknownParameters, ValueSource};
use anyhow::{Context as _, bail};
use holdpoint_resources as resources;
use holdpoint_server::doors::http::listen::{FrontLimits, TlsFiles};
use holdpoint_server::doors::http::oauth::{IssuerKeys, KeySource, OauthSettings, ResourceServer};
use holdpoint_server::doors::http::{OperatorKey, TurnLimits};
use holdpoint_server::doors::local::Kind;
use holdpoint_server::governor;
use holdpoint_server::runtime::RuntimeSpec;
use holdpoint_server::validators::{AskedBy, ValidatorSpec, Validators};
use holdpoint_types::{Digest, JsonLimits, OperatorName, ServerName};
use rustls::ServerConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Shortest key of an operator, in bytes.
const OPERATOR_KEY_BYTES_MIN: usize = 32;
/// Largest file that holds a secret, in bytes.
const SECRET_BYTES_MAX: usize = 64 << 10;

/// What a governing process needs, and what is left of the configuration for its doors.
///
/// # Errors
/// When a validator cannot be used; names where its secrets should be, never a secret.
pub fn runtime_spec(config: Config, kind: Kind) -> anyhow::Result<(RuntimeSpec, Rest)> {
    let validators = validators(&config)?;
    let strict = strict(&config);
    let limits = governor_limits(&config.limits);
    let spec = RuntimeSpec {
        store: config.store.clone(),
        kind,
        settings: config.settings,
        policies: config.policies,
        strict,
        limits,
        validators,
    };
    let rest = Rest {
        listen: config.listen,
        operators: config.operators,
        limits: config.limits,
        servers: config.servers,
        hosted: config.hosted,
        notify: config.notify,
        store: config.store,
        credential_key: config.credential_key,
    };
    Ok((spec, rest))
}

/// Who else has a voice in decisions.
///
/// # Errors
/// When a validator cannot be used; names where its secrets should be, never a secret.
pub fn validators(config: &Config) -> anyhow::Result<Validators> {
    let specs = config.validators.iter().map(|one| {
        let config::Validator { name, tools, class, when, asked, timeout_ms, .. } = one;
        let unset = || format!("validator `{name}` cannot be set up");
        let asked = match asked {
            config::Asked::Cel(text) => AskedBy::Cel(text.clone()),
            config::Asked::Command(command) => {
                AskedBy::Process(process(command).with_context(unset)?)
            }
            config::Asked::Url(url) => {
                let headers = values(&url.headers).with_context(unset)?.into_iter();
                let headers =
                    headers.map(|(name, value)| (name, resources::SecretText::new(value)));
                AskedBy::Http { url: url.url.clone(), headers: headers.collect() }
            }
        };
        let timeout = Duration::from_millis(*timeout_ms);
        let (name, tools) = (name.clone(), tools.clone());
        let (class, when) = (*class, when.clone());
        let (objection, severity) = (one.objection, one.severity);
        Ok(ValidatorSpec { name, tools, class, when, asked, timeout, objection, severity })
    });
    Ok(Validators::new(specs.collect::<anyhow::Result<_>>()?)?)
}

/// The limits of the governor.
fn governor_limits(limits: &config::Limits) -> governor::Limits {
    governor::Limits {
        calls_in_flight_max: limits.calls_in_flight_max,
        checks_open_max: limits.checks_open_max,
        output_stored_bytes_max: limits.output_stored_bytes_max,
        stop_grace: Duration::from_millis(limits.stop_grace_ms),
    }
}

/// The servers whose tools refuse parameters that their schema does not name.
pub fn strict(config: &Config) -> BTreeSet<ServerName> {
    let refuses =
        |server: &config::Upstream| server.unknown_parameters == UnknownParameters::Refuse;
    let strict = config.servers.iter().filter(|(_, server)| refuses(server));
    strict.map(|(name, _)| name.clone()).collect()
}

/// The part of the configuration that the doors need.
#[derive(Debug)]
pub struct Rest {
    /// Where `serve` listens.
    pub listen: config::Listen,
    /// Who may stop and release over HTTP.
    pub operators: BTreeMap<OperatorName, ValueSource>,
    /// The limits.
    pub limits: config::Limits,
    /// How to reach each upstream server.
    pub servers: BTreeMap<ServerName, config::Upstream>,
    /// How changes by the tools of hosts are seen before and taken back.
    pub hosted: BTreeMap<ServerName, config::UndoRules>,
    /// Who is told of approvals.
    pub notify: Vec<config::Notify>,
    /// The store's folder.
    pub store: std::path::PathBuf,
    /// The key that seals credentials; absent if it lies in the store.
    pub credential_key: Option<ValueSource>,
}

// === impl Rest ===

impl Rest {
    /// How much JSON is accepted from agents.
    pub fn json(&self) -> JsonLimits {
        JsonLimits { bytes_max: self.limits.message_bytes_max, ..JsonLimits::default() }
    }

    /// How long a cancelled call may take to end before its process tree is killed.
    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.limits.stop_grace_ms)
    }

    /// How long one call of `server` may take.
    pub fn timeout(&self, server: &ServerName) -> Duration {
        let own = self.servers.get(server).map(|server| server.timeout_ms);
        Duration::from_millis(own.unwrap_or(self.limits.call_timeout_ms))
    }

    /// How long calls in flight may take to end when the process is asked to end.
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.limits.drain_ms)
    }

    /// What the listener grants.
    pub fn front(&self) -> FrontLimits {
        let door = &self.limits.door;
        FrontLimits {
            connections_max: door.connections_max,
            connections_per_address_max: door.connections_per_address_max,
            header_bytes_max: door.header_bytes_max,
            header_count_max: door.header_count_max,
            header_timeout: Duration::from_millis(door.header_timeout_ms),
            body_timeout: Duration::from_millis(door.body_timeout_ms),
            idle_timeout: Duration::from_millis(door.idle_timeout_ms),
            write_timeout: Duration::from_millis(door.write_timeout_ms),
        }
    }

    /// How many requests are served at one time.
    pub fn turns(&self) -> TurnLimits {
        let door = &self.limits.door;
        TurnLimits {
            all_max: self.limits.calls_in_flight_max,
            agent_max: door.agent_calls_max,
            queue_max: door.agent_queue_max,
            wait: Duration::from_millis(door.queue_wait_ms),
        }
    }

    /// What TLS needs, read from its files.
    ///
    /// # Errors
    /// When a file cannot be read, or they do not fit each other.
    pub fn tls(&self) -> anyhow::Result<Option<Arc<ServerConfig>>> {
        tls(&self.listen)
    }

    /// Whose access tokens are accepted, for agents that reach this server at `base` unless the
    /// configuration says otherwise. Keys in `known` are kept if they are the same issuer's.
    ///
    /// # Errors
    /// When a file's keys cannot be used.
    pub fn oauth(
        &self,
        base: &str,
        known: Option<Arc<IssuerKeys>>,
    ) -> anyhow::Result<Option<ResourceServer>> {
        let Some(oauth) = &self.listen.oauth else { return Ok(None) };
        let same = known.filter(|keys| *keys.spec() == oauth.keys);
        // A file is read anew at each reload, so that its faults are found then.
        let same = same.filter(|keys| !matches!(keys.spec().source, KeySource::File(_)));
        let keys = match same {
            Some(keys) => keys,
            None => {
                let started = IssuerKeys::start(oauth.keys.clone());
                Arc::new(started.context("access tokens cannot be checked")?)
            }
        };
        let settings = OauthSettings {
            base: oauth.resource.clone().unwrap_or_else(|| base.to_owned()),
            audiences: oauth.audiences.clone(),
            scopes: oauth.scopes.clone(),
            algorithms: oauth.algorithms.clone(),
            leeway_s: oauth.leeway_s,
            clients: oauth.clients.clone(),
            subjects: oauth.subjects.clone(),
        };
        Ok(Some(ResourceServer::new(settings, keys)))
    }

    /// The operators' keys, as digests.
    ///
    /// # Errors
    /// When a key cannot be read or is too short to be one; names the operator, never the key.
    pub fn operator_keys(&self) -> anyhow::Result<Vec<OperatorKey>> {
        self.operators.iter().map(|(name, source)| operator_key(name, source)).collect()
    }

    /// What stands for servers, so that changes are seen before and can be taken back.
    ///
    /// # Errors
    /// When a secret cannot be read; names where it should be, never the secret.
    pub fn resources(
        &self,
        upstreams: &BTreeMap<ServerName, resources::Upstream>,
    ) -> anyhow::Result<resources::Resources> {
        let vault = vault(&self.store, self.credential_key.as_ref())?;
        own::resources(self, vault, upstreams)
    }

    /// What stands for hosts alone: a hook needs no secret of a server.
    ///
    /// # Errors
    /// When the key that seals what is kept cannot be read.
    pub fn host_resources(&self) -> anyhow::Result<resources::Resources> {
        if self.hosted.is_empty() {
            return Ok(resources::Resources::default());
        }
        let vault = vault(&self.store, self.credential_key.as_ref())?;
        Ok(own::host_resources(self, vault))
    }

    /// Every upstream server, not yet connected.
    ///
    /// # Errors
    /// When a secret cannot be read; names where it should be, never the secret.
    pub fn upstreams(&self) -> anyhow::Result<BTreeMap<ServerName, resources::Upstream>> {
        let vault = vault(&self.store, self.credential_key.as_ref())?;
        let each = self.servers.iter().map(|(name, server)| {
            let transport = transport((name, &server.transport), &vault)
                .with_context(|| format!("server `{name}` cannot be set up"))?;
            let limits = resources::Limits { grace: self.grace(), ..resources::Limits::default() };
            let timeout = Duration::from_millis(server.timeout_ms);
            let spec = resources::UpstreamSpec { server: name.clone(), transport, timeout, limits };
            Ok((name.clone(), resources::Upstream::new(spec)))
        });
        each.collect()
    }
}

/// The key of the operator `name`, as a digest.
fn operator_key(name: &OperatorName, source: &ValueSource) -> anyhow::Result<OperatorKey> {
    let key = value(source).with_context(|| format!("operator `{name}` has no key"))?;
    if key.len() < OPERATOR_KEY_BYTES_MIN {
        bail!(
            "the key of operator `{name}` has fewer than {OPERATOR_KEY_BYTES_MIN} characters; \
             `openssl rand -hex 32` makes a good one"
        );
    }
    let digest = Digest::of(key.as_bytes());
    Ok(OperatorKey { name: name.to_string(), digest })
}

fn tls(listen: &config::Listen) -> anyhow::Result<Option<Arc<ServerConfig>>> {
    let files = listen.tls.as_ref().map(|tls| TlsFiles {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
        client_ca: tls.client_ca.clone(),
    });
    files.map(|files| files.load().context("TLS cannot be spoken")).transpose()
}

/// Where credentials for upstream servers lie.
///
/// # Errors
/// When the key cannot be read; names where it should be.
pub fn vault(store: &Path, key: Option<&ValueSource>) -> anyhow::Result<resources::Vault> {
    let key = key.map(value).transpose().context("the key of the credentials cannot be read")?;
    Ok(resources::Vault::new(store, key.map(resources::SecretText::new)))
}

/// How credentials for `server` at `endpoint` are got, if it wants any.
///
/// # Errors
/// When a secret cannot be read; names where it should be.
pub fn oauth_spec(
    server: &ServerName,
    endpoint: &config::UpstreamUrl,
    vault: &resources::Vault,
) -> anyhow::Result<Option<resources::OAuthSpec>> {
    let Some(oauth) = &endpoint.oauth else { return Ok(None) };
    let client = match &oauth.client {
        OAuthClient::Registered { id, secret } => {
            let secret = secret.as_ref().map(value).transpose()?;
            let secret = secret.map(resources::SecretText::new);
            resources::ClientIdentity::Registered { id: id.clone(), secret }
        }
        OAuthClient::MetadataDocument(url) => {
            resources::ClientIdentity::MetadataDocument(url.clone())
        }
        OAuthClient::Dynamic => resources::ClientIdentity::Dynamic,
    };
    Ok(Some(resources::OAuthSpec {
        server: server.clone(),
        url: endpoint.url.clone(),
        sharing: oauth.sharing,
        scopes: oauth.scopes.clone(),
        client,
        issuer: oauth.issuer.clone(),
        grant: oauth.grant,
        vault: vault.clone(),
    }))
}

fn process(command: &config::UpstreamCommand) -> anyhow::Result<resources::ProcessSpec> {
    let program = std::iter::once(command.program.clone());
    Ok(resources::ProcessSpec {
        command: program.chain(command.arguments.iter().cloned()).collect(),
        env: values(&command.env)?,
        cwd: command.cwd.clone(),
        inherit_env: false,
    })
}

fn transport(
    (server, transport): (&ServerName, &Transport),
    vault: &resources::Vault,
) -> anyhow::Result<resources::Transport> {
    match transport {
        Transport::Command(command) => Ok(resources::Transport::Stdio(process(command)?)),
        Transport::Serves(serves) => Ok(resources::Transport::Own(Arc::new(own::tools(serves)))),
        Transport::Url(url) => {
            let headers = values(&url.headers)?.into_iter();
            let headers = headers.map(|(name, value)| (name, resources::SecretText::new(value)));
            let headers = headers.collect();
            let oauth = oauth_spec(server, url, vault)?.map(Arc::new);
            Ok(resources::Transport::Http { url: url.url.clone(), headers, oauth })
        }
    }
}

fn values(sources: &BTreeMap<String, ValueSource>) -> anyhow::Result<BTreeMap<String, String>> {
    let each = sources.iter().map(|(name, source)| Ok((name.clone(), value(source)?)));
    each.collect()
}

/// The text that `source` names. A file's last line end is no part of it.
///
/// # Errors
/// When it is not there, too large, or not UTF-8.
pub fn value(source: &ValueSource) -> anyhow::Result<String> {
    match source {
        ValueSource::Literal(text) => Ok(text.clone()),
        ValueSource::Env(name) => std::env::var(name)
            .map_err(|_| anyhow::anyhow!("the environment variable `{name}` is not set")),
        ValueSource::File(path) => secret_file(path),
    }
}

fn secret_file(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read `{}`", path.display()))?;
    if text.len() > SECRET_BYTES_MAX {
        bail!("`{}` is larger than {SECRET_BYTES_MAX} bytes", path.display());
    }
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}
