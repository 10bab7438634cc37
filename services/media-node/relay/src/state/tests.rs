//! Rules of the room's state, in any order of what is said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_model::Epoch;
use proptest::prelude::*;

use super::*;
use crate::link::LinkKey;
use crate::plan::ShardTag;

const CHILD: LinkKey = LinkKey(1);
const FOLLOWER: LinkKey = LinkKey(2);

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
fn start() -> Instant {
    Instant::now()
}

fn owner(shard: u64) -> Owner {
    Owner { shard: ShardTag(shard), boot: 1 }
}

fn key(id: u8) -> EntryKey {
    EntryKey::new(EntryKind::Participant, &format!("p{id}"))
}

fn value(owner: u64, incarnation: u64) -> Arc<[u8]> {
    [owner as u8, incarnation as u8][..].into()
}

fn claim(of: u64, entries: &BTreeMap<u8, u64>) -> StateMessage {
    let entries = entries.iter().map(|(id, n)| (key(*id), *n, value(of, *n))).collect();
    StateMessage::Claim { owner: owner(of), number: 5, first: true, last: true, entries }
}

/// Passes everything to a follower, and back what it says.
fn exchange(now: Instant, home: &mut RoomState, follower: &mut RoomState) {
    loop {
        let mut any = false;
        while let Some(output) = home.poll_output() {
            any = true;
            match output {
                StateOutput::DownAll(message) | StateOutput::Down(FOLLOWER, message) => {
                    follower.handle_down(now, message);
                }
                StateOutput::Down(..) | StateOutput::Up(_) | StateOutput::Event(_) => {}
            }
        }
        while let Some(output) = follower.poll_output() {
            any = true;
            if let StateOutput::Up(message) = output {
                home.handle_up(now, FOLLOWER, message);
            }
        }
        if !any {
            return;
        }
    }
}

/// A home that is new wants a claim for each thing that it hears of a shard it does not
/// know: then all of these wants are on their way before the first claim is.
#[test]
fn a_message_comes_once_however_often_the_home_wants_a_claim() {
    let now = start();
    let mut home = RoomState::new(owner(100), Epoch(2), true, Timing::default(), now);
    let mut follower = RoomState::new(owner(101), Epoch(2), false, Timing::default(), now);
    follower.put(key(1), 1, value(101, 1)).unwrap();
    for payload in [&b"first"[..], b"second"] {
        let payload = payload.into();
        let post = Post { sender: "ada".into(), destinations: Vec::new(), payload };
        follower.post(now, post).unwrap();
        follower.put(key(1), 2, value(101, 2)).unwrap();
    }
    follower.upstream_changed(now);
    let mut said = Vec::new();
    let mut posted = Vec::new();
    for _ in 0..20 {
        while let Some(output) = follower.poll_output() {
            if let StateOutput::Up(message) = output {
                home.handle_up(now, FOLLOWER, message);
            }
        }
        while let Some(output) = home.poll_output() {
            match output {
                StateOutput::DownAll(message) | StateOutput::Down(FOLLOWER, message) => {
                    said.push(message);
                }
                StateOutput::Event(StateEvent::Posted(_, post)) => posted.push(post.payload),
                _ => {}
            }
        }
        // All that the home said arrives at once.
        said.drain(..).for_each(|message| follower.handle_down(now, message));
    }
    assert_eq!(posted, [Arc::from(&b"first"[..]), Arc::from(&b"second"[..])]);
    assert_eq!(held(&home), BTreeMap::from([("p1".to_owned(), (owner(101), 2))]));
    assert_eq!(held(&follower), held(&home));
}

/// An entry that stands behind one of this shard's own is heard of when that goes.
#[test]
fn who_lets_go_of_its_own_hears_of_the_one_behind_it() {
    let now = start();
    let entry = Entry { owner: owner(3), incarnation: 9, value: value(3, 9) };
    let snapshot = |epoch| StateMessage::Snapshot {
        epoch: Epoch(epoch),
        version: 4,
        first: true,
        last: true,
        entries: vec![(key(1), entry.clone())],
    };
    let events = |state: &mut RoomState| {
        let outputs = std::iter::from_fn(|| state.poll_output());
        outputs
            .filter_map(|output| match output {
                StateOutput::Event(event) => Some(event),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    let put = StateEvent::Put(key(1), entry.clone());

    let mut state = RoomState::new(owner(2), Epoch(1), false, Timing::default(), now);
    state.put(key(1), 5, value(2, 5)).unwrap();
    state.handle_down(now, snapshot(2));
    let heard = events(&mut state);
    assert_eq!(heard, std::slice::from_ref(&put), "a new home may not have confirmed it yet");
    state.remove(key(1)).unwrap();
    assert_eq!(events(&mut state), std::slice::from_ref(&put));

    let mut state = RoomState::new(owner(2), Epoch(1), false, Timing::default(), now);
    state.put(key(1), 5, value(2, 5)).unwrap();
    state.handle_down(now, snapshot(2));
    events(&mut state);
    let changes = vec![Change::Put(key(1), entry.clone())];
    state.handle_down(now, StateMessage::Changes { epoch: Epoch(2), version: 5, changes });
    assert_eq!(events(&mut state), [StateEvent::Lost(key(1)), put]);
}

fn held(state: &RoomState) -> BTreeMap<String, (Owner, u64)> {
    let entries = state.entries();
    entries.map(|(key, entry)| (key.id.to_string(), (entry.owner, entry.incarnation))).collect()
}

prop_compose! {
    /// What each of five shards has: ids with incarnations, which differ between shards.
    fn worlds()(
        lists in prop::collection::vec(prop::collection::btree_map(0_u8..8, 0_u64..4, 0..6), 5),
        stale in prop::collection::btree_map(0_u8..8, (1_u64..8, 0_u64..4), 0..8),
        order in Just((1_u64..=5).collect::<Vec<_>>()).prop_shuffle(),
        dead in prop::collection::btree_set(1_u64..=5, 0..3),
        twice: bool,
    ) -> (Vec<BTreeMap<u8, u64>>, BTreeMap<u8, (u64, u64)>, Vec<u64>, BTreeSet<u64>, bool) {
        (lists, stale, order, dead, twice)
    }
}

proptest! {
    /// Nobody is there twice (a key has one entry), no ghost stays (each entry is
    /// claimed by a shard that lives), nobody is missing, whatever the order.
    #[test]
    fn a_new_home_ends_with_what_the_living_claim((lists, stale, order, dead, twice) in worlds()) {
        let now = start();
        let mut home = RoomState::new(owner(100), Epoch(1), false, Timing::default(), now);
        let entries: Vec<_> = stale
            .iter()
            .map(|(id, (of, n))| {
                (key(*id), Entry { owner: owner(*of), incarnation: *n, value: value(*of, *n) })
            })
            .collect();
        let snapshot =
            StateMessage::Snapshot { epoch: Epoch(1), version: 9, first: true, last: true, entries };
        home.handle_down(now, snapshot);
        home.set_role(now, Epoch(2), true);
        let mut follower = RoomState::new(owner(101), Epoch(2), false, Timing::default(), now);
        follower.upstream_changed(now);
        exchange(now, &mut home, &mut follower);
        let living: Vec<_> = order.iter().filter(|shard| !dead.contains(shard)).collect();
        for shard in &living {
            let list = &lists[**shard as usize - 1];
            home.handle_up(now, CHILD, claim(**shard, list));
            if twice {
                home.handle_up(now, CHILD, claim(**shard, list));
            }
            exchange(now, &mut home, &mut follower);
        }
        let later = now + Timing::default().claim_grace + Duration::from_millis(1);
        home.handle_timeout(later);
        exchange(later, &mut home, &mut follower);
        let mut expected = BTreeMap::<String, (Owner, u64)>::new();
        for shard in living {
            for (id, incarnation) in &lists[*shard as usize - 1] {
                let claimed = (owner(*shard), *incarnation);
                let best = expected.entry(format!("p{id}")).or_insert(claimed);
                if (claimed.1, claimed.0) > (best.1, best.0) {
                    *best = claimed;
                }
            }
        }
        prop_assert_eq!(&held(&home), &expected);
        prop_assert_eq!(&held(&follower), &expected);
        prop_assert_eq!(home.position(), follower.position());
    }

    /// Requests that come twice, late or not at all leave the state that the owner has.
    #[test]
    fn requests_are_taken_once_and_in_order(
        operations in prop::collection::vec((0_u8..4, any::<bool>()), 1..30),
        fate in prop::collection::vec(0_u8..4, 30),
    ) {
        let now = start();
        let mut home = RoomState::new(owner(100), Epoch(1), true, Timing::default(), now);
        let mut child = RoomState::new(owner(1), Epoch(1), false, Timing::default(), now);
        child.upstream_changed(now);
        let mut kept: Vec<StateMessage> = Vec::new();
        for (index, (id, puts)) in operations.iter().enumerate() {
            match puts {
                true => child.put(key(*id), 1, value(1, index as u64)).unwrap(),
                false => child.remove(key(*id)).unwrap(),
            }
            while let Some(output) = child.poll_output() {
                let StateOutput::Up(message) = output else { continue };
                match fate[index] {
                    0 => {}
                    1 => {
                        home.handle_up(now, FOLLOWER, message.clone());
                        kept.push(message);
                    }
                    _ => home.handle_up(now, FOLLOWER, message),
                }
            }
        }
        kept.into_iter().rev().for_each(|message| home.handle_up(now, FOLLOWER, message));
        exchange(now, &mut home, &mut child);
        for second in 1..4 {
            let later = now + Duration::from_secs(second);
            child.handle_timeout(later);
            exchange(later, &mut home, &mut child);
        }
        let own: BTreeMap<_, _> = child.own.clone();
        let at_home: BTreeMap<_, _> = home
            .entries()
            .map(|(key, entry)| (key.clone(), (entry.incarnation, Arc::clone(&entry.value))))
            .collect();
        prop_assert_eq!(at_home, own);
        prop_assert!(child.pending.is_empty(), "everything is acknowledged");
    }
}

#[test]
fn a_replica_that_missed_a_change_catches_up_and_one_far_behind_gets_everything() {
    let now = start();
    let mut home = RoomState::new(owner(100), Epoch(1), true, Timing::default(), now);
    let mut replica = RoomState::new(owner(1), Epoch(1), false, Timing::default(), now);
    replica.upstream_changed(now);
    exchange(now, &mut home, &mut replica);
    let drop_all = |state: &mut RoomState| while state.poll_output().is_some() {};
    for round in [3, 2_000] {
        for index in 0..round {
            home.put(key((index % 200) as u8), index, value(100, index)).unwrap();
        }
        drop_all(&mut home);
        home.put(key(250), round, value(100, 1)).unwrap();
        exchange(now, &mut home, &mut replica);
        assert_eq!(held(&replica), held(&home), "after {round} missed");
        assert_eq!(replica.position(), home.position());
    }
}

#[test]
fn what_an_older_home_still_says_is_not_heard() {
    let now = start();
    let mut replica = RoomState::new(owner(1), Epoch(3), false, Timing::default(), now);
    let snapshot = |epoch, version| StateMessage::Snapshot {
        epoch: Epoch(epoch),
        version,
        first: true,
        last: true,
        entries: Vec::new(),
    };
    replica.handle_down(now, snapshot(3, 10));
    assert_eq!(replica.position(), (Epoch(3), 10));
    replica.handle_down(now, snapshot(2, 50));
    let entry = Entry { owner: owner(9), incarnation: 1, value: value(9, 1) };
    let changes = vec![Change::Put(key(1), entry)];
    replica.handle_down(now, StateMessage::Changes { epoch: Epoch(2), version: 11, changes });
    assert_eq!(replica.position(), (Epoch(3), 10));
    assert!(held(&replica).is_empty());
}

#[test]
fn what_is_too_long_or_too_much_is_refused() {
    let now = start();
    let mut replica = RoomState::new(owner(1), Epoch(1), false, Timing::default(), now);
    let long: Arc<[u8]> = vec![0; VALUE_MAX + 1].into();
    assert_eq!(replica.put(key(1), 1, long), Err(StateError::TooLong));
    let full = (0..5_000).find_map(|index| replica.put(key(1), index, value(1, 1)).err());
    assert_eq!(full, Some(StateError::Full), "nobody acknowledges");
    assert!(replica.pending.len() <= 1_024);
}
