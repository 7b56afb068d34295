//! Taking an apply back: what was captured, what is there now, and a plan by the configuration from
//! before.
//!
//! Must never plan with what is no longer as the apply left it, nor accept a plan that changes more
//! than the apply did.

use super::configuration::Files;
use super::plans::{Action, Plan, Planned};
use super::running::{Images, Position, State};
use super::{Applying, Terraform, Work};
use crate::resource::{Conflict, Preview, ResourceFault, TargetState, Undo};
use crate::upstream::Cancels;
use holdpoint_types::{Digest, Disclosure, Reversibility};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use tempfile::NamedTempFile;

/// What is kept of an apply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Captured {
    /// Where the state was before.
    state: Position,
    /// The whole state before: the last resort of an operator.
    backup: String,
    planned: Vec<Planned>,
    /// What the changed resources were.
    before: Images,
    /// What they were once it was over; absent if nobody could look.
    after: Option<(Position, Images)>,
    /// The configuration that was applied.
    configuration: Files,
    /// The one that was in force before, if Holdpoint applied it.
    previous: Option<Files>,
}

/// What changed resources are now.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) before: BTreeSet<String>,
    pub(super) after: BTreeSet<String>,
    pub(super) conflicts: Vec<Conflict>,
}

// === impl Captured ===

impl Captured {
    pub(super) fn new(
        state: &State,
        plan: &Plan,
        images: &Images,
        (configuration, previous): (&Files, Option<&Files>),
    ) -> Self {
        let changed = |planned: &Planned| {
            images.get(&planned.address).map(|image| (planned.address.clone(), image.clone()))
        };
        Self {
            state: state.position(),
            backup: state.text.clone(),
            planned: plan.planned.clone(),
            before: plan.planned.iter().filter_map(changed).collect(),
            after: None,
            configuration: configuration.clone(),
            previous: previous.cloned(),
        }
    }

    pub(super) fn read(undo: &Undo) -> Result<Self, ResourceFault> {
        Self::deserialize(&undo.data)
            .map_err(|_| ResourceFault::Invalid("what was captured cannot be read".to_owned()))
    }

    pub(super) fn position(&self) -> Position {
        self.state.clone()
    }

    /// Looks at what the apply left.
    pub(super) fn left(&mut self, state: &State, images: &Images) {
        let changed = |planned: &Planned| {
            images.get(&planned.address).map(|image| (planned.address.clone(), image.clone()))
        };
        let images = self.planned.iter().filter_map(changed).collect();
        self.after = Some((state.position(), images));
    }

    /// True if there is a configuration to go back to, or nothing but what can be destroyed.
    pub(super) fn can_be_undone(&self) -> bool {
        let known = |files: &Files| files.0.is_some();
        let creates = self.planned.iter().all(|it| it.action == Action::Create);
        self.previous.as_ref().is_some_and(known) || creates && known(&self.configuration)
    }

    pub(super) fn undo(&self, terraform: &Terraform) -> Option<Undo> {
        if self.planned.is_empty() {
            return None;
        }
        let stateful = &terraform.spec().stateful;
        let lost = |it: &Planned| {
            matches!(it.action, Action::Delete | Action::Replace) && stateful.contains(&it.kind)
        };
        let guarantee = match self.can_be_undone() && !self.planned.iter().any(lost) {
            true => Reversibility::Compensable,
            false => Reversibility::Irreversible,
        };
        Some(Undo { guarantee, until: None, data: serde_json::to_value(self).ok()? })
    }

    /// Refuses a state that is not the one that was changed.
    pub(super) fn check_lineage(&self, state: &State) -> Result<(), ResourceFault> {
        let known = self.after.as_ref().and_then(|(position, _)| position.0.as_ref());
        let known = known.or(self.state.0.as_ref());
        match (known, &state.lineage) {
            (Some(was), Some(is)) if was != is => {
                Err(ResourceFault::Impossible("the state has another lineage".to_owned()))
            }
            (Some(_), None) => Err(ResourceFault::Impossible("the state is gone".to_owned())),
            (_, _) => Ok(()),
        }
    }

    /// Compares what is there with what was before and after.
    pub(super) fn compare(&self, place: &str, now: &Images) -> Compared {
        let mut compared = Compared::default();
        for planned in &self.planned {
            let (address, is) = (&planned.address, now.get(&planned.address));
            if is == self.before.get(address) {
                compared.before.insert(address.clone());
            } else if self.is_as_left(planned, is) {
                compared.after.insert(address.clone());
            } else {
                let anew = matches!(planned.action, Action::Delete | Action::Replace);
                let why = match (is, anew, &self.after) {
                    (None, _, _) => "it is gone",
                    (Some(_), true, _) => "it was made anew, by a revert or by somebody else",
                    (Some(_), false, Some(_)) => "it was changed afterwards",
                    (Some(_), false, None) => "it is neither as before nor as planned",
                };
                let resource = format!("{place}/{address}");
                compared.conflicts.push(Conflict { resource, why: why.to_owned() });
            }
        }
        compared
    }

    /// True if a resource is what the apply left; as far as the plan said that, if nobody looked.
    fn is_as_left(&self, planned: &Planned, is: Option<&Value>) -> bool {
        match (&self.after, is) {
            (Some((_, after)), is) => is == after.get(&planned.address),
            (None, None) => planned.after.is_null(),
            (None, Some(is)) => {
                let members = planned.after.as_object();
                members.is_some_and(|members| {
                    members.iter().all(|(name, value)| {
                        let unknown = planned.after_unknown.get(name);
                        let open = unknown.is_some_and(|it| *it != Value::Bool(false));
                        open || is.get(name).unwrap_or(&Value::Null) == value
                    })
                })
            }
        }
    }
}

// === impl Compared ===

impl Compared {
    pub(super) fn state(self) -> TargetState {
        if !self.conflicts.is_empty() {
            return TargetState::Changed(self.conflicts);
        }
        match (self.before.is_empty(), self.after.is_empty()) {
            (_, true) => TargetState::Before,
            (true, false) => TargetState::After,
            (false, false) => {
                TargetState::Unknown("some of it is as before, some as it was left".to_owned())
            }
        }
    }
}

// === impl Terraform ===

impl Terraform {
    /// Plans back what is still as it was left.
    pub(super) async fn prepare_revert(
        &self,
        captured: &Captured,
        addresses: &BTreeSet<String>,
        (state, images): (&State, &Images),
    ) -> Result<(Preview, Work), ResourceFault> {
        let made = |it: &&Planned| addresses.contains(&it.address);
        let only_made = captured.planned.iter().filter(made).all(|it| it.action == Action::Create);
        let known = captured.previous.as_ref().filter(|files| files.0.is_some());
        let (files, destroy) = match known {
            Some(files) => (files, false),
            None if only_made && captured.configuration.0.is_some() => {
                (&captured.configuration, true)
            }
            None => {
                let text = "the configuration from before was not applied by Holdpoint, or is too \
                            large to keep";
                return Err(ResourceFault::Impossible(text.to_owned()));
            }
        };
        let folder = self.lay_out(files)?;
        let mut words: Vec<String> =
            addresses.iter().map(|address| format!("-target={address}")).collect();
        words.extend(destroy.then(|| "-destroy".to_owned()));
        let file = NamedTempFile::new().map_err(unavailable)?;
        self.make_plan(folder.path(), file.path(), &words, &Cancels::default()).await?;
        if !self.state(folder.path()).await?.is_at(&state.position()) {
            let text = "its state cannot be reached from a folder of Holdpoint's own";
            return Err(ResourceFault::Impossible(text.to_owned()));
        }
        let digest = Digest::of(&std::fs::read(file.path()).map_err(unavailable)?);
        let plan = self.read_plan(folder.path(), file.path()).await?;
        check_within(&plan, addresses)?;
        let back = (files, Some(&captured.configuration));
        let inverse = Captured::new(state, &plan, images, back);
        let preview = Preview {
            changes: plan.changes.clone(),
            exact: false,
            guarantee: plan.guarantee(&self.spec().stateful),
            until: None,
            disclosure: Disclosure::Contained,
            notes: [plan.notes.clone(), captured.differences(&plan)].concat(),
        };
        let configuration = match destroy {
            // What is left is what was there before the first configuration that is known.
            true => Files(None),
            false => files.clone(),
        };
        let directory = folder.path().to_owned();
        let applying = Applying {
            directory,
            file,
            digest,
            captured: inverse,
            configuration,
            _folder: Some(folder),
        };
        Ok((preview, Work::Apply(Box::new(applying))))
    }

    /// A folder with this configuration, the providers of the original and its state.
    fn lay_out(&self, files: &Files) -> Result<tempfile::TempDir, ResourceFault> {
        let folder = tempfile::tempdir().map_err(unavailable)?;
        files.write_to(folder.path())?;
        for name in [".terraform", "terraform.tfstate", "terraform.tfstate.d"] {
            let there = self.spec().directory.join(name);
            if there.exists() {
                let there = std::path::absolute(there).map_err(unavailable)?;
                link(&there, &folder.path().join(name)).map_err(unavailable)?;
            }
        }
        Ok(folder)
    }
}

impl Captured {
    /// What a plan back does not bring back as it was.
    fn differences(&self, plan: &Plan) -> Vec<String> {
        let mut notes = Vec::new();
        for planned in &plan.planned {
            let Some(before) = self.before.get(&planned.address).and_then(Value::as_object) else {
                continue;
            };
            let differs = |(name, value): (&String, &Value)| {
                let unknown = planned.after_unknown.get(name) == Some(&Value::Bool(true));
                unknown || planned.after.get(name).unwrap_or(&Value::Null) != value
            };
            let names: Vec<&str> =
                before.iter().filter(|it| differs(*it)).map(|(name, _)| name.as_str()).collect();
            if !names.is_empty() {
                let names = names.join(", ");
                notes.push(format!("{} may come back with other: {names}", planned.address));
            }
        }
        notes
    }
}

/// Refuses a plan that changes anything else, or that would write to where it was made.
fn check_within(plan: &Plan, addresses: &BTreeSet<String>) -> Result<(), ResourceFault> {
    if let Some(other) = plan.planned.iter().find(|it| !addresses.contains(&it.address)) {
        let text = format!("{} would be changed too, and hangs on it", other.address);
        return Err(ResourceFault::Impossible(text));
    }
    match plan.planned.iter().find(|it| is_relative(&it.after)) {
        None => Ok(()),
        Some(planned) => {
            let text = format!("{} names a path within its folder", planned.address);
            Err(ResourceFault::Impossible(text))
        }
    }
}

fn is_relative(value: &Value) -> bool {
    match value {
        Value::String(text) => text.starts_with("./") || text.starts_with("../"),
        Value::Array(items) => items.iter().any(is_relative),
        Value::Object(members) => members.values().any(is_relative),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn unavailable(fault: std::io::Error) -> ResourceFault {
    ResourceFault::Unavailable(fault.to_string())
}

#[cfg(unix)]
fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(from, to)
}

#[cfg(not(unix))]
fn link(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::Error::other("no links here"))
}
