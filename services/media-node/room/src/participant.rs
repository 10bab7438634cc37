//! A participant: who it is, what it may do, and the state of its session,
//! transports, tracks and subscriptions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use headwater_model::media::{
    Codec, MediaKind, Prominence, Subscription as SubscriptionParameters, SubscriptionKey,
    SubscriptionTarget, TrackKey, TransportKey,
};
use headwater_model::{Epoch, Identity, ParticipantUid, Permission, RoomId, TrackUid};
use headwater_sdp::CandidateProtocol;

use crate::data::DataState;
use crate::directory::ParticipantKey;
use crate::quality::QualityState;
use crate::remote::RemoteParticipant;
use crate::session::{
    AddTrack, JoinRequest, SessionKey, SubscriptionPermission, TrackSettings, TransportKind,
    TransportMode,
};
use crate::speakers::Speech;
use crate::subscriber::SubscriberTransport;
use crate::track::Track;
use crate::transport::{PublisherTransport, Transport, TransportState};
use crate::view::{ParticipantPhase, ParticipantView, TrackView};

#[derive(Debug)]
pub(crate) struct Participant {
    pub(crate) key: ParticipantKey,
    pub(crate) uid: ParticipantUid,
    pub(crate) identity: Identity,
    pub(crate) display_name: String,
    pub(crate) metadata: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) permission: Permission,
    pub(crate) door_payload: Arc<[u8]>,
    pub(crate) uncounted: bool,
    join_millis: u64,
    /// Counts the stays of its identity, over all shards.
    pub(crate) incarnation: u64,
    pub(crate) auto_subscribe: bool,
    /// Whose tracks that is for. Empty means everybody's.
    pub(crate) followed: Vec<Identity>,
    adaptive_stream: bool,
    pub(crate) mode: TransportMode,
    /// It is never asked to offer again.
    pub(crate) fixed_sections: bool,
    /// It stays while its transport is up.
    pub(crate) outlives_signalling: bool,
    pub(crate) protocols: Vec<CandidateProtocol>,
    pub(crate) publish_codecs: Vec<Codec>,
    pub(crate) link: Link,
    pub(crate) phase: ParticipantPhase,
    version: u32,
    /// As last told.
    pub(crate) view: Arc<ParticipantView>,
    /// It is of the room's audience: others are not told of it.
    pub(crate) unlisted: bool,
    /// Others were told of it.
    pub(crate) announced: bool,
    /// Number of the last departure before it was told who is there.
    pub(crate) welcomed_after: u64,
    /// Transport that makes it active.
    pub(crate) primary: TransportKind,
    /// Some transport was connected once.
    pub(crate) was_connected: bool,
    /// Tracks bound by the SDP, oldest first.
    pub(crate) tracks: Vec<TrackKey>,
    /// Tracks announced only, oldest first.
    pub(crate) pending: Vec<TrackKey>,
    /// Requests that wait for an older track of the same client id.
    pub(crate) queued: VecDeque<AddTrack>,
    pub(crate) allow: SubscriptionPermission,
    pub(crate) publisher: Option<PublisherTransport>,
    pub(crate) subscriber: Option<SubscriberTransport>,
    /// When collected changes are to be negotiated.
    pub(crate) negotiate_at: Option<Instant>,
    pub(crate) negotiated_at: Option<Instant>,
    pub(crate) subscriptions: BTreeMap<TrackKey, Subscription>,
    next_ssrc: u32,
    pub(crate) wishes: BTreeMap<TrackUid, Wish>,
    /// When the next wish ends.
    pub(crate) wishes_at: Option<Instant>,
    /// Tracks it was told that it may not have.
    pub(crate) forbidden: BTreeSet<TrackKey>,
    /// Who left while nobody listened. None if they were too many.
    pub(crate) departed: Option<Vec<Arc<ParticipantView>>>,
    pub(crate) data: DataState,
    pub(crate) speech: Speech,
    pub(crate) quality: QualityState,
}

/// Who carries its signalling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Attached(SessionKey),
    Lost {
        since: Instant,
    },
    /// It is on another shard; the transport stands for it in the forwarding core.
    Remote {
        transport: TransportKey,
    },
}

/// A track that it receives or is to receive.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) key: SubscriptionKey,
    pub(crate) kind: MediaKind,
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: Option<u32>,
    /// As the forwarding core was told.
    pub(crate) prominence: Prominence,
    pub(crate) stage: Stage,
}

/// How far a subscription is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stage {
    /// It has no section yet.
    Waiting,
    /// It has a section in an offer of the node that is not answered yet.
    Offered { mid: String },
    /// It is forwarded.
    Live { parameters: Box<SubscriptionParameters>, target: SubscriptionTarget },
    /// The client cannot take it.
    Refused,
}

/// What a participant said of a track, known or not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    pub(crate) subscribe: Option<bool>,
    pub(crate) settings: Option<TrackSettings>,
    /// When it ends if the track does not come. None once it came.
    pub(crate) expires_at: Option<Instant>,
}

impl Participant {
    pub(crate) fn new(
        key: ParticipantKey,
        uid: ParticipantUid,
        request: JoinRequest,
        session: SessionKey,
        first_ssrc: u32,
    ) -> Self {
        let primary = match request.transport_mode {
            TransportMode::Dual if request.permission.can_subscribe => TransportKind::Subscriber,
            TransportMode::Dual | TransportMode::Single => TransportKind::Publisher,
        };
        let view = Arc::new(ParticipantView {
            uid: uid.clone(),
            identity: request.identity.clone(),
            display_name: String::new(),
            metadata: String::new(),
            attributes: BTreeMap::new(),
            phase: ParticipantPhase::Joined,
            join_millis: request.join_millis,
            version: 0,
            permission: request.permission.clone(),
            tracks: Vec::new(),
            door_payload: Arc::clone(&request.door_payload),
            data_tracks: Vec::new(),
            uncounted: request.uncounted,
        });
        Self {
            key,
            uid,
            identity: request.identity,
            display_name: request.display_name,
            metadata: request.metadata,
            attributes: request.attributes,
            permission: request.permission,
            door_payload: request.door_payload,
            uncounted: request.uncounted,
            join_millis: request.join_millis,
            incarnation: request.join_millis,
            auto_subscribe: request.auto_subscribe,
            followed: request.followed,
            adaptive_stream: request.adaptive_stream,
            mode: request.transport_mode,
            fixed_sections: request.fixed_sections
                && request.transport_mode == TransportMode::Single,
            outlives_signalling: request.outlives_signalling,
            protocols: request.protocols,
            publish_codecs: request.publish_codecs,
            link: Link::Attached(session),
            phase: ParticipantPhase::Joined,
            version: 0,
            view,
            unlisted: false,
            announced: false,
            welcomed_after: 0,
            primary,
            was_connected: false,
            tracks: Vec::new(),
            pending: Vec::new(),
            queued: VecDeque::new(),
            allow: SubscriptionPermission::Everybody,
            publisher: None,
            subscriber: None,
            negotiate_at: None,
            negotiated_at: None,
            subscriptions: BTreeMap::new(),
            next_ssrc: first_ssrc,
            wishes: BTreeMap::new(),
            wishes_at: None,
            forbidden: BTreeSet::new(),
            departed: Some(Vec::new()),
            data: DataState::default(),
            speech: Speech::default(),
            quality: QualityState::default(),
        }
    }

    /// A participant of another shard. It has no session, no transport of its own,
    /// and wants nothing.
    pub(crate) fn remote(
        (room, key): (RoomId, ParticipantKey),
        transport: TransportKey,
        remote: RemoteParticipant,
    ) -> Self {
        let view = &remote.view;
        let request = JoinRequest {
            room,
            epoch: Epoch(0),
            identity: view.identity.clone(),
            display_name: String::new(),
            metadata: String::new(),
            attributes: BTreeMap::new(),
            permission: view.permission.clone(),
            door_payload: Arc::clone(&view.door_payload),
            auto_subscribe: false,
            adaptive_stream: false,
            transport_mode: TransportMode::Single,
            resume: None,
            uncounted: view.uncounted,
            protocols: Vec::new(),
            properties: None,
            publish_codecs: Vec::new(),
            join_millis: view.join_millis,
            fixed_sections: false,
            outlives_signalling: false,
            followed: Vec::new(),
        };
        let mut participant = Self::new(key, view.uid.clone(), request, SessionKey(0), 0);
        participant.link = Link::Remote { transport };
        participant.departed = None;
        participant.take_remote(remote);
        participant
    }

    /// Takes what its shard says of it; tracks are the room's business.
    pub(crate) fn take_remote(&mut self, remote: RemoteParticipant) {
        let view = remote.view;
        view.display_name.clone_into(&mut self.display_name);
        view.metadata.clone_into(&mut self.metadata);
        view.attributes.clone_into(&mut self.attributes);
        self.permission = view.permission.clone();
        self.door_payload = Arc::clone(&view.door_payload);
        self.uncounted = view.uncounted;
        self.phase = view.phase;
        self.version = view.version;
        self.view = view;
        self.allow = remote.allow;
        self.incarnation = remote.incarnation;
    }

    /// Counts as a participant of the room.
    pub(crate) const fn is_counted(&self) -> bool {
        !self.uncounted && !self.permission.hidden
    }

    /// Others are told of it.
    pub(crate) const fn is_shown(&self) -> bool {
        !self.permission.hidden && !self.unlisted
    }

    /// Publishes something that others see.
    pub(crate) const fn is_publisher(&self) -> bool {
        !self.tracks.is_empty()
    }

    pub(crate) const fn session(&self) -> Option<SessionKey> {
        match self.link {
            Link::Attached(session) => Some(session),
            Link::Lost { .. } | Link::Remote { .. } => None,
        }
    }

    /// It is on another shard.
    pub(crate) const fn is_remote(&self) -> bool {
        matches!(self.link, Link::Remote { .. })
    }

    /// A new state to be told: raises the version and keeps the view.
    pub(crate) fn renew_view(&mut self, tracks: &BTreeMap<TrackKey, Track>) {
        if self.is_remote() {
            // Its shard says what it is; only that it is gone is said here.
            if let ParticipantPhase::Left(_) = self.phase {
                self.view = Arc::new(ParticipantView {
                    phase: self.phase,
                    version: self.view.version.saturating_add(1),
                    tracks: Vec::new(),
                    data_tracks: Vec::new(),
                    ..(*self.view).clone()
                });
            }
            return;
        }
        self.version = self.version.saturating_add(1);
        self.view = Arc::new(self.build_view(tracks, Track::view));
    }

    /// As the participant itself sees it.
    pub(crate) fn own_view(&self, tracks: &BTreeMap<TrackKey, Track>) -> Arc<ParticipantView> {
        if self.is_remote() {
            return Arc::clone(&self.view);
        }
        Arc::new(self.build_view(tracks, Track::view_of_publisher))
    }

    fn build_view(
        &self,
        tracks: &BTreeMap<TrackKey, Track>,
        view: fn(&Track) -> TrackView,
    ) -> ParticipantView {
        ParticipantView {
            uid: self.uid.clone(),
            identity: self.identity.clone(),
            display_name: self.display_name.clone(),
            metadata: self.metadata.clone(),
            attributes: self.attributes.clone(),
            phase: self.phase,
            join_millis: self.join_millis,
            version: self.version,
            permission: self.permission.clone(),
            tracks: self.tracks.iter().filter_map(|key| tracks.get(key)).map(view).collect(),
            door_payload: Arc::clone(&self.door_payload),
            data_tracks: self.data.published.values().cloned().collect(),
            uncounted: self.uncounted,
        }
    }

    /// An SSRC that this participant's transports never sent with before.
    pub(crate) const fn take_ssrc(&mut self) -> u32 {
        self.next_ssrc = self.next_ssrc.wrapping_add(1);
        if self.next_ssrc == 0 {
            self.next_ssrc = 1;
        }
        self.next_ssrc
    }

    /// Subscribes to a publisher's tracks without being asked.
    pub(crate) fn follows(&self, publisher: &Identity) -> bool {
        self.auto_subscribe && (self.followed.is_empty() || self.followed.contains(publisher))
    }

    /// Some transport of it is up.
    pub(crate) fn is_connected(&self) -> bool {
        self.transports().any(|(_, transport)| transport.state == TransportState::Connected)
    }

    /// What it wants of a track.
    pub(crate) fn settings(&self, track: &TrackUid) -> TrackSettings {
        let wished = self.wishes.get(track).and_then(|wish| wish.settings);
        wished.unwrap_or_else(|| {
            let quality = if self.adaptive_stream {
                crate::view::LayerQuality::Low
            } else {
                crate::view::LayerQuality::High
            };
            TrackSettings { quality, ..TrackSettings::default() }
        })
    }

    /// The transport by which it receives tracks and messages.
    pub(crate) fn downlink(&self) -> Option<&Transport> {
        match self.mode {
            TransportMode::Single => self.publisher.as_ref().map(|it| &it.transport),
            TransportMode::Dual => self.subscriber.as_ref().map(|it| &it.transport),
        }
    }

    pub(crate) fn transport(&self, kind: TransportKind) -> Option<&Transport> {
        match kind {
            TransportKind::Publisher => self.publisher.as_ref().map(|it| &it.transport),
            TransportKind::Subscriber => self.subscriber.as_ref().map(|it| &it.transport),
        }
    }

    pub(crate) fn transport_mut(&mut self, kind: TransportKind) -> Option<&mut Transport> {
        match kind {
            TransportKind::Publisher => self.publisher.as_mut().map(|it| &mut it.transport),
            TransportKind::Subscriber => self.subscriber.as_mut().map(|it| &mut it.transport),
        }
    }

    /// All its transports.
    pub(crate) fn transports(&self) -> impl Iterator<Item = (TransportKind, &Transport)> {
        [TransportKind::Publisher, TransportKind::Subscriber]
            .into_iter()
            .filter_map(|kind| self.transport(kind).map(|transport| (kind, transport)))
    }
}
