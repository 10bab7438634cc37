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
}

#[derive(Debug, Clone, PartialEq)]
enum Change {
    /// It is new or changed.
    Changed(ParticipantKey),
    /// It left, or others may see it no more.
    Left(Arc<ParticipantView>),
}

impl Room {
    /// Notes that a participant changed.
    pub(crate) fn mark_changed(&mut self, key: ParticipantKey) {
        let change = Change::Changed(key);
        if !self.changes.prompt.contains(&change) {
            self.changes.prompt.push(change);
        }
    }

    /// Notes that others see a participant no more.
    pub(crate) fn mark_left(&mut self, key: ParticipantKey, view: Arc<ParticipantView>) {
        let change = Change::Changed(key);
        self.changes.prompt.retain(|other| *other != change);
        self.changes.quiet.retain(|other| *other != change);
        self.changes.prompt.push(Change::Left(view));
    }

    /// Notes that a participant of whom nobody was told is gone.
    pub(super) fn forget_change(&mut self, key: ParticipantKey) {
        let change = Change::Changed(key);
        self.changes.prompt.retain(|other| *other != change);
        self.changes.quiet.retain(|other| *other != change);
    }

    /// Tells others of a participant that just came, whose first view it knows.
    pub(super) fn announce(&mut self, core: &mut Core, key: ParticipantKey) {
        if let Some(participant) = self.participants.get_mut(&key) {
            participant.announced = true;
        }
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
            self.changes.quiet_due = None;
            let changes = std::mem::take(&mut self.changes.quiet);
            self.broadcast(core, &changes);
        }
    }

    fn is_quiet(&self, change: &Change) -> bool {
        match change {
            Change::Changed(key) => self
                .participants
                .get(key)
                .is_none_or(|one| !one.is_publisher() && one.data.published.is_empty()),
            Change::Left(view) => view.tracks.is_empty() && view.data_tracks.is_empty(),
        }
    }

    /// Raises a participant's version and tells it of itself.
    fn renew(&mut self, core: &mut Core, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        participant.renew_view(&self.tracks);
        if let Some(session) = participant.session() {
            let own = participant.own_view(&self.tracks);
            core.tell(session, Event::ParticipantsChanged(vec![own]));
        }
        participant.announced |= !participant.permission.hidden;
    }

    /// Tells everybody of others' changes. Each is told the newest state.
    fn broadcast(&mut self, core: &mut Core, changes: &[Change]) {
        let mut told: Vec<(Option<ParticipantKey>, Arc<ParticipantView>)> = Vec::new();
        for change in changes {
            match change {
                Change::Changed(key) => {
                    let one = self.participants.get(key).filter(|one| !one.permission.hidden);
                    told.extend(one.map(|one| (Some(*key), Arc::clone(&one.view))));
                }
                Change::Left(view) => told.push((None, Arc::clone(view))),
            }
        }
        let departed: Vec<&Arc<ParticipantView>> = told
            .iter()
            .filter(|(key, _)| key.is_none())
            .map(|(_, view)| view)
            .collect();
        for (listener, participant) in &mut self.participants {
            match participant.link {
                Link::Attached(session) => {
                    let views: Vec<_> = told
                        .iter()
                        .filter(|(key, view)| {
                            *key != Some(*listener) && view.uid != participant.uid
                        })
                        .map(|(_, view)| Arc::clone(view))
                        .collect();
                    if !views.is_empty() {
                        core.tell(session, Event::ParticipantsChanged(views));
                    }
                }
                Link::Lost { .. } => {
                    remember(participant, &departed, core.config.limits.departed);
                }
            }
        }
    }
}

/// Keeps who left for a participant whose session is lost.
fn remember(participant: &mut Participant, departed: &[&Arc<ParticipantView>], limit: usize) {
    let Some(known) = &mut participant.departed else { return };
    known.extend(departed.iter().map(|view| Arc::clone(view)));
    if known.len() > limit {
        participant.departed = None;
    }
}
