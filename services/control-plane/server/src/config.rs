//! What an operator can set.

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
}
