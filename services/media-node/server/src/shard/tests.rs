//! The whole packet path of a shard over real sockets, with real clients: what a packet
//! costs, and what becomes of one that was lost.

mod peer;
mod spanning;

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use headwater_model::media::{
    Codec, Encoding, ExtensionIds, HeaderExtension, MediaKind, PayloadMapping, Publication,
    Subscription, SubscriptionKey, TrackKey, TransportKey,
};
use headwater_model::{NodeId, ShardIndex};
use headwater_net::ReadyList;
use headwater_relay::{ShardAddress, Switchboard};
use headwater_room::{Candidate, CandidateProtocol, Limits, MediaCommand, RoomsConfig, Timers};
use headwater_rtp::rtcp::CompoundWriter;
use headwater_telemetry::Metrics;
use headwater_transport::{DtlsIdentity, IceCredentials};
use tokio::sync::mpsc;

use super::worker::Worker;
use super::{Ports, PortsConfig, RelayWiring, ShardConfig, ShardSnapshot};
use peer::Peer;

const TRACK: TrackKey = TrackKey(7);
const PUBLISHER: TransportKey = TransportKey(1);
const SUBSCRIBERS: u32 = 8;
const VIDEO_SSRC: u32 = 0x1111;

struct World {
    worker: Worker,
    ready: ReadyList,
    address: std::net::SocketAddr,
    fingerprint: String,
    _commands: mpsc::Sender<super::ShardCommand>,
}

impl World {
    fn new() -> Self {
        Self::with_relay(RelayWiring {
            me: ShardAddress { node: NodeId::new("node").unwrap(), shard: ShardIndex(0) },
            boot: 1,
            switchboard: Switchboard::default(),
            quic: None,
            neighbours: Arc::default(),
        })
    }

    fn with_relay(wiring: RelayWiring) -> Self {
        let config = PortsConfig { ip: Ipv4Addr::LOCALHOST.into(), udp: 0, tcp: None };
        let ports = Ports::bind(&config).unwrap();
        let address = ports.udp_address();
        let identity = DtlsIdentity::generate().unwrap();
        let fingerprint = identity.fingerprint().to_owned();
        let candidate = Candidate { protocol: CandidateProtocol::Udp, address };
        let rooms = RoomsConfig {
            candidates: vec![candidate],
            fingerprint: fingerprint.clone(),
            limits: Limits::default(),
            timers: Timers::default(),
        };
        let config = ShardConfig {
            index: wiring.me.shard,
            core: None,
            rooms,
            identity,
            seed: [7; 32],
            wall_clock: Duration::from_secs(1_700_000_000),
            metrics: Arc::clone(Metrics::new().node()),
            relay: wiring,
        };
        let (commands, orders) = mpsc::channel(1);
        let snapshot = Arc::new(Mutex::new(ShardSnapshot::default()));
        let worker = Worker::new(config, ports, orders, snapshot);
        Self { worker, ready: Ports::ready_list(), address, fingerprint, _commands: commands }
    }

    /// A connected client.
    fn connect(&mut self, key: TransportKey) -> Peer {
        let local = headwater_room::IceCredentials {
            ufrag: format!("node{}", key.0),
            pwd: "a-password-of-twenty-two".to_owned(),
        };
        let server = IceCredentials { ufrag: local.ufrag.clone(), pwd: local.pwd.clone() };
        let mut peer = Peer::new(key.0);
        let order = MediaCommand::OpenTransport { transport: key, credentials: local };
        self.worker.media.carry_out(Instant::now(), order);
        let remote = peer.parameters();
        let order = MediaCommand::SetRemote { transport: key, remote };
        self.worker.media.carry_out(Instant::now(), order);
        peer.begin(self.address, &self.fingerprint, server);
        let limit = Instant::now() + Duration::from_secs(10);
        while !peer.connected {
            assert!(Instant::now() < limit, "the handshake takes too long");
            peer.work();
            self.turn();
        }
        peer
    }

    /// One turn that waits for at most some milliseconds: something is always due soon.
    fn turn(&mut self) {
        self.worker.turn(&mut self.ready).unwrap();
    }

    /// One turn at a time of the test's choice, with what has come by now.
    fn turn_at(&mut self, now: Instant) {
        self.worker.ports.wait(&mut self.ready, Some(Duration::ZERO)).unwrap();
        self.worker.work(now, &self.ready).unwrap();
    }

    fn order(&mut self, order: MediaCommand) {
        self.worker.media.carry_out(Instant::now(), order);
    }
}

fn vp8(payload_type: u8, rtx: bool) -> PayloadMapping {
    PayloadMapping {
        codec: Codec::Vp8,
        payload_type,
        rtx_payload_type: rtx.then_some(payload_type + 1),
        format: String::new(),
        nack: true,
        pli: true,
        transport_cc: true,
        red_of: None,
    }
}

fn extensions() -> ExtensionIds {
    let mut ids = ExtensionIds::default();
    ids.set(HeaderExtension::Mid, 1);
    ids.set(HeaderExtension::TransportCc, 3);
    ids
}

fn publication() -> Publication {
    Publication {
        kind: MediaKind::Video,
        mid: "0".to_owned(),
        codecs: vec![vp8(96, true)],
        extensions: ExtensionIds::default(),
        encodings: vec![Encoding { ssrc: Some(VIDEO_SSRC), ..Encoding::default() }],
    }
}

fn subscription(number: u32, rtx: bool) -> Subscription {
    Subscription {
        mid: "0".to_owned(),
        ssrc: 5_000 + number,
        rtx_ssrc: rtx.then_some(9_000 + number),
        codecs: vec![vp8(101, rtx)],
        extensions: extensions(),
    }
}

/// A room of one publisher and some viewers, all connected.
fn audience(rtx: bool) -> (World, Peer, Vec<Peer>) {
    let mut world = World::new();
    let publisher = world.connect(PUBLISHER);
    let publication = publication();
    world.order(MediaCommand::Publish { transport: PUBLISHER, track: TRACK, publication });
    let viewers = (0..SUBSCRIBERS).map(|number| {
        let transport = TransportKey(100 + number);
        let viewer = world.connect(transport);
        world.order(MediaCommand::Subscribe {
            subscription: SubscriptionKey(number),
            track: TRACK,
            transport,
            parameters: subscription(number, rtx),
        });
        viewer
    });
    let viewers = viewers.collect();
    (world, publisher, viewers)
}

/// Frames until the ring of the track has been used once: that is all that grows.
const WARM_UP: u32 = 200;
/// Frames that are measured: 14 s, longer than anything that is done at intervals.
const MEASURED: u32 = 1_200;

#[test]
fn a_forwarded_packet_costs_no_allocation_from_socket_to_socket() {
    let (mut world, mut publisher, mut viewers) = audience(true);
    let began = Instant::now();
    let (mut allocations, mut packets) = (Vec::new(), 0);
    for frame in 0..WARM_UP + MEASURED {
        // The test's own clock, so that what is done once a second is done here as well,
        // and as often on a busy machine.
        let elapsed = Duration::from_millis(12) * frame;
        publisher.send_frame(VIDEO_SSRC, 96, frame);
        // As after a moment without the processor: more is there at once.
        if frame % 50 < 3 {
            continue;
        }
        let viewer = frame % SUBSCRIBERS;
        viewers[viewer as usize].acknowledge(5_000 + viewer);
        let counted = allocation_counter::measure(|| world.turn_at(began + elapsed)).count_total;
        if frame >= WARM_UP && counted > 0 {
            allocations.push((elapsed, counted));
        }
        for viewer in &mut viewers {
            let received = viewer.receive_at(elapsed);
            packets += if frame >= WARM_UP { received as u64 } else { 0 };
        }
    }
    assert_eq!(allocations, [], "when and how many");
    let due = u64::from(MEASURED * 3 * SUBSCRIBERS) * 9 / 10;
    assert!(packets >= due, "only {packets} arrived");
}

#[test]
fn a_lost_packet_is_repeated_with_and_without_rtx() {
    for rtx in [true, false] {
        let (mut world, mut publisher, mut viewers) = audience(rtx);
        let viewer = &mut viewers[3];
        let mut lost = None;
        for frame in 0..20 {
            publisher.send_frame(VIDEO_SSRC, 96, frame);
            world.turn();
            viewer.receive();
            if frame == 10 {
                let next = viewer.newest(5_003).unwrap().wrapping_add(2);
                viewer.lose(5_003, next);
                lost = Some(next);
            }
        }
        let lost = lost.unwrap();
        assert_eq!(viewer.copies_of(5_003, lost), 0, "it was lost");
        viewer.send_rtcp(|buffer| {
            let mut compound = CompoundWriter::new(buffer);
            compound.receiver_report(1, &[]).unwrap();
            compound.nack(1, 5_003, [lost]).unwrap();
            compound.finish()
        });
        let limit = Instant::now() + Duration::from_secs(5);
        while viewer.copies_of(5_003, lost) + viewer.count_of(9_003) == 0 {
            assert!(Instant::now() < limit, "no repetition, rtx: {rtx}");
            world.turn();
            viewer.receive();
        }
        assert_eq!(viewer.count_of(9_003) > 0, rtx, "by the negotiated way");
    }
}
