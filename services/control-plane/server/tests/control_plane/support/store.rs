//! A store in memory that can be taken away: calls then hang, as calls to a
//! registry without quorum do, and watches break.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use headwater_registry::{
    ChangeStream, Committed, Entry, Key, Lease, LeaseId, MemoryStore, Prefix, Revision, Snapshot,
    Store, StoreError, Transaction, WatchError,
};
use tokio::sync::watch;

#[derive(Debug)]
pub struct RemovableStore {
    inner: MemoryStore,
    here: watch::Sender<bool>,
}

impl RemovableStore {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { inner: MemoryStore::new(), here: watch::Sender::new(true) })
    }

    pub fn take_away(&self) {
        self.here.send_replace(false);
    }

    pub fn bring_back(&self) {
        self.here.send_replace(true);
    }

    /// A call waits for the registry for two seconds, as the real ones do.
    async fn reach(&self) -> Result<(), StoreError> {
        let mut here = self.here.subscribe();
        match tokio::time::timeout(Duration::from_secs(2), here.wait_for(|here| *here)).await {
            Ok(_) => Ok(()),
            Err(elapsed) => Err(StoreError::Unavailable(Box::new(elapsed))),
        }
    }
}

#[async_trait::async_trait]
impl Store for RemovableStore {
    async fn revision(&self) -> Result<Revision, StoreError> {
        self.reach().await?;
        self.inner.revision().await
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.reach().await?;
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Snapshot, StoreError> {
        self.reach().await?;
        self.inner.list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, StoreError> {
        self.reach().await?;
        self.inner.commit(transaction).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        self.reach().await?;
        self.inner.grant_lease(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.reach().await?;
        self.inner.keep_alive(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.reach().await?;
        self.inner.revoke_lease(lease).await
    }

    async fn watch(&self, prefix: &Prefix, after: Revision) -> Result<ChangeStream, WatchError> {
        let interrupted = || WatchError::Interrupted("taken away".into());
        if !*self.here.borrow() {
            return Err(interrupted());
        }
        let changes = self.inner.watch(prefix, after).await?;
        let mut here = self.here.subscribe();
        let gone = async move { drop(here.wait_for(|here| !*here).await) };
        let end = futures::stream::once(async move { Err(interrupted()) });
        Ok(changes.take_until(gone).chain(end).boxed())
    }
}
