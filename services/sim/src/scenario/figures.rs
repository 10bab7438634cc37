//! What a run came to, in numbers.

use std::time::Duration;

use super::Run;
use super::list::{CUT, RESTORED};
use crate::net::LinkStats;
use crate::{SubscriberReport, Time};

/// Length of the windows in which a capped link is looked at, in seconds.
const WINDOW: usize = 2;

/// The node's view of a subscriber at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// When.
    pub at: Time,
    /// What the node believes the way to carry, in bits per second.
    pub estimate: Option<u64>,
}

impl Sample {
    pub(super) fn take(run: &Run) -> Self {
        let transport = run.world.transport(run.watched);
        let estimate = run.world.node(run.node).sfu().estimate(transport);
        Self { at: run.world.now(), estimate: estimate.map(|rate| rate.bps()) }
    }
}

/// Figures of the watched subscriber of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// From joining to the first frame.
    pub first_frame: Option<Duration>,
    /// Frames shown a second, from the first frame on.
    pub frame_rate: f64,
    /// Freezes by WebRTC's measure.
    pub freezes: u64,
    /// Freezes above 500 ms.
    pub long_freezes: usize,
    /// The longest time between two frames.
    pub longest_gap: Duration,
    /// Mean time from capture to showing.
    pub latency: Duration,
    /// Part of the sound that never came, in percent.
    pub audio_lost: f64,
    /// Part of the sound that was made up, in percent: lost, or too late.
    pub audio_concealed: f64,
    /// Received kbit/s from the time of convergence on, headers included.
    pub received_kbps: f64,
    /// Encoding shown at the end.
    pub layer: Option<u8>,
    /// Of a capped link: what was sent beyond its capacity from convergence on, over
    /// windows of two seconds, in percent of the capacity.
    pub overshoot: Option<f64>,
    /// The worst such window, in percent of its capacity.
    pub overshoot_worst: Option<f64>,
    /// Of a capped link: packets that its queue dropped, in percent.
    pub queue_dropped: f64,
    /// Longest wait in the queue from convergence on, as the 95th percentile of seconds.
    pub queue_delay: Duration,
    /// Sequence numbers the subscriber asked for again, for each packet lost on its way or
    /// the publisher's.
    pub nacks_per_loss: f64,
    /// Sequence numbers the subscriber asked for again, each time counted.
    pub nacks: u64,
    /// Packets lost on its way or the publisher's.
    pub lost: u64,
    /// Keyframe requests the subscriber sent.
    pub keyframe_requests: u64,
    /// Keyframe requests that reached the publisher since the subscriber joined.
    pub keyframe_requests_up: u64,
    /// From the cut to a lower layer shown.
    pub layer_down: Option<Duration>,
    /// From the end of the cut to the highest layer shown.
    pub layer_up: Option<Duration>,
}

impl Figures {
    pub(super) fn of(run: &Run) -> Self {
        let report =
            run.world.subscriber(run.watched).map(crate::Subscriber::report).unwrap_or_default();
        let scenario = &run.scenario;
        let video = report.video.first().cloned().unwrap_or_default();
        let audio = report.audio.first().cloned().unwrap_or_default();
        let down = run.world.down(run.watched);
        let watched = video.first_frame.map_or(0.0, |at| scenario.ends.since(at).as_secs_f64());
        let cut = !scenario.changes.is_empty();
        let over = overshoot(run, down);
        let lost = down.lost + down.dropped + run.world.up(run.publisher).lost;
        Self {
            first_frame: video.first_frame.map(|at| at.since(scenario.joins)),
            frame_rate: if watched > 0.0 { video.frames as f64 / watched } else { 0.0 },
            freezes: video.freezes,
            long_freezes: video.long_freezes.len(),
            longest_gap: video.longest_gap,
            latency: video.latency_mean(),
            audio_lost: 100.0 * audio.residual_loss(),
            audio_concealed: 100.0 * audio.concealment(),
            received_kbps: received(&report, scenario.converged, scenario.ends),
            layer: video.layers.last().map(|(_, layer)| *layer),
            overshoot: over.map(|(mean, _)| mean),
            overshoot_worst: over.map(|(_, worst)| worst),
            queue_dropped: 100.0 * down.dropped as f64 / down.offered.max(1) as f64,
            queue_delay: queue_delay(down, scenario.converged),
            nacks_per_loss: (video.nacked + audio.nacked) as f64 / lost.max(1) as f64,
            nacks: video.nacked + audio.nacked,
            lost,
            keyframe_requests: video.keyframe_requests,
            keyframe_requests_up: run.keyframe_requests_since_join(),
            layer_down: cut.then(|| first_layer(&video.layers, CUT, |layer| layer < 2)).flatten(),
            layer_up: cut
                .then(|| first_layer(&video.layers, RESTORED, |layer| layer == 2))
                .flatten(),
        }
    }
}

/// From a time to the first change to a fitting layer; zero if it fits already.
fn first_layer(layers: &[(Time, u8)], from: Time, fits: impl Fn(u8) -> bool) -> Option<Duration> {
    let behind = layers.partition_point(|(at, _)| *at <= from);
    if layers[..behind].last().is_some_and(|(_, layer)| fits(*layer)) {
        return Some(Duration::ZERO);
    }
    layers[behind..].iter().find(|(_, layer)| fits(*layer)).map(|(at, _)| at.since(from))
}

fn received(report: &SubscriberReport, from: Time, to: Time) -> f64 {
    let seconds = from.second()..to.second().min(report.received_bytes.len());
    let count = seconds.len().max(1);
    let bytes: u64 = report.received_bytes.get(seconds).unwrap_or(&[]).iter().sum();
    bytes as f64 * 8.0 / 1_000.0 / count as f64
}

/// What was offered beyond capacity, in percent of it: over all windows, and in the worst.
/// Windows that a change of the rate touches, or the ten seconds behind it, do not count.
fn overshoot(run: &Run, down: &LinkStats) -> Option<(f64, f64)> {
    let rate_at = |at: Time| {
        let changes = &run.scenario.changes;
        let last = changes.iter().rev().find(|(since, _)| *since <= at);
        last.map_or(run.scenario.watched.down.rate, |(_, weather)| weather.rate)
    };
    let settles = |second: usize| {
        let at = Time::from_secs(second as u64);
        run.scenario.changes.iter().any(|(since, _)| {
            at.plus(Duration::from_secs(WINDOW as u64)) > *since
                && at < since.plus(Duration::from_secs(10))
        })
    };
    let (mut beyond, mut capacity, mut worst) = (0.0, 0.0, 0.0_f64);
    let end = run.scenario.ends.second().min(down.offered_bytes.len());
    let mut second = run.scenario.converged.second();
    while second + WINDOW <= end {
        if !settles(second) {
            let room = rate_at(Time::from_secs(second as u64))? as f64 / 8.0 * WINDOW as f64;
            let offered: u64 = down.offered_bytes[second..second + WINDOW].iter().sum();
            let excess = (offered as f64 - room).max(0.0);
            beyond += excess;
            capacity += room;
            worst = worst.max(excess / room);
        }
        second += WINDOW;
    }
    (capacity > 0.0).then(|| (100.0 * beyond / capacity, 100.0 * worst))
}

fn queue_delay(down: &LinkStats, from: Time) -> Duration {
    let mut delays: Vec<Duration> = down.queue_delay.iter().skip(from.second()).copied().collect();
    delays.sort_unstable();
    delays.get(delays.len() * 95 / 100).or(delays.last()).copied().unwrap_or_default()
}
