//! Appends RTCP packets to a buffer, one after the other, as one compound.

use super::feedback::{REMB_ID, remb_rate};
use super::report::REPORT_BLOCK_LEN;
use super::transport_feedback::write_body;
use super::{
    Arrival, FORMAT_APPLICATION, FORMAT_FIR, FORMAT_NACK, FORMAT_PLI, FORMAT_TRANSPORT_CC,
    FirEntry, GOODBYE, HEADER_LEN, PAYLOAD_SPECIFIC_FEEDBACK, RECEIVER_REPORT, ReportBlock,
    SENDER_REPORT, SOURCE_DESCRIPTION, SenderInfo, TRANSPORT_SPECIFIC_FEEDBACK,
    TransportFeedbackHead,
};
use crate::WriteError;

/// Sources, blocks or chunks that the count field of one packet holds.
const COUNT_MAX: usize = 31;

/// Writes a compound into a buffer. A packet that does not fit is an error and leaves
/// what was written before as it is.
///
/// A full compound begins with a report and a CNAME (RFC 3550 section 6.1); with
/// `a=rtcp-rsize` feedback may go alone (RFC 5506).
#[derive(Debug)]
pub struct CompoundWriter<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> CompoundWriter<'a> {
    /// An empty compound at the start of a buffer.
    #[must_use]
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// Bytes written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What was written.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Ends the compound and returns its length.
    #[must_use]
    pub fn finish(self) -> usize {
        self.len
    }

    /// Appends a sender report with at most 31 blocks.
    ///
    /// # Errors
    /// [`WriteError`] if it does not fit or there are more blocks.
    pub fn sender_report(
        &mut self,
        info: &SenderInfo,
        blocks: &[ReportBlock],
    ) -> Result<(), WriteError> {
        let mut packet = self.packet(SENDER_REPORT, count_of(blocks.len())?)?;
        packet.word(info.ssrc)?;
        packet.word((info.ntp.0 >> 32) as u32)?;
        packet.word(info.ntp.0 as u32)?;
        packet.word(info.rtp_timestamp)?;
        packet.word(info.packets)?;
        packet.word(info.bytes)?;
        packet.blocks(blocks)?;
        packet.close()
    }

    /// Appends a receiver report with at most 31 blocks; none is allowed.
    ///
    /// # Errors
    /// [`WriteError`] if it does not fit or there are more blocks.
    pub fn receiver_report(&mut self, ssrc: u32, blocks: &[ReportBlock]) -> Result<(), WriteError> {
        let mut packet = self.packet(RECEIVER_REPORT, count_of(blocks.len())?)?;
        packet.word(ssrc)?;
        packet.blocks(blocks)?;
        packet.close()
    }

    /// Appends a source description with the canonical name of one source, at most 255
    /// bytes.
    ///
    /// # Errors
    /// [`WriteError`] if it does not fit or the name is longer.
    pub fn cname(&mut self, ssrc: u32, cname: &str) -> Result<(), WriteError> {
        let len = u8::try_from(cname.len()).map_err(|_| WriteError::Unrepresentable)?;
        let mut packet = self.packet(SOURCE_DESCRIPTION, 1)?;
        packet.word(ssrc)?;
        packet.bytes(&[1, len])?;
        packet.bytes(cname.as_bytes())?;
        // At least one zero ends the chunk.
        let end = 2 + cname.len();
        packet.bytes(&[0; 4][..4 - end % 4])?;
        packet.close()
    }

    /// Appends a goodbye of at most 31 sources.
    ///
    /// # Errors
    /// [`WriteError`] if it does not fit or there are more sources.
    pub fn goodbye(&mut self, sources: &[u32]) -> Result<(), WriteError> {
        let mut packet = self.packet(GOODBYE, count_of(sources.len())?)?;
        for source in sources {
            packet.word(*source)?;
        }
        packet.close()
    }

    /// Appends a generic NACK. Numbers that follow each other within 16 share an
    /// entry, so give them in rising order. Nothing is written if there are none.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`] if it does not fit.
    pub fn nack(
        &mut self,
        sender_ssrc: u32,
        media_ssrc: u32,
        lost: impl IntoIterator<Item = u16>,
    ) -> Result<(), WriteError> {
        let mut lost = lost.into_iter();
        let Some(mut first) = lost.next() else {
            return Ok(());
        };
        let mut packet = self.packet(TRANSPORT_SPECIFIC_FEEDBACK, FORMAT_NACK)?;
        packet.word(sender_ssrc)?;
        packet.word(media_ssrc)?;
        let mut mask = 0_u16;
        for sequence in lost {
            match sequence.wrapping_sub(first) {
                0 => {}
                step @ 1..=16 => mask |= 1 << (step - 1),
                _ => {
                    packet.word(u32::from(first) << 16 | u32::from(mask))?;
                    (first, mask) = (sequence, 0);
                }
            }
        }
        packet.word(u32::from(first) << 16 | u32::from(mask))?;
        packet.close()
    }

    /// Appends a picture loss indication.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`] if it does not fit.
    pub fn picture_loss_indication(
        &mut self,
        sender_ssrc: u32,
        media_ssrc: u32,
    ) -> Result<(), WriteError> {
        let mut packet = self.packet(PAYLOAD_SPECIFIC_FEEDBACK, FORMAT_PLI)?;
        packet.word(sender_ssrc)?;
        packet.word(media_ssrc)?;
        packet.close()
    }

    /// Appends a full intra request.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`] if it does not fit.
    pub fn full_intra_request(
        &mut self,
        sender_ssrc: u32,
        entries: &[FirEntry],
    ) -> Result<(), WriteError> {
        let mut packet = self.packet(PAYLOAD_SPECIFIC_FEEDBACK, FORMAT_FIR)?;
        packet.word(sender_ssrc)?;
        packet.word(0)?;
        for entry in entries {
            packet.word(entry.ssrc)?;
            packet.word(u32::from(entry.sequence) << 24)?;
        }
        packet.close()
    }

    /// Appends a receiver estimated maximum bit rate in bits per second, rounded down
    /// to 18 significant bits, for at most 255 sources.
    ///
    /// # Errors
    /// [`WriteError`] if it does not fit or there are more sources.
    pub fn remb(
        &mut self,
        sender_ssrc: u32,
        bitrate: u64,
        sources: &[u32],
    ) -> Result<(), WriteError> {
        let count = u8::try_from(sources.len()).map_err(|_| WriteError::Unrepresentable)?;
        let mut packet = self.packet(PAYLOAD_SPECIFIC_FEEDBACK, FORMAT_APPLICATION)?;
        packet.word(sender_ssrc)?;
        packet.word(0)?;
        packet.bytes(REMB_ID)?;
        packet.word(u32::from(count) << 24 | remb_rate(bitrate))?;
        for source in sources {
            packet.word(*source)?;
        }
        packet.close()
    }

    /// Appends a transport-wide feedback and returns how many of the arrivals it
    /// holds. `arrivals` rise in sequence number, without repetition. A feedback ends
    /// early where the buffer does, where two arrivals are more than 8.19 s apart or
    /// where it spans 65,535 packets: call again with the rest and the base sequence
    /// behind the last one. It may end in padding, so it goes last in its compound.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`] if not even the first arrival fits,
    /// [`WriteError::Unrepresentable`] if there is none or it is before the base.
    pub fn transport_feedback(
        &mut self,
        head: &TransportFeedbackHead,
        arrivals: &[Arrival],
    ) -> Result<usize, WriteError> {
        let in_range = arrivals.first().is_some_and(|first| {
            let gap = first.sequence.checked_sub(head.base_sequence);
            gap.is_some_and(|gap| gap < u64::from(u16::MAX))
        });
        if !in_range {
            return Err(WriteError::Unrepresentable);
        }
        let packet = self.packet(TRANSPORT_SPECIFIC_FEEDBACK, FORMAT_TRANSPORT_CC)?;
        let body = write_body(head, arrivals, &mut packet.writer.buffer[packet.at..])
            .ok_or(WriteError::NoRoom)?;
        let start = packet.start;
        Packet { at: packet.at + body.len, ..packet }.close()?;
        if body.padding > 0 {
            self.buffer[start] |= 0x20;
        }
        Ok(body.arrivals)
    }

    fn packet<'w>(&'w mut self, packet_type: u8, count: u8) -> Result<Packet<'w, 'a>, WriteError> {
        let start = self.len;
        let head = self.buffer.get_mut(start..start + HEADER_LEN).ok_or(WriteError::NoRoom)?;
        head.copy_from_slice(&[0x80 | count, packet_type, 0, 0]);
        Ok(Packet { writer: self, start, at: start + HEADER_LEN })
    }
}

fn count_of(len: usize) -> Result<u8, WriteError> {
    if len > COUNT_MAX { Err(WriteError::Unrepresentable) } else { Ok(len as u8) }
}

/// A packet being written. It counts only once it is closed.
struct Packet<'w, 'a> {
    writer: &'w mut CompoundWriter<'a>,
    start: usize,
    at: usize,
}

impl Packet<'_, '_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let end = self.at + bytes.len();
        let slot = self.writer.buffer.get_mut(self.at..end).ok_or(WriteError::NoRoom)?;
        slot.copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    fn word(&mut self, word: u32) -> Result<(), WriteError> {
        self.bytes(&word.to_be_bytes())
    }

    fn blocks(&mut self, blocks: &[ReportBlock]) -> Result<(), WriteError> {
        blocks.iter().try_for_each(|block| {
            let bytes: [u8; REPORT_BLOCK_LEN] = block.to_bytes();
            self.bytes(&bytes)
        })
    }

    fn close(self) -> Result<(), WriteError> {
        let words = (self.at - self.start) / 4 - 1;
        let words = u16::try_from(words).map_err(|_| WriteError::NoRoom)?;
        self.writer.buffer[self.start + 2..self.start + 4].copy_from_slice(&words.to_be_bytes());
        self.writer.len = self.at;
        Ok(())
    }
}
