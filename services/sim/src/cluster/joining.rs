//! One join on its way: a gateway asks a replica for a place and a node for a session,
//! and again elsewhere if either has to. The decisions are the core's; the steps around
//! them are those of the control plane's placer and the gateway.

use std::time::{Duration, Instant};

use headwater_control_core::admission::{FailedNode, SeatCount};
use headwater_control_core::{
    Admission, Decision, IntendedRoom, JoinFacts, Knowledge, RoomSpec, SeatWish, ShardRef, decide,
};
use headwater_model::{Epoch, Identity, NodeId, ParticipantUid, RoomId};

use super::client::Stay;
use super::reading::Reading;
use super::registry::{Compare, Key, Registry, Value, Write};
use super::replica::Replica;
use crate::Time;

/// Places tried for one join, as in the gateway.
pub(crate) const ATTEMPTS_MAX: u32 = 6;
/// Steps of one placement, as in the placer.
const STEPS_MAX: u32 = 16;
/// How long a call may spend on a registry that does not answer.
const PATIENCE: Duration = Duration::from_millis(750);
/// What one question to the registry or to a node takes.
const ASK: Duration = Duration::from_millis(4);

/// A join on its way.
pub(crate) struct Joining {
    /// It is for this stay; none begins a new one.
    pub(crate) resume: Option<ParticipantUid>,
    pub(crate) attempt: u32,
    pub(crate) failed: Option<FailedNode>,
    pub(crate) task: Option<Task>,
    /// Replicas that did not answer, one after the other.
    pub(crate) misses: u32,
    /// Steps that were planned before it are void.
    pub(crate) serial: u64,
    /// Its session, once a node was asked.
    pub(crate) attaching: Option<Place>,
    pub(crate) session: u64,
    /// The stay that is to be taken up.
    pub(crate) kept: Option<Box<Stay>>,
}

/// Where a participant goes.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) shard: ShardRef,
    pub(crate) epoch: Epoch,
    pub(crate) spec: RoomSpec,
    pub(crate) spec_revision: u64,
}

/// A placement at one replica.
pub(crate) struct Task {
    pub(crate) replica: usize,
    pub(crate) life: u64,
    room_id: RoomId,
    identity: Identity,
    publishes: bool,
    facts: JoinFacts,
    room: Option<IntendedRoom>,
    reading: Option<Reading>,
    steps: u32,
}

/// What the surroundings of a replica say.
pub(crate) struct Around<'a> {
    pub(crate) now: Time,
    /// It can be reached from this replica.
    pub(crate) registry: bool,
    /// A room that a join makes.
    pub(crate) new_room: RoomSpec,
    /// Whether a node answers this replica.
    pub(crate) answers: &'a dyn Fn(&NodeId) -> bool,
    /// What a node says of who is in the room.
    pub(crate) seats: &'a dyn Fn(&NodeId) -> Option<SeatCount>,
}

/// What came of a step.
pub(crate) enum Step {
    Again(Duration),
    Admitted(Box<Place>),
    Wait(Duration),
    Full,
    NotFound,
}

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl Task {
    pub(crate) fn new(
        replica: &Replica,
        (room_id, identity): (RoomId, Identity),
        (publishes, resuming): (bool, bool),
        failed: Option<FailedNode>,
        at: Instant,
    ) -> Self {
        let mut task = Self {
            replica: replica.index,
            life: replica.life,
            room_id,
            identity,
            publishes,
            facts: JoinFacts {
                knowledge: Knowledge::Watched,
                room: None,
                may_create: !resuming,
                resuming,
                failed,
                failed_answers: None,
                seats: None,
                seats_asked: false,
                growth_tried: false,
                frozen: replica.census.is_frozen(at),
            },
            room: None,
            reading: None,
            steps: 0,
        };
        let known = replica.state.intended().rooms().get(&task.room_id).cloned();
        task.learn(replica, known);
        task
    }

    pub(crate) fn room(&self) -> &RoomId {
        &self.room_id
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    fn learn(&mut self, replica: &Replica, room: Option<IntendedRoom>) {
        let wish = SeatWish {
            zone: "",
            publishes: self.publishes,
            without: self.facts.failed.as_ref().map(|failed| &failed.node),
            seed: fnv(self.identity.as_str()),
            full_at: replica.full_at(),
        };
        let facts = room.as_ref().map(|room| replica.room_facts(&self.room_id, room, &wish));
        self.facts.room = facts;
        self.room = room;
    }

    /// One step of the placer.
    pub(crate) fn step(
        &mut self,
        replica: &mut Replica,
        registry: &mut Registry,
        around: &Around<'_>,
    ) -> Step {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Step::Wait(Duration::from_secs(1));
        }
        match decide(&self.facts) {
            Decision::Answer(Admission::Admitted) => self.admitted(replica, around.now),
            Decision::Answer(Admission::Wait(_)) => Step::Wait(Duration::from_secs(1)),
            Decision::Answer(Admission::RoomFull) => Step::Full,
            Decision::Answer(Admission::RoomNotFound) => Step::NotFound,
            Decision::ReadRoom => self.read(replica, registry, around),
            Decision::CreateRoom => self.create(replica, registry, around),
            Decision::WritePlan { replaces, without } => {
                self.write_plan(replica, registry, around, (replaces, without))
            }
            Decision::GrowPlan => self.grow(replica, registry, around),
            Decision::ProbeNode(node) => {
                let answers = !replica.has_lost(&node) && (around.answers)(&node);
                self.facts.failed_answers = Some(answers);
                Step::Again(if answers { ASK } else { Duration::from_millis(500) })
            }
            Decision::CountSeats(node) => {
                self.facts.seats_asked = true;
                self.facts.seats = (around.seats)(&node);
                Step::Again(ASK)
            }
        }
    }

    fn admitted(&self, replica: &mut Replica, now: Time) -> Step {
        let carrier = self.facts.room.as_ref().and_then(|room| room.carrier.as_ref());
        let (Some(room), Some(carrier)) = (&self.room, carrier) else {
            return Step::Wait(Duration::from_secs(1));
        };
        if !replica.boots.contains_key(&carrier.planned.node) {
            return Step::Wait(Duration::from_secs(1));
        }
        replica.add_grant(now, &self.room_id, &carrier.planned);
        Step::Admitted(Box::new(Place {
            shard: carrier.planned.clone(),
            epoch: room.epoch(),
            spec: room.spec.clone(),
            spec_revision: room.spec_revision,
        }))
    }

    fn read(&mut self, replica: &Replica, registry: &Registry, around: &Around<'_>) -> Step {
        let reading = Reading::of(registry, &self.room_id).filter(|_| around.registry);
        match reading {
            Some(reading) => {
                self.learn(replica, reading.room.clone());
                self.reading = Some(reading);
                self.facts.knowledge = Knowledge::Read;
                Step::Again(ASK)
            }
            None => {
                self.facts.knowledge = Knowledge::Unreachable;
                Step::Again(PATIENCE)
            }
        }
    }

    fn create(
        &mut self,
        replica: &mut Replica,
        registry: &mut Registry,
        around: &Around<'_>,
    ) -> Step {
        let Some(reading) = self.reading.take() else {
            return self.read(replica, registry, around);
        };
        let id = self.room_id.clone();
        let spec = around.new_room.clone();
        let plan = replica
            .reserve(&id, None)
            .map(|shard| replica.plan_at(&id, (None, &spec.uid), shard, reading.revision));
        let key = Key::Spec(id.clone());
        let mut writes = vec![Write::Put(key.clone(), Value::Spec(spec.clone()), None)];
        writes.extend(
            plan.clone().map(|plan| Write::Put(Key::Plan(id.clone()), Value::Plan(plan), None)),
        );
        let written = if around.registry {
            registry.commit(&[Compare::Absent(key)], writes)
        } else {
            Err(super::registry::Away)
        };
        replica.state.release(&id);
        match written {
            Ok(Some(revision)) => {
                let mut room = IntendedRoom {
                    spec,
                    create_revision: revision,
                    spec_revision: revision,
                    plan: None,
                    plan_revision: 0,
                };
                room.set_plan(plan.map(|plan| (plan, revision)));
                self.learn(replica, Some(room));
                Step::Again(ASK * 4)
            }
            Ok(None) => self.read(replica, registry, around),
            Err(_) => Step::Wait(Duration::from_secs(1)),
        }
    }

    fn write_plan(
        &mut self,
        replica: &mut Replica,
        registry: &mut Registry,
        around: &Around<'_>,
        (replaces, without): (Epoch, Option<NodeId>),
    ) -> Step {
        let reading = self.reading.take().filter(|reading| {
            reading.room.as_ref().map_or(Epoch(0), IntendedRoom::epoch) == replaces
        });
        let Some((reading, room)) = reading.and_then(|it| it.room.clone().map(|room| (it, room)))
        else {
            return self.read(replica, registry, around);
        };
        let id = self.room_id.clone();
        let many = room.plan.as_ref().is_some_and(|plan| plan.shards.len() > 1);
        let tree = without.as_ref().filter(|_| many).map(|node| replica.without(&id, &room, node));
        let plan = match tree.filter(|plan| !plan.shards.is_empty()) {
            Some(plan) => plan,
            None => {
                let Some(shard) = replica.reserve(&id, without.as_ref()) else {
                    return Step::Wait(Duration::from_secs(1));
                };
                let plan =
                    replica.plan_at(&id, (Some(&room), &room.spec.uid), shard, reading.revision);
                replica.state.release(&id);
                plan
            }
        };
        self.put(replica, registry, around, (&reading, room), plan)
    }

    fn put(
        &mut self,
        replica: &mut Replica,
        registry: &mut Registry,
        around: &Around<'_>,
        (reading, mut room): (&Reading, IntendedRoom),
        plan: headwater_control_core::Plan,
    ) -> Step {
        let written = if around.registry {
            reading.write_plan(registry, &self.room_id, plan.clone(), None)
        } else {
            None
        };
        match written {
            Some(Some(revision)) => {
                room.set_plan(Some((plan, revision)));
                self.learn(replica, Some(room));
                Step::Again(ASK * 4)
            }
            Some(None) => self.read(replica, registry, around),
            None => Step::Wait(Duration::from_secs(1)),
        }
    }

    fn grow(
        &mut self,
        replica: &mut Replica,
        registry: &mut Registry,
        around: &Around<'_>,
    ) -> Step {
        self.facts.growth_tried = true;
        let reading = Reading::of(registry, &self.room_id).filter(|_| around.registry);
        let found = reading.and_then(|it| it.room.clone().map(|room| (it, room)));
        let Some((reading, room)) = found else { return Step::Again(PATIENCE) };
        let Some(plan) = replica.grown(&self.room_id, &room) else { return Step::Again(ASK) };
        replica.note_planned(around.now, &self.room_id);
        self.put(replica, registry, around, (&reading, room), plan)
    }
}
