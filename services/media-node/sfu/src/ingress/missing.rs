//! Packet path: no allocation. What is missing of one encoding and when to ask for it
//! again (generic NACK, RFC 4585 section 6.2.1).

use arrayvec::ArrayVec;

use crate::clock::Micros;

/// Numbers waited for at once. At the bound the oldest are given up.
const MISSING_MAX: usize = 256;
/// A hole wider than this is not worth repairing: a keyframe is cheaper.
const GAP_MAX: u64 = 128;
/// Requests for one packet, the first included. Six with the spacing below reach over
/// a second at a round trip of 100 ms.
const TRIES_MAX: u8 = 6;
/// Requests after which one need not think that the packet will not come.
const HOPEFUL: u8 = 2;
/// Shortest time between two requests for one packet, for round trips near zero.
const SPACING_MIN: Micros = Micros::from_millis(20);
/// Time for a packet to come by itself, behind one that overtook it.
const REORDER_GRACE: Micros = Micros::from_millis(5);

/// Sequence numbers asked for in one go.
pub(crate) type Requests = ArrayVec<u16, 128>;

#[derive(Debug, Clone, Copy)]
struct Missing {
    sequence: u64,
    due: Micros,
    asked: Micros,
    tries: u8,
}

/// A packet that was missing came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// By itself: it was only late.
    Unasked,
    /// After one request, made at this time: a round trip.
    Asked(Micros),
    /// After several requests.
    AskedAgain,
}

/// What is missing, oldest first.
#[derive(Debug, Default)]
pub(crate) struct MissingList {
    entries: ArrayVec<Missing, MISSING_MAX>,
}

/// What became of a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gap {
    /// It is waited for. Holds how many older numbers were given up for it.
    Recorded { given_up: u64 },
    /// It is too wide: everything was given up.
    TooWide { given_up: u64 },
}

impl MissingList {
    /// The numbers from `from` up to but not including `to` did not come.
    pub(crate) fn add(&mut self, now: Micros, from: u64, to: u64) -> Gap {
        let width = to.saturating_sub(from);
        if width > GAP_MAX {
            let given_up = self.entries.len() as u64 + width;
            self.entries.clear();
            return Gap::TooWide { given_up };
        }
        let room = self.entries.remaining_capacity();
        let surplus = (width as usize).saturating_sub(room);
        self.entries.drain(..surplus);
        let due = now.plus(REORDER_GRACE);
        self.entries.extend((from..to).map(|sequence| Missing {
            sequence,
            due,
            asked: Micros::ZERO,
            tries: 0,
        }));
        Gap::Recorded { given_up: surplus as u64 }
    }

    /// It is waited for.
    pub(crate) fn contains(&self, sequence: u64) -> bool {
        self.entries.binary_search_by_key(&sequence, |missing| missing.sequence).is_ok()
    }

    /// The packet came. `None` if it was not missed.
    pub(crate) fn found(&mut self, sequence: u64) -> Option<Found> {
        let index =
            self.entries.binary_search_by_key(&sequence, |missing| missing.sequence).ok()?;
        let missing = self.entries.remove(index);
        Some(match missing.tries {
            0 => Found::Unasked,
            1 => Found::Asked(missing.asked),
            _ => Found::AskedAgain,
        })
    }

    /// Appends what is to be asked for now. Returns how many were given up. The time
    /// between requests is the round trip and a half, doubling from the third on.
    pub(crate) fn due(&mut self, now: Micros, rtt: Micros, requests: &mut Requests) -> u64 {
        let spacing = Micros(rtt.0 * 3 / 2).max(SPACING_MIN);
        let before = self.entries.len();
        self.entries.retain(|missing| missing.due > now || missing.tries < TRIES_MAX);
        for missing in &mut self.entries {
            if missing.due <= now && requests.try_push(missing.sequence as u16).is_ok() {
                let doublings = missing.tries.saturating_sub(1).min(3);
                missing.due = now.plus(Micros(spacing.0 << doublings));
                missing.asked = now;
                missing.tries += 1;
            }
        }
        (before - self.entries.len()) as u64
    }

    /// When the next request is due.
    pub(crate) fn next_due(&self) -> Option<Micros> {
        self.entries.iter().map(|missing| missing.due).min()
    }

    /// Something is missing, and all of it may come any moment: nothing was asked for in
    /// vain more than once.
    pub(crate) fn is_hopeful(&self) -> bool {
        !self.entries.is_empty() && self.entries.iter().all(|missing| missing.tries <= HOPEFUL)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Gives up everything and says how much it was.
    pub(crate) fn clear(&mut self) -> u64 {
        let given_up = self.entries.len() as u64;
        self.entries.clear();
        given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Micros {
        Micros::from_millis(millis)
    }

    fn due(list: &mut MissingList, at: u64) -> (Vec<u16>, u64) {
        let mut requests = Requests::new();
        let given_up = list.due(ms(at), ms(100), &mut requests);
        (requests.to_vec(), given_up)
    }

    #[test]
    fn a_hole_is_asked_for_with_growing_distance_and_then_given_up() {
        let mut list = MissingList::default();
        assert_eq!(list.add(ms(0), 70_000, 70_002), Gap::Recorded { given_up: 0 });
        assert_eq!(due(&mut list, 4), (vec![], 0));
        let mut asked_at = Vec::new();
        let mut given_up = 0;
        for at in 5..10_000 {
            let (requests, gone) = due(&mut list, at);
            given_up += gone;
            if !requests.is_empty() {
                assert_eq!(requests, [4_464, 4_465]);
                asked_at.push(at);
            }
        }
        assert_eq!(asked_at, [5, 155, 305, 605, 1_205, 2_405]);
        assert_eq!(given_up, 2);
        assert!(list.is_empty());
    }

    #[test]
    fn what_came_is_not_asked_for() {
        let mut list = MissingList::default();
        list.add(ms(0), 10, 13);
        assert_eq!(list.found(11), Some(Found::Unasked));
        assert_eq!(due(&mut list, 10).0, [10, 12]);
        assert_eq!(list.found(12), Some(Found::Asked(ms(10))));
        assert_eq!(list.found(12), None);
        assert_eq!(due(&mut list, 500).0, [10]);
    }

    #[test]
    fn a_wide_hole_is_given_up_at_once() {
        let mut list = MissingList::default();
        list.add(ms(0), 10, 13);
        assert_eq!(list.add(ms(0), 20, 220), Gap::TooWide { given_up: 203 });
        assert!(list.is_empty());
    }

    #[test]
    fn the_oldest_make_room_at_the_bound() {
        let mut list = MissingList::default();
        for start in 0..3 {
            list.add(ms(0), start * 1_000, start * 1_000 + 128);
        }
        assert_eq!(list.entries.len(), MISSING_MAX);
        assert_eq!(list.entries[0].sequence, 1_000);
        assert_eq!(due(&mut list, 10).0.len(), 128, "no more than one message holds");
    }
}
