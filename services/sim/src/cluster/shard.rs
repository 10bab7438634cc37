//! A shard as its thread runs it, without sockets and handshakes: the real rooms,
//! forwarding core and relay links feed each other in the order of the media node's loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_media_node::{Cascade, Part};
use headwater_model::media::{TrackKey, TransportKey};
use headwater_model::{Epoch, RoomId};
use headwater_room::{
    CloseReason, Command, ControlCommand, Event, JoinRequest, Limits, MediaCommand, MediaEvent,
    Output, QualitySubject, RoomAssignment, Rooms, RoomsConfig, SessionKey, Timers, TransportKind,
};
use headwater_sfu::{Egress, OutgoingRtp, RelayClock, RelayPacket, Sfu, SfuConfig, SfuEvent};

/// Something for a shard to take in at its next turn.
#[derive(Debug)]
pub(crate) enum Input {
    Rtp(TransportKey, Vec<u8>),
    Assign(Box<RoomAssignment>, Box<Part>),
    Release { room: RoomId, epoch: Epoch, reason: CloseReason },
    Join(SessionKey, Box<JoinRequest>),
    Command(SessionKey, Box<Command>),
    Lost(SessionKey),
    Media(MediaEvent),
    Control(Box<ControlCommand>),
}

/// Something that a turn made.
#[derive(Debug)]
pub(crate) enum Told {
    Event(SessionKey, Event),
    Abandon(SessionKey),
    /// The peer's side of a transport is known: it connects.
    Remote {
        session: SessionKey,
        kind: TransportKind,
        transport: TransportKey,
    },
    Channel(TransportKey, &'static str),
    Closed(TransportKey),
    Data(TransportKey, Arc<[u8]>),
    Rtp(TransportKey, Vec<u8>),
    Rtcp(TransportKey, Vec<u8>),
    /// A room that links' states were told to carry at this rank.
    Carried {
        room: RoomId,
        epoch: Epoch,
        is_home: bool,
    },
}

/// One shard.
pub(crate) struct Shard {
    pub(crate) rooms: Rooms,
    pub(crate) sfu: Sfu,
    pub(crate) cascade: Cascade,
    pub(crate) inputs: Vec<Input>,
    told: Vec<Told>,
    /// Whose description is being taken.
    describing: Option<(SessionKey, TransportKind)>,
}

struct Out<'a> {
    cascade: &'a mut Cascade,
    told: &'a mut Vec<Told>,
}

impl Egress for Out<'_> {
    fn rtp(&mut self, to: TransportKey, packet: OutgoingRtp<'_>) {
        let mut bytes = Vec::with_capacity(packet.len());
        bytes.extend_from_slice(packet.header);
        bytes.extend_from_slice(packet.prefix);
        bytes.extend_from_slice(packet.payload);
        self.told.push(Told::Rtp(to, bytes));
    }

    fn rtcp(&mut self, to: TransportKey, compound: &[u8]) {
        if !self.cascade.relay.rtcp(to, compound) {
            self.told.push(Told::Rtcp(to, compound.to_vec()));
        }
    }

    fn relay(&mut self, track: TrackKey, packet: RelayPacket<'_>) {
        self.cascade.relay.relay(track, &packet);
    }

    fn relay_clock(&mut self, track: TrackKey, clock: RelayClock) {
        self.cascade.relay.relay_clock(track, clock);
    }
}

impl Shard {
    pub(crate) fn new(cascade: Cascade, seed: u64, now: Instant) -> Self {
        let config = RoomsConfig {
            candidates: Vec::new(),
            fingerprint: ["AB"; 32].join(":"),
            limits: Limits::default(),
            timers: Timers::default(),
        };
        let mut secret = [0; 32];
        for (index, byte) in secret.iter_mut().enumerate() {
            *byte = (seed >> (index % 8 * 8)) as u8 ^ index as u8;
        }
        let sfu =
            SfuConfig { wall_clock: Duration::from_secs(1_700_000_000), ..Default::default() };
        Self {
            rooms: Rooms::new(config, secret, now),
            sfu: Sfu::new(sfu, seed, now),
            cascade,
            inputs: Vec::new(),
            told: Vec::new(),
            describing: None,
        }
    }

    /// When it wants a turn, if ever.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [self.cascade.relay.poll_timeout(), self.sfu.poll_timeout(), self.rooms.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// One wake-up: what it made, in order.
    pub(crate) fn turn(&mut self, now: Instant) -> Vec<Told> {
        self.cascade.relay.receive(now, &mut self.sfu);
        for input in std::mem::take(&mut self.inputs) {
            self.take(now, input);
        }
        self.cascade.relay.handle_timeout(now, &mut self.sfu);
        self.sfu.handle_timeout(now);
        self.rooms.handle_timeout(now);
        self.settle(now);
        std::mem::take(&mut self.told)
    }

    fn take(&mut self, now: Instant, input: Input) {
        match input {
            Input::Rtp(from, packet) => self.sfu.handle_rtp(now, from, &packet),
            Input::Assign(room, part) => {
                let (id, epoch) = (room.id.clone(), room.epoch);
                if self.rooms.assign_room(now, *room).is_ok() {
                    self.pass_room_output(now);
                    let is_home = part.slice.rank == 0;
                    self.cascade.join_tree(now, &id, *part, &mut self.rooms);
                    self.told.push(Told::Carried { room: id, epoch, is_home });
                }
            }
            Input::Release { room, epoch, reason } => {
                self.rooms.release_room(now, &room, epoch, reason);
            }
            Input::Join(session, request) => self.rooms.join(now, session, *request),
            Input::Command(session, command) => {
                self.pass_room_output(now);
                self.describing = match *command {
                    Command::Offer(_) => Some((session, TransportKind::Publisher)),
                    Command::Answer(_) => Some((session, TransportKind::Subscriber)),
                    _ => None,
                };
                self.rooms.handle_command(now, session, *command);
                self.pass_room_output(now);
                self.describing = None;
            }
            Input::Lost(session) => self.rooms.session_lost(now, session),
            Input::Media(event) => {
                match &event {
                    MediaEvent::TransportConnected { transport } => {
                        self.sfu.set_connected(now, *transport, true);
                    }
                    MediaEvent::TransportFailed { transport, .. } => {
                        self.sfu.set_connected(now, *transport, false);
                    }
                    _ => {}
                }
                self.rooms.handle_media(now, event);
            }
            Input::Control(command) => {
                let _ = self.rooms.handle_control(now, *command);
            }
        }
    }

    fn settle(&mut self, now: Instant) {
        self.settle_links(now);
        let mut out = Out { cascade: &mut self.cascade, told: &mut self.told };
        self.sfu.drain(now, &mut out);
        self.pass_sfu_events(now);
        self.pass_room_output(now);
        self.settle_links(now);
    }

    fn settle_links(&mut self, now: Instant) {
        self.pass_room_output(now);
        loop {
            if std::mem::take(&mut self.cascade.subscribed) {
                self.cascade.relay.look_at_wishes(now, &self.sfu);
            }
            self.cascade.relay.settle(now, &mut self.sfu);
            if !self.cascade.pass_events(now, &mut self.rooms) {
                return;
            }
            self.pass_room_output(now);
        }
    }

    fn pass_room_output(&mut self, now: Instant) {
        while let Some(output) = self.rooms.poll_output() {
            match output {
                Output::Event { session, event } => self.told.push(Told::Event(session, event)),
                Output::Abandon { session } => self.told.push(Told::Abandon(session)),
                Output::Media(order) => self.carry_out(now, order),
                Output::Relay(command) => self.cascade.carry_out(now, command, &mut self.sfu),
            }
        }
    }

    /// As the media node does it; what transports do, the world does. What is refused
    /// would only be logged there.
    fn carry_out(&mut self, now: Instant, order: MediaCommand) {
        match order {
            MediaCommand::OpenTransport { transport, .. } => {
                let _ = self.sfu.add_transport(transport);
            }
            MediaCommand::SetRemote { transport, .. } => {
                if let Some((session, kind)) = self.describing {
                    self.told.push(Told::Remote { session, kind, transport });
                }
            }
            MediaCommand::RestartIce { .. } => {}
            MediaCommand::CloseTransport { transport } => {
                self.sfu.remove_transport(transport);
                self.told.push(Told::Closed(transport));
            }
            MediaCommand::OpenChannel { transport, label, .. } => {
                self.told.push(Told::Channel(transport, label));
            }
            MediaCommand::Send { transport, channel: _, payload } => {
                self.told.push(Told::Data(transport, payload));
            }
            MediaCommand::Publish { transport, track, publication } => {
                let _ = self.sfu.publish(now, transport, track, publication);
            }
            MediaCommand::Unpublish { track } => self.sfu.unpublish(track),
            MediaCommand::JoinFloor { track, floor, seats } => {
                self.sfu.join_floor(track, floor, seats);
            }
            MediaCommand::SetMuted { track, muted } => self.sfu.set_muted(now, track, muted),
            MediaCommand::Subscribe { subscription, track, transport, parameters } => {
                self.cascade.subscribed = true;
                let _ = self.sfu.subscribe(now, subscription, track, transport, parameters);
            }
            MediaCommand::Unsubscribe { subscription } => self.sfu.unsubscribe(subscription),
            MediaCommand::SetTarget { subscription, target } => {
                self.cascade.subscribed = true;
                let _ = self.sfu.set_target(now, subscription, target);
            }
            MediaCommand::SetProminence { subscription, prominence } => {
                let _ = self.sfu.set_prominence(subscription, prominence);
            }
            MediaCommand::LimitDownlink { transport, limit } => {
                self.sfu.limit_downlink(transport, limit);
            }
        }
    }

    fn pass_sfu_events(&mut self, now: Instant) {
        while let Some(event) = self.sfu.poll_event() {
            let event = match event {
                SfuEvent::TrackStarted { track, codec, .. } => {
                    MediaEvent::TrackStarted { track, codec }
                }
                SfuEvent::SpeakerLevel { track, level, active } => {
                    MediaEvent::SpeakerLevel { track, level, active }
                }
                SfuEvent::Quality(quality) => MediaEvent::Quality {
                    subject: match quality.subject {
                        headwater_sfu::QualitySubject::Published(track) => {
                            QualitySubject::Track(track)
                        }
                        headwater_sfu::QualitySubject::Subscriber(transport) => {
                            QualitySubject::Transport(transport)
                        }
                    },
                    loss_ratio: quality.loss_ratio,
                    rtt: quality.rtt,
                    jitter: quality.jitter,
                    limitation: headwater_room::Limitation::None,
                },
                SfuEvent::Paused { track, transport, paused, .. } => {
                    MediaEvent::Paused { transport, track, paused }
                }
                SfuEvent::LayerForwarded { .. } => continue,
            };
            self.rooms.handle_media(now, event);
        }
    }
}
