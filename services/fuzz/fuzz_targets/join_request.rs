//! The `join_request` query parameter of v1 signalling, as text and as the
//! bytes inside its base64.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = headwater_gateway::decode_join_request(text);
    }
    let _ = headwater_gateway::decode_join_request(&URL_SAFE_NO_PAD.encode(data));
});
