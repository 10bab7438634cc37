//! Packet path: no allocation. The wire format of relayed media: a packet of an encoding
//! behind a compact header, and trains of such frames that share a datagram.
//!
//! ```text
//! train:  version and kind (1) | number (4) | sent, µs (4) | { length (2) | frame } …
//! frame:  flags (1) | encoding and hops (1) | handle (4) | epoch (2) | life (4) |
//!         sequence (6) | timestamp (4) | codec (1) | age, µs (4) |
//!         [ length (2) | extensions ] | payload
//! clock:  flags (1) | encoding and hops (1) | handle (4) | epoch (2) | life (4) |
//!         NTP, µs (8) | timestamp (4)
//! ```
//!
//! The handle names room and track; the link's control messages bound it. Relays change
//! hops and age, nothing else.

use std::time::Duration;

use headwater_sfu::{RELAY_SEQUENCE_MAX, RelayClock, RelayPacket};

use crate::codec::{Malformed, Reader};

/// Version of the wire format of datagrams.
pub const FRAME_VERSION: u8 = 1;
/// Kinds of datagrams, in the low half of their first byte.
pub(crate) const KIND_TRAIN: u8 = 0;
pub(crate) const KIND_PROBE: u8 = 1;
/// Bytes before the first frame of a train.
pub const TRAIN_HEAD: usize = 9;
/// Bytes of a frame without extensions and payload, its length included.
pub const FRAME_HEAD: usize = 2 + 27;
/// Shards that a packet may pass. Trees are three links deep, so the longest way is up
/// three and down three.
pub const HOPS_MAX: u8 = 8;
/// Longest packed extensions.
pub const EXTENSIONS_MAX: usize = 329;
/// Longest payload; what the forwarding core's ring takes.
pub const PAYLOAD_MAX: usize = 1_536;

const FLAG_MARKER: u8 = 1;
const FLAG_KEYFRAME: u8 = 1 << 1;
const FLAG_REPEATED: u8 = 1 << 2;
const FLAG_EXTENSIONS: u8 = 1 << 3;
const FLAG_CLOCK: u8 = 1 << 7;

/// What a relay knows of a frame besides the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameTag {
    /// Room and track, as bound on this link.
    pub handle: u32,
    /// Low bits of the origin's epoch of the track: a stale publisher is told apart.
    pub epoch: u16,
    /// Links it has passed before this one.
    pub hops: u8,
    /// It was sent before; the child asked for it.
    pub repeated: bool,
    /// Time since it arrived at its origin, in microseconds; `u32::MAX` is more.
    pub age_micros: u32,
}

/// One frame of a train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A packet.
    Media(FrameTag, RelayPacket<'a>),
    /// A publisher's clock.
    Clock(FrameTag, RelayClock),
}

impl<'a> Frame<'a> {
    /// Length on the wire, with its length field.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Media(_, packet) => media_len(packet),
            Self::Clock(..) => 2 + 24,
        }
    }

    /// Never true: a frame has a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Appends it with its length.
    pub fn write(&self, out: &mut Vec<u8>) {
        let body = self.len() - 2;
        out.extend_from_slice(&(body as u16).to_be_bytes());
        match self {
            Self::Media(tag, packet) => write_media(tag, packet, out),
            Self::Clock(tag, clock) => write_clock(tag, clock, out),
        }
    }

    /// Reads one frame without its length.
    ///
    /// # Errors
    /// If it is cut, or a field is out of its range.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body, "relay frame");
        let flags = reader.u8()?;
        let place = reader.u8()?;
        let (encoding, hops) = (place >> 4, place & 0x0f);
        if encoding >= 8 {
            return Err(reader.malformed());
        }
        let handle = reader.u32()?;
        let epoch = reader.u16()?;
        let life = reader.u32()?;
        if flags & FLAG_CLOCK != 0 {
            let tag = FrameTag { handle, epoch, hops, ..FrameTag::default() };
            let (ntp_micros, timestamp) = (reader.u64()?, reader.u32()?);
            return Ok(Self::Clock(tag, RelayClock { encoding, life, ntp_micros, timestamp }));
        }
        let sequence = reader.u48()?;
        let timestamp = reader.u32()?;
        let codec = reader.u8()?;
        let age_micros = reader.u32()?;
        let extensions: &[u8] = match flags & FLAG_EXTENSIONS != 0 {
            true => {
                let len = usize::from(reader.u16()?);
                if len > EXTENSIONS_MAX {
                    return Err(reader.malformed());
                }
                reader.take(len)?
            }
            false => &[],
        };
        let payload = reader.rest();
        if payload.len() > PAYLOAD_MAX {
            return Err(reader.malformed());
        }
        let tag =
            FrameTag { handle, epoch, hops, repeated: flags & FLAG_REPEATED != 0, age_micros };
        let packet = RelayPacket {
            encoding,
            life,
            sequence,
            timestamp,
            codec,
            marker: flags & FLAG_MARKER != 0,
            keyframe: flags & FLAG_KEYFRAME != 0,
            held: Duration::ZERO,
            extensions,
            payload,
        };
        Ok(Self::Media(tag, packet))
    }
}

/// Length of a packet on the wire, with the length field of its frame.
pub(crate) const fn media_len(packet: &RelayPacket<'_>) -> usize {
    let extensions = if packet.extensions.is_empty() { 0 } else { 2 + packet.extensions.len() };
    FRAME_HEAD + extensions + packet.payload.len()
}

fn write_head(flags: u8, encoding: u8, tag: &FrameTag, life: u32, out: &mut Vec<u8>) {
    out.push(flags);
    out.push(encoding << 4 | (tag.hops & 0x0f));
    out.extend_from_slice(&tag.handle.to_be_bytes());
    out.extend_from_slice(&tag.epoch.to_be_bytes());
    out.extend_from_slice(&life.to_be_bytes());
}

fn write_media(tag: &FrameTag, packet: &RelayPacket<'_>, out: &mut Vec<u8>) {
    let flag = |on: bool, bit: u8| if on { bit } else { 0 };
    let flags = flag(packet.marker, FLAG_MARKER)
        | flag(packet.keyframe, FLAG_KEYFRAME)
        | flag(tag.repeated, FLAG_REPEATED)
        | flag(!packet.extensions.is_empty(), FLAG_EXTENSIONS);
    write_head(flags, packet.encoding, tag, packet.life, out);
    let sequence = packet.sequence.min(RELAY_SEQUENCE_MAX).to_be_bytes();
    out.extend_from_slice(&sequence[2..]);
    out.extend_from_slice(&packet.timestamp.to_be_bytes());
    out.push(packet.codec);
    out.extend_from_slice(&tag.age_micros.to_be_bytes());
    if !packet.extensions.is_empty() {
        out.extend_from_slice(&(packet.extensions.len() as u16).to_be_bytes());
        out.extend_from_slice(packet.extensions);
    }
    out.extend_from_slice(packet.payload);
}

fn write_clock(tag: &FrameTag, clock: &RelayClock, out: &mut Vec<u8>) {
    write_head(FLAG_CLOCK, clock.encoding, tag, clock.life, out);
    out.extend_from_slice(&clock.ntp_micros.to_be_bytes());
    out.extend_from_slice(&clock.timestamp.to_be_bytes());
}

/// A train that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Train<'a> {
    /// Number of the datagram on its link.
    pub number: u32,
    /// The sender's clock when it was sent, in microseconds; wraps.
    pub sent_micros: u32,
    frames: &'a [u8],
}

impl<'a> Train<'a> {
    /// Reads the head of a datagram that holds a train.
    ///
    /// # Errors
    /// If it is none, or of another version.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(datagram, "relay train");
        if reader.u8()? != FRAME_VERSION << 4 | KIND_TRAIN {
            return Err(reader.malformed());
        }
        Ok(Self { number: reader.u32()?, sent_micros: reader.u32()?, frames: reader.rest() })
    }

    /// The frames. One that cannot be read is an error, and those behind it are still
    /// read; where a length leads out of the train it ends.
    pub fn frames(&self) -> impl Iterator<Item = Result<Frame<'a>, Malformed>> + use<'a> {
        let mut reader = Reader::new(self.frames, "relay train");
        std::iter::from_fn(move || {
            if reader.rest().is_empty() {
                return None;
            }
            let body = reader.u16().and_then(|len| reader.take(usize::from(len)));
            if body.is_err() {
                reader = Reader::new(&[], "relay train");
            }
            Some(body.and_then(Frame::parse))
        })
    }
}

/// Writes the head of a train into an empty buffer.
pub(crate) fn begin_train(number: u32, out: &mut Vec<u8>) {
    out.clear();
    out.push(FRAME_VERSION << 4 | KIND_TRAIN);
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
}

/// Sets the time of sending of a train that is complete.
pub(crate) fn stamp_train(sent_micros: u32, train: &mut [u8]) {
    if let Some(slot) = train.get_mut(5..TRAIN_HEAD) {
        slot.copy_from_slice(&sent_micros.to_be_bytes());
    }
}

#[cfg(test)]
mod tests;
