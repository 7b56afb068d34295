//! Analysers: which parameters of a tool hold what, and which family reads them.
//!
//! Owns the way from a call's parameters to the families. It must never pass over a parameter that
//! is missing or of another kind than expected: that is opaque.

use crate::kept;
use crate::kubernetes::{Cluster, Objects, kubernetes_manifest, kubernetes_verb};
use crate::sql::{Database, sql};
use crate::{Body, Effects, HttpRequest, NoteCode, Place, files};
use holdpoint_types::{Effect, Verb};
use serde_json::Value;

/// Most paths in one parameter.
const PATHS_MAX: usize = 64;
/// What tools call the text that an edit replaces, and the one that it puts there.
const OLD_KEYS: &[&str] = &["oldText", "old_text", "old_string", "old_str", "old", "search"];
const NEW_KEYS: &[&str] = &["newText", "new_text", "new_string", "new_str", "new", "replace"];

/// How one tool's parameters are read.
#[derive(Clone, Debug)]
pub struct Analyser {
    /// Where its calls run.
    pub place: Place,
    /// What its parameters hold.
    pub family: Family,
}

/// What a tool's parameters hold, and where.
#[derive(Clone, Debug)]
pub enum Family {
    /// SQL.
    Sql {
        /// The statements.
        text: Source,
        /// The database that they are sent to.
        database: Database,
    },
    /// A command, or a list of words.
    Shell {
        /// The command.
        text: Source,
        /// The folder that it runs in, if the call says so.
        cwd: Option<Source>,
    },
    /// What a tool does to files.
    File {
        /// What is done.
        act: FileAct,
        /// The file, or a list of files.
        path: Source,
        /// What is written, or where it is moved to. Of an edit, also a list of objects with what
        /// is replaced and by what.
        other: Option<Source>,
        /// Of an edit: what is replaced.
        before: Option<Source>,
    },
    /// A patch to files.
    Patch {
        /// The patch.
        text: Source,
    },
    /// An HTTP request.
    Http {
        /// The method; `GET` if there is none, or `POST` if there is a body.
        method: Option<Source>,
        /// The URL.
        url: Source,
        /// An object of headers.
        headers: Option<Source>,
        /// The body.
        body: Option<Source>,
    },
    /// A GraphQL request.
    Graphql {
        /// The document, or the whole body.
        text: Source,
        /// The endpoint.
        address: String,
    },
    /// A Terraform plan as JSON.
    Terraform {
        /// The plan.
        text: Source,
        /// The state that it is for.
        state: String,
    },
    /// A Kubernetes manifest.
    Manifest {
        /// The manifest.
        text: Source,
        /// What is done with its objects.
        verb: Verb,
        /// Where.
        cluster: Cluster,
    },
    /// What `kubectl` would do, with names for everything.
    Kubectl {
        /// The verb.
        verb: Source,
        /// The kind of object.
        kind: Source,
        /// The object's name; all of them if the call names none.
        name: Option<Source>,
        /// The namespace.
        namespace: Option<Source>,
        /// Where.
        cluster: Cluster,
    },
    /// An access policy as JSON.
    Iam {
        /// The new one.
        text: Source,
        /// The one before, if the call holds it.
        before: Option<Source>,
        /// What it is attached to.
        resource: String,
    },
}

/// What a tool does to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileAct {
    /// Reads it.
    Read,
    /// Writes it anew.
    Write,
    /// Puts something into it.
    Edit,
    /// Deletes it.
    Delete,
    /// Deletes a folder with everything in it.
    DeleteFolder,
    /// Makes a folder.
    CreateFolder,
    /// Moves it to another path.
    Move,
}

/// Where a text comes from: literal parts, and JSON Pointers (RFC 6901) into the parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    parts: Vec<Part>,
}

/// A text that is no [`Source`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SourceFault {
    /// A brace without its partner.
    #[error("`{0}` has a brace without its partner")]
    Unbalanced(String),
    /// Braces without a pointer.
    #[error("`{{{0}}}` is no JSON Pointer to a parameter; it must begin with `/`")]
    Pointer(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Pointer(String),
}

/// How values are written into a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quoting {
    /// As they are.
    None,
    /// As one word of a shell.
    Shell,
}

/// What the parameters do not hold.
struct Missing;

// === impl Analyser ===

impl Analyser {
    /// Adds what a call with `parameters` would do. Never nothing: a call that does nothing that
    /// lasts reads.
    pub fn analyse(&self, parameters: &Value, effects: &mut Effects) {
        let mut found = Effects::default();
        if self.read(parameters, &mut found).is_err() {
            let evidence = "a parameter that says what happens is missing, or is no text";
            found.add_opaque(&self.address(), NoteCode::Unreadable, evidence);
        }
        if found.class().is_none() {
            found.add(Effect::new(Verb::Read, self.address(), "nothing that lasts"));
        }
        effects.extend(found);
    }

    /// What the operator says that the tool works on.
    pub fn address(&self) -> String {
        match &self.family {
            Family::Sql { database, .. } => database.address.clone(),
            Family::Shell { .. } | Family::File { .. } | Family::Patch { .. } => {
                "host://localhost".to_owned()
            }
            Family::Http { .. } => "https://*".to_owned(),
            Family::Graphql { address, .. } => address.clone(),
            Family::Terraform { state, .. } => format!("tf://{state}"),
            Family::Manifest { cluster, .. } | Family::Kubectl { cluster, .. } => {
                cluster.address.clone()
            }
            Family::Iam { resource, .. } => resource.clone(),
        }
    }

    fn read(&self, parameters: &Value, effects: &mut Effects) -> Result<(), Missing> {
        let place = &self.place;
        match &self.family {
            Family::Sql { text, database } => sql(&text.text(parameters)?, database, effects),
            Family::Shell { text, cwd } => {
                let command = text.command(parameters)?;
                match word(cwd.as_ref(), parameters)? {
                    None => crate::shell(&command, place, effects),
                    Some(cwd) => crate::shell(&command, &moved(place, &cwd), effects),
                }
                kept::anywhere(place, effects);
            }
            Family::File { act: FileAct::Edit, path, other, before } => {
                let edits = edits((other.as_ref(), before.as_ref()), parameters)?;
                for path in path.texts(parameters)? {
                    edit(&path, &edits, place, effects);
                }
            }
            Family::File { act, path, other, .. } => {
                return file(place, *act, (path, other.as_ref()), (parameters, effects));
            }
            Family::Patch { text } => crate::patch(&text.text(parameters)?, place, effects),
            Family::Http { method, url, headers, body } => {
                let request = HttpRequest {
                    url: url.word(parameters)?,
                    headers: headers
                        .as_ref()
                        .map_or(Ok(Vec::new()), |at| at.headers(parameters))?,
                    body: body.as_ref().map_or(Ok(Body::None), |at| at.body(parameters))?,
                    method: word(method.as_ref(), parameters)?.unwrap_or_default(),
                    redirects: true,
                };
                crate::http(&with_method(request), place, effects);
            }
            Family::Graphql { text, address } => {
                crate::graphql(&text.text(parameters)?, address, &place.http, effects);
            }
            Family::Terraform { text, state } => {
                crate::terraform(&text.text(parameters)?, state, effects);
            }
            Family::Manifest { text, verb, cluster } => {
                kubernetes_manifest(&text.text(parameters)?, cluster, *verb, effects);
            }
            Family::Kubectl { verb, kind, name, namespace, cluster } => {
                let (verb, kind) = (verb.word(parameters)?, kind.word(parameters)?);
                let name = word(name.as_ref(), parameters)?;
                let namespace = word(namespace.as_ref(), parameters)?;
                let (name, namespace) = (name.as_deref(), namespace.as_deref());
                let objects = Objects { kind: &kind, name, namespace };
                kubernetes_verb(&verb, &objects, cluster, effects);
            }
            Family::Iam { text, before, resource } => {
                let before = document(before.as_ref(), parameters)?;
                crate::iam(before.as_deref(), &text.text(parameters)?, resource, effects);
            }
        }
        Ok(())
    }
}

// === impl FileAct ===

impl FileAct {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Read,
        Self::Write,
        Self::Edit,
        Self::Delete,
        Self::DeleteFolder,
        Self::CreateFolder,
        Self::Move,
    ];

    /// The word for it in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Edit => "edit",
            Self::Delete => "delete",
            Self::DeleteFolder => "delete_folder",
            Self::CreateFolder => "create_folder",
            Self::Move => "move",
        }
    }
}

// === impl Source ===

impl Source {
    /// Reads `/pointer`, or a text with `{/pointer}` in it. `{{` and `}}` stand for braces.
    ///
    /// # Errors
    /// When braces do not pair, or hold no JSON Pointer.
    pub fn parse(text: &str) -> Result<Self, SourceFault> {
        if text.starts_with('/') {
            return Ok(Self { parts: vec![Part::Pointer(text.to_owned())] });
        }
        let unbalanced = || SourceFault::Unbalanced(text.to_owned());
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
                literal.extend(from.chars().next());
                rest = after;
                continue;
            }
            let inner = from.strip_prefix('{').ok_or_else(unbalanced)?;
            let (pointer, after) = inner.split_once('}').ok_or_else(unbalanced)?;
            if !pointer.starts_with('/') {
                return Err(SourceFault::Pointer(pointer.to_owned()));
            }
            parts.push(Part::Literal(std::mem::take(&mut literal)));
            parts.push(Part::Pointer(pointer.to_owned()));
            rest = after;
        }
        literal.push_str(rest);
        parts.push(Part::Literal(literal));
        parts.retain(|part| !matches!(part, Part::Literal(text) if text.is_empty()));
        Ok(Self { parts })
    }

    /// The one value that it points to, if it is nothing but a pointer.
    fn value<'p>(&self, parameters: &'p Value) -> Option<&'p Value> {
        match self.parts.as_slice() {
            [Part::Pointer(pointer)] => parameters.pointer(pointer),
            _ => None,
        }
    }

    /// The text; an object or a list as JSON, for who writes documents that way.
    fn text(&self, parameters: &Value) -> Result<String, Missing> {
        match self.value(parameters) {
            Some(value @ (Value::Object(_) | Value::Array(_))) => Ok(value.to_string()),
            _ => self.fill(parameters, Quoting::None),
        }
    }

    /// A name, a path, a word: never a document.
    fn word(&self, parameters: &Value) -> Result<String, Missing> {
        self.fill(parameters, Quoting::None)
    }

    /// False if it is nothing but a pointer, and there is nothing.
    fn is_there(&self, parameters: &Value) -> bool {
        let pointer = matches!(self.parts.as_slice(), [Part::Pointer(_)]);
        !pointer || self.value(parameters).is_some_and(|value| !value.is_null())
    }

    /// A command. A list is its words; values in a text are one word each, lists one for each.
    fn command(&self, parameters: &Value) -> Result<String, Missing> {
        match (self.value(parameters), self.parts.as_slice()) {
            (Some(Value::String(text)), _) => Ok(text.clone()),
            (Some(Value::Array(words)), _) => all_quoted(words),
            (_, [Part::Pointer(_)]) => Err(Missing),
            _ => self.fill(parameters, Quoting::Shell),
        }
    }

    /// One text, or a list of texts.
    fn texts(&self, parameters: &Value) -> Result<Vec<String>, Missing> {
        match self.value(parameters) {
            Some(Value::Array(all)) if !all.is_empty() && all.len() <= PATHS_MAX => {
                all.iter().map(|one| one.as_str().map(str::to_owned).ok_or(Missing)).collect()
            }
            Some(Value::Array(_)) => Err(Missing),
            _ => self.word(parameters).map(|text| vec![text]),
        }
    }

    fn headers(&self, parameters: &Value) -> Result<Vec<(String, String)>, Missing> {
        match self.value(parameters) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Object(headers)) => {
                let pair = |(name, value): (&String, &Value)| {
                    let value = scalar(value).ok_or(Missing)?;
                    Ok((name.clone(), value))
                };
                headers.iter().map(pair).collect()
            }
            Some(_) => Err(Missing),
        }
    }

    fn body(&self, parameters: &Value) -> Result<Body, Missing> {
        Ok(document(Some(self), parameters)?.map_or(Body::None, Body::Text))
    }

    fn fill(&self, parameters: &Value, quoting: Quoting) -> Result<String, Missing> {
        let mut filled = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => filled.push_str(text),
                Part::Pointer(pointer) => {
                    let value = parameters.pointer(pointer).ok_or(Missing)?;
                    filled.push_str(&match (quoting, value) {
                        (Quoting::None, value) => scalar(value).ok_or(Missing)?,
                        (Quoting::Shell, Value::Array(words)) => all_quoted(words)?,
                        (Quoting::Shell, value) => quoted(&scalar(value).ok_or(Missing)?),
                    });
                }
            }
        }
        Ok(filled)
    }
}

/// The word that `source` names, if there is one.
fn word(source: Option<&Source>, parameters: &Value) -> Result<Option<String>, Missing> {
    let there = source.filter(|source| source.is_there(parameters));
    there.map(|source| source.word(parameters)).transpose()
}

/// The document that `source` names, if there is one.
fn document(source: Option<&Source>, parameters: &Value) -> Result<Option<String>, Missing> {
    let there = source.filter(|source| source.is_there(parameters));
    there.map(|source| source.text(parameters)).transpose()
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// One word of a shell, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn all_quoted(words: &[Value]) -> Result<String, Missing> {
    let words = words.iter().map(|word| scalar(word).map(|word| quoted(&word)).ok_or(Missing));
    Ok(words.collect::<Result<Vec<_>, _>>()?.join(" "))
}

/// The place, with the folder that a call names.
fn moved(place: &Place, cwd: &str) -> Place {
    let cwd = match &place.cwd {
        Some(base) if !cwd.starts_with('/') => Some(format!("{base}/{cwd}")),
        None if !cwd.starts_with('/') => None,
        _ => Some(cwd.to_owned()),
    };
    Place { cwd, ..place.clone() }
}

fn with_method(request: HttpRequest) -> HttpRequest {
    match (request.method.is_empty(), &request.body) {
        (true, Body::Text(_) | Body::Unseen) => HttpRequest { method: "POST".into(), ..request },
        (true, Body::None) | (false, _) => request,
    }
}

/// What an edit puts in.
enum Edits {
    /// In place of what is not told.
    Inserted(String),
    /// Each in place of a text.
    Pairs(Vec<(String, String)>),
}

/// What an edit replaces, and by what.
fn edits(
    (contents, before): (Option<&Source>, Option<&Source>),
    parameters: &Value,
) -> Result<Edits, Missing> {
    let value = contents.and_then(|source| source.value(parameters));
    let pair = |object: &Value| {
        // Of two texts under names that mean the same, nobody knows which one the tool takes.
        let find = |keys: &[&str]| {
            let mut found = keys.iter().filter_map(|key| object.get(key)?.as_str());
            let first = found.next()?;
            found.next().is_none().then_some(first)
        };
        Some((find(OLD_KEYS)?.to_owned(), find(NEW_KEYS)?.to_owned()))
    };
    let pairs = match value {
        Some(Value::Array(all)) if all.len() <= PATHS_MAX => all.iter().map(pair).collect(),
        Some(object @ Value::Object(_)) => pair(object).map(|pair| vec![pair]),
        _ => None,
    };
    let contents = document(contents, parameters)?.unwrap_or_default();
    Ok(match (pairs, document(before, parameters)?) {
        (Some(pairs), _) => Edits::Pairs(pairs),
        (None, Some(before)) => Edits::Pairs(vec![(before, contents)]),
        (None, None) => Edits::Inserted(contents),
    })
}

fn edit(path: &str, edits: &Edits, place: &Place, effects: &mut Effects) {
    match edits {
        Edits::Inserted(text) => files::file_edit(path, text, place, effects),
        Edits::Pairs(pairs) => {
            let pairs: Vec<_> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            files::file_replace(path, &pairs, place, effects);
        }
    }
}

fn file(
    place: &Place,
    act: FileAct,
    (path, other): (&Source, Option<&Source>),
    (parameters, effects): (&Value, &mut Effects),
) -> Result<(), Missing> {
    for path in path.texts(parameters)? {
        match act {
            FileAct::Read => files::file_read(&path, place, effects),
            FileAct::Delete => files::file_delete(&path, place, effects),
            FileAct::DeleteFolder => files::folder_delete(&path, place, effects),
            FileAct::CreateFolder => files::folder_create(&path, place, effects),
            FileAct::Write => {
                let contents = document(other, parameters)?.unwrap_or_default();
                files::file_write(&path, &contents, place, effects);
            }
            FileAct::Edit => {}
            FileAct::Move => {
                let to = other.ok_or(Missing)?.word(parameters)?;
                files::file_move(&path, &to, place, effects);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Analyser, Family, FileAct, Source, SourceFault};
    use crate::{Database, Dialect, Effects, Place};
    use serde_json::{Value, json};

    fn source(text: &str) -> Source {
        Source::parse(text).unwrap()
    }

    fn found(family: Family, parameters: &Value) -> Vec<String> {
        let place = Place { cwd: Some("/work".to_owned()), ..Place::default() };
        let mut effects = Effects::default();
        Analyser { place, family }.analyse(parameters, &mut effects);
        let shown = effects
            .iter()
            .map(|effect| format!("{} {} {}", effect.class, effect.verb, effect.resource));
        shown.collect()
    }

    fn sql() -> Family {
        let database = Database::new(Dialect::Sqlite, "sqlite://shop");
        Family::Sql { text: source("/sql"), database }
    }

    fn shell(text: &str) -> Family {
        Family::Shell { text: source(text), cwd: Some(source("/cwd")) }
    }

    #[test]
    fn parameters_reach_their_family() {
        let delete = ["destructive delete sqlite://shop/users"];
        assert_eq!(found(sql(), &json!({ "sql": "DROP TABLE users" })), delete);
        let removed = ["destructive delete file:///tmp/x"];
        assert_eq!(found(shell("/c"), &json!({ "c": "rm x", "cwd": "/tmp" })), removed);
        assert_eq!(found(shell("/c"), &json!({ "c": ["rm", "/tmp/x"] })), removed);
        assert_eq!(found(shell("rm {/f}"), &json!({ "f": "/tmp/x" })), removed);
        let path = source("/paths");
        let file = Family::File { act: FileAct::Delete, path, other: None, before: None };
        assert_eq!(found(file, &json!({ "paths": ["/tmp/x"] })), removed);
    }

    #[test]
    fn a_value_in_a_command_stays_one_word() {
        let parameters = json!({ "branch": "x; rm -rf /" });
        let found = found(shell("git log {/branch}"), &parameters);
        assert!(found.iter().all(|effect| effect.starts_with("read")), "{found:?}");
    }

    #[test]
    fn what_is_missing_or_of_another_kind_is_opaque() {
        let opaque = |family: Family, parameters: Value| {
            let found = found(family, &parameters);
            assert!(found.iter().any(|effect| effect.starts_with("destructive unknown")));
        };
        opaque(sql(), json!({}));
        opaque(sql(), json!({ "sql": null }));
        opaque(shell("/c"), json!({ "c": 7 }));
        opaque(shell("/c"), json!({ "c": ["rm", {}] }));
        opaque(shell("/c"), json!({ "c": "ls", "cwd": ["x"] , "x": 1 }));
    }

    #[test]
    fn a_list_of_paths_has_a_limit() {
        let paths: Vec<_> = (0..=super::PATHS_MAX).map(|at| format!("/tmp/{at}")).collect();
        let path = source("/paths");
        let file = Family::File { act: FileAct::Read, path, other: None, before: None };
        let found = |paths: &[String]| found(file.clone(), &json!({ "paths": paths }));
        assert!(found(&paths).iter().any(|effect| effect.starts_with("destructive unknown")));
        assert_eq!(found(&paths[1..]).len(), super::PATHS_MAX);
    }

    #[test]
    fn a_call_without_lasting_effects_reads() {
        assert_eq!(found(shell("/c"), &json!({ "c": "echo hi" })), ["read read host://localhost"]);
    }

    #[test]
    fn sources_are_read_strictly() {
        assert_eq!(Source::parse("a {b"), Err(SourceFault::Unbalanced("a {b".to_owned())));
        assert_eq!(Source::parse("a }"), Err(SourceFault::Unbalanced("a }".to_owned())));
        assert_eq!(Source::parse("a {b}"), Err(SourceFault::Pointer("b".to_owned())));
        assert_eq!(found(shell("echo {{ {/a}"), &json!({ "a": 1 })).len(), 1);
    }
}
