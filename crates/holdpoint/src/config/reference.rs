//! The reference pages that are generated: every key of the configuration, every reason code.
//! Must not hold documentation of its own beyond headings.

use super::schema::config_schema_value;
use holdpoint_types::{Reason, Stage};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// How to refresh what is generated.
const REFRESH: &str = "<!-- Generated. Refresh with `cargo run -- docs --write docs`. -->";

/// A table of the configuration: its header, what it is for, and its schema.
struct Section<'a> {
    path: String,
    kind: Kind,
    table: &'a Map<String, Value>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Root,
    Table,
    Array,
}

/// How a property refers to a table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Child {
    Table,
    Named,
    Array,
}

/// The configuration reference as Markdown.
pub fn config_reference() -> String {
    let schema = config_schema_value();
    let mut page = format!(
        "{REFRESH}\n\n# Configuration\n\nOne file, `holdpoint.toml`, looked for in this order: \
         `--config FILE`, `./holdpoint.toml`, `$XDG_CONFIG_HOME/holdpoint/holdpoint.toml`, \
         `/etc/holdpoint/holdpoint.toml`. `wrap` and `hook` skip the second: \
         others choose their folder. `holdpoint init` writes a first one, `holdpoint check` \
         reports everything that is wrong with it. Unknown keys are faults.\n\nEditors can use \
         [holdpoint.schema.json](holdpoint.schema.json).\n"
    );
    let mut sections = Vec::new();
    if let Some(table) = schema.as_object() {
        let root = Section { path: String::new(), kind: Kind::Root, table };
        collect(root, &schema, &mut (BTreeSet::new(), &mut sections));
    }
    sections.iter().for_each(|section| section.write(&schema, &mut page));
    page
}

/// The reason codes as Markdown.
pub fn errors_reference() -> String {
    let mut page = format!(
        "{REFRESH}\n\n# Reason codes\n\nEvery denial, fault and record names one of these codes. A \
         code never changes its meaning.\n"
    );
    for (stage, title) in [
        (Stage::Door, "At the door: the message could not be accepted"),
        (Stage::Decision, "In the decision"),
        (Stage::Execution, "In the execution, after a permit"),
    ] {
        page.push_str(&format!(
            "\n## {title}\n\n| code | meaning | for the agent | for the operator |\n\
             |---|---|---|---|\n"
        ));
        for reason in Reason::ALL.iter().filter(|reason| reason.stage() == stage) {
            let cells = [reason.meaning(), reason.for_agent(), reason.for_operator()].map(cell);
            page.push_str(&format!("| `{reason}` | {} |\n", cells.join(" | ")));
        }
    }
    page
}

// === impl Section ===

impl Section<'_> {
    fn write(&self, schema: &Value, page: &mut String) {
        let rows: Vec<_> = self.rows(schema);
        if rows.is_empty() {
            return;
        }
        let header = match self.kind {
            Kind::Root => return,
            Kind::Table => format!("[{}]", self.path),
            Kind::Array => format!("[[{}]]", self.path),
        };
        let meaning = self.table.get("description").and_then(Value::as_str).unwrap_or_default();
        page.push_str(&format!("\n## `{header}`\n\n{meaning}\n\n"));
        page.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
        page.push_str(&rows.concat());
    }

    fn rows(&self, schema: &Value) -> Vec<String> {
        let required: Vec<_> = list(self.table.get("required")).filter_map(Value::as_str).collect();
        let each = properties(self.table).map(|(key, property)| {
            let default = if required.contains(&key.as_str()) {
                "required".to_owned()
            } else {
                default_of(property)
            };
            let meaning = property.get("description").and_then(Value::as_str).unwrap_or_default();
            let kind = type_of(property, schema);
            format!("| `{key}` | {kind} | {default} | {} |\n", cell(meaning))
        });
        each.collect()
    }
}

fn collect<'a>(
    section: Section<'a>,
    schema: &'a Value,
    found: &mut (BTreeSet<String>, &mut Vec<Section<'a>>),
) {
    let (path, table) = (section.path.clone(), section.table);
    found.1.push(section);
    for (key, property) in properties(table) {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let (reference, path, kind) = match child(property) {
            Some((reference, Child::Table)) => (reference, path, Kind::Table),
            Some((reference, Child::Named)) => {
                let name = if key == "tool" { "TOOL" } else { "NAME" };
                (reference, format!("{path}.{name}"), Kind::Table)
            }
            Some((reference, Child::Array)) => (reference, path, Kind::Array),
            None => continue,
        };
        let Some(table) = resolve(reference, schema).filter(|table| is_table(table)) else {
            continue;
        };
        if found.0.insert(reference.to_owned()) {
            collect(Section { path, kind, table }, schema, found);
        }
    }
}

/// What a property refers to, and how.
fn child(property: &Value) -> Option<(&str, Child)> {
    for (place, child) in [
        ("/$ref", Child::Table),
        ("/additionalProperties/$ref", Child::Named),
        ("/items/$ref", Child::Array),
    ] {
        if let Some(found) = property.pointer(place).and_then(Value::as_str) {
            return Some((found, child));
        }
    }
    None
}

fn resolve<'a>(reference: &str, schema: &'a Value) -> Option<&'a Map<String, Value>> {
    schema.pointer(reference.strip_prefix('#')?)?.as_object()
}

fn is_table(schema: &Map<String, Value>) -> bool {
    schema.contains_key("properties")
}

fn properties(table: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    table.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

fn default_of(property: &Value) -> String {
    match property.get("x-default").or_else(|| property.get("default")) {
        Some(Value::String(text)) if text.contains(' ') => cell(text),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(other) => format!("`{other}`"),
        None => "none".to_owned(),
    }
}

fn type_of(property: &Value, schema: &Value) -> String {
    if let Some((reference, child)) = child(property) {
        let table = resolve(reference, schema).is_some_and(is_table);
        return match (table, child) {
            (false, _) => "string".to_owned(),
            (true, Child::Table) => "table".to_owned(),
            (true, Child::Named) => "tables by name".to_owned(),
            (true, Child::Array) => "array of tables".to_owned(),
        };
    }
    if property.pointer("/additionalProperties/anyOf").is_some() {
        return "table of strings or references".to_owned();
    }
    let kind = property.get("type").and_then(Value::as_str).unwrap_or("any");
    let items = property.pointer("/items/type").and_then(Value::as_str);
    match (kind, items) {
        ("array", Some(items)) => format!("array of {items}s"),
        ("string", _) if property.get("format").is_some() => "time".to_owned(),
        _ => kind.to_owned(),
    }
}

/// Text for a table cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::{config_reference, errors_reference};
    use holdpoint_types::Reason;

    #[test]
    fn every_section_is_described() {
        let page = config_reference();
        for header in [
            "[store]",
            "[listen]",
            "[policies]",
            "[limits]",
            "[team.NAME]",
            "[operator.NAME]",
            "[agent.NAME]",
            "[[agent.NAME.grant]]",
            "[server.NAME]",
            "[server.NAME.tool.TOOL]",
            "[[environment]]",
            "[[surface]]",
            "[[freeze]]",
        ] {
            assert!(page.contains(&format!("\n## `{header}`\n")), "{header}");
        }
        assert!(!page.contains("| any |"), "{page}");
    }

    #[test]
    fn every_reason_has_one_row() {
        let page = errors_reference();
        for reason in Reason::ALL {
            assert_eq!(page.matches(&format!("\n| `{reason}` |")).count(), 1, "{reason}");
        }
    }
}
