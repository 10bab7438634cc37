//! The cluster as one thread: nodes, replicas, registry, clients and what is on its way
//! between them, in one list of what happens when.

mod acts;
mod control;
mod door;
mod net;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use headwater_control_core::{RoomSpec, TreeConfig};
use headwater_media_node::{Cascade, Part};
use headwater_model::media::TransportKey;
use headwater_model::{Epoch, Identity, NodeId, RoomId, RoomUid, ShardIndex};
use headwater_relay::{Inbox, ShardAddress, Switchboard, Wake};
use headwater_room::{
    CloseReason, Command, Event, RoomAssignment, SessionKey, TransportKind, TransportMode,
};

pub(crate) use control::shape;

use super::checks::Checks;
use super::client::{Client, Phase};
use super::joining::Task;
use super::links::{Cuts, Dials, Place, SimDialer, Wire};
use super::registry::Registry;
use super::replica::{Replica, Report};
use super::shard::{Input, Shard};
use super::{Settings, nemesis};
use crate::{Random, Time, Trace};

/// How often replicas do what is due.
const DUTY: Duration = Duration::from_millis(50);
/// How often gateways look after their sessions.
const DOOR: Duration = Duration::from_millis(100);
/// Between two frames of a track.
pub(crate) const FRAME: Duration = Duration::from_millis(100);
/// How often what must always hold is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// A turn waits so long for what else arrives.
const BATCH: Duration = Duration::from_micros(300);
/// Lines kept for whoever sees a run fail.
const LINES_MAX: usize = 60;

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Happening {
    Turn { node: usize, life: u64, shard: usize },
    Datagram { wire: u64, to: usize, bytes: Vec<u8> },
    Freight { wire: u64, from: usize },
    Connect { wire: u64 },
    ReplicaDuty(usize),
    NodeDuty(usize),
    Open { replica: usize, life: u64, node: usize },
    Report { replica: usize, life: u64, node: usize, number: u64, first: bool, report: Box<Report> },
    Orders { replica: usize, node: usize, number: u64 },
    Join { client: usize, serial: u64 },
    Blame(u64),
    ToNode(SessionKey),
    ToClient(SessionKey),
    Feed { node: usize, life: u64, shard: usize, input: Box<Input> },
    Retry { client: usize, stays: u32 },
    Door,
    Frames,
    Look,
    Act,
    Nemesis,
    Repair(nemesis::Repair),
}

#[derive(Debug)]
struct Entry {
    at: Time,
    serial: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.serial) == (other.at, other.serial)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}

/// What a replica orders of a node.
#[derive(Debug)]
pub(crate) enum Ordered {
    Assign { shard: usize, room: Box<RoomAssignment>, part: Box<Part> },
    Release { room: RoomId, shard: Option<usize>, epoch: Epoch, reason: CloseReason },
}

/// A media node: one process after another.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// Counts its processes; what was meant for an earlier one is void.
    pub(crate) life: u64,
    pub(crate) alive: bool,
    pub(crate) frozen: bool,
    pub(crate) leaving: bool,
    pub(crate) shards: Vec<Shard>,
    armed: Vec<Option<Time>>,
    woken: Vec<Arc<AtomicBool>>,
    inboxes: Vec<Arc<Inbox>>,
    dials: Vec<Dials>,
    lease: Option<u64>,
    renewed: Time,
    /// Streams of replicas: number and the replica's life.
    attached: BTreeMap<usize, (u64, u64)>,
    orders: BTreeMap<(usize, u64), VecDeque<Ordered>>,
    /// Its clock is ahead by so many milliseconds.
    skew: u64,
}

/// A gateway's stream to a node for one participant.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: usize,
    pub(crate) node: usize,
    pub(crate) life: u64,
    pub(crate) shard: usize,
    mail: VecDeque<Event>,
    away_since: Option<Time>,
}

/// A transport between a client and a shard.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) client: usize,
    pub(crate) stay: u32,
    pub(crate) kind: TransportKind,
    /// The client closed it.
    pub(crate) gone: bool,
    /// When its channels are open.
    pub(crate) open: Time,
}

/// Where a transport is.
pub(crate) type PeerKey = (usize, u64, usize, TransportKey);

/// Relay datagrams' luck.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RelayWeather {
    pub(crate) delay: Duration,
    pub(crate) jitter: Duration,
    pub(crate) loss: f64,
}

/// The cluster. See the module.
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) now: Time,
    origin: Instant,
    serial: u64,
    happenings: BinaryHeap<Reverse<Entry>>,
    pub(crate) luck: Random,
    pub(crate) net_luck: Random,
    pub(crate) act_luck: Random,
    pub(crate) registry: Registry,
    pub(crate) replicas: Vec<Option<Replica>>,
    pub(crate) replica_lives: Vec<u64>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) wires: BTreeMap<u64, Wire>,
    last_number: u64,
    pub(crate) clients: Vec<Client>,
    pub(crate) sessions: BTreeMap<SessionKey, Session>,
    pub(crate) peers: BTreeMap<PeerKey, Peer>,
    blames: BTreeMap<u64, Task>,
    blamed: BTreeMap<(RoomId, NodeId, Epoch), Time>,
    pub(crate) cuts: Cuts,
    pub(crate) weather: RelayWeather,
    pub(crate) checks: Checks,
    pub(crate) is_calm: bool,
    pub(crate) speaks: bool,
    trace: Trace,
    pub(crate) verbose: bool,
    pub(crate) lines: VecDeque<String>,
}

pub(crate) fn node_id(index: usize) -> NodeId {
    NodeId::new(format!("node-{index}")).unwrap_or_else(|_| unreachable!("a fixed text is an id"))
}

impl World {
    pub(crate) fn new(settings: Settings, seed: u64, origin: Instant, verbose: bool) -> Self {
        let luck = Random::new(seed);
        let mut world = Self {
            now: Time::ZERO,
            origin,
            serial: 0,
            happenings: BinaryHeap::new(),
            net_luck: luck.part(1),
            act_luck: luck.part(2),
            luck,
            registry: Registry::default(),
            replicas: Vec::new(),
            replica_lives: vec![0; settings.replicas],
            nodes: Vec::new(),
            wires: BTreeMap::new(),
            last_number: 0,
            clients: Vec::new(),
            sessions: BTreeMap::new(),
            peers: BTreeMap::new(),
            blames: BTreeMap::new(),
            blamed: BTreeMap::new(),
            cuts: Cuts::default(),
            weather: RelayWeather {
                delay: Duration::from_millis(settings.relay_delay_millis),
                jitter: Duration::ZERO,
                loss: 0.0,
            },
            checks: Checks::default(),
            is_calm: false,
            speaks: true,
            trace: Trace::default(),
            verbose,
            lines: VecDeque::new(),
            settings,
        };
        for index in 0..world.settings.nodes {
            world.nodes.push(Node::down(index, world.luck.below(40)));
            world.start_node(index);
            world.later(Duration::from_millis(10 + 7 * index as u64), Happening::NodeDuty(index));
        }
        for index in 0..world.settings.replicas {
            world.replicas.push(None);
            world.start_replica(index);
            world.later(
                DUTY + Duration::from_millis(3 * index as u64),
                Happening::ReplicaDuty(index),
            );
        }
        for index in 0..world.settings.clients {
            let client = world.new_client(index);
            world.clients.push(client);
        }
        world.later(DOOR, Happening::Door);
        world.later(FRAME, Happening::Frames);
        world.later(LOOK, Happening::Look);
        world.later(Duration::from_millis(400), Happening::Act);
        world
    }

    fn new_client(&mut self, index: usize) -> Client {
        let room = index % self.settings.rooms;
        let publishes = index / self.settings.rooms < self.settings.publishers;
        let name = |text: String| Identity::new(text).unwrap_or_else(|_| unreachable!("an id"));
        Client {
            index,
            identity: name(format!("p{index}")),
            room: room_id(room),
            wants: false,
            may_publish: publishes,
            audio: true,
            video: publishes && self.act_luck.chance(0.5),
            muted: false,
            metadata: format!("first of {index}"),
            mode: if self.act_luck.chance(0.5) {
                TransportMode::Dual
            } else {
                TransportMode::Single
            },
            stays: 0,
            phase: Phase::Out,
            was_full: false,
        }
    }

    pub(crate) fn at(&self) -> Instant {
        self.origin + self.now.elapsed()
    }

    pub(crate) fn wall_millis(&self) -> u64 {
        1_700_000_000_000 + self.now.0 / 1_000
    }

    /// A number that was never used.
    pub(crate) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(crate) fn later(&mut self, span: Duration, what: Happening) {
        let at = self.now.plus(span);
        self.serial += 1;
        self.happenings.push(Reverse(Entry { at, serial: self.serial, what }));
    }

    /// Notes something in the history, which is hashed.
    pub(crate) fn say(&mut self, line: String) {
        self.trace.note(self.now, 0, line.as_bytes());
        let line = format!("{:>9.4} {line}", self.now.elapsed().as_secs_f64());
        if self.verbose {
            use std::io::Write as _;
            // Whoever reads may have gone; the run goes on.
            let _ = writeln!(std::io::stdout().lock(), "{line}");
        }
        if self.lines.len() >= LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub(crate) fn note(&mut self, place: u64, bytes: &[u8]) {
        self.trace.note(self.now, place, bytes);
    }

    pub(crate) fn trace(&self) -> u64 {
        self.trace.hash()
    }

    /// Lets time pass.
    pub(crate) fn run_until(&mut self, end: Time) {
        while let Some(Reverse(next)) = self.happenings.peek() {
            if next.at > end {
                break;
            }
            let Some(Reverse(Entry { at, what, .. })) = self.happenings.pop() else { break };
            self.now = at;
            self.happen(what);
        }
        self.now = end;
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Turn { node, life, shard } => self.turn_due(node, life, shard),
            Happening::Datagram { wire, to, bytes } => self.datagram_comes(wire, to, bytes),
            Happening::Freight { wire, from } => self.freight_due(wire, from),
            Happening::Connect { wire } => self.connect_wire(wire),
            Happening::ReplicaDuty(replica) => {
                self.replica_duty(replica);
                self.later(DUTY, Happening::ReplicaDuty(replica));
            }
            Happening::NodeDuty(node) => {
                self.node_duty(node);
                self.later(Duration::from_secs(1), Happening::NodeDuty(node));
            }
            Happening::Open { replica, life, node } => self.stream_comes(replica, life, node),
            Happening::Report { replica, life, node, number, first, report } => {
                self.report_comes((replica, life), (node, number), first, *report);
            }
            Happening::Orders { replica, node, number } => self.orders_come(replica, node, number),
            Happening::Join { client, serial } => self.join_due(client, serial),
            Happening::Blame(number) => self.blame_due(number),
            Happening::ToNode(session) => self.flush_to_node(session),
            Happening::ToClient(session) => self.flush_to_client(session),
            Happening::Feed { node, life, shard, input } => self.feed(node, life, shard, *input),
            Happening::Retry { client, stays } => self.retry(client, stays),
            Happening::Door => {
                self.look_after_sessions();
                self.later(DOOR, Happening::Door);
            }
            Happening::Frames => {
                self.send_frames();
                self.later(FRAME, Happening::Frames);
            }
            Happening::Look => {
                self.check_always();
                self.later(LOOK, Happening::Look);
            }
            Happening::Act => {
                self.act();
                let pause = 150 + self.act_luck.below(500);
                self.later(Duration::from_millis(pause), Happening::Act);
            }
            Happening::Nemesis => self.strike(),
            Happening::Repair(repair) => self.repair(repair),
        }
    }

    // Nodes.

    /// Starts a node's process.
    pub(crate) fn start_node(&mut self, index: usize) {
        let number = self.number();
        let (origin_at, seed) = (self.at(), self.luck.part(1_000 + number).next_u64());
        let shards = self.settings.shards;
        let node = &mut self.nodes[index];
        (node.alive, node.frozen, node.leaving) = (true, false, false);
        let switchboard = Switchboard::default();
        for shard in 0..shards {
            let me = ShardAddress { node: node.id.clone(), shard: ShardIndex(shard as u16) };
            let woken = Arc::new(AtomicBool::new(false));
            let flag = Arc::clone(&woken);
            let raise = move || flag.store(true, std::sync::atomic::Ordering::Relaxed);
            let inbox = Inbox::new(Wake::new(raise));
            switchboard.register(me.clone(), Arc::clone(&inbox));
            let dials = Dials::default();
            let dialer =
                SimDialer { me: me.clone(), local: switchboard.clone(), dials: Arc::clone(&dials) };
            let boot = node.life << 8 | index as u64;
            let cascade = Cascade::new((me, boot), Box::new(dialer), Arc::clone(&inbox), origin_at);
            node.shards.push(Shard::new(cascade, seed ^ (shard as u64) << 32, origin_at));
            node.armed.push(None);
            node.woken.push(woken);
            node.inboxes.push(inbox);
            node.dials.push(dials);
        }
    }

    /// Ends a node's process without a word.
    pub(crate) fn kill_node(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let life = node.life;
        let (id, skew) = (index, node.skew);
        self.nodes[index] = Node { life: life + 1, ..Node::down(id, skew) };
        for wire in self.wires.values_mut() {
            for end in wire.ends.iter_mut().filter(|end| end.node == index && end.life == life) {
                end.pipe = None;
            }
        }
        self.peers.retain(|key, _| key.0 != index);
        let replicas: Vec<usize> = (0..self.replicas.len()).collect();
        for replica in replicas {
            self.stream_breaks(replica, index);
        }
    }

    pub(crate) fn reaches(&self, from: Place, node: usize) -> bool {
        let there = &self.nodes[node];
        there.alive && !there.frozen && self.cuts.connects(from, Place::Node(node))
    }

    pub(crate) fn node_index(&self, id: &NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == *id)
    }

    pub(crate) fn new_room(&self, id: &RoomId, number: u64) -> RoomSpec {
        RoomSpec {
            uid: RoomUid::from_raw(format!("RM_{number}")),
            metadata: Arc::from(id.as_str()),
            max_participants: self.settings.limit,
            empty_timeout: Duration::from_secs(20),
            departure_timeout: Duration::from_secs(8),
            create_millis: 1,
        }
    }

    pub(crate) fn tree(&self) -> TreeConfig {
        TreeConfig {
            fanout_max: self.settings.fanout,
            shard_participants: self.settings.shard_participants,
            home_children_reserved: 0,
            ..TreeConfig::default()
        }
    }

    pub(crate) fn start_replica(&mut self, index: usize) {
        self.replica_lives[index] += 1;
        let number = self.number();
        let seed = self.luck.part(5_000 + number).next_u64();
        let replica = Replica::new(index, self.replica_lives[index], self.tree(), seed);
        self.replicas[index] = Some(replica);
    }

    /// Something arrives at a shard.
    pub(crate) fn feed(&mut self, node: usize, life: u64, shard: usize, input: Input) {
        let there = &mut self.nodes[node];
        if !there.alive || there.life != life {
            return;
        }
        if let Some(it) = there.shards.get_mut(shard) {
            it.inputs.push(input);
        }
        self.arm(node, shard, self.now.plus(BATCH));
    }

    pub(crate) fn command(&mut self, session: SessionKey, command: Command) {
        let Some(it) = self.sessions.get(&session) else { return };
        let (node, life, shard) = (it.node, it.life, it.shard);
        self.feed(node, life, shard, Input::Command(session, Box::new(command)));
    }
}

impl Node {
    fn down(index: usize, skew: u64) -> Self {
        Self {
            id: node_id(index),
            life: 1,
            alive: false,
            frozen: false,
            leaving: false,
            shards: Vec::new(),
            armed: Vec::new(),
            woken: Vec::new(),
            inboxes: Vec::new(),
            dials: Vec::new(),
            lease: None,
            renewed: Time::ZERO,
            attached: BTreeMap::new(),
            orders: BTreeMap::new(),
            skew,
        }
    }

    /// The process that it is.
    pub(crate) fn boot(&self) -> u64 {
        self.life
    }
}

pub(crate) fn room_id(index: usize) -> RoomId {
    RoomId::new(format!("room-{index}")).unwrap_or_else(|_| unreachable!("a fixed text is an id"))
}
