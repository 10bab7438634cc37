//! Numbers that a stranger cannot use for anything: where sequence numbers, timestamps
//! and SSRCs begin. SplitMix64 from the seed that the caller gives; not for secrets.

/// A generator of SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) const fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// A first sequence number: in the lower half, so that SRTP's rollover counter is
    /// not put at risk by the loss of the first packets (RFC 3711 section 3.3.1).
    pub(crate) const fn first_sequence(&mut self) -> u16 {
        (self.next_u64() >> 49) as u16
    }
}
