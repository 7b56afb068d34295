//! The tools by which agents propose, look at and revise plans, wherever they call tools.
//!
//! INVARIANT: no tool of a server has such a name, so that nobody else answers for them. Must never
//! accept a plan, nor show one agent another's.

use super::answer::raw;
use crate::governor::{Governor, PlanProposal, PlanRefused};
use crate::store::PlanRow;
use crate::wire::{next_steps, plan_json, unmet_steps};
use holdpoint_resources::mcp::era::{self, Era};
use holdpoint_resources::mcp::{Identity, Outcome, RpcRequest};
use holdpoint_types::{
    AgentName, PlanDraft, PlanId, PlanSeverity, PlanState, Reason, ServerName, TaskId, ToolRef,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Proposes a plan.
const PROPOSE: &str = "holdpoint_plan_propose";
/// Shows plans.
const STATUS: &str = "holdpoint_plan_status";
/// Proposes a plan in the place of another.
const REVISE: &str = "holdpoint_plan_revise";
/// The conditions of a step.
const CONDITIONS: [&str; 2] = ["preconditions", "postconditions"];
/// Where an agent declares its task, in `_meta`.
const TASK_KEY: &str = "io.holdpoint/task";

/// Who calls one of the tools, and where.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) agent: &'a AgentName,
    /// The one server that the endpoint serves; `None` for all.
    pub(super) server: Option<&'a ServerName>,
    pub(super) era: Era,
}

/// True if the name is that of one of the tools.
pub(crate) fn is_ours(name: &str) -> bool {
    [PROPOSE, STATUS, REVISE].contains(&name)
}

/// True if `request` calls one of the tools.
pub(super) fn is_call(request: &RpcRequest) -> bool {
    let name = request.param("name").and_then(Value::as_str);
    request.method == "tools/call" && name.is_some_and(is_ours)
}

/// Of each server, one tool that a proposal names and nobody knows yet.
pub(super) fn unknown_tools(
    (governor, server): (&Governor, Option<&ServerName>),
    request: &RpcRequest,
) -> Vec<ToolRef> {
    let steps = request.param("arguments").and_then(|arguments| arguments.get("steps"));
    let steps = steps.and_then(Value::as_array).into_iter().flatten();
    let named = steps.flat_map(|step| std::iter::once(step).chain(checks(step)));
    let names = named.filter_map(|named| named.get("tool")?.as_str());
    let tools = names.filter_map(|name| full_name(server, name).parse::<ToolRef>().ok());
    let unknown = tools.filter(|tool| governor.catalog().tool(tool).is_none());
    let of_each: BTreeMap<_, _> = unknown.map(|tool| (tool.server().clone(), tool)).collect();
    of_each.into_values().collect()
}

/// What of a step's conditions can name a tool.
fn checks(step: &Value) -> impl Iterator<Item = &Value> {
    let lists = CONDITIONS.into_iter().filter_map(|name| step.get(name)?.as_array());
    lists.flatten()
}

/// What comes of calling one of the tools.
pub(super) async fn answer(
    governor: &Governor,
    asking: Asking<'_>,
    request: &RpcRequest,
) -> Outcome {
    let name = request.param("name").and_then(Value::as_str).unwrap_or_default();
    let done = match name {
        STATUS => status(governor, asking, request).await,
        _ => propose(governor, asking, (name == REVISE, request)).await,
    };
    let mut result = Map::new();
    let (text, told, failed) = match done {
        Ok(told) => told,
        Err(PlanRefused { reason, text }) => {
            let told = json!({ "reason": reason.code(), "detail": text });
            (format!("{reason}: {text}\nWhat to do: {}", reason.for_agent()), told, true)
        }
    };
    result.insert("content".into(), json!([{ "type": "text", "text": text }]));
    result.insert("structuredContent".into(), told);
    if failed {
        result.insert("isError".into(), true.into());
    }
    Outcome::Result(raw(&era::result_for(asking.era, result, &Identity::holdpoint())))
}

/// What an answer says: in words, for programs, and whether it is one that the agent must change
/// something about.
type Told = (String, Value, bool);

async fn propose(
    governor: &Governor,
    asking: Asking<'_>,
    (revises, request): (bool, &RpcRequest),
) -> Result<Told, PlanRefused> {
    let mut arguments = arguments(request)?;
    let parent = if revises { Some(plan_id(arguments.remove("plan"))?) } else { None };
    for step in arguments.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten() {
        name_in_full(asking.server, step);
        for conditions in CONDITIONS {
            let all = step.get_mut(conditions).and_then(Value::as_array_mut);
            all.into_iter().flatten().for_each(|check| name_in_full(asking.server, check));
        }
    }
    let draft: PlanDraft = serde_json::from_value(Value::Object(arguments))
        .map_err(|fault| invalid(format!("this is no plan: {fault}")))?;
    let draft = PlanDraft { task: draft.task.or_else(|| declared(request)), ..draft };
    let proposal = PlanProposal { agent: asking.agent.clone(), draft, parent, by: None };
    let row = governor.propose_plan(proposal).await?;
    let failed = row.state == PlanState::Refused;
    Ok((in_words(&row), plan_json(&row), failed))
}

async fn status(
    governor: &Governor,
    asking: Asking<'_>,
    request: &RpcRequest,
) -> Result<Told, PlanRefused> {
    let mut arguments = arguments(request)?;
    let id = arguments.remove("plan").map(|id| plan_id(Some(id))).transpose()?;
    if let Some((name, _)) = arguments.iter().next() {
        return Err(invalid(format!("unknown parameter `{name}`")));
    }
    let rows = governor.plans_of(asking.agent, id).await?;
    let (mut texts, mut plans) = (Vec::new(), Vec::new());
    for (row, unseen) in &rows {
        let (mut text, mut plan) = (in_words(row), plan_json(row));
        for step in plan.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten() {
            let why = unseen.iter().find(|(name, _)| step["id"] == name.as_str());
            if let Some((name, why)) = why {
                let _ = write!(text, "\nStep `{name}` does not count as done yet: {why}.");
                step["unlooked"] = why.as_str().into();
            }
        }
        texts.push(text);
        plans.push(plan);
    }
    let text = if texts.is_empty() { "You have no plans.".to_owned() } else { texts.join("\n\n") };
    Ok((text, json!({ "plans": plans }), false))
}

fn arguments(request: &RpcRequest) -> Result<Map<String, Value>, PlanRefused> {
    match request.param("arguments").cloned() {
        None => Ok(Map::new()),
        Some(Value::Object(arguments)) => Ok(arguments),
        Some(_) => Err(invalid("`params.arguments` must be an object".to_owned())),
    }
}

fn plan_id(value: Option<Value>) -> Result<PlanId, PlanRefused> {
    let id = value.as_ref().and_then(Value::as_str).and_then(|id| id.parse().ok());
    id.ok_or_else(|| invalid("`plan` must be the id of a plan".to_owned()))
}

/// The task that the agent declares beside its call.
fn declared(request: &RpcRequest) -> Option<TaskId> {
    request.param("_meta")?.get(TASK_KEY)?.get("id")?.as_str()?.parse().ok()
}

fn invalid(text: String) -> PlanRefused {
    PlanRefused { reason: Reason::ParametersInvalid, text }
}

/// Gives the tool that `named` names its full name.
fn name_in_full(server: Option<&ServerName>, named: &mut Value) {
    if let Some(tool) = named.get_mut("tool")
        && let Some(name) = tool.as_str()
    {
        *tool = full_name(server, name).into();
    }
}

/// Where one server is served, agents know its tools by their own names.
fn full_name(server: Option<&ServerName>, name: &str) -> String {
    match server {
        Some(server) if !name.starts_with(&format!("{server}__")) => format!("{server}__{name}"),
        Some(_) | None => name.to_owned(),
    }
}

/// A plan for whoever reads rather than parses.
fn in_words(row: &PlanRow) -> String {
    let plan = &row.plan;
    let how = match row.state {
        PlanState::Proposed => "waits for somebody to accept it; until then it changes nothing",
        PlanState::Accepted => "is in force: every change of its task has to be its next step",
        PlanState::Refused => "was refused",
        PlanState::Ended(_) => "is over",
    };
    let mut text = format!("Plan {} ({}) {how}.", plan.id, row.state.as_str());
    for note in &row.notes {
        let step = note.step.as_ref().map_or_else(String::new, |step| format!(" [{step}]"));
        let (severity, code) = (note.severity.as_str(), note.code);
        let _ = write!(text, "\n- {severity} {code}{step}: {}", note.text);
    }
    let next = next_steps(row);
    if !next.is_empty() {
        let _ = write!(text, "\nNext: {}.", next.join(", "));
    }
    for (step, unmet) in unmet_steps(row) {
        let helps = if row.state == PlanState::Accepted { " Revise the plan." } else { "" };
        let _ = write!(text, "\nStep `{step}` goes no further: {unmet}.{helps}");
    }
    let blocked = row.notes.iter().any(|note| note.severity == PlanSeverity::Blocking);
    if row.state == PlanState::Refused && blocked {
        let _ = write!(text, "\nWhat to do: {}", Reason::PlanBlocked.for_agent());
    }
    if row.state.is_open() {
        let _ = write!(text, "\nDeclare the task {} with your calls if you can.", plan.task);
    }
    text
}

/// The definitions of the tools.
pub(super) fn definitions() -> [Value; 3] {
    let text = |text: &str| json!({ "type": "string", "description": text });
    let plan = text("The id of a plan.");
    let draft = draft_schema();
    let mut revision = draft.clone();
    if let Some(properties) = revision.pointer_mut("/properties").and_then(Value::as_object_mut) {
        properties
            .insert("plan".to_owned(), text("The id of the plan that it takes the place of."));
    }
    if let Some(required) = revision.pointer_mut("/required").and_then(Value::as_array_mut) {
        required.push("plan".into());
    }
    let looks = json!({
        "type": "object", "properties": { "plan": plan }, "additionalProperties": false,
    });
    [
        tool(
            PROPOSE,
            "Propose what you want to do, step by step, before you do it. The answer \
            names what is wrong with it. Once it is accepted, every change of its task has to \
            be its next step.",
            (draft, false),
        ),
        tool(
            REVISE,
            "Propose another plan in the place of one of yours, for the same task. The old \
            one stays in force until this one is accepted.",
            (revision, false),
        ),
        tool(
            STATUS,
            "See what has become of your plans, how far each has come, and which step is \
            next.",
            (looks, true),
        ),
    ]
}

fn tool(name: &str, description: &str, (schema, reads): (Value, bool)) -> Value {
    json!({
        "name": name,
        "description": description,
        "inputSchema": schema,
        "annotations": { "readOnlyHint": reads, "destructiveHint": false, "openWorldHint": false },
    })
}

fn draft_schema() -> Value {
    let text = |text: &str| json!({ "type": "string", "description": text });
    let texts =
        |text: &str| json!({ "type": "array", "items": { "type": "string" }, "description": text });
    let most = |what: &str| json!({ "type": "integer", "minimum": 0, "description": what });
    let budget = json!({
        "type": "object", "additionalProperties": false,
        "description": "How much all its calls together may touch. Needed where it destroys.",
        "properties": {
            "rows": most("Rows of tables."), "files": most("Files."),
            "resources": most("Resources of any kind."),
        },
    });
    let class = json!({
        "enum": ["read", "write", "destructive"],
        "description": "The most dangerous class that its calls may have.",
    });
    let condition = json!({
        "type": "object", "additionalProperties": false, "required": ["says", "tool", "result"],
        "properties": {
            "says": text("What holds then."),
            "tool": text("A tool that only reads."),
            "arguments": { "type": "object", "description": "The parameters of that read." },
            "result": { "type": ["object", "boolean"], "description": "A JSON Schema that its \
                structured content, or else its text as JSON or as it is, must fit." },
        },
    });
    let conditions = |text: &str| {
        let item = json!({ "anyOf": [{ "type": "string" }, condition] });
        let more = "Words for whoever accepts the plan, or a read that is made then and what its \
            result must be; the step does not go on without it.";
        json!({ "type": "array", "items": item, "description": format!("{text} {more}") })
    };
    let step = json!({
        "type": "object", "additionalProperties": false, "required": ["id", "tool", "class"],
        "properties": {
            "id": text("Its name: lower-case letters, digits, `-`, `.`."),
            "tool": text("The tool that it calls, as `tools/list` names it."),
            "class": class,
            "targets": texts("Patterns over the resources that it may touch, such as \
                `file:///srv/app/old/*`. Needed where it changes something."),
            "surfaces": texts("The surfaces that it may touch."),
            "parameters": { "type": "object", "description": "A JSON Schema that the parameters of \
                its calls must fit." },
            "call": { "type": "object", "description": "The parameters of its one call, word for \
                word. What it would do is then looked at now, where that can be seen, and the plan \
                is void if its target moves." },
            "calls": { "type": "integer", "minimum": 1, "description": "How many calls it may take \
                at most; 1 if you say nothing." },
            "budget": budget,
            "recovery_point": { "type": "boolean", "description": "True if it saves what later \
                steps destroy." },
            "preconditions": conditions("What must hold before it."),
            "postconditions": conditions("What must hold after it."),
            "after": texts("The steps that must be done before it; if absent, the one before it."),
        },
    });
    json!({
        "type": "object", "additionalProperties": false, "required": ["purpose", "steps"],
        "properties": {
            "purpose": text("What it is for."),
            "task": text("The id of the task (a UUID); a new one, if absent."),
            "reads": { "enum": ["free", "listed"], "description": "Whether calls that only read \
                need a step; `free` if you say nothing." },
            "steps": { "type": "array", "items": step, "minItems": 1, "maxItems": 100 },
            "expires_in_s": { "type": "integer", "description": "When it ends, in seconds; 3600 if \
                you say nothing." },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::{definitions, full_name, is_ours};
    use holdpoint_types::PlanDraft;
    use serde_json::{Value, json};

    #[test]
    fn the_schema_takes_what_a_plan_is() {
        let [propose, revise, status] = definitions();
        for tool in [&propose, &revise, &status] {
            assert!(is_ours(tool["name"].as_str().unwrap()), "{tool}");
            jsonschema::validator_for(&tool["inputSchema"]).unwrap();
        }
        let schema = jsonschema::validator_for(&propose["inputSchema"]).unwrap();
        let all = json!({
            "purpose": "x", "task": "00000000-0000-7000-8000-000000000000", "reads": "listed",
            "expires_in_s": 60,
            "steps": [{
                "id": "a", "tool": "fs__x", "class": "write", "targets": ["file:///x"],
                "surfaces": ["auth"], "parameters": {}, "call": {}, "calls": 2,
                "budget": { "rows": 1 },
                "recovery_point": true, "preconditions": ["p"], "postconditions": ["q", {
                    "says": "r", "tool": "fs__y", "arguments": {}, "result": { "const": 1 } }],
                "after": [],
            }],
        });
        assert!(schema.is_valid(&all));
        let draft: PlanDraft = serde_json::from_value(all).unwrap();
        // Whatever a draft can say, the schema knows: what is written again is as it was read.
        let again = serde_json::to_value(draft).unwrap();
        assert!(schema.is_valid(&again), "{again}");
        let step = &propose["inputSchema"]["properties"]["steps"]["items"]["properties"];
        let known: Vec<&String> = step.as_object().unwrap().keys().collect();
        let said: Vec<&String> = again["steps"][0].as_object().unwrap().keys().collect();
        assert_eq!(known.len(), said.len());
        assert!(schema.iter_errors(&json!({ "purpose": "x", "steps": [], "y": 1 })).count() > 0);
        assert_eq!(revise["inputSchema"]["required"], json!(["purpose", "steps", "plan"]));
        assert_eq!(status["annotations"]["readOnlyHint"], Value::Bool(true));
    }

    #[test]
    fn tools_have_their_short_names_where_one_server_is_served() {
        let server = "fs".parse().unwrap();
        assert_eq!(full_name(Some(&server), "write"), "fs__write");
        assert_eq!(full_name(Some(&server), "fs__write"), "fs__write");
        assert_eq!(full_name(None, "write"), "write");
    }
}
