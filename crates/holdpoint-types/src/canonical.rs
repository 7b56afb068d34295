//! Canonical form (RFC 8785) in one pass over the text that `serde_json` writes.
//!
//! Owns the order of members; strings need no change, and every number that is not a short integer
//! is left to `serde_json_canonicalizer`. Must give that crate's bytes or nothing at all: whoever
//! asks falls back on it.

use memchr::memchr2;
use std::cmp::Ordering;
use std::ops::Range;

/// Integers with fewer digits are the same in every notation.
const DIGITS_MAX: usize = 15;
/// The largest whole number that every JSON reader keeps exactly (RFC 7493, section 2.2).
const INTEGER_MAX: u64 = (1 << 53) - 1;
/// What the keys begin with by which `serde_json` passes on what JSON has no form for. Its reader
/// takes an object with such a key for something else than an object.
const RESERVED: &[u8] = b"\"$serde_json::private::";

/// A canonical form, and what a reader may stumble over in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Canonical {
    /// The form.
    pub bytes: Vec<u8>,
    /// How deep arrays and objects are nested.
    pub depth: usize,
    /// The first whole number that not every reader keeps exactly.
    pub inexact: Option<String>,
    /// True if a key is one that `serde_json` takes for its own.
    pub reserved_key: bool,
}

/// Reads a JSON text without blanks and writes its canonical form.
struct Canon<'a> {
    text: &'a [u8],
    at: usize,
    out: Vec<u8>,
    depth: usize,
    found: Canonical,
    /// Members of all open objects, those of the innermost last.
    members: Vec<Member>,
    /// An object as it was before its members were put in order.
    unsorted: Vec<u8>,
}

/// One member of an object: its name in the text, with quotes, and the whole of it in the output.
#[derive(Clone, Debug)]
struct Member {
    name: Range<usize>,
    whole: Range<usize>,
    /// True if the order of its name's bytes is that of its UTF-16 code units.
    plain: bool,
    /// What a plain name begins with: in the order of such names, where it is not the same.
    head: u64,
}

/// A string in the text, quotes included.
struct Quoted {
    range: Range<usize>,
    /// True if there is a backslash in it.
    escaped: bool,
}

/// The canonical form of `text`, which `serde_json` wrote; `None` if it holds something unexpected.
pub(crate) fn reorder(text: &[u8]) -> Option<Canonical> {
    let out = Vec::with_capacity(text.len());
    let (members, unsorted, found) = (Vec::new(), Vec::new(), Canonical::default());
    let mut canon = Canon { text, at: 0, out, depth: 0, found, members, unsorted };
    canon.value()?;
    let Canon { at, out: bytes, found, .. } = canon;
    (at == text.len()).then_some(Canonical { bytes, ..found })
}

// === impl Canon ===

impl Canon<'_> {
    fn value(&mut self) -> Option<()> {
        match self.peek()? {
            b'{' => self.object(),
            b'[' => self.array(),
            b'"' => {
                let text = self.string()?.range;
                self.copy(text)
            }
            b'-' | b'0'..=b'9' => self.number(),
            _ => {
                let word = self.run(|byte| byte.is_ascii_lowercase())?;
                self.copy(word)
            }
        }
    }

    fn array(&mut self) -> Option<()> {
        self.take(b'[')?;
        self.deeper();
        self.out.push(b'[');
        if self.peek()? != b']' {
            self.value()?;
            while self.peek()? == b',' {
                self.take(b',')?;
                self.out.push(b',');
                self.value()?;
            }
        }
        self.take(b']')?;
        self.out.push(b']');
        self.depth -= 1;
        Some(())
    }

    fn object(&mut self) -> Option<()> {
        self.take(b'{')?;
        self.deeper();
        self.out.push(b'{');
        let first = self.members.len();
        let begun = self.out.len();
        if self.peek()? != b'}' {
            self.member()?;
            while self.peek()? == b',' {
                self.take(b',')?;
                self.member()?;
            }
        }
        self.take(b'}')?;
        self.sort(first, begun)?;
        self.members.truncate(first);
        // Every member left a comma behind it.
        if self.out.last() == Some(&b',') {
            self.out.pop();
        }
        self.out.push(b'}');
        self.depth -= 1;
        Some(())
    }

    fn deeper(&mut self) {
        self.depth += 1;
        self.found.depth = self.found.depth.max(self.depth);
    }

    fn member(&mut self) -> Option<()> {
        let begun = self.out.len();
        let Quoted { range: name, escaped } = self.string()?;
        let written = self.text.get(name.clone())?;
        self.found.reserved_key |= written.starts_with(RESERVED);
        let plain = !escaped && written.is_ascii();
        let head = head(written);
        self.out.extend_from_slice(written);
        self.take(b':')?;
        self.out.push(b':');
        self.value()?;
        self.out.push(b',');
        self.members.push(Member { name, whole: begun..self.out.len(), plain, head });
        Some(())
    }

    /// Puts the members from `first` on, which were written from `begun` on, in order.
    fn sort(&mut self, first: usize, begun: usize) -> Option<()> {
        let text = self.text;
        let members = self.members.get_mut(first..)?;
        let pairs = members.iter().zip(members.iter().skip(1));
        if pairs.clone().all(|(one, next)| compare(text, one, next) == Ordering::Less) {
            return Some(());
        }
        members.sort_by(|one, other| compare(text, one, other));
        let mut pairs = members.iter().zip(members.iter().skip(1));
        if pairs.any(|(one, next)| compare(text, one, next) != Ordering::Less) {
            // The same name twice: no form is canonical.
            return None;
        }
        self.unsorted.clear();
        self.unsorted.extend_from_slice(self.out.get(begun..)?);
        self.out.truncate(begun);
        for member in members {
            let whole = member.whole.start - begun..member.whole.end - begun;
            self.out.extend_from_slice(self.unsorted.get(whole)?);
        }
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        let run =
            self.run(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))?;
        let digits = self.text.get(run.clone())?;
        let digits = digits.strip_prefix(b"-").unwrap_or(digits);
        if digits.len() <= DIGITS_MAX && digits.iter().all(u8::is_ascii_digit) {
            return self.copy(run);
        }
        let number: f64 = serde_json::from_slice(self.text.get(run)?).ok()?;
        let number = serde_json_canonicalizer::to_vec(&number).ok()?;
        if self.found.inexact.is_none() {
            self.found.inexact = inexact(&number);
        }
        self.out.extend_from_slice(&number);
        Some(())
    }

    /// Passes over a string.
    fn string(&mut self) -> Option<Quoted> {
        let begun = self.at;
        self.take(b'"')?;
        let mut escaped = false;
        loop {
            let rest = self.text.get(self.at..)?;
            let length = memchr2(b'"', b'\\', rest)?;
            let end = rest.get(length) == Some(&b'"');
            self.at += length + if end { 1 } else { 2 };
            if end {
                return Some(Quoted { range: begun..self.at, escaped });
            }
            escaped = true;
        }
    }

    fn run(&mut self, belongs: impl Fn(u8) -> bool) -> Option<Range<usize>> {
        let begun = self.at;
        let rest = self.text.get(begun..)?;
        let length = rest.iter().position(|byte| !belongs(*byte)).unwrap_or(rest.len());
        self.at += length;
        (length > 0).then_some(begun..self.at)
    }

    fn copy(&mut self, range: Range<usize>) -> Option<()> {
        self.out.extend_from_slice(self.text.get(range)?);
        Some(())
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then_some(())?;
        self.at += 1;
        Some(())
    }
}

/// The order of names: by UTF-16 code units (RFC 8785, section 3.2.3).
fn compare(text: &[u8], one: &Member, other: &Member) -> Ordering {
    let plain = one.plain && other.plain;
    if plain && one.head != other.head {
        return one.head.cmp(&other.head);
    }
    let [name, other_name] = [one, other].map(|member| {
        let inside = member.name.start + 1..member.name.end - 1;
        text.get(inside).unwrap_or_default()
    });
    if plain {
        return name.cmp(other_name);
    }
    units(name).cmp(&units(other_name))
}

/// The first eight bytes of a name in quotes, as a number that orders as they do. A plain name
/// holds no zero, so one that ends is before all that go on.
fn head(quoted: &[u8]) -> u64 {
    let mut head = [0; 8];
    let inside = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    for (to, from) in head.iter_mut().zip(inside) {
        *to = *from;
    }
    u64::from_be_bytes(head)
}

/// The number, if it is a whole one that lost digits, or would lose them.
fn inexact(number: &[u8]) -> Option<String> {
    let number = str::from_utf8(number).ok()?;
    let whole = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let exact = number.parse().is_ok_and(|number: i64| number.unsigned_abs() <= INTEGER_MAX);
    (whole && !exact).then(|| number.to_owned())
}

fn units(name: &[u8]) -> Vec<u16> {
    let quoted = [b"\"".as_slice(), name, b"\""].concat();
    // What `serde_json` wrote it reads again.
    let name: String = serde_json::from_slice(&quoted).unwrap_or_default();
    name.encode_utf16().collect()
}

#[cfg(test)]
mod tests {
    use super::reorder;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn check(value: &Value) {
        let reordered = reorder(&serde_json::to_vec(value).unwrap());
        let canonical = serde_json_canonicalizer::to_vec(value).unwrap();
        let [reordered, canonical] =
            [reordered.unwrap().bytes, canonical].map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(reordered, canonical);
    }

    #[test]
    fn members_sort_by_utf_16_and_numbers_as_in_javascript() {
        check(&json!({ "\u{10000}": 1, "\u{e000}": 2, "é": 3, "e": 4, "": 5, "\n": 6, "\\": 7 }));
        check(&json!({ "resolved_at": 1, "resolved": 2, "resolved_as": 3, "resolve": 4, "r": 5 }));
        check(&json!({ "b": { "z": [], "a": {} }, "a": [{ "y": 1, "x": "\u{1}\"\\/\u{7f}" }] }));
        check(&json!([
            1.0,
            -0.0,
            1e21,
            1e-7,
            0.1,
            123_456_789_012_345_i64,
            9_007_199_254_740_991_i64
        ]));
        check(&json!([i64::MIN, u64::MAX, true, false, null, ""]));
    }

    #[test]
    fn what_serde_json_does_not_write_is_left_alone() {
        for text in
            ["", "{", "{\"a\":1,\"a\":2}", "{\"a\" :1}", "[1,]", "\"", "\"\\", "[1]x", "{,}"]
        {
            assert_eq!(reorder(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_readers_may_stumble_over_is_told() {
        let found = |value: &Value| {
            let found = reorder(&serde_json::to_vec(value).unwrap()).unwrap();
            (found.depth, found.inexact, found.reserved_key)
        };
        assert_eq!(found(&json!("{[1234567890123456789")), (0, None, false));
        let exact =
            json!({ "a": [9_007_199_254_740_991_i64, -9_007_199_254_740_991_i64, 1.5e300] });
        assert_eq!(found(&exact), (2, None, false));
        let first = Some("-9007199254740992".to_owned());
        let inexact = json!([[{}], -9_007_199_254_740_992_i64, u64::MAX]);
        assert_eq!(found(&inexact), (3, first, false));
        assert_eq!(found(&json!(1e20)).1.as_deref(), Some("100000000000000000000"));
        let key = "$serde_json::private::Number";
        assert_eq!(found(&json!({ "a": { key: "1" }, "b": key })), (2, None, true));
        assert_eq!(found(&json!({ "a": format!("\"{key}") })), (1, None, false));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner.clone()), 0..8)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
                prop::collection::vec(("[a-e\\\\\"é\u{e000}\u{10000}]{0,3}", inner), 0..8)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_the_other_implementation(value in any_json()) {
            check(&value);
        }

        #[test]
        fn any_bytes_give_a_result(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = reorder(&bytes);
        }
    }
}
