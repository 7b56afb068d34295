//! Calls that hosts execute themselves: they ask before, and may say afterwards how a call ended.
//!
//! INVARIANT: a host is told yes only after the decision is durable, and the permit is used up with
//! it. Must never say yes to a tool of a server, whose calls go through Holdpoint, nor record two
//! outcomes of one action.

use super::{Call, Governor, Refusal, deny, endings};
use crate::store::StoreFault;
use holdpoint_control::{Ending, Input, Output, Permit};
use holdpoint_resources::resource::Forward;
use holdpoint_resources::{Cancels, Ended, Resources};
use holdpoint_types::{
    ActionId, ActionRecord, AgentName, Cause, Decision, DecisionRecord, Digest, Door, Reason,
    Record, RecordBody, Ruling, ServerName, Timestamp, ToolRef, canonical_digest,
};
use serde_json::{Value, json};
use std::time::Instant;
use tokio::sync::oneshot;

/// What a host says about a call that it executed.
#[derive(Debug)]
pub struct Told {
    /// Who acts.
    pub agent: AgentName,
    /// Which tool.
    pub tool: ToolRef,
    /// Digest of what the host calls the call.
    pub host_call: Digest,
    /// How it ended.
    pub ended: Ended,
}

// === impl Governor ===

impl Governor {
    /// Decides `call` of a host's tool. `Ok` is to be told to the host at once: its permit is used
    /// up, and the action is the host's.
    pub async fn decide_for_host(&self, call: Call) -> (ActionId, Result<(), Refusal>) {
        let governor = self.clone();
        let action = self.new_action();
        // Goes on by itself when the caller goes away, so that nothing is left unrecorded.
        let work = async move { governor.try_for_host(action, call).await };
        let ruled = tokio::spawn(work).await.unwrap_or_else(|fault| {
            tracing::error!(%action, %fault, "a call of a host failed inside");
            let text = "the call failed inside; look at the log";
            Err(deny(Reason::CouldNotDecide, text).into())
        });
        (action, ruled)
    }

    /// Records how a call ended that was handed over. `None` if nobody permitted it, or if that was
    /// told before.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn host_told(&self, told: Told) -> Result<Option<ActionId>, StoreFault> {
        let stored_max = self.inner.limits.load().output_stored_bytes_max;
        for action in self.inner.store.open_actions()? {
            let Some((decided, since)) = self.handed_over(action, &told)? else { continue };
            self.see_what_it_left(action, &told).await;
            let ending = endings::ending(&told.ended, stored_max);
            if self.write_end(action, (decided, since), ending).await? {
                return Ok(Some(action));
            }
        }
        Ok(None)
    }

    async fn try_for_host(&self, action: ActionId, call: Call) -> Result<(), Refusal> {
        self.know_tool(&call.tool).await?;
        let begun = Instant::now();
        let admitted = self.admit(action, &call).await;
        self.tell_decision(action, &call, (admitted.as_ref().err(), begun.elapsed()));
        let (permit, cancels, resources) = admitted?;
        let parameters = canonical_digest(&call.parameters).ok();
        let fits = parameters.map(|digest| permit.check(&call.tool, digest, self.now()));
        if !matches!(fits, Some(Ok(()))) {
            resources.forget(action, call.tool.server());
            let text = "the permit does not fit the call, or is over; ask again";
            return Err(self.not_handed_over(action, (Reason::CouldNotDecide, text)));
        }
        self.hand_to_host(permit, cancels, &resources).await
    }

    /// Hands an action over as if it were executed: what takes it back is durable before, and the
    /// host is told no if its target moved since it was seen.
    async fn hand_to_host(
        &self,
        permit: Permit,
        cancels: Cancels,
        resources: &Resources,
    ) -> Result<(), Refusal> {
        let (governor, action) = (self.clone(), permit.action());
        let (tell, told) = oneshot::channel();
        let forward: Forward = Box::new(move |permit| {
            Box::pin(async move {
                let outputs = governor.feed(Input::HandedOver(permit));
                let refused = outputs.into_iter().find_map(|output| match output {
                    Output::Refuse(_, decision) => Some(decision),
                    _ => None,
                });
                // Whoever waits below is there until this is over.
                let _ = tell.send(refused);
                let detail = "the host has not told how it ended".to_owned();
                Ended::InDoubt { reason: Reason::UpstreamUnavailable, detail }
            })
        });
        let ended = resources.execute(permit, self.now(), (cancels, forward)).await;
        self.inner.cancels.lock().remove(&action);
        match (told.await, ended) {
            (Ok(None), _) => Ok(()),
            (Ok(Some(refused)), _) => Err(refused.into()),
            (Err(_), Ended::NotSent { reason, detail }) => {
                Err(self.not_handed_over(action, (reason, &detail)))
            }
            (Err(_), _) => {
                let text = "its target cannot be looked at; ask again";
                Err(self.not_handed_over(action, (Reason::CouldNotDecide, text)))
            }
        }
    }

    fn not_handed_over(&self, action: ActionId, (reason, text): (Reason, &str)) -> Refusal {
        self.feed(Input::Ended(action, Ending::not_sent(reason, text)));
        deny(reason, text).into()
    }

    /// Looks at what a call left, so that what others do later is not taken for it.
    async fn see_what_it_left(&self, action: ActionId, told: &Told) {
        // What was interrupted may still be at work.
        if !matches!(told.ended, Ended::Answered { .. }) {
            return;
        }
        let (resources, server) = (self.resources(), told.tool.server());
        if let Err(fault) = resources.look_after(action, server, self.now()).await {
            tracing::warn!(%action, %fault, "what a host's call left cannot be seen or kept");
        }
    }

    /// Takes in a host's tool when it is called first: hosts list none.
    async fn know_tool(&self, tool: &ToolRef) -> Result<(), Refusal> {
        let server = tool.server();
        if !self.is_hosted(server) {
            let text = format!("no host is declared as `[server.{server}]`");
            let cause = Cause::new(Ruling::Deny, Reason::ToolUnknown, &text);
            return Err(Decision::from_iter([cause]).into());
        }
        // One after the other: to observe replaces what is known of a host.
        let _one = self.inner.hosts.lock().await;
        if self.inner.catalog.tool(tool).is_some() {
            return Ok(());
        }
        let known = self.inner.catalog.all().into_iter();
        let known = known.filter(|known| known.name.server() == server);
        let mut definitions: Vec<_> = known.map(|known| known.definition.clone()).collect();
        definitions.push(definition(tool));
        let observed = self.observe(server, definitions).await;
        observed.map(|_| ()).map_err(|fault| super::unavailable(&fault).into())
    }

    fn is_hosted(&self, server: &ServerName) -> bool {
        let settings = self.settings();
        settings.parts().servers.get(server).is_some_and(|rules| rules.hosted)
    }

    /// The decision about `action`, if it is the one that a host tells about.
    fn handed_over(
        &self,
        action: ActionId,
        told: &Told,
    ) -> Result<Option<(ActionRecord<DecisionRecord>, Timestamp)>, StoreFault> {
        for stored in self.inner.store.of_action(action)? {
            let RecordBody::Decision(decided) = stored.record.body else { continue };
            let request = &decided.more.request;
            let same = (&request.agent, &request.tool) == (&told.agent, &told.tool);
            if same && request.door == Door::Hook && request.host_call == Some(told.host_call) {
                return Ok(Some((*decided, stored.record.at_ms)));
            }
        }
        Ok(None)
    }

    async fn write_end(
        &self,
        action: ActionId,
        (decided, since): (ActionRecord<DecisionRecord>, Timestamp),
        ending: Ending,
    ) -> Result<bool, StoreFault> {
        for output in self.feed(Input::HostTold(Box::new(decided), since, ending)) {
            if let Output::Record(body) = output {
                let record = Record { at_ms: self.now(), gateway: self.gateway(), body };
                return self.inner.store.append_outcome(action, record).await;
            }
        }
        Ok(false)
    }
}

/// What is known of a host's tool: hosts do not say more than its name.
fn definition(tool: &ToolRef) -> Value {
    json!({ "name": tool.name(), "inputSchema": { "type": "object" } })
}

#[cfg(test)]
mod tests {
    use crate::governor::{Call, Governor};
    use holdpoint_control::{Permit, ServerRules, Settings, ToolPattern};
    use holdpoint_resources::resource::{
        Executed, Forward, Preview, Proposed, Resource, ResourceFault, Reverting, TargetState, Undo,
    };
    use holdpoint_resources::{Cancels, Place, Resources};
    use holdpoint_types::{Disclosure, Door, Reason, Reversibility, Timestamp};
    use serde_json::json;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Stands for a host until it is asked what a call would do: then nobody does any more.
    struct Replaced {
        governor: Governor,
        executed: Arc<AtomicU32>,
    }

    impl Resource for Replaced {
        type Prepared = ();

        async fn preview(&self, _: Proposed<'_>) -> Result<Option<(Preview, ())>, ResourceFault> {
            self.governor.replace_resources(Resources::default());
            let preview = Preview {
                changes: Vec::new(),
                exact: true,
                guarantee: Reversibility::Exact,
                until: None,
                disclosure: Disclosure::Contained,
                notes: Vec::new(),
            };
            Ok(Some((preview, ())))
        }

        fn undo(&self, (): &()) -> Option<Undo> {
            None
        }

        async fn execute(&self, permit: Permit, (): (), around: (Cancels, Forward)) -> Executed {
            self.executed.fetch_add(1, Ordering::Relaxed);
            Executed { ended: around.1(permit).await, undo: None }
        }

        async fn verify(&self, _: &Undo) -> Result<TargetState, ResourceFault> {
            Ok(TargetState::Before)
        }

        async fn revert(&self, _: &Undo, _: Timestamp) -> Result<Reverting<()>, ResourceFault> {
            Err(ResourceFault::Impossible("nothing is kept".to_owned()))
        }
    }

    #[tokio::test]
    async fn who_saw_a_call_executes_it_whatever_comes_into_force_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = crate::tests::runtime(dir.path()).await;
        let governor = runtime.governor();
        let mut parts = governor.settings().parts().clone();
        let every = vec![ToolPattern::parse("*").unwrap()];
        let rules = ServerRules { hosted: true, read: every, ..ServerRules::default() };
        parts.servers.insert("claude".parse().unwrap(), rules);
        let limits = **governor.inner.limits.load();
        let settings = Settings::new(parts).unwrap();
        governor.replace_settings(settings, Default::default(), limits).await.unwrap();
        let executed = Arc::new(AtomicU32::new(0));
        let stands = Replaced { governor: governor.clone(), executed: Arc::clone(&executed) };
        let mut all = Resources::default();
        all.add("claude".parse().unwrap(), Place::Beside, stands);
        governor.replace_resources(all);
        let call = Call {
            agent: "coder".parse().unwrap(),
            door: Door::Hook,
            tool: "claude__Read".parse().unwrap(),
            parameters: json!({}),
            meta: None,
            condition: None,
        };
        let (_, ruled) = governor.decide_for_host(call).await;
        assert!(ruled.is_ok(), "{ruled:?}");
        assert_eq!(executed.load(Ordering::Relaxed), 1);
        runtime.shut_down().await;
    }

    #[tokio::test]
    async fn only_tools_of_hosts_are_handed_over() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = crate::tests::runtime(dir.path()).await;
        let call = Call {
            agent: "coder".parse().unwrap(),
            door: Door::Hook,
            // The read of a server's resource, which this agent may make through Holdpoint.
            tool: "fs__resources/read".parse().unwrap(),
            parameters: json!({ "uri": "demo://x" }),
            meta: None,
            condition: None,
        };
        let (action, ruled) = runtime.governor().decide_for_host(call).await;
        let refusal = ruled.unwrap_err();
        let reasons: Vec<_> = refusal.decision.causes().map(|cause| cause.reason).collect();
        assert_eq!(reasons, [Reason::ToolUnknown]);
        assert!(runtime.governor().catalog().all().is_empty());
        assert!(runtime.governor().store().of_action(action).unwrap().is_empty());
        runtime.shut_down().await;
    }
}
