//! Lost sessions, lost transports, and how they are taken up.

use std::time::Duration;

use headwater_model::{ParticipantUid, TrackUid};

use super::client::{Client, camera, microphone};
use super::world::{World, join_request};
use crate::*;

fn resume(world: &mut World, client: &Client) -> SessionKey {
    let request = JoinRequest {
        resume: Some(client.uid.clone()),
        ..join_request(&client.identity, client.mode)
    };
    world.join(request)
}

fn closed(world: &World, session: SessionKey) -> Closed {
    match world.sessions[&session].events.last() {
        Some(Event::Closed(closed)) => closed.clone(),
        other => panic!("not closed: {other:?}"),
    }
}

#[test]
fn a_lost_session_is_kept_for_thirty_seconds() {
    let mut world = World::new();
    let mut bob = Client::single(&mut world, "bob", 1);
    let mut ada = Client::single(&mut world, "ada", 0);
    let mic = ada.publish(&mut world, microphone("mic"));
    bob.offer(&mut world);
    world.lose(ada.session);
    world.pass(Duration::from_secs(29));
    assert!(bob.hears(&world, &mic));
    assert_eq!(world.report().participant_count, 2);
    world.pass(Duration::from_secs(1));
    assert!(!bob.hears(&world, &mic));
    assert_eq!(world.report().participant_count, 1);
    let late = resume(&mut world, &ada);
    assert_eq!(closed(&world, late).reason, CloseReason::StateMismatch);
}

#[test]
fn a_resumed_session_has_everything_and_learns_what_it_missed() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 1);
    let mic = ada.publish(&mut world, microphone("mic"));
    let bob = Client::single(&mut world, "bob", 0);
    world.lose(ada.session);
    world.command(bob.session, Command::Leave { reason: CloseReason::ClientLeft });
    let mut cyd = Client::single(&mut world, "cyd", 0);
    let cam = cyd.publish(&mut world, camera("cam"));
    world.pass(Duration::from_secs(10));

    let session = resume(&mut world, &ada);
    let Event::Joined(joined) = &world.sessions[&session].events[0] else { panic!() };
    assert!(joined.resumed);
    assert_eq!(joined.participant.uid, ada.uid);
    assert_eq!(joined.participant.tracks[0].client_track_id.as_deref(), Some("mic"));
    assert_eq!(joined.others.len(), 1);
    assert_eq!(joined.others[0].tracks[0].uid, cam);
    assert_eq!(joined.departed.len(), 1);
    assert_eq!(joined.departed[0].identity.as_str(), "bob");

    ada.session = session;
    ada.ufrag = "restarted".to_owned();
    world.media.clear();
    let before = ada.downlink(&world);
    ada.sections.push(super::client::Section::receiving(headwater_model::media::MediaKind::Video));
    ada.offer(&mut world);
    assert_eq!(ada.downlink(&world), before, "the transport stays");
    let restarted = world.media.iter().any(|it| matches!(it, MediaCommand::RestartIce { .. }));
    assert!(restarted);
    assert!(ada.hears(&world, &cam));
    let state = SyncState { published: [("mic".to_owned(), mic)].into(), ..SyncState::default() };
    world.command(session, Command::SyncState(state));
    assert!(!world.sessions[&session].is_over);
    world.pass(Duration::from_secs(60));
    assert!(!world.sessions[&session].is_over, "the old deadline is void");
}

#[test]
fn the_older_connection_of_a_resumed_session_ends_without_harm() {
    let mut world = World::new();
    let ada = Client::single(&mut world, "ada", 0);
    let session = resume(&mut world, &ada);
    let last = closed(&world, ada.session);
    assert_eq!((last.reason, last.action), (CloseReason::SignalLost, CloseAction::Resume));
    world.rooms.session_lost(world.now, ada.session);
    world.rooms.handle_command(
        world.now,
        ada.session,
        Command::Leave { reason: CloseReason::ClientLeft },
    );
    world.drain();
    world.pass(Duration::from_secs(40));
    assert!(!world.sessions[&session].is_over);
}

#[test]
fn a_dual_session_gets_an_offer_that_restarts_ice() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    ada.publish(&mut world, microphone("mic"));
    let mut bob = Client::dual(&mut world, "bob");
    world.lose(bob.session);
    let cam = ada.publish(&mut world, camera("cam"));
    world.pass(Duration::from_secs(1));
    world.media.clear();
    bob.session = resume(&mut world, &bob);
    let events = &world.sessions[&bob.session].events;
    assert!(matches!(&events[0], Event::Joined(joined) if joined.resumed));
    let Event::Offer(offer) = &events[1] else { panic!("{events:?}") };
    let restart = world.media.iter().find_map(|command| match command {
        MediaCommand::RestartIce { credentials, .. } => Some(credentials.ufrag.clone()),
        _ => None,
    });
    let ufrag = restart.expect("the node restarts ICE");
    assert!(offer.sdp.contains(&format!("a=ice-ufrag:{ufrag}\r\n")));
    bob.answer(&mut world);
    assert!(bob.hears(&world, &cam), "what changed meanwhile is in the offer");
}

#[test]
fn an_offer_lost_with_its_session_is_made_again() {
    let mut world = World::new();
    let mut bob = Client::join(&mut world, "bob", TransportMode::Dual);
    world.lose(bob.session);
    world.pass(Duration::from_secs(20));
    bob.session = resume(&mut world, &bob);
    assert!(bob.answer(&mut world).is_some());
    world.pass(Duration::from_secs(20));
    assert!(!world.sessions[&bob.session].is_over, "the old offer's deadline is void");
}

#[test]
fn what_cannot_be_resumed_starts_over() {
    let mut world = World::new();
    let ada = Client::single(&mut world, "ada", 0);
    let with = |uid: ParticipantUid, identity: &str, mode| JoinRequest {
        resume: Some(uid),
        ..join_request(identity, mode)
    };
    let single = TransportMode::Single;
    for request in [
        with(ParticipantUid::from_raw("PA_nobody"), "ada", single),
        with(ada.uid.clone(), "mallory", single),
        with(ada.uid.clone(), "ada", TransportMode::Dual),
    ] {
        let session = world.join(request);
        let last = closed(&world, session);
        assert_eq!(
            (last.reason, last.action),
            (CloseReason::StateMismatch, CloseAction::Reconnect)
        );
    }
    assert!(!world.sessions[&ada.session].is_over);
}

#[test]
fn a_client_that_publishes_what_the_node_does_not_have_starts_over() {
    let mut world = World::new();
    for state in [
        SyncState {
            published: [("mic".to_owned(), TrackUid::from_raw("TR_no"))].into(),
            ..SyncState::default()
        },
        SyncState { has_unacknowledged_tracks: true, ..SyncState::default() },
    ] {
        let ada = Client::single(&mut world, "ada", 0);
        let session = resume(&mut world, &ada);
        world.command(session, Command::SyncState(state));
        assert_eq!(closed(&world, session).action, CloseAction::Reconnect);
    }
}

#[test]
fn a_synchronised_state_brings_wishes_and_data_tracks_back() {
    let mut world = World::new();
    let mut bob = Client::single(&mut world, "bob", 0);
    let mic = bob.publish(&mut world, microphone("mic"));
    let mut ada = Client::single(&mut world, "ada", 1);
    assert!(ada.hears(&world, &mic));
    let session = resume(&mut world, &ada);
    ada.session = session;
    let state = SyncState {
        subscription: Some(SubscriptionUpdate { tracks: vec![mic.clone()], subscribe: false }),
        data_tracks: vec![PublishDataTrack {
            handle: 3,
            display_name: "pose".to_owned(),
            door_payload: (&b""[..]).into(),
        }],
        ..SyncState::default()
    };
    world.command(session, Command::SyncState(state.clone()));
    world.command(session, Command::SyncState(state));
    assert!(!ada.hears(&world, &mic));
    let views = world.rooms.list_participants(&super::world::room_id()).unwrap();
    assert_eq!(views[0].data_tracks.len(), 1, "once");
}

#[test]
fn a_failed_transport_without_a_resume_ends_the_session() {
    let mut world = World::new();
    let ada = Client::single(&mut world, "ada", 0);
    let transport = ada.downlink(&world);
    world.media_event(MediaEvent::TransportFailed { transport, recoverable: true });
    world.pass(Duration::from_secs(14));
    assert!(!world.sessions[&ada.session].is_over);
    world.pass(Duration::from_secs(1));
    let last = closed(&world, ada.session);
    assert_eq!((last.reason, last.action), (CloseReason::ConnectionLost, CloseAction::Reconnect));
}

#[test]
fn a_failed_transport_is_saved_by_an_ice_restart() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    let transport = ada.downlink(&world);
    world.media_event(MediaEvent::TransportFailed { transport, recoverable: true });
    world.pass(Duration::from_secs(5));
    ada.ufrag = "again".to_owned();
    ada.offer(&mut world);
    world.media_event(MediaEvent::TransportConnected { transport });
    world.pass(Duration::from_secs(30));
    assert!(!world.sessions[&ada.session].is_over);
}

#[test]
fn a_transport_that_cannot_be_saved_cannot_be_resumed() {
    let mut world = World::new();
    let ada = Client::single(&mut world, "ada", 0);
    let transport = ada.downlink(&world);
    world.media_event(MediaEvent::TransportFailed { transport, recoverable: false });
    let session = resume(&mut world, &ada);
    assert_eq!(closed(&world, session).reason, CloseReason::StateMismatch);
}

#[test]
fn an_offer_for_a_transport_that_cannot_be_saved_starts_over() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    let transport = ada.downlink(&world);
    world.media_event(MediaEvent::TransportFailed { transport, recoverable: false });
    ada.ufrag = "again".to_owned();
    let offer = SessionDescription {
        transport: TransportKind::Publisher,
        sdp: ada.write_offer(),
        offer_id: 9,
        track_uid_by_mid: Default::default(),
    };
    world.command(ada.session, Command::Offer(offer));
    assert_eq!(closed(&world, ada.session).action, CloseAction::Reconnect);
}

#[test]
fn another_certificate_is_another_connection() {
    let mut world = World::new();
    let ada = Client::single(&mut world, "ada", 0);
    let sdp = ada.write_offer().replace("sha-256 01", "sha-256 0F");
    let offer = SessionDescription {
        transport: TransportKind::Publisher,
        sdp,
        offer_id: 9,
        track_uid_by_mid: Default::default(),
    };
    world.command(ada.session, Command::Offer(offer));
    let last = closed(&world, ada.session);
    assert_eq!((last.reason, last.action), (CloseReason::StateMismatch, CloseAction::Reconnect));
}

#[test]
fn a_mute_during_the_outage_lands_after_the_resume() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    let mic = ada.publish(&mut world, microphone("mic"));
    world.lose(ada.session);
    let session = resume(&mut world, &ada);
    world.command(session, Command::MuteTrack { track: mic, muted: true });
    let views = world.rooms.list_participants(&super::world::room_id()).unwrap();
    assert!(views[0].tracks[0].muted);
}

#[test]
fn too_many_departures_make_a_resume_impossible() {
    let mut world = World::with_limits(Limits { departed: 2, ..Limits::default() });
    let ada = Client::single(&mut world, "ada", 0);
    world.lose(ada.session);
    for name in ["a", "b", "c"] {
        let session = world.join(join_request(name, TransportMode::Single));
        world.command(session, Command::Leave { reason: CloseReason::ClientLeft });
    }
    let session = resume(&mut world, &ada);
    assert_eq!(closed(&world, session).reason, CloseReason::StateMismatch);
}
