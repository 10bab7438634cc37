//! What rooms ask of the transports and the forwarding core of their shard, and
//! what they are told by them.

use std::sync::Arc;
use std::time::Duration;

use headwater_model::Bitrate;
use headwater_model::media::{
    Codec, Prominence, Publication, Subscription, SubscriptionKey, SubscriptionTarget, TrackKey,
    TransportKey,
};
use headwater_sdp::{IceCredentials, RemoteTransport};

/// A data channel of a transport: the SCTP stream id, or any other number that
/// the shell gives it for as long as it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelKey(pub u32);

/// One thing the shell does for a room. A command for something that is gone
/// meanwhile is ignored.
#[derive(Debug, Clone, PartialEq)]
pub enum MediaCommand {
    /// Make a transport and answer STUN with these credentials.
    OpenTransport {
        /// Its key; never reused.
        transport: TransportKey,
        /// The node's credentials; the user fragment is unique on the shard.
        credentials: IceCredentials,
    },
    /// Take the peer's side; again after an ICE restart.
    SetRemote {
        /// The transport.
        transport: TransportKey,
        /// The peer's side.
        remote: RemoteTransport,
    },
    /// Answer these credentials too, and only these once they are used.
    RestartIce {
        /// The transport.
        transport: TransportKey,
        /// The new credentials.
        credentials: IceCredentials,
    },
    /// End a transport with all it carries.
    CloseTransport {
        /// The transport.
        transport: TransportKey,
    },
    /// Open a data channel, now or as soon as SCTP is up.
    OpenChannel {
        /// The transport.
        transport: TransportKey,
        /// Label.
        label: &'static str,
        /// In order and repeated, or neither.
        reliability: ChannelReliability,
    },
    /// Send a data message.
    Send {
        /// The transport.
        transport: TransportKey,
        /// The channel.
        channel: ChannelKey,
        /// The message, always binary.
        payload: Arc<[u8]>,
    },
    /// Take media of a track; again when it was negotiated anew.
    Publish {
        /// The publisher's transport.
        transport: TransportKey,
        /// The track.
        track: TrackKey,
        /// What was negotiated.
        publication: Publication,
    },
    /// The track is over.
    Unpublish {
        /// The track.
        track: TrackKey,
    },
    /// The track's publisher pauses it, or goes on.
    SetMuted {
        /// The track.
        track: TrackKey,
        /// New state.
        muted: bool,
    },
    /// Count a published audio track among a room's microphones, of which the loudest
    /// are forwarded.
    JoinFloor {
        /// The track.
        track: TrackKey,
        /// The room, by a number that no other room of the shard ever has.
        floor: u64,
        /// How many are forwarded at once.
        seats: u16,
    },
    /// Forward a track; again when it was negotiated anew.
    Subscribe {
        /// The subscription.
        subscription: SubscriptionKey,
        /// The track.
        track: TrackKey,
        /// The subscriber's transport.
        transport: TransportKey,
        /// What was negotiated.
        parameters: Subscription,
    },
    /// Forward it no more.
    Unsubscribe {
        /// The subscription.
        subscription: SubscriptionKey,
    },
    /// Forward at most this.
    SetTarget {
        /// The subscription.
        subscription: SubscriptionKey,
        /// What.
        target: SubscriptionTarget,
    },
    /// What comes first when there is not enough bandwidth for all.
    SetProminence {
        /// The subscription.
        subscription: SubscriptionKey,
        /// How much its subscriber cares for it.
        prominence: Prominence,
    },
    /// Pretend that a transport can carry only so much down.
    LimitDownlink {
        /// The transport.
        transport: TransportKey,
        /// The limit; none ends it.
        limit: Option<Bitrate>,
    },
}

/// How a data channel delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelReliability {
    /// In order, repeated until it arrives.
    Reliable,
    /// In any order, sent once.
    Lossy,
}

/// One thing that happened to a transport or a track. Those of unknown keys are
/// ignored: they crossed a command.
#[derive(Debug, Clone, PartialEq)]
pub enum MediaEvent {
    /// Media and data can flow.
    TransportConnected {
        /// The transport.
        transport: TransportKey,
    },
    /// Nothing flows: no consent, or the peer closed.
    TransportFailed {
        /// The transport.
        transport: TransportKey,
        /// Whether an ICE restart can bring it back.
        recoverable: bool,
    },
    /// A data channel is open, whoever opened it.
    ChannelOpen {
        /// The transport.
        transport: TransportKey,
        /// Its key.
        channel: ChannelKey,
        /// Its label.
        label: String,
        /// How it delivers.
        reliability: ChannelReliability,
    },
    /// A data channel is closed.
    ChannelClosed {
        /// The transport.
        transport: TransportKey,
        /// Its key.
        channel: ChannelKey,
    },
    /// A data message came.
    ChannelMessage {
        /// The transport.
        transport: TransportKey,
        /// The channel.
        channel: ChannelKey,
        /// The message.
        payload: Vec<u8>,
    },
    /// Media of a track arrives.
    TrackStarted {
        /// The track.
        track: TrackKey,
        /// Its codec.
        codec: Codec,
    },
    /// How loud a track is.
    SpeakerLevel {
        /// The track.
        track: TrackKey,
        /// 0 to 1.
        level: f32,
        /// Somebody speaks.
        active: bool,
    },
    /// How well media travelled lately.
    Quality {
        /// Whose.
        subject: QualitySubject,
        /// Part of the packets that were lost, 0 to 1.
        loss_ratio: f32,
        /// Round-trip time, if known.
        rtt: Option<Duration>,
        /// Jitter.
        jitter: Duration,
        /// What lack of bandwidth takes from a subscriber.
        limitation: Limitation,
    },
    /// A track is sent no more for lack of bandwidth, or again.
    Paused {
        /// The subscriber's transport.
        transport: TransportKey,
        /// The track.
        track: TrackKey,
        /// New state.
        paused: bool,
    },
}

/// What lack of bandwidth takes from a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Limitation {
    /// Nothing.
    #[default]
    None,
    /// Layers it would have.
    Reduced,
    /// Whole tracks.
    Paused,
}

/// Whose quality it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QualitySubject {
    /// The way from a publisher to us.
    Track(TrackKey),
    /// The way from us to a subscriber.
    Transport(TransportKey),
}
