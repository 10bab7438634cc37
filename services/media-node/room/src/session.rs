//! What a gateway says of a participant ([`JoinRequest`], [`Command`]) and what
//! it is told ([`Event`]). The meaning is that of `headwater.node.v1`.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_model::media::{Codec, MediaKind, TrackSource};
use headwater_model::{Bitrate, Epoch, Identity, ParticipantUid, Permission, RoomId, TrackUid};
use headwater_sdp::{Candidate, CandidateProtocol, IceCredentials};

pub use crate::closing::{CloseAction, CloseReason, Closed};
use crate::view::{
    DataTrackOrigin, DataTrackView, LayerQuality, ParticipantView, RoomProperties, RoomView,
    TrackCodec, TrackView, VideoLayer,
};

/// One attachment of a gateway, chosen by the shell. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub u64);

/// Opens a session, or takes one up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// The room.
    pub room: RoomId,
    /// Epoch of the plan that named this node.
    pub epoch: Epoch,
    /// Who joins.
    pub identity: Identity,
    /// Name to show.
    pub display_name: String,
    /// Platform's text.
    pub metadata: String,
    /// Platform's keyed values.
    pub attributes: BTreeMap<String, String>,
    /// What it may do.
    pub permission: Permission,
    /// What its door tells the doors of the others.
    pub door_payload: Arc<[u8]>,
    /// Subscribe to everything without being asked.
    pub auto_subscribe: bool,
    /// Begin with the lowest layer: the client will tell what size it shows.
    pub adaptive_stream: bool,
    /// How many transports the client uses.
    pub transport_mode: TransportMode,
    /// Take up this participant's session instead of opening one.
    pub resume: Option<ParticipantUid>,
    /// Do not count it as a participant of the room (agents, recorders).
    pub uncounted: bool,
    /// Protocols the client can be reached by. Empty means all.
    pub protocols: Vec<CandidateProtocol>,
    /// The room, if the node should carry it though nobody assigned it yet.
    pub properties: Option<RoomProperties>,
    /// Codecs that may be published, best first. Empty means all.
    pub publish_codecs: Vec<Codec>,
    /// The time, in milliseconds since the Unix epoch, for others to see.
    pub join_millis: u64,
    /// Single mode: the client is never asked to offer again. Sections it
    /// receives in are filled with one track after another, each section under
    /// one SSRC.
    pub fixed_sections: bool,
    /// Keep it as long as its transport is up, with or without a gateway.
    pub outlives_signalling: bool,
    /// Whose tracks `auto_subscribe` is for. Empty means everybody's.
    pub followed: Vec<Identity>,
}

/// How many transports a client uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportMode {
    /// One for both directions; the client offers always.
    Single,
    /// One for publishing (the client offers) and one for subscribing (the node offers).
    Dual,
}

/// Which of a client's transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportKind {
    /// The one the client offers on; the only one in single mode.
    Publisher,
    /// The one the node offers on.
    Subscriber,
}

/// An SDP offer or answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionDescription {
    /// Which transport.
    pub transport: TransportKind,
    /// The SDP.
    pub sdp: String,
    /// Number of the offer, repeated by the answer.
    pub offer_id: u32,
    /// In answers of the node: which track each media section (by mid) carries.
    pub track_uid_by_mid: BTreeMap<String, TrackUid>,
}

/// One thing a participant wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// The client's offer.
    Offer(SessionDescription),
    /// The client's answer to an offer of the node.
    Answer(SessionDescription),
    /// The client will publish a track.
    AddTrack(AddTrack),
    /// The client muted or unmuted a track of its own.
    MuteTrack {
        /// The track.
        track: TrackUid,
        /// New state.
        muted: bool,
    },
    /// The client changed a track's declared size or features.
    UpdateTrack(UpdateTrack),
    /// The client wants tracks or wants them no more.
    UpdateSubscription(SubscriptionUpdate),
    /// How the client wants subscribed tracks sent.
    UpdateTrackSettings {
        /// The tracks.
        tracks: Vec<TrackUid>,
        /// What is wanted of each.
        settings: TrackSettings,
    },
    /// Who may subscribe to the client's tracks.
    SubscriptionPermission(SubscriptionPermission),
    /// The client changes its own name, metadata or attributes.
    UpdateSelf(UpdateSelf),
    /// What the client holds, sent after a resume.
    SyncState(SyncState),
    /// The client publishes a data track.
    PublishDataTrack(PublishDataTrack),
    /// The client ends a data track.
    UnpublishDataTrack {
        /// Its handle, as the client wrote it.
        handle: u32,
    },
    /// The client wants data tracks or wants them no more.
    UpdateDataSubscription(SubscriptionUpdate),
    /// The client leaves.
    Leave {
        /// Why.
        reason: CloseReason,
    },
    /// Test scenario asked for by a client's developer.
    Simulate(Scenario),
    /// New ICE credentials of the client, apart from an offer.
    RestartIce(IceCredentials),
}

/// The client will publish a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddTrack {
    /// The client's id of the media, which its SDP repeats.
    pub client_track_id: String,
    /// What kind; none if it is one there is not.
    pub kind: Option<MediaKind>,
    /// What it shows.
    pub source: TrackSource,
    /// Name to show.
    pub display_name: String,
    /// Starts muted.
    pub muted: bool,
    /// Pixels of the full picture.
    pub width: u32,
    /// Pixels of the full picture.
    pub height: u32,
    /// Encodings, lowest first. Empty means one.
    pub layers: Vec<VideoLayer>,
    /// Codecs, preferred first. Empty means what the SDP says.
    pub codecs: Vec<TrackCodec>,
    /// The audio is stereo.
    pub stereo: bool,
    /// Do not send redundant audio.
    pub disable_red: bool,
    /// Do not stop sending during silence.
    pub disable_dtx: bool,
    /// A further codec for this track.
    pub track: Option<TrackUid>,
    /// Encrypted end to end.
    pub encrypted: bool,
    /// Group of tracks that are played in step. Empty means by source.
    pub stream: String,
    /// What the publisher's door tells the doors of the others.
    pub door_payload: Arc<[u8]>,
}

/// The client changed what it declared of a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateTrack {
    /// The track.
    pub track: TrackUid,
    /// New size; 0 means unchanged.
    pub width: u32,
    /// New size; 0 means unchanged.
    pub height: u32,
    /// New encodings. Empty means unchanged.
    pub layers: Vec<VideoLayer>,
    /// New payload. Empty means unchanged.
    pub door_payload: Arc<[u8]>,
}

/// Wants tracks or wants them no more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubscriptionUpdate {
    /// The tracks; ones not known yet are remembered.
    pub tracks: Vec<TrackUid>,
    /// True wants them.
    pub subscribe: bool,
}

/// How a subscribed track is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrackSettings {
    /// Send nothing for now.
    pub disabled: bool,
    /// Highest encoding wanted; used if `width` is 0.
    pub quality: LayerQuality,
    /// Pixels shown; 0 means not told.
    pub width: u32,
    /// Pixels shown; 0 means not told.
    pub height: u32,
    /// Most frames per second wanted; 0 means all.
    pub frame_rate: u32,
    /// Among the subscriber's tracks, 1 is first; 0 means not told.
    pub priority: u32,
}

/// Who may subscribe to the client's tracks. Replaces what was said before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionPermission {
    /// Everybody may have everything.
    Everybody,
    /// Only these may.
    Only(Vec<TrackPermission>),
}

/// What one subscriber may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackPermission {
    /// `PA_…`, if it is named so.
    pub participant: Option<ParticipantUid>,
    /// Identity, if it is named so; an arbitrary text of the client.
    pub identity: Option<String>,
    /// What it may have.
    pub tracks: AllowedTracks,
}

/// Which tracks somebody may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedTracks {
    /// All of them.
    All,
    /// These.
    These(Vec<TrackUid>),
}

/// The client changes what is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateSelf {
    /// Number to repeat in the result.
    pub request_id: u32,
    /// New name. Empty means unchanged.
    pub display_name: String,
    /// New text. Empty means unchanged.
    pub metadata: String,
    /// Merged; an empty value deletes.
    pub attributes: BTreeMap<String, String>,
}

/// What the client holds, sent after a resume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncState {
    /// Tracks it publishes, by their client ids.
    pub published: BTreeMap<String, TrackUid>,
    /// Tracks that differ from auto_subscribe.
    pub subscription: Option<SubscriptionUpdate>,
    /// Subscribed tracks that are switched off.
    pub disabled: Vec<TrackUid>,
    /// Last reliable data message received, by sender.
    pub last_data_sequences: BTreeMap<ParticipantUid, u32>,
    /// Data tracks it publishes.
    pub data_tracks: Vec<PublishDataTrack>,
    /// It published something that has no uid yet.
    pub has_unacknowledged_tracks: bool,
}

/// The client publishes a data track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishDataTrack {
    /// Number chosen by the client, as it wrote it.
    pub handle: u32,
    /// Name.
    pub display_name: String,
    /// What the publisher's door tells the doors of the others.
    pub door_payload: Arc<[u8]>,
}

/// A test scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Pretend that the participant speaks for so many seconds.
    Speak {
        /// Seconds.
        seconds: u32,
    },
    /// Forget the participant without a word, as a dead node would.
    NodeFailure,
    /// Close the session as a stopping server does.
    ServerLeave,
    /// Ask the client to start over.
    FullReconnect,
    /// Use only this protocol from the next negotiation on.
    OnlyProtocol(CandidateProtocol),
    /// Pretend that the client's downlink has so much; none ends it.
    SubscriberBandwidth(Option<Bitrate>),
}

/// One thing the node tells a participant.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// First event: the session is open.
    Joined(Box<Joined>),
    /// The node's offer.
    Offer(SessionDescription),
    /// The node's answer.
    Answer(SessionDescription),
    /// The track asked for by AddTrack exists.
    TrackAdded {
        /// The client's id.
        client_track_id: String,
        /// The track.
        track: Box<TrackView>,
    },
    /// A request was refused, or done if nothing else says so.
    RequestResult(RequestResult),
    /// Participants came, changed or left.
    ParticipantsChanged(Vec<Arc<ParticipantView>>),
    /// The room changed.
    RoomChanged(Arc<RoomView>),
    /// Who speaks changed.
    SpeakersChanged(Vec<Speaker>),
    /// How well connections do changed.
    QualityChanged(Vec<ConnectionQuality>),
    /// A subscribed track is sent no more for lack of bandwidth, or again.
    StreamPaused {
        /// The publisher.
        publisher: ParticipantUid,
        /// The track.
        track: TrackUid,
        /// New state.
        paused: bool,
    },
    /// Which encodings of the client's track are watched.
    LayerDemand {
        /// The track.
        track: TrackUid,
        /// The one codec it is sent in.
        codec: Codec,
        /// Qualities somebody watches, lowest first. Empty means nobody does.
        watched: Vec<LayerQuality>,
    },
    /// The client must offer again, with so many more sections that receive only.
    MediaSectionsNeeded {
        /// Sections of audio to add.
        audio: u32,
        /// Sections of video to add.
        video: u32,
    },
    /// Somebody subscribed to the client's track for the first time.
    TrackSubscribed {
        /// The track.
        track: TrackUid,
    },
    /// Whether the client may subscribe to a track changed.
    SubscriptionAllowed {
        /// The publisher.
        publisher: ParticipantUid,
        /// The track.
        track: TrackUid,
        /// New state.
        allowed: bool,
    },
    /// The platform muted or unmuted the client's track.
    MuteTrack {
        /// The track.
        track: TrackUid,
        /// New state.
        muted: bool,
    },
    /// The node ended the client's track.
    TrackRemoved {
        /// The track.
        track: TrackUid,
    },
    /// A wanted track cannot be had.
    SubscriptionFailed {
        /// The track.
        track: TrackUid,
        /// Why.
        failure: SubscriptionFailure,
    },
    /// Answer to PublishDataTrack.
    DataTrackPublished(DataTrackView),
    /// Answer to UnpublishDataTrack.
    DataTrackUnpublished(DataTrackView),
    /// The numbers by which subscribed data tracks arrive; replaces the former.
    DataTrackHandles(BTreeMap<u16, DataTrackOrigin>),
    /// Answer to `RestartIce`: the node's side.
    IceRestarted {
        /// Unchanged if the client's credentials were not new.
        credentials: IceCredentials,
        /// All of them, best first.
        candidates: Vec<Candidate>,
    },
    /// Last event: the session is over.
    Closed(Closed),
}

/// The session is open.
#[derive(Debug, Clone, PartialEq)]
pub struct Joined {
    /// The room.
    pub room: Arc<RoomView>,
    /// The participant itself.
    pub participant: Arc<ParticipantView>,
    /// Everybody else that may be seen.
    pub others: Vec<Arc<ParticipantView>>,
    /// An older session was taken up.
    pub resumed: bool,
    /// Highest sequence of a reliable data message received from the client.
    pub last_data_sequence: u32,
    /// Resumed: participants who left while nobody listened.
    pub departed: Vec<Arc<ParticipantView>>,
    /// Resumed: the node's user fragment on the transport the client offers
    /// on. Empty if there is none.
    pub ice_ufrag: String,
}

/// A request was refused or done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestResult {
    /// Which request.
    pub request: RequestReference,
    /// How it went.
    pub outcome: RequestOutcome,
    /// For people. Empty if done.
    pub message: &'static str,
}

/// Which request a result is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestReference {
    /// UpdateSelf, by its request id.
    UpdateSelf(u32),
    /// AddTrack, by its client track id.
    AddTrack(String),
    /// PublishDataTrack or UnpublishDataTrack, by its handle as the client wrote it.
    DataTrack(u32),
}

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOutcome {
    /// Done.
    Done,
    /// What it names is not there.
    NotFound,
    /// The permission lacks it.
    NotAllowed,
    /// A limit is reached.
    LimitExceeded,
    /// Will be done when an older one with the same id is gone.
    Queued,
    /// Not a kind of track there is.
    UnsupportedKind,
    /// A data track's handle is out of range.
    InvalidHandle,
    /// A data track's name is empty or too long.
    InvalidName,
    /// A data track with the handle exists.
    DuplicateHandle,
    /// A data track with the name exists.
    DuplicateName,
}

/// How loud somebody is.
#[derive(Debug, Clone, PartialEq)]
pub struct Speaker {
    /// Who.
    pub participant: ParticipantUid,
    /// 0 silent to 1 loudest, linear, in steps of an eighth.
    pub level: f32,
    /// Speaks now.
    pub active: bool,
}

/// How well a connection does.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectionQuality {
    /// Whose.
    pub participant: ParticipantUid,
    /// In words.
    pub grade: QualityGrade,
    /// Estimated mean opinion score, 1 to 5.
    pub score: f32,
}

/// How well a connection does, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QualityGrade {
    /// Nothing arrives.
    Lost,
    /// Disturbed.
    Poor,
    /// Fair.
    Good,
    /// Nothing to complain of.
    Excellent,
}

/// Why a wanted track cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionFailure {
    /// There was no such track for a minute.
    TrackNotFound,
    /// The client knows none of its codecs.
    CodecUnsupported,
}
