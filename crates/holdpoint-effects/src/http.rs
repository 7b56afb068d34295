//! HTTP requests: the method, the host, the operation, and what the request carries.
//!
//! Owns how a URL is read and what a method may do. It must never resolve a name or follow a
//! redirect: where those lead is not known here.

use self::openapi::Basis;
use crate::graphql;
use crate::place::{Act, Place};
use crate::words::Arg;
use crate::{Effects, NoteCode, TEXT_BYTES_MAX};
use holdpoint_types::{Certainty, Effect, EffectClass, Verb};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use url::{Host, Url};

mod openapi;

pub use openapi::{OPENAPI_BYTES_MAX, OpenApiFault, Operation, Operations, openapi, server_url};

/// Most values of a request that may be addresses.
const VALUES_MAX: usize = 512;
/// Words that say what a request does whose method does not.
const DELETING: &[&str] = &[
    "delete",
    "remove",
    "destroy",
    "purge",
    "drop",
    "terminate",
    "truncate",
    "wipe",
    "revoke",
    "erase",
    "deactivate",
    "uninstall",
    "kill",
    "shutdown",
    "flush",
    "unpublish",
];
/// Keys whose value names what a request does.
const OPERATION_KEYS: &[&str] =
    &["action", "op", "operation", "cmd", "command", "do", "method", "x-amz-target"];
/// Headers that carry credentials, and parts of names of others that do.
const CREDENTIALS: &[&str] =
    &["authorization", "proxy-authorization", "cookie", "private-token", "x-amz-security-token"];
const CREDENTIAL_PARTS: &[&str] =
    &["api-key", "apikey", "auth-token", "access-token", "secret", "x-token", "-token"];
/// Parameters of a query that carry credentials.
const CREDENTIAL_PARAMETERS: &[&str] = &[
    "api_key",
    "apikey",
    "access_token",
    "token",
    "key",
    "secret",
    "client_secret",
    "password",
    "auth",
    "private_token",
    "x-amz-signature",
    "x-amz-security-token",
    "x-goog-signature",
];

/// A request as it would be sent.
#[derive(Clone, Debug, Default)]
pub struct HttpRequest {
    /// The method; empty means `GET`.
    pub method: String,
    /// The URL.
    pub url: String,
    /// Names and values of headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Body,
    /// True if redirects are followed.
    pub redirects: bool,
}

/// The body of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    #[default]
    None,
    /// This text.
    Text(String),
    /// Something that is not seen here: a file, a stream.
    Unseen,
}

/// What the operator says of hosts and their operations.
#[derive(Clone, Debug, Default)]
pub struct HttpRules {
    /// Names that may be addressed; `*.example.org` stands for every name below. Without any, there
    /// is no list to be missing from.
    pub allowed_hosts: BTreeSet<String>,
    /// Headers, in lower case, whose credentials Holdpoint itself puts in.
    pub brokered_headers: BTreeSet<String>,
    /// Operations that are declared.
    pub operations: Operations,
    /// GraphQL mutations by their field, and what each of them is.
    pub mutations: BTreeMap<String, EffectClass>,
}

/// Adds what sending `request` would do.
pub fn http(request: &HttpRequest, place: &Place, effects: &mut Effects) {
    if request.url.len() > TEXT_BYTES_MAX {
        return effects.add_opaque("https://*", NoteCode::TooLarge, "the URL is too long");
    }
    let Ok(url) = Url::parse(request.url.trim()) else {
        return effects.add_opaque("https://*", NoteCode::Unreadable, request.url.clone());
    };
    if matches!(&request.body, Body::Text(text) if text.len() > TEXT_BYTES_MAX) {
        effects.add_opaque(&address(&url), NoteCode::TooLarge, "the body is too long");
        return host(&url, &place.http, effects);
    }
    match url.scheme() {
        "http" | "https" | "ws" | "wss" => web(request, &url, place, effects),
        "file" => {
            let path = percent_decode_str(url.path()).decode_utf8_lossy().into_owned();
            place.spot().touch(Act::Read, &Arg::known(path), "a `file:` URL", effects);
        }
        scheme => {
            let address = format!("{scheme}://{}", url.host_str().unwrap_or("*"));
            effects.note(NoteCode::HostNotAllowed, address.clone());
            effects.add_opaque(&address, NoteCode::Unreadable, request.url.clone());
        }
    }
}

fn web(request: &HttpRequest, url: &Url, place: &Place, effects: &mut Effects) {
    let rules = &place.http;
    let address = address(url);
    host(url, rules, effects);
    credentials(request, url, rules, effects);
    nested(request, url, rules, effects);
    let method = method(request, url);
    let asks = graphql::is_request(url, request, &method);
    if asks {
        graphql::request(url, request, &address, rules, effects);
    }
    // Only where GraphQL is served is a document all that counts: anywhere else, and with any other
    // method, one in the body is no reason to believe that nothing else happens.
    let is_whole = asks && graphql::is_endpoint(url) && matches!(method.as_str(), "GET" | "POST");
    if !rules.operations.knows(&host_name(url)) {
        if !is_whole {
            effects.add(undeclared(request, url, &method, address));
        }
        return;
    }
    let path = percent_decode_str(url.path()).decode_utf8_lossy().into_owned();
    effects.add(match rules.operations.of(url, &method, &path) {
        Some(_) if is_whole => return,
        Some(operation) => declared(operation, undeclared(request, url, &method, address)),
        None => Effect::opaque(address, format!("{method} is not declared for this host")),
    });
}

/// What a declared operation does. What the request says besides counts, unless the operator has
/// said what the operation is.
fn declared(operation: &Operation, plain: Effect) -> Effect {
    let evidence = format!("{}, declared as {}", plain.evidence, operation.name());
    match operation.basis {
        Basis::Document => Effect { evidence, ..plain }.at_least(operation.class),
        Basis::Operator => {
            let verb = match operation.class {
                EffectClass::Read => Verb::Read,
                EffectClass::Write if plain.verb.floor() > EffectClass::Write => Verb::Send,
                EffectClass::Write | EffectClass::Destructive => plain.verb,
            };
            Effect::new(verb, plain.resource, evidence).at_least(operation.class)
        }
    }
}

/// What a request does of which only the method is known.
fn undeclared(request: &HttpRequest, url: &Url, method: &str, address: String) -> Effect {
    let evidence = format!("{method} {}", url.path());
    let verb = verb(method);
    let mut effect = Effect::new(verb, address, evidence);
    if is_metadata(url) {
        effect = effect.at_least(EffectClass::Destructive);
    }
    let by_path = verb != Verb::Read && url.path().split(['/', ':', '.']).any(deletes);
    if by_path
        || said(request, url).iter().any(|name| name.split(['.', '#', '/', ':']).any(deletes))
    {
        effect.verb = Verb::Delete;
        effect = effect.at_least(EffectClass::Destructive).no_surer_than(Certainty::Bounded);
    }
    match verb {
        Verb::Unknown => effect.no_surer_than(Certainty::Opaque),
        Verb::Send | Verb::Update => match (&request.body, request.redirects) {
            (Body::Unseen, _) | (_, true) => effect.no_surer_than(Certainty::Bounded),
            (Body::None | Body::Text(_), false) => effect,
        },
        Verb::Read | Verb::Create | Verb::Delete | Verb::Grant | Verb::Execute | Verb::Schedule => {
            effect
        }
    }
}

/// True if a name begins or ends with a word of deletion: `deleteAll`, `bulk-delete`.
fn deletes(name: &str) -> bool {
    let mut words: Vec<String> = vec![String::new()];
    let mut before = ' ';
    for c in name.chars() {
        if !c.is_alphanumeric() || c.is_uppercase() && before.is_lowercase() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    let is = |word: Option<&String>| word.is_some_and(|word| DELETING.contains(&word.as_str()));
    is(words.first()) || is(words.last())
}

/// What the request says that it does, besides its method and path: names of operations in the
/// query, in a form, in a JSON body and in headers.
fn said(request: &HttpRequest, url: &Url) -> Vec<String> {
    let names = |key: &str| OPERATION_KEYS.contains(&key.to_ascii_lowercase().as_str());
    let pairs = url.query_pairs().filter(|(key, _)| names(key));
    let mut found: Vec<String> = pairs.map(|(_, value)| value.into_owned()).collect();
    let headers = request.headers.iter().filter(|(name, _)| {
        matches!(name.trim().to_ascii_lowercase().as_str(), "x-amz-target" | "soapaction")
    });
    found.extend(headers.map(|(_, value)| value.trim_matches('"').to_owned()));
    let Body::Text(text) = &request.body else { return found };
    // A bulk request is one document a line.
    for line in std::iter::once(text.as_str()).chain(text.lines()).take(VALUES_MAX) {
        let Ok(value) = serde_json::from_str::<Value>(line) else { continue };
        let batch = value.as_array().map_or(std::slice::from_ref(&value), Vec::as_slice);
        for one in batch.iter().take(VALUES_MAX) {
            for (key, value) in one.as_object().into_iter().flatten() {
                match value {
                    Value::String(value) if names(key) => found.push(value.clone()),
                    Value::Object(_) if DELETING.contains(&key.as_str()) => {
                        found.push(key.clone());
                    }
                    _ => {}
                }
            }
        }
    }
    if !text.trim_start().starts_with(['{', '[']) {
        let pairs = url::form_urlencoded::parse(text.as_bytes()).filter(|(key, _)| names(key));
        found.extend(pairs.map(|(_, value)| value.into_owned()));
    }
    found
}

fn verb(method: &str) -> Verb {
    match method {
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PROPFIND" | "REPORT" => Verb::Read,
        "POST" => Verb::Send,
        "PUT" | "PATCH" | "MKCOL" | "COPY" | "LOCK" | "UNLOCK" | "PROPPATCH" => Verb::Update,
        "DELETE" | "MOVE" | "PURGE" => Verb::Delete,
        _ => Verb::Unknown,
    }
}

/// The method that a server would act on: some honour an override in a header, the query or a form.
fn method(request: &HttpRequest, url: &Url) -> String {
    let given = match request.method.trim() {
        "" => "GET".to_owned(),
        method => method.to_ascii_uppercase(),
    };
    let is_override = |name: &str| {
        let name = name.trim().to_ascii_lowercase();
        matches!(name.as_str(), "x-http-method-override" | "x-http-method" | "x-method-override")
    };
    let headers = request.headers.iter().filter(|(name, _)| is_override(name));
    let mut overriding: Vec<String> = headers.map(|(_, value)| value.trim().to_owned()).collect();
    let query = url.query_pairs().filter(|(key, _)| key == "_method");
    overriding.extend(query.map(|(_, value)| value.into_owned()));
    if let Body::Text(text) = &request.body {
        overriding.extend(form_value(text, "_method"));
        let json = serde_json::from_str::<Value>(text).ok();
        let json = json.as_ref().and_then(|json| json.get("_method")?.as_str());
        overriding.extend(json.map(str::to_owned));
    }
    // An override can only make it worse: servers that do not know it see the method itself.
    let all = overriding.into_iter().map(|method| method.to_ascii_uppercase());
    let worst = all.max_by_key(|method| rank(method));
    worst.filter(|method| rank(method) > rank(&given)).unwrap_or(given)
}

fn rank(method: &str) -> EffectClass {
    verb(method).floor()
}

fn form_value(text: &str, key: &str) -> Option<String> {
    let pairs = url::form_urlencoded::parse(text.as_bytes());
    pairs.into_iter().find(|(name, _)| name == key).map(|(_, value)| value.into_owned())
}

/// `https://host/path`, without credentials, query and fragment.
fn address(url: &Url) -> String {
    let host = host_name(url);
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let scheme = if url.scheme() == "http" { "http" } else { "https" };
    format!("{scheme}://{host}{port}{}", plain_path(url.path()))
}

/// A path with letters, digits and `-._~` as themselves (RFC 3986, 6.2.2.2) and without doubled
/// slashes, so that no pattern of a surface is passed by another spelling.
fn plain_path(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(c) = rest.chars().next() {
        let code = (c == '%').then(|| rest.get(1..3)).flatten();
        let code = code.and_then(|code| u8::from_str_radix(code, 16).ok()).map(char::from);
        let code = code.filter(|code| code.is_ascii_alphanumeric() || "-._~".contains(*code));
        let (sign, length) = code.map_or((c, c.len_utf8()), |code| (code, 3));
        if sign != '/' || !plain.ends_with('/') {
            plain.push(sign);
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    plain
}

fn host_name(url: &Url) -> String {
    match url.host() {
        Some(Host::Domain(name)) => name.trim_end_matches('.').to_ascii_lowercase(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => match address.to_ipv4_mapped() {
            Some(address) => address.to_string(),
            None => format!("[{address}]"),
        },
        None => "*".to_owned(),
    }
}

fn host(url: &Url, rules: &HttpRules, effects: &mut Effects) {
    let name = host_name(url);
    if !is_allowed(&name, rules) {
        effects.note(NoteCode::HostNotAllowed, name);
    }
    if is_metadata(url) {
        effects.note(NoteCode::CredentialTouched, "the metadata service hands out credentials");
    }
}

pub(crate) fn is_allowed(name: &str, rules: &HttpRules) -> bool {
    let listed = rules.allowed_hosts.iter().any(|allowed| {
        let allowed = allowed.to_ascii_lowercase();
        match allowed.strip_prefix("*.") {
            Some(above) => name.strip_suffix(above).is_some_and(|rest| rest.ends_with('.')),
            None => allowed == name,
        }
    });
    listed || rules.allowed_hosts.is_empty()
}

/// The service that hands out the credentials of a cloud machine.
fn is_metadata(url: &Url) -> bool {
    let ip = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).to_canonical(),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            return name == "metadata.google.internal"
                || name == "metadata"
                || name == "instance-data"
                || name.contains("169.254.169.254")
                || name.contains("169-254-169-254");
        }
        None => return false,
    };
    let v4 = [
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(169, 254, 170, 2),
        Ipv4Addr::new(100, 100, 100, 200),
    ];
    let v6 = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    v4.iter().any(|known| ip == IpAddr::V4(*known)) || ip == IpAddr::V6(v6)
}

fn credentials(request: &HttpRequest, url: &Url, rules: &HttpRules, effects: &mut Effects) {
    if !url.username().is_empty() || url.password().is_some() {
        effects.note(NoteCode::CredentialInCall, "in the URL, before the host");
    }
    for (name, value) in &request.headers {
        let name = name.trim().to_ascii_lowercase();
        let carries = CREDENTIALS.contains(&name.as_str())
            || CREDENTIAL_PARTS.iter().any(|part| name.contains(part));
        if carries && !value.trim().is_empty() && !rules.brokered_headers.contains(&name) {
            effects.note(NoteCode::CredentialInCall, format!("in the header {name}"));
        }
    }
    for (key, value) in url.query_pairs() {
        let name = key.to_ascii_lowercase();
        if CREDENTIAL_PARAMETERS.contains(&name.as_str()) && value.len() >= 8 {
            effects.note(NoteCode::CredentialInCall, format!("in the parameter {name}"));
        }
    }
}

/// Addresses inside of the request, which the host may fetch.
fn nested(request: &HttpRequest, url: &Url, rules: &HttpRules, effects: &mut Effects) {
    let mut found: Vec<String> = url.query_pairs().map(|(_, value)| value.into_owned()).collect();
    let path = percent_decode_str(url.path()).decode_utf8_lossy().into_owned();
    for scheme in ["http:/", "https:/", "file:/", "gopher:/", "ftp:/", "dict:/"] {
        if let Some((_, rest)) = path.split_once(&format!("/{scheme}")) {
            found.push(format!("{scheme}/{}", rest.trim_start_matches('/')));
        }
    }
    if let Body::Text(text) = &request.body {
        match serde_json::from_str::<Value>(text) {
            Ok(value) => strings(&value, &mut found),
            Err(_) => {
                let pairs = url::form_urlencoded::parse(text.as_bytes());
                let values = pairs.map(|(_, value)| value.into_owned());
                found.extend(values.filter(|text| may_be_address(text)).take(VALUES_MAX + 1));
            }
        }
    }
    if found.len() > VALUES_MAX {
        let evidence = "too many addresses in one request";
        effects.add_opaque(&address(url), NoteCode::TooLarge, evidence);
    }
    for text in found.iter().take(VALUES_MAX) {
        let twice = percent_decode_str(text).decode_utf8_lossy();
        let twice = twice.trim();
        if twice.contains(char::is_whitespace) {
            continue;
        }
        let Some(inner) = inner_address(twice) else { continue };
        inside_host(&inner, rules, effects);
        fetched(&inner, effects);
    }
    if let Body::Text(text) = &request.body {
        // XML, lines of JSON and other texts: an address in them may be there to be read by
        // people, but not one of these.
        for inner in inside(text).iter().filter(|inner| is_never_to_be_read(inner)) {
            inside_host(inner, rules, effects);
            fetched(inner, effects);
        }
    }
}

/// An address as it may stand in a value: with a scheme, or without one as browsers read it.
fn inner_address(text: &str) -> Option<Url> {
    if let Some(rest) = text.strip_prefix("//") {
        let host = rest.split(['/', '?', ':']).next().unwrap_or_default();
        return host.contains('.').then(|| Url::parse(&format!("https://{rest}")).ok()).flatten();
    }
    let lower = text.to_ascii_lowercase();
    let web = ["http:", "https:", "http/", "https/"].iter().any(|start| lower.starts_with(start));
    (web || text.contains("://")).then(|| Url::parse(text).ok()).flatten()
}

/// Addresses of files and of the metadata service in a text that is not JSON.
fn inside(text: &str) -> Vec<Url> {
    if serde_json::from_str::<Value>(text).is_ok() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, _) in text.match_indices("://").take(VALUES_MAX) {
        let (before, after) = text.split_at(at);
        let letters = before.chars().rev().take_while(char::is_ascii_alphabetic);
        let scheme = before.get(at - letters.count()..).unwrap_or_default();
        let ends = |c: char| c.is_whitespace() || "\"'<>)],;".contains(c);
        let rest = after.split(ends).next().unwrap_or_default();
        let known = ["http", "https", "file"].contains(&scheme.to_ascii_lowercase().as_str());
        found.extend(known.then(|| Url::parse(&format!("{scheme}{rest}")).ok()).flatten());
    }
    found
}

fn inside_host(inner: &Url, rules: &HttpRules, effects: &mut Effects) {
    let name = host_name(inner);
    if !is_allowed(&name, rules) {
        effects.note(NoteCode::HostNotAllowed, format!("inside of the request: {name}"));
    }
}

/// An address that no host should be asked for.
fn is_never_to_be_read(inner: &Url) -> bool {
    is_metadata(inner) || inner.scheme() == "file"
}

/// Adds what it means that a host is asked to fetch `inner`.
fn fetched(inner: &Url, effects: &mut Effects) {
    if !is_never_to_be_read(inner) {
        return;
    }
    let address = match inner.scheme() {
        "file" => inner.to_string(),
        _ => address(inner),
    };
    let effect = Effect::new(Verb::Read, address, "the host is asked to fetch it");
    let effect = effect.at_least(EffectClass::Destructive);
    effects.add(effect.no_surer_than(Certainty::Bounded));
}

/// Collects the strings of a JSON document that may hold an address, up to one beyond the limit.
fn strings(value: &Value, found: &mut Vec<String>) {
    let mut waiting = vec![value];
    while let Some(value) = waiting.pop() {
        if found.len() > VALUES_MAX {
            return;
        }
        match value {
            Value::String(text) if may_be_address(text) => found.push(text.clone()),
            Value::Array(values) => waiting.extend(values),
            Value::Object(fields) => waiting.extend(fields.values()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// An address has a scheme, perhaps encoded once more.
fn may_be_address(text: &str) -> bool {
    text.contains("://")
        || text.contains('%')
        || text.starts_with("//")
        || text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("http"))
}

#[cfg(test)]
mod tests;
