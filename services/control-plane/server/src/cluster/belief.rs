//! Which nodes are given up before their lease runs out: what is said of them, and
//! what this replica sees itself. The rule is [`headwater_control_core::belief`]'s.

use std::collections::BTreeSet;
use std::time::Instant;

use headwater_control_core::{AgentState, Sight, Witness};
use headwater_model::NodeId;

use super::{Cluster, Held};

impl Cluster {
    /// Takes in that somebody says that a node is gone. Nodes that nobody knows are
    /// passed over.
    pub(crate) fn handle_witness(&self, suspect: &str, witness: Witness, now: Instant) {
        let mut held = self.write();
        let Held { belief, records, .. } = &mut *held;
        let known = NodeId::new(suspect).ok().filter(|node| records.contains_key(node));
        if let Some(node) = known {
            belief.handle_witness(now, &node, witness);
        }
    }

    /// Takes in to which nodes a node has links that are up.
    pub(crate) fn set_links(&self, node: &NodeId, linked: &[String]) {
        let linked = linked.iter().filter_map(|id| NodeId::new(id.clone()).ok());
        let linked: BTreeSet<NodeId> = linked.filter(|it| it != node).collect();
        self.write().links.insert(node.clone(), linked);
    }

    /// The nodes that are to be asked whether they are there, with their URLs.
    pub(crate) fn nodes_to_ask(&self, now: Instant) -> Vec<(NodeId, String)> {
        let mut held = self.write();
        let Held { belief, records, ledgers, state, links, .. } = &mut *held;
        belief.keep_only(|node| records.contains_key(node));
        let nodes = &state.observed().nodes;
        let asked = belief.questions(now, |node| {
            if links.values().any(|linked| linked.contains(node)) {
                return Sight::Unknown;
            }
            let reported = ledgers.get(node).and_then(|(_, ledger)| ledger.reported_at());
            match (nodes.get(node).map(|view| view.agent), reported) {
                (Some(AgentState::Connected), Some(at)) => Sight::Reported(at),
                (Some(AgentState::Lost), _) => Sight::Lost,
                (_, _) => Sight::Unknown,
            }
        });
        let with_url = |node: NodeId| {
            let url = records.get(&node)?.rpc_url.clone();
            Some((node, url))
        };
        asked.into_iter().filter_map(with_url).collect()
    }

    /// Takes in whether a node answered that was asked.
    pub(crate) fn handle_answer(&self, node: &NodeId, answered: bool, now: Instant) {
        let mut held = self.write();
        if !held.belief.handle_answer(node, answered) {
            return;
        }
        held.settle();
        held.count(now);
        drop(held);
        tracing::warn!(%node, "a node is given up: others miss it, and it neither reports nor answers");
        self.changed();
    }
}

impl Held {
    /// Takes in that a node is there, whatever was said. Answers whether it had been
    /// given up.
    pub(super) fn believe_in(&mut self, node: &NodeId) -> bool {
        let was = self.belief.handle_report(node);
        if was {
            self.settle();
            tracing::info!(%node, "a node that was given up is there again");
        }
        was
    }

    fn settle(&mut self) {
        self.state.set_given_up(&self.belief.given_up());
    }

    /// Counts who is there.
    pub(super) fn count(&mut self, now: Instant) {
        // A node may have come back under its name since it was given up.
        self.settle();
        self.state.set_vouched(&self.links.values().flatten().collect());
        let present = self.state.observed().present();
        let named = self.state.intended().nodes_named();
        self.census.handle_count(now, present, &named);
    }
}
