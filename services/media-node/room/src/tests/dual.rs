//! Dual mode: the node offers.

use std::time::Duration;

use headwater_model::media::MediaKind;
use headwater_sdp::{Direction, SectionKind};

use super::client::{Client, Section, camera, microphone};
use super::world::World;
use crate::*;

fn offers(world: &World, session: SessionKey) -> usize {
    let is_offer = |event: &&Event| matches!(event, Event::Offer(_));
    world.sessions[&session].events.iter().filter(is_offer).count()
}

#[test]
fn channels_are_opened_before_the_first_offer_which_comes_right_after_the_join() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    let mic = ada.publish(&mut world, microphone("mic"));
    world.media.clear();
    let mut bob = Client::join(&mut world, "bob", TransportMode::Dual);
    let labels: Vec<&str> = world
        .media
        .iter()
        .filter_map(|command| match command {
            MediaCommand::OpenChannel { label, .. } => Some(*label),
            _ => None,
        })
        .collect();
    assert_eq!(labels, ["_reliable", "_lossy", "_data_track"]);
    let events = &world.sessions[&bob.session].events;
    let Event::Offer(offer) = &events[1] else { panic!("{events:?}") };
    assert_eq!((offer.transport, offer.offer_id), (TransportKind::Subscriber, 1));
    assert!(bob.received(&world).is_empty(), "nothing is sent before the answer");
    let read = bob.answer(&mut world).unwrap();
    assert_eq!(read.sections[0].kind, SectionKind::Application);
    assert_eq!(read.sections[1].track_id(), Some(mic.as_str()));
    assert!(bob.hears(&world, &mic));
}

#[test]
fn a_v0_and_a_v1_participant_hear_each_other() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 3);
    let mut bob = Client::dual(&mut world, "bob");
    let from_ada = ada.publish(&mut world, microphone("mic"));
    world.pass(Duration::from_millis(200));
    bob.answer(&mut world);
    assert!(bob.hears(&world, &from_ada));
    let from_bob = bob.publish(&mut world, camera("cam"));
    ada.offer(&mut world);
    assert!(ada.hears(&world, &from_bob));
}

#[test]
fn sections_that_receive_on_the_publishing_transport_stay_inactive() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    ada.publish(&mut world, microphone("mic"));
    let mut bob = Client::dual(&mut world, "bob");
    bob.sections = vec![
        Section::receiving(MediaKind::Audio),
        Section::receiving(MediaKind::Video),
        Section::data(),
    ];
    let answer = bob.offer(&mut world);
    assert_eq!(answer.sdp.matches("a=inactive").count(), 2);
    assert!(!answer.sdp.contains("m=audio 0"));
}

#[test]
fn one_offer_is_outstanding_and_changes_are_collected() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    let mut bob = Client::join(&mut world, "bob", TransportMode::Dual);
    assert_eq!(offers(&world, bob.session), 1);
    ada.publish(&mut world, microphone("mic"));
    ada.publish(&mut world, camera("cam"));
    world.pass(Duration::from_secs(1));
    assert_eq!(offers(&world, bob.session), 1, "the first is not answered");
    bob.answer(&mut world);
    world.pass(Duration::from_millis(200));
    assert_eq!(offers(&world, bob.session), 2);
    let read = bob.answer(&mut world).unwrap();
    assert_eq!(read.sections.len(), 3, "both tracks in one offer");
    assert_eq!(bob.received(&world).len(), 2);
    world.pass(Duration::from_secs(20));
    assert_eq!(offers(&world, bob.session), 2);
    assert!(!world.sessions[&bob.session].is_over);
}

#[test]
fn an_offer_without_an_answer_makes_the_client_start_over() {
    let mut world = World::new();
    let bob = Client::join(&mut world, "bob", TransportMode::Dual);
    world.pass(Duration::from_secs(15));
    let events = world.take(bob.session);
    let Some(Event::Closed(closed)) = events.last() else { panic!("{events:?}") };
    assert_eq!(closed.action, CloseAction::Reconnect);
}

#[test]
fn a_section_whose_track_ended_is_offered_inactive_and_then_used_again() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    let mut bob = Client::dual(&mut world, "bob");
    ada.publish(&mut world, microphone("mic"));
    world.pass(Duration::from_millis(200));
    bob.answer(&mut world);
    ada.sections[1].direction = Direction::Inactive;
    ada.offer(&mut world);
    assert!(bob.received(&world).is_empty());
    world.pass(Duration::from_millis(200));
    let read = bob.answer(&mut world).unwrap();
    assert_eq!(read.sections[1].direction, Direction::Inactive);
    let new = ada.publish(&mut world, microphone("mic-2"));
    world.pass(Duration::from_millis(200));
    let read = bob.answer(&mut world).unwrap();
    assert_eq!(read.sections.len(), 2);
    assert_eq!(read.sections[1].track_id(), Some(new.as_str()));
    assert!(bob.hears(&world, &new));
}

#[test]
fn answers_with_number_zero_or_of_older_offers_are_told_apart() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    let mic = ada.publish(&mut world, microphone("mic"));
    let bob = Client::join(&mut world, "bob", TransportMode::Dual);
    let Event::Offer(offer) = world.sessions[&bob.session].events[1].clone() else { panic!() };
    let answer = |offer_id| {
        Command::Answer(SessionDescription {
            sdp: bob.write_answer(&offer.sdp),
            offer_id,
            ..offer.clone()
        })
    };
    world.command(bob.session, answer(7));
    assert!(!bob.hears(&world, &mic), "another offer's answer");
    world.command(bob.session, answer(0));
    assert!(bob.hears(&world, &mic), "clients on the Rust SDK answer with 0");
    world.command(bob.session, answer(0));
    assert!(!world.sessions[&bob.session].is_over, "a second answer is ignored");
}

#[test]
fn a_refused_section_is_told_and_its_track_dropped() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    let cam = ada.publish(&mut world, camera("cam"));
    let bob = Client::join(&mut world, "bob", TransportMode::Dual);
    let Event::Offer(offer) = world.sessions[&bob.session].events[1].clone() else { panic!() };
    let sdp = bob.write_answer(&offer.sdp).replace("a=recvonly", "a=inactive");
    world.command(bob.session, Command::Answer(SessionDescription { sdp, ..offer }));
    let failed =
        Event::SubscriptionFailed { track: cam, failure: SubscriptionFailure::CodecUnsupported };
    assert!(world.take(bob.session).contains(&failed));
    assert!(world.subscriptions.is_empty());
}
