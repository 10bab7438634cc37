//! What to do about one participant who wants to join: a chain of small steps,
//! each decided from facts alone, that ends in an [`Admission`].

use std::time::Duration;

use headwater_model::{Epoch, NodeId};

use crate::node::Standing;
use crate::room::ShardRef;

/// When to ask again if the registry cannot be reached or no node has room.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);
/// When to ask again if the room is full: somebody must leave first, and those
/// who wait must not ask all the time.
pub const FULL_RETRY_AFTER: Duration = Duration::from_secs(5);
/// Rooms of at most so many participants are counted by asking their node
/// before somebody is refused, since a report is up to a second old and a page
/// reload must find its own seat free. Larger ones go by the report: listing
/// thousands for every refused join would cost more than it saves.
pub const COUNTED_EXACTLY_MAX: u32 = 256;

/// Where the facts about the room come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knowledge {
    /// From the watched state: a moment old.
    Watched,
    /// Read from the registry for this very join.
    Read,
    /// From the watched state, because the registry cannot be reached.
    Unreachable,
}

/// A shard that carries a room, and how its node does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carrier {
    /// The shard.
    pub planned: ShardRef,
    /// What its node is good for.
    pub standing: Standing,
    /// Whether the node still has a shard of that number.
    pub shard_exists: bool,
    /// Whether it is known where the node can be reached.
    pub address_known: bool,
    /// The node reported as many participants as it accepts.
    pub full: bool,
}

/// A room, as far as a join is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomFacts {
    /// Epoch of its plan; 0 if it has none.
    pub epoch: Epoch,
    /// The shard that the participant would go to: the home, or one of several
    /// that carry the room.
    pub carrier: Option<Carrier>,
    /// How many shards carry the room. With more than one, each has its own part
    /// of the seats and refuses by itself.
    pub shards: usize,
    /// Most participants admitted at once. 0 means no limit.
    pub max_participants: u32,
    /// Counted participants, as last reported. Looked at only if there is a limit.
    pub participants: u32,
    /// Every shard that carries it has as many as it should, and it may get more
    /// shards.
    pub crowded: bool,
}

/// A node that failed for the participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedNode {
    /// The node.
    pub node: NodeId,
    /// Epoch of the plan that named it.
    pub epoch: Epoch,
}

/// What the node said when asked who is in the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeatCount {
    /// Counted participants.
    pub participants: u32,
    /// The one who wants to join is among them, so it takes no new seat.
    pub is_inside: bool,
}

/// Everything that matters about one join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinFacts {
    /// Where `room` comes from.
    pub knowledge: Knowledge,
    /// The room, if there is one.
    pub room: Option<RoomFacts>,
    /// The room may be created.
    pub may_create: bool,
    /// The participant is in the room already and only comes back.
    pub resuming: bool,
    /// The gateway could not use this node.
    pub failed: Option<FailedNode>,
    /// Whether the failed node answered us; absent until asked.
    pub failed_answers: Option<bool>,
    /// The node's own count; absent until asked, or if it did not answer.
    pub seats: Option<SeatCount>,
    /// Whether the node was asked for its count.
    pub seats_asked: bool,
    /// It was tried to give the room more shards, and not again for this join.
    pub growth_tried: bool,
    /// Too many nodes vanished at once: nothing moves without a witness.
    pub frozen: bool,
}

/// The answer to a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Go to the shard that the plan calls home.
    Admitted,
    /// Ask again after [`RETRY_AFTER`].
    Wait(WaitReason),
    /// The room has all the participants it may have.
    RoomFull,
    /// There is no such room and it may not be created.
    RoomNotFound,
}

/// Why a participant must wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WaitReason {
    /// The registry does not answer, and without it nothing new can be placed.
    #[error("the registry cannot be reached")]
    RegistryUnreachable,
    /// The node that carries the room has all the participants it accepts, or
    /// every shard of the room has for the moment.
    #[error("the media node is full")]
    NodeFull,
    /// No node can take the room.
    #[error("no media node can take the room")]
    NoNode,
    /// Other writers were faster too often.
    #[error("the room is changing")]
    Contended,
}

/// What to do next about a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing more: answer.
    Answer(Admission),
    /// Read the room from the registry and decide again.
    ReadRoom,
    /// Create the room with a first plan and decide again.
    CreateRoom,
    /// Write a plan in place of the one with this epoch, and decide again.
    WritePlan {
        /// Epoch of the plan to replace; 0 if there is none.
        replaces: Epoch,
        /// Node not to choose.
        without: Option<NodeId>,
    },
    /// Give the room more shards, if there are any to have, and decide again.
    GrowPlan,
    /// Ask the node whether it is there, and decide again.
    ProbeNode(NodeId),
    /// Ask the node who is in the room, and decide again.
    CountSeats(NodeId),
}

/// Decides the next step of a join.
///
/// A join normally reads nothing and writes nothing: the watched plan on a
/// living node is the answer, which is why joins go on while the registry is
/// away. Only what would refuse somebody or move a room is first read from the
/// registry itself.
#[must_use]
pub fn decide(facts: &JoinFacts) -> Decision {
    let Some(room) = &facts.room else {
        return when_fresh(
            facts,
            if facts.may_create {
                Decision::CreateRoom
            } else {
                Decision::Answer(Admission::RoomNotFound)
            },
        );
    };
    let Some(carrier) = &room.carrier else {
        return when_fresh(facts, Decision::WritePlan { replaces: room.epoch, without: None });
    };
    if let Some(step) = step_away_from(facts, room, carrier) {
        return step;
    }
    match refusal(facts, room, carrier) {
        Some(step) => step,
        None if may_grow(facts, room) => Decision::GrowPlan,
        None => Decision::Answer(Admission::Admitted),
    }
}

/// A step that needs the registry: read it first, or wait for it.
fn when_fresh(facts: &JoinFacts, step: Decision) -> Decision {
    match facts.knowledge {
        Knowledge::Read => step,
        Knowledge::Watched => Decision::ReadRoom,
        Knowledge::Unreachable => {
            Decision::Answer(Admission::Wait(WaitReason::RegistryUnreachable))
        }
    }
}

/// What must be done before the carrier can be answered with, if anything.
fn step_away_from(facts: &JoinFacts, room: &RoomFacts, carrier: &Carrier) -> Option<Decision> {
    let replan = || {
        let step = Decision::WritePlan {
            replaces: room.epoch,
            without: Some(carrier.planned.node.clone()),
        };
        Some(when_fresh(facts, step))
    };
    if !carrier.shard_exists {
        let step = Decision::WritePlan { replaces: room.epoch, without: None };
        return Some(when_fresh(facts, step));
    }
    let blamed = facts.failed.as_ref().filter(|failed| failed.node == carrier.planned.node);
    let Some(failed) = blamed else {
        // Nobody has tried it. While the breaker is open a node that seems gone
        // may only be out of our sight: let the gateway try, and be the witness.
        let gone = !carrier.standing.carries();
        let trust = facts.frozen && carrier.address_known;
        return if gone && !trust { replan() } else { None };
    };
    if failed.epoch < room.epoch && room.shards < 2 {
        // The plan was made after that failure, and chose the node again. A tree is
        // planned anew without moving anybody: there the epoch of the one who blames
        // says nothing, and the node is asked.
        return None;
    }
    if facts.knowledge == Knowledge::Watched {
        // Somebody else may have moved the room already.
        return Some(Decision::ReadRoom);
    }
    match facts.failed_answers {
        None => Some(Decision::ProbeNode(failed.node.clone())),
        Some(true) => None,
        Some(false) => replan(),
    }
}

/// Whoever comes back to its seat makes no room fuller, and without the registry
/// nothing grows.
fn may_grow(facts: &JoinFacts, room: &RoomFacts) -> bool {
    room.crowded
        && !facts.growth_tried
        && !facts.resuming
        && facts.knowledge != Knowledge::Unreachable
}

fn refusal(facts: &JoinFacts, room: &RoomFacts, carrier: &Carrier) -> Option<Decision> {
    if facts.resuming {
        return None;
    }
    if room.max_participants > 0 && room.participants >= room.max_participants {
        let exact = room.shards < 2 && room.max_participants <= COUNTED_EXACTLY_MAX;
        return match facts.seats {
            None if exact && !facts.seats_asked => {
                Some(Decision::CountSeats(carrier.planned.node.clone()))
            }
            Some(seats) if seats.is_inside || seats.participants < room.max_participants => None,
            None | Some(_) => Some(Decision::Answer(Admission::RoomFull)),
        };
    }
    carrier.full.then_some(Decision::Answer(Admission::Wait(WaitReason::NodeFull)))
}

#[cfg(test)]
mod tests;
