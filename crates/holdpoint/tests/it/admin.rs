//! The operator's API over HTTP: stop and release with an operator's key, and with nothing else.

use crate::client::{self, Opens, call, failed, reasons};
use crate::world::World;
use serde_json::{Value, json};

const CONFIG: &str = r#"
[listen]
http = "127.0.0.1:0"

[operator.night-shift]
key = { from_file = "operator.key" }

[team.platform]
on_call = "platform on-call"

[agent.coder]
owner = "platform"
grants = [{ class = "read", tools = ["*"] }]

[server.everything]
command = ["node", "${npm:everything}"]
environment = "dev"
read = ["echo"]
"#;

const KEY: &str = "an operator's key of at least 32 characters";

async fn post(url: &str, key: Option<&str>, body: &str) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client.post(url).header("content-type", "application/json");
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    let response = request.body(body.to_owned()).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn an_operator_stops_and_releases_over_http_and_nobody_else_does() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let world = World::new(CONFIG);
    std::fs::write(world.path().join("operator.key"), KEY).unwrap();
    let key = world.key("coder");
    let serve = world.serve();
    let base = serve.url.strip_suffix("/mcp").unwrap();
    let stop = format!("{base}/api/v1/stop");
    let body = json!({ "scope": "agent:coder", "reason": "from far away" }).to_string();

    for wrong in [None, Some(key.as_str()), Some("guess"), Some("")] {
        let (status, answer) = post(&stop, wrong, &body).await;
        assert_eq!((status, &answer["reason"]), (401, &json!("unauthenticated")), "{answer}");
    }
    for bad in ["", "{", "{}", r#"{"scope":"everything","reason":"x"}"#] {
        let (status, answer) = post(&stop, Some(KEY), bad).await;
        assert_eq!((status, &answer["reason"]), (400, &json!("message_malformed")), "{bad}");
    }
    let client = client::http(&serve, "/everything", &key, Opens::Modern).await;
    assert!(!failed(&call(&client, "echo", json!({ "message": "hi" })).await));

    let (status, answer) = post(&stop, Some(KEY), &body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["stops"][0]["by"], "night-shift");
    let refused = call(&client, "echo", json!({ "message": "hi" })).await;
    assert_eq!(reasons(&refused).first().map(String::as_str), Some("stopped"));

    let release = format!("{base}/api/v1/release");
    let body = json!({ "scope": "agent:coder", "reason": "all is well" }).to_string();
    let (status, answer) = post(&release, Some(KEY), &body).await;
    assert_eq!(status, 200, "{answer}");
    assert!(!failed(&call(&client, "echo", json!({ "message": "hi" })).await));
    client.cancel().await.unwrap();
    serve.end();
}

#[test]
fn a_weak_operator_key_keeps_the_server_from_starting() {
    let world = World::new(CONFIG);
    std::fs::write(world.path().join("operator.key"), "short").unwrap();
    let output = world.run(&["serve"]);
    assert_eq!(output.status.code(), Some(1));
    let said = crate::world::text(&output.stderr);
    assert!(said.contains("night-shift") && !said.contains("short"), "{said}");
}
