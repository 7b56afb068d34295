//! A tool's schema, compiled, and the check of parameters against it, within limits.
//!
//! The schema comes from a server that may be hostile, the parameters from an agent that may be.
//! Must never let the two of them together hold up anything else.

use super::strict;
use holdpoint_types::{Finding, FindingResult, Reason};
use jsonschema::Validator;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The validator's name in findings and records.
const SCHEMA: &str = "schema";
/// How many faults of one call are reported.
const FAULTS_MAX: usize = 5;
/// Most values in one schema.
const SCHEMA_VALUES_MAX: usize = 20_000;
/// Most values in the parameters of a call that is checked on the spot.
const VALUES_ON_THE_SPOT_MAX: usize = 10_000;
/// How long a check that could take long may take.
const PATIENCE: Duration = Duration::from_millis(250);
/// Keywords whose cost is not bounded by the sizes of schema and parameters alone.
const COSTLY: [&str; 8] = [
    "$ref",
    "$dynamicRef",
    "$recursiveRef",
    "pattern",
    "patternProperties",
    "uniqueItems",
    "contains",
    "format",
];

/// Keywords by which a schema of a few lines can be as large as anything.
const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];
/// Most checks at once that could take long.
const CHECKS_MAX: usize = 16;
/// How many there are.
static CHECKS: AtomicUsize = AtomicUsize::new(0);

/// A tool's schema.
#[derive(Debug)]
pub(crate) struct Schema {
    compiled: Result<Arc<Validator>, String>,
    cost: Cost,
    /// Set when a check took too long: the tool is unusable until its definition changes.
    locked: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cost {
    Bounded,
    Unbounded,
}

// === impl Schema ===

impl Schema {
    /// Compiles the schema of a tool's definition. One that cannot be used passes nothing.
    pub(super) fn of(definition: &Value, unknown_refused: bool) -> Self {
        let schema = definition.get("inputSchema").cloned().unwrap_or_else(|| json!({}));
        let cost = if has_any(&schema, &COSTLY) { Cost::Unbounded } else { Cost::Bounded };
        let compiled = compile(schema, unknown_refused).map(Arc::new);
        Self { compiled, cost, locked: AtomicBool::new(false) }
    }

    /// Compiles a constraint that is no tool's own, but an agent's. It may not refer to parts of
    /// itself: a few of them are checked for ever.
    pub(crate) fn of_constraint(schema: &Value) -> Self {
        let cost = if has_any(schema, &COSTLY) { Cost::Unbounded } else { Cost::Bounded };
        let compiled = match has_any(schema, &REFERENCES) {
            true => Err("the tool's schema uses `$ref` or the like; write it out".to_owned()),
            false => compile(schema.clone(), false).map(Arc::new),
        };
        Self { compiled, cost, locked: AtomicBool::new(false) }
    }

    /// Why it cannot be used, if it cannot.
    pub(crate) fn fault(&self) -> Option<String> {
        let text = self.compiled.as_ref().err()?;
        let bare = text.strip_prefix("the tool's schema cannot be used: ");
        Some(of_it(bare.unwrap_or(text)))
    }

    /// What of `parameters` breaks it, if anything does. Names paths and rules, not values.
    ///
    /// # Errors
    /// When that cannot be told, and why.
    pub(crate) fn broken_by(&self, parameters: &Value) -> Result<Option<String>, String> {
        self.faults(parameters).map_err(|why| of_it(&why))
    }

    /// Checks `parameters`. The evidence names paths and rules, not values.
    pub(super) fn check(&self, parameters: &Value) -> Finding {
        let (result, reason, evidence) = match self.faults(parameters) {
            Err(why) => (FindingResult::Opaque, Reason::SchemaUnusable, why),
            Ok(None) => (FindingResult::Pass, Reason::ParametersInvalid, String::new()),
            Ok(Some(faults)) => (FindingResult::Fail, Reason::ParametersInvalid, faults),
        };
        Finding::new(SCHEMA, (result, reason), evidence)
    }

    fn faults(&self, parameters: &Value) -> Result<Option<String>, String> {
        let validator = self.compiled.as_ref().map_err(Clone::clone)?;
        let small = values(parameters, VALUES_ON_THE_SPOT_MAX) < VALUES_ON_THE_SPOT_MAX;
        if small && self.cost == Cost::Bounded {
            return Ok(faults(validator, parameters));
        }
        self.faults_in_time(validator, parameters)
    }

    /// The same on a thread of its own. A check cannot be called off, so one that takes too long
    /// locks the tool: a definition costs one such thread at most.
    fn faults_in_time(
        &self,
        validator: &Arc<Validator>,
        parameters: &Value,
    ) -> Result<Option<String>, String> {
        if self.locked.load(Ordering::Relaxed) {
            return Err("a check against the tool's schema took too long before".to_owned());
        }
        let Some(place) = Checking::begin(&CHECKS) else {
            return Err(format!("{CHECKS_MAX} checks against schemas take too long already"));
        };
        let (tell, told) = mpsc::sync_channel(1);
        let (validator, parameters) = (Arc::clone(validator), parameters.clone());
        let started = thread::Builder::new().name("schema".to_owned()).spawn(move || {
            // Nobody listens any more if it took too long.
            let _ = tell.send(faults(&validator, &parameters));
            drop(place);
        });
        started.map_err(|fault| format!("the parameters could not be checked: {fault}"))?;
        told.recv_timeout(PATIENCE).map_err(|_| {
            self.locked.store(true, Ordering::Relaxed);
            format!("the check against the tool's schema took longer than {PATIENCE:?}")
        })
    }
}

/// One of the checks that could take long.
struct Checking(&'static AtomicUsize);

// === impl Checking ===

impl Checking {
    /// `None` if there are too many of those that are counted there.
    fn begin(all: &'static AtomicUsize) -> Option<Self> {
        let more = |checks: usize| (checks < CHECKS_MAX).then_some(checks + 1);
        let counted = all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.is_ok().then_some(Self(all))
    }
}

impl Drop for Checking {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn compile(schema: Value, unknown_refused: bool) -> Result<Validator, String> {
    if values(&schema, SCHEMA_VALUES_MAX) >= SCHEMA_VALUES_MAX {
        return Err(format!("the tool's schema has more than {SCHEMA_VALUES_MAX} values"));
    }
    let schema = if unknown_refused { strict::closed(schema)? } else { schema };
    // Without a `$schema` the dialect is 2020-12; documents elsewhere are never fetched.
    jsonschema::validator_for(&schema)
        .map_err(|fault| format!("the tool's schema cannot be used: {}", fault.masked()))
}

fn faults(validator: &Validator, parameters: &Value) -> Option<String> {
    let faults = validator.iter_errors(parameters).take(FAULTS_MAX).map(|fault| {
        let at = fault.instance_path().to_string();
        let at = if at.is_empty() { "/".to_owned() } else { at };
        format!("at `{at}`: {} (rule `{}`)", fault.masked(), fault.schema_path())
    });
    let faults: Vec<_> = faults.collect();
    (!faults.is_empty()).then(|| faults.join("; "))
}

/// What is wrong with a constraint that is no tool's own.
fn of_it(text: &str) -> String {
    text.replace("the tool's schema", "it")
}

fn has_any(schema: &Value, keywords: &[&str]) -> bool {
    match schema {
        Value::Object(members) => members
            .iter()
            .any(|(key, value)| keywords.contains(&key.as_str()) || has_any(value, keywords)),
        Value::Array(items) => items.iter().any(|item| has_any(item, keywords)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// How many values there are in `value`, counted up to `enough`.
fn values(value: &Value, enough: usize) -> usize {
    let count = |sum: usize, value: &Value| {
        if sum >= enough { sum } else { sum + values(value, enough - sum) }
    };
    match value {
        Value::Object(members) => members.values().fold(1, count),
        Value::Array(items) => items.iter().fold(1, count),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::{CHECKS_MAX, Checking, FAULTS_MAX, Schema};
    use holdpoint_types::{FindingResult, Reason};
    use serde_json::{Value, json};
    use std::sync::atomic::AtomicUsize;

    /// Every level of nesting doubles the work.
    fn exponential() -> Value {
        let branch = json!({ "items": { "$ref": "#/$defs/node" }, "minItems": 1 });
        json!({ "inputSchema": {
            "$defs": { "node": { "anyOf": [branch, branch, { "type": "string" }] } },
            "properties": { "x": { "$ref": "#/$defs/node" } },
        }})
    }

    #[test]
    fn a_schema_that_takes_for_ever_denies_soon_and_stays_locked() {
        let schema = Schema::of(&exponential(), false);
        let mut deep = json!([]);
        for _ in 0..24 {
            deep = json!([deep]);
        }
        for _ in 0..2 {
            let finding = schema.check(&json!({ "x": deep }));
            assert_eq!(finding.reason, Reason::SchemaUnusable, "{finding:?}");
            assert_eq!(finding.result, FindingResult::Opaque);
        }
        assert_eq!(schema.check(&json!({})).result, FindingResult::Opaque);
    }

    #[test]
    fn a_schema_of_an_agent_that_refers_to_itself_is_of_no_use() {
        let twice = json!({ "allOf": [{ "$ref": "#/$defs/a" }, { "$ref": "#/$defs/a" }] });
        let schema = Schema::of_constraint(&json!({ "$defs": { "a": {} }, "not": twice }));
        let fault = schema.fault().unwrap();
        assert!(fault.contains("it uses `$ref` or the like"), "{fault}");
        // What cannot be told is not broken.
        let why = schema.broken_by(&json!({})).unwrap_err();
        assert!(!why.contains("the tool's schema"), "{why}");
        let schema = Schema::of_constraint(&json!({ "required": ["x"] }));
        assert_eq!(schema.broken_by(&json!({ "x": 1 })), Ok(None));
        assert!(schema.broken_by(&json!({})).unwrap().is_some());
    }

    #[test]
    fn so_many_checks_take_long_at_once_and_no_more() {
        static ALL: AtomicUsize = AtomicUsize::new(0);
        let mut places: Vec<_> = (0..CHECKS_MAX).map(|_| Checking::begin(&ALL).unwrap()).collect();
        assert!(Checking::begin(&ALL).is_none());
        places.pop();
        assert!(Checking::begin(&ALL).is_some());
    }

    #[test]
    fn a_costly_schema_that_is_quick_works() {
        let schema = json!({ "inputSchema": { "properties": { "x": { "pattern": "^a+$" } } } });
        let schema = Schema::of(&schema, false);
        assert_eq!(schema.check(&json!({ "x": "aaa" })).result, FindingResult::Pass);
        assert_eq!(schema.check(&json!({ "x": "b" })).result, FindingResult::Fail);
    }

    #[test]
    fn a_call_with_many_faults_is_told_a_few() {
        let schema = json!({ "inputSchema": { "additionalProperties": { "type": "string" } } });
        let schema = Schema::of(&schema, false);
        let parameters = |count| -> Value {
            (0..count).map(|number| (format!("p{number}"), json!(7))).collect()
        };
        for (count, told) in [(FAULTS_MAX, FAULTS_MAX), (1000, FAULTS_MAX)] {
            let finding = schema.check(&parameters(count));
            assert_eq!(finding.result, FindingResult::Fail);
            assert_eq!(finding.evidence.matches("(rule ").count(), told, "{}", finding.evidence);
        }
    }

    #[test]
    fn a_giant_schema_passes_nothing() {
        let names: Vec<_> = (0..30_000).map(|number| json!(number)).collect();
        let schema = Schema::of(&json!({ "inputSchema": { "enum": names } }), false);
        assert_eq!(schema.check(&json!({})).result, FindingResult::Opaque);
    }
}
