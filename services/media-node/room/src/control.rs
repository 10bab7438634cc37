//! What the control plane asks of a room: plans, and what the platform does to
//! participants.

use std::collections::BTreeMap;

use headwater_model::{Epoch, Identity, Permission, RoomId, TrackUid};

use crate::session::{CloseReason, SubscriptionUpdate};
use crate::view::RoomProperties;

/// Carry this room, or take its new properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomAssignment {
    /// The room.
    pub id: RoomId,
    /// Epoch of the plan; a lower one than the known is ignored.
    pub epoch: Epoch,
    /// What the platform says of it.
    pub properties: RoomProperties,
}

/// Does something to a participant.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlCommand {
    /// The room.
    pub room: RoomId,
    /// Who.
    pub identity: Identity,
    /// What.
    pub action: ControlAction,
}

/// What is done to a participant.
#[derive(Debug, Clone, PartialEq)]
pub enum ControlAction {
    /// End its session.
    Remove {
        /// What it is told.
        reason: CloseReason,
    },
    /// Mute or unmute a track it publishes. Whether unmuting is allowed is
    /// decided before.
    MuteTrack {
        /// The track.
        track: TrackUid,
        /// New state.
        muted: bool,
    },
    /// Change what it is and may do.
    Update(ParticipantUpdate),
    /// Subscribe it to tracks or take them away.
    UpdateSubscription(SubscriptionUpdate),
}

/// Changes of a participant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParticipantUpdate {
    /// New name.
    pub display_name: Option<String>,
    /// New text.
    pub metadata: Option<String>,
    /// Merged; an empty value deletes.
    pub attributes: BTreeMap<String, String>,
    /// New permission, whole.
    pub permission: Option<Permission>,
}

/// Sends a data message into a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataMessage {
    /// The room.
    pub room: RoomId,
    /// The message.
    pub payload: Vec<u8>,
    /// In order and repeated, or once.
    pub reliable: bool,
    /// Who gets it. Empty means everybody.
    pub destinations: Vec<Identity>,
    /// Topic. Empty means none.
    pub topic: String,
}

/// Why the control plane's wish cannot be done. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The room is not here.
    #[error("room {0} is not carried here")]
    RoomNotFound(RoomId),
    /// The participant is not in the room.
    #[error("participant {} is not in the room", .0.short())]
    ParticipantNotFound(Identity),
    /// The participant publishes no such track.
    #[error("track {0} is not published by the participant")]
    TrackNotFound(TrackUid),
    /// A value is longer than it may be.
    #[error("{what} must not be longer than {limit} bytes")]
    TooLong {
        /// Which value.
        what: &'static str,
        /// Its limit.
        limit: usize,
    },
}
