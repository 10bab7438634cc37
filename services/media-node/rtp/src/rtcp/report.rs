//! Sender and receiver reports, source descriptions and goodbyes (RFC 3550 section 6).

use super::{read_u32, word};
use crate::NtpTime;

pub(super) const REPORT_BLOCK_LEN: usize = 24;
pub(super) const SENDER_INFO_LEN: usize = 20;
const SDES_CNAME: u8 = 1;

/// What a receiver says of one source (RFC 3550 section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    /// The source.
    pub ssrc: u32,
    /// Part of the packets lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the beginning; negative with duplicates. 24 bits.
    pub cumulative_lost: i32,
    /// Highest sequence number, with its cycles in the upper half.
    pub highest_sequence: u32,
    /// Interarrival jitter in units of the codec's clock.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report; 0 if none came.
    pub last_sender_report: u32,
    /// Since that report, in 1/65,536 s.
    pub delay_since_last_sender_report: u32,
}

impl ReportBlock {
    fn read(block: &[u8]) -> Self {
        let lost = word(block, 4);
        Self {
            ssrc: word(block, 0),
            fraction_lost: (lost >> 24) as u8,
            cumulative_lost: (lost << 8).cast_signed() >> 8,
            highest_sequence: word(block, 8),
            jitter: word(block, 12),
            last_sender_report: word(block, 16),
            delay_since_last_sender_report: word(block, 20),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; REPORT_BLOCK_LEN] {
        let lost = self.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff).cast_unsigned() & 0xff_ffff;
        let words = [
            self.ssrc,
            u32::from(self.fraction_lost) << 24 | lost,
            self.highest_sequence,
            self.jitter,
            self.last_sender_report,
            self.delay_since_last_sender_report,
        ];
        let mut out = [0; REPORT_BLOCK_LEN];
        for (slot, word) in out.chunks_exact_mut(4).zip(words) {
            slot.copy_from_slice(&word.to_be_bytes());
        }
        out
    }
}

/// What a sender says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SenderInfo {
    /// The sender.
    pub ssrc: u32,
    /// Wall clock when the report was made.
    pub ntp: NtpTime,
    /// The same moment in units of the codec's clock.
    pub rtp_timestamp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Bytes of payload sent.
    pub bytes: u32,
}

/// Sender report.
#[derive(Debug, Clone, Copy)]
pub struct SenderReport<'a> {
    /// The sender and its clock.
    pub info: SenderInfo,
    blocks: &'a [u8],
}

impl<'a> SenderReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<Self> {
        let info = SenderInfo {
            ssrc: read_u32(body, 0)?,
            ntp: NtpTime(u64::from(read_u32(body, 4)?) << 32 | u64::from(read_u32(body, 8)?)),
            rtp_timestamp: read_u32(body, 12)?,
            packets: read_u32(body, 16)?,
            bytes: read_u32(body, 20)?,
        };
        let start = 4 + SENDER_INFO_LEN;
        let blocks = body.get(start..start + REPORT_BLOCK_LEN * usize::from(count))?;
        Some(Self { info, blocks })
    }

    /// What it says of the sources that it receives, at most 31.
    pub fn blocks(&self) -> impl Iterator<Item = ReportBlock> + use<'a> {
        self.blocks.chunks_exact(REPORT_BLOCK_LEN).map(ReportBlock::read)
    }
}

/// Receiver report.
#[derive(Debug, Clone, Copy)]
pub struct ReceiverReport<'a> {
    /// Who reports.
    pub ssrc: u32,
    blocks: &'a [u8],
}

impl<'a> ReceiverReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<Self> {
        let ssrc = read_u32(body, 0)?;
        let blocks = body.get(4..4 + REPORT_BLOCK_LEN * usize::from(count))?;
        Some(Self { ssrc, blocks })
    }

    /// What it says of the sources that it receives, at most 31.
    pub fn blocks(&self) -> impl Iterator<Item = ReportBlock> + use<'a> {
        self.blocks.chunks_exact(REPORT_BLOCK_LEN).map(ReportBlock::read)
    }
}

/// Source description.
#[derive(Debug, Clone, Copy)]
pub struct SourceDescription<'a> {
    chunks: u8,
    body: &'a [u8],
}

impl<'a> SourceDescription<'a> {
    pub(super) fn parse(chunks: u8, body: &'a [u8]) -> Option<Self> {
        let description = Self { chunks, body };
        let mut walk = description.chunks();
        let complete = (0..chunks).all(|_| walk.next().is_some());
        complete.then_some(description)
    }

    /// The canonical name of each source that has one, as (ssrc, name).
    pub fn cnames(&self) -> impl Iterator<Item = (u32, &'a [u8])> + use<'a> {
        self.chunks().filter_map(|(ssrc, cname)| cname.map(|cname| (ssrc, cname)))
    }

    fn chunks(&self) -> SdesChunks<'a> {
        SdesChunks { left: self.chunks, body: self.body, at: 0 }
    }
}

/// Yields (ssrc, CNAME) of each chunk; ends at the first that overruns the body.
struct SdesChunks<'a> {
    left: u8,
    body: &'a [u8],
    at: usize,
}

impl<'a> Iterator for SdesChunks<'a> {
    type Item = (u32, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let ssrc = read_u32(self.body, self.at)?;
        let mut at = self.at + 4;
        let mut cname = None;
        loop {
            let kind = *self.body.get(at)?;
            if kind == 0 {
                // One to four zero bytes end a chunk on a word.
                self.at = (at + 1).next_multiple_of(4);
                return (self.at <= self.body.len()).then_some((ssrc, cname));
            }
            let len = usize::from(*self.body.get(at + 1)?);
            let text = self.body.get(at + 2..at + 2 + len)?;
            if kind == SDES_CNAME && cname.is_none() {
                cname = Some(text);
            }
            at += 2 + len;
        }
    }
}

/// Goodbye. A reason is not read.
#[derive(Debug, Clone, Copy)]
pub struct Goodbye<'a> {
    sources: &'a [u8],
}

impl<'a> Goodbye<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<Self> {
        Some(Self { sources: body.get(..4 * usize::from(count))? })
    }

    /// The sources that end, at most 31.
    pub fn sources(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.sources.chunks_exact(4).map(|chunk| word(chunk, 0))
    }
}
