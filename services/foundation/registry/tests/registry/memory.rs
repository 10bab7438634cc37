//! The registry in memory.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use headwater_registry::{
    Election, Incarnation, LeaseKeeper, MemoryStore, Prefix, Registration, RegistryConfig,
    RegistryKind, Store, WatchError, open,
};

use crate::conformance::for_each_case;
use crate::support::{Cuttable, Fixture, key, put, put_under, value, within};

fn fixture() -> Fixture {
    let store = MemoryStore::new();
    let compacted = store.clone();
    Fixture {
        store: Arc::new(store),
        ttl: Duration::from_millis(300),
        compact: Box::new(move |revision| {
            let store = compacted.clone();
            Box::pin(async move { store.compact(revision).await.unwrap() })
        }),
    }
}

macro_rules! tests {
    ($($module:ident: $case:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            crate::conformance::$module::$case(fixture()).await;
        }
    )*};
}
for_each_case!(tests);

#[tokio::test(start_paused = true)]
async fn leases_run_on_the_clock_of_the_test() {
    let store = MemoryStore::new();
    let lease = store.grant_lease(Duration::from_secs(3600)).await.unwrap();
    put_under(&store, "a", "1", lease.id).await;
    tokio::time::advance(Duration::from_secs(3599)).await;
    assert!(value(&store, "a").await.is_some());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(value(&store, "a").await, None);
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_cut_off_and_told_so() {
    let store = MemoryStore::new();
    let start = store.revision().await.unwrap();
    let mut stream = store.watch(&Prefix::ALL, start).await.unwrap();
    for i in 0..2000 {
        put(&store, "a", &i.to_string()).await;
    }
    let mut told = 0;
    let error = loop {
        match stream.next().await.expect("an error before the end") {
            Ok(changes) => told += changes.changes.len(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, WatchError::Interrupted(_)), "{error}");
    assert!((1..2000).contains(&told), "{told}");
    assert!(stream.next().await.is_none());
    // It goes on from where it was.
    let revision = headwater_registry::Revision(start.0 + told as u64);
    let rest = store.watch(&Prefix::ALL, revision).await.unwrap();
    let rest: Vec<_> = rest.take(2000 - told).collect().await;
    assert!(rest.iter().all(Result::is_ok));
}

/// Both have to look what became of their write, not take it for a refusal.
#[tokio::test]
async fn lost_answers_confuse_neither_registration_nor_election() {
    let store = Cuttable::new(Arc::new(MemoryStore::new()));
    store.lose_answers(2);
    let keeper = LeaseKeeper::start(store.clone(), Duration::from_secs(30), |incarnation| {
        vec![Registration { key: key("nodes/n"), value: incarnation.to_string().into() }]
    });
    let held = within(Duration::from_secs(5), "registration", keeper.held()).await;
    assert_eq!(held, Incarnation(1));
    assert_eq!(store.get(&key("nodes/n")).await.unwrap().unwrap().version, 1);
    store.lose_answers(1);
    let election = Election::new(store.clone(), "planner", Duration::from_secs(30)).unwrap();
    let leadership = within(Duration::from_secs(5), "election", election.campaign("me")).await;
    let leader = election.leader().await.unwrap().unwrap();
    assert_eq!(leader.token, leadership.fence().token());
}

#[tokio::test]
async fn an_election_needs_a_name_that_fits_into_a_key() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    for name in ["", "a/b", "a\0"] {
        assert!(Election::new(Arc::clone(&store), name, Duration::from_secs(1)).is_err());
    }
}

#[tokio::test]
async fn each_kind_of_registry_opens() {
    let folder = tempfile::TempDir::new().unwrap();
    let mut config = RegistryConfig { kind: RegistryKind::Memory, ..RegistryConfig::default() };
    config.embedded.path = folder.path().join("registry.redb");
    for kind in [RegistryKind::Memory, RegistryKind::Embedded] {
        let store = open(&RegistryConfig { kind, ..config.clone() }).await.unwrap();
        put(&*store, "a", "1").await;
        assert_eq!(value(&*store, "a").await.unwrap(), "1");
    }
    assert!(config.embedded.path.is_file());
}
