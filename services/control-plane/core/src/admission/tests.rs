//! Every step of a join, and that the steps always end.

use headwater_model::ShardIndex;
use proptest::prelude::*;

use super::*;

fn node() -> NodeId {
    NodeId::new("a").unwrap()
}

fn carrier(standing: Standing) -> Carrier {
    Carrier {
        planned: ShardRef { node: node(), shard: ShardIndex(0) },
        standing,
        shard_exists: true,
        address_known: true,
        full: false,
    }
}

fn planned(standing: Standing) -> JoinFacts {
    JoinFacts {
        knowledge: Knowledge::Watched,
        room: Some(RoomFacts {
            epoch: Epoch(4),
            carrier: Some(carrier(standing)),
            shards: 1,
            max_participants: 0,
            participants: 0,
            crowded: false,
        }),
        may_create: false,
        resuming: false,
        failed: None,
        failed_answers: None,
        seats: None,
        seats_asked: false,
        growth_tried: false,
        frozen: false,
    }
}

fn room(facts: &mut JoinFacts) -> &mut RoomFacts {
    facts.room.as_mut().unwrap()
}

fn blame(facts: &mut JoinFacts, epoch: u64) {
    facts.failed = Some(FailedNode { node: node(), epoch: Epoch(epoch) });
}

const ADMITTED: Decision = Decision::Answer(Admission::Admitted);
const AWAY: Decision = Decision::Answer(Admission::Wait(WaitReason::RegistryUnreachable));

fn replan() -> Decision {
    Decision::WritePlan { replaces: Epoch(4), without: Some(node()) }
}

#[test]
fn a_join_to_a_planned_room_needs_no_registry() {
    for standing in [
        Standing::Serving,
        Standing::Cordoned,
        Standing::Draining,
        Standing::Unreachable,
        Standing::Unregistered,
    ] {
        for knowledge in [Knowledge::Watched, Knowledge::Read, Knowledge::Unreachable] {
            assert_eq!(decide(&JoinFacts { knowledge, ..planned(standing) }), ADMITTED);
        }
    }
}

#[test]
fn an_unknown_room_is_looked_for_before_it_is_created_or_refused() {
    let mut facts = JoinFacts { room: None, ..planned(Standing::Serving) };
    assert_eq!(decide(&facts), Decision::ReadRoom);
    facts.knowledge = Knowledge::Read;
    assert_eq!(decide(&facts), Decision::Answer(Admission::RoomNotFound));
    facts.may_create = true;
    assert_eq!(decide(&facts), Decision::CreateRoom);
    facts.knowledge = Knowledge::Unreachable;
    assert_eq!(decide(&facts), AWAY);
}

#[test]
fn a_room_without_a_plan_gets_one() {
    let mut facts = planned(Standing::Serving);
    room(&mut facts).carrier = None;
    assert_eq!(decide(&facts), Decision::ReadRoom);
    facts.knowledge = Knowledge::Read;
    assert_eq!(decide(&facts), Decision::WritePlan { replaces: Epoch(4), without: None });
}

#[test]
fn a_failed_node_is_asked_before_the_room_moves() {
    let mut facts = planned(Standing::Serving);
    blame(&mut facts, 4);
    assert_eq!(decide(&facts), Decision::ReadRoom);
    facts.knowledge = Knowledge::Read;
    assert_eq!(decide(&facts), Decision::ProbeNode(node()));
    facts.failed_answers = Some(true);
    assert_eq!(decide(&facts), ADMITTED);
    facts.failed_answers = Some(false);
    assert_eq!(decide(&facts), replan());
}

#[test]
fn a_plan_made_after_the_failure_is_trusted_but_not_a_tree_that_only_grew() {
    let mut facts = planned(Standing::Serving);
    blame(&mut facts, 3);
    assert_eq!(decide(&facts), ADMITTED, "it chose the node again");
    room(&mut facts).shards = 3;
    assert_eq!(decide(&facts), Decision::ReadRoom);
    facts.knowledge = Knowledge::Read;
    assert_eq!(decide(&facts), Decision::ProbeNode(node()));
    facts.failed_answers = Some(true);
    assert_eq!(decide(&facts), ADMITTED);
    facts.failed_answers = Some(false);
    assert_eq!(decide(&facts), replan());
}

#[test]
fn a_failed_node_moves_the_room_even_while_the_breaker_is_open() {
    let mut facts = planned(Standing::Gone);
    blame(&mut facts, 4);
    facts.frozen = true;
    facts.knowledge = Knowledge::Read;
    facts.failed_answers = Some(false);
    assert_eq!(decide(&facts), replan());
}

#[test]
fn a_stale_complaint_gets_the_newer_plan() {
    let mut facts = planned(Standing::Serving);
    blame(&mut facts, 3);
    assert_eq!(decide(&facts), ADMITTED);
}

#[test]
fn a_complaint_about_another_node_gets_the_present_plan() {
    let mut facts = planned(Standing::Serving);
    facts.failed = Some(FailedNode { node: NodeId::new("b").unwrap(), epoch: Epoch(4) });
    assert_eq!(decide(&facts), ADMITTED);
}

#[test]
fn a_gone_node_is_replaced_but_trusted_while_the_breaker_is_open() {
    let mut facts = JoinFacts { knowledge: Knowledge::Read, ..planned(Standing::Gone) };
    assert_eq!(decide(&facts), replan());
    facts.frozen = true;
    assert_eq!(decide(&facts), ADMITTED);
    if let Some(carrier) = &mut room(&mut facts).carrier {
        carrier.address_known = false;
    }
    assert_eq!(decide(&facts), replan());
}

#[test]
fn a_dead_node_while_the_registry_is_away_means_waiting() {
    let mut facts = JoinFacts { knowledge: Knowledge::Unreachable, ..planned(Standing::Gone) };
    assert_eq!(decide(&facts), AWAY);
    facts = JoinFacts { knowledge: Knowledge::Unreachable, ..planned(Standing::Serving) };
    blame(&mut facts, 4);
    facts.failed_answers = Some(false);
    assert_eq!(decide(&facts), AWAY);
}

#[test]
fn a_full_room_refuses_newcomers_but_not_those_who_come_back() {
    let mut facts = planned(Standing::Serving);
    room(&mut facts).max_participants = 1000;
    room(&mut facts).participants = 1000;
    assert_eq!(decide(&facts), Decision::Answer(Admission::RoomFull));
    facts.resuming = true;
    assert_eq!(decide(&facts), ADMITTED);
}

#[test]
fn a_small_full_room_is_counted_before_anybody_is_refused() {
    let mut facts = planned(Standing::Serving);
    room(&mut facts).max_participants = 2;
    room(&mut facts).participants = 2;
    assert_eq!(decide(&facts), Decision::CountSeats(node()));
    facts.seats_asked = true;
    assert_eq!(decide(&facts), Decision::Answer(Admission::RoomFull));
    facts.seats = Some(SeatCount { participants: 2, is_inside: false });
    assert_eq!(decide(&facts), Decision::Answer(Admission::RoomFull));
    facts.seats = Some(SeatCount { participants: 2, is_inside: true });
    assert_eq!(decide(&facts), ADMITTED);
    facts.seats = Some(SeatCount { participants: 1, is_inside: false });
    assert_eq!(decide(&facts), ADMITTED);
}

#[test]
fn a_full_node_makes_newcomers_wait() {
    let mut facts = planned(Standing::Serving);
    if let Some(carrier) = &mut room(&mut facts).carrier {
        carrier.full = true;
    }
    assert_eq!(decide(&facts), Decision::Answer(Admission::Wait(WaitReason::NodeFull)));
    facts.resuming = true;
    assert_eq!(decide(&facts), ADMITTED);
}

#[test]
fn a_crowded_room_grows_once_before_more_are_admitted() {
    let mut facts = planned(Standing::Serving);
    room(&mut facts).crowded = true;
    assert_eq!(decide(&facts), Decision::GrowPlan);
    facts.growth_tried = true;
    assert_eq!(decide(&facts), ADMITTED);
}

#[test]
fn a_crowded_room_admits_while_the_registry_is_away_and_those_who_come_back() {
    let mut facts = planned(Standing::Serving);
    room(&mut facts).crowded = true;
    facts.resuming = true;
    assert_eq!(decide(&facts), ADMITTED);
    (facts.resuming, facts.knowledge) = (false, Knowledge::Unreachable);
    assert_eq!(decide(&facts), ADMITTED);
}

fn any_facts() -> impl Strategy<Value = JoinFacts> {
    let standing = prop_oneof![Just(Standing::Serving), Just(Standing::Gone)];
    let carrying = prop::option::of((standing, any::<[bool; 3]>()));
    let room = (0_u64..4, carrying, 0_u32..3, 0_u32..4, any::<bool>()).prop_map(
        |(epoch, carrying, max_participants, participants, crowded)| RoomFacts {
            crowded,
            shards: 1,
            epoch: Epoch(epoch),
            carrier: carrying.map(|(standing, [shard_exists, address_known, full])| Carrier {
                shard_exists,
                address_known,
                full,
                ..carrier(standing)
            }),
            max_participants,
            participants,
        },
    );
    (prop::option::of(room), any::<[bool; 3]>(), prop::option::of(0_u64..4)).prop_map(
        |(room, [may_create, resuming, frozen], failed)| JoinFacts {
            room,
            may_create,
            resuming,
            frozen,
            failed: failed.map(|epoch| FailedNode { node: node(), epoch: Epoch(epoch) }),
            ..planned(Standing::Serving)
        },
    )
}

proptest! {
    /// Whatever the facts and whatever the answers to its questions, a join ends
    /// after few steps, and never writes from what it has only watched.
    #[test]
    fn every_join_ends(
        mut facts in any_facts(),
        reachable in any::<bool>(),
        answers in any::<bool>(),
        seats in prop::option::of((0_u32..4, any::<bool>())),
    ) {
        for _ in 0..8 {
            match decide(&facts) {
                Decision::Answer(_) => return Ok(()),
                Decision::ReadRoom => {
                    prop_assert_eq!(facts.knowledge, Knowledge::Watched);
                    facts.knowledge =
                        if reachable { Knowledge::Read } else { Knowledge::Unreachable };
                }
                Decision::CreateRoom => {
                    prop_assert!(facts.may_create && facts.knowledge == Knowledge::Read);
                    facts.room = planned(Standing::Serving).room;
                }
                Decision::WritePlan { replaces, .. } => {
                    prop_assert_eq!(facts.knowledge, Knowledge::Read);
                    let known = room(&mut facts);
                    prop_assert_eq!(known.epoch, replaces);
                    known.epoch = Epoch(replaces.0 + 1);
                    let mut other = carrier(Standing::Serving);
                    other.planned.node = NodeId::new("b").unwrap();
                    known.carrier = Some(other);
                }
                Decision::GrowPlan => {
                    prop_assert!(!facts.growth_tried && !facts.resuming);
                    facts.growth_tried = true;
                }
                Decision::ProbeNode(_) => {
                    prop_assert_eq!(facts.failed_answers, None);
                    facts.failed_answers = Some(answers);
                }
                Decision::CountSeats(_) => {
                    prop_assert!(!facts.seats_asked);
                    facts.seats_asked = true;
                    facts.seats = seats
                        .map(|(participants, is_inside)| SeatCount { participants, is_inside });
                }
            }
        }
        prop_assert!(false, "no answer after eight steps");
    }
}
