//! Lost packets: asked for from publishers, repeated to subscribers, within bounds.

use std::collections::BTreeMap;

use headwater_model::media::{Codec, TransportKey};
use headwater_rtp::rtcp::{Compound, RtcpPacket};
use headwater_rtp::{RtpView, rtx};

use crate::harness::publisher::{Encoder, delta, key};
use crate::harness::random::Random;
use crate::harness::subscriber::Receiver;
use crate::harness::{World, publication, subscription};

const PUBLISHER: TransportKey = TransportKey(1);
const SUBSCRIBER: TransportKey = TransportKey(2);

fn nacked(world: &mut World) -> Vec<u16> {
    let compounds = world.take_rtcp(PUBLISHER);
    let mut list = Vec::new();
    for compound in &compounds {
        for packet in Compound::new(compound) {
            if let Ok(RtcpPacket::Nack(nack)) = packet {
                list.extend(nack.lost());
            }
        }
    }
    list
}

/// Packets under way: by the time they arrive and in order of sending.
#[derive(Default)]
struct Wire {
    packets: BTreeMap<(u64, u64), Vec<u8>>,
    count: u64,
}

impl Wire {
    /// Sends with a delay of 20 ms, now and then of 45, and loses some percent.
    fn send(&mut self, random: &mut Random, now: u64, loss: u64, packet: Vec<u8>) {
        if random.percent(loss) {
            return;
        }
        let delay = if random.percent(3) { 45 } else { 20 };
        self.count += 1;
        self.packets.insert((now + delay, self.count), packet);
    }

    fn arrived(&mut self, now: u64) -> Vec<Vec<u8>> {
        let later = self.packets.split_off(&(now + 1, 0));
        std::mem::replace(&mut self.packets, later).into_values().collect()
    }
}

/// A minute of video over two lossy ways, with retransmission on both. In the end
/// everything came, in order, once.
fn loss_is_repaired(codec: Codec, rtx_down: bool) {
    let mut random = Random::new(1_234 + codec as u64);
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    world.transport(SUBSCRIBER.0);
    let track = world.publish(PUBLISHER, 1, &publication(codec, "0", &[]));
    let mut wanted = subscription(codec, 5_000);
    if !rtx_down {
        wanted.rtx_ssrc = None;
    }
    world.subscribe(1, track, SUBSCRIBER, &wanted);
    let mut encoder = Encoder::new(codec, 0).with_mid("0");
    let mut receiver = Receiver::new(&wanted);
    let (mut up, mut up_back, mut down, mut down_back) =
        (Wire::default(), Wire::default(), Wire::default(), Wire::default());
    const END: u64 = 60_000;
    for now in 0..END + 2_000 {
        let loss = if now < END { 5 } else { 0 };
        if now % 33 == 0 && now < END {
            let picture = if now == 0 { key(5) } else { delta(3, 0) };
            for packet in encoder.picture(picture, 2_970) {
                // The first packets arrive, so that there is a beginning.
                up.send(&mut random, now, if now == 0 { 0 } else { loss }, packet);
            }
        }
        for packet in up.arrived(now) {
            world.rtp(PUBLISHER, &packet);
        }
        for packet in down_back.arrived(now) {
            world.rtcp(SUBSCRIBER, &packet);
        }
        world.drain();
        world.pass(1);
        for packet in world.take_rtcp(PUBLISHER) {
            up_back.send(&mut random, now, loss, packet);
        }
        for compound in up_back.arrived(now) {
            for packet in Compound::new(&compound) {
                if let Ok(RtcpPacket::Nack(nack)) = packet {
                    for sequence in nack.lost() {
                        if let Some(packet) = encoder.resend(sequence) {
                            up.send(&mut random, now, loss, packet);
                        }
                    }
                }
            }
        }
        for packet in world.take_rtp(SUBSCRIBER) {
            down.send(&mut random, now, loss, packet);
        }
        receiver.take_all(down.arrived(now));
        if now % 40 == 0
            && let Some(nack) = receiver.nack()
        {
            down_back.send(&mut random, now, loss, nack);
        }
    }
    receiver.check();
    let sent = END.div_ceil(33) as usize * 3 + 2;
    assert_eq!(receiver.len(), sent, "packets that were sent and that came");
    let stats = world.sfu.stats();
    assert!(stats.repaired > 100 && stats.retransmissions_out > 100, "{stats:?}");
    assert_eq!(stats.lost, 0);
    // Each packet was lost with 5 %; asking twice as often as that would be a storm.
    assert!(stats.nacks_out < sent as u64 / 5, "{}", stats.nacks_out);
}

#[test]
fn loss_of_vp8_is_repaired() {
    loss_is_repaired(Codec::Vp8, true);
}

#[test]
fn loss_of_h264_is_repaired() {
    loss_is_repaired(Codec::H264, true);
}

#[test]
fn loss_is_repaired_without_rtx_by_the_same_bytes() {
    // The receiver refuses two different packets with one sequence number.
    loss_is_repaired(Codec::Vp8, false);
}

#[test]
fn padding_is_invisible_even_when_it_comes_late() {
    let mut random = Random::new(77);
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    world.transport(SUBSCRIBER.0);
    let track = world.publish(PUBLISHER, 1, &publication(Codec::Vp8, "0", &[]));
    let wanted = subscription(Codec::Vp8, 5_000);
    world.subscribe(1, track, SUBSCRIBER, &wanted);
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    let mut receiver = Receiver::new(&wanted);
    let mut late: Vec<Vec<u8>> = Vec::new();
    let mut media = 0;
    world.batch(PUBLISHER, &encoder.picture(key(3), 3_000));
    for _ in 0..1_000 {
        let mut batch = encoder.picture(delta(2, 0), 3_000);
        media += batch.len();
        for _ in 0..random.below(20) {
            batch.push(encoder.padding());
        }
        let mut now_late = Vec::new();
        for packet in batch {
            if random.percent(10) { now_late.push(packet) } else { world.rtp(PUBLISHER, &packet) }
        }
        for packet in late.drain(..) {
            world.rtp(PUBLISHER, &packet);
        }
        late = now_late;
        world.drain();
        world.pass(5);
    }
    world.batch(PUBLISHER, &late);
    receiver.take_all(world.take_rtp(SUBSCRIBER));
    assert_eq!(receiver.missing(), Vec::<u16>::new());
    let seen = receiver.packets().filter(|packet| packet.mark.is_some()).count();
    assert_eq!(seen, media + 3);
    let padding = receiver.len() - seen;
    assert!(padding < 2_000, "{padding} of about 9,500 paddings, the late ones, were passed on");
    assert!(padding > 0);
}

#[test]
fn bandwidth_probes_on_the_rtx_stream_are_dropped() {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    world.transport(SUBSCRIBER.0);
    let track = world.publish(PUBLISHER, 1, &publication(Codec::Vp8, "0", &[]));
    world.subscribe(1, track, SUBSCRIBER, &subscription(Codec::Vp8, 5_000));
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    let first = encoder.sequence;
    world.batch(PUBLISHER, &encoder.picture(key(3), 3_000));
    let repeated = encoder.resend(first).unwrap();
    world.batch(PUBLISHER, &[repeated]);
    let mut probe = Encoder::new(Codec::Vp8, 0).with_mid("0");
    probe.payload_type = 97;
    probe.ssrc = probe.rtx_ssrc;
    let padding = probe.padding();
    world.batch(PUBLISHER, &[padding]);
    assert_eq!(world.take_rtp(SUBSCRIBER).len(), 3);
    assert_eq!(world.sfu.stats().drops.duplicate, 1);
    assert_eq!(world.sfu.stats().drops.padding, 1);
}

#[test]
fn what_is_missing_is_asked_for_a_few_times_and_then_a_keyframe() {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    world.transport(SUBSCRIBER.0);
    let track = world.publish(PUBLISHER, 1, &publication(Codec::Vp8, "0", &[]));
    world.subscribe(1, track, SUBSCRIBER, &subscription(Codec::Vp8, 5_000));
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    world.batch(PUBLISHER, &encoder.picture(key(3), 3_000));
    let lost = encoder.sequence;
    encoder.picture(delta(1, 0), 3_000);
    world.batch(PUBLISHER, &encoder.picture(delta(2, 0), 3_000));
    nacked(&mut world);
    let mut asked = 0;
    let before = world.sfu.stats().keyframe_requests_out;
    for _ in 0..500 {
        world.pass(20);
        let list = nacked(&mut world);
        assert!(list.iter().all(|sequence| *sequence == lost));
        asked += list.len();
    }
    assert_eq!(asked, 6);
    let stats = world.sfu.stats();
    assert_eq!((stats.nacks_out, stats.lost), (6, 1));
    assert_eq!(stats.keyframe_requests_out, before + 1);
}

#[test]
fn a_subscriber_that_asks_for_everything_all_the_time_gets_a_bounded_part() {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    world.transport(SUBSCRIBER.0);
    let track = world.publish(PUBLISHER, 1, &publication(Codec::Vp8, "0", &[]));
    let wanted = subscription(Codec::Vp8, 5_000);
    world.subscribe(1, track, SUBSCRIBER, &wanted);
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    let receiver = Receiver::new(&wanted);
    let (mut media, mut repeated) = (0_usize, 0_usize);
    let mut newest = 0_u16;
    for frame in 0..200 {
        let mut picture = if frame == 0 { key(3) } else { delta(3, 0) };
        picture.size = 1_100;
        world.batch(PUBLISHER, &encoder.picture(picture, 3_000));
        // All there ever was, a hundred times a second, in the order of the newest.
        for round in 0..3 {
            let all: Vec<u16> = (0..8_192).map(|back| newest.wrapping_sub(back)).collect();
            for part in all.chunks(128).take(if round == 0 { 64 } else { 4 }) {
                let mut part = part.to_vec();
                part.reverse();
                world.rtcp(SUBSCRIBER, &receiver.nack_for(&part));
            }
        }
        world.drain();
        world.pass(33);
        for packet in world.take_rtp(SUBSCRIBER) {
            let view = RtpView::parse(&packet).unwrap();
            if view.ssrc() == 5_000 {
                newest = view.sequence();
                media += packet.len();
            } else {
                repeated += packet.len();
            }
        }
    }
    assert!(media > 600 * 1_100);
    assert!(repeated < media / 2 + 160_000, "{repeated} bytes repeated of {media}");
    let drops = world.sfu.stats().drops;
    assert!(drops.feedback_flood > 0 && drops.retransmission_gone > 0, "{drops:?}");
    assert!(drops.retransmission_budget > 0 && drops.retransmission_repeated > 0, "{drops:?}");
}

#[test]
fn a_retransmission_has_its_own_numbers_and_the_original_inside() {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    world.transport(SUBSCRIBER.0);
    let track = world.publish(PUBLISHER, 1, &publication(Codec::Vp8, "0", &[]));
    let wanted = subscription(Codec::Vp8, 5_000);
    world.subscribe(1, track, SUBSCRIBER, &wanted);
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    world.batch(PUBLISHER, &encoder.picture(key(3), 3_000));
    let originals = world.take_rtp(SUBSCRIBER);
    let original = RtpView::parse(&originals[1]).unwrap();
    let nack = Receiver::new(&wanted).nack_for(&[original.sequence()]);
    // Twice at once is once; again after a round trip is again.
    world.rtcp(SUBSCRIBER, &nack);
    world.rtcp(SUBSCRIBER, &nack);
    world.drain();
    world.pass(200);
    world.rtcp(SUBSCRIBER, &nack);
    world.drain();
    let repeated = world.take_rtp(SUBSCRIBER);
    assert_eq!(repeated.len(), 2);
    let views: Vec<_> = repeated.iter().map(|packet| RtpView::parse(packet).unwrap()).collect();
    for view in &views {
        assert_eq!(view.ssrc(), 5_000 + 0x8000_0000);
        assert_eq!(view.payload_type(), 102);
        assert_eq!(view.timestamp(), original.timestamp());
        assert_eq!(rtx::parse(view.payload()), Some((original.sequence(), original.payload())));
    }
    assert_eq!(views[1].sequence(), views[0].sequence().wrapping_add(1));
    assert_eq!(world.sfu.stats().drops.retransmission_repeated, 1);
}

#[test]
fn duplicates_are_forwarded_once() {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    world.transport(SUBSCRIBER.0);
    let track = world.publish(PUBLISHER, 1, &publication(Codec::Opus, "0", &[]));
    world.subscribe(1, track, SUBSCRIBER, &subscription(Codec::Opus, 5_000));
    let mut encoder = Encoder::new(Codec::Opus, 0).with_mid("0");
    for _ in 0..50 {
        let packet = encoder.picture(delta(1, 0), 960);
        world.batch(PUBLISHER, &packet);
        world.batch(PUBLISHER, &packet);
    }
    assert_eq!(world.take_rtp(SUBSCRIBER).len(), 50);
    assert_eq!(world.sfu.stats().drops.duplicate, 50);
}
