//! Transport-wide feedback of a subscriber, as libwebrtc sends it: the higher the rate, the
//! more often, within 50 to 250 ms.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_rtp::SequenceUnwrapper;
use headwater_rtp::rtcp::{Arrival, CompoundWriter, TransportFeedbackHead};

use crate::Time;

const INTERVAL_MIN: Duration = Duration::from_millis(50);
const INTERVAL_MAX: Duration = Duration::from_millis(250);
/// Bits that one message takes by libwebrtc's reckoning; they may be a twentieth of what
/// is received.
const MESSAGE_BITS: f64 = 68.0 * 8.0;
/// Arrivals that wait at most: far more than come in the longest interval.
const ARRIVALS_MAX: usize = 8_192;

/// Arrivals that were not told yet.
#[derive(Debug, Default)]
pub(crate) struct FeedbackLog {
    unwrapper: SequenceUnwrapper,
    pending: BTreeMap<u64, Time>,
    next: Option<u64>,
    count: u8,
    bytes: usize,
    due: Option<Time>,
    last: Time,
}

impl FeedbackLog {
    pub(crate) fn note(&mut self, now: Time, sequence: u16, size: usize) {
        let sequence = self.unwrapper.unwrap(sequence);
        self.pending.entry(sequence).or_insert(now);
        self.bytes += size;
        while self.pending.len() > ARRIVALS_MAX {
            self.pending.pop_first();
        }
        if self.due.is_none() {
            self.due = Some(now.plus(INTERVAL_MIN));
            self.last = now;
        }
    }

    pub(crate) fn due(&self) -> Option<Time> {
        self.due
    }

    /// Messages for all that waits.
    pub(crate) fn take(&mut self, now: Time, sender_ssrc: u32, media_ssrc: u32) -> Vec<Vec<u8>> {
        let seconds = now.since(self.last).as_secs_f64().max(0.001);
        let rate = self.bytes as f64 * 8.0 / seconds;
        let interval = Duration::from_secs_f64((MESSAGE_BITS / (0.05 * rate.max(1.0))).min(1.0));
        self.due = Some(now.plus(interval.clamp(INTERVAL_MIN, INTERVAL_MAX)));
        self.last = now;
        self.bytes = 0;
        let mut messages = Vec::new();
        while let Some((first, _)) = self.pending.first_key_value() {
            let base_sequence = self.next.map_or(*first, |next| next.min(*first));
            let head = TransportFeedbackHead {
                sender_ssrc,
                media_ssrc,
                feedback_count: self.count,
                base_sequence,
            };
            self.count = self.count.wrapping_add(1);
            let arrivals: Vec<Arrival> = self
                .pending
                .iter()
                .map(|(sequence, at)| Arrival { sequence: *sequence, at: at.elapsed() })
                .collect();
            let mut buffer = [0; 1_200];
            let mut writer = CompoundWriter::new(&mut buffer);
            let told = writer.transport_feedback(&head, &arrivals).unwrap_or(0);
            let len = writer.finish();
            for arrival in arrivals.iter().take(told.max(1)) {
                self.pending.remove(&arrival.sequence);
                self.next = Some(self.next.unwrap_or(0).max(arrival.sequence + 1));
            }
            if len > 0 {
                messages.push(buffer[..len].to_vec());
            }
        }
        if messages.is_empty() {
            self.due = None;
        }
        messages
    }
}
