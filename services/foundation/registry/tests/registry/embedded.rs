//! The registry in a file: the suite, what is there after a restart, and a
//! writer killed in the middle of its work.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use headwater_registry::{
    EmbeddedStore, Key, OpenError, Prefix, Revision, Store, Transaction, WatchError,
};
use tempfile::TempDir;

use crate::conformance::for_each_case;
use crate::support::{Fixture, key, put, put_op, put_under, value};

/// Tells a child process of the crash test where to write.
const WRITER_FILE: &str = "HEADWATER_TEST_REGISTRY_FILE";

async fn fixture(folder: &TempDir) -> Fixture {
    let store = Arc::new(EmbeddedStore::open(folder.path().join("registry.redb")).await.unwrap());
    let compacted = Arc::clone(&store);
    Fixture {
        store,
        ttl: Duration::from_millis(300),
        compact: Box::new(move |revision| {
            let store = Arc::clone(&compacted);
            Box::pin(async move { store.compact(revision).await.unwrap() })
        }),
    }
}

macro_rules! tests {
    ($($module:ident: $case:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let folder = TempDir::new().unwrap();
            crate::conformance::$module::$case(fixture(&folder).await).await;
        }
    )*};
}
for_each_case!(tests);

#[tokio::test]
async fn everything_but_leases_is_there_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("registry.redb");
    let before = {
        let store = EmbeddedStore::open(&file).await.unwrap();
        put(&store, "rooms/a", "1").await;
        put(&store, "rooms/a", "2").await;
        let lease = store.grant_lease(Duration::from_secs(60)).await.unwrap();
        put_under(&store, "nodes/a", "1", lease.id).await;
        store.get(&key("rooms/a")).await.unwrap().unwrap()
    };
    let store = EmbeddedStore::open(&file).await.unwrap();
    let listed = store.list(&Prefix::ALL).await.unwrap();
    assert_eq!(listed.entries, std::slice::from_ref(&before));
    assert_eq!(listed.revision, Revision(4), "the end of the lease is a change of its own");
    let old = store.watch(&Prefix::ALL, before.mod_revision).await.err();
    assert!(matches!(old, Some(WatchError::Gap { .. })), "the history is not kept");
    let next = put(&store, "rooms/b", "1").await;
    assert_eq!(next, Revision(5));
}

#[tokio::test]
async fn a_second_process_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("registry.redb");
    let _first = EmbeddedStore::open(&file).await.unwrap();
    let error = EmbeddedStore::open(&file).await.unwrap_err();
    assert!(matches!(&error, OpenError::InUse { path } if *path == file), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_registry_is_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("notes.txt");
    std::fs::write(&file, "not a registry").unwrap();
    let error = EmbeddedStore::open(&file).await.unwrap_err();
    assert!(matches!(error, OpenError::File { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "not a registry");
    let missing = EmbeddedStore::open(folder.path().join("no/such/folder")).await.unwrap_err();
    assert!(matches!(missing, OpenError::File { .. }), "{missing}");
}

/// Counts up two keys in one transaction each, and a third one under a lease,
/// for ever or until `limit`; says so after each.
async fn write(file: &std::path::Path, limit: Option<u64>) -> std::io::Result<()> {
    let store = EmbeddedStore::open(file).await.unwrap();
    let lease = store.grant_lease(Duration::from_secs(60)).await.unwrap();
    put_under(&store, "nodes/writer", "1", lease.id).await;
    let last = value(&store, "left").await.map_or(0, |text| text.parse().unwrap());
    let mut out = std::io::stdout();
    for count in last + 1.. {
        let text = count.to_string();
        let both = Transaction::new()
            .then(put_op("left", &text, None))
            .then(put_op(&format!("log/{count:06}"), &"x".repeat(3000), None))
            .then(put_op("right", &text, None));
        assert!(store.commit(both).await.unwrap().succeeded);
        writeln!(out, "written {count}")?;
        out.flush()?;
        if limit.is_some_and(|limit| count == last + limit) {
            break;
        }
    }
    Ok(())
}

/// The writer of the test below when it is started as its child, else the same
/// without the crash.
#[tokio::test]
async fn a_writer_that_is_left_alone_writes_all() {
    if let Some(file) = std::env::var_os(WRITER_FILE) {
        write(file.as_ref(), None).await.unwrap();
        return;
    }
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("registry.redb");
    write(&file, Some(20)).await.unwrap();
    check(&file, 20, 20).await;
}

#[tokio::test]
async fn a_writer_killed_in_the_middle_loses_nothing_it_was_told_is_written() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("registry.redb");
    let mut total = 0;
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "embedded::a_writer_that_is_left_alone_writes_all", "--nocapture"])
            .env(WRITER_FILE, &file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut written = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let Some((_, count)) = line.split_once("written ") else {
                continue;
            };
            written = count.parse().unwrap();
            if written >= total + 15 + round * 7 {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(written > total, "round {round}: the writer wrote");
        total = check(&file, written, u64::MAX).await;
    }
}

/// Opens the file and checks that transactions in it are whole; answers with how
/// many there are.
async fn check(file: &std::path::Path, at_least: u64, at_most: u64) -> u64 {
    let store = EmbeddedStore::open(file).await.unwrap();
    let left: u64 = value(&store, "left").await.unwrap().parse().unwrap();
    assert!((at_least..=at_most).contains(&left), "{left} of {at_least}");
    assert_eq!(value(&store, "right").await.unwrap(), left.to_string());
    let log = store.list(&Prefix::below("log").unwrap()).await.unwrap();
    let expected: Vec<Key> = (1..=left).map(|count| key(&format!("log/{count:06}"))).collect();
    assert_eq!(log.entries.iter().map(|e| e.key.clone()).collect::<Vec<_>>(), expected);
    assert!(log.entries.iter().all(|entry| entry.value.len() == 3000));
    assert_eq!(value(&store, "nodes/writer").await, None, "its lease ended with it");
    left
}
