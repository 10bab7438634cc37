//! Feedback messages: generic NACK, PLI (RFC 4585), FIR (RFC 5104), REMB.

use super::{read_u32, word};

pub(super) const REMB_ID: &[u8; 4] = b"REMB";
const COMMON_LEN: usize = 8;
const FIR_ENTRY_LEN: usize = 8;

/// Generic NACK: packets that did not come.
#[derive(Debug, Clone, Copy)]
pub struct Nack<'a> {
    /// Who asks.
    pub sender_ssrc: u32,
    /// Whose packets are missing.
    pub media_ssrc: u32,
    entries: &'a [u8],
}

impl<'a> Nack<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let sender_ssrc = read_u32(body, 0)?;
        let media_ssrc = read_u32(body, 4)?;
        Some(Self { sender_ssrc, media_ssrc, entries: body.get(COMMON_LEN..)? })
    }

    /// The missing sequence numbers in the order of the packet: at most 17 for each
    /// four bytes of it. The same number may come twice.
    pub fn lost(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.entries.chunks_exact(4).flat_map(|entry| {
            let first = u16::from_be_bytes([entry[0], entry[1]]);
            let mask = u16::from_be_bytes([entry[2], entry[3]]);
            let following = (0..16)
                .filter(move |bit| mask >> bit & 1 == 1)
                .map(move |bit| first.wrapping_add(bit + 1));
            core::iter::once(first).chain(following)
        })
    }
}

/// Picture loss indication: a keyframe is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureLossIndication {
    /// Who asks.
    pub sender_ssrc: u32,
    /// Of whom.
    pub media_ssrc: u32,
}

impl PictureLossIndication {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        Some(Self { sender_ssrc: read_u32(body, 0)?, media_ssrc: read_u32(body, 4)? })
    }
}

/// One request of a FIR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirEntry {
    /// Who shall send a keyframe.
    pub ssrc: u32,
    /// Counts requests; a repeated one has the same number.
    pub sequence: u8,
}

/// Full intra request.
#[derive(Debug, Clone, Copy)]
pub struct FullIntraRequest<'a> {
    /// Who asks.
    pub sender_ssrc: u32,
    entries: &'a [u8],
}

impl<'a> FullIntraRequest<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let sender_ssrc = read_u32(body, 0)?;
        let entries = body.get(COMMON_LEN..)?;
        entries.len().is_multiple_of(FIR_ENTRY_LEN).then_some(Self { sender_ssrc, entries })
    }

    /// The requests.
    pub fn entries(&self) -> impl Iterator<Item = FirEntry> + use<'a> {
        self.entries
            .chunks_exact(FIR_ENTRY_LEN)
            .map(|entry| FirEntry { ssrc: word(entry, 0), sequence: entry[4] })
    }
}

/// Receiver estimated maximum bit rate (draft-alvestrand-rmcat-remb-03).
#[derive(Debug, Clone, Copy)]
pub struct Remb<'a> {
    /// Who estimates.
    pub sender_ssrc: u32,
    /// Bits per second; the highest number if it does not fit.
    pub bitrate: u64,
    sources: &'a [u8],
}

impl<'a> Remb<'a> {
    pub(super) fn is_remb(body: &[u8]) -> bool {
        body.get(COMMON_LEN..COMMON_LEN + 4).is_some_and(|id| id == REMB_ID)
    }

    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let sender_ssrc = read_u32(body, 0)?;
        let rate = read_u32(body, 12)?;
        let count = (rate >> 24) as usize;
        let (exponent, mantissa) = (rate >> 18 & 0x3f, u64::from(rate & 0x3_ffff));
        let fits = mantissa.leading_zeros() >= exponent;
        let bitrate = if fits { mantissa << exponent } else { u64::MAX };
        Some(Self { sender_ssrc, bitrate, sources: body.get(16..16 + 4 * count)? })
    }

    /// The sources that share the bit rate, at most 255.
    pub fn sources(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.sources.chunks_exact(4).map(|chunk| word(chunk, 0))
    }
}

/// Exponent and mantissa of a bit rate, rounded down to 18 bits.
pub(super) fn remb_rate(bitrate: u64) -> u32 {
    let bits = u64::BITS - bitrate.leading_zeros();
    let exponent = bits.saturating_sub(18);
    exponent << 18 | (bitrate >> exponent) as u32
}
