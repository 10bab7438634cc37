//! When to negotiate: what changed is collected for a moment, then the node
//! offers (dual mode) or asks the client to, with as many sections as lack
//! (single mode).

use std::time::Instant;

use headwater_model::media::{MediaKind, TrackKey};

use crate::core::Core;
use crate::directory::ParticipantKey;
use crate::participant::Stage;
use crate::room::Room;
use crate::session::{Event, TransportMode};
use crate::timers::Timer;
use crate::transport::{Asked, Outgoing};

impl Room {
    /// Collects what is to be negotiated a little longer.
    pub(crate) fn request_negotiation(&mut self, core: &mut Core, key: ParticipantKey) {
        let Some(participant) = self.participants.get(&key) else {
            return;
        };
        let timers = &core.config.timers;
        let busy =
            participant.negotiated_at.is_some_and(|at| at + timers.negotiation_busy > core.now);
        let wait = if busy { timers.negotiation_busy } else { timers.negotiation_idle };
        let due = core.now + wait;
        self.negotiate_by(core, key, due);
    }

    fn negotiate_by(&mut self, core: &mut Core, key: ParticipantKey, due: Instant) {
        let place = self.place(key);
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        if participant.negotiate_at.is_none_or(|at| at <= core.now || at > due) {
            participant.negotiate_at = Some(due);
            core.timers.arm(due, Timer::Negotiate(place));
        }
    }

    pub(crate) fn negotiation_due(&mut self, core: &mut Core, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        if participant.negotiate_at.is_none_or(|at| at > core.now) {
            return;
        }
        participant.negotiate_at = None;
        if participant.fixed_sections {
            self.fill_slots(core, key);
            return;
        }
        if participant.session().is_none() {
            return;
        }
        match participant.mode {
            TransportMode::Single => self.ask_for_sections(core, key),
            TransportMode::Dual => self.offer_if_changed(core, key),
        }
    }

    /// Single mode: asks the client to offer, with as many sections as are
    /// lacking beyond those it was asked for already. The first offer comes
    /// without being asked. A client that does not offer is asked again.
    pub(crate) fn ask_for_sections(&mut self, core: &mut Core, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let Some(publisher) = &mut participant.publisher else {
            return;
        };
        let mut leaving = false;
        let mut free = Counts::default();
        for section in publisher.sections.values() {
            match section.outgoing {
                Outgoing::Free if section.receives => free.add(section.kind),
                Outgoing::Leaving => leaving = true,
                Outgoing::Free | Outgoing::Sending(_) => {}
            }
        }
        let mut waiting = Counts::default();
        for subscription in participant.subscriptions.values() {
            if subscription.stage == Stage::Waiting {
                waiting.add(subscription.kind);
            }
        }
        let wait = core.config.timers.answer;
        if publisher.asked.at.is_some_and(|at| at + wait <= core.now) {
            publisher.asked = Asked::default();
        }
        let asked = publisher.asked;
        let audio = waiting.audio.saturating_sub(free.audio).saturating_sub(asked.audio);
        let video = waiting.video.saturating_sub(free.video).saturating_sub(asked.video);
        let is_due = leaving || waiting != Counts::default();
        let is_news = audio + video > 0 || asked.at.is_none();
        if is_due && is_news {
            publisher.asked = Asked {
                at: Some(core.now),
                audio: asked.audio + audio,
                video: asked.video + video,
            };
            self.tell(core, key, Event::MediaSectionsNeeded { audio, video });
            self.negotiate_by(core, key, core.now + wait);
        }
    }

    /// A subscribed track's section is free for another, once the client knows.
    pub(crate) fn leave_section(&mut self, key: ParticipantKey, track: TrackKey) {
        let publisher = self.participants.get_mut(&key).and_then(|one| one.publisher.as_mut());
        for section in publisher.into_iter().flat_map(|it| it.sections.values_mut()) {
            if section.outgoing == Outgoing::Sending(track) {
                section.outgoing =
                    if section.slot.is_some() { Outgoing::Free } else { Outgoing::Leaving };
            }
        }
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    audio: u32,
    video: u32,
}

impl Counts {
    const fn add(&mut self, kind: MediaKind) {
        match kind {
            MediaKind::Audio => self.audio += 1,
            MediaKind::Video => self.video += 1,
        }
    }
}
