//! The end of a node that was asked to stop: it says so in its reports, and
//! waits while the control plane moves its participants to other nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::info;

use crate::shard::{ShardHandle, ShardSnapshot};

/// Between two looks at how many are left.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// When nobody has moved for so long, nobody will: there is no other node, or
/// the registry is away. A plan and the way to it take less than a second.
const STANDSTILL_MAX: Duration = Duration::from_secs(3);

/// Whether the process was asked to stop, and who may move its participants.
#[derive(Debug, Default)]
pub struct Departure {
    asked: AtomicBool,
    replicas: AtomicUsize,
}

/// A control-plane replica is attached for as long as this lives.
pub struct Attached(Arc<Departure>);

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.replicas.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Departure {
    /// Whether the process was asked to stop.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Notes that a control-plane replica attached.
    pub fn attach(self: &Arc<Self>) -> Attached {
        self.replicas.fetch_add(1, Ordering::Relaxed);
        Attached(Arc::clone(self))
    }

    /// Says from now on that the process leaves, and waits until nobody is left,
    /// nobody can be moved, or the time is over.
    pub async fn wait_until_moved(&self, shards: &[ShardHandle], timeout: Duration) {
        self.asked.store(true, Ordering::Relaxed);
        let started = Instant::now();
        let mut fewest = usize::MAX;
        let mut moved_at = started;
        while started.elapsed() < timeout {
            let left: usize = shards.iter().map(ShardHandle::snapshot).map(participants).sum();
            if left < fewest {
                fewest = left;
                moved_at = Instant::now();
            }
            let replicas = self.replicas.load(Ordering::Relaxed);
            if left == 0 || replicas == 0 || moved_at.elapsed() >= STANDSTILL_MAX {
                break;
            }
            sleep(LOOK_INTERVAL).await;
        }
        let left: usize = shards.iter().map(ShardHandle::snapshot).map(participants).sum();
        info!(participants = left, elapsed = ?started.elapsed(), "the node leaves");
    }
}

fn participants(shard: ShardSnapshot) -> usize {
    shard.participants
}
