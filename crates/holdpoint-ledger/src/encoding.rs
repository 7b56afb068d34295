//! The bytes of a record: canonical JSON (RFC 8785), and nothing that decodes to the same record.
//!
//! Must not interpret records.

use holdpoint_types::{Canonical, Record, canonical_form};

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
    let refused = |detail: String| Err(EncodingFault::NotEncodable(detail));
    let Canonical { bytes, depth, inexact, reserved_key } = match canonical_form(record) {
        Ok(Some(form)) => form,
        Ok(None) => return refused("a key comes twice".to_owned()),
        Err(error) => return refused(error.to_string()),
    };
    if let Some(number) = inexact {
        return refused(format!("`{number}` is too large"));
    }
    if reserved_key {
        return refused("it has a key that begins with `$serde_json::private::`".to_owned());
    }
    if depth > DEPTH_MAX {
        return refused(format!("it is nested deeper than {DEPTH_MAX}"));
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
