//! What OpenAPI documents declare, and what is wrong with them.

use super::{Body, HttpRequest, Operations, http, openapi};
use crate::{Effects, NoteCode, Place};
use holdpoint_types::EffectClass;

const SHOP: &str = r##"
openapi: 3.1.0
info: { title: shop, version: "1" }
servers:
  - url: https://{env}.example.com/v1
    variables: { env: { default: api } }
paths:
  /orders:
    get: { operationId: listOrders }
    post: { operationId: createOrder }
  /orders/{id}:
    get: {}
    delete: { operationId: cancelOrder, x-holdpoint-class: read }
  /orders/{id}/refund:
    post: { operationId: refundOrder, x-holdpoint-class: destructive }
  /orders/search:
    post: { operationId: searchOrders, x-holdpoint-class: read }
  /audit:
    $ref: "#/components/pathItems/audit"
  /reports:
    servers: [{ url: "https://reports.example.com:8443" }]
    get: {}
components:
  pathItems:
    audit:
      get: { operationId: audit }
"##;

fn judged(operations: &Operations, request: &str) -> String {
    let (head, body) = request.split_once(" < ").unwrap_or((request, ""));
    let (method, url) = head.split_once(' ').unwrap();
    let body = if body.is_empty() { Body::None } else { Body::Text(body.to_owned()) };
    let request =
        HttpRequest { method: method.into(), url: url.into(), body, ..HttpRequest::default() };
    let mut place = Place::default();
    place.http.operations = operations.clone();
    let mut effects = Effects::default();
    http(&request, &place, &mut effects);
    match (effects.is_opaque(), effects.class()) {
        (true, _) => "opaque".to_owned(),
        (false, class) => class.unwrap().to_string(),
    }
}

fn shop() -> Operations {
    let mut all = openapi(SHOP, &[]).unwrap();
    for operation in &mut all {
        if operation.is_called("searchOrders") || operation.is_called("DELETE /orders/{id}") {
            let class = match operation.name().as_str() {
                "searchOrders" => EffectClass::Read,
                _ => EffectClass::Write,
            };
            *operation = operation.clone().classed(class);
        }
    }
    Operations::new(all)
}

#[test]
fn a_host_inside_of_any_body_is_told() {
    let mut place = Place::default();
    place.http.allowed_hosts.insert("api.example.com".to_owned());
    let url = "http://evil.169.254.169.254.example/latest/";
    for body in [format!("<a>{url}</a>"), format!("[\"{url}\"]"), format!("next={url}")] {
        let request = HttpRequest {
            method: "POST".to_owned(),
            url: "https://api.example.com/import".to_owned(),
            body: Body::Text(body.clone()),
            ..HttpRequest::default()
        };
        let mut effects = Effects::default();
        http(&request, &place, &mut effects);
        assert_eq!(effects.class(), Some(EffectClass::Destructive), "{body}");
        let mut notes = effects.notes();
        assert!(notes.any(|note| note.code == NoteCode::HostNotAllowed), "{body}");
    }
}

#[test]
fn a_declared_operation_has_its_class() {
    let shop = shop();
    for (request, wanted) in [
        ("GET https://api.example.com/v1/orders", "read"),
        ("GET https://api.example.com/v1/orders/7?full=1", "read"),
        ("HEAD https://api.example.com/v1/orders/7", "read"),
        ("POST https://api.example.com/v1/orders < {\"item\":1}", "write"),
        ("POST https://api.example.com/v1/orders/7/refund", "destructive"),
        ("GET https://api.example.com/v1/audit/", "read"),
        ("GET https://reports.example.com:8443/reports", "read"),
        // The operator says what these are.
        ("POST https://api.example.com/v1/orders/search", "read"),
        ("DELETE https://api.example.com/v1/orders/7", "write"),
        // What else the request says still counts.
        ("GET https://api.example.com/v1/orders?action=delete", "destructive"),
        ("POST https://api.example.com/v1/orders?_method=DELETE", "opaque"),
        ("POST https://api.example.com/v1/orders < {\"action\":\"deleteAll\"}", "destructive"),
        // Other hosts have no document.
        ("POST https://other.example.com/v1/orders", "write"),
    ] {
        assert_eq!(judged(&shop, request), wanted, "{request}");
    }
}

#[test]
fn what_no_document_declares_is_opaque() {
    let shop = shop();
    for request in [
        "GET https://api.example.com/v1/users",
        "PUT https://api.example.com/v1/orders",
        "GET https://api.example.com/orders",
        "GET http://api.example.com/v1/orders",
        "GET https://api.example.com:8443/v1/orders",
        "GET https://reports.example.com/reports",
        "GET https://api.example.com/v1/orders/a%2Fb",
        "GET https://api.example.com/v1/orders/%2e%2e",
        "GET https://api.example.com/v1/orders/..%2Fusers",
        "POST https://api.example.com/v1/orders//refund",
        "PROPFIND https://api.example.com/v1/orders",
    ] {
        assert_eq!(judged(&shop, request), "opaque", "{request}");
    }
}

#[test]
fn faults_of_a_document_have_a_place() {
    let said = |text: &str| {
        let faults = openapi(text, &[]).unwrap_err();
        let shown = faults.iter().map(|one| format!("{}:{} {}", one.line, one.column, one.message));
        shown.collect::<Vec<_>>().join("; ")
    };
    let server = "openapi: 3.0.3\nservers: [{ url: https://a.example }]\npaths:\n";
    let wrong = said(&format!("{server}  /a:\n    get:\n      x-holdpoint-class: reed\n"));
    assert_eq!(wrong, "6:26 `x-holdpoint-class` is `read`, `write` or `destructive`");
    let away = said(&format!("{server}  /a:\n    $ref: other.yaml\n"));
    assert_eq!(away, "5:5 a reference to what is not in this document");
    let relative = said("openapi: 3.0.3\nservers: [{ url: /v1 }]\npaths: { /a: { get: {} } }\n");
    assert!(relative.starts_with("2:") && relative.contains("`/v1`"), "{relative}");
    assert!(said("openapi: 3.0.3\npaths: { /a: { get: {} } }\n").contains("no server is named"));
    assert!(said("swagger: \"2.0\"\npaths: {}\n").contains("Swagger 2"));
    assert!(said("a: [").starts_with("1:"));
    assert!(said("").contains("openapi"));
    assert!(said("openapi: 3.0.3\n").contains("no `paths`"));
    assert!(said(&format!("{server}  /a: {{ get: {{}}, get: {{}} }}\n")).contains("4:"));
    let twice = "  /a:\n    get: { operationId: a }\n    post: { operationId: a }\n";
    assert_eq!(said(&format!("{server}{twice}")), "6:11 another operation is `a`, too");
    assert!(said(&format!("{server}  '/a{{': {{ get: {{}} }}\n")).contains("is no path"));
}

#[test]
fn json_is_read_like_yaml() {
    let json = concat!(
        "{\"openapi\": \"3.0.0\", \"info\": {\"title\": \"\\ud83d\\ude00 \\/\"},\n",
        "\t\"paths\": {\"/a\\/{b}\": {\"post\": {\"operationId\": \"x\"}}}}",
    );
    let servers = ["http://127.0.0.1:8080".to_owned()];
    let operations = openapi(json, &servers).unwrap();
    let operations = Operations::new(operations);
    assert_eq!(judged(&operations, "POST http://127.0.0.1:8080/a/1"), "write");
}

#[test]
fn documents_have_limits() {
    let server = "openapi: 3.0.3\nservers: [{ url: https://a.example }]\n";
    let deep = format!("{server}x: {}{}\n", "[".repeat(70), "]".repeat(70));
    assert!(openapi(&deep, &[]).unwrap_err()[0].message.contains("epth"));
    let many = format!("{server}x: [{}]\n", "1,".repeat(2_000_001));
    assert!(openapi(&many, &[]).unwrap_err()[0].message.contains("odes"));
    let paths: String = (0..30).map(|at| format!("  p{at}: {{}}\n")).collect();
    let faults = openapi(&format!("{server}paths:\n{paths}"), &[]).unwrap_err();
    assert_eq!(faults.len(), 20);
}
