//! Real clients of every family, through every door, to real servers, in both eras.
//!
//! A client takes a job: where to go, and the steps. It gives back what each step gave. What is
//! expected stands once for each server and holds for every client.

use crate::client::{Opens, rmcp_client};
use crate::world::{Serve, World, npm_client, npm_server, python, text};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How many clients run at the same time. server-everything offers some tools only to clients that
/// can answer its questions, and the gateway knows one list of tools for each server: beside a client
/// that cannot, a tool may be unknown for a moment.
const AT_ONCE: usize = 1;
/// How long one client may take.
const PATIENCE: Duration = Duration::from_secs(60);

const CONFIG: &str = r#"
[listen]
http = "127.0.0.1:0"

[team.platform]
on_call = "platform on-call"

[policies]
path = "policies"

[server.fs]
command = ["node", "${npm:filesystem}", "${files}"]
environment = "dev"
read = ["read_*", "list_*"]

[server.memory]
command = ["node", "${npm:memory}"]
env = { MEMORY_FILE_PATH = "${files}/memory.jsonl" }
environment = "dev"
read = ["read_*", "search_*"]

[server.everything]
command = ["node", "${npm:everything}"]
environment = "dev"
read = ["echo", "trigger-*"]
"#;

/// An agent for every client and door, as users have it: what a legacy server asks, it asks of an
/// agent, and two clients of one agent may get each other's questions.
const AGENT: &str = r#"
[agent.${name}]
owner = "platform"
grants = [
  { class = "read", tools = ["*"] },
  { class = "destructive", tools = [
    "fs__write_file", "memory__delete_entities", "everything__get-env", "fastmcp__wipe",
  ] },
  # What these tools say of themselves makes them writes.
  { class = "write", tools = ["everything__trigger-*"] },
]
"#;

const FASTMCP: &str = r#"
[server.fastmcp]
command = ["${python}", "${tests-py}/server.py"]
environment = "dev"
read = ["add", "count", "ask"]
"#;

const STARTER: &str = include_str!("../../../../policies/starter.cedar");

/// Every agent sees these tools, and nobody may call them.
const FORBIDDEN: &str = r#"
@id("shown-and-forbidden")
@reason("This tool is there to be refused.")
forbid (principal, action, resource)
when {
  [Tool::"fs__write_file", Tool::"memory__delete_entities", Tool::"everything__get-env",
   Tool::"fastmcp__wipe"].contains(context.tool)
};
"#;

/// A client program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Rmcp,
    /// The TypeScript SDK of this major version.
    TypeScript(u8),
    Python,
    /// The CLI of the MCP Inspector.
    Inspector,
}

/// A way to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Wrap,
    /// `/mcp/NAME`.
    Named,
    /// `/mcp`, with the tools of all servers.
    Shared,
}

/// What a step has to give.
enum Wants {
    /// A list with this in it, and without that.
    Names(String, &'static str),
    /// A text with this in it.
    Text(String),
    /// As before, and the server's progress on the way.
    Progress(&'static str),
    /// As before, and that the server asked the client this.
    Asked(&'static str, &'static str),
    /// A refusal with this reason.
    Refused(&'static str),
}

/// One client at one door.
struct Cell {
    client: Client,
    era: Opens,
    door: Door,
    servers: Vec<&'static str>,
}

// === impl Client ===

impl Client {
    const ALL: [(Self, Opens); 8] = [
        (Self::Rmcp, Opens::Legacy),
        (Self::Rmcp, Opens::Modern),
        (Self::TypeScript(1), Opens::Legacy),
        (Self::TypeScript(2), Opens::Legacy),
        (Self::TypeScript(2), Opens::Modern),
        (Self::Python, Opens::Legacy),
        (Self::Python, Opens::Modern),
        (Self::Inspector, Opens::Legacy),
    ];

    /// The program and its first argument.
    fn program(self) -> [String; 2] {
        let at = |path: std::path::PathBuf| path.display().to_string();
        match self {
            Self::Rmcp => panic!("rmcp is no program"),
            Self::TypeScript(_) => ["node".to_owned(), at(npm_client("client.mjs"))],
            Self::Inspector => ["node".to_owned(), at(npm_client("inspector.mjs"))],
            Self::Python => {
                let python = python().expect("cells without Python are left out");
                [at(python.program), at(python.tests.join("client.py"))]
            }
        }
    }

    /// The Inspector opens a connection for every step, shows no progress and answers nothing.
    fn can(self, step: &Value, wants: &Wants) -> bool {
        let plain = !matches!(wants, Wants::Progress(_) | Wants::Asked(..));
        self != Self::Inspector || (plain && (step["do"] == "tools" || step["do"] == "call"))
    }
}

// === impl Wants ===

impl Wants {
    /// What is wrong with the answer, if anything is.
    fn fault(&self, answer: &Value, asked: &Value) -> Option<String> {
        let said = answer["text"].as_str().or(answer.as_str()).unwrap_or_default();
        let went = answer.get("failed").is_none_or(|failed| failed == false);
        let good = match self {
            Self::Names(has, lacks) => answer.as_array().is_some_and(|names| {
                names.contains(&json!(has)) && !names.iter().any(|name| name == lacks)
            }),
            Self::Text(part) => went && said.contains(part),
            Self::Progress(part) => {
                went && said.contains(part) && answer["progress"].as_u64() > Some(0)
            }
            Self::Asked(method, part) => {
                let asked = asked.as_array().is_some_and(|asked| asked.contains(&json!(method)));
                went && said.contains(part) && asked
            }
            Self::Refused(reason) => {
                let reasons = answer["reasons"].as_array();
                answer["failed"] == true
                    && said.contains(reason)
                    && reasons.is_some_and(|reasons| reasons.contains(&json!(reason)))
            }
        };
        (!good).then(|| format!("gave {answer}"))
    }
}

// === impl Cell ===

impl Cell {
    /// The steps, with what each has to give.
    fn steps(&self, world: &World) -> Vec<(Value, Wants)> {
        let mut all = Vec::new();
        for server in &self.servers {
            let prefix = match self.door {
                Door::Wrap | Door::Named => String::new(),
                Door::Shared => format!("{server}__"),
            };
            all.extend(steps(server, &prefix, world));
            // FastMCP does not ask modern clients.
            if matches!(self.era, Opens::Legacy) || *server != "fastmcp" {
                all.extend(questions(server, &prefix));
            }
        }
        all.retain(|(step, wants)| self.client.can(step, wants));
        all
    }

    /// The name of its agent.
    fn agent(&self) -> String {
        let name = format!("{:?}-{:?}-{:?}", self.client, self.era, self.door).to_lowercase();
        name.replace(['(', ')'], "")
    }

    /// Where the client goes.
    fn job(&self, world: &World, serve: &Serve, key: &str) -> Value {
        let below = match self.door {
            Door::Wrap => {
                let command = wrapped(world, &self.agent(), self.servers[0]);
                return json!({ "command": command });
            }
            Door::Named => format!("/{}", self.servers[0]),
            Door::Shared => String::new(),
        };
        json!({ "url": format!("{}{below}", serve.url), "key": key })
    }

    fn name(&self) -> String {
        format!("{:?} {:?} {:?} {}", self.client, self.era, self.door, self.servers.join("+"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_works_through_every_door() {
    let mut servers = vec!["fs", "memory", "everything"];
    let mut config = CONFIG.to_owned();
    if python().is_some() {
        servers.push("fastmcp");
        config.push_str(FASTMCP);
    }
    let cells = cells(&servers);
    let agents: BTreeSet<_> = cells.iter().map(Cell::agent).collect();
    config.extend(agents.iter().map(|name| AGENT.replace("${name}", name)));
    let world = World::new(&config);
    std::fs::write(world.files().join("a.txt"), "hello").unwrap();
    let policies = world.path().join("policies");
    std::fs::create_dir(&policies).unwrap();
    for (file, text) in [("starter.cedar", STARTER), ("forbidden.cedar", FORBIDDEN)] {
        std::fs::write(policies.join(file), text).unwrap();
    }
    let keys: BTreeMap<_, _> =
        agents.into_iter().map(|name| (name.clone(), world.key(&name))).collect();
    let serve = world.serve();

    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    let mut refusals = 0;
    for cell in cells {
        let steps = cell.steps(&world);
        refusals += steps.iter().filter(|(_, wants)| matches!(wants, Wants::Refused(_))).count();
        let mut job = cell.job(&world, &serve, &keys[&cell.agent()]);
        job["steps"] = steps.iter().map(|(step, _)| step.clone()).collect();
        job["cwd"] = json!(world.path());
        let turns = Arc::clone(&turns);
        running.spawn(async move {
            let _turn = turns.acquire_owned().await.unwrap();
            let told = tokio::time::timeout(PATIENCE, run(cell.client, cell.era, job)).await;
            faults(&cell, &steps, told.unwrap_or_else(|_| Err("did not end".to_owned())))
        });
    }
    let mut found = Vec::new();
    while let Some(faults) = running.join_next().await {
        found.extend(faults.unwrap());
    }
    assert!(found.is_empty(), "{}", found.join("\n"));

    // Every client ended its wrap, and nobody was refused but those that had to be.
    crate::world::until("all wraps end", || world.processes("wrap").is_empty().then_some(()));
    serve.end();
    world.must(&["verify"]);
    let denied = world.json(&["log", "--decision", "deny", "--limit", "100000"]);
    assert_eq!(denied["records"].as_array().unwrap().len(), refusals);
}

/// Every client at every door, to every server.
fn cells(servers: &[&'static str]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (client, era) in Client::ALL {
        if client == Client::Python && python().is_none() {
            continue;
        }
        for door in [Door::Wrap, Door::Named, Door::Shared] {
            let cell =
                |servers: &[&'static str]| Cell { client, era, door, servers: servers.to_vec() };
            match door {
                Door::Shared => cells.push(cell(servers)),
                Door::Wrap | Door::Named => {
                    cells.extend(servers.iter().map(|server| cell(&[server])));
                }
            }
        }
    }
    cells
}

/// What every client asks of a server; names begin with `prefix`.
fn steps(server: &str, prefix: &str, world: &World) -> Vec<(Value, Wants)> {
    let tools = |has: &str, lacks| {
        (json!({ "do": "tools" }), Wants::Names(format!("{prefix}{has}"), lacks))
    };
    let call = |name: &str, arguments: Value, wants| {
        let name = format!("{prefix}{name}");
        let progress = matches!(wants, Wants::Progress(_));
        (json!({ "do": "call", "name": name, "arguments": arguments, "progress": progress }), wants)
    };
    let holds = |part: &str| Wants::Text(part.to_owned());
    let refused = || Wants::Refused("policy_forbids");
    let prompt = |name: &str, arguments: Value, part: &str| {
        let name = format!("{prefix}{name}");
        (json!({ "do": "prompt", "name": name, "arguments": arguments }), holds(part))
    };
    let prompts =
        |has: &str| (json!({ "do": "prompts" }), Wants::Names(format!("{prefix}{has}"), "nothing"));
    let resource = |uri: &str, part: &str| {
        let list = (json!({ "do": "resources" }), Wants::Names(uri.to_owned(), "nothing"));
        [list, (json!({ "do": "read", "uri": uri }), holds(part))]
    };
    let file = world.files().join("a.txt");
    match server {
        "fs" => vec![
            tools("read_text_file", "move_file"),
            call("read_text_file", json!({ "path": file }), holds("hello")),
            call("write_file", json!({ "path": file, "content": "x" }), refused()),
        ],
        "memory" => vec![
            tools("read_graph", "create_entities"),
            call("read_graph", json!({}), holds("entities")),
            call("delete_entities", json!({ "entityNames": ["n"] }), refused()),
        ],
        "everything" => {
            let long = json!({ "duration": 0.2, "steps": 2 });
            let mut all = vec![
                tools("echo", "get-sum"),
                call("echo", json!({ "message": "hi" }), holds("Echo: hi")),
                call("get-env", json!({}), refused()),
                call("trigger-long-running-operation", long, Wants::Progress("completed")),
                prompts("simple-prompt"),
                prompt("args-prompt", json!({ "city": "Oslo" }), "Oslo"),
            ];
            all.extend(resource("demo://resource/static/document/features.md", "Features"));
            all
        }
        _ => {
            let mut all = vec![
                tools("add", "nothing"),
                call("add", json!({ "a": 2, "b": 3 }), holds("5")),
                call("wipe", json!({}), refused()),
                call("count", json!({}), Wants::Progress("counted")),
                prompts("greet"),
                prompt("greet", json!({ "name": "Ada" }), "hello to Ada"),
            ];
            all.extend(resource("note://today", "Feed the cat."));
            all
        }
    }
}

/// What a server asks back.
fn questions(server: &str, prefix: &str) -> Vec<(Value, Wants)> {
    let call = |name: &str, arguments: Value, wants| {
        let name = format!("{prefix}{name}");
        (json!({ "do": "call", "name": name, "arguments": arguments }), wants)
    };
    let sampling = json!({ "prompt": "Say something", "maxTokens": 10 });
    let elicited = || Wants::Asked("elicitation/create", "Ada");
    match server {
        "everything" => vec![
            call("trigger-elicitation-request", json!({}), elicited()),
            call(
                "trigger-sampling-request",
                sampling,
                Wants::Asked("sampling/createMessage", "sampled"),
            ),
        ],
        "fastmcp" => vec![call("ask", json!({}), elicited())],
        _ => Vec::new(),
    }
}

/// The command of a `wrap` around a server.
fn wrapped(world: &World, agent: &str, server: &str) -> Vec<String> {
    let config = world.path().join("holdpoint.toml");
    let config = config.to_str().unwrap();
    let holdpoint = env!("CARGO_BIN_EXE_holdpoint");
    let own = [holdpoint, "--config", config, "wrap", "--agent", agent, "--server", server, "--"];
    own.into_iter().map(str::to_owned).chain(alone(world, server)).collect()
}

/// The command of a server.
fn alone(world: &World, server: &str) -> Vec<String> {
    let program = |name| npm_server(name).display().to_string();
    let files = world.files().display().to_string();
    match server {
        "fs" => vec!["node".to_owned(), program("filesystem"), files],
        "memory" => {
            let file = format!("MEMORY_FILE_PATH={files}/memory.jsonl");
            vec!["env".to_owned(), file, "node".to_owned(), program("memory")]
        }
        "everything" => vec!["node".to_owned(), program("everything")],
        _ => {
            let python = python().unwrap();
            let server = python.tests.join("server.py");
            vec![python.program.display().to_string(), server.display().to_string()]
        }
    }
}

/// What clients of every family and real servers say to each other where nothing is between them:
/// the lines of the clients, and those of the servers.
pub async fn recorded(world: &World) -> [BTreeSet<String>; 2] {
    // Two copies of what goes in and out; the server has the process that the client ends.
    const RECORDER: &str = r#"exec "${@:2}" < <(tee "$1.agent") > >(tee "$1.server")"#;
    std::fs::write(world.files().join("a.txt"), "hello").unwrap();
    let mut lines = [BTreeSet::new(), BTreeSet::new()];
    for (number, (client, era)) in Client::ALL.into_iter().enumerate() {
        let server = match client {
            Client::Python if python().is_none() => continue,
            Client::Python => "fastmcp",
            Client::TypeScript(1) => "fs",
            _ => "everything",
        };
        if matches!(era, Opens::Modern) {
            continue;
        }
        let place = world.path().join(format!("recorded-{number}")).display().to_string();
        let cell = Cell { client, era, door: Door::Wrap, servers: vec![server] };
        let steps: Vec<_> = cell.steps(world).into_iter().map(|(step, _)| step).collect();
        let mut command = ["bash", "-c", RECORDER, "bash", &place].map(str::to_owned).to_vec();
        command.extend(alone(world, server));
        let job = json!({ "command": command, "steps": steps, "cwd": world.path() });
        tokio::time::timeout(PATIENCE, run(client, era, job)).await.unwrap().unwrap();
        for (side, end) in ["agent", "server"].into_iter().enumerate() {
            let said = std::fs::read_to_string(format!("{place}.{end}")).unwrap();
            lines[side].extend(said.lines().map(str::to_owned));
        }
    }
    lines
}

/// Runs a client; gives what it told.
async fn run(client: Client, era: Opens, mut job: Value) -> Result<Value, String> {
    if client == Client::Rmcp {
        return rmcp_client::run(&job, era).await;
    }
    job["era"] = json!(format!("{era:?}").to_lowercase());
    if let Client::TypeScript(version) = client {
        job["sdk"] = json!(version);
    }
    let [program, script] = client.program();
    let mut command = tokio::process::Command::new(program);
    command.arg(script).arg(job.to_string()).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|fault| fault.to_string())?;
    let told = serde_json::from_slice(&output.stdout);
    match told {
        Ok(told) if output.status.success() => Ok(told),
        _ => {
            let (out, err) = (text(&output.stdout), text(&output.stderr));
            Err(format!("ended with {}: {out} {err}", output.status))
        }
    }
}

/// What is wrong with what a client told.
fn faults(cell: &Cell, steps: &[(Value, Wants)], told: Result<Value, String>) -> Vec<String> {
    let name = cell.name();
    let told = match told {
        Ok(told) => told,
        Err(why) => return vec![format!("{name}: {why}")],
    };
    let answers = told["answers"].as_array().cloned().unwrap_or_default();
    if answers.len() != steps.len() {
        return vec![format!("{name}: {} steps, {} answers", steps.len(), answers.len())];
    }
    let pairs = steps.iter().zip(&answers);
    let faults = pairs.filter_map(|((step, wants), answer)| {
        wants.fault(answer, &told["asked"]).map(|why| format!("{name}: {step} {why}"))
    });
    faults.collect()
}
