//! A room that several shards carry: what this shard tells the others of its
//! participants, and the participants, tracks and messages that it hears of. Remote
//! participants have no session and no transport here; their media comes over relay
//! links, which are the shell's business.

mod apply;
mod tell;

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_model::media::{Publication, TrackKey, TransportKey};
use headwater_model::{Identity, ParticipantUid, RoomId, TrackUid};

use crate::control::ControlCommand;
use crate::session::SubscriptionPermission;
use crate::view::ParticipantView;

/// A participant as shards tell each other of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteParticipant {
    /// As everybody sees it.
    pub view: Arc<ParticipantView>,
    /// Who may have its tracks.
    pub allow: SubscriptionPermission,
    /// Counts the stays of its identity: of two that claim one identity the higher
    /// is the true one.
    pub incarnation: u64,
}

/// A data message on its way between shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayedMessage {
    /// Who sends it. Absent if the platform does.
    pub sender: Option<Identity>,
    /// Who gets it. Empty means everybody.
    pub destinations: Vec<Identity>,
    /// In order and repeated, or once.
    pub reliable: bool,
    /// The packet, stamped by the sender's shard.
    pub packet: Arc<[u8]>,
}

/// One thing the shell does for a room that several shards carry.
#[derive(Debug, Clone, PartialEq)]
pub enum RelayCommand {
    /// Tell of a participant of this shard, new or changed.
    Put {
        /// The room.
        room: RoomId,
        /// The participant.
        participant: Box<RemoteParticipant>,
    },
    /// A participant of this shard is gone.
    Remove {
        /// The room.
        room: RoomId,
        /// Who.
        identity: Identity,
    },
    /// A track of this shard can be had; again when it was negotiated anew.
    Publish {
        /// The room.
        room: RoomId,
        /// The track.
        track: TrackKey,
        /// Its uid.
        uid: TrackUid,
        /// Who publishes it.
        participant: ParticipantUid,
        /// What was negotiated.
        publication: Publication,
    },
    /// A track of this shard is over.
    Unpublish {
        /// The track.
        track: TrackKey,
    },
    /// Take media of a track of another shard.
    Attach {
        /// The room.
        room: RoomId,
        /// The track's uid.
        uid: TrackUid,
        /// Its key here.
        track: TrackKey,
        /// Stands for its publisher. No client is behind it.
        transport: TransportKey,
    },
    /// Take it no more.
    Detach {
        /// The track.
        track: TrackKey,
    },
    /// Send a data message to the other shards.
    Send {
        /// The room.
        room: RoomId,
        /// The message.
        message: RelayedMessage,
    },
    /// Send a frame of a data track to the other shards.
    SendFrame {
        /// The room.
        room: RoomId,
        /// The data track.
        track: TrackUid,
        /// The frame.
        frame: Arc<[u8]>,
    },
    /// Tell how many of this shard are of the room's audience: counted, not shown.
    Audience {
        /// The room.
        room: RoomId,
        /// Participants.
        participants: u32,
    },
    /// Add to the room's sums of reactions.
    Tally {
        /// The room.
        room: RoomId,
        /// How many of each kind were counted here.
        counts: BTreeMap<Arc<str>, u64>,
    },
    /// Tell every shard that an identity is here, of which nothing else is told.
    Claim {
        /// The room.
        room: RoomId,
        /// Who.
        identity: Identity,
        /// Its stay.
        uid: ParticipantUid,
        /// Of two stays of one identity the higher one is the true one.
        incarnation: u64,
    },
    /// Have the shard of a participant do what the platform wants with it.
    Forward(Box<ControlCommand>),
    /// The room is here no more.
    Close {
        /// The room.
        room: RoomId,
    },
}

/// One thing that another shard tells.
#[derive(Debug, Clone, PartialEq)]
pub enum RemoteEvent {
    /// A participant of another shard is new or changed.
    Put(Box<RemoteParticipant>),
    /// It is gone.
    Gone(Identity),
    /// An identity of this shard joined anew on another one.
    Superseded(Identity),
    /// Media of a track of another shard can be had, or another publication of it.
    MediaAppeared {
        /// The track.
        uid: TrackUid,
        /// What was negotiated with its publisher.
        publication: Publication,
    },
    /// It cannot be had any more.
    MediaGone(TrackUid),
    /// Other shards want these encodings of a track of this shard, one bit for each.
    Wanted {
        /// The track.
        track: TrackKey,
        /// Bit i for the i-th encoding of its publication.
        encodings: u8,
    },
    /// A data message.
    Message(RelayedMessage),
    /// A frame of a data track.
    Frame {
        /// The data track.
        track: TrackUid,
        /// The frame.
        frame: Arc<[u8]>,
    },
    /// The audience of all shards together.
    Audience {
        /// Participants.
        participants: u64,
    },
    /// The room's sums of reactions, by kind.
    Tallied(BTreeMap<Arc<str>, u64>),
    /// An identity is in another shard's audience.
    Claimed {
        /// Who.
        identity: Identity,
        /// Its stay.
        uid: ParticipantUid,
        /// Of two stays of one identity the higher one is the true one.
        incarnation: u64,
    },
    /// The platform wants something with a participant of this shard.
    Control(Box<ControlCommand>),
}

/// What a room that spans shards knows besides its participants.
#[derive(Debug, Default)]
pub(crate) struct Span {
    /// Several shards carry the room.
    pub(crate) is_wide: bool,
    /// Most counted participants of this shard.
    pub(crate) seats: Option<u32>,
    /// Tracks of other shards whose media can be had, with or without their
    /// participant being known. As many as the relay announces: 4,096.
    pub(crate) media: BTreeMap<TrackUid, Publication>,
}
