//! What is found wrong with a configuration, and how it is shown.

use super::{check, sanitise};
use crate::config::fault::{Colour, Report, Severity};
use crate::config::{Config, Transport, UndoRules, UnknownParameters, ValueSource};
use expect_test::{expect, expect_file};
use holdpoint_types::Timestamp;
use proptest::prelude::*;
use std::path::{Path, PathBuf};

fn read(text: &str) -> (Option<Config>, Report) {
    check("holdpoint.toml", Path::new("/etc/hp/holdpoint.toml"), text)
}

fn shown(text: &str) -> String {
    let (config, report) = read(text);
    assert_eq!(config.is_none(), report.has_faults());
    report.render(Colour::Never)
}

fn good(text: &str) -> Config {
    let (config, report) = read(text);
    assert_eq!(report.render(Colour::Never), "");
    config.unwrap()
}

#[test]
fn a_server_that_reaches_our_own_files_is_warned_of() {
    let text = "[server.fs]\ncommand = [\"server\", \"/etc/hp\", \"/srv/app\"]\n";
    let (config, report) = read(text);
    assert!(config.is_some());
    let shown = report.render(Colour::Never);
    assert!(
        shown.contains("/etc/hp/holdpoint.toml") && !shown.contains("/srv/app` lies"),
        "{shown}"
    );
}

#[test]
fn a_host_is_no_server_and_is_declared_once() {
    let config = good("[server.claude]\nhost = \"claude-code\"\n");
    assert!(config.servers.is_empty());
    assert_eq!(config.hosts.values().map(ToString::to_string).collect::<Vec<_>>(), ["claude"]);
    assert!(config.settings.parts().servers.values().all(|rules| rules.hosted));
    let shown = shown(
        r#"
[server.claude]
host = "claude-code"
command = ["server"]
timeout_ms = 5

[server.other]
host = "claude-code"
"#,
    );
    for part in ["`command` means nothing", "`timeout_ms` means nothing", "this host already"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn a_grant_of_a_tool_that_a_host_has_not_is_warned_of() {
    let text = |tools: &str, class: &str| {
        format!(
            "[team.t]\n[agent.a]\nowner = \"t\"\n\
             grants = [{{ class = \"{class}\", tools = [{tools}] }}]\n\
             [server.claude]\nhost = \"claude-code\"\nread = [\"mcp__docs__*\"]\n"
        )
    };
    let fine = r#""claude__Write", "claude__Task", "claude__*", "claude__mcp__docs__find""#;
    good(&text(fine, "write"));
    // How a tool is granted that is not known.
    good(&text(r#""claude__KillShell""#, "destructive"));
    let (config, report) = read(&text(r#""claude__Wriet", "claude__KillShell""#, "write"));
    assert!(config.is_some());
    expect![[r#"
        warning: this host is not known to have a tool `Wriet`
         --> holdpoint.toml:4:39
          |
        4 | grants = [{ class = "write", tools = ["claude__Wriet", "claude__KillShell"] }]
          |                                       ^^^^^^^^^^^^^^^
          |
          = help: did you mean `claude__Write`?

        warning: this host is not known to have a tool `KillShell`
         --> holdpoint.toml:4:56
          |
        4 | grants = [{ class = "write", tools = ["claude__Wriet", "claude__KillShell"] }]
          |                                                        ^^^^^^^^^^^^^^^^^^^
          |
          = help: if it has, classify it in `[server.claude]`

        0 faults, 2 warnings
    "#]]
    .assert_eq(&report.render(Colour::Never));
}

#[test]
fn a_host_that_is_misspelt_is_no_server_without_a_command() {
    let shown = shown("[server.claude]\nhost = \"claude\"\n");
    assert!(shown.contains("`claude` is not possible here"), "{shown}");
    assert!(!shown.contains("is missing"), "{shown}");
}

#[test]
fn files_that_a_host_changes_are_kept_below_the_declared_folders() {
    let host = "[server.claude]\nhost = \"claude-code\"\n";
    assert!(good(host).hosted.is_empty());
    let config = good(&format!("{host}undo = {{ files = [\"/srv/app\"] }}\n"));
    let kept: Vec<_> = config.hosted.iter().collect();
    let [(name, UndoRules::Files { roots, shapes })] = &kept[..] else { panic!("{kept:?}") };
    assert_eq!((name.as_str(), &roots[..]), ("claude", &[PathBuf::from("/srv/app")][..]));
    let tools: Vec<_> = shapes.keys().map(String::as_str).collect();
    assert_eq!(tools, ["Edit", "MultiEdit", "NotebookEdit", "Write"]);
    let wrong = shown(&format!("{host}tool.Write.undo = {{ deletes = true }}\nundo = {{}}\n"));
    for part in ["is no tool of a host", "`files` is missing"] {
        assert!(wrong.contains(part), "{part}: {wrong}");
    }
}

const TEN_MISTAKES: &str = r#"[store]
pth = "data"

[limits]
call_timeout_ms = "60s"

[team.platform]

[agent.Coder]
owner = "platfrom"
mode = "autonomous"
grants = [
  { class = "read", tools = ["*"] },
  { class = "destructive", tools = ["fs__*"] },
]

[agent.reviewer]
grants = [{ class = "read", tools = ["fs__read*"] }]

[server.fs]
command = ["npx", "server"]
url = "https://mcp.example.com/mcp"
read = ["read_**"]

[server.tickets]
url = "https://tickets.example.com/mcp"
headers = { Authorization = "Bearer abc" }

[[environment]]
name = "prod"
resources = ["/srv/prod/**"]
servers = ["ticket"]

[[freeze]]
name = "year-end"
from = 2027-01-04T00:00:00Z
until = 2026-12-18T00:00:00Z
"#;

#[test]
fn ten_mistakes_and_more_are_all_reported_at_once() {
    let (_, report) = read(TEN_MISTAKES);
    assert_eq!(report.count(Severity::Fault), 13);
    assert!(report.diagnostics().iter().all(|found| report.place(found).is_some()));
    expect_file!["snapshots/ten_mistakes.txt"].assert_eq(&shown(TEN_MISTAKES));
}

#[test]
fn json_says_the_same() {
    let (_, report) = read("[store]\npth = \"data\"\n");
    let text = serde_json::to_string_pretty(&report.to_json()).unwrap();
    expect![[r#"
        [
          {
            "severity": "fault",
            "file": "holdpoint.toml",
            "line": 2,
            "column": 1,
            "message": "unknown key `pth`",
            "suggestion": "did you mean `path`?"
          }
        ]"#]]
    .assert_eq(&text);
}

#[test]
fn other_mistakes_are_explained_too() {
    expect_file!["snapshots/other_mistakes.txt"].assert_eq(&shown(
        r#"
[listen]
http = "0.0.0.0:4747"
hosts = ["https://example.com/"]
anonymous_agent = "visitor"

[team.t]
[agent.a]
owner = "t"
grants = [{ class = "write" }, { class = "read", tools = ["a b"] }]

[server.a]
[server.b]
command = []
headers = { "Bad Header" = "x" }
[server.c]
url = "ftp://example.com"
[server.d]
url = "https://user:secret@example.com/mcp"
env = { A = "b" }
[server.e]
command = ["x"]
env = { TOKEN = { from_env = "A", from_file = "b" }, OTHER = {} }
cwd = "~/x"
[server.e.tool."bad name"]
class = "read"
[server.e.tool.good]
resource = "file://{path}"

[[surface]]
resources = ["file:///a/../b"]

[[freeze]]
name = "f"
from = 2026-12-18T00:00:00
until = 2027-01-04T00:00:00Z
"#,
    ));
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    expect_file!["snapshots/warnings.txt"].assert_eq(&shown(
        r#"
[team.t]
[agent.idle]
owner = "t"
[agent.busy]
owner = "t"
grants = [{ class = "read", tools = ["sf__*", "read"] }, { class = "write", tools = [] }]
[server.fs]
command = ["npx", "postgres://user:secret@host/db"]
read = ["fs__read_*"]
[[surface]]
name = "billing"
"#,
    ));
}

#[test]
fn broken_syntax_is_shown_without_consequences() {
    expect_file!["snapshots/broken_syntax.txt"]
        .assert_eq(&shown("[agent.a]\nowner = \n[team.t]\non_call = 5\n"));
}

#[test]
fn a_guard_set_is_declared_without_slips() {
    let key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let declared = "[[surface]]\nname = \"billing\"\nresources = [\"file:///b/**\"]\n";
    let config = good(&format!(
        "{declared}[policies.guard.crown]\npath = \"crown\"\nsurfaces = [\"billing\"]\n\
         environments = [\"prod\"]\nsigners = [\"{key}\"]\n"
    ));
    let [guard] = config.policies.guards.as_slice() else { panic!("one guard set") };
    assert_eq!(guard.folder, PathBuf::from("/etc/hp/crown"));
    assert_eq!((guard.signatures_min, guard.signers.len()), (1, 1));
    expect_file!["snapshots/guard_mistakes.txt"].assert_eq(&shown(&format!(
        r#"{declared}
[policies]
path = "policies"
[policies.guard.crown]
path = "policies"
surfaces = ["biling", "Auth"]
environments = ["pord"]
signers = ["{key}", "{key}", "PeterNeumann+c74f20a3+AQ=="]
signatures = 3
[policies.guard."two words"]
signers = []
[policies.guard.empty]
path = "empty"
surfaces = ["billing"]
signatures = 0
[policies.guard.high]
path = "high"
surfaces = ["billing"]
signers = ["{key}"]
signatures = 2
"#
    )));
}

#[test]
fn everything_has_a_default() {
    let config = good("");
    assert_eq!(config.store, PathBuf::from("/etc/hp/.holdpoint"));
    assert_eq!(config.listen.http.to_string(), "127.0.0.1:4747");
    assert_eq!(config.listen.hosts, ["127.0.0.1:4747", "localhost:4747"]);
    assert_eq!(config.listen.anonymous_agent, None);
    assert_eq!(config.policies, Default::default());
    expect![[r#"
        Limits {
            message_bytes_max: 4194304,
            output_stored_bytes_max: 65536,
            calls_in_flight_max: 256,
            checks_open_max: 100000,
            undo_keep_s: 604800,
            call_timeout_ms: 60000,
            stop_grace_ms: 2000,
            drain_ms: 10000,
            door: DoorLimits {
                agent_calls_max: 64,
                agent_queue_max: 64,
                queue_wait_ms: 5000,
                connections_max: 1024,
                connections_per_address_max: 256,
                header_bytes_max: 16384,
                header_count_max: 100,
                header_timeout_ms: 10000,
                body_timeout_ms: 30000,
                idle_timeout_ms: 75000,
                write_timeout_ms: 30000,
            },
        }
    "#]]
    .assert_debug_eq(&config.limits);
    assert_eq!(config.settings.digest(), good("# a comment\n").settings.digest());
}

const EVERY_KEY: &str = r#"
[store]
path = "/var/lib/hp"
[listen]
http = "0.0.0.0:443"
operations = "0.0.0.0:9000"
exposed = true
tls = { certificate = "tls/cert.pem", key = "/run/key.pem", client_ca = "ca.pem" }
hosts = ["MCP.example.com"]
anonymous_agent = "coder"
[policies]
path = "policies"
[limits]
call_timeout_ms = 5
drain_ms = 0
agent_calls_max = 1
agent_queue_max = 2
queue_wait_ms = 3
connections_max = 4
connections_per_address_max = 5
header_bytes_max = 8192
header_count_max = 16
header_timeout_ms = 10
body_timeout_ms = 11
idle_timeout_ms = 12
write_timeout_ms = 13
[team.platform]
on_call = "phone 1"
[agent.coder]
owner = "platform"
mode = "approve-writes"
[[agent.coder.grant]]
class = "read"
tools = ["fs__*"]
[[agent.coder.grant]]
class = "destructive"
tools = ["fs__delete_file"]
[server.fs]
command = ["npx", "-y"]
env = { LOG = "debug", KEY = { from_env = "K" }, OTHER = { from_file = "secret.txt" } }
cwd = "work"
environment = "dev"
timeout_ms = 7
strict = true
read = ["read_*"]
[server.fs.tool.write_file]
class = "write"
resource = "file://{/path}"
[server.web]
url = "https://example.com/mcp"
headers = { Authorization = { from_env = "A" } }
[[environment]]
name = "prod"
servers = ["web"]
[[surface]]
name = "ci"
tools = ["web__*"]
[[freeze]]
name = "f"
from = 2026-12-18T01:00:00+01:00
until = 2027-01-04T00:00:00Z
"#;

#[test]
fn every_key_reaches_the_checked_configuration() {
    let config = good(EVERY_KEY);
    assert_eq!(config.policies.ordinary, Some(PathBuf::from("/etc/hp/policies")));
    assert_eq!(config.listen.hosts, ["mcp.example.com"]);
    assert_eq!(config.listen.operations, Some("0.0.0.0:9000".parse().unwrap()));
    expect![[r#"
        (
            Some(
                Tls {
                    certificate: "/etc/hp/tls/cert.pem",
                    key: "/run/key.pem",
                    client_ca: Some(
                        "/etc/hp/ca.pem",
                    ),
                },
            ),
            Limits {
                message_bytes_max: 4194304,
                output_stored_bytes_max: 65536,
                calls_in_flight_max: 256,
                checks_open_max: 100000,
                undo_keep_s: 604800,
                call_timeout_ms: 5,
                stop_grace_ms: 2000,
                drain_ms: 0,
                door: DoorLimits {
                    agent_calls_max: 1,
                    agent_queue_max: 2,
                    queue_wait_ms: 3,
                    connections_max: 4,
                    connections_per_address_max: 5,
                    header_bytes_max: 8192,
                    header_count_max: 16,
                    header_timeout_ms: 10,
                    body_timeout_ms: 11,
                    idle_timeout_ms: 12,
                    write_timeout_ms: 13,
                },
            },
        )
    "#]]
    .assert_debug_eq(&(config.listen.tls, config.limits));
    let parts = config.settings.parts();
    assert_eq!(parts.freezes.first().unwrap().span(Timestamp(0)).unwrap().0.0, 1_797_552_000_000);
    assert_eq!(parts.agents.values().next().unwrap().grants.len(), 2);
    let files = config.servers.get(&"fs".parse().unwrap()).unwrap();
    assert_eq!((files.timeout_ms, files.unknown_parameters), (7, UnknownParameters::Refuse));
    let Transport::Command(command) = &files.transport else { panic!("a command") };
    assert_eq!(command.cwd, Some(PathBuf::from("/etc/hp/work")));
    let file = ValueSource::File(PathBuf::from("/etc/hp/secret.txt"));
    assert_eq!(command.env.get("OTHER"), Some(&file));
    assert_eq!(command.env.get("KEY"), Some(&ValueSource::Env("K".to_owned())));
    let web = config.servers.get(&"web".parse().unwrap()).unwrap();
    assert_eq!((web.timeout_ms, web.unknown_parameters), (5, UnknownParameters::AsSchema));
    let tool = "fs__write_file".parse().unwrap();
    let target = config.settings.target(&tool, &serde_json::json!({ "path": "x" }));
    assert_eq!(target.resource, "file:///etc/hp/work/x");
}

#[test]
fn who_listens_to_others_is_warned_and_told_what_is_missing() {
    let exposed = "[listen]\nhttp = \"0.0.0.0:80\"\nexposed = true\noperations = \"10.0.0.1:9\"\n";
    expect![[r#"
        warning: keys of agents travel to `0.0.0.0:80` in plain text
         --> holdpoint.toml:2:8
          |
        2 | http = "0.0.0.0:80"
          |        ^^^^^^^^^^^^
          |
          = help: add `[listen.tls]`, unless a proxy in front speaks TLS

        0 faults, 1 warning
    "#]]
    .assert_eq(&shown(exposed));
    let faulty = "[listen]\noperations = \"10.0.0.1:9\"\ntls = { certificate = \"c.pem\" }\n\
                  [limits]\nheader_bytes_max = 100\nconnections_max = 0\n";
    expect![[r#"
        error: `10.0.0.1:9` can be reached by other machines
         --> holdpoint.toml:2:14
          |
        2 | operations = "10.0.0.1:9"
          |              ^^^^^^^^^^^^
          |
          = help: use `127.0.0.1:4748`, or say `exposed = true`

        error: the key `key` is missing
         --> holdpoint.toml:3:7
          |
        3 | tls = { certificate = "c.pem" }
          |       ^^^^^^^^^^^^^^^^^^^^^^^^^
          |
          = help: add `key = "key.pem"`

        error: 100 is not within 8192 and 1048576
         --> holdpoint.toml:5:20
          |
        5 | header_bytes_max = 100
          |                    ^^^
          |
          = help: the default is 16384

        error: 0 is not within 1 and 65536
         --> holdpoint.toml:6:19
          |
        6 | connections_max = 0
          |                   ^
          |
          = help: the default is 1024

        4 faults, 0 warnings
    "#]]
    .assert_eq(&shown(faulty));
}

#[test]
fn secrets_never_appear_in_a_report() {
    let text = "[server.a]\nurl = \"https://u:hunter2@h/\"\nheaders = { A = \"Bearer hunter2\" }\n\
                [server.b]\ncommand = [\"x\", \"--token=hunter2\"]\n";
    let (_, report) = read(text);
    assert_eq!(report.diagnostics().len(), 3);
    let said = format!("{}{:?}", report.render(Colour::Never), report.to_json());
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn names_are_brought_into_shape() {
    for (text, expected) in [
        ("Coder", "coder"),
        ("My Server!", "my_server"),
        ("a__b", "a_b"),
        ("1st", "st"),
        ("_x_", "x"),
        ("ünï", "n"),
        ("123", ""),
    ] {
        assert_eq!(sanitise(text), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn a_sanitised_name_is_valid_or_empty(text in any::<String>()) {
        let name = sanitise(&text);
        let valid = name.parse::<holdpoint_types::ServerName>().is_ok();
        prop_assert!(name.is_empty() || valid, "{}", name);
    }

    #[test]
    fn checking_never_panics(
        lines in prop::collection::vec(prop::sample::select(
            TEN_MISTAKES.lines().collect::<Vec<_>>()), 0..30),
    ) {
        let (config, report) = read(&lines.join("\n"));
        prop_assert_eq!(config.is_none(), report.has_faults());
        report.render(Colour::Always);
    }
}

#[test]
fn access_tokens_are_configured_and_their_mistakes_explained() {
    let agents = "[team.t]\n[agent.a]\nowner = \"t\"\noauth = { client_id = \"c\" }\n\
                  grants = [{ class = \"read\", tools = [\"*\"] }]\n";
    let least = format!("[listen.oauth]\nissuer = \"https://auth.example.com\"\n{agents}");
    let oauth = good(&least).listen.oauth.unwrap();
    assert_eq!(oauth.keys.issuer, "https://auth.example.com");
    assert_eq!((oauth.resource, oauth.algorithms.len()), (None, 9));
    assert_eq!(oauth.clients["c"].as_str(), "a");
    expect_file!["snapshots/oauth_mistakes.txt"].assert_eq(&shown(
        r#"
[listen]
http = "0.0.0.0:4747"
exposed = true
anonymous_agent = "a"

[listen.tls]
certificate = "cert.pem"
key = "key.pem"

[listen.oauth]
issuer = "http://auth.example.com"
resource = "http://holdpoint.example.com/mcp"
jwks_uri = "https://auth.example.com/jwks"
jwks_file = "jwks.json"
algorithms = ["HS256", "RS265"]
audiences = ["two words"]
leeway_s = 3600
keys_refresh_s = 600
keys_stale_s = 600
scopes = { read = "", write = "a\"b" }

[team.t]
[agent.a]
owner = "t"
oauth = { client_id = "c", subject = "s" }
grants = [{ class = "read", tools = ["*"] }]
[agent.b]
owner = "t"
oauth = { client_id = "c" }
grants = [{ class = "read", tools = ["*"] }]
[agent.c]
owner = "t"
oauth = { client_id = "c" }
grants = [{ class = "read", tools = ["*"] }]
[agent.d]
owner = "t"
oauth = { client = "c" }
grants = [{ class = "read", tools = ["*"] }]
"#,
    ));
    let warned = format!(
        "[listen]\noauth = {{ issuer = \"https://a/\", resource = \"http://h.example\" }}\n{}",
        agents.replace("oauth = { client_id = \"c\" }\n", "")
    );
    let elsewhere = [
        agents.to_owned(),
        warned,
        "[listen]\nhttp = \"0.0.0.0:1\"\nexposed = true\noauth = { issuer = \"https://a\" }\n"
            .to_owned(),
        "[listen.oauth]\n".to_owned(),
        "[listen.oauth]\nissuer = \"https://a\"\njwks_uri = \"https://u:hidden@a/k\"\n".to_owned(),
    ];
    let all: String = elsewhere.iter().map(|text| shown(text)).collect();
    expect_file!["snapshots/oauth_elsewhere.txt"].assert_eq(&all);
}

#[test]
fn code_that_must_stay_is_written_in_full() {
    let good =
        "[invariant.check_removed]\nkeeps = [{ paths = [\"a/**\"], pattern = \"auth($$$)\" }]\n";
    assert_eq!(shown(good), "");
    let text = r#"[invariant.mass_change]
keeps = [
  { paths = ["a"], pattern = "auth(" },
  { paths = ["a"], pattern = "$$$" },
  { paths = [], pattern = "auth()" },
  { paths = ["a"] },
]
"#;
    expect![[r#"
        error: `keeps` means something to `check_removed` only
         --> holdpoint.toml:1:1
          |
        1 | [invariant.mass_change]
          | ^^^^^^^^^^^^^^^^^^^^^^^
          |
          = help: for example `keeps = [{ paths = ["src/api/**"], pattern = "authorize($$$)" }]`

        error: the brackets or quotes of a pattern do not pair
         --> holdpoint.toml:3:30
          |
        3 |   { paths = ["a"], pattern = "auth(" },
          |                              ^^^^^^^
          |
          = help: for example `require_role($$$)`

        error: a pattern begins and ends with what stands in the code, not with `$`
         --> holdpoint.toml:4:30
          |
        4 |   { paths = ["a"], pattern = "$$$" },
          |                              ^^^^^
          |
          = help: for example `require_role($$$)`

        error: the key `paths` is missing
         --> holdpoint.toml:5:3
          |
        5 |   { paths = [], pattern = "auth()" },
          |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          |
          = help: add `paths = ["src/api/**"]`

        error: the key `pattern` is missing
         --> holdpoint.toml:6:3
          |
        6 |   { paths = ["a"] },
          |   ^^^^^^^^^^^^^^^^^
          |
          = help: add `pattern = "authorize($$$)"`

        5 faults, 0 warnings
    "#]]
    .assert_eq(&shown(text));
}

#[test]
fn an_invariant_or_an_edit_without_its_keys_is_a_fault() {
    let text = r#"[invariant.check_removed]
result = "warn"
[server.s]
command = ["s"]
[server.s.tool]
write.effects = [{ family = "file", act = "write", path = "/p", before = "/b" }]
patch.effects = [{ family = "patch", path = "/p" }]
"#;
    expect![[r#"
        error: nothing is said that must stay
         --> holdpoint.toml:1:1
          |
        1 | [invariant.check_removed]
          | ^^^^^^^^^^^^^^^^^^^^^^^^^
          |
          = help: for example `keeps = [{ paths = ["src/api/**"], pattern = "authorize($$$)" }]`

        error: `before` is told only of an edit
         --> holdpoint.toml:6:74
          |
        6 | write.effects = [{ family = "file", act = "write", path = "/p", before = "/b" }]
          |                                                                          ^^^^
          |
          = help: write `act = "edit"`

        error: the key `text` is missing
         --> holdpoint.toml:7:18
          |
        7 | patch.effects = [{ family = "patch", path = "/p" }]
          |                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          |
          = help: add `text = "…"`

        error: `path` means nothing to the family `patch`
         --> holdpoint.toml:7:18
          |
        7 | patch.effects = [{ family = "patch", path = "/p" }]
          |                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          |
          = help: it takes `text`

        4 faults, 0 warnings
    "#]]
    .assert_eq(&shown(text));
}
