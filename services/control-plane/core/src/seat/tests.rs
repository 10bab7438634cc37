//! Who goes to which shard of a room.

use std::collections::BTreeSet;
use std::time::Duration;

use headwater_model::{Bitrate, Epoch, RoomUid, ShardIndex};
use proptest::prelude::*;

use super::*;
use crate::node::{AgentState, Lifecycle, NodeLoad};
use crate::room::RoomReport;

struct World {
    id: RoomId,
    plan: Plan,
    nodes: BTreeMap<NodeId, NodeView>,
}

impl World {
    /// So many shards, each on its own node, in three zones by turns; the first
    /// 32 hang on the home and the others on them.
    fn new(shards: u16) -> Self {
        let name = |rank: u16| NodeId::new(format!("n{rank:04}")).unwrap();
        let nodes = (0..shards).map(|rank| {
            let view = NodeView {
                registered: true,
                agent: AgentState::Connected,
                zone: ["a", "b", "c"][usize::from(rank % 3)].to_owned(),
                shards: 1,
                load: Some(NodeLoad::default()),
                ..NodeView::default()
            };
            (name(rank), view)
        });
        let planned = (0..shards).map(|rank| {
            let parent = rank.checked_sub(1).map(|before| Rank(before / 32));
            PlannedShard { parent, ..PlannedShard::home(name(rank), ShardIndex(0)) }
        });
        let room_uid = RoomUid::from_raw("RM_1");
        let plan = Plan { room_uid, epoch: Epoch(1), shards: planned.collect() };
        Self { id: RoomId::new("plaza").unwrap(), plan, nodes: nodes.collect() }
    }

    fn people(&mut self, rank: u16, participants: u32) {
        let node = self.nodes.get_mut(&self.plan.shards[usize::from(rank)].node).unwrap();
        let report = RoomReport {
            uid: RoomUid::from_raw("RM_1"),
            epoch: Epoch(1),
            shard: ShardIndex(0),
            participants,
            publishers: 0,
            empty_for: Duration::ZERO,
            ever_joined: true,
            egress: Bitrate(0),
        };
        node.reports.insert(self.id.clone(), vec![report]);
    }

    fn choose(&self, wish: &SeatWish<'_>) -> Option<u16> {
        choose_seat(&self.id, &self.plan, &self.nodes, wish).map(|rank| rank.0)
    }

    /// Where a hundred different participants go.
    fn chosen(&self, wish: &SeatWish<'_>) -> BTreeSet<u16> {
        (0..100).filter_map(|seed| self.choose(&SeatWish { seed, ..*wish })).collect()
    }
}

const VIEWER: SeatWish<'_> =
    SeatWish { zone: "", publishes: false, without: None, seed: 0, full_at: 0 };

#[test]
fn a_viewer_goes_to_its_own_zone_and_not_to_the_home_of_a_large_room() {
    for shards in [9, 1000] {
        let chosen = World::new(shards).chosen(&SeatWish { zone: "a", ..VIEWER });
        assert!(chosen.len() > 1 && !chosen.contains(&0), "{chosen:?}");
        assert!(chosen.iter().all(|rank| rank % 3 == 0), "{chosen:?}");
    }
}

#[test]
fn who_publishes_goes_no_farther_than_one_link_from_the_home() {
    for shards in [100, 1000] {
        let chosen = World::new(shards).chosen(&SeatWish { publishes: true, ..VIEWER });
        assert!(chosen.len() > 10 && chosen.iter().all(|rank| *rank <= 32), "{chosen:?}");
    }
}

#[test]
fn a_zone_with_one_shard_of_a_thousand_is_found() {
    let mut world = World::new(1000);
    let rare = world.plan.shards[777].node.clone();
    world.nodes.get_mut(&rare).unwrap().zone = "far".to_owned();
    assert_eq!(world.chosen(&SeatWish { zone: "far", ..VIEWER }), BTreeSet::from([777]));
}

#[test]
fn the_last_seat_of_a_large_room_is_found_and_then_none() {
    let mut world = World::new(500);
    for rank in 0..500 {
        world.plan.shards[usize::from(rank)].seats = Some(10);
        world.people(rank, if rank == 321 { 9 } else { 10 });
    }
    assert_eq!(world.chosen(&VIEWER), BTreeSet::from([321]));
    world.people(321, 10);
    assert_eq!(world.choose(&VIEWER), None);
}

#[test]
fn the_node_that_failed_and_one_that_drains_are_avoided() {
    let mut world = World::new(3);
    let failed = world.plan.shards[1].node.clone();
    let draining = world.plan.shards[2].node.clone();
    world.nodes.get_mut(&draining).unwrap().lifecycle = Lifecycle::Drain;
    let wish = SeatWish { without: Some(&failed), ..VIEWER };
    assert_eq!(world.chosen(&wish), BTreeSet::from([0]));
    // Better a node that drains than none.
    let home = world.plan.shards[0].node.clone();
    world.nodes.remove(&home);
    assert_eq!(world.chosen(&wish), BTreeSet::from([2]));
}

#[test]
fn a_wave_is_spread_evenly_over_many_shards() {
    let mut world = World::new(300);
    let mut people = vec![0_u32; 300];
    for seed in 0..30_000 {
        let rank = world.choose(&SeatWish { seed, ..VIEWER }).unwrap();
        people[usize::from(rank)] += 1;
        world.people(rank, people[usize::from(rank)]);
    }
    let most = people.iter().max().unwrap();
    assert!(*most <= 130, "the mean is 100, the most {most}");
}

proptest! {
    #[test]
    fn the_same_participant_finds_the_same_shard(shards in 1_u16..400, seed in any::<u64>()) {
        let world = World::new(shards);
        let wish = SeatWish { seed, ..VIEWER };
        let chosen = world.choose(&wish);
        prop_assert!(chosen.is_some_and(|rank| rank < shards));
        prop_assert_eq!(chosen, world.choose(&wish));
    }
}
