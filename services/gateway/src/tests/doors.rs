//! WHIP and WHEP from outside: what is answered, and what the node is asked.

use headwater_model::grants::Grants;
use headwater_proto::node::v1 as node;
use headwater_proto::node::v1::attach_request::Request as ToNode;
use headwater_proto::node::v1::attach_response::Event;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;

use super::client::http;
use super::cluster::{Attached, Cluster, ada, token};
use crate::IceServer;

const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=sendonly\r\na=msid:s mic\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=sendonly\r\na=msid:s cam\r\n";
const ANSWER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=recvonly\r\na=ice-ufrag:1xfirst\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=recvonly\r\na=ice-ufrag:1xfirst\r\n";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const RESTART: &str = "a=ice-ufrag:next\r\na=ice-pwd:0123456789012345678901\r\n";

/// The other way round: what sends receives.
fn turned(sdp: &str) -> String {
    sdp.replace("sendonly", "x").replace("recvonly", "sendonly").replace("a=x", "a=recvonly")
}

/// A request as a client makes it; empty values leave a header out.
async fn ask(
    cluster: &Cluster,
    (method, path): (Method, &str),
    headers: &[(header::HeaderName, &str)],
    body: &str,
) -> Response<Bytes> {
    let mut request = Request::builder().method(method).uri(cluster.url(path));
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(name, *value);
    }
    http(request.body(Full::from(body.to_owned())).unwrap()).await
}

fn bearer(grants: &Grants) -> String {
    format!("Bearer {}", token(grants))
}

async fn post(cluster: &Cluster, path: &str, offer: &str) -> Response<Bytes> {
    let bearer = bearer(&ada());
    let headers =
        [(header::AUTHORIZATION, bearer.as_str()), (header::CONTENT_TYPE, "application/sdp")];
    ask(cluster, (Method::POST, path), &headers, offer).await
}

/// The node's side of a POST: gives the requests up to the offer.
async fn answer(cluster: &Cluster, sdp: &str) -> (Attached, Vec<ToNode>) {
    let mut attached = cluster.node.attached().await;
    attached.send_joined().await;
    let mut asked = Vec::new();
    loop {
        let request = attached.request().await.unwrap();
        let is_offer = matches!(request, ToNode::Offer(_));
        asked.push(request);
        if is_offer {
            break;
        }
    }
    attached
        .send(Event::Answer(node::SessionDescription {
            sdp: sdp.to_owned(),
            offer_id: 1,
            ..Default::default()
        }))
        .await;
    (attached, asked)
}

/// An open WHIP session: its path, its ETag and the node's side.
async fn publishing(cluster: &Cluster) -> (String, String, Attached) {
    let (response, (attached, _)) =
        tokio::join!(post(cluster, "/whip", OFFER), answer(cluster, ANSWER));
    assert_eq!(response.status(), StatusCode::CREATED, "{:?}", response.body());
    let text = |name| response.headers()[name].to_str().unwrap().to_owned();
    (text(header::LOCATION), text(header::ETAG), attached)
}

fn detail(response: &Response<Bytes>) -> String {
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(body["status"], response.status().as_u16());
    body["detail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_offer_is_answered_with_a_session() {
    let cluster = Cluster::with(|config| {
        config.livekit.ice_servers = vec![IceServer {
            urls: vec!["stun:a.example".into(), "turn:b.example".into()],
            username: "me".into(),
            credential: Some("a \"word\"".into()),
        }];
    })
    .await;
    let (response, (attached, asked)) =
        tokio::join!(post(&cluster, "/whip", OFFER), answer(&cluster, ANSWER));

    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.body(), ANSWER);
    let headers = response.headers();
    assert_eq!(headers[header::CONTENT_TYPE], "application/sdp");
    assert_eq!(headers[header::ETAG], "\"1xfirst\"");
    let location = headers[header::LOCATION].to_str().unwrap();
    assert!(location.starts_with("/whip/PA_own.") && location.len() > 40, "{location}");
    let links: Vec<_> = headers.get_all(header::LINK).iter().collect();
    let credentials =
        "; username=\"me\"; credential=\"a \\\"word\\\"\"; credential-type=\"password\"";
    assert_eq!(links[0], &format!("<stun:a.example>; rel=\"ice-server\"{credentials}"));
    assert_eq!(links.len(), 2);
    assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    let exposed = headers[header::ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap();
    assert!(["Location", "ETag", "Link"].iter().all(|name| exposed.contains(name)));

    let join = &attached.join;
    assert!(join.fixed_sections && join.outlives_signalling && !join.auto_subscribe);
    assert!(!join.permission.as_ref().unwrap().can_subscribe);
    let [ToNode::AddTrack(audio), ToNode::AddTrack(video), ToNode::Offer(offer)] = &asked[..]
    else {
        panic!("{asked:?}");
    };
    assert_eq!((audio.client_track_id.as_str(), video.client_track_id.as_str()), ("mic", "cam"));
    assert_eq!(offer.sdp, OFFER);
    let joined = "headwater_join_attempts_total{reason=\"none\",result=\"ok\"}";
    assert_eq!(cluster.metric(joined) as u32, 1);
    let open = "headwater_signal_connections{protocol=\"whip\"}";
    assert_eq!(cluster.metric(open) as u32, 1);
}

#[tokio::test]
async fn a_viewer_follows_whom_it_names() {
    let cluster = Cluster::start().await;
    let (offer, sdp) = (turned(OFFER), turned(ANSWER));
    let (everybody, (attached, asked)) =
        tokio::join!(post(&cluster, "/whep", &offer), answer(&cluster, &sdp));
    assert_eq!(everybody.status(), StatusCode::CREATED);
    assert!(attached.join.auto_subscribe && attached.join.followed_identities.is_empty());
    assert!(!attached.join.permission.as_ref().unwrap().can_publish);
    assert_eq!(asked.len(), 1, "{asked:?}");
    drop(attached);

    let path = "/whep?identity=bob&identity=eve";
    let (_, (attached, _)) = tokio::join!(post(&cluster, path, &offer), answer(&cluster, &sdp));
    assert!(attached.join.auto_subscribe);
    assert_eq!(attached.join.followed_identities, ["bob", "eve"]);
    drop(attached);

    let (_, (attached, asked)) =
        tokio::join!(post(&cluster, "/whep?track=TR_1", &offer), answer(&cluster, &sdp));
    assert!(!attached.join.auto_subscribe);
    let ToNode::UpdateSubscription(wish) = &asked[0] else { panic!("{asked:?}") };
    assert_eq!((&wish.track_uids[..], wish.subscribe), (&["TR_1".to_owned()][..], true));
}

#[tokio::test]
async fn what_cannot_be_done_is_told_why() {
    let cluster = Cluster::start().await;
    let good = bearer(&ada());
    let mut grants = ada();
    grants.permission.can_publish = false;
    let mute = bearer(&grants);
    let outside = bearer(&Grants { room_join: false, ..ada() });
    let nameless = bearer(&Grants { identity: String::new(), ..ada() });
    let sdp = "application/sdp";
    let long = "x".repeat(crate::BODY_BYTES_MAX + 1);
    let (watching, data) =
        (turned(OFFER), "v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n");
    for (token, kind, accept, body, status) in [
        ("", sdp, "", OFFER, StatusCode::UNAUTHORIZED),
        ("Basic YTpi", sdp, "", OFFER, StatusCode::UNAUTHORIZED),
        ("Bearer forged", sdp, "", OFFER, StatusCode::UNAUTHORIZED),
        (&mute, sdp, "", OFFER, StatusCode::FORBIDDEN),
        (&outside, sdp, "", OFFER, StatusCode::FORBIDDEN),
        (&nameless, sdp, "", OFFER, StatusCode::BAD_REQUEST),
        (&good, "", "", OFFER, StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (&good, "text/plain", "", OFFER, StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (&good, sdp, "application/json", OFFER, StatusCode::NOT_ACCEPTABLE),
        (&good, sdp, "", &long, StatusCode::PAYLOAD_TOO_LARGE),
        (&good, sdp, "", "nonsense", StatusCode::BAD_REQUEST),
        (&good, sdp, "", data, StatusCode::BAD_REQUEST),
        (&good, sdp, "", &watching, StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let headers = [
            (header::AUTHORIZATION, token),
            (header::CONTENT_TYPE, kind),
            (header::ACCEPT, accept),
        ];
        let response = ask(&cluster, (Method::POST, "/whip"), &headers, body).await;
        assert_eq!(response.status(), status, "{kind} {accept} {:?}", response.body());
        assert!(!detail(&response).is_empty());
        let challenged = response.headers().contains_key(header::WWW_AUTHENTICATE);
        assert_eq!(challenged, status == StatusCode::UNAUTHORIZED);
    }
    assert!(cluster.node.is_idle().await, "nothing of it reached the node");
}

#[tokio::test]
async fn other_methods_are_refused_and_options_tells_what_there_is() {
    let cluster = Cluster::start().await;
    for path in ["/whip", "/whep"] {
        for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
            let response = ask(&cluster, (method, path), &[], "").await;
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(response.headers()[header::ALLOW], "POST, OPTIONS");
        }
        let options = ask(&cluster, (Method::OPTIONS, path), &[], "").await;
        assert_eq!(options.status(), StatusCode::NO_CONTENT);
        assert_eq!(options.headers()["accept-post"], "application/sdp");
        let session = format!("{path}/PA_x.1");
        let options = ask(&cluster, (Method::OPTIONS, &session), &[], "").await;
        assert_eq!(options.headers()["accept-patch"], FRAGMENT);
        let methods = options.headers()[header::ACCESS_CONTROL_ALLOW_METHODS].to_str().unwrap();
        assert!(methods.contains("PATCH") && methods.contains("DELETE"));
        let headers = options.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap();
        assert!(headers.contains("Authorization") && headers.contains("If-Match"));
        let response = ask(&cluster, (Method::GET, &session), &[], "").await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}

#[tokio::test]
async fn an_offer_that_the_node_refuses_is_told_with_its_words() {
    let cluster = Cluster::start().await;
    let node = async {
        let attached = cluster.node.attached().await;
        attached.send_joined().await;
        attached
            .send(Event::Closed(node::Closed {
                reason: node::CloseReason::ProtocolError.into(),
                message: "the offer has no fingerprint".into(),
                ..Default::default()
            }))
            .await;
        attached
    };
    let (response, _attached) = tokio::join!(post(&cluster, "/whip", OFFER), node);
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(detail(&response).contains("no fingerprint"));
}

#[tokio::test]
async fn an_answer_without_any_codec_ends_the_session() {
    let cluster = Cluster::start().await;
    let rejected = ANSWER.replace("recvonly", "inactive");
    let node = async {
        let (mut attached, _) = answer(&cluster, &rejected).await;
        let leave = attached.request().await;
        attached.break_off();
        leave
    };
    let (response, leave) = tokio::join!(post(&cluster, "/whip", OFFER), node);
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(matches!(leave, Some(ToNode::Leave(_))), "{leave:?}");
}

#[tokio::test]
async fn ice_restarts_by_patch_and_the_old_tag_is_refused() {
    let cluster = Cluster::start().await;
    let (path, tag, mut attached) = publishing(&cluster).await;
    let bearer = bearer(&ada());
    let patch = async |condition: &str, kind: &str, body: &str| {
        let headers = [
            (header::AUTHORIZATION, bearer.as_str()),
            (header::CONTENT_TYPE, kind),
            (header::IF_MATCH, condition),
        ];
        ask(&cluster, (Method::PATCH, &path), &headers, body).await
    };
    let candidate = "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";
    assert_eq!(patch(&tag, FRAGMENT, candidate).await.status(), StatusCode::NO_CONTENT);
    let unconditional = patch("", FRAGMENT, candidate).await.status();
    assert_eq!(unconditional, StatusCode::PRECONDITION_REQUIRED);
    let wrong_type = patch("*", "application/sdp", RESTART).await.status();
    assert_eq!(wrong_type, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(patch("*", FRAGMENT, candidate).await.status(), StatusCode::BAD_REQUEST);

    let node = async {
        let Some(ToNode::RestartIce(restart)) = attached.request().await else { panic!() };
        let restarted = node::IceRestarted {
            ufrag: "2xsecond".into(),
            pwd: "p".into(),
            candidates: vec!["1 1 udp 5 127.0.0.1 7882 typ host".into()],
        };
        attached.send(Event::IceRestarted(restarted)).await;
        restart
    };
    let (response, restart) = tokio::join!(patch("*", FRAGMENT, RESTART), node);
    assert_eq!((restart.ufrag.as_str(), restart.pwd.len()), ("next", 22));
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[header::ETAG], "\"2xsecond\"");
    assert_eq!(response.headers()[header::CONTENT_TYPE], FRAGMENT);
    let body = std::str::from_utf8(response.body()).unwrap();
    assert!(body.contains("a=ice-ufrag:2xsecond\r\n") && body.contains("a=candidate:1 1 udp 5"));
    let stale = patch(&tag, FRAGMENT, candidate).await;
    assert_eq!(stale.status(), StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn a_session_is_for_its_participant_and_its_secret_only() {
    let cluster = Cluster::start().await;
    let (path, _, mut attached) = publishing(&cluster).await;
    let delete = async |path: &str, grants: &Grants| {
        let bearer = bearer(grants);
        let headers = [(header::AUTHORIZATION, bearer.as_str())];
        ask(&cluster, (Method::DELETE, path), &headers, "").await.status()
    };
    let bob = Grants { identity: "bob".into(), ..ada() };
    let elsewhere = Grants { room: "attic".into(), ..ada() };
    assert_eq!(delete(&path, &bob).await, StatusCode::FORBIDDEN);
    assert_eq!(delete(&path, &elsewhere).await, StatusCode::FORBIDDEN);
    let no_token = ask(&cluster, (Method::DELETE, &path), &[], "").await.status();
    assert_eq!(no_token, StatusCode::UNAUTHORIZED);
    assert_eq!(delete("/whip/PA_own.0", &ada()).await, StatusCode::NOT_FOUND);
    assert_eq!(delete(&path.replace("whip", "whep"), &ada()).await, StatusCode::NOT_FOUND);

    let node = async {
        let leave = attached.request().await;
        attached.break_off();
        leave
    };
    let own = ada();
    let (status, leave) = tokio::join!(delete(&path, &own), node);
    assert_eq!(status, StatusCode::OK);
    assert!(matches!(leave, Some(ToNode::Leave(_))));
    let open = "headwater_signal_connections{protocol=\"whip\"}";
    assert_eq!(cluster.metric(open) as u32, 0);
}

#[tokio::test]
async fn a_session_of_another_gateway_is_taken_up() {
    let cluster = Cluster::start().await;
    let bearer = bearer(&ada());
    let headers = [(header::AUTHORIZATION, bearer.as_str())];
    let delete = ask(&cluster, (Method::DELETE, "/whip/PA_far.00"), &headers, "");
    let node = async {
        let mut attached = cluster.node.attached().await;
        attached.send_joined().await;
        let leave = attached.request().await;
        let uid = attached.join.resume_participant_uid.clone();
        attached.break_off();
        (uid, leave)
    };
    let (response, (uid, leave)) = tokio::join!(delete, node);
    assert_eq!((response.status(), uid.as_str()), (StatusCode::OK, "PA_far"));
    assert!(matches!(leave, Some(ToNode::Leave(_))));

    let delete = ask(&cluster, (Method::DELETE, "/whip/PA_gone.00"), &headers, "");
    let node = async {
        let attached = cluster.node.attached().await;
        let reason = node::CloseReason::StateMismatch;
        attached.send_closed(reason, node::CloseAction::Reconnect).await;
        attached
    };
    let (response, _attached) = tokio::join!(delete, node);
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_gateway_that_stops_ends_no_session() {
    let cluster = Cluster::start().await;
    let (_, _, mut attached) = publishing(&cluster).await;
    cluster.shutdown.cancel();
    assert_eq!(attached.request().await, None, "the stream ends without a leave");
    super::cluster::soon(cluster.gateway.join()).await.unwrap();
}

#[tokio::test]
async fn a_session_that_the_node_closed_is_gone() {
    let cluster = Cluster::start().await;
    let (path, _, attached) = publishing(&cluster).await;
    attached.send_closed(node::CloseReason::Removed, node::CloseAction::Disconnect).await;
    attached.break_off();
    let ended = "headwater_signal_sessions_ended_total{reason=\"by_node\"}";
    while cluster.metric(ended) as u32 == 0 {
        tokio::task::yield_now().await;
    }
    // The gateway asks the node, which does not have it.
    let bearer = bearer(&ada());
    let headers = [(header::AUTHORIZATION, bearer.as_str())];
    let delete = ask(&cluster, (Method::DELETE, &path), &headers, "");
    let node = async {
        let attached = cluster.node.attached().await;
        let reason = node::CloseReason::StateMismatch;
        attached.send_closed(reason, node::CloseAction::Reconnect).await;
        attached
    };
    let (response, _attached) = tokio::join!(delete, node);
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn sessions_are_bounded_and_a_client_that_comes_too_often_is_held_back() {
    let cluster = Cluster::with(|config| config.limits.sessions_max = 0).await;
    let mut statuses = Vec::new();
    for _ in 0..11 {
        let response = post(&cluster, "/whip", OFFER).await;
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            assert!(response.headers().contains_key(header::RETRY_AFTER));
        }
        statuses.push(response.status());
    }
    assert!(statuses[..10].iter().all(|status| *status == StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(statuses[10], StatusCode::TOO_MANY_REQUESTS);
}
