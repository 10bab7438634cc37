//! The state of a room over a tree of shards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use headwater_relay::{Audience, EntryKey, EntryKind, Post, StateError, StateEvent};

use crate::cluster::{Cluster, room};
use crate::wire::Quality;

const CHAIN: &[(&str, Option<&str>, &[&str])] =
    &[("a", None, &[]), ("b", Some("a"), &[]), ("c", Some("b"), &["a"]), ("d", Some("b"), &["a"])];

fn participant(name: &str) -> EntryKey {
    EntryKey::new(EntryKind::Participant, name)
}

fn put(cluster: &mut Cluster, shard: &str, name: &str, incarnation: u64) {
    let value: Arc<[u8]> = format!("{name} on {shard}").into_bytes().into();
    let put =
        |state: &mut headwater_relay::RoomState| state.put(participant(name), incarnation, value);
    cluster.shard(shard).relay.with_state(&room(), put).unwrap().unwrap();
}

/// Names and values that a shard knows.
fn known(cluster: &Cluster, shard: &str) -> BTreeMap<String, String> {
    let junction = cluster.shards[shard].relay.junction(&room()).unwrap();
    let entries = junction.state().entries();
    entries
        .map(|(key, entry)| (key.id.to_string(), String::from_utf8(entry.value.to_vec()).unwrap()))
        .collect()
}

fn post(cluster: &mut Cluster, shard: &str, text: &str, ordered: bool) -> Result<(), StateError> {
    let now = cluster.now;
    let post =
        Post { sender: "ada".into(), destinations: Vec::new(), payload: text.as_bytes().into() };
    let send = |state: &mut headwater_relay::RoomState| match ordered {
        true => state.post(now, post),
        false => state.flood(now, post),
    };
    cluster.shard(shard).relay.with_state(&room(), send).unwrap()
}

fn texts(cluster: &Cluster, shard: &str) -> Vec<String> {
    let events = cluster.shards[shard].state_events();
    let posted = events.filter_map(|event| match event {
        StateEvent::Posted(_, post) => Some(String::from_utf8(post.payload.to_vec()).unwrap()),
        _ => None,
    });
    posted.collect()
}

fn tree() -> Cluster {
    let mut cluster = Cluster::new(&["a", "b", "c", "d"]);
    cluster.plan(1, CHAIN);
    cluster.pass(100);
    cluster
}

#[test]
fn all_shards_hold_what_any_of_them_said() {
    let mut cluster = tree();
    for (shard, name) in [("a", "ada"), ("b", "bob"), ("c", "cy"), ("d", "dan")] {
        put(&mut cluster, shard, name, 1);
    }
    cluster.pass(50);
    put(&mut cluster, "c", "cy", 1);
    let gone = |state: &mut headwater_relay::RoomState| state.remove(participant("bob"));
    cluster.shard("b").relay.with_state(&room(), gone).unwrap().unwrap();
    cluster.pass(50);
    let expected = known(&cluster, "a");
    assert_eq!(expected.keys().collect::<Vec<_>>(), ["ada", "cy", "dan"]);
    for shard in ["b", "c", "d"] {
        assert_eq!(known(&cluster, shard), expected, "on {shard}");
    }
}

#[test]
fn ordered_messages_come_once_and_in_one_order_everywhere() {
    let mut cluster = tree();
    cluster.wires.lock().unwrap().quality =
        Quality { delay: std::time::Duration::from_millis(7), loss: 0 };
    for index in 0..20 {
        post(&mut cluster, "c", &format!("c{index}"), true).unwrap();
        post(&mut cluster, "d", &format!("d{index}"), true).unwrap();
        cluster.pass(3);
    }
    cluster.pass(200);
    let order = texts(&cluster, "a");
    assert_eq!(order.len(), 40);
    for shard in ["b", "c", "d"] {
        assert_eq!(texts(&cluster, shard), order, "on {shard}");
    }
    let of_c: Vec<_> = order.iter().filter(|text| text.starts_with('c')).collect();
    assert_eq!(
        of_c,
        (0..20).map(|index| format!("c{index}")).collect::<Vec<_>>().iter().collect::<Vec<_>>()
    );
}

#[test]
fn a_file_sent_at_once_waits_for_its_turn_and_loses_nothing() {
    let mut cluster = tree();
    let pieces: Vec<String> = (0..1_300).map(|index| format!("piece {index}")).collect();
    for piece in &pieces {
        post(&mut cluster, "d", piece, true).unwrap();
    }
    let refused = (0..1_000).filter(|_| post(&mut cluster, "d", "x", true).is_err()).count();
    assert!(refused >= 800, "{refused}: what waits is bounded");
    cluster.pass(6_000);
    for shard in ["a", "b", "c"] {
        assert_eq!(texts(&cluster, shard)[..pieces.len()], pieces, "on {shard}");
    }
}

#[test]
fn floods_reach_everybody_else_once_and_are_limited() {
    let mut cluster = tree();
    post(&mut cluster, "c", "hey", false).unwrap();
    cluster.pass(50);
    for shard in ["a", "b", "d"] {
        assert_eq!(texts(&cluster, shard), ["hey"], "on {shard}");
    }
    assert!(texts(&cluster, "c").is_empty());
    let refused = (0..1_000).filter(|_| post(&mut cluster, "c", "x", false).is_err()).count();
    assert!(refused >= 590, "{refused}");
}

#[test]
fn a_dead_home_is_replaced_from_what_the_others_hold() {
    let mut cluster = tree();
    for (shard, name) in [("a", "ada"), ("b", "bob"), ("c", "cy"), ("d", "dan")] {
        put(&mut cluster, shard, name, 1);
    }
    cluster.pass(100);
    cluster.kill("a");
    // Said while there is no home.
    put(&mut cluster, "d", "eve", 1);
    cluster.pass(500);
    cluster.plan(2, &[("b", None, &[]), ("c", Some("b"), &[]), ("d", Some("b"), &[])]);
    let replaced = cluster.now;
    cluster.pass(300);
    for shard in ["b", "c", "d"] {
        let names: Vec<_> = known(&cluster, shard).into_keys().collect();
        assert!(names.contains(&"eve".to_owned()), "on {shard}: {names:?}");
    }
    // Ada comes back elsewhere before she is given up.
    put(&mut cluster, "c", "ada", 2);
    cluster.pass(6_000);
    let expected = known(&cluster, "b");
    assert_eq!(expected.keys().collect::<Vec<_>>(), ["ada", "bob", "cy", "dan", "eve"]);
    assert_eq!(expected["ada"], "ada on c");
    assert_eq!(known(&cluster, "c"), expected);
    assert_eq!(known(&cluster, "d"), expected);
    let removed = removals(&cluster, "c", replaced);
    assert_eq!(removed, Vec::<String>::new(), "nobody was away for a moment");
}

fn removals(cluster: &Cluster, shard: &str, since: Instant) -> Vec<String> {
    let events = &cluster.shards[shard].events;
    let gone = events.iter().filter(|(at, _)| *at >= since).filter_map(|(_, event)| match event {
        headwater_relay::RelayEvent::State(StateEvent::Removed(key)) => Some(key.id.to_string()),
        _ => None,
    });
    gone.collect()
}

#[test]
fn what_a_dead_shard_owned_goes_and_no_ghost_stays() {
    let mut cluster = tree();
    put(&mut cluster, "c", "cy", 1);
    put(&mut cluster, "d", "dan", 1);
    cluster.pass(100);
    cluster.kill("c");
    cluster.pass(8_000);
    for shard in ["a", "b", "d"] {
        assert_eq!(known(&cluster, shard).keys().collect::<Vec<_>>(), ["dan"], "on {shard}");
    }
}

#[test]
fn a_participant_that_moved_is_lost_where_it_was() {
    let mut cluster = tree();
    put(&mut cluster, "c", "cy", 1);
    cluster.pass(50);
    put(&mut cluster, "d", "cy", 2);
    cluster.pass(50);
    assert!(cluster.shards["c"].state_events().any(|e| *e == StateEvent::Lost(participant("cy"))));
    // What the former place says late changes nothing.
    put(&mut cluster, "c", "cy", 1);
    cluster.pass(50);
    for shard in ["a", "b", "c", "d"] {
        assert_eq!(known(&cluster, shard)["cy"], "cy on d");
    }
}

#[test]
fn counts_and_tallies_are_added_up_over_the_tree() {
    let mut cluster = tree();
    for (shard, count) in [("a", 3), ("b", 100), ("c", 2_000), ("d", 500)] {
        let mut audience = Audience::default();
        (0..count).for_each(|index| audience.add(&format!("{shard}{index}"), index == 0));
        let relay = &mut cluster.shard(shard).relay;
        let say = |state: &mut headwater_relay::RoomState| {
            state.set_audience(audience);
            state.tally("clap", count);
            Ok(())
        };
        relay.with_state(&room(), say).unwrap().unwrap();
    }
    cluster.pass(3_000);
    for shard in ["a", "b", "c", "d"] {
        let events: Vec<_> = cluster.shards[shard].state_events().collect();
        let audience = events.iter().rev().find_map(|event| match event {
            StateEvent::Audience(audience) => Some(audience),
            _ => None,
        });
        let audience = audience.unwrap();
        assert_eq!((audience.participants, audience.publishers), (2_603, 4), "on {shard}");
        assert_eq!(audience.sample().count(), 50);
        let totals = events.iter().rev().find_map(|event| match event {
            StateEvent::Totals(totals) => Some(totals),
            _ => None,
        });
        assert_eq!(totals.unwrap().get("clap"), Some(&2_603), "on {shard}");
    }
}
