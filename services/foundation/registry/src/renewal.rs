//! Keeping one lease alive, and knowing how sure it is that it still lives.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::store::{Lease, Store, StoreError};

/// What is known of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It lives: it was renewed less than its time ago.
    Held,
    /// It could not be renewed for its whole time. It may have ended; since the
    /// time is a minimum it may also live, and then renewing it revives it.
    Doubtful,
    /// The registry says that it has ended.
    Lost,
}

/// Renews one lease every third of its time.
#[derive(Debug)]
pub struct Renewal {
    store: Arc<dyn Store>,
    lease: Lease,
    /// When the last renewal that was answered was sent.
    renewed: Instant,
    /// When to renew next.
    due: Instant,
}

impl Renewal {
    /// For a lease whose grant was asked for at `asked`.
    pub fn new(store: Arc<dyn Store>, lease: Lease, asked: Instant) -> Self {
        Self { store, lease, renewed: asked, due: asked + lease.ttl / 3 }
    }

    fn interval(&self) -> Duration {
        self.lease.ttl / 3
    }

    /// Waits until the next renewal is due, renews, and says what is known then.
    /// May be dropped.
    pub async fn next(&mut self) -> Standing {
        loop {
            sleep_until(self.due).await;
            let sent = Instant::now();
            let doubtful_at = self.renewed + self.lease.ttl;
            // Once in doubt there is no hurry, but each call has to end.
            let give_up = doubtful_at.max(sent + self.interval());
            match timeout_at(give_up, self.store.keep_alive(self.lease.id)).await {
                Ok(Ok(())) => {
                    self.renewed = sent;
                    self.due = sent + self.interval();
                    return Standing::Held;
                }
                Ok(Err(StoreError::LeaseNotFound(_))) => return Standing::Lost,
                Ok(Err(_)) | Err(_) => {
                    let now = Instant::now();
                    self.due = now + (self.interval() / 4).min(Duration::from_millis(500));
                    if now >= doubtful_at {
                        return Standing::Doubtful;
                    }
                    self.due = self.due.min(doubtful_at);
                }
            }
        }
    }
}
