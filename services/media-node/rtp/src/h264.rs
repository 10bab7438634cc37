//! Packet path: no allocation. What an H.264 payload (RFC 6184) contains: NAL unit
//! types of single units, of STAP-A and of FU-A, and with them keyframes.

/// NAL unit type of a slice of a keyframe (IDR picture).
pub const NAL_IDR: u8 = 5;
/// NAL unit type of a sequence parameter set.
pub const NAL_SPS: u8 = 7;
/// NAL unit type of a picture parameter set.
pub const NAL_PPS: u8 = 8;

const STAP_A: u8 = 24;
const FU_A: u8 = 28;
const TYPE_MASK: u8 = 0x1f;

/// One NAL unit, or a part of one, in a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NalUnit {
    /// `nal_unit_type`, 0 to 31.
    pub kind: u8,
    /// `nal_ref_idc`, 0 to 3; 0 means that no other frame needs it.
    pub reference_idc: u8,
    /// The payload has its beginning. False only in later fragments.
    pub starts: bool,
    /// The payload has its end. False only in earlier fragments.
    pub ends: bool,
}

/// Iterates over the NAL units of a payload. Ends at the first that overruns it;
/// yields nothing for packetisation modes that WebRTC does not use (STAP-B, MTAP, FU-B).
#[derive(Debug, Clone)]
pub struct NalUnits<'a> {
    state: State<'a>,
}

#[derive(Debug, Clone)]
enum State<'a> {
    One(NalUnit),
    Aggregate(&'a [u8]),
    Done,
}

/// The NAL units of an RTP payload.
#[must_use]
pub fn nal_units(payload: &[u8]) -> NalUnits<'_> {
    let state = match payload {
        [head, rest @ ..] => match head & TYPE_MASK {
            STAP_A => State::Aggregate(rest),
            FU_A => fragment(*head, rest),
            kind @ 1..=23 => State::One(NalUnit {
                kind,
                reference_idc: head >> 5 & 0x03,
                starts: true,
                ends: true,
            }),
            _ => State::Done,
        },
        [] => State::Done,
    };
    NalUnits { state }
}

fn fragment(indicator: u8, rest: &[u8]) -> State<'_> {
    let Some(header) = rest.first() else {
        return State::Done;
    };
    State::One(NalUnit {
        kind: header & TYPE_MASK,
        reference_idc: indicator >> 5 & 0x03,
        starts: header & 0x80 != 0,
        ends: header & 0x40 != 0,
    })
}

impl Iterator for NalUnits<'_> {
    type Item = NalUnit;

    fn next(&mut self) -> Option<NalUnit> {
        match core::mem::replace(&mut self.state, State::Done) {
            State::Done => None,
            State::One(unit) => Some(unit),
            State::Aggregate(bytes) => {
                let (size, rest) = bytes.split_first_chunk()?;
                let size = usize::from(u16::from_be_bytes(*size));
                let unit = rest.get(..size)?;
                let head = *unit.first()?;
                self.state = State::Aggregate(&rest[size..]);
                Some(NalUnit {
                    kind: head & TYPE_MASK,
                    reference_idc: head >> 5 & 0x03,
                    starts: true,
                    ends: true,
                })
            }
        }
    }
}

/// The payload begins a keyframe: it has the beginning of an SPS or of an IDR slice.
/// Encoders send SPS and PPS in front of each IDR picture, so a subscriber that
/// starts at the first such packet of a frame can decode it.
#[must_use]
pub fn is_keyframe_start(payload: &[u8]) -> bool {
    nal_units(payload).any(|unit| unit.starts && matches!(unit.kind, NAL_IDR | NAL_SPS))
}

/// The payload has a part of a keyframe: parameter sets or any piece of an IDR slice.
#[must_use]
pub fn has_keyframe_part(payload: &[u8]) -> bool {
    nal_units(payload).any(|unit| matches!(unit.kind, NAL_IDR | NAL_SPS | NAL_PPS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_single_idr_slice_is_a_keyframe() {
        assert!(is_keyframe_start(&[0x65, 0x88]));
        assert!(!is_keyframe_start(&[0x41, 0x9a]));
    }

    #[test]
    fn a_stap_a_of_parameter_sets_starts_a_keyframe() {
        let payload = [0x78, 0, 2, 0x67, 0x42, 0, 1, 0x68];
        let kinds: Vec<u8> = nal_units(&payload).map(|unit| unit.kind).collect();
        assert_eq!(kinds, [NAL_SPS, NAL_PPS]);
        assert!(is_keyframe_start(&payload));
    }

    #[test]
    fn only_the_first_fragment_of_an_idr_slice_starts_a_keyframe() {
        assert!(is_keyframe_start(&[0x7c, 0x85, 0x88]));
        assert!(!is_keyframe_start(&[0x7c, 0x05, 0x88]));
        assert!(has_keyframe_part(&[0x7c, 0x05, 0x88]));
        assert!(!has_keyframe_part(&[0x5c, 0x81, 0x9a]));
    }

    #[test]
    fn an_overrunning_aggregate_ends_the_iteration() {
        let payload = [0x78, 0, 1, 0x68, 0, 9, 0x67];
        assert_eq!(nal_units(&payload).count(), 1);
    }

    proptest! {
        #[test]
        fn any_payload_is_read_in_bounded_steps(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(nal_units(&payload).count() <= payload.len().max(1));
        }
    }
}
