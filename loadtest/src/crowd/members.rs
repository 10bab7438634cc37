//! Everybody who takes part in a run: who they are, how far they are, why they failed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use headwater_net::{UdpOptions, UdpSocket};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::participant::{Participant, take_part};
use super::peer::Progress;
use super::worker::{Capture, Worker};
use crate::run::Server;
use crate::scenario::{Audio, Impairment, Scenario, Transport, Video, View};

/// Reasons of failures kept.
const REASONS_MAX: usize = 20;
/// Everybody leaves within this time.
const LEAVE_LIMIT: Duration = Duration::from_secs(15);

/// A place in a room.
#[derive(Debug, Clone)]
pub struct Seat {
    label: usize,
    room: usize,
    audio: Option<Audio>,
    video: Option<Video>,
    receive: (usize, usize),
    view: Option<View>,
    impairment: Option<Impairment>,
    publishes: bool,
    transport: Transport,
}

struct Member {
    seat: Seat,
    leave: CancellationToken,
    progress: watch::Receiver<Progress>,
    task: JoinHandle<anyhow::Result<()>>,
}

/// The crowd of a run.
pub struct Members<'a> {
    server: &'a Server,
    scenario: &'a Scenario,
    workers: Vec<Worker>,
    socket: UdpOptions,
    capture: Arc<Capture>,
    room_prefix: String,
    members: BTreeMap<u64, Member>,
    leaving: Vec<JoinHandle<anyhow::Result<()>>>,
    next_id: u64,
    random: SmallRng,
    failures: u64,
    reasons: Vec<String>,
    /// Local ports of all sockets so far.
    ports: BTreeSet<u16>,
}

impl<'a> Members<'a> {
    /// An empty crowd.
    #[must_use]
    pub fn new(
        server: &'a Server,
        scenario: &'a Scenario,
        workers: Vec<Worker>,
        socket: UdpOptions,
        capture: Arc<Capture>,
    ) -> Self {
        let run: u32 = rand::random();
        Self {
            server,
            scenario,
            workers,
            socket,
            capture,
            room_prefix: format!("{}-{run:08x}", scenario.name),
            members: BTreeMap::new(),
            leaving: Vec::new(),
            next_id: 0,
            random: SmallRng::seed_from_u64(scenario.seed),
            failures: 0,
            reasons: Vec::new(),
            ports: BTreeSet::new(),
        }
    }

    /// Names of the kinds of clients.
    #[must_use]
    pub fn labels(&self) -> Vec<String> {
        let publishers = self.scenario.publishers.iter().enumerate();
        let names = publishers.map(|(index, _)| match index {
            0 => "publishers".to_owned(),
            more => format!("publishers {}", more + 1),
        });
        names.chain(self.scenario.subscribers.iter().map(|kind| kind.label.clone())).collect()
    }

    /// The seats of all rooms: those who publish, or those who only subscribe.
    #[must_use]
    pub fn plan(&self, publishers: bool) -> Vec<Seat> {
        let rooms = 0..self.scenario.rooms;
        rooms.flat_map(|room| self.seats_of(room, publishers)).collect()
    }

    fn seats_of(&self, room: usize, publishers: bool) -> Vec<Seat> {
        let (audio, video) = self.scenario.tracks();
        let mut seats = Vec::new();
        if publishers {
            for (label, kind) in self.scenario.publishers.iter().enumerate() {
                let own = (usize::from(kind.audio.is_some()), usize::from(kind.video.is_some()));
                let others = (audio - own.0.min(audio), video - own.1.min(video));
                let seat = Seat {
                    label,
                    room,
                    audio: kind.audio,
                    video: kind.video.clone(),
                    receive: if kind.subscribe { others } else { (0, 0) },
                    view: None,
                    impairment: None,
                    publishes: true,
                    transport: kind.transport,
                };
                seats.extend(std::iter::repeat_n(seat, kind.count));
            }
            return seats;
        }
        for (index, kind) in self.scenario.subscribers.iter().enumerate() {
            let seat = Seat {
                label: self.scenario.publishers.len() + index,
                room,
                audio: None,
                video: None,
                receive: (audio, video),
                view: kind.view,
                impairment: kind.impairment.clone(),
                publishes: false,
                transport: kind.transport,
            };
            seats.extend(std::iter::repeat_n(seat, kind.count));
        }
        seats
    }

    /// Begins a join.
    ///
    /// # Errors
    /// If the token cannot be signed or there is no socket left.
    pub fn join(&mut self, seat: &Seat) -> anyhow::Result<()> {
        let id = self.next_id;
        self.next_id += 1;
        let room = format!("{}-{}", self.room_prefix, seat.room);
        let receivers = self.workers.len() as u64 - 1;
        let worker = if seat.publishes { 0 } else { 1 + id % receivers };
        let captures = self.scenario.flood.is_some() && seat.publishes;
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        let socket = UdpSocket::bind(any, &self.socket).context("bind a socket")?;
        self.ports.insert(socket.local_addr().port());
        let participant = Participant {
            id,
            label: seat.label,
            url: self.server.url.clone(),
            token: self.server.token(&room, &format!("client-{id}"))?,
            audio: seat.audio,
            video: seat.video.clone(),
            receive: seat.receive,
            transport: seat.transport,
            view: seat.view,
            impairment: seat.impairment.clone(),
            seed: self.scenario.seed.wrapping_mul(1_000_003).wrapping_add(id),
            decrypt_every: self.scenario.load.decrypt_every,
            socket,
            capture: captures.then(|| Arc::clone(&self.capture)),
        };
        let leave = CancellationToken::new();
        let (sender, progress) = watch::channel(Progress::Joining);
        let worker = self.workers[worker as usize].clone();
        let task = tokio::spawn(take_part(participant, worker, leave.clone(), sender));
        self.members.insert(id, Member { seat: seat.clone(), leave, progress, task });
        Ok(())
    }

    /// Lets one subscriber leave and another come, both chosen by the seed.
    pub fn replace_one(&mut self) {
        let subscribers: Vec<u64> = self
            .members
            .iter()
            .filter(|(_, member)| !member.seat.publishes)
            .map(|(id, _)| *id)
            .collect();
        if subscribers.is_empty() {
            return;
        }
        let chosen = subscribers[self.random.random_range(0..subscribers.len())];
        let Some(member) = self.members.remove(&chosen) else { return };
        member.leave.cancel();
        self.leaving.retain(|task| !task.is_finished());
        self.leaving.push(member.task);
        if let Err(error) = self.join(&member.seat) {
            self.fail(&error);
        }
    }

    /// Connected clients, and all.
    #[must_use]
    pub fn connected(&self) -> (usize, usize) {
        let connected =
            self.members.values().filter(|member| *member.progress.borrow() == Progress::Connected);
        (connected.count(), self.members.len())
    }

    /// Everybody is connected or has failed.
    #[must_use]
    pub fn all_settled(&self) -> bool {
        self.members.values().all(|member| {
            member.task.is_finished() || *member.progress.borrow() == Progress::Connected
        })
    }

    /// Clients that ended so far without being told to.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.members.values().filter(|member| member.task.is_finished()).count()
    }

    /// Joins begun.
    #[must_use]
    pub fn joined(&self) -> u64 {
        self.next_id
    }

    /// Local ports of the clients' sockets.
    #[must_use]
    pub fn ports(&self) -> &BTreeSet<u16> {
        &self.ports
    }

    /// Everybody leaves. Those who did not get in or were thrown out are counted.
    pub async fn leave(&mut self) {
        for member in self.members.values() {
            if !member.task.is_finished() {
                member.leave.cancel();
            }
        }
        let members = std::mem::take(&mut self.members);
        let tasks = members.into_values().map(|member| member.task);
        let tasks: Vec<_> = tasks.chain(std::mem::take(&mut self.leaving)).collect();
        let limit = tokio::time::Instant::now() + LEAVE_LIMIT;
        for task in tasks {
            match tokio::time::timeout_at(limit, task).await {
                Ok(Ok(Ok(()))) | Err(_) => {}
                Ok(Ok(Err(error))) => self.fail(&error),
                Ok(Err(error)) => self.fail(&anyhow::Error::new(error)),
            }
        }
    }

    /// How many failed, and the first reasons.
    #[must_use]
    pub fn failures(&self) -> (u64, Vec<String>) {
        (self.failures, self.reasons.clone())
    }

    fn fail(&mut self, error: &anyhow::Error) {
        self.failures += 1;
        if self.reasons.len() < REASONS_MAX {
            self.reasons.push(format!("{error:#}"));
        }
    }
}
