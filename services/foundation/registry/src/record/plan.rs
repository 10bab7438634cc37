//! The record of a plan: which shards carry a room and in which tree. A plan of
//! one shard is written in the first version of the format, which every reader
//! knows; one with a tree in the second, which is compact, because plans of
//! large rooms name thousands of shards.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_model::{Epoch, NodeId, RoomUid, ShardIndex};
use serde::{Deserialize, Serialize};

use super::{Record, text};

/// Which shards carry a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct PlanRecord {
    /// The incarnation of the room it is for; a plan for another one is void.
    pub room_uid: RoomUid,
    /// Fencing number: every plan of a room has a higher one than the plan before.
    pub epoch: Epoch,
    /// The shards in order of their ranks, the home first. Empty means that
    /// nothing carries it now.
    pub shards: Vec<PlannedShard>,
}

/// One shard of a plan. Ranks are indices into [`PlanRecord::shards`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedShard {
    /// The node.
    pub node_id: NodeId,
    /// The shard within it.
    pub shard: ShardIndex,
    /// Rank of its parent, lower than its own. None for the home.
    pub parent: Option<u16>,
    /// Ranks of its backups, best first, lower than its own.
    pub backups: Vec<u16>,
    /// Most participants it may admit. None means no limit but the room's own.
    pub seats: Option<u32>,
}

/// Version of a plan with one shard, or none.
const VERSION_SINGLE: u32 = 1;
/// Version of a plan with a tree.
const VERSION_TREE: u32 = 2;

impl Record for PlanRecord {
    const KIND: &'static str = "plan";
    const VERSION: u32 = VERSION_TREE;

    fn encode(&self) -> Bytes {
        let version = if self.is_single() { VERSION_SINGLE } else { VERSION_TREE };
        super::encode_as(version, self)
    }
}

impl PlanRecord {
    /// Whether the first version can say it.
    fn is_single(&self) -> bool {
        self.shards.len() < 2
            && self.shards.iter().all(|shard| {
                shard.parent.is_none() && shard.backups.is_empty() && shard.seats.is_none()
            })
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(with = "text::room_uid")]
    room_uid: RoomUid,
    #[serde(with = "text::epoch")]
    epoch: Epoch,
    /// First version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shards: Option<Vec<StoredSingle>>,
    /// Second version: the names of the nodes, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<StoredNode>,
    /// Second version: the shards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tree: Vec<StoredShard>,
}

#[derive(Serialize, Deserialize)]
struct StoredSingle {
    #[serde(with = "text")]
    node_id: NodeId,
    #[serde(with = "text::shard_index")]
    shard: ShardIndex,
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct StoredNode(#[serde(with = "text")] NodeId);

/// Index into `nodes`, shard, parent, backups, seats.
#[derive(Serialize, Deserialize)]
struct StoredShard(u16, u16, Option<u16>, Vec<u16>, Option<u32>);

impl From<PlanRecord> for Stored {
    fn from(plan: PlanRecord) -> Self {
        let single = plan.is_single();
        let (room_uid, epoch) = (plan.room_uid, plan.epoch);
        if single {
            let one =
                |shard: PlannedShard| StoredSingle { node_id: shard.node_id, shard: shard.shard };
            let shards = Some(plan.shards.into_iter().map(one).collect());
            return Self { room_uid, epoch, shards, nodes: Vec::new(), tree: Vec::new() };
        }
        let mut indices: BTreeMap<NodeId, u16> = BTreeMap::new();
        let mut nodes = Vec::new();
        let mut tree = Vec::with_capacity(plan.shards.len());
        for shard in plan.shards {
            let next = u16::try_from(nodes.len()).unwrap_or(u16::MAX);
            let index = *indices.entry(shard.node_id.clone()).or_insert_with(|| {
                nodes.push(StoredNode(shard.node_id));
                next
            });
            let shard_index = shard.shard.0;
            tree.push(StoredShard(index, shard_index, shard.parent, shard.backups, shard.seats));
        }
        Self { room_uid, epoch, shards: None, nodes, tree }
    }
}

/// Why a stored tree is none.
#[derive(Debug, thiserror::Error)]
enum TreeError {
    #[error("shard {0} names a node that is not listed")]
    Node(usize),
    #[error("shard {0} leans on one that is not before it")]
    Order(usize),
}

impl TryFrom<Stored> for PlanRecord {
    type Error = TreeError;

    fn try_from(stored: Stored) -> Result<Self, TreeError> {
        let Stored { room_uid, epoch, shards, nodes, tree } = stored;
        if tree.is_empty() {
            let one = |shard: StoredSingle| PlannedShard {
                node_id: shard.node_id,
                shard: shard.shard,
                parent: None,
                backups: Vec::new(),
                seats: None,
            };
            let shards = shards.unwrap_or_default().into_iter().map(one).collect();
            return Ok(Self { room_uid, epoch, shards });
        }
        let shards = tree.into_iter().enumerate().map(|(rank, stored)| {
            let StoredShard(node, shard, parent, backups, seats) = stored;
            let node = nodes.get(usize::from(node)).ok_or(TreeError::Node(rank))?;
            if parent.iter().chain(&backups).any(|other| usize::from(*other) >= rank) {
                return Err(TreeError::Order(rank));
            }
            let (node_id, shard) = (node.0.clone(), ShardIndex(shard));
            Ok(PlannedShard { node_id, shard, parent, backups, seats })
        });
        Ok(Self { room_uid, epoch, shards: shards.collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordError;

    fn shard(node: &str, index: u16, parent: Option<u16>, backups: &[u16]) -> PlannedShard {
        PlannedShard {
            node_id: NodeId::new(node).unwrap(),
            shard: ShardIndex(index),
            parent,
            backups: backups.to_vec(),
            seats: parent.map(u32::from),
        }
    }

    fn plan(shards: Vec<PlannedShard>) -> PlanRecord {
        PlanRecord { room_uid: RoomUid::from_raw("RM_1"), epoch: Epoch(7), shards }
    }

    #[test]
    fn a_plan_of_one_shard_is_written_so_that_the_oldest_reader_knows_it() {
        let single = plan(vec![shard("a", 1, None, &[])]);
        let text = String::from_utf8(single.encode().to_vec()).unwrap();
        let oldest =
            r#"{"version":1,"room_uid":"RM_1","epoch":7,"shards":[{"node_id":"a","shard":1}]}"#;
        assert_eq!(text, oldest);
        assert_eq!(PlanRecord::decode(oldest.as_bytes()).unwrap(), single);
    }

    #[test]
    fn a_tree_is_written_in_the_second_version_and_read_again() {
        let tree = plan(vec![
            shard("a", 0, None, &[]),
            shard("b", 0, Some(0), &[]),
            shard("a", 1, Some(0), &[1]),
        ]);
        let bytes = tree.encode();
        assert!(bytes.starts_with(br#"{"version":2,"#));
        assert_eq!(PlanRecord::decode(&bytes).unwrap(), tree);
    }

    #[test]
    fn a_tree_that_could_hold_a_loop_is_refused() {
        let looped = r#"{"version":2,"room_uid":"RM_1","epoch":7,"nodes":["a","b"],
            "tree":[[0,0,null,[],null],[1,0,1,[],null]]}"#;
        assert!(matches!(
            PlanRecord::decode(looped.as_bytes()),
            Err(RecordError::Malformed { .. })
        ));
        let nobody = r#"{"version":2,"room_uid":"RM_1","epoch":7,"nodes":["a"],
            "tree":[[0,0,null,[],null],[1,0,0,[],null]]}"#;
        assert!(PlanRecord::decode(nobody.as_bytes()).is_err());
    }

    #[test]
    fn two_thousand_shards_take_less_than_a_tenth_of_what_etcd_accepts() {
        let shards = (0..2000_u16).map(|rank| {
            let node = format!("headwater-media-node-{:03}", rank / 8);
            let parent = rank.checked_sub(1).map(|before| before / 32);
            let backups: &[u16] = if rank > 64 { &[1, 2] } else { &[] };
            shard(&node, rank % 8, parent, backups)
        });
        let bytes = plan(shards.collect()).encode().len();
        assert!(bytes < 150_000, "{bytes} bytes");
    }
}
