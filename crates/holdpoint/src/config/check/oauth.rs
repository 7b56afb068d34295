//! Checks whose access tokens are accepted, and which agents they act as.

use super::Checker;
use crate::config::checked::Oauth;
use crate::config::raw::{At, Named, RawAgent, RawBearer, RawListen, RawOauth, RawScopes};
use holdpoint_server::doors::http::oauth::{Algorithm, KeySource, KeySpec, Scopes, is_loopback};
use holdpoint_types::AgentName;
use reqwest::Url;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

const DAY_S: u64 = 86_400;
const ISSUER_EXAMPLE: &str = "https://auth.example.com";
const RESOURCE_EXAMPLE: &str = "https://holdpoint.example.com";

/// The agents that clients and subjects act as.
type Bearers = BTreeMap<String, AgentName>;

// === impl Checker ===

impl Checker<'_> {
    pub(super) fn oauth(&mut self, listen: &RawListen, agents: &Named<RawAgent>) -> Option<Oauth> {
        let (clients, subjects) = self.bearers(agents);
        let Some(table) = &listen.oauth else {
            let first = agents.values().find_map(|agent| agent.get().oauth.as_ref());
            if let Some(first) = first {
                let message = "no access token is accepted without `[listen.oauth]`".to_owned();
                self.fault(first.span(), message, "declare the issuer there".to_owned());
            }
            return None;
        };
        let (span, raw) = (table.span(), table.get());
        if clients.is_empty() && subjects.is_empty() {
            let message = "no access token is accepted, because no agent acts for one".to_owned();
            let example = "add `oauth = { client_id = \"…\" }` to an `[agent.NAME]`".to_owned();
            self.warn(span.clone(), message, example);
        }
        if let Some(anonymous) = &listen.anonymous_agent {
            let message = "clients never learn that they could get a token, because nobody is \
                           refused without one";
            let suggestion = "remove `anonymous_agent`, unless this is meant".to_owned();
            self.warn(anonymous.span(), message.to_owned(), suggestion);
        }
        let resource = self.resource(listen, (raw, &span));
        let algorithms = self.algorithms(raw);
        let scopes = self.scopes(&raw.scopes);
        let leeway = self.within(raw.leeway_s.as_ref(), 0..=300, 30);
        let audiences = raw.audiences.iter().filter_map(|one| self.word_of(one, "an audience"));
        let audiences = audiences.collect();
        let keys = self.issuer_keys(raw, &span)?;
        Some(Oauth {
            keys,
            resource: resource?,
            audiences,
            algorithms,
            leeway_s: u32::try_from(leeway).unwrap_or_default(),
            scopes,
            clients,
            subjects,
        })
    }

    fn issuer_keys(&mut self, raw: &RawOauth, span: &Range<usize>) -> Option<KeySpec> {
        let issuer = match &raw.issuer {
            Some(issuer) => self.secure_url(issuer, ISSUER_EXAMPLE),
            None => {
                self.missing(span, "issuer", &format!("\"{ISSUER_EXAMPLE}\""));
                None
            }
        };
        let source = match (&raw.jwks_uri, &raw.jwks_file) {
            (None, None) => Some(KeySource::Issuer),
            (Some(uri), None) => {
                self.secure_url(uri, &format!("{ISSUER_EXAMPLE}/jwks")).map(KeySource::Uri)
            }
            (None, Some(file)) => self.path(Some(file)).map(KeySource::File),
            (Some(_), Some(file)) => {
                let message = "the keys are either at `jwks_uri` or in `jwks_file`".to_owned();
                self.fault(file.span(), message, None);
                None
            }
        };
        let refresh = self.within(raw.keys_refresh_s.as_ref(), 1..=DAY_S, 300);
        let stale = self.within(raw.keys_stale_s.as_ref(), 1..=7 * DAY_S, 3600);
        if stale <= refresh {
            let place = raw.keys_stale_s.as_ref().or(raw.keys_refresh_s.as_ref());
            let message = format!("keys are good for {stale} s and fetched every {refresh} s only");
            self.fault(place.map(At::span), message, "raise `keys_stale_s`".to_owned());
        }
        Some(KeySpec {
            issuer: issuer?,
            source: source?,
            refresh: Duration::from_secs(refresh),
            stale: Duration::from_secs(stale),
        })
    }

    /// A URL whose answers decide who comes in: `https`, or on this machine.
    fn secure_url(&mut self, text: &At<String>, example: &str) -> Option<String> {
        let example = format!("for example `{example}`");
        let parsed = Url::parse(text.get()).ok().filter(|url| url.host_str().is_some());
        let Some(url) = parsed.filter(|url| matches!(url.scheme(), "http" | "https")) else {
            let message = "this is not an `https` URL".to_owned();
            self.fault(text.span(), message, example);
            return None;
        };
        let bare = url.username().is_empty() && url.password().is_none();
        if !bare {
            self.secrets.push(text.span());
        }
        if !bare || url.query().is_some() || url.fragment().is_some() {
            let message = "the URL has credentials, a query or a fragment".to_owned();
            self.fault(text.span(), message, example);
            return None;
        }
        if url.scheme() == "http" && !is_loopback(&url) {
            let message = format!("`{}` can be forged by whoever is in between", text.get());
            self.fault(text.span(), message, "use `https`".to_owned());
            return None;
        }
        Some(text.get().clone())
    }

    /// Where agents reach this server: `Some(None)` for the address.
    fn resource(
        &mut self,
        listen: &RawListen,
        (raw, span): (&RawOauth, &Range<usize>),
    ) -> Option<Option<String>> {
        let Some(text) = &raw.resource else {
            let address = listen.http.as_ref().and_then(|it| it.get().parse::<SocketAddr>().ok());
            if address.is_some_and(|address| address.ip().is_unspecified()) {
                self.missing(span, "resource", &format!("\"{RESOURCE_EXAMPLE}\""));
                return None;
            }
            return Some(None);
        };
        let example = format!("for example `{RESOURCE_EXAMPLE}`");
        let url = Url::parse(text.get()).ok();
        let url = url.filter(|url| {
            url.origin().is_tuple()
                && url.as_str() == format!("{}/", url.origin().ascii_serialization())
        });
        let Some(url) = url.filter(|url| matches!(url.scheme(), "http" | "https")) else {
            let message = format!("`{}` is not just a scheme and an authority", text.get());
            self.fault(text.span(), message, example);
            return None;
        };
        if url.scheme() == "http" && listen.tls.is_some() {
            let message = "agents reach this server by `https`, as `[listen.tls]` says".to_owned();
            self.fault(text.span(), message, example);
            return None;
        }
        if url.scheme() == "http" && !is_loopback(&url) {
            let message = format!("access tokens travel to `{}` in plain text", text.get());
            self.warn(text.span(), message, "use `https`".to_owned());
        }
        let base = url.origin().ascii_serialization();
        self.warn_of_other_host(listen, text, &base);
        Some(Some(base))
    }

    /// The door refuses a host that it does not know, unless a proxy in front renames it.
    fn warn_of_other_host(&mut self, listen: &RawListen, text: &At<String>, base: &str) {
        let authority = base.split_once("://").map_or(base, |(_, authority)| authority);
        let known = match &listen.hosts {
            Some(hosts) => hosts.iter().any(|host| host.get().eq_ignore_ascii_case(authority)),
            None => super::edges::hosts_of(listen).iter().any(|host| host == authority),
        };
        if !known {
            let message = format!("requests for `{authority}` are refused, as `hosts` says");
            let suggestion = format!("add `{authority}` to `hosts`, unless a proxy renames it");
            self.warn(text.span(), message, suggestion);
        }
    }

    fn algorithms(&mut self, raw: &RawOauth) -> BTreeSet<Algorithm> {
        let Some(names) = &raw.algorithms else { return Algorithm::ALL.into_iter().collect() };
        if names.is_empty() {
            let message = "no token is accepted without an algorithm".to_owned();
            let span = raw.issuer.as_ref().map(At::span);
            self.fault(span, message, "leave `algorithms` out for all of them".to_owned());
        }
        let mut algorithms = BTreeSet::new();
        for name in names {
            match name.get().parse() {
                Ok(algorithm) => {
                    algorithms.insert(algorithm);
                }
                Err(fault) => {
                    let message = format!("`{}`: {fault}", name.get());
                    let known = Algorithm::ALL.map(Algorithm::as_str);
                    let near = super::nearest(name.get(), known);
                    let suggestion = near.map(|near| format!("did you mean `{near}`?"));
                    self.fault(name.span(), message, suggestion);
                }
            }
        }
        algorithms
    }

    fn scopes(&mut self, raw: &RawScopes) -> Scopes {
        let mut one = |name: &Option<At<String>>, default: &str| {
            let named = name.as_ref().and_then(|name| self.word_of(name, "a scope"));
            named.unwrap_or_else(|| default.to_owned())
        };
        let read = one(&raw.read, "mcp:read");
        let write = one(&raw.write, "mcp:write");
        let destructive = one(&raw.destructive, "mcp:destructive");
        Scopes { read, write, destructive }
    }

    /// A text that stands for itself in tokens and headers: printable ASCII without spaces, quotes
    /// and backslashes (RFC 6749, section 3.3).
    fn word_of(&mut self, text: &At<String>, what: &str) -> Option<String> {
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        if !text.get().is_empty() && text.get().bytes().all(fits) {
            return Some(text.get().clone());
        }
        self.fault(text.span(), format!("{:?} cannot be {what}", text.get()), None);
        None
    }

    fn bearers(&mut self, agents: &Named<RawAgent>) -> (Bearers, Bearers) {
        let (mut clients, mut subjects) = (Bearers::new(), Bearers::new());
        for (name, agent) in agents {
            let Some(bearer) = &agent.get().oauth else { continue };
            let Ok(agent) = name.get().parse::<AgentName>() else { continue };
            match bearer.get() {
                RawBearer { client_id: Some(client), subject: None } => {
                    self.bearer(&mut clients, client, agent);
                }
                RawBearer { client_id: None, subject: Some(subject) } => {
                    self.bearer(&mut subjects, subject, agent);
                }
                RawBearer { client_id: None, subject: None }
                    if self.dropped.has(bearer.span().start, "client_id")
                        || self.dropped.has(bearer.span().start, "subject") => {}
                RawBearer { client_id: Some(_), subject: Some(_) }
                | RawBearer { client_id: None, subject: None } => {
                    let message = "name either `client_id` or `subject`".to_owned();
                    self.fault(bearer.span(), message, None);
                }
            }
        }
        (clients, subjects)
    }

    fn bearer(&mut self, known: &mut Bearers, name: &At<String>, agent: AgentName) {
        if name.get().is_empty() {
            self.fault(name.span(), "an empty name fits nobody".to_owned(), None);
            return;
        }
        if let Some(other) = known.get(name.get()) {
            let message = format!("the tokens of `{}` already act as `{other}`", name.get());
            self.fault(name.span(), message, "give each agent a client of its own".to_owned());
            return;
        }
        known.insert(name.get().clone(), agent);
    }
}
