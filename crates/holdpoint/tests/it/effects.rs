//! Calls are judged by what they would do: real programs behind one server, and the same deletion
//! by every way to it.

use crate::postgres::Postgres;
use crate::raw::{Pipe, reason};
use crate::world::{World, left_out, text};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

pub const CONFIG: &str = r#"
[team.platform]
on_call = "platform on-call"

# May look and change, but destroy nothing.
[agent.coder]
owner = "platform"
grants = [{ class = "read", tools = ["box__*"] }, { class = "write", tools = ["box__*"] }]

# May destroy, too.
[agent.janitor]
owner = "platform"
grants = [
  { class = "read", tools = ["box__*"] },
  { class = "write", tools = ["box__*"] },
  { class = "destructive", tools = [
    "box__run", "box__sqlite", "box__postgres", "box__http", "box__git", "box__terraform_apply",
    "box__delete_files", "box__write_file",
  ] },
]

[[environment]]
name = "dev"
resources = ["http://127.0.0.1:*/**", "sqlite://**", "pg://**", "git://**", "file://${files}/**"]

[server.box]
command = ["node", "${tools}"]
cwd = "files"
environment = "dev"
place = { workspace = "${files}", home = "${files}", protected_branches = ["main"] }

[server.box.tool]
run.effects = [{ family = "shell", text = "/command" }]
git.effects = [{ family = "shell", text = "git {/args}" }]
sqlite.effects = [{ family = "sql", text = "/sql", dialect = "sqlite", address = "sqlite://shop" }]
postgres.effects = [
  { family = "sql", text = "/sql", dialect = "postgres", address = "pg://shop/shop" },
]
http.effects = [{ family = "http", url = "/url", method = "/method", body = "/body" }]
write_file.effects = [{ family = "file", act = "write", path = "/path", contents = "/content" }]
edit_file.effects = [{ family = "file", act = "edit", path = "/path", contents = "/edits" }]
apply_patch.effects = [{ family = "patch", text = "/patch" }]
delete_files.effects = [{ family = "file", act = "delete", path = "/paths" }]
terraform_apply.effects = [{ family = "terraform", text = "/plan", address = "tf://shop" }]
kubernetes_apply.effects = [{ family = "kubernetes", text = "/manifest", address = "k8s://dev" }]
put_policy.effects = [{ family = "iam", text = "/document", address = "iam://shop/role" }]
graphql.effects = [{ family = "graphql", text = "/query", address = "https://api.example.com" }]
"#;

/// The codes of the causes that decided, each once.
fn codes(answer: &Value) -> String {
    let codes = reason(answer);
    let codes: BTreeSet<_> = codes.split('+').collect();
    codes.into_iter().collect::<Vec<_>>().join("+")
}

/// What a call came to: the codes of its refusal, or its text.
pub fn came(answer: &Value) -> String {
    match codes(answer).as_str() {
        "answered" => answer["result"]["content"][0]["text"].as_str().unwrap_or("?").to_owned(),
        codes => codes.to_owned(),
    }
}

/// What is said to who has no grant to destroy.
const DENIED: &str = "destructive_not_granted+no_policy_permits";
/// What the same are told of a call that breaks an invariant, too.
const BROKEN: &str = "destructive_not_granted+invariant_broken+no_policy_permits";

pub fn tools() -> String {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/tools.mjs");
    tools.display().to_string()
}

pub fn world() -> World {
    let world = World::new(&CONFIG.replace("${tools}", &tools()));
    let made = Command::new("sqlite3")
        .current_dir(world.files())
        .args(["shop.db", "CREATE TABLE users(id); INSERT INTO users VALUES (1), (2)"])
        .status();
    assert!(made.is_ok_and(|made| made.success()), "these tests need `sqlite3`");
    world
}

fn pipe(world: &World, agent: &str) -> Pipe {
    opened(wrap(world, agent))
}

pub fn wrap(world: &World, agent: &str) -> Command {
    let mut command = world.command(&["wrap", "--agent", agent, "--server", "box", "--", "node"]);
    // The wrap runs where the server is said to run.
    command.arg(tools()).current_dir(world.files());
    command
}

pub fn opened(command: Command) -> Pipe {
    let mut pipe = Pipe::of(command);
    let opening = json!({
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {},
    });
    pipe.tell(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": opening }));
    assert!(pipe.answer(0)["result"].is_object());
    pipe.tell(&json!({ "jsonrpc": "2.0", "id": 0, "method": "tools/list" }));
    assert!(pipe.answer(0)["result"].is_object());
    pipe
}

fn users(world: &World) -> String {
    let counted = Command::new("sqlite3")
        .current_dir(world.files())
        .args(["shop.db", "SELECT count(*) FROM users"])
        .output()
        .unwrap();
    text(&counted.stdout).trim().to_owned()
}

/// Every way to one deletion, as tool and arguments.
fn deletions() -> Vec<(&'static str, Value)> {
    let sql = "DROP TABLE users";
    let sub = format!("sqlite3 shop.db '{sql}'");
    let workflow = format!("on: push\njobs:\n  x:\n    steps:\n      - run: {sub}\n");
    vec![
        ("sqlite", json!({ "sql": sql })),
        ("sqlite", json!({ "sql": format!("SELECT 1; /* fix */ {sql}") })),
        ("postgres", json!({ "sql": "DROP TABLE users" })),
        ("postgres", json!({ "sql": "WITH x AS (DELETE FROM users RETURNING 1) SELECT 1" })),
        ("run", json!({ "command": sub })),
        ("run", json!({ "command": format!("VAR=1 {sub}") })),
        ("run", json!({ "command": format!("sh -c \"{sub}\"") })),
        ("run", json!({ "command": format!("echo '{sql}' | sqlite3 shop.db") })),
        ("run", json!({ "command": "find . -name shop.db -delete" })),
        ("run", json!({ "command": "rm shop.db" })),
        ("run", json!({ "command": "curl -X DELETE http://127.0.0.1:9/users" })),
        ("http", json!({ "method": "DELETE", "url": "http://127.0.0.1:9/users" })),
        ("delete_files", json!({ "paths": ["shop.db"] })),
        ("write_file", json!({ "path": ".github/workflows/x.yml", "content": workflow })),
    ]
}

#[test]
fn one_deletion_gets_one_answer_whatever_way_it_takes() {
    // What else there is to say about one way or another would only make it stricter.
    let world = world();
    let config = std::fs::read_to_string(world.path().join("holdpoint.toml")).unwrap();
    let quiet = ["mass_change", "stateful_delete"].map(|name| format!("{name}.result = \"warn\""));
    world.write_config(&format!("{config}\n[invariant]\n{}\n", quiet.join("\n")));
    let mut pipe = pipe(&world, "coder");
    let mut answers = Vec::new();
    for (number, (tool, arguments)) in deletions().into_iter().enumerate() {
        let answer = pipe.call(number as u64 + 1, tool, arguments.clone());
        answers.push(format!("{tool} {arguments}: {}", codes(&answer)));
    }
    let astray: Vec<_> =
        answers.iter().filter(|one| !one.ends_with(&format!(": {DENIED}"))).collect();
    assert!(astray.is_empty(), "{astray:#?}");
    assert_eq!(users(&world), "2");
    world.must(&["verify"]);
}

#[test]
fn a_call_that_destroys_nothing_runs_for_who_may_not_destroy() {
    let world = world();
    let mut pipe = pipe(&world, "coder");
    let mut expect = |tool: &str, arguments: Value, wanted: &str| {
        let answer = pipe.call(1, tool, arguments.clone());
        let came = came(&answer);
        assert!(came.contains(wanted), "{tool} {arguments}: {answer}");
    };
    expect("sqlite", json!({ "sql": "SELECT 'DROP TABLE users', count(*) FROM users" }), "|2");
    expect("sqlite", json!({ "sql": "INSERT INTO users VALUES (3)" }), "");
    expect(
        "run",
        json!({ "command": "grep -c 'rm -rf' notes || echo 'DROP TABLE users'" }),
        "DROP",
    );
    expect("run", json!({ "command": "mkdir -p build && echo x > build/new && ls build" }), "new");
    expect("write_file", json!({ "path": "src/a.txt", "content": "rm -rf /" }), "written");
    expect("git", json!({ "args": ["init", "-q", "repo"] }), "");
    expect("git", json!({ "args": ["-C", "repo", "status", "--short"] }), "");
    assert_eq!(users(&world), "3");
}

#[test]
fn postgres_runs_what_destroys_nothing_and_keeps_the_rest() {
    let postgres = Postgres::start();
    let world = world();
    let mut command = wrap(&world, "coder");
    command.env("PGHOST", postgres.host()).env("PGUSER", "shop");
    let mut pipe = opened(command);
    let mut call = |sql: &str| came(&pipe.call(1, "postgres", json!({ "sql": sql })));
    let made = "CREATE TABLE users(id int); INSERT INTO users SELECT generate_series(1, 5)";
    assert_eq!(call(made), "");
    assert_eq!(call("UPDATE users SET id = 9 WHERE id = 5"), "");
    assert_eq!(
        call("WITH x AS (SELECT 'DELETE FROM users') SELECT count(*) FROM users").trim(),
        "5"
    );
    let hidden = call("WITH x AS (DELETE FROM users WHERE id = 1 RETURNING 1) SELECT * FROM x");
    assert_eq!(hidden, DENIED);
    assert_eq!(call("EXPLAIN ANALYZE DELETE FROM users WHERE id = 1"), DENIED);
    assert_eq!(call("TRUNCATE users"), BROKEN);
    assert!(call("DO $$ BEGIN DELETE FROM users; END $$").contains(DENIED));
    assert!(call("COPY users TO PROGRAM 'rm -rf /'").contains(DENIED));
    assert_eq!(call("SELECT count(*) FROM users").trim(), "5");
}

#[test]
fn git_is_judged_by_what_it_rewrites() {
    let world = world();
    let files = world.files();
    let git = |folder: &str, args: &[&str]| {
        let run = Command::new("git").current_dir(files.join(folder)).args(args).output().unwrap();
        assert!(run.status.success(), "{args:?}: {}", text(&run.stderr));
    };
    git("", &["init", "-q", "--bare", "remote"]);
    git("", &["init", "-q", "-b", "work", "repo"]);
    git("repo", &["remote", "add", "origin", "../remote"]);
    let commit = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty"];
    git("repo", &[&commit[..], &["-m", "one"]].concat());
    let mut coder = pipe(&world, "coder");
    let mut call = |args: &[&str]| {
        let args = [&["-C", "repo"], args].concat();
        came(&coder.call(1, "git", json!({ "args": args })))
    };
    assert_eq!(call(&["push", "-q", "origin", "work"]), "");
    assert_eq!(call(&["push", "--force", "origin", "main"]), BROKEN);
    assert_eq!(call(&["push", "origin", ":work"]), DENIED);
    assert_eq!(call(&["reset", "--hard", "HEAD~1"]), DENIED);
    assert!(call(&["log", "--oneline", "--grep=push --force"]).is_empty());
}

#[test]
fn who_may_destroy_is_still_held_to_the_invariants() {
    let world = world();
    let mut pipe = pipe(&world, "janitor");
    let mut call = |tool: &str, arguments: Value| came(&pipe.call(1, tool, arguments));
    let mass = call("sqlite", json!({ "sql": "DELETE FROM users" }));
    assert_eq!(mass, "invariant_broken");
    assert_eq!(users(&world), "2");
    assert_eq!(call("sqlite", json!({ "sql": "DELETE FROM users WHERE id = 1" })), "");
    assert_eq!(users(&world), "1");
    assert_eq!(call("run", json!({ "command": "rm -f build" })), "");
    let unread = call("sqlite", json!({ "sql": "DELETE FROM ((" }));
    assert!(unread.contains("effects_unreadable"), "{unread}");
    let missing = call("sqlite", json!({ "query": "SELECT 1" }));
    assert!(missing.contains("effects_unreadable"), "{missing}");
    let document = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": "*", "Resource": "*" },
    ] });
    let wide = call("put_policy", json!({ "document": document }));
    assert!(wide.contains("invariant_broken"), "{wide}");
    // An explanation for operators, with everything that spoke.
    let log = world.json(&["log", "--decision", "deny", "--limit", "1"]);
    let action = log["records"][0]["action"].as_str().unwrap().to_owned();
    let why = world.must(&["why", &action]);
    assert!(why.contains("wildcard_privilege"), "{why}");
}

#[test]
fn manifests_and_mutations_are_judged_by_what_they_say() {
    let world = world();
    let mut pipe = pipe(&world, "coder");
    let mut call = |tool: &str, arguments: Value| came(&pipe.call(1, tool, arguments));
    let object = |kind: &str, more: &str| {
        format!("apiVersion: v1\nkind: {kind}\nmetadata: {{ name: x }}\n{more}")
    };
    let harmless = object("ConfigMap", "data: { a: kubectl delete ns }\n");
    assert!(call("kubernetes_apply", json!({ "manifest": harmless })).starts_with("would apply"));
    let privileged = object(
        "Pod",
        "spec: { containers: [{ name: c, image: i, securityContext: { privileged: true } }] }\n",
    );
    let denied = call("kubernetes_apply", json!({ "manifest": privileged }));
    assert_eq!(denied, BROKEN);
    let query = "query { mutationDelete }";
    assert!(call("graphql", json!({ "query": query })).starts_with("would send"));
    let mutation = "mutation { volumeDelete(volumeId: \"1\") }";
    assert_eq!(call("graphql", json!({ "query": mutation })), DENIED);
}

#[test]
fn a_long_command_is_judged_like_a_short_one() {
    let world = world();
    let mut pipe = pipe(&world, "coder");
    let filler = "echo 0123456789\n".repeat(1000);
    let long = pipe.call(1, "run", json!({ "command": format!("{filler}rm shop.db") }));
    assert_eq!(codes(&long), DENIED);
    let longer = "x".repeat(300 << 10);
    let longer = pipe.call(2, "run", json!({ "command": format!("echo {longer}") }));
    assert!(codes(&longer).contains("effects_unreadable"));
    assert_eq!(users(&world), "2");
}

#[test]
fn try_and_effects_explain_without_running() {
    let world = world();
    drop(pipe(&world, "coder"));
    let call = world.path().join("call.json");
    let asked = json!({ "tool": "box__run", "arguments": { "command": "rm shop.db" } });
    std::fs::write(&call, asked.to_string()).unwrap();
    let call = call.to_str().unwrap();
    let tried = world.run(&["try", call, "--as", "coder"]);
    assert_eq!(tried.status.code(), Some(3));
    let said = text(&tried.stdout);
    assert!(said.contains("delete file://") && said.contains("not granted"), "{said}");
    let told = world.json(&["effects", "--call", call]);
    assert_eq!(told["class"], "destructive");
    assert_eq!(told["effects"][0]["environment"], "dev");
    let told = world.json(&["effects", "--", "VAR=x", "rm", "-rf", "/"]);
    assert_eq!(told["effects"][0]["verb"], "delete");
    assert_eq!(users(&world), "2");
}

#[test]
fn effects_of_a_call_say_what_the_operator_makes_of_an_invariant() {
    let world = world();
    let call = world.path().join("call.json");
    let asked = json!({ "tool": "box__sqlite", "arguments": { "sql": "DELETE FROM users" } });
    std::fs::write(&call, asked.to_string()).unwrap();
    let path = world.path().join("holdpoint.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    for (rule, does) in [
        ("", "fail"),
        ("[invariant.mass_change]\nresult = \"warn\"", "warn"),
        ("[invariant.mass_change]\nresult = \"off\"", "off"),
        ("[invariant.mass_change]\nenvironments = [\"prod\"]", "off"),
    ] {
        std::fs::write(&path, format!("{config}\n{rule}\n")).unwrap();
        let told = world.json(&["effects", "--call", call.to_str().unwrap()]);
        assert_eq!(told["notes"][0]["code"], "mass_change");
        assert_eq!(told["notes"][0]["severity"], does, "{rule}");
    }
}

#[test]
fn a_real_plan_is_judged_by_what_it_would_change() {
    let there = Command::new("terraform").arg("version").stdout(Stdio::null()).status();
    if there.is_err() {
        // CI cannot install it: its registry is none of those that CI reaches.
        left_out("a real plan: there is no `terraform`");
        return;
    }
    let world = world();
    let files = world.files();
    let terraform = |args: &[&str]| {
        let mut command = Command::new("terraform");
        let run = command.current_dir(&files).args(args).env("CHECKPOINT_DISABLE", "1");
        let run = run.output().unwrap();
        assert!(run.status.success(), "{args:?}: {}", text(&run.stderr));
        text(&run.stdout)
    };
    let plan = |resources: &str| {
        std::fs::write(files.join("main.tf"), resources).unwrap();
        terraform(&["plan", "-no-color", "-out=plan.out"]);
        json!({ "plan": terraform(&["show", "-json", "plan.out"]) })
    };
    let one = "resource \"terraform_data\" \"one\" { input = 1 }\n";
    let two = "resource \"terraform_data\" \"two\" { input = 2 }\n";
    std::fs::write(files.join("main.tf"), one).unwrap();
    terraform(&["init", "-no-color"]);
    terraform(&["apply", "-auto-approve", "-no-color"]);
    let mut coder = pipe(&world, "coder");
    let adds = plan(&format!("{one}{two}"));
    let added = came(&coder.call(1, "terraform_apply", adds));
    assert!(added.contains("1 added, 0 changed, 0 destroyed"), "{added}");
    let removes = plan(one);
    let removed = came(&coder.call(2, "terraform_apply", removes));
    assert_eq!(removed, DENIED);
}

#[test]
fn a_check_that_must_stay_is_not_taken_away() {
    let world = world();
    let config = std::fs::read_to_string(world.path().join("holdpoint.toml")).unwrap();
    let keeps = "[invariant.check_removed]\n\
                 keeps = [{ paths = [\"src/api/**\"], pattern = \"require_role($$$)\" }]\n";
    world.write_config(&format!("{config}\n{keeps}"));
    let file = world.files().join("src/api/users.py");
    let mut pipe = pipe(&world, "coder");
    let mut call = |tool: &str, arguments: Value| came(&pipe.call(1, tool, arguments));
    let path = "src/api/users.py";
    let good = "def rows(user):\n    require_role(user, 'admin')\n    return []\n";
    let removed = |answer: &str| answer == "invariant_broken";
    assert_eq!(call("write_file", json!({ "path": path, "content": good })), "written");
    let bare = good.replace("require_role", "# require_role");
    assert!(removed(&call("write_file", json!({ "path": path, "content": bare }))));
    let mut edit = |old: &str, new: &str| {
        let edits = json!([{ "oldText": old, "newText": new }]);
        call("edit_file", json!({ "path": path, "edits": edits }))
    };
    assert_eq!(edit("    return []\n", "    return [user]\n"), "edited");
    assert_eq!(edit("'admin'", "'owner'"), "edited");
    assert!(removed(&edit("    require_role(user, 'owner')\n", "")));
    assert!(removed(&edit("require_ro", "# require_ro")));
    // The tool may take the other pair.
    let two =
        json!([{ "oldText": "a", "newText": "a", "old_string": "require_role", "new_string": "" }]);
    assert!(removed(&call("edit_file", json!({ "path": path, "edits": two }))));
    let patch = |gone: &str| {
        let lines = format!(" def rows(user):\n{gone}     return [user]\n");
        format!("--- a/{path}\n+++ b/{path}\n@@ -1,3 +1,3 @@\n{lines}")
    };
    let loosens = "-    require_role(user, 'owner')\n+    pass\n";
    assert!(removed(&call("apply_patch", json!({ "patch": patch(loosens) }))));
    let tightens = "-    require_role(user, 'owner')\n+    require_role(user, 'root')\n";
    assert_eq!(call("apply_patch", json!({ "patch": patch(tightens) })), "patched");
    let sed = format!("sed -i /require_role/d {path}");
    assert!(removed(&call("run", json!({ "command": sed }))));
    let gone = call("run", json!({ "command": format!("rm {path}") }));
    assert!(gone.contains("invariant_broken"), "{gone}");
    let heredoc = format!("cat > {path} <<'E'\n{}E", good.replace("admin", "boss"));
    assert_eq!(call("run", json!({ "command": heredoc })), "");
    assert!(std::fs::read_to_string(&file).unwrap().contains("require_role(user, 'boss')"));
    let why = world.json(&["log", "--decision", "deny", "--limit", "1"]);
    let why = world.must(&["why", why["records"][0]["action"].as_str().unwrap()]);
    assert!(why.contains("check_removed") && why.contains("require_role($$$)"), "{why}");
}

/// A real HTTP server whose requests are counted by the lines of its log.
struct Shop {
    child: std::process::Child,
    address: String,
    log: std::path::PathBuf,
}

// === impl Shop ===

impl Shop {
    fn start(folder: &Path) -> Self {
        let program = "const http = require('node:http'); const fs = require('node:fs');
            http.createServer((asked, answer) => {
              fs.appendFileSync('shop.log', `${asked.method} ${asked.url}\\n`);
              answer.end(`did ${asked.method} ${asked.url}`);
            }).listen(0, '127.0.0.1', function () { console.log(this.address().port); });";
        let mut child = Command::new("node")
            .args(["-e", &program.replace("\\\\", "\\")])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        lines.read_line(&mut port).unwrap();
        let address = format!("http://127.0.0.1:{}", port.trim());
        Self { child, address, log: folder.join("shop.log") }
    }

    fn asked(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn requests_are_judged_by_the_document_of_their_api() {
    let world = world();
    let shop = Shop::start(&world.files());
    let document = format!(
        "openapi: 3.1.0\nservers: [{{ url: \"{}/v1\" }}]\npaths:\n  /orders:\n    get: {{}}\n    \
         post: {{ operationId: createOrder }}\n  /orders/{{id}}/refund:\n    post: {{ \
         operationId: refund, x-holdpoint-class: destructive }}\n  /search:\n    post: {{ \
         operationId: search }}\n  /reset:\n    post: {{ x-holdpoint-class: read }}\n",
        shop.address,
    );
    std::fs::write(world.path().join("shop.yaml"), document).unwrap();
    let config = std::fs::read_to_string(world.path().join("holdpoint.toml")).unwrap();
    let openapi = "[[server.box.place.openapi]]\nfile = \"shop.yaml\"\n\
                   classes = { search = \"read\" }\n";
    // A table of its own cannot follow an inline one.
    let place = "place = { workspace";
    let (before, after) = config.split_once(place).unwrap();
    let (inline, after) = after.split_once(" }\n").unwrap();
    let place = inline.replace(", ", "\n");
    let config = format!("{before}\n[server.box.place]\nworkspace{place}\n{openapi}{after}");
    world.write_config(&config);
    let mut pipe = pipe(&world, "coder");
    let mut call = |method: &str, path: &str| {
        let url = format!("{}{path}", shop.address);
        came(&pipe.call(1, "http", json!({ "method": method, "url": url })))
    };
    assert_eq!(call("GET", "/v1/orders?page=2"), "did GET /v1/orders?page=2");
    assert_eq!(call("POST", "/v1/orders"), "did POST /v1/orders");
    assert_eq!(call("POST", "/v1/search"), "did POST /v1/search");
    assert_eq!(call("POST", "/v1/orders/7/refund"), DENIED);
    assert_eq!(call("GET", "/v1/users"), DENIED);
    assert_eq!(call("POST", "/v1/orders/..%2freset"), DENIED);
    // The shell's `curl` is held to the same document.
    let curl = |path: &str| json!({ "command": format!("curl -s {}{path}", shop.address) });
    assert_eq!(came(&pipe.call(1, "run", curl("/v1/orders"))), "did GET /v1/orders");
    assert_eq!(came(&pipe.call(1, "run", curl("/v1/users"))), DENIED);
    let asked = "GET /v1/orders?page=2\nPOST /v1/orders\nPOST /v1/search\nGET /v1/orders\n";
    assert_eq!(shop.asked(), asked);
    // Who may only read may search, and learns why.
    let file = world.path().join("call.json");
    let search = json!({ "method": "POST", "url": format!("{}/v1/search", shop.address) });
    std::fs::write(&file, json!({ "tool": "box__http", "arguments": search }).to_string()).unwrap();
    let told = world.json(&["effects", "--call", file.to_str().unwrap()]);
    assert_eq!(told["class"], "read");
    assert_eq!(told["effects"][0]["evidence"], "POST /v1/search, declared as search");
    // A document that cannot be read is a fault, and nothing starts with it.
    std::fs::write(world.path().join("shop.yaml"), "openapi: 3.1.0\npaths: [").unwrap();
    let checked = world.run(&["check"]);
    let said = text(&checked.stdout) + &text(&checked.stderr);
    assert!(!checked.status.success() && said.contains("shop.yaml:"), "{said}");
}
