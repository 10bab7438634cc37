//! Packet path: no allocation. Writes the packets of one subscriber: its own header,
//! its own counters at the start of the payload, the shared rest.

use arrayvec::ArrayVec;
use headwater_model::media::{HeaderExtension, TransportKey};
use headwater_rtp::RtpHeader;
use headwater_rtp::dependency::rewrite_frame_number;
use headwater_rtp::rtx;

use super::codecs::OutCodec;
use super::delivery::Delivery;
use super::forwarder::{Placed, Verdict};
use super::repeat::Refusal;
use super::template::Numbers;
use crate::Stats;
use crate::bandwidth::downlink::Downlink;
use crate::clock::Micros;
use crate::egress::{Egress, OutgoingRtp};
use crate::ingress::extensions::{CARRIED, PACKED_MAX, unpack};
use crate::ingress::ring::Packet;
use crate::ingress::shape::{HEAD_MAX, PictureForm};

/// Fixed header, head of the extension block, MID, two numbers of ours, carried values.
const HEADER_MAX: usize = 12 + 4 + (2 + 255) + (2 + 2) + (2 + 3) + PACKED_MAX + 4;
/// Extensions of one packet: MID, transport-wide number, send time, and carried ones.
const EXTENSIONS_MAX: usize = 3 + CARRIED.len();

/// Padding of one packet at most: its length is one byte (RFC 3550 section 5.1).
const PADDING_MAX: usize = 255;

/// A packet of a ring with its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub(crate) packet: &'a Packet,
    pub(crate) payload: &'a [u8],
    pub(crate) extensions: &'a [u8],
}

/// How the payload of a packet is put together.
#[derive(Debug, Clone, Copy)]
struct Parts {
    /// Bytes of the head buffer that go in front.
    head_len: usize,
    /// Bytes of the payload that these replace.
    taken: usize,
    may_pad: bool,
    /// The transport-wide number that is given out with it, if any.
    number: Option<u16>,
}

/// Buffers that are used again for every packet.
#[derive(Debug)]
pub(crate) struct Writer {
    header: [u8; HEADER_MAX],
    head: [u8; rtx::RTX_PREFIX_LEN + HEAD_MAX],
    descriptor: [u8; 255],
    /// Absolute send time of this drain.
    send_time: [u8; 3],
    padding: [u8; PADDING_MAX],
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self {
            header: [0; HEADER_MAX],
            head: [0; rtx::RTX_PREFIX_LEN + HEAD_MAX],
            descriptor: [0; 255],
            send_time: [0; 3],
            padding: [0; PADDING_MAX],
        }
    }

    /// Sets what packets carry as their time of sending.
    pub(crate) fn set_send_time(&mut self, send_time: [u8; 3]) {
        self.send_time = send_time;
    }

    /// Writes the rewritten start of the payload behind `at` bytes of the head buffer.
    /// Returns how many bytes of the payload it replaces.
    fn write_head(&mut self, at: usize, stored: Stored<'_>, placed: Placed) -> usize {
        let shape = &stored.packet.shape;
        let len = if placed.rewritten { shape.head_len() } else { 0 };
        // The head was read from this payload, so it is not longer.
        let Some(original) = stored.payload.get(..len) else {
            return 0;
        };
        let head = &mut self.head[at..at + len];
        head.copy_from_slice(original);
        if len > 0 {
            shape.rewrite_head(head, placed.picture, placed.tl0);
        }
        len
    }

    /// Writes header and extensions and returns their length. `body` is the packet whose
    /// extension values travel on.
    fn write_header(
        &mut self,
        delivery: &Delivery,
        codec: &OutCodec,
        (header, numbers): (&RtpHeader, Numbers),
        body: Option<(Stored<'_>, Placed)>,
    ) -> Option<usize> {
        let carries = body.is_some_and(|(stored, _)| !stored.extensions.is_empty());
        if !carries && let Some(template) = delivery.template(codec) {
            return template.write(header, numbers, &mut self.header);
        }
        let ids = &delivery.negotiated.extensions;
        let mut extensions = ArrayVec::<(u8, &[u8]), EXTENSIONS_MAX>::new();
        if let Some(id) = ids.get(HeaderExtension::Mid)
            && !delivery.negotiated.mid.is_empty()
        {
            extensions.push((id, delivery.negotiated.mid.as_bytes()));
        }
        if let Some(id) = ids.get(HeaderExtension::TransportCc)
            && codec.transport_cc
        {
            extensions.push((id, &numbers.transport_sequence));
        }
        if let Some(id) = ids.get(HeaderExtension::AbsSendTime) {
            extensions.push((id, &numbers.send_time));
        }
        let descriptor = body.and_then(|(stored, placed)| {
            renumber_descriptor(&mut self.descriptor, stored, placed.rewritten.then_some(placed))
        });
        let carried = body.map_or(&[][..], |(stored, _)| stored.extensions);
        for (extension, value) in unpack(carried) {
            let Some(id) = ids.get(extension) else {
                continue;
            };
            let is_descriptor = extension == HeaderExtension::DependencyDescriptor;
            let value = descriptor.filter(|_| is_descriptor).unwrap_or(value);
            // There is room for one of each kind.
            if extensions.try_push((id, value)).is_err() {
                break;
            }
        }
        header.write(&extensions, &mut self.header).ok()
    }
}

/// A copy of the packet's dependency descriptor with our frame number, if it differs.
fn renumber_descriptor<'a>(
    buffer: &'a mut [u8; 255],
    stored: Stored<'_>,
    rewritten: Option<Placed>,
) -> Option<&'a [u8]> {
    let placed = rewritten?;
    if stored.packet.shape.picture_form != PictureForm::FrameNumber {
        return None;
    }
    let (_, value) = unpack(stored.extensions)
        .find(|(extension, _)| *extension == HeaderExtension::DependencyDescriptor)?;
    let copy = buffer.get_mut(..value.len())?;
    copy.copy_from_slice(value);
    rewrite_frame_number(copy, placed.picture).ok()?;
    Some(copy)
}

/// The way to one subscriber during one drain.
#[derive(Debug)]
pub(crate) struct Outlet<'a, E> {
    pub(crate) writer: &'a mut Writer,
    pub(crate) egress: &'a mut E,
    pub(crate) stats: &'a mut Stats,
    pub(crate) to: TransportKey,
    /// The transport's next transport-wide number.
    pub(crate) transport_sequence: &'a mut u16,
    /// The transport's network, if it is adapted to.
    pub(crate) downlink: Option<&'a mut Downlink>,
    pub(crate) now: Micros,
    /// The transport's round trip.
    pub(crate) rtt: Micros,
}

impl<E: Egress> Outlet<'_, E> {
    /// Does with a packet what was decided.
    pub(crate) fn send(&mut self, delivery: &mut Delivery, stored: Stored<'_>, verdict: Verdict) {
        match verdict {
            Verdict::Skip => {}
            Verdict::Forward(placed) => self.forward(delivery, stored, placed),
            Verdict::Fill(placed) => self.fill(delivery, stored, placed),
        }
    }

    /// Repeats a packet that a subscriber asked for: with RTX (RFC 4588) if it was
    /// negotiated, else as it was.
    pub(crate) fn send_again(
        &mut self,
        delivery: &mut Delivery,
        stored: Stored<'_>,
        verdict: Verdict,
    ) {
        let Some(codec) = delivery.codec(stored.packet.codec) else {
            return;
        };
        if let Verdict::Forward(placed) | Verdict::Fill(placed) = verdict
            && placed.number < delivery.repeat_floor
        {
            self.stats.drops.retransmission_gone += 1;
            return;
        }
        match (verdict, delivery.rtx(&codec)) {
            (Verdict::Skip, _) => {}
            (Verdict::Forward(placed), Some(rtx)) => {
                self.repeat(delivery, &codec, rtx, (stored, placed));
            }
            (Verdict::Forward(placed), None) => {
                self.repeat_plainly(delivery, &codec, (stored, placed));
            }
            (Verdict::Fill(placed), Some(rtx)) => {
                // What was padding is an RTX packet without a payload.
                let empty = Stored { payload: &[], extensions: &[], ..stored };
                let placed = Placed { rewritten: false, marker: false, ..placed };
                self.repeat(delivery, &codec, rtx, (empty, placed));
            }
            // Padding is not worth the room in memory to repeat it to the byte.
            (Verdict::Fill(_), None) => {}
        }
    }

    fn forward(&mut self, delivery: &mut Delivery, stored: Stored<'_>, placed: Placed) {
        let Some(codec) = delivery.codec(stored.packet.codec) else {
            self.stats.drops.unsupported_codec += 1;
            return;
        };
        let stored = codec.carried(stored);
        let (numbers, number) = self.stamp(delivery, &codec, placed.number as u16);
        let header = header_of(delivery, &codec, placed);
        let head_len = self.writer.write_head(0, stored, placed);
        let may_pad = !delivery.repeats_plainly(&codec);
        delivery.count(stored.payload.len());
        delivery.guard.earn(stored.payload.len());
        let parts = Parts { head_len, taken: head_len, may_pad, number };
        self.emit(delivery, &codec, (&header, numbers), (stored, placed), parts);
    }

    /// Puts padding under a number that was kept for a packet the subscriber does not
    /// get, so that it does not wait for it.
    fn fill(&mut self, delivery: &mut Delivery, stored: Stored<'_>, placed: Placed) {
        let Some(codec) = delivery.codec(stored.packet.codec) else {
            return;
        };
        let (numbers, number) = self.stamp(delivery, &codec, placed.number as u16);
        let header = RtpHeader { marker: false, ..header_of(delivery, &codec, placed) };
        delivery.count(0);
        let len = self.writer.write_header(delivery, &codec, (&header, numbers), None);
        let Some(len) = len else { return };
        // One byte of padding, which says so itself (RFC 3550 section 5.1).
        self.writer.header[0] |= 0x20;
        let header = &self.writer.header[..len];
        let packet = OutgoingRtp { header, prefix: &[], payload: &[1], may_pad: false };
        if let Some(downlink) = &mut self.downlink {
            downlink.sent(self.now, number, packet.len());
        }
        hand_out(self.to, packet, self.egress, self.stats);
    }

    fn repeat(
        &mut self,
        delivery: &mut Delivery,
        codec: &OutCodec,
        (ssrc, payload_type): (u32, u8),
        (stored, placed): (Stored<'_>, Placed),
    ) {
        let sequence = placed.number as u16;
        if !self.is_admitted(delivery, sequence, stored) {
            return;
        }
        self.repeat_now(delivery, codec, (ssrc, payload_type), (stored, placed));
    }

    /// Sends a packet again that the subscriber did not ask for, to see whether it gets
    /// through. Returns its length, or 0 if it cannot be.
    pub(crate) fn probe_with(
        &mut self,
        delivery: &mut Delivery,
        stored: Stored<'_>,
        placed: Placed,
    ) -> usize {
        let codec = delivery.codec(stored.packet.codec).filter(|codec| codec.transport_cc);
        let Some((codec, rtx)) = codec.and_then(|codec| Some((codec, delivery.rtx(&codec)?)))
        else {
            return 0;
        };
        self.repeat_now(delivery, &codec, rtx, (stored, placed))
    }

    /// Sends padding under the SSRC of retransmissions. Returns its length, or 0 if there
    /// is no such SSRC or it would not be acknowledged.
    pub(crate) fn pad(&mut self, delivery: &mut Delivery, bytes: usize) -> usize {
        let Some((codec, (ssrc, payload_type))) = delivery.probing_codec() else {
            return 0;
        };
        let (numbers, number) = self.fresh_numbers(delivery, &codec);
        let (timestamp, _) = delivery.forwarder.last_sent();
        let sequence = delivery.next_rtx_sequence();
        let header = RtpHeader { payload_type, marker: false, sequence, timestamp, ssrc };
        let Some(len) = self.writer.write_header(delivery, &codec, (&header, numbers), None) else {
            return 0;
        };
        self.writer.header[0] |= 0x20;
        // The last byte says how many there are.
        let padding = bytes.clamp(1, PADDING_MAX);
        self.writer.padding[PADDING_MAX - 1] = padding as u8;
        let header = &self.writer.header[..len];
        let payload = &self.writer.padding[PADDING_MAX - padding..];
        let packet = OutgoingRtp { header, prefix: &[], payload, may_pad: false };
        if let Some(downlink) = &mut self.downlink {
            downlink.sent(self.now, number, packet.len());
        }
        let sent = packet.len();
        hand_out(self.to, packet, self.egress, self.stats);
        sent
    }

    fn repeat_now(
        &mut self,
        delivery: &mut Delivery,
        codec: &OutCodec,
        (ssrc, payload_type): (u32, u8),
        (stored, placed): (Stored<'_>, Placed),
    ) -> usize {
        let stored = codec.carried(stored);
        let header = RtpHeader {
            ssrc,
            payload_type,
            sequence: delivery.next_rtx_sequence(),
            ..header_of(delivery, codec, placed)
        };
        let (numbers, number) = self.fresh_numbers(delivery, codec);
        let prefix = rtx::prefix(placed.number as u16);
        self.writer.head[..prefix.len()].copy_from_slice(&prefix);
        let taken = self.writer.write_head(prefix.len(), stored, placed);
        let parts = Parts { head_len: prefix.len() + taken, taken, may_pad: true, number };
        self.emit(delivery, codec, (&header, numbers), (stored, placed), parts)
    }

    /// Repeats a packet to the byte: see [`OutgoingRtp::may_pad`].
    fn repeat_plainly(
        &mut self,
        delivery: &mut Delivery,
        codec: &OutCodec,
        (stored, placed): (Stored<'_>, Placed),
    ) {
        let sequence = placed.number as u16;
        let numbers = if delivery.guard.keeps_stamps() {
            let Some(stamp) = delivery.guard.stamped(sequence) else {
                self.stats.drops.retransmission_gone += 1;
                return;
            };
            let transport_sequence = stamp.transport_sequence.to_be_bytes();
            Numbers { transport_sequence, send_time: stamp.send_time }
        } else {
            Numbers { transport_sequence: [0; 2], send_time: [0; 3] }
        };
        if !codec.nack || !self.is_admitted(delivery, sequence, stored) {
            return;
        }
        let stored = codec.carried(stored);
        let header = header_of(delivery, codec, placed);
        let taken = self.writer.write_head(0, stored, placed);
        // Its number was given out when it was sent first.
        let parts = Parts { head_len: taken, taken, may_pad: false, number: None };
        self.emit(delivery, codec, (&header, numbers), (stored, placed), parts);
    }

    fn is_admitted(&mut self, delivery: &mut Delivery, sequence: u16, stored: Stored<'_>) -> bool {
        // Headers count, too, or small packets would be free.
        let bytes = stored.payload.len() + 50;
        let within = self.downlink.as_mut().is_none_or(|link| link.may_repeat(self.now, bytes));
        if !within {
            self.stats.drops.retransmission_budget += 1;
            return false;
        }
        // Where loss is the network's own a repeated packet gets lost as easily as the first:
        // another goes out when the subscriber asks before it can know of this one.
        let is_calm = self.downlink.as_ref().is_some_and(|link| link.is_calm(self.now));
        let spacing = if is_calm { Micros(self.rtt.0 / 2) } else { self.rtt };
        match delivery.guard.admit(self.now, spacing, sequence, bytes) {
            Ok(()) => self.stats.retransmissions_out += 1,
            Err(Refusal::Repeated) => {
                self.stats.drops.retransmission_repeated += 1;
                return false;
            }
            Err(Refusal::Budget) => {
                self.stats.drops.retransmission_budget += 1;
                return false;
            }
        }
        true
    }

    /// Numbers for a packet under the subscription's own sequence number.
    fn stamp(
        &mut self,
        delivery: &mut Delivery,
        codec: &OutCodec,
        sequence: u16,
    ) -> (Numbers, Option<u16>) {
        let (numbers, number) = self.fresh_numbers(delivery, codec);
        if delivery.guard.keeps_stamps() {
            let transport_sequence = u16::from_be_bytes(numbers.transport_sequence);
            delivery.guard.stamp(sequence, transport_sequence, numbers.send_time);
        }
        (numbers, number)
    }

    /// Numbers for a packet, and the transport-wide one apart if it has one.
    fn fresh_numbers(&mut self, delivery: &Delivery, codec: &OutCodec) -> (Numbers, Option<u16>) {
        let mut number = None;
        let wanted = delivery.negotiated.extensions.get(HeaderExtension::TransportCc).is_some();
        if codec.transport_cc && wanted {
            number = Some(*self.transport_sequence);
            *self.transport_sequence = self.transport_sequence.wrapping_add(1);
        }
        let send_time = self.writer.send_time;
        let transport_sequence = number.unwrap_or_default().to_be_bytes();
        (Numbers { transport_sequence, send_time }, number)
    }

    fn emit(
        &mut self,
        delivery: &Delivery,
        codec: &OutCodec,
        head: (&RtpHeader, Numbers),
        (stored, placed): (Stored<'_>, Placed),
        parts: Parts,
    ) -> usize {
        let len = self.writer.write_header(delivery, codec, head, Some((stored, placed)));
        let Some(len) = len else { return 0 };
        let packet = OutgoingRtp {
            header: &self.writer.header[..len],
            prefix: &self.writer.head[..parts.head_len],
            payload: &stored.payload[parts.taken..],
            may_pad: parts.may_pad,
        };
        let len = packet.len();
        if let Some(downlink) = &mut self.downlink {
            downlink.sent(self.now, parts.number, len);
            if delivery.is_sound() {
                downlink.sent_sound(len);
            }
        }
        hand_out(self.to, packet, self.egress, self.stats);
        len
    }
}

/// The header of a packet under the subscription's own SSRC.
fn header_of(delivery: &Delivery, codec: &OutCodec, placed: Placed) -> RtpHeader {
    RtpHeader {
        payload_type: codec.payload_type,
        marker: placed.marker,
        sequence: placed.number as u16,
        timestamp: placed.timestamp,
        ssrc: delivery.negotiated.ssrc,
    }
}

fn hand_out(
    to: TransportKey,
    packet: OutgoingRtp<'_>,
    egress: &mut impl Egress,
    stats: &mut Stats,
) {
    stats.packets_out += 1;
    stats.bytes_out += packet.len() as u64;
    egress.rtp(to, packet);
}
