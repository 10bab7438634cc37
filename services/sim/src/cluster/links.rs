//! The network between nodes: relay links' pipes with delay, loss, reordering and cuts
//! between their ends. Datagrams may be lost; messages come in order or not at all.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use headwater_relay::{Dialer, Peer, Pipe, ShardAddress, Switchboard, Wake};

use crate::Time;

/// As long as QUIC takes it over the open internet.
pub(crate) const DATAGRAM_MAX: usize = 1_200;

/// Links that shards want to other nodes and that the world has not opened yet.
pub(crate) type Dials = Arc<Mutex<Vec<(ShardAddress, Pipe)>>>;

/// Opens links within a node at once, and leaves others to the world.
pub(crate) struct SimDialer {
    pub(crate) me: ShardAddress,
    pub(crate) local: Switchboard,
    pub(crate) dials: Dials,
}

impl Dialer for SimDialer {
    fn dial(&mut self, peer: &Peer, wake: Wake) -> Option<Pipe> {
        if peer.address.node == self.me.node {
            return self.local.dial(peer, wake);
        }
        peer.relay_address?;
        let (near, far) = Pipe::pair(wake, Wake::new(|| {}));
        let longest = std::sync::atomic::Ordering::Relaxed;
        near.counters().datagram_max.store(DATAGRAM_MAX, longest);
        let mut dials = self.dials.lock().unwrap_or_else(PoisonError::into_inner);
        dials.push((peer.address.clone(), far));
        Some(near)
    }
}

/// One end of a link between nodes.
#[derive(Debug)]
pub(crate) struct End {
    /// Index of the node and its life.
    pub(crate) node: usize,
    pub(crate) life: u64,
    pub(crate) shard: usize,
    /// The network's side of that shard's pipe; none before it came and after it went.
    pub(crate) pipe: Option<Pipe>,
    /// On the way to the other end: messages and the end of the link, in order.
    pub(crate) queue: VecDeque<(Time, Freight)>,
    pub(crate) due: Option<Time>,
}

/// What goes in order.
#[derive(Debug)]
pub(crate) enum Freight {
    Messages(Vec<u8>),
    Closed,
}

/// A link between two nodes.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) ends: [End; 2],
}

/// Who hears whom no more: pairs of places, one way each.
#[derive(Debug, Default)]
pub(crate) struct Cuts(BTreeSet<(Place, Place)>);

/// A place in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Node(usize),
    Replica(usize),
    Registry,
    /// Gateways and clients.
    Door,
}

impl Cuts {
    pub(crate) fn cut(&mut self, from: Place, to: Place) {
        self.0.insert((from, to));
    }

    pub(crate) fn mend(&mut self, from: Place, to: Place) {
        self.0.remove(&(from, to));
    }

    pub(crate) fn mend_all(&mut self) {
        self.0.clear();
    }

    pub(crate) fn hears(&self, from: Place, to: Place) -> bool {
        !self.0.contains(&(from, to))
    }

    /// Both ways work, as a connection needs.
    pub(crate) fn connects(&self, a: Place, b: Place) -> bool {
        self.hears(a, b) && self.hears(b, a)
    }
}
