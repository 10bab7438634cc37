//! Chooses the shard of a room's plan that one participant goes to. Of a large
//! room only some shards are looked at: everybody who joins asks.

use std::collections::BTreeMap;

use headwater_model::{NodeId, RoomId};

use crate::node::{NodeView, Standing};
use crate::placement::{Random, draw_two};
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
}

/// Rooms of more shards keep the home for those who publish.
const SHARDS_WITH_VIEWERS_AT_HOME: usize = 4;
/// Shards of a large room that are looked at. Of three zones, all have some among
/// so many but once in a hundred thousand times; then all shards are looked at.
const LOOKED_AT: usize = 32;

/// Chooses the shard of a room's plan that a participant goes to: in its zone,
/// with a seat, near the home if it publishes and away from it if it only
/// watches a large room; of two drawn the emptier one. None if no shard of the
/// plan has a seat on a node that may be used.
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
        if some.iter().any(|seat| seat.penalty == [false; 3]) {
            return best(&some, &mut random);
        }
    }
    best(&choosing.seats(plan.ranked()), &mut random)
}

/// Of two among the best the emptier one.
fn best(seats: &[Seat], random: &mut Random) -> Option<Rank> {
    let least = seats.iter().map(|seat| seat.penalty).min()?;
    let group: Vec<&Seat> = seats.iter().filter(|seat| seat.penalty == least).collect();
    let (first, second) = draw_two(group.len(), random);
    let emptier = if group[second].here < group[first].here { second } else { first };
    Some(group[emptier].rank)
}

struct Seat {
    rank: Rank,
    /// What speaks against it, the worst first.
    penalty: [bool; 3],
    here: u32,
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
        let here = node.report(self.id, planned.shard).map_or(0, |report| report.participants);
        let open = planned.seats.is_none_or(|seats| here < seats)
            && node.has_slot()
            && node.standing().carries();
        let misplaced = if wish.publishes {
            is_far(planned)
        } else {
            rank == Rank::HOME && self.plan.shards.len() > SHARDS_WITH_VIEWERS_AT_HOME
        };
        let penalty = [
            matches!(node.standing(), Standing::Draining | Standing::Unreachable),
            !wish.zone.is_empty() && node.zone != wish.zone,
            misplaced,
        ];
        let here = here + node.granted / u32::from(node.shards.max(1));
        open.then_some(Seat { rank, penalty, here })
    }
}

/// More than one link from the home.
fn is_far(planned: &PlannedShard) -> bool {
    planned.parent.is_some_and(|parent| parent != Rank::HOME)
}

#[cfg(test)]
mod tests;
