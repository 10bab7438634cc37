//! Vectors of RFC 3711, 6188 and 7714 below the key derivation, and the session
//! against `rtc-srtp`.

use proptest::prelude::*;
use rtc_srtp::context::Context;
use rtc_srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use rtc_srtp::protection_profile::ProtectionProfile;

use super::cm::{self, CmCipher};
use super::gcm::{self, GcmCipher};
use super::kdf::{Derivation, Label};
use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().unwrap()
}

fn derive(derivation: &Derivation, label: Label, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    derivation.derive(label, &mut out);
    out
}

#[test]
fn rfc3711_b3_session_keys_are_derived() {
    let master = hex("E1F97A0D3E018BE0D64FA32C06DE4139");
    let derivation = Derivation::new(&master, &hex("0EC675AD498AFEEBB6960B3AABE6")).unwrap();
    assert_eq!(
        derive(&derivation, Label::RtpEncryption, 16),
        hex("C61E7A93744F39EE10734AFE3FF7A087")
    );
    assert_eq!(derive(&derivation, Label::RtpSalt, 14), hex("30CBBC08863D8C85D49DB34A9AE1"));
    let authentication = hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4");
    assert_eq!(derive(&derivation, Label::RtpAuthentication, 20), authentication);
}

#[test]
fn rfc6188_7_2_session_keys_of_256_bits_are_derived() {
    let master = hex("F0F04914B513F2763A1B1FA130F10E2998F6F6E43E4309D1E622A0E332B9F1B6");
    let derivation = Derivation::new(&master, &hex("3B04803DE51EE7C96423AB5B78D2")).unwrap();
    let key = hex("5BA1064E30EC51613CAD926C5A28EF731EC7FB397F70A960653CAF06554CD8C4");
    assert_eq!(derive(&derivation, Label::RtpEncryption, 32), key);
    assert_eq!(derive(&derivation, Label::RtpSalt, 14), hex("FA31791685CA444A9E07C6C64E93"));
    assert_eq!(
        derive(&derivation, Label::RtpAuthentication, 20),
        hex("FD9C32D39ED5FBB5A9DC96B30818454D1313DC05")
    );
}

#[test]
fn rfc3711_b2_keystream_is_produced() {
    let keys = || {
        cm::Keys::new(
            array("2B7E151628AED2A6ABF7158809CF4F3C"),
            array("F0F1F2F3F4F5F6F7F8F9FAFBFCFD"),
            [0; 20],
        )
    };
    let cipher = CmCipher { rtp: keys(), rtcp: keys() };
    let mut packet = vec![0; 12 + 48 + SRTP_OVERHEAD_MAX];
    cipher.seal_rtp(&mut packet, 12, 60, 0).unwrap();
    let keystream = hex(
        "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0",
    );
    assert_eq!(packet[12..60], keystream);
}

const RTP: &str = "8040f17b8041f8d35501a0b247616c6c696120657374206f6d6e69732064697669736120696e207061727465732074726573";
const RTCP: &str = "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61deadbeefdeadbeefdeadbeefdeadbeefdeadbeef";

fn gcm_cipher(key: &str) -> GcmCipher {
    let keys = || gcm::Keys::new(&hex(key), array("517569642070726f2071756f")).unwrap();
    GcmCipher { rtp: keys(), rtcp: keys() }
}

fn with_room(plain: &str) -> (Vec<u8>, usize) {
    let mut packet = hex(plain);
    let length = packet.len();
    packet.resize(length + SRTP_OVERHEAD_MAX, 0);
    (packet, length)
}

#[test]
fn rfc7714_16_rtp_is_sealed_and_opened() {
    let vectors = [
        (
            "000102030405060708090a0b0c0d0e0f",
            "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce",
        ),
        (
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "8040f17b8041f8d35501a0b232b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13",
        ),
    ];
    for (key, expected) in vectors {
        let (mut packet, length) = with_room(RTP);
        let total = gcm_cipher(key).seal_rtp(&mut packet, 12, length, 0xf17b).unwrap();
        assert_eq!(packet[..total], hex(expected));
        let opened = gcm_cipher(key).open_rtp(&mut packet[..total], 12, 0xf17b).unwrap();
        assert_eq!(packet[..opened], hex(RTP));
    }
}

#[test]
fn rfc7714_17_rtcp_is_sealed_and_opened() {
    let vectors = [
        (
            "000102030405060708090a0b0c0d0e0f",
            "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4ce09b4686303ded0bb9275bc84aa45896cf4d2fc5abf87245d9eade800005d4",
        ),
        (
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "81c8000d4d617273d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1110555be8415f658c61de0476f1b6fad1d1eb30c4446839f57ff6f6cb26ac3be800005d4",
        ),
    ];
    for (key, expected) in vectors {
        let (mut packet, length) = with_room(RTCP);
        let total = gcm_cipher(key).seal_rtcp(&mut packet, length, 0x5d4).unwrap();
        assert_eq!(packet[..total], hex(expected));
        assert_eq!(GcmCipher::rtcp_index(&packet[..total]), Ok(0x5d4));
        let opened = gcm_cipher(key).open_rtcp(&mut packet[..total]).unwrap();
        assert_eq!(packet[..opened], hex(RTCP));
    }
}

const PROFILES: [SrtpProfile; 3] =
    [SrtpProfile::AeadAes128Gcm, SrtpProfile::AeadAes256Gcm, SrtpProfile::AesCm128HmacSha1_80];

fn oracle_profile(profile: SrtpProfile) -> ProtectionProfile {
    match profile {
        SrtpProfile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        SrtpProfile::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
        SrtpProfile::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
    }
}

const KEYS: [u8; 64] = {
    let mut bytes = [0; 64];
    let mut index = 0;
    while index < bytes.len() {
        bytes[index] = (index * 7 + 3) as u8;
        index += 1;
    }
    bytes
};

fn master(profile: SrtpProfile, which: usize) -> MasterKey<'static> {
    MasterKey {
        key: &KEYS[which..which + profile.key_len()],
        salt: &KEYS[which + 10..which + 10 + profile.salt_len()],
    }
}

fn session(profile: SrtpProfile) -> SrtpSession {
    SrtpSession::new(profile, master(profile, 0), master(profile, 1)).unwrap()
}

fn peer(profile: SrtpProfile) -> SrtpSession {
    SrtpSession::new(profile, master(profile, 1), master(profile, 0)).unwrap()
}

fn oracle(profile: SrtpProfile, which: usize) -> Context {
    let keys = master(profile, which);
    let crypto = crate::stun::provider().crypto();
    let replay = (Some(srtp_replay_protection(1024)), Some(srtcp_replay_protection(128)));
    Context::new(keys.key, keys.salt, oracle_profile(profile), replay.0, replay.1, crypto).unwrap()
}

fn protect(session: &mut SrtpSession, plain: &[u8]) -> Result<Vec<u8>, SrtpError> {
    let header_len = rtp_header_len(plain)?;
    let mut packet = plain.to_vec();
    packet.resize(plain.len() + SRTP_OVERHEAD_MAX, 0);
    let total = session.protect_rtp(&mut packet, header_len, plain.len())?;
    packet.truncate(total);
    Ok(packet)
}

fn unprotect(session: &mut SrtpSession, sealed: &[u8]) -> Result<Vec<u8>, SrtpError> {
    let mut packet = sealed.to_vec();
    let length = session.unprotect_rtp(&mut packet)?;
    packet.truncate(length);
    Ok(packet)
}

fn protect_rtcp(session: &mut SrtpSession, plain: &[u8]) -> Vec<u8> {
    let mut packet = plain.to_vec();
    packet.resize(plain.len() + SRTP_OVERHEAD_MAX, 0);
    let total = session.protect_rtcp(&mut packet, plain.len()).unwrap();
    packet.truncate(total);
    packet
}

fn unprotect_rtcp(session: &mut SrtpSession, sealed: &[u8]) -> Result<Vec<u8>, SrtpError> {
    let mut packet = sealed.to_vec();
    let length = session.unprotect_rtcp(&mut packet)?;
    packet.truncate(length);
    Ok(packet)
}

/// A packet with CSRCs and, if `words` is given, a one-byte extension header.
fn rtp(ssrc: u32, sequence: u16, csrcs: usize, words: Option<usize>, payload: &[u8]) -> Vec<u8> {
    let extension_bit = if words.is_some() { 0x10 } else { 0 };
    let mut packet = vec![0x80 | extension_bit | csrcs as u8, 96];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&[0, 1, 2, 3]);
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend((0..csrcs * 4).map(|index| index as u8));
    if let Some(words) = words {
        packet.extend_from_slice(&[0xbe, 0xde]);
        packet.extend_from_slice(&(words as u16).to_be_bytes());
        packet.extend((0..words * 4).map(|index| if index % 4 == 0 { 0x10 } else { 0 }));
    }
    packet.extend_from_slice(payload);
    packet
}

fn rtcp(ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let words = payload.len() / 4;
    let mut packet = vec![0x80, 200];
    packet.extend_from_slice(&(1 + words as u16).to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&payload[..words * 4]);
    packet
}

fn any_profile() -> impl Strategy<Value = SrtpProfile> {
    prop::sample::select(PROFILES.to_vec())
}

proptest! {
    #[test]
    fn rtp_agrees_with_the_oracle_both_ways(
        profile in any_profile(),
        ssrcs in prop::collection::vec(any::<u32>(), 1..4),
        start in 40_000u16..65_000,
        steps in prop::collection::vec((0usize..4, -20i32..600, 0usize..4, prop::option::of(0usize..5), 0usize..1300), 1..60),
    ) {
        let (mut ours, mut theirs_out, mut theirs_in) = (session(profile), oracle(profile, 1), oracle(profile, 0));
        let mut highest = vec![i64::from(start); ssrcs.len()];
        let mut used = std::collections::BTreeSet::new();
        for (stream, step, csrcs, words, length) in steps {
            let stream = stream % ssrcs.len();
            let index = (highest[stream] + i64::from(step)).max(i64::from(start));
            if !used.insert((ssrcs[stream], index)) {
                continue;
            }
            highest[stream] = highest[stream].max(index);
            let payload: Vec<u8> = (0..length).map(|at| (at * 13 + index as usize) as u8).collect();
            let plain = rtp(ssrcs[stream], index as u16, csrcs, words, &payload);

            let sealed = protect(&mut ours, &plain).unwrap();
            prop_assert_eq!(&theirs_in.decrypt_rtp(&sealed).unwrap()[..], &plain[..]);

            let sealed = theirs_out.encrypt_rtp(&plain).unwrap();
            prop_assert_eq!(unprotect(&mut ours, &sealed), Ok(plain));
            prop_assert_eq!(unprotect(&mut ours, &sealed), Err(SrtpError::Replayed));
        }
    }

    #[test]
    fn rtcp_agrees_with_the_oracle_both_ways(
        profile in any_profile(),
        steps in prop::collection::vec((0u32..3, prop::collection::vec(any::<u8>(), 0..200)), 1..40),
    ) {
        let (mut ours, mut theirs_out, mut theirs_in) = (session(profile), oracle(profile, 1), oracle(profile, 0));
        for (ssrc, payload) in steps {
            let plain = rtcp(ssrc, &payload);
            let sealed = protect_rtcp(&mut ours, &plain);
            prop_assert_eq!(&theirs_in.decrypt_rtcp(&sealed).unwrap()[..], &plain[..]);
            let sealed = theirs_out.encrypt_rtcp(&plain).unwrap();
            prop_assert_eq!(unprotect_rtcp(&mut ours, &sealed), Ok(plain));
            prop_assert_eq!(unprotect_rtcp(&mut ours, &sealed), Err(SrtpError::Replayed));
        }
    }

    #[test]
    fn any_changed_byte_is_refused_and_changes_nothing(
        profile in any_profile(), at in 0usize..1000, flip in 1u8.., words in prop::option::of(0usize..3),
    ) {
        let (mut sender, mut receiver) = (session(profile), peer(profile));
        let plain = rtp(7, 100, 1, words, &[5; 40]);
        let sealed = protect(&mut sender, &plain).unwrap();
        let mut changed = sealed.clone();
        let at = at % changed.len();
        changed[at] ^= flip;
        prop_assert!(unprotect(&mut receiver, &changed).is_err());
        prop_assert_eq!(unprotect(&mut receiver, &sealed), Ok(plain));
        let plain = rtcp(9, &[1; 40]);
        let sealed = protect_rtcp(&mut sender, &plain);
        let mut changed = sealed.clone();
        let at = at % changed.len();
        changed[at] ^= flip;
        prop_assert!(unprotect_rtcp(&mut receiver, &changed).is_err());
        prop_assert_eq!(unprotect_rtcp(&mut receiver, &sealed), Ok(plain));
    }

    #[test]
    fn arbitrary_bytes_never_panic(profile in any_profile(), bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut receiver = peer(profile);
        prop_assert!(unprotect(&mut receiver, &bytes).is_err());
        prop_assert!(unprotect_rtcp(&mut receiver, &bytes).is_err());
    }
}

#[test]
fn truncated_packets_are_refused_at_every_length() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = (session(profile), peer(profile));
        let sealed = protect(&mut sender, &rtp(7, 100, 2, Some(2), &[5; 40])).unwrap();
        let sealed_rtcp = protect_rtcp(&mut sender, &rtcp(9, &[1; 40]));
        for length in 0..sealed.len() {
            assert!(unprotect(&mut receiver, &sealed[..length]).is_err());
        }
        for length in 0..sealed_rtcp.len() {
            assert!(unprotect_rtcp(&mut receiver, &sealed_rtcp[..length]).is_err());
        }
    }
}

#[test]
fn the_rollover_counter_follows_through_several_wraps_with_reordering() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = (session(profile), peer(profile));
        let mut held = None;
        for index in (60_000u32..400_000).step_by(300) {
            let plain = rtp(7, index as u16, 0, None, &index.to_be_bytes());
            let sealed = protect(&mut sender, &plain).unwrap();
            match held.take() {
                None => held = Some((plain, sealed)),
                Some((late_plain, late)) => {
                    assert_eq!(unprotect(&mut receiver, &sealed), Ok(plain));
                    assert_eq!(unprotect(&mut receiver, &late), Ok(late_plain));
                }
            }
        }
    }
}

#[test]
fn packets_behind_the_replay_window_are_refused() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = (session(profile), peer(profile));
        let early: Vec<_> = (0..3)
            .map(|sequence| protect(&mut sender, &rtp(7, sequence, 0, None, &[1; 20])).unwrap())
            .collect();
        let later = protect(&mut sender, &rtp(7, 1025, 0, None, &[1; 20])).unwrap();
        assert!(unprotect(&mut receiver, &later).is_ok());
        assert_eq!(unprotect(&mut receiver, &early[1]), Err(SrtpError::Replayed));
        assert!(unprotect(&mut receiver, &early[2]).is_ok(), "1023 back is inside");
    }
}

#[test]
fn gcm_never_seals_a_sequence_number_twice() {
    for profile in [SrtpProfile::AeadAes128Gcm, SrtpProfile::AeadAes256Gcm] {
        let mut sender = session(profile);
        let plain = rtp(7, 1000, 0, None, &[1; 20]);
        assert!(protect(&mut sender, &plain).is_ok());
        assert_eq!(protect(&mut sender, &plain), Err(SrtpError::NonceReuse));
        assert!(protect(&mut sender, &rtp(7, 999, 0, None, &[1; 20])).is_ok(), "late but fresh");
        assert_eq!(
            protect(&mut sender, &rtp(7, 999, 0, None, &[1; 20])),
            Err(SrtpError::NonceReuse)
        );
        assert!(protect(&mut sender, &rtp(7, 2000, 0, None, &[1; 20])).is_ok());
        assert_eq!(
            protect(&mut sender, &rtp(7, 998, 0, None, &[1; 20])),
            Err(SrtpError::NonceReuse),
            "too old to know"
        );
    }
}

#[test]
fn a_packet_that_went_out_is_repeated_byte_for_byte_on_request() {
    for profile in PROFILES {
        let mut sender = session(profile);
        let plain = rtp(7, 65_535, 0, None, &[1; 20]);
        let repeat = |sender: &mut SrtpSession| {
            let mut packet = plain.clone();
            packet.resize(plain.len() + SRTP_OVERHEAD_MAX, 0);
            let total = sender.repeat_rtp(&mut packet, 12, plain.len())?;
            packet.truncate(total);
            Ok(packet)
        };
        assert_eq!(repeat(&mut sender), Err(SrtpError::NonceReuse), "never sent");
        let first = protect(&mut sender, &plain).unwrap();
        assert!(protect(&mut sender, &rtp(7, 0, 0, None, &[1; 20])).is_ok());
        assert_eq!(repeat(&mut sender), Ok(first));
        assert!(protect(&mut sender, &rtp(7, 600, 0, None, &[1; 20])).is_ok());
        assert_eq!(repeat(&mut sender), Err(SrtpError::NonceReuse), "out of the window");
    }
}

#[test]
fn counter_mode_repeats_a_packet_byte_for_byte() {
    let mut sender = session(SrtpProfile::AesCm128HmacSha1_80);
    let plain = rtp(7, 65_535, 0, None, &[1; 20]);
    let first = protect(&mut sender, &plain).unwrap();
    assert!(
        protect(&mut sender, &rtp(7, 0, 0, None, &[1; 20])).is_ok(),
        "the counter has moved on"
    );
    assert_eq!(protect(&mut sender, &plain).unwrap(), first);
}

#[test]
fn receive_streams_are_bounded_and_forgeries_take_no_room() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = (session(profile), peer(profile));
        for ssrc in 0..1000 {
            let mut forged = protect(&mut sender, &rtp(ssrc, 1, 0, None, &[1; 20])).unwrap();
            *forged.last_mut().unwrap() ^= 1;
            assert_eq!(unprotect(&mut receiver, &forged), Err(SrtpError::NotAuthentic));
        }
        for ssrc in 0..RECEIVE_STREAMS_MAX as u32 {
            let sealed = protect(&mut sender, &rtp(ssrc, 2, 0, None, &[1; 20])).unwrap();
            assert!(unprotect(&mut receiver, &sealed).is_ok());
        }
        let one_more = protect(&mut sender, &rtp(5000, 2, 0, None, &[1; 20])).unwrap();
        assert_eq!(unprotect(&mut receiver, &one_more), Err(SrtpError::TooManyStreams));
        let known = protect(&mut sender, &rtp(3, 3, 0, None, &[1; 20])).unwrap();
        assert!(unprotect(&mut receiver, &known).is_ok());
    }
}

#[test]
fn thousands_of_send_streams_keep_their_own_counters() {
    let (mut sender, mut receiver) =
        (session(SrtpProfile::AeadAes128Gcm), peer(SrtpProfile::AeadAes128Gcm));
    let ssrc_of = |stream: u32| stream.wrapping_mul(0x9e37_79b9);
    for sequence in [65_534u16, 65_535, 0, 1] {
        for stream in 0..4000 {
            let plain = rtp(ssrc_of(stream), sequence, 0, None, &[1; 20]);
            let sealed = protect(&mut sender, &plain).unwrap();
            if stream < 100 {
                assert_eq!(unprotect(&mut receiver, &sealed), Ok(plain));
            }
        }
    }
}

#[test]
fn wrong_lengths_are_refused() {
    for profile in PROFILES {
        let good = master(profile, 0);
        let short = MasterKey { key: &good.key[1..], ..good };
        assert!(matches!(SrtpSession::new(profile, short, good), Err(SrtpError::BadKey)));
        let long = MasterKey { salt: &KEYS[..profile.salt_len() + 1], ..good };
        assert!(matches!(SrtpSession::new(profile, good, long), Err(SrtpError::BadKey)));
    }
    let mut sender = session(SrtpProfile::AeadAes128Gcm);
    let mut packet = rtp(1, 1, 0, None, &[0; 20]);
    let length = packet.len();
    assert_eq!(sender.protect_rtp(&mut packet, 12, length), Err(SrtpError::NoRoom));
    assert_eq!(sender.protect_rtp(&mut packet, 11, 12), Err(SrtpError::Malformed));
    assert_eq!(sender.protect_rtp(&mut packet, 13, 12), Err(SrtpError::Malformed));
    assert_eq!(sender.protect_rtcp(&mut packet, 7), Err(SrtpError::Malformed));
    assert_eq!(sender.protect_rtcp(&mut packet, length), Err(SrtpError::NoRoom));
}
