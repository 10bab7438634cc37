//! Members of a real etcd killed and frozen under load.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use headwater_registry::{
    Change, Election, EtcdConfig, EtcdTiming, Incarnation, LeaseKeeper, LeaseState, Prefix,
    Registration, RegistryConfig, RegistryKind, Revision, Store, StoreError, Transaction, Watch,
    WatchEvent, WatchState,
};
use headwater_testkit::etcd::EtcdCluster;

use crate::etcd::{store_at, timed_store_at};
use crate::support::{
    key, next_changes, next_snapshot, put, put_under, short, until, value, within,
};

fn keep(store: Arc<dyn Store>, ttl: Duration) -> LeaseKeeper {
    LeaseKeeper::start(store, ttl, |incarnation| {
        vec![Registration { key: key("nodes/n"), value: incarnation.to_string().into() }]
    })
}

/// Creates `k/0`, `k/1`, … one after the other until told to stop; answers with
/// how many there are.
async fn create_keys(store: Arc<dyn Store>, stop: Arc<AtomicBool>) -> usize {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let name = key(&format!("k/{count}"));
        match store.commit(Transaction::create(name.clone(), "1")).await {
            Ok(committed) => assert!(committed.succeeded, "nobody else writes {name}"),
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                // In doubt: look.
                let there = loop {
                    match store.get(&name).await {
                        Ok(found) => break found.is_some(),
                        Err(error) => assert!(error.is_transient(), "{error}"),
                    }
                };
                if !there {
                    continue;
                }
            }
        }
        count += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    count
}

/// All that a watch tells up to the key `end`, and the longest silence.
async fn collect(mut watch: Watch) -> (Vec<Change>, Duration) {
    let mut seen = Vec::new();
    let mut last = Revision(0);
    let mut silence = Duration::ZERO;
    loop {
        let waiting = Instant::now();
        let WatchEvent::Changes(changes) = watch.next().await else { panic!("a second snapshot") };
        silence = silence.max(waiting.elapsed());
        assert!(changes.revision > last, "revisions rise");
        last = changes.revision;
        seen.extend(changes.changes);
        if seen.iter().any(|change| *change.key() == key("end")) {
            return (seen, silence);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_costs_no_event_and_no_lease() {
    let mut cluster = EtcdCluster::start(3).unwrap();
    let leader = cluster.leader().unwrap();
    let store: Arc<dyn Store> = Arc::new(store_at(&cluster, "kill", leader).await);
    let writing: Arc<dyn Store> = Arc::new(store_at(&cluster, "kill", leader + 1).await);
    let mut watch = Watch::start(Arc::clone(&store), Prefix::ALL);
    assert_eq!(next_snapshot(&mut watch).await.entries, []);
    let watching = tokio::spawn(collect(watch));
    let keeper = keep(Arc::clone(&store), Duration::from_secs(6));
    assert_eq!(keeper.held().await, Incarnation(1));
    let stop = Arc::new(AtomicBool::new(false));
    let creating = tokio::spawn(create_keys(Arc::clone(&writing), Arc::clone(&stop)));
    tokio::time::sleep(Duration::from_millis(500)).await;

    let unkept = writing.grant_lease(Duration::from_secs(3)).await.unwrap();
    let granted = Instant::now();
    put_under(&*writing, "unkept", "1", unkept.id).await;
    cluster.kill(leader).unwrap();
    // A lease's time is a minimum, and a change of leader makes it longer.
    until("the lease that nobody keeps ends", || async {
        value(&*writing, "unkept").await.is_none()
    })
    .await;
    let lived = granted.elapsed();
    assert!(lived >= unkept.ttl, "ended after {lived:?}");

    // Once more, with the member back that was killed first.
    tokio::task::block_in_place(|| cluster.restart(leader)).unwrap();
    let second = tokio::task::block_in_place(|| cluster.kill_leader()).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    tokio::task::block_in_place(|| cluster.restart(second)).unwrap();

    stop.store(true, Ordering::Relaxed);
    let count = within(Duration::from_secs(20), "the writer", creating).await.unwrap();
    until("the end is written", || async {
        let end = Transaction::create(key("end"), "1");
        match store.commit(end).await {
            Ok(_) => true,
            Err(error) => error.is_transient() && value(&*store, "end").await.is_some(),
        }
    })
    .await;
    let (seen, silence) = within(Duration::from_secs(20), "the watch", watching).await.unwrap();
    let created: Vec<_> =
        seen.iter().map(short).filter(|change| change.starts_with("k/")).collect();
    let expected: Vec<_> = (0..count).map(|i| format!("k/{i}=1")).collect();
    assert!(count > 100, "{count} keys were created");
    let differs = created.iter().zip(&expected).position(|(told, done)| told != done);
    assert_eq!((differs, created.len()), (None, count), "each once and in order");
    assert_eq!(*keeper.state().borrow(), held_state(&keeper), "the lease is kept");
    assert!(!seen.iter().any(|change| short(change) == "nodes/n-"), "and was kept throughout");
    println!(
        "{count} keys, longest silence {silence:?}, lease of {:?} lived {lived:?}",
        unkept.ttl
    );
    keeper.release().await;
}

/// The state that a keeper has if its first lease is held.
fn held_state(keeper: &LeaseKeeper) -> LeaseState {
    match &*keeper.state().borrow() {
        LeaseState::Held { lease, .. } | LeaseState::Doubtful { lease, .. } => {
            LeaseState::Held { incarnation: Incarnation(1), lease: *lease }
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_member_is_noticed() {
    let cluster = EtcdCluster::start(3).unwrap();
    let leader = cluster.leader().unwrap();
    let frozen = (leader + 1) % 3;
    let writing = store_at(&cluster, "freeze", leader).await;
    // One watch learns of it by unanswered pings of its connection, the other,
    // whose connection is as if nobody pinged it, by its silence.
    let pinging: Arc<dyn Store> = Arc::new(store_at(&cluster, "freeze", frozen).await);
    let timing = EtcdTiming {
        ping_interval: Duration::from_secs(60),
        progress_interval: Duration::from_millis(500),
        silence_timeout: Duration::from_secs(2),
        ..EtcdTiming::default()
    };
    let listening: Arc<dyn Store> =
        Arc::new(timed_store_at(&cluster, "freeze", frozen, timing).await);
    let mut by_ping = Watch::start(Arc::clone(&pinging), Prefix::below("rooms").unwrap());
    let mut by_silence = Watch::start(Arc::clone(&listening), Prefix::below("rooms").unwrap());
    next_snapshot(&mut by_ping).await;
    next_snapshot(&mut by_silence).await;
    put(&writing, "rooms/a", "1").await;
    next_changes(&mut by_ping).await;
    next_changes(&mut by_silence).await;
    // Asking for progress keeps a quiet watch that is well alive.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(*by_silence.state().borrow(), WatchState::Following);

    let keeping: Arc<dyn Store> = Arc::new(store_at(&cluster, "freeze", frozen).await);
    let keeper = keep(keeping, Duration::from_secs(5));
    assert_eq!(keeper.held().await, Incarnation(1));
    let mut doubt = keeper.state();
    doubt.mark_unchanged();

    cluster.pause(frozen).unwrap();
    let since = Instant::now();
    put(&writing, "rooms/b", "1").await;
    let reading = store_at(&cluster, "freeze", frozen).await;
    assert_eq!(value(&reading, "rooms/b").await.unwrap(), "1");
    assert!(since.elapsed() < Duration::from_secs(4), "a read took {:?}", since.elapsed());
    let told = next_changes(&mut by_silence).await;
    assert_eq!(told.changes.iter().map(short).collect::<Vec<_>>(), ["rooms/b=1"]);
    let silence = since.elapsed();
    assert!(silence < Duration::from_secs(7), "noticed by silence after {silence:?}");
    let told = next_changes(&mut by_ping).await;
    assert_eq!(told.changes.iter().map(short).collect::<Vec<_>>(), ["rooms/b=1"]);
    let ping = since.elapsed();
    assert!(ping < Duration::from_secs(13), "noticed by ping after {ping:?}");
    println!("noticed by silence after {silence:?}, by ping after {ping:?}");

    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!doubt.has_changed().unwrap(), "the lease was never in doubt");
    assert_eq!(value(&writing, "nodes/n").await.unwrap(), "1");
    cluster.resume(frozen).unwrap();
    put(&writing, "rooms/c", "1").await;
    next_changes(&mut by_ping).await;
    next_changes(&mut by_silence).await;
    keeper.release().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_recovers_after_the_quorum_was_lost() {
    let mut cluster = EtcdCluster::start(3).unwrap();
    let leader = cluster.leader().unwrap();
    let survivor = (leader + 1) % 3;
    let store: Arc<dyn Store> = Arc::new(store_at(&cluster, "quorum", survivor).await);
    let ttl = Duration::from_secs(3);
    let mut watch = Watch::start(Arc::clone(&store), Prefix::below("rooms").unwrap());
    next_snapshot(&mut watch).await;
    let keeper = keep(Arc::clone(&store), ttl);
    keeper.held().await;
    let election = Election::new(Arc::clone(&store), "planner", ttl).unwrap();
    let leadership = election.campaign("me").await;
    put(&*store, "rooms/a", "1").await;
    next_changes(&mut watch).await;

    // One member is left. It keeps its connections, and has nothing to say.
    cluster.kill(leader).unwrap();
    cluster.kill((leader + 2) % 3).unwrap();
    let lost = Instant::now();
    let mut watching = watch.state();
    let noticed = watching.wait_for(|state| *state == WatchState::Interrupted);
    drop(within(Duration::from_secs(10), "the watch notices", noticed).await.unwrap());
    println!("a leaderless member was noticed after {:?}", lost.elapsed());
    let mut keeping = keeper.state();
    let doubtful = keeping.wait_for(|state| matches!(state, LeaseState::Doubtful { .. }));
    drop(within(Duration::from_secs(10), "the lease is in doubt", doubtful).await.unwrap());
    within(Duration::from_secs(10), "the election is in doubt", leadership.lost()).await;
    let limit = Duration::from_secs(9);
    let read = within(limit, "a read", store.get(&key("rooms/a"))).await.unwrap_err();
    assert!(matches!(read, StoreError::Unavailable(_)), "{read}");
    let create = store.commit(Transaction::create(key("rooms/b"), "1"));
    let write = within(limit, "a write", create).await.unwrap_err();
    assert!(write.is_transient(), "{write}");

    tokio::task::block_in_place(|| cluster.start_all()).unwrap();
    recovered(&store, &mut watch, &keeper, &election, &leadership, "c").await;

    // And all of it at once.
    let leadership = election.campaign("me").await;
    tokio::task::block_in_place(|| cluster.stop_all()).unwrap();
    tokio::time::sleep(ttl).await;
    tokio::task::block_in_place(|| cluster.start_all()).unwrap();
    recovered(&store, &mut watch, &keeper, &election, &leadership, "d").await;
    keeper.release().await;
}

/// Everything works again without anybody's help.
async fn recovered(
    store: &Arc<dyn Store>,
    watch: &mut Watch,
    keeper: &LeaseKeeper,
    election: &Election,
    old: &headwater_registry::Leadership,
    name: &str,
) {
    let since = Instant::now();
    let written = format!("rooms/{name}");
    until("a write succeeds", || async {
        let create = Transaction::create(key(&written), "1");
        match store.commit(create).await {
            Ok(_) => true,
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                false
            }
        }
    })
    .await;
    // Also what may have been written in doubt before is told once.
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    while !told.contains_key(&format!("{written}=1")) {
        for change in next_changes(watch).await.changes {
            *told.entry(short(&change)).or_default() += 1;
        }
    }
    assert!(told.values().all(|count| *count == 1), "{told:?}");
    let held = within(Duration::from_secs(20), "registration", keeper.held()).await;
    until("the key is there", || async {
        value(&**store, "nodes/n").await.is_some_and(|text| {
            text == held.to_string() || text == Incarnation(held.0 + 1).to_string()
        })
    })
    .await;
    let new = within(Duration::from_secs(20), "an election", election.campaign("me")).await;
    assert!(new.fence().token() > old.fence().token());
    println!("all is well again after {:?}, incarnation {held}", since.elapsed());
    new.resign().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_dead_member_fails_no_call() {
    let mut cluster = EtcdCluster::start(3).unwrap();
    let leader = cluster.leader().unwrap();
    let dead = (leader + 1) % 3;
    cluster.kill(dead).unwrap();
    let mut slowest = Duration::ZERO;
    for start in 0..3 {
        let store = store_at(&cluster, "dead", start).await;
        let name = format!("counter-{start}");
        let mut last = put(&store, &name, "0").await;
        for _ in 0..50 {
            let begun = Instant::now();
            let entry = store.get(&key(&name)).await.unwrap().unwrap();
            assert_eq!(entry.mod_revision, last);
            let swap = Transaction::replace(key(&name), last, "1");
            let swapped = store.commit(swap).await.unwrap();
            assert!(swapped.succeeded);
            last = swapped.revision;
            slowest = slowest.max(begun.elapsed());
        }
        assert_eq!(store.get(&key(&name)).await.unwrap().unwrap().version, 51);
    }
    println!("slowest read and write with a dead member: {slowest:?}");

    // Reads go on through an election as well, if slowly.
    tokio::task::block_in_place(|| cluster.restart(dead)).unwrap();
    let store = store_at(&cluster, "dead", leader).await;
    assert!(value(&store, "counter-0").await.is_some());
    cluster.kill(leader).unwrap();
    let until = Instant::now() + Duration::from_secs(4);
    let mut slowest = Duration::ZERO;
    while Instant::now() < until {
        let begun = Instant::now();
        assert!(value(&store, "counter-0").await.is_some());
        slowest = slowest.max(begun.elapsed());
    }
    println!("slowest read over an election: {slowest:?}");
}

/// Revisions then count anew from 1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_lost_all_its_data_is_not_waited_for() {
    let mut cluster = EtcdCluster::start(1).unwrap();
    let store: Arc<dyn Store> = Arc::new(store_at(&cluster, "wipe", 0).await);
    let mut watch = Watch::start(Arc::clone(&store), Prefix::below("rooms").unwrap());
    next_snapshot(&mut watch).await;
    for i in 0..20 {
        put(&*store, &format!("rooms/{i}"), "1").await;
        next_changes(&mut watch).await;
    }
    let keeper = keep(Arc::clone(&store), Duration::from_secs(5));
    assert_eq!(keeper.held().await, Incarnation(1));
    tokio::task::block_in_place(|| {
        cluster.stop_all().unwrap();
        cluster.erase(0).unwrap();
        cluster.start_all().unwrap();
    });
    let told = next_changes(&mut watch).await;
    assert_eq!(told.changes.len(), 20);
    assert!(told.changes.iter().all(|change| matches!(change, Change::Deleted { .. })));
    put(&*store, "rooms/new", "1").await;
    let told = next_changes(&mut watch).await;
    assert_eq!(told.changes.iter().map(short).collect::<Vec<_>>(), ["rooms/new=1"]);
    until("the node is registered anew", || async {
        value(&*store, "nodes/n").await.as_deref() == Some("2")
    })
    .await;
    keeper.release().await;
}

/// A process starts and stays although etcd is not there.
#[tokio::test]
async fn without_an_etcd_calls_fail_in_time_and_nothing_else_does() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let config = RegistryConfig {
        kind: RegistryKind::Etcd,
        etcd: EtcdConfig { endpoints: vec![endpoint], ..EtcdConfig::default() },
        ..RegistryConfig::default()
    };
    let store = headwater_registry::open(&config).await.unwrap();
    let asked = Instant::now();
    let write = store.commit(Transaction::create(key("a"), "1")).await.unwrap_err();
    assert!(matches!(write, StoreError::Unavailable(_)), "nothing was sent: {write}");
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    let watch = Watch::start(Arc::clone(&store), Prefix::ALL);
    let keeper = keep(store, Duration::from_secs(5));
    assert_eq!(*watch.state().borrow(), WatchState::Connecting);
    assert_eq!(*keeper.state().borrow(), LeaseState::Registering);
    within(Duration::from_secs(1), "letting go", keeper.release()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn default_timing_suits_a_default_etcd() {
    let cluster = EtcdCluster::start(1).unwrap();
    let default = EtcdTiming::default();
    assert!(default.ping_interval >= Duration::from_secs(5));
    let eager = EtcdTiming { ping_interval: Duration::from_secs(1), ..default };
    let interruption = |timing| {
        let store = timed_store_at(&cluster, "pings", 0, timing);
        async move {
            let store: Arc<dyn Store> = Arc::new(store.await);
            let mut watch = Watch::start(store, Prefix::ALL);
            next_snapshot(&mut watch).await;
            let mut state = watch.state();
            drop(state.wait_for(|state| *state == WatchState::Following).await.unwrap());
            let begun = Instant::now();
            let limit = Duration::from_secs(26);
            let interrupted = state.wait_for(|state| *state == WatchState::Interrupted);
            tokio::time::timeout(limit, interrupted).await.is_ok().then(|| begun.elapsed())
        }
    };
    let (by_default, eager) = tokio::join!(interruption(default), interruption(eager));
    assert_eq!(by_default, None, "a quiet watch is left alone");
    // So the check above can fail: this many pings etcd does not stand.
    assert!(eager.is_some_and(|after| after < Duration::from_secs(10)), "{eager:?}");
}
