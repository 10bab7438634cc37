//! The tree of shards that carries one room: how many shards each zone needs,
//! who gets the room from whom, and who steps in. A pure function of the plan
//! there is and of what was observed; run again on its own result it changes
//! nothing.

mod backups;
mod need;
mod seats;
mod shape;

use std::collections::{BTreeMap, BTreeSet};

use headwater_model::{Bitrate, NodeId, RoomId};

use crate::node::{NodeView, Standing};
use crate::room::{IntendedRoom, PlannedShard, ShardRef};

pub use need::ZoneNeed;

/// Bounds of a tree and when it grows and shrinks.
#[derive(Debug, Clone, PartialEq)]
pub struct TreeConfig {
    /// Most children of a shard. What a relay can send allows more; what one
    /// dead relay takes with it does not.
    pub fanout_max: u16,
    /// Most links between the home and a shard. Each costs about a millisecond
    /// within a zone and a round trip between zones.
    pub depth_max: u16,
    /// Children of the home that are kept for zones not yet there.
    pub home_children_reserved: u16,
    /// Participants that one shard carries when it does nothing else.
    pub shard_participants: u32,
    /// Media that one shard sends when it does nothing else. Zero means that
    /// only participants are counted.
    pub shard_egress: Bitrate,
    /// A zone grows when its shards carry more than this share of what they can.
    pub grow_above: f64,
    /// Share that a changed zone is sized for. Its distance to the other two is
    /// the noise that changes nothing.
    pub aim: f64,
    /// A zone shrinks when one shard fewer would carry less than this share.
    pub shrink_below: f64,
    /// Participants that shrinking may move at once. A surplus shard with more
    /// waits until they leave.
    pub shrink_moves_max: u32,
    /// Most shards of a room; the plan of so many is about 400 KiB.
    pub shards_max: u16,
}

impl Default for TreeConfig {
    fn default() -> Self {
        Self {
            fanout_max: 32,
            depth_max: 3,
            home_children_reserved: 8,
            shard_participants: 500,
            shard_egress: Bitrate(0),
            grow_above: 0.75,
            aim: 0.6,
            shrink_below: 0.35,
            shrink_moves_max: 20,
            shards_max: 12_000,
        }
    }
}

/// Shards named as backups of one shard, at most.
pub const BACKUPS_MAX: usize = 2;
/// Shards that may name the same one as a backup.
pub const BACKUP_CHILDREN_MAX: u16 = 64;

/// What a tree is planned from, besides the room.
#[derive(Debug, Clone, Copy)]
pub struct TreeContext<'a> {
    /// The nodes.
    pub nodes: &'a BTreeMap<NodeId, NodeView>,
    /// Nodes that are gone for sure.
    pub gone: &'a BTreeSet<NodeId>,
    /// Nodes whose shards leave the plan now, because they drain or are too hot.
    pub leaving: &'a BTreeSet<NodeId>,
    /// Participants each zone asked for that its shards do not have yet.
    pub asked: &'a BTreeMap<String, u32>,
    /// The plan has stood long enough to be made smaller: people of a lost shard
    /// need a moment to come back.
    pub may_shrink: bool,
    /// Bounds.
    pub config: &'a TreeConfig,
}

/// What a tree came to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tree {
    /// The shards in order of their ranks. Empty if no node can carry the room.
    pub shards: Vec<PlannedShard>,
    /// Shards that would be needed and that no node has.
    pub missing: u32,
}

/// A shard of the tree while it is planned.
#[derive(Debug, Clone)]
struct Member {
    at: ShardRef,
    zone: u16,
    /// Rank in the plan there was; none for a new shard.
    was: Option<usize>,
    /// Index of its parent in the plan there was.
    old_parent: Option<usize>,
    old_seats: Option<u32>,
    /// Participants as reported, and those on their way.
    participants: u32,
    /// It may get children and become the home.
    sturdy: bool,
}

impl TreeContext<'_> {
    /// Whether a shard of a plan may stay in it.
    fn keeps(&self, planned: &PlannedShard) -> bool {
        let Some(node) = self.nodes.get(&planned.node) else {
            return !self.gone.contains(&planned.node);
        };
        if self.leaving.contains(&planned.node)
            || (node.registered && planned.shard.0 >= node.shards)
        {
            return false;
        }
        node.standing() != Standing::Gone || !self.gone.contains(&planned.node)
    }

    /// Whether a node may get new shards of a room that several carry.
    fn takes(&self, id: &NodeId, node: &NodeView) -> bool {
        node.relays && node.standing() == Standing::Serving && !self.leaving.contains(id)
    }
}

/// Plans the tree of a room that has a plan with a home.
///
/// What is there stays unless it must go: a shard keeps its place and its parent
/// as long as the node lives and the bounds hold. A room on nodes that take no
/// relay links keeps the one shard it has.
#[must_use]
pub fn plan_tree(id: &RoomId, room: &IntendedRoom, context: &TreeContext<'_>) -> Tree {
    let present = room.plan.as_ref().map_or(&[][..], |plan| &plan.shards);
    let mut zones = Zones::default();
    let mut members = Vec::with_capacity(present.len());
    let mut before = Vec::new();
    for (rank, planned) in present.iter().enumerate() {
        let node = context.nodes.get(&planned.node);
        let zone = zones.index(node.map_or("", |node| node.zone.as_str()));
        let report = node
            .and_then(|node| node.report(id, planned.shard))
            .filter(|report| report.uid == room.spec.uid);
        let coming = node.map_or(0, |node| node.coming.to(id, planned.shard));
        let believed = report.map_or(0, |report| report.participants).saturating_add(coming);
        before.push(need::Carried {
            zone,
            participants: believed,
            egress: report.map_or(Bitrate(0), |report| report.egress),
            busy: node.map_or(0.0, |node| need::busy_share(node, report)),
            kept: context.keeps(planned),
            lost: node.is_none_or(|node| node.standing() == Standing::Gone),
        });
        if context.keeps(planned) {
            members.push(Member {
                at: planned.at(),
                zone,
                was: Some(rank),
                old_parent: planned.parent.map(|parent| parent.index()),
                old_seats: planned.seats,
                participants: believed,
                sturdy: node.is_some_and(|node| {
                    matches!(node.standing(), Standing::Serving | Standing::Unregistered)
                }),
            });
        }
    }
    let may_spread = match members.first() {
        Some(home) => context.nodes.get(&home.at.node).is_some_and(|node| node.relays),
        None => true,
    };
    let mut missing = 0;
    if may_spread {
        let needs = need::of_room(&before, context, &mut zones);
        let home = shape::home_of(&members);
        if context.may_shrink {
            shape::shrink(&mut members, &needs, home, context.config);
        }
        missing = shape::extend(&mut members, &needs, &mut zones, context);
    }
    let mut shards = shape::attach(&members, context.config);
    backups::name(&mut shards);
    seats::allot(&mut shards, id, room, context.nodes);
    Tree { shards: shards.into_iter().map(|shard| shard.planned).collect(), missing }
}

/// Zones by number, in the order they were met.
#[derive(Debug, Default)]
struct Zones {
    by_name: BTreeMap<String, u16>,
}

impl Zones {
    fn index(&mut self, name: &str) -> u16 {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let index = u16::try_from(self.by_name.len()).unwrap_or(u16::MAX);
        self.by_name.insert(name.to_owned(), index);
        index
    }
}

#[cfg(test)]
mod tests;
