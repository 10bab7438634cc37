//! Why a command to the forwarding core was refused.

use headwater_model::media::{SubscriptionKey, TrackKey, TransportKey};
use thiserror::Error;

/// Why a command was refused. Nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SfuError {
    /// There is no such transport.
    #[error("transport {0:?} is not known")]
    UnknownTransport(TransportKey),
    /// There is no such track.
    #[error("track {0:?} is not known")]
    UnknownTrack(TrackKey),
    /// There is no such subscription.
    #[error("subscription {0:?} is not known")]
    UnknownSubscription(SubscriptionKey),
    /// The transport exists already.
    #[error("transport {0:?} exists already")]
    TransportExists(TransportKey),
    /// The track is published by another transport.
    #[error("track {0:?} is published by another transport")]
    ForeignTrack(TrackKey),
    /// The subscription exists for another track or transport.
    #[error("subscription {0:?} exists for another track or transport")]
    ForeignSubscription(SubscriptionKey),
    /// The SSRC is in use on this transport already.
    #[error("SSRC {ssrc} is in use on transport {transport:?}")]
    SsrcInUse {
        /// The subscriber's transport.
        transport: TransportKey,
        /// The SSRC.
        ssrc: u32,
    },
    /// A publication without encodings, or with more than [`crate::ENCODINGS_MAX`];
    /// or more codecs than [`crate::CODECS_MAX`].
    #[error("publication or subscription is empty or too long")]
    Shape,
    /// A bound of [`crate::Limits`] is reached.
    #[error("limit of {what} is reached")]
    Full {
        /// Which.
        what: &'static str,
    },
}
