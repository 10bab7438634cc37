//! DCEP messages, and hostile SCTP chunks into an established association.
#![no_main]

use std::time::Instant;

use headwater_transport::fuzzing::{dcep, sctp_chunks};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|packets: Vec<&[u8]>| {
    packets.iter().for_each(|bytes| dcep(bytes));
    sctp_chunks(Instant::now(), &packets);
});
