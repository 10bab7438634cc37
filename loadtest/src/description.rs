//! The little SDP that these clients need: an offer of sections they chose, and
//! the parts of the answer they use.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;

use anyhow::Context;

/// What a media section is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Section {
    /// Sends Opus under the id given to AddTrack.
    SendAudio {
        /// Client's id of the track.
        cid: String,
        /// SSRC it sends with.
        ssrc: u32,
    },
    /// Sends VP8; with several SSRCs, simulcast with rids q, h, f.
    SendVideo {
        /// Client's id of the track.
        cid: String,
        /// SSRC of each encoding, smallest first.
        ssrcs: Vec<u32>,
    },
    /// Sends H.264 in the same way.
    SendH264 {
        /// Client's id of the track.
        cid: String,
        /// SSRC of each encoding, smallest first.
        ssrcs: Vec<u32>,
    },
    /// Receives audio.
    ReceiveAudio,
    /// Receives video.
    ReceiveVideo,
    /// Data channels.
    Data,
}

/// Credentials of the offering side.
#[derive(Debug, Clone)]
pub struct LocalSide {
    /// ICE username fragment.
    pub ufrag: String,
    /// ICE password.
    pub pwd: String,
    /// `AB:CD:…`, SHA-256.
    pub fingerprint: String,
}

/// Payload types offered.
pub mod payload_type {
    /// Opus.
    pub const OPUS: u8 = 111;
    /// VP8.
    pub const VP8: u8 = 96;
    /// Retransmitted VP8.
    pub const VP8_RTX: u8 = 97;
    /// H.264, constrained baseline, packetization mode 1.
    pub const H264: u8 = 102;
    /// Retransmitted H.264.
    pub const H264_RTX: u8 = 103;
}

/// Header extension ids offered.
pub mod extension_id {
    /// Media section.
    pub const MID: u8 = 1;
    /// Encoding.
    pub const RID: u8 = 2;
    /// Transport-wide sequence number.
    pub const TRANSPORT_CC: u8 = 3;
    /// Audio level.
    pub const AUDIO_LEVEL: u8 = 4;
}

/// RIDs of simulcast, smallest first.
pub const RIDS: [&str; 3] = ["q", "h", "f"];

/// Writes the offer; section `n` has mid `n`.
#[must_use]
pub fn offer(local: &LocalSide, sections: &[Section]) -> String {
    let mids: Vec<String> = (0..sections.len()).map(|mid| mid.to_string()).collect();
    let mut sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\na=extmap-allow-mixed\r\na=msid-semantic: WMS\r\n",
        mids.join(" ")
    );
    for (section, mid) in sections.iter().zip(&mids) {
        write_section(&mut sdp, local, section, mid);
    }
    sdp
}

fn write_section(sdp: &mut String, local: &LocalSide, section: &Section, mid: &str) {
    let (line, direction) = match section {
        Section::SendAudio { .. } => ("audio 9 UDP/TLS/RTP/SAVPF 111", "sendonly"),
        Section::ReceiveAudio => ("audio 9 UDP/TLS/RTP/SAVPF 111", "recvonly"),
        Section::SendVideo { .. } => ("video 9 UDP/TLS/RTP/SAVPF 96 97", "sendonly"),
        Section::SendH264 { .. } => ("video 9 UDP/TLS/RTP/SAVPF 102 103", "sendonly"),
        Section::ReceiveVideo => ("video 9 UDP/TLS/RTP/SAVPF 96 97 102 103", "recvonly"),
        Section::Data => ("application 9 UDP/DTLS/SCTP webrtc-datachannel", ""),
    };
    let _ = write!(
        sdp,
        "m={line}\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\na=setup:active\r\na=mid:{mid}\r\n",
        local.ufrag, local.pwd, local.fingerprint
    );
    if *section == Section::Data {
        sdp.push_str("a=sctp-port:5000\r\na=max-message-size:262144\r\n");
        return;
    }
    let _ = write!(sdp, "a={direction}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n");
    write_extensions(sdp, section);
    match section {
        Section::SendAudio { cid, ssrc } => {
            write_audio_codec(sdp);
            let _ = write!(sdp, "a=msid:- {cid}\r\na=ssrc:{ssrc} cname:loadtest\r\n");
        }
        Section::ReceiveAudio => write_audio_codec(sdp),
        Section::SendVideo { cid, ssrcs } => {
            write_vp8(sdp);
            let _ = write!(sdp, "a=msid:- {cid}\r\n");
            write_encodings(sdp, ssrcs);
        }
        Section::SendH264 { cid, ssrcs } => {
            write_h264(sdp);
            let _ = write!(sdp, "a=msid:- {cid}\r\n");
            write_encodings(sdp, ssrcs);
        }
        Section::ReceiveVideo => {
            write_vp8(sdp);
            write_h264(sdp);
        }
        Section::Data => {}
    }
}

fn write_encodings(sdp: &mut String, ssrcs: &[u32]) {
    if let [ssrc] = ssrcs {
        let _ = write!(sdp, "a=ssrc:{ssrc} cname:loadtest\r\n");
        return;
    }
    let rids = &RIDS[..ssrcs.len().min(RIDS.len())];
    for rid in rids {
        let _ = write!(sdp, "a=rid:{rid} send\r\n");
    }
    let _ = write!(sdp, "a=simulcast:send {}\r\n", rids.join(";"));
}

fn write_extensions(sdp: &mut String, section: &Section) {
    let mut line = |id: u8, uri: &str| {
        let _ = write!(sdp, "a=extmap:{id} {uri}\r\n");
    };
    line(extension_id::MID, "urn:ietf:params:rtp-hdrext:sdes:mid");
    line(
        extension_id::TRANSPORT_CC,
        "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    );
    match section {
        Section::SendAudio { .. } | Section::ReceiveAudio => {
            line(extension_id::AUDIO_LEVEL, "urn:ietf:params:rtp-hdrext:ssrc-audio-level");
        }
        Section::SendVideo { .. } | Section::SendH264 { .. } => {
            line(extension_id::RID, "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id");
        }
        Section::ReceiveVideo | Section::Data => {}
    }
}

fn write_audio_codec(sdp: &mut String) {
    sdp.push_str(
        "a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=rtcp-fb:111 nack\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n",
    );
}

fn write_vp8(sdp: &mut String) {
    use payload_type::{VP8, VP8_RTX};
    let _ = write!(sdp, "a=rtpmap:{VP8} VP8/90000\r\n");
    write_video_feedback(sdp, VP8, VP8_RTX);
}

fn write_h264(sdp: &mut String) {
    use payload_type::{H264, H264_RTX};
    let _ = write!(
        sdp,
        "a=rtpmap:{H264} H264/90000\r\n\
         a=fmtp:{H264} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n"
    );
    write_video_feedback(sdp, H264, H264_RTX);
}

fn write_video_feedback(sdp: &mut String, media: u8, rtx: u8) {
    for feedback in ["goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"] {
        let _ = write!(sdp, "a=rtcp-fb:{media} {feedback}\r\n");
    }
    let _ = write!(sdp, "a=rtpmap:{rtx} rtx/90000\r\na=fmtp:{rtx} apt={media}\r\n");
}

/// The parts of an answer that a client uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// ICE username fragment of the server.
    pub ufrag: String,
    /// ICE password of the server.
    pub pwd: String,
    /// Its certificate's SHA-256.
    pub fingerprint: String,
    /// Where it listens for UDP, if it says so here and not by trickle.
    pub candidate: Option<SocketAddr>,
    /// SSRC announced on each section that sends, by mid.
    pub ssrc_by_mid: BTreeMap<String, u32>,
    /// Media SSRC of each SSRC that repeats lost packets (RFC 4588).
    pub repeats: BTreeMap<u32, u32>,
    /// The server repeats lost audio when asked.
    pub audio_nack: bool,
}

/// Reads an answer.
///
/// # Errors
/// If credentials or fingerprint are missing.
pub fn read_answer(sdp: &str) -> anyhow::Result<Answer> {
    let value = |name: &str| {
        sdp.lines().find_map(|line| line.strip_prefix(name)).map(|text| text.trim().to_owned())
    };
    let candidates: Vec<SocketAddr> = sdp.lines().filter_map(udp_candidate).collect();
    // A client on the same machine is nearest on loopback.
    let candidate = candidates
        .iter()
        .find(|address| address.ip().is_loopback())
        .or_else(|| candidates.first())
        .copied();
    Ok(Answer {
        ufrag: value("a=ice-ufrag:").context("the answer has no ice-ufrag")?,
        pwd: value("a=ice-pwd:").context("the answer has no ice-pwd")?,
        fingerprint: value("a=fingerprint:sha-256 ").context("the answer has no fingerprint")?,
        candidate,
        ssrc_by_mid: ssrcs(sdp),
        repeats: sdp.lines().filter_map(repeat_pair).collect(),
        audio_nack: sdp.lines().any(|line| line.trim() == "a=rtcp-fb:111 nack"),
    })
}

/// A line that ties the SSRC of RTX to that of media (RFC 5576 section 4.2).
fn repeat_pair(line: &str) -> Option<(u32, u32)> {
    let mut words = line.strip_prefix("a=ssrc-group:FID ")?.split_whitespace();
    let media = words.next()?.parse().ok()?;
    Some((words.next()?.parse().ok()?, media))
}

/// The address of a candidate that came by itself, if it is UDP.
#[must_use]
pub fn trickled(trickle: &livekit_protocol::TrickleRequest) -> Option<SocketAddr> {
    let candidate: serde_json::Value = serde_json::from_str(&trickle.candidate_init).ok()?;
    udp_candidate(candidate.get("candidate")?.as_str()?)
}

/// The address of a candidate line, if it is UDP.
#[must_use]
pub fn udp_candidate(line: &str) -> Option<SocketAddr> {
    let line = line.strip_prefix("a=").unwrap_or(line);
    let words: Vec<&str> = line.strip_prefix("candidate:")?.split_whitespace().collect();
    if !words.get(2)?.eq_ignore_ascii_case("udp") {
        return None;
    }
    Some(SocketAddr::new(words.get(4)?.parse().ok()?, words.get(5)?.parse().ok()?))
}

fn ssrcs(sdp: &str) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    for section in sdp.split("\r\nm=").skip(1) {
        let line = |name: &str| section.lines().find_map(|line| line.strip_prefix(name));
        let mid = line("a=mid:").map(str::trim);
        let ssrc = line("a=ssrc:")
            .and_then(|text| text.split_whitespace().next())
            .and_then(|text| text.parse().ok());
        if let (Some(mid), Some(ssrc)) = (mid, ssrc) {
            found.insert(mid.to_owned(), ssrc);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let sdp = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:ab\r\na=ice-pwd:cd\r\n\
                   a=fingerprint:sha-256 AA:BB\r\na=candidate:1 1 tcp 1 127.0.0.1 9 typ host tcptype passive\r\n\
                   a=candidate:2 1 udp 2 10.0.0.1 7882 typ host\r\na=candidate:3 1 udp 2 127.0.0.1 7882 typ host\r\n\
                   a=ssrc-group:FID 77 78\r\na=ssrc:77 cname:x\r\n";
        let answer = read_answer(sdp).unwrap();
        assert_eq!(answer.candidate, Some("127.0.0.1:7882".parse().unwrap()));
        assert_eq!(answer.ssrc_by_mid.get("0"), Some(&77));
        assert_eq!(answer.repeats, BTreeMap::from([(78, 77)]));
    }

    #[test]
    fn an_offer_numbers_its_sections() {
        let local = LocalSide { ufrag: "u".into(), pwd: "p".into(), fingerprint: "AA".into() };
        let sdp = offer(&local, &[Section::ReceiveAudio, Section::ReceiveVideo, Section::Data]);
        assert!(sdp.contains("a=group:BUNDLE 0 1 2\r\n"));
        assert_eq!(sdp.matches("m=").count(), 3);
    }
}
