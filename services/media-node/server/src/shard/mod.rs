//! A shard: one thread with its own sockets, rooms, transports and forwarding
//! core. This module is its outside: how the rest of the node talks to it.

mod cascade;
mod egress;
mod media;
mod observe;
mod orders;
mod padding;
mod ports;
#[cfg(test)]
mod tests;
mod transports;
mod worker;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use headwater_model::{Epoch, RoomId, ShardIndex};
use headwater_net::Waker;
use headwater_room::{
    CloseReason, Command, ControlCommand, ControlError, DataMessage, Event, JoinRequest,
    ParticipantView, RoomAssignment, RoomReport, SessionKey,
};
use tokio::sync::{mpsc, oneshot};

use crate::wire::Part;

pub use cascade::{Cascade, RelayWiring};
pub use ports::{Ports, PortsConfig};
pub use worker::{ShardConfig, spawn};

/// Commands waiting for a shard. When it is full, those who send wait: the shard
/// works them off in batches, so this is pressure on gateways, not on media.
const COMMANDS_MAX: usize = 4_096;
/// Events waiting for one participant's stream. A gateway that does not read so
/// many is cut off; the participant stays for it to come back.
pub const EVENTS_MAX: usize = 1_024;

/// What the rest of the node asks of a shard.
pub enum ShardCommand {
    /// Carry a room, or take its new properties and its new part of the plan.
    Assign {
        /// The room.
        room: Box<RoomAssignment>,
        /// What this shard must know of the plan.
        part: Box<Part>,
    },
    /// Carry it no more.
    Release {
        /// The room.
        room: RoomId,
        /// Epoch that ended it.
        epoch: Epoch,
        /// What participants are told.
        reason: CloseReason,
    },
    /// A gateway attaches.
    Join {
        /// Its session.
        session: SessionKey,
        /// What it says.
        request: Box<JoinRequest>,
        /// Where events go.
        events: mpsc::Sender<Event>,
    },
    /// A participant wants something.
    Command {
        /// Its session.
        session: SessionKey,
        /// What.
        command: Box<Command>,
    },
    /// A gateway is gone without a word.
    Lost {
        /// Its session.
        session: SessionKey,
    },
    /// The platform does something to a participant.
    Control {
        /// What.
        command: Box<ControlCommand>,
        /// How it went.
        answer: oneshot::Sender<Result<Arc<ParticipantView>, ControlError>>,
    },
    /// The platform sends a data message.
    SendData {
        /// The message.
        message: Box<DataMessage>,
        /// How it went.
        answer: oneshot::Sender<Result<(), ControlError>>,
    },
    /// Who is in a room.
    List {
        /// The room.
        room: RoomId,
        /// Everybody, hidden ones too.
        answer: oneshot::Sender<Result<Vec<Arc<ParticipantView>>, ControlError>>,
    },
    /// What the shard carries.
    Report {
        /// The rooms.
        answer: oneshot::Sender<Vec<RoomReport>>,
    },
    /// End every session with this reason; then stop.
    Stop {
        /// What participants are told.
        reason: CloseReason,
    },
}

/// What a shard counted, as of its last second.
#[derive(Debug, Clone, Copy, Default)]
pub struct ShardSnapshot {
    /// The forwarding core's counters.
    pub sfu: headwater_sfu::Stats,
    /// What was received.
    pub received: headwater_net::RecvCounters,
    /// What was sent.
    pub sent: headwater_net::SendCounters,
    /// What arrived and was not taken.
    pub ingress: media::IngressCounters,
    /// What was to leave and could not.
    pub egress: egress::EgressDrops,
    /// What relay links carried.
    pub relay: headwater_relay::RelayTotals,
    /// Relay links that are up now, within the process and to other nodes.
    pub relay_links: (usize, usize),
    /// TCP connections now.
    pub tcp_connections: usize,
    /// Transports over which media can flow now.
    pub connected_transports: usize,
    /// Rooms now.
    pub rooms: usize,
    /// Participants now.
    pub participants: usize,
    /// Published audio tracks now.
    pub audio_tracks: usize,
    /// Published video tracks now.
    pub video_tracks: usize,
    /// Subscriptions now.
    pub subscriptions: usize,
    /// Sessions with a gateway now.
    pub sessions: usize,
    /// Share of the last second that the thread worked, 0 to 1.
    pub busy_ratio: f32,
    /// Datagrams sent in the last second.
    pub packets_per_second: u64,
    /// Bits of UDP payload sent in the last second.
    pub bits_per_second: u64,
}

/// A handle to a shard's thread.
#[derive(Clone)]
pub struct ShardHandle {
    /// Which shard.
    pub index: ShardIndex,
    /// UDP address it is bound to.
    pub udp: SocketAddr,
    /// TCP address it listens on, if it does.
    pub tcp: Option<SocketAddr>,
    commands: mpsc::Sender<ShardCommand>,
    waker: Waker,
    snapshot: Arc<Mutex<ShardSnapshot>>,
}

/// The shard's thread has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the shard has stopped")]
pub struct ShardStopped;

impl ShardHandle {
    /// Sends a command; waits while the shard is behind.
    ///
    /// # Errors
    /// If the shard has stopped.
    pub async fn send(&self, command: ShardCommand) -> Result<(), ShardStopped> {
        self.commands.send(command).await.map_err(|_| ShardStopped)?;
        self.waker.wake();
        Ok(())
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// If the shard has stopped.
    pub async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> ShardCommand,
    ) -> Result<T, ShardStopped> {
        let (answer, asked) = oneshot::channel();
        self.send(command(answer)).await?;
        asked.await.map_err(|_| ShardStopped)
    }

    /// What it counted, as of its last second.
    #[must_use]
    pub fn snapshot(&self) -> ShardSnapshot {
        *self.snapshot.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Binds a shard's sockets.
///
/// # Errors
/// If an address is taken or not ours; the error names it.
pub fn bind(config: &PortsConfig) -> std::io::Result<Ports> {
    Ports::bind(config)
}
