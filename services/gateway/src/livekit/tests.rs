//! The interpreter: every request and every event has its translation, and
//! nothing that a client can send makes it panic.

use headwater_model::grants::Grants;
use headwater_proto::node::v1 as node;
use headwater_proto::node::v1::attach_request::Request as ToNode;
use headwater_proto::node::v1::attach_response::Event;
use headwater_proto::v1;
use livekit_protocol as lk;
use lk::request_response::{Reason, Request as Refused};
use lk::signal_request::Message as Request;
use lk::signal_response::Message as ToClient;
use proptest::prelude::*;
use prost::Message as _;

use super::event::participant_updates;
use super::info;
use super::interpreter::{Interpreter, Output, Speaker};
use super::payload::participant_payload;

fn interpreter(protocol: i32, mode: node::TransportMode) -> Interpreter {
    let grants = Grants {
        identity: "ada".into(),
        ..Default::default()
    };
    let own = node::Participant {
        uid: "PA_ada".into(),
        identity: "ada".into(),
        ..Default::default()
    };
    Interpreter::new(
        Speaker {
            protocol,
            mode,
            codecs: Vec::new(),
            grants,
        },
        &own,
    )
}

fn dual() -> Interpreter {
    interpreter(17, node::TransportMode::Dual)
}

fn outputs(interpreter: &mut Interpreter) -> Vec<Output> {
    std::iter::from_fn(|| interpreter.poll_output()).collect()
}

/// What one request becomes at the node.
fn asked(request: Request) -> Vec<ToNode> {
    let mut interpreter = dual();
    interpreter.handle_request(request, 0);
    outputs(&mut interpreter)
        .into_iter()
        .filter_map(|output| match output {
            Output::ToNode(request) => Some(request),
            _ => None,
        })
        .collect()
}

/// What one event becomes at the client.
fn told(interpreter: &mut Interpreter, event: Event) -> Vec<ToClient> {
    interpreter.handle_event(event);
    outputs(interpreter)
        .into_iter()
        .filter_map(|output| match output {
            Output::ToClient(message) => Some(message),
            _ => None,
        })
        .collect()
}

fn camera() -> lk::AddTrackRequest {
    let layer = |quality: lk::VideoQuality, width| lk::VideoLayer {
        quality: quality.into(),
        width,
        bitrate: 1000,
        ..Default::default()
    };
    lk::AddTrackRequest {
        cid: "cam".into(),
        name: "front".into(),
        r#type: lk::TrackType::Video.into(),
        source: lk::TrackSource::Camera.into(),
        width: 1280,
        height: 720,
        layers: vec![
            layer(lk::VideoQuality::High, 1280),
            layer(lk::VideoQuality::Low, 320),
            layer(lk::VideoQuality::Off, 1),
        ],
        simulcast_codecs: vec![
            lk::SimulcastCodec {
                codec: "vp9".into(),
                cid: "cam".into(),
                video_layer_mode: lk::video_layer::Mode::OneSpatialLayerPerStream.into(),
                ..Default::default()
            },
            lk::SimulcastCodec {
                codec: "vp8".into(),
                ..Default::default()
            },
        ],
        encryption: lk::encryption::Type::Gcm.into(),
        backup_codec_policy: lk::BackupCodecPolicy::Simulcast.into(),
        packet_trailer_features: vec![1],
        ..Default::default()
    }
}

/// The track that a node makes of a request.
fn published(add: &node::AddTrack, uid: &str) -> node::Track {
    node::Track {
        track: Some(v1::Track {
            uid: uid.into(),
            display_name: add.display_name.clone(),
            kind: add.kind,
            source: add.source,
            width: add.width,
            height: add.height,
            mime_type: "video/VP9".into(),
            ..Default::default()
        }),
        layers: add.layers.clone(),
        codecs: add.codecs.clone(),
        encrypted: add.encrypted,
        door_payload: add.door_payload.clone(),
        mid: "2".into(),
        ..Default::default()
    }
}

#[test]
fn a_camera_is_translated_there_and_back() {
    let mut interpreter = dual();
    interpreter.handle_request(Request::AddTrack(camera()), 0);
    let Some(Output::ToNode(ToNode::AddTrack(add))) = interpreter.poll_output() else {
        panic!()
    };
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
    let added = node::TrackAdded {
        client_track_id: "cam".into(),
        track,
    };
    let told = told(&mut interpreter, Event::TrackAdded(added));
    let [ToClient::TrackPublished(told)] = told.as_slice() else {
        panic!("{told:?}")
    };
    let track = told.track.as_ref().unwrap();
    assert_eq!(
        (told.cid.as_str(), track.sid.as_str(), track.mid.as_str()),
        ("cam", "TR_VC1", "2")
    );
    assert_eq!(track.encryption(), lk::encryption::Type::Gcm);
    assert_eq!(
        track.backup_codec_policy(),
        lk::BackupCodecPolicy::Simulcast
    );
    assert_eq!(track.packet_trailer_features, [1]);
    assert_eq!(track.stream, "camera");
    assert_eq!(track.codecs[0].mime_type, "video/VP9");
    assert_eq!(track.codecs[0].layers.len(), 2);
    use lk::video_layer::Mode;
    assert_eq!(
        track.codecs[0].video_layer_mode(),
        Mode::OneSpatialLayerPerStream,
        "as declared"
    );
}

#[test]
fn a_track_without_codecs_is_told_with_one() {
    let track = info::track(&node::Track {
        track: Some(v1::Track {
            kind: v1::TrackKind::Video.into(),
            mime_type: "video/AV1".into(),
            ..Default::default()
        }),
        ..Default::default()
    });
    assert_eq!(track.codecs.len(), 1);
    use lk::video_layer::Mode;
    assert_eq!(
        track.codecs[0].video_layer_mode(),
        Mode::MultipleSpatialLayersPerStream
    );
}

#[test]
fn a_microphones_features_reach_the_node_and_can_change() {
    let mut interpreter = dual();
    let features = [
        lk::AudioTrackFeature::TfStereo,
        lk::AudioTrackFeature::TfNoDtx,
    ];
    let add = lk::AddTrackRequest {
        cid: "mic".into(),
        r#type: lk::TrackType::Audio.into(),
        audio_features: features.map(i32::from).to_vec(),
        ..Default::default()
    };
    interpreter.handle_request(Request::AddTrack(add), 0);
    let Some(Output::ToNode(ToNode::AddTrack(add))) = interpreter.poll_output() else {
        panic!()
    };
    assert!(add.stereo && add.disable_dtx);
    let track = Some(published(&add, "TR_AM1"));
    told(
        &mut interpreter,
        Event::TrackAdded(node::TrackAdded {
            track,
            ..Default::default()
        }),
    );
    let update = lk::UpdateLocalAudioTrack {
        track_sid: "TR_AM1".into(),
        features: vec![4],
    };
    interpreter.handle_request(Request::UpdateAudioTrack(update), 0);
    let told = outputs(&mut interpreter);
    let [Output::ToNode(ToNode::UpdateTrack(update))] = told.as_slice() else {
        panic!()
    };
    let changed = node::Track {
        door_payload: update.door_payload.clone(),
        ..Default::default()
    };
    assert_eq!(info::track(&changed).audio_features, [4]);
    // Somebody else's track is nobody's to change.
    let update = lk::UpdateLocalAudioTrack {
        track_sid: "TR_other".into(),
        features: vec![],
    };
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
        let [.., ToClient::RequestResponse(response)] = told.as_slice() else {
            panic!()
        };
        assert_eq!(response.reason(), reason);
        assert_eq!(response.request, Some(Refused::AddTrack(camera())));
    }
    let publish = lk::PublishDataTrackRequest {
        pub_handle: 5,
        ..Default::default()
    };
    interpreter.handle_request(Request::PublishDataTrackRequest(publish.clone()), 0);
    let refused = node::RequestResult {
        outcome: node::RequestOutcome::DuplicateName.into(),
        data_track_handle: 5,
        ..Default::default()
    };
    let told = told(&mut interpreter, Event::RequestResult(refused));
    let [.., ToClient::RequestResponse(response)] = told.as_slice() else {
        panic!()
    };
    assert_eq!(response.reason(), Reason::DuplicateName);
    assert_eq!(response.request, Some(Refused::PublishDataTrack(publish)));
}

#[test]
fn success_is_told_only_to_clients_that_know_it() {
    for (protocol, messages) in [(14, 0), (15, 1)] {
        let mut interpreter = interpreter(protocol, node::TransportMode::Dual);
        let update = lk::UpdateParticipantMetadata {
            request_id: 3,
            ..Default::default()
        };
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
        let add = lk::AddTrackRequest {
            cid: number.to_string(),
            ..camera()
        };
        interpreter.handle_request(Request::AddTrack(add), 0);
    }
    outputs(&mut interpreter);
    let refused = node::RequestResult {
        outcome: node::RequestOutcome::LimitExceeded.into(),
        client_track_id: "0".into(),
        ..Default::default()
    };
    let told = told(&mut interpreter, Event::RequestResult(refused));
    let [ToClient::RequestResponse(response)] = told.as_slice() else {
        panic!()
    };
    let only_its_key = lk::AddTrackRequest {
        cid: "0".into(),
        ..Default::default()
    };
    assert_eq!(response.request, Some(Refused::AddTrack(only_its_key)));
}

#[test]
fn subscriptions_and_settings_are_translated() {
    let tracks = |sid: &str| lk::ParticipantTracks {
        track_sids: vec![sid.into()],
        ..Default::default()
    };
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
    let [
        ToNode::UpdateDataSubscription(off),
        ToNode::UpdateDataSubscription(on),
    ] = &asked(Request::UpdateDataSubscription(update))[..]
    else {
        panic!()
    };
    assert_eq!(
        (off.subscribe, &off.track_uids[..]),
        (false, &["DTR_2".to_owned()][..])
    );
    assert_eq!((on.subscribe, on.track_uids.len()), (true, 2));
}

#[test]
fn the_other_requests_reach_the_node_too() {
    #[expect(deprecated, reason = "older clients send it")]
    let layers = Request::UpdateLayers(lk::UpdateVideoLayers::default());
    let simulate = lk::SimulateScenario {
        scenario: Some(lk::simulate_scenario::Scenario::NodeFailure(true)),
    };
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
    let store = lk::StoreDataBlobRequest {
        request_id: 4,
        ..Default::default()
    };
    let get = lk::GetDataBlobRequest {
        request_id: 5,
        ..Default::default()
    };
    interpreter.handle_request(Request::StoreDataBlobRequest(store), 0);
    interpreter.handle_request(Request::GetDataBlobRequest(get), 0);
    for (output, id) in outputs(&mut interpreter).iter().zip([4, 5]) {
        let Output::ToClient(ToClient::RequestResponse(response)) = output else {
            panic!()
        };
        assert_eq!(
            (response.request_id, response.reason()),
            (id, Reason::NotAllowed)
        );
    }
}

#[test]
fn dynacast_names_all_three_qualities_of_each_codec() {
    let demand = node::LayerDemand {
        track_uid: "TR_1".into(),
        codecs: vec![node::CodecDemand {
            mime_type: "video/VP8".into(),
            watched_qualities: vec![0, 1],
        }],
    };
    let told = told(&mut dual(), Event::LayerDemand(demand));
    let [ToClient::SubscribedQualityUpdate(update)] = told.as_slice() else {
        panic!()
    };
    assert_eq!(update.subscribed_codecs[0].codec, "vp8");
    let flags: Vec<(i32, bool)> = update.subscribed_codecs[0]
        .qualities
        .iter()
        .map(|quality| (quality.quality, quality.enabled))
        .collect();
    assert_eq!(flags, [(0, true), (1, true), (2, false)]);
    #[expect(deprecated, reason = "older clients read it")]
    let legacy = &update.subscribed_qualities;
    assert_eq!(*legacy, update.subscribed_codecs[0].qualities);
}

#[test]
fn what_would_crash_a_client_is_left_out() {
    let mut interpreter = dual();
    let speaker = |uid: &str, level| node::Speaker {
        participant_uid: uid.into(),
        level,
        active: true,
    };
    let changed = node::SpeakersChanged {
        speakers: vec![
            speaker("PA_1", f32::NAN),
            speaker("PA_2", 7.0),
            speaker("odd", 0.5),
        ],
    };
    let told_speakers = told(&mut interpreter, Event::SpeakersChanged(changed));
    let [ToClient::SpeakersChanged(speakers)] = told_speakers.as_slice() else {
        panic!()
    };
    let levels: Vec<f32> = speakers.speakers.iter().map(|it| it.level).collect();
    assert_eq!(levels, [0.0, 1.0]);
    let odd = node::Participant {
        uid: "odd".into(),
        ..Default::default()
    };
    let changed = node::ParticipantsChanged {
        participants: vec![odd],
    };
    assert!(told(&mut interpreter, Event::ParticipantsChanged(changed)).is_empty());
    assert!(
        told(
            &mut interpreter,
            Event::TrackAdded(node::TrackAdded::default())
        )
        .is_empty()
    );
    assert!(
        told(
            &mut interpreter,
            Event::RoomChanged(node::RoomChanged::default())
        )
        .is_empty()
    );
}

#[test]
fn lost_quality_is_poor_to_old_clients() {
    let lost = || {
        Event::QualityChanged(node::QualityChanged {
            qualities: vec![node::ConnectionQuality {
                participant_uid: "PA_1".into(),
                grade: node::QualityGrade::Lost.into(),
                score: f32::INFINITY,
            }],
        })
    };
    for (protocol, grade) in [
        (10, lk::ConnectionQuality::Poor),
        (11, lk::ConnectionQuality::Lost),
    ] {
        let mut interpreter = interpreter(protocol, node::TransportMode::Dual);
        let told = told(&mut interpreter, lost());
        let [ToClient::ConnectionQuality(update)] = told.as_slice() else {
            panic!()
        };
        assert_eq!(
            (update.updates[0].quality(), update.updates[0].score),
            (grade, 0.0)
        );
    }
}

#[test]
fn large_updates_are_cut_into_bearable_ones() {
    let big = |number: usize| node::Participant {
        uid: format!("PA_{number}"),
        metadata: "m".repeat(50_000),
        ..Default::default()
    };
    let participants: Vec<node::Participant> = (0..5).map(big).collect();
    let updates = participant_updates(&participants);
    let sizes: Vec<usize> = updates
        .iter()
        .map(|update| update.participants.len())
        .collect();
    assert_eq!(sizes, [2, 2, 1]);
    // One that is too large alone is sent all the same.
    let huge = node::Participant {
        uid: "PA_huge".into(),
        metadata: "m".repeat(400_000),
        ..Default::default()
    };
    assert_eq!(participant_updates([&huge]).len(), 1);
}

#[test]
fn the_rest_of_the_events_is_told() {
    let description = node::SessionDescription {
        offer_id: 3,
        ..Default::default()
    };
    let data_track = || {
        Some(node::DataTrack {
            handle: 1,
            uid: "DTR_1".into(),
            ..Default::default()
        })
    };
    let events = [
        Event::Offer(description.clone()),
        Event::Answer(description),
        Event::StreamStateChanged(node::StreamStateChanged {
            states: vec![node::StreamState {
                paused: true,
                ..Default::default()
            }],
        }),
        Event::MediaSectionsNeeded(node::MediaSectionsNeeded { audio: 0, video: 0 }),
        Event::TrackSubscribed(node::TrackSubscribed {
            track_uid: "TR_1".into(),
        }),
        Event::SubscriptionAllowed(node::SubscriptionAllowed::default()),
        Event::MuteTrack(node::MuteTrack::default()),
        Event::TrackRemoved(node::TrackRemoved::default()),
        Event::SubscriptionFailed(node::SubscriptionFailed::default()),
        Event::DataTrackPublished(node::DataTrackPublished {
            track: data_track(),
        }),
        Event::DataTrackUnpublished(node::DataTrackUnpublished {
            track: data_track(),
        }),
        Event::DataTrackHandles(node::DataTrackHandles {
            sources: [(9, node::DataTrackSource::default())].into(),
        }),
        Event::RoomChanged(node::RoomChanged {
            room: Some(v1::Room::default()),
        }),
    ];
    for event in events {
        let words = format!("{event:?}");
        assert_eq!(told(&mut dual(), event).len(), 1, "{words}");
    }
}

#[test]
fn a_participant_is_told_with_what_its_door_stored() {
    let grants = Grants {
        kind: headwater_model::grants::ParticipantKind::Agent,
        kind_details: vec!["cloud_agent".into(), "unheard_of".into()],
        agent: true,
        ..Default::default()
    };
    let client = lk::ClientInfo {
        client_protocol: 2,
        capabilities: vec![1, 2],
        ..Default::default()
    };
    let told = info::participant(&node::Participant {
        uid: "PA_1".into(),
        permission: Some(v1::ParticipantPermission {
            can_publish: true,
            ..Default::default()
        }),
        door_payload: participant_payload(&grants, &client, "eu"),
        close_reason: node::CloseReason::Removed.into(),
        phase: node::ParticipantPhase::Left.into(),
        ..Default::default()
    });
    assert_eq!(told.kind(), lk::participant_info::Kind::Agent);
    assert_eq!(told.kind_details, [0]);
    assert_eq!(
        (told.client_protocol, &told.capabilities[..]),
        (2, &[1, 2][..])
    );
    assert_eq!(told.region, "eu");
    assert_eq!(
        told.disconnect_reason(),
        lk::DisconnectReason::ParticipantRemoved
    );
    let permission = told.permission.unwrap();
    #[expect(deprecated, reason = "older clients read it")]
    let agent = permission.agent;
    assert!(permission.can_publish && agent);
}

#[test]
fn a_payload_of_another_door_means_nothing_and_cannot_speak_for_the_node() {
    let foreign = node::Participant {
        uid: "PA_1".into(),
        identity: "ada".into(),
        door_payload: vec![0xff; 40],
        ..Default::default()
    };
    assert_eq!(info::participant(&foreign).identity, "ada");
    let forged = lk::TrackInfo {
        sid: "TR_forged".into(),
        muted: true,
        ..Default::default()
    };
    let track = info::track(&node::Track {
        track: Some(v1::Track {
            uid: "TR_true".into(),
            ..Default::default()
        }),
        door_payload: forged.encode_to_vec(),
        ..Default::default()
    });
    assert_eq!((track.sid.as_str(), track.muted), ("TR_true", false));
}

proptest! {
    #[test]
    fn no_request_panics(bytes in prop::collection::vec(any::<u8>(), 0..256), single: bool) {
        let mode = if single { node::TransportMode::Single } else { node::TransportMode::Dual };
        let mut interpreter = interpreter(17, mode);
        if let Ok(request) = lk::SignalRequest::decode(bytes.as_slice()) {
            if let Some(message) = request.message {
                interpreter.handle_request(message, 0);
                outputs(&mut interpreter);
            }
        }
    }

    #[test]
    fn no_mutated_request_panics(at in 0..400usize, with: u8, numbers: [i32; 4]) {
        let add = lk::AddTrackRequest {
            r#type: numbers[0],
            source: numbers[1],
            encryption: numbers[2],
            audio_features: numbers.to_vec(),
            backup_codec_policy: numbers[3],
            ..camera()
        };
        let request = lk::SignalRequest { message: Some(Request::AddTrack(add)) };
        let mut bytes = request.encode_to_vec();
        let at = at % bytes.len();
        bytes[at] ^= with;
        let mut interpreter = dual();
        if let Ok(lk::SignalRequest { message: Some(message) }) =
            lk::SignalRequest::decode(bytes.as_slice())
        {
            interpreter.handle_request(message, 0);
            if let Some(Output::ToNode(ToNode::AddTrack(add))) = interpreter.poll_output() {
                let track = info::track(&published(&add, "TR_1"));
                prop_assert!(!track.codecs.is_empty());
            }
        }
    }

    #[test]
    fn no_payload_panics(payload in prop::collection::vec(any::<u8>(), 0..128)) {
        let track = node::Track { door_payload: payload.clone(), ..Default::default() };
        info::track(&track);
        info::participant(&node::Participant { door_payload: payload.clone(), ..Default::default() });
        info::data_track(&node::DataTrack { door_payload: payload, ..Default::default() });
    }
}
