//! Which of a subscriber's payload types carries each codec of a publication.

use headwater_model::media::{Codec, PayloadMapping};

use super::writer::Stored;

/// A codec as the subscriber knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutCodec {
    pub(crate) payload_type: u8,
    pub(crate) rtx_payload_type: Option<u8>,
    pub(crate) nack: bool,
    pub(crate) transport_cc: bool,
    /// The publisher's packets hold redundancy (RED) that the subscriber does not take:
    /// it gets the primary of each.
    pub(crate) strips: bool,
}

impl OutCodec {
    /// A packet as the subscriber takes it.
    #[inline]
    pub(crate) fn carried<'a>(&self, stored: Stored<'a>) -> Stored<'a> {
        if !self.strips {
            return stored;
        }
        let from = usize::from(stored.packet.shape.primary_at);
        Stored { payload: stored.payload.get(from..).unwrap_or_default(), ..stored }
    }
}

/// For each codec of the publication the subscriber's, if it takes it.
///
/// Packets with redundancy go as they are to those who take them, else their primaries.
/// Packets without go without to everybody: to add redundancy, each would have to wait
/// in a buffer of its subscription and be copied twice, and what the network behind us
/// loses is repeated from the ring anyway.
pub(crate) fn match_codecs(
    published: &[PayloadMapping],
    accepted: &[PayloadMapping],
) -> Vec<Option<OutCodec>> {
    published.iter().map(|mapping| find(mapping, accepted)).collect()
}

fn find(published: &PayloadMapping, accepted: &[PayloadMapping]) -> Option<OutCodec> {
    let Some(block_type) = published.red_of else {
        return find_plain(published, accepted, false);
    };
    // Blocks name their payload type, and are not rewritten.
    let alike = |other: &&PayloadMapping| {
        other.codec == published.codec && other.red_of == Some(block_type)
    };
    match accepted.iter().find(alike) {
        Some(red) => Some(out_codec(red, false)),
        None => find_plain(published, accepted, true),
    }
}

fn find_plain(
    published: &PayloadMapping,
    accepted: &[PayloadMapping],
    strips: bool,
) -> Option<OutCodec> {
    let best = accepted
        .iter()
        .filter(|other| other.codec == published.codec && other.red_of.is_none())
        .filter_map(|other| rank(published, other).map(|rank| (rank, other)))
        // The first of the best: lists are in order of preference.
        .min_by_key(|(rank, _)| *rank)?
        .1;
    Some(out_codec(best, strips))
}

fn out_codec(accepted: &PayloadMapping, strips: bool) -> OutCodec {
    OutCodec {
        payload_type: accepted.payload_type & 0x7f,
        rtx_payload_type: accepted.rtx_payload_type,
        nack: accepted.nack,
        transport_cc: accepted.transport_cc,
        strips,
    }
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
            red_of: None,
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
    fn redundancy_goes_to_those_whose_blocks_have_the_same_payload_type() {
        let red = |payload_type, red_of| PayloadMapping {
            red_of: Some(red_of),
            ..mapping(Codec::Opus, payload_type, "")
        };
        let find = |published: &PayloadMapping, accepted: &[PayloadMapping]| {
            let found = match_codecs(std::slice::from_ref(published), accepted)[0];
            found.map(|codec| (codec.payload_type, codec.strips))
        };
        let opus = mapping(Codec::Opus, 111, "");
        let capable = [opus.clone(), red(63, 111)];
        assert_eq!(find(&red(62, 111), &capable), Some((63, false)));
        assert_eq!(find(&red(62, 109), &capable), Some((111, true)), "blocks of another type");
        assert_eq!(find(&red(62, 111), &capable[..1]), Some((111, true)));
        assert_eq!(find(&red(62, 111), &capable[1..]), Some((63, false)));
        assert_eq!(find(&opus, &capable), Some((111, false)));
        assert_eq!(find(&opus, &[red(63, 111), opus.clone()]), Some((111, false)));
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
