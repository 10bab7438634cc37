//! The way of a data message from its sender to those it is for.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_model::ParticipantUid;

use crate::control::{ControlError, DataMessage};
use crate::core::Core;
use crate::data::envelope::{self, Content, Destinations, Stamp};
use crate::data::{Kept, from_nobody};
use crate::directory::ParticipantKey;
use crate::media::{ChannelKey, ChannelReliability, MediaCommand};
use crate::participant::Participant;
use crate::room::Room;
use crate::session::TransportKind;
use crate::tally;
use crate::transport::ChannelUse;

impl Room {
    /// A data channel of a participant is open: what was kept for it is sent.
    pub(crate) fn channel_open(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        kind: TransportKind,
        channel: ChannelKey,
        label: &str,
        reliability: ChannelReliability,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let Some(transport) = participant.transport_mut(kind) else {
            return;
        };
        let purpose = transport.channels.add(channel, label, reliability);
        let transport = transport.key;
        let is_downlink = participant.downlink().is_some_and(|downlink| downlink.key == transport);
        if purpose == Some(ChannelUse::Reliable) && is_downlink {
            for payload in participant.data.take_early() {
                core.order(MediaCommand::Send { transport, channel, payload });
            }
            self.tell_sums_to(core, key);
        }
    }

    /// A message of a participant.
    pub(crate) fn take_message(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        purpose: ChannelUse,
        bytes: Vec<u8>,
    ) {
        let Some(sender) = self.participants.get(&key) else {
            return;
        };
        if !sender.permission.can_publish_data || bytes.len() > core.config.limits.message_bytes {
            return;
        }
        match purpose {
            ChannelUse::Reliable => self.take_packet(core, key, true, &bytes),
            ChannelUse::Lossy => self.take_packet(core, key, false, &bytes),
            ChannelUse::DataTrack => self.take_frame(core, key, bytes),
            ChannelUse::Other(reliability) => {
                let reliable = reliability == ChannelReliability::Reliable;
                let stamp = stamp_of(sender, reliable, true);
                let packet: Arc<[u8]> = envelope::wrap(&bytes, "", stamp).into();
                self.send_to(core, Some(key), &Destinations::Everybody, reliable, &packet);
            }
        }
    }

    /// A data packet. What is no packet, comes twice, or is not the sender's to
    /// send, is dropped without a word, as clients expect.
    fn take_packet(&mut self, core: &mut Core, key: ParticipantKey, reliable: bool, bytes: &[u8]) {
        let Ok(envelope) = envelope::read(bytes) else {
            return;
        };
        let Some(sender) = self.participants.get_mut(&key) else {
            return;
        };
        let sequence = if reliable { envelope.sequence } else { 0 };
        if sequence > 0 {
            if sequence <= sender.data.last_sequence {
                return;
            }
            sender.data.last_sequence = sequence;
        }
        // Whether a participant is a program is told by its not being counted.
        let is_program = sender.uncounted;
        let is_due = match envelope.content {
            Content::User | Content::Spoken | Content::Opaque => true,
            Content::Transcription => is_program,
            // Nobody has the grant to receive these yet.
            Content::Metrics => false,
            Content::Speaker => false,
        };
        if !is_due {
            return;
        }
        let is_reaction = envelope.content == Content::User && envelope.topic == tally::TOPIC;
        if is_reaction && envelope.destinations == Destinations::Everybody {
            self.count_reaction(core, envelope.payload);
            return;
        }
        let speaks_for_another = is_program
            && !envelope.identity.is_empty()
            && matches!(envelope.content, Content::Spoken | Content::Transcription);
        let stamp = stamp_of(sender, reliable, !speaks_for_another);
        let packet: Arc<[u8]> = envelope::stamp(bytes, &envelope, stamp).into();
        let uid = sender.uid.clone();
        self.send_to(core, Some(key), &envelope.destinations, reliable, &packet);
        if sequence > 0 {
            self.keep(core, uid, sequence, packet);
        }
    }

    /// A message of the platform.
    pub(crate) fn send_platform_data(
        &mut self,
        core: &mut Core,
        message: &DataMessage,
    ) -> Result<(), ControlError> {
        let limit = core.config.limits.message_bytes;
        if message.payload.len() + message.topic.len() + 64 > limit {
            return Err(ControlError::TooLong { what: "data message", limit });
        }
        let packet = from_nobody(&message.payload, &message.topic, message.reliable);
        let identities = message.destinations.iter().map(|identity| identity.as_str()).collect();
        let destinations = if message.destinations.is_empty() {
            Destinations::Everybody
        } else {
            Destinations::Identities(identities)
        };
        self.send_to(core, None, &destinations, message.reliable, &packet);
        Ok(())
    }

    /// Sends a packet to those it is for. For those whose reliable channel is
    /// not open yet it is kept.
    fn send_to(
        &mut self,
        core: &mut Core,
        sender: Option<ParticipantKey>,
        destinations: &Destinations<'_>,
        reliable: bool,
        packet: &Arc<[u8]>,
    ) {
        self.send_here(core, sender, destinations, reliable, packet);
        self.send_to_shards(core, sender, destinations, reliable, packet);
    }

    /// Sends a packet to those on this shard that it is for.
    pub(crate) fn send_here(
        &mut self,
        core: &mut Core,
        sender: Option<ParticipantKey>,
        destinations: &Destinations<'_>,
        reliable: bool,
        packet: &Arc<[u8]>,
    ) {
        let limit = core.config.limits.early_bytes;
        for (key, participant) in &mut self.participants {
            if participant.is_remote()
                || Some(*key) == sender
                || !is_meant(destinations, participant)
            {
                continue;
            }
            let channel = participant.downlink().and_then(|downlink| {
                let channels = &downlink.channels;
                let channel = if reliable { channels.reliable } else { channels.lossy };
                channel.map(|channel| (downlink.key, channel))
            });
            match channel {
                Some((transport, channel)) => {
                    let payload = Arc::clone(packet);
                    core.order(MediaCommand::Send { transport, channel, payload });
                }
                None if reliable => participant.data.keep_early(packet, limit),
                None => {}
            }
        }
    }

    fn keep(&mut self, core: &Core, sender: ParticipantUid, sequence: u32, bytes: Arc<[u8]>) {
        self.expire_replay(core);
        let kept = Kept { at: core.now, sender, sequence, bytes };
        self.replay.add(kept, core.config.limits.replay_bytes);
    }

    /// Keeps a packet of a participant of another shard, as its own shard does.
    pub(crate) fn keep_relayed(&mut self, core: &Core, sender: ParticipantKey, packet: &Arc<[u8]>) {
        let sequence = envelope::read(packet).map_or(0, |envelope| envelope.sequence);
        if let Some(sender) = self.uid_of(sender).filter(|_| sequence > 0) {
            self.keep(core, sender, sequence, Arc::clone(packet));
        }
    }

    fn expire_replay(&mut self, core: &Core) {
        if let Some(before) = core.now.checked_sub(core.config.timers.replay) {
            self.replay.expire(before);
        }
    }

    /// Repeats what a participant missed: reliable messages beyond the last it
    /// received from each sender it names.
    pub(crate) fn replay_data(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        last: &BTreeMap<ParticipantUid, u32>,
    ) {
        self.expire_replay(core);
        let Some(participant) = self.participants.get(&key) else {
            return;
        };
        let Some(downlink) = participant.downlink() else {
            return;
        };
        let Some(channel) = downlink.channels.reliable else {
            return;
        };
        for message in &self.replay.messages {
            let is_missing = last.get(&message.sender).is_some_and(|last| message.sequence > *last);
            if !is_missing || message.sender == participant.uid {
                continue;
            }
            let is_meant = envelope::read(&message.bytes)
                .is_ok_and(|envelope| is_meant(&envelope.destinations, participant));
            if is_meant {
                let (transport, payload) = (downlink.key, Arc::clone(&message.bytes));
                core.order(MediaCommand::Send { transport, channel, payload });
            }
        }
    }
}

/// What is stamped on a participant's packets. Hidden ones stay nameless.
fn stamp_of(sender: &Participant, reliable: bool, with_identity: bool) -> Stamp<'_> {
    let (uid, identity) = if sender.permission.hidden {
        ("", "")
    } else {
        (sender.uid.as_str(), sender.identity.as_str())
    };
    Stamp { reliable, uid, identity: with_identity.then_some(identity) }
}

fn is_meant(destinations: &Destinations<'_>, participant: &Participant) -> bool {
    match destinations {
        Destinations::Everybody => true,
        Destinations::Identities(identities) => identities.contains(&participant.identity.as_str()),
        Destinations::Uids(uids) => uids.contains(&participant.uid.as_str()),
    }
}
