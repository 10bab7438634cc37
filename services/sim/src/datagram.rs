//! What travels over links.

/// Bytes of Ethernet-free headers in front of a datagram: IPv4 and UDP.
pub const IP_UDP_LEN: usize = 28;
/// What AEAD_AES_128_GCM adds to RTP (RFC 7714).
pub const SRTP_LEN: usize = 16;
/// The same for RTCP, with its index.
pub const SRTCP_LEN: usize = 20;

/// What is in a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Plain RTP, to be counted as SRTP.
    Rtp,
    /// A plain compound of RTCP, to be counted as SRTCP.
    Rtcp,
    /// Bytes as they are on the wire.
    Wire,
}

/// One UDP datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// What is in it.
    pub kind: Kind,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Datagram {
    /// Plain RTP.
    #[must_use]
    pub fn rtp(bytes: Vec<u8>) -> Self {
        Self { kind: Kind::Rtp, bytes }
    }

    /// Plain RTCP.
    #[must_use]
    pub fn rtcp(bytes: Vec<u8>) -> Self {
        Self { kind: Kind::Rtcp, bytes }
    }

    /// Bytes it takes of a link, with all headers.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        let sealed = match self.kind {
            Kind::Rtp => SRTP_LEN,
            Kind::Rtcp => SRTCP_LEN,
            Kind::Wire => 0,
        };
        self.bytes.len() + sealed + IP_UDP_LEN
    }
}
