//! The real transports between a peer and its node: ICE, DTLS, SRTP and data channels on the
//! lossy network. Signalling is not simulated: both ends know each other from the beginning.
//! The handshake takes its randomness from the system, so worlds with transports are not the
//! same to the bit.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use headwater_transport::{
    ChannelId, ChannelReliability, DtlsIdentity, IceCredentials, IdentityError, MessageKind,
    Output, PacketClass, Path, Protocol, RemoteParameters, SRTP_OVERHEAD_MAX, SendError, SrtpError,
    Transport, TransportConfig, TransportEvent, classify,
};

use crate::{Datagram, Kind, Random, Time};

/// Messages that are kept for whoever looks at the world.
const MESSAGES_MAX: usize = 10_000;

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Node,
    Peer,
}

/// What became of a peer's transports.
#[derive(Debug, Clone, Default)]
pub struct SealReport {
    /// When the node's end was connected.
    pub node_connected: Option<Time>,
    /// When the peer's end was.
    pub peer_connected: Option<Time>,
    /// Why either end failed, if one did.
    pub failed: Option<String>,
    /// Messages that the node got over data channels.
    pub messages: Vec<Vec<u8>>,
    /// Packets that could not be sealed or opened.
    pub refused: u64,
}

/// A peer's transport and its node's.
pub(crate) struct Seal {
    origin: Instant,
    node: Transport,
    peer: Transport,
    pub(crate) armed: Option<Time>,
    pub(crate) report: SealReport,
    peer_path: Path,
    node_path: Path,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").field("report", &self.report).finish_non_exhaustive()
    }
}

impl Seal {
    /// Both ends, about to begin. `index` makes addresses of its own.
    pub(crate) fn new(
        origin: Instant,
        now: Time,
        index: usize,
        random: &mut Random,
    ) -> Result<Self, IdentityError> {
        let at = origin + now.elapsed();
        let mut credentials = || IceCredentials {
            ufrag: format!("{:016x}", random.next_u64()),
            pwd: format!("{:016x}{:016x}", random.next_u64(), random.next_u64()),
        };
        let node = TransportConfig::server(DtlsIdentity::generate()?, credentials());
        let peer_credentials = credentials();
        let peer =
            TransportConfig::client(DtlsIdentity::generate()?, peer_credentials, random.next_u64());
        let (of_node, of_peer) = (remote_of(&node), remote_of(&peer));
        let address = u32::from(Ipv4Addr::new(10, 0, 0, 1)) + index as u32;
        let mut seal = Self {
            origin,
            node: Transport::new(at, node),
            peer: Transport::new(at, peer),
            armed: None,
            report: SealReport::default(),
            peer_path: udp(Ipv4Addr::from(address), 40_000),
            node_path: udp(Ipv4Addr::new(198, 51, 100, 1), 7_882),
        };
        // Both fingerprints were just made.
        let known = seal.node.set_remote(at, of_peer).and(seal.peer.set_remote(at, of_node));
        if let Err(error) = known {
            seal.report.failed = Some(error.to_string());
        }
        let node_path = seal.node_path;
        seal.peer.set_remote_candidate(at, node_path);
        Ok(seal)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let due =
            [self.node.poll_timeout(), self.peer.poll_timeout()].into_iter().flatten().min()?;
        let due = due.saturating_duration_since(self.origin);
        Some(Time(due.as_nanos().div_ceil(1_000) as u64))
    }

    pub(crate) fn handle_timeout(&mut self, now: Time) {
        let at = self.origin + now.elapsed();
        for transport in [&mut self.node, &mut self.peer] {
            if transport.poll_timeout().is_some_and(|due| due <= at) {
                transport.handle_timeout(at);
            }
        }
    }

    /// What an end has to send by itself.
    pub(crate) fn poll_transmit(&mut self, now: Time, end: End) -> Option<Datagram> {
        while let Some(output) = self.end(end).poll_output() {
            match output {
                Output::Transmit { datagram, .. } => {
                    return Some(Datagram { kind: Kind::Wire, bytes: datagram });
                }
                Output::Event(event) => self.note(now, end, event),
            }
        }
        None
    }

    fn note(&mut self, now: Time, end: End, event: TransportEvent) {
        match event {
            TransportEvent::Connected { .. } => {
                let slot = match end {
                    End::Node => &mut self.report.node_connected,
                    End::Peer => &mut self.report.peer_connected,
                };
                slot.get_or_insert(now);
            }
            TransportEvent::Failed(reason) => self.report.failed = Some(reason.to_string()),
            TransportEvent::Message { data, .. } => {
                if end == End::Node && self.report.messages.len() < MESSAGES_MAX {
                    self.report.messages.push(data);
                }
            }
            TransportEvent::PathSelected(_)
            | TransportEvent::ChannelOpen { .. }
            | TransportEvent::ChannelClosed { .. }
            | TransportEvent::Closed => {}
        }
    }

    /// A plain packet as an end puts it on the wire. `None` if the end cannot send it.
    pub(crate) fn seal(&mut self, end: End, datagram: &Datagram) -> Option<Datagram> {
        let len = datagram.bytes.len();
        let transport = self.end(end);
        let mut bytes = datagram.bytes.clone();
        bytes.resize(len + SRTP_OVERHEAD_MAX, 0);
        let sealed = match datagram.kind {
            Kind::Wire => return Some(datagram.clone()),
            Kind::Rtcp => transport.protect_rtcp(&mut bytes, len),
            Kind::Rtp => {
                let header_len = headwater_rtp::RtpView::parse(&datagram.bytes).ok()?.header_len();
                match transport.protect_rtp(&mut bytes, header_len, len) {
                    // Sound is repeated under its own number, as it was.
                    Err(SrtpError::NonceReuse) => {
                        bytes[..len].copy_from_slice(&datagram.bytes);
                        transport.repeat_rtp(&mut bytes, header_len, len)
                    }
                    sealed => sealed,
                }
            }
        };
        let Ok(len) = sealed else {
            self.report.refused += 1;
            return None;
        };
        bytes.truncate(len);
        Some(Datagram { kind: Kind::Wire, bytes })
    }

    /// A datagram arrives at an end: plain media if it is any, else the end takes it.
    pub(crate) fn open(&mut self, now: Time, end: End, mut bytes: Vec<u8>) -> Option<Datagram> {
        let at = self.origin + now.elapsed();
        let from = match end {
            End::Node => self.peer_path,
            End::Peer => self.node_path,
        };
        let transport = self.end(end);
        let (kind, opened) = match classify(&bytes) {
            PacketClass::Stun => {
                let _ = transport.handle_stun(at, from, &bytes);
                return None;
            }
            PacketClass::Dtls => {
                transport.handle_dtls(at, from, &bytes);
                return None;
            }
            PacketClass::Unknown => return None,
            PacketClass::Rtp | PacketClass::Rtcp if !transport.is_valid_path(from) => return None,
            PacketClass::Rtp => (Kind::Rtp, transport.unprotect_rtp(at, &mut bytes)),
            PacketClass::Rtcp => (Kind::Rtcp, transport.unprotect_rtcp(&mut bytes)),
        };
        let Ok(len) = opened else {
            self.report.refused += 1;
            return None;
        };
        bytes.truncate(len);
        Some(Datagram { kind, bytes })
    }

    /// Opens a data channel from the peer that loses nothing and keeps its order.
    pub(crate) fn open_channel(&mut self, now: Time, label: &str) -> Option<ChannelId> {
        let at = self.origin + now.elapsed();
        self.peer.open_channel(at, label, ChannelReliability::RELIABLE).ok()
    }

    pub(crate) fn send_message(
        &mut self,
        now: Time,
        id: ChannelId,
        data: &[u8],
    ) -> Result<(), SendError> {
        let at = self.origin + now.elapsed();
        self.peer.send_message(at, id, MessageKind::Binary, data)
    }

    fn end(&mut self, end: End) -> &mut Transport {
        match end {
            End::Node => &mut self.node,
            End::Peer => &mut self.peer,
        }
    }
}

fn udp(address: Ipv4Addr, port: u16) -> Path {
    Path { protocol: Protocol::Udp, remote: SocketAddr::from((address, port)) }
}

fn remote_of(config: &TransportConfig) -> RemoteParameters {
    RemoteParameters {
        fingerprint_sha256: config.identity.fingerprint().to_owned(),
        ufrag: config.local.ufrag.clone(),
        pwd: config.local.pwd.clone(),
        max_message_size: Some(256 * 1024),
    }
}
