//! What the forwarding core tells its owner.

use std::time::Duration;

use headwater_model::media::{Codec, SubscriptionKey, TrackKey, TransportKey};

/// Something happened that the room may want to know.
#[derive(Debug, Clone, PartialEq)]
pub enum SfuEvent {
    /// Media of a track arrives: its first packet, or the first of another encoding
    /// or codec.
    TrackStarted {
        /// The track.
        track: TrackKey,
        /// Codec of that packet.
        codec: Codec,
        /// Encodings seen so far: bit `n` is encoding `n` of the publication.
        encodings_seen: u8,
    },
    /// How loud a track is. Only changes are told; a track is silent until then.
    SpeakerLevel {
        /// The track.
        track: TrackKey,
        /// 0 to 1 in steps of an eighth.
        level: f32,
        /// Somebody speaks.
        active: bool,
    },
    /// How well media travelled in the last five seconds. Nothing is told of what was
    /// silent in that time.
    Quality(Quality),
    /// A subscription is paused for lack of bandwidth, or goes on.
    Paused {
        /// The subscription.
        subscription: SubscriptionKey,
        /// Its track.
        track: TrackKey,
        /// The subscriber's transport.
        transport: TransportKey,
        /// New state.
        paused: bool,
    },
    /// Another spatial layer is forwarded from here on.
    LayerForwarded {
        /// The subscription.
        subscription: SubscriptionKey,
        /// Spatial layer, 0 is the smallest.
        spatial: u8,
    },
}

/// Whose quality it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QualitySubject {
    /// The way from a publisher to us.
    Published(TrackKey),
    /// The way from us to a subscriber, over all its subscriptions.
    Subscriber(TransportKey),
}

/// How well media travelled in the last five seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// Whose.
    pub subject: QualitySubject,
    /// Packets that arrived, or were sent, in this time; never 0.
    pub packets: u64,
    /// Part of the packets that were lost on the way before any repair, 0 to 1.
    pub loss_ratio: f32,
    /// Round-trip time, if known.
    pub rtt: Option<Duration>,
    /// Jitter between arrivals (RFC 3550 section 6.4.1); the worst stream's.
    pub jitter: Duration,
    /// What lack of bandwidth takes from a subscriber now.
    pub limitation: Limitation,
}

/// What lack of bandwidth takes from a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Limitation {
    /// Nothing.
    #[default]
    None,
    /// Layers it would have.
    Reduced,
    /// Whole tracks.
    Paused,
}
