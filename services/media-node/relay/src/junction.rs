//! Where the links of one room meet on one shard: which track comes from where, who
//! wants it, to whom it goes on; which parent is followed, and what happens when it is
//! lost. Sans-IO.
//!
//! **Loops are impossible by local rules**, whatever plans and peers say: a shard takes
//! a room only from shards of lower rank; an announcement that has this shard on its
//! path is refused; what came from above is never announced upwards; a packet is taken
//! only from the one link its track is taken from; a frame passes at most
//! [`HOPS_MAX`](crate::frame::HOPS_MAX) links.

mod announce;
mod media;
mod route;
mod upstream;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use headwater_model::media::TrackKey;
use headwater_model::{Epoch, RoomId, TrackUid};
use rustc_hash::FxHashMap;
use slab::Slab;

use crate::link::{End, Link, LinkKey, LinkStats, Phase, Side};
use crate::message::{Hello, Message, PROTOCOL_VERSION, Refusal};
use crate::plan::{BACKUP_CHILDREN_MAX, CHILDREN_MAX, Peer, PlanSlice, ShardAddress};
use crate::state::{Owner, RoomState, StateError, StateEvent, StateMessage, StateOutput, Timing};
use crate::totals::RelayTotals;
use crate::track::TrackInfo;
pub use media::Arrival;
use route::Route;
use upstream::Upstream;

/// Tracks of a room that one shard knows. Beyond, announcements are counted and dropped.
pub const TRACKS_MAX: usize = 4_096;
/// A child that the plan names no more keeps its link for this long: it has its own
/// plan to follow.
const RETIRE: Duration = Duration::from_secs(2);

/// Who this shard is in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JunctionConfig {
    /// This shard.
    pub me: ShardAddress,
    /// Identity of this process.
    pub boot: u64,
    /// The room.
    pub room: RoomId,
    /// Longest datagram of a link before the shell knows better.
    pub datagram_max: usize,
}

/// What the forwarding core is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaOrder {
    /// [`headwater_sfu::Sfu::set_relay_demand`].
    Demand(TrackKey, u8),
    /// [`headwater_sfu::Sfu::request_keyframe`].
    Keyframe(TrackKey, u8),
    /// [`headwater_sfu::Sfu::repeat_relayed`], to one link.
    Repeat {
        /// To whom.
        link: LinkKey,
        /// The track.
        track: TrackKey,
        /// Which encoding of it.
        encoding: u8,
        /// Which life of that.
        life: u32,
        /// Which packets.
        sequences: Vec<u64>,
    },
    /// [`headwater_sfu::Sfu::replay_relayed`], to one link, for each of these encodings.
    Replay(LinkKey, TrackKey, u8),
}

/// What the room may want to know.
#[derive(Debug, Clone, PartialEq)]
pub enum RelayEvent {
    /// A track of another shard can be had: attach it.
    TrackAppeared(Box<TrackInfo>),
    /// Its publisher is on another shard now, or negotiated anew: publish it anew.
    TrackRenewed(Box<TrackInfo>),
    /// It cannot be had any more: detach it.
    TrackGone(TrackUid),
    /// Other shards want these encodings of a track, one bit for each.
    Wanted(TrackKey, u8),
    /// Of the room's state.
    State(StateEvent),
    /// A link carries media from now on.
    LinkUp(ShardAddress, Side),
    /// A link has ended.
    LinkEnded(ShardAddress, Side, End),
    /// The room comes from another shard now.
    Reparented {
        /// From where. Absent if there was no parent.
        from: Option<ShardAddress>,
        /// To where. Absent if there is none left.
        to: Option<ShardAddress>,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum JunctionOutput {
    /// Open a way to a shard; then call [`Junction::opened`], or [`Junction::failed`].
    Open(Peer),
    /// A link has ended: send these last messages, then let go of what carries it.
    Close(LinkKey, Vec<u8>),
    /// Ask the forwarding core.
    Media(MediaOrder),
    /// Tell the room.
    Event(RelayEvent),
}

/// The links of one room on one shard. After each call take everything from
/// [`Junction::poll_output`], and datagrams and messages from each link.
#[derive(Debug)]
pub struct Junction {
    config: JunctionConfig,
    slice: PlanSlice,
    state: RoomState,
    /// At most [`CHILDREN_MAX`] + [`BACKUP_CHILDREN_MAX`] children and three above.
    links: BTreeMap<LinkKey, Link>,
    /// Parent and backups, best first.
    upstreams: Vec<Upstream>,
    /// The one in use.
    active: Option<LinkKey>,
    last_parent: Option<ShardAddress>,
    /// Children that the plan names no more, and until when they are kept.
    retired: BTreeMap<LinkKey, Instant>,
    /// At most [`TRACKS_MAX`].
    routes: Slab<Route>,
    by_uid: BTreeMap<TrackUid, usize>,
    by_key: FxHashMap<TrackKey, usize>,
    /// What the peers' handles mean.
    handles_in: FxHashMap<(LinkKey, u32), usize>,
    /// What ours mean.
    handles_out: FxHashMap<(LinkKey, u32), usize>,
    last_handle: u32,
    /// Interest to be told with the next flush.
    interest: BTreeMap<LinkKey, BTreeMap<u32, u8>>,
    /// The home's heartbeat.
    beat: u32,
    beat_at: Instant,
    outputs: VecDeque<JunctionOutput>,
    /// What links counted that have ended.
    ended: RelayTotals,
}

impl Junction {
    /// A room that this shard begins to carry.
    #[must_use]
    pub fn new(config: JunctionConfig, slice: PlanSlice, timing: Timing, now: Instant) -> Self {
        let owner = Owner { shard: config.me.tag(), boot: config.boot };
        let state = RoomState::new(owner, slice.epoch, slice.is_home(), timing, now);
        let mut junction = Self {
            config,
            slice: PlanSlice::alone(Epoch(0)),
            state,
            links: BTreeMap::new(),
            upstreams: Vec::new(),
            active: None,
            last_parent: None,
            retired: BTreeMap::new(),
            routes: Slab::new(),
            by_uid: BTreeMap::new(),
            by_key: FxHashMap::default(),
            handles_in: FxHashMap::default(),
            handles_out: FxHashMap::default(),
            last_handle: 0,
            interest: BTreeMap::new(),
            beat: 0,
            beat_at: now,
            outputs: VecDeque::new(),
            ended: RelayTotals::default(),
        };
        junction.take_slice(now, slice);
        junction
    }

    /// The room.
    #[must_use]
    pub fn room(&self) -> &RoomId {
        &self.config.room
    }

    /// Epoch of the plan that is followed.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.slice.epoch
    }

    /// The room's state.
    #[must_use]
    pub const fn state(&self) -> &RoomState {
        &self.state
    }

    /// Changes the room's state.
    ///
    /// # Errors
    /// What the change says.
    pub fn with_state<T>(
        &mut self,
        change: impl FnOnce(&mut RoomState) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        let result = change(&mut self.state);
        self.pass_state();
        result
    }

    /// The shard that feeds this one now.
    #[must_use]
    pub fn active_parent(&self) -> Option<&ShardAddress> {
        self.active.and_then(|key| self.links.get(&key)).map(Link::peer)
    }

    /// Each link's peer, side, phase, and what was measured on it.
    pub fn reports(&self) -> impl Iterator<Item = (&ShardAddress, Side, Phase, LinkStats)> {
        self.links.values().map(|link| (link.peer(), link.side(), link.phase(), link.stats()))
    }

    /// What all its links counted, those that have ended included.
    #[must_use]
    pub fn totals(&self) -> RelayTotals {
        let mut totals = self.ended;
        for link in self.links.values() {
            totals.add_link(link, link.peer().node == self.config.me.node);
        }
        totals
    }

    /// Takes a plan. One of a lower epoch is refused; the same may come twice.
    pub fn set_slice(&mut self, now: Instant, slice: PlanSlice) -> bool {
        if slice.epoch < self.slice.epoch {
            return false;
        }
        self.take_slice(now, slice);
        true
    }

    fn take_slice(&mut self, now: Instant, mut slice: PlanSlice) {
        slice.backups.truncate(2);
        slice.children.truncate(CHILDREN_MAX);
        slice.backup_children.truncate(BACKUP_CHILDREN_MAX);
        self.state.set_role(now, slice.epoch, slice.is_home());
        self.slice = slice;
        let (epoch, rank) = (self.slice.epoch, self.slice.rank);
        for (key, link) in &mut self.links {
            if !link.is_up() {
                continue;
            }
            link.say(&Message::Moved(epoch, rank));
            if link.side() == Side::Down {
                if self.slice.may_feed(link.peer()) {
                    self.retired.remove(key);
                } else {
                    self.retired.entry(*key).or_insert(now + RETIRE);
                }
            }
        }
        self.plan_upstreams(now);
        self.pass_state();
    }

    /// Looks whether a shard that says hello may be fed, and takes its link if so.
    ///
    /// # Errors
    /// Why not; it is to be told so.
    pub fn admit(&mut self, now: Instant, key: LinkKey, hello: &Hello) -> Result<(), Refusal> {
        if hello.version != PROTOCOL_VERSION {
            return Err(Refusal::Version);
        }
        if hello.to != self.config.me {
            return Err(Refusal::WrongShard);
        }
        if hello.epoch != self.slice.epoch {
            let stale = hello.epoch < self.slice.epoch;
            return Err(if stale { Refusal::StaleEpoch } else { Refusal::EarlyEpoch });
        }
        if hello.rank <= self.slice.rank || !self.slice.may_feed(&hello.from) {
            return Err(Refusal::NotInPlan);
        }
        let twin = self
            .links
            .values()
            .find(|link| link.side() == Side::Down && *link.peer() == hello.from)
            .map(Link::key);
        if let Some(twin) = twin {
            self.finish_link(now, twin, End::Closed(Refusal::Protocol));
        }
        if self.links.len() >= CHILDREN_MAX + BACKUP_CHILDREN_MAX + 3 {
            return Err(Refusal::Full);
        }
        let ours = self.hello(&hello.from);
        let mut link = Link::accept(key, (hello, &ours), self.config.datagram_max, now);
        link.handle_timeout(now, self.beat);
        self.links.insert(key, link);
        self.announce_all(key);
        let up = RelayEvent::LinkUp(hello.from.clone(), Side::Down);
        self.outputs.push_back(JunctionOutput::Event(up));
        Ok(())
    }

    fn hello(&self, to: &ShardAddress) -> Hello {
        Hello {
            version: PROTOCOL_VERSION,
            from: self.config.me.clone(),
            to: to.clone(),
            boot: self.config.boot,
            room: self.config.room.clone(),
            epoch: self.slice.epoch,
            rank: self.slice.rank,
        }
    }

    /// A link, to take datagrams and messages from.
    pub fn link_mut(&mut self, key: LinkKey) -> Option<&mut Link> {
        self.links.get_mut(&key)
    }

    /// Keys of all links.
    #[must_use]
    pub fn link_keys(&self) -> Vec<LinkKey> {
        self.links.keys().copied().collect()
    }

    /// Takes a message of a link.
    pub fn handle_message(&mut self, now: Instant, key: LinkKey, message: Message) {
        let Some(link) = self.links.get_mut(&key) else { return };
        link.note_heard(now);
        let side = link.side();
        match message {
            Message::Welcome(hello) if side == Side::Up => self.welcomed(now, key, &hello),
            Message::Goodbye(reason, _) => self.refused(now, key, reason),
            _ if !link.is_up() => self.finish_link(now, key, End::Closed(Refusal::Protocol)),
            Message::Hello(_) | Message::Welcome(_) => {
                self.finish_link(now, key, End::Closed(Refusal::Protocol));
            }
            Message::Moved(epoch, rank) => link.peer_moved(epoch, rank),
            Message::Announce { handle, info, path } => {
                self.take_announcement(now, (key, handle), *info, path);
            }
            Message::Withdraw(handle) => self.take_withdrawal(now, key, handle),
            Message::Announced => self.announced(now, key),
            Message::Interest(entries) => {
                for (handle, encodings) in entries {
                    self.take_interest(now, (key, handle), encodings);
                }
            }
            Message::Keyframe(handle, encoding) => self.take_keyframe((key, handle), encoding),
            Message::Repeat(repeat) => self.take_repeat(key, repeat),
            // The shell hands its bytes to where datagrams go.
            Message::LongFrame(_) => {}
            Message::State(state) => self.take_state(now, key, state),
        }
    }

    fn take_state(&mut self, now: Instant, key: LinkKey, message: StateMessage) {
        let Some(link) = self.links.get(&key) else { return };
        match link.side() {
            Side::Down => self.state.handle_up(now, key, message),
            // A backup is heard when it becomes the parent.
            Side::Up if self.active == Some(key) => self.state.handle_down(now, message),
            Side::Up => {}
        }
        self.pass_state();
    }

    fn pass_state(&mut self) {
        while let Some(output) = self.state.poll_output() {
            match output {
                StateOutput::Up(message) => {
                    if let Some(link) = self.active.and_then(|key| self.links.get_mut(&key)) {
                        link.say(&Message::State(message));
                    }
                }
                StateOutput::Down(key, message) => {
                    if let Some(link) = self.links.get_mut(&key) {
                        link.say(&Message::State(message));
                    }
                }
                StateOutput::DownAll(message) => {
                    let message = Message::State(message);
                    for key in self.state.followers() {
                        if let Some(link) = self.links.get_mut(&key) {
                            link.say(&message);
                        }
                    }
                }
                StateOutput::Event(event) => {
                    self.outputs.push_back(JunctionOutput::Event(RelayEvent::State(event)));
                }
            }
        }
    }

    /// A link's carrier broke.
    pub fn broken(&mut self, now: Instant, key: LinkKey) {
        self.finish_link(now, key, End::Broken);
    }

    /// Forgets a link that has ended, or ends it.
    fn finish_link(&mut self, now: Instant, key: LinkKey, end: End) {
        let Some(mut link) = self.links.remove(&key) else { return };
        if let End::Closed(reason) = end {
            link.close(reason, self.slice.epoch);
        }
        let (peer, side) = (link.peer().clone(), link.side());
        self.ended.add_link(&link, peer.node == self.config.me.node);
        self.outputs.push_back(JunctionOutput::Close(key, link.take_messages()));
        self.outputs.push_back(JunctionOutput::Event(RelayEvent::LinkEnded(peer, side, end)));
        self.retired.remove(&key);
        self.interest.remove(&key);
        self.forget_link(now, key);
        match side {
            Side::Down => self.state.child_gone(key),
            Side::Up => self.upstream_ended(now, key, end),
        }
        self.pass_state();
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.count_beat(now);
        let mut ended = Vec::new();
        for (key, link) in &mut self.links {
            link.handle_timeout(now, self.beat);
            if let Phase::Ended(end) = link.phase() {
                ended.push((*key, end));
            }
        }
        for (key, end) in ended {
            self.finish_link(now, key, end);
        }
        let retired: Vec<_> =
            self.retired.iter().filter(|(_, until)| **until <= now).map(|(key, _)| *key).collect();
        for key in retired {
            self.finish_link(now, key, End::Closed(Refusal::NotInPlan));
        }
        self.tend_upstreams(now);
        self.tend_routes(now);
        self.state.handle_timeout(now);
        self.pass_state();
    }

    /// When something is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let links = self.links.values().filter_map(Link::poll_timeout);
        let state = self.state.poll_timeout();
        let upstreams = self.upstreams.iter().filter_map(Upstream::due);
        let routes = self.routes.iter().filter_map(|(_, route)| route.due());
        let retired = self.retired.values().copied();
        // The home's heartbeat rises as often as heartbeats go out, so links suffice.
        links.chain(upstreams).chain(routes).chain(retired).fold(state, Instant::min)
    }

    /// Ends the wake-up: trains and interest leave.
    pub fn flush(&mut self, now: Instant) {
        for (key, entries) in std::mem::take(&mut self.interest) {
            if let Some(link) = self.links.get_mut(&key) {
                link.say(&Message::Interest(entries.into_iter().collect()));
            }
        }
        for link in self.links.values_mut() {
            link.flush(now);
        }
    }

    /// This shard leaves: its children are told to turn to their backups.
    pub fn leave(&mut self, now: Instant) {
        for key in self.link_keys() {
            self.finish_link(now, key, End::Closed(Refusal::Leaving));
        }
        self.upstreams.clear();
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<JunctionOutput> {
        self.outputs.pop_front()
    }
}

#[cfg(test)]
mod tests;
