//! Puts a call to Cedar: the request and the entities that policies look at.
//!
//! Must not decide anything. What it builds always conforms to the schema, which a test checks with
//! Cedar's own validation, so the hot path does not validate again.

use crate::schema::{Names, uid};
use crate::sight::Sight;
use crate::tags::{TooMany, tags};
use cedar_policy::{
    Context as Circumstances, Entities, Entity, EntityUid, Request as CedarRequest,
    RestrictedExpression as Expression,
};
use holdpoint_types::{
    AgentFacts, Aim, Cause, ChangeCounts, Door, Effect, Facts, PreviewFacts, Reason, Request,
    Ruling, ToolFacts,
};
use std::error::Error;

/// What policies are told of a preview that there is not, or not yet.
const UNKNOWN: &str = "unknown";

/// One call, as Cedar sees it.
pub(crate) struct Question {
    pub(crate) request: CedarRequest,
    pub(crate) entities: Entities,
    /// The tool's id, kept for the index.
    pub(crate) tool_id: String,
}

/// What a question is made of.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    names: &'a Names,
    request: &'a Request,
    facts: &'a Facts,
    aim: Aim<'a>,
    agent: &'a AgentFacts,
    tool: &'a ToolFacts,
    /// What the policies look at: nothing else needs to be built.
    sight: &'a Sight,
}

// === impl Question ===

impl Question {
    /// Puts the call to Cedar, or says why it cannot be put.
    pub(crate) fn new(asked: Asked<'_>) -> Result<Self, Cause> {
        let sees_parameters = asked.sight.sees_parameters();
        let tags = sees_parameters.then(|| tags(&asked.request.parameters)).transpose();
        let tags = tags.map_err(|TooMany| {
            let reason = Reason::ParametersTooMany;
            Cause::new(Ruling::Deny, reason, reason.meaning())
        })?;
        asked
            .question(tags)
            .map_err(|error| Cause::new(Ruling::Deny, Reason::CouldNotDecide, error.to_string()))
    }
}

// === impl Asked ===

impl<'a> Asked<'a> {
    /// Everything that a question needs, or every reason why it cannot be asked.
    pub(crate) fn new(
        names: &'a Names,
        sight: &'a Sight,
        (request, facts): (&'a Request, &'a Facts),
        aim: Aim<'a>,
    ) -> Result<Self, Vec<Cause>> {
        if let (Some(agent), Some(tool)) = (&facts.agent, &facts.tool) {
            return Ok(Self { names, request, facts, aim, agent, tool, sight });
        }
        let unknown = |reason: Reason| Cause::new(Ruling::Deny, reason, reason.meaning());
        let agent = facts.agent.is_none().then(|| unknown(Reason::AgentUnknown));
        let tool = facts.tool.is_none().then(|| unknown(Reason::ToolUnknown));
        Err(agent.into_iter().chain(tool).collect())
    }

    fn question(self, tags: Option<Vec<(String, String)>>) -> Result<Question, Box<dyn Error>> {
        let tool_id = self.request.tool.to_string();
        let tool = uid(&self.names.tool, &tool_id);
        let agent = uid(&self.names.agent, self.request.agent.as_str());
        let resource = uid(&self.names.resource, &self.aim.target.resource);
        let always = [
            self.agent_entity(agent.clone())?,
            self.resource_entity(resource.clone(), tool.clone())?,
        ];
        let call = tags.map(|tags| self.call_entity(tags)).transpose()?;
        let around = self.circumstances(tool.clone())?;
        let tool = self.tool_entity(tool)?;
        // Adding to none takes a third of the time that making all at once takes.
        let all = always.into_iter().chain(tool).chain(call);
        let entities = Entities::empty().add_entities(all, None)?;
        let action = self.names.action(self.aim.class);
        let request = CedarRequest::new(agent, action, resource, around, None)?;
        Ok(Question { request, entities, tool_id })
    }

    /// The attribute `name`, if some policy looks at it.
    fn fact(
        &self,
        name: &'static str,
        value: impl FnOnce() -> Expression,
    ) -> Option<(String, Expression)> {
        self.sight.sees(name).then(|| (name.to_owned(), value()))
    }

    fn agent_entity(&self, agent: EntityUid) -> Result<Entity, Box<dyn Error>> {
        let owner = self.agent.owner.as_ref();
        let team = owner.map(|owner| uid(&self.names.team, owner.as_str()));
        let owner = team.clone().and_then(|team| self.fact("owner", || entity(team)));
        let mode = self.fact("mode", || text(self.agent.mode.as_str()));
        Ok(Entity::new_with_tags(agent, owner.into_iter().chain(mode), team, [])?)
    }

    /// The tool's entity; none if nobody looks into it.
    fn tool_entity(&self, tool: EntityUid) -> Result<Option<Entity>, Box<dyn Error>> {
        let attributes = [
            self.fact("server", || text(self.request.tool.server().as_str())),
            self.fact("class", || text(self.aim.class.as_str())),
            self.fact("open_world", || Expression::new_bool(self.tool.open_world)),
        ];
        if attributes.iter().all(Option::is_none) {
            return Ok(None);
        }
        let attributes = attributes.into_iter().flatten();
        Ok(Some(Entity::new_with_tags(tool, attributes, [], [])?))
    }

    fn resource_entity(
        &self,
        resource: EntityUid,
        tool: EntityUid,
    ) -> Result<Entity, Box<dyn Error>> {
        let address = self.fact("address", || text(&self.aim.target.resource));
        let parents = self.surfaces().chain([self.environment(), tool]);
        Ok(Entity::new_with_tags(resource, address, parents, [])?)
    }

    fn call_entity(&self, tags: Vec<(String, String)>) -> Result<Entity, Box<dyn Error>> {
        let tags = tags.into_iter().map(|(key, value)| (key, Expression::new_string(value)));
        Ok(Entity::new_with_tags(self.names.call.clone(), [], [], tags)?)
    }

    fn circumstances(&self, tool: EntityUid) -> Result<Circumstances, Box<dyn Error>> {
        let Aim { grant, target, effect, .. } = self.aim;
        let freezes = &self.facts.freezes;
        // Of a call whose effects nobody looked for, its tool's entry is all that is known.
        let told = |word: fn(&Effect) -> &'static str| text(effect.map_or("declared", word));
        let task = self.request.task.and_then(|task| {
            self.fact("task", || entity(uid(&self.names.task, &task.to_string())))
        });
        let seen = self.facts.preview.as_ref();
        let pairs = [
            self.fact("granted", || Expression::new_bool(grant.by.is_some())),
            self.fact("planned", || Expression::new_bool(self.facts.is_planned())),
            self.fact("freezes", || Expression::new_set(freezes.iter().map(|name| text(name)))),
            self.fact("tool", || entity(tool)),
            task,
            self.fact("call", || entity(self.names.call.clone())),
            self.fact("environment", || entity(self.environment())),
            self.fact("environment_resolved", || Expression::new_bool(target.environment_resolved)),
            self.fact("surfaces", || Expression::new_set(self.surfaces().map(entity))),
            self.fact("door", || text(door(self.request.door))),
            self.fact("verb", || told(|effect| effect.verb.as_str())),
            self.fact("certainty", || told(|effect| effect.certainty.as_str())),
            self.fact("extent", || told(|effect| effect.extent.as_str())),
            self.fact("reversibility", || told(|effect| effect.ceiling.as_str())),
            self.fact("guarantee", || text(seen.map_or(UNKNOWN, |seen| seen.guarantee.as_str()))),
            self.fact("disclosure", || text(seen.map_or(UNKNOWN, |seen| seen.disclosure.as_str()))),
            self.fact("exact", || Expression::new_bool(seen.is_some_and(|seen| seen.exact))),
            self.fact("changes", || number(seen, ChangeCounts::total)),
            self.fact("created", || number(seen, |counts| counts.created)),
            self.fact("updated", || number(seen, |counts| counts.updated)),
            self.fact("deleted", || number(seen, |counts| counts.deleted)),
        ];
        Ok(Circumstances::from_pairs(pairs.into_iter().flatten())?)
    }

    fn environment(&self) -> EntityUid {
        uid(&self.names.environment, &self.aim.target.environment)
    }

    fn surfaces(&self) -> impl Iterator<Item = EntityUid> + use<'a> {
        let names = self.names;
        self.aim.target.surfaces.iter().map(move |name| uid(&names.surface, name))
    }
}

/// How many things would change; negative if nobody can tell.
fn number(seen: Option<&PreviewFacts>, of: fn(ChangeCounts) -> u64) -> Expression {
    let number = seen.map_or(-1, |seen| i64::try_from(of(seen.counts)).unwrap_or(i64::MAX));
    Expression::new_long(number)
}

/// The word by which policies know a door.
fn door(door: Door) -> &'static str {
    match door {
        Door::McpStdio => "mcp_stdio",
        Door::McpHttp => "mcp_http",
        Door::Try => "try",
        Door::Operator => "operator",
        Door::Hook => "hook",
        Door::Plan => "plan",
    }
}

fn text(text: &str) -> Expression {
    Expression::new_string(text.to_owned())
}

fn entity(uid: EntityUid) -> Expression {
    Expression::new_entity_uid(uid)
}

#[cfg(test)]
mod tests {
    use super::{Asked, Question};
    use crate::schema::schema;
    use crate::sight::Sight;
    use cedar_policy::{Entities, Request as CedarRequest};
    use holdpoint_types::{Facts, Request};
    use proptest::prelude::*;
    use proptest::sample::select;
    use serde_json::{Value, json};

    /// Facts and a request as a record holds them, so that every field takes part.
    fn recorded() -> impl Strategy<Value = (Value, Value)> {
        let mode = select(vec!["auto", "approve-writes", "plan-only", "read-only", "quarantined"]);
        let words = || prop::collection::btree_set(".{0,8}", 0..4);
        let who = (prop::option::of(Just("team")), mode, prop::option::of(Just("fs__x")));
        let tool = (select(vec!["read", "write", "destructive"]), any::<bool>());
        let door = select(vec!["mcp_stdio", "mcp_http", "try", "operator", "hook"]);
        let task = prop::option::of(Just("00000000-0000-7000-8000-000000000000"));
        let target = (".{0,12}", ".{0,6}", any::<bool>(), words(), any::<bool>());
        let guarantee = select(vec!["no_effect", "exact", "exact_until", "irreversible"]);
        let disclosure = select(vec!["contained", "wider", "left"]);
        let seen = prop::option::of((guarantee, disclosure, any::<bool>(), any::<u64>()));
        let fit = prop::option::of(select(vec!["step", "free_read", "deviation"]));
        (who, tool, (door, task, ".{0,9}"), (target, fit, seen), words()).prop_map(
            |((owner, mode, grant), (class, open), (door, task, value), aimed, freezes)| {
                let (target, fit, seen) = aimed;
                let (resource, environment, environment_resolved, surfaces, analysed) = target;
                let digest = format!("sha256:{}", "0".repeat(64));
                let mut agent = json!({ "mode": mode });
                agent
                    .as_object_mut()
                    .unwrap()
                    .extend(owner.map(|owner| ("owner".into(), json!(owner))));
                let target = json!({
                    "resource": resource, "environment": environment,
                    "environment_resolved": environment_resolved, "surfaces": surfaces,
                });
                let effect = json!({
                    "effect": {
                        "verb": "delete", "class": "destructive", "resource": resource,
                        "extent": "whole", "certainty": "exact", "ceiling": "irreversible",
                        "evidence": "",
                    },
                    "grant": {}, "target": target,
                });
                let effects: Vec<_> = analysed.then_some(effect).into_iter().collect();
                let plan = fit.map(|fit| {
                    json!({ "plan": "00000000-0000-7000-8000-000000000002", "version": 1,
                            "fit": fit, "step": "a", "why": "" })
                });
                let preview = seen.map(|(guarantee, disclosure, exact, deleted)| {
                    json!({ "digest": digest, "guarantee": guarantee, "exact": exact,
                            "disclosure": disclosure,
                            "counts": { "created": 1, "updated": 0, "deleted": deleted } })
                });
                let facts = json!({
                    "agent": agent, "effects": effects, "plan": plan, "preview": preview,
                    "tool": {
                        "definition": digest, "state": "pinned", "class": class,
                        "class_source": "operator", "open_world": open,
                    },
                    "grant": grant.map_or_else(|| json!({}), |by| json!({ "by": by })),
                    "target": target,
                    "freezes": freezes, "stops": [], "epoch": 0, "findings": [],
                });
                let mut request = json!({
                    "action": "00000000-0000-7000-8000-000000000001", "agent": "coder",
                    "door": door, "tool": "fs__x", "parameters": { "a": [value, 1, null] }, "at": 0,
                });
                request
                    .as_object_mut()
                    .unwrap()
                    .extend(task.map(|task| ("task".into(), json!(task))));
                (request, facts)
            },
        )
    }

    proptest! {
        #[test]
        fn every_question_conforms_to_the_schema((request, facts) in recorded()) {
            let (schema, names) = schema().unwrap();
            let looks = r#"context.call.hasTag("/a")"#;
            let sight = Sight::of([looks].into_iter()).with_everything_but_parameters();
            let request: Request = serde_json::from_value(request).unwrap();
            let facts: Facts = serde_json::from_value(facts).unwrap();
            let aim = facts.aims().next().unwrap();
            let asked = Asked::new(&names, &sight, (&request, &facts), aim).unwrap();
            let Question { request: put, entities, .. } = Question::new(asked).unwrap();
            let checked = Entities::from_entities(entities, Some(&schema));
            prop_assert!(checked.is_ok(), "{:?}", checked.err());
            let part = |uid: Option<&cedar_policy::EntityUid>| uid.unwrap().clone();
            let around = put.context().unwrap().clone();
            let (who, what) = (part(put.principal()), part(put.action()));
            let again =
                CedarRequest::new(who, what, part(put.resource()), around, Some(&schema));
            prop_assert!(again.is_ok(), "{:?}", again.err());
        }
    }
}
