//! What this replica holds of the cluster, shared by its tasks: the core's
//! state behind one short lock, and a number that rises with every change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use headwater_control_core::admission::{Carrier, RoomFacts};
use headwater_control_core::plan::{self, Planned};
use headwater_control_core::{
    AgentLedger, AgentState, Census, CensusConfig, Choice, IntendedRoom, NoPlace, NodeLoad, Order,
    Plan, PlanContext, PlannedShard, RoomReport, RoomSpec, State, Wish, choose, first_epoch,
    next_epoch,
};
use headwater_model::{Epoch, NodeId, RoomId};
use headwater_proto::v1;
use headwater_registry::{NodeRecord, Revision};
use headwater_telemetry::metrics::{ControlPlaneMetrics, NodeState};
use tokio::sync::watch;

use crate::convert;

/// How long after somebody was sent to a room it is not ended: a join takes
/// less, and its node may not have seen it yet.
const GRANT_HOLDS: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Held {
    state: State,
    /// Last known record of every node in `state` that may still be reached.
    records: BTreeMap<NodeId, NodeRecord>,
    /// What was told on the agent streams that live.
    ledgers: BTreeMap<NodeId, (StreamId, AgentLedger)>,
    streams_opened: u64,
    census: Census,
    /// When somebody was last sent to a room. Pruned every second.
    granted: BTreeMap<RoomId, Instant>,
    revision: Revision,
    synced: bool,
    /// Since when the watch is interrupted.
    stale_since: Option<Instant>,
}

/// One agent stream. A node may get a new one before the old one's task has
/// noticed its end; then the old one's end must not be taken for the new one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamId(u64);

/// What this replica holds of the cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    held: RwLock<Held>,
    version: watch::Sender<u64>,
}

/// A shard chosen for a room. It counts as taken until the plan arrives by the
/// watch, or this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    cluster: &'a Cluster,
    room: RoomId,
    pub(crate) shard: PlannedShard,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.cluster.write().state.release(&self.room);
    }
}

impl Cluster {
    pub(crate) fn new(census: CensusConfig) -> Self {
        let held = Held {
            state: State::default(),
            records: BTreeMap::new(),
            ledgers: BTreeMap::new(),
            streams_opened: 0,
            census: Census::new(census),
            granted: BTreeMap::new(),
            revision: Revision::default(),
            synced: false,
            stale_since: None,
        };
        Self { held: RwLock::new(held), version: watch::Sender::new(0) }
    }

    // Nothing that runs under the lock can leave the state half changed, so a
    // poisoned lock is as good as a whole one.
    fn read(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.version.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// Rises with every change of what is intended, who is there, or what nodes
    /// were told; not with their reports.
    pub(crate) fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    // What the watch brings.

    /// Takes in what the watch told, all of one event under one lock.
    pub(crate) fn apply(&self, revision: Revision, changes: impl FnOnce(&mut View<'_>)) {
        let mut held = self.write();
        changes(&mut View(&mut held));
        held.revision = revision;
        held.synced = true;
        held.forget_records();
        drop(held);
        self.changed();
    }

    /// Notes whether the registry can be heard.
    pub(crate) fn set_following(&self, following: bool, now: Instant) {
        let mut held = self.write();
        held.stale_since = match (following, held.stale_since) {
            (true, _) => None,
            (false, since) => Some(since.unwrap_or(now)),
        };
    }

    /// Whether there was a first snapshot.
    pub(crate) fn is_synced(&self) -> bool {
        self.read().synced
    }

    /// Waits for the first snapshot.
    pub(crate) async fn wait_for_sync(&self) {
        self.wait(|held| held.synced).await;
    }

    /// Waits until the watch has brought a revision, at most so long.
    pub(crate) async fn wait_for_revision(&self, revision: Revision, patience: Duration) {
        self.wait_until(patience, |held| held.revision >= revision).await;
    }

    /// Waits until a node was told of a room at an epoch, or reports it, at most
    /// so long; not at all if this replica has no stream to the node.
    pub(crate) async fn wait_until_told(
        &self,
        node: &NodeId,
        room: &RoomId,
        epoch: Epoch,
        patience: Duration,
    ) {
        self.wait_until(patience, |held| match held.ledgers.get(node) {
            Some((_, ledger)) => ledger.told_epoch(room).is_some_and(|told| told >= epoch),
            None => true,
        })
        .await;
    }

    async fn wait_until(&self, patience: Duration, done: impl Fn(&Held) -> bool) {
        // Being late is no failure: nodes take joins to rooms they were not told of.
        drop(tokio::time::timeout(patience, self.wait(done)).await);
    }

    async fn wait(&self, done: impl Fn(&Held) -> bool) {
        let mut version = self.version();
        while !done(&self.read()) {
            // The sender lives as long as `self`.
            if version.changed().await.is_err() {
                return;
            }
        }
    }

    // What the agents bring.

    /// Nodes that there should be a stream to, with their URLs.
    pub(crate) fn nodes_to_reach(&self) -> BTreeMap<NodeId, String> {
        let held = self.read();
        held.records.iter().map(|(id, record)| (id.clone(), record.rpc_url.clone())).collect()
    }

    /// The process that registered as a node.
    pub(crate) fn node_boot_id(&self, node: &NodeId) -> Option<String> {
        self.read().records.get(node).map(|record| record.boot_id.clone())
    }

    /// Notes that a stream opened: the node's first report is the argument.
    pub(crate) fn open_stream(
        &self,
        node: &NodeId,
        now: Instant,
        load: NodeLoad,
        reports: BTreeMap<RoomId, RoomReport>,
    ) -> StreamId {
        let mut held = self.write();
        held.census.handle_met(node);
        held.state.set_agent(node, AgentState::Connected);
        held.state.handle_report(node, load, reports);
        let mut ledger = AgentLedger::default();
        ledger.handle_report(now);
        held.streams_opened += 1;
        let stream = StreamId(held.streams_opened);
        held.ledgers.insert(node.clone(), (stream, ledger));
        drop(held);
        self.changed();
        stream
    }

    /// Notes that a stream broke, or that one could not be opened.
    pub(crate) fn close_stream(&self, node: &NodeId, stream: Option<StreamId>) {
        let mut held = self.write();
        let present = held.ledgers.get(node).map(|(present, _)| *present);
        if present.is_some() && present != stream {
            return;
        }
        held.ledgers.remove(node);
        held.state.set_agent(node, AgentState::Lost);
        held.forget_records();
        drop(held);
        self.changed();
    }

    /// Takes in a report.
    pub(crate) fn handle_report(
        &self,
        node: &NodeId,
        stream: StreamId,
        now: Instant,
        load: NodeLoad,
        reports: BTreeMap<RoomId, RoomReport>,
    ) {
        let mut held = self.write();
        let Held { state, ledgers, .. } = &mut *held;
        if let Some((_, ledger)) = ledgers.get_mut(node).filter(|(present, _)| *present == stream) {
            state.handle_report(node, load, reports);
            ledger.handle_report(now);
        }
    }

    /// What to tell a node now, with the rooms that are to be assigned.
    pub(crate) fn orders(
        &self,
        node: &NodeId,
        stream: StreamId,
        now: Instant,
    ) -> Vec<(Order, Option<v1::Room>)> {
        let mut held = self.write();
        let Held { state, ledgers, .. } = &mut *held;
        let ledger = ledgers.get_mut(node).filter(|(present, _)| *present == stream);
        let (Some((_, ledger)), Some(view)) = (ledger, state.observed().nodes.get(node)) else {
            return Vec::new();
        };
        let orders = ledger.orders(now, node, state.intended(), view);
        let with_rooms: Vec<_> = orders
            .into_iter()
            .map(|order| {
                let room = match &order {
                    Order::Assign { room, .. } => state.intended().rooms().get_key_value(room),
                    Order::Release { .. } | Order::Verify { .. } => None,
                };
                let message = room.map(|(id, room)| convert::room(id, room, None));
                (order, message)
            })
            .collect();
        drop(held);
        if !with_rooms.is_empty() {
            self.changed();
        }
        with_rooms
    }

    // What calls ask.

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
        convert::room(id, room, held.state.observed().report_of(id, room))
    }

    /// What matters about a room for a join, wherever the room was read.
    pub(crate) fn room_facts(&self, id: &RoomId, room: &IntendedRoom) -> RoomFacts {
        let held = self.read();
        let observed = held.state.observed();
        let carrier = room.home().map(|home| {
            let view = observed.nodes.get(&home.node);
            Carrier {
                planned: home.clone(),
                standing: observed.standing(&home.node),
                shard_exists: view.is_none_or(|v| !v.registered || home.shard.0 < v.shards),
                address_known: held.records.contains_key(&home.node),
                full: view.is_some_and(|view| {
                    let reported = view.load.map_or(0, |load| load.participants);
                    view.participant_capacity > 0 && reported >= view.participant_capacity
                }),
            }
        });
        RoomFacts {
            epoch: room.epoch(),
            carrier,
            max_participants: room.spec.max_participants,
            participants: observed.report_of(id, room).map_or(0, |report| report.participants),
        }
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
                Some((id.clone(), convert::node(record, Some(view))))
            })
            .collect()
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
        let shard = PlannedShard { node, shard };
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
            shards: vec![reservation.shard.clone()],
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
            shards: vec![reservation.shard.clone()],
        }
    }

    /// Notes that somebody was sent to a room on a node.
    pub(crate) fn add_grant(&self, room: &RoomId, node: &NodeId, now: Instant) {
        let mut held = self.write();
        held.state.add_grant(node);
        held.granted.insert(room.clone(), now);
    }

    /// Whether too many nodes vanished at once.
    pub(crate) fn is_frozen(&self, now: Instant) -> bool {
        self.read().census.is_frozen(now)
    }

    // What runs every second.

    /// Counts the nodes, forgets old grants, and sets the gauges.
    pub(crate) fn tick(&self, now: Instant, metrics: &ControlPlaneMetrics) -> Duration {
        let mut held = self.write();
        held.granted.retain(|_, at| now.saturating_duration_since(*at) < GRANT_HOLDS);
        let present = held.state.observed().present();
        let named = held.state.intended().nodes_named();
        held.census.handle_count(now, present, &named);
        held.set_gauges(metrics);
        held.stale_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// What the elected replica should do now.
    pub(crate) fn plan(&self, now: Instant, region: &str, seed: u64) -> Planned {
        let held = self.read();
        if !held.synced || held.stale_since.is_some() {
            return Planned::default();
        }
        let gone: BTreeSet<NodeId> = held.census.gone(now);
        let context = PlanContext {
            gone: &gone,
            frozen: held.census.is_frozen(now),
            region,
            registry_revision: held.revision.0,
            seed,
        };
        plan::plan(held.state.intended(), held.state.observed(), &context)
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
    /// Keeps the records of nodes that are registered, that answer, or whose
    /// rooms have not been moved yet: they may only be out of the registry's sight.
    fn forget_records(&mut self) {
        let nodes = &self.state.observed().nodes;
        self.records.retain(|id, _| {
            nodes.get(id).is_some_and(|view| view.standing().carries() || !view.planned.is_empty())
        });
    }

    fn set_gauges(&self, metrics: &ControlPlaneMetrics) {
        use headwater_control_core::Standing;

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

/// What the watch may change, under the lock of [`Cluster::apply`].
#[derive(Debug)]
pub(crate) struct View<'a>(&'a mut Held);

impl View<'_> {
    pub(crate) fn state(&mut self) -> &mut State {
        &mut self.0.state
    }

    pub(crate) fn set_node(&mut self, record: NodeRecord) {
        let facts = convert::facts_of_record(&record);
        self.0.state.set_node(record.node_id.clone(), facts);
        self.0.records.insert(record.node_id.clone(), record);
    }
}
