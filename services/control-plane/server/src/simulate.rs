//! What the planner would do for a room of a given size, on a copy of what is
//! observed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_control_core::room::{DEPARTURE_TIMEOUT, EMPTY_TIMEOUT};
use headwater_control_core::{
    IntendedRoom, NodeView, Plan, PlannedShard, RoomSpec, ShardRef, Standing, State, Tree,
    TreeConfig, TreeContext, Wish, choose, plan_tree,
};
use headwater_model::{Epoch, NodeId, RoomId, RoomUid};
use headwater_proto::v1::{SimulatePlacementRequest, SimulatePlacementResponse};
use headwater_registry::Record as _;
use headwater_rpc::status;
use tonic::Status;

use crate::{convert, names, topology};

const PARTICIPANTS_MAX: u32 = 10_000_000;
const ZONES_MAX: usize = 64;
const WITHOUT_MAX: usize = 1000;

/// What is to be simulated.
#[derive(Debug)]
pub(crate) struct Wanted {
    participants: u32,
    zone_weights: BTreeMap<String, u32>,
    without: BTreeSet<NodeId>,
    room: Option<RoomId>,
}

impl Wanted {
    /// Reads a request.
    pub(crate) fn read(request: SimulatePlacementRequest) -> Result<Self, Status> {
        let refused = |field, message| Err(status::invalid_argument(field, message));
        if request.participant_count > PARTICIPANTS_MAX {
            return refused("participant_count", "must be at most 10 million");
        }
        if request.publisher_count > request.participant_count {
            return refused("publisher_count", "must be at most participant_count");
        }
        if request.zone_weights.len() > ZONES_MAX {
            return refused("zone_weights", "must be at most 64");
        }
        if request.without_nodes.len() > WITHOUT_MAX {
            return refused("without_nodes", "must be at most 1000");
        }
        let without: Result<_, _> = request
            .without_nodes
            .iter()
            .map(|name| names::parse_node("without_nodes", name))
            .collect();
        let room = match request.room.as_str() {
            "" => None,
            name => Some(names::parse_room("room", name)?),
        };
        Ok(Self {
            participants: request.participant_count,
            zone_weights: request.zone_weights.into_iter().collect(),
            without: without?,
            room,
        })
    }
}

/// What it is simulated on.
#[derive(Debug)]
pub(crate) struct World {
    id: RoomId,
    room: IntendedRoom,
    nodes: BTreeMap<NodeId, NodeView>,
}

impl World {
    /// A copy of what is observed, without the nodes that are to be left out and
    /// without what the room's shards report.
    pub(crate) fn of(state: &State, wanted: &Wanted) -> Result<Self, Status> {
        let mut nodes = state.observed().nodes.clone();
        nodes.retain(|id, _| !wanted.without.contains(id));
        let (id, room) = match &wanted.room {
            Some(id) => {
                let room = state.intended().rooms().get(id);
                let room = room.ok_or_else(|| status::not_found("room", &names::room(id)))?;
                (id.clone(), room.clone())
            }
            None => (RoomId::new("simulated").map_err(|error| status::internal(&error))?, empty()),
        };
        for node in nodes.values_mut() {
            node.reports.remove(&id);
        }
        Ok(Self { id, room, nodes })
    }
}

fn empty() -> IntendedRoom {
    let spec = RoomSpec {
        uid: RoomUid::from_raw("RM_simulated"),
        metadata: Arc::from(""),
        max_participants: 0,
        empty_timeout: EMPTY_TIMEOUT,
        departure_timeout: DEPARTURE_TIMEOUT,
        create_millis: 0,
    };
    IntendedRoom { spec, create_revision: 0, spec_revision: 0, plan: None, plan_revision: 0 }
}

/// Runs the planner.
pub(crate) fn run(
    world: &World,
    wanted: &Wanted,
    config: &TreeConfig,
) -> SimulatePlacementResponse {
    let started = Instant::now();
    let before = world.room.plan.clone();
    let tree = plan(world, wanted, config);
    let planning_time = started.elapsed();
    let plan = Plan {
        room_uid: world.room.spec.uid.clone(),
        epoch: Epoch(world.room.epoch().0.saturating_add(1)),
        shards: tree.shards,
    };
    let unplaced = unplaced(wanted.participants, plan.shards.len(), config);
    let (removed, reparented) = difference(before.as_ref(), &plan);
    SimulatePlacementResponse {
        depth: topology::depth(&plan),
        inter_zone_links: topology::inter_zone_links(&plan, &world.nodes),
        unplaced_participants: unplaced,
        shards_removed: removed,
        shards_reparented: reparented,
        planning_time: Some(convert::duration(planning_time.max(Duration::from_nanos(1)))),
        plan_bytes: u64::try_from(convert::plan_to_record(&plan).encode().len()).unwrap_or(0),
        shards: topology::shards(&plan, &world.nodes, |_| None),
    }
}

fn plan(world: &World, wanted: &Wanted, config: &TreeConfig) -> Tree {
    let mut room = world.room.clone();
    if room.home().is_none() {
        let Ok(choice) = choose(&world.nodes, &Wish::default(), 0) else {
            return Tree::default();
        };
        let home = PlannedShard::home(choice.node, choice.shard);
        let (room_uid, epoch) = (room.spec.uid.clone(), Epoch(1));
        room.set_plan(Some((Plan { room_uid, epoch, shards: vec![home] }, 1)));
    }
    let gone: BTreeSet<NodeId> =
        room.plan.iter().flat_map(|plan| &plan.shards).map(|it| it.node.clone()).collect();
    let gone = gone.into_iter().filter(|it| !world.nodes.contains_key(it)).collect();
    let leaving = world
        .nodes
        .iter()
        .filter(|(_, node)| node.standing() == Standing::Draining)
        .map(|(id, _)| id.clone())
        .collect();
    let asked = by_zone(world, wanted);
    let context = TreeContext {
        nodes: &world.nodes,
        gone: &gone,
        leaving: &leaving,
        asked: &asked,
        may_shrink: true,
        config,
    };
    plan_tree(&world.id, &room, &context)
}

/// The participants by zones.
fn by_zone(world: &World, wanted: &Wanted) -> BTreeMap<String, u32> {
    let mut weights = wanted.zone_weights.clone();
    if weights.values().all(|weight| *weight == 0) {
        weights = world.nodes.values().map(|node| (node.zone.clone(), 1)).collect();
    }
    let sum: u64 = weights.values().map(|weight| u64::from(*weight)).sum();
    weights
        .into_iter()
        .map(|(zone, weight)| {
            let share = u64::from(wanted.participants) * u64::from(weight) / sum.max(1);
            (zone, u32::try_from(share).unwrap_or(u32::MAX))
        })
        .collect()
}

fn unplaced(participants: u32, shards: usize, config: &TreeConfig) -> u32 {
    let shards = u32::try_from(shards).unwrap_or(u32::MAX);
    participants.saturating_sub(shards.saturating_mul(config.shard_participants))
}

/// Shards that left, and shards that got another parent.
fn difference(before: Option<&Plan>, after: &Plan) -> (u32, u32) {
    let parents = |plan: &Plan| -> BTreeMap<ShardRef, Option<ShardRef>> {
        let parent =
            |it: &PlannedShard| it.parent.and_then(|parent| plan.get(parent)).map(PlannedShard::at);
        plan.shards.iter().map(|it| (it.at(), parent(it))).collect()
    };
    let (was, is) = (before.map(parents).unwrap_or_default(), parents(after));
    let (mut removed, mut reparented) = (0, 0);
    for (shard, parent) in was {
        match is.get(&shard) {
            None => removed += 1,
            Some(now) if *now != parent => reparented += 1,
            Some(_) => {}
        }
    }
    (removed, reparented)
}
