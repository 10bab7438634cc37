//! A room as the registry intends it, and as a node reports it. Plans are fenced
//! by their epoch, which only rises, even over deletion and re-creation.

use std::sync::Arc;
use std::time::Duration;

use headwater_model::{Bitrate, Epoch, NodeId, RoomUid, ShardIndex};

/// How long a room is kept that nobody has ever joined, unless it says otherwise.
pub const EMPTY_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a room is kept after the last participant left, unless it says otherwise.
pub const DEPARTURE_TIMEOUT: Duration = Duration::from_secs(20);

/// A shard, wherever it stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardRef {
    /// The node.
    pub node: NodeId,
    /// The shard of that node.
    pub shard: ShardIndex,
}

/// Position of a shard in its plan: the home is 0, and parents and backups have
/// lower ranks than those that lean on them. That alone makes loops impossible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(pub u16);

impl Rank {
    /// The home's.
    pub const HOME: Self = Self(0);

    /// The rank as an index into [`Plan::shards`].
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One shard of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedShard {
    /// The node.
    pub node: NodeId,
    /// The shard of that node.
    pub shard: ShardIndex,
    /// Where it gets the room from; none for the home.
    pub parent: Option<Rank>,
    /// Where it gets the room from when the parent is lost, best first.
    pub backups: Vec<Rank>,
    /// Most participants it may admit. None means no limit but the room's own.
    pub seats: Option<u32>,
}

impl PlannedShard {
    /// The home of a plan with nothing else in it.
    #[must_use]
    pub fn home(node: NodeId, shard: ShardIndex) -> Self {
        Self { node, shard, parent: None, backups: Vec::new(), seats: None }
    }

    /// Which shard it is.
    #[must_use]
    pub fn at(&self) -> ShardRef {
        ShardRef { node: self.node.clone(), shard: self.shard }
    }

    /// Whether it is this shard.
    #[must_use]
    pub fn is(&self, shard: &ShardRef) -> bool {
        self.node == shard.node && self.shard == shard.shard
    }
}

impl From<ShardRef> for PlannedShard {
    fn from(shard: ShardRef) -> Self {
        Self::home(shard.node, shard.shard)
    }
}

/// Which shards carry a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The incarnation of the room it is for; for any other it is void.
    pub room_uid: RoomUid,
    /// Fencing number.
    pub epoch: Epoch,
    /// The shards in order of their ranks, the home first. Empty means that no
    /// node is assigned.
    pub shards: Vec<PlannedShard>,
}

impl Plan {
    /// The shard that holds the room's live state.
    #[must_use]
    pub fn home(&self) -> Option<&PlannedShard> {
        self.shards.first()
    }

    /// The shards of a node that carry the room, in order of their ranks.
    pub fn shards_of<'a>(
        &'a self,
        node: &'a NodeId,
    ) -> impl Iterator<Item = (Rank, &'a PlannedShard)> {
        self.ranked().filter(move |(_, planned)| planned.node == *node)
    }

    /// The shards with their ranks.
    pub fn ranked(&self) -> impl Iterator<Item = (Rank, &PlannedShard)> {
        (0..=u16::MAX).map(Rank).zip(&self.shards)
    }

    /// The shard of a rank.
    #[must_use]
    pub fn get(&self, rank: Rank) -> Option<&PlannedShard> {
        self.shards.get(rank.index())
    }

    /// Whether a node carries the room.
    #[must_use]
    pub fn names(&self, node: &NodeId) -> bool {
        self.shards.iter().any(|planned| planned.node == *node)
    }

    /// Links between the home and each shard, by rank. A parent that is not
    /// before its child, which no plan of ours has, counts as the home.
    #[must_use]
    pub fn depths(&self) -> Vec<u16> {
        let mut depths: Vec<u16> = Vec::with_capacity(self.shards.len());
        for planned in &self.shards {
            let parent = planned.parent.and_then(|parent| depths.get(parent.index()).copied());
            depths.push(match planned.parent {
                Some(_) => parent.unwrap_or(0).saturating_add(1),
                None => 0,
            });
        }
        depths
    }
}

/// What the platform wants of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomSpec {
    /// This incarnation.
    pub uid: RoomUid,
    /// Platform's text.
    pub metadata: Arc<str>,
    /// Most participants admitted at once. 0 means no limit of the room's own.
    pub max_participants: u32,
    /// How long it is kept when nobody has ever joined.
    pub empty_timeout: Duration,
    /// How long it is kept after the last participant left.
    pub departure_timeout: Duration,
    /// When it was created, milliseconds since the Unix epoch.
    pub create_millis: u64,
}

/// A room as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntendedRoom {
    /// What the platform wants.
    pub spec: RoomSpec,
    /// Registry revision at which this incarnation came into being.
    pub create_revision: u64,
    /// Registry revision of the spec; rises with every change of it.
    pub spec_revision: u64,
    /// Which shards carry it.
    pub plan: Option<Plan>,
    /// Registry revision of the plan; 0 if there is none.
    pub plan_revision: u64,
}

impl IntendedRoom {
    /// Takes in a plan with its revision, unless it is for another incarnation.
    pub fn set_plan(&mut self, plan: Option<(Plan, u64)>) {
        let plan = plan.filter(|(plan, _)| plan.room_uid == self.spec.uid);
        (self.plan, self.plan_revision) =
            plan.map_or((None, 0), |(plan, revision)| (Some(plan), revision));
    }

    /// Epoch of its plan; 0 if it has none.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.plan.as_ref().map_or(Epoch(0), |plan| plan.epoch)
    }

    /// The shard that holds its live state.
    #[must_use]
    pub fn home(&self) -> Option<&PlannedShard> {
        self.plan.as_ref().and_then(Plan::home)
    }
}

/// What a node sees of one room it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomReport {
    /// The incarnation it carries.
    pub uid: RoomUid,
    /// Epoch it carries it at.
    pub epoch: Epoch,
    /// Shard that carries it.
    pub shard: ShardIndex,
    /// Counted participants.
    pub participants: u32,
    /// Counted participants that publish.
    pub publishers: u32,
    /// How long nobody has been there; zero while somebody is.
    pub empty_for: Duration,
    /// Somebody has been there.
    pub ever_joined: bool,
    /// Media sent for the room, relay links left out. Zero if not measured.
    pub egress: Bitrate,
}

/// Epoch of the first plan of a new incarnation of a room.
///
/// A room may be deleted and created again under the same name while a node
/// still carries the old one, and that node refuses lower epochs. So the first
/// epoch is taken from the registry's revision: each later plan of a room costs
/// a revision and adds one to the epoch, so no epoch ever exceeds the revision
/// it was written at, and a later read of the revision exceeds them all. Should
/// the registry have lost its past, what nodes still report is exceeded too.
#[must_use]
pub fn first_epoch(registry_revision: u64, highest_reported: Option<Epoch>) -> Epoch {
    let above_reported = highest_reported.map_or(0, |epoch| epoch.0.saturating_add(1));
    Epoch(registry_revision.max(above_reported).max(1))
}

/// Epoch of the plan that replaces one at `current`.
#[must_use]
pub fn next_epoch(current: Epoch, highest_reported: Option<Epoch>) -> Epoch {
    Epoch(current.max(highest_reported.unwrap_or_default()).0.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_incarnation_begins_above_what_nodes_still_carry() {
        assert_eq!(first_epoch(0, None), Epoch(1));
        assert_eq!(first_epoch(40, Some(Epoch(7))), Epoch(40));
        assert_eq!(first_epoch(3, Some(Epoch(90))), Epoch(91));
    }

    #[test]
    fn a_replaced_plan_has_a_higher_epoch() {
        assert_eq!(next_epoch(Epoch(5), None), Epoch(6));
        assert_eq!(next_epoch(Epoch(5), Some(Epoch(9))), Epoch(10));
    }
}
