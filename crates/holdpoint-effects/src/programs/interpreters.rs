//! `python`, `node`, `perl` and their kin: code that is not seen, unless it only calculates.
//!
//! Owns what counts as calculating. It must never take code that it cannot read for harmless.

use super::readers::CHECKS;
use super::{Call, Options};
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
/// Options of interpreters that bring no other code in.
const CALM_OPTIONS: &[&str] =
    &["-c", "-e", "--eval", "-p", "--print", "-E", "-r", "-u", "-B", "-I", "-q", "-s", "-S", "-O"];
/// The same of perl and ruby: they run the code for each line of the files.
const PERL_OPTIONS: &[&str] = &["-n", "-l", "-a", "-w", "-F", "-0", "-W"];

/// `python -c`, `node -e`, a script or a module: code that is not seen, unless it only calculates.
pub(super) fn interpreter(shell: &mut Shell<'_>, call: &Call<'_>) {
    let options = Options { program: call.program, rule: None };
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
    let code = ["-c", "-e", "--eval", "-p", "--print", "-E", "-r"]
        .iter()
        .filter(|name| !(perl && matches!(**name, "-p" | "-r" | "-c")))
        .filter_map(|name| argv.value(name));
    let codes: Vec<&Arg> = code.collect();
    let known = argv.options.iter().all(|(name, _)| {
        CALM_OPTIONS.contains(&name.as_str()) || perl && PERL_OPTIONS.contains(&name.as_str())
    });
    if !known || codes.is_empty() || !codes.iter().all(|code| is_calm(&code.text)) {
        return shell.opaque(&format!("runs code: {}", call.shown));
    }
    if perl && (argv.has("-n") || argv.has("-p")) {
        for file in &argv.rest {
            shell.touch(Act::Read, file, &call.shown);
        }
    }
}

fn checks_module(module: &str) -> bool {
    matches!(
        module,
        "pytest"
            | "unittest"
            | "mypy"
            | "black"
            | "ruff"
            | "json.tool"
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
                word.clear();
            }
        }
    }
    calm && quote.is_none()
}
