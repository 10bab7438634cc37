//! A wide network and a picture that is larger than what a network is taken for at first.

use headwater_model::media::Codec;

use crate::adaptation::{Viewer, pauses, watch};
use crate::harness::publisher::{Encoder, Picture};
use crate::harness::{World, publication};

#[test]
fn a_picture_larger_than_the_first_estimate_is_never_paused_on_a_wide_network() {
    let mut world = World::new();
    let publisher = world.transport(1);
    world.publish(publisher, 1, &publication(Codec::Vp8, "0", &[]));
    let mut viewer = Viewer::new(watch(&mut world, 1), 1_000_000_000);
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    for picture in 0..2_000 {
        let shape = Picture { key: picture == 0, packets: 3, temporal: 0, size: 1_160 };
        let packets = encoder.picture(shape, 900);
        world.batch(publisher, &packets);
        world.pass(10);
        viewer.take(&mut world);
        if picture % 10 == 9 {
            viewer.acknowledge(&mut world);
        }
    }
    assert_eq!(pauses(&mut world), []);
    let adaptation = world.sfu.stats().adaptation;
    assert_eq!(adaptation.limited_transports, 0, "a probe found that there is room");
    assert!((1..5).contains(&adaptation.probes), "{adaptation:?}");
}
