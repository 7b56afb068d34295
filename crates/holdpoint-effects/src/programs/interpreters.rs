//! `python`, `node`, `perl` and their kin: code that is not seen, unless it only calculates.
//!
//! Owns what counts as calculating. It must never take code that it cannot read for harmless.

use super::Call;
use super::readers::CHECKS;
use crate::place::Act;
use crate::shell::Shell;
use crate::words::{Arg, UNKNOWN};
use holdpoint_types::{Certainty, Effect, Verb};

/// Words that code may consist of and still only calculate and print.
const CALM: &[&str] = &[
    "import",
    "print",
    "sys",
    "version",
    "version_info",
    "json",
    "load",
    "loads",
    "dumps",
    "stdin",
    "math",
    "len",
    "str",
    "int",
    "float",
    "range",
    "sum",
    "max",
    "min",
    "sorted",
    "round",
    "console",
    "log",
    "JSON",
    "stringify",
    "parse",
    "process",
    "for",
    "in",
    "if",
    "else",
    "and",
    "or",
    "not",
    "True",
    "False",
    "None",
    "true",
    "false",
    "null",
    "platform",
    "puts",
    "from",
    "as",
    "sqrt",
    "pi",
    "indent",
    "x",
    "i",
    "n",
    "d",
    "data",
    "get",
    "keys",
    "values",
    "items",
    "join",
    "split",
    "let",
    "const",
    "var",
    "versions",
    "node",
    "machine",
    "e",
    "E",
];
/// Of these words, those that may be names of files to import.
const FREE: &[&str] = &[
    "x", "i", "n", "d", "e", "E", "data", "get", "keys", "values", "items", "join", "split",
    "indent", "version", "versions", "console", "log", "process", "node", "machine", "parse",
    "load", "loads",
];
/// Options of perl and ruby: they run the code for each line of the files.
const PERL_OPTIONS: &[&str] = &["-n", "-l", "-a", "-w", "-F", "-0", "-W", "-p", "-s", "-S"];
/// What a framework's own script is asked for all day: the workspace's own checks.
const MANAGED: &[&str] =
    &["test", "check", "makemigrations", "showmigrations", "collectstatic", "compilemessages"];

/// `python -c`, `node -e`, a script or a module: code that is not seen, unless it only calculates.
pub(super) fn interpreter(shell: &mut Shell<'_>, call: &Call<'_>) {
    let options = call.options(None);
    let argv = options.part_until(call.args, 0);
    let plain = ["--version", "-V", "-v", "--help", "-h"];
    let one = |arg: &Arg| plain.contains(&arg.text.as_str()) || arg.text == "-version";
    if matches!(call.args, [only] if one(only)) {
        return;
    }
    if argv.value("-m").is_some_and(|module| checks_module(&module.text)) {
        let host = shell.state.host.clone().unwrap_or_default();
        let effect = Effect::new(Verb::Execute, format!("file://{host}/*"), call.shown.as_str());
        return shell.add(effect.no_surer_than(Certainty::Bounded));
    }
    if argv.value("-m").is_some_and(|module| module.text == "json.tool") {
        let mut files = argv.rest.iter().filter(|arg| !arg.text.starts_with('-'));
        for act in [Act::Read, Act::Write(None)] {
            if let Some(file) = files.next() {
                shell.touch(act, file, &call.shown);
            }
        }
        return;
    }
    if let Some(module) = argv.value("-m").filter(|module| module.text == "pip") {
        let inner = [std::slice::from_ref(module), argv.rest.as_slice()].concat();
        shell.run(&inner, call.feed);
        return;
    }
    if let ("dotnet" | "deno" | "swift", Some(first)) = (call.name, argv.rest.first())
        && CHECKS.contains(&first.text.as_str())
    {
        let effect = Effect::new(Verb::Execute, "file:///*", call.shown.as_str());
        return shell.add(effect.no_surer_than(Certainty::Bounded));
    }
    let perl = matches!(call.name, "perl" | "ruby");
    let (code_options, calm_options) = calm_options(call.name);
    let is_code = |name: &str| code_options.contains(&name);
    let code = argv.options.iter().filter(|(name, _)| is_code(name));
    let codes: Vec<&Arg> = code.filter_map(|(_, value)| value.as_ref()).collect();
    let known = argv.options.iter().all(|(name, _)| {
        is_code(name)
            || calm_options.contains(&name.as_str())
            || perl && PERL_OPTIONS.contains(&name.as_str())
    });
    if let ("node" | "nodejs", [code]) = (call.name, codes.as_slice())
        && let Some(file) = reads_data(&code.text).filter(|_| known)
    {
        return shell.touch(Act::Read, &Arg::known(file), &call.shown);
    }
    if is_managed(shell, &argv.rest) && argv.options.is_empty() {
        let effect = Effect::new(Verb::Execute, "file:///*", call.shown.as_str());
        return shell.add(effect.no_surer_than(Certainty::Bounded));
    }
    if !known || codes.is_empty() || !codes.iter().all(|code| is_calm(&code.text)) {
        return shell.opaque(&format!("runs code: {}", call.shown));
    }
    if perl && (argv.has("-n") || argv.has("-p")) {
        for file in &argv.rest {
            shell.touch(Act::Read, file, &call.shown);
        }
    }
}

/// The options of an interpreter whose value is code, and those that bring no other code in.
fn calm_options(name: &str) -> (&'static [&'static str], &'static [&'static str]) {
    match name {
        "node" | "nodejs" | "ts-node" | "tsx" | "deno" => {
            (&["-e", "--eval", "-p", "--print"], &["--no-warnings"])
        }
        "perl" | "ruby" => (&["-e", "-E"], &[]),
        "php" => (&["-r"], &["-q", "-n"]),
        name if name.starts_with("py") => {
            (&["-c"], &["-u", "-B", "-I", "-q", "-s", "-S", "-O", "-E"])
        }
        _ => (&["-e", "-E", "-c", "--eval"], &["-q", "-s"]),
    }
}

/// True for `manage.py test`, if the workspace's own `manage.py` is meant.
fn is_managed(shell: &Shell<'_>, rest: &[Arg]) -> bool {
    let [script, word, ..] = rest else { return false };
    let here = shell.state.cwd.is_some() && shell.state.cwd == shell.place.cwd;
    here && matches!(script.text.as_str(), "manage.py" | "./manage.py")
        && MANAGED.contains(&word.text.as_str())
}

/// Node reads a file of this name as data.
fn reads_data(code: &str) -> Option<&str> {
    let rest = code.trim_start().strip_prefix("require(")?;
    let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let (file, rest) = rest.get(1..)?.split_once(quote)?;
    let field = rest
        .strip_prefix(')')?
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || ".'\"[]-_".contains(c));
    let data = matches!(
        file.rsplit('/').next(),
        Some("package.json" | "package-lock.json" | "tsconfig.json")
    );
    (field && data && file.starts_with(['.', '/'])).then_some(file)
}

fn checks_module(module: &str) -> bool {
    matches!(
        module,
        "pytest"
            | "unittest"
            | "mypy"
            | "black"
            | "ruff"
            | "venv"
            | "flake8"
            | "build"
            | "compileall"
            | "py_compile"
    )
}

/// True if code consists of numbers, strings and words that only calculate and print.
fn is_calm(code: &str) -> bool {
    if code.contains(UNKNOWN) || code.contains('`') || code.contains("__") {
        return false;
    }
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut calm = true;
    // What is imported must be a module that is known, not a file that is called like a word here.
    let mut imports = false;
    for c in code.chars().chain([' ']) {
        match quote {
            Some(open) => {
                // Escapes and templates inside of strings are not followed.
                calm &= c != '\\' && c != '$';
                quote = if c == open { None } else { Some(open) };
            }
            None if matches!(c, '\'' | '"') => {
                calm &= word.is_empty();
                quote = Some(c);
            }
            None if c.is_alphanumeric() || c == '_' => word.push(c),
            None => {
                let number = word.starts_with(|c: char| c.is_ascii_digit());
                calm &= word.is_empty() || number || CALM.contains(&word.as_str());
                calm &= !imports || !FREE.contains(&word.as_str());
                imports |= matches!(word.as_str(), "import" | "from");
                imports &= !matches!(c, ';' | '\n' | ':');
                word.clear();
            }
        }
    }
    calm && quote.is_none()
}
