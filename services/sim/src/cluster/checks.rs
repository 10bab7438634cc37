//! What must hold of a cluster: always, and when it is left in peace.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use headwater_model::{Epoch, ParticipantUid, RoomId, TrackUid};
use headwater_relay::{BACKUP_CHILDREN_MAX, CHILDREN_MAX, Side};
use headwater_rtp::{RtpView, SequenceUnwrapper};

use super::client::{Client, Stay};
use super::media::Mark;
use super::registry::{Key, Value};
use super::world::{World, room_id, shape};
use crate::Time;

/// Violations that are written down; more of them say nothing new.
const VIOLATIONS_MAX: usize = 12;
/// Frames of one track that a receiver is remembered to have, so that none comes twice.
const FRAMES_MAX: usize = 512;
/// A track that is wanted is heard of at least so often in peace.
const QUIET_MAX: Duration = Duration::from_millis(700);
/// Frames on their way when a window is counted.
const UNDER_WAY: u32 = 8;

/// One stream of packets that a client receives.
#[derive(Debug)]
struct Stream {
    unwrapper: SequenceUnwrapper,
    highest: u64,
    missing: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Frames {
    seen: BTreeSet<(u32, u8)>,
    order: VecDeque<(u32, u8)>,
}

/// Receiver and sender, each with its stay, and the kind.
type Way = ((usize, u32), (usize, u32), u8);

/// What was seen, and what was found wrong.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    violations: Vec<String>,
    homes: BTreeMap<(RoomId, Epoch), (usize, u64, usize)>,
    epochs: BTreeMap<(usize, u64, usize, RoomId), Epoch>,
    uids: BTreeMap<ParticipantUid, (usize, u32)>,
    tracks: BTreeMap<TrackUid, ParticipantUid>,
    streams: BTreeMap<((usize, u32), u32), Stream>,
    frames: BTreeMap<(Way, u32), Frames>,
    heard: BTreeMap<Way, Time>,
    messages: BTreeMap<Way, u32>,
    repeated: BTreeMap<(Way, u32), usize>,
    /// Frames sent since then, by those who got them.
    window: Option<(Time, BTreeMap<Way, BTreeSet<u32>>)>,
    /// Datagrams that left over links between nodes.
    pub(crate) datagrams: u64,
    /// Packets and messages that clients received.
    pub(crate) received: u64,
}

impl Checks {
    pub(crate) fn violations(&self) -> &[String] {
        &self.violations
    }

    pub(crate) fn fail(&mut self, now: Time, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(format!("{:.3} s: {what}", now.elapsed().as_secs_f64()));
        }
    }

    /// Of one epoch one shard is the home.
    pub(crate) fn note_home(
        &mut self,
        now: Time,
        room: &RoomId,
        epoch: Epoch,
        shard: (usize, u64, usize),
    ) {
        let known = *self.homes.entry((room.clone(), epoch)).or_insert(shard);
        if (known.0, known.2) != (shard.0, shard.2) {
            self.fail(
                now,
                format!("{room} has two homes at epoch {}: {known:?}, {shard:?}", epoch.0),
            );
        }
    }

    /// A stay has one uid, and a uid one stay.
    pub(crate) fn note_uid(&mut self, now: Time, uid: &ParticipantUid, client: usize, stay: u32) {
        let known = *self.uids.entry(uid.clone()).or_insert((client, stay));
        if known != (client, stay) {
            self.fail(now, format!("{uid} is {known:?} and ({client}, {stay})"));
        }
    }

    pub(crate) fn note_packet(&mut self, now: Time, to: (usize, u32), packet: &[u8]) {
        self.received += 1;
        let Ok(view) = RtpView::parse(packet) else {
            self.fail(now, format!("p{} got what is no RTP packet", to.0));
            return;
        };
        self.note_sequence(now, to, &view);
        if view.payload().is_empty() {
            return;
        }
        let Some(mark) = Mark::find(view.payload()) else {
            self.fail(now, format!("p{} got a payload that was changed", to.0));
            return;
        };
        let way = (to, (usize::from(mark.client), u32::from(mark.stay)), mark.kind);
        self.heard.insert(way, now);
        let frames = self.frames.entry((way, view.ssrc())).or_default();
        let frame = (mark.number, mark.encoding);
        if !frames.seen.insert(frame) {
            self.fail(now, format!("p{} got frame {frame:?} of {way:?} twice", to.0));
            return;
        }
        frames.order.push_back(frame);
        if frames.order.len() > FRAMES_MAX
            && let Some(oldest) = frames.order.pop_front()
        {
            frames.seen.remove(&oldest);
        }
        if let Some((since, window)) = self.window.as_mut().filter(|(since, _)| mark.sent >= *since)
        {
            let _ = since;
            window.entry(way).or_default().insert(mark.number);
        }
    }

    fn note_sequence(&mut self, now: Time, to: (usize, u32), view: &RtpView<'_>) {
        let stream = self.streams.entry((to, view.ssrc())).or_insert_with(|| Stream {
            unwrapper: SequenceUnwrapper::new(),
            highest: 0,
            missing: BTreeSet::new(),
        });
        let sequence = stream.unwrapper.unwrap(view.sequence());
        if stream.highest == 0 {
            stream.highest = sequence;
        } else if sequence > stream.highest {
            stream.missing.extend(stream.highest + 1..sequence);
            stream.highest = sequence;
        } else if !stream.missing.remove(&sequence) {
            let ssrc = view.ssrc();
            self.fail(now, format!("p{} got number {sequence} of {ssrc:x} twice", to.0));
        }
    }

    /// Messages of one sender come in order and once. What was under way when another
    /// shard became the home may come once more.
    pub(crate) fn note_message(&mut self, now: Time, to: (usize, u32), mark: &Mark) {
        self.received += 1;
        let way = (to, (usize::from(mark.client), u32::from(mark.stay)), 2);
        let last = self.messages.entry(way).or_default();
        if mark.number <= *last {
            let (last, number) = (*last, mark.number);
            let homes: BTreeSet<_> = self.homes.values().collect();
            let repeated = self.repeated.entry((way, number)).or_default();
            *repeated += 1;
            if *repeated >= homes.len() {
                self.fail(now, format!("p{} got message {number} of {way:?} after {last}", to.0));
            }
            return;
        }
        *last = mark.number;
    }

    /// The newest message of a sender's stay that somebody got.
    fn last_message(&self, to: (usize, u32), from: (usize, u32)) -> u32 {
        self.messages.get(&(to, from, 2)).copied().unwrap_or(0)
    }

    fn last_frame(&self, to: (usize, u32), from: (usize, u32), kind: u8) -> Option<Time> {
        self.heard.get(&(to, from, kind)).copied()
    }

    fn holes(&self) -> usize {
        self.streams.values().map(|stream| stream.missing.len()).sum()
    }
}

/// What a quiet time began with.
#[derive(Debug)]
pub(crate) struct Window {
    since: Time,
    holes: usize,
    /// Frames sent before it, by client, stay and kind.
    sent: BTreeMap<(usize, u32, u8), u32>,
}

fn who(client: &Client, stay: &Stay) -> (usize, u32) {
    (client.index, stay.number)
}

impl World {
    fn inside(&self, room: usize) -> impl Iterator<Item = (&Client, &Stay)> {
        let room = room_id(room);
        let of_room = self.clients.iter().filter(move |client| client.room == room);
        of_room.filter_map(|client| Some((client, client.stay()?)))
    }

    /// What must hold at every moment.
    pub(crate) fn check_always(&mut self) {
        let mut wrong = Vec::new();
        self.check_epochs(&mut wrong);
        self.check_views(&mut wrong);
        self.check_registry(&mut wrong);
        for room in 0..self.settings.rooms {
            self.check_tree(room, false, &mut wrong);
            let inside = self.inside(room).count() as u32;
            if self.settings.limit > 0 && inside > self.settings.limit + self.excess() {
                wrong.push(format!("{inside} are in room {room}"));
            }
        }
        for what in wrong {
            self.checks.fail(self.now, what);
        }
    }

    /// How many more than the limit may be in a room for a while: those whom two sides
    /// of a partition let in, and those who were moved while reports were old.
    fn excess(&self) -> u32 {
        if self.settings.faults { self.settings.limit } else { 0 }
    }

    fn check_epochs(&mut self, wrong: &mut Vec<String>) {
        let at = self.at();
        for (index, node) in self.nodes.iter().enumerate() {
            for (shard, it) in node.shards.iter().enumerate() {
                for report in it.rooms.reports(at) {
                    let key = (index, node.life, shard, report.id.clone());
                    let known = self.checks.epochs.entry(key).or_insert(report.epoch);
                    if *known > report.epoch {
                        wrong.push(format!("epoch of {} fell on node {index}", report.id));
                    }
                    *known = report.epoch;
                }
            }
        }
    }

    fn check_views(&mut self, wrong: &mut Vec<String>) {
        for room in 0..self.settings.rooms {
            let mut tracks = Vec::new();
            for (client, stay) in self.inside(room) {
                let mut names = BTreeSet::new();
                for view in stay.others.values() {
                    if !names.insert(view.identity.as_str()) {
                        let twice = view.identity.as_str();
                        wrong.push(format!("p{} sees {twice} twice", client.index));
                    }
                    for track in &view.tracks {
                        tracks.push((track.uid.clone(), view.uid.clone()));
                    }
                }
            }
            for (track, of) in tracks {
                let known = self.checks.tracks.entry(track.clone()).or_insert(of.clone());
                if *known != of {
                    wrong.push(format!("{track} is of {known} and of {of}"));
                }
            }
        }
    }

    /// Nothing is written for a participant, and plans keep to the bounds of trees.
    fn check_registry(&self, wrong: &mut Vec<String>) {
        let (mut nodes, mut rooms) = (0, 0);
        for (key, entry) in self.registry.entries() {
            if let Value::Plan(plan) = &entry.value {
                let depth = plan.depths().into_iter().max().unwrap_or(0);
                let children =
                    |rank| plan.shards.iter().filter(|it| it.parent == Some(rank)).count();
                let broadest = plan.ranked().map(|(rank, _)| children(rank)).max().unwrap_or(0);
                if depth > 3 || broadest > usize::from(self.settings.fanout) {
                    wrong
                        .push(format!("a plan {depth} deep and {broadest} broad: {}", shape(plan)));
                }
            }
            match key {
                Key::Node(_) | Key::Order(_) => nodes += 1,
                Key::Spec(_) | Key::Plan(_) => rooms += 1,
                Key::Leader => {}
            }
        }
        if nodes > 2 * self.settings.nodes || rooms > 2 * self.settings.rooms {
            wrong.push(format!("the registry holds {nodes} keys of nodes, {rooms} of rooms"));
        }
    }

    /// Nobody gets a room from itself, however far around. In peace the tree is as flat
    /// as it may be.
    fn check_tree(&self, room: usize, in_peace: bool, wrong: &mut Vec<String>) {
        let id = room_id(room);
        let mut parents: BTreeMap<(usize, usize), (usize, usize)> = BTreeMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            for (shard, it) in node.shards.iter().enumerate() {
                let Some(junction) = it.cascade.relay.junction(&id) else { continue };
                let children =
                    junction.reports().filter(|(_, side, ..)| *side == Side::Down).count();
                let most = CHILDREN_MAX + BACKUP_CHILDREN_MAX;
                if children > most {
                    wrong.push(format!("node {index}/{shard} feeds {children} shards"));
                }
                if let Some(parent) = junction.active_parent().and_then(|it| self.place_of(it)) {
                    parents.insert((index, shard), parent);
                }
            }
        }
        for start in parents.keys() {
            let (mut at, mut depth) = (*start, 0);
            while let Some(parent) = parents.get(&at) {
                (at, depth) = (*parent, depth + 1);
                if depth > 64 {
                    wrong.push(format!("a loop in room {room} through node {start:?}"));
                    return;
                }
            }
            if in_peace && depth > 3 {
                wrong.push(format!("node {start:?} is {depth} links from the home"));
            }
        }
    }

    /// Why the cluster is not yet as it should be in peace; none if it is.
    pub(crate) fn unrest(&self) -> Option<String> {
        (0..self.settings.rooms).find_map(|room| self.unrest_in(room))
    }

    fn unrest_in(&self, room: usize) -> Option<String> {
        let id = room_id(room);
        let clients = self.clients.iter().filter(|client| client.room == id);
        let limit = self.settings.limit as usize;
        let inside = self.inside(room).count();
        let outside = clients.filter(|client| client.wants && client.stay().is_none());
        if let Some(missing) = outside.into_iter().find(|_| limit == 0 || inside < limit) {
            return Some(format!("p{} is not in", missing.index));
        }
        for (client, stay) in self.inside(room) {
            if let Some(why) = self.unrest_of(room, client, stay) {
                return Some(format!("p{} {why}", client.index));
            }
        }
        for (index, node) in self.nodes.iter().enumerate() {
            for (shard, it) in node.shards.iter().enumerate() {
                let Ok(list) = it.rooms.list_participants(&id) else { continue };
                let has_own =
                    self.inside(room).any(|(_, stay)| (stay.node, stay.shard) == (index, shard));
                let is_linked =
                    it.cascade.relay.junction(&id).is_some_and(|it| it.active_parent().is_some());
                if !has_own && !is_linked {
                    continue;
                }
                let seen: BTreeSet<&ParticipantUid> = list.iter().map(|view| &view.uid).collect();
                let there: BTreeSet<&ParticipantUid> =
                    self.inside(room).filter_map(|(_, stay)| stay.uid.as_ref()).collect();
                if seen != there || list.len() != there.len() {
                    let junction = it.cascade.relay.junction(&id);
                    let state: Vec<String> = junction
                        .into_iter()
                        .flat_map(|junction| junction.state().entries())
                        .map(|(key, entry)| format!("{}:{}", key.id, entry.incarnation))
                        .collect();
                    let position = junction.map(|junction| junction.state().position());
                    return Some(format!(
                        "node {index}/{shard} has {seen:?}, not {there:?}; links have {state:?} \
                         at {position:?}"
                    ));
                }
            }
        }
        let mut wrong = Vec::new();
        self.check_tree(room, true, &mut wrong);
        wrong.pop()
    }

    fn unrest_of(&self, room: usize, client: &Client, stay: &Stay) -> Option<String> {
        let wanted =
            usize::from(client.may_publish) + usize::from(client.may_publish && client.video);
        if stay.tracks.len() != wanted {
            return Some(format!("publishes {} of {wanted} tracks", stay.tracks.len()));
        }
        let others = self.inside(room).filter(|(other, _)| other.index != client.index);
        let mut count = 0;
        for (other, its) in others {
            count += 1;
            let Some(view) = its.uid.as_ref().and_then(|uid| stay.others.get(uid)) else {
                return Some(format!("does not see p{}", other.index));
            };
            if view.identity != other.identity || view.metadata != other.metadata {
                return Some(format!("sees p{} with {:?}", other.index, view.metadata));
            }
            let seen: BTreeSet<&TrackUid> = view.tracks.iter().map(|track| &track.uid).collect();
            let there: BTreeSet<&TrackUid> = its.tracks.values().collect();
            if seen != there {
                return Some(format!("sees tracks {seen:?} of p{}, not {there:?}", other.index));
            }
            if view.tracks.iter().any(|track| track.muted != other.muted) {
                return Some(format!("has p{} muted wrong", other.index));
            }
            for kind in 0..its.tracks.len() as u8 {
                let last = self.checks.last_frame(who(client, stay), who(other, its), kind);
                let late = last.is_none_or(|last| self.now.since(last) > QUIET_MAX);
                if !other.muted && late {
                    let node = (stay.node, stay.shard, its.node, its.shard);
                    return Some(format!("gets no kind {kind} of p{} {node:?}", other.index));
                }
            }
        }
        (stay.others.len() != count)
            .then(|| format!("sees {} others, not {count}", stay.others.len()))
    }

    /// From here on everything is to arrive.
    pub(crate) fn open_window(&mut self) -> Window {
        let mut sent = BTreeMap::new();
        for room in 0..self.settings.rooms {
            for (client, stay) in self.inside(room) {
                for sender in stay.senders.values() {
                    sent.insert((client.index, stay.number, sender.kind()), sender.frames);
                }
            }
        }
        self.checks.window = Some((self.now, BTreeMap::new()));
        for client in 0..self.clients.len() {
            self.speak(client);
            self.speak(client);
        }
        Window { since: self.now, holes: self.checks.holes(), sent }
    }

    /// Everybody got every frame and every message since, once and without a hole.
    pub(crate) fn close_window(&mut self, window: &Window) {
        let mut wrong = Vec::new();
        let holes = self.checks.holes();
        if holes > window.holes {
            wrong.push(format!("{} numbers never came", holes - window.holes));
        }
        let Some((_, got)) = self.checks.window.take() else { return };
        for room in 0..self.settings.rooms {
            for (client, stay) in self.inside(room) {
                for (other, its) in self.inside(room) {
                    if client.index == other.index {
                        continue;
                    }
                    let (to, from) = (who(client, stay), who(other, its));
                    for sender in its.senders.values() {
                        let kind = sender.kind();
                        let Some(first) = window.sent.get(&(other.index, its.number, kind)) else {
                            continue;
                        };
                        let last = sender.frames.saturating_sub(UNDER_WAY);
                        let seen = got.get(&(to, from, kind));
                        let lost = (*first..last)
                            .filter(|number| seen.is_none_or(|seen| !seen.contains(number)));
                        let lost = lost.count();
                        if lost > 0 && !other.muted {
                            wrong.push(format!(
                                "{to:?} lost {lost} frames of {from:?} kind {kind} in peace since {:?}",
                                window.since
                            ));
                        }
                    }
                    let heard = self.checks.last_message(to, from);
                    if heard != its.said {
                        wrong.push(format!(
                            "{to:?} got message {heard} of {} of {from:?}",
                            its.said
                        ));
                    }
                }
            }
        }
        for what in wrong {
            self.checks.fail(self.now, what);
        }
    }

    /// What is left after everybody left and every room ended.
    pub(crate) fn remains(&self) -> Option<String> {
        let rooms = self.registry.entries().keys();
        let left = rooms.filter(|key| matches!(key, Key::Spec(_) | Key::Plan(_))).count();
        if left > 0 {
            return Some(format!("{left} keys of rooms are left"));
        }
        for (index, node) in self.nodes.iter().enumerate() {
            for (shard, it) in node.shards.iter().enumerate() {
                let people = it.rooms.participant_count();
                let subscriptions = it.sfu.subscription_count();
                let rooms = it.rooms.reports(self.at()).len();
                let links = it.cascade.relay.reports().len();
                if people + subscriptions + rooms + links > 0 {
                    return Some(format!(
                        "node {index}/{shard} has {people} people, {subscriptions} subscriptions, \
                         {rooms} rooms, {links} links left"
                    ));
                }
            }
        }
        None
    }
}
