//! Programs: from a name and arguments to effects, by the tables in `programs/`.
//!
//! Owns how a table is applied. What is not in a table runs unseen code, whatever its name says.

mod argv;
mod awk;
mod clusters;
mod databases;
mod interpreters;
mod readers;
mod roles;
mod subcommands;
mod wraps;

pub(crate) use argv::{Argv, Options};
pub(crate) use roles::{option_values, shell_text, with_argument};

use crate::data::{Does, Program, Reader, Role, Rule, programs};
use crate::options::Known;
use crate::shell::{Feed, Shell};
use crate::words::{Arg, line, matches};
use crate::{NoteCode, git, requests};
use holdpoint_types::{Certainty, Effect, EffectClass};
use roles::operands;
use subcommands::subcommand;

/// Most operands that get an effect of their own.
const EACH_MAX: usize = 16;
/// Subcommands that run a project's own script, which knows nothing of a dry run.
const SCRIPTS: [&str; 9] =
    ["run", "run-script", "start", "stop", "restart", "test", "exec", "x", "xtask"];
/// The programs that have such subcommands.
const SCRIPTED: [&str; 5] = ["npm", "pnpm", "yarn", "bun", "cargo"];
/// How options say no.
const NO: [&str; 6] = ["false", "f", "0", "no", "off", "none"];
/// Options with which a program only says what it is.
const EXPLAINING: &[&str] =
    &["--version", "--help", "-h", "-V", "-v", "-version", "-help", "--verbose", "--quiet", "-q"];
/// Folders whose programs are what their names say.
const FOLDERS: &[&str] = &[
    "/bin",
    "/sbin",
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/opt/homebrew/bin",
];

/// One call of a known program.
pub(crate) struct Call<'a> {
    pub(crate) name: &'a str,
    pub(crate) program: &'a Program,
    /// Its options, if they are listed.
    pub(crate) known: Option<&'a Known>,
    /// The arguments after the name.
    pub(crate) args: &'a [Arg],
    pub(crate) feed: &'a Feed,
    /// The command line for people.
    pub(crate) shown: String,
}

/// Whether a call does anything else than to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looks {
    /// It only looks.
    Only,
    /// It changes something.
    AndMore,
}

/// Whether a dry run is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dry {
    /// Only what would be done is said.
    Counts,
    /// Another option takes it back, or a script knows nothing of it.
    Ignored,
}

// === impl Call ===

impl<'a> Call<'a> {
    /// How its arguments are parted, with what a subcommand says of its options.
    pub(crate) fn options<'r>(&self, rule: Option<&'r Rule>) -> Options<'r>
    where
        'a: 'r,
    {
        Options { program: self.program, rule, known: self.known }
    }
}

/// Runs the program `name`; what it prints, if that is known.
pub(crate) fn run(shell: &mut Shell<'_>, name: &str, all: &[Arg], feed: &Feed) -> Option<Arg> {
    let shown = line(all);
    let bare = match name.rsplit_once('/') {
        Some((folder, bare)) if FOLDERS.contains(&folder) => bare,
        // Wrappers that a workspace brings along, for programs that do what it says anyway.
        Some((".", "gradlew")) => "gradle",
        Some((".", "mvnw")) => "mvn",
        Some(_) => {
            shell.opaque(&format!("runs the file `{shown}`"));
            return None;
        }
        None => name,
    };
    if let "docker-compose" | "podman-compose" = bare {
        let rest = all.get(1..).unwrap_or_default();
        let all = [&[Arg::known("docker"), Arg::known("compose")], rest].concat();
        return run(shell, "docker", &all, feed);
    }
    let Some((program, known)) = programs().get(bare) else {
        shell.opaque(&format!("`{bare}` is not a known program"));
        return None;
    };
    let mut args = all.get(1..).unwrap_or_default();
    if matches!(bare, "cargo" | "rustc" | "rustup" | "rustfmt")
        && let [toolchain, rest @ ..] = args
        && toolchain.text.starts_with('+')
    {
        args = rest;
    }
    if let [only] = args
        && matches!(only.text.as_str(), "--version" | "--help")
    {
        return None;
    }
    hidden(shell, bare, args, &shown);
    if let Some(parts) = program.separator.and_then(|sign| parted(args, sign)) {
        for part in parts {
            let all = [&[Arg::known(bare)], part.as_slice()].concat();
            run(shell, bare, &all, feed);
        }
        return None;
    }
    let call = Call { name: bare, program, known, args, feed, shown };
    if bare == "gh" && requests::github_graphql(shell, &call) {
        return None;
    }
    match program.reader {
        None => apply(shell, &call),
        Some(Reader::Git) => git::run(shell, &call),
        Some(Reader::Curl | Reader::Wget | Reader::Httpie) => requests::run(shell, &call),
        Some(Reader::Sql) => databases::run(shell, &call),
        Some(Reader::Kubectl) => clusters::run(shell, &call),
        Some(
            reader @ (Reader::Shell
            | Reader::Find
            | Reader::Sed
            | Reader::Awk
            | Reader::Tar
            | Reader::Dd
            | Reader::Chmod
            | Reader::Interpreter
            | Reader::Make),
        ) => readers::run(shell, &call, reader),
    }
    output(bare, args)
}

/// Commands in arguments that are no options: `less +'!command' file`, and formats of tmux.
fn hidden(shell: &mut Shell<'_>, name: &str, args: &[Arg], shown: &str) {
    let plus = |arg: &Arg| arg.text.starts_with('+') && arg.text.contains('!');
    let format = |arg: &Arg| name == "tmux" && arg.text.contains("#(");
    if args.iter().any(|arg| plus(arg) || format(arg)) {
        shell.opaque(&format!("an argument runs a command: {shown}"));
    }
}

/// The commands that one call gives, if there are several.
fn parted(args: &[Arg], sign: char) -> Option<Vec<Vec<Arg>>> {
    let mut parts = vec![Vec::new()];
    for arg in args {
        let Some(before) = arg.text.strip_suffix(sign).filter(|before| !before.ends_with('\\'))
        else {
            parts.last_mut()?.push(arg.clone());
            continue;
        };
        if !before.is_empty() {
            parts.last_mut()?.push(Arg { text: before.to_owned(), ..arg.clone() });
        }
        parts.push(Vec::new());
    }
    parts.retain(|part| !part.is_empty());
    (parts.len() > 1).then_some(parts)
}

/// What a program prints, where the arguments say it.
fn output(name: &str, args: &[Arg]) -> Option<Arg> {
    match (name, args) {
        ("mktemp", _) => Some(Arg::known(format!("/tmp/tmp.{}", crate::words::UNKNOWN))),
        ("basename" | "dirname", [file]) if !file.is_unknown() => {
            let (folder, base) = file.text.rsplit_once('/').unwrap_or((".", &file.text));
            Some(Arg::known(if name == "basename" { base } else { folder }))
        }
        _ => None,
    }
}

/// Applies the tables to one call. An option that they do not know may take the word behind it for
/// its value, so that another one is the subcommand: then both readings count, as far as they are
/// known.
pub(crate) fn apply(shell: &mut Shell<'_>, call: &Call<'_>) {
    let Some(other) = without_value(call, call.args) else { return apply_reading(shell, call) };
    let mut readings = vec![call.args.to_vec(), other];
    while let Some(other) = readings.last().and_then(|args| without_value(call, args)) {
        readings.push(other);
    }
    let known = |args: &Vec<Arg>| {
        let operands = call.options(None).part(args).operands;
        subcommand(call.program, &operands).0.is_some()
    };
    let any = readings.iter().skip(1).any(known);
    for (at, args) in readings.iter().enumerate() {
        if (at == 0 && !any) || known(args) {
            apply_reading(shell, &Call { args, shown: call.shown.clone(), ..*call });
        }
    }
}

/// `args` without the first operand, if that may be the value of an option before it.
fn without_value(call: &Call<'_>, args: &[Arg]) -> Option<Vec<Arg>> {
    let program = call.program;
    if program.subcommands.is_empty() || program.run.is_some() {
        return None;
    }
    let first = call.options(None).part(args).operands.into_iter().next()?;
    let at = args.iter().position(|arg| *arg == first)?;
    let before = &args.get(at.checked_sub(1)?)?.text;
    let listed = |name: &String| before == name || before.starts_with(&format!("{name}="));
    let known = program.flags.keys().any(listed)
        || program.dry.iter().any(listed)
        || call.known.is_some_and(|known| known.get(before).is_some());
    let may_take = before.starts_with('-') && before != "--" && !before.contains('=') && !known;
    let (front, back) = args.split_at_checked(at).filter(|_| may_take)?;
    Some([front, back.get(1..)?].concat())
}

fn apply_reading(shell: &mut Shell<'_>, call: &Call<'_>) {
    let first = call.options(None).part(call.args);
    let bare = call.program.bare.as_ref().filter(|_| first.operands.is_empty());
    let (rule, words) = match (bare, &call.program.run) {
        (Some(bare), _) => (Some(bare), 0),
        (None, Some(rule)) => (Some(rule), 0),
        (None, None) if call.program.upper => {
            let upper = |arg: &Arg| Arg { text: arg.text.to_uppercase(), ..arg.clone() };
            subcommand(call.program, &first.operands.iter().map(upper).collect::<Vec<Arg>>())
        }
        (None, None) => subcommand(call.program, &first.operands),
    };
    let Some(rule) = rule else {
        // Without a subcommand most programs explain themselves.
        let explains = |arg: &Arg| EXPLAINING.contains(&arg.text.as_str());
        return match call.args.iter().all(explains) {
            true => {}
            false => shell.opaque(&format!("`{}` is not a known command", call.shown)),
        };
    };
    let options = call.options(Some(rule));
    let script = SCRIPTED.contains(&call.name)
        && first.operands.first().is_some_and(|word| SCRIPTS.contains(&word.text.as_str()));
    let mut argv = match wraps_by(rule, call.program, &first) {
        true => options.part_until(call.args, words),
        // The subcommand says nothing of options: they are parted already.
        false if rule.values.is_empty() && rule.flags.is_empty() => first,
        false => options.part(call.args),
    };
    argv.operands.drain(..words.min(argv.operands.len()));
    let base = rule;
    let dry = match script || argv.options.iter().any(takes_back) {
        true => Dry::Ignored,
        false => Dry::Counts,
    };
    if dry == Dry::Counts && says_only(call, &argv) {
        unlisted(shell, call, &argv, looks(base));
        let dry = Rule { does: Some(Does::Read), on: base.on.clone(), ..Rule::default() };
        return add(shell, call, &argv, &dry);
    }
    let merged = with_options(call, &argv, base, dry);
    let rule = merged.as_ref().unwrap_or(base);
    if rule.does != Some(Does::Opaque) {
        let weighed = if call.known.is_some() { rule } else { base };
        unlisted(shell, call, &argv, looks(weighed));
    }
    option_values(shell, call, &argv, options);
    if rule.wraps.is_some() {
        return wraps::run(shell, call, &argv, rule);
    }
    let mut done = false;
    if let Some(role) = rule.operands {
        let from = rule.from.unwrap_or_default().min(argv.operands.len());
        let mut before = argv.operands;
        argv.operands = before.split_off(from);
        done = !argv.operands.is_empty();
        operands(shell, call, &argv, role);
        before.append(&mut argv.operands);
        argv.operands = before;
    }
    if !(done && rule.if_none) {
        add(shell, call, &argv, rule);
    }
}

/// The rule as the options that are there change it; none if they do not.
fn with_options(call: &Call<'_>, argv: &Argv, base: &Rule, dry: Dry) -> Option<Rule> {
    // What makes it look only is weighed first: beside another option it looks no more.
    let given = |flag: &str| match flag.contains('*') {
        _ if flag.starts_with("--dry-run") && dry == Dry::Ignored => false,
        true => argv.options.iter().any(|(name, _)| matches(flag, name)),
        // `kill -9 -0`: a signal is the first word, and what follows is a group.
        false if flag == "-0" => {
            call.args.iter().filter(|arg| arg.text.starts_with('-')).count() == 1 && argv.has(flag)
        }
        false => argv.has(flag),
    };
    let flags = || call.program.flags.iter().chain(&base.flags).filter(|(flag, _)| given(flag));
    let mild = |change: &Rule| matches!(change.does, Some(Does::Read | Does::Nothing));
    let mut changes: Vec<&Rule> = flags().map(|(_, change)| change).collect();
    changes.sort_by_key(|change| !mild(change));
    (!changes.is_empty()).then(|| {
        let mut merged = base.without_flags();
        changes.iter().for_each(|change| merge(&mut merged, change));
        merged
    })
}

/// An option that is not listed makes a call that would only look, or do something mild, opaque;
/// so does one that is known to do more.
pub(crate) fn unlisted(shell: &mut Shell<'_>, call: &Call<'_>, argv: &Argv, looks: Looks) {
    if let Some(option) = &argv.acting {
        shell.opaque(&format!("`{option}` does what is not seen here: {}", call.shown));
    }
    let strict = match call.known {
        Some(known) if known.open => false,
        Some(known) if known.looking => looks == Looks::Only,
        Some(_) => true,
        None => looks == Looks::Only,
    };
    if let Some(option) = argv.unlisted.as_ref().filter(|_| strict) {
        let name = call.name;
        shell.opaque(&format!("`{option}` is not a known option of `{name}`: {}", call.shown));
    }
}

/// True if all that the rule does is to look.
fn looks(rule: &Rule) -> Looks {
    let mild = matches!(rule.does, None | Some(Does::Read | Does::Nothing))
        && rule.class.is_none_or(|class| class == EffectClass::Read)
        && matches!(rule.operands, None | Some(Role::Plain | Role::Read | Role::Filter))
        && rule.wraps.is_none();
    if mild { Looks::Only } else { Looks::AndMore }
}

/// True if an option says so, for all that share an entry or for one: `apt-get -s`.
fn says_only(call: &Call<'_>, argv: &Argv) -> bool {
    call.program.dry.iter().any(|flag| match flag.split_once(' ') {
        Some((name, flag)) => call.name == name && argv.has(flag),
        None => argv.has(flag),
    })
}

/// True if an option says that a dry run is none after all.
fn takes_back((name, value): &(String, Option<Arg>)) -> bool {
    let no = |value: &Arg| NO.contains(&value.text.to_ascii_lowercase().as_str());
    name.starts_with("--no-dry") || name.contains("dry-run") && value.as_ref().is_some_and(no)
}

/// True if the rule, or an option that is there, makes the program run another one.
fn wraps_by(rule: &Rule, program: &Program, argv: &Argv) -> bool {
    let flags = program.flags.iter().chain(&rule.flags);
    rule.wraps.is_some()
        || flags.into_iter().any(|(flag, rule)| rule.wraps.is_some() && argv.has(flag))
}

fn merge(rule: &mut Rule, change: &Rule) {
    rule.on = change.on.clone().or_else(|| rule.on.clone());
    if matches!(change.does, Some(Does::Read | Does::Nothing)) {
        // With this option it only looks: what it would do otherwise is not done.
        (rule.class, rule.whole, rule.note) = (change.class, change.whole, change.note.clone());
    }
    rule.does = change.does.or(rule.does);
    rule.class = rule.class.max(change.class);
    rule.whole |= change.whole;
    rule.note = change.note.clone().or_else(|| rule.note.clone());
    rule.operands = change.operands.or(rule.operands);
    rule.from = change.from.or(rule.from);
    rule.wraps = change.wraps.clone().or_else(|| rule.wraps.clone());
}

/// Adds the effect that a rule names.
fn add(shell: &mut Shell<'_>, call: &Call<'_>, argv: &Argv, rule: &Rule) {
    if let Some(code) = rule.note.as_deref().and_then(code) {
        shell.effects.note(code, call.shown.clone());
    }
    let Some(does) = rule.does else { return };
    if does == Does::Opaque {
        return shell.opaque(&call.shown);
    }
    let anywhere = |arg: &Arg| arg.text.contains("://") || arg.text.starts_with("git+");
    if does == Does::Execute && argv.operands.iter().any(anywhere) {
        return shell.opaque(&format!("runs what lies elsewhere: {}", call.shown));
    }
    let Some(verb) = does.verb() else { return };
    let host = shell.state.host.clone().unwrap_or_else(|| "localhost".to_owned());
    let host = wraps::daemon(shell, call).unwrap_or(host);
    let on = rule.on.clone().unwrap_or_else(|| format!("{}://{host}", call.name));
    let each: Vec<Arg> = match on.contains("{each}") && !argv.operands.is_empty() {
        true => argv.operands.iter().take(EACH_MAX).cloned().collect(),
        false => vec![Arg::default()],
    };
    // What does not get an effect of its own is among all there are.
    let rest = (argv.operands.len() > EACH_MAX).then(|| Arg::known("*"));
    for operand in each.iter().chain(&rest) {
        let on = on.replace("{each}", &operand.shown()).replace("{host}", &host);
        let on = fill(&on, argv);
        let bounded = on.contains('*');
        let mut effect = Effect::new(verb, on, call.shown.clone());
        effect.class = effect.class.max(rule.class.unwrap_or(effect.class));
        if rule.whole || argv.operands.len() > EACH_MAX {
            effect = effect.whole();
        }
        if bounded {
            effect = effect.no_surer_than(Certainty::Bounded);
        }
        shell.add(effect);
    }
}

/// The code of a note by its stable name.
pub(crate) fn code(name: &str) -> Option<NoteCode> {
    NoteCode::ALL.iter().copied().find(|code| code.as_str() == name)
}

/// Puts operands and the values of options into an address.
fn fill(template: &str, argv: &Argv) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let Some((slot, after)) = after.split_once('}') else { break };
        filled.push_str(&slot_value(slot, argv));
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// The value of an option in an address; what another option says better counts.
fn value(name: &str, argv: &Argv) -> Option<String> {
    let all = ["-A", "--all-namespaces"];
    if matches!(name, "-n" | "--namespace") && all.iter().any(|flag| argv.has(flag)) {
        return Some("*".to_owned());
    }
    let elsewhere = ["--server", "-s", "--kubeconfig", "--cluster"];
    if name == "--context" && elsewhere.iter().any(|other| argv.has(other)) {
        // A name of that cluster alone, or one in another file.
        return Some("*".to_owned());
    }
    if let Some(url) = argv.value("-u").filter(|url| name == "-h" && url.text.contains("://")) {
        let rest = url.text.split_once("://").map_or("", |(_, rest)| rest);
        let host = rest.split('/').next().unwrap_or_default().rsplit('@').next();
        return host.map(|host| Arg::known(host).shown());
    }
    argv.value(name).map(Arg::shown)
}

fn slot_value(slot: &str, argv: &Argv) -> String {
    if slot == "*" {
        return line(&argv.operands);
    }
    for part in slot.split('|') {
        if part.starts_with('-') {
            if let Some(value) = value(part, argv) {
                return value;
            }
        } else if let Ok(at) = part.parse::<usize>() {
            if let Some(operand) = at.checked_sub(1).and_then(|at| argv.operands.get(at)) {
                return operand.shown();
            }
        } else {
            return part.to_owned();
        }
    }
    "*".to_owned()
}
