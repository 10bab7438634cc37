//! What happens when shards die or plans change.

use std::time::{Duration, Instant};

use headwater_model::media::{Codec, TransportKey};
use headwater_relay::RelayEvent;

use crate::cluster::{Cluster, Shard, address};
use crate::harness::publication;
use crate::harness::publisher::{Encoder, Picture, delta, key};
use crate::wire::Quality;

fn send(
    cluster: &mut Cluster,
    publisher: (&str, TransportKey),
    encoder: &mut Encoder,
    frames: u32,
) {
    for _ in 0..frames {
        let picture = if encoder.frame.is_multiple_of(90) { key(4) } else { delta(3, 0) };
        let made = encoder.picture(Picture { size: 900, ..picture }, 3_000);
        cluster.rtp(publisher.0, publisher.1, &made);
        cluster.pass(33);
    }
}

/// The longest time without a packet since an instant.
fn longest_gap(shard: &Shard, viewer: TransportKey, since: Instant) -> Duration {
    let arrivals = &shard.viewer(viewer).arrivals;
    let after: Vec<_> = arrivals.iter().filter(|at| **at >= since).collect();
    after.windows(2).map(|pair| *pair[1] - *pair[0]).max().unwrap()
}

#[test]
fn children_of_a_dead_relay_go_on_from_their_backup_without_asking() {
    let mut gaps = Vec::new();
    for phase in 0..10 {
        let mut cluster = Cluster::new(&["a", "b", "c", "d"]);
        cluster.plan(
            1,
            &[
                ("a", None, &[]),
                ("b", Some("a"), &[]),
                ("c", Some("a"), &[]),
                ("d", Some("b"), &["c"]),
            ],
        );
        cluster.wires.lock().unwrap().quality =
            Quality { delay: Duration::from_millis(5), loss: 0 };
        let now = cluster.now;
        let (publisher, _) =
            cluster.shard("a").publish(now, "TR_1", 1, &publication(Codec::Vp8, "0", &[]));
        cluster.pass(200);
        let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
        let now = cluster.now;
        let track = cluster.shard("d").track("TR_1");
        let viewer = cluster.shard("d").view(now, track, Codec::Vp8);
        send(&mut cluster, ("a", publisher), &mut encoder, 100);
        cluster.pass(phase * 10);
        cluster.kill("b");
        let killed = cluster.now;
        send(&mut cluster, ("a", publisher), &mut encoder, 90);
        let shard = cluster.shard("d");
        shard.viewer(viewer).receiver.check();
        let last = shard.viewer(viewer).receiver.last().and_then(|packet| packet.mark).unwrap();
        assert_eq!(last.frame, encoder.frame - 1);
        let reparented = shard.events.iter().any(|(_, event)| {
            *event == RelayEvent::Reparented { from: Some(address("b")), to: Some(address("c")) }
        });
        assert!(reparented);
        gaps.push(longest_gap(shard, viewer, killed - Duration::from_millis(50)));
    }
    gaps.sort_unstable();
    println!("media gap at death of a relay: {gaps:?}");
    assert!(gaps[9] < Duration::from_millis(500), "{gaps:?}");
}

#[test]
fn a_planned_change_of_parent_leaves_no_gap() {
    let mut cluster = Cluster::new(&["a", "b", "c", "d"]);
    cluster.plan(
        1,
        &[("a", None, &[]), ("b", Some("a"), &[]), ("c", Some("a"), &[]), ("d", Some("b"), &["c"])],
    );
    let now = cluster.now;
    let (publisher, _) =
        cluster.shard("a").publish(now, "TR_1", 1, &publication(Codec::Vp8, "0", &[]));
    cluster.pass(50);
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    let now = cluster.now;
    let track = cluster.shard("d").track("TR_1");
    let viewer = cluster.shard("d").view(now, track, Codec::Vp8);
    send(&mut cluster, ("a", publisher), &mut encoder, 100);
    let changed = cluster.now;
    // B is to be drained: it is in the plan no more.
    cluster.plan(2, &[("a", None, &[]), ("c", Some("a"), &[]), ("d", Some("c"), &[])]);
    send(&mut cluster, ("a", publisher), &mut encoder, 150);
    let shard = cluster.shard("d");
    assert_eq!(
        shard.relay.junction(&crate::cluster::room()).unwrap().active_parent(),
        Some(&address("c"))
    );
    shard.viewer(viewer).receiver.check();
    let gap = longest_gap(shard, viewer, changed);
    println!("media gap at a planned change: {gap:?}");
    assert!(gap <= Duration::from_millis(40), "{gap:?}");
    let peers: Vec<_> = shard.relay.reports().into_iter().map(|report| report.peer).collect();
    assert_eq!(peers, [address("c")], "the old link is let go");
}

#[test]
fn a_shard_that_begins_anew_is_taken_back() {
    let mut cluster = Cluster::new(&["a", "b"]);
    let plan: [(&str, Option<&str>, &[&str]); 2] = [("a", None, &[]), ("b", Some("a"), &[])];
    cluster.plan(1, &plan);
    let now = cluster.now;
    let (publisher, _) =
        cluster.shard("a").publish(now, "TR_1", 1, &publication(Codec::Vp8, "0", &[]));
    cluster.pass(50);
    cluster.kill("b");
    cluster.pass(1_000);
    cluster.wires.lock().unwrap().dead.clear();
    cluster.start("b");
    cluster.plan(1, &plan);
    cluster.pass(100);
    let now = cluster.now;
    let track = cluster.shard("b").track("TR_1");
    let viewer = cluster.shard("b").view(now, track, Codec::Vp8);
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    send(&mut cluster, ("a", publisher), &mut encoder, 30);
    cluster.shard("b").viewer(viewer).receiver.check();
    assert!(cluster.shard("b").viewer(viewer).receiver.len() > 60);
}

#[test]
fn a_publisher_that_moved_replaces_its_former_self() {
    let mut cluster = Cluster::new(&["a", "b", "c"]);
    cluster.plan(1, &[("a", None, &[]), ("b", Some("a"), &[]), ("c", Some("a"), &[])]);
    cluster.pass(50);
    let now = cluster.now;
    let publication = publication(Codec::Vp8, "0", &[]);
    let (old, _) = cluster.shard("b").publish(now, "TR_1", 1, &publication);
    cluster.pass(50);
    let mut before = Encoder::new(Codec::Vp8, 0).with_mid("0");
    send(&mut cluster, ("b", old), &mut before, 20);
    // The same track begins on C while B still sends.
    let now = cluster.now;
    if let Some(stale) =
        cluster.shard("c").tracks.remove(&headwater_model::TrackUid::from_raw("TR_1"))
    {
        let shard = cluster.shard("c");
        shard.relay.detach(now, stale, &mut shard.sfu);
    }
    let (new, _) = cluster.shard("c").publish(now, "TR_1", 2, &publication);
    cluster.pass(50);
    let now = cluster.now;
    let track = cluster.shard("a").track("TR_1");
    let viewer = cluster.shard("a").view(now, track, Codec::Vp8);
    let mut after = Encoder::new(Codec::Vp8, 0).with_mid("0");
    after.frame = 90_000;
    for _ in 0..40 {
        let stale = before.picture(delta(3, 0), 3_000);
        cluster.rtp("b", old, &stale);
        send(&mut cluster, ("c", new), &mut after, 1);
    }
    let shard = cluster.shard("a");
    let receiver = &shard.viewer(viewer).receiver;
    assert!(receiver.len() > 60);
    let frames = receiver.packets().filter_map(|packet| packet.mark).map(|mark| mark.frame);
    assert!(frames.into_iter().all(|frame| frame >= 90_000), "nothing stale was mixed in");
}
