//! Counters of the forwarding core: plain integers that only rise. Whoever publishes
//! them does so once a second.

/// What happened since the core was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// RTP packets received.
    pub packets_in: u64,
    /// Their bytes, headers included.
    pub bytes_in: u64,
    /// RTP packets handed out, retransmissions included.
    pub packets_out: u64,
    /// Their bytes, headers included.
    pub bytes_out: u64,
    /// RTCP compounds received.
    pub rtcp_in: u64,
    /// RTCP compounds handed out.
    pub rtcp_out: u64,
    /// Sequence numbers asked for again from publishers.
    pub nacks_out: u64,
    /// Sequence numbers subscribers asked for again.
    pub nacks_in: u64,
    /// Packets repeated to subscribers.
    pub retransmissions_out: u64,
    /// Packets that a publisher repeated and that were missing.
    pub repaired: u64,
    /// Packets of sound that were missing and were found in the redundancy of a later one.
    pub recovered: u64,
    /// Sequence numbers given up after all requests.
    pub lost: u64,
    /// Keyframe requests sent to publishers.
    pub keyframe_requests_out: u64,
    /// Keyframe requests of subscribers.
    pub keyframe_requests_in: u64,
    /// Late joiners that were given the last keyframe from the ring.
    pub keyframes_replayed: u64,
    /// Changes of the forwarded encoding or spatial layer.
    pub layer_switches: u64,
    /// How subscribers' networks are adapted to.
    pub adaptation: Adaptation,
    /// Events that were lost because nobody fetched them.
    pub events_dropped: u64,
    /// What was dropped, by reason.
    pub drops: Drops,
}

/// How subscribers' networks are adapted to. The first three are states, not counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Adaptation {
    /// Transports whose bandwidth is estimated now.
    pub estimated_transports: u64,
    /// Transports that get less than they want for lack of bandwidth, now.
    pub limited_transports: u64,
    /// Subscriptions that are paused for lack of bandwidth, now.
    pub paused_subscriptions: u64,
    /// Transport-wide feedback packets taken.
    pub feedback_in: u64,
    /// Times an estimate fell.
    pub estimate_cuts: u64,
    /// Times bandwidth was divided among a transport's tracks.
    pub allocations: u64,
    /// Probes sent.
    pub probes: u64,
    /// Packets sent only to probe.
    pub padding_packets: u64,
    /// Their bytes, headers included.
    pub padding_bytes: u64,
}

/// What was dropped, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drops {
    /// Not RTP or RTCP.
    pub malformed: u64,
    /// RTP of no known publication.
    pub unknown_stream: u64,
    /// RTP with a payload type that was not negotiated.
    pub unknown_payload_type: u64,
    /// No place to learn another SSRC.
    pub too_many_streams: u64,
    /// Arrived already.
    pub duplicate: u64,
    /// Older than the ring.
    pub too_old: u64,
    /// Longer than a slot of the ring.
    pub too_long: u64,
    /// Only padding.
    pub padding: u64,
    /// The track is muted, or not among the loudest of its room.
    pub muted: u64,
    /// More packets in one batch than a track holds.
    pub batch_full: u64,
    /// Forwarded to nobody because the subscriber does not take the codec; counted
    /// per packet and subscriber.
    pub unsupported_codec: u64,
    /// Payload or dependency descriptor that cannot be read; the packet is forwarded
    /// where no layer has to be chosen.
    pub unreadable_descriptor: u64,
    /// Retransmissions refused because a subscriber used up its budget: its share of what
    /// was forwarded, or of its estimate.
    pub retransmission_budget: u64,
    /// Retransmissions refused because the packet was repeated a moment ago, or too often.
    pub retransmission_repeated: u64,
    /// Retransmissions refused because the packet has left the ring.
    pub retransmission_gone: u64,
    /// RTCP feedback beyond what is worked off between two drains.
    pub feedback_flood: u64,
}
