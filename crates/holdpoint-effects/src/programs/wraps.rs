//! Programs that run another program: `sudo`, `env`, `xargs`, `ssh`, `docker exec` and their kin.
//!
//! Owns where the inner command begins and where it runs. It must never lose an inner command.

use super::{Argv, Call, add, option_values};
use crate::data::{Does, Rule, Wraps};
use crate::shell::{Feed, Shell};
use crate::words::{Arg, UNKNOWN};

/// Most runs of one command that `xargs` makes which are told apart.
const RUNS_MAX: usize = 8;

/// Runs what `call` wraps; `argv` ends where the other program begins.
pub(super) fn run(shell: &mut Shell<'_>, call: &Call<'_>, argv: &Argv, rule: &Rule) {
    let wraps = rule.wraps.clone().unwrap_or_default();
    let mut inner = argv.rest.clone();
    add(shell, call, argv, rule);
    shell.apart(|shell| {
        if wraps.assignments {
            inner = assignments(shell, inner);
        }
        let place = inner.first().cloned();
        inner = inner.get(wraps.skip..).unwrap_or_default().to_vec();
        if wraps.skip > 0 && inner.first().is_some_and(|arg| arg.text.starts_with('-')) {
            // Options may stand after the host or the container too.
            let options = call.options(Some(rule));
            let more = options.part_until(&inner, 0);
            option_values(shell, call, &more, options);
            inner = more.rest;
        }
        if let Some(entry) = argv.value("--entrypoint").filter(|entry| !entry.text.is_empty()) {
            inner.insert(0, entry.clone());
        }
        if let Some(elsewhere) = &wraps.elsewhere {
            move_to(shell, elsewhere, place.as_ref());
        }
        // A shell in a new container that gets nothing to read does what its image does.
        let bare = |arg: &Arg| {
            matches!(arg.text.as_str(), "sh" | "bash" | "ash" | "zsh" | "/bin/sh" | "/bin/bash")
        };
        let idle =
            *call.feed == Feed::Inherited && matches!(inner.as_slice(), [only] if bare(only));
        if idle && wraps.elsewhere.as_deref() == Some("container") {
            return;
        }
        match inner.is_empty() {
            true => alone(shell, call, &wraps),
            false => inside(shell, call, &wraps, inner),
        }
    });
}

fn alone(shell: &mut Shell<'_>, call: &Call<'_>, wraps: &Wraps) {
    match (wraps.alone, call.feed) {
        (Some(Does::Nothing), _) => {}
        (_, Feed::Text(text)) if !text.is_unknown() => shell.text(&text.text),
        _ => shell.opaque(&format!("a shell without a command: {}", call.shown)),
    }
}

/// The daemon that `docker` and its kin are told to talk to.
pub(super) fn daemon(shell: &Shell<'_>, call: &Call<'_>) -> Option<String> {
    if !matches!(call.name, "docker" | "podman" | "nerdctl") {
        return None;
    }
    let global = call.options(None).part_until(call.args, 0);
    let given = ["-H", "--host", "-c", "--context", "--url", "--connection"];
    let given = given.iter().find_map(|name| global.value(name));
    let variable = |name: &str| shell.state.variables.get(name);
    let given = given.or_else(|| variable("DOCKER_HOST")).or_else(|| variable("DOCKER_CONTEXT"));
    let shown = given.or_else(|| variable("CONTAINER_HOST"))?.shown();
    let (scheme, rest) = shown.split_once("://").unwrap_or(("", &shown));
    if scheme == "unix" || matches!(rest, "" | "default") {
        return None;
    }
    let host = rest.split('/').next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    Some(host.split(':').next().unwrap_or_default().to_owned())
}

/// The inner command runs on another host, of which neither folder nor variables are known.
fn move_to(shell: &mut Shell<'_>, elsewhere: &str, place: Option<&Arg>) {
    let host = match elsewhere {
        "operand" => place.map_or_else(|| "*".to_owned(), Arg::shown),
        word => word.to_owned(),
    };
    let host = host.rsplit('@').next().unwrap_or(&host);
    shell.state.host = host_named(shell, host);
    shell.state.cwd = None;
    shell.state.variables.insert("HOME".to_owned(), Arg::unknown());
    shell.state.tainted = None;
}

/// The host of this name; this one by its other names.
pub(super) fn host_named(shell: &Shell<'_>, name: &str) -> Option<String> {
    let bare = name.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let here = matches!(bare.as_str(), "localhost" | "::1" | "0.0.0.0" | "ip6-localhost")
        || bare.starts_with("127.")
        || bare.starts_with("localhost.");
    if here { shell.place.host.clone() } else { Some(name.to_owned()) }
}

/// Skips `NAME=value`, which sets a variable for the inner command.
fn assignments(shell: &mut Shell<'_>, inner: Vec<Arg>) -> Vec<Arg> {
    let mut inner = inner.into_iter().peekable();
    let mut texts = Vec::new();
    while let Some(arg) = inner.next_if(|arg| {
        arg.text.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        })
    }) {
        texts.push(arg);
    }
    for text in texts {
        if let Some((name, value)) = text.text.split_once('=') {
            shell.assign(name, Arg::known(value));
        }
    }
    inner.collect()
}

fn inside(shell: &mut Shell<'_>, call: &Call<'_>, wraps: &Wraps, inner: Vec<Arg>) {
    let runs = match (wraps.feeds, wraps.text) {
        (true, true) => return parallel(shell, inner),
        (true, false) => fed(call, &inner),
        (false, _) => vec![inner],
    };
    for inner in runs {
        match wraps.text {
            true => {
                let texts: Vec<&str> = inner.iter().map(|arg| arg.text.as_str()).collect();
                super::shell_text(shell, &Arg::known(texts.join(" ")));
            }
            false => drop(shell.run(&inner, call.feed)),
        }
    }
}

/// The command lines that `xargs` makes of `inner` and its input, as far as that is known.
fn fed(call: &Call<'_>, inner: &[Arg]) -> Vec<Vec<Arg>> {
    let argv = call.options(None).part_until(call.args, 0);
    let placeholder = ["-I", "-i", "--replace"]
        .iter()
        .find(|name| argv.has(name))
        .map(|name| argv.value(name).map_or("{}", |value| value.text.as_str()).to_owned());
    if let Some(placeholder) = placeholder.filter(|text| !text.is_empty()) {
        let unknown = UNKNOWN.to_string();
        let put = |arg: &Arg| Arg { text: arg.text.replace(&placeholder, &unknown), ..arg.clone() };
        return vec![inner.iter().map(put).collect()];
    }
    let one_by_one = ["-n", "-L", "-l", "--max-args", "--max-lines"];
    let in_parts = one_by_one.iter().any(|name| argv.has(name));
    let Some(values) = values(call.feed, &argv) else {
        let more = [inner, &[Arg::unknown_many()]].concat();
        return vec![more];
    };
    let single = in_parts
        && one_by_one.iter().any(|name| argv.value(name).is_some_and(|value| value.text == "1"));
    match (in_parts, values.len()) {
        (false, _) | (true, 0 | 1) => vec![[inner, &values].concat()],
        (true, 2..=RUNS_MAX) if single => {
            values.into_iter().map(|value| [inner, &[value]].concat()).collect()
        }
        (true, _) => vec![[inner, &[Arg::unknown_many()]].concat()],
    }
}

/// The arguments in the input of `xargs`; none if they are not known.
fn values(feed: &Feed, argv: &Argv) -> Option<Vec<Arg>> {
    let Feed::Text(text) = feed else { return None };
    let text = text.text.as_str();
    let known = !text.contains(UNKNOWN) && !argv.has("-a") && !argv.has("--arg-file");
    if argv.has("-0") || argv.has("--null") {
        // A NUL is nothing that a text here can hold.
        return known.then(|| vec![Arg::known(text)]);
    }
    let quoted = text.contains(['"', '\'', '\\']) || argv.has("-d") || argv.has("--delimiter");
    (known && !quoted).then(|| text.split_whitespace().map(Arg::known).collect())
}

/// `parallel command ::: values`: each value is one word of a text that a shell reads.
fn parallel(shell: &mut Shell<'_>, inner: Vec<Arg>) {
    let sources = |arg: &Arg| matches!(arg.text.as_str(), ":::" | "::::" | ":::+");
    let command: Vec<Arg> = inner.iter().take_while(|arg| !sources(arg)).cloned().collect();
    let value = "\"$PARALLEL_VALUE\"";
    let texts: Vec<&str> = command.iter().map(|arg| arg.text.as_str()).collect();
    let mut text = texts.join(" ");
    let places = ["{}", "{.}", "{/}", "{//}", "{/.}", "{1}", "{2}"];
    match places.iter().any(|place| text.contains(place)) {
        true => places.iter().for_each(|place| text = text.replace(place, value)),
        false => text = format!("{text} {value}"),
    }
    match command.is_empty() {
        // Without a command the values are the commands.
        true => shell.opaque("`parallel` runs what it is given"),
        false => super::shell_text(shell, &Arg::known(text)),
    }
}
