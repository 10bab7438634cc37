//! The registry as a model: revisions, compare-and-swap, leases, and a history that
//! watchers read at their own pace. It can be away, and then an answer may get lost after
//! the write was done.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_control_core::{Lifecycle, NodeFacts, Plan, RoomSpec};
use headwater_model::{NodeId, RoomId};

use crate::Time;

/// What can be written. There is no key for participants, subscriptions or loads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Node(NodeId),
    Order(NodeId),
    Spec(RoomId),
    Plan(RoomId),
    Leader,
}

/// What stands under a key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Node { boot: u64, facts: NodeFacts },
    Order(Lifecycle),
    Spec(RoomSpec),
    Plan(Plan),
    Leader(usize),
}

/// A key's value and history.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) value: Value,
    pub(crate) created: u64,
    pub(crate) changed: u64,
    lease: Option<u64>,
}

/// What must hold for a transaction to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Compare {
    Absent(Key),
    Created(Key, u64),
    Changed(Key, u64),
}

/// One thing that a transaction does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Write {
    Put(Key, Value, Option<u64>),
    Delete(Key),
}

/// It did not answer. A write may have been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Away;

/// One revision: what it made of each key that it touched.
#[derive(Debug, Clone)]
pub(crate) struct Revision {
    pub(crate) number: u64,
    pub(crate) changes: Vec<(Key, Option<Entry>)>,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    ttl: Duration,
    ends: Time,
}

/// The registry.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(crate) revision: u64,
    entries: BTreeMap<Key, Entry>,
    leases: BTreeMap<u64, Lease>,
    last_lease: u64,
    /// All of a run: some hundred revisions.
    history: Vec<Revision>,
    away: bool,
}

impl Registry {
    /// It answers from now on, or no more. Leases do not run out meanwhile: who leads
    /// the registry next starts them anew.
    pub(crate) fn set_away(&mut self, now: Time, away: bool) {
        if self.away && !away {
            for lease in self.leases.values_mut() {
                lease.ends = now.plus(lease.ttl);
            }
        }
        self.away = away;
    }

    pub(crate) fn is_away(&self) -> bool {
        self.away
    }

    pub(crate) fn grant(&mut self, now: Time, ttl: Duration) -> Result<u64, Away> {
        self.answer()?;
        self.last_lease += 1;
        self.leases.insert(self.last_lease, Lease { ttl, ends: now.plus(ttl) });
        Ok(self.last_lease)
    }

    /// `Ok(false)` if the lease has ended.
    pub(crate) fn keep_alive(&mut self, now: Time, lease: u64) -> Result<bool, Away> {
        self.answer()?;
        let Some(lease) = self.leases.get_mut(&lease) else { return Ok(false) };
        lease.ends = now.plus(lease.ttl);
        Ok(true)
    }

    pub(crate) fn revoke(&mut self, lease: u64) -> Result<(), Away> {
        self.answer()?;
        self.end_leases(&[lease]);
        Ok(())
    }

    pub(crate) fn get(&self, key: &Key) -> Result<Option<Entry>, Away> {
        self.answer()?;
        Ok(self.entries.get(key).cloned())
    }

    /// Its revision, if all of the conditions held.
    pub(crate) fn commit(
        &mut self,
        when: &[Compare],
        writes: Vec<Write>,
    ) -> Result<Option<u64>, Away> {
        self.answer()?;
        let holds = |compare: &Compare| match compare {
            Compare::Absent(key) => !self.entries.contains_key(key),
            Compare::Created(key, at) => self.entries.get(key).is_some_and(|it| it.created == *at),
            Compare::Changed(key, at) => self.entries.get(key).is_some_and(|it| it.changed == *at),
        };
        let leased = |write: &Write| match write {
            Write::Put(_, _, Some(lease)) => self.leases.contains_key(lease),
            Write::Put(_, _, None) | Write::Delete(_) => true,
        };
        if !when.iter().all(holds) || !writes.iter().all(leased) {
            return Ok(None);
        }
        self.write(writes);
        Ok(Some(self.revision))
    }

    fn write(&mut self, writes: Vec<Write>) {
        self.revision += 1;
        let number = self.revision;
        let mut changes = Vec::with_capacity(writes.len());
        for write in writes {
            match write {
                Write::Put(key, value, lease) => {
                    let created = self.entries.get(&key).map_or(number, |entry| entry.created);
                    let entry = Entry { value, created, changed: number, lease };
                    self.entries.insert(key.clone(), entry.clone());
                    changes.push((key, Some(entry)));
                }
                Write::Delete(key) => {
                    if self.entries.remove(&key).is_some() {
                        changes.push((key, None));
                    }
                }
            }
        }
        self.history.push(Revision { number, changes });
    }

    /// Ends what nobody kept alive.
    pub(crate) fn handle_timeout(&mut self, now: Time) {
        if self.away {
            return;
        }
        let ended: Vec<u64> =
            self.leases.iter().filter(|(_, lease)| lease.ends <= now).map(|(id, _)| *id).collect();
        self.end_leases(&ended);
    }

    fn end_leases(&mut self, ended: &[u64]) {
        self.leases.retain(|id, _| !ended.contains(id));
        let held = |entry: &Entry| entry.lease.is_some_and(|lease| ended.contains(&lease));
        let keys: Vec<Key> = self
            .entries
            .iter()
            .filter(|(_, entry)| held(entry))
            .map(|(key, _)| key.clone())
            .collect();
        if !keys.is_empty() {
            self.write(keys.into_iter().map(Write::Delete).collect());
        }
    }

    /// What happened after a revision, as a watch tells it.
    pub(crate) fn after(&self, revision: u64) -> Result<&[Revision], Away> {
        self.answer()?;
        let from = self.history.partition_point(|it| it.number <= revision);
        Ok(&self.history[from..])
    }

    /// Everything there is, whether it answers or not: for checks.
    pub(crate) fn entries(&self) -> &BTreeMap<Key, Entry> {
        &self.entries
    }

    fn answer(&self) -> Result<(), Away> {
        if self.away { Err(Away) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn leader(replica: usize, lease: Option<u64>) -> Write {
        Write::Put(Key::Leader, Value::Leader(replica), lease)
    }

    #[test]
    fn of_two_who_compare_the_same_revision_one_writes() {
        let mut registry = Registry::default();
        let absent = [Compare::Absent(Key::Leader)];
        assert_eq!(registry.commit(&absent, vec![leader(0, None)]), Ok(Some(1)));
        assert_eq!(registry.commit(&absent, vec![leader(1, None)]), Ok(None));
        let seen = [Compare::Changed(Key::Leader, 1)];
        assert_eq!(registry.commit(&seen, vec![leader(2, None)]), Ok(Some(2)));
        assert_eq!(registry.commit(&seen, vec![leader(3, None)]), Ok(None));
        assert_eq!(registry.get(&Key::Leader).unwrap().unwrap().created, 1);
    }

    #[test]
    fn a_lease_takes_its_keys_along_and_a_watch_hears_of_it() {
        let mut registry = Registry::default();
        let lease = registry.grant(Time::ZERO, TTL).unwrap();
        registry.commit(&[], vec![leader(0, Some(lease))]).unwrap();
        registry.keep_alive(Time::from_secs(8), lease).unwrap();
        registry.handle_timeout(Time::from_secs(12));
        assert!(registry.get(&Key::Leader).unwrap().is_some());
        registry.handle_timeout(Time::from_secs(18));
        assert_eq!(registry.get(&Key::Leader), Ok(None));
        let told = registry.after(1).unwrap();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].changes, [(Key::Leader, None)]);
        assert_eq!(registry.keep_alive(Time::from_secs(18), lease), Ok(false));
    }

    #[test]
    fn nothing_ends_and_nothing_answers_while_it_is_away() {
        let mut registry = Registry::default();
        let lease = registry.grant(Time::ZERO, TTL).unwrap();
        registry.commit(&[], vec![leader(0, Some(lease))]).unwrap();
        registry.set_away(Time::ZERO, true);
        registry.handle_timeout(Time::from_secs(60));
        assert_eq!(registry.get(&Key::Leader), Err(Away));
        registry.set_away(Time::from_secs(60), false);
        registry.handle_timeout(Time::from_secs(69));
        assert!(registry.get(&Key::Leader).unwrap().is_some());
    }
}
