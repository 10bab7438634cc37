//! The planner of the elected replica: compares all that is intended with all
//! that is observed, and says which plans to write and which rooms to end.

use std::collections::{BTreeMap, BTreeSet};

use headwater_model::{Epoch, NodeId, RoomId};

use crate::lifetime;
use crate::node::{NodeView, Standing};
use crate::placement::{NoPlace, Random, Wish, choose};
use crate::room::{IntendedRoom, Plan, PlannedShard, first_epoch, next_epoch};
use crate::state::{Intended, Observed};

/// Most actions of one pass. The rest waits for the next, which sees what the
/// first ones did; a mass failure is so worked off in steps.
pub const ACTIONS_MAX: usize = 256;

/// Something the elected replica shall do to the registry. Each is one
/// transaction that compares the revisions of what was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write this plan.
    WritePlan {
        /// The room.
        room: RoomId,
        /// The plan.
        plan: Plan,
    },
    /// Delete the room, once its node confirms that nobody is there.
    EndRoom {
        /// The room.
        room: RoomId,
        /// The node to ask.
        node: NodeId,
    },
}

/// What the planner needs to know besides the two states.
#[derive(Debug, Clone)]
pub struct PlanContext<'a> {
    /// Nodes that are gone for sure, from [`Census::gone`](crate::Census::gone).
    pub gone: &'a BTreeSet<NodeId>,
    /// Too many nodes vanished at once, from
    /// [`Census::is_frozen`](crate::Census::is_frozen): rooms stay where they are.
    pub frozen: bool,
    /// Region whose nodes are preferred. Empty means none.
    pub region: &'a str,
    /// Newest known revision of the registry.
    pub registry_revision: u64,
    /// Seed of the choices.
    pub seed: u64,
}

/// What came of a pass.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Planned {
    /// What to do, in order of room names.
    pub actions: Vec<Action>,
    /// Rooms that need a plan and got none because no node can take them.
    pub unplaceable: usize,
    /// Rooms on gone nodes that stay because of the breaker.
    pub withheld: usize,
    /// More than [`ACTIONS_MAX`] were due: run again soon.
    pub truncated: bool,
}

/// Compares what is intended with what is observed.
///
/// Four things are brought right: a room without a plan gets one, a room whose
/// home is gone (or has fewer shards than the plan thinks) gets a new one at a
/// higher epoch, a plan below the epoch its home already carries is raised above
/// it, and a room that stood empty for too long ends. Everything else stays.
#[must_use]
pub fn plan(intended: &Intended, observed: &Observed, context: &PlanContext<'_>) -> Planned {
    let mut pass = Pass {
        nodes: None,
        observed,
        context,
        random: Random(context.seed),
        planned: Planned::default(),
    };
    for (id, room) in intended.rooms() {
        if pass.planned.actions.len() >= ACTIONS_MAX {
            pass.planned.truncated = true;
            break;
        }
        pass.look_at(id, room);
    }
    pass.planned
}

struct Pass<'a> {
    /// The nodes, with what this pass places added. Copied only by a pass that
    /// places something: most do not.
    nodes: Option<BTreeMap<NodeId, NodeView>>,
    observed: &'a Observed,
    context: &'a PlanContext<'a>,
    random: Random,
    planned: Planned,
}

impl Pass<'_> {
    fn look_at(&mut self, id: &RoomId, room: &IntendedRoom) {
        let Some(home) = room.home() else {
            self.place(id, room, Wish::default());
            return;
        };
        match self.observed.standing(&home.node) {
            Standing::Gone if !self.context.gone.contains(&home.node) => {}
            Standing::Gone if self.context.frozen => self.planned.withheld += 1,
            Standing::Gone => self.place(id, room, self.wish_after(&home.node)),
            Standing::Serving
            | Standing::Cordoned
            | Standing::Draining
            | Standing::Unreachable
            | Standing::Unregistered => self.look_at_carried(id, room, home),
        }
    }

    fn look_at_carried(&mut self, id: &RoomId, room: &IntendedRoom, home: &PlannedShard) {
        let node = self.observed.nodes.get(&home.node);
        if node.is_some_and(|node| node.registered && home.shard.0 >= node.shards) {
            self.place(id, room, Wish::default());
            return;
        }
        let report = node.and_then(|node| node.reports.get(id));
        if report.is_some_and(|report| report.epoch > room.epoch()) {
            // The registry lost its past, or we are behind; then the write fails.
            self.write(id, room, home.clone());
            return;
        }
        if report.is_some_and(|report| lifetime::is_over(&room.spec, room.epoch(), report)) {
            let action = Action::EndRoom { room: id.clone(), node: home.node.clone() };
            self.planned.actions.push(action);
        }
    }

    fn wish_after(&self, failed: &NodeId) -> Wish {
        let node = self.observed.nodes.get(failed);
        Wish {
            region: node.map_or_else(String::new, |node| node.region.clone()),
            avoid_zone: node.map_or_else(String::new, |node| node.zone.clone()),
            without: BTreeSet::from([failed.clone()]),
            ..Wish::default()
        }
    }

    fn place(&mut self, id: &RoomId, room: &IntendedRoom, mut wish: Wish) {
        if wish.region.is_empty() {
            self.context.region.clone_into(&mut wish.region);
        }
        let nodes = self.nodes.get_or_insert_with(|| self.observed.nodes.clone());
        match choose(nodes, &wish, self.random.next()) {
            Ok(choice) => {
                if let Some(node) = nodes.get_mut(&choice.node) {
                    node.add_planned(choice.shard);
                }
                let home = PlannedShard { node: choice.node, shard: choice.shard };
                self.write(id, room, home);
            }
            Err(NoPlace::NoNode | NoPlace::AllFull) => self.planned.unplaceable += 1,
        }
    }

    fn write(&mut self, id: &RoomId, room: &IntendedRoom, home: PlannedShard) {
        let plan = Plan {
            room_uid: room.spec.uid.clone(),
            epoch: self.epoch_after(id, room),
            shards: vec![home],
        };
        self.planned.actions.push(Action::WritePlan { room: id.clone(), plan });
    }

    fn epoch_after(&self, id: &RoomId, room: &IntendedRoom) -> Epoch {
        let reported = self.observed.highest_epoch(id);
        match &room.plan {
            Some(plan) => next_epoch(plan.epoch, reported),
            None => first_epoch(self.context.registry_revision, reported),
        }
    }
}

#[cfg(test)]
mod tests;
