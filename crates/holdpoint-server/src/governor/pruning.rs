//! Deletes what takes actions back once its time is over: sealed files, and what targets keep
//! themselves.
//!
//! INVARIANT: what a target keeps is deleted only after that is recorded. Must never delete it
//! while something is stopped.

use super::Governor;
use holdpoint_types::RecordBody;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it is looked for.
const LOOK: Duration = Duration::from_secs(600);
/// How much targets delete at one time; the rest the next time.
const AT_ONCE: usize = 16;

// === impl Governor ===

impl Governor {
    /// Prunes now and then, and whenever other targets come into force, until `done`.
    pub(crate) async fn prune_until(self, done: CancellationToken) {
        // What could not be deleted stays until somebody looked, and a process starts anew.
        let mut stuck = BTreeSet::new();
        loop {
            tokio::select! {
                () = done.cancelled() => return,
                () = self.inner.targets.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            self.prune_archive().await;
            self.prune_targets(&mut stuck).await;
        }
    }

    async fn prune_archive(&self) {
        let (resources, now) = (self.resources(), self.now());
        match tokio::task::spawn_blocking(move || resources.prune(now)).await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(files)) => tracing::info!(files, "what was kept for undo is kept no longer"),
            Ok(Err(fault)) => tracing::warn!(%fault, "the archive cannot be looked through"),
        }
    }

    async fn prune_targets(&self, stuck: &mut BTreeSet<String>) {
        let (resources, now) = (self.resources(), self.now());
        let mut over = resources.expired(now).await;
        over.retain(|(_, resource)| !stuck.contains(resource));
        for (server, resource) in over.into_iter().take(AT_ONCE) {
            if !self.stops().is_empty() {
                return;
            }
            let record = RecordBody::Expired { server: server.clone(), resource: resource.clone() };
            if let Err(fault) = self.write(record).await {
                tracing::error!(%fault, "what is over is kept: it cannot be recorded");
                return;
            }
            match resources.let_go(&server, (&resource, now)).await {
                Ok(()) => tracing::info!(%server, resource, "what was kept for undo was deleted"),
                Err(fault) => {
                    tracing::warn!(%server, resource, %fault, "what is over cannot be deleted");
                    stuck.insert(resource);
                }
            }
        }
    }
}
