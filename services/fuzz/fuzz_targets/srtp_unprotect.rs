//! Arbitrary bytes as SRTP and SRTCP in every profile: never accepted, never a
//! panic; and arbitrary plain packets protected and opened again.
#![no_main]

use headwater_transport::{MasterKey, SRTP_OVERHEAD_MAX, SrtpProfile, SrtpSession};
use libfuzzer_sys::fuzz_target;

fn session(profile: SrtpProfile) -> SrtpSession {
    let key = [7; 32];
    let master = MasterKey { key: &key[..profile.key_len()], salt: &key[..profile.salt_len()] };
    SrtpSession::new(profile, master, master).expect("lengths of the profile")
}

fuzz_target!(|input: (u8, &[u8], Vec<&[u8]>)| {
    let (header_len, plain, sealed) = input;
    for profile in [SrtpProfile::AeadAes128Gcm, SrtpProfile::AeadAes256Gcm, SrtpProfile::AesCm128HmacSha1_80] {
        let (mut sender, mut receiver) = (session(profile), session(profile));
        for packet in &sealed {
            assert!(receiver.unprotect_rtp(&mut packet.to_vec()).is_err());
            assert!(receiver.unprotect_rtcp(&mut packet.to_vec()).is_err());
        }
        let mut packet = plain.to_vec();
        packet.resize(plain.len() + SRTP_OVERHEAD_MAX, 0);
        if let Ok(total) = sender.protect_rtp(&mut packet, usize::from(header_len), plain.len()) {
            let _ = receiver.unprotect_rtp(&mut packet[..total]);
        }
        let mut packet = plain.to_vec();
        packet.resize(plain.len() + SRTP_OVERHEAD_MAX, 0);
        if let Ok(total) = sender.protect_rtcp(&mut packet, plain.len()) {
            let opened = receiver.unprotect_rtcp(&mut packet[..total]);
            assert!(opened.is_err() || packet[..plain.len()] == *plain);
        }
    }
});
