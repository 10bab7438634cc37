//! How often one participant may open a session here: a bucket of tokens each.
//! Encoders that cannot connect try again at once and for ever.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Sessions at once, after a pause.
const BURST: u32 = 10;

/// One more each.
const INTERVAL: Duration = Duration::from_secs(2);

/// Participants remembered. At the bound those unknown share one bucket.
const PARTICIPANTS_MAX: usize = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When the bucket will be full again, by room and identity. Full ones are forgotten.
    full_at: BTreeMap<(String, String), Instant>,
}

impl Pace {
    /// Takes one, or tells after which time there will be one.
    pub(crate) fn take(
        &mut self,
        room: &str,
        identity: &str,
        now: Instant,
    ) -> Result<(), Duration> {
        let mut key = (room.to_owned(), identity.to_owned());
        if !self.full_at.contains_key(&key) && self.full_at.len() >= PARTICIPANTS_MAX {
            self.full_at.retain(|_, at| *at > now);
            if self.full_at.len() >= PARTICIPANTS_MAX {
                key = (String::new(), String::new());
            }
        }
        let full_at = self.full_at.entry(key).or_insert(now);
        let next = (*full_at).max(now) + INTERVAL;
        let most = now + INTERVAL * BURST;
        if next > most {
            return Err(next - most);
        }
        *full_at = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_in_two_seconds() {
        let mut pace = Pace::default();
        let now = Instant::now();
        for _ in 0..BURST {
            assert_eq!(pace.take("lobby", "ada", now), Ok(()));
        }
        assert_eq!(pace.take("lobby", "ada", now), Err(INTERVAL));
        assert_eq!(pace.take("lobby", "bob", now), Ok(()), "each has a pace of its own");
        assert_eq!(pace.take("lobby", "ada", now + INTERVAL), Ok(()));
        assert!(pace.take("lobby", "ada", now + INTERVAL).is_err());
    }

    #[test]
    fn a_crowd_of_strangers_takes_no_more_memory_than_is_stated() {
        let mut pace = Pace::default();
        let now = Instant::now();
        for number in 0..PARTICIPANTS_MAX + 50 {
            let _ = pace.take("lobby", &number.to_string(), now);
        }
        assert!(pace.full_at.len() <= PARTICIPANTS_MAX + 1);
        let later = now + INTERVAL * 2;
        assert_eq!(pace.take("lobby", "late", later), Ok(()));
        assert!(pace.full_at.len() <= 2, "its own and the shared one");
    }
}
