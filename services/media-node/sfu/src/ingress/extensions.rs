//! Packet path: no allocation. Header extensions of a publisher's packet: those that
//! say where it belongs, and those that travel on to subscribers.

use arrayvec::ArrayVec;
use headwater_model::media::{ExtensionIds, HeaderExtension};
use headwater_rtp::RtpView;
use headwater_rtp::extension::parse_transport_cc;

/// Extensions that subscribers get as the publisher wrote them. The dependency
/// descriptor travels with AV1 alone: for other codecs receivers would prefer it to the
/// payload descriptor, which is what we rewrite.
pub(crate) const CARRIED: [HeaderExtension; 5] = [
    HeaderExtension::AudioLevel,
    HeaderExtension::DependencyDescriptor,
    HeaderExtension::AbsCaptureTime,
    HeaderExtension::PlayoutDelay,
    HeaderExtension::VideoOrientation,
];

/// Longest value that travels on, but for the dependency descriptor.
const VALUE_MAX: usize = 16;
/// All carried values with a byte of kind and one of length each.
pub(crate) const PACKED_MAX: usize = 2 + 255 + 4 * (2 + VALUE_MAX);

/// Carried values, packed: index in [`CARRIED`], length, bytes; again and again.
pub(crate) type Packed = ArrayVec<u8, PACKED_MAX>;

/// What a packet's extensions say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen<'a> {
    pub(crate) mid: Option<&'a [u8]>,
    pub(crate) rid: Option<&'a [u8]>,
    pub(crate) repaired_rid: Option<&'a [u8]>,
    pub(crate) transport_sequence: Option<u16>,
    carried: [Option<&'a [u8]>; CARRIED.len()],
}

impl<'a> Seen<'a> {
    /// Reads the extensions of a packet by the ids that its transport negotiated.
    pub(crate) fn read(view: &RtpView<'a>, ids: &ExtensionIds) -> Self {
        let mut seen = Self::default();
        for (id, value) in view.extensions() {
            match ids.extension(id) {
                Some(HeaderExtension::Mid) => seen.mid = Some(token(value)),
                Some(HeaderExtension::Rid) => seen.rid = Some(token(value)),
                Some(HeaderExtension::RepairedRid) => seen.repaired_rid = Some(token(value)),
                Some(HeaderExtension::TransportCc) => {
                    seen.transport_sequence = parse_transport_cc(value);
                }
                Some(
                    other @ (HeaderExtension::AudioLevel
                    | HeaderExtension::DependencyDescriptor
                    | HeaderExtension::AbsCaptureTime
                    | HeaderExtension::PlayoutDelay
                    | HeaderExtension::VideoOrientation),
                ) => {
                    let index = CARRIED.iter().position(|carried| *carried == other);
                    if let Some(slot) = index.and_then(|index| seen.carried.get_mut(index)) {
                        *slot = Some(value);
                    }
                }
                Some(HeaderExtension::AbsSendTime) | None => {}
            }
        }
        seen
    }

    /// Reads values that another shard packed; what it did not pack well is left out.
    pub(crate) fn from_packed(packed: &'a [u8]) -> Self {
        let mut seen = Self::default();
        for (extension, value) in unpack(packed) {
            let index = CARRIED.iter().position(|carried| *carried == extension);
            if let Some(slot) = index.and_then(|index| seen.carried.get_mut(index)) {
                *slot = Some(value);
            }
        }
        seen
    }

    /// Value of the RFC 6464 extension: dB below overload.
    pub(crate) fn audio_level(&self) -> Option<u8> {
        Some(self.carried[0]?.first()? & 0x7f)
    }

    pub(crate) fn dependency(&self) -> Option<&'a [u8]> {
        self.carried[1]
    }

    /// The values that travel on. Empty and overlong ones do not.
    pub(crate) fn pack(&self, with_dependency: bool) -> Packed {
        let mut packed = Packed::new();
        for (index, value) in self.carried.iter().enumerate() {
            let Some(value) = value else { continue };
            let is_dependency = CARRIED[index] == HeaderExtension::DependencyDescriptor;
            let fits = match is_dependency {
                true => with_dependency && value.len() <= 255,
                false => value.len() <= VALUE_MAX,
            };
            if fits && !value.is_empty() {
                packed.push(index as u8);
                packed.push(value.len() as u8);
                // Room for the longest of each kind is there.
                let copied = packed.try_extend_from_slice(value);
                debug_assert!(copied.is_ok());
            }
        }
        packed
    }
}

/// A token without the zero bytes that some senders pad it with.
fn token(value: &[u8]) -> &[u8] {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    &value[..end]
}

/// Iterates over packed values.
pub(crate) fn unpack(mut packed: &[u8]) -> impl Iterator<Item = (HeaderExtension, &[u8])> {
    std::iter::from_fn(move || {
        let [index, len, rest @ ..] = packed else {
            return None;
        };
        let value = rest.get(..usize::from(*len))?;
        packed = &rest[usize::from(*len)..];
        Some((*CARRIED.get(usize::from(*index))?, value))
    })
}

#[cfg(test)]
mod tests {
    use headwater_rtp::RtpHeader;

    use super::*;

    #[test]
    fn what_travels_on_is_packed_and_unpacked() {
        let mut ids = ExtensionIds::default();
        ids.set(HeaderExtension::Mid, 1);
        ids.set(HeaderExtension::AudioLevel, 2);
        ids.set(HeaderExtension::DependencyDescriptor, 3);
        ids.set(HeaderExtension::VideoOrientation, 4);
        let long = [7_u8; 200];
        let mut bytes = [0; 400];
        let len = RtpHeader::default()
            .write(&[(1, b"mic\0"), (2, &[0x85]), (3, &long), (4, &[1])], &mut bytes)
            .unwrap();
        let view = RtpView::parse(&bytes[..len]).unwrap();
        let seen = Seen::read(&view, &ids);
        assert_eq!(seen.mid, Some(&b"mic"[..]));
        assert_eq!(seen.audio_level(), Some(5));
        let packed = seen.pack(true);
        let values: Vec<_> = unpack(&packed).collect();
        assert_eq!(
            values,
            [
                (HeaderExtension::AudioLevel, &[0x85][..]),
                (HeaderExtension::DependencyDescriptor, &long[..]),
                (HeaderExtension::VideoOrientation, &[1][..]),
            ]
        );
        assert_eq!(unpack(&seen.pack(false)).count(), 2);
    }
}
