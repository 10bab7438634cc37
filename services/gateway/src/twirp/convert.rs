//! Between LiveKit's server API and `headwater.v1`: names, rooms, participants,
//! tracks. Pure.

use headwater_model::ids::{Identity, RoomId};
use headwater_proto::v1;
use livekit_protocol as lk;

use super::error::{TwirpCode, TwirpError};
use crate::grants::{permission_of, wire_permission};
use crate::livekit::info;

/// `rooms/{room}` of a request's room.
pub(crate) fn room_name(room: &str) -> Result<String, TwirpError> {
    if room.is_empty() {
        return Err(TwirpError::new(TwirpCode::InvalidArgument, "no room name"));
    }
    let id = RoomId::new(room).map_err(|error| {
        TwirpError::new(TwirpCode::InvalidArgument, format!("room name {error}"))
    })?;
    Ok(format!("rooms/{}", id.as_str()))
}

/// `rooms/{room}/participants/{identity}` of a request's room and identity.
pub(crate) fn participant_name(room: &str, identity: &str) -> Result<String, TwirpError> {
    let room = room_name(room)?;
    let identity = Identity::new(identity).map_err(|error| {
        TwirpError::new(TwirpCode::InvalidArgument, format!("identity {error}"))
    })?;
    Ok(format!("{room}/participants/{}", identity.as_str()))
}

/// The room that a creation asks for.
pub(crate) fn wanted_room(request: &lk::CreateRoomRequest) -> v1::Room {
    v1::Room {
        metadata: request.metadata.clone(),
        max_participants: request.max_participants,
        empty_timeout: timeout(request.empty_timeout),
        departure_timeout: timeout(request.departure_timeout),
        ..Default::default()
    }
}

/// The fields of a room that a creation names, for a room that exists already.
pub(crate) fn named_fields(request: &lk::CreateRoomRequest) -> Vec<String> {
    [
        ("metadata", !request.metadata.is_empty()),
        ("max_participants", request.max_participants != 0),
        ("empty_timeout", request.empty_timeout != 0),
        ("departure_timeout", request.departure_timeout != 0),
    ]
    .into_iter()
    .filter(|(_, named)| *named)
    .map(|(field, _)| field.to_owned())
    .collect()
}

/// Zero means the default.
fn timeout(seconds: u32) -> Option<prost_types::Duration> {
    (seconds != 0).then(|| prost_types::Duration { seconds: i64::from(seconds), nanos: 0 })
}

/// What a participant update names. LiveKit cannot set anything to nothing.
pub(crate) fn participant_update(
    request: lk::UpdateParticipantRequest,
) -> Result<v1::UpdateParticipantRequest, TwirpError> {
    let paths = [
        ("display_name", !request.name.is_empty()),
        ("metadata", !request.metadata.is_empty()),
        ("attributes", !request.attributes.is_empty()),
        ("permission", request.permission.is_some()),
    ]
    .into_iter()
    .filter(|(_, named)| *named)
    .map(|(field, _)| field.to_owned())
    .collect();
    Ok(v1::UpdateParticipantRequest {
        participant: Some(v1::Participant {
            name: participant_name(&request.room, &request.identity)?,
            display_name: request.name,
            metadata: request.metadata,
            attributes: request.attributes.into_iter().collect(),
            ..Default::default()
        }),
        permission: request.permission.as_ref().map(permission),
        update_mask: Some(prost_types::FieldMask { paths }),
    })
}

fn permission(permission: &lk::ParticipantPermission) -> v1::ParticipantPermission {
    let wire = v1::ParticipantPermission {
        can_subscribe: permission.can_subscribe,
        can_publish: permission.can_publish,
        can_publish_data: permission.can_publish_data,
        can_publish_sources: permission.can_publish_sources.clone(),
        hidden: permission.hidden,
        can_update_metadata: permission.can_update_metadata,
    };
    // There and back: sources that are not known become unknown.
    wire_permission(&permission_of(&wire))
}

/// A participant as the server API tells it. What only its door knows is not
/// told: the control plane does not know it either.
pub(crate) fn participant(participant: &v1::Participant) -> lk::ParticipantInfo {
    let joined = participant.join_time.unwrap_or_default();
    let state = match participant.state() {
        v1::ParticipantState::Unspecified => lk::participant_info::State::Joining,
        v1::ParticipantState::Joined => lk::participant_info::State::Joined,
        v1::ParticipantState::Active => lk::participant_info::State::Active,
    };
    lk::ParticipantInfo {
        sid: participant.uid.clone(),
        identity: participant.identity.clone(),
        state: i32::from(state),
        tracks: participant.tracks.iter().map(track).collect(),
        metadata: participant.metadata.clone(),
        joined_at: joined.seconds,
        joined_at_ms: joined.seconds.saturating_mul(1000) + i64::from(joined.nanos / 1_000_000),
        name: participant.display_name.clone(),
        is_publisher: !participant.tracks.is_empty(),
        attributes: participant.attributes.clone().into_iter().collect(),
        permission: participant
            .hidden
            .then(|| lk::ParticipantPermission { hidden: true, ..Default::default() }),
        ..Default::default()
    }
}

/// A track as the server API tells it.
pub(crate) fn track(track: &v1::Track) -> lk::TrackInfo {
    info::track(&headwater_proto::node::v1::Track {
        track: Some(track.clone()),
        ..Default::default()
    })
}
