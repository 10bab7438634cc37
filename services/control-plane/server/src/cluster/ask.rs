//! What calls ask of the cluster, and what they note in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Instant, SystemTime};

use headwater_control_core::admission::{Carrier, RoomFacts};
use headwater_control_core::{
    AgentState, Choice, IntendedRoom, Lifecycle, NoPlace, NodeView, Plan, RoomSpec, SeatWish,
    ShardRef, Standing, State, TreeConfig, TreeContext, Wish, choose, choose_seat, first_epoch,
    next_epoch, plan_tree,
};
use headwater_model::{NodeId, RoomId};
use headwater_proto::v1;
use headwater_registry::{LifecycleRecord, NodeRecord, Revision};

use super::{ASKED_ROOMS_MAX, Cluster, Held, Reservation};
use crate::convert;
use crate::names;

impl Cluster {
    /// A room as it was watched, with what its node reports.
    pub(crate) fn room(&self, id: &RoomId) -> Option<IntendedRoom> {
        self.read().state.intended().rooms().get(id).cloned()
    }

    /// Every room as it was watched.
    pub(crate) fn rooms(&self) -> Vec<(RoomId, IntendedRoom)> {
        let held = self.read();
        let rooms = held.state.intended().rooms();
        rooms.iter().map(|(id, room)| (id.clone(), room.clone())).collect()
    }

    /// A room as platforms see it.
    pub(crate) fn room_message(&self, id: &RoomId, room: &IntendedRoom) -> v1::Room {
        let held = self.read();
        convert::room(id, room, held.state.observed().count_of(id, room))
    }

    /// A room as it was watched with what matters about it for a join. Of its
    /// plan comes only the home: a join needs no more, and every join asks.
    pub(crate) fn room_to_join(
        &self,
        id: &RoomId,
        wish: &SeatWish<'_>,
    ) -> Option<(RoomFacts, IntendedRoom)> {
        let held = self.read();
        let room = held.state.intended().rooms().get(id)?;
        let facts = held.room_facts(id, room, wish);
        let plan = room.plan.as_ref().map(|plan| Plan {
            room_uid: plan.room_uid.clone(),
            epoch: plan.epoch,
            shards: plan.home().cloned().into_iter().collect(),
        });
        let IntendedRoom { spec, create_revision, spec_revision, plan: _, plan_revision } = room;
        let room = IntendedRoom {
            spec: spec.clone(),
            create_revision: *create_revision,
            spec_revision: *spec_revision,
            plan,
            plan_revision: *plan_revision,
        };
        Some((facts, room))
    }

    /// What matters about a room for a join, wherever the room was read.
    pub(crate) fn room_facts(
        &self,
        id: &RoomId,
        room: &IntendedRoom,
        wish: &SeatWish<'_>,
    ) -> RoomFacts {
        self.read().room_facts(id, room, wish)
    }

    /// Notes that somebody in a zone joined a room that has no shard there,
    /// if a node of that zone could carry one.
    pub(crate) fn note_asked(&self, id: &RoomId, zone: &str, now: Instant) {
        let mut held = self.write();
        let Held { state, asked, .. } = &mut *held;
        let nodes = &state.observed().nodes;
        let Some(plan) = state.intended().rooms().get(id).and_then(|room| room.plan.as_ref())
        else {
            return;
        };
        let in_zone = |node: &NodeId| nodes.get(node).is_some_and(|view| view.zone == zone);
        let could = nodes
            .values()
            .any(|view| view.zone == zone && view.relays && view.standing() == Standing::Serving);
        if !could || plan.shards.iter().any(|shard| in_zone(&shard.node)) {
            return;
        }
        if asked.len() >= ASKED_ROOMS_MAX && !asked.contains_key(id) {
            return;
        }
        let entry = asked.entry(id.clone()).or_default().entry(zone.to_owned());
        let (count, at) = entry.or_insert((0, now));
        *count = count.saturating_add(1);
        *at = now;
        drop(held);
        self.changed();
    }

    /// Notes that this replica wrote a room's plan.
    pub(crate) fn note_planned(&self, room: &RoomId, now: Instant) {
        self.write().planned_at.insert(room.clone(), now);
    }

    /// A plan for a room of several shards, without a node that failed.
    pub(crate) fn tree_without(&self, id: &RoomId, room: &IntendedRoom, node: &NodeId) -> Plan {
        let held = self.read();
        let observed = held.state.observed();
        let (nobody, asked) = (BTreeSet::new(), BTreeMap::new());
        let context = TreeContext {
            nodes: &observed.nodes,
            gone: &nobody,
            leaving: &BTreeSet::from([node.clone()]),
            asked: &asked,
            may_shrink: false,
            config: &self.tree,
        };
        let tree = plan_tree(id, room, &context);
        Plan {
            room_uid: room.spec.uid.clone(),
            epoch: next_epoch(room.epoch(), observed.highest_epoch(id)),
            shards: tree.shards,
        }
    }

    /// Lets something look at the states, under one lock.
    pub(crate) fn look<T>(
        &self,
        look: impl FnOnce(&State, &BTreeMap<NodeId, NodeRecord>) -> T,
    ) -> T {
        let held = self.read();
        look(&held.state, &held.records)
    }

    /// Bounds of trees.
    pub(crate) fn tree_config(&self) -> &TreeConfig {
        &self.tree
    }

    /// Whether the stream to a node broke or could not be opened.
    pub(crate) fn has_lost(&self, node: &NodeId) -> bool {
        let held = self.read();
        held.state.observed().nodes.get(node).is_none_or(|view| view.agent == AgentState::Lost)
    }

    /// A node's gRPC address, if it is or was registered.
    pub(crate) fn node_url(&self, node: &NodeId) -> Option<String> {
        self.read().records.get(node).map(|record| record.rpc_url.clone())
    }

    /// The registered nodes as operators see them, in order of names.
    pub(crate) fn nodes(&self) -> Vec<(NodeId, v1::Node)> {
        let held = self.read();
        let nodes = &held.state.observed().nodes;
        held.records
            .iter()
            .filter_map(|(id, record)| {
                let view = nodes.get(id).filter(|view| view.registered)?;
                Some((id.clone(), held.node_message(id, record, view)))
            })
            .collect()
    }

    /// One node as operators see it, if it is or was registered and is still
    /// known, or is under an order.
    pub(crate) fn node(&self, id: &NodeId) -> Option<v1::Node> {
        let held = self.read();
        let nodes = &held.state.observed().nodes;
        let view = nodes.get(id);
        match held.records.get(id).zip(view) {
            Some((record, view)) => Some(held.node_message(id, record, view)),
            None => held.orders.get(id).map(|order| v1::Node {
                name: names::node(id),
                state: v1::NodeState::Unreachable.into(),
                order: Some(convert::order_message(order)),
                ..v1::Node::default()
            }),
        }
    }

    /// Rooms whose plan names a node, and participants on it.
    pub(crate) fn burden(&self, id: &NodeId) -> (u32, u32) {
        self.read().burden(id)
    }

    /// Chooses a shard for a room and holds it until the plan is there.
    pub(crate) fn reserve(
        &self,
        room: &RoomId,
        region: &str,
        without: Option<&NodeId>,
        seed: u64,
    ) -> Result<Reservation<'_>, NoPlace> {
        let mut held = self.write();
        let failed = without.and_then(|node| held.state.observed().nodes.get(node));
        let wish = Wish {
            region: match failed {
                Some(node) if !node.region.is_empty() => node.region.clone(),
                Some(_) | None => region.to_owned(),
            },
            avoid_zone: failed.map_or_else(String::new, |node| node.zone.clone()),
            without: without.cloned().into_iter().collect(),
            ..Wish::default()
        };
        let Choice { node, shard } = choose(&held.state.observed().nodes, &wish, seed)?;
        let shard = ShardRef { node, shard };
        held.state.reserve(room.clone(), shard.clone());
        drop(held);
        Ok(Reservation { cluster: self, room: room.clone(), shard })
    }

    /// The first plan of a new incarnation, with the epoch that fits.
    pub(crate) fn first_plan(
        &self,
        reservation: &Reservation<'_>,
        spec: &RoomSpec,
        revision: Revision,
    ) -> Plan {
        let reported = self.read().state.observed().highest_epoch(&reservation.room);
        Plan {
            room_uid: spec.uid.clone(),
            epoch: first_epoch(revision.0, reported),
            shards: vec![reservation.shard.clone().into()],
        }
    }

    /// The plan that comes after the one a room has.
    pub(crate) fn next_plan(
        &self,
        reservation: &Reservation<'_>,
        room: &IntendedRoom,
        revision: Revision,
    ) -> Plan {
        if room.plan.is_none() {
            return self.first_plan(reservation, &room.spec, revision);
        }
        let reported = self.read().state.observed().highest_epoch(&reservation.room);
        Plan {
            room_uid: room.spec.uid.clone(),
            epoch: next_epoch(room.epoch(), reported),
            shards: vec![reservation.shard.clone().into()],
        }
    }

    /// Notes that somebody was sent to a room on a node.
    pub(crate) fn add_grant(&self, room: &RoomId, to: &ShardRef, now: Instant) {
        let mut held = self.write();
        held.state.add_grant(room, to);
        held.granted.insert(room.clone(), now);
    }

    /// Whether too many nodes vanished at once.
    pub(crate) fn is_frozen(&self, now: Instant) -> bool {
        self.read().census.is_frozen(now)
    }
}

impl Held {
    fn room_facts(&self, id: &RoomId, room: &IntendedRoom, wish: &SeatWish<'_>) -> RoomFacts {
        let observed = self.state.observed();
        let many = room.plan.as_ref().filter(|plan| plan.shards.len() > 1);
        // Whoever blames the home has it looked after; others go where there is
        // a seat.
        let blames_home = room.home().is_some_and(|home| wish.without == Some(&home.node));
        let seat = match many {
            Some(plan) if !blames_home => {
                choose_seat(id, plan, &observed.nodes, wish).and_then(|rank| plan.get(rank))
            }
            Some(_) | None => None,
        };
        let taken = seat.or_else(|| room.home());
        let crowded = taken.is_some_and(|taken| self.is_crowded(id, room, taken, wish.full_at));
        let no_seat = many.is_some() && !blames_home && seat.is_none();
        let carrier = taken.map(|planned| {
            let view = observed.nodes.get(&planned.node);
            Carrier {
                planned: planned.at(),
                standing: observed.standing(&planned.node),
                shard_exists: view.is_none_or(|v| !v.registered || planned.shard.0 < v.shards),
                address_known: self.records.contains_key(&planned.node),
                full: no_seat
                    || view.is_some_and(|view| {
                        let reported = view.load.map_or(0, |load| load.participants);
                        view.participant_capacity > 0 && reported >= view.participant_capacity
                    }),
            }
        });
        RoomFacts {
            epoch: room.epoch(),
            carrier,
            shards: room.plan.as_ref().map_or(0, |plan| plan.shards.len()),
            max_participants: room.spec.max_participants,
            participants: match room.spec.max_participants {
                // Nobody asks, and counting a large room for every join is dear.
                0 => 0,
                _ => observed.count_of(id, room).0,
            },
            crowded,
        }
    }

    fn node_message(&self, id: &NodeId, record: &NodeRecord, view: &NodeView) -> v1::Node {
        let order = self.orders.get(id);
        let draining = view.leaving || view.lifecycle == Lifecycle::Drain;
        let drain = draining.then(|| self.drain_progress(id, order));
        v1::Node {
            order: order.map(convert::order_message),
            drain,
            ..convert::node(record, Some(view))
        }
    }

    fn drain_progress(&self, id: &NodeId, order: Option<&LifecycleRecord>) -> v1::DrainProgress {
        let (rooms_left, participants_left) = self.burden(id);
        let elsewhere = Wish { without: BTreeSet::from([id.clone()]), ..Wish::default() };
        let stuck = choose(&self.state.observed().nodes, &elsewhere, 0).is_err();
        let done = rooms_left == 0 && participants_left == 0;
        let end = order.and_then(|order| order.order_time.checked_add(order.timeout?));
        v1::DrainProgress {
            rooms_left,
            participants_left,
            rooms_at_order: order.map_or(0, |order| order.rooms_at_order),
            participants_at_order: order.map_or(0, |order| order.participants_at_order),
            rooms_stuck: if stuck { rooms_left } else { 0 },
            done,
            overdue: !done && end.is_some_and(|end| end < SystemTime::now()),
        }
    }
}
