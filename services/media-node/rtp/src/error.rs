//! Why bytes of a peer are not a packet, and why a packet does not fit a buffer.

use thiserror::Error;

/// Why bytes are not an RTP packet (RFC 3550 section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RtpError {
    /// Shorter than its fixed header, its CSRC list or its extension block.
    #[error("RTP packet is truncated")]
    Truncated,
    /// The version is not 2.
    #[error("RTP version is not 2")]
    Version,
    /// The padding count is 0 or reaches into the header.
    #[error("RTP padding count is wrong")]
    Padding,
}

/// Why the start of a payload, or a dependency descriptor, cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DescriptorError {
    /// It ends before the fields that it announces.
    #[error("payload descriptor is truncated")]
    Truncated,
    /// A field has a value that the format forbids, or more entries than we keep.
    #[error("payload descriptor is invalid")]
    Invalid,
    /// A dependency descriptor names a template of a structure that we do not have.
    #[error("dependency descriptor names an unknown template")]
    UnknownTemplate,
}

/// Why something cannot be written. The buffer is then as it was up to the length
/// that was valid before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WriteError {
    /// The buffer is too short.
    #[error("buffer is too short")]
    NoRoom,
    /// A value has no place in the format: an extension id of 0 or over 255 bytes of
    /// it, a list longer than its count field, a payload type above 127.
    #[error("value cannot be represented")]
    Unrepresentable,
}
