//! What is too long, too deep or too much is never taken for harmless. Must exceed every limit
//! that can be exceeded by a call alone.

use holdpoint_effects::{
    Body, Cluster, Database, Dialect, EFFECTS_MAX, Effects, HttpRequest, HttpRules, NoteCode,
    OPENAPI_BYTES_MAX, Place, TEXT_BYTES_MAX, file_write, graphql, http, iam, kubernetes_manifest,
    openapi, shell, sql, terraform,
};
use holdpoint_types::{EffectClass, Verb};
use serde_json::{Value, json};

fn place() -> Place {
    Place { cwd: Some("/work/app".to_owned()), ..Place::default() }
}

fn of(judge: impl FnOnce(&mut Effects)) -> Effects {
    let mut effects = Effects::default();
    judge(&mut effects);
    effects
}

fn refused(what: &str, judge: impl FnOnce(&mut Effects)) {
    let effects = of(judge);
    assert!(effects.is_opaque(), "{what}: {effects:?}");
    assert_eq!(effects.class(), Some(EffectClass::Destructive), "{what}");
}

fn postgres() -> Database {
    Database::new(Dialect::Postgres, "pg://shop/shop")
}

#[test]
fn texts_have_a_length() {
    let long = "a".repeat(TEXT_BYTES_MAX + 1);
    let cluster = Cluster { address: "k8s://c".to_owned(), namespace: "n".to_owned() };
    refused("shell", |effects| shell(&long, &place(), effects));
    refused("sql", |effects| sql(&format!("-- {long}\nSELECT 1"), &postgres(), effects));
    refused("iam", |effects| iam(None, &long, "x://y", effects));
    refused("kubernetes", |effects| kubernetes_manifest(&long, &cluster, Verb::Update, effects));
    refused("graphql", |effects| {
        graphql(&format!("{{a}} #{long}"), "https://x", &HttpRules::default(), effects);
    });
    refused("url", |effects| {
        let request = HttpRequest { url: format!("https://x/{long}"), ..HttpRequest::default() };
        http(&request, &place(), effects);
    });
    refused("body", |effects| {
        let (url, body) = ("https://x/".to_owned(), Body::Text(long.clone()));
        http(&HttpRequest { url, body, ..HttpRequest::default() }, &place(), effects);
    });
    let plan = json!({"format_version": "1.2", "terraform_version": "1.9.0",
        "resource_changes": [], "planned_values": {}, "x": "a".repeat(4 << 20)});
    refused("plan", |effects| terraform(&plan.to_string(), "s", effects));
}

#[test]
fn statements_and_operations_have_a_number() {
    let statements = "SELECT 1;".repeat(513);
    refused("statements", |effects| sql(&statements, &postgres(), effects));
    let joins = format!("SELECT 1 FROM a{}", " JOIN a ON a.b = a.c".repeat(61));
    refused("joins", |effects| sql(&joins, &postgres(), effects));
    let chain = format!("SELECT 1{}", " + 1".repeat(1501));
    refused("chain", |effects| sql(&chain, &postgres(), effects));
    let batch = Value::Array(vec![json!({"query": "{a}"}); 65]).to_string();
    let rules = HttpRules::default();
    refused("batch", |effects| graphql(&batch, "https://x", &rules, effects));
    let commands = "true;".repeat(4097);
    refused("commands", |effects| shell(&commands, &place(), effects));
    let statement = json!({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"});
    let many: Vec<Value> = (0..2049)
        .map(|number| {
            let mut statement = statement.clone();
            statement["Resource"] = format!("arn:aws:s3:::a/{number}").into();
            statement
        })
        .collect();
    let policy = json!({"Version": "2012-10-17", "Statement": many}).to_string();
    refused("rules", |effects| iam(None, &policy, "x://y", effects));
}

#[test]
fn nesting_has_a_depth() {
    let deep = |open: &str, close: &str, times: usize, inner: &str| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    let cluster = Cluster { address: "k8s://c".to_owned(), namespace: "n".to_owned() };
    refused("brackets of SQL", |effects| {
        sql(&format!("SELECT {}", deep("(", ")", 41, "1")), &postgres(), effects);
    });
    refused("queries in SQL", |effects| {
        sql(&format!("SELECT {}", deep("NOT ", "", 49, "a")), &postgres(), effects);
    });
    let views = |count: usize| {
        let mut database = postgres();
        let name = |at: usize| format!("public.v{at}");
        database.views = (0..count).map(|at| (name(at), vec![name(at + 1)])).collect();
        database
    };
    let read = of(|effects| sql("SELECT * FROM v0", &views(8), effects));
    assert!(!read.is_opaque(), "{read:?}");
    refused("views", |effects| sql("SELECT * FROM v0", &views(9), effects));
    let policy = json!({"Statement": [{"Effect": "Allow", "Action": "a:B", "Resource": "c"}]});
    let policy = policy.to_string().replace("\"c\"", &deep("[", "]", 33, "\"c\""));
    refused("policy", |effects| iam(None, &policy, "x://y", effects));
    let plan = r#"{"format_version":"1","terraform_version":"1","resource_changes":[],"x":"#;
    let plan = format!("{plan}{}}}", deep("[", "]", 65, ""));
    refused("plan", |effects| terraform(&plan, "s", effects));
    let object = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"a"}},"data":{}}}"#,
        deep("[", "]", 41, "")
    );
    refused("manifest", |effects| kubernetes_manifest(&object, &cluster, Verb::Update, effects));
    let nodes = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: [{}]\n",
        "1,".repeat(50_001)
    );
    refused("nodes", |effects| kubernetes_manifest(&nodes, &cluster, Verb::Update, effects));
    let workflow = format!("a: {}", deep("[", "]", 26, "x"));
    refused("pipeline", |effects| {
        file_write(".github/workflows/a.yml", &workflow, &place(), effects);
    });
    let chain: String =
        (0..9).map(|at| format!("fragment f{at} on M {{ ...f{} }} ", at + 1)).collect();
    let mutation = format!("mutation {{ ...f0 }} {chain} fragment f9 on M {{ ok }}");
    let mut rules = HttpRules::default();
    rules.mutations.insert("ok".to_owned(), EffectClass::Write);
    refused("fragments", |effects| graphql(&mutation, "https://x", &rules, effects));
    refused("functions", |effects| shell("f() { f; }; f", &place(), effects));
}

/// What is not told apart is still there.
#[test]
fn what_is_not_told_apart_is_not_lost() {
    let more = |text: &str| of(|effects| shell(text, &place(), effects));
    let services = (0..20).map(|at| format!(" s{at}")).collect::<String>();
    let stopped = more(&format!("systemctl stop{services}"));
    assert!(stopped.iter().any(|effect| effect.resource == "service://localhost/*"));
    let pods = (0..20).map(|at| format!(" p{at}")).collect::<String>();
    let deleted = more(&format!("kubectl delete pod{pods}"));
    assert!(deleted.iter().any(|effect| effect.resource.ends_with("/default/*")), "{deleted:?}");
    let runs = more(&format!("echo{pods} | xargs -n1 rm"));
    assert!(runs.is_opaque());
    let braces = more("rm {1..100}");
    assert!(braces.is_opaque());
    let evidence = more(&format!("rm {}", "a".repeat(1000)));
    assert!(evidence.iter().all(|effect| effect.evidence.chars().count() <= 161));
    let files = (0..=EFFECTS_MAX).map(|at| format!(" f{at}")).collect::<String>();
    assert!(more(&format!("cat{files}")).is_opaque());
}

#[test]
fn addresses_behind_many_others_are_not_lost() {
    let mut values = vec!["http://a/".to_owned(); 512];
    values.push("http://169.254.169.254/".to_owned());
    let bodies = [
        json!(values).to_string(),
        values.iter().map(|value| format!("a={value}&")).collect::<String>(),
    ];
    for body in bodies {
        let request = HttpRequest {
            method: "POST".to_owned(),
            url: "https://api.example.com/v1/items".to_owned(),
            body: Body::Text(body),
            ..HttpRequest::default()
        };
        refused("addresses", |effects| http(&request, &place(), effects));
    }
}

/// Rules that are compared by patterns beyond the limit count as new.
#[test]
fn long_patterns_are_not_compared() {
    let policy = |resource: &str| {
        json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": "s3:GetObject", "Resource": resource}]})
        .to_string()
    };
    let (before, after) =
        (policy("arn:aws:s3:::a*"), policy(&format!("arn:aws:s3:::{}", "a".repeat(2048))));
    let effects = of(|effects| iam(Some(&before), &after, "x://y", effects));
    assert!(effects.notes().any(|note| note.code == NoteCode::PrivilegeWidened));
}

#[test]
fn plans_of_many_values_are_refused() {
    let plan = json!({"format_version": "1.2", "terraform_version": "1.9.0", "planned_values": {},
        "resource_changes": [{"address": "a.b", "mode": "managed", "type": "a", "name": "b",
            "change": {"actions": ["update"], "before": {"a": 1}, "after": {"a": vec![1; 20_001]},
            "after_unknown": {}}}]});
    refused("values", |effects| terraform(&plan.to_string(), "s", effects));
}

#[test]
fn an_api_has_a_number_of_operations() {
    let document = |count: usize| {
        let paths: serde_json::Map<String, Value> =
            (0..count).map(|at| (format!("/{at:05}"), json!({"get": {}}))).collect();
        let servers = json!([{"url": "https://api.example.com"}]);
        json!({"openapi": "3.1.0", "servers": servers, "paths": paths}).to_string()
    };
    assert_eq!(openapi(&document(4096), &[]).unwrap().len(), 4096);
    let faults = openapi(&document(4097), &[]).unwrap_err();
    assert_eq!(faults[0].message, "more than 4096 operations");
    let long = " ".repeat(OPENAPI_BYTES_MAX + 1);
    assert!(openapi(&long, &[]).unwrap_err()[0].message.contains("longer"));
}
