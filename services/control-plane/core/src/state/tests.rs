//! The counts kept in step equal those counted afresh, whatever happens.

use std::sync::Arc;

use headwater_model::{RoomUid, ShardIndex};
use proptest::prelude::*;

use super::*;
use crate::room::PlannedShard;
use crate::room::{DEPARTURE_TIMEOUT, EMPTY_TIMEOUT};

fn spec(uid: &str) -> RoomSpec {
    RoomSpec {
        uid: RoomUid::from_raw(uid),
        metadata: Arc::from(""),
        max_participants: 0,
        empty_timeout: EMPTY_TIMEOUT,
        departure_timeout: DEPARTURE_TIMEOUT,
        create_millis: 0,
    }
}

fn room(number: u8) -> RoomId {
    RoomId::new(format!("r{number}")).unwrap()
}

fn node(number: u8) -> NodeId {
    NodeId::new(format!("n{number}")).unwrap()
}

fn plan_on(number: u8, shard: u16) -> Plan {
    let shard = PlannedShard::home(node(number), ShardIndex(shard));
    Plan { room_uid: RoomUid::from_raw("RM_1"), epoch: Epoch(1), shards: vec![shard] }
}

/// Rooms by shard, counted afresh.
fn count_planned(state: &State) -> BTreeMap<NodeId, BTreeMap<ShardIndex, u32>> {
    let plans = state.intended.rooms.values().filter_map(|room| room.plan.as_ref());
    let planned = plans.flat_map(|plan| &plan.shards).map(PlannedShard::at);
    let mut counts: BTreeMap<NodeId, BTreeMap<ShardIndex, u32>> = BTreeMap::new();
    for shard in planned.chain(state.reserved.values().cloned()) {
        let shards = counts.entry(shard.node.clone()).or_default();
        *shards.entry(shard.shard).or_default() += 1;
    }
    counts
}

#[derive(Debug, Clone)]
enum Step {
    SetSpec(u8, bool),
    RemoveSpec(u8),
    SetPlan(u8, u8, u16),
    RemovePlan(u8),
    Reserve(u8, u8),
    Release(u8),
    SetNode(u8),
    RemoveNode(u8),
    Agent(u8, AgentState),
    Lifecycle(u8, Lifecycle),
}

fn any_step() -> impl Strategy<Value = Step> {
    let agent = prop_oneof![
        Just(AgentState::Connecting),
        Just(AgentState::Connected),
        Just(AgentState::Lost)
    ];
    let lifecycle = prop_oneof![Just(Lifecycle::Serve), Just(Lifecycle::Drain)];
    prop_oneof![
        (0_u8..5, any::<bool>()).prop_map(|(r, same)| Step::SetSpec(r, same)),
        (0_u8..5).prop_map(Step::RemoveSpec),
        (0_u8..5, 0_u8..3, 0_u16..2).prop_map(|(r, n, s)| Step::SetPlan(r, n, s)),
        (0_u8..5).prop_map(Step::RemovePlan),
        (0_u8..5, 0_u8..3).prop_map(|(r, n)| Step::Reserve(r, n)),
        (0_u8..5).prop_map(Step::Release),
        (0_u8..3).prop_map(Step::SetNode),
        (0_u8..3).prop_map(Step::RemoveNode),
        (0_u8..3, agent).prop_map(|(n, agent)| Step::Agent(n, agent)),
        (0_u8..3, lifecycle).prop_map(|(n, lifecycle)| Step::Lifecycle(n, lifecycle)),
    ]
}

fn take(state: &mut State, step: Step) {
    match step {
        Step::SetSpec(r, same) => {
            state.set_spec(room(r), spec(if same { "RM_1" } else { "RM_2" }), 1, 1);
        }
        Step::RemoveSpec(r) => state.remove_spec(&room(r)),
        Step::SetPlan(r, n, s) => state.set_plan(room(r), plan_on(n, s), 1),
        Step::RemovePlan(r) => state.remove_plan(&room(r)),
        Step::Reserve(r, n) => state.reserve(room(r), plan_on(n, 0).shards[0].at()),
        Step::Release(r) => state.release(&room(r)),
        Step::SetNode(n) => {
            state.set_node(node(n), NodeFacts { shards: 2, ..NodeFacts::default() })
        }
        Step::RemoveNode(n) => state.remove_node(&node(n)),
        Step::Agent(n, agent) => state.set_agent(&node(n), agent),
        Step::Lifecycle(n, lifecycle) => state.set_lifecycle(&node(n), lifecycle),
    }
}

proptest! {
    #[test]
    fn kept_counts_equal_fresh_counts(steps in prop::collection::vec(any_step(), 0..80)) {
        let mut state = State::default();
        for step in steps {
            take(&mut state, step);
            let fresh = count_planned(&state);
            let kept: BTreeMap<_, _> = state
                .observed()
                .nodes
                .iter()
                .filter(|(_, view)| !view.planned.is_empty())
                .map(|(id, view)| (id.clone(), view.planned.clone()))
                .collect();
            prop_assert_eq!(&kept, &fresh);
            for node in state.intended().nodes_named() {
                prop_assert!(state.intended().rooms_of(&node).count() > 0);
                prop_assert!(fresh.contains_key(&node));
            }
            // Nothing is kept of a node that nobody needs.
            for view in state.observed().nodes.values() {
                prop_assert!(
                    view.standing().carries()
                        || !view.planned.is_empty()
                        || view.lifecycle != Lifecycle::Serve
                );
            }
        }
    }
}

#[test]
fn a_plan_that_arrives_before_its_room_is_kept_for_it() {
    let mut state = State::default();
    state.set_plan(room(1), plan_on(0, 1), 5);
    assert!(state.intended().rooms().is_empty());
    state.set_spec(room(1), spec("RM_1"), 4, 4);
    let known = &state.intended().rooms()[&room(1)];
    assert_eq!((known.plan_revision, known.home().map(|h| h.shard)), (5, Some(ShardIndex(1))));
}

#[test]
fn a_lost_stream_forgets_what_was_reported_on_it() {
    let mut state = State::default();
    state.set_node(node(0), NodeFacts { shards: 1, ..NodeFacts::default() });
    state.set_agent(&node(0), AgentState::Connected);
    let report = RoomReport {
        uid: RoomUid::from_raw("RM_1"),
        epoch: Epoch(9),
        shard: ShardIndex(0),
        participants: 3,
        publishers: 0,
        empty_for: std::time::Duration::ZERO,
        ever_joined: true,
        egress: headwater_model::Bitrate(0),
    };
    state.handle_report(&node(0), NodeLoad::default(), BTreeMap::from([(room(1), report)]));
    assert_eq!(state.observed().highest_epoch(&room(1)), Some(Epoch(9)));
    state.set_agent(&node(0), AgentState::Lost);
    assert_eq!(state.observed().highest_epoch(&room(1)), None);
}

#[test]
fn a_plan_of_another_incarnation_is_void() {
    let mut state = State::default();
    state.set_spec(room(1), spec("RM_2"), 4, 4);
    state.set_plan(room(1), plan_on(0, 0), 5);
    assert_eq!(state.intended().rooms()[&room(1)].home(), None);
    state.set_spec(room(1), spec("RM_1"), 6, 6);
    assert!(state.intended().rooms()[&room(1)].home().is_some());
    state.set_spec(room(1), spec("RM_2"), 7, 7);
    assert_eq!(state.intended().rooms()[&room(1)].plan_revision, 0);
}
