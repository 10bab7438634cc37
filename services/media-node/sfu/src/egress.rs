//! Packet path: how packets leave the forwarding core.

use headwater_model::media::{TrackKey, TransportKey};

use crate::relay::{RelayClock, RelayPacket};

/// Takes what is to be sent. It is called while [`crate::Sfu::drain`] runs and cannot
/// refuse: what it cannot send it drops.
pub trait Egress {
    /// An RTP packet. The packets of a frame to one subscriber come one after the
    /// other.
    fn rtp(&mut self, to: TransportKey, packet: OutgoingRtp<'_>);

    /// A compound RTCP packet (RFC 3550 section 6.1), at most 1,200 bytes.
    fn rtcp(&mut self, to: TransportKey, compound: &[u8]);

    /// A packet for the shards that want this encoding: once, however many they are.
    /// Only called for what [`crate::Sfu::set_relay_demand`] asked for.
    fn relay(&mut self, track: TrackKey, packet: RelayPacket<'_>) {
        let _ = (track, packet);
    }

    /// A sender report of a publisher, for the same shards.
    fn relay_clock(&mut self, track: TrackKey, clock: RelayClock) {
        let _ = (track, clock);
    }
}

/// One RTP packet in three parts that follow each other on the wire. It is not in one
/// piece because payloads are shared by all subscribers of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutgoingRtp<'a> {
    /// RTP header with its extensions: what SRTP authenticates and does not encrypt.
    pub header: &'a [u8],
    /// Start of the payload as this subscriber gets it: the original sequence number
    /// of a retransmission, a rewritten payload descriptor. Often empty.
    pub prefix: &'a [u8],
    /// The rest of the payload.
    pub payload: &'a [u8],
    /// Padding may be appended to make the packets of a frame equally long.
    ///
    /// False where a lost packet is repeated under its own sequence number (no RTX
    /// was negotiated): SRTP then needs the repeated packet to be the same to the
    /// byte, or it would use one nonce for two texts. False also for packets that
    /// have padding already.
    pub may_pad: bool,
}

impl OutgoingRtp<'_> {
    /// Length of the whole packet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.header.len() + self.prefix.len() + self.payload.len()
    }

    /// Never true: a packet has a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.header.is_empty() && self.prefix.is_empty() && self.payload.is_empty()
    }

    /// Writes the packet in one piece to the start of `out` and returns its length;
    /// `None` if there is no room.
    pub fn copy_into(&self, out: &mut [u8]) -> Option<usize> {
        let len = self.len();
        let out = out.get_mut(..len)?;
        let (header, rest) = out.split_at_mut(self.header.len());
        let (prefix, payload) = rest.split_at_mut(self.prefix.len());
        header.copy_from_slice(self.header);
        prefix.copy_from_slice(self.prefix);
        payload.copy_from_slice(self.payload);
        Some(len)
    }
}
