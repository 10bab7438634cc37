//! Places for participants: where they go, and when they do not.

use futures::future::join_all;
use headwater_proto::control::v1::{Admission, PlaceParticipantRequest};
use headwater_proto::node::v1::CloseReason;
use headwater_proto::v1::{CreateRoomRequest, Room};
use tonic::Code;

use crate::support::bench::place_request;
use crate::support::node::Memory;
use crate::support::{Bench, TestNode, eventually, fields};

fn blame(room: &str, node: &str, epoch: u64) -> PlaceParticipantRequest {
    PlaceParticipantRequest {
        failed_node_id: node.to_owned(),
        failed_epoch: epoch,
        resuming: true,
        ..place_request(room)
    }
}

#[tokio::test]
async fn a_join_makes_the_room_if_it_may_and_finds_its_node_told() {
    let bench = Bench::start(1, &["a"]).await;
    let may_not = PlaceParticipantRequest { may_create: false, ..place_request("plaza") };
    let refused = bench.place_as(0, may_not.clone()).await;
    assert_eq!(refused.admission(), Admission::RoomNotFound);
    assert!(!refused.reason.is_empty() && refused.room.is_none());

    let place = bench.place(0, "plaza").await;
    assert_eq!(place.admission(), Admission::Admitted);
    assert_eq!(place.node_id, "a");
    assert_eq!(place.node_url, format!("http://{}", bench.node("a").address));
    let room = place.room.unwrap();
    assert_eq!(room.plan.unwrap().epoch, place.epoch);
    eventually("the node is told", || async {
        bench.node("a").epoch_of("plaza") == Some(place.epoch)
    })
    .await;
    assert_eq!(bench.place_as(0, may_not).await.admission(), Admission::Admitted);
}

#[tokio::test]
async fn joins_to_one_new_room_at_two_replicas_agree() {
    let bench = Bench::start(2, &["a", "b", "c"]).await;
    for round in 0..5 {
        let room = format!("r{round}");
        let places = join_all((0..10).map(|call| bench.place(call % 2, &room))).await;
        let first = &places[0];
        for place in &places {
            assert_eq!(place.admission(), Admission::Admitted);
            assert_eq!(
                (&place.node_id, place.shard, place.epoch),
                (&first.node_id, first.shard, first.epoch)
            );
        }
    }
}

#[tokio::test]
async fn twenty_rooms_spread_over_two_nodes() {
    let bench = Bench::start(2, &["a", "b"]).await;
    let rooms: Vec<_> = (0..20).map(|number| format!("r{number}")).collect();
    let places =
        join_all(rooms.iter().enumerate().map(|(call, room)| bench.place(call % 2, room))).await;
    let on_a = places.iter().filter(|place| place.node_id == "a").count();
    assert!(places.iter().all(|place| place.admission() == Admission::Admitted));
    // The most on one node is at most 1.3 times the mean of 10.
    assert!((7..=13).contains(&on_a), "{on_a} of 20 on one node");
    let shards = places.iter().filter(|place| place.shard == 0).count();
    assert!((7..=13).contains(&shards), "{shards} of 20 on the first shards");
}

#[tokio::test]
async fn a_busy_node_gets_no_new_rooms_while_another_is_free() {
    let bench = Bench::start(1, &["a", "b"]).await;
    bench.node("a").memory().busiest_shard = 0.8;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    for number in 0..10 {
        assert_eq!(bench.place(0, &format!("r{number}")).await.node_id, "b");
    }
}

#[tokio::test]
async fn a_room_on_a_dead_node_moves_at_a_higher_epoch_when_its_gateway_says_so() {
    let bench = Bench::start(2, &["a", "b"]).await;
    let place = bench.place(0, "plaza").await;
    bench.node(&place.node_id).kill();
    let started = std::time::Instant::now();
    let moved = bench.place_as(1, blame("plaza", &place.node_id, place.epoch)).await;
    assert!(started.elapsed() < std::time::Duration::from_millis(1500));
    assert_eq!(moved.admission(), Admission::Admitted, "{moved:?}");
    assert_ne!(moved.node_id, place.node_id);
    assert_eq!(moved.epoch, place.epoch + 1);
    eventually("the other node is told", || async {
        bench.node(&moved.node_id).epoch_of("plaza") == Some(moved.epoch)
    })
    .await;
    // Everybody else who was there comes with the same complaint.
    let others = join_all(
        (0..10).map(|call| bench.place_as(call % 2, blame("plaza", &place.node_id, place.epoch))),
    );
    for other in others.await {
        assert_eq!((&other.node_id, other.epoch), (&moved.node_id, moved.epoch));
    }
}

#[tokio::test]
async fn complaints_of_many_at_once_move_a_room_once() {
    let bench = Bench::start(2, &["a", "b", "c"]).await;
    let place = bench.place(0, "plaza").await;
    bench.node(&place.node_id).kill();
    let moves = join_all(
        (0..20).map(|call| bench.place_as(call % 2, blame("plaza", &place.node_id, place.epoch))),
    );
    for moved in moves.await {
        assert_eq!((moved.admission(), moved.epoch), (Admission::Admitted, place.epoch + 1));
    }
}

#[tokio::test]
async fn a_node_that_answers_keeps_its_room_whatever_a_gateway_says() {
    let bench = Bench::start(2, &["a", "b"]).await;
    let place = bench.place(0, "plaza").await;
    for replica in 0..2 {
        let again = bench.place_as(replica, blame("plaza", &place.node_id, place.epoch)).await;
        assert_eq!((again.node_id, again.epoch), (place.node_id.clone(), place.epoch));
    }
}

#[tokio::test]
async fn a_dead_node_without_another_means_waiting() {
    let bench = Bench::start(1, &["a"]).await;
    let place = bench.place(0, "plaza").await;
    bench.node("a").kill();
    let moved = bench.place_as(0, blame("plaza", "a", place.epoch)).await;
    assert_eq!(moved.admission(), Admission::Wait);
    assert!(moved.retry_after.is_some() && !moved.reason.is_empty());
}

#[tokio::test]
async fn without_any_node_a_join_waits_and_is_placed_once_there_is_one() {
    let mut bench = Bench::start(1, &[]).await;
    assert_eq!(bench.place(0, "plaza").await.admission(), Admission::Wait);
    let node = TestNode::start("a", &bench.credential, &*bench.store).await;
    bench.nodes.push(node);
    eventually("it is placed", || async {
        bench.place(0, "plaza").await.admission() == Admission::Admitted
    })
    .await;
}

#[tokio::test]
async fn a_node_that_comes_back_with_a_moved_room_lets_go_of_it() {
    let mut bench = Bench::start(2, &["a", "b"]).await;
    let place = bench.place(0, "plaza").await;
    let failed = bench.node(&place.node_id);
    let carried = failed.memory().rooms["plaza"].clone();
    failed.kill();
    let moved = bench.place_as(0, blame("plaza", &place.node_id, place.epoch)).await;
    assert_ne!(moved.node_id, place.node_id);

    // It was only out of sight, and still has the room.
    let memory = Memory { rooms: [("plaza".to_owned(), carried)].into(), ..Memory::default() };
    let back = TestNode::start_with(&place.node_id, &bench.credential, &*bench.store, memory).await;
    eventually("it lets go", || async { !back.carries("plaza") }).await;
    let release = back.memory().released[0].clone();
    assert_eq!((release.reason(), release.epoch), (CloseReason::PlanStale, moved.epoch));
    bench.nodes.retain(|node| node.id != back.id);
    bench.nodes.push(back);
    assert_eq!(bench.place(1, "plaza").await.node_id, moved.node_id);
}

#[tokio::test]
async fn a_full_room_refuses_newcomers_and_takes_back_its_own() {
    let bench = Bench::start(1, &["a"]).await;
    let request = CreateRoomRequest {
        room_id: "plaza".into(),
        room: Some(Room { max_participants: 2, ..Room::default() }),
        ..Default::default()
    };
    bench.create_as(0, request).await.unwrap();
    eventually("the node is told", || async { bench.node("a").carries("plaza") }).await;
    bench.node("a").join("plaza", "bob", &["TR_1"]);
    bench.node("a").join("plaza", "eve", &[]);
    eventually("it is reported", || async {
        let room = bench.get(0, "plaza").await.unwrap();
        (room.participant_count, room.publisher_count) == (2, 1)
    })
    .await;
    assert_eq!(bench.place(0, "plaza").await.admission(), Admission::RoomFull);
    let inside = PlaceParticipantRequest { identity: "bob".into(), ..place_request("plaza") };
    assert_eq!(bench.place_as(0, inside).await.admission(), Admission::Admitted);
    let resuming = PlaceParticipantRequest { resuming: true, ..place_request("plaza") };
    assert_eq!(bench.place_as(0, resuming).await.admission(), Admission::Admitted);
    // What a report still counts may be gone by now.
    bench.node("a").memory().rooms.get_mut("plaza").unwrap().participants.pop();
    assert_eq!(bench.place(0, "plaza").await.admission(), Admission::Admitted);
}

#[tokio::test]
async fn a_join_that_cannot_be_is_refused_with_its_field() {
    let bench = Bench::start(1, &[]).await;
    let cases = [
        ("room_id", PlaceParticipantRequest { room_id: "a/b".into(), ..place_request("x") }),
        ("identity", PlaceParticipantRequest { identity: String::new(), ..place_request("x") }),
        (
            "failed_node_id",
            PlaceParticipantRequest { failed_node_id: "a/b".into(), ..place_request("x") },
        ),
    ];
    for (field, request) in cases {
        let mut placement = bench.replicas[0].placement.clone();
        let refused = placement.place_participant(request).await.unwrap_err();
        assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec![field.into()]));
    }
}
