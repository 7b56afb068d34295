//! Suggests rules: what a set would have to say so that calls of one shape need no approval.
//!
//! A hold beats a plain permit, so a permit alone changes nothing: the rules that hold have to
//! leave the shape out. Must never suggest what the set it is for would not load.

use crate::fault::PolicyFault;
use crate::rule::Rule;
use crate::schema::action_id;
use crate::set::PolicySet;
use holdpoint_types::{
    AgentName, Aim, ChangeCounts, Disclosure, EffectClass, Extent, Facts, PolicySource, Request,
    Reversibility, ToolRef, Verb,
};
use std::collections::BTreeSet;

/// What an aim says of a call that is not analysed.
const DECLARED: &str = "declared";

/// Calls that would do the same kind of thing: an agent's calls of one tool with the same effects
/// on the same resources, and previews of the same kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Whose calls.
    pub agent: AgentName,
    /// Of which tool.
    pub tool: ToolRef,
    /// What they do to what.
    pub aims: BTreeSet<ShapeAim>,
    /// How well they can be taken back.
    pub guarantee: Reversibility,
    /// How far what they show or send gets.
    pub disclosure: Disclosure,
    /// The most that they make, change and delete.
    pub counts: ChangeCounts,
}

/// One thing that such calls do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShapeAim {
    /// How dangerous it is.
    pub class: EffectClass,
    /// To what.
    pub resource: String,
    /// Where that lies.
    pub environment: String,
    /// What is done, or `declared`.
    pub verb: &'static str,
    /// To how much of it, or `declared`.
    pub extent: &'static str,
}

/// A set that lets calls of a shape pass, and what is new in it.
#[derive(Debug)]
pub struct Suggestion {
    /// The rule that permits them, where it belongs.
    pub permits: Rule,
    /// The rules that held them, as they are to be.
    pub instead: Vec<Rule>,
    /// The whole set.
    pub set: PolicySet,
}

// === impl Shape ===

impl Shape {
    /// The shape of a call whose preview says all that would happen; no other call has one.
    pub fn of(request: &Request, facts: &Facts) -> Option<Self> {
        let seen = facts.preview.as_ref().filter(|seen| seen.exact)?;
        Some(Self {
            agent: request.agent.clone(),
            tool: request.tool.clone(),
            aims: facts.aims().map(|aim| ShapeAim::of(&aim)).collect(),
            guarantee: seen.guarantee,
            disclosure: seen.disclosure,
            counts: seen.counts,
        })
    }

    /// The set with a rule that permits this shape, called `id`, where none of the rules `holds`
    /// speaks about it any more.
    ///
    /// # Errors
    /// What keeps such a set from loading; nothing, if there is no such rule.
    pub fn lift(
        &self,
        set: &PolicySet,
        holds: &BTreeSet<&str>,
        (id, reason): (&str, &str),
    ) -> Result<Suggestion, Vec<PolicyFault>> {
        let held: Option<Vec<_>> = holds.iter().map(|rule| set.rule(rule)).collect();
        let held = held.filter(|held| !held.is_empty()).ok_or_else(Vec::new)?;
        let before = set.rule(id);
        let file = before.or(held.first().copied()).map_or("", |rule| rule.file.as_str());
        let permits = self.permits(id, reason);
        let mut sources = set.sources().to_vec();
        // From the last to the first, so that the lines of the others stay what they were.
        let mut replaced: Vec<_> = held.iter().map(|rule| (*rule, self.without(rule))).collect();
        replaced.extend(before.map(|rule| (rule, permits.clone())));
        replaced.sort_by_key(|(rule, _)| std::cmp::Reverse(rule.line));
        for (rule, text) in &replaced {
            for source in sources.iter_mut().filter(|source| source.name == rule.file) {
                replace(source, rule, text);
            }
        }
        if before.is_none() {
            for source in sources.iter_mut().filter(|source| source.name == file) {
                source.text = format!("{}\n\n{permits}\n", source.text.trim_end());
            }
        }
        let set = PolicySet::load(&sources)?;
        let instead: Option<Vec<_>> = holds.iter().map(|rule| set.rule(rule).cloned()).collect();
        let permits = set.rule(id).cloned();
        let (Some(instead), Some(permits)) = (instead, permits) else { return Err(Vec::new()) };
        Ok(Suggestion { permits, instead, set })
    }

    /// The rule that permits such calls.
    fn permits(&self, id: &str, reason: &str) -> String {
        format!(
            "@id({})\n@reason({})\npermit (principal == Agent::{}, action, resource)\nwhen {{\n  \
             context.granted &&\n{}\n}};",
            quoted(id),
            quoted(reason),
            quoted(self.agent.as_str()),
            self.condition(),
        )
    }

    /// `rule`, but for such calls.
    fn without(&self, rule: &Rule) -> String {
        // Its last byte is the semicolon that ends it.
        let open = rule.text.strip_suffix(';').unwrap_or(&rule.text).trim_end();
        let agent = quoted(self.agent.as_str());
        let condition = self.condition();
        format!("{open}\nunless {{\n  principal == Agent::{agent} &&\n{condition}\n}};")
    }

    fn condition(&self) -> String {
        let aims = match self.aims.len() {
            0 | 1 => self.aims.iter().map(|aim| aim.condition("  ")).collect(),
            _ => {
                let each = self.aims.iter().map(|aim| aim.condition("    "));
                format!("  (\n{}\n  )", each.collect::<Vec<_>>().join(" ||\n"))
            }
        };
        let ChangeCounts { created, updated, deleted } = self.counts;
        let tool = quoted(&self.tool.to_string());
        let guarantee = quoted(self.guarantee.as_str());
        let disclosure = quoted(self.disclosure.as_str());
        let seen = "  context.exact && context.guarantee";
        format!(
            "  context.tool == Tool::{tool} &&\n{aims} &&\n{seen} == {guarantee} && \
             context.disclosure == {disclosure} &&\n  context.created <= {created} && \
             context.updated <= {updated} && context.deleted <= {deleted}"
        )
    }
}

// === impl ShapeAim ===

impl ShapeAim {
    fn of(aim: &Aim<'_>) -> Self {
        let verb = |verb: Verb| verb.as_str();
        let extent = |extent: Extent| extent.as_str();
        Self {
            class: aim.class,
            resource: aim.target.resource.clone(),
            environment: aim.target.environment.clone(),
            verb: aim.effect.map_or(DECLARED, |effect| verb(effect.verb)),
            extent: aim.effect.map_or(DECLARED, |effect| extent(effect.extent)),
        }
    }

    fn condition(&self, indent: &str) -> String {
        format!(
            "{indent}action == Action::{} &&\n{indent}resource == Resource::{} &&\n{indent}\
             context.environment == Environment::{} &&\n{indent}\
             context.verb == {} && context.extent == {}",
            quoted(action_id(self.class)),
            quoted(&self.resource),
            quoted(&self.environment),
            quoted(self.verb),
            quoted(self.extent),
        )
    }
}

/// A string of Cedar, whose escapes are those of Rust.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_debug())
}

/// Puts `text` in the place of `rule`, which begins on the line that it names.
fn replace(source: &mut PolicySource, rule: &Rule, text: &str) {
    let skipped = rule.line.saturating_sub(1);
    let line = source.text.split_inclusive('\n').take(skipped).map(str::len).sum::<usize>();
    let rest = source.text.get(line..).unwrap_or_default();
    let Some(within) = rest.find(rule.text.as_str()) else { return };
    let from = line.saturating_add(within);
    source.text.replace_range(from..from.saturating_add(rule.text.len()), text);
}

#[cfg(test)]
mod tests {
    use super::quoted;
    use cedar_policy::Policy;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_quoted_is_the_same_text(text in any::<String>()) {
            let policy = format!("permit (principal, action, resource == Resource::{});", quoted(&text));
            let policy = Policy::parse(None, policy).unwrap();
            let json = policy.to_json().unwrap();
            prop_assert_eq!(json["resource"]["entity"]["id"].as_str(), Some(text.as_str()));
        }
    }
}
