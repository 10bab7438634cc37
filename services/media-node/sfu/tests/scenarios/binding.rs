//! Which track a packet belongs to, and what the subscriber sees of its header.

use headwater_model::media::{Codec, HeaderExtension};
use headwater_sfu::{SfuError, SfuEvent};

use crate::harness::publisher::{Encoder, delta, key};
use crate::harness::subscriber::Receiver;
use crate::harness::{World, mapping, publication, subscription};

#[test]
fn an_ssrc_of_the_sdp_needs_no_extensions() {
    let mut world = World::new();
    let (publisher, subscriber) = (world.transport(1), world.transport(2));
    let mut published = publication(Codec::Vp8, "0", &[]);
    published.encodings[0].ssrc = Some(1_000);
    let track = world.publish(publisher, 1, &published);
    world.publish(publisher, 2, &publication(Codec::Vp8, "1", &[]));
    let wanted = subscription(Codec::Vp8, 5_000);
    world.subscribe(1, track, subscriber, &wanted);
    let mut encoder = Encoder::new(Codec::Vp8, 0);
    world.batch(publisher, &encoder.picture(key(3), 3_000));
    assert_eq!(world.take_rtp(subscriber).len(), 3);
}

#[test]
fn a_payload_type_that_one_track_takes_is_enough() {
    let mut world = World::new();
    let (publisher, subscriber) = (world.transport(1), world.transport(2));
    let track = world.publish(publisher, 1, &publication(Codec::Vp8, "0", &[]));
    let mut audio = publication(Codec::Opus, "1", &[]);
    audio.codecs = vec![mapping(Codec::Opus, 111)];
    world.publish(publisher, 2, &audio);
    let wanted = subscription(Codec::Vp8, 5_000);
    world.subscribe(1, track, subscriber, &wanted);
    let mut encoder = Encoder::new(Codec::Vp8, 0);
    world.batch(publisher, &encoder.picture(key(3), 3_000));
    assert_eq!(world.take_rtp(subscriber).len(), 3);
    // Once a second track takes it, an SSRC that nobody knows is nobody's.
    world.publish(publisher, 3, &publication(Codec::Vp8, "2", &[]));
    let mut stranger = Encoder::new(Codec::Vp8, 3);
    world.batch(publisher, &stranger.picture(key(3), 3_000));
    assert_eq!(world.take_rtp(subscriber).len(), 0);
    assert_eq!(world.sfu.stats().drops.unknown_stream, 3);
}

#[test]
fn mid_and_rid_are_needed_only_at_first() {
    let mut world = World::new();
    let (publisher, subscriber) = (world.transport(1), world.transport(2));
    let track = world.publish(publisher, 1, &publication(Codec::Vp8, "0", &["q", "h"]));
    let wanted = subscription(Codec::Vp8, 5_000);
    world.subscribe(1, track, subscriber, &wanted);
    let mut high = Encoder::new(Codec::Vp8, 1).with_mid("0").with_rid("h");
    world.batch(publisher, &high.picture(key(3), 3_000));
    (high.mid, high.rid) = (None, None);
    world.batch(publisher, &high.picture(delta(2, 0), 3_000));
    assert_eq!(world.take_rtp(subscriber).len(), 5);
    let started = SfuEvent::TrackStarted { track, codec: Codec::Vp8, encodings_seen: 0b10 };
    assert!(world.events.contains(&started));
}

#[test]
fn nothing_of_the_publishers_header_reaches_the_subscriber_but_what_travels_on() {
    let mut world = World::new();
    let (publisher, subscriber) = (world.transport(1), world.transport(2));
    let track = world.publish(publisher, 1, &publication(Codec::Opus, "0", &[]));
    let wanted = subscription(Codec::Opus, 5_042);
    world.subscribe(1, track, subscriber, &wanted);
    let mut encoder = Encoder::new(Codec::Opus, 0).with_mid("0").with_rid("x");
    encoder.level = Some(33);
    world.batch(publisher, &encoder.picture(delta(1, 0), 960));
    let mut receiver = Receiver::new(&wanted);
    receiver.take_all(world.take_rtp(subscriber));
    let packet = receiver.packets().next().unwrap();
    assert_eq!(packet.extensions[1], (HeaderExtension::AudioLevel, vec![0x80 | 33]));
    assert_eq!(packet.extensions[0].0, HeaderExtension::AbsSendTime);
    assert_eq!(packet.extensions.len(), 2);
    assert_eq!(packet.payload.len(), 60);
}

#[test]
fn two_byte_extensions_are_used_where_an_id_needs_them() {
    let mut world = World::new();
    let (publisher, subscriber) = (world.transport(1), world.transport(2));
    let track = world.publish(publisher, 1, &publication(Codec::Opus, "0", &[]));
    let mut wanted = subscription(Codec::Opus, 5_000);
    wanted.extensions.set(HeaderExtension::Mid, 77);
    world.subscribe(1, track, subscriber, &wanted);
    let mut encoder = Encoder::new(Codec::Opus, 0).with_mid("0");
    world.batch(publisher, &encoder.picture(delta(1, 0), 960));
    let mut receiver = Receiver::new(&wanted);
    receiver.take_all(world.take_rtp(subscriber));
    assert_eq!(receiver.len(), 1);
}

#[test]
fn a_codec_that_the_subscriber_does_not_take_is_a_counted_drop() {
    let mut world = World::new();
    let (publisher, subscriber) = (world.transport(1), world.transport(2));
    let track = world.publish(publisher, 1, &publication(Codec::Vp8, "0", &[]));
    world.subscribe(1, track, subscriber, &subscription(Codec::H264, 5_000));
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    world.batch(publisher, &encoder.picture(key(3), 3_000));
    assert_eq!(world.take_rtp(subscriber).len(), 0);
    assert_eq!(world.sfu.stats().drops.unsupported_codec, 3);
}

#[test]
fn another_ssrc_of_an_encoding_is_a_new_beginning_of_the_same_stream() {
    let mut world = World::new();
    let (publisher, subscriber) = (world.transport(1), world.transport(2));
    let track = world.publish(publisher, 1, &publication(Codec::Vp8, "0", &["q"]));
    let wanted = subscription(Codec::Vp8, 5_000);
    world.subscribe(1, track, subscriber, &wanted);
    let mut first = Encoder::new(Codec::Vp8, 0).with_mid("0").with_rid("q");
    let mut second = Encoder::new(Codec::Vp8, 2).with_mid("0").with_rid("q");
    world.batch(publisher, &first.picture(key(3), 3_000));
    for _ in 0..20 {
        world.batch(publisher, &first.picture(delta(2, 0), 3_000));
        world.pass(33);
    }
    world.batch(publisher, &second.picture(key(3), 3_000));
    for _ in 0..20 {
        world.pass(33);
        world.batch(publisher, &second.picture(delta(2, 0), 3_000));
    }
    let mut receiver = Receiver::new(&wanted);
    receiver.take_all(world.take_rtp(subscriber));
    receiver.check();
    assert_eq!(receiver.encodings(), [0, 2]);
    assert_eq!(receiver.len(), 2 * 3 + 40 * 2);
}

#[test]
fn renegotiation_keeps_a_running_stream() {
    let mut world = World::new();
    let (publisher, subscriber) = (world.transport(1), world.transport(2));
    let mut published = publication(Codec::Vp8, "0", &["q"]);
    let track = world.publish(publisher, 1, &published);
    let mut wanted = subscription(Codec::Vp8, 5_000);
    let key_ = world.subscribe(1, track, subscriber, &wanted);
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0").with_rid("q");
    world.batch(publisher, &encoder.picture(key(3), 3_000));
    published.codecs.push(mapping(Codec::H264, 98));
    world.publish(publisher, 1, &published);
    wanted.extensions.set(HeaderExtension::PlayoutDelay, 0);
    world.sfu.subscribe(world.now, key_, track, subscriber, wanted.clone()).unwrap();
    for _ in 0..20 {
        world.pass(33);
        world.batch(publisher, &encoder.picture(delta(2, 0), 3_000));
    }
    let mut receiver = Receiver::new(&wanted);
    receiver.take_all(world.take_rtp(subscriber));
    receiver.check();
    assert_eq!(receiver.len(), 43);
}

#[test]
fn commands_that_make_no_sense_are_refused() {
    let mut world = World::new();
    let (publisher, subscriber) = (world.transport(1), world.transport(2));
    let published = publication(Codec::Vp8, "0", &[]);
    let track = world.publish(publisher, 1, &published);
    let wanted = subscription(Codec::Vp8, 5_000);
    let subscription = world.subscribe(1, track, subscriber, &wanted);
    let now = world.now;
    let sfu = &mut world.sfu;
    assert_eq!(sfu.add_transport(publisher), Err(SfuError::TransportExists(publisher)));
    let foreign = sfu.publish(now, subscriber, track, published.clone());
    assert_eq!(foreign, Err(SfuError::ForeignTrack(track)));
    let other = headwater_model::media::SubscriptionKey(2);
    let again = sfu.subscribe(now, other, track, subscriber, wanted.clone());
    assert_eq!(again, Err(SfuError::SsrcInUse { transport: subscriber, ssrc: 5_000 }));
    let moved = sfu.subscribe(now, subscription, track, publisher, wanted.clone());
    assert_eq!(moved, Err(SfuError::ForeignSubscription(subscription)));
    let gone = headwater_model::media::TrackKey(9);
    let lost = sfu.subscribe(now, other, gone, subscriber, wanted);
    assert_eq!(lost, Err(SfuError::UnknownTrack(gone)));
    let mut empty = published;
    empty.encodings.clear();
    assert_eq!(sfu.publish(now, publisher, gone, empty), Err(SfuError::Shape));
}

#[test]
fn what_is_removed_is_gone() {
    let mut world = World::new();
    let (publisher, subscriber) = (world.transport(1), world.transport(2));
    for round in 0..3 {
        let track = world.publish(publisher, round, &publication(Codec::Vp8, "0", &[]));
        let wanted = subscription(Codec::Vp8, 5_000 + round);
        let key_ = world.subscribe(round, track, subscriber, &wanted);
        let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
        world.batch(publisher, &encoder.picture(key(3), 3_000));
        assert_eq!(world.take_rtp(subscriber).len(), 3);
        let packets = encoder.picture(delta(2, 0), 3_000);
        for packet in &packets {
            world.rtp(publisher, packet);
        }
        match round {
            0 => world.sfu.unsubscribe(key_),
            1 => world.sfu.unpublish(track),
            _ => world.sfu.remove_transport(subscriber),
        }
        world.drain();
        world.pass(10_000);
        assert_eq!(world.take_rtp(subscriber).len(), 0);
        world.sfu.unpublish(track);
    }
}

#[test]
fn a_codec_that_the_subscriber_does_not_take_leaves_no_gap_and_asks_for_nothing() {
    let mut world = World::new();
    let (publisher, subscriber) = (world.transport(1), world.transport(2));
    let mut published = publication(Codec::Vp8, "0", &[]);
    published.codecs.push(mapping(Codec::H264, 98));
    let track = world.publish(publisher, 1, &published);
    let wanted = subscription(Codec::Vp8, 5_000);
    world.subscribe(1, track, subscriber, &wanted);
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    for round in 0..5 {
        let taken = round % 2 == 0;
        encoder.codec = if taken { Codec::Vp8 } else { Codec::H264 };
        encoder.payload_type = if taken { 96 } else { 98 };
        let before = world.sfu.stats().keyframe_requests_out;
        world.batch(publisher, &encoder.picture(key(3), 2_970));
        for _ in 0..60 {
            world.pass(33);
            world.batch(publisher, &encoder.picture(delta(2, 0), 2_970));
        }
        if !taken {
            assert_eq!(world.sfu.stats().keyframe_requests_out, before);
        }
    }
    let mut receiver = Receiver::new(&wanted);
    receiver.take_all(world.take_rtp(subscriber));
    receiver.check();
    assert_eq!(receiver.len(), 3 * (3 + 60 * 2));
}

#[test]
fn what_was_sent_before_renegotiation_is_not_repeated_with_another_header() {
    let mut world = World::new();
    let (publisher, subscriber) = (world.transport(1), world.transport(2));
    let track = world.publish(publisher, 1, &publication(Codec::Vp8, "0", &[]));
    let mut wanted = subscription(Codec::Vp8, 5_000);
    wanted.rtx_ssrc = None;
    let key_ = world.subscribe(1, track, subscriber, &wanted);
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    world.batch(publisher, &encoder.picture(key(3), 2_970));
    let mut receiver = Receiver::new(&wanted);
    let packets = world.take_rtp(subscriber);
    receiver.take_all(packets.clone());
    let last = receiver.last().unwrap().sequence as u16;
    world.rtcp(subscriber, &receiver.nack_for(&[last]));
    world.drain();
    assert_eq!(world.take_rtp(subscriber), packets[2..]);
    wanted.mid = "renamed".to_owned();
    world.sfu.subscribe(world.now, key_, track, subscriber, wanted.clone()).unwrap();
    world.pass(500);
    world.rtcp(subscriber, &receiver.nack_for(&[last]));
    world.drain();
    assert_eq!(world.take_rtp(subscriber).len(), 0);
}
