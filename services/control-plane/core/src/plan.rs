//! The planner of the elected replica: compares all that is intended with all
//! that is observed, and says which plans to write and which rooms to end.

use std::collections::{BTreeMap, BTreeSet};

use headwater_model::{Epoch, NodeId, RoomId};

use crate::lifetime;
use crate::node::{NodeView, Standing};
use crate::placement::{NoPlace, Random, Wish, choose};
use crate::room::{IntendedRoom, Plan, PlannedShard, first_epoch, next_epoch};
use crate::state::{Intended, Observed};
use crate::tree::{Tree, TreeConfig, TreeContext, plan_tree};

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
        /// Why.
        cause: Cause,
    },
    /// Delete the room, once its node confirms that nobody is there.
    EndRoom {
        /// The room.
        room: RoomId,
        /// The node to ask.
        node: NodeId,
    },
}

/// Why a plan is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The room has none.
    FirstUse,
    /// A node of the plan is gone, or carries the room at a higher epoch.
    NodeGone,
    /// A node of the plan drains.
    Drain,
    /// The room grew, shrank, or its seats are shared out anew.
    Size,
    /// A node had too much to do.
    Balance,
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
    /// Moves that may be made off each draining node now, from
    /// [`Pace::allowance`](crate::Pace::allowance). A node that is not named
    /// keeps what it has.
    pub moves: &'a BTreeMap<NodeId, u32>,
    /// Participants that zones asked for and the room has no shard for.
    pub asked: &'a BTreeMap<RoomId, BTreeMap<String, u32>>,
    /// Rooms whose plan is so young that it is not made smaller.
    pub young: &'a BTreeSet<RoomId>,
    /// Rooms whose plan is so young that only failures change it.
    pub resting: &'a BTreeSet<RoomId>,
    /// Bounds of trees.
    pub tree: &'a TreeConfig,
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
    /// Rooms and participants moved off draining nodes.
    pub moved: BTreeMap<NodeId, u32>,
    /// Rooms on draining nodes that no other node can take.
    pub stuck: usize,
    /// Shards that rooms would need and no node has.
    pub missing_shards: u32,
    /// More than [`ACTIONS_MAX`] were due: run again soon.
    pub truncated: bool,
}

/// Compares what is intended with what is observed.
///
/// These things are brought right: a room without a plan gets one, a room whose
/// home is gone (or has fewer shards than the plan thinks) gets a new one at a
/// higher epoch, a plan below the epoch its home already carries is raised above
/// it, a room leaves draining nodes at their pace, a room that outgrew its shards
/// gets more and one that shrank fewer, and a room that stood empty for too long
/// ends. Everything else stays.
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
        let Some((plan, home)) = room.plan.as_ref().zip(room.home()) else {
            self.place(id, room, Wish::default(), Cause::FirstUse);
            return;
        };
        let gone = |standing| standing == Standing::Gone;
        let any_gone = plan.shards.iter().any(|shard| gone(self.observed.standing(&shard.node)));
        if any_gone && self.context.frozen {
            self.planned.withheld += 1;
            return;
        }
        if plan.shards.len() > 1 {
            self.look_at_tree(id, room, plan, home);
            return;
        }
        match self.observed.standing(&home.node) {
            Standing::Gone if !self.context.gone.contains(&home.node) => {}
            Standing::Gone => self.place(id, room, self.wish_after(&home.node), Cause::NodeGone),
            Standing::Draining => self.look_at_draining(id, room, home),
            Standing::Serving
            | Standing::Cordoned
            | Standing::Unreachable
            | Standing::Unregistered => {
                if !self.look_at_carried(id, room, home) {
                    self.look_at_size(id, room);
                }
            }
        }
    }

    /// Brings right what is wrong with a room that its one shard carries;
    /// answers whether anything was.
    fn look_at_carried(&mut self, id: &RoomId, room: &IntendedRoom, home: &PlannedShard) -> bool {
        let node = self.observed.nodes.get(&home.node);
        if node.is_some_and(|node| node.registered && home.shard.0 >= node.shards) {
            self.place(id, room, Wish::default(), Cause::NodeGone);
            return true;
        }
        let report = node.and_then(|node| node.report(id, home.shard));
        if report.is_some_and(|report| report.epoch > room.epoch()) {
            // The registry lost its past, or we are behind; then the write fails.
            self.write(id, room, vec![home.clone()], Cause::NodeGone);
            return true;
        }
        if report.is_some_and(|report| lifetime::is_over(&room.spec, room.epoch(), report)) {
            let action = Action::EndRoom { room: id.clone(), node: home.node.clone() };
            self.planned.actions.push(action);
            return true;
        }
        false
    }

    /// Moves a room off its draining node, if its turn has come.
    fn look_at_draining(&mut self, id: &RoomId, room: &IntendedRoom, home: &PlannedShard) {
        let allowed = self.context.moves.get(&home.node).copied().unwrap_or(0);
        let moved = self.planned.moved.get(&home.node).copied().unwrap_or(0);
        let unplaceable = self.planned.unplaceable;
        if moved >= allowed || self.context.frozen {
            self.look_at_carried(id, room, home);
            return;
        }
        let mut wish = self.wish_after(&home.node);
        // It does not fail, it leaves: its zone is as good as any.
        (wish.zone, wish.avoid_zone) = (wish.avoid_zone, String::new());
        self.place(id, room, wish, Cause::Drain);
        if self.planned.unplaceable > unplaceable {
            self.planned.unplaceable = unplaceable;
            self.planned.stuck += 1;
            return;
        }
        self.note_moved(id, &home.node);
    }

    /// Counts a room that leaves a node, and those who are in it there.
    fn note_moved(&mut self, id: &RoomId, from: &NodeId) {
        let reports = self.observed.nodes.get(from).map_or(&[][..], |node| node.reports_of(id));
        let people: u32 = reports.iter().map(|report| report.participants).sum();
        *self.planned.moved.entry(from.clone()).or_default() += people.saturating_add(1);
    }

    /// Grows a room that its one shard cannot carry any more.
    fn look_at_size(&mut self, id: &RoomId, room: &IntendedRoom) {
        let relays = room
            .home()
            .and_then(|home| self.observed.nodes.get(&home.node))
            .is_some_and(|node| node.relays);
        if !relays || self.context.resting.contains(id) {
            return;
        }
        let tree = self.tree(id, room, &BTreeSet::new());
        if tree.shards.len() > 1 {
            self.write_tree(id, room, tree, Cause::Size);
        }
    }

    fn look_at_tree(&mut self, id: &RoomId, room: &IntendedRoom, plan: &Plan, home: &PlannedShard) {
        if self.observed.highest_epoch(id).is_some_and(|epoch| epoch > plan.epoch) {
            self.write(id, room, plan.shards.clone(), Cause::NodeGone);
            return;
        }
        let over = self
            .observed
            .report_of(id, room)
            .is_some_and(|report| lifetime::is_over(&room.spec, room.epoch(), report));
        if over && self.observed.count_of(id, room).0 == 0 {
            let action = Action::EndRoom { room: id.clone(), node: home.node.clone() };
            self.planned.actions.push(action);
            return;
        }
        let leaving: BTreeSet<NodeId> = plan
            .shards
            .iter()
            .map(|shard| &shard.node)
            .filter(|node| self.observed.standing(node) == Standing::Draining)
            .filter(|node| {
                let moved = self.planned.moved.get(*node).copied().unwrap_or(0);
                moved < self.context.moves.get(*node).copied().unwrap_or(0)
            })
            .cloned()
            .collect();
        let tree = self.tree(id, room, &leaving);
        if tree.shards == plan.shards {
            return;
        }
        if tree.shards.is_empty() {
            self.place(id, room, self.wish_after(&home.node), Cause::NodeGone);
            return;
        }
        let lost = plan.shards.iter().any(|shard| self.context.gone.contains(&shard.node));
        let cause = match (lost, leaving.is_empty()) {
            (true, _) => Cause::NodeGone,
            (false, false) => Cause::Drain,
            (false, true) => Cause::Size,
        };
        if cause == Cause::Size && self.context.resting.contains(id) {
            return;
        }
        for node in &leaving {
            self.note_moved(id, node);
        }
        self.write_tree(id, room, tree, cause);
    }

    fn tree(&self, id: &RoomId, room: &IntendedRoom, leaving: &BTreeSet<NodeId>) -> Tree {
        static NOBODY: BTreeMap<String, u32> = BTreeMap::new();
        let context = TreeContext {
            nodes: self.nodes.as_ref().unwrap_or(&self.observed.nodes),
            gone: self.context.gone,
            leaving,
            asked: self.context.asked.get(id).unwrap_or(&NOBODY),
            may_shrink: !self.context.young.contains(id),
            config: self.context.tree,
        };
        plan_tree(id, room, &context)
    }

    fn write_tree(&mut self, id: &RoomId, room: &IntendedRoom, tree: Tree, cause: Cause) {
        self.planned.missing_shards = self.planned.missing_shards.saturating_add(tree.missing);
        let nodes = self.nodes.get_or_insert_with(|| self.observed.nodes.clone());
        let had: BTreeSet<_> =
            room.plan.iter().flat_map(|plan| &plan.shards).map(PlannedShard::at).collect();
        for shard in tree.shards.iter().filter(|shard| !had.contains(&shard.at())) {
            if let Some(node) = nodes.get_mut(&shard.node) {
                node.add_planned(shard.shard);
            }
        }
        self.write(id, room, tree.shards, cause);
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

    fn place(&mut self, id: &RoomId, room: &IntendedRoom, mut wish: Wish, cause: Cause) {
        if wish.region.is_empty() {
            self.context.region.clone_into(&mut wish.region);
        }
        let nodes = self.nodes.get_or_insert_with(|| self.observed.nodes.clone());
        match choose(nodes, &wish, self.random.next()) {
            Ok(choice) => {
                if let Some(node) = nodes.get_mut(&choice.node) {
                    node.add_planned(choice.shard);
                }
                let home = PlannedShard::home(choice.node, choice.shard);
                self.write(id, room, vec![home], cause);
            }
            Err(NoPlace::NoNode | NoPlace::AllFull) => self.planned.unplaceable += 1,
        }
    }

    fn write(&mut self, id: &RoomId, room: &IntendedRoom, shards: Vec<PlannedShard>, cause: Cause) {
        let (room_uid, epoch) = (room.spec.uid.clone(), self.epoch_after(id, room));
        let plan = Plan { room_uid, epoch, shards };
        self.planned.actions.push(Action::WritePlan { room: id.clone(), plan, cause });
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
