//! Data messages and data tracks.

use std::time::Duration;

use headwater_model::{Identity, Permission, TrackUid};
use livekit_protocol::data_packet::Value;
use livekit_protocol::{ChatMessage, DataPacket, MetricsBatch, Transcription, UserPacket};
use prost::Message;

use super::client::Client;
use super::world::{World, join_request, room_id};
use crate::*;

fn packet(payload: &[u8], to: &[&str], sequence: u32) -> Vec<u8> {
    DataPacket {
        destination_identities: to.iter().map(|name| (*name).to_owned()).collect(),
        sequence,
        value: Some(Value::User(UserPacket { payload: payload.to_vec(), ..UserPacket::default() })),
        ..DataPacket::default()
    }
    .encode_to_vec()
}

/// What a client received: channel, sender, payload.
fn received(world: &mut World, client: &Client) -> Vec<(u32, String, Vec<u8>)> {
    let downlink = client.downlink(world);
    world
        .take_sent(downlink)
        .into_iter()
        .map(|(channel, bytes)| {
            let packet = DataPacket::decode(&bytes[..]).unwrap();
            let payload = match packet.value {
                Some(Value::User(user)) => user.payload,
                _ => Vec::new(),
            };
            (channel.0, packet.participant_identity, payload)
        })
        .collect()
}

fn with_channels(world: &mut World, identity: &str) -> Client {
    let client = Client::single(world, identity, 0);
    client.open_channels(world, TransportKind::Publisher);
    client
}

#[test]
fn a_message_reaches_everybody_else_or_those_it_names() {
    let mut world = World::new();
    let ada = with_channels(&mut world, "ada");
    let bob = with_channels(&mut world, "bob");
    let mut cyd = Client::dual(&mut world, "cyd");
    cyd.open_channels(&mut world, TransportKind::Subscriber);
    cyd.sections.push(super::client::Section::data());
    cyd.offer(&mut world);
    cyd.open_channels(&mut world, TransportKind::Publisher);

    ada.send(&mut world, 1, &packet(b"all", &[], 1));
    let expected = (1, "ada".to_owned(), b"all".to_vec());
    assert_eq!(received(&mut world, &bob), std::slice::from_ref(&expected));
    assert_eq!(received(&mut world, &cyd), [expected], "on the channel the node opened");
    assert_eq!(received(&mut world, &ada), []);

    cyd.send(&mut world, 2, &packet(b"one", &["bob"], 0));
    assert_eq!(received(&mut world, &bob), [(2, "cyd".to_owned(), b"one".to_vec())]);
    assert_eq!(received(&mut world, &ada), []);
    assert_eq!(received(&mut world, &cyd), [], "nothing on the channels it sends by");
}

#[test]
fn a_reliable_message_that_comes_twice_is_sent_once() {
    let mut world = World::new();
    let ada = with_channels(&mut world, "ada");
    let bob = with_channels(&mut world, "bob");
    for sequence in [1, 2, 2, 1, 3] {
        ada.send(&mut world, 1, &packet(&[sequence], &[], u32::from(sequence)));
    }
    let payloads: Vec<Vec<u8>> =
        received(&mut world, &bob).into_iter().map(|(_, _, payload)| payload).collect();
    assert_eq!(payloads, [vec![1], vec![2], vec![3]]);
    ada.send(&mut world, 2, &packet(&[9], &[], 1));
    assert_eq!(received(&mut world, &bob).len(), 1, "lossy ones are not counted");
}

#[test]
fn messages_wait_for_a_joiners_channel() {
    let mut world = World::with_limits(Limits { early_bytes: 200, ..Limits::default() });
    let ada = with_channels(&mut world, "ada");
    let bob = Client::single(&mut world, "bob", 0);
    ada.send(&mut world, 1, &packet(b"first", &[], 1));
    ada.send(&mut world, 2, &packet(b"lossy", &[], 0));
    ada.send(&mut world, 1, &packet(&[0; 180], &[], 2));
    assert_eq!(received(&mut world, &bob), []);
    bob.open_channels(&mut world, TransportKind::Publisher);
    let got = received(&mut world, &bob);
    assert_eq!(got.len(), 1, "bounded; lossy ones are not kept");
    assert_eq!(got[0].2, b"first");
    ada.send(&mut world, 1, &packet(b"then", &[], 3));
    assert_eq!(received(&mut world, &bob).len(), 1);
}

#[test]
fn who_may_not_send_is_not_heard() {
    let mut world = World::new();
    let bob = with_channels(&mut world, "bob");
    let permission = Permission { can_publish_data: false, ..Permission::default() };
    let request = JoinRequest { permission, ..join_request("ada", TransportMode::Single) };
    let mut ada = Client::join_as(&mut world, request);
    ada.sections.push(super::client::Section::data());
    ada.offer(&mut world);
    ada.open_channels(&mut world, TransportKind::Publisher);
    ada.send(&mut world, 1, &packet(b"no", &[], 1));
    ada.send(&mut world, 1, &[0xff; 40]);
    assert_eq!(received(&mut world, &bob), []);
}

#[test]
fn long_and_malformed_messages_are_dropped() {
    let mut world = World::new();
    let ada = with_channels(&mut world, "ada");
    let bob = with_channels(&mut world, "bob");
    ada.send(&mut world, 1, &packet(&vec![0; 65_536], &[], 1));
    ada.send(&mut world, 1, b"");
    ada.send(&mut world, 1, &[0x12, 0x7f]);
    assert_eq!(received(&mut world, &bob), []);
    assert!(!world.sessions[&ada.session].is_over);
}

#[test]
fn hidden_senders_have_no_name() {
    let mut world = World::new();
    let bob = with_channels(&mut world, "bob");
    let permission = Permission { hidden: true, ..Permission::default() };
    let request = JoinRequest { permission, ..join_request("spy", TransportMode::Single) };
    let mut spy = Client::join_as(&mut world, request);
    spy.sections.push(super::client::Section::data());
    spy.offer(&mut world);
    spy.open_channels(&mut world, TransportKind::Publisher);
    spy.send(&mut world, 1, &packet(b"psst", &[], 1));
    assert_eq!(received(&mut world, &bob), [(1, String::new(), b"psst".to_vec())]);
}

#[test]
fn only_programs_transcribe_and_speak_for_others() {
    let mut world = World::new();
    let bob = with_channels(&mut world, "bob");
    let ada = with_channels(&mut world, "ada");
    let request = JoinRequest { uncounted: true, ..join_request("bot", TransportMode::Single) };
    let mut bot = Client::join_as(&mut world, request);
    bot.sections.push(super::client::Section::data());
    bot.offer(&mut world);
    bot.open_channels(&mut world, TransportKind::Publisher);
    let of = |value| DataPacket {
        participant_identity: "cyd".to_owned(),
        value: Some(value),
        ..DataPacket::default()
    };
    let transcription = of(Value::Transcription(Transcription::default())).encode_to_vec();
    let chat = of(Value::ChatMessage(ChatMessage::default())).encode_to_vec();
    let metrics = of(Value::Metrics(MetricsBatch::default())).encode_to_vec();
    ada.send(&mut world, 1, &transcription);
    ada.send(&mut world, 1, &metrics);
    assert_eq!(received(&mut world, &bob), []);
    ada.send(&mut world, 1, &chat);
    assert_eq!(received(&mut world, &bob)[0].1, "ada");
    bot.send(&mut world, 1, &transcription);
    bot.send(&mut world, 1, &chat);
    bot.send(&mut world, 1, &packet(b"x", &[], 0));
    let names: Vec<String> =
        received(&mut world, &bob).into_iter().map(|(_, name, _)| name).collect();
    assert_eq!(names, ["cyd", "cyd", "bot"]);
}

#[test]
fn channels_of_other_names_carry_bytes() {
    let mut world = World::new();
    let ada = with_channels(&mut world, "ada");
    let bob = with_channels(&mut world, "bob");
    let transport = ada.transport(&world, TransportKind::Publisher);
    world.media_event(MediaEvent::ChannelOpen {
        transport,
        channel: ChannelKey(9),
        label: "own".to_owned(),
        reliability: ChannelReliability::Lossy,
    });
    ada.send(&mut world, 9, b"raw");
    assert_eq!(received(&mut world, &bob), [(2, "ada".to_owned(), b"raw".to_vec())]);
    world.media_event(MediaEvent::ChannelClosed { transport, channel: ChannelKey(9) });
    ada.send(&mut world, 9, b"late");
    assert_eq!(received(&mut world, &bob), []);
}

#[test]
fn the_platform_sends_messages() {
    let mut world = World::new();
    let ada = with_channels(&mut world, "ada");
    let bob = Client::single(&mut world, "bob", 0);
    let mut message = DataMessage {
        room: room_id(),
        payload: b"hello".to_vec(),
        reliable: true,
        destinations: Vec::new(),
        topic: "t".to_owned(),
    };
    world.rooms.send_data(world.now, &message).unwrap();
    message.destinations = vec![Identity::new("bob").unwrap()];
    world.rooms.send_data(world.now, &message).unwrap();
    world.drain();
    assert_eq!(received(&mut world, &ada), [(1, String::new(), b"hello".to_vec())]);
    bob.open_channels(&mut world, TransportKind::Publisher);
    assert_eq!(received(&mut world, &bob).len(), 2, "kept until it could be sent");
    message.payload = vec![0; 70_000];
    assert!(world.rooms.send_data(world.now, &message).is_err());
}

fn data_track(handle: u32, name: &str) -> Command {
    Command::PublishDataTrack(PublishDataTrack {
        handle,
        display_name: name.to_owned(),
        door_payload: (&b""[..]).into(),
    })
}

fn published(world: &World, session: SessionKey) -> TrackUid {
    world.sessions[&session]
        .events
        .iter()
        .rev()
        .find_map(|event| match event {
            Event::DataTrackPublished(view) => Some(view.uid.clone()),
            _ => None,
        })
        .unwrap()
}

#[test]
fn data_tracks_are_checked() {
    let mut world = World::new();
    let ada = with_channels(&mut world, "ada");
    let mut outcome = |command| {
        world.take(ada.session);
        world.command(ada.session, command);
        let events = world.take(ada.session);
        events.iter().find_map(|event| match event {
            Event::RequestResult(result) => Some(result.outcome),
            _ => None,
        })
    };
    assert_eq!(outcome(data_track(7, "pose")), None);
    assert_eq!(outcome(data_track(7, "other")), Some(RequestOutcome::DuplicateHandle));
    assert_eq!(outcome(data_track(8, "pose")), Some(RequestOutcome::DuplicateName));
    assert_eq!(outcome(data_track(0, "x")), Some(RequestOutcome::InvalidHandle));
    assert_eq!(outcome(data_track(65_536, "x")), Some(RequestOutcome::InvalidHandle));
    assert_eq!(outcome(data_track(8, "")), Some(RequestOutcome::InvalidName));
    let unpublish = |handle| Command::UnpublishDataTrack { handle };
    assert_eq!(outcome(unpublish(9)), Some(RequestOutcome::NotFound));
    assert_eq!(outcome(unpublish(7)), None);
    assert_eq!(outcome(data_track(7, "pose")), None);
}

#[test]
fn frames_go_to_subscribers_under_their_own_handle() {
    let mut world = World::new();
    let ada = with_channels(&mut world, "ada");
    let bob = with_channels(&mut world, "bob");
    let cyd = with_channels(&mut world, "cyd");
    world.command(ada.session, data_track(500, "pose"));
    let uid = published(&world, ada.session);
    assert!(uid.as_str().starts_with("DTR_"));
    let subscribe = |subscribe| {
        let tracks = vec![uid.clone()];
        Command::UpdateDataSubscription(SubscriptionUpdate { tracks, subscribe })
    };
    world.take(bob.session);
    world.command(bob.session, subscribe(true));
    let events = world.take(bob.session);
    let Some(Event::DataTrackHandles(handles)) = events.last() else { panic!("{events:?}") };
    let (handle, origin) = handles.first_key_value().unwrap();
    assert_eq!((*handle, origin.identity.as_str()), (1, "ada"));

    let mut frame = vec![0x18, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0xab];
    frame[2..4].copy_from_slice(&500_u16.to_be_bytes());
    ada.send(&mut world, 3, &frame);
    let downlink = bob.downlink(&world);
    let sent = world.take_sent(downlink);
    frame[2..4].copy_from_slice(&1_u16.to_be_bytes());
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].0, &sent[0].1[..]), (ChannelKey(3), &frame[..]));
    let downlink = cyd.downlink(&world);
    assert!(world.take_sent(downlink).is_empty());

    ada.send(&mut world, 3, &frame);
    ada.send(&mut world, 3, &frame[..11]);
    let downlink = bob.downlink(&world);
    assert!(world.take_sent(downlink).is_empty(), "an unknown handle, a short frame");
    world.command(ada.session, Command::UnpublishDataTrack { handle: 500 });
    let events = world.take(bob.session);
    assert!(events.contains(&Event::DataTrackHandles(Default::default())));
}

#[test]
fn a_wanted_data_track_may_come_later() {
    let mut world = World::new();
    let ada = with_channels(&mut world, "ada");
    let bob = with_channels(&mut world, "bob");
    world.command(ada.session, data_track(1, "one"));
    let uid = published(&world, ada.session);
    // The uid cannot be known before, but a subscription may cross the end of a
    // permission to subscribe.
    let none = Permission { can_subscribe: false, ..Permission::default() };
    let update = ParticipantUpdate { permission: Some(none), ..ParticipantUpdate::default() };
    world.control("bob", ControlAction::Update(update)).unwrap();
    let tracks = vec![uid];
    let wish = SubscriptionUpdate { tracks: tracks.clone(), subscribe: true };
    world.take(bob.session);
    world.command(bob.session, Command::UpdateDataSubscription(wish));
    let events = world.take(bob.session);
    assert_eq!(events, [Event::DataTrackHandles(Default::default())]);
    world.take(bob.session);
    let update = ParticipantUpdate {
        permission: Some(Permission::default()),
        ..ParticipantUpdate::default()
    };
    world.control("bob", ControlAction::Update(update)).unwrap();
    let events = world.take(bob.session);
    let Some(Event::DataTrackHandles(handles)) = events.last() else { panic!("{events:?}") };
    assert_eq!(handles.len(), 1);

    let hidden = Permission { hidden: true, ..Permission::default() };
    let update = ParticipantUpdate { permission: Some(hidden), ..ParticipantUpdate::default() };
    world.control("ada", ControlAction::Update(update)).unwrap();
    let events = world.take(bob.session);
    assert!(events.contains(&Event::DataTrackHandles(Default::default())));
}

#[test]
fn missed_messages_are_repeated_after_a_resume_for_two_seconds() {
    let mut world = World::new();
    let ada = with_channels(&mut world, "ada");
    let bob = with_channels(&mut world, "bob");
    for sequence in 1..=4 {
        ada.send(&mut world, 1, &packet(&[sequence], &[], u32::from(sequence)));
    }
    ada.send(&mut world, 1, &packet(b"private", &["cyd"], 5));
    received(&mut world, &bob);
    world.lose(bob.session);
    let resume =
        JoinRequest { resume: Some(bob.uid.clone()), ..join_request("bob", TransportMode::Single) };
    let session = world.join(resume);
    let state =
        SyncState { last_data_sequences: [(ada.uid.clone(), 2)].into(), ..SyncState::default() };
    world.command(session, Command::SyncState(state.clone()));
    let payloads: Vec<Vec<u8>> =
        received(&mut world, &bob).into_iter().map(|(_, _, payload)| payload).collect();
    assert_eq!(payloads, [vec![3], vec![4]]);
    world.pass(Duration::from_secs(3));
    world.command(session, Command::SyncState(state));
    assert_eq!(received(&mut world, &bob), []);
}

#[test]
fn a_resumed_client_learns_what_arrived_of_it() {
    let mut world = World::new();
    let ada = with_channels(&mut world, "ada");
    ada.send(&mut world, 1, &packet(b"x", &[], 41));
    world.lose(ada.session);
    let resume =
        JoinRequest { resume: Some(ada.uid.clone()), ..join_request("ada", TransportMode::Single) };
    let session = world.join(resume);
    let Event::Joined(joined) = &world.sessions[&session].events[0] else { panic!() };
    assert!(joined.resumed);
    assert_eq!(joined.last_data_sequence, 41);
}
