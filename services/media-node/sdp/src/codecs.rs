//! Which codecs, feedback and header extensions of a section are taken, in both
//! directions, and the node's own payload types for sections it offers.

use headwater_model::media::{Codec, ExtensionIds, HeaderExtension, MediaKind, PayloadMapping};

use crate::answer::{Receiving, Sending};
use crate::description::{CodecDescription, ExtensionMapping, Section, parameter};

/// Codecs taken of a section: the descriptions for the answer, RTX among them,
/// and the mappings for the forwarding core.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    pub(crate) descriptions: Vec<CodecDescription>,
    pub(crate) mappings: Vec<PayloadMapping>,
}

/// Chooses among the codecs of an offered section. Payload types and formats
/// are the client's; only the order and Opus's parameters are ours.
pub(crate) fn select(
    section: &Section,
    receiving: Option<&Receiving>,
    sending: Option<&Sending>,
) -> Selection {
    let Some(kind) = section.media_kind() else {
        return Selection::default();
    };
    let mut chosen: Vec<(&CodecDescription, Codec)> = section
        .codecs
        .iter()
        .filter_map(|description| description.codec().map(|codec| (description, codec)))
        .filter(|(description, codec)| {
            codec.kind() == kind
                && is_forwardable(*codec, &description.format)
                && receiving.is_none_or(|receiving| receiving.allows(*codec))
        })
        .collect();
    if receiving.is_none() && chosen.iter().any(|(d, _)| h264_rank(&d.format) < HIGH_PROFILE) {
        // Nobody is asked to decode High: what is forwarded need not be High.
        chosen.retain(|(d, codec)| *codec != Codec::H264 || h264_rank(&d.format) < HIGH_PROFILE);
    }
    let preferred = receiving
        .and_then(|receiving| receiving.preferred)
        .or_else(|| sending.and_then(|sending| sending.preferred));
    let allowed = receiving.map_or(&[][..], |receiving| &receiving.allowed);
    // The sort is stable: what we do not care about stays as the client has it.
    chosen.sort_by_key(|(description, codec)| {
        let place = allowed.iter().position(|other| other == codec).unwrap_or(allowed.len());
        let rank = if *codec == Codec::H264 { h264_rank(&description.format) } else { 0 };
        (Some(*codec) != preferred, place, rank)
    });
    let mut selection = Selection::default();
    for (description, codec) in chosen {
        let red = red_around(section, description, codec, receiving);
        // Clients send what comes first, and RED only in front of its codec.
        let first = red.filter(|_| receiving.is_some());
        let last = red.filter(|_| receiving.is_none());
        take_red(&mut selection, first, description);
        take(&mut selection, section, description, codec, receiving, sending);
        take_red(&mut selection, last, description);
    }
    selection
}

/// The redundancy a client offers around a codec, if it is taken: of what it sends only
/// if that is asked for, of what it is sent always. It never comes without its codec,
/// in which is sent whatever has no redundancy.
fn red_around<'a>(
    section: &'a Section,
    description: &CodecDescription,
    codec: Codec,
    receiving: Option<&Receiving>,
) -> Option<&'a CodecDescription> {
    let wanted = codec == Codec::Opus && receiving.is_none_or(|receiving| receiving.red);
    let found = section.codecs.iter().find(|other| {
        other.red_of() == Some(description.payload_type)
            && other.payload_type != description.payload_type
    });
    found.filter(|_| wanted)
}

fn take_red(selection: &mut Selection, red: Option<&CodecDescription>, around: &CodecDescription) {
    let Some(red) = red else { return };
    let feedback = accepted_feedback(Codec::Opus, &around.feedback);
    let opus = mapping(Codec::Opus, around.payload_type, None, &red.format, &feedback);
    selection.mappings.push(red_mapping(red, &opus));
    // Clients read feedback from the codec that is inside.
    selection.descriptions.push(CodecDescription { feedback: Vec::new(), ..red.clone() });
}

/// A mapping of RED around a codec that has one.
fn red_mapping(red: &CodecDescription, around: &PayloadMapping) -> PayloadMapping {
    PayloadMapping {
        payload_type: red.payload_type,
        rtx_payload_type: None,
        format: red.format.clone(),
        red_of: Some(around.payload_type),
        ..around.clone()
    }
}

fn take(
    selection: &mut Selection,
    section: &Section,
    description: &CodecDescription,
    codec: Codec,
    receiving: Option<&Receiving>,
    sending: Option<&Sending>,
) {
    let rtx = section
        .codecs
        .iter()
        .find(|other| other.associated_payload_type() == Some(description.payload_type));
    let feedback = accepted_feedback(codec, &description.feedback);
    let format = match codec {
        Codec::Opus => opus_format(&description.format, receiving, sending),
        Codec::Vp8 | Codec::H264 | Codec::Vp9 | Codec::Av1 => description.format.clone(),
    };
    selection.mappings.push(mapping(
        codec,
        description.payload_type,
        rtx.map(|rtx| rtx.payload_type),
        &format,
        &feedback,
    ));
    selection.descriptions.push(CodecDescription { format, feedback, ..description.clone() });
    if let Some(rtx) = rtx {
        let format = format!("apt={}", description.payload_type);
        selection.descriptions.push(CodecDescription {
            format,
            feedback: Vec::new(),
            ..rtx.clone()
        });
    }
}

/// A mapping for the forwarding core from what was written.
pub(crate) fn mapping(
    codec: Codec,
    payload_type: u8,
    rtx_payload_type: Option<u8>,
    format: &str,
    feedback: &[String],
) -> PayloadMapping {
    let has = |name: &str| feedback.iter().any(|other| other == name);
    PayloadMapping {
        codec,
        payload_type,
        rtx_payload_type,
        format: format.to_owned(),
        nack: has("nack"),
        pli: has("nack pli"),
        transport_cc: has("transport-cc"),
        red_of: None,
    }
}

/// Whether this variant of a codec is forwarded: H.264 in packetization mode 1
/// only, VP9 with 8 or 10 bits 4:2:0, AV1 main profile.
fn is_forwardable(codec: Codec, format: &str) -> bool {
    match codec {
        Codec::Opus | Codec::Vp8 => true,
        Codec::H264 => parameter(format, "packetization-mode") == Some("1"),
        Codec::Vp9 => matches!(parameter(format, "profile-id"), None | Some("0" | "2")),
        Codec::Av1 => matches!(parameter(format, "profile"), None | Some("0")),
    }
}

/// Rank of High profiles, and the least of those not liked.
const HIGH_PROFILE: u8 = 2;

/// Order of H.264 profiles: those every decoder has come first.
fn h264_rank(format: &str) -> u8 {
    match parameter(format, "profile-level-id").and_then(|id| id.get(..2)) {
        None | Some("42") => 0,
        Some("64") => HIGH_PROFILE,
        Some(profile) if profile.eq_ignore_ascii_case("4d") => 1,
        Some(_) => HIGH_PROFILE + 1,
    }
}

/// Feedback taken of what a client offers. REMB only where there is no
/// transport-wide feedback: one estimator is enough. NACK for Opus is added
/// though browsers do not offer it: libwebrtc honours it all the same.
fn accepted_feedback(codec: Codec, offered: &[String]) -> Vec<String> {
    let has = |name: &str| offered.iter().any(|other| other == name);
    let names: &[&str] = match codec.kind() {
        MediaKind::Audio => &["transport-cc"],
        MediaKind::Video => &["transport-cc", "ccm fir", "nack", "nack pli"],
    };
    let mut accepted: Vec<String> =
        names.iter().filter(|name| has(name)).map(|name| (*name).to_owned()).collect();
    if codec.kind() == MediaKind::Audio {
        accepted.push("nack".to_owned());
    } else if !has("transport-cc") && has("goog-remb") {
        accepted.push("goog-remb".to_owned());
    }
    accepted
}

/// Opus parameters (RFC 7587) of an answer: what we ask the client to send, and
/// what we say of what we send.
fn opus_format(offered: &str, receiving: Option<&Receiving>, sending: Option<&Sending>) -> String {
    let mut format =
        format!("minptime={};useinbandfec=1", parameter(offered, "minptime").unwrap_or("10"));
    if let Some(receiving) = receiving {
        if receiving.dtx {
            format.push_str(";usedtx=1");
        }
        if receiving.stereo {
            format.push_str(";stereo=1;maxaveragebitrate=510000");
        }
    }
    if sending.is_some_and(|sending| sending.stereo) {
        format.push_str(";sprop-stereo=1");
        if !receiving.is_some_and(|receiving| receiving.stereo) {
            format.push_str(";stereo=1");
        }
    }
    format
}

/// Header extensions taken of an offered section, with the client's ids.
/// Orientation is left out on purpose: without it senders turn the picture
/// themselves, and no subscriber can miss it.
pub(crate) fn select_extensions(
    section: &Section,
    receives: bool,
    sends: bool,
) -> (Vec<ExtensionMapping>, ExtensionIds) {
    let Some(kind) = section.media_kind() else {
        return Default::default();
    };
    let mut mappings = Vec::new();
    let mut ids = ExtensionIds::default();
    for offered in &section.extensions {
        let Some(extension) = HeaderExtension::from_uri(&offered.uri) else {
            continue;
        };
        let wanted = match extension {
            HeaderExtension::Mid
            | HeaderExtension::TransportCc
            | HeaderExtension::AbsCaptureTime => true,
            // On every video section, received or not: Chromium offers on later
            // sections of a bundle only what earlier ones agreed on, and refuses
            // to send simulcast without these.
            HeaderExtension::Rid | HeaderExtension::RepairedRid => kind == MediaKind::Video,
            HeaderExtension::AudioLevel => kind == MediaKind::Audio,
            HeaderExtension::DependencyDescriptor => kind == MediaKind::Video,
            HeaderExtension::PlayoutDelay => sends && !receives && kind == MediaKind::Video,
            HeaderExtension::AbsSendTime => !offers_transport_cc(section),
            HeaderExtension::VideoOrientation => false,
        };
        if wanted && ids.get(extension).is_none() {
            ids.set(extension, offered.id);
            mappings.push(ExtensionMapping {
                id: offered.id,
                direction: None,
                uri: offered.uri.clone(),
            });
        }
    }
    (mappings, ids)
}

fn offers_transport_cc(section: &Section) -> bool {
    section.extensions.iter().any(|offered| {
        HeaderExtension::from_uri(&offered.uri) == Some(HeaderExtension::TransportCc)
    })
}

/// The node's own payload types: those LiveKit's servers have, so that captures
/// look familiar. RTX is one above. Codec, payload type, format.
const OWN_CODECS: [(Codec, u8, &str); 8] = [
    (Codec::Opus, 111, "minptime=10;useinbandfec=1"),
    (Codec::Vp8, 96, ""),
    (Codec::Vp9, 98, "profile-id=0"),
    (Codec::Vp9, 100, "profile-id=2"),
    (Codec::H264, 125, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"),
    (Codec::H264, 108, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f"),
    (Codec::H264, 104, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f"),
    (Codec::Av1, 35, ""),
];

/// RED around the node's own Opus.
const OWN_RED: (u8, &str) = (63, "111/111");

/// Extension ids of sections the node offers.
const OWN_EXTENSIONS: [(HeaderExtension, u8); 7] = [
    (HeaderExtension::Mid, 1),
    (HeaderExtension::TransportCc, 2),
    (HeaderExtension::AbsSendTime, 3),
    (HeaderExtension::AudioLevel, 4),
    (HeaderExtension::DependencyDescriptor, 5),
    (HeaderExtension::AbsCaptureTime, 6),
    (HeaderExtension::PlayoutDelay, 7),
];

/// Codecs of a section the node offers.
pub(crate) fn own_codecs(kind: MediaKind, sending: Option<&Sending>) -> Vec<CodecDescription> {
    let mut codecs = Vec::new();
    for (codec, payload_type, format) in OWN_CODECS {
        if codec.kind() != kind {
            continue;
        }
        let (_, name) = codec.mime_type().split_once('/').unwrap_or_default();
        let mut format = format.to_owned();
        if codec == Codec::Opus && sending.is_some_and(|sending| sending.stereo) {
            format.push_str(";stereo=1;sprop-stereo=1");
        }
        let feedback: &[&str] = match kind {
            MediaKind::Audio => &["transport-cc", "nack"],
            MediaKind::Video => &["goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"],
        };
        codecs.push(CodecDescription {
            payload_type,
            name: name.to_owned(),
            clock_rate: codec.clock_rate(),
            channels: if kind == MediaKind::Audio { 2 } else { 0 },
            format,
            feedback: feedback.iter().map(|name| (*name).to_owned()).collect(),
        });
        if codec == Codec::Opus {
            let (payload_type, format) = OWN_RED;
            codecs.push(CodecDescription {
                payload_type,
                name: "red".to_owned(),
                clock_rate: codec.clock_rate(),
                channels: 2,
                format: format.to_owned(),
                feedback: Vec::new(),
            });
        }
        if kind == MediaKind::Video {
            codecs.push(CodecDescription {
                payload_type: payload_type + 1,
                name: "rtx".to_owned(),
                clock_rate: codec.clock_rate(),
                channels: 0,
                format: format!("apt={payload_type}"),
                feedback: Vec::new(),
            });
        }
    }
    codecs
}

/// Header extensions of a section the node offers.
pub(crate) fn own_extensions(kind: MediaKind) -> Vec<ExtensionMapping> {
    OWN_EXTENSIONS
        .into_iter()
        .filter(|(extension, _)| match extension {
            HeaderExtension::AudioLevel => kind == MediaKind::Audio,
            HeaderExtension::DependencyDescriptor | HeaderExtension::PlayoutDelay => {
                kind == MediaKind::Video
            }
            _ => true,
        })
        .map(|(extension, id)| ExtensionMapping {
            id,
            direction: None,
            uri: extension.uri().to_owned(),
        })
        .collect()
}

/// The codecs an answer keeps of those the node offered.
pub(crate) fn answered_codecs(
    offered: &[CodecDescription],
    answer: &Section,
) -> Vec<PayloadMapping> {
    let mut accepted: Vec<PayloadMapping> = answer
        .codecs
        .iter()
        .filter_map(|answered| {
            let codec = answered.codec()?;
            let own = offered.iter().find(|own| {
                own.codec() == Some(codec) && (own.payload_type == answered.payload_type)
            })?;
            let rtx = answer
                .codecs
                .iter()
                .find(|other| other.associated_payload_type() == Some(answered.payload_type))
                .map(|rtx| rtx.payload_type);
            Some(mapping(codec, own.payload_type, rtx, &own.format, &answered.feedback))
        })
        .collect();
    for answered in &answer.codecs {
        let is_own = |own: &&CodecDescription| {
            own.payload_type == answered.payload_type && own.red_of() == answered.red_of()
        };
        let Some(red_of) = answered.red_of().filter(|_| offered.iter().any(|own| is_own(&own)))
        else {
            continue;
        };
        let around = accepted.iter().find(|mapping| {
            mapping.payload_type == red_of
                && mapping.codec == Codec::Opus
                && mapping.red_of.is_none()
        });
        if let Some(red) = around.map(|around| red_mapping(answered, around)) {
            accepted.push(red);
        }
    }
    accepted
}

/// The header extensions an answer keeps.
pub(crate) fn answered_extensions(answer: &Section) -> ExtensionIds {
    let mut ids = ExtensionIds::default();
    for answered in &answer.extensions {
        if let Some(extension) = HeaderExtension::from_uri(&answered.uri) {
            ids.set(extension, answered.id);
        }
    }
    ids
}
