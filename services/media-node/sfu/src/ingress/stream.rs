//! Packet path: no allocation but for the ring's pages. One encoding of a published
//! track as it arrives: order, repetitions, what is missing, what is kept.

pub(crate) mod recovery;

use headwater_model::media::{Codec, MediaKind};
use headwater_rtp::{NtpTime, SequenceUnwrapper};

use super::keyframes::KeyframeGate;
use super::missing::{Found, Gap, MissingList};
use super::rates::LayerRates;
use super::reception::Reception;
use super::renumber::Renumber;
use super::ring::{Packet, PacketKind, Place, Ring, SLOT_BYTES, slots_for};
use super::shape::{self, Shape, ShapeReader};
use crate::Stats;
use crate::clock::{Micros, ntp_to_micros};
use recovery::{Recovered, RedForm};

/// A jump ahead that is still the same sequence (RFC 3550 appendix A.1).
const JUMP_MAX: u64 = 3_000;
/// Packets that follow each other behind a jump before it is believed. A burst that
/// was delayed for seconds is shorter than that.
const RESTART_RUN: u8 = 4;

/// A sender report of the publisher.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SenderClock {
    /// The publisher's wall clock, in microseconds of NTP time.
    pub(crate) ntp_micros: u64,
    /// For the next receiver report.
    pub(crate) compact: u32,
    pub(crate) rtp: u32,
    pub(crate) arrival: Micros,
}

/// The last keyframe and what follows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyframeGroup {
    /// Number of its first packet.
    pub(crate) start: u64,
    pub(crate) timestamp: u32,
    pub(crate) arrival: Micros,
}

/// A packet as it came, with RTX taken off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incoming<'a> {
    pub(crate) now: Micros,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) payload: &'a [u8],
    /// Values of header extensions that travel on, packed.
    pub(crate) extensions: &'a [u8],
    /// Value of the dependency descriptor.
    pub(crate) dependency: Option<&'a [u8]>,
    pub(crate) codec: Codec,
    /// Index of the codec in the publication.
    pub(crate) codec_index: u8,
    /// It holds packets of the codec.
    pub(crate) red: Option<RedForm>,
    /// What is missing is asked for again.
    pub(crate) nack: bool,
    /// It is a retransmission that came with its own SSRC.
    pub(crate) repeated: bool,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// It is in the ring under this number, to be forwarded.
    Stored(u64),
    /// Nothing is to be forwarded; the reason was counted.
    Nothing,
}

/// One encoding.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) ssrc: Option<u32>,
    pub(crate) rtx_ssrc: Option<u32>,
    pub(crate) missing: MissingList,
    pub(crate) reception: Reception,
    pub(crate) gate: KeyframeGate,
    pub(crate) clock: Option<SenderClock>,
    /// Something of it could not be repaired: only a keyframe helps.
    pub(crate) broken: bool,
    /// What each of its layers costs.
    pub(crate) rates: LayerRates,
    /// How long the last repair took: a round trip.
    pub(crate) repair_time: Option<Micros>,
    /// Found in the last packet, to be forwarded in front of it.
    pub(crate) recovered: Recovered,
    unwrapper: SequenceUnwrapper,
    renumber: Renumber,
    reader: ShapeReader,
    ring: Option<Ring>,
    ring_slots: usize,
    group: Option<KeyframeGroup>,
    epoch: u8,
    /// Breaks of the encoding at its origin, this shard or another.
    life: u32,
    /// The clock was not handed to other shards yet.
    clock_is_new: bool,
    codec_index: u8,
    last_arrival: Option<Micros>,
    max_spatial: u8,
    restart_next: u16,
    restart_run: u8,
}

impl Stream {
    /// The encoding at `index` of a publication; `bitrate` as declared.
    pub(crate) fn new(index: usize, kind: MediaKind, bitrate: u32) -> Self {
        Self {
            ssrc: None,
            rtx_ssrc: None,
            missing: MissingList::default(),
            reception: Reception::default(),
            gate: KeyframeGate::new(index),
            clock: None,
            broken: false,
            rates: LayerRates::default(),
            repair_time: None,
            recovered: Recovered::new(),
            unwrapper: SequenceUnwrapper::new(),
            renumber: Renumber::default(),
            reader: ShapeReader::default(),
            ring: None,
            ring_slots: slots_for(kind, bitrate),
            group: None,
            epoch: 0,
            life: 1,
            clock_is_new: false,
            codec_index: 0,
            last_arrival: None,
            max_spatial: 0,
            restart_next: 0,
            restart_run: 0,
        }
    }

    /// Takes a packet.
    pub(crate) fn accept(&mut self, incoming: &Incoming<'_>, stats: &mut Stats) -> Accepted {
        let first = self.last_arrival.is_none();
        if !self.is_plausible(incoming) {
            stats.drops.too_old += 1;
            return Accepted::Nothing;
        }
        let highest = self.unwrapper.highest();
        let sequence = self.unwrapper.unwrap(incoming.sequence);
        let newest = highest.is_none_or(|highest| sequence > highest);
        if !incoming.repeated {
            self.reception.arrived(sequence);
        }
        self.last_arrival = Some(incoming.now);
        if newest {
            if !incoming.repeated {
                let rate = incoming.codec.clock_rate();
                self.reception.timed(incoming.now, incoming.timestamp, rate);
            }
            if let Some(highest) = highest {
                self.note_gap(incoming, highest + 1, sequence, stats);
            }
            if incoming.payload.is_empty() {
                self.renumber.skip(sequence);
                stats.drops.padding += 1;
                return Accepted::Nothing;
            }
            // Sound has one codec: with redundancy or without it goes on as it was.
            let breaks = incoming.codec.kind() == MediaKind::Video;
            if incoming.codec_index != self.codec_index && breaks && !first {
                self.epoch = self.epoch.wrapping_add(1);
                self.life = self.life.wrapping_add(1);
                self.rates.forget();
                self.group = None;
            }
            self.codec_index = incoming.codec_index;
        } else {
            self.note_found(incoming.now, sequence, stats);
        }
        self.recover(incoming, sequence, stats);
        self.store(incoming, sequence, !newest, stats)
    }

    /// The sequence number is near those seen. A far one is only believed when others
    /// follow it; the encoding then begins anew.
    fn is_plausible(&mut self, incoming: &Incoming<'_>) -> bool {
        let Some(highest) = self.unwrapper.highest() else {
            return true;
        };
        let sequence = self.unwrapper.peek(incoming.sequence);
        if sequence <= highest + JUMP_MAX && sequence + self.ring_slots as u64 > highest {
            self.restart_run = 0;
            return true;
        }
        if incoming.repeated {
            return false;
        }
        if self.restart_run > 0 && incoming.sequence == self.restart_next {
            self.restart_run += 1;
        } else {
            self.restart_run = 1;
        }
        self.restart_next = incoming.sequence.wrapping_add(1);
        if self.restart_run < RESTART_RUN {
            return false;
        }
        self.restart();
        true
    }

    /// What comes next has nothing to do with what came before.
    pub(crate) fn restart(&mut self) {
        self.unwrapper = SequenceUnwrapper::new();
        self.renumber.clear();
        self.missing.clear();
        self.reception = Reception::default();
        self.clock = None;
        self.rates.forget();
        self.group = None;
        self.epoch = self.epoch.wrapping_add(1);
        self.life = self.life.wrapping_add(1);
        self.restart_run = 0;
        if let Some(ring) = &mut self.ring {
            ring.clear();
        }
    }

    /// Takes a packet that another shard handed over: its life and number there are
    /// its life and number here.
    pub(crate) fn accept_relayed(
        &mut self,
        incoming: &Incoming<'_>,
        (life, number): (u32, u64),
        stats: &mut Stats,
    ) -> Accepted {
        if life < self.life {
            stats.drops.too_old += 1;
            return Accepted::Nothing;
        }
        if life > self.life {
            self.restart();
            self.life = life;
        }
        self.codec_index = incoming.codec_index;
        self.reception.arrived(number);
        self.last_arrival = Some(incoming.now);
        let highest = self.newest();
        let newest = highest.is_none_or(|highest| number > highest);
        if newest {
            let rate = incoming.codec.clock_rate();
            self.reception.timed(incoming.now, incoming.timestamp, rate);
            if let Some(highest) = highest {
                self.note_gap(incoming, highest + 1, number, stats);
            }
        } else {
            self.note_found(incoming.now, number, stats);
        }
        self.recover(incoming, number, stats);
        self.store(incoming, number, !newest, stats)
    }

    fn note_gap(&mut self, incoming: &Incoming<'_>, from: u64, to: u64, stats: &mut Stats) {
        if from >= to || !incoming.nack {
            return;
        }
        match self.missing.add(incoming.now, from, to) {
            Gap::Recorded { given_up: 0 } => {}
            Gap::Recorded { given_up } | Gap::TooWide { given_up } => {
                stats.lost += given_up;
                self.broken = true;
            }
        }
    }

    fn note_found(&mut self, now: Micros, sequence: u64, stats: &mut Stats) {
        match self.missing.found(sequence) {
            Some(Found::Asked(asked)) => {
                stats.repaired += 1;
                self.repair_time = Some(now.since(asked));
            }
            Some(Found::AskedAgain) => stats.repaired += 1,
            Some(Found::Unasked) | None => {}
        }
    }

    fn store(
        &mut self,
        incoming: &Incoming<'_>,
        sequence: u64,
        late: bool,
        stats: &mut Stats,
    ) -> Accepted {
        let slots = self.ring_slots;
        let ring = self.ring.get_or_insert_with(|| Ring::new(slots));
        let Some(number) = self.renumber.number(sequence) else {
            stats.drops.duplicate += 1;
            return Accepted::Nothing;
        };
        match ring.place(number) {
            Place::Free => {}
            Place::Duplicate => {
                stats.drops.duplicate += 1;
                return Accepted::Nothing;
            }
            Place::TooOld => {
                stats.drops.too_old += 1;
                return Accepted::Nothing;
            }
        }
        if incoming.payload.len() + incoming.extensions.len() > SLOT_BYTES {
            stats.drops.too_long += 1;
            return Accepted::Nothing;
        }
        let shape = if incoming.payload.is_empty() {
            Shape::default()
        } else if let Some(red) = incoming.red {
            // Without its primary there is nothing for those who do not take RED.
            let Ok(shape) = shape::read_red(incoming.payload, red.block_type) else {
                stats.drops.unreadable_descriptor += 1;
                return Accepted::Nothing;
            };
            shape
        } else {
            let read = self.reader.read(incoming.codec, incoming.payload, incoming.dependency);
            read.unwrap_or_else(|_| {
                stats.drops.unreadable_descriptor += 1;
                Shape::default()
            })
        };
        let kind = if incoming.payload.is_empty() { PacketKind::Filler } else { PacketKind::Media };
        let packet = Packet {
            number,
            arrival: incoming.now,
            timestamp: incoming.timestamp,
            payload_len: 0,
            extensions_len: 0,
            codec: incoming.codec_index,
            epoch: self.epoch,
            marker: incoming.marker,
            late,
            kind,
            shape,
        };
        ring.store(packet, incoming.payload, incoming.extensions);
        self.note_keyframe(&packet);
        // A first measure is short: the keyframe it begins with would be most of it.
        let of_keyframe = self.group.is_some_and(|group| group.timestamp == packet.timestamp);
        if self.rates.is_measured() || !of_keyframe {
            self.rates.count(shape.spatial, shape.temporal, incoming.payload.len());
        }
        Accepted::Stored(number)
    }

    fn note_keyframe(&mut self, packet: &Packet) {
        self.max_spatial = self.max_spatial.max(packet.shape.spatial);
        let newer = self
            .group
            .is_none_or(|group| packet.number > group.start && packet.timestamp != group.timestamp);
        if packet.shape.keyframe_start && newer {
            self.group = Some(KeyframeGroup {
                start: packet.number,
                timestamp: packet.timestamp,
                arrival: packet.arrival,
            });
            self.max_spatial = packet.shape.spatial;
            self.gate.arrived();
            self.broken = false;
        }
    }

    /// A sender report of this SSRC came.
    pub(crate) fn note_sender_report(&mut self, now: Micros, ntp: NtpTime, rtp: u32) {
        self.clock = Some(SenderClock {
            ntp_micros: ntp_to_micros(ntp),
            compact: ntp.compact(),
            rtp,
            arrival: now,
        });
        self.clock_is_new = true;
    }

    /// The same, from another shard.
    pub(crate) fn note_relayed_clock(&mut self, now: Micros, ntp_micros: u64, rtp: u32) {
        self.clock = Some(SenderClock { ntp_micros, compact: 0, rtp, arrival: now });
        self.clock_is_new = true;
    }

    /// The clock, once after each sender report.
    pub(crate) fn take_new_clock(&mut self) -> Option<SenderClock> {
        std::mem::take(&mut self.clock_is_new).then_some(self.clock)?
    }

    #[inline]
    pub(crate) fn packet(&self, number: u64) -> Option<&Packet> {
        self.ring.as_ref()?.get(number)
    }

    /// Payload and packed extension values of a packet of the ring.
    #[inline]
    pub(crate) fn bytes(&self, packet: &Packet) -> (&[u8], &[u8]) {
        self.ring.as_ref().map_or((&[], &[]), |ring| ring.bytes(packet))
    }

    /// The newest packet's number.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.ring.as_ref()?.highest()
    }

    /// What came so far is not for those who begin from here on.
    pub(crate) fn forget_group(&mut self) {
        self.group = None;
    }

    pub(crate) fn group(&self) -> Option<KeyframeGroup> {
        self.group
    }

    pub(crate) fn life(&self) -> u32 {
        self.life
    }

    pub(crate) fn epoch(&self) -> u8 {
        self.epoch
    }

    pub(crate) fn last_arrival(&self) -> Option<Micros> {
        self.last_arrival
    }

    /// Highest spatial layer since the last keyframe.
    pub(crate) fn max_spatial(&self) -> u8 {
        self.max_spatial
    }
}
