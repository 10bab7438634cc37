//! Requests of `RoomService` into what the rest of the crate takes.

use std::collections::BTreeSet;
use std::time::Duration;

use headwater_control_core::room::{DEPARTURE_TIMEOUT, EMPTY_TIMEOUT};
use headwater_model::{Grants, RoomId};
use headwater_proto::v1::{
    CreateRoomRequest, IssueTokenRequest, Room, UpdateParticipantRequest, UpdateRoomRequest,
};
use headwater_rpc::status;
use tonic::Status;

use super::{TOKEN_TTL, TOKEN_TTL_MAX};
use crate::input;
use crate::names;
use crate::participants::ParticipantChange;
use crate::rooms::{NewRoom, RoomChange};

const ROOM_FIELDS: &[&str] =
    &["metadata", "max_participants", "empty_timeout", "departure_timeout"];
const PARTICIPANT_FIELDS: &[&str] = &["display_name", "metadata", "attributes", "permission"];

pub(super) fn new_room(request: &CreateRoomRequest) -> Result<NewRoom, Status> {
    input::request_id(&request.request_id)?;
    let id = names::room_id("room_id", &request.room_id)?;
    let absent = Room::default();
    let room = request.room.as_ref().unwrap_or(&absent);
    let (empty_timeout, departure_timeout) = timeouts(room)?;
    input::metadata("room.metadata", &room.metadata)?;
    Ok(NewRoom {
        id,
        metadata: room.metadata.clone(),
        max_participants: room.max_participants,
        empty_timeout,
        departure_timeout,
        request_id: request.request_id.clone(),
    })
}

pub(super) fn room_change(request: &UpdateRoomRequest) -> Result<(RoomId, RoomChange), Status> {
    input::request_id(&request.request_id)?;
    let absent = Room::default();
    let room = request.room.as_ref().unwrap_or(&absent);
    let id = names::parse_room("room.name", &room.name)?;
    let mask = input::mask(request.update_mask.as_ref(), ROOM_FIELDS)?;
    let named = |field: &str| mask.as_ref().is_none_or(|mask| mask.contains(field));
    let (empty_timeout, departure_timeout) = timeouts(room)?;
    input::metadata("room.metadata", &room.metadata)?;
    let change = RoomChange {
        metadata: named("metadata").then(|| room.metadata.clone()),
        max_participants: named("max_participants").then_some(room.max_participants),
        empty_timeout: named("empty_timeout").then_some(empty_timeout),
        departure_timeout: named("departure_timeout").then_some(departure_timeout),
        etag: room.etag.clone(),
        request_id: request.request_id.clone(),
    };
    Ok((id, change))
}

fn timeouts(room: &Room) -> Result<(Duration, Duration), Status> {
    let empty = room.empty_timeout.as_ref();
    let departure = room.departure_timeout.as_ref();
    Ok((
        input::room_timeout("room.empty_timeout", empty, EMPTY_TIMEOUT)?,
        input::room_timeout("room.departure_timeout", departure, DEPARTURE_TIMEOUT)?,
    ))
}

/// The rooms a list is limited to; empty means all.
pub(super) fn wanted_rooms(names: &[String]) -> Result<BTreeSet<RoomId>, Status> {
    input::count("names", names.len())?;
    names.iter().map(|name| names::parse_room("names", name)).collect()
}

/// Names a list of rooms, for its page tokens.
pub(super) fn list_of(wanted: &BTreeSet<RoomId>) -> String {
    let names = wanted.iter().map(RoomId::as_str);
    // No room has a `/` in its id, so no two lists have one name.
    std::iter::once("rooms").chain(names).collect::<Vec<_>>().join("/")
}

pub(super) fn token_ttl(ttl: Option<&prost_types::Duration>) -> Result<Duration, Status> {
    let Some(ttl) = ttl else { return Ok(TOKEN_TTL) };
    let ttl = Duration::from_secs(input::duration("ttl", ttl)?.as_secs());
    if ttl.is_zero() || ttl > TOKEN_TTL_MAX {
        return Err(status::invalid_argument("ttl", "must be from 1 s to 24 h"));
    }
    Ok(ttl)
}

/// What a minted token says: the join of one room and nothing else.
pub(super) fn token_grants(
    request: IssueTokenRequest,
    room: &RoomId,
    api_key: String,
) -> Result<Grants, Status> {
    let identity = names::identity("identity", &request.identity)?;
    input::display_name("display_name", &request.display_name)?;
    input::metadata("metadata", &request.metadata)?;
    input::attributes("attributes", &request.attributes)?;
    let permission = request
        .permission
        .as_ref()
        .map(|permission| input::permission("permission", permission))
        .transpose()?
        .unwrap_or_default();
    Ok(Grants {
        api_key,
        identity: identity.into_string(),
        display_name: request.display_name,
        metadata: request.metadata,
        attributes: request.attributes.into_iter().collect(),
        room: room.as_str().to_owned(),
        room_join: true,
        permission,
        ..Grants::default()
    })
}

/// What to change of a participant: what the mask names, else what is set.
pub(super) fn participant_change(
    request: UpdateParticipantRequest,
) -> Result<ParticipantChange, Status> {
    let mask = input::mask(request.update_mask.as_ref(), PARTICIPANT_FIELDS)?;
    let participant = request.participant.unwrap_or_default();
    let named =
        |field: &str, is_set: bool| mask.as_ref().map_or(is_set, |mask| mask.contains(field));
    input::display_name("participant.display_name", &participant.display_name)?;
    input::metadata("participant.metadata", &participant.metadata)?;
    input::attributes("participant.attributes", &participant.attributes)?;
    if let Some(permission) = &request.permission {
        input::permission("permission", permission)?;
    }
    let mask_names_permission = mask.as_ref().is_some_and(|mask| mask.contains("permission"));
    let whole = request.update_mask.as_ref().is_some_and(|mask| mask.paths == ["*"]);
    if mask_names_permission && request.permission.is_none() && !whole {
        return Err(status::invalid_argument("permission", "must be set if the mask names it"));
    }
    let display_name = participant.display_name;
    let metadata = participant.metadata;
    let attributes = participant.attributes;
    Ok(ParticipantChange {
        display_name: named("display_name", !display_name.is_empty()).then_some(display_name),
        metadata: named("metadata", !metadata.is_empty()).then_some(metadata),
        attributes: if named("attributes", true) { attributes } else { Default::default() },
        permission: request.permission.filter(|_| named("permission", true)),
    })
}

#[cfg(test)]
mod tests {
    use headwater_proto::v1::{Participant, ParticipantPermission};
    use prost_types::FieldMask;

    use super::*;

    fn update(mask: &[&str]) -> UpdateParticipantRequest {
        let paths: Vec<_> = mask.iter().map(|path| (*path).to_owned()).collect();
        UpdateParticipantRequest {
            participant: Some(Participant {
                display_name: "Ada".into(),
                attributes: [("hand".to_owned(), "up".to_owned())].into(),
                ..Participant::default()
            }),
            permission: None,
            update_mask: (!paths.is_empty()).then_some(FieldMask { paths }),
        }
    }

    #[test]
    fn without_a_mask_what_is_set_changes() {
        let change = participant_change(update(&[])).unwrap();
        assert_eq!(change.display_name.as_deref(), Some("Ada"));
        assert_eq!(change.metadata, None);
        assert_eq!(change.attributes.len(), 1);
        assert_eq!(change.permission, None);
    }

    #[test]
    fn with_a_mask_what_it_names_changes_even_to_nothing() {
        let change = participant_change(update(&["metadata"])).unwrap();
        assert_eq!(change.metadata.as_deref(), Some(""));
        assert_eq!((change.display_name, change.attributes.len()), (None, 0));
    }

    #[test]
    fn a_mask_that_names_permission_needs_one() {
        assert!(participant_change(update(&["permission"])).is_err());
        let permission = Some(ParticipantPermission::default());
        let request = UpdateParticipantRequest { permission, ..update(&["permission"]) };
        assert!(participant_change(request).unwrap().permission.is_some());
    }

    #[test]
    fn lists_of_different_rooms_have_different_names() {
        let wanted = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| format!("rooms/{name}")).collect();
            list_of(&wanted_rooms(&names).unwrap())
        };
        assert_eq!(wanted(&["b", "a"]), wanted(&["a", "b"]));
        assert_ne!(wanted(&["ab"]), wanted(&["a", "b"]));
        assert_ne!(wanted(&[]), wanted(&["a"]));
    }

    #[test]
    fn a_token_lives_from_a_second_to_a_day() {
        let ttl = |seconds| token_ttl(Some(&prost_types::Duration { seconds, nanos: 0 }));
        assert_eq!(token_ttl(None).unwrap(), TOKEN_TTL);
        assert_eq!(ttl(60).unwrap(), Duration::from_secs(60));
        assert!(ttl(0).is_err() && ttl(-5).is_err() && ttl(86_401).is_err());
    }
}
