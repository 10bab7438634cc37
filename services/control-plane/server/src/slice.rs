//! What one shard is told of the plan of a room: the room, and of a tree only
//! its own neighbourhood, so that what is sent does not grow with the room.

use std::collections::BTreeMap;

use headwater_control_core::{IntendedRoom, Plan, PlannedShard, Rank, ShardRef};
use headwater_model::{NodeId, RoomId};
use headwater_proto::node::v1::{AssignRoom, PlanSlice, RelayPeer};
use headwater_registry::NodeRecord;

use crate::convert;

/// Successors that a slice names.
const SUCCESSORS_MAX: usize = 2;

/// The order to carry a room on a shard.
pub(crate) fn assignment(
    id: &RoomId,
    room: &IntendedRoom,
    at: &ShardRef,
    records: &BTreeMap<NodeId, NodeRecord>,
) -> AssignRoom {
    AssignRoom {
        room: Some(convert::room_for_node(id, room)),
        room_id: id.as_str().to_owned(),
        shard: u32::from(at.shard.0),
        slice: room.plan.as_ref().and_then(|plan| slice(plan, at, records)),
    }
}

/// A shard's part of a plan; none if it has no peers and no seats of its own.
fn slice(plan: &Plan, at: &ShardRef, records: &BTreeMap<NodeId, NodeRecord>) -> Option<PlanSlice> {
    let (rank, planned) = plan.ranked().find(|(_, planned)| planned.is(at))?;
    if plan.shards.len() < 2 && planned.seats.is_none() {
        return None;
    }
    let peer = |(rank, planned)| peer(rank, planned, at, records);
    let by_rank = |rank: &Rank| plan.get(*rank).map(|planned| peer((*rank, planned)));
    let home = plan.home()?;
    let successors = plan.ranked().filter(|(_, other)| other.node != home.node);
    Some(PlanSlice {
        epoch: plan.epoch.0,
        rank: u32::from(rank.0),
        depth: plan.depths().get(rank.index()).copied().map_or(0, u32::from),
        home: Some(peer((Rank::HOME, home))),
        parent: planned.parent.as_ref().and_then(by_rank),
        backups: planned.backups.iter().filter_map(by_rank).collect(),
        children: plan.ranked().filter(|(_, it)| it.parent == Some(rank)).map(peer).collect(),
        backup_children: plan
            .ranked()
            .filter(|(_, other)| other.backups.contains(&rank))
            .map(peer)
            .collect(),
        successors: successors.take(SUCCESSORS_MAX).map(peer).collect(),
        seats: planned.seats,
    })
}

fn peer(
    rank: Rank,
    planned: &PlannedShard,
    at: &ShardRef,
    records: &BTreeMap<NodeId, NodeRecord>,
) -> RelayPeer {
    let record = records.get(&planned.node);
    let address = record
        .filter(|_| planned.node != at.node)
        .and_then(|record| record.relay_address)
        .map_or_else(String::new, |address| address.to_string());
    RelayPeer {
        node_id: planned.node.as_str().to_owned(),
        shard: u32::from(planned.shard.0),
        rank: u32::from(rank.0),
        relay_address: address,
        boot_id: record.map_or_else(String::new, |record| record.boot_id.clone()),
        zone: record.map_or_else(String::new, |record| record.zone.clone()),
    }
}
