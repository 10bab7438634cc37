//! Takes load off hot nodes, slowly and never back: a room that was moved stays,
//! and a move must leave the other node clearly cooler than the one it came from.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use headwater_model::{NodeId, RoomId};

use crate::node::{NodeView, Standing};
use crate::state::{Intended, Observed};

/// Load from which a node is hot.
pub const HOT: f64 = 0.90;
/// Load below which it is hot no more. What lies between the two is noise.
pub const HOT_UNTIL: f64 = 0.80;
/// Load that a move may bring the other node to.
pub const COOL: f64 = 0.65;
/// How long a node must be hot.
pub const HOT_FOR: Duration = Duration::from_secs(60);
/// Between two moves off one node: the first must show in the measurements.
pub const BETWEEN_MOVES: Duration = Duration::from_secs(20);
/// How long a moved room stays where it is.
pub const ROOM_STAYS: Duration = Duration::from_secs(300);

/// One room to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The room.
    pub room: RoomId,
    /// Where it is.
    pub from: NodeId,
    /// Where it should be.
    pub to: NodeId,
}

/// Remembers since when nodes are hot and which rooms were moved. Bounded by the
/// nodes, and by the rooms moved within [`ROOM_STAYS`].
#[derive(Debug, Default)]
pub struct Balancer {
    hot_since: BTreeMap<NodeId, Instant>,
    last_move: BTreeMap<NodeId, Instant>,
    moved: BTreeMap<RoomId, Instant>,
}

impl Balancer {
    /// Proposes moves, at most one off each hot node. What is returned counts as
    /// done.
    pub fn propose(&mut self, now: Instant, intended: &Intended, observed: &Observed) -> Vec<Move> {
        self.moved.retain(|_, at| now.saturating_duration_since(*at) < ROOM_STAYS);
        self.last_move.retain(|_, at| now.saturating_duration_since(*at) < BETWEEN_MOVES);
        self.note_heat(now, observed);
        let mut loads: BTreeMap<&NodeId, f64> = observed
            .nodes
            .iter()
            .filter(|(_, node)| node.standing() == Standing::Serving && node.load.is_some())
            .map(|(id, node)| (id, node.utilisation()))
            .collect();
        let mut moves = Vec::new();
        for (id, since) in &self.hot_since {
            let long = now.saturating_duration_since(*since) >= HOT_FOR;
            if !long || self.last_move.contains_key(id) {
                continue;
            }
            let Some((found, share)) = self.best_move(id, &loads, intended, observed) else {
                continue;
            };
            for (node, change) in [(&found.from, -share), (&found.to, share)] {
                if let Some(load) = loads.get_mut(node) {
                    *load += change;
                }
            }
            moves.push(found);
        }
        for made in &moves {
            self.last_move.insert(made.from.clone(), now);
            // The other node must be measured anew before it gets more.
            self.last_move.insert(made.to.clone(), now);
            self.moved.insert(made.room.clone(), now);
        }
        moves
    }

    fn note_heat(&mut self, now: Instant, observed: &Observed) {
        let nodes = &observed.nodes;
        self.hot_since
            .retain(|id, _| nodes.get(id).is_some_and(|node| node.utilisation() >= HOT_UNTIL));
        for (id, node) in nodes.iter().filter(|(_, node)| node.utilisation() >= HOT) {
            if node.standing() == Standing::Serving {
                self.hot_since.entry(id.clone()).or_insert(now);
            }
        }
    }

    /// The largest room that the coolest other node of the region can take and
    /// stay cool, so that one move does much.
    fn best_move(
        &self,
        from: &NodeId,
        loads: &BTreeMap<&NodeId, f64>,
        intended: &Intended,
        observed: &Observed,
    ) -> Option<(Move, f64)> {
        let hot = observed.nodes.get(from)?;
        let (to, cool_load) = loads
            .iter()
            .filter(|(id, _)| **id != from && !self.last_move.contains_key(**id))
            .filter(|(id, _)| {
                observed.nodes.get(**id).is_some_and(|node| node.region == hot.region)
            })
            .min_by(|a, b| a.1.total_cmp(b.1))?;
        let (room, share) = intended
            .rooms_of(from)
            .filter(|(id, room)| {
                let alone = room.plan.as_ref().is_some_and(|plan| plan.shards.len() == 1);
                alone && !self.moved.contains_key(*id)
            })
            .map(|(id, _)| (id, share_of(hot, id)))
            .filter(|(_, share)| *share > 0.0 && cool_load + share <= COOL)
            .max_by(|a, b| a.1.total_cmp(&b.1))?;
        Some((Move { room: room.clone(), from: from.clone(), to: (*to).clone() }, share))
    }
}

/// What a room contributes to its node's load: as much as its people are of the
/// node's people.
fn share_of(node: &NodeView, room: &RoomId) -> f64 {
    let here: u32 = node.reports_of(room).iter().map(|report| report.participants).sum();
    node.utilisation() * f64::from(here) / f64::from(node.participants().max(1))
}

#[cfg(test)]
mod tests;
