//! What relay links tell of other nodes: this node is a witness of their life and of
//! their end, and says so in its reports.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use headwater_model::NodeId;
use headwater_relay::End;
use tokio::sync::watch;

/// How long a lost node is reported, unless it comes back sooner: what the control
/// plane takes from a node's death to a new plan, and some more.
const REPORTED_FOR: Duration = Duration::from_secs(15);
/// A link that was up so lately speaks for its node: shards are asked for each report.
const LINKED_FOR: Duration = Duration::from_secs(2);
/// Nodes of a kind that are reported at once; further ones are not.
pub const NODES_MAX: usize = 64;

/// What the links of all shards tell of other nodes. Touched when a link goes up or
/// ends and once for each report, never for a packet.
#[derive(Debug, Default)]
pub struct Neighbours {
    lost: Mutex<BTreeMap<NodeId, Instant>>,
    linked: Mutex<BTreeMap<NodeId, Instant>>,
    losses: watch::Sender<u64>,
}

impl Neighbours {
    /// A link to a node ended. Only silence and a broken carrier say that the node
    /// may be gone; all else was said by one end.
    pub fn note_end(&self, now: Instant, node: &NodeId, end: End) {
        match end {
            End::Silent | End::Broken => {}
            End::Refused(_) | End::Closed(_) | End::Stuck => return,
        }
        let mut lost = self.lost();
        if lost.len() >= NODES_MAX && !lost.contains_key(node) {
            return;
        }
        let known = lost.insert(node.clone(), now).is_some();
        drop(lost);
        if !known {
            self.losses.send_modify(|losses| *losses = losses.wrapping_add(1));
        }
    }

    /// A link to a node is up.
    pub fn note_up(&self, node: &NodeId) {
        self.lost().remove(node);
    }

    /// Links to these nodes are up.
    pub fn note_links(&self, now: Instant, nodes: BTreeSet<NodeId>) {
        let mut linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
        linked.retain(|_, at| now.saturating_duration_since(*at) < LINKED_FOR);
        for node in nodes {
            if linked.len() < NODES_MAX || linked.contains_key(&node) {
                linked.insert(node, now);
            }
        }
    }

    /// The nodes to which links are up and none was lost lately, in order of their names.
    pub fn linked_by(&self, now: Instant) -> Vec<NodeId> {
        let lost = self.lost_by(now);
        let linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = linked.iter().filter(|(node, at)| {
            now.saturating_duration_since(**at) < LINKED_FOR && !lost.contains(node)
        });
        fresh.map(|(node, _)| node.clone()).collect()
    }

    /// The nodes that were lost lately, in order of their names.
    pub fn lost_by(&self, now: Instant) -> Vec<NodeId> {
        let mut lost = self.lost();
        lost.retain(|_, at| now.saturating_duration_since(*at) < REPORTED_FOR);
        lost.keys().cloned().collect()
    }

    /// Changes when a node is lost that was not before.
    pub fn losses(&self) -> watch::Receiver<u64> {
        self.losses.subscribe()
    }

    // Nothing that runs under the lock can leave the map half changed.
    fn lost(&self) -> MutexGuard<'_, BTreeMap<NodeId, Instant>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use headwater_relay::Refusal;

    use super::*;

    #[test]
    fn only_silence_makes_a_lost_node_and_a_link_or_time_unmakes_it() {
        let (neighbours, now) = (Neighbours::default(), Instant::now());
        let [one, other] = ["a", "b"].map(|name| NodeId::new(name).unwrap());
        let losses = neighbours.losses();
        neighbours.note_end(now, &one, End::Closed(Refusal::NotInPlan));
        neighbours.note_end(now, &one, End::Refused(Refusal::NotInPlan));
        assert!(neighbours.lost_by(now).is_empty());
        assert!(!losses.has_changed().unwrap());
        neighbours.note_end(now, &one, End::Silent);
        neighbours.note_end(now, &other, End::Broken);
        assert!(losses.has_changed().unwrap());
        assert_eq!(neighbours.lost_by(now), [one.clone(), other.clone()]);
        neighbours.note_up(&one);
        assert_eq!(neighbours.lost_by(now), [other]);
        assert!(neighbours.lost_by(now + REPORTED_FOR).is_empty());
    }

    #[test]
    fn a_link_speaks_for_its_node_until_one_is_lost_or_time_passes() {
        let (neighbours, now) = (Neighbours::default(), Instant::now());
        let node = NodeId::new("a").unwrap();
        neighbours.note_links(now, BTreeSet::from([node.clone()]));
        assert_eq!(neighbours.linked_by(now), std::slice::from_ref(&node));
        assert!(neighbours.linked_by(now + LINKED_FOR).is_empty());
        neighbours.note_end(now, &node, End::Silent);
        assert!(neighbours.linked_by(now).is_empty());
    }
}
