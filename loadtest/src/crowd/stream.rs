//! One received stream: what was lost, repeated and recovered, how long the picture
//! stood still, and what its receiver owes the sender in reports.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use headwater_rtp::SequenceUnwrapper;
use headwater_rtp::rtcp::ReportBlock;

/// A packet that did not come for this long is lost.
const GIVE_UP: Duration = Duration::from_secs(1);
/// Between two requests for the same packet, and how many there are.
const ASK_AGAIN: Duration = Duration::from_millis(100);
const ASK_MAX: u8 = 10;
/// Packets waited for; with more the oldest are lost.
const MISSING_MAX: usize = 1_000;
/// At the end of a run what is missing for longer is lost, not late.
const IN_TIME: Duration = Duration::from_millis(300);

/// Audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Opus.
    Audio,
    /// VP8 or H.264.
    Video,
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    since: Instant,
    asked: Option<Instant>,
    times: u8,
}

/// Counts since the measurement began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that came, each once.
    pub received: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Packets that came after they had been missed.
    pub recovered: u64,
    /// Packets that came twice.
    pub repeated: u64,
    /// Requests for packets sent.
    pub nacks: u64,
    /// Requests for keyframes sent.
    pub plis: u64,
    /// Longest time between two packets, in microseconds.
    pub gap_max_micros: u64,
    /// Longest time that nothing new could be shown, in microseconds.
    pub freeze_max_micros: u64,
    /// Times of that kind above half a second.
    pub freezes: u64,
}

/// A received stream.
#[derive(Debug)]
pub struct Stream {
    /// Audio or video.
    pub kind: Kind,
    /// Counts since the measurement began.
    pub counts: Counts,
    unwrapper: SequenceUnwrapper,
    missing: BTreeMap<u64, Missing>,
    last_arrival: Option<Instant>,
    /// Everything up to here came or was given up; when that last rose.
    shown: Option<(u64, Instant)>,
    needs_keyframe: bool,
    asked_for_keyframe: Option<Instant>,
    began: Instant,
    reports: Reports,
}

/// What receiver reports need (RFC 3550 section 6.4 and appendix A).
#[derive(Debug, Default)]
struct Reports {
    first: u64,
    received: u64,
    expected_before: u64,
    received_before: u64,
    jitter: f64,
    transit: Option<f64>,
    sender_report: Option<(u32, Instant)>,
}

impl Stream {
    /// A stream that begins now.
    #[must_use]
    pub fn new(kind: Kind, now: Instant) -> Self {
        Self {
            kind,
            counts: Counts::default(),
            unwrapper: SequenceUnwrapper::new(),
            missing: BTreeMap::new(),
            last_arrival: None,
            shown: None,
            needs_keyframe: kind == Kind::Video,
            asked_for_keyframe: None,
            began: now,
            reports: Reports::default(),
        }
    }

    /// Whether only a keyframe makes it decodable again.
    #[must_use]
    pub fn needs_keyframe(&self) -> bool {
        self.needs_keyframe
    }

    /// A keyframe starts in the packet that comes next.
    pub fn keyframe(&mut self) {
        self.needs_keyframe = false;
    }

    /// Takes a packet by its sequence number and timestamp. False if it came before.
    pub fn receive(&mut self, now: Instant, sequence: u16, timestamp: u32) -> bool {
        let highest = self.unwrapper.highest();
        let index = self.unwrapper.unwrap(sequence);
        self.reports.note(now, index, timestamp, self.kind, highest.is_none());
        if let Some(last) = self.last_arrival.replace(now) {
            self.counts.gap_max_micros = self.counts.gap_max_micros.max(micros(now - last));
        }
        match highest {
            Some(highest) if index <= highest => return self.fill(now, index),
            Some(highest) => {
                let from = (highest + 1).max(index.saturating_sub(MISSING_MAX as u64));
                self.counts.lost += from - (highest + 1);
                for absent in from..index {
                    self.missing.insert(absent, Missing { since: now, asked: None, times: 0 });
                }
                self.limit_missing();
            }
            None => {}
        }
        self.counts.received += 1;
        self.advance(now);
        true
    }

    /// A packet came in another way, such as RTX. False if it was not missing.
    pub fn recover(&mut self, now: Instant, sequence: u16) -> bool {
        let index = self.unwrapper.peek(sequence);
        self.fill(now, index)
    }

    fn fill(&mut self, now: Instant, index: u64) -> bool {
        if self.missing.remove(&index).is_none() {
            self.counts.repeated += 1;
            return false;
        }
        self.counts.received += 1;
        self.counts.recovered += 1;
        self.advance(now);
        true
    }

    fn limit_missing(&mut self) {
        while self.missing.len() > MISSING_MAX {
            self.missing.pop_first();
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        self.counts.lost += 1;
        self.needs_keyframe |= self.kind == Kind::Video;
    }

    /// Measures how long nothing new could be shown.
    fn advance(&mut self, now: Instant) {
        if self.needs_keyframe {
            return;
        }
        let Some(highest) = self.unwrapper.highest() else { return };
        let whole = self.missing.first_key_value().map_or(highest, |(first, _)| first - 1);
        let Some((shown, at)) = self.shown else {
            self.shown = Some((whole, now));
            return;
        };
        if whole > shown {
            let still = now - at;
            self.counts.freeze_max_micros = self.counts.freeze_max_micros.max(micros(still));
            self.counts.freezes += u64::from(still > Duration::from_millis(500));
            self.shown = Some((whole, now));
        }
    }

    /// Packets to ask for now, at most `limit`; those waited for too long are given up.
    pub fn ask(&mut self, now: Instant, limit: usize, lost: &mut Vec<u16>) {
        while let Some(first) = self.missing.first_entry() {
            if now.saturating_duration_since(first.get().since) < GIVE_UP {
                break;
            }
            first.remove();
            self.give_up();
        }
        for (index, missing) in &mut self.missing {
            let due = missing.asked.is_none_or(|asked| now - asked >= ASK_AGAIN);
            if lost.len() >= limit {
                break;
            }
            if due && missing.times < ASK_MAX {
                missing.asked = Some(now);
                missing.times += 1;
                lost.push(*index as u16);
            }
        }
        self.counts.nacks += u64::from(!lost.is_empty());
    }

    /// Whether packets are missing.
    #[must_use]
    pub fn has_missing(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Whether to ask for a keyframe now: at most once a second, and not before the
    /// sender had a fair time to send one by itself.
    pub fn ask_for_keyframe(&mut self, now: Instant) -> bool {
        let patience =
            if self.shown.is_some() { Duration::ZERO } else { Duration::from_millis(300) };
        let recent =
            self.asked_for_keyframe.is_some_and(|asked| now - asked < Duration::from_secs(1));
        if !self.needs_keyframe || recent || now - self.began < patience {
            return false;
        }
        self.asked_for_keyframe = Some(now);
        self.counts.plis += 1;
        true
    }

    /// Begins to measure anew. What is missing by now was lost before.
    pub fn reset(&mut self, now: Instant) {
        self.counts = Counts::default();
        self.missing.clear();
        if let Some((_, at)) = &mut self.shown {
            *at = now;
        }
    }

    /// The counts at the end: what is missing for long is lost, and a picture that still
    /// stands is counted until now.
    #[must_use]
    pub fn final_counts(&self, now: Instant) -> Counts {
        let mut counts = self.counts;
        let overdue = |missing: &&Missing| now.saturating_duration_since(missing.since) > IN_TIME;
        counts.lost += self.missing.values().filter(overdue).count() as u64;
        if let (Kind::Video, Some((_, at))) = (self.kind, self.shown) {
            counts.freeze_max_micros =
                counts.freeze_max_micros.max(micros(now.saturating_duration_since(at)));
        }
        counts
    }

    /// A sender report came: its NTP time in short form.
    pub fn sender_report(&mut self, now: Instant, compact: u32) {
        self.reports.sender_report = Some((compact, now));
    }

    /// The block of a receiver report.
    pub fn report(&mut self, now: Instant, ssrc: u32) -> ReportBlock {
        let highest = self.unwrapper.highest().unwrap_or_default();
        self.reports.block(now, ssrc, highest)
    }
}

impl Reports {
    fn note(&mut self, now: Instant, index: u64, timestamp: u32, kind: Kind, first: bool) {
        if first {
            self.first = index;
        }
        self.received += 1;
        let clock = if kind == Kind::Audio { 48_000.0 } else { 90_000.0 };
        let arrival = (crate::source::micros_of(now) as f64 / 1e6 * clock) % 4_294_967_296.0;
        let transit = arrival - f64::from(timestamp);
        if let Some(before) = self.transit.replace(transit) {
            let difference = (transit - before).abs();
            // A wrap of either clock is no jitter.
            if difference < 1e9 {
                self.jitter += (difference - self.jitter) / 16.0;
            }
        }
    }

    fn block(&mut self, now: Instant, ssrc: u32, highest: u64) -> ReportBlock {
        let expected = (highest + 1).saturating_sub(self.first);
        let newly_expected = expected.saturating_sub(self.expected_before);
        let newly_received = self.received.saturating_sub(self.received_before);
        let newly_lost = newly_expected.saturating_sub(newly_received);
        (self.expected_before, self.received_before) = (expected, self.received);
        let lost = expected as i64 - self.received as i64;
        let delay = self.sender_report.map_or(Duration::ZERO, |(_, at)| now - at);
        ReportBlock {
            ssrc,
            fraction_lost: (newly_lost * 256 / newly_expected.max(1)).min(255) as u8,
            cumulative_lost: lost.clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest_sequence: highest as u32,
            jitter: self.jitter as u32,
            last_sender_report: self.sender_report.map_or(0, |(compact, _)| compact),
            delay_since_last_sender_report: (delay.as_secs_f64() * 65_536.0) as u32,
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(10);

    fn received(kind: Kind, sequences: &[u16]) -> (Stream, Instant) {
        let begun = Instant::now();
        let mut stream = Stream::new(kind, begun);
        stream.keyframe();
        let mut now = begun;
        for sequence in sequences {
            now += FRAME;
            stream.receive(now, *sequence, 0);
        }
        (stream, now)
    }

    #[test]
    fn a_hole_is_asked_for_and_its_filling_is_no_loss() {
        let (mut stream, now) = received(Kind::Video, &[65_534, 65_535, 2]);
        let mut lost = Vec::new();
        stream.ask(now, 100, &mut lost);
        assert_eq!(lost, [0, 1]);
        assert!(stream.recover(now, 0) && stream.recover(now, 1));
        assert!(!stream.recover(now, 1), "it came twice");
        let counts = stream.final_counts(now + Duration::from_secs(5));
        assert_eq!((counts.received, counts.lost, counts.recovered), (5, 0, 2));
    }

    #[test]
    fn requests_are_spaced_and_bounded() {
        let (mut stream, begun) = received(Kind::Audio, &[1, 3]);
        let mut requests = 0;
        for step in 0..950 {
            let mut lost = Vec::new();
            stream.ask(begun + Duration::from_millis(step), 100, &mut lost);
            requests += lost.len();
        }
        assert_eq!(requests, 10);
    }

    #[test]
    fn a_lost_packet_stops_the_picture_until_a_keyframe() {
        let (mut stream, mut now) = received(Kind::Video, &[1, 2, 4]);
        now += GIVE_UP;
        stream.ask(now, 100, &mut Vec::new());
        assert!(stream.needs_keyframe() && stream.ask_for_keyframe(now));
        assert!(!stream.ask_for_keyframe(now), "once a second");
        stream.receive(now + FRAME, 5, 0);
        assert_eq!(stream.counts.freeze_max_micros, 10_000);
        stream.keyframe();
        stream.receive(now + FRAME * 2, 6, 0);
        let counts = stream.final_counts(now + FRAME * 2);
        assert_eq!((counts.lost, counts.freezes), (1, 1));
        assert!(counts.freeze_max_micros >= 1_000_000);
    }

    #[test]
    fn what_was_missing_before_is_not_lost_in_the_measured_time() {
        let (mut stream, now) = received(Kind::Video, &[1, 5]);
        stream.reset(now);
        stream.receive(now + FRAME, 6, 0);
        let counts = stream.final_counts(now + Duration::from_secs(3));
        assert_eq!((counts.received, counts.lost), (1, 0));
    }

    #[test]
    fn a_leap_is_loss_and_not_memory() {
        let (stream, now) = received(Kind::Video, &[0, 30_000]);
        assert_eq!(stream.missing.len(), MISSING_MAX);
        assert_eq!(stream.final_counts(now + Duration::from_secs(2)).lost, 29_999);
    }

    #[test]
    fn reports_say_what_share_was_lost() {
        let (mut stream, now) = received(Kind::Audio, &[10, 11, 13, 14]);
        let block = stream.report(now, 7);
        assert_eq!((block.fraction_lost, block.cumulative_lost), (51, 1));
        assert_eq!(block.highest_sequence & 0xffff, 14);
        assert_eq!(stream.report(now, 7).fraction_lost, 0);
    }
}
