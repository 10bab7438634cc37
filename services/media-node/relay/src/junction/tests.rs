//! What a junction refuses, whatever a peer says.

use headwater_model::media::{Codec, Encoding, ExtensionIds, PayloadMapping, Publication};
use headwater_model::{NodeId, ParticipantUid, ShardIndex};
use std::time::Duration;

use super::*;
use crate::frame::{Frame, FrameTag, HOPS_MAX, begin_train};
use crate::plan::ShardTag;
use crate::track::Path;

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
fn start() -> Instant {
    Instant::now()
}

fn address(node: &str) -> ShardAddress {
    ShardAddress { node: NodeId::new(node).unwrap(), shard: ShardIndex(0) }
}

fn peer(node: &str, rank: u32) -> Peer {
    Peer { address: address(node), rank, relay_address: None }
}

/// `me` has rank 5, the parent `up` 1, the children `x` 6 and `y` 7.
fn junction(now: Instant) -> Junction {
    let config = JunctionConfig {
        me: address("me"),
        boot: 1,
        room: RoomId::new("hall").unwrap(),
        datagram_max: 1_160,
    };
    let slice = PlanSlice {
        epoch: Epoch(3),
        rank: 5,
        parent: Some(peer("up", 1)),
        backups: vec![peer("deeper", 9)],
        children: vec![peer("x", 6), peer("y", 7), peer("higher", 2)],
        backup_children: Vec::new(),
    };
    Junction::new(config, slice, Timing::default(), now)
}

fn hello(from: &str, epoch: u64, rank: u32) -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        from: address(from),
        to: address("me"),
        boot: 4,
        room: RoomId::new("hall").unwrap(),
        epoch: Epoch(epoch),
        rank,
    }
}

fn info(epoch: u32) -> TrackInfo {
    let mapping = PayloadMapping {
        codec: Codec::Opus,
        payload_type: 96,
        rtx_payload_type: None,
        format: String::new(),
        nack: true,
        pli: true,
        transport_cc: false,
        red_of: None,
    };
    TrackInfo {
        track: TrackUid::from_raw("TR_1"),
        participant: ParticipantUid::from_raw("PA_1"),
        epoch,
        publication: Publication {
            kind: Codec::Opus.kind(),
            mid: "0".to_owned(),
            codecs: vec![mapping],
            extensions: ExtensionIds::default(),
            encodings: vec![Encoding::default()],
        },
    }
}

fn announce(handle: u32, epoch: u32, path: &[&str]) -> Message {
    let mut tags = path.iter().map(|node| address(node).tag());
    let first = Path::from_origin(tags.next().unwrap_or(ShardTag(0)));
    let path = tags.fold(first, |path, tag| path.extended(tag).unwrap());
    Message::Announce { handle, info: Box::new(info(epoch)), path }
}

fn datagram(handle: u32, epoch: u16, hops: u8) -> Vec<u8> {
    let tag = FrameTag { handle, epoch, hops, ..FrameTag::default() };
    let packet = headwater_sfu::RelayPacket {
        encoding: 0,
        life: 1,
        sequence: 70_000,
        timestamp: 5,
        codec: 0,
        marker: false,
        keyframe: true,
        held: Duration::ZERO,
        extensions: &[],
        payload: &[1, 2, 3],
    };
    let mut train = Vec::new();
    begin_train(1, &mut train);
    Frame::Media(tag, packet).write(&mut train);
    train
}

fn arrivals(junction: &mut Junction, now: Instant, key: u32, datagram: &[u8]) -> usize {
    let mut count = 0;
    junction.handle_datagram(now, LinkKey(key), datagram, |_| count += 1);
    count
}

fn messages(junction: &mut Junction, key: u32) -> Vec<Message> {
    junction.flush(start());
    let bytes = junction.link_mut(LinkKey(key)).unwrap().take_messages();
    let mut rest = &bytes[..];
    let mut list = Vec::new();
    while let Some((kind, len)) = Message::head(rest).unwrap() {
        list.extend(Message::parse(kind, &rest[5..5 + len]).unwrap());
        rest = &rest[5 + len..];
    }
    list
}

fn announced(list: &[Message]) -> usize {
    list.iter().filter(|message| matches!(message, Message::Announce { .. })).count()
}

#[test]
fn only_children_of_the_plan_with_a_higher_rank_and_the_same_epoch_are_fed() {
    let now = start();
    let mut junction = junction(now);
    let mut admit = |hello: &Hello| junction.admit(now, LinkKey(1), hello);
    assert_eq!(admit(&hello("x", 2, 6)), Err(Refusal::StaleEpoch));
    assert_eq!(admit(&hello("x", 4, 6)), Err(Refusal::EarlyEpoch));
    assert_eq!(admit(&hello("stranger", 3, 6)), Err(Refusal::NotInPlan));
    assert_eq!(admit(&hello("x", 3, 5)), Err(Refusal::NotInPlan));
    assert_eq!(admit(&hello("higher", 3, 2)), Err(Refusal::NotInPlan));
    let other = Hello { to: address("another"), ..hello("x", 3, 6) };
    assert_eq!(admit(&other), Err(Refusal::WrongShard));
    assert_eq!(admit(&Hello { version: 9, ..hello("x", 3, 6) }), Err(Refusal::Version));
    assert_eq!(admit(&hello("x", 3, 6)), Ok(()));
}

#[test]
fn a_plan_of_a_lower_epoch_is_refused_and_parents_of_higher_rank_are_not_dialled() {
    let now = start();
    let mut junction = junction(now);
    let opened: Vec<_> = std::iter::from_fn(|| junction.poll_output())
        .filter_map(|output| match output {
            JunctionOutput::Open(peer) => Some(peer.address),
            _ => None,
        })
        .collect();
    assert_eq!(opened, [address("up")]);
    assert!(!junction.set_slice(now, PlanSlice::alone(Epoch(2))));
    assert_eq!(junction.epoch(), Epoch(3));
}

#[test]
fn an_announcement_that_was_here_before_is_refused() {
    let now = start();
    let mut junction = junction(now);
    junction.admit(now, LinkKey(1), &hello("x", 3, 6)).unwrap();
    junction.handle_message(now, LinkKey(1), announce(1, 1, &["y", "me", "x"]));
    assert!(junction.by_uid.is_empty());
    let drops = junction.link_mut(LinkKey(1)).unwrap().stats().drops;
    assert_eq!(drops.looped_announcements, 1);
}

#[test]
fn a_track_goes_to_others_but_not_back_and_not_from_above_to_above() {
    let now = start();
    let mut junction = junction(now);
    junction.opened(now, LinkKey(9), &address("up"));
    let welcome = Hello { from: address("up"), to: address("me"), ..hello("up", 3, 1) };
    junction.handle_message(now, LinkKey(9), Message::Welcome(welcome));
    junction.handle_message(now, LinkKey(9), announce(1, 1, &["home", "up"]));
    junction.handle_message(now, LinkKey(9), Message::Announced);
    junction.admit(now, LinkKey(1), &hello("x", 3, 6)).unwrap();
    assert_eq!(announced(&messages(&mut junction, 9)), 0);
    assert_eq!(announced(&messages(&mut junction, 1)), 1);
    // The same track from a child of a newer epoch: it goes up now, and not back.
    junction.handle_message(now, LinkKey(1), announce(1, 2, &["x"]));
    assert_eq!(announced(&messages(&mut junction, 9)), 1);
    let to_child = messages(&mut junction, 1);
    assert_eq!(announced(&to_child), 0);
    assert!(to_child.iter().any(|message| matches!(message, Message::Withdraw(_))));
}

#[test]
fn frames_are_taken_from_one_source_of_the_present_epoch_within_the_hop_limit() {
    let now = start();
    let mut junction = junction(now);
    junction.admit(now, LinkKey(1), &hello("x", 3, 6)).unwrap();
    junction.admit(now, LinkKey(2), &hello("y", 3, 7)).unwrap();
    junction.handle_message(now, LinkKey(1), announce(7, 5, &["x"]));
    junction.handle_message(now, LinkKey(2), announce(8, 5, &["z", "y"]));
    let track = TrackKey(1);
    junction.attach(now, &TrackUid::from_raw("TR_1"), track).unwrap();
    assert_eq!(arrivals(&mut junction, now, 1, &datagram(7, 5, 0)), 1);
    assert_eq!(arrivals(&mut junction, now, 2, &datagram(8, 5, 0)), 0, "the longer way");
    assert_eq!(arrivals(&mut junction, now, 1, &datagram(7, 4, 0)), 0, "of the past");
    assert_eq!(arrivals(&mut junction, now, 1, &datagram(7, 5, HOPS_MAX)), 0, "too far");
    assert_eq!(arrivals(&mut junction, now, 1, &datagram(99, 5, 0)), 0, "of nothing");
    let drops =
        |junction: &mut Junction, key| junction.link_mut(LinkKey(key)).unwrap().stats().drops;
    let first = drops(&mut junction, 1);
    assert_eq!((first.stale_epoch, first.looped, first.unknown_handle), (1, 1, 1));
    assert_eq!(drops(&mut junction, 2).wrong_source, 1);
    // A lower epoch never takes a track over; a higher one does at once.
    junction.handle_message(now, LinkKey(2), announce(9, 4, &["y"]));
    assert_eq!(arrivals(&mut junction, now, 1, &datagram(7, 5, 0)), 1);
    junction.handle_message(now, LinkKey(2), announce(10, 6, &["y"]));
    junction.attach(now, &TrackUid::from_raw("TR_1"), TrackKey(2)).unwrap();
    assert_eq!(arrivals(&mut junction, now, 2, &datagram(10, 6, 0)), 1);
    assert_eq!(arrivals(&mut junction, now, 1, &datagram(7, 5, 0)), 0);
}

#[test]
fn interest_of_many_is_asked_for_once_and_taken_back_later() {
    let now = start();
    let mut junction = junction(now);
    junction.opened(now, LinkKey(9), &address("up"));
    let welcome = Hello { from: address("up"), to: address("me"), ..hello("up", 3, 1) };
    junction.handle_message(now, LinkKey(9), Message::Welcome(welcome));
    junction.handle_message(now, LinkKey(9), announce(1, 1, &["home", "up"]));
    junction.handle_message(now, LinkKey(9), Message::Announced);
    for (key, name, rank) in [(1, "x", 6), (2, "y", 7)] {
        junction.admit(now, LinkKey(key), &hello(name, 3, rank)).unwrap();
    }
    let handle = |junction: &mut Junction, key| {
        messages(junction, key).into_iter().find_map(|message| match message {
            Message::Announce { handle, .. } => Some(handle),
            _ => None,
        })
    };
    let (x, y) = (handle(&mut junction, 1).unwrap(), handle(&mut junction, 2).unwrap());
    messages(&mut junction, 9);
    let interest = |junction: &mut Junction| -> Vec<(u32, u8)> {
        let list = messages(junction, 9).into_iter().filter_map(|message| match message {
            Message::Interest(entries) => Some(entries),
            _ => None,
        });
        list.flatten().collect()
    };
    junction.handle_message(now, LinkKey(1), Message::Interest(vec![(x, 0b001)]));
    junction.handle_message(now, LinkKey(2), Message::Interest(vec![(y, 0b001)]));
    assert_eq!(interest(&mut junction), [(1, 0b001)]);
    junction.handle_message(now, LinkKey(2), Message::Interest(vec![(y, 0b101)]));
    assert_eq!(interest(&mut junction), [(1, 0b101)]);
    junction.handle_message(now, LinkKey(2), Message::Interest(vec![(y, 0)]));
    assert_eq!(interest(&mut junction), []);
    for step in 0..40 {
        let now = now + Duration::from_millis(100 * step);
        for key in [1, 2, 9] {
            junction.link_mut(LinkKey(key)).unwrap().note_heard(now);
        }
        junction.handle_timeout(now);
    }
    assert_eq!(interest(&mut junction), [(1, 0b001)], "after the linger");
}
