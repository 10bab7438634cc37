//! The answer to a client's offer (RFC 8829 5.3), for a node that is ICE-lite,
//! waits for DTLS and bundles everything onto one transport.

use headwater_model::media::{Codec, ExtensionIds, PayloadMapping};

use crate::codecs::{Selection, select, select_extensions};
use crate::description::{
    Candidate, Description, Direction, Fingerprint, IceCredentials, Msid, Rid, Section,
    SectionKind, Setup, Source, SourceGroup,
};
use crate::error::TransportError;

/// The node's side of a transport.
#[derive(Debug, Clone)]
pub struct LocalTransport {
    /// Credentials of this transport.
    pub credentials: IceCredentials,
    /// SHA-256 fingerprint of the node's certificate: hex bytes with colons.
    pub fingerprint: String,
    /// Where the node is reached, best first. All of them: nothing trickles.
    pub candidates: Vec<Candidate>,
    /// Longest data message the node takes, in bytes.
    pub max_message_size: u64,
    /// Session id of the `o=` line, below 2^63.
    pub session_id: u64,
    /// Session version of the `o=` line; rises with every description.
    pub session_version: u64,
}

/// The client's side of a transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteTransport {
    /// Credentials; changed ones are an ICE restart.
    pub credentials: IceCredentials,
    /// SHA-256 fingerprint: upper-case hex bytes with colons.
    pub fingerprint: String,
    /// Longest data message the client takes, in bytes; 0 means any. Absent if
    /// there is no section for data.
    pub max_message_size: Option<u64>,
}

/// What the node does with one section of an offer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SectionDecision {
    /// Take the client's media, and how. Without effect if the client sends none.
    pub receive: Option<Receiving>,
    /// Send a track, and which. Without effect if the client receives none.
    pub send: Option<Sending>,
}

/// How the client's media is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receiving {
    /// The codec to put first.
    pub preferred: Option<Codec>,
    /// Codecs that may be sent, best first. A kind of which it names none is free.
    pub allowed: Vec<Codec>,
    /// Ask for stereo.
    pub stereo: bool,
    /// Let the client pause during silence.
    pub dtx: bool,
    /// Ask for redundancy (RED, RFC 2198) around Opus. Right for payloads only that may
    /// be read: behind end-to-end encryption nobody could take the redundancy off.
    pub red: bool,
}

impl Receiving {
    pub(crate) fn allows(&self, codec: Codec) -> bool {
        self.allowed.contains(&codec)
            || self.allowed.iter().all(|other| other.kind() != codec.kind())
    }
}

/// The track that is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// Id of the stream, `PA_…|TR_…`.
    pub stream_id: String,
    /// Id of the track, `TR_…`.
    pub track_id: String,
    /// Canonical name.
    pub cname: String,
    /// SSRC.
    pub ssrc: u32,
    /// SSRC of retransmissions.
    pub rtx_ssrc: Option<u32>,
    /// The track is stereo.
    pub stereo: bool,
    /// The codec to put first.
    pub preferred: Option<Codec>,
}

/// One encoding a client sends, as its SDP tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SentEncoding {
    /// RID, if it has one.
    pub rid: Option<String>,
    /// SSRC, if told.
    pub ssrc: Option<u32>,
    /// SSRC of retransmissions, if told.
    pub rtx_ssrc: Option<u32>,
}

/// What was agreed for one section.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Negotiated {
    /// The client's media is taken.
    pub receives: bool,
    /// The track is sent.
    pub sends: bool,
    /// Codecs, in the order of the answer.
    pub codecs: Vec<PayloadMapping>,
    /// Header extensions.
    pub extensions: ExtensionIds,
}

/// An answer, and what it agrees to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The answer.
    pub description: Description,
    /// What was agreed, for each section.
    pub sections: Vec<Negotiated>,
}

/// Answers an offer. `decisions` has one entry for each section; missing ones
/// take and send nothing. Sections that cannot be carried (no codec in common,
/// no RTCP multiplexing, outside the BUNDLE group) are rejected with port 0.
#[must_use]
pub fn answer(
    offer: &Description,
    local: &LocalTransport,
    decisions: &[SectionDecision],
) -> Answer {
    let mut description = Description {
        session_id: local.session_id,
        session_version: local.session_version,
        ice_lite: true,
        extmap_allow_mixed: offer.extmap_allow_mixed,
        bundle: Vec::new(),
        sections: Vec::with_capacity(offer.sections.len()),
    };
    let mut negotiated = Vec::with_capacity(offer.sections.len());
    let nothing = SectionDecision::default();
    let mut has_first = false;
    for (index, offered) in offer.sections.iter().enumerate() {
        let decision = decisions.get(index).unwrap_or(&nothing);
        let bundled = offer.bundle.contains(&offered.mid);
        // Without a group each section wants its own transport: only one gets it.
        let carried = if offer.bundle.is_empty() { !has_first } else { bundled };
        let answered = if carried { answer_section(offered, decision) } else { None };
        let (mut section, agreed) =
            answered.unwrap_or_else(|| (reject(offered), Negotiated::default()));
        if !section.is_rejected() {
            add_transport(&mut section, local, !has_first);
            has_first = true;
            if bundled {
                description.bundle.push(section.mid.clone());
            }
        }
        description.sections.push(section);
        negotiated.push(agreed);
    }
    Answer { description, sections: negotiated }
}

/// None rejects the section.
fn answer_section(offered: &Section, decision: &SectionDecision) -> Option<(Section, Negotiated)> {
    if offered.is_rejected() {
        return None;
    }
    match offered.kind {
        SectionKind::Media(_) => answer_media(offered, decision),
        SectionKind::Application => answer_application(offered),
        SectionKind::Other(_) => None,
    }
}

fn answer_application(offered: &Section) -> Option<(Section, Negotiated)> {
    let is_sctp = offered.protocol.ends_with("DTLS/SCTP") && offered.sctp_port.is_some();
    if !is_sctp {
        return None;
    }
    let mut section = Section::new(SectionKind::Application, offered.mid.clone());
    section.protocol.clone_from(&offered.protocol);
    section.formats.clone_from(&offered.formats);
    section.sctp_port = Some(5000);
    Some((section, Negotiated::default()))
}

fn answer_media(offered: &Section, decision: &SectionDecision) -> Option<(Section, Negotiated)> {
    if !offered.rtcp_mux || !offered.protocol.ends_with("TLS/RTP/SAVPF") {
        return None;
    }
    let receiving = decision.receive.as_ref().filter(|_| offered.direction.sends());
    let sending = decision.send.as_ref().filter(|_| offered.direction.receives());
    let Selection { descriptions, mappings } = select(offered, receiving, sending);
    if mappings.is_empty() {
        return None;
    }
    let (receives, sends) = (receiving.is_some(), sending.is_some());
    let (extensions, extension_ids) = select_extensions(offered, receives, sends);
    let mut section = Section::new(offered.kind.clone(), offered.mid.clone());
    section.protocol.clone_from(&offered.protocol);
    section.formats = descriptions.iter().map(|codec| codec.payload_type.to_string()).collect();
    section.direction = Direction::new(sends, receives);
    section.extensions = extensions;
    section.rtcp_mux = true;
    section.rtcp_rsize = offered.rtcp_rsize;
    if receives {
        section.rids = offered
            .rids
            .iter()
            .filter(|rid| rid.sends)
            .map(|rid| Rid { id: rid.id.clone(), sends: false, paused: false })
            .collect();
    }
    if let Some(sending) = sending {
        write_sending(&mut section, sending, has_rtx(&mappings));
    }
    section.codecs = descriptions;
    let agreed = Negotiated { receives, sends, codecs: mappings, extensions: extension_ids };
    Some((section, agreed))
}

fn has_rtx(mappings: &[PayloadMapping]) -> bool {
    mappings.iter().any(|mapping| mapping.rtx_payload_type.is_some())
}

/// Tells a section's track and SSRCs. Retransmissions get their SSRC only
/// where RTX was agreed.
pub(crate) fn write_sending(section: &mut Section, sending: &Sending, with_rtx: bool) {
    section.msids =
        vec![Msid { stream: sending.stream_id.clone(), track: Some(sending.track_id.clone()) }];
    let source = |ssrc| Source {
        ssrc,
        cname: sending.cname.clone(),
        stream_id: Some(sending.stream_id.clone()),
        track_id: Some(sending.track_id.clone()),
    };
    section.sources = vec![source(sending.ssrc)];
    if let Some(rtx) = sending.rtx_ssrc.filter(|_| with_rtx) {
        section.sources.push(source(rtx));
        section.source_groups =
            vec![SourceGroup { semantics: "FID".to_owned(), ssrcs: vec![sending.ssrc, rtx] }];
    }
}

fn reject(offered: &Section) -> Section {
    let mut section = Section::new(offered.kind.clone(), offered.mid.clone());
    section.port = 0;
    section.protocol.clone_from(&offered.protocol);
    section.formats.clone_from(&offered.formats);
    section.direction = Direction::Inactive;
    section
}

fn add_transport(section: &mut Section, local: &LocalTransport, is_first: bool) {
    section.ice = Some(local.credentials.clone());
    section.fingerprints =
        vec![Fingerprint { algorithm: "sha-256".to_owned(), value: local.fingerprint.clone() }];
    section.setup = Some(Setup::Passive);
    if is_first {
        section.candidates.clone_from(&local.candidates);
    }
    if section.kind == SectionKind::Application {
        section.max_message_size = Some(local.max_message_size);
    }
}

impl Description {
    /// The client's side of the one transport, from the first section that is
    /// not rejected (all others are bundled with it).
    ///
    /// # Errors
    /// If there is no such section, or it lacks what the node needs.
    pub fn remote_transport(&self) -> Result<RemoteTransport, TransportError> {
        let section = self
            .sections
            .iter()
            .find(|section| !section.is_rejected() && !section.bundle_only)
            .or_else(|| self.sections.iter().find(|section| !section.is_rejected()))
            .ok_or(TransportError::NoSection)?;
        let credentials = section.ice.clone().ok_or(TransportError::NoCredentials)?;
        let fingerprint = section
            .fingerprints
            .iter()
            .find(|fingerprint| {
                fingerprint.algorithm == "sha-256" && fingerprint.value.len() == 3 * 32 - 1
            })
            .ok_or(TransportError::NoFingerprint)?
            .value
            .clone();
        if section.setup == Some(Setup::Passive) {
            return Err(TransportError::NotActive);
        }
        let data = self
            .sections
            .iter()
            .find(|section| section.kind == SectionKind::Application && !section.is_rejected());
        // RFC 8841 6: 64 kB if it is not told.
        let max_message_size = data.map(|data| data.max_message_size.unwrap_or(65_536));
        Ok(RemoteTransport { credentials, fingerprint, max_message_size })
    }
}

impl Section {
    /// The encodings the writer sends in this section, smallest first as far as
    /// the order tells; never empty if it sends.
    #[must_use]
    pub fn sent_encodings(&self) -> Vec<SentEncoding> {
        if !self.direction.sends() {
            return Vec::new();
        }
        let sent: Vec<_> = self.rids.iter().filter(|rid| rid.sends).collect();
        if !sent.is_empty() {
            return sent
                .into_iter()
                .map(|rid| SentEncoding { rid: Some(rid.id.clone()), ..SentEncoding::default() })
                .collect();
        }
        let repair_of = |ssrc: u32| {
            self.source_groups
                .iter()
                .find(|group| group.semantics == "FID" && group.ssrcs.first() == Some(&ssrc))
                .and_then(|group| group.ssrcs.get(1).copied())
        };
        let simulcast = self.source_groups.iter().find(|group| group.semantics == "SIM");
        let ssrcs: Vec<u32> = match simulcast {
            Some(group) => group.ssrcs.clone(),
            None => self.sources.first().map(|source| source.ssrc).into_iter().collect(),
        };
        if ssrcs.is_empty() {
            return vec![SentEncoding::default()];
        }
        ssrcs
            .into_iter()
            .map(|ssrc| SentEncoding { rid: None, ssrc: Some(ssrc), rtx_ssrc: repair_of(ssrc) })
            .collect()
    }
}
