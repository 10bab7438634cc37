//! Access tokens and cluster proofs: any text, and any header and claims under a
//! good signature, which is the deepest that a forger cannot but a clumsy SDK can get.
#![no_main]

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use headwater_rpc::{ClusterCredential, KeyRing};
use libfuzzer_sys::fuzz_target;
use ring::hmac;

const NOW: u64 = 1_700_000_000;

fn ring() -> &'static KeyRing {
    static RING: OnceLock<KeyRing> = OnceLock::new();
    RING.get_or_init(|| KeyRing::single("devkey", "secret").expect("a key and a secret"))
}

fn credential() -> &'static ClusterCredential {
    static CREDENTIAL: OnceLock<ClusterCredential> = OnceLock::new();
    CREDENTIAL.get_or_init(|| {
        ClusterCredential::new(&"0123456789abcdef".to_owned().into()).expect("long enough")
    })
}

fuzz_target!(|data: &[u8]| {
    let Some((mode, rest)) = data.split_first() else { return };
    match mode % 4 {
        0 => {
            if let Ok(text) = std::str::from_utf8(rest) {
                assert!(ring().verify(text, NOW).is_err(), "a token was forged");
            }
        }
        1 => {
            if let Ok(text) = std::str::from_utf8(rest) {
                assert!(!credential().accepts(text, NOW), "a proof was forged");
            }
        }
        2 => drop(ring().verify(&signed(br#"{"alg":"HS256"}"#, rest), NOW)),
        _ => drop(ring().verify(&signed(rest, br#"{"iss":"devkey","exp":1700000600}"#), NOW)),
    }
});

fn signed(header: &[u8], claims: &[u8]) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"secret"), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
