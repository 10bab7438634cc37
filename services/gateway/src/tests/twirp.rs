//! LiveKit's server API, every method in both encodings.

use headwater_model::Grants;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use livekit_protocol as lk;
use serde_json::{Value, json};
use tonic::Status;

use super::client::http;
use super::cluster::{Cluster, ada, token};

fn admin() -> Grants {
    Grants {
        room: "lobby".into(),
        room_admin: true,
        room_create: true,
        room_list: true,
        ..Default::default()
    }
}

async fn post(
    cluster: &Cluster,
    path: &str,
    bearer: Option<&str>,
    content_type: &str,
    body: Vec<u8>,
) -> Response<Bytes> {
    let mut request = Request::post(cluster.url(path)).header(header::CONTENT_TYPE, content_type);
    if let Some(token) = bearer {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    http(request.body(Full::new(body.into())).unwrap()).await
}

/// Calls a method in both encodings, checks that they agree, and gives the JSON
/// and the control plane's view of one of the calls.
async fn call<Q, A>(cluster: &Cluster, method: &str, request: Q) -> (Value, A)
where
    Q: prost::Message + serde::Serialize,
    A: prost::Message + Default + serde::de::DeserializeOwned + PartialEq,
{
    let path = format!("/twirp/livekit.RoomService/{method}");
    let token = token(&admin());
    let json = serde_json::to_vec(&request).unwrap();
    let content_type = "application/json;charset=UTF-8";
    let by_json = post(cluster, &path, Some(&token), content_type, json).await;
    assert_eq!(by_json.status(), StatusCode::OK, "{method}: {:?}", by_json.body());
    assert_eq!(by_json.headers()[header::CONTENT_TYPE], "application/json");
    let content_type = "application/protobuf";
    let bytes = request.encode_to_vec();
    let by_bytes = post(cluster, &path, Some(&token), content_type, bytes).await;
    assert_eq!(by_bytes.status(), StatusCode::OK, "{method}: {:?}", by_bytes.body());
    assert_eq!(by_bytes.headers()[header::CONTENT_TYPE], "application/protobuf");
    let answer = A::decode(by_bytes.body().clone()).unwrap();
    let text: Value = serde_json::from_slice(by_json.body()).unwrap();
    let from_json: A = serde_json::from_value(text.clone()).unwrap();
    assert!(from_json == answer, "{method}: the encodings disagree: {text}");
    let calls = cluster.control.calls();
    let bearers: Vec<&str> = calls.iter().map(|(_, bearer, _)| bearer.as_str()).collect();
    assert!(bearers.iter().all(|bearer| *bearer == format!("Bearer {token}")), "{bearers:?}");
    (text, answer)
}

/// What the control plane was asked last.
fn last(cluster: &Cluster) -> (String, String) {
    let (method, _, request) = cluster.control.calls().pop().unwrap();
    (method, request)
}

#[tokio::test]
async fn create_room_makes_a_room() {
    let cluster = Cluster::start().await;
    let request = lk::CreateRoomRequest {
        name: "lobby".into(),
        max_participants: 9,
        empty_timeout: 60,
        ..Default::default()
    };
    let (json, room): (_, lk::Room) = call(&cluster, "CreateRoom", request).await;
    assert_eq!((room.name.as_str(), room.max_participants, room.empty_timeout), ("lobby", 9, 60));
    assert_eq!((&json["max_participants"], &json["num_participants"]), (&json!(9), &json!(0)));
    assert_eq!(json["departure_timeout"], 20);
}

#[tokio::test]
async fn create_room_answers_the_room_that_is_there() {
    let cluster = Cluster::start().await;
    let token = token(&Grants { room_create: true, ..Default::default() });
    let path = "/twirp/livekit.RoomService/CreateRoom";
    cluster.control.fail(Status::already_exists("there"));
    let body = br#"{"name":"lobby"}"#.to_vec();
    let answer = post(&cluster, path, Some(&token), "application/json", body).await;
    assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.body());
    let json: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!((json["name"].as_str(), json["metadata"].as_str()), (Some("lobby"), Some("about")));
    assert_eq!(last(&cluster).0, "GetRoom");
}

#[tokio::test]
async fn create_room_applies_what_it_names_to_the_room_that_is_there() {
    let cluster = Cluster::start().await;
    cluster.control.fail(Status::already_exists("there"));
    let token = token(&admin());
    let path = "/twirp/livekit.RoomService/CreateRoom";
    let body = br#"{"name":"lobby","metadata":"new","maxParticipants":4}"#.to_vec();
    let answer = post(&cluster, path, Some(&token), "application/json", body).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let (method, request) = last(&cluster);
    assert_eq!(method, "UpdateRoom");
    assert!(request.contains(r#"paths: ["metadata", "max_participants"]"#), "{request}");
}

#[tokio::test]
async fn list_rooms_follows_the_pages() {
    let cluster = Cluster::start().await;
    let request = lk::ListRoomsRequest { names: vec!["a".into(), "b".into()] };
    let (json, rooms): (_, lk::ListRoomsResponse) = call(&cluster, "ListRooms", request).await;
    let names: Vec<&str> = rooms.rooms.iter().map(|room| room.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(json["rooms"][0]["creation_time"], "1700000000");
    assert!(last(&cluster).1.contains(r#"names: ["rooms/a", "rooms/b"]"#));
}

#[tokio::test]
async fn delete_room_deletes() {
    let cluster = Cluster::start().await;
    let request = lk::DeleteRoomRequest { room: "lobby".into() };
    let (json, _): (_, lk::DeleteRoomResponse) = call(&cluster, "DeleteRoom", request).await;
    assert_eq!(json, json!({}));
    assert!(last(&cluster).1.contains(r#"name: "rooms/lobby""#));
}

#[tokio::test]
async fn list_participants_follows_the_pages() {
    let cluster = Cluster::start().await;
    let request = lk::ListParticipantsRequest { room: "lobby".into() };
    let (json, answer): (_, lk::ListParticipantsResponse) =
        call(&cluster, "ListParticipants", request).await;
    let who: Vec<&str> = answer.participants.iter().map(|it| it.identity.as_str()).collect();
    assert_eq!(who, ["ada", "bob"]);
    assert_eq!(json["participants"][0]["tracks"][0]["source"], "CAMERA");
    assert_eq!(json["participants"][0]["state"], "ACTIVE");
}

#[tokio::test]
async fn get_participant_reads_one() {
    let cluster = Cluster::start().await;
    let request = identity("ada");
    let (_, answer): (_, lk::ParticipantInfo) = call(&cluster, "GetParticipant", request).await;
    assert_eq!((answer.sid.as_str(), answer.name.as_str()), ("PA_ada", "Somebody"));
    assert!(answer.is_publisher);
}

fn identity(identity: &str) -> lk::RoomParticipantIdentity {
    lk::RoomParticipantIdentity {
        room: "lobby".into(),
        identity: identity.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn remove_participant_removes() {
    let cluster = Cluster::start().await;
    let _: (_, lk::RemoveParticipantResponse) =
        call(&cluster, "RemoveParticipant", identity("org/ada")).await;
    assert!(last(&cluster).1.contains(r#"name: "rooms/lobby/participants/org/ada""#));
}

#[tokio::test]
async fn mute_published_track_answers_the_track() {
    let cluster = Cluster::start().await;
    let request = lk::MuteRoomTrackRequest {
        room: "lobby".into(),
        identity: "ada".into(),
        track_sid: "TR_VC1".into(),
        muted: true,
    };
    let (json, answer): (_, lk::MuteRoomTrackResponse) =
        call(&cluster, "MutePublishedTrack", request).await;
    assert!(answer.track.unwrap().muted);
    assert_eq!(json["track"]["type"], "VIDEO");
}

#[tokio::test]
async fn update_participant_names_what_is_set() {
    let cluster = Cluster::start().await;
    let request = lk::UpdateParticipantRequest {
        room: "lobby".into(),
        identity: "ada".into(),
        name: "Countess".into(),
        permission: Some(lk::ParticipantPermission { can_subscribe: true, ..Default::default() }),
        attributes: [("seat".to_owned(), "1".to_owned())].into(),
        ..Default::default()
    };
    let (_, answer): (_, lk::ParticipantInfo) = call(&cluster, "UpdateParticipant", request).await;
    assert_eq!(answer.name, "Countess");
    let (_, request) = last(&cluster);
    assert!(
        request.contains(r#"paths: ["display_name", "attributes", "permission"]"#),
        "{request}"
    );
}

#[tokio::test]
async fn update_participant_that_names_nothing_reads() {
    let cluster = Cluster::start().await;
    let request = lk::UpdateParticipantRequest {
        room: "lobby".into(),
        identity: "ada".into(),
        ..Default::default()
    };
    let _: (_, lk::ParticipantInfo) = call(&cluster, "UpdateParticipant", request).await;
    assert_eq!(last(&cluster).0, "GetParticipant");
}

#[tokio::test]
async fn update_subscriptions_takes_both_lists() {
    let cluster = Cluster::start().await;
    let request = lk::UpdateSubscriptionsRequest {
        room: "lobby".into(),
        identity: "ada".into(),
        track_sids: vec!["TR_1".into()],
        subscribe: true,
        participant_tracks: vec![lk::ParticipantTracks {
            participant_sid: "PA_bob".into(),
            track_sids: vec!["TR_2".into()],
        }],
    };
    let _: (_, lk::UpdateSubscriptionsResponse) =
        call(&cluster, "UpdateSubscriptions", request).await;
    assert!(last(&cluster).1.contains(r#"track_uids: ["TR_1", "TR_2"]"#));
}

#[tokio::test]
#[expect(deprecated, reason = "older callers name receivers by sid")]
async fn send_data_finds_receivers_by_identity_and_by_sid() {
    let cluster = Cluster::start().await;
    let request = lk::SendDataRequest {
        room: "lobby".into(),
        data: b"hello".to_vec(),
        kind: lk::data_packet::Kind::Lossy.into(),
        destination_sids: vec!["PA_bob".into()],
        destination_identities: vec!["ada".into()],
        topic: Some("chat".into()),
        nonce: vec![0; 16],
    };
    let _: (_, lk::SendDataResponse) = call(&cluster, "SendData", request).await;
    let (method, request) = last(&cluster);
    assert_eq!(method, "SendData");
    assert!(request.contains(r#"destination_identities: ["ada", "bob"]"#), "{request}");
    assert!(request.contains("delivery: Lossy") && request.contains(r#"topic: "chat""#));
}

#[tokio::test]
#[expect(deprecated, reason = "older callers name receivers by sid")]
async fn send_data_to_somebody_who_left_reaches_nobody() {
    let cluster = Cluster::start().await;
    let request = lk::SendDataRequest {
        room: "lobby".into(),
        destination_sids: vec!["PA_gone".into()],
        ..Default::default()
    };
    let _: (_, lk::SendDataResponse) = call(&cluster, "SendData", request).await;
    assert!(cluster.control.calls().iter().all(|(method, _, _)| method == "ListParticipants"));
}

#[tokio::test]
async fn update_room_metadata_answers_the_room() {
    let cluster = Cluster::start().await;
    let request = lk::UpdateRoomMetadataRequest { room: "lobby".into(), metadata: "new".into() };
    let (_, room): (_, lk::Room) = call(&cluster, "UpdateRoomMetadata", request).await;
    assert_eq!((room.name.as_str(), room.metadata.as_str()), ("lobby", "new"));
    assert!(last(&cluster).1.contains(r#"paths: ["metadata"]"#));
}

async fn error(
    cluster: &Cluster,
    path: &str,
    bearer: Option<&str>,
    content_type: &str,
    body: &[u8],
) -> (u16, String, String) {
    let answer = post(cluster, path, bearer, content_type, body.to_vec()).await;
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json", "{path}");
    let json: Value = serde_json::from_slice(answer.body()).unwrap();
    let text = |name: &str| json[name].as_str().unwrap().to_owned();
    (answer.status().as_u16(), text("code"), text("msg"))
}

const LIST: &str = "/twirp/livekit.RoomService/ListRooms";

#[tokio::test]
async fn errors_have_twirps_codes_and_statuses() {
    let cluster = Cluster::start().await;
    let good = token(&admin());
    let json = "application/json";
    let code = async |path: &str, bearer: Option<&str>, content_type: &str, body: &[u8]| {
        let (status, code, _) = error(&cluster, path, bearer, content_type, body).await;
        (status, code)
    };
    let expected = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(code(LIST, None, json, b"{}").await, expected(401, "unauthenticated"));
    assert_eq!(code(LIST, Some("x"), json, b"{}").await, expected(401, "unauthenticated"));
    assert_eq!(code(LIST, Some(&good), "text/plain", b"").await, expected(404, "bad_route"));
    assert_eq!(code(LIST, Some(&good), json, b"{").await, expected(400, "malformed"));
    let protobuf = "application/protobuf";
    assert_eq!(code(LIST, Some(&good), protobuf, b"\xff").await, expected(400, "malformed"));
    let none = "/twirp/livekit.RoomService/Nothing";
    assert_eq!(code(none, Some(&good), json, b"{}").await, expected(404, "bad_route"));
    let egress = "/twirp/livekit.Egress/ListEgress";
    assert_eq!(code(egress, Some(&good), json, b"{}").await, expected(501, "unimplemented"));
    let delete = "/twirp/livekit.RoomService/DeleteRoom";
    assert_eq!(code(delete, Some(&good), json, b"{}").await, expected(400, "invalid_argument"));
    assert!(cluster.control.calls().is_empty(), "nothing of this reached the control plane");
}

#[tokio::test]
async fn errors_of_the_control_plane_are_passed_on() {
    let cluster = Cluster::start().await;
    let good = token(&admin());
    let cases = [
        (Status::permission_denied("roomList"), 401, "unauthenticated"),
        (Status::unauthenticated("no"), 401, "unauthenticated"),
        (Status::failed_precondition("unmute"), 412, "failed_precondition"),
        (Status::resource_exhausted("slow"), 429, "resource_exhausted"),
        (Status::aborted("etag"), 409, "aborted"),
        (Status::internal("bug"), 500, "internal"),
        (Status::unimplemented("no"), 501, "unimplemented"),
    ];
    for (status, http_status, code) in cases {
        cluster.control.fail(status);
        let answer = error(&cluster, LIST, Some(&good), "application/json", b"{}").await;
        assert_eq!((answer.0, answer.1.as_str()), (http_status, code));
    }
    let named = [
        ("DeleteRoom", r#"{"room":"lobby"}"#, "requested room does not exist"),
        ("GetParticipant", r#"{"room":"lobby","identity":"x"}"#, "participant does not exist"),
    ];
    for (method, body, msg) in named {
        cluster.control.fail(Status::not_found("rooms/lobby"));
        let path = format!("/twirp/livekit.RoomService/{method}");
        let answer = error(&cluster, &path, Some(&good), "application/json", body.as_bytes()).await;
        assert_eq!(answer, (404, "not_found".to_owned(), msg.to_owned()));
    }
}

#[tokio::test]
async fn a_body_over_ten_mebibytes_is_too_large() {
    let cluster = Cluster::start().await;
    let good = token(&admin());
    let body = vec![b' '; (10 << 20) + 1];
    let answer = error(&cluster, LIST, Some(&good), "application/json", &body).await;
    assert_eq!((answer.0, answer.1.as_str()), (413, "resource_exhausted"));
}

#[tokio::test]
async fn a_get_is_a_bad_route_and_a_token_to_join_is_passed_on_all_the_same() {
    let cluster = Cluster::start().await;
    let answer = http(Request::get(cluster.url(LIST)).body(Full::default()).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let json: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(json["code"], "bad_route");
    assert_eq!(json["meta"]["twirp_invalid_route"], format!("GET {LIST}"));
    // The control plane decides by the grants.
    cluster.control.fail(Status::permission_denied("needs roomList"));
    let joiner = token(&ada());
    let answer = error(&cluster, LIST, Some(&joiner), "application/json", b"{}").await;
    assert_eq!(answer.0, 401);
    assert_eq!(cluster.control.calls().len(), 1);
}
