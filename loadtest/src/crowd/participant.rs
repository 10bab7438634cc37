//! The signalling half of a client of a crowd: it joins, offers, answers what the
//! server asks for, and hands its transport to a worker thread.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use headwater_net::UdpSocket;
use headwater_transport::{DtlsIdentity, IceCredentials, Transport, TransportConfig};
use livekit_protocol as proto;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::media::{AudioTrack, EncodingPlan, Outgoing, VideoEncoding};
use super::peer::{PeerPlan, Progress};
use super::worker::{Capture, Order, Worker};
use crate::description::{LocalSide, RIDS, Section, offer, read_answer, trickled};
use crate::http_door;
use crate::impairment::Link;
use crate::scenario::{Audio, Codec, Impairment, Transport as Door, Video, View};
use crate::signal::{JoinOptions, Signal};

/// A join that takes longer has failed.
const JOIN_LIMIT: Duration = Duration::from_secs(30);
/// Sections of one kind in the first offer, which travels in an address; the rest comes
/// in the next offer.
const FIRST_SECTIONS_MAX: usize = 16;
/// Sections that a client ever offers.
const SECTIONS_MAX: usize = 2_000;
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Who joins, and what for.
pub struct Participant {
    /// Number of the client in this run.
    pub id: u64,
    /// Kind of client, an index into the labels of the run.
    pub label: usize,
    /// Signalling address.
    pub url: String,
    /// Signed token.
    pub token: String,
    /// Audio to publish.
    pub audio: Option<Audio>,
    /// Video to publish.
    pub video: Option<Video>,
    /// Tracks expected to be received: audio, video.
    pub receive: (usize, usize),
    /// How it comes in.
    pub transport: Door,
    /// Size asked for each video.
    pub view: Option<View>,
    /// Its link.
    pub impairment: Option<Impairment>,
    /// Everything random follows from it.
    pub seed: u64,
    /// Decrypt one packet of this many.
    pub decrypt_every: u32,
    /// Its socket for media.
    pub socket: UdpSocket,
    /// Where a few protected packets go.
    pub capture: Option<Arc<Capture>>,
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

/// Joins and stays until told to leave. An error is why it failed or ended early.
///
/// # Errors
/// If the server refuses, does not answer in time, or ends the session.
pub async fn take_part(
    participant: Participant,
    worker: Worker,
    leave: CancellationToken,
    progress: watch::Sender<Progress>,
) -> anyhow::Result<()> {
    let id = participant.id;
    let watcher = progress.subscribe();
    let begun = Instant::now();
    let limit = begun + JOIN_LIMIT;
    let outcome = match participant.transport {
        Door::Livekit => {
            let joining = Session::join(participant, worker.clone(), progress, begun);
            tokio::select! {
                () = leave.cancelled() => Ok(()),
                joined = tokio::time::timeout(JOIN_LIMIT, joining) => {
                    match joined.context("the join took too long") {
                        Ok(Ok(session)) => session.run(watcher, leave, limit).await,
                        Ok(Err(error)) | Err(error) => Err(error),
                    }
                }
            }
        }
        Door::Whip | Door::Whep => {
            let opening = by_http(participant, worker.clone(), progress, begun);
            match tokio::time::timeout(JOIN_LIMIT, opening).await.context("the join took too long")
            {
                Ok(Ok(door)) => {
                    let stayed = stay(watcher, leave, limit).await;
                    // Why it ended early is worth more than whether it was closed well.
                    let closed = door.close().await;
                    stayed.and(closed)
                }
                Ok(Err(error)) | Err(error) => Err(error),
            }
        }
    };
    worker.order(Order::Remove(id));
    outcome
}

/// What a client says of itself before it knows the server.
struct Side {
    identity: Arc<DtlsIdentity>,
    credentials: IceCredentials,
    local: LocalSide,
}

impl Side {
    fn new() -> anyhow::Result<Self> {
        let identity = identity()?;
        let token = || format!("{:016x}", rand::random::<u64>());
        let credentials = IceCredentials { ufrag: token(), pwd: token() + &token() };
        let local = LocalSide {
            ufrag: credentials.ufrag.clone(),
            pwd: credentials.pwd.clone(),
            fingerprint: identity.fingerprint().to_owned(),
        };
        Ok(Self { identity, credentials, local })
    }

    fn plan(
        self,
        participant: Participant,
        sections: &[Section],
        progress: watch::Sender<Progress>,
        begun: Instant,
    ) -> PeerPlan {
        let now = Instant::now();
        let config = TransportConfig::client(self.identity, self.credentials, rand::random());
        let (video, audio) = sources(&participant, sections, now);
        PeerPlan {
            label: participant.label,
            begun,
            socket: participant.socket,
            transport: Transport::new(now, config),
            video,
            audio,
            link: participant.impairment.map(|link| Link::new(link, participant.seed, now)),
            decrypt_every: participant.decrypt_every,
            progress,
            capture: participant.capture,
        }
    }
}

/// Comes in by WHIP or WHEP.
async fn by_http(
    participant: Participant,
    worker: Worker,
    progress: watch::Sender<Progress>,
    begun: Instant,
) -> anyhow::Result<http_door::Door> {
    let side = Side::new()?;
    let (mut sections, _) = sections(&participant);
    sections.retain(|section| *section != Section::Data);
    let path = if participant.transport == Door::Whip { "whip" } else { "whep" };
    let offer = offer(&side.local, &sections);
    let (url, token, id) = (participant.url.clone(), participant.token.clone(), participant.id);
    let (door, answer) = http_door::Door::open(&url, path, &token, offer).await?;
    worker.order(Order::Add(id, Box::new(side.plan(participant, &sections, progress, begun))));
    worker.order(Order::Answer(id, Box::new(read_answer(&answer)?)));
    Ok(door)
}

/// Until it is told to leave, or its transport ends.
async fn stay(
    mut progress: watch::Receiver<Progress>,
    leave: CancellationToken,
    limit: Instant,
) -> anyhow::Result<()> {
    let late = tokio::time::sleep_until(limit.into());
    tokio::pin!(late);
    loop {
        let connected = *progress.borrow() == Progress::Connected;
        tokio::select! {
            () = leave.cancelled() => return Ok(()),
            changed = progress.changed() => {
                changed.context("the worker ended")?;
                if let Progress::Ended(reason) = &*progress.borrow() {
                    bail!("{reason}");
                }
            }
            () = &mut late, if !connected => bail!("the transport did not connect in time"),
        }
    }
}

struct Session {
    id: u64,
    signal: Signal,
    worker: Worker,
    local: LocalSide,
    sections: Vec<Section>,
    offers: u32,
    view: Option<View>,
    /// Sections that are expected to be needed and not offered yet: audio, video.
    later: (usize, usize),
}

impl Session {
    async fn join(
        participant: Participant,
        worker: Worker,
        progress: watch::Sender<Progress>,
        begun: Instant,
    ) -> anyhow::Result<Self> {
        let side = Side::new()?;
        let (sections, tracks) = sections(&participant);
        let (signal, join) = Signal::join(JoinOptions {
            url: participant.url.clone(),
            token: participant.token.clone(),
            offer: offer(&side.local, &sections),
            tracks,
            auto_subscribe: participant.receive != (0, 0),
        })
        .await?;
        let (id, view, receive) = (participant.id, participant.view, participant.receive);
        let local = side.local.clone();
        worker.order(Order::Add(id, Box::new(side.plan(participant, &sections, progress, begun))));
        let later = |count: usize| count.saturating_sub(FIRST_SECTIONS_MAX);
        let mut session = Self {
            id,
            signal,
            worker,
            local,
            sections,
            offers: 1,
            view,
            later: (later(receive.0), later(receive.1)),
        };
        session.ask_for_size(&join.other_participants).await?;
        Ok(session)
    }

    async fn run(
        mut self,
        mut progress: watch::Receiver<Progress>,
        leave: CancellationToken,
        limit: Instant,
    ) -> anyhow::Result<()> {
        let mut pings = tokio::time::interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let late = tokio::time::sleep_until(limit.into());
        tokio::pin!(late);
        loop {
            let connected = *progress.borrow() == Progress::Connected;
            tokio::select! {
                () = leave.cancelled() => break,
                message = self.signal.next() => self.handle(message?).await?,
                changed = progress.changed() => {
                    changed.context("the worker ended")?;
                    if let Progress::Ended(reason) = &*progress.borrow() {
                        bail!("{reason}");
                    }
                }
                () = &mut late, if !connected => bail!("the transport did not connect in time"),
                _ = pings.tick() => {
                    let ping = proto::Ping { timestamp: 0, rtt: 0 };
                    self.signal.send(Request::PingReq(ping)).await?;
                }
            }
        }
        self.signal.leave().await;
        Ok(())
    }

    async fn handle(&mut self, message: Response) -> anyhow::Result<()> {
        match message {
            Response::Answer(description) => {
                let answer = read_answer(&description.sdp)?;
                self.worker.order(Order::Answer(self.id, Box::new(answer)));
                let (audio, video) = std::mem::take(&mut self.later);
                if audio + video > 0 {
                    self.offer_more(audio, video).await?;
                }
            }
            Response::Trickle(trickle) => {
                if let Some(candidate) = trickled(&trickle) {
                    self.worker.order(Order::Candidate(self.id, candidate));
                }
            }
            Response::MediaSectionsRequirement(wanted) => {
                self.offer_more(wanted.num_audios as usize, wanted.num_videos as usize).await?;
            }
            Response::Update(update) => self.ask_for_size(&update.participants).await?,
            Response::Leave(leave) => bail!("the server ended the session: {:?}", leave.reason()),
            _ => {}
        }
        Ok(())
    }

    async fn offer_more(&mut self, audio: usize, video: usize) -> anyhow::Result<()> {
        // Each count comes from the server and may be anything.
        let more = audio.saturating_add(video);
        if self.sections.len().saturating_add(more) > SECTIONS_MAX {
            bail!("{more} more media sections are wanted, beyond {SECTIONS_MAX}");
        }
        self.sections.extend((0..audio).map(|_| Section::ReceiveAudio));
        self.sections.extend((0..video).map(|_| Section::ReceiveVideo));
        self.offers += 1;
        let description = proto::SessionDescription {
            r#type: "offer".to_owned(),
            sdp: offer(&self.local, &self.sections),
            id: self.offers,
            ..Default::default()
        };
        self.signal.send(Request::Offer(description)).await
    }

    /// Tells how large the others' videos are on this client's screen.
    async fn ask_for_size(&mut self, others: &[proto::ParticipantInfo]) -> anyhow::Result<()> {
        let Some(view) = self.view else { return Ok(()) };
        let tracks = others.iter().flat_map(|other| &other.tracks);
        let track_sids: Vec<String> = tracks
            .filter(|track| track.r#type() == proto::TrackType::Video)
            .map(|track| track.sid.clone())
            .collect();
        if track_sids.is_empty() {
            return Ok(());
        }
        let settings = proto::UpdateTrackSettings {
            track_sids,
            width: view.width,
            height: view.height,
            ..Default::default()
        };
        self.signal.send(Request::TrackSetting(settings)).await
    }
}

fn sections(participant: &Participant) -> (Vec<Section>, Vec<proto::AddTrackRequest>) {
    let mut sections = Vec::new();
    let mut tracks = Vec::new();
    if let Some(audio) = participant.audio {
        sections.push(Section::SendAudio { cid: "audio".to_owned(), ssrc: rand::random() });
        tracks.push(proto::AddTrackRequest {
            cid: "audio".to_owned(),
            name: "audio".to_owned(),
            r#type: proto::TrackType::Audio.into(),
            source: proto::TrackSource::Microphone.into(),
            audio_features: if audio.dtx {
                Vec::new()
            } else {
                vec![proto::AudioTrackFeature::TfNoDtx.into()]
            },
            ..Default::default()
        });
    }
    if let Some(video) = &participant.video {
        let cid = "video".to_owned();
        let ssrcs = video.layers.iter().map(|_| rand::random()).collect();
        sections.push(match video.codec {
            Codec::Vp8 => Section::SendVideo { cid, ssrcs },
            Codec::H264 => Section::SendH264 { cid, ssrcs },
        });
        tracks.push(video_track(video));
    }
    let expected = |count: usize| count.min(FIRST_SECTIONS_MAX);
    sections.extend((0..expected(participant.receive.0)).map(|_| Section::ReceiveAudio));
    sections.extend((0..expected(participant.receive.1)).map(|_| Section::ReceiveVideo));
    sections.push(Section::Data);
    (sections, tracks)
}

fn video_track(video: &Video) -> proto::AddTrackRequest {
    let qualities =
        [proto::VideoQuality::Low, proto::VideoQuality::Medium, proto::VideoQuality::High];
    let largest = video.layers.last();
    let layers = video.layers.iter().zip(&qualities[3 - video.layers.len().min(3)..]);
    let codec = match video.codec {
        Codec::Vp8 => "vp8",
        Codec::H264 => "h264",
    };
    proto::AddTrackRequest {
        cid: "video".to_owned(),
        name: "video".to_owned(),
        r#type: proto::TrackType::Video.into(),
        source: proto::TrackSource::Camera.into(),
        width: largest.map_or(0, |layer| layer.width),
        height: largest.map_or(0, |layer| layer.height),
        layers: layers
            .map(|(layer, quality)| proto::VideoLayer {
                quality: (*quality).into(),
                width: layer.width,
                height: layer.height,
                bitrate: (layer.bitrate_kbps.unwrap_or_default() * 1000.0) as u32,
                ..Default::default()
            })
            .collect(),
        simulcast_codecs: vec![proto::SimulcastCodec {
            codec: codec.to_owned(),
            cid: "video".to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn sources(
    participant: &Participant,
    sections: &[Section],
    now: Instant,
) -> (Vec<VideoEncoding>, Option<AudioTrack>) {
    let source = participant.id as u32;
    let mut encodings = Vec::new();
    let mut track = None;
    for (mid, section) in sections.iter().enumerate() {
        match (section, participant.audio, &participant.video) {
            (Section::SendAudio { ssrc, .. }, Some(audio), _) => {
                let stream = Outgoing::new(*ssrc, mid, source, now);
                track = Some(AudioTrack::new(stream, audio, participant.seed));
            }
            (
                Section::SendVideo { ssrcs, .. } | Section::SendH264 { ssrcs, .. },
                _,
                Some(video),
            ) => {
                for (layer, (ssrc, settings)) in ssrcs.iter().zip(&video.layers).enumerate() {
                    let plan = EncodingPlan {
                        settings: *settings,
                        codec: video.codec,
                        keyframe_factor: video.keyframe_factor,
                        keyframe_every: video.keyframe_seconds.map(Duration::from_secs_f64),
                        layer: layer as u8,
                        rid: (ssrcs.len() > 1).then(|| RIDS[layer.min(RIDS.len() - 1)]),
                    };
                    let stream = Outgoing::new(*ssrc, mid, source, now);
                    encodings.push(VideoEncoding::new(stream, plan));
                }
            }
            _ => {}
        }
    }
    (encodings, track)
}
