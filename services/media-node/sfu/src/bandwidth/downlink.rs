//! Packet path: no allocation but while the history grows. One subscriber's network as
//! seen from here: what it told, what follows for the rate, and when to probe. It is made
//! for transports that get pictures; sound alone is not adapted and costs nothing here.

use headwater_rtp::rtcp::TransportFeedback;

use super::acked::AckedRate;
use super::allocate::{Budget, Outcome};
use super::burst::OwnQueue;
use super::delay::{DelayDetector, Usage};
use super::history::{Fate, SLOTS_MAX, SentHistory};
use super::loss::LossBound;
use super::pace::RepeatTokens;
use super::probe::Prober;
use super::queue::QueueDelay;
use super::rate::{RATE_MIN, RateControl, RateInput};
use super::rise::RiseGuard;
use super::train::Trains;
use crate::clock::Micros;

/// What a network is taken for until it told anything: a picture of middle size. The first
/// probe finds within half a second what a wide one takes; a narrow one is not filled up
/// with the keyframe of a large picture.
const START_BPS: u64 = 1_000_000;
/// A subscriber that says nothing of its network for so long never will: it is not limited.
const SILENT: Micros = Micros::from_millis(2_000);
/// Feedback comes ten times a second; without any for so long the way is blocked.
const BLOCKED: Micros = Micros::from_millis(1_500);
/// Packets that would have been answered meanwhile.
const UNANSWERED_MIN: u32 = 10;
/// An estimate of the receiver's own holds so long (libwebrtc repeats it every second).
const REMB_VALID: Micros = Micros::from_millis(10_000);
/// The lowest layers are taken away only when they did not fit for so long: a false alarm
/// of the detector is over by then.
const SCARCE: Micros = Micros::from_millis(2_000);
/// How far the rate grows by itself above what arrives. Probes take it further; without
/// them it may grow to what is wanted, which finds the limit by reaching it.
const GROWTH_PERCENT: u64 = 110;
const GROWTH_BPS: u64 = 10_000;
/// Part of the estimate that is divided among tracks, in percent; the rest is for repeated
/// packets and for rates that swing.
const SHARE_PERCENT: u64 = 95;
/// Weight of a new measure of sound.
const SOUND_WEIGHT: u64 = 4;
/// A queue that is this long is too long, whether it grows or not.
const QUEUE_MAX: Micros = Micros::from_millis(120);
/// A queue is no excuse for loss up to here.
const QUEUE_SHORT: Micros = Micros::from_millis(40);
/// A burst of ours explains a long queue for so long.
const EXCUSE: Micros = Micros::from_millis(1_500);
/// A queue drains if it is shorter by this than at the last feedback.
const DRAINING: Micros = Micros::from_millis(4);
/// What our own bursts explain of a queue is not known better than this.
const MARGIN: Micros = Micros::from_millis(30);
/// Lost pictures make the rate fall this often at most.
const PICTURE_LOSS: Micros = Micros::from_millis(1_000);
/// A network that was full so long ago still counts as full.
const FULL: Micros = Micros::from_millis(1_500);
/// What was begun so soon after a fall of the rate was begun for it.
const FALL: Micros = Micros::from_millis(300);
/// A keyframe with what followed it goes out at once where it waits no longer than this.
const REPLAY_WAIT: Micros = Micros::from_millis(100);
/// The round trip assumed until one is measured.
const RTT_UNKNOWN: Micros = Micros::from_millis(100);

/// Where the estimate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Nothing was told since the first packet.
    Start { since: Option<Micros> },
    /// Transport-wide feedback.
    TransportWide,
    /// The receiver's own estimate.
    Remb { bps: u64, at: Micros },
    /// Loss in receiver reports; or nothing at all, which bounds nothing.
    Reports,
}

/// State of one subscriber's network.
#[derive(Debug)]
pub(crate) struct Downlink {
    history: SentHistory,
    delay: DelayDetector,
    own_queue: OwnQueue,
    rise: RiseGuard,
    queue: QueueDelay,
    acked: AckedRate,
    trains: Trains,
    loss: LossBound,
    rate: RateControl,
    pub(crate) prober: Prober,
    repeats: RepeatTokens,
    source: Source,
    /// What the owner allows, in bits per second.
    limit: Option<u64>,
    sent_bytes: u64,
    /// The same at the last tick, and at the last receiver report.
    ticked_bytes: u64,
    told_bytes: u64,
    queue_length: Micros,
    /// When the queue was last short.
    excused: Micros,
    sound: Sound,
    /// The next number that feedback is due for.
    next_reported: Option<u16>,
    /// Bytes of which feedback got lost.
    unreported: u64,
    arrival: ArrivalClock,
    heard: Option<Micros>,
    /// Packets sent since feedback came.
    unanswered: u32,
    /// Since when the lowest layers do not fit.
    scarce: Option<Micros>,
    /// When the rate last grew without probes.
    grown: Micros,
    pub(crate) outcome: Outcome,
    pub(crate) allocated: Micros,
}

/// Rate of what is not adapted.
#[derive(Debug, Default)]
struct Sound {
    bytes: u64,
    measured: Option<Micros>,
    bps: u64,
}

/// The receiver's clock in microseconds, without wraps.
#[derive(Debug, Default)]
struct ArrivalClock {
    last: Option<u32>,
    micros: i64,
}

impl ArrivalClock {
    /// From ticks of 250 microseconds that wrap with the 24 bits of the reference time.
    fn unwrap(&mut self, ticks: i64) -> i64 {
        let ticks = ticks as u32;
        let before = self.last.replace(ticks).unwrap_or(ticks);
        self.micros += i64::from(ticks.wrapping_sub(before).cast_signed()) * 250;
        self.micros
    }
}

impl Downlink {
    pub(crate) fn new() -> Self {
        Self {
            history: SentHistory::default(),
            delay: DelayDetector::default(),
            own_queue: OwnQueue::default(),
            rise: RiseGuard::default(),
            queue: QueueDelay::default(),
            acked: AckedRate::default(),
            trains: Trains::default(),
            loss: LossBound::default(),
            rate: RateControl::new(START_BPS),
            prober: Prober::default(),
            repeats: RepeatTokens::default(),
            source: Source::Start { since: None },
            limit: None,
            sent_bytes: 0,
            ticked_bytes: 0,
            told_bytes: 0,
            queue_length: Micros::ZERO,
            excused: Micros::ZERO,
            sound: Sound::default(),
            next_reported: None,
            unreported: 0,
            arrival: ArrivalClock::default(),
            heard: None,
            unanswered: 0,
            scarce: None,
            grown: Micros::ZERO,
            outcome: Outcome::default(),
            allocated: Micros::ZERO,
        }
    }

    /// A packet of `size` bytes goes out, under a transport-wide number if it has one.
    #[inline]
    pub(crate) fn sent(&mut self, now: Micros, sequence: Option<u16>, size: usize) {
        self.sent_bytes += size as u64;
        if let Some(sequence) = sequence {
            self.history.push(now, sequence, size);
            self.own_queue.sent(now, size, self.rate.bps());
            self.unanswered = self.unanswered.saturating_add(1);
        }
    }

    /// Of what was sent, this much was sound.
    #[inline]
    pub(crate) fn sent_sound(&mut self, size: usize) {
        self.sound.bytes += size as u64;
    }

    /// A packet may be repeated now.
    pub(crate) fn may_repeat(&mut self, now: Micros, bytes: usize) -> bool {
        let estimate = self.estimate_bps().unwrap_or(START_BPS);
        self.repeats.take(now, (estimate, self.loss.inherent()), bytes)
    }

    /// Transport-wide feedback came. `true` if less is to be sent from now on.
    pub(crate) fn handle_feedback(
        &mut self,
        now: Micros,
        feedback: &TransportFeedback<'_>,
        rtt: Option<Micros>,
    ) -> bool {
        let Some(newest) = self.history.newest() else { return false };
        // What was never sent, or long ago, is not heard.
        let age = newest.wrapping_sub(feedback.base_sequence);
        if usize::from(age) >= SLOTS_MAX {
            return false;
        }
        self.note_unreported(feedback.base_sequence);
        let (mut arrived, mut lost, mut last) = (0, 0, feedback.base_sequence);
        for status in feedback.packets().take(usize::from(age) + 1) {
            last = status.sequence;
            let arrival = status.arrival.map(|ticks| self.arrival.unwrap(ticks));
            let fate = self.history.settle(status.sequence, arrival.is_some());
            let (packet, is_news) = match fate {
                Some(Fate::Arrived(packet)) => (packet, true),
                Some(Fate::ArrivedAfterAll(packet)) => (packet, false),
                Some(Fate::Lost(packet)) => {
                    lost += 1;
                    self.acked.lost(u64::from(packet.size));
                    self.loss.count_bytes(u64::from(packet.size));
                    continue;
                }
                None => continue,
            };
            let Some(arrival) = arrival else { continue };
            if is_news {
                arrived += 1;
            } else {
                self.loss.recount();
            }
            let size = u64::from(packet.size) + std::mem::take(&mut self.unreported);
            self.acked.observe(packet.sent, arrival, size);
            self.loss.count_bytes(size);
            self.delay.observe(packet.sent, arrival);
            self.queue.observe(packet.sent, arrival);
            self.prober.observe(status.sequence, packet, arrival);
            self.trains.observe(now, packet, arrival);
        }
        self.next_reported = Some(last.wrapping_add(1));
        self.heard = Some(now);
        self.unanswered = 0;
        self.begin_transport_wide();
        self.loss.count(arrived, lost);
        self.update(now, last, rtt.unwrap_or(RTT_UNKNOWN))
    }

    /// Adds up what a lost feedback would have told of, as if it had all arrived.
    fn note_unreported(&mut self, base: u16) {
        let Some(next) = self.next_reported else { return };
        let gap = base.wrapping_sub(next);
        if gap == 0 || usize::from(gap) >= SLOTS_MAX {
            return;
        }
        self.unreported += (0..gap)
            .filter_map(|step| self.history.unreported(next.wrapping_add(step)))
            .map(u64::from)
            .sum::<u64>();
    }

    fn begin_transport_wide(&mut self) {
        if self.source != Source::TransportWide {
            // What is sent already is believed until the network says otherwise.
            self.rate.set(self.rate.bps().max(self.outcome.allocated_bps * 115 / 100));
            self.source = Source::TransportWide;
        }
    }

    fn update(&mut self, now: Micros, newest: u16, rtt: Micros) -> bool {
        let before = self.estimate_bps();
        let usage = self.usage(now);
        let queue = self.queue_length;
        self.rate.update(&RateInput {
            now,
            usage,
            acked: self.acked.bps(),
            sample: self.acked.last(),
            rtt,
            queue,
            inherent_loss: self.loss.inherent(),
            growth_max: self.growth_max(),
        });
        let waits = self.queue_length > QUEUE_SHORT;
        self.loss.update(now, usage == Usage::Over || waits);
        if let Some(found) = self.prober.result(now, newest, self.rate.bps()) {
            self.rate.set(found);
            self.loss.lift(found);
        }
        let is_lower = self.estimate_bps() < before;
        if self.rate.reduced() == Some(now) {
            self.prober.hold_off(now);
            self.trains.forget();
            self.rise.fell(now, before.unwrap_or(START_BPS));
        }
        is_lower
    }

    /// What the queue does: as its gradient says, but a long one is too long even if it
    /// does not grow, one that drains is not to be answered again, and one that a burst of
    /// ours explains is nobody's fault.
    fn usage(&mut self, now: Micros) -> Usage {
        let Some(queue) = self.queue.take().map(Micros) else {
            return Usage::Normal;
        };
        let before = std::mem::replace(&mut self.queue_length, queue);
        if before > queue.plus(DRAINING) {
            return Usage::Under;
        }
        let mut own = self.own_queue.wait(now, self.rate.bps()).plus(MARGIN);
        if queue < QUEUE_MAX {
            self.excused = now;
        } else if now.since(self.excused) > EXCUSE {
            own = Micros::ZERO;
        }
        match self.delay.usage() {
            Usage::Over if queue <= own => Usage::Under,
            Usage::Normal if queue > QUEUE_MAX.max(own) => Usage::Over,
            usage => usage,
        }
    }

    fn growth_max(&self) -> u64 {
        let acked = self.acked.bps().unwrap_or(0);
        acked * GROWTH_PERCENT / 100 + GROWTH_BPS
    }

    /// The receiver told its own estimate.
    pub(crate) fn handle_remb(&mut self, now: Micros, bps: u64) {
        if self.source != Source::TransportWide {
            self.source = Source::Remb { bps: bps.max(RATE_MIN), at: now };
        }
    }

    /// A receiver report told of packets. Only heard where there is nothing better.
    pub(crate) fn handle_report(&mut self, now: Micros, expected: u32, lost: u32) {
        match self.source {
            Source::TransportWide | Source::Remb { .. } | Source::Start { .. } => {}
            Source::Reports => {
                let bytes =
                    self.sent_bytes - std::mem::replace(&mut self.told_bytes, self.sent_bytes);
                self.loss.count_bytes(bytes);
                self.loss.count(expected.saturating_sub(lost), lost);
                self.loss.update(now, false);
            }
        }
    }

    /// Time passes: measures what needs time, and sees when nothing is heard. `false` if
    /// nothing was sent and nothing is kept back, so that there is no need to tick.
    pub(crate) fn tick(&mut self, now: Micros) -> bool {
        let idle = std::mem::replace(&mut self.ticked_bytes, self.sent_bytes) == self.sent_bytes;
        self.measure_sound(now);
        match self.source {
            Source::Start { since: None } => self.source = Source::Start { since: Some(now) },
            Source::Start { since: Some(since) } if now.since(since) > SILENT => {
                self.source = Source::Reports;
            }
            Source::Remb { at, .. } if now.since(at) > REMB_VALID => self.source = Source::Reports,
            Source::TransportWide => self.watch(now),
            Source::Start { .. } | Source::Remb { .. } | Source::Reports => {}
        }
        !idle || self.outcome.limited
    }

    fn watch(&mut self, now: Micros) {
        let silent = self.heard.is_some_and(|at| now.since(at) > BLOCKED);
        if silent && self.unanswered >= UNANSWERED_MIN {
            self.rate.halve(now);
            self.prober.hold_off(now);
            // Once for each such time.
            self.heard = Some(now);
            self.unanswered = 0;
        }
    }

    fn measure_sound(&mut self, now: Micros) {
        let since = self.sound.measured.replace(now);
        let bytes = std::mem::take(&mut self.sound.bytes);
        let Some(span) = since.map(|since| now.since(since).0).filter(|span| *span > 0) else {
            return;
        };
        let sample = bytes * 8_000_000 / span;
        // More is believed at once, less slowly: speakers pause.
        self.sound.bps = if sample > self.sound.bps {
            sample
        } else {
            self.sound.bps - (self.sound.bps - sample) / SOUND_WEIGHT
        };
    }

    pub(crate) fn set_limit(&mut self, bps: Option<u64>) {
        self.limit = bps;
    }

    /// Bits per second that the network takes; `None` if it is not known to be bounded.
    pub(crate) fn estimate_bps(&self) -> Option<u64> {
        let estimate = match self.source {
            Source::Start { .. } => Some(START_BPS),
            Source::TransportWide => {
                let loss = self.loss.bps().unwrap_or(u64::MAX);
                Some(self.rate.bps().min(loss).max(RATE_MIN))
            }
            Source::Remb { bps, .. } => Some(bps),
            Source::Reports => self.loss.bps().map(|bps| bps.max(RATE_MIN)),
        };
        [estimate, self.limit].into_iter().flatten().min()
    }

    /// There is an estimate that rests on what the subscriber told.
    pub(crate) fn is_estimated(&self) -> bool {
        matches!(self.source, Source::TransportWide | Source::Remb { .. })
    }

    /// What can be divided among pictures.
    pub(crate) fn budget(&mut self, now: Micros) -> Budget {
        let sure = match self.source {
            Source::Start { .. } => self.limit.is_some(),
            Source::TransportWide | Source::Remb { .. } | Source::Reports => true,
        };
        let bps = self.estimate_bps();
        Budget {
            bps: bps.map(|bps| (bps * SHARE_PERCENT / 100).saturating_sub(self.sound.bps)),
            may_pause: sure && self.scarce.is_some_and(|since| now.since(since) >= SCARCE),
            is_full: self.was_full(now),
            may_rise: self.rise.may_rise(now, bps.unwrap_or(u64::MAX)),
        }
    }

    /// The subscriber cannot go on without a keyframe. If its queue is long, that is
    /// because what it gets is too much: `true` if it is to get less.
    pub(crate) fn handle_picture_loss(&mut self, now: Micros) -> bool {
        let recent = self.rate.reduced().is_some_and(|at| now.since(at) < PICTURE_LOSS);
        let is_limited = self.source == Source::TransportWide && self.outcome.limited;
        if recent || !is_limited || self.queue_length <= QUEUE_MAX {
            return false;
        }
        self.rise.fell(now, self.rate.bps());
        self.rate.reduce_to(now, self.rate.bps() * 7 / 10);
        self.prober.hold_off(now);
        true
    }

    /// A burst of so many bytes is known to get through without making anything wait.
    pub(crate) fn takes_at_once(&self, now: Micros, bytes: u64) -> bool {
        self.trains.time_of(now, bytes).is_some_and(|time| time <= REPLAY_WAIT)
    }

    /// Nothing waits on the way, so what gets lost does not get lost for what is sent.
    pub(crate) fn is_calm(&self, now: Micros) -> bool {
        let waits = self.queue_length > QUEUE_SHORT;
        self.source == Source::TransportWide && !waits && !self.was_full(now)
    }

    fn was_full(&self, now: Micros) -> bool {
        self.rate.reduced().is_some_and(|at| now.since(at) < FULL)
    }

    /// The rate fell a moment ago: what is sent now is too much.
    pub(crate) fn is_falling(&self, now: Micros) -> bool {
        self.rate.reduced().is_some_and(|at| now.since(at) <= FALL)
    }

    /// The budget was divided.
    pub(crate) fn note_outcome(&mut self, now: Micros, outcome: Outcome) {
        let before = self.outcome.allocated_bps;
        if before > 0 && outcome.allocated_bps > before + before / 10 {
            self.rise.rose(now);
        }
        self.allocated = now;
        self.outcome = outcome;
        self.scarce = if outcome.scarce { self.scarce.or(Some(now)) } else { None };
    }

    /// Bits per second with which everything wanted could be sent.
    fn wanted_bps(&self) -> u64 {
        let wanted = (self.outcome.wanted_bps + self.sound.bps) * 105 / SHARE_PERCENT;
        self.limit.map_or(wanted, |limit| wanted.min(limit))
    }

    /// Begins a probe if the estimate is what keeps something back.
    pub(crate) fn begin_probe(&mut self, now: Micros) -> bool {
        if self.source != Source::TransportWide || !self.outcome.limited {
            return false;
        }
        let estimate = self.estimate_bps().unwrap_or(u64::MAX);
        self.prober.begin(now, estimate, self.wanted_bps(), self.rate.reduced())
    }

    /// Nothing can be probed with: the rate may grow by itself to what is wanted.
    pub(crate) fn grow_unprobed(&mut self, now: Micros) {
        let elapsed = now.since(std::mem::replace(&mut self.grown, now)).0.min(1_000_000);
        if self.source != Source::TransportWide || !self.outcome.limited {
            return;
        }
        if self.delay.usage() == Usage::Normal && self.rate.bps() < self.wanted_bps() {
            let step = self.rate.bps() * elapsed / 12_500_000;
            self.rate.set((self.rate.bps() + step).min(self.wanted_bps()));
        }
    }
}
