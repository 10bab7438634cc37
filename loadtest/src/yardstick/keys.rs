//! AES-128-GCM as SRTP uses it (RFC 7714), straight on `ring`: a key, and the state of
//! one receiver.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::anyhow;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Bytes behind each packet.
pub const TAG_BYTES: usize = 16;

/// A key with its salt.
#[derive(Clone)]
pub struct StreamKey {
    key: Arc<LessSafeKey>,
    salt: [u8; 12],
}

impl StreamKey {
    /// A fresh key.
    ///
    /// # Errors
    /// If `ring` refuses it.
    pub fn random() -> anyhow::Result<Self> {
        let bytes: [u8; 16] = rand::random();
        let key = UnboundKey::new(&AES_128_GCM, &bytes).map_err(|_| anyhow!("bad key"))?;
        Ok(Self { key: Arc::new(LessSafeKey::new(key)), salt: rand::random() })
    }

    /// Salt xor (SSRC, roll-over counter, sequence number): RFC 7714 section 8.1.
    fn nonce(&self, packet: &[u8], index: u64) -> Nonce {
        let mut nonce = self.salt;
        let index = index.to_be_bytes();
        for (byte, word) in nonce[2..].iter_mut().zip(packet[8..12].iter().chain(&index[2..])) {
            *byte ^= word;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// Protects `packet[..len]` in place and returns the total.
    ///
    /// # Errors
    /// If there is no room for the tag.
    pub fn seal(
        &self,
        packet: &mut [u8],
        header_len: usize,
        len: usize,
        index: u64,
    ) -> anyhow::Result<usize> {
        if packet.len() < len + TAG_BYTES || header_len > len || header_len < 12 {
            return Err(anyhow!("no room"));
        }
        let nonce = self.nonce(packet, index);
        let (header, rest) = packet.split_at_mut(header_len);
        let (payload, behind) = rest.split_at_mut(len - header_len);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(header), payload)
            .map_err(|_| anyhow!("cannot encrypt"))?;
        behind[..TAG_BYTES].copy_from_slice(tag.as_ref());
        Ok(len + TAG_BYTES)
    }

    /// Opens a packet in place and returns its plain length; `None` if it is not of
    /// this key.
    pub fn open(&self, packet: &mut [u8], header_len: usize, index: u64) -> Option<usize> {
        if packet.len() < header_len + TAG_BYTES || header_len < 12 {
            return None;
        }
        let nonce = self.nonce(packet, index);
        let (header, rest) = packet.split_at_mut(header_len);
        let plain = self.key.open_in_place(nonce, Aad::from(header), rest).ok()?;
        Some(header_len + plain.len())
    }
}

/// One receiver: where it is, its key, and what it has had.
#[derive(Clone)]
pub struct Receiver {
    /// Where it is.
    pub address: SocketAddr,
    /// Its key.
    pub key: StreamKey,
    /// Its SSRC.
    pub ssrc: u32,
    /// Packets sent to it.
    pub sent: u64,
    /// Added to timestamps.
    pub timestamp_offset: u32,
}

impl Receiver {
    /// Writes its own SSRC, sequence number and timestamp into a packet; returns the
    /// packet's index for the key.
    pub fn rewrite(&mut self, packet: &mut [u8]) -> u64 {
        let index = self.sent;
        self.sent += 1;
        let timestamp = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
        packet[2..4].copy_from_slice(&(index as u16).to_be_bytes());
        let timestamp = timestamp.wrapping_add(self.timestamp_offset);
        packet[4..8].copy_from_slice(&timestamp.to_be_bytes());
        packet[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        index
    }
}

#[cfg(test)]
mod tests {
    use headwater_transport::{MasterKey, SrtpProfile, SrtpSession};

    use super::*;

    #[test]
    fn what_is_sealed_is_opened_by_the_same_key_alone() {
        let (key, other) = (StreamKey::random().unwrap(), StreamKey::random().unwrap());
        let mut packet = [0x55; 100];
        packet[0] = 0x80;
        let total = key.seal(&mut packet, 12, 80, 5).unwrap();
        let mut copy = packet;
        assert_eq!(other.open(&mut copy[..total], 12, 5), None);
        let mut copy = packet;
        assert_eq!(key.open(&mut copy[..total], 12, 6), None);
        assert_eq!(key.open(&mut packet[..total], 12, 5), Some(80));
        assert_eq!(packet[12..80], [0x55; 68]);
    }

    #[test]
    fn it_costs_what_srtp_costs() {
        // The same length as a real session makes: the loop does the same work.
        let master = [1; 16];
        let salt = [2; 12];
        let keys = || MasterKey { key: &master, salt: &salt };
        let mut session = SrtpSession::new(SrtpProfile::AeadAes128Gcm, keys(), keys()).unwrap();
        let mut packet = [0; 200];
        packet[0] = 0x80;
        let theirs = session.protect_rtp(&mut packet, 12, 100).unwrap();
        let mut packet = [0; 200];
        packet[0] = 0x80;
        let ours = StreamKey::random().unwrap().seal(&mut packet, 12, 100, 0).unwrap();
        assert_eq!(ours, theirs);
    }

    #[test]
    fn a_receiver_counts_on_by_itself() {
        let mut receiver = Receiver {
            address: SocketAddr::from(([127, 0, 0, 1], 9)),
            key: StreamKey::random().unwrap(),
            ssrc: 7,
            sent: 65_535,
            timestamp_offset: 1,
        };
        let mut packet = [0xff; 12];
        assert_eq!(receiver.rewrite(&mut packet), 65_535);
        assert_eq!(packet[2..12], [0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(receiver.rewrite(&mut packet), 65_536);
        assert_eq!(packet[2..4], [0, 0]);
    }
}
