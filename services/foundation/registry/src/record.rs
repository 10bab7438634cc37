//! What is kept under the keys: records in JSON with the version of their
//! format. A field may be added without a new version, since readers skip
//! fields they do not know and fill in those that are absent; anything else is
//! a new version, which an older reader refuses.

mod plan;
mod text;

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use headwater_model::{NodeId, RoomId, RoomUid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use plan::{PlanRecord, PlannedShard};

use crate::key::Key;
use crate::store::{Entry, LeaseId, Revision};

/// Why a stored value is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is not JSON of the right shape.
    #[error("the value is no {kind} record")]
    Malformed {
        /// The record wanted.
        kind: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A newer version of this software wrote it.
    #[error("the {kind} record has version {found}, only versions up to {known} are known")]
    TooNew {
        /// The record wanted.
        kind: &'static str,
        /// Its version.
        found: u32,
        /// The newest version that can be read.
        known: u32,
    },
}

#[derive(Serialize)]
struct Written<'a, T> {
    version: u32,
    #[serde(flatten)]
    record: &'a T,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

fn encode_as<R: Serialize>(version: u32, record: &R) -> Bytes {
    let written = Written { version, record };
    serde_json::to_vec(&written).expect("records hold nothing that JSON cannot say").into()
}

/// A value of the registry.
pub trait Record: Serialize + DeserializeOwned {
    /// What it is called in errors.
    const KIND: &'static str;
    /// Version of the format that is written.
    const VERSION: u32;

    /// The bytes to store.
    fn encode(&self) -> Bytes {
        encode_as(Self::VERSION, self)
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// If they are not this record, or of a newer version.
    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let malformed = |source| RecordError::Malformed { kind: Self::KIND, source };
        let Version { version: found } = serde_json::from_slice(bytes).map_err(malformed)?;
        if found > Self::VERSION {
            return Err(RecordError::TooNew { kind: Self::KIND, found, known: Self::VERSION });
        }
        serde_json::from_slice(bytes).map_err(malformed)
    }
}

/// A record as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<R> {
    /// Where.
    pub key: Key,
    /// The record.
    pub record: R,
    /// When the key came into being.
    pub create_revision: Revision,
    /// When it was last written: what a compare-and-swap compares.
    pub mod_revision: Revision,
    /// The lease it hangs on.
    pub lease: Option<LeaseId>,
}

impl<R: Record> Stored<R> {
    /// Reads an entry.
    ///
    /// # Errors
    /// If its value is not this record, or of a newer version.
    pub fn read(entry: &Entry) -> Result<Self, RecordError> {
        Ok(Self {
            key: entry.key.clone(),
            record: R::decode(&entry.value)?,
            create_revision: entry.create_revision,
            mod_revision: entry.mod_revision,
            lease: entry.lease,
        })
    }
}

/// A media node, as it registers itself under its lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The node.
    #[serde(with = "text")]
    pub node_id: NodeId,
    /// Changes with every start of the process.
    pub boot_id: String,
    /// Counts the registrations of one process, from 1: it rises when the lease
    /// was lost and taken anew.
    #[serde(default)]
    pub incarnation: u64,
    /// Where its gRPC services listen, a URL such as `http://10.0.0.7:7900`.
    pub rpc_url: String,
    /// Where clients send media, one for each shard, by shard index.
    pub shards: Vec<ShardAddresses>,
    /// Failure domain. Empty means not told.
    #[serde(default)]
    pub zone: String,
    /// Region. Empty means not told.
    #[serde(default)]
    pub region: String,
    /// Participants it accepts at most. 0 means no limit of its own.
    #[serde(default)]
    pub participant_capacity: u32,
    /// Where it takes relay links of other nodes (UDP). None means that it
    /// carries only rooms that fit one shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_address: Option<SocketAddr>,
    /// Version of the software.
    #[serde(default)]
    pub build: String,
    /// When the process started, in whole milliseconds.
    #[serde(with = "text::unix_millis", rename = "start_time_millis")]
    pub start_time: SystemTime,
}

/// The media addresses of one shard.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ShardAddresses {
    /// For ICE over UDP.
    pub udp: Vec<SocketAddr>,
    /// For passive ICE over TCP (RFC 6544). Empty means none.
    #[serde(default)]
    pub tcp: Vec<SocketAddr>,
}

impl NodeRecord {
    /// How many forwarding threads it has.
    #[must_use]
    pub fn shard_count(&self) -> u16 {
        u16::try_from(self.shards.len()).unwrap_or(u16::MAX)
    }
}

impl Record for NodeRecord {
    const KIND: &'static str = "node";
    const VERSION: u32 = 1;
}

/// What a node is to do with rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Lifecycle {
    /// Take rooms. Also what holds without an order.
    #[default]
    Serve,
    /// Keep its rooms, take no new ones.
    Cordon,
    /// Move its rooms away.
    Drain,
}

/// An order to a node. It has no lease: it outlives the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifecycleRecord {
    /// The node.
    #[serde(with = "text")]
    pub node_id: NodeId,
    /// What it is to do.
    pub lifecycle: Lifecycle,
    /// Who ordered it: an API key or a loop of the control plane. Empty means not told.
    #[serde(default)]
    pub ordered_by: String,
    /// Why, for people. Empty means not told.
    #[serde(default)]
    pub reason: String,
    /// When it was ordered, in whole milliseconds.
    #[serde(with = "text::unix_millis", rename = "order_time_millis")]
    pub order_time: SystemTime,
    /// How long after `order_time` it is to be done. None means no deadline.
    #[serde(
        default,
        with = "text::optional_millis",
        rename = "timeout_millis",
        skip_serializing_if = "Option::is_none"
    )]
    pub timeout: Option<Duration>,
    /// Rooms of the node when it was ordered.
    #[serde(default)]
    pub rooms_at_order: u32,
    /// Participants of the node when it was ordered.
    #[serde(default)]
    pub participants_at_order: u32,
}

impl Record for LifecycleRecord {
    const KIND: &'static str = "lifecycle";
    const VERSION: u32 = 1;
}

/// What a room shall be. Its etag is its [`Stored::mod_revision`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomRecord {
    /// The room.
    #[serde(with = "text")]
    pub room_id: RoomId,
    /// This incarnation of it.
    #[serde(with = "text::room_uid")]
    pub uid: RoomUid,
    /// Free text of the platform. Empty means none.
    #[serde(default)]
    pub metadata: String,
    /// Participants admitted at once. 0 means no limit of its own.
    #[serde(default)]
    pub max_participants: u32,
    /// How long it is kept when nobody has ever joined, in whole milliseconds.
    #[serde(with = "text::millis", rename = "empty_timeout_millis")]
    pub empty_timeout: Duration,
    /// How long it is kept after the last one left, in whole milliseconds.
    #[serde(with = "text::millis", rename = "departure_timeout_millis")]
    pub departure_timeout: Duration,
    /// When it was created, in whole milliseconds.
    #[serde(with = "text::unix_millis", rename = "create_time_millis")]
    pub create_time: SystemTime,
    /// `request_id` of the call that created it, so that a repeat is known.
    /// Empty means none.
    #[serde(default)]
    pub create_request_id: String,
    /// `request_id` of the call that last updated it. Empty means none.
    #[serde(default)]
    pub update_request_id: String,
}

impl fmt::Debug for RoomRecord {
    /// Without the metadata, which is the platform's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomRecord")
            .field("room_id", &self.room_id)
            .field("uid", &self.uid)
            .field("metadata_bytes", &self.metadata.len())
            .field("max_participants", &self.max_participants)
            .field("empty_timeout", &self.empty_timeout)
            .field("departure_timeout", &self.departure_timeout)
            .field("create_time", &self.create_time)
            .finish_non_exhaustive()
    }
}

impl Record for RoomRecord {
    const KIND: &'static str = "room";
    const VERSION: u32 = 1;
}

#[cfg(test)]
mod tests;
