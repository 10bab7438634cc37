//! What the tests share: bounded waiting, short ways to write, and a registry
//! whose watches can be cut.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use headwater_registry::{
    Change, ChangeStream, Changes, Committed, Entry, Key, Lease, LeaseId, Operation, Prefix,
    Revision, Snapshot, Store, StoreError, Transaction, Watch, WatchError, WatchEvent,
};
use tokio::sync::watch;

/// A registry under test.
pub struct Fixture {
    pub store: Arc<dyn Store>,
    /// The shortest lease it grants.
    pub ttl: Duration,
    /// Forgets the history up to a revision.
    pub compact: Box<dyn Fn(Revision) -> BoxFuture<'static, ()> + Send + Sync>,
}

/// Waits for something that must happen, but not for ever.
pub async fn within<F: Future>(limit: Duration, what: &str, future: F) -> F::Output {
    tokio::time::timeout(limit, future).await.unwrap_or_else(|_| panic!("{what}: not in {limit:?}"))
}

/// Asks until the answer is yes.
pub async fn until<A: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> A) {
    within(Duration::from_secs(30), what, async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

pub fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

pub fn put_op(name: &str, value: &str, lease: Option<LeaseId>) -> Operation {
    Operation::Put { key: key(name), value: value.to_owned().into(), lease }
}

/// Writes without conditions; answers with the revision.
pub async fn put(store: &dyn Store, name: &str, value: &str) -> Revision {
    let committed = store.commit(Transaction::new().then(put_op(name, value, None))).await.unwrap();
    assert!(committed.succeeded);
    committed.revision
}

pub async fn put_under(store: &dyn Store, name: &str, value: &str, lease: LeaseId) {
    let put = Transaction::new().then(put_op(name, value, Some(lease)));
    assert!(store.commit(put).await.unwrap().succeeded);
}

pub async fn delete(store: &dyn Store, name: &str) {
    let delete = Transaction::new().then(Operation::Delete(key(name)));
    assert!(store.commit(delete).await.unwrap().succeeded);
}

pub async fn value(store: &dyn Store, name: &str) -> Option<String> {
    let entry = store.get(&key(name)).await.unwrap()?;
    Some(String::from_utf8(entry.value.to_vec()).unwrap())
}

/// A change as short text: `name=value` or `name-`.
pub fn short(change: &Change) -> String {
    match change {
        Change::Put(entry) => format!("{}={}", entry.key, String::from_utf8_lossy(&entry.value)),
        Change::Deleted { key, .. } => format!("{key}-"),
    }
}

/// The changes of a stream up to the one that reads `last`, with their checks:
/// revisions rise and nothing is told twice.
pub async fn changes_until(stream: &mut ChangeStream, last: &str) -> Vec<String> {
    let mut seen = Vec::new();
    let mut revision = Revision(0);
    within(Duration::from_secs(30), last, async {
        loop {
            let changes = stream.next().await.expect("the stream goes on").unwrap();
            assert!(changes.revision > revision, "revisions rise");
            revision = changes.revision;
            seen.extend(changes.changes.iter().map(short));
            if seen.last().is_some_and(|change| change == last) {
                return;
            }
        }
    })
    .await;
    seen
}

pub async fn next_snapshot(watch: &mut Watch) -> Snapshot {
    match within(Duration::from_secs(30), "snapshot", watch.next()).await {
        WatchEvent::Snapshot(snapshot) => snapshot,
        WatchEvent::Changes(changes) => panic!("changes before the snapshot: {changes:?}"),
    }
}

pub async fn next_changes(watch: &mut Watch) -> Changes {
    match within(Duration::from_secs(30), "changes", watch.next()).await {
        WatchEvent::Changes(changes) => changes,
        WatchEvent::Snapshot(snapshot) => panic!("a second snapshot: {snapshot:?}"),
    }
}

/// A registry that can be told to break its watches, as if its connection did,
/// and to lose the answers to writes that it carried out.
#[derive(Debug)]
pub struct Cuttable {
    store: Arc<dyn Store>,
    connected: watch::Sender<bool>,
    answers_lost: AtomicUsize,
}

impl Cuttable {
    pub fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            store,
            connected: watch::Sender::new(true),
            answers_lost: AtomicUsize::new(0),
        })
    }

    /// The answers to this many writes from now on are lost.
    pub fn lose_answers(&self, count: usize) {
        self.answers_lost.store(count, Ordering::SeqCst);
    }

    pub fn cut(&self) {
        self.connected.send_replace(false);
    }

    pub fn mend(&self) {
        self.connected.send_replace(true);
    }
}

#[async_trait::async_trait]
impl Store for Cuttable {
    async fn revision(&self) -> Result<Revision, StoreError> {
        self.store.revision().await
    }
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.store.get(key).await
    }
    async fn list(&self, prefix: &Prefix) -> Result<Snapshot, StoreError> {
        self.store.list(prefix).await
    }
    async fn commit(&self, transaction: Transaction) -> Result<Committed, StoreError> {
        let committed = self.store.commit(transaction).await;
        let lose = |left: usize| left.checked_sub(1);
        if self.answers_lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose).is_ok() {
            return Err(StoreError::Indeterminate("lost".into()));
        }
        committed
    }
    async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        self.store.grant_lease(ttl).await
    }
    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.store.keep_alive(lease).await
    }
    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.store.revoke_lease(lease).await
    }
    async fn watch(&self, prefix: &Prefix, after: Revision) -> Result<ChangeStream, WatchError> {
        let mut connected = self.connected.subscribe();
        let cut = || WatchError::Interrupted("cut".into());
        if !*connected.borrow() {
            return Err(cut());
        }
        let stream = self.store.watch(prefix, after).await?;
        let end = async move {
            connected.wait_for(|connected| !connected).await.ok();
        };
        let broken = futures::stream::once(async move { Err(cut()) });
        Ok(stream.take_until(Box::pin(end)).chain(broken).boxed())
    }
}
