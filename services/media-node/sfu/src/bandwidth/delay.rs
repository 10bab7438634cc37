//! Sees queues grow: groups of packets are compared by how much further apart they
//! arrive than they were sent (draft-ietf-rmcat-gcc-02 section 5.2), a line is laid
//! through the sum of those differences (in place of section 5.3's Kalman filter, as
//! libwebrtc does), and its slope is held against a threshold that adapts (section 5.4).

/// Packets sent within this time are one group (section 5.2), in microseconds.
const BURST: i32 = 5_000;
/// A group that arrived in one piece is not longer than this.
const BURST_SPAN_MAX: i64 = 100_000;
/// Groups the line goes through: a quarter of a second of pictures and sound.
const WINDOW: usize = 20;
/// Weight of the past in the smoothed delay.
const SMOOTHING: f32 = 0.9;
/// Makes slopes comparable with a threshold in milliseconds.
const GAIN: f32 = 4.0;
const DELTAS_MAX: u32 = 60;
/// The threshold at first and its bounds, in milliseconds (section 5.4).
const THRESHOLD_FIRST: f32 = 12.5;
const THRESHOLD_MIN: f32 = 6.0;
const THRESHOLD_MAX: f32 = 600.0;
/// How fast the threshold rises and falls, for each millisecond (section 5.4: `K_u`, `K_d`).
const THRESHOLD_UP: f32 = 0.0087;
const THRESHOLD_DOWN: f32 = 0.039;
/// A slope this far above the threshold is a leap and does not move it, in milliseconds.
const THRESHOLD_LEAP: f32 = 15.0;
/// The slope has to be above the threshold this long, in milliseconds (section 5.4).
const OVERUSE_TIME: f32 = 10.0;
/// A pause as long as this says nothing of queues, in microseconds.
const PAUSE: i64 = 3_000_000;

/// What the queue on the way does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Usage {
    /// It stays as it is.
    #[default]
    Normal,
    /// It grows.
    Over,
    /// It drains.
    Under,
}

/// Packets that were sent together.
#[derive(Debug, Clone, Copy)]
struct Group {
    first_sent: u32,
    last_sent: u32,
    first_arrival: i64,
    last_arrival: i64,
}

impl Group {
    fn takes(&self, sent: u32, arrival: i64) -> bool {
        if since(sent, self.first_sent) <= BURST {
            return true;
        }
        // Packets that were held up together say nothing of each other.
        let apart = arrival - self.last_arrival;
        let gradient = apart - i64::from(since(sent, self.last_sent));
        apart <= i64::from(BURST) && gradient < 0 && arrival - self.first_arrival < BURST_SPAN_MAX
    }
}

/// Watches one transport's queue.
#[derive(Debug)]
pub(crate) struct DelayDetector {
    previous: Option<Group>,
    current: Option<Group>,
    deltas: u32,
    /// Arrival of the first group, in microseconds.
    origin: i64,
    accumulated: f32,
    smoothed: f32,
    /// Arrival and smoothed delay, in milliseconds.
    points: [(f32, f32); WINDOW],
    next_point: usize,
    slope: f32,
    threshold: f32,
    threshold_at: f32,
    over_for: f32,
    over_count: u32,
    usage: Usage,
}

impl Default for DelayDetector {
    fn default() -> Self {
        Self {
            previous: None,
            current: None,
            deltas: 0,
            origin: 0,
            accumulated: 0.0,
            smoothed: 0.0,
            points: [(0.0, 0.0); WINDOW],
            next_point: 0,
            slope: 0.0,
            threshold: THRESHOLD_FIRST,
            threshold_at: 0.0,
            over_for: 0.0,
            over_count: 0,
            usage: Usage::Normal,
        }
    }
}

impl DelayDetector {
    /// A packet that was sent at a time (low half of microseconds of ours) arrived at a
    /// time (microseconds of the receiver's). Packets come in the order they were sent.
    pub(crate) fn observe(&mut self, sent: u32, arrival: i64) {
        let Some(mut group) = self.current else {
            self.begin(sent, arrival);
            return;
        };
        if since(sent, group.first_sent) < 0 {
            return;
        }
        if (arrival - group.last_arrival).abs() > PAUSE {
            *self = Self { threshold: self.threshold, ..Self::default() };
            self.begin(sent, arrival);
            return;
        }
        if group.takes(sent, arrival) {
            group.last_sent = sent;
            group.last_arrival = group.last_arrival.max(arrival);
            self.current = Some(group);
            return;
        }
        if let Some(previous) = self.previous {
            self.compare(&previous, &group);
        }
        self.previous = Some(group);
        self.current = Some(Group {
            first_sent: sent,
            last_sent: sent,
            first_arrival: arrival,
            last_arrival: arrival,
        });
    }

    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    fn begin(&mut self, sent: u32, arrival: i64) {
        self.origin = arrival;
        self.current = Some(Group {
            first_sent: sent,
            last_sent: sent,
            first_arrival: arrival,
            last_arrival: arrival,
        });
    }

    fn compare(&mut self, before: &Group, after: &Group) {
        let sent_apart = since(after.last_sent, before.last_sent) as f32 / 1_000.0;
        let arrived_apart = (after.last_arrival - before.last_arrival) as f32 / 1_000.0;
        if arrived_apart < 0.0 {
            // Groups overtook each other: the delay of neither says anything.
            return;
        }
        let gradient = arrived_apart - sent_apart;
        let at = (after.last_arrival - self.origin) as f32 / 1_000.0;
        self.deltas = (self.deltas + 1).min(1_000);
        self.accumulated += gradient;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.accumulated;
        self.points[self.next_point] = (at, self.smoothed);
        self.next_point = (self.next_point + 1) % WINDOW;
        let before = self.slope;
        if self.deltas as usize >= WINDOW {
            self.slope = slope(&self.points).unwrap_or(self.slope);
        }
        self.detect(before, sent_apart, at);
    }

    /// Section 5.4.
    fn detect(&mut self, slope_before: f32, sent_apart: f32, at: f32) {
        if self.deltas < 2 {
            return;
        }
        let modified = self.deltas.min(DELTAS_MAX) as f32 * self.slope * GAIN;
        if modified > self.threshold {
            self.over_for += if self.over_count == 0 { sent_apart / 2.0 } else { sent_apart };
            self.over_count += 1;
            let lasts = self.over_for > OVERUSE_TIME && self.over_count > 1;
            if lasts && self.slope >= slope_before {
                self.over_for = 0.0;
                self.over_count = 0;
                self.usage = Usage::Over;
            }
        } else {
            self.over_for = 0.0;
            self.over_count = 0;
            self.usage = if modified < -self.threshold { Usage::Under } else { Usage::Normal };
        }
        self.adapt_threshold(modified, at);
    }

    fn adapt_threshold(&mut self, modified: f32, at: f32) {
        let distance = modified.abs() - self.threshold;
        let elapsed = (at - self.threshold_at).clamp(0.0, 100.0);
        self.threshold_at = at;
        if distance > THRESHOLD_LEAP {
            return;
        }
        let gain = if distance < 0.0 { THRESHOLD_DOWN } else { THRESHOLD_UP };
        self.threshold += gain * distance * elapsed;
        self.threshold = self.threshold.clamp(THRESHOLD_MIN, THRESHOLD_MAX);
    }
}

/// Microseconds from one time to another, both of which wrap.
fn since(later: u32, earlier: u32) -> i32 {
    later.wrapping_sub(earlier).cast_signed()
}

/// Slope of the line of least squares.
fn slope(points: &[(f32, f32)]) -> Option<f32> {
    let count = points.len() as f32;
    let mean_x = points.iter().map(|point| point.0).sum::<f32>() / count;
    let mean_y = points.iter().map(|point| point.1).sum::<f32>() / count;
    let (mut above, mut below) = (0.0, 0.0);
    for (x, y) in points {
        above += (x - mean_x) * (y - mean_y);
        below += (x - mean_x) * (x - mean_x);
    }
    (below > 0.0).then(|| above / below)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Frames every 20 ms; each is held up by what `delay` says, in microseconds.
    fn feed(detector: &mut DelayDetector, frames: i64, delay: impl Fn(i64) -> i64) -> Vec<Usage> {
        (0..frames)
            .map(|frame| {
                let sent = 4_294_000_000_i64 + frame * 20_000;
                for packet in 0..3 {
                    detector.observe(sent as u32, sent + 50_000 + packet * 100 + delay(frame));
                }
                detector.usage()
            })
            .collect()
    }

    #[test]
    fn a_steady_way_is_normal_whatever_its_length() {
        let usages = feed(&mut DelayDetector::default(), 500, |_| 200_000);
        assert!(usages.iter().all(|usage| *usage == Usage::Normal));
    }

    #[test]
    fn a_growing_queue_is_seen_within_half_a_second_and_its_end_soon_after() {
        let mut detector = DelayDetector::default();
        let queue = |frame: i64| match frame {
            0..100 => 0,
            100..150 => (frame - 100) * 6_000,
            _ => 300_000,
        };
        let usages = feed(&mut detector, 300, queue);
        let first = usages.iter().position(|usage| *usage == Usage::Over).unwrap();
        assert!((101..125).contains(&first), "{first}");
        assert_eq!(usages[260..].iter().filter(|usage| **usage == Usage::Over).count(), 0);
    }

    #[test]
    fn a_draining_queue_is_told_apart() {
        let mut detector = DelayDetector::default();
        let usages = feed(&mut detector, 120, |frame| (600_000 - frame * 5_000).max(0));
        assert!(usages.contains(&Usage::Under));
        assert!(!usages.contains(&Usage::Over));
    }

    proptest! {
        #[test]
        fn jitter_without_a_trend_is_rarely_called_overuse(seed in any::<u64>()) {
            let mut random = crate::random::Random::new(seed);
            let delays: Vec<i64> =
                (0..1_000).map(|_| (random.next_u64() % 10_000) as i64).collect();
            let usages =
                feed(&mut DelayDetector::default(), 1_000, |frame| delays[frame as usize]);
            let over = usages.iter().filter(|usage| **usage == Usage::Over).count();
            prop_assert!(over < 50, "{} of 1000", over);
        }
    }
}
