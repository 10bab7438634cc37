//! The gateway's configuration: one typed struct, unknown keys refused, every
//! secret hidden when it is printed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use headwater_model::media::Codec;
use headwater_rpc::client::ClientTls;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

/// What a gateway is told at its start.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients and platforms connect: HTTP and WebSocket, without TLS
    /// (a proxy in front ends it). Port 0 takes a free one.
    pub listen: SocketAddr,
    /// gRPC addresses of the control plane's replicas, such as
    /// `http://127.0.0.1:7890`. They are tried in turn.
    pub control_plane_urls: Vec<String>,
    /// How the control plane and the nodes are reached when their URL is `https`.
    pub tls: ClientTls,
    /// Folder of the community page, with an `index.html`. Absent serves no page.
    pub web_root: Option<PathBuf>,
    /// Region told to clients. Empty tells none.
    pub region: String,
    /// A first join creates its room. If false, only tokens with `roomCreate` do.
    pub auto_create_rooms: bool,
    /// Development: hands out tokens at `/dev/token` to whoever asks.
    pub dev: bool,
    /// The LiveKit door.
    pub livekit: LiveKit,
    /// Bounds.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7880)),
            control_plane_urls: vec!["http://127.0.0.1:7890".to_owned()],
            tls: ClientTls::default(),
            web_root: None,
            region: String::new(),
            auto_create_rooms: true,
            dev: false,
            livekit: LiveKit::default(),
            limits: Limits::default(),
        }
    }
}

/// How the LiveKit door behaves.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LiveKit {
    /// Serve v1 signalling (one transport). If false its paths answer 404,
    /// which sends clients to v0.
    pub v1: bool,
    /// STUN and TURN servers told to clients. Empty is right when the nodes'
    /// addresses can be reached, as they should.
    pub ice_servers: Vec<IceServer>,
    /// Codecs that may be published, by MIME type, best first.
    pub publish_codecs: Vec<String>,
}

impl Default for LiveKit {
    fn default() -> Self {
        // LiveKit's order: video first, best supported first, audio last.
        let video = [Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1];
        Self {
            v1: true,
            ice_servers: Vec::new(),
            publish_codecs: video
                .into_iter()
                .chain([Codec::Opus])
                .map(|codec| codec.mime_type().to_owned())
                .collect(),
        }
    }
}

/// A STUN or TURN server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IceServer {
    /// URLs such as `turns:turn.example.org:443?transport=tcp`.
    pub urls: Vec<String>,
    /// User name. Empty means none.
    #[serde(default)]
    pub username: String,
    /// Password. Absent means none.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "hidden")]
    pub credential: Option<SecretString>,
}

impl IceServer {
    pub(crate) fn credential(&self) -> &str {
        self.credential.as_ref().map_or("", |secret| secret.expose_secret())
    }
}

fn hidden<S: Serializer>(_: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("(hidden)")
}

/// Bounds of one gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// TCP connections open at once. At the limit new ones wait in the kernel.
    pub connections_max: usize,
    /// Sessions open or opening at once: WebSockets, and those of WHIP and WHEP.
    /// At the limit joins get 503.
    pub sessions_max: usize,
    /// Joins in the making at once. At the limit joins get 503.
    pub joins_max: usize,
    /// A join that took longer is refused with 503.
    pub join_timeout_seconds: u64,
    /// Messages waiting for one slow client. At the limit it is cut off, and
    /// may resume.
    pub outbox_messages_max: usize,
    /// Bytes waiting for one slow client, as above. What a client is told when
    /// it comes back to a room must fit.
    pub outbox_bytes_max: usize,
    /// How long a stopping gateway waits for its sessions to say goodbye.
    pub drain_timeout_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            sessions_max: 16_000,
            joins_max: 512,
            join_timeout_seconds: 10,
            outbox_messages_max: 512,
            outbox_bytes_max: 8 * 1024 * 1024,
            drain_timeout_seconds: 5,
        }
    }
}

impl Limits {
    pub(crate) fn join_timeout(&self) -> Duration {
        Duration::from_secs(self.join_timeout_seconds)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_timeout_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused() {
        let refused = serde_json::from_str::<Config>(r#"{"listne": "127.0.0.1:1"}"#);
        assert!(refused.unwrap_err().to_string().contains("listne"));
        assert!(serde_json::from_str::<Config>(r#"{"livekit": {"v2": true}}"#).is_err());
    }

    #[test]
    fn a_turn_password_is_not_printed() {
        let json =
            r#"{"livekit": {"ice_servers": [{"urls": ["turn:a"], "credential": "hunter2"}]}}"#;
        let config: Config = serde_json::from_str(json).unwrap();
        assert_eq!(config.livekit.ice_servers[0].credential(), "hunter2");
        let printed = serde_json::to_string(&config).unwrap() + &format!("{config:?}");
        assert!(!printed.contains("hunter2"));
        assert!(printed.contains("(hidden)"));
    }
}
