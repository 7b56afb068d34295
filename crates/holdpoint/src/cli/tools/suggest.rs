//! Proposes how to classify tools from what they say of themselves.
//! Must say that it is a proposal: what a tool says is no evidence.

use super::{Listed, offered, source_word};
use crate::config::Config;
use holdpoint_control::{Settings, ToolHints};
use holdpoint_server::doors::hook::{Host, known_reads};
use holdpoint_server::store::PinRow;
use holdpoint_types::{ClassSource, EffectClass, ServerName};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The lists of every server, as TOML to paste.
pub fn lists(rows: &[&PinRow], settings: &Settings) -> String {
    let servers = by_server(rows);
    let head = "# Proposed from what the tools say of themselves, which is no evidence: read it,\n\
                # then paste each part under its `[server.NAME]`.\n";
    let each = servers.iter().map(|(server, rows)| of_server(server, rows, settings));
    format!("{head}{}", each.collect::<String>())
}

/// The same for programs: `{"SERVER": {"read": […], "write": […], "destructive": […],
/// "analysed": […]}}`.
pub fn to_json(rows: &[&PinRow], settings: &Settings) -> Value {
    let of_server = |(server, rows): (&ServerName, Vec<&PinRow>)| {
        let (analysed, rows) = parted(&rows, settings);
        let of_class = |class: EffectClass| {
            let names: Vec<_> = fitting(&rows, class).map(|row| row.tool.name()).collect();
            (class.to_string(), json!(names))
        };
        let mut lists: Map<String, Value> = EffectClass::ALL.into_iter().map(of_class).collect();
        lists.insert("analysed".to_owned(), json!(analysed));
        (server.to_string(), Value::Object(lists))
    };
    Value::Object(by_server(rows).into_iter().map(of_server).collect())
}

/// Without the tools of hosts that are known to read: they say nothing of themselves, and need no
/// list.
pub fn unknown<'a>(rows: &[&'a PinRow], config: &Config) -> Vec<&'a PinRow> {
    let known = |row: &PinRow| {
        config.hosts.iter().any(|(host, server)| match host {
            Host::ClaudeCode => {
                server == row.tool.server() && known_reads().contains(&row.tool.name())
            }
        })
    };
    rows.iter().copied().filter(|row| !known(row)).collect()
}

fn by_server<'a>(rows: &[&'a PinRow]) -> BTreeMap<&'a ServerName, Vec<&'a PinRow>> {
    let mut servers: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in rows {
        servers.entry(row.tool.server()).or_default().push(*row);
    }
    servers
}

/// The names of the tools whose calls are analysed, and the other tools: no list counts for the
/// former.
fn parted<'a>(rows: &[&'a PinRow], settings: &Settings) -> (Vec<&'a str>, Vec<&'a PinRow>) {
    let (analysed, others): (Vec<&PinRow>, Vec<&PinRow>) =
        rows.iter().copied().partition(|row| settings.analyses(&row.tool));
    (analysed.into_iter().map(|row| row.tool.name()).collect(), others)
}

/// The tools that are best put into `class`.
fn fitting<'a>(rows: &'a [&PinRow], class: EffectClass) -> impl Iterator<Item = &'a PinRow> {
    rows.iter().copied().filter(move |row| proposed(ToolHints::of(offered(row))) == class)
}

fn of_server(server: &ServerName, rows: &[&PinRow], settings: &Settings) -> String {
    let mut text = format!("\n# [server.{server}]\n");
    let (analysed, rows) = parted(rows, settings);
    for class in EffectClass::ALL {
        let lines: String = fitting(&rows, class).map(|row| line(row, settings)).collect();
        match lines.is_empty() {
            true => text.push_str(&format!("{class} = []\n")),
            false => text.push_str(&format!("{class} = [\n{lines}]\n")),
        }
    }
    if !analysed.is_empty() {
        let names = analysed.join(", ");
        text.push_str(&format!(
            "# Judged by what each call would do, so no list counts for them: {names}.\n\
             # Grant the classes that their calls may have: `holdpoint effects` shows them.\n"
        ));
    }
    text
}

fn line(row: &PinRow, settings: &Settings) -> String {
    let now = Listed::new(row, settings);
    let comment = match now.source {
        ClassSource::Unclassified => String::new(),
        ClassSource::Operator
        | ClassSource::Annotation
        | ClassSource::Protocol
        | ClassSource::Effects
        | ClassSource::Unlooked => {
            format!(" # now {} ({})", now.class, source_word(now.source))
        }
    };
    // A tool's name holds nothing that TOML would have to escape, nor a pattern's `*`.
    format!("  \"{}\",{comment}\n", row.tool.name())
}

/// MCP's own reading of the hints: without them, a tool writes and may destroy.
fn proposed(hints: ToolHints) -> EffectClass {
    match (hints.read_only, hints.destructive) {
        (Some(true), _) => EffectClass::Read,
        (Some(false) | None, Some(false)) => EffectClass::Write,
        (Some(false) | None, Some(true) | None) => EffectClass::Destructive,
    }
}
