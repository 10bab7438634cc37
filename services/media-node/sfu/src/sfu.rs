//! The forwarding core itself: its state and its calls. What each call does is in the
//! files below.

mod commands;
mod drain;
mod events;
mod feedback;
mod receive;
mod reports;
mod timers;

use std::collections::VecDeque;
use std::time::Instant;

use headwater_model::media::{
    Publication, Subscription, SubscriptionKey, SubscriptionTarget, TrackKey, TransportKey,
};
use rustc_hash::FxHashMap;
use slab::Slab;

use crate::clock::Clock;
use crate::forward::delivery::Delivery;
use crate::forward::writer::Writer;
use crate::ingress::track::Track;
use crate::link::Link;
use crate::random::Random;
use crate::wheel::TimerWheel;
use crate::{Egress, Limits, SfuConfig, SfuError, SfuEvent, Stats};
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
    /// At most [`feedback::WANTED_MAX`].
    wanted: Vec<Wanted>,
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
            wanted: Vec::new(),
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

    /// Takes a plain RTP packet of a publisher.
    pub fn handle_rtp(&mut self, now: Instant, from: TransportKey, packet: &[u8]) {
        self.receive(self.clock.at(now), from, packet);
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

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}
