//! What lack of bandwidth means to a subscriber: which of its tracks come first, and
//! that it is told when one is paused for it.

use headwater_model::media::{Prominence, TrackKey};

use crate::core::Core;
use crate::directory::ParticipantKey;
use crate::media::MediaCommand;
use crate::participant::{Stage, Subscription};
use crate::room::Room;
use crate::session::{Event, TrackSettings};

impl Room {
    /// A track is sent no more for lack of bandwidth, or again. The client shows that
    /// instead of a frozen picture.
    pub(crate) fn stream_paused(
        &self,
        core: &mut Core,
        key: ParticipantKey,
        track: TrackKey,
        paused: bool,
    ) {
        let known = self.tracks.get(&track);
        let publisher = known.and_then(|track| self.uid_of(track.publisher));
        if let Some((known, publisher)) = known.zip(publisher) {
            let event = Event::StreamPaused { publisher, track: known.uid.clone(), paused };
            self.tell(core, key, event);
        }
    }
}

impl Subscription {
    /// Tells the forwarding core how much the subscriber cares for a track that is
    /// forwarded, if that is news.
    pub(crate) fn set_prominence(&mut self, core: &mut Core, settings: &TrackSettings) {
        let Stage::Live { .. } = self.stage else {
            return;
        };
        let prominence = Prominence {
            priority: settings.priority,
            pixels: settings.width.saturating_mul(settings.height),
        };
        if std::mem::replace(&mut self.prominence, prominence) != prominence {
            let subscription = self.key;
            core.order(MediaCommand::SetProminence { subscription, prominence });
        }
    }
}
