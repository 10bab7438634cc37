//! Data channels over SCTP (RFC 8831): `rtc-sctp` for the association, DCEP and
//! the channels' life of our own. Works on plain SCTP packets; DTLS is outside.

mod chunk;
mod dcep;
mod guard;
mod peer;

pub(crate) use dcep::DcepMessage;
pub use dcep::{ChannelReliability, LABEL_MAX, Retransmission};

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use rtc_sctp::{Event, PayloadProtocolIdentifier as Ppi, ReliabilityType, StreamEvent};
use thiserror::Error;

use guard::{Guard, STREAMS_MAX};
use peer::Peer;

/// Channels per transport, waiting ones included.
pub const CHANNELS_MAX: usize = 256;

/// A data channel: the SCTP stream in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u16);

/// What a message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// UTF-8 text. Received text is passed on unchecked.
    Text,
    /// Bytes.
    Binary,
}

/// Why a channel was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenChannelError {
    /// [`CHANNELS_MAX`] channels are open or waiting.
    #[error("too many data channels")]
    TooMany,
    /// The label is longer than [`LABEL_MAX`] bytes.
    #[error("data channel label is too long")]
    LabelTooLong,
    /// The id is taken, or beyond what the peers agreed on.
    #[error("data channel id is not available")]
    IdUnavailable,
    /// The transport is closed or failed.
    #[error("transport is closed")]
    Closed,
}

/// Why a message was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    /// No such channel, or it has been closed.
    #[error("no such data channel")]
    UnknownChannel,
    /// The peer has not acknowledged the channel yet.
    #[error("data channel is not open yet")]
    NotOpen,
    /// Longer than the peer takes (its `a=max-message-size`).
    #[error("message is longer than the {max} bytes that the peer takes")]
    TooLarge {
        /// The limit in bytes.
        max: usize,
    },
    /// The unsent and unacknowledged bytes of all channels reach the limit; try
    /// again after acknowledgements, or drop the message.
    #[error("data channel buffer is full")]
    Full,
}

/// What happened on the channels.
#[derive(Debug)]
pub(crate) enum ChannelEvent {
    Open { id: ChannelId, label: String, reliability: ChannelReliability, negotiated_by_us: bool },
    Closed { id: ChannelId },
    Message { id: ChannelId, kind: MessageKind, data: Vec<u8> },
}

/// Bounds of one transport's channels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChannelLimits {
    /// The longest message taken from the peer.
    pub receive_message_max: usize,
    /// The longest message sent to the peer.
    pub send_message_max: usize,
    /// Unsent and unacknowledged bytes of all channels.
    pub buffered_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChannelState {
    /// To be announced once the association is up.
    Waiting,
    /// Announced, not acknowledged.
    Opening,
    Open,
}

#[derive(Debug)]
struct Channel {
    label: String,
    reliability: ChannelReliability,
    negotiated_by_us: bool,
    /// Both sides agreed on the id beforehand: no DCEP.
    preset: bool,
    state: ChannelState,
}

/// All channels of one peer. Drain [`Channels::poll_event`] and
/// [`Channels::poll_packet`] after every other call.
pub(crate) struct Channels {
    peer: Peer,
    guard: Guard,
    limits: ChannelLimits,
    channels: BTreeMap<u16, Channel>,
    /// Next id of our parity (RFC 8832 §6): the DTLS server's are odd.
    next_id: u16,
    established: bool,
    events: VecDeque<ChannelEvent>,
    refused: u64,
}

impl Channels {
    /// Channels that wait for the association. Ids follow the DTLS role.
    pub fn new(is_client: bool, limits: ChannelLimits) -> Self {
        Self {
            peer: Peer::new(limits),
            guard: Guard::new(is_client),
            limits,
            channels: BTreeMap::new(),
            next_id: u16::from(!is_client),
            established: false,
            events: VecDeque::new(),
            refused: 0,
        }
    }

    /// Sends INIT. One side is enough: the DTLS client's.
    pub fn connect(&mut self, now: Instant) {
        self.peer.connect(now);
    }

    /// The peer's limit may be learned after the channels exist.
    pub fn set_send_message_max(&mut self, max: usize) {
        self.limits.send_message_max = max;
    }

    pub const fn panics(&self) -> u64 {
        self.peer.panics()
    }

    pub fn refused(&self) -> u64 {
        self.refused
    }

    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        if !self.guard.admit(now, packet) {
            self.refused += 1;
            return;
        }
        let was_established = self.established;
        self.peer.handle_packet(now, packet);
        self.handle_events(now);
        if self.established && !was_established {
            self.guard.established(packet);
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.peer.handle_timeout(now);
        self.handle_events(now);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.peer.poll_timeout()
    }

    pub fn poll_event(&mut self) -> Option<ChannelEvent> {
        self.events.pop_front()
    }

    /// The next SCTP packet to send.
    pub fn poll_packet(&mut self, now: Instant) -> Option<bytes::Bytes> {
        self.peer.poll_packet(now)
    }

    /// Opens a channel by DCEP, with an id of our parity.
    pub fn open(
        &mut self,
        now: Instant,
        label: &str,
        reliability: ChannelReliability,
    ) -> Result<ChannelId, OpenChannelError> {
        let id = self.free_id().ok_or(OpenChannelError::IdUnavailable)?;
        self.add(now, id, label, reliability, false)
    }

    /// Opens a channel whose id both sides know; no message is exchanged.
    pub fn open_preset(
        &mut self,
        now: Instant,
        id: ChannelId,
        label: &str,
        reliability: ChannelReliability,
    ) -> Result<ChannelId, OpenChannelError> {
        if id.0 >= STREAMS_MAX || self.channels.contains_key(&id.0) {
            return Err(OpenChannelError::IdUnavailable);
        }
        self.add(now, id.0, label, reliability, true)
    }

    /// Queues one message.
    pub fn send(
        &mut self,
        now: Instant,
        id: ChannelId,
        kind: MessageKind,
        data: &[u8],
    ) -> Result<(), SendError> {
        let channel = self.channels.get(&id.0).ok_or(SendError::UnknownChannel)?;
        if channel.state != ChannelState::Open {
            return Err(SendError::NotOpen);
        }
        if data.len() > self.limits.send_message_max {
            return Err(SendError::TooLarge { max: self.limits.send_message_max });
        }
        let buffered: usize = self.channels.keys().map(|id| self.peer.buffered(*id)).sum();
        if buffered + data.len().max(1) > self.limits.buffered_max {
            return Err(SendError::Full);
        }
        // SCTP has no empty messages: one zero byte and a PPID of its own (RFC 8831 §6.6).
        let (ppi, payload) = match (kind, data.is_empty()) {
            (MessageKind::Text, false) => (Ppi::String, data),
            (MessageKind::Text, true) => (Ppi::StringEmpty, &[0][..]),
            (MessageKind::Binary, false) => (Ppi::Binary, data),
            (MessageKind::Binary, true) => (Ppi::BinaryEmpty, &[0][..]),
        };
        if self.peer.write(now, id.0, payload, ppi) {
            Ok(())
        } else {
            Err(SendError::UnknownChannel)
        }
    }

    /// Closes a channel by resetting its stream (RFC 8831 §6.7). Unknown ids
    /// are ignored.
    pub fn close_channel(&mut self, now: Instant, id: ChannelId) {
        if self.channels.remove(&id.0).is_some() {
            self.peer.reset(now, id.0);
            self.events.push_back(ChannelEvent::Closed { id });
        }
    }

    /// Ends the association with ABORT.
    pub fn close(&mut self, now: Instant) {
        self.peer.abort();
        self.handle_events(now);
    }

    fn add(
        &mut self,
        now: Instant,
        id: u16,
        label: &str,
        reliability: ChannelReliability,
        preset: bool,
    ) -> Result<ChannelId, OpenChannelError> {
        if label.len() > LABEL_MAX {
            return Err(OpenChannelError::LabelTooLong);
        }
        if self.channels.len() >= CHANNELS_MAX {
            return Err(OpenChannelError::TooMany);
        }
        let channel = Channel {
            label: label.to_owned(),
            reliability,
            negotiated_by_us: true,
            preset,
            state: ChannelState::Waiting,
        };
        self.channels.insert(id, channel);
        if self.established {
            self.announce(now, id);
        }
        Ok(ChannelId(id))
    }

    fn free_id(&mut self) -> Option<u16> {
        let parity = self.next_id % 2;
        let first = (self.next_id..STREAMS_MAX).step_by(2);
        let again = (parity..STREAMS_MAX).step_by(2);
        let id = first
            .chain(again)
            .find(|id| !self.channels.contains_key(id) && !self.peer.has_stream(*id))?;
        self.next_id = if id + 2 < STREAMS_MAX { id + 2 } else { parity };
        Some(id)
    }

    /// Gives a waiting channel its stream.
    fn announce(&mut self, now: Instant, id: u16) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if !self.peer.open_stream(id) {
            self.channels.remove(&id);
            self.events.push_back(ChannelEvent::Closed { id: ChannelId(id) });
            return;
        }
        self.peer.set_reliability(id, channel.reliability);
        if channel.preset {
            self.mark_open(id);
            return;
        }
        channel.state = ChannelState::Opening;
        let open =
            DcepMessage::Open { label: &channel.label, reliability: channel.reliability }.encode();
        self.peer.write(now, id, &open, Ppi::Dcep);
    }

    fn mark_open(&mut self, id: u16) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if channel.state != ChannelState::Open {
            channel.state = ChannelState::Open;
            self.events.push_back(ChannelEvent::Open {
                id: ChannelId(id),
                label: channel.label.clone(),
                reliability: channel.reliability,
                negotiated_by_us: channel.negotiated_by_us,
            });
        }
    }

    fn handle_events(&mut self, now: Instant) {
        while let Some(event) = self.peer.poll_event() {
            match event {
                Event::Connected => self.handle_connected(now),
                Event::AssociationLost { id, .. } => self.handle_stream_closed(id),
                Event::Stream(StreamEvent::Readable { id }) => self.read_messages(now, id),
                _ => {}
            }
        }
        if self.peer.is_lost() {
            let ids: Vec<u16> = self.channels.keys().copied().collect();
            ids.into_iter().for_each(|id| self.handle_stream_closed(id));
        }
    }

    fn handle_connected(&mut self, now: Instant) {
        if std::mem::replace(&mut self.established, true) {
            return;
        }
        let waiting: Vec<u16> = self.channels.keys().copied().collect();
        waiting.into_iter().for_each(|id| self.announce(now, id));
    }

    fn handle_stream_closed(&mut self, id: u16) {
        if self.channels.remove(&id).is_some() {
            self.events.push_back(ChannelEvent::Closed { id: ChannelId(id) });
        }
    }

    fn read_messages(&mut self, now: Instant, id: u16) {
        while let Some(message) = self.peer.read(id) {
            self.guard.delivered(message.chunks.len());
            let Ok(payload) = message.to_payload(self.limits.receive_message_max) else {
                self.close_channel(now, ChannelId(id));
                return;
            };
            match message.ppi {
                Ppi::Dcep => self.handle_dcep(now, id, &payload),
                Ppi::String => self.deliver(id, MessageKind::Text, payload.into()),
                Ppi::StringEmpty => self.deliver(id, MessageKind::Text, Vec::new()),
                Ppi::Binary => self.deliver(id, MessageKind::Binary, payload.into()),
                Ppi::BinaryEmpty => self.deliver(id, MessageKind::Binary, Vec::new()),
                _ => self.refused += 1,
            }
        }
    }

    fn deliver(&mut self, id: u16, kind: MessageKind, data: Vec<u8>) {
        if !self.channels.contains_key(&id) {
            self.refused += 1;
            return;
        }
        // An unordered message may overtake the acknowledgement.
        self.mark_open(id);
        self.events.push_back(ChannelEvent::Message { id: ChannelId(id), kind, data });
    }

    fn handle_dcep(&mut self, now: Instant, id: u16, payload: &[u8]) {
        match DcepMessage::parse(payload) {
            Some(DcepMessage::Ack) => self.mark_open(id),
            // A taken id is the peer's mistake; what is open stays open.
            Some(DcepMessage::Open { .. }) if self.channels.contains_key(&id) => self.refused += 1,
            Some(DcepMessage::Open { label, reliability })
                if self.channels.len() < CHANNELS_MAX =>
            {
                let channel = Channel {
                    label: label.to_owned(),
                    reliability,
                    negotiated_by_us: false,
                    preset: false,
                    state: ChannelState::Opening,
                };
                self.channels.insert(id, channel);
                self.peer.set_reliability(id, reliability);
                self.peer.write(now, id, &DcepMessage::Ack.encode(), Ppi::Dcep);
                self.mark_open(id);
            }
            Some(DcepMessage::Open { .. }) | None => {
                self.refused += 1;
                if !self.channels.contains_key(&id) {
                    self.peer.reset(now, id);
                }
            }
        }
    }
}

/// The library's three numbers for a reliability.
fn library_reliability(reliability: ChannelReliability) -> (bool, ReliabilityType, u32) {
    let (kind, value) = match reliability.retransmission {
        Retransmission::Unlimited => (ReliabilityType::Reliable, 0),
        Retransmission::AtMost(repeats) => (ReliabilityType::Rexmit, repeats),
        Retransmission::For(lifetime) => {
            (ReliabilityType::Timed, u32::try_from(lifetime.as_millis()).unwrap_or(u32::MAX))
        }
    };
    (!reliability.ordered, kind, value)
}
