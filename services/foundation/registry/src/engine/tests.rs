//! The in-process registry, on a clock of the test's own.

use proptest::prelude::*;

use super::*;

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn commit(engine: &mut Engine, transaction: Transaction) -> Committed {
    let prepared = engine.prepare(transaction).unwrap();
    engine.apply(prepared).0
}

fn put(engine: &mut Engine, name: &str) -> Revision {
    commit(engine, Transaction::new().put(key(name), "v")).revision
}

fn put_under(engine: &mut Engine, name: &str, lease: LeaseId) {
    let put = Operation::Put { key: key(name), value: "v".into(), lease: Some(lease) };
    assert!(commit(engine, Transaction::new().then(put)).succeeded);
}

#[test]
fn preparing_changes_nothing() {
    let mut engine = Engine::default();
    put(&mut engine, "a");
    let before = engine.list(&Prefix::ALL);
    let prepared = engine.prepare(Transaction::new().put(key("b"), "v")).unwrap();
    assert_eq!(prepared.committed.revision, Revision(2));
    assert_eq!(engine.list(&Prefix::ALL), before);
}

#[test]
fn a_transaction_that_writes_nothing_makes_no_revision() {
    let mut engine = Engine::default();
    put(&mut engine, "a");
    let gone = commit(&mut engine, Transaction::new().then(Operation::Delete(key("none"))));
    assert_eq!(gone.revision, Revision(1));
    assert_eq!(engine.changes_after(Revision(1), &Prefix::ALL).unwrap(), []);
}

#[test]
fn a_listing_holds_its_folder_and_no_other() {
    let mut engine = Engine::default();
    for name in ["rooms/b", "rooms/a", "room", "rooms!", "roomsz/a", "nodes/a", "z"] {
        put(&mut engine, name);
    }
    let listed = engine.list(&Prefix::below("rooms").unwrap());
    let names: Vec<_> = listed.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(names, ["rooms/a", "rooms/b"]);
    assert_eq!(listed.revision, Revision(7));
}

#[test]
fn an_ended_lease_takes_its_keys_and_only_those() {
    let now = Instant::now();
    let mut engine = Engine::default();
    let lease = engine.grant(now, Duration::from_secs(10)).unwrap().id;
    put_under(&mut engine, "kept", lease);
    put_under(&mut engine, "gone", lease);
    put(&mut engine, "kept");
    assert_eq!(engine.expired(now + Duration::from_millis(9_999)), None);
    assert_eq!(engine.poll_timeout(), Some(now + Duration::from_secs(10)));
    let later = now + Duration::from_secs(10);
    assert_eq!(engine.expired(later), Some(lease));
    let end = engine.prepare_end(lease).unwrap();
    let told = engine.apply(end).1.unwrap();
    engine.forget_lease(lease);
    assert_eq!(told.changes, [Change::Deleted { key: key("gone"), revision: Revision(4) }]);
    assert!(engine.get(&key("kept")).is_some());
    assert!(matches!(engine.keep_alive(later, lease), Err(StoreError::LeaseNotFound(_))));
}

#[test]
fn keeping_alive_moves_the_end() {
    let now = Instant::now();
    let mut engine = Engine::default();
    let lease = engine.grant(now, Duration::from_secs(10)).unwrap().id;
    engine.keep_alive(now + Duration::from_secs(9), lease).unwrap();
    assert_eq!(engine.expired(now + Duration::from_secs(18)), None);
    assert_eq!(engine.expired(now + Duration::from_secs(19)), Some(lease));
}

#[test]
fn the_history_is_bounded_and_says_where_it_starts() {
    let mut engine = Engine::default();
    for _ in 0..HISTORY_REVISIONS_MAX + 10 {
        put(&mut engine, "a");
    }
    assert_eq!(engine.history.len(), HISTORY_REVISIONS_MAX);
    let error = engine.changes_after(Revision(9), &Prefix::ALL).unwrap_err();
    assert!(matches!(error, WatchError::Gap { oldest: Revision(10), .. }), "{error}");
    assert_eq!(
        engine.changes_after(Revision(10), &Prefix::ALL).unwrap().len(),
        HISTORY_REVISIONS_MAX
    );
}

#[test]
fn large_values_shorten_the_history() {
    let mut engine = Engine::default();
    for _ in 0..100 {
        let value = vec![0; 1_000_000];
        let _ = commit(&mut engine, Transaction::new().put(key("a"), value));
    }
    assert!(engine.history_bytes <= HISTORY_BYTES_MAX);
    assert_eq!(engine.history.len(), HISTORY_BYTES_MAX / 1_000_001);
}

#[test]
fn a_full_registry_refuses_more_but_still_takes_less() {
    let mut engine = Engine::default();
    let value = vec![0; 1_000_000];
    let count = BYTES_MAX / 1_000_003;
    for i in 0..count {
        let name = format!("{i:03}");
        let _ = commit(&mut engine, Transaction::new().put(key(&name), value.clone()));
    }
    let more = Transaction::new().put(key("999"), value.clone());
    assert!(matches!(engine.prepare(more), Err(StoreError::Full)));
    let less = commit(&mut engine, Transaction::new().put(key("000"), "v"));
    assert!(less.succeeded);
    assert!(engine.prepare(Transaction::new().put(key("999"), value)).is_ok());
}

#[test]
fn a_future_revision_is_a_gap() {
    let mut engine = Engine::default();
    put(&mut engine, "a");
    let error = engine.changes_after(Revision(2), &Prefix::ALL).unwrap_err();
    assert!(matches!(error, WatchError::Gap { .. }));
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, bool),
    Delete(u8),
    Swap(u8),
    EndLease,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0u8..5, any::<bool>()).prop_map(|(k, leased)| Step::Put(k, leased)),
        (0u8..5).prop_map(Step::Delete),
        (0u8..5).prop_map(Step::Swap),
        Just(Step::EndLease),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    /// Replaying what watchers are told gives the state that a listing shows.
    #[test]
    fn history_and_state_agree(steps in steps()) {
        let now = Instant::now();
        let mut engine = Engine::default();
        let mut lease = engine.grant(now, Duration::from_secs(9)).unwrap().id;
        for step in steps {
            let name = |k: u8| key(&format!("k{k}"));
            match step {
                Step::Put(k, leased) => {
                    let lease = leased.then_some(lease);
                    let put = Operation::Put { key: name(k), value: "v".into(), lease };
                    let _ = commit(&mut engine, Transaction::new().then(put));
                }
                Step::Delete(k) => {
                    let _ = commit(&mut engine, Transaction::new().then(Operation::Delete(name(k))));
                }
                Step::Swap(k) => {
                    let at = engine.get(&name(k)).map_or(Revision(0), |entry| entry.mod_revision);
                    let swapped = commit(&mut engine, Transaction::replace(name(k), at, "w"));
                    prop_assert_eq!(swapped.succeeded, at != Revision(0));
                }
                Step::EndLease => {
                    let end = engine.prepare_end(lease).unwrap();
                    let _ = engine.apply(end);
                    engine.forget_lease(lease);
                    lease = engine.grant(now, Duration::from_secs(9)).unwrap().id;
                }
            }
        }
        let mut replayed = BTreeMap::new();
        let mut last = Revision(0);
        for changes in engine.changes_after(Revision(0), &Prefix::ALL).unwrap() {
            prop_assert!(changes.revision > last);
            last = changes.revision;
            for change in changes.changes {
                match change {
                    Change::Put(entry) => { replayed.insert(entry.key.clone(), entry); }
                    Change::Deleted { key, .. } => { replayed.remove(&key); }
                }
            }
        }
        prop_assert_eq!(last, engine.revision());
        let listed = engine.list(&Prefix::ALL).entries;
        prop_assert_eq!(replayed.into_values().collect::<Vec<_>>(), listed.clone());
        prop_assert_eq!(engine.bytes, listed.iter().map(entry_bytes).sum::<usize>());
        let bound: BTreeSet<Key> =
            listed.iter().filter(|e| e.lease.is_some()).map(|e| e.key.clone()).collect();
        prop_assert_eq!(&engine.leases[&lease].keys, &bound);
    }
}
