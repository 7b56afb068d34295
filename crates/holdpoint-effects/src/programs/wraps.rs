//! Programs that run another program: `sudo`, `env`, `xargs`, `ssh`, `docker exec` and their kin.
//!
//! Owns where the inner command begins and where it runs. It must never lose an inner command.

use super::{Argv, Call, Options, add, option_values};
use crate::data::{Does, Rule, Wraps};
use crate::shell::{Feed, Shell};
use crate::words::{Arg, UNKNOWN};

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
            let options = Options { program: call.program, rule: Some(rule) };
            let more = options.part_until(&inner, 0);
            option_values(shell, call, &more, options);
            inner = more.rest;
        }
        if let Some(elsewhere) = &wraps.elsewhere {
            move_to(shell, elsewhere, place.as_ref());
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

/// The inner command runs on another host, of which neither folder nor variables are known.
fn move_to(shell: &mut Shell<'_>, elsewhere: &str, place: Option<&Arg>) {
    let host = match elsewhere {
        "operand" => place.map_or_else(|| "*".to_owned(), Arg::shown),
        word => word.to_owned(),
    };
    let host = host.rsplit('@').next().unwrap_or(&host).to_owned();
    shell.state.host = Some(host);
    shell.state.cwd = None;
    shell.state.variables.insert("HOME".to_owned(), Arg::unknown());
    shell.state.tainted = None;
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

fn inside(shell: &mut Shell<'_>, call: &Call<'_>, wraps: &Wraps, mut inner: Vec<Arg>) {
    if wraps.feeds {
        let placeholder =
            call.args.iter().any(|arg| arg.text == "-I" || arg.text.starts_with("-I"));
        fed(&mut inner, call.feed, placeholder);
    }
    if wraps.text {
        let texts: Vec<&str> = inner.iter().map(|arg| arg.text.as_str()).collect();
        let text = Arg::known(texts.join(" "));
        return super::shell_text(shell, &text);
    }
    shell.run(&inner, call.feed);
}

/// Adds what `xargs` adds: its input, as far as it is known.
fn fed(inner: &mut Vec<Arg>, feed: &Feed, placeholder: bool) {
    if placeholder {
        for arg in inner.iter_mut().skip(1) {
            let text = arg.text.replace("{}", &UNKNOWN.to_string());
            *arg = Arg { text: text.replace('%', &UNKNOWN.to_string()), ..arg.clone() };
        }
        return;
    }
    match feed {
        Feed::Text(text) if !text.is_unknown() => {
            inner.extend(text.text.split_whitespace().map(Arg::known));
        }
        Feed::Text(_) | Feed::Inherited | Feed::Unknown | Feed::File(_) => {
            inner.push(Arg::unknown_many());
        }
    }
}
