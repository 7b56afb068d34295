//! How terraform is run: its environment, its state, its plans.
//! Must never put a secret on a command line, nor tell what a state holds.

use super::Terraform;
use super::plans::Plan;
use crate::process::ProcessSpec;
use crate::program::{self, Bounds, ProgramFault, Ran};
use crate::resource::ResourceFault;
use crate::upstream::Cancels;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// How long terraform waits for who holds the state's lock.
const LOCK_TIMEOUT: &str = "-lock-timeout=10s";

/// A state as it is somewhere.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Absent as long as there is no state.
    pub(super) lineage: Option<String>,
    pub(super) serial: u64,
    /// All of it, secrets included.
    pub(super) text: String,
}

/// Lineage and serial.
pub(super) type Position = (Option<String>, u64);

/// What resources are, by address, in the words of `terraform show -json`.
pub(super) type Images = BTreeMap<String, Value>;

#[derive(Deserialize)]
struct Head {
    lineage: String,
    serial: u64,
}

// === impl State ===

impl State {
    pub(super) fn position(&self) -> Position {
        (self.lineage.clone(), self.serial)
    }

    pub(super) fn is_at(&self, position: &Position) -> bool {
        self.position() == *position
    }
}

// === impl Terraform ===

impl Terraform {
    async fn run(
        &self,
        directory: &Path,
        words: &[&str],
        (cancels, bounds): (&Cancels, Bounds),
    ) -> Result<Ran, ProgramFault> {
        let spec = self.spec();
        let mut command = vec![spec.program.to_string_lossy().into_owned()];
        command.extend(words.iter().map(|word| (*word).to_owned()));
        let cwd = Some(directory.to_owned());
        let mut process = ProcessSpec { command, cwd, ..ProcessSpec::default() };
        let workspace = spec.workspace.as_deref().unwrap_or("default");
        for (name, value) in [
            ("TF_IN_AUTOMATION", "1"),
            ("TF_INPUT", "0"),
            ("CHECKPOINT_DISABLE", "1"),
            ("TF_WORKSPACE", workspace),
        ] {
            process.env.insert(name.to_owned(), value.to_owned());
        }
        for (name, value) in &spec.env {
            process.env.insert(name.clone(), value.expose().to_owned());
        }
        let ran = program::run(&process, b"", bounds, cancels).await?;
        Ok(ran.without(spec.env.values()))
    }

    /// Runs what only looks, which must succeed.
    async fn look(&self, directory: &Path, words: &[&str]) -> Result<Ran, ResourceFault> {
        let none = Cancels::default();
        let ran = self.run(directory, words, (&none, self.bounds())).await?;
        self.succeeded(words, ran)
    }

    fn succeeded(&self, words: &[&str], ran: Ran) -> Result<Ran, ResourceFault> {
        if ran.status.success() {
            return Ok(ran);
        }
        let command = words.first().copied().unwrap_or_default();
        Err(ResourceFault::Refused(format!("terraform {command}: {}", ran.told())))
    }

    fn bounds(&self) -> Bounds {
        let spec = self.spec();
        Bounds {
            timeout: spec.timeout,
            output_bytes_max: spec.limits.output_bytes_max,
            grace: spec.grace,
        }
    }

    /// The state, as its backend has it.
    pub(super) async fn state(&self, directory: &Path) -> Result<State, ResourceFault> {
        let text = self.look(directory, &["state", "pull"]).await?.text();
        if text.trim().is_empty() {
            return Ok(State { lineage: None, serial: 0, text });
        }
        let unreadable = |_| ResourceFault::Unavailable("the state cannot be read".to_owned());
        let Head { lineage, serial } = serde_json::from_str(&text).map_err(unreadable)?;
        Ok(State { lineage: Some(lineage), serial, text })
    }

    /// What every managed resource is, as far as the state knows.
    pub(super) async fn images(&self, directory: &Path) -> Result<Images, ResourceFault> {
        let text = self.look(directory, &["show", "-json"]).await?.text();
        let unreadable = |_| ResourceFault::Unavailable("the state cannot be read".to_owned());
        let shown: Value = serde_json::from_str(&text).map_err(unreadable)?;
        let mut images = Images::new();
        collect(shown.pointer("/values/root_module").unwrap_or(&Value::Null), &mut images);
        Ok(images)
    }

    pub(super) async fn make_plan(
        &self,
        directory: &Path,
        file: &Path,
        more: &[String],
        cancels: &Cancels,
    ) -> Result<(), ResourceFault> {
        let out = format!("-out={}", file.display());
        let mut words = vec!["plan", "-input=false", "-no-color", LOCK_TIMEOUT, &out];
        words.extend(more.iter().map(String::as_str));
        let ran = self.run(directory, &words, (cancels, self.bounds())).await?;
        self.succeeded(&words, ran).map(drop)
    }

    pub(super) async fn read_plan(
        &self,
        directory: &Path,
        file: &Path,
    ) -> Result<Plan, ResourceFault> {
        let file = file.display().to_string();
        let text = self.look(directory, &["show", "-json", "-no-color", &file]).await?.text();
        let plan = Plan::read(&text, &self.spec().place)?;
        let (count, most) = (plan.changes.len(), self.spec().limits.changes_max);
        if count > most {
            return Err(ResourceFault::TooLarge(format!("{count} changes")));
        }
        Ok(plan)
    }

    pub(super) async fn run_apply(
        &self,
        directory: &Path,
        file: &Path,
        cancels: &Cancels,
    ) -> Result<Ran, ProgramFault> {
        let file = file.display().to_string();
        let words = ["apply", "-input=false", "-no-color", LOCK_TIMEOUT, &file];
        let bounds = Bounds { timeout: self.spec().apply_timeout, ..self.bounds() };
        self.run(directory, &words, (cancels, bounds)).await
    }
}

fn collect(module: &Value, images: &mut Images) {
    let list = |name: &str| module.get(name).and_then(Value::as_array).into_iter().flatten();
    for resource in list("resources") {
        let managed = resource.get("mode").and_then(Value::as_str) == Some("managed");
        let address = resource.get("address").and_then(Value::as_str);
        let whole = resource.get("deposed_key").is_none() && managed;
        if let (true, Some(address), Some(values)) = (whole, address, resource.get("values")) {
            images.insert(address.to_owned(), values.clone());
        }
    }
    for child in list("child_modules") {
        collect(child, images);
    }
}
