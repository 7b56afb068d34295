//! The catalog: which tools upstream servers offer, whether each is still the pinned one, and
//! whether parameters fit its schema. Must never decide who may use a tool.

mod schema;
mod strict;

use arc_swap::ArcSwap;
use holdpoint_control::{Settings, ToolHints};
use holdpoint_types::{
    Digest, EffectClass, Finding, JsonLimits, ServerName, ToolFacts, ToolRef, ToolState,
    canonical_bytes, canonical_digest, check,
};
use parking_lot::Mutex;
pub(crate) use schema::Schema;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Largest definition that is accepted, in bytes of its canonical form.
const DEFINITION_BYTES_MAX: usize = 256 << 10;
/// Most requests that read are kept compiled.
const READ_REQUESTS_MAX: usize = 4096;

/// All known tools; reading it never waits.
#[derive(Debug, Default)]
pub struct Catalog {
    tools: ArcSwap<BTreeMap<ToolRef, Arc<Tool>>>,
    /// The requests that read, of the servers that were asked.
    read_requests: Mutex<BTreeMap<ToolRef, Arc<Tool>>>,
    strict: ArcSwap<BTreeSet<ServerName>>,
    /// Servers that offer each agent tools of its own.
    apart: ArcSwap<BTreeSet<ServerName>>,
}

/// One tool as its server offers it now.
#[derive(Debug)]
pub struct Tool {
    /// Its reference.
    pub name: ToolRef,
    /// Its definition, unknown fields included.
    pub definition: Value,
    /// Digest of the definition's canonical form.
    pub digest: Digest,
    /// Whether that is the pinned one.
    pub state: ToolState,
    /// What the tool says of itself.
    pub hints: ToolHints,
    schema: Schema,
}

/// What came of looking at a server's tools.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Tools never seen before; to be pinned.
    pub new: Vec<ToolRef>,
    /// Tools whose definition differs from the pinned one, with both digests.
    pub changed: Vec<(ToolRef, Digest, Digest)>,
    /// Definitions that cannot be used, with why.
    pub unusable: Vec<String>,
}

// === impl Catalog ===

impl Catalog {
    /// An empty catalog. Tools of the servers in `strict` refuse parameters that their schema does
    /// not name.
    pub fn new(strict: BTreeSet<ServerName>) -> Self {
        let strict = ArcSwap::from_pointee(strict);
        let (tools, apart) = (ArcSwap::default(), ArcSwap::default());
        Self { tools, read_requests: Mutex::default(), strict, apart }
    }

    /// The tool of this name, if its server offers it. A request that reads is there always.
    pub fn tool(&self, name: &ToolRef) -> Option<Arc<Tool>> {
        self.tools.load().get(name).cloned().or_else(|| self.read_request(name))
    }

    fn read_request(&self, name: &ToolRef) -> Option<Arc<Tool>> {
        if !name.is_read_request() {
            return None;
        }
        let mut known = self.read_requests.lock();
        if let Some(tool) = known.get(name) {
            return Some(Arc::clone(tool));
        }
        let tool = Arc::new(Tool::of_request(name)?);
        if known.len() < READ_REQUESTS_MAX {
            known.insert(name.clone(), Arc::clone(&tool));
        }
        Some(tool)
    }

    /// All tools, in the order of their names.
    pub fn all(&self) -> Vec<Arc<Tool>> {
        self.tools.load().values().cloned().collect()
    }

    /// Replaces what is known of `server` by `definitions`, comparing each with its pin. What a
    /// server offered to other agents stays known if each has tools of its own.
    pub fn observe(
        &self,
        server: &ServerName,
        definitions: Vec<Value>,
        pins: &BTreeMap<ToolRef, Digest>,
    ) -> Observed {
        let mut observed = Observed::default();
        let mut found = BTreeMap::new();
        let mut twice = BTreeSet::new();
        let strict = self.strict.load().contains(server);
        for definition in definitions {
            match Tool::read(server, definition, pins, strict) {
                Ok(tool) if found.contains_key(&tool.name) || twice.contains(&tool.name) => {
                    observed.unusable.push(format!("`{}` is offered twice", tool.name));
                    found.remove(&tool.name);
                    twice.insert(tool.name);
                }
                Ok(tool) => {
                    observed.note(&tool, pins);
                    found.insert(tool.name.clone(), Arc::new(tool));
                }
                Err(why) => observed.unusable.push(why),
            }
        }
        let apart = self.apart.load().contains(server);
        self.tools.rcu(|tools| {
            let stays =
                |name: &ToolRef| name.server() != server || (apart && !twice.contains(name));
            let others = tools.iter().filter(|(name, _)| stays(name));
            let others = others.map(|(name, tool)| (name.clone(), tool.clone()));
            others.chain(found.clone()).collect::<BTreeMap<_, _>>()
        });
        observed
    }

    /// Replaces the servers whose tools refuse parameters that their schema does not name. Takes
    /// effect on tools when they are observed or pinned anew.
    pub fn replace_strict(&self, strict: BTreeSet<ServerName>) {
        self.strict.store(Arc::new(strict));
    }

    /// Replaces the servers that offer each agent tools of its own.
    pub fn replace_apart(&self, apart: BTreeSet<ServerName>) {
        self.apart.store(Arc::new(apart));
    }

    /// Forgets the tools of a server that is gone or was replaced.
    pub fn forget(&self, server: &ServerName) {
        self.tools.rcu(|tools| {
            let others = tools.iter().filter(|(name, _)| name.server() != server);
            others.map(|(name, tool)| (name.clone(), tool.clone())).collect::<BTreeMap<_, _>>()
        });
    }

    /// Compares every tool with its pin anew, after an operator pinned something.
    pub fn repin(&self, pins: &BTreeMap<ToolRef, Digest>) {
        let mut by_server: BTreeMap<ServerName, Vec<Value>> = BTreeMap::new();
        for tool in self.all() {
            let definitions = by_server.entry(tool.name.server().clone()).or_default();
            definitions.push(tool.definition.clone());
        }
        for (server, definitions) in by_server {
            self.observe(&server, definitions, pins);
        }
    }
}

// === impl Tool ===

impl Tool {
    fn read(
        server: &ServerName,
        definition: Value,
        pins: &BTreeMap<ToolRef, Digest>,
        strict: bool,
    ) -> Result<Self, String> {
        let name = name_of(server, &definition)?;
        let digest = digest(&definition).map_err(|fault| format!("`{name}`: {fault}"))?;
        let state = match pins.get(&name) {
            Some(&pinned) if pinned != digest => ToolState::Changed { pinned },
            // Without a pin it is new, and `unpinned` has it pinned before it can be called.
            Some(_) | None => ToolState::Pinned,
        };
        let hints = ToolHints::of(&definition);
        let schema = Schema::of(&definition, strict);
        Ok(Self { name, definition, digest, state, hints, schema })
    }

    /// A request that reads, as if it were a tool: MCP itself defines it, so it is always pinned.
    fn of_request(name: &ToolRef) -> Option<Self> {
        let (member, kind) = match name.name() {
            "prompts/get" => ("name", "string"),
            "completion/complete" => ("ref", "object"),
            _ => ("uri", "string"),
        };
        let definition = json!({
            "name": name.name(),
            "annotations": { "readOnlyHint": true },
            "inputSchema": {
                "type": "object",
                "required": [member],
                "properties": { (member): { "type": kind } },
            },
        });
        let digest = canonical_digest(&definition).ok()?;
        let schema = Schema::of(&definition, false);
        let (state, hints) = (ToolState::Pinned, ToolHints::of(&definition));
        Some(Self { name: name.clone(), definition, digest, state, hints, schema })
    }

    /// What a decision may know about the tool.
    pub fn facts(&self, settings: &Settings) -> ToolFacts {
        let (class, class_source) = settings.classify(&self.name, self.hints);
        ToolFacts {
            definition: self.digest,
            state: self.state.clone(),
            class,
            class_source,
            open_world: self.hints.open_world.unwrap_or(true),
        }
    }

    /// Its effect class under `settings`.
    pub fn class(&self, settings: &Settings) -> EffectClass {
        settings.classify(&self.name, self.hints).0
    }

    /// Checks `parameters` against the tool's schema. The evidence names paths and rules, not
    /// values.
    pub fn validate(&self, parameters: &Value) -> Finding {
        self.schema.check(parameters)
    }
}

// === impl Observed ===

impl Observed {
    fn note(&mut self, tool: &Tool, pins: &BTreeMap<ToolRef, Digest>) {
        match pins.get(&tool.name) {
            None => self.new.push(tool.name.clone()),
            Some(&pinned) if pinned != tool.digest => {
                self.changed.push((tool.name.clone(), pinned, tool.digest));
            }
            Some(_) => {}
        }
    }
}

/// The usable tools among `definitions` that have no pin yet, each with its digest. A name that is
/// offered twice is none.
pub fn unpinned(
    server: &ServerName,
    definitions: &[Value],
    pins: &BTreeMap<ToolRef, Digest>,
) -> Vec<(ToolRef, Digest, Value)> {
    let mut found: BTreeMap<ToolRef, Option<(Digest, &Value)>> = BTreeMap::new();
    for definition in definitions {
        let Ok(name) = name_of(server, definition) else { continue };
        let Ok(digest) = digest(definition) else { continue };
        let entry = found.entry(name);
        entry.and_modify(|first| *first = None).or_insert(Some((digest, definition)));
    }
    let new = found.into_iter().filter(|(name, _)| !pins.contains_key(name));
    let new =
        new.filter_map(|(name, once)| once.map(|(digest, json)| (name, digest, json.clone())));
    new.collect()
}

/// The tool that a definition defines.
fn name_of(server: &ServerName, definition: &Value) -> Result<ToolRef, String> {
    let text = definition.get("name").and_then(Value::as_str);
    let text = text.ok_or_else(|| format!("`{server}` offers a tool without a name"))?;
    let name = ToolRef::new(server.clone(), text).map_err(|fault| fault.to_string())?;
    if name.is_read_request() {
        return Err(format!("`{name}` is the name of a request of MCP"));
    }
    if crate::doors::plans::is_ours(name.name()) {
        return Err(format!("`{name}` has the name of a tool of Holdpoint"));
    }
    Ok(name)
}

/// The digest of a definition that is fit to be kept.
fn digest(definition: &Value) -> Result<Digest, String> {
    check(definition, JsonLimits::default()).map_err(|fault| fault.to_string())?;
    let bytes = canonical_bytes(definition).map_err(|fault| fault.to_string())?;
    match bytes.len() {
        0..=DEFINITION_BYTES_MAX => Ok(Digest::of(&bytes)),
        length => Err(format!("its definition has {length} bytes, {DEFINITION_BYTES_MAX} at most")),
    }
}

#[cfg(test)]
mod tests {
    use super::Tool;
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn tool(definition: Value, strict: bool) -> Tool {
        Tool::read(&"fs".parse().unwrap(), definition, &BTreeMap::new(), strict).unwrap()
    }

    fn check(tool: &Tool, parameters: Value, expected: Expect) {
        let finding = tool.validate(&parameters);
        expected.assert_eq(&format!("{:?} {}", finding.result, finding.evidence));
    }

    fn write() -> Value {
        json!({"name": "write", "inputSchema": {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "required": ["path"],
            "properties": {
                "path": {"type": "string"},
                "options": {"type": "object", "properties": {"mode": {"enum": ["a", "b"]}}},
            },
        }})
    }

    #[test]
    fn a_refusal_names_the_path_and_the_rule_but_no_value() {
        let tool = tool(write(), false);
        check(&tool, json!({"path": "/x", "extra": 1}), expect!["Pass "]);
        check(
            &tool,
            json!({"options": {"mode": "hunter2"}}),
            expect![[
                r#"Fail at `/`: "path" is a required property (rule `/required`); at `/options/mode`: value is not one of "a" or "b" (rule `/properties/options/properties/mode/enum`)"#
            ]],
        );
    }

    #[test]
    fn strict_refuses_what_the_schema_does_not_name_in_every_dialect() {
        let tool = tool(write(), true);
        check(&tool, json!({"path": "/x"}), expect!["Pass "]);
        check(
            &tool,
            json!({"path": "/x", "extra": 1}),
            expect![
                "Fail at `/`: Additional properties are not allowed ('extra' was unexpected) (rule `/additionalProperties`)"
            ],
        );
        check(
            &tool,
            json!({"path": "/x", "options": {"other": 1}}),
            expect![
                "Fail at `/options`: Additional properties are not allowed ('other' was unexpected) (rule `/properties/options/additionalProperties`)"
            ],
        );
    }

    #[test]
    fn requests_that_read_are_pinned_tools_and_nobody_can_offer_them() {
        let catalog = super::Catalog::new([].into());
        let tool = catalog.tool(&"fs__resources/read".parse().unwrap()).unwrap();
        check(&tool, json!({"uri": "demo://x", "other": 1}), expect!["Pass "]);
        check(
            &tool,
            json!({"uri": 1}),
            expect![[
                r#"Fail at `/uri`: value is not of type "string" (rule `/properties/uri/type`)"#
            ]],
        );
        assert_eq!(tool.state, holdpoint_types::ToolState::Pinned);
        let offered = vec![json!({"name": "resources/read", "inputSchema": {}})];
        let observed = catalog.observe(&"fs".parse().unwrap(), offered, &BTreeMap::new());
        assert_eq!(observed.unusable.len(), 1);
        assert!(catalog.all().is_empty());
    }

    #[test]
    fn so_many_requests_that_read_are_kept_and_the_rest_is_there_all_the_same() {
        let catalog = super::Catalog::new([].into());
        let tool =
            |number: usize| catalog.tool(&format!("s{number}__prompts/get").parse().unwrap());
        let (most, first) = (super::READ_REQUESTS_MAX, tool(0).unwrap());
        assert!((0..most + 10).all(|number| tool(number).is_some()));
        assert_eq!(catalog.read_requests.lock().len(), most);
        assert!(Arc::ptr_eq(&first, &tool(0).unwrap()));
        check(&tool(most + 20).unwrap(), json!({"name": "x"}), expect!["Pass "]);
    }

    #[test]
    fn a_giant_definition_makes_no_tool() {
        let read = |bytes: usize| {
            let definition = json!({"name": "x", "description": "x".repeat(bytes)});
            Tool::read(&"fs".parse().unwrap(), definition, &BTreeMap::new(), false).is_ok()
        };
        assert!(read(200 << 10) && !read(256 << 10));
    }

    #[test]
    fn unusable_schemas_pass_nothing() {
        for schema in [
            json!({"$ref": "https://example.com/schema.json"}),
            json!({"type": 7}),
            json!({"$schema": "https://example.com/unknown"}),
        ] {
            let tool = tool(json!({"name": "x", "inputSchema": schema}), false);
            let finding = tool.validate(&json!({}));
            assert!(finding.cause().is_some(), "{finding:?}");
        }
    }
}
