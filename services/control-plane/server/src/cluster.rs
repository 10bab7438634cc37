//! What this replica holds of the cluster, shared by its tasks: the core's
//! state behind one short lock, and a number that rises with every change.

mod ask;
mod belief;
mod growth;
mod planning;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use headwater_control_core::{
    AgentLedger, AgentState, Balancer, Belief, Census, CensusConfig, Lifecycle, NodeLoad, Order,
    Pace, Plan, RoomReport, ShardRef, State, TreeConfig,
};
use headwater_model::{Epoch, NodeId, RoomId};
use headwater_proto::node::v1::AssignRoom;
use headwater_registry::{LifecycleRecord, NodeRecord, Revision};
use tokio::sync::watch;

use crate::convert;
use crate::slice;

/// Rooms for which it is remembered who asked. More wait until others are forgotten.
const ASKED_ROOMS_MAX: usize = 10_000;

#[derive(Debug)]
struct Held {
    state: State,
    /// Last known record of every node in `state` that may still be reached.
    records: BTreeMap<NodeId, NodeRecord>,
    /// What was told on the agent streams that live.
    ledgers: BTreeMap<NodeId, (StreamId, AgentLedger)>,
    streams_opened: u64,
    census: Census,
    /// What is said of nodes whose lease lives.
    belief: Belief,
    /// To which nodes those have links that are up whose stream is open.
    links: BTreeMap<NodeId, BTreeSet<NodeId>>,
    /// When somebody was last sent to a room. Pruned every second.
    granted: BTreeMap<RoomId, Instant>,
    /// Operators' orders. One for each node under one.
    orders: BTreeMap<NodeId, LifecycleRecord>,
    /// How fast draining nodes are emptied. One for each.
    paces: BTreeMap<NodeId, Pace>,
    /// When this replica last wrote a room's plan, or first saw one of several shards
    /// that another wrote. Pruned every second.
    planned_at: BTreeMap<RoomId, Instant>,
    /// Zones that were asked for and have no shard of the room yet, with how many
    /// asked and when. Pruned every second; at most [`ASKED_ROOMS_MAX`] rooms.
    asked: BTreeMap<RoomId, BTreeMap<String, (u32, Instant)>>,
    /// Rooms that a join gives more shards now, or that could get none lately.
    /// Pruned every second; no more than joins under way and rooms that crowd.
    growing: BTreeMap<RoomId, growth::Growing>,
    balancer: Balancer,
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
    tree: TreeConfig,
}

/// A shard chosen for a room. It counts as taken until the plan arrives by the
/// watch, or this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    cluster: &'a Cluster,
    room: RoomId,
    pub(crate) shard: ShardRef,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.cluster.write().state.release(&self.room);
    }
}

impl Cluster {
    pub(crate) fn new(census: CensusConfig, tree: TreeConfig) -> Self {
        let held = Held {
            state: State::default(),
            records: BTreeMap::new(),
            ledgers: BTreeMap::new(),
            streams_opened: 0,
            census: Census::new(census),
            belief: Belief::default(),
            links: BTreeMap::new(),
            granted: BTreeMap::new(),
            orders: BTreeMap::new(),
            paces: BTreeMap::new(),
            planned_at: BTreeMap::new(),
            asked: BTreeMap::new(),
            growing: BTreeMap::new(),
            balancer: Balancer::default(),
            revision: Revision::default(),
            synced: false,
            stale_since: None,
        };
        Self { held: RwLock::new(held), version: watch::Sender::new(0), tree }
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
        shard: &ShardRef,
        room: &RoomId,
        epoch: Epoch,
        patience: Duration,
    ) {
        self.wait_until(patience, |held| match held.ledgers.get(&shard.node) {
            Some((_, ledger)) => {
                ledger.told_epoch(room, shard.shard).is_some_and(|told| told >= epoch)
            }
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
        reports: Vec<(RoomId, RoomReport)>,
    ) -> StreamId {
        let mut held = self.write();
        held.census.handle_met(node);
        held.believe_in(node);
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
        held.links.remove(node);
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
        reports: Vec<(RoomId, RoomReport)>,
    ) {
        let mut held = self.write();
        let Held { state, ledgers, .. } = &mut *held;
        let Some((_, ledger)) = ledgers.get_mut(node).filter(|(present, _)| *present == stream)
        else {
            return;
        };
        state.handle_report(node, load, reports);
        ledger.handle_report(now);
        if held.believe_in(node) {
            drop(held);
            self.changed();
        }
    }

    /// What to tell a node now, with the rooms that are to be assigned.
    pub(crate) fn orders(
        &self,
        node: &NodeId,
        stream: StreamId,
        now: Instant,
    ) -> Vec<(Order, Option<AssignRoom>)> {
        let mut held = self.write();
        let Held { state, ledgers, records, .. } = &mut *held;
        let ledger = ledgers.get_mut(node).filter(|(present, _)| *present == stream);
        let (Some((_, ledger)), Some(view)) = (ledger, state.observed().nodes.get(node)) else {
            return Vec::new();
        };
        let orders = ledger.orders(now, node, state.intended(), view);
        let with_rooms: Vec<_> = orders
            .into_iter()
            .map(|order| {
                let assignment = match &order {
                    Order::Assign { room, shard } => {
                        let at = ShardRef { node: node.clone(), shard: *shard };
                        let intended = state.intended().rooms().get(room);
                        intended.map(|intended| slice::assignment(room, intended, &at, records))
                    }
                    Order::Release { .. } | Order::Verify { .. } => None,
                };
                (order, assignment)
            })
            .collect();
        drop(held);
        if !with_rooms.is_empty() {
            self.changed();
        }
        with_rooms
    }

    /// Takes in whether a node says that its process was asked to stop.
    pub(crate) fn set_leaving(&self, node: &NodeId, leaving: bool) {
        let mut held = self.write();
        let was = held.state.observed().nodes.get(node).is_some_and(|view| view.leaving);
        if was == leaving {
            return;
        }
        held.state.set_leaving(node, leaving);
        drop(held);
        tracing::info!(node = %node, leaving, "a node says whether it stops");
        self.changed();
    }
}

impl Held {
    fn burden(&self, id: &NodeId) -> (u32, u32) {
        let rooms = u32::try_from(self.state.intended().rooms_of(id).count()).unwrap_or(u32::MAX);
        let view = self.state.observed().nodes.get(id);
        let load = view.and_then(|view| view.load);
        (rooms, load.map_or(0, |load| load.participants))
    }

    /// Keeps the records of nodes that are registered, that answer, or whose
    /// rooms have not been moved yet: they may only be out of the registry's sight.
    fn forget_records(&mut self) {
        let nodes = &self.state.observed().nodes;
        self.records.retain(|id, _| {
            nodes.get(id).is_some_and(|view| {
                view.registered || view.standing().carries() || !view.planned.is_empty()
            })
        });
    }
}

/// What the watch may change, under the lock of [`Cluster::apply`].
#[derive(Debug)]
pub(crate) struct View<'a>(&'a mut Held);

impl View<'_> {
    pub(crate) fn state(&mut self) -> &mut State {
        &mut self.0.state
    }

    /// Takes in an operator's order, or that there is none any more.
    pub(crate) fn set_order(&mut self, node: &NodeId, order: Option<LifecycleRecord>) {
        let lifecycle = order
            .as_ref()
            .map_or(Lifecycle::Serve, |order| convert::lifecycle_of_record(order.lifecycle));
        self.0.state.set_lifecycle(node, lifecycle);
        match order {
            Some(order) => self.0.orders.insert(node.clone(), order),
            None => self.0.orders.remove(node),
        };
    }

    /// Takes in a room's plan. Whichever replica wrote it, the elected one must not make
    /// it smaller before those it was written for have come.
    pub(crate) fn set_plan(&mut self, room: RoomId, plan: Plan, revision: u64) {
        let known = self.0.state.intended().rooms().get(&room);
        let is_new = known.is_none_or(|known| known.plan_revision != revision);
        if is_new && plan.shards.len() > 1 {
            self.0.planned_at.insert(room.clone(), Instant::now());
        }
        self.0.state.set_plan(room, plan, revision);
    }

    pub(crate) fn set_node(&mut self, record: NodeRecord) {
        let facts = convert::facts_of_record(&record);
        let known = self.0.records.get(&record.node_id);
        if known.is_some_and(|known| known.boot_id != record.boot_id) {
            // What was said was said of the process before.
            self.0.believe_in(&record.node_id);
        }
        self.0.state.set_node(record.node_id.clone(), facts);
        self.0.records.insert(record.node_id.clone(), record);
    }
}
