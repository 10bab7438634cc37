//! Chooses the shard of a room's plan that one participant goes to. Of a large
//! room only some shards are looked at: everybody who joins asks.

use std::collections::BTreeMap;

use headwater_model::{NodeId, RoomId};

use crate::node::{NodeView, Standing};
use crate::placement::Random;
use crate::room::{Plan, PlannedShard, Rank};

/// What matters for the choice among the shards of one room.
#[derive(Debug, Clone, Copy)]
pub struct SeatWish<'a> {
    /// Zone the participant is nearest to. Empty means not known.
    pub zone: &'a str,
    /// It may publish, so it belongs near the home.
    pub publishes: bool,
    /// Node that just failed for it.
    pub without: Option<&'a NodeId>,
    /// Chooses among equals; the same participant should bring the same seed, so
    /// that it finds its old shard again.
    pub seed: u64,
    /// Participants of the room from which on a shard is used only if all others
    /// have as many. 0 means that there is no such number.
    pub full_at: u32,
}

/// Whether every shard of a plan has as many participants as it should, those on
/// their way included. Looks at all shards.
#[must_use]
pub fn is_crowded(
    id: &RoomId,
    plan: &Plan,
    nodes: &BTreeMap<NodeId, NodeView>,
    full_at: u32,
) -> bool {
    let is_full = |planned: &PlannedShard| {
        let node = nodes.get(&planned.node);
        node.is_none_or(|node| node.believed(id, planned.shard) >= full_at)
    };
    full_at > 0 && plan.shards.iter().all(is_full)
}

/// Rooms of more shards keep the home for those who publish.
const SHARDS_WITH_VIEWERS_AT_HOME: usize = 4;
/// Shards of a large room that are looked at. Of three zones, all have some among
/// so many but once in a hundred thousand times; then all shards are looked at.
const LOOKED_AT: usize = 32;

/// Chooses the shard of a room's plan that a participant goes to: in its zone,
/// with a seat, near the home if it publishes and away from it if it only
/// watches a large room; of these the emptiest, those on their way counted. None
/// if no shard of the plan has a seat on a node that may be used.
#[must_use]
pub fn choose_seat(
    id: &RoomId,
    plan: &Plan,
    nodes: &BTreeMap<NodeId, NodeView>,
    wish: &SeatWish<'_>,
) -> Option<Rank> {
    let mut random = Random(wish.seed);
    let choosing = Choosing { id, plan, nodes, wish };
    if plan.shards.len() > 2 * LOOKED_AT {
        let some = choosing.seats(choosing.drawn(&mut random));
        if some.iter().any(|seat| seat.penalty == [false; 4]) {
            return best(&some, &mut random);
        }
    }
    best(&choosing.seats(plan.ranked()), &mut random)
}

/// The best; among equals one by chance. Several replicas may ask for the emptiest
/// without all going to the same one, because each counts whom it sent there.
fn best(seats: &[Seat], random: &mut Random) -> Option<Rank> {
    let least = seats.iter().map(Seat::order).min()?;
    let group: Vec<&Seat> = seats.iter().filter(|seat| seat.order() == least).collect();
    group.get(random.below(group.len())).map(|seat| seat.rank)
}

struct Seat {
    rank: Rank,
    /// What speaks against it, the worst first.
    penalty: [bool; 4],
    here: u32,
    /// On all shards of its node.
    on_node: u32,
}

impl Seat {
    fn order(&self) -> ([bool; 4], u32, u32) {
        (self.penalty, self.here, self.on_node)
    }
}

struct Choosing<'a> {
    id: &'a RoomId,
    plan: &'a Plan,
    nodes: &'a BTreeMap<NodeId, NodeView>,
    wish: &'a SeatWish<'a>,
}

impl<'a> Choosing<'a> {
    /// Some shards: those near the home for who publishes, else any.
    fn drawn(&self, random: &mut Random) -> Vec<(Rank, &'a PlannedShard)> {
        let near = self.plan.shards.iter().take_while(|planned| !is_far(planned)).count();
        let among = if self.wish.publishes { near } else { self.plan.shards.len() };
        let ranks = (0..LOOKED_AT).filter_map(|_| u16::try_from(random.below(among)).ok());
        let drawn = ranks.filter_map(|rank| Some((Rank(rank), self.plan.get(Rank(rank))?)));
        let drawn: BTreeMap<Rank, &PlannedShard> = drawn.collect();
        drawn.into_iter().collect()
    }

    fn seats(&self, shards: impl IntoIterator<Item = (Rank, &'a PlannedShard)>) -> Vec<Seat> {
        shards.into_iter().filter_map(|(rank, planned)| self.seat(rank, planned)).collect()
    }

    fn seat(&self, rank: Rank, planned: &PlannedShard) -> Option<Seat> {
        let wish = self.wish;
        let node = self.nodes.get(&planned.node).filter(|_| wish.without != Some(&planned.node))?;
        let reported = node.report(self.id, planned.shard).map_or(0, |report| report.participants);
        let here = node.believed(self.id, planned.shard);
        // Whoever is on the way may be one of those who are there, and come back:
        // only what was reported closes a shard.
        let open = planned.seats.is_none_or(|seats| reported < seats)
            && node.has_slot()
            && node.standing().carries();
        let misplaced = if wish.publishes {
            is_far(planned)
        } else {
            rank == Rank::HOME && self.plan.shards.len() > SHARDS_WITH_VIEWERS_AT_HOME
        };
        let penalty = [
            matches!(node.standing(), Standing::Draining | Standing::Unreachable),
            (wish.full_at > 0 && here >= wish.full_at)
                || planned.seats.is_some_and(|seats| here >= seats),
            !wish.zone.is_empty() && node.zone != wish.zone,
            misplaced,
        ];
        let on_node = node.believed_in_all(self.id);
        open.then_some(Seat { rank, penalty, here, on_node })
    }
}

/// More than one link from the home.
fn is_far(planned: &PlannedShard) -> bool {
    planned.parent.is_some_and(|parent| parent != Rank::HOME)
}

#[cfg(test)]
mod tests;
