//! Who is who in the tree of a room: shards, and what one of them must know of a plan.

use std::net::SocketAddr;

use headwater_model::{Epoch, NodeId, ShardIndex};

/// Shards that one shard feeds at most.
pub const CHILDREN_MAX: usize = 32;
/// Shards that may turn to one when they lose their parent.
pub const BACKUP_CHILDREN_MAX: usize = 64;

/// A shard of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardAddress {
    /// The node.
    pub node: NodeId,
    /// The shard of that node.
    pub shard: ShardIndex,
}

impl ShardAddress {
    /// A short name that is the same everywhere: FNV-1a of node and shard. Paths of
    /// announcements are lists of these.
    #[must_use]
    pub fn tag(&self) -> ShardTag {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let shard = self.shard.to_string();
        for byte in self.node.as_str().bytes().chain([b'/']).chain(shard.bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        ShardTag(hash)
    }
}

/// Short name of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardTag(pub u64);

/// A shard at the other end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Which.
    pub address: ShardAddress,
    /// Its position in the plan; the home is 0.
    pub rank: u32,
    /// Where its node takes relay links (UDP). Absent if it is this node or not known.
    pub relay_address: Option<SocketAddr>,
}

/// What one shard must know of the plan of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanSlice {
    /// Fencing number; a lower one is refused.
    pub epoch: Epoch,
    /// Position of this shard in the plan; the home is 0.
    pub rank: u32,
    /// Where it gets the room from. Absent for the home.
    pub parent: Option<Peer>,
    /// Where it turns to when the parent is lost, best first; at most 2.
    pub backups: Vec<Peer>,
    /// The shards that get the room from this one; at most [`CHILDREN_MAX`].
    pub children: Vec<Peer>,
    /// Those that name this one as a backup; at most [`BACKUP_CHILDREN_MAX`].
    pub backup_children: Vec<Peer>,
}

impl PlanSlice {
    /// The only shard of a room.
    #[must_use]
    pub const fn alone(epoch: Epoch) -> Self {
        Self {
            epoch,
            rank: 0,
            parent: None,
            backups: Vec::new(),
            children: Vec::new(),
            backup_children: Vec::new(),
        }
    }

    /// This shard orders the room's changes.
    #[must_use]
    pub const fn is_home(&self) -> bool {
        self.parent.is_none()
    }

    /// Parent and backups, best first. Only those of lower rank: that alone makes loops
    /// impossible, whatever a plan says.
    pub fn upstream(&self) -> impl Iterator<Item = &Peer> {
        self.parent.iter().chain(&self.backups).filter(|peer| peer.rank < self.rank)
    }

    /// A shard may be fed by this one.
    #[must_use]
    pub fn may_feed(&self, child: &ShardAddress) -> bool {
        let mut named = self.children.iter().chain(&self.backup_children);
        named.any(|peer| peer.address == *child && peer.rank > self.rank)
    }
}
