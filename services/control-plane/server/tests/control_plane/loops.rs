//! What happens without anybody asking: dead nodes, empty rooms, new replicas.

use std::time::Duration;

use headwater_control_plane::Config;
use headwater_model::{NodeId, RoomId};
use headwater_proto::node::v1::CloseReason;
use headwater_proto::v1::{CreateRoomRequest, Room};
use headwater_registry::record::{Lifecycle, LifecycleRecord, Record as _};
use headwater_registry::{Operation, Store as _, Transaction, schema};

use crate::support::bench::place_request;
use crate::support::{Bench, TestNode, eventually};

#[tokio::test]
async fn rooms_of_a_node_without_lease_and_stream_move_by_themselves() {
    let bench = Bench::start(2, &["a", "b"]).await;
    for number in 0..6 {
        bench.create(number % 2, &format!("r{number}")).await.unwrap();
    }
    let epoch = bench.get(0, "r0").await.unwrap().plan.unwrap().epoch;
    let node = bench.node("a");
    node.kill();
    node.unregister(&*bench.store).await;
    for number in 0..6 {
        let name = format!("r{number}");
        eventually("every room is on the other node", || async {
            bench.get(0, &name).await.unwrap().plan.unwrap().shards[0].node == "nodes/b"
        })
        .await;
        eventually("the other node knows", || async { bench.node("b").carries(&name) }).await;
    }
    assert!(bench.get(0, "r0").await.unwrap().plan.unwrap().epoch >= epoch);
}

#[tokio::test]
async fn a_node_that_lost_only_its_lease_keeps_its_rooms() {
    let bench = Bench::start(2, &["a", "b"]).await;
    let place = bench.place(0, "plaza").await;
    bench.node(&place.node_id).unregister(&*bench.store).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let again = bench.place(1, "plaza").await;
    assert_eq!((again.node_id, again.epoch), (place.node_id.clone(), place.epoch));
    assert!(bench.node(&place.node_id).memory().released.is_empty());
    // It gets no new rooms, though.
    for number in 0..5 {
        assert_ne!(bench.place(0, &format!("r{number}")).await.node_id, place.node_id);
    }
}

#[tokio::test]
async fn a_room_ends_after_everybody_left_and_not_before() {
    let bench = Bench::start(2, &["a"]).await;
    let request = CreateRoomRequest {
        room_id: "plaza".into(),
        room: Some(Room {
            departure_timeout: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..Room::default()
        }),
        ..Default::default()
    };
    bench.create_as(0, request).await.unwrap();
    eventually("the node is told", || async { bench.node("a").carries("plaza") }).await;
    bench.node("a").join("plaza", "ada", &[]);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(bench.get(0, "plaza").await.is_ok());
    bench.node("a").empty("plaza");
    eventually("the room is gone", || async { bench.get(0, "plaza").await.is_err() }).await;
    eventually("the node lets go", || async { !bench.node("a").carries("plaza") }).await;
    assert_eq!(bench.node("a").memory().released[0].reason(), CloseReason::RoomClosed);
}

#[tokio::test]
async fn a_room_somebody_is_on_the_way_to_does_not_end() {
    let bench = Bench::start(1, &["a"]).await;
    let request = CreateRoomRequest {
        room_id: "plaza".into(),
        room: Some(Room {
            empty_timeout: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..Room::default()
        }),
        ..Default::default()
    };
    bench.create_as(0, request).await.unwrap();
    bench.place(0, "plaza").await;
    tokio::time::sleep(Duration::from_millis(3000)).await;
    assert!(bench.get(0, "plaza").await.is_ok(), "it was ended under a join");
    eventually("nobody came, so it ends", || async { bench.get(0, "plaza").await.is_err() }).await;
}

#[tokio::test]
async fn a_room_made_without_nodes_is_planned_when_one_comes() {
    let mut bench = Bench::start(1, &[]).await;
    assert_eq!(bench.create(0, "plaza").await.unwrap().plan, None);
    let node = TestNode::start("a", &bench.credential, &*bench.store).await;
    bench.nodes.push(node);
    eventually("it is carried", || async { bench.node("a").carries("plaza") }).await;
    assert!(bench.get(0, "plaza").await.unwrap().plan.is_some());
}

#[tokio::test]
async fn a_new_replica_learns_all_and_tells_nodes_the_full_set() {
    let mut bench = Bench::start(1, &["a"]).await;
    bench.create(0, "plaza").await.unwrap();
    bench.create(0, "market").await.unwrap();
    eventually("the node is told", || async { bench.node("a").carries("market") }).await;
    bench.replicas.remove(0).stop.cancel();
    bench.node("a").memory().assigned.clear();
    bench.add_replica(Config::default()).await;
    eventually("the node is told again", || async {
        let memory = bench.node("a").memory();
        let mut rooms: Vec<_> = memory.assigned.iter().map(|it| it.room_id.as_str()).collect();
        rooms.sort_unstable();
        rooms == ["market", "plaza"]
    })
    .await;
    assert!(bench.node("a").memory().released.is_empty());
}

#[tokio::test]
async fn another_replica_takes_the_loops_over() {
    let mut bench = Bench::start(2, &["a", "b"]).await;
    eventually("one is elected", || async { elected(&bench) == 1 }).await;
    let leader = bench
        .replicas
        .iter()
        .position(|replica| replica.metrics.control_plane().elected.get() == 1)
        .unwrap();
    let replica = bench.replicas.remove(leader);
    replica.stop.cancel();
    replica.running.join().await.unwrap();
    eventually("the other is elected", || async { elected(&bench) == 1 }).await;
    let place = bench.place(0, "plaza").await;
    let node = bench.node(&place.node_id);
    node.kill();
    node.unregister(&*bench.store).await;
    eventually("the room moves", || async {
        let plan = bench.get(0, "plaza").await.unwrap().plan.unwrap();
        plan.shards[0].node != format!("nodes/{}", place.node_id)
    })
    .await;
}

fn elected(bench: &Bench) -> i64 {
    bench.replicas.iter().map(|replica| replica.metrics.control_plane().elected.get()).sum()
}

#[tokio::test]
async fn a_room_the_registry_does_not_know_is_let_go_of() {
    let bench = Bench::start(1, &["a"]).await;
    bench.create(0, "plaza").await.unwrap();
    eventually("the node is told", || async { bench.node("a").carries("plaza") }).await;
    // As a join does that was under way when the room ended.
    let mut ghost = bench.node("a").memory().rooms["plaza"].clone();
    ghost.room.uid = "RM_ghost".into();
    bench.node("a").memory().rooms.insert("ghost".into(), ghost);
    eventually("the node lets go", || async { !bench.node("a").carries("ghost") }).await;
    assert!(bench.node("a").carries("plaza"));
}

#[tokio::test]
async fn a_cordoned_node_keeps_its_rooms_and_gets_no_new_ones() {
    let bench = Bench::start(2, &["a", "b"]).await;
    let node_id = NodeId::new("a").unwrap();
    let record = LifecycleRecord {
        node_id: node_id.clone(),
        lifecycle: Lifecycle::Cordon,
        ordered_by: "test".into(),
        reason: String::new(),
        order_time: std::time::SystemTime::UNIX_EPOCH,
        timeout: None,
        rooms_at_order: 0,
        participants_at_order: 0,
    };
    let put = Transaction::new().put(schema::lifecycle(&node_id), record.encode());
    assert!(bench.store.commit(put).await.unwrap().succeeded);
    tokio::time::sleep(Duration::from_millis(100)).await;
    for number in 0..6 {
        let place = bench.place(number % 2, &format!("r{number}")).await;
        assert_eq!(place.node_id, "b");
    }
    let delete = Transaction::new().then(Operation::Delete(schema::lifecycle(&node_id)));
    assert!(bench.store.commit(delete).await.unwrap().succeeded);
    eventually("it takes rooms again", || async {
        let room = format!("again{}", bench.node("a").memory().assigned.len());
        bench.place(0, &room).await.node_id == "a"
    })
    .await;
}

#[tokio::test]
async fn a_value_that_cannot_be_read_hurts_nothing_else() {
    let bench = Bench::start(1, &["a"]).await;
    let spoiled = RoomId::new("spoiled").unwrap();
    let put = Transaction::new()
        .put(schema::room_spec(&spoiled), "{\"version\":99}")
        .put(schema::room_plan(&spoiled), "nonsense");
    assert!(bench.store.commit(put).await.unwrap().succeeded);
    assert!(bench.create(0, "plaza").await.is_ok());
    assert_eq!(bench.place(0, "plaza").await.node_id, "a");
    assert_eq!(bench.get(0, "spoiled").await.unwrap_err().code(), tonic::Code::Internal);
}

#[tokio::test]
async fn a_node_that_restarts_elsewhere_is_told_its_rooms_there() {
    let mut bench = Bench::start(2, &["a"]).await;
    let place = bench.place(0, "plaza").await;
    let old = bench.nodes.remove(0);
    // The old process lingers while the new one is registered already.
    let new = TestNode::start("a", &bench.credential, &*bench.store).await;
    eventually("the new process is told", || async { new.carries("plaza") }).await;
    old.kill();
    new.memory().assigned.clear();
    bench.nodes.push(new);
    bench.all_met().await;
    let again = bench.place(1, "plaza").await;
    assert_eq!(again.epoch, place.epoch);
    assert_eq!(again.node_url, format!("http://{}", bench.node("a").address));
    // The stream to the new process outlives the end of the one to the old.
    bench.create(0, "market").await.unwrap();
    eventually("the new process is told", || async { bench.node("a").carries("market") }).await;
}

#[tokio::test]
async fn a_process_at_the_address_of_another_is_not_given_its_rooms() {
    let bench = Bench::start(2, &["a", "b"]).await;
    let place = bench.place(0, "plaza").await;
    let (dead, other) = match place.node_id.as_str() {
        "a" => (bench.node("a"), bench.node("b")),
        _ => (bench.node("b"), bench.node("a")),
    };
    dead.kill();
    // Its address went to the other one, and its lease has not ended yet.
    other.register_as(&*bench.store, &dead.id, &dead.boot_id).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!other.carries("plaza"));
    let mut blame = place_request("plaza");
    blame.failed_node_id.clone_from(&place.node_id);
    blame.failed_epoch = place.epoch;
    let moved = bench.place_as(0, blame).await;
    assert_eq!((moved.node_id.as_str(), moved.epoch), (other.id.as_str(), place.epoch + 1));
    eventually("the other carries it now", || async { other.carries("plaza") }).await;
}
