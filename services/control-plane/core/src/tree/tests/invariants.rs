//! What holds of every tree, whatever the room went through.

use proptest::prelude::*;

use super::*;

/// Checks one plan from outside; answers with a word on what is wrong.
fn fault(world: &World) -> Option<String> {
    let shards = world.shards();
    let plan = world.room.plan.as_ref()?;
    let depths = plan.depths();
    let mut children = vec![0_u16; shards.len()];
    let mut leaning = vec![0_u16; shards.len()];
    let mut seen = BTreeSet::new();
    for (rank, shard) in shards.iter().enumerate() {
        if !seen.insert(shard.at()) {
            return Some(format!("{} is there twice", shard.node));
        }
        match shard.parent {
            None if rank > 0 => return Some(format!("{rank} has no parent")),
            Some(_) if rank == 0 => return Some("the home has a parent".to_owned()),
            Some(parent) if parent.index() >= rank => return Some(format!("{rank} < {parent:?}")),
            Some(parent) => children[parent.index()] += 1,
            None => {}
        }
        let parent_node = shard.parent.map(|it| &shards[it.index()].node);
        if shard.backups.len() > BACKUPS_MAX {
            return Some(format!("{rank} has too many backups"));
        }
        for backup in &shard.backups {
            let other = &shards[backup.index().min(rank)];
            if backup.index() >= rank || Some(&other.node) == parent_node {
                return Some(format!("{rank} leans on {backup:?}"));
            }
            leaning[backup.index()] += 1;
        }
        // Whoever has somebody before it on another node than the parent's, among
        // its family, has a backup.
        let brothers = (1..rank).filter(|other| {
            shards[*other].parent == shard.parent && Some(&shards[*other].node) != parent_node
        });
        if shard.backups.is_empty() && brothers.count() > 0 {
            return Some(format!("{rank} has no backup"));
        }
        if depths[rank] > world.config.depth_max {
            return Some(format!("{rank} is {} deep", depths[rank]));
        }
        if world.gone.contains(&shard.node) || world.leaving.contains(&shard.node) {
            return Some(format!("{} should have left", shard.node));
        }
    }
    if children.iter().any(|them| *them > world.config.fanout_max) {
        return Some("too many children".to_owned());
    }
    if leaning.iter().any(|them| *them > BACKUP_CHILDREN_MAX) {
        return Some("too many lean on one".to_owned());
    }
    None
}

#[derive(Debug, Clone)]
enum Event {
    Up(u8),
    Kill(u8),
    Drain(u8),
    Undrain(u8),
    People(Vec<u8>),
    Asked(u8, u8),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (0_u8..24).prop_map(Event::Up),
        2 => (0_u8..24).prop_map(Event::Kill),
        1 => (0_u8..24).prop_map(Event::Drain),
        1 => (0_u8..24).prop_map(Event::Undrain),
        4 => prop::collection::vec(0_u8..200, 1..12).prop_map(Event::People),
        2 => (0_u8..3, 0_u8..200).prop_map(|(zone, people)| Event::Asked(zone, people)),
    ]
}

fn name(number: u8) -> String {
    format!("{}{number}", ["a", "b", "c"][usize::from(number % 3)])
}

fn apply(world: &mut World, event: Event) {
    match event {
        Event::Up(number) if !world.nodes.contains_key(&node_id(&name(number))) => {
            world.add(&name(number), 1 + u16::from(number % 4));
        }
        Event::Up(_) => {}
        Event::Kill(number) => world.kill(&name(number)),
        Event::Drain(number) => drop(world.leaving.insert(node_id(&name(number)))),
        Event::Undrain(number) => drop(world.leaving.remove(&node_id(&name(number)))),
        Event::People(people) => {
            world.spread(|rank| u32::from(people[rank % people.len()]));
            world.asked.clear();
        }
        Event::Asked(zone, people) => {
            let zone = ["a", "b", "c"][usize::from(zone)].to_owned();
            world.asked.insert(zone, u32::from(people));
        }
    }
}

/// A world of small fan-out, so that few shards make deep trees.
fn small() -> World {
    let mut world = World::new(&[], 1);
    for number in 0..16 {
        world.add(&name(number), 1 + u16::from(number % 4));
    }
    world.config.fanout_max = 4;
    world.config.home_children_reserved = 1;
    world.begin("a0");
    world
}

/// Nobody has reported; what was reported before counts for the plan there is.
fn report_again(world: &mut World) {
    let epoch = world.room.epoch();
    for node in world.nodes.values_mut() {
        for report in node.reports.values_mut().flatten() {
            report.epoch = epoch;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Bounded, connected, without loops, with backups, without those who must go.
    #[test]
    fn every_tree_is_sound(events in prop::collection::vec(any_event(), 1..40)) {
        let mut world = small();
        for event in events {
            apply(&mut world, event);
            let epoch = world.room.epoch();
            let changed = world.settle();
            prop_assert_eq!(fault(&world), None, "{:#?}", world.drawn());
            prop_assert_eq!(world.room.epoch() > epoch, changed);
            if world.shards().is_empty() {
                let home = world.nodes.keys().find(|it| !world.leaving.contains(*it)).cloned();
                if let Some(home) = home {
                    world.begin(home.as_str());
                }
            }
        }
    }

    /// What was planned is planned again as it is, at the latest after a repair
    /// has freed a place that a second one uses.
    #[test]
    fn planning_settles(events in prop::collection::vec(any_event(), 1..40)) {
        let mut world = small();
        for event in events {
            apply(&mut world, event);
            world.may_shrink = true;
            world.settle();
            world.may_shrink = false;
            for _ in 0..3 {
                report_again(&mut world);
                world.settle();
            }
            report_again(&mut world);
            let again = world.plan();
            prop_assert_eq!(&again.shards, &world.shards(), "{:#?}", world.drawn());
        }
    }

    /// A lost node costs the room its shards there and nothing more: who has a
    /// living parent keeps it.
    #[test]
    fn a_lost_node_moves_only_those_who_hung_on_it(
        people in 50_u32..3000, victim in 0_usize..40,
    ) {
        let mut world = small();
        // Of one zone: a place that becomes free in a zone draws its shards in.
        world.nodes.values_mut().for_each(|node| node.zone = "a".to_owned());
        world.may_shrink = false;
        world.people_on_each(people);
        world.settle();
        world.people_on_each(50);
        let before: Vec<_> = world.shards().to_vec();
        let victim = before[victim % before.len()].node.clone();
        world.kill(victim.as_str());
        world.settle();
        let parent_of = |shards: &[PlannedShard], at: &ShardRef| {
            let shard = shards.iter().find(|it| it.is(at))?;
            Some(shard.parent.map(|parent| shards[parent.index()].at()))
        };
        let mut chain_lives: Vec<bool> = Vec::new();
        for shard in &before {
            let above = shard.parent.is_none_or(|parent| chain_lives[parent.index()]);
            chain_lives.push(above && shard.node != victim);
        }
        for (shard, lives) in before.iter().zip(chain_lives) {
            if shard.node == victim {
                continue;
            }
            let at = shard.at();
            let is = parent_of(world.shards(), &at);
            prop_assert!(is.is_some(), "{at:?} lost its place");
            prop_assert!(!lives || is == parent_of(&before, &at), "{at:?} was moved");
        }
    }

    /// Whatever size a load led to, up or down: a fifth more or less than that
    /// load makes no plan that turns back, and none at all after growing.
    #[test]
    fn noise_makes_no_plan(
        (first, second) in (10_u32..4000, 10_u32..4000),
        noise in prop::collection::vec(0.8_f64..1.2, 1..30),
    ) {
        let mut world = small();
        let fill = |world: &mut World, people: f64| {
            let each = people / world.shards().len() as f64;
            world.people_on_each(each as u32);
        };
        for load in [first, second] {
            let before = world.shards().len();
            let mut last = before;
            for round in 0.. {
                prop_assert!(round < 40, "{load} people never settle: {:#?}", world.drawn());
                fill(&mut world, f64::from(load));
                if !world.settle() {
                    break;
                }
                let now = world.shards().len();
                let one_way = (before <= last && last <= now) || (before >= last && last >= now);
                prop_assert!(one_way, "{load} people: {before}, {last}, {now} shards");
                last = now;
            }
            let grew = last > before;
            if last == before {
                continue;
            }
            for factor in &noise {
                fill(&mut world, f64::from(load) * factor);
                let changed = world.settle();
                prop_assert!(!(grew && changed), "{load} * {factor}: {:#?}", world.drawn());
                prop_assert!(world.shards().len() <= last, "{load} * {factor} turns back");
                last = world.shards().len();
            }
        }
    }

    /// Whatever is late or lost, all shards together never admit more than the
    /// limit, and in the end all seats can be had.
    #[test]
    fn seats_never_exceed_the_limit(
        limit in 1_u32..120,
        steps in prop::collection::vec((any::<u8>(), 0_u8..8), 1..120),
    ) {
        let mut world = World::new(&["a1", "a2", "a3", "a4"], 1);
        world.config.shard_participants = 10;
        world.room.spec.max_participants = limit;
        world.begin("a1");
        // What each shard knows: its seats and epoch, and who is there.
        let mut shards: BTreeMap<ShardRef, (u32, Epoch, u32)> = BTreeMap::new();
        let home = world.shards()[0].at();
        shards.insert(home, (limit, world.room.epoch(), 0));
        for (choice, kind) in steps {
            let index = usize::from(choice) % shards.len();
            let (at, known) = shards.iter_mut().nth(index).map(|(a, k)| (a.clone(), k)).unwrap();
            match kind {
                // Somebody wants in.
                0..=2 => for _ in 0..=choice % 16 {
                    known.2 += u32::from(known.2 < known.0);
                },
                // Somebody leaves.
                3 => known.2 = known.2.saturating_sub(1),
                // The shard is told of the plan.
                4 => {
                    let plan = world.room.plan.clone().unwrap();
                    if let Some(planned) = plan.shards.iter().find(|it| it.is(&at)) {
                        *known = (planned.seats.unwrap_or(limit), plan.epoch, known.2);
                    }
                }
                // It reports.
                5 => {
                    let (_, epoch, people) = *known;
                    world.people(&at, people);
                    let node = world.nodes.get_mut(&at.node).unwrap();
                    node.reports.get_mut(&id()).unwrap()[0].epoch = epoch;
                }
                // The planner looks.
                _ => {
                    world.settle();
                    for planned in world.shards() {
                        shards.entry(planned.at()).or_insert((0, Epoch(0), 0));
                    }
                }
            }
            let people: u32 = shards.values().map(|(_, _, people)| people).sum();
            prop_assert!(people <= limit, "{people} of {limit}");
        }
    }
}
