//! What the control plane says: assignments and commands, and what it is told.

use std::time::Duration;

use headwater_model::{Epoch, Identity, RoomId, RoomUid, ShardIndex, TrackUid};
use headwater_proto::node::v1 as wire;
use headwater_proto::node::v1::command_participant_request::Command as Wire;
use headwater_proto::v1;
use headwater_room::{
    CloseReason, ControlAction, ControlCommand, DataMessage, ParticipantUpdate, RoomAssignment,
    RoomProperties, RoomReport,
};

use super::inbound::subscription_update;
use super::plan::{Part, part};
use super::{WireError, bounded, close_reason_from, permission_from};

/// Kept empty for so long if the room does not say: LiveKit's own values.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(300);
const DEPARTURE_TIMEOUT: Duration = Duration::from_secs(20);

fn room_id(text: String) -> Result<RoomId, WireError> {
    RoomId::new(text).map_err(|source| WireError::Id { field: "room_id", source })
}

fn identity(text: String) -> Result<Identity, WireError> {
    Identity::new(text).map_err(|source| WireError::Id { field: "identity", source })
}

/// A room for one shard of this node.
pub struct Assignment {
    /// The shard.
    pub shard: ShardIndex,
    /// The room.
    pub room: RoomAssignment,
    /// What the shard must know of its plan.
    pub part: Part,
}

/// Reads an assignment.
///
/// # Errors
/// What is missing or malformed.
pub fn assignment(assign: wire::AssignRoom) -> Result<Assignment, WireError> {
    let room = assign.room.ok_or(WireError::Missing("room"))?;
    let epoch = Epoch(room.plan.as_ref().ok_or(WireError::Missing("room.plan"))?.epoch);
    let part = match assign.slice {
        Some(slice) => part(slice, epoch)?,
        None => Part::whole(epoch),
    };
    let properties = properties(room)?;
    let room = RoomAssignment { id: room_id(assign.room_id)?, epoch, properties };
    Ok(Assignment { shard: shard_index(assign.shard)?, room, part })
}

fn shard_index(shard: u32) -> Result<ShardIndex, WireError> {
    u16::try_from(shard).map(ShardIndex).map_err(|_| WireError::Malformed("shard"))
}

/// Reads what the platform says of a room.
///
/// # Errors
/// If the room has no uid.
pub fn properties(room: v1::Room) -> Result<RoomProperties, WireError> {
    if room.uid.is_empty() {
        return Err(WireError::Missing("room.uid"));
    }
    let duration = |wire: Option<prost_types::Duration>, absent: Duration| {
        wire.and_then(|wire| Duration::try_from(wire).ok()).unwrap_or(absent)
    };
    let create_millis = room.create_time.map_or(0, |time| {
        u64::try_from(time.seconds).unwrap_or(0) * 1000
            + u64::try_from(time.nanos / 1_000_000).unwrap_or(0)
    });
    Ok(RoomProperties {
        uid: RoomUid::from_raw(room.uid),
        metadata: room.metadata,
        max_participants: room.max_participants,
        empty_timeout: duration(room.empty_timeout, EMPTY_TIMEOUT),
        departure_timeout: duration(room.departure_timeout, DEPARTURE_TIMEOUT),
        create_millis,
        etag: room.etag,
    })
}

/// The end of a room on shards of this node.
pub struct Release {
    /// The room.
    pub room: RoomId,
    /// The shard that lets go of it. None means every one.
    pub shard: Option<ShardIndex>,
    /// Epoch that ended it.
    pub epoch: Epoch,
    /// What participants are told.
    pub reason: CloseReason,
}

/// Reads a release.
///
/// # Errors
/// If the room's id is none.
pub fn release(release: wire::ReleaseRoom) -> Result<Release, WireError> {
    Ok(Release {
        room: room_id(release.room_id)?,
        shard: release.shard.map(shard_index).transpose()?,
        epoch: Epoch(release.epoch),
        reason: close_reason_from(release.reason),
    })
}

/// Reads a command about a participant.
///
/// # Errors
/// What is missing or malformed.
pub fn control_command(
    request: wire::CommandParticipantRequest,
) -> Result<ControlCommand, WireError> {
    let action = match request.command.ok_or(WireError::Missing("command"))? {
        Wire::Remove(remove) => ControlAction::Remove { reason: close_reason_from(remove.reason) },
        Wire::MuteTrack(mute) => ControlAction::MuteTrack {
            track: TrackUid::from_raw(mute.track_uid),
            muted: mute.muted,
        },
        Wire::Update(update) => ControlAction::Update(ParticipantUpdate {
            display_name: update.display_name,
            metadata: update.metadata,
            attributes: update.attributes.into_iter().collect(),
            permission: update.permission.map(permission_from),
        }),
        Wire::UpdateSubscription(update) => {
            ControlAction::UpdateSubscription(subscription_update(update)?)
        }
    };
    Ok(ControlCommand {
        room: room_id(request.room_id)?,
        identity: identity(request.identity)?,
        action,
    })
}

/// Reads a data message.
///
/// # Errors
/// What is malformed.
pub fn data_message(request: wire::SendDataRequest) -> Result<DataMessage, WireError> {
    let destinations = bounded("destination_identities", request.destination_identities)?;
    let destinations: Result<Vec<_>, _> = destinations.into_iter().map(identity).collect();
    Ok(DataMessage {
        room: room_id(request.room_id)?,
        payload: request.payload,
        reliable: request.reliable,
        destinations: destinations?,
        topic: request.topic,
    })
}

/// What a shard sees of one room.
#[must_use]
pub fn report(report: RoomReport, shard: u16) -> wire::RoomReport {
    wire::RoomReport {
        room_id: report.id.into_string(),
        room_uid: report.uid.to_string(),
        epoch: report.epoch.0,
        shard: shard.into(),
        participant_count: report.participant_count,
        publisher_count: report.publisher_count,
        empty_millis: u64::try_from(report.empty_for.as_millis()).unwrap_or(u64::MAX),
        ever_joined: report.ever_joined,
        ..wire::RoomReport::default()
    }
}
