//! Turns of shards, and the links between nodes.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use headwater_relay::{Parcel, Pipe, ShardAddress, Wake};
use headwater_room::MediaEvent;

use super::{BATCH, Happening, World};
use crate::Time;
use crate::cluster::links::{DATAGRAM_MAX, End, Freight, Place, Wire};
use crate::cluster::media::Mark;
use crate::cluster::shard::Told;

/// How long a node takes to be found away, as QUIC does it.
const CONNECT_MAX: Duration = Duration::from_secs(2);

impl World {
    /// A shard gets a turn then, unless it has one before.
    pub(crate) fn arm(&mut self, node: usize, shard: usize, at: Time) {
        let there = &mut self.nodes[node];
        if !there.alive || there.frozen {
            return;
        }
        let at = at.max(self.now);
        if there.armed[shard].is_some_and(|armed| armed <= at) {
            return;
        }
        there.armed[shard] = Some(at);
        let life = there.life;
        self.later(at.since(self.now), Happening::Turn { node, life, shard });
    }

    pub(super) fn turn_due(&mut self, node: usize, life: u64, shard: usize) {
        let there = &mut self.nodes[node];
        if !there.alive || there.frozen || there.life != life {
            return;
        }
        if there.armed[shard] != Some(self.now) {
            return;
        }
        there.armed[shard] = None;
        self.turn(node, shard);
    }

    fn turn(&mut self, node: usize, shard: usize) {
        let at = self.at();
        let told = self.nodes[node].shards[shard].turn(at);
        for one in told {
            self.take_told(node, shard, one);
        }
        self.open_wires(node, shard);
        self.pump(node, shard);
        self.wake_woken(node);
        let due = self.nodes[node].shards[shard].poll_timeout();
        if let Some(due) = due {
            let since = due.saturating_duration_since(self.origin);
            // Rounded up: a timer that fires early would fire again.
            let due = Time(since.as_nanos().div_ceil(1_000) as u64);
            self.arm(node, shard, due.max(self.now.plus(BATCH)));
        }
    }

    fn wake_woken(&mut self, node: usize) {
        for shard in 0..self.nodes[node].shards.len() {
            if self.nodes[node].woken[shard].swap(false, Ordering::Relaxed) {
                self.arm(node, shard, self.now.plus(BATCH));
            }
        }
    }

    fn take_told(&mut self, node: usize, shard: usize, told: Told) {
        let life = self.nodes[node].life;
        match told {
            Told::Event(session, event) => self.mail(session, event),
            Told::Abandon(session) => {
                self.say(format!("{session:?} abandoned by node {node}"));
                self.lose_session(session);
            }
            Told::Remote { session, kind, transport } => {
                self.peer_known((node, life, shard, transport), session, kind);
            }
            Told::Channel(transport, label) => {
                self.channel_wanted((node, life, shard, transport), label);
            }
            Told::Closed(transport) => {
                self.peers.remove(&(node, life, shard, transport));
            }
            Told::Data(transport, payload) => {
                let key = (node, life, shard, transport);
                let Some(peer) = self.peers.get(&key).filter(|peer| !peer.gone) else { return };
                let (client, stay) = (peer.client, peer.stay);
                self.note(2_000 + client as u64, &payload);
                if let Some(mark) = Mark::find(&payload) {
                    self.checks.note_message(self.now, (client, stay), &mark);
                }
            }
            Told::Rtp(transport, packet) => {
                let key = (node, life, shard, transport);
                let Some(peer) = self.peers.get(&key).filter(|peer| !peer.gone) else { return };
                let (client, stay) = (peer.client, peer.stay);
                self.note(1_000 + client as u64, &packet);
                self.checks.note_packet(self.now, (client, stay), &packet);
            }
            Told::Rtcp(transport, compound) => {
                let key = (node, life, shard, transport);
                self.take_rtcp(key, &compound);
            }
            Told::Carried { room, epoch, is_home } => {
                let id = self.nodes[node].id.clone();
                self.say(format!("{room} epoch {} on {id}/{shard} home {is_home}", epoch.0));
                if is_home {
                    self.checks.note_home(self.now, &room, epoch, (node, life, shard));
                }
            }
        }
    }

    /// Takes up the links that a shard wants to other nodes.
    fn open_wires(&mut self, node: usize, shard: usize) {
        let dials = {
            let list = &self.nodes[node].dials[shard];
            std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let life = self.nodes[node].life;
        for (target, pipe) in dials {
            let Some(other) = self.node_index(&target.node) else { continue };
            let wire = self.number();
            let end = |node, life, shard, pipe| End {
                node,
                life,
                shard,
                pipe,
                queue: VecDeque::new(),
                due: None,
            };
            let far = end(other, 0, usize::from(target.shard.0), None);
            let ends = [end(node, life, shard, Some(pipe)), far];
            self.wires.insert(wire, Wire { ends });
            let found = self.reaches(Place::Node(node), other);
            let takes = if found { self.weather.delay * 3 } else { CONNECT_MAX };
            self.later(takes, Happening::Connect { wire });
        }
    }

    pub(super) fn connect_wire(&mut self, wire: u64) {
        let Some(it) = self.wires.get(&wire) else { return };
        let (from, to, shard) = (it.ends[0].node, it.ends[1].node, it.ends[1].shard);
        let is_there = self.reaches(Place::Node(from), to);
        let inbox = self.nodes[to].inboxes.get(shard).filter(|_| is_there).cloned();
        let life = self.nodes[to].life;
        let Some(it) = self.wires.get_mut(&wire) else { return };
        let (near, Some(inbox)) = (it.ends[0].shard, inbox) else {
            let near = it.ends[0].shard;
            self.wires.remove(&wire);
            self.arm(from, near, self.now.plus(BATCH));
            return;
        };
        let (network, accepted) = Pipe::pair(Wake::new(|| {}), inbox.wake());
        network.counters().datagram_max.store(DATAGRAM_MAX, Ordering::Relaxed);
        inbox.offer(accepted);
        (it.ends[1].life, it.ends[1].pipe) = (life, Some(network));
        let _ = near;
        self.arm(to, shard, self.now.plus(BATCH));
        self.pump_wire(wire, 0);
    }

    /// Takes what a shard sent over links to other nodes.
    fn pump(&mut self, node: usize, shard: usize) {
        let life = self.nodes[node].life;
        let mine: Vec<(u64, usize)> = self
            .wires
            .iter()
            .flat_map(|(wire, it)| {
                let ends = it.ends.iter().enumerate();
                ends.filter(|(_, end)| {
                    (end.node, end.life, end.shard) == (node, life, shard) && end.pipe.is_some()
                })
                .map(|(end, _)| (*wire, end))
            })
            .collect();
        for (wire, end) in mine {
            self.pump_wire(wire, end);
        }
    }

    fn pump_wire(&mut self, wire: u64, from: usize) {
        let mut parcels = VecDeque::new();
        let Some(it) = self.wires.get_mut(&wire) else { return };
        if it.ends[1].life == 0 {
            // Not connected yet: it waits where it is.
            return;
        }
        let (a, b) = (it.ends[from].node, it.ends[1 - from].node);
        let Some(pipe) = &it.ends[from].pipe else { return };
        let open = pipe.receive(&mut parcels);
        if !open {
            it.ends[from].pipe = None;
        }
        let cut = !self.cuts.hears(Place::Node(a), Place::Node(b));
        for parcel in parcels {
            match parcel {
                Parcel::Datagram(bytes) => {
                    self.checks.datagrams += 1;
                    let lost = self.net_luck.chance(self.weather.loss);
                    if cut || lost {
                        continue;
                    }
                    let jitter = self.weather.jitter.mul_f64(self.net_luck.unit());
                    let delay = self.weather.delay + jitter;
                    self.later(delay, Happening::Datagram { wire, to: 1 - from, bytes });
                }
                Parcel::Messages(bytes) => self.ship(wire, from, Freight::Messages(bytes)),
            }
        }
        if !open {
            self.ship(wire, from, Freight::Closed);
        }
    }

    fn ship(&mut self, wire: u64, from: usize, freight: Freight) {
        let at = self.now.plus(self.weather.delay);
        let Some(it) = self.wires.get_mut(&wire) else { return };
        let end = &mut it.ends[from];
        end.queue.push_back((at, freight));
        if end.due.is_none() {
            end.due = Some(at);
            self.later(at.since(self.now), Happening::Freight { wire, from });
        }
    }

    pub(super) fn freight_due(&mut self, wire: u64, from: usize) {
        let Some(it) = self.wires.get_mut(&wire) else { return };
        let (a, b) = (it.ends[from].node, it.ends[1 - from].node);
        it.ends[from].due = None;
        // A stream needs its acknowledgements too.
        if !self.cuts.connects(Place::Node(a), Place::Node(b)) {
            it.ends[from].due = Some(self.now);
            self.later(Duration::from_millis(40), Happening::Freight { wire, from });
            return;
        }
        let mut next = None;
        while let Some((at, _)) = it.ends[from].queue.front() {
            if *at > self.now {
                next = Some(*at);
                break;
            }
            let Some((_, freight)) = it.ends[from].queue.pop_front() else { break };
            let far = &mut it.ends[1 - from];
            match (freight, &far.pipe) {
                (Freight::Messages(bytes), Some(pipe)) => {
                    pipe.send([Parcel::Messages(bytes)]);
                }
                (Freight::Closed, _) => far.pipe = None,
                (Freight::Messages(_), None) => {}
            }
        }
        it.ends[from].due = next;
        let shard = it.ends[1 - from].shard;
        let over = it.ends.iter().all(|end| end.pipe.is_none() && end.queue.is_empty());
        if over {
            self.wires.remove(&wire);
        }
        if let Some(at) = next {
            self.later(at.since(self.now), Happening::Freight { wire, from });
        }
        if self.nodes[b].shards.get(shard).is_some() {
            self.arm(b, shard, self.now.plus(BATCH));
        }
    }

    pub(super) fn datagram_comes(&mut self, wire: u64, to: usize, bytes: Vec<u8>) {
        let Some(it) = self.wires.get(&wire) else { return };
        let end = &it.ends[to];
        let (node, shard) = (end.node, end.shard);
        let Some(pipe) = &end.pipe else { return };
        pipe.send([Parcel::Datagram(bytes)]);
        if self.nodes[node].shards.get(shard).is_some() {
            self.arm(node, shard, self.now.plus(BATCH));
        }
    }

    /// A node goes on where it stood still.
    pub(crate) fn thaw(&mut self, node: usize) {
        self.nodes[node].frozen = false;
        for shard in 0..self.nodes[node].shards.len() {
            self.nodes[node].armed[shard] = None;
            self.arm(node, shard, self.now.plus(BATCH));
        }
    }

    /// Media of a client, on its way for a moment.
    pub(crate) fn feed_event(
        &mut self,
        (node, life, shard): (usize, u64, usize),
        after: Duration,
        event: MediaEvent,
    ) {
        let input = Box::new(crate::cluster::shard::Input::Media(event));
        self.later(after, Happening::Feed { node, life, shard, input });
    }

    /// Where a shard is, as relay links name it.
    pub(crate) fn place_of(&self, address: &ShardAddress) -> Option<(usize, usize)> {
        Some((self.node_index(&address.node)?, usize::from(address.shard.0)))
    }
}
