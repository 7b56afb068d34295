//! What a thread over all servers keeps: its client's opening, its lines, and which request went
//! where. Must never keep a route for a request that was answered, but for a few.

use super::sessions::ClientThread;
use super::streams::Streams;
use holdpoint_resources::mcp::{RpcId, RpcRequest};
use holdpoint_types::ServerName;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many routes are kept before those of answered requests are looked for.
const ROUTES_MIN: usize = 64;

/// The front of a thread over all servers.
pub(super) struct Front {
    /// What the client said of itself.
    pub(super) opening: RpcRequest,
    /// From which level on it wants to read logs.
    pub(super) level: Mutex<Option<Value>>,
    /// Held while a line is opened.
    pub(super) opens: tokio::sync::Mutex<()>,
    lines: Mutex<BTreeMap<ServerName, Arc<ClientThread>>>,
    routes: Mutex<BTreeMap<RpcId, ServerName>>,
    last: AtomicU64,
}

// === impl Front ===

impl Front {
    pub(super) fn new(opening: RpcRequest) -> Self {
        Self {
            opening,
            level: Mutex::default(),
            opens: tokio::sync::Mutex::default(),
            lines: Mutex::default(),
            routes: Mutex::default(),
            last: AtomicU64::new(0),
        }
    }

    /// The line to a server, if it is open.
    pub(super) fn line(&self, server: &ServerName) -> Option<Arc<ClientThread>> {
        self.lines.lock().get(server).filter(|line| !line.is_over()).cloned()
    }

    /// Every open line.
    pub(super) fn lines(&self) -> Vec<Arc<ClientThread>> {
        self.lines.lock().values().filter(|line| !line.is_over()).cloned().collect()
    }

    pub(super) fn enter(&self, server: ServerName, line: Arc<ClientThread>) {
        self.lines.lock().insert(server, line);
    }

    /// Notes where a request went.
    pub(super) fn note_route(&self, id: &RpcId, server: &ServerName, streams: &Streams) {
        let mut routes = self.routes.lock();
        if routes.len() >= ROUTES_MIN {
            routes.retain(|id, _| streams.is_in_flight(id));
        }
        routes.insert(id.clone(), server.clone());
    }

    /// Where a request went.
    pub(super) fn route(&self, id: &RpcId) -> Option<ServerName> {
        self.routes.lock().get(id).cloned()
    }

    /// An id for a request of our own.
    pub(super) fn own_id(&self) -> RpcId {
        RpcId::Text(format!("holdpoint-own-{}", self.last.fetch_add(1, Ordering::Relaxed)))
    }
}
