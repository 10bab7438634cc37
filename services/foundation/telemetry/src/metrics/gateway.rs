//! What the gateway counts.

use prometheus::{Histogram, IntCounter, IntGauge};

use super::family::{Family, Registrar, label_set};

/// In seconds.
const REQUEST_BUCKETS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

label_set! {
    /// How an attempt to join went, and if badly, why.
    JoinOutcome ["result", "reason"] {
        /// The client was told that it joined.
        Joined => ["ok", "none"],
        /// It took up an older session.
        Resumed => ["ok", "resumed"],
        /// The token was not good enough.
        Unauthorized => ["refused", "token"],
        /// The request made no sense.
        BadRequest => ["refused", "bad_request"],
        /// There is no such room.
        RoomNotFound => ["refused", "room_not_found"],
        /// The room is full.
        RoomFull => ["refused", "room_full"],
        /// A limit of this gateway is reached.
        Overloaded => ["failed", "overloaded"],
        /// No node could take it.
        NoCapacity => ["failed", "no_capacity"],
        /// The control plane could not be reached.
        ControlPlane => ["failed", "control_plane"],
        /// The node could not be reached.
        Node => ["failed", "node"],
        /// It took too long.
        Timeout => ["failed", "timeout"],
        /// The client went away first.
        ClientGone => ["failed", "client_gone"],
    }
}

label_set! {
    /// Signalling that a client speaks.
    SignalProtocol ["protocol"] {
        /// LiveKit's older one, two transports.
        V0 => ["v0"],
        /// LiveKit's newer one, one transport.
        V1 => ["v1"],
        /// None: media in by one offer over HTTP.
        Whip => ["whip"],
        /// None: media out by one offer over HTTP.
        Whep => ["whep"],
    }
}

label_set! {
    /// Which way a message went.
    SignalDirection ["direction"] {
        /// From a client.
        In => ["in"],
        /// To a client.
        Out => ["out"],
    }
}

label_set! {
    /// Why a client's signalling ended.
    SessionEnd ["reason"] {
        /// The client said goodbye.
        ClientLeft => ["client_left"],
        /// Its connection broke; it may resume.
        ConnectionLost => ["connection_lost"],
        /// It did not read fast enough.
        SlowClient => ["slow_client"],
        /// It said nothing for too long.
        Silent => ["silent"],
        /// It sent what cannot be understood.
        ProtocolError => ["protocol_error"],
        /// The node ended the session: removed, room deleted, duplicate identity and the like.
        ByNode => ["by_node"],
        /// The node was lost and no other one could be had.
        NodeLost => ["node_lost"],
        /// This gateway stops.
        Shutdown => ["shutdown"],
    }
}

label_set! {
    /// How a call of the Twirp API went.
    TwirpResult ["result"] {
        /// Done.
        Ok => ["ok"],
        /// Refused for what it asked.
        Refused => ["refused"],
        /// Refused for want of a good token.
        Unauthorized => ["unauthorized"],
        /// Failed by us.
        Failed => ["failed"],
    }
}

/// See [`super::Metrics::gateway`].
#[derive(Debug)]
pub struct GatewayMetrics {
    /// Attempts to join.
    pub join_attempts: Family<JoinOutcome, IntCounter>,
    /// Open signalling connections.
    pub signal_connections: Family<SignalProtocol, IntGauge>,
    /// Signalling messages.
    pub signal_messages: Family<SignalDirection, IntCounter>,
    /// Signalling connections ended.
    pub sessions_ended: Family<SessionEnd, IntCounter>,
    /// Session streams to nodes that broke under a client.
    pub node_stream_breaks: IntCounter,
    /// Clients moved to another node after theirs was lost.
    pub failovers: IntCounter,
    /// Calls of the Twirp API.
    pub twirp_requests: Family<TwirpResult, IntCounter>,
    /// How long calls of the Twirp API took.
    pub twirp_duration: Histogram,
}

impl GatewayMetrics {
    pub(super) fn new(to: &Registrar) -> Self {
        Self {
            join_attempts: to.counters("join_attempts_total", "Attempts to join a room."),
            signal_connections: to
                .gauges("signal_connections", "Open signalling connections of clients."),
            signal_messages: to
                .counters("signal_messages_total", "Signalling messages to and from clients."),
            sessions_ended: to
                .counters("signal_sessions_ended_total", "Signalling connections that ended."),
            node_stream_breaks: to.counter(
                "node_stream_breaks_total",
                "Session streams to media nodes that broke under a client.",
            ),
            failovers: to.counter(
                "failovers_total",
                "Clients sent to another media node after theirs was lost.",
            ),
            twirp_requests: to.counters("twirp_requests_total", "Calls of the Twirp API."),
            twirp_duration: to.histogram(
                "twirp_request_duration_seconds",
                "How long calls of the Twirp API took.",
                &REQUEST_BUCKETS,
            ),
        }
    }
}
