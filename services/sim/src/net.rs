//! The network: links in one direction with delay, jitter, loss, repetition, a rate with a
//! bounded queue in front of it, and a schedule by which all that changes.

mod link;
mod loss;

use std::time::Duration;

pub use link::{Delivery, Link, LinkStats};
pub use loss::{Loss, LossState};

/// Whether jitter lets a packet overtake another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// A late packet holds up those behind it, as a radio link or a router's queue does.
    #[default]
    Kept,
    /// Each packet is late by itself, as on paths with several ways.
    Mixed,
}

/// What one direction of a way does to packets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weather {
    /// The least time on the way.
    pub delay: Duration,
    /// Each packet is late by an even spread from 0 to twice this.
    pub jitter: Duration,
    /// Whether jitter lets packets overtake.
    pub order: Order,
    /// What is lost on the way.
    pub loss: Loss,
    /// Part of the packets that come twice, 0 to 1.
    pub duplicates: f64,
    /// Bits per second, IP headers included; `None` is without limit.
    pub rate: Option<u64>,
    /// The queue in front of the rate: what does not fit is dropped at its tail.
    pub queue: QueueLimit,
}

/// The bounds of a queue; the narrower one holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimit {
    /// Bytes in it at most.
    pub bytes: usize,
    /// What it holds takes no longer than this to send.
    pub time: Duration,
}

impl Default for QueueLimit {
    fn default() -> Self {
        Self { bytes: 1_000_000, time: Duration::from_millis(300) }
    }
}

impl Default for Weather {
    fn default() -> Self {
        Self::CLEAR
    }
}

impl Weather {
    /// Nothing is lost or late.
    pub const CLEAR: Self = Self {
        delay: Duration::from_millis(1),
        jitter: Duration::ZERO,
        order: Order::Kept,
        loss: Loss::None,
        duplicates: 0.0,
        rate: None,
        queue: QueueLimit { bytes: 1_000_000, time: Duration::from_millis(300) },
    };

    /// With another delay in one direction, in milliseconds.
    #[must_use]
    pub const fn delay(mut self, millis: u64) -> Self {
        self.delay = Duration::from_millis(millis);
        self
    }

    /// With jitter, in milliseconds.
    #[must_use]
    pub const fn jitter(mut self, millis: u64, order: Order) -> Self {
        self.jitter = Duration::from_millis(millis);
        self.order = order;
        self
    }

    /// With losses.
    #[must_use]
    pub const fn loss(mut self, loss: Loss) -> Self {
        self.loss = loss;
        self
    }

    /// With each packet lost by itself, in percent.
    #[must_use]
    pub fn loss_percent(self, percent: f64) -> Self {
        self.loss(Loss::Even(percent / 100.0))
    }

    /// With a limit, in bits per second.
    #[must_use]
    pub const fn rate(mut self, bits_per_second: u64) -> Self {
        self.rate = Some(bits_per_second);
        self
    }

    /// With a bound of the queue, in milliseconds.
    #[must_use]
    pub const fn queue(mut self, millis: u64) -> Self {
        self.queue.time = Duration::from_millis(millis);
        self
    }
}

/// The two directions between a peer and its node.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Access {
    /// From the peer to the node.
    pub up: Weather,
    /// From the node to the peer.
    pub down: Weather,
}

impl Access {
    /// The same in both directions.
    #[must_use]
    pub const fn both(weather: Weather) -> Self {
        Self { up: weather, down: weather }
    }

    /// Only the way from the node is other than clear; the delay holds for both.
    #[must_use]
    pub const fn down(weather: Weather) -> Self {
        let mut up = Weather::CLEAR;
        up.delay = weather.delay;
        Self { up, down: weather }
    }
}
