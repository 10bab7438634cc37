//! A thread that owns many clients: their sockets in one poller, their timers in one
//! heap. It takes orders from outside and publishes counts for the timeline.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use headwater_net::{
    Interest, Poller, ReadyList, RecvBatch, Token, UdpOptions, UdpSocket, Waker, thread,
};

use super::peer::{Peer, PeerPlan};
use super::tally::{LAYERS, PeerReport};
use crate::description::Answer;

/// Messages taken from a socket at once.
const BATCH: usize = 64;
/// Between two looks at all clients for the timeline.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(250);
/// Reports of clients that left, kept one by one.
const DEPARTED_MAX: usize = 100_000;

/// An order to a worker. Few for each client, so the queue is bounded by the clients.
pub enum Order {
    /// Takes a client in.
    Add(u64, Box<PeerPlan>),
    /// The server's answer to a client's offer.
    Answer(u64, Box<Answer>),
    /// An address of the server.
    Candidate(u64, SocketAddr),
    /// A client leaves; its report is kept.
    Remove(u64),
    /// The measurement begins.
    Reset,
    /// Asks for the reports of all clients, those that left included.
    Collect(Sender<Vec<PeerReport>>),
    /// The worker ends.
    Stop,
}

/// Sums over a worker's clients, for the timeline. They only rise.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sums {
    /// Media packets received.
    pub packets: u64,
    /// Payload bytes of those decrypted.
    pub bytes: u64,
    /// Video packets by encoding.
    pub layers: [u64; LAYERS],
    /// Clients.
    pub clients: usize,
    /// Processor time of the thread.
    pub cpu: Duration,
}

/// A few protected packets of a publisher, for strangers to replay.
#[derive(Debug, Default)]
pub struct Capture {
    packets: Mutex<Vec<(SocketAddr, Vec<u8>)>>,
}

impl Capture {
    const MAX: usize = 64;

    /// Keeps a packet in place of an older one, unless somebody looks at this moment.
    pub fn offer(&self, to: SocketAddr, packet: &[u8]) {
        let Ok(mut packets) = self.packets.try_lock() else { return };
        if packets.len() < Self::MAX {
            packets.push((to, packet.to_vec()));
        } else {
            // The sequence number spreads them over the places.
            let place = usize::from(packet[3]) % Self::MAX;
            packets[place] = (to, packet.to_vec());
        }
    }

    /// What was kept.
    #[must_use]
    pub fn packets(&self) -> Vec<(SocketAddr, Vec<u8>)> {
        self.packets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A handle to a worker.
#[derive(Clone)]
pub struct Worker {
    orders: Sender<Order>,
    waker: Waker,
    sums: Arc<Mutex<Sums>>,
}

impl Worker {
    /// Starts a thread.
    ///
    /// # Errors
    /// If the system has no descriptors or threads left.
    pub fn start(name: String, options: UdpOptions) -> anyhow::Result<Self> {
        let poller = Poller::new().context("make a poller")?;
        let waker = poller.waker();
        let (orders, inbox) = channel();
        let sums = Arc::new(Mutex::new(Sums::default()));
        let shared = Arc::clone(&sums);
        // Only its offload decides how the batch's buffers are made.
        let any = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)), &options)?;
        let batch = RecvBatch::new(&any, BATCH);
        std::thread::Builder::new()
            .name(name)
            .spawn(move || Loop::new(poller, batch, inbox, shared).run())
            .context("start a worker")?;
        Ok(Self { orders, waker, sums })
    }

    /// Gives an order. A worker that ended takes none.
    pub fn order(&self, order: Order) {
        if self.orders.send(order).is_ok() {
            self.waker.wake();
        }
    }

    /// The sums that it published last.
    #[must_use]
    pub fn sums(&self) -> Sums {
        *self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Loop {
    poller: Poller,
    ready: ReadyList,
    batch: RecvBatch,
    inbox: Receiver<Order>,
    shared: Arc<Mutex<Sums>>,
    peers: Vec<Option<Peer>>,
    /// Place of each client by its number.
    places: std::collections::BTreeMap<u64, usize>,
    free: Vec<usize>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    departed: Vec<PeerReport>,
    sums: Sums,
    publish_due: Instant,
}

impl Loop {
    fn new(
        poller: Poller,
        batch: RecvBatch,
        inbox: Receiver<Order>,
        shared: Arc<Mutex<Sums>>,
    ) -> Self {
        Self {
            poller,
            ready: ReadyList::new(256),
            batch,
            inbox,
            shared,
            peers: Vec::new(),
            places: std::collections::BTreeMap::new(),
            free: Vec::new(),
            timers: BinaryHeap::new(),
            departed: Vec::new(),
            sums: Sums::default(),
            publish_due: Instant::now(),
        }
    }

    fn run(mut self) {
        loop {
            let timer = self.timers.peek().map(|Reverse((due, _))| *due);
            let due = timer.map_or(self.publish_due, |due| due.min(self.publish_due));
            let wait = due.saturating_duration_since(Instant::now());
            if self.poller.wait(&mut self.ready, Some(wait)).is_err() {
                return;
            }
            if self.ready.woken() && !self.take_orders() {
                return;
            }
            self.receive();
            self.expire();
        }
    }

    /// False when it is over.
    fn take_orders(&mut self) -> bool {
        let now = Instant::now();
        while let Ok(order) = self.inbox.try_recv() {
            match order {
                Order::Add(id, plan) => self.add(id, *plan),
                Order::Answer(id, answer) => {
                    self.with(id, |peer| peer.handle_answer(now, &answer));
                }
                Order::Candidate(id, address) => {
                    self.with(id, |peer| peer.handle_candidate(now, address));
                }
                Order::Remove(id) => self.remove(id, now),
                Order::Reset => {
                    self.departed.clear();
                    self.peers.iter_mut().flatten().for_each(|peer| peer.reset(now));
                }
                Order::Collect(reply) => {
                    let live = self.peers.iter().flatten().map(|peer| peer.report(now));
                    let _ = reply.send(live.chain(self.departed.iter().cloned()).collect());
                }
                Order::Stop => return false,
            }
        }
        true
    }

    fn add(&mut self, id: u64, plan: PeerPlan) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.peers.push(None);
            self.peers.len() - 1
        });
        let added = self.poller.add(&plan.socket, Token(place as u64), Interest::Read);
        if added.is_err() {
            self.free.push(place);
            return;
        }
        self.places.insert(id, place);
        self.peers[place] = Some(Peer::new(plan));
        self.schedule(place);
    }

    fn with(&mut self, id: u64, act: impl FnOnce(&mut Peer)) {
        let Some(place) = self.places.get(&id).copied() else { return };
        if let Some(peer) = &mut self.peers[place] {
            act(peer);
        }
        self.schedule(place);
    }

    fn remove(&mut self, id: u64, now: Instant) {
        let Some(place) = self.places.remove(&id) else { return };
        let Some(mut peer) = self.peers[place].take() else { return };
        self.take_fresh(&mut peer);
        if self.departed.len() < DEPARTED_MAX {
            self.departed.push(peer.report(now));
        }
        peer.close(now);
        let _ = self.poller.remove(peer.socket());
        self.free.push(place);
    }

    fn receive(&mut self) {
        for ready in self.ready.iter() {
            let place = ready.token.0 as usize;
            let Some(Some(peer)) = self.peers.get_mut(place) else { continue };
            if !self.batch.receive(peer.socket()).is_ok_and(|received| received > 0) {
                continue;
            }
            let now = Instant::now();
            for (from, datagram) in self.batch.datagrams() {
                peer.handle_datagram(now, from, datagram);
            }
            schedule(&mut self.timers, peer, place);
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((due, place))) = self.timers.peek().copied() {
            if due > now {
                break;
            }
            self.timers.pop();
            let Some(Some(peer)) = self.peers.get_mut(place) else { continue };
            // A timer that was moved since leaves its old entry behind.
            if peer.scheduled != Some(due) {
                continue;
            }
            peer.scheduled = None;
            peer.handle_timeout(Instant::now());
            schedule(&mut self.timers, peer, place);
        }
        if now >= self.publish_due {
            self.publish_due = now + PUBLISH_INTERVAL;
            self.publish();
        }
    }

    fn publish(&mut self) {
        let mut peers = std::mem::take(&mut self.peers);
        peers.iter_mut().flatten().for_each(|peer| self.take_fresh(peer));
        self.peers = peers;
        self.sums.clients = self.places.len();
        self.sums.cpu = thread::cpu_time();
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = self.sums;
    }

    fn take_fresh(&mut self, peer: &mut Peer) {
        let fresh = std::mem::take(&mut peer.tally().fresh);
        self.sums.packets += fresh.packets;
        self.sums.bytes += fresh.bytes;
        for (sum, fresh) in self.sums.layers.iter_mut().zip(fresh.layers) {
            *sum += fresh;
        }
    }

    fn schedule(&mut self, place: usize) {
        if let Some(Some(peer)) = self.peers.get_mut(place) {
            schedule(&mut self.timers, peer, place);
        }
    }
}

fn schedule(timers: &mut BinaryHeap<Reverse<(Instant, usize)>>, peer: &mut Peer, place: usize) {
    let Some(due) = peer.poll_timeout() else { return };
    if peer.scheduled.is_none_or(|scheduled| due < scheduled) {
        peer.scheduled = Some(due);
        timers.push(Reverse((due, place)));
    }
}
