//! Rooms that grow between two reports, because those who join have filled every
//! shard of their plan.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use headwater_control_core::{
    IntendedRoom, Plan, PlannedShard, TreeContext, is_crowded, next_epoch, plan_tree,
};
use headwater_model::{Epoch, RoomId};

use super::{Cluster, Held};

/// How long a room that could get no more shards is left as it is: every join
/// would look at all nodes in vain.
const VAIN_HOLDS: Duration = Duration::from_secs(2);

/// How far the growth of a room is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growing {
    /// A join works at it.
    Now,
    /// No node had a shard to give.
    InVain(Instant),
}

/// The only growth of a room on this replica, until it is dropped.
#[derive(Debug)]
pub(crate) struct Growth<'a> {
    cluster: &'a Cluster,
    room: RoomId,
}

impl Drop for Growth<'_> {
    fn drop(&mut self) {
        let mut held = self.cluster.write();
        if held.growing.get(&self.room) == Some(&Growing::Now) {
            held.growing.remove(&self.room);
        }
        drop(held);
        self.cluster.changed();
    }
}

impl Growth<'_> {
    /// A plan with more shards for the room as it was read. None if it is not
    /// crowded, or no node has a shard to give. `zone` is that of who joins;
    /// empty means not known.
    pub(crate) fn plan(&self, room: &IntendedRoom, zone: &str) -> Option<Plan> {
        let mut held = self.cluster.write();
        let (id, config) = (&self.room, &self.cluster.tree);
        let observed = held.state.observed();
        let present = room.plan.as_ref()?;
        if !is_crowded(id, present, &observed.nodes, config.shard_participants) {
            return None;
        }
        let nobody = BTreeSet::new();
        let known = Some(zone).filter(|zone| !zone.is_empty());
        let asked = known.map(|zone| (zone.to_owned(), 1)).into_iter().collect();
        let context = TreeContext {
            nodes: &observed.nodes,
            gone: &nobody,
            leaving: &nobody,
            asked: &asked,
            may_shrink: false,
            config,
        };
        let shards = plan_tree(id, room, &context).shards;
        if shards.len() <= present.shards.len() {
            held.growing.insert(id.clone(), Growing::InVain(Instant::now()));
            return None;
        }
        let epoch = next_epoch(room.epoch(), observed.highest_epoch(id));
        Some(Plan { room_uid: room.spec.uid.clone(), epoch, shards })
    }
}

impl Cluster {
    /// Begins to give a room more shards. None if another join does so already.
    pub(crate) fn begin_growth(&self, room: &RoomId) -> Option<Growth<'_>> {
        let mut held = self.write();
        if held.growing.contains_key(room) {
            return None;
        }
        held.growing.insert(room.clone(), Growing::Now);
        Some(Growth { cluster: self, room: room.clone() })
    }

    /// Waits until a room has a plan above an epoch, or nobody works at one any
    /// more, at most so long.
    pub(crate) async fn wait_until_grown(&self, id: &RoomId, epoch: Epoch, patience: Duration) {
        self.wait_until(patience, |held| {
            let room = held.state.intended().rooms().get(id);
            let grown = room.is_some_and(|room| room.epoch() > epoch);
            grown || held.growing.get(id) != Some(&Growing::Now)
        })
        .await;
    }
}

impl Held {
    /// Whether a room needs more shards and may get some. Looks at the one that
    /// was chosen first, because it is the emptiest.
    pub(super) fn is_crowded(
        &self,
        id: &RoomId,
        room: &IntendedRoom,
        chosen: &PlannedShard,
        full_at: u32,
    ) -> bool {
        let nodes = &self.state.observed().nodes;
        let is_full = |planned: &PlannedShard| {
            let node = nodes.get(&planned.node);
            node.is_some_and(|node| node.believed(id, planned.shard) >= full_at)
        };
        let relays = |planned: &PlannedShard| nodes.get(&planned.node).is_some_and(|it| it.relays);
        full_at > 0
            && is_full(chosen)
            && room.home().is_some_and(relays)
            && !matches!(self.growing.get(id), Some(Growing::InVain(_)))
            && room.plan.as_ref().is_some_and(|plan| is_crowded(id, plan, nodes, full_at))
    }

    pub(super) fn forget_growth(&mut self, now: Instant) {
        self.growing.retain(|_, growing| match growing {
            Growing::Now => true,
            Growing::InVain(at) => now.saturating_duration_since(*at) < VAIN_HOLDS,
        });
    }
}
