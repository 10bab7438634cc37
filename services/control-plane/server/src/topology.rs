//! Trees as operators see them.

use std::collections::BTreeMap;

use headwater_control_core::{NodeView, Plan, PlannedShard, RoomReport, Standing, State};
use headwater_model::{NodeId, RoomId};
use headwater_proto::v1::{GetRoomTopologyResponse, TopologyShard};

use crate::{convert, names};

/// The tree of a room; none if there is no such room.
pub(crate) fn of_room(state: &State, id: &RoomId) -> Option<GetRoomTopologyResponse> {
    let room = state.intended().rooms().get(id)?;
    let Some(plan) = &room.plan else {
        return Some(GetRoomTopologyResponse::default());
    };
    let nodes = &state.observed().nodes;
    let report = |planned: &PlannedShard| {
        let report = nodes.get(&planned.node)?.report(id, planned.shard)?;
        (report.uid == room.spec.uid).then_some(report)
    };
    Some(GetRoomTopologyResponse {
        epoch: plan.epoch.0,
        depth: depth(plan),
        inter_zone_links: inter_zone_links(plan, nodes),
        participant_count: state.observed().count_of(id, room).0,
        shards: shards(plan, nodes, report),
    })
}

/// The shards of a plan, each with what it reports.
pub(crate) fn shards<'a>(
    plan: &Plan,
    nodes: &BTreeMap<NodeId, NodeView>,
    report: impl Fn(&PlannedShard) -> Option<&'a RoomReport>,
) -> Vec<TopologyShard> {
    let depths = plan.depths();
    let mut children: Vec<Vec<u32>> = vec![Vec::new(); plan.shards.len()];
    for (rank, planned) in plan.ranked() {
        let parent = planned.parent.and_then(|parent| children.get_mut(parent.index()));
        if let Some(parent) = parent {
            parent.push(u32::from(rank.0));
        }
    }
    plan.ranked()
        .zip(children)
        .map(|((rank, planned), children)| {
            let node = nodes.get(&planned.node);
            let report = report(planned);
            let standing = node.map_or(Standing::Gone, NodeView::standing);
            TopologyShard {
                node: names::node(&planned.node),
                shard: u32::from(planned.shard.0),
                zone: node.map_or_else(String::new, |node| node.zone.clone()),
                depth: depths.get(rank.index()).copied().map_or(0, u32::from),
                parent: planned.parent.map(|parent| u32::from(parent.0)),
                backups: planned.backups.iter().map(|backup| u32::from(backup.0)).collect(),
                children,
                reported_epoch: report.map_or(0, |report| report.epoch.0),
                participant_count: report.map_or(0, |report| report.participants),
                publisher_count: report.map_or(0, |report| report.publishers),
                seats: planned.seats,
                state: convert::node_state(standing).into(),
            }
        })
        .collect()
}

/// Links between the home and the farthest shard.
pub(crate) fn depth(plan: &Plan) -> u32 {
    plan.depths().into_iter().max().map_or(0, u32::from)
}

/// Links of a plan that cross from one zone to another.
pub(crate) fn inter_zone_links(plan: &Plan, nodes: &BTreeMap<NodeId, NodeView>) -> u32 {
    let zone = |planned: &PlannedShard| nodes.get(&planned.node).map(|node| node.zone.as_str());
    let crossing = plan.shards.iter().filter(|planned| {
        let parent = planned.parent.and_then(|parent| plan.get(parent));
        parent.is_some_and(|parent| zone(parent) != zone(planned))
    });
    u32::try_from(crossing.count()).unwrap_or(u32::MAX)
}
