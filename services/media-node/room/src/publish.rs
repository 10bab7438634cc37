//! Publishing: what a client announces, how its SDP is bound to that, and how
//! tracks change and end.

use headwater_model::media::{Codec, MediaKind, TrackKey, TrackSource};
use headwater_model::{ParticipantUid, TrackUid};

use crate::core::Core;
use crate::directory::ParticipantKey;
use crate::media::MediaCommand;
use crate::participant::Participant;
use crate::room::Room;
use crate::session::{
    AddTrack, Event, RequestOutcome, RequestReference, RequestResult, UpdateTrack,
};
use crate::timers::Timer;
use crate::track::{Published, Track};
use crate::transport::{Incoming, OfferedMedia};
use crate::view::TrackCodec;

/// Encodings or codecs of one AddTrack.
const DECLARED_MAX: usize = 8;

impl Room {
    /// Announces a track, or says why not.
    pub(crate) fn add_track(&mut self, core: &mut Core, key: ParticipantKey, request: AddTrack) {
        match self.check_add_track(core, key, &request) {
            Ok(kind) => self.accept_track(core, key, kind, request),
            Err((outcome, message)) => {
                let participant = self.participants.get_mut(&key);
                if let Some(one) = participant.filter(|_| outcome == RequestOutcome::Queued) {
                    one.queued.push_back(request.clone());
                }
                let request = RequestReference::AddTrack(request.client_track_id);
                let result = RequestResult { request, outcome, message };
                self.tell(core, key, Event::RequestResult(result));
            }
        }
    }

    fn check_add_track(
        &self,
        core: &Core,
        key: ParticipantKey,
        request: &AddTrack,
    ) -> Result<MediaKind, (RequestOutcome, &'static str)> {
        let limits = &core.config.limits;
        let Some(participant) = self.participants.get(&key) else {
            return Err((RequestOutcome::NotFound, "the participant is gone"));
        };
        if !participant.permission.allows_source(request.source) {
            return Err((RequestOutcome::NotAllowed, "may not publish this source"));
        }
        let kind = request
            .kind
            .ok_or((RequestOutcome::UnsupportedKind, "only audio and video are published"))?;
        if request.display_name.len() > limits.name_bytes
            || request.client_track_id.len() > limits.name_bytes
            || request.stream.len() > limits.name_bytes
            || request.door_payload.len() > limits.door_payload_bytes
            || request.layers.len() > DECLARED_MAX
            || request.codecs.len() > DECLARED_MAX
        {
            return Err((RequestOutcome::LimitExceeded, "a value of the request is too long"));
        }
        if let Some(uid) = &request.track {
            let known = self.by_track_uid.get(uid).and_then(|track| self.tracks.get(track));
            return Err(match known.filter(|track| track.publisher == key) {
                // The node never asks for a second codec of a track.
                Some(_) => (RequestOutcome::NotAllowed, "a track is carried in one codec"),
                None => (RequestOutcome::NotFound, "there is no such track"),
            });
        }
        if participant.tracks.len() + participant.pending.len() >= limits.published_tracks {
            return Err((RequestOutcome::LimitExceeded, "too many tracks"));
        }
        if self.uses_client_id(participant, &request.client_track_id) {
            let same = |other: &&AddTrack| other.client_track_id == request.client_track_id;
            let queued = participant.queued.iter().filter(same).count();
            let is_full = participant.queued.len() >= limits.pending_tracks;
            return Err(if queued >= limits.queued_tracks || is_full {
                (RequestOutcome::LimitExceeded, "too many requests for this track wait")
            } else {
                (RequestOutcome::Queued, "waits for the end of the older track")
            });
        }
        if participant.pending.len() >= limits.pending_tracks {
            return Err((RequestOutcome::LimitExceeded, "too many tracks wait for their media"));
        }
        Ok(kind)
    }

    fn uses_client_id(&self, participant: &Participant, id: &str) -> bool {
        participant
            .tracks
            .iter()
            .chain(&participant.pending)
            .filter_map(|track| self.tracks.get(track))
            .any(|track| track.has_client_id(id))
    }

    fn accept_track(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        kind: MediaKind,
        mut request: AddTrack,
    ) {
        let uid = TrackUid::from_raw(core.new_uid(uid_prefix(kind, request.source)));
        let track = core.new_track();
        let place = self.place(key);
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        choose_codecs(&mut request, kind, &participant.publish_codecs);
        request.layers.sort_by_key(|layer| layer.quality);
        let client_track_id = request.client_track_id.clone();
        let new = Track::new(track, uid.clone(), key, kind, request);
        let view = Box::new(new.view_of_publisher());
        participant.pending.push(track);
        self.tracks.insert(track, new);
        self.by_track_uid.insert(uid, track);
        core.directory.tracks.insert(track, place);
        self.tell(core, key, Event::TrackAdded { client_track_id, track: view });
        self.bind_parked(core, key);
    }

    /// Gives parked media to the tracks announced for them; the rest waits a
    /// little, then for any of its kind.
    fn bind_parked(&mut self, core: &mut Core, key: ParticipantKey) {
        let parked = self.parked(key);
        let mut is_open = false;
        for media in parked {
            match self.pending_of(key, &media.media_id) {
                Some(track) => self.bind(core, key, track, media),
                None => is_open = true,
            }
        }
        let waits = self.participants.get(&key).is_some_and(|one| !one.pending.is_empty());
        if is_open && waits {
            let due = core.now + core.config.timers.binding;
            core.timers.arm(due, Timer::Binding(self.place(key)));
        }
    }

    /// Clients that rewrite the ids in their SDP (iOS, React Native) are served
    /// by the kind of the media.
    pub(crate) fn bind_by_kind(&mut self, core: &mut Core, key: ParticipantKey) {
        for media in self.parked(key) {
            let track = self
                .pending_of(key, &media.media_id)
                .or_else(|| self.first_pending(key, media.kind));
            if let Some(track) = track {
                self.bind(core, key, track, media);
            }
        }
    }

    fn parked(&self, key: ParticipantKey) -> Vec<OfferedMedia> {
        let publisher = self.participants.get(&key).and_then(|one| one.publisher.as_ref());
        let sections = publisher.into_iter().flat_map(|publisher| publisher.sections.values());
        let mut parked: Vec<_> = sections
            .filter_map(|section| match &section.incoming {
                Incoming::Parked(media) => Some((section.index, media.clone())),
                Incoming::Nothing | Incoming::Bound { .. } => None,
            })
            .collect();
        parked.sort_by_key(|(index, _)| *index);
        parked.into_iter().map(|(_, media)| media).collect()
    }

    /// The announced track that a media id of the SDP names.
    pub(crate) fn pending_of(&self, key: ParticipantKey, media_id: &str) -> Option<TrackKey> {
        let participant = self.participants.get(&key)?;
        let fits = |track: &&TrackKey| {
            self.tracks.get(*track).is_some_and(|track| track.has_client_id(media_id))
        };
        participant.pending.iter().find(fits).copied()
    }

    /// The oldest announced track of a kind.
    pub(crate) fn first_pending(&self, key: ParticipantKey, kind: MediaKind) -> Option<TrackKey> {
        let participant = self.participants.get(&key)?;
        let fits =
            |track: &&TrackKey| self.tracks.get(*track).is_some_and(|track| track.kind == kind);
        participant.pending.iter().find(fits).copied()
    }

    /// Gives an announced track its media: from now on others see it.
    pub(crate) fn bind(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        track: TrackKey,
        media: OfferedMedia,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let Some(publisher) = &mut participant.publisher else {
            return;
        };
        let Some(section) = publisher.sections.get_mut(&media.mid) else {
            return;
        };
        section.incoming = Incoming::Bound { track, media_id: media.media_id.clone() };
        participant.pending.retain(|other| *other != track);
        if !participant.tracks.contains(&track) {
            participant.tracks.push(track);
        }
        self.publish(core, track, &media);
        self.mark_changed(key);
        self.flush_changes(core);
        self.reconcile_track(core, track);
    }

    /// Hands a bound track's media to the forwarding core, anew if it changed.
    pub(crate) fn publish(&mut self, core: &mut Core, track: TrackKey, media: &OfferedMedia) {
        let Some(known) = self.tracks.get_mut(&track) else {
            return;
        };
        let Some(publisher) =
            self.participants.get(&known.publisher).and_then(|one| one.publisher.as_ref())
        else {
            return;
        };
        let publication = known.publication(media);
        let codecs: Vec<Codec> = publication.codecs.iter().map(|mapping| mapping.codec).collect();
        if known.codec.is_none_or(|codec| !codecs.contains(&codec)) {
            known.codec = codecs.first().copied();
        }
        let is_first = known.published.is_none();
        if known.published.as_ref().is_some_and(|it| it.publication == publication) {
            return;
        }
        known.published = Some(Published { codecs, publication: publication.clone() });
        let transport = publisher.transport.key;
        core.order(MediaCommand::Publish { transport, track, publication });
        if is_first && known.declared.muted {
            core.order(MediaCommand::SetMuted { track, muted: true });
        }
        self.take_floor(core, track);
        self.offer_to_shards(core, track);
    }

    /// Counts a published microphone among those of the room.
    pub(crate) fn take_floor(&self, core: &mut Core, key: TrackKey) {
        let seats = core.config.limits.audible_microphones;
        let is_microphone = self.tracks.get(&key).is_some_and(|track| {
            track.kind == MediaKind::Audio && track.declared.source == TrackSource::Microphone
        });
        if is_microphone && seats > 0 {
            let floor = u64::from(self.key.0);
            core.order(MediaCommand::JoinFloor { track: key, floor, seats });
        }
    }

    /// Ends a track, announced or published. Its publisher is not told.
    pub(crate) fn end_track(&mut self, core: &mut Core, key: TrackKey) {
        self.drop_subscribers(core, key);
        let Some(track) = self.tracks.remove(&key) else {
            return;
        };
        self.by_track_uid.remove(&track.uid);
        core.directory.tracks.remove(&key);
        if track.published.is_some() {
            self.withdraw_media(core, &track);
        }
        for participant in self.participants.values_mut() {
            participant.wishes.remove(&track.uid);
            participant.forbidden.remove(&key);
        }
        let Some(participant) = self.participants.get_mut(&track.publisher) else {
            return;
        };
        participant.tracks.retain(|other| *other != key);
        participant.pending.retain(|other| *other != key);
        if let Some(publisher) = &mut participant.publisher {
            for section in publisher.sections.values_mut() {
                if matches!(&section.incoming, Incoming::Bound { track, .. } if *track == key) {
                    section.incoming = Incoming::Nothing;
                }
            }
        }
        if track.published.is_some() {
            self.mark_changed(track.publisher);
        }
        self.speech_of(core, track.publisher);
    }

    /// Announces requests that waited for a track that is gone now.
    pub(crate) fn serve_queued(&mut self, core: &mut Core, key: ParticipantKey) {
        loop {
            let Some(participant) = self.participants.get(&key) else {
                return;
            };
            let free = participant
                .queued
                .iter()
                .position(|request| !self.uses_client_id(participant, &request.client_track_id));
            let Some(participant) = self.participants.get_mut(&key) else {
                return;
            };
            let Some(request) = free.and_then(|index| participant.queued.remove(index)) else {
                return;
            };
            self.add_track(core, key, request);
        }
    }

    /// Ends a track against its publisher's will.
    pub(crate) fn take_track_away(&mut self, core: &mut Core, key: TrackKey) {
        let Some((publisher, uid)) =
            self.tracks.get(&key).map(|track| (track.publisher, track.uid.clone()))
        else {
            return;
        };
        self.end_track(core, key);
        self.tell(core, publisher, Event::TrackRemoved { track: uid });
    }

    /// The client muted or unmuted a track of its own.
    pub(crate) fn mute_own(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        uid: &TrackUid,
        muted: bool,
    ) {
        if let Some(track) = self.track_of(key, uid) {
            self.set_muted(core, track, muted);
        }
    }

    /// A track of a participant, by uid.
    pub(crate) fn track_of(&self, key: ParticipantKey, uid: &TrackUid) -> Option<TrackKey> {
        let track = self.tracks.get(self.by_track_uid.get(uid)?)?;
        (track.publisher == key).then_some(track.key)
    }

    /// Mutes or unmutes, and tells whether that changed anything.
    pub(crate) fn set_muted(&mut self, core: &mut Core, key: TrackKey, muted: bool) -> bool {
        let Some(track) = self.tracks.get_mut(&key) else {
            return false;
        };
        if track.declared.muted == muted {
            return false;
        }
        track.declared.muted = muted;
        let publisher = track.publisher;
        if track.published.is_some() {
            core.order(MediaCommand::SetMuted { track: key, muted });
            self.mark_changed(publisher);
        }
        true
    }

    /// The client changed what it declared of a track.
    pub(crate) fn update_track(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        update: UpdateTrack,
    ) {
        let limits = &core.config.limits;
        if update.layers.len() > DECLARED_MAX
            || update.door_payload.len() > limits.door_payload_bytes
        {
            return;
        }
        let Some(key) = self.track_of(key, &update.track) else {
            return;
        };
        let Some(track) = self.tracks.get_mut(&key) else {
            return;
        };
        let declared = &mut track.declared;
        if update.width > 0 {
            declared.width = update.width;
        }
        if update.height > 0 {
            declared.height = update.height;
        }
        if !update.layers.is_empty() {
            declared.layers = update.layers;
            declared.layers.sort_by_key(|layer| layer.quality);
        }
        if !update.door_payload.is_empty() {
            declared.door_payload = update.door_payload;
        }
        let publisher = track.publisher;
        if track.published.is_some() {
            self.mark_changed(publisher);
            self.retarget_subscribers(core, key);
        }
    }

    /// Media of a track arrives: its codec is known for certain.
    pub(crate) fn track_started(&mut self, core: &mut Core, key: TrackKey, codec: Codec) {
        let Some(track) = self.tracks.get_mut(&key) else {
            return;
        };
        if track.codec == Some(codec) {
            return;
        }
        track.codec = Some(codec);
        let id = track.declared.client_track_id.clone();
        if !track.declared.codecs.is_empty() {
            track.declared.codecs =
                vec![TrackCodec { mime_type: codec.mime_type().to_owned(), client_track_id: id }];
        }
        let publisher = track.publisher;
        self.mark_changed(publisher);
        self.check_codec_of_subscribers(core, key);
    }

    /// Uid of a participant.
    pub(crate) fn uid_of(&self, key: ParticipantKey) -> Option<ParticipantUid> {
        self.participants.get(&key).map(|one| one.uid.clone())
    }
}

/// Clients read the kind and source of a track out of its uid.
const fn uid_prefix(kind: MediaKind, source: TrackSource) -> &'static str {
    match (kind, source) {
        (MediaKind::Audio, TrackSource::Microphone) => "TR_AM",
        (MediaKind::Audio, TrackSource::ScreenShareAudio) => "TR_As",
        (MediaKind::Audio, TrackSource::Camera) => "TR_AC",
        (MediaKind::Audio, TrackSource::ScreenShare) => "TR_AS",
        (MediaKind::Audio, TrackSource::Unknown) => "TR_A",
        (MediaKind::Video, TrackSource::Camera) => "TR_VC",
        (MediaKind::Video, TrackSource::ScreenShare) => "TR_VS",
        (MediaKind::Video, TrackSource::Microphone) => "TR_VM",
        (MediaKind::Video, TrackSource::ScreenShareAudio) => "TR_Vs",
        (MediaKind::Video, TrackSource::Unknown) => "TR_V",
    }
}

/// Keeps the first requested codec that may be published, or puts the best
/// there is in its place: clients read the answer and switch. Codecs that the
/// client could send too, if asked, are not kept: the node does not ask.
fn choose_codecs(request: &mut AddTrack, kind: MediaKind, allowed: &[Codec]) {
    if request.codecs.is_empty() {
        return;
    }
    let of_kind = |codec: &Codec| codec.kind() == kind;
    let restricts = allowed.iter().any(of_kind);
    let may = |codec: &Codec| of_kind(codec) && (!restricts || allowed.contains(codec));
    let first = &request.codecs[0];
    let wanted = Codec::from_mime_type(&first.mime_type).filter(may);
    let best =
        || allowed.iter().copied().find(of_kind).or_else(|| Codec::ALL.into_iter().find(of_kind));
    let client_track_id = if first.client_track_id.is_empty() {
        request.client_track_id.clone()
    } else {
        first.client_track_id.clone()
    };
    request.codecs = wanted
        .or_else(best)
        .map(|codec| TrackCodec { mime_type: codec.mime_type().to_owned(), client_track_id })
        .into_iter()
        .collect();
}
