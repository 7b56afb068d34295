//! How git is run: its environment, its configuration, its answers.
//!
//! Owns what keeps a repository from running programs by way of git. Must never put a secret on a
//! command line, nor believe a configuration that it does not know.

use super::Git;
use crate::process::ProcessSpec;
use crate::program::{self, Bounds, ProgramFault, Ran};
use crate::resource::ResourceFault;
use crate::upstream::Cancels;
use std::path::Path;
use std::time::Duration;

/// How long git may take to end once it is asked to: a push tidies up after itself.
const GRACE: Duration = Duration::from_secs(2);

/// Settings that no repository may say otherwise unless the operator trusts its programs.
const FIXED: [&str; 19] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.splitIndex=false",
    "core.sshCommand=",
    "core.gitProxy=",
    "core.askPass=",
    "core.pager=cat",
    "core.editor=false",
    "core.attributesFile=/dev/null",
    "credential.helper=",
    "commit.gpgSign=false",
    "push.gpgSign=false",
    "log.showSignature=false",
    "push.followTags=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.ext.allow=never",
];

/// What a repository's configuration may say: what runs no program and leads nowhere else.
const HARMLESS: [&str; 50] = [
    "advice.*",
    "branch.*.description",
    "branch.*.merge",
    "branch.*.pushremote",
    "branch.*.rebase",
    "branch.*.remote",
    "color.*",
    "core.abbrev",
    "core.autocrlf",
    "core.bare",
    "core.bigfilethreshold",
    "core.checkstat",
    "core.commentchar",
    "core.compression",
    "core.eol",
    "core.filemode",
    "core.ignorecase",
    "core.logallrefupdates",
    "core.loosecompression",
    "core.precomposeunicode",
    "core.preloadindex",
    "core.protecthfs",
    "core.protectntfs",
    "core.quotepath",
    "core.repositoryformatversion",
    "core.safecrlf",
    "core.sharedrepository",
    "core.symlinks",
    "core.trustctime",
    "core.untrackedcache",
    "core.whitespace",
    "extensions.objectformat",
    "extensions.refstorage",
    "extensions.worktreeconfig",
    "fetch.prune",
    "gc.auto",
    "gc.pruneexpire",
    "gc.reflogexpire",
    "init.defaultbranch",
    "pull.ff",
    "pull.rebase",
    "push.autosetupremote",
    "push.default",
    "remote.*.fetch",
    "remote.*.prune",
    "remote.*.tagopt",
    "remote.*.url",
    "submodule.*.url",
    "user.email",
    "user.name",
];

/// What one run of git gets besides its arguments.
#[derive(Debug, Default)]
pub(super) struct Ask<'a> {
    pub(super) input: &'a [u8],
    pub(super) env: Vec<(&'static str, String)>,
    pub(super) cancels: Option<&'a Cancels>,
}

// === impl Ask ===

impl<'a> Ask<'a> {
    pub(super) fn input(input: &'a [u8]) -> Self {
        Self { input, ..Self::default() }
    }

    pub(super) fn watched(cancels: &'a Cancels) -> Self {
        Self { cancels: Some(cancels), ..Self::default() }
    }

    /// The same with another index than the repository's.
    pub(super) fn index(mut self, index: &Path) -> Self {
        self.env.push(("GIT_INDEX_FILE", index.to_string_lossy().into_owned()));
        self
    }
}

// === impl Git ===

impl Git {
    /// Runs git to its end, whatever its status.
    pub(super) async fn run(&self, words: &[&str], ask: &Ask<'_>) -> Result<Ran, ProgramFault> {
        let mut command = vec![self.spec().program.to_string_lossy().into_owned()];
        command.push("--no-pager".to_owned());
        command.push("--literal-pathspecs".to_owned());
        if !self.spec().programs {
            command.extend(FIXED.iter().flat_map(|fixed| ["-c".to_owned(), (*fixed).to_owned()]));
        }
        command.extend(words.iter().map(|word| (*word).to_owned()));
        let process = self.process(command, &ask.env);
        let bounds = self.bounds(self.spec().limits.output_bytes_max);
        let none = Cancels::default();
        let ran = program::run(&process, ask.input, bounds, ask.cancels.unwrap_or(&none)).await?;
        Ok(ran.without(self.spec().env.values()))
    }

    fn bounds(&self, output_bytes_max: usize) -> Bounds {
        Bounds { timeout: self.spec().timeout, output_bytes_max, grace: GRACE }
    }

    fn process(&self, command: Vec<String>, env: &[(&'static str, String)]) -> ProcessSpec {
        let spec = self.spec();
        let cwd = Some(spec.repository.clone());
        let mut process = ProcessSpec { command, cwd, ..ProcessSpec::default() };
        let mut set = |name: &str, value: &str| {
            process.env.insert(name.to_owned(), value.to_owned());
        };
        let above = spec.repository.parent().unwrap_or(&spec.repository).to_string_lossy();
        set("GIT_CEILING_DIRECTORIES", &above);
        set("GIT_ALLOW_PROTOCOL", &spec.transports.join(":"));
        for (name, value) in [
            ("LC_ALL", "C"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_NO_LAZY_FETCH", "1"),
            ("GIT_EDITOR", "false"),
            ("GIT_SSH_COMMAND", "ssh -oBatchMode=yes"),
        ] {
            set(name, value);
        }
        if !spec.programs {
            set("HOME", "/nonexistent");
            set("GIT_CONFIG_GLOBAL", "/dev/null");
            set("GIT_CONFIG_NOSYSTEM", "1");
            set("GIT_ATTR_NOSYSTEM", "1");
        }
        let (name, address) = &spec.author;
        for who in ["AUTHOR", "COMMITTER"] {
            set(&format!("GIT_{who}_NAME"), name);
            set(&format!("GIT_{who}_EMAIL"), address);
        }
        for (name, value) in &spec.env {
            set(name, value.expose());
        }
        for (name, value) in env {
            set(name, value);
        }
        process
    }

    /// Runs git, which must succeed.
    pub(super) async fn git(&self, words: &[&str], ask: &Ask<'_>) -> Result<Ran, ResourceFault> {
        let ran = self.run(words, ask).await.map_err(ResourceFault::from)?;
        if ran.status.success() {
            return Ok(ran);
        }
        let command = words.first().copied().unwrap_or_default();
        Err(ResourceFault::Refused(format!("git {command}: {}", ran.told())))
    }

    /// One line that git says, or `None` if it ends with another status than 0.
    pub(super) async fn line(&self, words: &[&str]) -> Result<Option<String>, ResourceFault> {
        let ran = self.run(words, &Ask::default()).await.map_err(ResourceFault::from)?;
        let line = ran.text().trim_end_matches('\n').to_owned();
        Ok((ran.status.success() && !line.is_empty()).then_some(line))
    }

    /// Refuses a repository whose configuration says what may run a program or lead elsewhere.
    pub(super) async fn check_configuration(&self) -> Result<(), ResourceFault> {
        if self.spec().programs {
            return Ok(());
        }
        // Without our own settings, which would be listed too.
        let mut command = vec![self.spec().program.to_string_lossy().into_owned()];
        command.extend(["config", "--list", "-z", "--name-only"].map(str::to_owned));
        let bounds = self.bounds(1 << 20);
        let process = self.process(command, &[]);
        let ran = program::run(&process, b"", bounds, &Cancels::default()).await?;
        if !ran.status.success() {
            return Err(ResourceFault::Gone(format!("git config: {}", ran.told())));
        }
        match ran.text().split_terminator('\0').find(|key| !is_harmless(key)) {
            None => Ok(()),
            Some(key) => {
                let key: String = key.chars().take(100).collect();
                Err(ResourceFault::Refused(format!(
                    "the repository's configuration sets `{key}`, which may run programs or lead \
                     elsewhere; remove it, or let the operator allow programs"
                )))
            }
        }
    }

    /// The values of one key of the configuration.
    pub(super) async fn configured(&self, key: &str) -> Result<Vec<String>, ResourceFault> {
        let words = ["config", "--get-all", "-z", key];
        let ran = self.run(&words, &Ask::default()).await.map_err(ResourceFault::from)?;
        Ok(ran.text().split_terminator('\0').map(str::to_owned).collect())
    }
}

/// True for a key that is on the list. Git writes sections and names in lower case.
fn is_harmless(key: &str) -> bool {
    HARMLESS.iter().any(|pattern| match pattern.split_once('*') {
        None => key == *pattern,
        Some((start, end)) => {
            let inner = key.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
            inner.is_some_and(|inner| !inner.is_empty())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::is_harmless;

    #[test]
    fn what_may_run_a_program_is_not_harmless() {
        for key in [
            "core.fsmonitor",
            "core.hookspath",
            "core.sshcommand",
            "core.worktree",
            "filter.lfs.clean",
            "include.path",
            "includeif.gitdir:/.path",
            "remote.origin.receivepack",
            "remote.origin.vcs",
            "remote.origin.pushurl",
            "url.ext::sh.insteadof",
            "diff.x.textconv",
            "gc.recentobjectshook",
            "extensions.partialclone",
            "remote.x",
            "branch..merge",
        ] {
            assert!(!is_harmless(key), "{key}");
        }
        for key in ["core.bare", "remote.a.b.url", "branch.x.merge", "advice.detachedHead"] {
            assert!(is_harmless(key), "{key}");
        }
    }
}
