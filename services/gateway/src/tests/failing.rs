//! Nodes, plans, control planes and the gateway itself that go away.

use headwater_proto::control::v1::Admission;
use headwater_proto::node::v1 as node;
use livekit_protocol::leave_request::Action;
use tonic::Status;

use super::client::{Client, Heard};
use super::cluster::{Cluster, ControlPlane, Node, ada, soon, token};

const V0: &str = "/rtc?protocol=17";

#[tokio::test]
async fn a_lost_node_is_reported_and_its_client_called_back() {
    let cluster = Cluster::start().await;
    let (mut client, attached) = Client::join(&cluster, V0).await;
    client.welcomed().await;
    cluster.control.admit("node-2", "http://127.0.0.1:1", 8);
    attached.break_off();
    let leave = client.left(1000).await;
    assert_eq!(leave.action(), Action::Reconnect);
    let asked = cluster.control.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!((asked[1].failed_node_id.as_str(), asked[1].failed_epoch), ("node-1", 7));
    assert!(asked[1].resuming && !asked[1].may_create);
    assert_eq!(cluster.metric("headwater_node_stream_breaks_total"), 1.0);
    assert_eq!(cluster.metric("headwater_failovers_total"), 1.0);
}

#[tokio::test]
async fn a_room_with_many_clients_reports_its_lost_node_once() {
    let cluster = Cluster::start().await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        let (mut client, attached) = Client::join(&cluster, V0).await;
        client.welcomed().await;
        sessions.push((client, attached));
    }
    let clients: Vec<Client> = sessions
        .into_iter()
        .map(|(client, attached)| {
            attached.break_off();
            client
        })
        .collect();
    for mut client in clients {
        assert_eq!(client.left(1000).await.action(), Action::Reconnect);
    }
    let reports = cluster.control.asked().into_iter().filter(|it| !it.failed_node_id.is_empty());
    assert_eq!(reports.count(), 1);
}

#[tokio::test]
async fn a_node_that_stops_breaks_its_sessions_at_once() {
    let cluster = Cluster::start().await;
    let (mut client, _attached) = Client::join(&cluster, V0).await;
    client.welcomed().await;
    cluster.node.shutdown.cancel();
    assert_eq!(client.left(1000).await.action(), Action::Reconnect);
}

#[tokio::test]
async fn a_stale_plan_is_asked_for_again() {
    let cluster = Cluster::start().await;
    let second = Node::start().await;
    cluster.control.admit("node-1", &cluster.node.url(), 7);
    cluster.control.admit("node-2", &second.url(), 8);
    let token = token(&ada());
    let nodes = async {
        let stale = cluster.node.attached().await;
        stale.send_closed(node::CloseReason::PlanStale, node::CloseAction::Unspecified).await;
        let fresh = second.attached().await;
        fresh.send_joined().await;
        fresh
    };
    let (client, fresh) = tokio::join!(Client::connect(&cluster, V0, Some(&token)), nodes);
    let join = client.unwrap().welcomed().await;
    assert_eq!(join.server_info.unwrap().node_id, "node-2");
    assert_eq!(fresh.join.epoch, 8);
    assert!(cluster.control.asked().iter().all(|asked| asked.failed_node_id.is_empty()));
}

#[tokio::test]
async fn a_plan_that_stays_stale_ends_in_a_refusal() {
    let cluster = Cluster::start().await;
    let token = token(&ada());
    let node = async {
        loop {
            let attached = cluster.node.attached().await;
            let action = node::CloseAction::Unspecified;
            attached.send_closed(node::CloseReason::PlanStale, action).await;
        }
    };
    let refused = tokio::select! {
        refused = Client::connect(&cluster, V0, Some(&token)) => refused.unwrap_err(),
        () = node => unreachable!(),
    };
    assert_eq!(refused.0, http::StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(cluster.control.asked().len(), 6);
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_is_named_when_asking_again() {
    let cluster = Cluster::start().await;
    cluster.control.admit("node-9", "http://127.0.0.1:1", 5);
    let (mut client, _attached) = Client::join(&cluster, V0).await;
    client.welcomed().await;
    let asked = cluster.control.asked();
    assert_eq!((asked[1].failed_node_id.as_str(), asked[1].failed_epoch), ("node-9", 5));
}

#[tokio::test]
async fn a_short_wait_is_waited_for() {
    let cluster = Cluster::start().await;
    cluster.control.refuse(Admission::Wait, 0);
    let (mut client, _attached) = Client::join(&cluster, V0).await;
    client.welcomed().await;
    assert_eq!(cluster.control.asked().len(), 2);
}

#[tokio::test]
async fn another_control_plane_is_asked_when_one_is_away() {
    let other = ControlPlane::start("http://127.0.0.1:1".into()).await;
    let away = other.url.clone();
    other.shutdown.cancel();
    let cluster = Cluster::with(|config| config.control_plane_urls.insert(0, away)).await;
    for _ in 0..3 {
        let (mut client, _attached) = Client::join(&cluster, V0).await;
        client.welcomed().await;
    }
    // One that answers badly for a moment is asked again.
    cluster.control.answer(Err(Status::unavailable("starting")));
    let (mut client, _attached) = Client::join(&cluster, V0).await;
    client.welcomed().await;
}

#[tokio::test]
async fn a_stopping_gateway_sends_its_clients_to_another_one() {
    let cluster = Cluster::start().await;
    let (mut client, mut attached) = Client::join(&cluster, V0).await;
    client.welcomed().await;
    cluster.shutdown.cancel();
    let leave = client.left(1001).await;
    assert_eq!(leave.action(), Action::Resume);
    assert_eq!(attached.request().await, None, "the node keeps the participant");
    soon(cluster.gateway.join()).await.unwrap();
}

#[tokio::test]
async fn a_stopping_gateway_just_closes_on_old_clients() {
    let cluster = Cluster::start().await;
    let (mut client, _attached) = Client::join(&cluster, "/rtc?protocol=9").await;
    client.welcomed().await;
    cluster.shutdown.cancel();
    assert_eq!(client.hear().await, Heard::Close(Some(1001)));
}

#[tokio::test]
async fn a_session_taken_up_elsewhere_is_no_lost_node() {
    let cluster = Cluster::start().await;
    let (mut client, attached) = Client::join(&cluster, V0).await;
    client.welcomed().await;
    attached.send_closed(node::CloseReason::SignalLost, node::CloseAction::Resume).await;
    assert_eq!(client.hear().await, Heard::Close(Some(1000)));
    assert_eq!(cluster.control.asked().len(), 1);
}

#[tokio::test]
async fn a_node_that_answers_with_an_error_is_not_taken_for_lost() {
    let cluster = Cluster::start().await;
    let token = token(&ada());
    let node = async {
        let attached = cluster.node.attached().await;
        attached.fail(Status::failed_precondition("this node has no shard 3")).await;
        let again = cluster.node.attached().await;
        again.fail(Status::invalid_argument("identity")).await;
    };
    let (refused, ()) = tokio::join!(Client::connect(&cluster, V0, Some(&token)), node);
    assert_eq!(refused.unwrap_err().0, http::StatusCode::INTERNAL_SERVER_ERROR);
    assert!(cluster.control.asked().iter().all(|asked| asked.failed_node_id.is_empty()));
}
