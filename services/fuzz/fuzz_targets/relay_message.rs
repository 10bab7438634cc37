//! A control message of a relay link: nothing panics, and one that is read is the same
//! when it is written again.

#![no_main]

use headwater_relay::{MESSAGE_HEAD, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(Some((kind, len))) = Message::head(input) else { return };
    let body = &input[MESSAGE_HEAD..];
    let body = body.get(..len).unwrap_or(body);
    let Ok(Some(message)) = Message::parse(kind, body) else { return };
    let mut bytes = Vec::new();
    message.write(&mut bytes);
    assert_eq!(Message::parse(bytes[0], &bytes[MESSAGE_HEAD..]), Ok(Some(message)));
});
