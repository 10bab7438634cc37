//! Events that wait for the core's owner.

use super::Sfu;
use crate::SfuEvent;

/// Events that wait at most. An owner fetches them after every call; one that does not
/// loses the newest, and they are counted.
pub(super) const EVENTS_MAX: usize = 16_384;

impl Sfu {
    pub(super) fn tell(&mut self, event: SfuEvent) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        } else {
            self.stats.events_dropped += 1;
        }
    }
}
