//! Who is not let in, and how it is told, the same on every path.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use headwater_proto::control::v1::Admission;
use headwater_proto::node::v1::{CloseAction, CloseReason};
use headwater_rpc::token::unix_seconds;
use headwater_rpc::{KeyRing, TokenRequest};
use http::StatusCode;
use serde_json::json;

use super::client::{Client, get, get_with, plain_join, wrapped};
use super::cluster::{Cluster, ada, token};

/// Every way in: connecting and validating, v0 and v1.
fn paths() -> [(String, String); 2] {
    let v1 = format!("join_request={}", wrapped(&plain_join()));
    [
        ("/rtc?".to_owned(), "/rtc/validate?".to_owned()),
        (format!("/rtc/v1?{v1}"), format!("/rtc/v1/validate?{v1}")),
    ]
}

/// Tries a token on every way in and gives the one answer of all of them.
async fn refusal(cluster: &Cluster, token: &str) -> (StatusCode, String) {
    let mut answers = Vec::new();
    for (connect, validate) in paths() {
        answers.push(Client::connect(cluster, &connect, Some(token)).await.unwrap_err());
        let in_query = format!("{connect}&access_token={token}");
        answers.push(Client::connect(cluster, &in_query, None).await.unwrap_err());
        answers.push(get(&cluster.url(&format!("{validate}&access_token={token}"))).await);
    }
    let first = answers[0].clone();
    assert!(answers.iter().all(|answer| *answer == first), "{token}: {answers:?}");
    first
}

/// A token of these parts, signed by nobody who matters.
fn forged(header: &serde_json::Value, payload: &serde_json::Value, signature: &str) -> String {
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(payload))
}

/// Signed with the right key, whatever it says.
fn minted(change: impl FnOnce(&mut headwater_model::Grants)) -> String {
    let mut grants = ada();
    change(&mut grants);
    token(&grants)
}

fn minted_at(now: u64) -> String {
    let request = TokenRequest { grants: ada(), ttl: std::time::Duration::from_secs(60) };
    super::cluster::keys().mint(&request, now).unwrap()
}

fn minted_by(key: &str, secret: &str) -> String {
    let request = TokenRequest { grants: ada(), ttl: std::time::Duration::from_secs(60) };
    KeyRing::single(key, secret).unwrap().mint(&request, unix_seconds()).unwrap()
}

#[tokio::test]
async fn bad_tokens_are_unauthorized_everywhere() {
    let cluster = Cluster::start().await;
    let good = token(&ada());
    let parts: Vec<&str> = good.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let claims = json!({
        "iss": "devkey", "sub": "ada", "exp": unix_seconds() + 600,
        "video": {"room": "lobby", "roomJoin": true},
    });
    let now = unix_seconds();
    let bad = [
        ("garbage", "x".to_owned()),
        ("two parts", format!("{header}.{payload}")),
        ("four parts", format!("{good}.{signature}")),
        ("empty signature", format!("{header}.{payload}.")),
        ("truncated signature", good[..good.len() - 2].to_owned()),
        ("truncated payload", format!("{header}.{}.{signature}", &payload[..payload.len() - 4])),
        ("swapped payload", forged(&json!({"alg": "HS256"}), &claims, signature)),
        ("header not JSON", format!("bm90anNvbg.{payload}.{signature}")),
        ("payload not base64", format!("{header}.!!!.{signature}")),
        ("alg none", forged(&json!({"alg": "none", "typ": "JWT"}), &claims, "")),
        ("alg NONE signed", forged(&json!({"alg": "NONE"}), &claims, signature)),
        ("alg HS384", forged(&json!({"alg": "HS384"}), &claims, signature)),
        ("alg RS256", forged(&json!({"alg": "RS256"}), &claims, signature)),
        ("no alg", forged(&json!({"typ": "JWT"}), &claims, signature)),
        ("wrong secret", minted_by("devkey", "another secret")),
        ("wrong key", minted_by("otherkey", "secret")),
        ("empty issuer", forged(&json!({"alg": "HS256"}), &json!({"sub": "ada"}), signature)),
        ("expired", minted_at(now - 3600)),
        ("not yet valid", minted_at(now + 3600)),
        ("no roomJoin", minted(|grants| grants.room_join = false)),
        (
            "server API only",
            minted(|grants| {
                *grants = headwater_model::Grants { room_create: true, ..Default::default() };
            }),
        ),
        ("padded", format!("{good}%3D")),
        ("whitespace inside", format!("{header}.%20{payload}.{signature}")),
    ];
    assert!(bad.len() >= 20);
    for (what, token) in bad {
        // What only a query can carry is tried there only.
        let (status, text) = if token.contains('%') {
            get(&cluster.url(&format!("/rtc/validate?access_token={token}"))).await
        } else {
            refusal(&cluster, &token).await
        };
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{what}: {text}");
        assert!(!text.is_empty() && !text.contains(&good[..40]), "{what}: {text}");
    }
    assert!(cluster.control.asked().is_empty(), "nobody was placed");
    assert!(cluster.node.is_idle().await, "no node was asked");
    let refused = "headwater_join_attempts_total{reason=\"token\",result=\"refused\"}";
    assert!(cluster.metric(refused) >= 20.0);
}

#[tokio::test]
async fn refusals_have_the_words_that_sdks_know() {
    let cluster = Cluster::start().await;
    let cases = [
        ("x".to_owned(), 401, "invalid authorization token"),
        (minted_by("otherkey", "secret"), 401, "invalid API key"),
        (
            minted_at(unix_seconds() - 3600),
            401,
            "invalid authorization token: the token has expired",
        ),
        (minted(|grants| grants.room_join = false), 401, "permissions denied"),
        (minted(|grants| grants.room.clear()), 400, "no room name"),
        (minted(|grants| grants.identity.clear()), 400, "identity cannot be empty"),
        (
            minted(|grants| grants.identity = "i".repeat(257)),
            400,
            "participant identity length exceeds limits: max length 256",
        ),
        (
            minted(|grants| grants.room = "r".repeat(257)),
            400,
            "room name length exceeds limits: max length 256",
        ),
        (
            minted(|grants| grants.display_name = "n".repeat(257)),
            400,
            "name length exceeds limits: max length 256",
        ),
        (
            minted(|grants| grants.room = "a/b".into()),
            400,
            "room name must not hold control characters or '/'",
        ),
    ];
    for (token, status, text) in cases {
        let answer = refusal(&cluster, &token).await;
        assert_eq!((answer.0.as_u16(), answer.1.as_str()), (status, text));
    }
    assert!(cluster.control.asked().is_empty(), "nobody was placed");
}

#[tokio::test]
async fn no_token_at_all_is_unauthorized() {
    let cluster = Cluster::start().await;
    for (connect, validate) in paths() {
        let no_permission = (StatusCode::UNAUTHORIZED, "no permissions to access the room".into());
        assert_eq!(Client::connect(&cluster, &connect, None).await.unwrap_err(), no_permission);
        assert_eq!(get(&cluster.url(&validate)).await, no_permission);
    }
    let response =
        get_with(&cluster.url("/rtc/validate"), http::header::AUTHORIZATION, "Basic YQ==").await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.body(), "invalid authorization header. Must start with Bearer ");
}

#[tokio::test]
async fn a_join_request_that_cannot_be_read_is_a_bad_request() {
    let cluster = Cluster::start().await;
    let token = token(&ada());
    let cases = [
        ("", "join_request is required"),
        ("***", "cannot base64 decode wrapped join request"),
        ("_____w", "cannot unmarshal wrapped join request"),
    ];
    for (join_request, text) in cases {
        let query = format!("join_request={join_request}&access_token={token}");
        let refused = (StatusCode::BAD_REQUEST, text.to_owned());
        let connect = Client::connect(&cluster, &format!("/rtc/v1?{query}"), None).await;
        assert_eq!(connect.unwrap_err(), refused);
        assert_eq!(get(&cluster.url(&format!("/rtc/v1/validate?{query}"))).await, refused);
    }
    let query = format!("/rtc/validate?attributes=%25&access_token={token}");
    let refused = (StatusCode::BAD_REQUEST, "cannot decode attributes".to_owned());
    assert_eq!(get(&cluster.url(&query)).await, refused);
}

#[tokio::test]
async fn who_may_not_change_itself_brings_no_attributes() {
    let cluster = Cluster::start().await;
    let attributes = URL_SAFE_NO_PAD.encode(r#"{"seat":"12"}"#);
    let path = |token: &str| format!("/rtc/validate?attributes={attributes}&access_token={token}");
    let refused = get(&cluster.url(&path(&token(&ada())))).await;
    assert_eq!(refused.0, StatusCode::UNAUTHORIZED);
    let may = minted(|grants| grants.permission.can_update_metadata = true);
    assert_eq!(get(&cluster.url(&path(&may))).await.0, StatusCode::OK);
}

/// Both answers to somebody with a good token, after the same script twice.
async fn answers(cluster: &Cluster, script: impl Fn()) -> [(StatusCode, String); 2] {
    let token = token(&ada());
    script();
    let connect = Client::connect(cluster, "/rtc?protocol=17", Some(&token)).await.unwrap_err();
    script();
    let validate = get(&cluster.url(&format!("/rtc/validate?access_token={token}"))).await;
    [connect, validate]
}

#[tokio::test]
async fn a_missing_room_is_told_with_the_words_that_prevent_a_fallback() {
    let cluster = Cluster::with(|config| config.auto_create_rooms = false).await;
    let answers = answers(&cluster, || cluster.control.refuse(Admission::RoomNotFound, 0)).await;
    let expected = (StatusCode::NOT_FOUND, "requested room does not exist".to_owned());
    assert_eq!(answers, [expected.clone(), expected]);
    assert!(!cluster.control.asked()[0].may_create);
    // Who may create rooms does so by joining.
    let creator = minted(|grants| grants.room_create = true);
    cluster.control.refuse(Admission::RoomNotFound, 0);
    let validated = get(&cluster.url(&format!("/rtc/validate?access_token={creator}"))).await;
    assert_eq!(validated, (StatusCode::OK, "success".to_owned()));
}

#[tokio::test]
async fn validating_creates_nothing_and_asks_no_node() {
    let cluster = Cluster::start().await;
    let token = token(&ada());
    for path in ["/rtc/validate", "//rtc//validate"] {
        let answer = get(&cluster.url(&format!("{path}?access_token={token}"))).await;
        assert_eq!(answer, (StatusCode::OK, "success".to_owned()));
    }
    assert!(cluster.control.asked().iter().all(|asked| !asked.may_create));
    assert!(cluster.node.is_idle().await);
}

#[tokio::test]
async fn a_full_room_is_unavailable() {
    let cluster = Cluster::start().await;
    let answers = answers(&cluster, || cluster.control.refuse(Admission::RoomFull, 0)).await;
    let full = "room has exceeded its max participants".to_owned();
    let expected = (StatusCode::SERVICE_UNAVAILABLE, full);
    assert_eq!(answers, [expected.clone(), expected]);
}

#[tokio::test]
async fn a_cluster_without_room_says_when_to_come_again() {
    let cluster = Cluster::start().await;
    let answers = answers(&cluster, || cluster.control.refuse(Admission::Wait, 30)).await;
    let expected =
        (StatusCode::SERVICE_UNAVAILABLE, "node has exceeded its configured limit".to_owned());
    assert_eq!(answers, [expected.clone(), expected]);
    cluster.control.refuse(Admission::Wait, 30);
    let url = cluster.url(&format!("/rtc/validate?access_token={}", token(&ada())));
    let response = get_with(&url, http::header::ACCEPT, "*/*").await;
    assert_eq!(response.headers()[http::header::RETRY_AFTER], "30");
}

#[tokio::test]
async fn a_control_plane_that_is_away_makes_joins_unavailable() {
    let cluster =
        Cluster::with(|config| config.control_plane_urls = vec!["http://127.0.0.1:1".into()]).await;
    let answers = answers(&cluster, || {}).await;
    let expected =
        (StatusCode::SERVICE_UNAVAILABLE, "could not reach the control plane".to_owned());
    assert_eq!(answers, [expected.clone(), expected]);
    assert!(!cluster.readiness.is_ready());
}

#[tokio::test]
async fn what_the_node_refuses_is_refused_before_the_upgrade() {
    let cluster = Cluster::start().await;
    let cases = [
        (CloseReason::RoomFull, StatusCode::SERVICE_UNAVAILABLE),
        (CloseReason::ProtocolError, StatusCode::INTERNAL_SERVER_ERROR),
    ];
    for (reason, status) in cases {
        let token = token(&ada());
        let node = async {
            let attached = cluster.node.attached().await;
            attached.send_closed(reason, CloseAction::Disconnect).await;
        };
        let (client, ()) = tokio::join!(Client::connect(&cluster, "/rtc", Some(&token)), node);
        assert_eq!(client.unwrap_err().0, status);
    }
}

#[tokio::test]
async fn v1_that_is_switched_off_is_not_found() {
    let cluster = Cluster::with(|config| config.livekit.v1 = false).await;
    let (connect, validate) = &paths()[1];
    let token = token(&ada());
    let refused = Client::connect(&cluster, connect, Some(&token)).await.unwrap_err();
    assert_eq!(refused.0, StatusCode::NOT_FOUND);
    assert!(!refused.1.contains("requested room does not exist"));
    assert_eq!(get(&cluster.url(validate)).await.0, StatusCode::NOT_FOUND);
    let v0 = get(&cluster.url(&format!("/rtc/validate?access_token={token}"))).await;
    assert_eq!(v0.0, StatusCode::OK);
}

#[tokio::test]
async fn a_request_that_is_no_websocket_is_not_found() {
    let cluster = Cluster::start().await;
    assert_eq!(get(&cluster.url("/rtc")).await.0, StatusCode::NOT_FOUND);
    let good = format!("/rtc?access_token={}", token(&ada()));
    assert_eq!(get(&cluster.url(&good)).await.0, StatusCode::NOT_FOUND);
    // But a bad token is told first, as on every path.
    assert_eq!(get(&cluster.url("/rtc?access_token=x")).await.0, StatusCode::UNAUTHORIZED);
}
