//! Large rooms: whoever may publish is shown to everybody, and so are the first who may
//! not; further ones are the room's audience. They are counted, and known to the platform
//! and to their own shard alone, so that a hall of ten thousand is not a list of ten
//! thousand in every client. One who is given the stage is shown from then on.

use headwater_model::{Identity, ParticipantUid};

use crate::core::Core;
use crate::directory::ParticipantKey;
use crate::participant::Participant;
use crate::remote::RelayCommand;
use crate::room::Room;
use crate::room::membership::Farewell;
use crate::session::{CloseReason, JoinRequest};

/// How many are not shown.
#[derive(Debug, Default)]
pub(crate) struct Audience {
    /// Of this shard.
    here: u32,
    /// As the other shards were last told. None if they never were.
    told: Option<u32>,
    /// Of all shards together, as last heard: it lags behind for moments. Where as many
    /// come as go the sum stays and nothing is heard, so that the part of the others is
    /// reckoned when it is asked for.
    everywhere: u32,
}

impl Audience {
    /// Of the other shards.
    pub(crate) const fn elsewhere(&self) -> u32 {
        self.everywhere.saturating_sub(self.here)
    }

    /// One of this shard came.
    pub(crate) const fn enter(&mut self) {
        self.here += 1;
    }

    /// One of this shard left, or is shown from now on.
    pub(crate) const fn leave(&mut self) {
        self.here = self.here.saturating_sub(1);
    }
}

impl Room {
    /// Whether one who comes is only counted. An identity that was shown goes on so.
    pub(crate) fn is_for_audience(&self, core: &Core, request: &JoinRequest) -> bool {
        let permission = &request.permission;
        if permission.can_publish || permission.hidden || request.uncounted {
            return false;
        }
        let before = self.by_identity.get(&request.identity);
        if let Some(before) = before.and_then(|key| self.participants.get(key)) {
            return before.unlisted;
        }
        let viewers = self
            .participants
            .values()
            .filter(|one| !one.permission.can_publish && one.is_counted() && !one.unlisted);
        viewers.count() >= core.config.limits.listed_viewers
    }

    /// Shows one of the audience to everybody, from the next changes told on.
    pub(crate) fn show(&mut self, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        if std::mem::replace(&mut participant.unlisted, false) {
            self.audience.leave();
            self.mark_changed(key);
        }
    }

    /// Tells other shards how many of this one are not shown, if that changed.
    pub(crate) fn tell_audience(&mut self, core: &mut Core) {
        let participants = self.audience.here;
        if !self.span.is_wide || self.audience.told == Some(participants) {
            return;
        }
        // Nothing is told where there never was an audience.
        if participants > 0 || self.audience.told.is_some() {
            self.audience.told = Some(participants);
            core.relay(RelayCommand::Audience { room: self.id.clone(), participants });
        }
    }

    /// The room is carried by this shard alone, or with others from now on.
    pub(crate) const fn forget_audience_elsewhere(&mut self) {
        self.audience.told = None;
        self.audience.everywhere = 0;
    }

    /// The audience of all shards together changed.
    pub(crate) fn audience_counted(&mut self, participants: u64) {
        self.audience.everywhere = u32::try_from(participants).unwrap_or(u32::MAX);
        self.note_counts_changed();
    }

    /// Tells other shards that an identity is here now: entries of the room's state do
    /// that for those who are shown.
    pub(crate) fn claim(&self, core: &mut Core, key: ParticipantKey) {
        let participant = self.participants.get(&key).filter(|_| self.span.is_wide);
        if let Some(participant) = participant {
            core.relay(RelayCommand::Claim {
                room: self.id.clone(),
                identity: participant.identity.clone(),
                uid: participant.uid.clone(),
                incarnation: participant.incarnation,
            });
        }
    }

    /// Another shard says that an identity is there. The older of two stays ends; if
    /// that is the other one, its shard is told of this one.
    pub(crate) fn claimed(
        &mut self,
        core: &mut Core,
        identity: &Identity,
        uid: &ParticipantUid,
        incarnation: u64,
    ) {
        let own = self.by_identity.get(identity).and_then(|key| self.participants.get(key));
        let Some(own) = own.filter(|one| !one.is_remote() && one.uid != *uid) else {
            return;
        };
        let key = own.key;
        if is_older(own, uid, incarnation) {
            self.remove(core, key, Farewell::closed(CloseReason::DuplicateIdentity));
        } else {
            self.claim(core, key);
        }
    }

    /// Another shard shows an identity that is in the audience here. The older of two
    /// stays ends; if that is the other one, this one is shown, and the home decides.
    /// `true` if there is nobody here of that identity any more.
    pub(crate) fn yields_to(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        (uid, incarnation): (&ParticipantUid, u64),
    ) -> bool {
        let Some(own) = self.participants.get(&key).filter(|one| one.unlisted) else {
            return false;
        };
        if is_older(own, uid, incarnation) {
            self.remove(core, key, Farewell::closed(CloseReason::DuplicateIdentity));
            self.flush_changes(core);
            return true;
        }
        self.show(key);
        self.flush_changes(core);
        false
    }
}

/// Of two stays of one identity that began at once, the uid decides.
fn is_older(own: &Participant, uid: &ParticipantUid, incarnation: u64) -> bool {
    (own.incarnation, own.uid.as_str()) < (incarnation, uid.as_str())
}
