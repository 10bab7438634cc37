//! The forwarding core itself: its state and its calls. What each call does is in the
//! files below.

mod adapt;
mod commands;
mod drain;
mod events;
mod feedback;
mod floors;
mod receive;
mod relay;
mod reports;
mod timers;

use std::collections::VecDeque;
use std::time::Instant;

use headwater_model::Bitrate;
use headwater_model::media::{
    MediaKind, Prominence, Publication, Subscription, SubscriptionKey, SubscriptionTarget,
    TrackKey, TransportKey,
};
use rustc_hash::FxHashMap;
use slab::Slab;

use crate::bandwidth::allocate::Demand;
use crate::clock::Clock;
use crate::floor::Floor;
use crate::forward::delivery::Delivery;
use crate::forward::writer::Writer;
use crate::ingress::track::Track;
use crate::link::Link;
use crate::random::Random;
use crate::wheel::TimerWheel;
use crate::{Egress, Limits, RelayClock, RelayPacket, SfuConfig, SfuError, SfuEvent, Stats};
use timers::Timer;

/// Longest compound that is sent: it fits any path that media fits.
const COMPOUND_MAX: usize = 1_200;

/// A packet that a subscriber asked for again.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    delivery: u32,
    sequence: u16,
}

/// The forwarding core of one shard. See the crate's documentation for how to call it.
#[derive(Debug)]
pub struct Sfu {
    clock: Clock,
    random: Random,
    limits: Limits,
    links: Slab<Link>,
    tracks: Slab<Track>,
    deliveries: Slab<Delivery>,
    link_index: FxHashMap<TransportKey, u32>,
    track_index: FxHashMap<TrackKey, u32>,
    delivery_index: FxHashMap<SubscriptionKey, u32>,
    wheel: TimerWheel<Timer>,
    /// Fired in the current call; kept for its memory.
    fired: Vec<Timer>,
    /// Fired, and to be worked off by the next drain. Each timer is armed at most once.
    due: Vec<Timer>,
    /// Tracks with something for the next drain.
    queued: Vec<u32>,
    /// Links whose bandwidth is to be divided anew, each at most once.
    allocations: Vec<u32>,
    /// Used in one division after another; kept for its memory.
    demands: Vec<Demand>,
    /// At most [`feedback::WANTED_MAX`].
    wanted: Vec<Wanted>,
    /// Rooms whose loudest microphones are forwarded. As many as there are rooms with
    /// tracks that joined one.
    floors: FxHashMap<u64, Floor>,
    /// Audio tracks whose level is not silent.
    metered: Vec<u32>,
    speakers_armed: bool,
    /// At most [`events::EVENTS_MAX`].
    events: VecDeque<SfuEvent>,
    stats: Stats,
    writer: Box<Writer>,
    compound: Box<[u8; COMPOUND_MAX]>,
}

impl Sfu {
    /// An empty core. `seed` gives the first sequence numbers, timestamps and SSRCs.
    #[must_use]
    pub fn new(config: SfuConfig, seed: u64, now: Instant) -> Self {
        let clock = Clock::new(now, config.wall_clock);
        Self {
            wheel: TimerWheel::new(clock.at(now)),
            clock,
            random: Random::new(seed),
            limits: config.limits,
            links: Slab::new(),
            tracks: Slab::new(),
            deliveries: Slab::new(),
            link_index: FxHashMap::default(),
            track_index: FxHashMap::default(),
            delivery_index: FxHashMap::default(),
            fired: Vec::new(),
            due: Vec::new(),
            queued: Vec::new(),
            allocations: Vec::new(),
            demands: Vec::new(),
            wanted: Vec::with_capacity(feedback::WANTED_MAX),
            floors: FxHashMap::default(),
            metered: Vec::new(),
            speakers_armed: false,
            events: VecDeque::new(),
            stats: Stats::default(),
            writer: Box::new(Writer::new()),
            compound: Box::new([0; COMPOUND_MAX]),
        }
    }

    /// Adds a transport. Nothing is forwarded to it before [`Sfu::set_connected`].
    ///
    /// # Errors
    /// [`SfuError::TransportExists`], [`SfuError::Full`].
    pub fn add_transport(&mut self, transport: TransportKey) -> Result<(), SfuError> {
        self.insert_link(transport)
    }

    /// Removes a transport with all it publishes and all its subscriptions. Nothing
    /// happens if it is not known.
    pub fn remove_transport(&mut self, transport: TransportKey) {
        self.remove_link(transport);
    }

    /// Says whether packets can be sent over a transport. When it becomes connected its
    /// subscriptions begin, with a keyframe. Nothing happens if it is not known.
    pub fn set_connected(&mut self, now: Instant, transport: TransportKey, connected: bool) {
        self.connect_link(self.clock.at(now), transport, connected);
    }

    /// Publishes a track, or takes what was negotiated anew for it: encodings keep
    /// their place and RID then, or begin anew.
    ///
    /// # Errors
    /// [`SfuError::UnknownTransport`], [`SfuError::ForeignTrack`], [`SfuError::Shape`],
    /// [`SfuError::Full`].
    pub fn publish(
        &mut self,
        now: Instant,
        transport: TransportKey,
        track: TrackKey,
        publication: Publication,
    ) -> Result<(), SfuError> {
        self.insert_track(self.clock.at(now), transport, track, publication)
    }

    /// Removes a track with all its subscriptions. Nothing happens if it is not known.
    pub fn unpublish(&mut self, track: TrackKey) {
        self.remove_track(track);
    }

    /// A muted track is not forwarded. When it is no longer muted, video begins with a
    /// keyframe. Nothing happens if the track is not known.
    pub fn set_muted(&mut self, now: Instant, track: TrackKey, muted: bool) {
        self.mute_track(self.clock.at(now), track, muted);
    }

    /// Counts an audio track among the microphones of a room: of those with the same
    /// `floor` only the `seats` loudest are forwarded, to subscribers and to other shards.
    /// The first track of a floor says how many. Nothing happens if the track is not
    /// known or is counted already.
    pub fn join_floor(&mut self, track: TrackKey, floor: u64, seats: u16) {
        self.seat_track(track, floor, seats);
    }

    /// Forwards a track to a transport, or takes what was negotiated anew. It begins
    /// with [`SubscriptionTarget::BEST`]. A new subscription needs SSRCs that were not
    /// used on this transport before: sequence numbers begin anew, and with them the
    /// counters of SRTP.
    ///
    /// # Errors
    /// [`SfuError::UnknownTrack`], [`SfuError::UnknownTransport`],
    /// [`SfuError::ForeignSubscription`], [`SfuError::SsrcInUse`], [`SfuError::Shape`],
    /// [`SfuError::Full`].
    pub fn subscribe(
        &mut self,
        now: Instant,
        subscription: SubscriptionKey,
        track: TrackKey,
        transport: TransportKey,
        negotiated: Subscription,
    ) -> Result<(), SfuError> {
        self.insert_delivery(self.clock.at(now), subscription, (track, transport), negotiated)
    }

    /// Ends a subscription. Nothing happens if it is not known.
    pub fn unsubscribe(&mut self, subscription: SubscriptionKey) {
        self.remove_delivery(subscription);
    }

    /// Says which layers a subscriber wants at most. What is not sent is replaced by
    /// the next lower layer that is.
    ///
    /// # Errors
    /// [`SfuError::UnknownSubscription`].
    pub fn set_target(
        &mut self,
        now: Instant,
        subscription: SubscriptionKey,
        target: SubscriptionTarget,
    ) -> Result<(), SfuError> {
        self.aim_delivery(self.clock.at(now), subscription, target)
    }

    /// Says how much a subscriber cares for a track against its others. It decides what
    /// comes first when there is not enough bandwidth for all.
    ///
    /// # Errors
    /// [`SfuError::UnknownSubscription`].
    pub fn set_prominence(
        &mut self,
        subscription: SubscriptionKey,
        prominence: Prominence,
    ) -> Result<(), SfuError> {
        self.note_prominence(subscription, prominence)
    }

    /// Sends a transport no more pictures than fit this, whatever its network takes;
    /// `None` ends the limit. Sound is never limited. Nothing happens if it is not known.
    pub fn limit_downlink(&mut self, transport: TransportKey, limit: Option<Bitrate>) {
        self.limit_link(transport, limit.map(Bitrate::bps));
    }

    /// What a transport's network is estimated to take. `None` if it is not known, or
    /// nothing is known of its bounds.
    #[must_use]
    pub fn estimate(&self, transport: TransportKey) -> Option<Bitrate> {
        let link = &self.links[*self.link_index.get(&transport)? as usize];
        link.downlink.as_ref()?.estimate_bps().map(Bitrate)
    }

    /// Takes a plain RTP packet of a publisher.
    pub fn handle_rtp(&mut self, now: Instant, from: TransportKey, packet: &[u8]) {
        self.receive(self.clock.at(now), from, packet);
    }

    /// Says which encodings of a track other shards want: bit `n` is encoding `n`.
    /// Their packets go to [`Egress::relay`] from then on, as they are. Nothing happens
    /// if the track is not known.
    pub fn set_relay_demand(&mut self, now: Instant, track: TrackKey, encodings: u8) {
        self.demand_relay(self.clock.at(now), track, encodings);
    }

    /// Which encodings of a track the subscribers of this shard want: bit `n` is
    /// encoding `n`. Where the best they may have does not arrive, those below it are
    /// wanted too.
    #[must_use]
    pub fn relay_wishes(&self, track: TrackKey) -> u8 {
        self.wishes_of(track)
    }

    /// Takes a packet of a track that another shard handed over. The track was
    /// published by a transport that stands for its publisher, with an SSRC of our
    /// choice for each encoding.
    pub fn handle_relayed(&mut self, now: Instant, track: TrackKey, packet: &RelayPacket<'_>) {
        self.receive_relayed(self.clock.at(now), track, packet);
    }

    /// Takes the clock of a publisher of another shard.
    pub fn handle_relayed_clock(&mut self, now: Instant, track: TrackKey, clock: &RelayClock) {
        self.receive_relayed_clock(self.clock.at(now), track, clock);
    }

    /// Another shard cannot go on without a keyframe of an encoding.
    pub fn request_keyframe(&mut self, now: Instant, track: TrackKey, encoding: u8) {
        self.wish_keyframe(self.clock.at(now), track, encoding);
    }

    /// Calls back with packets of one life of an encoding that another shard asks for
    /// again; returns how many are gone.
    pub fn repeat_relayed(
        &mut self,
        now: Instant,
        (track, encoding, life): (TrackKey, u8, u32),
        sequences: impl Iterator<Item = u64>,
        send: impl FnMut(RelayPacket<'_>),
    ) -> u64 {
        self.repeat_stored(self.clock.at(now), (track, encoding, life), sequences, send)
    }

    /// Calls back with the last keyframe of an encoding and what followed it, for a
    /// shard that begins. `false` if that is too old or too long.
    pub fn replay_relayed(
        &mut self,
        now: Instant,
        (track, encoding): (TrackKey, u8),
        send: impl FnMut(RelayPacket<'_>),
    ) -> bool {
        self.replay_stored(self.clock.at(now), (track, encoding), send)
    }

    /// Takes a plain compound RTCP packet, from a publisher or a subscriber.
    pub fn handle_rtcp(&mut self, now: Instant, from: TransportKey, compound: &[u8]) {
        self.receive_feedback(self.clock.at(now), from, compound);
    }

    /// Hands out everything to send since the last call.
    pub fn drain(&mut self, now: Instant, egress: &mut impl Egress) {
        self.hand_out(self.clock.at(now), egress);
    }

    /// Does what is due. Call [`Sfu::drain`] afterwards.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire(self.clock.at(now));
    }

    /// When [`Sfu::handle_timeout`] is to be called, if ever.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.wheel.next().map(|at| self.clock.instant(at))
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<SfuEvent> {
        self.events.pop_front()
    }

    /// Subscriptions now.
    #[must_use]
    pub fn subscription_count(&self) -> usize {
        self.deliveries.len()
    }

    /// Published tracks of a kind now.
    #[must_use]
    pub fn track_count(&self, kind: MediaKind) -> usize {
        self.tracks.iter().filter(|(_, track)| track.kind() == kind).count()
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}
