//! Holdpoint's own folder of a configuration: plans by their digest, the state that was seen last,
//! the configuration that is in force.
//!
//! Must never give out a plan whose bytes are others than its name says, nor be readable by anybody
//! else: plans hold secrets.

use super::Terraform;
use super::configuration::Files;
use super::running::{Position, State};
use crate::resource::ResourceFault;
use holdpoint_types::{Digest, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::DirBuilder;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// The folder.
#[derive(Debug)]
pub(super) struct Shelf {
    folder: PathBuf,
    directory: PathBuf,
    workspace: Option<String>,
}

/// A plan that lies ready.
#[derive(Debug)]
pub(super) struct Kept {
    /// A copy: what is under its name may be exchanged while somebody looks.
    pub(super) file: NamedTempFile,
    pub(super) state: Position,
    pub(super) configuration: Files,
}

/// What is written beside a plan.
#[derive(Serialize, Deserialize)]
struct Beside {
    directory: PathBuf,
    workspace: Option<String>,
    state: Position,
    at: Timestamp,
    configuration: Files,
}

/// What was applied last.
#[derive(Serialize, Deserialize)]
struct InForce {
    state: Position,
    configuration: Files,
}

// === impl Terraform ===

impl Terraform {
    /// The folder, made if need be.
    pub(super) fn shelf(&self) -> Result<Shelf, ResourceFault> {
        let spec = self.spec();
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&spec.folder).map_err(unavailable)?;
        let (directory, workspace) = (spec.directory.clone(), spec.workspace.clone());
        Ok(Shelf { folder: spec.folder.clone(), directory, workspace })
    }

    /// Refuses a state that is another one than before, or an older one: whoever lost the state
    /// would make everything anew, and destroy it once the old one is back.
    pub(super) fn check_state(&self, state: &State) -> Result<(), ResourceFault> {
        let shelf = self.shelf()?;
        let Some((lineage, serial)) = shelf.read::<Position>("seen.json")? else {
            shelf.set_seen(state);
            return Ok(());
        };
        let why = match (&lineage, &state.lineage) {
            (Some(_), None) => "there was a state and there is none".to_owned(),
            (Some(was), Some(is)) if was != is => "the state has another lineage".to_owned(),
            (Some(_), Some(_)) if state.serial < serial => {
                format!("the state went back from serial {serial} to {}", state.serial)
            }
            (_, _) => {
                shelf.set_seen(state);
                return Ok(());
            }
        };
        let file = shelf.folder.join("seen.json");
        Err(ResourceFault::Refused(format!(
            "{why}; if that is meant, let the operator delete `{}`",
            file.display()
        )))
    }
}

// === impl Shelf ===

impl Shelf {
    /// A file for a new plan; it goes away unless it is kept.
    pub(super) fn fresh(&self) -> Result<NamedTempFile, ResourceFault> {
        tempfile::Builder::new().prefix("fresh-").tempfile_in(&self.folder).map_err(unavailable)
    }

    /// Keeps a plan under its digest.
    pub(super) fn keep(
        &self,
        file: NamedTempFile,
        state: &State,
        configuration: Files,
        at: Timestamp,
    ) -> Result<Digest, ResourceFault> {
        let digest = Digest::of(&std::fs::read(file.path()).map_err(unavailable)?);
        let beside = Beside {
            directory: self.directory.clone(),
            workspace: self.workspace.clone(),
            state: state.position(),
            at,
            configuration,
        };
        self.write(&format!("{}.json", hex(digest)), &beside)?;
        let path = self.folder.join(format!("{}.tfplan", hex(digest)));
        file.persist(path).map_err(|fault| unavailable(fault.error))?;
        Ok(digest)
    }

    /// The plan with this digest, whose bytes are still that.
    pub(super) fn plan(&self, digest: Digest) -> Result<Kept, ResourceFault> {
        let gone = || ResourceFault::Gone("there is no plan with this id; plan again".to_owned());
        let file = self.folder.join(format!("{}.tfplan", hex(digest)));
        let bytes = std::fs::read(&file).map_err(|_| gone())?;
        let beside: Beside = self.read(&format!("{}.json", hex(digest)))?.ok_or_else(gone)?;
        if Digest::of(&bytes) != digest {
            return Err(ResourceFault::Refused("the plan was changed".to_owned()));
        }
        if (&beside.directory, &beside.workspace) != (&self.directory, &self.workspace) {
            return Err(ResourceFault::Invalid("the plan is for another place".to_owned()));
        }
        let Beside { state, configuration, .. } = beside;
        let file = copy(&bytes).map_err(unavailable)?;
        Ok(Kept { file, state, configuration })
    }

    /// Forgets the oldest plans, so that so many stay. What fails is tried again with the next one.
    pub(super) fn forget_oldest(&self, plans_max: usize) {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let is_plan = |path: &PathBuf| path.extension().is_some_and(|it| it == "tfplan");
        let mut plans: Vec<(Timestamp, PathBuf)> = Vec::new();
        for path in entries.map(|entry| entry.path()).filter(is_plan) {
            let name = path.with_extension("json");
            let name = name.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let beside = self.read::<Beside>(name).ok().flatten();
            plans.push((beside.map_or(Timestamp(0), |beside| beside.at), path));
        }
        plans.sort();
        let excess = plans.len().saturating_sub(plans_max);
        for (_, path) in plans.into_iter().take(excess) {
            let _ = std::fs::remove_file(path.with_extension("json"));
            let _ = std::fs::remove_file(path);
        }
    }

    /// Remembers a state that was seen. If that fails, the next look is compared with an older one.
    pub(super) fn set_seen(&self, state: &State) {
        if state.lineage.is_some() {
            let _ = self.write("seen.json", &state.position());
        }
    }

    /// Remembers what was applied, and what state that left.
    pub(super) fn set_in_force(&self, state: &State, configuration: &Files) {
        let configuration = configuration.clone();
        // What cannot be written down is not known next time, and then nothing is promised.
        let _ = self.write("in-force.json", &InForce { state: state.position(), configuration });
    }

    /// The configuration that made the state what it is, if Holdpoint applied it.
    pub(super) fn in_force(&self, state: &State) -> Result<Option<Files>, ResourceFault> {
        let in_force = self.read::<InForce>("in-force.json")?;
        Ok(in_force.filter(|it| state.is_at(&it.state)).map(|it| it.configuration))
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), ResourceFault> {
        let mut file = self.fresh()?;
        let text = serde_json::to_vec(value).map_err(|fault| unavailable(fault.into()))?;
        file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(unavailable)?;
        file.persist(self.folder.join(name)).map_err(|fault| unavailable(fault.error)).map(drop)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ResourceFault> {
        read_json(&self.folder.join(name))
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ResourceFault> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(fault) => return Err(unavailable(fault)),
    };
    let text = || format!("`{}` cannot be read", path.display());
    serde_json::from_slice(&bytes).map(Some).map_err(|_| ResourceFault::Unavailable(text()))
}

/// A file of these bytes, which only this user reads and whose name nobody knows.
pub(super) fn copy(bytes: &[u8]) -> std::io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new()?;
    file.write_all(bytes)?;
    file.flush()?;
    Ok(file)
}

fn hex(digest: Digest) -> String {
    let text = digest.to_string();
    text.strip_prefix("sha256:").unwrap_or(&text).to_owned()
}

fn unavailable(fault: std::io::Error) -> ResourceFault {
    ResourceFault::Unavailable(format!("the folder of plans: {fault}"))
}
