//! `git config`: keys that make git run something, or go elsewhere.
//!
//! Owns which keys those are. It must never take an alias for harmless because git knows its name.

use super::{Arg, Call, Git, NoteCode, Shell, Verb, environment, shell_text};

/// Keys whose value is a command, in lower case; `*` stands for a name.
const COMMANDS: &[&str] = &[
    "core.sshcommand",
    "core.pager",
    "core.editor",
    "core.fsmonitor",
    "core.hookspath",
    "core.askpass",
    "core.gitproxy",
    "core.alternaterefscommand",
    "sequence.editor",
    "diff.external",
    "credential.helper",
    "gpg.program",
    "include.path",
    "uploadpack.packobjectshook",
    "sendemail.smtpserver",
    "web.browser",
    "init.templatedir",
    "protocol.ext.allow",
    "core.attributesfile",
    "http.sslverify",
    "safe.directory",
];
/// Sections whose keys with these names are commands.
const ENDINGS: &[(&str, &str)] = &[
    ("filter.", ".clean"),
    ("filter.", ".smudge"),
    ("filter.", ".process"),
    ("diff.", ".command"),
    ("diff.", ".textconv"),
    ("merge.", ".driver"),
    ("difftool.", ".cmd"),
    ("mergetool.", ".cmd"),
    ("credential.", ".helper"),
    ("gpg.", ".program"),
    ("pager.", ""),
    ("includeif.", ".path"),
    ("remote.", ".uploadpack"),
    ("remote.", ".receivepack"),
    ("remote.", ".vcs"),
    ("url.", "insteadof"),
    ("browser.", ".cmd"),
    ("man.", ".cmd"),
    ("guitool.", ".cmd"),
    ("submodule.", ".update"),
    ("hook.", ".command"),
];

/// `-c key=value`: a setting for one command.
pub(super) fn inline(shell: &mut Shell<'_>, call: &Call<'_>, setting: &Arg) {
    // For this command alone, another remote, or another branch of it.
    let key = setting.text.to_ascii_lowercase();
    let key = key.split('=').next().unwrap_or_default();
    let ends = [".url", ".pushurl", ".fetch", ".merge", ".remote", ".pushremote", ".pushdefault"];
    let elsewhere = ["remote.", "branch."].iter().any(|start| key.starts_with(start));
    if elsewhere && ends.iter().any(|end| key.ends_with(end)) {
        shell.opaque(&format!("another remote, or another branch: {}", call.shown));
    }
    match setting.text.split_once('=') {
        _ if setting.is_unknown() && setting.starts_unknown() => shell.opaque(&call.shown),
        Some((key, value)) => set(shell, call, key, &Arg::known(value)),
        None => set(shell, call, &setting.text, &Arg::known("true")),
    }
}

/// True if the key decides which branches a push or a fetch changes.
fn aims(key: &str) -> bool {
    key == "push.default"
        || key.starts_with("remote.") && [".push", ".mirror"].iter().any(|end| key.ends_with(end))
}

fn set(shell: &mut Shell<'_>, call: &Call<'_>, key: &str, value: &Arg) {
    let key = key.to_ascii_lowercase();
    if aims(&key) && !matches!(value.text.as_str(), "simple" | "current" | "nothing") {
        shell.opaque(&format!("`{key}` says what is pushed, and where to: {}", call.shown));
    }
    if key.starts_with("alias.") {
        return match value.text.strip_prefix('!') {
            Some(command) => shell_text(shell, &Arg::known(command)),
            None => {
                let text = format!("git {}", value.text);
                shell_text(shell, &Arg::known(text));
            }
        };
    }
    let command = COMMANDS.contains(&key.as_str())
        || ENDINGS.iter().any(|(start, end)| key.starts_with(start) && key.ends_with(end));
    let first = value.text.split_whitespace().next().unwrap_or_default();
    let plain =
        first.is_empty() || environment().plain.contains(first) && !value.text.contains("Command");
    let known = matches!(
        (key.as_str(), first),
        ("credential.helper", "store" | "cache" | "osxkeychain" | "manager")
            | ("safe.directory", _)
            | ("http.sslverify", "true")
            | ("protocol.ext.allow", "never")
    );
    if command && !plain && !known {
        shell.effects.note(NoteCode::DeferredExecution, format!("{key} {}", value.shown()));
        shell.opaque(&format!("git will run what `{key}` says: {}", call.shown));
    }
}

// === impl Git ===

impl Git<'_> {
    pub(super) fn config(&self, shell: &mut Shell<'_>) {
        let looks = [
            "--get",
            "--get-all",
            "--get-regexp",
            "--list",
            "-l",
            "--get-urlmatch",
            "--show-origin",
        ];
        let mut words = self.argv.operands.iter();
        let mut first = words.next();
        let word = first.map(|arg| arg.text.as_str());
        if self.has(&looks) || matches!(word, None | Some("get" | "list")) {
            return self.add(shell, Verb::Read, "config");
        }
        if self.has(&["-e", "--edit"]) || word == Some("edit") {
            return shell.opaque(&self.call.shown);
        }
        let removes = self.has(&["--unset", "--unset-all", "--remove-section"])
            || matches!(word, Some("unset" | "remove-section"));
        if matches!(word, Some("set" | "unset" | "remove-section")) {
            first = words.next();
        }
        match (first, words.next()) {
            _ if removes => self.add(shell, Verb::Update, "config"),
            (Some(key), Some(value)) => {
                set(shell, self.call, &key.text, value);
                self.add(shell, Verb::Update, "config");
            }
            _ => self.add(shell, Verb::Read, "config"),
        }
    }
}
