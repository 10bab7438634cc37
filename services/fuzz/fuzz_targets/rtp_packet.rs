//! RTP packets with their extensions: what is accepted adds up, and a header written
//! from it reads the same.

#![no_main]

use headwater_rtp::extension::{
    AbsSendTime, AudioLevel, PlayoutDelay, parse_token, parse_transport_cc,
};
use headwater_rtp::{Extension, RtpHeader, RtpView, rtx};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(view) = RtpView::parse(bytes) else {
        return;
    };
    assert!(view.csrcs().count() <= 15);
    assert_eq!(
        view.header_len() + view.payload().len() + view.padding_len(),
        bytes.len()
    );
    for (id, value) in view.extensions() {
        let first = view.extension_range(id).expect("an id that was listed");
        assert_eq!(view.extension(id), Some(&bytes[first]));
        let _ = (
            AudioLevel::parse(value),
            AbsSendTime::parse(value),
            PlayoutDelay::parse(value),
        );
        let _ = (parse_token(value), parse_transport_cc(value));
    }
    let _ = rtx::parse(view.payload());
    write_again(&view);
});

fn write_again(view: &RtpView<'_>) {
    let header = RtpHeader {
        payload_type: view.payload_type(),
        marker: view.marker(),
        sequence: view.sequence(),
        timestamp: view.timestamp(),
        ssrc: view.ssrc(),
    };
    let extensions: Vec<Extension<'_>> = view.extensions().collect();
    let mut out = vec![0; RtpHeader::encoded_len(&extensions)];
    // Many short one-byte elements may exceed the length field once one needs two bytes.
    let Ok(len) = header.write(&extensions, &mut out) else {
        return;
    };
    let again = RtpView::parse(&out[..len]).expect("a header of ours");
    assert!(again.extensions().eq(extensions.iter().copied()));
    assert_eq!(
        (again.sequence(), again.ssrc()),
        (view.sequence(), view.ssrc())
    );
}
