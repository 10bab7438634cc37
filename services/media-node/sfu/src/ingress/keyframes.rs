//! When to ask a publisher for a keyframe: requests of many subscribers become one
//! (PLI, RFC 4585 section 6.3.1).

use crate::clock::Micros;

/// Shortest time between two requests for one encoding. A keyframe costs five to ten
/// times an ordinary frame, so more of them take the room of everything else.
const INTERVAL: Micros = Micros::from_millis(1_000);
/// The same for the lowest encoding, whose keyframes are small and which everybody
/// begins with.
const INTERVAL_LOWEST: Micros = Micros::from_millis(500);

/// What is to be done with a wish for a keyframe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Ask the publisher now.
    Ask,
    /// Asked too recently: again at this time.
    Later(Micros),
}

/// Coalesces wishes for keyframes of one encoding.
#[derive(Debug)]
pub(crate) struct KeyframeGate {
    interval: Micros,
    wanted: bool,
    asked: Option<Micros>,
}

impl KeyframeGate {
    /// For the encoding at `index`, 0 being the lowest.
    pub(crate) fn new(index: usize) -> Self {
        let interval = if index == 0 { INTERVAL_LOWEST } else { INTERVAL };
        Self { interval, wanted: false, asked: None }
    }

    /// Somebody needs a keyframe that begins after now. `true` if nobody did before.
    pub(crate) fn want(&mut self) -> bool {
        !std::mem::replace(&mut self.wanted, true)
    }

    /// A keyframe began: whoever waited has it.
    pub(crate) fn arrived(&mut self) {
        self.wanted = false;
    }

    /// What to do now, if anybody needs a keyframe. After [`Wish::Ask`] it counts as
    /// asked for.
    pub(crate) fn decide(&mut self, now: Micros) -> Option<Wish> {
        if !self.wanted {
            return None;
        }
        if let Some(asked) = self.asked {
            let next = asked.plus(self.interval);
            if next > now {
                return Some(Wish::Later(next));
            }
        }
        self.wanted = false;
        self.asked = Some(now);
        Some(Wish::Ask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Micros {
        Micros::from_millis(10_000 + millis)
    }

    #[test]
    fn many_wishes_become_one_request_a_second() {
        let mut gate = KeyframeGate::new(1);
        let mut asked = 0;
        for at in 0..3_000 {
            gate.want();
            asked += u32::from(gate.decide(ms(at)) == Some(Wish::Ask));
        }
        assert_eq!(asked, 3);
    }

    #[test]
    fn a_wish_that_came_too_early_is_kept_unless_a_keyframe_comes() {
        let mut gate = KeyframeGate::new(0);
        assert!(gate.want());
        assert_eq!(gate.decide(ms(0)), Some(Wish::Ask));
        assert!(gate.want());
        assert!(!gate.want());
        assert_eq!(gate.decide(ms(100)), Some(Wish::Later(ms(500))));
        gate.arrived();
        assert_eq!(gate.decide(ms(500)), None);
        gate.want();
        assert_eq!(gate.decide(ms(500)), Some(Wish::Ask));
    }
}
