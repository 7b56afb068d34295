//! Rules: policies with a name, a reason and perhaps an approval. Must not evaluate anything.

use cedar_policy::{Effect, Policy};

/// Longest `@id`, `@reason` or `@hold`, in bytes.
const ANNOTATION_BYTES_MAX: usize = 512;
const ANNOTATIONS: &str = "the annotations are `@id`, `@reason` and, on a `permit`, `@hold`";

/// What a rule does when it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleEffect {
    /// It permits; with `hold`, only after an approval.
    Permit,
    /// It forbids.
    Forbid,
}

/// One policy of a set, as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its `@id`, unique in the set.
    pub id: String,
    /// Its `@reason`.
    pub reason: String,
    /// Its `@hold`: the approval that it waits for.
    pub hold: Option<String>,
    /// The file that it is in.
    pub file: String,
    /// The line on which it begins, from 1.
    pub line: usize,
    /// What it does.
    pub effect: RuleEffect,
    /// Its text, without the comments above it.
    pub text: String,
}

/// What a policy's annotations say.
#[derive(Debug)]
pub(crate) struct Annotated {
    pub(crate) id: String,
    pub(crate) reason: String,
    pub(crate) hold: Option<String>,
}

/// What is wrong with an annotation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AnnotationFault {
    /// The name of the annotation, if there is one to point at.
    pub(crate) name: Option<String>,
    pub(crate) message: String,
    pub(crate) suggestion: String,
}

// === impl RuleEffect ===

impl RuleEffect {
    /// The word that policies use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Forbid => "forbid",
        }
    }
}

impl From<Effect> for RuleEffect {
    fn from(effect: Effect) -> Self {
        match effect {
            Effect::Permit => Self::Permit,
            Effect::Forbid => Self::Forbid,
        }
    }
}

// === impl AnnotationFault ===

impl AnnotationFault {
    fn new(name: Option<&str>, message: String, suggestion: &str) -> Self {
        Self { name: name.map(str::to_owned), message, suggestion: suggestion.to_owned() }
    }
}

// === impl Annotated ===

impl Annotated {
    /// Reads the annotations of `policy`, or says everything that is wrong with them.
    pub(crate) fn read(policy: &Policy) -> Result<Self, Vec<AnnotationFault>> {
        let mut faults = unknown(policy);
        let id = required(policy, "id", "name the rule: `@id(\"what-it-does\")`");
        let id = id.and_then(plain_id).map_err(|fault| faults.push(fault));
        let why = "say why, for the agent and the operator: `@reason(\"...\")`";
        let reason = required(policy, "reason", why).map_err(|fault| faults.push(fault));
        let hold = approval(policy).map_err(|fault| faults.push(fault));
        match (id, reason, hold) {
            (Ok(id), Ok(reason), Ok(hold)) if faults.is_empty() => Ok(Self { id, reason, hold }),
            (Ok(_) | Err(()), Ok(_) | Err(()), Ok(_) | Err(())) => Err(faults),
        }
    }
}

/// Annotations that mean nothing here: a misspelt `@hold` must not silently permit.
fn unknown(policy: &Policy) -> Vec<AnnotationFault> {
    let mut names: Vec<_> = policy.annotations().map(|(name, _)| name).collect();
    names.retain(|name| !["id", "reason", "hold"].contains(name));
    names.sort_unstable();
    let fault = |name: &str| {
        AnnotationFault::new(Some(name), format!("`@{name}` is no annotation"), ANNOTATIONS)
    };
    names.into_iter().map(fault).collect()
}

fn required(policy: &Policy, name: &str, suggestion: &str) -> Result<String, AnnotationFault> {
    let Some(text) = policy.annotation(name) else {
        let message = format!("the policy has no `@{name}`");
        return Err(AnnotationFault::new(None, message, suggestion));
    };
    readable(name, text, suggestion)
}

fn readable(name: &str, text: &str, suggestion: &str) -> Result<String, AnnotationFault> {
    let fault =
        |what: &str| Err(AnnotationFault::new(Some(name), format!("`@{name}` {what}"), suggestion));
    if text.trim().is_empty() {
        return fault("is empty");
    }
    if text.len() > ANNOTATION_BYTES_MAX {
        return fault(&format!("has {} bytes; at most {ANNOTATION_BYTES_MAX}", text.len()));
    }
    if text.chars().any(char::is_control) {
        return fault("holds a line break or another control character");
    }
    Ok(text.to_owned())
}

/// Ids are quoted in commands, so they hold nothing that a shell or a terminal would act upon.
fn plain_id(id: String) -> Result<String, AnnotationFault> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
    if id.bytes().all(plain) {
        return Ok(id);
    }
    let message = format!("`{id}` is not a valid `@id`");
    let suggestion = "use ASCII letters, digits, `-`, `_`, `.`, `:` and `/`";
    Err(AnnotationFault::new(Some("id"), message, suggestion))
}

fn approval(policy: &Policy) -> Result<Option<String>, AnnotationFault> {
    let Some(text) = policy.annotation("hold") else { return Ok(None) };
    match RuleEffect::from(policy.effect()) {
        RuleEffect::Permit => {
            readable("hold", text, "name the approval: `@hold(\"owner\")`").map(Some)
        }
        RuleEffect::Forbid => {
            let message = "`@hold` on a `forbid`: what is forbidden cannot be approved".to_owned();
            let suggestion = "make it a `permit` that holds, or remove `@hold`";
            Err(AnnotationFault::new(Some("hold"), message, suggestion))
        }
    }
}
