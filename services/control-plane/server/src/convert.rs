//! Translations out of the domain: records to the core's types and back, and
//! the core's types to messages. What comes in is checked in `input`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headwater_control_core::{
    IntendedRoom, Lifecycle, NodeFacts, NodeLoad, NodeView, Plan, PlannedShard, Rank, RoomReport,
    RoomSpec, Standing,
};
use headwater_model::{Bitrate, Epoch, RoomId, RoomUid, ShardIndex};
use headwater_proto::{node::v1 as node_v1, v1};
use headwater_registry::record;

use crate::names;

pub(crate) fn spec_of_record(record: &record::RoomRecord) -> RoomSpec {
    RoomSpec {
        uid: record.uid.clone(),
        metadata: Arc::from(record.metadata.as_str()),
        max_participants: record.max_participants,
        empty_timeout: record.empty_timeout,
        departure_timeout: record.departure_timeout,
        create_millis: millis_since_epoch(record.create_time),
    }
}

pub(crate) fn plan_of_record(record: record::PlanRecord) -> Plan {
    let shards = record.shards.into_iter().map(|planned| PlannedShard {
        node: planned.node_id,
        shard: planned.shard,
        parent: planned.parent.map(Rank),
        backups: planned.backups.into_iter().map(Rank).collect(),
        seats: planned.seats,
    });
    Plan { room_uid: record.room_uid, epoch: record.epoch, shards: shards.collect() }
}

pub(crate) fn plan_to_record(plan: &Plan) -> record::PlanRecord {
    let shards = plan.shards.iter().map(|planned| record::PlannedShard {
        node_id: planned.node.clone(),
        shard: planned.shard,
        parent: planned.parent.map(|parent| parent.0),
        backups: planned.backups.iter().map(|backup| backup.0).collect(),
        seats: planned.seats,
    });
    let (room_uid, epoch) = (plan.room_uid.clone(), plan.epoch);
    record::PlanRecord { room_uid, epoch, shards: shards.collect() }
}

pub(crate) fn facts_of_record(record: &record::NodeRecord) -> NodeFacts {
    NodeFacts {
        zone: record.zone.clone(),
        region: record.region.clone(),
        shards: record.shard_count(),
        participant_capacity: record.participant_capacity,
        relays: record.relay_address.is_some(),
    }
}

pub(crate) fn lifecycle_of_record(lifecycle: record::Lifecycle) -> Lifecycle {
    match lifecycle {
        record::Lifecycle::Serve => Lifecycle::Serve,
        record::Lifecycle::Cordon => Lifecycle::Cordon,
        record::Lifecycle::Drain => Lifecycle::Drain,
    }
}

/// The etag of a room: the registry's revision of its spec.
pub(crate) fn etag(room: &IntendedRoom) -> String {
    room.spec_revision.to_string()
}

/// A room as nodes see it: of the plan only the epoch and the home, since what
/// else a shard must know is in its slice.
pub(crate) fn room_for_node(id: &RoomId, room: &IntendedRoom) -> v1::Room {
    let plan = room.plan.as_ref().filter(|plan| !plan.shards.is_empty());
    let plan = plan.map(|plan| Plan {
        shards: plan.shards.iter().take(1).cloned().collect(),
        room_uid: plan.room_uid.clone(),
        epoch: plan.epoch,
    });
    v1::Room { plan: plan.as_ref().map(plan_message), ..without_plan(id, room, (0, 0)) }
}

/// A room as platforms see it, with its participants and publishers.
pub(crate) fn room(id: &RoomId, room: &IntendedRoom, counts: (u32, u32)) -> v1::Room {
    let plan = room.plan.as_ref().filter(|plan| !plan.shards.is_empty());
    v1::Room { plan: plan.map(plan_message), ..without_plan(id, room, counts) }
}

fn without_plan(id: &RoomId, room: &IntendedRoom, counts: (u32, u32)) -> v1::Room {
    v1::Room {
        name: names::room(id),
        uid: room.spec.uid.as_str().to_owned(),
        metadata: room.spec.metadata.to_string(),
        max_participants: room.spec.max_participants,
        empty_timeout: Some(duration(room.spec.empty_timeout)),
        departure_timeout: Some(duration(room.spec.departure_timeout)),
        create_time: Some(timestamp_millis(room.spec.create_millis)),
        etag: etag(room),
        participant_count: counts.0,
        publisher_count: counts.1,
        plan: None,
    }
}

fn plan_message(plan: &Plan) -> v1::RoomPlan {
    let shards = plan
        .shards
        .iter()
        .map(|planned| v1::PlannedShard {
            node: names::node(&planned.node),
            shard: u32::from(planned.shard.0),
            parent: planned.parent.map(|parent| u32::from(parent.0)),
            backups: planned.backups.iter().map(|backup| u32::from(backup.0)).collect(),
        })
        .collect();
    v1::RoomPlan { epoch: plan.epoch.0, shards }
}

/// A node as operators see it.
pub(crate) fn node(record: &record::NodeRecord, view: Option<&NodeView>) -> v1::Node {
    let standing = view.map_or(Standing::Unreachable, NodeView::standing);
    v1::Node {
        name: names::node(&record.node_id),
        boot_id: record.boot_id.clone(),
        state: node_state(standing).into(),
        zone: record.zone.clone(),
        region: record.region.clone(),
        build: record.build.clone(),
        start_time: Some(timestamp_millis(millis_since_epoch(record.start_time))),
        media_addresses: record
            .shards
            .iter()
            .filter_map(|shard| shard.udp.first())
            .map(ToString::to_string)
            .collect(),
        shard_count: u32::from(record.shard_count()),
        participant_capacity: record.participant_capacity,
        load: view.and_then(|view| view.load).map(load_message),
        relay_address: record.relay_address.map_or_else(String::new, |it| it.to_string()),
        order: None,
        drain: None,
    }
}

/// An operator's order as operators see it.
pub(crate) fn order_message(order: &record::LifecycleRecord) -> v1::NodeOrder {
    let deadline = order.timeout.and_then(|timeout| order.order_time.checked_add(timeout));
    v1::NodeOrder {
        order_time: Some(timestamp_millis(millis_since_epoch(order.order_time))),
        ordered_by: order.ordered_by.clone(),
        reason: order.reason.clone(),
        deadline: deadline.map(|deadline| timestamp_millis(millis_since_epoch(deadline))),
    }
}

pub(crate) fn node_state(standing: Standing) -> v1::NodeState {
    match standing {
        Standing::Serving => v1::NodeState::Serving,
        Standing::Cordoned => v1::NodeState::Cordoned,
        Standing::Draining => v1::NodeState::Draining,
        Standing::Unreachable | Standing::Unregistered | Standing::Gone => {
            v1::NodeState::Unreachable
        }
    }
}

fn load_message(load: NodeLoad) -> v1::NodeLoad {
    v1::NodeLoad {
        room_count: load.rooms,
        participant_count: load.participants,
        subscription_count: load.subscriptions,
        egress_bits_per_second: load.egress.bps(),
        egress_packets_per_second: load.egress_packets_per_second,
        busiest_shard_ratio: load.busiest_shard,
        measure_time: (load.measured_at_millis > 0)
            .then(|| timestamp_millis(load.measured_at_millis)),
    }
}

/// A node's load. What is not a number counts as idle.
pub(crate) fn load(message: &v1::NodeLoad) -> NodeLoad {
    let ratio = message.busiest_shard_ratio;
    NodeLoad {
        rooms: message.room_count,
        participants: message.participant_count,
        subscriptions: message.subscription_count,
        egress: Bitrate(message.egress_bits_per_second),
        egress_packets_per_second: message.egress_packets_per_second,
        busiest_shard: if ratio.is_finite() { ratio.clamp(0.0, 1.0) } else { 0.0 },
        measured_at_millis: message.measure_time.as_ref().map_or(0, |time| {
            let seconds = u64::try_from(time.seconds).unwrap_or(0);
            let millis = u64::try_from(time.nanos).unwrap_or(0) / 1_000_000;
            seconds.saturating_mul(1000).saturating_add(millis)
        }),
    }
}

/// What a node sees of a room; nothing if it names no room or shard there can be.
pub(crate) fn report(message: node_v1::RoomReport) -> Option<(RoomId, RoomReport)> {
    let id = RoomId::new(message.room_id).ok()?;
    let report = RoomReport {
        uid: RoomUid::from_raw(message.room_uid),
        epoch: Epoch(message.epoch),
        shard: ShardIndex(u16::try_from(message.shard).ok()?),
        participants: message.participant_count,
        publishers: message.publisher_count,
        empty_for: Duration::from_millis(message.empty_millis),
        ever_joined: message.ever_joined,
        egress: Bitrate(message.egress_bits_per_second),
    };
    Some((id, report))
}

/// A participant as platforms see it.
pub(crate) fn participant(room: &RoomId, from: node_v1::Participant) -> v1::Participant {
    let state = match from.phase() {
        node_v1::ParticipantPhase::Joined => v1::ParticipantState::Joined,
        node_v1::ParticipantPhase::Active => v1::ParticipantState::Active,
        node_v1::ParticipantPhase::Unspecified | node_v1::ParticipantPhase::Left => {
            v1::ParticipantState::Unspecified
        }
    };
    v1::Participant {
        name: names::participant(room, &from.identity),
        uid: from.uid,
        identity: from.identity,
        display_name: from.display_name,
        metadata: from.metadata,
        attributes: from.attributes,
        state: state.into(),
        join_time: from.join_time,
        tracks: from.tracks.into_iter().filter_map(|track| track.track).collect(),
        hidden: from.permission.is_some_and(|permission| permission.hidden),
    }
}

pub(crate) fn duration(from: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(from.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(from.subsec_nanos()).unwrap_or(0),
    }
}

pub(crate) fn timestamp_millis(millis: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(millis / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(millis % 1000 * 1_000_000).unwrap_or(0),
    }
}

fn millis_since_epoch(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
