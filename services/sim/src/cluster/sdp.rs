//! Offers and answers as browsers write them, as far as the room reads them.

use std::fmt::Write as _;

use headwater_model::media::MediaKind;

/// Header extension ids that clients send with.
pub(crate) const MID_ID: u8 = 4;
pub(crate) const RID_ID: u8 = 10;
/// Payload types.
pub(crate) const OPUS: u8 = 111;
pub(crate) const VP8: u8 = 96;

/// A media section of the client's peer connection.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    kind: Option<MediaKind>,
    /// The client's id of what it sends in it; receives only if there is none.
    media_id: Option<String>,
}

impl Section {
    pub(crate) fn data() -> Self {
        Self { kind: None, media_id: None }
    }

    pub(crate) fn receiving(kind: MediaKind) -> Self {
        Self { kind: Some(kind), media_id: None }
    }

    pub(crate) fn sending(kind: MediaKind, media_id: &str) -> Self {
        Self { kind: Some(kind), media_id: Some(media_id.to_owned()) }
    }
}

fn credentials(fragment: &str) -> String {
    let fingerprint = vec!["CD"; 32].join(":");
    format!(
        "a=ice-ufrag:{fragment}\r\na=ice-pwd:0123456789012345678901\r\n\
         a=fingerprint:sha-256 {fingerprint}\r\n"
    )
}

/// The offer of these sections as they are.
pub(crate) fn write_offer(sections: &[Section], fragment: &str) -> String {
    let mids: Vec<String> = (0..sections.len()).map(|mid| mid.to_string()).collect();
    let mut sdp = format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n\
         a=extmap-allow-mixed\r\n",
        mids.join(" ")
    );
    for (mid, section) in sections.iter().enumerate() {
        sdp.push_str(match section.kind {
            Some(MediaKind::Audio) => "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n",
            Some(MediaKind::Video) => "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n",
            None => "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n",
        });
        // A text is no file: writing to it cannot fail.
        let _ = write!(
            sdp,
            "c=IN IP4 0.0.0.0\r\n{}a=setup:actpass\r\na=mid:{mid}\r\n",
            credentials(fragment)
        );
        match section.kind {
            None => sdp.push_str("a=sctp-port:5000\r\na=max-message-size:262144\r\n"),
            Some(kind) => sdp.push_str(&media_lines(kind, section)),
        }
    }
    sdp
}

fn media_lines(kind: MediaKind, section: &Section) -> String {
    let mut lines = format!(
        "a=extmap:{MID_ID} urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
         a=extmap:{RID_ID} urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n"
    );
    match &section.media_id {
        Some(id) => {
            let _ = write!(lines, "a=sendonly\r\na=msid:- {id}\r\n");
        }
        None => lines.push_str("a=recvonly\r\n"),
    }
    lines.push_str("a=rtcp-mux\r\na=rtcp-rsize\r\n");
    lines.push_str(match kind {
        MediaKind::Audio => "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10\r\n",
        MediaKind::Video => {
            "a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\n"
        }
    });
    if kind == MediaKind::Video && section.media_id.is_some() {
        lines
            .push_str("a=rid:q send\r\na=rid:h send\r\na=rid:f send\r\na=simulcast:send q;h;f\r\n");
    }
    lines
}

/// The answer to an offer of a node: everything is taken.
pub(crate) fn write_answer(offer: &str, fragment: &str) -> String {
    let dropped = ["a=candidate", "a=end-of", "a=ssrc", "a=msid:", "a=ice-", "a=fingerprint"];
    let kept: String = offer
        .split_inclusive("\r\n")
        .filter(|line| !dropped.iter().any(|start| line.starts_with(start)))
        // What measures bandwidth needs feedback, which these clients do not send.
        .filter(|line| !line.contains("transport-cc") && !line.contains("transport-wide-cc"))
        .collect();
    let setup = format!("a=setup:active\r\n{}", credentials(fragment));
    kept.replace("a=sendonly", "a=recvonly").replace("a=setup:actpass\r\n", &setup)
}
