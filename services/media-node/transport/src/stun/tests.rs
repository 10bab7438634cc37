//! Requests, responses and everything that only looks like them.

use proptest::prelude::*;

use super::*;

fn request(use_candidate: bool) -> Vec<u8> {
    BindingRequest {
        transaction: [9; 12],
        remote_ufrag: "evtj",
        local_ufrag: "h6vY",
        remote_pwd: "VOkJxbRl1RmTxUk/WvJxBt",
        priority: 0x6e00_01ff,
        tie_breaker: 0x932f_f9b1_5126_3b36,
        use_candidate,
    }
    .encode()
}

const PWD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

/// RFC 5769 §2.1: a request by somebody else.
const RFC5769_REQUEST: [u8; 108] = [
    0x00, 0x01, 0x00, 0x58, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86,
    0xfa, 0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x10, 0x53, 0x54, 0x55, 0x4e, 0x20, 0x74, 0x65, 0x73,
    0x74, 0x20, 0x63, 0x6c, 0x69, 0x65, 0x6e, 0x74, 0x00, 0x24, 0x00, 0x04, 0x6e, 0x00, 0x01, 0xff,
    0x80, 0x29, 0x00, 0x08, 0x93, 0x2f, 0xf9, 0xb1, 0x51, 0x26, 0x3b, 0x36, 0x00, 0x06, 0x00, 0x09,
    0x65, 0x76, 0x74, 0x6a, 0x3a, 0x68, 0x36, 0x76, 0x59, 0x20, 0x20, 0x20, 0x00, 0x08, 0x00, 0x14,
    0x9a, 0xea, 0xa7, 0x0c, 0xbf, 0xd8, 0xcb, 0x56, 0x78, 0x1e, 0xf2, 0xb5, 0xb2, 0xd3, 0xf2, 0x49,
    0xc1, 0xb5, 0x71, 0xa2, 0x80, 0x28, 0x00, 0x04, 0xe5, 0x7a, 0x3b, 0xcf,
];

#[test]
fn the_request_of_rfc5769_is_read_and_verified() {
    let view = BindingView::parse(&RFC5769_REQUEST).unwrap();
    assert_eq!((view.kind, view.use_candidate), (BindingKind::Request, false));
    assert_eq!(view.local_ufrag(), Some("evtj"));
    assert_eq!(view.verify(PWD), Ok(()));
    assert_eq!(view.verify("VOkJxbRl1RmTxUk/WvJxBT"), Err(StunError::NotAuthentic));
    assert_eq!(stun_local_ufrag(&RFC5769_REQUEST), Some("evtj"));
}

#[test]
fn a_written_request_reads_back() {
    let bytes = request(true);
    let view = BindingView::parse(&bytes).unwrap();
    assert_eq!((view.transaction, view.use_candidate), ([9; 12], true));
    assert_eq!(view.verify(PWD), Ok(()));
    assert!(!BindingView::parse(&request(false)).unwrap().use_candidate);
}

#[test]
fn a_response_carries_the_address_and_is_no_longer_than_the_request() {
    for address in ["192.0.2.1:32853", "[2001:db8:1234:5678:11:2233:4455:6677]:32853"] {
        let address: SocketAddr = address.parse().unwrap();
        let response = binding_success([9; 12], address.ip(), address.port(), PWD);
        let view = BindingView::parse(&response).unwrap();
        assert_eq!((view.kind, view.verify(PWD)), (BindingKind::Success, Ok(())));
        assert_eq!(mapped_address(&response), Some(address));
        assert!(response.len() <= request(false).len());
        assert_eq!(stun_local_ufrag(&response), None);
    }
}

/// The request with one attribute put in at `offset`, and its length put right.
fn with_attribute(bytes: &[u8], offset: usize, attribute: u16, value: &[u8]) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    let mut inserted = attribute.to_be_bytes().to_vec();
    inserted.extend_from_slice(&(value.len() as u16).to_be_bytes());
    inserted.extend_from_slice(value);
    changed.splice(offset..offset, inserted);
    let length = changed.len() as u16 - 20;
    changed[2..4].copy_from_slice(&length.to_be_bytes());
    changed
}

#[test]
fn attributes_behind_the_integrity_do_not_count() {
    let bytes = request(false);
    let without_fingerprint = bytes[..bytes.len() - 8].to_vec();
    let end = without_fingerprint.len();
    let changed = with_attribute(&without_fingerprint, end, USE_CANDIDATE, &[]);
    assert!(!BindingView::parse(&changed).unwrap().use_candidate);
}

#[test]
fn unknown_required_attributes_are_refused_and_optional_ones_ignored() {
    let bytes = &request(false)[..request(false).len() - 8];
    assert_eq!(
        BindingView::parse(&with_attribute(bytes, 20, 0x0030, &[1; 4])).unwrap_err(),
        StunError::UnknownAttribute
    );
    assert!(BindingView::parse(&with_attribute(bytes, 20, 0xc057, &[1; 4])).is_ok());
}

#[test]
fn missing_parts_are_named() {
    let bytes = request(false);
    let integrity_at = bytes.len() - 32;
    let mut bare = bytes[..integrity_at].to_vec();
    let length = bare.len() as u16 - 20;
    bare[2..4].copy_from_slice(&length.to_be_bytes());
    assert_eq!(BindingView::parse(&bare).unwrap_err(), StunError::NotAuthentic);
    let mut bad_fingerprint = bytes.clone();
    *bad_fingerprint.last_mut().unwrap() ^= 1;
    assert_eq!(BindingView::parse(&bad_fingerprint).unwrap_err(), StunError::BadFingerprint);
    let mut indication = bytes;
    indication[1] = 0x11;
    assert_eq!(BindingView::parse(&indication).unwrap_err(), StunError::UnexpectedType);
}

proptest! {
    #[test]
    fn any_changed_byte_is_refused_or_means_nothing(at in 0usize..200, flip in 1u8..) {
        let mut bytes = request(true);
        let at = at % bytes.len();
        bytes[at] ^= flip;
        if let Ok(view) = BindingView::parse(&bytes) && view.verify(PWD).is_ok() {
            prop_assert!(at >= bytes.len() - 8, "only the type of FINGERPRINT is not covered");
            prop_assert_eq!((view.transaction, view.local_ufrag(), view.use_candidate), ([9; 12], Some("evtj"), true));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        with_header: bool,
    ) {
        if with_header && bytes.len() >= 20 {
            let length = (bytes.len() as u16 - 20) & !3;
            bytes.truncate(20 + usize::from(length));
            bytes[..2].copy_from_slice(&[0, 1]);
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            bytes[4..8].copy_from_slice(&MAGIC_COOKIE);
        }
        if let Ok(view) = BindingView::parse(&bytes) {
            prop_assert!(view.verify(PWD).is_err());
        }
        let _ = stun_local_ufrag(&bytes);
        let _ = mapped_address(&bytes);
    }

    #[test]
    fn truncation_is_refused(length in 0usize..200) {
        let bytes = request(true);
        prop_assume!(length < bytes.len());
        prop_assert!(BindingView::parse(&bytes[..length]).is_err());
    }
}
