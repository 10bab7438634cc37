//! What a client tells the server of what it received and sent: transport-wide
//! feedback, NACK, PLI, receiver and sender reports.

use std::time::{Duration, Instant};

use headwater_rtp::rtcp::{CompoundWriter, SenderInfo, TransportFeedbackHead};
use headwater_rtp::{NtpTime, WriteError};
use headwater_transport::SRTP_OVERHEAD_MAX;

use super::super::stream::Kind;
use super::Peer;

/// Between two looks at what is missing.
const ASK_INTERVAL: Duration = Duration::from_millis(20);
/// Packets asked for in one NACK.
const ASK_MAX: usize = 200;
/// SSRC of reports of a client that sends no media.
const REPORTER_SSRC: u32 = 1;

impl Peer {
    pub(super) fn send_feedback(&mut self) {
        self.arrivals.sort_unstable_by_key(|arrival| arrival.sequence);
        self.arrivals.dedup_by_key(|arrival| arrival.sequence);
        let arrivals = std::mem::take(&mut self.arrivals);
        let mut rest = &arrivals[..];
        while let Some(first) = rest.first() {
            let base = if self.arrival_base == 0 { first.sequence } else { self.arrival_base };
            let head = TransportFeedbackHead {
                sender_ssrc: REPORTER_SSRC,
                media_ssrc: self.streams.keys().next().copied().unwrap_or_default(),
                feedback_count: self.feedbacks,
                base_sequence: base.min(first.sequence),
            };
            let mut sent = 0;
            self.send_rtcp(|writer| {
                sent = writer.transport_feedback(&head, rest)?;
                Ok(())
            });
            let Some(last) = sent.checked_sub(1).and_then(|last| rest.get(last)) else { break };
            self.feedbacks = self.feedbacks.wrapping_add(1);
            self.arrival_base = self.arrival_base.max(last.sequence + 1);
            rest = &rest[sent..];
        }
        self.arrivals = arrivals;
        self.arrivals.clear();
    }

    /// Asks for packets and keyframes that are missing.
    pub(super) fn ask(&mut self, now: Instant) {
        let mut streams = std::mem::take(&mut self.streams);
        let mut again = false;
        for (ssrc, stream) in &mut streams {
            let limit = if stream.kind == Kind::Video || self.audio_nack { ASK_MAX } else { 0 };
            let mut lost = Vec::new();
            stream.ask(now, limit, &mut lost);
            if !lost.is_empty() {
                self.send_rtcp(|writer| writer.nack(REPORTER_SSRC, *ssrc, lost.iter().copied()));
            }
            if stream.ask_for_keyframe(now) {
                self.send_rtcp(|writer| writer.picture_loss_indication(REPORTER_SSRC, *ssrc));
            }
            again |= stream.has_missing() || stream.needs_keyframe();
        }
        self.streams = streams;
        self.ask_due = again.then_some(now + ASK_INTERVAL);
    }

    pub(super) fn send_reports(&mut self, now: Instant) {
        let blocks: Vec<_> =
            self.streams.iter_mut().map(|(ssrc, stream)| stream.report(now, *ssrc)).collect();
        let wall =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let video = self.plan.video.iter().map(|one| (&one.stream, 90_000.0));
        let audio = self.plan.audio.iter().map(|one| (&one.stream, 48_000.0));
        let infos: Vec<SenderInfo> = video
            .chain(audio)
            .filter_map(|(stream, clock): (_, f64)| {
                let (timestamp, at) = stream.last?;
                let since = now.saturating_duration_since(at).as_secs_f64() * clock;
                Some(SenderInfo {
                    ssrc: stream.ssrc,
                    ntp: NtpTime::from_unix(wall),
                    rtp_timestamp: timestamp.wrapping_add(since as u32),
                    packets: stream.packets,
                    bytes: stream.bytes,
                })
            })
            .collect();
        for info in infos {
            self.send_rtcp(|writer| {
                writer.sender_report(&info, &[])?;
                writer.cname(info.ssrc, "loadtest")
            });
        }
        for chunk in blocks.chunks(31) {
            self.send_rtcp(|writer| {
                writer.receiver_report(REPORTER_SSRC, chunk)?;
                writer.cname(REPORTER_SSRC, "loadtest")
            });
        }
    }

    fn send_rtcp(&mut self, write: impl FnOnce(&mut CompoundWriter<'_>) -> Result<(), WriteError>) {
        let Some(path) = self.path else { return };
        let mut buffer = [0; 1400];
        let room = buffer.len() - SRTP_OVERHEAD_MAX;
        let mut writer = CompoundWriter::new(&mut buffer[..room]);
        if write(&mut writer).is_err() || writer.is_empty() {
            return;
        }
        let len = writer.finish();
        if let Ok(len) = self.plan.transport.protect_rtcp(&mut buffer, len) {
            self.transmit(path.remote, &buffer[..len]);
        }
    }
}
