//! Servers whose agents have credentials of their own: one connection for each agent.
//! Must never lead one agent over another's connection.

use super::{Transport, Upstream, UpstreamFault, UpstreamSpec};
use crate::credentials::{Bearer, Holder, Sharing};
use holdpoint_types::AgentName;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Most agents whose connection is kept while nobody uses it.
const IDLE_MAX: usize = 256;

/// With whose credential a server is reached.
#[derive(Debug)]
pub(super) enum Signs {
    /// With none.
    Nothing,
    /// With one.
    As(Bearer),
    /// With that of each agent, over a connection of its own.
    AsEach(Mutex<BTreeMap<AgentName, Upstream>>),
}

// === impl Signs ===

impl Signs {
    pub(super) fn of(spec: &UpstreamSpec) -> Self {
        let Transport::Http { oauth: Some(oauth), .. } = &spec.transport else {
            return Self::Nothing;
        };
        match oauth.sharing {
            Sharing::Shared => Self::As(Bearer::new(Arc::clone(oauth), Holder::Everybody)),
            Sharing::PerAgent => Self::AsEach(Mutex::default()),
        }
    }

    /// The credential to send, if one is wanted.
    pub(super) fn bearer(&self) -> Result<Option<&Bearer>, UpstreamFault> {
        match self {
            Self::Nothing => Ok(None),
            Self::As(bearer) => Ok(Some(bearer)),
            Self::AsEach(_) => {
                let text = "the server is reached for one agent at a time".to_owned();
                Err(UpstreamFault::Unauthorized(text))
            }
        }
    }

    /// The connections of agents.
    pub(super) fn agents(&self) -> Vec<Upstream> {
        match self {
            Self::Nothing | Self::As(_) => Vec::new(),
            Self::AsEach(own) => {
                own.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
            }
        }
    }
}

// === impl Upstream ===

impl Upstream {
    /// The server as `agent` reaches it: over a connection of its own if its credential is its own.
    pub fn for_agent(&self, agent: &AgentName) -> Self {
        let (Signs::AsEach(own), Transport::Http { oauth: Some(oauth), .. }) =
            (&self.0.signs, &self.0.spec.transport)
        else {
            return self.clone();
        };
        let mut own = own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upstream) = own.get(agent) {
            return upstream.clone();
        }
        if own.len() >= IDLE_MAX {
            own.retain(|_, upstream| Arc::strong_count(&upstream.0) > 1);
        }
        let bearer = Bearer::new(Arc::clone(oauth), Holder::Agent(agent.clone()));
        let mut upstream = Self::signed_by(self.0.spec.clone(), Signs::As(bearer));
        if let Some(inner) = Arc::get_mut(&mut upstream.0) {
            inner.closed = self.0.closed.child_token();
        }
        own.insert(agent.clone(), upstream.clone());
        upstream
    }

    /// True if `agent` may be shown the tool `name` as far as the server is concerned: always,
    /// unless each agent has its own list.
    pub fn offers(&self, agent: &AgentName, name: &str) -> bool {
        let Signs::AsEach(own) = &self.0.signs else { return true };
        let own = own.lock().unwrap_or_else(PoisonError::into_inner);
        own.get(agent).is_some_and(|upstream| upstream.offered().contains(name))
    }

    /// True if what it offers to one agent says nothing about what it offers to another.
    pub fn is_per_agent(&self) -> bool {
        matches!(self.0.signs, Signs::AsEach(_))
    }

    /// The credential that goes with each request, if one is wanted.
    ///
    /// # Errors
    /// When each agent has its own: see [`Self::for_agent`].
    pub fn bearer(&self) -> Result<Option<Bearer>, UpstreamFault> {
        self.0.signs.bearer().map(Option::<&Bearer>::cloned)
    }
}

#[cfg(test)]
mod tests {
    use super::{AgentName, IDLE_MAX, Sharing, Transport, Upstream, UpstreamSpec};
    use crate::credentials::{ClientIdentity, GrantKind, OAuthSpec, Vault};
    use std::sync::Arc;
    use std::time::Duration;

    #[tokio::test]
    async fn so_many_connections_that_no_agent_uses_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (url, server) = ("https://mcp.example.com/mcp".to_owned(), "crm".parse().unwrap());
        let oauth = OAuthSpec {
            server: "crm".parse().unwrap(),
            url: url.clone(),
            sharing: Sharing::PerAgent,
            scopes: Vec::new(),
            client: ClientIdentity::Dynamic,
            issuer: None,
            grant: GrantKind::AuthorizationCode,
            vault: Vault::new(dir.path(), None),
        };
        let transport = Transport::Http { url, headers: Vec::new(), oauth: Some(Arc::new(oauth)) };
        let (timeout, limits) = (Duration::from_secs(1), Default::default());
        let upstream = Upstream::new(UpstreamSpec { server, transport, timeout, limits });
        let agent = |number: usize| -> AgentName { format!("a{number}").parse().unwrap() };
        let used = upstream.for_agent(&agent(0));
        for number in 1..1000 {
            upstream.for_agent(&agent(number));
            assert!(upstream.0.signs.agents().len() <= IDLE_MAX);
        }
        // One that is in use stays.
        assert!(Arc::ptr_eq(&used.0, &upstream.for_agent(&agent(0)).0));
    }
}
