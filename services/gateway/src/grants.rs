//! Permissions between the model and the wire.

use headwater_model::grants::Permission;
use headwater_model::media::TrackSource;
use headwater_proto::v1;

/// The permission a node is told.
pub(crate) fn wire_permission(permission: &Permission) -> v1::ParticipantPermission {
    v1::ParticipantPermission {
        can_subscribe: permission.can_subscribe,
        can_publish: permission.can_publish,
        can_publish_data: permission.can_publish_data,
        can_publish_sources: permission
            .can_publish_sources
            .iter()
            .map(|source| wire_source(*source).into())
            .collect(),
        hidden: permission.hidden,
        can_update_metadata: permission.can_update_metadata,
    }
}

/// A source on the wire.
pub(crate) fn wire_source(source: TrackSource) -> v1::TrackSource {
    match source {
        TrackSource::Unknown => v1::TrackSource::Unspecified,
        TrackSource::Camera => v1::TrackSource::Camera,
        TrackSource::Microphone => v1::TrackSource::Microphone,
        TrackSource::ScreenShare => v1::TrackSource::ScreenShare,
        TrackSource::ScreenShareAudio => v1::TrackSource::ScreenShareAudio,
    }
}

/// The permission a node tells.
pub(crate) fn permission_of(wire: &v1::ParticipantPermission) -> Permission {
    Permission {
        can_subscribe: wire.can_subscribe,
        can_publish: wire.can_publish,
        can_publish_data: wire.can_publish_data,
        can_publish_sources: wire.can_publish_sources().map(source_of).collect(),
        hidden: wire.hidden,
        can_update_metadata: wire.can_update_metadata,
    }
}

fn source_of(source: v1::TrackSource) -> TrackSource {
    match source {
        v1::TrackSource::Unspecified => TrackSource::Unknown,
        v1::TrackSource::Camera => TrackSource::Camera,
        v1::TrackSource::Microphone => TrackSource::Microphone,
        v1::TrackSource::ScreenShare => TrackSource::ScreenShare,
        v1::TrackSource::ScreenShareAudio => TrackSource::ScreenShareAudio,
    }
}
