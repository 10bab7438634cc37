//! Answers that are lost on the way: a write may then be done or not, and the
//! caller must be told so and not be lied to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_registry::{EtcdConfig, EtcdStore, Operation, Store, StoreError, Transaction};
use headwater_testkit::etcd::EtcdCluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::etcd::config;
use crate::support::{key, put, put_op, value};

/// What becomes of what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Losing {
    Nothing,
    Requests,
    Answers,
}

/// A way to a member that can lose one direction, with the connection open.
struct Way {
    address: SocketAddr,
    losing: Arc<watch::Sender<Losing>>,
}

impl Way {
    async fn to(member: &str) -> Self {
        let member: SocketAddr = member.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let losing = Arc::new(watch::Sender::new(Losing::Nothing));
        let state = Arc::clone(&losing);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (client_read, client_write) = client.into_split();
                let (read, write) = TcpStream::connect(member).await.unwrap().into_split();
                tokio::spawn(pass(client_read, write, Arc::clone(&state), Losing::Requests));
                tokio::spawn(pass(read, client_write, Arc::clone(&state), Losing::Answers));
            }
        });
        Self { address, losing }
    }

    fn lose(&self, what: Losing) {
        self.losing.send_replace(what);
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    losing: Arc<watch::Sender<Losing>>,
    lost_if: Losing,
) {
    let mut buffer = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let lost = *losing.borrow() == lost_if;
        if !lost && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// A registry that goes by the way first and, when that fails, straight.
async fn store_by(cluster: &EtcdCluster, way: &Way) -> EtcdStore {
    let straight = cluster.endpoints().remove(0);
    let endpoints = vec![format!("http://{}", way.address), straight];
    let config = EtcdConfig { endpoints, ..config(cluster, "doubt") };
    EtcdStore::new(&config).await.unwrap().starting_at(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_is_lost_is_in_doubt() {
    let cluster = EtcdCluster::start(1).unwrap();
    let way = Way::to(&cluster.endpoints()[0]).await;

    // The way works.
    let store = store_by(&cluster, &way).await;
    let first = put(&store, "counter", "1").await;

    // It is carried out, and the second try finds its own work. That is no
    // refusal, so it must not look like one.
    way.lose(Losing::Answers);
    let doubted = store.commit(Transaction::create(key("plan"), "ours")).await.unwrap_err();
    assert!(matches!(doubted, StoreError::Indeterminate(_)), "{doubted}");
    assert!(doubted.is_transient());
    assert_eq!(value(&store, "plan").await.unwrap(), "ours");

    // A write that could take effect twice is not sent twice.
    let store = store_by(&cluster, &way).await;
    let unguarded = Transaction::new().then(put_op("log", "line", None));
    let doubted = store.commit(unguarded).await.unwrap_err();
    assert!(matches!(doubted, StoreError::Indeterminate(_)), "{doubted}");
    assert_eq!(store.get(&key("log")).await.unwrap().unwrap().version, 1);

    // A read is simply asked again.
    let store = store_by(&cluster, &way).await;
    assert_eq!(value(&store, "counter").await.unwrap(), "1");

    // If the request was lost, the second try succeeds: no doubt remains.
    way.lose(Losing::Requests);
    let store = store_by(&cluster, &way).await;
    let swapped = store
        .commit(
            Transaction::replace(key("counter"), first, "2")
                .otherwise(Operation::Get(key("counter"))),
        )
        .await
        .unwrap();
    assert!(swapped.succeeded);

    // Leases are granted and kept all the same, at the price of a timeout.
    let store = store_by(&cluster, &way).await;
    let lease = store.grant_lease(Duration::from_secs(5)).await.unwrap();
    let store = store_by(&cluster, &way).await;
    let asked = Instant::now();
    store.keep_alive(lease.id).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
}
