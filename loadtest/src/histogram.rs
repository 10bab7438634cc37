//! A histogram of durations in microseconds with buckets about 3 % wide, so that
//! millions of values take a few kilobytes and percentiles stay exact enough.

/// Values below this have a bucket each.
const LINEAR: u64 = 64;
/// Buckets of each doubling above.
const PER_DOUBLING: usize = 32;
/// Doublings covered: up to 2^40 us, which is twelve days.
const DOUBLINGS: usize = 34;
const BUCKETS: usize = LINEAR as usize + DOUBLINGS * PER_DOUBLING;

/// Counts of values by size.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    sum: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS].into_boxed_slice(), total: 0, sum: 0, max: 0 }
    }
}

fn bucket(value: u64) -> usize {
    if value < LINEAR {
        return value as usize;
    }
    let doubling = 63 - value.leading_zeros() as usize - 6;
    let within = (value >> (doubling + 1)) as usize - PER_DOUBLING;
    (LINEAR as usize + doubling * PER_DOUBLING + within).min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    if bucket < LINEAR as usize {
        return bucket as u64;
    }
    let above = bucket - LINEAR as usize;
    let (doubling, within) = (above / PER_DOUBLING, above % PER_DOUBLING);
    (((within + PER_DOUBLING + 1) as u64) << (doubling + 1)) - 1
}

impl Histogram {
    /// Counts one value, in microseconds.
    pub fn add(&mut self, micros: u64) {
        self.counts[bucket(micros)] += 1;
        self.total += 1;
        self.sum = self.sum.saturating_add(micros);
        self.max = self.max.max(micros);
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        for (own, other) in self.counts.iter_mut().zip(&other.counts) {
            *own += other;
        }
        self.total += other.total;
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        (self.total, self.sum, self.max) = (0, 0, 0);
    }

    /// Values counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The largest value.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The value below which this share (0 to 1) of all lies, in microseconds, at most
    /// 3 % too large. `None` if nothing was counted.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<u64> {
        if self.total == 0 {
            return None;
        }
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Some(upper(index).min(self.max));
            }
        }
        Some(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_that_holds_it() {
        let mut value = 1_u64;
        while value < 1 << 39 {
            for near in [value - 1, value, value + 1] {
                let top = upper(bucket(near));
                assert!(top >= near, "{near} is above {top}");
                assert!(top as f64 <= near as f64 * 1.04 + 1.0, "{near} is far below {top}");
            }
            value = value * 5 / 4 + 1;
        }
    }

    #[test]
    fn buckets_follow_each_other() {
        for index in 1..BUCKETS - 1 {
            assert_eq!(bucket(upper(index - 1) + 1), index);
        }
    }

    #[test]
    fn quantiles_of_a_thousand_values() {
        let mut all = Histogram::default();
        let mut other = Histogram::default();
        for value in 1..=1000 {
            if value % 2 == 0 { all.add(value) } else { other.add(value) }
        }
        all.merge(&other);
        let near = |share: f64, value: f64| {
            let found = all.quantile(share).unwrap() as f64;
            assert!((found - value).abs() <= value * 0.04, "{found} is not near {value}");
        };
        near(0.5, 500.0);
        near(0.99, 990.0);
        assert_eq!((all.quantile(1.0), all.count()), (Some(1000), 1000));
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}
