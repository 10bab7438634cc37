//! Sound with redundancy (RED, RFC 2198): untouched for those who take it, its primaries
//! for the others, and for all what the publisher's network lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use headwater_model::media::{Codec, HeaderExtension, TransportKey};
use headwater_rtp::red::{self, RedPayload, RedundantBlock};
use headwater_rtp::rtcp::{Compound, CompoundWriter, RtcpPacket};
use headwater_rtp::{RtpView, SequenceUnwrapper, TimestampUnwrapper};
use headwater_sfu::SfuEvent;

use crate::harness::microphone::{
    Microphone, OPUS, PACKET, TAKEN_RED, publication_with_red, subscription_with_red,
};
use crate::harness::publisher::Mark;
use crate::harness::random::Random;
use crate::harness::{World, subscriber_ids, subscription};

const PUBLISHER: TransportKey = TransportKey(1);
/// Payload type of Opus at the subscriber without RED.
const PLAIN_OPUS: u8 = 101;
/// What a subscriber received.
struct Heard {
    sequences: SequenceUnwrapper,
    timestamps: TimestampUnwrapper,
    /// By number: time, payload type, payload.
    packets: BTreeMap<u64, (u64, u8, Vec<u8>)>,
    raw: BTreeMap<u64, Vec<u8>>,
    levels: usize,
}

impl Heard {
    fn new() -> Self {
        Self {
            sequences: SequenceUnwrapper::new(),
            timestamps: TimestampUnwrapper::new(),
            packets: BTreeMap::new(),
            raw: BTreeMap::new(),
            levels: 0,
        }
    }

    fn take(&mut self, packets: Vec<Vec<u8>>) {
        let level = subscriber_ids().get(HeaderExtension::AudioLevel).unwrap();
        for packet in packets {
            let view = RtpView::parse(&packet).unwrap();
            let number = self.sequences.unwrap(view.sequence());
            let time = self.timestamps.unwrap(view.timestamp());
            let heard = (time, view.payload_type(), view.payload().to_vec());
            self.levels += usize::from(view.extension(level).is_some());
            self.packets.insert(number, heard);
            // SRTP forbids two packets under one number.
            let before = self.raw.insert(number, packet.clone());
            assert!(before.is_none_or(|before| before == packet), "one number, two packets");
        }
    }

    /// The frames that came under a payload type, by number.
    fn frames(&self, payload_type: u8) -> BTreeMap<u64, u32> {
        let of_type = self.packets.iter().filter(|(_, (_, of, _))| *of == payload_type);
        of_type
            .map(|(number, (_, _, payload))| (*number, frame_of(payload_type, payload)))
            .collect()
    }

    /// Every number stands as far from the first as its frame, and so does its time.
    fn check(&self, opus: u8) {
        let mut first = None;
        for (number, (time, payload_type, payload)) in &self.packets {
            assert!([opus, TAKEN_RED].contains(payload_type), "payload type {payload_type}");
            let frame = u64::from(frame_of(*payload_type, payload));
            let places = (number - frame, time.wrapping_sub(frame * u64::from(PACKET)));
            assert_eq!(*first.get_or_insert(places), places, "frame {frame} in a wrong place");
        }
    }
}

fn frame_of(payload_type: u8, payload: &[u8]) -> u32 {
    let payload = match payload_type {
        TAKEN_RED => RedPayload::parse(payload).unwrap().primary(),
        _ => payload,
    };
    Mark::parse(payload).frame
}

/// A publisher and two subscribers: one takes RED, the other does not.
struct Talk {
    world: World,
    microphone: Microphone,
    capable: TransportKey,
    plain: TransportKey,
    with_red: Heard,
    without: Heard,
}

impl Talk {
    fn new(depth: usize) -> Self {
        let mut world = World::new();
        world.transport(PUBLISHER.0);
        let (capable, plain) = (world.transport(2), world.transport(3));
        let track = world.publish(PUBLISHER, 1, &publication_with_red());
        world.subscribe(1, track, capable, &subscription_with_red(5_000));
        world.subscribe(2, track, plain, &subscription(Codec::Opus, 6_000));
        let microphone = Microphone::new(depth);
        let (with_red, without) = (Heard::new(), Heard::new());
        Self { world, microphone, capable, plain, with_red, without }
    }

    fn arrive(&mut self, packet: &[u8]) {
        self.world.rtp(PUBLISHER, packet);
        self.world.drain();
        self.hear();
    }

    fn pass(&mut self, millis: u64) {
        self.world.pass(millis);
        self.hear();
    }

    fn hear(&mut self) {
        self.with_red.take(self.world.take_rtp(self.capable));
        self.without.take(self.world.take_rtp(self.plain));
    }

    /// Says some packets, of which those named get lost; returns all of them.
    fn say(&mut self, count: usize, is_lost: impl Fn(usize) -> bool) -> Vec<Vec<u8>> {
        let mut said = Vec::new();
        for index in 0..count {
            let packet = self.microphone.packet(PACKET);
            if !is_lost(index) {
                self.arrive(&packet);
            }
            self.pass(20);
            said.push(packet);
        }
        said
    }

    /// Numbers that the publisher is asked for.
    fn asked(&mut self) -> BTreeSet<u16> {
        let compounds = self.world.take_rtcp(PUBLISHER);
        let nacks = |bytes: &Vec<u8>| {
            let packets = Compound::new(bytes).filter_map(Result::ok);
            let lost = packets.filter_map(|packet| match packet {
                RtcpPacket::Nack(nack) => Some(nack.lost().collect::<Vec<u16>>()),
                _ => None,
            });
            lost.flatten().collect::<Vec<u16>>()
        };
        compounds.iter().flat_map(nacks).collect()
    }
}

#[test]
fn red_goes_untouched_to_those_who_take_it_and_its_primaries_to_others() {
    let mut talk = Talk::new(2);
    let said = talk.say(100, |_| false);
    let sent: Vec<&[u8]> =
        said.iter().map(|packet| RtpView::parse(packet).unwrap().payload()).collect();
    let got: Vec<&[u8]> = talk.with_red.packets.values().map(|(_, _, it)| &it[..]).collect();
    assert_eq!(got, sent);
    assert_eq!(talk.with_red.frames(TAKEN_RED).len(), 100);
    assert_eq!(talk.without.frames(PLAIN_OPUS).len(), 100);
    assert!(talk.without.packets.values().all(|(_, _, payload)| payload.len() == 60));
    talk.with_red.check(OPUS);
    talk.without.check(PLAIN_OPUS);
    assert_eq!((talk.with_red.levels, talk.without.levels), (100, 100));
    assert_eq!(talk.world.sfu.stats().recovered, 0);
}

#[test]
fn what_the_publishers_network_loses_is_in_the_next_packet() {
    let mut talk = Talk::new(1);
    // Not the last one: nothing follows it.
    talk.say(500, |index| index % 5 == 3);
    assert_eq!(talk.world.sfu.stats().recovered, 100);
    assert_eq!(talk.world.sfu.stats().nacks_out, 0, "nothing has to be asked for");
    // The plain one has all, without a gap.
    let frames: Vec<u32> = talk.without.frames(PLAIN_OPUS).into_values().collect();
    assert_eq!(frames, (0..500).collect::<Vec<_>>());
    talk.without.check(PLAIN_OPUS);
    // The other could do with its RED packets, and has no gap either.
    let whole = talk.with_red.frames(TAKEN_RED);
    assert_eq!(whole.len(), 400);
    let inside: BTreeSet<u32> = talk
        .with_red
        .packets
        .values()
        .filter(|(_, payload_type, _)| *payload_type == TAKEN_RED)
        .flat_map(|(_, _, payload)| {
            let parsed = RedPayload::parse(payload).unwrap();
            let blocks: Vec<u32> =
                parsed.redundant().map(|block| Mark::parse(block.payload).frame).collect();
            blocks.into_iter().chain([Mark::parse(parsed.primary()).frame])
        })
        .collect();
    assert_eq!(inside, (0..500).collect());
    assert_eq!(talk.with_red.packets.len(), 500);
    talk.with_red.check(OPUS);
}

#[test]
fn what_redundancy_does_not_reach_is_asked_for() {
    let mut talk = Talk::new(1);
    talk.say(10, |_| false);
    talk.asked();
    let lost = talk.say(4, |index| index < 3);
    talk.pass(30);
    let numbers = |packets: &[Vec<u8>]| {
        packets.iter().map(|it| RtpView::parse(it).unwrap().sequence()).collect::<BTreeSet<_>>()
    };
    assert_eq!(talk.asked(), numbers(&lost[..2]), "the third was in the fourth");
    // The second comes, and the first in it.
    talk.arrive(&lost[1]);
    talk.arrive(&lost[0]);
    talk.say(10, |_| false);
    assert_eq!(talk.without.frames(PLAIN_OPUS).len(), 24);
    assert_eq!(talk.without.packets.len(), 24);
    talk.without.check(PLAIN_OPUS);
    talk.with_red.check(OPUS);
    let stats = talk.world.sfu.stats();
    assert_eq!((stats.recovered, stats.repaired, stats.drops.duplicate), (2, 1, 1));
}

#[test]
fn numbers_and_times_hold_whatever_the_network_does() {
    for seed in 1..=40 {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let mut talk = Talk::new(1 + seed as usize % 4);
        let mut held: VecDeque<Vec<u8>> = VecDeque::new();
        let mut complete = BTreeSet::new();
        for _ in 0..300 {
            let packet = match random.below(12) {
                0 => talk.microphone.plain(),
                _ => talk.microphone.packet(PACKET),
            };
            complete.insert(talk.microphone.encoder.frame - 1);
            match random.below(10) {
                0 | 1 => {}
                2 => held.push_back(packet),
                _ => talk.arrive(&packet),
            }
            if random.below(4) == 0
                && let Some(late) = held.pop_front()
            {
                talk.arrive(&late);
            }
            talk.pass(20);
        }
        talk.without.check(PLAIN_OPUS);
        talk.with_red.check(OPUS);
        let plain: BTreeSet<u32> = talk.without.frames(PLAIN_OPUS).into_values().collect();
        assert!(plain.is_subset(&complete));
        let mut either = talk.with_red.frames(TAKEN_RED);
        either.extend(talk.with_red.frames(OPUS));
        assert_eq!(plain, either.into_values().collect(), "both have the same packets");
        assert!(talk.world.sfu.stats().recovered > 20, "{:?}", talk.world.sfu.stats());
        let told = |event: &&SfuEvent| matches!(event, SfuEvent::TrackStarted { .. });
        assert_eq!(talk.world.events.iter().filter(told).count(), 1, "one codec, told once");
    }
}

#[test]
fn a_block_whose_time_does_not_fit_its_number_is_left_alone() {
    let mut talk = Talk::new(1);
    talk.say(10, |_| false);
    // A sender that repeats every second packet only: its block is two packets old.
    let (_, old) = talk.microphone.last[0].clone();
    talk.microphone.packet(PACKET);
    let mut packet = talk.microphone.packet(PACKET);
    let view = RtpView::parse(&packet).unwrap();
    let header_len = view.header_len();
    let primary = RedPayload::parse(view.payload()).unwrap().primary().to_vec();
    let block =
        RedundantBlock { payload_type: OPUS, timestamp_offset: 2 * PACKET as u16, payload: &old };
    let mut buffer = [0; 1_400];
    let len = red::write(&[block], (OPUS, &primary), &mut buffer).unwrap();
    packet.truncate(header_len);
    packet.extend(&buffer[..len]);
    talk.arrive(&packet);
    assert_eq!(talk.world.sfu.stats().recovered, 0);
    talk.without.check(PLAIN_OPUS);
}

#[test]
fn packets_that_are_no_red_reach_nobody() {
    let mut talk = Talk::new(1);
    talk.say(10, |_| false);
    let good = talk.microphone.packet(PACKET);
    let header_len = RtpView::parse(&good).unwrap().header_len();
    for payload in
        [&[0x80 | OPUS, 0, 0][..], &[0x80 | OPUS, 0, 0, 9, OPUS, 1], &[OPUS], &[96, 1, 2]]
    {
        let mut packet = good[..header_len].to_vec();
        packet.extend(payload);
        talk.arrive(&packet);
    }
    assert_eq!(talk.without.packets.len(), 10);
    assert_eq!(talk.with_red.packets.len(), 10);
    assert_eq!(talk.world.sfu.stats().drops.unreadable_descriptor, 4);
    talk.arrive(&good);
    assert_eq!(talk.without.packets.len(), 11, "and the place is free for the right one");
}

#[test]
fn sound_without_redundancy_goes_without_to_everybody() {
    let mut talk = Talk::new(1);
    talk.say(10, |_| false);
    for _ in 0..20 {
        let packet = talk.microphone.plain();
        talk.arrive(&packet);
        talk.pass(20);
    }
    talk.say(10, |_| false);
    assert_eq!(talk.with_red.frames(TAKEN_RED).len(), 20);
    assert_eq!(talk.with_red.frames(OPUS).len(), 20);
    assert_eq!(talk.without.frames(PLAIN_OPUS).len(), 40);
    talk.with_red.check(OPUS);
    talk.without.check(PLAIN_OPUS);
}

#[test]
fn what_a_subscriber_asks_for_again_is_what_it_was() {
    let mut talk = Talk::new(1);
    talk.say(30, |index| index == 20);
    for (subscriber, ssrc) in [(talk.capable, 5_000), (talk.plain, 6_000)] {
        let heard = if ssrc == 5_000 { &talk.with_red } else { &talk.without };
        let numbers: Vec<u16> =
            heard.packets.keys().map(|number| *number as u16).skip(18).collect();
        let mut buffer = [0; 400];
        let mut writer = CompoundWriter::new(&mut buffer);
        writer.nack(1, ssrc, numbers.iter().copied().take(6)).unwrap();
        let len = writer.finish();
        talk.world.rtcp(subscriber, &buffer[..len]);
        talk.world.drain();
    }
    let before = talk.world.sfu.stats().retransmissions_out;
    assert_eq!(before, 12);
    // Compared with what came first.
    talk.hear();
    assert_eq!((talk.with_red.packets.len(), talk.without.packets.len()), (30, 30));
}
