//! Carries out the steps of a join that the core decides, until there is an
//! answer. A join to a room on a living node touches nothing but memory.

use std::sync::Arc;
use std::time::Duration;

use headwater_control_core::admission::{FailedNode, SeatCount, WaitReason};
use headwater_control_core::{
    Admission, Decision, IntendedRoom, JoinFacts, Knowledge, Plan, SeatWish, ShardRef, Witness,
    decide,
};
use headwater_model::{Epoch, Identity, NodeId, RoomId};
use headwater_proto::v1;
use headwater_telemetry::Metrics;
use headwater_telemetry::metrics::{PlacementResult, PlanReason};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::convert;
use crate::nodes::Nodes;
use crate::participants::Participants;
use crate::registry::{PATIENCE, RegistryError, RoomReading};
use crate::rooms::{NewRoom, Rooms};

/// Most steps of one join. A join takes three, one that moves a room six; more
/// means that others change the room all the time.
const STEPS_MAX: usize = 16;
/// How long an admitted join waits for its node to be told of the room. The
/// join carries all that the node needs, so being late is no failure.
const TELL_PATIENCE: Duration = Duration::from_millis(250);

/// How long a join waits for another one to give the room more shards. It then
/// goes where there is least, so being late only makes a shard fuller.
const GROWTH_PATIENCE: Duration = Duration::from_millis(500);

/// How often one join sees to it that the room gets more shards. In a wave others
/// take those that it waited for; each time there are nearly twice as many.
const GROWTHS_MAX: usize = 8;

/// One participant who wants a place.
#[derive(Debug, Clone)]
pub(crate) struct PlaceRequest {
    pub(crate) room: RoomId,
    pub(crate) identity: Identity,
    pub(crate) may_create: bool,
    pub(crate) resuming: bool,
    pub(crate) failed: Option<FailedNode>,
    /// Zone it is nearest to. Empty means not known.
    pub(crate) zone: String,
    pub(crate) publishes: bool,
}

impl PlaceRequest {
    fn wish(&self, full_at: u32) -> SeatWish<'_> {
        SeatWish {
            full_at,
            zone: &self.zone,
            publishes: self.publishes,
            without: self.failed.as_ref().map(|failed| &failed.node),
            seed: fnv(self.identity.as_str()),
        }
    }
}

/// The same number for the same text on every replica (FNV-1a).
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Where a participant goes.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) room: v1::Room,
    pub(crate) shard: ShardRef,
    pub(crate) node_url: String,
    pub(crate) epoch: Epoch,
}

/// What became of a request for a place.
#[derive(Debug, Clone)]
pub(crate) enum Placed {
    Admitted(Box<Place>),
    Wait(WaitReason),
    RoomFull,
    RoomNotFound,
}

/// Places participants.
#[derive(Debug, Clone)]
pub(crate) struct Placer {
    pub(crate) rooms: Rooms,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) participants: Participants,
    pub(crate) metrics: Metrics,
}

/// A join on its way: the facts, and where the room among them came from.
struct Join {
    request: PlaceRequest,
    facts: JoinFacts,
    room: Option<IntendedRoom>,
    reading: Option<RoomReading>,
    deadline: Instant,
    waits: Option<WaitReason>,
    /// How often the room was given more shards, or was to be.
    growths: usize,
}

impl Placer {
    /// Finds a participant's place.
    #[tracing::instrument(name = "place participant", skip_all, fields(
        room = %request.room, resuming = request.resuming, failed = request.failed.is_some(),
        admission, node, epoch,
    ))]
    pub(crate) async fn place(&self, request: PlaceRequest) -> Result<Placed, RegistryError> {
        let metrics = self.metrics.control_plane();
        let timer = metrics.placement_duration.start_timer();
        let outcome = self.steps(request).await;
        timer.observe_duration();
        let result = match &outcome {
            Ok(Placed::Admitted(_)) => PlacementResult::Admitted,
            Ok(Placed::Wait(_)) => PlacementResult::Wait,
            Ok(Placed::RoomFull) => PlacementResult::RoomFull,
            Ok(Placed::RoomNotFound) => PlacementResult::RoomNotFound,
            Err(_) => PlacementResult::Failed,
        };
        metrics.placements.get(result).inc();
        let span = tracing::Span::current();
        span.record("admission", tracing::field::debug(result));
        if let Ok(Placed::Admitted(place)) = &outcome {
            span.record("node", tracing::field::display(&place.shard.node));
            span.record("epoch", place.epoch.0);
        }
        outcome
    }

    async fn steps(&self, request: PlaceRequest) -> Result<Placed, RegistryError> {
        let mut join = self.begin(request);
        for _ in 0..STEPS_MAX {
            let step = decide(&join.facts);
            tracing::debug!(?step, "join");
            match step {
                Decision::Answer(Admission::Admitted) => {
                    if let Some(place) = self.admit(&join).await {
                        return Ok(Placed::Admitted(Box::new(place)));
                    }
                    return Ok(Placed::Wait(WaitReason::NoNode));
                }
                Decision::Answer(Admission::Wait(reason)) => return Ok(Placed::Wait(reason)),
                Decision::Answer(Admission::RoomFull) => return Ok(Placed::RoomFull),
                Decision::Answer(Admission::RoomNotFound) => return Ok(Placed::RoomNotFound),
                Decision::ReadRoom => self.read_room(&mut join).await?,
                Decision::CreateRoom => self.create_room(&mut join).await?,
                Decision::WritePlan { replaces, without } => {
                    self.write_plan(&mut join, replaces, without).await?;
                }
                Decision::GrowPlan => self.grow_plan(&mut join).await?,
                Decision::ProbeNode(node) => {
                    join.facts.failed_answers = Some(self.answers(&node).await);
                }
                Decision::CountSeats(node) => {
                    join.facts.seats_asked = true;
                    join.facts.seats = self.count_seats(&node, &join.request).await;
                }
            }
            if let Some(reason) = join.waits {
                return Ok(Placed::Wait(reason));
            }
        }
        Ok(Placed::Wait(WaitReason::Contended))
    }

    /// Whether a blamed node is there. That our own stream to it broke is a
    /// second witness; else it is asked.
    async fn answers(&self, node: &NodeId) -> bool {
        let answers = match self.cluster.node_url(node) {
            Some(url) if !self.cluster.has_lost(node) => self.nodes.answers(node, &url).await,
            Some(_) | None => false,
        };
        tracing::info!(node = %node, answers, "a node was blamed");
        if !answers {
            let now = std::time::Instant::now();
            self.cluster.handle_witness(node.as_str(), Witness::Gateway, now);
        }
        answers
    }

    fn begin(&self, request: PlaceRequest) -> Join {
        let wish = request.wish(self.cluster.tree_config().shard_participants);
        let (known, room) = self.cluster.room_to_join(&request.room, &wish).unzip();
        let facts = JoinFacts {
            knowledge: Knowledge::Watched,
            room: known,
            may_create: request.may_create,
            resuming: request.resuming,
            failed: request.failed.clone(),
            failed_answers: None,
            seats: None,
            seats_asked: false,
            growth_tried: false,
            frozen: self.cluster.is_frozen(std::time::Instant::now()),
        };
        let deadline = Instant::now() + PATIENCE;
        Join { request, facts, room, reading: None, deadline, waits: None, growths: 0 }
    }

    async fn read_room(&self, join: &mut Join) -> Result<(), RegistryError> {
        match self.rooms.registry.read_room(&join.request.room, join.deadline).await {
            Ok(reading) => {
                let room = reading.room.as_ref().map(|found| found.intended.clone());
                self.learn(join, room);
                join.reading = Some(reading);
                join.facts.knowledge = Knowledge::Read;
                Ok(())
            }
            Err(RegistryError::Away) => {
                join.facts.knowledge = Knowledge::Unreachable;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn create_room(&self, join: &mut Join) -> Result<(), RegistryError> {
        let Some(reading) = &join.reading else {
            return self.read_room(join).await;
        };
        let new = NewRoom::by_join(join.request.room.clone());
        match self.rooms.write_new(&new, reading.revision, join.deadline).await {
            Ok(Some(room)) => self.written(join, room),
            Ok(None) => self.read_room(join).await?,
            Err(RegistryError::Away) => join.waits = Some(WaitReason::RegistryUnreachable),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn write_plan(
        &self,
        join: &mut Join,
        replaces: Epoch,
        without: Option<NodeId>,
    ) -> Result<(), RegistryError> {
        let Some(reading) = join.reading.take().filter(|reading| reading.epoch() == replaces)
        else {
            return self.read_room(join).await;
        };
        let id = &join.request.room;
        let many = reading
            .room
            .as_ref()
            .filter(|found| found.intended.plan.as_ref().is_some_and(|plan| plan.shards.len() > 1));
        if let Some((found, node)) = many.zip(without.as_ref()) {
            let plan = self.cluster.tree_without(id, &found.intended, node);
            if !plan.shards.is_empty() {
                return self.write_tree(join, &reading, plan).await;
            }
        }
        let seed = rand::random();
        let Ok(reservation) = self.cluster.reserve(id, &self.rooms.region, without.as_ref(), seed)
        else {
            join.waits = Some(WaitReason::NoNode);
            return Ok(());
        };
        let reason = if without.is_some() { PlanReason::NodeGone } else { PlanReason::FirstUse };
        let writing = self.rooms.write_plan(&reading, &reservation, reason, join.deadline);
        let outcome = writing.await;
        drop(reservation);
        match outcome {
            Ok(Some(room)) => self.written(join, room),
            Ok(None) => self.read_room(join).await?,
            Err(RegistryError::Away) => join.waits = Some(WaitReason::RegistryUnreachable),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Writes the plan of a room of several shards that lost one.
    async fn write_tree(
        &self,
        join: &mut Join,
        reading: &RoomReading,
        plan: Plan,
    ) -> Result<(), RegistryError> {
        let reason = PlanReason::NodeGone;
        match self.rooms.write_this_plan(reading, plan, reason, join.deadline).await {
            Ok(Some(room)) => self.written(join, room),
            Ok(None) => self.read_room(join).await?,
            Err(RegistryError::Away) => join.waits = Some(WaitReason::RegistryUnreachable),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Gives a crowded room more shards. One join of this replica does it, the
    /// others wait for it; nobody is refused if it does not come about.
    async fn grow_plan(&self, join: &mut Join) -> Result<(), RegistryError> {
        join.growths += 1;
        join.facts.growth_tried = join.growths >= GROWTHS_MAX;
        let id = join.request.room.clone();
        let Some(growth) = self.cluster.begin_growth(&id) else {
            let epoch = join.room.as_ref().map_or(Epoch(0), IntendedRoom::epoch);
            self.cluster.wait_until_grown(&id, epoch, GROWTH_PATIENCE).await;
            let wish = join.request.wish(self.cluster.tree_config().shard_participants);
            let (known, room) = self.cluster.room_to_join(&id, &wish).unzip();
            (join.facts.room, join.room, join.reading) = (known, room, None);
            return Ok(());
        };
        self.read_room(join).await?;
        let Some(reading) = join.reading.take() else { return Ok(()) };
        let Some(found) = &reading.room else { return Ok(()) };
        let Some(plan) = growth.plan(&found.intended, &join.request.zone) else {
            return Ok(());
        };
        let writing = self.rooms.write_this_plan(&reading, plan, PlanReason::Size, join.deadline);
        match writing.await {
            Ok(Some(room)) => {
                self.written(join, room);
            }
            // Another replica was faster; what it wrote is good for this join too.
            Ok(None) => self.read_room(join).await?,
            Err(RegistryError::Away) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes in a room that this join wrote. It must be read anew before it is
    /// written once more.
    fn written(&self, join: &mut Join, room: IntendedRoom) {
        tracing::info!(room = %join.request.room, epoch = %room.epoch(), "room planned");
        join.reading = None;
        self.learn(join, Some(room));
    }

    fn learn(&self, join: &mut Join, room: Option<IntendedRoom>) {
        let id = &join.request.room;
        let wish = join.request.wish(self.cluster.tree_config().shard_participants);
        let facts = room.as_ref().map(|room| self.cluster.room_facts(id, room, &wish));
        join.facts.room = facts;
        join.room = room;
    }

    async fn count_seats(&self, node: &NodeId, request: &PlaceRequest) -> Option<SeatCount> {
        let participants = self.participants.of_node(node, &request.room).await.ok()?;
        let counted = participants.iter().filter(|participant| {
            let hidden = participant.permission.as_ref().is_some_and(|it| it.hidden);
            !participant.uncounted && !hidden
        });
        Some(SeatCount {
            participants: u32::try_from(counted.count()).unwrap_or(u32::MAX),
            is_inside: participants
                .iter()
                .any(|participant| participant.identity == request.identity.as_str()),
        })
    }

    /// The answer of an admitted join, once the node was told of the room.
    async fn admit(&self, join: &Join) -> Option<Place> {
        let (id, room) = (&join.request.room, join.room.as_ref()?);
        let shard = join.facts.room.as_ref()?.carrier.as_ref()?.planned.clone();
        let node_url = self.cluster.node_url(&shard.node)?;
        let epoch = room.epoch();
        let now = std::time::Instant::now();
        self.cluster.add_grant(id, &shard, now);
        tracing::debug!(room = %id, node = %shard.node, shard = %shard.shard, "participant placed");
        if !join.request.zone.is_empty() {
            self.cluster.note_asked(id, &join.request.zone, now);
        }
        self.cluster.wait_until_told(&shard, id, epoch, TELL_PATIENCE).await;
        Some(Place { room: convert::room_for_node(id, room), shard, node_url, epoch })
    }
}
