//! The thread of a shard: wait, receive, think, send.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use headwater_model::ShardIndex;
use headwater_model::media::{MediaKind, TransportKey};
use headwater_net::ReadyList;
use headwater_room::{CloseReason, Event, Output, Rooms, RoomsConfig, SessionKey};
use headwater_sfu::{Sfu, SfuConfig};
use headwater_telemetry::metrics::NodeMetrics;
use headwater_transport::DtlsIdentity;
use rustc_hash::FxHashMap;
use tokio::sync::mpsc;
use tracing::{debug, error, info};

use super::cascade::{Cascade, RelayWiring};
use super::egress::{DATAGRAM_BYTES_MAX, EgressDrops, Outbox};
use super::media::{IngressCounters, Media};
use super::observe::Observer;
use super::ports::Ports;
use super::transports::Transports;
use super::{COMMANDS_MAX, ShardCommand, ShardHandle, ShardSnapshot};

/// Commands worked off in one wake-up.
const COMMANDS_PER_WAKE: usize = 256;

/// What a shard is made of.
pub struct ShardConfig {
    /// Which shard.
    pub index: ShardIndex,
    /// Bind the thread to this core.
    pub core: Option<usize>,
    /// The rooms' settings; candidates included.
    pub rooms: RoomsConfig,
    /// The node's certificate.
    pub identity: Arc<DtlsIdentity>,
    /// Seed of the rooms: ICE passwords come from it, so it must be secret.
    pub seed: [u8; 32],
    /// Wall clock at the start, since the Unix epoch.
    pub wall_clock: Duration,
    /// The node's metrics.
    pub metrics: Arc<NodeMetrics>,
    /// How it reaches other shards.
    pub relay: RelayWiring,
}

/// What the thread owns.
pub(super) struct Worker {
    pub(super) ports: Ports,
    pub(super) media: Media,
    sessions: FxHashMap<SessionKey, mpsc::Sender<Event>>,
    commands: mpsc::Receiver<ShardCommand>,
    drops: EgressDrops,
    scratch: Box<[u8]>,
    snapshot: Arc<Mutex<ShardSnapshot>>,
    published_at: Instant,
    cpu_at: Duration,
    stopping: bool,
    /// It stops when its last transport has said goodbye.
    leaving: bool,
}

/// Starts the thread on sockets that are bound already.
///
/// # Errors
/// If the system starts no thread.
pub fn spawn(
    config: ShardConfig,
    ports: Ports,
) -> io::Result<(ShardHandle, std::thread::JoinHandle<()>)> {
    let (sender, commands) = mpsc::channel(COMMANDS_MAX);
    let snapshot = Arc::new(Mutex::new(ShardSnapshot::default()));
    let handle = ShardHandle {
        index: config.index,
        udp: ports.udp_address(),
        tcp: ports.tcp_address(),
        commands: sender,
        waker: ports.waker(),
        snapshot: Arc::clone(&snapshot),
    };
    let thread =
        std::thread::Builder::new().name(format!("shard-{}", config.index)).spawn(move || {
            if let Some(core) = config.core
                && let Err(error) = headwater_net::thread::pin_to_core(core)
            {
                debug!(%error, core, "the thread was not pinned");
            }
            Worker::new(config, ports, commands, snapshot).run();
        })?;
    Ok((handle, thread))
}

impl Worker {
    pub(super) fn new(
        config: ShardConfig,
        ports: Ports,
        commands: mpsc::Receiver<ShardCommand>,
        snapshot: Arc<Mutex<ShardSnapshot>>,
    ) -> Self {
        let now = Instant::now();
        let sfu = SfuConfig { wall_clock: config.wall_clock, ..SfuConfig::default() };
        // Sequence numbers and SSRCs are no secrets, passwords are: the sfu gets
        // a part of the seed that the rooms' generator does not give away.
        let sfu_seed = u64::from(rand::random::<u32>()) << 32 | u64::from(rand::random::<u32>());
        let cascade = Cascade::wired(config.relay, ports.waker(), now);
        Self {
            ports,
            media: Media {
                transports: Transports::default(),
                sfu: Sfu::new(sfu, sfu_seed, now),
                rooms: Rooms::new(config.rooms, config.seed, now),
                identity: config.identity,
                counters: IngressCounters::default(),
                observer: Observer::new(config.metrics),
                cascade,
                confirmed: Vec::new(),
            },
            sessions: FxHashMap::default(),
            commands,
            drops: EgressDrops::default(),
            scratch: vec![0; DATAGRAM_BYTES_MAX].into_boxed_slice(),
            snapshot,
            published_at: now,
            cpu_at: headwater_net::thread::cpu_time(),
            leaving: false,
            stopping: false,
        }
    }

    fn run(mut self) {
        let mut ready = Ports::ready_list();
        while !self.stopping {
            if let Err(error) = self.turn(&mut ready) {
                error!(%error, "the shard's sockets failed");
                break;
            }
        }
        info!("shard stopped");
    }

    /// Waits until something arrives or is due, and does what there is to do.
    pub(super) fn turn(&mut self, ready: &mut ReadyList) -> io::Result<()> {
        // Without anything due the counters are still brought up to date.
        let deadline = self.published_at + Duration::from_secs(1);
        let deadline = self.media.poll_timeout().map_or(deadline, |due| due.min(deadline));
        let timeout = deadline.saturating_duration_since(Instant::now());
        let timeout = if self.commands.is_empty() { timeout } else { Duration::ZERO };
        self.ports.wait(ready, Some(timeout))?;
        self.work(Instant::now(), ready)
    }

    /// Does what has come and what is due. No allocation while media flows and nothing
    /// else happens.
    pub(super) fn work(&mut self, now: Instant, ready: &ReadyList) -> io::Result<()> {
        let Self { ports, media, .. } = self;
        ports.receive(now, ready, |path, datagram| media.handle_datagram(now, path, datagram))?;
        self.media.cascade.relay.receive(now, &mut self.media.sfu);
        self.take_commands(now);
        self.media.handle_timeout(now);
        self.ports.handle_timeout(now);
        self.settle(now);
        self.stopping |= self.leaving && self.media.transports.is_empty();
        self.publish_counters(now);
        self.media.observer.turned(now);
        Ok(())
    }

    fn take_commands(&mut self, now: Instant) {
        for _ in 0..COMMANDS_PER_WAKE {
            match self.commands.try_recv() {
                Ok(command) => self.take_command(now, command),
                Err(mpsc::error::TryRecvError::Empty) => return,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    self.leaving = true;
                    return;
                }
            }
        }
    }

    /// Answers that nobody waits for any more are dropped.
    fn take_command(&mut self, now: Instant, command: ShardCommand) {
        let rooms = &mut self.media.rooms;
        match command {
            ShardCommand::Assign { room, part } => {
                let id = room.id.clone();
                if self.media.assign(now, *room) {
                    // The end of a former room of this name comes first.
                    self.pass_room_output(now);
                    let Media { cascade, rooms, .. } = &mut self.media;
                    cascade.join_tree(now, &id, *part, rooms);
                }
            }
            ShardCommand::Release { room, epoch, reason } => {
                rooms.release_room(now, &room, epoch, reason);
            }
            ShardCommand::Join { session, request, events } => {
                self.sessions.insert(session, events);
                rooms.join(now, session, *request);
            }
            ShardCommand::Command { session, command } => {
                rooms.handle_command(now, session, *command);
            }
            ShardCommand::Lost { session } => {
                self.sessions.remove(&session);
                rooms.session_lost(now, session);
            }
            ShardCommand::Control { command, answer } => {
                let _ = answer.send(rooms.handle_control(now, *command));
            }
            ShardCommand::SendData { message, answer } => {
                let _ = answer.send(rooms.send_data(now, &message));
            }
            ShardCommand::List { room, answer } => {
                let _ = answer.send(rooms.list_participants(&room));
            }
            ShardCommand::Report { answer } => {
                self.media.cascade.note_links(now);
                let _ = answer.send(rooms.reports(now));
            }
            ShardCommand::Stop { reason } => self.stop(now, reason),
        }
    }

    fn stop(&mut self, now: Instant, reason: CloseReason) {
        for room in self.media.rooms.reports(now) {
            self.media.rooms.release_room(now, &room.id, room.epoch, reason);
        }
        self.leaving = true;
        // Who still wants something is told by its sender that nobody is here.
        self.commands.close();
    }

    /// Lets the cores feed each other until all have said what they have to say,
    /// then sends it.
    fn settle(&mut self, now: Instant) {
        let Self { ports, media, .. } = self;
        for path in media.confirmed.drain(..) {
            ports.confirm(path);
        }
        self.settle_links(now);
        let Self { ports, media, .. } = self;
        let mut outbox = Outbox {
            transports: &mut media.transports,
            ports,
            relay: &mut media.cascade.relay,
            drops: &mut self.drops,
            scratch: &mut self.scratch,
        };
        media.sfu.drain(now, &mut outbox);
        media.pass_sfu_events(now);
        self.settle_rooms(now);
        self.settle_links(now);
        let Self { ports, media, .. } = self;
        ports.flush(|path, frame| media.handle_datagram(now, path, frame));
    }

    /// Has rooms and transports tell each other what they have to.
    fn settle_rooms(&mut self, now: Instant) {
        loop {
            self.pass_room_output(now);
            let Some(key) = self.media.transports.next_touched() else { break };
            self.drain_transport(now, key);
        }
    }

    /// Has rooms and relay links tell each other what they have to, and hands what is
    /// for other shards to their pipes.
    fn settle_links(&mut self, now: Instant) {
        loop {
            let Media { cascade, sfu, .. } = &mut self.media;
            if std::mem::take(&mut cascade.subscribed) {
                cascade.relay.look_at_wishes(now, sfu);
            }
            cascade.relay.settle(now, sfu);
            if !self.media.pass_relay_events(now) {
                return;
            }
            self.settle_rooms(now);
        }
    }

    fn drain_transport(&mut self, now: Instant, key: TransportKey) {
        let Self { ports, media, .. } = self;
        media.drain_transport(now, key, |path, datagram| ports.send_control(path, datagram));
        media.transports.remove_if_closed(key);
    }

    fn pass_room_output(&mut self, now: Instant) {
        while let Some(output) = self.media.rooms.poll_output() {
            match output {
                Output::Event { session, event } => self.tell(now, session, event),
                Output::Abandon { session } => drop(self.sessions.remove(&session)),
                Output::Media(order) => self.media.carry_out(now, order),
                Output::Relay(command) => {
                    let Media { cascade, sfu, .. } = &mut self.media;
                    cascade.carry_out(now, command, sfu);
                }
            }
        }
    }

    fn tell(&mut self, now: Instant, session: SessionKey, event: Event) {
        let last = matches!(event, Event::Closed(_));
        let Some(events) = self.sessions.get(&session) else { return };
        if let Err(error) = events.try_send(event) {
            debug!(%error, "a gateway does not read; its session is cut");
            self.sessions.remove(&session);
            if !last {
                self.media.rooms.session_lost(now, session);
            }
            return;
        }
        if last {
            self.sessions.remove(&session);
        }
    }

    /// Once a second, what was counted becomes visible outside.
    fn publish_counters(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.published_at);
        if elapsed < Duration::from_secs(1) {
            return;
        }
        let cpu = headwater_net::thread::cpu_time();
        let worked = cpu.saturating_sub(self.cpu_at);
        self.cpu_at = cpu;
        self.published_at = now;
        let seconds = elapsed.as_secs_f64();
        let Media { cascade, observer, .. } = &self.media;
        let relay_links = observer.relay_links(&cascade.relay);
        let mut snapshot = self.snapshot.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = snapshot.sent;
        let sent = self.ports.sent();
        let rate = |after: u64, before: u64| ((after - before) as f64 / seconds) as u64;
        *snapshot = ShardSnapshot {
            sfu: *self.media.sfu.stats(),
            received: self.ports.received(),
            sent,
            ingress: self.media.counters,
            egress: self.drops,
            relay: self.media.cascade.relay.totals(),
            relay_links,
            tcp_connections: self.ports.tcp_connections(),
            connected_transports: self.media.transports.connected(),
            rooms: self.media.rooms.reports(now).len(),
            participants: self.media.rooms.participant_count(),
            audio_tracks: self.media.sfu.track_count(MediaKind::Audio),
            video_tracks: self.media.sfu.track_count(MediaKind::Video),
            subscriptions: self.media.sfu.subscription_count(),
            sessions: self.sessions.len(),
            busy_ratio: (worked.as_secs_f64() / seconds).min(1.0) as f32,
            packets_per_second: rate(sent.datagrams, before.datagrams),
            bits_per_second: rate(sent.bytes, before.bytes) * 8,
        };
    }
}
