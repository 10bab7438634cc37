//! WebSocket frames of LiveKit signalling: one protobuf message each, in binary
//! or, once the client sent a text frame, as proto3 JSON. Pure.

use livekit_protocol as lk;
use prost::Message;

/// Longest frame in either direction that is read, in bytes.
pub const FRAME_BYTES_MAX: usize = 2 << 20;

/// How the client writes and wants to be written to. It may switch at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// Protobuf.
    #[default]
    Binary,
    /// Proto3 JSON.
    Json,
}

/// One frame as it came.
#[derive(Debug, Clone, Copy)]
pub enum Frame<'a> {
    /// A binary frame.
    Binary(&'a [u8]),
    /// A text frame.
    Text(&'a str),
}

impl Frame<'_> {
    /// The framing that the client uses with this frame.
    #[must_use]
    pub fn framing(&self) -> Framing {
        match self {
            Self::Binary(_) => Framing::Binary,
            Self::Text(_) => Framing::Json,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Binary(bytes) => bytes.len(),
            Self::Text(text) => text.len(),
        }
    }
}

/// Why a frame is no request.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`FRAME_BYTES_MAX`].
    #[error("frame is longer than {FRAME_BYTES_MAX} bytes")]
    TooLarge,
    /// A binary frame that holds no protobuf request.
    #[error("frame holds no protobuf request")]
    Protobuf(#[source] prost::DecodeError),
    /// A text frame that holds no JSON request.
    #[error("frame holds no JSON request")]
    Json(#[source] serde_json::Error),
}

/// Reads one frame of a client.
///
/// # Errors
/// If it is too large or cannot be decoded.
pub fn decode_frame(frame: Frame<'_>) -> Result<lk::SignalRequest, FrameError> {
    if frame.bytes() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge);
    }
    match frame {
        Frame::Binary(bytes) => lk::SignalRequest::decode(bytes).map_err(FrameError::Protobuf),
        Frame::Text(text) => serde_json::from_str(text).map_err(FrameError::Json),
    }
}

/// A frame to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EncodedFrame {
    Binary(Vec<u8>),
    Text(String),
}

/// Writes one message to a client.
pub(crate) fn encode_frame(
    message: lk::signal_response::Message,
    framing: Framing,
) -> Result<EncodedFrame, serde_json::Error> {
    let response = lk::SignalResponse { message: Some(message) };
    Ok(match framing {
        Framing::Binary => EncodedFrame::Binary(response.encode_to_vec()),
        Framing::Json => EncodedFrame::Text(serde_json::to_string(&response)?),
    })
}

#[cfg(test)]
mod tests {
    use lk::signal_request::Message as Request;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_framings_mean_the_same() {
        let request = lk::SignalRequest {
            message: Some(Request::Mute(lk::MuteTrackRequest { sid: "TR_1".into(), muted: true })),
        };
        let binary = request.encode_to_vec();
        assert_eq!(decode_frame(Frame::Binary(&binary)).unwrap(), request);
        let json = r#"{"mute":{"sid":"TR_1","muted":true}}"#;
        assert_eq!(decode_frame(Frame::Text(json)).unwrap(), request);
        // int64 comes as a string in proto3 JSON, and both cases of names are taken.
        let ping = decode_frame(Frame::Text(r#"{"ping_req":{"timestamp":"17"}}"#)).unwrap();
        assert!(matches!(ping.message, Some(Request::PingReq(ping)) if ping.timestamp == 17));
    }

    #[test]
    fn a_request_of_the_future_is_read_as_nothing() {
        let json = decode_frame(Frame::Text(r#"{"teleport":{"to":"mars"}}"#)).unwrap();
        assert_eq!(json.message, None);
        // Field 999, length delimited, empty.
        let binary = decode_frame(Frame::Binary(&[0xba, 0x3e, 0x00])).unwrap();
        assert_eq!(binary.message, None);
    }

    #[test]
    fn a_frame_over_the_limit_is_refused() {
        let bytes = vec![0u8; FRAME_BYTES_MAX + 1];
        assert!(matches!(decode_frame(Frame::Binary(&bytes)), Err(FrameError::TooLarge)));
    }

    proptest! {
        #[test]
        fn no_binary_frame_panics(bytes in prop::collection::vec(any::<u8>(), 0..1024)) {
            let _ = decode_frame(Frame::Binary(&bytes));
        }

        #[test]
        fn no_text_frame_panics(text in ".{0,256}") {
            let _ = decode_frame(Frame::Text(&text));
        }

        #[test]
        fn no_nesting_overflows_the_stack(depth in 1..4000usize) {
            let text = format!("{{\"offer\":{}", "[".repeat(depth));
            prop_assert!(decode_frame(Frame::Text(&text)).is_err());
        }
    }
}
