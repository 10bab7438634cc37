//! How loud an audio track is and whether somebody speaks, from the levels in the
//! packets (RFC 6464). The payload is never looked at.

use crate::clock::Micros;

/// Levels are looked at in intervals of this length, as LiveKit does: long enough to
/// bridge pauses between words, short enough to follow a talk.
pub(crate) const SPEAKER_INTERVAL: Micros = Micros::from_millis(400);
/// Quieter than this (dB below overload) is not speech.
const THRESHOLD: u8 = 35;
/// Part of an interval that has to be loud, in percent: a cough is no speaker.
const LOUD_PERCENT: u64 = 40;
/// Intervals over which levels are smoothed.
const SMOOTHING: f32 = 2.0;
/// Levels are told in steps of one eighth, so that small changes are no news.
const STEPS: f32 = 8.0;
/// The longest time that one packet stands for. Behind a pause (DTX) the time between
/// two packets was silence.
const PACKET_MAX: Micros = Micros::from_millis(120);
/// Below this a smoothed level is silence.
const SILENCE: f32 = 0.001;

/// What is told of a track.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Level {
    /// 0 to 1, in eighths.
    pub(crate) level: f32,
    pub(crate) active: bool,
}

/// Level of one audio track.
#[derive(Debug, Default)]
pub(crate) struct LevelMeter {
    last_timestamp: Option<u32>,
    loud: Micros,
    loudest: Option<u8>,
    smoothed: f32,
    told: Option<Level>,
}

impl LevelMeter {
    /// A packet came: `level` in dB below overload.
    pub(crate) fn observe(&mut self, timestamp: u32, level: u8, clock_rate: u32) {
        let before = self.last_timestamp.replace(timestamp);
        if level > THRESHOLD {
            return;
        }
        let units = before.map_or(0, |before| timestamp.wrapping_sub(before));
        let span = Micros(u64::from(units) * 1_000_000 / u64::from(clock_rate));
        self.loud = self.loud.plus(if span > PACKET_MAX { Micros::ZERO } else { span });
        self.loudest = Some(self.loudest.map_or(level, |loudest| loudest.min(level)));
    }

    /// An interval is over. What is to be told, if it is news.
    pub(crate) fn finish_interval(&mut self) -> Option<Level> {
        let loud = std::mem::take(&mut self.loud);
        let loudest = self.loudest.take();
        let enough = loud.0 * 100 >= SPEAKER_INTERVAL.0 * LOUD_PERCENT;
        let linear = match loudest {
            Some(loudest) if enough => {
                let part = (loud.0 as f32 / SPEAKER_INTERVAL.0 as f32).min(1.0);
                // A part of the interval counts as so much less in dB.
                let below = f32::from(loudest) - 20.0 * part.log10();
                linear(below)
            }
            Some(_) | None => 0.0,
        };
        self.smoothed += (linear - self.smoothed) * (2.0 / (SMOOTHING + 1.0));
        if self.smoothed < SILENCE {
            self.smoothed = 0.0;
        }
        let active = self.smoothed >= linear_threshold();
        let level = if active { (self.smoothed * STEPS).ceil().min(STEPS) / STEPS } else { 0.0 };
        self.tell(Level { level, active })
    }

    /// The track fell silent at once: it was muted.
    pub(crate) fn silence(&mut self) -> Option<Level> {
        let told = self.told;
        *self = Self { told, ..Self::default() };
        self.tell(Level { level: 0.0, active: false })
    }

    /// Nothing is left to tell until another packet comes.
    pub(crate) fn is_quiet(&self) -> bool {
        self.smoothed == 0.0 && self.loudest.is_none()
    }

    fn tell(&mut self, level: Level) -> Option<Level> {
        let before = self.told.unwrap_or(Level { level: 0.0, active: false });
        self.told = Some(level);
        (before != level).then_some(level)
    }
}

fn linear(below_overload: f32) -> f32 {
    10_f32.powf(-below_overload / 20.0)
}

fn linear_threshold() -> f32 {
    linear(f32::from(THRESHOLD))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of 20 ms for one interval, `loud` of them at `level`, the rest silent.
    fn interval(meter: &mut LevelMeter, at: &mut u32, loud: u32, level: u8) -> Option<Level> {
        for packet in 0..20 {
            *at = at.wrapping_add(960);
            meter.observe(*at, if packet < loud { level } else { 127 }, 48_000);
        }
        meter.finish_interval()
    }

    #[test]
    fn a_speaker_is_told_once_and_silence_once() {
        let mut meter = LevelMeter::default();
        let mut at = u32::MAX - 10_000;
        let told: Vec<_> = (0..10).filter_map(|_| interval(&mut meter, &mut at, 20, 20)).collect();
        assert_eq!(told, [Level { level: 0.125, active: true }]);
        let told: Vec<_> = (0..10).filter_map(|_| interval(&mut meter, &mut at, 0, 20)).collect();
        assert_eq!(told, [Level { level: 0.0, active: false }]);
        assert!(meter.is_quiet());
    }

    #[test]
    fn louder_speech_has_a_higher_level() {
        let mut meter = LevelMeter::default();
        let mut at = 0;
        let told: Vec<_> = (0..10).filter_map(|_| interval(&mut meter, &mut at, 20, 5)).collect();
        assert!(told.windows(2).all(|pair| pair[0].level < pair[1].level), "{told:?}");
        assert_eq!(told.last().unwrap().level, 0.625);
    }

    #[test]
    fn a_cough_and_a_murmur_are_no_speaker() {
        let mut meter = LevelMeter::default();
        let mut at = 0;
        for _ in 0..10 {
            assert_eq!(interval(&mut meter, &mut at, 7, 10), None, "35 % of the time");
            assert_eq!(interval(&mut meter, &mut at, 20, 36), None, "below the threshold");
        }
    }

    #[test]
    fn a_muted_speaker_is_silent_at_once() {
        let mut meter = LevelMeter::default();
        let mut at = 0;
        interval(&mut meter, &mut at, 20, 10);
        assert_eq!(meter.silence(), Some(Level { level: 0.0, active: false }));
        assert_eq!(meter.silence(), None);
    }
}
