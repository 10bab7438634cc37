//! Large rooms: who is shown, and who is only counted.

use std::time::Duration;

use headwater_model::{Identity, ParticipantUid, Permission};

use super::client::{Client, microphone};
use super::world::{World, join_request, room_id};
use crate::*;

const SHOWN: usize = 2;

fn world() -> World {
    World::with_limits(Limits { listed_viewers: SHOWN, ..Limits::default() })
}

fn viewer(identity: &str) -> JoinRequest {
    let permission = Permission { can_publish: false, ..Permission::default() };
    JoinRequest { permission, ..join_request(identity, TransportMode::Single) }
}

/// Joins as many viewers as are shown, and `more`.
fn fill(world: &mut World, more: usize) -> Vec<SessionKey> {
    (0..SHOWN + more).map(|number| world.join(viewer(&format!("viewer-{number}")))).collect()
}

fn shown(events: &[Event]) -> Vec<&str> {
    let views = events.iter().filter_map(|event| match event {
        Event::ParticipantsChanged(views) => Some(views),
        _ => None,
    });
    views.flatten().map(|view| view.identity.as_str()).collect()
}

/// The number of people last told.
fn counted(events: &[Event]) -> Option<u32> {
    events.iter().rev().find_map(|event| match event {
        Event::RoomChanged(room) => Some(room.participant_count),
        _ => None,
    })
}

fn joined(world: &World, session: SessionKey) -> &Joined {
    match &world.sessions[&session].events[0] {
        Event::Joined(joined) => joined,
        other => panic!("not joined: {other:?}"),
    }
}

fn is_closed(world: &World, session: SessionKey, why: CloseReason) -> bool {
    let last = world.sessions[&session].events.last();
    matches!(last, Some(Event::Closed(closed)) if closed.reason == why)
}

fn wide(world: &mut World) {
    world.rooms.set_span(world.now, &room_id(), true, None);
    world.drain();
}

fn remote(world: &mut World, event: RemoteEvent) {
    world.rooms.handle_remote(world.now, &room_id(), event);
    world.drain();
}

fn claim(identity: &str, incarnation: u64) -> RemoteEvent {
    RemoteEvent::Claimed {
        identity: Identity::new(identity).unwrap(),
        uid: ParticipantUid::from_raw("PA_elsewhere"),
        incarnation,
    }
}

#[test]
fn viewers_beyond_the_first_are_counted_and_not_shown() {
    let mut world = world();
    let speaker = world.join(join_request("speaker", TransportMode::Single));
    let viewers = fill(&mut world, 3);
    assert_eq!(shown(&world.take(speaker)), ["viewer-0", "viewer-1"]);
    let last = joined(&world, viewers[4]);
    let others: Vec<&str> = last.others.iter().map(|view| view.identity.as_str()).collect();
    assert_eq!(others, ["speaker", "viewer-0", "viewer-1"]);
    assert_eq!(last.room.participant_count, 6);
    assert_eq!(last.participant.identity.as_str(), "viewer-4", "it knows itself");
    let listed = world.rooms.list_participants(&room_id()).unwrap();
    assert_eq!(listed.len(), 6, "the platform sees everybody");

    let late = world.join(join_request("second-speaker", TransportMode::Single));
    assert_eq!(shown(&world.take(viewers[4])), ["second-speaker"]);
    world.command(viewers[4], Command::Leave { reason: CloseReason::ClientLeft });
    assert_eq!(shown(&world.take(late)), [] as [&str; 0]);
    assert_eq!(world.report().participant_count, 6);
}

#[test]
fn whoever_is_given_the_stage_is_shown_and_seen() {
    let mut world = world();
    let watching = world.join(join_request("speaker", TransportMode::Single));
    fill(&mut world, 0);
    let mut client = Client::join_as(&mut world, viewer("viewer-2"));
    world.take(watching);
    let update =
        ParticipantUpdate { permission: Some(Permission::default()), ..Default::default() };
    world.control("viewer-2", ControlAction::Update(update)).unwrap();
    assert_eq!(shown(&world.take(watching)), ["viewer-2"]);
    let voice = client.publish(&mut world, microphone("voice"));
    let seen = world.take(watching);
    let is_seen = seen.iter().any(|event| match event {
        Event::ParticipantsChanged(views) => {
            views.iter().flat_map(|view| &view.tracks).any(|track| track.uid == voice)
        }
        _ => false,
    });
    assert!(is_seen, "{seen:?}");

    // Back in the audience it stays known: nobody comes and goes before people's eyes.
    let update = ParticipantUpdate {
        permission: Some(Permission { can_publish: false, ..Permission::default() }),
        ..Default::default()
    };
    world.control("viewer-2", ControlAction::Update(update)).unwrap();
    world.command(client.session, Command::Leave { reason: CloseReason::ClientLeft });
    let Some(Event::ParticipantsChanged(last)) = world.take(watching).pop() else { panic!() };
    assert!(matches!(last[0].phase, ParticipantPhase::Left(_)), "{last:?}");
}

#[test]
fn other_shards_are_told_of_the_audience_by_number() {
    let mut world = world();
    wide(&mut world);
    fill(&mut world, 2);
    let mut told = Vec::new();
    for command in world.relayed.drain(..) {
        match command {
            RelayCommand::Put { participant, .. } => {
                told.push(participant.view.identity.as_str().to_owned());
            }
            RelayCommand::Audience { participants, .. } => told.push(participants.to_string()),
            RelayCommand::Claim { identity, .. } => told.push(format!("({})", identity.as_str())),
            _ => {}
        }
    }
    assert_eq!(told, ["viewer-0", "viewer-1", "(viewer-2)", "1", "(viewer-3)", "2"]);

    remote(&mut world, RemoteEvent::Audience { participants: 1_002 });
    world.pass(Duration::from_secs(6));
    let late = world.join(viewer("late"));
    assert_eq!(joined(&world, late).room.participant_count, 1_004, "not yet in the sum");
    remote(&mut world, RemoteEvent::Audience { participants: 1_003 });
    world.pass(Duration::from_secs(6));
    assert_eq!(counted(&world.take(late)), Some(1_005));
    assert_eq!(world.report().participant_count, 5, "a shard reports its own");
}

#[test]
fn one_who_leaves_as_another_comes_elsewhere_is_counted_right() {
    let mut world = world();
    wide(&mut world);
    let viewers = fill(&mut world, 2);
    remote(&mut world, RemoteEvent::Audience { participants: 10 });
    world.pass(Duration::from_secs(6));
    assert_eq!(counted(&world.take(viewers[0])), Some(12));
    // The sum is the same as before, and therefore not told again.
    world.command(viewers[3], Command::Leave { reason: CloseReason::ClientLeft });
    world.pass(Duration::from_secs(6));
    let late = world.join(join_request("late", TransportMode::Single));
    assert_eq!(joined(&world, late).room.participant_count, 13);
}

#[test]
fn an_identity_of_two_audiences_keeps_its_newer_stay() {
    let mut world = world();
    wide(&mut world);
    let viewers = fill(&mut world, 2);
    // Joined 1,000 ms after the epoch, as everybody here.
    world.relayed.clear();
    remote(&mut world, claim("viewer-2", 900));
    let answered = world.relayed.iter().any(|command| {
        matches!(command, RelayCommand::Claim { identity, incarnation: 1_000, .. }
            if identity.as_str() == "viewer-2")
    });
    assert!(answered, "the other shard hears that its stay is the older one");
    assert!(!world.sessions[&viewers[2]].is_over);
    remote(&mut world, claim("viewer-2", 1_100));
    assert!(is_closed(&world, viewers[2], CloseReason::DuplicateIdentity));
    remote(&mut world, claim("nobody", 1_100));
    assert_eq!(world.report().participant_count, 3);
}

#[test]
fn one_in_the_audience_who_is_shown_elsewhere_keeps_the_newer_stay() {
    let mut world = world();
    wide(&mut world);
    let viewers = fill(&mut world, 2);
    let speaker = world.join(join_request("speaker", TransportMode::Single));
    let put = |identity: &str, incarnation: u64| {
        let mut view = (*joined(&world, viewers[3]).participant).clone();
        view.identity = Identity::new(identity).unwrap();
        view.uid = ParticipantUid::from_raw(format!("PA_far_{identity}"));
        let allow = SubscriptionPermission::Everybody;
        RemoteEvent::Put(Box::new(RemoteParticipant { view: view.into(), allow, incarnation }))
    };
    let (newer, older) = (put("viewer-2", 1_100), put("viewer-3", 900));
    world.take(speaker);
    remote(&mut world, newer);
    assert!(is_closed(&world, viewers[2], CloseReason::DuplicateIdentity));
    assert_eq!(shown(&world.take(speaker)), ["viewer-2"]);
    world.relayed.clear();
    remote(&mut world, older);
    assert!(!world.sessions[&viewers[3]].is_over);
    let put_here = world.relayed.iter().any(|command| {
        matches!(command, RelayCommand::Put { participant, .. }
            if participant.view.identity.as_str() == "viewer-3")
    });
    assert!(put_here, "the home decides between the two");
}

#[test]
fn messages_reach_those_of_whom_nothing_is_known_here() {
    let mut world = world();
    wide(&mut world);
    let message = |to: &[&str]| DataMessage {
        room: room_id(),
        payload: b"hello".to_vec(),
        reliable: true,
        destinations: to.iter().map(|name| Identity::new(*name).unwrap()).collect(),
        topic: String::new(),
    };
    world.rooms.send_data(world.now, &message(&["far-viewer"])).unwrap();
    world.drain();
    let sent = |world: &World| {
        let is_send = |command: &&RelayCommand| matches!(command, RelayCommand::Send { .. });
        world.relayed.iter().filter(is_send).count()
    };
    assert_eq!(sent(&world), 0, "nobody can be elsewhere");
    remote(&mut world, RemoteEvent::Audience { participants: 1 });
    world.rooms.send_data(world.now, &message(&["far-viewer"])).unwrap();
    world.rooms.send_data(world.now, &message(&[])).unwrap();
    world.drain();
    assert_eq!(sent(&world), 2);
}
