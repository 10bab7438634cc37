//! One native participant: signalling, one transport over a UDP socket of its
//! own, media out and in. It runs as a task until it leaves.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use headwater_rtp::rtcp::CompoundWriter;
use headwater_rtp::{RtpView, vp8};
use headwater_transport::{
    DtlsIdentity, IceCredentials, Output, PacketClass, Path, Protocol, RemoteParameters,
    SRTP_OVERHEAD_MAX, Transport, TransportConfig, TransportEvent, classify,
};
use livekit_protocol as proto;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::description::{
    Answer, LocalSide, RIDS, Section, offer, payload_type, read_answer, trickled,
};
use crate::signal::{JoinOptions, Signal};
use crate::sink::Sink;
use crate::source::{AudioSource, VideoSource, now_micros};

/// Video to publish.
#[derive(Debug, Clone, Copy)]
pub struct Video {
    /// Frames per second.
    pub frame_rate: f64,
    /// Packets of each frame of the largest encoding.
    pub packets_per_frame: usize,
    /// Payload bytes of each packet.
    pub payload_bytes: usize,
    /// Encodings: 1, or 3 for simulcast.
    pub layers: usize,
}

/// Sections offered to receive on from the beginning.
#[derive(Debug, Clone, Copy, Default)]
pub struct Receive {
    /// Audio tracks.
    pub audio: usize,
    /// Video tracks.
    pub video: usize,
}

/// What a client does.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Server address.
    pub url: String,
    /// Signed token.
    pub token: String,
    /// Video to publish.
    pub video: Option<Video>,
    /// Publish audio.
    pub audio: bool,
    /// What to receive.
    pub receive: Receive,
}

/// What a client noticed so far.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// When the join began, by [`now_micros`].
    pub begun_micros: u64,
    /// When the transport was connected.
    pub connected_micros: Option<u64>,
    /// What arrived.
    pub sink: Sink,
    /// Frames sent, and how many of them late.
    pub frames: (u64, u64),
}

/// A participant at work.
pub struct Client {
    observed: Arc<Mutex<Observed>>,
    connected: watch::Receiver<bool>,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

fn lock(observed: &Mutex<Observed>) -> MutexGuard<'_, Observed> {
    observed.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One certificate for all clients: making one for each would measure us, not the server.
fn identity() -> anyhow::Result<Arc<DtlsIdentity>> {
    static IDENTITY: OnceLock<Arc<DtlsIdentity>> = OnceLock::new();
    if let Some(identity) = IDENTITY.get() {
        return Ok(Arc::clone(identity));
    }
    let identity = DtlsIdentity::generate().context("make a certificate")?;
    Ok(Arc::clone(IDENTITY.get_or_init(|| identity)))
}

impl Client {
    /// Joins; answers when the server has accepted. Media comes up in the background.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn join(config: ClientConfig) -> anyhow::Result<Self> {
        let begun_micros = now_micros();
        let observed = Arc::new(Mutex::new(Observed { begun_micros, ..Observed::default() }));
        let (connected_sender, connected) = watch::channel(false);
        let stop = CancellationToken::new();
        let worker = Worker::begin(config, Arc::clone(&observed), connected_sender).await?;
        let task = tokio::spawn(worker.run(stop.clone()));
        Ok(Self { observed, connected, stop, task })
    }

    /// Waits until the transport is connected.
    ///
    /// # Errors
    /// If it is not within `limit`.
    pub async fn connected(&self, limit: Duration) -> anyhow::Result<()> {
        let mut connected = self.connected.clone();
        tokio::time::timeout(limit, connected.wait_for(|connected| *connected))
            .await
            .context("the transport did not connect in time")?
            .context("the client ended")?;
        Ok(())
    }

    /// What it noticed so far.
    #[must_use]
    pub fn observed(&self) -> Observed {
        lock(&self.observed).clone()
    }

    /// Begins to measure anew.
    pub fn reset(&self) {
        let mut observed = lock(&self.observed);
        observed.sink.reset();
        observed.frames = (0, 0);
    }

    /// Frames sent since the last reset, and how many of them late.
    #[must_use]
    pub fn frames_sent(&self) -> (u64, u64) {
        lock(&self.observed).frames
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    /// Leaves and waits for the end.
    ///
    /// # Errors
    /// If the client had ended before, and why.
    pub async fn leave(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.task.await.context("the client's task failed")?
    }
}

struct Worker {
    signal: Signal,
    socket: UdpSocket,
    transport: Transport,
    local: LocalSide,
    sections: Vec<Section>,
    offers: u32,
    path: Option<Path>,
    video: Vec<VideoSource>,
    video_interval: Duration,
    audio: Option<AudioSource>,
    begun: Instant,
    observed: Arc<Mutex<Observed>>,
    connected: watch::Sender<bool>,
    receive_ssrc: Option<u32>,
}

impl Worker {
    async fn begin(
        config: ClientConfig,
        observed: Arc<Mutex<Observed>>,
        connected: watch::Sender<bool>,
    ) -> anyhow::Result<Self> {
        let identity = identity()?;
        let token = || format!("{:016x}", rand::random::<u64>());
        let credentials = IceCredentials { ufrag: token(), pwd: token() + &token() };
        let local = LocalSide {
            ufrag: credentials.ufrag.clone(),
            pwd: credentials.pwd.clone(),
            fingerprint: identity.fingerprint().to_owned(),
        };
        let (sections, tracks) = sections(&config);
        let (video, audio) = sources(&config, &sections);
        let (signal, _) = Signal::join(JoinOptions {
            url: config.url.clone(),
            token: config.token.clone(),
            offer: offer(&local, &sections),
            tracks,
            auto_subscribe: config.receive.audio + config.receive.video > 0,
        })
        .await?;
        let transport = Transport::new(
            Instant::now(),
            TransportConfig::client(identity, credentials, rand::random()),
        );
        let frame_rate = config.video.map_or(1.0, |video| video.frame_rate.max(0.1));
        Ok(Self {
            signal,
            socket: UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?,
            transport,
            local,
            sections,
            offers: 1,
            path: None,
            video,
            video_interval: Duration::from_secs_f64(1.0 / frame_rate),
            audio,
            begun: Instant::now(),
            observed,
            connected,
            receive_ssrc: None,
        })
    }

    async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut buffer = vec![0; 65_536];
        let mut video = tokio::time::interval(self.video_interval);
        let mut audio = tokio::time::interval(Duration::from_millis(20));
        let mut reports = tokio::time::interval(Duration::from_secs(1));
        let mut pings = tokio::time::interval(Duration::from_secs(5));
        for ticks in [&mut video, &mut audio, &mut reports, &mut pings] {
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        }
        loop {
            self.drain().await?;
            let deadline = self
                .transport
                .poll_timeout()
                .unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
            let media = *self.connected.borrow();
            tokio::select! {
                () = stop.cancelled() => break,
                message = self.signal.next() => self.handle_signal(message?).await?,
                received = self.socket.recv_from(&mut buffer) => {
                    let (len, from) = received?;
                    self.handle_datagram(from, &mut buffer[..len]);
                    // What else is there is taken at once: one wake-up, many packets.
                    while let Ok((len, from)) = self.socket.try_recv_from(&mut buffer) {
                        self.handle_datagram(from, &mut buffer[..len]);
                    }
                }
                () = tokio::time::sleep_until(deadline.into()) => self.transport.handle_timeout(Instant::now()),
                due = video.tick(), if media && !self.video.is_empty() => self.send_frame(due.into_std()).await?,
                _ = audio.tick(), if media && self.audio.is_some() => self.send_audio().await?,
                _ = reports.tick(), if media => self.send_report().await?,
                _ = pings.tick() => {
                    let ping = proto::Ping { timestamp: 0, rtt: 0 };
                    self.signal.send(Request::PingReq(ping)).await?;
                }
            }
        }
        // In the order of a browser: first the word, then the transport.
        self.signal.leave().await;
        self.transport.close(Instant::now());
        while let Some(output) = self.transport.poll_output() {
            if let Output::Transmit { path, datagram } = output {
                let _ = self.socket.send_to(&datagram, path.remote).await;
            }
        }
        Ok(())
    }

    async fn drain(&mut self) -> anyhow::Result<()> {
        while let Some(output) = self.transport.poll_output() {
            match output {
                Output::Transmit { path, datagram } => {
                    let _ = self.socket.send_to(&datagram, path.remote).await;
                }
                Output::Event(TransportEvent::Connected { .. }) => {
                    lock(&self.observed).connected_micros.get_or_insert(now_micros());
                    let _ = self.connected.send(true);
                }
                Output::Event(TransportEvent::Failed(reason)) => {
                    anyhow::bail!("transport failed: {reason}")
                }
                Output::Event(TransportEvent::Closed) => {
                    anyhow::bail!("the server closed the transport")
                }
                Output::Event(_) => {}
            }
        }
        Ok(())
    }

    async fn handle_signal(&mut self, message: Response) -> anyhow::Result<()> {
        match message {
            Response::Answer(description) => self.take_answer(&read_answer(&description.sdp)?)?,
            Response::MediaSectionsRequirement(wanted) => {
                self.sections.extend((0..wanted.num_audios).map(|_| Section::ReceiveAudio));
                self.sections.extend((0..wanted.num_videos).map(|_| Section::ReceiveVideo));
                self.offers += 1;
                let description = proto::SessionDescription {
                    r#type: "offer".to_owned(),
                    sdp: offer(&self.local, &self.sections),
                    id: self.offers,
                    ..Default::default()
                };
                self.signal.send(Request::Offer(description)).await?;
            }
            Response::Trickle(trickle) => {
                if let Some(candidate) = trickled(&trickle) {
                    self.take_candidate(candidate);
                }
            }
            Response::Leave(leave) => {
                anyhow::bail!("the server ended the session: {:?}", leave.reason())
            }
            _ => {}
        }
        Ok(())
    }

    fn take_answer(&mut self, answer: &Answer) -> anyhow::Result<()> {
        let now = Instant::now();
        self.receive_ssrc = answer.ssrc_by_mid.values().next().copied();
        let remote = RemoteParameters {
            fingerprint_sha256: answer.fingerprint.clone(),
            ufrag: answer.ufrag.clone(),
            pwd: answer.pwd.clone(),
            max_message_size: Some(65_535),
        };
        self.transport.set_remote(now, remote)?;
        if let Some(candidate) = answer.candidate {
            self.take_candidate(candidate);
        }
        Ok(())
    }

    fn take_candidate(&mut self, remote: SocketAddr) {
        if self.path.is_none() {
            let path = Path { protocol: Protocol::Udp, remote };
            self.path = Some(path);
            self.transport.set_remote_candidate(Instant::now(), path);
        }
    }

    fn handle_datagram(&mut self, from: SocketAddr, datagram: &mut [u8]) {
        let now = Instant::now();
        let path = Path { protocol: Protocol::Udp, remote: from };
        match classify(datagram) {
            PacketClass::Stun => drop(self.transport.handle_stun(now, path, datagram)),
            PacketClass::Dtls => self.transport.handle_dtls(now, path, datagram),
            PacketClass::Rtp => {
                let Ok(len) = self.transport.unprotect_rtp(now, datagram) else { return };
                self.take_packet(&datagram[..len]);
            }
            PacketClass::Rtcp => {
                let Ok(len) = self.transport.unprotect_rtcp(datagram) else { return };
                if asks_for_keyframe(&datagram[..len]) {
                    self.video.iter_mut().for_each(VideoSource::request_keyframe);
                }
            }
            PacketClass::Unknown => {}
        }
    }

    fn take_packet(&self, packet: &[u8]) {
        let Ok(view) = RtpView::parse(packet) else { return };
        if view.is_padding_only() || view.payload_type() == payload_type::VP8_RTX {
            return;
        }
        let payload = view.payload();
        let keyframe = view.payload_type() == payload_type::VP8
            && vp8::Vp8Descriptor::parse(payload)
                .is_ok_and(|descriptor| descriptor.is_keyframe_start(payload));
        lock(&self.observed).sink.receive(view.ssrc(), view.sequence(), payload, keyframe);
    }

    async fn send_frame(&mut self, due: Instant) -> anyhow::Result<()> {
        let late = due.elapsed() > self.video_interval / 2;
        let timestamp = (self.begun.elapsed().as_secs_f64() * 90_000.0) as u64 as u32;
        let mut video = std::mem::take(&mut self.video);
        for source in &mut video {
            for packet in source.next_frame(timestamp) {
                self.send_rtp(&packet).await;
            }
        }
        self.video = video;
        let mut observed = lock(&self.observed);
        observed.frames.0 += 1;
        observed.frames.1 += u64::from(late);
        Ok(())
    }

    async fn send_audio(&mut self) -> anyhow::Result<()> {
        let timestamp = (self.begun.elapsed().as_millis() / 20 * 960) as u32;
        if let Some(packet) = self.audio.as_mut().map(|audio| audio.next_packet(timestamp)) {
            self.send_rtp(&packet).await;
        }
        Ok(())
    }

    async fn send_rtp(&mut self, packet: &[u8]) {
        let Some(path) = self.path else { return };
        let Ok(view) = RtpView::parse(packet) else { return };
        let mut buffer = [0; 1500];
        let Some(room) = buffer.get_mut(..packet.len() + SRTP_OVERHEAD_MAX) else { return };
        room[..packet.len()].copy_from_slice(packet);
        if let Ok(len) = self.transport.protect_rtp(room, view.header_len(), packet.len()) {
            let _ = self.socket.send_to(&buffer[..len], path.remote).await;
        }
    }

    /// A receiver report without blocks: it shows that somebody is there.
    async fn send_report(&mut self) -> anyhow::Result<()> {
        let (Some(path), Some(_)) = (self.path, self.receive_ssrc) else { return Ok(()) };
        let mut buffer = [0; 256];
        let mut writer = CompoundWriter::new(&mut buffer);
        writer.receiver_report(1, &[])?;
        let len = writer.finish();
        if let Ok(len) = self.transport.protect_rtcp(&mut buffer, len) {
            let _ = self.socket.send_to(&buffer[..len], path.remote).await;
        }
        Ok(())
    }
}

fn asks_for_keyframe(compound: &[u8]) -> bool {
    use headwater_rtp::rtcp::{Compound, RtcpPacket};
    Compound::new(compound).any(|packet| {
        matches!(packet, Ok(RtcpPacket::PictureLossIndication(_) | RtcpPacket::FullIntraRequest(_)))
    })
}

fn sections(config: &ClientConfig) -> (Vec<Section>, Vec<proto::AddTrackRequest>) {
    let mut sections = Vec::new();
    let mut tracks = Vec::new();
    if config.audio {
        sections.push(Section::SendAudio { cid: "audio".to_owned(), ssrc: rand::random() });
        tracks.push(proto::AddTrackRequest {
            cid: "audio".to_owned(),
            name: "audio".to_owned(),
            r#type: proto::TrackType::Audio.into(),
            source: proto::TrackSource::Microphone.into(),
            ..Default::default()
        });
    }
    if let Some(video) = config.video {
        let ssrcs = (0..video.layers.clamp(1, 3)).map(|_| rand::random()).collect();
        sections.push(Section::SendVideo { cid: "video".to_owned(), ssrcs });
        tracks.push(video_track(video.layers.clamp(1, 3)));
    }
    sections.extend((0..config.receive.audio).map(|_| Section::ReceiveAudio));
    sections.extend((0..config.receive.video).map(|_| Section::ReceiveVideo));
    sections.push(Section::Data);
    (sections, tracks)
}

fn video_track(layers: usize) -> proto::AddTrackRequest {
    let qualities =
        [proto::VideoQuality::Low, proto::VideoQuality::Medium, proto::VideoQuality::High];
    proto::AddTrackRequest {
        cid: "video".to_owned(),
        name: "video".to_owned(),
        r#type: proto::TrackType::Video.into(),
        source: proto::TrackSource::Camera.into(),
        width: 1280,
        height: 720,
        layers: qualities[3 - layers..]
            .iter()
            .enumerate()
            .map(|(index, quality)| proto::VideoLayer {
                quality: (*quality).into(),
                width: 1280 >> (layers - 1 - index),
                height: 720 >> (layers - 1 - index),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

fn sources(config: &ClientConfig, sections: &[Section]) -> (Vec<VideoSource>, Option<AudioSource>) {
    let mut video = Vec::new();
    let mut audio = None;
    for (mid, section) in sections.iter().enumerate() {
        let mid = mid.to_string();
        match (section, config.video) {
            (Section::SendAudio { ssrc, .. }, _) => audio = Some(AudioSource::new(*ssrc, &mid)),
            (Section::SendVideo { ssrcs, .. }, Some(shape)) => {
                for (index, ssrc) in ssrcs.iter().enumerate() {
                    let rid = (ssrcs.len() > 1).then(|| RIDS[index]);
                    let packets = (shape.packets_per_frame >> (ssrcs.len() - 1 - index)).max(1);
                    video.push(VideoSource::new(*ssrc, &mid, rid, packets, shape.payload_bytes));
                }
            }
            _ => {}
        }
    }
    (video, audio)
}
