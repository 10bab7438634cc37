//! Data tracks: streams of small frames, published by handle and forwarded with
//! nothing rewritten but that handle.

use std::sync::Arc;

use headwater_model::TrackUid;

use crate::core::Core;
use crate::directory::ParticipantKey;
use crate::media::MediaCommand;
use crate::participant::Participant;
use crate::room::Room;
use crate::session::{
    Event, PublishDataTrack, RequestOutcome, RequestReference, RequestResult, SubscriptionUpdate,
};
use crate::view::{DataTrackOrigin, DataTrackView};

/// Header of a frame: version and flags (2 bytes), handle (2), sequence (2),
/// frame number (2), timestamp (4), big endian.
const FRAME_HEADER_BYTES: usize = 12;
/// Longest name of a data track, in bytes.
const NAME_BYTES_MAX: usize = 256;

impl Room {
    /// Publishes a data track, or says why not.
    pub(crate) fn publish_data_track(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        request: PublishDataTrack,
    ) {
        let handle = request.handle;
        match self.check_data_track(core, key, &request) {
            Ok(number) => {
                self.show(key);
                let view = self.create_data_track(core, key, number, request);
                if let Some(view) = view {
                    let uid = view.uid.clone();
                    self.tell(core, key, Event::DataTrackPublished(view));
                    self.flush_changes(core);
                    self.attach_data_track(core, &uid);
                }
            }
            Err((outcome, message)) => {
                let request = RequestReference::DataTrack(handle);
                let result = RequestResult { request, outcome, message };
                self.tell(core, key, Event::RequestResult(result));
            }
        }
    }

    fn check_data_track(
        &self,
        core: &Core,
        key: ParticipantKey,
        request: &PublishDataTrack,
    ) -> Result<u16, (RequestOutcome, &'static str)> {
        let Some(participant) = self.participants.get(&key) else {
            return Err((RequestOutcome::NotFound, "the participant is gone"));
        };
        if !participant.permission.can_publish_data {
            return Err((RequestOutcome::NotAllowed, "may not publish data"));
        }
        let handle = u16::try_from(request.handle).ok().filter(|handle| *handle != 0);
        let handle = handle.ok_or((RequestOutcome::InvalidHandle, "a handle is 1 to 65535"))?;
        let name = &request.display_name;
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err((RequestOutcome::InvalidName, "a name has 1 to 256 bytes"));
        }
        let published = &participant.data.published;
        if published.contains_key(&handle) {
            return Err((RequestOutcome::DuplicateHandle, "the handle is in use"));
        }
        if published.values().any(|track| track.display_name == *name) {
            return Err((RequestOutcome::DuplicateName, "the name is in use"));
        }
        let limits = &core.config.limits;
        if published.len() >= limits.data_tracks
            || request.door_payload.len() > limits.door_payload_bytes
        {
            return Err((RequestOutcome::LimitExceeded, "too many data tracks"));
        }
        Ok(handle)
    }

    fn create_data_track(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        handle: u16,
        request: PublishDataTrack,
    ) -> Option<DataTrackView> {
        let uid = TrackUid::from_raw(core.new_uid("DTR_"));
        let participant = self.participants.get_mut(&key)?;
        let view = DataTrackView {
            handle,
            uid,
            display_name: request.display_name,
            door_payload: request.door_payload,
        };
        participant.data.published.insert(handle, view.clone());
        self.mark_changed(key);
        Some(view)
    }

    /// Ends a data track, or says why not.
    pub(crate) fn unpublish_data_track(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        handle: u32,
    ) {
        let known = u16::try_from(handle)
            .ok()
            .and_then(|handle| self.participants.get(&key)?.data.published.get(&handle).cloned());
        match known {
            Some(view) => {
                self.end_data_track(core, &view.uid);
                self.tell(core, key, Event::DataTrackUnpublished(view));
            }
            None => {
                let result = RequestResult {
                    request: RequestReference::DataTrack(handle),
                    outcome: RequestOutcome::NotFound,
                    message: "there is no such data track",
                };
                self.tell(core, key, Event::RequestResult(result));
            }
        }
    }

    /// Ends a data track and takes it from those who receive it.
    pub(crate) fn end_data_track(&mut self, core: &mut Core, uid: &TrackUid) {
        self.withdraw_data_track(core, uid);
        let mut owner = None;
        for (key, participant) in &mut self.participants {
            let published = &mut participant.data.published;
            let before = published.len();
            published.retain(|_, view| view.uid != *uid);
            if published.len() != before {
                owner = Some(*key);
            }
        }
        if let Some(owner) = owner {
            self.mark_changed(owner);
        }
    }

    /// Takes a data track from those who receive it.
    pub(crate) fn withdraw_data_track(&mut self, core: &mut Core, uid: &TrackUid) {
        let mut changed = Vec::new();
        for (key, participant) in &mut self.participants {
            let received = &mut participant.data.received;
            let before = received.len();
            received.retain(|_, origin| origin.track != *uid);
            if received.len() != before {
                changed.push(*key);
            }
        }
        for key in changed {
            self.tell_handles(core, key);
        }
    }

    /// A participant may subscribe again, or no more.
    pub(crate) fn reconcile_data_tracks(&mut self, core: &mut Core, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let changed = if participant.permission.can_subscribe {
            self.attach_data_tracks(core, key)
        } else {
            let had_some = !participant.data.received.is_empty();
            participant.data.received.clear();
            had_some
        };
        if changed {
            self.tell_handles(core, key);
        }
    }

    /// The client wants data tracks or wants them no more. What is not there is
    /// remembered for a while.
    pub(crate) fn update_data_subscription(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        update: &SubscriptionUpdate,
    ) {
        let now = core.now;
        let (expires_at, limit) = (now + core.config.timers.wish, core.config.limits.wishes);
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let wanted = &mut participant.data.wanted;
        wanted.retain(|_, at| *at > now);
        for uid in &update.tracks {
            if !update.subscribe {
                wanted.remove(uid);
                participant.data.received.retain(|_, origin| origin.track != *uid);
            } else if wanted.len() < limit {
                wanted.insert(uid.clone(), expires_at);
            }
        }
        self.attach_data_tracks(core, key);
        self.tell_handles(core, key);
    }

    /// A data track appeared: those who wait for it receive it.
    pub(crate) fn attach_data_track(&mut self, core: &mut Core, uid: &TrackUid) {
        let now = core.now;
        let waiting: Vec<ParticipantKey> = self
            .participants
            .values()
            .filter(|one| one.data.wanted.get(uid).is_some_and(|at| *at > now))
            .map(|one| one.key)
            .collect();
        for key in waiting {
            if self.attach_data_tracks(core, key) {
                self.tell_handles(core, key);
            }
        }
    }

    /// Gives handles to wanted data tracks that are there.
    fn attach_data_tracks(&mut self, core: &Core, key: ParticipantKey) -> bool {
        let Some(participant) = self.participants.get(&key) else {
            return false;
        };
        if !participant.permission.can_subscribe {
            return false;
        }
        let room = core.config.limits.wishes.saturating_sub(participant.data.received.len());
        let origins: Vec<DataTrackOrigin> = participant
            .data
            .wanted
            .keys()
            .filter_map(|uid| self.origin_of(key, uid))
            .take(room)
            .collect();
        let Some(participant) = self.participants.get_mut(&key) else {
            return false;
        };
        let attached = !origins.is_empty();
        for origin in origins {
            participant.data.wanted.remove(&origin.track);
            participant.data.receive(origin);
        }
        attached
    }

    fn origin_of(&self, subscriber: ParticipantKey, uid: &TrackUid) -> Option<DataTrackOrigin> {
        let publishes =
            |one: &&Participant| one.data.published.values().any(|view| view.uid == *uid);
        let publisher = self.participants.values().find(publishes)?;
        let is_due = publisher.key != subscriber && !publisher.permission.hidden;
        is_due.then(|| DataTrackOrigin {
            track: uid.clone(),
            publisher: publisher.uid.clone(),
            identity: publisher.identity.clone(),
        })
    }

    pub(crate) fn tell_handles(&self, core: &mut Core, key: ParticipantKey) {
        if let Some(participant) = self.participants.get(&key) {
            let handles = participant.data.received.clone();
            self.tell(core, key, Event::DataTrackHandles(handles));
        }
    }

    /// Whether it receives data tracks.
    pub(crate) fn has_handles(&self, key: ParticipantKey) -> bool {
        self.participants.get(&key).is_some_and(|one| !one.data.received.is_empty())
    }

    /// A frame of a data track: forwarded to each subscriber under its handle.
    pub(super) fn take_frame(&mut self, core: &mut Core, key: ParticipantKey, frame: Vec<u8>) {
        if frame.len() < FRAME_HEADER_BYTES {
            return;
        }
        let handle = u16::from_be_bytes([frame[2], frame[3]]);
        let Some(sender) = self.participants.get(&key) else {
            return;
        };
        let Some(track) = sender.data.published.get(&handle) else {
            return;
        };
        let uid = track.uid.clone();
        self.send_frame_to_shards(core, &uid, &frame);
        self.forward_frame(core, &uid, &frame);
    }

    /// A frame of a data track of another shard.
    pub(crate) fn take_relayed_frame(&mut self, core: &mut Core, uid: &TrackUid, frame: &[u8]) {
        if frame.len() >= FRAME_HEADER_BYTES {
            self.forward_frame(core, uid, frame);
        }
    }

    fn forward_frame(&self, core: &mut Core, uid: &TrackUid, frame: &[u8]) {
        for participant in self.participants.values() {
            let received = participant.data.received.iter();
            let Some((handle, _)) = received.into_iter().find(|(_, origin)| origin.track == *uid)
            else {
                continue;
            };
            let Some(downlink) = participant.downlink() else {
                continue;
            };
            let Some(channel) = downlink.channels.data_track else {
                continue;
            };
            let mut copy = frame.to_vec();
            copy[2..4].copy_from_slice(&handle.to_be_bytes());
            let payload: Arc<[u8]> = copy.into();
            core.order(MediaCommand::Send { transport: downlink.key, channel, payload });
        }
    }
}

impl super::DataState {
    /// Gives a data track the next free handle, unless it has one.
    fn receive(&mut self, origin: DataTrackOrigin) {
        if self.received.values().any(|known| known.track == origin.track) {
            return;
        }
        for _ in 0..u16::MAX {
            self.last_handle = self.last_handle.wrapping_add(1);
            if self.last_handle != 0 && !self.received.contains_key(&self.last_handle) {
                self.received.insert(self.last_handle, origin);
                return;
            }
        }
    }
}
