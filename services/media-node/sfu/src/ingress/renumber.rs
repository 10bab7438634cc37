//! Packet path: no allocation. Numbers of an encoding without those that carried only
//! padding: subscribers must not see gaps where libwebrtc probed for bandwidth.

use arrayvec::ArrayVec;

/// Runs of padding that are remembered. A packet older than the oldest of them cannot
/// be numbered and is dropped; with a probe every 5 s that is minutes, with a sender
/// that pads between any two frames it is 64 frames.
const RUNS_MAX: usize = 64;

/// A run of padding packets.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// The first number of the run.
    from: u64,
    /// The first number behind it.
    to: u64,
    /// Padding packets up to here, this run included.
    skipped: u64,
}

/// Maps the publisher's numbers to numbers without padding. It is told of padding as
/// the newest packet only: what is padding but late had its number kept already.
#[derive(Debug, Default)]
pub(crate) struct Renumber {
    runs: ArrayVec<Run, RUNS_MAX>,
    /// Skipped before the oldest run.
    skipped_before: u64,
    forgotten_below: u64,
}

impl Renumber {
    /// The number without padding; `None` if it was padding or is too old to tell.
    pub(crate) fn number(&self, sequence: u64) -> Option<u64> {
        let Some(last) = self.runs.last() else {
            return Some(sequence);
        };
        if sequence >= last.to {
            return Some(sequence - last.skipped);
        }
        if sequence < self.forgotten_below {
            return None;
        }
        let before = self.runs.partition_point(|run| run.from <= sequence);
        match before.checked_sub(1) {
            None => Some(sequence - self.skipped_before),
            Some(index) if sequence < self.runs[index].to => None,
            Some(index) => Some(sequence - self.runs[index].skipped),
        }
    }

    /// The newest packet is padding.
    pub(crate) fn skip(&mut self, sequence: u64) {
        let skipped = self.runs.last().map_or(self.skipped_before, |run| run.skipped) + 1;
        if let Some(last) = self.runs.last_mut()
            && last.to == sequence
        {
            last.to += 1;
            last.skipped = skipped;
            return;
        }
        if self.runs.is_full() {
            let oldest = self.runs.remove(0);
            self.skipped_before = oldest.skipped;
            self.forgotten_below = oldest.to;
        }
        self.runs.push(Run { from: sequence, to: sequence + 1, skipped });
    }

    /// Forgets everything: the encoding begins anew.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_leaves_no_gap() {
        let mut renumber = Renumber::default();
        assert_eq!(renumber.number(10), Some(10));
        renumber.skip(12);
        renumber.skip(13);
        assert_eq!(renumber.number(14), Some(12));
        renumber.skip(15);
        assert_eq!(renumber.number(16), Some(13));
        assert_eq!(renumber.number(11), Some(11), "late, before all padding");
        assert_eq!(renumber.number(14), Some(12), "late, between two runs");
        assert_eq!(renumber.number(12), None, "padding that came twice");
    }

    #[test]
    fn numbers_never_collide_while_padding_is_everywhere() {
        let mut renumber = Renumber::default();
        let mut expected = 1_000;
        for sequence in 1_000..3_000 {
            if sequence % 3 == 0 {
                assert_eq!(renumber.number(sequence), Some(expected));
                expected += 1;
            } else {
                renumber.skip(sequence);
            }
        }
        assert_eq!(renumber.number(1_200), None, "too old to tell");
    }
}
