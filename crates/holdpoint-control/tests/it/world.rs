//! Requests and facts for tests.

use holdpoint_types::{
    ActionId, AgentFacts, ClassSource, Digest, Door, Effect, EffectClass, EffectFacts, Epoch,
    Facts, GrantFacts, Mode, Request, TargetFacts, Timestamp, ToolFacts, ToolState, Verb,
};
use serde_json::json;

/// A fixed time.
pub const NOW: Timestamp = Timestamp(1_784_000_000_000);

/// One situation of the decision matrix.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    pub mode: Mode,
    pub class: EffectClass,
    /// The surface that the target lies on, if any.
    pub surface: Option<&'static str>,
    pub freeze: Option<&'static str>,
    pub grant: Option<&'static str>,
    pub environment: &'static str,
}

/// A request to call a tool.
pub fn request() -> Request {
    Request {
        action: ActionId::new(NOW, [1; 10]),
        agent: "coder".parse().unwrap(),
        door: Door::McpHttp,
        tool: "srv__tool".parse().unwrap(),
        parameters: json!({"path": "/srv/app/x", "count": 3}),
        task: None,
        intent: None,
        retrieved: Vec::new(),
        host_call: None,
        at: NOW,
    }
}

// === impl Situation ===

impl Situation {
    pub fn facts(self) -> Facts {
        let agent = AgentFacts { owner: Some("platform".parse().unwrap()), mode: self.mode };
        let tool = ToolFacts {
            definition: Digest::of(b"definition"),
            state: ToolState::Pinned,
            class: self.class,
            class_source: ClassSource::Operator,
            open_world: false,
        };
        let target = TargetFacts {
            resource: "srv://thing".to_owned(),
            environment: self.environment.to_owned(),
            environment_resolved: true,
            surfaces: self.surface.iter().map(|name| (*name).to_owned()).collect(),
        };
        Facts {
            agent: Some(agent),
            tool: Some(tool),
            grant: GrantFacts { by: self.grant.map(str::to_owned) },
            target,
            effects: Vec::new(),
            freezes: self.freeze.iter().map(|name| (*name).to_owned()).collect(),
            freeze_exceptions: Default::default(),
            stops: Vec::new(),
            epoch: Epoch(1),
            findings: Vec::new(),
            preview: None,
            unseen: None,
            approval: None,
            plan: None,
        }
    }

    /// An effect in this situation.
    pub fn effect(self) -> EffectFacts {
        let facts = self.facts();
        let effect = Effect::new(Verb::Read, "srv://thing", "a test").at_least(self.class);
        EffectFacts { effect, grant: facts.grant, target: facts.target }
    }

    /// A situation in which everything is permitted.
    pub fn open(class: EffectClass) -> Self {
        Self {
            mode: Mode::Auto,
            class,
            surface: None,
            freeze: None,
            grant: Some("class srv__tool"),
            environment: "dev",
        }
    }
}
