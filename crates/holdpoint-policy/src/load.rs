//! Loads policy files: parses, checks annotations, validates against the schema.
//! Collects every fault of every file; must never drop a policy that it does not understand.

use crate::fault::{Place, PolicyFault};
use crate::rule::{Annotated, Rule};
use crate::schema::{Names, schema};
use crate::statements::{DEPTH_MAX, OPERATORS_MAX, STATEMENT_BYTES_MAX, Statement, split};
use cedar_policy::{
    Policy, PolicyId, PolicySet as CedarSet, ValidationMode, ValidationWarning, Validator,
};
use holdpoint_types::PolicySource;
use miette::Diagnostic;
use std::collections::{BTreeMap, BTreeSet};

/// Largest policy file that whoever reads files for a set should read, in bytes.
pub const SOURCE_BYTES_MAX: u64 = 4 << 20;

/// A set that passed every check.
pub(crate) struct Loaded {
    pub(crate) names: Names,
    /// Each rule with its policy, whose Cedar id is the rule's.
    pub(crate) rules: Vec<(Rule, Policy)>,
}

/// One statement that Cedar could parse.
struct Parsed<'a> {
    statement: Statement<'a>,
    head: Place<'a>,
    /// The line of the head, from 1.
    line: usize,
    policy: Policy,
    rule: Option<Rule>,
}

// === impl Parsed ===

impl<'a> Parsed<'a> {
    /// What the policy is called in messages: its id, or where it is.
    fn called(&self) -> String {
        let place = || format!("{} line {}", self.head.file, self.line);
        self.policy.annotation("id").map_or_else(place, str::to_owned)
    }

    /// The place that offsets within the parsed text count from.
    fn origin(&self) -> Place<'a> {
        Place { offset: self.statement.start, ..self.head }
    }
}

/// Loads `sources`, whole or not at all.
pub(crate) fn load(sources: &[PolicySource]) -> Result<Loaded, Vec<PolicyFault>> {
    let mut faults = same_names(sources);
    let mut parsed = Vec::new();
    for source in sources {
        let (good, bad) = parse(source);
        parsed.extend(good);
        faults.extend(bad);
    }
    for one in &mut parsed {
        faults.extend(annotate(one));
    }
    faults.extend(same_ids(&parsed));
    let (schema, names) = schema().map_err(|error| vec![broken_schema(error.as_ref())])?;
    faults.extend(validate(&parsed, &Validator::new(schema)));
    if faults.is_empty() {
        let rules: Option<_> = parsed.into_iter().map(finish).collect();
        return rules.map(|rules| Loaded { names, rules }).ok_or_else(|| vec![nameless()]);
    }
    faults.sort();
    faults.dedup();
    Err(faults)
}

/// The rule and its policy under the rule's id. Without faults, every policy has a rule.
fn finish(parsed: Parsed<'_>) -> Option<(Rule, Policy)> {
    let rule = parsed.rule?;
    let policy = parsed.policy.new_id(PolicyId::new(&rule.id));
    Some((rule, policy))
}

/// Every policy of one file, and every fault that keeps Cedar from reading one.
fn parse(source: &PolicySource) -> (Vec<Parsed<'_>>, Vec<PolicyFault>) {
    let mut parsed = Vec::new();
    let mut faults = Vec::new();
    // Counted on from head to head: a file of 10,000 policies is read once, not for each of them.
    let (mut line, mut counted) = (1, 0);
    for statement in split(&source.text) {
        let offset = statement.head.unwrap_or(statement.start);
        let passed = source.text.get(counted..offset).unwrap_or_default();
        line += passed.bytes().filter(|byte| *byte == b'\n').count();
        counted = offset;
        let head = Place { file: &source.name, text: &source.text, offset };
        match parse_one(statement, head, line) {
            Ok(policy) => parsed.extend(policy),
            Err(found) => faults.extend(found),
        }
    }
    (parsed, faults)
}

/// One policy, or none if the statement is only what follows the last one.
fn parse_one<'a>(
    statement: Statement<'a>,
    head: Place<'a>,
    line: usize,
) -> Result<Option<Parsed<'a>>, Vec<PolicyFault>> {
    if let Some(limit) = exceeded(&statement) {
        let message = format!("the policy is too large: at most {limit}");
        let suggestion = "split it into several policies".to_owned();
        return Err(vec![PolicyFault::new(head, message, Some(suggestion))]);
    }
    let origin = Place { offset: statement.start, ..head };
    if statement.head.is_none() {
        // Cedar must agree that there is nothing but space and comments.
        return match statement.text.parse::<CedarSet>() {
            Ok(set) if set.is_empty() => Ok(None),
            Ok(_) => Err(vec![PolicyFault::new(head, "the file's end is ambiguous", None)]),
            Err(errors) => Err(vec![PolicyFault::from_cedar(origin, &errors)]),
        };
    }
    match Policy::parse(None, statement.text) {
        Ok(policy) => Ok(Some(Parsed { statement, head, line, policy, rule: None })),
        Err(errors) => {
            Err(errors.iter().map(|error| PolicyFault::from_cedar(origin, error)).collect())
        }
    }
}

/// The limit that a statement exceeds.
fn exceeded(statement: &Statement<'_>) -> Option<String> {
    let limits = [
        (statement.depth, DEPTH_MAX, "nested brackets"),
        (statement.operators, OPERATORS_MAX, "operators"),
        (statement.body().len(), STATEMENT_BYTES_MAX, "bytes"),
    ];
    let over = limits.into_iter().find(|(size, max, _)| size > max);
    over.filter(|_| statement.head.is_some()).map(|(_, max, what)| format!("{max} {what}"))
}

/// Two files of one name could not be told apart in a report.
fn same_names(sources: &[PolicySource]) -> Vec<PolicyFault> {
    let mut seen = BTreeSet::new();
    let again = sources.iter().filter(|source| !seen.insert(source.name.as_str()));
    let fault = |source: &PolicySource| {
        let place = Place { file: &source.name, text: &source.text, offset: 0 };
        let message = format!("two policy files are called `{}`", source.name);
        PolicyFault::new(place, message, Some("rename one of them".to_owned()))
    };
    again.map(fault).collect()
}

/// Reads the annotations of one policy into its rule.
fn annotate(parsed: &mut Parsed<'_>) -> Vec<PolicyFault> {
    let body = parsed.statement.body();
    let line = parsed.line;
    match Annotated::read(&parsed.policy) {
        Ok(Annotated { id, reason, hold }) => {
            let effect = parsed.policy.effect().into();
            let (file, text) = (parsed.head.file.to_owned(), body.to_owned());
            parsed.rule = Some(Rule { id, reason, hold, file, line, effect, text });
            Vec::new()
        }
        Err(found) => {
            let place = |name: &String| {
                let within = body.find(&format!("@{name}")).unwrap_or(0);
                Place { offset: parsed.head.offset.saturating_add(within), ..parsed.head }
            };
            let fault = |fault: crate::rule::AnnotationFault| {
                let place = fault.name.as_ref().map_or(parsed.head, place);
                PolicyFault::new(place, fault.message, Some(fault.suggestion))
            };
            found.into_iter().map(fault).collect()
        }
    }
}

fn same_ids(parsed: &[Parsed<'_>]) -> Vec<PolicyFault> {
    let mut first: BTreeMap<&str, &Parsed<'_>> = BTreeMap::new();
    let mut faults = Vec::new();
    for one in parsed {
        let Some(id) = one.policy.annotation("id") else { continue };
        let Some(before) = first.get(id) else {
            first.insert(id, one);
            continue;
        };
        let (file, line) = (before.head.file, before.line);
        let message = format!("`@id(\"{id}\")` is taken: {file} line {line}");
        let suggestion = "give every rule an id of its own".to_owned();
        faults.push(PolicyFault::new(one.head, message, Some(suggestion)));
    }
    faults
}

/// Validates each policy by itself, so that policies that share an id are still told apart.
fn validate(parsed: &[Parsed<'_>], validator: &Validator) -> Vec<PolicyFault> {
    parsed.iter().flat_map(|one| validate_one(one, validator)).collect()
}

fn validate_one(parsed: &Parsed<'_>, validator: &Validator) -> Vec<PolicyFault> {
    let named = parsed.policy.new_id(PolicyId::new(parsed.called()));
    let set = match CedarSet::from_policies([named]) {
        Ok(set) => set,
        Err(error) => return vec![PolicyFault::new(parsed.head, error, None)],
    };
    let result = validator.validate(&set, ValidationMode::Strict);
    let fault = |said: &dyn Diagnostic| PolicyFault::from_cedar(parsed.origin(), said);
    let mut faults: Vec<_> = result.validation_errors().map(|error| fault(error)).collect();
    if faults.is_empty() {
        // Beside an error, "can never match" is only its consequence.
        let warnings = result.validation_warnings().filter(|warning| !tolerable(warning));
        faults.extend(warnings.map(|warning| fault(warning)));
    }
    if faults.is_empty() && !result.validation_passed() {
        faults.push(PolicyFault::new(parsed.head, "the policy does not validate", None));
    }
    // Cedar repeats itself for each action.
    faults.sort();
    faults.dedup_by_key(|fault| (fault.line, fault.column));
    faults
}

/// Foreign scripts are fine. A rule that can never match is a mistake, and text that reads
/// otherwise than it is written is an attack.
fn tolerable(warning: &ValidationWarning) -> bool {
    matches!(
        warning,
        ValidationWarning::MixedScriptString(_) | ValidationWarning::MixedScriptIdentifier(_)
    )
}

fn nameless() -> PolicyFault {
    let place = Place { file: "", text: "", offset: 0 };
    PolicyFault::new(place, "a policy without annotations passed every check", None)
}

fn broken_schema(error: &dyn std::error::Error) -> PolicyFault {
    let place = Place { file: "schema.cedarschema", text: "", offset: 0 };
    PolicyFault::new(place, error, None)
}
