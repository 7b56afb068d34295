//! The operator's own validators: expressions, processes and endpoints have a voice, and whoever
//! fails to answer counts as an objection.

use crate::raw::{Pipe, call, reason};
use crate::world::{PEER, World};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;

/// A world with the small server and this validator.
fn world(validator: &str) -> World {
    World::new(&format!("{PEER}\n[validator.second]\n{validator}\n"))
}

/// What becomes of a write, and what the validator is recorded to have found.
fn asked(world: &World) -> (String, Value) {
    let mut pipe = Pipe::wrap(world);
    pipe.tell(&json!({ "jsonrpc": "2.0", "id": 0, "method": "tools/list" }));
    pipe.answer(0);
    let path = world.files().join("made");
    pipe.tell(&call(1, "touch", json!({ "path": path })));
    let answer = pipe.answer(1);
    let log = world.json(&["log", "--kind", "decision", "--limit", "1"]);
    let findings = &log["records"][0]["facts"]["findings"];
    let of_ours = |finding: &&Value| finding["validator"] == "second";
    let found = findings.as_array().unwrap().iter().find(of_ours).cloned().unwrap_or_default();
    // What was refused was not done.
    assert_eq!(path.exists(), reason(&answer) == "answered");
    (reason(&answer), found)
}

/// The reason and the result that a validator leads to.
fn came(validator: &str) -> (String, String) {
    let (reason, found) = asked(&world(validator));
    (reason, found["result"].as_str().unwrap_or("none").to_owned())
}

fn script(text: &str) -> String {
    format!("command = [\"bash\", \"-c\", {}]", json!(text))
}

/// An endpoint that gives every request this answer; what it was sent comes out.
fn endpoint(answer: &'static str) -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {
                let line = head.lines().last().unwrap_or_default().to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            tell.send(head + &String::from_utf8(body).unwrap()).unwrap();
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    (format!("url = \"http://{address}/judge\""), told)
}

const PASSES: &str =
    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 17\r\n\r\n{\"result\":\"pass\"}";
const BREAKS: &str = "HTTP/1.1 500 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

#[test]
fn an_expression_has_a_voice() {
    let check = |validator: &str, reason: &str, result: &str| {
        assert_eq!(came(validator), (reason.to_owned(), result.to_owned()), "{validator}");
    };
    check("cel = \"environment == 'dev' && class == 'write'\"", "answered", "pass");
    check("cel = \"!parameters.path.endsWith('made')\"", "validator_objects", "fail");
    check("cel = \"!parameters.path.endsWith('made')\"\nresult = \"warn\"", "answered", "warn");
    check("cel = \"parameters.nothing == 1\"", "validator_unavailable", "opaque");
    check("cel = \"parameters.path\"", "validator_unavailable", "opaque");
    // It looks only at what it is there for.
    check("cel = \"false\"\nclass = \"destructive\"", "answered", "none");
    check("cel = \"false\"\ntools = [\"other__*\"]", "answered", "none");
}

#[test]
fn a_process_has_a_voice_and_a_time() {
    let check = |text: &str, more: &str, reason: &str, result: &str| {
        let validator = format!("{}\n{more}", script(text));
        assert_eq!(came(&validator), (reason.to_owned(), result.to_owned()), "{text}");
    };
    check("read line; echo '{\"result\":\"pass\"}'", "", "answered", "pass");
    let objects = "read line; echo '{\"result\":\"fail\",\"evidence\":\"too risky\"}'";
    check(objects, "", "validator_objects", "fail");
    let unsure = "read line; echo '{\"result\":\"opaque\"}'";
    check(unsure, "", "validator_unavailable", "opaque");
    check("sleep 60", "timeout_ms = 200", "validator_unavailable", "opaque");
    check("exit 1", "", "validator_unavailable", "opaque");
    check("echo yes", "", "validator_unavailable", "opaque");
    check("echo '{\"result\":\"pass\",\"x\":1}'", "", "validator_unavailable", "opaque");
    let endless = "while :; do printf '%100000s' x; done";
    check(endless, "timeout_ms = 3000", "validator_unavailable", "opaque");
    // Whoever only warns may be missing.
    check("exit 1", "result = \"warn\"", "answered", "warn");
}

#[test]
fn a_validator_is_told_what_it_needs_and_no_secret() {
    let world = world(&script("cat > told.json; echo '{\"result\":\"pass\"}'"));
    let key = world.key("coder");
    let (came, _) = asked(&world);
    assert_eq!(came, "answered");
    let told = std::fs::read_to_string(world.path().join("told.json")).unwrap();
    assert!(!told.contains(&key) && told.ends_with('\n'), "{told}");
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["agent"], &told["tool"]), (&json!("coder"), &json!("peer__touch")));
    // Expressions know the same names, and no other.
    let told_names: BTreeSet<_> = told.as_object().unwrap().keys().cloned().collect();
    world.write_config(&format!("{PEER}\n[validator.second]\ncel = \"nobody\"\n"));
    let checked = world.run(&["check"]);
    let said = crate::world::text(&checked.stderr) + &crate::world::text(&checked.stdout);
    let names = said.split("there are ").nth(1).unwrap().lines().next().unwrap();
    let names: BTreeSet<_> = names.split(", ").map(|name| name.trim().to_owned()).collect();
    assert_eq!(names, told_names);
    assert_eq!((&told["class"], &told["environment"]), (&json!("write"), &json!("dev")));
}

#[test]
fn an_endpoint_has_a_voice() {
    let (url, told) = endpoint(PASSES);
    let headers = "headers = { X-Judge = \"one\" }";
    let validator = format!("{url}\n{headers}");
    assert_eq!(came(&validator), ("answered".to_owned(), "pass".to_owned()));
    let told = told.recv().unwrap();
    assert!(told.starts_with("POST /judge") && told.contains("x-judge: one"), "{told}");
    assert!(told.contains("\"tool\":\"peer__touch\""), "{told}");
    let (url, _told) = endpoint(BREAKS);
    assert_eq!(came(&url), ("validator_unavailable".to_owned(), "opaque".to_owned()));
    let nobody = "url = \"http://127.0.0.1:9/judge\"";
    assert_eq!(came(nobody), ("validator_unavailable".to_owned(), "opaque".to_owned()));
}

#[test]
fn the_evidence_of_a_validator_has_a_length() {
    let long = "x".repeat(2000);
    let says = script(&format!("echo '{{\"result\":\"fail\",\"evidence\":\"{long}\"}}'"));
    let (_, found) = asked(&world(&says));
    assert_eq!(found["evidence"].as_str().unwrap().len(), 500);
}

#[test]
fn try_asks_validators_as_a_gateway_does() {
    let world = world("cel = \"!parameters.path.endsWith('made')\"");
    asked(&world);
    let file = world.path().join("call.json");
    let call = json!({ "tool": "peer__touch", "arguments": { "path": "made" } });
    std::fs::write(&file, call.to_string()).unwrap();
    let tried = world.run(&["try", file.to_str().unwrap(), "--as", "coder"]);
    assert_eq!(tried.status.code(), Some(3));
    assert!(crate::world::text(&tried.stdout).contains("validator_objects"));
}

#[test]
fn nobody_is_asked_about_a_call_that_is_refused_anyway() {
    let world = world(&script("touch was-asked; echo '{\"result\":\"pass\"}'"));
    let config = std::fs::read_to_string(world.path().join("holdpoint.toml")).unwrap();
    let config = config.replace(", { class = \"write\", tools = [\"*\"] }]", "]");
    world.write_config(&config);
    let (came, found) = asked(&world);
    assert!(came.contains("not_granted"), "{came}");
    assert!(found.is_null() && !world.path().join("was-asked").exists());
}

#[test]
fn a_faulty_validator_is_found_before_anything_starts() {
    let check = |validator: &str, part: &str| {
        let world = world(validator);
        let checked = world.run(&["check"]);
        let said = crate::world::text(&checked.stdout) + &crate::world::text(&checked.stderr);
        assert_eq!(checked.status.code(), Some(2), "{said}");
        assert!(said.contains(part), "{said}");
    };
    check("cel = \"a ==== b\"", "no CEL");
    check("cel = \"enviroment == 'dev'\"", "`enviroment` is not known");
    check("cel = \"true\"\ncommand = [\"true\"]", "exactly one of");
    check("class = \"write\"", "exactly one of");
    check("cel = \"true\"\ntimeout_ms = 60000", "1 to 20000 ms");
}

#[test]
fn check_says_what_validators_lack_on_this_machine() {
    let world = World::new(
        "[validator.gone]\ncommand = [\"no-such-program\", \"x\"]\n\
         env = { KEY = { from_env = \"HOLDPOINT_NO_SUCH_KEY\" } }\n\
         [validator.far]\nurl = \"https://validator.example.com/\"\n\
         headers = { Authorization = { from_file = \"no-such-file\" } }\n\
         [validator.here]\ncommand = [\"sh\", \"-c\", \"true\"]\n",
    );
    let check = world.run(&["check"]);
    assert!(check.status.success(), "{check:?}");
    let told = crate::world::text(&check.stderr);
    for expected in [
        "validator `gone`: there is no program `no-such-program`",
        "validator `gone`: the environment variable `HOLDPOINT_NO_SUCH_KEY` is not set",
        "validator `far`: cannot read",
        "3 warnings",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
}
