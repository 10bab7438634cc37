//! The suite that others wrote for one server, with every participant on another node:
//! data streams, RPC, metadata, attributes, data tracks, transcription and encryption
//! behave across relay links as they do on one node.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use headwater_e2e::cluster::{Cluster, Options};
use headwater_e2e::placements::{LOG_FILTER, placements};
use headwater_testkit::script;

/// As many as the largest room of the suite has participants.
const NODES: usize = 4;

#[test]
fn rtc_nodes_own_suite_passes_with_every_participant_on_another_node() {
    let options = Options {
        etcd_members: 1,
        media_nodes: NODES,
        shard_participants: Some(1),
        log_filter: LOG_FILTER,
        ..Options::default()
    };
    let cluster = Cluster::start(&options).unwrap();
    let limit = Duration::from_secs(150);
    println!("{}", script::run("rtc_node_suite.mjs", &[], &cluster.target, limit).unwrap());

    let mut rooms: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for place in placements(&cluster) {
        rooms.entry(place.room).or_default().push(place.node);
    }
    let shared: BTreeMap<_, _> = rooms.iter().filter(|(_, nodes)| nodes.len() > 1).collect();
    let different = |nodes: &Vec<String>| nodes.iter().collect::<BTreeSet<_>>().len();
    println!("{} rooms of several people: {shared:?}", shared.len());
    assert!(shared.len() >= 20, "{rooms:?}");
    // Somebody who comes again, as one case has it, may get the place that was left.
    let again = |nodes: &Vec<String>| nodes.len() - different(nodes);
    assert!(shared.values().all(|nodes| different(nodes) >= 2 && again(nodes) <= 1), "{shared:?}");
    let came_again = shared.values().filter(|nodes| again(nodes) > 0).count();
    assert!(came_again <= 2, "{came_again} rooms gave a node twice: {shared:?}");
    let relayed: f64 = cluster
        .media_nodes
        .iter()
        .map(|role| {
            let series = "headwater_relay_packets_total{direction=\"in\",link=\"between_nodes\"}";
            role.series(series).unwrap()
        })
        .sum();
    println!("{relayed} packets came over links between nodes");
    // The suite listens to some tones for a second each, which are 50 packets: without links
    // none of them would arrive.
    assert!(relayed > 200.0, "{relayed}");
    assert_eq!(cluster.complaints(), Vec::<String>::new());
}
