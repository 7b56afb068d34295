//! The loopback address to which a browser comes back from an authorization server (RFC 8252,
//! section 7.3). Must never accept what another login or a web page sends, and never answer more
//! than one page.

use anyhow::Context as _;
use reqwest::Url;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Longest request head that is read, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How long one browser may take to send it.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// Where a browser comes back to.
const PATH: &str = "/callback";

/// A listener on this machine.
#[derive(Debug)]
pub struct Redirect {
    listener: TcpListener,
    url: String,
}

/// The browser that waits for a page.
#[derive(Debug)]
pub struct Page(TcpStream);

// === impl Redirect ===

impl Redirect {
    /// Listens on `port`, or on any free one.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn listen(port: Option<u16>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port.unwrap_or(0))).await;
        let listener = listener.context("no browser could come back: the port is taken")?;
        let address = listener.local_addr()?;
        Ok(Self { listener, url: format!("http://{address}{PATH}") })
    }

    /// The redirect URI.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits for the request that `is_ours` knows. Whatever else comes gets no page.
    ///
    /// # Errors
    /// When no connection can be taken.
    pub async fn wait_for(&self, is_ours: impl Fn(&Url) -> bool) -> anyhow::Result<(Url, Page)> {
        let (tell, mut heard) = tokio::sync::mpsc::channel::<(Url, TcpStream)>(1);
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let (stream, _) = accepted.context("no connection can be taken")?;
                    let (tell, base) = (tell.clone(), self.url.clone());
                    // One that says nothing must not keep others from being heard.
                    tokio::spawn(tokio::time::timeout(HEAD_PATIENCE, async move {
                        if let Some(found) = read(stream, &base).await {
                            let _ = tell.send(found).await;
                        }
                    }));
                }
                Some((url, stream)) = heard.recv() => {
                    if is_ours(&url) {
                        return Ok((url, Page(stream)));
                    }
                    Page(stream).refuse().await;
                }
            }
        }
    }
}

// === impl Page ===

impl Page {
    /// Tells the person how the login ended.
    pub async fn say(self, text: &str) {
        self.answer("200 OK", text).await;
    }

    async fn refuse(self) {
        self.answer("400 Bad Request", "This is not from the login that waits here.\n").await;
    }

    async fn answer(mut self, status: &str, text: &str) {
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n\
             {text}",
            text.len(),
        );
        // Whoever went away needs no page.
        let _ = self.0.write_all(answer.as_bytes()).await;
        let _ = self.0.shutdown().await;
    }
}

/// The URL of a `GET` of our path.
async fn read(mut stream: TcpStream, base: &str) -> Option<(Url, TcpStream)> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > HEAD_BYTES_MAX || stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let head = std::str::from_utf8(&head).ok()?;
    let target = head.lines().next()?.strip_prefix("GET ")?.split(' ').next()?;
    let query = target.strip_prefix(PATH)?;
    if !(query.is_empty() || query.starts_with('?')) {
        return None;
    }
    let url = Url::parse(&format!("{base}{query}")).ok()?;
    Some((url, stream))
}

#[cfg(test)]
mod tests {
    use super::{HEAD_BYTES_MAX, Redirect};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    /// What a browser gets for these bytes.
    async fn answer(address: &str, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Whoever is refused may be cut off while it still sends.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn a_browser_that_sends_without_end_gets_no_page() {
        let redirect = Redirect::listen(None).await.unwrap();
        let address = redirect.url().trim_start_matches("http://").replace("/callback", "");
        let long = "x".repeat(2 * HEAD_BYTES_MAX);
        let endless = format!("GET /callback?code=stolen HTTP/1.1\r\nX: {long}\r\n\r\n");
        let good = "GET /callback?code=good HTTP/1.1\r\nHost: x\r\n\r\n";
        let browsers = async {
            let refused = answer(&address, endless.as_bytes()).await;
            (refused, answer(&address, good.as_bytes()).await)
        };
        let login = async {
            let (url, page) = redirect.wait_for(|_| true).await.unwrap();
            page.say("done").await;
            url
        };
        let both = async { tokio::join!(browsers, login) };
        let both = tokio::time::timeout(Duration::from_secs(20), both);
        let ((refused, told), url) = both.await.unwrap();
        assert_eq!(refused, "");
        assert!(told.ends_with("done"), "{told}");
        assert_eq!(url.query(), Some("code=good"));
    }
}
