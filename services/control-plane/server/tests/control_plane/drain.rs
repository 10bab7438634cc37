//! Orders to nodes, rooms that leave them, and rooms of several shards.

use std::time::Duration;

use headwater_control_plane::Config;
use headwater_proto::control::v1::{Admission, PlaceParticipantRequest};
use headwater_proto::node::v1::CloseReason;
use headwater_proto::v1::{
    CordonNodeRequest, CreateRoomRequest, DrainNodeRequest, ExplainPlacementRequest,
    GetNodeRequest, GetRoomTopologyRequest, GetRoomTopologyResponse, Node, NodeState, Room,
    SimulatePlacementRequest, UncordonNodeRequest,
};
use tonic::{Code, Status};

use crate::support::bench::place_request;
use crate::support::node::Memory;
use crate::support::{Bench, TestNode, eventually, fields};

impl Bench {
    async fn node_now(&self, replica: usize, node: &str) -> Result<Node, Status> {
        let request = GetNodeRequest { name: format!("nodes/{node}") };
        let request = self.with(self.everything(), request);
        let answer = self.replicas[replica].cluster.clone().get_node(request).await?;
        Ok(answer.into_inner().node.expect("a node"))
    }

    async fn drain(&self, node: &str, seconds: i64) -> Result<Node, Status> {
        let request = DrainNodeRequest {
            name: format!("nodes/{node}"),
            reason: "a new kernel".into(),
            timeout: Some(prost_types::Duration { seconds, nanos: 0 }),
        };
        let request = self.with(self.everything(), request);
        let answer = self.replicas[0].cluster.clone().drain_node(request).await?;
        Ok(answer.into_inner().node.expect("a node"))
    }

    async fn topology(&self, room: &str) -> GetRoomTopologyResponse {
        let request = GetRoomTopologyRequest { name: format!("rooms/{room}") };
        let request = self.with(self.everything(), request);
        self.replicas[0].cluster.clone().get_room_topology(request).await.unwrap().into_inner()
    }

    /// A bench whose nodes relay, and where four people fill a shard.
    pub(crate) async fn relaying(nodes: &[&str]) -> Self {
        Self::relaying_at(4, nodes).await
    }

    /// The same, with so many participants to a shard.
    pub(crate) async fn relaying_at(shard_participants: u32, nodes: &[&str]) -> Self {
        let mut bench = Self::start(0, &[]).await;
        bench.add_replica(Config { shard_participants, ..Config::default() }).await;
        for (port, node) in (50_000..).zip(nodes) {
            let address = Some(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
            let memory = Memory { relay_address: address, ..Memory::default() };
            let node = TestNode::start_with(node, &bench.credential, &*bench.store, memory).await;
            bench.nodes.push(node);
        }
        bench.all_met().await;
        bench
    }
}

#[tokio::test]
async fn a_drained_node_gives_all_its_rooms_away_and_says_so() {
    let bench = Bench::start(2, &["a", "b"]).await;
    for number in 0..8 {
        bench.create(number % 2, &format!("r{number}")).await.unwrap();
    }
    eventually("every room is carried", || async {
        (0..8).all(|it| bench.nodes.iter().any(|node| node.carries(&format!("r{it}"))))
    })
    .await;
    let on_a: Vec<String> = bench.node("a").memory().rooms.keys().cloned().collect();
    for room in &on_a {
        bench.node("a").join(room, "ada", &[]);
    }
    let ordered = bench.drain("a", 20).await.unwrap();
    assert_eq!(ordered.state(), NodeState::Draining);
    let order = ordered.order.unwrap();
    assert_eq!((order.ordered_by.as_str(), order.reason.as_str()), ("devkey", "a new kernel"));
    let span = order.deadline.unwrap().seconds - order.order_time.unwrap().seconds;
    assert_eq!(span, 20);
    assert_eq!(ordered.drain.unwrap().rooms_at_order, u32::try_from(on_a.len()).unwrap());

    eventually("the drain is done", || async {
        bench.node_now(1, "a").await.unwrap().drain.unwrap().done
    })
    .await;
    for room in &on_a {
        let plan = bench.get(0, room).await.unwrap().plan.unwrap();
        assert_eq!(plan.shards[0].node, "nodes/b");
        assert!(bench.node("b").carries(room));
    }
    let released = bench.node("a").memory().released.clone();
    assert!(released.iter().all(|it| it.reason() == CloseReason::PlanStale), "{released:?}");
    // Who was moved comes back and is sent to the other node.
    for room in &on_a {
        assert_eq!(bench.place(1, room).await.node_id, "b");
    }
}

#[tokio::test]
async fn a_drain_without_another_node_is_stuck_and_can_be_taken_back() {
    let bench = Bench::start(1, &["a"]).await;
    bench.create(0, "plaza").await.unwrap();
    bench.drain("a", 60).await.unwrap();
    eventually("it is stuck", || async {
        let drain = bench.node_now(0, "a").await.unwrap().drain.unwrap();
        drain.rooms_stuck == 1 && !drain.done
    })
    .await;
    assert!(bench.node("a").memory().released.is_empty());
    let request = UncordonNodeRequest { name: "nodes/a".into() };
    let request = bench.with(bench.everything(), request);
    let node = bench.replicas[0].cluster.clone().uncordon_node(request).await.unwrap();
    let node = node.into_inner().node.unwrap();
    assert_eq!((node.state(), node.order, node.drain), (NodeState::Serving, None, None));
    assert_eq!(bench.place(0, "plaza").await.node_id, "a");
}

#[tokio::test]
async fn a_cordon_outlives_the_node() {
    let bench = Bench::start(2, &["a", "b"]).await;
    let request = CordonNodeRequest { name: "nodes/a".into(), reason: String::new() };
    let request = bench.with(bench.everything(), request);
    bench.replicas[1].cluster.clone().cordon_node(request).await.unwrap();
    bench.node("a").unregister(&*bench.store).await;
    bench.node("a").register(&*bench.store).await;
    eventually("it is there and cordoned", || async {
        let node = bench.node_now(0, "a").await;
        node.is_ok_and(|node| node.state() == NodeState::Cordoned)
    })
    .await;
    for number in 0..6 {
        assert_eq!(bench.place(number % 2, &format!("r{number}")).await.node_id, "b");
    }
}

#[tokio::test]
async fn a_node_whose_process_stops_is_emptied_without_an_order() {
    let bench = Bench::start(2, &["a", "b"]).await;
    let place = bench.place(0, "plaza").await;
    let other = if place.node_id == "a" { "b" } else { "a" };
    eventually("it is carried", || async { bench.node(&place.node_id).carries("plaza") }).await;
    bench.node(&place.node_id).join("plaza", "ada", &[]);
    bench.node(&place.node_id).memory().leaving = true;
    eventually("the other carries it", || async { bench.node(other).carries("plaza") }).await;
    eventually("it let go", || async { !bench.node(&place.node_id).carries("plaza") }).await;
    assert_eq!(bench.place(1, "plaza").await.node_id, other);
    assert_eq!(bench.node_now(0, &place.node_id).await.unwrap().order, None);
}

#[tokio::test]
async fn orders_are_refused_to_strangers_and_to_nodes_nobody_knows() {
    let bench = Bench::start(1, &["a"]).await;
    let mut api = bench.replicas[0].cluster.clone();
    let order = DrainNodeRequest { name: "nodes/a".into(), ..Default::default() };
    let refused = api.drain_node(bench.with(bench.admin("plaza"), order.clone())).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(bench.drain("nobody", 60).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(fields(&bench.drain("a", 0).await.unwrap_err()), ["timeout"]);
    let long = DrainNodeRequest { reason: "x".repeat(2000), ..order };
    let refused = api.drain_node(bench.with(bench.everything(), long)).await.unwrap_err();
    assert_eq!(fields(&refused), ["reason"]);
    assert_eq!(bench.node_now(0, "a").await.unwrap().order, None);
}

#[tokio::test]
async fn a_room_that_outgrows_its_shard_gets_more_and_every_shard_its_slice() {
    let bench = Bench::relaying(&["a", "b"]).await;
    let place = bench.place(0, "plaza").await;
    eventually("it is carried", || async { bench.node(&place.node_id).carries("plaza") }).await;
    for name in ["ada", "bob", "cyd", "dan"] {
        bench.node(&place.node_id).join("plaza", name, &[]);
    }
    eventually("it has two shards", || async { bench.topology("plaza").await.shards.len() == 2 })
        .await;
    let topology = bench.topology("plaza").await;
    assert_eq!((topology.depth, topology.participant_count), (1, 4));
    assert_eq!(topology.shards[0].children, [1]);
    assert_eq!(topology.shards[1].parent, Some(0));
    let other = topology.shards[1].node.strip_prefix("nodes/").unwrap().to_owned();
    assert_ne!(other, place.node_id);
    eventually("both know", || async {
        bench.nodes.iter().all(|node| node.epoch_of("plaza") == Some(topology.epoch))
    })
    .await;
    let slice_of = |node: &str| {
        let memory = bench.node(node).memory();
        memory.assigned.iter().rev().find_map(|it| it.slice.clone()).expect("a slice")
    };
    let (home, leaf) = (slice_of(&place.node_id), slice_of(&other));
    assert_eq!((home.rank, home.depth, home.parent), (0, 0, None));
    assert_eq!(home.children[0].node_id, other);
    assert_eq!((leaf.rank, leaf.depth, leaf.epoch), (1, 1, topology.epoch));
    let parent = leaf.parent.unwrap();
    assert_eq!(parent.node_id, place.node_id);
    assert!(parent.relay_address.starts_with("127.0.0.1:5000"), "{}", parent.relay_address);

    // Joins spread over both; when the second node is blamed they go to the first.
    let mut nodes = std::collections::BTreeSet::new();
    for number in 0..20 {
        let request =
            PlaceParticipantRequest { identity: format!("p{number}"), ..place_request("plaza") };
        nodes.insert(bench.place_as(0, request).await.node_id);
    }
    assert!(nodes.contains(&other), "{nodes:?}");
    let blame = PlaceParticipantRequest {
        failed_node_id: other.clone(),
        failed_epoch: topology.epoch,
        ..place_request("plaza")
    };
    assert_eq!(bench.place_as(0, blame).await.node_id, place.node_id);
}

#[tokio::test]
async fn the_seats_of_a_limited_room_are_shared_and_never_exceed_the_limit() {
    let bench = Bench::relaying(&["a", "b"]).await;
    let request = CreateRoomRequest {
        room_id: "plaza".into(),
        room: Some(Room { max_participants: 6, ..Room::default() }),
        ..Default::default()
    };
    bench.create_as(0, request).await.unwrap();
    let place = bench.place(0, "plaza").await;
    eventually("it is carried", || async { bench.node(&place.node_id).carries("plaza") }).await;
    for name in ["ada", "bob", "cyd", "dan"] {
        bench.node(&place.node_id).join("plaza", name, &[]);
    }
    eventually("both shards have seats", || async {
        let shards = bench.topology("plaza").await.shards;
        let seats: Vec<u32> = shards.iter().filter_map(|it| it.seats).collect();
        assert!(seats.len() < 2 || seats.iter().sum::<u32>() <= 6, "{seats:?}");
        seats.len() == 2 && seats[1] > 0
    })
    .await;
    let other = bench.nodes.iter().find(|it| it.id.as_str() != place.node_id).unwrap();
    other.join("plaza", "eve", &[]);
    bench.node(&place.node_id).join("plaza", "fay", &[]);
    eventually("the room is full", || async {
        let refused = bench.place_as(0, place_request("plaza")).await;
        refused.admission() == Admission::RoomFull && refused.retry_after.is_some()
    })
    .await;
}

#[tokio::test]
async fn placements_are_explained_and_simulated_without_being_done() {
    let bench = Bench::relaying(&["a", "b", "c"]).await;
    let place = bench.place(0, "plaza").await;
    let request = ExplainPlacementRequest { room: "rooms/plaza".into() };
    let request = bench.with(bench.everything(), request);
    let mut api = bench.replicas[0].cluster.clone();
    let explained = api.explain_placement(request).await.unwrap().into_inner();
    assert!(explained.summary.contains(&place.node_id), "{}", explained.summary);
    let carrying: Vec<_> = explained.nodes.iter().filter(|it| it.carries).collect();
    assert_eq!(carrying.len(), 1);
    assert!(explained.nodes.iter().all(|it| it.eligible && !it.reasons.is_empty()));

    let request = SimulatePlacementRequest {
        participant_count: 10,
        without_nodes: vec!["nodes/c".into()],
        ..Default::default()
    };
    let request = bench.with(bench.everything(), request);
    let simulated = api.simulate_placement(request).await.unwrap().into_inner();
    assert_eq!((simulated.shards.len(), simulated.unplaced_participants), (4, 0));
    assert!(simulated.shards.iter().all(|it| it.node != "nodes/c"));
    assert!(simulated.plan_bytes > 50 && simulated.planning_time.is_some());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.topology("plaza").await.shards.len(), 1, "nothing was done");
}
