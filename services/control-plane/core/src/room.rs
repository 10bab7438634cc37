//! A room as the registry intends it, and as a node reports it. Plans are fenced
//! by their epoch, which only rises, even over deletion and re-creation.

use std::sync::Arc;
use std::time::Duration;

use headwater_model::{Epoch, NodeId, RoomUid, ShardIndex};

/// How long a room is kept that nobody has ever joined, unless it says otherwise.
pub const EMPTY_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a room is kept after the last participant left, unless it says otherwise.
pub const DEPARTURE_TIMEOUT: Duration = Duration::from_secs(20);

/// One shard of a plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlannedShard {
    /// The node.
    pub node: NodeId,
    /// The shard of that node.
    pub shard: ShardIndex,
}

/// Which shards carry a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The incarnation of the room it is for; for any other it is void.
    pub room_uid: RoomUid,
    /// Fencing number.
    pub epoch: Epoch,
    /// The shards, the home first. Empty means that no node is assigned.
    pub shards: Vec<PlannedShard>,
}

impl Plan {
    /// The shard that holds the room's live state.
    #[must_use]
    pub fn home(&self) -> Option<&PlannedShard> {
        self.shards.first()
    }

    /// The shard of a node that carries the room.
    #[must_use]
    pub fn shard_of(&self, node: &NodeId) -> Option<ShardIndex> {
        self.shards.iter().find(|planned| planned.node == *node).map(|planned| planned.shard)
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
