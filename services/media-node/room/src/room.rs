//! One room: who is in it, how they come and go, and who is told of changes.
//! What participants do in it is in the modules beside this one.

mod changes;
mod dispatch;
pub(crate) mod membership;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use headwater_model::media::TrackKey;
use headwater_model::{Epoch, Identity, ParticipantUid, RoomId, TrackUid};
use headwater_sdp::CandidateProtocol;

use crate::audience::Audience;
use crate::control::RoomAssignment;
use crate::core::Core;
use crate::data::ReplayCache;
use crate::directory::{ParticipantKey, Place, RoomKey};
use crate::participant::Participant;
use crate::remote::Span;
use crate::session::{CloseReason, Event};
use crate::tally::Tally;
use crate::timers::Timer;
use crate::track::Track;
use crate::view::{ParticipantView, RoomProperties, RoomReport, RoomView};

use self::changes::Changes;

/// Identities whose protocol for the next session is remembered (a test
/// scenario); further ones are not.
const PROTOCOL_MEMORY_MAX: usize = 256;

#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) key: RoomKey,
    pub(crate) id: RoomId,
    pub(crate) epoch: Epoch,
    pub(crate) properties: Arc<RoomProperties>,
    pub(crate) participants: BTreeMap<ParticipantKey, Participant>,
    pub(crate) by_identity: BTreeMap<Identity, ParticipantKey>,
    pub(crate) by_uid: BTreeMap<ParticipantUid, ParticipantKey>,
    pub(crate) tracks: BTreeMap<TrackKey, Track>,
    pub(crate) by_track_uid: BTreeMap<TrackUid, TrackKey>,
    pub(crate) replay: ReplayCache,
    /// Whose speech is to be told.
    pub(crate) speech_changed: BTreeSet<ParticipantKey>,
    pub(crate) speakers_at: Option<Instant>,
    pub(crate) quality_at: Option<Instant>,
    /// What it knows of other shards.
    pub(crate) span: Span,
    pub(crate) audience: Audience,
    pub(crate) tally: Tally,
    protocol_memory: BTreeMap<Identity, CandidateProtocol>,
    changes: Changes,
    /// Since when nobody is here. None while somebody is.
    empty_since: Option<Instant>,
    ever_joined: bool,
    told: Told,
    /// Counts may have changed since they were last looked at.
    counts_changed: bool,
}

/// What was told of the room's counts, and when more will be.
#[derive(Debug, Default)]
struct Told {
    participants: u32,
    publishers: u32,
    at: Option<Instant>,
    due: Option<Instant>,
}

impl Room {
    pub(crate) fn new(key: RoomKey, assignment: RoomAssignment, now: Instant) -> Self {
        Self {
            key,
            id: assignment.id,
            epoch: assignment.epoch,
            properties: Arc::new(assignment.properties),
            participants: BTreeMap::new(),
            by_identity: BTreeMap::new(),
            by_uid: BTreeMap::new(),
            tracks: BTreeMap::new(),
            by_track_uid: BTreeMap::new(),
            replay: ReplayCache::default(),
            speech_changed: BTreeSet::new(),
            speakers_at: None,
            quality_at: None,
            span: Span::default(),
            audience: Audience::default(),
            tally: Tally::default(),
            protocol_memory: BTreeMap::new(),
            changes: Changes::default(),
            empty_since: Some(now),
            ever_joined: false,
            told: Told::default(),
            counts_changed: false,
        }
    }

    /// Takes new properties of the same incarnation.
    pub(crate) fn assign(&mut self, core: &mut Core, assignment: RoomAssignment) {
        self.epoch = assignment.epoch;
        if *self.properties == assignment.properties {
            return;
        }
        self.properties = Arc::new(assignment.properties);
        self.tell_room(core);
    }

    /// Everybody is told and forgotten; the room is not used any more.
    pub(crate) fn close(&mut self, core: &mut Core, reason: CloseReason) {
        while let Some(key) = self.participants.keys().next().copied() {
            self.remove(core, key, membership::Farewell::closed(reason));
            // Nobody stays who would have to be told of the others.
            self.changes = Changes::default();
        }
    }

    pub(crate) const fn place(&self, participant: ParticipantKey) -> Place {
        Place { room: self.key, participant }
    }

    /// Tells a participant something, if it has a session.
    pub(crate) fn tell(&self, core: &mut Core, key: ParticipantKey, event: Event) {
        if let Some(session) = self.participants.get(&key).and_then(Participant::session) {
            core.tell(session, event);
        }
    }

    pub(crate) fn view(&self) -> Arc<RoomView> {
        let (participant_count, publisher_count) = self.counts();
        Arc::new(RoomView {
            id: self.id.clone(),
            properties: Arc::clone(&self.properties),
            epoch: self.epoch,
            participant_count,
            publisher_count,
        })
    }

    fn counts(&self) -> (u32, u32) {
        let (participants, publishers) = self.counts_where(|_| true);
        (participants.saturating_add(self.audience.elsewhere()), publishers)
    }

    /// Of this shard only.
    fn own_counts(&self) -> (u32, u32) {
        self.counts_where(|one| !one.is_remote())
    }

    fn counts_where(&self, is_meant: impl Fn(&Participant) -> bool) -> (u32, u32) {
        let counted = self.participants.values().filter(|one| one.is_counted() && is_meant(one));
        let (mut participants, mut publishers) = (0, 0);
        for participant in counted {
            participants += 1;
            publishers += u32::from(participant.is_publisher());
        }
        (participants, publishers)
    }

    pub(crate) fn report(&self, now: Instant) -> RoomReport {
        let (participant_count, publisher_count) = self.own_counts();
        RoomReport {
            id: self.id.clone(),
            uid: self.properties.uid.clone(),
            epoch: self.epoch,
            participant_count,
            publisher_count,
            empty_for: self
                .empty_since
                .map(|since| now.saturating_duration_since(since))
                .unwrap_or_default(),
            ever_joined: self.ever_joined,
        }
    }

    /// Everybody, hidden ones included, in order of identities.
    pub(crate) fn list(&self) -> Vec<Arc<ParticipantView>> {
        self.by_identity
            .values()
            .filter_map(|key| self.participants.get(key))
            .map(|participant| participant.own_view(&self.tracks))
            .collect()
    }

    /// Remembers by which protocol an identity's next session is to be reached.
    pub(crate) fn remember_protocol(&mut self, identity: &Identity, protocol: CandidateProtocol) {
        if self.protocol_memory.len() < PROTOCOL_MEMORY_MAX {
            self.protocol_memory.insert(identity.clone(), protocol);
        }
    }

    /// Counts may have changed, without anything to be told of a participant.
    pub(crate) const fn note_counts_changed(&mut self) {
        self.counts_changed = true;
    }

    /// Tells what was collected during a call. Each call ends with it.
    pub(crate) fn settle(&mut self, core: &mut Core) {
        self.flush_changes(core);
        self.tell_audience(core);
        self.check_counts(core);
    }

    /// Whoever joins now learns the counts by that; the others are told soon.
    fn note_counts_told(&mut self) {
        if self.participants.len() == 1 {
            (self.told.participants, self.told.publishers) = self.counts();
        }
    }

    fn tell_room(&mut self, core: &mut Core) {
        let view = self.view();
        self.told.participants = view.participant_count;
        self.told.publishers = view.publisher_count;
        self.told.at = Some(core.now);
        self.told.due = None;
        for participant in self.participants.values() {
            if let Some(session) = participant.session() {
                core.tell(session, Event::RoomChanged(Arc::clone(&view)));
            }
        }
    }

    /// Counts are told at once if none were lately, else when it is time.
    fn check_counts(&mut self, core: &mut Core) {
        if !std::mem::take(&mut self.counts_changed) {
            return;
        }
        let counts = self.counts();
        if counts == (self.told.participants, self.told.publishers) || self.told.due.is_some() {
            return;
        }
        match self.told.at.map(|at| at + core.config.timers.room_changes) {
            Some(due) if due > core.now => {
                self.told.due = Some(due);
                core.timers.arm(due, Timer::RoomChanged(self.key));
            }
            Some(_) | None => self.tell_room(core),
        }
    }

    pub(crate) fn room_change_due(&mut self, core: &mut Core) {
        if self.told.due.is_some_and(|due| due <= core.now) {
            self.tell_room(core);
        }
    }
}
