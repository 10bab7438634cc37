//! Elections: one leader at a time, and what an old one writes does not count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_registry::{Election, Leadership, Store, Transaction};

use crate::support::{Fixture, delete, key, put_op, value, within};

const LIMIT: Duration = Duration::from_secs(20);

fn election(store: &Arc<dyn Store>, ttl: Duration) -> Election {
    Election::new(Arc::clone(store), "room-cleaner", ttl).unwrap()
}

async fn elect(election: &Election, name: &'static str) -> Leadership {
    within(LIMIT, "election", election.campaign(name)).await
}

fn owned(leadership: &Leadership, by: &str) -> Transaction {
    Transaction::new().fenced(leadership.fence()).then(put_op("owned", by, None))
}

pub async fn a_deposed_leader_cannot_write(fixture: Fixture) {
    let store = fixture.store;
    let election = election(&store, fixture.ttl);
    let old = elect(&election, "old").await;
    assert!(old.is_held());
    assert!(store.commit(owned(&old, "old")).await.unwrap().succeeded);
    // The old one is deposed without a word to it, as by a long pause.
    delete(&*store, "elections/room-cleaner/leader").await;
    let new = elect(&election, "new").await;
    assert!(new.fence().token() > old.fence().token());
    assert!(store.commit(owned(&new, "new")).await.unwrap().succeeded);
    let late = store.commit(owned(&old, "old again")).await.unwrap();
    assert!(!late.succeeded);
    assert_eq!(value(&*store, "owned").await.unwrap(), "new");
    within(LIMIT, "the old one learns of it", old.lost()).await;
    assert!(!old.is_held());
    // What the old one does to its own lease is nothing to the new one.
    old.resign().await;
    assert!(store.commit(owned(&new, "new again")).await.unwrap().succeeded);
    let leader = election.leader().await.unwrap().unwrap();
    assert_eq!((&leader.candidate[..], leader.token), (&b"new"[..], new.fence().token()));
    new.resign().await;
    assert_eq!(election.leader().await.unwrap(), None);
}

pub async fn a_leader_that_resigns_is_followed_at_once(fixture: Fixture) {
    let store = fixture.store;
    let election = election(&store, Duration::from_secs(60));
    let first = elect(&election, "first").await;
    let mut observation = election.observe();
    let seen = within(LIMIT, "observation", observation.next()).await.unwrap();
    assert_eq!(&seen.candidate[..], b"first");
    let next = tokio::spawn({
        let election = election.clone();
        async move { election.campaign("second").await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!next.is_finished());
    let resigned = Instant::now();
    first.resign().await;
    let second = within(LIMIT, "succession", next).await.unwrap();
    assert!(resigned.elapsed() < Duration::from_secs(5), "{:?}", resigned.elapsed());
    assert!(second.is_held());
    let mut seen = within(LIMIT, "observation", observation.next()).await;
    if seen.is_none() {
        seen = within(LIMIT, "observation", observation.next()).await;
    }
    assert_eq!(seen.map(|leader| leader.token), Some(second.fence().token()));
    second.resign().await;
}

pub async fn a_leader_that_falls_silent_is_followed_after_its_time(fixture: Fixture) {
    let store = fixture.store;
    let election = election(&store, fixture.ttl);
    let first = elect(&election, "first").await;
    // It leads as long as it is not silent.
    tokio::time::sleep(fixture.ttl * 2).await;
    assert!(first.is_held());
    assert!(store.commit(owned(&first, "first")).await.unwrap().succeeded);
    let fence = first.fence().clone();
    drop(first);
    let second = elect(&election, "second").await;
    let late = Transaction::new().fenced(&fence).then(put_op("owned", "late", None));
    assert!(!store.commit(late).await.unwrap().succeeded);
    second.resign().await;
}

/// Each leader adds its turn under its fence; turns never interleave.
pub async fn many_candidates_never_lead_together(fixture: Fixture) {
    let store = fixture.store;
    let election = election(&store, Duration::from_secs(30));
    let tasks: Vec<_> = (0..6)
        .map(|i| {
            let (store, election) = (Arc::clone(&store), election.clone());
            tokio::spawn(async move {
                let leadership = election.campaign(format!("c{i}")).await;
                let busy = Transaction::create(key("busy"), "1").fenced(leadership.fence());
                assert!(store.commit(busy).await.unwrap().succeeded, "somebody else leads too");
                tokio::time::sleep(Duration::from_millis(10)).await;
                let done = Transaction::new()
                    .fenced(leadership.fence())
                    .then(headwater_registry::Operation::Delete(key("busy")));
                assert!(store.commit(done).await.unwrap().succeeded);
                let token = leadership.fence().token();
                leadership.resign().await;
                token
            })
        })
        .collect();
    let mut tokens = Vec::new();
    for task in tasks {
        tokens.push(within(Duration::from_secs(30), "a turn", task).await.unwrap());
    }
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 6, "each leader has a token of its own");
}
