//! Who is told of participants that came, changed or left. Changes of one call
//! are told together, before anything that builds on them: an announcement
//! reaches a subscriber before any SDP or media of a new track.

use std::sync::Arc;
use std::time::Instant;

use crate::core::Core;
use crate::directory::ParticipantKey;
use crate::participant::{Link, Participant};
use crate::room::Room;
use crate::session::Event;
use crate::timers::Timer;
use crate::view::ParticipantView;

/// What is to be told, in the order in which it happened.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// To be told by the end of this call.
    prompt: Vec<Change>,
    /// Changes in a large room of those who publish nothing, already told to
    /// themselves. As many as there are participants, and departures.
    quiet: Vec<Change>,
    quiet_due: Option<Instant>,
    /// Departures noted so far.
    departures: u64,
}

#[derive(Debug, Clone, PartialEq)]
enum Change {
    /// It is new or changed.
    Changed(ParticipantKey),
    /// It left, or others may see it no more. The number tells who was there
    /// then: who came later is not told, for it might know a newer stay.
    Left { view: Arc<ParticipantView>, number: u64 },
}

impl Room {
    /// Notes that a participant changed.
    pub(crate) fn mark_changed(&mut self, key: ParticipantKey) {
        self.counts_changed = true;
        let change = Change::Changed(key);
        if !self.changes.prompt.contains(&change) {
            self.changes.prompt.push(change);
        }
    }

    /// Notes that others see a participant no more.
    pub(crate) fn mark_left(&mut self, key: ParticipantKey, view: Arc<ParticipantView>) {
        self.forget_change(key);
        self.counts_changed = true;
        self.changes.departures += 1;
        let number = self.changes.departures;
        self.changes.prompt.push(Change::Left { view, number });
    }

    /// Notes that a participant of whom nobody was told is gone.
    pub(super) fn forget_change(&mut self, key: ParticipantKey) {
        let change = Change::Changed(key);
        self.changes.prompt.retain(|other| *other != change);
        self.changes.quiet.retain(|other| *other != change);
    }

    /// Number of the last departure: who comes now is told of later ones only.
    pub(super) const fn last_departure(&self) -> u64 {
        self.changes.departures
    }

    /// Tells others of a participant that just came, whose first view it knows.
    pub(super) fn announce(&mut self, core: &mut Core, key: ParticipantKey) {
        if let Some(participant) = self.participants.get_mut(&key) {
            participant.announced = true;
        }
        self.counts_changed = true;
        self.distribute(core, vec![Change::Changed(key)]);
    }

    /// Tells all changes noted so far.
    pub(crate) fn flush_changes(&mut self, core: &mut Core) {
        let prompt = std::mem::take(&mut self.changes.prompt);
        if prompt.is_empty() {
            return;
        }
        for change in &prompt {
            if let Change::Changed(key) = change {
                self.renew(core, *key);
            }
        }
        self.distribute(core, prompt);
    }

    /// Tells others now or, in large rooms, later.
    fn distribute(&mut self, core: &mut Core, prompt: Vec<Change>) {
        let is_large = self.participants.len() > core.config.limits.prompt_participants;
        if is_large && prompt.iter().all(|change| self.is_quiet(change)) {
            for change in prompt {
                if !self.changes.quiet.contains(&change) {
                    self.changes.quiet.push(change);
                }
            }
            if self.changes.quiet_due.is_none() {
                let due = core.now + core.config.timers.quiet_changes;
                self.changes.quiet_due = Some(due);
                core.timers.arm(due, Timer::QuietChanges(self.key));
            }
            return;
        }
        let mut changes = std::mem::take(&mut self.changes.quiet);
        self.changes.quiet_due = None;
        changes.retain(|change| !prompt.contains(change));
        changes.extend(prompt);
        self.broadcast(core, &changes);
    }

    pub(super) fn quiet_changes_due(&mut self, core: &mut Core) {
        if self.changes.quiet_due.is_some_and(|due| due <= core.now) {
            self.flush_quiet_changes(core);
        }
    }

    /// Tells what was to be told later.
    pub(super) fn flush_quiet_changes(&mut self, core: &mut Core) {
        self.changes.quiet_due = None;
        let changes = std::mem::take(&mut self.changes.quiet);
        self.broadcast(core, &changes);
    }

    fn is_quiet(&self, change: &Change) -> bool {
        match change {
            Change::Changed(key) => self
                .participants
                .get(key)
                .is_none_or(|one| !one.is_publisher() && one.data.published.is_empty()),
            Change::Left { view, .. } => view.tracks.is_empty() && view.data_tracks.is_empty(),
        }
    }

    /// Raises a participant's version and tells it of itself.
    fn renew(&mut self, core: &mut Core, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        participant.renew_view(&self.tracks);
        if let Some(session) = participant.session() {
            let own = participant.own_view(&self.tracks);
            core.tell(session, Event::ParticipantsChanged(vec![own]));
        }
        participant.announced |= participant.is_shown();
        self.tell_shards(core, key);
    }

    /// Tells everybody of others' changes. Each is told the newest state.
    fn broadcast(&mut self, core: &mut Core, changes: &[Change]) {
        let mut told: Vec<Told> = Vec::new();
        for change in changes {
            match change {
                Change::Changed(key) => {
                    let one = self.participants.get(key).filter(|one| one.is_shown());
                    told.extend(one.map(|one| Told { view: Arc::clone(&one.view), left: None }));
                }
                Change::Left { view, number } => {
                    told.push(Told { view: Arc::clone(view), left: Some(*number) });
                }
            }
        }
        let limit = core.config.limits.departed;
        for participant in self.participants.values_mut() {
            let mine = told.iter().filter(|told| {
                told.view.uid != participant.uid
                    && told.left.is_none_or(|number| number > participant.welcomed_after)
            });
            match participant.link {
                Link::Attached(session) => {
                    let views: Vec<_> = mine.map(|told| Arc::clone(&told.view)).collect();
                    if !views.is_empty() {
                        core.tell(session, Event::ParticipantsChanged(views));
                    }
                }
                // Its client hears nothing, then or later.
                Link::Remote { .. } => {}
                Link::Lost { .. } if participant.outlives_signalling => {}
                Link::Lost { .. } => {
                    let left = mine.filter(|told| told.left.is_some());
                    let left: Vec<_> = left.map(|told| Arc::clone(&told.view)).collect();
                    remember(participant, left, limit);
                }
            }
        }
    }
}

/// A view to be told, and the number of the departure if it is one.
struct Told {
    view: Arc<ParticipantView>,
    left: Option<u64>,
}

/// Keeps who left for a participant whose session is lost.
fn remember(participant: &mut Participant, left: Vec<Arc<ParticipantView>>, limit: usize) {
    let Some(known) = &mut participant.departed else {
        return;
    };
    known.extend(left);
    if known.len() > limit {
        participant.departed = None;
    }
}
