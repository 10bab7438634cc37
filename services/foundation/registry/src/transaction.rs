//! Compare-and-swap transactions: conditions that must all hold, what is done
//! then, and what is read or done otherwise.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::election::Fence;
use crate::key::Key;
use crate::store::{Entry, LeaseId, Revision};

/// Most compares, and most operations in one branch. etcd's own limit is 128.
pub const OPERATIONS_MAX: usize = 127;

/// Most bytes of keys and values in a transaction: 1 MiB. etcd takes 1.5 MiB with
/// its framing. Records should stay below 8 KiB; only metadata that a platform
/// chose may reach this.
pub const TRANSACTION_BYTES_MAX: usize = 1024 * 1024;

/// A condition on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key does not exist.
    Absent(Key),
    /// The key was last written at this revision.
    ModRevision(Key, Revision),
    /// The key was created at this revision and lives since: a fencing token.
    CreateRevision(Key, Revision),
    /// The key exists and is bound to this lease.
    Lease(Key, LeaseId),
}

impl Compare {
    /// The key it looks at.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Absent(key)
            | Self::ModRevision(key, _)
            | Self::CreateRevision(key, _)
            | Self::Lease(key, _) => key,
        }
    }
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Writes a value. With a lease, the key goes when the lease ends; without
    /// one it is taken off the lease it had.
    Put {
        /// Where.
        key: Key,
        /// What.
        value: Bytes,
        /// The lease it hangs on.
        lease: Option<LeaseId>,
    },
    /// Deletes a key; does nothing if it is absent.
    Delete(Key),
    /// Reads a key; its entry is in [`Committed::read`].
    Get(Key),
}

impl Operation {
    /// The key it touches.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete(key) | Self::Get(key) => key,
        }
    }

    fn writes(&self) -> bool {
        match self {
            Self::Put { .. } | Self::Delete(_) => true,
            Self::Get(_) => false,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.as_str().len() + value.len(),
            Self::Delete(key) | Self::Get(key) => key.as_str().len(),
        }
    }
}

/// Why a transaction cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// More than [`OPERATIONS_MAX`] compares or operations.
    #[error("{count} compares or operations, at most {OPERATIONS_MAX} are allowed")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// More than [`TRANSACTION_BYTES_MAX`] bytes.
    #[error("{bytes} bytes, at most {TRANSACTION_BYTES_MAX} are allowed")]
    TooLarge {
        /// How many there are.
        bytes: usize,
    },
    /// A branch touches one key twice.
    #[error("key {key} is touched twice")]
    RepeatedKey {
        /// The key.
        key: Key,
    },
}

/// Conditions and what to do. Built by chaining:
///
/// ```
/// # use headwater_registry::{Compare, Key, Operation, Transaction};
/// let key = Key::new("rooms/plaza/spec")?;
/// let transaction = Transaction::create(key.clone(), "{}").otherwise(Operation::Get(key));
/// # Ok::<(), headwater_registry::KeyError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "a transaction does nothing until it is committed"]
pub struct Transaction {
    pub(crate) compares: Vec<Compare>,
    pub(crate) then: Vec<Operation>,
    pub(crate) otherwise: Vec<Operation>,
}

impl Transaction {
    /// No conditions, nothing to do.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a key that must not exist.
    pub fn create(key: Key, value: impl Into<Bytes>) -> Self {
        Self::new().when(Compare::Absent(key.clone())).put(key, value)
    }

    /// Writes a key that must be as it was at `revision`.
    pub fn replace(key: Key, revision: Revision, value: impl Into<Bytes>) -> Self {
        Self::new().when(Compare::ModRevision(key.clone(), revision)).put(key, value)
    }

    /// Deletes a key that must be as it was at `revision`.
    pub fn remove(key: Key, revision: Revision) -> Self {
        Self::new().when(Compare::ModRevision(key.clone(), revision)).then(Operation::Delete(key))
    }

    /// Adds a condition.
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds the condition that an election is still won: every write of an
    /// elected replica carries it.
    pub fn fenced(self, fence: &Fence) -> Self {
        self.when(fence.compare())
    }

    /// Adds what to do if all conditions hold.
    pub fn then(mut self, operation: Operation) -> Self {
        self.then.push(operation);
        self
    }

    /// Adds a write without a lease if all conditions hold.
    pub fn put(self, key: Key, value: impl Into<Bytes>) -> Self {
        self.then(Operation::Put { key, value: value.into(), lease: None })
    }

    /// Adds what to do if a condition does not hold.
    pub fn otherwise(mut self, operation: Operation) -> Self {
        self.otherwise.push(operation);
        self
    }

    /// Checks the bounds.
    ///
    /// # Errors
    /// If it is too long, too large, or touches a key twice in one branch.
    pub fn check(&self) -> Result<(), TransactionError> {
        let count = self.compares.len().max(self.then.len()).max(self.otherwise.len());
        if count > OPERATIONS_MAX {
            return Err(TransactionError::TooMany { count });
        }
        let compared: usize =
            self.compares.iter().map(|compare| compare.key().as_str().len()).sum();
        let operations =
            self.then.iter().chain(&self.otherwise).map(Operation::bytes).sum::<usize>();
        let bytes = compared + operations;
        if bytes > TRANSACTION_BYTES_MAX {
            return Err(TransactionError::TooLarge { bytes });
        }
        for branch in [&self.then, &self.otherwise] {
            let mut keys = BTreeSet::new();
            if let Some(again) = branch.iter().find(|operation| !keys.insert(operation.key())) {
                return Err(TransactionError::RepeatedKey { key: again.key().clone() });
            }
        }
        Ok(())
    }

    /// Whether it writes nothing, whatever holds.
    pub(crate) fn is_read_only(&self) -> bool {
        !self.then.iter().chain(&self.otherwise).any(Operation::writes)
    }

    /// Whether being applied makes its own conditions false, so that sending it
    /// a second time cannot apply it a second time.
    pub(crate) fn guards_itself(&self) -> bool {
        let guarded = |operation: &Operation| {
            self.compares.iter().any(|compare| match (compare, operation) {
                (Compare::Absent(key), Operation::Put { key: written, .. })
                | (
                    Compare::ModRevision(key, _),
                    Operation::Put { key: written, .. } | Operation::Delete(written),
                ) => key == written,
                (
                    Compare::Absent(_)
                    | Compare::ModRevision(..)
                    | Compare::CreateRevision(..)
                    | Compare::Lease(..),
                    Operation::Put { .. } | Operation::Delete(_) | Operation::Get(_),
                ) => false,
            })
        };
        self.then.iter().any(guarded) && !self.otherwise.iter().any(Operation::writes)
    }
}

/// What came of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a transaction whose conditions did not hold has written nothing"]
pub struct Committed {
    /// Whether all conditions held.
    pub succeeded: bool,
    /// The registry's revision after the transaction. If it wrote, the revision
    /// of what it wrote.
    pub revision: Revision,
    /// What the [`Operation::Get`]s of the branch taken found, in their order.
    pub read: Vec<Option<Entry>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    #[test]
    fn bounds_are_checked() {
        let many = (0..128).fold(Transaction::new(), |transaction, i| {
            transaction.put(key(&format!("k/{i}")), "v")
        });
        assert_eq!(many.check(), Err(TransactionError::TooMany { count: 128 }));
        let large = Transaction::create(key("k"), vec![0; TRANSACTION_BYTES_MAX]);
        assert!(matches!(large.check(), Err(TransactionError::TooLarge { .. })));
        let twice = Transaction::create(key("k"), "v").then(Operation::Delete(key("k")));
        assert_eq!(twice.check(), Err(TransactionError::RepeatedKey { key: key("k") }));
        let split = Transaction::create(key("k"), "v").otherwise(Operation::Get(key("k")));
        assert_eq!(split.check(), Ok(()));
    }

    #[test]
    fn only_a_transaction_that_spoils_its_own_condition_may_be_sent_twice() {
        assert!(Transaction::create(key("k"), "v").guards_itself());
        assert!(Transaction::replace(key("k"), Revision(3), "v").guards_itself());
        assert!(Transaction::remove(key("k"), Revision(3)).guards_itself());
        assert!(!Transaction::new().put(key("k"), "v").guards_itself());
        let fenced = Transaction::new()
            .when(Compare::CreateRevision(key("leader"), Revision(3)))
            .put(key("k"), "v");
        assert!(!fenced.guards_itself());
        let elsewhere = Transaction::new().when(Compare::Absent(key("a"))).put(key("b"), "v");
        assert!(!elsewhere.guards_itself());
        assert!(Transaction::new().otherwise(Operation::Get(key("k"))).is_read_only());
    }
}
