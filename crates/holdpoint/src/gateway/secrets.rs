//! Where the configuration says that secrets are, and for whom. Must never show one.

use super::{Rest, value};
use crate::config::{
    Asked, OAuthClient, Served, Transport, Upstream, UpstreamUrl, Validator, ValueSource,
};

/// What this process lacks to take something back through the servers of `rest`, each with who
/// needs it; never a secret.
pub fn lacking_for_revert(rest: &Rest) -> Vec<String> {
    let key = rest.credential_key.iter().map(|key| ("the key of the credentials".to_owned(), key));
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
pub fn of_server(server: &Upstream) -> Vec<&ValueSource> {
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
pub fn of_validator(validator: &Validator) -> Vec<&ValueSource> {
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
