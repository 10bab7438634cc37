//! A publisher: a camera in simulcast and a microphone, paced as libwebrtc paces. It answers
//! keyframe requests and NACK and keeps to what transport-wide feedback allows.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use headwater_model::media::{ExtensionIds, HeaderExtension};
use headwater_rtp::extension::{AbsSendTime, AudioLevel};
use headwater_rtp::rtcp::{Compound, CompoundWriter, RtcpPacket, SenderInfo};
use headwater_rtp::{NtpTime, RtpHeader, rtx};

use super::encoder::{AudioEncoder, Planned, VideoEncoder};
use super::estimator::Estimator;
use crate::negotiation::{PUBLISHED_AUDIO, PUBLISHED_RED, PUBLISHED_VIDEO, RIDS, publisher_ids};
use crate::{Datagram, Random, Time};

/// Packets of one encoding that can be repeated: about ten seconds of the largest.
const HISTORY_MAX: usize = 2_048;
/// Packets that wait for the pacer at most; the oldest of video go first.
const PACER_MAX: usize = 4_096;
/// How much faster than the rate the pacer sends.
const PACING: u64 = 5;
const PACING_DIVISOR: u64 = 2;
/// A packet is not repeated again within this time.
const REPEAT_SPACING: Duration = Duration::from_millis(20);
const REPORT_INTERVAL: Duration = Duration::from_millis(1_000);

/// One encoding of the camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Bits per second.
    pub rate: u32,
    /// Lines of the picture.
    pub height: u32,
}

/// What a publisher sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublisherConfig {
    /// Encodings, smallest first, at most three; none is no camera.
    pub layers: Vec<Layer>,
    /// Frames a second.
    pub frame_rate: u32,
    /// There is a microphone.
    pub audio: bool,
    /// Each packet of sound has the one before it in it (RED).
    pub audio_red: bool,
}

impl Default for PublisherConfig {
    /// LiveKit's three layers of a 720p camera, and a microphone.
    fn default() -> Self {
        Self {
            layers: vec![
                Layer { rate: 150_000, height: 180 },
                Layer { rate: 500_000, height: 360 },
                Layer { rate: 1_500_000, height: 720 },
            ],
            frame_rate: 30,
            audio: true,
            audio_red: false,
        }
    }
}

#[derive(Debug)]
struct Stream {
    ssrc: u32,
    rtx_ssrc: u32,
    rtx_sequence: u16,
    /// The node reported on it: MID and RID need not be sent any more.
    known: bool,
    packets: u32,
    bytes: u32,
    /// By sequence number, with the time of the last sending.
    history: BTreeMap<u16, (Time, Planned)>,
    order: VecDeque<u16>,
}

/// A publisher.
#[derive(Debug)]
pub struct Publisher {
    config: PublisherConfig,
    random: Random,
    ids: ExtensionIds,
    video: Vec<VideoEncoder>,
    audio: Option<AudioEncoder>,
    /// Of video, then of audio.
    streams: Vec<Stream>,
    estimator: Estimator,
    transport_sequence: u16,
    pacer: VecDeque<Planned>,
    pacer_due: Time,
    next_frame: Time,
    next_audio: Time,
    next_report: Time,
    out: VecDeque<Datagram>,
    /// Keyframe requests that came.
    keyframe_requests: u64,
    /// Sequence numbers that were asked for again.
    nacked: u64,
    /// Packets that were repeated.
    repeated: u64,
}

impl Publisher {
    /// A publisher that begins to send at `now`.
    #[must_use]
    pub fn new(config: PublisherConfig, mut random: Random, now: Time) -> Self {
        let video: Vec<_> = config
            .layers
            .iter()
            .enumerate()
            .map(|(index, layer)| VideoEncoder::new(index, u64::from(layer.rate), &mut random))
            .collect();
        let audio =
            config.audio.then(|| AudioEncoder::new(video.len(), config.audio_red, &mut random));
        let count = video.len() + usize::from(audio.is_some());
        let streams = (0..count)
            .map(|_| Stream {
                ssrc: random.next_u64() as u32 | 1,
                rtx_ssrc: random.next_u64() as u32 & !1,
                rtx_sequence: random.below(0x8000) as u16,
                known: false,
                packets: 0,
                bytes: 0,
                history: BTreeMap::new(),
                order: VecDeque::new(),
            })
            .collect();
        let total: u64 = config.layers.iter().map(|layer| u64::from(layer.rate)).sum();
        Self {
            estimator: Estimator::new((total + 50_000) * 6 / 5),
            ids: publisher_ids(),
            video,
            audio,
            streams,
            transport_sequence: random.next_u64() as u16,
            pacer: VecDeque::new(),
            pacer_due: now,
            next_frame: now,
            next_audio: now,
            next_report: now.plus(Duration::from_millis(200)),
            out: VecDeque::new(),
            keyframe_requests: 0,
            nacked: 0,
            repeated: 0,
            random,
            config,
        }
    }

    /// It begins to send now instead: its transport was not connected before.
    pub(crate) fn begin(&mut self, now: Time) {
        self.pacer_due = now;
        self.next_frame = now;
        self.next_audio = now;
        self.next_report = now.plus(Duration::from_millis(200));
    }

    /// What it sends.
    #[must_use]
    pub fn config(&self) -> &PublisherConfig {
        &self.config
    }

    /// Keyframe requests that came, over all encodings.
    #[must_use]
    pub fn keyframe_requests(&self) -> u64 {
        self.keyframe_requests
    }

    /// Keyframes that were sent, over all encodings.
    #[must_use]
    pub fn keyframes(&self) -> u64 {
        self.video.iter().map(|encoder| encoder.keyframes).sum()
    }

    /// Sequence numbers that the node asked for again.
    #[must_use]
    pub fn nacked(&self) -> u64 {
        self.nacked
    }

    /// Packets that were repeated.
    #[must_use]
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Takes a compound of the node.
    pub fn handle_rtcp(&mut self, now: Time, compound: &[u8]) {
        for packet in Compound::new(compound).flatten() {
            match packet {
                RtcpPacket::ReceiverReport(report) => {
                    for block in report.blocks() {
                        if let Some(index) = self.stream_of(block.ssrc) {
                            self.streams[index].known = true;
                        }
                    }
                }
                RtcpPacket::Nack(nack) => {
                    for sequence in nack.lost() {
                        self.nacked += 1;
                        self.repeat(now, nack.media_ssrc, sequence);
                    }
                }
                RtcpPacket::PictureLossIndication(pli) => self.want_key(pli.media_ssrc),
                RtcpPacket::FullIntraRequest(fir) => {
                    fir.entries().for_each(|entry| self.want_key(entry.ssrc));
                }
                RtcpPacket::TransportFeedback(feedback) => {
                    self.estimator.feedback(now, &feedback);
                    self.share_rate();
                }
                RtcpPacket::SenderReport(_)
                | RtcpPacket::SourceDescription(_)
                | RtcpPacket::Goodbye(_)
                | RtcpPacket::Remb(_)
                | RtcpPacket::Other { .. } => {}
            }
        }
    }

    /// When [`Publisher::handle_timeout`] is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let pacer = if self.pacer.is_empty() { Time::NEVER } else { self.pacer_due };
        let frame = if self.video.is_empty() { Time::NEVER } else { self.next_frame };
        let audio = if self.audio.is_some() { self.next_audio } else { Time::NEVER };
        [pacer, frame, audio, self.next_report].into_iter().min()
    }

    /// Captures, paces and reports what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        if !self.video.is_empty() && self.next_frame <= now {
            self.capture(now);
        }
        if let Some(audio) = &mut self.audio
            && self.next_audio <= now
        {
            self.next_audio = self.next_audio.plus(AudioEncoder::INTERVAL);
            let packet = audio.packet(now, &mut self.random);
            // Sound is not paced.
            self.send(now, &packet);
        }
        if self.next_report <= now {
            self.next_report = now.plus(REPORT_INTERVAL);
            self.report(now);
        }
        while self.pacer_due <= now
            && let Some(packet) = self.pacer.pop_front()
        {
            let rate = self.pacing_rate();
            let bits = packet.payload.len() as u64 * 8;
            let airtime = Duration::from_micros(bits * 1_000_000 / rate);
            self.pacer_due = self.pacer_due.max(now).plus(airtime);
            self.send(now, &packet);
        }
    }

    /// The next datagram to the node.
    pub fn poll_transmit(&mut self) -> Option<Datagram> {
        self.out.pop_front()
    }

    fn pacing_rate(&self) -> u64 {
        (self.estimator.rate() * PACING / PACING_DIVISOR).max(300_000)
    }

    fn capture(&mut self, now: Time) {
        let interval = Duration::from_micros(1_000_000 / u64::from(self.config.frame_rate));
        self.next_frame = self.next_frame.plus(interval);
        if self.pacer.is_empty() {
            self.pacer_due = now;
        }
        for encoder in &mut self.video {
            let frame = encoder.frame(now, self.config.frame_rate, &mut self.random);
            self.pacer.extend(frame);
        }
        while self.pacer.len() > PACER_MAX {
            self.pacer.pop_front();
        }
    }

    /// The lowest encodings come first; one that would get less than half of its rate is
    /// switched off, as libwebrtc does.
    fn share_rate(&mut self) {
        let mut left = self.estimator.rate().saturating_sub(50_000);
        for (encoder, layer) in self.video.iter_mut().zip(&self.config.layers) {
            let wanted = u64::from(layer.rate);
            let share = wanted.min(left);
            encoder.set_rate(if share * 2 >= wanted { share } else { 0 });
            left -= share;
        }
    }

    fn want_key(&mut self, ssrc: u32) {
        if let Some(index) = self.stream_of(ssrc)
            && let Some(encoder) = self.video.get_mut(index)
        {
            self.keyframe_requests += 1;
            encoder.want_key();
        }
    }

    fn stream_of(&self, ssrc: u32) -> Option<usize> {
        self.streams.iter().position(|stream| stream.ssrc == ssrc)
    }

    fn repeat(&mut self, now: Time, ssrc: u32, sequence: u16) {
        let Some(index) = self.stream_of(ssrc) else { return };
        let Some((sent, planned)) = self.streams[index].history.get_mut(&sequence) else { return };
        if now.since(*sent) < REPEAT_SPACING {
            return;
        }
        *sent = now;
        self.repeated += 1;
        // Without RTX, as for sound, the packet goes out again as it was.
        let planned = Planned { repeat: index < self.video.len(), ..planned.clone() };
        self.send(now, &planned);
    }

    fn send(&mut self, now: Time, planned: &Planned) {
        let is_video = planned.encoder < self.video.len();
        let stream = &mut self.streams[planned.encoder];
        let transport_sequence = self.transport_sequence.to_be_bytes();
        self.transport_sequence = self.transport_sequence.wrapping_add(1);
        let send_time = AbsSendTime::from_duration(now.elapsed()).to_bytes();
        let level = AudioLevel { voice: true, below_overload: 30 }.to_bytes();
        let mut extensions: Vec<(u8, &[u8])> = Vec::new();
        let mut add = |extension, value| {
            if let Some(id) = self.ids.get(extension) {
                extensions.push((id, value));
            }
        };
        add(HeaderExtension::TransportCc, &transport_sequence[..]);
        add(HeaderExtension::AbsSendTime, &send_time[..]);
        if !stream.known || planned.repeat {
            add(HeaderExtension::Mid, if is_video { b"1" } else { b"0" });
            if is_video && self.video.len() > 1 {
                let rid = RIDS[planned.encoder % RIDS.len()].as_bytes();
                let extension = if planned.repeat {
                    HeaderExtension::RepairedRid
                } else {
                    HeaderExtension::Rid
                };
                add(extension, rid);
            }
        }
        if !is_video {
            add(HeaderExtension::AudioLevel, &level[..]);
        }
        let payload_type = match (is_video, self.config.audio_red) {
            (true, _) => PUBLISHED_VIDEO,
            (false, true) => PUBLISHED_RED,
            (false, false) => PUBLISHED_AUDIO,
        };
        let mut header = RtpHeader {
            payload_type,
            marker: planned.marker,
            sequence: planned.sequence,
            timestamp: planned.timestamp,
            ssrc: stream.ssrc,
        };
        let mut prefix: &[u8] = &[];
        let original = rtx::prefix(planned.sequence);
        if planned.repeat {
            header.payload_type += 1;
            header.ssrc = stream.rtx_ssrc;
            header.sequence = stream.rtx_sequence;
            stream.rtx_sequence = stream.rtx_sequence.wrapping_add(1);
            prefix = &original;
        } else {
            stream.packets += 1;
            stream.bytes += planned.payload.len() as u32;
        }
        let mut bytes = vec![0; RtpHeader::encoded_len(&extensions)];
        header.write(&extensions, &mut bytes).expect("short extensions with ids fit their length");
        bytes.extend_from_slice(prefix);
        bytes.extend_from_slice(&planned.payload);
        let datagram = Datagram::rtp(bytes);
        let sequence = u16::from_be_bytes(transport_sequence);
        self.estimator.sent(now, sequence, datagram.wire_len());
        self.out.push_back(datagram);
        if !planned.repeat {
            self.remember(now, planned.clone());
        }
    }

    fn remember(&mut self, now: Time, planned: Planned) {
        let stream = &mut self.streams[planned.encoder];
        let sequence = planned.sequence;
        if stream.history.insert(sequence, (now, planned)).is_none() {
            stream.order.push_back(sequence);
        }
        if stream.order.len() > HISTORY_MAX
            && let Some(oldest) = stream.order.pop_front()
        {
            stream.history.remove(&oldest);
        }
    }

    fn report(&mut self, now: Time) {
        let mut buffer = [0; 1_200];
        for (index, stream) in self.streams.iter().enumerate() {
            if stream.packets == 0 {
                continue;
            }
            let rtp_timestamp = match (self.video.get(index), &self.audio) {
                (Some(video), _) => video.timestamp(now),
                (None, Some(audio)) => audio.timestamp(now),
                (None, None) => continue,
            };
            let info = SenderInfo {
                ssrc: stream.ssrc,
                ntp: NtpTime::from_unix(Duration::from_secs(1_700_000_000) + now.elapsed()),
                rtp_timestamp,
                packets: stream.packets,
                bytes: stream.bytes,
            };
            let mut writer = CompoundWriter::new(&mut buffer);
            writer.sender_report(&info, &[]).expect("a report fits 1,200 bytes");
            writer.cname(stream.ssrc, "publisher").expect("a name fits 1,200 bytes");
            let len = writer.finish();
            self.out.push_back(Datagram::rtcp(buffer[..len].to_vec()));
        }
    }
}
