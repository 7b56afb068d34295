//! The bare proxy: passes HTTP requests and answers on as bytes, and does nothing else.
//!
//! The practical limit of any gateway. `bench-proxy HOST:PORT` prints its own URL. Must never look
//! into a body.

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::uri::{Authority, Scheme, Uri};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Where everything goes.
#[derive(Clone)]
struct Onward {
    client: Client<HttpConnector, Body>,
    authority: Authority,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let authority = std::env::args().nth(1).context("usage: bench-proxy HOST:PORT")?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let onward = Onward { client, authority: authority.parse()? };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/mcp", listener.local_addr()?);
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        // Without it, small answers may wait for the other side's acknowledgement.
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, Router::new().fallback(pass_on).with_state(onward)).await?)
}

async fn pass_on(State(onward): State<Onward>, mut request: Request) -> Response {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(onward.authority.clone());
    let Ok(uri) = Uri::from_parts(parts) else { return StatusCode::BAD_REQUEST.into_response() };
    *request.uri_mut() = uri;
    request.headers_mut().remove(header::HOST);
    match onward.client.request(request).await {
        Ok(response) => response.map(Body::new),
        Err(fault) => (StatusCode::BAD_GATEWAY, fault.to_string()).into_response(),
    }
}
