//! Reactions, which are counted instead of passed on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use livekit_protocol::data_packet::Value;
use livekit_protocol::{DataPacket, UserPacket};
use prost::Message;

use super::client::Client;
use super::world::{World, room_id};
use crate::*;

const TOPIC: &str = "headwater.tally";

fn reaction(kind: &[u8]) -> Vec<u8> {
    let topic = Some(TOPIC.to_owned());
    let value = Value::User(UserPacket { payload: kind.to_vec(), topic, ..UserPacket::default() });
    DataPacket { value: Some(value), ..DataPacket::default() }.encode_to_vec()
}

/// What a client was told of sums, and whatever else reached it.
fn told(world: &mut World, client: &Client) -> Vec<String> {
    let downlink = client.downlink(world);
    let read = |bytes: &[u8]| match DataPacket::decode(bytes).unwrap().value {
        Some(Value::User(user)) => {
            assert_eq!(user.topic.as_deref(), Some(TOPIC));
            String::from_utf8(user.payload).unwrap()
        }
        other => panic!("{other:?}"),
    };
    world.take_sent(downlink).into_iter().map(|(_, bytes)| read(&bytes)).collect()
}

fn with_channels(world: &mut World, identity: &str) -> Client {
    let client = Client::single(world, identity, 0);
    client.open_channels(world, TransportKind::Publisher);
    client
}

#[test]
fn reactions_are_told_as_sums() {
    let mut world = World::new();
    let [ada, bob] = ["ada", "bob"].map(|name| with_channels(&mut world, name));
    for _ in 0..1_000 {
        ada.send(&mut world, 2, &reaction("👏".as_bytes()));
    }
    bob.send(&mut world, 2, &reaction(b"heart"));
    assert_eq!(told(&mut world, &bob), [] as [&str; 0]);
    world.pass(Duration::from_secs(1));
    let sums = [r#"{"heart":1,"👏":1000}"#];
    assert_eq!(told(&mut world, &ada), sums);
    assert_eq!(told(&mut world, &bob), sums);
    world.pass(Duration::from_secs(5));
    assert_eq!(told(&mut world, &bob), [] as [&str; 0], "nothing new, nothing told");
    let late = with_channels(&mut world, "late");
    assert_eq!(told(&mut world, &late), sums);
}

#[test]
fn a_reaction_without_a_proper_name_is_dropped_and_kinds_are_bounded() {
    let mut world = World::new();
    let ada = with_channels(&mut world, "ada");
    for bad in [&b""[..], b"\"", b"\\", b"\n", &[0xff, 0xfe], &[b'a'; 65]] {
        ada.send(&mut world, 2, &reaction(bad));
    }
    for number in 0..40 {
        ada.send(&mut world, 2, &reaction(format!("kind-{number:02}").as_bytes()));
    }
    world.pass(Duration::from_secs(1));
    let sums = told(&mut world, &ada).pop().unwrap();
    assert_eq!(sums.matches(':').count(), 32, "{sums}");
    assert!(sums.starts_with(r#"{"kind-00":1,"#), "{sums}");
}

#[test]
fn shards_add_up_what_they_counted() {
    let mut world = World::new();
    let ada = with_channels(&mut world, "ada");
    ada.send(&mut world, 2, &reaction(b"heart"));
    world.pass(Duration::from_secs(1));
    told(&mut world, &ada);
    world.rooms.set_span(world.now, &room_id(), true, None);
    world.drain();
    ada.send(&mut world, 2, &reaction(b"heart"));
    ada.send(&mut world, 2, &reaction(b"heart"));
    world.pass(Duration::from_secs(1));
    let passed: Vec<u64> = world
        .relayed
        .iter()
        .filter_map(|command| match command {
            RelayCommand::Tally { counts, .. } => Some(counts["heart"]),
            _ => None,
        })
        .collect();
    assert_eq!(passed, [1, 2], "what it knew, and then what is new");
    assert_eq!(told(&mut world, &ada), [] as [&str; 0], "the home tells");
    let sums = BTreeMap::from([(Arc::from("heart"), 70)]);
    for _ in 0..2 {
        let event = RemoteEvent::Tallied(sums.clone());
        world.rooms.handle_remote(world.now, &room_id(), event);
        world.drain();
    }
    assert_eq!(told(&mut world, &ada), [r#"{"heart":70}"#], "once");
}
