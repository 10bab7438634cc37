//! Takes RTCP: clocks of publishers, and what subscribers report, miss and ask for.

use headwater_model::media::TransportKey;
use headwater_rtp::ntp::round_trip;
use headwater_rtp::rtcp::{Compound, Nack, ReportBlock, RtcpPacket, SenderInfo};

use super::drain::{RTT_UNKNOWN, bytes_of, replayable};
use super::{Sfu, Wanted};
use crate::clock::{Micros, ntp_to_micros};
use crate::forward::delivery::{Answered, Reported};

/// Packets asked for again that wait for the next drain. A flood beyond is counted and
/// dropped: who needs them asks again.
pub(super) const WANTED_MAX: usize = 8_192;
/// A report cannot speak of more packets than this since the last one; if it does, it
/// is of another life of the stream.
const REPORTED_MAX: u32 = 1_000_000;

/// A subscriber that asks for a keyframe so soon after its first picture has not begun yet.
const BEGINNING: Micros = Micros::from_millis(2_000);
/// For so long at least nobody asks for a keyframe because of one that he did not see yet.
const ANSWER_MIN: Micros = Micros::from_millis(200);

impl Sfu {
    pub(super) fn receive_feedback(&mut self, now: Micros, from: TransportKey, compound: &[u8]) {
        self.stats.rtcp_in += 1;
        let Some(&link) = self.link_index.get(&from) else {
            self.stats.drops.unknown_stream += 1;
            return;
        };
        for packet in Compound::new(compound) {
            let Ok(packet) = packet else {
                self.stats.drops.malformed += 1;
                continue;
            };
            match packet {
                RtcpPacket::SenderReport(report) => {
                    self.note_sender_report(now, link, &report.info);
                    report.blocks().for_each(|block| self.note_report(now, link, &block));
                }
                RtcpPacket::ReceiverReport(report) => {
                    report.blocks().for_each(|block| self.note_report(now, link, &block));
                }
                RtcpPacket::Nack(nack) => self.note_nack(link, &nack),
                RtcpPacket::PictureLossIndication(pli) => {
                    self.note_picture_loss(now, link, pli.media_ssrc);
                }
                RtcpPacket::FullIntraRequest(fir) => {
                    fir.entries().for_each(|entry| self.note_picture_loss(now, link, entry.ssrc));
                }
                // Descriptions name what SDP named already; a goodbye ends nothing that
                // signalling does not end.
                RtcpPacket::Remb(remb) => self.note_remb(now, link, remb.bitrate),
                RtcpPacket::TransportFeedback(feedback) => {
                    self.note_transport_feedback(now, link, &feedback);
                }
                RtcpPacket::SourceDescription(_)
                | RtcpPacket::Goodbye(_)
                | RtcpPacket::Other { .. } => {}
            }
        }
    }

    fn note_sender_report(&mut self, now: Micros, link: u32, info: &SenderInfo) {
        let link = &mut self.links[link as usize];
        let Some(source) = link.source(info.ssrc).filter(|source| !source.repeat) else {
            return;
        };
        // A sender without a wall clock sends zero (RFC 3550 section 6.4.1).
        if info.ntp.0 == 0 {
            return;
        }
        link.note_clock(now, ntp_to_micros(info.ntp));
        let track = &mut self.tracks[source.track as usize];
        track.streams[usize::from(source.encoding)].note_sender_report(
            now,
            info.ntp,
            info.rtp_timestamp,
        );
    }

    fn note_report(&mut self, now: Micros, link: u32, block: &ReportBlock) {
        let link = &mut self.links[link as usize];
        let Some(sink) = link.sink(block.ssrc) else {
            return;
        };
        let ntp = self.clock.ntp(now);
        let delay = block.delay_since_last_sender_report;
        if let Some(rtt) = round_trip(ntp, block.last_sender_report, delay)
            && rtt.as_secs() < 10
        {
            link.note_rtt(Micros(rtt.as_micros() as u64));
        }
        if sink.repeat {
            return;
        }
        let delivery = &mut self.deliveries[sink.delivery as usize];
        let before = delivery.heard;
        delivery.heard = Reported {
            seen: true,
            highest: block.highest_sequence,
            cumulative: block.cumulative_lost,
        };
        let expected = block.highest_sequence.wrapping_sub(before.highest);
        if before.seen && expected < REPORTED_MAX {
            let lost = block.cumulative_lost.saturating_sub(before.cumulative);
            link.heard.expected += u64::from(expected);
            let lost = lost.clamp(0, expected.cast_signed()).cast_unsigned();
            link.heard.lost += u64::from(lost);
            if let Some(downlink) = &mut link.downlink {
                downlink.handle_report(now, expected, lost);
            }
            let track = &self.tracks[delivery.track as usize];
            let rate = track.codec.map_or(90_000, |codec| u64::from(codec.clock_rate()));
            let jitter = Micros(u64::from(block.jitter) * 1_000_000 / rate);
            link.heard.jitter = link.heard.jitter.max(jitter);
        }
    }

    fn note_nack(&mut self, link: u32, nack: &Nack<'_>) {
        let sink = self.links[link as usize].sink(nack.media_ssrc);
        let Some(sink) = sink.filter(|sink| !sink.repeat) else {
            return;
        };
        for sequence in nack.lost() {
            self.stats.nacks_in += 1;
            if self.wanted.len() >= WANTED_MAX {
                self.stats.drops.feedback_flood += 1;
                continue;
            }
            self.wanted.push(Wanted { delivery: sink.delivery, sequence });
        }
    }

    /// A subscriber cannot go on without a keyframe.
    fn note_picture_loss(&mut self, now: Micros, link: u32, ssrc: u32) {
        let sink = self.links[link as usize].sink(ssrc);
        let Some(sink) = sink.filter(|sink| !sink.repeat) else {
            return;
        };
        self.stats.keyframe_requests_in += 1;
        let delivery = &self.deliveries[sink.delivery as usize];
        if delivery.is_paused() {
            return;
        }
        let downlink = self.links[link as usize].downlink.as_deref_mut();
        if downlink.is_some_and(|downlink| downlink.handle_picture_loss(now)) {
            self.stats.adaptation.estimate_cuts += 1;
            self.queue_allocation(link);
        }
        if self.shows_again(now, sink.delivery) {
            return;
        }
        let delivery = &self.deliveries[sink.delivery as usize];
        let forwarded = delivery.forwarder.forwarded().map(|(encoding, _)| encoding);
        let encoding = forwarded.unwrap_or(delivery.forwarder.wanted_encoding());
        self.want_keyframe(delivery.track, encoding);
    }

    /// Gives a subscriber that lost its picture the kept keyframe and what followed once
    /// more, if its network takes that at once or it has just begun: what was sent first
    /// may have got lost before it could tell. `false` if the publisher is to be asked.
    fn shows_again(&mut self, now: Micros, index: u32) -> bool {
        let delivery = &self.deliveries[index as usize];
        let encoding = delivery.forwarder.wanted_encoding();
        let shown = delivery.forwarder.forwarded().map(|(encoding, _)| encoding);
        let track = &self.tracks[delivery.track as usize];
        let stream = track.streams.get(usize::from(encoding)).filter(|_| shown == Some(encoding));
        let Some(stream) = stream else { return false };
        let Some((group, newest)) = replayable(now, stream) else { return false };
        let link = &self.links[delivery.link as usize];
        let rtt = link.rtt.unwrap_or(RTT_UNKNOWN);
        if let Some(answered) = delivery.answered.filter(|answered| answered.start == group.start) {
            // Another one on its way is no news; later on, the same would not help either.
            return now.since(answered.at) < Micros(rtt.0 * 2).max(ANSWER_MIN);
        }
        let begins = delivery.began.is_some_and(|began| now.since(began) < BEGINNING);
        let bytes = bytes_of(stream, group.start, newest.number);
        let downlink = link.downlink.as_deref();
        if !begins && !downlink.is_some_and(|downlink| downlink.takes_at_once(now, bytes)) {
            return false;
        }
        let delivery = &mut self.deliveries[index as usize];
        delivery.answered = Some(Answered { start: group.start, at: now });
        delivery.forwarder.stop();
        let track = delivery.track;
        self.unsettle(now, track);
        true
    }
}
