//! How fast a node is emptied: as slowly as its deadline allows, because
//! everybody who is moved sees a gap, and those who come at once wait for each
//! other.

use std::time::{Duration, Instant};

/// Moves per second when there is no hurry: rooms and their participants.
/// Handshakes of as many participants take a core about a tenth of its time.
pub const RATE_MIN: f64 = 50.0;
/// Share of the time left in which a drain aims to be done; the rest is for
/// rooms that must be moved again.
const TIME_USED: f64 = 0.6;

/// Doles out the moves of one node.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    /// Moves that may be made now. Negative after a room that is larger than
    /// what was left: a room is moved whole.
    tokens: f64,
    at: Option<Instant>,
}

impl Pace {
    /// Moves allowed now, when `left` rooms and participants are still there and
    /// the node must be empty in `time_left`; none is no deadline. Zero means
    /// to wait. After the deadline everything may go.
    pub fn allowance(&mut self, now: Instant, left: u32, time_left: Option<Duration>) -> u32 {
        if time_left.is_some_and(|left| left.is_zero()) {
            return u32::MAX;
        }
        let needed = time_left
            .map_or(0.0, |time| f64::from(left) / (time.as_secs_f64() * TIME_USED).max(0.001));
        let rate = needed.max(RATE_MIN);
        // The first room goes at once.
        let passed = self.at.map_or(Duration::from_secs(1), |at| now.saturating_duration_since(at));
        self.at = Some(now);
        self.tokens = (self.tokens + rate * passed.as_secs_f64()).min(rate);
        whole(self.tokens)
    }

    /// Takes in that so many were moved.
    pub fn spend(&mut self, moved: u32) {
        self.tokens -= f64::from(moved);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to what a u32 holds"
)]
fn whole(number: f64) -> u32 {
    number.clamp(0.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn origin() -> Instant {
        Instant::now()
    }

    /// Empties a node of rooms of this size, looking every 100 ms; the seconds
    /// it takes and the most that moved within one second.
    fn empty(rooms: u32, people: u32, deadline: Option<Duration>) -> (f64, u32) {
        let start = origin();
        let mut pace = Pace::default();
        let (mut left, mut steps, mut moved) = (rooms, 0_u32, Vec::new());
        while left > 0 {
            let now = start + Duration::from_millis(100) * steps;
            let time_left =
                deadline.map(|it| it.saturating_sub(now.saturating_duration_since(start)));
            let mut allowed = pace.allowance(now, left * (people + 1), time_left);
            let mut spent = 0;
            while left > 0 && allowed > 0 {
                left -= 1;
                spent += people + 1;
                allowed = allowed.saturating_sub(people + 1);
            }
            pace.spend(spent);
            moved.push(spent);
            steps += 1;
        }
        let busiest = moved.windows(10).map(|them| them.iter().sum()).max();
        (f64::from(steps) / 10.0, busiest.unwrap_or_else(|| moved.iter().sum()))
    }

    #[test]
    fn without_hurry_fifty_are_moved_a_second() {
        let (seconds, busiest) = empty(100, 9, None);
        assert!((18.0..=21.0).contains(&seconds), "{seconds}");
        assert!(busiest <= 110, "{busiest}");
    }

    #[test]
    fn a_deadline_is_met() {
        let (seconds, _) = empty(1000, 9, Some(Duration::from_secs(30)));
        assert!((10.0..30.0).contains(&seconds), "{seconds}");
    }

    #[test]
    fn one_large_room_goes_at_once_and_is_paid_for_afterwards() {
        let mut pace = Pace::default();
        let now = origin();
        assert_eq!(pace.allowance(now, 600, None), 50);
        pace.spend(500);
        assert_eq!(pace.allowance(now + Duration::from_secs(5), 100, None), 0);
        assert!(pace.allowance(now + Duration::from_secs(10), 100, None) > 0);
    }

    proptest! {
        #[test]
        fn every_drain_ends_before_its_deadline(
            rooms in 1_u32..500, people in 0_u32..50, deadline in 5_u64..120,
        ) {
            let (seconds, _) = empty(rooms, people, Some(Duration::from_secs(deadline)));
            prop_assert!(seconds <= deadline as f64 + 0.2);
        }
    }
}
