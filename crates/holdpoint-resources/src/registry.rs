//! Which resource stands for which server, what their previews hold open, and the way of an action
//! through them: previewed, its undo made durable, executed.
//!
//! INVARIANT: what takes an action back is durable before the action is executed. Must never
//! execute anything but what was previewed under the same action.

use crate::archive::{Archive, Kept, Label};
use crate::credentials::VaultFault;
use crate::resource::{
    Executed, Forward, Preview, Proposed, Resource, ResourceFault, Reverting, TargetState, Undo,
};
use crate::upstream::{Cancels, Ended};
use futures::future::BoxFuture;
use holdpoint_control::Permit;
use holdpoint_types::{
    ActionId, Digest, Reason, Reversibility, ServerName, Timestamp, ToolRef, canonical_digest,
};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How long a preview may hold something open before it is executed or dropped, in milliseconds.
const HELD_MS_MAX: i64 = 60_000;

/// Whether a server's calls can run without its resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The resource is the server: a call runs in it or not at all.
    Serves,
    /// The resource stands beside a server, which runs the calls.
    Beside,
}

/// All resources, by the servers that they stand for.
#[derive(Default)]
pub struct Resources {
    standing: BTreeMap<ServerName, (Place, Arc<dyn Standing>)>,
    archive: Option<Archive>,
    /// How long previews and undo are kept, in milliseconds.
    keep_ms: i64,
}

/// What a revert would do; nothing is changed yet.
#[derive(Clone, Debug, PartialEq)]
pub struct RevertPreview {
    /// What would be put back.
    pub preview: Preview,
    /// What would be kept as it is.
    pub conflicts: Vec<crate::resource::Conflict>,
    /// What was captured.
    pub undo: Undo,
}

/// A resource whose kind nobody needs to know.
trait Standing: Send + Sync {
    fn preview<'a>(
        &'a self,
        action: ActionId,
        proposed: Proposed<'a>,
        whole: bool,
    ) -> BoxFuture<'a, Result<Option<Preview>, ResourceFault>>;
    fn expired(&self, now: Timestamp) -> BoxFuture<'_, Result<Vec<String>, ResourceFault>>;
    fn let_go<'a>(
        &'a self,
        expired: &'a str,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<(), ResourceFault>>;
    fn warnings(&self) -> BoxFuture<'_, Result<Vec<String>, ResourceFault>>;
    fn keeps_busy(&self, tool: &ToolRef) -> bool;
    fn holds(&self, action: ActionId) -> bool;
    fn undo(&self, action: ActionId) -> Option<Undo>;
    fn forget(&self, action: ActionId);
    fn execute<'a>(
        &'a self,
        permit: Permit,
        now: Timestamp,
        around: (Cancels, Forward),
    ) -> BoxFuture<'a, Executed>;
    fn look_after<'a>(
        &'a self,
        undo: &'a Undo,
    ) -> BoxFuture<'a, Result<Option<Undo>, ResourceFault>>;
    fn verify<'a>(&'a self, undo: &'a Undo) -> BoxFuture<'a, Result<TargetState, ResourceFault>>;
    fn revert<'a>(
        &'a self,
        proposed: (ActionId, Proposed<'a>),
        undo: &'a Undo,
    ) -> BoxFuture<'a, Result<RevertPreview, ResourceFault>>;
}

/// One resource with what its previews hold open.
struct Stand<R: Resource> {
    resource: R,
    held: Mutex<BTreeMap<ActionId, Held<R::Prepared>>>,
}

/// What a preview holds open, and what a permit must say to let it run.
struct Held<P> {
    tool: ToolRef,
    parameters: Digest,
    since: Timestamp,
    prepared: P,
}

// === impl Resources ===

impl Resources {
    /// No resource yet; what they capture goes into `archive` and is kept so long.
    pub fn new(archive: Archive, keep_ms: i64) -> Self {
        Self { standing: BTreeMap::new(), archive: Some(archive), keep_ms }
    }

    /// Lets `resource` stand for `server`.
    pub fn add<R: Resource>(&mut self, server: ServerName, place: Place, resource: R) {
        let stand = Stand { resource, held: Mutex::default() };
        self.standing.insert(server, (place, Arc::new(stand)));
    }

    /// True if a resource stands for `server`.
    pub fn stands_for(&self, server: &ServerName) -> bool {
        self.standing.contains_key(server)
    }

    /// What is kept in the targets themselves and is over at `now`, by server and address. Targets
    /// that cannot be asked have nothing.
    pub async fn expired(&self, now: Timestamp) -> Vec<(ServerName, String)> {
        let mut all = Vec::new();
        for (server, (_, standing)) in &self.standing {
            match standing.expired(now).await {
                Ok(found) => all.extend(found.into_iter().map(|one| (server.clone(), one))),
                Err(fault) => tracing::debug!(%server, %fault, "what is over cannot be looked for"),
            }
        }
        all
    }

    /// Deletes, for good, what [`Self::expired`] named.
    ///
    /// # Errors
    /// When it is not over, not ours, or cannot be deleted; it is all there then.
    pub async fn let_go(
        &self,
        server: &ServerName,
        (expired, now): (&str, Timestamp),
    ) -> Result<(), ResourceFault> {
        self.standing(server)?.let_go(expired, now).await
    }

    /// What an operator should know of how targets are reached, by server, or why one cannot be
    /// asked.
    pub async fn warnings(&self) -> Vec<(ServerName, Result<String, ResourceFault>)> {
        let each = self.standing.iter().map(async |(server, (_, standing))| {
            let told = match standing.warnings().await {
                Ok(told) => told.into_iter().map(Ok).collect(),
                Err(fault) => vec![Err(fault)],
            };
            told.into_iter().map(|said| (server.clone(), said)).collect::<Vec<_>>()
        });
        futures::future::join_all(each).await.into_iter().flatten().collect()
    }

    /// Whether calls of `server` can run without a resource; `None` if none stands for it.
    pub fn place_of(&self, server: &ServerName) -> Option<Place> {
        self.standing.get(server).map(|(place, _)| *place)
    }

    /// True if a look at what `tool` would do keeps its target from others.
    pub fn keeps_busy(&self, tool: &ToolRef) -> bool {
        self.standing.get(tool.server()).is_some_and(|(_, standing)| standing.keeps_busy(tool))
    }

    /// What `proposed` would cause; `None` where nobody can tell, or nothing is to be told.
    /// Whatever it holds open waits for [`Self::execute`] or [`Self::forget`].
    ///
    /// # Errors
    /// When it should be known and is not.
    pub async fn preview(
        &self,
        action: ActionId,
        proposed: Proposed<'_>,
    ) -> Result<Option<Preview>, ResourceFault> {
        let Some((_, standing)) = self.standing.get(proposed.tool.server()) else {
            return Ok(None);
        };
        standing.preview(action, proposed, false).await
    }

    /// The same for a change that people approved although it is larger than the limits.
    ///
    /// # Errors
    /// As [`Self::preview`].
    pub async fn preview_whole(
        &self,
        action: ActionId,
        proposed: Proposed<'_>,
    ) -> Result<Option<Preview>, ResourceFault> {
        let Some((_, standing)) = self.standing.get(proposed.tool.server()) else {
            return Ok(None);
        };
        standing.preview(action, proposed, true).await
    }

    /// Lets go of what a preview holds open.
    pub fn forget(&self, action: ActionId, server: &ServerName) {
        if let Some((_, standing)) = self.standing.get(server) {
            standing.forget(action);
        }
    }

    /// Executes what was previewed, or, where nothing was, lets `forward` run the call.
    pub async fn execute(
        &self,
        permit: Permit,
        now: Timestamp,
        (cancels, forward): (Cancels, Forward),
    ) -> Ended {
        let server = permit.tool().server().clone();
        let Some((place, standing)) = self.standing.get(&server) else {
            return forward(permit).await;
        };
        let action = permit.action();
        if !standing.holds(action) {
            return match place {
                Place::Beside => forward(permit).await,
                Place::Serves => not_sent("what it would do was not seen, so it does not run"),
            };
        }
        if let Some(undo) = standing.undo(action)
            && let Err(fault) = self.keep_undo(action, &server, (&undo, now)).await
        {
            standing.forget(action);
            return not_sent(&format!("what would take it back cannot be kept: {fault}"));
        }
        let Executed { ended, undo } = standing.execute(permit, now, (cancels, forward)).await;
        if let Some(undo) = undo
            && let Err(fault) = self.keep_undo(action, &server, (&undo, now)).await
        {
            // What was kept before it ran is still there.
            tracing::error!(%action, %fault, "what an action left could not be kept");
        }
        ended
    }

    /// Keeps what a call that is not executed would do, for whoever decides it.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub async fn keep_preview(
        &self,
        action: ActionId,
        server: &ServerName,
        (preview, now): (Preview, Timestamp),
    ) -> Result<(), VaultFault> {
        self.keep(action, server, (Kept::Preview, now), preview).await
    }

    /// What was kept of an action that was not executed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn kept_preview(&self, action: ActionId) -> Result<Option<Preview>, VaultFault> {
        let Some(archive) = &self.archive else { return Ok(None) };
        Ok(archive.read(action, Kept::Preview)?.map(|(_, preview)| preview))
    }

    /// What takes `action` back, if it is still kept.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn kept_undo(&self, action: ActionId) -> Result<Option<(Label, Undo)>, VaultFault> {
        let Some(archive) = &self.archive else { return Ok(None) };
        archive.read(action, Kept::Undo)
    }

    /// Looks at what `action` left, which a host executed, and keeps it with what takes it back.
    ///
    /// # Errors
    /// When it cannot be seen or kept; what was kept before is still there.
    pub async fn look_after(
        &self,
        action: ActionId,
        server: &ServerName,
        now: Timestamp,
    ) -> Result<(), ResourceFault> {
        let unkept = |fault: VaultFault| ResourceFault::Unavailable(fault.to_string());
        let Some((_, standing)) = self.standing.get(server) else { return Ok(()) };
        let Some((_, undo)) = self.kept_undo(action).map_err(unkept)? else { return Ok(()) };
        match standing.look_after(&undo).await? {
            Some(undo) => self.keep_undo(action, server, (&undo, now)).await.map_err(unkept),
            None => Ok(()),
        }
    }

    /// What the target of a captured action is now.
    ///
    /// # Errors
    /// When no resource can tell.
    pub async fn verify(
        &self,
        server: &ServerName,
        undo: &Undo,
    ) -> Result<TargetState, ResourceFault> {
        self.standing(server)?.verify(undo).await
    }

    /// Prepares to take an action back, as the action `proposed`. What it holds open waits for
    /// [`Self::execute`] or [`Self::forget`].
    ///
    /// # Errors
    /// When it cannot be taken back, and why.
    pub async fn revert(
        &self,
        (action, proposed): (ActionId, Proposed<'_>),
        undo: &Undo,
    ) -> Result<RevertPreview, ResourceFault> {
        if undo.guarantee == Reversibility::Irreversible {
            let why = "nothing was captured that takes it back".to_owned();
            return Err(ResourceFault::Impossible(why));
        }
        if undo.until.is_some_and(|until| until <= proposed.now) {
            return Err(ResourceFault::Impossible("its time is over".to_owned()));
        }
        let standing = self.standing(proposed.tool.server())?;
        standing.revert((action, proposed), undo).await
    }

    /// Deletes what is kept no longer.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn prune(&self, now: Timestamp) -> Result<usize, VaultFault> {
        self.archive.as_ref().map_or(Ok(0), |archive| archive.prune(now))
    }

    fn standing(&self, server: &ServerName) -> Result<&Arc<dyn Standing>, ResourceFault> {
        let nobody = || ResourceFault::Impossible(format!("no resource stands for `{server}`"));
        self.standing.get(server).map(|(_, standing)| standing).ok_or_else(nobody)
    }

    async fn keep_undo(
        &self,
        action: ActionId,
        server: &ServerName,
        (undo, now): (&Undo, Timestamp),
    ) -> Result<(), VaultFault> {
        self.keep(action, server, (Kept::Undo, now), undo.clone()).await
    }

    async fn keep<T: serde::Serialize + Send + 'static>(
        &self,
        action: ActionId,
        server: &ServerName,
        (kept, now): (Kept, Timestamp),
        value: T,
    ) -> Result<(), VaultFault> {
        let Some(archive) = self.archive.clone() else { return Ok(()) };
        let until_ms = Timestamp(now.0.saturating_add(self.keep_ms));
        let label = Label { action, kept, server: server.clone(), until_ms };
        let work = tokio::task::spawn_blocking(move || archive.keep(&label, &value));
        let failed = |fault: tokio::task::JoinError| VaultFault::Key(fault.to_string());
        work.await.map_err(failed)?
    }
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<_> = self.standing.keys().collect();
        f.debug_struct("Resources").field("servers", &servers).finish_non_exhaustive()
    }
}

// === impl Stand ===

impl<R: Resource> Stand<R> {
    fn held(&self) -> MutexGuard<'_, BTreeMap<ActionId, Held<R::Prepared>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(
        &self,
        action: ActionId,
        proposed: Proposed<'_>,
        prepared: R::Prepared,
    ) -> Result<(), ResourceFault> {
        let parameters = canonical_digest(proposed.parameters)
            .map_err(|fault| ResourceFault::Invalid(fault.to_string()))?;
        let (tool, since) = (proposed.tool.clone(), proposed.now);
        let mut held = self.held();
        // Who never came for it has had its time.
        held.retain(|_, one| since.0.saturating_sub(one.since.0) < HELD_MS_MAX);
        held.insert(action, Held { tool, parameters, since, prepared });
        Ok(())
    }
}

impl<R: Resource> Standing for Stand<R> {
    fn preview<'a>(
        &'a self,
        action: ActionId,
        proposed: Proposed<'a>,
        whole: bool,
    ) -> BoxFuture<'a, Result<Option<Preview>, ResourceFault>> {
        Box::pin(async move {
            let seen = match whole {
                true => self.resource.preview_whole(proposed).await?,
                false => self.resource.preview(proposed).await?,
            };
            let Some((preview, prepared)) = seen else { return Ok(None) };
            self.hold(action, proposed, prepared)?;
            Ok(Some(preview))
        })
    }

    fn expired(&self, now: Timestamp) -> BoxFuture<'_, Result<Vec<String>, ResourceFault>> {
        Box::pin(self.resource.expired(now))
    }

    fn let_go<'a>(
        &'a self,
        expired: &'a str,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<(), ResourceFault>> {
        Box::pin(self.resource.let_go(expired, now))
    }

    fn warnings(&self) -> BoxFuture<'_, Result<Vec<String>, ResourceFault>> {
        Box::pin(self.resource.warnings())
    }

    fn keeps_busy(&self, tool: &ToolRef) -> bool {
        self.resource.keeps_busy(tool)
    }

    fn holds(&self, action: ActionId) -> bool {
        self.held().contains_key(&action)
    }

    fn undo(&self, action: ActionId) -> Option<Undo> {
        self.held().get(&action).and_then(|held| self.resource.undo(&held.prepared))
    }

    fn forget(&self, action: ActionId) {
        // Dropped without the lock: letting go may take a moment.
        let held = self.held().remove(&action);
        drop(held);
    }

    fn execute<'a>(
        &'a self,
        permit: Permit,
        now: Timestamp,
        around: (Cancels, Forward),
    ) -> BoxFuture<'a, Executed> {
        Box::pin(async move {
            let held = self.held().remove(&permit.action());
            let Some(Held { tool, parameters, prepared, .. }) = held else {
                let ended = not_sent("what was previewed is not there any more");
                return Executed { ended, undo: None };
            };
            if let Err(fault) = permit.check(&tool, parameters, now) {
                return Executed { ended: not_sent(&fault.to_string()), undo: None };
            }
            self.resource.execute(permit, prepared, around).await
        })
    }

    fn look_after<'a>(
        &'a self,
        undo: &'a Undo,
    ) -> BoxFuture<'a, Result<Option<Undo>, ResourceFault>> {
        Box::pin(self.resource.look_after(undo))
    }

    fn verify<'a>(&'a self, undo: &'a Undo) -> BoxFuture<'a, Result<TargetState, ResourceFault>> {
        Box::pin(self.resource.verify(undo))
    }

    fn revert<'a>(
        &'a self,
        (action, proposed): (ActionId, Proposed<'a>),
        undo: &'a Undo,
    ) -> BoxFuture<'a, Result<RevertPreview, ResourceFault>> {
        Box::pin(async move {
            let reverting = self.resource.revert(undo, proposed.now).await?;
            let Reverting { preview, conflicts, prepared } = reverting;
            self.hold(action, proposed, prepared)?;
            Ok(RevertPreview { preview, conflicts, undo: undo.clone() })
        })
    }
}

fn not_sent(detail: &str) -> Ended {
    Ended::NotSent { reason: Reason::TargetMoved, detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{HELD_MS_MAX, Place, Resources};
    use crate::resource::{
        Executed, Forward, Preview, Proposed, Resource, ResourceFault, Reverting, TargetState, Undo,
    };
    use crate::upstream::Cancels;
    use holdpoint_control::Permit;
    use holdpoint_types::{ActionId, Disclosure, Reversibility, Timestamp};
    use serde_json::json;
    use std::sync::Arc;

    /// Previews nothing, and holds a handle open.
    struct Idle(Arc<()>);

    fn nothing() -> Preview {
        Preview {
            changes: Vec::new(),
            exact: true,
            guarantee: Reversibility::NoEffect,
            until: None,
            disclosure: Disclosure::Contained,
            notes: Vec::new(),
        }
    }

    impl Resource for Idle {
        type Prepared = Arc<()>;

        async fn preview(
            &self,
            _: Proposed<'_>,
        ) -> Result<Option<(Preview, Arc<()>)>, ResourceFault> {
            Ok(Some((nothing(), Arc::clone(&self.0))))
        }

        fn undo(&self, _: &Arc<()>) -> Option<Undo> {
            None
        }

        async fn execute(
            &self,
            permit: Permit,
            _: Arc<()>,
            around: (Cancels, Forward),
        ) -> Executed {
            Executed { ended: around.1(permit).await, undo: None }
        }

        async fn verify(&self, _: &Undo) -> Result<TargetState, ResourceFault> {
            Ok(TargetState::Before)
        }

        async fn revert(
            &self,
            _: &Undo,
            _: Timestamp,
        ) -> Result<Reverting<Arc<()>>, ResourceFault> {
            let (conflicts, prepared) = (Vec::new(), Arc::clone(&self.0));
            Ok(Reverting { preview: nothing(), conflicts, prepared })
        }
    }

    #[tokio::test]
    async fn what_nobody_came_for_is_let_go() {
        let handle = Arc::new(());
        let mut all = Resources::default();
        let server: holdpoint_types::ServerName = "orders".parse().unwrap();
        all.add(server.clone(), Place::Serves, Idle(Arc::clone(&handle)));
        let (tool, parameters) = ("orders__x".parse().unwrap(), json!({}));
        let action = |byte| ActionId::new(Timestamp(1), [byte; 10]);
        let preview = async |byte, now| {
            let now = Timestamp(now);
            let proposed = Proposed { tool: &tool, parameters: &parameters, effects: &[], now };
            all.preview(action(byte), proposed).await.unwrap().unwrap();
        };
        preview(1, 0).await;
        preview(2, HELD_MS_MAX - 1).await;
        // The handle, the resource's, and one for each preview.
        assert_eq!(Arc::strong_count(&handle), 4);
        preview(3, HELD_MS_MAX).await;
        assert_eq!(Arc::strong_count(&handle), 4);
        all.forget(action(2), &server);
        all.forget(action(3), &server);
        assert_eq!(Arc::strong_count(&handle), 2);
    }
}
