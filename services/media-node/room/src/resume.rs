//! After a lost session was taken up: what the node and the client hold is
//! compared, and brought together or given up.

use crate::core::Core;
use crate::directory::ParticipantKey;
use crate::room::Room;
use crate::room::membership::Farewell;
use crate::session::{CloseReason, SyncState, TrackSettings, TransportMode};
use crate::transport::Asked;

impl Room {
    /// What follows the first event of a resumed session.
    pub(crate) fn after_resume(&mut self, core: &mut Core, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let mode = participant.mode;
        if let Some(publisher) = &mut participant.publisher {
            // What the client was asked for may never have reached it.
            publisher.asked = Asked::default();
        }
        let tracks = participant.tracks.clone();
        match mode {
            // The client restarts ICE itself.
            TransportMode::Single => self.request_negotiation(core, key),
            TransportMode::Dual => self.restart_subscriber_transport(core, key),
        }
        self.tell_speech_and_quality(core, key);
        for track in tracks {
            self.repeat_demand(core, track);
        }
        if self.has_handles(key) {
            self.tell_handles(core, key);
        }
    }

    /// Compares what the client holds.
    pub(crate) fn sync_state(&mut self, core: &mut Core, key: ParticipantKey, state: SyncState) {
        let is_known = state.published.values().all(|uid| self.track_of(key, uid).is_some());
        if state.has_unacknowledged_tracks || !is_known {
            let reason = CloseReason::StateMismatch;
            let message = "the node does not have what the client publishes".to_owned();
            self.remove(core, key, Farewell::told(reason, reason.action(), message));
            return;
        }
        if let Some(subscription) = &state.subscription {
            self.update_subscription(core, key, subscription);
        }
        for uid in &state.disabled {
            let Some(participant) = self.participants.get(&key) else {
                return;
            };
            let settings = TrackSettings { disabled: true, ..participant.settings(uid) };
            self.update_settings(core, key, std::slice::from_ref(uid), settings);
        }
        for request in state.data_tracks {
            let is_there = self.participants.get(&key).is_some_and(|one| {
                one.data.published.keys().any(|handle| u32::from(*handle) == request.handle)
            });
            if !is_there {
                self.publish_data_track(core, key, request);
            }
        }
        self.replay_data(core, key, &state.last_data_sequences);
    }
}
