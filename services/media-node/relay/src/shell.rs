//! What carries links: pipes between a shard's thread and whatever is at their other
//! end, another shard of the process or a QUIC connection to another node.

mod in_process;
mod pipe;
mod quic;

pub use in_process::Switchboard;
pub use pipe::{Inbox, Parcel, Pipe, PipeCounters, Wake};
pub use quic::{QuicConfig, QuicCounters, QuicError, QuicLinks, Wiring};

use crate::plan::Peer;

/// Opens pipes to other shards.
pub trait Dialer: Send {
    /// Opens a pipe to a shard, or begins to. `wake` is called when something comes out
    /// of it. `None` if there is no way to that shard; a way that comes to nothing later
    /// closes the pipe.
    fn dial(&mut self, peer: &Peer, wake: Wake) -> Option<Pipe>;
}
