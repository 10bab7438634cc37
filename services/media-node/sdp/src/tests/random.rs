//! Arbitrary and mutated descriptions.

use headwater_model::media::MediaKind;
use proptest::prelude::*;

use super::{local, receive_all, sending};
use crate::samples::{CHROMIUM_PUBLISHES, FIREFOX_PUBLISHES, libwebrtc_receives};
use crate::*;

/// Whatever can be read can be answered, written and read again, section by
/// section.
fn survives(text: &str) {
    let Ok(offer) = Description::parse(text) else {
        return;
    };
    let _ = offer.remote_transport();
    let mut decisions = receive_all(&offer);
    for decision in decisions.iter_mut().step_by(2) {
        decision.send = Some(sending(MediaKind::Video));
    }
    let made = answer(&offer, &local(), &decisions);
    let read = Description::parse(&made.description.to_string()).unwrap();
    assert_eq!(read.sections.len(), offer.sections.len());
    for (theirs, ours) in offer.sections.iter().zip(&read.sections) {
        assert_eq!(theirs.kind, ours.kind);
        assert_eq!(theirs.mid, ours.mid);
        let _ = theirs.sent_encodings();
    }
    let mut offerer = Offerer::new();
    let _ = offerer.attach(MediaKind::Audio, sending(MediaKind::Audio));
    let _ = offerer.offer(&local());
    let _ = offerer.accept(&offer);
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,400}") {
        survives(&text);
    }

    #[test]
    fn lines_of_sdp_in_any_order_never_panic(
        lines in proptest::collection::vec(0_usize..200, 0..80),
        sample in 0_usize..3,
    ) {
        let text = sample_text(sample);
        let known: Vec<&str> = text.split_inclusive("\r\n").collect();
        let head = "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\n";
        let body: String = lines.iter().map(|line| known[line % known.len()]).collect();
        survives(&format!("{head}{body}"));
    }

    #[test]
    fn mutated_offers_never_panic(
        sample in 0_usize..3,
        edits in proptest::collection::vec((any::<usize>(), any::<u8>(), 0_usize..12), 1..12),
    ) {
        let mut bytes = sample_text(sample).into_bytes();
        for (place, byte, length) in edits {
            let place = place % bytes.len();
            let end = (place + length).min(bytes.len());
            bytes.splice(place..end, std::iter::once(byte));
        }
        survives(&String::from_utf8_lossy(&bytes));
    }
}

fn sample_text(sample: usize) -> String {
    match sample {
        0 => CHROMIUM_PUBLISHES.to_owned(),
        1 => FIREFOX_PUBLISHES.to_owned(),
        _ => libwebrtc_receives(2),
    }
}
