//! Microphones that are forwarded and those that are not.

use headwater_model::media::TrackKey;

use super::Sfu;
use crate::clock::Micros;
use crate::floor::{Floor, Verdict};

impl Sfu {
    pub(super) fn seat_track(&mut self, key: TrackKey, floor: u64, seats: u16) {
        let Some(&index) = self.track_index.get(&key) else {
            return;
        };
        let track = &mut self.tracks[index as usize];
        if track.floor.is_none() {
            track.floor = Some(floor);
            self.floors.entry(floor).or_insert_with(|| Floor::new(seats)).join();
        }
    }

    pub(super) fn leave_floor(&mut self, floor: u64, index: u32) {
        let is_empty = self.floors.get_mut(&floor).is_some_and(|floor| floor.leave(index));
        if is_empty {
            self.floors.remove(&floor);
        }
    }

    /// A packet of an audio track came. Without a level nothing can be said against it.
    pub(super) fn judge(&mut self, now: Micros, index: u32, level: Option<u8>) {
        let track = &mut self.tracks[index as usize];
        let floor = track.floor.filter(|_| !track.muted);
        let Some((floor, level)) = floor.and_then(|key| self.floors.get_mut(&key)).zip(level)
        else {
            return;
        };
        track.loud = Floor::attack(track.loud, level);
        let verdict = floor.judge(now, index, level, track.loud);
        let was_audible = std::mem::replace(&mut track.audible, verdict != Verdict::Unheard);
        match verdict {
            Verdict::Unheard if was_audible => self.hush(index),
            Verdict::Heard | Verdict::Unheard => {}
            Verdict::Instead(other) => self.hush(other),
        }
    }

    /// A track is not forwarded until it has a seat again.
    fn hush(&mut self, index: u32) {
        let Some(track) = self.tracks.get_mut(index as usize) else {
            return;
        };
        track.audible = false;
        track.pending.clear();
        for delivery in &track.deliveries {
            self.deliveries[*delivery as usize].forwarder.stop();
        }
    }
}
