//! HTTP and GraphQL: a request has an answer whatever is in it, a host that is not on the list is
//! told, and `DELETE` stays one. Written as method and URL, headers, an empty line and the body.
//! Must never send one.

#![no_main]

use holdpoint_effects::{Body, Effects, HttpRequest, HttpRules, NoteCode, Place, graphql, http};
use holdpoint_types::EffectClass;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    let (method, url) = first.split_once(' ').unwrap_or(("GET", first));
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let request = HttpRequest {
        method: method.to_owned(),
        url: url.to_owned(),
        headers,
        body: if body.is_empty() { Body::None } else { Body::Text(body.to_owned()) },
        redirects: false,
    };
    let found = read(&request);
    // A URL's scheme has no case, and controls in it mean nothing.
    let plain: String = url.chars().filter(|char| *char > ' ').collect();
    let is_file = plain.to_ascii_lowercase().starts_with("file:");
    assert!(found.class().is_some() || is_file, "a request that does nothing");
    assert!(!found.is_opaque() || found.class() == Some(EffectClass::Destructive));
    let told = found.notes().any(|note| note.code == NoteCode::HostNotAllowed);
    let elsewhere = found.iter().any(|effect| {
        effect.resource.starts_with("https://evil.") || effect.resource.starts_with("http://evil.")
    });
    assert!(told || !elsewhere, "a host that is not on the list");
    let deletes = HttpRequest { method: "DELETE".to_owned(), body: Body::None, ..request };
    let deletes = read(&deletes);
    let local = deletes.iter().all(|effect| effect.resource.starts_with("file:"));
    let asks = deletes.iter().any(|effect| effect.evidence == "a GraphQL query");
    assert!(local || asks || deletes.class() == Some(EffectClass::Destructive), "a `DELETE`");
    let mut effects = Effects::default();
    graphql(body, "https://api.example.com/graphql", &HttpRules::default(), &mut effects);
    assert!(effects.class().is_some(), "a GraphQL request that does nothing at all");
});

fn read(request: &HttpRequest) -> Effects {
    let allowed_hosts = ["api.example.com".to_owned()].into();
    let rules = HttpRules { allowed_hosts, ..HttpRules::default() };
    let mut effects = Effects::default();
    http(request, &Place { http: rules, ..Place::default() }, &mut effects);
    effects
}
