//! One room on paper nodes: everybody joins, the planner follows, a node dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_control_core::node::{AgentState, NodeLoad, NodeView};
use headwater_control_core::room::{DEPARTURE_TIMEOUT, EMPTY_TIMEOUT, IntendedRoom, RoomSpec};
use headwater_control_core::{
    Plan, PlannedShard, RoomReport, SeatWish, TreeConfig, TreeContext, choose_seat, plan_tree,
};
use headwater_model::{Bitrate, Epoch, NodeId, RoomId, RoomUid, ShardIndex};
use headwater_registry::record::{self, PlanRecord, Record as _};

use crate::Assumptions;

/// Participants placed to measure what one takes.
const PLACED: u32 = 500;
/// Between two plans of a growing room.
const PLAN_RESTS_SECONDS: u32 = 2;

/// What a room came to.
#[derive(Debug, Clone)]
pub struct Room {
    pub viewers: u32,
    pub nodes: usize,
    pub shards: usize,
    pub depth: u16,
    /// Links between nodes, and those of them between zones.
    pub links: usize,
    pub zone_links: usize,
    pub unbacked: usize,
    /// Plans written while everybody joined.
    pub plans: u32,
    /// The longest of them to plan.
    pub slowest: Duration,
    /// The last plan made from nothing, planned again as it is, and repaired
    /// after the loss of a node.
    pub from_nothing: Duration,
    pub again: Duration,
    pub repair: Duration,
    pub plan_bytes: usize,
    /// Choosing the shard of one participant, when everybody is there.
    pub placing: Duration,
}

struct World {
    id: RoomId,
    room: IntendedRoom,
    nodes: BTreeMap<NodeId, NodeView>,
    gone: BTreeSet<NodeId>,
    config: TreeConfig,
    zones: u16,
}

/// Runs the planner for a room of so many viewers.
pub fn run(viewers: u32, assumptions: &Assumptions) -> Room {
    let mut world = World::new(viewers, assumptions);
    let mut room = world.wave(viewers, assumptions);
    room.placing = world.place();
    let home = world.shards()[0].clone();
    let full = world.shards().to_vec();

    world.write(vec![PlannedShard::home(home.node.clone(), home.shard)]);
    let started = Instant::now();
    let fresh = world.plan(viewers);
    room.from_nothing = started.elapsed();
    drop(fresh);

    world.write(full);
    world.report(viewers);
    let started = Instant::now();
    let again = world.plan(0);
    room.again = started.elapsed();
    assert!(again == world.shards(), "planning again must change nothing");

    let victim = world.shards().last().map(|shard| shard.node.clone());
    if let Some(victim) = victim.filter(|victim| *victim != home.node) {
        world.nodes.remove(&victim);
        world.gone.insert(victim);
    }
    let started = Instant::now();
    let repaired = world.plan(0);
    room.repair = started.elapsed();
    drop(repaired);
    room
}

impl World {
    fn new(viewers: u32, assumptions: &Assumptions) -> Self {
        let config =
            TreeConfig { shard_participants: assumptions.shard_viewers(), ..TreeConfig::default() };
        // A quarter more than the planner aims for, so that a node may be lost.
        let per_node = f64::from(assumptions.shard_viewers())
            * config.aim
            * f64::from(assumptions.shards_per_node);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
        let nodes =
            (f64::from(viewers) / per_node * 1.25).ceil() as u32 + u32::from(assumptions.zones);
        let view = |zone: u32| NodeView {
            registered: true,
            agent: AgentState::Connected,
            zone: format!("zone-{zone}"),
            shards: assumptions.shards_per_node,
            relays: true,
            load: Some(NodeLoad::default()),
            ..NodeView::default()
        };
        let name = |number: u32| {
            NodeId::new(format!("media-node-{number:04}")).expect("the name is short and plain")
        };
        let nodes = (0..nodes)
            .map(|number| (name(number), view(number % u32::from(assumptions.zones.max(1)))))
            .collect();
        let spec = RoomSpec {
            uid: RoomUid::from_raw("RM_capacity"),
            metadata: Arc::from(""),
            max_participants: 0,
            empty_timeout: EMPTY_TIMEOUT,
            departure_timeout: DEPARTURE_TIMEOUT,
            create_millis: 0,
        };
        let room = IntendedRoom {
            spec,
            create_revision: 1,
            spec_revision: 1,
            plan: None,
            plan_revision: 0,
        };
        let id = RoomId::new("town-hall").expect("the name is short and plain");
        let zones = assumptions.zones.max(1);
        let mut world = Self { id, room, nodes, gone: BTreeSet::new(), config, zones };
        let first = world.nodes.keys().next().cloned().expect("there is a node");
        world.write(vec![PlannedShard::home(first, ShardIndex(0))]);
        world
    }

    fn shards(&self) -> &[PlannedShard] {
        self.room.plan.as_ref().map_or(&[], |plan| &plan.shards)
    }

    fn write(&mut self, shards: Vec<PlannedShard>) {
        let epoch = Epoch(self.room.epoch().0 + 1);
        let plan = Plan { room_uid: self.room.spec.uid.clone(), epoch, shards };
        self.room.set_plan(Some((plan, epoch.0)));
    }

    /// So many viewers, spread evenly over the shards, as the nodes report them.
    fn report(&mut self, viewers: u32) {
        for node in self.nodes.values_mut() {
            node.reports.clear();
        }
        let shards: Vec<_> = self.shards().iter().map(PlannedShard::at).collect();
        let count = u32::try_from(shards.len()).unwrap_or(u32::MAX).max(1);
        for (index, shard) in (0..count).zip(shards) {
            let participants = viewers / count + u32::from(index < viewers % count);
            let report = RoomReport {
                uid: self.room.spec.uid.clone(),
                epoch: self.room.epoch(),
                shard: shard.shard,
                participants,
                publishers: 0,
                empty_for: Duration::ZERO,
                ever_joined: true,
                egress: Bitrate(0),
            };
            if let Some(node) = self.nodes.get_mut(&shard.node) {
                node.reports.entry(self.id.clone()).or_default().push(report);
            }
        }
    }

    /// Plans for those who are there and `asked` more, spread over the zones.
    fn plan(&self, asked: u32) -> Vec<PlannedShard> {
        let zones = u32::from(self.zones);
        let asked = match asked {
            0 => BTreeMap::new(),
            asked => (0..zones).map(|zone| (format!("zone-{zone}"), asked / zones)).collect(),
        };
        let context = TreeContext {
            nodes: &self.nodes,
            gone: &self.gone,
            leaving: &BTreeSet::new(),
            asked: &asked,
            may_shrink: false,
            config: &self.config,
        };
        plan_tree(&self.id, &self.room, &context).shards
    }

    /// Everybody joins at an even rate; a plan every two seconds follows.
    fn wave(&mut self, viewers: u32, assumptions: &Assumptions) -> Room {
        let mut plans = 0;
        let mut slowest = Duration::ZERO;
        let looks = assumptions.join_seconds.div_ceil(PLAN_RESTS_SECONDS).max(1);
        // One look more, for those who came after the last.
        for look in 1..=looks + 1 {
            let there = u64::from(viewers) * u64::from(look.min(looks)) / u64::from(looks);
            let there = u32::try_from(there).unwrap_or(viewers);
            self.report(there);
            // The zones without a shard are asked for by those who are nearest.
            let asked = if look == 1 { there } else { 0 };
            let started = Instant::now();
            let shards = self.plan(asked);
            slowest = slowest.max(started.elapsed());
            if shards != self.shards() {
                plans += 1;
                self.write(shards);
            }
        }
        self.measure(viewers, plans, slowest)
    }

    fn measure(&self, viewers: u32, plans: u32, slowest: Duration) -> Room {
        let shards = self.shards();
        let nodes: BTreeSet<_> = shards.iter().map(|shard| &shard.node).collect();
        let zone = |node: &NodeId| self.nodes.get(node).map(|view| &view.zone);
        let links: Vec<_> = shards
            .iter()
            .filter_map(|shard| Some((shard, shards.get(shard.parent?.index())?)))
            .filter(|(shard, parent)| shard.node != parent.node)
            .collect();
        let zone_links = links.iter().filter(|(a, b)| zone(&a.node) != zone(&b.node)).count();
        let depths = self.room.plan.as_ref().map_or_else(Vec::new, Plan::depths);
        Room {
            viewers,
            nodes: nodes.len(),
            shards: shards.len(),
            depth: depths.into_iter().max().unwrap_or(0),
            links: links.len(),
            zone_links,
            unbacked: shards.iter().skip(1).filter(|shard| shard.backups.is_empty()).count(),
            plans,
            slowest,
            from_nothing: Duration::ZERO,
            again: Duration::ZERO,
            repair: Duration::ZERO,
            plan_bytes: self.stored().encode().len(),
            placing: Duration::ZERO,
        }
    }

    /// What it takes to find a viewer's shard, on average.
    fn place(&self) -> Duration {
        let Some(plan) = &self.room.plan else { return Duration::ZERO };
        let started = Instant::now();
        for number in 0..PLACED {
            let zone = format!("zone-{}", number % u32::from(self.zones));
            let wish = SeatWish {
                zone: &zone,
                publishes: false,
                without: None,
                seed: number.into(),
                full_at: 0,
            };
            let seat = choose_seat(&self.id, plan, &self.nodes, &wish);
            assert!(seat.is_some(), "there is a seat for everybody");
        }
        started.elapsed() / PLACED
    }

    fn stored(&self) -> PlanRecord {
        let shards = self.shards().iter().map(|shard| record::PlannedShard {
            node_id: shard.node.clone(),
            shard: shard.shard,
            parent: shard.parent.map(|parent| parent.0),
            backups: shard.backups.iter().map(|backup| backup.0).collect(),
            seats: shard.seats,
        });
        let room_uid = self.room.spec.uid.clone();
        PlanRecord { room_uid, epoch: self.room.epoch(), shards: shards.collect() }
    }
}
