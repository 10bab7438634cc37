//! The transports of a shard: found by ufrag (STUN) or by path (everything
//! else), and woken when their time comes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use headwater_model::media::TransportKey;
use headwater_transport::{Path, Transport};
use rustc_hash::FxHashMap;

/// Paths remembered for one transport. The transport itself trusts at most
/// eight; twice that leaves room for those that are about to be forgotten.
const PATHS_MAX: usize = 16;

/// How long a connected transport stays after its participant ended. Its goodbye
/// must not come before the gateway's word: an SDK that loses its data channel
/// while it sends waits 15 s for it before it listens to anything else.
const LINGER: Duration = Duration::from_secs(1);

/// One transport and where it can be found.
pub struct Slot {
    /// The transport.
    pub transport: Transport,
    /// Media may flow.
    pub connected: bool,
    /// Nobody is behind it any more: what it brings counts for nothing.
    pub parted: bool,
    closing: bool,
    paths: Vec<Path>,
    ufrags: Vec<String>,
    wakes_at: Option<Instant>,
    touched: bool,
}

impl Slot {
    /// No authentic STUN message ever came.
    pub fn was_never_reached(&self) -> bool {
        self.paths.is_empty()
    }
}

/// All transports of a shard.
#[derive(Default)]
pub struct Transports {
    slots: FxHashMap<TransportKey, Slot>,
    by_ufrag: FxHashMap<String, TransportKey>,
    by_path: FxHashMap<Path, TransportKey>,
    /// Deadlines; an entry that no longer is its transport's deadline is skipped.
    timers: BinaryHeap<Reverse<(Instant, TransportKey)>>,
    touched: Vec<TransportKey>,
    /// Transports that linger, in the order in which they end. Bounded by those
    /// that there are.
    lingering: VecDeque<(Instant, TransportKey)>,
}

impl Transports {
    /// Adds a transport.
    pub fn insert(&mut self, key: TransportKey, transport: Transport) {
        let slot = Slot {
            transport,
            connected: false,
            parted: false,
            closing: false,
            paths: Vec::new(),
            ufrags: Vec::new(),
            wakes_at: None,
            touched: false,
        };
        self.slots.insert(key, slot);
        self.index_ufrags(key);
        self.touch(key);
    }

    /// Brings the ufrags of a transport up to date, after an ICE restart.
    pub fn index_ufrags(&mut self, key: TransportKey) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        for ufrag in slot.ufrags.drain(..) {
            self.by_ufrag.remove(&ufrag);
        }
        slot.ufrags = slot.transport.local_ufrags().map(str::to_owned).collect();
        for ufrag in &slot.ufrags {
            self.by_ufrag.insert(ufrag.clone(), key);
        }
    }

    /// Takes a transport away.
    pub fn remove(&mut self, key: TransportKey) -> Option<Transport> {
        let slot = self.slots.remove(&key)?;
        for ufrag in &slot.ufrags {
            self.by_ufrag.remove(ufrag);
        }
        for path in &slot.paths {
            if self.by_path.get(path) == Some(&key) {
                self.by_path.remove(path);
            }
        }
        Some(slot.transport)
    }

    /// Lets go of a transport: it says goodbye and is forgotten, a moment later
    /// if it is connected.
    pub fn part(&mut self, now: Instant, key: TransportKey) {
        let Some(slot) = self.slots.get_mut(&key).filter(|slot| !slot.parted) else { return };
        slot.parted = true;
        if std::mem::take(&mut slot.connected) {
            self.lingering.push_back((now + LINGER, key));
        } else {
            self.end(now, key);
        }
    }

    fn end(&mut self, now: Instant, key: TransportKey) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        slot.transport.close(now);
        slot.closing = true;
        self.touch(key);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Forgets a transport that has said goodbye.
    pub fn remove_if_closed(&mut self, key: TransportKey) {
        if self.slots.get(&key).is_some_and(|slot| slot.closing) {
            self.remove(key);
        }
    }

    /// A transport by key.
    pub fn get_mut(&mut self, key: TransportKey) -> Option<&mut Slot> {
        self.slots.get_mut(&key)
    }

    /// The transport that answers to a ufrag.
    pub fn by_ufrag(&self, ufrag: &str) -> Option<TransportKey> {
        self.by_ufrag.get(ufrag).copied()
    }

    /// The transport that a path belongs to, if it has been authenticated there.
    pub fn by_path(&mut self, path: Path) -> Option<(TransportKey, &mut Slot)> {
        let key = *self.by_path.get(&path)?;
        let slot = self.slots.get_mut(&key)?;
        slot.transport.is_valid_path(path).then_some((key, slot))
    }

    /// Remembers that an authenticated request came by this path.
    pub fn learn_path(&mut self, key: TransportKey, path: Path) {
        if self.by_path.get(&path) == Some(&key) {
            return;
        }
        let Some(slot) = self.slots.get_mut(&key) else { return };
        if slot.paths.len() >= PATHS_MAX {
            let transport = &slot.transport;
            let by_path = &mut self.by_path;
            slot.paths.retain(|known| {
                let keep = transport.is_valid_path(*known);
                if !keep && by_path.get(known) == Some(&key) {
                    by_path.remove(known);
                }
                keep
            });
        }
        slot.paths.push(path);
        if let Some(former) = self.by_path.insert(path, key)
            && let Some(slot) = self.slots.get_mut(&former)
        {
            slot.paths.retain(|known| *known != path);
        }
    }

    /// Notes that a transport may have something to say.
    pub fn touch(&mut self, key: TransportKey) {
        if let Some(slot) = self.slots.get_mut(&key)
            && !slot.touched
        {
            slot.touched = true;
            self.touched.push(key);
        }
    }

    /// The next transport that may have something to say. Its deadline is noted
    /// when it has said it all: see [`Transports::settle`].
    pub fn next_touched(&mut self) -> Option<TransportKey> {
        let key = self.touched.pop()?;
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.touched = false;
        }
        Some(key)
    }

    /// Notes when a transport wants to be woken.
    pub fn settle(&mut self, key: TransportKey) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let deadline = slot.transport.poll_timeout();
        if deadline == slot.wakes_at {
            return;
        }
        slot.wakes_at = deadline;
        if let Some(deadline) = deadline {
            self.timers.push(Reverse((deadline, key)));
        }
        self.trim_timers();
    }

    /// Stale deadlines are dropped when they are most of the heap, so that it
    /// stays within a small multiple of the transports.
    fn trim_timers(&mut self) {
        if self.timers.len() <= 64 + 8 * self.slots.len() {
            return;
        }
        let slots = &self.slots;
        self.timers.retain(|Reverse((deadline, key))| {
            slots.get(key).is_some_and(|slot| slot.wakes_at == Some(*deadline))
        });
    }

    /// The earliest deadline.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        while let Some(Reverse((deadline, key))) = self.timers.peek() {
            if self.slots.get(key).is_some_and(|slot| slot.wakes_at == Some(*deadline)) {
                break;
            }
            self.timers.pop();
        }
        let wake = self.timers.peek().map(|Reverse((deadline, _))| *deadline);
        let end = self.lingering.front().map(|(end, _)| *end);
        wake.into_iter().chain(end).min()
    }

    /// Wakes every transport whose deadline has come, and ends those that have
    /// lingered.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((end, key)) = self.lingering.front().copied()
            && end <= now
        {
            self.lingering.pop_front();
            self.end(now, key);
        }
        while self.poll_timeout().is_some_and(|deadline| deadline <= now) {
            let Some(Reverse((_, key))) = self.timers.pop() else { return };
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.wakes_at = None;
                slot.transport.handle_timeout(now);
            }
            self.touch(key);
        }
    }

    /// How many are connected.
    pub fn connected(&self) -> usize {
        self.slots.values().filter(|slot| slot.connected).count()
    }
}
