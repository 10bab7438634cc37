//! How the seats of a room with a limit are shared out over its shards, so that
//! all of them together never admit more than the limit, without asking each
//! other and whatever is lost or late.

use std::collections::BTreeMap;

use headwater_model::{NodeId, RoomId};

use super::shape::Placed;
use crate::node::NodeView;
use crate::room::IntendedRoom;

/// Shares the seats out.
///
/// A seat is given to a shard only when no other shard may still use it: one
/// that was taken away counts as used until its shard reports the plan that took
/// it. So seats move in two plans, the first of which lowers.
pub(super) fn allot(
    shards: &mut [Placed],
    id: &RoomId,
    room: &IntendedRoom,
    nodes: &BTreeMap<NodeId, NodeView>,
) {
    let limit = room.spec.max_participants;
    let was_shared = room.plan.as_ref().is_some_and(|plan| plan.shards.len() > 1);
    if limit == 0 || (shards.len() < 2 && !was_shared) {
        return;
    }
    let held = held(id, room, nodes);
    let mut seats: Vec<u32> = shards
        .iter()
        .map(|shard| if shard.is_old { shard.old_seats.unwrap_or(limit) } else { 0 })
        .collect();
    let all_told = is_told(id, room, nodes);
    if let (Some(held), true) = (held, all_told) {
        let mut free = limit.saturating_sub(held);
        give(&mut free, &mut seats, shards);
        if free == 0 && held >= limit {
            lower(&mut seats, shards, limit);
        }
    }
    for (shard, seats) in shards.iter_mut().zip(seats) {
        shard.planned.seats = Some(seats);
    }
}

/// Seats that may be in use: for every shard that has some, what it was given
/// or, if that was lowered under it, those who are there. None if a shard of
/// the plan cannot be asked.
fn held(id: &RoomId, room: &IntendedRoom, nodes: &BTreeMap<NodeId, NodeView>) -> Option<u32> {
    let plan = room.plan.as_ref()?;
    let mut sum = 0_u32;
    for planned in &plan.shards {
        let given = planned.seats.unwrap_or(room.spec.max_participants);
        let there = nodes
            .get(&planned.node)
            .and_then(|node| node.report(id, planned.shard))
            .map_or(0, |report| report.participants);
        sum = sum.saturating_add(given.max(there));
    }
    // Shards that left the plan, and have not let go of their people yet.
    for (node, report) in nodes
        .iter()
        .flat_map(|(node, view)| view.reports_of(id).iter().map(move |report| (node, report)))
    {
        let planned = plan.shards_of(node).any(|(_, it)| it.shard == report.shard);
        if !planned && report.uid == room.spec.uid {
            sum = sum.saturating_add(report.participants);
        }
    }
    Some(sum)
}

/// Whether every shard has reported the present plan.
fn is_told(id: &RoomId, room: &IntendedRoom, nodes: &BTreeMap<NodeId, NodeView>) -> bool {
    room.plan.as_ref().is_some_and(|plan| {
        plan.shards.iter().all(|planned| {
            let report = nodes.get(&planned.node).and_then(|it| it.report(id, planned.shard));
            report.is_some_and(|report| report.epoch == plan.epoch)
        })
    })
}

/// Gives free seats out, always to the shard with the fewest left.
fn give(free: &mut u32, seats: &mut [u32], shards: &[Placed]) {
    if shards.is_empty() {
        return;
    }
    let count = u32::try_from(shards.len()).unwrap_or(u32::MAX);
    let open: u64 = seats
        .iter()
        .zip(shards)
        .map(|(seats, shard)| u64::from(seats.saturating_sub(shard.participants)))
        .sum();
    let level = (open + u64::from(*free)).div_ceil(u64::from(count));
    for (seats, shard) in seats.iter_mut().zip(shards) {
        let open = u64::from(seats.saturating_sub(shard.participants));
        let more = u32::try_from(level.saturating_sub(open)).unwrap_or(u32::MAX).min(*free);
        *seats += more;
        *free -= more;
    }
}

/// Takes seats from shards that have many left, if another has none: half of
/// what is above the mean, so that the next plan can give them.
fn lower(seats: &mut [u32], shards: &[Placed], limit: u32) {
    let open = |seats: u32, shard: &Placed| seats.saturating_sub(shard.participants);
    let starving = seats.iter().zip(shards).any(|(seats, shard)| open(*seats, shard) == 0);
    let in_all: u32 = seats.iter().zip(shards).map(|(seats, shard)| open(*seats, shard)).sum();
    let count = u32::try_from(shards.len()).unwrap_or(u32::MAX).max(1);
    let mean = in_all.min(limit) / count;
    if !starving || in_all < count {
        return;
    }
    for (seats, shard) in seats.iter_mut().zip(shards) {
        let above = open(*seats, shard).saturating_sub(mean.max(1));
        if open(*seats, shard) > (mean + mean / 2).max(1) {
            *seats -= above;
        }
    }
}
