//! What one replica tells one node on one agent stream: the difference between
//! the rooms whose plan names the node and the rooms it was told of or reports.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use headwater_model::{Epoch, NodeId, RoomId, RoomUid, ShardIndex};

use crate::lifetime;
use crate::node::NodeView;
use crate::room::{IntendedRoom, RoomReport, RoomSpec};
use crate::state::Intended;

/// How long an order may take to show in the node's reports before it is given
/// again: three reports. Shorter repeats orders that are on their way.
pub const REPEAT_AFTER: Duration = Duration::from_secs(3);
/// How long a node may report a room that the registry does not know before the
/// registry is asked: what the watch brings may only be late.
pub const STRANGER_AFTER: Duration = Duration::from_secs(2);

/// Why a node is told to let go of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReleaseReason {
    /// The platform deleted it.
    Deleted,
    /// It stood empty for as long as it may.
    Closed,
    /// It lives elsewhere now.
    PlanStale,
}

/// One thing to tell a node, or to find out before telling it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Carry this room, with its present spec and plan.
    Assign {
        /// The room.
        room: RoomId,
        /// The shard of the node.
        shard: ShardIndex,
    },
    /// Let go of this room, unless it is carried at a higher epoch.
    Release {
        /// The room.
        room: RoomId,
        /// The shard of the node; none means all of them.
        shard: Option<ShardIndex>,
        /// The epoch.
        epoch: Epoch,
        /// What its participants are told.
        reason: ReleaseReason,
    },
    /// Read from the registry whether this room exists; release it with this
    /// epoch and reason if it does not.
    Verify {
        /// The room.
        room: RoomId,
        /// The shard that carries it.
        shard: ShardIndex,
        /// The incarnation that the node carries.
        uid: RoomUid,
        /// The epoch it carries it at.
        epoch: Epoch,
        /// What participants are told if it does not exist.
        reason: ReleaseReason,
    },
}

#[derive(Debug, Clone)]
struct Told {
    spec: RoomSpec,
    spec_revision: u64,
    epoch: Epoch,
    at: Instant,
}

/// A room on one shard of the node.
type Carried = (RoomId, ShardIndex);

#[derive(Debug, Clone, Copy)]
struct Stranger {
    since: Instant,
    ordered: Option<Instant>,
}

/// What was told on one agent stream. Begin with a new one for every stream:
/// then the first orders are the full set. Bounded by the rooms of the node's shards.
#[derive(Debug, Default)]
pub struct AgentLedger {
    told: BTreeMap<Carried, Told>,
    strangers: BTreeMap<Carried, Stranger>,
    reported_at: Option<Instant>,
}

impl AgentLedger {
    /// When the node reported last.
    #[must_use]
    pub fn reported_at(&self) -> Option<Instant> {
        self.reported_at
    }

    /// Notes that the node reported, so that what it did not report is missing.
    pub fn handle_report(&mut self, now: Instant) {
        self.reported_at = Some(now);
    }

    /// Epoch at which a shard of the node was told of a room on this stream.
    #[must_use]
    pub fn told_epoch(&self, room: &RoomId, shard: ShardIndex) -> Option<Epoch> {
        self.told.get(&(room.clone(), shard)).map(|told| told.epoch)
    }

    /// What to tell the node now, releases first. What is returned counts as
    /// told: a caller that cannot deliver it must end the stream.
    pub fn orders(
        &mut self,
        now: Instant,
        node: &NodeId,
        intended: &Intended,
        view: &NodeView,
    ) -> Vec<Order> {
        let mut orders = Vec::new();
        self.release_told(node, intended, view, &mut orders);
        self.release_strangers(now, node, intended, view, &mut orders);
        self.assign(now, node, intended, view, &mut orders);
        orders
    }

    /// Lets go of what was told on this stream and is no longer intended here.
    fn release_told(
        &mut self,
        node: &NodeId,
        intended: &Intended,
        view: &NodeView,
        orders: &mut Vec<Order>,
    ) {
        self.told.retain(|(id, shard), told| {
            let room = intended.rooms().get(id);
            let same_incarnation = room.is_some_and(|room| room.spec.uid == told.spec.uid);
            if same_incarnation && room.is_some_and(|room| names(room, node, *shard)) {
                return true;
            }
            let elsewhere_here =
                same_incarnation && room.is_some_and(|room| names_node(room, node));
            let (epoch, reason) = match room {
                Some(room) if same_incarnation => {
                    (room.epoch().max(told.epoch), ReleaseReason::PlanStale)
                }
                Some(_) | None => (told.epoch, end_reason(told, view.report(id, *shard))),
            };
            let shard = elsewhere_here.then_some(*shard);
            orders.push(Order::Release { room: id.clone(), shard, epoch, reason });
            false
        });
    }

    /// Lets go of what the node reports and should not carry: from before this
    /// stream, or taken in by a join that was under way when the room ended.
    fn release_strangers(
        &mut self,
        now: Instant,
        node: &NodeId,
        intended: &Intended,
        view: &NodeView,
        orders: &mut Vec<Order>,
    ) {
        let told = &self.told;
        self.strangers.retain(|carried, _| {
            view.report(&carried.0, carried.1).is_some() && !told.contains_key(carried)
        });
        let reports = view.reports.iter();
        for (id, report) in reports.flat_map(|(id, them)| them.iter().map(move |it| (id, it))) {
            let carried = (id.clone(), report.shard);
            if self.told.contains_key(&carried) {
                continue;
            }
            let Some(order) = order_for_stranger(id, report, intended.rooms().get(id), node) else {
                continue;
            };
            let stranger =
                self.strangers.entry(carried).or_insert(Stranger { since: now, ordered: None });
            let certain = matches!(order, Order::Release { .. });
            let ripe = certain || now.saturating_duration_since(stranger.since) >= STRANGER_AFTER;
            let due =
                stranger.ordered.is_none_or(|at| now.saturating_duration_since(at) >= REPEAT_AFTER);
            if ripe && due {
                stranger.ordered = Some(now);
                orders.push(order);
            }
        }
    }

    /// Hands over what is intended here and not told yet, changed since, or
    /// missing from the reports for too long.
    fn assign(
        &mut self,
        now: Instant,
        node: &NodeId,
        intended: &Intended,
        view: &NodeView,
        orders: &mut Vec<Order>,
    ) {
        for (id, room) in intended.rooms_of(node) {
            for (_, planned) in room.plan.iter().flat_map(|plan| plan.shards_of(node)) {
                let carried = (id.clone(), planned.shard);
                let up_to_date = self.told.get(&carried).is_some_and(|told| {
                    told.spec_revision == room.spec_revision
                        && told.epoch == room.epoch()
                        && !self.is_missing(now, told, view.report(id, planned.shard))
                });
                if up_to_date {
                    continue;
                }
                let told = Told {
                    spec: room.spec.clone(),
                    spec_revision: room.spec_revision,
                    epoch: room.epoch(),
                    at: now,
                };
                self.told.insert(carried, told);
                orders.push(Order::Assign { room: id.clone(), shard: planned.shard });
            }
        }
    }

    /// Whether the node was told long ago and has since reported without it.
    fn is_missing(&self, now: Instant, told: &Told, report: Option<&RoomReport>) -> bool {
        let carried = report.is_some_and(|report| report.epoch >= told.epoch);
        let had_time = now.saturating_duration_since(told.at) >= REPEAT_AFTER;
        let reported_since = self.reported_at.is_some_and(|at| at > told.at);
        !carried && had_time && reported_since
    }
}

fn names_node(room: &IntendedRoom, node: &NodeId) -> bool {
    room.plan.as_ref().is_some_and(|plan| plan.names(node))
}

fn names(room: &IntendedRoom, node: &NodeId, shard: ShardIndex) -> bool {
    let mut shards = room.plan.iter().flat_map(|plan| plan.shards_of(node));
    shards.any(|(_, planned)| planned.shard == shard)
}

/// Whether a room that is gone stood empty, or was taken from its participants.
fn end_reason(told: &Told, report: Option<&RoomReport>) -> ReleaseReason {
    match report {
        Some(report) if lifetime::is_over(&told.spec, told.epoch, report) => ReleaseReason::Closed,
        Some(_) | None => ReleaseReason::Deleted,
    }
}

fn order_for_stranger(
    id: &RoomId,
    report: &RoomReport,
    room: Option<&IntendedRoom>,
    node: &NodeId,
) -> Option<Order> {
    let shard = report.shard;
    let release =
        |shard, epoch, reason| Some(Order::Release { room: id.clone(), shard, epoch, reason });
    let known = room.filter(|room| room.epoch() >= report.epoch);
    let Some(room) = known else {
        // Unknown, or carried at an epoch that we have not heard of: our view
        // may be behind, so only the registry itself can tell.
        let reason =
            if report.participants == 0 { ReleaseReason::Closed } else { ReleaseReason::Deleted };
        return Some(Order::Verify {
            room: id.clone(),
            shard,
            uid: report.uid.clone(),
            epoch: report.epoch,
            reason,
        });
    };
    if room.spec.uid != report.uid {
        // An older incarnation; its participants must not slip into the new one.
        return release(None, report.epoch, ReleaseReason::Deleted);
    }
    if names(room, node, shard) {
        return None;
    }
    // Another shard of this node may carry it; that one must keep it.
    let shard = names_node(room, node).then_some(shard);
    release(shard, room.epoch(), ReleaseReason::PlanStale)
}

#[cfg(test)]
mod tests;
