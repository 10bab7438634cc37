//! The part of a room's plan that one shard is told: who feeds it, whom it feeds,
//! and how many of the room's seats are its own.

use headwater_model::{Epoch, NodeId, ShardIndex};
use headwater_proto::node::v1 as wire;
use headwater_relay::{BACKUP_CHILDREN_MAX, CHILDREN_MAX, Peer, PlanSlice, ShardAddress};

use super::WireError;

/// Backups that a slice names at most.
const BACKUPS_MAX: usize = 2;

/// A shard's part of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its place in the tree; without a tree it is the only shard.
    pub slice: PlanSlice,
    /// Most counted participants it may admit. None means no limit but the room's.
    pub seats: Option<u32>,
}

impl Part {
    /// The whole of a plan that names one shard.
    #[must_use]
    pub const fn whole(epoch: Epoch) -> Self {
        Self { slice: PlanSlice::alone(epoch), seats: None }
    }

    /// Whether other shards carry the room too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        let PlanSlice { parent, children, backup_children, .. } = &self.slice;
        parent.is_some() || !children.is_empty() || !backup_children.is_empty()
    }
}

/// Reads a slice, which must be of the plan with this epoch. Its lists keep to the
/// bounds of a tree, and every shard that it takes the room from is before it.
///
/// # Errors
/// What is malformed.
pub fn part(slice: wire::PlanSlice, epoch: Epoch) -> Result<Part, WireError> {
    if slice.epoch != epoch.0 {
        return Err(WireError::Contradiction("slice.epoch and room.plan.epoch"));
    }
    let (rank, seats) = (slice.rank, slice.seats);
    let upstream = |field, peers: Vec<wire::RelayPeer>, limit| {
        let peers = peers_of(field, peers, limit)?;
        if peers.iter().any(|peer| peer.rank >= rank) {
            return Err(WireError::Contradiction("slice.rank and the ranks it leans on"));
        }
        Ok(peers)
    };
    let parent = upstream("slice.parent", slice.parent.into_iter().collect(), 1)?.pop();
    if parent.is_none() != (rank == 0) {
        return Err(WireError::Contradiction("slice.rank and slice.parent"));
    }
    let slice = PlanSlice {
        epoch,
        rank,
        parent,
        backups: upstream("slice.backups", slice.backups, BACKUPS_MAX)?,
        children: peers_of("slice.children", slice.children, CHILDREN_MAX)?,
        backup_children: peers_of(
            "slice.backup_children",
            slice.backup_children,
            BACKUP_CHILDREN_MAX,
        )?,
    };
    Ok(Part { slice, seats })
}

fn peers_of(
    field: &'static str,
    peers: Vec<wire::RelayPeer>,
    limit: usize,
) -> Result<Vec<Peer>, WireError> {
    if peers.len() > limit {
        return Err(WireError::TooMany { field, limit });
    }
    peers.into_iter().map(|one| peer(field, one)).collect()
}

fn peer(field: &'static str, peer: wire::RelayPeer) -> Result<Peer, WireError> {
    let node = NodeId::new(peer.node_id).map_err(|source| WireError::Id { field, source })?;
    let shard = u16::try_from(peer.shard).map_err(|_| WireError::Malformed(field))?;
    let relay_address = match peer.relay_address.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| WireError::Malformed(field))?),
    };
    let address = ShardAddress { node, shard: ShardIndex(shard) };
    Ok(Peer { address, rank: peer.rank, relay_address })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire_peer(node: &str, rank: u32) -> wire::RelayPeer {
        wire::RelayPeer {
            node_id: node.to_owned(),
            shard: 1,
            rank,
            relay_address: "192.0.2.1:7890".to_owned(),
            ..wire::RelayPeer::default()
        }
    }

    fn leaf() -> wire::PlanSlice {
        wire::PlanSlice {
            epoch: 7,
            rank: 5,
            depth: 2,
            home: Some(wire_peer("home", 0)),
            parent: Some(wire_peer("parent", 1)),
            backups: vec![wire_peer("backup", 2)],
            children: vec![wire_peer("child", 9)],
            backup_children: vec![wire_peer("nephew", 8)],
            successors: vec![wire_peer("parent", 1)],
            seats: Some(12),
        }
    }

    #[test]
    fn a_slice_is_read_with_its_seats() {
        let part = part(leaf(), Epoch(7)).unwrap();
        assert_eq!((part.seats, part.slice.epoch, part.slice.rank), (Some(12), Epoch(7), 5));
        assert!(part.is_shared());
        let parent = part.slice.parent.unwrap();
        assert_eq!(parent.address.node.as_str(), "parent");
        assert_eq!(parent.address.shard, ShardIndex(1));
        assert_eq!(parent.relay_address, Some("192.0.2.1:7890".parse().unwrap()));
        assert_eq!(part.slice.backups[0].rank, 2);
        assert_eq!(part.slice.children[0].address.node.as_str(), "child");
        assert_eq!(part.slice.backup_children[0].address.node.as_str(), "nephew");
    }

    #[test]
    fn seats_alone_make_no_tree() {
        let alone = wire::PlanSlice { epoch: 7, seats: Some(3), ..wire::PlanSlice::default() };
        let part = part(alone, Epoch(7)).unwrap();
        assert!(!part.is_shared());
        assert_eq!(part.slice, PlanSlice::alone(Epoch(7)));
        assert_eq!(part.seats, Some(3));
    }

    #[test]
    fn a_peer_on_the_same_node_has_no_address() {
        let mut slice = leaf();
        slice.children[0].relay_address = String::new();
        assert_eq!(part(slice, Epoch(7)).unwrap().slice.children[0].relay_address, None);
    }

    #[test]
    fn a_slice_that_could_hold_a_loop_is_refused() {
        let contradiction =
            |slice| matches!(part(slice, Epoch(7)), Err(WireError::Contradiction(_)));
        assert!(contradiction(wire::PlanSlice { parent: Some(wire_peer("p", 5)), ..leaf() }));
        assert!(contradiction(wire::PlanSlice { backups: vec![wire_peer("b", 6)], ..leaf() }));
        assert!(contradiction(wire::PlanSlice { parent: None, ..leaf() }));
        assert!(contradiction(wire::PlanSlice { rank: 0, ..leaf() }));
        assert!(contradiction(wire::PlanSlice { epoch: 8, ..leaf() }));
    }

    #[test]
    fn what_is_malformed_or_too_long_is_refused() {
        let many = vec![wire_peer("child", 9); CHILDREN_MAX + 1];
        let slice = wire::PlanSlice { children: many, ..leaf() };
        let too_many = WireError::TooMany { field: "slice.children", limit: CHILDREN_MAX };
        assert_eq!(part(slice, Epoch(7)), Err(too_many));
        let broken = |change: fn(&mut wire::RelayPeer)| {
            let mut slice = leaf();
            change(&mut slice.children[0]);
            part(slice, Epoch(7)).is_err()
        };
        assert!(broken(|peer| peer.relay_address = "nowhere".to_owned()));
        assert!(broken(|peer| peer.shard = 70_000));
        assert!(broken(|peer| peer.node_id = "a/b".to_owned()));
    }
}
