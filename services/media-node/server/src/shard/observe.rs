//! What a shard tells the metrics as it happens: handshakes, quality, first pictures.
//! These are rare; what happens for each packet is counted in plain integers and told
//! once a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_model::media::SubscriptionKey;
use headwater_relay::{Phase, ShardRelay};
use headwater_sfu::{Quality, QualitySubject};
use headwater_telemetry::metrics::{DtlsResult, IceResult, MediaDirection, NodeMetrics, RelayLink};
use headwater_transport::FailReason;
use rustc_hash::FxHashMap;

/// One turn of the loop in so many is timed.
const TURNS_PER_SAMPLE: u32 = 64;
/// Nobody watched a track that long: its first picture says nothing about us.
const FIRST_FRAME_WAIT_MAX: Duration = Duration::from_secs(10);

/// Subscriptions observed at once. At the bound those that waited too long are forgotten,
/// and if there are none, new ones are not observed.
const AWAITING_MAX: usize = 4_096;

/// Tells the metrics what a shard noticed.
pub struct Observer {
    metrics: Arc<NodeMetrics>,
    /// Subscriptions to pictures that have seen none yet; at most [`AWAITING_MAX`].
    awaiting: FxHashMap<SubscriptionKey, Instant>,
    turns: u32,
}

impl Observer {
    /// Nothing noticed yet.
    pub fn new(metrics: Arc<NodeMetrics>) -> Self {
        Self { metrics, awaiting: FxHashMap::default(), turns: 0 }
    }

    /// A transport is connected.
    pub fn connected(&self) {
        self.metrics.ice.get(IceResult::Connected).inc();
        self.metrics.dtls.get(DtlsResult::Connected).inc();
    }

    /// A transport failed.
    pub fn failed(&self, reason: FailReason) {
        match reason {
            // The time runs from the first authentic STUN message on, so a path was there.
            FailReason::SetupTimeout(problem) => {
                let result =
                    if problem.is_some() { DtlsResult::Failed } else { DtlsResult::TimedOut };
                self.metrics.ice.get(IceResult::Connected).inc();
                self.metrics.dtls.get(result).inc();
            }
            FailReason::FingerprintMismatch => {
                self.metrics.ice.get(IceResult::Connected).inc();
                self.metrics.dtls.get(DtlsResult::WrongFingerprint).inc();
            }
            FailReason::ConsentExpired => {
                self.metrics.ice.get(IceResult::ConsentLost).inc();
            }
        }
    }

    /// A transport was closed and no authentic STUN message ever came to it.
    pub fn never_reached(&self) {
        self.metrics.ice.get(IceResult::TimedOut).inc();
    }

    /// How well media travelled.
    pub fn quality(&self, quality: &Quality) {
        let direction = match quality.subject {
            QualitySubject::Published(_) => MediaDirection::In,
            QualitySubject::Subscriber(_) => MediaDirection::Out,
        };
        self.metrics.packet_loss.get(direction).observe(f64::from(quality.loss_ratio));
        self.metrics.jitter.get(direction).observe(quality.jitter.as_secs_f64());
        if let Some(rtt) = quality.rtt {
            self.metrics.rtt.get(direction).observe(rtt.as_secs_f64());
        }
    }

    /// A subscription to pictures begins.
    pub fn subscribed(&mut self, now: Instant, subscription: SubscriptionKey) {
        if self.awaiting.len() >= AWAITING_MAX {
            let waits = |since: Instant| now.saturating_duration_since(since);
            self.awaiting.retain(|_, since| waits(*since) <= FIRST_FRAME_WAIT_MAX);
        }
        if self.awaiting.len() < AWAITING_MAX {
            self.awaiting.entry(subscription).or_insert(now);
        }
    }

    /// A subscription is over.
    pub fn unsubscribed(&mut self, subscription: SubscriptionKey) {
        self.awaiting.remove(&subscription);
    }

    /// A picture is forwarded.
    pub fn forwarded(&mut self, now: Instant, subscription: SubscriptionKey) {
        let Some(since) = self.awaiting.remove(&subscription) else { return };
        let waited = now.saturating_duration_since(since);
        if waited <= FIRST_FRAME_WAIT_MAX {
            self.metrics.time_to_first_frame.observe(waited.as_secs_f64());
        }
    }

    /// Tells how long relay links take; answers how many are up within the process and to
    /// other nodes.
    pub fn relay_links(&self, relay: &ShardRelay) -> (usize, usize) {
        let (mut near, mut far) = (0, 0);
        for report in relay.reports() {
            if report.phase != Phase::Up {
                continue;
            }
            let is_near = report.peer.node == relay.address().node;
            let link = if is_near { RelayLink::InProcess } else { RelayLink::BetweenNodes };
            *if is_near { &mut near } else { &mut far } += 1;
            if let Some(rtt) = report.stats.rtt {
                self.metrics.relay_rtt.get(link).observe(rtt.as_secs_f64());
            }
            if let Some(hop) = report.stats.one_way {
                self.metrics.relay_hop.get(link).observe(hop.as_secs_f64());
            }
        }
        (near, far)
    }

    /// A turn of the loop that began at `began` is over. Reads the clock for one turn
    /// in 64.
    pub fn turned(&mut self, began: Instant) {
        self.turns = self.turns.wrapping_add(1);
        if self.turns.is_multiple_of(TURNS_PER_SAMPLE) {
            self.metrics.shard_loop.observe(began.elapsed().as_secs_f64());
        }
    }
}
