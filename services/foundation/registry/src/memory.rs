//! The registry of one process that forgets everything with it: for tests and
//! for a single process that may start afresh.

use std::time::Duration;

use crate::engine::Engine;
use crate::key::{Key, Prefix};
use crate::local::{Local, NoJournal, local, store_by_local};
use crate::store::{
    ChangeStream, Entry, Lease, LeaseId, Revision, Snapshot, StoreError, WatchError,
};
use crate::transaction::{Committed, Transaction};

/// A registry in memory. Clones are handles to the same one. Its leases run on
/// the clock of the runtime it was made in, so a test may pause and move it.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    local: Local,
}

impl MemoryStore {
    /// An empty registry.
    ///
    /// # Panics
    /// If called outside a tokio runtime, which has to run its task.
    #[must_use]
    pub fn new() -> Self {
        let (local, owner) = local(Engine::default(), NoJournal);
        tokio::spawn(owner.run());
        Self { local }
    }

    /// Forgets the history up to a revision: who watches from there must list.
    ///
    /// # Errors
    /// [`StoreError::Closed`] if the runtime it was made in is gone.
    pub async fn compact(&self, up_to: Revision) -> Result<(), StoreError> {
        self.local.compact(up_to).await
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

store_by_local!(MemoryStore);
