//! What subscribers get when their network does not take everything.

use std::time::Duration;

use headwater_model::Bitrate;
use headwater_model::media::{Codec, HeaderExtension, Prominence, TransportKey};
use headwater_rtp::rtcp::{Arrival, Compound, CompoundWriter, RtcpPacket, TransportFeedbackHead};
use headwater_rtp::{RtpView, SequenceUnwrapper};
use headwater_sfu::SfuEvent;

use crate::harness::publisher::{Encoder, Mark, Picture};
use crate::harness::{World, publication, subscriber_ids, subscription};

const RIDS: [&str; 3] = ["q", "h", "f"];
/// Packets and bytes of a picture of each encoding: about 130, 520 and 1,400 kbit/s.
const PICTURES: [(u8, usize); 3] = [(1, 500), (2, 950), (5, 1_050)];

/// A camera with three encodings that answers requests for keyframes.
struct Camera {
    transport: TransportKey,
    encoders: Vec<Encoder>,
    wants_key: [bool; 3],
}

impl Camera {
    fn new(transport: TransportKey, mid: &str) -> Self {
        let encoder = |index: u8| {
            let mut encoder =
                Encoder::new(Codec::Vp8, index).with_mid(mid).with_rid(RIDS[usize::from(index)]);
            encoder.ssrc += transport.0 * 100_000;
            encoder
        };
        Self { transport, encoders: (0..3).map(encoder).collect(), wants_key: [true; 3] }
    }

    fn picture(&mut self, world: &mut World) {
        for compound in world.take_rtcp(self.transport) {
            for packet in Compound::new(&compound) {
                if let Ok(RtcpPacket::PictureLossIndication(pli)) = packet {
                    let asked = self.encoders.iter().position(|one| one.ssrc == pli.media_ssrc);
                    self.wants_key[asked.unwrap()] = true;
                }
            }
        }
        let mut packets = Vec::new();
        for (index, encoder) in self.encoders.iter_mut().enumerate() {
            let (count, size) = PICTURES[index];
            let key = std::mem::take(&mut self.wants_key[index]);
            let picture = Picture { key, packets: count, temporal: 0, size };
            packets.extend(encoder.picture(picture, 2_970));
        }
        world.batch(self.transport, &packets);
    }
}

/// A subscriber behind a link with a queue, that acknowledges every 100 ms.
pub(crate) struct Viewer {
    pub(crate) transport: TransportKey,
    bps: u64,
    /// When the link has sent all that it has, since the start.
    free_at: Duration,
    unwrapper: SequenceUnwrapper,
    arrivals: Vec<Arrival>,
    told: u64,
    count: u8,
    /// Encodings of the pictures that came since the last look.
    seen: Vec<u8>,
    pub(crate) bytes: usize,
}

impl Viewer {
    pub(crate) fn new(transport: TransportKey, bps: u64) -> Self {
        Self {
            transport,
            bps,
            free_at: Duration::ZERO,
            unwrapper: SequenceUnwrapper::new(),
            arrivals: Vec::new(),
            told: 0,
            count: 0,
            seen: Vec::new(),
            bytes: 0,
        }
    }

    pub(crate) fn take(&mut self, world: &mut World) {
        let now = world.now - world.start;
        let id = subscriber_ids().get(HeaderExtension::TransportCc).unwrap();
        for packet in world.take_rtp(self.transport) {
            let view = RtpView::parse(&packet).unwrap();
            let number = view.extension(id).unwrap();
            let sequence = self.unwrapper.unwrap(u16::from_be_bytes([number[0], number[1]]));
            let bits = packet.len() as u64 * 8;
            self.free_at =
                self.free_at.max(now) + Duration::from_nanos(bits * 1_000_000_000 / self.bps);
            self.arrivals.push(Arrival { sequence, at: self.free_at });
            self.bytes += packet.len();
            // Behind the descriptor of VP8 and one byte of the picture.
            if view.ssrc() < 0x8000_0000 && view.payload().len() > 100 {
                self.seen.push(Mark::parse(&view.payload()[7..]).encoding);
            }
        }
    }

    pub(crate) fn acknowledge(&mut self, world: &mut World) {
        let now = world.now - world.start;
        let due = self.arrivals.partition_point(|arrival| arrival.at <= now);
        let due: Vec<Arrival> = self.arrivals.drain(..due).collect();
        let mut rest = due.as_slice();
        while let Some(first) = rest.first() {
            let mut buffer = [0; 1_200];
            let mut writer = CompoundWriter::new(&mut buffer);
            let head = TransportFeedbackHead {
                sender_ssrc: 1,
                media_ssrc: 5_000,
                feedback_count: self.count,
                base_sequence: if self.told == 0 { first.sequence } else { self.told },
            };
            let told = writer.transport_feedback(&head, rest).unwrap();
            let len = writer.finish();
            world.rtcp(self.transport, &buffer[..len]);
            self.count = self.count.wrapping_add(1);
            self.told = rest[told - 1].sequence + 1;
            rest = &rest[told..];
        }
        world.drain();
    }
}

/// Lets so many pictures pass; whoever watches acknowledges every third.
fn run(world: &mut World, cameras: &mut [Camera], viewer: &mut Viewer, pictures: usize) {
    for picture in 0..pictures {
        cameras.iter_mut().for_each(|camera| camera.picture(world));
        world.pass(33);
        viewer.take(world);
        if picture % 3 == 2 {
            viewer.acknowledge(world);
        }
    }
}

fn room(cameras: u32) -> (World, Vec<Camera>) {
    let mut world = World::new();
    let mut list = Vec::new();
    for index in 1..=cameras {
        let publisher = world.transport(index);
        world.publish(publisher, index, &publication(Codec::Vp8, "0", &RIDS));
        list.push(Camera::new(publisher, "0"));
    }
    (world, list)
}

pub(crate) fn watch(world: &mut World, cameras: u32) -> TransportKey {
    let subscriber = world.transport(100);
    for index in 1..=cameras {
        let track = headwater_model::media::TrackKey(index);
        world.subscribe(index, track, subscriber, &subscription(Codec::Vp8, 5_000 + index));
    }
    subscriber
}

pub(crate) fn pauses(world: &mut World) -> Vec<(u32, bool)> {
    let events = std::mem::take(&mut world.events);
    events
        .into_iter()
        .filter_map(|event| match event {
            SfuEvent::Paused { subscription, paused, .. } => Some((subscription.0, paused)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_limit_takes_the_larger_encodings_away_and_its_end_gives_them_back() {
    let (mut world, mut cameras) = room(1);
    let mut viewer = Viewer::new(watch(&mut world, 1), 100_000_000);
    run(&mut world, &mut cameras, &mut viewer, 90);
    assert_eq!(viewer.seen.last(), Some(&2));
    world.sfu.limit_downlink(viewer.transport, Some(Bitrate(200_000)));
    run(&mut world, &mut cameras, &mut viewer, 30);
    viewer.seen.clear();
    run(&mut world, &mut cameras, &mut viewer, 60);
    assert!(viewer.seen.iter().all(|encoding| *encoding == 0), "{:?}", viewer.seen);
    assert_eq!(world.sfu.stats().adaptation.limited_transports, 1);
    world.sfu.limit_downlink(viewer.transport, None);
    run(&mut world, &mut cameras, &mut viewer, 200);
    assert_eq!(viewer.seen.last(), Some(&2));
    assert_eq!(world.sfu.stats().adaptation.limited_transports, 0);
}

#[test]
fn what_does_not_fit_at_all_is_paused_with_a_notice_and_the_less_important_first() {
    let (mut world, mut cameras) = room(2);
    let mut viewer = Viewer::new(watch(&mut world, 2), 100_000_000);
    let second = headwater_model::media::SubscriptionKey(2);
    let first = Prominence { priority: 1, pixels: 0 };
    world.sfu.set_prominence(second, first).unwrap();
    run(&mut world, &mut cameras, &mut viewer, 90);
    assert_eq!(pauses(&mut world), []);
    world.sfu.limit_downlink(viewer.transport, Some(Bitrate(200_000)));
    run(&mut world, &mut cameras, &mut viewer, 150);
    assert_eq!(pauses(&mut world), [(1, true)]);
    world.sfu.limit_downlink(viewer.transport, Some(Bitrate(30_000)));
    run(&mut world, &mut cameras, &mut viewer, 150);
    assert_eq!(pauses(&mut world), [(2, true)]);
    assert_eq!(world.sfu.stats().adaptation.paused_subscriptions, 2);
    viewer.seen.clear();
    run(&mut world, &mut cameras, &mut viewer, 30);
    assert_eq!(viewer.seen, [], "nothing is sent of what is paused");
    world.sfu.limit_downlink(viewer.transport, None);
    run(&mut world, &mut cameras, &mut viewer, 300);
    let mut pauses = pauses(&mut world);
    pauses.sort_unstable();
    assert_eq!(pauses, [(1, false), (2, false)]);
    assert_eq!(world.sfu.stats().adaptation.paused_subscriptions, 0);
    world.sfu.remove_transport(viewer.transport);
    let adaptation = world.sfu.stats().adaptation;
    assert_eq!((adaptation.estimated_transports, adaptation.limited_transports), (0, 0));
}

#[test]
fn a_network_that_gets_narrow_gets_less_and_more_again_when_it_is_wide() {
    let (mut world, mut cameras) = room(1);
    let mut viewer = Viewer::new(watch(&mut world, 1), 3_000_000);
    run(&mut world, &mut cameras, &mut viewer, 150);
    assert_eq!(viewer.seen.last(), Some(&2));
    viewer.bps = 400_000;
    run(&mut world, &mut cameras, &mut viewer, 60);
    viewer.seen.clear();
    viewer.bytes = 0;
    run(&mut world, &mut cameras, &mut viewer, 300);
    assert!(viewer.seen.iter().all(|encoding| *encoding == 0), "{:?}", viewer.seen);
    assert!(viewer.bytes * 8 < 4_000_000, "{} bytes in 10 s", viewer.bytes);
    viewer.bps = 3_000_000;
    run(&mut world, &mut cameras, &mut viewer, 300);
    assert_eq!(viewer.seen.last(), Some(&2));
    let adaptation = world.sfu.stats().adaptation;
    assert!(adaptation.probes > 0 && adaptation.padding_bytes < 100_000, "{adaptation:?}");
    assert_eq!(adaptation.estimated_transports, 1);
}

#[test]
fn an_estimate_of_the_receiver_counts_where_there_is_no_better() {
    let (mut world, mut cameras) = room(1);
    let mut viewer = Viewer::new(watch(&mut world, 1), 100_000_000);
    for _ in 0..90 {
        cameras[0].picture(&mut world);
        world.pass(33);
    }
    let mut buffer = [0; 64];
    let mut writer = CompoundWriter::new(&mut buffer);
    writer.remb(1, 300_000, &[5_001]).unwrap();
    let len = writer.finish();
    world.rtcp(viewer.transport, &buffer[..len]);
    assert_eq!(world.sfu.estimate(viewer.transport), Some(Bitrate(300_000)));
    for _ in 0..60 {
        cameras[0].picture(&mut world);
        world.pass(33);
    }
    world.sent.rtp.clear();
    cameras[0].picture(&mut world);
    viewer.take(&mut world);
    assert_eq!(viewer.seen, [0]);
}
