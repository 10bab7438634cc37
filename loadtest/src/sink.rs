//! What a receiver notices of one stream: loss, gaps, latency, first frame.

use std::collections::BTreeMap;

use crate::source::{now_micros, read_stamp};

/// Upper bounds of the latency buckets, in microseconds; one more counts the rest.
pub const LATENCY_BOUNDS_MICROS: [u64; 14] =
    [100, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 10_000, 20_000, 50_000, 100_000];

/// A histogram of one-way latencies.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latencies {
    counts: [u64; LATENCY_BOUNDS_MICROS.len() + 1],
}

impl Latencies {
    /// Counts one.
    pub fn add(&mut self, micros: u64) {
        let bucket = LATENCY_BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.counts[bucket] += 1;
    }

    /// Adds those of another.
    pub fn merge(&mut self, other: &Self) {
        for (own, other) in self.counts.iter_mut().zip(other.counts) {
            *own += other;
        }
    }

    /// The bound below which this share (0 to 1) of all lies, in microseconds.
    /// `None` if nothing was counted; the largest bound stands for the rest.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let total: u64 = self.counts.iter().sum();
        if total == 0 {
            return None;
        }
        let wanted = (total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (count, bound) in self.counts.iter().zip(LATENCY_BOUNDS_MICROS) {
            seen += count;
            if seen >= wanted {
                return Some(bound);
            }
        }
        LATENCY_BOUNDS_MICROS.last().copied()
    }
}

/// One stream as its receiver sees it.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    /// Packets received.
    pub packets: u64,
    /// Sequence numbers that never came, as far as known.
    pub lost: u64,
    /// Packets that came again or late.
    pub reordered: u64,
    highest: Option<u16>,
    last_arrival: Option<u64>,
    /// Longest time between two packets, in microseconds.
    pub gap_max_micros: u64,
}

/// All the streams of one receiver.
#[derive(Debug, Clone, Default)]
pub struct Sink {
    streams: BTreeMap<u32, Stream>,
    /// One-way latency of all packets.
    pub latencies: Latencies,
    /// Bytes of RTP received.
    pub bytes: u64,
    /// Time of the first packet, by [`now_micros`].
    pub first_packet: Option<u64>,
    /// Time of the first packet of a keyframe.
    pub first_keyframe: Option<u64>,
}

impl Sink {
    /// Takes one packet: its SSRC, sequence number and payload without padding.
    pub fn receive(&mut self, ssrc: u32, sequence: u16, payload: &[u8], starts_keyframe: bool) {
        let now = now_micros();
        self.first_packet.get_or_insert(now);
        if starts_keyframe {
            self.first_keyframe.get_or_insert(now);
        }
        self.bytes += payload.len() as u64;
        if let Some(sent) = read_stamp(payload) {
            self.latencies.add(now.saturating_sub(sent));
        }
        self.streams.entry(ssrc).or_default().receive(sequence, now);
    }

    /// The streams by SSRC.
    #[must_use]
    pub fn streams(&self) -> &BTreeMap<u32, Stream> {
        &self.streams
    }

    /// Packets of all streams.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.streams.values().map(|stream| stream.packets).sum()
    }

    /// Losses of all streams.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.streams.values().map(|stream| stream.lost).sum()
    }

    /// Begins to measure anew; what was first stays.
    pub fn reset(&mut self) {
        for stream in self.streams.values_mut() {
            *stream = Stream { highest: stream.highest, ..Stream::default() };
        }
        self.latencies = Latencies::default();
        self.bytes = 0;
    }
}

impl Stream {
    fn receive(&mut self, sequence: u16, now: u64) {
        self.packets += 1;
        if let Some(last) = self.last_arrival.replace(now) {
            self.gap_max_micros = self.gap_max_micros.max(now - last);
        }
        let Some(highest) = self.highest else {
            self.highest = Some(sequence);
            return;
        };
        let ahead = sequence.wrapping_sub(highest);
        if ahead == 0 || ahead >= 0x8000 {
            self.reordered += 1;
            self.lost = self.lost.saturating_sub(1);
            return;
        }
        self.lost += u64::from(ahead) - 1;
        self.highest = Some(sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_a_loss_until_it_is_filled() {
        let mut stream = Stream::default();
        for sequence in [65_534, 65_535, 1, 2] {
            stream.receive(sequence, 0);
        }
        assert_eq!(stream.lost, 1);
        stream.receive(0, 0);
        assert_eq!((stream.lost, stream.reordered), (0, 1));
    }

    #[test]
    fn quantiles_name_the_bucket() {
        let mut latencies = Latencies::default();
        for micros in [50, 50, 50, 900] {
            latencies.add(micros);
        }
        assert_eq!(latencies.quantile(0.5), Some(100));
        assert_eq!(latencies.quantile(0.99), Some(1_000));
    }
}
