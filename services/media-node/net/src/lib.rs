//! Sockets of a shard: batched UDP with segmentation offload, RFC 4571 framing over
//! TCP, readiness, and what a thread asks of the kernel. The only crate with `unsafe`,
//! all of it in `sys`; it knows nothing of media.
//!
//! How a shard uses it, once per wake-up:
//! 1. [`Poller::wait`] until a socket is ready, a [`Waker`] was used or a deadline came.
//! 2. [`RecvBatch::receive`], then [`RecvBatch::datagrams`]; and [`FramedTcp::handle_ready`]
//!    for each ready token that [`FramedTcp::owns`].
//! 3. [`SendBatch::begin`] and [`SendBatch::commit`] for each datagram to send,
//!    [`FramedTcp::send`] for those that go over TCP.
//! 4. [`SendBatch::flush`] and [`FramedTcp::flush`].
//!
//! Nothing blocks but [`Poller::wait`]. Linux only.

#[cfg(not(target_os = "linux"))]
compile_error!("headwater-net uses epoll, recvmmsg and sendmmsg: it runs on Linux only");

mod address;
mod framing;
mod poller;
mod recv;
mod send;
mod sys;
mod tcp;
pub mod thread;
mod udp;

pub use framing::{FRAME_LEN_MAX, FrameTooLong, Frames};
pub use poller::{Interest, Poller, Ready, ReadyList, Token, Waker};
pub use recv::{Datagrams, RecvBatch, RecvCounters};
pub use send::{MAX_DATAGRAM_LEN, Oversize, SendBatch, SendCounters};
pub use tcp::{CloseReason, FramedTcp, Priority, SendOutcome, TcpCounters, TcpEvent, TcpOptions};
pub use udp::{UdpOptions, UdpSocket};
