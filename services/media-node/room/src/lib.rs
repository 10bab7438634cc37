//! headwater-room.
