//! Packet path: no allocation. Frames with a 16-bit length in front, as RTP, STUN and
//! DTLS go over TCP (RFC 4571 section 2).

use thiserror::Error;

/// Longest frame that is taken or sent, in bytes without its length field.
pub const FRAME_LEN_MAX: usize = 4_096;
/// Bytes in front of a frame.
pub(crate) const LENGTH_LEN: usize = 2;

/// A length field says more than [`FRAME_LEN_MAX`]. What follows cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("frame is longer than {FRAME_LEN_MAX} bytes")]
pub struct FrameTooLong;

/// Iterates over the whole frames of a buffer; [`Frames::finish`] gives what is left.
/// Empty frames, which some senders use as keep-alive, are passed over.
#[derive(Debug)]
pub struct Frames<'a> {
    rest: &'a mut [u8],
    too_long: bool,
}

impl<'a> Frames<'a> {
    /// The frames of bytes that begin with a length field.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { rest: bytes, too_long: false }
    }

    /// The beginning of the frame that is not whole yet, with its length field; to be
    /// put in front of the bytes that come next.
    ///
    /// # Errors
    /// [`FrameTooLong`] if the iteration ended at such a frame.
    pub fn finish(self) -> Result<&'a [u8], FrameTooLong> {
        if self.too_long { Err(FrameTooLong) } else { Ok(self.rest) }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = &'a mut [u8];

    fn next(&mut self) -> Option<&'a mut [u8]> {
        loop {
            let head: &[u8; LENGTH_LEN] = self.rest.first_chunk()?;
            let len = usize::from(u16::from_be_bytes(*head));
            if len > FRAME_LEN_MAX {
                self.too_long = true;
                return None;
            }
            if self.rest.len() < LENGTH_LEN + len {
                return None;
            }
            let (frame, rest) = std::mem::take(&mut self.rest).split_at_mut(LENGTH_LEN + len);
            self.rest = rest;
            if len > 0 {
                return Some(&mut frame[LENGTH_LEN..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(bytes: &[u8]) -> (Vec<Vec<u8>>, Result<Vec<u8>, FrameTooLong>) {
        let mut copy = bytes.to_vec();
        let mut frames = Frames::new(&mut copy);
        let whole = frames.by_ref().map(|frame| frame.to_vec()).collect();
        (whole, frames.finish().map(<[u8]>::to_vec))
    }

    #[test]
    fn empty_frames_are_passed_over_and_a_partial_one_is_left() {
        let bytes = [0, 1, 9, 0, 0, 0, 2, 7, 8, 0, 3, 1];
        assert_eq!(frames(&bytes), (vec![vec![9], vec![7, 8]], Ok(vec![0, 3, 1])));
    }

    #[test]
    fn a_length_beyond_the_limit_is_an_error() {
        assert_eq!(frames(&[0x10, 0x01]), (vec![], Err(FrameTooLong)));
        assert_eq!(frames(&[0x10, 0x00]), (vec![], Ok(vec![0x10, 0x00])));
    }

    proptest! {
        #[test]
        fn a_stream_is_cut_into_frames_alike_wherever_it_is_split(
            bytes in proptest::collection::vec(prop_oneof![9 => 0_u8..20, 1 => any::<u8>()], 0..400),
            cut in 0_usize..400,
        ) {
            let (whole, end) = frames(&bytes);
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            let (mut parts, rest) = frames(first);
            let Ok(rest) = rest else { return Ok(()) };
            let (more, rest) = frames(&[&rest, second].concat());
            parts.extend(more);
            prop_assert_eq!((parts, rest), (whole, end));
        }
    }
}
