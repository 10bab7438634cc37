//! The state of a registry that lives in one process: keys, a bounded history
//! and leases, on a clock that is handed in. It stores nothing and waits for
//! nobody; [`local`](crate::local) does.
//!
//! Calling contract: a write is first prepared, which changes nothing, and then
//! applied, with no other write in between. What can fail, such as writing to
//! disk, happens between the two.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::{Duration, Instant};

use crate::key::{Key, Prefix};
use crate::store::{
    Change, Changes, Entry, Lease, LeaseId, Revision, Snapshot, StoreError, WatchError,
};
use crate::transaction::{Committed, Compare, Operation, Transaction};

/// Most bytes of keys and values. A write beyond it is refused with
/// [`StoreError::Full`]. A node's registry holds some hundred bytes a room.
const BYTES_MAX: usize = 256 * 1024 * 1024;

/// Most leases at once. One more is refused with [`StoreError::Full`].
const LEASES_MAX: usize = 65_536;

/// Revisions kept for those who resume a watch; older ones are compacted away,
/// and who asks for them has to list.
const HISTORY_REVISIONS_MAX: usize = 4096;

/// Most bytes kept in the history, whatever the number of revisions.
const HISTORY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Shortest lease.
const TTL_MIN: Duration = Duration::from_millis(100);

/// Longest lease: a day.
const TTL_MAX: Duration = Duration::from_secs(86_400);

#[derive(Debug)]
struct LeaseTerm {
    ttl: Duration,
    ends: Instant,
    keys: BTreeSet<Key>,
}

/// A transaction or the end of a lease, worked out but not yet done.
#[derive(Debug)]
pub struct Prepared {
    pub committed: Committed,
    /// Empty if nothing changes; then the revision stays.
    pub changes: Vec<Change>,
    bytes: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Engine {
    revision: Revision,
    compacted: Revision,
    entries: BTreeMap<Key, Entry>,
    bytes: usize,
    history: VecDeque<Changes>,
    history_bytes: usize,
    leases: BTreeMap<LeaseId, LeaseTerm>,
    last_lease: u64,
}

impl Engine {
    /// A registry found with these entries, without history or leases.
    pub fn restored(revision: Revision, entries: Vec<Entry>) -> Self {
        let bytes = entries.iter().map(entry_bytes).sum();
        // Lease ids start again: nobody is left who could hold an old one.
        Self {
            revision,
            compacted: revision,
            bytes,
            entries: entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect(),
            ..Self::default()
        }
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn get(&self, key: &Key) -> Option<Entry> {
        self.entries.get(key).cloned()
    }

    pub fn list(&self, prefix: &Prefix) -> Snapshot {
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let entries = self
            .entries
            .range::<str, _>(from)
            .map(|(_, entry)| entry)
            .take_while(|entry| prefix.contains(&entry.key))
            .cloned()
            .collect();
        Snapshot { entries, revision: self.revision }
    }

    /// Works out a transaction.
    pub fn prepare(&self, transaction: Transaction) -> Result<Prepared, StoreError> {
        transaction.check()?;
        let succeeded = transaction.compares.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { transaction.then } else { transaction.otherwise };
        let next = Revision(self.revision.0 + 1);
        let mut read = Vec::new();
        let mut changes = Vec::new();
        for operation in branch {
            match operation {
                Operation::Get(key) => read.push(self.get(&key)),
                Operation::Delete(key) => {
                    if self.entries.contains_key(&key) {
                        changes.push(Change::Deleted { key, revision: next });
                    }
                }
                Operation::Put { key, value, lease } => {
                    if let Some(lease) = lease.filter(|lease| !self.leases.contains_key(lease)) {
                        return Err(StoreError::LeaseNotFound(lease));
                    }
                    let before = self.entries.get(&key);
                    changes.push(Change::Put(Entry {
                        value,
                        create_revision: before.map_or(next, |entry| entry.create_revision),
                        mod_revision: next,
                        version: before.map_or(1, |entry| entry.version + 1),
                        lease,
                        key,
                    }));
                }
            }
        }
        let prepared = self.prepared(succeeded, read, changes);
        if prepared.bytes > BYTES_MAX && prepared.bytes > self.bytes {
            return Err(StoreError::Full);
        }
        Ok(prepared)
    }

    /// Works out the end of a lease: its keys go. `None` if there is no such lease.
    pub fn prepare_end(&self, lease: LeaseId) -> Option<Prepared> {
        let term = self.leases.get(&lease)?;
        let revision = Revision(self.revision.0 + 1);
        let changes =
            term.keys.iter().map(|key| Change::Deleted { key: key.clone(), revision }).collect();
        Some(self.prepared(true, Vec::new(), changes))
    }

    fn prepared(
        &self,
        succeeded: bool,
        read: Vec<Option<Entry>>,
        changes: Vec<Change>,
    ) -> Prepared {
        let revision =
            if changes.is_empty() { self.revision } else { Revision(self.revision.0 + 1) };
        let mut bytes = self.bytes;
        for change in &changes {
            bytes -= self.entries.get(change.key()).map_or(0, entry_bytes);
            bytes += change_bytes(change);
        }
        Prepared { committed: Committed { succeeded, revision, read }, changes, bytes }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let entry = self.entries.get(compare.key());
        match compare {
            Compare::Absent(_) => entry.is_none(),
            Compare::ModRevision(_, revision) => entry.is_some_and(|e| e.mod_revision == *revision),
            Compare::CreateRevision(_, revision) => {
                entry.is_some_and(|e| e.create_revision == *revision)
            }
            Compare::Lease(_, lease) => entry.is_some_and(|e| e.lease == Some(*lease)),
        }
    }

    /// Does what was prepared and hands back what watchers are to be told.
    pub fn apply(&mut self, prepared: Prepared) -> (Committed, Option<Changes>) {
        let Prepared { committed, changes, bytes } = prepared;
        if changes.is_empty() {
            return (committed, None);
        }
        for change in &changes {
            self.unbind(change.key());
            match change {
                Change::Put(entry) => {
                    if let Some(term) = entry.lease.and_then(|lease| self.leases.get_mut(&lease)) {
                        term.keys.insert(entry.key.clone());
                    }
                    self.entries.insert(entry.key.clone(), entry.clone());
                }
                Change::Deleted { key, .. } => {
                    self.entries.remove(key);
                }
            }
        }
        self.bytes = bytes;
        self.revision = committed.revision;
        let told = Changes { revision: committed.revision, changes };
        self.remember(told.clone());
        (committed, Some(told))
    }

    /// Takes a key off the lease it hangs on.
    fn unbind(&mut self, key: &Key) {
        let lease = self.entries.get(key).and_then(|entry| entry.lease);
        if let Some(term) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
            term.keys.remove(key);
        }
    }

    fn remember(&mut self, changes: Changes) {
        self.history_bytes += changes.changes.iter().map(change_bytes).sum::<usize>();
        self.history.push_back(changes);
        while self.history.len() > HISTORY_REVISIONS_MAX || self.history_bytes > HISTORY_BYTES_MAX {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.history.pop_front() {
            self.history_bytes -= oldest.changes.iter().map(change_bytes).sum::<usize>();
            self.compacted = oldest.revision;
        }
    }

    /// Forgets the history up to a revision.
    pub fn compact(&mut self, up_to: Revision) {
        while self.history.front().is_some_and(|changes| changes.revision <= up_to) {
            self.forget_oldest();
        }
    }

    /// What happened to a prefix after a revision, one element a revision.
    pub fn changes_after(
        &self,
        after: Revision,
        prefix: &Prefix,
    ) -> Result<Vec<Changes>, WatchError> {
        if after < self.compacted || after > self.revision {
            return Err(WatchError::Gap { after, oldest: self.compacted });
        }
        let newer = self.history.iter().filter(|changes| changes.revision > after);
        Ok(newer.filter_map(|changes| restrict(changes, prefix)).collect())
    }

    /// Grants a lease.
    pub fn grant(&mut self, now: Instant, ttl: Duration) -> Result<Lease, StoreError> {
        if self.leases.len() >= LEASES_MAX {
            return Err(StoreError::Full);
        }
        let ttl = ttl.clamp(TTL_MIN, TTL_MAX);
        self.last_lease += 1;
        let id = LeaseId(self.last_lease);
        self.leases.insert(id, LeaseTerm { ttl, ends: now + ttl, keys: BTreeSet::new() });
        Ok(Lease { id, ttl })
    }

    /// Starts a lease's time anew.
    pub fn keep_alive(&mut self, now: Instant, lease: LeaseId) -> Result<(), StoreError> {
        let term = self.leases.get_mut(&lease).ok_or(StoreError::LeaseNotFound(lease))?;
        term.ends = now + term.ttl;
        Ok(())
    }

    /// Forgets a lease whose end was applied.
    pub fn forget_lease(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
    }

    /// When the next lease ends.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.leases.values().map(|term| term.ends).min()
    }

    /// A lease that has ended by now.
    pub fn expired(&self, now: Instant) -> Option<LeaseId> {
        self.leases.iter().find(|(_, term)| term.ends <= now).map(|(id, _)| *id)
    }
}

/// The changes that concern a prefix, if there are any.
pub fn restrict(changes: &Changes, prefix: &Prefix) -> Option<Changes> {
    let concerned: Vec<Change> =
        changes.changes.iter().filter(|change| prefix.contains(change.key())).cloned().collect();
    (!concerned.is_empty()).then_some(Changes { revision: changes.revision, changes: concerned })
}

fn entry_bytes(entry: &Entry) -> usize {
    entry.key.as_str().len() + entry.value.len()
}

fn change_bytes(change: &Change) -> usize {
    match change {
        Change::Put(entry) => entry_bytes(entry),
        Change::Deleted { .. } => 0,
    }
}

#[cfg(test)]
mod tests;
