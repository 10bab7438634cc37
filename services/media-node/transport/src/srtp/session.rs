//! One peer's SRTP in both directions. Packet path: no allocation (but for the
//! first packet of an SSRC), lock, formatting or clock read.

use super::cm::CmCipher;
use super::gcm::GcmCipher;
use super::kdf::Derivation;
use super::replay::ReplayWindow;
use super::streams::{StreamTable, estimate_index};
use super::{
    MasterKey, RECEIVE_STREAMS_MAX, SEND_STREAMS_MAX, SRTP_OVERHEAD_MAX, SrtpError, SrtpProfile,
    rtp_header_len, u16_at, u32_at,
};

/// Received RTP: 1024 packets back (RFC 3711 asks for at least 64; a video at
/// 10 Mb/s moves 64 packets in 60 ms).
type ReceiveWindow = ReplayWindow<16>;
/// Received RTCP: 128 compounds back.
type RtcpWindow = ReplayWindow<2>;
/// Sent RTP under GCM: 512 packets back, against nonce reuse.
type SendWindow = ReplayWindow<8>;

enum Cipher {
    Gcm(Box<GcmCipher>),
    Cm(Box<CmCipher>),
}

/// Protects what is sent with one master key and opens what is received with
/// the other. Usable without a [`Transport`](crate::Transport).
///
/// Every packet is handled in place. The caller gives one SSRC's packets in any
/// order; the rollover counter follows the highest sequence number (RFC 3711
/// §3.3.1).
pub struct SrtpSession {
    profile: SrtpProfile,
    outbound: Cipher,
    inbound: Cipher,
    sent: StreamTable<SendWindow>,
    sent_rtcp: StreamTable<u32>,
    received: StreamTable<ReceiveWindow>,
    received_rtcp: StreamTable<RtcpWindow>,
}

impl SrtpSession {
    /// A session with fresh keys.
    ///
    /// # Errors
    /// [`SrtpError::BadKey`] if a key or salt has the wrong length.
    pub fn new(
        profile: SrtpProfile,
        outbound: MasterKey<'_>,
        inbound: MasterKey<'_>,
    ) -> Result<Self, SrtpError> {
        Ok(Self {
            profile,
            outbound: Cipher::new(profile, outbound)?,
            inbound: Cipher::new(profile, inbound)?,
            sent: StreamTable::new(SEND_STREAMS_MAX),
            sent_rtcp: StreamTable::new(SEND_STREAMS_MAX),
            received: StreamTable::new(RECEIVE_STREAMS_MAX),
            received_rtcp: StreamTable::new(RECEIVE_STREAMS_MAX),
        })
    }

    /// The profile in use.
    #[must_use]
    pub const fn profile(&self) -> SrtpProfile {
        self.profile
    }

    /// Protects `packet[..len]`, an RTP packet with a header of `header_len`
    /// bytes (CSRCs and extension included), in place. The slice has
    /// [`SRTP_OVERHEAD_MAX`] bytes of room behind `len`. Returns the total.
    ///
    /// Under GCM a sequence number goes out once only, see
    /// [`SrtpError::NonceReuse`] and [`Self::repeat_rtp`].
    ///
    /// # Errors
    /// [`SrtpError`]; nothing was sent and no state changed.
    pub fn protect_rtp(
        &mut self,
        packet: &mut [u8],
        header_len: usize,
        len: usize,
    ) -> Result<usize, SrtpError> {
        if header_len < 12 || header_len > len {
            return Err(SrtpError::Malformed);
        }
        if packet.len() < len + SRTP_OVERHEAD_MAX {
            return Err(SrtpError::NoRoom);
        }
        let ssrc = u32_at(packet, 8);
        let slot = match self.sent.find(ssrc) {
            Some(slot) => slot,
            None => self.sent.insert(ssrc, SendWindow::new())?,
        };
        let window = self.sent.get_mut(slot);
        let index =
            estimate_index(window.highest(), u16_at(packet, 2)).ok_or(SrtpError::NonceReuse)?;
        if index >> 48 != 0 {
            return Err(SrtpError::KeyExhausted);
        }
        let fresh = window.is_fresh(index);
        let total = match &self.outbound {
            Cipher::Gcm(_) if !fresh => return Err(SrtpError::NonceReuse),
            Cipher::Gcm(cipher) => cipher.seal_rtp(packet, header_len, len, index)?,
            Cipher::Cm(cipher) => cipher.seal_rtp(packet, header_len, len, index)?,
        };
        if fresh {
            window.record(index);
        }
        Ok(total)
    }

    /// Protects a packet that went out before once more, for a retransmission
    /// on its own SSRC. Otherwise like [`Self::protect_rtp`].
    ///
    /// `packet[..len]` must be what it was then, to the byte, header included:
    /// two texts under one nonce give the key away. Only packets of the last 512
    /// are repeated.
    ///
    /// # Errors
    /// [`SrtpError::NonceReuse`] if no such packet is known to have gone out.
    pub fn repeat_rtp(
        &mut self,
        packet: &mut [u8],
        header_len: usize,
        len: usize,
    ) -> Result<usize, SrtpError> {
        if header_len < 12 || header_len > len {
            return Err(SrtpError::Malformed);
        }
        if packet.len() < len + SRTP_OVERHEAD_MAX {
            return Err(SrtpError::NoRoom);
        }
        let slot = self.sent.find(u32_at(packet, 8)).ok_or(SrtpError::NonceReuse)?;
        let window = self.sent.get(slot);
        let index = estimate_index(window.highest(), u16_at(packet, 2))
            .filter(|index| window.has_seen(*index))
            .ok_or(SrtpError::NonceReuse)?;
        match &self.outbound {
            Cipher::Gcm(cipher) => cipher.seal_rtp(packet, header_len, len, index),
            Cipher::Cm(cipher) => cipher.seal_rtp(packet, header_len, len, index),
        }
    }

    /// Opens an SRTP packet in place. Returns the plain length: header and
    /// payload.
    ///
    /// # Errors
    /// [`SrtpError`]; the packet is to be dropped, no state changed.
    pub fn unprotect_rtp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let header_len = rtp_header_len(packet)?;
        let ssrc = u32_at(packet, 8);
        let slot = self.received.find(ssrc);
        if slot.is_none() && !self.received.has_room() {
            return Err(SrtpError::TooManyStreams);
        }
        let window = slot.map(|slot| self.received.get(slot));
        let index = estimate_index(window.and_then(ReplayWindow::highest), u16_at(packet, 2))
            .ok_or(SrtpError::Replayed)?;
        if index >> 48 != 0 {
            return Err(SrtpError::KeyExhausted);
        }
        if window.is_some_and(|window| !window.is_fresh(index)) {
            return Err(SrtpError::Replayed);
        }
        let length = match &self.inbound {
            Cipher::Gcm(cipher) => cipher.open_rtp(packet, header_len, index)?,
            Cipher::Cm(cipher) => cipher.open_rtp(packet, header_len, index)?,
        };
        let slot = match slot {
            Some(slot) => slot,
            None => self.received.insert(ssrc, ReceiveWindow::new())?,
        };
        self.received.get_mut(slot).record(index);
        Ok(length)
    }

    /// Protects `packet[..len]`, an RTCP compound, in place. The slice has
    /// [`SRTP_OVERHEAD_MAX`] bytes of room behind `len`. Returns the total.
    ///
    /// # Errors
    /// [`SrtpError`]; nothing was sent.
    pub fn protect_rtcp(&mut self, packet: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        if len < 8 {
            return Err(SrtpError::Malformed);
        }
        if packet.len() < len + SRTP_OVERHEAD_MAX {
            return Err(SrtpError::NoRoom);
        }
        let ssrc = u32_at(packet, 4);
        let slot = match self.sent_rtcp.find(ssrc) {
            Some(slot) => slot,
            None => self.sent_rtcp.insert(ssrc, 0)?,
        };
        let index = *self.sent_rtcp.get(slot);
        if index >> 31 != 0 {
            return Err(SrtpError::KeyExhausted);
        }
        let total = match &self.outbound {
            Cipher::Gcm(cipher) => cipher.seal_rtcp(packet, len, index)?,
            Cipher::Cm(cipher) => cipher.seal_rtcp(packet, len, index)?,
        };
        *self.sent_rtcp.get_mut(slot) = index + 1;
        Ok(total)
    }

    /// Opens an SRTCP packet in place. Returns the compound's length.
    ///
    /// # Errors
    /// [`SrtpError`]; the packet is to be dropped, no state changed.
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        if packet.len() < 12 || packet[0] >> 6 != 2 {
            return Err(SrtpError::Malformed);
        }
        let ssrc = u32_at(packet, 4);
        let slot = self.received_rtcp.find(ssrc);
        if slot.is_none() && !self.received_rtcp.has_room() {
            return Err(SrtpError::TooManyStreams);
        }
        let index = u64::from(match &self.inbound {
            Cipher::Gcm(_) => GcmCipher::rtcp_index(packet)?,
            Cipher::Cm(_) => CmCipher::rtcp_index(packet)?,
        });
        if slot.is_some_and(|slot| !self.received_rtcp.get(slot).is_fresh(index)) {
            return Err(SrtpError::Replayed);
        }
        let length = match &self.inbound {
            Cipher::Gcm(cipher) => cipher.open_rtcp(packet)?,
            Cipher::Cm(cipher) => cipher.open_rtcp(packet)?,
        };
        let slot = match slot {
            Some(slot) => slot,
            None => self.received_rtcp.insert(ssrc, RtcpWindow::new())?,
        };
        self.received_rtcp.get_mut(slot).record(index);
        Ok(length)
    }
}

impl Cipher {
    fn new(profile: SrtpProfile, master: MasterKey<'_>) -> Result<Self, SrtpError> {
        if master.key.len() != profile.key_len() || master.salt.len() != profile.salt_len() {
            return Err(SrtpError::BadKey);
        }
        let derivation = Derivation::new(master.key, master.salt)?;
        Ok(match profile {
            SrtpProfile::AeadAes128Gcm | SrtpProfile::AeadAes256Gcm => {
                Self::Gcm(Box::new(GcmCipher::new(&derivation, profile.key_len())?))
            }
            SrtpProfile::AesCm128HmacSha1_80 => Self::Cm(Box::new(CmCipher::new(&derivation))),
        })
    }
}
