//! Asks nodes that others miss whether they are there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::nodes::Nodes;

/// Between two looks at what is said of nodes: people wait for what comes of it.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Asks, until the token is cancelled. A question ends by itself, and each node is
/// asked once at a time, so there are never more of them than nodes.
pub(crate) async fn run(cluster: Arc<Cluster>, nodes: Arc<Nodes>, stop: CancellationToken) {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut questions = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        while questions.try_join_next().is_some() {}
        for (node, url) in cluster.nodes_to_ask(Instant::now()) {
            let (cluster, nodes) = (Arc::clone(&cluster), Arc::clone(&nodes));
            questions.spawn(async move {
                let answered = nodes.answers(&node, &url).await;
                cluster.handle_answer(&node, answered, Instant::now());
            });
        }
    }
}
