//! What a subscriber misses and when it asks for it: the rules of libwebrtc's requester.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Time;

/// Numbers waited for at most, as in libwebrtc; beyond it everything is given up.
const MISSING_MAX: usize = 1_000;
/// Requests for one number at most.
const TRIES_MAX: u8 = 10;
/// Distances by which packets overtake each other that are told apart.
const DISTANCES: usize = 10;
/// How often it is looked what to ask for again.
const PROCESS_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy)]
struct Missing {
    since: Time,
    asked: Option<Time>,
    tries: u8,
    /// It is asked for when this number or a later one came: until then it may only have
    /// been overtaken.
    from: u64,
}

/// Numbers that did not come.
#[derive(Debug)]
pub(crate) struct MissingList {
    entries: BTreeMap<u64, Missing>,
    highest: Option<u64>,
    /// Assumed where a receiver cannot measure it: libwebrtc's 100 ms.
    rtt: Duration,
    /// Numbers older than this are not asked for any more.
    age_max: Duration,
    next: Time,
    /// How often a packet came this many numbers late.
    overtaken: [u64; DISTANCES],
    pub(crate) asked: u64,
}

impl MissingList {
    pub(crate) fn new(rtt: Duration, age_max: Duration) -> Self {
        let overtaken = [0; DISTANCES];
        let entries = BTreeMap::new();
        Self { entries, highest: None, rtt, age_max, next: Time::ZERO, overtaken, asked: 0 }
    }

    /// A number came. Returns what to ask for at once, or
    /// `None` if there is so much of it that only a keyframe helps.
    pub(crate) fn note(&mut self, now: Time, sequence: u64) -> Option<Vec<u16>> {
        let asked = self.entries.remove(&sequence).is_some_and(|entry| entry.tries > 0);
        let Some(highest) = self.highest else {
            self.highest = Some(sequence);
            return Some(Vec::new());
        };
        if sequence <= highest {
            // What was asked for was not overtaken but lost.
            if !asked {
                let distance = (highest - sequence).min(DISTANCES as u64 - 1);
                self.overtaken[distance as usize] += 1;
            }
            return Some(Vec::new());
        }
        self.highest = Some(sequence);
        if self.entries.len() as u64 + (sequence - highest) > MISSING_MAX as u64 {
            self.entries.clear();
            return None;
        }
        let patience = self.patience();
        for missing in highest + 1..sequence {
            let from = missing + patience;
            self.entries.insert(missing, Missing { since: now, asked: None, tries: 0, from });
        }
        let fresh: Vec<u16> = self
            .entries
            .iter_mut()
            .filter(|(_, entry)| entry.tries == 0 && entry.from <= sequence)
            .map(|(missing, entry)| {
                entry.asked = Some(now);
                entry.tries = 1;
                *missing as u16
            })
            .collect();
        self.asked += fresh.len() as u64;
        Some(fresh)
    }

    /// Half of the overtaken packets came within this many numbers.
    fn patience(&self) -> u64 {
        let all: u64 = self.overtaken.iter().sum();
        let mut seen = 0;
        let middle = self.overtaken.iter().position(|count| {
            seen += count;
            seen * 2 >= all
        });
        if all == 0 { 0 } else { middle.unwrap_or(0) as u64 }
    }

    /// Nothing before this number is needed any more.
    pub(crate) fn clear_to(&mut self, sequence: u64) {
        self.entries = self.entries.split_off(&sequence);
    }

    pub(crate) fn due(&self) -> Option<Time> {
        (!self.entries.is_empty()).then_some(self.next)
    }

    /// What to ask for again.
    pub(crate) fn process(&mut self, now: Time) -> Vec<u16> {
        self.next = now.plus(PROCESS_INTERVAL);
        let (rtt, age_max) = (self.rtt, self.age_max);
        self.entries.retain(|_, entry| entry.tries < TRIES_MAX && now.since(entry.since) < age_max);
        let mut list = Vec::new();
        for (sequence, entry) in &mut self.entries {
            if entry.asked.is_some_and(|asked| now.since(asked) >= rtt) {
                entry.asked = Some(now);
                entry.tries += 1;
                list.push(*sequence as u16);
            }
        }
        self.asked += list.len() as u64;
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_asked_for_at_once_and_then_once_a_round_trip() {
        let mut list = MissingList::new(Duration::from_millis(100), Duration::from_secs(10));
        assert_eq!(list.note(Time::ZERO, 70_000), Some(vec![]));
        assert_eq!(list.note(Time::ZERO, 70_002), Some(vec![4_465]));
        let mut asked = Vec::new();
        for at in 1..2_000 {
            let now = Time::from_millis(at);
            if list.due().is_some_and(|due| due <= now) && !list.process(now).is_empty() {
                asked.push(at);
            }
        }
        assert_eq!(asked.len(), 9, "{asked:?}");
        assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= 100));
        assert_eq!(list.due(), None);
    }

    #[test]
    fn too_much_at_once_needs_a_keyframe() {
        let mut list = MissingList::new(Duration::from_millis(100), Duration::from_secs(10));
        list.note(Time::ZERO, 70_000);
        assert_eq!(list.note(Time::ZERO, 71_500), None);
        assert_eq!(list.due(), None);
    }
}
