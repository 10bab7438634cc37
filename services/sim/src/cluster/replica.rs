//! One replica of the control plane: the real planner, census, ledgers and balancer over
//! the model of the registry. What is around them is as in the control plane's server,
//! with a tick in place of its tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use headwater_control_core::admission::{Carrier, RoomFacts};
use headwater_control_core::{
    Action, AgentLedger, AgentState, Balancer, Cause, Census, CensusConfig, Choice, IntendedRoom,
    Lifecycle, NodeLoad, Order, Pace, Plan, PlanContext, Planned, PlannedShard, RoomReport,
    SeatWish, ShardRef, Standing, State, TreeConfig, TreeContext, Wish, choose, choose_seat,
    first_epoch, next_epoch, plan, plan_tree,
};
use headwater_model::{NodeId, RoomId};

use super::reading::Reading;
use super::registry::{Compare, Entry, Key, Registry, Revision, Value, Write};
use crate::Time;

/// As the server's: shortest time between two looks of the planner, and the longest.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const GRANT_HOLDS: Duration = Duration::from_secs(5);
const PLAN_RESTS: Duration = Duration::from_secs(2);
const PLAN_YOUNG: Duration = Duration::from_secs(60);
const LEAVING_TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(5);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
const ELECTION_TTL: Duration = Duration::from_secs(10);

/// The stream to one node, open or to be tried.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Number of the open stream.
    pub(crate) open: Option<u64>,
    /// It is being opened; given up then.
    pub(crate) opening: Option<Time>,
    next_try: Time,
    backoff: Duration,
    heard: Time,
    ledger: AgentLedger,
    looked: Time,
}

/// What a node says on a stream.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) boot: u64,
    pub(crate) leaving: bool,
    pub(crate) load: NodeLoad,
    pub(crate) rooms: Vec<(RoomId, RoomReport)>,
}

/// One replica. See the module.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) index: usize,
    pub(crate) life: u64,
    pub(crate) state: State,
    pub(crate) boots: BTreeMap<NodeId, u64>,
    pub(crate) streams: BTreeMap<NodeId, Stream>,
    pub(crate) census: Census,
    granted: BTreeMap<RoomId, Time>,
    planned_at: BTreeMap<RoomId, Time>,
    paces: BTreeMap<NodeId, Pace>,
    balancer: Balancer,
    /// Newest revision that was heard.
    pub(crate) revision: u64,
    pub(crate) synced: bool,
    stale: bool,
    /// Lease and creation of the leader's key, while it is this one's.
    leading: Option<(u64, u64)>,
    renewed: Time,
    changed: bool,
    looked: Time,
    counted: Time,
    tree: TreeConfig,
    seed: u64,
}

impl Replica {
    pub(crate) fn new(index: usize, life: u64, tree: TreeConfig, seed: u64) -> Self {
        Self {
            index,
            life,
            state: State::default(),
            boots: BTreeMap::new(),
            streams: BTreeMap::new(),
            census: Census::new(CensusConfig::default()),
            granted: BTreeMap::new(),
            planned_at: BTreeMap::new(),
            paces: BTreeMap::new(),
            balancer: Balancer::default(),
            revision: 0,
            synced: false,
            stale: true,
            leading: None,
            renewed: Time::ZERO,
            changed: false,
            looked: Time::ZERO,
            counted: Time::ZERO,
            tree,
            seed,
        }
    }

    pub(crate) fn is_leading(&self) -> bool {
        self.leading.is_some()
    }

    pub(crate) fn next_seed(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.seed >> 7
    }

    // The registry.

    /// The watch is interrupted, or is not.
    pub(crate) fn set_stale(&mut self, stale: bool) {
        self.stale = stale;
    }

    /// Takes in what the watch brings: of each key its last state, as the server does.
    pub(crate) fn follow(&mut self, revisions: &[Revision]) {
        let mut last: BTreeMap<&Key, &Option<Entry>> = BTreeMap::new();
        for (key, entry) in revisions.iter().flat_map(|revision| &revision.changes) {
            last.insert(key, entry);
        }
        for (key, entry) in last {
            match entry {
                Some(entry) => self.put(key, entry),
                None => self.delete(key),
            }
        }
        if let Some(newest) = revisions.last() {
            self.revision = newest.number;
        }
        self.synced = true;
        self.changed = true;
        self.forget_records();
    }

    fn put(&mut self, key: &Key, entry: &Entry) {
        match (key, &entry.value) {
            (Key::Node(node), Value::Node { boot, facts }) => {
                self.state.set_node(node.clone(), facts.clone());
                self.boots.insert(node.clone(), *boot);
            }
            (Key::Order(node), Value::Order(order)) => self.state.set_lifecycle(node, *order),
            (Key::Spec(room), Value::Spec(spec)) => {
                self.state.set_spec(room.clone(), spec.clone(), entry.created, entry.changed);
            }
            (Key::Plan(room), Value::Plan(plan)) => {
                self.state.set_plan(room.clone(), plan.clone(), entry.changed);
            }
            _ => {}
        }
    }

    fn delete(&mut self, key: &Key) {
        match key {
            Key::Node(node) => self.state.remove_node(node),
            Key::Order(node) => self.state.set_lifecycle(node, Lifecycle::Serve),
            Key::Spec(room) => self.state.remove_spec(room),
            Key::Plan(room) => self.state.remove_plan(room),
            Key::Leader => {}
        }
    }

    fn forget_records(&mut self) {
        let nodes = &self.state.observed().nodes;
        self.boots.retain(|id, _| {
            nodes.get(id).is_some_and(|view| view.standing().carries() || !view.planned.is_empty())
        });
        let boots = &self.boots;
        self.streams.retain(|id, _| boots.contains_key(id));
    }

    /// Stands for election, or renews what it has.
    pub(crate) fn campaign(&mut self, now: Time, registry: &mut Registry) {
        if now.since(self.renewed) < ELECTION_TTL / 3 {
            return;
        }
        self.renewed = now;
        if let Some((lease, _)) = self.leading {
            match registry.keep_alive(now, lease) {
                Ok(true) | Err(_) => {}
                Ok(false) => self.leading = None,
            }
            return;
        }
        let Ok(None) = registry.get(&Key::Leader) else { return };
        let Ok(lease) = registry.grant(now, ELECTION_TTL) else { return };
        let put = Write::Put(Key::Leader, Value::Leader(self.index), Some(lease));
        if let Ok(Some(revision)) = registry.commit(&[Compare::Absent(Key::Leader)], vec![put]) {
            self.leading = Some((lease, revision));
        }
    }

    /// It gives up what it was elected to.
    pub(crate) fn resign(&mut self, registry: &mut Registry) {
        if let Some((lease, _)) = self.leading.take() {
            let _ = registry.revoke(lease);
        }
    }

    // Agent streams.

    /// Nodes that a stream is to be tried to now.
    pub(crate) fn openable(&mut self, now: Time) -> Vec<NodeId> {
        for node in self.boots.keys() {
            self.streams.entry(node.clone()).or_insert_with(|| Stream {
                open: None,
                opening: None,
                next_try: now,
                backoff: BACKOFF_MIN,
                heard: now,
                ledger: AgentLedger::default(),
                looked: Time::ZERO,
            });
        }
        let due = |stream: &Stream| {
            stream.open.is_none() && stream.opening.is_none() && stream.next_try <= now
        };
        let due: Vec<NodeId> = self
            .streams
            .iter()
            .filter(|(_, stream)| due(stream))
            .map(|(node, _)| node.clone())
            .collect();
        for node in &due {
            if let Some(stream) = self.streams.get_mut(node) {
                stream.opening = Some(now.plus(Duration::from_secs(3)));
            }
        }
        due
    }

    /// A node answered with its first report. `false` if it is another process than the
    /// one registered.
    pub(crate) fn opened(
        &mut self,
        (now, at): (Time, Instant),
        node: &NodeId,
        number: u64,
        report: Report,
    ) -> bool {
        if self.boots.get(node).is_none_or(|boot| *boot != report.boot) {
            self.close(now, node, None);
            return false;
        }
        let Some(stream) = self.streams.get_mut(node) else { return false };
        stream.open = Some(number);
        stream.opening = None;
        stream.backoff = BACKOFF_MIN;
        stream.heard = now;
        stream.ledger = AgentLedger::default();
        stream.ledger.handle_report(at);
        self.census.handle_met(node);
        self.state.set_agent(node, AgentState::Connected);
        self.state.handle_report(node, report.load, report.rooms);
        self.state.set_leaving(node, report.leaving);
        self.changed = true;
        true
    }

    pub(crate) fn heard(
        &mut self,
        (now, at): (Time, Instant),
        node: &NodeId,
        number: u64,
        report: Report,
    ) {
        let Some(stream) = self.streams.get_mut(node) else { return };
        if stream.open != Some(number) {
            return;
        }
        stream.heard = now;
        stream.ledger.handle_report(at);
        self.state.handle_report(node, report.load, report.rooms);
        let was = self.state.observed().nodes.get(node).is_some_and(|view| view.leaving);
        self.changed |= was != report.leaving;
        self.state.set_leaving(node, report.leaving);
    }

    /// A stream broke, or could not be opened.
    pub(crate) fn close(&mut self, now: Time, node: &NodeId, number: Option<u64>) {
        let Some(stream) = self.streams.get_mut(node) else { return };
        if stream.open != number {
            return;
        }
        (stream.open, stream.opening) = (None, None);
        stream.next_try = now.plus(stream.backoff);
        stream.backoff = (stream.backoff * 2).min(BACKOFF_MAX);
        stream.ledger = AgentLedger::default();
        self.state.set_agent(node, AgentState::Lost);
        self.changed = true;
        self.forget_records();
    }

    /// Streams over which nothing was heard for too long, and those that do not open.
    pub(crate) fn silent(&self, now: Time) -> Vec<(NodeId, Option<u64>)> {
        let is_silent = |stream: &Stream| match stream.open {
            Some(_) => now.since(stream.heard) >= SILENCE_MAX,
            None => stream.opening.is_some_and(|until| until <= now),
        };
        let silent = self.streams.iter().filter(|(_, stream)| is_silent(stream));
        silent.map(|(node, stream)| (node.clone(), stream.open)).collect()
    }

    /// What to tell a node now.
    pub(crate) fn orders(
        &mut self,
        (now, at): (Time, Instant),
        node: &NodeId,
        changed: bool,
    ) -> Vec<Order> {
        let Some(stream) = self.streams.get_mut(node) else { return Vec::new() };
        if stream.open.is_none() || !(changed || now.since(stream.looked) >= LOOK_INTERVAL) {
            return Vec::new();
        }
        stream.looked = now;
        let Some(view) = self.state.observed().nodes.get(node) else { return Vec::new() };
        stream.ledger.orders(at, node, self.state.intended(), view)
    }

    // The planner.

    /// Counts the nodes and forgets what is old, once a second.
    pub(crate) fn tick(&mut self, now: Time, at: Instant) {
        if now.since(self.counted) < Duration::from_secs(1) {
            return;
        }
        self.counted = now;
        self.granted.retain(|_, since| now.since(*since) < GRANT_HOLDS);
        self.planned_at.retain(|_, since| now.since(*since) < PLAN_YOUNG);
        let present = self.state.observed().present();
        let named = self.state.intended().nodes_named();
        self.census.handle_count(at, present, &named);
    }

    /// Whether something changed since the last call.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Looks at everything, if it is elected and the time has come.
    pub(crate) fn look(&mut self, now: Time, at: Instant, changed: bool) -> Planned {
        let due = now.since(self.looked) >= LOOK_INTERVAL
            || (changed && now.since(self.looked) >= LOOK_PAUSE);
        if !due || !self.synced || self.stale || self.leading.is_none() {
            return Planned::default();
        }
        self.looked = now;
        let moves = self.allowances(at);
        let younger = |than: Duration| -> BTreeSet<RoomId> {
            let young = self.planned_at.iter().filter(|(_, since)| now.since(**since) < than);
            young.map(|(room, _)| room.clone()).collect()
        };
        let (gone, young, resting) =
            (self.census.gone(at), younger(PLAN_YOUNG), younger(PLAN_RESTS));
        let asked = BTreeMap::new();
        let frozen = self.census.is_frozen(at);
        let seed = self.next_seed();
        let context = PlanContext {
            gone: &gone,
            frozen,
            region: "",
            registry_revision: self.revision,
            seed,
            moves: &moves,
            asked: &asked,
            young: &young,
            resting: &resting,
            tree: &self.tree,
        };
        let mut planned = plan(self.state.intended(), self.state.observed(), &context);
        if !frozen {
            self.rebalance(at, &mut planned);
        }
        for (node, moved) in &planned.moved {
            if let Some(pace) = self.paces.get_mut(node) {
                pace.spend(*moved);
            }
        }
        planned
    }

    fn allowances(&mut self, at: Instant) -> BTreeMap<NodeId, u32> {
        let nodes = &self.state.observed().nodes;
        let draining: Vec<NodeId> = nodes
            .iter()
            .filter(|(_, view)| view.standing() == Standing::Draining)
            .map(|(id, _)| id.clone())
            .collect();
        self.paces.retain(|id, _| draining.contains(id));
        let mut allowances = BTreeMap::new();
        for id in draining {
            let rooms = self.state.intended().rooms_of(&id).count() as u32;
            let view = self.state.observed().nodes.get(&id);
            let people = view.and_then(|view| view.load).map_or(0, |load| load.participants);
            let leaving = view.is_some_and(|view| view.leaving);
            let time_left = leaving.then_some(LEAVING_TIMEOUT);
            let pace = self.paces.entry(id.clone()).or_default();
            allowances.insert(id, pace.allowance(at, rooms + people, time_left));
        }
        allowances
    }

    fn rebalance(&mut self, at: Instant, planned: &mut Planned) {
        for made in self.balancer.propose(at, self.state.intended(), self.state.observed()) {
            let touched = planned.actions.iter().any(|action| match action {
                Action::WritePlan { room, .. } | Action::EndRoom { room, .. } => *room == made.room,
            });
            let room = self.state.intended().rooms().get(&made.room).filter(|_| !touched);
            let Some(room) = room else { continue };
            let nodes = &self.state.observed().nodes;
            let without = nodes.keys().filter(|id| **id != made.to).cloned().collect();
            let wish = Wish { without, ..Wish::default() };
            let Ok(choice) = choose(nodes, &wish, 0) else { continue };
            let epoch = next_epoch(room.epoch(), self.state.observed().highest_epoch(&made.room));
            let shards = vec![PlannedShard::home(choice.node, choice.shard)];
            let plan = Plan { room_uid: room.spec.uid.clone(), epoch, shards };
            planned.actions.push(Action::WritePlan {
                room: made.room,
                plan,
                cause: Cause::Balance,
            });
        }
    }

    /// Carries out one action of its planner, fenced by its election. `in_use` says
    /// whether the nodes of a room know of anybody there.
    pub(crate) fn act(
        &mut self,
        now: Time,
        registry: &mut Registry,
        action: Action,
        in_use: impl FnOnce(&RoomId) -> bool,
    ) -> Option<(RoomId, Cause)> {
        let (_, elected) = self.leading?;
        let fence = Compare::Created(Key::Leader, elected);
        match action {
            Action::WritePlan { room, plan, cause } => {
                let reading = Reading::of(registry, &room)?;
                let found = reading.room.as_ref()?;
                let known = self.state.intended().rooms().get(&room);
                let same = found.spec.uid == plan.room_uid && found.epoch() < plan.epoch;
                if !same || known.map(|room| room.plan_revision) != Some(found.plan_revision) {
                    return None;
                }
                reading.write_plan(registry, &room, plan, Some(fence))??;
                self.planned_at.insert(room.clone(), now);
                Some((room, cause))
            }
            Action::EndRoom { room, node: _ } => {
                let known = self.state.intended().rooms().get(&room).cloned()?;
                let reading = Reading::of(registry, &room)?;
                let awaited =
                    self.granted.get(&room).is_some_and(|at| now.since(*at) < GRANT_HOLDS);
                if reading.room.as_ref() != Some(&known) || awaited || in_use(&room) {
                    return None;
                }
                reading.delete(registry, &room, fence);
                None
            }
        }
    }

    // Joins.

    pub(crate) fn full_at(&self) -> u32 {
        self.tree.shard_participants
    }

    /// What matters about a room for a join, as the server sees it.
    pub(crate) fn room_facts(
        &self,
        id: &RoomId,
        room: &IntendedRoom,
        wish: &SeatWish<'_>,
    ) -> RoomFacts {
        let observed = self.state.observed();
        let many = room.plan.as_ref().filter(|plan| plan.shards.len() > 1);
        let blames_home = room.home().is_some_and(|home| wish.without == Some(&home.node));
        let seat = match many {
            Some(plan) if !blames_home => {
                choose_seat(id, plan, &observed.nodes, wish).and_then(|rank| plan.get(rank))
            }
            Some(_) | None => None,
        };
        let no_seat = many.is_some() && !blames_home && seat.is_none();
        let carrier = seat.or_else(|| room.home()).map(|planned| {
            let view = observed.nodes.get(&planned.node);
            Carrier {
                planned: planned.at(),
                standing: observed.standing(&planned.node),
                shard_exists: view.is_none_or(|v| !v.registered || planned.shard.0 < v.shards),
                address_known: self.boots.contains_key(&planned.node),
                full: no_seat,
            }
        });
        RoomFacts {
            epoch: room.epoch(),
            carrier,
            shards: room.plan.as_ref().map_or(0, |plan| plan.shards.len()),
            max_participants: room.spec.max_participants,
            participants: match room.spec.max_participants {
                0 => 0,
                _ => observed.count_of(id, room).0,
            },
            crowded: self.is_crowded(id, room, wish.full_at),
        }
    }

    fn is_crowded(&self, id: &RoomId, room: &IntendedRoom, full_at: u32) -> bool {
        let nodes = &self.state.observed().nodes;
        let relays = room.home().and_then(|home| nodes.get(&home.node)).is_some_and(|it| it.relays);
        let Some(plan) = room.plan.as_ref().filter(|_| relays) else { return false };
        headwater_control_core::seat::is_crowded(id, plan, nodes, full_at)
    }

    /// The plan that gives a room more shards; none if there are none to have.
    pub(crate) fn grown(&self, id: &RoomId, room: &IntendedRoom) -> Option<Plan> {
        let plan = room.plan.as_ref()?;
        let next = self.planned_tree(id, room, None);
        (next.shards.len() > plan.shards.len()).then_some(next)
    }

    /// The plan of a room of several shards without a node that failed.
    pub(crate) fn without(&self, id: &RoomId, room: &IntendedRoom, node: &NodeId) -> Plan {
        self.planned_tree(id, room, Some(node))
    }

    fn planned_tree(&self, id: &RoomId, room: &IntendedRoom, without: Option<&NodeId>) -> Plan {
        let observed = self.state.observed();
        let context = TreeContext {
            nodes: &observed.nodes,
            gone: &BTreeSet::new(),
            leaving: &without.cloned().into_iter().collect(),
            asked: &BTreeMap::new(),
            may_shrink: false,
            config: &self.tree,
        };
        Plan {
            room_uid: room.spec.uid.clone(),
            epoch: next_epoch(room.epoch(), observed.highest_epoch(id)),
            shards: plan_tree(id, room, &context).shards,
        }
    }

    /// Chooses a shard for a room, as the server's reservation does.
    pub(crate) fn reserve(&mut self, room: &RoomId, without: Option<&NodeId>) -> Option<ShardRef> {
        let wish = Wish { without: without.cloned().into_iter().collect(), ..Wish::default() };
        let seed = self.next_seed();
        let Choice { node, shard } = choose(&self.state.observed().nodes, &wish, seed).ok()?;
        let shard = ShardRef { node, shard };
        self.state.reserve(room.clone(), shard.clone());
        Some(shard)
    }

    /// The first plan of a new incarnation, or the one that comes next.
    pub(crate) fn plan_at(
        &self,
        id: &RoomId,
        (room, spec_uid): (Option<&IntendedRoom>, &headwater_model::RoomUid),
        shard: ShardRef,
        revision: u64,
    ) -> Plan {
        let reported = self.state.observed().highest_epoch(id);
        let epoch = match room.filter(|room| room.plan.is_some()) {
            Some(room) => next_epoch(room.epoch(), reported),
            None => first_epoch(revision, reported),
        };
        Plan { room_uid: spec_uid.clone(), epoch, shards: vec![shard.into()] }
    }

    pub(crate) fn note_planned(&mut self, now: Time, room: &RoomId) {
        self.planned_at.insert(room.clone(), now);
    }

    pub(crate) fn add_grant(&mut self, now: Time, room: &RoomId, shard: &ShardRef) {
        self.state.add_grant(room, shard);
        self.granted.insert(room.clone(), now);
    }

    pub(crate) fn has_lost(&self, node: &NodeId) -> bool {
        let view = self.state.observed().nodes.get(node);
        view.is_none_or(|view| view.agent == AgentState::Lost)
    }
}
