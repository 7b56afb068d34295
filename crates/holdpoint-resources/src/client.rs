//! One endpoint that takes JSON and gives JSON, for whoever has to ask somebody else's program.
//! Must never follow a redirect, nor read an answer without an end.

use crate::upstream::http::{client, header_map};
use crate::{SecretText, UpstreamFault};
use futures::StreamExt as _;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Url};

/// An endpoint, and how to reach it.
#[derive(Clone)]
pub struct HttpClient {
    client: Client,
    url: Url,
    headers: HeaderMap,
}

// === impl HttpClient ===

impl HttpClient {
    /// Reaches `url`, with these headers in each request.
    ///
    /// # Errors
    /// When the URL or a header cannot be used.
    pub fn new(url: &str, headers: &[(String, SecretText)]) -> Result<Self, UpstreamFault> {
        let fault = || UpstreamFault::Unavailable("the URL is malformed".to_owned());
        let url: Url = url.parse().map_err(|_| fault())?;
        let mut headers = header_map(headers)?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Self { client: client(&url)?, url, headers })
    }

    /// Posts `body`; the answer, if it is a success of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// In words, when there is no such answer.
    pub async fn post(&self, body: String, bytes_max: u64) -> Result<Vec<u8>, String> {
        let request = self.client.post(self.url.clone()).headers(self.headers.clone());
        let sent = request.body(body).send().await;
        let answer = sent.map_err(|fault| fault.without_url().to_string())?;
        if !answer.status().is_success() {
            return Err(format!("it answered {}", answer.status()));
        }
        let mut bytes = Vec::new();
        let mut stream = answer.bytes_stream();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(|fault| fault.without_url().to_string())?);
            if bytes.len() as u64 > bytes_max {
                return Err(format!("its answer has more than {bytes_max} bytes"));
            }
        }
        Ok(bytes)
    }
}
