//! Reading, and compare-and-swap.

use std::sync::Arc;

use headwater_registry::{
    Compare, Operation, Prefix, Revision, StoreError, Transaction, TransactionError,
};

use crate::support::{Fixture, delete, key, put, put_op, put_under, value};

pub async fn a_key_that_was_never_written_is_absent(fixture: Fixture) {
    let store = fixture.store;
    assert_eq!(store.get(&key("none")).await.unwrap(), None);
    assert_eq!(store.list(&Prefix::ALL).await.unwrap().entries, []);
    let before = store.revision().await.unwrap();
    delete(&*store, "none").await;
    assert!(store.revision().await.unwrap() >= before);
}

pub async fn writing_counts_versions_and_revisions(fixture: Fixture) {
    let store = fixture.store;
    let first = put(&*store, "a", "1").await;
    let second = put(&*store, "a", "2").await;
    assert!(second > first);
    let entry = store.get(&key("a")).await.unwrap().unwrap();
    assert_eq!(&entry.value[..], b"2");
    assert_eq!((entry.create_revision, entry.mod_revision), (first, second));
    assert_eq!((entry.version, entry.lease), (2, None));
    assert!(store.revision().await.unwrap() >= second);
    delete(&*store, "a").await;
    assert_eq!(store.get(&key("a")).await.unwrap(), None);
    let again = put(&*store, "a", "3").await;
    let entry = store.get(&key("a")).await.unwrap().unwrap();
    assert_eq!((entry.create_revision, entry.version), (again, 1));
}

/// More keys than one answer of etcd holds, and neighbours of the folder.
pub async fn a_listing_is_sorted_and_whole(fixture: Fixture) {
    let store = fixture.store;
    for chunk in (0..300).collect::<Vec<_>>().chunks(100) {
        let all = chunk.iter().fold(Transaction::new(), |transaction, i| {
            transaction.then(put_op(&format!("rooms/{i:03}"), &i.to_string(), None))
        });
        assert!(store.commit(all).await.unwrap().succeeded);
    }
    for neighbour in ["rooms", "rooms.", "rooms0", "room/x", "roomsx/y"] {
        put(&*store, neighbour, "neighbour").await;
    }
    let last = put(&*store, "rooms/Zürich", "é").await;
    let listed = store.list(&Prefix::below("rooms").unwrap()).await.unwrap();
    let names: Vec<_> = listed.entries.iter().map(|e| e.key.as_str().to_owned()).collect();
    let mut expected: Vec<_> = (0..300).map(|i| format!("rooms/{i:03}")).collect();
    expected.push("rooms/Zürich".to_owned());
    assert_eq!(names, expected);
    assert!(listed.revision >= last);
    assert_eq!(&listed.entries[299].value[..], b"299");
}

pub async fn creating_succeeds_once(fixture: Fixture) {
    let store = fixture.store;
    let first = store.commit(Transaction::create(key("a"), "1")).await.unwrap();
    assert!(first.succeeded);
    let second = store.commit(Transaction::create(key("a"), "2")).await.unwrap();
    assert!(!second.succeeded);
    let entry = store.get(&key("a")).await.unwrap().unwrap();
    assert_eq!((&entry.value[..], entry.mod_revision), (&b"1"[..], first.revision));
}

pub async fn replacing_needs_the_last_revision(fixture: Fixture) {
    let store = fixture.store;
    let first = put(&*store, "a", "1").await;
    let second = store.commit(Transaction::replace(key("a"), first, "2")).await.unwrap();
    assert!(second.succeeded);
    assert!(!store.commit(Transaction::replace(key("a"), first, "3")).await.unwrap().succeeded);
    assert!(!store.commit(Transaction::remove(key("a"), first)).await.unwrap().succeeded);
    assert!(!store.commit(Transaction::replace(key("b"), first, "3")).await.unwrap().succeeded);
    assert_eq!(value(&*store, "a").await.unwrap(), "2");
    assert!(store.commit(Transaction::remove(key("a"), second.revision)).await.unwrap().succeeded);
    assert_eq!(value(&*store, "a").await, None);
}

/// The create revision is what fences a deposed leader.
pub async fn a_key_made_anew_is_another_key(fixture: Fixture) {
    let store = fixture.store;
    let made = put(&*store, "leader", "x").await;
    put(&*store, "leader", "still x").await;
    let fenced = || {
        Transaction::new()
            .when(Compare::CreateRevision(key("leader"), made))
            .then(put_op("owned", "by x", None))
    };
    assert!(store.commit(fenced()).await.unwrap().succeeded);
    delete(&*store, "leader").await;
    assert!(!store.commit(fenced()).await.unwrap().succeeded);
    put(&*store, "leader", "y").await;
    assert!(!store.commit(fenced()).await.unwrap().succeeded);
}

pub async fn a_failed_transaction_writes_nothing_and_reads_otherwise(fixture: Fixture) {
    let store = fixture.store;
    put(&*store, "a", "1").await;
    let transaction = || {
        Transaction::new()
            .when(Compare::Absent(key("x")))
            .when(Compare::Absent(key("a")))
            .then(put_op("x", "x", None))
            .then(put_op("y", "y", None))
            .otherwise(Operation::Get(key("a")))
            .otherwise(Operation::Get(key("none")))
    };
    let failed = store.commit(transaction()).await.unwrap();
    assert!(!failed.succeeded);
    let [Some(found), None] = &failed.read[..] else { panic!("{:?}", failed.read) };
    assert_eq!((found.key.as_str(), &found.value[..]), ("a", &b"1"[..]));
    assert_eq!(value(&*store, "x").await, None);
    delete(&*store, "a").await;
    let done = store.commit(transaction().then(Operation::Get(key("none")))).await.unwrap();
    assert!(done.succeeded);
    assert_eq!(done.read, [None]);
    let x = store.get(&key("x")).await.unwrap().unwrap();
    let y = store.get(&key("y")).await.unwrap().unwrap();
    assert_eq!((x.mod_revision, y.mod_revision), (done.revision, done.revision));
}

pub async fn a_lease_can_be_compared(fixture: Fixture) {
    let store = fixture.store;
    let ours = store.grant_lease(fixture.ttl * 10).await.unwrap().id;
    let other = store.grant_lease(fixture.ttl * 10).await.unwrap().id;
    put_under(&*store, "a", "1", ours).await;
    let if_under = |lease| {
        Transaction::new().when(Compare::Lease(key("a"), lease)).then(put_op("a", "2", Some(ours)))
    };
    assert!(!store.commit(if_under(other)).await.unwrap().succeeded);
    assert!(store.commit(if_under(ours)).await.unwrap().succeeded);
    let entry = store.get(&key("a")).await.unwrap().unwrap();
    assert_eq!((&entry.value[..], entry.lease), (&b"2"[..], Some(ours)));
}

pub async fn transactions_have_bounds(fixture: Fixture) {
    let store = fixture.store;
    let many = |count: usize| {
        (0..count).fold(Transaction::new(), |transaction, i| {
            let name = format!("k{i}");
            transaction.when(Compare::Absent(key(&name))).then(put_op(&name, "v", None))
        })
    };
    let refused = store.commit(many(128)).await.unwrap_err();
    assert!(
        matches!(refused, StoreError::Transaction(TransactionError::TooMany { count: 128 })),
        "{refused}"
    );
    assert!(store.commit(many(127)).await.unwrap().succeeded);
    let large = |bytes: usize| Transaction::create(key("large"), vec![b'x'; bytes]);
    let refused = store.commit(large(1024 * 1024)).await.unwrap_err();
    assert!(
        matches!(refused, StoreError::Transaction(TransactionError::TooLarge { .. })),
        "{refused}"
    );
    assert!(store.commit(large(1024 * 1024 - 10)).await.unwrap().succeeded);
    let found = store.get(&key("large")).await.unwrap().unwrap();
    assert_eq!(found.value.len(), 1024 * 1024 - 10);
    let twice = Transaction::create(key("t"), "1").then(Operation::Delete(key("t")));
    assert!(matches!(
        store.commit(twice).await.unwrap_err(),
        StoreError::Transaction(TransactionError::RepeatedKey { .. })
    ));
}

/// Eight tasks count up two keys together; nothing is lost and nothing counted
/// twice.
pub async fn contention_ends_exact(fixture: Fixture) {
    const TASKS: u64 = 8;
    const EACH: u64 = 20;
    let store = fixture.store;
    put(&*store, "left", "0").await;
    put(&*store, "right", "0").await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut conflicts = 0u64;
                for _ in 0..EACH {
                    loop {
                        let left = store.get(&key("left")).await.unwrap().unwrap();
                        let right = store.get(&key("right")).await.unwrap().unwrap();
                        let count: u64 = std::str::from_utf8(&left.value).unwrap().parse().unwrap();
                        let next = (count + 1).to_string();
                        let swap =
                            Transaction::replace(key("left"), left.mod_revision, next.clone())
                                .when(Compare::ModRevision(key("right"), right.mod_revision))
                                .then(put_op("right", &next, None));
                        if store.commit(swap).await.unwrap().succeeded {
                            break;
                        }
                        conflicts += 1;
                    }
                }
                conflicts
            })
        })
        .collect();
    let mut conflicts = 0;
    for task in tasks {
        conflicts += task.await.unwrap();
    }
    assert_eq!(value(&*store, "left").await.unwrap(), (TASKS * EACH).to_string());
    assert_eq!(value(&*store, "right").await.unwrap(), (TASKS * EACH).to_string());
    assert!(conflicts > 0, "the tasks did contend");
}

pub async fn one_of_many_creators_wins(fixture: Fixture) {
    let store = fixture.store;
    let tasks: Vec<_> = (0..16)
        .map(|i| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let create = Transaction::create(key("plan"), i.to_string())
                    .otherwise(Operation::Get(key("plan")));
                (i, store.commit(create).await.unwrap())
            })
        })
        .collect();
    let mut winners = Vec::new();
    let mut seen = Vec::new();
    for task in tasks {
        let (i, committed) = task.await.unwrap();
        if committed.succeeded {
            winners.push(i.to_string());
            assert!(committed.revision > Revision(0));
        } else {
            let found = committed.read[0].clone().expect("the winner's value");
            seen.push(String::from_utf8(found.value.to_vec()).unwrap());
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(seen, vec![winners[0].clone(); 15]);
}
