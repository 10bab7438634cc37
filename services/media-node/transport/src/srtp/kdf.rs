//! SRTP key derivation (RFC 3711 §4.3, RFC 6188 for 256-bit keys, RFC 7714 §11
//! for GCM): AES in counter mode over the salt and a label, rate zero.

use aes::cipher::generic_array::GenericArray;
use aes::cipher::{BlockEncrypt, KeyInit};
use aes::{Aes128Enc, Aes256Enc};

use super::SrtpError;

/// Which session key is derived.
#[derive(Debug, Clone, Copy)]
pub(super) enum Label {
    RtpEncryption = 0,
    RtpAuthentication = 1,
    RtpSalt = 2,
    RtcpEncryption = 3,
    RtcpAuthentication = 4,
    RtcpSalt = 5,
}

/// The pseudo-random function of one master key and salt.
pub(super) enum Derivation {
    Aes128(Box<Aes128Enc>, [u8; 16]),
    Aes256(Box<Aes256Enc>, [u8; 16]),
}

impl Derivation {
    /// `key` of 16 or 32 bytes; `salt` of 12 or 14, padded with zeros at the end.
    pub fn new(key: &[u8], salt: &[u8]) -> Result<Self, SrtpError> {
        let mut block = [0; 16];
        block
            .get_mut(..salt.len())
            .filter(|part| part.len() <= 14)
            .ok_or(SrtpError::BadKey)?
            .copy_from_slice(salt);
        if let Ok(aes) = Aes128Enc::new_from_slice(key) {
            Ok(Self::Aes128(Box::new(aes), block))
        } else if let Ok(aes) = Aes256Enc::new_from_slice(key) {
            Ok(Self::Aes256(Box::new(aes), block))
        } else {
            Err(SrtpError::BadKey)
        }
    }

    /// Fills `out`, whose length is the session key's.
    pub fn derive(&self, label: Label, out: &mut [u8]) {
        let (Self::Aes128(_, salt) | Self::Aes256(_, salt)) = self;
        let mut input = *salt;
        input[7] ^= label as u8;
        for (counter, chunk) in out.chunks_mut(16).enumerate() {
            let mut block = GenericArray::from(input);
            // Session keys are at most 32 bytes: the counter stays below 256.
            block[15] = counter as u8;
            match self {
                Self::Aes128(aes, _) => aes.encrypt_block(&mut block),
                Self::Aes256(aes, _) => aes.encrypt_block(&mut block),
            }
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
    }
}
