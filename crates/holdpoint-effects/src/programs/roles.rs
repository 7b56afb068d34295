//! What operands and the values of options are: files, folders, commands, hosts.
//!
//! Owns what each role in the tables means. It must never decide which role an argument has.

use super::{Argv, Call, Options};
use crate::data::Role;
use crate::place::Act;
use crate::shell::{Feed, Shell};
use crate::words::Arg;

/// Settings of ssh whose value is a program, a library or a file of more settings.
const SSH_RUNS: &[&str] = &[
    "proxycommand",
    "localcommand",
    "remotecommand",
    "knownhostscommand",
    "pkcs11provider",
    "securitykeyprovider",
    "include",
    "authorizedkeyscommand",
];

/// Schemes of object stores.
const BUCKETS: &[&str] = &["s3", "gs", "az", "oss", "b2"];

/// Adds what the values of options are.
pub(crate) fn option_values(
    shell: &mut Shell<'_>,
    call: &Call<'_>,
    argv: &Argv,
    options: Options<'_>,
) {
    for (name, value) in &argv.options {
        if let (Some(role), Some(value)) = (options.role(name), value) {
            // A key that is only shown, or looked for.
            let shows = ["-l", "-F", "-y", "-B", "-e", "-L"].iter().any(|flag| argv.has(flag));
            let key = call.name == "ssh-keygen" && name == "-f" && shows;
            one(shell, call, if key { Role::Read } else { role }, value);
        }
    }
}

/// True if a move replaces nothing. Of `-n`, `-f`, `-i` and `--update` the last one counts for
/// `mv`, so `-n` is believed only where nothing that could speak against it stands beside it.
fn keeps_target(argv: &Argv) -> bool {
    let keeps = |name: &str| matches!(name, "-n" | "--no-clobber");
    let harmless = |name: &str| matches!(name, "-v" | "--verbose" | "-t" | "--target-directory");
    argv.options.iter().any(|(name, _)| keeps(name))
        && argv.options.iter().all(|(name, _)| keeps(name) || harmless(name))
}

/// Adds what operands are.
pub(super) fn operands(shell: &mut Shell<'_>, call: &Call<'_>, argv: &Argv, role: Role) {
    let deep = &call.program.deep;
    match deep.iter().any(|flag| flag == "*" || argv.has(flag)) {
        true => shell.below(|shell| each_operand(shell, call, argv, role)),
        false => each_operand(shell, call, argv, role),
    }
}

fn each_operand(shell: &mut Shell<'_>, call: &Call<'_>, argv: &Argv, role: Role) {
    let target = target(call, argv);
    match (role, argv.operands.split_last()) {
        (Role::Copy | Role::Move | Role::Mirror, Some((last, first))) => {
            let (from, to) = match &target {
                Some(target) => (argv.operands.as_slice(), target),
                None => (first, last),
            };
            copy(shell, call, role, from, to);
            if role == Role::Mirror && !remote(shell, to, Act::DeleteTree, &call.shown) {
                shell.touch(Act::DeleteTree, to, &call.shown);
            }
            if role == Role::Move && !keeps_target(argv) {
                shell.touch(Act::Replace, to, &format!("may replace: {}", call.shown));
            }
        }
        (Role::Filter, _) => {
            for (at, operand) in argv.operands.iter().enumerate() {
                let role = if at == 1 { Role::Write } else { Role::Read };
                one(shell, call, role, operand);
            }
        }
        _ => {
            for operand in &argv.operands {
                one(shell, call, role, operand);
            }
        }
    }
}

fn target(call: &Call<'_>, argv: &Argv) -> Option<Arg> {
    let options = call.options(None);
    let found = argv.options.iter().find(|(name, _)| options.role(name) == Some(Role::Target));
    found.and_then(|(_, value)| value.clone())
}

fn copy(shell: &mut Shell<'_>, call: &Call<'_>, role: Role, from: &[Arg], to: &Arg) {
    for file in from {
        if remote(shell, file, Act::Read, &call.shown) {
            continue;
        }
        let act = match (role, to.text.as_str()) {
            // What is moved there is gone.
            (Role::Move, "/dev/null") => Act::Delete,
            (Role::Move, _) => Act::Update,
            _ => Act::Read,
        };
        shell.touch(act, file, &call.shown);
    }
    if !remote(shell, to, Act::Write(None), &call.shown) {
        let file = match from {
            // What is put into a folder keeps its name, and the name may mean something.
            [file] if to.text.ends_with('/') || matches!(to.text.as_str(), "." | "..") => {
                let base = file.text.rsplit('/').next().unwrap_or_default();
                Arg { text: format!("{}/{base}", to.text), ..to.clone() }
            }
            _ => to.clone(),
        };
        let empty = from.iter().all(|file| file.text == "/dev/null");
        let contents = empty.then(Arg::default);
        shell.touch(Act::Write(contents), &file, &call.shown);
    }
}

/// Adds an effect on `host:path`, if `file` is one.
fn remote(shell: &mut Shell<'_>, file: &Arg, act: Act, shown: &str) -> bool {
    let Some((host, path)) = file.text.split_once(':') else { return false };
    if host.contains('/') || host.is_empty() {
        return false;
    }
    // A bucket: the address of the call names it.
    if path.starts_with("//") && BUCKETS.contains(&host) {
        return true;
    }
    let host = super::wraps::host_named(shell, host.rsplit('@').next().unwrap_or(host));
    let file = Arg { text: crate::place::normalise(path), ..file.clone() };
    shell.apart(|shell| {
        shell.state.host = host;
        shell.touch(act, &file, shown);
    });
    true
}

/// Adds what one argument in `role` is.
fn one(shell: &mut Shell<'_>, call: &Call<'_>, role: Role, arg: &Arg) {
    let act = match role {
        Role::Plain | Role::Flag | Role::Joined | Role::Folder | Role::Target => return,
        Role::Into => {
            let text = format!("{}/**", arg.text.trim_end_matches('/'));
            let inside = Arg { text, glob: true, ..arg.clone() };
            return shell.touch(Act::Update, &inside, &call.shown);
        }
        Role::Read | Role::Filter => Act::Read,
        Role::Create => Act::Create,
        Role::Write => Act::Write(input(call.feed)),
        Role::Append => Act::Append(input(call.feed)),
        Role::Copy | Role::Move | Role::Mirror | Role::Update => Act::Update,
        Role::Pipe => match arg.text.trim_start().strip_prefix('|') {
            Some(command) => return shell_text(shell, &Arg::known(command)),
            None => Act::Write(None),
        },
        Role::Delete => Act::Delete,
        Role::DeleteTree => Act::DeleteTree,
        Role::Grant => Act::Grant,
        Role::Shell => return shell_text(shell, arg),
        Role::Program => return with_argument(shell, arg),
        Role::Command => return command(shell, arg),
        Role::Code => return shell.opaque(&format!("runs code: {}", call.shown)),
        Role::Mount => return mount(shell, arg),
    };
    if role == Role::Read && remote(shell, arg, Act::Read, &call.shown) {
        return;
    }
    shell.touch(act, arg, &call.shown);
}

fn input(feed: &Feed) -> Option<Arg> {
    match feed {
        Feed::Text(text) => Some(text.clone()),
        Feed::Inherited | Feed::Unknown | Feed::File(_) => None,
    }
}

/// Runs `arg` as the text of a shell.
pub(crate) fn shell_text(shell: &mut Shell<'_>, arg: &Arg) {
    match arg.is_unknown() {
        true => shell.opaque(&format!("a shell runs what is not known: {}", arg.shown())),
        false => shell.apart(|shell| shell.text(&arg.text)),
    }
}

/// Runs `arg` as the text of a shell, with an argument that is not known behind it.
pub(crate) fn with_argument(shell: &mut Shell<'_>, arg: &Arg) {
    shell_text(shell, &Arg { text: format!("{} \"$ARGUMENT\"", arg.text), ..arg.clone() });
}

/// Runs a program that an option names; pagers and the like do nothing.
fn command(shell: &mut Shell<'_>, arg: &Arg) {
    let setting = arg.text.trim_start();
    let letters = setting.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(setting.len());
    let (key, value) = setting.split_at(letters);
    // `ssh -o Key=value`: a few keys name what runs.
    if value.trim_start().starts_with('=') || SSH_RUNS.contains(&key.to_lowercase().as_str()) {
        let value = value.trim_start_matches([' ', '=', '\t']);
        if SSH_RUNS.contains(&key.to_lowercase().as_str()) && value != "none" {
            shell_text(shell, &Arg { text: value.to_owned(), ..arg.clone() });
        }
        return;
    }
    let first = arg.text.split_whitespace().next().unwrap_or_default();
    let plain = crate::data::environment().plain.contains(first);
    if !plain || arg.text.contains("Command") {
        shell_text(shell, arg);
        with_argument(shell, arg);
    }
}

/// A folder of the host that a container gets: it can do there what it likes.
fn mount(shell: &mut Shell<'_>, arg: &Arg) {
    let spec = arg
        .text
        .split(',')
        .find_map(|part| part.strip_prefix("source=").or_else(|| part.strip_prefix("src=")));
    let source = spec.or_else(|| arg.text.split(':').next()).unwrap_or_default();
    let read_only = arg.text.ends_with(":ro") || arg.text.contains("readonly");
    if !source.starts_with(['/', '.', '~', crate::words::UNKNOWN]) {
        return;
    }
    let source = Arg { text: source.to_owned(), ..arg.clone() };
    let path = shell.spot().path(&source);
    let inside = shell.spot().in_workspace(&path).is_some();
    match (read_only, inside) {
        (true, _) => shell.touch(Act::Read, &source, "a container reads it"),
        (false, true) => shell.touch(Act::Update, &source, "a container changes it"),
        (false, false) => {
            shell.touch(Act::Grant, &source, "a container gets a folder of the host");
        }
    }
}
