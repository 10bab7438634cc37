//! What happens at each limit.

use futures::SinkExt as _;
use headwater_proto::node::v1 as node;
use headwater_proto::node::v1::attach_response::Event;
use http::StatusCode;
use livekit_protocol as lk;
use lk::signal_request::Message as ToServer;
use lk::signal_response::Message as FromServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::client::{Client, Heard};
use super::cluster::{Cluster, ada, soon, token};

const V0: &str = "/rtc?protocol=17";

#[tokio::test]
async fn a_full_gateway_refuses_and_takes_again_when_somebody_left() {
    let cluster = Cluster::with(|config| config.limits.sessions_max = 1).await;
    let (mut first, mut attached) = Client::join(&cluster, V0).await;
    first.welcomed().await;
    let refused = Client::connect(&cluster, V0, Some(&token(&ada()))).await.unwrap_err();
    let expected =
        (StatusCode::SERVICE_UNAVAILABLE, "gateway has exceeded its configured limit".to_owned());
    assert_eq!(refused, expected);
    drop(first);
    assert_eq!(attached.request().await, None);
    soon(async {
        while cluster.metric("headwater_signal_connections{protocol=\"v0\"}") > 0.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (mut second, _attached) = Client::join(&cluster, V0).await;
    second.welcomed().await;
}

#[tokio::test]
async fn a_join_that_takes_too_long_is_given_up() {
    let cluster = Cluster::with(|config| config.limits.join_timeout_seconds = 1).await;
    let token = token(&ada());
    let (refused, attached) =
        tokio::join!(Client::connect(&cluster, V0, Some(&token)), cluster.node.attached());
    let expected = (StatusCode::SERVICE_UNAVAILABLE, "join took too long".to_owned());
    assert_eq!(refused.unwrap_err(), expected);
    drop(attached);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let cluster = Cluster::with(|config| config.limits.outbox_messages_max = 8).await;
    let (client, mut attached) = Client::join(&cluster, V0).await;
    let noise = node::ParticipantsChanged {
        participants: vec![node::Participant {
            uid: "PA_x".into(),
            metadata: "m".repeat(100_000),
            ..Default::default()
        }],
    };
    // More than the sockets' buffers hold between them.
    for _ in 0..400 {
        attached.send(Event::ParticipantsChanged(noise.clone())).await;
    }
    assert_eq!(attached.request().await, None, "the gateway gave up on the client");
    assert_eq!(
        cluster.metric("headwater_signal_sessions_ended_total{reason=\"slow_client\"}"),
        1.0
    );
    drop(client);
}

#[tokio::test]
async fn a_frame_over_two_mebibytes_ends_the_session() {
    let cluster = Cluster::start().await;
    let (mut client, mut attached) = Client::join(&cluster, V0).await;
    client.welcomed().await;
    client.send_frame(Message::Binary(vec![0; (2 << 20) + 1].into())).await;
    assert_eq!(client.hear().await, Heard::Close(Some(1009)));
    assert_eq!(attached.request().await, None);
}

#[tokio::test]
async fn a_frame_far_over_the_limit_is_not_read_to_its_end() {
    let cluster = Cluster::start().await;
    let (mut client, mut attached) = Client::join(&cluster, V0).await;
    client.welcomed().await;
    // The gateway stops reading in the middle, so the write may fail.
    let _ = client.socket.send(Message::Binary(vec![0; 64 << 20].into())).await;
    assert_eq!(attached.request().await, None);
    assert!(matches!(client.hear().await, Heard::Close(None | Some(1009))));
}

#[tokio::test]
async fn a_request_too_large_for_the_node_ends_its_own_session_only() {
    let cluster = Cluster::start().await;
    let (mut client, _attached) = Client::join(&cluster, V0).await;
    let (mut other, _other_attached) = Client::join(&cluster, V0).await;
    client.welcomed().await;
    other.welcomed().await;
    let sdp = "x".repeat(1_500_000);
    client.send(ToServer::Offer(lk::SessionDescription { sdp, ..Default::default() })).await;
    assert_eq!(client.hear().await, Heard::Close(Some(1009)));
    other.send(ToServer::Ping(0)).await;
    assert!(matches!(other.message().await, FromServer::Pong(_)));
    assert_eq!(cluster.control.asked().len(), 2, "no node was taken for lost");
}

#[tokio::test]
async fn a_frame_that_is_no_message_ends_its_own_session_only() {
    let cluster = Cluster::start().await;
    let (mut other, _other_attached) = Client::join(&cluster, V0).await;
    other.welcomed().await;
    for frame in [Message::Binary(vec![0xff; 16].into()), Message::Text("{not json".into())] {
        let (mut client, mut attached) = Client::join(&cluster, V0).await;
        client.welcomed().await;
        client.send_frame(frame).await;
        assert_eq!(client.hear().await, Heard::Close(Some(1007)));
        assert_eq!(attached.request().await, None);
    }
    other.send(ToServer::Ping(0)).await;
    assert!(matches!(other.message().await, FromServer::Pong(_)));
}

#[tokio::test]
async fn a_head_that_is_too_large_is_not_read_to_its_end() {
    let cluster = Cluster::start().await;
    let mut stream = TcpStream::connect(cluster.gateway.address).await.unwrap();
    let head = format!("GET /rtc/validate HTTP/1.1\r\nhost: a\r\nx: {}", "a".repeat(300 * 1024));
    // The gateway closes in the middle, so writing may fail and its answer may be lost.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(super::client::get(&cluster.url("/")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn churn_leaves_nothing_behind() {
    let cluster = Cluster::start().await;
    for round in 0..20 {
        let (mut client, mut attached) = Client::join(&cluster, V0).await;
        client.welcomed().await;
        if round % 2 == 0 {
            client.send(ToServer::Leave(lk::LeaveRequest::default())).await;
            assert!(attached.request().await.is_some());
        }
        drop(client);
        assert_eq!(attached.request().await, None);
    }
    soon(async {
        while cluster.metric("headwater_signal_connections{protocol=\"v0\"}") > 0.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
