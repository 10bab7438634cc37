//! Where control planes sent people, as they log it with
//! `headwater_control_plane::placer=debug`.

use crate::cluster::Cluster;

/// What control planes are to log so that placements can be read.
pub const LOG_FILTER: &str = "info,headwater_control_plane::placer=debug";

/// One participant's place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placement {
    /// The room.
    pub room: String,
    /// The node.
    pub node: String,
    /// Its shard.
    pub shard: String,
}

/// All placements so far, each control plane's in order.
#[must_use]
pub fn placements(cluster: &Cluster) -> Vec<Placement> {
    let read = |line: &str| {
        let field = |name: &str| {
            let from = line.find(&format!("\"{name}\":\""))? + name.len() + 4;
            line[from..].split('"').next().map(str::to_owned)
        };
        Some(Placement { room: field("room")?, node: field("node")?, shard: field("shard")? })
    };
    let logs = cluster.control_planes.iter().map(|role| role.process().log());
    logs.flat_map(|log| {
        let lines = log.lines().filter(|line| line.contains("participant placed"));
        lines.filter_map(read).collect::<Vec<_>>()
    })
    .collect()
}
