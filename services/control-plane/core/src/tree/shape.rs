//! Which shards are in the tree and who is whose parent: what there is stays,
//! what is new or orphaned goes to the best place that is free.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use headwater_model::{NodeId, ShardIndex};

use super::need::Needs;
use super::{Member, TreeConfig, TreeContext, Zones};
use crate::node::LOAD_SOFT;
use crate::room::{PlannedShard, Rank, ShardRef};

/// A shard at its place in the tree.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) planned: PlannedShard,
    pub(super) zone: u16,
    pub(super) old_seats: Option<u32>,
    pub(super) participants: u32,
    /// It was in the plan before.
    pub(super) is_old: bool,
}

/// Index of the member that becomes the home: the one it was, or the next by
/// rank, which its children know as their backup.
pub(super) fn home_of(members: &[Member]) -> usize {
    match members.first() {
        Some(first) if first.was == Some(0) => 0,
        Some(_) | None => members.iter().position(|member| member.sturdy).unwrap_or(0),
    }
}

/// Takes surplus shards out: leaves with few people, the last ones first.
pub(super) fn shrink(members: &mut Vec<Member>, needs: &Needs, home: usize, config: &TreeConfig) {
    let needs = &needs.zones;
    let wanted: u32 = needs.values().map(|need| need.wanted).sum();
    let have = u32::try_from(members.len()).unwrap_or(u32::MAX);
    let mut surplus = have.saturating_sub(wanted);
    let mut spare: BTreeMap<u16, u32> =
        needs.iter().map(|(zone, need)| (*zone, need.kept.saturating_sub(need.wanted))).collect();
    let mut moves = config.shrink_moves_max;
    let parents: BTreeSet<usize> = members.iter().filter_map(|member| member.old_parent).collect();
    let mut dropped = BTreeSet::new();
    for (index, member) in members.iter().enumerate().rev() {
        if surplus == 0 {
            break;
        }
        let is_leaf = member.was.is_none_or(|was| !parents.contains(&was));
        let spare = spare.entry(member.zone).or_default();
        if index == home || !is_leaf || *spare == 0 || member.participants > moves {
            continue;
        }
        *spare -= 1;
        surplus -= 1;
        moves -= member.participants;
        dropped.insert(index);
    }
    let mut index = 0;
    members.retain(|_| {
        index += 1;
        !dropped.contains(&(index - 1))
    });
}

/// Adds the shards that zones need; if the whole is short after that, they come
/// from wherever they are. Answers how many nobody has.
pub(super) fn extend(
    members: &mut Vec<Member>,
    needs: &Needs,
    zones: &mut Zones,
    context: &TreeContext<'_>,
) -> u32 {
    let mut have: BTreeMap<u16, u32> = BTreeMap::new();
    for member in members.iter() {
        *have.entry(member.zone).or_default() += 1;
    }
    let short = |zone: u16, have: &BTreeMap<u16, u32>| {
        let need = needs.zones.get(&zone).copied().unwrap_or_default();
        need.wanted.saturating_sub(have.get(&zone).copied().unwrap_or(0))
    };
    let in_all = |members: &Vec<Member>| u32::try_from(members.len()).unwrap_or(u32::MAX);
    if in_all(members) >= needs.in_all && needs.zones.keys().all(|zone| short(*zone, &have) == 0) {
        return 0;
    }
    let mut offers = offers(members, zones, context);
    for zone in needs.zones.keys().copied() {
        let from = offers.get_mut(&zone);
        let count = usize::try_from(short(zone, &have)).unwrap_or(usize::MAX);
        for offer in from.into_iter().flat_map(|them| take(them, count)) {
            add(members, &mut have, zone, offer);
        }
    }
    let mut missing = needs.in_all.saturating_sub(in_all(members));
    for (zone, left) in &mut offers {
        let count = usize::try_from(missing).unwrap_or(usize::MAX);
        for offer in take(left, count) {
            missing -= 1;
            add(members, &mut have, *zone, offer);
        }
    }
    let room = usize::from(context.config.shards_max);
    let beyond = u32::try_from(members.len().saturating_sub(room)).unwrap_or(u32::MAX);
    members.truncate(room);
    missing + beyond
}

/// The last `count` offers, which are the best.
fn take(offers: &mut Vec<ShardRef>, count: usize) -> impl Iterator<Item = ShardRef> {
    let from = offers.len().saturating_sub(count);
    offers.split_off(from).into_iter().rev()
}

fn add(members: &mut Vec<Member>, have: &mut BTreeMap<u16, u32>, zone: u16, at: ShardRef) {
    *have.entry(zone).or_default() += 1;
    members.push(Member {
        at,
        zone,
        was: None,
        old_parent: None,
        old_seats: None,
        participants: 0,
        sturdy: true,
    });
}

/// Shards that could be added, by zone, the best last: those of nodes with
/// fewer shards in the room, with less to do, with fewer rooms.
fn offers(
    members: &[Member],
    zones: &mut Zones,
    context: &TreeContext<'_>,
) -> BTreeMap<u16, Vec<ShardRef>> {
    let mut used: BTreeMap<&NodeId, BTreeSet<ShardIndex>> = BTreeMap::new();
    for member in members {
        used.entry(&member.at.node).or_default().insert(member.at.shard);
    }
    let mut rated: BTreeMap<u16, Vec<(Rating, ShardRef)>> = BTreeMap::new();
    for (id, node) in context.nodes {
        let load = node.utilisation();
        if !context.takes(id, node) || !node.has_slot() || load >= LOAD_SOFT {
            continue;
        }
        let taken = used.get(id);
        let mut in_room = taken.map_or(0, BTreeSet::len);
        let zone = zones.index(&node.zone);
        for shard in (0..node.shards).map(ShardIndex) {
            if taken.is_some_and(|taken| taken.contains(&shard)) {
                continue;
            }
            let rooms = node.planned.get(&shard).copied().unwrap_or(0);
            let rating = Rating { in_room, load: tenths(load), rooms };
            let offer = ShardRef { node: id.clone(), shard };
            rated.entry(zone).or_default().push((rating, offer));
            in_room += 1;
        }
    }
    rated
        .into_iter()
        .map(|(zone, mut offers)| {
            offers.sort_unstable_by(|a, b| b.cmp(a));
            (zone, offers.into_iter().map(|(_, offer)| offer).collect())
        })
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rating {
    in_room: usize,
    load: u8,
    rooms: u32,
}

/// A load in tenths: finer is noise.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to what a u8 holds"
)]
fn tenths(load: f64) -> u8 {
    (load * 10.0).clamp(0.0, 100.0) as u8
}

/// Places that are free, the best first: near the home, with few children.
#[derive(Debug, Default)]
struct Free(BTreeSet<(u16, u16, usize)>);

struct Attaching<'a> {
    members: &'a [Member],
    config: &'a TreeConfig,
    depth: Vec<Option<u16>>,
    children: Vec<u16>,
    parent: Vec<Option<usize>>,
    by_zone: BTreeMap<u16, Free>,
    by_node: BTreeMap<&'a NodeId, usize>,
    anywhere: Free,
    home: usize,
}

/// Gives every member a parent, and orders them by depth.
pub(super) fn attach(members: &[Member], config: &TreeConfig) -> Vec<Placed> {
    if members.is_empty() {
        return Vec::new();
    }
    let home = home_of(members);
    let mut attaching = Attaching {
        members,
        config,
        depth: vec![None; members.len()],
        children: vec![0; members.len()],
        parent: vec![None; members.len()],
        by_zone: BTreeMap::new(),
        by_node: BTreeMap::new(),
        anywhere: Free::default(),
        home,
    };
    let now: BTreeMap<usize, usize> = members
        .iter()
        .enumerate()
        .filter_map(|(index, member)| member.was.map(|was| (was, index)))
        .collect();
    let old_parents: Vec<Option<usize>> = members
        .iter()
        .enumerate()
        .map(|(index, member)| {
            let old = member.old_parent.and_then(|old| now.get(&old).copied());
            old.filter(|_| index != home)
        })
        .collect();
    // Places of old children are taken until a child goes elsewhere: others do
    // not push it out.
    for old in old_parents.iter().flatten() {
        attaching.children[*old] += 1;
    }
    attaching.settle(home, 0);
    let mut pending: Vec<usize> = (0..members.len()).filter(|index| *index != home).collect();
    // A round settles at least one level; whoever hangs on a shard that has no
    // place yet waits for it rather than move.
    for _ in 0..=config.depth_max {
        pending.retain(|index| !attaching.settled(*index, old_parents[*index]));
        if pending.is_empty() {
            break;
        }
    }
    for index in pending {
        if let Some(parent) = attaching.best_for(index) {
            attaching.put(index, parent);
        }
    }
    attaching.ordered()
}

impl Attaching<'_> {
    fn limit(&self, index: usize) -> u16 {
        self.config.fanout_max - u16::from(index == self.home) * self.reserved()
    }

    fn reserved(&self) -> u16 {
        self.config.home_children_reserved.min(self.config.fanout_max.saturating_sub(1))
    }

    /// Whether an old parent is still good: in the tree, within the bounds, and
    /// not in another zone if this zone has a place.
    fn may_keep(&self, index: usize, parent: usize) -> bool {
        let fits = self.depth[parent].is_some_and(|depth| depth < self.config.depth_max)
            && self.children[parent] <= self.config.fanout_max;
        let same_zone = self.members[parent].zone == self.members[index].zone;
        fits && (same_zone || self.in_zone(index).is_none())
    }

    fn in_zone(&self, index: usize) -> Option<usize> {
        let free = self.by_zone.get(&self.members[index].zone)?;
        free.0.first().map(|(_, _, parent)| *parent)
    }

    /// On the same node, where a link costs nothing; in the same zone; at the
    /// home, which keeps places for other zones; anywhere.
    fn best_for(&self, index: usize) -> Option<usize> {
        let on_node = self.by_node.get(&self.members[index].at.node).copied();
        let on_node = on_node.filter(|parent| {
            self.depth[*parent].is_some_and(|depth| depth < self.config.depth_max)
                && self.children[*parent] < self.limit(*parent)
        });
        let at_home =
            || Some(self.home).filter(|home| self.children[*home] < self.config.fanout_max);
        let anywhere = || self.anywhere.0.first().map(|(_, _, parent)| *parent);
        on_node.or_else(|| self.in_zone(index)).or_else(at_home).or_else(anywhere)
    }

    /// Finds a member its place, if it has one by now.
    fn settled(&mut self, index: usize, old: Option<usize>) -> bool {
        if let Some(old) = old {
            if self.depth[old].is_none() {
                return false;
            }
            if self.may_keep(index, old) {
                self.keep(index, old);
                return true;
            }
        }
        let Some(parent) = self.best_for(index) else { return false };
        if let Some(old) = old {
            self.leave(old);
        }
        self.put(index, parent);
        true
    }

    fn keep(&mut self, index: usize, parent: usize) {
        let depth = self.depth[parent].unwrap_or(0);
        self.parent[index] = Some(parent);
        self.settle(index, depth + 1);
    }

    fn leave(&mut self, parent: usize) {
        self.offer(parent, false);
        self.children[parent] -= 1;
        self.offer(parent, true);
    }

    fn put(&mut self, index: usize, parent: usize) {
        self.offer(parent, false);
        self.children[parent] += 1;
        self.offer(parent, true);
        self.keep(index, parent);
    }

    fn settle(&mut self, index: usize, depth: u16) {
        self.depth[index] = Some(depth);
        self.by_node.entry(&self.members[index].at.node).or_insert(index);
        self.offer(index, true);
    }

    /// Lists a member among the free places, or takes it off the list.
    fn offer(&mut self, index: usize, listed: bool) {
        let Some(depth) = self.depth[index] else { return };
        let member = &self.members[index];
        let place = (depth, self.children[index], index);
        let free = depth < self.config.depth_max
            && self.children[index] < self.limit(index)
            && (member.sturdy || index == self.home);
        for list in [self.by_zone.entry(member.zone).or_default(), &mut self.anywhere] {
            if listed && free {
                list.0.insert(place);
            } else {
                list.0.remove(&place);
            }
        }
    }

    fn ordered(self) -> Vec<Placed> {
        let mut order: Vec<usize> =
            (0..self.members.len()).filter(|index| self.depth[*index].is_some()).collect();
        let home_zone = self.members[self.home].zone;
        // New shards come after those that were there, so that little changes.
        order.sort_by_key(|index| {
            let member = &self.members[*index];
            let old = member.was.is_some();
            let near = member.zone == home_zone;
            (self.depth[*index], Reverse(old), Reverse(near && !old), *index)
        });
        let ranks: BTreeMap<usize, Rank> =
            (0..=u16::MAX).map(Rank).zip(&order).map(|(rank, index)| (*index, rank)).collect();
        order
            .iter()
            .map(|index| {
                let member = &self.members[*index];
                let parent = self.parent[*index].and_then(|parent| ranks.get(&parent).copied());
                Placed {
                    planned: PlannedShard { parent, ..member.at.clone().into() },
                    zone: member.zone,
                    old_seats: member.old_seats,
                    participants: member.participants,
                    is_old: member.was.is_some(),
                }
            })
            .collect()
    }
}
