//! The port: what every registry can do, and the words for it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::key::{Key, Prefix};
use crate::transaction::{Committed, Transaction, TransactionError};

/// Counts the changes of a registry; it only rises. 0 is before the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a lease within one registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A lease as it was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// How long it lives without being kept alive: at least what was asked for.
    /// It may live longer (etcd starts every lease anew when its leader
    /// changes), never shorter.
    pub ttl: Duration,
}

/// A key with its value and history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Bytes,
    /// When the key came into being.
    pub create_revision: Revision,
    /// When it was last written.
    pub mod_revision: Revision,
    /// How often it was written since it came into being; 1 after that.
    pub version: u64,
    /// The lease it hangs on.
    pub lease: Option<LeaseId>,
}

/// All keys of a prefix at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The keys in order.
    pub entries: Vec<Entry>,
    /// The revision: every change up to it is in, none after it.
    pub revision: Revision,
}

/// What happened to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was written.
    Put(Entry),
    /// It was deleted, or its lease ended.
    Deleted {
        /// The key.
        key: Key,
        /// When. After a gap in the history, the revision of the listing that
        /// no longer held it.
        revision: Revision,
    },
}

impl Change {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Deleted { key, .. } => key,
        }
    }

    /// When it happened.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(entry) => entry.mod_revision,
            Self::Deleted { revision, .. } => *revision,
        }
    }
}

/// Changes in the order they happened, whole revisions only: what one
/// transaction wrote is never torn apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Every change to the prefix up to this revision has now been told.
    pub revision: Revision,
    /// The changes; never empty.
    pub changes: Vec<Change>,
}

/// Changes as they happen. It ends after its first error.
pub type ChangeStream = BoxStream<'static, Result<Changes, WatchError>>;

/// The cause of an error, for the log.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, has no quorum, or did not answer in time. What was
    /// asked has not been done and will not be.
    #[error("the registry is unavailable")]
    Unavailable(#[source] Cause),
    /// The same, but the write had been sent: it may or may not have been done.
    /// Read before doing it again.
    #[error("the registry became unavailable and the write may or may not have been done")]
    Indeterminate(#[source] Cause),
    /// There is no such lease: it ended or was revoked.
    #[error("lease {0} does not exist")]
    LeaseNotFound(LeaseId),
    /// The transaction is not allowed.
    #[error("the transaction is not allowed")]
    Transaction(#[from] TransactionError),
    /// The registry does not accept our credentials, or they do not cover this.
    #[error("the registry refused access")]
    Denied(#[source] Cause),
    /// The registry is full.
    #[error("the registry has no space left")]
    Full,
    /// The registry failed in a way that trying again does not mend.
    #[error("the registry failed")]
    Failed(#[source] Cause),
    /// The registry was closed.
    #[error("the registry is closed")]
    Closed,
}

impl StoreError {
    /// Whether the same call may succeed later without anybody mending anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Indeterminate(_) => true,
            Self::LeaseNotFound(_)
            | Self::Transaction(_)
            | Self::Denied(_)
            | Self::Full
            | Self::Failed(_)
            | Self::Closed => false,
        }
    }
}

/// Why changes stopped coming.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The history since that revision is no longer kept, or this registry has
    /// not come that far (it lost data). List, then watch from there.
    #[error("changes after revision {after} cannot be told, only those after {oldest}")]
    Gap {
        /// The revision asked for.
        after: Revision,
        /// A revision that can be asked for.
        oldest: Revision,
    },
    /// The stream broke. Watch again from the last revision that was told.
    #[error("the watch was interrupted")]
    Interrupted(#[source] Cause),
}

/// A registry. All calls are linearizable except [`Store::watch`], which lags by
/// a little but tells every change once and in order.
///
/// Calls try again by themselves for a few seconds where that is safe. They may
/// be cancelled by dropping them; a write may still happen then.
#[async_trait::async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The newest revision. It answers only if the registry can be read
    /// consistently, so it also serves as the question whether it is well.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and the lasting ones.
    async fn revision(&self) -> Result<Revision, StoreError>;

    /// Reads one key.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and the lasting ones.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError>;

    /// Reads all keys of a prefix at one revision.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and the lasting ones.
    async fn list(&self, prefix: &Prefix) -> Result<Snapshot, StoreError>;

    /// Carries out a transaction, all of it or nothing. That its conditions do
    /// not hold is no error: see [`Committed::succeeded`].
    ///
    /// # Errors
    /// [`StoreError::Indeterminate`] if it may or may not have been carried out,
    /// [`StoreError::LeaseNotFound`] if it writes under a lease that ended.
    async fn commit(&self, transaction: Transaction) -> Result<Committed, StoreError>;

    /// Grants a lease of at least `ttl`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and the lasting ones.
    async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError>;

    /// Starts a lease's time anew: it now lives for its granted time, counted
    /// from some moment during the call.
    ///
    /// # Errors
    /// [`StoreError::LeaseNotFound`] if it has ended.
    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Ends a lease and deletes its keys. Ending one that has ended is no error.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and the lasting ones.
    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Tells every change to a prefix after a revision, in order, once. The
    /// stream ends after an error. Use [`Watch`](crate::Watch), which goes on.
    ///
    /// # Errors
    /// [`WatchError::Gap`] here or in the stream, whichever comes first.
    async fn watch(&self, prefix: &Prefix, after: Revision) -> Result<ChangeStream, WatchError>;
}
