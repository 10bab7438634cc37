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
    shard: ShardIndex,
    at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Stranger {
    since: Instant,
    ordered: Option<Instant>,
}

/// What was told on one agent stream. Begin with a new one for every stream:
/// then the first orders are the full set. Bounded by the rooms of the node.
#[derive(Debug, Default)]
pub struct AgentLedger {
    told: BTreeMap<RoomId, Told>,
    strangers: BTreeMap<RoomId, Stranger>,
    reported_at: Option<Instant>,
}

impl AgentLedger {
    /// Notes that the node reported, so that what it did not report is missing.
    pub fn handle_report(&mut self, now: Instant) {
        self.reported_at = Some(now);
    }

    /// Epoch at which the node was told of a room on this stream.
    #[must_use]
    pub fn told_epoch(&self, room: &RoomId) -> Option<Epoch> {
        self.told.get(room).map(|told| told.epoch)
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
        self.told.retain(|id, told| {
            let room = intended.rooms().get(id);
            let same_incarnation = room.is_some_and(|room| room.spec.uid == told.spec.uid);
            if same_incarnation && room.is_some_and(|room| names(room, node)) {
                return true;
            }
            let (epoch, reason) = match room {
                Some(room) if same_incarnation => {
                    (room.epoch().max(told.epoch), ReleaseReason::PlanStale)
                }
                Some(_) | None => (told.epoch, end_reason(told, view.reports.get(id))),
            };
            orders.push(Order::Release { room: id.clone(), epoch, reason });
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
        self.strangers.retain(|id, _| view.reports.contains_key(id) && !told.contains_key(id));
        for (id, report) in &view.reports {
            if self.told.contains_key(id) {
                continue;
            }
            let Some(order) = order_for_stranger(id, report, intended.rooms().get(id), node) else {
                continue;
            };
            let stranger =
                self.strangers.entry(id.clone()).or_insert(Stranger { since: now, ordered: None });
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
            let Some(shard) = room.plan.as_ref().and_then(|plan| plan.shard_of(node)) else {
                continue;
            };
            let up_to_date = self.told.get(id).is_some_and(|told| {
                told.spec_revision == room.spec_revision
                    && told.epoch == room.epoch()
                    && told.shard == shard
                    && !self.is_missing(now, told, view.reports.get(id))
            });
            if up_to_date {
                continue;
            }
            let told = Told {
                spec: room.spec.clone(),
                spec_revision: room.spec_revision,
                epoch: room.epoch(),
                shard,
                at: now,
            };
            self.told.insert(id.clone(), told);
            orders.push(Order::Assign { room: id.clone(), shard });
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

fn names(room: &IntendedRoom, node: &NodeId) -> bool {
    room.plan.as_ref().is_some_and(|plan| plan.shard_of(node).is_some())
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
    let release = |epoch, reason| Some(Order::Release { room: id.clone(), epoch, reason });
    let known = room.filter(|room| room.epoch() >= report.epoch);
    let Some(room) = known else {
        // Unknown, or carried at an epoch that we have not heard of: our view
        // may be behind, so only the registry itself can tell.
        let reason =
            if report.participants == 0 { ReleaseReason::Closed } else { ReleaseReason::Deleted };
        return Some(Order::Verify {
            room: id.clone(),
            uid: report.uid.clone(),
            epoch: report.epoch,
            reason,
        });
    };
    if room.spec.uid != report.uid {
        // An older incarnation; its participants must not slip into the new one.
        return release(report.epoch, ReleaseReason::Deleted);
    }
    if names(room, node) { None } else { release(room.epoch(), ReleaseReason::PlanStale) }
}

#[cfg(test)]
mod tests;
