//! The `join_request` query parameter of v1 signalling: base64url, then a
//! protobuf envelope, then perhaps gzip, then a protobuf. Pure, and bounded
//! before it allocates.

use std::io::Read;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::read::GzDecoder;
use livekit_protocol as lk;
use prost::Message;

/// Longest [`lk::JoinRequest`] in bytes, after decompression.
pub const JOIN_REQUEST_BYTES_MAX: usize = 1 << 20;

/// Clients pad or do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Why a `join_request` cannot be read. The texts are LiveKit's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinRequestError {
    /// Not base64url.
    #[error("cannot base64 decode wrapped join request")]
    Base64,
    /// Not an envelope.
    #[error("cannot unmarshal wrapped join request")]
    Envelope,
    /// An envelope of a compression that is not known.
    #[error("unknown compression of the join request")]
    Compression,
    /// Not gzip although it says so.
    #[error("cannot read decompressed join request")]
    Gzip,
    /// Longer than [`JOIN_REQUEST_BYTES_MAX`].
    #[error("join request too large")]
    TooLarge,
    /// Not a join request.
    #[error("cannot unmarshal join request")]
    Message,
}

/// Reads the value of the query parameter.
///
/// # Errors
/// If any of its wrappings cannot be undone or it is too large.
pub fn decode_join_request(text: &str) -> Result<lk::JoinRequest, JoinRequestError> {
    // 4/3 for base64 and a little for the envelope.
    if text.len() > JOIN_REQUEST_BYTES_MAX / 3 * 4 + 64 {
        return Err(JoinRequestError::TooLarge);
    }
    let envelope = BASE64.decode(text).map_err(|_| JoinRequestError::Base64)?;
    let envelope = lk::WrappedJoinRequest::decode(envelope.as_slice())
        .map_err(|_| JoinRequestError::Envelope)?;
    let bytes = match lk::wrapped_join_request::Compression::try_from(envelope.compression) {
        Ok(lk::wrapped_join_request::Compression::None) => envelope.join_request,
        Ok(lk::wrapped_join_request::Compression::Gzip) => gunzip(&envelope.join_request)?,
        Err(_) => return Err(JoinRequestError::Compression),
    };
    if bytes.len() > JOIN_REQUEST_BYTES_MAX {
        return Err(JoinRequestError::TooLarge);
    }
    lk::JoinRequest::decode(bytes.as_slice()).map_err(|_| JoinRequestError::Message)
}

/// Stops one byte past the limit, so that a bomb costs no more than that.
fn gunzip(compressed: &[u8]) -> Result<Vec<u8>, JoinRequestError> {
    let mut bytes = Vec::new();
    GzDecoder::new(compressed)
        .take(JOIN_REQUEST_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|_| JoinRequestError::Gzip)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn wrap(compression: i32, join_request: Vec<u8>) -> Vec<u8> {
        lk::WrappedJoinRequest { compression, join_request }.encode_to_vec()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn sample() -> lk::JoinRequest {
        lk::JoinRequest { participant_sid: "PA_x".into(), reconnect: true, ..Default::default() }
    }

    #[test]
    fn padded_and_unpadded_plain_and_gzip_are_read() {
        for padding in 0..3 {
            let mut request = sample();
            request.metadata = "m".repeat(padding);
            for envelope in
                [wrap(0, request.encode_to_vec()), wrap(1, gzip(&request.encode_to_vec()))]
            {
                let padded = base64::engine::general_purpose::URL_SAFE.encode(&envelope);
                assert_eq!(decode_join_request(&padded), Ok(request.clone()));
                assert_eq!(decode_join_request(padded.trim_end_matches('=')), Ok(request.clone()));
            }
        }
    }

    #[test]
    fn each_wrapping_names_what_is_wrong_with_it() {
        let encode = |bytes: Vec<u8>| base64::engine::general_purpose::URL_SAFE.encode(bytes);
        let cases = [
            ("***".to_owned(), JoinRequestError::Base64),
            (encode(vec![0xff; 9]), JoinRequestError::Envelope),
            (encode(wrap(7, vec![])), JoinRequestError::Compression),
            (encode(wrap(1, b"not gzip".to_vec())), JoinRequestError::Gzip),
            (encode(wrap(0, vec![0xff; 9])), JoinRequestError::Message),
        ];
        for (text, error) in cases {
            assert_eq!(decode_join_request(&text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_gzip_bomb_is_stopped_at_the_limit() {
        let bomb = gzip(&vec![0u8; 64 << 20]);
        assert!(bomb.len() < 80_000);
        let text = base64::engine::general_purpose::URL_SAFE.encode(wrap(1, bomb));
        assert_eq!(decode_join_request(&text), Err(JoinRequestError::TooLarge));
    }

    #[test]
    fn a_huge_parameter_is_refused_before_it_is_decoded() {
        let text = "A".repeat(3 << 20);
        assert_eq!(decode_join_request(&text), Err(JoinRequestError::TooLarge));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,512}") {
            let _ = decode_join_request(&text);
        }

        #[test]
        fn no_envelope_panics(compression in 0..3i32, inner in prop::collection::vec(any::<u8>(), 0..512)) {
            let encode = |bytes| base64::engine::general_purpose::URL_SAFE.encode(bytes);
            let _ = decode_join_request(&encode(wrap(compression, inner.clone())));
            let _ = decode_join_request(&encode(wrap(1, gzip(&inner))));
            let _ = decode_join_request(&encode(inner));
        }
    }
}
