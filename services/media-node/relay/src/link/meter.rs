//! Packet path: no allocation. What is measured on a link: time, loss, bytes.

use std::time::Duration;

use super::probe::Probe;

/// What was dropped on a link, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkDrops {
    /// Datagrams or frames that cannot be read.
    pub malformed: u64,
    /// Frames of a handle that was never bound, or is bound no more.
    pub unknown_handle: u64,
    /// Frames of a publisher that was replaced.
    pub stale_epoch: u64,
    /// Frames that passed too many links.
    pub looped: u64,
    /// Frames that did not come from where the track is taken.
    pub wrong_source: u64,
    /// Frames for which the shell's queue had no room.
    pub queue_full: u64,
    /// Datagrams that the path had no room for.
    pub congested: u64,
    /// Announcements beyond the bound of tracks.
    pub too_many_tracks: u64,
    /// Announcements that came back to where they had been.
    pub looped_announcements: u64,
}

/// What was measured and counted on a link since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkStats {
    /// Datagrams with media that were sent.
    pub trains_out: u64,
    /// Frames in them.
    pub frames_out: u64,
    /// Bytes of them.
    pub media_bytes_out: u64,
    /// Frames that went as messages, being too long for a datagram.
    pub long_frames_out: u64,
    /// Heartbeats that were sent.
    pub probes_out: u64,
    /// Bytes of messages that were sent.
    pub message_bytes_out: u64,
    /// Datagrams that arrived, heartbeats included.
    pub datagrams_in: u64,
    /// Bytes of them.
    pub bytes_in: u64,
    /// Frames that arrived.
    pub frames_in: u64,
    /// Trains that did not arrive here.
    pub lost_in: u64,
    /// Trains that did not arrive there, as the other end says.
    pub lost_out: u64,
    /// Packets that were sent again.
    pub repeated_out: u64,
    /// Round-trip time, if measured.
    pub rtt: Option<Duration>,
    /// How long trains take to arrive: half of the shortest round trip, and what they
    /// wait beyond the fastest of them. Smoothed.
    pub one_way: Option<Duration>,
    /// What was dropped.
    pub drops: LinkDrops,
}

/// Measures.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pub(super) stats: LinkStats,
    first: Option<u64>,
    /// Number of the newest train, without wraps.
    highest: u64,
    received: u64,
    rtt_min: Option<Duration>,
    /// The least that the peer's clock was ever behind ours, in microseconds.
    transit_min: Option<u32>,
}

impl Meter {
    /// A train arrived; returns how long it took.
    pub(super) fn train(&mut self, number: u32, sent_micros: u32, now_micros: u32) -> Duration {
        let ahead = number.wrapping_sub(self.highest as u32).cast_signed();
        let number = match self.first {
            None => u64::from(number) + (1 << 32),
            Some(_) => self.highest.saturating_add_signed(i64::from(ahead)),
        };
        let first = *self.first.get_or_insert(number);
        self.first = Some(first.min(number));
        self.highest = self.highest.max(number);
        self.received += 1;
        let (expected, received) = self.arrived();
        self.stats.lost_in = expected.saturating_sub(received);
        let transit = now_micros.wrapping_sub(sent_micros);
        let waited = match self.transit_min {
            Some(least) if transit.wrapping_sub(least).cast_signed() >= 0 => {
                transit.wrapping_sub(least)
            }
            _ => {
                self.transit_min = Some(transit);
                0
            }
        };
        let hop = self.rtt_min.unwrap_or_default() / 2 + Duration::from_micros(waited.into());
        let before = self.stats.one_way.unwrap_or(hop);
        self.stats.one_way = Some((before * 15 + hop) / 16);
        hop
    }

    /// Trains that should have arrived, and those that did.
    pub(super) fn arrived(&self) -> (u64, u64) {
        let expected = self.first.map_or(0, |first| self.highest - first + 1);
        (expected, self.received)
    }

    pub(super) fn probe(&mut self, probe: &Probe, now_micros: u32) {
        self.stats.lost_out = probe.expected.saturating_sub(probe.received);
        if probe.echo_delay == u32::MAX {
            return;
        }
        let elapsed = now_micros.wrapping_sub(probe.echo_micros);
        let rtt = Duration::from_micros(elapsed.saturating_sub(probe.echo_delay).into());
        if rtt > Duration::from_secs(10) {
            return;
        }
        let before = self.stats.rtt.unwrap_or(rtt);
        self.stats.rtt = Some((before * 7 + rtt) / 8);
        self.rtt_min = Some(self.rtt_min.map_or(rtt, |least| least.min(rtt)));
    }

    pub(super) const fn stats(&self) -> LinkStats {
        self.stats
    }
}
