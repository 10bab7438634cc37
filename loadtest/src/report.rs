//! What a run measured, as JSON and as a few lines for people.

use serde_json::{Value, json};

use crate::sink::Latencies;

/// Figures of one run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Name of the scenario.
    pub scenario: String,
    /// Subscribers that joined.
    pub subscribers: usize,
    /// Subscribers that received video.
    pub receiving: usize,
    /// Seconds measured, after everybody had joined.
    pub seconds: f64,
    /// RTP packets all subscribers received in that time.
    pub packets: u64,
    /// Packets that never came.
    pub lost: u64,
    /// One-way latency of all packets.
    pub latencies: Latencies,
    /// Time from the start of the join to the first keyframe, one a subscriber, in ms.
    pub first_keyframe_ms: Vec<f64>,
    /// Time from the start of the join to a connected transport, in ms.
    pub connected_ms: Vec<f64>,
    /// Longest time between two packets of a stream, worst of all, in ms.
    pub gap_max_ms: f64,
    /// Processor time of the server in the measured time, in seconds.
    pub server_cpu_seconds: Option<f64>,
    /// Processor time of this process in the measured time, in seconds.
    pub own_cpu_seconds: f64,
    /// Resident memory of the server before anybody joined, in KiB.
    pub server_memory_before_kib: Option<u64>,
    /// The same at the end of the measured time.
    pub server_memory_loaded_kib: Option<u64>,
    /// Frames that the publishers sent later than half a frame interval.
    pub late_frames: u64,
    /// Frames sent.
    pub frames: u64,
}

/// The value below which this share (0 to 1) of the values lies; `None` if there are none.
#[must_use]
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = ((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1);
    sorted.get(index).copied()
}

impl Report {
    /// Packets received by subscribers for each second of the server's processor time.
    #[must_use]
    pub fn packets_per_cpu_second(&self) -> Option<f64> {
        self.server_cpu_seconds
            .filter(|seconds| *seconds > 0.0)
            .map(|seconds| self.packets as f64 / seconds)
    }

    /// Server memory that each subscriber costs, in KiB.
    #[must_use]
    pub fn memory_per_subscriber_kib(&self) -> Option<f64> {
        let grown = self.server_memory_loaded_kib?.saturating_sub(self.server_memory_before_kib?);
        (self.subscribers > 0).then(|| grown as f64 / self.subscribers as f64)
    }

    /// Whether the load itself was what it should be: hardly a frame was late.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.frames > 0 && self.late_frames * 50 <= self.frames
    }

    /// The report as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "scenario": self.scenario,
            "valid": self.is_valid(),
            "subscribers": self.subscribers,
            "receiving": self.receiving,
            "seconds": self.seconds,
            "packets": self.packets,
            "lost": self.lost,
            "packets_per_second": self.packets as f64 / self.seconds.max(0.001),
            "packets_per_server_cpu_second": self.packets_per_cpu_second(),
            "latency_p50_us": self.latencies.quantile(0.5),
            "latency_p99_us": self.latencies.quantile(0.99),
            "gap_max_ms": self.gap_max_ms,
            "connected_p50_ms": quantile(&self.connected_ms, 0.5),
            "connected_p95_ms": quantile(&self.connected_ms, 0.95),
            "first_keyframe_p50_ms": quantile(&self.first_keyframe_ms, 0.5),
            "first_keyframe_p95_ms": quantile(&self.first_keyframe_ms, 0.95),
            "server_cpu_seconds": self.server_cpu_seconds,
            "own_cpu_seconds": self.own_cpu_seconds,
            "server_memory_before_kib": self.server_memory_before_kib,
            "server_memory_loaded_kib": self.server_memory_loaded_kib,
            "memory_per_subscriber_kib": self.memory_per_subscriber_kib(),
            "frames": self.frames,
            "late_frames": self.late_frames,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_few_values() {
        let values = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!(quantile(&values, 0.5), Some(3.0));
        assert_eq!(quantile(&values, 0.95), Some(5.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn a_run_whose_frames_came_late_is_invalid() {
        let late = Report { frames: 100, late_frames: 10, ..Report::default() };
        assert!(!late.is_valid());
    }
}
