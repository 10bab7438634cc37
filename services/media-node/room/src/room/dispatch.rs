//! Which of the room's functions a command, an event or a deadline is for.

use headwater_model::media::TransportKey;

use crate::core::Core;
use crate::directory::{ParticipantKey, Place};
use crate::media::MediaEvent;
use crate::quality::{limited, score};
use crate::room::Room;
use crate::room::membership::Farewell;
use crate::session::{Command, TransportKind};
use crate::timers::Timer;
use crate::transport::TransportState;
use crate::view::ParticipantPhase;

impl Room {
    pub(crate) fn handle_command(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        command: Command,
    ) {
        match command {
            Command::Offer(offer) => self.take_offer(core, key, &offer),
            Command::Answer(answer) => self.take_answer(core, key, &answer),
            Command::AddTrack(request) => self.add_track(core, key, request),
            Command::MuteTrack { track, muted } => self.mute_own(core, key, &track, muted),
            Command::UpdateTrack(update) => self.update_track(core, key, update),
            Command::UpdateSubscription(update) => {
                self.update_subscription(core, key, &update);
            }
            Command::UpdateTrackSettings { tracks, settings } => {
                self.update_settings(core, key, &tracks, settings);
            }
            Command::SubscriptionPermission(permission) => {
                self.set_allowed(core, key, permission);
            }
            Command::UpdateSelf(update) => self.update_self(core, key, update),
            Command::SyncState(state) => self.sync_state(core, key, state),
            Command::PublishDataTrack(request) => self.publish_data_track(core, key, request),
            Command::UnpublishDataTrack { handle } => {
                self.unpublish_data_track(core, key, handle);
            }
            Command::UpdateDataSubscription(update) => {
                self.update_data_subscription(core, key, &update);
            }
            Command::Leave { reason } => self.remove(core, key, Farewell::closed(reason)),
            Command::Simulate(scenario) => self.simulate(core, key, scenario),
            Command::RestartIce(credentials) => self.restart_ice(core, key, credentials),
        }
    }

    pub(crate) fn handle_media(&mut self, core: &mut Core, key: ParticipantKey, event: MediaEvent) {
        match event {
            MediaEvent::TransportConnected { transport } => {
                self.transport_connected(core, key, transport);
            }
            MediaEvent::TransportFailed { transport, recoverable } => {
                self.transport_failed(core, key, transport, recoverable);
            }
            MediaEvent::ChannelOpen { transport, channel, label, reliability } => {
                if let Some(kind) = kind_of(core, transport) {
                    self.channel_open(core, key, kind, channel, &label, reliability);
                }
            }
            MediaEvent::ChannelClosed { transport, channel } => {
                let one = self.participants.get_mut(&key);
                let kind = kind_of(core, transport);
                if let Some(transport) =
                    one.zip(kind).and_then(|(one, kind)| one.transport_mut(kind))
                {
                    transport.channels.remove(channel);
                }
            }
            MediaEvent::ChannelMessage { transport, channel, payload } => {
                let one = self.participants.get(&key).zip(kind_of(core, transport));
                let purpose = one
                    .and_then(|(one, kind)| one.transport(kind))
                    .and_then(|transport| transport.channels.purpose(channel));
                if let Some(purpose) = purpose {
                    self.take_message(core, key, purpose, payload);
                }
            }
            MediaEvent::TrackStarted { track, codec } => {
                self.track_started(core, track, codec);
            }
            MediaEvent::SpeakerLevel { track, level, active } => {
                self.track_heard(core, track, level, active);
            }
            MediaEvent::Quality { subject, loss_ratio, rtt, jitter, limitation } => {
                let score = limited(score(loss_ratio, rtt, jitter), limitation);
                self.measured(core, key, subject, score);
            }
            MediaEvent::Paused { track, paused, .. } => {
                self.stream_paused(core, key, track, paused);
            }
        }
    }

    pub(crate) fn handle_timer(&mut self, core: &mut Core, timer: Timer) {
        match timer {
            Timer::Join(Place { participant, .. }) => self.join_due(core, participant),
            Timer::Resume(Place { participant, .. }) => self.resume_due(core, participant),
            Timer::Transport(Place { participant, .. }) => {
                self.transport_due(core, participant);
            }
            Timer::Negotiate(Place { participant, .. }) => {
                self.negotiation_due(core, participant);
            }
            Timer::Answer(Place { participant, .. }) => self.answer_due(core, participant),
            Timer::Wishes(Place { participant, .. }) => self.wishes_due(core, participant),
            Timer::Binding(Place { participant, .. }) => {
                self.bind_by_kind(core, participant);
            }
            Timer::Speech(Place { participant, .. }) => {
                self.pretended_speech_due(core, participant);
            }
            Timer::QuietChanges(_) => self.quiet_changes_due(core),
            Timer::RoomChanged(_) => self.room_change_due(core),
            Timer::Tally(_) => self.tally_due(core),
            Timer::Speakers(_) => self.speakers_due(core),
            Timer::Quality(_) => self.quality_due(core),
            Timer::Demand(_, track) => self.demand_due(core, track),
        }
    }

    fn transport_connected(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        transport: TransportKey,
    ) {
        let Some(kind) = kind_of(core, transport) else {
            return;
        };
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let Some(transport) = participant.transport_mut(kind) else {
            return;
        };
        transport.state = TransportState::Connected;
        participant.was_connected = true;
        if kind == participant.primary && participant.phase == ParticipantPhase::Joined {
            participant.phase = ParticipantPhase::Active;
            self.mark_changed(key);
        }
        self.connection_changed(core, key);
    }

    fn transport_failed(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        transport: TransportKey,
        recoverable: bool,
    ) {
        let Some(kind) = kind_of(core, transport) else {
            return;
        };
        let place = self.place(key);
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let Some(transport) = participant.transport_mut(kind) else {
            return;
        };
        transport.state = TransportState::Failed { since: core.now, recoverable };
        core.timers.arm(core.now + core.config.timers.transport, Timer::Transport(place));
        self.connection_changed(core, key);
    }

    /// A transport failed some time ago: is it back?
    fn transport_due(&mut self, core: &mut Core, key: ParticipantKey) {
        let Some(participant) = self.participants.get(&key) else {
            return;
        };
        let wait = core.config.timers.transport;
        let is_lost = participant.transports().any(|(_, transport)| match transport.state {
            TransportState::Failed { since, .. } => since + wait <= core.now,
            TransportState::Connecting | TransportState::Connected => false,
        });
        if is_lost {
            let reason = crate::session::CloseReason::ConnectionLost;
            self.remove(core, key, Farewell::closed(reason));
        }
    }
}

fn kind_of(core: &Core, transport: TransportKey) -> Option<TransportKind> {
    core.directory.transports.get(&transport).map(|(_, kind)| *kind)
}
