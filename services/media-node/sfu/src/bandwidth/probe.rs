//! Probes: for a moment more is sent than the estimate says, to see whether it arrives.
//! A forwarder cannot turn up an encoder, so without probes an estimate would never rise
//! from what the smallest layers use. A probe is a few bursts, made of packets that the
//! subscriber has already (RTX) or of padding, and short: it fills no queue to speak of.

use super::history::SentPacket;
use crate::clock::Micros;

/// Bursts of one probe and their distance, which is that of the timers that send them.
/// Three spans of 10 ms are twice libwebrtc's 15 ms, because ours are coarser.
pub(crate) const BURSTS: u8 = 4;
pub(crate) const BURST_INTERVAL: Micros = Micros::from_millis(10);
/// A probe is not above this many times the estimate: the queue it makes if there is no
/// more room is then about 60 ms long.
const GOAL_FACTOR: u64 = 3;
/// Time between probes at first, and after many that found nothing. A way that became
/// wider is noticed after the longer time at most.
const INTERVAL_FIRST: Micros = Micros::from_millis(1_500);
const INTERVAL_MAX: Micros = Micros::from_millis(5_000);
/// After one that found more, the next comes soon.
const INTERVAL_FOUND: Micros = Micros::from_millis(400);
/// Nothing is probed this soon after the rate fell: the queue has to drain first.
const CALM: Micros = Micros::from_millis(1_000);
/// Feedback of a probe comes within this time or never.
const PATIENCE: Micros = Micros::from_millis(1_000);
/// Less of a probe arrived than this part: it says nothing.
const ARRIVED_MIN: f64 = 0.7;
/// What arrives slower than this part of what was sent found the limit.
const SATURATED: f64 = 0.9;
/// And so much of it can be used.
const SATURATED_SHARE: f64 = 0.95;

/// A probe under way, by the transport-wide numbers it has.
#[derive(Debug, Clone, Copy)]
struct Cluster {
    goal_bps: u64,
    began: Micros,
    bursts: u8,
    last_burst: Micros,
    first: Option<u16>,
    /// The last number, once all has been sent.
    last: Option<u16>,
    bytes_sent: u64,
    seen: Seen,
}

/// What arrived of a probe.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    bytes: u64,
    first_sent: Option<u32>,
    last_sent: u32,
    first_arrival: i64,
    last_arrival: i64,
    /// Bytes with the first and with the last time of sending.
    first_bytes: u64,
    last_bytes: u64,
}

/// Decides when to probe, and what a probe found.
#[derive(Debug)]
pub(crate) struct Prober {
    cluster: Option<Cluster>,
    next_at: Micros,
    interval: Micros,
}

impl Default for Prober {
    fn default() -> Self {
        Self { cluster: None, next_at: Micros::ZERO, interval: INTERVAL_FIRST }
    }
}

impl Prober {
    /// Begins a probe if one is due: `wanted_bps` is what could be used, and the rate
    /// last fell at `reduced`.
    pub(crate) fn begin(
        &mut self,
        now: Micros,
        estimate_bps: u64,
        wanted_bps: u64,
        reduced: Option<Micros>,
    ) -> bool {
        if let Some(cluster) = self.cluster {
            if now.since(cluster.began) < PATIENCE {
                return false;
            }
            self.fail(now);
        }
        let calm = reduced.is_none_or(|at| now.since(at) >= CALM);
        if now < self.next_at || !calm || wanted_bps <= estimate_bps {
            return false;
        }
        let goal_bps = wanted_bps.min(estimate_bps.saturating_mul(GOAL_FACTOR));
        self.cluster = Some(Cluster {
            goal_bps,
            began: now,
            bursts: 0,
            last_burst: now,
            first: None,
            last: None,
            bytes_sent: 0,
            seen: Seen::default(),
        });
        true
    }

    /// Bytes that the next burst is to have, and whether it is the last; `None` if no
    /// probe is under way. `next` is the transport-wide number that its first packet has.
    pub(crate) fn next_burst(&mut self, now: Micros, next: u16) -> Option<(usize, bool)> {
        let cluster = self.cluster.as_mut().filter(|cluster| cluster.last.is_none())?;
        let span = if cluster.bursts == 0 {
            BURST_INTERVAL
        } else {
            now.since(cluster.last_burst).min(Micros(2 * BURST_INTERVAL.0))
        };
        cluster.first.get_or_insert(next);
        cluster.bursts += 1;
        cluster.last_burst = now;
        let bytes = cluster.goal_bps * span.0 / 8_000_000;
        Some((bytes as usize, cluster.bursts >= BURSTS))
    }

    /// A burst was sent; `last` is its last number if it ends the probe.
    pub(crate) fn sent(&mut self, now: Micros, bytes: usize, last: Option<u16>) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.bytes_sent += bytes as u64;
        cluster.last = last;
        if last.is_some() && cluster.bytes_sent == 0 {
            // There was nothing to probe with.
            self.fail(now);
        }
    }

    /// A packet arrived, at a time in microseconds of the receiver's clock.
    pub(crate) fn observe(&mut self, sequence: u16, packet: SentPacket, arrival: i64) {
        let Some(cluster) = &mut self.cluster else { return };
        let Some(first) = cluster.first else { return };
        let is_before = sequence.wrapping_sub(first) >= 0x8000;
        let is_behind = cluster.last.is_some_and(|last| last.wrapping_sub(sequence) >= 0x8000);
        if is_before || is_behind {
            return;
        }
        let seen = &mut cluster.seen;
        let size = u64::from(packet.size);
        seen.bytes += size;
        match seen.first_sent {
            None => {
                seen.first_sent = Some(packet.sent);
                seen.first_arrival = arrival;
                seen.last_arrival = arrival;
                seen.first_bytes = size;
            }
            Some(sent) if sent == packet.sent => {
                seen.first_bytes += size;
                // The measure begins when the first burst is through.
                seen.first_arrival = seen.first_arrival.max(arrival);
            }
            Some(_) => {}
        }
        seen.last_bytes = if seen.last_sent == packet.sent { seen.last_bytes + size } else { size };
        seen.last_sent = packet.sent;
        seen.last_arrival = seen.last_arrival.max(arrival);
    }

    /// Feedback up to `newest` has been seen: what the probe found, in bits per second, if
    /// it is over now.
    pub(crate) fn result(&mut self, now: Micros, newest: u16, estimate_bps: u64) -> Option<u64> {
        let cluster = self.cluster?;
        let is_complete = cluster.last.is_some_and(|last| newest.wrapping_sub(last) < 0x8000);
        if !is_complete {
            return None;
        }
        let found = measure(&cluster).filter(|bps| *bps > estimate_bps);
        match found {
            Some(bps) => {
                self.cluster = None;
                self.interval = INTERVAL_FIRST;
                self.next_at = now.plus(INTERVAL_FOUND);
                Some(bps)
            }
            None => {
                self.fail(now);
                None
            }
        }
    }

    /// The rate fell: a probe under way is void, and the next waits.
    pub(crate) fn hold_off(&mut self, now: Micros) {
        self.cluster = None;
        self.next_at = self.next_at.max(now.plus(CALM));
    }

    fn fail(&mut self, now: Micros) {
        self.cluster = None;
        self.next_at = now.plus(self.interval);
        self.interval = Micros(self.interval.0 * 2).min(INTERVAL_MAX);
    }
}

/// The lower of the rates at which a probe was sent and arrived. Of the first burst only
/// the end counts, of the last only the beginning, as spans are between bursts.
fn measure(cluster: &Cluster) -> Option<u64> {
    let seen = &cluster.seen;
    if (seen.bytes as f64) < ARRIVED_MIN * cluster.bytes_sent as f64 {
        return None;
    }
    let sent_span = seen.last_sent.wrapping_sub(seen.first_sent?);
    let arrival_span = seen.last_arrival - seen.first_arrival;
    if sent_span == 0 || sent_span >= 1_000_000 || arrival_span <= 0 {
        return None;
    }
    let sent = (seen.bytes - seen.last_bytes) as f64 * 8e6 / f64::from(sent_span);
    let arrived = (seen.bytes - seen.first_bytes) as f64 * 8e6 / arrival_span as f64;
    let bps =
        if arrived < SATURATED * sent { SATURATED_SHARE * arrived } else { sent.min(arrived) };
    Some(bps as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Micros {
        Micros::from_millis(10_000 + millis)
    }

    /// Sends a probe through a link of `capacity` and returns what was found.
    fn probe(
        prober: &mut Prober,
        at: u64,
        estimate: u64,
        wanted: u64,
        capacity: u64,
    ) -> Option<u64> {
        assert!(prober.begin(ms(at), estimate, wanted, None));
        let (mut sequence, mut free_at) = (100_u16, 0_f64);
        let mut arrivals = Vec::new();
        for burst in 0..u64::from(BURSTS) {
            let now = ms(at + burst * 10);
            let (bytes, last) = prober.next_burst(now, sequence).unwrap();
            let mut left = bytes;
            while left > 0 {
                let size = left.min(600);
                left -= size;
                free_at = free_at.max(now.0 as f64) + size as f64 * 8e6 / capacity as f64;
                let packet = SentPacket { sent: now.0 as u32, size: size as u16 };
                arrivals.push((sequence, packet, free_at as i64 + 20_000));
                sequence += 1;
            }
            prober.sent(now, bytes, last.then_some(sequence - 1));
        }
        for (number, packet, arrival) in arrivals {
            prober.observe(number, packet, arrival);
        }
        prober.result(ms(at + 150), sequence - 1, estimate)
    }

    #[test]
    fn a_wide_way_is_found_to_have_what_was_asked_for() {
        let found = probe(&mut Prober::default(), 0, 500_000, 1_200_000, 100_000_000).unwrap();
        assert!((1_100_000..=1_210_000).contains(&found), "{found}");
    }

    #[test]
    fn a_narrow_way_is_found_to_have_what_it_has() {
        let found = probe(&mut Prober::default(), 0, 500_000, 9_000_000, 800_000).unwrap();
        assert!((700_000..820_000).contains(&found), "{found}");
    }

    #[test]
    fn a_probe_that_finds_nothing_is_repeated_less_and_less_often() {
        let mut prober = Prober::default();
        assert_eq!(probe(&mut prober, 0, 500_000, 1_000_000, 400_000), None);
        let mut at = 150;
        let mut waits = Vec::new();
        for _ in 0..4 {
            let wait = (0..20_000)
                .find(|wait| {
                    Prober { ..clone(&prober) }.begin(ms(at + wait), 500_000, 1_000_000, None)
                })
                .unwrap();
            waits.push(wait);
            assert_eq!(probe(&mut prober, at + wait, 500_000, 1_000_000, 400_000), None);
            at += wait + 150;
        }
        assert_eq!(waits, [1_500, 3_000, 5_000, 5_000]);
    }

    fn clone(prober: &Prober) -> Prober {
        Prober { cluster: prober.cluster, ..*prober }
    }

    #[test]
    fn nothing_is_probed_without_need_or_right_after_a_fall() {
        let mut prober = Prober::default();
        assert!(!prober.begin(ms(0), 500_000, 400_000, None));
        assert!(!prober.begin(ms(0), 500_000, 900_000, Some(ms(0))));
        assert!(prober.begin(ms(1_000), 500_000, 900_000, Some(ms(0))));
    }
}
