//! The state of one room on one shard: what it holds, what it asks for, what it says.
//! The home's part and the replica's part are in the files beside this one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_model::Epoch;

use super::audience::Audience;
use super::bucket::Bucket;
use super::entry::{Change, Entry, EntryKey, KEY_MAX, Owner, VALUE_MAX};
use super::home::Home;
use super::message::{Operation, Post, Request, StateMessage, TALLIES_MAX, is_tally_name};
use super::replica::Following;
use crate::frame::HOPS_MAX;
use crate::link::LinkKey;

/// Entries of a room. A room with more viewers counts them instead of listing them.
pub const ENTRIES_MAX: usize = 16_384;
/// Changes kept for replicas that fall behind; who is further behind gets a snapshot.
pub(super) const LOG_MAX: usize = 512;
/// Requests that wait for the home. Beyond, requests are refused.
const PENDING_MAX: usize = 1_024;
/// Shards behind the links of this one whose way is remembered. Plans are smaller.
const OWNERS_MAX: usize = 4_096;
/// Data messages a second that one shard sends into a room, and at once. A room of a
/// thousand chatting viewers has its limit in how many can be read.
const POSTS_PER_SECOND: f64 = 200.0;
const POSTS_AT_ONCE: f64 = 400.0;
/// Reliable messages that wait for their turn: a file that somebody sends at once. Each
/// has at most [`super::message::POST_MAX`] bytes; further ones are refused.
const HELD_MAX: usize = 1_024;
/// How long they wait before it is looked for their turn.
const HELD_PAUSE: Duration = Duration::from_millis(10);

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A new home waits this long for claims before it lets go of what nobody claimed.
    /// Longer shows ghosts for longer; shorter drops those whose shard is slow to find
    /// its new parent.
    pub claim_grace: Duration,
    /// A shard that is silent for this long is gone, with all that it owned.
    pub owner_gone: Duration,
    /// How often a shard says that it is alive, and asks again for what was not done.
    pub alive: Duration,
    /// How often tallies go up.
    pub tally: Duration,
    /// How often counts and sums go down, at most.
    pub broadcast: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            claim_grace: Duration::from_secs(5),
            owner_gone: Duration::from_secs(6),
            alive: Duration::from_secs(1),
            tally: Duration::from_millis(250),
            broadcast: Duration::from_millis(500),
        }
    }
}

/// Why a shard's own wish was refused. Nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A key, a value or a message is longer than it may be.
    #[error("a key, value or message of the room's state is too long")]
    TooLong,
    /// Too many entries, or too many requests wait for the home.
    #[error("the room's state is full")]
    Full,
    /// Too many data messages in too short a time.
    #[error("too many data messages")]
    TooFast,
}

/// What happened to the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateEvent {
    /// An entry is new or another. Also told of this shard's own.
    Put(EntryKey, Entry),
    /// An entry is gone.
    Removed(EntryKey),
    /// An entry of this shard belongs to another shard now: end what stands behind it.
    Lost(EntryKey),
    /// A data message: from whom, and what.
    Posted(Owner, Post),
    /// Who is in the room now.
    Audience(Audience),
    /// Sums of what was tallied.
    Totals(BTreeMap<Arc<str>, u64>),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateOutput {
    /// Say it to the parent. Lost without harm while there is none.
    Up(StateMessage),
    /// Say it to one child.
    Down(LinkKey, StateMessage),
    /// Say it to every child that follows.
    DownAll(StateMessage),
    /// Tell the room.
    Event(StateEvent),
}

/// A room's state on one shard. After each call take everything from
/// [`RoomState::poll_output`].
#[derive(Debug)]
pub struct RoomState {
    pub(super) me: Owner,
    pub(super) timing: Timing,
    /// Present on the home.
    pub(super) home: Option<Home>,
    /// Epoch at which the present home became it.
    pub(super) epoch: Epoch,
    /// The last change of that home which is in `entries`.
    pub(super) version: u64,
    pub(super) entries: BTreeMap<EntryKey, Entry>,
    /// The last changes, up to `version`. At most [`LOG_MAX`].
    pub(super) log: VecDeque<Change>,
    pub(super) following: Following,
    /// Children that follow. As many as there are links.
    pub(super) followers: BTreeSet<LinkKey>,
    /// What this shard owns, whether the home knows or not.
    pub(super) own: BTreeMap<EntryKey, (u64, Arc<[u8]>)>,
    /// Number of the last request.
    pub(super) last_number: u64,
    /// Requests that are not acknowledged. At most [`PENDING_MAX`].
    pub(super) pending: VecDeque<Request>,
    /// Behind which child a shard is. At most [`OWNERS_MAX`].
    pub(super) owners_behind: BTreeMap<Owner, LinkKey>,
    last_flood: u64,
    /// Highest flood of each shard. At most [`OWNERS_MAX`].
    floods: BTreeMap<Owner, u64>,
    bucket: Bucket,
    /// Reliable messages beyond what the bucket gave. At most [`HELD_MAX`].
    held: VecDeque<Post>,
    held_at: Option<Instant>,
    own_audience: Audience,
    audiences: BTreeMap<LinkKey, Audience>,
    told_audience: Audience,
    audience_changed: bool,
    /// Not yet sent up. At most [`TALLIES_MAX`].
    tallies: BTreeMap<Arc<str>, u64>,
    totals: BTreeMap<Arc<str>, u64>,
    totals_changed: bool,
    alive_at: Instant,
    tally_at: Instant,
    broadcast_at: Instant,
    pub(super) outputs: VecDeque<StateOutput>,
}

impl RoomState {
    /// The state of a room that this shard begins to carry.
    #[must_use]
    pub fn new(me: Owner, epoch: Epoch, is_home: bool, timing: Timing, now: Instant) -> Self {
        Self {
            me,
            timing,
            home: is_home.then(|| Home::new(None)),
            epoch: if is_home { epoch } else { Epoch(0) },
            version: 0,
            entries: BTreeMap::new(),
            log: VecDeque::new(),
            following: Following::default(),
            followers: BTreeSet::new(),
            own: BTreeMap::new(),
            last_number: 0,
            pending: VecDeque::new(),
            owners_behind: BTreeMap::new(),
            last_flood: 0,
            floods: BTreeMap::new(),
            bucket: Bucket::new(POSTS_PER_SECOND, POSTS_AT_ONCE, now),
            held: VecDeque::new(),
            held_at: None,
            own_audience: Audience::default(),
            audiences: BTreeMap::new(),
            told_audience: Audience::default(),
            audience_changed: false,
            tallies: BTreeMap::new(),
            totals: BTreeMap::new(),
            totals_changed: false,
            alive_at: now,
            tally_at: now,
            broadcast_at: now,
            outputs: VecDeque::new(),
        }
    }

    /// Its requests are numbered from here on: above all those of an earlier state of the
    /// same room in the same process, which a home may still know.
    pub(crate) fn number_from(&mut self, number: u64) {
        self.last_number = number;
    }

    /// Takes the role that a plan of a higher epoch gives.
    pub fn set_role(&mut self, now: Instant, epoch: Epoch, is_home: bool) {
        match (self.home.is_some(), is_home) {
            (false, true) => self.become_home(now, epoch),
            (true, false) => {
                self.home = None;
                self.follow_again(now);
            }
            (true, true) | (false, false) => {}
        }
    }

    /// An entry of this shard is this from now on.
    ///
    /// # Errors
    /// [`StateError::TooLong`], [`StateError::Full`].
    pub fn put(
        &mut self,
        key: EntryKey,
        incarnation: u64,
        value: Arc<[u8]>,
    ) -> Result<(), StateError> {
        if key.id.len() > KEY_MAX || value.len() > VALUE_MAX {
            return Err(StateError::TooLong);
        }
        if !self.own.contains_key(&key) && self.own.len() >= ENTRIES_MAX {
            return Err(StateError::Full);
        }
        self.check_room()?;
        self.own.insert(key.clone(), (incarnation, Arc::clone(&value)));
        self.ask(Operation::Put { key, incarnation, value });
        Ok(())
    }

    /// An entry of this shard is gone. Nothing happens if it was none.
    ///
    /// # Errors
    /// [`StateError::Full`].
    pub fn remove(&mut self, key: EntryKey) -> Result<(), StateError> {
        self.check_room()?;
        if self.own.remove(&key).is_some() {
            // Another shard's stood behind it all the time.
            let theirs = self.entries.get(&key).filter(|entry| entry.owner != self.me).cloned();
            let event = theirs.map(|entry| StateEvent::Put(key.clone(), entry));
            self.outputs.extend(event.map(StateOutput::Event));
            self.ask(Operation::Remove(key));
        }
        Ok(())
    }

    /// Sends a data message to all shards, in the order of the home. It may come twice
    /// if the home dies while it is under way. Messages that come faster than they may
    /// be sent wait for their turn.
    ///
    /// # Errors
    /// [`StateError::TooLong`]; [`StateError::TooFast`] if too many wait.
    pub fn post(&mut self, now: Instant, post: Post) -> Result<(), StateError> {
        if !post.is_sound() {
            return Err(StateError::TooLong);
        }
        if self.held.len() >= HELD_MAX {
            return Err(StateError::TooFast);
        }
        self.held.push_back(post);
        self.pass_held(now);
        Ok(())
    }

    /// Sends the reliable messages whose turn has come, in their order.
    fn pass_held(&mut self, now: Instant) {
        while !self.held.is_empty() && self.check_room().is_ok() && self.bucket.take(now) {
            if let Some(post) = self.held.pop_front() {
                self.ask(Operation::Post(post));
            }
        }
        self.held_at = (!self.held.is_empty()).then(|| now + HELD_PAUSE);
    }

    /// Sends a data message to all shards on the shortest way, at most once. This shard
    /// gets no event of it.
    ///
    /// # Errors
    /// [`StateError::TooLong`], [`StateError::TooFast`].
    pub fn flood(&mut self, now: Instant, post: Post) -> Result<(), StateError> {
        if !post.is_sound() {
            return Err(StateError::TooLong);
        }
        if !self.bucket.take(now) {
            return Err(StateError::TooFast);
        }
        self.last_flood += 1;
        let (owner, number) = (self.me, self.last_flood);
        self.spread(None, owner, number, HOPS_MAX, &post);
        Ok(())
    }

    /// Counts something, such as a reaction. Kinds beyond 32 are not counted.
    pub fn tally(&mut self, kind: &str, count: u64) {
        if is_tally_name(kind) {
            add_tally(&mut self.tallies, kind, count);
        }
    }

    /// Says who is on this shard.
    pub fn set_audience(&mut self, audience: Audience) {
        self.audience_changed |= self.own_audience != audience;
        self.own_audience = audience;
    }

    /// Everything the room has.
    pub fn entries(&self) -> impl Iterator<Item = (&EntryKey, &Entry)> {
        self.entries.iter()
    }

    /// Epoch of the home that it follows, and the last change it has.
    #[must_use]
    pub const fn position(&self) -> (Epoch, u64) {
        (self.epoch, self.version)
    }

    /// Children that follow.
    #[must_use]
    pub fn followers(&self) -> Vec<LinkKey> {
        self.followers.iter().copied().collect()
    }

    /// There is a parent to talk to, or another one than before.
    pub fn upstream_changed(&mut self, now: Instant) {
        if self.home.is_none() {
            self.follow_again(now);
            self.say_alive();
        }
    }

    /// A link to a child is gone.
    pub fn child_gone(&mut self, link: LinkKey) {
        self.followers.remove(&link);
        self.audience_changed |= self.audiences.remove(&link).is_some();
        self.owners_behind.retain(|_, behind| *behind != link);
    }

    /// Takes what the parent says.
    pub fn handle_down(&mut self, now: Instant, message: StateMessage) {
        if self.home.is_some() {
            // A parent of an older plan; a home listens to nobody above.
            return;
        }
        match message {
            StateMessage::Snapshot { epoch, version, first, last, entries } => {
                self.take_snapshot((epoch, version), (first, last), entries);
            }
            StateMessage::Changes { epoch, version, changes } => {
                self.take_changes(now, (epoch, version), changes);
            }
            StateMessage::Ack { owner, number } if owner == self.me => self.acknowledge(number),
            StateMessage::ClaimWanted(owner) if owner == self.me => self.claim(),
            StateMessage::Ack { owner, .. } | StateMessage::ClaimWanted(owner) => {
                if let Some(link) = self.owners_behind.get(&owner) {
                    self.outputs.push_back(StateOutput::Down(*link, message));
                }
            }
            StateMessage::Flood { owner, number, hops_left, post } => {
                self.take_flood(None, (owner, number, hops_left), post);
            }
            StateMessage::Audience(audience) => {
                self.outputs
                    .push_back(StateOutput::DownAll(StateMessage::Audience(audience.clone())));
                self.outputs.push_back(StateOutput::Event(StateEvent::Audience(audience)));
            }
            StateMessage::Totals(totals) => {
                self.outputs.push_back(StateOutput::DownAll(StateMessage::Totals(totals.clone())));
                self.outputs.push_back(StateOutput::Event(StateEvent::Totals(totals)));
            }
            // Those go up only.
            StateMessage::Follow { .. }
            | StateMessage::Request(_)
            | StateMessage::Claim { .. }
            | StateMessage::Alive(_)
            | StateMessage::Census(_)
            | StateMessage::Tally(_) => {}
        }
    }

    /// Takes what a child says.
    pub fn handle_up(&mut self, now: Instant, from: LinkKey, message: StateMessage) {
        let owner = match &message {
            StateMessage::Request(request) => Some(request.owner),
            StateMessage::Claim { owner, .. } | StateMessage::Alive(owner) => Some(*owner),
            StateMessage::Follow { .. }
            | StateMessage::Snapshot { .. }
            | StateMessage::Changes { .. }
            | StateMessage::Ack { .. }
            | StateMessage::ClaimWanted(_)
            | StateMessage::Flood { .. }
            | StateMessage::Census(_)
            | StateMessage::Audience(_)
            | StateMessage::Tally(_)
            | StateMessage::Totals(_) => None,
        };
        if let Some(owner) = owner {
            let known = self.owners_behind.contains_key(&owner);
            if known || self.owners_behind.len() < OWNERS_MAX {
                self.owners_behind.insert(owner, from);
            }
            if self.home.is_none() {
                self.outputs.push_back(StateOutput::Up(message));
            } else {
                self.take_of_owner(now, owner, message);
            }
            return;
        }
        match message {
            StateMessage::Follow { epoch, version } => self.serve(from, epoch, version),
            StateMessage::Flood { owner, number, hops_left, post } => {
                self.take_flood(Some(from), (owner, number, hops_left), post);
            }
            StateMessage::Census(audience) => {
                self.audiences.insert(from, audience);
                self.audience_changed = true;
            }
            StateMessage::Tally(tallies) => {
                for (kind, count) in tallies {
                    add_tally(&mut self.tallies, &kind, count);
                }
            }
            // Those go down only, or were worked off above.
            StateMessage::Snapshot { .. }
            | StateMessage::Changes { .. }
            | StateMessage::Request(_)
            | StateMessage::Claim { .. }
            | StateMessage::Ack { .. }
            | StateMessage::ClaimWanted(_)
            | StateMessage::Alive(_)
            | StateMessage::Audience(_)
            | StateMessage::Totals(_) => {}
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now >= self.alive_at {
            self.alive_at = now + self.timing.alive;
            self.say_alive();
            self.retry_follow(now);
        }
        self.expire_owners(now);
        if now >= self.tally_at {
            self.tally_at = now + self.timing.tally;
            self.pass_tallies();
        }
        if self.held_at.is_some_and(|at| now >= at) {
            self.pass_held(now);
        }
        if now >= self.broadcast_at {
            self.broadcast_at = now + self.timing.broadcast;
            self.pass_audience();
        }
    }

    /// When something is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let regular = self.alive_at.min(self.tally_at).min(self.broadcast_at);
        self.held_at.map_or(regular, |held| held.min(regular))
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<StateOutput> {
        self.outputs.pop_front()
    }

    fn check_room(&self) -> Result<(), StateError> {
        if self.pending.len() < PENDING_MAX { Ok(()) } else { Err(StateError::Full) }
    }

    /// Asks the home, which may be this shard.
    fn ask(&mut self, operation: Operation) {
        self.last_number += 1;
        let request = Request { owner: self.me, number: self.last_number, operation };
        if self.home.is_some() {
            self.apply_operation(self.me, request.operation);
            return;
        }
        self.pending.push_back(request.clone());
        self.outputs.push_back(StateOutput::Up(StateMessage::Request(request)));
    }

    fn acknowledge(&mut self, number: u64) {
        while self.pending.front().is_some_and(|request| request.number <= number) {
            self.pending.pop_front();
        }
    }

    /// A shard that is not the home says that it is there, and asks again.
    fn say_alive(&mut self) {
        if self.home.is_some() {
            return;
        }
        self.outputs.push_back(StateOutput::Up(StateMessage::Alive(self.me)));
        for request in &self.pending {
            self.outputs.push_back(StateOutput::Up(StateMessage::Request(request.clone())));
        }
    }

    fn take_flood(
        &mut self,
        from: Option<LinkKey>,
        (owner, number, hops_left): (Owner, u64, u8),
        post: Post,
    ) {
        let full = self.floods.len() >= OWNERS_MAX;
        let seen = self.floods.get(&owner).copied();
        if owner == self.me || seen.is_some_and(|seen| seen >= number) || (seen.is_none() && full) {
            return;
        }
        self.floods.insert(owner, number);
        self.spread(from, owner, number, hops_left.min(HOPS_MAX).saturating_sub(1), &post);
        self.outputs.push_back(StateOutput::Event(StateEvent::Posted(owner, post)));
    }

    /// Passes a flood on, but not back. `from` is the child it came from, if it came
    /// from one; what came from above never goes up.
    fn spread(
        &mut self,
        from: Option<LinkKey>,
        owner: Owner,
        number: u64,
        hops_left: u8,
        post: &Post,
    ) {
        if hops_left == 0 {
            return;
        }
        let message = || StateMessage::Flood { owner, number, hops_left, post: post.clone() };
        if (owner == self.me || from.is_some()) && self.home.is_none() {
            self.outputs.push_back(StateOutput::Up(message()));
        }
        for follower in self.followers.iter().filter(|follower| Some(**follower) != from) {
            self.outputs.push_back(StateOutput::Down(*follower, message()));
        }
    }

    fn pass_tallies(&mut self) {
        if self.tallies.is_empty() {
            return;
        }
        let tallies = std::mem::take(&mut self.tallies);
        if self.home.is_none() {
            self.outputs.push_back(StateOutput::Up(StateMessage::Tally(tallies)));
            return;
        }
        for (kind, count) in tallies {
            add_tally(&mut self.totals, &kind, count);
        }
        self.totals_changed = true;
    }

    fn pass_audience(&mut self) {
        if self.home.is_some() && std::mem::take(&mut self.totals_changed) {
            let totals = self.totals.clone();
            self.outputs.push_back(StateOutput::DownAll(StateMessage::Totals(totals.clone())));
            self.outputs.push_back(StateOutput::Event(StateEvent::Totals(totals)));
        }
        if !std::mem::take(&mut self.audience_changed) {
            return;
        }
        let mut audience = self.own_audience.clone();
        self.audiences.values().for_each(|one| audience.merge(one));
        if audience == self.told_audience {
            return;
        }
        self.told_audience = audience.clone();
        if self.home.is_none() {
            self.outputs.push_back(StateOutput::Up(StateMessage::Census(audience)));
            return;
        }
        self.outputs.push_back(StateOutput::DownAll(StateMessage::Audience(audience.clone())));
        self.outputs.push_back(StateOutput::Event(StateEvent::Audience(audience)));
    }

    /// A child must hear the counts that were told before it came, and a parent those
    /// of this shard.
    pub(super) fn tell_audience_again(&mut self) {
        self.told_audience = Audience::default();
        self.audience_changed = true;
        self.totals_changed = !self.totals.is_empty();
    }
}

fn add_tally(tallies: &mut BTreeMap<Arc<str>, u64>, kind: &str, count: u64) {
    if let Some(sum) = tallies.get_mut(kind) {
        *sum = sum.saturating_add(count);
    } else if tallies.len() < TALLIES_MAX {
        tallies.insert(kind.into(), count);
    }
}
