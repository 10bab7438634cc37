//! What one replica holds in memory: the intended state as the registry's watch
//! brings it, the observed state as the agent streams bring it, and the counts
//! that follow from both.

use std::collections::{BTreeMap, BTreeSet};

use headwater_model::{Epoch, NodeId, RoomId};

use crate::coming::Coming;
use crate::node::{AgentState, Lifecycle, NodeLoad, NodeView, Standing};
use crate::room::{IntendedRoom, Plan, RoomReport, RoomSpec, ShardRef};

/// What the registry says shall be.
#[derive(Debug, Clone, Default)]
pub struct Intended {
    rooms: BTreeMap<RoomId, IntendedRoom>,
    /// Every plan with its revision, those included whose room is not there or
    /// is another incarnation: the two keys of a room arrive one after the other.
    plans: BTreeMap<RoomId, (Plan, u64)>,
    rooms_of_node: BTreeMap<NodeId, BTreeSet<RoomId>>,
}

impl Intended {
    /// Every room, in order of names.
    #[must_use]
    pub fn rooms(&self) -> &BTreeMap<RoomId, IntendedRoom> {
        &self.rooms
    }

    /// The rooms whose plan names a node.
    pub fn rooms_of(&self, node: &NodeId) -> impl Iterator<Item = (&RoomId, &IntendedRoom)> {
        self.rooms_of_node
            .get(node)
            .into_iter()
            .flatten()
            .filter_map(|room| self.rooms.get_key_value(room))
    }

    /// Every node that a plan names.
    #[must_use]
    pub fn nodes_named(&self) -> BTreeSet<NodeId> {
        self.rooms_of_node.keys().cloned().collect()
    }
}

/// What was seen of the cluster.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Every node that is registered, that answers, or that a plan names.
    pub nodes: BTreeMap<NodeId, NodeView>,
}

impl Observed {
    /// What a node is good for; one never heard of is gone.
    #[must_use]
    pub fn standing(&self, node: &NodeId) -> Standing {
        self.nodes.get(node).map_or(Standing::Gone, NodeView::standing)
    }

    /// Nodes that are registered or answer.
    #[must_use]
    pub fn present(&self) -> BTreeSet<NodeId> {
        self.nodes
            .iter()
            .filter(|(_, node)| node.standing().carries())
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Highest epoch at which any node reports a room.
    #[must_use]
    pub fn highest_epoch(&self, room: &RoomId) -> Option<Epoch> {
        self.nodes.values().flat_map(|node| node.reports_of(room)).map(|report| report.epoch).max()
    }

    /// The report on a room by the node that its plan calls home, if that node
    /// carries the present incarnation.
    #[must_use]
    pub fn report_of(&self, id: &RoomId, room: &IntendedRoom) -> Option<&RoomReport> {
        let home = room.home()?;
        let report = self.nodes.get(&home.node)?.report(id, home.shard)?;
        (report.uid == room.spec.uid).then_some(report)
    }

    /// Participants and publishers of a room on all shards of its plan, as they
    /// report the present incarnation.
    #[must_use]
    pub fn count_of(&self, id: &RoomId, room: &IntendedRoom) -> (u32, u32) {
        let shards = room.plan.iter().flat_map(|plan| &plan.shards);
        let reports = shards
            .filter_map(|planned| self.nodes.get(&planned.node)?.report(id, planned.shard))
            .filter(|report| report.uid == room.spec.uid);
        reports.fold((0, 0), |(participants, publishers): (u32, u32), report| {
            let participants = participants.saturating_add(report.participants);
            (participants, publishers.saturating_add(report.publishers))
        })
    }
}

/// What a node's record says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeFacts {
    /// Failure domain. Empty means not told.
    pub zone: String,
    /// Region. Empty means not told.
    pub region: String,
    /// Forwarding threads.
    pub shards: u16,
    /// Participants it accepts at most. 0 means no limit of its own.
    pub participant_capacity: u32,
    /// It takes relay links.
    pub relays: bool,
}

/// Intended and observed state of the cluster, kept in step by the `set_*`,
/// `remove_*` and `handle_*` methods. Bounded by what the registry holds.
#[derive(Debug, Clone, Default)]
pub struct State {
    intended: Intended,
    observed: Observed,
    /// Shards chosen for rooms whose plan is being written. They count like
    /// plans, so that rooms placed in the same moment do not all see the same
    /// node as the emptiest.
    reserved: BTreeMap<RoomId, ShardRef>,
}

impl State {
    /// What the registry says shall be.
    #[must_use]
    pub fn intended(&self) -> &Intended {
        &self.intended
    }

    /// What was seen.
    #[must_use]
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Takes in a room's spec, and the registry's revisions of its creation and
    /// of its last change.
    pub fn set_spec(&mut self, id: RoomId, spec: RoomSpec, create_revision: u64, revision: u64) {
        self.remove_spec(&id);
        let mut room = IntendedRoom {
            spec,
            create_revision,
            spec_revision: revision,
            plan: None,
            plan_revision: 0,
        };
        room.set_plan(self.intended.plans.get(&id).cloned());
        self.count_plan(&id, room.plan.as_ref());
        self.intended.rooms.insert(id, room);
    }

    /// Takes in that a room's spec is gone.
    pub fn remove_spec(&mut self, id: &RoomId) {
        if let Some(room) = self.intended.rooms.remove(id) {
            self.discount_plan(id, room.plan.as_ref());
        }
    }

    /// Takes in a room's plan and the registry's revision of it.
    pub fn set_plan(&mut self, id: RoomId, plan: Plan, revision: u64) {
        self.replace_plan(id, Some((plan, revision)));
    }

    /// Takes in that a room's plan is gone.
    pub fn remove_plan(&mut self, id: &RoomId) {
        self.replace_plan(id.clone(), None);
    }

    /// Takes in a node's record.
    pub fn set_node(&mut self, id: NodeId, facts: NodeFacts) {
        let node = self.observed.nodes.entry(id).or_default();
        node.registered = true;
        node.zone = facts.zone;
        node.region = facts.region;
        node.shards = facts.shards;
        node.participant_capacity = facts.participant_capacity;
        node.relays = facts.relays;
    }

    /// Takes in that a node's record is gone. What was known of it stays while
    /// it answers or a plan names it.
    pub fn remove_node(&mut self, id: &NodeId) {
        if let Some(node) = self.observed.nodes.get_mut(id) {
            node.registered = false;
        }
        self.forget_if_idle(id);
    }

    /// Takes in the operator's order; none means serve.
    pub fn set_lifecycle(&mut self, id: &NodeId, lifecycle: Lifecycle) {
        if lifecycle == Lifecycle::Serve {
            if let Some(node) = self.observed.nodes.get_mut(id) {
                node.lifecycle = lifecycle;
            }
            self.forget_if_idle(id);
        } else {
            self.observed.nodes.entry(id.clone()).or_default().lifecycle = lifecycle;
        }
    }

    /// Takes in how the agent stream to a node does.
    pub fn set_agent(&mut self, id: &NodeId, agent: AgentState) {
        if agent == AgentState::Connected {
            self.observed.nodes.entry(id.clone()).or_default().agent = agent;
        } else if let Some(node) = self.observed.nodes.get_mut(id) {
            node.agent = agent;
            if agent == AgentState::Lost {
                // What it reported may be long past when it comes back.
                node.reports.clear();
                node.coming = Coming::default();
                node.occupied = 0;
                node.leaving = false;
            }
        }
        self.forget_if_idle(id);
    }

    /// Takes in to which nodes others have links.
    pub fn set_vouched(&mut self, vouched: &BTreeSet<&NodeId>) {
        for (id, node) in &mut self.observed.nodes {
            node.vouched = vouched.contains(id);
        }
    }

    /// Takes in which nodes are believed to be gone.
    pub fn set_given_up(&mut self, given_up: &BTreeSet<NodeId>) {
        for (id, node) in &mut self.observed.nodes {
            node.given_up = given_up.contains(id);
        }
    }

    /// Takes in a node's report.
    pub fn handle_report(
        &mut self,
        id: &NodeId,
        load: NodeLoad,
        reports: impl IntoIterator<Item = (RoomId, RoomReport)>,
    ) {
        self.observed.nodes.entry(id.clone()).or_default().handle_report(load, reports);
    }

    /// Takes in whether a node says that its process was asked to stop.
    pub fn set_leaving(&mut self, id: &NodeId, leaving: bool) {
        if let Some(node) = self.observed.nodes.get_mut(id) {
            node.leaving = leaving;
        }
    }

    /// Counts a room towards a shard until its plan arrives or
    /// [`State::release`] is called. A later reservation replaces an earlier one.
    pub fn reserve(&mut self, room: RoomId, shard: ShardRef) {
        self.release(&room);
        let node = self.observed.nodes.entry(shard.node.clone()).or_default();
        node.add_planned(shard.shard);
        self.reserved.insert(room, shard);
    }

    /// Takes a reservation back, if it still stands.
    pub fn release(&mut self, room: &RoomId) {
        if let Some(shard) = self.reserved.remove(room) {
            if let Some(node) = self.observed.nodes.get_mut(&shard.node) {
                node.remove_planned(shard.shard);
            }
            self.forget_if_idle(&shard.node);
        }
    }

    /// Notes that a participant was sent to a room on a shard.
    pub fn add_grant(&mut self, room: &RoomId, to: &ShardRef) {
        if let Some(node) = self.observed.nodes.get_mut(&to.node) {
            node.add_grant(room, to.shard);
        }
    }

    fn replace_plan(&mut self, id: RoomId, plan: Option<(Plan, u64)>) {
        if let Some(mut room) = self.intended.rooms.remove(&id) {
            self.discount_plan(&id, room.plan.as_ref());
            room.set_plan(plan.clone());
            self.count_plan(&id, room.plan.as_ref());
            self.intended.rooms.insert(id.clone(), room);
        }
        match plan {
            Some(plan) => self.intended.plans.insert(id, plan),
            None => self.intended.plans.remove(&id),
        };
    }

    fn count_plan(&mut self, id: &RoomId, plan: Option<&Plan>) {
        if plan.is_some() {
            self.release(id);
        }
        for planned in plan.into_iter().flat_map(|plan| &plan.shards) {
            let rooms = self.intended.rooms_of_node.entry(planned.node.clone()).or_default();
            rooms.insert(id.clone());
            let node = self.observed.nodes.entry(planned.node.clone()).or_default();
            node.add_planned(planned.shard);
        }
    }

    fn discount_plan(&mut self, id: &RoomId, plan: Option<&Plan>) {
        for planned in plan.into_iter().flat_map(|plan| &plan.shards) {
            if let Some(rooms) = self.intended.rooms_of_node.get_mut(&planned.node) {
                rooms.remove(id);
                if rooms.is_empty() {
                    self.intended.rooms_of_node.remove(&planned.node);
                }
            }
            if let Some(node) = self.observed.nodes.get_mut(&planned.node) {
                node.remove_planned(planned.shard);
            }
            self.forget_if_idle(&planned.node);
        }
    }

    fn forget_if_idle(&mut self, id: &NodeId) {
        let idle = self.observed.nodes.get(id).is_some_and(|node| {
            !node.registered
                && !node.standing().carries()
                && node.planned.is_empty()
                && node.lifecycle == Lifecycle::Serve
        });
        if idle {
            self.observed.nodes.remove(id);
        }
    }
}

#[cfg(test)]
mod tests;
