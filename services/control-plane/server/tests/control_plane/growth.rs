//! Rooms that grow with those who join, not with the next report.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use headwater_control_plane::Config;
use headwater_proto::control::v1::{Admission, PlaceParticipantRequest, PlaceParticipantResponse};
use headwater_registry::Store as _;

use crate::support::Bench;
use crate::support::bench::place_request;

impl Bench {
    /// Places somebody whom no node will report.
    async fn send(&self, replica: usize, identity: &str) -> PlaceParticipantResponse {
        let request =
            PlaceParticipantRequest { identity: identity.to_owned(), ..place_request("plaza") };
        let placed = self.place_as(replica, request).await;
        assert_eq!(placed.admission(), Admission::Admitted, "{placed:?}");
        placed
    }
}

#[tokio::test]
async fn with_one_participant_to_a_shard_each_goes_to_another_node() {
    let bench = Bench::relaying_at(1, &["a", "b", "c"]).await;
    let mut nodes = BTreeSet::new();
    for number in 0..3 {
        nodes.insert(bench.send(0, &format!("person-{number}")).await.node_id);
    }
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    // Then the second shards of the nodes, and when there are none nobody is refused.
    let mut shards = BTreeSet::new();
    for number in 3..8 {
        let placed = bench.send(0, &format!("person-{number}")).await;
        shards.insert((placed.node_id, placed.shard));
    }
    assert!(shards.len() >= 4, "{shards:?}");
}

#[tokio::test]
async fn a_wave_that_no_node_has_reported_fills_all_shards_alike() {
    let bench = Bench::relaying(&["a", "b", "c"]).await;
    let home = bench.send(0, "person-first").await;
    let before = bench.store.revision().await.unwrap();
    let wave = (0..60).map(|number| {
        let bench = &bench;
        async move { bench.send(0, &format!("person-{number}")).await }
    });
    let mut shards: BTreeMap<(String, u32), u32> = BTreeMap::new();
    for placed in join_all(wave).await {
        *shards.entry((placed.node_id, placed.shard)).or_default() += 1;
    }
    let writes = bench.store.revision().await.unwrap().0 - before.0;
    println!("60 joins, {writes} plans: {shards:?}");
    assert_eq!(shards.len(), 6, "{shards:?}");
    // The home of so many shards is kept for those who publish; the others share the
    // rest, and all of them are counted before any report.
    shards.remove(&(home.node_id, home.shard));
    let (least, most) = (shards.values().min().unwrap(), shards.values().max().unwrap());
    assert!(most - least <= 2, "{shards:?}");
    assert!(writes <= 4, "{writes} plans for 60 joins");
}

#[tokio::test]
async fn replicas_that_grow_a_room_at_once_agree_and_refuse_nobody() {
    let mut bench = Bench::relaying_at(2, &["a", "b", "c"]).await;
    bench.add_replica(Config { shard_participants: 2, ..Config::default() }).await;
    bench.all_met().await;
    bench.send(0, "person-first").await;
    let wave = (0..24).map(|number| {
        let bench = &bench;
        async move { bench.send(number % 2, &format!("person-{number}")).await }
    });
    let placed = join_all(wave).await;
    let plan = bench.get(0, "plaza").await.unwrap().plan.unwrap();
    let planned: BTreeSet<(String, u32)> = plan
        .shards
        .iter()
        .map(|shard| (shard.node.trim_start_matches("nodes/").to_owned(), shard.shard))
        .collect();
    assert_eq!(planned.len(), 6, "{plan:?}");
    for place in placed {
        assert!(planned.contains(&(place.node_id.clone(), place.shard)), "{place:?}");
    }
}
