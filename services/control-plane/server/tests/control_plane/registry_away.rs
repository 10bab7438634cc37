//! The registry away: what goes on, what waits, and that all of it recovers.

use std::time::{Duration, Instant};

use headwater_control_plane::{Config, STALE_KEY};
use headwater_proto::control::v1::Admission;
use headwater_proto::v1::{GetRoomRequest, ListRoomsRequest};
use headwater_rpc::status::retry_after;
use tonic::Code;

use crate::support::bench::place_request;
use crate::support::{Bench, eventually, reason};

const SOON: Duration = Duration::from_secs(1);

#[tokio::test]
async fn joins_to_planned_rooms_go_on_and_new_rooms_wait() {
    let bench = Bench::start(2, &["a", "b"]).await;
    let place = bench.place(0, "plaza").await;
    eventually("both replicas know it", || async {
        bench.place(1, "plaza").await.epoch == place.epoch
    })
    .await;
    bench.store.take_away();
    for replica in 0..2 {
        let started = Instant::now();
        let again = bench.place(replica, "plaza").await;
        assert_eq!((again.admission(), again.epoch), (Admission::Admitted, place.epoch));
        assert!(started.elapsed() < SOON / 2, "memory is enough");

        let started = Instant::now();
        let new = bench.place(replica, "market").await;
        assert_eq!(new.admission(), Admission::Wait);
        assert!(new.retry_after.is_some());
        assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    }
    bench.store.bring_back();
    eventually("new rooms are placed again", || async {
        bench.place(0, "market").await.admission() == Admission::Admitted
    })
    .await;
}

#[tokio::test]
async fn writes_say_when_to_come_back_and_reads_say_that_they_are_stale() {
    let bench = Bench::start(1, &["a"]).await;
    let room = bench.create(0, "plaza").await.unwrap();
    bench.store.take_away();
    let started = Instant::now();
    for refused in [
        bench.create(0, "market").await.unwrap_err(),
        bench.delete(0, "plaza").await.unwrap_err(),
        bench.get(0, "market").await.unwrap_err(),
    ] {
        assert_eq!(
            (refused.code(), reason(&refused)),
            (Code::Unavailable, "REGISTRY_UNAVAILABLE".into())
        );
        assert!(retry_after(&refused).is_some());
    }
    assert!(started.elapsed() < 3 * SOON, "{:?}", started.elapsed());

    let mut rooms = bench.replicas[0].rooms.clone();
    let request = GetRoomRequest { name: "rooms/plaza".into() };
    let answer = rooms.get_room(bench.with(bench.everything(), request)).await.unwrap();
    assert_eq!(answer.metadata().get(STALE_KEY).unwrap(), "true");
    assert_eq!(answer.into_inner().room.unwrap().uid, room.uid);
    let request = bench.with(bench.everything(), ListRoomsRequest::default());
    let answer = rooms.list_rooms(request).await.unwrap();
    assert_eq!(answer.metadata().get(STALE_KEY).unwrap(), "true");
    assert_eq!(answer.into_inner().rooms.len(), 1);

    bench.store.bring_back();
    eventually("it answers again", || async { bench.get(0, "plaza").await.is_ok() }).await;
    let request = GetRoomRequest { name: "rooms/plaza".into() };
    let answer = rooms.get_room(bench.with(bench.everything(), request)).await.unwrap();
    assert!(answer.metadata().get(STALE_KEY).is_none());
}

#[tokio::test]
async fn nodes_are_told_nothing_that_would_end_media() {
    let bench = Bench::start(2, &["a"]).await;
    bench.place(0, "plaza").await;
    eventually("the node is told", || async { bench.node("a").carries("plaza") }).await;
    bench.node("a").join("plaza", "ada", &["TR_1"]);
    bench.store.take_away();
    tokio::time::sleep(Duration::from_secs(3)).await;
    bench.store.bring_back();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(bench.node("a").carries("plaza"));
    assert!(bench.node("a").memory().released.is_empty());
    eventually("readiness comes back", || async {
        bench.replicas.iter().all(|replica| replica.readiness.is_ready())
    })
    .await;
}

#[tokio::test]
async fn a_blamed_node_that_is_dead_waits_for_the_registry_and_then_moves() {
    let bench = Bench::start(1, &["a", "b"]).await;
    let place = bench.place(0, "plaza").await;
    bench.store.take_away();
    bench.node(&place.node_id).kill();
    let mut blame = place_request("plaza");
    blame.failed_node_id.clone_from(&place.node_id);
    blame.failed_epoch = place.epoch;
    assert_eq!(bench.place_as(0, blame.clone()).await.admission(), Admission::Wait);
    bench.store.bring_back();
    let moved = bench.place_as(0, blame).await;
    assert_eq!((moved.admission(), moved.epoch), (Admission::Admitted, place.epoch + 1));
}

#[tokio::test]
async fn a_replica_started_without_registry_serves_once_it_is_there() {
    let mut bench = Bench::start(0, &["a"]).await;
    bench.store.take_away();
    bench.add_replica(Config::default()).await;
    assert_eq!(bench.place(0, "plaza").await.admission(), Admission::Wait);
    assert!(!bench.replicas[0].readiness.is_ready());
    bench.store.bring_back();
    eventually("it places", || async {
        bench.place(0, "plaza").await.admission() == Admission::Admitted
    })
    .await;
    assert!(bench.replicas[0].readiness.is_ready());
}
