//! The command line: what can be asked for, and the help that explains it.
//! Flags become settings; nothing is decided here.

mod cluster;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use cluster::{
    ApiArguments, KeyArguments, NodeArguments, NodeCommand, RoomArguments, RoomCommand,
};

use crate::settings::Override;

const EXAMPLES: &str = "\
Examples:
  Everything in one process, with a page to open:
    headwater dev

  The roles apart, on an etcd:
    export HEADWATER_CLUSTER__SECRET=$(openssl rand -hex 32)
    headwater media-node    --etcd http://127.0.0.1:2379 --node-id node-1
    export HEADWATER_KEYS__mykey=$(openssl rand -hex 32)   # not for media nodes
    headwater control-plane --etcd http://127.0.0.1:2379
    headwater gateway       --control-plane http://127.0.0.1:7890

  A link by which somebody joins a room of `headwater dev`:
    headwater token --dev --room lobby --identity ada --url http://localhost:7880

  Take a node out, and wait until everybody was moved:
    headwater node --config control-plane.toml drain node-1 --timeout 2m --wait

  What a role would run with:
    headwater config media-node --config node.toml

Settings come from, each going before the one above it:
  built-in defaults, the file of --config (TOML or YAML), the environment
  (HEADWATER_GATEWAY__LISTEN is the setting gateway.listen), flags.";

/// Distributed live rooms: a gRPC control plane, media nodes, gateways.
#[derive(Debug, Parser)]
#[command(name = "headwater", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in one process, for development.
    Dev(Box<DevArguments>),
    /// Run the control plane: the gRPC API, and the placement of rooms.
    ControlPlane(ControlPlaneArguments),
    /// Run a gateway: where clients connect their signalling.
    Gateway(GatewayArguments),
    /// Run a media node: forwards the media of rooms.
    MediaNode(MediaNodeArguments),
    /// Mint a token to join a room or to call the API.
    Token(TokenArguments),
    /// List media nodes, cordon and drain them.
    Node(NodeArguments),
    /// Ask where a room is, why, and what it would take.
    Room(RoomArguments),
    /// Print the settings that a role would run with, without secrets.
    Config(ConfigArguments),
}

/// Flags of every role.
#[derive(Debug, Clone, Default, Args)]
pub struct CommonArguments {
    /// File with settings, TOML or YAML.
    #[arg(long, value_name = "FILE", env = "HEADWATER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Set any setting, as in `--set gateway.limits.sessions_max=100`. Can be repeated.
    #[arg(long = "set", value_name = "SETTING=VALUE", value_parser = assignment)]
    pub assignments: Vec<(String, String)>,
    /// Which logs to write, as in `info` or `info,headwater_gateway=debug`.
    #[arg(long, value_name = "FILTER")]
    pub log_filter: Option<String>,
    /// Form of the logs.
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Form of the logs.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

impl CommonArguments {
    /// The settings that these flags stand for.
    pub fn overrides(&self) -> Vec<Override> {
        let mut overrides = Overrides::default();
        overrides.add("--log-filter", "telemetry.log_filter", self.log_filter.as_ref());
        let format = self.log_format.map(|format| match format {
            LogFormat::Json => "json",
            LogFormat::Pretty => "pretty",
        });
        overrides.add("--log-format", "telemetry.log_format", format);
        for (setting, value) in &self.assignments {
            overrides.0.push(Override::new("--set", setting, value));
        }
        overrides.0
    }
}

/// Flags of `dev`.
#[derive(Debug, Clone, Args)]
pub struct DevArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    /// Address that the page, signalling and the API listen on. [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    pub bind: Option<IpAddr>,
    /// Port of the page and of signalling. [default: 7880]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Port of media over TCP. [default: 7881]
    #[arg(long, value_name = "PORT")]
    pub tcp_port: Option<u16>,
    /// Port of media over UDP. [default: 7882]
    #[arg(long, value_name = "PORT")]
    pub udp_port: Option<u16>,
    /// Port of the gRPC API. [default: 7890]
    #[arg(long, value_name = "PORT")]
    pub api_port: Option<u16>,
    /// Port of metrics and probes. [default: 7891]
    #[arg(long, value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// Address that clients are told to send media to, besides 127.0.0.1. Can be
    /// repeated. [default: that of the interface with the default route]
    #[arg(long = "advertise-ip", value_name = "IP")]
    pub advertise_ips: Vec<IpAddr>,
    /// Threads that forward media.
    #[arg(long, value_name = "COUNT")]
    pub shards: Option<u16>,
    /// Folder of the built page.
    #[arg(long, value_name = "FOLDER")]
    pub web_root: Option<PathBuf>,
    /// Keep the rooms in this folder; else they are gone at the end.
    #[arg(long, value_name = "FOLDER", conflicts_with = "memory")]
    pub data_dir: Option<PathBuf>,
    /// Keep the rooms in memory instead of in a temporary file.
    #[arg(long)]
    pub memory: bool,
    /// Room of the join link.
    #[arg(long, value_name = "ROOM", default_value = "lobby")]
    pub room: String,
}

/// Flags of `control-plane`.
#[derive(Debug, Clone, Default, Args)]
pub struct ControlPlaneArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    /// Where the gRPC API listens. [default: 0.0.0.0:7890]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Where metrics and probes listen. [default: 0.0.0.0:7891]
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Option<String>,
    /// URL of an etcd member. Can be repeated. [default: http://127.0.0.1:2379]
    #[arg(long = "etcd", value_name = "URL")]
    pub etcd: Vec<String>,
}

impl ControlPlaneArguments {
    /// The settings that these flags stand for.
    pub fn overrides(&self) -> Vec<Override> {
        let mut overrides = Overrides::default();
        overrides.add("--listen", "control_plane.server.address", self.listen.as_ref());
        overrides.add("--admin-listen", "admin.listen", self.admin_listen.as_ref());
        overrides.etcd(&self.etcd);
        overrides.and(self.common.overrides())
    }
}

/// Flags of `gateway`.
#[derive(Debug, Clone, Default, Args)]
pub struct GatewayArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    /// Where clients connect. [default: 0.0.0.0:7880]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Where metrics and probes listen. [default: 0.0.0.0:7892]
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Option<String>,
    /// URL of a control plane. Can be repeated. [default: http://127.0.0.1:7890]
    #[arg(long = "control-plane", value_name = "URL")]
    pub control_planes: Vec<String>,
    /// Folder of the built page. Without it no page is served.
    #[arg(long, value_name = "FOLDER")]
    pub web_root: Option<PathBuf>,
}

impl GatewayArguments {
    /// The settings that these flags stand for.
    pub fn overrides(&self) -> Vec<Override> {
        let mut overrides = Overrides::default();
        overrides.add("--listen", "gateway.listen", self.listen.as_ref());
        overrides.add("--admin-listen", "admin.listen", self.admin_listen.as_ref());
        overrides.list("--control-plane", "gateway.control_plane_urls", &self.control_planes);
        let web_root = self.web_root.as_ref().map(|path| path.display());
        overrides.add("--web-root", "gateway.web_root", web_root);
        overrides.and(self.common.overrides())
    }
}

/// Flags of `media-node`.
#[derive(Debug, Clone, Default, Args)]
pub struct MediaNodeArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    /// Name of the node, unique in the cluster. [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub node_id: Option<String>,
    /// Where gateways and control planes connect by gRPC. [default: 0.0.0.0:7900]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Where metrics and probes listen. [default: 0.0.0.0:7893]
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Option<String>,
    /// URL of an etcd member. Can be repeated. [default: http://127.0.0.1:2379]
    #[arg(long = "etcd", value_name = "URL")]
    pub etcd: Vec<String>,
    /// First UDP port of media; each shard takes the next one. [default: 7882]
    #[arg(long, value_name = "PORT")]
    pub udp_port: Option<u16>,
    /// First TCP port of media; each shard takes the next one. [default: 7881]
    #[arg(long, value_name = "PORT")]
    pub tcp_port: Option<u16>,
    /// Address that clients are told to send media to. Can be repeated.
    /// [default: that of the interface with the default route]
    #[arg(long = "advertise-ip", value_name = "IP")]
    pub advertise_ips: Vec<IpAddr>,
    /// Threads that forward media; 0 means one for each core.
    #[arg(long, value_name = "COUNT")]
    pub shards: Option<u16>,
}

impl MediaNodeArguments {
    /// The settings that these flags stand for.
    pub fn overrides(&self) -> Vec<Override> {
        let mut overrides = Overrides::default();
        overrides.add("--node-id", "media_node.node_id", self.node_id.as_ref());
        overrides.add("--listen", "media_node.listen", self.listen.as_ref());
        overrides.add("--admin-listen", "admin.listen", self.admin_listen.as_ref());
        overrides.etcd(&self.etcd);
        overrides.add("--udp-port", "media_node.udp_port", self.udp_port);
        overrides.add("--tcp-port", "media_node.tcp_port", self.tcp_port);
        overrides.list("--advertise-ip", "media_node.advertise_ips", &self.advertise_ips);
        overrides.add("--shards", "media_node.shards", self.shards);
        overrides.and(self.common.overrides())
    }
}

/// Flags of `token`.
#[derive(Debug, Clone, Args)]
pub struct TokenArguments {
    #[command(flatten)]
    pub keys: KeyArguments,
    /// Room to join or, with --admin, to administer.
    #[arg(long, value_name = "ROOM")]
    pub room: Option<String>,
    /// Who will join: unique in the room. Needed to join.
    #[arg(long, value_name = "IDENTITY")]
    pub identity: Option<String>,
    /// Name to show to others.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub name: String,
    /// Text handed to everybody in the room.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub metadata: String,
    /// How long the token is good, as in 90s, 15m, 6h or 7d.
    #[arg(long, value_name = "TIME", default_value = "6h", value_parser = time)]
    pub ttl: Duration,
    /// May administer the room by the API.
    #[arg(long, requires = "room")]
    pub admin: bool,
    /// May create, change and delete rooms by the API.
    #[arg(long)]
    pub create: bool,
    /// May list rooms and nodes by the API.
    #[arg(long)]
    pub list: bool,
    /// May only watch and listen.
    #[arg(long)]
    pub no_publish: bool,
    /// Others in the room are not told.
    #[arg(long)]
    pub hidden: bool,
    /// Print a link to join too, at this gateway, as in http://localhost:7880.
    #[arg(long, value_name = "URL", requires_all = ["room", "identity"])]
    pub url: Option<String>,
}

/// Flags of `config`.
#[derive(Debug, Clone, Args)]
pub struct ConfigArguments {
    /// Which role.
    pub role: Role,
    #[command(flatten)]
    pub common: CommonArguments,
}

/// A role, for `config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Everything in one process.
    Dev,
    /// The control plane.
    ControlPlane,
    /// A gateway.
    Gateway,
    /// A media node.
    MediaNode,
}

/// Collects the settings that flags stand for.
#[derive(Debug, Default)]
pub struct Overrides(Vec<Override>);

impl Overrides {
    /// A flag that was given, and its setting.
    pub fn add(&mut self, flag: &str, setting: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.0.push(Override::new(flag, setting, &value.to_string()));
        }
    }

    /// A flag that can be repeated; it replaces the whole list.
    pub fn list(&mut self, flag: &str, setting: &str, values: &[impl ToString]) {
        if !values.is_empty() {
            let values = values.iter().map(ToString::to_string).collect();
            self.0.push(Override::list(flag, setting, values));
        }
    }

    fn etcd(&mut self, urls: &[String]) {
        if !urls.is_empty() {
            self.add("--etcd", "registry.kind", Some("etcd"));
        }
        self.list("--etcd", "registry.etcd.endpoints", urls);
    }

    /// Those, and further ones that go before them.
    pub fn and(mut self, further: Vec<Override>) -> Vec<Override> {
        self.0.extend(further);
        self.0
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (setting, value) = text.split_once('=').ok_or("must be of the form SETTING=VALUE")?;
    if setting.is_empty() {
        return Err("names no setting".to_owned());
    }
    Ok((setting.to_owned(), value.to_owned()))
}

fn time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err("must be a number with s, m, h or d".to_owned()),
    };
    let amount: u64 = digits.parse().map_err(|_| "must be a number with s, m, h or d")?;
    match amount.checked_mul(unit) {
        Some(0) => Err("must not be nothing".to_owned()),
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Err("is too long".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        assert_eq!(time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(time("90"), Ok(Duration::from_secs(90)));
        assert_eq!(time("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(time("7d"), Ok(Duration::from_secs(604_800)));
        for bad in
            ["", "h", "1w", "-1s", "1.5h", "0s", "99999999999999999999s", "18446744073709551615d"]
        {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
