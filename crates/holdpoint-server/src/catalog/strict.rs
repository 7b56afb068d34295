//! Strict schemas: what a tool's schema does not name is refused.
//! Must never make a schema laxer; what it cannot close, it reports as unusable.

use serde_json::Value;

/// Keywords whose value is a map from names to schemas.
const NAMED: [&str; 5] =
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];
/// Keywords whose value is a schema or a list of schemas for parts of the instance.
const PARTS: [&str; 6] = [
    "items",
    "prefixItems",
    "additionalItems",
    "additionalProperties",
    "contains",
    "unevaluatedItems",
];
/// Keywords that apply other schemas to the same instance, and so may name further properties.
const IN_PLACE: [&str; 8] =
    ["$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "dependentSchemas", "not"];
/// Keywords that already say what happens to unnamed properties.
const CLOSING: [&str; 3] = ["additionalProperties", "patternProperties", "unevaluatedProperties"];

/// The schema with every object closed.
///
/// # Errors
/// When an object is composed of several schemas in a dialect that cannot close such an object.
pub(super) fn closed(mut schema: Value) -> Result<Value, String> {
    let sees_through = match schema.get("$schema").and_then(Value::as_str) {
        None => true,
        Some(dialect) => dialect.contains("2019-09") || dialect.contains("2020-12"),
    };
    if let Value::Object(root) = &mut schema {
        // A schema that names nothing accepts nothing when it is strict.
        root.entry("properties").or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
    close(&mut schema, sees_through)?;
    Ok(schema)
}

fn close(schema: &mut Value, sees_through: bool) -> Result<(), String> {
    let Value::Object(object) = schema else { return Ok(()) };
    let open = object.contains_key("properties")
        && !CLOSING.iter().any(|keyword| object.contains_key(*keyword));
    if open {
        let composed = IN_PLACE.iter().any(|keyword| object.contains_key(*keyword));
        let keyword = match (composed, sees_through) {
            (false, _) => "additionalProperties",
            (true, true) => "unevaluatedProperties",
            (true, false) => {
                let why = "`strict` needs a 2019-09 or 2020-12 schema where objects are composed";
                return Err(why.to_owned());
            }
        };
        object.insert(keyword.to_owned(), Value::Bool(false));
    }
    for (keyword, value) in object.iter_mut() {
        match value {
            Value::Object(named) if NAMED.contains(&keyword.as_str()) => {
                named.values_mut().try_for_each(|part| close(part, sees_through))?;
            }
            Value::Array(parts) if PARTS.contains(&keyword.as_str()) => {
                parts.iter_mut().try_for_each(|part| close(part, sees_through))?;
            }
            part if PARTS.contains(&keyword.as_str()) => close(part, sees_through)?,
            _ => {}
        }
    }
    Ok(())
}
