//! Bodies of Twirp calls in both encodings, protobuf and JSON. Pure.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{TwirpCode, TwirpError};
use super::json::{Shape, complete};

/// How a call is written, and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    /// By the media type alone: its parameters do not matter.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let media_type = value.split(';').next().unwrap_or_default().trim();
        match media_type.to_ascii_lowercase().as_str() {
            "application/protobuf" => Some(Self::Protobuf),
            "application/json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Reads a request.
    pub(crate) fn decode<M>(self, body: &[u8]) -> Result<M, TwirpError>
    where
        M: Message + Default + DeserializeOwned,
    {
        let refused = |encoding: &str| {
            let msg = format!("the {encoding} request could not be decoded");
            TwirpError::new(TwirpCode::Malformed, msg)
        };
        match self {
            Self::Protobuf => M::decode(body).map_err(|_| refused("protobuf")),
            Self::Json => serde_json::from_slice(body).map_err(|_| refused("json")),
        }
    }

    /// Writes a response.
    pub(crate) fn encode<M>(self, message: &M, shape: &Shape) -> Result<Response, TwirpError>
    where
        M: Message + Serialize,
    {
        let (body, content_type) = match self {
            Self::Protobuf => (message.encode_to_vec(), "application/protobuf"),
            Self::Json => {
                let json = serde_json::to_value(message)
                    .map(|value| complete(value, shape).to_string())
                    .map_err(|error| TwirpError::new(TwirpCode::Internal, error.to_string()))?;
                (json.into_bytes(), "application/json")
            }
        };
        let mut response = body.into_response();
        let content_type = HeaderValue::from_static(content_type);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use livekit_protocol as lk;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_cases_and_big_numbers_as_texts_are_taken() {
        for json in [
            r#"{"name":"a","emptyTimeout":7,"maxParticipants":2}"#,
            r#"{"name":"a","empty_timeout":7,"max_participants":2,"future":[]}"#,
        ] {
            let request: lk::CreateRoomRequest = Encoding::Json.decode(json.as_bytes()).unwrap();
            assert_eq!((request.empty_timeout, request.max_participants), (7, 2), "{json}");
        }
        let json = br#"{"room":"a","identity":"b","revokeTokenTs":"12"}"#;
        let request: lk::RoomParticipantIdentity = Encoding::Json.decode(json).unwrap();
        assert_eq!(request.revoke_token_ts, 12);
    }

    #[test]
    fn parameters_of_the_media_type_do_not_matter() {
        let encoding = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            Encoding::of(&headers)
        };
        assert_eq!(encoding("application/json;charset=UTF-8"), Some(Encoding::Json));
        assert_eq!(encoding("Application/Protobuf"), Some(Encoding::Protobuf));
        assert_eq!(encoding("text/plain"), None);
    }

    proptest! {
        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..512)) {
            for encoding in [Encoding::Json, Encoding::Protobuf] {
                let _ = encoding.decode::<lk::CreateRoomRequest>(&body);
                let _ = encoding.decode::<lk::SendDataRequest>(&body);
                let _ = encoding.decode::<lk::UpdateParticipantRequest>(&body);
                let _ = encoding.decode::<lk::UpdateSubscriptionsRequest>(&body);
            }
        }

        #[test]
        fn no_text_body_panics(body in "[{}\\[\\]\":,a-z0-9]{0,128}") {
            let _ = Encoding::Json.decode::<lk::SendDataRequest>(body.as_bytes());
        }
    }
}
