//! The packet path allocates nothing once an SSRC is known.

use headwater_transport::{MasterKey, SRTP_OVERHEAD_MAX, SrtpProfile, SrtpSession};

fn session(profile: SrtpProfile) -> SrtpSession {
    let key = [7; 32];
    let master = MasterKey { key: &key[..profile.key_len()], salt: &key[..profile.salt_len()] };
    SrtpSession::new(profile, master, master).expect("lengths of the profile")
}

fn round_trip(
    sender: &mut SrtpSession,
    receiver: &mut SrtpSession,
    packet: &mut [u8],
    sequence: u16,
) {
    let plain = packet.len() - SRTP_OVERHEAD_MAX;
    packet[0] = 0x80;
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    let total = sender.protect_rtp(packet, 12, plain).expect("a fresh packet");
    assert_eq!(receiver.unprotect_rtp(&mut packet[..total]), Ok(plain));
    let total = sender.protect_rtcp(packet, 40).expect("room");
    assert_eq!(receiver.unprotect_rtcp(&mut packet[..total]), Ok(40));
}

#[test]
fn protecting_and_unprotecting_allocate_nothing() {
    for profile in
        [SrtpProfile::AeadAes128Gcm, SrtpProfile::AeadAes256Gcm, SrtpProfile::AesCm128HmacSha1_80]
    {
        let (mut sender, mut receiver) = (session(profile), session(profile));
        let mut packet = vec![0; 1200 + SRTP_OVERHEAD_MAX];
        for ssrc in 0..20u8 {
            packet[11] = ssrc;
            round_trip(&mut sender, &mut receiver, &mut packet, 1);
        }
        let counted = allocation_counter::measure(|| {
            for sequence in 2..100 {
                for ssrc in 0..20 {
                    packet[11] = ssrc;
                    round_trip(&mut sender, &mut receiver, &mut packet, sequence);
                }
            }
            let mut forged = [0x80; 60];
            assert!(receiver.unprotect_rtp(&mut forged).is_err());
            assert!(receiver.unprotect_rtcp(&mut forged).is_err());
        });
        assert_eq!(counted.count_total, 0, "{profile:?}");
    }
}
