//! A fingerprint of all that happened in a world: the same seed gives the same one.

use crate::Time;

/// FNV-1a over what happened, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace(u64);

impl Default for Trace {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Trace {
    /// Something happened.
    pub(crate) fn note(&mut self, now: Time, place: u64, bytes: &[u8]) {
        self.word(now.0);
        self.word(place);
        self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }

    /// The fingerprint.
    #[must_use]
    pub fn hash(self) -> u64 {
        self.0
    }
}
