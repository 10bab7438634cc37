//! Gateways and clients: joins, sessions, transports, and what clients do.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use headwater_control_core::admission::{FailedNode, SeatCount};
use headwater_model::{NodeId, ParticipantUid, RoomId};
use headwater_room::{
    ChannelKey, ChannelReliability, CloseAction, CloseReason, Closed, Command, Event, MediaEvent,
    SessionKey, TransportKind,
};

use super::control::{properties, shape};
use super::{Happening, Peer, PeerKey, Session, World};
use crate::cluster::client::{Phase, Stay};
use crate::cluster::joining::{ATTEMPTS_MAX, Around, Joining, Place as Seat, Step, Task};
use crate::cluster::links::Place;
use crate::cluster::reading::Reading;
use crate::cluster::shard::Input;

/// One way between clients, gateways and nodes.
pub(super) const HOP: Duration = Duration::from_millis(5);
/// A gateway gives a node up that says nothing for so long.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// A node notices that a gateway is gone without a word.
const NODE_PATIENCE: Duration = Duration::from_secs(8);
/// An attach that is not answered.
const ATTACH_MAX: Duration = Duration::from_secs(3);
/// A transport over which a client consents no more.
const CONSENT: Duration = Duration::from_secs(20);
/// A handshake.
const HANDSHAKE: Duration = Duration::from_millis(40);

impl World {
    // Joins.

    /// A client begins to join.
    pub(crate) fn begin_join(&mut self, client: usize, kept: Option<ParticipantUid>) {
        let serial = self.number();
        let joining = Joining {
            resume: kept,
            attempt: 0,
            failed: None,
            task: None,
            misses: 0,
            serial,
            attaching: None,
            session: 0,
            kept: None,
        };
        self.clients[client].phase = Phase::Joining(Box::new(joining));
        self.say(format!("p{client} joins"));
        self.later(HOP, Happening::Join { client, serial });
    }

    pub(super) fn join_due(&mut self, client: usize, serial: u64) {
        let phase = std::mem::replace(&mut self.clients[client].phase, Phase::Out);
        let Phase::Joining(mut joining) = phase else {
            self.clients[client].phase = phase;
            return;
        };
        if joining.serial != serial {
            self.clients[client].phase = Phase::Joining(joining);
            return;
        }
        if joining.attaching.take().is_some() {
            // It did not answer in time.
            self.say(format!("p{client} got no answer from its node"));
            self.close_at_node(SessionKey(joining.session));
            self.again(client, joining, Duration::ZERO, true);
            return;
        }
        let Some(task) = joining.task.take() else {
            self.ask_for_place(client, joining);
            return;
        };
        self.step(client, joining, task);
    }

    fn ask_for_place(&mut self, client: usize, mut joining: Box<Joining>) {
        let count = self.replicas.len();
        let index = (client + joining.misses as usize + joining.attempt as usize) % count;
        let at = self.at();
        let reachable = self.cuts.connects(Place::Door, Place::Replica(index));
        let it = &self.clients[client];
        let who = (it.room.clone(), it.identity.clone());
        let how = (it.may_publish, joining.resume.is_some());
        let failed = joining.failed.take();
        let synced = self.replicas[index].as_ref().filter(|it| it.synced && reachable);
        match synced.map(|replica| Task::new(replica, who, how, failed.clone(), at)) {
            Some(task) => {
                joining.task = Some(task);
                self.go_on(client, joining, HOP);
            }
            None => {
                joining.failed = failed;
                joining.misses += 1;
                if joining.misses > 12 {
                    self.give_up(client, Duration::from_secs(1), false);
                } else {
                    self.go_on(client, joining, Duration::from_millis(150));
                }
            }
        }
    }

    fn go_on(&mut self, client: usize, mut joining: Box<Joining>, after: Duration) {
        let serial = self.number();
        joining.serial = serial;
        self.clients[client].phase = Phase::Joining(joining);
        self.later(after, Happening::Join { client, serial });
    }

    /// One more place is asked for, unless there were too many.
    fn again(&mut self, client: usize, mut joining: Box<Joining>, pause: Duration, gone: bool) {
        if !gone {
            joining.failed = None;
        }
        joining.attempt += 1;
        if joining.attempt >= ATTEMPTS_MAX {
            self.give_up(client, Duration::from_millis(700), false);
            return;
        }
        self.go_on(client, joining, pause);
    }

    /// The client is refused and tries again later from the beginning.
    fn give_up(&mut self, client: usize, after: Duration, full: bool) {
        self.say(format!("p{client} is refused, full {full}"));
        self.clients[client].phase = Phase::Out;
        self.clients[client].was_full = full;
        let stays = self.clients[client].stays;
        self.later(after, Happening::Retry { client, stays });
    }

    pub(crate) fn retry(&mut self, client: usize, stays: u32) {
        let it = &self.clients[client];
        if it.wants && it.stays == stays && matches!(it.phase, Phase::Out) {
            self.begin_join(client, None);
        }
    }

    fn step(&mut self, client: usize, mut joining: Box<Joining>, mut task: Task) {
        match self.run_step(&mut task) {
            None => {
                joining.misses += 1;
                self.go_on(client, joining, Duration::from_millis(100));
            }
            Some(Step::Again(after)) => {
                joining.task = Some(task);
                self.go_on(client, joining, after);
            }
            Some(Step::Admitted(place)) => self.attach(client, joining, *place),
            Some(Step::Wait(after)) => self.again(client, joining, after, false),
            Some(Step::Full) => self.give_up(client, Duration::from_secs(2), true),
            Some(Step::NotFound) => self.give_up(client, Duration::from_millis(200), false),
        }
    }

    /// `None` if its replica is there no more.
    fn run_step(&mut self, task: &mut Task) -> Option<Step> {
        let index = task.replica;
        let place = Place::Replica(index);
        let there =
            self.replica_lives[index] == task.life && self.cuts.connects(Place::Door, place);
        if !there {
            return None;
        }
        let number = self.number();
        let mut replica = self.replicas[index].take()?;
        let mut registry = std::mem::take(&mut self.registry);
        let before = registry.revision;
        let (room, identity) = (task.room().clone(), task.identity().clone());
        let world = &*self;
        let answers =
            |node: &NodeId| world.node_index(node).is_some_and(|it| world.reaches(place, it));
        let seats = |node: &NodeId| world.seats(place, node, &room, identity.as_str());
        let around = Around {
            now: self.now,
            registry: self.cuts.connects(place, Place::Registry),
            new_room: self.new_room(&room, number),
            answers: &answers,
            seats: &seats,
        };
        let step = task.step(&mut replica, &mut registry, &around);
        if registry.revision > before {
            let plan = Reading::of(&registry, &room).and_then(|it| it.room?.plan);
            let plan = plan.map(|plan| format!("epoch {} {}", plan.epoch.0, shape(&plan)));
            self.say(format!("plan {room} for a join: {plan:?}"));
        }
        self.replicas[index] = Some(replica);
        self.registry = registry;
        Some(step)
    }

    fn seats(
        &self,
        from: Place,
        node: &NodeId,
        room: &RoomId,
        identity: &str,
    ) -> Option<SeatCount> {
        let node = self.node_index(node).filter(|node| self.reaches(from, *node))?;
        let mut names = BTreeSet::new();
        for shard in &self.nodes[node].shards {
            let list = shard.rooms.list_participants(room).unwrap_or_default();
            names.extend(list.iter().map(|view| view.identity.as_str().to_owned()));
        }
        Some(SeatCount { participants: names.len() as u32, is_inside: names.contains(identity) })
    }

    /// Asks a node for a session.
    fn attach(&mut self, client: usize, mut joining: Box<Joining>, place: Seat) {
        let Some(node) = self.node_index(&place.shard.node) else { return };
        let failed = FailedNode { node: place.shard.node.clone(), epoch: place.epoch };
        if !self.nodes[node].alive {
            joining.failed = Some(failed);
            self.again(client, joining, HOP, true);
            return;
        }
        let session = SessionKey(self.number());
        let (life, shard) = (self.nodes[node].life, usize::from(place.shard.shard.0));
        let millis = self.wall_millis() + self.nodes[node].skew;
        let properties = properties(&place.spec, place.spec_revision);
        let it = &self.clients[client];
        let request = it.join_request(place.epoch, properties, joining.resume.clone(), millis);
        let mail = VecDeque::new();
        self.sessions
            .insert(session, Session { client, node, life, shard, mail, away_since: None });
        let input = Box::new(Input::Join(session, Box::new(request)));
        if self.reaches(Place::Door, node) || self.nodes[node].frozen {
            self.later(HOP, Happening::Feed { node, life, shard, input });
        }
        joining.failed = Some(failed);
        joining.session = session.0;
        joining.attaching = Some(place);
        self.go_on(client, joining, ATTACH_MAX);
    }

    // Sessions.

    pub(super) fn mail(&mut self, session: SessionKey, event: Event) {
        let Some(it) = self.sessions.get_mut(&session) else { return };
        it.mail.push_back(event);
        if it.mail.len() == 1 {
            self.later(HOP, Happening::ToClient(session));
        }
    }

    pub(super) fn flush_to_client(&mut self, session: SessionKey) {
        let Some(it) = self.sessions.get(&session) else { return };
        let (node, client) = (it.node, it.client);
        if !self.cuts.connects(Place::Door, Place::Node(node)) {
            self.later(Duration::from_millis(50), Happening::ToClient(session));
            return;
        }
        let Some(it) = self.sessions.get_mut(&session) else { return };
        for event in std::mem::take(&mut it.mail) {
            if !self.sessions.contains_key(&session) {
                break;
            }
            self.take_event(session, client, event);
        }
        self.send_commands(client);
    }

    fn take_event(&mut self, session: SessionKey, client: usize, event: Event) {
        let phase = &self.clients[client].phase;
        let attaching = match phase {
            Phase::Joining(joining) => joining.session == session.0 && joining.attaching.is_some(),
            Phase::In(stay) if stay.session == session => {
                self.note(3_000 + client as u64, name_of(&event).as_bytes());
                if let Some(closed) = self.clients[client].handle_event(event) {
                    self.closed(session, client, &closed);
                }
                return;
            }
            Phase::In(_) | Phase::Out => false,
        };
        if !attaching {
            // An answer that comes too late.
            self.close_at_node(session);
            return;
        }
        match event {
            Event::Joined(_) => self.joined(session, client, event),
            Event::Closed(closed) => {
                self.sessions.remove(&session);
                self.closed_at_once(client, &closed);
            }
            _ => {}
        }
    }

    fn joined(&mut self, session: SessionKey, client: usize, event: Event) {
        let phase = std::mem::replace(&mut self.clients[client].phase, Phase::Out);
        let Phase::Joining(joining) = phase else { return };
        let (Some(place), Some(it)) = (joining.attaching, self.sessions.get(&session)) else {
            return;
        };
        let (node, life, shard) = (it.node, it.life, it.shard);
        let stay = match joining.kept {
            Some(mut kept) => {
                kept.session = session;
                kept
            }
            None => {
                self.clients[client].stays += 1;
                Box::new(Stay::new(
                    (self.clients[client].stays, session),
                    (node, life, shard),
                    place.shard.node.clone(),
                    place.epoch,
                ))
            }
        };
        let number = stay.number;
        self.clients[client].phase = Phase::In(stay);
        self.clients[client].was_full = false;
        self.say(format!("p{client} is in as stay {number} on node {node}/{shard}"));
        self.clients[client].handle_event(event);
        let uid = self.clients[client].stay().and_then(|stay| stay.uid.clone());
        if let Some(uid) = uid {
            self.checks.note_uid(self.now, &uid, client, number);
        }
        if !self.clients[client].wants {
            self.leave(client);
        }
    }

    /// The node's first word was no, as the gateway takes it.
    fn closed_at_once(&mut self, client: usize, closed: &Closed) {
        let phase = std::mem::replace(&mut self.clients[client].phase, Phase::Out);
        let Phase::Joining(mut joining) = phase else { return };
        joining.attaching = None;
        self.say(format!("p{client} is told {:?} at once", closed.reason));
        match closed.reason {
            CloseReason::PlanStale
            | CloseReason::Migration
            | CloseReason::ServerShutdown
            | CloseReason::RoomDeleted
            | CloseReason::RoomClosed
                if joining.resume.is_none() =>
            {
                let pause = Duration::from_millis(50) * (joining.attempt + 1);
                self.again(client, joining, pause, false);
            }
            CloseReason::RoomFull => self.give_up(client, Duration::from_secs(2), true),
            _ => self.give_up(client, Duration::from_millis(100), false),
        }
    }

    /// A session ended by its node's word.
    fn closed(&mut self, session: SessionKey, client: usize, closed: &Closed) {
        self.say(format!("p{client} is closed: {:?}", closed.reason));
        self.sessions.remove(&session);
        let uid = self.clients[client].stay().and_then(|stay| stay.uid.clone());
        if closed.reason == CloseReason::DuplicateIdentity {
            self.checks.fail(self.now, format!("p{client} was closed as its own duplicate"));
        }
        match closed.action {
            CloseAction::Resume if self.clients[client].wants => self.resume(client, uid),
            CloseAction::Resume | CloseAction::Reconnect | CloseAction::Disconnect => {
                self.part(client);
                let stays = self.clients[client].stays;
                let pause = 100 + self.luck.below(400);
                self.later(Duration::from_millis(pause), Happening::Retry { client, stays });
            }
        }
    }

    /// A client lets go of its stay: its transports close.
    fn part(&mut self, client: usize) {
        let phase = std::mem::replace(&mut self.clients[client].phase, Phase::Out);
        let Phase::In(stay) = phase else { return };
        let keys: Vec<PeerKey> = self
            .peers
            .iter()
            .filter(|(_, peer)| (peer.client, peer.stay) == (client, stay.number))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.gone = true;
            }
            let after = if self.reaches(Place::Door, key.0) { HOP } else { CONSENT };
            let failed = MediaEvent::TransportFailed { transport: key.3, recoverable: false };
            self.feed_event((key.0, key.1, key.2), after, failed);
        }
    }

    fn resume(&mut self, client: usize, uid: Option<ParticipantUid>) {
        let phase = std::mem::replace(&mut self.clients[client].phase, Phase::Out);
        let Phase::In(stay) = phase else { return };
        self.begin_join(client, uid);
        if let Phase::Joining(joining) = &mut self.clients[client].phase {
            joining.kept = Some(stay);
        }
    }

    /// The gateway that a client is at stops: the client resumes at another one.
    pub(crate) fn cut_signalling(&mut self, client: usize) {
        let Some(stay) = self.clients[client].stay() else { return };
        let (session, uid) = (stay.session, stay.uid.clone());
        self.say(format!("p{client} loses its gateway"));
        self.close_at_node(session);
        self.resume(client, uid);
    }

    /// The gateway lets go of a session; its node hears of it now or later.
    fn close_at_node(&mut self, session: SessionKey) {
        let Some(it) = self.sessions.remove(&session) else { return };
        let (node, life, shard) = (it.node, it.life, it.shard);
        let hears = self.cuts.connects(Place::Door, Place::Node(node));
        let after = if hears { HOP } else { NODE_PATIENCE };
        let input = Box::new(Input::Lost(session));
        self.later(after, Happening::Feed { node, life, shard, input });
    }

    /// A session broke under its gateway: the node is blamed, the client begins anew.
    pub(crate) fn lose_session(&mut self, session: SessionKey) {
        let Some(it) = self.sessions.get(&session) else { return };
        let (client, node) = (it.client, it.node);
        self.close_at_node(session);
        let Some(stay) = self.clients[client].stay().filter(|stay| stay.session == session) else {
            return;
        };
        let failed = FailedNode { node: stay.node_id.clone(), epoch: stay.epoch };
        self.say(format!("p{client} lost node {node}"));
        self.blame(client, failed);
        self.part(client);
        let stays = self.clients[client].stays;
        let pause = 60 + self.luck.below(500);
        self.later(Duration::from_millis(pause), Happening::Retry { client, stays });
    }

    /// Tells a replica that a node is gone, once for each plan.
    fn blame(&mut self, client: usize, failed: FailedNode) {
        let it = &self.clients[client];
        let key = (it.room.clone(), failed.node.clone(), failed.epoch);
        let said =
            self.blamed.get(&key).is_some_and(|at| self.now.since(*at) < Duration::from_secs(1));
        let index = client % self.replicas.len();
        let reachable = self.cuts.connects(Place::Door, Place::Replica(index));
        let Some(replica) = self.replicas[index].as_ref().filter(|_| reachable && !said) else {
            return;
        };
        let who = (it.room.clone(), it.identity.clone());
        let task = Task::new(replica, who, (false, true), Some(failed), self.at());
        self.blamed.insert(key, self.now);
        let number = self.number();
        self.blames.insert(number, task);
        self.later(HOP, Happening::Blame(number));
    }

    pub(super) fn blame_due(&mut self, number: u64) {
        let Some(mut task) = self.blames.remove(&number) else { return };
        if let Some(Step::Again(after)) = self.run_step(&mut task) {
            self.blames.insert(number, task);
            self.later(after, Happening::Blame(number));
        }
    }

    /// What gateways notice of nodes that are gone or silent.
    pub(super) fn look_after_sessions(&mut self) {
        let mut lost = Vec::new();
        for (session, it) in &mut self.sessions {
            let there = &self.nodes[it.node];
            let same = there.alive && there.life == it.life;
            let hears =
                same && !there.frozen && self.cuts.connects(Place::Door, Place::Node(it.node));
            it.away_since = if hears { None } else { it.away_since.or(Some(self.now)) };
            if !same || it.away_since.is_some_and(|at| self.now.since(at) >= PATIENCE) {
                lost.push(*session);
            }
        }
        for session in lost {
            self.lose_session(session);
        }
    }

    /// Sends what a client has to say to its node.
    pub(crate) fn send_commands(&mut self, client: usize) {
        let Some(stay) = self.clients[client].stay() else { return };
        if !stay.to_node.is_empty() {
            self.later(HOP, Happening::ToNode(stay.session));
        }
    }

    pub(super) fn flush_to_node(&mut self, session: SessionKey) {
        let Some(it) = self.sessions.get(&session) else { return };
        let (client, node) = (it.client, it.node);
        if !self.cuts.connects(Place::Door, Place::Node(node)) {
            self.later(Duration::from_millis(50), Happening::ToNode(session));
            return;
        }
        let Some(stay) = self.clients[client].stay_mut().filter(|it| it.session == session) else {
            return;
        };
        for command in std::mem::take(&mut stay.to_node) {
            self.command(session, command);
        }
    }

    pub(crate) fn leave(&mut self, client: usize) {
        self.clients[client].wants = false;
        let Some(stay) = self.clients[client].stay() else { return };
        let session = stay.session;
        self.say(format!("p{client} leaves"));
        self.command(session, Command::Leave { reason: CloseReason::ClientLeft });
        self.sessions.remove(&session);
        self.part(client);
    }

    // Transports.

    pub(super) fn peer_known(&mut self, key: PeerKey, session: SessionKey, kind: TransportKind) {
        if self.peers.contains_key(&key) {
            return;
        }
        let Some(client) = self.sessions.get(&session).map(|it| it.client) else { return };
        let Some(stay) = self.clients[client].stay().filter(|it| it.session == session) else {
            return;
        };
        let stay = stay.number;
        let open = self.now.plus(HANDSHAKE * 3);
        let peer = Peer { client, stay, kind, gone: false, open };
        self.peers.insert(key, peer);
        let connected = MediaEvent::TransportConnected { transport: key.3 };
        self.feed_event((key.0, key.1, key.2), HANDSHAKE, connected);
        if kind == TransportKind::Publisher {
            for label in ["_reliable", "_lossy"] {
                self.open_channel(key, label, HANDSHAKE * 2);
            }
        }
    }

    pub(super) fn channel_wanted(&mut self, key: PeerKey, label: &'static str) {
        self.open_channel(key, label, HANDSHAKE * 2);
    }

    fn open_channel(&mut self, key: PeerKey, label: &'static str, after: Duration) {
        let (number, reliability) = match label {
            "_reliable" => (1, ChannelReliability::Reliable),
            "_lossy" => (2, ChannelReliability::Lossy),
            _ => (3, ChannelReliability::Lossy),
        };
        let opened = MediaEvent::ChannelOpen {
            transport: key.3,
            channel: ChannelKey(number),
            label: label.to_owned(),
            reliability,
        };
        self.feed_event((key.0, key.1, key.2), after, opened);
    }
}

/// An event's kind, for the history.
fn name_of(event: &Event) -> String {
    let text = format!("{event:?}");
    let end = text.find([' ', '(', '{']).unwrap_or(text.len());
    text[..end].to_owned()
}
