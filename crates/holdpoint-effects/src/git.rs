//! `git`: what a command does to history, branches, the working tree and the configuration.
//!
//! Owns which commands publish, rewrite or delete, and which make git run something. It must
//! never look at a repository: what a branch points at is not known here.

use crate::NoteCode;
use crate::data::environment;
use crate::http::is_allowed;
use crate::place::Act;
use crate::programs::{Argv, Call, shell_text, with_argument};
use crate::shell::{Feed, Shell};
use crate::words::{Arg, matches};
use holdpoint_types::{Certainty, Effect, EffectClass, Reversibility, Verb};

mod config;
mod options;
mod push;
mod remotes;

/// Commands that only look.
const LOOKING: &[&str] = &[
    "status",
    "log",
    "diff",
    "show",
    "blame",
    "annotate",
    "ls-files",
    "ls-tree",
    "rev-parse",
    "describe",
    "shortlog",
    "cat-file",
    "rev-list",
    "name-rev",
    "merge-base",
    "for-each-ref",
    "show-ref",
    "count-objects",
    "fsck",
    "grep",
    "var",
    "help",
    "version",
    "whatchanged",
    "range-diff",
    "check-ignore",
    "check-attr",
    "cherry",
    "diff-tree",
    "diff-index",
    "diff-files",
    "verify-commit",
    "verify-tag",
    "show-branch",
    "merge-tree",
    "archive",
];
/// Commands that add to the repository or the working tree, and can be taken back.
const ADDING: &[&str] = &[
    "add",
    "commit",
    "merge",
    "cherry-pick",
    "revert",
    "apply",
    "am",
    "init",
    "notes",
    "sparse-checkout",
    "stage",
    "write-tree",
    "commit-tree",
    "hash-object",
    "mergetool",
    "update-index",
    "maintenance",
    "pack-refs",
    "repack",
    "rerere",
    "format-patch",
];
/// Options whose value git runs.
const RUNNING: &[&str] = &[
    "--upload-pack",
    "--receive-pack",
    "--exec",
    "-u",
    "--extcmd",
    "-x",
    "--open-files-in-pager",
    "-O",
    "--template",
    "--to-cmd",
    "--smtp-server",
];

/// Adds what one call of git does.
pub(crate) fn run(shell: &mut Shell<'_>, call: &Call<'_>) {
    let global = call.options(None).part_until(call.args, 0);
    for (name, value) in &global.options {
        match (name.as_str(), value) {
            ("-c" | "--config-env", Some(value)) => {
                config::inline(shell, call, value);
            }
            ("--exec-path", Some(_)) => shell.opaque(&call.shown),
            _ => {}
        }
    }
    let Some((command, args)) = global.rest.split_first() else { return };
    let Some(name) = command.exact() else {
        return shell.opaque(&format!("a git command that is not known: {}", call.shown));
    };
    let loose = args.iter().any(|arg| arg.starts_unknown() && arg.loose);
    if loose && !matches!(name, "add" | "commit" | "log" | "show" | "diff" | "status" | "merge") {
        shell.opaque(&format!("options that are not known: {}", call.shown));
    }
    let (argv, unlisted) = options::parted(name, args);
    if let Some(option) = unlisted {
        shell.opaque(&format!("`{option}` is not a known option of `git {name}`: {}", call.shown));
    }
    let git = Git { call, argv, args, folder: None };
    shell.apart(|shell| {
        if let Some(folder) = global.value("-C") {
            let path = shell.spot().path(folder);
            shell.state.cwd = path.rooted.then_some(path.text);
        }
        let git = Git { folder: remotes::folder(shell, &global), ..git };
        git.options(shell, name);
        git.command(shell, name);
    });
}

/// One command of git.
struct Git<'a> {
    call: &'a Call<'a>,
    argv: Argv,
    args: &'a [Arg],
    /// Where the repository is, if the call says that it is not the one of the workspace.
    folder: Option<String>,
}

// === impl Git ===

impl Git<'_> {
    /// True if it only says what it would do. The last word counts.
    fn only_says(&self) -> bool {
        self.has(&["-n", "--dry-run"]) && !self.has(&["--no-dry-run"])
    }

    /// `switch -C` and `checkout -B`: a branch is made, or set to another commit.
    fn moved_branch(&self, shell: &mut Shell<'_>) {
        let names = ["-C", "--force-create", "-B"];
        let name = names.iter().find_map(|name| self.argv.value(name)).map(Arg::shown);
        self.rewritten(shell, name.as_deref().unwrap_or("*"));
        self.add(shell, Verb::Update, "worktree");
    }

    fn has(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.argv.has(name))
    }

    /// The first operand.
    fn word(&self) -> Option<&str> {
        self.operand(0).map(|arg| arg.text.as_str())
    }

    fn operand(&self, at: usize) -> Option<&Arg> {
        self.argv.operands.get(at)
    }

    /// The address of a part of the repository.
    fn address(&self, shell: &Shell<'_>, part: &str) -> String {
        let own = shell.place.repository.as_deref().unwrap_or("local");
        let repository = self.folder.as_deref().unwrap_or(own);
        format!("git://{repository}#{part}")
    }

    fn add(&self, shell: &mut Shell<'_>, verb: Verb, part: &str) {
        let effect = self.effect(shell, verb, part);
        shell.add(effect);
    }

    fn effect(&self, shell: &Shell<'_>, verb: Verb, part: &str) -> Effect {
        let effect = Effect::new(verb, self.address(shell, part), self.call.shown.clone());
        match part.contains('*') || part.contains("HEAD") && verb != Verb::Read {
            true => effect.no_surer_than(Certainty::Bounded),
            false => effect,
        }
    }

    fn rewritten(&self, shell: &mut Shell<'_>, part: &str) {
        shell.effects.note(NoteCode::HistoryRewritten, self.call.shown.clone());
        let effect = self.effect(shell, Verb::Delete, part);
        shell.add(effect.reversible(Reversibility::ExactUntil));
    }

    /// What is not committed is gone.
    fn discarded(&self, shell: &mut Shell<'_>, part: &str) {
        let effect = self.effect(shell, Verb::Delete, part);
        shell.add(effect.no_surer_than(Certainty::Bounded));
    }

    /// Options that run something or write a file, whatever the command.
    fn options(&self, shell: &mut Shell<'_>, name: &str) {
        for (option, value) in &self.argv.options {
            let runs = match (name, option.as_str()) {
                (
                    "push" | "branch" | "stash" | "add" | "diff" | "status" | "commit" | "tag"
                    | "log" | "show" | "format-patch" | "pull" | "checkout" | "merge" | "clean"
                    | "read-tree" | "submodule" | "update-index" | "fetch",
                    "-u" | "-x" | "-O",
                ) => false,
                ("rebase" | "cherry-pick" | "revert", "-x") => name == "rebase",
                // Long options may be cut short.
                (_, option) => RUNNING.iter().any(|known| {
                    *known == option || option.len() >= 4 && known.starts_with(option)
                }),
            };
            match (option.as_str(), value) {
                (_, Some(value)) if runs => match environment().plain.contains(&value.text) {
                    true => {}
                    false => self.run_text(shell, value),
                },
                ("--output", Some(file)) => {
                    shell.touch(Act::Write(None), file, &self.call.shown);
                }
                ("-o", Some(file)) if matches!(name, "archive" | "format-patch") => {
                    shell.touch(Act::Write(None), file, &self.call.shown);
                }
                ("-c" | "--config", Some(value)) if name == "clone" => {
                    config::inline(shell, self.call, value);
                }
                _ => {}
            }
        }
    }

    fn run_text(&self, shell: &mut Shell<'_>, text: &Arg) {
        if matches!(text.text.as_str(), "git-upload-pack" | "git-receive-pack") {
            return;
        }
        shell_text(shell, text);
        // What they are given besides: files, or a host.
        with_argument(shell, text);
    }

    fn command(&self, shell: &mut Shell<'_>, name: &str) {
        match name {
            "push" => self.push(shell),
            "reset" => self.reset(shell),
            "clean" if !self.only_says() => self.clean(shell),
            "clean" => self.add(shell, Verb::Read, "worktree"),
            "checkout" => self.checkout(shell),
            "switch" if self.has(&["-C", "--force-create"]) => self.moved_branch(shell),
            "switch" if self.has(&["-f", "--force", "--discard-changes"]) => {
                self.discarded(shell, "worktree");
            }
            "switch" => self.add(shell, Verb::Update, "worktree"),
            "restore" if self.has(&["--staged", "-S"]) && !self.has(&["--worktree", "-W"]) => {
                self.add(shell, Verb::Update, "index");
            }
            "restore" => self.discarded(shell, "worktree"),
            "branch" => self.branch(shell),
            "tag" => self.tag(shell),
            "stash" => self.stash(shell),
            "reflog" | "gc" | "prune" | "replace" => self.housekeeping(shell, name),
            "filter-branch" | "filter-repo" => {
                self.rewritten(shell, "*");
                shell.opaque(&self.call.shown);
            }
            "fast-import" | "rewrite" => self.rewritten(shell, "*"),
            "rebase" => self.add(shell, Verb::Update, "HEAD"),
            "config" => self.config(shell),
            "clone" => self.clone(shell),
            "fetch" | "pull" | "ls-remote" => self.fetch(shell, name),
            "remote" => self.remote(shell),
            "submodule" => self.submodule(shell),
            "worktree" => self.worktree(shell),
            "rm" => self.remove(shell),
            "mv" => self.moved(shell),
            "update-ref" | "symbolic-ref" => self.update_ref(shell, name),
            "bisect" => self.bisect(shell),
            "credential" | "credential-store" | "credential-cache" => {
                shell.effects.note(NoteCode::CredentialTouched, self.call.shown.clone());
                let effect = self.effect(shell, Verb::Read, "credentials");
                shell.add(effect.at_least(EffectClass::Destructive));
            }
            "send-email" => self.add(shell, Verb::Send, "mail"),
            "lfs" => self.large_files(shell),
            "bundle" => {
                if let (Some("create"), Some(file)) = (self.word(), self.operand(1)) {
                    shell.touch(Act::Write(None), file, &self.call.shown);
                }
                self.add(shell, Verb::Read, "HEAD");
            }
            "difftool" => self.add(shell, Verb::Read, "worktree"),
            name if LOOKING.contains(&name) => self.add(shell, Verb::Read, "HEAD"),
            name if ADDING.contains(&name) => self.add(shell, Verb::Update, "HEAD"),
            _ => shell.opaque(&format!("not a known git command: {}", self.call.shown)),
        }
    }

    fn reset(&self, shell: &mut Shell<'_>) {
        match self.has(&["--hard", "--merge", "--keep"]) {
            true => self.discarded(shell, "worktree"),
            false => self.add(shell, Verb::Update, "index"),
        }
    }

    fn clean(&self, shell: &mut Shell<'_>) {
        let here = [Arg::known(".")];
        let folders =
            if self.argv.operands.is_empty() { &here } else { self.argv.operands.as_slice() };
        for folder in folders {
            let text = format!("{}/**", folder.text.trim_end_matches('/'));
            let found = Arg { text, glob: true, loose: false };
            shell.touch(Act::Delete, &found, &self.call.shown);
        }
    }

    fn checkout(&self, shell: &mut Shell<'_>) {
        if self.has(&["-B"]) {
            self.moved_branch(shell);
        }
        if self.has(&["-b", "--orphan"]) {
            return self.add(shell, Verb::Create, "branch");
        }
        let path = |arg: &Arg| {
            let base = arg.text.rsplit('/').next().unwrap_or_default();
            let folder = arg.text.ends_with('/') || arg.text.starts_with(':');
            matches!(arg.text.as_str(), "." | "..") || arg.glob || folder || {
                let name = base.rsplit_once('.').map_or("", |(_, end)| end);
                (1..=5).contains(&name.len()) && name.chars().all(|c| c.is_ascii_lowercase())
            }
        };
        let dashes = self.args.iter().any(|arg| arg.text == "--");
        let several = self.argv.operands.len() > 1;
        let paths = dashes && !self.argv.operands.is_empty() || several;
        if paths
            || self.argv.operands.iter().any(path)
            || self.has(&["-f", "--force", "-B", "--theirs", "--ours", "-p", "--patch"])
            || self.has(&["--pathspec-from-file"])
        {
            return self.discarded(shell, "worktree");
        }
        self.add(shell, Verb::Update, "worktree");
    }

    fn branch(&self, shell: &mut Shell<'_>) {
        let deletes = self.has(&["-d", "-D", "--delete"]);
        let moves = self.has(&["-f", "--force", "-M", "-C"]);
        let tracks =
            self.has(&["-u", "--set-upstream-to", "--unset-upstream", "--edit-description"]);
        let lists = self.has(&["-l", "--list", "-a", "--all", "-r", "--remotes"]);
        if tracks {
            return self.add(shell, Verb::Update, "config");
        }
        if lists && !deletes && !moves && !self.has(&["-m", "--move", "-c", "--copy"]) {
            return self.add(shell, Verb::Read, "branches");
        }
        for name in &self.argv.operands {
            match (deletes, moves) {
                (true, _) => self.delete_ref(shell, &name.shown()),
                (false, true) => self.rewritten(shell, &name.shown()),
                (false, false) => self.add(shell, Verb::Create, &name.shown()),
            }
        }
        if self.argv.operands.is_empty() {
            self.add(shell, Verb::Read, "branches");
        }
    }

    fn delete_ref(&self, shell: &mut Shell<'_>, name: &str) {
        let effect = self.effect(shell, Verb::Delete, name);
        shell.add(effect.reversible(Reversibility::ExactUntil));
    }

    fn tag(&self, shell: &mut Shell<'_>) {
        let deletes = self.has(&["-d", "--delete"]);
        if self.argv.operands.is_empty() || self.has(&["-l", "--list", "-v", "--verify"]) {
            return self.add(shell, Verb::Read, "tags");
        }
        for name in &self.argv.operands {
            let name = format!("refs/tags/{}", name.shown());
            match (deletes, self.has(&["-f", "--force"])) {
                (true, _) => self.delete_ref(shell, &name),
                (false, true) => self.rewritten(shell, &name),
                (false, false) => self.add(shell, Verb::Create, &name),
            }
        }
    }

    fn stash(&self, shell: &mut Shell<'_>) {
        match self.word() {
            Some("drop" | "clear") => self.discarded(shell, "stash"),
            Some("list" | "show") => self.add(shell, Verb::Read, "stash"),
            _ => self.add(shell, Verb::Update, "stash"),
        }
    }

    fn housekeeping(&self, shell: &mut Shell<'_>, name: &str) {
        let word = self.word();
        let now = self
            .args
            .iter()
            .any(|arg| arg.text.strip_prefix("--prune").is_some_and(|rest| rest != "=never"));
        match (name, word) {
            ("reflog", Some("expire" | "delete" | "drop")) => self.rewritten(shell, "reflog"),
            ("reflog", _) => self.add(shell, Verb::Read, "reflog"),
            ("prune", _) if !self.only_says() => self.rewritten(shell, "objects"),
            ("gc", _) if now => self.rewritten(shell, "objects"),
            ("replace", _) => self.rewritten(shell, "objects"),
            _ => self.add(shell, Verb::Update, "objects"),
        }
    }

    fn update_ref(&self, shell: &mut Shell<'_>, name: &str) {
        let reading = name == "symbolic-ref" && self.argv.operands.len() < 2;
        match self.operand(0).map(Arg::shown) {
            Some(name) if reading && !self.has(&["-d"]) => self.add(shell, Verb::Read, &name),
            Some(name) => self.rewritten(shell, &name),
            None => shell.opaque(&self.call.shown),
        }
    }

    fn submodule(&self, shell: &mut Shell<'_>) {
        match self.word() {
            None | Some("status" | "summary") => self.add(shell, Verb::Read, "submodules"),
            Some("foreach") => {
                let from = self.args.iter().position(|arg| arg.text == "foreach");
                let inner: Vec<&Arg> = from
                    .and_then(|from| self.args.get(from + 1..))
                    .unwrap_or_default()
                    .iter()
                    .skip_while(|arg| arg.text.starts_with('-'))
                    .collect();
                let text: Vec<&str> = inner.iter().map(|arg| arg.text.as_str()).collect();
                shell_text(shell, &Arg::known(text.join(" ")));
            }
            Some("deinit") => self.discarded(shell, "submodules"),
            Some(_) => {
                if let Some(url) = self.operand(1) {
                    self.source(shell, url);
                }
                self.add(shell, Verb::Update, "submodules");
            }
        }
    }

    fn worktree(&self, shell: &mut Shell<'_>) {
        match self.word() {
            None | Some("list") => self.add(shell, Verb::Read, "worktrees"),
            Some("remove") => {
                for folder in self.argv.operands.iter().skip(1) {
                    shell.touch(Act::DeleteTree, folder, &self.call.shown);
                }
            }
            Some(_) => self.add(shell, Verb::Update, "worktrees"),
        }
    }

    fn remove(&self, shell: &mut Shell<'_>) {
        if self.only_says() {
            return self.add(shell, Verb::Read, "index");
        }
        if self.has(&["--cached"]) {
            return self.add(shell, Verb::Update, "index");
        }
        let act = if self.has(&["-r"]) { Act::DeleteTree } else { Act::Delete };
        for file in &self.argv.operands {
            shell.touch(act.clone(), file, &self.call.shown);
        }
    }

    fn moved(&self, shell: &mut Shell<'_>) {
        if self.only_says() {
            return self.add(shell, Verb::Read, "index");
        }
        self.add(shell, Verb::Update, "HEAD");
        if let Some((to, from)) = self.argv.operands.split_last() {
            for file in from {
                shell.touch(Act::Update, file, &self.call.shown);
            }
            let act = match self.has(&["-f", "--force"]) {
                true => Act::Replace,
                false => Act::Create,
            };
            shell.touch(act, to, &self.call.shown);
        }
    }

    /// `git lfs`.
    fn large_files(&self, shell: &mut Shell<'_>) {
        match self.word() {
            None | Some("ls-files" | "status" | "env" | "version" | "logs" | "locks") => {
                self.add(shell, Verb::Read, "lfs");
            }
            Some("pull" | "fetch" | "checkout" | "track" | "untrack" | "lock") => {
                self.add(shell, Verb::Update, "lfs");
            }
            Some("push") => self.add(shell, Verb::Update, "remote"),
            Some("prune" | "unlock") => self.rewritten(shell, "lfs"),
            Some(_) => shell.opaque(&self.call.shown),
        }
    }

    fn bisect(&self, shell: &mut Shell<'_>) {
        if self.operand(0).is_some_and(|arg| arg.text == "run") {
            let inner = self.args.get(1..).unwrap_or_default();
            shell.maybe(|shell| shell.run(inner, &Feed::Inherited));
        }
        self.add(shell, Verb::Update, "worktree");
    }
}
