//! What clients do once they are in: send frames and messages, change their minds.

use headwater_room::{
    ChannelKey, ControlAction, ControlCommand, MediaEvent, ParticipantUpdate, TransportKind,
};
use headwater_rtp::rtcp::{Compound, RtcpPacket};

use super::door::HOP;
use super::{Happening, PeerKey, World};
use crate::cluster::client::Phase;
use crate::cluster::links::Place;
use crate::cluster::media::{Mark, data_packet};
use crate::cluster::shard::Input;

impl World {
    pub(super) fn take_rtcp(&mut self, key: PeerKey, compound: &[u8]) {
        let Some(peer) = self.peers.get(&key) else { return };
        let (client, number) = (peer.client, peer.stay);
        let Some(stay) = self.clients[client].stay_mut().filter(|it| it.number == number) else {
            return;
        };
        for packet in Compound::new(compound).flatten() {
            if let RtcpPacket::PictureLossIndication(pli) = packet {
                for sender in stay.senders.values_mut() {
                    if let Some(encoding) = sender.encoding_of(pli.media_ssrc) {
                        sender.owes[encoding] = true;
                    }
                }
            }
        }
    }

    /// Where a client sends, if it is connected.
    fn uplink(&self, client: usize) -> Option<PeerKey> {
        let stay = self.clients[client].stay()?;
        let found = self.peers.iter().find(|(key, peer)| {
            (peer.client, peer.stay) == (client, stay.number)
                && peer.kind == TransportKind::Publisher
                && !peer.gone
                && peer.open <= self.now
                && key.0 == stay.node
        });
        found.map(|(key, _)| *key)
    }

    /// Every client sends a frame of each track.
    pub(super) fn send_frames(&mut self) {
        for client in 0..self.clients.len() {
            let Some(key) = self.uplink(client) else { continue };
            if self.clients[client].muted || !self.reaches(Place::Door, key.0) {
                continue;
            }
            let now = self.now;
            let Some(stay) = self.clients[client].stay_mut() else { continue };
            let number = stay.number as u16;
            let packets: Vec<Vec<u8>> = stay
                .senders
                .values_mut()
                .flat_map(|sender| sender.send(now, client as u16, number))
                .collect();
            for packet in packets {
                self.feed(key.0, key.1, key.2, Input::Rtp(key.3, packet));
            }
        }
    }

    /// A client sends a reliable message to everybody.
    pub(crate) fn speak(&mut self, client: usize) {
        let Some(key) = self.uplink(client).filter(|key| self.reaches(Place::Door, key.0)) else {
            return;
        };
        let now = self.now;
        let Some(stay) = self.clients[client].stay_mut() else { return };
        stay.said += 1;
        let mark = Mark {
            client: client as u16,
            stay: stay.number as u16,
            kind: 2,
            encoding: 0,
            number: stay.said,
            sent: now,
        };
        let message = MediaEvent::ChannelMessage {
            transport: key.3,
            channel: ChannelKey(1),
            payload: data_packet(&mark),
        };
        self.feed(key.0, key.1, key.2, Input::Media(message));
    }

    /// The platform lets somebody publish who only watched.
    pub(crate) fn promote(&mut self, client: usize) {
        self.clients[client].may_publish = true;
        let Some(stay) = self.clients[client].stay() else { return };
        let key = (stay.node, stay.life, stay.shard);
        let update = ParticipantUpdate {
            permission: Some(self.clients[client].permission()),
            ..ParticipantUpdate::default()
        };
        let command = ControlCommand {
            room: self.clients[client].room.clone(),
            identity: self.clients[client].identity.clone(),
            action: ControlAction::Update(update),
        };
        self.say(format!("p{client} is given the stage"));
        self.later(
            HOP,
            Happening::Feed {
                node: key.0,
                life: key.1,
                shard: key.2,
                input: Box::new(Input::Control(Box::new(command))),
            },
        );
    }

    // What clients do.

    /// Somebody does something.
    pub(super) fn act(&mut self) {
        let count = self.clients.len() as u64;
        let client = self.act_luck.below(count) as usize;
        let what = self.act_luck.below(100);
        if !self.speaks {
            return;
        }
        if !self.clients[client].wants {
            self.clients[client].wants = true;
            if matches!(self.clients[client].phase, Phase::Out) {
                self.begin_join(client, None);
            }
            return;
        }
        if self.clients[client].stay().is_none() {
            return;
        }
        match what {
            0..45 => self.speak(client),
            45..60 => {
                let text = format!("{} at {}", client, self.now.0);
                self.clients[client].set_metadata(text);
            }
            60..75 => {
                let muted = !self.clients[client].muted;
                self.clients[client].set_muted(muted);
            }
            75..82 if !self.clients[client].may_publish => self.promote(client),
            82..90 => self.leave(client),
            90..94 => self.cut_signalling(client),
            _ => {}
        }
        self.send_commands(client);
    }
}
