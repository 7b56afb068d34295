//! `subscriptions/listen` of a modern client over all servers: one stream, a line to each server.
//! Must never follow a resource whose server it guesses.

use super::resources::not_found;
use super::sessions::ClientThread;
use super::streams::{Deliveries, Delivery};
use super::threads::Ending;
use super::{Asked, HttpDoor, Refused};
use crate::doors::reads::LISTS;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
use futures::stream::{self, StreamExt};
use holdpoint_resources::Upstream;
use holdpoint_resources::mcp::era::{self, META_SUBSCRIPTION};
use holdpoint_resources::mcp::{Message, RpcNotification, RpcRequest};
use holdpoint_types::{Reason, ServerName};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

/// Most resources that one stream follows.
const FOLLOWED_MAX: usize = 256;
/// How a server confirms.
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
/// The member of a filter that names resources.
const RESOURCES: &str = "resourceSubscriptions";

/// One server's part of a stream.
struct Part {
    honoured: Map<String, Value>,
    coming: Deliveries,
    ending: Ending,
}

// === impl HttpDoor ===

impl HttpDoor {
    /// Lets a modern client follow what changes on every server that its grants reach.
    pub(super) async fn follow_all(&self, asked: &Asked<'_>) -> Result<Response, Box<Refused>> {
        let filter = asked.request.param("notifications").and_then(Value::as_object);
        let Some(filter) = filter else { return Err(invalid(asked, "`notifications` is missing")) };
        let upstreams = self.upstreams.load_full();
        let mut filters: BTreeMap<ServerName, Map<String, Value>> = BTreeMap::new();
        let mut lists = filter.clone();
        lists.remove(RESOURCES);
        for server in upstreams.keys().filter(|server| self.reaches(asked, server)) {
            filters.insert(server.clone(), lists.clone());
        }
        let uris = filter.get(RESOURCES).and_then(Value::as_array).into_iter().flatten();
        let uris: Vec<_> = uris.filter_map(Value::as_str).collect();
        if uris.len() > FOLLOWED_MAX {
            return Err(invalid(asked, "too many resources for one stream"));
        }
        for uri in uris {
            let server = self.owner(asked, &upstreams, uri).await;
            let server = server.ok_or_else(|| not_found(&asked.request))?;
            let of = filters.entry(server).or_insert_with(|| lists.clone());
            let all = of.entry(RESOURCES).or_insert_with(|| json!([]));
            if let Some(all) = all.as_array_mut() {
                all.push(uri.into());
            }
        }
        filters.retain(|_, filter| filter.values().any(|wanted| *wanted != Value::Bool(false)));
        let parts = filters.into_iter().filter_map(|(server, filter)| {
            let upstream = upstreams.get(&server)?.for_agent(&asked.agent);
            Some(async move { self.follow_one(asked, (&server, upstream), filter).await })
        });
        let parts: Result<Vec<_>, _> = join_all(parts).await.into_iter().collect();
        Ok(together(&asked.request, parts?.into_iter().flatten().collect()))
    }

    /// True if the agent's grants reach anything of `server`.
    pub(super) fn reaches(&self, asked: &Asked<'_>, server: &ServerName) -> bool {
        let settings = self.governor.settings();
        let tools = self.governor.catalog().all().into_iter();
        let mut tools = tools.filter(|tool| tool.name.server() == server);
        tools.any(|tool| settings.reaches(&asked.agent, &tool.name, tool.class(&settings)))
            || LISTS.iter().any(|list| list.is_shown(&settings, &asked.agent, server))
    }

    /// A server that cannot be followed is left out, unless it was asked for a resource.
    async fn follow_one(
        &self,
        asked: &Asked<'_>,
        (server, upstream): (&ServerName, Upstream),
        filter: Map<String, Value>,
    ) -> Result<Option<Part>, Box<Refused>> {
        let named = filter.contains_key(RESOURCES);
        let mut request = asked.request.clone();
        if let Some(params) = request.params.as_mut().and_then(Value::as_object_mut) {
            params.insert("notifications".into(), Value::Object(filter));
        }
        let part = match upstream.era().await {
            Ok(era) => {
                let begun = self.begin_thread(asked, server, (Some(era), None)).await?;
                match begun {
                    Some((line, upstream)) => begin(line, &upstream, &request).await,
                    None => Err("there is no line to it".to_owned()),
                }
            }
            Err(fault) => Err(fault.to_string()),
        };
        match part {
            Ok(part) => Ok(Some(part)),
            Err(why) if named => {
                let refused = Refused::new(StatusCode::OK, Reason::UpstreamUnavailable, why);
                Err(refused.coded(era::INTERNAL_ERROR).about(&asked.request))
            }
            Err(why) => {
                tracing::warn!(%server, why, "its changes cannot be followed");
                Ok(None)
            }
        }
    }
}

/// Subscribes on one line; ready when the server has confirmed it.
async fn begin(
    line: Arc<ClientThread>,
    upstream: &Upstream,
    request: &RpcRequest,
) -> Result<Part, String> {
    let ending = Ending(Arc::clone(&line));
    let asked = line.ask(&request.to_bytes(), (&request.id, None)).await;
    let Ok(Some(mut coming)) = asked else { return Err("the line is over".to_owned()) };
    let honoured = tokio::time::timeout(upstream.spec().timeout, confirmed(&mut coming)).await;
    let honoured = honoured.unwrap_or_else(|_| Err("no answer in time".to_owned()))?;
    Ok(Part { honoured, coming, ending })
}

/// What a server confirms; whatever it says before that is not about the subscription.
async fn confirmed(coming: &mut Deliveries) -> Result<Map<String, Value>, String> {
    loop {
        let delivery = coming.recv().await.ok_or("the server ended")?;
        match Message::from_upstream(&delivery.text, usize::MAX) {
            Ok(Message::Notification(note)) if note.method == ACKNOWLEDGED => {
                let honoured = note.params.as_ref().and_then(|params| params.get("notifications"));
                return Ok(honoured.and_then(Value::as_object).cloned().unwrap_or_default());
            }
            Ok(Message::Response(response)) => {
                return Err(format!("{:.512}", response.outcome.raw().get()));
            }
            Ok(Message::Notification(_) | Message::Request(_)) => {}
            Err(fault) => return Err(fault.to_string()),
        }
    }
}

/// One stream of all parts, confirmed by one message.
fn together(request: &RpcRequest, parts: Vec<Part>) -> Response {
    let mut honoured = Map::new();
    for part in &parts {
        for (name, value) in &part.honoured {
            match (honoured.get_mut(name), value) {
                (Some(Value::Array(all)), Value::Array(more)) => all.extend(more.iter().cloned()),
                (Some(_), _) => {}
                (None, value) => {
                    honoured.insert(name.clone(), value.clone());
                }
            }
        }
    }
    let meta = json!({ META_SUBSCRIPTION: request.id.to_value() });
    let params = json!({ "notifications": honoured, "_meta": meta });
    let first = RpcNotification::new(ACKNOWLEDGED, params);
    let first = String::from_utf8_lossy(&first.to_bytes()).into_owned();
    let parts = parts.into_iter().map(|part| {
        let coming = stream::unfold((part.coming, part.ending), async |(mut coming, ending)| {
            let delivery: Delivery = coming.recv().await?;
            // The end of one server's part is not the end of the stream.
            (!delivery.last).then_some((delivery, (coming, ending)))
        });
        coming.map(|delivery| String::from_utf8_lossy(&delivery.text).into_owned()).boxed()
    });
    let all = stream::iter([first]).chain(stream::select_all(parts));
    // In a JSON text on one line a carriage return can only be space.
    let all = all.map(|text| Ok::<_, Infallible>(Event::default().data(text.replace('\r', " "))));
    Sse::new(all).keep_alive(KeepAlive::default()).into_response()
}

fn invalid(asked: &Asked<'_>, text: &str) -> Box<Refused> {
    let refused = Refused::new(StatusCode::OK, Reason::ParametersInvalid, text.to_owned());
    refused.coded(era::INVALID_PARAMS).about(&asked.request)
}

#[cfg(test)]
mod tests {
    use super::{Asked, FOLLOWED_MAX, HttpDoor};
    use crate::doors::http::HttpSettings;
    use axum::http::HeaderMap;
    use holdpoint_resources::mcp::era::Era;
    use holdpoint_resources::mcp::{RpcId, RpcRequest};
    use holdpoint_types::{JsonLimits, Reason};
    use serde_json::{Value, json};

    #[tokio::test]
    async fn one_stream_follows_so_many_resources() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = crate::tests::runtime(dir.path()).await;
        let settings = HttpSettings {
            store: dir.path().to_owned(),
            hosts: Vec::new(),
            anonymous: None,
            operators: Vec::new(),
            links: Default::default(),
            oauth: None,
            json: JsonLimits::default(),
        };
        let door = HttpDoor::new(runtime.governor().clone(), Default::default(), settings).unwrap();
        let refused = async |count: usize| {
            let uris: Vec<_> =
                (0..count).map(|number| Value::from(format!("x://{number}"))).collect();
            let filter = json!({ "notifications": { "resourceSubscriptions": uris } });
            let asked = Asked {
                agent: "coder".parse().unwrap(),
                server: None,
                era: Era::Modern,
                events: true,
                headers: &HeaderMap::new(),
                request: RpcRequest::new(RpcId::Number(1), "subscriptions/listen", filter),
            };
            door.follow_all(&asked).await.err().map(|refused| refused.reason)
        };
        assert_eq!(refused(FOLLOWED_MAX + 1).await, Some(Reason::ParametersInvalid));
        // Fewer are looked for, and here no server has them.
        assert_eq!(refused(FOLLOWED_MAX).await, Some(Reason::ToolUnknown));
        assert_eq!(refused(0).await, None);
        runtime.shut_down().await;
    }
}
