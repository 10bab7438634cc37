//! The LiveKit door: signalling v0 and v1 by which unmodified LiveKit SDKs join.
//!
//! [`door`] answers HTTP, [`connect`] checks what was asked, [`establish`] opens
//! a session on a node, [`session`] pumps messages through an [`interpreter`]
//! until either side has had enough. Everything but those that open and pump is pure.

mod client;
mod codec;
mod connect;
pub(crate) mod door;
mod ending;
mod establish;
mod event;
mod frame;
pub(crate) mod info;
mod interpreter;
mod join;
mod join_request;
mod leave;
mod outbox;
mod payload;
mod query;
mod rejection;
mod request;
mod session;
mod simulate;
#[cfg(test)]
mod tests;

pub use frame::{FRAME_BYTES_MAX, Frame, FrameError, Framing, decode_frame};
pub use join_request::{JOIN_REQUEST_BYTES_MAX, JoinRequestError, decode_join_request};

pub(crate) use connect::{Connect, Solo, authenticate, bare_connect, token};
pub(crate) use door::Counted;
pub(crate) use establish::{Established, Session, establish};
pub(crate) use query::Query;
pub(crate) use rejection::Rejection;
pub(crate) use simulate::ResumeTrials;
