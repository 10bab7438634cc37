//! The lease keeper: registered while it lives, gone when it lets go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use headwater_registry::{Incarnation, LeaseKeeper, LeaseState, Registration, Store};

use crate::support::{Fixture, delete, key, until, value, within};

fn register(store: &Arc<dyn Store>, ttl: Duration, who: &'static str) -> LeaseKeeper {
    LeaseKeeper::start(Arc::clone(store), ttl, move |incarnation| {
        vec![Registration { key: key("nodes/n"), value: format!("{who} {incarnation}").into() }]
    })
}

pub async fn keys_stay_while_they_are_kept_and_go_when_released(fixture: Fixture) {
    let store = fixture.store;
    let keeper = register(&store, fixture.ttl, "a");
    let held = within(Duration::from_secs(10), "registration", keeper.held()).await;
    assert_eq!(held, Incarnation(1));
    let entry = store.get(&key("nodes/n")).await.unwrap().unwrap();
    assert_eq!(&entry.value[..], b"a 1");
    assert!(entry.lease.is_some());
    let until = Instant::now() + fixture.ttl * 3;
    while Instant::now() < until {
        tokio::time::sleep(fixture.ttl / 10).await;
        let now = store.get(&key("nodes/n")).await.unwrap();
        assert_eq!(now.map(|e| e.mod_revision), Some(entry.mod_revision), "untouched");
    }
    let letting_go = Instant::now();
    keeper.release().await;
    assert_eq!(value(&*store, "nodes/n").await, None);
    assert!(letting_go.elapsed() < Duration::from_secs(2));
}

pub async fn a_lost_lease_is_registered_anew_as_another_incarnation(fixture: Fixture) {
    let store = fixture.store;
    let keeper = register(&store, fixture.ttl, "a");
    within(Duration::from_secs(10), "registration", keeper.held()).await;
    let mut state = keeper.state();
    let LeaseState::Held { lease, .. } = state.borrow().clone() else { panic!("held") };
    store.revoke_lease(lease).await.unwrap();
    let again = state
        .wait_for(|state| matches!(state, LeaseState::Held { incarnation: Incarnation(2), .. }));
    drop(within(Duration::from_secs(20), "another incarnation", again).await.unwrap());
    let entry = store.get(&key("nodes/n")).await.unwrap().unwrap();
    assert_eq!(&entry.value[..], b"a 2");
    assert_ne!(entry.lease, Some(lease));
    keeper.release().await;
}

pub async fn a_second_holder_waits_for_the_first(fixture: Fixture) {
    let store = fixture.store;
    let first = register(&store, fixture.ttl, "first");
    within(Duration::from_secs(10), "registration", first.held()).await;
    let second = register(&store, fixture.ttl, "second");
    let mut state = second.state();
    let waiting = state.wait_for(|state| *state == LeaseState::Waiting { key: key("nodes/n") });
    drop(within(Duration::from_secs(10), "waiting", waiting).await.unwrap());
    tokio::time::sleep(fixture.ttl * 2).await;
    assert_eq!(value(&*store, "nodes/n").await.unwrap(), "first 1");
    // The first one crashes: its lease runs out.
    drop(first);
    let held = within(Duration::from_secs(20), "taking over", second.held()).await;
    assert_eq!(held, Incarnation(1));
    assert_eq!(value(&*store, "nodes/n").await.unwrap(), "second 1");
    second.release().await;
}

pub async fn a_deleted_key_comes_back_and_a_new_value_is_written(fixture: Fixture) {
    let store = fixture.store;
    let capacity = Arc::new(AtomicU64::new(100));
    let told = Arc::clone(&capacity);
    let keeper = LeaseKeeper::start(Arc::clone(&store), fixture.ttl, move |incarnation| {
        let value = format!("{incarnation} {}", told.load(Ordering::Relaxed));
        vec![
            Registration { key: key("nodes/n"), value: value.clone().into() },
            Registration { key: key("addresses/n"), value: value.into() },
        ]
    });
    within(Duration::from_secs(10), "registration", keeper.held()).await;
    delete(&*store, "nodes/n").await;
    until("the deleted key is back", || async {
        value(&*store, "nodes/n").await.as_deref() == Some("1 100")
    })
    .await;
    capacity.store(50, Ordering::Relaxed);
    keeper.refresh();
    until("the new value is written", || async {
        value(&*store, "nodes/n").await.as_deref() == Some("1 50")
            && value(&*store, "addresses/n").await.as_deref() == Some("1 50")
    })
    .await;
    keeper.release().await;
    assert_eq!(value(&*store, "nodes/n").await, None);
    assert_eq!(value(&*store, "addresses/n").await, None);
}
