//! One client of a crowd, as its worker thread sees it: a socket, a transport, media
//! out and in. It does what a browser does; what it notices is counted.

mod feedback;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_net::UdpSocket;
use headwater_rtp::rtcp::{Arrival, Compound, RtcpPacket};
use headwater_rtp::{RtpView, SequenceUnwrapper, h264, rtx, vp8};
use headwater_transport::{
    Output, PacketClass, Path, Protocol, RemoteParameters, SRTP_OVERHEAD_MAX, Transport,
    TransportEvent, classify,
};
use socket2::SockRef;
use tokio::sync::watch;

use super::media::{AUDIO_INTERVAL, AudioTrack, Stamp, VideoEncoding};
use super::stream::{Kind, Stream};
use super::tally::{PeerReport, Tally};
use super::worker::Capture;
use crate::description::{Answer, extension_id, payload_type};
use crate::impairment::Link;
use crate::source::{micros_of, now_micros};

/// Between two transport-wide feedbacks, as libwebrtc sends them.
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(100);
/// Arrivals kept for a feedback; with more it is sent at once.
const ARRIVALS_MAX: usize = 1_000;
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Streams of one client; packets of more are passed over.
const STREAMS_MAX: usize = 4_096;
/// Sent packets kept to be sent again, of all streams of a client.
const SENT_MAX: usize = 256;
/// Longest payload of a packet that is all padding, with what SRTP adds.
const PADDING_ONLY_MAX: usize = 255 + SRTP_OVERHEAD_MAX;
/// A frame is late when it leaves this long after it was due, or after half its
/// interval if that is shorter.
const LATE: Duration = Duration::from_millis(10);
/// A publisher that is further behind leaves frames out instead of catching up.
const BEHIND_MAX: Duration = Duration::from_millis(200);

/// How far a client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Not connected yet.
    Joining,
    /// Keys are in place.
    Connected,
    /// Over, and why.
    Ended(String),
}

/// What a client is made from.
pub struct PeerPlan {
    /// Kind of client, an index into the labels of the run.
    pub label: usize,
    /// When its join began.
    pub begun: Instant,
    /// Its socket.
    pub socket: UdpSocket,
    /// Its transport, not yet connected.
    pub transport: Transport,
    /// Video it publishes.
    pub video: Vec<VideoEncoding>,
    /// Audio it publishes.
    pub audio: Option<AudioTrack>,
    /// Its link.
    pub link: Option<Link>,
    /// Decrypt one packet of this many.
    pub decrypt_every: u32,
    /// Tells how far it is.
    pub progress: watch::Sender<Progress>,
    /// Where a few protected packets go, to be replayed by strangers.
    pub capture: Option<Arc<Capture>>,
}

/// A client at work.
pub struct Peer {
    plan: PeerPlan,
    path: Option<Path>,
    streams: BTreeMap<u32, Stream>,
    repeats: BTreeMap<u32, u32>,
    audio_nack: bool,
    tally: Tally,
    transport_sequence: u16,
    sent: VecDeque<(u32, u16, Vec<u8>)>,
    arrivals: Vec<Arrival>,
    arrival_unwrapper: SequenceUnwrapper,
    arrival_base: u64,
    feedbacks: u8,
    feedback_due: Option<Instant>,
    report_due: Option<Instant>,
    ask_due: Option<Instant>,
    connected: bool,
    /// The deadline that the worker's timer stands at.
    pub scheduled: Option<Instant>,
}

impl Peer {
    /// A client that waits for its answer.
    #[must_use]
    pub fn new(plan: PeerPlan) -> Self {
        Self {
            tally: Tally::new(plan.label, micros_of(plan.begun)),
            plan,
            path: None,
            streams: BTreeMap::new(),
            repeats: BTreeMap::new(),
            audio_nack: false,
            transport_sequence: 0,
            sent: VecDeque::new(),
            arrivals: Vec::new(),
            arrival_unwrapper: SequenceUnwrapper::new(),
            arrival_base: 0,
            feedbacks: 0,
            feedback_due: None,
            report_due: None,
            ask_due: None,
            connected: false,
            scheduled: None,
        }
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &UdpSocket {
        &self.plan.socket
    }

    /// Counts of the measured time, for the timeline.
    pub fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// Takes the server's answer.
    pub fn handle_answer(&mut self, now: Instant, answer: &Answer) {
        self.repeats.clone_from(&answer.repeats);
        self.audio_nack = answer.audio_nack;
        let remote = RemoteParameters {
            fingerprint_sha256: answer.fingerprint.clone(),
            ufrag: answer.ufrag.clone(),
            pwd: answer.pwd.clone(),
            max_message_size: Some(65_535),
        };
        if let Err(error) = self.plan.transport.set_remote(now, remote) {
            self.end(error.to_string());
        }
        if let Some(candidate) = answer.candidate {
            self.handle_candidate(now, candidate);
        }
        self.drain(now);
    }

    /// Takes an address of the server; the first one is used.
    pub fn handle_candidate(&mut self, now: Instant, remote: SocketAddr) {
        if self.path.is_none() {
            let path = Path { protocol: Protocol::Udp, remote };
            self.path = Some(path);
            self.plan.transport.set_remote_candidate(now, path);
        }
        self.drain(now);
    }

    /// Takes a datagram from the socket; a bad link may hold it back or lose it.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        match &mut self.plan.link {
            Some(link) => link.push(now, from, datagram),
            None => self.take_datagram(now, from, datagram),
        }
    }

    fn take_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        let path = Path { protocol: Protocol::Udp, remote: from };
        match classify(datagram) {
            PacketClass::Stun => {
                // What is not authentic is dropped.
                let _ = self.plan.transport.handle_stun(now, path, datagram);
                self.drain(now);
            }
            PacketClass::Dtls => {
                self.plan.transport.handle_dtls(now, path, datagram);
                self.drain(now);
            }
            PacketClass::Rtp => self.take_rtp(now, datagram),
            PacketClass::Rtcp => self.take_rtcp(now, datagram),
            PacketClass::Unknown => {}
        }
    }

    /// Moves time on.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(mut delayed) = self.plan.link.as_mut().and_then(|link| link.pop(now)) {
            self.take_datagram(now, delayed.from, &mut delayed.datagram);
        }
        if self.plan.transport.poll_timeout().is_some_and(|due| due <= now) {
            self.plan.transport.handle_timeout(now);
            self.drain(now);
        }
        if !self.connected {
            return;
        }
        self.send_media(now);
        if self.feedback_due.is_some_and(|due| due <= now) {
            self.feedback_due = None;
            self.send_feedback();
        }
        if self.ask_due.is_some_and(|due| due <= now) {
            self.ask(now);
        }
        if self.report_due.is_some_and(|due| due <= now) {
            self.report_due = Some(now + REPORT_INTERVAL);
            self.send_reports(now);
        }
    }

    /// When [`Peer::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let link = self.plan.link.as_ref().and_then(Link::poll_timeout);
        let mut first = [link, self.plan.transport.poll_timeout()].into_iter().flatten().min();
        if self.connected {
            let video = self.plan.video.iter().map(|encoding| encoding.stream.due);
            let audio = self.plan.audio.as_ref().map(|track| track.stream.due);
            let timers = [self.feedback_due, self.ask_due, self.report_due];
            first = video.chain(audio).chain(timers.into_iter().flatten()).chain(first).min();
        }
        first
    }

    /// Begins to measure anew.
    pub fn reset(&mut self, now: Instant) {
        self.streams.values_mut().for_each(|stream| stream.reset(now));
        self.tally.reset();
    }

    /// What it noticed.
    #[must_use]
    pub fn report(&self, now: Instant) -> PeerReport {
        let mut report = self.tally.report();
        for stream in self.streams.values() {
            report.add(stream.kind, &stream.final_counts(now));
        }
        if let Some(link) = &self.plan.link {
            report.link_lost = link.lost.0 + link.lost.1;
        }
        report
    }

    /// Says goodbye to the server.
    pub fn close(&mut self, now: Instant) {
        self.plan.transport.close(now);
        self.drain(now);
    }

    fn end(&mut self, reason: String) {
        self.connected = false;
        self.plan.progress.send_replace(Progress::Ended(reason));
    }

    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.plan.transport.poll_output() {
            match output {
                Output::Transmit { path, datagram } => self.transmit(path.remote, &datagram),
                Output::Event(TransportEvent::Connected { .. }) => self.connect(now),
                Output::Event(TransportEvent::Failed(reason)) => {
                    self.end(format!("transport failed: {reason}"));
                }
                Output::Event(TransportEvent::Closed) => {
                    self.end("the server closed the transport".to_owned());
                }
                Output::Event(_) => {}
            }
        }
    }

    fn connect(&mut self, now: Instant) {
        self.connected = true;
        self.tally.connected_micros = Some(now_micros());
        self.report_due = Some(now + REPORT_INTERVAL);
        let video = self.plan.video.iter_mut().map(|encoding| &mut encoding.stream);
        for stream in video.chain(self.plan.audio.as_mut().map(|track| &mut track.stream)) {
            stream.start(now);
        }
        self.plan.progress.send_replace(Progress::Connected);
    }

    fn transmit(&self, remote: SocketAddr, datagram: &[u8]) {
        // A full buffer is loss, as on any link.
        let _ = SockRef::from(&self.plan.socket).send_to(datagram, &remote.into());
    }

    fn take_rtp(&mut self, now: Instant, datagram: &mut [u8]) {
        let Ok(view) = RtpView::parse_protected(datagram) else { return };
        let (ssrc, sequence) = (view.ssrc(), view.sequence());
        let (timestamp, payload_type) = (view.timestamp(), view.payload_type());
        let transport_sequence = view
            .extension(extension_id::TRANSPORT_CC)
            .and_then(headwater_rtp::extension::parse_transport_cc);
        let header_len = view.header_len();
        let is_repeat = [payload_type::VP8_RTX, payload_type::H264_RTX].contains(&payload_type);
        // Padding alone is no media; whatever is longer than padding can be carries some.
        let may_be_padding =
            datagram[0] & 0x20 != 0 && datagram.len() <= header_len + PADDING_ONLY_MAX;
        let needs_payload = may_be_padding
            || is_repeat
            || self.streams.get(&ssrc).is_none_or(Stream::needs_keyframe);
        let mut plain = None;
        if self.tally.is_sample(self.plan.decrypt_every, needs_payload) {
            match self.plan.transport.unprotect_rtp(now, datagram) {
                Ok(len) => plain = Some(len),
                Err(_) => return self.tally.undecryptable += 1,
            }
        }
        if let Some(sequence) = transport_sequence {
            self.note_arrival(now, sequence);
        }
        let plain = plain.map(|len| &datagram[..len]);
        if is_repeat {
            self.take_repeat(now, ssrc, plain, header_len);
        } else {
            self.take_media(now, Media { ssrc, sequence, timestamp, payload_type }, plain);
        }
    }

    fn take_repeat(&mut self, now: Instant, ssrc: u32, plain: Option<&[u8]>, header_len: usize) {
        let media = self.repeats.get(&ssrc).copied();
        let only = || {
            let mut video = self.streams.iter().filter(|(_, stream)| stream.kind == Kind::Video);
            video.next().filter(|_| video.next().is_none()).map(|(ssrc, _)| *ssrc)
        };
        let Some(media) = media.or_else(only) else { return };
        let Some(view) = plain.and_then(|plain| RtpView::parse(plain).ok()) else { return };
        if view.is_padding_only() || view.header_len() != header_len {
            return;
        }
        let Some((sequence, payload)) = rtx::parse(view.payload()) else { return };
        let Some(stream) = self.streams.get_mut(&media) else { return };
        if stream.recover(now, sequence) {
            self.tally.take(now, payload.len());
        }
    }

    fn take_media(&mut self, now: Instant, media: Media, plain: Option<&[u8]>) {
        let kind = if media.payload_type == payload_type::OPUS { Kind::Audio } else { Kind::Video };
        if !self.streams.contains_key(&media.ssrc) && self.streams.len() >= STREAMS_MAX {
            return;
        }
        let stream = self.streams.entry(media.ssrc).or_insert_with(|| Stream::new(kind, now));
        let view = plain.and_then(|plain| RtpView::parse(plain).ok());
        let payload = view.as_ref().map(RtpView::payload);
        if payload.is_some_and(|payload| is_keyframe(media.payload_type, payload)) {
            stream.keyframe();
            self.tally.first_keyframe.get_or_insert_with(now_micros);
        }
        let fresh = stream.receive(now, media.sequence, media.timestamp);
        if stream.has_missing() || stream.needs_keyframe() {
            self.ask_due.get_or_insert(now);
        }
        if view.is_some_and(|view| view.is_padding_only()) || !fresh {
            return;
        }
        self.tally.take(now, payload.map_or(0, <[u8]>::len));
        if let Some(stamp) = payload.and_then(Stamp::read) {
            self.tally.take_stamp(now, kind, stamp);
        }
    }

    fn note_arrival(&mut self, now: Instant, sequence: u16) {
        let sequence = self.arrival_unwrapper.unwrap(sequence);
        let at = Duration::from_micros(micros_of(now));
        self.arrivals.push(Arrival { sequence, at });
        if self.arrivals.len() >= ARRIVALS_MAX {
            self.send_feedback();
        }
        self.feedback_due.get_or_insert(now + FEEDBACK_INTERVAL);
    }

    fn take_rtcp(&mut self, now: Instant, datagram: &mut [u8]) {
        let Ok(len) = self.plan.transport.unprotect_rtcp(datagram) else { return };
        for packet in Compound::new(&datagram[..len]).flatten() {
            match packet {
                RtcpPacket::PictureLossIndication(request) => {
                    self.request_keyframe(request.media_ssrc);
                }
                RtcpPacket::FullIntraRequest(request) => {
                    request.entries().for_each(|entry| self.request_keyframe(entry.ssrc));
                }
                RtcpPacket::SenderReport(report) => {
                    if let Some(stream) = self.streams.get_mut(&report.info.ssrc) {
                        stream.sender_report(now, report.info.ntp.compact());
                    }
                }
                RtcpPacket::Nack(nack) => {
                    for sequence in nack.lost() {
                        self.send_again(nack.media_ssrc, sequence);
                    }
                }
                RtcpPacket::ReceiverReport(_)
                | RtcpPacket::SourceDescription(_)
                | RtcpPacket::Goodbye(_)
                | RtcpPacket::Remb(_)
                | RtcpPacket::TransportFeedback(_)
                | RtcpPacket::Other { .. } => {}
            }
        }
    }

    fn request_keyframe(&mut self, ssrc: u32) {
        for encoding in self.plan.video.iter_mut().filter(|one| one.stream.ssrc == ssrc) {
            encoding.request_keyframe();
            self.tally.keyframe_requests += 1;
        }
    }

    /// Under AES-GCM a packet may be sent again only as it was: so it is kept protected.
    fn send_again(&mut self, ssrc: u32, sequence: u16) {
        let Some(path) = self.path else { return };
        let packet = self.sent.iter().find(|sent| (sent.0, sent.1) == (ssrc, sequence));
        if let Some((_, _, datagram)) = packet {
            self.transmit(path.remote, datagram);
        }
    }

    fn send_media(&mut self, now: Instant) {
        let mut out = [0; 1500];
        let mut video = std::mem::take(&mut self.plan.video);
        for encoding in &mut video {
            while encoding.stream.due <= now {
                let late = LATE.min(encoding.interval / 2);
                self.note_lateness(now, encoding.stream.due, late);
                for index in 0..encoding.begin_frame() {
                    if let Some(lens) = encoding.packet(index, self.transport_sequence, &mut out) {
                        self.send_rtp(&mut out, lens);
                    }
                }
                encoding.stream.due += encoding.interval;
                if now.saturating_duration_since(encoding.stream.due) > BEHIND_MAX {
                    self.tally.frames_left_out += 1;
                    encoding.stream.due = now + encoding.interval;
                }
            }
        }
        self.plan.video = video;
        let Some(mut audio) = self.plan.audio.take() else { return };
        while audio.stream.due <= now {
            self.note_lateness(now, audio.stream.due, LATE);
            if let Some(lens) = audio.packet(self.transport_sequence, &mut out) {
                self.send_rtp(&mut out, lens);
            }
            audio.stream.due += AUDIO_INTERVAL;
            if now.saturating_duration_since(audio.stream.due) > BEHIND_MAX {
                self.tally.frames_left_out += 1;
                audio.stream.due = now + AUDIO_INTERVAL;
            }
        }
        self.plan.audio = Some(audio);
    }

    fn note_lateness(&mut self, now: Instant, due: Instant, late: Duration) {
        self.tally.frames += 1;
        self.tally.late_frames += u64::from(now.saturating_duration_since(due) > late);
    }

    fn send_rtp(&mut self, out: &mut [u8], (header_len, len): (usize, usize)) {
        let Some(path) = self.path else { return };
        let room = &mut out[..len + SRTP_OVERHEAD_MAX];
        let (ssrc, sequence) = match RtpView::parse(&room[..len]) {
            Ok(view) => (view.ssrc(), view.sequence()),
            Err(_) => return,
        };
        self.transport_sequence = self.transport_sequence.wrapping_add(1);
        let Ok(len) = self.plan.transport.protect_rtp(room, header_len, len) else { return };
        self.transmit(path.remote, &room[..len]);
        self.tally.packets_sent += 1;
        if let Some(capture) = &self.plan.capture {
            capture.offer(path.remote, &room[..len]);
        }
        let mut kept = if self.sent.len() >= SENT_MAX {
            self.sent.pop_front().map(|(_, _, buffer)| buffer).unwrap_or_default()
        } else {
            Vec::new()
        };
        kept.clear();
        kept.extend_from_slice(&room[..len]);
        self.sent.push_back((ssrc, sequence, kept));
    }
}

#[derive(Clone, Copy)]
struct Media {
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    payload_type: u8,
}

fn is_keyframe(payload_type: u8, payload: &[u8]) -> bool {
    match payload_type {
        payload_type::VP8 => vp8::Vp8Descriptor::parse(payload)
            .is_ok_and(|descriptor| descriptor.is_keyframe_start(payload)),
        payload_type::H264 => h264::is_keyframe_start(payload),
        _ => false,
    }
}
