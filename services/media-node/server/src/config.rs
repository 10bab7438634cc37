//! The media node's configuration: one typed struct, unknown keys refused.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a media node needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Name of the node, unique in the cluster. Empty means the host's name.
    pub node_id: String,
    /// Failure domain. Empty means not told.
    pub zone: String,
    /// Region. Empty means not told.
    pub region: String,
    /// Where gateways and the control plane reach the node by gRPC.
    pub listen: SocketAddr,
    /// The URL they are told, such as `http://10.0.0.7:7900`. Empty means built
    /// from `listen`, or from the first advertised address if that is a wildcard.
    pub advertise_url: String,
    /// Address that media sockets bind to.
    pub media_ip: IpAddr,
    /// UDP port of shard 0; shard n takes the n-th port after it. 0 lets the
    /// system choose each.
    pub udp_port: u16,
    /// ICE-TCP port of shard 0; shard n takes the n-th port after it. 0 lets the
    /// system choose each.
    pub tcp_port: u16,
    /// Accept media over TCP from clients that cannot use UDP.
    pub tcp: bool,
    /// Addresses that clients are told to send media to. Empty means the address
    /// of the interface with the default route.
    pub advertise_ips: Vec<IpAddr>,
    /// Advertise 127.0.0.1 too, for clients on this machine.
    pub advertise_loopback: bool,
    /// Forwarding threads. 0 means one for each core.
    pub shards: u16,
    /// Bind each forwarding thread to a core.
    pub pin_threads: bool,
    /// Relay links to other nodes, by which a room is carried by several. Absent means
    /// that rooms stay within this node.
    pub relay: Option<RelayConfig>,
    /// Participants the node accepts at most. 0 means no limit of its own.
    pub participant_capacity: u32,
    /// Microphones of one room that are forwarded at once: the loudest. 0 means all.
    pub audible_microphones: u16,
    /// Seconds between stopping to accept and ending the sessions that are left.
    pub shutdown_grace_seconds: u64,
    /// How long the process, asked to stop, lets the control plane move its
    /// participants to other nodes, in seconds. It stops sooner when they are
    /// gone, when nobody moves for three seconds, or when no control plane is
    /// there. 0 means that it does not wait.
    pub drain_timeout_seconds: u64,
}

/// How a node takes relay links from other nodes and opens them: QUIC with mutual TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayConfig {
    /// UDP address to take links at.
    pub listen: SocketAddr,
    /// Where other nodes reach that. Absent means the port that was bound, at the first
    /// address that clients are told.
    #[serde(default)]
    pub advertise: Option<SocketAddr>,
    /// File with the certificates that sign those of nodes, in PEM.
    pub roots_file: PathBuf,
    /// File with this node's certificate and those between it and a root, in PEM.
    pub certificate_file: PathBuf,
    /// File with its key, in PEM.
    pub key_file: PathBuf,
    /// Name that every node's certificate has among its subject names.
    #[serde(default = "relay_server_name")]
    pub server_name: String,
}

fn relay_server_name() -> String {
    "headwater-media-node".to_owned()
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_id: String::new(),
            zone: String::new(),
            region: String::new(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7900)),
            advertise_url: String::new(),
            media_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            udp_port: 7882,
            tcp_port: 7881,
            tcp: true,
            advertise_ips: Vec::new(),
            advertise_loopback: false,
            shards: 1,
            pin_threads: false,
            relay: None,
            participant_capacity: 0,
            audible_microphones: 16,
            shutdown_grace_seconds: 5,
            drain_timeout_seconds: 20,
        }
    }
}

impl Config {
    /// How many forwarding threads there will be.
    #[must_use]
    pub fn shard_count(&self) -> u16 {
        if self.shards > 0 {
            return self.shards;
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        u16::try_from(cores).unwrap_or(u16::MAX)
    }

    /// The port of a shard, given that of shard 0.
    ///
    /// # Errors
    /// If there are more shards than ports after the first.
    pub fn port_of_shard(first: u16, shard: u16) -> Result<u16, PortsExhausted> {
        if first == 0 {
            return Ok(0);
        }
        first.checked_add(shard).ok_or(PortsExhausted { first, shard })
    }
}

/// There is no port left for a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no port for shard {shard}: the first port is {first}")]
pub struct PortsExhausted {
    /// Port of shard 0.
    pub first: u16,
    /// The shard.
    pub shard: u16,
}
