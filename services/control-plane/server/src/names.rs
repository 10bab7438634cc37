//! Resource names of the public API: `rooms/{room}`,
//! `rooms/{room}/participants/{identity}` and `nodes/{node}`.

use headwater_model::{Identity, NodeId, RoomId};
use headwater_rpc::status;
use tonic::Status;

const ROOMS: &str = "rooms/";
const PARTICIPANTS: &str = "/participants/";
const NODES: &str = "nodes/";

pub(crate) fn room(id: &RoomId) -> String {
    format!("{ROOMS}{id}")
}

pub(crate) fn participant(room: &RoomId, identity: &str) -> String {
    format!("{ROOMS}{room}{PARTICIPANTS}{identity}")
}

pub(crate) fn node(id: &NodeId) -> String {
    format!("{NODES}{id}")
}

/// Reads `rooms/{room}` from a field.
pub(crate) fn parse_room(field: &str, name: &str) -> Result<RoomId, Status> {
    let id = name
        .strip_prefix(ROOMS)
        .ok_or_else(|| status::invalid_argument(field, "must have the form rooms/{room}"))?;
    room_id(field, id)
}

/// Reads `rooms/{room}/participants/{identity}` from a field. A room's id has
/// no `/`, so an identity may.
pub(crate) fn parse_participant(field: &str, name: &str) -> Result<(RoomId, Identity), Status> {
    let (room, identity) = name
        .strip_prefix(ROOMS)
        .and_then(|rest| rest.split_once(PARTICIPANTS))
        .ok_or_else(|| {
            let form = "must have the form rooms/{room}/participants/{identity}";
            status::invalid_argument(field, form)
        })?;
    Ok((room_id(field, room)?, self::identity(field, identity)?))
}

/// Reads `nodes/{node}` from a field.
pub(crate) fn parse_node(field: &str, name: &str) -> Result<NodeId, Status> {
    let id = name
        .strip_prefix(NODES)
        .ok_or_else(|| status::invalid_argument(field, "must have the form nodes/{node}"))?;
    node_id(field, id)
}

/// Reads a bare room id from a field.
pub(crate) fn room_id(field: &str, id: &str) -> Result<RoomId, Status> {
    RoomId::new(id).map_err(|error| status::invalid_argument(field, error.to_string()))
}

/// Reads a bare node id from a field.
pub(crate) fn node_id(field: &str, id: &str) -> Result<NodeId, Status> {
    NodeId::new(id).map_err(|error| status::invalid_argument(field, error.to_string()))
}

/// Reads an identity from a field.
pub(crate) fn identity(field: &str, identity: &str) -> Result<Identity, Status> {
    Identity::new(identity).map_err(|error| status::invalid_argument(field, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let id = RoomId::new("Zürich am See").unwrap();
        assert_eq!(parse_room("name", &room(&id)).unwrap(), id);
        let name = participant(&id, "org/participants/ada");
        let (read_room, identity) = parse_participant("name", &name).unwrap();
        assert_eq!((read_room, identity.as_str()), (id, "org/participants/ada"));
        let node_id = NodeId::new("sfu-1").unwrap();
        assert_eq!(parse_node("name", &node(&node_id)).unwrap(), node_id);
    }

    #[test]
    fn other_texts_are_refused_with_their_field() {
        for name in ["", "rooms/", "room/a", "rooms/a/b", "rooms/a\n", "a"] {
            let status = parse_room("room.name", name).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument, "{name}");
            assert!(status.message().starts_with("room.name "), "{name}");
        }
        for name in ["rooms/a", "rooms/a/participants/", "rooms//participants/x", "participants/x"]
        {
            assert!(parse_participant("name", name).is_err(), "{name}");
        }
    }
}
