//! What the bearer of a token may do. The shape follows LiveKit's video grant,
//! so that existing server SDKs can mint tokens; the defaults are those of a
//! checked token, with every absent claim already decided.

use std::collections::BTreeMap;

use crate::media::TrackSource;

/// What a participant may do in its room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// Receive the tracks of others.
    pub can_subscribe: bool,
    /// Publish tracks.
    pub can_publish: bool,
    /// Send data messages.
    pub can_publish_data: bool,
    /// Sources it may publish. Empty means all.
    pub can_publish_sources: Vec<TrackSource>,
    /// Others are not told of it.
    pub hidden: bool,
    /// May change its own name, metadata and attributes.
    pub can_update_metadata: bool,
}

impl Default for Permission {
    fn default() -> Self {
        Self {
            can_subscribe: true,
            can_publish: true,
            can_publish_data: true,
            can_publish_sources: Vec::new(),
            hidden: false,
            can_update_metadata: false,
        }
    }
}

impl Permission {
    /// Whether a track of this source may be published.
    #[must_use]
    pub fn allows_source(&self, source: TrackSource) -> bool {
        self.can_publish
            && (self.can_publish_sources.is_empty() || self.can_publish_sources.contains(&source))
    }
}

/// What kind of program a participant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ParticipantKind {
    /// A person's client.
    #[default]
    Standard,
    /// Brings outside media in.
    Ingress,
    /// Records or streams out.
    Egress,
    /// A telephone.
    Sip,
    /// A program that takes part.
    Agent,
    /// Joins two systems.
    Connector,
    /// Joins two rooms.
    Bridge,
}

/// A checked token: who bears it and what it allows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants {
    /// API key that signed it (`iss`).
    pub api_key: String,
    /// Who the bearer is (`sub`); empty in tokens for the server API only.
    pub identity: String,
    /// Name to show.
    pub display_name: String,
    /// Platform's text.
    pub metadata: String,
    /// Platform's keyed values.
    pub attributes: BTreeMap<String, String>,
    /// Kind of program.
    pub kind: ParticipantKind,
    /// Finer kinds, passed through.
    pub kind_details: Vec<String>,
    /// Base64 SHA-256 of the body a webhook token signs. Empty otherwise.
    pub sha256: String,
    /// The room the token is for. Empty if it names none.
    pub room: String,
    /// May join `room`.
    pub room_join: bool,
    /// May create and delete rooms.
    pub room_create: bool,
    /// May list rooms and nodes.
    pub room_list: bool,
    /// May administer `room`.
    pub room_admin: bool,
    /// May record.
    pub room_record: bool,
    /// Is a recorder.
    pub recorder: bool,
    /// Is an agent.
    pub agent: bool,
    /// What it may do once in the room.
    pub permission: Permission,
    /// When the token ends, seconds since the Unix epoch.
    pub expires_at: u64,
}

impl Grants {
    /// Whether the bearer may administer this room.
    #[must_use]
    pub fn may_administer(&self, room: &str) -> bool {
        self.room_admin && !room.is_empty() && self.room == room
    }
}
