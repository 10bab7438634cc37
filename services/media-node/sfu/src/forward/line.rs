//! Packet path: no allocation. Where a subscriber's sequence numbers, timestamps and
//! picture ids stand against those of the publisher: a line holds as long as nothing
//! is left out, and past lines are kept for packets that come late or are asked for
//! again.

use crate::ingress::ring::Packet;

/// Lines that are remembered. Each picture that is left out begins a new one, so 64
/// are two seconds of a 30 fps stream without its highest layer: longer than any
/// retransmission is useful. They cost 3 kB a subscription.
const LINES_MAX: usize = 64;

/// Highest layers that pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layers {
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
}

impl Layers {
    pub(crate) const ALL: Self = Self { spatial: u8::MAX, temporal: u8::MAX };

    pub(crate) fn pass(self, packet: &Packet) -> bool {
        packet.shape.spatial <= self.spatial && packet.shape.temporal <= self.temporal
    }
}

/// A run of the publisher's numbers that map to a run of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    /// First number of the publisher.
    pub(crate) from: u64,
    /// First number of the publisher behind it; `u64::MAX` while it goes on.
    pub(crate) to: u64,
    /// Our number for `from`; does not wrap.
    pub(crate) out: u64,
    /// Added to timestamps.
    pub(crate) timestamp_offset: u32,
    /// Added to picture ids or frame numbers.
    pub(crate) picture_offset: u16,
    /// Added to TL0PICIDX.
    pub(crate) tl0_offset: u8,
    pub(crate) encoding: u8,
    pub(crate) epoch: u8,
    pub(crate) layers: Layers,
}

impl Line {
    pub(crate) const NONE: Self = Self {
        from: 0,
        to: 0,
        out: 0,
        timestamp_offset: 0,
        picture_offset: 0,
        tl0_offset: 0,
        encoding: 0,
        epoch: 0,
        layers: Layers::ALL,
    };

    pub(crate) fn is_of(&self, encoding: u8, epoch: u8) -> bool {
        self.encoding == encoding && self.epoch == epoch
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        (self.from..self.to).contains(&number)
    }

    /// Our number for one of the publisher that is not before the line.
    pub(crate) fn out_of(&self, number: u64) -> u64 {
        self.out + (number - self.from)
    }

    /// The publisher's number for one of ours, if the closed line has it.
    pub(crate) fn number_of(&self, out: u64) -> Option<u64> {
        let number = self.from.checked_add(out.checked_sub(self.out)?)?;
        (number < self.to).then_some(number)
    }
}

/// Past lines, newest first.
#[derive(Debug)]
pub(crate) struct History {
    lines: Box<[Line; LINES_MAX]>,
    len: usize,
    next: usize,
}

impl Default for History {
    fn default() -> Self {
        Self { lines: Box::new([Line::NONE; LINES_MAX]), len: 0, next: 0 }
    }
}

impl History {
    /// Remembers a closed line; the oldest makes room. Empty lines are not kept.
    pub(crate) fn push(&mut self, line: Line) {
        if line.from >= line.to {
            return;
        }
        self.lines[self.next] = line;
        self.next = (self.next + 1) % LINES_MAX;
        self.len = (self.len + 1).min(LINES_MAX);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Line> {
        let next = self.next + LINES_MAX;
        (1..=self.len).map(move |back| &self.lines[(next - back) % LINES_MAX])
    }
}
