//! Negotiation as clients see it: texts in, texts out.

mod random;

use headwater_model::media::{Codec, HeaderExtension, MediaKind};

use crate::samples::{CHROMIUM_PUBLISHES, FIREFOX_PUBLISHES, answer_to, libwebrtc_receives};
use crate::*;

fn local() -> LocalTransport {
    LocalTransport {
        credentials: IceCredentials {
            ufrag: "local1".to_owned(),
            pwd: "a-password-of-enough-length".to_owned(),
        },
        fingerprint: ["AB"; 32].join(":"),
        candidates: vec![
            Candidate {
                protocol: CandidateProtocol::Udp,
                address: "192.0.2.1:7882".parse().unwrap(),
            },
            Candidate {
                protocol: CandidateProtocol::Tcp,
                address: "192.0.2.1:7881".parse().unwrap(),
            },
        ],
        max_message_size: 65_535,
        session_id: 7,
        session_version: 1,
    }
}

fn receive_all(offer: &Description) -> Vec<SectionDecision> {
    let receive = Receiving { dtx: true, ..Receiving::default() };
    offer
        .sections
        .iter()
        .map(|_| SectionDecision { receive: Some(receive.clone()), send: None })
        .collect()
}

fn sending(kind: MediaKind) -> Sending {
    Sending {
        stream_id: "PA_publisher|TR_track".to_owned(),
        track_id: "TR_track".to_owned(),
        cname: "PA_publisher".to_owned(),
        ssrc: 1000,
        rtx_ssrc: (kind == MediaKind::Video).then_some(1001),
        stereo: false,
        preferred: None,
    }
}

/// Answers and reads the text again, as the client would.
fn answered(offer: &Description, decisions: &[SectionDecision]) -> (Answer, Description) {
    let made = answer(offer, &local(), decisions);
    let read = Description::parse(&made.description.to_string()).unwrap();
    (made, read)
}

#[test]
fn a_chromium_publisher_is_answered_in_its_own_payload_types() {
    let offer = Description::parse(CHROMIUM_PUBLISHES).unwrap();
    let (made, text) = answered(&offer, &receive_all(&offer));
    assert_eq!(text.bundle, ["0", "1", "2"]);
    assert!(text.ice_lite && text.extmap_allow_mixed);
    assert_eq!(text.sections[0].kind, SectionKind::Application);
    assert_eq!(text.sections[0].max_message_size, Some(65_535));
    assert_eq!(text.sections[1].direction, Direction::RecvOnly);
    assert_eq!(text.sections[1].formats, ["111"], "RED was not asked for, the rest never is");
    assert_eq!(text.sections[1].codecs[0].format, "minptime=10;useinbandfec=1;usedtx=1");
    assert_eq!(text.sections[1].codecs[0].feedback, ["transport-cc", "nack"]);

    let video = &made.sections[2];
    let chosen: Vec<(Codec, u8, Option<u8>)> = video
        .codecs
        .iter()
        .map(|codec| (codec.codec, codec.payload_type, codec.rtx_payload_type))
        .collect();
    assert_eq!(
        chosen,
        [
            (Codec::Vp8, 96, Some(97)),
            (Codec::H264, 109, Some(114)),
            (Codec::Vp9, 98, Some(99)),
            (Codec::Vp9, 100, Some(101)),
            (Codec::Av1, 45, Some(46)),
            (Codec::H264, 103, Some(104)),
        ],
        "packetization mode 0 and AV1 profile 1 are left out, High comes last"
    );
    assert!(video.codecs[0].nack && video.codecs[0].pli && video.codecs[0].transport_cc);
    assert_eq!(video.extensions.get(HeaderExtension::Rid), Some(10));
    assert_eq!(video.extensions.get(HeaderExtension::RepairedRid), Some(11));
    assert_eq!(video.extensions.get(HeaderExtension::VideoOrientation), None);
    let rids: Vec<(&str, bool)> =
        text.sections[2].rids.iter().map(|rid| (rid.id.as_str(), rid.sends)).collect();
    assert_eq!(rids, [("q", false), ("h", false), ("f", false)]);
    assert!(!made.description.to_string().contains("goog-remb"));
}

/// Payload types and what their blocks carry, as agreed.
fn sound_of(made: &Answer, section: usize) -> Vec<(u8, Option<u8>)> {
    made.sections[section].codecs.iter().map(|codec| (codec.payload_type, codec.red_of)).collect()
}

#[test]
fn red_is_asked_for_in_front_of_its_opus() {
    let offer = Description::parse(CHROMIUM_PUBLISHES).unwrap();
    let mut decisions = receive_all(&offer);
    for decision in &mut decisions {
        decision.receive.as_mut().unwrap().red = true;
    }
    let (made, text) = answered(&offer, &decisions);
    assert_eq!(text.sections[1].formats, ["63", "111"]);
    assert_eq!(text.sections[1].codecs[0].format, "111/111");
    assert_eq!(sound_of(&made, 1), [(63, Some(111)), (111, None)]);
    let red = &made.sections[1].codecs[0];
    assert!(red.nack && red.transport_cc && red.codec == Codec::Opus, "as its Opus");
    assert!(made.sections[2].codecs.iter().all(|codec| codec.red_of.is_none()));

    // RED of anything else, or of nothing, is not RED of this Opus.
    for format in ["110/110", "111/110", "", "111/", "300/300"] {
        let other = CHROMIUM_PUBLISHES.replace("a=fmtp:63 111/111", &format!("a=fmtp:63 {format}"));
        let offer = Description::parse(&other).unwrap();
        let (made, _) = answered(&offer, &decisions);
        assert_eq!(sound_of(&made, 1), [(111, None)], "{format}");
    }
    let offer = Description::parse(FIREFOX_PUBLISHES).unwrap();
    let (made, _) = answered(&offer, &receive_all(&offer));
    assert!(made.sections[0].codecs.iter().all(|codec| codec.red_of.is_none()));
}

#[test]
fn a_section_that_receives_takes_red_behind_its_opus() {
    let offer = Description::parse(&libwebrtc_receives(1)).unwrap();
    let mut decisions = receive_all(&offer);
    decisions[0].send = Some(sending(MediaKind::Audio));
    let (made, text) = answered(&offer, &decisions);
    assert_eq!(text.sections[0].formats, ["111", "63"]);
    assert_eq!(sound_of(&made, 0), [(111, None), (63, Some(111))]);
}

#[test]
fn clients_answer_the_nodes_offer_with_red_or_without() {
    let accepted = |change: &dyn Fn(String) -> String| {
        let mut offerer = Offerer::new();
        offerer.attach(MediaKind::Audio, sending(MediaKind::Audio)).unwrap();
        let offer = offerer.offer(&local()).to_string();
        let answer = Description::parse(&change(answer_to(&offer))).unwrap();
        let sections = offerer.accept(&answer).unwrap();
        sections[0].codecs.iter().map(|it| (it.payload_type, it.red_of)).collect::<Vec<_>>()
    };
    let with = [(111, None), (63, Some(111))];
    assert_eq!(accepted(&|answer| answer), with);
    assert_eq!(accepted(&|answer| answer.replace("111 63", "63 111")), with);
    let without = |line: &'static str| {
        move |answer: String| {
            answer.split_inclusive("\r\n").filter(|it| !it.starts_with(line)).collect::<String>()
        }
    };
    assert_eq!(accepted(&without("a=fmtp:63")), [(111, None)]);
    assert_eq!(accepted(&without("a=rtpmap:63")), [(111, None)]);
    assert_eq!(accepted(&without("a=rtpmap:111")), [], "RED alone is nothing");
}

#[test]
fn the_declared_codec_comes_first() {
    let offer = Description::parse(CHROMIUM_PUBLISHES).unwrap();
    let mut decisions = receive_all(&offer);
    decisions[2].receive.as_mut().unwrap().preferred = Some(Codec::H264);
    let (made, text) = answered(&offer, &decisions);
    assert_eq!(made.sections[2].codecs[0].payload_type, 109);
    assert_eq!(text.sections[2].formats[..2], ["109", "114"]);

    decisions[2].receive =
        Some(Receiving { allowed: vec![Codec::Vp9, Codec::Vp8], ..Receiving::default() });
    decisions[1].receive = decisions[2].receive.clone();
    let (made, _) = answered(&offer, &decisions);
    let codecs: Vec<Codec> = made.sections[2].codecs.iter().map(|codec| codec.codec).collect();
    assert_eq!(codecs, [Codec::Vp9, Codec::Vp9, Codec::Vp8]);
    assert_eq!(made.sections[1].codecs.len(), 1, "a kind that is not restricted is free");
}

#[test]
fn encodings_are_read_from_rids_and_from_ssrcs() {
    let offer = Description::parse(CHROMIUM_PUBLISHES).unwrap();
    let rids: Vec<Option<String>> =
        offer.sections[2].sent_encodings().into_iter().map(|encoding| encoding.rid).collect();
    assert_eq!(rids, [Some("q".to_owned()), Some("h".to_owned()), Some("f".to_owned())]);
    assert!(offer.sections[2].rids[2].paused);
    assert_eq!(offer.sections[1].sent_encodings()[0].ssrc, Some(3_735_928_559));
    assert_eq!(offer.sections[1].track_id(), Some("6fa1e8d7-0d1c-4c7d-a0e4-5f5b3a0d9c11"));

    let with_fid = CHROMIUM_PUBLISHES
        .replace("a=rid:q send\r\na=rid:h send\r\na=rid:f send\r\na=simulcast:send q;h;~f\r\n", "")
        + "a=ssrc-group:FID 11 12\r\na=ssrc:11 cname:x\r\na=ssrc:12 cname:x\r\n";
    let offer = Description::parse(&with_fid).unwrap();
    let encodings = offer.sections[2].sent_encodings();
    assert_eq!(encodings.len(), 1);
    assert_eq!((encodings[0].ssrc, encodings[0].rtx_ssrc), (Some(11), Some(12)));
}

#[test]
fn a_firefox_publisher_keeps_its_rids() {
    let offer = Description::parse(FIREFOX_PUBLISHES).unwrap();
    let (made, text) = answered(&offer, &receive_all(&offer));
    let sdp = made.description.to_string();
    assert!(sdp.contains("a=extmap:9 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n"));
    assert!(!sdp.contains("/sendonly"), "a repeated direction silences Firefox's RIDs");
    assert_eq!(made.sections[1].codecs[0].payload_type, 120);
    assert_eq!(made.sections[1].codecs[0].rtx_payload_type, Some(124));
    let modes: Vec<u8> = made.sections[1].codecs.iter().map(|codec| codec.payload_type).collect();
    assert!(!modes.contains(&97), "H.264 without packetization mode 1 is left out");
    assert_eq!(text.sections[0].direction, Direction::RecvOnly);
    let remote = offer.remote_transport().unwrap();
    assert_eq!(remote.credentials.ufrag, "abcd1234");
    assert!(remote.fingerprint.starts_with("1C:2D"), "taken from the session");
    assert_eq!(remote.max_message_size, Some(1_073_741_823));
}

#[test]
fn sections_that_receive_only_get_a_track_or_stay_inactive() {
    let offer = Description::parse(&libwebrtc_receives(3)).unwrap();
    let mut decisions = receive_all(&offer);
    decisions[1].send = Some(sending(MediaKind::Audio));
    decisions[4].send = Some(sending(MediaKind::Video));
    let (made, text) = answered(&offer, &decisions);
    let directions: Vec<Direction> =
        text.sections.iter().map(|section| section.direction).collect();
    assert_eq!(directions[0], Direction::Inactive);
    assert_eq!(directions[1], Direction::SendOnly);
    assert_eq!(directions[3], Direction::Inactive);
    assert_eq!(directions[4], Direction::SendOnly);
    assert!(text.sections.iter().all(|section| section.port == 9));
    assert!(made.sections[4].sends && !made.sections[4].receives);
    let msid = &text.sections[4].msids[0];
    assert_eq!(msid.stream, "PA_publisher|TR_track");
    assert_eq!(msid.track.as_deref(), Some("TR_track"));
    assert_eq!(text.sections[4].source_groups[0].ssrcs, [1000, 1001]);
    let formats: Vec<&str> =
        made.sections[4].codecs.iter().map(|codec| codec.format.as_str()).collect();
    assert!(formats.iter().all(|format| !format.contains("64001f")), "High is not asked for");
    let sdp = made.description.to_string();
    assert!(!sdp.contains("sctp-init") && !sdp.contains("goog-sped"));
    assert!(!sdp.contains("sdes:rtp-stream-id"));
    assert_eq!(text.sections[6].kind, SectionKind::Application);
}

#[test]
fn stereo_is_asked_for_and_announced() {
    let offer = Description::parse(CHROMIUM_PUBLISHES).unwrap();
    let mut decisions = receive_all(&offer);
    decisions[1].receive = Some(Receiving { stereo: true, ..Receiving::default() });
    let (_, text) = answered(&offer, &decisions);
    assert_eq!(
        text.sections[1].codecs[0].format,
        "minptime=10;useinbandfec=1;stereo=1;maxaveragebitrate=510000"
    );
    let offer = Description::parse(&libwebrtc_receives(1)).unwrap();
    let mut decisions = receive_all(&offer);
    decisions[0].send = Some(Sending { stereo: true, ..sending(MediaKind::Audio) });
    let (_, text) = answered(&offer, &decisions);
    assert!(text.sections[0].codecs[0].format.contains("sprop-stereo=1"));
}

#[test]
fn what_cannot_be_carried_is_rejected_in_its_place() {
    let text = CHROMIUM_PUBLISHES
        .replace("a=rtcp-mux\r\na=rtcp-rsize\r\na=rtpmap:111", "a=rtpmap:111")
        .replace("m=application 9 UDP/DTLS/SCTP", "m=application 9 DTLS/SCTP");
    let offer = Description::parse(&text).unwrap();
    let (_, answer) = answered(&offer, &receive_all(&offer));
    assert_eq!(answer.sections.len(), 3);
    assert_eq!(answer.sections[1].port, 0, "no RTCP multiplexing");
    assert_eq!(answer.sections[1].mid, "1");
    assert_eq!(answer.bundle, ["0", "2"]);

    let no_codec = CHROMIUM_PUBLISHES.replace("opus/48000", "speex/48000");
    let offer = Description::parse(&no_codec).unwrap();
    let (made, answer) = answered(&offer, &receive_all(&offer));
    assert_eq!(answer.sections[1].port, 0);
    assert!(!made.sections[1].receives);

    let stopped = CHROMIUM_PUBLISHES.replace("m=audio 9", "m=audio 0");
    let offer = Description::parse(&stopped).unwrap();
    let (_, answer) = answered(&offer, &receive_all(&offer));
    assert_eq!(answer.sections[1].port, 0);
    let bundle_only = stopped.replace("a=mid:1", "a=mid:1\r\na=bundle-only");
    let offer = Description::parse(&bundle_only).unwrap();
    let (_, answer) = answered(&offer, &receive_all(&offer));
    assert_eq!(answer.sections[1].direction, Direction::RecvOnly);
}

#[test]
fn without_a_bundle_group_only_one_section_is_carried() {
    let text = CHROMIUM_PUBLISHES.replace("a=group:BUNDLE 0 1 2\r\n", "");
    let offer = Description::parse(&text).unwrap();
    let (_, answer) = answered(&offer, &receive_all(&offer));
    let ports: Vec<u16> = answer.sections.iter().map(|section| section.port).collect();
    assert_eq!(ports, [9, 0, 0]);
}

#[test]
fn the_answer_names_every_candidate_once() {
    let offer = Description::parse(CHROMIUM_PUBLISHES).unwrap();
    let (made, text) = answered(&offer, &receive_all(&offer));
    let sdp = made.description.to_string();
    assert_eq!(sdp.matches("a=candidate").count(), 2);
    assert!(sdp.contains(" udp ") && sdp.contains("typ host tcptype passive\r\n"));
    assert_eq!(sdp.matches("a=end-of-candidates").count(), 1);
    for section in &text.sections {
        assert_eq!(section.setup, Some(Setup::Passive));
        assert_eq!(section.ice.as_ref().unwrap().ufrag, "local1");
    }
}

#[test]
fn malformed_descriptions_say_where() {
    let cases: [(String, &str); 9] = [
        (String::new(), "line 1"),
        ("v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\nhello\r\n".to_owned(), "line 3"),
        (CHROMIUM_PUBLISHES.replace("a=mid:1\r\n", ""), "section 1: a=mid is missing"),
        (CHROMIUM_PUBLISHES.replace("a=mid:1\r\n", "a=mid:0\r\n"), "repeats the mid"),
        (CHROMIUM_PUBLISHES.replace("a=rid:h send", "a=rid:h! send"), "a=rid is malformed"),
        (CHROMIUM_PUBLISHES.replace("rtpmap:96", "rtpmap:296"), "section 2: a=rtpmap"),
        (CHROMIUM_PUBLISHES.replace("setup:actpass", "setup:maybe"), "a=setup is malformed"),
        (CHROMIUM_PUBLISHES.replace("sctp-port:5000", "sctp-port:many"), "a=sctp-port"),
        (format!("{CHROMIUM_PUBLISHES}a=x:{}\r\n", "y".repeat(LINE_BYTES_MAX)), "longer than"),
    ];
    for (text, expected) in cases {
        let error = Description::parse(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} does not contain {expected}");
    }
}

#[test]
fn size_and_number_of_sections_are_limited() {
    let long = "a".repeat(SDP_BYTES_MAX + 1);
    assert!(matches!(Description::parse(&long), Err(ParseError::TooLong { .. })));
    let head = "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";
    let section = |mid: usize| format!("m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:{mid}\r\n");
    let most: String = (0..SECTIONS_MAX).map(section).collect();
    assert!(Description::parse(&format!("{head}{most}")).is_ok());
    let more: String = (0..=SECTIONS_MAX).map(section).collect();
    let error = Description::parse(&format!("{head}{more}")).unwrap_err();
    assert!(matches!(error, ParseError::TooManySections));
    let rids: String = (0..=SECTION_ITEMS_MAX).map(|n| format!("a=rid:r{n} send\r\n")).collect();
    let error = Description::parse(&format!("{head}{}{rids}", section(0))).unwrap_err();
    assert!(error.to_string().contains("given too often"));
}

#[test]
fn a_transport_needs_credentials_a_fingerprint_and_an_active_client() {
    let without = |line: &str| {
        let text: String =
            CHROMIUM_PUBLISHES.split_inclusive("\r\n").filter(|it| !it.starts_with(line)).collect();
        Description::parse(&text).unwrap().remote_transport()
    };
    assert_eq!(without("a=ice-pwd"), Err(TransportError::NoCredentials));
    assert_eq!(without("a=fingerprint"), Err(TransportError::NoFingerprint));
    let passive = CHROMIUM_PUBLISHES.replace("setup:actpass", "setup:passive");
    let remote = Description::parse(&passive).unwrap().remote_transport();
    assert_eq!(remote, Err(TransportError::NotActive));
    let sha1 = CHROMIUM_PUBLISHES.replace("sha-256 ", "sha-1 ");
    let remote = Description::parse(&sha1).unwrap().remote_transport();
    assert_eq!(remote, Err(TransportError::NoFingerprint));
}

#[test]
fn offers_of_the_node_keep_their_sections() {
    let mut offerer = Offerer::new();
    let first = offerer.attach(MediaKind::Audio, sending(MediaKind::Audio)).unwrap();
    let second = offerer.attach(MediaKind::Video, sending(MediaKind::Video)).unwrap();
    let offer = offerer.offer(&local()).to_string();
    let read = Description::parse(&offer).unwrap();
    assert_eq!(read.sections[0].kind, SectionKind::Application);
    assert_eq!(read.sections[1].direction, Direction::SendOnly);
    assert_eq!(read.sections[2].setup, Some(Setup::ActPass));
    assert!(offer.contains("a=msid:PA_publisher|TR_track TR_track\r\n"));
    assert!(offer.contains("a=ssrc-group:FID 1000 1001\r\n"));

    let answer = Description::parse(&answer_to(&offer)).unwrap();
    let accepted = offerer.accept(&answer).unwrap();
    assert_eq!(accepted.len(), 2);
    assert_eq!(accepted[1].mid, second);
    assert_eq!(accepted[1].codecs[0].payload_type, 96);
    assert_eq!(accepted[1].codecs[0].rtx_payload_type, Some(97));
    assert!(accepted[1].extensions.get(HeaderExtension::Mid).is_some());

    // A section is used again only once the client has seen it inactive.
    offerer.detach(&first);
    let third = offerer.attach(MediaKind::Audio, sending(MediaKind::Audio)).unwrap();
    assert_ne!(third, first);
    let offer = offerer.offer(&local()).to_string();
    let read = Description::parse(&offer).unwrap();
    let mids: Vec<&str> = read.sections.iter().map(|section| section.mid.as_str()).collect();
    assert_eq!(mids, ["0", "1", "2", "3"]);
    assert_eq!(read.section(&first).unwrap().direction, Direction::Inactive);
    let accepted = offerer.accept(&Description::parse(&answer_to(&offer)).unwrap()).unwrap();
    assert_eq!(accepted.len(), 2);
    let fourth = offerer.attach(MediaKind::Audio, sending(MediaKind::Audio)).unwrap();
    assert_eq!(fourth, first);
}

#[test]
fn changes_during_an_outstanding_offer_wait_for_the_next() {
    let mut offerer = Offerer::new();
    let first = offerer.attach(MediaKind::Video, sending(MediaKind::Video)).unwrap();
    let offer = offerer.offer(&local()).to_string();
    assert!(!offerer.has_changed() && offerer.is_waiting());
    offerer.detach(&first);
    let second = offerer.attach(MediaKind::Video, sending(MediaKind::Video)).unwrap();
    assert_ne!(second, first);
    let accepted = offerer.accept(&Description::parse(&answer_to(&offer)).unwrap()).unwrap();
    assert!(accepted.is_empty(), "neither the gone nor the new track was agreed on");
    assert!(offerer.has_changed() && !offerer.is_waiting());
    let offer = Description::parse(&offerer.offer(&local()).to_string()).unwrap();
    assert_eq!(offer.section(&first).unwrap().direction, Direction::Inactive);
    assert_eq!(offer.section(&second).unwrap().direction, Direction::SendOnly);
}

#[test]
fn answers_that_do_not_fit_are_refused() {
    let mut offerer = Offerer::new();
    let unasked = Description::parse(CHROMIUM_PUBLISHES).unwrap();
    assert_eq!(offerer.accept(&unasked), Err(AnswerError::NoOffer));
    offerer.attach(MediaKind::Audio, sending(MediaKind::Audio)).unwrap();
    let offer = offerer.offer(&local()).to_string();
    let error = offerer.accept(&unasked).unwrap_err();
    assert_eq!(error, AnswerError::SectionCount { found: 3, offered: 2 });
    let wrong = answer_to(&offer).replace("m=audio", "m=video");
    let error = offerer.accept(&Description::parse(&wrong).unwrap()).unwrap_err();
    assert_eq!(error, AnswerError::SectionMismatch { section: 1 });
    assert!(offerer.accept(&Description::parse(&answer_to(&offer)).unwrap()).is_ok());
}

#[test]
fn a_section_the_client_rejects_is_never_used_again() {
    let mut offerer = Offerer::new();
    let first = offerer.attach(MediaKind::Audio, sending(MediaKind::Audio)).unwrap();
    let offer = offerer.offer(&local()).to_string();
    let rejected = answer_to(&offer).replace("m=audio 9", "m=audio 0");
    let accepted = offerer.accept(&Description::parse(&rejected).unwrap()).unwrap();
    assert_eq!(accepted[0].mid, first);
    assert!(accepted[0].codecs.is_empty());
    let second = offerer.attach(MediaKind::Audio, sending(MediaKind::Audio)).unwrap();
    assert_ne!(second, first);
    let offer = Description::parse(&offerer.offer(&local()).to_string()).unwrap();
    assert!(offer.section(&first).unwrap().is_rejected());
    assert!(!offer.bundle.contains(&first));
}
