//! Dual mode: the transport by which a participant only receives, on which the
//! node offers. Channels for data are opened before its first offer; one offer
//! is outstanding at a time; what changes meanwhile is in the next one.

use std::time::Instant;

use headwater_model::media::TrackKey;
use headwater_sdp::{Description, Negotiated, Offerer};

use crate::core::Core;
use crate::directory::ParticipantKey;
use crate::media::{ChannelReliability, MediaCommand};
use crate::negotiate::describe;
use crate::participant::Stage;
use crate::room::Room;
use crate::room::membership::Farewell;
use crate::session::{
    CloseAction, CloseReason, Event, SessionDescription, SubscriptionFailure, TransportKind,
};
use crate::timers::Timer;
use crate::transport::{DATA_TRACK_LABEL, LOSSY_LABEL, RELIABLE_LABEL, Transport, TransportState};

/// The transport the node offers on.
#[derive(Debug)]
pub(crate) struct SubscriberTransport {
    pub(crate) transport: Transport,
    offerer: Offerer,
    /// Number of the last offer.
    offer_id: u32,
    offered_at: Option<Instant>,
}

impl Room {
    /// Makes the transport and its channels.
    pub(crate) fn open_subscriber_transport(&mut self, core: &mut Core, key: ParticipantKey) {
        let place = self.place(key);
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let transport = Transport::open(core);
        core.directory.transports.insert(transport.key, (place, TransportKind::Subscriber));
        for (label, reliability) in [
            (RELIABLE_LABEL, ChannelReliability::Reliable),
            (LOSSY_LABEL, ChannelReliability::Lossy),
            (DATA_TRACK_LABEL, ChannelReliability::Lossy),
        ] {
            let transport = transport.key;
            core.order(MediaCommand::OpenChannel { transport, label, reliability });
        }
        participant.subscriber = Some(SubscriberTransport {
            transport,
            offerer: Offerer::new(),
            offer_id: 0,
            offered_at: None,
        });
    }

    /// Gives a subscribed track a section of the next offer. Without a free
    /// place it waits for one.
    pub(crate) fn attach_section(&mut self, key: ParticipantKey, track: TrackKey) {
        let Some(sending) = self.sending(key, track) else {
            return;
        };
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let Some(subscriber) = &mut participant.subscriber else {
            return;
        };
        let Some(subscription) = participant.subscriptions.get_mut(&track) else {
            return;
        };
        if let Some(mid) = subscriber.offerer.attach(subscription.kind, sending) {
            subscription.stage = Stage::Offered { mid };
        }
    }

    pub(crate) fn detach_section(&mut self, key: ParticipantKey, mid: &str) {
        let participant = self.participants.get_mut(&key);
        if let Some(subscriber) = participant.and_then(|one| one.subscriber.as_mut()) {
            subscriber.offerer.detach(mid);
        }
    }

    /// Offers what changed, unless an answer is awaited.
    pub(crate) fn offer_if_changed(&mut self, core: &mut Core, key: ParticipantKey) {
        let is_due = self
            .participants
            .get(&key)
            .and_then(|one| one.subscriber.as_ref())
            .is_some_and(|it| it.offerer.has_changed() && !it.offerer.is_waiting());
        if is_due {
            self.offer_now(core, key);
        }
    }

    /// Offers all sections as they are now, in place of an offer not answered.
    pub(crate) fn offer_now(&mut self, core: &mut Core, key: ParticipantKey) {
        let place = self.place(key);
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let Some(session) = participant.session() else {
            return;
        };
        let protocols = participant.protocols.clone();
        let Some(subscriber) = &mut participant.subscriber else {
            return;
        };
        let local = subscriber.transport.describe(core, &protocols);
        let offer = subscriber.offerer.offer(&local);
        subscriber.offer_id += 1;
        subscriber.offered_at = Some(core.now);
        let event = Event::Offer(SessionDescription {
            transport: TransportKind::Subscriber,
            sdp: offer.to_string(),
            offer_id: subscriber.offer_id,
            track_uid_by_mid: std::collections::BTreeMap::new(),
        });
        participant.negotiated_at = Some(core.now);
        participant.negotiate_at = None;
        core.timers.arm(core.now + core.config.timers.answer, Timer::Answer(place));
        core.tell(session, event);
    }

    /// Restarts ICE with the next offer, which is made at once.
    pub(crate) fn restart_subscriber_transport(&mut self, core: &mut Core, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let Some(subscriber) = &mut participant.subscriber else {
            return;
        };
        if subscriber.transport.remote.is_some() {
            subscriber.transport.restart_ice(core);
        }
        self.offer_now(core, key);
    }

    /// Reads the client's answer. One to an older offer is not heeded.
    pub(crate) fn take_answer(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        answer: &SessionDescription,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let Some(subscriber) = &mut participant.subscriber else {
            return;
        };
        // Clients built on the Rust SDK answer with number 0.
        let is_old = answer.offer_id != 0 && answer.offer_id != subscriber.offer_id;
        if is_old || !subscriber.offerer.is_waiting() {
            return;
        }
        let read =
            Description::parse(&answer.sdp).map_err(|error| describe(&error)).and_then(|sdp| {
                let remote = sdp.remote_transport().map_err(|error| describe(&error))?;
                let accepted = subscriber.offerer.accept(&sdp).map_err(|error| describe(&error))?;
                Ok((remote, accepted))
            });
        let (remote, accepted) = match read {
            Ok(read) => read,
            Err(message) => {
                self.protocol_error(core, key, message);
                return;
            }
        };
        let known = subscriber.transport.remote.as_ref();
        if known.is_some_and(|known| known.fingerprint != remote.fingerprint) {
            self.remove(core, key, Farewell::closed(CloseReason::StateMismatch));
            return;
        }
        let restarted = known.is_some_and(|known| known.credentials != remote.credentials);
        let is_saved =
            matches!(subscriber.transport.state, TransportState::Failed { recoverable: true, .. });
        if restarted && is_saved {
            subscriber.transport.state = TransportState::Connecting;
        }
        subscriber.offered_at = None;
        subscriber.transport.set_remote(core, remote);
        for section in accepted {
            let Some(track) = self.track_of_section(key, &section.mid) else {
                continue;
            };
            if section.codecs.is_empty() {
                let failure = SubscriptionFailure::CodecUnsupported;
                self.refuse_subscription(core, key, track, failure);
                continue;
            }
            let negotiated = Negotiated {
                receives: false,
                sends: true,
                codecs: section.codecs,
                extensions: section.extensions,
            };
            let kind = TransportKind::Subscriber;
            self.go_live(core, key, track, kind, section.mid, negotiated);
        }
        self.give_waiting_sections(key);
        let has_changed = self
            .participants
            .get(&key)
            .and_then(|one| one.subscriber.as_ref())
            .is_some_and(|it| it.offerer.has_changed());
        if has_changed {
            self.request_negotiation(core, key);
        }
    }

    fn track_of_section(&self, key: ParticipantKey, mid: &str) -> Option<TrackKey> {
        let participant = self.participants.get(&key)?;
        participant
            .subscriptions
            .iter()
            .find(|(_, subscription)| match &subscription.stage {
                Stage::Offered { mid: own } => own == mid,
                Stage::Live { parameters, .. } => parameters.mid == mid,
                Stage::Waiting | Stage::Refused => false,
            })
            .map(|(track, _)| *track)
    }

    /// Sections may have become free for those that found none.
    fn give_waiting_sections(&mut self, key: ParticipantKey) {
        let Some(participant) = self.participants.get(&key) else {
            return;
        };
        let waiting: Vec<TrackKey> = participant
            .subscriptions
            .iter()
            .filter(|(_, subscription)| subscription.stage == Stage::Waiting)
            .map(|(track, _)| *track)
            .collect();
        for track in waiting {
            self.attach_section(key, track);
        }
    }

    /// An offer went unanswered for too long: the client starts over.
    pub(crate) fn answer_due(&mut self, core: &mut Core, key: ParticipantKey) {
        let Some(participant) = self.participants.get(&key) else {
            return;
        };
        let Some(subscriber) = &participant.subscriber else {
            return;
        };
        let wait = core.config.timers.answer;
        let is_over = participant.session().is_some()
            && subscriber.offerer.is_waiting()
            && subscriber.offered_at.is_some_and(|at| at + wait <= core.now);
        if is_over {
            let message = "an offer was not answered".to_owned();
            let farewell =
                Farewell::told(CloseReason::ConnectionLost, CloseAction::Reconnect, message);
            self.remove(core, key, farewell);
        }
    }
}
