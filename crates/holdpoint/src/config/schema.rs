//! The JSON Schema of the configuration, made from the raw structs.
//! Must not say anything that the raw structs do not.

use super::raw::RawConfig;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// The JSON Schema (2020-12) of `holdpoint.toml`, as text that ends with a newline.
pub fn config_schema() -> String {
    let schema = config_schema_value();
    // A JSON value whose keys are strings can always be written.
    let text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    format!("{text}\n")
}

/// The same as a JSON value.
pub fn config_schema_value() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<RawConfig>().to_value();
    tidy(&mut schema);
    schema
}

/// Removes what TOML cannot say (null) and what serde's `default` adds, and sets our own marks.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(object) => {
            without_null(object);
            object.remove("default");
            if let Some(default) = object.get("x-default").filter(|found| !found.is_string()) {
                let default = default.clone();
                object.remove("x-default");
                object.insert("default".to_owned(), default);
            }
            require(object);
            one_line(object);
            object.values_mut().for_each(tidy_unless_default);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn tidy_unless_default(value: &mut Value) {
    if value.is_object() || value.is_array() {
        tidy(value);
    }
}

/// Turns the mark on a property into the table's list of required keys.
fn require(object: &mut Map<String, Value>) {
    let Some(Value::Object(properties)) = object.get_mut("properties") else { return };
    let mut required = Vec::new();
    for (key, property) in properties {
        let Value::Object(property) = property else { continue };
        if property.remove("x-required").is_some() {
            required.push(json!(key));
        }
    }
    if !required.is_empty() {
        object.insert("required".to_owned(), Value::Array(required));
    }
}

fn without_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(kinds)) = object.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [only] = kinds.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    let Some(Value::Array(choices)) = object.get_mut("anyOf") else { return };
    choices.retain(|choice| *choice != json!({ "type": "null" }));
    if let [Value::Object(only)] = choices.as_slice() {
        let only = only.clone();
        object.remove("anyOf");
        object.extend(only);
    }
}

fn one_line(object: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
}

#[cfg(test)]
mod tests {
    use super::{config_schema, config_schema_value};

    #[test]
    fn the_schema_says_what_is_required_and_never_null() {
        let schema = config_schema_value();
        let required = schema.pointer("/$defs/RawAgent/required");
        assert_eq!(required, Some(&serde_json::json!(["owner"])));
        assert!(!config_schema().contains("\"null\""));
        assert!(!config_schema().contains("x-required"));
    }
}
