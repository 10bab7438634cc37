//! Coming and going.

use std::time::Duration;

use headwater_model::{Epoch, Permission, RoomUid};

use super::client::Client;
use super::world::{World, join_request, properties, room_id};
use crate::*;

fn closed(world: &World, session: SessionKey) -> Closed {
    match world.sessions[&session].events.last() {
        Some(Event::Closed(closed)) => closed.clone(),
        other => panic!("not closed: {other:?}"),
    }
}

fn names(views: &[std::sync::Arc<ParticipantView>]) -> Vec<(&str, bool)> {
    views
        .iter()
        .map(|view| (view.identity.as_str(), matches!(view.phase, ParticipantPhase::Left(_))))
        .collect()
}

fn changes(events: &[Event]) -> Vec<(String, bool)> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::ParticipantsChanged(views) => Some(names(views)),
            _ => None,
        })
        .flatten()
        .map(|(name, left)| (name.to_owned(), left))
        .collect()
}

#[test]
fn two_participants_learn_of_each_other() {
    let mut world = World::new();
    let ada = world.join(join_request("ada", TransportMode::Single));
    let bob = world.join(join_request("bob", TransportMode::Single));
    let Event::Joined(joined) = &world.sessions[&bob].events[0] else { panic!() };
    assert_eq!(names(&joined.others), [("ada", false)]);
    assert_eq!(joined.room.participant_count, 2);
    assert!(joined.participant.uid.as_str().starts_with("PA_"));
    assert_eq!(joined.participant.display_name, "BOB");
    assert!(!joined.resumed);
    assert_eq!(changes(&world.take(ada)), [("bob".to_owned(), false)]);

    world.command(bob, Command::Leave { reason: CloseReason::ClientLeft });
    assert_eq!(closed(&world, bob).reason, CloseReason::ClientLeft);
    assert_eq!(changes(&world.take(ada)), [("bob".to_owned(), true)]);
    assert_eq!(world.report().participant_count, 1);
}

#[test]
fn a_participant_becomes_active_when_its_primary_transport_connects() {
    let mut world = World::new();
    let ada = world.join(join_request("ada", TransportMode::Single));
    world.take(ada);
    let bob = Client::dual(&mut world, "bob");
    let phases: Vec<ParticipantPhase> = world
        .take(ada)
        .iter()
        .filter_map(|event| match event {
            Event::ParticipantsChanged(views) => Some(views[0].phase),
            _ => None,
        })
        .collect();
    assert_eq!(phases, [ParticipantPhase::Joined, ParticipantPhase::Active]);
    let own = world.take(bob.session);
    assert!(changes(&own).contains(&("bob".to_owned(), false)), "it sees itself active");
}

#[test]
fn who_does_not_connect_within_a_minute_is_let_go() {
    let mut world = World::new();
    let ada = world.join(join_request("ada", TransportMode::Single));
    let bob = Client::single(&mut world, "bob", 1);
    world.pass(Duration::from_secs(59));
    assert!(!world.sessions[&ada].is_over);
    world.pass(Duration::from_secs(1));
    let last = closed(&world, ada);
    assert_eq!((last.reason, last.action), (CloseReason::JoinTimeout, CloseAction::Disconnect));
    assert!(!world.sessions[&bob.session].is_over);
}

#[test]
fn the_same_identity_takes_the_place_of_the_older_session() {
    let mut world = World::new();
    let ada = world.join(join_request("ada", TransportMode::Single));
    let bob = Client::single(&mut world, "bob", 0);
    world.take(ada);
    let again = Client::join(&mut world, "bob", TransportMode::Dual);
    let last = closed(&world, bob.session);
    assert_eq!(last.reason, CloseReason::DuplicateIdentity);
    assert_eq!(last.action, CloseAction::Disconnect);
    assert_ne!(bob.uid, again.uid);
    let told = changes(&world.take(ada));
    assert_eq!(told, [("bob".to_owned(), true), ("bob".to_owned(), false)]);
    assert_eq!(world.report().participant_count, 2);
}

#[test]
fn max_participants_is_exact() {
    let limited = RoomProperties { max_participants: 2, ..properties() };
    let mut world = World::with_properties(Limits::default(), limited);
    world.join(join_request("ada", TransportMode::Single));
    world.join(join_request("bob", TransportMode::Single));
    let refused = world.join(join_request("cyd", TransportMode::Single));
    assert_eq!(closed(&world, refused).reason, CloseReason::RoomFull);
    let agent = JoinRequest { uncounted: true, ..join_request("bot", TransportMode::Single) };
    let agent = world.join(agent);
    assert!(matches!(world.sessions[&agent].events[0], Event::Joined(_)));
    let again = world.join(join_request("bob", TransportMode::Single));
    assert!(matches!(world.sessions[&again].events[0], Event::Joined(_)), "its own place");
    assert_eq!(world.report().participant_count, 2);
}

#[test]
fn a_shard_takes_no_more_participants_than_it_may() {
    let mut world = World::with_limits(Limits { participants: 1, ..Limits::default() });
    world.join(join_request("ada", TransportMode::Single));
    let refused = world.join(join_request("bob", TransportMode::Single));
    assert_eq!(closed(&world, refused).reason, CloseReason::RoomFull);
    assert_eq!(world.rooms.participant_count(), 1);
}

#[test]
fn hidden_participants_are_listed_but_not_announced() {
    let mut world = World::new();
    let ada = world.join(join_request("ada", TransportMode::Single));
    world.take(ada);
    let permission = Permission { hidden: true, ..Permission::default() };
    let spy = world.join(JoinRequest { permission, ..join_request("spy", TransportMode::Single) });
    assert_eq!(changes(&world.take(ada)), []);
    let Event::Joined(joined) = &world.sessions[&spy].events[0] else { panic!() };
    assert_eq!(names(&joined.others), [("ada", false)]);
    let all = world.rooms.list_participants(&room_id()).unwrap();
    assert_eq!(names(&all), [("ada", false), ("spy", false)]);
    assert_eq!(world.report().participant_count, 1);
    world.command(spy, Command::Leave { reason: CloseReason::ClientLeft });
    assert_eq!(changes(&world.take(ada)), []);
}

#[test]
fn a_join_with_too_long_values_is_refused() {
    let mut world = World::new();
    let metadata = "x".repeat(512 * 1024 + 1);
    let refused =
        world.join(JoinRequest { metadata, ..join_request("ada", TransportMode::Single) });
    let last = closed(&world, refused);
    assert_eq!((last.reason, last.action), (CloseReason::ProtocolError, CloseAction::Disconnect));
}

#[test]
fn a_room_knows_how_long_it_has_been_empty() {
    let mut world = World::new();
    world.pass(Duration::from_secs(5));
    let report = world.report();
    assert_eq!((report.empty_for, report.ever_joined), (Duration::from_secs(5), false));
    let ada = world.join(join_request("ada", TransportMode::Single));
    world.pass(Duration::from_secs(3));
    assert_eq!(world.report().empty_for, Duration::ZERO);
    world.command(ada, Command::Leave { reason: CloseReason::ClientLeft });
    world.pass(Duration::from_secs(2));
    let report = world.report();
    assert_eq!((report.empty_for, report.ever_joined), (Duration::from_secs(2), true));
}

#[test]
fn a_join_needs_a_room_that_is_here_and_no_older_epoch() {
    let mut world = World::new();
    let elsewhere = JoinRequest {
        room: headwater_model::RoomId::new("other").unwrap(),
        ..join_request("ada", TransportMode::Single)
    };
    let refused = world.join(elsewhere.clone());
    assert_eq!(closed(&world, refused).reason, CloseReason::PlanStale);
    assert_eq!(closed(&world, refused).action, CloseAction::Reconnect);

    let uid = RoomUid::from_raw("RM_other");
    let properties = Some(RoomProperties { uid, ..properties() });
    let taken = world.join(JoinRequest { properties, ..elsewhere });
    assert!(matches!(world.sessions[&taken].events[0], Event::Joined(_)));

    let newer =
        RoomAssignment { id: room_id(), epoch: Epoch(5), properties: super::world::properties() };
    world.rooms.assign_room(world.now, newer).unwrap();
    let stale = world.join(join_request("bob", TransportMode::Single));
    assert_eq!(closed(&world, stale).reason, CloseReason::PlanStale);
    let fresh = JoinRequest { epoch: Epoch(5), ..join_request("bob", TransportMode::Single) };
    let fresh = world.join(fresh);
    assert!(matches!(world.sessions[&fresh].events[0], Event::Joined(_)));
}

#[test]
fn a_released_room_tells_everybody_and_does_not_come_back_by_a_late_join() {
    let mut world = World::new();
    let ada = Client::single(&mut world, "ada", 1);
    world.rooms.release_room(world.now, &room_id(), Epoch(0), CloseReason::RoomDeleted);
    world.drain();
    assert!(!world.sessions[&ada.session].is_over, "an older epoch ends nothing");
    world.rooms.release_room(world.now, &room_id(), Epoch(1), CloseReason::RoomDeleted);
    world.drain();
    let last = closed(&world, ada.session);
    assert_eq!((last.reason, last.action), (CloseReason::RoomDeleted, CloseAction::Disconnect));
    assert!(world.transports.is_empty() && world.rooms.reports(world.now).is_empty());
    assert_eq!(world.rooms.participant_count(), 0);

    let properties = Some(properties());
    let late = JoinRequest { properties, ..join_request("bob", TransportMode::Single) };
    let refused = world.join(late.clone());
    assert_eq!(closed(&world, refused).reason, CloseReason::PlanStale);
    let again = world.join(JoinRequest { epoch: Epoch(2), ..late });
    assert!(matches!(world.sessions[&again].events[0], Event::Joined(_)));
}

#[test]
fn changed_properties_reach_everybody() {
    let mut world = World::new();
    let ada = world.join(join_request("ada", TransportMode::Single));
    world.take(ada);
    let properties = RoomProperties { metadata: "agenda".to_owned(), ..properties() };
    let assignment = RoomAssignment { id: room_id(), epoch: Epoch(1), properties };
    world.rooms.assign_room(world.now, assignment.clone()).unwrap();
    world.drain();
    let events = world.take(ada);
    let [Event::RoomChanged(room)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(room.properties.metadata, "agenda");
    world.rooms.assign_room(world.now, assignment).unwrap();
    world.drain();
    assert!(world.take(ada).is_empty(), "the same again changes nothing");
    let stale =
        RoomAssignment { id: room_id(), epoch: Epoch(0), properties: super::world::properties() };
    assert!(world.rooms.assign_room(world.now, stale).is_err());
}

#[test]
fn counts_are_told_at_once_and_then_not_too_often() {
    let mut world = World::new();
    let ada = world.join(join_request("ada", TransportMode::Single));
    let counts = |events: Vec<Event>| -> Vec<u32> {
        events
            .iter()
            .filter_map(|event| match event {
                Event::RoomChanged(room) => Some(room.participant_count),
                _ => None,
            })
            .collect()
    };
    world.take(ada);
    world.join(join_request("bob", TransportMode::Single));
    assert_eq!(counts(world.take(ada)), [2]);
    world.join(join_request("cyd", TransportMode::Single));
    world.join(join_request("dan", TransportMode::Single));
    assert_eq!(counts(world.take(ada)), []);
    world.pass(Duration::from_secs(5));
    assert_eq!(counts(world.take(ada)), [4]);
}

#[test]
fn in_large_rooms_quiet_arrivals_are_told_together() {
    let mut world = World::with_limits(Limits { prompt_participants: 2, ..Limits::default() });
    let ada = world.join(join_request("ada", TransportMode::Single));
    let bob = world.join(join_request("bob", TransportMode::Single));
    world.take(ada);
    for name in ["cyd", "dan", "eve"] {
        world.join(join_request(name, TransportMode::Single));
    }
    world.command(bob, Command::Leave { reason: CloseReason::ClientLeft });
    assert_eq!(changes(&world.take(ada)), []);
    world.pass(Duration::from_secs(3));
    let told = changes(&world.take(ada));
    assert_eq!(told.len(), 4);
    assert_eq!(told[3], ("bob".to_owned(), true));
}

#[test]
fn who_comes_after_a_quiet_departure_is_not_told_of_it() {
    let mut world = World::with_limits(Limits { prompt_participants: 2, ..Limits::default() });
    let ada = world.join(join_request("ada", TransportMode::Single));
    let bob = world.join(join_request("bob", TransportMode::Single));
    world.join(join_request("cyd", TransportMode::Single));
    world.join(join_request("dan", TransportMode::Single));
    world.pass(Duration::from_secs(3));
    world.take(ada);
    world.command(bob, Command::Leave { reason: CloseReason::ClientLeft });
    world.join(join_request("bob", TransportMode::Single));
    let late = world.join(join_request("eve", TransportMode::Single));
    world.take(late);
    world.pass(Duration::from_secs(3));
    let gone_and_back = [("bob".to_owned(), true), ("bob".to_owned(), false)];
    assert_eq!(changes(&world.take(ada))[..2], gone_and_back);
    let told = changes(&world.take(late));
    assert!(told.iter().all(|(_, left)| !left), "the new bob is not gone: {told:?}");
}
