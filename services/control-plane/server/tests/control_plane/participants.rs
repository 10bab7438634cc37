//! Participants by the public API: what is asked is asked of their node.

use headwater_control_plane::Config;
use headwater_proto::node::v1::CloseReason;
use headwater_proto::v1::*;
use prost_types::FieldMask;
use tonic::{Code, Status};

use crate::support::{Bench, eventually, fields, reason};

const ADA: &str = "rooms/plaza/participants/ada";
const NOBODY: &str = "rooms/plaza/participants/nobody";

/// A room with ada, who publishes, bob and eve.
async fn bench() -> Bench {
    let bench = Bench::start(1, &["a"]).await;
    bench.create(0, "plaza").await.unwrap();
    eventually("the node is told", || async { bench.node("a").carries("plaza") }).await;
    bench.node("a").join("plaza", "eve", &[]);
    bench.node("a").join("plaza", "ada", &["TR_1"]);
    bench.node("a").join("plaza", "bob", &[]);
    bench
}

async fn page(
    bench: &Bench,
    page_size: u32,
    page_token: String,
) -> Result<(Vec<Participant>, String), Status> {
    let request = ListParticipantsRequest { parent: "rooms/plaza".into(), page_size, page_token };
    let request = bench.with(bench.admin("plaza"), request);
    let answer = bench.replicas[0].rooms.clone().list_participants(request).await?.into_inner();
    Ok((answer.participants, answer.next_page_token))
}

async fn update(
    bench: &Bench,
    participant: Participant,
    permission: Option<ParticipantPermission>,
    mask: &[&str],
) -> Result<Participant, Status> {
    let paths: Vec<_> = mask.iter().map(|path| (*path).to_owned()).collect();
    let request = UpdateParticipantRequest {
        participant: Some(participant),
        permission,
        update_mask: (!paths.is_empty()).then_some(FieldMask { paths }),
    };
    let request = bench.with(bench.admin("plaza"), request);
    let answer = bench.replicas[0].rooms.clone().update_participant(request).await?;
    Ok(answer.into_inner().participant.unwrap())
}

async fn mute(bench: &Bench, who: &str, track_uid: &str, muted: bool) -> Result<Track, Status> {
    let request = MuteTrackRequest { participant: who.into(), track_uid: track_uid.into(), muted };
    let request = bench.with(bench.admin("plaza"), request);
    let answer = bench.replicas[0].rooms.clone().mute_track(request).await?;
    Ok(answer.into_inner().track.unwrap())
}

#[tokio::test]
async fn participants_are_listed_by_identity_in_pages_and_read() {
    let bench = bench().await;
    let (first, next) = page(&bench, 2, String::new()).await.unwrap();
    let (rest, end) = page(&bench, 2, next).await.unwrap();
    let identities: Vec<_> =
        first.iter().chain(&rest).map(|participant| participant.identity.as_str()).collect();
    assert_eq!((identities, end.as_str()), (vec!["ada", "bob", "eve"], ""));

    let request = GetParticipantRequest { name: ADA.into() };
    let request = bench.with(bench.admin("plaza"), request);
    let answer = bench.replicas[0].rooms.clone().get_participant(request).await.unwrap();
    let ada = answer.into_inner().participant.unwrap();
    assert_eq!(ada, first[0]);
    assert_eq!((ada.name.as_str(), ada.state()), (ADA, ParticipantState::Active));
    assert_eq!(ada.tracks[0].uid, "TR_1");
}

#[tokio::test]
async fn who_is_not_there_is_not_found() {
    let bench = bench().await;
    let mut rooms = bench.replicas[0].rooms.clone();
    let get = GetParticipantRequest { name: NOBODY.into() };
    let get = rooms.get_participant(bench.with(bench.admin("plaza"), get)).await.map(drop);
    let remove = RemoveParticipantRequest { name: NOBODY.into(), ..Default::default() };
    let remove = rooms.remove_participant(bench.with(bench.admin("plaza"), remove)).await.map(drop);
    let participant = Participant { name: NOBODY.into(), ..Default::default() };
    let update = update(&bench, participant, None, &[]).await.map(drop);
    let muted = mute(&bench, NOBODY, "TR_1", true).await.map(drop);
    let track = mute(&bench, ADA, "TR_2", true).await.map(drop);
    for refused in [get, remove, update, muted, track] {
        let refused = refused.unwrap_err();
        assert_eq!((refused.code(), reason(&refused)), (Code::NotFound, "NOT_FOUND".into()));
    }
    let request = ListParticipantsRequest { parent: "rooms/void".into(), ..Default::default() };
    let refused = rooms.list_participants(bench.with(bench.admin("void"), request)).await;
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_removed_participant_is_told_why() {
    let bench = bench().await;
    let request = RemoveParticipantRequest {
        name: ADA.into(),
        request_id: "7f9c24e5-1c1a-4b0e-9d5a-6d3f0a8d2b11".into(),
    };
    for _ in 0..2 {
        let request = bench.with(bench.admin("plaza"), request.clone());
        bench.replicas[0].rooms.clone().remove_participant(request).await.unwrap();
    }
    let removed = bench.node("a").memory().removed.clone();
    assert_eq!(removed, [("ada".to_owned(), CloseReason::Removed)]);
}

#[tokio::test]
async fn tracks_are_muted_and_unmuted_only_where_the_operator_allows_it() {
    let mut bench = bench().await;
    assert!(mute(&bench, ADA, "TR_1", true).await.unwrap().muted);
    let refused = mute(&bench, ADA, "TR_1", false).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::FailedPrecondition, "UNMUTE_NOT_ALLOWED".into())
    );
    assert_eq!(fields(&mute(&bench, ADA, "", true).await.unwrap_err()), ["track_uid"]);
    bench.replicas.remove(0).stop.cancel();
    bench.add_replica(Config { allow_unmute: true, ..Config::default() }).await;
    bench.all_met().await;
    assert!(!mute(&bench, ADA, "TR_1", false).await.unwrap().muted);
}

#[tokio::test]
async fn an_update_of_a_participant_changes_what_its_mask_names() {
    let bench = bench().await;
    let wanted = Participant {
        name: ADA.into(),
        display_name: "Ada".into(),
        metadata: "m".into(),
        attributes: [("hand".to_owned(), "up".to_owned())].into(),
        ..Default::default()
    };
    let ada = update(&bench, wanted.clone(), None, &["display_name"]).await.unwrap();
    assert_eq!((ada.display_name.as_str(), ada.metadata.as_str()), ("Ada", ""));
    let ada = update(&bench, wanted.clone(), None, &[]).await.unwrap();
    assert_eq!((ada.metadata.as_str(), ada.attributes["hand"].as_str()), ("m", "up"));
    let lowered = Participant {
        name: ADA.into(),
        attributes: [("hand".to_owned(), String::new())].into(),
        ..Default::default()
    };
    let ada = update(&bench, lowered, None, &["attributes"]).await.unwrap();
    assert_eq!((ada.attributes.len(), ada.metadata.as_str()), (0, "m"));
    let hidden = ParticipantPermission { hidden: true, ..Default::default() };
    assert!(update(&bench, wanted.clone(), Some(hidden), &["permission"]).await.unwrap().hidden);

    let refused = update(&bench, wanted.clone(), None, &["permission"]).await.unwrap_err();
    assert_eq!(fields(&refused), ["permission"]);
    let refused = update(&bench, wanted, None, &["identity"]).await.unwrap_err();
    assert_eq!(fields(&refused), ["update_mask"]);
}

#[tokio::test]
async fn subscriptions_and_data_reach_the_node() {
    let bench = bench().await;
    let mut rooms = bench.replicas[0].rooms.clone();
    let request = UpdateSubscriptionsRequest {
        participant: "rooms/plaza/participants/bob".into(),
        track_uids: vec!["TR_1".into()],
        subscribe: false,
    };
    rooms.update_subscriptions(bench.with(bench.admin("plaza"), request)).await.unwrap();
    let (who, update) = bench.node("a").memory().subscriptions[0].clone();
    assert_eq!(
        (who.as_str(), update.track_uids, update.subscribe),
        ("bob", vec!["TR_1".into()], false)
    );
    let request = UpdateSubscriptionsRequest { participant: ADA.into(), ..Default::default() };
    let refused = rooms.update_subscriptions(bench.with(bench.admin("plaza"), request)).await;
    assert_eq!(fields(&refused.unwrap_err()), ["track_uids"]);

    let data = SendDataRequest {
        room: "rooms/plaza".into(),
        payload: b"hello".to_vec(),
        delivery: DataDelivery::Lossy.into(),
        destination_identities: vec!["ada".into()],
        topic: "chat".into(),
    };
    rooms.send_data(bench.with(bench.admin("plaza"), data.clone())).await.unwrap();
    let sent = bench.node("a").memory().data[0].clone();
    assert_eq!(
        (sent.payload, sent.reliable, sent.topic),
        (b"hello".to_vec(), false, "chat".into())
    );
    assert_eq!((sent.room_id, sent.destination_identities), ("plaza".into(), vec!["ada".into()]));
    let large = SendDataRequest { payload: vec![0; 15 * 1024 + 1], ..data };
    let refused = rooms.send_data(bench.with(bench.admin("plaza"), large)).await.unwrap_err();
    assert_eq!(fields(&refused), ["payload"]);
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_said_to_be_unreachable() {
    let bench = bench().await;
    bench.node("a").kill();
    let refused = page(&bench, 0, String::new()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, "NODE_UNREACHABLE".into()));
    assert!(headwater_rpc::status::retry_after(&refused).is_some());
}
