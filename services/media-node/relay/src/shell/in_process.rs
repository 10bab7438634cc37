//! Links between shards of one process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use headwater_model::ShardIndex;

use super::Dialer;
use super::pipe::{Inbox, Pipe, Wake};
use crate::plan::{Peer, ShardAddress};

/// Longest datagram between shards of one process: trains of some forty packets, so
/// that a queue's lock is taken rarely.
pub(crate) const DATAGRAM_MAX: usize = 48 * 1024;

/// The shards of this process. Clones are the same switchboard.
#[derive(Debug, Clone, Default)]
pub struct Switchboard {
    inboxes: Arc<Mutex<BTreeMap<ShardAddress, Arc<Inbox>>>>,
}

impl Switchboard {
    /// Makes a shard reachable. As many as there are shards.
    pub fn register(&self, shard: ShardAddress, inbox: Arc<Inbox>) {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).insert(shard, inbox);
    }

    /// A shard has ended.
    pub fn unregister(&self, shard: &ShardAddress) {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).remove(shard);
    }

    /// The inbox of a shard of this process.
    #[must_use]
    pub fn inbox(&self, shard: &ShardAddress) -> Option<Arc<Inbox>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).get(shard).cloned()
    }

    /// The inbox of a shard by its index, for a process with one node.
    pub(crate) fn inbox_of(&self, index: ShardIndex) -> Option<Arc<Inbox>> {
        let inboxes = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        let found = inboxes.iter().find(|(address, _)| address.shard == index);
        found.map(|(_, inbox)| Arc::clone(inbox))
    }
}

impl Dialer for Switchboard {
    fn dial(&mut self, peer: &Peer, wake: Wake) -> Option<Pipe> {
        let inbox = self.inbox(&peer.address)?;
        let (near, far) = Pipe::pair(wake, inbox.wake());
        let longest = std::sync::atomic::Ordering::Relaxed;
        near.counters().datagram_max.store(DATAGRAM_MAX, longest);
        inbox.offer(far);
        Some(near)
    }
}
