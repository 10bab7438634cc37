//! Layers inside of one encoding: temporal layers of VP8, spatial and temporal ones of
//! VP9 and AV1.

use headwater_model::media::{Codec, SubscriptionKey, SubscriptionTarget, TransportKey};

use crate::harness::publisher::{Encoder, delta, key};
use crate::harness::random::Random;
use crate::harness::subscriber::{Received, Receiver};
use crate::harness::{World, publication, subscription};

/// Temporal layers of successive pictures, as libvpx arranges three of them.
const PATTERN: [u8; 4] = [0, 2, 1, 2];

struct Stage {
    world: World,
    encoder: Encoder,
    receiver: Receiver,
    subscription: SubscriptionKey,
    at: usize,
}

const PUBLISHER: TransportKey = TransportKey(1);
const SUBSCRIBER: TransportKey = TransportKey(2);

impl Stage {
    fn new(codec: Codec, spatial_layers: u8) -> Self {
        let mut world = World::new();
        world.transport(PUBLISHER.0);
        world.transport(SUBSCRIBER.0);
        let track = world.publish(PUBLISHER, 1, &publication(codec, "0", &[]));
        let wanted = subscription(codec, 5_000);
        let subscription = world.subscribe(1, track, SUBSCRIBER, &wanted);
        let mut encoder = Encoder::new(codec, 0).with_mid("0");
        encoder.spatial_layers = spatial_layers;
        Self { world, encoder, receiver: Receiver::new(&wanted), subscription, at: 0 }
    }

    fn target(&mut self, spatial: u8, temporal: u8) {
        let target = SubscriptionTarget::UpTo { spatial, temporal };
        self.world.sfu.set_target(self.world.now, self.subscription, target).unwrap();
    }

    /// The next picture of the pattern, a keyframe if it was asked for.
    fn next(&mut self) -> Vec<Vec<u8>> {
        let asked = !self.world.take_rtcp(PUBLISHER).iter().all(|c| !is_pli(c));
        let first = self.at == 0;
        if asked {
            self.at = 0;
        }
        let layers = if self.encoder.codec == Codec::Av1 { 2 } else { 3 };
        let temporal = PATTERN[self.at % 4].min(layers - 1);
        self.at += 1;
        let picture = if asked || first { key(3) } else { delta(2, temporal) };
        self.encoder.picture(picture, 2_970)
    }

    fn pictures(&mut self, count: usize) {
        for _ in 0..count {
            let packets = self.next();
            self.world.batch(PUBLISHER, &packets);
            self.world.pass(33);
        }
        let packets = self.world.take_rtp(SUBSCRIBER);
        self.receiver.take_all(packets);
    }

    /// Highest layers among the last pictures.
    fn top(&self, pictures: usize) -> (u8, u8) {
        let ends: Vec<&Received> = self.receiver.packets().filter(|p| p.marker).collect();
        let last = &ends[ends.len() - pictures..];
        let spatial = last.iter().map(|packet| packet.spatial).max().unwrap();
        let temporal = last.iter().map(|packet| packet.temporal).max().unwrap();
        (spatial, temporal)
    }
}

fn is_pli(compound: &[u8]) -> bool {
    use headwater_rtp::rtcp::{Compound, RtcpPacket};
    Compound::new(compound).any(|p| matches!(p, Ok(RtcpPacket::PictureLossIndication(_))))
}

#[test]
fn temporal_layers_of_vp8_are_left_out_without_a_trace() {
    let mut stage = Stage::new(Codec::Vp8, 1);
    stage.pictures(40);
    assert_eq!(stage.top(8), (0, 2));
    for temporal in [0, 1, 2, 0, 2, 1] {
        stage.target(0, temporal);
        stage.pictures(40);
        assert_eq!(stage.top(8), (0, temporal));
    }
    stage.receiver.check();
    let keyframes = stage.world.sfu.stats().keyframe_requests_out;
    assert_eq!(keyframes, 0, "temporal layers need no keyframe");
}

#[test]
fn fewer_temporal_layers_are_fewer_packets() {
    let mut stage = Stage::new(Codec::Vp8, 1);
    stage.target(0, 0);
    stage.pictures(101);
    // A quarter of the pictures, of two packets each, and the keyframe of three.
    assert_eq!(stage.receiver.len(), 3 + 25 * 2);
    stage.receiver.check();
}

#[test]
fn temporal_layers_of_vp9_are_left_out() {
    let mut stage = Stage::new(Codec::Vp9, 1);
    stage.pictures(10);
    for temporal in [0, 2, 1, 2] {
        stage.target(0, temporal);
        stage.pictures(40);
        assert_eq!(stage.top(8), (0, temporal));
    }
    stage.receiver.check();
}

fn spatial_layers_follow_the_target(codec: Codec, layers: u8) {
    let mut stage = Stage::new(codec, layers);
    stage.pictures(10);
    assert_eq!(stage.top(4).0, layers - 1);
    for spatial in [0, layers - 1, 0, u8::MAX] {
        stage.target(spatial, u8::MAX);
        stage.pictures(60);
        assert_eq!(stage.top(4).0, spatial.min(layers - 1));
        // One end for each picture, and no layer above it.
        let ends = stage.receiver.packets().filter(|packet| packet.marker).count();
        let pictures = stage.encoder.frame as usize;
        assert_eq!(ends, pictures);
    }
    stage.receiver.check();
}

#[test]
fn spatial_layers_of_vp9_follow_the_target() {
    spatial_layers_follow_the_target(Codec::Vp9, 3);
}

#[test]
fn spatial_layers_of_av1_follow_the_target() {
    spatial_layers_follow_the_target(Codec::Av1, 2);
}

#[test]
fn temporal_layers_of_av1_are_left_out_and_come_back_without_a_keyframe() {
    let mut stage = Stage::new(Codec::Av1, 2);
    stage.pictures(10);
    for temporal in [0, 1, 0, 1] {
        stage.target(u8::MAX, temporal);
        stage.pictures(40);
        assert_eq!(stage.top(8), (1, temporal));
    }
    stage.receiver.check();
    assert_eq!(stage.world.sfu.stats().keyframe_requests_out, 0);
}

/// Packets come in disorder and some late, while layers are left out: no number may be
/// used twice, none may stay open once all have come.
#[test]
fn disorder_leaves_no_hole_while_layers_are_left_out() {
    let mut random = Random::new(11);
    for (codec, layers) in [(Codec::Vp8, 1), (Codec::Vp9, 3), (Codec::Av1, 2)] {
        let mut stage = Stage::new(codec, layers);
        stage.pictures(5);
        let mut late: Vec<(usize, Vec<u8>)> = Vec::new();
        for step in 0..400_usize {
            if step % 40 == 0 {
                stage.target(random.below(3) as u8, random.below(3) as u8);
            }
            let mut batch = Vec::new();
            for packet in stage.next() {
                if random.percent(15) {
                    late.push((step + random.below(6) as usize, packet));
                } else {
                    batch.push(packet);
                }
            }
            while let Some(index) = late.iter().position(|(due, _)| *due <= step) {
                batch.push(late.remove(index).1);
            }
            stage.world.batch(PUBLISHER, &batch);
            stage.world.pass(33);
        }
        let rest: Vec<_> = late.drain(..).map(|(_, packet)| packet).collect();
        stage.world.batch(PUBLISHER, &rest);
        let packets = stage.world.take_rtp(SUBSCRIBER);
        stage.receiver.take_all(packets);
        assert_eq!(stage.receiver.missing(), Vec::<u16>::new(), "{codec}");
        // In order of our numbers, time does not go back.
        let media: Vec<_> = stage.receiver.packets().filter(|p| p.mark.is_some()).collect();
        for pair in media.windows(2) {
            let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp).cast_signed();
            assert!(step >= 0, "{codec}: {:?} {:?}", pair[0], pair[1]);
        }
    }
}
