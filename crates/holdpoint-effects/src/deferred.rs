//! Text that runs later: start-up files, cron tables and the pipelines of build systems.
//!
//! Owns where commands stand in such a text. It must never take a file that it cannot read for
//! one that does nothing.

use crate::place::Spot;
use crate::shell::shell_at;
use crate::yaml;
use crate::{Effects, NoteCode};
use holdpoint_types::{Certainty, Effect, Verb};
use serde_json::Value;

/// Owners whose steps build systems are made of.
const KNOWN_OWNERS: &[&str] = &["actions", "github", "docker", "./"];
/// How deep a pipeline file is looked at.
const DEPTH_MAX: usize = 24;
/// Keys whose value is a command or a list of commands.
const COMMANDS: &[&str] = &[
    "run",
    "script",
    "before_script",
    "after_script",
    "command",
    "commands",
    "steps_sh",
    "bash",
    "pwsh",
];

/// Adds what `contents` would do when it runs; `pipeline` names the file of a build system.
pub(crate) fn contents(text: &str, pipeline: Option<&str>, spot: Spot<'_>, effects: &mut Effects) {
    let mut later = Effects::default();
    match pipeline {
        Some(path) if path.ends_with(".yml") || path.ends_with(".yaml") => {
            workflow(text, spot, &mut later);
        }
        Some(path) if path.ends_with("Jenkinsfile") => jenkins(text, spot, &mut later),
        Some(_) => unseen(spot, "a pipeline that cannot be read here", &mut later),
        None => shell_at(&commands(text), spot, 1, &mut later),
    }
    for note in later.notes() {
        effects.note(note.code, note.evidence.clone());
    }
    for effect in later.iter() {
        let evidence = format!("later: {}", effect.evidence);
        let effect = Effect { evidence, ..effect.clone() };
        effects.add(effect.no_surer_than(Certainty::Bounded));
    }
}

fn unseen(spot: Spot<'_>, evidence: &str, effects: &mut Effects) {
    let host = spot.host.unwrap_or("localhost");
    effects.add_opaque(&format!("host://{host}"), NoteCode::UnseenCode, evidence);
}

/// The commands of a start-up file or of a cron table, without the times.
fn commands(text: &str) -> String {
    let cron = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().take(5).collect();
        let time = |field: &&str| field.chars().all(|c| c.is_ascii_digit() || "*/,-".contains(c));
        fields.len() == 5 && fields.iter().all(time)
    };
    let lines = text.lines().map(|line| match line.trim_start() {
        line if cron(line) => {
            let mut rest = line;
            for _ in 0..5 {
                rest =
                    rest.trim_start().split_once(char::is_whitespace).map_or("", |(_, rest)| rest);
            }
            rest.trim_start().strip_prefix("root ").unwrap_or(rest).to_owned()
        }
        line if line.starts_with('@') => {
            line.split_once(' ').map_or("", |(_, rest)| rest).to_owned()
        }
        line if line.starts_with("[") && line.ends_with(']') && !line.contains(' ') => {
            String::new()
        }
        line => match line.split_once('=') {
            Some((key, command)) if key.starts_with("Exec") => {
                command.trim_start_matches(['-', '+', '!', '@']).to_owned()
            }
            Some((key, _)) if unit_key(key) => String::new(),
            _ => line.to_owned(),
        },
    });
    lines.collect::<Vec<String>>().join("\n")
}

/// Keys of systemd units besides those that run something.
fn unit_key(key: &str) -> bool {
    let known = [
        "Description",
        "After",
        "Before",
        "Requires",
        "Wants",
        "WantedBy",
        "Type",
        "User",
        "Restart",
        "RestartSec",
        "OnCalendar",
        "Persistent",
        "WorkingDirectory",
    ];
    known.contains(&key)
}

/// A workflow of GitHub Actions, GitLab CI and the like.
fn workflow(text: &str, spot: Spot<'_>, effects: &mut Effects) {
    match yaml::documents(text) {
        Some(documents) => documents.iter().for_each(|value| walk(value, spot, 0, effects)),
        // What its aliases would write out is not in its lines.
        None if yaml::may_have_aliases(text) => {
            unseen(spot, "a pipeline that could not be read", effects);
        }
        // A part of a file, as an edit inserts it, may be no document of its own.
        None => fragment(text, spot, effects),
    }
}

/// Lines of a workflow that are no document: what follows `run:` or a dash.
fn fragment(text: &str, spot: Spot<'_>, effects: &mut Effects) {
    let key = |line: &str| {
        let line = line.trim_start().trim_start_matches("- ");
        line.split_once(": ")
            .filter(|(key, _)| COMMANDS.contains(key))
            .map(|(_, rest)| rest.to_owned())
    };
    let found: Vec<String> = text.lines().filter_map(key).collect();
    if found.is_empty() {
        return unseen(spot, "a pipeline that could not be read", effects);
    }
    for command in found {
        command_text(&command, spot, effects);
    }
}

fn walk(value: &Value, spot: Spot<'_>, depth: usize, effects: &mut Effects) {
    if depth > DEPTH_MAX {
        return effects.add_opaque("host://localhost", NoteCode::TooLarge, "a pipeline too deep");
    }
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match key.as_str() {
                    "uses" | "image" => step(value, spot, effects),
                    key if COMMANDS.contains(&key) => command_values(value, spot, depth, effects),
                    _ => walk(value, spot, depth + 1, effects),
                }
            }
        }
        Value::Array(values) => {
            values.iter().for_each(|value| walk(value, spot, depth + 1, effects));
        }
        Value::String(text) if depth == 0 => command_text(text, spot, effects),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn command_values(value: &Value, spot: Spot<'_>, depth: usize, effects: &mut Effects) {
    match value {
        Value::String(text) => command_text(text, spot, effects),
        Value::Array(values) => {
            for value in values {
                match value {
                    Value::String(text) => command_text(text, spot, effects),
                    other => walk(other, spot, depth + 1, effects),
                }
            }
        }
        other => walk(other, spot, depth + 1, effects),
    }
}

/// Runs one command of a pipeline, with its `${{ … }}` as variables that are not known.
fn command_text(text: &str, spot: Spot<'_>, effects: &mut Effects) {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${{") {
        plain.push_str(before);
        plain.push_str("${PIPELINE_VALUE}");
        rest = after.split_once("}}").map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    // What an outsider wrote is put into the text before a shell reads it.
    if text.contains("github.event.") || text.contains("github.head_ref") {
        unseen(spot, "a command holds what anybody may have written", effects);
    }
    shell_at(&plain, spot, 1, effects);
}

fn step(value: &Value, spot: Spot<'_>, effects: &mut Effects) {
    let Some(name) = value.as_str() else { return };
    let owner = name.split('/').next().unwrap_or_default();
    if name.contains('@') && !KNOWN_OWNERS.contains(&owner) {
        let host = spot.host.unwrap_or("localhost");
        effects.note(NoteCode::UnseenCode, format!("uses {name}"));
        let effect = Effect::new(Verb::Execute, format!("host://{host}"), format!("uses {name}"));
        effects.add(effect.no_surer_than(Certainty::Opaque));
    }
}

/// `sh '…'` in a Jenkinsfile; the rest of it is a program.
fn jenkins(text: &str, spot: Spot<'_>, effects: &mut Effects) {
    for part in text.split("sh ").skip(1) {
        let part = part.trim_start();
        let Some(quote) = part.chars().next().filter(|c| matches!(c, '\'' | '"')) else { continue };
        let triple: String = std::iter::repeat_n(quote, 3).collect();
        let quote = if part.starts_with(&triple) { triple } else { quote.to_string() };
        let inner = part.strip_prefix(&quote).unwrap_or(part);
        let inner = inner.split(&quote).next().unwrap_or(inner);
        shell_at(inner, spot, 1, effects);
    }
    unseen(spot, "a Jenkinsfile is a program", effects);
}
