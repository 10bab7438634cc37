//! What is broken, how, and what may come of it.

use std::time::Duration;

use anyhow::{Context, Result};
use headwater_testkit::process::signal;

use crate::cluster::{Cluster, Role};

/// One way to break a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Name on the command line.
    pub id: &'static str,
    /// What happens, for people.
    pub title: &'static str,
    /// How.
    pub what: What,
    /// Longest silence aimed at for people in rooms that it touches, in ms.
    pub hit_target: u64,
    /// The same for everybody else.
    pub others_target: u64,
    /// The two of each room are on different nodes.
    pub spanning: bool,
}

/// How something is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A media node ends at once (SIGKILL).
    NodeKilled,
    /// A media node stands still (SIGSTOP) for 20 s.
    NodeFrozen,
    /// A media node is asked to stop (SIGTERM).
    NodeStopped,
    /// A gateway ends at once.
    GatewayKilled,
    /// A control plane ends at once.
    ControlPlaneKilled,
    /// The leader of etcd ends at once.
    EtcdLeaderKilled,
    /// One member of etcd stands still for 20 s.
    EtcdMemberFrozen,
    /// Two of three members of etcd are gone for 60 s.
    EtcdQuorumLost,
}

/// Media that does not pass through what broke is not touched: what remains is the
/// time between two packets, and the machine's own noise.
const UNTOUCHED: u64 = 200;

/// All of them.
pub const FAULTS: &[Fault] = &[
    fault("node-killed", "media node, kill -9", What::NodeKilled, 2_000),
    fault("node-frozen", "media node, SIGSTOP", What::NodeFrozen, 2_000),
    fault("node-stopped", "media node, SIGTERM", What::NodeStopped, 1_000),
    fault("gateway-killed", "gateway, kill -9", What::GatewayKilled, UNTOUCHED),
    fault("control-plane-killed", "control plane, kill -9", What::ControlPlaneKilled, UNTOUCHED),
    fault("etcd-leader-killed", "etcd leader, kill -9", What::EtcdLeaderKilled, UNTOUCHED),
    fault("etcd-member-frozen", "etcd member, SIGSTOP", What::EtcdMemberFrozen, UNTOUCHED),
    fault("etcd-quorum-lost", "etcd quorum lost for 60 s", What::EtcdQuorumLost, UNTOUCHED),
    spanning("spanning-killed", "node of rooms on two nodes, kill -9", What::NodeKilled),
    spanning("spanning-frozen", "node of rooms on two nodes, SIGSTOP", What::NodeFrozen),
];

const fn spanning(id: &'static str, title: &'static str, what: What) -> Fault {
    Fault { spanning: true, ..fault(id, title, what, 2_000) }
}

const fn fault(id: &'static str, title: &'static str, what: What, hit_target: u64) -> Fault {
    Fault { id, title, what, hit_target, others_target: UNTOUCHED, spanning: false }
}

/// What was broken, to be mended.
pub(super) enum Broken {
    Node(usize),
    FrozenNode(u32),
    Gateway(usize),
    ControlPlane(usize),
    EtcdMembers(Vec<usize>),
    FrozenEtcdMember(usize),
}

impl What {
    /// Whether rooms are on what is broken.
    #[must_use]
    pub fn is_of_a_node(self) -> bool {
        matches!(self, Self::NodeKilled | Self::NodeFrozen | Self::NodeStopped)
    }

    /// How long it stays broken at least.
    pub(super) fn lasts(self) -> Duration {
        Duration::from_secs(match self {
            Self::EtcdQuorumLost => 60,
            Self::NodeFrozen | Self::EtcdMemberFrozen => 20,
            _ => 6,
        })
    }

    /// Breaks it; `node` is the media node to break, if it is to be one.
    pub(super) fn strike(self, cluster: &mut Cluster, node: &str) -> Result<Broken> {
        let place = cluster.media_nodes.iter().position(|role| role.node_id() == node);
        let place = place.context("there is no such node")?;
        Ok(match self {
            Self::NodeKilled => {
                cluster.media_nodes[place].kill()?;
                Broken::Node(place)
            }
            Self::NodeFrozen => {
                let pid = cluster.media_nodes[place].process().pid();
                signal(pid, "STOP")?;
                Broken::FrozenNode(pid)
            }
            Self::NodeStopped => {
                signal(cluster.media_nodes[place].process().pid(), "TERM")?;
                Broken::Node(place)
            }
            Self::GatewayKilled => {
                cluster.gateways[0].kill()?;
                Broken::Gateway(0)
            }
            Self::ControlPlaneKilled => {
                cluster.control_planes[0].kill()?;
                Broken::ControlPlane(0)
            }
            Self::EtcdLeaderKilled => Broken::EtcdMembers(vec![cluster.etcd.kill_leader()?]),
            Self::EtcdMemberFrozen => {
                let leader = cluster.etcd.leader()?;
                let member = (leader + 1) % 3;
                cluster.etcd.pause(member)?;
                Broken::FrozenEtcdMember(member)
            }
            Self::EtcdQuorumLost => {
                let leader = cluster.etcd.kill_leader()?;
                let other = (leader + 1) % 3;
                cluster.etcd.kill(other)?;
                Broken::EtcdMembers(vec![leader, other])
            }
        })
    }
}

impl Broken {
    pub(super) fn mend(self, cluster: &mut Cluster) -> Result<()> {
        match self {
            // One that was asked to stop may still be about it.
            Self::Node(place) => again(&mut cluster.media_nodes[place]),
            Self::FrozenNode(pid) => signal(pid, "CONT"),
            Self::Gateway(place) => again(&mut cluster.gateways[place]),
            Self::ControlPlane(place) => again(&mut cluster.control_planes[place]),
            Self::EtcdMembers(members) => {
                members.into_iter().try_for_each(|member| cluster.etcd.restart(member))
            }
            Self::FrozenEtcdMember(member) => cluster.etcd.resume(member),
        }
    }
}

fn again(role: &mut Role) -> Result<()> {
    role.wait_end(Duration::from_secs(40))?;
    role.restart()
}
