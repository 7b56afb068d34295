//! The operator's own validators: independent voices about a call, before it is decided or after it
//! has ended.
//!
//! Owns whom to ask, what they are told, and what their answers mean. A validator can only make a
//! decision stricter; one that fails, is late, or says something that nobody understands, counts as
//! a fault. Must never hand on a key, a token or a header of an agent.

mod asking;
mod told;

use asking::Way;
use futures::future::join_all;
use holdpoint_control::{PatternFault, ToolPattern, ToolSet};
use holdpoint_resources::{ProcessSpec, SecretText};
use holdpoint_types::{
    CheckPlan, EffectClass, Facts, Finding, FindingResult, Reason, Request, Severity,
};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
pub(crate) use told::Checked;

/// Longest evidence of a validator that is kept, in characters.
const EVIDENCE_CHARS_MAX: usize = 500;

/// Longest code of a validator's own, in characters.
const CODE_CHARS_MAX: usize = 64;

/// A validator as the operator declares it.
#[derive(Clone, Debug)]
pub struct ValidatorSpec {
    /// Its name.
    pub name: String,
    /// The tools whose calls it looks at.
    pub tools: Vec<ToolPattern>,
    /// The mildest class of calls that it looks at.
    pub class: EffectClass,
    /// When it is asked.
    pub when: When,
    /// How it is asked.
    pub asked: AskedBy,
    /// How long an answer may take.
    pub timeout: Duration,
    /// What its objection is: [`FindingResult::Fail`], or [`FindingResult::Warn`] where it is only
    /// recorded.
    pub objection: FindingResult,
    /// How bad its objection is, unless it says so itself.
    pub severity: Severity,
}

/// When a validator is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// Before the decision.
    Before,
    /// After the end of the call, so many seconds, each time.
    After(Vec<u32>),
}

/// How a validator is asked.
#[derive(Clone, Debug)]
pub enum AskedBy {
    /// A CEL expression that must be true.
    Cel(String),
    /// A process that reads one line of JSON and writes one.
    Process(ProcessSpec),
    /// An HTTP endpoint that takes JSON and gives JSON.
    Http {
        /// Where.
        url: String,
        /// Headers with its own credentials.
        headers: Vec<(String, SecretText)>,
    },
}

/// Why validators cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ValidatorFault {
    /// The expression is no CEL.
    #[error("the expression of validator `{name}` cannot be read: {why}")]
    Expression {
        /// The validator.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The patterns cannot be compiled.
    #[error(transparent)]
    Pattern(#[from] PatternFault),
    /// The URL or a header cannot be used.
    #[error("validator `{name}` cannot be asked: {why}")]
    Endpoint {
        /// The validator.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// All validators, ready to be asked.
#[derive(Debug, Default)]
pub struct Validators {
    all: Vec<Validator>,
}

#[derive(Debug)]
struct Validator {
    name: String,
    tools: ToolSet,
    class: EffectClass,
    when: When,
    way: Way,
    timeout: Duration,
    objection: FindingResult,
    severity: Severity,
}

/// What a validator answers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    result: Word,
    #[serde(default)]
    evidence: String,
    #[serde(default)]
    code: Option<Code>,
    #[serde(default)]
    severity: Option<Severity>,
}

/// A validator's own code: at most [`CODE_CHARS_MAX`] of `a` to `z`, digits, `_` and `-`.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Code(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Pass,
    Warn,
    Fail,
    Opaque,
}

// === impl Answer ===

impl Answer {
    /// One that says no more than this.
    fn of(result: Word, evidence: String) -> Self {
        Self { result, evidence, code: None, severity: None }
    }
}

// === impl Code ===

impl TryFrom<String> for Code {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        match (1..=CODE_CHARS_MAX).contains(&text.len()) && text.bytes().all(is_plain) {
            true => Ok(Self(text)),
            false => Err(format!("`code` is 1 to {CODE_CHARS_MAX} of a-z, 0-9, `_` and `-`")),
        }
    }
}

// === impl Validators ===

impl Validators {
    /// Makes validators ready.
    ///
    /// # Errors
    /// When an expression, a pattern or an endpoint cannot be used.
    pub fn new(specs: Vec<ValidatorSpec>) -> Result<Self, ValidatorFault> {
        let all = specs.into_iter().map(Validator::new).collect::<Result<_, _>>()?;
        Ok(Self { all })
    }

    /// What those that look at such calls before the decision find, all asked at the same time.
    pub async fn look(&self, request: &Request, facts: &Facts) -> Vec<Finding> {
        let class = class(facts);
        let concerned = self.all.iter().filter(|one| one.concerns(request, class));
        let concerned: Vec<_> = concerned.filter(|one| one.when == When::Before).collect();
        if concerned.is_empty() {
            return Vec::new();
        }
        let told = told::before(request, facts, class);
        join_all(concerned.into_iter().map(|one| one.look(&told))).await
    }

    /// The checks that such a call needs once it has ended.
    pub(crate) fn plans(&self, request: &Request, facts: &Facts) -> Vec<CheckPlan> {
        let class = class(facts);
        let each = self.all.iter().filter_map(|one| match &one.when {
            When::After(after_s) if one.concerns(request, class) => {
                Some(CheckPlan { validator: one.name.clone(), after_s: after_s.clone() })
            }
            When::After(_) | When::Before => None,
        });
        each.collect()
    }

    /// The names of those that are asked after calls.
    pub(crate) fn checkers(&self) -> BTreeSet<String> {
        let after = self.all.iter().filter(|one| one.when != When::Before);
        after.map(|one| one.name.clone()).collect()
    }

    /// What the validator `name` finds after a call has ended; none if there is no such validator.
    pub(crate) async fn check(&self, name: &str, ended: &Checked<'_>) -> Option<Finding> {
        let mut after = self.all.iter().filter(|one| one.when != When::Before);
        let one = after.find(|one| one.name == name)?;
        let facts = &ended.decision.facts;
        Some(one.look(&told::after(ended, class(facts))).await)
    }
}

// === impl Validator ===

impl Validator {
    fn new(spec: ValidatorSpec) -> Result<Self, ValidatorFault> {
        let ValidatorSpec { name, tools, class, when, asked, timeout, objection, severity } = spec;
        let way = Way::new(&name, (asked, &when))?;
        let tools = ToolSet::new(&tools)?;
        Ok(Self { tools, name, class, when, way, timeout, objection, severity })
    }

    fn concerns(&self, request: &Request, class: EffectClass) -> bool {
        class >= self.class && self.tools.contains(&request.tool)
    }

    async fn look(&self, told: &Value) -> Finding {
        let answer = match tokio::time::timeout(self.timeout, self.way.ask(told)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} ms", self.timeout.as_millis())),
        };
        let (result, reason) = match answer.as_ref().map(|answer| answer.result) {
            Ok(Word::Pass) => (FindingResult::Pass, Reason::ValidatorObjects),
            Ok(Word::Warn) => (FindingResult::Warn, Reason::ValidatorObjects),
            Ok(Word::Fail) => (self.objection, Reason::ValidatorObjects),
            Ok(Word::Opaque) => (FindingResult::Opaque, Reason::ValidatorUnavailable),
            // Whoever is only asked for a warning can be missing.
            Err(_) if self.objection == FindingResult::Warn => {
                (FindingResult::Warn, Reason::ValidatorUnavailable)
            }
            Err(_) => (FindingResult::Opaque, Reason::ValidatorUnavailable),
        };
        let answer = answer.unwrap_or_else(|why| Answer::of(Word::Opaque, why));
        let evidence: String = answer.evidence.chars().take(EVIDENCE_CHARS_MAX).collect();
        Finding {
            severity: answer.severity.unwrap_or(self.severity),
            code: answer.code.map(|Code(code)| code),
            ..Finding::new(self.name.clone(), (result, reason), evidence)
        }
    }
}

/// Sees whether `text` is an expression that can be asked then.
///
/// # Errors
/// In words, what is wrong with it.
pub fn check_expression(text: &str, when: &When) -> Result<(), String> {
    asking::expression(text, when).map(|_| ())
}

/// The class of a call: that of its strictest effect.
fn class(facts: &Facts) -> EffectClass {
    facts.aims().map(|aim| aim.class).max().unwrap_or(EffectClass::Destructive)
}

#[cfg(test)]
mod tests {
    use super::{When, check_expression};

    #[test]
    fn an_expression_names_only_what_is_told() {
        let check = |text: &str, fault: Option<&str>| {
            let found = check_expression(text, &When::Before).err();
            assert_eq!(found.is_some(), fault.is_some(), "{text}: {found:?}");
            assert!(found.unwrap_or_default().contains(fault.unwrap_or_default()), "{text}");
        };
        check("effects.all(e, e.class == 'read') && environment != 'prod'", None);
        check("timestamp(int(at_ms)).getHours() < 18", None);
        check("enviroment == 'dev'", Some("`enviroment` is not known"));
        check("effects.all(e, f.class == 'read')", Some("`f` is not known"));
        check("a ==== b", Some("Syntax error"));
        check("outcome.status == 'succeeded'", Some("`outcome` is not known"));
        let after = When::After(vec![0]);
        assert_eq!(check_expression("outcome.status == 'succeeded'", &after), Ok(()));
    }
}
