//! Subscribing in single mode: sections, wishes, permissions, layers.

use std::time::Duration;

use headwater_model::media::{Codec, MediaKind, SubscriptionTarget};
use headwater_model::{Permission, TrackUid};
use headwater_sdp::Direction;

use super::client::{Client, Section, camera, microphone, sending_mids};
use super::world::{World, join_request};
use crate::*;

fn needed(events: &[Event]) -> Vec<(u32, u32)> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::MediaSectionsNeeded { audio, video } => Some((*audio, *video)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_late_joiner_gets_what_is_there_in_its_first_answer() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    let mic = ada.publish(&mut world, microphone("mic"));
    let cam = ada.publish(&mut world, camera("cam"));
    let mut bob = Client::join(&mut world, "bob", TransportMode::Single);
    let Event::Joined(joined) = &world.sessions[&bob.session].events[0] else { panic!() };
    assert_eq!(joined.others[0].tracks.len(), 2);
    for kind in [MediaKind::Audio, MediaKind::Audio, MediaKind::Video] {
        bob.sections.push(Section::receiving(kind));
    }
    let answer = bob.offer(&mut world);
    assert_eq!(sending_mids(&answer.sdp), ["0", "2"]);
    assert_eq!(answer.track_uid_by_mid["0"], mic);
    assert_eq!(answer.track_uid_by_mid["2"], cam);
    assert_eq!(bob.received(&world).len(), 2);
    let told = world.take(ada.session);
    let first: Vec<&TrackUid> = told
        .iter()
        .filter_map(|event| match event {
            Event::TrackSubscribed { track } => Some(track),
            _ => None,
        })
        .collect();
    assert_eq!(first, [&mic, &cam]);
}

#[test]
fn no_section_is_asked_for_before_the_first_offer() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    ada.publish(&mut world, microphone("mic"));
    let bob = Client::join(&mut world, "bob", TransportMode::Single);
    world.pass(Duration::from_secs(1));
    assert_eq!(needed(&world.take(bob.session)), []);
}

#[test]
fn sections_that_lack_are_asked_for_once() {
    let mut world = World::new();
    let mut bob = Client::single(&mut world, "bob", 1);
    let mut ada = Client::single(&mut world, "ada", 0);
    world.pass(Duration::from_secs(1));
    world.take(bob.session);
    ada.publish(&mut world, microphone("mic-1"));
    ada.publish(&mut world, microphone("mic-2"));
    ada.publish(&mut world, camera("cam"));
    world.pass(Duration::from_millis(20));
    assert_eq!(needed(&world.take(bob.session)), [(1, 0)], "one audio beyond the free one");
    ada.publish(&mut world, camera("screen"));
    world.pass(Duration::from_millis(20));
    assert_eq!(needed(&world.take(bob.session)), [(0, 1)], "what was asked for is subtracted");

    bob.sections.push(Section::receiving(MediaKind::Audio));
    bob.offer(&mut world);
    assert_eq!(bob.received(&world).len(), 3);
    assert_eq!(needed(&world.take(bob.session)), [(0, 1)], "asked again after the answer");
    bob.sections.push(Section::receiving(MediaKind::Video));
    bob.offer(&mut world);
    assert_eq!(bob.received(&world).len(), 4);
    world.pass(Duration::from_secs(1));
    assert_eq!(needed(&world.take(bob.session)), []);
}

#[test]
fn a_free_section_needs_only_an_offer() {
    let mut world = World::new();
    let bob = Client::single(&mut world, "bob", 3);
    let mut ada = Client::single(&mut world, "ada", 0);
    world.take(bob.session);
    ada.publish(&mut world, microphone("mic"));
    world.pass(Duration::from_millis(200));
    assert_eq!(needed(&world.take(bob.session)), [(0, 0)]);
    ada.publish(&mut world, camera("cam"));
    world.pass(Duration::from_millis(200));
    assert_eq!(needed(&world.take(bob.session)), [], "it is to offer already");
}

#[test]
fn a_client_that_does_not_offer_is_asked_again() {
    let mut world = World::new();
    let mut bob = Client::single(&mut world, "bob", 0);
    let mut ada = Client::single(&mut world, "ada", 0);
    world.take(bob.session);
    ada.publish(&mut world, microphone("mic"));
    world.pass(Duration::from_secs(14));
    assert_eq!(needed(&world.take(bob.session)), [(1, 0)]);
    world.pass(Duration::from_secs(2));
    assert_eq!(needed(&world.take(bob.session)), [(1, 0)]);
    bob.sections.push(Section::receiving(MediaKind::Audio));
    bob.offer(&mut world);
    world.pass(Duration::from_secs(60));
    assert_eq!(needed(&world.take(bob.session)), []);
}

#[test]
fn a_section_is_used_again_only_after_it_was_inactive() {
    let mut world = World::new();
    let mut bob = Client::single(&mut world, "bob", 1);
    let mut ada = Client::single(&mut world, "ada", 0);
    let old = ada.publish(&mut world, microphone("mic"));
    let answer = bob.offer(&mut world);
    assert_eq!(answer.track_uid_by_mid["0"], old);
    world.pass(Duration::from_secs(1));
    world.take(bob.session);

    ada.sections[1].direction = Direction::Inactive;
    ada.offer(&mut world);
    let new = ada.publish(&mut world, microphone("mic-2"));
    world.pass(Duration::from_millis(200));
    assert_eq!(needed(&world.take(bob.session)), [(1, 0)]);
    let answer = bob.offer(&mut world);
    assert_eq!(sending_mids(&answer.sdp), [] as [&str; 0], "a clear end before a new begin");
    assert!(bob.received(&world).is_empty());
    let answer = bob.offer(&mut world);
    assert_eq!(answer.track_uid_by_mid["0"], new);
    assert!(bob.hears(&world, &new));
}

#[test]
fn nothing_is_subscribed_without_being_asked_if_the_client_says_so() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    let mic = ada.publish(&mut world, microphone("mic"));
    let request =
        JoinRequest { auto_subscribe: false, ..join_request("bob", TransportMode::Single) };
    let mut bob = Client::join_as(&mut world, request);
    bob.sections.push(Section::receiving(MediaKind::Audio));
    bob.offer(&mut world);
    assert!(bob.received(&world).is_empty());
    let want = |subscribe| {
        Command::UpdateSubscription(SubscriptionUpdate { tracks: vec![mic.clone()], subscribe })
    };
    world.command(bob.session, want(true));
    bob.offer(&mut world);
    assert!(bob.hears(&world, &mic));
    world.command(bob.session, want(false));
    assert!(bob.received(&world).is_empty());
    let answer = bob.offer(&mut world);
    assert!(sending_mids(&answer.sdp).is_empty());
}

#[test]
fn a_wish_for_an_unknown_track_is_kept_for_a_minute() {
    let mut world = World::new();
    let bob = Client::single(&mut world, "bob", 1);
    let ghost = TrackUid::from_raw("TR_ghost");
    let wish = SubscriptionUpdate { tracks: vec![ghost.clone()], subscribe: true };
    world.command(bob.session, Command::UpdateSubscription(wish));
    world.pass(Duration::from_secs(59));
    let failed =
        Event::SubscriptionFailed { track: ghost, failure: SubscriptionFailure::TrackNotFound };
    assert!(!world.take(bob.session).contains(&failed));
    world.pass(Duration::from_secs(1));
    assert!(world.take(bob.session).contains(&failed));
    world.pass(Duration::from_secs(60));
    assert!(!world.take(bob.session).contains(&failed), "told once");
}

#[test]
fn a_publisher_says_who_may_subscribe() {
    let mut world = World::new();
    let mut bob = Client::single(&mut world, "bob", 1);
    let mut cyd = Client::single(&mut world, "cyd", 1);
    let mut ada = Client::single(&mut world, "ada", 0);
    let only = |entries| Command::SubscriptionPermission(SubscriptionPermission::Only(entries));
    let entry = |identity: &str, tracks| TrackPermission {
        participant: None,
        identity: Some(identity.to_owned()),
        tracks,
    };
    world.command(ada.session, only(vec![entry("bob", AllowedTracks::All)]));
    let mic = ada.publish(&mut world, microphone("mic"));
    bob.offer(&mut world);
    cyd.offer(&mut world);
    assert!(bob.hears(&world, &mic));
    assert!(!cyd.hears(&world, &mic));
    let allowed = |allowed| Event::SubscriptionAllowed {
        publisher: ada.uid.clone(),
        track: mic.clone(),
        allowed,
    };
    assert!(world.take(cyd.session).contains(&allowed(false)));

    let by_uid = TrackPermission {
        participant: Some(cyd.uid.clone()),
        identity: None,
        tracks: AllowedTracks::These(vec![mic.clone()]),
    };
    world.command(ada.session, only(vec![by_uid]));
    cyd.offer(&mut world);
    assert!(cyd.hears(&world, &mic) && !bob.hears(&world, &mic));
    assert!(world.take(cyd.session).contains(&allowed(true)));
    assert!(world.take(bob.session).contains(&allowed(false)));
    let everybody = Command::SubscriptionPermission(SubscriptionPermission::Everybody);
    world.command(ada.session, everybody);
    bob.offer(&mut world);
    bob.offer(&mut world);
    assert!(bob.hears(&world, &mic));
}

#[test]
fn who_may_not_subscribe_gets_nothing() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    ada.publish(&mut world, microphone("mic"));
    let permission = Permission { can_subscribe: false, ..Permission::default() };
    let request = JoinRequest { permission, ..join_request("bob", TransportMode::Single) };
    let mut bob = Client::join_as(&mut world, request);
    bob.sections.push(Section::receiving(MediaKind::Audio));
    let answer = bob.offer(&mut world);
    assert!(sending_mids(&answer.sdp).is_empty());
    assert!(world.subscriptions.is_empty());
}

#[test]
fn settings_choose_the_layer() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    let cam = ada.publish(&mut world, camera("cam"));
    let mut bob = Client::single(&mut world, "bob", 1);
    bob.offer(&mut world);
    let target = |world: &World| world.subscriptions.values().next().unwrap().target;
    assert_eq!(target(&world), SubscriptionTarget::BEST);
    let mut ask = |settings| {
        let command = Command::UpdateTrackSettings { tracks: vec![cam.clone()], settings };
        world.command(bob.session, command);
        target(&world)
    };
    let up_to = |spatial, temporal| SubscriptionTarget::UpTo { spatial, temporal };
    let quality = |quality| TrackSettings { quality, ..TrackSettings::default() };
    let size = |width, height| TrackSettings { width, height, ..TrackSettings::default() };
    assert_eq!(ask(quality(LayerQuality::Low)), up_to(0, u8::MAX));
    assert_eq!(ask(quality(LayerQuality::Medium)), up_to(1, u8::MAX));
    assert_eq!(ask(size(320, 180)), up_to(0, u8::MAX));
    assert_eq!(ask(size(330, 190)), up_to(0, u8::MAX), "a little larger is not seen");
    assert_eq!(ask(size(400, 300)), up_to(1, u8::MAX));
    assert_eq!(ask(size(360, 640)), up_to(1, u8::MAX), "the same upright");
    assert_eq!(ask(size(1920, 1080)), SubscriptionTarget::BEST);
    let slow = TrackSettings { frame_rate: 7, ..quality(LayerQuality::Low) };
    assert_eq!(ask(slow), up_to(0, 0));
    let off = TrackSettings { disabled: true, ..TrackSettings::default() };
    assert_eq!(ask(off), SubscriptionTarget::Paused);
    assert_eq!(ask(TrackSettings::default()), SubscriptionTarget::BEST);
}

#[test]
fn adaptive_streams_begin_with_the_lowest_layer() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    ada.publish(&mut world, camera("cam"));
    let request =
        JoinRequest { adaptive_stream: true, ..join_request("bob", TransportMode::Single) };
    let mut bob = Client::join_as(&mut world, request);
    bob.sections.push(Section::receiving(MediaKind::Video));
    bob.offer(&mut world);
    let target = world.subscriptions.values().next().unwrap().target;
    assert_eq!(target, SubscriptionTarget::UpTo { spatial: 0, temporal: u8::MAX });
}

#[test]
fn a_client_that_lacks_the_codec_is_told() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    let cam = ada.publish(&mut world, camera("cam"));
    let track = *world.tracks.keys().next().unwrap();
    world.media_event(MediaEvent::TrackStarted { track, codec: Codec::Av1 });
    let mut bob = Client::single(&mut world, "bob", 1);
    let answer = bob.offer(&mut world);
    assert!(sending_mids(&answer.sdp).is_empty());
    let failed =
        Event::SubscriptionFailed { track: cam, failure: SubscriptionFailure::CodecUnsupported };
    assert!(world.take(bob.session).contains(&failed));
    world.pass(Duration::from_secs(2));
    assert_eq!(needed(&world.take(bob.session)), [], "sections would not help");
}

#[test]
fn a_stopped_section_gives_its_track_back_to_wait() {
    let mut world = World::new();
    let mut bob = Client::single(&mut world, "bob", 1);
    let mut ada = Client::single(&mut world, "ada", 0);
    let mic = ada.publish(&mut world, microphone("mic"));
    bob.offer(&mut world);
    assert!(bob.hears(&world, &mic));
    world.take(bob.session);
    bob.sections[0].direction = Direction::Inactive;
    bob.offer(&mut world);
    assert!(!bob.hears(&world, &mic));
    assert_eq!(needed(&world.take(bob.session)), [(1, 0)]);
    bob.sections.push(Section::receiving(MediaKind::Audio));
    bob.offer(&mut world);
    assert!(bob.hears(&world, &mic));
}

#[test]
fn publishers_are_asked_for_less_when_nobody_watches() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    let cam = ada.publish(&mut world, camera("cam"));
    let mut bob = Client::single(&mut world, "bob", 1);
    bob.offer(&mut world);
    let demands = |events: Vec<Event>| -> Vec<Vec<LayerQuality>> {
        events
            .into_iter()
            .filter_map(|event| match event {
                Event::LayerDemand { watched, .. } => Some(watched),
                _ => None,
            })
            .collect()
    };
    assert!(demands(world.take(ada.session)).is_empty());
    let ask = |world: &mut World, quality| {
        let settings = TrackSettings { quality, ..TrackSettings::default() };
        let tracks = vec![cam.clone()];
        world.command(bob.session, Command::UpdateTrackSettings { tracks, settings });
    };
    ask(&mut world, LayerQuality::Low);
    world.pass(Duration::from_secs(4));
    assert!(demands(world.take(ada.session)).is_empty(), "less only after a while");
    world.pass(Duration::from_secs(1));
    assert_eq!(demands(world.take(ada.session)), [vec![LayerQuality::Low]]);
    ask(&mut world, LayerQuality::High);
    let all = vec![LayerQuality::Low, LayerQuality::Medium, LayerQuality::High];
    assert_eq!(demands(world.take(ada.session)), [all], "more at once");
    world.command(bob.session, Command::Leave { reason: CloseReason::ClientLeft });
    world.pass(Duration::from_secs(5));
    assert_eq!(demands(world.take(ada.session)), [vec![]]);
}

#[test]
fn the_platform_subscribes_for_a_participant() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    let mic = ada.publish(&mut world, microphone("mic"));
    let mut bob = Client::single(&mut world, "bob", 1);
    bob.offer(&mut world);
    let update = SubscriptionUpdate { tracks: vec![mic.clone()], subscribe: false };
    world.control("bob", ControlAction::UpdateSubscription(update)).unwrap();
    assert!(!bob.hears(&world, &mic));
}

#[test]
fn the_number_of_subscriptions_is_bounded() {
    let mut world = World::with_limits(Limits { subscriptions: 2, ..Limits::default() });
    let mut ada = Client::single(&mut world, "ada", 0);
    for number in 0..4 {
        ada.publish(&mut world, microphone(&format!("mic-{number}")));
    }
    let mut bob = Client::single(&mut world, "bob", 4);
    bob.offer(&mut world);
    assert_eq!(bob.received(&world).len(), 2);
}
