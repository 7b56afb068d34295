//! `git clone`, `fetch` and `remote`: other repositories, and which one is meant.
//!
//! Owns where a repository is. It must never take another repository for the workspace's own.

use super::{Act, Arg, Argv, Git, NoteCode, Shell, Verb, is_allowed, push};
use crate::place::Path;
use holdpoint_types::Effect;

/// The folder whose repository is meant, if it is not the one that the operator named.
pub(super) fn folder(shell: &Shell<'_>, global: &Argv) -> Option<String> {
    let variable = |name: &str| shell.state.variables.get(name);
    let given = global.value("--git-dir").or_else(|| variable("GIT_DIR"));
    let given = given.or_else(|| global.value("--work-tree")).or_else(|| variable("GIT_WORK_TREE"));
    let host =
        shell.state.host.as_deref().filter(|host| shell.place.host.as_deref() != Some(*host));
    let (text, own) = match (given, &shell.state.cwd) {
        (Some(given), _) => {
            let path = shell.spot().path(given);
            let own = !path.rooted && shell.place.cwd.is_none();
            let own = own && !path.text.contains(['/', '*']) || is_own(shell, &path);
            (if path.rooted { path.text } else { "/*".to_owned() }, own)
        }
        (None, Some(cwd)) => {
            let path = shell.spot().path(&Arg::known(cwd.as_str()));
            let own = is_own(shell, &path);
            (path.text, own)
        }
        (None, None) => ("/*".to_owned(), shell.place.cwd.is_none()),
    };
    let text = text.strip_suffix("/.git").unwrap_or(&text);
    match host {
        Some(host) => Some(format!("{host}{text}")),
        None => (!own).then(|| text.to_owned()),
    }
}

/// True if `path` lies in the workspace, or where calls start.
fn is_own(shell: &Shell<'_>, path: &Path) -> bool {
    let start = shell.place.cwd.as_deref().unwrap_or("/nowhere");
    let below = path.text.strip_prefix(start.trim_end_matches('/'));
    let below = below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    path.rooted && (below || shell.spot().in_workspace(path).is_some())
}

// === impl Git ===

impl Git<'_> {
    pub(super) fn clone(&self, shell: &mut Shell<'_>) {
        let Some(url) = self.operand(0) else { return };
        self.source(shell, url);
        let name = url.text.trim_end_matches('/').trim_end_matches(".git");
        let name = name.rsplit(['/', ':']).next().unwrap_or_default();
        let folder = self.operand(1).cloned().unwrap_or_else(|| Arg::known(format!("./{name}")));
        shell.touch(Act::Create, &folder, &self.call.shown);
    }

    /// A repository to read from. `ext::` and options in its place run commands.
    pub(super) fn source(&self, shell: &mut Shell<'_>, url: &Arg) {
        let text = url.text.as_str();
        let runs =
            text.starts_with("ext::") || text.starts_with('-') || text.contains("ProxyCommand");
        if runs || url.starts_unknown() && url.loose {
            return shell.opaque(&format!("a source that runs a command: {}", self.call.shown));
        }
        if text.split_once("://").is_some_and(|(_, rest)| {
            rest.split('/').next().is_some_and(|host| {
                host.contains('@') && host.contains(':') && !text.starts_with("ssh")
            })
        }) {
            shell.effects.note(NoteCode::CredentialInCall, "in the URL of a repository");
        }
        let effect =
            Effect::new(Verb::Read, format!("git://{}", url.shown()), self.call.shown.clone());
        shell.add(effect);
    }

    /// What is pushed goes to this host.
    pub(super) fn leaves_to(&self, shell: &mut Shell<'_>, url: &Arg) {
        let rest = url.text.split_once("://").map_or(url.text.as_str(), |(_, rest)| rest);
        let host = rest.split(['/', ':']).next().unwrap_or_default();
        let host = if url.text.contains("://") {
            let authority = rest.split('/').next().unwrap_or_default();
            let host = authority.rsplit('@').next().unwrap_or_default();
            host.split(':').next().unwrap_or_default()
        } else {
            host.rsplit('@').next().unwrap_or_default()
        };
        let remote = url.text.contains(':');
        if remote && !is_allowed(&host.to_ascii_lowercase(), &shell.place.http) {
            shell.effects.note(NoteCode::HostNotAllowed, host);
        }
    }

    pub(super) fn fetch(&self, shell: &mut Shell<'_>, name: &str) {
        if let Some(source) = self.operand(0) {
            self.source(shell, source);
        }
        match name {
            "ls-remote" => self.add(shell, Verb::Read, "remote"),
            "pull" if self.has(&["-f", "--force"]) => self.rewritten(shell, "HEAD"),
            "pull" => self.add(shell, Verb::Update, "HEAD"),
            _ => self.add(shell, Verb::Update, "remotes"),
        }
        // `+main:main` sets a branch of this repository to what the other one has.
        for spec in self.argv.operands.iter().skip(1) {
            let plus = spec.text.starts_with('+') || self.has(&["-f", "--force"]);
            let target = spec.text.rsplit_once(':').map_or("", |(_, target)| target);
            match target {
                "" => {}
                target if target.starts_with("refs/remotes/") => {}
                target if plus => self.rewritten(shell, &push::short(target)),
                target => self.add(shell, Verb::Update, &push::short(target)),
            }
        }
    }

    pub(super) fn remote(&self, shell: &mut Shell<'_>) {
        match self.word() {
            None | Some("show" | "get-url") => self.add(shell, Verb::Read, "remotes"),
            Some("remove" | "rm" | "prune") => self.discarded(shell, "remotes"),
            Some(_) => {
                if let Some(url) = self.argv.operands.last() {
                    self.source(shell, url);
                    self.leaves_to(shell, url);
                }
                self.add(shell, Verb::Update, "remotes");
            }
        }
    }
}
