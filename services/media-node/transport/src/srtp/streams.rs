//! State per SSRC in a flat sorted table with a last-used cache, and the packet
//! index (RFC 3711 §3.3.1). Packet path: no allocation except where an SSRC is one
//! more than ever fitted; no lock, formatting or clock read.

use super::SrtpError;

/// SSRCs there is room for from the start: sound and pictures with their repetitions.
const FIRST_ROOM: usize = 4;

/// SSRCs in order, their states beside them. Bounded; never forgets.
#[derive(Debug)]
pub(super) struct StreamTable<S> {
    ssrcs: Vec<u32>,
    states: Vec<S>,
    last: usize,
    max: usize,
}

impl<S> StreamTable<S> {
    pub fn new(max: usize) -> Self {
        let (ssrcs, states) = (Vec::with_capacity(FIRST_ROOM), Vec::with_capacity(FIRST_ROOM));
        Self { ssrcs, states, last: 0, max }
    }

    /// The slot of a known SSRC. Consecutive packets of one SSRC hit the cache.
    pub fn find(&mut self, ssrc: u32) -> Option<usize> {
        if self.ssrcs.get(self.last) == Some(&ssrc) {
            return Some(self.last);
        }
        let slot = self.ssrcs.binary_search(&ssrc).ok()?;
        self.last = slot;
        Some(slot)
    }

    pub fn get(&self, slot: usize) -> &S {
        &self.states[slot]
    }

    pub fn get_mut(&mut self, slot: usize) -> &mut S {
        &mut self.states[slot]
    }

    /// Whether one more SSRC may be added.
    pub fn has_room(&self) -> bool {
        self.ssrcs.len() < self.max
    }

    /// Adds an SSRC that [`Self::find`] did not find.
    pub fn insert(&mut self, ssrc: u32, state: S) -> Result<usize, SrtpError> {
        if !self.has_room() {
            return Err(SrtpError::TooManyStreams);
        }
        let slot = self.ssrcs.partition_point(|known| *known < ssrc);
        self.ssrcs.insert(slot, ssrc);
        self.states.insert(slot, state);
        self.last = slot;
        Ok(slot)
    }
}

/// The 48-bit index that `sequence` most likely has, given the highest index so
/// far (RFC 3711 appendix A). `None` if it would lie before the first wrap.
pub(super) fn estimate_index(highest: Option<u64>, sequence: u16) -> Option<u64> {
    let Some(highest) = highest else {
        return Some(u64::from(sequence));
    };
    let rollover = highest >> 16;
    let distance = sequence.wrapping_sub(highest as u16) as i16;
    let index = (highest as i64) + i64::from(distance);
    debug_assert!(rollover <= u64::from(u32::MAX), "indices are 48 bits");
    u64::try_from(index).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_follows_the_nearest_sequence_number() {
        assert_eq!(estimate_index(None, 7), Some(7));
        assert_eq!(estimate_index(Some(65_535), 0), Some(65_536));
        assert_eq!(estimate_index(Some(65_536), 65_535), Some(65_535));
        assert_eq!(estimate_index(Some(10), 9), Some(9));
        assert_eq!(estimate_index(Some(10), 65_530), None, "before the first wrap");
        assert_eq!(estimate_index(Some((5 << 16) | 40_000), 100), Some((6 << 16) | 100));
    }

    #[test]
    fn a_table_finds_what_it_holds_and_refuses_more() {
        let mut table = StreamTable::new(3);
        for ssrc in [30, 10, 20] {
            table.insert(ssrc, ssrc * 2).unwrap();
        }
        for ssrc in [10, 20, 30, 30, 10] {
            let slot = table.find(ssrc).unwrap();
            assert_eq!(*table.get(slot), ssrc * 2);
        }
        assert_eq!(table.find(11), None);
        assert_eq!(table.insert(40, 0), Err(SrtpError::TooManyStreams));
    }
}
