//! The bytes of a record: canonical JSON (RFC 8785), and nothing that decodes to the same record.
//!
//! Must not interpret records.

use holdpoint_types::{Record, canonical_bytes};

/// The largest whole number that every JSON reader keeps exactly, and how many digits it has.
const INTEGER_MAX: u64 = (1 << 53) - 1;
const DIGITS_MIN: usize = 16;

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
/// When it holds a whole number that not every JSON reader keeps exactly (RFC 7493, section 2.2).
pub fn encode(record: &Record) -> Result<Vec<u8>, EncodingFault> {
    let bytes = canonical_bytes(record);
    let bytes = bytes.map_err(|error| EncodingFault::NotEncodable(error.to_string()))?;
    match large_number(&bytes) {
        None => Ok(bytes),
        Some(number) => Err(EncodingFault::NotEncodable(format!("`{number}` is too large"))),
    }
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
