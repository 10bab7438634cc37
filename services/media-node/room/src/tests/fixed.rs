//! Clients that offer once: fixed sections, staying without a gateway, ICE
//! restarts apart from offers.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_model::media::MediaKind;
use headwater_model::{Identity, TrackUid};

use super::client::{Client, Section, camera, microphone, sending_mids};
use super::world::{World, join_request};
use crate::*;

const MOMENT: Duration = Duration::from_millis(200);

/// Joins with sections of these kinds to receive in, offers once and connects.
fn viewer(world: &mut World, kinds: &[MediaKind], followed: &[&str]) -> (Client, String) {
    let request = JoinRequest {
        fixed_sections: true,
        outlives_signalling: true,
        followed: followed.iter().map(|name| Identity::new(*name).unwrap()).collect(),
        ..join_request("bob", TransportMode::Single)
    };
    let mut bob = Client::join_as(world, request);
    bob.sections = kinds.iter().map(|kind| Section::receiving(*kind)).collect();
    let offer = SessionDescription {
        transport: TransportKind::Publisher,
        sdp: bob.write_offer(),
        offer_id: 1,
        track_uid_by_mid: BTreeMap::new(),
    };
    world.command(bob.session, Command::Offer(offer));
    let answer = world.take(bob.session).into_iter().find_map(|event| match event {
        Event::Answer(answer) => Some(answer.sdp),
        _ => None,
    });
    bob.connect(world, TransportKind::Publisher);
    (bob, answer.unwrap())
}

/// Kinds of sections that viewers offer: sound first, as browsers do.
const BOTH: [MediaKind; 2] = [MediaKind::Audio, MediaKind::Video];

/// SSRCs that were ever sent with in a section, in order.
fn ssrcs(world: &World, of_mid: &str) -> Vec<u32> {
    let subscribed = world.media.iter().filter_map(|command| match command {
        MediaCommand::Subscribe { parameters, .. } if parameters.mid == of_mid => {
            Some(parameters.ssrc)
        }
        _ => None,
    });
    subscribed.collect()
}

fn of_mid(bob: &Client, world: &World, mid: &str) -> Option<TrackUid> {
    bob.received(world).into_iter().find(|(own, _)| own == mid).map(|(_, uid)| uid)
}

#[test]
fn sections_are_agreed_before_there_is_a_track_and_filled_without_a_word() {
    let mut world = World::new();
    let (bob, answer) = viewer(&mut world, &BOTH, &[]);
    assert_eq!(sending_mids(&answer), ["0", "1"]);
    assert_eq!(bob.received(&world), []);
    let mut ada = Client::single(&mut world, "ada", 0);
    let mic = ada.publish(&mut world, microphone("mic"));
    let cam = ada.publish(&mut world, camera("cam"));
    world.pass(MOMENT);
    assert_eq!(bob.received(&world), [("0".to_owned(), mic), ("1".to_owned(), cam)]);
    for ssrc in ssrcs(&world, "0").into_iter().chain(ssrcs(&world, "1")) {
        assert!(answer.contains(&format!("a=ssrc:{ssrc} ")), "{ssrc} is not in {answer}");
    }
    world.pass(Duration::from_secs(60));
    let asked = world.take(bob.session).into_iter().filter(|event| {
        matches!(event, Event::MediaSectionsNeeded { .. } | Event::Offer(_) | Event::Answer(_))
    });
    assert_eq!(asked.count(), 0, "it is never asked to negotiate");
}

#[test]
fn a_track_that_was_there_is_forwarded_with_the_first_answer() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    let cam = ada.publish(&mut world, camera("cam"));
    let (bob, _) = viewer(&mut world, &BOTH, &[]);
    assert_eq!(of_mid(&bob, &world, "1"), Some(cam));
}

#[test]
fn the_next_track_takes_a_section_over_under_the_same_ssrc() {
    let mut world = World::new();
    let (bob, _) = viewer(&mut world, &[MediaKind::Video], &[]);
    let mut ada = Client::single(&mut world, "ada", 0);
    let first = ada.publish(&mut world, camera("first"));
    let mut cyd = Client::single(&mut world, "cyd", 0);
    let second = cyd.publish(&mut world, camera("second"));
    world.pass(MOMENT);
    assert_eq!(of_mid(&bob, &world, "0"), Some(first), "the oldest comes first");
    world.command(ada.session, Command::Leave { reason: CloseReason::ClientLeft });
    world.pass(MOMENT);
    assert_eq!(of_mid(&bob, &world, "0"), Some(second));
    world.command(cyd.session, Command::Leave { reason: CloseReason::ClientLeft });
    world.pass(MOMENT);
    assert_eq!(bob.received(&world), []);
    let mut dan = Client::single(&mut world, "dan", 0);
    let third = dan.publish(&mut world, camera("third"));
    world.pass(MOMENT);
    assert_eq!(of_mid(&bob, &world, "0"), Some(third));
    let used = ssrcs(&world, "0");
    assert_eq!(used.len(), 3);
    assert!(used.iter().all(|ssrc| *ssrc == used[0]), "{used:?}");
}

#[test]
fn sound_is_that_of_who_is_shown() {
    let mut world = World::new();
    let mut cyd = Client::single(&mut world, "cyd", 0);
    cyd.publish(&mut world, microphone("talk"));
    let mut ada = Client::single(&mut world, "ada", 0);
    let mic = ada.publish(&mut world, microphone("mic"));
    let cam = ada.publish(&mut world, camera("cam"));
    let (bob, _) = viewer(&mut world, &BOTH, &[]);
    assert_eq!(bob.received(&world), [("0".to_owned(), mic), ("1".to_owned(), cam)]);
}

#[test]
fn only_who_is_followed_is_shown() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    ada.publish(&mut world, camera("cam"));
    let (bob, _) = viewer(&mut world, &BOTH, &["cyd"]);
    assert_eq!(bob.received(&world), []);
    let mut cyd = Client::single(&mut world, "cyd", 0);
    let cam = cyd.publish(&mut world, camera("cam"));
    world.pass(MOMENT);
    assert_eq!(bob.received(&world), [("1".to_owned(), cam)]);
}

#[test]
fn a_participant_that_outlives_its_signalling_stays_until_its_transport_fails() {
    let mut world = World::new();
    let (bob, _) = viewer(&mut world, &BOTH, &[]);
    world.lose(bob.session);
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.report().participant_count, 1);
    let mut ada = Client::single(&mut world, "ada", 0);
    let cam = ada.publish(&mut world, camera("cam"));
    world.pass(MOMENT);
    assert!(bob.hears(&world, &cam), "it is shown who comes, with nobody to tell it");

    let resume = JoinRequest {
        resume: Some(bob.uid.clone()),
        fixed_sections: true,
        outlives_signalling: true,
        ..join_request("bob", TransportMode::Single)
    };
    let session = world.join(resume);
    let Event::Joined(joined) = &world.sessions[&session].events[0] else { panic!() };
    assert!(joined.resumed && !joined.ice_ufrag.is_empty());
    world.lose(session);
    let transport = bob.transport(&world, TransportKind::Publisher);
    world.media_event(MediaEvent::TransportFailed { transport, recoverable: true });
    world.pass(Duration::from_secs(16));
    assert_eq!(world.report().participant_count, 1, "ada alone");
}

#[test]
fn ice_restarts_apart_from_an_offer() {
    let mut world = World::new();
    let (bob, answer) = viewer(&mut world, &BOTH, &[]);
    let restart = |world: &mut World, ufrag: &str| {
        let credentials =
            IceCredentials { ufrag: ufrag.to_owned(), pwd: "0123456789012345678901".to_owned() };
        world.command(bob.session, Command::RestartIce(credentials));
        match world.take(bob.session).pop() {
            Some(Event::IceRestarted { credentials, candidates }) => {
                assert_eq!(candidates.len(), 2);
                credentials.ufrag
            }
            other => panic!("{other:?}"),
        }
    };
    let first = restart(&mut world, "news");
    assert!(!answer.contains(&format!("a=ice-ufrag:{first}")));
    let orders = world.media.iter().rev().take(2).collect::<Vec<_>>();
    assert!(matches!(orders[1], MediaCommand::RestartIce { .. }), "{orders:?}");
    assert!(
        matches!(orders[0], MediaCommand::SetRemote { remote, .. } if remote.credentials.ufrag == "news")
    );
    assert_eq!(restart(&mut world, "news"), first, "what is not new restarts nothing");
    assert_ne!(restart(&mut world, "newer"), first);
}

#[test]
fn a_restart_before_any_offer_ends_the_session() {
    let mut world = World::new();
    let bob = Client::join(&mut world, "bob", TransportMode::Single);
    let credentials =
        IceCredentials { ufrag: "news".to_owned(), pwd: "0123456789012345678901".to_owned() };
    world.command(bob.session, Command::RestartIce(credentials));
    assert!(matches!(world.take(bob.session).last(), Some(Event::Closed(_))));
}
