//! AEAD_AES_128_GCM and AEAD_AES_256_GCM on `ring` (RFC 7714). Packet path: no
//! allocation, lock, formatting or clock read.

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::kdf::{Derivation, Label};
use super::{SrtpError, u32_at};

pub(super) const TAG: usize = 16;
/// The SRTCP index word behind the tag (RFC 7714 §9.2).
const INDEX: usize = 4;
const ENCRYPTED: u32 = 1 << 31;

/// A session key and salt of RTP or of RTCP.
pub(super) struct Keys {
    key: LessSafeKey,
    salt: [u8; 12],
}

impl Keys {
    /// A key of 16 or 32 bytes.
    pub fn new(key: &[u8], salt: [u8; 12]) -> Result<Self, SrtpError> {
        let algorithm = if key.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
        let key = UnboundKey::new(algorithm, key).map_err(|_| SrtpError::BadKey)?;
        Ok(Self { key: LessSafeKey::new(key), salt })
    }

    fn derive(
        derivation: &Derivation,
        key_len: usize,
        [encryption, salting]: [Label; 2],
    ) -> Result<Self, SrtpError> {
        let mut key = [0; 32];
        let mut salt = [0; 12];
        let key = key.get_mut(..key_len).ok_or(SrtpError::BadKey)?;
        derivation.derive(encryption, key);
        derivation.derive(salting, &mut salt);
        Self::new(key, salt)
    }
}

/// One direction's session keys.
pub(super) struct GcmCipher {
    pub rtp: Keys,
    pub rtcp: Keys,
}

impl GcmCipher {
    pub fn new(derivation: &Derivation, key_len: usize) -> Result<Self, SrtpError> {
        Ok(Self {
            rtp: Keys::derive(derivation, key_len, [Label::RtpEncryption, Label::RtpSalt])?,
            rtcp: Keys::derive(derivation, key_len, [Label::RtcpEncryption, Label::RtcpSalt])?,
        })
    }

    /// Seals `packet[header_len..len]`; the tag goes behind. Returns the total.
    pub fn seal_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        len: usize,
        index: u64,
    ) -> Result<usize, SrtpError> {
        let nonce = rtp_nonce(&self.rtp.salt, u32_at(packet, 8), index);
        let (header, rest) = packet.split_at_mut(header_len);
        let (payload, room) = rest.split_at_mut(len - header_len);
        seal(&self.rtp.key, nonce, header, payload, room)?;
        Ok(len + TAG)
    }

    /// Opens `packet[header_len..]`. Returns the plain length.
    pub fn open_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        index: u64,
    ) -> Result<usize, SrtpError> {
        let total = packet.len();
        if total < header_len + TAG {
            return Err(SrtpError::Malformed);
        }
        let nonce = rtp_nonce(&self.rtp.salt, u32_at(packet, 8), index);
        let (header, sealed) = packet.split_at_mut(header_len);
        open(&self.rtp.key, nonce, header, sealed)?;
        Ok(total - TAG)
    }

    /// Seals a compound: 8 header bytes stay plain, then tag and index.
    pub fn seal_rtcp(&self, packet: &mut [u8], len: usize, index: u32) -> Result<usize, SrtpError> {
        if packet.len() < len + TAG + INDEX {
            return Err(SrtpError::NoRoom);
        }
        let nonce = rtcp_nonce(&self.rtcp.salt, u32_at(packet, 4), index);
        let word = (index | ENCRYPTED).to_be_bytes();
        let aad = rtcp_aad(packet, word);
        let (payload, room) = packet[8..].split_at_mut(len - 8);
        seal(&self.rtcp.key, nonce, &aad, payload, room)?;
        packet[len + TAG..len + TAG + INDEX].copy_from_slice(&word);
        Ok(len + TAG + INDEX)
    }

    /// Opens a compound whose index word says that it is encrypted.
    pub fn open_rtcp(&self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let total = packet.len();
        if total < 8 + TAG + INDEX {
            return Err(SrtpError::Malformed);
        }
        let word = u32_at(packet, total - INDEX);
        if word & ENCRYPTED == 0 {
            // Authenticated but plain SRTCP: nobody who negotiates DTLS-SRTP sends it.
            return Err(SrtpError::NotAuthentic);
        }
        let nonce = rtcp_nonce(&self.rtcp.salt, u32_at(packet, 4), word & !ENCRYPTED);
        let aad = rtcp_aad(packet, word.to_be_bytes());
        open(&self.rtcp.key, nonce, &aad, &mut packet[8..total - INDEX])?;
        Ok(total - TAG - INDEX)
    }

    /// The index of a received compound, without its encryption bit.
    pub fn rtcp_index(packet: &[u8]) -> Result<u32, SrtpError> {
        let offset = packet.len().checked_sub(INDEX).ok_or(SrtpError::Malformed)?;
        Ok(u32_at(packet, offset) & !ENCRYPTED)
    }
}

/// Two zero bytes, SSRC, rollover counter, sequence number, xor salt (§8.1).
fn rtp_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    let mut nonce = *salt;
    xor(&mut nonce[2..6], ssrc.to_be_bytes());
    xor6(&mut nonce[6..12], index);
    Nonce::assume_unique_for_key(nonce)
}

/// Two zero bytes, SSRC, two zero bytes, SRTCP index, xor salt (§9.1).
fn rtcp_nonce(salt: &[u8; 12], ssrc: u32, index: u32) -> Nonce {
    let mut nonce = *salt;
    xor(&mut nonce[2..6], ssrc.to_be_bytes());
    xor(&mut nonce[8..12], index.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn xor(target: &mut [u8], with: [u8; 4]) {
    for (target, with) in target.iter_mut().zip(with) {
        *target ^= with;
    }
}

fn xor6(target: &mut [u8], index: u64) {
    for (target, with) in target.iter_mut().zip(&index.to_be_bytes()[2..]) {
        *target ^= with;
    }
}

fn rtcp_aad(packet: &[u8], word: [u8; 4]) -> [u8; 12] {
    let mut aad = [0; 12];
    aad[..8].copy_from_slice(&packet[..8]);
    aad[8..].copy_from_slice(&word);
    aad
}

fn seal(
    key: &LessSafeKey,
    nonce: Nonce,
    aad: &[u8],
    payload: &mut [u8],
    room: &mut [u8],
) -> Result<(), SrtpError> {
    let room = room.get_mut(..TAG).ok_or(SrtpError::NoRoom)?;
    let tag = key
        .seal_in_place_separate_tag(nonce, Aad::from(aad), payload)
        .map_err(|_| SrtpError::Malformed)?;
    room.copy_from_slice(tag.as_ref());
    Ok(())
}

fn open(key: &LessSafeKey, nonce: Nonce, aad: &[u8], sealed: &mut [u8]) -> Result<(), SrtpError> {
    key.open_in_place(nonce, Aad::from(aad), sealed).map(drop).map_err(|_| SrtpError::NotAuthentic)
}
