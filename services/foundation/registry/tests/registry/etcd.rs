//! etcd: the suite against a cluster of three members.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use headwater_registry::{EtcdConfig, EtcdStore, EtcdTiming, Revision};
use headwater_testkit::etcd::EtcdCluster;

use crate::conformance::for_each_case;
use crate::support::Fixture;

/// Settings for a cluster, with a prefix of the test's own.
pub fn config(cluster: &EtcdCluster, name: &str) -> EtcdConfig {
    EtcdConfig {
        endpoints: cluster.endpoints(),
        prefix: format!("/test/{name}"),
        ..EtcdConfig::default()
    }
}

/// A registry that begins with one of the members.
pub async fn store_at(cluster: &EtcdCluster, name: &str, member: usize) -> EtcdStore {
    EtcdStore::new(&config(cluster, name)).await.unwrap().starting_at(member)
}

/// The same with timing of the test's own.
pub async fn timed_store_at(
    cluster: &EtcdCluster,
    name: &str,
    member: usize,
    timing: EtcdTiming,
) -> EtcdStore {
    let config = config(cluster, name);
    EtcdStore::with_timing(&config, timing).await.unwrap().starting_at(member)
}

async fn compact(endpoints: Vec<String>, revision: Revision) {
    let mut client = etcd_client::Client::connect(endpoints, None).await.unwrap();
    let revision = i64::try_from(revision.0).unwrap();
    client.compact(revision, None).await.unwrap();
}

async fn fixture(cluster: &EtcdCluster, name: &str) -> Fixture {
    let endpoints = cluster.endpoints();
    Fixture {
        store: Arc::new(EtcdStore::new(&config(cluster, name)).await.unwrap()),
        ttl: Duration::from_secs(2),
        compact: Box::new(move |revision| compact(endpoints.clone(), revision).boxed()),
    }
}

/// Compacting is for the whole cluster: these run when the others are done.
const ALONE: &[&str] = &["a_broken_watch_resumes_without_loss"];

macro_rules! cases {
    ($($module:ident: $case:ident)*) => {
        fn cases() -> Vec<(&'static str, fn(Fixture) -> BoxFuture<'static, ()>)> {
            vec![$((
                stringify!($case),
                |fixture| crate::conformance::$module::$case(fixture).boxed(),
            )),*]
        }
    };
}
for_each_case!(cases);

/// One cluster for all cases, since each test is a process of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_does_all_that_every_registry_must() {
    let cluster = EtcdCluster::start(3).unwrap();
    let (alone, together): (Vec<_>, Vec<_>) =
        cases().into_iter().partition(|(name, _)| ALONE.contains(name));
    let mut failed = Vec::new();
    for group in [together, alone] {
        let running = group.into_iter().map(|(name, case)| {
            let fixture = fixture(&cluster, name);
            async move {
                let begun = Instant::now();
                let outcome = tokio::spawn(case(fixture.await)).await;
                println!("{name}: {:?} in {:?}", outcome.is_ok(), begun.elapsed());
                outcome.err().map(|_| name)
            }
        });
        failed.extend(join_all(running).await.into_iter().flatten());
    }
    assert_eq!(failed, Vec::<&str>::new(), "their messages are above");
}
