//! Bad input is answered clearly and hurts nobody else: tokens that do not hold,
//! and floods of what is not well-formed, beside people who talk.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use futures::{SinkExt as _, StreamExt as _};
use headwater_e2e::dev::Dev;
use headwater_loadtest::client::{Client, ClientConfig, Receive, Video};
use headwater_loadtest::run::Server;
use headwater_loadtest::signal::{JoinOptions, Signal};
use headwater_rpc::token::{KeyRing, unix_seconds};
use headwater_testkit::process::{http_get, metric};
use livekit_protocol as proto;
use prost::Message as _;
use rand::{RngCore as _, SeedableRng as _};
use ring::hmac;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error, Message as Frame};

/// Malformed datagrams of one flood.
const DATAGRAMS: usize = 20_000;

/// What the server may keep of a flood, in KiB. A session costs tens of them, and a
/// flood makes hundreds.
const MEMORY_KIB_MAX: u64 = 3 * 1024;

fn signed(algorithm: hmac::Algorithm, secret: &str, header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(header), part(claims));
    let key = hmac::Key::new(algorithm, secret.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes())))
}

fn hs256(claims: &Value) -> String {
    signed(hmac::HMAC_SHA256, "secret", &json!({"alg": "HS256", "typ": "JWT"}), claims)
}

/// Claims that would be let in.
fn claims() -> Value {
    let now = unix_seconds();
    json!({
        "iss": "devkey", "sub": "mallory", "nbf": now - 10, "exp": now + 600,
        "video": {"room": "refused", "roomJoin": true},
    })
}

/// Those, with one claim changed; null takes it away.
fn but(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

fn video(grant: Value) -> Value {
    but("video", grant)
}

/// What it is, the token, the status, and what the answer says.
type Case = (&'static str, String, u16, &'static str);

fn forged() -> Vec<Case> {
    let with_header = |header: Value| signed(hmac::HMAC_SHA256, "secret", &header, &claims());
    let good = hs256(&claims());
    let (signed_part, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = signed_part.split_once('.').unwrap();
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    let other =
        URL_SAFE_NO_PAD.encode(video(json!({"room": "other", "roomJoin": true})).to_string());
    let twice = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","alg":"none"}"#);
    let mut flipped = signature.to_owned().into_bytes();
    flipped[0] = if flipped[0] == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).unwrap();
    vec![
        ("alg none, no signature", format!("{none}.{payload}."), 401, "HS256"),
        ("alg none, old signature", format!("{none}.{payload}.{signature}"), 401, "HS256"),
        ("alg NoNe, signed", with_header(json!({"alg": "NoNe"})), 401, "HS256"),
        (
            "alg RS256 with our secret",
            with_header(json!({"alg": "RS256", "typ": "JWT"})),
            401,
            "HS256",
        ),
        (
            "alg ES256 with our secret",
            with_header(json!({"alg": "ES256", "typ": "JWT"})),
            401,
            "HS256",
        ),
        (
            "HS512",
            signed(hmac::HMAC_SHA512, "secret", &json!({"alg": "HS512", "typ": "JWT"}), &claims()),
            401,
            "HS256",
        ),
        (
            "HS384",
            signed(hmac::HMAC_SHA384, "secret", &json!({"alg": "HS384", "typ": "JWT"}), &claims()),
            401,
            "HS256",
        ),
        (
            "HS512 signature under HS256",
            {
                signed(
                    hmac::HMAC_SHA512,
                    "secret",
                    &json!({"alg": "HS256", "typ": "JWT"}),
                    &claims(),
                )
            },
            401,
            "signature",
        ),
        ("no alg", with_header(json!({"typ": "JWT"})), 401, "invalid authorization token"),
        ("two algs", format!("{twice}.{payload}.{signature}"), 401, "invalid authorization token"),
        (
            "critical extension",
            with_header(json!({"alg": "HS256", "crit": ["b64"], "b64": false})),
            401,
            "HS256",
        ),
        ("unknown key", hs256(&but("iss", json!("nobody"))), 401, "invalid API key"),
        ("no key", hs256(&but("iss", Value::Null)), 401, "invalid API key"),
        (
            "wrong secret",
            signed(hmac::HMAC_SHA256, "secrets", &json!({"alg": "HS256"}), &claims()),
            401,
            "signature",
        ),
        (
            "empty secret",
            signed(hmac::HMAC_SHA256, "", &json!({"alg": "HS256"}), &claims()),
            401,
            "signature",
        ),
        ("another room put in", format!("{header}.{other}.{signature}"), 401, "signature"),
        ("signature with a bit flipped", format!("{header}.{payload}.{flipped}"), 401, "signature"),
    ]
}

fn malformed() -> Vec<Case> {
    const SAYS: &str = "invalid authorization token";
    let good = hs256(&claims());
    let (signed_part, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = signed_part.split_once('.').unwrap();
    let half = |text: &str| text[..text.len() / 2].to_owned();
    vec![
        ("no token", String::new(), 401, "no permissions"),
        ("a word", "garbage".to_owned(), 401, SAYS),
        ("dots", "..".to_owned(), 401, SAYS),
        ("three letters", "a.b.c".to_owned(), 401, SAYS),
        ("no base64", "%C3%A4.%C3%B6.%C3%BC".to_owned(), 401, SAYS),
        ("zeros", format!("{}.AAAA.AAAA", "A".repeat(2000)), 401, SAYS),
        ("header alone", header.to_owned(), 401, SAYS),
        ("no signature part", signed_part.to_owned(), 401, SAYS),
        ("empty signature", format!("{signed_part}."), 401, "signature"),
        ("half a signature", format!("{signed_part}.{}", half(signature)), 401, SAYS),
        ("half a payload", format!("{header}.{}.{signature}", half(payload)), 401, SAYS),
        ("half a header", format!("{}.{payload}.{signature}", half(header)), 401, SAYS),
        ("a part too many", format!("{good}.{signature}"), 401, SAYS),
        ("claims are a list", hs256(&json!(["devkey", 1, 2])), 401, SAYS),
        ("claims of wrong types", hs256(&but("video", json!("everything"))), 401, SAYS),
    ]
}

fn out_of_time_or_right() -> Vec<Case> {
    let now = unix_seconds();
    vec![
        ("expired", hs256(&but("exp", json!(now - 61))), 401, "expired"),
        ("expired long ago", hs256(&but("exp", json!(1))), 401, "expired"),
        ("good from tomorrow on", hs256(&but("nbf", json!(now + 86_400))), 401, "not valid yet"),
        ("no expiry", hs256(&but("exp", Value::Null)), 401, "no expiry"),
        (
            "expiry is a word",
            hs256(&but("exp", json!("never"))),
            401,
            "invalid authorization token",
        ),
        ("expiry is negative", hs256(&but("exp", json!(-1))), 401, "invalid authorization token"),
        ("may not join", hs256(&video(json!({"room": "refused"}))), 401, "permissions denied"),
        ("no grant at all", hs256(&but("video", Value::Null)), 401, "permissions denied"),
        ("no room", hs256(&video(json!({"roomJoin": true}))), 400, "no room name"),
        ("no identity", hs256(&but("sub", Value::Null)), 400, "identity"),
        ("empty identity", hs256(&but("sub", json!(""))), 400, "identity"),
        ("endless identity", hs256(&but("sub", json!("x".repeat(5000)))), 400, "identity"),
        (
            "endless room",
            hs256(&video(json!({"room": "x".repeat(5000), "roomJoin": true}))),
            400,
            "room name",
        ),
        (
            "room with a slash",
            hs256(&video(json!({"room": "a/b", "roomJoin": true}))),
            400,
            "room name",
        ),
    ]
}

/// A join request that v1 would take.
fn join_request() -> String {
    let client_info = proto::ClientInfo { protocol: 16, ..Default::default() };
    let request = proto::JoinRequest { client_info: Some(client_info), ..Default::default() };
    let wrapped =
        proto::WrappedJoinRequest { join_request: request.encode_to_vec(), ..Default::default() };
    URL_SAFE_NO_PAD.encode(wrapped.encode_to_vec())
}

/// Status and text with which an upgrade to WebSocket is refused.
async fn upgrade(dev: &Dev, path: &str) -> (u16, String) {
    match tokio_tungstenite::connect_async(format!("{}{path}", dev.target.url)).await {
        Ok((mut socket, _)) => {
            let first = socket.next().await;
            panic!("{path} was let in: {first:?}")
        }
        Err(Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            (response.status().as_u16(), String::from_utf8_lossy(body).into_owned())
        }
        Err(other) => panic!("{path}: no HTTP answer: {other}"),
    }
}

fn total(dev: &Dev, name: &str) -> f64 {
    metric(&http_get(dev.admin_port, "/metrics").unwrap().1, name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_do_not_hold_are_refused_with_a_reason_on_every_path() {
    let dev = Dev::start(&[]).unwrap();
    let cases: Vec<Case> = [forged(), malformed(), out_of_time_or_right()].concat();
    assert!(cases.len() >= 40);
    let request = join_request();
    // The door itself works, so that a refusal is because of the token.
    for path in ["/rtc/validate?", "/rtc/v1/validate?"] {
        let good = format!("{path}access_token={}&join_request={request}", hs256(&claims()));
        assert_eq!(http_get(dev.page_port(), &good).unwrap(), (200, "success".to_owned()));
    }
    for (what, token, status, says) in &cases {
        for path in ["/rtc", "/rtc/v1"] {
            let extra =
                if path == "/rtc" { String::new() } else { format!("&join_request={request}") };
            let validated =
                http_get(dev.page_port(), &format!("{path}/validate?access_token={token}{extra}"))
                    .unwrap();
            let upgraded = upgrade(&dev, &format!("{path}?access_token={token}{extra}")).await;
            for (how, (code, text)) in [("validate", &validated), ("upgrade", &upgraded)] {
                assert_eq!(code, status, "{what} on {path} {how}: {text}");
                assert!(
                    text.contains(says),
                    "{what} on {path} {how}: {text:?} does not say {says:?}"
                );
            }
        }
    }
    println!("{} tokens on 4 paths refused: {} answers", cases.len(), cases.len() * 4);
    assert_eq!(total(&dev, "headwater_cluster_rooms"), 0.0, "no room was made");
    let counted = total(&dev, "headwater_auth_failures_total");
    let forbidden = cases.iter().filter(|case| case.2 == 401).count() as f64;
    println!("{counted} failures counted, {forbidden} of the tokens were unauthorized");
    assert!(counted >= 2.0 * forbidden, "{counted} counted");
    let log = dev.process.log();
    for (what, token, ..) in cases.iter().filter(|case| case.1.len() > 40) {
        assert!(!log.contains(token.as_str()), "{what} is in the log");
    }
    assert_eq!(dev.complaints(), Vec::<String>::new());
}

/// A POST to the gateway; status and body.
fn post(dev: &Dev, path: &str, content_type: &str, token: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, dev.page_port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let head = format!(
        "POST {path} HTTP/1.0\r\nhost: localhost\r\ncontent-type: {content_type}\r\n\
         authorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A server that has read enough may close while this still writes.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split_whitespace().nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
    (status.unwrap_or_else(|| panic!("no answer to POST {path} of {} bytes", body.len())), body)
}

/// What is wrong, path, content type, token, body, and the statuses that say so.
type Call<'a> = (&'a str, String, &'a str, &'a str, &'a [u8], &'a [u16]);

#[tokio::test(flavor = "multi_thread")]
async fn the_api_refuses_other_rooms_and_what_it_cannot_read() {
    let dev = Dev::start(&[]).unwrap();
    let json_type = "application/json";
    let admin = hs256(&video(json!({"room": "mine", "roomAdmin": true})));
    let creator = hs256(&video(json!({"roomCreate": true})));
    let call = |method: &str| format!("/twirp/livekit.RoomService/{method}");
    let body = |value: Value| value.to_string().into_bytes();
    let mine = body(json!({"room": "mine", "name": "mine"}));
    let yours = body(json!({"room": "yours"}));
    let big = vec![b' '; 11 << 20];
    let deep = "[".repeat(100_000).into_bytes();
    let cases: Vec<Call<'_>> = vec![
        ("wrong room", call("ListParticipants"), json_type, &admin, &yours, &[401, 403]),
        ("no such right", call("CreateRoom"), json_type, &admin, &mine, &[401, 403]),
        ("no token", call("ListParticipants"), json_type, "", &mine, &[401]),
        ("garbage token", call("ListParticipants"), json_type, "garbage", &mine, &[401]),
        ("no JSON", call("CreateRoom"), json_type, &creator, b"{\"name\":", &[400]),
        ("a list", call("CreateRoom"), json_type, &creator, b"[1,2]", &[400]),
        ("wrong types", call("CreateRoom"), json_type, &creator, b"{\"name\": 7}", &[400]),
        ("deep JSON", call("CreateRoom"), json_type, &creator, &deep, &[400, 413]),
        ("too long", call("CreateRoom"), json_type, &creator, &big, &[413]),
        ("no protobuf", call("CreateRoom"), "application/protobuf", &creator, &[0xff; 64], &[400]),
        (
            "no text in UTF-8",
            call("CreateRoom"),
            "application/protobuf",
            &creator,
            &[0x0a, 2, 0xff, 0xfe],
            &[400],
        ),
        ("no such type", call("CreateRoom"), "text/plain", &creator, &mine, &[404, 415]),
        ("no such method", call("Nothing"), json_type, &creator, &mine, &[404]),
        ("no such service", "/twirp/a/b/c/d".to_owned(), json_type, &creator, &mine, &[404]),
    ];
    for (what, path, content_type, token, body, allowed) in &cases {
        let (status, answer) = post(&dev, path, content_type, token, body);
        println!("{what}: {status} {answer:.120}");
        assert!(allowed.contains(&status), "{what}: {status} {answer}");
        let error: Value = serde_json::from_str(&answer)
            .unwrap_or_else(|_| panic!("{what}: no Twirp error: {answer}"));
        assert!(error["msg"].as_str().is_some_and(|text| !text.is_empty()), "{what}: {answer}");
    }
    let (status, answer) =
        post(&dev, &call("CreateRoom"), json_type, &creator, &body(json!({"name": "mine"})));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(dev.complaints(), Vec::<String>::new());
}

fn server(dev: &Dev) -> Server {
    Server {
        url: dev.target.url.clone(),
        keys: KeyRing::single("devkey", "secret").unwrap(),
        pid: None,
        metrics: None,
    }
}

async fn talker(dev: &Dev, identity: &str) -> Client {
    let client = Client::join(ClientConfig {
        url: dev.target.url.clone(),
        token: server(dev).token("calm", identity).unwrap(),
        video: Some(Video {
            frame_rate: 30.0,
            packets_per_frame: 3,
            payload_bytes: 1000,
            layers: 1,
        }),
        audio: true,
        receive: Receive { audio: 1, video: 1 },
    })
    .await
    .unwrap();
    client.connected(Duration::from_secs(10)).await.unwrap();
    client
}

/// A STUN Binding request as clients send them, but for a user who is not there
/// (RFC 8489).
fn binding_request(random: &mut impl rand::Rng) -> Vec<u8> {
    let user: String = (0..17)
        .map(|index| if index == 8 { ':' } else { random.random_range('a'..='z') })
        .collect();
    let mut attributes = Vec::new();
    let mut add = |kind: u16, value: &[u8]| {
        attributes.extend(kind.to_be_bytes());
        attributes.extend((value.len() as u16).to_be_bytes());
        attributes.extend(value);
        attributes.resize(attributes.len().next_multiple_of(4), 0);
    };
    add(0x0006, user.as_bytes());
    add(0x0024, &random.random::<[u8; 4]>());
    add(0x802a, &random.random::<[u8; 8]>());
    add(0x0025, &[]);
    add(0x0008, &random.random::<[u8; 20]>());
    add(0x8028, &random.random::<[u8; 4]>());
    let mut packet = vec![0, 1];
    packet.extend((attributes.len() as u16).to_be_bytes());
    packet.extend(0x2112_a442_u32.to_be_bytes());
    packet.extend(random.random::<[u8; 12]>());
    packet.extend(attributes);
    packet
}

/// Something that begins as STUN, DTLS, RTP or RTCP does and goes on at random,
/// or STUN that is nearly right.
fn malformed_datagram(random: &mut impl rand::Rng) -> Vec<u8> {
    let mut noise = vec![0; random.random_range(1..1400)];
    random.fill_bytes(&mut noise);
    match random.random_range(0..8) {
        0 => noise[0] = random.random_range(0..4),
        1 => noise[0] = random.random_range(20..64),
        2 => noise[0] = random.random_range(128..192),
        3 => {
            noise[0] = 0x80 | random.random_range(0..32);
            noise.resize(noise.len().max(2), 0);
            noise[1] = random.random_range(200..=207);
        }
        4 => {
            // A DTLS 1.2 handshake record whose lengths do not fit.
            let head = [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0];
            noise.splice(..0, head);
        }
        5 => noise = binding_request(random),
        6 => {
            noise = binding_request(random);
            noise.truncate(random.random_range(1..noise.len()));
        }
        _ => {
            noise = binding_request(random);
            for _ in 0..random.random_range(1..6) {
                let at = random.random_range(0..noise.len());
                noise[at] = random.random();
            }
        }
    }
    noise
}

/// Sends them from several sockets, 4,000 a second so that the kernel's buffer,
/// which everybody shares, is not what is tested.
fn flood(port: u16, count: usize) {
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let sockets: Vec<UdpSocket> =
        (0..8).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    let begun = Instant::now();
    for number in 0..count {
        let datagram = malformed_datagram(&mut random);
        sockets[number % sockets.len()].send_to(&datagram, (Ipv4Addr::LOCALHOST, port)).unwrap();
        let due = Duration::from_micros(250 * number as u64);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
}

/// Frames that no client would send.
fn malformed_frames() -> Vec<Frame> {
    let mut random = rand::rngs::StdRng::seed_from_u64(11);
    let mut noise = vec![0; 4096];
    random.fill_bytes(&mut noise);
    let offer = proto::SessionDescription {
        r#type: "offer".to_owned(),
        sdp: "v=0\r\nm=".repeat(2000),
        ..Default::default()
    };
    let offer =
        proto::SignalRequest { message: Some(proto::signal_request::Message::Offer(offer)) }
            .encode_to_vec();
    vec![
        Frame::Binary(noise.into()),
        Frame::Binary(vec![0xff; 64].into()),
        Frame::Binary(offer[..offer.len() / 2].to_vec().into()),
        Frame::Binary(offer.into()),
        Frame::Binary(vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f].into()),
        Frame::Text("{".into()),
        Frame::Text("{\"offer\": 7}".into()),
        Frame::Text("[".repeat(50_000).into()),
        Frame::Binary(vec![0; 3 << 20].into()),
        Frame::Binary(vec![0; 8 << 20].into()),
    ]
}

/// Joins, says that, and sees whether the server answers, ends the session or
/// ignores it. It must not hang.
async fn provoke(dev: &Dev, number: usize, frame: Frame) {
    let token = server(dev).token("loud", &format!("mallory-{number}")).unwrap();
    let address = format!("{}/rtc?access_token={token}&protocol=16&sdk=rust", dev.target.url);
    let (mut socket, _) = tokio_tungstenite::connect_async(address).await.unwrap();
    let _ = socket.send(frame).await;
    let _ = socket.send(Frame::Text("not a request".into())).await;
    let heard = async {
        let mut frames = 0;
        while let Some(Ok(frame)) = socket.next().await {
            frames += 1;
            if frame.is_close() {
                break;
            }
        }
        frames
    };
    let _ = tokio::time::timeout(Duration::from_millis(300), heard).await;
    let _ = tokio::time::timeout(Duration::from_millis(300), socket.close(None)).await;
}

/// Join requests and offers that no client would send.
async fn provoke_by_joining(dev: &Dev, number: usize) {
    let offers = [
        "",
        "v=0",
        "garbage",
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 X 1\r\n",
    ];
    let token = server(dev).token("loud", &format!("joiner-{number}")).unwrap();
    let joined = Signal::join(JoinOptions {
        url: dev.target.url.clone(),
        token: token.clone(),
        offer: offers[number % offers.len()].to_owned(),
        tracks: Vec::new(),
        auto_subscribe: true,
    })
    .await;
    if let Ok((mut signal, _)) = joined {
        let _ = tokio::time::timeout(Duration::from_millis(200), signal.next()).await;
        signal.leave().await;
    }
    let mut noise = vec![0; 64 * (number % 64 + 1)];
    rand::rngs::StdRng::seed_from_u64(number as u64).fill_bytes(&mut noise);
    for request in ["%00".to_owned(), "!!!".to_owned(), URL_SAFE.encode(&noise)] {
        let path = format!("/rtc/v1?join_request={request}&access_token={token}");
        let (status, text) = upgrade(dev, &path).await;
        assert_eq!(status, 400, "{text}");
        assert!(!text.is_empty());
    }
}

/// A flood of datagrams, and of frames and joins for as long as it takes.
/// Answers with the rounds of frames.
async fn harass(dev: &Dev) -> usize {
    let port = dev.udp_port;
    let flooding = std::thread::spawn(move || flood(port, DATAGRAMS));
    let mut rounds = 0;
    while !flooding.is_finished() {
        for (number, frame) in malformed_frames().into_iter().enumerate() {
            provoke(dev, number, frame).await;
        }
        provoke_by_joining(dev, rounds).await;
        rounds += 1;
    }
    flooding.join().unwrap();
    rounds
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_malformed_input_hurts_nobody() {
    let dev = Dev::start(&[]).unwrap();
    let talkers = [talker(&dev, "ada").await, talker(&dev, "bob").await];
    // Sessions, buffers and threads that are made once are made by a first flood;
    // what grows in a second one is not given back.
    harass(&dev).await;
    let memory = dev.process.resident_kib().unwrap();
    talkers.iter().for_each(Client::reset);
    let rounds = harass(&dev).await;

    let (mut packets, mut lost, mut gap) = (0, 0, 0);
    for talker in talkers {
        assert!(talker.is_running(), "somebody was disconnected");
        let observed = talker.observed();
        packets += observed.sink.packets();
        lost += observed.sink.lost();
        gap = observed
            .sink
            .streams()
            .values()
            .map(|stream| stream.gap_max_micros)
            .fold(gap, u64::max);
        talker.leave().await.unwrap();
    }
    let memory_after = dev.process.resident_kib().unwrap();
    println!(
        "{DATAGRAMS} malformed datagrams and {} frames in {rounds} rounds: {lost} of {packets} packets of the others lost, \
         longest gap {} ms; memory {memory} KiB before, {memory_after} KiB after",
        rounds * malformed_frames().len(),
        gap / 1000
    );
    assert!(packets > 1000, "{packets}");
    assert!(lost * 100 < packets, "{lost} of {packets} lost");
    assert!(
        memory_after < memory + MEMORY_KIB_MAX,
        "memory grew from {memory} to {memory_after} KiB"
    );
    for name in ["headwater_stun_unknown_ufrag_total", "headwater_rtp_dropped_total"] {
        assert!(total(&dev, name) > 1000.0, "{name} counted {}", total(&dev, name));
    }
    assert_eq!(dev.complaints(), Vec::<String>::new());
}
