//! Clients that come back to their session.

use headwater_proto::control::v1::Admission;
use headwater_proto::node::v1 as node;
use headwater_proto::node::v1::attach_request::Request as ToNode;
use headwater_proto::node::v1::attach_response::Event;
use livekit_protocol as lk;
use lk::leave_request::Action;
use lk::signal_request::Message as ToServer;
use lk::signal_response::Message as FromServer;

use super::client::{Client, Heard, v1_path};
use super::cluster::{Attached, Cluster, ada, room, token};

const RESUME: &str = "/rtc?protocol=17&reconnect=1&sid=PA_own";

async fn resume(
    cluster: &Cluster,
    path: &str,
    answer: impl AsyncFn(&Attached),
) -> (Client, Attached) {
    let token = token(&ada());
    let node = async {
        let attached = cluster.node.attached().await;
        answer(&attached).await;
        attached
    };
    let (client, attached) = tokio::join!(Client::connect(cluster, path, Some(&token)), node);
    (client.unwrap(), attached)
}

async fn resumed(attached: &Attached) {
    let other = |uid: &str, phase: node::ParticipantPhase| node::Participant {
        uid: uid.into(),
        identity: uid.to_lowercase(),
        phase: phase.into(),
        ..Default::default()
    };
    attached
        .send(Event::Joined(node::Joined {
            room: Some(room("lobby")),
            participant: Some(attached.own()),
            others: vec![other("PA_here", node::ParticipantPhase::Active)],
            departed: vec![other("PA_gone", node::ParticipantPhase::Left)],
            resumed: true,
            last_data_sequence: 17,
            ..Default::default()
        }))
        .await;
}

async fn hears_a_resume(client: &mut Client) {
    let FromServer::Reconnect(reconnect) = client.message().await else { panic!("first of all") };
    assert_eq!(reconnect.last_message_seq, 17);
    assert_eq!(reconnect.server_info.unwrap().protocol, 16);
    let FromServer::Update(gone) = client.message().await else { panic!("then who left") };
    assert_eq!(gone.participants[0].sid, "PA_gone");
    assert_eq!(gone.participants[0].state(), lk::participant_info::State::Disconnected);
    let FromServer::Update(here) = client.message().await else { panic!("then everybody") };
    let sids: Vec<&str> = here.participants.iter().map(|it| it.sid.as_str()).collect();
    assert_eq!(sids, ["PA_own", "PA_here"]);
    let FromServer::RoomUpdate(update) = client.message().await else { panic!("then the room") };
    assert_eq!(update.room.unwrap().name, "lobby");
    let FromServer::RefreshToken(_) = client.message().await else { panic!("then a token") };
}

#[tokio::test]
async fn a_v0_resume_begins_with_reconnect_and_then_what_was_missed() {
    let cluster = Cluster::start().await;
    let (mut client, mut attached) = resume(&cluster, RESUME, resumed).await;
    assert_eq!(attached.join.resume_participant_uid, "PA_own");
    let asked = &cluster.control.asked()[0];
    assert!(asked.resuming && !asked.may_create);
    hears_a_resume(&mut client).await;
    client
        .send(ToServer::SyncState(lk::SyncState {
            publish_tracks: vec![lk::TrackPublishedResponse {
                cid: "cam".into(),
                track: Some(lk::TrackInfo { sid: "TR_VC1".into(), ..Default::default() }),
            }],
            ..Default::default()
        }))
        .await;
    let Some(ToNode::SyncState(state)) = attached.request().await else { panic!("its state") };
    assert_eq!(state.published_track_uids["cam"], "TR_VC1");
    assert!(!state.has_unacknowledged_tracks);
}

#[tokio::test]
async fn a_v1_resume_brings_its_state_and_offer_along() {
    let cluster = Cluster::start().await;
    let path = v1_path(&lk::JoinRequest {
        reconnect: true,
        participant_sid: "PA_own".into(),
        sync_state: Some(lk::SyncState {
            publish_tracks: vec![lk::TrackPublishedResponse::default()],
            ..Default::default()
        }),
        publisher_offer: Some(lk::SessionDescription { sdp: "v=0".into(), ..Default::default() }),
        ..Default::default()
    });
    let (mut client, mut attached) = resume(&cluster, &path, resumed).await;
    hears_a_resume(&mut client).await;
    let Some(ToNode::SyncState(state)) = attached.request().await else { panic!("state first") };
    assert!(state.has_unacknowledged_tracks);
    let Some(ToNode::Offer(_)) = attached.request().await else { panic!("then the offer") };
}

async fn is_told_to_begin_anew(client: &mut Client) {
    let leave = client.left(1000).await;
    assert_eq!(leave.reason(), lk::DisconnectReason::StateMismatch);
    assert_eq!(leave.action(), Action::Reconnect);
}

#[tokio::test]
async fn a_resume_that_the_node_does_not_know_is_told_to_begin_anew() {
    let cluster = Cluster::start().await;
    let (mut client, _attached) = resume(&cluster, RESUME, async |attached| {
        attached.send_closed(node::CloseReason::StateMismatch, node::CloseAction::Reconnect).await;
    })
    .await;
    is_told_to_begin_anew(&mut client).await;
}

#[tokio::test]
async fn a_resume_that_the_node_takes_for_a_join_is_told_to_begin_anew() {
    let cluster = Cluster::start().await;
    let (mut client, mut attached) = resume(&cluster, RESUME, async |attached| {
        let joined = node::Joined {
            room: Some(room("lobby")),
            participant: Some(attached.own()),
            ..Default::default()
        };
        attached.send(Event::Joined(joined)).await;
    })
    .await;
    is_told_to_begin_anew(&mut client).await;
    assert_eq!(attached.request().await, None);
}

#[tokio::test]
async fn a_resume_into_a_room_that_is_gone_is_told_to_begin_anew() {
    let cluster = Cluster::start().await;
    cluster.control.refuse(Admission::RoomNotFound, 0);
    let token = token(&ada());
    let mut client = Client::connect(&cluster, RESUME, Some(&token)).await.unwrap();
    is_told_to_begin_anew(&mut client).await;
    assert!(cluster.node.is_idle().await);
}

#[tokio::test]
async fn a_resume_that_names_nobody_is_told_to_begin_anew() {
    let cluster = Cluster::start().await;
    let token = token(&ada());
    let mut client = Client::connect(&cluster, "/rtc?protocol=17&reconnect=1", Some(&token)).await;
    is_told_to_begin_anew(client.as_mut().unwrap()).await;
    assert!(cluster.control.asked().is_empty());
}

#[tokio::test]
async fn an_old_client_reads_can_reconnect() {
    let cluster = Cluster::start().await;
    let token = token(&ada());
    let mut client =
        Client::connect(&cluster, "/rtc?protocol=9&reconnect=1", Some(&token)).await.unwrap();
    assert!(client.left(1000).await.can_reconnect);
}

#[tokio::test]
async fn developers_can_have_a_resume_cut() {
    let cluster = Cluster::start().await;
    let (mut client, _first) = Client::join(&cluster, "/rtc?protocol=17").await;
    client.welcomed().await;
    let scenario = lk::simulate_scenario::Scenario::DisconnectSignalOnResume(true);
    client.send(ToServer::Simulate(lk::SimulateScenario { scenario: Some(scenario) })).await;
    client.send(ToServer::Ping(0)).await;
    assert!(matches!(client.message().await, FromServer::Pong(_)));
    drop(client);
    let (mut cut, _attached) = resume(&cluster, RESUME, resumed).await;
    hears_a_resume(&mut cut).await;
    assert_eq!(cut.hear().await, Heard::Close(None));
    let (mut kept, _attached) = resume(&cluster, RESUME, resumed).await;
    hears_a_resume(&mut kept).await;
    kept.send(ToServer::Ping(0)).await;
    assert!(matches!(kept.message().await, FromServer::Pong(_)));
}
