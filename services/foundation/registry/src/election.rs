//! Picks one of several replicas. Being elected excludes nobody: a replica that
//! was paused may believe in an election long lost. Therefore each gets a
//! [`Fence`], and a write that carries it fails once the election is lost.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::key::{Key, KeyError};
use crate::renewal::{Renewal, Standing};
use crate::schema;
use crate::store::{Change, Entry, Lease, LeaseId, Revision, Store, StoreError};
use crate::transaction::{Compare, Operation, Transaction};
use crate::watch::{Watch, WatchEvent};

/// Pause after an error while campaigning, varied by half.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// How long resigning may take when the process ends.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(2);

/// What shows that an election was won: the leader's key and the revision it was
/// created at. A later leader's revision is higher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    key: Key,
    token: Revision,
}

impl Fence {
    /// The token: it rises from leader to leader.
    #[must_use]
    pub fn token(&self) -> Revision {
        self.token
    }

    /// The condition that the election is still won.
    #[must_use]
    pub fn compare(&self) -> Compare {
        Compare::CreateRevision(self.key.clone(), self.token)
    }
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// The name it campaigned with.
    pub candidate: Bytes,
    /// Its fencing token.
    pub token: Revision,
}

/// An election that replicas may stand for.
#[derive(Debug, Clone)]
pub struct Election {
    store: Arc<dyn Store>,
    name: Arc<str>,
    ttl: Duration,
}

impl Election {
    /// An election by name (lower-case words joined by `-`), whose leader is
    /// replaced `ttl` or somewhat more after it fell silent.
    ///
    /// # Errors
    /// If the name cannot be part of a key.
    pub fn new(store: Arc<dyn Store>, name: &str, ttl: Duration) -> Result<Self, KeyError> {
        Key::new(name)?;
        if name.contains('/') {
            return Err(KeyError::BadCharacter);
        }
        Ok(Self { store, name: name.into(), ttl })
    }

    /// Waits until this candidate is elected, however long the registry is away.
    /// If it is dropped while waiting, at worst nobody leads for the `ttl`.
    pub async fn campaign(&self, candidate: impl Into<Bytes>) -> Leadership {
        let candidate = candidate.into();
        let mut observation = self.observe();
        loop {
            if observation.next().await.is_some() {
                continue;
            }
            match self.stand(&candidate).await {
                Ok(Some(leadership)) => return leadership,
                // Somebody was quicker; the observation tells when it is over.
                Ok(None) => {}
                Err(error) => {
                    tracing::info!(election = %self.name,
                        error = &error as &dyn std::error::Error, "not elected, trying again");
                    sleep(RETRY_INTERVAL.mul_f64(rand::random_range(0.5..1.5))).await;
                    // Nothing may have changed that would wake the observation.
                    observation = self.observe();
                }
            }
        }
    }

    /// Who leads now.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn leader(&self) -> Result<Option<Leader>, StoreError> {
        let entry = self.store.get(&schema::leader(&self.name)).await?;
        Ok(entry.map(|entry| leader(&entry)))
    }

    /// Follows who leads.
    #[must_use]
    pub fn observe(&self) -> Observation {
        Observation {
            watch: Watch::start(Arc::clone(&self.store), schema::election(&self.name)),
            key: schema::leader(&self.name),
        }
    }

    /// Tries to become the leader.
    async fn stand(&self, candidate: &Bytes) -> Result<Option<Leadership>, StoreError> {
        let asked = Instant::now();
        let lease = self.store.grant_lease(self.ttl).await?;
        let entry = self.put_candidate(candidate, lease.id).await?;
        if entry.lease != Some(lease.id) {
            // If this fails it ends by itself.
            drop(self.store.revoke_lease(lease.id).await);
            return Ok(None);
        }
        let fence = Fence { key: entry.key, token: entry.create_revision };
        tracing::info!(election = %self.name, token = %fence.token, "elected");
        Ok(Some(Leadership::start(Arc::clone(&self.store), fence, lease, asked)))
    }

    /// Writes our name if there is no leader, and reads whose name is there.
    async fn put_candidate(&self, candidate: &Bytes, lease: LeaseId) -> Result<Entry, StoreError> {
        let key = schema::leader(&self.name);
        loop {
            let put =
                Operation::Put { key: key.clone(), value: candidate.clone(), lease: Some(lease) };
            let transaction = Transaction::new()
                .when(Compare::Absent(key.clone()))
                .then(put)
                .otherwise(Operation::Get(key.clone()));
            let committed = match self.store.commit(transaction).await {
                Ok(committed) => committed,
                // If it was done after all, our lease is on the key.
                Err(StoreError::Indeterminate(_)) => continue,
                Err(error) => return Err(error),
            };
            if committed.succeeded {
                return Ok(Entry {
                    key,
                    value: candidate.clone(),
                    create_revision: committed.revision,
                    mod_revision: committed.revision,
                    version: 1,
                    lease: Some(lease),
                });
            }
            if let Some(Some(entry)) = committed.read.into_iter().next() {
                return Ok(entry);
            }
        }
    }
}

fn leader(entry: &Entry) -> Leader {
    Leader { candidate: entry.value.clone(), token: entry.create_revision }
}

/// Who leads, as it changes.
#[derive(Debug)]
pub struct Observation {
    watch: Watch,
    key: Key,
}

impl Observation {
    /// Who leads: first the present leader, then each change. `None` means
    /// nobody. May be dropped without losing a change.
    pub async fn next(&mut self) -> Option<Leader> {
        loop {
            match self.watch.next().await {
                WatchEvent::Snapshot(snapshot) => {
                    return snapshot.entries.iter().find(|e| e.key == self.key).map(leader);
                }
                WatchEvent::Changes(changes) => {
                    let last = changes.changes.iter().rfind(|change| *change.key() == self.key);
                    match last {
                        Some(Change::Put(entry)) => return Some(leader(entry)),
                        Some(Change::Deleted { .. }) => return None,
                        None => {}
                    }
                }
            }
        }
    }
}

/// An election won. It is kept in a task of its own. Dropping it is like a
/// crash: nobody leads until its lease ends. [`Leadership::resign`] makes way at
/// once.
#[derive(Debug)]
pub struct Leadership {
    store: Arc<dyn Store>,
    fence: Fence,
    lease: Lease,
    over: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Leadership {
    fn start(store: Arc<dyn Store>, fence: Fence, lease: Lease, asked: Instant) -> Self {
        let (sender, over) = watch::channel(false);
        let renewal = Renewal::new(Arc::clone(&store), lease, asked);
        let task = tokio::spawn(keep(Arc::clone(&store), fence.clone(), renewal, sender));
        Self { store, fence, lease, over, task }
    }

    /// What every write of the leader has to carry.
    #[must_use]
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Whether the election is, as far as is known here, still won.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !*self.over.borrow()
    }

    /// Waits until the election is lost, or in doubt because the lease could not
    /// be renewed for its whole time. Then stop and campaign again.
    pub async fn lost(&self) {
        // The task ends after it said so, so either way it is over.
        drop(self.over.clone().wait_for(|over| *over).await);
    }

    /// Makes way for another leader at once. If the registry cannot be reached
    /// within 2 s the lease ends by itself.
    pub async fn resign(self) {
        self.task.abort();
        match timeout(RESIGN_TIMEOUT, self.store.revoke_lease(self.lease.id)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::info!(lease = %self.lease.id, error = &error as &dyn std::error::Error,
                    "not resigned, the lease ends by itself");
            }
            Err(_) => tracing::info!(lease = %self.lease.id, "not resigned in time"),
        }
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Renews the leader's lease until the election is lost or in doubt.
async fn keep(
    store: Arc<dyn Store>,
    fence: Fence,
    mut renewal: Renewal,
    over: watch::Sender<bool>,
) {
    while renewal.next().await == Standing::Held {
        // The lease lives; the key may be gone all the same. That it cannot be
        // read now is for the next renewal.
        if let Ok(found) = store.get(&fence.key).await
            && found.is_none_or(|entry| entry.create_revision != fence.token)
        {
            break;
        }
    }
    tracing::info!(token = %fence.token, "no longer elected");
    over.send_replace(true);
}
