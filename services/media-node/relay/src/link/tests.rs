//! Links on a virtual clock.

use headwater_model::{NodeId, RoomId, ShardIndex};
use proptest::prelude::*;

use super::*;
use crate::message::PROTOCOL_VERSION;

fn packet(sequence: u64, payload: &[u8]) -> RelayPacket<'_> {
    RelayPacket {
        encoding: 0,
        life: 1,
        sequence,
        timestamp: 0,
        codec: 0,
        marker: false,
        keyframe: false,
        held: Duration::ZERO,
        extensions: &[],
        payload,
    }
}

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
fn start() -> Instant {
    Instant::now()
}

/// The two ends of a link that is up.
fn pair(now: Instant) -> (Link, Link) {
    let address =
        |node: &str| ShardAddress { node: NodeId::new(node).unwrap(), shard: ShardIndex(0) };
    let hello = |from: &str, to: &str, rank| Hello {
        version: PROTOCOL_VERSION,
        from: address(from),
        to: address(to),
        boot: 1,
        room: RoomId::new("hall").unwrap(),
        epoch: Epoch(1),
        rank,
    };
    let (theirs, ours) = (hello("child", "parent", 1), hello("parent", "child", 0));
    let mut child = Link::open(LinkKey(1), &theirs, 1_160, now);
    let parent = Link::accept(LinkKey(2), (&theirs, &ours), 1_160, now);
    child.welcomed(&ours, now);
    (child, parent)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn time_and_loss_of_a_link_are_measured_at_both_ends() {
    let start = start();
    let (mut child, mut parent) = pair(start);
    let mut wire: VecDeque<(Instant, bool, Vec<u8>)> = VecDeque::new();
    let (mut frames, mut hops, mut sent, mut lost) = (0, Vec::new(), 0_u64, 0);
    for step in 0..3_000 {
        let now = start + ms(step);
        if step % 10 == 0 {
            parent.send(now, &FrameTag::default(), &packet(step, &[7; 500]));
            parent.flush(now);
        }
        child.handle_timeout(now, 0);
        parent.handle_timeout(now, 0);
        while let Some(datagram) = parent.take_datagram() {
            let is_train = datagram[0] & 0x0f == KIND_TRAIN;
            sent += u64::from(is_train);
            if is_train && sent.is_multiple_of(20) {
                lost += 1;
                continue;
            }
            wire.push_back((now + ms(15), true, datagram));
        }
        while let Some(datagram) = child.take_datagram() {
            wire.push_back((now + ms(15), false, datagram));
        }
        while wire.front().is_some_and(|(due, ..)| *due <= now) {
            let Some((_, down, datagram)) = wire.pop_front() else { break };
            let end = if down { &mut child } else { &mut parent };
            end.handle_datagram(now, &datagram, |_, _, hop| {
                frames += 1;
                hops.push(hop);
            });
        }
    }
    assert_eq!((sent, frames), (300, 300 - lost), "the last one is one of the lost");
    let stats = child.stats();
    assert!((lost - 1..=lost).contains(&stats.lost_in), "{stats:?}");
    assert_eq!(stats.rtt, Some(ms(30)));
    assert_eq!(hops.last(), Some(&ms(15)), "half of the round trip where nothing waits");
    assert!((lost - 3..=lost).contains(&parent.stats().lost_out), "{:?}", parent.stats());
}

#[test]
fn silence_ends_a_link_after_four_heartbeats() {
    let start = start();
    let (mut child, mut parent) = pair(start);
    for step in 0..1_000 {
        let now = start + ms(step);
        child.handle_timeout(now, 0);
        parent.handle_timeout(now, 0);
        while let Some(datagram) = parent.take_datagram() {
            if step < 500 {
                child.handle_datagram(now, &datagram, |_, _, _| {});
            }
        }
        while let Some(datagram) = child.take_datagram() {
            parent.handle_datagram(now, &datagram, |_, _, _| {});
        }
        let last_heard = 400;
        let dead = step >= last_heard + 400;
        assert_eq!(child.phase() == Phase::Ended(End::Silent), dead, "at {step}");
    }
}

#[test]
fn packets_fill_a_datagram_before_the_next_begins() {
    let now = start();
    let (mut child, _) = pair(now);
    for sequence in 0..100 {
        child.send(now, &FrameTag::default(), &packet(sequence, &[7; 160]));
    }
    child.flush(now);
    let lengths: Vec<_> = std::iter::from_fn(|| child.take_datagram()).map(|d| d.len()).collect();
    assert_eq!(lengths.len(), 17, "six sounds to a datagram");
    assert!(lengths.iter().all(|len| *len <= 1_160));
    assert_eq!(child.stats().frames_out, 100);
}

#[test]
fn a_full_queue_drops_and_counts() {
    let now = start();
    let (mut child, _) = pair(now);
    for sequence in 0..2_000 {
        child.send(now, &FrameTag::default(), &packet(sequence, &[7; 1_000]));
    }
    child.flush(now);
    let kept = std::iter::from_fn(|| child.take_datagram()).count() as u64;
    assert!(kept <= TRAINS_MAX as u64 + 1);
    assert_eq!(kept + child.stats().drops.queue_full, 2_000);
}

#[test]
fn a_peer_that_takes_no_messages_ends_the_link() {
    let now = start();
    let (mut child, _) = pair(now);
    for _ in 0..(MESSAGES_MAX / 100_000 + 1) {
        child.say(&Message::LongFrame(vec![0; 100_000]));
    }
    assert_eq!(child.phase(), Phase::Ended(End::Stuck));
}

proptest! {
    #[test]
    fn arbitrary_datagrams_never_panic(
        first in 0x10_u8..0x13,
        rest in prop::collection::vec(any::<u8>(), 0..200),
        millis in 0_u64..100_000,
    ) {
        let now = start();
        let (mut child, _) = pair(now);
        let mut datagram = vec![first];
        datagram.extend(rest);
        child.handle_datagram(now + ms(millis), &datagram, |_, _, _| {});
        child.handle_datagram(now + ms(millis + 1), &datagram, |_, _, _| {});
        child.handle_timeout(now + ms(millis + 1), 0);
    }
}
