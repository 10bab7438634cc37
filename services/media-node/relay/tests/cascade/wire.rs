//! Wires between shards: they count, delay, lose, and can be cut without a word.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use headwater_relay::{Dialer, Parcel, Peer, Pipe, ShardAddress, Switchboard, Wake};

use crate::harness::random::Random;

/// What a wire does to what passes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quality {
    pub delay: Duration,
    /// Percent of the datagrams.
    pub loss: u64,
}

/// What passed in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    pub datagrams: u64,
    pub lost: u64,
    pub datagram_bytes: u64,
    pub message_bytes: u64,
}

/// One link's wire, seen from the child that dialled.
pub struct Wire {
    pub child: ShardAddress,
    pub parent: ShardAddress,
    near: Pipe,
    far: Pipe,
    up: VecDeque<(Instant, Parcel)>,
    down: VecDeque<(Instant, Parcel)>,
    pub cut: bool,
    pub passed_up: Passed,
    pub passed_down: Passed,
}

#[derive(Default)]
pub struct Wires {
    pub list: Vec<Wire>,
    pub quality: Quality,
    /// Shards that neither hear nor are heard.
    pub dead: Vec<ShardAddress>,
}

pub type Shared = Arc<Mutex<Wires>>;

/// Dials over wires.
pub struct WireDialer {
    pub me: ShardAddress,
    pub switchboard: Switchboard,
    pub wires: Shared,
}

impl Dialer for WireDialer {
    fn dial(&mut self, peer: &Peer, wake: Wake) -> Option<Pipe> {
        let inbox = self.switchboard.inbox(&peer.address)?;
        let (child, near) = Pipe::pair(wake, Wake::new(|| {}));
        let (far, parent) = Pipe::pair(Wake::new(|| {}), inbox.wake());
        inbox.offer(parent);
        self.wires.lock().unwrap().list.push(Wire {
            child: self.me.clone(),
            parent: peer.address.clone(),
            near,
            far,
            up: VecDeque::new(),
            down: VecDeque::new(),
            cut: false,
            passed_up: Passed::default(),
            passed_down: Passed::default(),
        });
        Some(child)
    }
}

impl Wires {
    /// Moves what is due.
    pub fn pump(&mut self, now: Instant, random: &mut Random) {
        let quality = self.quality;
        for wire in &mut self.list {
            let dead = self.dead.contains(&wire.child) || self.dead.contains(&wire.parent);
            wire.cut |= dead;
            let near = (&wire.near, &mut wire.up, &wire.far, &mut wire.passed_up);
            let far = (&wire.far, &mut wire.down, &wire.near, &mut wire.passed_down);
            let mut ended = false;
            for (from, queue, to, passed) in [near, far] {
                let mut parcels = VecDeque::new();
                let open = from.receive(&mut parcels);
                if wire.cut {
                    continue;
                }
                for parcel in parcels {
                    match &parcel {
                        Parcel::Datagram(bytes) => {
                            if random.percent(quality.loss) {
                                passed.lost += 1;
                                continue;
                            }
                            passed.datagrams += 1;
                            passed.datagram_bytes += bytes.len() as u64;
                        }
                        Parcel::Messages(bytes) => passed.message_bytes += bytes.len() as u64,
                    }
                    queue.push_back((now + quality.delay, parcel));
                }
                while queue.front().is_some_and(|(due, _)| *due <= now) {
                    to.send(queue.pop_front().map(|(_, parcel)| parcel));
                }
                ended |= !open && queue.is_empty();
            }
            if ended && !wire.cut {
                wire.near.close();
                wire.far.close();
            }
        }
    }

    /// The newest wire between two shards.
    pub fn between(&self, child: &ShardAddress, parent: &ShardAddress) -> &Wire {
        let found = self.list.iter().rev().find(|w| w.child == *child && w.parent == *parent);
        found.unwrap_or_else(|| panic!("no wire from {child:?} to {parent:?}"))
    }
}
