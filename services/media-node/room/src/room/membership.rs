//! How participants come, lose their session, and go.

use std::sync::Arc;

use headwater_model::{ParticipantUid, TrackUid};

use crate::core::Core;
use crate::directory::ParticipantKey;
use crate::media::MediaCommand;
use crate::participant::{Link, Participant};
use crate::room::Room;
use crate::rooms::Output;
use crate::session::{
    CloseAction, CloseReason, Closed, Event, JoinRequest, Joined, SessionKey, TransportKind,
    TransportMode,
};
use crate::timers::Timer;
use crate::view::{ParticipantPhase, ParticipantView};

/// How a participant is let go.
#[derive(Debug, Clone)]
pub(crate) struct Farewell {
    reason: CloseReason,
    /// None breaks the session off without a word.
    last_word: Option<(CloseAction, String)>,
}

impl Farewell {
    /// Closed for a reason, with what follows from it.
    pub(crate) const fn closed(reason: CloseReason) -> Self {
        Self { reason, last_word: Some((reason.action(), String::new())) }
    }

    /// Closed, with a word for people and an action of its own.
    pub(crate) const fn told(reason: CloseReason, action: CloseAction, message: String) -> Self {
        Self { reason, last_word: Some((action, message)) }
    }

    /// Gone without a word.
    pub(crate) const fn abandoned() -> Self {
        Self { reason: CloseReason::Unspecified, last_word: None }
    }
}

impl Room {
    /// Opens a session, or takes one up.
    pub(crate) fn join(&mut self, core: &mut Core, session: SessionKey, request: JoinRequest) {
        self.epoch = self.epoch.max(request.epoch);
        if let Some(uid) = request.resume.clone() {
            self.take_up(core, session, &uid, &request);
            return;
        }
        if let Err((reason, message)) = self.admit(core, &request) {
            let action = match reason {
                CloseReason::ProtocolError => CloseAction::Disconnect,
                other => other.action(),
            };
            let closed = Closed { reason, action, message: message.to_owned() };
            core.refuse(session, Event::Closed(closed));
            return;
        }
        let unlisted = self.is_for_audience(core, &request);
        let mut incarnation = request.join_millis;
        if let Some(older) = self.by_identity.get(&request.identity).copied() {
            // Clocks of nodes differ.
            let before = self.participants.get(&older).map_or(0, |older| older.incarnation);
            incarnation = incarnation.max(before.saturating_add(1));
            self.remove(core, older, Farewell::closed(CloseReason::DuplicateIdentity));
        }
        self.flush_changes(core);
        self.enter(core, session, request, (incarnation, unlisted));
    }

    fn admit(&self, core: &Core, request: &JoinRequest) -> Result<(), (CloseReason, &'static str)> {
        let limits = &core.config.limits;
        let attributes: usize =
            request.attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
        if request.display_name.len() > limits.name_bytes
            || request.metadata.len() > limits.metadata_bytes
            || attributes > limits.attributes_bytes
            || request.door_payload.len() > limits.door_payload_bytes
        {
            return Err((CloseReason::ProtocolError, "a value of the join is too long"));
        }
        let older =
            self.by_identity.get(&request.identity).and_then(|key| self.participants.get(key));
        if older.is_none() && core.population >= limits.participants {
            return Err((CloseReason::RoomFull, "the node has all the participants it may have"));
        }
        let counts = !request.uncounted && !request.permission.hidden;
        let freed = u32::from(older.is_some_and(Participant::is_counted));
        let most = self.properties.max_participants;
        if counts && most > 0 && self.counts().0 - freed >= most {
            return Err((CloseReason::RoomFull, "the room has all the participants it may have"));
        }
        let own = older.is_some_and(|older| !older.is_remote());
        let taken = self.own_counts().0 - if own { freed } else { 0 };
        if counts && self.span.seats.is_some_and(|seats| taken >= seats) {
            return Err((CloseReason::RoomFull, "the shard has all the participants it may have"));
        }
        Ok(())
    }

    fn enter(
        &mut self,
        core: &mut Core,
        session: SessionKey,
        mut request: JoinRequest,
        (incarnation, unlisted): (u64, bool),
    ) {
        let key = core.new_participant();
        let uid = ParticipantUid::from_raw(core.new_uid("PA_"));
        if let Some(protocol) = self.protocol_memory.remove(&request.identity) {
            request.protocols = vec![protocol];
        }
        let ssrc = core.new_ssrc();
        let mut participant = Participant::new(key, uid.clone(), request, session, ssrc);
        participant.incarnation = incarnation;
        participant.unlisted = unlisted;
        participant.renew_view(&self.tracks);
        participant.welcomed_after = self.last_departure();
        let mode = participant.mode;
        let is_shown = participant.is_shown();
        self.by_identity.insert(participant.identity.clone(), key);
        self.by_uid.insert(uid, key);
        self.participants.insert(key, participant);
        core.population += 1;
        core.directory.sessions.insert(session, self.place(key));
        core.timers.arm(core.now + core.config.timers.join, Timer::Join(self.place(key)));
        self.empty_since = None;
        self.ever_joined = true;
        if unlisted {
            self.audience.enter();
        }
        self.note_counts_told();
        core.tell(session, Event::Joined(Box::new(self.welcome(key, Vec::new()))));
        if is_shown {
            self.announce(core, key);
        }
        if unlisted {
            self.note_counts_changed();
            self.claim(core, key);
        }
        self.tell_shards(core, key);
        self.tell_speech_and_quality(core, key);
        if mode == TransportMode::Dual {
            self.open_subscriber_transport(core, key);
        }
        self.reconcile_subscriber(core, key);
        if mode == TransportMode::Dual {
            self.offer_now(core, key);
        }
    }

    /// What a participant is told first.
    fn welcome(&self, key: ParticipantKey, departed: Vec<Arc<ParticipantView>>) -> Joined {
        let others = self
            .participants
            .values()
            .filter(|one| one.key != key && one.is_shown())
            .map(|one| Arc::clone(&one.view))
            .collect();
        let one = &self.participants[&key];
        Joined {
            room: self.view(),
            participant: one.own_view(&self.tracks),
            others,
            resumed: one.data.resumed,
            last_data_sequence: one.data.last_sequence,
            departed,
            ice_ufrag: one
                .transport(TransportKind::Publisher)
                .map(|transport| transport.credentials().ufrag.clone())
                .unwrap_or_default(),
        }
    }

    /// Takes up the session of a participant who is still here.
    fn take_up(
        &mut self,
        core: &mut Core,
        session: SessionKey,
        uid: &ParticipantUid,
        request: &JoinRequest,
    ) {
        let known = self.by_uid.get(uid).and_then(|key| self.participants.get(key));
        let fits = known.is_some_and(|one| {
            one.identity == request.identity
                && one.mode == request.transport_mode
                && one.departed.is_some()
                && one.transports().all(|(_, transport)| transport.is_recoverable())
        });
        let Some(key) = known.map(|one| one.key).filter(|_| fits) else {
            let reason = CloseReason::StateMismatch;
            let message = "the session to resume is not here".to_owned();
            let closed = Closed { reason, action: reason.action(), message };
            core.refuse(session, Event::Closed(closed));
            return;
        };
        self.flush_changes(core);
        self.flush_quiet_changes(core);
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let departed = participant.departed.replace(Vec::new()).unwrap_or_default();
        participant.data.resumed = true;
        if let Link::Attached(older) =
            std::mem::replace(&mut participant.link, Link::Attached(session))
        {
            let reason = CloseReason::SignalLost;
            let message = "another connection took the session up".to_owned();
            let last = Event::Closed(Closed { reason, action: reason.action(), message });
            core.tell_last(older, Output::Event { session: older, event: last });
        }
        core.directory.sessions.insert(session, self.place(key));
        let joined = self.welcome(key, departed);
        core.tell(session, Event::Joined(Box::new(joined)));
        self.after_resume(core, key);
    }

    /// A session broke: the participant is kept for a while.
    pub(crate) fn detach(&mut self, core: &mut Core, key: ParticipantKey) {
        let place = self.place(key);
        if let Some(participant) = self.participants.get_mut(&key) {
            participant.link = Link::Lost { since: core.now };
            participant.departed = Some(Vec::new());
            core.timers.arm(core.now + core.config.timers.resume, Timer::Resume(place));
        }
    }

    /// Closes a participant's session, with all it had in the room.
    pub(crate) fn remove(&mut self, core: &mut Core, key: ParticipantKey, farewell: Farewell) {
        let Some(participant) = self.participants.get(&key) else {
            return;
        };
        let tracks: Vec<_> =
            participant.tracks.iter().chain(&participant.pending).copied().collect();
        for track in tracks {
            self.end_track(core, track);
        }
        let uids: Vec<TrackUid> = self
            .participants
            .get(&key)
            .map(|one| one.data.published.values().map(|track| track.uid.clone()).collect())
            .unwrap_or_default();
        for uid in uids {
            self.end_data_track(core, &uid);
        }
        self.drop_all_subscriptions(core, key);
        let Some(mut participant) = self.participants.remove(&key) else {
            return;
        };
        if !participant.is_remote() {
            core.population -= 1;
        }
        if participant.unlisted {
            self.audience.leave();
            self.note_counts_changed();
        }
        self.untell_shards(core, &participant);
        for (_, transport) in participant.transports() {
            core.directory.transports.remove(&transport.key);
            core.order(MediaCommand::CloseTransport { transport: transport.key });
        }
        self.by_identity.remove(&participant.identity);
        self.by_uid.remove(&participant.uid);
        self.speech_changed.remove(&key);
        participant.phase = ParticipantPhase::Left(farewell.reason);
        if participant.announced {
            participant.renew_view(&self.tracks);
            self.mark_left(key, Arc::clone(&participant.view));
        } else {
            self.forget_change(key);
        }
        if let Link::Attached(session) = participant.link {
            let last = match farewell.last_word {
                Some((action, message)) => Output::Event {
                    session,
                    event: Event::Closed(Closed { reason: farewell.reason, action, message }),
                },
                None => Output::Abandon { session },
            };
            core.tell_last(session, last);
        }
        if !participant.is_remote() && self.participants.values().all(Participant::is_remote) {
            self.empty_since = Some(core.now);
        }
    }

    pub(super) fn join_due(&mut self, core: &mut Core, key: ParticipantKey) {
        let never = self.participants.get(&key).is_some_and(|one| !one.was_connected);
        if never {
            self.remove(core, key, Farewell::closed(CloseReason::JoinTimeout));
        }
    }

    pub(super) fn resume_due(&mut self, core: &mut Core, key: ParticipantKey) {
        let Some(participant) = self.participants.get(&key) else {
            return;
        };
        let Link::Lost { since } = participant.link else {
            return;
        };
        if participant.outlives_signalling && participant.is_connected() {
            // Its transport decides: one that fails and stays so ends it.
            return;
        }
        if since + core.config.timers.resume <= core.now {
            self.remove(core, key, Farewell::closed(CloseReason::SignalLost));
        }
    }
}
