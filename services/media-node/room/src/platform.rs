//! What the platform and the participant itself change of a participant.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_model::{Identity, Permission, TrackUid};

use crate::config::Limits;
use crate::control::{ControlAction, ControlError, ParticipantUpdate};
use crate::core::Core;
use crate::directory::ParticipantKey;
use crate::room::Room;
use crate::room::membership::Farewell;
use crate::session::{
    CloseReason, Event, RequestOutcome, RequestReference, RequestResult, UpdateSelf,
};
use crate::view::{ParticipantPhase, ParticipantView};

/// What came of a command: the participant, or what it was.
#[derive(Debug)]
pub(crate) enum ControlOutcome {
    Present(ParticipantKey, Arc<ParticipantView>),
    Gone(Arc<ParticipantView>),
}

impl ControlOutcome {
    /// The participant once everything is settled.
    pub(crate) fn view(self, room: &Room) -> Arc<ParticipantView> {
        match self {
            Self::Present(key, before) => room
                .participants
                .get(&key)
                .map_or(before, |participant| participant.own_view(&room.tracks)),
            Self::Gone(view) => view,
        }
    }
}

impl Room {
    pub(crate) fn handle_control(
        &mut self,
        core: &mut Core,
        identity: &Identity,
        action: ControlAction,
    ) -> Result<ControlOutcome, ControlError> {
        let key = self.by_identity.get(identity).copied();
        let participant = key.and_then(|key| self.participants.get(&key));
        let participant =
            participant.ok_or_else(|| ControlError::ParticipantNotFound(identity.clone()))?;
        let (key, before) = (participant.key, participant.own_view(&self.tracks));
        if participant.is_remote() {
            return self.forward_control(core, &before, action).map(ControlOutcome::Gone);
        }
        match action {
            ControlAction::Remove { reason } => {
                self.remove(core, key, Farewell::closed(reason));
                return Ok(ControlOutcome::Gone(before));
            }
            ControlAction::MuteTrack { track, muted } => self.mute(core, key, track, muted)?,
            ControlAction::Update(update) => self.update(core, key, update)?,
            ControlAction::UpdateSubscription(update) => {
                self.update_subscription(core, key, &update);
            }
        }
        Ok(ControlOutcome::Present(key, before))
    }

    fn mute(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        uid: TrackUid,
        muted: bool,
    ) -> Result<(), ControlError> {
        let Some(track) = self.track_of(key, &uid) else {
            return Err(ControlError::TrackNotFound(uid));
        };
        if self.set_muted(core, track, muted) {
            self.tell(core, key, Event::MuteTrack { track: uid, muted });
        }
        Ok(())
    }

    fn update(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        update: ParticipantUpdate,
    ) -> Result<(), ControlError> {
        let Some(participant) = self.participants.get(&key) else {
            return Ok(());
        };
        let attributes = merged(&participant.attributes, update.attributes);
        check_sizes(
            &core.config.limits,
            update.display_name.as_deref().unwrap_or_default(),
            update.metadata.as_deref().unwrap_or_default(),
            &attributes,
        )?;
        let Some(participant) = self.participants.get_mut(&key) else {
            return Ok(());
        };
        participant.attributes = attributes;
        if let Some(name) = update.display_name {
            participant.display_name = name;
        }
        if let Some(metadata) = update.metadata {
            participant.metadata = metadata;
        }
        self.mark_changed(key);
        if let Some(permission) = update.permission {
            self.set_permission(core, key, permission);
        }
        Ok(())
    }

    /// The client changes what is told of it.
    pub(crate) fn update_self(&mut self, core: &mut Core, key: ParticipantKey, update: UpdateSelf) {
        let request = RequestReference::UpdateSelf(update.request_id);
        let (outcome, message) = match self.apply_own_update(core, key, update) {
            Ok(()) => (RequestOutcome::Done, ""),
            Err(refused) => refused,
        };
        let result = RequestResult { request, outcome, message };
        self.tell(core, key, Event::RequestResult(result));
    }

    fn apply_own_update(
        &mut self,
        core: &Core,
        key: ParticipantKey,
        update: UpdateSelf,
    ) -> Result<(), (RequestOutcome, &'static str)> {
        let Some(participant) = self.participants.get_mut(&key) else {
            return Err((RequestOutcome::NotFound, "the participant is gone"));
        };
        if !participant.permission.can_update_metadata {
            return Err((RequestOutcome::NotAllowed, "may not update its own metadata"));
        }
        let attributes = merged(&participant.attributes, update.attributes);
        let limits = &core.config.limits;
        check_sizes(limits, &update.display_name, &update.metadata, &attributes)
            .map_err(|_| (RequestOutcome::LimitExceeded, "a value is too long"))?;
        participant.attributes = attributes;
        if !update.display_name.is_empty() {
            participant.display_name = update.display_name;
        }
        if !update.metadata.is_empty() {
            participant.metadata = update.metadata;
        }
        self.mark_changed(key);
        Ok(())
    }

    /// A new permission takes away at once what it does not allow, and gives
    /// what it does.
    fn set_permission(&mut self, core: &mut Core, key: ParticipantKey, permission: Permission) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let was_hidden = participant.permission.hidden;
        participant.permission = permission;
        if participant.permission.hidden && !was_hidden {
            self.hide(core, key);
        } else if participant.permission.can_publish {
            self.show(key);
        }
        let Some(participant) = self.participants.get(&key) else {
            return;
        };
        let permission = participant.permission.clone();
        let lost: Vec<_> = participant
            .tracks
            .iter()
            .chain(&participant.pending)
            .filter_map(|track| self.tracks.get(track))
            .filter(|track| !permission.allows_source(track.declared.source))
            .map(|track| track.key)
            .collect();
        let kept = participant.tracks.clone();
        for track in lost {
            self.take_track_away(core, track);
        }
        if let Some(participant) = self.participants.get_mut(&key) {
            participant.queued.retain(|request| permission.allows_source(request.source));
        }
        if !permission.can_publish_data {
            self.end_all_data_tracks(core, key);
        }
        self.mark_changed(key);
        self.flush_changes(core);
        // Who may subscribe, and to whom, may have changed both ways.
        self.reconcile_subscriber(core, key);
        self.reconcile_data_tracks(core, key);
        for track in kept {
            self.reconcile_track(core, track);
        }
    }

    /// Others see the participant no more.
    fn hide(&mut self, core: &mut Core, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        if !std::mem::replace(&mut participant.announced, false) {
            return;
        }
        let phase = participant.phase;
        participant.phase = ParticipantPhase::Left(CloseReason::Unspecified);
        participant.renew_view(&self.tracks);
        let left = Arc::clone(&participant.view);
        participant.phase = phase;
        participant.renew_view(&self.tracks);
        let data_tracks = left.data_tracks.clone();
        self.mark_left(key, left);
        for track in data_tracks {
            self.withdraw_data_track(core, &track.uid);
        }
    }

    fn end_all_data_tracks(&mut self, core: &mut Core, key: ParticipantKey) {
        let published = self
            .participants
            .get(&key)
            .map(|one| one.data.published.values().cloned().collect::<Vec<_>>());
        for view in published.into_iter().flatten() {
            self.end_data_track(core, &view.uid);
            self.tell(core, key, Event::DataTrackUnpublished(view));
        }
    }
}

/// Attributes with changes; an empty value deletes.
pub(crate) fn merged(
    known: &BTreeMap<String, String>,
    changes: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut merged = known.clone();
    for (key, value) in changes {
        if value.is_empty() {
            merged.remove(&key);
        } else {
            merged.insert(key, value);
        }
    }
    merged
}

fn check_sizes(
    limits: &Limits,
    name: &str,
    metadata: &str,
    attributes: &BTreeMap<String, String>,
) -> Result<(), ControlError> {
    let attributes = attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    for (what, length, limit) in [
        ("display_name", name.len(), limits.name_bytes),
        ("metadata", metadata.len(), limits.metadata_bytes),
        ("attributes", attributes, limits.attributes_bytes),
    ] {
        if length > limit {
            return Err(ControlError::TooLong { what, limit });
        }
    }
    Ok(())
}
