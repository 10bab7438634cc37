//! What is broken, how, and what may come of it.

use std::time::Duration;

use anyhow::{Context, Result};
use headwater_testkit::process::signal;

use super::stage::Stage;
use crate::cluster::{Cluster, ETCD, Role};
use crate::network::{End, Network};

/// One way to break a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Name on the command line.
    pub id: &'static str,
    /// What happens, for people.
    pub title: &'static str,
    /// How.
    pub what: What,
    /// Where.
    pub stage: Stage,
    /// Longest silence aimed at for people in rooms that it touches, in ms.
    pub hit_target: u64,
    /// The same for those of them whose own node and way are whole: they only hear
    /// others who come from what broke.
    pub listeners_target: u64,
    /// The same for everybody else.
    pub others_target: u64,
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
    /// A media node that only passes a room on ends at once.
    RelayKilled,
    /// The home of rooms whose people are on other nodes ends at once.
    EmptyHomeKilled,
    /// The same node stands still for 20 s.
    EmptyHomeFrozen,
    /// Two media nodes do not reach each other for 10 s.
    Partition,
    /// One media node does not reach another one for 10 s, which reaches it.
    OneWayCut,
    /// A media node reaches neither etcd nor a control plane for 8 s, less than its
    /// lease.
    CutOffShortly,
    /// The same for 30 s, so that it loses its lease.
    CutOff,
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

/// Children of a lost relay find another way by themselves.
const RELAY_LOST: u64 = 500;

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
    Fault {
        stage: Stage::Deep,
        listeners_target: RELAY_LOST,
        ..fault("relay-killed", "relay between two nodes, kill -9", What::RelayKilled, 2_000)
    },
    headless("home-killed", "home without people, kill -9", What::EmptyHomeKilled),
    headless("home-frozen", "home without people, SIGSTOP", What::EmptyHomeFrozen),
    // Without a way around, silence lasts as long as the cut; 3 s more are to heal it.
    apart("partition", "partition of two nodes, 10 s", What::Partition, 13_000),
    apart("one-way-cut", "one-way cut between two nodes, 10 s", What::OneWayCut, 13_000),
    apart(
        "cut-off-shortly",
        "node without control plane and etcd, 8 s",
        What::CutOffShortly,
        UNTOUCHED,
    ),
    apart("cut-off", "node without control plane and etcd, 30 s", What::CutOff, 2_000),
];

const fn spanning(id: &'static str, title: &'static str, what: What) -> Fault {
    Fault { stage: Stage::Spanning, ..fault(id, title, what, 2_000) }
}

const fn headless(id: &'static str, title: &'static str, what: What) -> Fault {
    let listeners_target = RELAY_LOST;
    Fault { stage: Stage::Headless, listeners_target, ..fault(id, title, what, 2_000) }
}

const fn apart(id: &'static str, title: &'static str, what: What, target: u64) -> Fault {
    Fault { stage: Stage::Apart, listeners_target: target, ..fault(id, title, what, target) }
}

const fn fault(id: &'static str, title: &'static str, what: What, hit_target: u64) -> Fault {
    Fault {
        id,
        title,
        what,
        stage: Stage::Plain,
        hit_target,
        listeners_target: 2_000,
        others_target: UNTOUCHED,
    }
}

/// What was broken, to be mended.
pub(super) enum Broken {
    Node(usize),
    FrozenNode(u32),
    Gateway(usize),
    ControlPlane(usize),
    EtcdMembers(Vec<usize>),
    FrozenEtcdMember(usize),
    /// Ways that are cut: from a place to an end.
    Ways(Vec<(u8, End)>),
}

impl What {
    /// Whether rooms are on what is broken.
    #[must_use]
    pub fn is_of_a_node(self) -> bool {
        !matches!(
            self,
            Self::GatewayKilled
                | Self::ControlPlaneKilled
                | Self::EtcdLeaderKilled
                | Self::EtcdMemberFrozen
                | Self::EtcdQuorumLost
        )
    }

    /// Whether it is of a node in a certain place of a room's plan.
    pub(super) fn needs_a_place(self) -> bool {
        matches!(self, Self::Partition | Self::OneWayCut | Self::RelayKilled) || self.is_replanned()
    }

    /// Whether it is mended before all can be well.
    pub(super) fn is_cut(self) -> bool {
        matches!(self, Self::Partition | Self::OneWayCut | Self::CutOffShortly | Self::CutOff)
    }

    /// Whether the node is out of every plan before it is there again.
    pub(super) fn is_replanned(self) -> bool {
        matches!(self, Self::EmptyHomeKilled | Self::EmptyHomeFrozen)
    }

    /// How long it stays broken at least.
    pub(super) fn lasts(self) -> Duration {
        Duration::from_secs(match self {
            Self::EtcdQuorumLost => 60,
            Self::CutOff => 30,
            Self::NodeFrozen | Self::EmptyHomeFrozen | Self::EtcdMemberFrozen => 20,
            Self::Partition | Self::OneWayCut => 10,
            Self::CutOffShortly => 8,
            _ => 6,
        })
    }

    /// Breaks it; `node` is the media node to break, if it is to be one, and `peer`
    /// the other one of what is broken between two.
    pub(super) fn strike(self, cluster: &mut Cluster, node: &str, peer: &str) -> Result<Broken> {
        let place = place_of(cluster, node)?;
        Ok(match self {
            Self::NodeKilled | Self::RelayKilled | Self::EmptyHomeKilled => {
                cluster.media_nodes[place].kill()?;
                Broken::Node(place)
            }
            Self::NodeFrozen | Self::EmptyHomeFrozen => {
                let pid = cluster.media_nodes[place].process().pid();
                signal(pid, "STOP")?;
                Broken::FrozenNode(pid)
            }
            Self::NodeStopped => {
                signal(cluster.media_nodes[place].process().pid(), "TERM")?;
                Broken::Node(place)
            }
            Self::Partition | Self::OneWayCut => {
                let (one, other) = (u8::try_from(place)?, u8::try_from(place_of(cluster, peer)?)?);
                let mut ways = vec![(one, End::Place(other))];
                if self == Self::Partition {
                    ways.push((other, End::Place(one)));
                }
                cut(cluster, ways)?
            }
            Self::CutOffShortly | Self::CutOff => {
                let one = u8::try_from(place)?;
                let first = u8::try_from(cluster.media_nodes.len())?;
                let planes = u8::try_from(cluster.control_planes.len())?;
                let mut ways = vec![(one, ETCD)];
                for plane in first..first + planes {
                    ways.extend([(one, End::Place(plane)), (plane, End::Place(one))]);
                }
                cut(cluster, ways)?
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

fn place_of(cluster: &Cluster, node: &str) -> Result<usize> {
    let place = cluster.media_nodes.iter().position(|role| role.node_id() == node);
    place.context("there is no such node")
}

fn network(cluster: &Cluster) -> Result<&Network> {
    cluster.network.as_ref().context("the cluster has no network to cut")
}

fn cut(cluster: &Cluster, ways: Vec<(u8, End)>) -> Result<Broken> {
    let network = network(cluster)?;
    ways.iter().try_for_each(|(from, to)| network.cut(*from, *to))?;
    Ok(Broken::Ways(ways))
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
            Self::Ways(ways) => {
                let network = network(cluster)?;
                ways.iter().try_for_each(|(from, to)| network.mend(*from, *to))
            }
        }
    }
}

fn again(role: &mut Role) -> Result<()> {
    role.wait_end(Duration::from_secs(40))?;
    role.restart()
}
