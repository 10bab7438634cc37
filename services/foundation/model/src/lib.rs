//! The words of Headwater as plain types: ids, units, grants and the vocabulary
//! of media. No I/O, no clock, no wire or storage format.
//!
//! [`ids`] names things, [`grants`] says what a bearer may do, [`media`] is what
//! SDP negotiation, rooms and the forwarding core say to each other, [`units`]
//! keeps bits and bytes apart.

pub mod grants;
pub mod ids;
pub mod media;
pub mod units;

pub use grants::{Grants, Permission};
pub use ids::{Epoch, Identity, NodeId, ParticipantUid, RoomId, RoomUid, ShardIndex, TrackUid};
pub use units::Bitrate;
