//! Chooses a node and a shard for a room: two random candidates, the better one
//! by corrected load. Two choices are nearly as even as asking everybody, and
//! unlike the least loaded of all they do not herd several replicas, or stale
//! reports, onto one node.

use std::collections::{BTreeMap, BTreeSet};

use headwater_model::{NodeId, ShardIndex};

use crate::node::{AgentState, LOAD_FULL, LOAD_SOFT, NodeView, Standing};

/// Utilisations nearer than this are called equal, and rooms are counted
/// instead: below it a measurement is mostly noise. Larger spreads rooms more
/// evenly by number, smaller more evenly by load.
const LOAD_BAND: f64 = 0.1;

/// Where a room should go, and where not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wish {
    /// Region preferred above all others. Empty means no preference.
    pub region: String,
    /// Zone preferred when loads are alike. Empty means no preference.
    pub zone: String,
    /// Zone to avoid when loads are alike, because a node just failed there.
    /// Empty means none.
    pub avoid_zone: String,
    /// Nodes that must not be chosen.
    pub without: BTreeSet<NodeId>,
}

/// Where a room goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The node.
    pub node: NodeId,
    /// Its shard.
    pub shard: ShardIndex,
}

/// Why no node was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// Nothing is registered that serves.
    #[error("no media node is serving")]
    NoNode,
    /// Every serving node is full.
    #[error("every serving media node is full")]
    AllFull,
}

/// Chooses a node and a shard.
///
/// Candidates are taken from the first of these groups that has any: nodes of
/// the preferred region with load to spare, other nodes with load to spare, and
/// the same two again among nodes that are not yet full. Of the group two are
/// drawn by `seed` and the better one wins. Nodes whose stream is only being
/// opened are candidates when no node is known to answer.
///
/// There is no hysteresis between the groups: a room is placed once and stays,
/// so a node that hovers at a threshold makes nothing flap.
///
/// # Errors
/// If no node serves, or all that do are full.
pub fn choose(
    nodes: &BTreeMap<NodeId, NodeView>,
    wish: &Wish,
    seed: u64,
) -> Result<Choice, NoPlace> {
    let serving: Vec<(&NodeId, &NodeView)> = nodes
        .iter()
        .filter(|(id, node)| {
            node.standing() == Standing::Serving && node.shards > 0 && !wish.without.contains(*id)
        })
        .collect();
    let answering: Vec<_> =
        serving.iter().copied().filter(|(_, node)| node.agent == AgentState::Connected).collect();
    let eligible = if answering.is_empty() { serving } else { answering };
    if eligible.is_empty() {
        return Err(NoPlace::NoNode);
    }

    let mut random = Random(seed);
    let group = best_group(&eligible, wish).ok_or(NoPlace::AllFull)?;
    let (first, second) = draw_two(group.len(), &mut random);
    let winner = better(group[first], group[second], wish);
    Ok(Choice { node: winner.0.clone(), shard: choose_shard(winner.1, &mut random) })
}

type Candidate<'a> = (&'a NodeId, &'a NodeView);

fn best_group<'a>(eligible: &[Candidate<'a>], wish: &Wish) -> Option<Vec<Candidate<'a>>> {
    let measured: Vec<(Candidate<'a>, f64)> = eligible
        .iter()
        .filter(|(_, node)| node.has_slot())
        .map(|candidate| (*candidate, candidate.1.utilisation()))
        .collect();
    [LOAD_SOFT, LOAD_FULL].into_iter().find_map(|limit| {
        let below: Vec<Candidate<'a>> = measured
            .iter()
            .filter(|(_, utilisation)| *utilisation < limit)
            .map(|(candidate, _)| *candidate)
            .collect();
        let near: Vec<Candidate<'a>> = below
            .iter()
            .copied()
            .filter(|(_, node)| wish.region.is_empty() || node.region == wish.region)
            .collect();
        [near, below].into_iter().find(|group| !group.is_empty())
    })
}

/// Two different indices below `len`, or the same one twice if there is only one.
fn draw_two(len: usize, random: &mut Random) -> (usize, usize) {
    let first = random.below(len);
    if len == 1 {
        return (first, first);
    }
    let second = random.below(len - 1);
    (first, if second >= first { second + 1 } else { second })
}

/// The better of two; `a` if they are alike, which the draw has made random.
fn better<'a>(a: Candidate<'a>, b: Candidate<'a>, wish: &Wish) -> Candidate<'a> {
    let (load_a, load_b) = (a.1.utilisation(), b.1.utilisation());
    if (load_a - load_b).abs() > LOAD_BAND {
        return if load_a < load_b { a } else { b };
    }
    let (rank_a, rank_b) = (zone_rank(a.1, wish), zone_rank(b.1, wish));
    if rank_a != rank_b {
        return if rank_a < rank_b { a } else { b };
    }
    // Rooms per shard as fractions, compared without dividing.
    let rooms_a = u64::from(a.1.planned_rooms()) * u64::from(b.1.shards);
    let rooms_b = u64::from(b.1.planned_rooms()) * u64::from(a.1.shards);
    if rooms_b < rooms_a { b } else { a }
}

/// 0 for the zone wanted, 1 for any other, 2 for the one to avoid.
fn zone_rank(node: &NodeView, wish: &Wish) -> u8 {
    if !wish.avoid_zone.is_empty() && node.zone == wish.avoid_zone {
        2
    } else {
        u8::from(wish.zone.is_empty() || node.zone != wish.zone)
    }
}

/// The shard with the fewest rooms; among equals one by chance, so that several
/// replicas do not all begin with the first.
fn choose_shard(node: &NodeView, random: &mut Random) -> ShardIndex {
    let rooms = |shard: u16| node.planned.get(&ShardIndex(shard)).copied().unwrap_or(0);
    let fewest = (0..node.shards).map(rooms).min().unwrap_or(0);
    let equals: Vec<u16> = (0..node.shards).filter(|shard| rooms(*shard) == fewest).collect();
    equals.get(random.below(equals.len())).map_or(ShardIndex(0), |shard| ShardIndex(*shard))
}

/// Splitmix64: enough to spread choices, and the same on every machine.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `len`; 0 if `len` is 0.
    pub(crate) fn below(&mut self, len: usize) -> usize {
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        usize::try_from(self.next().checked_rem(len).unwrap_or(0)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
