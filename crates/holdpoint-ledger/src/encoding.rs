//! The bytes of a record: canonical JSON (RFC 8785), and nothing that decodes to the same record.
//!
//! Must not interpret records.

use holdpoint_types::{Record, canonical_bytes};

/// The largest whole number that every JSON reader keeps exactly, and how many digits it has.
const INTEGER_MAX: u64 = (1 << 53) - 1;
const DIGITS_MIN: usize = 16;
/// What the keys begin with by which `serde_json` passes on what JSON has no form for. Its reader
/// takes an object with such a key for something else than an object.
const RESERVED: &str = "\"$serde_json::private::";
/// How deep arrays and objects may be nested. The reader gives up at 128.
const DEPTH_MAX: usize = 120;

/// Why a record has no bytes, or bytes hold no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodingFault {
    /// Not the JSON of a record.
    #[error("not a record: {0}")]
    NotARecord(String),
    /// The JSON of a record, in another form than the canonical one.
    #[error("not the canonical form of its record (first difference at byte {at})")]
    NotCanonical {
        /// Offset of the first byte that differs.
        at: usize,
    },
    /// The record cannot be written.
    #[error("the record has no canonical form: {0}")]
    NotEncodable(String),
}

/// The bytes of `record`.
///
/// # Errors
/// When [`decode`] would not give it back: it holds a whole number that not every JSON reader keeps
/// exactly (RFC 7493, section 2.2), a key that the reader takes for its own, or is nested too
/// deep.
pub fn encode(record: &Record) -> Result<Vec<u8>, EncodingFault> {
    let bytes = canonical_bytes(record);
    let bytes = bytes.map_err(|error| EncodingFault::NotEncodable(error.to_string()))?;
    if let Some(number) = large_number(&bytes) {
        return Err(EncodingFault::NotEncodable(format!("`{number}` is too large")));
    }
    if has_reserved_key(&bytes) {
        let detail = "it has a key that begins with `$serde_json::private::`".to_owned();
        return Err(EncodingFault::NotEncodable(detail));
    }
    if depth(&bytes) > DEPTH_MAX {
        let detail = format!("it is nested deeper than {DEPTH_MAX}");
        return Err(EncodingFault::NotEncodable(detail));
    }
    Ok(bytes)
}

/// The record in `bytes`.
///
/// # Errors
/// When they hold no record, or are not exactly the bytes that [`encode`] gives for it.
pub fn decode(bytes: &[u8]) -> Result<Record, EncodingFault> {
    let record = serde_json::from_slice(bytes);
    let record = record.map_err(|error| EncodingFault::NotARecord(error.to_string()))?;
    let again = encode(&record)?;
    if again == bytes {
        return Ok(record);
    }
    let same = again.iter().zip(bytes).take_while(|(one, other)| one == other).count();
    Err(EncodingFault::NotCanonical { at: same })
}

/// True if an object in the canonical JSON text `bytes` has a reserved key.
fn has_reserved_key(bytes: &[u8]) -> bool {
    // Canonical text is UTF-8, and writes no character of a reserved key as an escape.
    let Ok(text) = str::from_utf8(bytes) else { return true };
    text.match_indices(RESERVED).any(|(at, found)| {
        // A quote inside a text is escaped; any other one before a `$` begins a text, and a text
        // before a colon is a key.
        let inside = text.get(..at).is_some_and(|before| before.ends_with('\\'));
        let rest = text.get(at + found.len()..).unwrap_or_default();
        !inside && after_text(rest).starts_with(':')
    })
}

/// What follows the text that `rest` is the end of.
fn after_text(rest: &str) -> &str {
    let mut escaped = false;
    let end = rest.find(|sign| {
        let quote = sign == '"' && !escaped;
        escaped = sign == '\\' && !escaped;
        quote
    });
    end.and_then(|end| rest.get(end + 1..)).unwrap_or_default()
}

/// How deep arrays and objects are nested in the JSON text `bytes`.
fn depth(bytes: &[u8]) -> usize {
    let (mut inside_text, mut escaped) = (false, false);
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in bytes {
        inside_text ^= *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        if !inside_text && b"{[".contains(byte) {
            depth += 1;
            deepest = deepest.max(depth);
        }
        if !inside_text && b"}]".contains(byte) {
            depth = depth.saturating_sub(1);
        }
    }
    deepest
}

/// A whole number in the JSON text `bytes` that has lost digits, or would lose them.
fn large_number(bytes: &[u8]) -> Option<&str> {
    let mut inside_text = false;
    let mut escaped = false;
    // Texts between numbers and numbers between texts: a number ends where a sign of neither
    // begins.
    for run in bytes.split(|byte| {
        let quote = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        inside_text ^= quote;
        inside_text || !b"0123456789-+.eE".contains(byte)
    }) {
        let whole = run.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-');
        let number = str::from_utf8(run).ok().filter(|run| whole && run.len() >= DIGITS_MIN);
        let exact =
            |number: &str| number.parse().is_ok_and(|n: i64| n.unsigned_abs() <= INTEGER_MAX);
        if let Some(number) = number.filter(|number| !exact(number)) {
            return Some(number);
        }
    }
    None
}
