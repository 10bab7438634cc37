//! One track as a shard knows it: where it comes from, who wants it, to whom it goes on.

use std::collections::BTreeMap;
use std::time::Instant;

use headwater_model::media::TrackKey;

use crate::link::LinkKey;
use crate::track::{Path, TrackInfo};

/// A way by which a track can be had.
#[derive(Debug, Clone)]
pub(super) struct Via {
    pub(super) handle: u32,
    pub(super) epoch: u32,
    pub(super) path: Path,
}

/// A link that a track is announced to.
#[derive(Debug, Clone)]
pub(super) struct Outlet {
    pub(super) handle: u32,
    pub(super) path: Path,
    pub(super) epoch: u32,
    /// Encodings that the other end wants.
    pub(super) interest: u8,
}

/// One track.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) info: TrackInfo,
    /// It is published on this shard.
    pub(super) local: bool,
    /// Its key in the forwarding core.
    pub(super) key: Option<TrackKey>,
    /// As many as links.
    pub(super) vias: BTreeMap<LinkKey, Via>,
    /// The one it is taken from.
    pub(super) source: Option<LinkKey>,
    /// The one before, which is still listened to until this time.
    pub(super) previous: Option<(LinkKey, Instant)>,
    /// As many as links.
    pub(super) outlets: BTreeMap<LinkKey, Outlet>,
    /// What subscribers of this shard want.
    pub(super) wishes: u8,
    /// What the source was asked for.
    pub(super) asked: u8,
    /// When less is asked for.
    pub(super) lower_at: Option<Instant>,
    /// It has no way any more; forgotten at this time if none comes.
    pub(super) lost_until: Option<Instant>,
    /// Life and highest sequence number of each encoding.
    pub(super) newest: [(u32, u64); 8],
    /// Time since its origin with which the last packet of each encoding came.
    pub(super) age_micros: [u32; 8],
    /// Links the packets have passed.
    pub(super) hops: u8,
    /// What the forwarding core was asked to hand out.
    pub(super) demand: u8,
}

impl Route {
    pub(super) fn new(info: TrackInfo, local: bool) -> Self {
        Self {
            info,
            local,
            key: None,
            vias: BTreeMap::new(),
            source: None,
            previous: None,
            outlets: BTreeMap::new(),
            wishes: 0,
            asked: 0,
            lower_at: None,
            lost_until: None,
            newest: [(0, 0); 8],
            age_micros: [0; 8],
            hops: 0,
            demand: 0,
        }
    }

    /// What all links that it is announced to want.
    pub(super) fn wanted_by_links(&self) -> u8 {
        self.outlets.values().fold(0, |all, outlet| all | outlet.interest)
    }

    /// What is wanted of it here.
    pub(super) fn wanted(&self) -> u8 {
        self.wishes | self.wanted_by_links()
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let previous = self.previous.map(|(_, until)| until);
        [self.lower_at, self.lost_until, previous].into_iter().flatten().min()
    }

    /// Notes a packet; returns whether it is of a life that is over.
    pub(super) fn note_packet(&mut self, encoding: u8, life: u32, sequence: u64) -> bool {
        let newest = &mut self.newest[usize::from(encoding & 7)];
        if life < newest.0 {
            return true;
        }
        *newest = if life > newest.0 { (life, sequence) } else { (life, newest.1.max(sequence)) };
        false
    }

    /// The whole sequence number of which these are the low bits, near the newest one.
    pub(super) fn extend(&self, encoding: u8, low: u16) -> (u32, u64) {
        let (life, newest) = self.newest[usize::from(encoding & 7)];
        let ahead = low.wrapping_sub(newest as u16).cast_signed();
        (life, newest.saturating_add_signed(i64::from(ahead)))
    }
}
