//! The live state of a room over its tree: entries that shards own (participants, their
//! tracks), data messages, counts. One shard, the home, orders the changes; the others
//! hold a replica that follows.
//!
//! **Rules.** An entry belongs to one shard, its owner, and carries an incarnation. Each
//! owner numbers what it asks of the home, and the home takes these numbers in order,
//! once: asking again is harmless. Where two shards claim one key the higher incarnation
//! has it, then the higher owner; the other owner sees it lost. The home numbers its
//! changes within its epoch; a replica that misses one asks for a snapshot.
//!
//! **When the home dies** the next one begins at a higher epoch with what its replica
//! held, all of it unconfirmed. Every other shard claims what it owns, whole. A claim
//! replaces all that this owner had; what nobody confirmed within
//! [`Timing::claim_grace`] is gone. So nobody is there twice (one entry a key), and no
//! ghost stays (each entry has an owner that lives), in whatever order claims come.

mod audience;
mod bucket;
mod entry;
mod home;
mod message;
mod replica;
mod room_state;
#[cfg(test)]
mod tests;

pub use audience::Audience;
pub use entry::{Change, Entry, EntryKey, EntryKind, Owner, VALUE_MAX};
pub use message::{Operation, Post, Request, StateMessage};
pub use room_state::{RoomState, StateError, StateEvent, StateOutput, Timing};
