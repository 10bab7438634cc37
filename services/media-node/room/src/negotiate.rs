//! Offers of the client: on its only transport (single mode) or on the one it
//! publishes by (dual mode). Its media is bound to tracks, subscribed tracks are
//! given its free sections, and the answer tells which section carries what.

use std::collections::{BTreeMap, BTreeSet};

use headwater_model::TrackUid;
use headwater_model::media::{Codec, MediaKind, PayloadMapping, TrackKey};
use headwater_sdp::{
    Description, Negotiated, Receiving, RemoteTransport, Section, SectionDecision, Sending, answer,
};

use crate::core::Core;
use crate::directory::ParticipantKey;
use crate::participant::Stage;
use crate::room::Room;
use crate::room::membership::Farewell;
use crate::session::{
    CloseReason, Event, SessionDescription, SubscriptionFailure, TransportKind, TransportMode,
};
use crate::track::Track;
use crate::transport::{
    Asked, Incoming, MediaSection, OfferedMedia, Outgoing, PublisherTransport, Transport,
    TransportState,
};

impl Room {
    /// Answers an offer of the client.
    pub(crate) fn take_offer(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        offer: &SessionDescription,
    ) {
        let read =
            Description::parse(&offer.sdp).map_err(|error| describe(&error)).and_then(|sdp| {
                let remote = sdp.remote_transport().map_err(|error| describe(&error))?;
                Ok((sdp, remote))
            });
        let (sdp, remote) = match read {
            Ok(read) => read,
            Err(message) => {
                self.protocol_error(core, key, message);
                return;
            }
        };
        if !self.take_remote(core, key, remote) {
            let reason = CloseReason::StateMismatch;
            self.remove(core, key, Farewell::closed(reason));
            return;
        }
        self.note_sections(core, key, &sdp);
        self.serve_queued(core, key);
        let matched = self.match_media(key, &sdp);
        self.place_waiting(core, key, &sdp);
        self.answer_offer(core, key, offer.offer_id, &sdp, matched);
    }

    /// What the client wrote cannot be understood: it starts over.
    pub(crate) fn protocol_error(&mut self, core: &mut Core, key: ParticipantKey, message: String) {
        let reason = CloseReason::ProtocolError;
        self.remove(core, key, Farewell::told(reason, reason.action(), message));
    }

    /// Opens the transport, or notes an ICE restart. False if the client came
    /// with another certificate (that is another peer connection, whose state
    /// the node does not have), or if no restart brings the transport back.
    pub(crate) fn take_remote(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        remote: RemoteTransport,
    ) -> bool {
        let place = self.place(key);
        let Some(participant) = self.participants.get_mut(&key) else {
            return false;
        };
        let publisher = participant.publisher.get_or_insert_with(|| {
            let transport = Transport::open(core);
            core.directory.transports.insert(transport.key, (place, TransportKind::Publisher));
            PublisherTransport { transport, sections: BTreeMap::new(), asked: Asked::default() }
        });
        let transport = &mut publisher.transport;
        if let Some(known) = transport.remote.clone() {
            if known.fingerprint != remote.fingerprint || !transport.is_recoverable() {
                return false;
            }
            if known.credentials != remote.credentials {
                transport.restart_ice(core);
                if let TransportState::Failed { .. } = transport.state {
                    transport.state = TransportState::Connecting;
                }
            }
        }
        transport.set_remote(core, remote);
        true
    }

    /// Takes the offer's sections over, and ends tracks that are in it no more.
    fn note_sections(&mut self, core: &mut Core, key: ParticipantKey, sdp: &Description) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let mut slots = participant.new_slots(sdp);
        let Some(publisher) = &mut participant.publisher else {
            return;
        };
        let (mut ended, mut unplaced) = (Vec::new(), Vec::new());
        // A place may be taken by a section with another mid (RFC 8829 5.2.2).
        publisher.sections.retain(|mid, section| {
            let stays =
                sdp.section(mid).is_some_and(|offered| offered.media_kind() == Some(section.kind));
            if !stays {
                if let Incoming::Bound { track, .. } = section.incoming {
                    ended.push(track);
                }
                if let Outgoing::Sending(track) = section.outgoing {
                    unplaced.push(track);
                }
            }
            stays
        });
        for (index, section) in sdp.sections.iter().enumerate() {
            let Some(kind) = section.media_kind() else {
                continue;
            };
            if section.mid.is_empty() {
                continue;
            }
            let known = publisher.sections.entry(section.mid.clone()).or_insert(MediaSection {
                kind,
                index,
                receives: false,
                incoming: Incoming::Nothing,
                outgoing: Outgoing::Free,
                slot: None,
            });
            if known.slot.is_none() {
                known.slot = slots.remove(&section.mid);
            }
            known.index = index;
            known.receives = !section.is_rejected() && section.direction.receives();
            let sends = !section.is_rejected() && section.direction.sends();
            let media_id = section.track_id().unwrap_or_default();
            match &known.incoming {
                Incoming::Bound { track, media_id: bound } if !sends || bound != media_id => {
                    ended.push(*track);
                    known.incoming = Incoming::Nothing;
                }
                Incoming::Parked(_) => known.incoming = Incoming::Nothing,
                Incoming::Bound { .. } | Incoming::Nothing => {}
            }
        }
        for track in ended {
            self.end_track(core, track);
        }
        for track in unplaced {
            self.restart_subscription(core, key, track);
        }
    }

    /// Which announced or bound track each section of the offer is.
    fn match_media(&self, key: ParticipantKey, sdp: &Description) -> Vec<Option<TrackKey>> {
        let mut matched = vec![None; sdp.sections.len()];
        let Some(participant) = self.participants.get(&key) else {
            return matched;
        };
        let Some(publisher) = &participant.publisher else {
            return matched;
        };
        let mut open: Vec<TrackKey> = participant.pending.clone();
        let mut unknown = Vec::new();
        for (index, section) in sdp.sections.iter().enumerate() {
            let sends = !section.is_rejected() && section.direction.sends();
            let Some(kind) = section.media_kind().filter(|_| sends) else {
                continue;
            };
            let known = publisher.sections.get(&section.mid).map(|known| &known.incoming);
            if let Some(Incoming::Bound { track, .. }) = known {
                matched[index] = Some(*track);
                continue;
            }
            let id = section.track_id().unwrap_or_default();
            let fits = |track: &TrackKey| {
                self.tracks
                    .get(track)
                    .is_some_and(|track| track.kind == kind && track.has_client_id(id))
            };
            match open.iter().position(fits) {
                Some(place) => matched[index] = Some(open.remove(place)),
                None => unknown.push((index, kind)),
            }
        }
        // Ids that the client rewrote: by kind, in order.
        for (index, kind) in unknown {
            let fits =
                |track: &TrackKey| self.tracks.get(track).is_some_and(|track| track.kind == kind);
            if let Some(place) = open.iter().position(fits) {
                matched[index] = Some(open.remove(place));
            }
        }
        matched
    }

    /// Gives subscribed tracks that wait the client's free sections, in order.
    fn place_waiting(&mut self, core: &mut Core, key: ParticipantKey, sdp: &Description) {
        let places = self
            .participants
            .get(&key)
            .is_some_and(|one| one.mode == TransportMode::Single && !one.fixed_sections);
        if !places {
            return;
        }
        for section in &sdp.sections {
            let Some(kind) = section.media_kind() else {
                continue;
            };
            let free = |known: &MediaSection| known.receives && known.outgoing == Outgoing::Free;
            let is_free = self
                .participants
                .get(&key)
                .and_then(|one| one.publisher.as_ref()?.sections.get(&section.mid))
                .is_some_and(free);
            if !is_free {
                continue;
            }
            let codecs: Vec<Codec> =
                section.codecs.iter().filter_map(|codec| codec.codec()).collect();
            if let Some(track) = self.next_waiting(core, key, kind, &codecs) {
                self.place_in_section(key, &section.mid, track);
            }
        }
    }

    /// The oldest subscription of a kind without a section. Those whose codec
    /// the section cannot carry are refused.
    pub(crate) fn next_waiting(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        kind: MediaKind,
        codecs: &[Codec],
    ) -> Option<TrackKey> {
        loop {
            let participant = self.participants.get(&key)?;
            let placed: BTreeSet<TrackKey> = participant
                .publisher
                .iter()
                .flat_map(|publisher| publisher.sections.values())
                .filter_map(|section| match section.outgoing {
                    Outgoing::Sending(track) => Some(track),
                    Outgoing::Free | Outgoing::Leaving => None,
                })
                .collect();
            let mut waiting = participant
                .subscriptions
                .iter()
                .filter(|(track, subscription)| {
                    subscription.kind == kind
                        && subscription.stage == Stage::Waiting
                        && !placed.contains(track)
                })
                .map(|(track, _)| *track);
            let track = if participant.fixed_sections {
                waiting.min_by_key(|track| self.slot_order(&placed, *track))
            } else {
                waiting.next()
            }?;
            let carried = self.tracks.get(&track).is_some_and(|track| track.is_carried_by(codecs));
            if carried {
                return Some(track);
            }
            self.refuse_subscription(core, key, track, SubscriptionFailure::CodecUnsupported);
        }
    }

    fn answer_offer(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        offer_id: u32,
        sdp: &Description,
        matched: Vec<Option<TrackKey>>,
    ) {
        let decisions: Vec<SectionDecision> = sdp
            .sections
            .iter()
            .zip(&matched)
            .map(|(section, track)| self.decide(key, section, *track))
            .collect();
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let protocols = participant.protocols.clone();
        let Some(publisher) = &mut participant.publisher else {
            return;
        };
        let local = publisher.transport.describe(core, &protocols);
        publisher.asked = Asked::default();
        participant.negotiated_at = Some(core.now);
        let answered = answer(sdp, &local, &decisions);
        let mut received = Vec::new();
        let mut sent = Vec::new();
        for ((section, negotiated), track) in
            sdp.sections.iter().zip(answered.sections).zip(matched)
        {
            if negotiated.receives {
                received.extend(self.note_incoming(key, section, &negotiated, track));
            }
            sent.push((section.mid.clone(), negotiated));
        }
        for (track, media) in &received {
            self.publish(core, *track, media);
        }
        let event = Event::Answer(SessionDescription {
            transport: TransportKind::Publisher,
            sdp: answered.description.to_string(),
            offer_id,
            track_uid_by_mid: self.tracks_by_mid(key, &received),
        });
        self.tell(core, key, event);
        for (mid, negotiated) in sent {
            self.note_outgoing(core, key, &mid, negotiated);
        }
        for (track, media) in received {
            let is_new =
                self.participants.get(&key).is_some_and(|one| !one.tracks.contains(&track));
            if is_new {
                self.bind(core, key, track, media);
            }
        }
        let answered = self.participants.get(&key).map(|one| (one.mode, one.fixed_sections));
        match answered {
            Some((_, true)) => self.fill_slots(core, key),
            Some((TransportMode::Single, false)) => self.ask_for_sections(core, key),
            Some((TransportMode::Dual, false)) | None => {}
        }
    }

    fn decide(
        &self,
        key: ParticipantKey,
        section: &Section,
        track: Option<TrackKey>,
    ) -> SectionDecision {
        let Some(participant) = self.participants.get(&key) else {
            return SectionDecision::default();
        };
        let declared = track.and_then(|track| self.tracks.get(&track));
        let receive = Receiving {
            preferred: declared.filter(|it| !it.declared.codecs.is_empty()).and_then(|it| it.codec),
            allowed: participant.publish_codecs.clone(),
            stereo: declared.is_some_and(|track| track.declared.stereo),
            dtx: declared.is_none_or(|track| !track.declared.disable_dtx),
            // Media that nobody announced yet may turn out to be encrypted.
            red: declared.is_some_and(Track::takes_red),
        };
        let known = participant
            .publisher
            .as_ref()
            .and_then(|publisher| publisher.sections.get(&section.mid));
        let send = match known.map(|known| (known.outgoing, &known.slot)) {
            Some((_, Some(slot))) => Some(participant.sending_in_slot(&section.mid, slot)),
            Some((Outgoing::Sending(track), None)) => self.sending(key, track),
            Some((Outgoing::Free | Outgoing::Leaving, None)) | None => None,
        };
        let may_publish = participant.permission.can_publish || track.is_some();
        SectionDecision { receive: may_publish.then_some(receive), send }
    }

    /// How a subscribed track is written into a section.
    pub(crate) fn sending(&self, subscriber: ParticipantKey, track: TrackKey) -> Option<Sending> {
        let subscription = self.participants.get(&subscriber)?.subscriptions.get(&track)?;
        let track = self.tracks.get(&track)?;
        let publisher = self.participants.get(&track.publisher)?;
        Some(Sending {
            stream_id: format!("{}|{}", publisher.uid, track.uid),
            track_id: track.uid.as_str().to_owned(),
            cname: publisher.uid.as_str().to_owned(),
            ssrc: subscription.ssrc,
            rtx_ssrc: subscription.rtx_ssrc,
            stereo: track.declared.stereo,
            preferred: track.codec,
        })
    }

    /// Notes the media of a section; tells the track it belongs to, if any.
    fn note_incoming(
        &mut self,
        key: ParticipantKey,
        section: &Section,
        negotiated: &Negotiated,
        track: Option<TrackKey>,
    ) -> Option<(TrackKey, OfferedMedia)> {
        let kind = section.media_kind()?;
        let publisher = self.participants.get_mut(&key)?.publisher.as_mut()?;
        let known = publisher.sections.get_mut(&section.mid)?;
        let media = OfferedMedia {
            kind,
            mid: section.mid.clone(),
            media_id: section.track_id().unwrap_or_default().to_owned(),
            negotiated: negotiated.clone(),
            encodings: section.sent_encodings(),
        };
        match track {
            Some(track) => Some((track, media)),
            None => {
                known.incoming = Incoming::Parked(media);
                None
            }
        }
    }

    /// Notes what became of a section that was to carry a subscribed track.
    fn note_outgoing(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        mid: &str,
        negotiated: Negotiated,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let Some(known) =
            participant.publisher.as_mut().and_then(|publisher| publisher.sections.get_mut(mid))
        else {
            return;
        };
        if let Some(slot) = &mut known.slot {
            slot.agreed = negotiated.sends.then(|| negotiated.clone());
        }
        match known.outgoing {
            Outgoing::Free => {}
            Outgoing::Leaving => known.outgoing = Outgoing::Free,
            Outgoing::Sending(track) if negotiated.sends => {
                let transport = TransportKind::Publisher;
                self.go_live(core, key, track, transport, mid.to_owned(), negotiated);
            }
            Outgoing::Sending(track) => {
                known.outgoing = Outgoing::Free;
                let can_receive = known.receives;
                if can_receive {
                    let failure = SubscriptionFailure::CodecUnsupported;
                    self.refuse_subscription(core, key, track, failure);
                } else {
                    self.restart_subscription(core, key, track);
                }
            }
        }
    }

    fn tracks_by_mid(
        &self,
        key: ParticipantKey,
        bound: &[(TrackKey, OfferedMedia)],
    ) -> BTreeMap<String, TrackUid> {
        let mut tracks = BTreeMap::new();
        let Some(participant) = self.participants.get(&key) else {
            return tracks;
        };
        let uid = |track: &TrackKey| self.tracks.get(track).map(|track| track.uid.clone());
        for (track, media) in bound {
            tracks.extend(uid(track).map(|uid| (media.mid.clone(), uid)));
        }
        for (mid, section) in participant.publisher.iter().flat_map(|it| &it.sections) {
            if let Outgoing::Sending(track) = section.outgoing {
                tracks.extend(uid(&track).map(|uid| (mid.clone(), uid)));
            }
        }
        tracks
    }
}

impl Track {
    /// Whether its publisher is asked for redundancy. Of encrypted payloads no blocks
    /// could be read, so that only subscribers with RED could hear it.
    fn takes_red(&self) -> bool {
        !self.declared.disable_red && !self.declared.encrypted
    }

    /// Whether a subscriber that takes these codecs can take this track.
    pub(crate) fn is_carried_by(&self, codecs: &[Codec]) -> bool {
        match (self.codec, &self.published) {
            (Some(codec), _) => codecs.contains(&codec),
            (None, Some(published)) => published.codecs.iter().any(|codec| codecs.contains(codec)),
            (None, None) => true,
        }
    }
}

/// The codecs of a negotiated section.
pub(crate) fn codecs_of(mappings: &[PayloadMapping]) -> Vec<Codec> {
    mappings.iter().map(|mapping| mapping.codec).collect()
}

/// An error with its causes, for the last word to a client.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
