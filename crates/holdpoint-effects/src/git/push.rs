//! `git push`: which refs of another repository change, and whether history is lost there.
//!
//! Owns refspecs. It must never take a push whose target is not known for one to a free branch.

use super::{Arg, Certainty, EffectClass, Git, NoteCode, Shell, Verb, matches};

// === impl Git ===

impl Git<'_> {
    pub(super) fn push(&self, shell: &mut Shell<'_>) {
        if self.only_says() {
            return self.add(shell, Verb::Read, "remote");
        }
        if let Some(remote) = self.operand(0)
            && remote.text.contains(':')
        {
            self.source(shell, remote);
            self.leaves_to(shell, remote);
        }
        let force = self.has(&["-f"])
            || self.argv.options.iter().any(|(name, _)| name.starts_with("--forc"));
        if self.has(&["--mirror", "--prune"]) {
            self.rewritten(shell, "*");
        }
        let refs = self.argv.operands.get(1..).unwrap_or_default();
        if self.has(&["-d", "--delete"]) {
            for name in refs {
                self.delete_remote(shell, name);
            }
            return;
        }
        if refs.is_empty() {
            let all = self.has(&["--all", "--branches", "--mirror"]);
            let part = if all { "*" } else { "HEAD" };
            let part = if self.has(&["--tags"]) && !all { "refs/tags/*" } else { part };
            return self.update_remote(shell, &Arg::known(part), force);
        }
        for spec in refs {
            let plus = spec.text.starts_with('+');
            let text = spec.text.trim_start_matches('+');
            let (from, to) = text.rsplit_once(':').unwrap_or((text, text));
            let to = Arg { text: to.to_owned(), ..spec.clone() };
            match from.is_empty() {
                true => self.delete_remote(shell, &to),
                false => self.update_remote(shell, &to, force || plus),
            }
        }
    }

    fn delete_remote(&self, shell: &mut Shell<'_>, name: &Arg) {
        if is_protected(shell, name) || short(&name.text).starts_with("refs/tags/") {
            shell.effects.note(NoteCode::HistoryRewritten, self.call.shown.clone());
        }
        self.delete_ref(shell, &short(&name.shown()));
    }

    fn update_remote(&self, shell: &mut Shell<'_>, name: &Arg, force: bool) {
        if force {
            return self.rewritten(shell, &short(&name.shown()));
        }
        let effect = self.effect(shell, Verb::Update, &short(&name.shown()));
        let effect = match is_protected(shell, name) {
            true => effect.at_least(EffectClass::Destructive),
            false => effect,
        };
        shell.add(match name.is_unknown() {
            true => effect.at_least(EffectClass::Destructive).no_surer_than(Certainty::Bounded),
            false => effect,
        });
    }
}

/// The name of a branch, however it is written.
pub(super) fn short(name: &str) -> String {
    let heads = name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("heads/"));
    let tag = name.strip_prefix("tags/").map(|tag| format!("refs/tags/{tag}"));
    tag.unwrap_or_else(|| heads.unwrap_or(name).to_owned())
}

fn is_protected(shell: &Shell<'_>, name: &Arg) -> bool {
    let name = short(&name.shown());
    let known = &shell.place.protected_branches;
    known.iter().any(|branch| matches(branch, &name) || matches(&name, branch))
}
