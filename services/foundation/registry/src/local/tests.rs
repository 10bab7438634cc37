//! What becomes of a write that cannot be kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::transaction::Operation;

/// A disk that can be full.
struct Disk {
    full: Arc<AtomicBool>,
}

impl Journal for Disk {
    fn append(&mut self, _: Revision, _: &[Change]) -> Result<(), StoreError> {
        if self.full.load(Ordering::SeqCst) {
            Err(StoreError::Failed(std::io::Error::other("disk full").into()))
        } else {
            Ok(())
        }
    }
}

fn registry() -> (Local, Arc<AtomicBool>) {
    let full = Arc::new(AtomicBool::new(false));
    let (local, owner) = local(Engine::default(), Disk { full: Arc::clone(&full) });
    tokio::spawn(owner.run());
    (local, full)
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

#[tokio::test]
async fn what_the_disk_does_not_take_has_not_happened() {
    let (local, full) = registry();
    let mut stream = local.watch(&Prefix::ALL, Revision(0)).await.unwrap();
    full.store(true, Ordering::SeqCst);
    let refused = local.commit(Transaction::create(key("a"), "1")).await.unwrap_err();
    assert!(matches!(refused, StoreError::Failed(_)), "{refused}");
    assert_eq!(local.get(&key("a")).await.unwrap(), None);
    assert_eq!(local.revision().await.unwrap(), Revision(0));
    full.store(false, Ordering::SeqCst);
    assert!(local.commit(Transaction::create(key("b"), "1")).await.unwrap().succeeded);
    let told = stream.next().await.unwrap().unwrap();
    assert_eq!(told.changes.iter().map(|c| c.key().as_str()).collect::<Vec<_>>(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_end_cannot_be_kept_ends_later() {
    let (local, full) = registry();
    let lease = local.grant_lease(Duration::from_secs(5)).await.unwrap().id;
    let put = Operation::Put { key: key("a"), value: "1".into(), lease: Some(lease) };
    assert!(local.commit(Transaction::new().then(put)).await.unwrap().succeeded);
    full.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(local.get(&key("a")).await.unwrap().is_some());
    assert!(local.revoke_lease(lease).await.is_err());
    full.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(local.get(&key("a")).await.unwrap(), None);
}

#[tokio::test]
async fn a_handle_to_a_task_that_is_gone_says_so() {
    let local = Local::closed();
    assert!(matches!(local.revision().await, Err(StoreError::Closed)));
    let watch = local.watch(&Prefix::ALL, Revision(0)).await.err();
    assert!(matches!(watch, Some(WatchError::Interrupted(_))));
}
