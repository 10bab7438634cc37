//! What clients are told.

use headwater_model::grants::Grants;
use headwater_proto::node::v1 as node;
use headwater_proto::node::v1::attach_response::Event;
use headwater_proto::v1;
use livekit_protocol as lk;
use lk::signal_response::Message as ToClient;
use prost::Message as _;

use super::super::event::participant_updates;
use super::super::info;
use super::super::payload::participant_payload;
use super::{dual, interpreter, told};

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
    assert_eq!(track.codecs[0].video_layer_mode(), Mode::MultipleSpatialLayersPerStream);
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
    let [ToClient::SubscribedQualityUpdate(update)] = told.as_slice() else { panic!() };
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
    let speaker =
        |uid: &str, level| node::Speaker { participant_uid: uid.into(), level, active: true };
    let changed = node::SpeakersChanged {
        speakers: vec![speaker("PA_1", f32::NAN), speaker("PA_2", 7.0), speaker("odd", 0.5)],
    };
    let told_speakers = told(&mut interpreter, Event::SpeakersChanged(changed));
    let [ToClient::SpeakersChanged(speakers)] = told_speakers.as_slice() else { panic!() };
    let levels: Vec<f32> = speakers.speakers.iter().map(|it| it.level).collect();
    assert_eq!(levels, [0.0, 1.0]);
    let odd = node::Participant { uid: "odd".into(), ..Default::default() };
    let changed = node::ParticipantsChanged { participants: vec![odd] };
    assert!(told(&mut interpreter, Event::ParticipantsChanged(changed)).is_empty());
    assert!(told(&mut interpreter, Event::TrackAdded(node::TrackAdded::default())).is_empty());
    assert!(told(&mut interpreter, Event::RoomChanged(node::RoomChanged::default())).is_empty());
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
    for (protocol, grade) in [(10, lk::ConnectionQuality::Poor), (11, lk::ConnectionQuality::Lost)]
    {
        let mut interpreter = interpreter(protocol, node::TransportMode::Dual);
        let told = told(&mut interpreter, lost());
        let [ToClient::ConnectionQuality(update)] = told.as_slice() else { panic!() };
        assert_eq!((update.updates[0].quality(), update.updates[0].score), (grade, 0.0));
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
    let sizes: Vec<usize> = updates.iter().map(|update| update.participants.len()).collect();
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
    let description = node::SessionDescription { offer_id: 3, ..Default::default() };
    let data_track =
        || Some(node::DataTrack { handle: 1, uid: "DTR_1".into(), ..Default::default() });
    let events = [
        Event::Offer(description.clone()),
        Event::Answer(description),
        Event::StreamStateChanged(node::StreamStateChanged {
            states: vec![node::StreamState { paused: true, ..Default::default() }],
        }),
        Event::MediaSectionsNeeded(node::MediaSectionsNeeded { audio: 0, video: 0 }),
        Event::TrackSubscribed(node::TrackSubscribed { track_uid: "TR_1".into() }),
        Event::SubscriptionAllowed(node::SubscriptionAllowed::default()),
        Event::MuteTrack(node::MuteTrack::default()),
        Event::TrackRemoved(node::TrackRemoved::default()),
        Event::SubscriptionFailed(node::SubscriptionFailed::default()),
        Event::DataTrackPublished(node::DataTrackPublished { track: data_track() }),
        Event::DataTrackUnpublished(node::DataTrackUnpublished { track: data_track() }),
        Event::DataTrackHandles(node::DataTrackHandles {
            sources: [(9, node::DataTrackSource::default())].into(),
        }),
        Event::RoomChanged(node::RoomChanged { room: Some(v1::Room::default()) }),
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
    let client =
        lk::ClientInfo { client_protocol: 2, capabilities: vec![1, 2], ..Default::default() };
    let told = info::participant(&node::Participant {
        uid: "PA_1".into(),
        permission: Some(v1::ParticipantPermission { can_publish: true, ..Default::default() }),
        door_payload: participant_payload(&grants, &client, "eu"),
        close_reason: node::CloseReason::Removed.into(),
        phase: node::ParticipantPhase::Left.into(),
        ..Default::default()
    });
    assert_eq!(told.kind(), lk::participant_info::Kind::Agent);
    assert_eq!(told.kind_details, [0]);
    assert_eq!((told.client_protocol, &told.capabilities[..]), (2, &[1, 2][..]));
    assert_eq!(told.region, "eu");
    assert_eq!(told.disconnect_reason(), lk::DisconnectReason::ParticipantRemoved);
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
    let forged = lk::TrackInfo { sid: "TR_forged".into(), muted: true, ..Default::default() };
    let track = info::track(&node::Track {
        track: Some(v1::Track { uid: "TR_true".into(), ..Default::default() }),
        door_payload: forged.encode_to_vec(),
        ..Default::default()
    });
    assert_eq!((track.sid.as_str(), track.muted), ("TR_true", false));
}
