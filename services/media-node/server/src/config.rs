//! The media node's configuration: one typed struct, unknown keys refused.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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
    /// Participants the node accepts at most. 0 means no limit of its own.
    pub participant_capacity: u32,
    /// Seconds between stopping to accept and ending the sessions that are left.
    pub shutdown_grace_seconds: u64,
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
            participant_capacity: 0,
            shutdown_grace_seconds: 5,
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
