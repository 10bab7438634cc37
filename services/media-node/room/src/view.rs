//! What is told of rooms, participants and tracks: values as they were at one
//! moment, shared by all who are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headwater_model::media::{Codec, MediaKind, TrackSource};
use headwater_model::{Epoch, Identity, ParticipantUid, Permission, RoomId, RoomUid, TrackUid};

use crate::session::CloseReason;

/// What the platform says of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomProperties {
    /// This incarnation, `RM_…`.
    pub uid: RoomUid,
    /// Platform's text.
    pub metadata: String,
    /// Most counted participants at once. 0 means no limit.
    pub max_participants: u32,
    /// How long the room is kept when nobody ever joined.
    pub empty_timeout: Duration,
    /// How long it is kept after the last participant left.
    pub departure_timeout: Duration,
    /// When it was created, milliseconds since the Unix epoch.
    pub create_millis: u64,
    /// Version of these properties in the registry, opaque.
    pub etag: String,
}

/// A room, as its participants see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomView {
    /// Its id.
    pub id: RoomId,
    /// What the platform says of it.
    pub properties: Arc<RoomProperties>,
    /// Epoch of the plan that carries it.
    pub epoch: Epoch,
    /// Counted participants.
    pub participant_count: u32,
    /// Counted participants that publish.
    pub publisher_count: u32,
}

/// A participant, as everybody in the room sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParticipantView {
    /// `PA_…`.
    pub uid: ParticipantUid,
    /// Who it is.
    pub identity: Identity,
    /// Name to show.
    pub display_name: String,
    /// Platform's text.
    pub metadata: String,
    /// Platform's keyed values.
    pub attributes: BTreeMap<String, String>,
    /// Where in its life it is.
    pub phase: ParticipantPhase,
    /// When it joined, milliseconds since the Unix epoch.
    pub join_millis: u64,
    /// Rises with every change.
    pub version: u32,
    /// What it may do.
    pub permission: Permission,
    /// What it publishes, oldest first.
    pub tracks: Vec<TrackView>,
    /// What its door tells the doors of the others.
    pub door_payload: Arc<[u8]>,
    /// Data tracks it publishes, by handle.
    pub data_tracks: Vec<DataTrackView>,
    /// Not counted as a participant of the room.
    pub uncounted: bool,
}

/// Where in its life a participant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParticipantPhase {
    /// Accepted; nothing is connected yet.
    Joined,
    /// Its transport is connected.
    Active,
    /// Gone, and why.
    Left(CloseReason),
}

/// A published track, as everybody in the room sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackView {
    /// `TR_…`.
    pub uid: TrackUid,
    /// Name to show.
    pub display_name: String,
    /// Sound or pictures.
    pub kind: MediaKind,
    /// What it shows.
    pub source: TrackSource,
    /// Nothing is sent on purpose.
    pub muted: bool,
    /// Codec; the declared one until media arrives, none if neither.
    pub codec: Option<Codec>,
    /// Pixels of the full picture; 0 for audio or if not declared.
    pub width: u32,
    /// Pixels of the full picture; 0 for audio or if not declared.
    pub height: u32,
    /// Sent in several encodings at once.
    pub simulcast: bool,
    /// Encodings, lowest quality first.
    pub layers: Vec<VideoLayer>,
    /// Codecs.
    pub codecs: Vec<TrackCodec>,
    /// The audio is stereo.
    pub stereo: bool,
    /// See AddTrack.
    pub disable_red: bool,
    /// See AddTrack.
    pub disable_dtx: bool,
    /// Encrypted end to end.
    pub encrypted: bool,
    /// Group of tracks that are played in step.
    pub stream: String,
    /// Media section of the publisher's transport. Empty until negotiated.
    pub mid: String,
    /// What the publisher's door tells the doors of the others.
    pub door_payload: Arc<[u8]>,
    /// The publisher's id of the track, in what the publisher is told only.
    pub client_track_id: Option<String>,
}

/// Quality of an encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum LayerQuality {
    /// The least.
    Low,
    /// Between.
    Medium,
    /// The best.
    #[default]
    High,
}

/// One declared encoding of a video track.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VideoLayer {
    /// In words.
    pub quality: LayerQuality,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Highest bit rate in bits per second. 0 means not told.
    pub bitrate: u32,
    /// RID. Empty means derived from the order.
    pub rid: String,
}

/// One codec a track is sent in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackCodec {
    /// MIME type such as `video/VP8`.
    pub mime_type: String,
    /// The client's id of the media.
    pub client_track_id: String,
}

/// A data track, as everybody in the room sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataTrackView {
    /// Publisher's number for it, 1 to 65535.
    pub handle: u16,
    /// `DTR_…`.
    pub uid: TrackUid,
    /// Name.
    pub display_name: String,
    /// What the publisher's door tells the doors of the others.
    pub door_payload: Arc<[u8]>,
}

/// Where a data track comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataTrackOrigin {
    /// `DTR_…`.
    pub track: TrackUid,
    /// Publisher, `PA_…`.
    pub publisher: ParticipantUid,
    /// Publisher's identity.
    pub identity: Identity,
}

/// What the control plane wants to know of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomReport {
    /// Its id.
    pub id: RoomId,
    /// Its incarnation.
    pub uid: RoomUid,
    /// Epoch it is carried at.
    pub epoch: Epoch,
    /// Counted participants.
    pub participant_count: u32,
    /// Counted participants that publish.
    pub publisher_count: u32,
    /// How long nobody has been there, since the last left or since the room was
    /// assigned; zero while somebody is there, counted or not.
    pub empty_for: Duration,
    /// Somebody has been there.
    pub ever_joined: bool,
}
