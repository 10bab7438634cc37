//! What this shard hears from the others: their participants appear in the room like
//! its own, only that nothing is sent to them from here.

use std::sync::Arc;

use headwater_model::media::{Codec, Publication, TrackKey};
use headwater_model::{Identity, TrackUid};

use super::{RelayCommand, RelayedMessage, RemoteEvent, RemoteParticipant};
use crate::core::Core;
use crate::data::Destinations;
use crate::directory::ParticipantKey;
use crate::media::MediaCommand;
use crate::participant::{Link, Participant};
use crate::room::Room;
use crate::room::membership::Farewell;
use crate::session::{AddTrack, CloseReason};
use crate::track::{Published, Track};
use crate::view::{LayerQuality, ParticipantPhase, ParticipantView, TrackView};

impl Room {
    /// Takes what another shard tells.
    pub(crate) fn handle_remote(&mut self, core: &mut Core, event: RemoteEvent) {
        match event {
            RemoteEvent::Put(remote) => self.put_remote(core, *remote),
            RemoteEvent::Gone(identity) => {
                if let Some(key) = self.remote_by_identity(&identity) {
                    self.remove(core, key, Farewell::closed(CloseReason::ClientLeft));
                }
            }
            RemoteEvent::Superseded(identity) => {
                let key = self.by_identity.get(&identity).copied();
                let is_own = |key: &ParticipantKey| {
                    self.participants.get(key).is_some_and(|one| !one.is_remote())
                };
                if let Some(key) = key.filter(is_own) {
                    self.remove(core, key, Farewell::closed(CloseReason::DuplicateIdentity));
                }
            }
            RemoteEvent::MediaAppeared { uid, publication } => {
                self.media_appeared(core, uid, publication);
            }
            RemoteEvent::MediaGone(uid) => {
                self.span.media.remove(&uid);
                self.renew_remote_track(core, &uid);
            }
            RemoteEvent::Wanted { track, encodings } => {
                self.wanted_elsewhere(core, track, encodings);
            }
            RemoteEvent::Message(message) => self.take_relayed(core, &message),
            RemoteEvent::Frame { track, frame } => self.take_relayed_frame(core, &track, &frame),
            RemoteEvent::Audience { participants } => self.audience_counted(participants),
            RemoteEvent::Tallied(sums) => self.take_sums(core, sums),
            RemoteEvent::Claimed { identity, uid, incarnation } => {
                self.claimed(core, &identity, &uid, incarnation);
            }
            RemoteEvent::Control(command) => {
                let known = self.by_identity.get(&command.identity);
                let known = known.and_then(|key| self.participants.get(key));
                if known.is_some_and(|one| !one.is_remote()) {
                    // Whoever asked was answered already; what failed is seen in the view.
                    let _ = self.handle_control(core, &command.identity, command.action);
                }
            }
        }
    }

    fn remote_by_identity(&self, identity: &Identity) -> Option<ParticipantKey> {
        let key = *self.by_identity.get(identity)?;
        self.participants.get(&key).filter(|one| one.is_remote()).map(|one| one.key)
    }

    fn put_remote(&mut self, core: &mut Core, remote: RemoteParticipant) {
        let known = self.by_identity.get(&remote.view.identity);
        match known.and_then(|key| self.participants.get(key)) {
            // Ours is the newer one, or we hear in a moment that it is not.
            Some(own) if !own.is_remote() => {
                let (key, uid) = (own.key, remote.view.uid.clone());
                if self.yields_to(core, key, (&uid, remote.incarnation)) {
                    self.add_remote(core, remote);
                }
            }
            Some(known) if known.uid == remote.view.uid => {
                let key = known.key;
                self.change_remote(core, key, remote);
            }
            Some(other) => {
                let key = other.key;
                self.remove(core, key, Farewell::closed(CloseReason::DuplicateIdentity));
                self.flush_changes(core);
                self.add_remote(core, remote);
            }
            None => self.add_remote(core, remote),
        }
    }

    fn add_remote(&mut self, core: &mut Core, remote: RemoteParticipant) {
        let key = core.new_participant();
        let transport = core.new_transport();
        let view = Arc::clone(&remote.view);
        let participant = Participant::remote((self.id.clone(), key), transport, remote);
        self.by_identity.insert(participant.identity.clone(), key);
        self.by_uid.insert(participant.uid.clone(), key);
        self.participants.insert(key, participant);
        for track in &view.tracks {
            self.add_remote_track(core, key, track);
        }
        self.set_remote_data_tracks(core, key, &view);
        self.tell_remote(core, key);
        for track in &view.tracks {
            self.bind_remote(core, &track.uid);
        }
    }

    fn change_remote(&mut self, core: &mut Core, key: ParticipantKey, remote: RemoteParticipant) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let view = Arc::clone(&remote.view);
        let regrant =
            participant.allow != remote.allow || participant.permission != view.permission;
        participant.take_remote(remote);
        let before = participant.tracks.clone();
        for track in before {
            let uid = self.tracks.get(&track).map(|track| track.uid.clone());
            if !view.tracks.iter().any(|shown| Some(&shown.uid) == uid.as_ref()) {
                self.end_track(core, track);
            }
        }
        for track in &view.tracks {
            match self.track_of(key, &track.uid) {
                Some(known) => self.change_remote_track(core, known, track),
                None => self.add_remote_track(core, key, track),
            }
        }
        self.set_remote_data_tracks(core, key, &view);
        self.tell_remote(core, key);
        for track in &view.tracks {
            self.bind_remote(core, &track.uid);
        }
        if regrant {
            let tracks = self.participants.get(&key).map(|one| one.tracks.clone());
            for track in tracks.into_iter().flatten() {
                self.reconcile_track(core, track);
            }
        }
    }

    /// Tells the participants of this shard, unless it is hidden.
    fn tell_remote(&mut self, core: &mut Core, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        if !participant.permission.hidden {
            self.mark_changed(key);
        } else if std::mem::replace(&mut participant.announced, false) {
            let phase = ParticipantPhase::Left(CloseReason::Unspecified);
            let left = ParticipantView { phase, ..(*participant.view).clone() };
            self.mark_left(key, Arc::new(left));
        }
        self.flush_changes(core);
    }

    fn add_remote_track(&mut self, core: &mut Core, key: ParticipantKey, view: &TrackView) {
        let place = self.place(key);
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        if self.by_track_uid.contains_key(&view.uid) {
            return;
        }
        let track = core.new_track();
        let mut new = Track::new(track, view.uid.clone(), key, view.kind, declared(view));
        new.codec = view.codec;
        participant.tracks.push(track);
        self.tracks.insert(track, new);
        self.by_track_uid.insert(view.uid.clone(), track);
        core.directory.tracks.insert(track, place);
    }

    fn change_remote_track(&mut self, core: &mut Core, key: TrackKey, view: &TrackView) {
        self.set_muted(core, key, view.muted);
        let Some(track) = self.tracks.get_mut(&key) else {
            return;
        };
        let (layers, codec) = (track.declared.layers != view.layers, track.codec != view.codec);
        track.declared = declared(view);
        track.codec = view.codec;
        if layers {
            self.retarget_subscribers(core, key);
        }
        if codec {
            self.check_codec_of_subscribers(core, key);
        }
    }

    fn set_remote_data_tracks(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        view: &ParticipantView,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let published = view.data_tracks.iter().map(|track| (track.handle, track.clone()));
        let before = std::mem::replace(&mut participant.data.published, published.collect());
        for gone in before.values().filter(|track| !view.data_tracks.contains(track)) {
            self.withdraw_data_track(core, &gone.uid);
        }
        for track in view.data_tracks.iter().filter(|track| !before.contains_key(&track.handle)) {
            self.attach_data_track(core, &track.uid);
        }
    }

    fn media_appeared(&mut self, core: &mut Core, uid: TrackUid, publication: Publication) {
        let before = self.span.media.insert(uid.clone(), publication);
        if before.is_some() {
            self.renew_remote_track(core, &uid);
        }
        self.bind_remote(core, &uid);
    }

    /// Takes a track's media away, and begins anew under another key: one that was
    /// used is never used again.
    fn renew_remote_track(&mut self, core: &mut Core, uid: &TrackUid) {
        let known = self.by_track_uid.get(uid).and_then(|key| self.tracks.get(key));
        let Some(track) = known.filter(|track| track.published.is_some()) else {
            return;
        };
        let (key, publisher) = (track.key, track.publisher);
        let Some(participant) = self.participants.get(&publisher).filter(|one| one.is_remote())
        else {
            return;
        };
        let view = participant.view.tracks.iter().find(|view| view.uid == *uid).cloned();
        self.end_track(core, key);
        if let Some(view) = view {
            self.add_remote_track(core, publisher, &view);
        }
    }

    /// A track of another shard whose publisher and media are both known can be had.
    fn bind_remote(&mut self, core: &mut Core, uid: &TrackUid) {
        let Some(publication) = self.span.media.get(uid).cloned() else {
            return;
        };
        let Some(key) = self.by_track_uid.get(uid).copied() else {
            return;
        };
        let Some(track) = self.tracks.get_mut(&key) else {
            return;
        };
        let link = self.participants.get(&track.publisher).map(|one| one.link);
        let Some(Link::Remote { transport }) = link.filter(|_| track.published.is_none()) else {
            return;
        };
        let codecs: Vec<Codec> = publication.codecs.iter().map(|mapping| mapping.codec).collect();
        if track.codec.is_none_or(|codec| !codecs.contains(&codec)) {
            track.codec = codecs.first().copied();
        }
        track.published = Some(Published { codecs, publication });
        let muted = track.declared.muted;
        let (room, uid) = (self.id.clone(), uid.clone());
        core.relay(RelayCommand::Attach { room, uid, track: key, transport });
        self.take_floor(core, key);
        if muted {
            core.order(MediaCommand::SetMuted { track: key, muted });
        }
        self.flush_changes(core);
        self.reconcile_track(core, key);
    }

    /// Other shards want a track of this one in these encodings: they count like a
    /// subscriber here.
    fn wanted_elsewhere(&mut self, core: &mut Core, key: TrackKey, encodings: u8) {
        let Some(track) = self.tracks.get_mut(&key) else {
            return;
        };
        let Some(published) = &track.published else {
            return;
        };
        let sent = published.publication.encodings.len();
        let best = 7_usize.checked_sub(encodings.leading_zeros() as usize);
        track.wanted_elsewhere = best.map(|best| {
            let layer = track.declared.layers.get(best).filter(|_| sent > 1);
            layer.map_or(LayerQuality::High, |layer| layer.quality)
        });
        if best.is_some() {
            self.first_subscriber(core, key);
        }
        self.demand_changed(core, key);
    }

    fn take_relayed(&mut self, core: &mut Core, message: &RelayedMessage) {
        let names: Vec<&str> = message.destinations.iter().map(|name| name.as_str()).collect();
        let destinations = match names.is_empty() {
            true => Destinations::Everybody,
            false => Destinations::Identities(names),
        };
        let sender = message.sender.as_ref().and_then(|name| self.by_identity.get(name)).copied();
        self.send_here(core, sender, &destinations, message.reliable, &message.packet);
        if let Some(sender) = sender.filter(|_| message.reliable) {
            self.keep_relayed(core, sender, &message.packet);
        }
    }
}

/// What its publisher declared, as far as others know.
fn declared(view: &TrackView) -> AddTrack {
    AddTrack {
        client_track_id: String::new(),
        kind: Some(view.kind),
        source: view.source,
        display_name: view.display_name.clone(),
        muted: view.muted,
        width: view.width,
        height: view.height,
        layers: view.layers.clone(),
        codecs: view.codecs.clone(),
        stereo: view.stereo,
        disable_red: view.disable_red,
        disable_dtx: view.disable_dtx,
        track: None,
        encrypted: view.encrypted,
        stream: view.stream.clone(),
        door_payload: Arc::clone(&view.door_payload),
    }
}
