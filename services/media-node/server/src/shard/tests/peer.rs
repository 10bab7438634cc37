//! A client with a real socket and a real handshake, driven by hand.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_room::RemoteTransport;
use headwater_rtp::RtpView;
use headwater_rtp::rtcp::{Arrival, CompoundWriter, TransportFeedbackHead};
use headwater_transport::{
    DtlsIdentity, IceCredentials, Output, PacketClass, Path, Protocol, RemoteParameters,
    SRTP_OVERHEAD_MAX, Transport, TransportConfig, TransportEvent, classify,
};

/// Extension id of the transport-wide number, as in the tests' subscriptions.
const TRANSPORT_CC: u8 = 3;

pub struct Peer {
    transport: Transport,
    socket: UdpSocket,
    identity: Arc<DtlsIdentity>,
    credentials: IceCredentials,
    node: Option<SocketAddr>,
    buffer: Vec<u8>,
    next_sequence: u16,
    /// Copies received, by SSRC and sequence number.
    received: BTreeMap<u32, BTreeMap<u16, usize>>,
    newest: BTreeMap<u32, u16>,
    /// Transport-wide numbers, unwrapped, and when they came.
    arrivals: Vec<Arrival>,
    feedbacks: u8,
    epoch: Instant,
    /// SSRC and sequence number of a packet that the network loses once.
    lost: Option<(u32, u16)>,
    pub connected: bool,
}

impl Peer {
    pub fn new(number: u32) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let identity = DtlsIdentity::generate().unwrap();
        let credentials = IceCredentials {
            ufrag: format!("peer{number}"),
            pwd: "another-password-of-its".to_owned(),
        };
        let now = Instant::now();
        let config =
            TransportConfig::client(identity.clone(), credentials.clone(), u64::from(number));
        Self {
            transport: Transport::new(now, config),
            socket,
            identity,
            credentials,
            node: None,
            buffer: vec![0; 65_536],
            next_sequence: 0,
            received: BTreeMap::new(),
            newest: BTreeMap::new(),
            arrivals: Vec::new(),
            feedbacks: 0,
            epoch: now,
            lost: None,
            connected: false,
        }
    }

    /// What signalling would tell the node.
    pub fn parameters(&self) -> RemoteTransport {
        RemoteTransport {
            credentials: headwater_room::IceCredentials {
                ufrag: self.credentials.ufrag.clone(),
                pwd: self.credentials.pwd.clone(),
            },
            fingerprint: self.identity.fingerprint().to_owned(),
            max_message_size: None,
        }
    }

    pub fn begin(&mut self, node: SocketAddr, fingerprint: &str, server: IceCredentials) {
        let now = Instant::now();
        let remote = RemoteParameters {
            fingerprint_sha256: fingerprint.to_owned(),
            ufrag: server.ufrag,
            pwd: server.pwd,
            max_message_size: None,
        };
        self.transport.set_remote(now, remote).unwrap();
        let path = Path { protocol: Protocol::Udp, remote: node };
        self.transport.set_remote_candidate(now, path);
        self.node = Some(node);
        self.work();
    }

    /// Takes what came, does what is due, sends what there is.
    pub fn work(&mut self) {
        self.receive();
        let now = Instant::now();
        if self.transport.poll_timeout().is_some_and(|due| due <= now) {
            self.transport.handle_timeout(now);
        }
        while let Some(output) = self.transport.poll_output() {
            match output {
                Output::Transmit { path, datagram } => {
                    self.socket.send_to(&datagram, path.remote).unwrap();
                }
                Output::Event(TransportEvent::Connected { .. }) => self.connected = true,
                Output::Event(_) => {}
            }
        }
    }

    /// Takes what came; returns how many RTP packets.
    pub fn receive(&mut self) -> usize {
        self.receive_at(self.epoch.elapsed())
    }

    /// The same at a time of the caller's clock.
    pub fn receive_at(&mut self, at: Duration) -> usize {
        let mut packets = 0;
        while let Ok((len, remote)) = self.socket.recv_from(&mut self.buffer) {
            let now = Instant::now();
            let path = Path { protocol: Protocol::Udp, remote };
            let datagram = &mut self.buffer[..len];
            match classify(datagram) {
                PacketClass::Stun => drop(self.transport.handle_stun(now, path, datagram)),
                PacketClass::Dtls => self.transport.handle_dtls(now, path, datagram),
                PacketClass::Rtp if self.lost.is_some() && self.lost == Some(name_of(datagram)) => {
                    self.lost = None;
                }
                PacketClass::Rtp => {
                    let len = self.transport.unprotect_rtp(now, datagram).unwrap();
                    packets += 1;
                    self.note(at, len);
                }
                PacketClass::Rtcp | PacketClass::Unknown => {}
            }
        }
        packets
    }

    /// Has the network lose a packet that is still to come.
    pub fn lose(&mut self, ssrc: u32, sequence: u16) {
        self.lost = Some((ssrc, sequence));
    }

    fn note(&mut self, at: Duration, len: usize) {
        let packet = RtpView::parse(&self.buffer[..len]).unwrap();
        let (ssrc, sequence) = (packet.ssrc(), packet.sequence());
        *self.received.entry(ssrc).or_default().entry(sequence).or_default() += 1;
        self.newest.insert(ssrc, sequence);
        let number = packet.extension(TRANSPORT_CC);
        if let Some(number) = number.and_then(|value| <[u8; 2]>::try_from(value).ok()) {
            let number = u16::from_be_bytes(number);
            let last = self.arrivals.last().map_or(u64::from(number), |last| last.sequence);
            let step = number.wrapping_sub(last as u16);
            // Feedback cannot tell of the first moment.
            let at = at + Duration::from_secs(1);
            self.arrivals.push(Arrival { sequence: last + u64::from(step), at });
        }
    }

    /// The newest packet of an SSRC.
    pub fn newest(&self, ssrc: u32) -> Option<u16> {
        self.newest.get(&ssrc).copied()
    }

    /// How often a packet came.
    pub fn copies_of(&self, ssrc: u32, sequence: u16) -> usize {
        let copies = self.received.get(&ssrc).and_then(|packets| packets.get(&sequence));
        copies.copied().unwrap_or_default()
    }

    /// Packets of all SSRCs.
    pub fn packets(&self) -> usize {
        self.received.values().map(BTreeMap::len).sum()
    }

    /// Packets of an SSRC.
    pub fn count_of(&self, ssrc: u32) -> usize {
        self.received.get(&ssrc).map_or(0, BTreeMap::len)
    }

    /// A frame of three packets that differ by a byte; every 30th is a keyframe.
    pub fn send_frame(&mut self, ssrc: u32, payload_type: u8, number: u32) {
        for index in 0..3_u8 {
            let mut packet = vec![0x80, payload_type | u8::from(index == 2) << 7];
            packet.extend(self.next_sequence.to_be_bytes());
            packet.extend((number * 3_000).to_be_bytes());
            packet.extend(ssrc.to_be_bytes());
            self.next_sequence = self.next_sequence.wrapping_add(1);
            // VP8 payload descriptor (RFC 7741 section 4.2) with a 15-bit picture id, and
            // the frame's first byte (RFC 6386 section 9.1).
            let picture = 0x8000 | number as u16;
            packet.push(0x80 | u8::from(index == 0) << 4);
            packet.push(0x80);
            packet.extend(picture.to_be_bytes());
            if index == 0 {
                let delta = u8::from(!number.is_multiple_of(30));
                packet.extend([0x10 | delta, 0, 0, 0x9d, 0x01, 0x2a, 64, 1, 180, 0]);
            }
            packet.resize(1_100 + usize::from(index > 0), 0x55);
            self.send_rtp(packet);
        }
    }

    fn send_rtp(&mut self, mut packet: Vec<u8>) {
        let len = packet.len();
        packet.resize(len + SRTP_OVERHEAD_MAX, 0);
        let len = self.transport.protect_rtp(&mut packet, 12, len).unwrap();
        self.socket.send_to(&packet[..len], self.node.unwrap()).unwrap();
    }

    pub fn send_rtcp(&mut self, write: impl FnOnce(&mut [u8]) -> usize) {
        let mut compound = vec![0; 1_200];
        let len = write(&mut compound);
        compound.resize(1_200 + SRTP_OVERHEAD_MAX, 0);
        let len = self.transport.protect_rtcp(&mut compound, len).unwrap();
        self.socket.send_to(&compound[..len], self.node.unwrap()).unwrap();
    }

    /// Reports like a browser: transport-wide feedback of all that came since the last
    /// one, and a request for the newest packet again.
    pub fn acknowledge(&mut self, ssrc: u32) {
        let Some(newest) = self.newest(ssrc) else { return };
        let arrivals = std::mem::take(&mut self.arrivals);
        self.arrivals.extend(arrivals.last().copied());
        let head = TransportFeedbackHead {
            sender_ssrc: 1,
            media_ssrc: ssrc,
            feedback_count: self.feedbacks,
            base_sequence: arrivals.first().map_or(0, |first| first.sequence),
        };
        self.feedbacks = self.feedbacks.wrapping_add(1);
        self.send_rtcp(|buffer| {
            let mut compound = CompoundWriter::new(buffer);
            compound.receiver_report(1, &[]).unwrap();
            compound.nack(1, ssrc, [newest]).unwrap();
            if !arrivals.is_empty() {
                compound.transport_feedback(&head, &arrivals).unwrap();
            }
            compound.finish()
        });
    }
}

/// SSRC and sequence number, which SRTP leaves readable.
fn name_of(datagram: &[u8]) -> (u32, u16) {
    let ssrc = u32::from_be_bytes(datagram[8..12].try_into().unwrap());
    (ssrc, u16::from_be_bytes(datagram[2..4].try_into().unwrap()))
}
