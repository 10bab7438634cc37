//! AES_CM_128_HMAC_SHA1_80 (RFC 3711 §4.1, §4.2) with the AES key expanded and
//! the HMAC keyed once. Packet path: no allocation, lock, formatting or clock
//! read.

use aes::Aes128Enc;
use aes::cipher::generic_array::GenericArray;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use ctr::CtrCore;
use ctr::flavors::Ctr128BE;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use subtle::ConstantTimeEq;

use super::kdf::{Derivation, Label};
use super::{SrtpError, u32_at};

pub(super) const TAG: usize = 10;
/// The SRTCP index word in front of the tag (RFC 3711 §3.4).
const INDEX: usize = 4;
const ENCRYPTED: u32 = 1 << 31;

/// The session keys of RTP or of RTCP in one direction.
pub(super) struct Keys {
    aes: Aes128Enc,
    salt: [u8; 14],
    mac: Hmac<Sha1>,
}

/// One direction's session keys.
pub(super) struct CmCipher {
    pub rtp: Keys,
    pub rtcp: Keys,
}

impl CmCipher {
    pub fn new(derivation: &Derivation) -> Self {
        Self {
            rtp: Keys::derive(
                derivation,
                [Label::RtpEncryption, Label::RtpAuthentication, Label::RtpSalt],
            ),
            rtcp: Keys::derive(
                derivation,
                [Label::RtcpEncryption, Label::RtcpAuthentication, Label::RtcpSalt],
            ),
        }
    }

    /// Encrypts `packet[header_len..len]`; the tag goes behind. Returns the total.
    pub fn seal_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        len: usize,
        index: u64,
    ) -> Result<usize, SrtpError> {
        if packet.len() < len + TAG {
            return Err(SrtpError::NoRoom);
        }
        let ssrc = u32_at(packet, 8);
        self.rtp.apply_keystream(ssrc, index, &mut packet[header_len..len]);
        let tag = self.rtp.tag(&packet[..len], &rollover(index));
        packet[len..len + TAG].copy_from_slice(&tag);
        Ok(len + TAG)
    }

    /// Checks the tag, then decrypts. Returns the plain length.
    pub fn open_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        index: u64,
    ) -> Result<usize, SrtpError> {
        let len = packet
            .len()
            .checked_sub(TAG)
            .filter(|len| *len >= header_len)
            .ok_or(SrtpError::Malformed)?;
        let tag = self.rtp.tag(&packet[..len], &rollover(index));
        if !bool::from(tag.ct_eq(&packet[len..])) {
            return Err(SrtpError::NotAuthentic);
        }
        let ssrc = u32_at(packet, 8);
        self.rtp.apply_keystream(ssrc, index, &mut packet[header_len..len]);
        Ok(len)
    }

    /// Encrypts a compound behind its first 8 bytes; index and tag go behind.
    pub fn seal_rtcp(&self, packet: &mut [u8], len: usize, index: u32) -> Result<usize, SrtpError> {
        let total = len + INDEX + TAG;
        if packet.len() < total {
            return Err(SrtpError::NoRoom);
        }
        let ssrc = u32_at(packet, 4);
        self.rtcp.apply_keystream(ssrc, u64::from(index), &mut packet[8..len]);
        packet[len..len + INDEX].copy_from_slice(&(index | ENCRYPTED).to_be_bytes());
        let tag = self.rtcp.tag(&packet[..len + INDEX], &[]);
        packet[len + INDEX..total].copy_from_slice(&tag);
        Ok(total)
    }

    /// Checks the tag, then decrypts. Returns the plain length.
    pub fn open_rtcp(&self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let len = packet
            .len()
            .checked_sub(INDEX + TAG)
            .filter(|len| *len >= 8)
            .ok_or(SrtpError::Malformed)?;
        let tag = self.rtcp.tag(&packet[..len + INDEX], &[]);
        if !bool::from(tag.ct_eq(&packet[len + INDEX..])) {
            return Err(SrtpError::NotAuthentic);
        }
        let word = u32_at(packet, len);
        if word & ENCRYPTED == 0 {
            // Authenticated but plain SRTCP: nobody who negotiates DTLS-SRTP sends it.
            return Err(SrtpError::NotAuthentic);
        }
        let ssrc = u32_at(packet, 4);
        self.rtcp.apply_keystream(ssrc, u64::from(word & !ENCRYPTED), &mut packet[8..len]);
        Ok(len)
    }

    /// The index of a received compound, without its encryption bit.
    pub fn rtcp_index(packet: &[u8]) -> Result<u32, SrtpError> {
        let offset = packet.len().checked_sub(INDEX + TAG).ok_or(SrtpError::Malformed)?;
        Ok(u32_at(packet, offset) & !ENCRYPTED)
    }
}

impl Keys {
    pub fn new(key: [u8; 16], salt: [u8; 14], mac_key: [u8; 20]) -> Self {
        Self {
            aes: Aes128Enc::new(&GenericArray::from(key)),
            salt,
            mac: <Hmac<Sha1> as Mac>::new_from_slice(&mac_key)
                .expect("HMAC takes keys of any length"),
        }
    }

    fn derive(derivation: &Derivation, [encryption, authentication, salting]: [Label; 3]) -> Self {
        let mut key = [0; 16];
        let mut mac_key = [0; 20];
        let mut salt = [0; 14];
        derivation.derive(encryption, &mut key);
        derivation.derive(authentication, &mut mac_key);
        derivation.derive(salting, &mut salt);
        Self::new(key, salt, mac_key)
    }

    /// IV = salt·2^16 xor SSRC·2^64 xor index·2^16 (§4.1.1).
    fn apply_keystream(&self, ssrc: u32, index: u64, data: &mut [u8]) {
        let mut iv = [0; 16];
        iv[..14].copy_from_slice(&self.salt);
        for (target, with) in iv[4..8].iter_mut().zip(ssrc.to_be_bytes()) {
            *target ^= with;
        }
        for (target, with) in iv[8..14].iter_mut().zip(&index.to_be_bytes()[2..]) {
            *target ^= with;
        }
        let core =
            CtrCore::<&Aes128Enc, Ctr128BE>::inner_iv_init(&self.aes, &GenericArray::from(iv));
        StreamCipherCoreWrapper::from_core(core).apply_keystream(data);
    }

    fn tag(&self, covered: &[u8], trailer: &[u8]) -> [u8; TAG] {
        let mut mac = self.mac.clone();
        mac.update(covered);
        mac.update(trailer);
        let full = mac.finalize().into_bytes();
        let mut tag = [0; TAG];
        tag.copy_from_slice(&full[..TAG]);
        tag
    }
}

/// The rollover counter of a 48-bit packet index, as it is authenticated.
fn rollover(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}
