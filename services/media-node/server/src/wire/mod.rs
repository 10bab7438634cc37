//! Between the wire (`headwater.node.v1`) and the rooms' own types. Everything is
//! checked once, on receipt; what is wrong is named.

mod control;
mod inbound;
mod outbound;
mod plan;
pub mod relayed;
mod view;

pub use control::{
    Assignment, Release, assignment, control_command, data_message, release, report,
};
pub use inbound::{Inbound, command, join};
pub use outbound::event;
pub use plan::Part;
pub use view::participant;

use headwater_model::ids::IdError;
use headwater_model::media::{MediaKind, TrackSource};
use headwater_model::{Permission, TrackUid};
use headwater_proto::v1;
use headwater_room::CloseReason;
use tonic::Status;

/// What is wrong with a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// An id is no id.
    #[error("{field} {source}")]
    Id {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        source: IdError,
    },
    /// A list is longer than it may be.
    #[error("{field} has more than {limit} entries")]
    TooMany {
        /// The field.
        field: &'static str,
        /// Its limit.
        limit: usize,
    },
    /// A value is none of its kind.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// Two values exclude each other.
    #[error("{0} contradict each other")]
    Contradiction(&'static str),
    /// `join` came twice, or not first.
    #[error("join must be the first message, and only that")]
    JoinOutOfPlace,
}

impl From<WireError> for Status {
    fn from(error: WireError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// Entries of any list in one message. A client that shows a thousand tracks at
/// once is beyond what a person can look at.
const ENTRIES_MAX: usize = 4_096;

fn bounded<T>(field: &'static str, list: Vec<T>) -> Result<Vec<T>, WireError> {
    if list.len() > ENTRIES_MAX {
        return Err(WireError::TooMany { field, limit: ENTRIES_MAX });
    }
    Ok(list)
}

fn track_uids(list: Vec<String>) -> Result<Vec<TrackUid>, WireError> {
    Ok(bounded("track_uids", list)?.into_iter().map(TrackUid::from_raw).collect())
}

fn source_from(source: i32) -> TrackSource {
    match v1::TrackSource::try_from(source).unwrap_or_default() {
        v1::TrackSource::Unspecified => TrackSource::Unknown,
        v1::TrackSource::Camera => TrackSource::Camera,
        v1::TrackSource::Microphone => TrackSource::Microphone,
        v1::TrackSource::ScreenShare => TrackSource::ScreenShare,
        v1::TrackSource::ScreenShareAudio => TrackSource::ScreenShareAudio,
    }
}

const fn source_to(source: TrackSource) -> v1::TrackSource {
    match source {
        TrackSource::Unknown => v1::TrackSource::Unspecified,
        TrackSource::Camera => v1::TrackSource::Camera,
        TrackSource::Microphone => v1::TrackSource::Microphone,
        TrackSource::ScreenShare => v1::TrackSource::ScreenShare,
        TrackSource::ScreenShareAudio => v1::TrackSource::ScreenShareAudio,
    }
}

fn kind_from(kind: i32) -> Option<MediaKind> {
    match v1::TrackKind::try_from(kind).unwrap_or_default() {
        v1::TrackKind::Unspecified => None,
        v1::TrackKind::Audio => Some(MediaKind::Audio),
        v1::TrackKind::Video => Some(MediaKind::Video),
    }
}

const fn kind_to(kind: MediaKind) -> v1::TrackKind {
    match kind {
        MediaKind::Audio => v1::TrackKind::Audio,
        MediaKind::Video => v1::TrackKind::Video,
    }
}

fn permission_from(permission: v1::ParticipantPermission) -> Permission {
    Permission {
        can_subscribe: permission.can_subscribe,
        can_publish: permission.can_publish,
        can_publish_data: permission.can_publish_data,
        can_publish_sources: permission.can_publish_sources.into_iter().map(source_from).collect(),
        hidden: permission.hidden,
        can_update_metadata: permission.can_update_metadata,
    }
}

fn permission_to(permission: &Permission) -> v1::ParticipantPermission {
    v1::ParticipantPermission {
        can_subscribe: permission.can_subscribe,
        can_publish: permission.can_publish,
        can_publish_data: permission.can_publish_data,
        can_publish_sources: permission
            .can_publish_sources
            .iter()
            .map(|source| source_to(*source).into())
            .collect(),
        hidden: permission.hidden,
        can_update_metadata: permission.can_update_metadata,
    }
}

fn close_reason_from(reason: i32) -> CloseReason {
    use headwater_proto::node::v1::CloseReason as Wire;
    match Wire::try_from(reason).unwrap_or_default() {
        Wire::Unspecified => CloseReason::Unspecified,
        Wire::ClientLeft => CloseReason::ClientLeft,
        Wire::DuplicateIdentity => CloseReason::DuplicateIdentity,
        Wire::ServerShutdown => CloseReason::ServerShutdown,
        Wire::Removed => CloseReason::Removed,
        Wire::RoomDeleted => CloseReason::RoomDeleted,
        Wire::StateMismatch => CloseReason::StateMismatch,
        Wire::JoinTimeout => CloseReason::JoinTimeout,
        Wire::ConnectionLost => CloseReason::ConnectionLost,
        Wire::SignalLost => CloseReason::SignalLost,
        Wire::PlanStale => CloseReason::PlanStale,
        Wire::RoomFull => CloseReason::RoomFull,
        Wire::ProtocolError => CloseReason::ProtocolError,
        Wire::Migration => CloseReason::Migration,
        Wire::RoomClosed => CloseReason::RoomClosed,
    }
}

const fn close_reason_to(reason: CloseReason) -> headwater_proto::node::v1::CloseReason {
    use headwater_proto::node::v1::CloseReason as Wire;
    match reason {
        CloseReason::Unspecified => Wire::Unspecified,
        CloseReason::ClientLeft => Wire::ClientLeft,
        CloseReason::DuplicateIdentity => Wire::DuplicateIdentity,
        CloseReason::ServerShutdown => Wire::ServerShutdown,
        CloseReason::Removed => Wire::Removed,
        CloseReason::RoomDeleted => Wire::RoomDeleted,
        CloseReason::StateMismatch => Wire::StateMismatch,
        CloseReason::JoinTimeout => Wire::JoinTimeout,
        CloseReason::ConnectionLost => Wire::ConnectionLost,
        CloseReason::SignalLost => Wire::SignalLost,
        CloseReason::PlanStale => Wire::PlanStale,
        CloseReason::RoomFull => Wire::RoomFull,
        CloseReason::ProtocolError => Wire::ProtocolError,
        CloseReason::Migration => Wire::Migration,
        CloseReason::RoomClosed => Wire::RoomClosed,
    }
}

#[cfg(test)]
mod tests;
