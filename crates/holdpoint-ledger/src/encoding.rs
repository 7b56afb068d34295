//! The bytes of a record: canonical JSON (RFC 8785), and nothing that decodes to the same record.
//!
//! Must not interpret records.

use holdpoint_types::{Record, canonical_bytes};

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
/// When it holds what canonical JSON cannot say.
pub fn encode(record: &Record) -> Result<Vec<u8>, EncodingFault> {
    canonical_bytes(record).map_err(|error| EncodingFault::NotEncodable(error.to_string()))
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
