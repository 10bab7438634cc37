//! Participants that were sent to a room on a shard and that its node has not
//! reported yet: what makes a room grow in a wave of joins, between two reports.

use std::collections::BTreeMap;

use headwater_model::{RoomId, ShardIndex};

/// Participants on their way to one node, by room and shard.
///
/// One is forgotten when the shard reports one more than before, and with the
/// second report after it was sent: then it did not come. Whoever leaves in the
/// same second hides one that came, so for two reports the count is rather too
/// high than too low.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coming {
    rooms: BTreeMap<RoomId, BTreeMap<ShardIndex, Sent>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sent {
    /// Before the last report.
    earlier: u32,
    /// Since.
    lately: u32,
}

impl Sent {
    fn count(self) -> u32 {
        self.earlier.saturating_add(self.lately)
    }
}

impl Coming {
    /// One more was sent.
    pub(crate) fn add(&mut self, room: &RoomId, shard: ShardIndex) {
        let shards = self.rooms.entry(room.clone()).or_default();
        let sent = shards.entry(shard).or_default();
        sent.lately = sent.lately.saturating_add(1);
    }

    /// Takes in that the node reported; `arrived` says how many more a shard
    /// reports of a room than before.
    pub(crate) fn handle_report(&mut self, arrived: impl Fn(&RoomId, ShardIndex) -> u32) {
        self.rooms.retain(|room, shards| {
            shards.retain(|shard, sent| {
                let beyond = arrived(room, *shard).saturating_sub(sent.earlier);
                *sent = Sent { earlier: sent.lately.saturating_sub(beyond), lately: 0 };
                sent.earlier > 0
            });
            !shards.is_empty()
        });
    }

    /// On their way to a room on a shard.
    pub(crate) fn to(&self, room: &RoomId, shard: ShardIndex) -> u32 {
        let sent = self.rooms.get(room).and_then(|shards| shards.get(&shard));
        sent.map_or(0, |sent| sent.count())
    }

    /// On their way to a room on any shard.
    pub(crate) fn to_all(&self, room: &RoomId) -> u32 {
        let shards = self.rooms.get(room).into_iter().flat_map(BTreeMap::values);
        shards.map(|sent| sent.count()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardIndex = ShardIndex(1);

    fn plaza() -> RoomId {
        RoomId::new("plaza").unwrap()
    }

    fn sent(count: u32) -> Coming {
        let mut coming = Coming::default();
        (0..count).for_each(|_| coming.add(&plaza(), SHARD));
        coming
    }

    #[test]
    fn who_arrived_is_not_on_the_way_any_more() {
        let mut coming = sent(3);
        coming.handle_report(|_, _| 2);
        assert_eq!((coming.to(&plaza(), SHARD), coming.to_all(&plaza())), (1, 1));
        coming.add(&plaza(), SHARD);
        coming.handle_report(|_, _| 2);
        assert_eq!(coming, Coming::default());
    }

    #[test]
    fn who_never_arrives_is_forgotten_with_the_second_report() {
        let mut coming = sent(2);
        coming.handle_report(|_, _| 0);
        assert_eq!(coming.to(&plaza(), SHARD), 2);
        coming.handle_report(|_, _| 0);
        assert_eq!(coming, Coming::default());
    }
}
