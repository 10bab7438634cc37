//! Which nodes are gone, and the global breaker: a partition looks like mass
//! death, and then doing nothing is the safe act.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use headwater_model::NodeId;

/// How the census judges.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CensusConfig {
    /// How long a node that was seen must be missing before it counts as gone.
    pub confirm_after: Duration,
    /// How long a node that was never seen here, but that a plan names, must be
    /// missing: a replica that just started may only not have met it yet.
    pub confirm_unseen_after: Duration,
    /// Nodes that went missing within this time count towards the breaker.
    pub breaker_window: Duration,
    /// Share of the known nodes, 0 to 1, that may go missing within the window.
    /// One node may always go.
    pub breaker_share: f64,
}

impl Default for CensusConfig {
    fn default() -> Self {
        Self {
            confirm_after: Duration::from_secs(2),
            confirm_unseen_after: Duration::from_secs(10),
            breaker_window: Duration::from_secs(30),
            breaker_share: 0.2,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    since: Instant,
    seen_before: bool,
}

/// Remembers since when nodes are missing. Bounded by the nodes that exist or
/// that plans name.
#[derive(Debug)]
pub struct Census {
    config: CensusConfig,
    present: BTreeSet<NodeId>,
    missing: BTreeMap<NodeId, Missing>,
}

impl Census {
    /// An empty census.
    #[must_use]
    pub fn new(config: CensusConfig) -> Self {
        Self { config, present: BTreeSet::new(), missing: BTreeMap::new() }
    }

    /// Takes in that a node is there, between two counts: a replica that has
    /// met a node need not wait as for one that it never saw.
    pub fn handle_met(&mut self, node: &NodeId) {
        self.missing.remove(node);
        self.present.insert(node.clone());
    }

    /// Takes in who is there now (`present`: registered or answering) and whom
    /// plans name (`named`). A missing node is forgotten when no plan names it
    /// any more and it has left the breaker's window.
    pub fn handle_count(
        &mut self,
        now: Instant,
        present: BTreeSet<NodeId>,
        named: &BTreeSet<NodeId>,
    ) {
        for node in self.present.difference(&present) {
            self.missing.insert(node.clone(), Missing { since: now, seen_before: true });
        }
        for node in named.difference(&present) {
            self.missing.entry(node.clone()).or_insert(Missing { since: now, seen_before: false });
        }
        let window = self.config.breaker_window;
        self.missing.retain(|node, missing| {
            !present.contains(node)
                && (named.contains(node) || now.saturating_duration_since(missing.since) < window)
        });
        self.present = present;
    }

    /// Nodes that are gone for sure.
    #[must_use]
    pub fn gone(&self, now: Instant) -> BTreeSet<NodeId> {
        self.missing
            .iter()
            .filter(|(_, missing)| {
                let confirm = if missing.seen_before {
                    self.config.confirm_after
                } else {
                    self.config.confirm_unseen_after
                };
                now.saturating_duration_since(missing.since) >= confirm
            })
            .map(|(node, _)| node.clone())
            .collect()
    }

    /// Whether so many nodes went missing lately that nothing may be moved on
    /// that ground alone.
    #[must_use]
    pub fn is_frozen(&self, now: Instant) -> bool {
        let recent = self
            .missing
            .values()
            .filter(|missing| {
                now.saturating_duration_since(missing.since) < self.config.breaker_window
            })
            .count();
        let known = self.present.len() + self.missing.len();
        // Counts of nodes are far below 2^52, so the conversion is exact.
        #[expect(clippy::cast_precision_loss, reason = "a cluster has far fewer than 2^52 nodes")]
        let allowed = (known as f64 * self.config.breaker_share).max(1.0);
        #[expect(clippy::cast_precision_loss, reason = "a cluster has far fewer than 2^52 nodes")]
        let recent = recent as f64;
        recent > allowed
    }

    /// When the next verdict may change without any news, if ever.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.missing
            .values()
            .flat_map(|missing| {
                [
                    missing.since + self.config.confirm_after,
                    missing.since + self.config.confirm_unseen_after,
                    missing.since + self.config.breaker_window,
                ]
            })
            .filter(|deadline| *deadline > now)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(range: std::ops::Range<u32>) -> BTreeSet<NodeId> {
        range.map(|i| NodeId::new(format!("n{i:03}")).unwrap()).collect()
    }

    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn origin() -> Instant {
        Instant::now()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_lost_node_of_two_is_gone_after_confirmation_and_freezes_nothing() {
        let start = origin();
        let mut census = Census::new(CensusConfig::default());
        census.handle_count(start, nodes(0..2), &nodes(0..2));
        census.handle_count(start + SECOND, nodes(0..1), &nodes(0..2));
        assert!(census.gone(start + SECOND).is_empty());
        assert_eq!(census.gone(start + 3 * SECOND), nodes(1..2));
        assert!(!census.is_frozen(start + 3 * SECOND));
    }

    #[test]
    fn a_third_of_the_nodes_lost_at_once_freezes_for_the_window() {
        let start = origin();
        let mut census = Census::new(CensusConfig::default());
        census.handle_count(start, nodes(0..30), &nodes(0..30));
        census.handle_count(start + SECOND, nodes(0..20), &nodes(0..30));
        assert!(census.is_frozen(start + 5 * SECOND));
        assert!(!census.is_frozen(start + 31 * SECOND));
        assert_eq!(census.gone(start + 31 * SECOND), nodes(20..30));
    }

    #[test]
    fn nodes_that_return_thaw_it_at_once() {
        let start = origin();
        let mut census = Census::new(CensusConfig::default());
        census.handle_count(start, nodes(0..10), &nodes(0..10));
        census.handle_count(start, nodes(0..5), &nodes(0..10));
        assert!(census.is_frozen(start));
        census.handle_count(start + SECOND, nodes(0..10), &nodes(0..10));
        assert!(!census.is_frozen(start + SECOND));
        assert!(census.gone(start + 60 * SECOND).is_empty());
    }

    #[test]
    fn a_node_never_seen_needs_longer() {
        let start = origin();
        let mut census = Census::new(CensusConfig::default());
        census.handle_count(start, nodes(0..5), &nodes(0..6));
        assert!(census.gone(start + 9 * SECOND).is_empty());
        assert_eq!(census.gone(start + 10 * SECOND), nodes(5..6));
    }

    #[test]
    fn a_node_met_between_two_counts_was_seen() {
        let start = origin();
        let mut census = Census::new(CensusConfig::default());
        census.handle_count(start, nodes(0..1), &nodes(0..1));
        census.handle_met(&NodeId::new("n001").unwrap());
        census.handle_count(start + SECOND, nodes(0..1), &nodes(0..2));
        assert_eq!(census.gone(start + 3 * SECOND), nodes(1..2));
    }

    #[test]
    fn a_missing_node_nobody_names_is_forgotten() {
        let start = origin();
        let mut census = Census::new(CensusConfig::default());
        census.handle_count(start, nodes(0..2), &BTreeSet::new());
        census.handle_count(start, nodes(0..1), &BTreeSet::new());
        census.handle_count(start + 31 * SECOND, nodes(0..1), &BTreeSet::new());
        assert!(census.missing.is_empty());
        assert_eq!(census.poll_timeout(start + 31 * SECOND), None);
    }
}
