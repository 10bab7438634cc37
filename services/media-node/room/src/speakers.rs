//! Who speaks: the loudest track of each participant, told when it changes to
//! those who receive the participant, and to itself.

use std::time::{Duration, Instant};

use headwater_model::media::TrackKey;

use crate::core::Core;
use crate::directory::ParticipantKey;
use crate::participant::Participant;
use crate::room::Room;
use crate::session::{Event, Speaker};
use crate::timers::Timer;

/// The forwarding core tells of all tracks of a room one after the other; this
/// long they are collected.
const COLLECT: Duration = Duration::from_millis(20);
/// Longest speech that is pretended.
const PRETENDED_SECONDS_MAX: u32 = 600;

/// How loud a participant is.
#[derive(Debug, Default)]
pub(crate) struct Speech {
    /// In eighths.
    now: Loudness,
    told: Loudness,
    pretended_until: Option<Instant>,
    /// When it is looked whether the pretence is over.
    pretence_at: Option<Instant>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Loudness {
    eighths: u8,
    active: bool,
}

impl Loudness {
    fn new(level: f32, active: bool) -> Self {
        // Not a number becomes 0; clients built on Rust fail on it.
        let eighths = (level.clamp(0.0, 1.0) * 8.0).round() as u8;
        if active { Self { eighths, active } } else { Self::default() }
    }

    fn speaker(self, participant: &Participant) -> Speaker {
        Speaker {
            participant: participant.uid.clone(),
            level: f32::from(self.eighths) / 8.0,
            active: self.active,
        }
    }
}

impl Room {
    /// A track is louder or quieter.
    pub(crate) fn track_heard(&mut self, core: &mut Core, key: TrackKey, level: f32, active: bool) {
        let Some(track) = self.tracks.get_mut(&key) else {
            return;
        };
        track.level = if level.is_finite() { level } else { 0.0 };
        track.is_heard = active;
        let publisher = track.publisher;
        self.speech_of(core, publisher);
    }

    /// Takes stock of a participant's loudness.
    pub(crate) fn speech_of(&mut self, core: &mut Core, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let loudest = participant
            .tracks
            .iter()
            .filter_map(|track| self.tracks.get(track))
            .filter(|track| track.is_heard && !track.declared.muted)
            .map(|track| Loudness::new(track.level, true))
            .max_by_key(|loudness| loudness.eighths)
            .unwrap_or_default();
        let speech = &mut participant.speech;
        let pretends = speech.pretended_until.is_some_and(|until| until > core.now);
        speech.now = if pretends { Loudness { eighths: 8, active: true } } else { loudest };
        if speech.now != speech.told {
            self.speech_changed.insert(key);
            if self.speakers_at.is_none() {
                let due = core.now + COLLECT;
                self.speakers_at = Some(due);
                core.timers.arm(due, Timer::Speakers(self.key));
            }
        }
    }

    pub(crate) fn speakers_due(&mut self, core: &mut Core) {
        if self.speakers_at.is_none_or(|at| at > core.now) {
            return;
        }
        self.speakers_at = None;
        let mut changed: Vec<(ParticipantKey, Speaker)> = Vec::new();
        for key in std::mem::take(&mut self.speech_changed) {
            let Some(participant) = self.participants.get_mut(&key) else {
                continue;
            };
            let speech = &mut participant.speech;
            if speech.now != speech.told {
                speech.told = speech.now;
                let speaker = speech.told.speaker(participant);
                changed.push((key, speaker));
            }
        }
        for (key, listener) in &self.participants {
            let Some(session) = listener.session() else {
                continue;
            };
            let heard: Vec<Speaker> = changed
                .iter()
                .filter(|(speaker, _)| speaker == key || self.receives(listener, *speaker))
                .map(|(_, speaker)| speaker.clone())
                .collect();
            if !heard.is_empty() {
                core.tell(session, Event::SpeakersChanged(heard));
            }
        }
    }

    /// Whether somebody subscribes to a track of another.
    pub(crate) fn receives(&self, listener: &Participant, publisher: ParticipantKey) -> bool {
        self.participants.get(&publisher).is_some_and(|publisher| {
            publisher.tracks.iter().any(|track| listener.subscriptions.contains_key(track))
        })
    }

    /// A subscriber learns how its new publisher does.
    pub(crate) fn greet_subscriber(&self, core: &mut Core, key: ParticipantKey, track: TrackKey) {
        let publisher = self.tracks.get(&track).map(|track| track.publisher);
        let publisher = publisher.and_then(|publisher| self.participants.get(&publisher));
        let Some(publisher) = publisher else { return };
        if publisher.speech.told.active {
            let speaker = publisher.speech.told.speaker(publisher);
            self.tell(core, key, Event::SpeakersChanged(vec![speaker]));
        }
        if let Some(quality) = self.told_quality(publisher) {
            self.tell(core, key, Event::QualityChanged(vec![quality]));
        }
    }

    /// A participant who took its session up learns who speaks and how all do.
    pub(crate) fn tell_speech_and_quality(&self, core: &mut Core, key: ParticipantKey) {
        let Some(listener) = self.participants.get(&key) else {
            return;
        };
        let known = self.participants.values().filter(|one| self.receives(listener, one.key));
        let (mut speakers, mut qualities) = (Vec::new(), Vec::new());
        for publisher in known {
            speakers.push(publisher.speech.told.speaker(publisher));
            qualities.extend(self.told_quality(publisher));
        }
        if !speakers.is_empty() {
            self.tell(core, key, Event::SpeakersChanged(speakers));
        }
        if !qualities.is_empty() {
            self.tell(core, key, Event::QualityChanged(qualities));
        }
    }

    /// Test scenario: a participant is said to speak.
    pub(crate) fn pretend_speech(&mut self, core: &mut Core, key: ParticipantKey, seconds: u32) {
        let place = self.place(key);
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let seconds = seconds.min(PRETENDED_SECONDS_MAX);
        let until = core.now + Duration::from_secs(u64::from(seconds));
        let speech = &mut participant.speech;
        speech.pretended_until = Some(until);
        if speech.pretence_at.is_none_or(|at| at > until) {
            speech.pretence_at = Some(until);
            core.timers.arm(until, Timer::Speech(place));
        }
        self.speech_of(core, key);
    }

    pub(crate) fn pretended_speech_due(&mut self, core: &mut Core, key: ParticipantKey) {
        let place = self.place(key);
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let speech = &mut participant.speech;
        if speech.pretence_at.is_some_and(|at| at <= core.now) {
            speech.pretence_at = speech.pretended_until.filter(|until| *until > core.now);
            if let Some(due) = speech.pretence_at {
                core.timers.arm(due, Timer::Speech(place));
            }
        }
        self.speech_of(core, key);
    }
}
