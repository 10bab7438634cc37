//! A server's and a client's transport with a network between them: virtual
//! time, and loss, repetition and reordering from a seed.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use headwater_transport::{
    DtlsIdentity, IceCredentials, Output, PacketClass, Path, Protocol, RemoteParameters, Transport,
    TransportConfig, TransportEvent, classify,
};

/// An instant to count from. Nothing here waits for it to pass.
#[expect(clippy::disallowed_methods, reason = "the origin of virtual time")]
pub fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

pub fn identity() -> Arc<DtlsIdentity> {
    DtlsIdentity::generate().expect("randomness")
}

pub fn credentials(name: &str) -> IceCredentials {
    IceCredentials { ufrag: format!("{name}Frag"), pwd: format!("{name}PasswordOfEnoughLength") }
}

pub fn udp(address: &str) -> Path {
    Path {
        protocol: Protocol::Udp,
        remote: address.parse::<SocketAddr>().expect("an address and a port"),
    }
}

pub fn client_path() -> Path {
    udp("192.0.2.10:40000")
}

pub fn server_path() -> Path {
    udp("198.51.100.1:7882")
}

/// Whoever of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Server,
    Client,
}

impl Side {
    pub fn other(self) -> Self {
        match self {
            Self::Server => Self::Client,
            Self::Client => Self::Server,
        }
    }
}

/// What the network does, in percent of datagrams.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    pub seed: u64,
    pub lost: u64,
    pub repeated: u64,
    /// Extra delay of up to this, for each datagram by itself.
    pub jitter: Duration,
}

pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A datagram on its way.
#[derive(Debug, Clone)]
pub struct Flying {
    pub to: Side,
    /// The path as the receiver sees it.
    pub from: Path,
    pub datagram: Vec<u8>,
}

pub struct Pair {
    pub server: Transport,
    pub client: Transport,
    pub now: Instant,
    pub weather: Weather,
    pub events: Vec<(Side, TransportEvent)>,
    /// Every datagram that either side sent.
    pub sent: Vec<Flying>,
    pub plain_rtp: Vec<(Side, Vec<u8>)>,
    pub server_remote: RemoteParameters,
    pub client_remote: RemoteParameters,
    /// Cuts the client's plain handshake messages into pieces of this length.
    pub fragment: Option<usize>,
    flying: BTreeMap<(Instant, u64), Flying>,
    random: Random,
    serial: u64,
}

impl Pair {
    /// A pair that knows each other by signalling and has sent nothing yet.
    pub fn new(weather: Weather) -> Self {
        Self::with_configs(weather, |_| {}, |_| {})
    }

    pub fn with_configs(
        weather: Weather,
        server: impl FnOnce(&mut TransportConfig),
        client: impl FnOnce(&mut TransportConfig),
    ) -> Self {
        let mut pair = Self::without_signalling(weather, server, client);
        let (server_remote, client_remote) =
            (pair.server_remote.clone(), pair.client_remote.clone());
        pair.server.set_remote(pair.now, server_remote).expect("a good fingerprint");
        pair.client.set_remote(pair.now, client_remote).expect("a good fingerprint");
        pair.client.set_remote_candidate(pair.now, server_path());
        pair
    }

    pub fn without_signalling(
        weather: Weather,
        server: impl FnOnce(&mut TransportConfig),
        client: impl FnOnce(&mut TransportConfig),
    ) -> Self {
        let now = origin();
        let mut server_config = TransportConfig::server(identity(), credentials("server"));
        let mut client_config =
            TransportConfig::client(identity(), credentials("client"), weather.seed);
        server(&mut server_config);
        client(&mut client_config);
        let remote_of = |config: &TransportConfig| RemoteParameters {
            fingerprint_sha256: config.identity.fingerprint().to_owned(),
            ufrag: config.local.ufrag.clone(),
            pwd: config.local.pwd.clone(),
            max_message_size: Some(256 * 1024),
        };
        Self {
            server_remote: remote_of(&client_config),
            client_remote: remote_of(&server_config),
            server: Transport::new(now, server_config),
            client: Transport::new(now, client_config),
            now,
            weather,
            events: Vec::new(),
            sent: Vec::new(),
            plain_rtp: Vec::new(),
            fragment: None,
            flying: BTreeMap::new(),
            random: Random(weather.seed),
            serial: 0,
        }
    }

    /// A connected pair on a perfect network.
    pub fn connected() -> Self {
        let mut pair = Self::new(Weather::default());
        pair.run_until(Duration::from_secs(5), Pair::is_connected);
        pair
    }

    pub fn side(&mut self, side: Side) -> &mut Transport {
        match side {
            Side::Server => &mut self.server,
            Side::Client => &mut self.client,
        }
    }

    pub fn is_connected(&self) -> bool {
        [Side::Server, Side::Client].into_iter().all(|side| {
            self.events_of(side).any(|event| matches!(event, TransportEvent::Connected { .. }))
        })
    }

    pub fn events_of(&self, side: Side) -> impl Iterator<Item = &TransportEvent> {
        self.events.iter().filter(move |(of, _)| *of == side).map(|(_, event)| event)
    }

    /// Runs until `done` or fails the test after `limit` of virtual time.
    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) {
        let deadline = self.now + limit;
        self.collect();
        while !done(self) {
            let advanced = self.step(deadline);
            assert!(advanced, "nothing more happens; {:?}; events {:?}", self.weather, self.events);
        }
    }

    /// Runs for a time.
    pub fn run_for(&mut self, time: Duration) {
        let deadline = self.now + time;
        self.collect();
        while self.step(deadline) {}
        self.now = deadline;
    }

    /// Goes to the next arrival or deadline. `false` if there is none in time.
    fn step(&mut self, deadline: Instant) -> bool {
        let arrival = self.flying.keys().next().map(|(at, _)| *at);
        let timers = [self.server.poll_timeout(), self.client.poll_timeout()];
        let Some(next) =
            timers.into_iter().flatten().chain(arrival).min().filter(|next| *next <= deadline)
        else {
            return false;
        };
        self.now = self.now.max(next);
        let due: Vec<_> = self.flying.range(..=(self.now, u64::MAX)).map(|(key, _)| *key).collect();
        for key in due {
            if let Some(flying) = self.flying.remove(&key) {
                self.deliver(&flying);
            }
        }
        for side in [Side::Server, Side::Client] {
            let now = self.now;
            if self.side(side).poll_timeout().is_some_and(|at| at <= now) {
                self.side(side).handle_timeout(now);
            }
        }
        self.collect();
        true
    }

    /// Hands a datagram over at once.
    pub fn deliver(&mut self, flying: &Flying) {
        let now = self.now;
        let (to, from) = (flying.to, flying.from);
        match classify(&flying.datagram) {
            PacketClass::Stun => {
                let _ = self.side(to).handle_stun(now, from, &flying.datagram);
            }
            PacketClass::Dtls => self.side(to).handle_dtls(now, from, &flying.datagram),
            PacketClass::Rtp if self.side(to).is_valid_path(from) => {
                let mut packet = flying.datagram.clone();
                if let Ok(length) = self.side(to).unprotect_rtp(now, &mut packet) {
                    packet.truncate(length);
                    self.plain_rtp.push((to, packet));
                }
            }
            PacketClass::Rtcp => {
                let mut packet = flying.datagram.clone();
                let _ = self.side(to).unprotect_rtcp(&mut packet);
            }
            PacketClass::Rtp | PacketClass::Unknown => {}
        }
    }

    /// Takes what both sides have to say.
    pub fn collect(&mut self) {
        for side in [Side::Server, Side::Client] {
            while let Some(output) = self.side(side).poll_output() {
                match output {
                    Output::Event(event) => self.events.push((side, event)),
                    Output::Transmit { path, datagram } => {
                        let pieces = match self
                            .fragment
                            .filter(|_| side == Side::Client && datagram[0] == 22)
                        {
                            Some(length) => cut_handshake(&datagram, length),
                            None => vec![datagram],
                        };
                        pieces.into_iter().for_each(|piece| self.send(side, path, piece));
                    }
                }
            }
        }
    }

    /// Puts a datagram on the network.
    pub fn send(&mut self, from: Side, path: Path, datagram: Vec<u8>) {
        let seen_from = match from {
            Side::Server => server_path(),
            Side::Client => client_path(),
        };
        let reaches = match from {
            Side::Server => path == client_path(),
            Side::Client => path == server_path(),
        };
        let flying = Flying { to: from.other(), from: seen_from, datagram };
        self.sent.push(flying.clone());
        let copies = 1 + u64::from(self.random.below(100) < self.weather.repeated);
        for _ in 0..copies {
            if !reaches || self.random.below(100) < self.weather.lost {
                continue;
            }
            let jitter = self.weather.jitter.as_micros() as u64;
            let extra = if jitter == 0 { 0 } else { self.random.below(jitter) };
            self.serial += 1;
            let at = self.now + Duration::from_millis(10) + Duration::from_micros(extra);
            self.flying.insert((at, self.serial), flying.clone());
        }
    }

    /// Protects and sends one RTP packet.
    pub fn send_rtp(&mut self, from: Side, plain: &[u8]) {
        let mut packet = plain.to_vec();
        packet.resize(plain.len() + headwater_transport::SRTP_OVERHEAD_MAX, 0);
        let length = self
            .side(from)
            .protect_rtp(&mut packet, 12, plain.len())
            .expect("a fresh packet with room");
        packet.truncate(length);
        let path = match from {
            Side::Server => client_path(),
            Side::Client => server_path(),
        };
        self.send(from, path, packet);
    }
}

pub fn rtp(ssrc: u32, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&(u32::from(sequence) * 3000).to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// Bytes that differ from place to place.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 + index / 251) as u8).collect()
}

/// Longer than any set-up takes.
pub const SETUP: Duration = Duration::from_secs(14);

/// The datagram's plain handshake messages in pieces, last piece first, one
/// datagram each; other records follow as they are.
pub fn cut_handshake(datagram: &[u8], length: usize) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    let mut rest = datagram;
    while rest.len() > 13 {
        let end = 13 + usize::from(u16::from_be_bytes([rest[11], rest[12]]));
        let (record, behind) = rest.split_at(end);
        rest = behind;
        if record[0] != 22 || record[4] != 0 {
            datagrams.push(record.to_vec());
            continue;
        }
        let (header, body) = record[13..].split_at(12);
        let pieces = body.chunks(length).enumerate().map(|(index, piece)| {
            let mut fragment = header.to_vec();
            fragment[6..9].copy_from_slice(&((index * length) as u32).to_be_bytes()[1..]);
            fragment[9..12].copy_from_slice(&(piece.len() as u32).to_be_bytes()[1..]);
            fragment.extend_from_slice(piece);
            let mut datagram = record[..11].to_vec();
            datagram.extend_from_slice(&(fragment.len() as u16).to_be_bytes());
            datagram.extend_from_slice(&fragment);
            datagram
        });
        datagrams.extend(pieces.collect::<Vec<_>>().into_iter().rev());
    }
    datagrams
}
