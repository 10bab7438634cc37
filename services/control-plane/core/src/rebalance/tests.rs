//! Hot nodes cool down, and no room goes to and fro.

use std::sync::Arc;

use headwater_model::{Bitrate, Epoch, RoomUid, ShardIndex};
use proptest::prelude::*;

use super::*;
use crate::node::{AgentState, NodeLoad};
use crate::room::{DEPARTURE_TIMEOUT, EMPTY_TIMEOUT, Plan, PlannedShard, RoomReport, RoomSpec};
use crate::state::{NodeFacts, State};

#[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
fn origin() -> Instant {
    Instant::now()
}

fn node(number: usize) -> NodeId {
    NodeId::new(format!("n{number}")).unwrap()
}

fn room(number: usize) -> RoomId {
    RoomId::new(format!("r{number}")).unwrap()
}

fn plan_on(number: usize) -> Plan {
    let home = PlannedShard::home(node(number), ShardIndex(0));
    Plan { room_uid: RoomUid::from_raw("RM_1"), epoch: Epoch(1), shards: vec![home] }
}

/// Rooms of so many people each, on nodes of which each is full with a thousand.
struct World {
    state: State,
    homes: Vec<usize>,
    people: Vec<u32>,
    nodes: usize,
}

impl World {
    fn new(nodes: usize, homes: Vec<usize>, people: Vec<u32>) -> Self {
        let mut state = State::default();
        for number in 0..nodes {
            state.set_node(node(number), NodeFacts { shards: 1, ..NodeFacts::default() });
            state.set_agent(&node(number), AgentState::Connected);
        }
        let spec = RoomSpec {
            uid: RoomUid::from_raw("RM_1"),
            metadata: Arc::from(""),
            max_participants: 0,
            empty_timeout: EMPTY_TIMEOUT,
            departure_timeout: DEPARTURE_TIMEOUT,
            create_millis: 0,
        };
        for (number, home) in homes.iter().enumerate() {
            state.set_spec(room(number), spec.clone(), 1, 1);
            state.set_plan(room(number), plan_on(*home), 1);
        }
        Self { state, homes, people, nodes }
    }

    fn load(&self, number: usize) -> u32 {
        let here = self.homes.iter().zip(&self.people).filter(|(home, _)| **home == number);
        here.map(|(_, people)| people).sum()
    }

    fn report(&mut self, noise: f32) {
        for number in 0..self.nodes {
            let people = self.load(number);
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let busy = (people as f32 / 1000.0 * noise).min(1.0);
            let load =
                NodeLoad { participants: people, busiest_shard: busy, ..NodeLoad::default() };
            let here = self.homes.iter().enumerate().filter(|(_, home)| **home == number);
            let reports: Vec<_> = here
                .map(|(index, _)| {
                    let report = RoomReport {
                        uid: RoomUid::from_raw("RM_1"),
                        epoch: Epoch(1),
                        shard: ShardIndex(0),
                        participants: self.people[index],
                        publishers: 0,
                        empty_for: Duration::ZERO,
                        ever_joined: true,
                        egress: Bitrate(0),
                    };
                    (room(index), report)
                })
                .collect();
            self.state.handle_report(&node(number), load, reports);
        }
    }

    fn carry_out(&mut self, made: &Move) {
        let index = (0..self.homes.len()).find(|it| room(*it) == made.room).unwrap();
        let to = (0..self.nodes).find(|it| node(*it) == made.to).unwrap();
        self.homes[index] = to;
        self.state.set_plan(room(index), plan_on(to), 1);
    }
}

#[test]
fn a_node_hot_for_a_minute_gives_its_largest_fitting_room_away() {
    let mut world = World::new(2, vec![0, 0, 0], vec![700, 200, 60]);
    let mut balancer = Balancer::default();
    let start = origin();
    let mut moves = Vec::new();
    for second in 0..70 {
        world.report(1.0);
        let now = start + Duration::from_secs(second);
        let them = balancer.propose(now, world.state.intended(), world.state.observed());
        assert!(second >= 60 || them.is_empty());
        them.iter().for_each(|made| world.carry_out(made));
        moves.extend(them);
    }
    let expected = Move { room: room(1), from: node(0), to: node(1) };
    assert_eq!(moves, [expected], "700 would make the other one hot");
}

#[test]
fn a_moment_of_heat_moves_nothing() {
    let mut world = World::new(2, vec![0, 0], vec![700, 260]);
    let mut balancer = Balancer::default();
    let start = origin();
    for second in 0..300 {
        world.report(if second % 50 == 49 { 0.5 } else { 1.0 });
        let now = start + Duration::from_secs(second);
        let moves = balancer.propose(now, world.state.intended(), world.state.observed());
        assert_eq!(moves, [], "at {second} s");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// However the rooms lie and however noisy the measurements are: no move
    /// makes another node hot, no room is moved twice within its stay, and it
    /// comes to an end.
    #[test]
    fn rooms_do_not_go_to_and_fro(
        homes in prop::collection::vec(0_usize..4, 4..24),
        sizes in prop::collection::vec(20_u32..300, 24),
        noise in prop::collection::vec(0.92_f32..1.08, 16),
    ) {
        let count = homes.len();
        let mut world = World::new(4, homes, sizes[..count].to_vec());
        let mut balancer = Balancer::default();
        let start = origin();
        let mut moved: BTreeMap<RoomId, u64> = BTreeMap::new();
        let mut last = 0;
        for second in 0..2400_u64 {
            world.report(noise[usize::try_from(second).unwrap() % noise.len()]);
            let now = start + Duration::from_secs(second);
            let moves = balancer.propose(now, world.state.intended(), world.state.observed());
            for made in moves {
                world.carry_out(&made);
                let to = (0..4).find(|it| node(*it) == made.to).unwrap();
                prop_assert!(world.load(to) < 800, "{} is hot now", made.to);
                if let Some(before) = moved.insert(made.room.clone(), second) {
                    prop_assert!(second - before >= 300);
                }
                last = second;
            }
        }
        // Twenty-four rooms, twenty seconds each, and the minute before.
        prop_assert!(last < 1200, "still moving after {last} s");
    }
}
