//! A call's parameters as tags: one for each scalar in them, named by its JSON Pointer (RFC 6901).
//!
//! Must give the same tags for a value read back from its canonical form, and must stay small
//! whatever it is given.

use holdpoint_types::canonical_bytes;
use serde_json::Value;

/// Most scalars and empty containers that are turned into tags.
pub(crate) const LEAVES_MAX: usize = 4096;
/// Most bytes of pointers: a long key above many scalars is repeated in each of their pointers.
const POINTER_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting that is walked; doors accept less.
const DEPTH_MAX: usize = 128;

/// The parameters hold more than policies can be asked about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

/// Collects tags on the way down.
#[derive(Default)]
struct Walk {
    tags: Vec<(String, String)>,
    leaves: usize,
    pointer: String,
    pointer_bytes: usize,
}

// === impl Walk ===

impl Walk {
    fn visit(&mut self, value: &Value, depth: usize) -> Result<(), TooMany> {
        if depth > DEPTH_MAX {
            return Err(TooMany);
        }
        match value {
            Value::Array(items) if !items.is_empty() => items
                .iter()
                .enumerate()
                .try_for_each(|(index, item)| self.descend(&index.to_string(), item, depth)),
            Value::Object(fields) if !fields.is_empty() => {
                fields.iter().try_for_each(|(key, field)| self.descend(key, field, depth))
            }
            Value::Array(_) | Value::Object(_) => self.count(),
            Value::String(text) => self.tag(text.clone()),
            Value::Null | Value::Bool(_) | Value::Number(_) => {
                let bytes = canonical_bytes(value).map_err(|_| TooMany)?;
                self.tag(String::from_utf8(bytes).map_err(|_| TooMany)?)
            }
        }
    }

    fn descend(&mut self, key: &str, value: &Value, depth: usize) -> Result<(), TooMany> {
        let before = self.pointer.len();
        self.pointer.push('/');
        for char in key.chars() {
            match char {
                '~' => self.pointer.push_str("~0"),
                '/' => self.pointer.push_str("~1"),
                plain => self.pointer.push(plain),
            }
        }
        self.visit(value, depth.saturating_add(1))?;
        self.pointer.truncate(before);
        Ok(())
    }

    /// Counts a leaf, with or without a value: a million empty lists are too many as well.
    fn count(&mut self) -> Result<(), TooMany> {
        self.leaves = self.leaves.saturating_add(1);
        if self.leaves > LEAVES_MAX { Err(TooMany) } else { Ok(()) }
    }

    fn tag(&mut self, value: String) -> Result<(), TooMany> {
        self.count()?;
        self.pointer_bytes = self.pointer_bytes.saturating_add(self.pointer.len());
        if self.pointer_bytes > POINTER_BYTES_MAX {
            return Err(TooMany);
        }
        self.tags.push((self.pointer.clone(), value));
        Ok(())
    }
}

/// The tags of `parameters`.
pub(crate) fn tags(parameters: &Value) -> Result<Vec<(String, String)>, TooMany> {
    let mut walk = Walk::default();
    walk.visit(parameters, 0)?;
    Ok(walk.tags)
}

#[cfg(test)]
mod tests {
    use super::{LEAVES_MAX, TooMany, tags};
    use expect_test::{Expect, expect};
    use holdpoint_types::canonical_bytes;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn check(value: &Value, expected: &Expect) {
        let found = tags(value).unwrap();
        let lines: Vec<_> = found.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        expected.assert_eq(&lines.join("\n"));
    }

    #[test]
    fn every_scalar_has_a_tag() {
        let value = json!({
            "path": "/srv/app/x", "a/b~c": true, "none": null, "empty": [], "": "nameless",
            "options": [{"name": "n"}, 1.0, -0.0, 1e3, "2"],
        });
        check(
            &value,
            &expect![[r#"
                /path = /srv/app/x
                /a~1b~0c = true
                /none = null
                / = nameless
                /options/0/name = n
                /options/1 = 1
                /options/2 = 0
                /options/3 = 1000
                /options/4 = 2"#]],
        );
        check(&json!("alone"), &expect![[" = alone"]]);
    }

    #[test]
    fn more_than_policies_can_be_asked_about_is_refused() {
        let zeros = |count: usize| json!({ "a": vec![0; count] });
        assert_eq!(tags(&zeros(LEAVES_MAX)).unwrap().len(), LEAVES_MAX);
        assert_eq!(tags(&zeros(LEAVES_MAX + 1)), Err(TooMany));
        assert_eq!(tags(&json!(vec![json!([]); LEAVES_MAX + 1])), Err(TooMany));
        let long_key_above_many = json!({ "k".repeat(1 << 20): [1, 2, 3] });
        assert_eq!(tags(&long_key_above_many), Err(TooMany));
        let deep = (0..1_000).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(tags(&deep), Err(TooMany));
    }

    fn parameters() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-1_000_000_i64..1_000_000).prop_map(Value::from),
            (-1.0e6_f64..1.0e6).prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a/~é]{0,3}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_value_read_back_from_a_record_has_the_same_tags(value in parameters()) {
            let again: Value = serde_json::from_slice(&canonical_bytes(&value).unwrap()).unwrap();
            let sorted = |value: &Value| {
                let mut tags = tags(value).unwrap();
                tags.sort();
                tags
            };
            prop_assert_eq!(sorted(&again), sorted(&value));
        }

        #[test]
        fn a_pointer_points_at_its_value(value in parameters()) {
            for (pointer, text) in tags(&value).unwrap() {
                let found = value.pointer(&pointer).unwrap();
                let canonical = || String::from_utf8(canonical_bytes(found).unwrap()).unwrap();
                let expected = found.as_str().map_or_else(canonical, str::to_owned);
                prop_assert_eq!(text, expected);
            }
        }
    }
}
