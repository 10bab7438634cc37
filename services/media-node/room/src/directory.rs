//! Where things are: from the keys that sessions, transports and tracks are
//! known by outside to the room and participant they belong to.

use std::collections::BTreeMap;

use headwater_model::media::{TrackKey, TransportKey};

use crate::session::{SessionKey, TransportKind};

/// A room of this shard. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RoomKey(pub(crate) u32);

/// A participant of this shard. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ParticipantKey(pub(crate) u32);

/// A participant and its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) room: RoomKey,
    pub(crate) participant: ParticipantKey,
}

/// Where everything is. Each map holds only what lives.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    pub(crate) sessions: BTreeMap<SessionKey, Place>,
    pub(crate) transports: BTreeMap<TransportKey, (Place, TransportKind)>,
    pub(crate) tracks: BTreeMap<TrackKey, Place>,
}
