//! The one loop that feeds control: gathers facts, asks for the decision, writes it down, lets it
//! run, and writes down what came of it.
//!
//! INVARIANT: `execute` is called with a permit, and a permit exists only after its decision is
//! durable in the store. Must never rule by itself: whatever fails here becomes a deny.

mod admission;
mod analysis;
mod approvals;
mod change;
mod checks;
mod drain;
mod endings;
mod gather;
mod given_up;
mod hosted;
mod looks;
mod plans;
mod preview;
mod pruning;
mod questions;
mod revert;
mod tasks;
mod words;

pub use checks::LATE_MS_MAX;
pub use drain::Drained;
pub use gather::{HOST_CALL_KEY, Known, gather};
pub use hosted::Told;
pub(crate) use plans::Reach;
pub use plans::{ConditionCall, PlanProposal, PlanRefused, plan_facts};
pub(crate) use questions::{Question, Waiting};
pub use revert::{OPERATOR, Reverting, Wanted, Whole};
pub(crate) use tasks::Followed;
pub use words::{Became, Call, Governed, Limits, Refusal, StopReport};

use crate::catalog::{self, Catalog, Observed};
use crate::clock::Clock;
use crate::store::{Pin, Store, StoreFault};
use crate::telemetry::Telemetry;
use crate::validators::Validators;
use arc_swap::ArcSwap;
use endings::{Endings, Unfinished};
use given_up::GivenUp;
use holdpoint_control::{Control, Ending, Input, Output, Permit, Running, Settings};
use holdpoint_policy::PolicySets;
use holdpoint_resources::resource::Forward;
use holdpoint_resources::{Cancels, Ended, Resources};
use holdpoint_types::{
    ActionId, Cause, Decision, Digest, Epoch, GatewayId, Reason, Record, RecordBody, Ruling,
    ServerName, Stop, Timestamp, ToolRef,
};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often a decision is made anew because stops moved while it was recorded.
const TRIES_MAX: usize = 8;

/// Governs calls. A cheap handle.
#[derive(Clone)]
pub struct Governor {
    inner: Arc<Inner>,
}

struct Inner {
    gateway: GatewayId,
    store: Store,
    clock: Clock,
    catalog: Catalog,
    limits: ArcSwap<Limits>,
    control: Mutex<Control>,
    policy: ArcSwap<PolicySets>,
    settings: ArcSwap<Settings>,
    validators: ArcSwap<Validators>,
    resources: ArcSwap<Resources>,
    /// Told when other resources come into force.
    targets: tokio::sync::Notify,
    cancels: Mutex<BTreeMap<ActionId, Cancels>>,
    given_up: GivenUp,
    endings: Endings,
    questions: questions::Handed,
    tasks: tasks::Tasks,
    checks: checks::Checks,
    /// Held while a tool of a host is taken in.
    hosts: tokio::sync::Mutex<()>,
    plans: plans::Plans,
    looks: looks::Looks,
    telemetry: Telemetry,
}

// === impl Governor ===

impl Governor {
    /// Begins to govern: reads the stops, records the start with what is in doubt, and the
    /// policies.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn start(
        store: Store,
        catalog: Catalog,
        (settings, policies): (Settings, PolicySets),
        limits: Limits,
    ) -> Result<Self, StoreFault> {
        let clock = Clock::new(store.last_at()?);
        let configuration = settings.digest();
        let inner = Inner {
            gateway: store.gateway(),
            clock,
            limits: ArcSwap::from_pointee(limits),
            catalog,
            control: Mutex::default(),
            policy: ArcSwap::from_pointee(policies),
            settings: ArcSwap::from_pointee(settings),
            validators: ArcSwap::default(),
            resources: ArcSwap::default(),
            targets: tokio::sync::Notify::new(),
            cancels: Mutex::default(),
            given_up: GivenUp::default(),
            endings: Endings::default(),
            questions: questions::Handed::default(),
            tasks: tasks::Tasks::default(),
            checks: checks::Checks::default(),
            hosts: tokio::sync::Mutex::default(),
            plans: plans::Plans::default(),
            looks: looks::Looks::default(),
            telemetry: Telemetry::default(),
            store,
        };
        let governor = Self { inner: Arc::new(inner) };
        governor.read_stops()?;
        governor.read_grants()?;
        let in_doubt = governor.inner.store.in_doubt()?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let known = in_doubt.clone();
        governor.write(RecordBody::Started { version, configuration, in_doubt }).await?;
        governor.know_checks(&known)?;
        governor.record_policies(&governor.policy(), &BTreeSet::new()).await?;
        Ok(governor)
    }

    /// The id of this process in records.
    pub fn gateway(&self) -> GatewayId {
        self.inner.gateway
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The operator's settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings_at(self.now())
    }

    /// The policies in force.
    pub fn policy(&self) -> Arc<PolicySets> {
        self.inner.policy.load_full()
    }

    /// The tools known now.
    pub fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    /// What is counted.
    pub fn telemetry(&self) -> &Telemetry {
        &self.inner.telemetry
    }

    /// How many calls are between decision and outcome.
    pub fn in_flight(&self) -> usize {
        self.inner.control.lock().in_flight()
    }

    /// Every call for which a permit is out.
    pub fn running(&self) -> Vec<Running> {
        self.inner.control.lock().running()
    }

    /// The epoch in force.
    pub fn epoch(&self) -> Epoch {
        self.inner.control.lock().epoch()
    }

    /// The stops in force.
    pub fn stops(&self) -> Vec<Stop> {
        self.inner.control.lock().stops().to_vec()
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now_for_record()
    }

    /// Takes in the tools that `server` offers now: pins new ones, locks changed ones.
    ///
    /// # Errors
    /// When pins cannot be read or written.
    pub async fn observe(
        &self,
        server: &ServerName,
        definitions: Vec<Value>,
    ) -> Result<Observed, StoreFault> {
        let at = self.now();
        let catalog = &self.inner.catalog;
        // INVARIANT: a tool is pinned before it can be called. Another process may have been first,
        // with another definition: what counts is what then stands in the store.
        let new = catalog::unpinned(server, &definitions, &self.pins()?);
        let new = new.into_iter().map(|(name, digest, json)| Pin::new(name, digest, json));
        let new: Vec<_> = new.collect();
        let names = new.iter().map(|pin| pin.tool.clone()).collect();
        if !new.is_empty() {
            self.inner.store.pin_first(new, at).await?;
        }
        let pins = self.pins()?;
        let (governor, name) = (self.clone(), server.clone());
        // Compiling what a server sends may take a while: not where calls are waited for.
        let looking = move || governor.inner.catalog.observe(&name, definitions, &pins);
        let observed = tokio::task::spawn_blocking(looking).await;
        let observed = observed.unwrap_or_else(|fault| {
            catalog.forget(server);
            Observed { unusable: vec![format!("its tools: {fault}")], ..Observed::default() }
        });
        for (name, pinned, seen) in &observed.changed {
            let Some(tool) = catalog.tool(name) else { continue };
            let definition = tool.definition.clone();
            let store = &self.inner.store;
            store.note_quarantine(name.clone(), *pinned, *seen, definition, at).await?;
        }
        self.note_restored(server).await?;
        Ok(Observed { new: names, ..observed })
    }

    /// Notes which tools of `server` are again what was pinned.
    async fn note_restored(&self, server: &ServerName) -> Result<(), StoreFault> {
        for row in self.inner.store.pins()? {
            let here = row.seen.is_some() && row.tool.server() == server;
            let offered = self.inner.catalog.tool(&row.tool).filter(|_| here);
            if offered.is_some_and(|tool| tool.digest == row.definition) {
                self.inner.store.note_restored(row.tool, row.definition).await?;
            }
        }
        Ok(())
    }

    /// Decides `call` and, if it is permitted, lets `execute` run it; `asked` cancels it.
    ///
    /// The work goes on by itself when the caller goes away, so that nothing is left unrecorded.
    pub async fn govern<E, F>(&self, call: Call, asked: CancellationToken, execute: E) -> Governed
    where
        E: FnOnce(Permit, Cancels) -> F + Send + 'static,
        F: Future<Output = Ended> + Send + 'static,
    {
        self.govern_as(self.new_action(), call, asked, execute).await
    }

    /// The same under an id that is known before.
    async fn govern_as<E, F>(
        &self,
        action: ActionId,
        call: Call,
        asked: CancellationToken,
        execute: E,
    ) -> Governed
    where
        E: FnOnce(Permit, Cancels) -> F + Send + 'static,
        F: Future<Output = Ended> + Send + 'static,
    {
        let governor = self.clone();
        // Boxed, or the runtime moves all of it, kilobytes, whenever the task changes its state.
        let work = Box::pin(async move { governor.run(action, call, asked, execute).await });
        match tokio::spawn(work).await {
            Ok(governed) => governed,
            Err(fault) => {
                tracing::error!(%action, %fault, "a governed call failed inside");
                let text = "the call failed inside; look at the log";
                Governed::Refused(action, deny(Reason::CouldNotDecide, text).into())
            }
        }
    }

    /// Reads the stops from the store and obeys them; reports once what they cover has ended.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn obey(&self) -> Result<StopReport, StoreFault> {
        let mut ended = self.inner.endings.listen();
        self.read_stops()?;
        let given_up = self.stop_given_up();
        let running = self.running().into_iter().filter(|running| running.cancelling);
        let running: Vec<_> = running.collect();
        // The kill itself takes a moment after the grace period is over.
        let patience = self.inner.limits.load().stop_grace + Duration::from_secs(3);
        let ids = running.iter().map(|running| running.action).collect();
        let mut became = ended.collect(ids, patience).await;
        let in_flight = running.into_iter().map(|running| {
            let became = became.remove(&running.action).unwrap_or(Became::StillRunning);
            (running, became)
        });
        let mut in_flight: Vec<_> = in_flight.collect();
        in_flight.extend(given_up::wait(given_up, patience).await);
        let epoch = self.inner.control.lock().epoch();
        Ok(StopReport { gateway: self.inner.gateway, epoch, in_flight })
    }

    /// Looks whether another process wrote to the store, and obeys what it wrote. True if one did.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn keep_up(&self) -> Result<bool, StoreFault> {
        if !self.inner.store.changed()? {
            return Ok(false);
        }
        self.read_stops()?;
        self.read_grants()?;
        self.stop_given_up();
        let pins = self.pins()?;
        let moved = |tool: &Arc<crate::catalog::Tool>| {
            let offered = pins.get(&tool.name) == Some(&tool.digest);
            offered != (tool.state == holdpoint_types::ToolState::Pinned)
        };
        if self.inner.catalog.all().iter().any(moved) {
            self.inner.catalog.repin(&pins);
        }
        Ok(true)
    }

    async fn run<E, F>(
        &self,
        action: ActionId,
        call: Call,
        asked: CancellationToken,
        execute: E,
    ) -> Governed
    where
        E: FnOnce(Permit, Cancels) -> F + Send + 'static,
        F: Future<Output = Ended> + Send + 'static,
    {
        let begun = Instant::now();
        let admitted = self.admit(action, &call).await;
        self.tell_decision(action, &call, (admitted.as_ref().err(), begun.elapsed()));
        let (permit, cancel, resources) = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => return Governed::Refused(action, refused),
        };
        let mut unfinished = Unfinished { governor: self, action: Some(action) };
        let permitted = Instant::now();
        let cancels = cancel.clone();
        let forward: Forward = Box::new(move |permit| Box::pin(execute(permit, cancels)));
        let running = resources.execute(permit, self.now(), (cancel.clone(), forward));
        tokio::pin!(running);
        let ended = tokio::select! {
            ended = &mut running => ended,
            () = asked.cancelled() => {
                self.feed(Input::CancelAsked(action));
                running.await
            }
        };
        let ended = match ended {
            Ended::Task { body, upstream } => {
                match self.task_given((action, &call), (body, upstream), cancel).await {
                    Ok(answer) => {
                        unfinished.action = None;
                        return Governed::Answered(action, answer);
                    }
                    Err(ended) => ended,
                }
            }
            other => other,
        };
        unfinished.action = None;
        let governed = self.finish(action, ended);
        self.tell_end(&call.tool, &governed, permitted.elapsed());
        self.look_after_call(action, &call).await;
        governed
    }

    fn finish(&self, action: ActionId, ended: Ended) -> Governed {
        let stored_max = self.inner.limits.load().output_stored_bytes_max;
        let ending = endings::ending(&ended, stored_max);
        self.end(action, ending);
        match ended {
            Ended::Answered { body, .. } => Governed::Answered(action, body),
            Ended::NotSent { reason, detail } => {
                Governed::Failed { action, reason, detail, sent: false }
            }
            Ended::InDoubt { reason, detail } => {
                Governed::Failed { action, reason, detail, sent: true }
            }
            Ended::Task { .. } => {
                let (reason, detail) = (Reason::TaskRefused, "a task that nobody follows".into());
                Governed::Failed { action, reason, detail, sent: true }
            }
        }
    }

    fn end(&self, action: ActionId, ending: Ending) {
        let cancels = self.inner.cancels.lock().remove(&action);
        self.note_given_up(action, cancels, &ending);
        let became = Became::Ended(ending.status, ending.detail.clone());
        self.feed(Input::Ended(action, ending));
        self.inner.endings.tell(action, became);
    }

    /// Feeds control and does what needs no waiting; returns the rest.
    fn feed(&self, input: Input) -> Vec<Output> {
        let now = self.now();
        let outputs = self.inner.control.lock().handle(input, now);
        let mut rest = Vec::new();
        for output in outputs {
            match output {
                Output::RecordLater(body) => {
                    let record = Record { at_ms: now, gateway: self.inner.gateway, body };
                    if let Err(fault) = self.inner.store.append_later(record) {
                        // The decision is durable, so the action shows as in doubt, not as undone.
                        tracing::error!(%fault, "an outcome could not be recorded");
                    }
                }
                Output::Cancel(action, reason) => {
                    tracing::info!(%action, %reason, "cancelling a call");
                    if let Some(cancels) = self.inner.cancels.lock().get(&action) {
                        match reason {
                            Reason::CancelledByStop => cancels.stop.cancel(),
                            _ => cancels.agent.cancel(),
                        }
                    }
                }
                other => rest.push(other),
            }
        }
        rest
    }

    fn read_stops(&self) -> Result<(), StoreFault> {
        let row = self.inner.store.control()?;
        self.feed(Input::StopsRead { epoch: row.epoch, stops: row.stops });
        self.read_plans()
    }

    fn pins(&self) -> Result<BTreeMap<ToolRef, Digest>, StoreFault> {
        let pins = self.inner.store.pins()?;
        Ok(pins.into_iter().map(|pin| (pin.tool, pin.definition)).collect())
    }

    async fn write(&self, body: RecordBody) -> Result<u64, StoreFault> {
        let record = Record { at_ms: self.now(), gateway: self.inner.gateway, body };
        self.inner.store.append(record).await
    }

    fn new_action(&self) -> ActionId {
        let mut random = [0; 10];
        if let Err(fault) = getrandom::fill(&mut random) {
            tracing::error!(%fault, "no randomness; action ids are only as unique as the clock");
        }
        ActionId::new(self.now(), random)
    }
}

fn deny(reason: Reason, text: &str) -> Decision {
    Decision::from_iter([Cause::new(Ruling::Deny, reason, text)])
}

fn unavailable(fault: &StoreFault) -> Decision {
    deny(Reason::LedgerUnavailable, &fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::{Call, Governed, Governor};
    use holdpoint_control::Input;
    use holdpoint_resources::Ended;
    use holdpoint_resources::mcp::Outcome;
    use holdpoint_types::{Door, Epoch, Reason};
    use serde_json::json;
    use std::time::Duration;
    use tokio_util::sync::CancellationToken;

    /// Reads a resource; gives the reasons why it was not read.
    async fn read(governor: &Governor) -> Vec<Reason> {
        let call = Call {
            agent: "coder".parse().unwrap(),
            door: Door::McpHttp,
            tool: "fs__resources/read".parse().unwrap(),
            parameters: json!({ "uri": "demo://x" }),
            meta: None,
            condition: None,
        };
        let answer = serde_json::value::to_raw_value(&json!({})).unwrap();
        let body = Outcome::Result(answer);
        let execute = async move |_, _| Ended::Answered { body, tool_error: false };
        let governed = governor.govern(call, CancellationToken::new(), execute);
        match tokio::time::timeout(Duration::from_secs(20), governed).await.expect("no decision") {
            Governed::Answered(..) => Vec::new(),
            Governed::Refused(_, refusal) => {
                refusal.decision.causes().map(|cause| cause.reason).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_call_whose_stops_keep_moving_is_denied() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = crate::tests::runtime(dir.path()).await;
        let governor = runtime.governor();
        assert_eq!(read(governor).await, []);
        // The epoch that the call is decided in is never the store's, however often it is read.
        governor.feed(Input::StopsRead { epoch: Epoch(1), stops: Vec::new() });
        assert_eq!(read(governor).await, [Reason::CouldNotDecide]);
        runtime.shut_down().await;
    }
}
