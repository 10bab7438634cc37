//! Keeps keys registered under a lease for as long as the process lives and the
//! registry can be reached, and says how that stands. Losing the registry stops
//! nothing else: what to do about it is for the owner.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::key::Key;
use crate::renewal::{Renewal, Standing};
use crate::store::{Entry, Lease, LeaseId, Store, StoreError};
use crate::transaction::{Compare, Operation, Transaction};

/// Pauses between tries to register: the first one and the longest one, each
/// varied by half.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How often to look whether a key that somebody else holds has become free.
const WAITING_INTERVAL: Duration = Duration::from_millis(500);

/// How long giving up the lease may take when the process ends.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Counts the registrations of one process, from 1. It rises when the lease was
/// lost and the keys were registered anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key to keep registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Where.
    pub key: Key,
    /// What.
    pub value: Bytes,
}

/// How a registration stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseState {
    /// Not registered yet, or no longer and about to be again.
    Registering,
    /// Somebody else holds a key: an earlier start of this process whose lease
    /// still runs, or another process of the same name.
    Waiting {
        /// The key.
        key: Key,
    },
    /// Registered.
    Held {
        /// Which time.
        incarnation: Incarnation,
        /// Under which lease.
        lease: LeaseId,
    },
    /// The lease could not be renewed for its whole time and may have ended.
    /// Go on with what is there, take nothing new. It becomes [`Self::Held`]
    /// again with the same incarnation if the lease lived on.
    Doubtful {
        /// Which time.
        incarnation: Incarnation,
        /// Under which lease.
        lease: LeaseId,
    },
}

/// Keeps keys registered. It works in a task of its own. Dropping it is like a
/// crash: the keys stay until their lease ends. [`LeaseKeeper::release`] lets
/// them go at once.
#[derive(Debug)]
pub struct LeaseKeeper {
    state: watch::Receiver<LeaseState>,
    refresh: Arc<Notify>,
    store: Arc<dyn Store>,
    task: JoinHandle<()>,
}

type Describe = Box<dyn Fn(Incarnation) -> Vec<Registration> + Send + Sync>;

impl LeaseKeeper {
    /// Registers what `describe` says for each incarnation (at most 127 keys),
    /// under a lease of `ttl` (10 s suits a node) that is renewed every third
    /// of it. After each renewal `describe` is asked again and what is missing
    /// or different is written, so it should say the same until something
    /// changes.
    ///
    /// # Panics
    /// If called outside a tokio runtime.
    #[must_use]
    pub fn start(
        store: Arc<dyn Store>,
        ttl: Duration,
        describe: impl Fn(Incarnation) -> Vec<Registration> + Send + Sync + 'static,
    ) -> Self {
        let (sender, state) = watch::channel(LeaseState::Registering);
        let refresh = Arc::new(Notify::new());
        let registrar = Registrar {
            store: Arc::clone(&store),
            ttl,
            describe: Box::new(describe),
            state: sender,
            refresh: Arc::clone(&refresh),
        };
        Self { state, refresh, store, task: tokio::spawn(registrar.run()) }
    }

    /// How the registration stands, now and whenever that changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<LeaseState> {
        self.state.clone()
    }

    /// Waits until the keys are registered.
    pub async fn held(&self) -> Incarnation {
        let mut state = self.state.clone();
        let held = state.wait_for(|state| matches!(state, LeaseState::Held { .. })).await;
        match held.map(|state| state.clone()) {
            Ok(LeaseState::Held { incarnation, .. }) => incarnation,
            // The task ends before this only when its runtime shuts down.
            Ok(_) | Err(_) => std::future::pending().await,
        }
    }

    /// Asks `describe` again and writes what is different.
    pub fn refresh(&self) {
        self.refresh.notify_one();
    }

    /// Ends the lease, so that the keys are gone at once and not after its time.
    /// If the registry cannot be reached within 2 s the lease ends by itself.
    pub async fn release(self) {
        self.task.abort();
        let lease = match &*self.state.borrow() {
            LeaseState::Held { lease, .. } | LeaseState::Doubtful { lease, .. } => Some(*lease),
            LeaseState::Registering | LeaseState::Waiting { .. } => None,
        };
        let Some(lease) = lease else { return };
        match timeout(RELEASE_TIMEOUT, self.store.revoke_lease(lease)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::info!(%lease, error = &error as &dyn std::error::Error,
                    "lease not revoked, it ends by itself");
            }
            Err(_) => tracing::info!(%lease, "lease not revoked in time, it ends by itself"),
        }
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How an attempt to register ended.
enum Registered {
    Yes,
    HeldByOther(Key),
}

struct Registrar {
    store: Arc<dyn Store>,
    ttl: Duration,
    describe: Describe,
    state: watch::Sender<LeaseState>,
    refresh: Arc<Notify>,
}

impl Registrar {
    async fn run(self) {
        let mut incarnation = Incarnation(1);
        loop {
            self.state.send_replace(LeaseState::Registering);
            let (lease, asked) = self.register(incarnation).await;
            self.keep(incarnation, lease, asked).await;
            tracing::warn!(%incarnation, lease = %lease.id, "registration lost, registering anew");
            incarnation.0 += 1;
        }
    }

    /// Tries until all keys are registered under a new lease.
    async fn register(&self, incarnation: Incarnation) -> (Lease, Instant) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let asked = Instant::now();
            match self.try_register(incarnation).await {
                Ok((lease, Registered::Yes)) => return (lease, asked),
                Ok((lease, Registered::HeldByOther(key))) => {
                    // An unused lease ends by itself if this fails.
                    drop(self.store.revoke_lease(lease.id).await);
                    self.state.send_if_modified(|state| {
                        let waiting = LeaseState::Waiting { key: key.clone() };
                        let news = *state != waiting;
                        if news {
                            tracing::info!(%key, "waiting for a key that somebody else holds");
                            *state = waiting;
                        }
                        news
                    });
                    sleep(WAITING_INTERVAL).await;
                }
                Err(error) => {
                    if backoff == BACKOFF_MIN {
                        tracing::info!(%incarnation, error = &error as &dyn std::error::Error,
                            "not registered, trying again");
                    }
                    sleep(backoff.mul_f64(rand::random_range(0.5..1.5))).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    async fn try_register(
        &self,
        incarnation: Incarnation,
    ) -> Result<(Lease, Registered), StoreError> {
        let lease = self.store.grant_lease(self.ttl).await?;
        let wanted = (self.describe)(incarnation);
        loop {
            let mut transaction = Transaction::new();
            for Registration { key, value } in &wanted {
                transaction = transaction
                    .when(Compare::Absent(key.clone()))
                    .then(put(key, value, lease.id))
                    .otherwise(Operation::Get(key.clone()));
            }
            let committed = match self.store.commit(transaction).await {
                Ok(committed) => committed,
                // If it was done after all, the keys now carry our lease.
                Err(StoreError::Indeterminate(_)) => continue,
                Err(error) => return Err(error),
            };
            let other = committed
                .read
                .into_iter()
                .flatten()
                .find(|entry| entry.lease != Some(lease.id))
                .map(|entry| entry.key);
            return Ok((lease, other.map_or(Registered::Yes, Registered::HeldByOther)));
        }
    }

    /// Renews the lease and checks the keys until the registration is lost.
    async fn keep(&self, incarnation: Incarnation, lease: Lease, asked: Instant) {
        let held = LeaseState::Held { incarnation, lease: lease.id };
        let doubtful = LeaseState::Doubtful { incarnation, lease: lease.id };
        self.tell(&held);
        let mut renewal = Renewal::new(Arc::clone(&self.store), lease, asked);
        loop {
            tokio::select! {
                standing = renewal.next() => match standing {
                    Standing::Held => self.tell(&held),
                    Standing::Doubtful => {
                        self.tell(&doubtful);
                        continue;
                    }
                    Standing::Lost => return,
                },
                () = self.refresh.notified() => {}
            }
            // Looking at the keys must not keep the lease from being renewed.
            let checked = timeout(lease.ttl / 3, self.check_keys(incarnation, lease.id)).await;
            if checked == Ok(Keys::Taken) {
                drop(self.store.revoke_lease(lease.id).await);
                return;
            }
        }
    }

    fn tell(&self, state: &LeaseState) {
        self.state.send_if_modified(|old| {
            let news = old != state;
            old.clone_from(state);
            news
        });
    }

    /// Compares the keys with what they should be and mends them: a renewed
    /// lease alone does not say that they are there.
    async fn check_keys(&self, incarnation: Incarnation, lease: LeaseId) -> Keys {
        for wanted in (self.describe)(incarnation) {
            match self.check_key(&wanted, lease).await {
                Ok(Keys::Ours) => {}
                Ok(Keys::Taken) => return Keys::Taken,
                // It is looked at again after the next renewal.
                Err(error) => {
                    tracing::debug!(key = %wanted.key, error = &error as &dyn std::error::Error,
                        "key not checked");
                }
            }
        }
        Keys::Ours
    }

    async fn check_key(&self, wanted: &Registration, lease: LeaseId) -> Result<Keys, StoreError> {
        let Registration { key, value } = wanted;
        let guard = match self.store.get(key).await? {
            None => Compare::Absent(key.clone()),
            Some(Entry { lease: Some(found), .. }) if found != lease => return Ok(Keys::Taken),
            Some(entry) if entry.value == *value && entry.lease == Some(lease) => {
                return Ok(Keys::Ours);
            }
            Some(entry) => Compare::ModRevision(key.clone(), entry.mod_revision),
        };
        let mend = Transaction::new().when(guard).then(put(key, value, lease));
        // Whoever was quicker is looked at after the next renewal.
        let _ = self.store.commit(mend).await?;
        Ok(Keys::Ours)
    }
}

/// Whose the keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    Ours,
    Taken,
}

fn put(key: &Key, value: &Bytes, lease: LeaseId) -> Operation {
    Operation::Put { key: key.clone(), value: value.clone(), lease: Some(lease) }
}
