//! The whole way of risky work, through a real client and on real targets: a plan is proposed,
//! remarked upon, accepted; each step is seen, held, approved, made, and in the end all of it is
//! verified and taken back.

use crate::client::{self, Client, Opens, failed, http};
use crate::postgres::Postgres;
use crate::world::{World, text};
use rmcp::model::CallToolResult;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const CONFIG: &str = r#"
[listen]
http = "127.0.0.1:0"

[team.platform]
on_call = "platform on-call"

[plans]

[agent.coder]
owner = "platform"
mode = "approve-writes"
grants = [
  { class = "read", tools = ["*"] },
  { class = "write", tools = ["*"] },
  { class = "destructive", tools = [
    "orders__sql_execute", "notes__sql_execute", "files__write_file", "infra__terraform_apply",
  ] },
]

[server.orders]
environment = "dev"
serves = { postgres = { from_file = "orders.url" } }

[server.notes]
environment = "dev"
serves = { sqlite = "notes.db" }

[server.files]
command = ["node", "${npm:filesystem}", "${files}"]
environment = "dev"
read = ["read_*", "list_*"]
undo = { files = ["${files}"] }
tool.write_file.effects = [
  { family = "file", act = "write", path = "/path", contents = "/content" },
]

[server.repo]
environment = "dev"
serves = { git = "repo" }

[server.infra]
environment = "dev"
serves = { terraform = "infra" }
"#;

fn must(program: &str, arguments: &[&str], dir: &Path) -> String {
    let run = Command::new(program).args(arguments).current_dir(dir).output().unwrap();
    assert!(run.status.success(), "{program} {arguments:?}: {}", text(&run.stderr));
    text(&run.stdout)
}

fn told(result: &CallToolResult) -> Value {
    result.structured_content.clone().unwrap_or_else(|| panic!("{}", client::text(result)))
}

/// The id of the approval that a held call names.
fn held(result: &CallToolResult) -> String {
    let value = serde_json::to_value(result).unwrap();
    let id = &value["_meta"]["io.holdpoint/decision"]["held"]["id"];
    id.as_str().unwrap_or_else(|| panic!("not held: {}", client::text(result))).to_owned()
}

/// Everything that the plan changes, as somebody outside sees it.
fn seen(world: &World, postgres: &Postgres, terraform: bool) -> Vec<String> {
    let here = world.path();
    let mut all = vec![
        postgres.ask("SELECT string_agg(concat_ws(':', id, name), ' ' ORDER BY id) FROM users"),
        must("sqlite3", &["notes.db", "SELECT * FROM notes ORDER BY id"], here),
        std::fs::read_to_string(world.files().join("a.txt")).unwrap(),
        must("git", &["rev-parse", "main"], &here.join("repo")),
    ];
    if terraform {
        all.push(must("terraform", &["show", "-no-color"], &here.join("infra")));
    }
    all
}

fn prepare(world: &World, postgres: &Postgres, terraform: bool) {
    let here = world.path();
    postgres.run("CREATE TABLE users (id int PRIMARY KEY, name text)");
    postgres.run("INSERT INTO users VALUES (1, 'ada'), (2, 'bob')");
    let url = format!("postgresql://shop@/shop?host={}", postgres.host());
    std::fs::write(here.join("orders.url"), url).unwrap();
    let tables = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text);
                  INSERT INTO notes VALUES (1, 'one'), (2, 'two')";
    must("sqlite3", &["notes.db", tables], here);
    std::fs::write(world.files().join("a.txt"), "one\n").unwrap();
    let repo = here.join("repo");
    std::fs::create_dir(&repo).unwrap();
    std::fs::write(repo.join("b.txt"), "one\n").unwrap();
    must("git", &["init", "-q", "-b", "main"], &repo);
    must("git", &["add", "."], &repo);
    let who = ["-c", "user.name=ada", "-c", "user.email=ada@x.test", "commit", "-qm", "first"];
    must("git", &who, &repo);
    std::fs::write(repo.join("b.txt"), "two\n").unwrap();
    let infra = here.join("infra");
    std::fs::create_dir(&infra).unwrap();
    if terraform {
        write_module(world, "one");
        must("terraform", &["init", "-input=false"], &infra);
    }
}

fn write_module(world: &World, value: &str) {
    let module = format!("resource \"terraform_data\" \"a\" {{\n  input = \"{value}\"\n}}\n");
    std::fs::write(world.path().join("infra/main.tf"), module).unwrap();
}

/// The plan, and the calls of its steps.
fn plan(world: &World, terraform: Option<&Value>) -> (Value, Vec<(&'static str, Value)>) {
    let file = world.files().canonicalize().unwrap().join("a.txt");
    let rows = json!({ "rows": 5 });
    let mut steps = vec![
        json!({ "id": "rename", "tool": "orders__sql_execute", "class": "write",
            "targets": ["pg://orders/**"], "budget": rows }),
        json!({ "id": "forget", "tool": "notes__sql_execute", "class": "destructive",
            "targets": ["sqlite://notes/**"], "budget": rows }),
        json!({ "id": "note", "tool": "files__write_file", "class": "destructive",
            "targets": [format!("file://{}", file.display())], "budget": { "files": 1 } }),
        json!({ "id": "save", "tool": "repo__git_commit", "class": "write", "recovery_point": true,
            "targets": ["git://repo"] }),
    ];
    let mut calls = vec![
        ("orders__sql_execute", json!({ "sql": "UPDATE users SET name = 'Ada' WHERE id = 1" })),
        ("notes__sql_execute", json!({ "sql": "DELETE FROM notes WHERE id = 2" })),
        ("files__write_file", json!({ "path": file, "content": "two\n" })),
        ("repo__git_commit", json!({ "message": "second", "paths": ["b.txt"] })),
    ];
    if let Some(plan) = terraform {
        steps.push(json!({ "id": "apply", "tool": "infra__terraform_apply",
            "class": "destructive", "targets": ["tf://infra"], "budget": { "resources": 5 } }));
        calls.push(("infra__terraform_apply", json!({ "plan": plan })));
    }
    (json!({ "purpose": "a release", "steps": steps }), calls)
}

/// The digest of a plan that the state of the module is to follow.
async fn terraform_plan(client: &Client) -> Value {
    let planned = client::call(client, "infra__terraform_plan", json!({})).await;
    assert!(!failed(&planned), "{}", client::text(&planned));
    told(&planned)["plan"].clone()
}

#[tokio::test]
async fn risky_work_goes_the_whole_way_and_back() {
    let terraform = Command::new("terraform").arg("version").output().is_ok();
    if !terraform {
        crate::world::left_out("a step of Terraform: there is no `terraform`");
    }
    for opens in Opens::ALL {
        let (world, postgres) = (World::new(CONFIG), Postgres::start());
        prepare(&world, &postgres, terraform);
        let key = world.key("coder");
        let serve = world.serve();
        let client = http(&serve, "", &key, opens).await;
        let digest = match terraform {
            true => Some(first_state(&world, &client).await),
            false => None,
        };
        let before = seen(&world, &postgres, terraform);
        let (wanted, calls) = plan(&world, digest.as_ref());

        // The checker remarks; nothing may be done yet that the plan would let happen.
        let careless = json!({ "purpose": "all", "steps": [{ "id": "x", "class": "write",
            "tool": "orders__sql_execute", "targets": ["pg://**"] }] });
        let refused = client::call(&client, "holdpoint_plan_propose", careless).await;
        assert!(failed(&refused), "{}", client::text(&refused));
        assert_eq!(told(&refused)["state"], "refused");
        let proposed = client::call(&client, "holdpoint_plan_propose", wanted).await;
        assert!(!failed(&proposed), "{}", client::text(&proposed));
        let id = told(&proposed)["plan"].as_str().unwrap().to_owned();
        world.must(&["plan", "accept", &id, "--because", "looks right"]);

        // Another step than the next one is none of the plan, once the process has seen the yes.
        let (tool, arguments) = calls[1].clone();
        let mut early = Vec::new();
        while early.first().map(String::as_str) != Some("plan_deviation") {
            assert!(early.is_empty() || early == ["agent_approve_writes", "permitted_by_policy"]);
            early = client::reasons(&client::call(&client, tool, arguments.clone()).await);
        }

        for (tool, arguments) in &calls {
            let asked = client::call(&client, tool, arguments.clone()).await;
            let approval = held(&asked);
            let shown = world.must(&["approvals", &approval]);
            assert!(shown.contains("would do"), "{shown}");
            world.must(&["approve", &approval, "--because", "as planned"]);
            let done = client::call(&client, tool, arguments.clone()).await;
            assert!(!failed(&done), "{tool}: {}", client::text(&done));
        }
        let after = seen(&world, &postgres, terraform);
        assert!(before.iter().zip(&after).all(|(before, after)| before != after), "{after:?}");
        let status = client::call(&client, "holdpoint_plan_status", json!({ "plan": id })).await;
        assert_eq!(told(&status)["plans"][0]["state"], "done", "{}", client::text(&status));

        let back = world.must(&["revert", "--plan", &id, "--because", "not today"]);
        assert_eq!(back.matches("restored").count(), calls.len(), "{back}");
        assert_eq!(seen(&world, &postgres, terraform), before);
        let again = world.must(&["revert", "--plan", &id, "--because", "once more"]);
        assert_eq!(again.matches("unchanged").count(), calls.len(), "{again}");
        client.cancel().await.unwrap();
        serve.end();
        world.must(&["verify"]);
        world.must(&["replay"]);
    }
}

/// Makes the first state, and gives the plan to the second.
async fn first_state(world: &World, client: &Client) -> Value {
    let arguments = json!({ "plan": terraform_plan(client).await });
    let asked = client::call(client, "infra__terraform_apply", arguments.clone()).await;
    world.must(&["approve", &held(&asked), "--because", "the first state"]);
    let done = client::call(client, "infra__terraform_apply", arguments).await;
    assert!(!failed(&done), "{}", client::text(&done));
    write_module(world, "two");
    terraform_plan(client).await
}
