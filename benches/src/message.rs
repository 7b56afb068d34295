//! The one call that is measured, in both eras of MCP. Written without the product's own types, so
//! that a fault there cannot hide here.

use serde_json::{Value, json};

/// The tool that is called.
pub const TOOL: &str = "echo";
/// What it is asked to say: about as long as a short file path with a line of text.
pub const SAID: &str = "The deployment of orders-api 4.11.2 to eu-central finished; nine of nine \
                        pods are ready and the error rate is 0.02 percent over five minutes.";

/// How client and server agree on a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// 2025-06-18, by `initialize`.
    Legacy,
    /// 2026-07-28, by metadata on every request.
    Modern,
}

// === impl Era ===

impl Era {
    /// The revision, as the header names it.
    pub fn revision(self) -> &'static str {
        match self {
            Self::Legacy => "2025-06-18",
            Self::Modern => "2026-07-28",
        }
    }
}

impl std::str::FromStr for Era {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "legacy" => Ok(Self::Legacy),
            "modern" => Ok(Self::Modern),
            _ => anyhow::bail!("an era is `legacy` or `modern`, not `{text}`"),
        }
    }
}

/// `tools/call` of [`TOOL`] with the given id.
pub fn call(era: Era, id: u64) -> String {
    let mut params = json!({ "name": TOOL, "arguments": { "text": SAID } });
    if era == Era::Modern {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": era.revision(),
            "io.modelcontextprotocol/clientInfo": { "name": "bench", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {},
        });
    }
    request(id, "tools/call", &params)
}

/// The first request of a legacy client.
pub fn initialize(id: u64) -> String {
    let params = json!({
        "protocolVersion": Era::Legacy.revision(),
        "capabilities": {},
        "clientInfo": { "name": "bench", "version": "1" },
    });
    request(id, "initialize", &params)
}

/// What a legacy client says after the answer to `initialize`.
pub fn initialized() -> String {
    json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string()
}

/// True if these bytes, JSON or an event stream, hold the tool's answer.
pub fn is_echo(bytes: &[u8]) -> bool {
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    // A denial does not repeat the text, and an error of the tool says so.
    holds(&SAID.as_bytes()[..32]) && !holds(br#""isError":true"#)
}

fn request(id: u64, method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
}

#[cfg(test)]
mod tests {
    use super::{SAID, is_echo};

    #[test]
    fn only_the_echo_counts() {
        let answer = format!(r#"data: {{"result":{{"content":[{{"text":"{SAID}"}}]}}}}"#);
        assert!(is_echo(answer.as_bytes()));
        assert!(!is_echo(answer.replace("}}", r#"},"isError":true}"#).as_bytes()));
        assert!(!is_echo(b"Holdpoint denied this call"));
    }
}
