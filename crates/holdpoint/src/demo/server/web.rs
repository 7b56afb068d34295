//! The demo's way to the network: requests as told, and one tool with a credential of its own.
//!
//! Owns the client and the token that it was started with. Must never show that token.

use super::ToolFault;
use reqwest::Method;
use reqwest::redirect::Policy;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer that is shown, in characters.
const ANSWER_CHARS_MAX: usize = 16 << 10;

/// A client, and the API that it has a token for.
#[derive(Clone, Debug, Default)]
pub struct Web {
    /// The API, if there is one: `http://…`.
    pub endpoint: Option<String>,
    /// What it asks for.
    pub token: Option<BearerToken>,
}

/// A bearer token.
#[derive(Clone)]
pub struct BearerToken(pub String);

// === impl Web ===

impl Web {
    /// Sends one request and shows what came back.
    ///
    /// # Errors
    /// When it cannot be sent, or is answered with anything but success.
    pub fn request(
        &self,
        (method, url): (&str, &str),
        headers: &BTreeMap<String, String>,
        body: Option<String>,
    ) -> Result<String, ToolFault> {
        let unfit = |fault: &dyn std::fmt::Display| ToolFault::Unfit(fault.to_string());
        let method = Method::from_bytes(method.as_bytes()).map_err(|fault| unfit(&fault))?;
        // A proxy of the environment has no business between us and loopback.
        let client = reqwest::Client::builder().no_proxy().redirect(Policy::none());
        let client = client.timeout(TIMEOUT).build().map_err(|fault| unfit(&fault))?;
        let mut request = client.request(method, url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let answer = async {
            let answer = request.send().await?;
            Ok::<_, reqwest::Error>((answer.status(), answer.text().await?))
        };
        let answer = tokio::runtime::Handle::current().block_on(answer);
        let (status, text) = answer.map_err(|fault| unfit(&fault.without_url()))?;
        let text: String = text.chars().take(ANSWER_CHARS_MAX).collect();
        match status.is_success() {
            true => Ok(text),
            false => Err(ToolFault::Unfit(format!("{status}: {text}"))),
        }
    }

    /// Sets a variable of one environment, with the server's own token.
    ///
    /// # Errors
    /// When there is no API or token, or the API refuses.
    pub fn set_variable(
        &self,
        environment: &str,
        name: &str,
        value: &str,
    ) -> Result<String, ToolFault> {
        // JSON and GraphQL quote a text the same way.
        let (environment, name, value) = (json!(environment), json!(name), json!(value));
        self.graphql(&format!(
            "mutation {{ variableUpsert(environment: {environment}, name: {name}, \
             value: {value}) }}"
        ))
    }

    /// A variable of one environment, as `{"value": …}`; nothing is no value.
    ///
    /// # Errors
    /// When there is no API or token, or the API refuses.
    pub fn variable(&self, environment: &str, name: &str) -> Result<String, ToolFault> {
        let (environment, name) = (json!(environment), json!(name));
        let query = format!("{{ variable(environment: {environment}, name: {name}) }}");
        let answer: serde_json::Value = serde_json::from_str(&self.graphql(&query)?)?;
        let value = answer.pointer("/data/variable").cloned().unwrap_or_default();
        Ok(json!({ "value": value }).to_string())
    }

    /// Asks the API, with the server's own token.
    fn graphql(&self, query: &str) -> Result<String, ToolFault> {
        let missing = || ToolFault::Unfit("this server was started without an API".to_owned());
        let endpoint = self.endpoint.as_ref().ok_or_else(missing)?;
        let BearerToken(token) = self.token.as_ref().ok_or_else(missing)?;
        let headers = BTreeMap::from([
            ("authorization".to_owned(), format!("Bearer {token}")),
            ("content-type".to_owned(), "application/json".to_owned()),
        ]);
        let url = format!("{endpoint}/graphql");
        self.request(("POST", &url), &headers, Some(json!({ "query": query }).to_string()))
    }
}

// === impl BearerToken ===

impl std::fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BearerToken(…)")
    }
}
