//! Deadlines of all rooms in one ordered set. A deadline that was overtaken
//! stays until it comes and is then found void by whoever set it: each kind is
//! checked against the state it belongs to.

use std::collections::BTreeSet;
use std::time::Instant;

use headwater_model::media::TrackKey;

use crate::directory::{Place, RoomKey};

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A participant ought to be connected by now.
    Join(Place),
    /// A lost session ought to be taken up by now.
    Resume(Place),
    /// A failed transport ought to be back by now.
    Transport(Place),
    /// Collected changes are to be negotiated.
    Negotiate(Place),
    /// An offer ought to be answered by now.
    Answer(Place),
    /// Wishes for unknown tracks end.
    Wishes(Place),
    /// Media without announcement takes any of its kind.
    Binding(Place),
    /// A pretended speech ends.
    Speech(Place),
    /// Changes of quiet participants are told.
    QuietChanges(RoomKey),
    /// The room's counts are told.
    RoomChanged(RoomKey),
    /// Reactions counted are told or passed on.
    Tally(RoomKey),
    /// Who speaks is told.
    Speakers(RoomKey),
    /// How well connections do is told.
    Quality(RoomKey),
    /// Less is asked of a track's publisher.
    Demand(RoomKey, TrackKey),
}

/// The deadlines.
#[derive(Debug, Default)]
pub(crate) struct TimerSet(BTreeSet<(Instant, Timer)>);

impl TimerSet {
    /// Adds a deadline. The same one twice is one.
    pub(crate) fn arm(&mut self, at: Instant, timer: Timer) {
        self.0.insert((at, timer));
    }

    /// Takes the earliest deadline that has come.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        let first = *self.0.first()?;
        if first.0 > now {
            return None;
        }
        self.0.remove(&first);
        Some(first.1)
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }
}
