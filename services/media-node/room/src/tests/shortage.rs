//! Lack of bandwidth: what subscribers are told, and what of theirs comes first.

use headwater_model::media::Prominence;
use std::time::Duration;

use super::client::{Client, camera};
use super::world::World;
use crate::*;

fn paused(events: &[Event]) -> Vec<bool> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::StreamPaused { paused, .. } => Some(*paused),
            _ => None,
        })
        .collect()
}

#[test]
fn a_subscriber_is_told_when_a_track_is_paused_for_lack_of_bandwidth_and_nobody_else_is() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    let cam = ada.publish(&mut world, camera("cam"));
    let mut bob = Client::single(&mut world, "bob", 1);
    bob.offer(&mut world);
    let mut eve = Client::single(&mut world, "eve", 1);
    eve.offer(&mut world);
    world.pass(Duration::from_secs(1));
    let track = *world.tracks.keys().next().unwrap();
    let transport = bob.downlink(&world);
    for client in [&ada, &bob, &eve] {
        world.take(client.session);
    }
    world.media_event(MediaEvent::Paused { transport, track, paused: true });
    let told = world.take(bob.session);
    assert_eq!(paused(&told), [true]);
    let named = told.iter().any(|event| {
        matches!(event, Event::StreamPaused { publisher, track, .. }
            if *publisher == ada.uid && *track == cam)
    });
    assert!(named, "{told:?}");
    world.media_event(MediaEvent::Paused { transport, track, paused: false });
    assert_eq!(paused(&world.take(bob.session)), [false]);
    assert_eq!(paused(&world.take(ada.session)), []);
    assert_eq!(paused(&world.take(eve.session)), []);
}

#[test]
fn what_a_subscriber_asks_for_decides_what_comes_first() {
    let mut world = World::new();
    let mut ada = Client::single(&mut world, "ada", 0);
    let cam = ada.publish(&mut world, camera("cam"));
    let mut bob = Client::single(&mut world, "bob", 1);
    bob.offer(&mut world);
    world.pass(Duration::from_secs(1));
    let asked = |world: &World| -> Vec<Prominence> {
        let commands = world.media.iter().filter_map(|command| match command {
            MediaCommand::SetProminence { prominence, .. } => Some(*prominence),
            _ => None,
        });
        commands.collect()
    };
    let before = asked(&world).len();
    let settings = TrackSettings { priority: 1, width: 640, height: 360, ..Default::default() };
    for _ in 0..2 {
        let tracks = vec![cam.clone()];
        world.command(bob.session, Command::UpdateTrackSettings { tracks, settings });
    }
    let told = asked(&world);
    assert_eq!(told[before..], [Prominence { priority: 1, pixels: 640 * 360 }], "once");
}
