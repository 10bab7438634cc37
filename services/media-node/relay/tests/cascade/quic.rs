//! Nodes joined by QUIC over loopback, in real time.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_model::media::{Codec, TransportKey};
use headwater_relay::{
    Inbox, Peer, Phase, PlanSlice, QuicConfig, QuicCounters, QuicLinks, Switchboard, Wake, Wiring,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::runtime::{Builder, Runtime};

use crate::cluster::{Place, Shard, address, room, slices};
use crate::harness::publication;
use crate::harness::publisher::{Encoder, Picture, delta, key};

const NAME: &str = "relay.test";

/// An authority and what it signs.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn config(&self) -> QuicConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        QuicConfig {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            roots_pem: self.pem.clone().into_bytes(),
            certificate_pem: certificate.pem().into_bytes(),
            key_pem: key.serialize_pem().into_bytes(),
            server_name: NAME.to_owned(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a test in real time")]
fn clock() -> Instant {
    Instant::now()
}

struct Node {
    name: String,
    shard: Shard,
    quic: QuicLinks,
    runtime: Runtime,
}

impl Node {
    fn start(name: &str, config: &QuicConfig, boot: u64) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let switchboard = Switchboard::default();
        let inbox = Inbox::new(Wake::new(|| {}));
        switchboard.register(address(name), Arc::clone(&inbox));
        let quic = runtime.block_on(async { QuicLinks::start(config, switchboard.clone()) });
        let quic = quic.unwrap();
        let wiring = Wiring { switchboard, quic: Some(quic.clone()) };
        let shard = Shard::new(address(name), boot, Box::new(wiring), inbox, clock());
        Self { name: name.to_owned(), shard, quic, runtime }
    }
}

struct Nodes(Vec<Node>);

impl Nodes {
    fn start(names: &[&str]) -> Self {
        let authority = Authority::new();
        let start = |(index, name): (usize, &&str)| {
            Node::start(name, &authority.config(), index as u64 + 1)
        };
        Self(names.iter().enumerate().map(start).collect())
    }

    fn plan(&mut self, epoch: u64, plan: &[Place<'_>]) {
        let addresses: Vec<_> = self
            .0
            .iter()
            .map(|node| (address(&node.name), node.quic.local_address().unwrap()))
            .collect();
        let with_address = |peer: &mut Peer| {
            let found = addresses.iter().find(|(shard, _)| *shard == peer.address);
            peer.relay_address = found.map(|(_, address)| *address);
        };
        for (name, slice) in slices(epoch, plan) {
            let mut slice: PlanSlice = slice;
            slice.parent.iter_mut().chain(&mut slice.backups).for_each(with_address);
            let now = clock();
            if let Some(node) = self.0.iter_mut().find(|node| node.name == name) {
                assert!(node.shard.relay.set_slice(now, &room(), slice));
            }
        }
    }

    fn node(&mut self, name: &str) -> &mut Node {
        self.0.iter_mut().find(|node| node.name == name).unwrap()
    }

    /// Lets the shards' threads run for a time.
    fn run(&mut self, time: Duration) {
        let end = clock() + time;
        while clock() < end {
            for node in &mut self.0 {
                node.shard.wake(clock());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn run_until(&mut self, what: &str, done: impl Fn(&mut Self) -> bool) {
        let end = clock() + Duration::from_secs(20);
        while !done(self) {
            assert!(clock() < end, "not in time: {what}");
            self.run(Duration::from_millis(5));
        }
    }

    fn send(&mut self, from: (&str, TransportKey), encoder: &mut Encoder, frames: u32) {
        for _ in 0..frames {
            let picture = if encoder.frame.is_multiple_of(60) { key(4) } else { delta(3, 0) };
            let packets = encoder.picture(Picture { size: 900, ..picture }, 3_000);
            let now = clock();
            for packet in packets {
                self.node(from.0).shard.sfu.handle_rtp(now, from.1, &packet);
            }
            self.run(Duration::from_millis(33));
        }
    }

    fn counters(&mut self, name: &str) -> QuicCounters {
        self.node(name).quic.counters()
    }
}

#[test]
fn media_crosses_two_nodes_over_quic_with_one_copy_a_link() {
    let mut nodes = Nodes::start(&["a", "b", "c"]);
    let now = clock();
    nodes.plan(1, &[("a", None, &[]), ("b", Some("a"), &[]), ("c", Some("b"), &[])]);
    let publication = publication(Codec::Vp8, "0", &[]);
    let (publisher, _) = nodes.node("a").shard.publish(now, "TR_1", 1, &publication);
    nodes.run_until("the track is announced", |nodes| !nodes.node("c").shard.tracks.is_empty());
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    let now = clock();
    let shard = &mut nodes.node("c").shard;
    let track = shard.track("TR_1");
    let viewers: Vec<_> = (0..20).map(|_| shard.view(now, track, Codec::Vp8)).collect();
    nodes.send(("a", publisher), &mut encoder, 30);
    let before = nodes.counters("b").datagram_bytes_out;
    let (first, frames_before) =
        (encoder.frame, nodes.node("b").shard.report("c").stats.frames_out);
    nodes.send(("a", publisher), &mut encoder, 90);
    let bytes = nodes.counters("b").datagram_bytes_out - before;
    let frames = nodes.node("b").shard.report("c").stats.frames_out - frames_before;
    nodes.run(Duration::from_millis(300));
    let sent = u64::from(encoder.frame - first);
    assert!(frames >= sent * 3 - 3 && frames <= sent * 4, "{frames} frames for {sent} pictures");
    // Media is 900 bytes a packet; heartbeats and heads are the rest.
    assert!(bytes < frames * 1_150 + 20_000, "{bytes} bytes for {frames} frames");
    println!("20 viewers, 3 s: {frames} frames, {bytes} bytes on b -> c");
    for viewer in viewers {
        let receiver = &nodes.node("c").shard.viewer(viewer).receiver;
        receiver.check();
        let last = receiver.last().and_then(|packet| packet.mark).unwrap();
        assert_eq!(last.frame, encoder.frame - 1);
    }
    for (child, parent) in [("b", "a"), ("c", "b")] {
        let stats = nodes.node(child).shard.report(parent).stats;
        println!(
            "{parent} -> {child}: rtt {:?}, one way {:?}, {stats:?}",
            stats.rtt, stats.one_way
        );
        assert!(stats.rtt.is_some_and(|rtt| rtt < Duration::from_millis(200)));
        assert_eq!(stats.drops.malformed + stats.drops.stale_epoch, 0);
    }
}

/// Ends a node in a way; returns the gap that a viewer two links away saw.
fn gap_at_death(kill: impl FnOnce(Node)) -> Duration {
    let mut nodes = Nodes::start(&["a", "b", "c", "d"]);
    nodes.plan(
        1,
        &[("a", None, &[]), ("b", Some("a"), &[]), ("c", Some("a"), &[]), ("d", Some("b"), &["c"])],
    );
    let now = clock();
    let publication = publication(Codec::Vp8, "0", &[]);
    let (publisher, _) = nodes.node("a").shard.publish(now, "TR_1", 1, &publication);
    nodes.run_until("both parents are there", |nodes| {
        let reports = nodes.node("d").shard.relay.reports();
        reports.iter().filter(|report| report.phase == Phase::Up).count() == 2
            && !nodes.node("d").shard.tracks.is_empty()
    });
    let now = clock();
    let shard = &mut nodes.node("d").shard;
    let track = shard.track("TR_1");
    let viewer = shard.view(now, track, Codec::Vp8);
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    nodes.send(("a", publisher), &mut encoder, 40);
    let parent = {
        let junction = nodes.node("d").shard.relay.junction(&room()).unwrap();
        junction.active_parent().cloned()
    };
    assert_eq!(parent, Some(address("b")), "the plan's parent is in use");
    let index = nodes.0.iter().position(|node| node.name == "b").unwrap();
    let killed = clock();
    kill(nodes.0.remove(index));
    nodes.send(("a", publisher), &mut encoder, 60);
    let shard = &nodes.node("d").shard;
    shard.viewer(viewer).receiver.check();
    let last = shard.viewer(viewer).receiver.last().and_then(|packet| packet.mark).unwrap();
    assert!(last.frame + 2 >= encoder.frame, "it goes on to the end");
    let arrivals = &shard.viewer(viewer).arrivals;
    let since = killed.checked_sub(Duration::from_millis(50)).unwrap();
    let after: Vec<_> = arrivals.iter().filter(|at| **at >= since).collect();
    after.windows(2).map(|pair| *pair[1] - *pair[0]).max().unwrap()
}

#[test]
fn a_node_that_dies_without_a_word_is_left_for_the_backup() {
    let gap = gap_at_death(|node| node.runtime.shutdown_background());
    println!("media gap, node dead without a word: {gap:?}");
    // The target is half a second; a busy machine is given some more.
    assert!(gap < Duration::from_millis(1_000), "{gap:?}");
}

#[test]
fn a_node_that_closes_is_left_at_once() {
    let gap = gap_at_death(|node| {
        node.quic.close();
        std::thread::sleep(Duration::from_millis(20));
        node.runtime.shutdown_background();
    });
    println!("media gap, node closes: {gap:?}");
    assert!(gap < Duration::from_millis(600), "{gap:?}");
}

#[test]
fn a_node_without_the_clusters_certificate_gets_no_link() {
    let mut nodes = Nodes(vec![
        Node::start("a", &Authority::new().config(), 1),
        Node::start("b", &Authority::new().config(), 2),
    ]);
    nodes.plan(1, &[("a", None, &[]), ("b", Some("a"), &[])]);
    nodes.run_until("it was tried", |nodes| nodes.counters("b").dial_failed > 1);
    assert_eq!(nodes.counters("a").accepted, 0);
    assert!(nodes.node("a").shard.relay.reports().is_empty());
}

#[test]
fn a_node_that_comes_late_is_dialled_until_it_is_there() {
    let authority = Authority::new();
    let late = authority.config();
    let mut nodes = Nodes(vec![Node::start("b", &authority.config(), 2)]);
    // Where A will be, nobody is yet.
    let reserved = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let place = reserved.local_addr().unwrap();
    drop(reserved);
    let plan: [Place<'_>; 2] = [("a", None, &[]), ("b", Some("a"), &[])];
    let (_, mut slice) = slices(1, &plan).remove(1);
    if let Some(parent) = &mut slice.parent {
        parent.relay_address = Some(place);
    }
    let now = clock();
    assert!(nodes.node("b").shard.relay.set_slice(now, &room(), slice));
    nodes.run(Duration::from_millis(300));
    let mut a = Node::start("a", &QuicConfig { bind: place, ..late }, 1);
    let (_, home) = slices(1, &plan).remove(0);
    assert!(a.shard.relay.set_slice(clock(), &room(), home));
    nodes.0.push(a);
    nodes.run_until("the link is up", |nodes| {
        nodes.node("b").shard.relay.reports().iter().any(|report| report.phase == Phase::Up)
    });
}
