//! What the planner's loop and the timer do with what is held.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use headwater_control_core::plan::{self, Planned};
use headwater_control_core::{
    Action, Cause, IntendedRoom, Plan, PlanContext, PlannedShard, Standing, Wish, choose,
    next_epoch,
};
use headwater_model::{NodeId, RoomId};
use headwater_telemetry::metrics::{ControlPlaneMetrics, NodeState};

use super::{Cluster, Held};

/// How long after somebody was sent to a room it is not ended: a join takes
/// less, and its node may not have seen it yet.
const GRANT_HOLDS: Duration = Duration::from_secs(5);
/// A plan younger than this is changed only by failures: in a wave of joins
/// every report would make a new one.
const PLAN_RESTS: Duration = Duration::from_secs(2);
/// A plan younger than this is not made smaller: those whom a failure or a drain
/// moved need time to come back.
const PLAN_YOUNG: Duration = Duration::from_secs(60);
/// How long it counts that a zone was asked for.
const ASKED_HOLDS: Duration = Duration::from_secs(30);
/// How long a node that stops by itself has to be emptied: less than any
/// orchestrator waits before it kills.
const LEAVING_TIMEOUT: Duration = Duration::from_secs(10);

impl Cluster {
    /// Counts the nodes, forgets old grants, and sets the gauges.
    pub(crate) fn tick(&self, now: Instant, metrics: &ControlPlaneMetrics) -> Duration {
        let mut held = self.write();
        held.granted.retain(|_, at| now.saturating_duration_since(*at) < GRANT_HOLDS);
        held.planned_at.retain(|_, at| now.saturating_duration_since(*at) < PLAN_YOUNG);
        for zones in held.asked.values_mut() {
            zones.retain(|_, (_, at)| now.saturating_duration_since(*at) < ASKED_HOLDS);
        }
        held.asked.retain(|_, zones| !zones.is_empty());
        held.forget_growth(now);
        held.count(now);
        held.set_gauges(metrics);
        held.stale_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// What the elected replica should do now. `wall` is the time of day, which
    /// the deadlines of drains are in.
    pub(crate) fn plan(&self, now: Instant, wall: SystemTime, region: &str, seed: u64) -> Planned {
        let mut held = self.write();
        if !held.synced || held.stale_since.is_some() {
            return Planned::default();
        }
        let moves = held.allowances(now, wall);
        let mut gone: BTreeSet<NodeId> = held.census.gone(now);
        gone.append(&mut held.belief.given_up());
        let younger = |than: Duration| -> BTreeSet<RoomId> {
            let young = held.planned_at.iter();
            young
                .filter(|(_, at)| now.saturating_duration_since(**at) < than)
                .map(|(room, _)| room.clone())
                .collect()
        };
        let asked: BTreeMap<RoomId, BTreeMap<String, u32>> = held
            .asked
            .iter()
            .map(|(room, zones)| {
                let zones = zones.iter().map(|(zone, (count, _))| (zone.clone(), *count));
                (room.clone(), zones.collect())
            })
            .collect();
        let context = PlanContext {
            gone: &gone,
            frozen: held.census.is_frozen(now),
            region,
            registry_revision: held.revision.0,
            seed,
            moves: &moves,
            asked: &asked,
            young: &younger(PLAN_YOUNG),
            resting: &younger(PLAN_RESTS),
            tree: &self.tree,
        };
        let mut planned = plan::plan(held.state.intended(), held.state.observed(), &context);
        if !context.frozen {
            held.rebalance(now, &mut planned);
        }
        for (node, moved) in &planned.moved {
            if let Some(pace) = held.paces.get_mut(node) {
                pace.spend(*moved);
            }
        }
        planned
    }

    /// Whether somebody was sent to a room so lately that it must not end.
    pub(crate) fn is_awaited(&self, room: &RoomId, now: Instant) -> bool {
        let held = self.read();
        held.granted.get(room).is_some_and(|at| now.saturating_duration_since(*at) < GRANT_HOLDS)
    }

    /// Whether a room has been joined, as its node reports.
    pub(crate) fn was_joined(&self, id: &RoomId, room: &IntendedRoom) -> bool {
        let held = self.read();
        held.state.observed().report_of(id, room).is_some_and(|report| report.ever_joined)
    }
}

impl Held {
    /// How many may be moved off each draining node now.
    fn allowances(&mut self, now: Instant, wall: SystemTime) -> BTreeMap<NodeId, u32> {
        let draining: Vec<NodeId> = self
            .state
            .observed()
            .nodes
            .iter()
            .filter(|(_, view)| view.standing() == Standing::Draining)
            .map(|(id, _)| id.clone())
            .collect();
        self.paces.retain(|id, _| draining.contains(id));
        let mut allowances = BTreeMap::new();
        for id in draining {
            let (rooms, participants) = self.burden(&id);
            let leaving = self.state.observed().nodes.get(&id).is_some_and(|view| view.leaving);
            let ordered = self.orders.get(&id).and_then(|order| {
                let end = order.order_time.checked_add(order.timeout?)?;
                Some(end.duration_since(wall).unwrap_or_default())
            });
            let time_left = if leaving { Some(LEAVING_TIMEOUT) } else { ordered };
            let pace = self.paces.entry(id.clone()).or_default();
            let allowance = pace.allowance(now, rooms.saturating_add(participants), time_left);
            allowances.insert(id, allowance);
        }
        allowances
    }

    /// Adds the moves off hot nodes, for rooms that nothing else is done to.
    fn rebalance(&mut self, now: Instant, planned: &mut Planned) {
        let Self { state, balancer, .. } = self;
        let moves = balancer.propose(now, state.intended(), state.observed());
        for made in moves {
            let touched = planned.actions.iter().any(|action| match action {
                Action::WritePlan { room, .. } | Action::EndRoom { room, .. } => *room == made.room,
            });
            let Some(room) = state.intended().rooms().get(&made.room).filter(|_| !touched) else {
                continue;
            };
            let (from, to) = (made.from.clone(), made.to.clone());
            let without = state.observed().nodes.keys().filter(|id| **id != to).cloned().collect();
            let wish = Wish { without, ..Wish::default() };
            let Ok(choice) = choose(&state.observed().nodes, &wish, 0) else { continue };
            let plan = Plan {
                room_uid: room.spec.uid.clone(),
                epoch: next_epoch(room.epoch(), state.observed().highest_epoch(&made.room)),
                shards: vec![PlannedShard::home(choice.node, choice.shard)],
            };
            tracing::info!(room = %made.room, %from, %to, "a hot node gives a room away");
            planned.actions.push(Action::WritePlan {
                room: made.room,
                plan,
                cause: Cause::Balance,
            });
        }
    }

    fn set_gauges(&self, metrics: &ControlPlaneMetrics) {
        let observed = self.state.observed();
        let mut counts = [0_i64; 4];
        let mut participants = 0_i64;
        for view in observed.nodes.values() {
            let index = match view.standing() {
                Standing::Serving => 0,
                Standing::Cordoned => 1,
                Standing::Draining => 2,
                Standing::Unreachable => 3,
                Standing::Unregistered | Standing::Gone => continue,
            };
            counts[index] += 1;
            participants += view.load.map_or(0, |load| i64::from(load.participants));
        }
        let states =
            [NodeState::Serving, NodeState::Cordoned, NodeState::Draining, NodeState::Unreachable];
        for (state, count) in states.into_iter().zip(counts) {
            metrics.nodes.get(state).set(count);
        }
        metrics.participants.set(participants);
        let rooms = self.state.intended().rooms().len();
        metrics.rooms.set(i64::try_from(rooms).unwrap_or(i64::MAX));
        let streams = self.ledgers.len();
        metrics.agent_streams.set(i64::try_from(streams).unwrap_or(i64::MAX));
    }
}
