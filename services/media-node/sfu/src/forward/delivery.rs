//! A subscription: one track on its way to one subscriber.

use headwater_model::media::{
    HeaderExtension, MediaKind, PayloadMapping, Prominence, Subscription, SubscriptionKey,
    SubscriptionTarget,
};

use super::codecs::{OutCodec, match_codecs};
use super::forwarder::{Ending, Forwarder};
use super::repeat::RepeatGuard;
use super::template::{Feedback, HeaderTemplate};
use crate::clock::Micros;
use crate::random::Random;

/// Stamps that are kept where packets are repeated as they were: 1.3 s of sound at 20 ms
/// a packet, half a second of pictures at 5 Mbit/s. They cost 8 bytes each.
const AUDIO_STAMPS: usize = 64;
const VIDEO_STAMPS: usize = 256;

/// What bandwidth leaves of a subscription's target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Ceiling {
    /// All of it.
    #[default]
    Free,
    /// These layers at most.
    UpTo { spatial: u8, temporal: u8 },
    /// Nothing.
    Paused,
}

/// A subscriber that lost its picture got a kept keyframe again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answered {
    /// Number of the keyframe's first packet.
    pub(crate) start: u64,
    pub(crate) at: Micros,
}

/// What a subscriber's last report block said.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reported {
    pub(crate) seen: bool,
    pub(crate) highest: u32,
    pub(crate) cumulative: i32,
}

/// What is kept of a subscription that ended, for the next one under its SSRC.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) ssrc: u32,
    ending: Ending,
    rtx_sequence: u16,
    packets: u32,
    octets: u32,
    heard: Reported,
}

/// State of one subscription.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) key: SubscriptionKey,
    /// Index of the track.
    pub(crate) track: u32,
    /// Index of the subscriber's link.
    pub(crate) link: u32,
    kind: MediaKind,
    /// Packets below this number are not repeated.
    pub(crate) repeat_floor: u64,
    pub(crate) negotiated: Subscription,
    /// By index of the publication's codecs.
    codecs: Vec<Option<OutCodec>>,
    /// For codecs without and with transport-wide feedback.
    templates: [Option<HeaderTemplate>; 2],
    pub(crate) target: SubscriptionTarget,
    /// Set by the division of bandwidth.
    pub(crate) ceiling: Ceiling,
    pub(crate) prominence: Prominence,
    pub(crate) forwarder: Forwarder,
    pub(crate) guard: RepeatGuard,
    pub(crate) rtx_sequence: u16,
    /// Packets and bytes of payload sent, as sender reports count them.
    pub(crate) packets: u32,
    pub(crate) octets: u32,
    /// Packets when the last sender report went out.
    pub(crate) reported_packets: u32,
    pub(crate) heard: Reported,
    /// The spatial layer that was told last.
    pub(crate) told_spatial: Option<u8>,
    /// When its first picture was sent.
    pub(crate) began: Option<Micros>,
    pub(crate) answered: Option<Answered>,
}

impl Delivery {
    pub(crate) fn new(
        key: SubscriptionKey,
        (track, link): (u32, u32),
        kind: MediaKind,
        negotiated: Subscription,
        published: &[PayloadMapping],
        random: &mut Random,
    ) -> Self {
        let forwarder = Forwarder::new(kind, random.first_sequence(), random.next_u32());
        let mut delivery = Self {
            key,
            track,
            link,
            kind,
            repeat_floor: 0,
            negotiated,
            codecs: Vec::new(),
            templates: [None, None],
            target: SubscriptionTarget::BEST,
            ceiling: Ceiling::Free,
            prominence: Prominence::default(),
            forwarder,
            guard: RepeatGuard::new(),
            rtx_sequence: random.first_sequence(),
            packets: 0,
            octets: 0,
            reported_packets: 0,
            heard: Reported::default(),
            told_spatial: None,
            began: None,
            answered: None,
        };
        delivery.match_codecs(published);
        delivery
    }

    /// Where it ended, for the next one under the same SSRC.
    pub(crate) fn ending(&self) -> Option<Ended> {
        Some(Ended {
            ssrc: self.negotiated.ssrc,
            ending: self.forwarder.ending()?,
            rtx_sequence: self.rtx_sequence,
            packets: self.packets,
            octets: self.octets,
            heard: self.heard,
        })
    }

    /// Goes on under an SSRC that was sent with before: its numbers and times
    /// continue, so that neither SRTP nor the receiver sees a break.
    pub(crate) fn go_on(&mut self, ended: &Ended) {
        self.forwarder.go_on(ended.ending);
        self.repeat_floor = self.forwarder.next_number();
        self.rtx_sequence = ended.rtx_sequence;
        self.packets = ended.packets;
        self.octets = ended.octets;
        self.reported_packets = ended.packets;
        self.heard = ended.heard;
    }

    /// Takes what was negotiated anew by the subscriber.
    pub(crate) fn renegotiate(&mut self, negotiated: Subscription, published: &[PayloadMapping]) {
        if self.negotiated != negotiated {
            self.negotiated = negotiated;
            self.codecs.clear();
        }
        self.match_codecs(published);
    }

    /// Finds the payload types for what is published now. If anything is another than
    /// before, packets sent so far cannot be repeated to the byte.
    pub(crate) fn match_codecs(&mut self, published: &[PayloadMapping]) {
        let codecs = match_codecs(published, &self.negotiated.codecs);
        if codecs == self.codecs {
            return;
        }
        self.codecs = codecs;
        self.templates = [Feedback::None, Feedback::TransportWide]
            .map(|feedback| HeaderTemplate::new(&self.negotiated, feedback));
        self.repeat_floor = self.forwarder.next_number();
        let plain = self.codecs.iter().flatten().any(|codec| self.repeats_plainly(codec));
        let ids = &self.negotiated.extensions;
        let varies = ids.get(HeaderExtension::TransportCc).is_some()
            || ids.get(HeaderExtension::AbsSendTime).is_some();
        let kept = match self.kind {
            MediaKind::Audio => AUDIO_STAMPS,
            MediaKind::Video => VIDEO_STAMPS,
        };
        self.guard.keep_stamps(if plain && varies { kept } else { 0 });
    }

    #[inline]
    pub(crate) fn template(&self, codec: &OutCodec) -> Option<&HeaderTemplate> {
        self.templates[usize::from(codec.transport_cc)].as_ref()
    }

    /// The subscriber takes the codec at an index of the publication's.
    #[inline]
    pub(crate) fn takes(&self, index: u8) -> bool {
        self.codec(index).is_some()
    }

    #[inline]
    pub(crate) fn codec(&self, index: u8) -> Option<OutCodec> {
        self.codecs.get(usize::from(index)).copied().flatten()
    }

    /// SSRC and payload type of retransmissions, if they go separately.
    #[inline]
    pub(crate) fn rtx(&self, codec: &OutCodec) -> Option<(u32, u8)> {
        Some((self.negotiated.rtx_ssrc?, codec.rtx_payload_type?))
    }

    /// Lost packets are repeated as they were.
    #[inline]
    pub(crate) fn repeats_plainly(&self, codec: &OutCodec) -> bool {
        codec.nack && self.rtx(codec).is_none()
    }

    /// Nothing is to be sent.
    pub(crate) fn is_paused(&self) -> bool {
        self.target == SubscriptionTarget::Paused || self.ceiling == Ceiling::Paused
    }

    #[inline]
    pub(crate) fn is_sound(&self) -> bool {
        self.kind == MediaKind::Audio
    }

    /// The target, as far as bandwidth allows.
    pub(crate) fn allowed(&self) -> SubscriptionTarget {
        let SubscriptionTarget::UpTo { spatial, temporal } = self.target else {
            return SubscriptionTarget::Paused;
        };
        match self.ceiling {
            Ceiling::Free => self.target,
            Ceiling::Paused => SubscriptionTarget::Paused,
            Ceiling::UpTo { spatial: ceiling, temporal: highest } => SubscriptionTarget::UpTo {
                spatial: spatial.min(ceiling),
                temporal: temporal.min(highest),
            },
        }
    }

    /// A codec with retransmissions and transport-wide feedback: what can be probed with.
    pub(crate) fn probing_codec(&self) -> Option<(OutCodec, (u32, u8))> {
        self.negotiated.extensions.get(HeaderExtension::TransportCc)?;
        self.codecs
            .iter()
            .flatten()
            .filter(|codec| codec.transport_cc)
            .find_map(|codec| Some((*codec, self.rtx(codec)?)))
    }

    /// The next sequence number of retransmissions.
    pub(crate) fn next_rtx_sequence(&mut self) -> u16 {
        let sequence = self.rtx_sequence;
        self.rtx_sequence = sequence.wrapping_add(1);
        sequence
    }

    /// A packet was sent under the subscription's SSRC.
    #[inline]
    pub(crate) fn count(&mut self, payload_len: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload_len as u32);
    }

    /// Time stamp of the subscriber's RTP clock at a time, by when the last packet came.
    pub(crate) fn timestamp_by_arrival(&self, now: Micros, clock_rate: u32) -> u32 {
        let (timestamp, arrival) = self.forwarder.last_sent();
        timestamp.wrapping_add(now.since(arrival).to_clock_units(clock_rate) as u32)
    }
}
