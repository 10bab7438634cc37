//! The planner: what it moves, what it ends, and what it leaves alone.

use std::sync::Arc;
use std::time::Duration;

use headwater_model::{RoomUid, ShardIndex};
use proptest::prelude::*;

use super::*;
use crate::node::{AgentState, NodeLoad};
use crate::room::{DEPARTURE_TIMEOUT, EMPTY_TIMEOUT, RoomReport, RoomSpec};
use crate::state::{NodeFacts, State};

fn room(number: u32) -> RoomId {
    RoomId::new(format!("r{number:04}")).unwrap()
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn spec() -> RoomSpec {
    RoomSpec {
        uid: RoomUid::from_raw("RM_1"),
        metadata: Arc::from(""),
        max_participants: 0,
        empty_timeout: EMPTY_TIMEOUT,
        departure_timeout: DEPARTURE_TIMEOUT,
        create_millis: 0,
    }
}

fn plan_on(name: &str, shard: u16, epoch: u64) -> Plan {
    let shard = PlannedShard::home(node(name), ShardIndex(shard));
    Plan { room_uid: RoomUid::from_raw("RM_1"), epoch: Epoch(epoch), shards: vec![shard] }
}

fn serve(state: &mut State, name: &str) {
    state.set_node(node(name), NodeFacts { shards: 2, ..NodeFacts::default() });
    state.set_agent(&node(name), AgentState::Connected);
}

fn lose(state: &mut State, name: &str) {
    state.remove_node(&node(name));
    state.set_agent(&node(name), AgentState::Lost);
}

static NO_MOVES: BTreeMap<NodeId, u32> = BTreeMap::new();
static NOT_ASKED: BTreeMap<RoomId, BTreeMap<String, u32>> = BTreeMap::new();
static NO_ROOMS: BTreeSet<RoomId> = BTreeSet::new();
static TREE: std::sync::LazyLock<TreeConfig> = std::sync::LazyLock::new(TreeConfig::default);

fn context(
    gone: &BTreeSet<NodeId>,
    frozen: bool,
    registry_revision: u64,
    seed: u64,
) -> PlanContext<'_> {
    PlanContext {
        gone,
        frozen,
        region: "",
        registry_revision,
        seed,
        moves: &NO_MOVES,
        asked: &NOT_ASKED,
        young: &NO_ROOMS,
        resting: &NO_ROOMS,
        tree: &TREE,
    }
}

fn run(state: &State, gone: &[&str], frozen: bool) -> Planned {
    let gone = gone.iter().map(|name| node(name)).collect();
    let context = context(&gone, frozen, 50, 1);
    plan(state.intended(), state.observed(), &context)
}

#[test]
fn a_room_without_a_plan_gets_one_at_the_registrys_revision() {
    let mut state = State::default();
    serve(&mut state, "a");
    state.set_spec(room(1), spec(), 1, 1);
    let planned = run(&state, &[], false);
    let [Action::WritePlan { plan, .. }] = &planned.actions[..] else {
        panic!("{planned:?}");
    };
    assert_eq!((plan.epoch, &plan.shards[0].node), (Epoch(50), &node("a")));
}

#[test]
fn a_room_on_a_gone_node_moves_at_a_higher_epoch() {
    let mut state = State::default();
    serve(&mut state, "a");
    serve(&mut state, "b");
    state.set_spec(room(1), spec(), 1, 1);
    state.set_plan(room(1), plan_on("a", 0, 7), 1);
    lose(&mut state, "a");
    assert_eq!(run(&state, &[], false), Planned::default(), "not confirmed yet");
    let frozen = run(&state, &["a"], true);
    assert_eq!((frozen.actions.len(), frozen.withheld), (0, 1));
    let planned = run(&state, &["a"], false);
    let [Action::WritePlan { plan, .. }] = &planned.actions[..] else {
        panic!("{planned:?}");
    };
    assert_eq!((plan.epoch, &plan.shards[0].node), (Epoch(8), &node("b")));
}

#[test]
fn a_node_without_lease_that_still_answers_keeps_its_rooms() {
    let mut state = State::default();
    serve(&mut state, "a");
    serve(&mut state, "b");
    state.set_spec(room(1), spec(), 1, 1);
    state.set_plan(room(1), plan_on("a", 0, 7), 1);
    state.remove_node(&node("a"));
    assert_eq!(run(&state, &["a"], false), Planned::default());
    serve(&mut state, "a");
    state.set_agent(&node("a"), AgentState::Lost);
    assert_eq!(run(&state, &["a"], false), Planned::default());
}

#[test]
fn a_plan_for_a_shard_that_is_no_more_is_replaced() {
    let mut state = State::default();
    serve(&mut state, "a");
    state.set_spec(room(1), spec(), 1, 1);
    state.set_plan(room(1), plan_on("a", 5, 7), 1);
    let planned = run(&state, &[], false);
    let [Action::WritePlan { plan, .. }] = &planned.actions[..] else {
        panic!("{planned:?}");
    };
    assert!(plan.epoch == Epoch(8) && plan.shards[0].shard.0 < 2);
}

#[test]
fn a_registry_that_lost_its_past_overtakes_what_a_node_carries() {
    let mut state = State::default();
    serve(&mut state, "a");
    state.set_spec(room(1), spec(), 1, 1);
    state.set_plan(room(1), plan_on("a", 1, 7), 1);
    let report = RoomReport {
        uid: RoomUid::from_raw("RM_0"),
        epoch: Epoch(900),
        shard: ShardIndex(1),
        participants: 2,
        publishers: 0,
        empty_for: Duration::ZERO,
        ever_joined: true,
        egress: headwater_model::Bitrate(0),
    };
    state.handle_report(&node("a"), NodeLoad::default(), BTreeMap::from([(room(1), report)]));
    let planned = run(&state, &[], false);
    let [Action::WritePlan { plan, .. }] = &planned.actions[..] else {
        panic!("{planned:?}");
    };
    assert_eq!(*plan, plan_on("a", 1, 901));
}

#[test]
fn an_empty_room_ends() {
    let mut state = State::default();
    serve(&mut state, "a");
    state.set_spec(room(1), spec(), 1, 1);
    state.set_plan(room(1), plan_on("a", 0, 7), 1);
    let report = |seconds| RoomReport {
        uid: RoomUid::from_raw("RM_1"),
        epoch: Epoch(7),
        shard: ShardIndex(0),
        participants: 0,
        publishers: 0,
        empty_for: Duration::from_secs(seconds),
        ever_joined: true,
        egress: headwater_model::Bitrate(0),
    };
    let load = NodeLoad::default();
    state.handle_report(&node("a"), load, BTreeMap::from([(room(1), report(19))]));
    assert_eq!(run(&state, &[], false), Planned::default());
    state.handle_report(&node("a"), load, BTreeMap::from([(room(1), report(20))]));
    let end = Action::EndRoom { room: room(1), node: node("a") };
    assert_eq!(run(&state, &[], false).actions, [end]);
}

#[test]
fn rooms_of_a_dead_node_spread_over_the_others_in_bounded_steps() {
    let mut state = State::default();
    for name in ["a", "b", "c"] {
        serve(&mut state, name);
    }
    for number in 0..300 {
        state.set_spec(room(number), spec(), 1, 1);
        state.set_plan(room(number), plan_on("a", 0, 7), 1);
    }
    lose(&mut state, "a");
    let planned = run(&state, &["a"], false);
    assert_eq!((planned.actions.len(), planned.truncated), (ACTIONS_MAX, true));
    let to_b = planned
        .actions
        .iter()
        .filter(|action| {
            matches!(action, Action::WritePlan { plan, .. } if plan.shards[0].node == node("b"))
        })
        .count();
    assert!((120..=136).contains(&to_b), "{to_b} of 256 went to b");
}

#[test]
fn without_nodes_rooms_wait() {
    let mut state = State::default();
    state.set_spec(room(1), spec(), 1, 1);
    let planned = run(&state, &[], false);
    assert_eq!((planned.actions.len(), planned.unplaceable), (0, 1));
}

#[test]
fn a_draining_node_gives_its_rooms_away_as_many_as_are_allowed() {
    let mut state = State::default();
    for name in ["a", "b"] {
        serve(&mut state, name);
    }
    for number in 0..10 {
        state.set_spec(room(number), spec(), 1, 1);
        state.set_plan(room(number), plan_on("a", 0, 7), 1);
    }
    state.set_lifecycle(&node("a"), crate::node::Lifecycle::Drain);
    assert_eq!(run(&state, &[], false), Planned::default(), "not their turn");
    let (gone, moves) = (BTreeSet::new(), BTreeMap::from([(node("a"), 4)]));
    let allowed = PlanContext { moves: &moves, ..context(&gone, false, 50, 1) };
    let planned = plan(state.intended(), state.observed(), &allowed);
    assert_eq!(planned.actions.len(), 4);
    assert_eq!(planned.moved, BTreeMap::from([(node("a"), 4)]));
    assert!(planned.actions.iter().all(|action| matches!(
        action,
        Action::WritePlan { plan, cause: Cause::Drain, .. } if plan.shards[0].node == node("b")
    )));
    let frozen = PlanContext { frozen: true, ..allowed.clone() };
    assert_eq!(plan(state.intended(), state.observed(), &frozen).actions, []);
    lose(&mut state, "b");
    let alone = plan(state.intended(), state.observed(), &allowed);
    assert_eq!((alone.actions.len(), alone.stuck), (0, 10));
}

#[derive(Debug, Clone)]
enum Event {
    Create(u32),
    Delete(u32),
    NodeUp(u8),
    NodeDown(u8),
    Plan,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_u32..6).prop_map(Event::Create),
        (0_u32..6).prop_map(Event::Delete),
        (0_u8..3).prop_map(Event::NodeUp),
        (0_u8..3).prop_map(Event::NodeDown),
        Just(Event::Plan),
    ]
}

proptest! {
    /// Epochs of a name only rise, over plans, deletions and re-creations, and
    /// running the planner on its own result changes nothing.
    #[test]
    fn epochs_only_rise_and_planning_settles(
        events in prop::collection::vec(any_event(), 0..80), seed in any::<u64>(),
    ) {
        let mut state = State::default();
        let mut revision = 0;
        let mut highest: BTreeMap<RoomId, Epoch> = BTreeMap::new();
        for event in events.into_iter().chain([Event::Plan]) {
            revision += 1;
            match event {
                Event::Create(number) => state.set_spec(room(number), spec(), revision, revision),
                Event::Delete(number) => {
                    state.remove_spec(&room(number));
                    state.remove_plan(&room(number));
                }
                Event::NodeUp(number) => serve(&mut state, &format!("n{number}")),
                Event::NodeDown(number) => lose(&mut state, &format!("n{number}")),
                Event::Plan => {
                    let gone = state.intended().nodes_named();
                    let context = |revision| context(&gone, false, revision, seed);
                    let planned = plan(state.intended(), state.observed(), &context(revision));
                    for action in planned.actions {
                        let Action::WritePlan { room, plan, .. } = action else { continue };
                        // Writing a plan costs a revision, as it does in a registry.
                        revision += 1;
                        let before = highest.insert(room.clone(), plan.epoch);
                        prop_assert!(before.unwrap_or_default() < plan.epoch);
                        prop_assert!(plan.epoch.0 <= revision);
                        state.set_plan(room, plan, revision);
                    }
                    let again = plan(state.intended(), state.observed(), &context(revision));
                    prop_assert_eq!(again.actions, vec![]);
                    prop_assert_eq!(again.unplaceable, planned.unplaceable);
                }
            }
        }
    }
}
