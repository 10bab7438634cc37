//! The server's last flight, kept to be sent again: by the clock until the
//! client has answered, and when the client repeats what it answers.

use std::time::{Duration, Instant};

use bytes::BytesMut;

/// First repeat by the clock. Browsers repeat theirs after 50 ms and more; a
/// path slower than this gets one flight twice.
const FIRST_REPEAT: Duration = Duration::from_millis(250);
/// Repeats by the clock slow down to this.
const SLOWEST_REPEAT: Duration = Duration::from_secs(2);
/// At most one repeat in this time when the client asks: a client that asks in
/// four fragments gets one answer.
pub(super) const ANSWER_INTERVAL: Duration = Duration::from_millis(40);

/// Plain handshake datagrams and when they go out again. Bounded by what one
/// flight of the library is: a few datagrams.
#[derive(Debug, Default)]
pub(super) struct ServerFlight {
    datagrams: Vec<BytesMut>,
    sent_at: Option<Instant>,
    interval: Duration,
}

impl ServerFlight {
    /// Remembers a flight that has just gone out.
    pub fn replace(&mut self, now: Instant, datagrams: Vec<BytesMut>) {
        *self = Self { datagrams, sent_at: Some(now), interval: FIRST_REPEAT };
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub fn next_repeat(&self) -> Option<Instant> {
        self.sent_at.map(|at| at + self.interval)
    }

    /// The flight, if the clock says so.
    pub fn repeat_by_clock(&mut self, now: Instant) -> &[BytesMut] {
        if self.next_repeat().is_none_or(|at| at > now) {
            return &[];
        }
        self.sent_at = Some(now);
        self.interval = (self.interval * 2).min(SLOWEST_REPEAT);
        &self.datagrams
    }

    /// The flight, because the client repeats what it answers.
    pub fn repeat_by_request(&mut self, now: Instant) -> &[BytesMut] {
        if self.sent_at.is_none_or(|at| at + ANSWER_INTERVAL > now) {
            return &[];
        }
        self.sent_at = Some(now);
        &self.datagrams
    }
}
