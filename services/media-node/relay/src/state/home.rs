//! The home's part: it takes requests in order, once, and numbers the changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use headwater_model::Epoch;

use super::entry::{Change, Entry, EntryKey, Owner};
use super::message::{Operation, StateMessage};
use super::room_state::{ENTRIES_MAX, LOG_MAX, RoomState, StateEvent, StateOutput};

/// Shards that a home knows. Beyond, a shard is not listened to.
const OWNERS_MAX: usize = 4_096;

/// What a shard claims, as it came so far.
type Claimed = BTreeMap<EntryKey, (u64, Arc<[u8]>)>;

/// What the home knows of a shard.
#[derive(Debug)]
struct Known {
    /// The last request that was taken.
    number: u64,
    heard: Instant,
    /// It said what it has, to this home.
    confirmed: bool,
    /// A claim that is not complete. At most [`ENTRIES_MAX`] entries.
    claimed: Option<Claimed>,
}

/// What only the home has.
#[derive(Debug)]
pub(super) struct Home {
    owners: BTreeMap<Owner, Known>,
    /// When unconfirmed entries are let go.
    claims_until: Option<Instant>,
}

impl Home {
    pub(super) fn new(claims_until: Option<Instant>) -> Self {
        Self { owners: BTreeMap::new(), claims_until }
    }

    fn is_confirmed(&self, owner: Owner) -> bool {
        self.owners.get(&owner).is_some_and(|known| known.confirmed)
    }
}

impl RoomState {
    /// Begins at a higher epoch with what the replica holds.
    pub(super) fn become_home(&mut self, now: Instant, epoch: Epoch) {
        self.home = Some(Home::new(Some(now + self.timing.claim_grace)));
        self.epoch = epoch;
        self.log.clear();
        self.pending.clear();
        // What is this shard's own needs no claim.
        let own: Vec<_> =
            self.own.iter().map(|(key, entry)| (key.clone(), entry.clone())).collect();
        let gone: Vec<_> = self
            .entries
            .iter()
            .filter(|(key, entry)| {
                entry.owner.shard == self.me.shard && !self.own.contains_key(*key)
            })
            .map(|(key, _)| key.clone())
            .collect();
        gone.into_iter().for_each(|key| self.change(Change::Remove(key)));
        for (key, (incarnation, value)) in own {
            self.take_put(self.me, key, incarnation, value);
        }
        self.tell_position();
        self.tell_audience_again();
    }

    /// Takes what is for the home from a shard.
    pub(super) fn take_of_owner(&mut self, now: Instant, owner: Owner, message: StateMessage) {
        self.forget_older_boots(owner);
        let Some(home) = &mut self.home else { return };
        if !home.owners.contains_key(&owner) && home.owners.len() >= OWNERS_MAX {
            return;
        }
        let known = home.owners.entry(owner).or_insert(Known {
            number: 0,
            heard: now,
            confirmed: false,
            claimed: None,
        });
        known.heard = now;
        match message {
            StateMessage::Claim { number, first, last, entries, .. } => {
                let claimed = match first {
                    true => known.claimed.insert(Claimed::new()),
                    false => known.claimed.get_or_insert_default(),
                };
                let room = ENTRIES_MAX.saturating_sub(claimed.len());
                claimed.extend(
                    entries
                        .into_iter()
                        .take(room)
                        .map(|(key, number, value)| (key, (number, value))),
                );
                if last {
                    let claimed = known.claimed.take().unwrap_or_default();
                    // A claim that was wanted twice must not bring back what was taken.
                    known.number = if known.confirmed { known.number.max(number) } else { number };
                    known.confirmed = true;
                    let number = known.number;
                    self.take_claim(owner, claimed);
                    self.answer(owner, StateMessage::Ack { owner, number });
                }
            }
            _ if !known.confirmed => self.answer(owner, StateMessage::ClaimWanted(owner)),
            StateMessage::Request(request) if request.number <= known.number => {
                let number = known.number;
                self.answer(owner, StateMessage::Ack { owner, number });
            }
            StateMessage::Request(request) if request.number == known.number + 1 => {
                known.number = request.number;
                self.apply_operation(owner, request.operation);
                self.answer(owner, StateMessage::Ack { owner, number: request.number });
            }
            // Requests are missing in between.
            StateMessage::Request(_) => self.answer(owner, StateMessage::ClaimWanted(owner)),
            _ => {}
        }
    }

    /// The way down to an owner is the way it came up.
    fn answer(&mut self, owner: Owner, message: StateMessage) {
        if let Some(link) = self.link_of(owner) {
            self.outputs.push_back(StateOutput::Down(link, message));
        }
    }

    /// A shard that began anew has none of what it had.
    fn forget_older_boots(&mut self, owner: Owner) {
        let Some(home) = &mut self.home else { return };
        if home.owners.contains_key(&owner) {
            return;
        }
        home.owners.retain(|other, _| other.shard != owner.shard);
        self.remove_where(|entry| entry.owner.shard == owner.shard && entry.owner != owner);
    }

    fn remove_where(&mut self, gone: impl Fn(&Entry) -> bool) {
        let keys: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| gone(entry))
            .map(|(key, _)| key.clone())
            .collect();
        keys.into_iter().for_each(|key| self.change(Change::Remove(key)));
    }

    fn take_claim(&mut self, owner: Owner, claimed: Claimed) {
        let unclaimed: Vec<_> = self
            .entries
            .iter()
            .filter(|(key, entry)| entry.owner == owner && !claimed.contains_key(*key))
            .map(|(key, _)| key.clone())
            .collect();
        unclaimed.into_iter().for_each(|key| self.change(Change::Remove(key)));
        for (key, (incarnation, value)) in claimed {
            self.take_put(owner, key, incarnation, value);
        }
    }

    /// Does what an owner asks, numbered as the next change.
    pub(super) fn apply_operation(&mut self, owner: Owner, operation: Operation) {
        match operation {
            Operation::Put { key, incarnation, value } => {
                self.take_put(owner, key, incarnation, value);
            }
            Operation::Remove(key) => {
                if self.entries.get(&key).is_some_and(|entry| entry.owner == owner) {
                    self.change(Change::Remove(key));
                }
            }
            Operation::Post(post) => self.change(Change::Post(owner, post)),
        }
    }

    fn take_put(&mut self, owner: Owner, key: EntryKey, incarnation: u64, value: Arc<[u8]>) {
        let entry = Entry { owner, incarnation, value };
        let Some(before) = self.entries.get(&key) else {
            if self.entries.len() < ENTRIES_MAX {
                self.change(Change::Put(key, entry));
            }
            return;
        };
        if *before == entry {
            return;
        }
        let home = self.home.as_ref();
        let lives = before.owner == self.me
            || home
                .is_some_and(|home| home.is_confirmed(before.owner) || home.claims_until.is_none());
        if !lives || entry.supersedes(before) {
            self.change(Change::Put(key, entry));
        } else {
            // Said again, so that the one who lost it hears of it.
            let before = before.clone();
            self.change(Change::Put(key, before));
        }
    }

    /// Makes a change the next one, here and for all who follow.
    fn change(&mut self, change: Change) {
        let version = self.version + 1;
        self.apply(version, change.clone());
        let (epoch, changes) = (self.epoch, vec![change]);
        self.outputs.push_back(StateOutput::DownAll(StateMessage::Changes {
            epoch,
            version,
            changes,
        }));
    }

    /// Applies a change and keeps it for those who fall behind.
    pub(super) fn apply(&mut self, version: u64, change: Change) {
        self.version = version;
        let event = match &change {
            Change::Put(key, entry) => {
                let lost = self.is_lost_to(key, entry) && self.own.remove(key).is_some();
                if lost {
                    self.outputs.push_back(StateOutput::Event(StateEvent::Lost(key.clone())));
                }
                let before = self.entries.insert(key.clone(), entry.clone());
                // Who lost its own hears whose it is, though it may have heard before.
                (lost || before.as_ref() != Some(entry))
                    .then(|| StateEvent::Put(key.clone(), entry.clone()))
            }
            Change::Remove(key) => {
                self.entries.remove(key).map(|_| StateEvent::Removed(key.clone()))
            }
            Change::Post(owner, post) => Some(StateEvent::Posted(*owner, post.clone())),
        };
        self.outputs.extend(event.map(StateOutput::Event));
        if self.log.len() >= LOG_MAX {
            self.log.pop_front();
        }
        self.log.push_back(change);
    }

    /// An entry of another shard takes the place of one of this shard's, and not the
    /// other way around with the news of it still on its way.
    pub(super) fn is_lost_to(&self, key: &EntryKey, entry: &Entry) -> bool {
        let theirs = (entry.incarnation, entry.owner);
        entry.owner != self.me
            && self.own.get(key).is_some_and(|(incarnation, _)| theirs > (*incarnation, self.me))
    }

    /// Lets go of shards that are silent, and of what nobody claimed.
    pub(super) fn expire_owners(&mut self, now: Instant) {
        let (me, gone_after) = (self.me, self.timing.owner_gone);
        let Some(home) = &mut self.home else { return };
        let silent: BTreeSet<Owner> = home
            .owners
            .iter()
            .filter(|(_, known)| now.saturating_duration_since(known.heard) >= gone_after)
            .map(|(owner, _)| *owner)
            .collect();
        home.owners.retain(|owner, _| !silent.contains(owner));
        let over = home.claims_until.is_some_and(|until| now >= until);
        let mut gone = silent;
        if over {
            home.claims_until = None;
            let owners = self.entries.values().map(|entry| entry.owner);
            gone.extend(owners.filter(|owner| *owner != me && !home.is_confirmed(*owner)));
        }
        if !gone.is_empty() {
            self.remove_where(|entry| gone.contains(&entry.owner));
        }
    }
}
