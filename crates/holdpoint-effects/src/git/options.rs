//! Which options of git's commands take a value. Must never say what an option does.

use crate::data::{Program, Role};
use crate::programs::{Argv, Options};
use crate::words::Arg;

/// Commands, and their options that take a value.
const VALUES: &[(&[&str], &[&str])] = &[
    (
        &["commit"],
        &[
            "-m",
            "--message",
            "-F",
            "--file",
            "-C",
            "-c",
            "--author",
            "--date",
            "--fixup",
            "--squash",
            "--trailer",
        ],
    ),
    (&["push"], &["-o", "--push-option", "--repo", "--receive-pack", "--exec"]),
    (
        &["clone"],
        &[
            "-b",
            "--branch",
            "-o",
            "--origin",
            "-u",
            "--upload-pack",
            "--depth",
            "-c",
            "--config",
            "--template",
            "-j",
            "--reference",
            "--filter",
            "--separate-git-dir",
        ],
    ),
    (&["fetch", "pull", "ls-remote"], &["--upload-pack", "--depth", "-j", "-o"]),
    (&["checkout", "switch"], &["-b", "-B", "-c", "-C", "--orphan"]),
    (&["tag"], &["-m", "-F", "-u", "--sort", "--format", "--points-at", "--contains"]),
    (&["rebase"], &["-x", "--exec", "--onto", "-s", "-X"]),
    (&["merge", "cherry-pick", "revert"], &["-m", "-s", "-X", "-F"]),
    (
        &["log", "show", "diff", "shortlog"],
        &[
            "-n", "--output", "-S", "-G", "--format", "--since", "--until", "--author", "--grep",
            "-L",
        ],
    ),
    (&["grep"], &["-e", "-f", "-A", "-B", "-C", "--max-depth"]),
    (&["archive"], &["-o", "--output", "--format", "--prefix", "--remote", "--exec"]),
    (&["config"], &["-f", "--file", "--blob", "--type", "--default"]),
    (&["stash"], &["-m", "--message"]),
    (&["reset", "restore"], &["-s", "--source", "--pathspec-from-file"]),
    (
        &["branch"],
        &["-u", "--set-upstream-to", "--contains", "--merged", "--no-merged", "--format", "--sort"],
    ),
    (&["worktree"], &["-b", "-B", "--reason"]),
    (
        &["filter-branch"],
        &[
            "--tree-filter",
            "--index-filter",
            "--msg-filter",
            "--env-filter",
            "--commit-filter",
            "--tag-name-filter",
            "--parent-filter",
            "--setup",
        ],
    ),
    (&["difftool", "mergetool"], &["-x", "--extcmd", "-t", "--tool"]),
    (&["clean"], &["-e", "--exclude"]),
    (&["submodule"], &["-b", "--name", "--depth"]),
];

/// Parts the arguments of the command `name`.
pub(super) fn parted(name: &str, args: &[Arg]) -> Argv {
    let known = VALUES.iter().filter(|(names, _)| names.contains(&name));
    let options = known.flat_map(|(_, options)| options.iter());
    let values = options.map(|option| ((*option).to_owned(), Role::Plain));
    // Its value stands right behind it, or there is none.
    let joined = (name == "grep").then(|| ("-O".to_owned(), Role::Joined));
    let values = values.chain(joined).collect();
    let program = Program { values, ..Program::default() };
    Options { program: &program, rule: None }.part(args)
}
