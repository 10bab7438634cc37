//! The orders of an agent stream, case by case, and that they converge.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::node::{AgentState, NodeLoad};
use crate::room::{DEPARTURE_TIMEOUT, EMPTY_TIMEOUT, Plan, PlannedShard};
use crate::state::{NodeFacts, State};

#[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
fn origin() -> Instant {
    Instant::now()
}

fn room(name: &str) -> RoomId {
    RoomId::new(name).unwrap()
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

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

fn plan_on(uid: &str, name: &str, epoch: u64) -> Plan {
    let shard = PlannedShard::home(node(name), ShardIndex(0));
    Plan { room_uid: RoomUid::from_raw(uid), epoch: Epoch(epoch), shards: vec![shard] }
}

fn report(uid: &str, epoch: u64, participants: u32) -> RoomReport {
    RoomReport {
        uid: RoomUid::from_raw(uid),
        epoch: Epoch(epoch),
        shard: ShardIndex(0),
        participants,
        publishers: 0,
        empty_for: if participants > 0 { Duration::ZERO } else { Duration::from_secs(1) },
        ever_joined: true,
        egress: headwater_model::Bitrate(0),
    }
}

/// A replica's state with nodes `a` and `b`, and one ledger for node `a`.
struct Bench {
    state: State,
    ledger: AgentLedger,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let mut state = State::default();
        for name in ["a", "b"] {
            state.set_node(node(name), NodeFacts { shards: 1, ..NodeFacts::default() });
            state.set_agent(&node(name), AgentState::Connected);
        }
        Self { state, ledger: AgentLedger::default(), now: origin() }
    }

    fn with_room(mut self, uid: &str, on: &str, epoch: u64) -> Self {
        self.state.set_spec(room("r"), spec(uid), epoch, epoch);
        self.state.set_plan(room("r"), plan_on(uid, on, epoch), epoch);
        self
    }

    fn reports(&mut self, reports: impl IntoIterator<Item = RoomReport>) {
        let reports = reports.into_iter().map(|report| (room("r"), report));
        self.state.handle_report(&node("a"), NodeLoad::default(), reports);
        self.ledger.handle_report(self.now);
    }

    fn orders(&mut self) -> Vec<Order> {
        let view = &self.state.observed().nodes[&node("a")];
        self.ledger.orders(self.now, &node("a"), self.state.intended(), view)
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

fn assign() -> Order {
    Order::Assign { room: room("r"), shard: ShardIndex(0) }
}

fn release(epoch: u64, reason: ReleaseReason) -> Order {
    Order::Release { room: room("r"), shard: None, epoch: Epoch(epoch), reason }
}

#[test]
fn a_room_is_told_once_and_again_when_it_changes() {
    let mut bench = Bench::new().with_room("RM_1", "a", 4);
    assert_eq!(bench.orders(), [assign()]);
    assert_eq!(bench.orders(), []);
    bench.state.set_spec(room("r"), spec("RM_1"), 4, 5);
    assert_eq!(bench.orders(), [assign()]);
    bench.state.set_plan(room("r"), plan_on("RM_1", "a", 5), 6);
    assert_eq!(bench.orders(), [assign()]);
    assert_eq!(bench.ledger.told_epoch(&room("r"), ShardIndex(0)), Some(Epoch(5)));
}

#[test]
fn a_new_stream_gets_the_full_set_even_if_the_node_has_it() {
    let mut bench = Bench::new().with_room("RM_1", "a", 4);
    bench.reports([report("RM_1", 4, 2)]);
    assert_eq!(bench.orders(), [assign()]);
}

#[test]
fn a_room_that_the_node_lost_is_told_again() {
    let mut bench = Bench::new().with_room("RM_1", "a", 4);
    assert_eq!(bench.orders(), [assign()]);
    bench.pass(3);
    assert_eq!(bench.orders(), [], "nothing was reported since");
    bench.reports([]);
    assert_eq!(bench.orders(), [assign()]);
    bench.pass(1);
    bench.reports([report("RM_1", 4, 0)]);
    bench.pass(5);
    assert_eq!(bench.orders(), []);
}

#[test]
fn a_deleted_room_is_released_as_deleted() {
    let mut bench = Bench::new().with_room("RM_1", "a", 4);
    bench.orders();
    bench.reports([report("RM_1", 4, 2)]);
    bench.state.remove_spec(&room("r"));
    assert_eq!(bench.orders(), [release(4, ReleaseReason::Deleted)]);
}

#[test]
fn a_room_that_stood_empty_is_released_as_closed() {
    let mut bench = Bench::new().with_room("RM_1", "a", 4);
    bench.orders();
    bench.reports([RoomReport { empty_for: DEPARTURE_TIMEOUT, ..report("RM_1", 4, 0) }]);
    bench.state.remove_spec(&room("r"));
    assert_eq!(bench.orders(), [release(4, ReleaseReason::Closed)]);
}

#[test]
fn a_moved_room_is_released_with_the_epoch_of_the_new_plan() {
    let mut bench = Bench::new().with_room("RM_1", "a", 4);
    bench.orders();
    bench.state.set_plan(room("r"), plan_on("RM_1", "b", 5), 6);
    assert_eq!(bench.orders(), [release(5, ReleaseReason::PlanStale)]);
}

#[test]
fn a_node_that_comes_back_with_a_moved_room_lets_go_of_it() {
    let mut bench = Bench::new().with_room("RM_1", "b", 5);
    bench.reports([report("RM_1", 4, 3)]);
    assert_eq!(bench.orders(), [release(5, ReleaseReason::PlanStale)]);
    assert_eq!(bench.orders(), [], "it is on its way");
    bench.pass(3);
    assert_eq!(bench.orders(), [release(5, ReleaseReason::PlanStale)]);
    bench.reports([]);
    assert_eq!(bench.orders(), []);
}

#[test]
fn a_room_recreated_under_its_name_ends_the_old_one_first() {
    let mut bench = Bench::new().with_room("RM_1", "a", 4);
    bench.orders();
    bench.state.remove_spec(&room("r"));
    bench.state.remove_plan(&room("r"));
    let mut bench = bench.with_room("RM_2", "a", 9);
    assert_eq!(bench.orders(), [release(4, ReleaseReason::Deleted), assign()]);
}

#[test]
fn an_old_incarnation_found_on_a_new_stream_ends_first() {
    let mut bench = Bench::new().with_room("RM_2", "a", 9);
    bench.reports([report("RM_1", 4, 3)]);
    assert_eq!(bench.orders(), [release(4, ReleaseReason::Deleted), assign()]);
}

#[test]
fn a_room_the_registry_may_not_have_is_verified_and_not_released() {
    let mut bench = Bench::new();
    bench.reports([report("RM_1", 4, 3)]);
    assert_eq!(bench.orders(), [], "the watch may only be late");
    bench.pass(2);
    let verify = Order::Verify {
        room: room("r"),
        shard: ShardIndex(0),
        uid: RoomUid::from_raw("RM_1"),
        epoch: Epoch(4),
        reason: ReleaseReason::Deleted,
    };
    assert_eq!(bench.orders(), [verify]);
}

#[test]
fn a_higher_epoch_than_ours_is_never_released_unread() {
    let mut bench = Bench::new().with_room("RM_1", "b", 5);
    bench.reports([report("RM_1", 6, 3)]);
    bench.pass(2);
    bench.orders();
    bench.pass(2);
    assert!(matches!(bench.orders()[..], [Order::Verify { .. }]));
}

/// A node that does what nodes do with orders.
#[derive(Default)]
struct Carried(BTreeMap<RoomId, RoomReport>);

impl Carried {
    fn obey(&mut self, order: &Order, state: &State) {
        match order {
            Order::Assign { room: id, .. } => {
                let intended = &state.intended().rooms()[id];
                if self.0.get(id).is_none_or(|known| known.epoch <= intended.epoch()) {
                    let fresh = RoomReport {
                        uid: intended.spec.uid.clone(),
                        ..report("", intended.epoch().0, 0)
                    };
                    self.0.insert(id.clone(), fresh);
                }
            }
            Order::Release { room: id, epoch, .. } => {
                if self.0.get(id).is_some_and(|known| known.epoch <= *epoch) {
                    self.0.remove(id);
                }
            }
            Order::Verify { room: id, epoch, reason, .. } => {
                if !state.intended().rooms().contains_key(id) {
                    let (room, epoch, reason) = (id.clone(), *epoch, *reason);
                    self.obey(&Order::Release { room, shard: None, epoch, reason }, state);
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Event {
    Create(u8, bool),
    Move(u8, bool),
    Delete(u8),
    Forget(u8),
    Reconnect,
    Deliver,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_u8..4, any::<bool>()).prop_map(|(r, here)| Event::Create(r, here)),
        (0_u8..4, any::<bool>()).prop_map(|(r, here)| Event::Move(r, here)),
        (0_u8..4).prop_map(Event::Delete),
        (0_u8..4).prop_map(Event::Forget),
        Just(Event::Reconnect),
        Just(Event::Deliver),
    ]
}

fn happen(bench: &mut Bench, carried: &mut Carried, revision: u64, event: &Event) {
    let id = |number: &u8| room(&format!("r{number}"));
    let on = |here: &bool| if *here { "a" } else { "b" };
    match event {
        Event::Create(r, here) if !bench.state.intended().rooms().contains_key(&id(r)) => {
            let uid = format!("RM_{revision}");
            bench.state.set_spec(id(r), spec(&uid), revision, revision);
            let plan = plan_on(&uid, on(here), revision);
            bench.state.set_plan(id(r), plan, revision);
        }
        Event::Move(r, here) => {
            if let Some(known) = bench.state.intended().rooms().get(&id(r)) {
                let plan = plan_on(known.spec.uid.as_str(), on(here), known.epoch().0 + 1);
                bench.state.set_plan(id(r), plan, revision);
            }
        }
        Event::Delete(r) => {
            bench.state.remove_spec(&id(r));
            bench.state.remove_plan(&id(r));
        }
        Event::Forget(r) => {
            carried.0.remove(&id(r));
        }
        Event::Reconnect => bench.ledger = AgentLedger::default(),
        Event::Create(..) | Event::Deliver => deliver(bench, carried),
    }
}

fn deliver(bench: &mut Bench, carried: &mut Carried) {
    let (state, now) = (&mut bench.state, bench.now);
    state.handle_report(&node("a"), NodeLoad::default(), carried.0.clone());
    bench.ledger.handle_report(now);
    for order in bench.orders() {
        carried.obey(&order, &bench.state);
    }
}

proptest! {
    /// Whatever happened, once things are quiet the node carries exactly the
    /// rooms whose plan names it, at their epoch and incarnation.
    #[test]
    fn a_node_converges_to_what_is_intended(events in prop::collection::vec(any_event(), 0..60)) {
        let mut bench = Bench::new();
        let mut carried = Carried::default();
        for (step, event) in events.iter().enumerate() {
            bench.pass(1);
            happen(&mut bench, &mut carried, u64::try_from(step).unwrap() * 100 + 1, event);
        }
        for _ in 0..8 {
            bench.pass(1);
            deliver(&mut bench, &mut carried);
        }
        let intended: Vec<_> = bench
            .state
            .intended()
            .rooms_of(&node("a"))
            .map(|(id, room)| (id.clone(), room.spec.uid.clone(), room.epoch()))
            .collect();
        let carried: Vec<_> =
            carried.0.iter().map(|(id, report)| (id.clone(), report.uid.clone(), report.epoch)).collect();
        prop_assert_eq!(carried, intended);
        prop_assert_eq!(bench.orders(), vec![]);
    }
}
