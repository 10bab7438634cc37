//! Packet path: one lock for each pipe and wake-up. Between pipes and junctions.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Instant;

use headwater_sfu::Sfu;

use super::{Carrier, HELLO_MAX, ShardRelay, UNNAMED_MAX};
use crate::junction::Arrival;
use crate::link::LinkKey;
use crate::message::{MESSAGE_HEAD, Message, Refusal};
use crate::shell::{Parcel, Pipe};

impl ShardRelay {
    pub(super) fn add_carrier(&mut self, now: Instant, room: Option<usize>, pipe: Pipe) -> LinkKey {
        self.last_link += 1;
        let key = LinkKey(self.last_link);
        self.carriers.insert(key, Carrier { room, pipe, partial: Vec::new(), since: now });
        key
    }

    /// Takes all that came over all links. Call it first in a wake-up.
    pub fn receive(&mut self, now: Instant, sfu: &mut Sfu) {
        self.now = now;
        while let Some(pipe) = self.config.inbox.take() {
            let unnamed = self.carriers.values().filter(|carrier| carrier.room.is_none()).count();
            if unnamed < UNNAMED_MAX {
                self.add_carrier(now, None, pipe);
            }
        }
        let keys: Vec<_> = self.carriers.keys().copied().collect();
        let mut parcels = std::mem::take(&mut self.parcels);
        for key in keys {
            self.receive_link(now, key, &mut parcels, sfu);
            parcels.clear();
        }
        self.parcels = parcels;
    }

    fn receive_link(
        &mut self,
        now: Instant,
        key: LinkKey,
        parcels: &mut VecDeque<Parcel>,
        sfu: &mut Sfu,
    ) {
        let Some(carrier) = self.carriers.get(&key) else { return };
        let open = carrier.pipe.receive(parcels);
        while let Some(parcel) = parcels.pop_front() {
            match parcel {
                Parcel::Datagram(bytes) => self.take_datagram(now, key, bytes, sfu),
                Parcel::Messages(bytes) => self.take_messages(now, key, &bytes, sfu),
            }
        }
        if !open
            && let Some(carrier) = self.carriers.remove(&key)
            && let Some(index) = carrier.room
        {
            self.junctions[index].broken(now, key);
        }
    }

    fn take_datagram(&mut self, now: Instant, key: LinkKey, bytes: Vec<u8>, sfu: &mut Sfu) {
        let Some(index) = self.carriers.get(&key).and_then(|carrier| carrier.room) else {
            return;
        };
        let junction = &mut self.junctions[index];
        junction.handle_datagram(now, key, &bytes, |arrival| hand_over(now, sfu, arrival));
        if let Some(link) = junction.link_mut(key) {
            link.recycle(bytes);
        }
    }

    fn take_messages(&mut self, now: Instant, key: LinkKey, bytes: &[u8], sfu: &mut Sfu) {
        let Some(carrier) = self.carriers.get_mut(&key) else { return };
        let mut buffer = std::mem::take(&mut carrier.partial);
        buffer.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let (kind, len) = match Message::head(&buffer[at..]) {
                Ok(Some(head)) => head,
                Ok(None) => break,
                Err(_) => return self.cut(now, key),
            };
            let Some(body) = buffer.get(at + MESSAGE_HEAD..at + MESSAGE_HEAD + len) else {
                break;
            };
            at += MESSAGE_HEAD + len;
            match Message::parse(kind, body) {
                Ok(Some(message)) => self.take_message(now, key, message, sfu),
                // Of a later version.
                Ok(None) => {}
                Err(_) => return self.cut(now, key),
            }
        }
        buffer.drain(..at);
        if let Some(carrier) = self.carriers.get_mut(&key) {
            carrier.partial = buffer;
        }
    }

    fn take_message(&mut self, now: Instant, key: LinkKey, message: Message, sfu: &mut Sfu) {
        let Some(carrier) = self.carriers.get(&key) else { return };
        match (carrier.room, message) {
            (Some(index), Message::LongFrame(bytes)) => {
                let take = |arrival: Arrival<'_>| hand_over(now, sfu, arrival);
                self.junctions[index].handle_long_frame(key, &bytes, take);
            }
            (Some(index), message) => self.junctions[index].handle_message(now, key, message),
            (None, Message::Hello(hello)) => {
                let index = self.by_room.get(&hello.room).copied();
                let admitted = match index {
                    Some(index) => self.junctions[index].admit(now, key, &hello),
                    None => Err(Refusal::UnknownRoom),
                };
                match admitted {
                    Ok(()) => {
                        if let Some(carrier) = self.carriers.get_mut(&key) {
                            carrier.room = index;
                        }
                    }
                    Err(reason) => {
                        let epoch = index.map(|index| self.junctions[index].epoch());
                        let goodbye = Message::Goodbye(reason, epoch.unwrap_or_default());
                        let mut bytes = Vec::new();
                        goodbye.write(&mut bytes);
                        carrier_send(&self.carriers, key, bytes);
                        self.carriers.remove(&key);
                    }
                }
            }
            (None, _) => {
                self.carriers.remove(&key);
            }
        }
    }

    /// A peer that says what cannot be read is not listened to any more.
    fn cut(&mut self, now: Instant, key: LinkKey) {
        if let Some(carrier) = self.carriers.remove(&key)
            && let Some(index) = carrier.room
        {
            self.junctions[index].broken(now, key);
        }
    }

    pub(super) fn drop_unnamed(&mut self, now: Instant) {
        self.carriers.retain(|_, carrier| {
            carrier.room.is_some() || now.saturating_duration_since(carrier.since) < HELLO_MAX
        });
    }

    /// Hands to a link's pipe what waits on it.
    pub(super) fn ship(&mut self, index: usize, key: LinkKey) {
        let Some(carrier) = self.carriers.get(&key) else { return };
        let Some(link) = self.junctions[index].link_mut(key) else { return };
        let counters = carrier.pipe.counters();
        match counters.datagram_max.load(Ordering::Relaxed) {
            0 => {}
            bytes => link.set_datagram_max(bytes),
        }
        link.note_congestion(carrier.pipe.take_congested());
        let messages = link.take_messages();
        if !messages.is_empty() {
            self.parcels.push_back(Parcel::Messages(messages));
        }
        while let Some(datagram) = link.take_datagram() {
            self.parcels.push_back(Parcel::Datagram(datagram));
        }
        if self.parcels.is_empty() {
            return;
        }
        // A pipe that is closed is noticed when it is read.
        let (dropped, _) = carrier.pipe.send(self.parcels.drain(..));
        if dropped > 0 {
            link.note_congestion(dropped);
        }
    }
}

fn carrier_send(
    carriers: &std::collections::BTreeMap<LinkKey, Carrier>,
    key: LinkKey,
    bytes: Vec<u8>,
) {
    if let Some(carrier) = carriers.get(&key) {
        carrier.pipe.send([Parcel::Messages(bytes)]);
    }
}

fn hand_over(now: Instant, sfu: &mut Sfu, arrival: Arrival<'_>) {
    match arrival {
        Arrival::Packet(track, packet) => sfu.handle_relayed(now, track, &packet),
        Arrival::Clock(track, clock) => sfu.handle_relayed_clock(now, track, &clock),
    }
}
