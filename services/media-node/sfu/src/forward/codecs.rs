//! Which of a subscriber's payload types carries each codec of a publication.

use headwater_model::media::{Codec, PayloadMapping};

/// A codec as the subscriber knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutCodec {
    pub(crate) payload_type: u8,
    pub(crate) rtx_payload_type: Option<u8>,
    pub(crate) nack: bool,
    pub(crate) transport_cc: bool,
}

/// For each codec of the publication the subscriber's, if it takes it.
pub(crate) fn match_codecs(
    published: &[PayloadMapping],
    accepted: &[PayloadMapping],
) -> Vec<Option<OutCodec>> {
    published.iter().map(|mapping| find(mapping, accepted)).collect()
}

fn find(published: &PayloadMapping, accepted: &[PayloadMapping]) -> Option<OutCodec> {
    let best = accepted
        .iter()
        .filter(|other| other.codec == published.codec)
        .filter_map(|other| rank(published, other).map(|rank| (rank, other)))
        // The first of the best: lists are in order of preference.
        .min_by_key(|(rank, _)| *rank)?
        .1;
    Some(OutCodec {
        payload_type: best.payload_type & 0x7f,
        rtx_payload_type: best.rtx_payload_type,
        nack: best.nack,
        transport_cc: best.transport_cc,
    })
}

/// How well two formats of a codec fit, 0 being the best; `None` if they do not.
fn rank(published: &PayloadMapping, accepted: &PayloadMapping) -> Option<u8> {
    let (ours, theirs) = (&published.format, &accepted.format);
    match published.codec {
        Codec::Opus | Codec::Vp8 => Some(0),
        Codec::Vp9 => (parameter(ours, "profile-id").unwrap_or("0")
            == parameter(theirs, "profile-id").unwrap_or("0"))
        .then_some(0),
        Codec::Av1 => (parameter(ours, "profile").unwrap_or("0")
            == parameter(theirs, "profile").unwrap_or("0"))
        .then_some(0),
        Codec::H264 => {
            let mode = |format| parameter(format, "packetization-mode").unwrap_or("0");
            // Mode 1 sends fragments, which a receiver of mode 0 cannot put together.
            if mode(ours) != "0" && mode(theirs) == "0" {
                return None;
            }
            let same_mode = mode(ours) == mode(theirs);
            let same_profile = h264_profile(ours) == h264_profile(theirs);
            // Browsers decode profiles that they do not name, so another one is tried
            // rather than nothing shown.
            Some(u8::from(!same_mode) + 2 * u8::from(!same_profile))
        }
    }
}

/// `profile_idc` of `profile-level-id`; constrained baseline if absent (RFC 6184 8.1).
fn h264_profile(format: &str) -> Option<&str> {
    parameter(format, "profile-level-id").unwrap_or("42e01f").get(..2)
}

/// A parameter of an `a=fmtp` value.
fn parameter<'a>(format: &'a str, name: &str) -> Option<&'a str> {
    format.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(codec: Codec, payload_type: u8, format: &str) -> PayloadMapping {
        PayloadMapping {
            codec,
            payload_type,
            rtx_payload_type: None,
            format: format.to_owned(),
            nack: true,
            pli: true,
            transport_cc: true,
        }
    }

    fn chosen(published: &PayloadMapping, accepted: &[PayloadMapping]) -> Option<u8> {
        match_codecs(std::slice::from_ref(published), accepted)[0].map(|codec| codec.payload_type)
    }

    #[test]
    fn h264_is_matched_by_profile_and_packetization_mode() {
        let accepted = [
            mapping(Codec::H264, 100, "profile-level-id=640c1f;packetization-mode=1"),
            mapping(Codec::H264, 101, "profile-level-id=42e01f;packetization-mode=0"),
            mapping(Codec::H264, 102, "profile-level-id=42001f; packetization-mode=1"),
        ];
        let baseline = mapping(Codec::H264, 1, "packetization-mode=1;profile-level-id=42e01f");
        assert_eq!(chosen(&baseline, &accepted), Some(102));
        assert_eq!(chosen(&baseline, &accepted[1..2]), None);
        assert_eq!(chosen(&baseline, &accepted[..1]), Some(100));
        assert_eq!(chosen(&mapping(Codec::H264, 1, ""), &accepted), Some(101));
    }

    #[test]
    fn profiles_of_vp9_are_kept_apart() {
        let accepted =
            [mapping(Codec::Vp9, 98, "profile-id=0"), mapping(Codec::Vp9, 100, "profile-id=2")];
        assert_eq!(chosen(&mapping(Codec::Vp9, 1, "profile-id=2"), &accepted), Some(100));
        assert_eq!(chosen(&mapping(Codec::Vp9, 1, ""), &accepted), Some(98));
        assert_eq!(chosen(&mapping(Codec::Vp9, 1, "profile-id=1"), &accepted), None);
        assert_eq!(chosen(&mapping(Codec::Vp8, 1, ""), &accepted), None);
    }
}
