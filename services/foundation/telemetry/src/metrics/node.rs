//! What a media node counts. The counters of the packet path are plain integers
//! there and are told here once a second.

use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use super::family::{Family, Registrar, Total, label_set};

const LOSS_BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];
/// In seconds.
const JITTER_BUCKETS: [f64; 9] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25];
/// In seconds.
const RTT_BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0];
/// In seconds; one turn of a shard's loop.
const LOOP_BUCKETS: [f64; 9] = [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25];

/// In seconds; one relay link, within a process up to around the world.
const RELAY_BUCKETS: [f64; 10] =
    [0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25];

label_set! {
    /// Which way media went.
    MediaDirection ["direction"] {
        /// From publishers.
        In => ["in"],
        /// To subscribers.
        Out => ["out"],
    }
}

label_set! {
    /// Sound or pictures.
    TrackKind ["kind"] {
        /// Sound.
        Audio => ["audio"],
        /// Pictures.
        Video => ["video"],
    }
}

label_set! {
    /// How media reaches the node.
    TransportProtocol ["protocol"] {
        /// UDP.
        Udp => ["udp"],
        /// TCP.
        Tcp => ["tcp"],
    }
}

label_set! {
    /// Why a packet of media was dropped.
    DropReason ["reason"] {
        /// Not RTP or RTCP.
        Malformed => ["malformed"],
        /// Of no known publication.
        UnknownStream => ["unknown_stream"],
        /// With a payload type that was not negotiated.
        UnknownPayloadType => ["unknown_payload_type"],
        /// No place to learn another SSRC.
        TooManyStreams => ["too_many_streams"],
        /// Arrived already.
        Duplicate => ["duplicate"],
        /// Older than what is kept.
        TooOld => ["too_old"],
        /// Longer than what is kept.
        TooLong => ["too_long"],
        /// Only padding.
        Padding => ["padding"],
        /// The track is muted.
        Muted => ["muted"],
        /// More packets at once than a track holds.
        BatchFull => ["batch_full"],
        /// The subscriber does not take the codec.
        UnsupportedCodec => ["unsupported_codec"],
        /// Not sealed with the peer's key, or replayed.
        SrtpRejected => ["srtp_rejected"],
        /// From an address that ICE has not checked.
        UncheckedPath => ["unchecked_path"],
        /// The receiver's connection could take no more.
        QueueFull => ["queue_full"],
    }
}

label_set! {
    /// Where a relay link goes.
    RelayLink ["link"] {
        /// To another shard of this process.
        InProcess => ["in_process"],
        /// To another node.
        BetweenNodes => ["between_nodes"],
    }
}

label_set! {
    /// Which way something went over a relay link, and where that link goes.
    RelayFlow ["direction", "link"] {
        /// From another shard of this process.
        InProcessIn => ["in", "in_process"],
        /// To another shard of this process.
        InProcessOut => ["out", "in_process"],
        /// From another node.
        BetweenNodesIn => ["in", "between_nodes"],
        /// To another node.
        BetweenNodesOut => ["out", "between_nodes"],
    }
}

label_set! {
    /// Why something was dropped on a relay link.
    RelayDrop ["reason"] {
        /// It cannot be read.
        Malformed => ["malformed"],
        /// Of a track that was not announced, or is no more.
        UnknownTrack => ["unknown_track"],
        /// Of a publisher that was replaced.
        StaleEpoch => ["stale_epoch"],
        /// It passed too many links, or came back to where it had been.
        Looped => ["looped"],
        /// It did not come from where the track is taken.
        WrongSource => ["wrong_source"],
        /// The link's queue had no room.
        QueueFull => ["queue_full"],
        /// The path had no room.
        Congested => ["congested"],
        /// An announcement beyond the bound of tracks.
        TooManyTracks => ["too_many_tracks"],
    }
}

label_set! {
    /// Why a packet was not sent again.
    RefusedRetransmission ["reason"] {
        /// The subscriber used up its budget.
        Budget => ["budget"],
        /// It was repeated a moment ago.
        Repeated => ["repeated"],
        /// It is not kept any more.
        Gone => ["gone"],
    }
}

label_set! {
    /// How setting up a path went.
    IceResult ["result"] {
        /// A path was found.
        Connected => ["connected"],
        /// Nothing came in time.
        TimedOut => ["timed_out"],
        /// The peer no longer consents (RFC 7675).
        ConsentLost => ["consent_lost"],
    }
}

label_set! {
    /// How a DTLS handshake went.
    DtlsResult ["result"] {
        /// Keys were made.
        Connected => ["connected"],
        /// It did not end in time.
        TimedOut => ["timed_out"],
        /// The peer's certificate is not the announced one.
        WrongFingerprint => ["wrong_fingerprint"],
        /// Any other failure.
        Failed => ["failed"],
    }
}

label_set! {
    /// What the node is doing.
    NodeLifecycle ["state"] {
        /// Not registered yet.
        Starting => ["starting"],
        /// Takes rooms.
        Serving => ["serving"],
        /// Stops, or moves its rooms away.
        Draining => ["draining"],
    }
}

/// See [`super::Metrics::node`].
#[derive(Debug)]
pub struct NodeMetrics {
    /// Rooms carried.
    pub rooms: IntGauge,
    /// Participants in them.
    pub participants: IntGauge,
    /// Published tracks.
    pub tracks: Family<TrackKind, IntGauge>,
    /// Tracks forwarded to a participant.
    pub subscriptions: IntGauge,
    /// Connected transports by the protocol of their path.
    pub transports: Family<TransportProtocol, IntGauge>,
    /// Gateways' session streams.
    pub session_streams: IntGauge,
    /// RTP packets.
    pub rtp_packets: Family<MediaDirection, Total>,
    /// Their bytes, without SRTP and UDP.
    pub rtp_bytes: Family<MediaDirection, Total>,
    /// RTCP compounds.
    pub rtcp_packets: Family<MediaDirection, Total>,
    /// Packets dropped.
    pub rtp_dropped: Family<DropReason, Total>,
    /// Sequence numbers asked for again; in from subscribers, out to publishers.
    pub nacks: Family<MediaDirection, Total>,
    /// Keyframe requests; in from subscribers, out to publishers.
    pub plis: Family<MediaDirection, Total>,
    /// Packets sent again; in from publishers where they filled a hole.
    pub rtx_packets: Family<MediaDirection, Total>,
    /// Packets asked for again in vain.
    pub retransmissions_refused: Family<RefusedRetransmission, Total>,
    /// Packets of publishers that never came.
    pub rtp_lost: Total,
    /// Late joiners given a kept keyframe.
    pub keyframes_replayed: Total,
    /// Changes of the forwarded layer.
    pub layer_switches: Total,
    /// Packets whose payload descriptor cannot be read.
    pub descriptors_unreadable: Total,
    /// Feedback beyond what is worked off.
    pub feedback_dropped: Total,
    /// Events lost because nobody fetched them.
    pub events_dropped: Total,
    /// Loss over five seconds, before repair.
    pub packet_loss: Family<MediaDirection, Histogram>,
    /// Jitter over five seconds.
    pub jitter: Family<MediaDirection, Histogram>,
    /// Round-trip time to clients.
    pub rtt: Family<MediaDirection, Histogram>,
    /// From a subscription to a video track to its first forwarded keyframe. Waits of
    /// more than 10 s, for tracks that are muted, do not count.
    pub time_to_first_frame: Histogram,
    /// Datagrams on the UDP ports.
    pub udp_datagrams: Family<MediaDirection, Total>,
    /// Datagrams the kernel dropped because we did not read them in time.
    pub udp_receive_overflow: Total,
    /// Datagrams that could not be sent.
    pub send_errors: Total,
    /// STUN for a user name that is not ours.
    pub stun_unknown_ufrag: Total,
    /// STUN with a wrong password.
    pub stun_bad_integrity: Total,
    /// Paths set up or lost.
    pub ice: Family<IceResult, IntCounter>,
    /// DTLS handshakes.
    pub dtls: Family<DtlsResult, IntCounter>,
    /// Share of its time that the busiest shard worked, 0 to 1.
    pub shard_busy: Gauge,
    /// How long a turn of a shard's loop took.
    pub shard_loop: Histogram,
    /// Relay links that carry media now.
    pub relay_links: Family<RelayLink, IntGauge>,
    /// Packets over relay links.
    pub relay_packets: Family<RelayFlow, Total>,
    /// Bytes of datagrams over relay links, QUIC's own left out.
    pub relay_bytes: Family<RelayFlow, Total>,
    /// Bytes of state messages sent over relay links.
    pub relay_message_bytes: Family<RelayLink, Total>,
    /// Datagrams that relay links lost on their way here.
    pub relay_lost: Family<RelayLink, Total>,
    /// Packets sent again over relay links.
    pub relay_repeated: Family<RelayLink, Total>,
    /// What was dropped on relay links.
    pub relay_dropped: Family<RelayDrop, Total>,
    /// Round-trip time of relay links.
    pub relay_rtt: Family<RelayLink, Histogram>,
    /// How long media takes over a relay link.
    pub relay_hop: Family<RelayLink, Histogram>,
    /// 1 for what the node is doing.
    pub state: Family<NodeLifecycle, IntGauge>,
}

impl NodeMetrics {
    /// Says what the node is doing: 1 there, 0 elsewhere.
    pub fn set_state(&self, state: NodeLifecycle) {
        use super::LabelSet as _;
        for member in NodeLifecycle::ALL {
            self.state.get(*member).set(i64::from(*member == state));
        }
    }

    pub(super) fn new(to: &Registrar) -> Self {
        Self {
            rooms: to.gauge("rooms", "Rooms that this node carries."),
            participants: to.gauge("participants", "Participants in the rooms of this node."),
            tracks: to.gauges("tracks", "Tracks published on this node."),
            subscriptions: to.gauge("subscriptions", "Tracks forwarded to a participant."),
            transports: to.gauges("transports", "Connected transports by protocol."),
            session_streams: to.gauge("session_streams", "Session streams of gateways."),
            rtp_packets: to.totals("rtp_packets_total", "RTP packets, retransmissions included."),
            rtp_bytes: to.totals("rtp_bytes_total", "Bytes of RTP packets, before encryption."),
            rtcp_packets: to.totals("rtcp_packets_total", "RTCP compounds."),
            rtp_dropped: to.totals("rtp_dropped_total", "Packets of media dropped."),
            nacks: to.totals("nack_total", "Sequence numbers asked for again."),
            plis: to.totals("pli_total", "Requests for keyframes."),
            rtx_packets: to.totals("rtx_packets_total", "Packets sent again."),
            retransmissions_refused: to.totals(
                "retransmissions_refused_total",
                "Packets that were asked for again and not sent again.",
            ),
            rtp_lost: to.total("rtp_lost_total", "Packets of publishers that never came."),
            keyframes_replayed: to
                .total("keyframes_replayed_total", "Late joiners given a kept keyframe."),
            layer_switches: to.total("layer_switches_total", "Changes of the forwarded layer."),
            descriptors_unreadable: to.total(
                "descriptors_unreadable_total",
                "Packets whose payload descriptor could not be read.",
            ),
            feedback_dropped: to
                .total("feedback_dropped_total", "Feedback beyond what is worked off."),
            events_dropped: to
                .total("events_dropped_total", "Events lost because nobody fetched them."),
            packet_loss: to.histograms(
                "packet_loss_ratio",
                "Packets lost before repair, over five seconds of a track or transport.",
                &LOSS_BUCKETS,
            ),
            jitter: to.histograms(
                "jitter_seconds",
                "Jitter between arrivals, over five seconds of a track or transport.",
                &JITTER_BUCKETS,
            ),
            rtt: to.histograms(
                "rtt_seconds",
                "Round-trip time between clients and this node.",
                &RTT_BUCKETS,
            ),
            time_to_first_frame: to.histogram(
                "time_to_first_frame_seconds",
                "From a subscription to a video track to its first forwarded keyframe.",
                &RTT_BUCKETS,
            ),
            udp_datagrams: to.totals("udp_datagrams_total", "Datagrams on the media ports."),
            udp_receive_overflow: to.total(
                "udp_receive_overflow_total",
                "Datagrams that the kernel dropped because they were not read in time.",
            ),
            send_errors: to.total("send_errors_total", "Datagrams that could not be sent."),
            stun_unknown_ufrag: to
                .total("stun_unknown_ufrag_total", "STUN for a user name that is not known."),
            stun_bad_integrity: to
                .total("stun_bad_integrity_total", "STUN with a wrong MESSAGE-INTEGRITY."),
            ice: to.counters("ice_total", "Paths set up, not set up, or lost."),
            dtls: to.counters("dtls_total", "DTLS handshakes by how they went."),
            shard_busy: to.float_gauge(
                "shard_busy_ratio",
                "Share of its time that the busiest shard worked.",
            ),
            shard_loop: to.histogram(
                "shard_loop_duration_seconds",
                "How long one turn of a shard's loop took, sampled.",
                &LOOP_BUCKETS,
            ),
            relay_links: to.gauges("relay_links", "Relay links that carry media now."),
            relay_packets: to.totals("relay_packets_total", "RTP packets over relay links."),
            relay_bytes: to
                .totals("relay_bytes_total", "Bytes of relayed datagrams, without QUIC's own."),
            relay_message_bytes: to.totals(
                "relay_message_bytes_total",
                "Bytes of state messages sent over relay links.",
            ),
            relay_lost: to
                .totals("relay_lost_total", "Relayed datagrams that did not arrive at this node."),
            relay_repeated: to
                .totals("relay_repeated_total", "Packets sent again over relay links."),
            relay_dropped: to.totals("relay_dropped_total", "What relay links dropped."),
            relay_rtt: to.histograms(
                "relay_rtt_seconds",
                "Smoothed round-trip time of each relay link, once a second.",
                &RELAY_BUCKETS,
            ),
            relay_hop: to.histograms(
                "relay_hop_seconds",
                "Smoothed time that media takes over each relay link, once a second.",
                &RELAY_BUCKETS,
            ),
            state: to.gauges("node_state", "1 for what this node is doing, else 0."),
        }
    }
}
