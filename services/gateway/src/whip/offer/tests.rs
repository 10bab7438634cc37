//! Offers as encoders and players write them, and what is no offer.

use super::*;

const OBS: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=sendonly\r\na=msid:stream audio-id\r\n\
    a=fmtp:111 minptime=10;stereo=1;useinbandfec=1\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=sendonly\r\na=rid:2 send\r\na=rid:1 send\r\n\
    a=rid:0 send\r\na=simulcast:send 2;1;0\r\n\
    m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\na=recvonly\r\n";

#[test]
fn tracks_are_announced_in_the_order_of_the_sections() {
    let offer = decode_offer(OBS.as_bytes()).unwrap();
    assert_eq!(offer.sections.len(), 2, "data is not media");
    assert!(offer.sends() && !offer.receives());
    let tracks = offer.tracks(&Permission::default());
    assert_eq!(tracks[0].client_track_id, "audio-id");
    assert_eq!(tracks[0].source(), v1::TrackSource::Microphone);
    assert!(tracks[0].stereo && tracks[0].layers.is_empty());
    assert_eq!(tracks[1].client_track_id, "mid:1", "without an id it is known by its place");
    assert_eq!(tracks[1].source(), v1::TrackSource::Camera);
    let layers: Vec<_> =
        tracks[1].layers.iter().map(|layer| (layer.rid.as_str(), layer.quality)).collect();
    assert_eq!(layers, [("2", 0), ("1", 1), ("0", 2)]);
}

#[test]
fn encodings_are_ordered_by_their_names_or_else_by_the_sdp() {
    let order = |rids: &[&str]| {
        let rids: Vec<String> = rids.iter().map(|&rid| rid.to_owned()).collect();
        layers(&rids).into_iter().map(|layer| (layer.rid, layer.quality)).collect::<Vec<_>>()
    };
    let expected = |pairs: &[(&str, u32)]| {
        pairs.iter().map(|(rid, quality)| ((*rid).to_owned(), *quality)).collect::<Vec<_>>()
    };
    assert_eq!(order(&["f", "h", "q"]), expected(&[("q", 0), ("h", 1), ("f", 2)]));
    assert_eq!(order(&["high", "low", "mid"]), expected(&[("low", 0), ("mid", 1), ("high", 2)]));
    assert_eq!(order(&["l", "h"]), expected(&[("l", 1), ("h", 2)]));
    assert_eq!(order(&["big", "small"]), expected(&[("small", 1), ("big", 2)]));
    assert_eq!(order(&["one"]), expected(&[]));
}

#[test]
fn a_token_for_screens_only_publishes_a_screen() {
    let permission = Permission {
        can_publish_sources: [TrackSource::ScreenShare].into_iter().collect(),
        ..Permission::default()
    };
    let tracks = decode_offer(OBS.as_bytes()).unwrap().tracks(&permission);
    assert_eq!(tracks[1].source(), v1::TrackSource::ScreenShare);
    assert_eq!(tracks[0].source(), v1::TrackSource::Unspecified, "which the node refuses");
}

#[test]
fn the_sessions_direction_holds_for_sections_without_one() {
    let text =
        "v=0\nt=0 0\na=recvonly\nm=video 9 UDP/TLS/RTP/SAVPF 96\nm=audio 9 X 1\na=sendonly\n";
    let offer = decode_offer(text.as_bytes()).unwrap();
    assert!(offer.sections[0].receives && !offer.sections[0].sends);
    assert!(offer.sections[1].sends && !offer.sections[1].receives);
}

#[test]
fn what_is_no_offer_is_refused() {
    assert_eq!(decode_offer(b"\xff\xfe"), Err(OfferError::NotText));
    assert_eq!(decode_offer(b"{}"), Err(OfferError::NotSdp));
    assert_eq!(decode_offer(b""), Err(OfferError::NotSdp));
    assert_eq!(decode_offer(b"v=0\r\nm=application 9 X 1\r\n"), Err(OfferError::NoMedia));
    let many = format!("v=0\r\n{}", "m=audio 9 X 1\r\n".repeat(SECTIONS_MAX + 1));
    assert_eq!(decode_offer(many.as_bytes()), Err(OfferError::TooManySections));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, text: String) {
        let _ = decode_offer(&bytes);
        let _ = decode_offer(format!("v=0\n{text}").as_bytes());
    }

    #[test]
    fn no_lines_make_it_panic(lines in proptest::collection::vec("(m=|a=|a=rid:|a=msid:|a=fmtp:)[a-z0-9 :;=]{0,20}", 0..40)) {
        if let Ok(offer) = decode_offer(format!("v=0\n{}", lines.join("\n")).as_bytes()) {
            let _ = offer.tracks(&Permission::default());
        }
    }
}
