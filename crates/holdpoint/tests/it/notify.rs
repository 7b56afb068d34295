//! Others are told of approvals, at least once and whoever of them is dead, and who reads a link
//! decides by it exactly what it was made for.

use crate::raw::{Answer, call, exchange, post, reason};
use crate::world::{PATIENCE, PEER, Serve, World, left_out, text, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};

const ADA: &str = "ada's key of at least thirty-two characters";
/// The way of what is told, a secret as that of a webhook is.
const SECRET: &str = "/services/T0/B0/hunter2hunter2";

/// Somebody who is told.
struct Ear {
    heard: Receiver<Heard>,
}

/// What arrived.
struct Heard {
    head: String,
    body: Value,
}

// === impl Ear ===

impl Ear {
    /// Listens on `port`, and answers as often as it likes with each of `statuses` first.
    fn open(port: u16, statuses: &'static [u16]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let (tell, heard) = channel();
        let mut statuses = statuses.iter().copied();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(heard) = hear(stream, statuses.next().unwrap_or(200)) else { continue };
                if tell.send(heard).is_err() {
                    return;
                }
            }
        });
        Self { heard }
    }

    fn next(&self) -> Heard {
        self.heard.recv_timeout(PATIENCE).expect("nothing was told")
    }
}

/// One request and its answer.
fn hear(stream: TcpStream, status: u16) -> Option<Heard> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
        let line = head.lines().last().unwrap_or_default().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let answer = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    reader.get_mut().write_all(answer.as_bytes()).ok()?;
    Some(Heard { head, body: serde_json::from_slice(&body).unwrap() })
}

/// A port that nobody listens on yet, below those that the system gives out by itself.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut ports = std::iter::repeat_with(|| {
        let number = std::process::id().wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        20_000 + u16::try_from(number % 10_000).unwrap()
    });
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// A world whose `coder` has every write approved, with ada and bob of the owning team and cleo of
/// none, and these who are told.
fn world(told: &str) -> World {
    let port = free_port();
    let config = PEER
        .replace("[agent.coder]\n", "[agent.coder]\nmode = \"approve-writes\"\n")
        .replace("127.0.0.1:0\"", &format!("127.0.0.1:{port}\""));
    let operators = r#"
[operator.ada]
key = { from_file = "ada.key" }
teams = ["platform"]

[operator.bob]
user = "nobody-here-1"
teams = ["platform"]

[operator.cleo]
user = "nobody-here-2"
"#;
    let told = told.replace("${port}", &port.to_string());
    let world = World::new(&format!("{config}\n{operators}\n{told}\n"));
    std::fs::write(world.path().join("ada.key"), ADA).unwrap();
    world
}

/// Somebody called `name` who is told on `port`.
fn told(name: &str, more: &str) -> String {
    format!("[notify.{name}]\nurl = {{ from_file = \"{name}.url\" }}\n{more}\n")
}

fn links(operator: &str) -> String {
    format!("links = {{ base = \"http://127.0.0.1:${{port}}\", operator = \"{operator}\" }}")
}

fn write_url(world: &World, name: &str, port: u16) {
    let url = format!("http://127.0.0.1:{port}{SECRET}\n");
    std::fs::write(world.path().join(format!("{name}.url")), url).unwrap();
}

/// Whoever is told as `direct`, the agent's key, and a server that runs.
fn started(world: &World) -> (Ear, String, Serve) {
    let ear_port = free_port();
    write_url(world, "direct", ear_port);
    let ear = Ear::open(ear_port, &[]);
    (ear, world.key("coder"), world.serve())
}

fn touch(world: &World, (serve, key): (&Serve, &str), name: &str) -> Value {
    let arguments = json!({ "path": world.files().join(name) });
    post(serve, ("/peer", key), &call(1, "touch", arguments)).body
}

/// The id of the approval that an answer names.
fn held(answer: &Value) -> String {
    let held = &answer["result"]["_meta"]["io.holdpoint/decision"]["held"];
    held["id"].as_str().unwrap_or_else(|| panic!("no approval in {answer}")).to_owned()
}

/// The link in a message, without what is before its path.
fn link(heard: &Heard) -> String {
    let link = match heard.body["link"].as_str() {
        Some(link) => link.to_owned(),
        None => {
            let told = heard.body["text"].as_str().unwrap();
            let link = told.split("\n<").nth(1).expect("a link").split('|').next().unwrap();
            link.replace("&amp;", "&")
        }
    };
    link[link.find("/approve").unwrap()..].to_owned()
}

fn get(serve: &Serve, link: &str) -> Page {
    page(serve, &format!("GET {link}"), &[], "")
}

/// What the form behind `link` says.
fn say(serve: &Serve, link: &str, more: &str) -> Page {
    say_from(serve, link, more, &["Origin: null", "Sec-Fetch-Site: same-origin"])
}

fn say_from(serve: &Serve, link: &str, more: &str, from: &[&str]) -> Page {
    let fields = link.split_once('?').unwrap().1;
    let mut head = vec!["Content-Type: application/x-www-form-urlencoded"];
    head.extend(from);
    page(serve, "POST /approve", &head, &format!("{fields}&{more}"))
}

/// An answer for people.
#[derive(Debug)]
struct Page {
    status: u16,
    head: String,
    text: String,
}

fn page(serve: &Serve, what: &str, head: &[&str], body: &str) -> Page {
    let Answer { status, head, text, .. } = exchange(serve, what, head, body.as_bytes());
    assert!(head.contains("default-src 'none'") && head.contains("no-referrer"), "{head}");
    Page { status, head, text }
}

const YES: &str = "because=looked+at+it&answer=yes";
const NO: &str = "because=no+%C3%BC&answer=no";

#[test]
fn who_reads_a_link_looks_as_often_as_they_like_and_decides_once() {
    let world = world(&told("direct", &links("ada")));
    let (ear, key, serve) = started(&world);
    let id = held(&touch(&world, (&serve, &key), "made"));
    let asked = ear.next();
    assert!(asked.head.starts_with(&format!("POST {SECRET}")), "{}", asked.head);
    let message = asked.body["text"].as_str().unwrap();
    for part in ["`coder` → `peer__touch` (write)", "/made", "`dev`", "owner × 1", &id] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!message.contains("parameters"), "{message}");
    // The same call again is no further request.
    assert_eq!(held(&touch(&world, (&serve, &key), "made")), id);
    let link = link(&asked);
    for _ in 0..2 {
        let page = get(&serve, &link);
        assert_eq!(page.status, 200, "{page:?}");
        for part in ["peer__touch", "/made", "waits", "<form method=\"post\"", "could be given by"]
        {
            assert!(page.text.contains(part), "{part}: {page:?}");
        }
        // What the form sends is the link.
        for part in link.split_once('?').unwrap().1.split('&') {
            let (name, value) = part.split_once('=').unwrap();
            let input = format!("type=\"hidden\" name=\"{name}\" value=\"{value}\"");
            assert!(page.text.contains(&input), "{input}: {page:?}");
        }
        for part in ["no-store", "x-frame-options: DENY", "frame-ancestors 'none'"] {
            assert!(page.head.contains(part), "{part}: {page:?}");
        }
        assert!(!page.text.contains("<script") && !page.text.contains("src="), "{page:?}");
    }
    // To look decides nothing.
    assert_eq!(held(&touch(&world, (&serve, &key), "made")), id);
    let page = say(&serve, &link, YES);
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.text.contains("Approved"), "{page:?}");
    assert_eq!(say(&serve, &link, YES).status, 200);
    let given = ear.next();
    let message = given.body["text"].as_str().unwrap();
    assert!(message.starts_with("*Approved*") && message.contains("`looked at it`"), "{message}");
    let records = world.records();
    let approved: Vec<_> = records.iter().filter(|one| one["kind"] == "approved").collect();
    assert_eq!(approved.len(), 1);
    assert_eq!((&approved[0]["way"], &approved[0]["by"]), (&json!("link"), &json!("ada")));
    assert_eq!(reason(&touch(&world, (&serve, &key), "made")), "answered");
    // It is used up, and the next such call asks anew, by another link.
    for page in [get(&serve, &link), say(&serve, &link, YES)] {
        assert_eq!(page.status, 410, "{page:?}");
    }
    assert_ne!(held(&touch(&world, (&serve, &key), "made")), id);
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
    for file in ["serve.log", ".holdpoint/ledger.db"] {
        let bytes = std::fs::read(world.path().join(file)).unwrap();
        assert!(!text(&bytes).contains("hunter2"), "{file}");
    }
}

#[test]
fn what_is_too_long_to_be_shown_is_not_hidden() {
    let world = world(&told("direct", &links("ada")));
    let (ear, key, serve) = started(&world);
    let long = format!("{}end", "x".repeat(30_000));
    let id = held(&touch(&world, (&serve, &key), &long));
    let page = get(&serve, &link(&ear.next()));
    assert_eq!(page.status, 200, "{}", page.head);
    let told = world.must(&["approvals", &id]);
    for shown in [&page.text, &told] {
        let begin = shown.to_lowercase().find("parameters").unwrap();
        let rest = &shown[begin..];
        assert!(!rest.contains("xend"), "it is shown whole");
        assert!(
            rest.contains(" more characters, which `--format json` shows)"),
            "{}",
            &rest[rest.len() - 500..]
        );
    }
    serve.end();
}

/// Refuses what did not come from our page, though it had the link, and what says nothing.
fn refuses_what_is_no_answer(serve: &Serve, link: &str) {
    for from in [
        &["Origin: https://evil.example.com"][..],
        &["Origin: null"],
        &["Origin: null", "Sec-Fetch-Site: cross-site"],
        &["Sec-Fetch-Site: same-site"],
        &["Host: evil.example.com"],
    ] {
        let page = say_from(serve, link, YES, from);
        assert_eq!(page.status, 403, "{from:?}: {page:?}");
    }
    // What is no answer.
    for more in ["answer=yes", "because=+&answer=yes", "because=a%0Ab&answer=yes", "because=x"] {
        assert_eq!(say(serve, link, more).status, 400, "{more}");
    }
    let long = format!("because={}&answer=yes", "x".repeat(20_000));
    assert_eq!(say(serve, link, &long).status, 400);
    let json = page(serve, "POST /approve", &["Content-Type: application/json"], "{}");
    assert_eq!(json.status, 400);
}

#[test]
fn no_other_link_decides_and_no_other_page() {
    let world = world(&(told("direct", &links("ada")) + "[approval.owner]\nexpires_s = 3600\n"));
    let (ear, key, serve) = started(&world);
    let one = held(&touch(&world, (&serve, &key), "one"));
    let first = link(&ear.next());
    held(&touch(&world, (&serve, &key), "two"));
    let second = link(&ear.next());
    let part = |link: &str, name: &str| {
        let found = link.split(['?', '&']).find(|part| part.starts_with(&format!("{name}=")));
        found.unwrap().to_owned()
    };
    let with = |name: &str, value: &str| first.replace(&part(&first, name), value);
    let flipped = match first.as_bytes()[first.len() - 1] {
        b'0' => "1",
        _ => "0",
    };
    let forged = [
        format!("{}{flipped}", &first[..first.len() - 1]),
        first[..first.len() - 1].to_owned(),
        with("by", "by=bob"),
        with("mac", &part(&second, "mac")),
        with("id", &part(&second, "id")),
        with("binding", &part(&second, "binding")),
        with("until", "until=99999999999999"),
        with("mac", "mac="),
        with("by", "by=ada&by=ada"),
        with("by", "by=ada&more=1"),
        "/approve?".to_owned(),
    ];
    for link in &forged {
        for page in [get(&serve, link), say(&serve, link, YES)] {
            assert_eq!(page.status, 403, "{link}: {page:?}");
            assert!(page.text.contains("not valid") && !page.text.contains("/one"), "{page:?}");
        }
    }
    refuses_what_is_no_answer(&serve, &first);
    // None of it decided anything.
    assert_eq!(held(&touch(&world, (&serve, &key), "one")), one);
    // A no holds, and becomes no yes.
    assert_eq!(say(&serve, &first, NO).status, 200);
    let page = say(&serve, &first, YES);
    assert_eq!(page.status, 410, "{page:?}");
    assert!(page.text.contains("said no before: no ü"), "{page:?}");
    let page = get(&serve, &first);
    assert!(page.text.contains("denied") && !page.text.contains("<form"), "{page:?}");
    assert_eq!(reason(&touch(&world, (&serve, &key), "one")), "approval_denied");
    assert!(!world.files().join("one").exists() && !world.files().join("two").exists());
    serve.end();
    world.must(&["verify"]);
}

#[test]
fn a_link_ends_with_its_approval_and_with_its_operator() {
    let world = world(&(told("direct", &links("ada")) + "[approval.owner]\nexpires_s = 2\n"));
    let (ear, key, serve) = started(&world);
    held(&touch(&world, (&serve, &key), "late"));
    let late = link(&ear.next());
    let ended = ear.next();
    assert!(ended.body["text"].as_str().unwrap().starts_with("*Ended without an approval*"));
    for page in [get(&serve, &late), say(&serve, &late, YES)] {
        assert_eq!(page.status, 410, "{page:?}");
    }
    serve.end();
    let config = std::fs::read_to_string(world.path().join("holdpoint.toml")).unwrap();
    let config = config.replace("expires_s = 2", "expires_s = 3600");
    world.write_config(&config);
    let serve = world.serve();
    let id = held(&touch(&world, (&serve, &key), "made"));
    let open = link(&ear.next());
    assert_eq!(get(&serve, &open).status, 200);
    serve.end();
    // Ada asks the agent for work now: she cannot approve it, not by an older link either.
    let asks = "mode = \"approve-writes\"\nrequesters = [\"ada\"]\n";
    world.write_config(&config.replace("mode = \"approve-writes\"\n", asks));
    let serve = world.serve();
    let page = get(&serve, &open);
    assert!(page.text.contains("You cannot approve it"), "{page:?}");
    assert!(!page.text.contains("value=\"yes\""), "{page:?}");
    let page = say(&serve, &open, YES);
    assert_eq!(page.status, 403, "{page:?}");
    assert!(page.text.contains("acts for"), "{page:?}");
    serve.end();
    // Nor is she in the team, or reads what is told.
    let other = config.replacen("teams = [\"platform\"]", "roles = [\"dba\"]", 1);
    world.write_config(&other);
    let serve = world.serve();
    let page = say(&serve, &open, YES);
    assert_eq!(page.status, 403, "{page:?}");
    assert!(page.text.contains("none of the roles"), "{page:?}");
    serve.end();
    world.write_config(&config.replace("operator = \"ada\"", "operator = \"bob\""));
    let serve = world.serve();
    let page = say(&serve, &open, YES);
    assert_eq!(page.status, 403, "{page:?}");
    assert!(page.text.contains("not in use any more"), "{page:?}");
    serve.end();
    assert!(!world.files().join("made").exists());
    assert!(!world.records().iter().any(|one| one["kind"] == "approved"), "{id}");
}

/// True if it is written down that `name` was told of `approval`, and not yet of its end.
fn waits(world: &World, name: &str, approval: &str) -> bool {
    let place = world.store().join("notify").join(format!("{name}.json"));
    std::fs::read_to_string(place).is_ok_and(|place| place.contains(approval))
}

#[test]
fn a_dead_ear_delays_nobody_and_hears_later_what_it_missed() {
    let both = told("dead", &links("cleo")) + &told("live", "format = \"json\"\nparameters = true");
    let world = world(&both);
    let (dead_port, live_port) = (free_port(), free_port());
    write_url(&world, "dead", dead_port);
    write_url(&world, "live", live_port);
    let live = Ear::open(live_port, &[]);
    // Whoever takes it and never answers is as dead as who does not take it.
    let mute = TcpListener::bind(("127.0.0.1", dead_port)).unwrap();
    let key = world.key("coder");
    let serve = world.serve();
    let first = held(&touch(&world, (&serve, &key), "first"));
    let heard = live.next();
    assert_eq!(
        (&heard.body["event"], &heard.body["approval"]),
        (&json!("approval_asked"), &json!(first))
    );
    assert_eq!((&heard.body["class"], &heard.body["needs"]["owner"]), (&json!("write"), &json!(1)));
    let names: BTreeSet<_> = heard.body.as_object().unwrap().keys().map(String::as_str).collect();
    // As docs/operations.md lists them.
    let listed = "event approval agent tool class target environment because preview needs \
                  expires_ms command parameters";
    assert_eq!(names, listed.split_whitespace().collect());
    let parameters = heard.body["parameters"].as_str().unwrap();
    assert!(parameters.contains("/first"), "{parameters}");
    assert!(heard.body["link"].is_null());
    // Who is killed in between tells it again.
    until("it is written down that it was told", || waits(&world, "live", &first).then_some(()));
    drop(mute);
    until("the status says who cannot be told", || {
        let status = world.must(&["status"]);
        status.contains("`dead` cannot be told of approvals").then_some(())
    });
    serve.kill();
    let serve = world.serve();
    let second = held(&touch(&world, (&serve, &key), "second"));
    assert_eq!(live.next().body["approval"], json!(second));
    let head = [format!("Authorization: Bearer {ADA}"), "Content-Type: application/json".into()];
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let body = json!({ "answer": "no", "because": "not today" }).to_string();
    let said = exchange(&serve, &format!("POST /api/v1/approvals/{first}"), &head, body.as_bytes());
    assert_eq!(said.status, 200);
    let denied = live.next().body;
    assert_eq!((&denied["event"], &denied["by"]), (&json!("approval_denied"), &json!("ada")));
    assert_eq!(denied["said"], "not today");
    // It comes up, is out of order for a moment, and hears all of it in its order.
    let dead = Ear::open(dead_port, &[503]);
    let tell = |heard: Heard| heard.body["text"].as_str().unwrap().to_owned();
    let (once, again) = (tell(dead.next()), tell(dead.next()));
    assert!(once.contains(&first) && once == again, "{once}\n{again}");
    // Cleo may not approve it, so there is no link for her.
    assert!(!once.contains("/approve"), "{once}");
    assert!(tell(dead.next()).contains(&second));
    assert!(tell(dead.next()).starts_with("*Denied*"));
    until("the status is well again", || {
        let status = world.must(&["status"]);
        (!status.contains("cannot be told")).then_some(())
    });
    until("it is written down that all was told", || {
        (waits(&world, "dead", &second) && !waits(&world, "dead", &first)).then_some(())
    });
    serve.kill();
    // What was told is not told again.
    let serve = world.serve();
    let third = held(&touch(&world, (&serve, &key), "third"));
    assert!(tell(dead.next()).contains(&third));
    assert_eq!(live.next().body["approval"], json!(third));
    serve.end();
}

#[test]
fn a_reload_changes_who_is_told_and_loses_nothing() {
    let world = world(&told("one", "format = \"json\""));
    let (one_port, two_port) = (free_port(), free_port());
    write_url(&world, "one", one_port);
    write_url(&world, "two", two_port);
    let (one, two) = (Ear::open(one_port, &[]), Ear::open(two_port, &[]));
    let key = world.key("coder");
    let serve = world.serve();
    let first = held(&touch(&world, (&serve, &key), "first"));
    assert_eq!(one.next().body["approval"], json!(first));
    let config = std::fs::read_to_string(world.path().join("holdpoint.toml")).unwrap();
    let reload = |config: &str, times: usize| {
        world.write_config(config);
        serve.signal(rustix::process::Signal::HUP);
        until("the configuration is in force", || {
            (world.serve_log().matches("configuration in force").count() == times).then_some(())
        });
    };
    reload(&config.replace("notify.one", "notify.two").replace("one.url", "two.url"), 1);
    // Who is told for the first time is told of what comes from then on.
    until("the second one has a place", || {
        world.store().join("notify/two.json").exists().then_some(())
    });
    let second = held(&touch(&world, (&serve, &key), "second"));
    assert_eq!(two.next().body["approval"], json!(second));
    reload(&config, 2);
    // The first one hears what it missed.
    assert_eq!(one.next().body["approval"], json!(second));
    serve.end();
}

#[test]
fn a_message_that_nobody_wants_is_given_up() {
    let world = world(&told("direct", "format = \"json\""));
    let ear_port = free_port();
    write_url(&world, "direct", ear_port);
    let ear = Ear::open(ear_port, &[400, 413, 422]);
    let key = world.key("coder");
    let serve = world.serve();
    let first = held(&touch(&world, (&serve, &key), "first"));
    let second = held(&touch(&world, (&serve, &key), "second"));
    let heard: Vec<_> = (0..4).map(|_| ear.next().body["approval"].clone()).collect();
    assert_eq!(heard, [json!(first), json!(first), json!(first), json!(second)]);
    serve.end();
}

#[test]
fn what_an_agent_writes_keeps_no_other_message_from_getting_through() {
    for format in ["json", "slack"] {
        let world = world(&told("direct", &format!("format = \"{format}\"\nparameters = true")));
        let ear_port = free_port();
        write_url(&world, "direct", ear_port);
        // Something in front of it does not like what it reads.
        let ear = Ear::open(ear_port, &[403, 403, 406]);
        let key = world.key("coder");
        let serve = world.serve();
        let first = held(&touch(&world, (&serve, &key), "' OR 1=1 --"));
        let second = held(&touch(&world, (&serve, &key), "second"));
        let heard: Vec<_> = (0..5).map(|_| ear.next().body.to_string()).collect();
        for (number, told) in heard.iter().enumerate() {
            let id = if number < 4 { &first } else { &second };
            assert!(told.contains(id.as_str()) && told.contains("peer__touch"), "{told}");
            assert_eq!(told.contains("OR 1=1"), number < 3, "{told}");
        }
        assert!(heard[4].contains("/second"), "{}", heard[4]);
        serve.end();
    }
}

#[test]
fn markup_of_an_agent_is_text_in_messages_and_pages() {
    let more = format!("{}\nparameters = true", links("ada"));
    let world = world(&told("direct", &more));
    let (ear, key, serve) = started(&world);
    let name = "<!channel> `*x*` <script>alert(1)</script>\u{202e}\n& \"'";
    held(&touch(&world, (&serve, &key), name));
    let asked = ear.next();
    let message = asked.body["text"].as_str().unwrap();
    assert!(message.contains("&lt;!channel&gt;") && message.contains("'*x*'"), "{message}");
    let markup = message.replace("\n<http://127.0.0.1", "");
    assert!(!markup.contains('<') && !message.contains('\u{202e}'), "{message}");
    // Every line is ours: what the agent wrote stays within one.
    assert!(message.lines().all(|line| !line.starts_with("& ")), "{message}");
    let page = get(&serve, &link(&asked));
    assert!(page.text.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{page:?}");
    assert!(!page.text.contains("<script") && !page.text.contains('\u{202e}'), "{page:?}");
    // However much it writes, a message is as long as people read.
    held(&touch(&world, (&serve, &key), &"<&>".repeat(5_000)));
    let message = ear.next().body["text"].as_str().unwrap().to_owned();
    assert!(message.chars().count() < 3_000, "{}", message.chars().count());
    serve.end();
}

#[test]
fn the_page_behind_a_link_shows_what_would_change_and_no_secret() {
    let served = "[server.orders]\nenvironment = \"dev\"\nserves = { sqlite = \"orders.db\", rows_max = 1 }\n";
    let world = world(&(told("direct", &links("ada")) + served));
    let config = std::fs::read_to_string(world.path().join("holdpoint.toml")).unwrap();
    let all = "{ class = \"write\", tools = [\"*\"] }";
    let more = format!("{all}, {{ class = \"destructive\", tools = [\"orders__sql_execute\"] }}");
    world.write_config(&config.replace(all, &more));
    let database = rusqlite::Connection::open(world.path().join("orders.db")).unwrap();
    let rows = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, password TEXT);
        INSERT INTO t VALUES (1, 'old <b>', 'hunter2'), (2, 'two', 'x');";
    database.execute_batch(rows).unwrap();
    let (ear, key, serve) = started(&world);
    let sql = "UPDATE t SET v = 'new & <i>', password = 'hunter3' WHERE id = 1";
    let execute =
        || post(&serve, ("/orders", &key), &call(1, "sql_execute", json!({ "sql": sql }))).body;
    held(&execute());
    let asked = ear.next();
    let message = asked.body["text"].as_str().unwrap();
    assert!(message.contains("exactly: make 0, change 1, delete 0"), "{message}");
    assert!(!message.contains("&lt;b") && !message.contains("hunter"), "{message}");
    let link = link(&asked);
    let page = get(&serve, &link);
    for part in ["-v: &quot;old &lt;b&gt;&quot;", "+v: &quot;new &amp; &lt;i&gt;&quot;", "hidden"] {
        assert!(page.text.contains(part), "{part}: {page:?}");
    }
    assert!(!page.text.contains("hunter2") && !page.text.contains("<i>"), "{page:?}");
    // If a row is another by then, a yes is for nothing, as it is anyway.
    database.execute("UPDATE t SET v = 'other' WHERE id = 1", []).unwrap();
    assert_eq!(say(&serve, &link, YES).status, 200);
    held(&execute());
    database.execute("UPDATE t SET v = 'old <b>' WHERE id = 1", []).unwrap();
    assert_eq!(reason(&execute()), "answered");
    assert!(ear.next().body["text"].as_str().unwrap().starts_with("*Approved*"));
    assert!(ear.next().body["text"].as_str().unwrap().contains("change 1,"));
    // Where it is more than a preview shows, people are told so.
    let all = json!({ "sql": "UPDATE t SET password = 'hunter4' WHERE id < 3" });
    held(&post(&serve, ("/orders", &key), &call(1, "sql_execute", all)).body);
    let told = ear.next().body["text"].as_str().unwrap().to_owned();
    assert!(told.contains("would do: `too large"), "{told}");
    assert!(!told.contains("hunter") && told.contains("/approve"), "{told}");
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

/// What a real browser saw behind `link`, and after it gave `reason` there, if there is one.
fn browse(program: &str, (serve, link): (&Serve, &str), reason: Option<&str>) -> Value {
    let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/browser.mjs");
    let url = format!("{}{link}", serve.url.strip_suffix("/mcp").unwrap());
    let mut command = Command::new("node");
    command.args([driver, program, &url]).args(reason);
    let run = command.output().unwrap();
    assert!(run.status.success(), "{}", text(&run.stderr));
    serde_json::from_slice(&run.stdout).unwrap()
}

/// A headless Chromium, under the name that it has here.
fn chromium() -> Option<&'static str> {
    let there = |name: &&str| {
        Command::new(name).arg("--version").output().is_ok_and(|run| run.status.success())
    };
    let found = ["chromium-headless-shell", "chromium", "google-chrome"].into_iter().find(there);
    if found.is_none() {
        let lacks = "this test needs Chromium (on Debian: chromium-headless-shell)";
        assert!(std::env::var_os("CI").is_none(), "{lacks}");
        left_out(&format!("a link in a browser: {lacks}"));
    }
    found
}

#[test]
fn a_browser_that_follows_a_link_runs_nothing_and_decides_by_its_button_alone() {
    let Some(program) = chromium() else { return };
    let world = world(&told("direct", &links("ada")));
    let (ear, key, serve) = started(&world);
    let name = "made<script>window.ran=1</script><img src=x onerror=window.ran=2>";
    let id = held(&touch(&world, (&serve, &key), name));
    let link = link(&ear.next());

    // To look decides nothing, and nothing runs: neither what the agent wrote nor what somebody
    // could bring into the page.
    let saw = browse(program, (&serve, &link), None);
    let looked = &saw["looked"];
    assert_eq!(looked["title"], "Approval: coder wants peer__touch", "{saw}");
    assert!(looked["text"].as_str().unwrap().contains("made<script>window.ran=1"), "{saw}");
    assert_eq!(looked["buttons"], json!(["no", "yes"]), "{saw}");
    assert_eq!((&looked["scripts"], &looked["ran"]), (&json!(0), &Value::Null), "{saw}");
    let requests = saw["requests"].as_array().unwrap();
    assert_eq!(requests.len(), 1, "the page needs nothing else: {saw}");
    let blocked = ["connect-src", "img-src", "script-src-attr", "script-src-elem"];
    assert_eq!((&saw["blocked"], &saw["ran"]), (&json!(blocked), &Value::Null), "{saw}");
    assert_eq!(held(&touch(&world, (&serve, &key), name)), id, "it still waits");
    assert!(!world.records().iter().any(|one| one["kind"] == "approved"), "nobody said yes");

    let saw = browse(program, (&serve, &link), Some("looked at it"));
    assert_eq!(saw["after"]["title"], "Approved", "{saw}");
    assert_eq!(saw["after"]["ran"], Value::Null, "{saw}");
    let records = world.records();
    let approved: Vec<_> = records.iter().filter(|one| one["kind"] == "approved").collect();
    assert_eq!(approved.len(), 1, "{approved:?}");
    let [one] = approved.as_slice() else { panic!("{approved:?}") };
    assert_eq!((&one["way"], &one["by"]), (&json!("link"), &json!("ada")), "{one}");
    assert_eq!(one["because"], "looked at it", "{one}");
    serve.end();
    world.must(&["verify"]);
}

/// What proposes a plan of one step that makes a file, with these words.
fn plan(world: &World, purpose: &str, more: Value) -> Value {
    let target = format!("file://{}/made", world.files().canonicalize().unwrap().display());
    let step = json!({ "id": "make", "tool": "peer__touch", "class": "write",
                       "targets": [target, "file:///nowhere/at/all/**"] });
    let mut plan = json!({ "purpose": purpose, "steps": [step] });
    plan.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    call(1, "holdpoint_plan_propose", plan)
}

#[test]
fn who_is_told_is_told_of_plans_that_wait_and_what_becomes_of_them() {
    let both = told("direct", "") + &told("audit", "format = \"json\"") + "[plans]\n";
    let world = world(&both);
    let ports = [free_port(), free_port()];
    write_url(&world, "direct", ports[0]);
    write_url(&world, "audit", ports[1]);
    let [direct, audit] = ports.map(|port| Ear::open(port, &[]));
    let key = world.key("coder");
    let serve = world.serve();
    let propose = |purpose: &str, more: Value| {
        let answer = post(&serve, ("/peer", &key), &plan(&world, purpose, more)).body;
        let told = &answer["result"]["structuredContent"];
        let id = told["plan"].as_str().unwrap_or_else(|| panic!("no plan: {answer}")).to_owned();
        (id, told["state"].as_str().unwrap().to_owned())
    };
    // What the checker refuses waits for nobody.
    let nothing = json!({ "steps": [] });
    assert_eq!(propose("nothing", nothing).1, "refused");
    let (id, state) = propose("tidy <!channel> `up`, PASSWORD=hunter2", json!({}));
    assert_eq!(state, "proposed");
    let message = direct.next().body["text"].as_str().unwrap().to_owned();
    for part in [
        "*A plan waits to be accepted*: `coder`, `tidy &lt;!channel&gt; 'up', ",
        "step `make`: `peer__touch` (write, × 1) on `file:///",
        "/made`, `file:///nowhere/at/all/**`",
        &format!("\n`holdpoint plan show {id}`"),
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let body = audit.next().body;
    assert_eq!((&body["event"], &body["plan"]), (&json!("plan_proposed"), &json!(id)), "{body}");
    assert_eq!(body["steps"]["first"][0]["targets"]["count"], 2, "{body}");
    for told in [message, body.to_string()] {
        assert!(!told.contains("hunter2"), "{told}");
    }

    let rule = |id: &str, accept: bool, because: &str| {
        let key = format!("Authorization: Bearer {ADA}");
        let body = json!({ "accept": accept, "because": because }).to_string();
        let head = [key.as_str(), "Content-Type: application/json"];
        exchange(&serve, &format!("POST /api/v1/plans/{id}"), &head, body.as_bytes()).status
    };
    assert_eq!(rule(&id, true, "looks right"), 200);
    let message = direct.next().body["text"].as_str().unwrap().to_owned();
    assert!(message.starts_with("*Plan accepted*") && message.contains("looks right"), "{message}");
    assert_eq!(audit.next().body["event"], "plan_accepted");

    let (other, _) = propose("make another", json!({}));
    assert_eq!(audit.next().body["plan"], json!(other));
    assert_eq!(rule(&other, false, "not today"), 200);
    let body = audit.next().body;
    assert_eq!((&body["event"], &body["said"]), (&json!("plan_refused"), &json!("not today")));

    let (late, _) = propose("make it soon", json!({ "expires_in_s": 1 }));
    assert_eq!(audit.next().body["plan"], json!(late));
    until("its time is over", || {
        let open = world.run(&["--format", "json", "plan", "list"]);
        (!text(&open.stdout).contains(&late)).then_some(())
    });
    assert_eq!(rule(&late, true, "too late"), 409);
    let body = audit.next().body;
    assert_eq!((&body["event"], &body["plan"]), (&json!("plan_ended"), &json!(late)), "{body}");
    serve.end();
    world.must(&["verify"]);
}

#[test]
fn check_says_what_is_missing_to_tell_others() {
    let world = world(&told("direct", &links("adda")));
    let checked = world.run(&["check"]);
    let said = text(&checked.stderr) + &text(&checked.stdout);
    assert_eq!(checked.status.code(), Some(2), "{said}");
    assert!(said.contains("the operator `adda` is not declared"), "{said}");
    assert!(said.contains("did you mean `ada`?"), "{said}");
    let config = std::fs::read_to_string(world.path().join("holdpoint.toml")).unwrap();
    world.write_config(&config.replace("adda", "ada"));
    let checked = world.run(&["check"]);
    assert!(checked.status.success(), "{checked:?}");
    assert!(text(&checked.stderr).contains("`notify.direct`: cannot read"), "{checked:?}");
    assert!(text(&checked.stderr).contains("`serve` does not begin"), "{checked:?}");
    let served = world.run(&["serve"]);
    assert!(text(&served.stderr).contains("`notify.direct` cannot be told anything"));
    std::fs::write(world.path().join("direct.url"), "http://chat.example.com/hunter2").unwrap();
    let served = world.run(&["serve"]);
    let said = text(&served.stderr);
    assert!(said.contains("plain `http`") && !said.contains("hunter2"), "{said}");
}
