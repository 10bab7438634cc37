//! Remembers answers by request id, so that a repeated call is harmless
//! (AIP-155). Bounded in number and in time.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How long an answer is remembered.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// Most answers remembered; the oldest is forgotten first.
pub const REMEMBERED_MAX: usize = 10_000;
/// Most bytes of all answers remembered, 32 MiB; the oldest is forgotten first.
/// Answers hold rooms, and rooms may hold much metadata.
pub const REMEMBERED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Who asked for what: an id chosen by one caller means nothing for another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplayKey {
    /// API key of the caller.
    pub caller: String,
    /// The method called.
    pub method: &'static str,
    /// The id the caller chose.
    pub request_id: String,
}

/// What is known of a request id.
#[derive(Debug, PartialEq, Eq)]
pub enum Replay<'a> {
    /// Nothing: carry the request out, then [`ReplayCache::remember`] it.
    New,
    /// The same request was answered with this.
    Same(&'a [u8]),
    /// The id was used for a different request.
    Conflict,
}

#[derive(Debug)]
struct Remembered {
    fingerprint: u64,
    answer: Vec<u8>,
}

/// Encoded answers by request id.
#[derive(Debug)]
pub struct ReplayCache {
    answers: BTreeMap<ReplayKey, Remembered>,
    by_age: VecDeque<(Instant, ReplayKey)>,
    bytes: usize,
    max: usize,
    bytes_max: usize,
    keep: Duration,
}

impl Default for ReplayCache {
    fn default() -> Self {
        Self::new(REMEMBERED_MAX, REMEMBERED_BYTES_MAX, REMEMBERED_FOR)
    }
}

impl ReplayCache {
    /// A cache of at most `max` answers of at most `bytes_max` bytes together,
    /// each kept for `keep`.
    #[must_use]
    pub fn new(max: usize, bytes_max: usize, keep: Duration) -> Self {
        let (answers, by_age) = (BTreeMap::new(), VecDeque::new());
        Self { answers, by_age, bytes: 0, max, bytes_max, keep }
    }

    /// Looks a request up. `body` is the request as bytes, without its id.
    pub fn look_up(&mut self, now: Instant, key: &ReplayKey, body: &[u8]) -> Replay<'_> {
        self.handle_timeout(now);
        match self.answers.get(key) {
            None => Replay::New,
            Some(known) if known.fingerprint == crate::page::fnv1a(body) => {
                Replay::Same(&known.answer)
            }
            Some(_) => Replay::Conflict,
        }
    }

    /// Remembers an answer. The first answer to an id stays; one that alone is
    /// larger than the cache is not remembered.
    pub fn remember(&mut self, now: Instant, key: ReplayKey, body: &[u8], answer: Vec<u8>) {
        self.handle_timeout(now);
        let fits = self.max > 0 && answer.len() <= self.bytes_max;
        if !fits || self.answers.contains_key(&key) {
            return;
        }
        while self.answers.len() >= self.max || self.bytes + answer.len() > self.bytes_max {
            self.forget_oldest();
        }
        self.bytes += answer.len();
        self.by_age.push_back((now, key.clone()));
        let fingerprint = crate::page::fnv1a(body);
        self.answers.insert(key, Remembered { fingerprint, answer });
    }

    /// Forgets what is too old.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((since, _)) = self.by_age.front() {
            if now.saturating_duration_since(*since) < self.keep {
                return;
            }
            self.forget_oldest();
        }
    }

    /// Answers now remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Both collections hold the same keys, so this frees something or both are empty.
    fn forget_oldest(&mut self) {
        let oldest = self.by_age.pop_front().and_then(|(_, key)| self.answers.remove(&key));
        self.bytes -= oldest.map_or(0, |known| known.answer.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn key(caller: &str, request_id: &str) -> ReplayKey {
        ReplayKey { caller: caller.into(), method: "CreateRoom", request_id: request_id.into() }
    }

    #[test]
    fn the_same_request_gets_the_same_answer_for_ten_minutes() {
        let start = origin();
        let mut cache = ReplayCache::default();
        cache.remember(start, key("k", "1"), b"body", vec![7]);
        let almost = start + REMEMBERED_FOR - Duration::from_millis(1);
        assert_eq!(cache.look_up(almost, &key("k", "1"), b"body"), Replay::Same(&[7]));
        assert_eq!(cache.look_up(start + REMEMBERED_FOR, &key("k", "1"), b"body"), Replay::New);
        assert!(cache.is_empty());
    }

    #[test]
    fn the_id_of_another_request_or_caller_is_no_repeat() {
        let start = origin();
        let mut cache = ReplayCache::default();
        cache.remember(start, key("k", "1"), b"body", vec![7]);
        assert_eq!(cache.look_up(start, &key("k", "1"), b"other"), Replay::Conflict);
        assert_eq!(cache.look_up(start, &key("l", "1"), b"body"), Replay::New);
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let start = origin();
        let mut cache = ReplayCache::new(2, 100, REMEMBERED_FOR);
        for id in ["1", "2", "3"] {
            cache.remember(start, key("k", id), b"", Vec::new());
        }
        assert_eq!(cache.look_up(start, &key("k", "1"), b""), Replay::New);
        assert_eq!(cache.look_up(start, &key("k", "3"), b""), Replay::Same(&[]));
    }

    #[test]
    fn an_answer_larger_than_the_cache_displaces_nothing() {
        let start = origin();
        let mut cache = ReplayCache::new(10, 100, REMEMBERED_FOR);
        cache.remember(start, key("k", "1"), b"", vec![0; 60]);
        cache.remember(start, key("k", "2"), b"", vec![0; 101]);
        assert_eq!(cache.len(), 1);
        cache.remember(start, key("k", "3"), b"", vec![0; 60]);
        assert_eq!(cache.look_up(start, &key("k", "1"), b""), Replay::New);
    }

    proptest! {
        #[test]
        fn it_never_exceeds_its_bounds(
            steps in prop::collection::vec((0_u64..900, 0_u8..40, 0_usize..50), 0..200),
        ) {
            let mut now = origin();
            let mut cache = ReplayCache::new(8, 120, REMEMBERED_FOR);
            for (seconds, id, bytes) in steps {
                now += Duration::from_secs(seconds);
                cache.remember(now, key("k", &id.to_string()), b"", vec![0; bytes]);
                let held: usize = cache.answers.values().map(|known| known.answer.len()).sum();
                prop_assert!(cache.len() <= 8 && held <= 120 && held == cache.bytes);
                prop_assert_eq!(cache.by_age.len(), cache.len());
                prop_assert!(cache.by_age.iter().all(|(since, _)| now - *since < REMEMBERED_FOR));
            }
        }
    }
}
