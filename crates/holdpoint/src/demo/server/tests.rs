//! Tests of the demo's tool server: always through a real MCP client, never around it.

use super::{BearerToken, DemoServer, Kit, Stock, Web};
use crate::demo::endpoint::Endpoint;
use clap::ValueEnum as _;
use expect_test::expect;
use rmcp::ServiceExt;
use rmcp::model::{CallToolRequestParams, CallToolResult};
use rmcp::service::{RoleClient, RunningService};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const DESK: &str = "
    CREATE TABLE messages (id INTEGER PRIMARY KEY, sender TEXT, subject TEXT, label TEXT);
    INSERT INTO messages VALUES (1, 'a', 'one', ''), (2, 'b', 'two', ''), (3, 'c', 'three', '');
    CREATE TABLE issues (repository TEXT, number INTEGER, title TEXT, body TEXT);
    INSERT INTO issues VALUES ('r', 1, 'slow', 'It is slow.'), ('other', 1, 'x', 'y');
    CREATE TABLE files (repository TEXT, path TEXT, text TEXT);
    INSERT INTO files VALUES ('r', 'README', 'hello');
    CREATE TABLE pull_requests (id INTEGER PRIMARY KEY, repository TEXT, title TEXT, body TEXT);
    CREATE TABLE resources (address TEXT PRIMARY KEY, type TEXT);
    INSERT INTO resources VALUES ('a.one', 'a');
    CREATE TABLE tokens (token TEXT PRIMARY KEY);
    INSERT INTO tokens VALUES ('right');
    CREATE TABLE volumes (id TEXT PRIMARY KEY, environment TEXT);
    INSERT INTO volumes VALUES ('v1', 'staging');
    CREATE TABLE variables (environment TEXT, name TEXT, value TEXT, PRIMARY KEY (environment, name));
";

struct Bench {
    client: RunningService<RoleClient, ()>,
    folder: TempDir,
    endpoint: Endpoint,
}

// === impl Bench ===

impl Bench {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("shop.db");
        let seed = "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT); \
                    INSERT INTO people (name) VALUES ('Ada'), ('Grace');";
        let database = rusqlite::Connection::open(&file).unwrap();
        database.execute_batch(seed).unwrap();
        database.execute_batch(DESK).unwrap();
        std::fs::create_dir(folder.path().join("notes")).unwrap();
        let endpoint = Endpoint::start(file.clone()).await.unwrap();
        let token = Some(BearerToken("right".to_owned()));
        let stock = Stock {
            kits: Kit::value_variants().to_vec(),
            database: Some(file),
            workspace: folder.path().join("notes"),
            web: Web { endpoint: Some(endpoint.url().to_owned()), token },
        };
        let server = DemoServer::new(stock);
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            let running = server.serve(far).await.unwrap();
            running.waiting().await.unwrap();
        });
        let client = ().serve(near).await.unwrap();
        Self { client, folder, endpoint }
    }

    async fn call(&self, tool: &'static str, parameters: Value) -> String {
        let Value::Object(parameters) = parameters else { panic!("parameters are an object") };
        let call = CallToolRequestParams::new(tool).with_arguments(parameters);
        shown(&self.client.call_tool(call).await.unwrap())
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("shop.db")).unwrap()
    }
}

fn shown(result: &CallToolResult) -> String {
    let texts = result.content.iter().filter_map(|block| block.as_text());
    let text = texts.map(|text| text.text.as_str()).collect::<String>();
    if result.is_error == Some(true) { format!("ERROR {text}") } else { text }
}

#[tokio::test]
async fn every_tool_is_listed_with_a_closed_schema_and_honest_hints() {
    let bench = Bench::new().await;
    let tools = bench.client.list_all_tools().await.unwrap();
    let mut table = String::new();
    for tool in &tools {
        assert_eq!(tool.input_schema.get("additionalProperties"), Some(&json!(false)));
        let hints = tool.annotations.as_ref().unwrap();
        let flags = (hints.read_only_hint, hints.destructive_hint, hints.open_world_hint);
        let required = tool.input_schema.get("required").unwrap();
        table.push_str(&format!("{} {required} {flags:?}\n", tool.name));
    }
    expect![[r#"
        query ["sql"] (Some(true), None, Some(false))
        insert_rows ["table","rows"] (Some(false), Some(false), Some(false))
        execute_sql ["sql"] (Some(false), Some(true), Some(false))
        slow_report ["seconds"] (Some(true), None, Some(false))
        read_note ["name"] (Some(true), None, Some(false))
        write_note ["name","text"] (Some(false), Some(false), Some(false))
        run ["command"] (Some(false), Some(true), Some(false))
        write_file ["path","text"] (Some(false), Some(true), Some(false))
        move_file ["from","to"] (Some(false), Some(true), Some(false))
        delete_files ["paths"] (Some(false), Some(true), Some(false))
        http_request ["method","url","headers","body"] (Some(false), Some(true), Some(false))
        set_variable ["environment","name","value"] (Some(false), Some(false), Some(false))
        get_variable ["environment","name"] (Some(true), None, Some(false))
        terraform_state [] (Some(true), None, Some(false))
        terraform_apply ["plan"] (Some(false), Some(true), Some(false))
        list_messages [] (Some(true), None, Some(false))
        label_messages ["ids","label"] (Some(false), Some(false), Some(false))
        batch_delete ["ids"] (Some(false), Some(true), Some(false))
        list_issues ["repository"] (Some(true), None, Some(false))
        get_file ["repository","path"] (Some(true), None, Some(false))
        create_pull_request ["repository","title","body"] (Some(false), Some(false), Some(false))
    "#]]
    .assert_eq(&table);
}

#[tokio::test]
async fn a_query_reads_and_cannot_write() {
    let bench = Bench::new().await;
    let before = bench.bytes();
    let rows = bench.call("query", json!({ "sql": "SELECT id, name FROM people" })).await;
    expect![[r#"{"rows":[{"id":1,"name":"Ada"},{"id":2,"name":"Grace"}]}"#]].assert_eq(&rows);
    for sql in [
        "DELETE FROM people",
        "WITH x AS (SELECT 1) INSERT INTO people SELECT 9, 'x' FROM x",
        "SELECT 1; DROP TABLE people",
        "VACUUM",
    ] {
        let answer = bench.call("query", json!({ "sql": sql })).await;
        assert!(answer.starts_with("ERROR the database refuses: "), "{sql}: {answer}");
    }
    assert!(bench.bytes() == before, "a query changed the file");
}

#[tokio::test]
async fn rows_are_inserted_all_or_none() {
    let bench = Bench::new().await;
    let good =
        json!({ "table": "people", "rows": [{ "name": "A\"; DROP" }, { "id": 9, "name": null }] });
    expect!["inserted 2 rows into `people`"].assert_eq(&bench.call("insert_rows", good).await);
    let before = bench.bytes();
    let bad = json!({ "table": "people", "rows": [{ "name": "kept?" }, { "id": 9 }] });
    expect!["ERROR the database refuses: UNIQUE constraint failed: people.id"]
        .assert_eq(&bench.call("insert_rows", bad).await);
    let nested = json!({ "table": "people", "rows": [{ "name": ["x"] }] });
    expect!["ERROR a value is a text, a number, a truth value or null"]
        .assert_eq(&bench.call("insert_rows", nested).await);
    assert!(bench.bytes() == before, "a refused insert changed the file");
}

#[tokio::test]
async fn execute_sql_does_whatever_it_is_told() {
    let bench = Bench::new().await;
    let sql = "DELETE FROM people WHERE id = 1; DROP TABLE people";
    expect!["done, 1 rows changed"]
        .assert_eq(&bench.call("execute_sql", json!({ "sql": sql })).await);
    expect!["ERROR the database refuses: no such table: people"]
        .assert_eq(&bench.call("query", json!({ "sql": "SELECT * FROM people" })).await);
}

#[tokio::test]
async fn a_report_takes_its_time_and_no_more_than_that() {
    let bench = Bench::new().await;
    let start = Instant::now();
    let answer = bench.call("slow_report", json!({ "seconds": 1 })).await;
    assert!(answer.starts_with("report finished after 1 s"), "{answer}");
    assert!(start.elapsed() >= Duration::from_secs(1));
    expect!["ERROR `601` is not 1 to 600 seconds"]
        .assert_eq(&bench.call("slow_report", json!({ "seconds": 601 })).await);
}

#[tokio::test]
async fn notes_stay_in_their_folder_and_are_never_replaced() {
    let bench = Bench::new().await;
    let note = json!({ "name": "plan.md", "text": "look first" });
    expect!["wrote `plan.md`, 10 bytes"].assert_eq(&bench.call("write_note", note.clone()).await);
    expect!["look first"].assert_eq(&bench.call("read_note", json!({ "name": "plan.md" })).await);
    expect!["ERROR the folder refuses: File exists (os error 17)"]
        .assert_eq(&bench.call("write_note", note).await);
    for name in ["../shop.db", "a/b", "..", ".", "", "-x", "a\0b", "ä"] {
        let answer = bench.call("read_note", json!({ "name": name })).await;
        assert!(answer.starts_with("ERROR that is no name of a note"), "{name}: {answer}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_out_of_the_folder_is_no_note() {
    let bench = Bench::new().await;
    let link = bench.folder.path().join("notes/link");
    std::os::unix::fs::symlink(bench.folder.path().join("shop.db"), &link).unwrap();
    expect!["ERROR `link` is no note"]
        .assert_eq(&bench.call("read_note", json!({ "name": "link" })).await);
    let note = json!({ "name": "link", "text": "x" });
    expect!["ERROR the folder refuses: File exists (os error 17)"]
        .assert_eq(&bench.call("write_note", note).await);
}

#[tokio::test]
async fn parameters_that_do_not_fit_are_answered_in_words() {
    let bench = Bench::new().await;
    expect!["ERROR the parameters do not fit: missing field `sql`"]
        .assert_eq(&bench.call("query", json!({})).await);
    let extra = json!({ "sql": "SELECT 1", "database": "other" });
    expect!["ERROR the parameters do not fit: unknown field `database`, expected `sql`"]
        .assert_eq(&bench.call("query", extra).await);
    let unknown = CallToolRequestParams::new("drop_everything");
    let error = bench.client.call_tool(unknown).await.unwrap_err().to_string();
    assert!(error.contains("unknown tool: `drop_everything`"), "{error}");
}

#[tokio::test]
async fn the_shell_runs_what_it_is_told_in_its_folder() {
    let bench = Bench::new().await;
    let run = async |command: &str| bench.call("run", json!({ "command": command })).await;
    expect!["one\n"].assert_eq(&run("echo one | tee new && test -z \"$ENDPOINT_TOKEN\"").await);
    assert_eq!(std::fs::read_to_string(bench.folder.path().join("notes/new")).unwrap(), "one\n");
    expect!["ERROR exit status: 3: bad\n"].assert_eq(&run("echo bad >&2; exit 3").await);
    // What nobody would read is cut, and the command does not wait for a reader.
    assert_eq!(run("head -c 65536 /dev/zero | tr '\\0' x").await.len(), 65536);
    let endless = run("yes").await;
    assert!(endless.starts_with("ERROR signal: 13") && endless.len() < 70_000, "{}", endless.len());
}

#[tokio::test]
async fn files_are_moved_and_replaced_as_mv_would() {
    let bench = Bench::new().await;
    let folder = bench.folder.path().join("notes");
    for name in ["a", "b"] {
        bench.call("write_file", json!({ "path": name, "text": name })).await;
        bench.call("move_file", json!({ "from": name, "to": "../gone" })).await;
    }
    assert_eq!(std::fs::read_to_string(bench.folder.path().join("gone")).unwrap(), "b");
    std::fs::create_dir(folder.join("into")).unwrap();
    bench.call("move_file", json!({ "from": "../gone", "to": "into" })).await;
    assert!(folder.join("into/gone").is_file());
    expect!["deleted 1 files"]
        .assert_eq(&bench.call("delete_files", json!({ "paths": ["into/gone"] })).await);
    assert!(!folder.join("into/gone").exists());
}

#[tokio::test]
async fn mail_forge_and_cloud_do_what_they_are_told() {
    let bench = Bench::new().await;
    let rows = async |sql: &str| bench.call("query", json!({ "sql": sql })).await;
    bench.call("label_messages", json!({ "ids": [1], "label": "x" })).await;
    expect!["2 messages changed"]
        .assert_eq(&bench.call("batch_delete", json!({ "ids": [2, 3, 9] })).await);
    expect![[r#"{"rows":[{"id":1,"sender":"a","subject":"one","label":"x"}]}"#]]
        .assert_eq(&bench.call("list_messages", json!({})).await);
    expect![[r#"{"issues":[{"number":1,"title":"slow","body":"It is slow."}]}"#]]
        .assert_eq(&bench.call("list_issues", json!({ "repository": "r" })).await);
    expect!["hello"]
        .assert_eq(&bench.call("get_file", json!({ "repository": "r", "path": "README" })).await);
    let request = json!({ "repository": "r", "title": "t", "body": "b" });
    expect!["opened pull request 1 in r"]
        .assert_eq(&bench.call("create_pull_request", request).await);
    let change = |address: &str, action: &str| {
        let change = json!({ "actions": [action] });
        json!({ "address": address, "type": "a", "change": change })
    };
    let changes = [change("a.two", "create"), change("a.one", "delete")];
    let plan = json!({ "resource_changes": changes }).to_string();
    expect!["1 added, 1 destroyed"]
        .assert_eq(&bench.call("terraform_apply", json!({ "plan": plan })).await);
    // Applied a second time it fails as a whole.
    let again = bench.call("terraform_apply", json!({ "plan": plan })).await;
    assert!(again.starts_with("ERROR the database refuses"), "{again}");
    expect![[r#"{"rows":[{"address":"a.two","type":"a"}]}"#]]
        .assert_eq(&bench.call("terraform_state", json!({})).await);
    expect![[r#"{"rows":[{"address":"a.two"}]}"#]]
        .assert_eq(&rows("SELECT address FROM resources").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoint_obeys_whoever_has_a_token_and_nobody_else() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let bench = Bench::new().await;
    let url = format!("{}/graphql", bench.endpoint.url());
    let asked = async |token: &str, query: &str| {
        let headers = json!({
            "authorization": format!("Bearer {token}"), "content-type": "application/json",
        });
        let body = json!({ "query": query }).to_string();
        let call = json!({ "method": "POST", "url": url, "headers": headers, "body": body });
        bench.call("http_request", call).await
    };
    let delete = "mutation { volumeDelete(volumeId: \"v1\") }";
    let refused = asked("wrong", delete).await;
    assert!(refused.starts_with("ERROR 401"), "{refused}");
    expect![[r#"{"data":{"volumes":[{"id":"v1","environment":"staging"}]}}"#]]
        .assert_eq(&asked("right", "{ volumes { id environment } }").await);
    expect![[r#"{"data":{"volumeDelete":true}}"#]].assert_eq(&asked("right", delete).await);
    expect![[r#"{"data":{"volumes":[]}}"#]].assert_eq(&asked("right", "{ volumes { id } }").await);
    let nothing = asked("right", "{ secrets }").await;
    assert!(nothing.starts_with("ERROR 400") && nothing.contains("no `secrets`"), "{nothing}");
    let variable = json!({ "environment": "staging", "name": "A\"B", "value": "c\nd" });
    expect![[r#"{"data":{"variableUpsert":true}}"#]]
        .assert_eq(&bench.call("set_variable", variable).await);
    let named = |name: &str| json!({ "environment": "staging", "name": name });
    expect![[r#"{"value":"c\nd"}"#]].assert_eq(&bench.call("get_variable", named("A\"B")).await);
    expect![[r#"{"value":null}"#]].assert_eq(&bench.call("get_variable", named("B")).await);
    expect![[r#"{"rows":[{"environment":"staging","name":"A\"B","value":"c\nd"}]}"#]]
        .assert_eq(&bench.call("query", json!({ "sql": "SELECT * FROM variables" })).await);
}
