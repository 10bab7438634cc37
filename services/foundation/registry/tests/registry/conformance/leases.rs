//! Leases: their time is a minimum, their end takes their keys.

use std::time::{Duration, Instant};

use headwater_registry::{Prefix, StoreError, Transaction};

use crate::support::{Fixture, changes_until, key, put, put_op, put_under, until, value};

pub async fn a_lease_ends_after_its_time_and_not_before(fixture: Fixture) {
    let store = fixture.store;
    let asked = Instant::now();
    let lease = store.grant_lease(fixture.ttl).await.unwrap();
    assert!(lease.ttl >= fixture.ttl);
    put_under(&*store, "nodes/a", "1", lease.id).await;
    put_under(&*store, "nodes/b", "1", lease.id).await;
    put(&*store, "lifecycle/a", "DRAIN").await;
    let start = store.revision().await.unwrap();
    let mut stream = store.watch(&Prefix::ALL, start).await.unwrap();
    let mut gone = changes_until(&mut stream, "nodes/b-").await;
    let lived = asked.elapsed();
    gone.sort();
    assert_eq!(gone, ["nodes/a-", "nodes/b-"]);
    assert!(lived >= lease.ttl, "ended after {lived:?}");
    assert_eq!(value(&*store, "nodes/a").await, None);
    assert_eq!(value(&*store, "lifecycle/a").await.unwrap(), "DRAIN");
    let late = store.keep_alive(lease.id).await.unwrap_err();
    assert!(matches!(late, StoreError::LeaseNotFound(id) if id == lease.id), "{late}");
}

pub async fn a_lease_kept_alive_outlives_its_time(fixture: Fixture) {
    let store = fixture.store;
    let lease = store.grant_lease(fixture.ttl).await.unwrap();
    put_under(&*store, "a", "1", lease.id).await;
    let until = Instant::now() + lease.ttl * 3;
    while Instant::now() < until {
        tokio::time::sleep(lease.ttl / 3).await;
        store.keep_alive(lease.id).await.unwrap();
    }
    assert_eq!(value(&*store, "a").await.unwrap(), "1");
}

pub async fn a_revoked_lease_takes_its_keys_at_once(fixture: Fixture) {
    let store = fixture.store;
    let lease = store.grant_lease(Duration::from_secs(60)).await.unwrap();
    let other = store.grant_lease(Duration::from_secs(60)).await.unwrap();
    for i in 0..5 {
        put_under(&*store, &format!("k{i}"), "1", lease.id).await;
    }
    put_under(&*store, "other", "1", other.id).await;
    store.revoke_lease(lease.id).await.unwrap();
    let left = store.list(&Prefix::ALL).await.unwrap().entries;
    assert_eq!(left.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["other"]);
    store.revoke_lease(lease.id).await.unwrap();
    store.revoke_lease(other.id).await.unwrap();
    assert_eq!(value(&*store, "other").await, None);
}

pub async fn a_key_written_without_its_lease_stays(fixture: Fixture) {
    let store = fixture.store;
    let first = store.grant_lease(Duration::from_secs(60)).await.unwrap().id;
    let second = store.grant_lease(Duration::from_secs(60)).await.unwrap().id;
    put_under(&*store, "freed", "1", first).await;
    put_under(&*store, "moved", "1", first).await;
    put(&*store, "freed", "2").await;
    put_under(&*store, "moved", "2", second).await;
    store.revoke_lease(first).await.unwrap();
    assert_eq!(value(&*store, "freed").await.unwrap(), "2");
    assert_eq!(store.get(&key("freed")).await.unwrap().unwrap().lease, None);
    assert_eq!(store.get(&key("moved")).await.unwrap().unwrap().lease, Some(second));
    store.revoke_lease(second).await.unwrap();
    until("the moved key goes with its new lease", || async {
        value(&*store, "moved").await.is_none()
    })
    .await;
}

pub async fn nothing_hangs_on_a_lease_that_is_not_there(fixture: Fixture) {
    let store = fixture.store;
    let lease = store.grant_lease(Duration::from_secs(60)).await.unwrap().id;
    store.revoke_lease(lease).await.unwrap();
    let put = Transaction::new().then(put_op("b", "1", None)).then(put_op("a", "1", Some(lease)));
    let error = store.commit(put).await.unwrap_err();
    assert!(matches!(error, StoreError::LeaseNotFound(id) if id == lease), "{error}");
    assert_eq!(store.list(&Prefix::ALL).await.unwrap().entries, []);
    let error = store.keep_alive(lease).await.unwrap_err();
    assert!(matches!(error, StoreError::LeaseNotFound(_)), "{error}");
}
