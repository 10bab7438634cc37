//! Watching: everything once and in order, over interruptions and compactions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use headwater_registry::{
    Change, Operation, Prefix, Revision, Transaction, Watch, WatchError, WatchEvent, WatchState,
};

use crate::support::{
    Cuttable, Fixture, changes_until, delete, key, next_changes, next_snapshot, put, put_op, short,
    within,
};

pub async fn changes_are_told_once_and_in_order(fixture: Fixture) {
    let store = fixture.store;
    let start = put(&*store, "rooms/before", "0").await;
    let mut stream = store.watch(&Prefix::below("rooms").unwrap(), start).await.unwrap();
    let mut expected = Vec::new();
    for i in 0..50 {
        put(&*store, "rooms/a", &i.to_string()).await;
        put(&*store, "elsewhere", "x").await;
        expected.push(format!("rooms/a={i}"));
    }
    delete(&*store, "rooms/a").await;
    put(&*store, "rooms/end", "1").await;
    expected.extend(["rooms/a-".to_owned(), "rooms/end=1".to_owned()]);
    assert_eq!(changes_until(&mut stream, "rooms/end=1").await, expected);
}

pub async fn a_transaction_is_told_whole(fixture: Fixture) {
    let store = fixture.store;
    let start = put(&*store, "a", "0").await;
    let mut stream = store.watch(&Prefix::ALL, start).await.unwrap();
    let all = Transaction::new()
        .then(Operation::Delete(key("a")))
        .then(put_op("b", "1", None))
        .then(put_op("c", "1", None));
    let done = store.commit(all).await.unwrap();
    let told = within(Duration::from_secs(10), "changes", stream.next()).await.unwrap().unwrap();
    assert_eq!(told.revision, done.revision);
    let mut shorts: Vec<_> = told.changes.iter().map(short).collect();
    shorts.sort();
    assert_eq!(shorts, ["a-", "b=1", "c=1"]);
    assert!(told.changes.iter().all(|change| change.revision() == done.revision));
}

pub async fn old_changes_are_told_again_from_a_revision(fixture: Fixture) {
    let store = fixture.store;
    let mut revisions = vec![store.revision().await.unwrap()];
    for i in 0..10 {
        revisions.push(put(&*store, "a", &i.to_string()).await);
    }
    for from in [0, 4, 9] {
        let mut stream = store.watch(&Prefix::ALL, revisions[from]).await.unwrap();
        let expected: Vec<_> = (from..10).map(|i| format!("a={i}")).collect();
        assert_eq!(changes_until(&mut stream, "a=9").await, expected);
    }
}

pub async fn a_revision_that_never_was_is_a_gap(fixture: Fixture) {
    let store = fixture.store;
    let now = put(&*store, "a", "1").await;
    let future = Revision(now.0 + 1_000_000);
    let error = match store.watch(&Prefix::ALL, future).await {
        Err(error) => error,
        Ok(mut stream) => within(Duration::from_secs(10), "the end", stream.next())
            .await
            .expect("an error before the end")
            .unwrap_err(),
    };
    assert!(matches!(error, WatchError::Gap { after, .. } if after == future), "{error}");
}

/// Writers are at work while the watch begins: what it tells and what is there
/// in the end must agree, with nothing between snapshot and changes lost.
pub async fn snapshot_then_changes_without_a_seam(fixture: Fixture) {
    let store = fixture.store;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for i in 0..40 {
                    put(&*store, &format!("w{writer}/{}", i % 7), &i.to_string()).await;
                    if i % 5 == 4 {
                        delete(&*store, &format!("w{writer}/{}", i % 7)).await;
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let mut watch = Watch::start(Arc::clone(&store), Prefix::ALL);
    let snapshot = next_snapshot(&mut watch).await;
    let mut last = snapshot.revision;
    let mut seen: BTreeMap<_, _> =
        snapshot.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
    for writer in writers {
        writer.await.unwrap();
    }
    put(&*store, "end", "1").await;
    while !seen.contains_key(&key("end")) {
        let changes = next_changes(&mut watch).await;
        assert!(changes.revision > last);
        last = changes.revision;
        for change in changes.changes {
            match change {
                Change::Put(entry) => {
                    let before = seen.insert(entry.key.clone(), entry.clone());
                    assert_eq!(before.map_or(0, |b| b.version) + 1, entry.version, "no step lost");
                }
                Change::Deleted { key, .. } => assert!(seen.remove(&key).is_some()),
            }
        }
    }
    let listed = store.list(&Prefix::ALL).await.unwrap().entries;
    assert_eq!(seen.into_values().collect::<Vec<_>>(), listed);
}

/// Cut once so that the history still reaches back, and once so that it does
/// not: the second time the differences are told.
pub async fn a_broken_watch_resumes_without_loss(fixture: Fixture) {
    let store = Cuttable::new(Arc::clone(&fixture.store));
    for name in ["stays", "changes", "goes"] {
        put(&*fixture.store, name, "0").await;
    }
    let mut watch = Watch::start(store.clone(), Prefix::ALL);
    assert_eq!(next_snapshot(&mut watch).await.entries.len(), 3);
    let mut state = watch.state();
    let mut reaches = async |wanted| {
        let reached = state.wait_for(|state| *state == wanted);
        drop(within(Duration::from_secs(10), "watch state", reached).await.unwrap());
    };
    reaches(WatchState::Following).await;

    store.cut();
    reaches(WatchState::Interrupted).await;
    put(&*fixture.store, "changes", "1").await;
    put(&*fixture.store, "changes", "2").await;
    store.mend();
    reaches(WatchState::Following).await;
    let mut told = Vec::new();
    while told.len() < 2 {
        told.extend(next_changes(&mut watch).await.changes.iter().map(short));
    }
    assert_eq!(told, ["changes=1", "changes=2"]);

    store.cut();
    reaches(WatchState::Interrupted).await;
    put(&*fixture.store, "changes", "3").await;
    delete(&*fixture.store, "goes").await;
    put(&*fixture.store, "brief", "1").await;
    delete(&*fixture.store, "brief").await;
    put(&*fixture.store, "comes", "1").await;
    let now = put(&*fixture.store, "changes", "4").await;
    (fixture.compact)(now).await;
    store.mend();
    reaches(WatchState::Following).await;
    let differences = next_changes(&mut watch).await;
    let shorts: Vec<_> = differences.changes.iter().map(short).collect();
    assert_eq!(shorts, ["goes-", "comes=1", "changes=4"]);
    put(&*fixture.store, "after", "1").await;
    let after = next_changes(&mut watch).await;
    assert_eq!(after.changes.iter().map(short).collect::<Vec<_>>(), ["after=1"]);
}

/// More changes than all queues between hold while the reader sleeps.
pub async fn a_slow_reader_loses_nothing(fixture: Fixture) {
    const COUNT: usize = 2000;
    let store = fixture.store;
    let mut watch = Watch::start(Arc::clone(&store), Prefix::ALL);
    next_snapshot(&mut watch).await;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for i in 0..COUNT / 8 {
                    put(&*store, &format!("w{writer}"), &i.to_string()).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut total = 0;
    while total < COUNT {
        let WatchEvent::Changes(changes) =
            within(Duration::from_secs(20), "changes", watch.next()).await
        else {
            panic!("a second snapshot")
        };
        for change in changes.changes {
            let Change::Put(entry) = change else { panic!("nothing is deleted") };
            let count = counts.entry(entry.key.to_string()).or_default();
            assert_eq!(&entry.value[..], count.to_string().as_bytes(), "in order");
            *count += 1;
            total += 1;
        }
    }
    assert_eq!(counts.len(), 8);
    assert!(counts.values().all(|count| *count == COUNT / 8));
}
