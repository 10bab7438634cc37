//! RFC 4571 framing: however a stream is cut in two, the frames are the same.

#![no_main]

use headwater_net::{FrameTooLong, Frames};
use libfuzzer_sys::fuzz_target;

fn frames(bytes: &[u8]) -> (Vec<Vec<u8>>, Result<Vec<u8>, FrameTooLong>) {
    let mut copy = bytes.to_vec();
    let mut frames = Frames::new(&mut copy);
    let whole = frames.by_ref().map(|frame| frame.to_vec()).collect();
    (whole, frames.finish().map(<[u8]>::to_vec))
}

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, bytes) = input;
    let (whole, end) = frames(bytes);
    let (first, second) = bytes.split_at(cut % (bytes.len() + 1));
    let (mut parts, rest) = frames(first);
    let Ok(rest) = rest else { return };
    let (more, rest) = frames(&[&rest, second].concat());
    parts.extend(more);
    assert_eq!((parts, rest), (whole, end));
});
