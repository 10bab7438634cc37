//! Rooms by the public API, on two replicas.

use futures::future::join_all;
use headwater_proto::node::v1::CloseReason;
use headwater_proto::v1::{
    CreateRoomRequest, DeleteRoomRequest, GetNodeRequest, ListNodesRequest, ListRoomsRequest,
    NodeState, Room, UpdateRoomRequest,
};
use prost_types::FieldMask;
use tonic::{Code, Status};

use crate::support::{Bench, eventually, fields, reason};

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn new_room(room: &str, request_id: &str) -> CreateRoomRequest {
    CreateRoomRequest {
        room_id: room.to_owned(),
        room: Some(Room { metadata: "m".into(), max_participants: 5, ..Room::default() }),
        request_id: request_id.to_owned(),
    }
}

async fn update(
    bench: &Bench,
    replica: usize,
    room: Room,
    mask: &[&str],
    request_id: &str,
) -> Result<Room, Status> {
    let paths: Vec<_> = mask.iter().map(|path| (*path).to_owned()).collect();
    let request = UpdateRoomRequest {
        room: Some(room),
        update_mask: (!paths.is_empty()).then_some(FieldMask { paths }),
        request_id: request_id.to_owned(),
    };
    let request = bench.with(bench.everything(), request);
    let answer = bench.replicas[replica].rooms.clone().update_room(request).await?;
    Ok(answer.into_inner().room.unwrap())
}

async fn list(
    bench: &Bench,
    replica: usize,
    request: ListRoomsRequest,
) -> Result<(Vec<String>, String), Status> {
    let request = bench.with(bench.everything(), request);
    let answer = bench.replicas[replica].rooms.clone().list_rooms(request).await?.into_inner();
    let names = answer.rooms.into_iter().map(|room| room.name).collect();
    Ok((names, answer.next_page_token))
}

const ID: &str = "7f9c24e5-1c1a-4b0e-9d5a-6d3f0a8d2b11";
const OTHER_ID: &str = "7f9c24e5-1c1a-4b0e-9d5a-6d3f0a8d2b12";

#[tokio::test]
async fn a_room_created_twenty_times_at_once_exists_once() {
    let bench = Bench::start(2, &["a", "b"]).await;
    let calls = (0..20).map(|call| bench.create(call % 2, "plaza"));
    let outcomes = join_all(calls).await;
    let made: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
    assert_eq!(made.len(), 1);
    for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_eq!(refused.code(), Code::AlreadyExists);
        assert_eq!(reason(refused), "ALREADY_EXISTS");
    }
    for replica in 0..2 {
        assert_eq!(bench.get(replica, "plaza").await.unwrap().uid, made[0].uid);
    }
}

#[tokio::test]
async fn a_new_room_has_defaults_a_plan_and_a_node_that_knows_it() {
    let bench = Bench::start(1, &["a"]).await;
    let room = bench.create_as(0, new_room("plaza", "")).await.unwrap();
    assert_eq!(room.name, "rooms/plaza");
    assert!(room.uid.starts_with("RM_") && room.uid.len() == 15, "{}", room.uid);
    assert_eq!((room.metadata.as_str(), room.max_participants), ("m", 5));
    assert_eq!((room.empty_timeout, room.departure_timeout), (seconds(300), seconds(20)));
    assert!(room.create_time.is_some() && !room.etag.is_empty());
    let plan = room.plan.clone().unwrap();
    assert_eq!(plan.shards[0].node, "nodes/a");
    eventually("the node is told", || async { bench.node("a").carries("plaza") }).await;
    assert_eq!(bench.node("a").epoch_of("plaza"), Some(plan.epoch));
    assert_eq!(bench.get(0, "plaza").await.unwrap(), room);
}

#[tokio::test]
async fn a_repeated_creation_gets_the_same_room_from_any_replica() {
    let bench = Bench::start(2, &["a"]).await;
    let first = bench.create_as(0, new_room("plaza", ID)).await.unwrap();
    for replica in [0, 1] {
        let again = bench.create_as(replica, new_room("plaza", ID)).await.unwrap();
        assert_eq!(again.uid, first.uid);
    }
    let other = bench.create_as(0, new_room("plaza", OTHER_ID)).await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists);
    let reused = bench.create_as(0, new_room("elsewhere", ID)).await.unwrap_err();
    assert_eq!(
        (reused.code(), reason(&reused)),
        (Code::InvalidArgument, "REQUEST_ID_REUSED".into())
    );
}

#[tokio::test]
async fn repeats_in_the_same_moment_are_carried_out_once() {
    let bench = Bench::start(1, &["a"]).await;
    bench.create(0, "plaza").await.unwrap();
    let calls = (0..10).map(|_| {
        let request = DeleteRoomRequest { name: "rooms/plaza".into(), request_id: ID.to_owned() };
        let request = bench.with(bench.everything(), request);
        let mut rooms = bench.replicas[0].rooms.clone();
        async move { rooms.delete_room(request).await }
    });
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(bench.delete(0, "plaza").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn bad_arguments_are_named() {
    let bench = Bench::start(1, &[]).await;
    let bad = |change: fn(&mut CreateRoomRequest)| {
        let mut request = new_room("plaza", "");
        change(&mut request);
        request
    };
    let cases = [
        ("room_id", bad(|it| it.room_id = String::new())),
        ("room_id", bad(|it| it.room_id = "a/b".into())),
        ("room_id", bad(|it| it.room_id = "x".repeat(257))),
        ("request_id", bad(|it| it.request_id = "once".into())),
        ("room.metadata", bad(|it| it.room.as_mut().unwrap().metadata = "x".repeat(524_289))),
        ("room.empty_timeout", bad(|it| it.room.as_mut().unwrap().empty_timeout = seconds(-1))),
        (
            "room.departure_timeout",
            bad(|it| it.room.as_mut().unwrap().departure_timeout = seconds(1 << 40)),
        ),
    ];
    for (field, request) in cases {
        let refused = bench.create_as(0, request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{field}");
        assert_eq!(
            (fields(&refused), reason(&refused)),
            (vec![field.into()], "INVALID_ARGUMENT".into())
        );
    }
    assert_eq!(bench.get(0, "plaza").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn an_update_changes_what_its_mask_names() {
    let bench = Bench::start(1, &["a"]).await;
    bench.create_as(0, new_room("plaza", "")).await.unwrap();
    let wanted = Room {
        name: "rooms/plaza".into(),
        metadata: "new".into(),
        max_participants: 9,
        departure_timeout: seconds(60),
        ..Room::default()
    };
    let room = update(&bench, 0, wanted.clone(), &["max_participants"], "").await.unwrap();
    assert_eq!((room.metadata.as_str(), room.max_participants), ("m", 9));
    assert_eq!(room.departure_timeout, seconds(20));
    let room = update(&bench, 0, wanted.clone(), &[], "").await.unwrap();
    assert_eq!((room.metadata.as_str(), room.departure_timeout), ("new", seconds(60)));
    assert_eq!(room.empty_timeout, seconds(300), "absent means the default");
    eventually("the node learns of it", || async {
        bench.node("a").memory().rooms["plaza"].room.metadata == "new"
    })
    .await;

    let refused = update(&bench, 0, wanted.clone(), &["uid"], "").await.unwrap_err();
    assert_eq!(
        (refused.code(), fields(&refused)),
        (Code::InvalidArgument, vec!["update_mask".into()])
    );
    let nowhere = Room { name: "rooms/nowhere".into(), ..wanted };
    assert_eq!(update(&bench, 0, nowhere, &[], "").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn an_update_with_a_stale_etag_is_aborted() {
    let bench = Bench::start(2, &[]).await;
    let seen = bench.create(0, "plaza").await.unwrap();
    let newer = Room { metadata: "1".into(), ..seen.clone() };
    let updated = update(&bench, 1, newer, &["metadata"], "").await.unwrap();
    assert_ne!(updated.etag, seen.etag);
    let stale = Room { metadata: "2".into(), ..seen };
    let refused = update(&bench, 0, stale, &["metadata"], "").await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::Aborted, "ETAG_STALE".into()));
    let fresh = Room { metadata: "3".into(), ..updated };
    assert_eq!(update(&bench, 0, fresh, &["metadata"], "").await.unwrap().metadata, "3");
}

#[tokio::test]
async fn updates_at_once_are_all_carried_out_or_aborted_and_none_is_lost() {
    let bench = Bench::start(2, &[]).await;
    bench.create(0, "plaza").await.unwrap();
    let calls = (1..=10).map(|number| {
        let bench = &bench;
        async move {
            let room =
                Room { name: "rooms/plaza".into(), max_participants: number, ..Room::default() };
            update(bench, (number % 2) as usize, room, &["max_participants"], "").await
        }
    });
    let outcomes = join_all(calls).await;
    let mut etags: Vec<_> =
        outcomes.iter().filter_map(|outcome| Some(outcome.as_ref().ok()?.etag.clone())).collect();
    assert!(!etags.is_empty());
    let carried_out = etags.len();
    etags.sort();
    etags.dedup();
    assert_eq!(etags.len(), carried_out, "each update made its own revision");
    for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_eq!((refused.code(), reason(refused)), (Code::Aborted, "CONFLICT".into()));
    }
}

#[tokio::test]
async fn a_repeated_update_is_carried_out_once() {
    let bench = Bench::start(2, &[]).await;
    let room = bench.create(0, "plaza").await.unwrap();
    let wanted = Room { metadata: "1".into(), ..room };
    let first = update(&bench, 0, wanted.clone(), &["metadata"], ID).await.unwrap();
    for replica in [0, 1] {
        let again = update(&bench, replica, wanted.clone(), &["metadata"], ID).await.unwrap();
        assert_eq!(again.etag, first.etag);
    }
}

#[tokio::test]
async fn rooms_are_listed_in_pages_that_cover_them_once() {
    let bench = Bench::start(2, &[]).await;
    for number in 0..7 {
        bench.create(number % 2, &format!("r{number}")).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListRoomsRequest { page_size: 3, page_token, ..Default::default() };
        let (names, next) = list(&bench, 1, request).await.unwrap();
        assert!(names.len() <= 3);
        seen.extend(names);
        page_token = next;
        if page_token.is_empty() {
            break;
        }
    }
    let all: Vec<_> = (0..7).map(|number| format!("rooms/r{number}")).collect();
    assert_eq!(seen, all);

    let names = vec!["rooms/r5".to_owned(), "rooms/nowhere".into(), "rooms/r1".into()];
    let request = ListRoomsRequest { page_size: 1, names: names.clone(), ..Default::default() };
    let (first, page_token) = list(&bench, 0, request).await.unwrap();
    assert_eq!(first, ["rooms/r1"]);
    let other_list = ListRoomsRequest { page_token: page_token.clone(), ..Default::default() };
    let refused = list(&bench, 0, other_list).await.unwrap_err();
    assert_eq!(
        (refused.code(), fields(&refused)),
        (Code::InvalidArgument, vec!["page_token".into()])
    );
    let rest = ListRoomsRequest { names, page_token, ..Default::default() };
    assert_eq!(list(&bench, 0, rest).await.unwrap(), (vec!["rooms/r5".into()], String::new()));
}

#[tokio::test]
async fn a_page_stays_below_what_a_message_may_hold() {
    let bench = Bench::start(1, &[]).await;
    for number in 0..8 {
        let mut request = new_room(&format!("r{number}"), "");
        request.room.as_mut().unwrap().metadata = "x".repeat(500 * 1024);
        bench.create_as(0, request).await.unwrap();
    }
    let (names, next) = list(&bench, 0, ListRoomsRequest::default()).await.unwrap();
    assert!((1..8).contains(&names.len()), "{names:?}");
    assert!(!next.is_empty());
}

#[tokio::test]
async fn a_deleted_room_is_released_on_its_node_and_gone_everywhere() {
    let bench = Bench::start(2, &["a"]).await;
    let room = bench.create(0, "plaza").await.unwrap();
    eventually("the node is told", || async { bench.node("a").carries("plaza") }).await;
    bench.node("a").join("plaza", "ada", &[]);
    bench.delete(1, "plaza").await.unwrap();
    eventually("the node lets go", || async { !bench.node("a").carries("plaza") }).await;
    let release = bench.node("a").memory().released[0].clone();
    assert_eq!(release.reason(), CloseReason::RoomDeleted);
    assert_eq!(release.epoch, room.plan.unwrap().epoch);
    for replica in 0..2 {
        let missing = bench.get(replica, "plaza").await.unwrap_err();
        assert_eq!((missing.code(), reason(&missing)), (Code::NotFound, "NOT_FOUND".into()));
    }
}

#[tokio::test]
async fn a_room_created_again_has_a_higher_epoch_and_nobody_of_the_old_one() {
    let bench = Bench::start(1, &["a"]).await;
    let old = bench.create(0, "plaza").await.unwrap();
    eventually("the node is told", || async { bench.node("a").carries("plaza") }).await;
    bench.node("a").join("plaza", "ada", &[]);
    bench.delete(0, "plaza").await.unwrap();
    let new = bench.create(0, "plaza").await.unwrap();
    assert_ne!(new.uid, old.uid);
    let (old, new) = (old.plan.unwrap().epoch, new.plan.unwrap().epoch);
    assert!(new > old, "{new} after {old}");
    eventually("the node carries the new one", || async {
        bench.node("a").epoch_of("plaza") == Some(new)
    })
    .await;
    assert!(bench.node("a").memory().rooms["plaza"].participants.is_empty());
}

#[tokio::test]
async fn nodes_are_listed_and_read_with_what_they_report() {
    let bench = Bench::start(1, &["a", "b"]).await;
    let mut cluster = bench.replicas[0].cluster.clone();
    let request = ListNodesRequest { page_size: 1, ..Default::default() };
    let page =
        cluster.list_nodes(bench.with(bench.everything(), request)).await.unwrap().into_inner();
    assert_eq!(page.nodes[0].name, "nodes/a");
    let request = ListNodesRequest { page_token: page.next_page_token, ..Default::default() };
    let rest =
        cluster.list_nodes(bench.with(bench.everything(), request)).await.unwrap().into_inner();
    assert_eq!((rest.nodes[0].name.as_str(), rest.next_page_token.as_str()), ("nodes/b", ""));

    let request = GetNodeRequest { name: "nodes/a".into() };
    let answer = cluster.get_node(bench.with(bench.everything(), request)).await.unwrap();
    let node = answer.into_inner().node.unwrap();
    assert_eq!((node.state(), node.shard_count), (NodeState::Serving, 2));
    assert_eq!((node.zone.as_str(), node.build.as_str()), ("zone-1", "test"));
    assert_eq!(node.media_addresses, ["127.0.0.1:40000", "127.0.0.1:40001"]);
    assert!(node.load.is_some() && node.start_time.is_some());

    let request = GetNodeRequest { name: "nodes/c".into() };
    let missing = cluster.get_node(bench.with(bench.everything(), request)).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
}
