//! A datagram of a relay link: nothing panics, and frames that are read are the same
//! when they are written again.

#![no_main]

use headwater_relay::{Frame, Train};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(frame) = Frame::parse(input) {
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        assert_eq!(bytes.len(), frame.len());
        assert_eq!(Frame::parse(&bytes[2..]), Ok(frame));
    }
    if let Ok(train) = Train::parse(input) {
        for frame in train.frames().flatten() {
            assert!(frame.len() <= input.len() + 2);
        }
    }
});
