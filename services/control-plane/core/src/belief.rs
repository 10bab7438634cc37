//! When a node is believed to be gone although its lease still lives: a lease runs
//! for ten seconds, and its rooms should not wait that long. No single word is
//! enough. A node is given up if all of this holds:
//!
//! 1. **A witness.** Another node says that its relay links to it went silent, or a
//!    gateway could not use it. A node's word counts while this replica's own stream
//!    to that node lives, so that whoever is cut off from everything cannot accuse
//!    everything.
//! 2. **Own evidence.** This replica's stream to the node broke, or the node, which
//!    reports every second, has been silent on it for [`SILENCE_SUSPECT`].
//! 3. **A question unanswered.** Asked after that whether it is there, the node did
//!    not answer.
//!
//! A node to which any reporting node has a link that is up is not even asked.
//!
//! Two nodes that only lost sight of each other fail 2: both report, neither is given
//! up. A replica that is cut off from a healthy node fails 1: nobody else complains.
//! A machine that stalls for a second fails 2 and mostly 3. One report of the node
//! on its stream takes all belief back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use headwater_model::NodeId;

/// How long a witness is believed without repeating itself: two reports of nodes.
pub const WITNESS_HOLDS: Duration = Duration::from_secs(3);
/// Silence on a node's stream, on which a report is due every second, from which on
/// it counts as evidence. Shorter mistakes a busy machine for a dead one.
pub const SILENCE_SUSPECT: Duration = Duration::from_secs(2);
/// Witnesses against one node that are remembered; further ones add nothing.
const WITNESSES_MAX: usize = 8;

/// Who says that a node is gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Witness {
    /// A node whose links to it went silent.
    Node(NodeId),
    /// A gateway that could not use it.
    Gateway,
}

/// What this replica itself knows of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// The stream to it is open, and it reported then.
    Reported(Instant),
    /// The stream broke, or cannot be opened.
    Lost,
    /// It has not been tried yet.
    Unknown,
}

/// What is said of one node, and what came of it.
#[derive(Debug, Clone, Default)]
struct Case {
    witnesses: BTreeMap<Witness, Instant>,
    /// It is being asked.
    asked: bool,
    /// It is believed to be gone.
    given_up: bool,
}

/// The accusations that stand. Bounded by the nodes there are: accusations of
/// nodes that nobody knows are not taken in.
#[derive(Debug, Clone, Default)]
pub struct Belief {
    cases: BTreeMap<NodeId, Case>,
}

impl Belief {
    /// Takes in that somebody says that a node of the cluster is gone.
    pub fn handle_witness(&mut self, now: Instant, suspect: &NodeId, witness: Witness) {
        if matches!(&witness, Witness::Node(node) if node == suspect) {
            return;
        }
        let witnesses = &mut self.cases.entry(suspect.clone()).or_default().witnesses;
        if witnesses.len() < WITNESSES_MAX || witnesses.contains_key(&witness) {
            witnesses.insert(witness, now);
        }
    }

    /// Takes in that a node reported on its stream: it is there, whatever was said.
    /// Answers whether it had been given up.
    pub fn handle_report(&mut self, node: &NodeId) -> bool {
        self.cases.remove(node).is_some_and(|case| case.given_up)
    }

    /// The nodes that are to be asked now whether they are there: those against whom
    /// there are a witness and own evidence. Each once, until
    /// [`Belief::handle_answer`].
    pub fn questions(&mut self, now: Instant, sight: impl Fn(&NodeId) -> Sight) -> Vec<NodeId> {
        let reports = |node: &NodeId| match sight(node) {
            Sight::Reported(at) => now.saturating_duration_since(at) < SILENCE_SUSPECT,
            Sight::Lost | Sight::Unknown => false,
        };
        for case in self.cases.values_mut() {
            case.witnesses.retain(|witness, at| {
                let sound = match witness {
                    Witness::Node(node) => reports(node),
                    Witness::Gateway => true,
                };
                sound && now.saturating_duration_since(*at) < WITNESS_HOLDS
            });
        }
        self.cases.retain(|_, case| case.given_up || case.asked || !case.witnesses.is_empty());
        let mut nodes = Vec::new();
        for (node, case) in &mut self.cases {
            let evidence = match sight(node) {
                Sight::Lost => true,
                Sight::Reported(at) => now.saturating_duration_since(at) >= SILENCE_SUSPECT,
                Sight::Unknown => false,
            };
            if evidence && !case.asked && !case.given_up && !case.witnesses.is_empty() {
                case.asked = true;
                nodes.push(node.clone());
            }
        }
        nodes
    }

    /// Takes in whether a node answered that was asked. Answers whether it is given up
    /// now, and was not before.
    pub fn handle_answer(&mut self, node: &NodeId, answered: bool) -> bool {
        let Some(case) = self.cases.get_mut(node) else {
            // It reported meanwhile.
            return false;
        };
        case.asked = false;
        if answered {
            self.cases.remove(node);
            return false;
        }
        !std::mem::replace(&mut case.given_up, true)
    }

    /// Keeps only what is said of these nodes.
    pub fn keep_only(&mut self, nodes: impl Fn(&NodeId) -> bool) {
        self.cases.retain(|node, _| nodes(node));
    }

    /// The nodes that are given up.
    #[must_use]
    pub fn given_up(&self) -> BTreeSet<NodeId> {
        let given_up = self.cases.iter().filter(|(_, case)| case.given_up);
        given_up.map(|(node, _)| node.clone()).collect()
    }
}

#[cfg(test)]
mod tests;
