//! What a forwarding core is told when it is made, and its bounds.

use std::time::Duration;

/// Settings of one forwarding core.
#[derive(Debug, Clone)]
pub struct SfuConfig {
    /// Wall clock (time since the UNIX epoch) at the `now` that is given to
    /// [`crate::Sfu::new`]. Only sender reports show it; a wrong one harms nothing.
    pub wall_clock: Duration,
    /// How much of everything there may be.
    pub limits: Limits,
}

/// How much of everything a forwarding core takes. What is above is refused with
/// [`crate::SfuError::Full`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Transports of the shard.
    pub transports: usize,
    /// Published tracks of the shard. Each video encoding costs up to 1.6 MB of ring
    /// once media flows, each audio track 0.1 MB.
    pub tracks: usize,
    /// Tracks one transport may publish.
    pub tracks_per_transport: usize,
    /// Subscriptions of the shard. Each costs about 5 KB.
    pub subscriptions: usize,
    /// Subscriptions of one transport.
    pub subscriptions_per_transport: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transports: 16_384,
            tracks: 4_096,
            tracks_per_transport: 32,
            subscriptions: 131_072,
            subscriptions_per_transport: 1_024,
        }
    }
}

impl Default for SfuConfig {
    fn default() -> Self {
        Self { wall_clock: Duration::ZERO, limits: Limits::default() }
    }
}
