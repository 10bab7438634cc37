//! What travels between shards: packets of an encoding as they are at their origin,
//! before anything is rewritten for a subscriber.

use std::time::Duration;

/// Highest sequence number that is taken from a relay: 48 bits, as on the wire. At a
/// thousand packets a second that is 8,900 years.
pub const RELAY_SEQUENCE_MAX: u64 = (1 << 48) - 1;

/// One packet of an encoding on its way between shards. Nothing in it is ever changed
/// on the way; so what any two shards hold of one packet is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayPacket<'a> {
    /// Index of the encoding in its publication.
    pub encoding: u8,
    /// Counts the breaks of the encoding at its origin: another SSRC, another codec, a
    /// restart. Sequence numbers of two lives have nothing to do with each other.
    pub life: u32,
    /// The publisher's sequence number without wraps and without the padding that the
    /// origin left out; at most [`RELAY_SEQUENCE_MAX`].
    pub sequence: u64,
    /// The publisher's RTP timestamp.
    pub timestamp: u32,
    /// Index of the codec in the publication.
    pub codec: u8,
    /// The publisher's marker bit.
    pub marker: bool,
    /// A subscriber can begin here.
    pub keyframe: bool,
    /// Time since it arrived at this shard. Zero when it is taken in.
    pub held: Duration,
    /// Values of header extensions that travel on: for each the place in the list below,
    /// the length, the bytes. At most 329 bytes. The list is part of the relay's wire
    /// format and only ever appended to: audio level, dependency descriptor, absolute
    /// capture time, playout delay, video orientation.
    pub extensions: &'a [u8],
    /// RTP payload. Empty for padding whose place in the sequence was kept.
    pub payload: &'a [u8],
}

/// The publisher's clock, as its last sender report told it. It travels beside the
/// packets, so that sound and pictures agree at the far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayClock {
    /// Index of the encoding in its publication.
    pub encoding: u8,
    /// Life of the encoding (see [`RelayPacket::life`]).
    pub life: u32,
    /// The publisher's wall clock in microseconds of NTP time; wraps with the NTP era.
    pub ntp_micros: u64,
    /// The RTP timestamp at that time.
    pub timestamp: u32,
}
