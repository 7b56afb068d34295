//! Programs: from a name and arguments to effects, by the tables in `programs/`.
//!
//! Owns how a table is applied. What is not in a table runs unseen code, whatever its name says.

mod argv;
mod awk;
mod clusters;
mod databases;
mod interpreters;
mod readers;
mod wraps;

pub(crate) use argv::{Argv, Options};

use crate::data::{Does, Program, Reader, Role, Rule, SubWord, programs};
use crate::place::Act;
use crate::shell::{Feed, Shell};
use crate::words::{Arg, line, matches};
use crate::{NoteCode, git, requests};
use holdpoint_types::{Certainty, Effect, EffectClass, Verb};

/// Most operands that get an effect of their own.
const EACH_MAX: usize = 16;
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
/// Verbs that are no groups of others: what follows them is a name.
const LOOKING: &[&str] = &["describe", "list", "show", "get", "view", "inspect", "read"];
/// How much better than others a subcommand fits that begins with a known word, and one that
/// destroys and stands behind groups.
const KNOWN: usize = 1000;
const STRICT: usize = 10_000;
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
    /// The arguments after the name.
    pub(crate) args: &'a [Arg],
    pub(crate) feed: &'a Feed,
    /// The command line for people.
    pub(crate) shown: String,
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
    let Some(program) = programs().get(bare) else {
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
    // `less +'!command' file`
    let plus = |arg: &Arg| arg.text.starts_with('+') && arg.text.contains('!');
    if args.iter().any(plus) {
        shell.opaque(&format!("an argument runs a command: {shown}"));
    }
    let call = Call { name: bare, program, args, feed, shown };
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
    let mut readings = vec![call.args.to_vec()];
    while let Some(other) = readings.last().and_then(|args| without_value(call.program, args)) {
        readings.push(other);
    }
    let known = |args: &Vec<Arg>| {
        let operands = Options { program: call.program, rule: None }.part(args).operands;
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
fn without_value(program: &Program, args: &[Arg]) -> Option<Vec<Arg>> {
    if program.subcommands.is_empty() || program.run.is_some() {
        return None;
    }
    let options = Options { program, rule: None };
    let first = options.part(args).operands.into_iter().next()?;
    let at = args.iter().position(|arg| *arg == first)?;
    let before = &args.get(at.checked_sub(1)?)?.text;
    let listed = |name: &String| before == name || before.starts_with(&format!("{name}="));
    let known = program.flags.keys().any(listed) || program.dry.iter().any(listed);
    let may_take = before.starts_with('-') && before != "--" && !before.contains('=') && !known;
    let (front, back) = args.split_at_checked(at).filter(|_| may_take)?;
    Some([front, back.get(1..)?].concat())
}

fn apply_reading(shell: &mut Shell<'_>, call: &Call<'_>) {
    let first = Options { program: call.program, rule: None }.part(call.args);
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
    let options = Options { program: call.program, rule: Some(rule) };
    let mut argv = match wraps_by(rule, call.program, &first) {
        true => options.part_until(call.args, words),
        false => options.part(call.args),
    };
    argv.operands.drain(..words.min(argv.operands.len()));
    let base = rule;
    let mut rule = base.without_flags();
    let script = SCRIPTED.contains(&call.name)
        && first.operands.first().is_some_and(|word| SCRIPTS.contains(&word.text.as_str()));
    let dry = !script && !argv.options.iter().any(takes_back);
    if dry && argv.has_any(&call.program.dry) {
        let looks = Rule { does: Some(Does::Read), on: rule.on, ..Rule::default() };
        return add(shell, call, &argv, &looks);
    }
    // What makes it look only is weighed first: beside another option it looks no more.
    let given = |flag: &str| match flag.contains('*') {
        _ if flag.starts_with("--dry-run") && !dry => false,
        true => argv.options.iter().any(|(name, _)| matches(flag, name)),
        false => argv.has(flag),
    };
    let flags = || call.program.flags.iter().chain(&base.flags).filter(|(flag, _)| given(flag));
    let looks = |change: &Rule| matches!(change.does, Some(Does::Read | Does::Nothing));
    flags().filter(|(_, change)| looks(change)).for_each(|(_, change)| merge(&mut rule, change));
    flags().filter(|(_, change)| !looks(change)).for_each(|(_, change)| merge(&mut rule, change));
    option_values(shell, call, &argv, options);
    if rule.wraps.is_some() {
        return wraps::run(shell, call, &argv, &rule);
    }
    let mut done = false;
    if let Some(role) = rule.operands {
        let from = rule.from.unwrap_or_default().min(argv.operands.len());
        let rest = Argv { operands: argv.operands.split_off(from), ..argv };
        done = !rest.operands.is_empty();
        operands(shell, call, &rest, role);
        argv = Argv { operands: [argv.operands, rest.operands].concat(), ..rest };
    }
    if !(done && rule.if_none) {
        add(shell, call, &argv, &rule);
    }
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

/// The rule of the subcommand that `operands` begin with, and of how many words it is.
fn subcommand<'p>(program: &'p Program, operands: &[Arg]) -> (Option<&'p Rule>, usize) {
    let mut best: (Option<&Rule>, usize, usize) = (None, 0, 0);
    for (words, rule) in &program.subcommands {
        let found = match words.split_first() {
            // The verb stands behind however many groups: the first that fits is meant. But a
            // word may be a group or a verb, so one that destroys goes before others.
            Some((SubWord::Some, verb)) => (1..operands.len()).find_map(|at| {
                let (score, count) = fits(verb, operands.get(at..)?)?;
                let looks = |arg: &Arg| LOOKING.contains(&arg.text.as_str());
                let named = operands.iter().take(at).any(looks);
                let strict = if destroys(rule) && !named { STRICT } else { 0 };
                Some((score.saturating_sub(at) + strict, at + count))
            }),
            // Behind a word that is known, others are names.
            Some((SubWord::Exact(_), _)) => {
                fits(words, operands).map(|(score, count)| (score + KNOWN, count))
            }
            _ => fits(words, operands),
        };
        if let Some((score, count)) = found
            && score > best.2
        {
            best = (Some(rule), count, score);
        }
    }
    (best.0, best.1)
}

fn destroys(rule: &Rule) -> bool {
    let verb = rule.does.and_then(Does::verb).map(Verb::floor);
    rule.class.max(verb) == Some(EffectClass::Destructive)
}

/// How well `words` fit the beginning of `operands`, and how many of those they are.
fn fits(words: &[SubWord], operands: &[Arg]) -> Option<(usize, usize)> {
    let (mut score, mut count) = (0, 0);
    for (at, word) in words.iter().enumerate() {
        let given = operands.get(at);
        let given = match word {
            SubWord::End if given.is_none() => {
                score += 100;
                continue;
            }
            SubWord::End => return None,
            SubWord::Exact(_) | SubWord::Like(_) | SubWord::Any | SubWord::Some => given?,
        };
        score += match word {
            SubWord::Exact(word) if given.text == *word => 100,
            SubWord::Like(word) if !given.is_unknown() && matches(word, &given.text) => {
                20 + word.len()
            }
            SubWord::Any | SubWord::Some if !given.is_unknown() => 10,
            SubWord::Exact(_) | SubWord::Like(_) | SubWord::Any | SubWord::Some | SubWord::End => {
                return None;
            }
        };
        count = at + 1;
    }
    Some((score, count))
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

/// Adds what the values of options are.
pub(crate) fn option_values(
    shell: &mut Shell<'_>,
    call: &Call<'_>,
    argv: &Argv,
    options: Options<'_>,
) {
    for (name, value) in &argv.options {
        if let (Some(role), Some(value)) = (options.role(name), value) {
            one(shell, call, role, value);
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
pub(crate) fn operands(shell: &mut Shell<'_>, call: &Call<'_>, argv: &Argv, role: Role) {
    let target = target(call, argv);
    match (role, argv.operands.split_last()) {
        (Role::Copy | Role::Move, Some((last, first))) => {
            let (from, to) = match &target {
                Some(target) => (argv.operands.as_slice(), target),
                None => (first, last),
            };
            copy(shell, call, role, from, to);
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
    let options = Options { program: call.program, rule: None };
    let found = argv.options.iter().find(|(name, _)| options.role(name) == Some(Role::Target));
    found.and_then(|(_, value)| value.clone())
}

fn copy(shell: &mut Shell<'_>, call: &Call<'_>, role: Role, from: &[Arg], to: &Arg) {
    for file in from {
        if remote(shell, file, Verb::Read, &call.shown) {
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
    if !remote(shell, to, Verb::Update, &call.shown) {
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
fn remote(shell: &mut Shell<'_>, file: &Arg, verb: Verb, shown: &str) -> bool {
    let Some((host, path)) = file.text.split_once(':') else { return false };
    if host.contains('/') || host.is_empty() {
        return false;
    }
    let host = host.rsplit('@').next().unwrap_or(host);
    let file = Arg { text: crate::place::normalise(path), ..file.clone() };
    shell.apart(|shell| {
        shell.state.host = Some(host.to_owned());
        let act = if verb == Verb::Read { Act::Read } else { Act::Write(None) };
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
        Role::Copy | Role::Move | Role::Update => Act::Update,
        Role::Delete => Act::Delete,
        Role::DeleteTree => Act::DeleteTree,
        Role::Grant => Act::Grant,
        Role::Shell => return shell_text(shell, arg),
        Role::Command => return command(shell, arg),
        Role::Code => return shell.opaque(&format!("runs code: {}", call.shown)),
        Role::Mount => return mount(shell, arg),
    };
    if role == Role::Read && remote(shell, arg, Verb::Read, &call.shown) {
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

fn slot_value(slot: &str, argv: &Argv) -> String {
    if slot == "*" {
        return line(&argv.operands);
    }
    for part in slot.split('|') {
        if part.starts_with('-') {
            if let Some(value) = argv.value(part) {
                return value.shown();
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
