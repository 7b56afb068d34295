//! The checker's remarks in one reviewed table, and the matcher step by step.

mod laws;

use super::{
    CHECKS_MAX, CallState, Called, ConditionPlace, FORESEEN_MAX, Foreseen, Known, PlanAccept,
    PlanCall, PlanMatcher, PlanRules, Progress, STEPS_MAX, StepState, TARGETS_MAX, basis_moved,
    check, foreseeable, note_foreseen,
};
use crate::settings::{
    Agent, Grant, ResourcePattern, ResourceTemplate, ServerRules, Settings, SettingsParts, Surface,
    Team, ToolPattern, ToolRules,
};
use expect_test::expect_file;
use holdpoint_effects::{Analyser, Family, Place, Source};
use holdpoint_types::{
    ActionId, AgentFacts, ChangeCounts, ClassSource, Digest, Disclosure, Door, EffectClass, Epoch,
    Facts, GrantFacts, Mode, Plan, PlanBasis, PlanBudget, PlanDraft, PlanFit, PlanId, PlanLooked,
    PlanNote, PlanSeverity, PlanWhen, PreviewFacts, Request, Reversibility, StepName, TaskId,
    Timestamp, ToolFacts, ToolRef, ToolState,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::LazyLock;

const NOW: Timestamp = Timestamp(1_784_000_000_000);

static SETTINGS: LazyLock<Settings> = LazyLock::new(settings);

fn tools(texts: &[&str]) -> Vec<ToolPattern> {
    texts.iter().map(|text| ToolPattern::parse(text).unwrap()).collect()
}

fn settings() -> Settings {
    let file = || Some(ResourceTemplate::parse("file://{/path}").unwrap());
    let rules = |effects| ToolRules { class: None, resource: None, effects };
    let text = Source::parse("/text").unwrap();
    let place = Place { cwd: Some("/srv/app".to_owned()), ..Place::default() };
    let shell = Analyser { place, family: Family::Shell { text, cwd: None } };
    let at_file = || ToolRules { resource: file(), ..rules(Vec::new()) };
    let server = ServerRules {
        environment: Some("dev".to_owned()),
        read: tools(&["read"]),
        write: tools(&["write", "copy", "note", "run"]),
        destructive: tools(&["delete", "shred"]),
        tools: BTreeMap::from([
            ("read".to_owned(), at_file()),
            ("write".to_owned(), at_file()),
            ("copy".to_owned(), at_file()),
            ("delete".to_owned(), at_file()),
            ("run".to_owned(), rules(vec![shell])),
        ]),
        ..ServerRules::default()
    };
    let grant = |class, texts: &[&str]| Grant::new(class, tools(texts)).unwrap();
    let coder = Agent {
        requesters: BTreeSet::new(),
        owner: "platform".parse().unwrap(),
        mode: Mode::Auto,
        grants: vec![
            grant(EffectClass::Read, &["*"]),
            grant(EffectClass::Write, &["*"]),
            grant(EffectClass::Destructive, &["fs__delete", "fs__run"]),
        ],
    };
    let surface = |name: &str, resource: &str| Surface {
        name: name.to_owned(),
        resources: vec![ResourcePattern::parse(resource).unwrap()],
        tools: Vec::new(),
    };
    let parts = SettingsParts {
        teams: BTreeMap::from([("platform".parse().unwrap(), Team::default())]),
        agents: BTreeMap::from([("coder".parse().unwrap(), coder)]),
        servers: BTreeMap::from([
            ("fs".parse().unwrap(), server),
            ("host".parse().unwrap(), ServerRules { hosted: true, ..ServerRules::default() }),
        ]),
        surfaces: vec![
            surface("auth", "file:///srv/app/auth/**"),
            surface("secrets", "file:///**/.env"),
        ],
        plans: Some(rules_of_plans()),
        ..SettingsParts::default()
    };
    Settings::new(parts).unwrap()
}

fn rules_of_plans() -> PlanRules {
    PlanRules {
        accept: PlanAccept::Operator,
        expires_s_max: 86_400,
        budget_max: PlanBudget { rows: Some(1000), files: Some(50), resources: Some(20) },
        forbidden_surfaces: BTreeSet::from(["secrets".to_owned()]),
    }
}

fn catalog() -> BTreeMap<ToolRef, ToolFacts> {
    let facts = |name: &str, class| {
        let state = match name {
            "note" => ToolState::Changed { pinned: Digest::of(b"other") },
            _ => ToolState::Pinned,
        };
        let definition = Digest::of(name.as_bytes());
        let class_source = ClassSource::Operator;
        let facts = ToolFacts { definition, state, class, class_source, open_world: false };
        (format!("fs__{name}").parse().unwrap(), facts)
    };
    let all = [
        ("read", EffectClass::Read),
        ("write", EffectClass::Write),
        ("copy", EffectClass::Write),
        ("note", EffectClass::Write),
        ("run", EffectClass::Destructive),
        ("delete", EffectClass::Destructive),
        ("shred", EffectClass::Destructive),
    ];
    let mut found: BTreeMap<_, _> =
        all.into_iter().map(|(name, class)| facts(name, class)).collect();
    let (_, read) = facts("read", EffectClass::Read);
    found.insert("host__read".parse().unwrap(), read);
    found
}

fn plan(draft: Value) -> Plan {
    let mut draft = draft;
    if let Some(draft) = draft.as_object_mut() {
        draft.entry("purpose").or_insert_with(|| json!("a test"));
    }
    let draft: PlanDraft = serde_json::from_value(draft).unwrap();
    let policy = Digest::of(b"policy");
    let basis =
        PlanBasis { policy, tools: BTreeMap::new(), targets: BTreeMap::new(), parent: None };
    let whose = ("coder".parse().unwrap(), TaskId::new(NOW, [2; 10]));
    Plan::of(draft, PlanId::new(NOW, [3; 10]), whose, NOW, basis)
}

fn steps(steps: Value) -> Plan {
    plan(json!({ "steps": steps }))
}

/// A plan that copies files and then deletes them.
fn good() -> Plan {
    steps(json!([
        { "id": "save", "tool": "fs__copy", "class": "write", "calls": 2, "recovery_point": true,
          "targets": ["file:///srv/app/old/*"] },
        { "id": "clean", "tool": "fs__delete", "class": "destructive", "calls": 3,
          "targets": ["file:///srv/app/old/*"], "budget": { "resources": 2 },
          "parameters": { "required": ["path"] } },
        { "id": "tell", "tool": "fs__write", "class": "write",
          "targets": ["file:///srv/app/CHANGES"] },
    ]))
}

/// Tools whose calls are previewed.
fn previewed() -> BTreeSet<ToolRef> {
    BTreeSet::from(["fs__run".parse().unwrap()])
}

fn noted(plan: &Plan, schema_faults: &BTreeMap<usize, String>) -> Vec<PlanNote> {
    let (tools, previewed, rules) = (catalog(), previewed(), rules_of_plans());
    let known = Known {
        settings: &SETTINGS,
        rules: &rules,
        tools: &tools,
        previewed: &previewed,
        schema_faults,
        looks: &looks(plan),
        unread: &unread(plan),
        result_faults: &BTreeMap::new(),
        now: NOW,
    };
    check(plan, known)
}

/// What the reads of conditions would be: those that say so, a write.
fn looks(plan: &Plan) -> BTreeMap<ConditionPlace, EffectClass> {
    let mut found = BTreeMap::new();
    for (at, step) in plan.steps.iter().enumerate() {
        for when in PlanWhen::ALL {
            for (number, check) in step.checks(when) {
                if let Some(class) = check.arguments.get("class") {
                    let class = serde_json::from_value(class.clone()).unwrap();
                    found.insert((at, when, number), class);
                }
            }
        }
    }
    found
}

/// What is wrong with the arguments of conditions: what they say.
fn unread(plan: &Plan) -> BTreeMap<ConditionPlace, String> {
    let mut found = BTreeMap::new();
    for (at, step) in plan.steps.iter().enumerate() {
        for (number, check) in step.checks(PlanWhen::Before) {
            if let Some(why) = check.arguments.get("unread").and_then(Value::as_str) {
                found.insert((at, PlanWhen::Before, number), why.to_owned());
            }
        }
    }
    found
}

/// A condition that is looked at with `tool`.
fn look(tool: &str, arguments: Value) -> Value {
    json!({ "says": "all is well", "tool": tool, "arguments": arguments, "result": {} })
}

/// A plan of one step, which says this besides what every step must.
fn one(extra: Value) -> Plan {
    let mut step = json!({ "id": "a", "tool": "fs__write", "class": "write",
                           "targets": ["file:///srv/app/x"] });
    step.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    steps(json!([step]))
}

fn write(id: &str, after: Value) -> Value {
    json!({ "id": id, "tool": "fs__write", "class": "write", "targets": ["file:///srv/app/x"],
            "after": after })
}

fn save() -> Value {
    json!({ "id": "save", "tool": "fs__copy", "class": "write", "recovery_point": true,
            "targets": ["file:///srv/app/x"] })
}

fn delete(id: &str, target: &str) -> Value {
    json!({ "id": id, "tool": "fs__delete", "class": "destructive", "targets": [target],
            "budget": { "resources": 15 } })
}

fn whole_plans() -> Vec<(&'static str, Plan)> {
    let many = |count: usize| {
        let all = (0..count).map(|at| write(&format!("s{at}"), Value::Null));
        steps(all.collect())
    };
    let lasting = |seconds: i64| {
        let steps = [write("a", Value::Null)];
        plan(json!({ "expires_in_s": seconds, "steps": steps }))
    };
    let (x, y) = ("file:///srv/app/x", "file:///srv/app/y");
    vec![
        ("nothing wrong", good()),
        ("no steps", steps(json!([]))),
        ("as many steps as may be", many(STEPS_MAX)),
        ("10,000 steps", many(10_000)),
        ("two steps of one name", steps(json!([write("a", json!([])), write("a", json!([]))]))),
        ("a cycle", steps(json!([write("a", json!(["b"])), write("b", json!(["a"]))]))),
        ("over already", lasting(0)),
        ("long over", lasting(i64::MIN)),
        ("too long", lasting(86_401)),
        ("for ever", lasting(i64::MAX)),
        ("destroys, saved later", steps(json!([delete("b", x), save()]))),
        (
            "destroys and makes again",
            steps(json!([save(), delete("b", x), write("c", Value::Null)])),
        ),
        ("too much in all", steps(json!([save(), delete("b", x), delete("c", y)]))),
        ("more conditions than anybody waits for", {
            let mut step = write("a", Value::Null);
            step["preconditions"] = vec![look("fs__read", json!({})); CHECKS_MAX + 1].into();
            steps(json!([step]))
        }),
    ]
}

fn single_steps() -> Vec<(&'static str, Value)> {
    let targets: Vec<_> = (0..=TARGETS_MAX).map(|at| format!("file:///srv/app/{at}")).collect();
    let at = |target: &str| json!({ "targets": [target] });
    let tool = |tool: &str, class: &str, target: &str| {
        let targets = [target];
        json!({ "tool": tool, "class": class, "targets": targets })
    };
    let destroys = |budget: Value, saves: bool| {
        json!({ "tool": "fs__delete", "class": "destructive", "budget": budget,
                "recovery_point": saves })
    };
    let files = json!({ "tool": "fs__note", "targets": ["mcp://fs/*"], "budget": { "files": 5 } });
    let auth = json!({ "targets": ["file:///srv/app/auth/x"], "surfaces": ["auth"] });
    let before = |condition: Value| json!({ "preconditions": ["words", condition] });
    let unread = json!({ "class": "destructive", "unread": "do not fit its schema: no `sql`" });
    let eight = vec![look("fs__read", json!({})); 8];
    vec![
        ("too many targets", json!({ "targets": targets })),
        ("after a step that there is not", json!({ "after": ["b"] })),
        ("after itself", json!({ "after": ["a"] })),
        ("unknown tool", json!({ "tool": "fs__none" })),
        ("changed tool", tool("fs__note", "write", "mcp://fs/note")),
        ("no grant", tool("fs__shred", "destructive", "mcp://fs/shred")),
        ("no target", json!({ "targets": [] })),
        ("no target, reads", json!({ "tool": "fs__read", "class": "read", "targets": [] })),
        ("a target that is none", at("/srv/app/x")),
        ("everything", at("file:///**")),
        ("everything, reads", tool("fs__read", "read", "file:///*/**")),
        ("a target of another kind", at("pg://orders/**")),
        ("a tool without a resource", json!({ "tool": "fs__note" })),
        ("a forbidden surface", at("file:///srv/*/.env")),
        ("a forbidden surface by name", json!({ "surfaces": ["secrets"] })),
        ("a surface without a word", at("file:///srv/app/auth/x")),
        ("a surface perhaps", at("file:///srv/app/*/x")),
        ("a surface by name", auth),
        ("a surface that there is not", json!({ "surfaces": ["moon"] })),
        ("milder than its tool", json!({ "tool": "fs__delete" })),
        ("the class of each call counts", json!({ "tool": "fs__run" })),
        ("destroys, with nothing else", destroys(json!({}), false)),
        ("destroys, nothing saved", destroys(json!({ "resources": 1 }), false)),
        ("destroys, saved by itself", destroys(json!({ "resources": 1 }), true)),
        ("no calls", json!({ "calls": 0 })),
        ("a million calls", json!({ "calls": 1_000_000 })),
        ("one call, twice", json!({ "call": { "path": "/srv/app/x" }, "calls": 2 })),
        ("rows of files", json!({ "budget": { "rows": 5 } })),
        ("files nobody counts", files),
        ("looked at by a read", before(look("fs__read", json!({})))),
        ("looked at by nobody's tool", before(look("fs__none", json!({})))),
        ("looked at by a host's tool", before(look("host__read", json!({})))),
        ("looked at by what changes something", before(look("fs__write", json!({})))),
        ("looked at by a changed tool", before(look("fs__note", json!({})))),
        ("by a tool whose call reads", before(look("fs__run", json!({ "class": "read" })))),
        ("by a tool whose call writes", before(look("fs__run", json!({ "class": "write" })))),
        ("with arguments that nobody can read", before(look("fs__run", unread))),
        ("as many conditions as may be", json!({ "postconditions": eight })),
        (
            "one more",
            json!({ "postconditions": eight, "preconditions": [look("fs__read", json!({}))] }),
        ),
    ]
}

#[test]
fn the_checkers_notes_are_as_reviewed() {
    let mut cases = whole_plans();
    cases.extend(single_steps().into_iter().map(|(what, step)| (what, one(step))));
    let mut table = String::new();
    for (what, plan) in &cases {
        let notes = noted(plan, &BTreeMap::new());
        let _ = writeln!(table, "{what}{}", if notes.is_empty() { ": -" } else { "" });
        for note in &notes {
            let step = note.step.as_ref().map_or("plan", StepName::as_str);
            let (severity, code) = (note.severity.as_str(), note.code);
            let _ = writeln!(table, "  {severity} {code} [{step}] {}", note.text);
        }
    }
    let faults = BTreeMap::from([(1, "`type` must be a string".to_owned())]);
    let told = noted(&good(), &faults);
    let _ = writeln!(table, "a constraint that is none\n  {} {}", told[0].code, told[0].text);
    expect_file!["notes.txt"].assert_eq(&table);
}

#[test]
fn a_hundred_notes_are_enough() {
    let steps: Vec<_> = (0..STEPS_MAX)
        .map(|at| json!({ "id": format!("s{at}"), "tool": "fs__none", "class": "destructive" }))
        .collect();
    let notes = noted(&plan(json!({ "steps": steps })), &BTreeMap::new());
    assert_eq!(notes.len(), super::NOTES_MAX + 1);
    assert_eq!(notes[super::NOTES_MAX].code.as_str(), "more_notes");
    assert_eq!(notes[super::NOTES_MAX].severity, PlanSeverity::Blocking);
}

/// One call: its tool, its class, and what it is aimed at.
fn call(tool: &str, class: EffectClass, path: &str) -> (Request, Facts) {
    let tool: ToolRef = tool.parse().unwrap();
    let parameters = json!({ "path": path });
    let target = SETTINGS.target(&tool, &parameters);
    let request = Request {
        action: ActionId::new(NOW, [1; 10]),
        agent: "coder".parse().unwrap(),
        door: Door::McpHttp,
        tool: tool.clone(),
        parameters,
        task: Some(TaskId::new(NOW, [2; 10])),
        intent: None,
        retrieved: Vec::new(),
        host_call: None,
        at: NOW,
    };
    let facts = Facts {
        agent: Some(AgentFacts { owner: None, mode: Mode::Auto }),
        tool: Some(ToolFacts { class, ..catalog().get(&tool).unwrap().clone() }),
        grant: GrantFacts::default(),
        target,
        effects: Vec::new(),
        freezes: BTreeSet::new(),
        freeze_exceptions: Default::default(),
        stops: Vec::new(),
        epoch: Epoch(0),
        findings: Vec::new(),
        preview: None,
        unseen: None,
        approval: None,
        plan: None,
    };
    (request, facts)
}

fn taken(step: &str, number: u8, state: CallState) -> PlanCall {
    let action = ActionId::new(NOW, [number; 10]);
    let uses = PlanBudget { resources: Some(1), ..PlanBudget::default() };
    PlanCall { action, step: step.parse().unwrap(), uses, state }
}

fn fit_of(plan: &Plan, calls: &[PlanCall], (request, facts): &(Request, Facts)) -> String {
    let matcher = PlanMatcher::new(plan.clone()).unwrap();
    let fault = |at: usize| {
        let lacks = plan.steps[at].parameters.is_some() && request.parameters["path"] == "";
        lacks.then(|| "a path is missing".to_owned())
    };
    let called = Called { request, facts, foreseen: Foreseen::Never, schema_fault: &fault };
    match matcher.fit(&Progress::of(1, calls), called) {
        PlanFit::Step { step, .. } => format!("step {step}"),
        PlanFit::FreeRead => "free".to_owned(),
        PlanFit::Condition { .. } => unreachable!("no agent's call is one"),
        PlanFit::Deviation { nearest, why } => {
            format!("{}: {why}", nearest.map_or_else(|| "-".to_owned(), |step| step.to_string()))
        }
    }
}

const WRITE: EffectClass = EffectClass::Write;
const DESTROY: EffectClass = EffectClass::Destructive;
const OLD: &str = "/srv/app/old/a";

#[test]
fn calls_follow_the_steps_in_order() {
    let plan = good();
    let copy = call("fs__copy", WRITE, OLD);
    let delete = call("fs__delete", DESTROY, OLD);
    let tell = call("fs__write", WRITE, "/srv/app/CHANGES");
    let saved = taken("save", 1, CallState::Succeeded);
    let cleaned = taken("clean", 2, CallState::Succeeded);
    let check = |calls: &[PlanCall], call: &(Request, Facts), expected: &str| {
        assert_eq!(fit_of(&plan, calls, call), expected);
    };
    check(&[], &copy, "step save");
    check(&[], &call("fs__read", EffectClass::Read, "/etc/passwd"), "free");
    check(&[], &delete, "clean: the call is one of step `clean`, but it waits for `save`");
    check(
        &[],
        &call("fs__write", WRITE, "/srv/app/x"),
        "save: next is step `save`, which calls `fs__copy`, not `fs__write`",
    );
    check(
        &[],
        &call("fs__copy", WRITE, "/srv/app/new"),
        "save: next is step `save`, which is aimed at `file:///srv/app/old/*`; the call is aimed \
         at `file:///srv/app/new`",
    );
    check(
        &[],
        &call("fs__copy", DESTROY, OLD),
        "save: next is step `save`, which is `write`; the call is destructive on \
         `file:///srv/app/old/a`",
    );
    // The first step may go on until the second begins.
    check(std::slice::from_ref(&saved), &copy, "step save");
    check(std::slice::from_ref(&saved), &delete, "step clean");
    check(
        &[saved.clone(), cleaned.clone()],
        &copy,
        "save: the call is one of step `save`, but it is done; revise the plan if there is more \
         to do",
    );
    check(&[saved.clone(), cleaned.clone()], &delete, "step clean");
    check(&[saved.clone(), cleaned.clone()], &tell, "step tell");
    let told = taken("tell", 3, CallState::Succeeded);
    let all = [saved, cleaned, told];
    check(&all, &call("fs__note", WRITE, ""), "-: every step is done");
    let progress = Progress::of(1, &all);
    assert!(progress.is_complete(&plan.steps) && progress.is_exhausted(&plan.steps));
}

#[test]
fn calls_that_fail_use_up_a_step_and_do_not_finish_it() {
    let plan = good();
    let copy = call("fs__copy", WRITE, OLD);
    let delete = call("fs__delete", DESTROY, OLD);
    let calls = |states: &[CallState]| -> Vec<PlanCall> {
        let each = (1..).zip(states).map(|(number, state)| taken("save", number, *state));
        each.collect()
    };
    use CallState::{InDoubt, NotSent, Running, Succeeded, ToolError};
    let check = |states: &[CallState], (on, then): (&str, &str)| {
        let calls = calls(states);
        assert!(fit_of(&plan, &calls, &copy).contains(on), "{states:?}");
        let next = fit_of(&plan, &calls, &delete);
        assert!(next.contains(then), "{states:?}: {next}");
    };
    check(&[ToolError], ("step save", "it waits for `save`"));
    let spent = "it waits for `save`, whose calls are used up and none succeeded: revise the plan";
    check(&[ToolError, ToolError], ("used up and none succeeded", spent));
    check(&[ToolError, Succeeded], ("it is done", "step clean"));
    check(&[NotSent, NotSent, NotSent], ("step save", "it waits for `save`"));
    check(&[Running], ("step save", "it waits for `save`"));
    check(&[Running, Running], ("under way", "it waits for `save`"));
    check(&[Succeeded, Running], ("under way", "it waits for `save`"));
    let doubt = "is in doubt: revise the plan";
    check(&[InDoubt], ("nobody knows what its call", doubt));
    check(&[Succeeded, InDoubt], ("nobody knows what its call", "it waits for `save`"));
}

#[test]
fn a_step_is_done_once_what_must_hold_after_it_was_seen_to() {
    let mut plan = good();
    let check = look("fs__read", json!({}));
    plan.steps[0].postconditions = vec![serde_json::from_value(check).unwrap()];
    let copy = call("fs__copy", WRITE, OLD);
    let delete = call("fs__delete", DESTROY, OLD);
    let looked = |unmet: Option<&str>| PlanLooked {
        plan: plan.id,
        agent: plan.agent.clone(),
        step: "save".parse().unwrap(),
        reads: Vec::new(),
        unmet: unmet.map(str::to_owned),
    };
    let one = [taken("save", 1, CallState::Succeeded)];
    let two = [one[0].clone(), taken("save", 2, CallState::Succeeded)];
    let running = [one[0].clone(), taken("save", 2, CallState::Running)];
    let states = |calls: &[PlanCall], looks: &[PlanLooked]| {
        let progress = Progress::of(1, calls).looked(looks);
        let unlooked = progress.unlooked(&plan.steps).into_iter();
        let unlooked: Vec<_> = unlooked.map(|(step, left)| (step.id.to_string(), left)).collect();
        let states = progress.states(&plan.steps);
        let words: Vec<_> = states.iter().map(StepState::as_str).collect();
        (words.join(" "), unlooked)
    };
    let save = |left| vec![("save".to_owned(), left)];
    assert_eq!(states(&[], &[]), ("open waiting waiting".to_owned(), Vec::new()));
    assert_eq!(states(&one, &[]), ("open waiting waiting".to_owned(), save(1)));
    assert_eq!(states(&running, &[]), ("running waiting waiting".to_owned(), Vec::new()));
    assert_eq!(states(&two, &[]), ("unlooked waiting waiting".to_owned(), save(0)));
    // It holds: the step takes no call any more, whatever is left of it.
    let held = [looked(None)];
    assert_eq!(states(&one, &held), ("done open waiting".to_owned(), Vec::new()));
    assert_eq!(states(&two, &held), ("done open waiting".to_owned(), Vec::new()));
    let unmet = [looked(Some("it is empty"))];
    assert_eq!(states(&two, &unmet), ("unmet waiting waiting".to_owned(), Vec::new()));
    // What nobody knows about is not done, whatever was seen.
    let doubt = [one[0].clone(), taken("save", 2, CallState::InDoubt)];
    assert_eq!(states(&doubt, &held).0, "in_doubt waiting waiting");
    let matcher = PlanMatcher::new(plan.clone()).unwrap();
    let fit = |(request, facts): &(Request, Facts), looks: &[PlanLooked]| {
        let progress = Progress::of(1, &two).looked(looks);
        let called = Called { request, facts, foreseen: Foreseen::Never, schema_fault: &|_| None };
        match matcher.fit(&progress, called) {
            PlanFit::Deviation { why, .. } => why,
            other => format!("{other:?}"),
        }
    };
    assert!(fit(&copy, &[]).contains("was not looked at yet"));
    assert!(fit(&delete, &[]).contains("waits for `save`"));
    assert!(fit(&copy, &unmet).contains("does not; revise the plan: it is empty"));
    let stuck = "whose postcondition does not hold: revise the plan";
    let next = fit(&delete, &unmet);
    assert!(next.ends_with(&format!("it waits for `save`, {stuck}")), "{next}");
    // Whoever waits for what waits hears of it too.
    let last = fit(&call("fs__write", WRITE, "/srv/app/CHANGES"), &unmet);
    let wanted = format!("it waits for `clean`, and in the end for `save`, {stuck}");
    assert!(last.ends_with(&wanted), "{last}");
    assert!(fit(&delete, &held).starts_with("Step"));
}

#[test]
fn a_budget_is_used_up() {
    let plan = good();
    let delete = call("fs__delete", DESTROY, OLD);
    let saved = taken("save", 1, CallState::Succeeded);
    let cleaned = |number| taken("clean", number, CallState::Succeeded);
    let two = [saved.clone(), cleaned(2), cleaned(3)];
    assert_eq!(
        fit_of(&plan, &two, &delete),
        "clean: next is step `clean`, whose budget does not suffice: the call touches 1 \
         resources, and 0 of 2 are left"
    );
    // What was never sent gives back what it took.
    let one = [saved, cleaned(2), taken("clean", 3, CallState::NotSent)];
    assert_eq!(fit_of(&plan, &one, &delete), "step clean");
}

fn preview(updated: u64, exact: bool, guarantee: Reversibility) -> PreviewFacts {
    PreviewFacts {
        digest: Digest::of(b"diff"),
        counts: ChangeCounts { updated, ..ChangeCounts::default() },
        exact,
        guarantee,
        until: None,
        disclosure: Disclosure::Contained,
        notes: Vec::new(),
    }
}

#[test]
fn rows_count_by_an_exact_preview_only() {
    let fit = |budget: Value, tool: &str, class: EffectClass, foreseen: Foreseen<'_>| {
        let (request, facts) = call(tool, class, "/srv/app/x");
        let target = &facts.target.resource;
        let plan = steps(json!([{ "id": "a", "tool": tool, "class": class.as_str(),
            "targets": [target], "budget": budget }]));
        let matcher = PlanMatcher::new(plan).unwrap();
        let (request, facts) = (&request, &facts);
        matcher
            .fit(&Progress::default(), Called { request, facts, foreseen, schema_fault: &|_| None })
    };
    let exact = Reversibility::Exact;
    let step = |uses| PlanFit::Step { step: "a".parse().unwrap(), uses };
    let rows = |rows| step(PlanBudget { rows: Some(rows), ..PlanBudget::default() });
    let (some, lasting) = (preview(3, true, exact), preview(1, true, Reversibility::Compensable));
    let (vague, many) = (preview(1, false, exact), preview(4, true, exact));
    let of_rows = |foreseen| fit(json!({ "rows": 3 }), "fs__note", WRITE, foreseen);
    assert_eq!(of_rows(Foreseen::Seen(&some)), rows(3));
    // Who will look yet does not refuse it now.
    assert_eq!(of_rows(Foreseen::Later), rows(0));
    for none in [Foreseen::Never, Foreseen::Seen(&vague), Foreseen::Seen(&many)] {
        assert!(matches!(of_rows(none), PlanFit::Deviation { .. }), "{none:?}");
    }
    let files = |foreseen| fit(json!({ "files": 3 }), "fs__write", WRITE, foreseen);
    let three = step(PlanBudget { files: Some(3), ..PlanBudget::default() });
    assert_eq!(files(Foreseen::Seen(&some)), three);
    assert!(matches!(files(Foreseen::Seen(&many)), PlanFit::Deviation { .. }));
    // What nothing is saved for has to be exactly reversible.
    let destroys = |foreseen| fit(json!({ "resources": 3 }), "fs__delete", DESTROY, foreseen);
    for (foreseen, fits) in [
        (Foreseen::Seen(&some), true),
        (Foreseen::Later, true),
        (Foreseen::Seen(&lasting), false),
        (Foreseen::Never, false),
    ] {
        let found = destroys(foreseen);
        assert_eq!(matches!(found, PlanFit::Step { .. }), fits, "{foreseen:?}: {found:?}");
    }
}

#[test]
fn what_the_step_does_not_name_is_none_of_it() {
    let step = json!({ "id": "a", "tool": "fs__write", "class": "write",
        "targets": ["file:///srv/app/**"], "parameters": { "required": ["path"] } });
    let plan = steps(json!([step]));
    let auth = call("fs__write", WRITE, "/srv/app/auth/users");
    assert!(fit_of(&plan, &[], &auth).contains("does not name the surface `auth`"));
    let empty = call("fs__write", WRITE, "");
    // Without a path nobody knows what it is aimed at.
    assert!(fit_of(&plan, &[], &empty).contains("aimed at"), "{}", fit_of(&plan, &[], &empty));
    let late = Request { at: plan.expires, ..call("fs__write", WRITE, "/srv/app/x").0 };
    let late = (late, call("fs__write", WRITE, "/srv/app/x").1);
    assert!(fit_of(&plan, &[], &late).starts_with("-: the plan expired"));
}

#[test]
fn steps_without_an_order_run_in_any() {
    let step = |id: &str, after: Value| {
        json!({ "id": id, "tool": "fs__write", "class": "write", "after": after,
                "targets": [format!("file:///srv/app/{id}")] })
    };
    let plan =
        steps(json!([step("a", json!([])), step("b", json!([])), step("c", json!(["a", "b"])),]));
    let write = |id: &str| call("fs__write", WRITE, &format!("/srv/app/{id}"));
    let a = taken("a", 1, CallState::Succeeded);
    let b = taken("b", 2, CallState::Succeeded);
    assert_eq!(fit_of(&plan, &[], &write("b")), "step b");
    assert!(fit_of(&plan, std::slice::from_ref(&b), &write("c")).contains("waits for `a`"));
    assert_eq!(fit_of(&plan, std::slice::from_ref(&b), &write("a")), "step a");
    assert_eq!(fit_of(&plan, &[a, b], &write("c")), "step c");
}

#[test]
fn a_plan_is_void_when_its_basis_moves() {
    let mut plan = good();
    let (policy, tool) = (plan.basis.policy, "fs__copy".parse::<ToolRef>().unwrap());
    plan.basis.tools.insert(tool.clone(), Digest::of(b"copy"));
    let moved = |policy, offered: Option<Digest>| basis_moved(&plan, policy, |_| offered);
    assert_eq!(moved(policy, Some(Digest::of(b"copy"))), None);
    assert_eq!(moved(policy, None), None);
    let tool = moved(policy, Some(Digest::of(b"new"))).unwrap();
    assert!(tool.contains("definition of `fs__copy`"), "{tool}");
    let policies = moved(Digest::of(b"other"), None).unwrap();
    assert!(policies.contains("the policies moved"), "{policies}");
}

#[test]
fn a_call_that_is_said_word_for_word_is_looked_at_once_nothing_comes_before() {
    let at = |id: &str, tool: &str, after: Value| {
        json!({ "id": id, "tool": tool, "class": "write", "after": after, "call": { "path": id },
                "targets": ["file:///srv/app/**"] })
    };
    let reads = json!({ "id": "look", "tool": "fs__read", "class": "read", "after": [] });
    let names = |plan: &Plan| -> Vec<String> {
        foreseeable(plan).iter().map(|step| step.id.to_string()).collect()
    };
    let chain = steps(json!([
        reads,
        at("a", "fs__write", json!(["look"])),
        at("b", "fs__write", json!(["a"])),
        at("other", "db__write", json!(["b"])),
    ]));
    assert_eq!(names(&chain), ["a", "other"]);
    let many: Vec<_> = (0..20).map(|n| at("a", &format!("s{n}__w"), json!([]))).collect();
    assert_eq!(names(&steps(json!(many))).len(), FORESEEN_MAX);
    // Either may be made first.
    let free = steps(json!([at("a", "fs__write", json!([])), at("b", "fs__write", json!([]))]));
    assert_eq!(names(&free), [""; 0]);
    let mut plan = chain;
    plan.basis.targets.insert("a".parse().unwrap(), preview(3, true, Reversibility::Exact));
    let unseen = BTreeMap::from([("other".parse().unwrap(), "it is locked".to_owned())]);
    let said = |notes: Vec<PlanNote>| -> Vec<String> {
        notes.iter().map(|note| format!("{} {}", note.step.clone().unwrap(), note.code)).collect()
    };
    assert_eq!(said(note_foreseen(&plan, &unseen)), ["b target_unseen", "other target_unseen"]);
    plan.steps[1].budget.rows = Some(2);
    plan.steps[1].class = DESTROY;
    assert_eq!(said(note_foreseen(&plan, &unseen))[0], "a budget_too_small");
    let lasting = preview(1, true, Reversibility::Irreversible);
    plan.basis.targets.insert("a".parse().unwrap(), lasting);
    assert_eq!(said(note_foreseen(&plan, &unseen))[0], "a recovery_missing");
}

#[test]
fn a_step_is_bound_to_its_call_and_to_what_it_would_have_done() {
    let (request, facts) = call("fs__write", WRITE, "/srv/app/x");
    let step = json!({ "id": "a", "tool": "fs__write", "class": "write",
        "targets": ["file:///srv/app/*"], "call": { "path": "/srv/app/x" } });
    let mut plan = steps(json!([step]));
    let then = preview(1, true, Reversibility::Exact);
    plan.basis.targets.insert("a".parse().unwrap(), then.clone());
    let matcher = PlanMatcher::new(plan.clone()).unwrap();
    let fit = |request: &Request, foreseen| {
        let called = Called { request, facts: &facts, foreseen, schema_fault: &|_| None };
        let progress = Progress::default();
        (matcher.fit(&progress, called), matcher.target_moved(&progress, called))
    };
    let fits = |found: &PlanFit| matches!(found, PlanFit::Step { .. });
    for foreseen in [Foreseen::Seen(&then), Foreseen::Later] {
        let (found, moved) = fit(&request, foreseen);
        assert!(fits(&found) && moved.is_none(), "{found:?} {moved:?}");
    }
    let now = PreviewFacts { digest: Digest::of(b"other"), ..then.clone() };
    let (found, moved) = fit(&request, Foreseen::Seen(&now));
    assert!(!fits(&found) && moved.unwrap().starts_with("the target of step `a` moved"));
    // Who cannot look has not seen it move.
    let (found, moved) = fit(&request, Foreseen::Never);
    assert!(!fits(&found) && moved.is_none(), "{found:?} {moved:?}");
    let other = Request { parameters: json!({ "path": "/srv/app/y" }), ..request };
    let (found, moved) = fit(&other, Foreseen::Seen(&now));
    let PlanFit::Deviation { why, .. } = found else { panic!("{found:?}") };
    assert!(why.contains("other parameters") && moved.is_none(), "{why} {moved:?}");
}
