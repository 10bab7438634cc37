//! Packet path: no allocation. The AV1 aggregation header and the OBUs behind it (RTP
//! payload format for AV1, section 4.4), and with them keyframes.

use crate::DescriptorError;

/// OBU type of a sequence header, which every keyframe begins with.
pub const OBU_SEQUENCE_HEADER: u8 = 1;
/// OBU type of a temporal delimiter; senders leave it out.
pub const OBU_TEMPORAL_DELIMITER: u8 = 2;

/// The first byte of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AggregationHeader {
    /// The first element continues an OBU of the packet before (Z).
    pub continues: bool,
    /// The last element goes on in the next packet (Y).
    pub continued: bool,
    /// Number of elements if 1 to 3 (W); 0 means that each has its length.
    pub count: u8,
    /// First packet of a coded video sequence (N).
    pub new_sequence: bool,
}

impl AggregationHeader {
    /// Reads the first byte of an RTP payload.
    ///
    /// # Errors
    /// [`DescriptorError::Truncated`] if nothing follows it; `Invalid` if a new
    /// sequence continues an older OBU.
    pub fn parse(payload: &[u8]) -> Result<Self, DescriptorError> {
        let [byte, _, ..] = *payload else {
            return Err(DescriptorError::Truncated);
        };
        let header = Self {
            continues: byte & 0x80 != 0,
            continued: byte & 0x40 != 0,
            count: byte >> 4 & 0x03,
            new_sequence: byte & 0x08 != 0,
        };
        if header.continues && header.new_sequence {
            return Err(DescriptorError::Invalid);
        }
        Ok(header)
    }
}

/// One OBU element of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObuElement<'a> {
    /// `obu_type`, 0 to 15, if the element begins an OBU; else it continues one.
    pub kind: Option<u8>,
    /// Its bytes, with the OBU header if it has one.
    pub bytes: &'a [u8],
}

/// Iterates over the OBU elements of a payload; ends at the first that overruns it.
#[derive(Debug, Clone)]
pub struct ObuElements<'a> {
    rest: &'a [u8],
    /// Elements left if the header counts them.
    counted: Option<u8>,
    continues: bool,
}

/// The OBU elements of an RTP payload.
///
/// # Errors
/// As [`AggregationHeader::parse`].
pub fn obu_elements(payload: &[u8]) -> Result<ObuElements<'_>, DescriptorError> {
    let header = AggregationHeader::parse(payload)?;
    Ok(ObuElements {
        rest: &payload[1..],
        counted: (header.count != 0).then_some(header.count),
        continues: header.continues,
    })
}

impl<'a> Iterator for ObuElements<'a> {
    type Item = ObuElement<'a>;

    fn next(&mut self) -> Option<ObuElement<'a>> {
        if self.rest.is_empty() || self.counted == Some(0) {
            return None;
        }
        // The last of a counted list has no length: it takes what is left.
        let (size, rest) = if self.counted == Some(1) {
            (self.rest.len(), self.rest)
        } else {
            read_leb128(self.rest)?
        };
        let bytes = rest.get(..size)?;
        self.rest = &rest[size..];
        self.counted = self.counted.map(|left| left - 1);
        let begins = !core::mem::take(&mut self.continues);
        let kind = bytes.first().filter(|_| begins).map(|head| head >> 3 & 0x0f);
        Some(ObuElement { kind, bytes })
    }
}

/// A LEB128 number of at most 8 bytes (AV1 specification 4.10.5) and what follows it.
fn read_leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(8) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, &bytes[index + 1..]));
        }
    }
    None
}

/// The payload begins a keyframe that starts a new coded video sequence: the N bit is
/// set, or (for senders that leave it unset) a sequence header begins in it.
#[must_use]
pub fn is_keyframe_start(payload: &[u8]) -> bool {
    let Ok(header) = AggregationHeader::parse(payload) else {
        return false;
    };
    header.new_sequence || has_sequence_header(payload)
}

/// A sequence header begins in the payload.
#[must_use]
pub fn has_sequence_header(payload: &[u8]) -> bool {
    obu_elements(payload)
        .is_ok_and(|mut elements| elements.any(|element| element.kind == Some(OBU_SEQUENCE_HEADER)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_counted_list_is_read_to_its_end() {
        // W = 2, N; a sequence header of 3 bytes with its length; a frame OBU without.
        let payload = [0x28, 3, 0x08, 1, 2, 0x30, 7, 7];
        let header = AggregationHeader::parse(&payload).unwrap();
        assert!(header.new_sequence && !header.continues && !header.continued);
        let elements: Vec<_> = obu_elements(&payload).unwrap().collect();
        assert_eq!(
            elements,
            [
                ObuElement { kind: Some(1), bytes: &[0x08, 1, 2] },
                ObuElement { kind: Some(6), bytes: &[0x30, 7, 7] },
            ]
        );
        assert!(is_keyframe_start(&payload));
    }

    #[test]
    fn a_continued_element_has_no_type() {
        let payload = [0x90, 0x08, 1];
        let elements: Vec<_> = obu_elements(&payload).unwrap().collect();
        assert_eq!(elements, [ObuElement { kind: None, bytes: &[0x08, 1] }]);
        assert!(!is_keyframe_start(&payload));
    }

    #[test]
    fn an_uncounted_list_has_a_length_in_front_of_each() {
        let payload = [0x00, 1, 0x30, 2, 0x08, 9];
        let kinds: Vec<_> = obu_elements(&payload).unwrap().map(|element| element.kind).collect();
        assert_eq!(kinds, [Some(6), Some(1)]);
    }

    #[test]
    fn an_overrunning_length_ends_the_iteration() {
        let payload = [0x00, 0xff, 0xff, 0x01, 0x30];
        assert_eq!(obu_elements(&payload).unwrap().count(), 0);
    }

    #[test]
    fn a_new_sequence_that_continues_is_invalid() {
        assert_eq!(AggregationHeader::parse(&[0x88, 0]), Err(DescriptorError::Invalid));
        assert_eq!(AggregationHeader::parse(&[0x08]), Err(DescriptorError::Truncated));
    }

    proptest! {
        #[test]
        fn elements_never_hold_more_than_the_payload(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(elements) = obu_elements(&payload) {
                let total: usize = elements.map(|element| element.bytes.len()).sum();
                prop_assert!(total < payload.len());
            }
        }
    }
}
