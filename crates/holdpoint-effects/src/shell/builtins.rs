//! What bash does itself: variables, folders, `eval`, `trap`, `echo` and their kin.
//!
//! Owns which variables change what programs are. It must never run a builtin as a program.

use super::run::{Feed, Shell};
use crate::data::environment;
use crate::place::{Act, normalise};
use crate::programs;
use crate::words::{Arg, UNKNOWN, line};

/// Builtins that only change the shell, or look.
const HARMLESS: &[&str] = &[
    "false", "return", "exit", "break", "continue", "wait", "shopt", "ulimit", "umask", "jobs",
    "fg", "bg", "disown", "type", "dirs", "times", "logout", "caller", "help", "suspend",
];
/// Builtins that take the name of a variable or an expression.
const NAMING: &[&str] =
    &["test", "[", "unset", "read", "mapfile", "readarray", "getopts", "let", "unalias"];

/// What `SHELL` may be.
const SHELLS: &[&str] = &[
    "/bin/sh",
    "/bin/bash",
    "/bin/zsh",
    "/usr/bin/sh",
    "/usr/bin/bash",
    "/usr/bin/zsh",
    "bash",
    "sh",
    "zsh",
];

// === impl Shell ===

impl Shell<'_> {
    pub(super) fn dispatch(&mut self, name: &str, all: &[Arg], feed: &Feed) -> Option<Arg> {
        let rest = all.get(1..).unwrap_or_default();
        match name {
            ":" | "true" => return Some(Arg::default()),
            name if HARMLESS.contains(&name) => {}
            "mapfile" | "readarray" if rest.iter().any(|arg| arg.text.starts_with("-C")) => {
                self.opaque("each line that is read runs a command");
            }
            // It reads and writes files, and expands what it is given.
            "history" if rest.iter().any(|arg| arg.text.parse::<u32>().is_err()) => {
                self.opaque("`history` with an option");
            }
            "history" => {}
            name if NAMING.contains(&name) => self.naming(name, rest),
            "echo" => return Some(echo(rest)),
            "printf" => return self.printf(rest),
            "pwd" => return self.state.cwd.clone().map(Arg::known),
            "cat" if rest.is_empty() => return output_of(feed),
            "cat" if rest.iter().all(|arg| arg.text == "/dev/null") => return Some(Arg::default()),
            "cd" | "pushd" => self.change_folder(rest),
            "popd" => self.state.cwd = None,
            "export" | "declare" | "typeset" | "local" | "readonly" => self.declare(rest),
            "alias" => self.define_aliases(rest),
            "eval" => self.eval(rest),
            "source" | "." => self.source(rest, feed),
            "exec" | "builtin" => return self.run_rest(rest, feed),
            "command" if rest.iter().any(|arg| arg.text == "-v" || arg.text == "-V") => {}
            "command" => return self.run_rest(rest, feed),
            "trap" => self.trap(rest),
            "set" => self.set(rest),
            "shift" => {
                self.state.positional =
                    self.state.positional.split_off(1.min(self.state.positional.len()))
            }
            "hash" | "enable" | "bind" | "complete" | "compgen" => self.registers(rest),
            _ => return self.program(name, all, feed),
        }
        None
    }

    fn program(&mut self, name: &str, all: &[Arg], feed: &Feed) -> Option<Arg> {
        if let Some(why) = self.state.tainted {
            self.opaque(why);
        }
        programs::run(self, name, all, feed)
    }

    /// The index of an array is arithmetic, and arithmetic can run commands.
    pub(super) fn array_indexes(&mut self, arguments: &[Arg]) {
        if arguments.iter().any(|arg| arg.text.contains("[$(") || arg.text.contains("[`")) {
            self.opaque("a command in the index of an array");
        }
    }

    fn naming(&mut self, name: &str, rest: &[Arg]) {
        self.array_indexes(rest);
        let value = if name == "unset" { Arg::default() } else { Arg::unknown() };
        if matches!(name, "test" | "[") {
            return;
        }
        if name == "unalias" {
            return self.state.aliases.clear();
        }
        for arg in rest.iter().filter(|arg| !arg.text.starts_with('-')) {
            let name: String =
                arg.text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            self.state.variables.insert(name, value.clone());
        }
    }

    fn change_folder(&mut self, rest: &[Arg]) {
        let target =
            rest.iter().find(|arg| !matches!(arg.text.as_str(), "-P" | "-L" | "--" | "-e"));
        let searched = self.state.variables.get("CDPATH").is_some_and(|path| !path.text.is_empty());
        self.state.cwd = match target {
            // `CDPATH`: another folder of that name may be meant.
            Some(target) if searched && !target.text.starts_with(['/', '.']) => None,
            None => self.place.home.clone(),
            Some(target)
                if target.text == "-" || target.is_unknown() && target.starts_unknown() =>
            {
                None
            }
            Some(target) => {
                let path = self.spot().path(target);
                path.rooted.then_some(path.text)
            }
        };
    }

    fn declare(&mut self, rest: &[Arg]) {
        self.array_indexes(rest);
        for arg in rest.iter().filter(|arg| !arg.text.starts_with('-')) {
            match arg.text.split_once('=') {
                Some((name, value)) => {
                    let name = name.trim_end_matches('+').to_owned();
                    self.assign(&name, Arg::known(value));
                }
                None if arg.is_unknown() => self.opaque("a variable of an unknown name is set"),
                None => {}
            }
        }
    }

    fn define_aliases(&mut self, rest: &[Arg]) {
        for arg in rest {
            if let Some((name, text)) = arg.text.split_once('=') {
                self.state.aliases.insert(name.to_owned(), Arg::known(text));
            }
        }
    }

    fn eval(&mut self, rest: &[Arg]) {
        let text: Vec<&str> = rest.iter().map(|arg| arg.text.as_str()).collect();
        let text = text.join(" ");
        match text.contains(UNKNOWN) {
            true => self.opaque(&format!("`eval` of what is not known: {}", line(rest))),
            false => self.text(&text),
        }
    }

    fn source(&mut self, rest: &[Arg], feed: &Feed) {
        let Some(file) = rest.first() else { return };
        let path = self.spot().path(file);
        let known = environment().sourced.iter().any(|known| known.fits(&path.text));
        match (file.text.as_str(), feed) {
            ("/dev/stdin" | "/dev/fd/0", Feed::Text(text)) if !text.is_unknown() => {
                let text = text.text.clone();
                self.text(&text);
            }
            ("/dev/fd/63", _) => match self.state.processes.last().cloned() {
                Some(text) if !text.is_unknown() => self.text(&text.text),
                _ => self.opaque("sources what a command prints"),
            },
            _ if known && !file.is_unknown() => {}
            _ => self.opaque(&format!("sources `{}`", file.shown())),
        }
    }

    fn run_rest(&mut self, rest: &[Arg], feed: &Feed) -> Option<Arg> {
        let mut rest = rest;
        while let Some((first, others)) = rest.split_first() {
            rest = match first.text.as_str() {
                "-a" => others.get(1..).unwrap_or_default(),
                "-c" | "-l" | "-p" | "--" | "-cl" | "-lc" => others,
                _ => break,
            };
        }
        let (first, _) = rest.split_first()?;
        match first.exact() {
            // Neither aliases nor functions stand in the way of what follows.
            Some(name) => self.dispatch(name, rest, feed),
            None => self.run(rest, feed),
        }
    }

    fn trap(&mut self, rest: &[Arg]) {
        let Some(first) = rest.iter().find(|arg| arg.text != "--") else { return };
        match first.text.as_str() {
            "-" | "" | "-p" | "-l" => {}
            _ if first.is_unknown() => self.opaque("a trap that is not known"),
            text => self.maybe(|shell| shell.text(text)),
        }
    }

    fn set(&mut self, rest: &[Arg]) {
        let plain = rest.first().is_some_and(|arg| !arg.text.starts_with(['-', '+']));
        let from = match rest.iter().position(|arg| arg.text == "--") {
            Some(at) => at + 1,
            None if plain => 0,
            None => return,
        };
        self.state.positional = rest.get(from..).unwrap_or_default().to_vec();
    }

    fn registers(&mut self, rest: &[Arg]) {
        let runs = |arg: &Arg| {
            arg.is_unknown() || matches!(arg.text.as_str(), "-p" | "-f" | "-x" | "-C" | "-F")
        };
        if rest.iter().any(runs) {
            self.opaque("a command is given another meaning");
        }
    }

    fn printf(&mut self, rest: &[Arg]) -> Option<Arg> {
        self.array_indexes(rest);
        let (format, values) = match rest {
            [flag, name, rest @ ..] if flag.text == "-v" => {
                self.state.variables.insert(name.text.clone(), Arg::unknown());
                return rest.first().and(None);
            }
            [dashes, format, values @ ..] if dashes.text == "--" => (format, values),
            [format, values @ ..] => (format, values),
            [] => return None,
        };
        Some(Arg::known(formatted(&format.text, values)))
    }

    /// Sets a variable. Some variables change what programs are.
    pub(crate) fn assign(&mut self, name: &str, value: Arg) {
        let environment = environment();
        if name == "PATH" {
            if !self.path_is_sound(&value.text) {
                self.state.tainted = Some("`PATH` was changed: programs may not be what they seem");
            }
        } else if environment.loaders.contains(name)
            || environment.loading.iter().any(|start| name.starts_with(start.as_str()))
            || environment.code.contains(name) && !self.is_own_code(&value.text)
        {
            self.state.tainted = Some("a variable makes programs load other code");
        } else if name == "SHELL" && !SHELLS.contains(&value.text.as_str()) {
            self.opaque(&format!("`SHELL` makes programs run `{}`", value.shown()));
        } else if matches!(name, "LESS" | "MORE") && acts_on_files(&value.text) {
            self.opaque(&format!("`{name}` makes a pager do `{}`", value.shown()));
        } else if environment.commands.contains(name) && !self.is_plain_command(&value) {
            match value.text.strip_prefix("ssh ").filter(|_| !value.is_unknown()) {
                // How to reach a host is a matter of the options alone.
                Some(options) => {
                    let text = format!("ssh {options} host true");
                    self.apart(|shell| shell.text(&text));
                }
                None => {
                    let evidence = format!("`{name}` makes programs run `{}`", value.shown());
                    self.opaque(&evidence);
                }
            }
        }
        if name.starts_with("GIT_TRACE") && value.text.starts_with('/') {
            self.touch(Act::Append(None), &value, "git writes its trace there");
        }
        self.state.variables.insert(name.to_owned(), value);
    }

    fn is_plain_command(&self, value: &Arg) -> bool {
        let mut words = value.text.split_whitespace();
        let first = words.next().unwrap_or_default();
        let plain = environment().plain.contains(first);
        plain
            && !value.is_unknown()
            && words.all(|word| word.starts_with('-') && !word.contains("Command"))
    }

    /// True if all of these folders lie in the workspace.
    fn is_own_code(&self, value: &str) -> bool {
        let own = |folder: &str| {
            let kept = folder.starts_with(UNKNOWN) && folder.chars().count() == 1;
            let path = self.spot().path(&Arg::known(folder));
            let relative = !folder.starts_with(['/', UNKNOWN]) && !folder.contains("..");
            let here = self.state.cwd == self.place.cwd;
            kept || relative && here || self.spot().in_workspace(&path).is_some()
        };
        value.split(':').all(own)
    }

    /// True if what comes before the old `PATH` holds no folder that just anybody writes to.
    fn path_is_sound(&self, value: &str) -> bool {
        let home = self.place.home.as_deref().unwrap_or("/nowhere");
        let sound = &environment().path;
        for folder in value.split(':') {
            if folder.starts_with(UNKNOWN) && folder.chars().count() == 1 {
                return true;
            }
            let path = normalise(folder);
            let inside = |trusted: &String| {
                let trusted = trusted.replacen('~', home, 1);
                path == trusted
                    || path.strip_prefix(&trusted).is_some_and(|rest| rest.starts_with('/'))
            };
            if !folder.starts_with('/') || !sound.iter().any(inside) {
                return false;
            }
        }
        true
    }
}

/// True if options of a pager run commands, or write a file.
fn acts_on_files(options: &str) -> bool {
    options.contains(['+', '!', '|', UNKNOWN])
        || options.split_whitespace().any(|word| match word.strip_prefix("--") {
            Some(long) => ["lo", "LO", "le", "tag"].iter().any(|start| long.starts_with(start)),
            None => word.contains(['o', 'O', 'k', 't', 'T']),
        })
}

/// What `printf` prints: the format is used again until no value is left.
fn formatted(format: &str, values: &[Arg]) -> String {
    let mut values = values.iter();
    let mut text = String::new();
    loop {
        let left = values.len();
        let mut rest = format;
        while let Some((before, after)) = rest.split_once('%') {
            text.push_str(&unescape(before));
            let mut after = after.chars();
            match after.next() {
                Some('s') => text.push_str(values.next().map_or("", |value| &value.text)),
                Some('d' | 'i') => text.push_str(values.next().map_or("0", |value| &value.text)),
                Some('b') => {
                    text.push_str(&unescape(values.next().map_or("", |value| &value.text)));
                }
                Some('%') => text.push('%'),
                _ => {
                    values.next();
                    text.push(UNKNOWN);
                }
            }
            rest = after.as_str();
        }
        text.push_str(&unescape(rest));
        if values.len() == 0 || values.len() == left {
            return text;
        }
    }
}

/// What a command that only hands its input on prints.
fn output_of(feed: &Feed) -> Option<Arg> {
    match feed {
        Feed::Text(text) => Some(text.clone()),
        Feed::Inherited | Feed::Unknown | Feed::File(_) => None,
    }
}

fn echo(rest: &[Arg]) -> Arg {
    let mut escapes = false;
    let mut rest = rest;
    while let Some((first, others)) = rest.split_first() {
        let flag = first.text.strip_prefix('-').is_some_and(|flags| {
            !flags.is_empty() && flags.chars().all(|c| matches!(c, 'n' | 'e' | 'E'))
        });
        if !flag {
            break;
        }
        escapes |= first.text.contains('e');
        rest = others;
    }
    let texts: Vec<&str> = rest.iter().map(|arg| arg.text.as_str()).collect();
    let mut text = texts.join(" ");
    if escapes {
        text = unescape(&text);
    }
    text.push('\n');
    // A wildcard stands for names that are not known.
    let glob = rest.iter().any(|arg| arg.glob);
    Arg::known(if glob { text.replace(['*', '?'], &UNKNOWN.to_string()) } else { text })
}

/// The escapes of `echo -e` and `printf`.
fn unescape(text: &str) -> String {
    let mut done = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            done.push(c);
            continue;
        }
        let (radix, digits) = match chars.next() {
            Some('n') => {
                done.push('\n');
                continue;
            }
            Some('t') => {
                done.push('\t');
                continue;
            }
            Some('x') => (16, 2),
            Some('0') => (8, 3),
            Some(c @ '1'..='7') => {
                let digit = c.to_digit(8).unwrap_or_default();
                done.extend(number(&mut chars, 8, 2, digit));
                continue;
            }
            Some('c') | None => return done,
            Some(c) => {
                done.push(c);
                continue;
            }
        };
        done.extend(number(&mut chars, radix, digits, 0));
    }
    done
}

fn number(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    radix: u32,
    digits: usize,
    first: u32,
) -> Option<char> {
    let mut value = first;
    for _ in 0..digits {
        let Some(digit) = chars.peek().and_then(|c| c.to_digit(radix)) else { break };
        value = value * radix + digit;
        chars.next();
    }
    char::from_u32(value)
}
