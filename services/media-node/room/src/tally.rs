//! Reactions: messages of a topic of their own are counted instead of passed on, so that
//! ten thousand people who applaud cost their room two messages a second. Several
//! shards add up what they counted on the way to the home, which tells all of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use crate::core::Core;
use crate::data::{Destinations, from_nobody};
use crate::directory::ParticipantKey;
use crate::remote::RelayCommand;
use crate::room::Room;
use crate::timers::Timer;

/// Topic of user messages that are counted, and of those that tell the sums.
pub(crate) const TOPIC: &str = "headwater.tally";
/// Kinds that one room counts; further ones are not counted.
const KINDS_MAX: usize = 32;
/// Longest name of a kind in bytes.
const KIND_BYTES_MAX: usize = 64;

/// Counts by kind.
pub(crate) type Counts = BTreeMap<Arc<str>, u64>;

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Since sums were last told or passed on.
    counted: Counts,
    /// Since the room began, over all its shards.
    sums: Counts,
    due: Option<Instant>,
}

impl Room {
    /// Counts a reaction. One without a proper name is dropped.
    pub(crate) fn count_reaction(&mut self, core: &mut Core, kind: &[u8]) {
        let Some(kind) = name_of(kind) else {
            return;
        };
        add(&mut self.tally.counted, kind, 1);
        if self.tally.due.is_none() {
            let due = core.now + core.config.timers.tallies;
            self.tally.due = Some(due);
            core.timers.arm(due, Timer::Tally(self.key));
        }
    }

    pub(crate) fn tally_due(&mut self, core: &mut Core) {
        if self.tally.due.is_none_or(|due| due > core.now) {
            return;
        }
        self.tally.due = None;
        let counts = std::mem::take(&mut self.tally.counted);
        if self.span.is_wide {
            core.relay(RelayCommand::Tally { room: self.id.clone(), counts });
            return;
        }
        counts.iter().for_each(|(kind, count)| add(&mut self.tally.sums, kind, *count));
        self.tell_sums(core);
    }

    /// The room is carried by several shards from now on: what this one counted goes
    /// into their sum.
    pub(crate) fn hand_sums_over(&mut self, core: &mut Core) {
        if !self.tally.sums.is_empty() {
            let counts = self.tally.sums.clone();
            core.relay(RelayCommand::Tally { room: self.id.clone(), counts });
        }
    }

    /// The sums of all shards changed.
    pub(crate) fn take_sums(&mut self, core: &mut Core, sums: Counts) {
        if self.tally.sums != sums {
            self.tally.sums = sums;
            self.tell_sums(core);
        }
    }

    /// Tells one who just came, if there is anything to tell.
    pub(crate) fn tell_sums_to(&mut self, core: &mut Core, key: ParticipantKey) {
        let identity = self.participants.get(&key).map(|one| one.identity.clone());
        if let Some(identity) = identity.filter(|_| !self.tally.sums.is_empty()) {
            let to = Destinations::Identities(vec![identity.as_str()]);
            self.send_here(core, None, &to, true, &packet(&self.tally.sums));
        }
    }

    fn tell_sums(&mut self, core: &mut Core) {
        let packet = packet(&self.tally.sums);
        self.send_here(core, None, &Destinations::Everybody, true, &packet);
    }
}

/// A JSON object: kinds and their sums.
fn packet(sums: &Counts) -> Arc<[u8]> {
    let mut text = String::from("{");
    for (number, (kind, sum)) in sums.iter().enumerate() {
        let comma = if number > 0 { "," } else { "" };
        // Writing to a string does not fail.
        let _ = write!(text, "{comma}\"{kind}\":{sum}");
    }
    text.push('}');
    from_nobody(text.as_bytes(), TOPIC, true)
}

/// Names go into JSON as they are, so what would need escaping is refused.
fn name_of(kind: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(kind).ok()?;
    let is_plain = |letter: char| !letter.is_control() && letter != '"' && letter != '\\';
    let fits = !name.is_empty() && name.len() <= KIND_BYTES_MAX;
    (fits && name.chars().all(is_plain)).then_some(name)
}

fn add(counts: &mut Counts, kind: &str, count: u64) {
    if let Some(sum) = counts.get_mut(kind) {
        *sum = sum.saturating_add(count);
    } else if counts.len() < KINDS_MAX {
        counts.insert(kind.into(), count);
    }
}
