//! What a server says of its lists by itself.
//! Must never hold up who listens to the server: whoever follows too slowly misses some.

use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::broadcast;

/// The notifications that are told on.
const LISTS: [&str; 3] = [
    "notifications/tools/list_changed",
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
];
/// How many may wait for who follows.
const WAITING_MAX: usize = 16;

/// The changes of one server's lists.
#[derive(Debug)]
pub(super) struct Changes {
    tools: AtomicBool,
    told: broadcast::Sender<&'static str>,
}

// === impl Changes ===

impl Changes {
    /// Takes in a notification; what is not about a list is nothing to it.
    pub(super) fn note(&self, method: &str) {
        let Some(list) = LISTS.into_iter().find(|list| *list == method) else { return };
        if list.contains("/tools/") {
            self.mark_tools();
        }
        // Nobody follows most of the time.
        let _ = self.told.send(list);
    }

    /// The tools may be others than before.
    pub(super) fn mark_tools(&self) {
        self.tools.store(true, Ordering::Release);
    }

    /// True once after the tools were marked.
    pub(super) fn take_tools(&self) -> bool {
        self.tools.swap(false, Ordering::AcqRel)
    }

    pub(super) fn follow(&self) -> broadcast::Receiver<&'static str> {
        self.told.subscribe()
    }
}

impl Default for Changes {
    fn default() -> Self {
        Self { tools: AtomicBool::new(false), told: broadcast::Sender::new(WAITING_MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Changes, WAITING_MAX};
    use tokio::sync::broadcast::error::TryRecvError;

    #[test]
    fn who_follows_too_slowly_misses_the_oldest_changes() {
        let changes = Changes::default();
        let mut followed = changes.follow();
        changes.note("notifications/prompts/list_changed");
        for _ in 0..WAITING_MAX {
            changes.note("notifications/tools/list_changed");
            changes.note("notifications/other");
        }
        assert_eq!(followed.try_recv(), Err(TryRecvError::Lagged(1)));
        let told = std::iter::from_fn(|| followed.try_recv().ok());
        assert_eq!(told.filter(|list| list.contains("/tools/")).count(), WAITING_MAX);
        assert!(changes.take_tools() && !changes.take_tools());
    }
}
