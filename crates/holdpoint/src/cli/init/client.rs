//! The client's side: reads an `mcpServers` file, and leads its entries through Holdpoint.
//! Must keep every key that it does not know, and never take a secret out of the file.

use super::super::WrongUsage;
use crate::config::{is_plain_value, is_secret_option, is_secret_value, sanitise, variable_for};
use holdpoint_types::{JsonLimits, ServerName};
use serde::Serialize as _;
use serde_json::ser::PrettyFormatter;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// The keys under which clients list their servers.
const LISTS: [&str; 2] = ["mcpServers", "servers"];
/// What stands where a secret argument was.
const HIDDEN: &str = "REPLACE-ME";

/// A client's configuration file.
#[derive(Debug)]
pub(super) struct Client {
    /// The servers that were found.
    pub(super) servers: Vec<Imported>,
    /// Entries that go through Holdpoint already.
    pub(super) led_before: Vec<String>,
    /// Entries that cannot be used, and why.
    pub(super) unusable: Vec<(String, String)>,
    list: &'static str,
    root: Value,
    indent: String,
}

/// One entry of a client's file, without its secrets.
#[derive(Debug)]
pub(super) struct Imported {
    /// Its name in Holdpoint.
    pub(super) name: ServerName,
    /// Its name in the client.
    pub(super) listed_as: String,
    /// Where it is.
    pub(super) endpoint: Endpoint,
    /// Environment variables or headers.
    pub(super) values: Vec<(String, Kept)>,
    /// How many arguments were not copied because they look like secrets.
    pub(super) hidden: usize,
    /// Whether the client leads it through Holdpoint already.
    pub(super) led: Led,
}

/// Whether a client leads a server through Holdpoint already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Led {
    /// It does.
    Already,
    /// It does not.
    NotYet,
}

/// Where a server is.
#[derive(Debug)]
pub(super) enum Endpoint {
    /// A program and its arguments.
    Command { words: Vec<String>, cwd: Option<String> },
    /// A URL.
    Url { url: String },
}

/// What is kept of a value.
#[derive(Debug)]
pub(super) enum Kept {
    /// The value itself, which is certainly harmless.
    Literal(String),
    /// The variable that holds it.
    Env(String),
}

// === impl Client ===

impl Client {
    /// Reads a client's file. Entries that go through Holdpoint with the configuration `ours` are
    /// servers of ours.
    ///
    /// # Errors
    /// When it is not plain JSON, or lists no servers.
    pub(super) fn parse(text: &str, ours: &Path) -> anyhow::Result<Self> {
        let bytes = text.trim_start_matches('\u{feff}').as_bytes();
        let root = holdpoint_types::parse(bytes, JsonLimits::default())
            .map_err(|fault| WrongUsage(format!("the file is not plain JSON: {fault}")))?;
        let list = LISTS.into_iter().find(|list| root.get(list).is_some_and(Value::is_object));
        let Some(list) = list else {
            let text = "the file has no object `mcpServers` or `servers`".to_owned();
            return Err(WrongUsage(text).into());
        };
        let mut client = Self {
            servers: Vec::new(),
            led_before: Vec::new(),
            unusable: Vec::new(),
            list,
            root: Value::Null,
            indent: indent_of(text),
        };
        let mut taken = BTreeSet::new();
        for (name, entry) in root.get(list).and_then(Value::as_object).into_iter().flatten() {
            client.add(name, (entry, ours), &mut taken);
        }
        client.root = root;
        Ok(client)
    }

    fn add(
        &mut self,
        listed_as: &str,
        (entry, ours): (&Value, &Path),
        taken: &mut BTreeSet<String>,
    ) {
        if is_led(entry) {
            let before = unwrapped(entry, ours).filter(|(name, _)| !taken.contains(name.as_str()));
            let read = before.map(|(name, entry)| Imported::read(name, listed_as, &entry));
            match read {
                Some(Ok(imported)) => {
                    taken.insert(imported.name.to_string());
                    self.servers.push(Imported { led: Led::Already, ..imported });
                }
                Some(Err(_)) | None => self.led_before.push(listed_as.to_owned()),
            }
            return;
        }
        let Some(name) = free_name(listed_as, taken) else {
            self.unusable.push((listed_as.to_owned(), "it has no usable name".to_owned()));
            return;
        };
        match Imported::read(name, listed_as, entry) {
            Ok(imported) => {
                taken.insert(imported.name.to_string());
                self.servers.push(imported);
            }
            Err(why) => self.unusable.push((listed_as.to_owned(), why.to_owned())),
        }
    }

    /// Leads every entry with a command through `holdpoint wrap`; true if there is any.
    pub(super) fn lead_through(&mut self, program: &str, config: &Path, agent: &str) -> bool {
        let mut led = false;
        let Some(Value::Object(entries)) = self.root.get_mut(self.list) else { return false };
        for server in &self.servers {
            let Some(Value::Object(entry)) = entries.get_mut(&server.listed_as) else { continue };
            if server.led == Led::Already {
                led |= lead_as(entry, agent);
                continue;
            }
            let Some(command) = entry.get("command").cloned() else { continue };
            let config = config.display().to_string();
            let mut words = vec![
                json!("wrap"),
                json!("--config"),
                json!(config),
                json!("--agent"),
                json!(agent),
                json!("--server"),
                json!(server.name.as_str()),
                json!("--"),
            ];
            match command {
                Value::Array(old) => words.extend(old),
                old => words.push(old),
            }
            let old = entry.get("args").and_then(Value::as_array).cloned();
            words.extend(old.unwrap_or_default());
            entry.insert("command".to_owned(), json!(program));
            entry.insert("args".to_owned(), Value::Array(words));
            led = true;
        }
        led
    }

    /// The file with its own indentation.
    ///
    /// # Errors
    /// Never in practice: a JSON value can always be written.
    pub(super) fn to_text(&self) -> anyhow::Result<String> {
        let mut bytes = Vec::new();
        let formatter = PrettyFormatter::with_indent(self.indent.as_bytes());
        self.root.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))?;
        bytes.push(b'\n');
        Ok(String::from_utf8(bytes)?)
    }
}

// === impl Imported ===

impl Imported {
    /// Keys whose values were not copied, and the variables that hold them.
    pub(super) fn references(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().filter_map(|(key, kept)| match kept {
            Kept::Env(variable) => Some((key.as_str(), variable.as_str())),
            Kept::Literal(_) => None,
        })
    }

    fn read(name: ServerName, listed_as: &str, entry: &Value) -> Result<Self, &'static str> {
        let listed_as = listed_as.to_owned();
        let values = |key| entry.get(key).and_then(Value::as_object);
        if let Some(url) = entry.get("url").or_else(|| entry.get("serverUrl")) {
            let url = url.as_str().filter(|url| !is_secret_value(url));
            let url = url.ok_or("its URL is no text, or holds credentials")?;
            let url = reqwest::Url::parse(url).map_err(|_| "its URL is none")?;
            if !matches!(url.scheme(), "http" | "https") {
                return Err("its URL is neither `http` nor `https`");
            }
            let of_name = |key: &str| variable_for(&format!("{name}_{key}"));
            let values = keep(values("headers"), of_name);
            let endpoint = Endpoint::Url { url: url.to_string() };
            return Ok(Self { name, listed_as, endpoint, values, hidden: 0, led: Led::NotYet });
        }
        let mut words = words_of(entry)?;
        let hidden = hide_secrets(&mut words);
        let values = keep(values("env"), str::to_owned);
        let cwd = entry.get("cwd").and_then(Value::as_str);
        let cwd = cwd.filter(|cwd| cwd.starts_with('/')).map(str::to_owned);
        let endpoint = Endpoint::Command { words, cwd };
        Ok(Self { name, listed_as, endpoint, values, hidden, led: Led::NotYet })
    }
}

/// True if the entry starts Holdpoint already.
fn is_led(entry: &Value) -> bool {
    let command = entry.get("command").and_then(Value::as_str).unwrap_or_default();
    let program = Path::new(command).file_name().is_some_and(|name| name == "holdpoint");
    let arguments = entry.get("args").and_then(Value::as_array).into_iter().flatten();
    program && arguments.take_while(|word| *word != "--").any(|word| word == "wrap")
}

/// The server behind an entry that `lead_through` wrote with the configuration `ours`, and the
/// entry as it was before.
fn unwrapped(entry: &Value, ours: &Path) -> Option<(ServerName, Value)> {
    let words = entry.get("args")?.as_array()?;
    let end = words.iter().position(|word| word == "--")?;
    let (options, command) = words.split_at_checked(end)?;
    let option = |name: &str| {
        let at = options.iter().position(|word| word == name)?;
        options.get(at.checked_add(1)?)?.as_str()
    };
    let (_, command) = command.split_first()?;
    let (program, arguments) = command.split_first()?;
    let name = option("--server")?.parse().ok()?;
    let mut before = entry.clone();
    before["command"] = program.clone();
    before["args"] = Value::Array(arguments.to_vec());
    (Path::new(option("--config")?) == ours).then_some((name, before))
}

/// Has an entry act as `agent`; true if it did not before.
fn lead_as(entry: &mut Map<String, Value>, agent: &str) -> bool {
    let words = entry.get_mut("args").and_then(Value::as_array_mut);
    let mut words = words.into_iter().flatten().take_while(|word| *word != "--");
    let Some(_) = words.find(|word| *word == "--agent") else { return false };
    let Some(word) = words.next().filter(|word| *word != agent) else { return false };
    *word = json!(agent);
    true
}

fn words_of(entry: &Value) -> Result<Vec<String>, &'static str> {
    let command = entry.get("command").ok_or("it has neither `command` nor `url`")?;
    let command = match command {
        Value::Array(words) => words.clone(),
        other => vec![other.clone()],
    };
    let arguments = match entry.get("args") {
        None => Vec::new(),
        Some(Value::Array(words)) => words.clone(),
        Some(_) => return Err("its `args` are no array"),
    };
    let texts = command.into_iter().chain(arguments).map(|word| match word {
        Value::String(text) if !text.contains('\0') => Some(text),
        _ => None,
    });
    let words: Option<Vec<_>> = texts.collect();
    let words = words.ok_or("its command has words that are no text")?;
    if words.first().is_none_or(String::is_empty) { Err("its command is empty") } else { Ok(words) }
}

/// Replaces what looks like a secret; gives how many words that were.
fn hide_secrets(words: &mut [String]) -> usize {
    let mut hidden: usize = 0;
    let mut expects_secret = false;
    for word in words {
        let secret = is_secret_value(word) || (expects_secret && !word.starts_with('-'));
        expects_secret = is_secret_option(word);
        if secret {
            HIDDEN.clone_into(word);
            hidden = hidden.saturating_add(1);
        }
    }
    hidden
}

fn keep(
    values: Option<&Map<String, Value>>,
    variable: impl Fn(&str) -> String,
) -> Vec<(String, Kept)> {
    let each = values.into_iter().flatten().map(|(key, value)| {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let kept = match named_variable(&text) {
            Some(named) => Kept::Env(named.to_owned()),
            None if is_plain_value(key, &text) => Kept::Literal(text),
            None => Kept::Env(variable(key)),
        };
        (key.clone(), kept)
    });
    each.collect()
}

/// The variable in `${NAME}` or `${env:NAME}`, as clients write references.
fn named_variable(text: &str) -> Option<&str> {
    let name = text.strip_prefix("${")?.strip_suffix('}')?;
    let name = name.strip_prefix("env:").unwrap_or(name);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !name.is_empty() && name.bytes().all(plain) { Some(name) } else { None }
}

fn free_name(listed_as: &str, taken: &BTreeSet<String>) -> Option<ServerName> {
    let base = sanitise(listed_as);
    let base: String = base.chars().take(60).collect();
    let base = if base.is_empty() { "server".to_owned() } else { base };
    let numbered = (2..1000).map(|number| format!("{base}-{number}"));
    let mut names = std::iter::once(base.clone()).chain(numbered);
    names.find(|name| !taken.contains(name))?.parse().ok()
}

/// What the file's first indented line begins with.
fn indent_of(text: &str) -> String {
    let blank = |line: &str| line.chars().take_while(|found| " \t".contains(*found)).collect();
    let mut indents = text.lines().map(blank);
    indents.find(|indent: &String| !indent.is_empty()).unwrap_or_else(|| "  ".to_owned())
}
