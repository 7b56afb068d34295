//! Gathers the facts for one decision from what is already in memory.
//! Must never wait: whatever needs I/O was read before.

use super::{Call, Governor};
use crate::catalog::Catalog;
use holdpoint_control::Settings;
use holdpoint_effects::Effects;
use holdpoint_types::{
    ActionId, ClassSource, Door, EffectClass, Epoch, Facts, GrantFacts, Intent, IntentSource,
    Request, Stop, TaskId, Timestamp,
};
use serde_json::Value;

/// Where an agent declares what it is about, in `_meta`.
const TASK_KEY: &str = "io.holdpoint/task";
/// Where the hook door says what the host calls a call, in `_meta`.
pub const HOST_CALL_KEY: &str = "io.holdpoint/host-call";
/// Longest declared intent that is kept, in characters.
const INTENT_CHARS_MAX: usize = 16 << 10;
/// Most declared ids of retrieved documents that are kept.
const RETRIEVED_MAX: usize = 256;
/// Longest declared id that is kept, in bytes.
const RETRIEVED_BYTES_MAX: usize = 512;

/// What is in memory when a call comes.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The operator's settings in force.
    pub settings: &'a Settings,
    /// The tools known now.
    pub catalog: &'a Catalog,
    /// The stops that cover the call, and the epoch they were read in.
    pub stops: (&'a [Stop], Epoch),
    /// What the call would do, if calls of the tool are analysed.
    pub effects: Option<&'a Effects>,
}

// === impl Governor ===

impl Governor {
    /// The same from what the governor has in memory now.
    pub(super) fn gather(
        &self,
        action: ActionId,
        (call, effects): (&Call, Option<&Effects>),
        at: Timestamp,
    ) -> (Request, Facts) {
        let (stops, epoch) = {
            let control = self.inner.control.lock();
            (control.stops_on(&call.agent, &call.tool), control.epoch())
        };
        let settings = self.settings_at(at);
        let (stops, catalog) = ((stops.as_slice(), epoch), &self.inner.catalog);
        let known = Known { settings: &settings, catalog, stops, effects };
        gather(known, action, call, at)
    }
}

/// The request and the facts for `call` at `at`.
pub fn gather(known: Known<'_>, action: ActionId, call: &Call, at: Timestamp) -> (Request, Facts) {
    let Known { settings, catalog, stops: (stops, epoch), effects } = known;
    let tool = catalog.tool(&call.tool);
    let effects = effects.filter(|_| tool.is_some());
    let known = effects.map(|effects| settings.effect_facts(&call.agent, &call.tool, effects));
    let known = known.unwrap_or_default();
    let mut facts = Facts {
        agent: settings.agent(&call.agent),
        tool: tool.as_ref().map(|tool| tool.facts(settings)),
        grant: GrantFacts::default(),
        target: settings.target(&call.tool, &call.parameters),
        effects: Vec::new(),
        freezes: settings.freezes_at(at),
        freeze_exceptions: settings.freeze_exceptions_at(at),
        stops: stops.to_vec(),
        epoch,
        findings: Vec::new(),
        preview: None,
        unseen: None,
        approval: None,
        plan: None,
    };
    match (known.first(), &mut facts.tool) {
        (Some(strictest), Some(tool)) => {
            tool.class = strictest.effect.class;
            tool.class_source = ClassSource::Effects;
            facts.grant = strictest.grant.clone();
            facts.target = strictest.target.clone();
        }
        _ => {
            let class = facts.tool.as_ref().map_or(EffectClass::Destructive, |tool| tool.class);
            facts.grant.by = settings.grant_for(&call.agent, &call.tool, class);
            if let (None, Some(tool)) = (&facts.grant.by, &mut facts.tool)
                && effects.is_none()
                && settings.analyses(&call.tool)
            {
                tool.class_source = ClassSource::Unlooked;
            }
        }
    }
    // Who may not call at all cannot make us work on a schema either.
    let may_call = known.iter().all(|one| one.grant.by.is_some()) && facts.grant.by.is_some();
    if let Some(tool) = tool.filter(|_| may_call && stops.is_empty()) {
        facts.findings.push(tool.validate(&call.parameters));
    }
    if let Some(effects) = effects {
        facts.findings.extend(settings.findings(effects.notes(), &known));
    }
    facts.effects = known;
    (request(action, call, at), facts)
}

fn request(action: ActionId, call: &Call, at: Timestamp) -> Request {
    let declared = call.meta.as_ref().and_then(|meta| meta.get(TASK_KEY));
    let text = |key: &str| declared?.get(key)?.as_str();
    let intent = text("intent").map(|text| Intent {
        text: text.chars().take(INTENT_CHARS_MAX).collect(),
        source: IntentSource::AgentDeclared,
    });
    // Only the door of hooks may say so: it made the `_meta` itself.
    let meta = call.meta.as_ref().filter(|_| call.door == Door::Hook);
    let host_call = meta.and_then(|meta| meta.get(HOST_CALL_KEY)?.as_str()?.parse().ok());
    Request {
        action,
        agent: call.agent.clone(),
        door: call.door,
        tool: call.tool.clone(),
        parameters: call.parameters.clone(),
        task: text("id").and_then(|id| id.parse::<TaskId>().ok()),
        intent,
        retrieved: retrieved(declared),
        host_call,
        at,
    }
}

fn retrieved(declared: Option<&Value>) -> Vec<String> {
    let ids = declared.and_then(|declared| declared.get("retrieved")).and_then(Value::as_array);
    let ids = ids.into_iter().flatten().filter_map(Value::as_str);
    let short = ids.filter(|id| id.len() <= RETRIEVED_BYTES_MAX);
    short.take(RETRIEVED_MAX).map(str::to_owned).collect()
}
