//! What publishers and subscribers of a world have agreed on with their node: the outcome
//! of SDP, without SDP. Extension ids and payload types differ between the two sides, as
//! they do between browsers.

use headwater_model::media::{
    Codec, Encoding, ExtensionIds, HeaderExtension, MediaKind, PayloadMapping, Publication,
    Subscription,
};

/// Payload types of publishers; retransmissions are one above.
pub(crate) const PUBLISHED_VIDEO: u8 = 96;
pub(crate) const PUBLISHED_AUDIO: u8 = 111;
pub(crate) const PUBLISHED_RED: u8 = 63;
/// Payload types of subscribers.
pub(crate) const SUBSCRIBED_VIDEO: u8 = 100;
pub(crate) const SUBSCRIBED_AUDIO: u8 = 109;
pub(crate) const SUBSCRIBED_RED: u8 = 120;

/// Names of simulcast encodings, smallest first, as LiveKit clients give them.
pub(crate) const RIDS: [&str; 3] = ["q", "h", "f"];

/// Ids that publishers send with.
pub(crate) fn publisher_ids() -> ExtensionIds {
    ids(&[
        (HeaderExtension::AudioLevel, 1),
        (HeaderExtension::AbsSendTime, 2),
        (HeaderExtension::TransportCc, 3),
        (HeaderExtension::Mid, 4),
        (HeaderExtension::Rid, 10),
        (HeaderExtension::RepairedRid, 11),
    ])
}

/// Ids that subscribers take.
pub(crate) fn subscriber_ids() -> ExtensionIds {
    ids(&[
        (HeaderExtension::TransportCc, 5),
        (HeaderExtension::AbsSendTime, 6),
        (HeaderExtension::Mid, 9),
        (HeaderExtension::AudioLevel, 14),
    ])
}

fn ids(list: &[(HeaderExtension, u8)]) -> ExtensionIds {
    let mut ids = ExtensionIds::default();
    for (extension, id) in list {
        ids.set(*extension, *id);
    }
    ids
}

fn mapping(codec: Codec, payload_type: u8) -> PayloadMapping {
    PayloadMapping {
        codec,
        payload_type,
        rtx_payload_type: (codec.kind() == MediaKind::Video).then_some(payload_type + 1),
        format: String::new(),
        nack: true,
        pli: codec.kind() == MediaKind::Video,
        transport_cc: true,
        red_of: None,
    }
}

/// A camera with encodings of these declared rates, in bits per second; without RIDs if
/// there is one.
pub(crate) fn video_publication(mid: &str, rates: &[u32], heights: &[u32]) -> Publication {
    let encoding = |(index, (rate, height)): (usize, (&u32, &u32))| Encoding {
        spatial: index as u8,
        rid: (rates.len() > 1).then(|| RIDS[index % RIDS.len()].to_owned()),
        width: height * 16 / 9,
        height: *height,
        bitrate: *rate,
        ..Encoding::default()
    };
    Publication {
        kind: MediaKind::Video,
        mid: mid.to_owned(),
        codecs: vec![mapping(Codec::Vp8, PUBLISHED_VIDEO)],
        extensions: publisher_ids(),
        encodings: rates.iter().zip(heights).enumerate().map(encoding).collect(),
    }
}

/// RED around a publisher's Opus.
fn red(payload_type: u8) -> PayloadMapping {
    PayloadMapping { red_of: Some(PUBLISHED_AUDIO), ..mapping(Codec::Opus, payload_type) }
}

/// A microphone, with redundancy (RED) or without.
pub(crate) fn audio_publication(mid: &str, with_red: bool) -> Publication {
    let mut codecs = vec![mapping(Codec::Opus, PUBLISHED_AUDIO)];
    codecs.extend(with_red.then(|| red(PUBLISHED_RED)));
    Publication {
        kind: MediaKind::Audio,
        mid: mid.to_owned(),
        codecs,
        extensions: publisher_ids(),
        encodings: vec![Encoding::default()],
    }
}

/// A subscription to sound or pictures under an SSRC; the one above it repeats pictures.
/// With RED, Opus has the payload type that it has in the publisher's packets.
pub(crate) fn subscription(kind: MediaKind, mid: &str, ssrc: u32, with_red: bool) -> Subscription {
    let codecs = match kind {
        MediaKind::Audio if with_red => {
            vec![mapping(Codec::Opus, PUBLISHED_AUDIO), red(SUBSCRIBED_RED)]
        }
        MediaKind::Audio => vec![mapping(Codec::Opus, SUBSCRIBED_AUDIO)],
        MediaKind::Video => vec![mapping(Codec::Vp8, SUBSCRIBED_VIDEO)],
    };
    Subscription {
        mid: mid.to_owned(),
        ssrc,
        rtx_ssrc: (kind == MediaKind::Video).then_some(ssrc + 1),
        codecs,
        extensions: subscriber_ids(),
    }
}
