//! Placement: properties over arbitrary clusters, and the cases that matter.

use proptest::prelude::*;

use super::*;
use crate::node::{Lifecycle, NodeLoad};

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn node(busiest_shard: f32) -> NodeView {
    let mut node = NodeView {
        registered: true,
        agent: AgentState::Connected,
        shards: 2,
        ..NodeView::default()
    };
    node.handle_report(NodeLoad { busiest_shard, ..NodeLoad::default() }, BTreeMap::new());
    node
}

fn cluster<const N: usize>(nodes: [(&str, NodeView); N]) -> BTreeMap<NodeId, NodeView> {
    nodes.into_iter().map(|(name, node)| (id(name), node)).collect()
}

/// Places `rooms` rooms one after the other, each seen by the next.
fn place_many(nodes: &mut BTreeMap<NodeId, NodeView>, rooms: u32, seed: u64) -> Vec<u32> {
    let mut random = Random(seed);
    for _ in 0..rooms {
        let choice = choose(nodes, &Wish::default(), random.next()).unwrap();
        nodes.get_mut(&choice.node).unwrap().add_planned(choice.shard);
    }
    nodes.values().map(NodeView::planned_rooms).collect()
}

#[test]
fn nothing_serving_is_told_apart_from_everything_full() {
    assert_eq!(choose(&BTreeMap::new(), &Wish::default(), 1), Err(NoPlace::NoNode));
    let full = cluster([("a", node(0.95)), ("b", node(0.91))]);
    assert_eq!(choose(&full, &Wish::default(), 1), Err(NoPlace::AllFull));
}

#[test]
fn a_soft_node_is_taken_only_if_no_other_can() {
    let mut nodes = cluster([("busy", node(0.8)), ("calm", node(0.1)), ("calm2", node(0.1))]);
    for seed in 0..200 {
        assert_ne!(choose(&nodes, &Wish::default(), seed).unwrap().node, id("busy"));
    }
    nodes.retain(|name, _| name.as_str() == "busy");
    assert_eq!(choose(&nodes, &Wish::default(), 1).unwrap().node, id("busy"));
}

#[test]
fn cordoned_draining_lost_and_excluded_nodes_are_never_chosen() {
    let nodes = cluster([
        ("cordoned", NodeView { lifecycle: Lifecycle::Cordon, ..node(0.0) }),
        ("draining", NodeView { lifecycle: Lifecycle::Drain, ..node(0.0) }),
        ("lost", NodeView { agent: AgentState::Lost, ..node(0.0) }),
        ("unregistered", NodeView { registered: false, ..node(0.0) }),
        ("excluded", node(0.0)),
        ("good", node(0.7)),
    ]);
    let wish = Wish { without: BTreeSet::from([id("excluded")]), ..Wish::default() };
    for seed in 0..100 {
        assert_eq!(choose(&nodes, &wish, seed).unwrap().node, id("good"));
    }
}

#[test]
fn a_node_still_being_reached_serves_when_no_other_answers() {
    let connecting = NodeView { agent: AgentState::Connecting, ..node(0.0) };
    let alone = cluster([("new", connecting.clone())]);
    assert_eq!(choose(&alone, &Wish::default(), 1).unwrap().node, id("new"));
    let both = cluster([("new", connecting), ("old", node(0.5))]);
    for seed in 0..50 {
        assert_eq!(choose(&both, &Wish::default(), seed).unwrap().node, id("old"));
    }
}

#[test]
fn the_region_is_preferred_until_it_is_full() {
    let here = |load| NodeView { region: "eu".into(), ..node(load) };
    let there = |load| NodeView { region: "us".into(), ..node(load) };
    let wish = Wish { region: "eu".into(), ..Wish::default() };
    let nodes = cluster([("here", here(0.6)), ("there", there(0.0))]);
    for seed in 0..50 {
        assert_eq!(choose(&nodes, &wish, seed).unwrap().node, id("here"));
    }
    let nodes = cluster([("here", here(0.8)), ("there", there(0.0))]);
    assert_eq!(choose(&nodes, &wish, 1).unwrap().node, id("there"));
}

#[test]
fn the_zone_decides_between_equals_only() {
    let zoned = |zone: &str, load| NodeView { zone: zone.into(), ..node(load) };
    let nodes = cluster([("a", zoned("z1", 0.05)), ("b", zoned("z2", 0.0))]);
    let want = Wish { zone: "z1".into(), ..Wish::default() };
    let avoid = Wish { avoid_zone: "z2".into(), ..Wish::default() };
    for seed in 0..50 {
        assert_eq!(choose(&nodes, &want, seed).unwrap().node, id("a"));
        assert_eq!(choose(&nodes, &avoid, seed).unwrap().node, id("a"));
    }
    let nodes = cluster([("a", zoned("z1", 0.6)), ("b", zoned("z2", 0.0))]);
    assert_eq!(choose(&nodes, &want, 1).unwrap().node, id("b"));
}

#[test]
fn a_node_without_a_slot_is_full() {
    let mut taken = node(0.0);
    taken.participant_capacity = 2;
    taken.granted = 2;
    let nodes = cluster([("a", taken)]);
    assert_eq!(choose(&nodes, &Wish::default(), 1), Err(NoPlace::AllFull));
}

#[test]
fn twenty_rooms_over_two_idle_nodes_are_ten_each() {
    for seed in 0..100 {
        let mut nodes = cluster([("a", node(0.03)), ("b", node(0.01))]);
        let rooms = place_many(&mut nodes, 20, seed);
        assert_eq!(rooms.iter().max(), Some(&10), "seed {seed}: {rooms:?}");
    }
}

#[test]
fn stale_reports_do_not_herd_everything_onto_one_node() {
    let mut nodes: BTreeMap<_, _> = (0..16).map(|i| (id(&format!("n{i:02}")), node(0.2))).collect();
    nodes.get_mut(&id("n00")).unwrap().load =
        Some(NodeLoad { busiest_shard: 0.0, ..NodeLoad::default() });
    let rooms = place_many(&mut nodes, 320, 7);
    let most = rooms.iter().max().copied().unwrap();
    assert!(most <= 60, "{rooms:?}");
}

prop_compose! {
    fn any_node()(
        registered in any::<bool>(),
        agent in prop_oneof![
            Just(AgentState::Connecting), Just(AgentState::Connected), Just(AgentState::Lost)
        ],
        lifecycle in prop_oneof![
            Just(Lifecycle::Serve), Just(Lifecycle::Cordon), Just(Lifecycle::Drain)
        ],
        shards in 0_u16..5,
        capacity in 0_u32..50,
        participants in 0_u32..60,
        busiest_shard in -1.0_f32..2.0,
        region in "[ab]?",
        zone in "[xyz]?",
        planned in prop::collection::btree_map((0_u16..8).prop_map(ShardIndex), 0_u32..100, 0..5),
    ) -> NodeView {
        NodeView {
            registered, agent, lifecycle, shards, region, zone, planned,
            participant_capacity: capacity,
            load: Some(NodeLoad { participants, busiest_shard, ..NodeLoad::default() }),
            ..NodeView::default()
        }
    }
}

proptest! {
    #[test]
    fn a_choice_is_always_a_serving_node_with_room_and_a_shard_it_has(
        views in prop::collection::vec(any_node(), 0..12), seed in any::<u64>(), region in "[ab]?",
    ) {
        let nodes: BTreeMap<_, _> =
            views.into_iter().enumerate().map(|(i, view)| (id(&format!("n{i}")), view)).collect();
        let wish = Wish { region, ..Wish::default() };
        match choose(&nodes, &wish, seed) {
            Ok(choice) => {
                let node = &nodes[&choice.node];
                prop_assert_eq!(node.standing(), Standing::Serving);
                prop_assert!(choice.shard.0 < node.shards);
                prop_assert!(node.has_slot() && node.utilisation() < LOAD_FULL);
            }
            Err(NoPlace::AllFull | NoPlace::NoNode) => {
                let open = nodes.values().filter(|node| {
                    node.standing() == Standing::Serving
                        && node.agent == AgentState::Connected
                        && node.shards > 0
                        && node.has_slot()
                        && node.utilisation() < LOAD_FULL
                });
                prop_assert_eq!(open.count(), 0);
            }
        }
    }

    #[test]
    fn the_same_seed_chooses_the_same(
        views in prop::collection::vec(any_node(), 1..8), seed in any::<u64>(),
    ) {
        let nodes: BTreeMap<_, _> =
            views.into_iter().enumerate().map(|(i, view)| (id(&format!("n{i}")), view)).collect();
        prop_assert_eq!(
            choose(&nodes, &Wish::default(), seed),
            choose(&nodes, &Wish::default(), seed)
        );
    }

    #[test]
    fn rooms_spread_evenly_over_equal_nodes(count in 2_usize..10, seed in any::<u64>()) {
        let mut nodes: BTreeMap<_, _> =
            (0..count).map(|i| (id(&format!("n{i}")), node(0.0))).collect();
        let rooms = place_many(&mut nodes, 40 * u32::try_from(count).unwrap(), seed);
        let most = rooms.iter().max().copied().unwrap();
        prop_assert!(most <= 52, "max/mean above 1.3: {:?}", rooms);
    }
}
