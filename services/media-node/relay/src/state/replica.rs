//! The replica's part: it follows, and serves those who follow it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_model::Epoch;

use super::entry::{Change, Entry, EntryKey, Owner};
use super::message::{BATCH_BYTES, BATCH_MAX, Operation, StateMessage};
use super::room_state::{ENTRIES_MAX, RoomState, StateEvent, StateOutput};
use crate::link::LinkKey;

/// A snapshot that was asked for is asked for again after this time.
const FOLLOW_RETRY: Duration = Duration::from_secs(2);

/// Where a replica stands with its parent.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// A snapshot or changes were asked for at this time and did not come yet.
    asked: Option<Instant>,
    /// Parts of a snapshot so far; at most [`ENTRIES_MAX`] entries.
    parts: Option<((Epoch, u64), BTreeMap<EntryKey, Entry>)>,
}

impl RoomState {
    /// Asks the parent for what came after this shard's last change.
    pub(super) fn follow_again(&mut self, now: Instant) {
        self.following = Following { asked: Some(now), parts: None };
        let (epoch, version) = (self.epoch, self.version);
        self.outputs.push_back(StateOutput::Up(StateMessage::Follow { epoch, version }));
        self.tell_audience_again();
    }

    pub(super) fn retry_follow(&mut self, now: Instant) {
        let late = |asked: Instant| now.saturating_duration_since(asked) >= FOLLOW_RETRY;
        if self.home.is_none() && self.following.asked.is_some_and(late) {
            self.follow_again(now);
        }
    }

    fn miss(&mut self, now: Instant) {
        if self.following.asked.is_none() {
            self.follow_again(now);
        }
    }

    pub(super) fn take_changes(
        &mut self,
        now: Instant,
        (epoch, version): (Epoch, u64),
        changes: Vec<Change>,
    ) {
        if epoch < self.epoch {
            return;
        }
        if epoch > self.epoch || version > self.version + 1 {
            self.miss(now);
            return;
        }
        self.following.asked = None;
        let known = (self.version + 1).saturating_sub(version);
        let new: Vec<_> = changes.into_iter().skip(known as usize).collect();
        if new.is_empty() {
            return;
        }
        let version = self.version + 1;
        for change in &new {
            self.apply(self.version + 1, change.clone());
        }
        self.outputs.push_back(StateOutput::DownAll(StateMessage::Changes {
            epoch,
            version,
            changes: new,
        }));
    }

    pub(super) fn take_snapshot(
        &mut self,
        position: (Epoch, u64),
        (first, last): (bool, bool),
        entries: Vec<(EntryKey, Entry)>,
    ) {
        if position.0 < self.epoch || (position.0 == self.epoch && position.1 < self.version) {
            return;
        }
        if first {
            self.following.parts = Some((position, BTreeMap::new()));
        }
        let Some((begun, parts)) = &mut self.following.parts else {
            return;
        };
        if *begun != position {
            self.following.parts = None;
            return;
        }
        let room = ENTRIES_MAX.saturating_sub(parts.len());
        parts.extend(entries.into_iter().take(room));
        if last && let Some((position, parts)) = self.following.parts.take() {
            self.following.asked = None;
            self.adopt(position, parts);
        }
    }

    /// Takes a whole state in place of what was there; the room hears the difference.
    fn adopt(&mut self, (epoch, version): (Epoch, u64), entries: BTreeMap<EntryKey, Entry>) {
        let another_home = epoch > self.epoch;
        let before = std::mem::replace(&mut self.entries, entries);
        (self.epoch, self.version) = (epoch, version);
        self.log.clear();
        for key in before.keys().filter(|key| !self.entries.contains_key(*key)) {
            self.outputs.push_back(StateOutput::Event(StateEvent::Removed(key.clone())));
        }
        for (key, entry) in
            self.entries.iter().filter(|(key, entry)| before.get(*key) != Some(*entry))
        {
            // A new home may hold what it has not confirmed yet: this shard claims first.
            let theirs = (entry.incarnation, entry.owner);
            let own = self.own.get(key).map(|(incarnation, _)| (*incarnation, self.me));
            let lost = entry.owner != self.me && own.is_some_and(|own| theirs > own);
            if lost && !another_home && self.own.remove(key).is_some() {
                self.outputs.push_back(StateOutput::Event(StateEvent::Lost(key.clone())));
            }
            let event = StateEvent::Put(key.clone(), entry.clone());
            self.outputs.push_back(StateOutput::Event(event));
        }
        if another_home {
            self.claim();
        }
        self.tell_position();
    }

    /// Says to those who follow how far this shard is; who is behind asks.
    pub(super) fn tell_position(&mut self) {
        let (epoch, version) = (self.epoch, self.version + 1);
        let changes = Vec::new();
        self.outputs.push_back(StateOutput::DownAll(StateMessage::Changes {
            epoch,
            version,
            changes,
        }));
    }

    /// Says to the home all that this shard owns, and asks again for what was not
    /// acknowledged. It keeps its numbers, so that a home that wanted the claim twice, or
    /// took some of it before, does nothing twice. What was asked of an entry is asked as
    /// the entry is now: its past would undo the claim.
    pub(super) fn claim(&mut self) {
        let owner = self.me;
        let number = self.pending.front().map_or(self.last_number, |first| first.number - 1);
        let entries: Vec<_> = self
            .own
            .iter()
            .map(|(key, (incarnation, value))| (key.clone(), *incarnation, Arc::clone(value)))
            .collect();
        let batches = batches(entries, |(_, _, value)| value.len());
        let count = batches.len();
        for (index, entries) in batches.into_iter().enumerate() {
            let (first, last) = (index == 0, index + 1 == count);
            self.outputs.push_back(StateOutput::Up(StateMessage::Claim {
                owner,
                number,
                first,
                last,
                entries,
            }));
        }
        for request in &mut self.pending {
            if let Operation::Put { key, .. } | Operation::Remove(key) = &request.operation {
                let key = key.clone();
                request.operation = match self.own.get(&key) {
                    Some((incarnation, value)) => {
                        Operation::Put { key, incarnation: *incarnation, value: Arc::clone(value) }
                    }
                    None => Operation::Remove(key),
                };
            }
            self.outputs.push_back(StateOutput::Up(StateMessage::Request(request.clone())));
        }
    }

    /// A child follows from a position on: what it lacks goes to it, as changes if
    /// those are still there, else whole.
    pub(super) fn serve(&mut self, child: LinkKey, epoch: Epoch, version: u64) {
        self.followers.insert(child);
        self.tell_audience_again();
        let oldest = self.version - self.log.len() as u64;
        if epoch == self.epoch && (oldest..=self.version).contains(&version) {
            let skipped = (version - oldest) as usize;
            let changes: Vec<_> = self.log.iter().skip(skipped).cloned().collect();
            let mut next = version + 1;
            for changes in batches(changes, change_weight) {
                let version = next;
                next += changes.len() as u64;
                let message = StateMessage::Changes { epoch, version, changes };
                self.outputs.push_back(StateOutput::Down(child, message));
            }
            return;
        }
        let entries: Vec<_> =
            self.entries.iter().map(|(key, entry)| (key.clone(), entry.clone())).collect();
        let (epoch, version) = (self.epoch, self.version);
        let batches = batches(entries, |(_, entry)| entry.weight());
        let count = batches.len();
        for (index, entries) in batches.into_iter().enumerate() {
            let (first, last) = (index == 0, index + 1 == count);
            let message = StateMessage::Snapshot { epoch, version, first, last, entries };
            self.outputs.push_back(StateOutput::Down(child, message));
        }
    }

    pub(super) fn link_of(&self, owner: Owner) -> Option<LinkKey> {
        self.owners_behind.get(&owner).copied()
    }
}

fn change_weight(change: &Change) -> usize {
    match change {
        Change::Put(_, entry) => entry.weight(),
        Change::Remove(_) => 0,
        Change::Post(_, post) => post.payload.len(),
    }
}

/// Splits a list so that each part fits a message. An empty list is one empty part.
fn batches<T>(items: Vec<T>, weight: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut batches = vec![Vec::new()];
    let mut bytes = 0;
    for item in items {
        bytes += weight(&item);
        let full = |batch: &Vec<T>| batch.len() >= BATCH_MAX || bytes > BATCH_BYTES;
        if batches.last().is_some_and(|batch| !batch.is_empty() && full(batch)) {
            batches.push(Vec::new());
            bytes = weight(&item);
        }
        if let Some(batch) = batches.last_mut() {
            batch.push(item);
        }
    }
    batches
}
