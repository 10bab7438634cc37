//! SRTP and SRTCP (RFC 3711, RFC 7714) in place and without allocation: no
//! allocation, lock, formatting or clock read per packet. State per SSRC is
//! flat; only the first packet of an SSRC makes room for it.

mod cm;
mod gcm;
mod kdf;
mod replay;
mod session;
mod streams;

pub use session::SrtpSession;

use thiserror::Error;

/// Room that a caller must leave behind a plain packet: the longest that any
/// profile adds to RTP or RTCP (GCM tag and SRTCP index).
pub const SRTP_OVERHEAD_MAX: usize = 20;

/// Receive SSRCs per session and kind (RTP, RTCP): 21 cameras in three layers,
/// each with its retransmission SSRC. A peer that opens more is refused.
pub const RECEIVE_STREAMS_MAX: usize = 128;

/// Send SSRCs per session. They are never forgotten, because an SSRC that came
/// back with its rollover counter at zero would repeat a nonce.
pub const SEND_STREAMS_MAX: usize = 65_536;

/// A protection profile of DTLS-SRTP (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SrtpProfile {
    /// `SRTP_AEAD_AES_128_GCM`: adds 16 bytes to RTP, 20 to RTCP.
    AeadAes128Gcm,
    /// `SRTP_AEAD_AES_256_GCM`: adds 16 bytes to RTP, 20 to RTCP.
    AeadAes256Gcm,
    /// `SRTP_AES128_CM_HMAC_SHA1_80`: adds 10 bytes to RTP, 14 to RTCP.
    AesCm128HmacSha1_80,
}

impl SrtpProfile {
    /// The profile's number in the use_srtp extension.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::AesCm128HmacSha1_80 => 0x0001,
            Self::AeadAes128Gcm => 0x0007,
            Self::AeadAes256Gcm => 0x0008,
        }
    }

    /// Length of the master key in bytes.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 | Self::AeadAes128Gcm => 16,
            Self::AeadAes256Gcm => 32,
        }
    }

    /// Length of the master salt in bytes.
    #[must_use]
    pub const fn salt_len(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 => 14,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
        }
    }

    /// Bytes that protection adds to an RTP packet: the authentication tag.
    #[must_use]
    pub const fn rtp_overhead(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 => 10,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16,
        }
    }

    /// Length of what DTLS exports: two keys and two salts (RFC 5764 §4.2).
    #[must_use]
    pub const fn exported_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }
}

/// Master key and salt of one direction. Wiped from the stack by nobody: keep
/// it short-lived. No `Debug`.
#[derive(Clone, Copy)]
pub struct MasterKey<'a> {
    /// [`SrtpProfile::key_len`] bytes.
    pub key: &'a [u8],
    /// [`SrtpProfile::salt_len`] bytes.
    pub salt: &'a [u8],
}

/// Why a packet was not protected or unprotected. On an error of `unprotect`
/// the packet's bytes are unspecified and must be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SrtpError {
    /// The DTLS handshake has not finished, or the transport is closed.
    #[error("no SRTP keys yet")]
    NotConnected,
    /// Too short, or a header that does not fit.
    #[error("malformed packet")]
    Malformed,
    /// The authentication tag does not match.
    #[error("SRTP authentication failed")]
    NotAuthentic,
    /// Received before, or older than the replay window.
    #[error("replayed or too old")]
    Replayed,
    /// This SSRC would exceed [`RECEIVE_STREAMS_MAX`] or [`SEND_STREAMS_MAX`].
    #[error("too many SSRCs")]
    TooManyStreams,
    /// Sending would use a nonce for a second text under GCM: this sequence
    /// number went out before, or is too old to know. The packet is untouched.
    /// Retransmit by RTX, or say that it is the same packet with
    /// [`SrtpSession::repeat_rtp`].
    #[error("sequence number already used with this key")]
    NonceReuse,
    /// The slice has no room for what the profile adds.
    #[error("no room for the SRTP trailer")]
    NoRoom,
    /// 2^48 packets or 2^31 SRTCP packets: the key is used up.
    #[error("SRTP key exhausted")]
    KeyExhausted,
    /// Key or salt of the wrong length for the profile.
    #[error("wrong key or salt length")]
    BadKey,
}

/// Length of an RTP header with CSRCs and extension, checked against the packet.
fn rtp_header_len(packet: &[u8]) -> Result<usize, SrtpError> {
    if packet.len() < 12 || packet[0] >> 6 != 2 {
        return Err(SrtpError::Malformed);
    }
    let mut length = 12 + 4 * usize::from(packet[0] & 0x0f);
    if packet[0] & 0x10 != 0 {
        let words = packet.get(length + 2..length + 4).ok_or(SrtpError::Malformed)?;
        length += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
    }
    if length > packet.len() {
        return Err(SrtpError::Malformed);
    }
    Ok(length)
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes([bytes[offset], bytes[offset + 1]])
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_be_bytes([bytes[offset], bytes[offset + 1], bytes[offset + 2], bytes[offset + 3]])
}

#[cfg(test)]
mod tests;
