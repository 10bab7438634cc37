//! What the platform and participants change of participants; speakers,
//! quality and scenarios.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_model::media::TrackSource;
use headwater_model::{Bitrate, Identity, Permission, RoomId};

use super::client::{Client, camera, microphone};
use super::world::{World, join_request, room_id};
use crate::*;

fn permission_update(permission: Permission) -> ControlAction {
    ControlAction::Update(ParticipantUpdate {
        permission: Some(permission),
        ..ParticipantUpdate::default()
    })
}

fn last_view(world: &World, session: SessionKey, identity: &str) -> Option<ParticipantView> {
    world.sessions[&session].events.iter().rev().find_map(|event| match event {
        Event::ParticipantsChanged(views) => views
            .iter()
            .find(|view| view.identity.as_str() == identity)
            .map(|view| (**view).clone()),
        _ => None,
    })
}

#[test]
fn a_removed_participant_is_told_and_gone() {
    let mut world = World::new();
    let ada = Client::single(&mut world, "ada", 0);
    let bob = Client::single(&mut world, "bob", 0);
    let view =
        world.control("bob", ControlAction::Remove { reason: CloseReason::Removed }).unwrap();
    assert_eq!(view.uid, bob.uid);
    let events = world.take(bob.session);
    let Some(Event::Closed(closed)) = events.last() else { panic!("{events:?}") };
    assert_eq!((closed.reason, closed.action), (CloseReason::Removed, CloseAction::Disconnect));
    let left = last_view(&world, ada.session, "bob").unwrap();
    assert_eq!(left.phase, ParticipantPhase::Left(CloseReason::Removed));
    let again = world.control("bob", ControlAction::Remove { reason: CloseReason::Removed });
    assert!(matches!(again, Err(ControlError::ParticipantNotFound(_))));
}

#[test]
fn control_of_what_is_not_here_is_refused() {
    let mut world = World::new();
    let command = ControlCommand {
        room: RoomId::new("elsewhere").unwrap(),
        identity: Identity::new("ada").unwrap(),
        action: ControlAction::Remove { reason: CloseReason::Removed },
    };
    let result = world.rooms.handle_control(world.now, command);
    assert!(matches!(result, Err(ControlError::RoomNotFound(_))));
    let ada = Client::single(&mut world, "ada", 0);
    let track = headwater_model::TrackUid::from_raw("TR_no");
    let mute = world.control("ada", ControlAction::MuteTrack { track, muted: true });
    assert!(matches!(mute, Err(ControlError::TrackNotFound(_))));
    let update =
        ParticipantUpdate { display_name: Some("n".repeat(257)), ..ParticipantUpdate::default() };
    let update = world.control("ada", ControlAction::Update(update));
    assert!(matches!(update, Err(ControlError::TooLong { what: "display_name", .. })));
    assert!(!world.sessions[&ada.session].is_over);
}

#[test]
fn a_lost_permission_to_publish_ends_what_it_covered() {
    let mut world = World::new();
    let bob = Client::single(&mut world, "bob", 1);
    let mut ada = Client::single(&mut world, "ada", 0);
    let mic = ada.publish(&mut world, microphone("mic"));
    let cam = ada.publish(&mut world, camera("cam"));
    let only_sound =
        Permission { can_publish_sources: vec![TrackSource::Microphone], ..Permission::default() };
    let view = world.control("ada", permission_update(only_sound)).unwrap();
    assert_eq!(view.tracks.len(), 1);
    assert_eq!(view.tracks[0].uid, mic);
    let told = world.take(ada.session);
    assert!(told.contains(&Event::TrackRemoved { track: cam }));
    assert_eq!(last_view(&world, bob.session, "ada").unwrap().tracks.len(), 1);
    let own = told.iter().rev().find_map(|event| match event {
        Event::ParticipantsChanged(views) => Some(views[0].permission.clone()),
        _ => None,
    });
    assert_eq!(own.unwrap().can_publish_sources, [TrackSource::Microphone]);
}

#[test]
fn a_permission_to_subscribe_is_taken_and_given_back() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    let mic = ada.publish(&mut world, microphone("mic"));
    let mut bob = Client::dual(&mut world, "bob");
    assert!(bob.hears(&world, &mic));
    let none = Permission { can_subscribe: false, ..Permission::default() };
    world.control("bob", permission_update(none)).unwrap();
    assert!(!bob.hears(&world, &mic));
    world.pass(Duration::from_millis(200));
    bob.answer(&mut world);
    world.control("bob", permission_update(Permission::default())).unwrap();
    world.pass(Duration::from_millis(200));
    bob.answer(&mut world);
    assert!(bob.hears(&world, &mic));
}

#[test]
fn who_is_hidden_later_disappears_and_may_come_back() {
    let mut world = World::new();
    let mut bob = Client::single(&mut world, "bob", 1);
    let mut ada = Client::single(&mut world, "ada", 0);
    let mic = ada.publish(&mut world, microphone("mic"));
    bob.offer(&mut world);
    let hidden = Permission { hidden: true, ..Permission::default() };
    world.control("ada", permission_update(hidden)).unwrap();
    let left = last_view(&world, bob.session, "ada").unwrap();
    assert!(matches!(left.phase, ParticipantPhase::Left(_)));
    assert!(!bob.hears(&world, &mic));
    assert_eq!(world.report().participant_count, 1);
    world.control("ada", permission_update(Permission::default())).unwrap();
    let back = last_view(&world, bob.session, "ada").unwrap();
    assert_eq!(back.phase, ParticipantPhase::Active);
    bob.offer(&mut world);
    bob.offer(&mut world);
    assert!(bob.hears(&world, &mic));
}

#[test]
fn the_platform_changes_name_metadata_and_attributes() {
    let mut world = World::new();
    let bob = Client::single(&mut world, "bob", 0);
    let attributes = BTreeMap::from([("role".to_owned(), "host".to_owned())]);
    let request = JoinRequest { attributes, ..join_request("ada", TransportMode::Single) };
    Client::join_as(&mut world, request);
    let update = ParticipantUpdate {
        display_name: Some("Ada L.".to_owned()),
        metadata: Some("m".to_owned()),
        attributes: BTreeMap::from([
            ("role".to_owned(), String::new()),
            ("seat".to_owned(), "1".to_owned()),
        ]),
        permission: None,
    };
    let view = world.control("ada", ControlAction::Update(update)).unwrap();
    assert_eq!(view.display_name, "Ada L.");
    let seen = last_view(&world, bob.session, "ada").unwrap();
    assert_eq!(seen.metadata, "m");
    assert_eq!(seen.attributes, BTreeMap::from([("seat".to_owned(), "1".to_owned())]));
}

#[test]
fn a_participant_changes_itself_if_it_may() {
    let mut world = World::new();
    let permission = Permission { can_update_metadata: true, ..Permission::default() };
    let ada = world.join(JoinRequest { permission, ..join_request("ada", TransportMode::Single) });
    let bob = world.join(join_request("bob", TransportMode::Single));
    let update = |request_id, metadata: String| {
        Command::UpdateSelf(UpdateSelf {
            request_id,
            display_name: String::new(),
            metadata,
            attributes: BTreeMap::new(),
        })
    };
    let outcome = |world: &mut World, session| {
        world
            .take(session)
            .into_iter()
            .rev()
            .find_map(|event| match event {
                Event::RequestResult(result) => Some((result.request, result.outcome)),
                _ => None,
            })
            .unwrap()
    };
    world.command(ada, update(3, "hello".to_owned()));
    let own = last_view(&world, ada, "ada").unwrap();
    assert_eq!((own.metadata.as_str(), own.display_name.as_str()), ("hello", "ADA"));
    let expected = (RequestReference::UpdateSelf(3), RequestOutcome::Done);
    assert_eq!(outcome(&mut world, ada), expected);
    world.command(ada, update(4, "x".repeat(600_000)));
    assert_eq!(outcome(&mut world, ada).1, RequestOutcome::LimitExceeded);
    world.command(bob, update(5, "no".to_owned()));
    assert_eq!(outcome(&mut world, bob).1, RequestOutcome::NotAllowed);
    let listed = world.rooms.list_participants(&room_id()).unwrap();
    assert_eq!(listed[0].metadata, "hello");
}

fn speakers(events: Vec<Event>) -> Vec<(bool, f32)> {
    events
        .into_iter()
        .filter_map(|event| match event {
            Event::SpeakersChanged(speakers) => Some(speakers),
            _ => None,
        })
        .flatten()
        .map(|speaker| (speaker.active, speaker.level))
        .collect()
}

#[test]
fn speakers_are_told_to_those_who_hear_them_and_only_changes() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    ada.publish(&mut world, microphone("mic"));
    let mut bob = Client::single(&mut world, "bob", 1);
    bob.offer(&mut world);
    let request =
        JoinRequest { auto_subscribe: false, ..join_request("deaf", TransportMode::Single) };
    let deaf = Client::join_as(&mut world, request);
    let track = *world.tracks.keys().next().unwrap();
    let heard = |world: &mut World, level, active| {
        world.media_event(MediaEvent::SpeakerLevel { track, level, active });
        world.pass(Duration::from_millis(20));
    };
    heard(&mut world, 0.51, true);
    assert_eq!(speakers(world.take(bob.session)), [(true, 0.5)]);
    assert_eq!(speakers(world.take(ada.session)), [(true, 0.5)], "to itself too");
    assert_eq!(speakers(world.take(deaf.session)), []);
    heard(&mut world, 0.52, true);
    assert_eq!(speakers(world.take(bob.session)), [], "the same eighth");
    let mut late = Client::single(&mut world, "late", 1);
    late.offer(&mut world);
    assert_eq!(speakers(world.take(late.session)), [(true, 0.5)], "on subscribing");
    heard(&mut world, f32::NAN, false);
    assert_eq!(speakers(world.take(bob.session)), [(false, 0.0)], "silence once");
    heard(&mut world, 0.0, false);
    assert_eq!(speakers(world.take(bob.session)), []);
}

#[test]
fn a_track_that_ends_or_is_muted_falls_silent() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    ada.publish(&mut world, microphone("mic"));
    let track = *world.tracks.keys().next().unwrap();
    world.media_event(MediaEvent::SpeakerLevel { track, level: 1.0, active: true });
    world.pass(Duration::from_millis(20));
    world.take(ada.session);
    ada.sections[1].direction = headwater_sdp::Direction::Inactive;
    ada.offer(&mut world);
    world.pass(Duration::from_millis(20));
    assert_eq!(speakers(world.take(ada.session)), [(false, 0.0)]);
}

#[test]
fn quality_is_told_when_the_grade_changes() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    ada.publish(&mut world, microphone("mic"));
    let mut bob = Client::single(&mut world, "bob", 1);
    bob.offer(&mut world);
    world.pass(Duration::from_secs(1));
    let grades = |world: &mut World, session, of: &Client| -> Vec<QualityGrade> {
        world
            .take(session)
            .into_iter()
            .filter_map(|event| match event {
                Event::QualityChanged(qualities) => Some(qualities),
                _ => None,
            })
            .flatten()
            .filter(|quality| quality.participant == of.uid)
            .map(|quality| quality.grade)
            .collect()
    };
    grades(&mut world, bob.session, &ada);
    let track = *world.tracks.keys().next().unwrap();
    let measured = |world: &mut World, loss_ratio| {
        world.media_event(MediaEvent::Quality {
            subject: QualitySubject::Track(track),
            loss_ratio,
            rtt: None,
            jitter: Duration::ZERO,
            limitation: Limitation::None,
        });
        world.pass(Duration::from_secs(1));
    };
    measured(&mut world, 0.3);
    assert_eq!(grades(&mut world, bob.session, &ada), [QualityGrade::Poor]);
    measured(&mut world, 0.31);
    assert_eq!(grades(&mut world, bob.session, &ada), []);
    world.pass(Duration::from_secs(30));
    let after = grades(&mut world, bob.session, &ada);
    assert_eq!(after, [QualityGrade::Excellent], "silence is not bad");

    let transport = ada.downlink(&world);
    world.take(ada.session);
    world.media_event(MediaEvent::TransportFailed { transport, recoverable: true });
    world.pass(Duration::from_secs(1));
    assert_eq!(grades(&mut world, bob.session, &ada), [QualityGrade::Lost]);
    let own = grades(&mut world, ada.session, &ada);
    assert!(!own.contains(&QualityGrade::Lost), "nobody is told to be lost itself");
}

#[test]
fn scenarios_do_what_they_say() {
    let mut world = World::new();
    let mut bob = Client::single(&mut world, "bob", 1);
    let mut ada = Client::single(&mut world, "ada", 0);
    ada.publish(&mut world, microphone("mic"));
    bob.offer(&mut world);
    world.take(bob.session);
    world.command(ada.session, Command::Simulate(Scenario::Speak { seconds: 2 }));
    world.pass(Duration::from_secs(1));
    assert_eq!(speakers(world.take(bob.session)), [(true, 1.0)]);
    world.pass(Duration::from_secs(2));
    assert_eq!(speakers(world.take(bob.session)), [(false, 0.0)]);

    let limit = Some(Bitrate::from_kbps(100));
    world.command(ada.session, Command::Simulate(Scenario::SubscriberBandwidth(limit)));
    assert!(matches!(world.media.last(), Some(MediaCommand::LimitDownlink { .. })));

    world.command(ada.session, Command::Simulate(Scenario::NodeFailure));
    assert!(world.sessions[&ada.session].was_abandoned);
    let resume =
        JoinRequest { resume: Some(ada.uid.clone()), ..join_request("ada", TransportMode::Single) };
    let resumed = world.join(resume);
    let Event::Closed(closed) = &world.sessions[&resumed].events[0] else { panic!() };
    assert_eq!(
        (closed.reason, closed.action),
        (CloseReason::StateMismatch, CloseAction::Reconnect)
    );

    world.command(bob.session, Command::Simulate(Scenario::FullReconnect));
    let events = world.take(bob.session);
    let Some(Event::Closed(closed)) = events.last() else { panic!("{events:?}") };
    assert_eq!(closed.action, CloseAction::Reconnect);
    let cyd = Client::single(&mut world, "cyd", 0);
    world.command(cyd.session, Command::Simulate(Scenario::ServerLeave));
    let events = world.take(cyd.session);
    let Some(Event::Closed(closed)) = events.last() else { panic!("{events:?}") };
    assert_eq!(
        (closed.reason, closed.action),
        (CloseReason::ServerShutdown, CloseAction::Disconnect)
    );
}

#[test]
fn a_protocol_asked_for_is_used_in_the_next_session_too() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 1);
    let scenario = Scenario::OnlyProtocol(CandidateProtocol::Tcp);
    world.command(ada.session, Command::Simulate(scenario));
    let answer = ada.offer(&mut world);
    assert!(!answer.sdp.contains(" udp ") && answer.sdp.contains("tcptype passive"));
    let mut again = Client::single(&mut world, "ada", 1);
    let answer = again.offer(&mut world);
    assert!(!answer.sdp.contains(" udp "));
    let mut third = Client::single(&mut world, "ada", 1);
    assert!(third.offer(&mut world).sdp.contains(" udp "), "once");
}
