//! RTCP that we send: receiver reports, transport-wide feedback, NACK and keyframe
//! requests to publishers; sender reports to subscribers.

use arrayvec::ArrayVec;
use headwater_model::media::{HeaderExtension, MediaKind, TransportKey};
use headwater_rtp::ntp::compact_from_duration;
use headwater_rtp::rtcp::{CompoundWriter, ReportBlock, SenderInfo, TransportFeedbackHead};

use super::drain::RTT_UNKNOWN;
use super::receive::REPORT_INTERVAL;
use super::timers::{LinkRef, Timer, TrackRef};
use super::{COMPOUND_MAX, Sfu};
use crate::Stats;
use crate::clock::Micros;
use crate::egress::Egress;
use crate::forward::delivery::Delivery;
use crate::ingress::arrivals::FEEDBACK_INTERVAL;
use crate::ingress::keyframes::Wish;
use crate::ingress::missing::Requests;
use crate::ingress::stream::Stream;
use crate::ingress::track::Track;
use crate::link::Link;

/// How often sender reports go out.
const SENDER_REPORT_INTERVAL: Micros = Micros::from_millis(3_000);
/// Report blocks of one report.
const BLOCKS_MAX: usize = 31;
/// Room that one sender report with its CNAME takes.
const SENDER_REPORT_LEN: usize = 28 + 28;
/// Feedback messages that go out together; the rest waits for the next time.
const FEEDBACK_MESSAGES_MAX: usize = 4;
/// What a publisher without transport-wide feedback may send at first, and at least
/// and at most, in bits per second. Without any estimate libwebrtc stays near 300
/// kbit/s for a long time.
const REMB_START: u64 = 2_500_000;
const REMB_MIN: u64 = 100_000;
const REMB_MAX: u64 = 10_000_000;

/// One compound being written and sent.
struct Outbox<'a, E> {
    to: TransportKey,
    buffer: &'a mut [u8; COMPOUND_MAX],
    egress: &'a mut E,
    stats: &'a mut Stats,
}

impl<E: Egress> Outbox<'_, E> {
    /// Writes a compound and sends it if there is anything in it. What does not fit is
    /// left out, which the sizes of all that is sent here exclude.
    fn send(&mut self, write: impl FnOnce(&mut CompoundWriter<'_>)) {
        let mut writer = CompoundWriter::new(&mut self.buffer[..]);
        write(&mut writer);
        let len = writer.finish();
        if len > 0 {
            self.stats.rtcp_out += 1;
            self.egress.rtcp(self.to, &self.buffer[..len]);
        }
    }
}

impl Sfu {
    /// Transport-wide feedback of what arrived since the last.
    pub(super) fn send_feedback(
        &mut self,
        now: Micros,
        reference: LinkRef,
        egress: &mut impl Egress,
    ) {
        let link = &mut self.links[reference.index as usize];
        // The timer goes on by itself; a call out of turn was asked for by a burst.
        let out_of_turn = std::mem::take(&mut link.feedback_queued);
        let media_ssrc = self.tracks_of(reference.index).find_map(first_ssrc).unwrap_or(0);
        for _ in 0..FEEDBACK_MESSAGES_MAX {
            let link = &mut self.links[reference.index as usize];
            let Some(base_sequence) = link.arrivals.base() else {
                break;
            };
            if !link.connected {
                break;
            }
            let head = TransportFeedbackHead {
                sender_ssrc: link.local_ssrc,
                media_ssrc,
                feedback_count: link.arrivals.feedback_count(),
                base_sequence,
            };
            let mut told = 0;
            let mut outbox = Outbox {
                to: link.key,
                buffer: &mut self.compound,
                egress: &mut *egress,
                stats: &mut self.stats,
            };
            outbox.send(|writer| {
                let _ = writer.receiver_report(head.sender_ssrc, &[]);
                told = writer.transport_feedback(&head, link.arrivals.pending()).unwrap_or(0);
            });
            // One that cannot be told would be in the way for ever.
            link.arrivals.told(told.max(1));
        }
        let link = &mut self.links[reference.index as usize];
        let more = !link.arrivals.pending().is_empty();
        if !out_of_turn {
            link.feedback_armed = false;
        }
        if more && !link.feedback_armed {
            link.feedback_armed = true;
            self.wheel.arm(now.plus(FEEDBACK_INTERVAL), Timer::Feedback(reference));
        }
    }

    fn tracks_of(&self, link: u32) -> impl Iterator<Item = &Track> {
        self.links[link as usize].tracks.iter().map(|index| &self.tracks[*index as usize])
    }

    /// Receiver report of all that a publisher sends, and REMB if it has no better
    /// feedback.
    pub(super) fn send_reports(
        &mut self,
        now: Micros,
        reference: LinkRef,
        egress: &mut impl Egress,
    ) {
        let link = &mut self.links[reference.index as usize];
        let active = std::mem::take(&mut link.active);
        link.reports_armed = active;
        if !active {
            return;
        }
        self.wheel.arm(now.plus(REPORT_INTERVAL), Timer::Reports(reference));
        let link = &self.links[reference.index as usize];
        if !link.connected {
            return;
        }
        let (to, local_ssrc, cname) = (link.key, link.local_ssrc, link.cname);
        let mut blocks = ArrayVec::<ReportBlock, BLOCKS_MAX>::new();
        let mut video = Remb::default();
        for position in 0.. {
            let Some(&index) = self.links[reference.index as usize].tracks.get(position) else {
                break;
            };
            let track = &mut self.tracks[index as usize];
            let is_video = track.kind() == MediaKind::Video;
            let feedback = has_feedback(track);
            for stream in &mut track.streams {
                let Some(block) = report_block(now, stream) else {
                    continue;
                };
                if is_video && !feedback {
                    video.add(&block);
                }
                blocks.push(block);
                if blocks.is_full() {
                    let buffer = &mut self.compound;
                    let mut outbox =
                        Outbox { to, buffer, egress: &mut *egress, stats: &mut self.stats };
                    outbox.send(|writer| {
                        let _ = writer.receiver_report(local_ssrc, &blocks);
                    });
                    blocks.clear();
                }
            }
        }
        let remb = self.next_remb(reference.index, &video);
        let cname = std::str::from_utf8(&cname).unwrap_or_default();
        let mut outbox = Outbox { to, buffer: &mut self.compound, egress, stats: &mut self.stats };
        outbox.send(|writer| {
            let _ = writer.receiver_report(local_ssrc, &blocks);
            let _ = writer.cname(local_ssrc, cname);
            if let Some(bitrate) = remb {
                let _ = writer.remb(local_ssrc, bitrate, &video.ssrcs);
            }
        });
    }

    /// What a publisher without transport-wide feedback is allowed: less with loss, a
    /// little more each time without (the loss-based part of Google's congestion
    /// control). `None` if it needs no REMB.
    fn next_remb(&mut self, link: u32, video: &Remb) -> Option<u64> {
        if video.ssrcs.is_empty() {
            return None;
        }
        let link = &mut self.links[link as usize];
        let before = if link.remb == 0 { REMB_START } else { link.remb };
        let loss = u64::from(video.worst_loss);
        let next = match loss {
            0..=5 => before * 108 / 100,
            6..=25 => before,
            _ => before * (512 - loss) / 512,
        };
        link.remb = next.clamp(REMB_MIN, REMB_MAX);
        Some(link.remb)
    }

    /// Asks a publisher for what is missing.
    pub(super) fn send_nacks(
        &mut self,
        now: Micros,
        reference: TrackRef,
        egress: &mut impl Egress,
    ) {
        let track = &mut self.tracks[reference.index as usize];
        track.nack_armed = false;
        let link = &self.links[track.link as usize];
        let (to, local_ssrc, connected) = (link.key, link.local_ssrc, link.connected);
        let rtt = link.rtt.unwrap_or(RTT_UNKNOWN);
        let wanted = !track.deliveries.is_empty() || track.relay_demand != 0;
        let wants_video = track.kind() == MediaKind::Video && wanted;
        let mut broken = 0_u8;
        let mut next: Option<Micros> = None;
        for (index, stream) in track.streams.iter_mut().enumerate() {
            let mut requests = Requests::new();
            let given_up = stream.missing.due(now, rtt, &mut requests);
            self.stats.lost += given_up;
            if given_up > 0 || stream.broken {
                stream.broken = false;
                broken |= 1 << index;
            }
            next = [next, stream.missing.next_due()].into_iter().flatten().min();
            let Some(media_ssrc) = stream.ssrc.filter(|_| connected) else {
                continue;
            };
            if !requests.is_empty() {
                self.stats.nacks_out += requests.len() as u64;
                let buffer = &mut self.compound;
                let mut outbox =
                    Outbox { to, buffer, egress: &mut *egress, stats: &mut self.stats };
                outbox.send(|writer| {
                    let _ = writer.receiver_report(local_ssrc, &[]);
                    let _ = writer.nack(local_ssrc, media_ssrc, requests.iter().copied());
                });
            }
        }
        if let Some(at) = next {
            self.tracks[reference.index as usize].nack_armed = true;
            self.wheel.arm(at, Timer::Nack(reference));
        }
        for encoding in (0..8).filter(|encoding| wants_video && broken >> encoding & 1 == 1) {
            self.want_keyframe(reference.index, encoding);
        }
    }

    pub(super) fn arm_nack(&mut self, now: Micros, index: u32) {
        let track = &mut self.tracks[index as usize];
        if !track.nack_armed {
            track.nack_armed = true;
            let reference = TrackRef { index, key: track.key };
            self.wheel.arm(now.plus(Micros::from_millis(5)), Timer::Nack(reference));
        }
    }

    /// Somebody needs a keyframe of an encoding; the request goes out with this drain
    /// or the next, unless one went out a moment ago.
    pub(super) fn want_keyframe(&mut self, index: u32, encoding: u8) {
        let track = &mut self.tracks[index as usize];
        let Some(stream) = track.streams.get_mut(usize::from(encoding)) else {
            return;
        };
        if track.publication.kind == MediaKind::Audio || stream.ssrc.is_none() {
            return;
        }
        stream.gate.want();
        // A timer of another encoding may be set for later; this one need not wait for it.
        if !track.keyframe_queued {
            track.keyframe_queued = true;
            let reference = TrackRef { index, key: track.key };
            self.due.push(Timer::Keyframe(reference));
        }
    }

    pub(super) fn send_keyframe_requests(
        &mut self,
        now: Micros,
        reference: TrackRef,
        egress: &mut impl Egress,
    ) {
        let track = &mut self.tracks[reference.index as usize];
        track.keyframe_queued = false;
        track.keyframe_at = track.keyframe_at.filter(|at| *at > now);
        let link = &self.links[track.link as usize];
        let (to, local_ssrc, connected) = (link.key, link.local_ssrc, link.connected);
        let mut next: Option<Micros> = None;
        for stream in &mut track.streams {
            let (Some(media_ssrc), true) = (stream.ssrc, connected) else {
                continue;
            };
            match stream.gate.decide(now) {
                Some(Wish::Ask) => {
                    self.stats.keyframe_requests_out += 1;
                    let buffer = &mut self.compound;
                    let mut outbox =
                        Outbox { to, buffer, egress: &mut *egress, stats: &mut self.stats };
                    outbox.send(|writer| {
                        let _ = writer.receiver_report(local_ssrc, &[]);
                        let _ = writer.picture_loss_indication(local_ssrc, media_ssrc);
                    });
                }
                Some(Wish::Later(at)) => next = [next, Some(at)].into_iter().flatten().min(),
                None => {}
            }
        }
        if let Some(at) = next
            && track.keyframe_at.is_none_or(|armed| at < armed)
        {
            track.keyframe_at = Some(at);
            self.wheel.arm(at, Timer::Keyframe(reference));
        }
    }

    /// Sender reports of everything that was sent to a subscriber since the last.
    pub(super) fn send_sender_reports(
        &mut self,
        now: Micros,
        reference: LinkRef,
        egress: &mut impl Egress,
    ) {
        let ntp = self.clock.ntp(now);
        let mut any = false;
        let mut position = 0;
        loop {
            let mut writer = CompoundWriter::new(&mut self.compound[..]);
            let link = &self.links[reference.index as usize];
            while let Some(&index) = link.deliveries.get(position)
                && writer.len() + SENDER_REPORT_LEN <= COMPOUND_MAX
            {
                position += 1;
                let delivery = &mut self.deliveries[index as usize];
                if delivery.packets == delivery.reported_packets {
                    continue;
                }
                delivery.reported_packets = delivery.packets;
                let track = &self.tracks[delivery.track as usize];
                let publisher = &self.links[track.link as usize];
                let info = SenderInfo {
                    ssrc: delivery.negotiated.ssrc,
                    ntp,
                    rtp_timestamp: timestamp_now(now, track, publisher, delivery),
                    packets: delivery.packets,
                    bytes: delivery.octets,
                };
                let _ = writer.sender_report(&info, &[]);
                let _ = writer.cname(info.ssrc, publisher.cname());
            }
            let len = writer.finish();
            if len == 0 {
                break;
            }
            any = true;
            if link.connected {
                self.stats.rtcp_out += 1;
                egress.rtcp(link.key, &self.compound[..len]);
            }
        }
        let link = &mut self.links[reference.index as usize];
        link.sender_reports_armed = any;
        if any {
            self.wheel.arm(now.plus(SENDER_REPORT_INTERVAL), Timer::SenderReports(reference));
        }
    }
}

/// The subscriber's RTP clock now: from the publisher's last sender report, so that
/// sound and pictures of a publisher agree; else from the last packet.
fn timestamp_now(now: Micros, track: &Track, publisher: &Link, delivery: &Delivery) -> u32 {
    let rate = track.codec.map_or(90_000, |codec| codec.clock_rate());
    let by_report = || {
        let (encoding, epoch, offset) = delivery.forwarder.clock_line()?;
        let stream = track.streams.get(usize::from(encoding))?;
        let clock = stream.clock.filter(|_| stream.epoch() == epoch)?;
        let since = publisher.publisher_clock(now)?.wrapping_sub(clock.ntp_micros).cast_signed();
        let units = i128::from(since) * i128::from(rate) / 1_000_000;
        Some(clock.rtp.wrapping_add(units as u32).wrapping_add(offset))
    };
    by_report().unwrap_or_else(|| delivery.timestamp_by_arrival(now, rate))
}

fn first_ssrc(track: &Track) -> Option<u32> {
    track.streams.iter().find_map(|stream| stream.ssrc)
}

/// Transport-wide feedback was negotiated for a track.
fn has_feedback(track: &Track) -> bool {
    track.publication.extensions.get(HeaderExtension::TransportCc).is_some()
        && track.publication.codecs.iter().any(|codec| codec.transport_cc)
}

fn report_block(now: Micros, stream: &mut Stream) -> Option<ReportBlock> {
    let ssrc = stream.ssrc?;
    if stream.reception.received() == 0 {
        return None;
    }
    let loss = stream.reception.report();
    let clock = stream.clock;
    Some(ReportBlock {
        ssrc,
        fraction_lost: loss.fraction,
        cumulative_lost: loss.cumulative,
        highest_sequence: loss.highest,
        jitter: loss.jitter,
        last_sender_report: clock.map_or(0, |clock| clock.compact),
        delay_since_last_sender_report: clock
            .map_or(0, |clock| compact_from_duration(now.since(clock.arrival).to_duration())),
    })
}

/// The video of a publisher that needs REMB.
#[derive(Debug, Default)]
struct Remb {
    ssrcs: ArrayVec<u32, BLOCKS_MAX>,
    worst_loss: u8,
}

impl Remb {
    fn add(&mut self, block: &ReportBlock) {
        if self.ssrcs.try_push(block.ssrc).is_ok() {
            self.worst_loss = self.worst_loss.max(block.fraction_lost);
        }
    }
}
