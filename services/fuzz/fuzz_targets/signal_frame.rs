//! WebSocket frames of LiveKit signalling, binary and text.
#![no_main]

use headwater_gateway::{Frame, decode_frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = decode_frame(Frame::Binary(data));
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = decode_frame(Frame::Text(text));
    }
});
