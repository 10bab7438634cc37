//! Subscribing: who is to receive which track, by wish and by permission, and
//! in which layers. Sections and SDP are the negotiation's business.

use std::time::Instant;

use headwater_model::media::{
    Codec, MediaKind, Prominence, Subscription as SubscriptionParameters, SubscriptionTarget,
    TrackKey,
};
use headwater_model::{Identity, ParticipantUid, TrackUid};
use headwater_sdp::Negotiated;

use crate::core::Core;
use crate::directory::ParticipantKey;
use crate::media::MediaCommand;
use crate::negotiate::codecs_of;
use crate::participant::{Participant, Stage, Subscription};
use crate::room::Room;
use crate::session::{
    AllowedTracks, Event, SubscriptionFailure, SubscriptionPermission, SubscriptionUpdate,
    TrackSettings, TransportKind, TransportMode,
};
use crate::timers::Timer;

impl Room {
    /// Brings a participant's subscriptions in line with what it is to have.
    pub(crate) fn reconcile_subscriber(&mut self, core: &mut Core, key: ParticipantKey) {
        let tracks: Vec<TrackKey> = self.tracks.keys().copied().collect();
        for track in tracks {
            self.reconcile(core, key, track);
        }
    }

    /// Brings everybody's subscription to a track in line.
    pub(crate) fn reconcile_track(&mut self, core: &mut Core, track: TrackKey) {
        let participants: Vec<ParticipantKey> = self.participants.keys().copied().collect();
        for key in participants {
            self.reconcile(core, key, track);
        }
    }

    fn reconcile(&mut self, core: &mut Core, key: ParticipantKey, track: TrackKey) {
        let Some(known) = self.tracks.get(&track).filter(|track| track.published.is_some()) else {
            return;
        };
        if known.publisher == key {
            return;
        }
        let Some(publisher) = self.participants.get(&known.publisher) else {
            return;
        };
        let Some(participant) = self.participants.get(&key) else {
            return;
        };
        let wish = participant.wishes.get(&known.uid);
        let is_wanted = wish
            .and_then(|wish| wish.subscribe)
            .unwrap_or_else(|| participant.follows(&publisher.identity));
        let is_visible = !publisher.permission.hidden;
        let is_allowed = allows(&publisher.allow, participant, &known.uid);
        let is_due = is_wanted && is_visible && is_allowed && participant.permission.can_subscribe;
        let is_there = participant.subscriptions.contains_key(&track);
        if is_wanted && is_visible {
            self.tell_allowed(core, key, track, is_allowed);
        }
        self.settle_wish(key, track);
        match (is_due, is_there) {
            (true, false) => self.start_subscription(core, key, track),
            (false, true) => self.drop_subscription(core, key, track),
            (true, true) | (false, false) => {}
        }
    }

    /// Whether it may have a track: told when it may not, and when that changes.
    fn tell_allowed(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        track: TrackKey,
        allowed: bool,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let is_news = if allowed {
            participant.forbidden.remove(&track)
        } else {
            participant.forbidden.insert(track)
        };
        let known = self.tracks.get(&track);
        let publisher = known.and_then(|track| self.uid_of(track.publisher));
        if let Some((known, publisher)) = known.zip(publisher).filter(|_| is_news) {
            let event = Event::SubscriptionAllowed { publisher, track: known.uid.clone(), allowed };
            self.tell(core, key, event);
        }
    }

    /// A wished track came: the wish does not end any more.
    fn settle_wish(&mut self, key: ParticipantKey, track: TrackKey) {
        let uid = self.tracks.get(&track).map(|track| &track.uid);
        let wishes = self.participants.get_mut(&key).map(|one| &mut one.wishes);
        if let Some(wish) = wishes.zip(uid).and_then(|(wishes, uid)| wishes.get_mut(uid)) {
            wish.expires_at = None;
        }
    }

    fn start_subscription(&mut self, core: &mut Core, key: ParticipantKey, track: TrackKey) {
        let limit = core.config.limits.subscriptions;
        let Some(known) = self.tracks.get_mut(&track) else {
            return;
        };
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        if participant.subscriptions.len() >= limit {
            return;
        }
        let subscription = new_subscription(core, participant, known.kind);
        participant.subscriptions.insert(track, subscription);
        known.subscribers.insert(key);
        if participant.mode == TransportMode::Dual {
            self.attach_section(key, track);
        }
        self.request_negotiation(core, key);
    }

    /// The client agreed to a track's section: it is forwarded from now on.
    pub(crate) fn go_live(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        track: TrackKey,
        transport: TransportKind,
        mid: String,
        negotiated: Negotiated,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let settings = self.tracks.get(&track).map(|track| participant.settings(&track.uid));
        let Some(transport) = participant.transport(transport).map(|transport| transport.key)
        else {
            return;
        };
        let Some(known) = self.tracks.get(&track) else {
            return;
        };
        let Some(subscription) = participant.subscriptions.get_mut(&track) else {
            return;
        };
        if !known.is_carried_by(&codecs_of(&negotiated.codecs)) {
            self.refuse_subscription(core, key, track, SubscriptionFailure::CodecUnsupported);
            return;
        }
        let has_rtx = negotiated.codecs.iter().any(|codec| codec.rtx_payload_type.is_some());
        let parameters = SubscriptionParameters {
            mid,
            ssrc: subscription.ssrc,
            rtx_ssrc: subscription.rtx_ssrc.filter(|_| has_rtx),
            codecs: negotiated.codecs,
            extensions: negotiated.extensions,
        };
        let settings = settings.unwrap_or_default();
        let target = known.target(&settings);
        let before = std::mem::replace(
            &mut subscription.stage,
            Stage::Live { parameters: Box::new(parameters.clone()), target },
        );
        let (was_live, is_same) = match before {
            Stage::Live { parameters: known, .. } => (true, *known == parameters),
            Stage::Waiting | Stage::Offered { .. } | Stage::Refused => (false, false),
        };
        let subscription_key = subscription.key;
        if !is_same {
            core.order(MediaCommand::Subscribe {
                subscription: subscription_key,
                track,
                transport,
                parameters,
            });
        }
        if !was_live {
            core.order(MediaCommand::SetTarget { subscription: subscription_key, target });
            subscription.set_prominence(core, &settings);
            self.first_subscriber(core, track);
            self.greet_subscriber(core, key, track);
            self.demand_changed(core, track);
        }
    }

    /// The publisher learns of its first subscriber.
    pub(crate) fn first_subscriber(&mut self, core: &mut Core, track: TrackKey) {
        let Some(track) = self.tracks.get_mut(&track) else {
            return;
        };
        if !std::mem::replace(&mut track.was_subscribed, true) {
            let (publisher, track) = (track.publisher, track.uid.clone());
            self.tell(core, publisher, Event::TrackSubscribed { track });
        }
    }

    /// A subscriber cannot take a track: it is told, and not tried again.
    pub(crate) fn refuse_subscription(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        track: TrackKey,
        failure: SubscriptionFailure,
    ) {
        let uid = self.tracks.get(&track).map(|track| track.uid.clone());
        let subscription =
            self.participants.get_mut(&key).and_then(|one| one.subscriptions.get_mut(&track));
        let Some((subscription, uid)) = subscription.zip(uid) else {
            return;
        };
        let before = std::mem::replace(&mut subscription.stage, Stage::Refused);
        if before == Stage::Refused {
            return;
        }
        if let Stage::Live { .. } = before {
            core.order(MediaCommand::Unsubscribe { subscription: subscription.key });
        }
        self.free_section(core, key, track, &before);
        self.tell(core, key, Event::SubscriptionFailed { track: uid, failure });
    }

    /// A subscription lost its section: it waits for another, under another
    /// SSRC.
    pub(crate) fn restart_subscription(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        track: TrackKey,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let Some(old) = participant.subscriptions.remove(&track) else {
            return;
        };
        if let Stage::Live { .. } = old.stage {
            core.order(MediaCommand::Unsubscribe { subscription: old.key });
        }
        let subscription = new_subscription(core, participant, old.kind);
        participant.subscriptions.insert(track, subscription);
    }

    pub(crate) fn drop_subscription(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        track: TrackKey,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let Some(old) = participant.subscriptions.remove(&track) else {
            return;
        };
        if let Some(track) = self.tracks.get_mut(&track) {
            track.subscribers.remove(&key);
        }
        if let Stage::Live { .. } = old.stage {
            core.order(MediaCommand::Unsubscribe { subscription: old.key });
            self.demand_changed(core, track);
        }
        self.free_section(core, key, track, &old.stage);
    }

    fn free_section(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        track: TrackKey,
        stage: &Stage,
    ) {
        let mode = self.participants.get(&key).map(|one| one.mode);
        let mid = match stage {
            Stage::Waiting | Stage::Refused => None,
            Stage::Offered { mid } => Some(mid),
            Stage::Live { parameters, .. } => Some(&parameters.mid),
        };
        match (mode, mid) {
            (Some(TransportMode::Dual), Some(mid)) => self.detach_section(key, mid),
            (Some(TransportMode::Single), _) => self.leave_section(key, track),
            (Some(TransportMode::Dual), None) | (None, _) => {}
        }
        self.request_negotiation(core, key);
    }

    pub(crate) fn drop_all_subscriptions(&mut self, core: &mut Core, key: ParticipantKey) {
        let tracks: Vec<TrackKey> = self
            .participants
            .get(&key)
            .map(|one| one.subscriptions.keys().copied().collect())
            .unwrap_or_default();
        for track in tracks {
            self.drop_subscription(core, key, track);
        }
    }

    /// A track ends: nobody receives it any more.
    pub(crate) fn drop_subscribers(&mut self, core: &mut Core, track: TrackKey) {
        let subscribers = self.tracks.get(&track).map(|track| track.subscribers.clone());
        for key in subscribers.into_iter().flatten() {
            self.drop_subscription(core, key, track);
        }
    }

    /// The client, or the platform for it, wants tracks or wants them no more.
    pub(crate) fn update_subscription(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        update: &SubscriptionUpdate,
    ) {
        let expires_at = core.now + core.config.timers.wish;
        let (place, limit) = (self.place(key), core.config.limits.wishes);
        for uid in &update.tracks {
            let known = self.by_track_uid.get(uid).copied();
            let Some(participant) = self.participants.get_mut(&key) else {
                return;
            };
            let is_known = participant.wishes.contains_key(uid);
            if !is_known && participant.wishes.len() >= limit {
                return;
            }
            let wish = participant.wishes.entry(uid.clone()).or_default();
            wish.subscribe = Some(update.subscribe);
            match known {
                Some(track) => {
                    // What could not be had is tried again when asked for again.
                    let refused = participant.subscriptions.get(&track);
                    if refused.is_some_and(|it| it.stage == Stage::Refused) {
                        self.drop_subscription(core, key, track);
                    }
                    self.reconcile(core, key, track);
                }
                None => {
                    wish.expires_at = Some(expires_at);
                    if participant.wishes_at.is_none() {
                        participant.wishes_at = Some(expires_at);
                        core.timers.arm(expires_at, Timer::Wishes(place));
                    }
                }
            }
        }
    }

    /// Wishes for tracks that did not come end.
    pub(crate) fn wishes_due(&mut self, core: &mut Core, key: ParticipantKey) {
        let place = self.place(key);
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let now: Instant = core.now;
        let mut failed = Vec::new();
        participant.wishes.retain(|uid, wish| {
            let is_over = wish.expires_at.is_some_and(|at| at <= now);
            if is_over && wish.subscribe == Some(true) {
                failed.push(uid.clone());
            }
            !is_over
        });
        participant.wishes_at = participant.wishes.values().filter_map(|it| it.expires_at).min();
        if let Some(due) = participant.wishes_at {
            core.timers.arm(due, Timer::Wishes(place));
        }
        for track in failed {
            let failure = SubscriptionFailure::TrackNotFound;
            self.tell(core, key, Event::SubscriptionFailed { track, failure });
        }
    }

    /// How the client wants tracks sent.
    pub(crate) fn update_settings(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        tracks: &[TrackUid],
        settings: TrackSettings,
    ) {
        let expires_at = core.now + core.config.timers.wish;
        let (place, limit) = (self.place(key), core.config.limits.wishes);
        for uid in tracks {
            let Some(participant) = self.participants.get_mut(&key) else {
                return;
            };
            if !participant.wishes.contains_key(uid) && participant.wishes.len() >= limit {
                return;
            }
            let wish = participant.wishes.entry(uid.clone()).or_default();
            wish.settings = Some(settings);
            match self.by_track_uid.get(uid).copied() {
                Some(track) => self.retarget(core, key, track),
                None => {
                    wish.expires_at = Some(expires_at);
                    if participant.wishes_at.is_none() {
                        participant.wishes_at = Some(expires_at);
                        core.timers.arm(expires_at, Timer::Wishes(place));
                    }
                }
            }
        }
    }

    /// A track's layers changed: what subscribers want means other ones.
    pub(crate) fn retarget_subscribers(&mut self, core: &mut Core, track: TrackKey) {
        let subscribers = self.tracks.get(&track).map(|track| track.subscribers.clone());
        for key in subscribers.into_iter().flatten() {
            self.retarget(core, key, track);
        }
    }

    fn retarget(&mut self, core: &mut Core, key: ParticipantKey, track: TrackKey) {
        let Some(known) = self.tracks.get(&track) else {
            return;
        };
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let settings = participant.settings(&known.uid);
        let wanted = known.target(&settings);
        let Some(subscription) = participant.subscriptions.get_mut(&track) else {
            return;
        };
        let subscription_key = subscription.key;
        if let Stage::Live { target, .. } = &mut subscription.stage {
            if *target != wanted {
                *target = wanted;
                let command =
                    MediaCommand::SetTarget { subscription: subscription_key, target: wanted };
                core.order(command);
            }
            subscription.set_prominence(core, &settings);
            self.demand_changed(core, track);
        }
    }

    /// Who may have the client's tracks.
    pub(crate) fn set_allowed(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        permission: SubscriptionPermission,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let entries = match &permission {
            SubscriptionPermission::Everybody => 0,
            SubscriptionPermission::Only(allowed) => allowed.len(),
        };
        if entries > core.config.limits.wishes {
            return;
        }
        participant.allow = permission;
        for track in participant.tracks.clone() {
            self.reconcile_track(core, track);
        }
        self.tell_shards(core, key);
    }

    /// A track arrives in another codec than was declared: who cannot take it
    /// is told.
    pub(crate) fn check_codec_of_subscribers(&mut self, core: &mut Core, track: TrackKey) {
        let Some(known) = self.tracks.get(&track) else {
            return;
        };
        let unfit: Vec<ParticipantKey> = known
            .subscribers
            .iter()
            .filter(|key| {
                let subscription =
                    self.participants.get(key).and_then(|one| one.subscriptions.get(&track));
                match subscription.map(|subscription| &subscription.stage) {
                    Some(Stage::Live { parameters, .. }) => {
                        let codecs: Vec<Codec> = codecs_of(&parameters.codecs);
                        !known.is_carried_by(&codecs)
                    }
                    _ => false,
                }
            })
            .copied()
            .collect();
        for key in unfit {
            let failure = SubscriptionFailure::CodecUnsupported;
            self.refuse_subscription(core, key, track, failure);
        }
    }

    /// What subscribers of a track now ask of it: the most that anybody wants.
    pub(crate) fn live_targets(
        &self,
        track: TrackKey,
    ) -> impl Iterator<Item = (&Participant, SubscriptionTarget)> {
        let subscribers = self.tracks.get(&track).into_iter().flat_map(|it| &it.subscribers);
        subscribers.filter_map(move |key| {
            let participant = self.participants.get(key)?;
            match participant.subscriptions.get(&track)?.stage {
                Stage::Live { target, .. } => Some((participant, target)),
                Stage::Waiting | Stage::Offered { .. } | Stage::Refused => None,
            }
        })
    }
}

fn new_subscription(
    core: &mut Core,
    participant: &mut Participant,
    kind: MediaKind,
) -> Subscription {
    Subscription {
        key: core.new_subscription(),
        kind,
        ssrc: participant.take_ssrc(),
        rtx_ssrc: (kind == MediaKind::Video).then(|| participant.take_ssrc()),
        prominence: Prominence::default(),
        stage: Stage::Waiting,
    }
}

/// Whether a publisher lets somebody have a track.
fn allows(permission: &SubscriptionPermission, who: &Participant, track: &TrackUid) -> bool {
    let is_meant = |uid: &Option<ParticipantUid>, identity: &Option<String>| {
        let by_identity = |name: &String| Identity::as_str(&who.identity) == name.as_str();
        uid.as_ref() == Some(&who.uid) || identity.as_ref().is_some_and(by_identity)
    };
    match permission {
        SubscriptionPermission::Everybody => true,
        SubscriptionPermission::Only(allowed) => allowed.iter().any(|entry| {
            is_meant(&entry.participant, &entry.identity)
                && match &entry.tracks {
                    AllowedTracks::All => true,
                    AllowedTracks::These(tracks) => tracks.contains(track),
                }
        }),
    }
}
