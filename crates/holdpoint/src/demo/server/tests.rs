//! Tests of the demo's tool server: always through a real MCP client, never around it.

use super::DemoServer;
use expect_test::expect;
use rmcp::ServiceExt;
use rmcp::model::{CallToolRequestParams, CallToolResult};
use rmcp::service::{RoleClient, RunningService};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct Bench {
    client: RunningService<RoleClient, ()>,
    folder: TempDir,
}

// === impl Bench ===

impl Bench {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("shop.db");
        let seed = "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT); \
                    INSERT INTO people (name) VALUES ('Ada'), ('Grace');";
        rusqlite::Connection::open(&file).unwrap().execute_batch(seed).unwrap();
        std::fs::create_dir(folder.path().join("notes")).unwrap();
        let server = DemoServer::new(file, folder.path().join("notes"));
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            let running = server.serve(far).await.unwrap();
            running.waiting().await.unwrap();
        });
        let client = ().serve(near).await.unwrap();
        Self { client, folder }
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
