//! Names, ids and points in time. Each is checked once, where it enters, and trusted afterwards.
//! Must never make an id or read a clock: both are input data.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// Longest name of an agent, team or server, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Longest name of a tool, in bytes (MCP recommends at most 128).
const TOOL_BYTES_MAX: usize = 128;
/// What separates server and tool where many servers share one endpoint.
const SEPARATOR: &str = "__";

/// Requests of MCP besides `tools/call` that are governed, each as if it were a tool of its server
/// that reads. No real tool may have such a name.
pub const READ_REQUESTS: [&str; 4] =
    ["resources/read", "resources/subscribe", "prompts/get", "completion/complete"];

/// A text that may not be used as a name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a valid {what} name: {rule}")]
pub struct InvalidName {
    what: &'static str,
    text: String,
    rule: &'static str,
}

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

/// Counts stops and releases; a permit is only good in the epoch it was minted in.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                check_name($what, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($type), self.0)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// A named identity that acts.
    AgentName,
    "agent"
);
name!(
    /// The team that owns agents and answers for them.
    TeamName,
    "team"
);
name!(
    /// A person or system that operates Holdpoint over HTTP.
    OperatorName,
    "operator"
);
name!(
    /// An upstream server. Never contains `__`.
    ServerName,
    "server"
);
name!(
    /// A step of a plan.
    StepName,
    "step"
);

macro_rules! id {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(Uuid);

        impl $type {
            /// Builds a version 7 UUID (RFC 9562) from a time and 10 random bytes, both given.
            pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
                let millis = u64::try_from(now.0).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
            }

            /// The time that it was built from, if it is of this kind.
            pub fn made_at(&self) -> Option<Timestamp> {
                let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
                let millis = i64::try_from(seconds).ok()?.checked_mul(1000)?;
                Some(Timestamp(millis.checked_add(i64::from(nanos / 1_000_000))?))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($type), self.0)
            }
        }

        impl FromStr for $type {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

id!(
    /// One proposed tool call and everything that becomes of it.
    ActionId
);
id!(
    /// One run of one process that governs (a `serve` or a `wrap`).
    GatewayId
);
id!(
    /// One unit of authorised intent.
    TaskId
);
id!(
    /// One plan.
    PlanId
);

/// A tool of one upstream server. Its text is `server__tool`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ToolRef {
    server: ServerName,
    name: String,
}

// === impl ToolRef ===

impl ToolRef {
    /// Names the tool `name` of `server`.
    ///
    /// # Errors
    /// When `name` is empty, longer than 128 bytes, or holds anything but ASCII letters, digits,
    /// `_`, `-`, `.` and `/`.
    pub fn new(server: ServerName, name: &str) -> Result<Self, InvalidName> {
        let fits = (1..=TOOL_BYTES_MAX).contains(&name.len());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
        if !fits || !name.bytes().all(plain) {
            let rule = "use 1 to 128 ASCII letters, digits, `_`, `-`, `.` or `/`";
            let text = name.chars().take(TOOL_BYTES_MAX).collect();
            return Err(InvalidName { what: "tool", text, rule });
        }
        Ok(Self { server, name: name.to_owned() })
    }

    /// The server that offers the tool.
    pub fn server(&self) -> &ServerName {
        &self.server
    }

    /// The tool's name as its server knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True if this is no tool but one of [`READ_REQUESTS`].
    pub fn is_read_request(&self) -> bool {
        READ_REQUESTS.contains(&self.name.as_str())
    }
}

impl FromStr for ToolRef {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((server, name)) = text.split_once(SEPARATOR) else {
            let text = text.chars().take(TOOL_BYTES_MAX).collect();
            return Err(InvalidName { what: "tool", text, rule: "expected `server__tool`" });
        };
        Self::new(server.parse()?, name)
    }
}

impl fmt::Display for ToolRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{SEPARATOR}{}", self.server, self.name)
    }
}

impl fmt::Debug for ToolRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ToolRef({self})")
    }
}

impl Serialize for ToolRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ToolRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn check_name(what: &'static str, text: &str) -> Result<(), InvalidName> {
    let rule = "use 1 to 64 of `a-z`, `0-9`, `-`, `.` and single `_`, starting with a letter";
    let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    let starts = text.starts_with(|first: char| first.is_ascii_lowercase());
    // INVARIANT: no name ends in `_` or holds `__`, so `server__tool` splits in one way only.
    let splits = !text.contains(SEPARATOR) && !text.ends_with('_');
    if fits && starts && splits && text.bytes().all(plain) {
        return Ok(());
    }
    let text = text.chars().take(NAME_BYTES_MAX).collect();
    Err(InvalidName { what, text, rule })
}

#[cfg(test)]
mod tests {
    use super::{ActionId, ServerName, Timestamp, ToolRef};

    #[test]
    fn a_tool_reference_survives_its_text() {
        for text in ["fs__read_file", "fs__a__b", "fs___private", "my-server.v2__x/y"] {
            let tool: ToolRef = text.parse().unwrap();
            assert_eq!(tool.to_string(), text);
        }
        let tool: ToolRef = "fs___private".parse().unwrap();
        assert_eq!((tool.server().as_str(), tool.name()), ("fs", "_private"));
    }

    #[test]
    fn names_that_would_confuse_are_refused() {
        for text in ["", "a__b", "a_", "Upper", "1st", "space here", "ünicode", "a\n"] {
            assert!(text.parse::<ServerName>().is_err(), "{text}");
        }
        for text in ["fs", "fs__", "__x", "fs__a b", "fs__\u{202e}"] {
            assert!(text.parse::<ToolRef>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_have_a_length() {
        assert!("a".repeat(64).parse::<ServerName>().is_ok());
        assert!("a".repeat(65).parse::<ServerName>().is_err());
        assert!(format!("fs__{}", "a".repeat(128)).parse::<ToolRef>().is_ok());
        assert!(format!("fs__{}", "a".repeat(129)).parse::<ToolRef>().is_err());
    }

    #[test]
    fn ids_sort_by_time() {
        let early = ActionId::new(Timestamp(1_000), [0xff; 10]);
        let late = ActionId::new(Timestamp(1_001), [0; 10]);
        assert!(early < late);
        assert_eq!(early.to_string().parse(), Ok(early));
    }
}
