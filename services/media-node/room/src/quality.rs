//! How well connections do: scores from what the forwarding core measures,
//! told when the grade changes to those who receive the participant, and to
//! itself. A participant whose media is silent on purpose is not measured, so it
//! is never called bad for it.

use std::time::{Duration, Instant};

use crate::core::Core;
use crate::directory::ParticipantKey;
use crate::media::{Limitation, QualitySubject};
use crate::participant::Participant;
use crate::room::Room;
use crate::session::{ConnectionQuality, Event, QualityGrade};
use crate::timers::Timer;
use crate::transport::TransportState;

/// Measures of all tracks come together every five seconds; this long they are
/// collected.
const COLLECT: Duration = Duration::from_millis(200);
/// A measure counts until two more should have come.
const VALID: Duration = Duration::from_secs(12);

/// How well media travelled one way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measure {
    at: Instant,
    score: f32,
}

/// What is known and told of a participant's connection.
#[derive(Debug, Default)]
pub(crate) struct QualityState {
    downlink: Option<Measure>,
    told: Option<(QualityGrade, f32)>,
}

impl Room {
    /// The forwarding core measured something, which got this score.
    pub(crate) fn measured(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        subject: QualitySubject,
        score: f32,
    ) {
        let measure = Some(Measure { at: core.now, score });
        match subject {
            QualitySubject::Track(track) => {
                if let Some(track) = self.tracks.get_mut(&track) {
                    track.quality = measure;
                }
            }
            QualitySubject::Transport(_) => {
                if let Some(participant) = self.participants.get_mut(&key) {
                    participant.quality.downlink = measure;
                }
            }
        }
        self.judge_soon(core, COLLECT);
    }

    /// A transport came or failed.
    pub(crate) fn connection_changed(&mut self, core: &mut Core, _key: ParticipantKey) {
        self.judge_soon(core, COLLECT);
    }

    fn judge_soon(&mut self, core: &mut Core, wait: Duration) {
        let due = core.now + wait;
        if self.quality_at.is_none_or(|at| at > due || at <= core.now) {
            self.quality_at = Some(due);
            core.timers.arm(due, Timer::Quality(self.key));
        }
    }

    pub(crate) fn quality_due(&mut self, core: &mut Core) {
        if self.quality_at.is_none_or(|at| at > core.now) {
            return;
        }
        self.quality_at = None;
        let keys: Vec<ParticipantKey> = self.participants.keys().copied().collect();
        let mut changed: Vec<(ParticipantKey, ConnectionQuality)> = Vec::new();
        let mut is_measured = false;
        for key in keys {
            let Some((grade, score, measured)) = self.judge(core.now, key) else {
                continue;
            };
            is_measured |= measured;
            let Some(participant) = self.participants.get_mut(&key) else {
                continue;
            };
            let before = participant.quality.told.map(|(grade, _)| grade);
            if before != Some(grade) {
                participant.quality.told = Some((grade, score));
                let participant = participant.uid.clone();
                changed.push((key, ConnectionQuality { participant, grade, score }));
            }
        }
        self.tell_qualities(core, &changed);
        if is_measured {
            // Measures end by themselves when media falls silent.
            self.judge_soon(core, VALID);
        }
    }

    /// Grade and score of a participant, and whether they rest on a measure.
    /// None if there is nothing to say: it was never connected.
    fn judge(&self, now: Instant, key: ParticipantKey) -> Option<(QualityGrade, f32, bool)> {
        let participant = self.participants.get(&key)?;
        if !participant.was_connected {
            return None;
        }
        let is_lost = participant
            .transports()
            .any(|(_, transport)| matches!(transport.state, TransportState::Failed { .. }));
        if is_lost {
            return Some((QualityGrade::Lost, 1.0, false));
        }
        let tracks = participant.tracks.iter().filter_map(|track| self.tracks.get(track));
        let measures = tracks
            .filter(|track| !track.declared.muted)
            .map(|track| track.quality)
            .chain([participant.quality.downlink]);
        let worst = measures
            .flatten()
            .filter(|measure| measure.at + VALID > now)
            .map(|measure| measure.score)
            .min_by(f32::total_cmp);
        let score = worst.unwrap_or(SCORE_BEST);
        Some((grade(score), score, worst.is_some()))
    }

    fn tell_qualities(&self, core: &mut Core, changed: &[(ParticipantKey, ConnectionQuality)]) {
        for (key, listener) in &self.participants {
            let Some(session) = listener.session() else {
                continue;
            };
            let told: Vec<ConnectionQuality> = changed
                .iter()
                .filter(|(subject, quality)| {
                    // Browsers' SDK starts over if it is itself called lost.
                    let is_own = subject == key && quality.grade != QualityGrade::Lost;
                    is_own || (subject != key && self.receives(listener, *subject))
                })
                .map(|(_, quality)| quality.clone())
                .collect();
            if !told.is_empty() {
                core.tell(session, Event::QualityChanged(told));
            }
        }
    }

    /// What was last told of a participant.
    pub(crate) fn told_quality(&self, participant: &Participant) -> Option<ConnectionQuality> {
        let (grade, score) = participant.quality.told?;
        Some(ConnectionQuality { participant: participant.uid.clone(), grade, score })
    }
}

/// The score of a connection without loss or delay.
const SCORE_BEST: f32 = 4.41;
/// The best score with layers left out, and with tracks left out, for lack of bandwidth.
const SCORE_REDUCED: f32 = 4.0;
const SCORE_PAUSED: f32 = 3.0;

/// Mean opinion score by the E-model (ITU-T G.107), simplified: delay from the
/// round trip and a buffer of twice the jitter; loss as for codecs with repair
/// and concealment (2.5 points for each of the first ten per cent).
pub(crate) fn score(loss_ratio: f32, rtt: Option<Duration>, jitter: Duration) -> f32 {
    let loss_percent =
        if loss_ratio.is_finite() { loss_ratio.clamp(0.0, 1.0) * 100.0 } else { 0.0 };
    let one_way = rtt.unwrap_or_default().as_secs_f32() * 500.0;
    let delay_millis = one_way + jitter.as_secs_f32() * 2000.0;
    let delay_impairment = 0.024 * delay_millis + 0.11 * (delay_millis - 177.3).max(0.0);
    let loss_impairment = 2.5 * loss_percent;
    let rating = (93.2 - delay_impairment - loss_impairment).clamp(0.0, 93.2);
    let score = 1.0 + 0.035 * rating + 7e-6 * rating * (rating - 60.0) * (100.0 - rating);
    score.clamp(1.0, 5.0)
}

/// A score as it is for who gets less than it wants: fair at best with smaller pictures,
/// and disturbed with some missing.
pub(crate) fn limited(score: f32, limitation: Limitation) -> f32 {
    match limitation {
        Limitation::None => score,
        Limitation::Reduced => score.min(SCORE_REDUCED),
        Limitation::Paused => score.min(SCORE_PAUSED),
    }
}

fn grade(score: f32) -> QualityGrade {
    if score >= 4.1 {
        QualityGrade::Excellent
    } else if score >= 3.5 {
        QualityGrade::Good
    } else {
        QualityGrade::Poor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_and_delay_lower_the_grade() {
        let none = Duration::ZERO;
        assert_eq!(grade(score(0.0, None, none)), QualityGrade::Excellent);
        assert_eq!(grade(score(0.05, None, none)), QualityGrade::Good);
        assert_eq!(grade(score(0.2, None, none)), QualityGrade::Poor);
        let slow = Some(Duration::from_millis(900));
        assert!(grade(score(0.0, slow, none)) < QualityGrade::Excellent);
        assert_eq!(grade(score(f32::NAN, None, none)), QualityGrade::Excellent);
        assert!((score(0.0, None, none) - SCORE_BEST).abs() < 0.01);
    }

    #[test]
    fn what_bandwidth_takes_away_lowers_the_grade() {
        let graded = |limitation| grade(limited(SCORE_BEST, limitation));
        assert_eq!(graded(Limitation::None), QualityGrade::Excellent);
        assert_eq!(graded(Limitation::Reduced), QualityGrade::Good);
        assert_eq!(graded(Limitation::Paused), QualityGrade::Poor);
        assert_eq!(limited(2.0, Limitation::Reduced), 2.0);
    }
}
