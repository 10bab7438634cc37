//! What replicas and nodes do of themselves: follow the registry, keep leases, talk over
//! agent streams, plan.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use headwater_control_core::{
    Action, NodeFacts, NodeLoad, Order, Plan, PlannedShard, Rank, ReleaseReason, RoomReport,
    RoomSpec, ShardRef,
};
use headwater_media_node::Part;
use headwater_model::{Bitrate, NodeId, RoomId, ShardIndex};
use headwater_relay::{Peer as RelayPeer, PlanSlice, ShardAddress};
use headwater_room::{CloseReason, RoomAssignment, RoomProperties};

use super::{Happening, Ordered, World};
use crate::cluster::links::Place;
use crate::cluster::reading::Reading;
use crate::cluster::registry::{Compare, Key, Value, Write};
use crate::cluster::replica::{Replica, Report};
use crate::cluster::shard::Input;

const LEASE_TTL: Duration = Duration::from_secs(10);
/// One way between replicas, nodes and gateways.
const HOP: Duration = Duration::from_millis(3);

impl World {
    /// Does something with a replica that lives.
    pub(super) fn with_replica<T>(
        &mut self,
        index: usize,
        work: impl FnOnce(&mut Self, &mut Replica) -> T,
    ) -> Option<T> {
        let mut replica = self.replicas[index].take()?;
        let result = work(self, &mut replica);
        self.replicas[index] = Some(replica);
        Some(result)
    }

    pub(super) fn hears_registry(&self, place: Place) -> bool {
        !self.registry.is_away() && self.cuts.connects(place, Place::Registry)
    }

    pub(super) fn replica_duty(&mut self, index: usize) {
        self.registry.handle_timeout(self.now);
        self.with_replica(index, |world, replica| world.work(replica));
    }

    fn work(&mut self, replica: &mut Replica) {
        let (now, at) = (self.now, self.at());
        let hears = self.hears_registry(Place::Replica(replica.index));
        replica.set_stale(!hears);
        if hears {
            if let Ok(news) = self.registry.after(replica.revision)
                && (!news.is_empty() || !replica.synced)
            {
                let news = news.to_vec();
                replica.follow(&news);
            }
            let led = replica.is_leading();
            replica.campaign(now, &mut self.registry);
            if led != replica.is_leading() {
                let (index, leads) = (replica.index, replica.is_leading());
                self.say(format!("replica {index} leads {leads}"));
            }
        }
        replica.tick(now, at);
        for (node, number) in replica.silent(now) {
            self.say(format!("replica {} lost {node}", replica.index));
            replica.close(now, &node, number);
        }
        for node in replica.openable(now) {
            let Some(node) = self.node_index(&node) else { continue };
            let open = Happening::Open { replica: replica.index, life: replica.life, node };
            self.later(HOP * 3, open);
        }
        let changed = replica.take_changed();
        let nodes: Vec<NodeId> = replica.streams.keys().cloned().collect();
        for node in nodes {
            self.tell(replica, &node, changed);
        }
        if !hears {
            return;
        }
        let planned = replica.look(now, at, changed);
        for action in planned.actions {
            self.act_on(replica, action);
        }
    }

    fn act_on(&mut self, replica: &mut Replica, action: Action) {
        let line = match &action {
            Action::WritePlan { room, plan, cause } => {
                format!("plan {room} epoch {} {cause:?} {}", plan.epoch.0, shape(plan))
            }
            Action::EndRoom { room, .. } => format!("end {room}"),
        };
        let mut registry = std::mem::take(&mut self.registry);
        let before = registry.revision;
        let place = Place::Replica(replica.index);
        let known = replica.state.intended();
        let planned: BTreeMap<RoomId, Vec<NodeId>> = known
            .rooms()
            .iter()
            .map(|(id, room)| {
                let shards = room.plan.iter().flat_map(|plan| &plan.shards);
                (id.clone(), shards.map(|shard| shard.node.clone()).collect())
            })
            .collect();
        let world = &*self;
        let in_use = |room: &RoomId| {
            planned.get(room).into_iter().flatten().any(|node| {
                let Some(index) = world.node_index(node) else { return true };
                !world.reaches(place, index) || world.people(index, room).is_none_or(|it| it > 0)
            })
        };
        let _ = replica.act(self.now, &mut registry, action, in_use);
        let wrote = registry.revision > before;
        self.registry = registry;
        if wrote {
            self.say(line);
        }
    }

    /// Who is in a room as a node tells it; none if it does not carry it.
    pub(super) fn people(&self, node: usize, room: &RoomId) -> Option<usize> {
        let shards = self.nodes[node].shards.iter();
        let lists: Vec<_> =
            shards.filter_map(|shard| shard.rooms.list_participants(room).ok()).collect();
        lists.iter().map(Vec::len).max()
    }

    /// Tells a node what it should know by now.
    fn tell(&mut self, replica: &mut Replica, node: &NodeId, changed: bool) {
        let Some(number) = replica.streams.get(node).and_then(|stream| stream.open) else {
            return;
        };
        let Some(index) = self.node_index(node) else { return };
        let orders = replica.orders((self.now, self.at()), node, changed);
        let mut ordered = Vec::new();
        for order in orders {
            match order {
                Order::Assign { room, shard } => {
                    let at = ShardRef { node: node.clone(), shard };
                    ordered.extend(assignment(replica, &room, &at));
                }
                Order::Release { room, shard, epoch, reason } => {
                    let shard = shard.map(|shard| usize::from(shard.0));
                    let reason = reason_of(reason);
                    ordered.push(Ordered::Release { room, shard, epoch, reason });
                }
                Order::Verify { room, shard: _, uid, epoch, reason } => {
                    let hears = self.hears_registry(Place::Replica(replica.index));
                    let reading = Reading::of(&self.registry, &room).filter(|_| hears);
                    let gone =
                        reading.is_some_and(|it| it.room.is_none_or(|room| room.spec.uid != uid));
                    if gone {
                        let reason = reason_of(reason);
                        ordered.push(Ordered::Release { room, shard: None, epoch, reason });
                    }
                }
            }
        }
        if ordered.is_empty() {
            return;
        }
        let there = &mut self.nodes[index];
        there.orders.entry((replica.index, number)).or_default().extend(ordered);
        self.later(HOP, Happening::Orders { replica: replica.index, node: index, number });
    }

    pub(super) fn orders_come(&mut self, replica: usize, node: usize, number: u64) {
        let life = self.replica_lives[replica];
        if self.nodes[node].attached.get(&replica) != Some(&(number, life)) {
            self.nodes[node].orders.remove(&(replica, number));
            return;
        }
        if !self.reaches(Place::Replica(replica), node) {
            self.later(Duration::from_millis(50), Happening::Orders { replica, node, number });
            return;
        }
        let orders = self.nodes[node].orders.remove(&(replica, number)).unwrap_or_default();
        let life = self.nodes[node].life;
        for order in orders {
            match order {
                Ordered::Assign { shard, room, part } => {
                    self.feed(node, life, shard, Input::Assign(room, part));
                }
                Ordered::Release { room, shard, epoch, reason } => {
                    let id = &self.nodes[node].id;
                    let line = format!("release {room} on {id}/{shard:?} epoch {}", epoch.0);
                    self.say(format!("{line} {reason:?}"));
                    for index in 0..self.nodes[node].shards.len() {
                        if shard.is_none_or(|shard| shard == index) {
                            let room = room.clone();
                            self.feed(node, life, index, Input::Release { room, epoch, reason });
                        }
                    }
                }
            }
        }
    }

    /// A replica opens a stream to a node.
    pub(super) fn stream_comes(&mut self, replica: usize, life: u64, node: usize) {
        if self.replica_lives[replica] != life || self.replicas[replica].is_none() {
            return;
        }
        if !self.nodes[node].alive {
            let (id, now) = (self.nodes[node].id.clone(), self.now);
            self.with_replica(replica, |_, it| it.close(now, &id, None));
            return;
        }
        if !self.reaches(Place::Replica(replica), node) {
            return;
        }
        let number = self.number();
        self.nodes[node].attached.insert(replica, (number, life));
        let report = Box::new(self.report_of(node));
        self.later(HOP, Happening::Report { replica, life, node, number, first: true, report });
    }

    pub(super) fn report_comes(
        &mut self,
        (replica, life): (usize, u64),
        (node, number): (usize, u64),
        first: bool,
        report: Report,
    ) {
        if self.replica_lives[replica] != life
            || !self.cuts.connects(Place::Replica(replica), Place::Node(node))
        {
            return;
        }
        let id = self.nodes[node].id.clone();
        let now = (self.now, self.at());
        self.with_replica(replica, |_, it| {
            if first {
                let _ = it.opened(now, &id, number, report);
            } else {
                it.heard(now, &id, number, report);
            }
        });
    }

    /// A node's process ended: its connections break.
    pub(super) fn stream_breaks(&mut self, replica: usize, node: usize) {
        let (id, now) = (self.nodes[node].id.clone(), self.now);
        self.with_replica(replica, |_, it| {
            let open = it.streams.get(&id).and_then(|stream| stream.open);
            if open.is_some() {
                it.close(now, &id, open);
            }
        });
    }

    fn report_of(&self, node: usize) -> Report {
        let (at, there) = (self.at(), &self.nodes[node]);
        let mut rooms = Vec::new();
        for (shard, it) in (0..).map(ShardIndex).zip(&there.shards) {
            rooms.extend(it.rooms.reports(at).into_iter().map(|report| {
                let told = RoomReport {
                    uid: report.uid,
                    epoch: report.epoch,
                    shard,
                    participants: report.participant_count,
                    publishers: report.publisher_count,
                    empty_for: report.empty_for,
                    ever_joined: report.ever_joined,
                    egress: Bitrate(0),
                };
                (report.id, told)
            }));
        }
        let people: usize = there.shards.iter().map(|shard| shard.rooms.participant_count()).sum();
        let load = NodeLoad {
            rooms: rooms.len() as u32,
            participants: people as u32,
            busiest_shard: people as f32 * 0.002,
            ..NodeLoad::default()
        };
        Report { boot: there.boot(), leaving: there.leaving, load, rooms }
    }

    /// Once a second: reports go out, and the lease is kept.
    pub(super) fn node_duty(&mut self, node: usize) {
        if !self.nodes[node].alive || self.nodes[node].frozen {
            return;
        }
        let attached: Vec<(usize, (u64, u64))> =
            self.nodes[node].attached.iter().map(|(replica, it)| (*replica, *it)).collect();
        for (replica, (number, life)) in attached {
            if self.replica_lives[replica] != life {
                self.nodes[node].attached.remove(&replica);
                continue;
            }
            let report = Box::new(self.report_of(node));
            let first = false;
            self.later(HOP, Happening::Report { replica, life, node, number, first, report });
        }
        self.keep_lease(node);
    }

    fn keep_lease(&mut self, node: usize) {
        if !self.hears_registry(Place::Node(node)) {
            return;
        }
        let now = self.now;
        if let Some(lease) = self.nodes[node].lease {
            if now.since(self.nodes[node].renewed) < LEASE_TTL / 3 {
                return;
            }
            self.nodes[node].renewed = now;
            if self.registry.keep_alive(now, lease) == Ok(false) {
                self.nodes[node].lease = None;
            } else {
                return;
            }
        }
        self.register(node);
    }

    fn register(&mut self, node: usize) {
        let there = &self.nodes[node];
        let (key, boot) = (Key::Node(there.id.clone()), there.boot());
        let facts = NodeFacts {
            zone: format!("zone-{}", node % 2),
            region: String::new(),
            shards: self.settings.shards as u16,
            participant_capacity: 0,
            relays: true,
        };
        // While the entry of its last process stands the name is taken.
        let free = matches!(self.registry.get(&key), Ok(None));
        if !free {
            return;
        }
        let Ok(lease) = self.registry.grant(self.now, LEASE_TTL) else { return };
        let put = Write::Put(key.clone(), Value::Node { boot, facts }, Some(lease));
        if let Ok(Some(_)) = self.registry.commit(&[Compare::Absent(key)], vec![put]) {
            self.nodes[node].lease = Some(lease);
            self.nodes[node].renewed = self.now;
            self.say(format!("node {node} registered as process {boot}"));
        }
    }

    /// A node that stops by itself takes its entry away.
    pub(crate) fn deregister(&mut self, node: usize) {
        if let Some(lease) = self.nodes[node].lease.take()
            && self.hears_registry(Place::Node(node))
        {
            let _ = self.registry.revoke(lease);
        }
    }
}

/// A plan in few characters.
pub(crate) fn shape(plan: &Plan) -> String {
    let shard = |it: &PlannedShard| {
        let parent = it.parent.map_or("-".to_owned(), |parent| parent.0.to_string());
        let backups: Vec<String> = it.backups.iter().map(|rank| rank.0.to_string()).collect();
        format!("{}/{}<{parent}({})", it.node, it.shard.0, backups.join(","))
    };
    plan.shards.iter().map(shard).collect::<Vec<_>>().join(" ")
}

fn reason_of(reason: ReleaseReason) -> CloseReason {
    match reason {
        ReleaseReason::Deleted => CloseReason::RoomDeleted,
        ReleaseReason::Closed => CloseReason::RoomClosed,
        ReleaseReason::PlanStale => CloseReason::PlanStale,
    }
}

/// What the platform says of a room, as nodes take it.
pub(super) fn properties(spec: &RoomSpec, revision: u64) -> RoomProperties {
    RoomProperties {
        uid: spec.uid.clone(),
        metadata: spec.metadata.to_string(),
        max_participants: spec.max_participants,
        empty_timeout: spec.empty_timeout,
        departure_timeout: spec.departure_timeout,
        create_millis: spec.create_millis,
        etag: revision.to_string(),
    }
}

fn assignment(replica: &Replica, id: &RoomId, at: &ShardRef) -> Option<Ordered> {
    let room = replica.state.intended().rooms().get(id)?;
    let part = room.plan.as_ref().and_then(|plan| part(plan, at));
    let assignment = RoomAssignment {
        id: id.clone(),
        epoch: room.epoch(),
        properties: properties(&room.spec, room.spec_revision),
    };
    Some(Ordered::Assign {
        shard: usize::from(at.shard.0),
        room: Box::new(assignment),
        part: Box::new(part.unwrap_or(Part::whole(room.epoch()))),
    })
}

/// A shard's part of a plan, as the control plane cuts it; none if it has no peers and
/// no seats of its own.
fn part(plan: &Plan, at: &ShardRef) -> Option<Part> {
    let (rank, planned) = plan.ranked().find(|(_, planned)| planned.is(at))?;
    if plan.shards.len() < 2 && planned.seats.is_none() {
        return None;
    }
    let address = SocketAddr::from(([192, 0, 2, 1], 7_000));
    let peer = |(rank, planned): (Rank, &PlannedShard)| RelayPeer {
        address: ShardAddress { node: planned.node.clone(), shard: planned.shard },
        rank: u32::from(rank.0),
        relay_address: (planned.node != at.node).then_some(address),
    };
    let by_rank = |rank: &Rank| plan.get(*rank).map(|planned| peer((*rank, planned)));
    let slice = PlanSlice {
        epoch: plan.epoch,
        rank: u32::from(rank.0),
        parent: planned.parent.as_ref().and_then(by_rank),
        backups: planned.backups.iter().filter_map(by_rank).collect(),
        children: plan.ranked().filter(|(_, it)| it.parent == Some(rank)).map(peer).collect(),
        backup_children: plan
            .ranked()
            .filter(|(_, other)| other.backups.contains(&rank))
            .map(peer)
            .collect(),
    };
    Some(Part { slice, seats: planned.seats })
}
