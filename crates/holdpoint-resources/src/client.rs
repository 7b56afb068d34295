//! One endpoint that takes JSON and gives JSON, for whoever has to ask somebody else's program.
//! Must never follow a redirect, nor read an answer without an end.

use crate::upstream::http::{client, header_map};
use crate::{SecretText, UpstreamFault};
use futures::StreamExt as _;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, StatusCode};
use reqwest::{Client, Response, Url};

/// An endpoint, and how to reach it.
#[derive(Clone)]
pub struct HttpClient {
    client: Client,
    url: Url,
    headers: HeaderMap,
}

/// Why something could not be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TellFault {
    /// It arrived, and this very message is not wanted: the same again would not be, either.
    #[error("it answered {0}")]
    Refused(StatusCode),
    /// It arrived, and was turned away: for what it says, or for who says it.
    #[error("it answered {0}")]
    Rejected(StatusCode),
    /// It did not arrive, or not now.
    #[error("{0}")]
    Failed(String),
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
        let answer = self.send(body).await?;
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
    /// Posts `body`; a success is all that is wanted, whatever else the answer says.
    ///
    /// # Errors
    /// When there is no success.
    pub async fn tell(&self, body: String) -> Result<(), TellFault> {
        let status = self.send(body).await.map_err(TellFault::Failed)?.status();
        match status {
            _ if status.is_success() => Ok(()),
            StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY => Err(TellFault::Refused(status)),
            _ if status.is_client_error() => Err(TellFault::Rejected(status)),
            _ => Err(TellFault::Failed(format!("it answered {status}"))),
        }
    }

    async fn send(&self, body: String) -> Result<Response, String> {
        let request = self.client.post(self.url.clone()).headers(self.headers.clone());
        let sent = request.body(body).send().await;
        sent.map_err(|fault| fault.without_url().to_string())
    }
}
