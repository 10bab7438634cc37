//! Where each record is kept. The cluster's own prefix (`/headwater/v1`) is not
//! part of a key: the etcd adapter adds it.
//!
//! | key | value | lease | written by |
//! |---|---|---|---|
//! | `nodes/{node}` | [`NodeRecord`](crate::NodeRecord) | the node's | the node |
//! | `lifecycle/{node}` | [`LifecycleRecord`](crate::LifecycleRecord) | none, so that an expiring node cannot erase an order | operator |
//! | `rooms/{room}/spec` | [`RoomRecord`](crate::RoomRecord) | none | API |
//! | `rooms/{room}/plan` | [`PlanRecord`](crate::PlanRecord) | none | planner |
//! | `elections/{name}/leader` | the candidate's name | the leader's | [`Election`](crate::Election) |

use headwater_model::{NodeId, RoomId};

use crate::key::{Key, Prefix};

/// What a key of the schema is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A node's registration.
    Node(NodeId),
    /// An order to a node.
    Lifecycle(NodeId),
    /// What a room shall be.
    RoomSpec(RoomId),
    /// Which shards carry a room.
    RoomPlan(RoomId),
    /// Who leads an election.
    Leader(String),
}

/// Key of a node's registration.
#[must_use]
pub fn node(id: &NodeId) -> Key {
    Key::from_checked(format!("nodes/{id}"))
}

/// All registrations of nodes.
#[must_use]
pub fn nodes() -> Prefix {
    Prefix::from_checked("nodes/".to_owned())
}

/// Key of the order to a node.
#[must_use]
pub fn lifecycle(id: &NodeId) -> Key {
    Key::from_checked(format!("lifecycle/{id}"))
}

/// All orders to nodes.
#[must_use]
pub fn lifecycles() -> Prefix {
    Prefix::from_checked("lifecycle/".to_owned())
}

/// Key of a room's specification.
#[must_use]
pub fn room_spec(id: &RoomId) -> Key {
    Key::from_checked(format!("rooms/{id}/spec"))
}

/// Key of a room's plan.
#[must_use]
pub fn room_plan(id: &RoomId) -> Key {
    Key::from_checked(format!("rooms/{id}/plan"))
}

/// All that is kept of one room.
#[must_use]
pub fn room(id: &RoomId) -> Prefix {
    Prefix::from_checked(format!("rooms/{id}/"))
}

/// All that is kept of all rooms: specifications and plans.
#[must_use]
pub fn rooms() -> Prefix {
    Prefix::from_checked("rooms/".to_owned())
}

/// Key of the leader of an election. A name is lower-case words joined by `-`.
pub(crate) fn leader(name: &str) -> Key {
    Key::from_checked(format!("elections/{name}/leader"))
}

/// The folder of an election.
pub(crate) fn election(name: &str) -> Prefix {
    Prefix::from_checked(format!("elections/{name}/"))
}

/// What a key is about, or `None` if the schema has no such key: a newer
/// version's, or somebody else's.
#[must_use]
pub fn subject(key: &Key) -> Option<Subject> {
    let (folder, rest) = key.as_str().split_once('/')?;
    match folder {
        "nodes" => NodeId::new(rest).ok().map(Subject::Node),
        "lifecycle" => NodeId::new(rest).ok().map(Subject::Lifecycle),
        "rooms" => {
            let (room, leaf) = rest.split_once('/')?;
            let room = RoomId::new(room).ok()?;
            match leaf {
                "spec" => Some(Subject::RoomSpec(room)),
                "plan" => Some(Subject::RoomPlan(room)),
                _ => None,
            }
        }
        "elections" => rest.strip_suffix("/leader").map(|name| Subject::Leader(name.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_schema_is_understood_again() {
        let node_id = NodeId::new("sfu-1.example").unwrap();
        let room_id = RoomId::new("spec").unwrap();
        for (key, expected) in [
            (node(&node_id), Subject::Node(node_id.clone())),
            (lifecycle(&node_id), Subject::Lifecycle(node_id.clone())),
            (room_spec(&room_id), Subject::RoomSpec(room_id.clone())),
            (room_plan(&room_id), Subject::RoomPlan(room_id.clone())),
            (leader("room-cleaner"), Subject::Leader("room-cleaner".to_owned())),
        ] {
            assert_eq!(subject(&key), Some(expected), "{key}");
        }
        assert!(room(&room_id).contains(&room_plan(&room_id)));
        assert!(rooms().contains(&room_spec(&room_id)));
        assert!(nodes().contains(&node(&node_id)));
        assert!(lifecycles().contains(&lifecycle(&node_id)));
        assert!(election("room-cleaner").contains(&leader("room-cleaner")));
    }

    #[test]
    fn strange_keys_are_nobodys() {
        for text in ["nodes", "nodes/a/b", "rooms/r", "rooms/r/stage", "other/x", "elections/a"] {
            assert_eq!(subject(&Key::new(text).unwrap()), None, "{text}");
        }
    }
}
