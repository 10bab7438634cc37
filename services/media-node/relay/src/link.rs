//! One link between two shards, for one room: its greeting, its heartbeats, its trains
//! and what is measured on it. What flows over it is for [`crate::Junction`] to decide.

mod meter;
mod probe;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use headwater_model::Epoch;
use headwater_sfu::{RelayClock, RelayPacket};

use crate::frame::{
    Frame, FrameTag, HOPS_MAX, KIND_PROBE, KIND_TRAIN, TRAIN_HEAD, Train, begin_train, media_len,
    stamp_train,
};
use crate::message::{Hello, Message, Refusal};
use crate::plan::ShardAddress;

use meter::Meter;
pub use meter::{LinkDrops, LinkStats};
use probe::Probe;

/// A link of a shard. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkKey(pub u32);

/// Where the other end is in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A parent or a backup: this end opened the link.
    Up,
    /// A child.
    Down,
}

/// How far a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The child has said hello and waits.
    Greeting,
    /// It carries media and messages.
    Up,
    /// It has ended, or was refused.
    Ended(End),
}

/// Why a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nothing was heard for too long.
    Silent,
    /// The other end said so.
    Refused(Refusal),
    /// This end said so.
    Closed(Refusal),
    /// What carries it broke.
    Broken,
    /// The other end does not take what is said to it.
    Stuck,
}

/// A heartbeat goes out this often.
pub const HEARTBEAT: Duration = Duration::from_millis(100);
/// Silence that ends a link: four heartbeats. Shorter mistakes a busy machine for a
/// dead one; longer is a longer gap, of which the target is half a second.
pub const SILENCE_MAX: Duration = Duration::from_millis(400);
/// A greeting must be answered in this time.
pub const GREETING_MAX: Duration = Duration::from_secs(2);
/// Trains that wait for the shell. One wake-up makes some dozens; beyond, the newest
/// frames are dropped, as they would be in a full socket.
const TRAINS_MAX: usize = 512;
/// Bytes of messages that wait for the shell: a whole room's state and more. Beyond,
/// the link ends, because messages must not be lost.
const MESSAGES_MAX: usize = 16 * 1024 * 1024;

/// State of one link. See [`crate::Junction`] for who calls it.
#[derive(Debug)]
pub struct Link {
    key: LinkKey,
    peer: ShardAddress,
    side: Side,
    phase: Phase,
    /// The peer's plan.
    peer_epoch: Epoch,
    peer_rank: u32,
    start: Instant,
    began: Instant,
    heard: Instant,
    probe_at: Instant,
    /// Longest datagram that the shell takes.
    datagram_max: usize,
    train: Vec<u8>,
    train_frames: u64,
    trains_made: u32,
    /// At most [`TRAINS_MAX`].
    datagrams: VecDeque<Vec<u8>>,
    /// Buffers to be used again; at most [`TRAINS_MAX`].
    spare: Vec<Vec<u8>>,
    /// Encoded, at most [`MESSAGES_MAX`] bytes.
    messages: Vec<u8>,
    meter: Meter,
    peer_sent: Option<(u32, Instant)>,
    /// The home's heartbeat as told by the peer, and when it last rose.
    beat: u32,
    beat_at: Instant,
}

impl Link {
    /// A link that this end opens: it says hello.
    #[must_use]
    pub fn open(key: LinkKey, hello: &Hello, datagram_max: usize, now: Instant) -> Self {
        let mut link = Self::new(key, (hello.to.clone(), Side::Up), datagram_max, now);
        link.say(&Message::Hello(hello.clone()));
        link
    }

    /// A link that a child opened and that is accepted: it is welcomed.
    #[must_use]
    pub fn accept(
        key: LinkKey,
        (theirs, ours): (&Hello, &Hello),
        datagram_max: usize,
        now: Instant,
    ) -> Self {
        let mut link = Self::new(key, (theirs.from.clone(), Side::Down), datagram_max, now);
        link.phase = Phase::Up;
        link.peer_epoch = theirs.epoch;
        link.peer_rank = theirs.rank;
        link.say(&Message::Welcome(ours.clone()));
        link
    }

    fn new(
        key: LinkKey,
        (peer, side): (ShardAddress, Side),
        datagram_max: usize,
        now: Instant,
    ) -> Self {
        Self {
            key,
            peer,
            side,
            phase: Phase::Greeting,
            peer_epoch: Epoch(0),
            peer_rank: 0,
            start: now,
            began: now,
            heard: now,
            probe_at: now,
            datagram_max,
            train: Vec::new(),
            train_frames: 0,
            trains_made: 0,
            datagrams: VecDeque::new(),
            spare: Vec::new(),
            messages: Vec::new(),
            meter: Meter::default(),
            peer_sent: None,
            beat: 0,
            beat_at: now,
        }
    }

    /// Its key.
    #[must_use]
    pub const fn key(&self) -> LinkKey {
        self.key
    }

    /// The shard at the other end.
    #[must_use]
    pub const fn peer(&self) -> &ShardAddress {
        &self.peer
    }

    /// Where the other end is.
    #[must_use]
    pub const fn side(&self) -> Side {
        self.side
    }

    /// How far it is.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// It carries media and messages.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// The home's heartbeat as the peer told it, and when it last rose.
    #[must_use]
    pub const fn beat(&self) -> (u32, Instant) {
        (self.beat, self.beat_at)
    }

    /// What was measured and counted.
    #[must_use]
    pub fn stats(&self) -> LinkStats {
        self.meter.stats()
    }

    pub(crate) fn drops(&mut self) -> &mut LinkDrops {
        &mut self.meter.stats.drops
    }

    /// The shell learned how long datagrams may be now.
    pub fn set_datagram_max(&mut self, bytes: usize) {
        self.datagram_max = bytes;
    }

    /// The shell dropped datagrams that it took, because the path is congested.
    pub fn note_congestion(&mut self, datagrams: u64) {
        self.meter.stats.drops.congested += datagrams;
    }

    /// Queues a message. A link that is stuck ends.
    pub fn say(&mut self, message: &Message) {
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        let before = self.messages.len();
        message.write(&mut self.messages);
        self.meter.stats.message_bytes_out += (self.messages.len() - before) as u64;
        if self.messages.len() > MESSAGES_MAX {
            self.phase = Phase::Ended(End::Stuck);
        }
    }

    /// Ends it with a last word.
    pub fn close(&mut self, reason: Refusal, epoch: Epoch) {
        self.say(&Message::Goodbye(reason, epoch));
        self.end(End::Closed(reason));
    }

    /// It ended without a word.
    pub fn end(&mut self, end: End) {
        if !matches!(self.phase, Phase::Ended(_)) {
            self.phase = Phase::Ended(end);
        }
    }

    /// The peer welcomed this end.
    pub fn welcomed(&mut self, hello: &Hello, now: Instant) {
        if self.phase == Phase::Greeting {
            self.phase = Phase::Up;
            self.peer_epoch = hello.epoch;
            self.peer_rank = hello.rank;
            self.heard = now;
            self.beat_at = now;
        }
    }

    /// The peer has another place in the plan. A lower epoch is not believed.
    pub fn peer_moved(&mut self, epoch: Epoch, rank: u32) {
        if epoch >= self.peer_epoch {
            self.peer_epoch = epoch;
            self.peer_rank = rank;
        }
    }

    /// A packet goes out again.
    pub(crate) fn note_repeated(&mut self) {
        self.meter.stats.repeated_out += 1;
    }

    /// Something arrived, whatever it is.
    pub fn note_heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Puts a packet into the train. A packet too long for a datagram goes as a
    /// message.
    pub fn send(&mut self, now: Instant, tag: &FrameTag, packet: &RelayPacket<'_>) {
        if self.phase != Phase::Up {
            return;
        }
        if tag.hops >= HOPS_MAX {
            self.meter.stats.drops.looped += 1;
            return;
        }
        if TRAIN_HEAD + media_len(packet) > self.datagram_max {
            let mut frame = Vec::with_capacity(media_len(packet));
            Frame::Media(*tag, *packet).write(&mut frame);
            frame.drain(..2);
            self.meter.stats.long_frames_out += 1;
            self.say(&Message::LongFrame(frame));
            return;
        }
        self.load(now, &Frame::Media(*tag, *packet));
    }

    /// Puts a publisher's clock into the train.
    pub fn send_clock(&mut self, now: Instant, tag: &FrameTag, clock: RelayClock) {
        if self.phase == Phase::Up && tag.hops < HOPS_MAX {
            self.load(now, &Frame::Clock(*tag, clock));
        }
    }

    fn load(&mut self, now: Instant, frame: &Frame<'_>) {
        if !self.train.is_empty() && self.train.len() + frame.len() > self.datagram_max {
            self.finish_train(now);
        }
        if self.datagrams.len() >= TRAINS_MAX {
            self.meter.stats.drops.queue_full += 1;
            return;
        }
        if self.train.is_empty() {
            if let Some(spare) = self.spare.pop() {
                self.train = spare;
            }
            self.trains_made = self.trains_made.wrapping_add(1);
            begin_train(self.trains_made, &mut self.train);
        }
        frame.write(&mut self.train);
        self.train_frames += 1;
    }

    fn finish_train(&mut self, now: Instant) {
        if self.train.is_empty() {
            return;
        }
        let mut train = std::mem::take(&mut self.train);
        stamp_train(self.micros(now), &mut train);
        let stats = &mut self.meter.stats;
        stats.frames_out += std::mem::take(&mut self.train_frames);
        stats.trains_out += 1;
        stats.media_bytes_out += train.len() as u64;
        self.datagrams.push_back(train);
    }

    /// Ends the wake-up: what is in the train leaves.
    pub fn flush(&mut self, now: Instant) {
        self.finish_train(now);
    }

    /// The next datagram for the shell.
    pub fn take_datagram(&mut self) -> Option<Vec<u8>> {
        self.datagrams.pop_front()
    }

    /// Takes a buffer back that a datagram came in.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < TRAINS_MAX / 8 {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// The messages for the shell, one behind the other. Empty if there are none.
    pub fn take_messages(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.messages)
    }

    /// Takes a datagram. Calls back with each frame and the time its last link took.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        datagram: &[u8],
        mut take: impl FnMut(&mut LinkDrops, Frame<'_>, Duration),
    ) {
        if self.phase != Phase::Up {
            return;
        }
        let kind = datagram.first().map_or(u8::MAX, |first| first & 0x0f);
        self.meter.stats.datagrams_in += 1;
        self.meter.stats.bytes_in += datagram.len() as u64;
        let micros = self.micros(now);
        match kind {
            KIND_TRAIN => {
                let Ok(train) = Train::parse(datagram) else {
                    self.meter.stats.drops.malformed += 1;
                    return;
                };
                self.heard = now;
                self.peer_sent = Some((train.sent_micros, now));
                let hop = self.meter.train(train.number, train.sent_micros, micros);
                for frame in train.frames() {
                    match frame {
                        Ok(frame) => {
                            self.meter.stats.frames_in += 1;
                            take(&mut self.meter.stats.drops, frame, hop);
                        }
                        Err(_) => self.meter.stats.drops.malformed += 1,
                    }
                }
            }
            KIND_PROBE => match Probe::parse(datagram) {
                Ok(probe) => self.take_probe(now, micros, &probe),
                Err(_) => self.meter.stats.drops.malformed += 1,
            },
            _ => self.meter.stats.drops.malformed += 1,
        }
    }

    fn take_probe(&mut self, now: Instant, micros: u32, probe: &Probe) {
        self.heard = now;
        self.peer_sent = Some((probe.sent_micros, now));
        self.meter.probe(probe, micros);
        // Where the home is another now its heartbeat begins anew.
        if probe.beat != self.beat {
            self.beat = probe.beat;
            self.beat_at = now;
        }
    }

    /// Does what is due: heartbeats, and the end of a link that is silent. `beat` is the
    /// home's heartbeat as this shard knows it.
    pub fn handle_timeout(&mut self, now: Instant, beat: u32) {
        match self.phase {
            Phase::Greeting if now.saturating_duration_since(self.began) >= GREETING_MAX => {
                self.end(End::Silent);
            }
            Phase::Up if now.saturating_duration_since(self.heard) >= SILENCE_MAX => {
                self.end(End::Silent);
            }
            Phase::Up if now >= self.probe_at => {
                self.probe_at = now + HEARTBEAT;
                let (echo_micros, echo_delay) = match self.peer_sent {
                    Some((sent, at)) => {
                        let delay = now.saturating_duration_since(at).as_micros();
                        (sent, u32::try_from(delay).unwrap_or(u32::MAX))
                    }
                    None => (0, u32::MAX),
                };
                let (expected, received) = self.meter.arrived();
                let probe = Probe {
                    sent_micros: self.micros(now),
                    echo_micros,
                    echo_delay,
                    expected,
                    received,
                    beat,
                };
                let mut datagram = self.spare.pop().unwrap_or_default();
                probe.write(&mut datagram);
                self.meter.stats.probes_out += 1;
                if self.datagrams.len() < TRAINS_MAX {
                    self.datagrams.push_back(datagram);
                }
            }
            Phase::Greeting | Phase::Up | Phase::Ended(_) => {}
        }
    }

    /// When something is due. `None` for a link that has ended.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Greeting => Some(self.began + GREETING_MAX),
            Phase::Up => Some(self.probe_at.min(self.heard + SILENCE_MAX)),
            Phase::Ended(_) => None,
        }
    }

    /// Microseconds of this link's clock; wraps.
    fn micros(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.start).as_micros() as u32
    }
}

#[cfg(test)]
mod tests;
