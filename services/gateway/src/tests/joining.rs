//! Joins that succeed, in both protocols and both framings.

use headwater_proto::node::v1 as node;
use headwater_proto::node::v1::attach_request::Request as ToNode;
use headwater_proto::node::v1::attach_response::Event;
use headwater_rpc::token::unix_seconds;
use livekit_protocol as lk;
use lk::signal_request::Message as ToServer;
use lk::signal_response::Message as FromServer;
use tokio_tungstenite::tungstenite::Message;

use super::client::{Client, Heard, plain_join, v1_path};
use super::cluster::{Cluster, ada, keys, soon, token};

const V0: &str = "/rtc?protocol=17&client_protocol=2&sdk=js&version=2.23.0&adaptive_stream=1\
                  &capabilities=CAP_COMPRESSION_DEFLATE_RAW";

#[tokio::test]
async fn a_v0_join_tells_the_client_everything_it_needs() {
    let cluster = Cluster::with(|config| {
        config.region = "eu".into();
        config.livekit.ice_servers = vec![crate::IceServer {
            urls: vec!["stun:stun.example.org".into()],
            username: String::new(),
            credential: None,
        }];
    })
    .await;
    let (mut client, _attached) = Client::join(&cluster, V0).await;
    let join = client.welcomed().await;
    let room = join.room.unwrap();
    assert_eq!((room.name.as_str(), room.sid.as_str()), ("lobby", "RM_1"));
    assert_eq!(room.creation_time_ms, 1_700_000_000_005);
    assert_eq!((room.empty_timeout, room.departure_timeout), (300, 20));
    let own = join.participant.unwrap();
    assert_eq!((own.sid.as_str(), own.identity.as_str()), ("PA_own", "ada"));
    assert_eq!((own.client_protocol, own.capabilities), (2, vec![2]));
    assert!(own.permission.unwrap().can_publish);
    let server = join.server_info.unwrap();
    assert_eq!((server.version.as_str(), server.protocol), ("1.13.6", 16));
    assert_eq!((server.node_id.as_str(), server.region.as_str()), ("node-1", "eu"));
    assert_eq!(join.server_version, "1.13.6");
    assert_eq!((join.ping_interval, join.ping_timeout), (5, 15));
    assert!(join.subscriber_primary && join.fast_publish);
    assert_eq!(join.sif_trailer.len(), 24);
    assert_eq!(join.enabled_publish_codecs[0].mime, "video/VP8");
    assert_eq!(join.ice_servers[0].urls, ["stun:stun.example.org"]);
}

#[tokio::test]
async fn a_v0_join_tells_the_node_what_the_client_may_and_wants() {
    let cluster = Cluster::start().await;
    let (_client, attached) = Client::join(&cluster, V0).await;
    let join = &attached.join;
    assert_eq!((join.room_id.as_str(), join.identity.as_str()), ("lobby", "ada"));
    assert_eq!((join.shard, join.epoch), (3, 7));
    assert_eq!(join.display_name, "Ada");
    assert_eq!(join.transport_mode(), node::TransportMode::Dual);
    assert!(join.auto_subscribe && join.adaptive_stream && !join.uncounted);
    assert!(join.permission.as_ref().unwrap().can_subscribe);
    assert_eq!(join.room.as_ref().unwrap().uid, "RM_1");
    assert_eq!(join.publish_codecs.len(), 5);
    let asked = &cluster.control.asked()[0];
    assert!(asked.may_create && !asked.resuming && asked.failed_node_id.is_empty());
    assert_eq!(cluster.metric("headwater_join_attempts_total{reason=\"none\",result=\"ok\"}"), 1.0);
}

#[tokio::test]
async fn the_token_may_come_in_the_query() {
    let cluster = Cluster::start().await;
    let path = format!("/rtc?access_token={}", token(&ada()));
    let node = async {
        let attached = cluster.node.attached().await;
        attached.send_joined().await;
        attached
    };
    let (client, _attached) = tokio::join!(Client::connect(&cluster, &path, None), node);
    client.unwrap().welcomed().await;
}

#[tokio::test]
async fn a_v1_join_runs_its_track_requests_and_then_its_offer() {
    let cluster = Cluster::start().await;
    let path = v1_path(&lk::JoinRequest {
        client_info: Some(lk::ClientInfo { protocol: 17, ..Default::default() }),
        add_track_requests: vec![lk::AddTrackRequest {
            cid: "mic".into(),
            r#type: lk::TrackType::Audio.into(),
            source: lk::TrackSource::Microphone.into(),
            ..Default::default()
        }],
        publisher_offer: Some(lk::SessionDescription {
            r#type: "offer".into(),
            sdp: "v=0".into(),
            id: 1,
            ..Default::default()
        }),
        ..Default::default()
    });
    let (mut client, mut attached) = Client::join(&cluster, &path).await;
    assert_eq!(attached.join.transport_mode(), node::TransportMode::Single);
    assert!(!attached.join.auto_subscribe, "absent is false in v1");
    let join = client.welcomed().await;
    assert!(!join.subscriber_primary);

    let Some(ToNode::AddTrack(add)) = attached.request().await else { panic!("a track first") };
    assert_eq!(add.client_track_id, "mic");
    let Some(ToNode::Offer(offer)) = attached.request().await else { panic!("then the offer") };
    assert_eq!((offer.sdp.as_str(), offer.offer_id), ("v=0", 1));
    assert_eq!(offer.transport(), node::TransportKind::Publisher);

    let track = node::Track {
        track: Some(headwater_proto::v1::Track { uid: "TR_AM1".into(), ..Default::default() }),
        ..Default::default()
    };
    let added = node::TrackAdded { client_track_id: "mic".into(), track: Some(track) };
    attached.send(Event::TrackAdded(added)).await;
    attached
        .send(Event::Answer(node::SessionDescription {
            sdp: "answer".into(),
            offer_id: 1,
            track_uid_by_mid: [("0".to_owned(), "TR_AM1".to_owned())].into(),
            ..Default::default()
        }))
        .await;
    let FromServer::TrackPublished(published) = client.message().await else { panic!() };
    assert_eq!((published.cid.as_str(), published.track.unwrap().sid.as_str()), ("mic", "TR_AM1"));
    let FromServer::Answer(answer) = client.message().await else { panic!() };
    assert_eq!((answer.r#type.as_str(), answer.id), ("answer", 1));
    assert_eq!(answer.mid_to_track_id["0"], "TR_AM1");
}

#[tokio::test]
async fn a_join_request_on_the_v0_path_means_one_transport() {
    let cluster = Cluster::start().await;
    let path = v1_path(&plain_join()).replace("/rtc/v1?", "/rtc?");
    let (_client, attached) = Client::join(&cluster, &path).await;
    assert_eq!(attached.join.transport_mode(), node::TransportMode::Single);
}

#[tokio::test]
async fn answers_are_framed_as_the_client_frames() {
    let cluster = Cluster::start().await;
    let (mut client, _attached) = Client::join(&cluster, V0).await;
    client.welcomed().await;
    client.send_frame(Message::Text(r#"{"pingReq":{"timestamp":"41"}}"#.into())).await;
    let Some(Ok(Message::Text(text))) = client.frame().await else { panic!("text for text") };
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["pongResp"]["lastPingTimestamp"], "41");
    client.send(ToServer::Ping(1)).await;
    let FromServer::Pong(now) = client.message().await else { panic!("binary for binary") };
    assert!(now.abs_diff(i64::try_from(unix_seconds()).unwrap() * 1000) < 5_000);
}

#[tokio::test]
async fn pings_and_trickles_end_at_the_gateway() {
    let cluster = Cluster::start().await;
    let (mut client, mut attached) = Client::join(&cluster, V0).await;
    client.welcomed().await;
    client.send(ToServer::PingReq(lk::Ping { timestamp: 9, rtt: 0 })).await;
    client.send(ToServer::Trickle(lk::TrickleRequest::default())).await;
    client.send(ToServer::Mute(lk::MuteTrackRequest { sid: "TR_1".into(), muted: true })).await;
    let Some(ToNode::MuteTrack(mute)) = attached.request().await else { panic!("only the mute") };
    assert_eq!((mute.track_uid.as_str(), mute.muted), ("TR_1", true));
    let FromServer::PongResp(pong) = client.message().await else { panic!("a pong") };
    assert_eq!(pong.last_ping_timestamp, 9);
}

#[tokio::test]
async fn a_changed_permission_brings_a_token_that_says_so() {
    let cluster = Cluster::start().await;
    let (mut client, attached) = Client::join(&cluster, V0).await;
    client.welcomed().await;
    let mut own = attached.own();
    own.version = 2;
    own.permission.as_mut().unwrap().can_publish = false;
    own.metadata = "muted by the host".into();
    let changed = node::ParticipantsChanged { participants: vec![own] };
    attached.send(Event::ParticipantsChanged(changed)).await;
    let FromServer::Update(update) = client.message().await else { panic!("an update") };
    assert!(!update.participants[0].permission.as_ref().unwrap().can_publish);
    let FromServer::RefreshToken(token) = client.message().await else { panic!("a token") };
    let grants = keys().verify(&token, unix_seconds()).unwrap();
    assert!(!grants.permission.can_publish && grants.room_join);
    assert_eq!((grants.identity.as_str(), grants.metadata.as_str()), ("ada", "muted by the host"));
}

#[tokio::test]
async fn a_client_that_leaves_is_reported_to_the_node() {
    let cluster = Cluster::start().await;
    let (mut client, mut attached) = Client::join(&cluster, V0).await;
    client.welcomed().await;
    client.send(ToServer::Leave(lk::LeaveRequest::default())).await;
    let Some(ToNode::Leave(leave)) = attached.request().await else { panic!("a leave") };
    assert_eq!(leave.reason(), node::CloseReason::ClientLeft);
    assert_eq!(attached.request().await, None);
    attached.break_off();
    assert_eq!(client.hear().await, Heard::Close(Some(1000)));
}

#[tokio::test]
async fn a_client_that_vanishes_is_not_reported_as_leaving() {
    let cluster = Cluster::start().await;
    let (mut client, mut attached) = Client::join(&cluster, V0).await;
    client.welcomed().await;
    drop(client);
    assert_eq!(attached.request().await, None, "the stream just ends");
}

#[tokio::test]
async fn what_the_node_closes_is_closed_with_its_reason() {
    let cluster = Cluster::start().await;
    let (mut client, attached) = Client::join(&cluster, V0).await;
    client.welcomed().await;
    attached.send_closed(node::CloseReason::RoomDeleted, node::CloseAction::Disconnect).await;
    let leave = client.left(1000).await;
    assert_eq!(leave.reason(), lk::DisconnectReason::RoomDeleted);
    assert_eq!(leave.action(), lk::leave_request::Action::Disconnect);
}

#[tokio::test]
async fn the_gateway_is_ready_once_a_control_plane_answered() {
    let cluster = Cluster::start().await;
    soon(async {
        while !cluster.readiness.is_ready() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
