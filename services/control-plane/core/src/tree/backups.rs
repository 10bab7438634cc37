//! Who steps in for a lost parent. A backup has a lower rank than the shard that
//! leans on it, so that no set of lost parents can close a loop.

use super::shape::Placed;
use super::{BACKUP_CHILDREN_MAX, BACKUPS_MAX};
use crate::room::Rank;

/// Names the backups of every shard.
///
/// The first brothers and sisters come first: when a zone's relay is lost, its
/// first child turns to the grandparent and all others to that child, so that
/// still one link goes into the zone. Then the grandparent, then its children.
pub(super) fn name(shards: &mut [Placed]) {
    let mut children: Vec<Vec<Rank>> = vec![Vec::new(); shards.len()];
    for (rank, shard) in (0..=u16::MAX).map(Rank).zip(shards.iter()) {
        if let Some(parent) = shard.planned.parent {
            children[parent.index()].push(rank);
        }
    }
    let mut leaning = vec![0_u16; shards.len()];
    for rank in (0..=u16::MAX).map(Rank).take(shards.len()) {
        let Some(parent) = shards[rank.index()].planned.parent else { continue };
        let grandparent = shards[parent.index()].planned.parent;
        let candidates = children[parent.index()]
            .iter()
            .copied()
            .chain(grandparent)
            .chain(grandparent.into_iter().flat_map(|it| children[it.index()].iter().copied()));
        let mut named: Vec<Rank> = Vec::new();
        for candidate in candidates {
            if named.len() >= BACKUPS_MAX {
                break;
            }
            let fits = candidate < rank
                && candidate != parent
                && leaning[candidate.index()] < BACKUP_CHILDREN_MAX
                && shards[candidate.index()].planned.node != shards[parent.index()].planned.node
                && named.iter().all(|other| {
                    shards[other.index()].planned.node != shards[candidate.index()].planned.node
                });
            if fits {
                leaning[candidate.index()] += 1;
                named.push(candidate);
            }
        }
        let zone = shards[rank.index()].zone;
        named.sort_by_key(|it| shards[it.index()].zone != zone);
        shards[rank.index()].planned.backups = named;
    }
}
