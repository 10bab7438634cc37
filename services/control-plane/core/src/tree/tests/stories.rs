//! Rooms that grow, shrink, lose nodes and get limits, step by step.

use super::*;

#[test]
fn a_room_of_one_shard_stays_one_until_it_is_three_quarters_full() {
    let mut world = World::new(&["a1", "a2", "a3"], 1);
    world.begin("a1");
    world.people_on_each(75);
    assert!(!world.settle());
    world.people_on_each(76);
    assert!(world.settle());
    assert_eq!(world.drawn(), ["a1/0 <  []", "a2/0 < a1/0 []"]);
}

#[test]
fn without_relays_a_room_keeps_its_one_shard() {
    let mut world = World::new(&["a1", "a2"], 4);
    for node in world.nodes.values_mut() {
        node.relays = false;
    }
    world.begin("a1");
    world.people_on_each(5000);
    assert!(!world.settle());
}

#[test]
fn a_node_without_relay_is_not_chosen() {
    let mut world = World::new(&["a1", "a2", "a3"], 1);
    world.nodes.get_mut(&node_id("a2")).unwrap().relays = false;
    world.begin("a1");
    world.people_on_each(76);
    world.settle();
    assert_eq!(world.drawn(), ["a1/0 <  []", "a3/0 < a1/0 []"]);
}

#[test]
fn shards_of_one_node_hang_on_each_other() {
    let mut world = World::new(&["a1", "a2"], 2);
    world.begin("a1");
    world.people_on_each(200);
    world.settle();
    assert_eq!(
        world.drawn(),
        ["a1/0 <  []", "a2/0 < a1/0 []", "a1/1 < a1/0 [a2/0]", "a2/1 < a2/0 [a1/0]"],
    );
}

#[test]
fn a_zone_that_is_asked_for_gets_one_relay_and_its_shards_hang_on_it() {
    let mut world = World::new(&["a1", "a2", "b1", "b2", "b3"], 1);
    world.begin("a1");
    world.people_on_each(10);
    world.asked = BTreeMap::from([("b".to_owned(), 150)]);
    world.settle();
    assert_eq!(
        world.drawn(),
        ["a1/0 <  []", "b1/0 < a1/0 []", "b2/0 < b1/0 [a1/0]", "b3/0 < b1/0 [b2/0 a1/0]"],
    );
    assert_eq!(world.inter_zone_links(), 1);
}

#[test]
fn when_a_zones_relay_dies_its_first_child_takes_over_and_one_link_remains() {
    let mut world = World::new(&["a1", "b1", "b2", "b3", "b4"], 1);
    world.begin("a1");
    world.asked = BTreeMap::from([("b".to_owned(), 150)]);
    world.settle();
    let backup_of = |world: &World, name: &str| {
        let shard = world.shards().iter().find(|it| it.node == node_id(name)).unwrap();
        shard.backups.first().map(|it| world.shards()[it.index()].node.clone())
    };
    assert_eq!(backup_of(&world, "b2"), Some(node_id("a1")));
    assert_eq!(backup_of(&world, "b3"), Some(node_id("b2")));
    world.asked.clear();
    world.spread(|rank| if rank == 0 { 5 } else { 50 });
    world.kill("b1");
    world.settle();
    assert_eq!(
        world.drawn(),
        ["a1/0 <  []", "b2/0 < a1/0 []", "b3/0 < b2/0 [a1/0]", "b4/0 < b2/0 [b3/0 a1/0]"],
        "the new plan is what the backups had made, and the lost shard is replaced",
    );
}

#[test]
fn a_dead_home_is_replaced_by_its_first_successor_and_nothing_else_moves() {
    let mut world = World::new(&["a1", "a2", "a3", "a4", "a5"], 1);
    world.begin("a1");
    world.people_on_each(230);
    world.settle();
    assert_eq!(
        world.drawn(),
        ["a1/0 <  []", "a2/0 < a1/0 []", "a3/0 < a1/0 [a2/0]", "a4/0 < a1/0 [a2/0 a3/0]",],
    );
    let epoch = world.room.epoch();
    world.people_on_each(60);
    world.kill("a1");
    world.settle();
    assert_eq!(
        world.drawn(),
        ["a2/0 <  []", "a3/0 < a2/0 []", "a4/0 < a2/0 [a3/0]", "a5/0 < a2/0 [a3/0 a4/0]",],
    );
    assert!(world.room.epoch() > epoch);
}

#[test]
fn a_draining_node_leaves_and_another_takes_its_part() {
    let mut world = World::new(&["a1", "a2", "a3"], 1);
    world.begin("a1");
    world.people_on_each(76);
    world.settle();
    world.people_on_each(40);
    world.leaving.insert(node_id("a2"));
    world.settle();
    assert_eq!(world.drawn(), ["a1/0 <  []", "a3/0 < a1/0 []"]);
}

#[test]
fn a_room_shrinks_when_one_shard_fewer_would_be_mostly_idle() {
    let mut world = World::new(&["a1", "a2", "a3"], 1);
    world.begin("a1");
    world.people_on_each(150);
    world.settle();
    assert_eq!(world.shards().len(), 3);
    world.people_on_each(24);
    assert!(!world.settle(), "72 of 300: two shards would carry 36 % each");
    world.spread(|rank| [40, 10, 10][rank]);
    assert!(world.settle(), "60 of 300");
    assert_eq!(world.shards().len(), 1, "twenty people may be moved");
    assert!(!world.settle());
}

#[test]
fn a_surplus_shard_with_many_people_waits_until_they_leave() {
    let mut world = World::new(&["a1", "a2", "a3"], 1);
    world.begin("a1");
    world.people_on_each(150);
    world.settle();
    world.spread(|rank| [0, 30, 30][rank]);
    assert!(!world.settle());
}

#[test]
fn what_a_zone_does_not_have_comes_from_another_and_stays_there() {
    let mut world = World::new(&["a1", "b1", "b2", "b3"], 1);
    world.begin("a1");
    world.people_on_each(170);
    assert!(world.settle());
    assert_eq!(world.shards().len(), 3);
    world.people_on_each(57);
    assert!(!world.settle());
}

#[test]
fn what_nobody_has_is_told() {
    let mut world = World::new(&["a1", "a2"], 1);
    world.begin("a1");
    world.people_on_each(600);
    let tree = world.plan();
    assert_eq!((tree.shards.len(), tree.missing), (2, 8));
}

#[test]
fn seats_move_in_two_plans_of_which_the_first_only_lowers() {
    let mut world = World::new(&["a1", "a2"], 1);
    world.room.spec.max_participants = 100;
    world.begin("a1");
    world.spread(|_| 80);
    assert!(world.settle());
    let seats = |world: &World| -> Vec<Option<u32>> {
        world.shards().iter().map(|shard| shard.seats).collect()
    };
    assert_eq!(seats(&world), [Some(90), Some(0)], "the home may still use what it had");
    world.room.plan.as_mut().unwrap().epoch.0 += 1;
    assert!(!world.settle(), "the home has not said that it knows");
    world.spread(|rank| [80, 0][rank]);
    assert!(world.settle());
    assert_eq!(seats(&world), [Some(90), Some(10)]);
    world.spread(|rank| [82, 8][rank]);
    assert!(!world.settle());
}
