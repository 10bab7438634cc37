//! Tokens, good and forged.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_model::Permission;
use headwater_model::grants::ParticipantKind;
use headwater_model::media::TrackSource;
use livekit_token::{AccessToken, TokenVerifier, VideoGrants};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

mod forged;

const NOW: u64 = 1_700_000_000;
const KEY: &str = "devkey";
const SECRET: &str = "secret";

fn ring() -> KeyRing {
    KeyRing::single(KEY, SECRET).unwrap()
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn hs256(secret: &str, signed: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::sign(&key, signed.as_bytes()).as_ref().to_vec()
}

/// A token of any text for its header and claims, correctly signed with `secret`.
fn raw(header: &str, claims: &str, secret: &str) -> String {
    let signed = format!("{}.{}", b64(header), b64(claims));
    let signature = hs256(secret, &signed);
    format!("{signed}.{}", b64(signature))
}

fn signed(claims: Value) -> String {
    raw(r#"{"alg":"HS256","typ":"JWT"}"#, &claims.to_string(), SECRET)
}

fn good_claims() -> Value {
    json!({"iss": KEY, "sub": "ada", "exp": NOW + 600, "nbf": NOW, "video": {"roomJoin": true, "room": "r"}})
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut claims = good_claims();
    change(&mut claims);
    claims
}

fn parts(token: &str) -> (String, String, String) {
    let mut parts = token.split('.').map(str::to_owned);
    (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap())
}

fn signed_text(claims: &str) -> String {
    raw(r#"{"alg":"HS256"}"#, claims, SECRET)
}

#[test]
fn clocks_may_differ_by_a_minute() {
    let token = signed(with(|c| {
        c["exp"] = json!(NOW);
        c["nbf"] = json!(NOW);
    }));
    assert!(ring().verify(&token, NOW + 60).is_ok());
    assert_eq!(ring().verify(&token, NOW + 61), Err(TokenError::Expired));
    assert!(ring().verify(&token, NOW - 60).is_ok());
    assert_eq!(ring().verify(&token, NOW - 61), Err(TokenError::NotYetValid));
}

#[test]
fn times_with_fractions_and_far_away_are_taken() {
    let token = signed_text(r#"{"iss":"devkey","exp":1700000600.75}"#);
    assert_eq!(ring().verify(&token, NOW).unwrap().expires_at, NOW + 600);
    let token = signed_text(r#"{"iss":"devkey","exp":1e300}"#);
    assert_eq!(ring().verify(&token, NOW).unwrap().expires_at, u64::MAX);
}

#[test]
fn absent_claims_have_livekits_defaults() {
    let grants = ring().verify(&signed(json!({"iss": KEY, "exp": NOW + 1})), NOW).unwrap();
    assert_eq!(grants.permission, Permission::default());
    assert!(!grants.room_join && !grants.room_admin && !grants.room_create && !grants.room_list);
    assert_eq!((grants.identity.as_str(), grants.room.as_str()), ("", ""));
    let nulls = json!({"iss": KEY, "exp": NOW + 1, "sub": null, "video": {
        "canPublish": null, "roomAdmin": null, "canPublishSources": null}, "attributes": null});
    assert_eq!(ring().verify(&signed(nulls), NOW).unwrap(), grants);
}

#[test]
fn data_may_be_sent_by_whoever_may_publish_unless_said_otherwise() {
    let permission = |video: Value| {
        let claims = json!({"iss": KEY, "exp": NOW + 1, "video": video});
        ring().verify(&signed(claims), NOW).unwrap().permission
    };
    assert!(!permission(json!({"canPublish": false})).can_publish_data);
    assert!(permission(json!({"canPublish": false, "canPublishData": true})).can_publish_data);
    assert!(!permission(json!({"canPublishData": false})).can_publish_data);
    assert!(permission(json!({"canUpdateOwnMetadata": true})).can_update_metadata);
    assert!(!permission(json!({"canSubscribe": false})).can_subscribe);
}

#[test]
fn named_sources_restrict_and_unknown_names_never_widen() {
    let permission = |sources: Value| {
        let claims = json!({"iss": KEY, "exp": NOW + 1, "video": {"canPublishSources": sources}});
        ring().verify(&signed(claims), NOW).unwrap().permission
    };
    let two = permission(json!(["microphone", "screen_share"]));
    assert!(
        two.allows_source(TrackSource::Microphone) && two.allows_source(TrackSource::ScreenShare)
    );
    assert!(!two.allows_source(TrackSource::Camera) && !two.allows_source(TrackSource::Unknown));
    let mixed = permission(json!(["camera", "telescope"]));
    assert_eq!(mixed.can_publish_sources, [TrackSource::Camera]);
    let unknown = permission(json!(["telescope"]));
    assert!(!unknown.can_publish && !unknown.allows_source(TrackSource::Camera));
    assert!(permission(json!([])).allows_source(TrackSource::Unknown));
}

#[test]
fn a_token_without_a_subject_is_known_by_its_id() {
    let claims = json!({"iss": KEY, "exp": NOW + 1, "jti": "from-jti"});
    assert_eq!(ring().verify(&signed(claims), NOW).unwrap().identity, "from-jti");
    let claims = json!({"iss": KEY, "exp": NOW + 1, "sub": "", "jti": "from-jti"});
    assert_eq!(ring().verify(&signed(claims), NOW).unwrap().identity, "from-jti");
    let claims = json!({"iss": KEY, "exp": NOW + 1, "sub": "ada", "jti": "from-jti"});
    assert_eq!(ring().verify(&signed(claims), NOW).unwrap().identity, "ada");
}

#[test]
fn claims_of_other_services_are_left_alone() {
    let claims = with(|c| {
        c["roomConfig"] = json!({"maxParticipants": 4});
        c["sip"] = json!({"admin": true});
        c["aud"] = json!(["x"]);
        c["video"]["ingressAdmin"] = json!(true);
    });
    assert!(ring().verify(&signed(claims), NOW).is_ok());
}

#[test]
fn both_secrets_of_a_key_verify_and_the_first_signs() {
    let secret = |text: &str| SecretString::from(text);
    let ring = KeyRing::new([
        ("one".to_owned(), vec![secret("new"), secret("old")]),
        ("two".to_owned(), vec![secret("another")]),
    ])
    .unwrap();
    let claims = json!({"iss": "one", "exp": NOW + 1}).to_string();
    for known in ["new", "old"] {
        assert!(ring.verify(&raw(r#"{"alg":"HS256"}"#, &claims, known), NOW).is_ok(), "{known}");
    }
    // A secret verifies for its own key only.
    let stolen = raw(r#"{"alg":"HS256"}"#, &claims, "another");
    assert_eq!(ring.verify(&stolen, NOW), Err(TokenError::BadSignature));
    let minted =
        ring.mint(&TokenRequest { ttl: Duration::from_secs(1), ..Default::default() }, NOW);
    let minted = minted.unwrap();
    assert_eq!(ring.first_key(), "one");
    assert!(KeyRing::single("one", "new").unwrap().verify(&minted, NOW).is_ok());
    assert!(KeyRing::single("one", "old").unwrap().verify(&minted, NOW).is_err());
}

#[test]
fn a_ring_refuses_keys_that_cannot_be_used() {
    let pairs = |name: &str, secrets: &[&str]| {
        (name.to_owned(), secrets.iter().map(|text| SecretString::from(*text)).collect::<Vec<_>>())
    };
    assert_eq!(KeyRing::new([]).unwrap_err(), KeyRingError::Empty);
    assert_eq!(KeyRing::new([pairs("", &["a"])]).unwrap_err(), KeyRingError::EmptyKey);
    for bad in [&[][..], &[""], &["a", ""], &["a", "b", "c"]] {
        assert_eq!(
            KeyRing::new([pairs("k", bad)]).unwrap_err(),
            KeyRingError::BadSecrets("k".into())
        );
    }
    let twice = [pairs("k", &["a"]), pairs("k", &["b"])];
    assert_eq!(KeyRing::new(twice).unwrap_err(), KeyRingError::DuplicateKey("k".into()));
    assert!(!format!("{:?}", ring()).contains(SECRET));
}

#[test]
fn what_is_minted_is_verified_to_the_same_grants() {
    let grants = Grants {
        api_key: KEY.into(),
        identity: "ada/1".into(),
        display_name: "Ada \u{1f600}".into(),
        metadata: r#"{"a":1}"#.into(),
        attributes: BTreeMap::from([("role".into(), "host".into())]),
        kind: ParticipantKind::Agent,
        kind_details: vec!["x".into()],
        room: "r".into(),
        room_join: true,
        room_admin: true,
        permission: Permission {
            can_subscribe: false,
            can_publish_data: false,
            can_publish_sources: vec![TrackSource::Camera, TrackSource::ScreenShareAudio],
            hidden: true,
            can_update_metadata: true,
            ..Permission::default()
        },
        expires_at: NOW + 60,
        ..Grants::default()
    };
    let request = TokenRequest { grants: grants.clone(), ttl: Duration::from_secs(60) };
    let token = ring().mint(&request, NOW).unwrap();
    assert_eq!(ring().verify(&token, NOW).unwrap(), grants);
    let foreign = Grants { api_key: "other".into(), ..grants.clone() };
    let refused = ring().mint(&TokenRequest { grants: foreign, ttl: Duration::ZERO }, NOW);
    assert_eq!(refused, Err(MintError::UnknownKey("other".into())));
    let huge = Grants { metadata: "x".repeat(TOKEN_BYTES_MAX), ..grants };
    let refused = ring().mint(&TokenRequest { grants: huge, ttl: Duration::ZERO }, NOW);
    assert_eq!(refused, Err(MintError::TooLong));
}

#[test]
fn tokens_of_livekits_own_library_are_taken() {
    let video = VideoGrants {
        room_join: true,
        room: "r".into(),
        can_publish: Some(true),
        can_publish_data: Some(false),
        can_publish_sources: vec!["microphone".into()],
        hidden: true,
        ..VideoGrants::default()
    };
    let token = AccessToken::with_api_key(KEY, SECRET)
        .with_identity("ada")
        .with_name("Ada")
        .with_kind("agent")
        .with_metadata("m")
        .with_attributes([("a", "b")])
        .with_grants(video)
        .to_jwt()
        .unwrap();
    let grants = ring().verify(&token, unix_seconds()).unwrap();
    assert_eq!((grants.identity.as_str(), grants.display_name.as_str()), ("ada", "Ada"));
    assert_eq!(grants.kind, ParticipantKind::Agent);
    assert_eq!(grants.metadata, "m");
    assert_eq!(grants.attributes["a"], "b");
    assert!(grants.room_join && grants.permission.hidden && !grants.permission.can_publish_data);
    assert_eq!(grants.permission.can_publish_sources, [TrackSource::Microphone]);
    let other = KeyRing::single(KEY, "another").unwrap();
    assert_eq!(other.verify(&token, unix_seconds()), Err(TokenError::BadSignature));
}

#[test]
fn livekits_own_library_takes_our_tokens() {
    let grants = Grants {
        identity: "ada".into(),
        display_name: "Ada".into(),
        attributes: BTreeMap::from([("a".into(), "b".into())]),
        kind: ParticipantKind::Egress,
        room: "r".into(),
        room_join: true,
        room_create: true,
        permission: Permission {
            can_publish: false,
            can_publish_data: false,
            ..Permission::default()
        },
        ..Grants::default()
    };
    let request = TokenRequest { grants, ttl: Duration::from_secs(600) };
    let token = ring().mint(&request, unix_seconds()).unwrap();
    let claims = TokenVerifier::with_api_key(KEY, SECRET).verify(&token).unwrap();
    assert_eq!(
        (claims.sub.as_str(), claims.name.as_str(), claims.iss.as_str()),
        ("ada", "Ada", KEY)
    );
    assert_eq!(claims.kind, "egress");
    assert_eq!(claims.attributes["a"], "b");
    assert!(claims.video.room_join && claims.video.room_create && !claims.video.room_admin);
    assert_eq!(claims.video.can_publish, Some(false));
    assert_eq!(claims.video.can_subscribe, Some(true));
    assert!(TokenVerifier::with_api_key(KEY, "another").verify(&token).is_err());
}

#[test]
fn the_scheme_of_a_header_is_read_in_any_case() {
    assert_eq!(from_authorization("Bearer abc"), Some("abc"));
    assert_eq!(from_authorization("bearer  abc "), Some("abc"));
    assert_eq!(from_authorization("Basic abc"), None);
    assert_eq!(from_authorization("abc"), None);
    let mut metadata = tonic::metadata::MetadataMap::new();
    assert_eq!(from_metadata(&metadata), Err(TokenError::Missing));
    metadata.insert("authorization", "Bearer abc".parse().unwrap());
    assert_eq!(from_metadata(&metadata), Ok("abc"));
}

proptest! {
    #[test]
    fn no_text_makes_verification_panic_or_succeed(text in any::<String>()) {
        prop_assert!(ring().verify(&text, NOW).is_err());
    }

    #[test]
    fn no_changed_byte_of_a_good_token_is_taken(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let good = signed(good_claims());
        let mut bytes = good.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(text) = String::from_utf8(bytes) {
            prop_assert_eq!(ring().verify(&text, NOW).is_ok(), text == good);
        }
    }

    #[test]
    fn claims_of_any_shape_never_panic(text in r#"\{("[a-z]{1,6}":("[a-z]{0,4}"|[0-9]{1,20}|null|\{\}|\[\]),){0,5}"exp":[0-9]{1,25}(\.[0-9]{1,3})?(e[0-9]{1,3})?\}"#) {
        let _ = ring().verify(&signed_text(&text), NOW);
    }
}
