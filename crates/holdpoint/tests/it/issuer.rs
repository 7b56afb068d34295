//! Authorization servers for tests: a real one, and one that says what it is told to.

use crate::world::{PATIENCE, oauth_modules, text};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A real authorization server (npm `oidc-provider`); killed when dropped.
pub struct Issuer {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Its issuer URL.
    pub url: String,
}

/// A server that publishes keys, well or badly, and counts who asks.
pub struct Keys {
    /// Where the keys are.
    pub uri: String,
    manner: Arc<Mutex<Manner>>,
    asked: Arc<AtomicUsize>,
}

/// How [`Keys`] answers.
#[derive(Clone)]
pub enum Manner {
    /// With this status, further headers and body.
    Answer(&'static str, String, String),
    /// By hanging up.
    Down,
    /// Never.
    Silent,
    /// With a body that does not end.
    Endless,
}

// === impl Issuer ===

impl Issuer {
    pub fn start() -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/issuer.mjs");
        let mut command = Command::new("node");
        command.arg(program).arg(oauth_modules()).stderr(Stdio::null());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut issuer = Self { child, stdin, stdout: BufReader::new(stdout), url: String::new() };
        issuer.url = issuer.line()["issuer"].as_str().unwrap().to_owned();
        issuer
    }

    /// Tells it something, and waits until it is done.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
        assert_eq!(self.line()["done"], true);
    }

    fn line(&mut self) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the issuer ended");
            // It has notices of its own.
            if let Ok(answer) = serde_json::from_str(&line) {
                return answer;
            }
        }
    }

    /// An access token for a client of its own accord.
    pub fn issue(&self, client: &str, resource: &str, scope: &str) -> String {
        let credentials = format!("&client_id={client}&client_secret={client}-secret");
        let what = format!("grant_type=client_credentials&resource={resource}&scope={scope}");
        let body = format!("{what}{credentials}");
        let head = "Content-Type: application/x-www-form-urlencoded";
        let (_, answer) = http(&format!("{}/token", self.url), "POST", (head, &body));
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let issued = answer["access_token"].as_str();
        issued.unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Keys ===

impl Keys {
    pub fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("http://{}/jwks", listener.local_addr().unwrap());
        let (manner, asked) = (Arc::new(Mutex::new(manner)), Arc::new(AtomicUsize::new(0)));
        let (of, count) = (Arc::clone(&manner), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let manner = of.lock().unwrap().clone();
                std::thread::spawn(move || serve(stream.unwrap(), &manner));
            }
        });
        Self { uri, manner, asked }
    }

    /// Good keys.
    pub fn good(keys: &Value) -> Manner {
        Manner::Answer("200 OK", String::new(), serde_json::json!({ "keys": [keys] }).to_string())
    }

    pub fn turn(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn serve(mut stream: TcpStream, manner: &Manner) {
    let mut head = [0; 4096];
    if matches!(manner, Manner::Down) || stream.read(&mut head).is_err() {
        return;
    }
    match manner {
        Manner::Answer(status, headers, body) => {
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}");
            let all = format!("{head}Content-Length: {length}\r\n\r\n{body}");
            let _ = stream.write_all(all.as_bytes());
        }
        Manner::Silent => {
            // Until the other side gives up.
            let _ = stream.read(&mut head);
        }
        Manner::Endless => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"keys\":[");
            while stream.write_all(&[b' '; 65_536]).is_ok() {}
        }
        Manner::Down => {}
    }
}

/// One HTTP exchange: status and body.
pub fn http(url: &str, method: &str, (head, body): (&str, &str)) -> (u16, String) {
    let (authority, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(authority).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "{method} /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n{head}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = text(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
