//! What the control plane counts.

use prometheus::{Histogram, IntCounter, IntGauge};

use super::family::{Family, Registrar, label_set};

/// In seconds; a placement is a few reads of memory and at most one write.
const PLACEMENT_BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

label_set! {
    /// What a node is doing, as the control plane sees it.
    NodeState ["state"] {
        /// Takes rooms.
        Serving => ["serving"],
        /// Takes no new rooms.
        Cordoned => ["cordoned"],
        /// Moves its rooms away.
        Draining => ["draining"],
        /// Registered, but not reached.
        Unreachable => ["unreachable"],
    }
}

label_set! {
    /// What became of a participant who wanted a place.
    PlacementResult ["result"] {
        /// Got one.
        Admitted => ["admitted"],
        /// Was asked to wait.
        Wait => ["wait"],
        /// The room is full.
        RoomFull => ["room_full"],
        /// There is no such room.
        RoomNotFound => ["room_not_found"],
        /// The registry failed.
        Failed => ["failed"],
    }
}

label_set! {
    /// Why a plan was made.
    PlanReason ["reason"] {
        /// The room had none.
        FirstUse => ["first_use"],
        /// A node of the old one is gone.
        NodeGone => ["node_gone"],
        /// A node of the old one drains.
        Drain => ["drain"],
        /// The room grew or shrank.
        Size => ["size"],
        /// A node of the old one had too much to do.
        Balance => ["balance"],
    }
}

label_set! {
    /// Why a room ended.
    RoomEnd ["reason"] {
        /// By the API.
        Deleted => ["deleted"],
        /// Nobody ever came.
        NeverUsed => ["never_used"],
        /// Everybody left.
        Empty => ["empty"],
    }
}

/// See [`super::Metrics::control_plane`].
#[derive(Debug)]
pub struct ControlPlaneMetrics {
    /// Registered nodes.
    pub nodes: Family<NodeState, IntGauge>,
    /// Rooms that exist.
    pub rooms: IntGauge,
    /// Participants, as the nodes last reported.
    pub participants: IntGauge,
    /// Participants who wanted a place.
    pub placements: Family<PlacementResult, IntCounter>,
    /// How long placements took.
    pub placement_duration: Histogram,
    /// Plans made.
    pub plans: Family<PlanReason, IntCounter>,
    /// Rooms ended.
    pub rooms_ended: Family<RoomEnd, IntCounter>,
    /// Nodes this replica holds a stream to.
    pub agent_streams: IntGauge,
    /// Streams to nodes that broke.
    pub agent_stream_breaks: IntCounter,
    /// 1 on the elected replica.
    pub elected: IntGauge,
}

impl ControlPlaneMetrics {
    pub(super) fn new(to: &Registrar) -> Self {
        Self {
            nodes: to.gauges("cluster_nodes", "Registered media nodes by what they are doing."),
            rooms: to.gauge("cluster_rooms", "Rooms that exist in the cluster."),
            participants: to.gauge(
                "cluster_participants",
                "Participants in the cluster, as the nodes last reported.",
            ),
            placements: to.counters("placements_total", "Participants who wanted a place."),
            placement_duration: to.histogram(
                "placement_duration_seconds",
                "How long it took to place a participant.",
                &PLACEMENT_BUCKETS,
            ),
            plans: to.counters("plans_total", "Room plans made."),
            rooms_ended: to.counters("rooms_ended_total", "Rooms ended."),
            agent_streams: to
                .gauge("agent_streams", "Media nodes that this replica holds a stream to."),
            agent_stream_breaks: to
                .counter("agent_stream_breaks_total", "Streams to media nodes that broke."),
            elected: to.gauge("elected", "1 if this replica is the elected one, else 0."),
        }
    }
}
