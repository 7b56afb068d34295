//! How changes through upstream servers are seen before and taken back, as it is written. Must not
//! check what values mean.

use super::At;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// How changes through a server are seen before and taken back.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawUndo {
    /// Folders of this machine in which the server works: files that `effects` of its tools name
    /// there are kept before a call and can be put back. For a host: files that its own tools
    /// change there.
    #[schemars(extend("x-required" = true))]
    pub files: Option<Vec<At<String>>>,
}

/// How calls of one tool are seen before and taken back, by other tools of its server.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawToolUndo {
    /// The tool that reads what a call would change, before and after. It is called without being
    /// decided on: declare only one that reads.
    pub read: Option<At<RawRead>>,
    /// Members of the target that the call sets, as JSON Pointers, and where from.
    pub gives: BTreeMap<At<String>, At<RawMapped>>,
    /// `true` says that a call deletes its target.
    #[schemars(extend("x-default" = false))]
    pub deletes: Option<At<bool>>,
    /// The tool that takes a call back. Needs `read`.
    pub inverse: Option<At<RawInverse>>,
    /// How long a call waits before it is sent, in seconds (0 to 3600), so that it can still be
    /// stopped: for messages.
    #[schemars(extend("x-default" = 0))]
    pub delay_s: Option<At<u64>>,
    /// How far what it sends gets: `contained`, `wider` or `left`. That can never be taken back.
    #[schemars(extend("x-default" = "left"))]
    pub discloses: Option<RawDisclosure>,
}

/// How a target is read.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawRead {
    /// The tool, by its own name.
    #[schemars(extend("x-required" = true))]
    pub tool: Option<At<String>>,
    /// Its arguments, and where from.
    pub arguments: BTreeMap<At<String>, At<RawMapped>>,
    /// Where the target is, as a JSON Pointer into the structured content of the result, or into
    /// its text as JSON where there is none.
    #[schemars(extend("x-default" = "all of it"))]
    pub state: Option<At<String>>,
    /// `true` says that a result with `isError` means that the target is not there.
    #[schemars(extend("x-default" = false))]
    pub error_is_absence: Option<At<bool>>,
    /// Members that change by themselves, as JSON Pointers into the target: they are left out.
    pub volatile: Vec<At<String>>,
    /// Members that nobody is shown, as JSON Pointers into the target.
    pub redacted: Vec<At<String>>,
}

/// What takes a call back.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawInverse {
    /// The tool, by its own name.
    #[schemars(extend("x-required" = true))]
    pub tool: Option<At<String>>,
    /// Its arguments, and where from.
    pub arguments: BTreeMap<At<String>, At<RawMapped>>,
    /// Members of the target that it sets, where that is not what they were before.
    pub gives: BTreeMap<At<String>, At<RawMapped>>,
}

/// Where a value comes from: `/x` of the parameters, `before:/x` of the target before the call,
/// `result:/x` of the call's result, or `{ value = … }`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RawMapped {
    /// From somewhere.
    From(String),
    /// Always this.
    Constant {
        /// The value.
        value: serde_json::Value,
    },
}

/// How far something gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawDisclosure {
    /// It stays where it was.
    Contained,
    /// More people or systems inside can read it.
    Wider,
    /// It leaves for where nobody here has a say.
    Left,
}
