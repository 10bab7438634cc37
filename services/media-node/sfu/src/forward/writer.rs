//! Packet path: no allocation. Writes the packets of one subscriber: its own header,
//! its own counters at the start of the payload, the shared rest.

use arrayvec::ArrayVec;
use headwater_model::media::{HeaderExtension, TransportKey};
use headwater_rtp::RtpHeader;
use headwater_rtp::dependency::rewrite_frame_number;
use headwater_rtp::rtx;

use super::codecs::OutCodec;
use super::delivery::Delivery;
use super::forwarder::Placed;
use super::repeat::Refusal;
use crate::Stats;
use crate::clock::Micros;
use crate::egress::{Egress, OutgoingRtp};
use crate::ingress::extensions::{CARRIED, PACKED_MAX, unpack};
use crate::ingress::ring::Packet;
use crate::ingress::shape::{HEAD_MAX, PictureForm};

/// Fixed header, head of the extension block, MID, two numbers of ours, carried values.
const HEADER_MAX: usize = 12 + 4 + (2 + 255) + (2 + 2) + (2 + 3) + PACKED_MAX + 4;
/// Extensions of one packet: MID, transport-wide number, send time, and carried ones.
const EXTENSIONS_MAX: usize = 3 + CARRIED.len();

/// What all packets of one subscriber share.
#[derive(Debug)]
pub(crate) struct Lane<'a> {
    pub(crate) to: TransportKey,
    /// The transport's next transport-wide number.
    pub(crate) transport_sequence: &'a mut u16,
}

/// A packet of a ring with its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub(crate) packet: &'a Packet,
    pub(crate) payload: &'a [u8],
    pub(crate) extensions: &'a [u8],
}

/// Numbers of ours in the header extensions of one packet.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    transport_sequence: [u8; 2],
    send_time: [u8; 3],
}

/// Buffers that are used again for every packet.
#[derive(Debug)]
pub(crate) struct Writer {
    header: [u8; HEADER_MAX],
    head: [u8; rtx::RTX_PREFIX_LEN + HEAD_MAX],
    descriptor: [u8; 255],
    /// Absolute send time of this drain.
    send_time: [u8; 3],
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self {
            header: [0; HEADER_MAX],
            head: [0; rtx::RTX_PREFIX_LEN + HEAD_MAX],
            descriptor: [0; 255],
            send_time: [0; 3],
        }
    }

    /// Sets what packets carry as their time of sending.
    pub(crate) fn set_send_time(&mut self, send_time: [u8; 3]) {
        self.send_time = send_time;
    }

    /// Forwards a packet for the first time.
    pub(crate) fn forward(
        &mut self,
        delivery: &mut Delivery,
        lane: &mut Lane<'_>,
        stored: Stored<'_>,
        placed: Placed,
        egress: &mut impl Egress,
        stats: &mut Stats,
    ) {
        let Some(codec) = delivery.codec(stored.packet.codec) else {
            stats.drops.unsupported_codec += 1;
            return;
        };
        let sequence = placed.number as u16;
        let numbers = self.number(delivery, lane, &codec, sequence);
        let header = RtpHeader {
            payload_type: codec.payload_type,
            marker: placed.marker,
            sequence,
            timestamp: placed.timestamp,
            ssrc: delivery.negotiated.ssrc,
        };
        let head_len = self.write_head(0, stored, placed);
        let may_pad = !delivery.repeats_plainly(&codec);
        delivery.count(stored.payload.len());
        delivery.guard.earn(stored.payload.len());
        let parts = Parts {
            head_len,
            taken: head_len,
            may_pad,
        };
        self.emit(
            delivery, lane, &codec, &header, numbers, stored, placed, parts, egress, stats,
        );
    }

    /// Puts padding under a number that was kept for a packet the subscriber does not
    /// get, so that it does not wait for it.
    pub(crate) fn fill(
        &mut self,
        delivery: &mut Delivery,
        lane: &mut Lane<'_>,
        stored: Stored<'_>,
        placed: Placed,
        egress: &mut impl Egress,
        stats: &mut Stats,
    ) {
        let Some(codec) = delivery.codec(stored.packet.codec) else {
            return;
        };
        let sequence = placed.number as u16;
        let numbers = self.number(delivery, lane, &codec, sequence);
        let header = RtpHeader {
            payload_type: codec.payload_type,
            marker: false,
            sequence,
            timestamp: placed.timestamp,
            ssrc: delivery.negotiated.ssrc,
        };
        delivery.count(0);
        let Some(len) = self.write_header(delivery, &codec, &header, numbers, None) else {
            return;
        };
        // One byte of padding, which says so itself (RFC 3550 section 5.1).
        self.header[0] |= 0x20;
        let packet = OutgoingRtp {
            header: &self.header[..len],
            prefix: &[],
            payload: &[1],
            may_pad: false,
        };
        hand_out(lane.to, packet, egress, stats);
    }

    /// Repeats a packet: with RTX (RFC 4588) if it was negotiated, else as it was.
    pub(crate) fn repeat(
        &mut self,
        delivery: &mut Delivery,
        lane: &mut Lane<'_>,
        stored: Stored<'_>,
        placed: Placed,
        at: (Micros, Micros),
        egress: &mut impl Egress,
        stats: &mut Stats,
    ) {
        let Some(codec) = delivery.codec(stored.packet.codec) else {
            return;
        };
        let sequence = placed.number as u16;
        let rtx = delivery.rtx(&codec);
        let numbers = match rtx {
            Some(_) => None,
            // Only to the byte: see `OutgoingRtp::may_pad`.
            None if delivery.guard.keeps_stamps() => match delivery.guard.stamped(sequence) {
                Some(stamp) => Some(Numbers {
                    transport_sequence: stamp.transport_sequence.to_be_bytes(),
                    send_time: stamp.send_time,
                }),
                None => {
                    stats.drops.retransmission_gone += 1;
                    return;
                }
            },
            None => Some(Numbers {
                transport_sequence: [0; 2],
                send_time: [0; 3],
            }),
        };
        let (now, rtt) = at;
        match delivery
            .guard
            .admit(now, rtt, sequence, stored.payload.len().max(100))
        {
            Ok(()) => {}
            Err(Refusal::Repeated) => {
                stats.drops.retransmission_repeated += 1;
                return;
            }
            Err(Refusal::Budget) => {
                stats.drops.retransmission_budget += 1;
                return;
            }
        }
        stats.retransmissions_out += 1;
        let mut header = RtpHeader {
            payload_type: codec.payload_type,
            marker: placed.marker,
            sequence,
            timestamp: placed.timestamp,
            ssrc: delivery.negotiated.ssrc,
        };
        let mut prefix_len = 0;
        let numbers = match (rtx, numbers) {
            (Some((ssrc, payload_type)), _) => {
                header.ssrc = ssrc;
                header.payload_type = payload_type;
                header.sequence = delivery.rtx_sequence;
                delivery.rtx_sequence = delivery.rtx_sequence.wrapping_add(1);
                prefix_len = rtx::RTX_PREFIX_LEN;
                self.head[..prefix_len].copy_from_slice(&rtx::prefix(sequence));
                self.fresh_numbers(delivery, lane, &codec)
            }
            (None, Some(numbers)) => numbers,
            (None, None) => return,
        };
        let taken = self.write_head(prefix_len, stored, placed);
        let parts = Parts {
            head_len: prefix_len + taken,
            taken,
            may_pad: rtx.is_some(),
        };
        self.emit(
            delivery, lane, &codec, &header, numbers, stored, placed, parts, egress, stats,
        );
    }

    /// Repeats, with RTX, what was padding: an RTX packet without a payload.
    pub(crate) fn repeat_fill(
        &mut self,
        delivery: &mut Delivery,
        lane: &mut Lane<'_>,
        stored: Stored<'_>,
        placed: Placed,
        at: (Micros, Micros),
        egress: &mut impl Egress,
        stats: &mut Stats,
    ) {
        let Some(codec) = delivery.codec(stored.packet.codec) else {
            return;
        };
        if delivery.rtx(&codec).is_none() {
            return;
        }
        let empty = Stored {
            payload: &[],
            extensions: &[],
            ..stored
        };
        let plain = Placed {
            rewritten: false,
            marker: false,
            ..placed
        };
        self.repeat(delivery, lane, empty, plain, at, egress, stats);
    }

    fn number(
        &mut self,
        delivery: &mut Delivery,
        lane: &mut Lane<'_>,
        codec: &OutCodec,
        sequence: u16,
    ) -> Numbers {
        let numbers = self.fresh_numbers(delivery, lane, codec);
        if delivery.guard.keeps_stamps() {
            let transport_sequence = u16::from_be_bytes(numbers.transport_sequence);
            delivery
                .guard
                .stamp(sequence, transport_sequence, numbers.send_time);
        }
        numbers
    }

    fn fresh_numbers(&self, delivery: &Delivery, lane: &mut Lane<'_>, codec: &OutCodec) -> Numbers {
        let mut transport_sequence = 0;
        let wanted = delivery
            .negotiated
            .extensions
            .get(HeaderExtension::TransportCc)
            .is_some();
        if codec.transport_cc && wanted {
            transport_sequence = *lane.transport_sequence;
            *lane.transport_sequence = transport_sequence.wrapping_add(1);
        }
        Numbers {
            transport_sequence: transport_sequence.to_be_bytes(),
            send_time: self.send_time,
        }
    }

    /// Writes the rewritten start of the payload behind `at` bytes of the head buffer.
    /// Returns how many bytes of the payload it replaces.
    fn write_head(&mut self, at: usize, stored: Stored<'_>, placed: Placed) -> usize {
        let shape = &stored.packet.shape;
        let len = if placed.rewritten {
            shape.head_len()
        } else {
            0
        };
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

    #[expect(
        clippy::too_many_arguments,
        reason = "one packet's parts, passed on by three callers"
    )]
    fn emit(
        &mut self,
        delivery: &Delivery,
        lane: &Lane<'_>,
        codec: &OutCodec,
        header: &RtpHeader,
        numbers: Numbers,
        stored: Stored<'_>,
        placed: Placed,
        parts: Parts,
        egress: &mut impl Egress,
        stats: &mut Stats,
    ) {
        let body = Some((stored, placed));
        let Some(len) = self.write_header(delivery, codec, header, numbers, body) else {
            return;
        };
        let packet = OutgoingRtp {
            header: &self.header[..len],
            prefix: &self.head[..parts.head_len],
            payload: &stored.payload[parts.taken..],
            may_pad: parts.may_pad,
        };
        hand_out(lane.to, packet, egress, stats);
    }

    /// Writes header and extensions; `body` is the packet whose extension values travel
    /// on.
    fn write_header(
        &mut self,
        delivery: &Delivery,
        codec: &OutCodec,
        header: &RtpHeader,
        numbers: Numbers,
        body: Option<(Stored<'_>, Placed)>,
    ) -> Option<usize> {
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
        if let Some((stored, placed)) = body {
            let renumbered =
                placed.rewritten && stored.packet.shape.picture_form == PictureForm::FrameNumber;
            let descriptor = &mut self.descriptor[..];
            for (extension, value) in unpack(stored.extensions) {
                let Some(id) = ids.get(extension) else {
                    continue;
                };
                if extension == HeaderExtension::DependencyDescriptor && renumbered {
                    // There is one descriptor in a packet, so its copy is made below.
                    descriptor[..value.len()].copy_from_slice(value);
                    // It has a frame number, or its form would be another.
                    let written =
                        rewrite_frame_number(&mut descriptor[..value.len()], placed.picture);
                    debug_assert!(written.is_ok());
                } else if extensions.try_push((id, value)).is_err() {
                    break;
                }
            }
            if renumbered
                && let Some(id) = ids.get(HeaderExtension::DependencyDescriptor)
                && let Some((_, value)) = unpack(stored.extensions)
                    .find(|(extension, _)| *extension == HeaderExtension::DependencyDescriptor)
            {
                let copied = extensions.try_push((id, &self.descriptor[..value.len()]));
                debug_assert!(copied.is_ok());
            }
        }
        header.write(&extensions, &mut self.header).ok()
    }
}

/// How the payload of a packet is put together.
#[derive(Debug, Clone, Copy)]
struct Parts {
    /// Bytes of the head buffer that go in front.
    head_len: usize,
    /// Bytes of the payload that these replace.
    taken: usize,
    may_pad: bool,
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
