//! What this shard tells the others.

use std::sync::Arc;

use headwater_model::media::TrackKey;
use headwater_model::{Identity, TrackUid};

use super::{RelayCommand, RelayedMessage, RemoteParticipant};
use crate::control::{ControlAction, ControlCommand, ControlError};
use crate::core::Core;
use crate::data::Destinations;
use crate::directory::ParticipantKey;
use crate::media::MediaCommand;
use crate::participant::Participant;
use crate::platform::merged;
use crate::room::Room;
use crate::track::Track;
use crate::view::ParticipantView;

impl Room {
    /// The room is carried by several shards from now on, or by one again.
    pub(crate) fn set_wide(&mut self, core: &mut Core, is_wide: bool, seats: Option<u32>) {
        self.span.seats = seats;
        let was_wide = std::mem::replace(&mut self.span.is_wide, is_wide);
        if was_wide != is_wide {
            self.forget_audience_elsewhere();
            self.note_counts_changed();
        }
        if was_wide || !is_wide {
            return;
        }
        let participants: Vec<ParticipantKey> = self.participants.keys().copied().collect();
        for key in participants {
            self.tell_shards(core, key);
        }
        self.hand_sums_over(core);
        let tracks: Vec<TrackKey> = self.tracks.keys().copied().collect();
        for track in tracks {
            self.offer_to_shards(core, track);
        }
    }

    /// Tells other shards of a participant of this one.
    pub(crate) fn tell_shards(&self, core: &mut Core, key: ParticipantKey) {
        let participant =
            self.participants.get(&key).filter(|one| !one.is_remote() && !one.unlisted);
        if let Some(participant) = participant.filter(|_| self.span.is_wide) {
            let told = RemoteParticipant {
                view: Arc::clone(&participant.view),
                allow: participant.allow.clone(),
                incarnation: participant.incarnation,
            };
            let (room, participant) = (self.id.clone(), Box::new(told));
            core.relay(RelayCommand::Put { room, participant });
        }
    }

    /// Tells other shards that a participant is gone.
    pub(crate) fn untell_shards(&self, core: &mut Core, participant: &Participant) {
        if self.span.is_wide && !participant.is_remote() && !participant.unlisted {
            let (room, identity) = (self.id.clone(), participant.identity.clone());
            core.relay(RelayCommand::Remove { room, identity });
        }
    }

    /// Offers a published track of this shard to the others.
    pub(crate) fn offer_to_shards(&self, core: &mut Core, track: TrackKey) {
        let known = self.tracks.get(&track).filter(|_| self.span.is_wide);
        let Some((known, published)) = known.and_then(|it| Some((it, it.published.as_ref()?)))
        else {
            return;
        };
        let publisher = self.participants.get(&known.publisher).filter(|one| !one.is_remote());
        if let Some(publisher) = publisher {
            core.relay(RelayCommand::Publish {
                room: self.id.clone(),
                track,
                uid: known.uid.clone(),
                participant: publisher.uid.clone(),
                publication: published.publication.clone(),
            });
        }
    }

    /// A published track is over, here or as far as this shard has it.
    pub(crate) fn withdraw_media(&self, core: &mut Core, track: &Track) {
        let (key, publisher) = (track.key, self.participants.get(&track.publisher));
        if publisher.is_some_and(Participant::is_remote) {
            core.relay(RelayCommand::Detach { track: key });
            return;
        }
        if self.span.is_wide {
            core.relay(RelayCommand::Unpublish { track: key });
        }
        core.order(MediaCommand::Unpublish { track: key });
    }

    /// Passes on what the platform wants with a participant of another shard. The
    /// answer is what will come of it if its shard has nothing against it.
    pub(crate) fn forward_control(
        &self,
        core: &mut Core,
        view: &ParticipantView,
        action: ControlAction,
    ) -> Result<Arc<ParticipantView>, ControlError> {
        let mut expected = view.clone();
        match &action {
            ControlAction::MuteTrack { track, muted } => {
                let known = expected.tracks.iter_mut().find(|known| known.uid == *track);
                known.ok_or_else(|| ControlError::TrackNotFound(track.clone()))?.muted = *muted;
            }
            ControlAction::Update(update) => {
                expected.display_name =
                    update.display_name.clone().unwrap_or(expected.display_name);
                expected.metadata = update.metadata.clone().unwrap_or(expected.metadata);
                expected.attributes = merged(&expected.attributes, update.attributes.clone());
                expected.permission = update.permission.clone().unwrap_or(expected.permission);
            }
            ControlAction::Remove { .. } | ControlAction::UpdateSubscription(_) => {}
        }
        let (room, identity) = (self.id.clone(), view.identity.clone());
        core.relay(RelayCommand::Forward(Box::new(ControlCommand { room, identity, action })));
        Ok(Arc::new(expected))
    }

    /// Sends a packet of this shard's to the others, unless everybody it is for is here.
    pub(crate) fn send_to_shards(
        &self,
        core: &mut Core,
        sender: Option<ParticipantKey>,
        destinations: &Destinations<'_>,
        reliable: bool,
        packet: &Arc<[u8]>,
    ) {
        if !self.span.is_wide {
            return;
        }
        let Some(destinations) = self.elsewhere(destinations) else {
            return;
        };
        let sender = sender.and_then(|key| self.participants.get(&key));
        let sender = sender.map(|one| one.identity.clone());
        let packet = Arc::clone(packet);
        let message = RelayedMessage { sender, destinations, reliable, packet };
        core.relay(RelayCommand::Send { room: self.id.clone(), message });
    }

    /// Sends a frame of a data track of this shard to the others.
    pub(crate) fn send_frame_to_shards(&self, core: &mut Core, track: &TrackUid, frame: &[u8]) {
        if self.span.is_wide {
            let (room, track) = (self.id.clone(), track.clone());
            core.relay(RelayCommand::SendFrame { room, track, frame: frame.into() });
        }
    }

    /// Those destinations that are on other shards; empty means everybody. None if
    /// there are no such.
    fn elsewhere(&self, destinations: &Destinations<'_>) -> Option<Vec<Identity>> {
        let remote = |one: &&Participant| one.is_remote();
        // Whom nobody shows may be in the audience of another shard.
        let may_be_elsewhere = self.audience.elsewhere() > 0;
        let found: Vec<Identity> = match destinations {
            Destinations::Everybody => {
                let any = self.participants.values().any(Participant::is_remote);
                return (any || may_be_elsewhere).then(Vec::new);
            }
            Destinations::Identities(identities) => identities
                .iter()
                .filter_map(|name| Identity::new((*name).to_owned()).ok())
                .filter(|name| match self.by_identity.get(name) {
                    Some(key) => self.participants.get(key).is_some_and(Participant::is_remote),
                    None => may_be_elsewhere,
                })
                .collect(),
            Destinations::Uids(uids) => self
                .participants
                .values()
                .filter(remote)
                .filter(|one| uids.contains(&one.uid.as_str()))
                .map(|one| one.identity.clone())
                .collect(),
        };
        (!found.is_empty()).then_some(found)
    }
}
