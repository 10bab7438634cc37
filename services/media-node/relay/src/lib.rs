//! Relay links: how one room spans the shards of a node and the nodes of a cluster.
//! Sans-IO cores ([`Junction`] for a room on a shard, [`Link`], [`RoomState`]) and thin
//! shells that carry them ([`ShardRelay`] for a shard's thread, [`Pipe`] and
//! [`Switchboard`] within a process, [`QuicLinks`] between nodes).
//!
//! # How a node uses it
//!
//! Once a process: make a [`Switchboard`]; if it has a relay address, start
//! [`QuicLinks`] with it inside the tokio runtime. Once a shard: make an [`Inbox`] whose
//! [`Wake`] wakes the shard's thread, register it at the switchboard, and give the
//! shard a [`ShardRelay`] whose dialer is a [`Wiring`] of the two.
//!
//! The shard's thread owns its `ShardRelay` beside its [`headwater_sfu::Sfu`]. In each
//! wake-up, in this order:
//!
//! 1. Receive what clients sent ([`headwater_sfu::Sfu::handle_rtp`], …), and what
//!    shards sent: [`ShardRelay::receive`].
//! 2. Commands. A plan slice of the control plane goes to [`ShardRelay::set_slice`], the
//!    end of a room to [`ShardRelay::release`]. Where a room publishes a track, call
//!    `Sfu::publish` and [`ShardRelay::publish`]; where it takes it back,
//!    [`ShardRelay::unpublish`].
//! 3. [`ShardRelay::handle_timeout`], then `Sfu::handle_timeout`.
//! 4. [`ShardRelay::poll_event`] until it is empty. [`RelayEvent::TrackAppeared`]: the
//!    room makes a track of it, with a fresh track key and one transport key for each
//!    remote publisher, and calls [`ShardRelay::attach`]; from then on participants
//!    subscribe to it like to any other. [`RelayEvent::TrackRenewed`]: detach and attach
//!    under a fresh track key. [`RelayEvent::TrackGone`]: [`ShardRelay::detach`].
//!    [`RelayEvent::State`]: what other shards say of participants, tracks and data.
//! 5. [`ShardRelay::settle`]: the forwarding core hears what links want.
//! 6. `Sfu::drain` with an egress that passes [`headwater_sfu::Egress::relay`] to
//!    [`ShardRelay::relay`], `relay_clock` to [`ShardRelay::relay_clock`], and `rtcp`
//!    first to [`ShardRelay::rtcp`], which says whether it was meant.
//! 7. [`ShardRelay::settle`] again: what the drain made leaves, one lock for each link.
//!
//! It sleeps no longer than until [`ShardRelay::poll_timeout`]. What the room says of its
//! own participants goes to [`ShardRelay::with_state`]: [`RoomState::put`] with the
//! participant's view as value and a number that rises with each of its stays as
//! incarnation, [`RoomState::remove`] when it leaves, [`RoomState::post`] and
//! [`RoomState::flood`] for data messages. Rooms above some hundred viewers put only
//! those on stage, and count the others with [`RoomState::set_audience`].

mod codec;
mod frame;
mod junction;
mod link;
mod message;
mod plan;
mod shard;
mod shell;
mod state;
mod totals;
mod track;

pub use codec::Malformed;
pub use frame::{FRAME_HEAD, FRAME_VERSION, Frame, FrameTag, HOPS_MAX, TRAIN_HEAD, Train};
pub use junction::{
    Arrival, Junction, JunctionConfig, JunctionOutput, MediaOrder, RelayEvent, TRACKS_MAX,
};
pub use link::{End, HEARTBEAT, Link, LinkDrops, LinkKey, LinkStats, Phase, SILENCE_MAX, Side};
pub use message::{Hello, MESSAGE_HEAD, MESSAGE_MAX, Message, PROTOCOL_VERSION, Refusal, Repeat};
pub use plan::{BACKUP_CHILDREN_MAX, CHILDREN_MAX, Peer, PlanSlice, ShardAddress, ShardTag};
pub use shard::{AttachError, LinkReport, ShardRelay, ShardRelayConfig};
pub use shell::{
    Dialer, Inbox, Parcel, Pipe, PipeCounters, QuicConfig, QuicCounters, QuicError, QuicLinks,
    Switchboard, Wake, Wiring,
};
pub use state::{
    Audience, Change, Entry, EntryKey, EntryKind, Operation, Owner, Post, Request, RoomState,
    StateError, StateEvent, StateMessage, StateOutput, Timing,
};
pub use totals::{LinkTotals, RelayTotals};
pub use track::{Path, TrackInfo};
