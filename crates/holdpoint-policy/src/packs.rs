//! The policy packs that ship with the product. Must not decide which one is used.

use holdpoint_types::PolicySource;

/// The starter pack: a safe beginning for operators to read and change.
pub fn starter_pack() -> Vec<PolicySource> {
    let text = include_str!("../../../policies/starter.cedar").to_owned();
    vec![PolicySource { name: "starter.cedar".to_owned(), text }]
}
