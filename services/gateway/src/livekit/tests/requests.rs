//! What clients ask for, and how it is answered.

use headwater_proto::node::v1 as node;
use headwater_proto::node::v1::attach_request::Request as ToNode;
use headwater_proto::node::v1::attach_response::Event;
use headwater_proto::v1;
use livekit_protocol as lk;
use lk::request_response::{Reason, Request as Refused};
use lk::signal_request::Message as Request;
use lk::signal_response::Message as ToClient;

use super::super::info;
use super::super::interpreter::Output;
use super::{asked, camera, dual, interpreter, outputs, published, told};

#[test]
fn a_camera_is_translated_there_and_back() {
    let mut interpreter = dual();
    interpreter.handle_request(Request::AddTrack(camera()), 0);
    let Some(Output::ToNode(ToNode::AddTrack(add))) = interpreter.poll_output() else { panic!() };
    assert_eq!(add.kind(), v1::TrackKind::Video);
    assert_eq!(add.source(), v1::TrackSource::Camera);
    let layers: Vec<(u32, u32)> = add.layers.iter().map(|it| (it.quality, it.width)).collect();
    assert_eq!(layers, [(0, 320), (2, 1280)], "lowest first, without OFF");
    let codecs: Vec<(&str, &str)> = add
        .codecs
        .iter()
        .map(|codec| (codec.mime_type.as_str(), codec.client_track_id.as_str()))
        .collect();
    assert_eq!(codecs, [("video/VP9", "cam"), ("video/VP8", "")]);
    assert!(add.encrypted);

    let track = Some(published(&add, "TR_VC1"));
    let added = node::TrackAdded { client_track_id: "cam".into(), track };
    let told = told(&mut interpreter, Event::TrackAdded(added));
    let [ToClient::TrackPublished(told)] = told.as_slice() else { panic!("{told:?}") };
    let track = told.track.as_ref().unwrap();
    assert_eq!((told.cid.as_str(), track.sid.as_str(), track.mid.as_str()), ("cam", "TR_VC1", "2"));
    assert_eq!(track.encryption(), lk::encryption::Type::Gcm);
    assert_eq!(track.backup_codec_policy(), lk::BackupCodecPolicy::Simulcast);
    assert_eq!(track.packet_trailer_features, [1]);
    assert_eq!(track.stream, "camera");
    assert_eq!(track.codecs[0].mime_type, "video/VP9");
    assert_eq!(track.codecs[0].layers.len(), 2);
    use lk::video_layer::Mode;
    assert_eq!(track.codecs[0].video_layer_mode(), Mode::OneSpatialLayerPerStream, "as declared");
}

#[test]
fn a_microphones_features_reach_the_node_and_can_change() {
    let mut interpreter = dual();
    let features = [lk::AudioTrackFeature::TfStereo, lk::AudioTrackFeature::TfNoDtx];
    let add = lk::AddTrackRequest {
        cid: "mic".into(),
        r#type: lk::TrackType::Audio.into(),
        audio_features: features.map(i32::from).to_vec(),
        ..Default::default()
    };
    interpreter.handle_request(Request::AddTrack(add), 0);
    let Some(Output::ToNode(ToNode::AddTrack(add))) = interpreter.poll_output() else { panic!() };
    assert!(add.stereo && add.disable_dtx);
    let track = Some(published(&add, "TR_AM1"));
    told(&mut interpreter, Event::TrackAdded(node::TrackAdded { track, ..Default::default() }));
    let update = lk::UpdateLocalAudioTrack { track_sid: "TR_AM1".into(), features: vec![4] };
    interpreter.handle_request(Request::UpdateAudioTrack(update), 0);
    let told = outputs(&mut interpreter);
    let [Output::ToNode(ToNode::UpdateTrack(update))] = told.as_slice() else { panic!() };
    let changed = node::Track { door_payload: update.door_payload.clone(), ..Default::default() };
    assert_eq!(info::track(&changed).audio_features, [4]);
    // Somebody else's track is nobody's to change.
    let update = lk::UpdateLocalAudioTrack { track_sid: "TR_other".into(), features: vec![] };
    interpreter.handle_request(Request::UpdateAudioTrack(update), 0);
    assert!(outputs(&mut interpreter).is_empty());
}

#[test]
fn a_track_that_is_neither_seen_nor_heard_is_refused_here() {
    let mut interpreter = dual();
    let add = lk::AddTrackRequest {
        cid: "x".into(),
        r#type: lk::TrackType::Data.into(),
        ..Default::default()
    };
    interpreter.handle_request(Request::AddTrack(add.clone()), 0);
    let [Output::ToClient(ToClient::RequestResponse(response))] = &outputs(&mut interpreter)[..]
    else {
        panic!()
    };
    assert_eq!(response.reason(), Reason::UnsupportedType);
    assert_eq!(response.request, Some(Refused::AddTrack(add)));
}

#[test]
fn refusals_repeat_what_was_asked() {
    let mut interpreter = dual();
    interpreter.handle_request(Request::AddTrack(camera()), 0);
    let result = |outcome: node::RequestOutcome| node::RequestResult {
        outcome: outcome.into(),
        client_track_id: "cam".into(),
        ..Default::default()
    };
    // Queued first, which is no end of it.
    for (outcome, reason) in [
        (node::RequestOutcome::Queued, Reason::Queued),
        (node::RequestOutcome::NotAllowed, Reason::NotAllowed),
    ] {
        let told = told(&mut interpreter, Event::RequestResult(result(outcome)));
        let [.., ToClient::RequestResponse(response)] = told.as_slice() else { panic!() };
        assert_eq!(response.reason(), reason);
        assert_eq!(response.request, Some(Refused::AddTrack(camera())));
    }
    let publish = lk::PublishDataTrackRequest { pub_handle: 5, ..Default::default() };
    interpreter.handle_request(Request::PublishDataTrackRequest(publish.clone()), 0);
    let refused = node::RequestResult {
        outcome: node::RequestOutcome::DuplicateName.into(),
        data_track_handle: 5,
        ..Default::default()
    };
    let told = told(&mut interpreter, Event::RequestResult(refused));
    let [.., ToClient::RequestResponse(response)] = told.as_slice() else { panic!() };
    assert_eq!(response.reason(), Reason::DuplicateName);
    assert_eq!(response.request, Some(Refused::PublishDataTrack(publish)));
}

#[test]
fn success_is_told_only_to_clients_that_know_it() {
    for (protocol, messages) in [(14, 0), (15, 1)] {
        let mut interpreter = interpreter(protocol, node::TransportMode::Dual);
        let update = lk::UpdateParticipantMetadata { request_id: 3, ..Default::default() };
        interpreter.handle_request(Request::UpdateMetadata(update.clone()), 0);
        outputs(&mut interpreter);
        let done = node::RequestResult {
            request_id: 3,
            outcome: node::RequestOutcome::Done.into(),
            ..Default::default()
        };
        let told = told(&mut interpreter, Event::RequestResult(done));
        assert_eq!(told.len(), messages, "protocol {protocol}");
        if let [ToClient::RequestResponse(response)] = told.as_slice() {
            assert_eq!((response.request_id, response.reason()), (3, Reason::Ok));
            assert_eq!(response.request, Some(Refused::UpdateMetadata(update)));
        }
    }
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut interpreter = dual();
    for number in 0..1000 {
        let add = lk::AddTrackRequest { cid: number.to_string(), ..camera() };
        interpreter.handle_request(Request::AddTrack(add), 0);
    }
    outputs(&mut interpreter);
    let refused = node::RequestResult {
        outcome: node::RequestOutcome::LimitExceeded.into(),
        client_track_id: "0".into(),
        ..Default::default()
    };
    let told = told(&mut interpreter, Event::RequestResult(refused));
    let [ToClient::RequestResponse(response)] = told.as_slice() else { panic!() };
    let only_its_key = lk::AddTrackRequest { cid: "0".into(), ..Default::default() };
    assert_eq!(response.request, Some(Refused::AddTrack(only_its_key)));
}

#[test]
fn subscriptions_and_settings_are_translated() {
    let tracks =
        |sid: &str| lk::ParticipantTracks { track_sids: vec![sid.into()], ..Default::default() };
    let update = lk::UpdateSubscription {
        track_sids: vec!["TR_1".into()],
        subscribe: true,
        participant_tracks: vec![tracks("TR_2"), tracks("TR_3")],
    };
    let [ToNode::UpdateSubscription(update)] = &asked(Request::Subscription(update))[..] else {
        panic!()
    };
    assert_eq!(update.track_uids, ["TR_1", "TR_2", "TR_3"]);
    let settings = lk::UpdateTrackSettings {
        track_sids: vec!["TR_1".into()],
        quality: lk::VideoQuality::Off.into(),
        fps: 15,
        ..Default::default()
    };
    let [ToNode::UpdateTrackSettings(settings)] = &asked(Request::TrackSetting(settings))[..]
    else {
        panic!()
    };
    assert!(settings.disabled && settings.frame_rate == 15);
    let update = lk::UpdateDataSubscription {
        updates: [("DTR_1", true), ("DTR_2", false), ("DTR_3", true)]
            .map(|(sid, subscribe)| lk::update_data_subscription::Update {
                track_sid: sid.into(),
                subscribe,
                options: None,
            })
            .to_vec(),
    };
    let [ToNode::UpdateDataSubscription(off), ToNode::UpdateDataSubscription(on)] =
        &asked(Request::UpdateDataSubscription(update))[..]
    else {
        panic!()
    };
    assert_eq!((off.subscribe, &off.track_uids[..]), (false, &["DTR_2".to_owned()][..]));
    assert_eq!((on.subscribe, on.track_uids.len()), (true, 2));
}

#[test]
fn the_other_requests_reach_the_node_too() {
    #[expect(deprecated, reason = "older clients send it")]
    let layers = Request::UpdateLayers(lk::UpdateVideoLayers::default());
    let simulate =
        lk::SimulateScenario { scenario: Some(lk::simulate_scenario::Scenario::NodeFailure(true)) };
    let requests = [
        Request::Offer(lk::SessionDescription::default()),
        Request::Answer(lk::SessionDescription::default()),
        Request::Mute(lk::MuteTrackRequest::default()),
        Request::SubscriptionPermission(lk::SubscriptionPermission {
            track_permissions: vec![lk::TrackPermission::default()],
            ..Default::default()
        }),
        Request::SyncState(lk::SyncState::default()),
        Request::Simulate(simulate),
        Request::UpdateMetadata(lk::UpdateParticipantMetadata::default()),
        Request::UpdateVideoTrack(lk::UpdateLocalVideoTrack::default()),
        Request::PublishDataTrackRequest(lk::PublishDataTrackRequest::default()),
        Request::UnpublishDataTrackRequest(lk::UnpublishDataTrackRequest::default()),
        Request::Leave(lk::LeaveRequest::default()),
        layers,
    ];
    for request in requests {
        let words = format!("{request:?}");
        assert_eq!(asked(request).len(), 1, "{words}");
    }
}

#[test]
fn a_client_with_one_transport_answers_nothing() {
    let mut interpreter = interpreter(17, node::TransportMode::Single);
    interpreter.handle_request(Request::Answer(lk::SessionDescription::default()), 0);
    assert!(outputs(&mut interpreter).is_empty());
}

#[test]
fn data_blobs_are_not_allowed() {
    let mut interpreter = dual();
    let store = lk::StoreDataBlobRequest { request_id: 4, ..Default::default() };
    let get = lk::GetDataBlobRequest { request_id: 5, ..Default::default() };
    interpreter.handle_request(Request::StoreDataBlobRequest(store), 0);
    interpreter.handle_request(Request::GetDataBlobRequest(get), 0);
    for (output, id) in outputs(&mut interpreter).iter().zip([4, 5]) {
        let Output::ToClient(ToClient::RequestResponse(response)) = output else { panic!() };
        assert_eq!((response.request_id, response.reason()), (id, Reason::NotAllowed));
    }
}
