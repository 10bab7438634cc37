//! What WHIP and WHEP clients post: the doors' own reading of an offer, and
//! fragments of SDP.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = headwater_gateway::decode_offer(data);
    let _ = headwater_gateway::decode_fragment(data);
});
