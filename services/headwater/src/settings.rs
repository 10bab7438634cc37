//! The settings of each role, one typed struct each, and how they come from
//! defaults, a file, the environment and flags. Unknown ones are refused.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use headwater_registry::RegistryConfig;
use headwater_rpc::{KeyRing, ServerTls};
use headwater_telemetry::TelemetryConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cli::{ConfigArguments, Role};
use crate::output;

mod load;
mod secrets;
#[cfg(test)]
mod tests;

pub use load::{Override, load};
pub use secrets::{ClusterSecret, KeyPairs};

/// Where metrics and probes listen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Address and port, for operators only.
    pub listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) }
    }
}

/// A role's settings: their name, and the defaults that this binary adds to
/// those of the role's own crate.
pub trait Settings: DeserializeOwned + Serialize {
    /// The subcommand.
    const ROLE: &'static str;
    /// Settings and values.
    const DEFAULTS: &'static [(&'static str, &'static str)];
}

/// Of `headwater control-plane`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlPlaneSettings {
    /// API keys and their secrets.
    pub keys: KeyPairs,
    /// File with more of them, TOML or YAML.
    pub keys_file: Option<PathBuf>,
    /// The API key that signs tokens which the server makes. Absent means the
    /// first by name.
    pub signing_key: Option<String>,
    /// What the roles of the cluster know.
    pub cluster: ClusterSecret,
    /// Where rooms and nodes are registered.
    pub registry: RegistryConfig,
    /// Metrics and probes.
    pub admin: Admin,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
    /// The role itself.
    pub control_plane: headwater_control_plane::Config,
}

impl Settings for ControlPlaneSettings {
    const ROLE: &'static str = "control-plane";
    const DEFAULTS: &'static [(&'static str, &'static str)] =
        &[("control_plane.server.address", "0.0.0.0:7890"), ("admin.listen", "0.0.0.0:7891")];
}

/// Of `headwater gateway`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewaySettings {
    /// API keys and their secrets.
    pub keys: KeyPairs,
    /// File with more of them, TOML or YAML.
    pub keys_file: Option<PathBuf>,
    /// The API key that signs tokens which the server makes. Absent means the
    /// first by name.
    pub signing_key: Option<String>,
    /// What the roles of the cluster know.
    pub cluster: ClusterSecret,
    /// Metrics and probes.
    pub admin: Admin,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
    /// The role itself.
    pub gateway: headwater_gateway::Config,
}

impl Settings for GatewaySettings {
    const ROLE: &'static str = "gateway";
    const DEFAULTS: &'static [(&'static str, &'static str)] = &[
        ("gateway.listen", "0.0.0.0:7880"),
        ("gateway.control_plane_urls", "[http://127.0.0.1:7890]"),
        ("admin.listen", "0.0.0.0:7892"),
    ];
}

/// Of `headwater media-node`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MediaNodeSettings {
    /// What the roles of the cluster know.
    pub cluster: ClusterSecret,
    /// Where the node registers itself.
    pub registry: RegistryConfig,
    /// TLS of the node's gRPC services. Absent means plain TCP.
    pub tls: Option<ServerTls>,
    /// Metrics and probes.
    pub admin: Admin,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
    /// The role itself.
    pub media_node: headwater_media_node::Config,
}

impl Settings for MediaNodeSettings {
    const ROLE: &'static str = "media-node";
    const DEFAULTS: &'static [(&'static str, &'static str)] =
        &[("media_node.listen", "0.0.0.0:7900"), ("admin.listen", "0.0.0.0:7893")];
}

/// Of `headwater dev`. The cluster's secret is made anew at each start.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DevSettings {
    /// API keys and their secrets. Empty means `devkey` with `secret`.
    pub keys: KeyPairs,
    /// Where rooms and the node are registered.
    pub registry: RegistryConfig,
    /// Metrics and probes.
    pub admin: Admin,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
    /// The control plane.
    pub control_plane: headwater_control_plane::Config,
    /// The gateway. Its `control_plane_urls` are those of this process.
    pub gateway: headwater_gateway::Config,
    /// The media node.
    pub media_node: headwater_media_node::Config,
}

impl Settings for DevSettings {
    const ROLE: &'static str = "dev";
    const DEFAULTS: &'static [(&'static str, &'static str)] = &[
        ("registry.kind", "embedded"),
        ("admin.listen", "127.0.0.1:7891"),
        ("telemetry.log_format", "pretty"),
        ("control_plane.server.address", "127.0.0.1:7890"),
        ("gateway.listen", "127.0.0.1:7880"),
        ("gateway.dev", "true"),
        ("gateway.control_plane_urls", "[]"),
        ("media_node.node_id", "dev"),
        ("media_node.listen", "127.0.0.1:0"),
        ("media_node.tcp_port", "7881"),
        ("media_node.udp_port", "7882"),
        ("media_node.advertise_loopback", "true"),
    ];
}

/// The key ring of a role's file with settings, whichever role it is; its other
/// settings are not looked at.
///
/// # Errors
/// If the file cannot be read or holds no key that can be used.
pub fn key_pairs_of_file(path: &Path) -> anyhow::Result<KeyRing> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Keys {
        keys: KeyPairs,
        keys_file: Option<PathBuf>,
        signing_key: Option<String>,
    }
    let found: Keys = load::extract_file(path)?;
    found.keys.ring(found.keys_file.as_deref(), found.signing_key.as_deref())
}

/// Settings as TOML, without secrets.
///
/// # Errors
/// If they cannot be written as TOML.
pub fn show(settings: &impl Serialize) -> anyhow::Result<String> {
    toml::to_string(settings).context("the settings cannot be shown")
}

/// Settings in one line for the log, without secrets.
pub fn show_in_line(settings: &impl Serialize) -> String {
    serde_json::to_string(settings).unwrap_or_else(|error| error.to_string())
}

/// `headwater config`.
///
/// # Errors
/// If the settings cannot be used.
pub fn print(arguments: &ConfigArguments) -> anyhow::Result<()> {
    let (file, overrides) = (arguments.common.config.as_deref(), arguments.common.overrides());
    let shown = match arguments.role {
        Role::Dev => show(&load::<DevSettings>(file, overrides)?)?,
        Role::ControlPlane => show(&load::<ControlPlaneSettings>(file, overrides)?)?,
        Role::Gateway => show(&load::<GatewaySettings>(file, overrides)?)?,
        Role::MediaNode => show(&load::<MediaNodeSettings>(file, overrides)?)?,
    };
    output::say(shown.trim_end());
    Ok(())
}
