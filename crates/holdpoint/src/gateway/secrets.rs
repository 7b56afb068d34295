//! Where the configuration says that secrets are, and for whom. Must never show one.

use super::{Rest, operator_key, tls, value};
use crate::config::{
    Asked, Config, OAuthClient, Served, Transport, Upstream, UpstreamUrl, Validator, ValueSource,
};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Who needs the key that seals credentials.
const CREDENTIALS: &str = "the key of the credentials";
/// What everybody on the machine may do with a file. A group is what its owner made it for.
const EVERYBODY: u32 = 0o007;
/// What anybody but its owner may do with a file.
const OTHERS: u32 = 0o077;
/// The files of a store without which nobody could forge or read what is in it.
const STORE_KEYS: [&str; 3] = ["ledger.key", "links.key", "credentials.key"];

/// A file or a folder that others can use, and should not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// Whose it is.
    by: String,
    path: PathBuf,
    mode: u32,
    /// What must be taken from its mode.
    taken: u32,
}

// === impl Exposed ===

impl Exposed {
    fn of(by: &str, path: &Path, taken: u32) -> Option<Self> {
        // What is not there, or cannot be looked at, is told by who needs it.
        let mode = path.metadata().ok()?.mode() & 0o7777;
        let exposed = || Self { by: by.to_owned(), path: path.to_owned(), mode, taken };
        (mode & taken != 0).then(exposed)
    }

    /// What is wrong.
    pub fn text(&self) -> String {
        let Self { by, path, mode, .. } = self;
        format!("{by}: other users of this machine can use `{}` (mode {mode:04o})", path.display())
    }

    /// What to do about it.
    pub fn advice(&self) -> String {
        let who = if self.taken == OTHERS { "go=" } else { "o=" };
        let path = self.path.display().to_string().replace('\'', r"'\''");
        format!("run `chmod {who} '{path}'`; what others may have read is no secret any more")
    }
}

/// Every file with a secret that everybody on this machine can use, and the store if anybody but
/// its owner can.
pub fn exposed(config: &Config) -> Vec<Exposed> {
    let mut found: Vec<_> = Exposed::of("the store", &config.store, OTHERS).into_iter().collect();
    let keys = STORE_KEYS.iter().map(|name| config.store.join(name));
    found.extend(keys.filter_map(|key| Exposed::of("the store", &key, OTHERS)));
    for (by, source) in of_operators(config).into_iter().chain(of_others(config)) {
        if let ValueSource::File(path) = source {
            found.extend(Exposed::of(&by, path, EVERYBODY));
        }
    }
    if let Some(tls) = &config.listen.tls {
        found.extend(Exposed::of("`listen.tls`", &tls.key, EVERYBODY));
    }
    found
}

fn of_operators(config: &Config) -> Vec<(String, &ValueSource)> {
    let operators = config.operators.iter();
    operators.map(|(name, key)| (format!("operator `{name}`"), key)).collect()
}

/// Every place where something is looked for, with who needs it, but for operators.
fn of_others(config: &Config) -> Vec<(String, &ValueSource)> {
    let mut all = Vec::new();
    all.extend(config.credential_key.iter().map(|key| (CREDENTIALS.to_owned(), key)));
    for (name, server) in &config.servers {
        let by = format!("server `{name}`");
        all.extend(of_server(server).into_iter().map(|source| (by.clone(), source)));
    }
    for one in &config.validators {
        let by = format!("validator `{}`", one.name);
        all.extend(of_validator(one).into_iter().map(|source| (by.clone(), source)));
    }
    for one in &config.notify {
        let by = format!("`notify.{}`", one.name);
        let sources = std::iter::once(&one.url).chain(one.headers.values());
        all.extend(sources.map(|source| (by.clone(), source)));
    }
    all
}

/// What this process lacks to begin as `serve`, each with who needs it; never a secret.
pub fn lacking_for_serve(config: &Config) -> Vec<String> {
    let keys = config.operators.iter().filter_map(|(name, key)| operator_key(name, key).err());
    let mut all: Vec<_> = keys.map(|fault| format!("{fault:#}")).collect();
    all.extend(tls(&config.listen).err().map(|fault| format!("`listen.tls`: {fault:#}")));
    all.extend(lacking(of_others(config).into_iter()));
    all
}

/// What this process lacks to take something back through the servers of `rest`, each with who
/// needs it; never a secret.
pub fn lacking_for_revert(rest: &Rest) -> Vec<String> {
    let key = rest.credential_key.iter().map(|key| (CREDENTIALS.to_owned(), key));
    let servers = rest.servers.iter().flat_map(|(name, server)| {
        of_server(server).into_iter().map(move |source| (format!("server `{name}`"), source))
    });
    lacking(key.chain(servers))
}

/// What this process lacks to ask `validators`, each with who needs it; never a secret.
pub fn lacking_for_validators(validators: &[Validator]) -> Vec<String> {
    lacking(validators.iter().flat_map(|one| {
        let name = &one.name;
        of_validator(one).into_iter().map(move |source| (format!("validator `{name}`"), source))
    }))
}

fn lacking<'a>(wanted: impl Iterator<Item = (String, &'a ValueSource)>) -> Vec<String> {
    let one = |(by, source): (String, &ValueSource)| {
        value(source).err().map(|fault| format!("{by}: {fault:#}"))
    };
    wanted.filter_map(one).collect()
}

/// Everything that is looked for to reach a server.
fn of_server(server: &Upstream) -> Vec<&ValueSource> {
    match &server.transport {
        Transport::Command(command) => command.env.values().collect(),
        Transport::Url(url) => of_url(url),
        Transport::Serves(serves) => {
            let url = match &serves.served {
                Served::Postgres { url } => Some(url),
                Served::Sqlite { .. }
                | Served::Git { .. }
                | Served::Terraform { .. }
                | Served::Shell { .. } => None,
            };
            url.into_iter().chain(serves.env.values()).collect()
        }
    }
}

/// Everything that is looked for to ask a validator.
fn of_validator(validator: &Validator) -> Vec<&ValueSource> {
    match &validator.asked {
        Asked::Cel(_) => Vec::new(),
        Asked::Command(command) => command.env.values().collect(),
        Asked::Url(url) => of_url(url),
    }
}

fn of_url(url: &UpstreamUrl) -> Vec<&ValueSource> {
    let client = match url.oauth.as_ref().map(|oauth| &oauth.client) {
        Some(OAuthClient::Registered { secret, .. }) => secret.as_ref(),
        Some(OAuthClient::MetadataDocument(_) | OAuthClient::Dynamic) | None => None,
    };
    url.headers.values().chain(client).collect()
}
