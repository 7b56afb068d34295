//! Finds out what a call would do, and what validators say to it, before it is decided. Must never
//! keep others waiting: a long text is read on a thread of its own.

use super::{Governor, deny};
use holdpoint_control::decide;
use holdpoint_effects::Effects;
use holdpoint_policy::PolicySets;
use holdpoint_types::{AgentName, Decision, Facts, Reason, Request, Ruling, ToolRef};
use serde_json::Value;
use std::sync::Arc;

/// How much text is read where it is, in bytes: well below a millisecond of work.
const TEXT_ON_THE_SPOT_MAX: usize = 4 << 10;

// === impl Governor ===

impl Governor {
    /// What a call of `tool` by `agent` would do; nothing where calls of the tool are not analysed.
    /// Who may not call the tool at all cannot make us read.
    pub(crate) async fn analyse(
        &self,
        (agent, tool): (&AgentName, &ToolRef),
        parameters: &Value,
    ) -> Result<Option<Arc<Effects>>, Decision> {
        let settings = self.settings();
        let Some(known) = self.inner.catalog.tool(tool) else { return Ok(None) };
        let class = known.class(&settings);
        if !settings.analyses(tool) || !settings.reaches(agent, tool, class) {
            return Ok(None);
        }
        if text_bytes(parameters) <= TEXT_ON_THE_SPOT_MAX {
            return Ok(settings.effects(tool, parameters).map(Arc::new));
        }
        let (name, parameters) = (tool.clone(), parameters.clone());
        let reading = tokio::task::spawn_blocking(move || settings.effects(&name, &parameters));
        let read = reading.await.map_err(|fault| {
            tracing::error!(%fault, %tool, "the analysis of a call failed inside");
            deny(Reason::EffectsUnreadable, "the analysis failed inside; look at the log")
        });
        Ok(read?.map(Arc::new))
    }

    /// The decision, with what the operator's validators find. They are asked last, and only about
    /// calls that nobody else refuses.
    pub(super) async fn judge(
        &self,
        request: &Request,
        mut facts: Facts,
        policy: &PolicySets,
    ) -> (Facts, Decision) {
        let decision = decide(request, &facts, policy);
        if decision.ruling() >= Ruling::Deny {
            return (facts, decision);
        }
        let validators = self.inner.validators.load_full();
        let found = validators.look(request, &facts).await;
        if found.is_empty() {
            return (facts, decision);
        }
        facts.findings.extend(found);
        let decision = decide(request, &facts, policy);
        (facts, decision)
    }
}

/// How much text there is in `value`, in bytes.
fn text_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(all) => all.iter().map(text_bytes).sum(),
        Value::Object(all) => all.iter().map(|(key, value)| key.len() + text_bytes(value)).sum(),
    }
}
