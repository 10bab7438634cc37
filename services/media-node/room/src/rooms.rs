//! All the rooms of a shard: takes what comes, finds the room it is for, and
//! hands out what follows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_model::{Epoch, RoomId, RoomUid};

use crate::config::RoomsConfig;
use crate::control::{ControlCommand, ControlError, DataMessage, RoomAssignment};
use crate::core::Core;
use crate::directory::{Place, RoomKey};
use crate::media::{MediaCommand, MediaEvent, QualitySubject};
use crate::remote::{RelayCommand, RemoteEvent};
use crate::room::Room;
use crate::session::{CloseReason, Closed, Command, Event, JoinRequest, SessionKey};
use crate::timers::Timer;
use crate::view::{ParticipantView, RoomReport};

/// Rooms of one shard, assigned ones beyond are refused.
const ROOMS_MAX: usize = 10_000;
/// Released rooms whose epoch is remembered; the oldest are forgotten.
const RELEASED_MAX: usize = 4096;
/// How long the epoch of a released room is remembered: longer than a join
/// can be under way.
const RELEASED_FOR: Duration = Duration::from_secs(600);

/// The rooms. See the crate's documentation for how to call it.
#[derive(Debug)]
pub struct Rooms {
    core: Core,
    rooms: BTreeMap<RoomKey, Room>,
    by_id: BTreeMap<RoomId, RoomKey>,
    released: BTreeMap<RoomId, Released>,
}

#[derive(Debug, Clone, Copy)]
struct Released {
    epoch: Epoch,
    at: Instant,
}

/// One thing that follows.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Tell a session something.
    Event {
        /// The session.
        session: SessionKey,
        /// What.
        event: Event,
    },
    /// Break a session off without a word, as a dead node would.
    Abandon {
        /// The session.
        session: SessionKey,
    },
    /// Do something with a transport or a track.
    Media(MediaCommand),
    /// Do something with the links to other shards. Only for rooms that several carry.
    Relay(RelayCommand),
}

/// Why a room is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// A higher epoch is known.
    #[error("epoch {offered} of room {room} is lower than the known {known}")]
    Stale {
        /// The room.
        room: RoomId,
        /// The epoch that was refused.
        offered: Epoch,
        /// The epoch that is known.
        known: Epoch,
    },
    /// The shard has all the rooms it may have.
    #[error("room {0} is refused: the shard has all the rooms it may have")]
    Full(RoomId),
}

impl Rooms {
    /// No rooms. The seed must be unpredictable: uids and ICE passwords are
    /// drawn from it.
    #[must_use]
    pub fn new(config: RoomsConfig, seed: [u8; 32], now: Instant) -> Self {
        Self {
            core: Core::new(config, seed, now),
            rooms: BTreeMap::new(),
            by_id: BTreeMap::new(),
            released: BTreeMap::new(),
        }
    }

    /// Carries a room, or takes its new properties. May come twice.
    ///
    /// # Errors
    /// If a higher epoch is known, or there are too many rooms.
    pub fn assign_room(
        &mut self,
        now: Instant,
        assignment: RoomAssignment,
    ) -> Result<(), AssignError> {
        self.core.now = now;
        let id = assignment.id.clone();
        self.fence(&id, assignment.epoch)?;
        if let Some(key) = self.by_id.get(&id).copied() {
            let incarnation = self.rooms.get(&key).map(|room| room.properties.uid.clone());
            if incarnation.as_ref() == Some(&assignment.properties.uid) {
                if let Some(room) = self.rooms.get_mut(&key) {
                    room.assign(&mut self.core, assignment);
                }
                return Ok(());
            }
            self.drop_room(&id, key, CloseReason::RoomDeleted);
        }
        self.create_room(assignment)
    }

    /// Several shards carry a room from now on, of whose counted participants this one
    /// has at most `seats`; or this shard alone does. A room that is not here is left.
    pub fn set_span(&mut self, now: Instant, id: &RoomId, is_wide: bool, seats: Option<u32>) {
        self.core.now = now;
        let key = self.by_id.get(id);
        if let Some(room) = key.and_then(|key| self.rooms.get_mut(key)) {
            room.set_wide(&mut self.core, is_wide, seats);
            room.settle(&mut self.core);
        }
    }

    /// Takes what another shard tells of a room.
    pub fn handle_remote(&mut self, now: Instant, id: &RoomId, event: RemoteEvent) {
        self.core.now = now;
        let key = self.by_id.get(id);
        if let Some(room) = key.and_then(|key| self.rooms.get_mut(key)) {
            room.handle_remote(&mut self.core, event);
            room.settle(&mut self.core);
        }
    }

    /// Ends a room, unless a higher epoch is known.
    pub fn release_room(&mut self, now: Instant, id: &RoomId, epoch: Epoch, reason: CloseReason) {
        self.core.now = now;
        let Some(key) = self.by_id.get(id).copied() else {
            return;
        };
        if self.rooms.get(&key).is_none_or(|room| room.epoch > epoch) {
            return;
        }
        self.drop_room(id, key, reason);
        self.remember_released(id, epoch);
    }

    /// Opens or takes up a session. Its first event is `Joined` or `Closed`.
    pub fn join(&mut self, now: Instant, session: SessionKey, request: JoinRequest) {
        self.core.now = now;
        let key = match self.room_for(&request) {
            Ok(key) => key,
            Err(reason) => {
                let closed = Closed { reason, action: reason.action(), message: String::new() };
                self.core.refuse(session, Event::Closed(closed));
                return;
            }
        };
        if let Some(room) = self.rooms.get_mut(&key) {
            room.join(&mut self.core, session, request);
            room.settle(&mut self.core);
        }
    }

    /// Takes what a participant wants.
    pub fn handle_command(&mut self, now: Instant, session: SessionKey, command: Command) {
        self.core.now = now;
        let Some(place) = self.core.directory.sessions.get(&session).copied() else {
            return;
        };
        if let Some(room) = self.rooms.get_mut(&place.room) {
            room.handle_command(&mut self.core, place.participant, command);
            room.settle(&mut self.core);
        }
    }

    /// The session's stream broke: its participant is kept for a while.
    pub fn session_lost(&mut self, now: Instant, session: SessionKey) {
        self.core.now = now;
        let Some(place) = self.core.directory.sessions.remove(&session) else {
            return;
        };
        if let Some(room) = self.rooms.get_mut(&place.room) {
            room.detach(&mut self.core, place.participant);
            room.settle(&mut self.core);
        }
    }

    /// Does what the platform wants with a participant; answers with it as it
    /// then is, or was if it is removed.
    ///
    /// # Errors
    /// If room, participant or track is not here, or a value is too long.
    pub fn handle_control(
        &mut self,
        now: Instant,
        command: ControlCommand,
    ) -> Result<Arc<ParticipantView>, ControlError> {
        self.core.now = now;
        let key = self.find(&command.room)?;
        let Some(room) = self.rooms.get_mut(&key) else {
            return Err(ControlError::RoomNotFound(command.room));
        };
        let result = room.handle_control(&mut self.core, &command.identity, command.action);
        room.settle(&mut self.core);
        result.map(|outcome| outcome.view(room))
    }

    /// Sends a data message of the platform into a room.
    ///
    /// # Errors
    /// If the room is not here or the message is too long.
    pub fn send_data(&mut self, now: Instant, message: &DataMessage) -> Result<(), ControlError> {
        self.core.now = now;
        let key = self.find(&message.room)?;
        match self.rooms.get_mut(&key) {
            Some(room) => room.send_platform_data(&mut self.core, message),
            None => Err(ControlError::RoomNotFound(message.room.clone())),
        }
    }

    /// Who is in a room, hidden ones included, in order of their identities.
    ///
    /// # Errors
    /// If the room is not here.
    pub fn list_participants(
        &self,
        room: &RoomId,
    ) -> Result<Vec<Arc<ParticipantView>>, ControlError> {
        let key = self.find(room)?;
        Ok(self.rooms.get(&key).map(Room::list).unwrap_or_default())
    }

    /// Takes what happened to transports and tracks.
    pub fn handle_media(&mut self, now: Instant, event: MediaEvent) {
        self.core.now = now;
        let Some(place) = self.place_of(&event) else {
            return;
        };
        if let Some(room) = self.rooms.get_mut(&place.room) {
            room.handle_media(&mut self.core, place.participant, event);
            room.settle(&mut self.core);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.core.now = now;
        while let Some(timer) = self.core.timers.take_due(now) {
            let key = match timer {
                Timer::Join(place)
                | Timer::Resume(place)
                | Timer::Transport(place)
                | Timer::Negotiate(place)
                | Timer::Answer(place)
                | Timer::Wishes(place)
                | Timer::Binding(place)
                | Timer::Speech(place) => place.room,
                Timer::QuietChanges(room)
                | Timer::RoomChanged(room)
                | Timer::Tally(room)
                | Timer::Speakers(room)
                | Timer::Quality(room)
                | Timer::Demand(room, _) => room,
            };
            if let Some(room) = self.rooms.get_mut(&key) {
                room.handle_timer(&mut self.core, timer);
                room.settle(&mut self.core);
            }
        }
    }

    /// When [`Rooms::handle_timeout`] is to be called, if ever.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.core.timers.next()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.core.take_output()
    }

    /// What the control plane wants to know, in order of the rooms' ids.
    #[must_use]
    pub fn reports(&self, now: Instant) -> Vec<RoomReport> {
        self.by_id
            .values()
            .filter_map(|key| self.rooms.get(key))
            .map(|room| room.report(now))
            .collect()
    }

    /// Participants of all rooms, those included whose session is lost.
    #[must_use]
    pub const fn participant_count(&self) -> usize {
        self.core.population
    }

    fn find(&self, id: &RoomId) -> Result<RoomKey, ControlError> {
        self.by_id.get(id).copied().ok_or_else(|| ControlError::RoomNotFound(id.clone()))
    }

    fn fence(&self, id: &RoomId, epoch: Epoch) -> Result<(), AssignError> {
        let current = self.by_id.get(id).and_then(|key| self.rooms.get(key)).map(|room| room.epoch);
        if let Some(known) = current.filter(|known| *known > epoch) {
            return Err(AssignError::Stale { room: id.clone(), offered: epoch, known });
        }
        // The epoch that released a room may not bring it back.
        let released = self.released.get(id).filter(|released| {
            released.epoch >= epoch && released.at + RELEASED_FOR > self.core.now
        });
        if let Some(released) = released {
            let known = released.epoch;
            return Err(AssignError::Stale { room: id.clone(), offered: epoch, known });
        }
        Ok(())
    }

    /// The room a join is for, taken now if the join brings its properties.
    fn room_for(&mut self, request: &JoinRequest) -> Result<RoomKey, CloseReason> {
        let stale = |_| CloseReason::PlanStale;
        self.fence(&request.room, request.epoch).map_err(stale)?;
        let known = self.by_id.get(&request.room).copied();
        let current = known.and_then(|key| self.rooms.get(&key).map(|room| (key, room)));
        if let Some((key, room)) = current {
            let same_incarnation = |uid: &RoomUid| *uid == room.properties.uid;
            let is_newer = room.epoch < request.epoch;
            let replaced = request
                .properties
                .as_ref()
                .is_some_and(|properties| is_newer && !same_incarnation(&properties.uid));
            if !replaced {
                return Ok(key);
            }
        } else if request.resume.is_some() {
            return Err(CloseReason::StateMismatch);
        }
        let properties = request.properties.clone().ok_or(CloseReason::PlanStale)?;
        let id = request.room.clone();
        let assignment = RoomAssignment { id: id.clone(), epoch: request.epoch, properties };
        self.assign_room(self.core.now, assignment).map_err(|error| match error {
            AssignError::Stale { .. } => CloseReason::PlanStale,
            AssignError::Full(_) => CloseReason::RoomFull,
        })?;
        self.by_id.get(&id).copied().ok_or(CloseReason::PlanStale)
    }

    fn create_room(&mut self, assignment: RoomAssignment) -> Result<(), AssignError> {
        if self.rooms.len() >= ROOMS_MAX {
            return Err(AssignError::Full(assignment.id));
        }
        let key = self.core.new_room();
        self.released.remove(&assignment.id);
        self.by_id.insert(assignment.id.clone(), key);
        self.rooms.insert(key, Room::new(key, assignment, self.core.now));
        Ok(())
    }

    fn drop_room(&mut self, id: &RoomId, key: RoomKey, reason: CloseReason) {
        self.by_id.remove(id);
        if let Some(mut room) = self.rooms.remove(&key) {
            room.close(&mut self.core, reason);
            if room.span.is_wide {
                self.core.relay(RelayCommand::Close { room: id.clone() });
            }
        }
    }

    fn remember_released(&mut self, id: &RoomId, epoch: Epoch) {
        let now = self.core.now;
        self.released.retain(|_, released| released.at + RELEASED_FOR > now);
        if self.released.len() >= RELEASED_MAX {
            let oldest = self.released.iter().min_by_key(|(_, released)| released.at);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                self.released.remove(&oldest);
            }
        }
        self.released.insert(id.clone(), Released { epoch, at: now });
    }

    fn place_of(&self, event: &MediaEvent) -> Option<Place> {
        let directory = &self.core.directory;
        match event {
            MediaEvent::TransportConnected { transport }
            | MediaEvent::TransportFailed { transport, .. }
            | MediaEvent::ChannelOpen { transport, .. }
            | MediaEvent::ChannelClosed { transport, .. }
            | MediaEvent::ChannelMessage { transport, .. }
            | MediaEvent::Paused { transport, .. }
            | MediaEvent::Quality { subject: QualitySubject::Transport(transport), .. } => {
                directory.transports.get(transport).map(|(place, _)| *place)
            }
            MediaEvent::TrackStarted { track, .. }
            | MediaEvent::SpeakerLevel { track, .. }
            | MediaEvent::Quality { subject: QualitySubject::Track(track), .. } => {
                directory.tracks.get(track).copied()
            }
        }
    }
}

#[cfg(test)]
impl Rooms {
    pub(crate) fn test_participant(
        &self,
        uid: &headwater_model::ParticipantUid,
    ) -> Option<&crate::participant::Participant> {
        self.rooms.values().find_map(|room| room.participants.get(room.by_uid.get(uid)?))
    }

    pub(crate) fn test_track(
        &self,
        key: headwater_model::media::TrackKey,
    ) -> Option<headwater_model::TrackUid> {
        self.rooms.values().find_map(|room| Some(room.tracks.get(&key)?.uid.clone()))
    }
}
