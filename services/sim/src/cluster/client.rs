//! A participant: what it wants to be in a room, and its present stay, with the peer
//! connections of a browser reduced to their descriptions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use headwater_model::media::{MediaKind, TrackSource};
use headwater_model::{Epoch, Identity, NodeId, ParticipantUid, Permission, RoomId, TrackUid};
use headwater_room::{
    AddTrack, Command, Event, JoinRequest, LayerQuality, ParticipantPhase, ParticipantView,
    RoomProperties, SessionDescription, SessionKey, TrackCodec, TransportKind, TransportMode,
    UpdateSelf, VideoLayer,
};

use super::joining::Joining;
use super::media::Sender;
use super::sdp::{Section, write_answer, write_offer};

/// Who somebody is and what it wants.
pub(crate) struct Client {
    pub(crate) index: usize,
    pub(crate) identity: Identity,
    pub(crate) room: RoomId,
    /// It wants to be there.
    pub(crate) wants: bool,
    /// The platform let it publish.
    pub(crate) may_publish: bool,
    pub(crate) audio: bool,
    pub(crate) video: bool,
    pub(crate) muted: bool,
    pub(crate) metadata: String,
    pub(crate) mode: TransportMode,
    /// Stays begun.
    pub(crate) stays: u32,
    pub(crate) phase: Phase,
    /// The room was full when it last tried.
    pub(crate) was_full: bool,
}

/// Where it is with its room.
pub(crate) enum Phase {
    /// Not there, and nothing under way.
    Out,
    /// Its gateway looks for a place.
    Joining(Box<Joining>),
    /// There.
    In(Box<Stay>),
}

/// One stay on one shard.
pub(crate) struct Stay {
    pub(crate) number: u32,
    pub(crate) session: SessionKey,
    pub(crate) node: usize,
    pub(crate) node_id: NodeId,
    pub(crate) life: u64,
    pub(crate) shard: usize,
    pub(crate) epoch: Epoch,
    /// Absent until it was told.
    pub(crate) uid: Option<ParticipantUid>,
    pub(crate) sections: Vec<Section>,
    pub(crate) offer_id: u32,
    pub(crate) senders: BTreeMap<String, Sender>,
    /// Everybody else, as it was told.
    pub(crate) others: BTreeMap<ParticipantUid, Arc<ParticipantView>>,
    /// Tracks that it asked for, by its own ids of them.
    asked: BTreeSet<String>,
    /// Its tracks that exist.
    pub(crate) tracks: BTreeMap<String, TrackUid>,
    /// Numbers of reliable data messages sent.
    pub(crate) said: u32,
    pub(crate) to_node: VecDeque<Command>,
}

impl Stay {
    pub(crate) fn new(
        (number, session): (u32, SessionKey),
        (node, life, shard): (usize, u64, usize),
        node_id: NodeId,
        epoch: Epoch,
    ) -> Self {
        Self {
            number,
            session,
            node,
            node_id,
            life,
            shard,
            epoch,
            uid: None,
            sections: Vec::new(),
            offer_id: 0,
            senders: BTreeMap::new(),
            others: BTreeMap::new(),
            asked: BTreeSet::new(),
            tracks: BTreeMap::new(),
            said: 0,
            to_node: VecDeque::new(),
        }
    }

    fn offer(&mut self) {
        self.offer_id += 1;
        let description = SessionDescription {
            transport: TransportKind::Publisher,
            sdp: write_offer(&self.sections, &self.fragment()),
            offer_id: self.offer_id,
            track_uid_by_mid: BTreeMap::new(),
        };
        self.to_node.push_back(Command::Offer(description));
    }

    fn fragment(&self) -> String {
        format!("frag{}", self.session.0)
    }
}

impl Client {
    pub(crate) fn stay(&self) -> Option<&Stay> {
        match &self.phase {
            Phase::In(stay) => Some(stay),
            Phase::Out | Phase::Joining(_) => None,
        }
    }

    pub(crate) fn stay_mut(&mut self) -> Option<&mut Stay> {
        match &mut self.phase {
            Phase::In(stay) => Some(stay),
            Phase::Out | Phase::Joining(_) => None,
        }
    }

    pub(crate) fn permission(&self) -> Permission {
        Permission {
            can_publish: self.may_publish,
            can_update_metadata: true,
            ..Default::default()
        }
    }

    pub(crate) fn join_request(
        &self,
        epoch: Epoch,
        properties: RoomProperties,
        resume: Option<ParticipantUid>,
        join_millis: u64,
    ) -> JoinRequest {
        JoinRequest {
            room: self.room.clone(),
            epoch,
            identity: self.identity.clone(),
            display_name: self.identity.as_str().to_uppercase(),
            metadata: self.metadata.clone(),
            attributes: BTreeMap::new(),
            permission: self.permission(),
            door_payload: Arc::from(&b""[..]),
            auto_subscribe: true,
            adaptive_stream: false,
            transport_mode: self.mode,
            resume,
            uncounted: false,
            protocols: Vec::new(),
            properties: Some(properties),
            publish_codecs: Vec::new(),
            join_millis,
            fixed_sections: false,
            outlives_signalling: false,
            followed: Vec::new(),
        }
    }

    /// Takes what it is told. `Some` if the session is over.
    pub(crate) fn handle_event(&mut self, event: Event) -> Option<headwater_room::Closed> {
        let mode = self.mode;
        let stay = self.stay_mut()?;
        match event {
            Event::Joined(joined) => {
                stay.uid = Some(joined.participant.uid.clone());
                stay.others =
                    joined.others.iter().map(|view| (view.uid.clone(), Arc::clone(view))).collect();
                if joined.resumed {
                    return None;
                }
                if mode == TransportMode::Single {
                    for kind in [MediaKind::Audio, MediaKind::Video] {
                        stay.sections.extend((0..2).map(|_| Section::receiving(kind)));
                    }
                }
                stay.sections.push(Section::data());
                stay.offer();
                self.publish_wanted();
            }
            Event::Offer(offer) => {
                let answer = SessionDescription {
                    transport: TransportKind::Subscriber,
                    sdp: write_answer(&offer.sdp, &stay.fragment()),
                    offer_id: offer.offer_id,
                    track_uid_by_mid: BTreeMap::new(),
                };
                stay.to_node.push_back(Command::Answer(answer));
            }
            Event::TrackAdded { client_track_id, track } => {
                let known = stay.tracks.insert(client_track_id.clone(), track.uid.clone());
                if known.is_some() {
                    return None;
                }
                let mid = stay.sections.len();
                stay.sections.push(Section::sending(track.kind, &client_track_id));
                let sender = Sender::new(track.kind, mid, u64::from(stay.number));
                stay.senders.insert(client_track_id, sender);
                stay.offer();
            }
            Event::MediaSectionsNeeded { audio, video } => {
                for (kind, count) in [(MediaKind::Audio, audio), (MediaKind::Video, video)] {
                    stay.sections.extend((0..count).map(|_| Section::receiving(kind)));
                }
                stay.offer();
            }
            Event::ParticipantsChanged(views) => {
                let mut may_publish = false;
                for view in views {
                    if Some(&view.uid) == stay.uid.as_ref() {
                        may_publish |= view.permission.can_publish;
                        continue;
                    }
                    if matches!(view.phase, ParticipantPhase::Left(_)) {
                        stay.others.remove(&view.uid);
                    } else {
                        stay.others.insert(view.uid.clone(), view);
                    }
                }
                if may_publish {
                    self.publish_wanted();
                }
            }
            Event::Closed(closed) => return Some(closed),
            _ => {}
        }
        None
    }

    /// Asks for the tracks it wants and does not have yet.
    pub(crate) fn publish_wanted(&mut self) {
        let wanted = [("mic", self.audio, MediaKind::Audio), ("cam", self.video, MediaKind::Video)];
        let (may, muted) = (self.may_publish, self.muted);
        let Some(stay) = self.stay_mut() else { return };
        for (id, _, kind) in wanted.into_iter().filter(|(_, wanted, _)| *wanted && may) {
            let id = format!("{id}-{}", stay.number);
            if stay.asked.insert(id.clone()) {
                stay.to_node.push_back(Command::AddTrack(add_track(&id, kind, muted)));
            }
        }
    }

    pub(crate) fn set_muted(&mut self, muted: bool) {
        self.muted = muted;
        let Some(stay) = self.stay_mut() else { return };
        for track in stay.tracks.values() {
            stay.to_node.push_back(Command::MuteTrack { track: track.clone(), muted });
        }
    }

    pub(crate) fn set_metadata(&mut self, metadata: String) {
        self.metadata.clone_from(&metadata);
        let Some(stay) = self.stay_mut() else { return };
        stay.to_node.push_back(Command::UpdateSelf(UpdateSelf {
            request_id: 1,
            display_name: String::new(),
            metadata,
            attributes: BTreeMap::new(),
        }));
    }
}

fn add_track(id: &str, kind: MediaKind, muted: bool) -> AddTrack {
    let is_video = kind == MediaKind::Video;
    let layer = |quality, width, height| VideoLayer {
        quality,
        width,
        height,
        bitrate: 0,
        rid: String::new(),
    };
    AddTrack {
        client_track_id: id.to_owned(),
        kind: Some(kind),
        source: if is_video { TrackSource::Camera } else { TrackSource::Microphone },
        display_name: id.to_owned(),
        muted,
        width: if is_video { 1280 } else { 0 },
        height: if is_video { 720 } else { 0 },
        layers: if is_video {
            vec![
                layer(LayerQuality::Low, 320, 180),
                layer(LayerQuality::Medium, 640, 360),
                layer(LayerQuality::High, 1280, 720),
            ]
        } else {
            Vec::new()
        },
        codecs: if is_video {
            vec![TrackCodec { mime_type: "video/vp8".to_owned(), client_track_id: id.to_owned() }]
        } else {
            Vec::new()
        },
        stereo: false,
        disable_red: true,
        disable_dtx: false,
        track: None,
        encrypted: false,
        stream: String::new(),
        door_payload: Arc::from(&[][..]),
    }
}
