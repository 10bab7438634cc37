//! Where faults are played: a cluster of three nodes and who is in which room.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{PREFIX, ROOMS};
use crate::api::{Planned, plan_of};
use crate::audience::Audience;
use crate::cluster::{Cluster, Options, wait};
use crate::network;

/// Media nodes of every stage.
pub(super) const NODES: usize = 3;

/// A kind of cluster with its audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Each room is on one node.
    Plain,
    /// The two of each room are on different nodes, with a relay link between.
    Spanning,
    /// The same, and every node and control plane is on a network that can be cut.
    Apart,
    /// Each room is on three nodes one after another: the home, with one of the two,
    /// then a relay with nobody, then a leaf with the other.
    Deep,
    /// Each room is on three nodes: a home with nobody, and two with one each.
    Headless,
}

/// After the first has come and was reported, its room is planned on another shard,
/// too, and links are up: nodes report once a second, plans are 2 s apart.
const SPANNING_PAUSE: Duration = Duration::from_secs(5);
/// Rooms are planned on as many nodes as they need within this.
const PLANNED_LIMIT: Duration = Duration::from_secs(30);

impl Stage {
    /// Why it cannot be set up on this machine, if it cannot.
    #[must_use]
    pub fn obstacle(self) -> Option<&'static str> {
        match self {
            Self::Apart => network::obstacle(),
            Self::Plain | Self::Spanning | Self::Deep | Self::Headless => None,
        }
    }

    /// Whether rooms are on several nodes.
    #[must_use]
    pub fn is_spanning(self) -> bool {
        self != Self::Plain
    }

    /// Whether a fault leaves it different from what it was.
    #[must_use]
    pub fn is_used_up(self) -> bool {
        matches!(self, Self::Deep | Self::Headless)
    }

    /// Starts everything and lets the audience in.
    pub(super) fn start(self) -> Result<(Cluster, Audience)> {
        let plain = Options { media_nodes: NODES, ..Options::default() };
        let spanning = Options { shard_participants: Some(1), ..plain.clone() };
        let options = match self {
            Self::Plain => plain,
            Self::Spanning | Self::Headless => spanning,
            Self::Apart => Options { apart: true, ..spanning },
            Self::Deep => Options { zones: vec!["home", "away", "away"], ..spanning },
        };
        let cluster = Cluster::start(&options)?;
        let target = &cluster.target;
        let audience = match self {
            Self::Plain => Audience::join(target, ROOMS, PREFIX)?,
            Self::Spanning | Self::Apart => {
                Audience::join_apart(target, ROOMS, PREFIX, SPANNING_PAUSE)?
            }
            Self::Deep => {
                Audience::join_with(target, ROOMS, PREFIX, SPANNING_PAUSE, "ada,via,bob")?
            }
            Self::Headless => {
                Audience::join_with(target, ROOMS, PREFIX, SPANNING_PAUSE, "via,ada,bob")?
            }
        };
        let (levels, nodes) = match self {
            Self::Plain => (1, 1),
            Self::Spanning | Self::Apart => (2, 2),
            Self::Deep => (3, 3),
            Self::Headless => (2, 3),
        };
        for room in 0..ROOMS {
            wait("a room is planned as the stage wants it", PLANNED_LIMIT, || {
                let plan = plan_of(&cluster, &format!("{PREFIX}-{room}")).unwrap_or_default();
                let on: BTreeSet<&String> = plan.iter().map(|planned| &planned.node).collect();
                (depth(&plan) >= levels && on.len() >= nodes, format!("{plan:?}"))
            })?;
        }
        ensure!(cluster.complaints().is_empty(), "{:?}", cluster.complaints());
        Ok((cluster, audience))
    }
}

/// Shards one after another from the home to the farthest one.
fn depth(plan: &[Planned]) -> usize {
    let far = |at: usize| {
        let up = |at: &usize| plan.get(*at).and_then(|planned| planned.parent);
        std::iter::successors(Some(at), up).take(plan.len()).count()
    };
    (0..plan.len()).map(far).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_as_deep_as_its_longest_way() {
        let plan = |parents: &[Option<usize>]| -> Vec<Planned> {
            let planned = |parent: &Option<usize>| Planned {
                node: "node".to_owned(),
                shard: 0,
                parent: *parent,
            };
            parents.iter().map(planned).collect()
        };
        assert_eq!(depth(&plan(&[])), 0);
        assert_eq!(depth(&plan(&[None])), 1);
        assert_eq!(depth(&plan(&[None, Some(0), Some(0)])), 2);
        assert_eq!(depth(&plan(&[None, Some(0), Some(1)])), 3);
    }
}
