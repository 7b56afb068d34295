//! Values of SQLite as JSON and back, without loss, and the addresses of rows.
//!
//! Owns the one form in which rows are shown, digested and kept. Two values that SQLite tells
//! apart must never have the same form: `1` is not `1.0`, and no text is a blob.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rusqlite::types::{Value as Cell, ValueRef};
use serde_json::{Map, Number, Value, json};

/// The largest whole number that every JSON reader keeps exactly.
const EXACT: u64 = (1 << 53) - 1;
/// What an address shows as it is.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'$');

/// One row: its columns, generated ones too, in their order.
pub(super) type Image = Map<String, Value>;

/// The form of a value.
pub(super) fn encode(cell: ValueRef<'_>) -> Value {
    match cell {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(whole) if whole.unsigned_abs() <= EXACT => whole.into(),
        ValueRef::Integer(whole) => json!({ "integer": whole.to_string() }),
        ValueRef::Real(real) => match Number::from_f64(real).filter(|_| real.fract() != 0.0) {
            Some(number) => number.into(),
            None => json!({ "real": format!("{real:?}") }),
        },
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => json!({ "text": STANDARD.encode(bytes) }),
        },
        ValueRef::Blob(bytes) => json!({ "blob": STANDARD.encode(bytes) }),
    }
}

/// The value of a form; `None` for what [`encode`] does not write, or what cannot be bound.
pub(super) fn decode(value: &Value) -> Option<Cell> {
    Some(match value {
        Value::Null => Cell::Null,
        Value::String(text) => Cell::Text(text.clone()),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Cell::Integer(whole),
            None => Cell::Real(number.as_f64()?),
        },
        Value::Object(members) => {
            let (kind, text) = members.iter().next()?;
            let text = text.as_str()?;
            match kind.as_str() {
                "integer" => Cell::Integer(text.parse().ok()?),
                "real" => Cell::Real(text.parse().ok()?),
                "blob" => Cell::Blob(STANDARD.decode(text).ok()?),
                _ => return None,
            }
        }
        Value::Bool(_) | Value::Array(_) => return None,
    })
}

/// How many bytes a value weighs, about.
pub(super) fn weight(cell: ValueRef<'_>) -> usize {
    match cell {
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len().saturating_add(8),
    }
}

/// The address of a row, such as `sqlite://orders/users/id=7`.
pub(super) fn address<'a>(
    place: &str,
    table: &str,
    key: impl Iterator<Item = (&'a str, &'a Value)>,
) -> String {
    let parts: Vec<String> =
        key.map(|(name, value)| format!("{}={}", plain(name), shown(value))).collect();
    format!("{}/{}", object(place, table), parts.join(","))
}

/// The address of a table, an index, a view or a trigger.
pub(super) fn object(place: &str, name: &str) -> String {
    format!("{place}/{}", plain(name))
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        other => plain(&other.to_string()),
    }
}

fn plain(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
    use proptest::{prop_assert, prop_assert_eq};
    use rusqlite::types::{Value as Cell, ValueRef};

    fn cells() -> impl Strategy<Value = Cell> {
        prop_oneof![
            Just(Cell::Null),
            any::<i64>().prop_map(Cell::Integer),
            (-3_i64..3).prop_map(Cell::Integer),
            any::<f64>().prop_filter("no number", |real| !real.is_nan()).prop_map(Cell::Real),
            (-3_i8..3).prop_map(|whole| Cell::Real(f64::from(whole))),
            any::<String>().prop_map(Cell::Text),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(Cell::Blob),
        ]
    }

    proptest! {
        #[test]
        fn a_value_comes_back_as_it_was(cell in cells()) {
            let form = encode(ValueRef::from(&cell));
            let text = holdpoint_types::canonical_bytes(&form).unwrap();
            let read: serde_json::Value = serde_json::from_slice(&text).unwrap();
            prop_assert_eq!(decode(&read), Some(cell));
        }

        #[test]
        fn what_differs_has_another_form(one in cells(), other in cells()) {
            let (left, right) = (encode(ValueRef::from(&one)), encode(ValueRef::from(&other)));
            prop_assert!(one == other || left != right);
        }
    }
}
