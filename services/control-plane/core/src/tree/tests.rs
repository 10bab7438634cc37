//! Trees: stories of rooms that grow and lose shards, and what holds whatever
//! happens.

mod invariants;
mod stories;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use headwater_model::{Bitrate, Epoch, NodeId, RoomId, RoomUid, ShardIndex};

use super::*;
use crate::node::{AgentState, NodeLoad};
use crate::room::{
    DEPARTURE_TIMEOUT, EMPTY_TIMEOUT, Plan, PlannedShard, Rank, RoomReport, RoomSpec, ShardRef,
};

/// A cluster and one room in it.
struct World {
    nodes: BTreeMap<NodeId, NodeView>,
    gone: BTreeSet<NodeId>,
    leaving: BTreeSet<NodeId>,
    asked: BTreeMap<String, u32>,
    may_shrink: bool,
    config: TreeConfig,
    room: IntendedRoom,
}

fn node_id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn id() -> RoomId {
    RoomId::new("plaza").unwrap()
}

impl World {
    /// Nodes of `shards` shards each; a name is `zone` + number, such as `a1`.
    fn new(names: &[&str], shards: u16) -> Self {
        let spec = RoomSpec {
            uid: RoomUid::from_raw("RM_1"),
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
        let config = TreeConfig { shard_participants: 100, ..TreeConfig::default() };
        let mut world = Self {
            nodes: BTreeMap::new(),
            gone: BTreeSet::new(),
            leaving: BTreeSet::new(),
            asked: BTreeMap::new(),
            may_shrink: true,
            config,
            room,
        };
        for name in names {
            world.add(name, shards);
        }
        world
    }

    fn add(&mut self, name: &str, shards: u16) {
        let view = NodeView {
            registered: true,
            agent: AgentState::Connected,
            zone: name.trim_end_matches(|it: char| it.is_ascii_digit()).to_owned(),
            shards,
            relays: true,
            load: Some(NodeLoad::default()),
            ..NodeView::default()
        };
        self.gone.remove(&node_id(name));
        self.nodes.insert(node_id(name), view);
    }

    fn kill(&mut self, name: &str) {
        self.nodes.remove(&node_id(name));
        self.gone.insert(node_id(name));
    }

    /// Begins with a home.
    fn begin(&mut self, name: &str) {
        let home = PlannedShard::home(node_id(name), ShardIndex(0));
        self.write(vec![home]);
    }

    fn write(&mut self, shards: Vec<PlannedShard>) {
        let epoch = Epoch(self.room.epoch().0 + 1);
        let plan = Plan { room_uid: self.room.spec.uid.clone(), epoch, shards };
        self.room.set_plan(Some((plan, epoch.0)));
    }

    fn shards(&self) -> &[PlannedShard] {
        self.room.plan.as_ref().map_or(&[], |plan| &plan.shards)
    }

    /// Puts so many people on a shard, as its node reports them at the present epoch.
    fn people(&mut self, shard: &ShardRef, participants: u32) {
        let epoch = self.room.epoch();
        if let Some(node) = self.nodes.get_mut(&shard.node) {
            let them = node.reports.entry(id()).or_default();
            them.retain(|report| report.shard != shard.shard);
            them.push(RoomReport {
                uid: RoomUid::from_raw("RM_1"),
                epoch,
                shard: shard.shard,
                participants,
                publishers: 0,
                empty_for: Duration::ZERO,
                ever_joined: true,
                egress: Bitrate(0),
            });
        }
    }

    /// So many people on every shard of the plan, and nobody elsewhere.
    fn people_on_each(&mut self, participants: u32) {
        self.spread(|_| participants);
    }

    fn spread(&mut self, mut participants: impl FnMut(usize) -> u32) {
        for node in self.nodes.values_mut() {
            node.reports.clear();
        }
        let shards: Vec<ShardRef> = self.shards().iter().map(PlannedShard::at).collect();
        for (rank, shard) in shards.iter().enumerate() {
            self.people(shard, participants(rank));
        }
    }

    fn plan(&self) -> Tree {
        let context = TreeContext {
            nodes: &self.nodes,
            gone: &self.gone,
            leaving: &self.leaving,
            asked: &self.asked,
            may_shrink: self.may_shrink,
            config: &self.config,
        };
        plan_tree(&id(), &self.room, &context)
    }

    /// Plans and writes; answers whether anything changed.
    fn settle(&mut self) -> bool {
        let tree = self.plan();
        let changed = tree.shards != self.shards();
        if changed {
            self.write(tree.shards);
        }
        changed
    }

    fn zone(&self, rank: usize) -> &str {
        let node = &self.shards()[rank].node;
        self.nodes.get(node).map_or("", |node| node.zone.as_str())
    }

    fn inter_zone_links(&self) -> usize {
        let crosses = |(rank, shard): &(usize, &PlannedShard)| {
            shard.parent.is_some_and(|parent| self.zone(parent.index()) != self.zone(*rank))
        };
        self.shards().iter().enumerate().filter(crosses).count()
    }

    /// The tree as text: every shard with the node of its parent and its backups.
    fn drawn(&self) -> Vec<String> {
        let name = |rank: &Rank| {
            let shard = &self.shards()[rank.index()];
            format!("{}/{}", shard.node, shard.shard)
        };
        (0..=u16::MAX)
            .map(Rank)
            .zip(self.shards())
            .map(|(rank, shard)| {
                let parent = shard.parent.as_ref().map(name).unwrap_or_default();
                let backups: Vec<String> = shard.backups.iter().map(name).collect();
                format!("{} < {parent} [{}]", name(&rank), backups.join(" "))
            })
            .collect()
    }
}
