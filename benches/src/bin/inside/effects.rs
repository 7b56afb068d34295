//! The time to say what one call of 2 KB would do, for each family of analysers. Must build its
//! calls from the corpus where a family's texts can be put together, so that they are no better
//! than what the analysers are held to.

use anyhow::{Context, bail};
use holdpoint_bench::Latencies;
use holdpoint_effects::{
    Body, Cluster, Database, Dialect, Effects, HttpRequest, Place, file_write, http, iam,
    kubernetes_manifest, shell, sql, terraform,
};
use holdpoint_types::Verb;
use serde_json::{Value, json};
use std::hint::black_box;
use std::time::Instant;

/// Length of a call, in bytes.
const CALL_BYTES: usize = 2048;
/// Different calls of a family, and how often each is judged.
const CALLS: usize = 64;
const TURNS: usize = 60;

const SHELL: &[&str] = &[
    include_str!("../../../../crates/holdpoint-effects/corpus/shell/programs.toml"),
    include_str!("../../../../crates/holdpoint-effects/corpus/shell/files.toml"),
    include_str!("../../../../crates/holdpoint-effects/corpus/shell/benign.toml"),
];
const SQL: &str = include_str!("../../../../crates/holdpoint-effects/corpus/sql/postgres.toml");
const KUBERNETES: &str =
    include_str!("../../../../crates/holdpoint-effects/corpus/kubernetes/cases.toml");

/// Judges 64 different calls of `family`, 60 times each.
pub(super) fn measure(family: &str) -> anyhow::Result<Value> {
    let calls: Vec<String> = match family {
        "shell" => joined(&texts(SHELL)?, "\n"),
        "workflow" => workflows(&texts(SHELL)?),
        "sql" => joined(&texts(&[SQL])?, ";\n"),
        "kubernetes" => joined(&texts(&[KUBERNETES])?, "\n---\n"),
        "http" => (0..CALLS).map(request).collect(),
        "terraform" => (0..CALLS).map(plan).collect(),
        "iam" => (0..CALLS).map(policy).collect(),
        _ => bail!("no family is called `{family}`"),
    };
    let place = Place {
        cwd: Some("/work/app".to_owned()),
        workspace: Some("/work/app".to_owned()),
        home: Some("/home/agent".to_owned()),
        ..Place::default()
    };
    // The tables are read when they are first asked for; that is the start's time, not a call's.
    calls.iter().for_each(|call| drop(black_box(judge(family, call, &place))));
    let mut latencies = Latencies::default();
    for call in calls.iter().cycle().take(CALLS * TURNS) {
        let begun = Instant::now();
        black_box(judge(family, black_box(call), &place));
        latencies.add(begun.elapsed());
    }
    let mut report = latencies.report();
    report["bytes"] = (calls.iter().map(String::len).sum::<usize>() / calls.len()).into();
    Ok(report)
}

fn judge(family: &str, call: &str, place: &Place) -> Effects {
    let mut effects = Effects::default();
    match family {
        "shell" => shell(call, place, &mut effects),
        "workflow" => file_write(".github/workflows/x.yml", call, place, &mut effects),
        "sql" => {
            let database = Database::new(Dialect::Postgres, "pg://shop/shop");
            sql(call, &database, &mut effects);
        }
        "kubernetes" => {
            let cluster = Cluster { address: "k8s://prod".into(), namespace: "default".into() };
            kubernetes_manifest(call, &cluster, Verb::Update, &mut effects);
        }
        "http" => {
            let request = HttpRequest {
                method: "POST".to_owned(),
                url: "https://api.example.com/v1/items?page=2".to_owned(),
                headers: vec![("content-type".to_owned(), "application/json".to_owned())],
                body: Body::Text(call.to_owned()),
                redirects: false,
            };
            http(&request, place, &mut effects);
        }
        "terraform" => terraform(call, "prod", &mut effects),
        _ => iam(None, call, "aws://prod/role/ci", &mut effects),
    }
    effects
}

/// The inputs of corpus files that are read to their end: an open quote would hide the rest.
fn texts(files: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for file in files {
        let corpus: toml::Table = file.parse()?;
        let cases = corpus.get("case").and_then(toml::Value::as_array).context("no cases")?;
        let inputs = cases.iter().filter_map(|case| case.get("input")?.as_str());
        let whole = |text: &&str| text.len() < CALL_BYTES / 2 && !text.contains("<<");
        found.extend(inputs.filter(whole).map(str::to_owned));
    }
    Ok(found)
}

/// Calls of about the length that is wanted, each beginning at another text.
fn joined(texts: &[String], by: &str) -> Vec<String> {
    let call = |number: usize| {
        let mut call = String::new();
        for text in texts.iter().cycle().skip(number * texts.len() / CALLS) {
            if call.len() + text.len() > CALL_BYTES {
                break;
            }
            call.push_str(text);
            call.push_str(by);
        }
        call
    };
    (0..CALLS).map(call).collect()
}

fn workflows(texts: &[String]) -> Vec<String> {
    let lines: Vec<String> = texts
        .iter()
        .filter(|text| !text.contains('\n'))
        .map(|text| format!("      - run: {}", Value::String(text.clone())))
        .collect();
    let steps = joined(&lines, "\n").into_iter();
    steps.map(|steps| format!("on: push\njobs:\n  a:\n    steps:\n{steps}")).collect()
}

fn request(number: usize) -> String {
    let item =
        |at: usize| json!({"name": format!("item {number}-{at}"), "price": at, "tags": ["a"]});
    filled(|count| json!({"items": (0..count).map(item).collect::<Vec<_>>()}))
}

fn plan(number: usize) -> String {
    let actions = [json!(["create"]), json!(["update"]), json!(["delete"]), json!(["no-op"])];
    let change = |at: usize| {
        let name = format!("n{number}_{at}");
        json!({
            "address": format!("aws_security_group.{name}"), "mode": "managed", "name": name,
            "type": "aws_security_group", "change": {
                "actions": actions.get((number + at) % 4), "after_unknown": {},
                "before": {"ingress": [{"from_port": 22, "cidr_blocks": ["10.0.0.0/8"]}]},
                "after": {"ingress": [{"from_port": 443, "cidr_blocks": ["0.0.0.0/0"]}]},
            },
        })
    };
    filled(|count| {
        json!({
            "format_version": "1.2", "terraform_version": "1.9.0", "planned_values": {},
            "resource_changes": (0..count).map(change).collect::<Vec<_>>(),
        })
    })
}

fn policy(number: usize) -> String {
    let statement = |at: usize| {
        json!({
            "Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "sqs:SendMessage"],
            "Resource": format!("arn:aws:s3:::bucket-{number}-{at}/*"),
        })
    };
    filled(|count| {
        let statements: Vec<Value> = (0..count).map(statement).collect();
        json!({"Version": "2012-10-17", "Statement": statements})
    })
}

/// The largest document of a kind that is not longer than a call.
fn filled(document: impl Fn(usize) -> Value) -> String {
    let texts = (1..).map(|count| document(count).to_string());
    texts.take_while(|text| text.len() <= CALL_BYTES).last().unwrap_or_default()
}
