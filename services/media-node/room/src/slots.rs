//! Fixed sections: a client that negotiates once and never again (WHEP) is sent
//! one track after another in the same section, under the same SSRC. What it
//! subscribes to waits until a section is free. And ICE restarts of such
//! clients, which come apart from an offer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use headwater_model::media::{Codec, MediaKind, TrackKey};
use headwater_sdp::{CandidateProtocol, Description, IceCredentials, RemoteTransport, Sending};

use crate::core::Core;
use crate::directory::ParticipantKey;
use crate::negotiate::codecs_of;
use crate::participant::Participant;
use crate::room::Room;
use crate::room::membership::Farewell;
use crate::session::{CloseReason, Event, TransportKind};
use crate::transport::{Outgoing, Slot};

impl Room {
    /// Gives subscribed tracks that wait the free fixed sections, and forwards
    /// them at once: the client agreed to whatever comes in them.
    pub(crate) fn fill_slots(&mut self, core: &mut Core, key: ParticipantKey) {
        for (mid, kind, codecs) in self.free_slots(key) {
            let Some(track) = self.next_waiting(core, key, kind, &codecs) else {
                continue;
            };
            if let Some(agreed) = self.place_in_section(key, &mid, track) {
                self.go_live(core, key, track, TransportKind::Publisher, mid, agreed);
            }
        }
    }

    /// Fixed sections without a track, in the order of the offer, with the
    /// codecs agreed.
    fn free_slots(&self, key: ParticipantKey) -> Vec<(String, MediaKind, Vec<Codec>)> {
        let publisher = self.participants.get(&key).and_then(|one| one.publisher.as_ref());
        let sections = publisher.into_iter().flat_map(|publisher| &publisher.sections);
        let mut free: Vec<_> = sections
            .filter(|(_, section)| section.receives && section.outgoing == Outgoing::Free)
            .filter_map(|(mid, section)| {
                let agreed = section.slot.as_ref()?.agreed.as_ref()?;
                Some((section.index, mid.clone(), section.kind, codecs_of(&agreed.codecs)))
            })
            .collect();
        // Pictures first: sound follows the picture it belongs to.
        free.sort_by_key(|(index, _, kind, _)| (*kind == MediaKind::Audio, *index));
        free.into_iter().map(|(_, mid, kind, codecs)| (mid, kind, codecs)).collect()
    }

    /// Reserves a section for a track; in a fixed one the track takes its SSRCs.
    /// Tells what was agreed for a fixed one.
    pub(crate) fn place_in_section(
        &mut self,
        key: ParticipantKey,
        mid: &str,
        track: TrackKey,
    ) -> Option<headwater_sdp::Negotiated> {
        let participant = self.participants.get_mut(&key)?;
        let section = participant.publisher.as_mut()?.sections.get_mut(mid)?;
        section.outgoing = Outgoing::Sending(track);
        let slot = section.slot.as_ref()?;
        if let Some(subscription) = participant.subscriptions.get_mut(&track) {
            subscription.ssrc = slot.ssrc;
            subscription.rtx_ssrc = slot.rtx_ssrc;
        }
        slot.agreed.clone()
    }

    /// Which track a free fixed section gets first: one of somebody who is
    /// shown or heard already, then one that is not muted, then the oldest.
    pub(crate) fn slot_order(
        &self,
        placed: &BTreeSet<TrackKey>,
        track: TrackKey,
    ) -> (Reverse<bool>, bool, TrackKey) {
        let publisher = |key: &TrackKey| self.tracks.get(key).map(|track| track.publisher);
        let own = publisher(&track);
        let belongs = own.is_some() && placed.iter().any(|other| publisher(other) == own);
        let muted = self.tracks.get(&track).is_some_and(|track| track.declared.muted);
        (Reverse(belongs), muted, track)
    }

    /// The client restarts ICE apart from an offer: it is told the node's side.
    pub(crate) fn restart_ice(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        credentials: IceCredentials,
    ) {
        let known = self
            .participants
            .get(&key)
            .and_then(|one| one.transport(TransportKind::Publisher)?.remote.clone());
        let restarted = known.is_some_and(|remote| {
            self.take_remote(core, key, RemoteTransport { credentials, ..remote })
        });
        let transport =
            self.participants.get(&key).and_then(|one| one.transport(TransportKind::Publisher));
        let Some(transport) = transport.filter(|_| restarted) else {
            self.remove(core, key, Farewell::closed(CloseReason::StateMismatch));
            return;
        };
        let protocols: &[CandidateProtocol] =
            self.participants.get(&key).map_or(&[], |one| &one.protocols);
        let event = Event::IceRestarted {
            credentials: transport.credentials().clone(),
            candidates: core.candidates(protocols),
        };
        self.tell(core, key, event);
    }
}

impl Participant {
    /// Slots for the offer's sections that the client receives in and that have
    /// none yet. None if its sections are not fixed.
    pub(crate) fn new_slots(&mut self, sdp: &Description) -> BTreeMap<String, Slot> {
        let mut slots = BTreeMap::new();
        if !self.fixed_sections {
            return slots;
        }
        for section in &sdp.sections {
            let receives = !section.is_rejected() && section.direction.receives();
            let Some(kind) = section.media_kind().filter(|_| receives) else {
                continue;
            };
            let has_slot = self
                .publisher
                .as_ref()
                .and_then(|publisher| publisher.sections.get(&section.mid))
                .is_some_and(|known| known.slot.is_some());
            if !has_slot {
                let ssrc = self.take_ssrc();
                let rtx_ssrc = (kind == MediaKind::Video).then(|| self.take_ssrc());
                slots.insert(section.mid.clone(), Slot { ssrc, rtx_ssrc, agreed: None });
            }
        }
        slots
    }

    /// How a fixed section is written, whatever it carries at the moment: all
    /// of them belong to one stream, so that players play them in step.
    pub(crate) fn sending_in_slot(&self, mid: &str, slot: &Slot) -> Sending {
        Sending {
            stream_id: self.uid.as_str().to_owned(),
            track_id: format!("{}-{mid}", self.uid),
            cname: self.uid.as_str().to_owned(),
            ssrc: slot.ssrc,
            rtx_ssrc: slot.rtx_ssrc,
            stereo: true,
            preferred: None,
        }
    }
}
