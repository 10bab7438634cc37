//! Publishing: announcing, binding, muting, ending.

use std::time::Duration;

use headwater_model::media::{Codec, MediaKind, TrackSource};
use headwater_model::{Permission, TrackUid};
use headwater_sdp::Direction;

use super::client::{Client, Section, camera, microphone};
use super::world::{World, join_request};
use crate::*;

fn results(events: &[Event]) -> Vec<RequestOutcome> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::RequestResult(result) => Some(result.outcome),
            _ => None,
        })
        .collect()
}

/// Tracks of the last change a session was told of.
fn seen_tracks(world: &World, session: SessionKey) -> Vec<TrackView> {
    world.sessions[&session]
        .events
        .iter()
        .rev()
        .find_map(|event| match event {
            Event::ParticipantsChanged(views) => Some(views[0].tracks.clone()),
            _ => None,
        })
        .unwrap_or_default()
}

#[test]
fn a_track_is_seen_when_the_sdp_binds_it_not_before() {
    let mut world = World::new();
    let ada = Client::single(&mut world, "ada", 1);
    let mut bob = Client::single(&mut world, "bob", 0);
    let uid = bob.add_track(&mut world, camera("cam-1"));
    assert!(uid.as_str().starts_with("TR_VC"), "{uid}");
    assert!(seen_tracks(&world, ada.session).is_empty());
    bob.sections.push(Section::sending(MediaKind::Video, "cam-1"));
    let answer = bob.offer(&mut world);
    assert_eq!(answer.track_uid_by_mid["1"], uid);
    let seen = seen_tracks(&world, ada.session);
    assert_eq!(seen[0].uid, uid);
    assert_eq!(seen[0].mid, "1");
    assert_eq!(seen[0].codec, Some(Codec::Vp8));
    assert_eq!(seen[0].stream, "camera");
    assert!(seen[0].simulcast);
    assert_eq!(seen[0].client_track_id, None, "only its publisher knows its id");
    assert_eq!(world.report().publisher_count, 1);
}

#[test]
fn encodings_become_layers_in_the_declared_order() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    ada.publish(&mut world, camera("cam"));
    let publication = world
        .media
        .iter()
        .find_map(|command| match command {
            MediaCommand::Publish { publication, .. } => Some(publication.clone()),
            _ => None,
        })
        .unwrap();
    let layers: Vec<(u8, Option<&str>, u32)> = publication
        .encodings
        .iter()
        .map(|encoding| (encoding.spatial, encoding.rid.as_deref(), encoding.width))
        .collect();
    assert_eq!(layers, [(0, Some("q"), 320), (1, Some("h"), 640), (2, Some("f"), 1280)]);
}

#[test]
fn an_offer_answered_again_publishes_nothing_anew() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 1);
    ada.publish(&mut world, microphone("mic"));
    world.media.clear();
    ada.offer(&mut world);
    let again = world.media.iter().any(|it| matches!(it, MediaCommand::Publish { .. }));
    assert!(!again);
}

#[test]
fn media_that_comes_before_its_announcement_waits_for_it() {
    let mut world = World::new();
    let bob = Client::single(&mut world, "bob", 1);
    let mut ada = Client::single(&mut world, "ada", 0);
    ada.sections.push(Section::sending(MediaKind::Audio, "mic"));
    let answer = ada.offer(&mut world);
    assert!(answer.sdp.contains("a=recvonly"), "the media is taken");
    assert!(answer.track_uid_by_mid.is_empty());
    let uid = ada.add_track(&mut world, microphone("mic"));
    assert_eq!(seen_tracks(&world, bob.session)[0].uid, uid);
}

#[test]
fn an_id_that_the_client_rewrote_is_matched_by_kind() {
    let mut world = World::new();
    let bob = Client::single(&mut world, "bob", 1);
    let mut ada = Client::single(&mut world, "ada", 0);
    let uid = ada.add_track(&mut world, microphone("mic"));
    ada.sections.push(Section::sending(MediaKind::Audio, "{rewritten}"));
    ada.offer(&mut world);
    assert_eq!(seen_tracks(&world, bob.session)[0].uid, uid);

    // The announcement comes after the media, under another id: after a while.
    ada.sections.push(Section::sending(MediaKind::Video, "{other}"));
    ada.offer(&mut world);
    let uid = ada.add_track(&mut world, camera("cam"));
    assert_eq!(seen_tracks(&world, bob.session).len(), 1);
    world.pass(Duration::from_millis(500));
    assert_eq!(seen_tracks(&world, bob.session)[1].uid, uid);
}

#[test]
fn an_unknown_codec_is_replaced_by_one_that_is_carried() {
    let mut world = World::new();
    let request = JoinRequest {
        publish_codecs: vec![Codec::H264, Codec::Vp8],
        ..join_request("ada", TransportMode::Single)
    };
    let mut ada = Client::join_as(&mut world, request);
    let mut track = camera("cam");
    track.codecs[0].mime_type = "video/H265".to_owned();
    ada.publish(&mut world, track);
    let added = world.sessions[&ada.session].events.iter().find_map(|event| match event {
        Event::TrackAdded { track, .. } => Some(track.codecs[0].mime_type.clone()),
        _ => None,
    });
    assert_eq!(added.as_deref(), Some("video/H264"));
    let first = world.media.iter().find_map(|command| match command {
        MediaCommand::Publish { publication, .. } => Some(publication.codecs[0].codec),
        _ => None,
    });
    assert_eq!(first, Some(Codec::H264));
}

#[test]
fn announcements_are_checked() {
    let mut world = World::new();
    let permission =
        Permission { can_publish_sources: vec![TrackSource::Microphone], ..Permission::default() };
    let ada = world.join(JoinRequest { permission, ..join_request("ada", TransportMode::Single) });
    let none = AddTrack { kind: None, ..microphone("x") };
    let unknown = AddTrack { track: Some(TrackUid::from_raw("TR_no")), ..microphone("y") };
    for (request, expected) in [
        (camera("cam"), RequestOutcome::NotAllowed),
        (none, RequestOutcome::UnsupportedKind),
        (unknown, RequestOutcome::NotFound),
        (
            AddTrack { display_name: "n".repeat(257), ..microphone("z") },
            RequestOutcome::LimitExceeded,
        ),
    ] {
        world.take(ada);
        world.command(ada, Command::AddTrack(request));
        assert_eq!(results(&world.take(ada)), [expected]);
    }
}

#[test]
fn no_more_than_twenty_tracks_wait_for_their_media() {
    let mut world = World::new();
    let ada = world.join(join_request("ada", TransportMode::Single));
    for number in 0..20 {
        world.command(ada, Command::AddTrack(microphone(&format!("mic-{number}"))));
    }
    assert_eq!(results(&world.take(ada)), []);
    world.command(ada, Command::AddTrack(microphone("one more")));
    assert_eq!(results(&world.take(ada)), [RequestOutcome::LimitExceeded]);
}

#[test]
fn publishing_again_under_the_same_id_waits_for_the_end_of_the_older() {
    let mut world = World::new();
    let bob = Client::single(&mut world, "bob", 2);
    let mut ada = Client::single(&mut world, "ada", 0);
    let old = ada.publish(&mut world, microphone("mic"));
    world.take(ada.session);
    for _ in 0..3 {
        world.command(ada.session, Command::AddTrack(microphone("mic")));
    }
    world.command(ada.session, Command::AddTrack(microphone("mic")));
    let outcomes = results(&world.take(ada.session));
    assert_eq!(outcomes[..3], [RequestOutcome::Queued; 3]);
    assert_eq!(outcomes[3], RequestOutcome::LimitExceeded);

    ada.sections[1].direction = Direction::Inactive;
    ada.sections.push(Section::sending(MediaKind::Audio, "mic"));
    ada.offer(&mut world);
    let events = world.take(ada.session);
    let added = events.iter().find_map(|event| match event {
        Event::TrackAdded { track, .. } => Some(track.uid.clone()),
        _ => None,
    });
    let new = added.expect("the first of the queue is announced");
    assert_ne!(new, old);
    let seen = seen_tracks(&world, bob.session);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].uid, new);
}

#[test]
fn a_track_ends_when_its_section_stops_sending() {
    let mut world = World::new();
    let mut bob = Client::single(&mut world, "bob", 1);
    let mut ada = Client::single(&mut world, "ada", 0);
    let uid = ada.publish(&mut world, microphone("mic"));
    bob.offer(&mut world);
    assert!(bob.hears(&world, &uid));
    ada.sections[1].direction = Direction::Inactive;
    ada.offer(&mut world);
    assert!(seen_tracks(&world, bob.session).is_empty());
    assert!(world.tracks.is_empty() && world.subscriptions.is_empty());
    assert_eq!(world.report().publisher_count, 0);
}

#[test]
fn muting_goes_both_ways() {
    let mut world = World::new();
    let bob = Client::single(&mut world, "bob", 1);
    let mut ada = Client::single(&mut world, "ada", 0);
    let track = ada.publish(&mut world, microphone("mic"));
    world.command(ada.session, Command::MuteTrack { track: track.clone(), muted: true });
    assert!(seen_tracks(&world, bob.session)[0].muted);
    assert!(matches!(world.media.last(), Some(MediaCommand::SetMuted { muted: true, .. })));
    world.take(ada.session);

    let unmute = ControlAction::MuteTrack { track: track.clone(), muted: false };
    let view = world.control("ada", unmute).unwrap();
    assert!(!view.tracks[0].muted);
    assert!(!seen_tracks(&world, bob.session)[0].muted);
    let told = world.take(ada.session);
    assert!(told.contains(&Event::MuteTrack { track: track.clone(), muted: false }));

    let foreign = Command::MuteTrack { track, muted: true };
    world.command(bob.session, foreign);
    assert!(!seen_tracks(&world, bob.session)[0].muted, "only its own");
}

#[test]
fn a_track_that_starts_muted_is_seen_and_subscribed() {
    let mut world = World::new();
    let mut bob = Client::single(&mut world, "bob", 1);
    let mut ada = Client::single(&mut world, "ada", 0);
    let uid = ada.publish(&mut world, AddTrack { muted: true, ..microphone("mic") });
    bob.offer(&mut world);
    assert!(seen_tracks(&world, bob.session)[0].muted);
    assert!(bob.hears(&world, &uid));
}

#[test]
fn the_codec_that_arrives_is_the_one_told() {
    let mut world = World::new();
    let bob = Client::single(&mut world, "bob", 1);
    let mut ada = Client::single(&mut world, "ada", 0);
    ada.publish(&mut world, camera("cam"));
    let track = *world.tracks.keys().next().unwrap();
    world.media_event(MediaEvent::TrackStarted { track, codec: Codec::H264 });
    let seen = seen_tracks(&world, bob.session);
    assert_eq!(seen[0].codec, Some(Codec::H264));
    assert_eq!(seen[0].codecs[0].mime_type, "video/H264");
}

#[test]
fn a_malformed_offer_ends_only_the_session_that_sent_it() {
    let mut world = World::new();
    let bob = Client::single(&mut world, "bob", 1);
    let ada = Client::single(&mut world, "ada", 0);
    let offer = SessionDescription {
        transport: TransportKind::Publisher,
        sdp: "v=0\r\nnonsense".to_owned(),
        offer_id: 9,
        track_uid_by_mid: Default::default(),
    };
    world.command(ada.session, Command::Offer(offer));
    let events = world.take(ada.session);
    let Some(Event::Closed(closed)) = events.last() else { panic!("{events:?}") };
    assert_eq!(closed.reason, CloseReason::ProtocolError);
    assert!(closed.message.contains("line 2"), "{}", closed.message);
    assert!(!world.sessions[&bob.session].is_over);
}

#[test]
fn what_a_publisher_changes_of_a_track_is_told() {
    let mut world = World::new();
    let bob = Client::single(&mut world, "bob", 1);
    let mut ada = Client::single(&mut world, "ada", 0);
    let track = ada.publish(&mut world, camera("cam"));
    let update = UpdateTrack {
        track,
        width: 640,
        height: 0,
        layers: Vec::new(),
        door_payload: (&b"new"[..]).into(),
    };
    world.command(ada.session, Command::UpdateTrack(update));
    let seen = seen_tracks(&world, bob.session);
    assert_eq!((seen[0].width, seen[0].height), (640, 720));
    assert_eq!(&*seen[0].door_payload, b"new");
}

#[test]
fn a_publisher_is_asked_for_what_it_announced() {
    let answer_to = |request: AddTrack| {
        let mut world = World::new();
        let mut ada = Client::single(&mut world, "ada", 0);
        ada.add_track(&mut world, request);
        ada.sections.push(Section::sending(MediaKind::Audio, "mic"));
        ada.offer(&mut world)
    };
    let with_red = "m=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\n";
    let without_red = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n";
    assert!(answer_to(microphone("mic")).sdp.contains(with_red));
    let encrypted = AddTrack { encrypted: true, ..microphone("mic") };
    assert!(answer_to(encrypted).sdp.contains(without_red), "nobody could take RED off");
    let request =
        AddTrack { stereo: true, disable_dtx: true, disable_red: true, ..microphone("mic") };
    let answer = answer_to(request);
    assert!(answer.sdp.contains(without_red));
    assert!(answer.sdp.contains("stereo=1;maxaveragebitrate=510000"));
    assert!(!answer.sdp.contains("usedtx"));
}
