//! What `holdpoint init` writes, keeps and says, on a real folder.

use super::{Args, client::Client, init};
use crate::config::{self, Colour};
use clap::Parser as _;
use expect_test::{expect, expect_file};
use std::path::Path;
use tempfile::TempDir;

const CLIENT: &str = r#"{
    "theme": "dark",
    "mcpServers": {
        "My Files": {
            "command": "npx",
            "args": ["-y", "@modelcontextprotocol/server-filesystem", "/srv/app"],
            "disabled": false
        },
        "github": {
            "command": "docker",
            "args": ["run", "-i", "--token", "hunter2", "ghcr.io/github/github-mcp-server"],
            "env": { "GITHUB_TOKEN": "ghp_hunter2", "LOG": "debug", "SITE": "${env:GH_SITE}" }
        },
        "tickets": {
            "type": "http",
            "url": "https://tickets.example.com/mcp",
            "headers": { "Authorization": "Bearer hunter2" }
        },
        "led": { "command": "holdpoint", "args": ["wrap", "--", "npx"] },
        "broken": { "args": [] }
    }
}
"#;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn args(folder: &Path, more: &[&str]) -> Args {
    let folder = folder.to_str().unwrap();
    let words = ["init", "--dir", folder].into_iter().chain(more.iter().copied());
    Line::parse_from(words).args
}

/// Runs `init` and gives what it says, with the folder's name taken out.
fn run(folder: &TempDir, more: &[&str]) -> anyhow::Result<String> {
    let done = init(&args(folder.path(), more), "holdpoint")?;
    let text = done.to_text(&folder.path().join("holdpoint.toml"));
    Ok(text.replace(folder.path().to_str().unwrap(), "DIR"))
}

fn file(folder: &TempDir, name: &str) -> String {
    let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
    text.replace(folder.path().to_str().unwrap(), "DIR")
}

fn is_fit(folder: &TempDir) {
    let loaded = config::load(&folder.path().join("holdpoint.toml")).unwrap();
    assert_eq!(loaded.report.render(Colour::Never), "");
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_first_configuration_is_fit_and_never_overwritten() {
    let folder = TempDir::new().unwrap();
    expect![[r#"
        wrote   DIR/holdpoint.toml

        Next: review DIR/holdpoint.toml, then run
          holdpoint check --config DIR/holdpoint.toml
    "#]]
    .assert_eq(&run(&folder, &[]).unwrap());
    is_fit(&folder);
    expect_file!["snapshots/first.toml"].assert_eq(&file(&folder, "holdpoint.toml"));
    std::fs::write(folder.path().join("holdpoint.toml"), "# mine\n").unwrap();
    let error = run(&folder, &[]).unwrap_err();
    assert!(error.is::<super::WrongUsage>() && error.to_string().contains("--force"), "{error}");
    assert_eq!(file(&folder, "holdpoint.toml"), "# mine\n");
    run(&folder, &["--force"]).unwrap();
    is_fit(&folder);
    let kept = std::fs::read_to_string(folder.path().join("holdpoint.toml.bak")).unwrap();
    assert_eq!(kept, "# mine\n");
}

#[test]
fn the_starter_pack_can_be_added_to_a_configuration_that_stays_as_it_is() {
    let folder = TempDir::new().unwrap();
    run(&folder, &["--agent", "mine"]).unwrap();
    let before = file(&folder, "holdpoint.toml");
    expect![[r#"
        wrote   DIR/policies/starter.cedar

        Next: let DIR/holdpoint.toml say, if it does not yet,
          [policies]
          path = "policies"
        then restart what governs: only that takes a new path up
    "#]]
    .assert_eq(&run(&folder, &["--policies"]).unwrap());
    assert_eq!(file(&folder, "holdpoint.toml"), before);
    assert_eq!(names(&folder), ["holdpoint.toml", "policies"]);
    let own = folder.path().join("policies/starter.cedar");
    std::fs::write(&own, "// mine").unwrap();
    run(&folder, &["--policies"]).unwrap_err();
    assert_eq!(std::fs::read_to_string(&own).unwrap(), "// mine");
}

#[test]
fn the_starter_pack_can_be_copied() {
    let folder = TempDir::new().unwrap();
    run(&folder, &["--policies"]).unwrap();
    let loaded = config::load(&folder.path().join("holdpoint.toml")).unwrap();
    let sources = config::policy_sources(&loaded.config).unwrap();
    assert_eq!(sources, holdpoint_policy::starter_pack());
    assert!(run(&folder, &["--policies"]).is_err());
}

#[test]
fn a_client_is_led_through_holdpoint_and_its_file_is_kept() {
    let folder = TempDir::new().unwrap();
    let from = folder.path().join("mcp.json");
    std::fs::write(&from, CLIENT).unwrap();
    let said = run(&folder, &["--from", from.to_str().unwrap()]).unwrap();
    expect![[r#"
        kept    DIR/mcp.json as DIR/mcp.json.bak
        wrote   DIR/holdpoint.toml
        wrote   DIR/mcp.json
        server  my_files: its calls now go through `holdpoint wrap`
                was called `My Files`
        server  github: its calls now go through `holdpoint wrap`
                GITHUB_TOKEN was not copied: it is read from $GITHUB_TOKEN
                SITE was not copied: it is read from $GH_SITE
                1 of its arguments look like secrets: not copied
        server  tickets: in the client, point it at http://127.0.0.1:4747/mcp/tickets
                Authorization was not copied: it is read from $TICKETS_AUTHORIZATION
        skipped `led`: it goes through Holdpoint already
        skipped `broken`: it has neither `command` nor `url`

        Next: review DIR/holdpoint.toml, then run
          holdpoint check --config DIR/holdpoint.toml
    "#]]
    .assert_eq(&said);
    is_fit(&folder);
    expect_file!["snapshots/client.json"].assert_eq(&file(&folder, "mcp.json"));
    assert_eq!(std::fs::read_to_string(folder.path().join("mcp.json.bak")).unwrap(), CLIENT);
    let text = std::fs::read_to_string(folder.path().join("holdpoint.toml")).unwrap();
    assert!(!text.contains("hunter2"));
    let servers = text.split_once("[server.").map(|(_, rest)| format!("[server.{rest}")).unwrap();
    let servers = servers.split_once("\n# Where resources live").unwrap().0.to_owned();
    expect_file!["snapshots/servers.toml"].assert_eq(&servers);
}

#[test]
fn a_second_import_changes_nothing_in_the_client() {
    let folder = TempDir::new().unwrap();
    let from = folder.path().join("mcp.json");
    std::fs::write(&from, r#"{"servers": {"a": {"command": "x"}}}"#).unwrap();
    let options = ["--force", "--from", from.to_str().unwrap()];
    run(&folder, &options).unwrap();
    let led = std::fs::read_to_string(&from).unwrap();
    let config = file(&folder, "holdpoint.toml");
    let said = run(&folder, &options).unwrap();
    assert_eq!(std::fs::read_to_string(&from).unwrap(), led);
    // Nor does it forget what goes through Holdpoint already.
    assert!(said.contains("server  a: its calls go through `holdpoint wrap` already"), "{said}");
    assert_eq!(file(&folder, "holdpoint.toml"), config);
    assert!(config.contains("[server.a]"), "{config}");
    assert_eq!(
        names(&folder),
        ["holdpoint.toml", "holdpoint.toml.bak", "mcp.json", "mcp.json.bak"]
    );
}

#[test]
fn what_an_import_would_forget_is_named() {
    let folder = TempDir::new().unwrap();
    let from = folder.path().join("mcp.json");
    std::fs::write(&from, r#"{"servers": {"a": {"url": "https://a.example.com/mcp"}}}"#).unwrap();
    let options = ["--force", "--from", from.to_str().unwrap()];
    run(&folder, &options).unwrap();
    std::fs::write(&from, r#"{"servers": {"b": {"command": "x"}}}"#).unwrap();
    let said = run(&folder, &options).unwrap();
    assert!(said.contains("dropped `a`: only the old configuration declares it"), "{said}");
    let said = run(&folder, &["--force", "--from", from.to_str().unwrap(), "--agent", "ada"]);
    assert!(!said.unwrap().contains("dropped"));
    let led = std::fs::read_to_string(&from).unwrap();
    assert!(led.contains("\"ada\"") && !led.contains("\"coder\""), "{led}");
}

#[test]
fn a_backup_is_never_overwritten() {
    let folder = TempDir::new().unwrap();
    let from = folder.path().join("mcp.json");
    for (name, text) in [("mcp.json", CLIENT), ("mcp.json.bak", "1"), ("mcp.json.bak.1", "2")] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    run(&folder, &["--from", from.to_str().unwrap()]).unwrap();
    for (name, text) in [("mcp.json.bak", "1"), ("mcp.json.bak.1", "2"), ("mcp.json.bak.2", CLIENT)]
    {
        assert_eq!(std::fs::read_to_string(folder.path().join(name)).unwrap(), text, "{name}");
    }
}

#[test]
fn a_file_that_cannot_be_imported_leaves_everything_as_it_was() {
    let folder = TempDir::new().unwrap();
    let from = folder.path().join("mcp.json");
    for text in ["", "{", "[]", "{}", "{\"mcpServers\": []}", "{} // comment", "{\"a\":1,\"a\":2}"]
    {
        std::fs::write(&from, text).unwrap();
        let error = run(&folder, &["--from", from.to_str().unwrap()]).unwrap_err();
        assert!(error.chain().any(|cause| cause.is::<super::WrongUsage>()), "{text}: {error:#}");
        assert_eq!(names(&folder), ["mcp.json"], "{text}");
    }
}

#[test]
fn names_that_collide_stay_apart() {
    let text = r#"{"mcpServers": {"A B": {"command": "x"}, "a b": {"command": "y"},
        "é": {"url": "http://h/"}, "": {"url": "file:///x"}, "s": {"command": "x", "args": 1}}}"#;
    let client = Client::parse(text, Path::new("/x")).unwrap();
    let found: Vec<_> = client.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(found, ["a_b", "a_b-2", "server"]);
    assert_eq!(client.unusable.len(), 2);
}
