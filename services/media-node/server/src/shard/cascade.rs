//! The relay links of a shard between its rooms and its forwarding core: what rooms
//! order of other shards, and what they hear of them.

use std::sync::Arc;
use std::time::Instant;

use headwater_model::{Identity, RoomId};
use headwater_relay::{
    Audience, Dialer, EntryKey, EntryKind, Inbox, Owner, Post, QuicLinks, RelayEvent, RoomState,
    ShardAddress, ShardRelay, ShardRelayConfig, StateError, StateEvent, Switchboard, Timing,
    TrackInfo, Wake, Wiring,
};
use headwater_room::{RelayCommand, RemoteEvent, RoomAssignment, Rooms};
use headwater_sfu::Sfu;
use tracing::{debug, info, warn};

use super::media::Media;
use crate::neighbours::{NODES_MAX, Neighbours};
use crate::wire::Part;
use crate::wire::relayed::{self, Relayed};

/// Tracks get another uid whenever their publisher joins anew, so each has one origin.
const TRACK_EPOCH: u32 = 1;

/// How a shard reaches others.
#[derive(Clone)]
pub struct RelayWiring {
    /// This shard.
    pub me: ShardAddress,
    /// Identity of this process: random, another one after each start.
    pub boot: u64,
    /// The shards of this process.
    pub switchboard: Switchboard,
    /// Other nodes. Absent where there are none.
    pub quic: Option<QuicLinks>,
    /// Where lost links are noted.
    pub neighbours: Arc<Neighbours>,
}

/// The relay links of a shard.
pub struct Cascade {
    /// Links, tracks and states of rooms.
    pub relay: ShardRelay,
    me: Owner,
    /// Somebody subscribed since links were last told what is wanted.
    pub subscribed: bool,
    neighbours: Arc<Neighbours>,
}

impl Cascade {
    /// A shard that others can reach from now on.
    pub(super) fn wired(wiring: RelayWiring, waker: headwater_net::Waker, now: Instant) -> Self {
        let RelayWiring { me, boot, switchboard, quic, neighbours } = wiring;
        let inbox = Inbox::new(Wake::new(move || waker.wake()));
        switchboard.register(me.clone(), Arc::clone(&inbox));
        let dialer = Box::new(Wiring { switchboard, quic });
        Self { neighbours, ..Self::new((me, boot), dialer, inbox, now) }
    }

    /// A shard with this process's identity that opens links by `dialer` and takes
    /// those that come into `inbox`.
    #[must_use]
    pub fn new(
        (me, boot): (ShardAddress, u64),
        dialer: Box<dyn Dialer>,
        inbox: Arc<Inbox>,
        now: Instant,
    ) -> Self {
        let owner = Owner { shard: me.tag(), boot };
        let config = ShardRelayConfig { me, boot, dialer, inbox, timing: Timing::default() };
        Self {
            relay: ShardRelay::new(config, now),
            me: owner,
            subscribed: false,
            neighbours: Arc::default(),
        }
    }

    /// Notes to which other nodes links are up.
    pub fn note_links(&self, now: Instant) {
        self.neighbours.note_links(now, self.relay.linked_nodes(NODES_MAX));
    }

    fn with_state(
        &mut self,
        room: &RoomId,
        change: impl FnOnce(&mut RoomState) -> Result<(), StateError>,
    ) {
        if let Some(Err(error)) = self.relay.with_state(room, change) {
            debug!(%error, %room, "other shards are not told");
        }
    }

    /// Takes a room's part of its plan. A room that was once shared keeps its links'
    /// state until it ends, so that it can be shared again.
    pub fn join_tree(&mut self, now: Instant, room: &RoomId, part: Part, rooms: &mut Rooms) {
        let relay = &mut self.relay;
        let known = relay.junction(room).is_some();
        let is_shared = part.is_shared() || known;
        if is_shared && !relay.set_slice(now, room, part.slice) {
            info!(%room, "part of a plan refused");
        }
        rooms.set_span(now, room, is_shared, part.seats);
    }

    /// Carries out what a room orders of other shards.
    pub fn carry_out(&mut self, now: Instant, command: RelayCommand, sfu: &mut Sfu) {
        match command {
            RelayCommand::Put { room, participant } => {
                let (key, value) =
                    (key_of(&participant.view.identity), relayed::entry(&participant));
                let incarnation = participant.incarnation;
                self.with_state(&room, |state| state.put(key, incarnation, value.into()));
            }
            RelayCommand::Remove { room, identity } => {
                self.with_state(&room, |state| state.remove(key_of(&identity)));
            }
            RelayCommand::Publish { room, track, uid, participant, publication } => {
                let epoch = TRACK_EPOCH;
                let info = TrackInfo { track: uid, participant, epoch, publication };
                if !self.relay.publish(now, &room, track, info) {
                    warn!(%room, "a track is not offered to other shards");
                }
            }
            RelayCommand::Unpublish { track } => self.relay.unpublish(now, track),
            RelayCommand::Attach { room, uid, track, transport } => {
                let (name, keys) = ((&room, &uid), (track, transport));
                if let Err(error) = self.relay.attach(now, name, keys, sfu) {
                    debug!(%error, track = %uid, "a track of another shard is not taken");
                }
            }
            RelayCommand::Detach { track } => self.relay.detach(now, track, sfu),
            RelayCommand::Send { room, message } => {
                let post = Post {
                    sender: message.sender.as_ref().map_or("", Identity::as_str).into(),
                    destinations: message
                        .destinations
                        .iter()
                        .map(|it| it.as_str().into())
                        .collect(),
                    payload: relayed::packet(&message).into(),
                };
                self.with_state(&room, |state| match message.reliable {
                    true => state.post(now, post),
                    false => state.flood(now, post),
                });
            }
            RelayCommand::SendFrame { room, track, frame } => {
                let post = nameless(relayed::frame(&track, &frame));
                self.with_state(&room, |state| state.flood(now, post));
            }
            RelayCommand::Audience { room, participants } => {
                self.with_state(&room, |state| {
                    state.set_audience(Audience::counted(participants.into()));
                    Ok(())
                });
            }
            RelayCommand::Tally { room, counts } => {
                self.with_state(&room, |state| {
                    counts.iter().for_each(|(kind, count)| state.tally(kind, *count));
                    Ok(())
                });
            }
            RelayCommand::Claim { room, identity, uid, incarnation } => {
                let post = nameless(relayed::claim(&identity, &uid, incarnation));
                self.with_state(&room, |state| state.flood(now, post));
            }
            RelayCommand::Forward(command) => {
                let (room, post) = (command.room.clone(), nameless(relayed::command(*command)));
                self.with_state(&room, |state| state.post(now, post));
            }
            RelayCommand::Close { room } => self.relay.release(now, &room, sfu),
        }
    }

    /// Tells the rooms what the links brought. `false` if there was nothing.
    pub fn pass_events(&mut self, now: Instant, rooms: &mut Rooms) -> bool {
        let mut any = false;
        while let Some((room, event)) = self.relay.poll_event() {
            any = true;
            if let Some(event) = self.remote_event(now, &room, event) {
                rooms.handle_remote(now, &room, event);
            }
        }
        any
    }

    fn remote_event(&self, now: Instant, room: &RoomId, event: RelayEvent) -> Option<RemoteEvent> {
        match event {
            RelayEvent::TrackAppeared(info) | RelayEvent::TrackRenewed(info) => {
                let TrackInfo { track: uid, publication, .. } = *info;
                Some(RemoteEvent::MediaAppeared { uid, publication })
            }
            RelayEvent::TrackGone(uid) => Some(RemoteEvent::MediaGone(uid)),
            RelayEvent::Wanted(track, encodings) => Some(RemoteEvent::Wanted { track, encodings }),
            RelayEvent::State(event) => self.state_event(room, event),
            RelayEvent::LinkUp(peer, side) => {
                self.neighbours.note_up(&peer.node);
                info!(%room, node = %peer.node, shard = %peer.shard, ?side, "relay link is up");
                None
            }
            RelayEvent::LinkEnded(peer, side, end) => {
                self.neighbours.note_end(now, &peer.node, end);
                info!(%room, node = %peer.node, shard = %peer.shard, ?side, ?end, "relay link ended");
                None
            }
            RelayEvent::Reparented { from, to } => {
                let node = |shard: Option<ShardAddress>| shard.map(|it| it.node.to_string());
                info!(%room, from = node(from), to = node(to), "the room comes from another shard");
                None
            }
        }
    }

    fn state_event(&self, room: &RoomId, event: StateEvent) -> Option<RemoteEvent> {
        let malformed = |error| debug!(%error, %room, "another shard tells what cannot be read");
        match event {
            StateEvent::Put(_, entry) if entry.owner == self.me => None,
            StateEvent::Put(key, entry) if key.kind == EntryKind::Participant => {
                let remote = relayed::entry_from(&entry.value, entry.incarnation);
                let remote = remote.map_err(malformed).ok()?;
                Some(RemoteEvent::Put(Box::new(remote)))
            }
            StateEvent::Removed(key) if key.kind == EntryKind::Participant => {
                Some(RemoteEvent::Gone(Identity::new(key.id.to_string()).ok()?))
            }
            StateEvent::Lost(key) if key.kind == EntryKind::Participant => {
                Some(RemoteEvent::Superseded(Identity::new(key.id.to_string()).ok()?))
            }
            StateEvent::Audience(audience) => {
                Some(RemoteEvent::Audience { participants: audience.participants })
            }
            StateEvent::Totals(sums) => Some(RemoteEvent::Tallied(sums)),
            StateEvent::Posted(owner, _) if owner == self.me => None,
            StateEvent::Posted(_, post) => self.posted(room, &post),
            StateEvent::Put(..) | StateEvent::Removed(_) | StateEvent::Lost(_) => None,
        }
    }

    fn posted(&self, room: &RoomId, post: &Post) -> Option<RemoteEvent> {
        let content = relayed::post_from(&post.payload, room);
        let content = content
            .map_err(|error| debug!(%error, %room, "another shard posts what cannot be read"))
            .ok()?;
        Some(match content {
            Relayed::Packet(reliable, packet) => {
                let name = |text: &Arc<str>| Identity::new(text.to_string()).ok();
                let destinations: Vec<_> = post.destinations.iter().filter_map(name).collect();
                if destinations.len() < post.destinations.len() {
                    return None;
                }
                let sender = name(&post.sender);
                RemoteEvent::Message(headwater_room::RelayedMessage {
                    sender,
                    destinations,
                    reliable,
                    packet,
                })
            }
            Relayed::Frame(track, frame) => RemoteEvent::Frame { track, frame },
            Relayed::Control(command) => RemoteEvent::Control(command),
            Relayed::Claim(identity, uid, incarnation) => {
                RemoteEvent::Claimed { identity, uid, incarnation }
            }
        })
    }
}

fn key_of(identity: &Identity) -> EntryKey {
    EntryKey::new(EntryKind::Participant, identity.as_str())
}

impl Media {
    /// Takes a room's assignment. What rooms order meanwhile is to be carried out
    /// before [`Cascade::join_tree`].
    pub fn assign(&mut self, now: Instant, room: RoomAssignment) -> bool {
        match self.rooms.assign_room(now, room) {
            Ok(()) => true,
            Err(error) => {
                info!(%error, "assignment refused");
                false
            }
        }
    }

    /// Tells the rooms what the links brought. `false` if there was nothing.
    pub fn pass_relay_events(&mut self, now: Instant) -> bool {
        self.cascade.pass_events(now, &mut self.rooms)
    }
}

fn nameless(payload: Vec<u8>) -> Post {
    Post { sender: "".into(), destinations: Vec::new(), payload: payload.into() }
}
