//! Descriptions of clients: whatever can be read can be answered and read again,
//! section by section.

#![no_main]

use headwater_sdp::{
    Description, IceCredentials, LocalTransport, Offerer, Receiving, SectionDecision, Sending,
    answer,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(offer) = Description::parse(text) else {
        return;
    };
    let _ = offer.remote_transport();
    let local = LocalTransport {
        credentials: IceCredentials {
            ufrag: "local1".to_owned(),
            pwd: "a-password-of-enough-length".to_owned(),
        },
        fingerprint: ["AB"; 32].join(":"),
        candidates: Vec::new(),
        max_message_size: 65_535,
        session_id: 1,
        session_version: 1,
    };
    let decisions: Vec<SectionDecision> = offer.sections.iter().map(decision).collect();
    let made = answer(&offer, &local, &decisions);
    assert_eq!(made.sections.len(), offer.sections.len());
    let read = Description::parse(&made.description.to_string()).expect("an answer of ours");
    for (theirs, ours) in offer.sections.iter().zip(&read.sections) {
        assert_eq!((&theirs.kind, &theirs.mid), (&ours.kind, &ours.mid));
    }
    let mut offerer = Offerer::new();
    for section in offer.sections.iter().take(8) {
        if let (Some(kind), Some(sending)) = (section.media_kind(), decision(section).send) {
            let _ = offerer.attach(kind, sending);
        }
    }
    let own = offerer.offer(&local).to_string();
    Description::parse(&own).expect("an offer of ours");
    let _ = offerer.accept(&offer);
});

fn decision(section: &headwater_sdp::Section) -> SectionDecision {
    assert_eq!(section.sent_encodings().is_empty(), !section.direction.sends());
    SectionDecision {
        receive: Some(Receiving::default()),
        send: Some(Sending {
            stream_id: "PA_a|TR_b".to_owned(),
            track_id: "TR_b".to_owned(),
            cname: "PA_a".to_owned(),
            ssrc: 1,
            rtx_ssrc: Some(2),
            stereo: true,
            preferred: None,
        }),
    }
}
