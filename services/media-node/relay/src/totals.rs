//! What all relay links of a shard counted since it began, those that have ended
//! included: what metrics are made of. Links within a process and links to other nodes
//! are kept apart; rooms and peers are not.

use crate::link::{Link, LinkDrops, LinkStats};

/// What links of one kind counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkTotals {
    /// Packets and clocks that were sent.
    pub frames_out: u64,
    /// Those that arrived.
    pub frames_in: u64,
    /// Bytes of datagrams with media that were sent.
    pub bytes_out: u64,
    /// Bytes of datagrams that arrived, heartbeats included.
    pub bytes_in: u64,
    /// Bytes of messages that were sent.
    pub message_bytes_out: u64,
    /// Datagrams with media that did not arrive here.
    pub lost_in: u64,
    /// Packets that were sent again.
    pub repeated_out: u64,
    /// What was dropped.
    pub drops: LinkDrops,
}

impl LinkTotals {
    fn add_stats(&mut self, stats: &LinkStats) {
        self.frames_out += stats.frames_out + stats.long_frames_out;
        self.frames_in += stats.frames_in;
        self.bytes_out += stats.media_bytes_out;
        self.bytes_in += stats.bytes_in;
        self.message_bytes_out += stats.message_bytes_out;
        self.lost_in += stats.lost_in;
        self.repeated_out += stats.repeated_out;
        self.drops.add(&stats.drops);
    }

    fn add(&mut self, other: &Self) {
        self.frames_out += other.frames_out;
        self.frames_in += other.frames_in;
        self.bytes_out += other.bytes_out;
        self.bytes_in += other.bytes_in;
        self.message_bytes_out += other.message_bytes_out;
        self.lost_in += other.lost_in;
        self.repeated_out += other.repeated_out;
        self.drops.add(&other.drops);
    }
}

impl LinkDrops {
    fn add(&mut self, other: &Self) {
        self.malformed += other.malformed;
        self.unknown_handle += other.unknown_handle;
        self.stale_epoch += other.stale_epoch;
        self.looped += other.looped;
        self.wrong_source += other.wrong_source;
        self.queue_full += other.queue_full;
        self.congested += other.congested;
        self.too_many_tracks += other.too_many_tracks;
        self.looped_announcements += other.looped_announcements;
    }
}

/// What the links of a shard counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RelayTotals {
    /// Within the process.
    pub near: LinkTotals,
    /// Between nodes.
    pub far: LinkTotals,
}

impl RelayTotals {
    /// Adds what a link counted.
    pub(crate) fn add_link(&mut self, link: &Link, is_near: bool) {
        let totals = if is_near { &mut self.near } else { &mut self.far };
        totals.add_stats(&link.stats());
    }

    /// Adds what others counted.
    pub fn add(&mut self, other: &Self) {
        self.near.add(&other.near);
        self.far.add(&other.far);
    }
}
