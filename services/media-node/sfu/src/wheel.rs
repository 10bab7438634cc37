//! Coarse timers: a wheel of buckets of ten milliseconds. Arming and firing cost the
//! same however many timers there are, and allocate only where more are armed than room
//! was reserved for.

use crate::clock::Micros;

/// Width of a bucket. Ten milliseconds is a fraction of any round trip; less would
/// only wake more often.
const TICK: u64 = 10_000;
/// Buckets; the longest timer is [`HORIZON`].
const BUCKETS: usize = 1024;
/// Timers further away fire at this distance and are armed again by who needs them.
const HORIZON: u64 = BUCKETS as u64 - 1;
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Node<T> {
    timer: T,
    next: u32,
}

/// Timers by the tick at which they are due. Within a tick the order is the reverse of
/// arming, which is arbitrary but always the same.
#[derive(Debug)]
pub(crate) struct TimerWheel<T> {
    heads: Box<[u32; BUCKETS]>,
    nodes: Vec<Node<T>>,
    free: u32,
    /// The first tick that has not been fired.
    tick: u64,
    armed: usize,
}

impl<T: Copy> TimerWheel<T> {
    pub(crate) fn new(now: Micros) -> Self {
        Self {
            heads: Box::new([NONE; BUCKETS]),
            nodes: Vec::new(),
            free: NONE,
            tick: now.0 / TICK,
            armed: 0,
        }
    }

    /// Makes room for this many timers in all.
    pub(crate) fn reserve(&mut self, timers: usize) {
        self.nodes.reserve(timers.saturating_sub(self.nodes.len()));
    }

    /// Arms a timer. It fires at the first tick that is not before `at`.
    pub(crate) fn arm(&mut self, at: Micros, timer: T) {
        let tick = at.0.div_ceil(TICK).clamp(self.tick, self.tick + HORIZON);
        let bucket = (tick % BUCKETS as u64) as usize;
        let node = Node { timer, next: self.heads[bucket] };
        let index = if self.free == NONE {
            self.nodes.push(node);
            (self.nodes.len() - 1) as u32
        } else {
            let index = self.free;
            self.free = self.nodes[index as usize].next;
            self.nodes[index as usize] = node;
            index
        };
        self.heads[bucket] = index;
        self.armed += 1;
    }

    /// Appends what is due to `fired`.
    pub(crate) fn expire(&mut self, now: Micros, fired: &mut Vec<T>) {
        let last = now.0 / TICK;
        if last < self.tick {
            return;
        }
        let ticks = (last - self.tick + 1).min(BUCKETS as u64);
        for tick in self.tick..self.tick + ticks {
            let bucket = (tick % BUCKETS as u64) as usize;
            let mut index = std::mem::replace(&mut self.heads[bucket], NONE);
            while index != NONE {
                let node = self.nodes[index as usize];
                fired.push(node.timer);
                self.nodes[index as usize].next = self.free;
                self.free = index;
                self.armed -= 1;
                index = node.next;
            }
        }
        self.tick = last + 1;
    }

    /// When the next timer is due.
    pub(crate) fn next(&self) -> Option<Micros> {
        if self.armed == 0 {
            return None;
        }
        (self.tick..self.tick + BUCKETS as u64)
            .find(|tick| self.heads[(tick % BUCKETS as u64) as usize] != NONE)
            .map(|tick| Micros(tick * TICK))
    }

    /// Timers armed.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.armed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Micros {
        Micros::from_millis(1_000 + millis)
    }

    #[test]
    fn timers_fire_once_and_not_too_early() {
        let mut wheel = TimerWheel::new(ms(0));
        let mut fired = Vec::new();
        wheel.arm(ms(25), 'a');
        wheel.arm(ms(500), 'b');
        assert_eq!(wheel.next(), Some(ms(30)));
        wheel.expire(ms(29), &mut fired);
        assert!(fired.is_empty());
        wheel.expire(ms(30), &mut fired);
        assert_eq!(fired, ['a']);
        wheel.expire(ms(499), &mut fired);
        assert_eq!(fired, ['a']);
        wheel.expire(ms(2_000), &mut fired);
        assert_eq!(fired, ['a', 'b']);
        assert_eq!((wheel.next(), wheel.len()), (None, 0));
    }

    #[test]
    fn a_timer_in_the_past_fires_at_the_next_tick() {
        let mut wheel = TimerWheel::new(ms(0));
        let mut fired = Vec::new();
        wheel.expire(ms(100), &mut fired);
        wheel.arm(ms(50), 'a');
        wheel.expire(ms(111), &mut fired);
        assert_eq!(fired, ['a']);
    }

    #[test]
    fn a_long_sleep_fires_everything() {
        let mut wheel = TimerWheel::new(ms(0));
        let mut fired = Vec::new();
        for millis in 0..5_000 {
            wheel.arm(ms(millis), millis);
        }
        wheel.expire(ms(60_000), &mut fired);
        assert_eq!(fired.len(), 5_000);
        wheel.arm(ms(60_020), 1);
        assert_eq!(wheel.next(), Some(ms(60_020)));
    }

    #[test]
    fn a_timer_beyond_the_horizon_fires_at_the_horizon() {
        let mut wheel = TimerWheel::new(ms(0));
        let mut fired = Vec::new();
        wheel.arm(ms(100_000), 'a');
        wheel.expire(ms(10_231), &mut fired);
        assert_eq!(fired, ['a']);
    }
}
