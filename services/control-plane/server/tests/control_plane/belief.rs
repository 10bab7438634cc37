//! Nodes that others miss while their lease lives.

use std::time::Duration;

use crate::support::{Bench, eventually};

/// So many nodes may go at once without the breaker's word.
const NODES: [&str; 3] = ["a", "b", "c"];

async fn home_of(bench: &Bench, room: &str) -> String {
    let plan = bench.get(0, room).await.unwrap().plan.unwrap();
    plan.shards[0].node.trim_start_matches("nodes/").to_owned()
}

#[tokio::test]
async fn rooms_leave_a_dead_node_before_its_lease_ends_if_another_node_misses_it() {
    let bench = Bench::start(2, &NODES).await;
    bench.create(0, "plaza").await.unwrap();
    let dead = home_of(&bench, "plaza").await;
    let witness = NODES.into_iter().find(|node| *node != dead).unwrap();
    // Its record stays: in this test no lease ends.
    bench.node(&dead).kill();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(home_of(&bench, "plaza").await, dead, "nobody misses it");
    bench.node(witness).memory().lost = vec![dead.clone()];
    eventually("the room has another home", || async { home_of(&bench, "plaza").await != dead })
        .await;
}

#[tokio::test]
async fn a_node_that_reports_keeps_its_rooms_whoever_misses_it() {
    let bench = Bench::start(2, &NODES).await;
    bench.create(0, "plaza").await.unwrap();
    let home = home_of(&bench, "plaza").await;
    let epoch = bench.get(0, "plaza").await.unwrap().plan.unwrap().epoch;
    for node in NODES.into_iter().filter(|node| *node != home) {
        bench.node(node).memory().lost = vec![home.clone()];
        bench.node(&home).memory().lost.push(node.to_owned());
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    let plan = bench.get(0, "plaza").await.unwrap().plan.unwrap();
    assert_eq!((plan.shards[0].node.clone(), plan.epoch), (format!("nodes/{home}"), epoch));
}

#[tokio::test]
async fn a_node_that_only_other_nodes_reach_keeps_its_rooms() {
    let bench = Bench::start(2, &NODES).await;
    bench.create(0, "plaza").await.unwrap();
    let home = home_of(&bench, "plaza").await;
    let witness = NODES.into_iter().find(|node| *node != home).unwrap();
    bench.node(witness).memory().linked = vec![home.clone()];
    // Reports come twenty times a second, and are counted each second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    bench.node(&home).kill();
    bench.node(&home).unregister(&*bench.store).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(home_of(&bench, "plaza").await, home);
    bench.node(witness).memory().linked.clear();
    eventually("the room has another home", || async { home_of(&bench, "plaza").await != home })
        .await;
}
