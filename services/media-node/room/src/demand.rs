//! What is asked of publishers: encodings that nobody watches need not be sent.
//! More is asked for at once, less after a while, so that a viewer who looks
//! away and back costs nothing.

use headwater_model::media::{Codec, MediaKind, SubscriptionTarget, TrackKey};

use crate::core::Core;
use crate::room::Room;
use crate::session::Event;
use crate::timers::Timer;
use crate::track::Track;
use crate::view::LayerQuality;

impl Room {
    /// Subscribers of a track came, went or want something else.
    pub(crate) fn demand_changed(&mut self, core: &mut Core, key: TrackKey) {
        let Some(wanted) = self.wanted_quality(key) else {
            return;
        };
        let room = self.key;
        let Some(track) = self.tracks.get_mut(&key) else {
            return;
        };
        let told = track.demand.told.unwrap_or(Some(LayerQuality::High));
        if wanted >= told {
            track.demand.lower_at = None;
            if wanted > told {
                self.ask(core, key, wanted);
            }
        } else if track.demand.lower_at.is_none() {
            let due = core.now + core.config.timers.demand_lowering;
            track.demand.lower_at = Some(due);
            core.timers.arm(due, Timer::Demand(room, key));
        }
    }

    pub(crate) fn demand_due(&mut self, core: &mut Core, key: TrackKey) {
        let is_due = self
            .tracks
            .get(&key)
            .and_then(|track| track.demand.lower_at)
            .is_some_and(|at| at <= core.now);
        if let Some(wanted) = self.wanted_quality(key).filter(|_| is_due) {
            self.ask(core, key, wanted);
        }
    }

    fn ask(&mut self, core: &mut Core, key: TrackKey, wanted: Option<LayerQuality>) {
        let Some(track) = self.tracks.get_mut(&key) else {
            return;
        };
        track.demand.told = Some(wanted);
        track.demand.lower_at = None;
        let (publisher, event) = (track.publisher, demand_event(track, wanted));
        if let Some(event) = event {
            self.tell(core, publisher, event);
        }
    }

    /// After a resume: what is asked of a publisher is said again.
    pub(crate) fn repeat_demand(&self, core: &mut Core, key: TrackKey) {
        let Some(track) = self.tracks.get(&key) else {
            return;
        };
        let event = track.demand.told.and_then(|wanted| demand_event(track, wanted));
        if let Some(event) = event {
            self.tell(core, track.publisher, event);
        }
    }

    /// The best quality anybody watches. None of it if nobody does; nothing at
    /// all for tracks of which nothing is ever asked: those never subscribed to
    /// (their first subscriber wants a picture at once), and sound.
    fn wanted_quality(&self, key: TrackKey) -> Option<Option<LayerQuality>> {
        let track = self.tracks.get(&key)?;
        if track.kind != MediaKind::Video || !track.was_subscribed || track.published.is_none() {
            return None;
        }
        let wanted = self
            .live_targets(key)
            .filter(|(_, target)| *target != SubscriptionTarget::Paused)
            .map(|(participant, _)| track.wanted_quality(&participant.settings(&track.uid)))
            .max();
        Some(wanted.max(track.wanted_elsewhere))
    }
}

fn demand_event(track: &Track, wanted: Option<LayerQuality>) -> Option<Event> {
    let codec: Codec = track.codec?;
    let watched = [LayerQuality::Low, LayerQuality::Medium, LayerQuality::High]
        .into_iter()
        .filter(|quality| Some(*quality) <= wanted)
        .collect();
    Some(Event::LayerDemand { track: track.uid.clone(), codec, watched })
}
