//! The forwarding core of one shard: which packet goes to whom and how it is rewritten.
//! Sans-IO: bytes, commands and the time come in; packets, events and the next deadline
//! go out. It knows transports, tracks and subscriptions, not rooms or participants,
//! and sees only plain (decrypted) RTP and RTCP.
//!
//! Calling contract of [`Sfu`]:
//! - Commands ([`Sfu::publish`], [`Sfu::subscribe`], …) and packets ([`Sfu::handle_rtp`],
//!   [`Sfu::handle_rtcp`]) change state and send nothing.
//! - After a batch of packets, and after [`Sfu::handle_timeout`], call [`Sfu::drain`]: it
//!   hands all that is to be sent to an [`Egress`], subscriber by subscriber, so that the
//!   packets of a frame to one subscriber leave together.
//! - Then fetch events with [`Sfu::poll_event`] and the deadline with
//!   [`Sfu::poll_timeout`].
//!
//! A packet is stored once, in the ring of its encoding, and every subscriber of the
//! track reads it from there: when it is forwarded and when it is repeated. What a
//! subscriber has of its own is small: where its sequence numbers, timestamps and picture
//! ids stand against those of the publisher.
//!
//! [`Egress::rtp`] hands out a packet in three parts ([`OutgoingRtp`]): a header, the
//! start of the payload where it was rewritten, and the shared rest.

mod bandwidth;
mod clock;
mod config;
mod egress;
mod error;
mod event;
mod floor;
mod forward;
mod ingress;
mod link;
mod random;
mod relay;
mod sfu;
mod stats;
mod wheel;

pub use config::{Limits, SfuConfig};
pub use egress::{Egress, OutgoingRtp};
pub use error::SfuError;
pub use event::{Limitation, Quality, QualitySubject, SfuEvent};
pub use relay::{RELAY_SEQUENCE_MAX, RelayClock, RelayPacket};
pub use sfu::Sfu;
pub use stats::{Adaptation, Drops, Stats};

/// Encodings of one publication. Simulcast has three; the rest is room to grow.
pub const ENCODINGS_MAX: usize = 8;

/// Codecs of one publication or subscription, with profiles counted apart. Browsers
/// offer up to about twenty for video.
pub const CODECS_MAX: usize = 64;
