//! Programs whose arguments are a language of their own: shells, `find`, `sed`, `tar`, `dd`,
//! `chmod` and `make`.
//!
//! Owns where such a language runs commands or writes files. What it cannot read is opaque.

use super::{Call, Looks, awk, interpreters, option_values, unlisted};
use crate::data::Reader;
use crate::place::Act;
use crate::shell::{Feed, Shell};
use crate::words::{Arg, UNKNOWN};
use holdpoint_types::{Certainty, Effect, Verb};

/// What `make` and `npm run` are asked for all day: the workspace's own checks.
pub(super) const CHECKS: &[&str] = &[
    "test",
    "tests",
    "check",
    "lint",
    "build",
    "fmt",
    "format",
    "all",
    "typecheck",
    "help",
    "package",
    "verify",
    "compile",
    "assemble",
    "classes",
    "dependencies",
    "tasks",
    "projects",
    "validate",
    "docs",
    "doc",
    "bench",
    "unit",
    "coverage",
    "info",
    "query",
    "spec",
    "vet",
    "dependency",
];

/// Words of `find` that take another, and look.
const TAKING: &[&str] = &[
    "-name",
    "-iname",
    "-path",
    "-ipath",
    "-wholename",
    "-iwholename",
    "-regex",
    "-iregex",
    "-lname",
    "-ilname",
    "-mtime",
    "-atime",
    "-ctime",
    "-mmin",
    "-amin",
    "-cmin",
    "-newer",
    "-anewer",
    "-cnewer",
    "-newermt",
    "-newerat",
    "-newerct",
    "-newermm",
    "-newerBt",
    "-size",
    "-type",
    "-xtype",
    "-user",
    "-group",
    "-uid",
    "-gid",
    "-perm",
    "-maxdepth",
    "-mindepth",
    "-links",
    "-inum",
    "-samefile",
    "-fstype",
    "-printf",
    "-regextype",
    "-used",
    "-context",
    "-D",
    "-Bmin",
    "-Btime",
    "-depth-",
    "-flags",
];
/// Other words of `find` that only look.
const FINDING: &[&str] = &[
    "-print",
    "-print0",
    "-ls",
    "-prune",
    "-quit",
    "-not",
    "-a",
    "-and",
    "-o",
    "-or",
    "-empty",
    "-depth",
    "-d",
    "-xdev",
    "-mount",
    "-follow",
    "-H",
    "-L",
    "-P",
    "-readable",
    "-writable",
    "-executable",
    "-nouser",
    "-nogroup",
    "-true",
    "-false",
    "-daystart",
    "-warn",
    "-nowarn",
    "-noleaf",
    "-ignore_readdir_race",
    "-noignore_readdir_race",
    "-help",
    "--help",
    "--version",
    "-version",
    "-O0",
    "-O1",
    "-O2",
    "-O3",
    "-E",
    "-X",
    "-x",
    "-s",
    "-sparse",
    "-acl",
    "-f",
];

pub(super) fn run(shell: &mut Shell<'_>, call: &Call<'_>, reader: Reader) {
    match reader {
        Reader::Shell => inner_shell(shell, call),
        Reader::Find => find(shell, call),
        Reader::Sed => sed(shell, call),
        Reader::Awk => awk::awk(shell, call),
        Reader::Tar => tar(shell, call),
        Reader::Dd => dd(shell, call),
        Reader::Chmod => chmod(shell, call),
        Reader::Interpreter => interpreters::interpreter(shell, call),
        Reader::Make => make(shell, call),
        Reader::Git
        | Reader::Curl
        | Reader::Wget
        | Reader::Httpie
        | Reader::Sql
        | Reader::Kubectl => {}
    }
}

/// `sh -c text`, `sh file`, and `sh` that reads its input.
fn inner_shell(shell: &mut Shell<'_>, call: &Call<'_>) {
    let options = call.options(None);
    let argv = options.part_until(call.args, 0);
    if argv.has("--version") || argv.has("--help") {
        return;
    }
    if argv.has("--init-file") || argv.has("--rcfile") {
        return shell.opaque(&call.shown);
    }
    let (first, rest) = match argv.rest.split_first() {
        Some((first, rest)) => (Some(first), rest),
        None => (None, argv.rest.as_slice()),
    };
    match (first, argv.has("-c"), call.feed) {
        (Some(text), true, _) if !text.is_unknown() => shell.apart(|shell| {
            shell.state.positional = rest.get(1..).unwrap_or_default().to_vec();
            let name = rest.first().cloned().unwrap_or_else(|| Arg::known("sh"));
            shell.state.variables.insert("0".to_owned(), name);
            shell.text(&text.text);
        }),
        (Some(file), false, Feed::Text(text))
            if argv.has("-s") || file.text == "-" || file.text == "/dev/stdin" =>
        {
            shell.apart(|shell| {
                let given = if argv.has("-s") { argv.rest.as_slice() } else { rest };
                shell.state.positional = given.to_vec();
                input_text(shell, call, text);
            });
        }
        (None, false, Feed::Text(text)) => input_text(shell, call, text),
        (Some(file), false, _) if file.text.starts_with("/dev/fd/") => {
            match shell.state.processes.last().cloned() {
                Some(text) => input_text(shell, call, &text),
                None => shell.opaque(&call.shown),
            }
        }
        // `sh -n` reads and does not run.
        _ if argv.has("-n") => {}
        _ => shell.opaque(&format!("a shell runs what is not seen: {}", call.shown)),
    }
}

fn input_text(shell: &mut Shell<'_>, call: &Call<'_>, text: &Arg) {
    match text.is_unknown() {
        true => shell.opaque(&format!("a shell reads what is not known: {}", call.shown)),
        false => shell.apart(|shell| shell.text(&text.text)),
    }
}

/// `find`: where it starts, and what it does with what it finds.
fn find(shell: &mut Shell<'_>, call: &Call<'_>) {
    let expression = |arg: &Arg| arg.text.starts_with(['-', '(', '!', ')']);
    let skipped = |arg: &Arg| matches!(arg.text.as_str(), "-H" | "-L" | "-P");
    let args: Vec<&Arg> = call.args.iter().skip_while(|arg| skipped(arg)).collect();
    let starts: Vec<Arg> =
        args.iter().take_while(|arg| !expression(arg)).map(|arg| (*arg).clone()).collect();
    let starts = if starts.is_empty() { vec![Arg::known(".")] } else { starts };
    if args.iter().any(|arg| arg.starts_unknown() && arg.loose) {
        shell.opaque(&format!("options that are not known: {}", call.shown));
    }
    let narrowed = args.iter().any(|arg| {
        matches!(
            arg.text.as_str(),
            "-name"
                | "-iname"
                | "-path"
                | "-mtime"
                | "-mmin"
                | "-size"
                | "-newer"
                | "-regex"
                | "-user"
        )
    });
    for start in &starts {
        shell.touch(Act::Read, start, &call.shown);
    }
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.text.as_str() {
            "-delete" => {
                for start in &starts {
                    match narrowed {
                        true => shell.touch(Act::Delete, &below(start), &call.shown),
                        false => shell.touch(Act::DeleteTree, start, &call.shown),
                    }
                }
            }
            "-exec" | "-execdir" | "-ok" | "-okdir" => {
                let ends = |arg: &&&Arg| !matches!(arg.text.as_str(), ";" | "+");
                let command: Vec<&Arg> = rest.by_ref().take_while(ends).copied().collect();
                for start in &starts {
                    found(shell, &command, &below(start));
                }
            }
            "-fprint" | "-fprint0" | "-fls" | "-fprintf" => {
                if let Some(file) = rest.next() {
                    shell.touch(Act::Write(None), file, &call.shown);
                }
            }
            word if TAKING.contains(&word) => drop(rest.next()),
            word if word.starts_with('-') && !FINDING.contains(&word) => {
                shell.opaque(&format!("`{word}` is not a known option of `find`: {}", call.shown));
            }
            _ => {}
        }
    }
}

/// What `find` finds: names below where it starts.
fn below(start: &Arg) -> Arg {
    let text = format!("{}/**", start.text.trim_end_matches('/'));
    Arg { text, glob: true, loose: false }
}

/// Runs the command of `-exec` on what is found.
fn found(shell: &mut Shell<'_>, command: &[&Arg], found: &Arg) {
    let put = |arg: &&Arg| match arg.text.contains("{}") {
        true => Arg { text: arg.text.replace("{}", &found.text), ..found.clone() },
        false => (*arg).clone(),
    };
    let inner: Vec<Arg> = command.iter().map(put).collect();
    shell.maybe(|shell| shell.run(&inner, &Feed::Unknown));
}

/// `sed`: in place, and scripts that write or run.
fn sed(shell: &mut Shell<'_>, call: &Call<'_>) {
    let options = call.options(None);
    let argv = options.part(call.args);
    unlisted(shell, call, &argv, Looks::Only);
    let mut scripts: Vec<Arg> = Vec::new();
    for (name, value) in &argv.options {
        match (name.as_str(), value) {
            ("-e" | "--expression", Some(script)) => scripts.push(script.clone()),
            ("-f" | "--file", _) => return shell.opaque(&call.shown),
            _ => {}
        }
    }
    let mut files = argv.operands.as_slice();
    if scripts.is_empty() {
        let Some((script, rest)) = files.split_first() else { return };
        scripts.push(script.clone());
        files = rest;
    }
    // `-i.bak` is a cluster whose letters are no options.
    let in_place = call.args.iter().any(|arg| {
        let text = arg.text.as_str();
        text.starts_with("--in-place")
            || text.starts_with("-i")
            || text.starts_with('-')
                && !text.starts_with("--")
                && text.trim_start_matches(['-', 'n', 'E', 'r', 's', 'u', 'z']).starts_with('i')
    });
    let in_place = in_place || argv.has("-i") || argv.has("--in-place");
    let sandboxed = argv.has("--sandbox");
    if scripts.iter().any(|script| !sandboxed && sed_acts(&script.text)) {
        shell.opaque(&format!("a sed script reads, writes or runs: {}", call.shown));
    }
    for file in files {
        let act = if in_place { Act::Write(None) } else { Act::Read };
        shell.touch(act, file, &call.shown);
    }
}

/// True if a sed script may run a command, or read or write a file: the commands `e`, `r`, `R`,
/// `w`, `W`, and the flags `e` and `w` of `s`.
fn sed_acts(script: &str) -> bool {
    script.starts_with(UNKNOWN) || script.lines().any(sed_line_acts)
}

fn sed_line_acts(line: &str) -> bool {
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches(|c: char| {
            c.is_ascii_digit() || c.is_whitespace() || ",;$!{}~+".contains(c)
        });
        let mut chars = rest.chars();
        let Some(command) = chars.next() else { return false };
        let after = chars.as_str();
        rest = match command {
            'e' | 'w' | 'W' => return true,
            // An address, with flags of its own.
            '/' => sed_part(after, '/', true).trim_start_matches(['I', 'M']),
            '\\' => match chars.next() {
                Some(end) => sed_part(chars.as_str(), end, true).trim_start_matches(['I', 'M']),
                None => return false,
            },
            's' | 'y' => {
                let Some(end) = chars.next() else { return false };
                let after = sed_part(sed_part(chars.as_str(), end, command == 's'), end, false);
                let flags = after.split([';', '}']).next().unwrap_or_default();
                if command == 's' && flags.contains(['e', 'w']) {
                    return true;
                }
                after.get(flags.len()..).unwrap_or_default()
            }
            // It reads a file that is named nowhere else.
            'r' | 'R' => return true,
            // What follows is text.
            'a' | 'i' | 'c' | '#' => return false,
            ':' | 'b' | 't' | 'T' => {
                let label = after.find([';', '}']).unwrap_or(after.len());
                after.get(label..).unwrap_or_default()
            }
            _ => after,
        };
    }
}

/// What follows a part of a sed command that goes to `end`; in a pattern, `[…]` may hold that.
fn sed_part(text: &str, end: char, is_pattern: bool) -> &str {
    let mut chars = text.chars();
    let mut bracket = 0_usize;
    while let Some(char) = chars.next() {
        match char {
            '\\' if bracket == 0 => {
                chars.next();
            }
            '[' if is_pattern && bracket == 0 => bracket = 1,
            // The first one inside, or after `^`, is one of the characters.
            ']' if bracket > 1 => bracket = 0,
            '^' if bracket == 1 => {}
            _ if bracket > 0 => bracket += 1,
            char if char == end => return chars.as_str(),
            _ => {}
        }
    }
    ""
}

fn tar(shell: &mut Shell<'_>, call: &Call<'_>) {
    let mut args = call.args.to_vec();
    // The first word may be options without a dash.
    if let Some(first) = args.first_mut()
        && !first.text.starts_with('-')
    {
        first.text = format!("-{}", first.text);
    }
    let options = call.options(None);
    let argv = options.part(&args);
    unlisted(shell, call, &argv, Looks::Only);
    option_values(shell, call, &argv, options);
    let runs = [
        "--checkpoint-action",
        "--to-command",
        "--use-compress-program",
        "-I",
        "--info-script",
        "--new-volume-script",
        "-F",
        "--rmt-command",
        "--rsh-command",
    ];
    if runs.iter().any(|name| argv.has(name))
        || args.iter().any(|arg| arg.starts_unknown() && arg.loose)
    {
        shell.opaque(&format!("an option of tar runs code: {}", call.shown));
    }
    let archive = argv.value("-f").or_else(|| argv.value("--file")).cloned();
    let archive = archive.unwrap_or_else(|| Arg::known("-"));
    let folder = argv.value("-C").or_else(|| argv.value("--directory")).cloned();
    let folder = folder.unwrap_or_else(|| Arg::known("."));
    if argv.has("-x") || argv.has("--extract") || argv.has("--get") {
        shell.touch(Act::Read, &archive, &call.shown);
        if argv.has("-O") || argv.has("--to-stdout") {
            return;
        }
        let absolute = argv.has("-P") || argv.has("--absolute-names");
        let into = if absolute { Arg::known("/") } else { folder };
        let into = Arg {
            text: format!("{}/**", into.text.trim_end_matches('/')),
            glob: true,
            loose: false,
        };
        shell.touch(Act::Update, &into, &call.shown);
    } else if argv.has("-t") || argv.has("--list") {
        shell.touch(Act::Read, &archive, &call.shown);
    } else {
        shell.touch(Act::Write(None), &archive, &call.shown);
        for file in &argv.operands {
            let act = if argv.has("--remove-files") { Act::DeleteTree } else { Act::Read };
            shell.touch(act, file, &call.shown);
        }
    }
}

fn dd(shell: &mut Shell<'_>, call: &Call<'_>) {
    for arg in call.args {
        match arg.text.split_once('=') {
            Some(("if", file)) => {
                shell.touch(Act::Read, &Arg { text: file.to_owned(), ..arg.clone() }, &call.shown)
            }
            Some(("of", file)) => shell.touch(
                Act::Write(None),
                &Arg { text: file.to_owned(), ..arg.clone() },
                &call.shown,
            ),
            _ if arg.starts_unknown() => {
                shell.opaque(&format!("arguments not known: {}", call.shown))
            }
            _ => {}
        }
    }
}

/// `chmod`: for everybody, with the rights of the owner, or a plain change.
fn chmod(shell: &mut Shell<'_>, call: &Call<'_>) {
    let mut argv = call.options(None).part(call.args);
    // `chmod -x file`: a mode that looks like an option.
    let minus = call.args.iter().any(|arg| {
        arg.text.strip_prefix('-').is_some_and(|mode| mode.chars().all(|c| "rwxXst".contains(c)))
    });
    let mode = match (minus || argv.has("--reference"), argv.operands.is_empty()) {
        (true, _) | (_, true) => Arg::default(),
        (false, false) => argv.operands.remove(0),
    };
    let digits = mode.text.trim_start_matches('0');
    let octal = !digits.is_empty() && digits.chars().all(|c| c.is_digit(8));
    let world = digits.chars().last().and_then(|c| c.to_digit(8)).unwrap_or_default();
    let symbolic = mode.text.split(',').any(|part| {
        let who = part.split(['+', '=']).next().unwrap_or_default();
        let what = part.split(['+', '=']).nth(1).unwrap_or_default();
        what.contains('w') && who.contains(['o', 'a']) || what.contains('s')
    });
    let wide = octal && (world & 2 != 0 || digits.len() == 4 && !digits.starts_with('1'))
        || symbolic
        || mode.is_unknown();
    let touch = |shell: &mut Shell<'_>| {
        for file in &argv.operands {
            let act = if wide { Act::Grant } else { Act::Update };
            shell.touch(act, file, &call.shown);
        }
    };
    match argv.has("-R") || argv.has("--recursive") {
        true => shell.below(touch),
        false => touch(shell),
    }
}

/// True for a target that only checks or builds, by its name, and for a variable that is a word.
fn is_check(word: &str, one_dash: bool) -> bool {
    if let Some((name, value)) = word.split_once('=') {
        let named = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let plain = value.chars().all(|c| c.is_ascii_alphanumeric() || "._:/@+-,".contains(c));
        let tool = ["CC", "CXX", "LD", "AR", "AS", "MAKE", "SHELL", "MAKEFLAGS", "RM", "PYTHON"];
        return !one_dash && named && plain && !tool.contains(&name) && !value.contains('/');
    }
    let mut parts = word.split([':', '-', '_', '.']);
    let first = parts.next().unwrap_or_default();
    let more = parts.clone().next().is_some();
    let bare = ["test", "tests", "lint", "check", "build", "fmt", "format", "typecheck", "docs"];
    let known = CHECKS.contains(&word)
        || CHECKS.contains(&first) && (one_dash && word.contains(':') || bare.contains(&first));
    let acts = [
        "deploy", "publish", "release", "push", "prod", "clean", "destroy", "install", "migrate",
        "image", "apply", "upload", "delete", "reset", "run",
    ];
    known && !(more && parts.any(|part| acts.contains(&part)))
}

/// `make` runs what the workspace says; its checks are what people ask for all day.
fn make(shell: &mut Shell<'_>, call: &Call<'_>) {
    let options = call.options(None);
    let argv = options.part(call.args);
    option_values(shell, call, &argv, options);
    let known = |word: &Arg| {
        let exact = word.exact();
        let target =
            call.program.one_dash && ["//", ":"].iter().any(|start| word.text.starts_with(start));
        target || exact.is_some_and(|word| is_check(word, call.program.one_dash))
    };
    let files = ["-f", "--file", "--makefile", "--eval", "-b"].iter().any(|name| argv.has(name));
    let folders = ["-C", "--directory"].iter().filter_map(|name| argv.value(name));
    let here = folders.into_iter().all(|folder| {
        let path = shell.spot().path(folder);
        shell.spot().in_workspace(&path).is_some()
    });
    let dry = ["-n", "--dry-run", "--just-print", "--recon"].iter().any(|name| argv.has(name));
    let dry = dry && !call.program.one_dash;
    if files || !here || !dry && !argv.operands.iter().all(known) {
        return shell.opaque(&format!("runs what a file says: {}", call.shown));
    }
    let effect = Effect::new(Verb::Execute, "file:///*", call.shown.as_str());
    shell.add(effect.no_surer_than(Certainty::Bounded));
}
