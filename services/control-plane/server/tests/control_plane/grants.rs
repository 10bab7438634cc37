//! Every public call without its grant, with a bad token, and without a token.

use headwater_model::Grants;
use headwater_proto::control::v1::placement_service_client::PlacementServiceClient;
use headwater_proto::v1::*;
use headwater_rpc::{ClientTls, ClusterCredential, connect};
use secrecy::SecretString;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::support::bench::place_request;
use crate::support::{Bench, reason};

const WHO: &str = "rooms/plaza/participants/ada";

/// One call, well formed, with whatever token.
async fn call(bench: &Bench, method: &str, token: Option<&str>) -> Result<(), Status> {
    fn with<T>(token: Option<&str>, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        request
    }
    let room = || "rooms/plaza".to_owned();
    let mut rooms = bench.replicas[0].rooms.clone();
    let mut cluster = bench.replicas[0].cluster.clone();
    match method {
        "CreateRoom" => {
            let request = CreateRoomRequest { room_id: "other".into(), ..Default::default() };
            rooms.create_room(with(token, request)).await.map(drop)
        }
        "GetRoom" => rooms.get_room(with(token, GetRoomRequest { name: room() })).await.map(drop),
        "ListRooms" => rooms.list_rooms(with(token, ListRoomsRequest::default())).await.map(drop),
        "UpdateRoom" => {
            let wanted = Room { name: room(), ..Room::default() };
            let request = UpdateRoomRequest { room: Some(wanted), ..Default::default() };
            rooms.update_room(with(token, request)).await.map(drop)
        }
        "DeleteRoom" => {
            let request = DeleteRoomRequest { name: room(), ..Default::default() };
            rooms.delete_room(with(token, request)).await.map(drop)
        }
        "IssueToken" => {
            let request =
                IssueTokenRequest { room: room(), identity: "ada".into(), ..Default::default() };
            rooms.issue_token(with(token, request)).await.map(drop)
        }
        "ListParticipants" => {
            let request = ListParticipantsRequest { parent: room(), ..Default::default() };
            rooms.list_participants(with(token, request)).await.map(drop)
        }
        "GetParticipant" => {
            let request = GetParticipantRequest { name: WHO.into() };
            rooms.get_participant(with(token, request)).await.map(drop)
        }
        "UpdateParticipant" => {
            let participant = Participant { name: WHO.into(), ..Default::default() };
            let request =
                UpdateParticipantRequest { participant: Some(participant), ..Default::default() };
            rooms.update_participant(with(token, request)).await.map(drop)
        }
        "RemoveParticipant" => {
            let request = RemoveParticipantRequest { name: WHO.into(), ..Default::default() };
            rooms.remove_participant(with(token, request)).await.map(drop)
        }
        "MuteTrack" => {
            let request =
                MuteTrackRequest { participant: WHO.into(), track_uid: "TR_1".into(), muted: true };
            rooms.mute_track(with(token, request)).await.map(drop)
        }
        "UpdateSubscriptions" => {
            let request = UpdateSubscriptionsRequest {
                participant: WHO.into(),
                track_uids: vec!["TR_1".into()],
                subscribe: true,
            };
            rooms.update_subscriptions(with(token, request)).await.map(drop)
        }
        "SendData" => {
            let request = SendDataRequest { room: room(), ..Default::default() };
            rooms.send_data(with(token, request)).await.map(drop)
        }
        "ListNodes" => cluster.list_nodes(with(token, ListNodesRequest::default())).await.map(drop),
        "GetNode" => {
            let request = GetNodeRequest { name: "nodes/a".into() };
            cluster.get_node(with(token, request)).await.map(drop)
        }
        other => panic!("no such method: {other}"),
    }
}

/// Which grants open which call: create, list, admin of the room.
const MATRIX: [(&str, [bool; 3]); 15] = [
    ("CreateRoom", [true, false, false]),
    ("GetRoom", [false, true, true]),
    ("ListRooms", [false, true, false]),
    ("UpdateRoom", [true, false, true]),
    ("DeleteRoom", [true, false, false]),
    ("IssueToken", [false, false, true]),
    ("ListParticipants", [false, false, true]),
    ("GetParticipant", [false, false, true]),
    ("UpdateParticipant", [false, false, true]),
    ("RemoveParticipant", [false, false, true]),
    ("MuteTrack", [false, false, true]),
    ("UpdateSubscriptions", [false, false, true]),
    ("SendData", [false, false, true]),
    ("ListNodes", [false, true, false]),
    ("GetNode", [false, true, false]),
];

#[tokio::test]
async fn every_call_is_refused_without_its_grant_and_only_then() {
    let bench = Bench::start(1, &["a"]).await;
    bench.create(0, "plaza").await.unwrap();
    let own = [
        Grants { room_create: true, ..Grants::default() },
        Grants { room_list: true, ..Grants::default() },
        bench.admin("plaza"),
    ];
    let never = [
        Grants::default(),
        bench.admin("elsewhere"),
        Grants {
            room: "plaza".into(),
            room_join: true,
            identity: "ada".into(),
            ..Grants::default()
        },
        Grants { room_record: true, recorder: true, agent: true, ..Grants::default() },
    ];
    for (method, opens) in MATRIX {
        for grants in
            never.iter().chain(own.iter().zip(opens).filter_map(|(g, o)| (!o).then_some(g)))
        {
            let refused =
                call(&bench, method, Some(&bench.token(grants.clone()))).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{method} with {grants:?}");
            assert_eq!(reason(&refused), "GRANT_MISSING");
            assert!(refused.get_details_error_info().unwrap().metadata.contains_key("grant"));
        }
    }
    for (method, opens) in MATRIX {
        for grants in own.iter().zip(opens).filter_map(|(grants, opens)| opens.then_some(grants)) {
            let outcome = call(&bench, method, Some(&bench.token(grants.clone()))).await;
            let code = outcome.map_or_else(|status| status.code(), |()| Code::Ok);
            let expected = matches!(code, Code::Ok | Code::NotFound | Code::AlreadyExists);
            assert!(expected, "{method} with {grants:?}: {code:?}");
        }
    }
}

#[tokio::test]
async fn no_token_and_bad_tokens_are_told_apart() {
    let bench = Bench::start(1, &[]).await;
    let good = bench.token(bench.everything());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let other_char = if signature.starts_with('A') { "B" } else { "A" };
    let altered = format!("{signed}.{other_char}{}", &signature[1..]);
    let other_keys = headwater_rpc::KeyRing::single("devkey", "another secret").unwrap();
    let request = headwater_rpc::TokenRequest {
        grants: bench.everything(),
        ttl: std::time::Duration::from_secs(60),
    };
    let forged = other_keys.mint(&request, headwater_rpc::token::unix_seconds()).unwrap();
    let old = bench.keys.mint(&request, 1_000_000).unwrap();
    for (method, _) in MATRIX {
        for (token, expected) in [
            (None, "token_missing"),
            (Some("nonsense"), "token_malformed"),
            (Some(signed), "token_malformed"),
            (Some(altered.as_str()), "signature_invalid"),
            (Some(forged.as_str()), "signature_invalid"),
            (Some(old.as_str()), "token_expired"),
        ] {
            let refused = call(&bench, method, token).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated, "{method} {expected}");
            let info = refused.get_details_error_info().unwrap();
            assert_eq!(
                (info.reason.as_str(), info.metadata["token"].as_str()),
                ("TOKEN_REFUSED", expected)
            );
        }
    }
}

#[tokio::test]
async fn placement_is_for_the_roles_of_the_cluster_only() {
    let bench = Bench::start(1, &["a"]).await;
    let stranger = ClusterCredential::new(&SecretString::from("not the cluster's secret")).unwrap();
    for credential in [None, Some(stranger)] {
        let connection =
            connect(&bench.replicas[0].url, &ClientTls::default(), credential).unwrap();
        let mut placement = PlacementServiceClient::new(connection);
        // A token of the public API is no credential either.
        let mut request = Request::new(place_request("plaza"));
        let value = format!("Bearer {}", bench.token(bench.everything())).parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        let refused = placement.place_participant(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert_eq!(reason(&refused), "CLUSTER_CREDENTIAL_REFUSED");
    }
    assert_eq!(bench.get(0, "plaza").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn an_issued_token_lets_one_identity_join_one_room_and_nothing_else() {
    let bench = Bench::start(1, &[]).await;
    let request = IssueTokenRequest {
        room: "rooms/plaza".into(),
        identity: "ada".into(),
        display_name: "Ada".into(),
        metadata: "m".into(),
        attributes: [("role".to_owned(), "speaker".to_owned())].into(),
        ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        permission: Some(ParticipantPermission {
            can_subscribe: true,
            can_publish: true,
            can_publish_sources: vec![TrackSource::Microphone.into()],
            ..ParticipantPermission::default()
        }),
    };
    let mut rooms = bench.replicas[0].rooms.clone();
    let answer = rooms.issue_token(bench.with(bench.admin("plaza"), request)).await.unwrap();
    let answer = answer.into_inner();
    let now = headwater_rpc::token::unix_seconds();
    let grants = bench.keys.verify(&answer.token, now).unwrap();
    assert_eq!((grants.api_key.as_str(), grants.identity.as_str()), ("devkey", "ada"));
    assert_eq!((grants.room.as_str(), grants.room_join), ("plaza", true));
    assert_eq!((grants.display_name.as_str(), grants.metadata.as_str()), ("Ada", "m"));
    assert_eq!(grants.attributes["role"], "speaker");
    assert!(!grants.room_admin && !grants.room_create && !grants.room_list);
    assert!(grants.permission.can_publish && !grants.permission.can_publish_data);
    assert_eq!(
        grants.permission.can_publish_sources,
        [headwater_model::media::TrackSource::Microphone]
    );
    assert!((now + 55..=now + 61).contains(&grants.expires_at));
    assert_eq!(answer.expire_time.unwrap().seconds.unsigned_abs(), grants.expires_at);
}
