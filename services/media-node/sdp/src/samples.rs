//! Offers and answers in the manner of Chromium, Firefox and libwebrtc, for
//! tests.

/// Chromium: one audio and one simulcast video section that send, and data.
pub(crate) const CHROMIUM_PUBLISHES: &str = "v=0\r
o=- 4611731400430051336 2 IN IP4 127.0.0.1\r
s=-\r
t=0 0\r
a=group:BUNDLE 0 1 2\r
a=extmap-allow-mixed\r
a=msid-semantic: WMS\r
m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r
c=IN IP4 0.0.0.0\r
a=candidate:1467250027 1 udp 2122260223 192.0.2.7 46243 typ host generation 0 network-id 1\r
a=ice-ufrag:F7gI\r
a=ice-pwd:x9cml/YzichV2+XlhiMu8gTT\r
a=ice-options:trickle\r
a=fingerprint:sha-256 7B:8B:F0:65:5F:78:E2:51:3B:AC:6F:F3:3F:46:1B:35:DC:B8:5F:64:1A:24:C2:43:F0:A1:58:D0:A1:2C:19:08\r
a=setup:actpass\r
a=mid:0\r
a=sctp-port:5000\r
a=max-message-size:262144\r
m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r
c=IN IP4 0.0.0.0\r
a=rtcp:9 IN IP4 0.0.0.0\r
a=ice-ufrag:F7gI\r
a=ice-pwd:x9cml/YzichV2+XlhiMu8gTT\r
a=ice-options:trickle\r
a=fingerprint:sha-256 7B:8B:F0:65:5F:78:E2:51:3B:AC:6F:F3:3F:46:1B:35:DC:B8:5F:64:1A:24:C2:43:F0:A1:58:D0:A1:2C:19:08\r
a=setup:actpass\r
a=mid:1\r
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r
a=sendonly\r
a=msid:- 6fa1e8d7-0d1c-4c7d-a0e4-5f5b3a0d9c11\r
a=rtcp-mux\r
a=rtcp-rsize\r
a=rtpmap:111 opus/48000/2\r
a=rtcp-fb:111 transport-cc\r
a=fmtp:111 minptime=10;useinbandfec=1\r
a=rtpmap:63 red/48000/2\r
a=fmtp:63 111/111\r
a=rtpmap:9 G722/8000\r
a=rtpmap:0 PCMU/8000\r
a=rtpmap:8 PCMA/8000\r
a=rtpmap:13 CN/8000\r
a=rtpmap:110 telephone-event/48000\r
a=rtpmap:126 telephone-event/8000\r
a=ssrc:3735928559 cname:K2o4pXnFQ0t7mS8f\r
a=ssrc:3735928559 msid:- 6fa1e8d7-0d1c-4c7d-a0e4-5f5b3a0d9c11\r
m=video 9 UDP/TLS/RTP/SAVPF 96 97 103 104 107 108 109 114 39 40 98 99 100 101 45 46 124\r
c=IN IP4 0.0.0.0\r
a=rtcp:9 IN IP4 0.0.0.0\r
a=ice-ufrag:F7gI\r
a=ice-pwd:x9cml/YzichV2+XlhiMu8gTT\r
a=ice-options:trickle\r
a=fingerprint:sha-256 7B:8B:F0:65:5F:78:E2:51:3B:AC:6F:F3:3F:46:1B:35:DC:B8:5F:64:1A:24:C2:43:F0:A1:58:D0:A1:2C:19:08\r
a=setup:actpass\r
a=mid:2\r
a=extmap:14 urn:ietf:params:rtp-hdrext:toffset\r
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r
a=extmap:13 urn:3gpp:video-orientation\r
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r
a=extmap:5 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay\r
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r
a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r
a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r
a=extmap:12 https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension\r
a=sendonly\r
a=msid:- 1b0f47a4-7a49-4f52-90a3-7e1d7f3a2c55\r
a=rtcp-mux\r
a=rtcp-rsize\r
a=rtpmap:96 VP8/90000\r
a=rtcp-fb:96 goog-remb\r
a=rtcp-fb:96 transport-cc\r
a=rtcp-fb:96 ccm fir\r
a=rtcp-fb:96 nack\r
a=rtcp-fb:96 nack pli\r
a=rtpmap:97 rtx/90000\r
a=fmtp:97 apt=96\r
a=rtpmap:103 H264/90000\r
a=rtcp-fb:103 transport-cc\r
a=rtcp-fb:103 nack\r
a=rtcp-fb:103 nack pli\r
a=fmtp:103 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f\r
a=rtpmap:104 rtx/90000\r
a=fmtp:104 apt=103\r
a=rtpmap:107 H264/90000\r
a=fmtp:107 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42001f\r
a=rtpmap:108 rtx/90000\r
a=fmtp:108 apt=107\r
a=rtpmap:109 H264/90000\r
a=rtcp-fb:109 transport-cc\r
a=rtcp-fb:109 ccm fir\r
a=rtcp-fb:109 nack\r
a=rtcp-fb:109 nack pli\r
a=fmtp:109 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r
a=rtpmap:114 rtx/90000\r
a=fmtp:114 apt=109\r
a=rtpmap:39 AV1/90000\r
a=fmtp:39 level-idx=5;profile=1;tier=0\r
a=rtpmap:40 rtx/90000\r
a=fmtp:40 apt=39\r
a=rtpmap:98 VP9/90000\r
a=rtcp-fb:98 transport-cc\r
a=rtcp-fb:98 nack\r
a=rtcp-fb:98 nack pli\r
a=fmtp:98 profile-id=0\r
a=rtpmap:99 rtx/90000\r
a=fmtp:99 apt=98\r
a=rtpmap:100 VP9/90000\r
a=fmtp:100 profile-id=2\r
a=rtpmap:101 rtx/90000\r
a=fmtp:101 apt=100\r
a=rtpmap:45 AV1/90000\r
a=rtcp-fb:45 transport-cc\r
a=rtcp-fb:45 nack\r
a=rtcp-fb:45 nack pli\r
a=fmtp:45 level-idx=5;profile=0;tier=0\r
a=rtpmap:46 rtx/90000\r
a=fmtp:46 apt=45\r
a=rtpmap:124 ulpfec/90000\r
a=rid:q send\r
a=rid:h send\r
a=rid:f send\r
a=simulcast:send q;h;~f\r
";

/// Firefox: audio and simulcast video with its own payload types, directions
/// in extmap, and fingerprint at the session.
pub(crate) const FIREFOX_PUBLISHES: &str = "v=0\r
o=mozilla...THIS_IS_SDPARTA-99.0 4243583478512341 0 IN IP4 0.0.0.0\r
s=-\r
t=0 0\r
a=fingerprint:sha-256 1C:2D:3E:4F:50:61:72:83:94:A5:B6:C7:D8:E9:FA:0B:1C:2D:3E:4F:50:61:72:83:94:A5:B6:C7:D8:E9:FA:0B\r
a=group:BUNDLE 0 1 2\r
a=ice-options:trickle\r
a=msid-semantic:WMS *\r
m=audio 9 UDP/TLS/RTP/SAVPF 109 9 0 8 101\r
c=IN IP4 0.0.0.0\r
a=sendrecv\r
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r
a=extmap:2/recvonly urn:ietf:params:rtp-hdrext:csrc-audio-level\r
a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r
a=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1\r
a=fmtp:101 0-15\r
a=ice-pwd:0123456789abcdef0123456789abcdef\r
a=ice-ufrag:abcd1234\r
a=mid:0\r
a=msid:{5f2d6c1e-8c0b-4d53-9d54-2ab1c3f1f0aa} {a0b1c2d3-0000-4000-8000-000000000001}\r
a=rtcp-mux\r
a=rtpmap:109 opus/48000/2\r
a=rtpmap:9 G722/8000/1\r
a=rtpmap:0 PCMU/8000\r
a=rtpmap:8 PCMA/8000\r
a=rtpmap:101 telephone-event/8000/1\r
a=setup:actpass\r
a=ssrc:1122334455 cname:{c0ffee00-0000-4000-8000-000000000000}\r
m=video 9 UDP/TLS/RTP/SAVPF 120 124 121 125 126 127 97 98\r
c=IN IP4 0.0.0.0\r
a=sendonly\r
a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r
a=extmap:4 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r
a=extmap:5 urn:ietf:params:rtp-hdrext:toffset\r
a=extmap:6/recvonly http://www.webrtc.org/experiments/rtp-hdrext/playout-delay\r
a=extmap:7 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r
a=extmap:9/sendonly urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r
a=extmap:10/sendonly urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r
a=fmtp:126 profile-level-id=42e01f;level-asymmetry-allowed=1;packetization-mode=1\r
a=fmtp:97 profile-level-id=42e01f;level-asymmetry-allowed=1\r
a=fmtp:120 max-fs=12288;max-fr=60\r
a=fmtp:124 apt=120\r
a=fmtp:121 max-fs=12288;max-fr=60\r
a=fmtp:125 apt=121\r
a=fmtp:127 apt=126\r
a=fmtp:98 apt=97\r
a=ice-pwd:0123456789abcdef0123456789abcdef\r
a=ice-ufrag:abcd1234\r
a=mid:1\r
a=msid:{5f2d6c1e-8c0b-4d53-9d54-2ab1c3f1f0aa} {a0b1c2d3-0000-4000-8000-000000000002}\r
a=rid:q send\r
a=rid:h send\r
a=rid:f send\r
a=rtcp-fb:120 nack\r
a=rtcp-fb:120 nack pli\r
a=rtcp-fb:120 ccm fir\r
a=rtcp-fb:120 goog-remb\r
a=rtcp-fb:120 transport-cc\r
a=rtcp-fb:126 nack\r
a=rtcp-fb:126 nack pli\r
a=rtcp-fb:126 ccm fir\r
a=rtcp-fb:126 goog-remb\r
a=rtcp-mux\r
a=rtcp-rsize\r
a=rtpmap:120 VP8/90000\r
a=rtpmap:124 rtx/90000\r
a=rtpmap:121 VP9/90000\r
a=rtpmap:125 rtx/90000\r
a=rtpmap:126 H264/90000\r
a=rtpmap:127 rtx/90000\r
a=rtpmap:97 H264/90000\r
a=rtpmap:98 rtx/90000\r
a=setup:actpass\r
a=simulcast:send q;h;f\r
a=ssrc:2233445566 cname:{c0ffee00-0000-4000-8000-000000000000}\r
m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r
c=IN IP4 0.0.0.0\r
a=sendrecv\r
a=ice-pwd:0123456789abcdef0123456789abcdef\r
a=ice-ufrag:abcd1234\r
a=mid:2\r
a=setup:actpass\r
a=sctp-port:5000\r
a=max-message-size:1073741823\r
";

/// libwebrtc in LiveKit's Rust core: sections that receive only, data last, the
/// WARP attributes, `stereo=1` everywhere. `sections` of each kind.
pub(crate) fn libwebrtc_receives(sections: usize) -> String {
    let count = 2 * sections;
    let mids: Vec<String> = (0..=count).map(|mid| mid.to_string()).collect();
    let mut sdp = format!(
        "v=0\r\no=- 7052351219846121 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
         a=group:BUNDLE {}\r\na=extmap-allow-mixed\r\na=msid-semantic: WMS\r\n",
        mids.join(" ")
    );
    let transport = "c=IN IP4 0.0.0.0\r\na=ice-ufrag:Zq3k\r\na=ice-pwd:6mYkq0t5vXnJrE2sWc8uHbLd\r\n\
         a=ice-options:trickle goog-sped-v1\r\na=fingerprint:sha-256 \
         AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99\r\n\
         a=setup:actpass\r\n";
    for mid in 0..count {
        if mid < sections {
            sdp.push_str("m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r\n");
            sdp.push_str(transport);
            sdp.push_str(&format!("a=mid:{mid}\r\n"));
            sdp.push_str(
                "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
                 a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
                 a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=recvonly\r\na=rtcp-mux\r\n\
                 a=rtcp-rsize\r\na=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\n\
                 a=fmtp:111 minptime=10;useinbandfec=1;stereo=1\r\na=rtpmap:63 red/48000/2\r\n\
                 a=fmtp:63 111/111\r\na=rtpmap:9 G722/8000\r\n",
            );
        } else {
            sdp.push_str("m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99 102 103 106 107\r\n");
            sdp.push_str(transport);
            sdp.push_str(&format!("a=mid:{mid}\r\n"));
            sdp.push_str(
                "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
                 a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
                 a=extmap:5 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay\r\n\
                 a=recvonly\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
                 a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 goog-remb\r\na=rtcp-fb:96 transport-cc\r\n\
                 a=rtcp-fb:96 ccm fir\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\n\
                 a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
                 a=rtpmap:98 VP9/90000\r\na=rtcp-fb:98 nack\r\na=rtcp-fb:98 nack pli\r\n\
                 a=rtcp-fb:98 transport-cc\r\na=fmtp:98 profile-id=0\r\n\
                 a=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=98\r\n\
                 a=rtpmap:102 H264/90000\r\na=rtcp-fb:102 nack pli\r\n\
                 a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f\r\n\
                 a=rtpmap:103 rtx/90000\r\na=fmtp:103 apt=102\r\n\
                 a=rtpmap:106 H264/90000\r\na=rtcp-fb:106 nack pli\r\n\
                 a=fmtp:106 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f\r\n\
                 a=rtpmap:107 rtx/90000\r\na=fmtp:107 apt=106\r\n",
            );
        }
    }
    sdp.push_str("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n");
    sdp.push_str(transport);
    sdp.push_str(&format!(
        "a=mid:{count}\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n\
         a=sctp-init:AQAAJIEAAAAAEAAAAAEAAf//wAAABYAIAAnACoCCDAAGgA==\r\n"
    ));
    sdp
}

/// A client's answer to an offer of the node: receives everything that is sent,
/// in the payload types of the offer.
pub(crate) fn answer_to(offer: &str) -> String {
    let mut sdp = offer
        .replace("a=setup:actpass", "a=setup:active")
        .replace("a=sendonly", "a=recvonly")
        .replace("a=ice-lite\r\n", "");
    let dropped = ["a=candidate", "a=end-of", "a=ssrc", "a=msid:"];
    sdp = sdp
        .split_inclusive("\r\n")
        .filter(|line| !dropped.iter().any(|start| line.starts_with(start)))
        .collect();
    sdp
}
