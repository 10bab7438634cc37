//! Which packets are lost: each by itself, or in bursts.

use crate::Random;

/// How packets are lost.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Loss {
    /// None.
    #[default]
    None,
    /// Each by itself, with this chance (0 to 1).
    Even(f64),
    /// In bursts, by the model of Gilbert and Elliott: in good times little is lost, in
    /// bad times much. Chances are per packet.
    Bursts {
        /// Good times end.
        begin: f64,
        /// Bad times end.
        end: f64,
        /// A packet of good times is lost.
        good: f64,
        /// A packet of bad times is lost.
        bad: f64,
    },
}

impl Loss {
    /// Bursts in which every packet is lost, of a mean length, that make up a part (0 to 1)
    /// of all packets.
    #[must_use]
    pub fn bursts(part: f64, packets: f64) -> Self {
        let end = 1.0 / packets.max(1.0);
        let begin = end * part / (1.0 - part).max(f64::EPSILON);
        Self::Bursts { begin, end, good: 0.0, bad: 1.0 }
    }
}

/// Good or bad times.
#[derive(Debug, Clone, Copy, Default)]
pub struct LossState {
    bad: bool,
}

impl LossState {
    /// Whether the next packet is lost.
    pub fn takes(&mut self, loss: Loss, random: &mut Random) -> bool {
        match loss {
            Loss::None => false,
            Loss::Even(part) => random.chance(part),
            Loss::Bursts { begin, end, good, bad } => {
                let turns = random.chance(if self.bad { end } else { begin });
                self.bad ^= turns;
                random.chance(if self.bad { bad } else { good })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(loss: Loss, packets: u32) -> Vec<bool> {
        let (mut state, mut random) = (LossState::default(), Random::new(3));
        (0..packets).map(|_| state.takes(loss, &mut random)).collect()
    }

    #[test]
    fn bursts_have_the_part_and_the_length_they_were_given() {
        let list = lost(Loss::bursts(0.05, 5.0), 200_000);
        let all = list.iter().filter(|lost| **lost).count();
        let begins = list.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        assert!((9_000..11_000).contains(&all), "{all}");
        let length = all as f64 / begins as f64;
        assert!((4.5..5.5).contains(&length), "{length}");
    }

    #[test]
    fn even_losses_have_their_part() {
        let all = lost(Loss::Even(0.3), 100_000).iter().filter(|lost| **lost).count();
        assert!((29_000..31_000).contains(&all), "{all}");
        assert!(!lost(Loss::None, 1_000).contains(&true));
    }
}
