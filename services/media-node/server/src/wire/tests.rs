//! What comes in is checked once; what goes out says everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_model::media::{Codec, MediaKind, TrackSource};
use headwater_model::{Identity, ParticipantUid, Permission, TrackUid};
use headwater_proto::node::v1 as wire;
use headwater_proto::node::v1::attach_request::Request;
use headwater_proto::node::v1::attach_response::Event as Sent;
use headwater_proto::v1;
use headwater_room::{
    CloseReason, Closed, Command, Event, LayerQuality, ParticipantPhase, ParticipantView,
    RequestOutcome, RequestReference, RequestResult, Scenario, TrackView, TransportMode,
    VideoLayer,
};

use super::*;

fn read(request: Request) -> Result<Command, WireError> {
    match command(wire::AttachRequest { request: Some(request) })? {
        Inbound::Command(command) => Ok(command),
        Inbound::Join(_) => panic!("a join"),
    }
}

fn a_join() -> wire::Join {
    wire::Join {
        room_id: "hall".to_owned(),
        identity: "ada".to_owned(),
        epoch: 4,
        permission: Some(v1::ParticipantPermission {
            can_subscribe: true,
            can_publish_sources: vec![v1::TrackSource::Microphone.into()],
            ..v1::ParticipantPermission::default()
        }),
        transport_mode: wire::TransportMode::Dual.into(),
        media_protocols: vec![wire::MediaProtocol::Tcp.into()],
        publish_codecs: vec!["video/h264".to_owned(), "video/unheard-of".to_owned()],
        ..wire::Join::default()
    }
}

#[test]
fn a_join_is_read_as_it_was_meant() {
    let request = join(a_join(), 77).unwrap();
    assert_eq!((request.room.as_str(), request.epoch.0), ("hall", 4));
    assert_eq!(request.transport_mode, TransportMode::Dual);
    assert_eq!(request.join_millis, 77);
    assert_eq!(request.publish_codecs, [Codec::H264]);
    assert_eq!(request.protocols.len(), 1);
    assert_eq!(request.resume, None);
    assert!(request.permission.can_subscribe && !request.permission.can_publish);
    assert_eq!(request.permission.can_publish_sources, [TrackSource::Microphone]);
    let resume = wire::Join { resume_participant_uid: "PA_1".to_owned(), ..a_join() };
    let request = join(resume, 0).unwrap();
    assert_eq!(request.resume, Some(ParticipantUid::from_raw("PA_1")));
}

#[test]
fn what_is_wrong_with_a_join_is_named() {
    let without = wire::Join { permission: None, ..a_join() };
    assert_eq!(join(without, 0).unwrap_err(), WireError::Missing("permission"));
    for (field, broken) in [
        ("room_id", wire::Join { room_id: "a/b".to_owned(), ..a_join() }),
        ("identity", wire::Join { identity: String::new(), ..a_join() }),
    ] {
        let error = join(broken, 0).unwrap_err();
        assert!(matches!(error, WireError::Id { field: named, .. } if named == field), "{error}");
    }
    let room = Some(v1::Room::default());
    let error = join(wire::Join { room, ..a_join() }, 0).unwrap_err();
    assert_eq!(error, WireError::Missing("room.uid"));
}

#[test]
fn a_message_without_content_is_refused() {
    let empty = wire::AttachRequest { request: None };
    assert!(matches!(command(empty), Err(WireError::Missing("request"))));
    let error = read(Request::Simulate(wire::Simulate { scenario: None })).unwrap_err();
    assert_eq!(error, WireError::Missing("scenario"));
}

#[test]
fn lists_are_bounded() {
    let update = wire::UpdateSubscription {
        track_uids: vec![String::new(); ENTRIES_MAX + 1],
        subscribe: true,
    };
    let error = read(Request::UpdateSubscription(update)).unwrap_err();
    assert_eq!(error, WireError::TooMany { field: "track_uids", limit: ENTRIES_MAX });
}

#[test]
fn a_track_is_announced_with_all_it_declares() {
    let add = wire::AddTrack {
        client_track_id: "cid".to_owned(),
        kind: v1::TrackKind::Video.into(),
        source: v1::TrackSource::ScreenShare.into(),
        layers: vec![wire::VideoLayer { quality: 1, width: 640, ..wire::VideoLayer::default() }],
        ..wire::AddTrack::default()
    };
    let Ok(Command::AddTrack(request)) = read(Request::AddTrack(add)) else { panic!() };
    assert_eq!((request.kind, request.source), (Some(MediaKind::Video), TrackSource::ScreenShare));
    assert_eq!(request.layers[0].quality, LayerQuality::Medium);
    assert_eq!(request.track, None, "an empty uid names nothing");
    let unknown = wire::AddTrack { kind: 99, ..wire::AddTrack::default() };
    let Ok(Command::AddTrack(request)) = read(Request::AddTrack(unknown)) else { panic!() };
    assert_eq!(request.kind, None);
}

#[test]
fn a_bandwidth_of_zero_ends_the_pretence() {
    use wire::simulate::Scenario as Wire;
    let read = |scenario| read(Request::Simulate(wire::Simulate { scenario: Some(scenario) }));
    let ended = Command::Simulate(Scenario::SubscriberBandwidth(None));
    assert_eq!(read(Wire::SubscriberBandwidth(0)), Ok(ended));
    assert_eq!(read(Wire::MediaProtocol(0)), Err(WireError::Missing("media_protocol")));
}

#[test]
fn close_reasons_go_both_ways() {
    for number in 0..=14 {
        assert_eq!(i32::from(close_reason_to(close_reason_from(number))), number);
    }
    assert_eq!(close_reason_from(999), CloseReason::Unspecified);
}

fn a_view() -> ParticipantView {
    ParticipantView {
        uid: ParticipantUid::from_raw("PA_1"),
        identity: Identity::new("ada").unwrap(),
        display_name: "Ada".to_owned(),
        metadata: "m".to_owned(),
        attributes: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        phase: ParticipantPhase::Left(CloseReason::Removed),
        join_millis: 1_500,
        version: 9,
        permission: Permission { hidden: true, ..Permission::default() },
        tracks: vec![TrackView {
            uid: TrackUid::from_raw("TR_1"),
            display_name: "cam".to_owned(),
            kind: MediaKind::Video,
            source: TrackSource::Camera,
            muted: true,
            codec: Some(Codec::Vp8),
            width: 1280,
            height: 720,
            simulcast: true,
            layers: vec![VideoLayer { quality: LayerQuality::High, ..VideoLayer::default() }],
            codecs: Vec::new(),
            stereo: false,
            disable_red: true,
            disable_dtx: false,
            encrypted: true,
            stream: "camera".to_owned(),
            mid: "3".to_owned(),
            door_payload: Arc::from(&b"t"[..]),
            client_track_id: None,
        }],
        door_payload: Arc::from(&b"p"[..]),
        data_tracks: Vec::new(),
        uncounted: true,
    }
}

#[test]
fn a_participant_is_shown_whole() {
    let shown = participant(&a_view());
    assert_eq!(shown.phase(), wire::ParticipantPhase::Left);
    assert_eq!(shown.close_reason(), wire::CloseReason::Removed);
    assert_eq!(shown.join_time.unwrap().nanos, 500_000_000);
    assert_eq!((shown.version, shown.uncounted), (9, true));
    assert!(shown.permission.unwrap().hidden);
    let track = &shown.tracks[0];
    let public = track.track.as_ref().unwrap();
    assert_eq!(public.mime_type, "video/VP8");
    assert_eq!(public.source(), v1::TrackSource::Camera);
    assert_eq!(track.layers[0].quality, 2);
    assert_eq!((track.mid.as_str(), track.client_track_id.as_str()), ("3", ""));
    assert!(track.encrypted && track.disable_red && public.muted && public.simulcast);
}

#[test]
fn results_name_their_request() {
    let result = |request| {
        let outcome = RequestOutcome::Queued;
        let sent = event(Event::RequestResult(RequestResult { request, outcome, message: "m" }));
        let Some(Sent::RequestResult(sent)) = sent.event else { panic!() };
        assert_eq!(sent.outcome(), wire::RequestOutcome::Queued);
        sent
    };
    assert_eq!(result(RequestReference::UpdateSelf(3)).request_id, 3);
    assert_eq!(result(RequestReference::AddTrack("c".to_owned())).client_track_id, "c");
    assert_eq!(result(RequestReference::DataTrack(70_000)).data_track_handle, 70_000);
}

#[test]
fn the_last_word_says_what_to_do() {
    let reason = CloseReason::StateMismatch;
    let last = Closed { reason, action: reason.action(), message: "gone".to_owned() };
    let Some(Sent::Closed(sent)) = event(Event::Closed(last)).event else { panic!() };
    assert_eq!(sent.reason(), wire::CloseReason::StateMismatch);
    assert_eq!(sent.action(), wire::CloseAction::Reconnect);
}
