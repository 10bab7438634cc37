//! RTCP compound packets (RFC 3550 section 6): [`Compound`] iterates over typed views
//! that borrow the bytes, [`CompoundWriter`] appends packets to a buffer. Neither
//! allocates.

mod feedback;
mod report;
#[cfg(test)]
mod tests;
mod transport_feedback;
mod writer;

use thiserror::Error;

pub use feedback::{FirEntry, FullIntraRequest, Nack, PictureLossIndication, Remb};
pub use report::{
    Goodbye, ReceiverReport, ReportBlock, SenderInfo, SenderReport, SourceDescription,
};
pub use transport_feedback::{
    Arrival, DELTA_TICK, PacketStatus, REFERENCE_TICK, TransportFeedback, TransportFeedbackHead,
};
pub use writer::CompoundWriter;

const HEADER_LEN: usize = 4;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const TRANSPORT_SPECIFIC_FEEDBACK: u8 = 205;
const PAYLOAD_SPECIFIC_FEEDBACK: u8 = 206;

const FORMAT_NACK: u8 = 1;
const FORMAT_TRANSPORT_CC: u8 = 15;
const FORMAT_PLI: u8 = 1;
const FORMAT_FIR: u8 = 4;
const FORMAT_APPLICATION: u8 = 15;

/// Why bytes are not an RTCP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RtcpError {
    /// A header or its length reaches beyond the bytes. Nothing after it can be read.
    #[error("RTCP packet is truncated")]
    Truncated,
    /// The version is not 2. Nothing after it can be read.
    #[error("RTCP version is not 2")]
    Version,
    /// The padding count is 0 or more than the packet has.
    #[error("RTCP padding count is wrong")]
    Padding,
    /// The body is too short for its counts, or a field in it has a value that its
    /// format forbids. The packets after it can still be read.
    #[error("RTCP packet of type {packet_type} and count {count} is malformed")]
    Malformed {
        /// Packet type.
        packet_type: u8,
        /// Count or format field.
        count: u8,
    },
}

/// One packet of a compound.
#[derive(Debug, Clone, Copy)]
pub enum RtcpPacket<'a> {
    /// Sender report.
    SenderReport(SenderReport<'a>),
    /// Receiver report.
    ReceiverReport(ReceiverReport<'a>),
    /// Source description.
    SourceDescription(SourceDescription<'a>),
    /// Goodbye.
    Goodbye(Goodbye<'a>),
    /// Generic NACK (RFC 4585 section 6.2.1).
    Nack(Nack<'a>),
    /// Picture loss indication (RFC 4585 section 6.3.1).
    PictureLossIndication(PictureLossIndication),
    /// Full intra request (RFC 5104 section 4.3.1).
    FullIntraRequest(FullIntraRequest<'a>),
    /// Receiver estimated maximum bit rate.
    Remb(Remb<'a>),
    /// Transport-wide feedback.
    TransportFeedback(TransportFeedback<'a>),
    /// Something that we do not use: XR, APP, other feedback.
    Other {
        /// Packet type.
        packet_type: u8,
        /// Count or format field.
        count: u8,
    },
}

/// Iterates over the packets of a compound. A malformed body is one `Err` and the
/// iteration goes on behind it; a broken header is one `Err` and the end. Reduced-size
/// compounds (RFC 5506) are taken like any other. Padding ends the compound
/// (RFC 3550 section 6.4.1 allows it only in the last packet).
#[derive(Debug, Clone)]
pub struct Compound<'a> {
    rest: &'a [u8],
}

impl<'a> Compound<'a> {
    /// Reads plain (not encrypted) RTCP.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn split(&mut self) -> Result<(u8, u8, &'a [u8]), RtcpError> {
        let bytes = core::mem::take(&mut self.rest);
        let head: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(RtcpError::Truncated)?;
        if head[0] >> 6 != 2 {
            return Err(RtcpError::Version);
        }
        let len = HEADER_LEN + 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
        let mut body = bytes.get(HEADER_LEN..len).ok_or(RtcpError::Truncated)?;
        if head[0] & 0x20 == 0 {
            self.rest = &bytes[len..];
        } else {
            let padding = usize::from(*body.last().ok_or(RtcpError::Padding)?);
            // RFC 3550 wants a multiple of four; transport-wide feedback has one to three.
            if padding == 0 || padding > body.len() {
                return Err(RtcpError::Padding);
            }
            body = &body[..body.len() - padding];
        }
        Ok((head[1], head[0] & 0x1f, body))
    }
}

impl<'a> Iterator for Compound<'a> {
    type Item = Result<RtcpPacket<'a>, RtcpError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (packet_type, count, body) = match self.split() {
            Ok(parts) => parts,
            Err(error) => return Some(Err(error)),
        };
        Some(
            parse_body(packet_type, count, body).ok_or(RtcpError::Malformed { packet_type, count }),
        )
    }
}

fn parse_body(packet_type: u8, count: u8, body: &[u8]) -> Option<RtcpPacket<'_>> {
    let packet = match (packet_type, count) {
        (SENDER_REPORT, _) => RtcpPacket::SenderReport(SenderReport::parse(count, body)?),
        (RECEIVER_REPORT, _) => RtcpPacket::ReceiverReport(ReceiverReport::parse(count, body)?),
        (SOURCE_DESCRIPTION, _) => {
            RtcpPacket::SourceDescription(SourceDescription::parse(count, body)?)
        }
        (GOODBYE, _) => RtcpPacket::Goodbye(Goodbye::parse(count, body)?),
        (TRANSPORT_SPECIFIC_FEEDBACK, FORMAT_NACK) => RtcpPacket::Nack(Nack::parse(body)?),
        (TRANSPORT_SPECIFIC_FEEDBACK, FORMAT_TRANSPORT_CC) => {
            RtcpPacket::TransportFeedback(TransportFeedback::parse(body)?)
        }
        (PAYLOAD_SPECIFIC_FEEDBACK, FORMAT_PLI) => {
            RtcpPacket::PictureLossIndication(PictureLossIndication::parse(body)?)
        }
        (PAYLOAD_SPECIFIC_FEEDBACK, FORMAT_FIR) => {
            RtcpPacket::FullIntraRequest(FullIntraRequest::parse(body)?)
        }
        (PAYLOAD_SPECIFIC_FEEDBACK, FORMAT_APPLICATION) if Remb::is_remb(body) => {
            RtcpPacket::Remb(Remb::parse(body)?)
        }
        _ => RtcpPacket::Other { packet_type, count },
    };
    Some(packet)
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A word of a slice that was cut into chunks of whole words.
fn word(chunk: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([chunk[at], chunk[at + 1], chunk[at + 2], chunk[at + 3]])
}
