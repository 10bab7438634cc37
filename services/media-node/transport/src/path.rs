//! Where datagrams come from and go to, and what kind of packet a datagram is
//! by its first bytes.

use std::net::{IpAddr, SocketAddr};

/// How the datagrams of a path are carried. TCP framing (RFC 4571) happens
/// outside of this crate: both kinds carry whole datagrams here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Plain UDP.
    Udp,
    /// ICE-TCP, passive on our side (RFC 6544).
    Tcp,
}

/// One way to a peer: the protocol and the peer's address as we see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// UDP or TCP.
    pub protocol: Protocol,
    /// The peer's address. IPv4-mapped IPv6 addresses are a different path
    /// from the plain IPv4 one: the shell hands in one form only.
    pub remote: SocketAddr,
}

impl Path {
    /// The peer's address with an IPv4-mapped IPv6 address written as IPv4,
    /// which is what a peer expects in XOR-MAPPED-ADDRESS.
    pub(crate) fn mapped_address(&self) -> (IpAddr, u16) {
        (self.remote.ip().to_canonical(), self.remote.port())
    }
}

/// What a datagram claims to be. A claim, not a proof: nothing is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketClass {
    /// A STUN message.
    Stun,
    /// One or more DTLS records.
    Dtls,
    /// An RTP packet, protected or not.
    Rtp,
    /// An RTCP packet, protected or not.
    Rtcp,
    /// Nothing that we speak, or too short for what it claims: drop it.
    Unknown,
}

/// Classifies a datagram by RFC 7983, and RTCP against RTP by RFC 5761.
#[must_use]
pub fn classify(datagram: &[u8]) -> PacketClass {
    let length = datagram.len();
    match datagram.first() {
        Some(0..=3) if length >= 20 => PacketClass::Stun,
        Some(20..=63) if length >= 13 => PacketClass::Dtls,
        Some(128..=191) if length >= 8 && (192..=223).contains(&datagram[1]) => PacketClass::Rtcp,
        Some(128..=191) if length >= 12 => PacketClass::Rtp,
        Some(_) | None => PacketClass::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(first: u8, second: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        bytes[0] = first;
        bytes[1] = second;
        bytes
    }

    #[test]
    fn each_class_is_recognised_by_its_first_bytes() {
        assert_eq!(classify(&datagram(0, 1, 20)), PacketClass::Stun);
        assert_eq!(classify(&datagram(22, 254, 13)), PacketClass::Dtls);
        assert_eq!(classify(&datagram(0x80, 96, 12)), PacketClass::Rtp);
        assert_eq!(classify(&datagram(0x90, 0x80 | 111, 12)), PacketClass::Rtp);
        assert_eq!(classify(&datagram(0x80, 200, 8)), PacketClass::Rtcp);
        assert_eq!(classify(&datagram(0x81, 206, 12)), PacketClass::Rtcp);
    }

    #[test]
    fn short_or_foreign_datagrams_are_unknown() {
        assert_eq!(classify(&[]), PacketClass::Unknown);
        assert_eq!(classify(&[0; 19]), PacketClass::Unknown);
        assert_eq!(classify(&datagram(22, 254, 12)), PacketClass::Unknown);
        assert_eq!(classify(&datagram(0x80, 96, 11)), PacketClass::Unknown);
        assert_eq!(classify(&[0x80]), PacketClass::Unknown);
        assert_eq!(classify(&datagram(64, 0, 100)), PacketClass::Unknown, "TURN channel data");
        assert_eq!(classify(&datagram(200, 0, 100)), PacketClass::Unknown);
    }
}
