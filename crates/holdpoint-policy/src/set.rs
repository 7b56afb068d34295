//! The policy set: loaded once, immutable, asked by many at the same time.
//! Must never permit because something failed: an error is a deny.

use crate::doubts;
use crate::fault::{Place, PolicyFault};
use crate::index::Index;
use crate::load::{Loaded, load};
use crate::question::{Asked, Question};
use crate::rule::{Rule, RuleEffect};
use crate::schema::{Names, schema_text};
use crate::sight::Sight;
use cedar_policy::{AuthorizationError, Authorizer, PolicyId, PolicySet as CedarSet};
use holdpoint_types::{
    Aim, Cause, Digest, Facts, PolicySource, Reason, Request, Ruling, canonical_digest,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// Longest text of an evaluation error in a cause, in characters.
const ERROR_CHARS_MAX: usize = 400;

/// A set of policies. Share it in an `Arc`.
///
/// # Invariants
/// Immutable. Every policy is valid under the schema and has a unique id and a reason.
#[derive(Debug)]
pub struct PolicySet {
    sources: Vec<PolicySource>,
    digest: Digest,
    names: Names,
    rules: Vec<Rule>,
    by_id: BTreeMap<String, usize>,
    index: Index,
    whole: CedarSet,
    sight: Sight,
    authorizer: Authorizer,
}

/// What Cedar said, over all the cells that were asked.
#[derive(Default)]
struct Said {
    satisfied: BTreeSet<PolicyId>,
    errors: Vec<AuthorizationError>,
}

// === impl PolicySet ===

impl PolicySet {
    /// Loads policy files, whole or not at all.
    ///
    /// # Errors
    /// Every fault of every file, sorted by file, line and column.
    pub fn load(sources: &[PolicySource]) -> Result<Self, Vec<PolicyFault>> {
        let Loaded { names, rules } = load(sources)?;
        let mut sources = sources.to_vec();
        sources.sort();
        let digest = digest_of(&sources).map_err(|error| vec![internal(&error)])?;
        let sight = Sight::of(rules.iter().map(|(rule, _)| rule.text.as_str()));
        let index = Index::build(rules.iter().map(|(_, policy)| policy), &names);
        let index = index.map_err(|error| vec![internal(error.as_ref())])?;
        let (rules, policies): (Vec<_>, Vec<_>) = rules.into_iter().unzip();
        let whole = CedarSet::from_policies(policies).map_err(|error| vec![internal(&error)])?;
        let numbered = rules.iter().enumerate();
        let by_id = numbered.map(|(number, rule): (_, &Rule)| (rule.id.clone(), number)).collect();
        let authorizer = Authorizer::new();
        let set = Self { sources, digest, names, rules, by_id, index, whole, sight, authorizer };
        Ok(set)
    }

    /// The set's digest: of the canonical JSON of the schema's digest and the sorted files.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The files, sorted by name.
    pub fn sources(&self) -> &[PolicySource] {
        &self.sources
    }

    /// True if some policy looks at the change freezes in force; else declaring one does nothing.
    pub fn mentions_freezes(&self) -> bool {
        self.sight.sees("freezes")
    }

    /// Comparisons in policies with words that are never there, so that they mean something else
    /// than they say: sorted by file, as faults, though the set is valid.
    pub fn doubts(&self) -> Vec<PolicyFault> {
        self.rules.iter().flat_map(doubts::of).collect()
    }

    /// How many policies there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// True if there is no policy, so that everything is denied.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The policies, in the order of the files and of their text.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.rules.iter()
    }

    /// The policy with this `@id`.
    pub fn rule(&self, id: &str) -> Option<&Rule> {
        self.by_id.get(id).and_then(|number| self.rules.get(*number))
    }

    /// What the policies say about a call, sorted. Never empty. Asks only policies that can apply.
    pub fn evaluate(&self, request: &Request, facts: &Facts) -> Vec<Cause> {
        self.evaluate_aims(request, facts, facts.aims())
    }

    /// The same about some of the things that a call must be allowed to do; empty if there are
    /// none.
    pub(crate) fn evaluate_aims<'a>(
        &self,
        request: &Request,
        facts: &Facts,
        aims: impl Iterator<Item = Aim<'a>>,
    ) -> Vec<Cause> {
        self.answer(&self.sight, (request, facts), aims, |question, aim, said| {
            for cell in self.index.slice(request, (facts, aim), &question.tool_id) {
                self.ask(question, cell, said);
            }
        })
    }

    /// The same answer as [`Self::evaluate`], by showing everything to every policy: slow, for
    /// tests and doubt.
    pub fn evaluate_whole(&self, request: &Request, facts: &Facts) -> Vec<Cause> {
        let sight = self.sight.with_everything_but_parameters();
        let ask = |question: &Question, _: &Aim<'_>, said: &mut Said| {
            self.ask(question, &self.whole, said);
        };
        self.answer(&sight, (request, facts), facts.aims(), ask)
    }

    fn answer<'a>(
        &self,
        sight: &Sight,
        (request, facts): (&Request, &Facts),
        aims: impl Iterator<Item = Aim<'a>>,
        ask: impl Fn(&Question, &Aim<'_>, &mut Said),
    ) -> Vec<Cause> {
        let mut causes = Vec::new();
        for aim in aims {
            let asked = match Asked::new(&self.names, sight, (request, facts), aim) {
                Ok(asked) => asked,
                Err(causes) => return causes,
            };
            match Question::new(asked) {
                Err(cause) => causes.push(cause),
                Ok(question) => {
                    let mut said = Said::default();
                    ask(&question, &aim, &mut said);
                    causes.extend(self.causes(&said, request, &aim));
                }
            }
        }
        causes.sort();
        causes.dedup();
        causes
    }

    fn ask(&self, question: &Question, policies: &CedarSet, said: &mut Said) {
        let response =
            self.authorizer.is_authorized(&question.request, policies, &question.entities);
        let diagnostics = response.diagnostics();
        said.satisfied.extend(diagnostics.reason().cloned());
        said.errors.extend(diagnostics.errors().cloned());
    }

    /// Translates what Cedar said. Cells are disjoint, and each names its forbids if it has some
    /// and its permits otherwise: together they say what one evaluation of all would say.
    fn causes(&self, said: &Said, request: &Request, aim: &Aim<'_>) -> Vec<Cause> {
        let rules = said.satisfied.iter().map(|id| self.rule(id.as_ref()));
        // INVARIANT: every policy has a rule. If not, its answer is unknown, which denies.
        let Some(rules) = rules.collect::<Option<Vec<_>>>() else {
            return vec![Cause::new(Ruling::Deny, Reason::PolicyError, "a policy has no rule")];
        };
        let forbids = |rule: &&&Rule| rule.effect == RuleEffect::Forbid;
        let spoken = |rule: &&Rule| spoken(rule, aim);
        let mut causes: Vec<_> = rules.iter().filter(forbids).map(spoken).collect();
        if causes.is_empty() {
            causes.extend(rules.iter().map(spoken));
        }
        if causes.is_empty() {
            causes.push(unpermitted(request, aim));
        }
        causes.extend(said.errors.iter().map(failed));
        causes
    }
}

/// What a satisfied rule says about `aim`. What permits says so once for all effects.
fn spoken(rule: &Rule, aim: &Aim<'_>) -> Cause {
    let text = rule.reason.as_str();
    let cause = match (rule.effect, &rule.hold) {
        (RuleEffect::Forbid, _) => Cause::new(Ruling::Deny, Reason::PolicyForbids, aim.told(text)),
        (RuleEffect::Permit, None) => Cause::new(Ruling::Permit, Reason::PermittedByPolicy, text),
        (RuleEffect::Permit, Some(approval)) => {
            Cause::new(Ruling::Hold, Reason::PolicyHolds, aim.told(text)).needing(approval)
        }
    };
    cause.by_rule(rule.id.as_str())
}

/// Cedar skips a policy that fails, even a `forbid`; here its unknown answer denies.
fn failed(error: &AuthorizationError) -> Cause {
    match error {
        AuthorizationError::PolicyEvaluationError(error) => {
            let text: String = error.inner().to_string().chars().take(ERROR_CHARS_MAX).collect();
            let id: &str = error.policy_id().as_ref();
            Cause::new(Ruling::Deny, Reason::PolicyError, text).by_rule(id)
        }
    }
}

fn unpermitted(request: &Request, aim: &Aim<'_>) -> Cause {
    let class = aim.class;
    let granted = if aim.grant.by.is_some() { "with" } else { "without" };
    let environment = &aim.target.environment;
    let text = format!(
        "no policy permits `{}` to use `{}` ({class}) in `{environment}` {granted} a grant",
        request.agent, request.tool,
    );
    Cause::new(Ruling::Deny, Reason::NoPolicyPermits, aim.told(&text))
}

fn digest_of(sources: &[PolicySource]) -> Result<Digest, serde_json::Error> {
    let schema = Digest::of(schema_text().as_bytes());
    canonical_digest(&json!({ "schema": schema, "sources": sources }))
}

fn internal(error: &dyn std::error::Error) -> PolicyFault {
    PolicyFault::new(Place { file: "", text: "", offset: 0 }, error, None)
}
