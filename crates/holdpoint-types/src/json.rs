//! Strict JSON in, canonical JSON out.
//!
//! Owns the one parser for what agents send: I-JSON (RFC 7493) only, so that two different calls
//! can never share a digest. Canonical form is RFC 8785. Must never accept what it cannot
//! reproduce.

use crate::canonical::Canonical;
use crate::digest::Digest;
use crate::reason::Reason;
use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::Cell;
use std::fmt;

/// The largest integer that every JSON reader keeps exactly: 2^53 - 1 (RFC 7493, section 2.2).
const INTEGER_MAX: u64 = (1 << 53) - 1;

/// The room for a text to begin with: enough for most records.
const TEXT_BYTES: usize = 2 << 10;

/// How keys begin that `serde_json` itself gives a meaning to.
const RESERVED_PREFIX: &str = "$serde_json::private::";

/// How much JSON is accepted.
#[derive(Clone, Copy, Debug)]
pub struct JsonLimits {
    /// Longest accepted text, in bytes.
    pub bytes_max: usize,
    /// Deepest accepted nesting of arrays and objects; at most 100.
    pub depth_max: usize,
}

/// Why a text was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// Longer than the limit.
    #[error("the message has {bytes} bytes; the limit is {bytes_max}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Not UTF-8.
    #[error("the message is not UTF-8 (first bad byte at {at})")]
    NotUtf8 {
        /// Offset of the first bad byte.
        at: usize,
    },
    /// Not JSON.
    #[error("the message is not JSON: {0}")]
    Malformed(String),
    /// The same key twice in one object.
    #[error("key `{0}` appears twice in one object")]
    DuplicateKey(String),
    /// A key that a JSON library takes for its own, so that the value would be read as another.
    #[error("key `{0}` is reserved")]
    ReservedKey(String),
    /// A number that JSON readers disagree about.
    #[error(
        "number `{0}` is outside what every JSON reader keeps exactly (RFC 7493); use a string"
    )]
    NumberOutOfRange(String),
    /// Nested deeper than the limit.
    #[error("arrays and objects are nested deeper than {depth_max}")]
    TooDeep {
        /// The limit.
        depth_max: usize,
    },
}

/// Reads one value, remembering why it was refused.
#[derive(Clone, Copy)]
struct Strict<'a> {
    depth_left: usize,
    limits: JsonLimits,
    fault: &'a Cell<Option<JsonFault>>,
}

// === impl JsonLimits ===

impl Default for JsonLimits {
    fn default() -> Self {
        Self { bytes_max: 4 << 20, depth_max: 64 }
    }
}

// === impl JsonFault ===

impl JsonFault {
    /// The stable reason code of this fault.
    pub fn reason(&self) -> Reason {
        match self {
            Self::TooLarge { .. } => Reason::MessageTooLarge,
            Self::NotUtf8 { .. } => Reason::MessageNotUtf8,
            Self::Malformed(_) | Self::ReservedKey(_) => Reason::MessageMalformed,
            Self::DuplicateKey(_) => Reason::DuplicateKey,
            Self::NumberOutOfRange(_) => Reason::NumberOutOfRange,
            Self::TooDeep { .. } => Reason::MessageTooDeep,
        }
    }
}

// === impl Strict ===

impl<'a> Strict<'a> {
    fn new(limits: JsonLimits, fault: &'a Cell<Option<JsonFault>>) -> Self {
        Self { depth_left: limits.depth_max, limits, fault }
    }

    fn refuse<E: serde::de::Error>(self, fault: JsonFault) -> E {
        self.fault.set(Some(fault));
        E::custom("refused")
    }

    fn deeper<E: serde::de::Error>(self) -> Result<Strict<'a>, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Strict { depth_left, ..self }),
            None => Err(self.refuse(JsonFault::TooDeep { depth_max: self.limits.depth_max })),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        if value > INTEGER_MAX {
            return Err(self.refuse(JsonFault::NumberOutOfRange(value.to_string())));
        }
        Ok(value.into())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        if value.unsigned_abs() > INTEGER_MAX {
            return Err(self.refuse(JsonFault::NumberOutOfRange(value.to_string())));
        }
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        // Whole numbers this large arrive here too: as a double they have lost digits.
        let whole_and_large = value.fract() == 0.0 && value.abs() > INTEGER_MAX as f64;
        // Negative zero equals zero and shares its canonical form, so it is zero from here on.
        let value = if value == 0.0 { 0.0 } else { value };
        match Number::from_f64(value) {
            Some(number) if !whole_and_large => Ok(Value::Number(number)),
            Some(_) | None => Err(self.refuse(JsonFault::NumberOutOfRange(value.to_string()))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if key.starts_with(RESERVED_PREFIX) {
                return Err(self.refuse(JsonFault::ReservedKey(key)));
            }
            if object.contains_key(&key) {
                return Err(self.refuse(JsonFault::DuplicateKey(key)));
            }
            let value = map.next_value_seed(inner)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// Parses one JSON value out of `bytes`, strictly.
///
/// # Errors
/// When the text is too large, not UTF-8, not JSON, too deep, has a duplicate key, or a number
/// outside I-JSON.
pub fn parse(bytes: &[u8], limits: JsonLimits) -> Result<Value, JsonFault> {
    if bytes.len() > limits.bytes_max {
        let bytes_max = limits.bytes_max;
        return Err(JsonFault::TooLarge { bytes: bytes.len(), bytes_max });
    }
    let text = std::str::from_utf8(bytes);
    let text = text.map_err(|error| JsonFault::NotUtf8 { at: error.valid_up_to() })?;
    let fault = Cell::new(None);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Strict::new(limits, &fault).deserialize(&mut deserializer);
    let value = value.and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| classify(fault.take(), &error))
}

/// Checks a value that did not come through [`parse`] against the same rules (duplicate keys can no
/// longer be seen).
///
/// # Errors
/// When it is too deep or holds a number outside I-JSON.
pub fn check(value: &Value, limits: JsonLimits) -> Result<(), JsonFault> {
    let fault = Cell::new(None);
    let read = Strict::new(limits, &fault).deserialize(value);
    read.map(|_| ()).map_err(|error| classify(fault.take(), &error))
}

/// The canonical form of `value` (RFC 8785, JSON Canonicalization Scheme).
///
/// # Errors
/// When `value` cannot be serialised, which for the types of this crate cannot happen.
pub fn canonical_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    match canonical_form(value)? {
        Some(form) => Ok(form.bytes),
        None => serde_json_canonicalizer::to_vec(value),
    }
}

/// The canonical form of `value` with what a reader may stumble over in it; `None` if it has none,
/// for a key comes twice.
///
/// # Errors
/// As [`canonical_bytes`].
pub fn canonical_form<T: Serialize>(value: &T) -> Result<Option<Canonical>, serde_json::Error> {
    let mut text = Vec::with_capacity(TEXT_BYTES);
    serde_json::to_writer(&mut text, value)?;
    Ok(crate::canonical::reorder(&text))
}

/// The digest of the canonical form of `value`.
///
/// # Errors
/// As [`canonical_bytes`].
pub fn canonical_digest<T: Serialize>(value: &T) -> Result<Digest, serde_json::Error> {
    canonical_bytes(value).map(|bytes| Digest::of(&bytes))
}

fn classify(fault: Option<JsonFault>, error: &serde_json::Error) -> JsonFault {
    let text = error.to_string();
    match fault {
        Some(fault) => fault,
        // The parser itself refuses numbers that no double can hold.
        None if text.starts_with("number out of range") => JsonFault::NumberOutOfRange(text),
        None => JsonFault::Malformed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::{JsonFault, JsonLimits, canonical_bytes, canonical_digest, check, parse};
    use crate::Reason;
    use proptest::prelude::*;
    use serde_json::Value;

    fn refused(text: &[u8]) -> Reason {
        parse(text, JsonLimits::default()).unwrap_err().reason()
    }

    #[test]
    fn ambiguous_json_is_refused() {
        assert_eq!(refused(br#"{"a":1,"a":2}"#), Reason::DuplicateKey);
        assert_eq!(refused(br#"{"x":[{"a":1,"\u0061":2}]}"#), Reason::DuplicateKey);
        let reserved = br#"{"x":{"$serde_json::private::RawValue":"junk"}}"#;
        assert_eq!(refused(reserved), Reason::MessageMalformed);
        for number in ["9007199254740992", "-9007199254740992", "1e400", "1e22", "-1e16"] {
            assert_eq!(refused(number.as_bytes()), Reason::NumberOutOfRange, "{number}");
        }
        assert_eq!(refused(b"12345678901234567890123"), Reason::NumberOutOfRange);
        assert_eq!(refused(b"\xff{}"), Reason::MessageNotUtf8);
        assert_eq!(refused(br#""\ud800""#), Reason::MessageMalformed);
        for text in ["", "{", "{}{}", "nul", "NaN", "'a'", "[1,]"] {
            assert_eq!(refused(text.as_bytes()), Reason::MessageMalformed, "{text}");
        }
    }

    #[test]
    fn depth_and_size_have_limits() {
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(refused(deep(10_000).as_bytes()), Reason::MessageTooDeep);
        assert_eq!(refused(deep(65).as_bytes()), Reason::MessageTooDeep);
        let value = parse(deep(64).as_bytes(), JsonLimits::default()).unwrap();
        let shallow = JsonLimits { depth_max: 63, ..JsonLimits::default() };
        assert_eq!(check(&value, shallow), Err(JsonFault::TooDeep { depth_max: 63 }));
        let small = JsonLimits { bytes_max: 3, ..JsonLimits::default() };
        let fault = JsonFault::TooLarge { bytes: 4, bytes_max: 3 };
        assert_eq!(parse(b"1234", small), Err(fault));
    }

    #[test]
    fn accepted_numbers_keep_their_value_and_order() {
        let text = r#"{"z":0.1,"a":9007199254740991,"m":-1.5e-7,"k":[1.0,-0.0]}"#;
        let value = parse(text.as_bytes(), JsonLimits::default()).unwrap();
        let again = r#"{"z":0.1,"a":9007199254740991,"m":-1.5e-7,"k":[1.0,0.0]}"#;
        assert_eq!(value.to_string(), again);
        let canonical = canonical_bytes(&value).unwrap();
        let expected = r#"{"a":9007199254740991,"k":[1,0],"m":-1.5e-7,"z":0.1}"#;
        assert_eq!(String::from_utf8(canonical).unwrap(), expected);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-9_007_199_254_740_991_i64..=9_007_199_254_740_991).prop_map(Value::from),
            (-1.0e9_f64..1.0e9).prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((".{0,6}", inner), 0..5)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_result(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, JsonLimits::default());
        }

        #[test]
        fn what_is_forwarded_is_what_was_digested(value in json()) {
            let forwarded = value.to_string();
            let received = parse(forwarded.as_bytes(), JsonLimits::default()).unwrap();
            prop_assert_eq!(&received, &value);
            let digests = (canonical_digest(&received).unwrap(), canonical_digest(&value).unwrap());
            prop_assert_eq!(digests.0, digests.1);
        }
    }
}
