//! The node's own offers, for the transport on which a client of LiveKit's v0
//! shape only receives. Sections keep their places for ever; one whose track
//! ended is offered inactive and, once that is answered, used again.

use headwater_model::media::{ExtensionIds, MediaKind, PayloadMapping};

use crate::SECTIONS_MAX;
use crate::answer::{LocalTransport, Sending, write_sending};
use crate::codecs::{answered_codecs, answered_extensions, own_codecs, own_extensions};
use crate::description::{Description, Direction, Fingerprint, Section, SectionKind, Setup};
use crate::error::AnswerError;

/// Makes offers and reads their answers. Calls come in this order: any number
/// of [`Offerer::attach`] and [`Offerer::detach`], then [`Offerer::offer`], then
/// [`Offerer::accept`]. Changes between an offer and its answer are fine; they
/// are in the next offer.
#[derive(Debug)]
pub struct Offerer {
    slots: Vec<Slot>,
    has_changed: bool,
    /// How many media sections the outstanding offer has.
    outstanding: Option<usize>,
}

/// One media section. Its mid is its index plus one: the application section
/// comes first and has mid 0.
#[derive(Debug)]
struct Slot {
    kind: MediaKind,
    state: SlotState,
    /// The last offer had it active.
    offered_active: bool,
}

#[derive(Debug)]
enum SlotState {
    /// Inactive, and the client knows: may be used.
    Free,
    /// Carries a track.
    Attached(Sending),
    /// Its track ended, the client does not know yet.
    Leaving,
    /// The client rejected it: never used again.
    Dead,
}

/// What a client agreed to for a section with a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedSection {
    /// Mid of the section.
    pub mid: String,
    /// Codecs the client takes, in its order. Empty if it refuses the track.
    pub codecs: Vec<PayloadMapping>,
    /// Header extensions.
    pub extensions: ExtensionIds,
}

impl Default for Offerer {
    fn default() -> Self {
        Self::new()
    }
}

impl Offerer {
    /// With the section for data channels only.
    #[must_use]
    pub const fn new() -> Self {
        Self { slots: Vec::new(), has_changed: true, outstanding: None }
    }

    /// Gives a track a section, a free one of its kind or a new one, and tells
    /// its mid. None if there are [`SECTIONS_MAX`] sections and none is free.
    pub fn attach(&mut self, kind: MediaKind, sending: Sending) -> Option<String> {
        let free = self
            .slots
            .iter()
            .position(|slot| slot.kind == kind && matches!(slot.state, SlotState::Free));
        let index = match free {
            Some(index) => index,
            None if self.slots.len() + 1 < SECTIONS_MAX => {
                self.slots.push(Slot { kind, state: SlotState::Free, offered_active: false });
                self.slots.len() - 1
            }
            None => return None,
        };
        self.slots[index].state = SlotState::Attached(sending);
        self.has_changed = true;
        Some(mid_of(index))
    }

    /// Takes the track off a section. Unknown mids are ignored.
    pub fn detach(&mut self, mid: &str) {
        let Some(slot) = index_of(mid).and_then(|index| self.slots.get_mut(index)) else {
            return;
        };
        if let SlotState::Attached(_) = slot.state {
            // A section the client never saw active has nothing to take back.
            slot.state = if slot.offered_active { SlotState::Leaving } else { SlotState::Free };
            self.has_changed = true;
        }
    }

    /// Whether something changed since the last offer.
    #[must_use]
    pub const fn has_changed(&self) -> bool {
        self.has_changed
    }

    /// Whether an offer waits for its answer.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        self.outstanding.is_some()
    }

    /// The offer of all sections as they are now. An offer still outstanding is
    /// replaced: the client may or may not have seen it.
    #[must_use]
    pub fn offer(&mut self, local: &LocalTransport) -> Description {
        let mut sections = vec![application_section(local)];
        for (index, slot) in self.slots.iter_mut().enumerate() {
            sections.push(media_section(slot, mid_of(index), local));
            slot.offered_active = matches!(slot.state, SlotState::Attached(_));
        }
        self.has_changed = false;
        self.outstanding = Some(self.slots.len());
        Description {
            session_id: local.session_id,
            session_version: local.session_version,
            ice_lite: true,
            extmap_allow_mixed: true,
            bundle: sections
                .iter()
                .filter(|section| !section.is_rejected())
                .map(|section| section.mid.clone())
                .collect(),
            sections,
        }
    }

    /// Reads the answer to the outstanding offer: tells each section that
    /// carries a track and was in that offer.
    ///
    /// # Errors
    /// If it does not fit the offer, which then stays outstanding.
    pub fn accept(&mut self, answer: &Description) -> Result<Vec<AcceptedSection>, AnswerError> {
        let count = self.outstanding.ok_or(AnswerError::NoOffer)?;
        if answer.sections.len() != count + 1 {
            return Err(AnswerError::SectionCount {
                found: answer.sections.len(),
                offered: count + 1,
            });
        }
        self.check_places(answer)?;
        self.outstanding = None;
        let mut accepted = Vec::new();
        for (index, (slot, section)) in self.slots.iter_mut().zip(&answer.sections[1..]).enumerate()
        {
            if section.is_rejected() && !matches!(slot.state, SlotState::Dead) {
                if let SlotState::Attached(_) = slot.state {
                    accepted.push(refused(mid_of(index)));
                }
                slot.state = SlotState::Dead;
                self.has_changed = true;
                continue;
            }
            match slot.state {
                SlotState::Leaving if !slot.offered_active => slot.state = SlotState::Free,
                SlotState::Attached(ref sending) if slot.offered_active => {
                    accepted.push(read_section(mid_of(index), slot.kind, sending, section));
                }
                SlotState::Free | SlotState::Leaving | SlotState::Attached(_) | SlotState::Dead => {
                }
            }
        }
        Ok(accepted)
    }

    fn check_places(&self, answer: &Description) -> Result<(), AnswerError> {
        for (index, section) in answer.sections.iter().enumerate() {
            let fits = match index.checked_sub(1).and_then(|index| self.slots.get(index)) {
                Some(slot) => section.kind == SectionKind::Media(slot.kind),
                None => section.kind == SectionKind::Application,
            };
            let mid_fits = section.mid.is_empty() || section.mid == index.to_string();
            if !fits || !mid_fits {
                return Err(AnswerError::SectionMismatch { section: index });
            }
        }
        Ok(())
    }
}

fn mid_of(index: usize) -> String {
    (index + 1).to_string()
}

fn index_of(mid: &str) -> Option<usize> {
    mid.parse::<usize>().ok()?.checked_sub(1)
}

fn refused(mid: String) -> AcceptedSection {
    AcceptedSection { mid, codecs: Vec::new(), extensions: ExtensionIds::default() }
}

fn read_section(
    mid: String,
    kind: MediaKind,
    sending: &Sending,
    section: &Section,
) -> AcceptedSection {
    if !section.direction.receives() {
        return refused(mid);
    }
    AcceptedSection {
        mid,
        codecs: answered_codecs(&own_codecs(kind, Some(sending)), section),
        extensions: answered_extensions(section),
    }
}

fn application_section(local: &LocalTransport) -> Section {
    let mut section = Section::new(SectionKind::Application, "0");
    section.formats = vec!["webrtc-datachannel".to_owned()];
    section.sctp_port = Some(5000);
    section.max_message_size = Some(local.max_message_size);
    add_transport(&mut section, local);
    section.candidates.clone_from(&local.candidates);
    section
}

fn media_section(slot: &Slot, mid: String, local: &LocalTransport) -> Section {
    let mut section = Section::new(SectionKind::Media(slot.kind), mid);
    let sending = match &slot.state {
        SlotState::Attached(sending) => Some(sending),
        SlotState::Free | SlotState::Leaving | SlotState::Dead => None,
    };
    section.codecs = own_codecs(slot.kind, sending);
    section.formats = section.codecs.iter().map(|codec| codec.payload_type.to_string()).collect();
    section.direction = Direction::new(sending.is_some(), false);
    if let SlotState::Dead = slot.state {
        section.port = 0;
        return section;
    }
    section.extensions = own_extensions(slot.kind);
    section.rtcp_mux = true;
    section.rtcp_rsize = true;
    add_transport(&mut section, local);
    if let Some(sending) = sending {
        write_sending(&mut section, sending, slot.kind == MediaKind::Video);
    }
    section
}

fn add_transport(section: &mut Section, local: &LocalTransport) {
    section.ice = Some(local.credentials.clone());
    section.fingerprints =
        vec![Fingerprint { algorithm: "sha-256".to_owned(), value: local.fingerprint.clone() }];
    section.setup = Some(Setup::ActPass);
}
