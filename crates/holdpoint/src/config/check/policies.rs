//! Checks where the policies are, and the guard sets.

use super::Checker;
use crate::config::fault::nearest;
use crate::config::raw::{At, RawConfig, RawGuard};
use holdpoint_ledger::Verifier;
use holdpoint_policy::GuardScope;
use holdpoint_server::policies::{GuardSpec, PolicySpec};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Where an action counts as acting whose environment nobody names.
const PROD: &str = "prod";

// === impl Checker ===

impl Checker<'_> {
    pub(super) fn policies(&mut self, raw: &RawConfig) -> PolicySpec {
        let ordinary = self.path(raw.policies.path.as_ref());
        let mut guards: Vec<GuardSpec> = Vec::new();
        for (name, guard) in &raw.policies.guard {
            let Some(guard) = self.guard(raw, (name, guard)) else { continue };
            let same = |folder: &PathBuf| *folder == guard.folder;
            if ordinary.iter().chain(guards.iter().map(|one| &one.folder)).any(same) {
                let message = "a guard set needs a folder of its own".to_owned();
                self.fault(name.span(), message, "move its files to another folder".to_owned());
            }
            guards.push(guard);
        }
        PolicySpec { ordinary, guards }
    }

    fn guard(
        &mut self,
        raw: &RawConfig,
        (name, guard): (&At<String>, &At<RawGuard>),
    ) -> Option<GuardSpec> {
        let span = guard.span();
        let RawGuard { path, surfaces, environments, signers, signatures } = guard.get();
        let name = self.word("guard set", &span, Some(name));
        if path.is_none() {
            self.missing(&span, "path", "\"guards/crown\"");
        }
        let folder = self.path(path.as_ref());
        let scope = self.scope(raw, surfaces, environments);
        if scope == GuardScope::default() {
            let message = "this guard set guards nothing".to_owned();
            self.fault(span.clone(), message, "add `surfaces` or `environments`".to_owned());
        }
        if signers.is_none() {
            self.missing(&span, "signers", "[\"…\"]");
        }
        let signers = self.signers(signers.as_deref().unwrap_or_default());
        let all = signers.len();
        let signatures_min = match signatures {
            Some(_) | None if all == 0 => 0,
            None => all,
            Some(some) => match usize::try_from(*some.get()) {
                Ok(number) if (1..=all).contains(&number) => number,
                _ => {
                    let message = format!("1 to {all} of the signers can be asked for");
                    self.fault(some.span(), message, None);
                    return None;
                }
            },
        };
        if all == 0 && guard.get().signers.as_ref().is_some_and(Vec::is_empty) {
            let message = "without signers nothing can be signed".to_owned();
            let suggestion = "make a key with `holdpoint policy keygen`".to_owned();
            self.fault(span, message, suggestion);
        }
        Some(GuardSpec { name: name?, folder: folder?, scope, signers, signatures_min })
    }

    /// What is guarded. A guard of a slip of the pen would guard nothing.
    fn scope(
        &mut self,
        raw: &RawConfig,
        surfaces: &[At<String>],
        environments: &[At<String>],
    ) -> GuardScope {
        let declared = raw.surface.iter().filter_map(|one| one.get().name.as_ref());
        let known: BTreeSet<_> = declared.map(|name| name.get().as_str()).collect();
        let surfaces = self.known_names("surface", surfaces, &known);
        let known = environment_names(raw);
        let environments = self.known_names("environment", environments, &known);
        GuardScope { surfaces, environments }
    }

    pub(super) fn known_names(
        &mut self,
        what: &str,
        names: &[At<String>],
        known: &BTreeSet<&str>,
    ) -> BTreeSet<String> {
        for name in names.iter().filter(|name| !known.contains(name.get().as_str())) {
            let near = nearest(name.get(), known.iter().copied());
            let suggestion = near.map_or_else(
                || format!("declare it as `[[{what}]]`"),
                |near| format!("did you mean `{near}`?"),
            );
            let message = format!("the {what} `{}` is not declared", name.get());
            self.fault(name.span(), message, suggestion);
        }
        names.iter().map(|name| name.get().clone()).collect()
    }

    fn signers(&mut self, texts: &[At<String>]) -> Vec<Verifier> {
        let mut signers: Vec<Verifier> = Vec::new();
        for text in texts {
            let signer: Verifier = match text.get().parse() {
                Ok(signer) => signer,
                Err(fault) => {
                    let suggestion = "`holdpoint policy keygen` prints such a key".to_owned();
                    self.fault(text.span(), format!("{fault}"), suggestion);
                    continue;
                }
            };
            let same = |one: &Verifier| {
                one.name() == signer.name() || one.public_key() == signer.public_key()
            };
            if signers.iter().any(same) {
                let message = format!("the signer `{}` is named twice", signer.name());
                self.fault(text.span(), message, "each has one name and one key".to_owned());
            }
            signers.push(signer);
        }
        signers
    }
}

/// Every environment that something may lie in.
pub(super) fn environment_names(raw: &RawConfig) -> BTreeSet<&str> {
    let declared = raw.environment.iter().filter_map(|one| one.get().name.as_ref());
    let servers = raw.server.values().filter_map(|one| one.get().environment.as_ref());
    let names = declared.chain(servers).map(|name| name.get().as_str());
    names.chain([PROD]).collect()
}
