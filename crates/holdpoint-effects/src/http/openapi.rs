//! OpenAPI 3 documents: which operations an API declares, and what class each has.
//!
//! Owns the reading of documents that the operator names. It must never follow a reference out of
//! a document, nor let a document make an operation milder than its method is.

use super::{host_name, rank, verb};
use crate::words::matches;
use holdpoint_types::{Digest, EffectClass, Verb};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::{Location, Spanned};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use url::Url;

/// Longest OpenAPI document that is read, in bytes.
pub const OPENAPI_BYTES_MAX: usize = 16 << 20;
/// Most operations of one document.
const OPERATIONS_MAX: usize = 4096;
/// Most faults of one document that are told.
const FAULTS_MAX: usize = 20;
/// Deepest nesting of a document.
const DEPTH_MAX: usize = 64;
/// Most nodes of a document, aliases written out.
const NODES_MAX: usize = 2_000_000;
/// What a path item calls its operations.
const METHODS: &[&str] = &["get", "put", "post", "delete", "options", "head", "patch", "trace"];
/// What says in a document what an operation is.
const CLASS_KEY: &str = "x-holdpoint-class";

/// Declared operations; cheap to clone.
#[derive(Clone, Default)]
pub struct Operations {
    all: Arc<Vec<Operation>>,
}

/// One operation of an API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The host that it is on.
    host: String,
    /// The port.
    port: Option<u16>,
    /// The method, in upper case.
    method: String,
    /// The path with its server's, with `*` for each parameter.
    path: String,
    /// How many `/` the path has.
    depth: usize,
    /// The path as the document writes it.
    template: String,
    /// Its `operationId`.
    id: Option<String>,
    /// What it is.
    pub(super) class: EffectClass,
    /// Who says so.
    pub(super) basis: Basis,
}

/// Who says what an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Basis {
    /// The document, or its method alone.
    Document,
    /// The operator.
    Operator,
}

/// What is wrong with a document, and where: line and column, both from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenApiFault {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

type Node = Spanned<Tree>;

/// A document whose every value knows where it stands.
enum Tree {
    Text(String),
    Other,
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

struct TreeVisitor;

struct Reader<'a> {
    root: &'a Node,
    /// The operator's servers, in place of the document's.
    servers: Option<Vec<Url>>,
    operations: Vec<Operation>,
    ids: BTreeSet<String>,
    faults: Vec<OpenApiFault>,
}

// === impl Operations ===

impl Operations {
    /// These operations, of all documents that the operator names.
    pub fn new(all: Vec<Operation>) -> Self {
        Self { all: Arc::new(all) }
    }

    /// True if a document says something of the host.
    pub(super) fn knows(&self, host: &str) -> bool {
        self.all.iter().any(|operation| operation.host == host)
    }

    /// The operations that a request is, the strictest last.
    pub(super) fn of(&self, url: &Url, method: &str, path: &str) -> Option<&Operation> {
        let path = path.trim_end_matches('/');
        let odd = |part: &str| matches!(part, "" | "." | "..");
        if path.split('/').skip(1).any(odd) {
            // Who serves it may read another path.
            return None;
        }
        let (host, port) = (host_name(url), url.port_or_known_default());
        let depth = path.matches('/').count();
        let fits = |operation: &&Operation| {
            operation.depth == depth
                && operation.answers(method)
                && operation.port == port
                && operation.host == host
                && matches(&operation.path, path)
        };
        self.all.iter().filter(fits).max_by_key(|operation| operation.class)
    }
}

impl fmt::Debug for Operations {
    /// Short, and another one for other operations: settings are told apart by it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = Digest::of(format!("{:?}", self.all).as_bytes());
        write!(f, "{} operations {}", self.all.len(), digest.short())
    }
}

// === impl Operation ===

impl Operation {
    /// True if `name` is its `operationId`, or its method and path: `POST /orders/{id}`.
    pub fn is_called(&self, name: &str) -> bool {
        let by_path = || name.split_once(' ') == Some((&self.method, &self.template));
        self.id.as_deref() == Some(name) || by_path()
    }

    /// Its `operationId`, or its method and path.
    pub fn name(&self) -> String {
        self.id.clone().unwrap_or_else(|| format!("{} {}", self.method, self.template))
    }

    /// The same operation, of which the operator says what it is.
    pub fn classed(self, class: EffectClass) -> Self {
        Self { class, basis: Basis::Operator, ..self }
    }

    /// Who serves `GET` serves `HEAD`.
    fn answers(&self, method: &str) -> bool {
        self.method == method || method == "HEAD" && self.method == "GET"
    }
}

// === impl Tree ===

impl Tree {
    fn get(&self, key: &str) -> Option<&Node> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.value {
            Self::Text(text) => Some(text),
            Self::Other | Self::List(_) | Self::Map(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree::Text(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree::Text(number.to_string()))
    }

    fn visit_i128<E>(self, _: i128) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_f64<E>(self, number: f64) -> Result<Tree, E> {
        Ok(Tree::Text(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Tree, D::Error> {
        Tree::deserialize(inner)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Tree::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }
}

// === impl Reader ===

impl Reader<'_> {
    fn fault(&mut self, at: &Node, message: impl Into<String>) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault(Some(at.referenced), message.into()));
        }
    }

    fn read(&mut self) {
        let root = self.root;
        match (root.value.text("openapi"), root.value.get("swagger")) {
            (Some(version), _) if version.starts_with("3.") => {}
            (None, Some(at)) => {
                return self.fault(at, "a Swagger 2 document; it must be OpenAPI 3");
            }
            _ => return self.fault(root, "it does not begin with `openapi: 3.…`"),
        }
        let Some(Tree::Map(paths)) = root.value.get("paths").map(|paths| &paths.value) else {
            return self.fault(root, "it has no `paths`, so it declares nothing");
        };
        for (template, item) in paths.iter().filter(|(name, _)| !name.starts_with("x-")) {
            match resolved(root, item) {
                Some(item) => self.path_item(template, item),
                None => self.fault(item, "a reference to what is not in this document"),
            }
        }
    }

    fn path_item(&mut self, template: &str, item: &Node) {
        let paired = template.matches('{').count() == template.matches('}').count();
        if !template.starts_with('/') || template.contains(['*', '?', '#', '%']) || !paired {
            return self.fault(item, format!("`{template}` is no path"));
        }
        let Tree::Map(entries) = &item.value else {
            return self.fault(item, format!("the path `{template}` holds no operations"));
        };
        let methods = entries.iter().filter(|(method, _)| METHODS.contains(&method.as_str()));
        for (method, operation) in methods {
            // `classes` in the configuration would mean all of them.
            let id = operation.value.text("operationId").map(str::to_owned);
            if let Some(id) = id.filter(|id| !self.ids.insert(id.clone())) {
                return self.fault(operation, format!("another operation is `{id}`, too"));
            }
            let servers = operation.value.get("servers").or_else(|| item.value.get("servers"));
            let Some(servers) = self.servers(servers, operation) else { return };
            for server in servers {
                self.operation((method, template), operation, &server);
            }
        }
    }

    /// The operator's servers, else these, else the document's.
    fn servers(&mut self, own: Option<&Node>, operation: &Node) -> Option<Vec<Url>> {
        if let Some(said) = &self.servers {
            return Some(said.clone());
        }
        let listed = own.or_else(|| self.root.value.get("servers"));
        let Some((Tree::List(listed), at)) = listed.map(|node| (&node.value, node)) else {
            self.fault(operation, "no server is named; say which with `servers`");
            return None;
        };
        if listed.is_empty() {
            self.fault(at, "no server is named; say which with `servers`");
            return None;
        }
        listed.iter().map(|server| self.server(server)).collect()
    }

    fn server(&mut self, server: &Node) -> Option<Url> {
        let mut text = server.value.text("url").unwrap_or_default().to_owned();
        if let Some(Tree::Map(variables)) = server.value.get("variables").map(|node| &node.value) {
            for (name, variable) in variables {
                let value = variable.value.text("default").unwrap_or_default();
                text = text.replace(&format!("{{{name}}}"), value);
            }
        }
        let url = (!text.contains('{')).then(|| server_url(&text)).flatten();
        if url.is_none() {
            let message =
                format!("the server `{text}` is no address by itself; say which with `servers`");
            self.fault(server, message);
        }
        url
    }

    fn operation(&mut self, (method, template): (&str, &str), operation: &Node, server: &Url) {
        if self.operations.len() >= OPERATIONS_MAX {
            if self.operations.len() == OPERATIONS_MAX && self.faults.is_empty() {
                self.fault(operation, format!("more than {OPERATIONS_MAX} operations"));
            }
            return;
        }
        let method = method.to_ascii_uppercase();
        debug_assert_ne!(verb(&method), Verb::Unknown);
        let by_method = rank(&method);
        let said = operation.value.get(CLASS_KEY);
        // A document may be written by others than who is responsible for agents, so it can only
        // make an operation stricter.
        let class = match said.map(|said| (said, class(&said.value))) {
            Some((at, None)) => {
                let message = format!("`{CLASS_KEY}` is `read`, `write` or `destructive`");
                return self.fault(at, message);
            }
            Some((_, Some(class))) => class.max(by_method),
            None => by_method,
        };
        let base = server.path().trim_end_matches('/');
        let path = format!("{base}{}", pattern(template).trim_end_matches('/'));
        self.operations.push(Operation {
            host: host_name(server),
            port: server.port_or_known_default(),
            depth: path.matches('/').count(),
            path,
            template: template.to_owned(),
            id: operation.value.text("operationId").map(str::to_owned),
            class,
            basis: Basis::Document,
            method,
        });
    }
}

/// The operations of an OpenAPI 3 document in JSON or YAML, at `servers` or, if there are none, at
/// those that it names itself.
///
/// # Errors
/// When it cannot be read, is no such document, or names no servers; with everything that is wrong.
pub fn openapi(text: &str, servers: &[String]) -> Result<Vec<Operation>, Vec<OpenApiFault>> {
    if text.len() > OPENAPI_BYTES_MAX {
        let message = format!("it is longer than {OPENAPI_BYTES_MAX} bytes");
        return Err(vec![fault(None, message)]);
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: 2 * NODES_MAX,
            max_documents: 1,
        },
    };
    let root: Node = match serde_saphyr::from_str_with_options(text, options) {
        Ok(root) => root,
        Err(error) => {
            let message = error.without_snippet().to_string();
            return Err(vec![fault(error.location(), message)]);
        }
    };
    let servers = match servers {
        [] => None,
        servers => Some(servers.iter().filter_map(|text| server_url(text)).collect()),
    };
    let mut reader = Reader {
        root: &root,
        servers,
        operations: Vec::new(),
        ids: BTreeSet::new(),
        faults: Vec::new(),
    };
    reader.read();
    match reader.faults.as_slice() {
        [] => Ok(reader.operations),
        _ => Err(reader.faults),
    }
}

/// A server's address; none if it is not complete.
pub fn server_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.query().is_none() && url.fragment().is_none() && url.has_host();
    (plain && matches!(url.scheme(), "http" | "https")).then_some(url)
}

/// The node itself, or what it refers to within the document (`#/components/…`).
fn resolved<'n>(root: &'n Node, node: &'n Node) -> Option<&'n Node> {
    let Some(reference) = node.value.text("$ref") else { return Some(node) };
    let parts = reference.strip_prefix("#/")?.split('/');
    let found = parts
        .into_iter()
        .try_fold(root, |node, part| node.value.get(&part.replace("~1", "/").replace("~0", "~")))?;
    // One reference is enough: what it leads to is no reference.
    found.value.get("$ref").is_none().then_some(found)
}

fn class(node: &Tree) -> Option<EffectClass> {
    match node {
        Tree::Text(text) => text.parse().ok(),
        Tree::Other | Tree::List(_) | Tree::Map(_) => None,
    }
}

fn fault(at: Option<Location>, message: String) -> OpenApiFault {
    let number = |number: u64| usize::try_from(number).unwrap_or(1).max(1);
    let line = at.map_or(1, |at| number(at.line()));
    OpenApiFault { line, column: at.map_or(1, |at| number(at.column())), message }
}

/// A path template with `*` for each parameter.
fn pattern(template: &str) -> String {
    let mut pattern = String::new();
    let mut rest = template;
    while let Some((before, from)) = rest.split_once('{') {
        pattern.push_str(before);
        if !pattern.ends_with('*') {
            pattern.push('*');
        }
        rest = from.split_once('}').map_or("", |(_, after)| after);
    }
    pattern.push_str(rest);
    pattern
}
