//! What the API does to rooms: create, read, update, delete, each write a
//! compare-and-swap that is tried again when others were faster.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headwater_control_core::room::{DEPARTURE_TIMEOUT, EMPTY_TIMEOUT};
use headwater_control_core::{IntendedRoom, Plan};
use headwater_model::{RoomId, RoomUid};
use headwater_registry::Revision;
use headwater_registry::record::RoomRecord;
use headwater_rpc::status::{self, Reason};
use headwater_telemetry::Metrics;
use headwater_telemetry::metrics::{PlanReason, RoomEnd};
use rand::Rng as _;
use tokio::time::Instant;
use tonic::Status;

use crate::cluster::{Cluster, Reservation};
use crate::convert;
use crate::names;
use crate::registry::{FoundRoom, PATIENCE, Registry, RegistryError, RoomReading};

/// How often a write is tried when others are faster.
const TRIES_MAX: usize = 5;
/// How long to wait for our own write to come back by the watch, so that nodes
/// are told and the next call sees it. Being late is no failure.
const WATCH_PATIENCE: Duration = Duration::from_millis(300);

/// What a new room shall be.
#[derive(Debug, Clone)]
pub(crate) struct NewRoom {
    pub(crate) id: RoomId,
    pub(crate) metadata: String,
    pub(crate) max_participants: u32,
    pub(crate) empty_timeout: Duration,
    pub(crate) departure_timeout: Duration,
    pub(crate) request_id: String,
}

impl NewRoom {
    /// A room as it is made by the first join.
    pub(crate) fn by_join(id: RoomId) -> Self {
        Self {
            id,
            metadata: String::new(),
            max_participants: 0,
            empty_timeout: EMPTY_TIMEOUT,
            departure_timeout: DEPARTURE_TIMEOUT,
            request_id: String::new(),
        }
    }
}

/// What an update changes; absent means unchanged.
#[derive(Debug, Clone, Default)]
pub(crate) struct RoomChange {
    pub(crate) metadata: Option<String>,
    pub(crate) max_participants: Option<u32>,
    pub(crate) empty_timeout: Option<Duration>,
    pub(crate) departure_timeout: Option<Duration>,
    /// Only if the room's etag is this. Empty means always.
    pub(crate) etag: String,
    pub(crate) request_id: String,
}

/// A room that was asked for.
#[derive(Debug, Clone)]
pub(crate) struct RoomAnswer {
    pub(crate) room: IntendedRoom,
    /// The registry is away; this is what was watched before.
    pub(crate) stale: bool,
}

/// The rooms.
#[derive(Debug, Clone)]
pub(crate) struct Rooms {
    pub(crate) registry: Registry,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) metrics: Metrics,
    pub(crate) region: String,
}

impl Rooms {
    /// Makes a room, with a plan if a node can take it. A repeat of the call
    /// that made it gets the same room.
    pub(crate) async fn create(&self, new: NewRoom) -> Result<IntendedRoom, Status> {
        let deadline = Instant::now() + PATIENCE;
        for _ in 0..TRIES_MAX {
            let reading = self.registry.read_room(&new.id, deadline).await?;
            if let Some(found) = reading.room {
                let same = found.record.create_request_id == new.request_id;
                if same && !new.request_id.is_empty() {
                    return Ok(found.intended);
                }
                return Err(status::already_exists("room", &names::room(&new.id)));
            }
            // Unless somebody else is faster in that moment.
            if let Some(room) = self.write_new(&new, reading.revision, deadline).await? {
                return Ok(room);
            }
        }
        Err(contended(&new.id))
    }

    /// Writes a room that was not there at `revision`. `None` if it is there now.
    pub(crate) async fn write_new(
        &self,
        new: &NewRoom,
        revision: Revision,
        deadline: Instant,
    ) -> Result<Option<IntendedRoom>, RegistryError> {
        let record = RoomRecord {
            room_id: new.id.clone(),
            uid: new_uid(),
            metadata: new.metadata.clone(),
            max_participants: new.max_participants,
            empty_timeout: new.empty_timeout,
            departure_timeout: new.departure_timeout,
            create_time: whole_millis(SystemTime::now()),
            create_request_id: new.request_id.clone(),
            update_request_id: String::new(),
        };
        let spec = convert::spec_of_record(&record);
        // Without a node the room exists all the same, and is planned later.
        let reservation = self.cluster.reserve(&new.id, &self.region, None, rand::random()).ok();
        let plan = reservation.as_ref().map(|it| self.cluster.first_plan(it, &spec, revision));
        let written = self.registry.create_room(&record, plan.as_ref(), deadline).await?;
        let Some(written) = written else {
            return Ok(None);
        };
        if plan.is_some() {
            self.metrics.control_plane().plans.get(PlanReason::FirstUse).inc();
        }
        self.cluster.wait_for_revision(written, WATCH_PATIENCE).await;
        let mut room = IntendedRoom {
            spec,
            create_revision: written.0,
            spec_revision: written.0,
            plan: None,
            plan_revision: 0,
        };
        room.set_plan(plan.map(|plan| (plan, written.0)));
        Ok(Some(room))
    }

    /// Reads one room; while the registry is away, as it was watched before.
    pub(crate) async fn get(&self, id: &RoomId) -> Result<RoomAnswer, Status> {
        let not_found = || status::not_found("room", &names::room(id));
        match self.registry.read_room(id, Instant::now() + PATIENCE).await {
            Ok(reading) => {
                let found = reading.room.ok_or_else(not_found)?;
                Ok(RoomAnswer { room: found.intended, stale: false })
            }
            Err(RegistryError::Away) => {
                // That it was not there before does not mean that it is not there.
                let room = self.cluster.room(id).ok_or(RegistryError::Away)?;
                Ok(RoomAnswer { room, stale: true })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads all rooms in order of names, and whether they are as they were
    /// watched before.
    pub(crate) async fn list(&self) -> Result<(Vec<(RoomId, IntendedRoom)>, bool), Status> {
        match self.registry.read_rooms(Instant::now() + PATIENCE).await {
            Ok(rooms) => Ok((rooms, false)),
            Err(RegistryError::Away) if self.cluster.is_synced() => {
                Ok((self.cluster.rooms(), true))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Changes a room.
    pub(crate) async fn update(
        &self,
        id: &RoomId,
        change: RoomChange,
    ) -> Result<IntendedRoom, Status> {
        let deadline = Instant::now() + PATIENCE;
        for _ in 0..TRIES_MAX {
            let (_, found) = self.found(id, deadline).await?;
            let is_repeat = !change.request_id.is_empty()
                && found.record.update_request_id == change.request_id;
            if is_repeat {
                return Ok(found.intended);
            }
            if !change.etag.is_empty() && change.etag != convert::etag(&found.intended) {
                let message = format!("{} has changed since that etag", names::room(id));
                return Err(status::aborted(Reason::EtagStale, message));
            }
            let record = changed(&found.record, &change);
            let written = self.registry.replace_spec(&found, &record, deadline).await?;
            if let Some(revision) = written {
                self.cluster.wait_for_revision(revision, WATCH_PATIENCE).await;
                let mut room = found.intended;
                room.spec = convert::spec_of_record(&record);
                room.spec_revision = revision.0;
                return Ok(room);
            }
        }
        Err(contended(id))
    }

    /// Ends a room.
    pub(crate) async fn delete(&self, id: &RoomId) -> Result<(), Status> {
        let deadline = Instant::now() + PATIENCE;
        for _ in 0..TRIES_MAX {
            let (reading, found) = self.found(id, deadline).await?;
            let deleted = self.registry.delete_room(&reading, &found, None, deadline).await?;
            if let Some(revision) = deleted {
                self.metrics.control_plane().rooms_ended.get(RoomEnd::Deleted).inc();
                self.cluster.wait_for_revision(revision, WATCH_PATIENCE).await;
                return Ok(());
            }
        }
        Err(contended(id))
    }

    /// Writes a plan in place of the one that was read. `None` if somebody else
    /// was faster, or the room is another one now.
    pub(crate) async fn write_plan(
        &self,
        reading: &RoomReading,
        reservation: &Reservation<'_>,
        reason: PlanReason,
        deadline: Instant,
    ) -> Result<Option<IntendedRoom>, RegistryError> {
        let Some(found) = &reading.room else {
            return Ok(None);
        };
        let plan = self.cluster.next_plan(reservation, &found.intended, reading.revision);
        self.write_this_plan(reading, plan, reason, deadline).await
    }

    /// Writes this plan in place of the one that was read. `None` as above.
    pub(crate) async fn write_this_plan(
        &self,
        reading: &RoomReading,
        plan: Plan,
        reason: PlanReason,
        deadline: Instant,
    ) -> Result<Option<IntendedRoom>, RegistryError> {
        let Some(found) = &reading.room else {
            return Ok(None);
        };
        let written = self.registry.write_plan(reading, found, &plan, None, deadline).await?;
        let Some(revision) = written else {
            return Ok(None);
        };
        self.metrics.control_plane().plans.get(reason).inc();
        self.cluster.wait_for_revision(revision, WATCH_PATIENCE).await;
        let mut room = found.intended.clone();
        room.set_plan(Some((plan, revision.0)));
        Ok(Some(room))
    }

    /// Reads a room that must be there.
    async fn found(
        &self,
        id: &RoomId,
        deadline: Instant,
    ) -> Result<(RoomReading, FoundRoom), Status> {
        let reading = self.registry.read_room(id, deadline).await?;
        match reading.room.clone() {
            Some(found) => Ok((reading, found)),
            None => Err(status::not_found("room", &names::room(id))),
        }
    }
}

fn changed(record: &RoomRecord, change: &RoomChange) -> RoomRecord {
    let mut record = record.clone();
    if let Some(metadata) = &change.metadata {
        record.metadata.clone_from(metadata);
    }
    if let Some(max_participants) = change.max_participants {
        record.max_participants = max_participants;
    }
    if let Some(empty_timeout) = change.empty_timeout {
        record.empty_timeout = empty_timeout;
    }
    if let Some(departure_timeout) = change.departure_timeout {
        record.departure_timeout = departure_timeout;
    }
    record.update_request_id.clone_from(&change.request_id);
    record
}

fn contended(id: &RoomId) -> Status {
    let message = format!("{} was changed by others again and again", names::room(id));
    status::aborted(Reason::Conflict, message)
}

/// `RM_` and twelve letters or digits: 71 bits, so that no two incarnations of
/// one name ever share one.
fn new_uid() -> RoomUid {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut random = rand::rng();
    let tail: String =
        (0..12).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect();
    RoomUid::from_raw(format!("RM_{tail}"))
}

/// A time as records keep it, so that what was written equals what is read.
fn whole_millis(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    UNIX_EPOCH + Duration::from_millis(millis)
}
