//! Change freezes as they are written. Must not check what values mean.

use super::At;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use std::borrow::Cow;

/// Spans of time in which changes are not wanted: one from `from` until `until`, or those of
/// `every` in `time_zone`, within `from` and `until` if they are there.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawFreeze {
    /// Its name.
    #[schemars(extend("x-required" = true))]
    pub name: Option<At<String>>,
    /// When it begins: RFC 3339 with offset, without quotes. Needed without `every`.
    pub from: Option<At<RawTime>>,
    /// When it ends; later than `from`. Needed without `every`.
    pub until: Option<At<RawTime>>,
    /// When it recurs: `fri 16:00 - mon 08:00`, `daily 22:00 - 06:00`. Where a clock is put back or
    /// forward, the longer reading counts.
    pub every: Vec<At<String>>,
    /// The time zone of `every`, as the IANA calls it: `Europe/Berlin`.
    pub time_zone: Option<At<String>>,
    /// The declared approval that lets a single call through while the freeze is in force; it needs
    /// at least two people. Without it, policies see the freeze, and the starter pack forbids
    /// changes.
    pub exception: Option<At<String>>,
}

/// A point in time as TOML writes it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(transparent)]
pub struct RawTime(pub toml::value::Datetime);

// === impl RawTime ===

impl JsonSchema for RawTime {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}
