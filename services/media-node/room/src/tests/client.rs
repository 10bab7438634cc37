//! A client for tests: it has peer connections whose sections are kept in
//! order, offers and answers as browsers do, and reads what it is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_model::media::{MediaKind, TrackSource, TransportKey};
use headwater_model::{ParticipantUid, TrackUid};
use headwater_sdp::{Description, Direction, SectionKind};

use super::world::{World, join_request};
use crate::*;

pub(super) struct Client {
    pub(super) session: SessionKey,
    pub(super) uid: ParticipantUid,
    pub(super) identity: String,
    pub(super) mode: TransportMode,
    pub(super) sections: Vec<Section>,
    pub(super) ufrag: String,
    fingerprint: String,
    offer_id: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Section {
    pub(super) kind: Option<MediaKind>,
    pub(super) direction: Direction,
    pub(super) media_id: String,
    pub(super) simulcast: bool,
}

impl Section {
    pub(super) fn data() -> Self {
        Self {
            kind: None,
            direction: Direction::SendRecv,
            media_id: String::new(),
            simulcast: false,
        }
    }

    pub(super) fn receiving(kind: MediaKind) -> Self {
        Self {
            kind: Some(kind),
            direction: Direction::RecvOnly,
            media_id: String::new(),
            simulcast: false,
        }
    }

    pub(super) fn sending(kind: MediaKind, media_id: &str) -> Self {
        Self {
            kind: Some(kind),
            direction: Direction::SendOnly,
            media_id: media_id.to_owned(),
            simulcast: kind == MediaKind::Video,
        }
    }
}

pub(super) fn microphone(id: &str) -> AddTrack {
    AddTrack {
        client_track_id: id.to_owned(),
        kind: Some(MediaKind::Audio),
        source: TrackSource::Microphone,
        display_name: "mic".to_owned(),
        muted: false,
        width: 0,
        height: 0,
        layers: Vec::new(),
        codecs: Vec::new(),
        stereo: false,
        disable_red: false,
        disable_dtx: false,
        track: None,
        encrypted: false,
        stream: String::new(),
        door_payload: Arc::from(&[][..]),
    }
}

pub(super) fn camera(id: &str) -> AddTrack {
    let layer = |quality, width, height| VideoLayer {
        quality,
        width,
        height,
        bitrate: 0,
        rid: String::new(),
    };
    AddTrack {
        kind: Some(MediaKind::Video),
        source: TrackSource::Camera,
        display_name: "cam".to_owned(),
        width: 1280,
        height: 720,
        layers: vec![
            layer(LayerQuality::Low, 320, 180),
            layer(LayerQuality::Medium, 640, 360),
            layer(LayerQuality::High, 1280, 720),
        ],
        codecs: vec![TrackCodec {
            mime_type: "video/vp8".to_owned(),
            client_track_id: id.to_owned(),
        }],
        ..microphone(id)
    }
}

impl Client {
    pub(super) fn join(world: &mut World, identity: &str, mode: TransportMode) -> Self {
        Self::join_as(world, join_request(identity, mode))
    }

    pub(super) fn join_as(world: &mut World, request: JoinRequest) -> Self {
        let identity = request.identity.as_str().to_owned();
        let mode = request.transport_mode;
        let session = world.join(request);
        let Some(Event::Joined(joined)) = world.sessions[&session].events.first() else {
            panic!("not joined: {:?}", world.sessions[&session].events);
        };
        let uid = joined.participant.uid.clone();
        let ufrag = format!("frag{}", session.0);
        let fingerprint = vec![format!("{:02X}", session.0 % 256); 32].join(":");
        Self { session, uid, identity, mode, sections: Vec::new(), ufrag, fingerprint, offer_id: 0 }
    }

    /// Joins in single mode with so many sections of each kind, and connects.
    pub(super) fn single(world: &mut World, identity: &str, sections: usize) -> Self {
        let mut client = Self::join(world, identity, TransportMode::Single);
        for kind in [MediaKind::Audio, MediaKind::Video] {
            client.sections.extend((0..sections).map(|_| Section::receiving(kind)));
        }
        client.sections.push(Section::data());
        client.offer(world);
        client.connect(world, TransportKind::Publisher);
        client
    }

    /// Joins in dual mode, answers the first offer, and connects.
    pub(super) fn dual(world: &mut World, identity: &str) -> Self {
        let mut client = Self::join(world, identity, TransportMode::Dual);
        client.answer(world);
        client.connect(world, TransportKind::Subscriber);
        client
    }

    pub(super) fn transport(&self, world: &World, kind: TransportKind) -> TransportKey {
        let participant = world.rooms.test_participant(&self.uid).unwrap();
        participant.transport(kind).unwrap().key
    }

    /// The transport it receives by.
    pub(super) fn downlink(&self, world: &World) -> TransportKey {
        self.transport(
            world,
            match self.mode {
                TransportMode::Single => TransportKind::Publisher,
                TransportMode::Dual => TransportKind::Subscriber,
            },
        )
    }

    pub(super) fn connect(&self, world: &mut World, kind: TransportKind) {
        let transport = self.transport(world, kind);
        world.media_event(MediaEvent::TransportConnected { transport });
    }

    /// Opens the three channels on a transport: 1 reliable, 2 lossy, 3 frames.
    pub(super) fn open_channels(&self, world: &mut World, kind: TransportKind) {
        let transport = self.transport(world, kind);
        let channels = [
            (1, "_reliable", ChannelReliability::Reliable),
            (2, "_lossy", ChannelReliability::Lossy),
            (3, "_data_track", ChannelReliability::Lossy),
        ];
        for (key, label, reliability) in channels {
            world.media_event(MediaEvent::ChannelOpen {
                transport,
                channel: ChannelKey(key),
                label: label.to_owned(),
                reliability,
            });
        }
    }

    pub(super) fn send(&self, world: &mut World, channel: u32, payload: &[u8]) {
        let transport = self.transport(world, TransportKind::Publisher);
        let channel = ChannelKey(channel);
        let payload = payload.to_vec();
        world.media_event(MediaEvent::ChannelMessage { transport, channel, payload });
    }

    /// Offers its sections; tells the answer.
    pub(super) fn offer(&mut self, world: &mut World) -> SessionDescription {
        let answer = self.try_offer(world);
        let events = &world.sessions[&self.session].events;
        answer.unwrap_or_else(|| panic!("no answer: {events:?}"))
    }

    /// Offers its sections; tells the answer, or that the session is over.
    pub(super) fn try_offer(&mut self, world: &mut World) -> Option<SessionDescription> {
        self.offer_id += 1;
        let sdp = self.write_offer();
        let offer = SessionDescription {
            transport: TransportKind::Publisher,
            sdp,
            offer_id: self.offer_id,
            track_uid_by_mid: BTreeMap::new(),
        };
        world.command(self.session, Command::Offer(offer));
        let told = &world.sessions[&self.session];
        let answer = told.events.iter().rev().find_map(|event| match event {
            Event::Answer(answer) if answer.offer_id == self.offer_id => Some(answer.clone()),
            _ => None,
        });
        assert!(answer.is_some() || told.is_over, "offers are answered");
        self.check_answer(answer.as_ref()?);
        answer
    }

    fn check_answer(&self, answer: &SessionDescription) {
        let read = Description::parse(&answer.sdp).unwrap();
        assert_eq!(read.sections.len(), self.sections.len());
        for (mid, (own, answered)) in self.sections.iter().zip(&read.sections).enumerate() {
            assert_eq!(answered.mid, mid.to_string(), "sections keep their places");
            let sent = answered.direction.sends() && own.kind.is_some();
            assert_eq!(sent, !answered.msids.is_empty(), "what is sent says which track it is");
            if sent {
                assert!(own.direction.receives());
                let uid = &answer.track_uid_by_mid[&mid.to_string()];
                assert_eq!(answered.track_id(), Some(uid.as_str()));
            }
        }
    }

    /// The offer of its sections as they are.
    pub(super) fn write_offer(&self) -> String {
        let mids: Vec<String> = (0..self.sections.len()).map(|mid| mid.to_string()).collect();
        let mut sdp = format!(
            "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n\
             a=extmap-allow-mixed\r\n",
            mids.join(" ")
        );
        for (mid, section) in self.sections.iter().enumerate() {
            sdp.push_str(match section.kind {
                Some(MediaKind::Audio) => "m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\n",
                Some(MediaKind::Video) => "m=video 9 UDP/TLS/RTP/SAVPF 96 97 109 114\r\n",
                None => "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n",
            });
            sdp.push_str(&format!(
                "c=IN IP4 0.0.0.0\r\na=ice-ufrag:{}\r\na=ice-pwd:0123456789012345678901\r\n\
                 a=fingerprint:sha-256 {}\r\na=setup:actpass\r\na=mid:{mid}\r\n",
                self.ufrag, self.fingerprint
            ));
            match section.kind {
                None => sdp.push_str("a=sctp-port:5000\r\na=max-message-size:262144\r\n"),
                Some(kind) => sdp.push_str(&media_lines(kind, section)),
            }
        }
        sdp
    }

    /// Answers the node's newest offer, if there is one, and tells it.
    pub(super) fn answer(&mut self, world: &mut World) -> Option<Description> {
        let events = &world.sessions[&self.session].events;
        let offer = events.iter().rev().find_map(|event| match event {
            Event::Offer(offer) => Some(offer.clone()),
            _ => None,
        })?;
        let answer = SessionDescription {
            transport: TransportKind::Subscriber,
            sdp: self.write_answer(&offer.sdp),
            offer_id: offer.offer_id,
            track_uid_by_mid: BTreeMap::new(),
        };
        world.command(self.session, Command::Answer(answer));
        Some(Description::parse(&offer.sdp).unwrap())
    }

    pub(super) fn write_answer(&self, offer: &str) -> String {
        let dropped = ["a=candidate", "a=end-of", "a=ssrc", "a=msid:", "a=ice-", "a=fingerprint"];
        let kept: String = offer
            .split_inclusive("\r\n")
            .filter(|line| !dropped.iter().any(|start| line.starts_with(start)))
            .collect();
        kept.replace("a=sendonly", "a=recvonly").replace(
            "a=setup:actpass",
            &format!(
                "a=setup:active\r\na=ice-ufrag:{}\r\na=ice-pwd:0123456789012345678901\r\n\
                 a=fingerprint:sha-256 {}",
                self.ufrag, self.fingerprint
            ),
        )
    }

    /// Publishes a track: announces it, adds a section, offers. Tells its uid.
    pub(super) fn publish(&mut self, world: &mut World, request: AddTrack) -> TrackUid {
        let uid = self.add_track(world, request.clone());
        let kind = request.kind.unwrap();
        if self.sections.is_empty() {
            self.sections.push(Section::data());
        }
        self.sections.push(Section::sending(kind, &request.client_track_id));
        self.offer(world);
        uid
    }

    pub(super) fn add_track(&self, world: &mut World, request: AddTrack) -> TrackUid {
        let id = request.client_track_id.clone();
        world.command(self.session, Command::AddTrack(request));
        let events = &world.sessions[&self.session].events;
        let added = events.iter().rev().find_map(|event| match event {
            Event::TrackAdded { client_track_id, track } if *client_track_id == id => {
                Some(track.uid.clone())
            }
            _ => None,
        });
        added.unwrap_or_else(|| panic!("not added: {events:?}"))
    }

    /// The mids on which it receives tracks now, as forwarded.
    pub(super) fn received(&self, world: &World) -> Vec<(String, TrackUid)> {
        let downlink = self.downlink(world);
        let mut received: Vec<_> = world
            .subscriptions
            .values()
            .filter(|it| it.transport == downlink)
            .map(|it| (it.mid.clone(), world.rooms.test_track(it.track).unwrap()))
            .collect();
        received.sort();
        received
    }

    pub(super) fn hears(&self, world: &World, track: &TrackUid) -> bool {
        self.received(world).iter().any(|(_, uid)| uid == track)
    }
}

fn media_lines(kind: MediaKind, section: &Section) -> String {
    let mut lines = String::from(
        "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
         a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
         a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n",
    );
    lines.push_str(&format!("a={}\r\n", section.direction.as_str()));
    if section.direction.sends() {
        lines.push_str(&format!("a=msid:- {}\r\n", section.media_id));
    }
    lines.push_str("a=rtcp-mux\r\na=rtcp-rsize\r\n");
    lines.push_str(match kind {
        MediaKind::Audio => {
            "a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\n\
             a=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:63 red/48000/2\r\n\
             a=fmtp:63 111/111\r\n"
        }
        MediaKind::Video => {
            "a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\n\
             a=rtcp-fb:96 transport-cc\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
             a=rtpmap:109 H264/90000\r\na=rtcp-fb:109 nack pli\r\n\
             a=fmtp:109 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
             a=rtpmap:114 rtx/90000\r\na=fmtp:114 apt=109\r\n"
        }
    });
    if section.simulcast && section.direction.sends() {
        lines
            .push_str("a=rid:q send\r\na=rid:h send\r\na=rid:f send\r\na=simulcast:send q;h;f\r\n");
    }
    lines
}

/// The sections of a description that carry a track, by mid.
pub(super) fn sending_mids(description: &str) -> Vec<String> {
    let read = Description::parse(description).unwrap();
    read.sections
        .iter()
        .filter(|section| section.kind != SectionKind::Application)
        .filter(|section| section.direction.sends())
        .map(|section| section.mid.clone())
        .collect()
}
