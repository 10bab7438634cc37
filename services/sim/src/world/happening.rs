//! What happens in a world, one thing after another.

use super::*;

impl World {
    pub(super) fn instant(&self) -> Instant {
        self.origin + self.now.elapsed()
    }

    pub(super) fn happen(&mut self, what: Happening) {
        match what {
            Happening::Arrival { link, datagram } => self.arrive(link, datagram),
            Happening::Serve(link) => {
                let next = self.ways[link].link.serve(self.now, &mut self.arrivals);
                self.follow_link(link, next);
            }
            Happening::Node(index) => {
                self.nodes[index].armed = None;
                let at = self.instant();
                if self.nodes[index].poll_timeout().is_some_and(|due| due <= self.now) {
                    self.nodes[index].sfu.handle_timeout(at);
                }
                self.settle_node(index);
            }
            Happening::Peer(index) => {
                self.peers[index].armed = None;
                if !self.peers[index].gone {
                    self.time_out_peer(index);
                    self.settle_peer(index);
                }
            }
            Happening::Seal(index) => {
                if let Some(seal) = &mut self.peers[index].seal {
                    seal.armed = None;
                    seal.handle_timeout(self.now);
                    self.settle_seal(index);
                }
            }
        }
    }

    /// Sends what a peer's transports have to send, and begins when they are connected.
    pub(super) fn settle_seal(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        let (up, down, node, transport) = (peer.up, peer.down, peer.node, peer.transport);
        for (end, link) in [(End::Node, down), (End::Peer, up)] {
            let poll = |peer: &mut Peer, now| peer.seal.as_mut()?.poll_transmit(now, end);
            while let Some(datagram) = poll(&mut self.peers[index], self.now) {
                self.send(link, datagram);
            }
        }
        let Some(seal) = &self.peers[index].seal else { return };
        let report = &seal.report;
        let (of_node, of_peer) = (report.node_connected.is_some(), report.peer_connected.is_some());
        let (due, armed) = (seal.poll_timeout(), seal.armed);
        if let Some(due) = due.filter(|due| armed.is_none_or(|armed| *due < armed)) {
            let at = due.max(Time(self.now.0 + 1));
            if let Some(seal) = &mut self.peers[index].seal {
                seal.armed = Some(at);
            }
            self.push(at, Happening::Seal(index));
        }
        if of_node {
            let at = self.instant();
            self.nodes[node].sfu.set_connected(at, transport, true);
            self.settle_node(node);
        }
        if of_peer && !self.peers[index].live {
            self.peers[index].live = true;
            if let Role::Publisher { publisher, .. } = &mut self.peers[index].role {
                publisher.begin(self.now);
            }
            self.settle_peer(index);
        }
    }

    pub(super) fn time_out_peer(&mut self, index: usize) {
        let now = self.now;
        match &mut self.peers[index].role {
            Role::Publisher { publisher, .. } => publisher.handle_timeout(now),
            Role::Subscriber { subscriber, .. } => subscriber.handle_timeout(now),
        }
    }

    pub(super) fn arrive(&mut self, link: usize, datagram: Datagram) {
        self.trace.note(self.now, link as u64, &datagram.bytes);
        let len = datagram.wire_len();
        let (index, end) = match (self.ways[link].from, self.ways[link].to) {
            (Place::Peer(peer), Place::Node(_)) => (peer, End::Node),
            (Place::Node(_), Place::Peer(peer)) => (peer, End::Peer),
            (Place::Node(_), Place::Node(_)) | (Place::Peer(_), Place::Peer(_)) => return,
        };
        if self.peers[index].gone {
            return;
        }
        let Some(seal) = &mut self.peers[index].seal else {
            self.take(index, end, &datagram, len);
            return;
        };
        let opened = seal.open(self.now, end, datagram.bytes);
        self.settle_seal(index);
        if let Some(datagram) = opened {
            self.take(index, end, &datagram, len);
        }
    }

    /// Plain media arrives at one end of a peer's way.
    pub(super) fn take(&mut self, index: usize, end: End, datagram: &Datagram, len: usize) {
        let (at, now, bytes) = (self.instant(), self.now, &datagram.bytes);
        let peer = &mut self.peers[index];
        if end == End::Node {
            let (node, from) = (peer.node, peer.transport);
            match datagram.kind {
                Kind::Rtp => self.nodes[node].sfu.handle_rtp(at, from, bytes),
                Kind::Rtcp => self.nodes[node].sfu.handle_rtcp(at, from, bytes),
                Kind::Wire => {}
            }
            self.settle_node(node);
            return;
        }
        match (&mut peer.role, datagram.kind) {
            (Role::Publisher { publisher, .. }, Kind::Rtcp) => publisher.handle_rtcp(now, bytes),
            (Role::Subscriber { subscriber, .. }, Kind::Rtp) => {
                subscriber.handle_rtp(now, bytes, len);
            }
            (Role::Subscriber { subscriber, .. }, Kind::Rtcp) => {
                subscriber.handle_rtcp(now, bytes, len);
            }
            (_, Kind::Rtp | Kind::Wire) => {}
        }
        self.settle_peer(index);
    }

    /// Puts a plain packet on a peer's way, sealed if it has transports.
    pub(super) fn send_media(&mut self, index: usize, end: End, datagram: Datagram) {
        let peer = &mut self.peers[index];
        let link = match end {
            End::Node => peer.down,
            End::Peer => peer.up,
        };
        let datagram = match &mut peer.seal {
            Some(seal) => seal.seal(end, &datagram),
            None => Some(datagram),
        };
        if let Some(datagram) = datagram {
            self.send(link, datagram);
        }
    }

    /// Sends what a node has to send and sets its timer.
    pub(super) fn settle_node(&mut self, index: usize) {
        self.nodes[index].drain(self.now);
        let mut list = std::mem::take(&mut self.nodes[index].sent.list);
        for (to, datagram) in list.drain(..) {
            if let Some(peer) = to.0.checked_sub(1) {
                self.send_media(peer as usize, End::Node, datagram);
            }
        }
        self.nodes[index].sent.list = list;
        let Some(due) = self.nodes[index].poll_timeout() else { return };
        let armed = self.nodes[index].armed;
        if armed.is_none_or(|armed| due < armed) {
            // A core whose deadline does not move on would stop the world.
            let at = due.max(Time(self.now.0 + 1));
            self.nodes[index].armed = Some(at);
            self.push(at, Happening::Node(index));
        }
    }

    pub(super) fn settle_peer(&mut self, index: usize) {
        while let Some(datagram) = match &mut self.peers[index].role {
            Role::Publisher { publisher, .. } => publisher.poll_transmit(),
            Role::Subscriber { subscriber, .. } => subscriber.poll_transmit(),
        } {
            self.send_media(index, End::Peer, datagram);
        }
        self.arm_peer(index);
    }

    pub(super) fn arm_peer(&mut self, index: usize) {
        let due = match &self.peers[index].role {
            Role::Publisher { publisher, .. } => publisher.poll_timeout(),
            Role::Subscriber { subscriber, .. } => subscriber.poll_timeout(),
        };
        let Some(due) = due else { return };
        if self.peers[index].armed.is_none_or(|armed| due < armed) {
            let at = due.max(self.now);
            self.peers[index].armed = Some(at);
            self.push(at, Happening::Peer(index));
        }
    }

    pub(super) fn send(&mut self, link: usize, datagram: Datagram) {
        let size = datagram.wire_len();
        let next = self.ways[link].link.send(self.now, size, datagram, &mut self.arrivals);
        self.follow_link(link, next);
    }

    pub(super) fn follow_link(&mut self, link: usize, next: Option<Time>) {
        let mut arrivals = std::mem::take(&mut self.arrivals);
        for Delivery { at, item } in arrivals.drain(..) {
            self.push(at, Happening::Arrival { link, datagram: item });
        }
        self.arrivals = arrivals;
        if let Some(at) = next {
            self.push(at, Happening::Serve(link));
        }
    }

    pub(super) fn push(&mut self, at: Time, what: Happening) {
        self.serial += 1;
        self.happenings.push(Reverse(Entry { at, serial: self.serial, what }));
    }
}
