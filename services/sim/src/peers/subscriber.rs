//! A subscriber: receives what its node forwards, tells how it arrived, asks for what is
//! missing, and shows and plays the rest.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use headwater_model::media::{ExtensionIds, HeaderExtension, MediaKind};
use headwater_rtp::extension::parse_transport_cc;
use headwater_rtp::red::RedPayload;
use headwater_rtp::rtcp::{Compound, CompoundWriter, ReportBlock, RtcpPacket};
use headwater_rtp::{RtpView, rtx};

use super::audio::{AudioReport, Listener};
use super::decoder::{Decoder, VideoPacket, VideoReport};
use super::feedback::FeedbackLog;
use super::missing::MissingList;
use super::reception::Reception;
use crate::negotiation::{SUBSCRIBED_RED, subscriber_ids};
use crate::{Datagram, Time};

const REPORT_INTERVAL: Duration = Duration::from_millis(1_000);
/// Report blocks of one report.
const BLOCKS_MAX: usize = 31;

/// How a subscriber behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriberConfig {
    /// The round trip that it assumes when it asks again.
    pub assumed_rtt: Duration,
    /// It tells of every packet (transport-wide feedback).
    pub transport_feedback: bool,
    /// It asks for lost sound.
    pub audio_nack: bool,
    /// It takes sound with redundancy (RED).
    pub audio_red: bool,
}

impl Default for SubscriberConfig {
    fn default() -> Self {
        Self {
            assumed_rtt: Duration::from_millis(100),
            transport_feedback: true,
            audio_nack: true,
            audio_red: false,
        }
    }
}

/// One subscription as the subscriber knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) kind: MediaKind,
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: Option<u32>,
}

#[derive(Debug)]
enum Sink {
    Video(Box<Decoder>),
    Audio(Box<Listener>),
}

#[derive(Debug)]
struct Stream {
    watched: Watched,
    missing: MissingList,
    reception: Reception,
    sink: Sink,
}

/// What a subscriber got.
#[derive(Debug, Clone, Default)]
pub struct SubscriberReport {
    /// Each camera, in the order of subscribing.
    pub video: Vec<VideoReport>,
    /// Each microphone.
    pub audio: Vec<AudioReport>,
    /// Bytes of all datagrams in each second, headers included.
    pub received_bytes: Vec<u64>,
    /// RTP packets of padding only: probes.
    pub padding_packets: u64,
    /// RTP packets that were not of any subscription.
    pub unknown_packets: u64,
    /// RTP packets, repeated ones included.
    pub packets: u64,
}

/// A subscriber.
#[derive(Debug)]
pub struct Subscriber {
    config: SubscriberConfig,
    ids: ExtensionIds,
    local_ssrc: u32,
    /// By SSRC.
    streams: BTreeMap<u32, Stream>,
    order: Vec<u32>,
    feedback: FeedbackLog,
    next_report: Option<Time>,
    out: VecDeque<Datagram>,
    report: SubscriberReport,
}

impl Subscriber {
    /// A subscriber that watches nothing yet.
    #[must_use]
    pub fn new(config: SubscriberConfig, local_ssrc: u32) -> Self {
        Self {
            config,
            ids: subscriber_ids(),
            local_ssrc,
            streams: BTreeMap::new(),
            order: Vec::new(),
            feedback: FeedbackLog::default(),
            next_report: None,
            out: VecDeque::new(),
            report: SubscriberReport::default(),
        }
    }

    /// It takes sound with redundancy.
    pub(crate) fn takes_red(&self) -> bool {
        self.config.audio_red
    }

    pub(crate) fn watch(&mut self, watched: Watched) {
        let (sink, age_max) = match watched.kind {
            MediaKind::Video => (Sink::Video(Box::new(Decoder::new())), Duration::from_secs(10)),
            MediaKind::Audio => (Sink::Audio(Box::new(Listener::new())), Duration::from_secs(1)),
        };
        let missing = MissingList::new(self.config.assumed_rtt, age_max);
        let reception = Reception::default();
        self.streams.insert(watched.ssrc, Stream { watched, missing, reception, sink });
        self.order.push(watched.ssrc);
    }

    /// What it got until now.
    #[must_use]
    pub fn report(&self) -> SubscriberReport {
        let mut report = self.report.clone();
        for stream in self.order.iter().filter_map(|ssrc| self.streams.get(ssrc)) {
            match &stream.sink {
                Sink::Video(decoder) => {
                    let nacked = stream.missing.asked;
                    report.video.push(VideoReport { nacked, ..decoder.report.clone() });
                }
                Sink::Audio(listener) => {
                    let nacked = stream.missing.asked;
                    report.audio.push(AudioReport { nacked, ..listener.report.clone() });
                }
            }
        }
        report
    }

    /// Takes an RTP packet.
    pub fn handle_rtp(&mut self, now: Time, packet: &[u8], wire_len: usize) {
        self.count(now, wire_len);
        self.report.packets += 1;
        let Ok(view) = RtpView::parse(packet) else { return };
        if self.config.transport_feedback
            && let Some(id) = self.ids.get(HeaderExtension::TransportCc)
            && let Some(sequence) = view.extension(id).and_then(parse_transport_cc)
        {
            self.feedback.note(now, sequence, wire_len);
        }
        self.next_report.get_or_insert(now.plus(REPORT_INTERVAL));
        let ssrc = view.ssrc();
        let repeated = !self.streams.contains_key(&ssrc);
        let of_rtx = |stream: &&mut Stream| stream.watched.rtx_ssrc == Some(ssrc);
        let stream = if repeated {
            self.streams.values_mut().find(of_rtx)
        } else {
            self.streams.get_mut(&ssrc)
        };
        let Some(stream) = stream else {
            self.report.unknown_packets += 1;
            return;
        };
        let (sequence, payload) = if repeated {
            match rtx::parse(view.payload()) {
                Some(parts) => parts,
                None => {
                    self.report.padding_packets += 1;
                    return;
                }
            }
        } else {
            (view.sequence(), view.payload())
        };
        self.report.padding_packets += u64::from(payload.is_empty());
        let mut asks = Asks::default();
        stream.take(now, (sequence, repeated), &view, payload, &mut asks);
        let media_ssrc = stream.watched.ssrc;
        self.ask(media_ssrc, &asks);
    }

    /// Takes a compound of RTCP.
    pub fn handle_rtcp(&mut self, now: Time, compound: &[u8], wire_len: usize) {
        self.count(now, wire_len);
        for packet in Compound::new(compound).flatten() {
            if let RtcpPacket::SenderReport(report) = packet
                && let Some(stream) = self.streams.get_mut(&report.info.ssrc)
            {
                stream.reception.note_sender_report(now, &report.info);
            }
        }
    }

    /// When [`Subscriber::handle_timeout`] is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let streams = self.streams.values().flat_map(|stream| {
            let decoder = match &stream.sink {
                Sink::Video(decoder) => decoder.due(),
                Sink::Audio(_) => None,
            };
            [decoder, stream.missing.due()]
        });
        streams.chain([self.feedback.due(), self.next_report]).flatten().min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        for index in 0..self.order.len() {
            let ssrc = self.order[index];
            let Some(stream) = self.streams.get_mut(&ssrc) else { continue };
            let mut asks = Asks::default();
            if let Sink::Video(decoder) = &mut stream.sink {
                let (clear_to, keyframe) = decoder.process(now);
                if let Some(sequence) = clear_to {
                    stream.missing.clear_to(sequence);
                }
                asks.keyframe = keyframe;
            }
            if stream.missing.due().is_some_and(|due| due <= now) {
                asks.lost = stream.missing.process(now);
            }
            self.ask(ssrc, &asks);
        }
        if self.feedback.due().is_some_and(|due| due <= now) {
            let media_ssrc = self.order.first().copied().unwrap_or(0);
            for message in self.feedback.take(now, self.local_ssrc, media_ssrc) {
                self.out.push_back(Datagram::rtcp(message));
            }
        }
        if self.next_report.is_some_and(|due| due <= now) {
            self.next_report = Some(now.plus(REPORT_INTERVAL));
            self.send_report(now);
        }
    }

    /// The next datagram to the node.
    pub fn poll_transmit(&mut self) -> Option<Datagram> {
        self.out.pop_front()
    }

    fn count(&mut self, now: Time, wire_len: usize) {
        let second = now.second();
        if self.report.received_bytes.len() <= second {
            self.report.received_bytes.resize(second + 1, 0);
        }
        self.report.received_bytes[second] += wire_len as u64;
    }

    fn ask(&mut self, ssrc: u32, asks: &Asks) {
        let Some(stream) = self.streams.get(&ssrc) else { return };
        let watched = stream.watched;
        let silent = watched.kind == MediaKind::Audio && !self.config.audio_nack;
        let mut buffer = [0; 1_200];
        let mut writer = CompoundWriter::new(&mut buffer);
        if !silent && !asks.lost.is_empty() {
            // What does not fit is asked for the next time.
            let _ = writer.nack(self.local_ssrc, watched.ssrc, asks.lost.iter().copied());
        }
        if asks.keyframe {
            let _ = writer.picture_loss_indication(self.local_ssrc, watched.ssrc);
        }
        let len = writer.finish();
        if len > 0 {
            self.out.push_back(Datagram::rtcp(buffer[..len].to_vec()));
        }
    }

    fn send_report(&mut self, now: Time) {
        let mut buffer = [0; 1_200];
        let blocks: Vec<ReportBlock> = self
            .streams
            .iter_mut()
            .filter_map(|(ssrc, stream)| stream.reception.block(now, *ssrc))
            .take(BLOCKS_MAX)
            .collect();
        let mut writer = CompoundWriter::new(&mut buffer);
        writer.receiver_report(self.local_ssrc, &blocks).expect("31 blocks fit 1,200 bytes");
        writer.cname(self.local_ssrc, "subscriber").expect("a name fits 1,200 bytes");
        let len = writer.finish();
        self.out.push_back(Datagram::rtcp(buffer[..len].to_vec()));
    }
}

/// What to ask the node for.
#[derive(Debug, Default)]
struct Asks {
    lost: Vec<u16>,
    keyframe: bool,
}

impl Stream {
    fn take(
        &mut self,
        now: Time,
        (sequence, repeated): (u16, bool),
        view: &RtpView<'_>,
        payload: &[u8],
        asks: &mut Asks,
    ) {
        let (sequence, clock_rate) = match &mut self.sink {
            Sink::Video(decoder) => (decoder.unwrap(sequence), 90_000),
            Sink::Audio(listener) => (listener.unwrap(sequence), 48_000),
        };
        if !repeated {
            self.reception.note(now, sequence, view.timestamp(), clock_rate);
        }
        match self.missing.note(now, sequence) {
            Some(lost) => asks.lost = lost,
            None => {
                if let Sink::Video(decoder) = &mut self.sink {
                    asks.keyframe = decoder.give_up(now);
                }
            }
        }
        let timestamp = view.timestamp();
        match &mut self.sink {
            Sink::Video(decoder) => {
                decoder.note_packet(now);
                if !payload.is_empty() {
                    let marker = view.marker();
                    decoder.handle(now, VideoPacket { sequence, timestamp, marker, payload });
                }
            }
            Sink::Audio(listener) if view.payload_type() == SUBSCRIBED_RED => {
                take_blocks(listener, now, (sequence, timestamp), payload);
            }
            Sink::Audio(listener) => listener.handle(now, sequence, timestamp, payload),
        }
    }
}

/// Hears a packet and what is in it of those before.
fn take_blocks(
    listener: &mut Listener,
    now: Time,
    (sequence, timestamp): (u64, u32),
    payload: &[u8],
) {
    let Ok(red) = RedPayload::parse(payload) else { return };
    listener.handle(now, sequence, timestamp, red.primary());
    let blocks = red.redundant();
    let backs = (1..=blocks.len() as u64).rev();
    for (back, block) in backs.zip(blocks) {
        let before = timestamp.wrapping_sub(u32::from(block.timestamp_offset));
        listener.handle(now, sequence.saturating_sub(back), before, block.payload);
    }
}
