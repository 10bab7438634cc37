//! What a shard's rooms are told at start: addresses, certificate and bounds.

use std::time::Duration;

use headwater_sdp::Candidate;

/// Settings of all rooms of a shard.
#[derive(Debug, Clone)]
pub struct RoomsConfig {
    /// Where clients reach the shard, best first.
    pub candidates: Vec<Candidate>,
    /// SHA-256 fingerprint of the node's certificate: hex bytes with colons.
    pub fingerprint: String,
    /// Bounds.
    pub limits: Limits,
    /// How long things may take.
    pub timers: Timers,
}

/// Bounds, each with what happens at it. The defaults are those that LiveKit's
/// clients expect of a server, where they expect any.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Participants of all rooms together, those without a session included;
    /// a join beyond is refused as if the room were full.
    pub participants: usize,
    /// Bytes of a participant's metadata; more is refused.
    pub metadata_bytes: usize,
    /// Bytes of all keys and values of a participant's attributes; more is refused.
    pub attributes_bytes: usize,
    /// Bytes of a name, of a participant or a track; more is refused.
    pub name_bytes: usize,
    /// Bytes of an opaque payload of a door; more is refused.
    pub door_payload_bytes: usize,
    /// Tracks announced and not negotiated yet, of one participant; more are refused.
    pub pending_tracks: usize,
    /// Requests that wait for an older track of the same client id; more are refused.
    pub queued_tracks: usize,
    /// Tracks one participant publishes; more are refused.
    pub published_tracks: usize,
    /// Data tracks one participant publishes; more are refused.
    pub data_tracks: usize,
    /// Tracks forwarded to one participant; further ones are not subscribed.
    pub subscriptions: usize,
    /// Wishes about tracks one participant may express; further ones are ignored.
    pub wishes: usize,
    /// Bytes of a data message; longer ones are dropped.
    pub message_bytes: usize,
    /// Data messages kept to be repeated after a resume: bytes per room; the
    /// oldest go first.
    pub replay_bytes: usize,
    /// Data messages kept for a participant whose channel is not open yet:
    /// bytes; further ones are dropped.
    pub early_bytes: usize,
    /// Participants remembered as having left while a session was detached;
    /// beyond, the resume is refused and the client starts over.
    pub departed: usize,
    /// Participants up to which every change is told at once. In larger rooms
    /// changes of those who publish nothing are told together.
    pub prompt_participants: usize,
    /// Participants who may not publish that are shown to everybody; further ones are
    /// the room's audience, which is counted and not shown.
    pub listed_viewers: usize,
    /// Microphones of a room that are forwarded at once, the loudest ones; the others
    /// are not heard until they are among them. 0 forwards all.
    pub audible_microphones: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            participants: 10_000,
            metadata_bytes: 512 * 1024,
            attributes_bytes: 64 * 1024,
            name_bytes: 256,
            door_payload_bytes: 64 * 1024,
            pending_tracks: 20,
            queued_tracks: 3,
            published_tracks: 64,
            data_tracks: 64,
            subscriptions: 500,
            wishes: 4096,
            message_bytes: 65_535,
            replay_bytes: 100 * 1024,
            early_bytes: 100 * 1024,
            departed: 1024,
            prompt_participants: 100,
            listed_viewers: 100,
            audible_microphones: 16,
        }
    }
}

/// How long things may take.
#[derive(Debug, Clone)]
pub struct Timers {
    /// From the join until a transport is connected, else `JOIN_TIMEOUT`.
    pub join: Duration,
    /// How long a participant is kept whose session was lost.
    pub resume: Duration,
    /// How long a participant is kept whose transport failed.
    pub transport: Duration,
    /// How long changes are collected before the client is asked to negotiate,
    /// when nothing was negotiated lately.
    pub negotiation_idle: Duration,
    /// The same when something was.
    pub negotiation_busy: Duration,
    /// How long an offer of the node may stay without an answer; then the
    /// client starts over.
    pub answer: Duration,
    /// How long a wanted track may be unknown.
    pub wish: Duration,
    /// How long data messages are kept to be repeated.
    pub replay: Duration,
    /// How long a media section may lack its announcement before one of the
    /// same kind under another id is taken for it.
    pub binding: Duration,
    /// How long changes of quiet participants are collected in large rooms.
    pub quiet_changes: Duration,
    /// Least time between two changes of the room's counts that are told.
    pub room_changes: Duration,
    /// How long reactions are counted before their sums are told.
    pub tallies: Duration,
    /// How long a quality nobody watches any more is still asked of its publisher.
    pub demand_lowering: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            join: Duration::from_secs(60),
            resume: Duration::from_secs(30),
            transport: Duration::from_secs(15),
            negotiation_idle: Duration::from_millis(10),
            negotiation_busy: Duration::from_millis(150),
            answer: Duration::from_secs(15),
            wish: Duration::from_secs(60),
            replay: Duration::from_secs(2),
            binding: Duration::from_millis(500),
            quiet_changes: Duration::from_secs(3),
            room_changes: Duration::from_secs(5),
            tallies: Duration::from_millis(500),
            demand_lowering: Duration::from_secs(5),
        }
    }
}
