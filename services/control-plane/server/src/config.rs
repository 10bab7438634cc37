//! What an operator can set.

use headwater_control_core::TreeConfig;
use headwater_rpc::{ClientTls, ServerConfig};
use serde::{Deserialize, Serialize};

/// Settings of the control plane.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the gRPC services listen.
    pub server: ServerConfig,
    /// TLS towards media nodes, used for node URLs that begin with `https://`.
    pub node_tls: ClientTls,
    /// Region whose nodes are preferred for new rooms: mostly the region this
    /// replica runs in. Empty means no preference.
    pub region: String,
    /// Let `MuteTrack` unmute too. Off, because a person who muted a microphone
    /// must be able to rely on it.
    pub allow_unmute: bool,
    /// Participants that one shard carries; a room with more than three quarters
    /// of it gets another shard, if the nodes relay. 0 means 500, which fits
    /// rooms in which everybody sends video; rooms of viewers allow more.
    pub shard_participants: u32,
}

impl Config {
    /// Bounds of the trees of large rooms.
    pub(crate) fn tree(&self) -> TreeConfig {
        let default = TreeConfig::default();
        match self.shard_participants {
            0 => default,
            shard_participants => TreeConfig { shard_participants, ..default },
        }
    }
}
