//! Terraform: a saved plan is the preview, and exactly that file is applied.
//!
//! Serves its tools itself. Must never apply a plan that was not previewed byte for byte, one whose
//! state moved, or one that takes everything away.

mod configuration;
mod plans;
mod reverting;
mod running;
mod shelf;

use crate::clearance::{Clearance, answered, in_doubt, not_sent, reason, tool_error};
use crate::program::ProgramFault;
use crate::resource::{
    Executed, Forward, Preview, Proposed, Resource, ResourceFault, Reverting, TargetState, Undo,
};
use crate::upstream::{Cancels, Ended, SecretText};
use configuration::Files;
use holdpoint_control::Permit;
use holdpoint_types::{Digest, Disclosure, Reason, Reversibility, ServerName, Timestamp};
use plans::Plan;
use reverting::Captured;
use running::State;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::{NamedTempFile, TempDir};

/// One configuration with its state, and how terraform is run on it.
#[derive(Clone, Debug)]
pub struct TerraformSpec {
    /// The name of the server that its tools belong to.
    pub server: ServerName,
    /// Its address: `tf://NAME`.
    pub place: String,
    /// The root module, initialised.
    pub directory: PathBuf,
    /// A folder for Holdpoint alone, and for this configuration alone: plans lie there.
    pub folder: PathBuf,
    /// The program `terraform`.
    pub program: PathBuf,
    /// The workspace; absent for `default`.
    pub workspace: Option<String>,
    /// Variables that terraform gets besides: credentials of providers, `TF_VAR_…`.
    pub env: BTreeMap<String, SecretText>,
    /// Types of resources that hold what cannot be had again once they are deleted.
    pub stateful: BTreeSet<String>,
    /// How long a plan, or anything else that only looks, may take.
    pub timeout: Duration,
    /// How long an apply may take.
    pub apply_timeout: Duration,
    /// How long terraform may take to end in good order after a stop.
    pub grace: Duration,
    /// How much a call may be about.
    pub limits: TerraformLimits,
}

/// How much one call may be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerraformLimits {
    /// Most resources and outputs that a plan changes.
    pub changes_max: usize,
    /// Most bytes that one run of terraform may write, and of one plan or state.
    pub output_bytes_max: usize,
    /// Most bytes of a configuration that is kept for an undo.
    pub configuration_bytes_max: usize,
    /// Most plans that lie ready; the oldest go first.
    pub plans_max: usize,
}

/// One configuration as a resource.
#[derive(Clone, Debug)]
pub struct Terraform(TerraformSpec);

/// A previewed call.
#[derive(Debug)]
pub struct TerraformPrepared {
    clearance: Clearance,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// Makes a plan.
    Plan,
    /// Applies a plan.
    Apply(Box<Applying>),
    /// Everything is as it should be.
    Nothing,
}

/// A plan that is ready to be applied.
#[derive(Debug)]
struct Applying {
    /// Where it was made.
    directory: PathBuf,
    /// The very bytes that were previewed, where nobody else writes.
    file: NamedTempFile,
    digest: Digest,
    captured: Captured,
    /// What it was made from, to know afterwards what is in force.
    configuration: Files,
    /// Holds the folder of a revert until it is over.
    _folder: Option<TempDir>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanCall {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplyCall {
    plan: String,
}

// === impl TerraformLimits ===

impl Default for TerraformLimits {
    fn default() -> Self {
        Self {
            changes_max: 1000,
            output_bytes_max: 16 << 20,
            configuration_bytes_max: 4 << 20,
            plans_max: 32,
        }
    }
}

// === impl Terraform ===

impl Terraform {
    /// A configuration; nothing is looked at yet.
    pub fn new(spec: TerraformSpec) -> Self {
        Self(spec)
    }

    /// What it was made from.
    pub fn spec(&self) -> &TerraformSpec {
        &self.0
    }

    /// The tools that it serves, as MCP describes tools.
    pub fn tools() -> Vec<Value> {
        let tool = |name: &str, description: &str, properties: Value, required: &[&str]| {
            let plans = name == "terraform_plan";
            json!({
                "name": name, "description": description,
                "inputSchema": {
                    "type": "object", "properties": properties, "required": required,
                    "additionalProperties": false,
                },
                "annotations": {
                    "readOnlyHint": plans, "destructiveHint": !plans,
                    "idempotentHint": false, "openWorldHint": true,
                },
            })
        };
        let digest = json!({
            "type": "string", "pattern": "^sha256:[0-9a-f]{64}$",
            "description": "The id of a plan, as `terraform_plan` gave it.",
        });
        vec![
            tool(
                "terraform_plan",
                "Plans what the configuration as it lies there would change, and gives the plan \
                 an id. Changes nothing.",
                json!({}),
                &[],
            ),
            tool(
                "terraform_apply",
                "Applies exactly the plan with this id.",
                json!({ "plan": digest }),
                &["plan"],
            ),
        ]
    }

    async fn preview_apply(&self, call: &ApplyCall) -> Result<(Preview, Work), ResourceFault> {
        let none = |_| ResourceFault::Invalid("`plan` is no id of a plan".to_owned());
        let digest: Digest = call.plan.parse().map_err(none)?;
        let kept = self.shelf()?.plan(digest)?;
        let state = self.state(&self.0.directory).await?;
        self.check_state(&state)?;
        if !state.is_at(&kept.state) {
            return Err(ResourceFault::Refused(format!(
                "the plan is stale: the state was at serial {} and is at {}; plan again",
                kept.state.1, state.serial
            )));
        }
        let plan = self.read_plan(&self.0.directory, kept.file.path()).await?;
        plan.check_something_stays()?;
        let images = self.images(&self.0.directory).await?;
        let configuration = kept.configuration;
        let previous = self.shelf()?.in_force(&state)?;
        let captured = Captured::new(&state, &plan, &images, (&configuration, previous.as_ref()));
        let mut preview = self.preview_of(&plan, &captured);
        preview.notes.insert(0, format!("plan {digest}"));
        let directory = self.0.directory.clone();
        let file = kept.file;
        let applying = Applying { directory, file, digest, captured, configuration, _folder: None };
        Ok((preview, Work::Apply(Box::new(applying))))
    }

    fn preview_of(&self, plan: &Plan, captured: &Captured) -> Preview {
        let guarantee = match (plan.changes.is_empty(), captured.can_be_undone()) {
            (true, _) => Reversibility::NoEffect,
            (false, true) => plan.guarantee(&self.0.stateful),
            (false, false) => Reversibility::Irreversible,
        };
        let mut notes = plan.notes.clone();
        if !captured.can_be_undone() {
            let text = "no configuration that Holdpoint applied before is known, or it is too \
                        large to keep: what is updated or deleted cannot be taken back";
            notes.push(text.to_owned());
        }
        Preview {
            changes: plan.changes.clone(),
            // Providers do what they do; what they answer is known only then.
            exact: false,
            guarantee,
            until: None,
            disclosure: Disclosure::Contained,
            notes,
        }
    }

    /// Makes a plan and keeps it.
    async fn plan(&self, cancels: &Cancels, now: Timestamp) -> Ended {
        match self.try_plan(cancels, now).await {
            Ok((digest, plan)) => {
                let changes: Vec<Value> =
                    plan.changes.iter().filter_map(|it| serde_json::to_value(it).ok()).collect();
                let text = format!("plan {digest}\n{}", plan.summary());
                let told = json!({ "plan": digest, "changes": changes, "notes": plan.notes });
                answered(&text, &told)
            }
            Err(ResourceFault::Unavailable(text)) if cancels.stop.is_cancelled() => {
                not_sent(Reason::CancelledByStop, text)
            }
            Err(fault) => tool_error(&fault.to_string()),
        }
    }

    async fn try_plan(
        &self,
        cancels: &Cancels,
        now: Timestamp,
    ) -> Result<(Digest, Plan), ResourceFault> {
        let shelf = self.shelf()?;
        let configuration = self.configuration()?;
        let before = self.state(&self.0.directory).await?;
        self.check_state(&before)?;
        let file = shelf.fresh()?;
        self.make_plan(&self.0.directory, file.path(), &[], cancels).await?;
        let after = self.state(&self.0.directory).await?;
        if self.configuration()? != configuration || !after.is_at(&before.position()) {
            let text = "the configuration or the state changed meanwhile; plan again";
            return Err(ResourceFault::Refused(text.to_owned()));
        }
        let plan = self.read_plan(&self.0.directory, file.path()).await?;
        let digest = shelf.keep(file, &before, configuration, now)?;
        shelf.forget_oldest(self.0.limits.plans_max);
        Ok((digest, plan))
    }

    async fn apply(&self, applying: &Applying, cancels: &Cancels) -> Executed {
        if let Err(ended) = self.check_ready(applying).await {
            return ended.into();
        }
        let applied = self.run_apply(&applying.directory, applying.file.path(), cancels).await;
        // Whatever came of it: what is there now is what an undo compares with.
        let mut captured = applying.captured.clone();
        let seen = self.see_after(applying, &mut captured).await;
        let ended = match applied {
            Ok(ran) if ran.status.success() => {
                let position = seen.as_ref().map(State::position);
                if let (Some(state), Ok(shelf)) = (&seen, self.shelf()) {
                    shelf.set_in_force(state, &applying.configuration);
                }
                let text = format!("applied {}", applying.digest);
                answered(
                    &text,
                    &json!({ "plan": applying.digest, "serial": position.map(|p| p.1) }),
                )
            }
            Ok(ran) => {
                let unmoved = seen.as_ref().is_some_and(|state| state.is_at(&captured.position()));
                let told = ran.told();
                if unmoved && ["plan is stale", "state lock"].iter().any(|it| told.contains(it)) {
                    not_sent(Reason::TargetMoved, told)
                } else {
                    tool_error(&format!("terraform apply failed, maybe halfway: {told}"))
                }
            }
            Err(ProgramFault::Start(fault)) => {
                return not_sent(Reason::UpstreamUnavailable, fault.to_string()).into();
            }
            Err(fault) => in_doubt(reason(&fault), fault.to_string()),
        };
        let undo = seen.is_some().then(|| captured.undo(self)).flatten();
        Executed { ended, undo }
    }

    /// Sees that plan and state are still what was previewed.
    async fn check_ready(&self, applying: &Applying) -> Result<(), Ended> {
        let moved = |text: &str| not_sent(Reason::TargetMoved, text);
        let bytes = std::fs::read(applying.file.path()).map_err(|_| moved("the plan is gone"))?;
        if Digest::of(&bytes) != applying.digest {
            return Err(moved("the plan is not the one that was previewed"));
        }
        let unavailable =
            |fault: ResourceFault| not_sent(Reason::UpstreamUnavailable, fault.to_string());
        let state = self.state(&applying.directory).await.map_err(unavailable)?;
        match state.is_at(&applying.captured.position()) {
            true => Ok(()),
            false => Err(moved("the state moved since the preview")),
        }
    }

    async fn see_after(&self, applying: &Applying, captured: &mut Captured) -> Option<State> {
        let state = self.state(&applying.directory).await.ok()?;
        let images = self.images(&applying.directory).await.ok()?;
        captured.left(&state, &images);
        // What a revert changed is as new as what an apply changed.
        self.shelf().ok()?.set_seen(&state);
        Some(state)
    }
}

impl Resource for Terraform {
    type Prepared = TerraformPrepared;

    async fn preview(
        &self,
        proposed: Proposed<'_>,
    ) -> Result<Option<(Preview, TerraformPrepared)>, ResourceFault> {
        if *proposed.tool.server() != self.0.server {
            return Ok(None);
        }
        let invalid = |fault: serde_json::Error| ResourceFault::Invalid(fault.to_string());
        if !proposed.parameters.is_object() {
            return Err(ResourceFault::Invalid("the parameters are no object".to_owned()));
        }
        let (preview, work) = match proposed.tool.name() {
            "terraform_plan" => {
                let PlanCall {} = PlanCall::deserialize(proposed.parameters).map_err(invalid)?;
                let text = "data sources and providers may run programs and ask other systems";
                (Preview { exact: false, notes: vec![text.to_owned()], ..nothing() }, Work::Plan)
            }
            "terraform_apply" => {
                let call = ApplyCall::deserialize(proposed.parameters).map_err(invalid)?;
                self.preview_apply(&call).await?
            }
            _ => return Ok(None),
        };
        let clearance = Clearance::call(proposed)?;
        Ok(Some((preview, TerraformPrepared { clearance, work })))
    }

    fn undo(&self, prepared: &TerraformPrepared) -> Option<Undo> {
        match &prepared.work {
            Work::Apply(applying) => applying.captured.undo(self),
            Work::Plan | Work::Nothing => None,
        }
    }

    async fn execute(
        &self,
        permit: Permit,
        prepared: TerraformPrepared,
        around: (Cancels, Forward),
    ) -> Executed {
        let TerraformPrepared { clearance, work } = prepared;
        let (cancels, _) = around;
        if let Err(ended) = clearance.begin(permit, &cancels) {
            return ended.into();
        }
        let executed = match work {
            Work::Plan => self.plan(&cancels, clearance.now()).await.into(),
            Work::Apply(applying) => self.apply(&applying, &cancels).await,
            Work::Nothing => {
                let text = "everything is as it was before";
                answered(text, &json!({ "changed": false })).into()
            }
        };
        // Every terraform has ended, whatever became of it.
        cancels.gone.cancel();
        executed
    }

    async fn verify(&self, undo: &Undo) -> Result<TargetState, ResourceFault> {
        let captured = Captured::read(undo)?;
        let state = self.state(&self.0.directory).await?;
        if let Err(fault) = captured.check_lineage(&state) {
            return Ok(TargetState::Unknown(fault.to_string()));
        }
        let images = self.images(&self.0.directory).await?;
        Ok(captured.compare(&self.0.place, &images).state())
    }

    async fn revert(
        &self,
        undo: &Undo,
        now: Timestamp,
    ) -> Result<Reverting<TerraformPrepared>, ResourceFault> {
        let captured = Captured::read(undo)?;
        let state = self.state(&self.0.directory).await?;
        captured.check_lineage(&state)?;
        let images = self.images(&self.0.directory).await?;
        let compared = captured.compare(&self.0.place, &images);
        let (preview, work) = if compared.after.is_empty() {
            (nothing(), Work::Nothing)
        } else {
            self.prepare_revert(&captured, &compared.after, (&state, &images)).await?
        };
        let prepared = TerraformPrepared { clearance: Clearance::revert(now), work };
        Ok(Reverting { preview, conflicts: compared.conflicts, prepared })
    }
}

/// A preview of what changes nothing.
fn nothing() -> Preview {
    Preview {
        changes: Vec::new(),
        exact: true,
        guarantee: Reversibility::NoEffect,
        until: None,
        disclosure: Disclosure::Contained,
        notes: Vec::new(),
    }
}
