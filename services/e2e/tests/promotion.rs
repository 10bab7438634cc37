//! A viewer at the far end of a tree who is given the stage.

use std::collections::BTreeSet;
use std::time::Duration;

use headwater_e2e::cluster::{Cluster, Options};
use headwater_e2e::placements::{LOG_FILTER, placements};
use headwater_testkit::script;

/// As many as there are shards: the last ones get the second shards of their nodes, which
/// are two links from the home.
const PEOPLE: usize = 6;

#[test]
fn a_viewer_on_a_far_leaf_is_promoted_and_heard_and_seen_everywhere() {
    let options = Options {
        etcd_members: 1,
        replicas: 1,
        media_nodes: 3,
        shards: 2,
        shard_participants: Some(1),
        log_filter: LOG_FILTER,
        ..Options::default()
    };
    let cluster = Cluster::start(&options).unwrap();
    let people = PEOPLE.to_string();
    let limit = Duration::from_secs(60);
    println!("{}", script::run("promote.mjs", &[&people], &cluster.target, limit).unwrap());
    let places: Vec<_> = placements(&cluster);
    println!("{places:?}");
    let shards: BTreeSet<_> = places.iter().collect();
    assert_eq!(shards.len(), PEOPLE, "{places:?}");
    assert_eq!(cluster.complaints(), Vec::<String>::new());
}
