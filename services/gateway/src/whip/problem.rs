//! Why a request is not done, as `application/problem+json` (RFC 9457).

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use headwater_telemetry::metrics::{AuthFailure, JoinOutcome};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::fragment::FragmentError;
use super::offer::OfferError;
use super::{BODY_BYTES_MAX, Door};
use crate::livekit::Rejection;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    /// The token, its grants or the cluster.
    #[error("{0}")]
    Rejected(#[from] Rejection),
    #[error("the token does not allow {}", match .0 { Door::Publish => "publishing", Door::Watch => "subscribing" })]
    NotAllowed(Door),
    #[error("this session is another participant's")]
    NotYours,
    #[error("only {0} may be done here")]
    Method(&'static str),
    #[error("the body must be {0}")]
    ContentType(&'static str),
    #[error("the answer is application/sdp, which the Accept header leaves out")]
    NotAcceptable,
    #[error("the body has more than {BODY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the body did not come in time or not whole")]
    Body,
    #[error("the offer cannot be read: {0}")]
    Offer(#[from] OfferError),
    /// The node's words.
    #[error("the offer was refused: {0}")]
    Refused(String),
    #[error("the offer sends nothing, so there is nothing to publish")]
    NothingSent,
    #[error("the offer receives nothing, so there is nothing to watch")]
    NothingReceived,
    #[error("the offer has no codec in common with the server")]
    NoCodec,
    #[error("the fragment cannot be read: {0}")]
    Fragment(#[from] FragmentError),
    #[error("there is no such session; it may have ended")]
    NoSession,
    #[error("If-Match must name the ETag of the ICE session, or * to restart ICE")]
    NoIfMatch,
    #[error("If-Match names another ICE session than the present one")]
    EtagMismatch,
    #[error("the query names more than may be followed")]
    Query,
    #[error("too many sessions were opened for this participant lately")]
    TooOften(Duration),
    #[error("the media node did not answer in time")]
    NodeSilent,
}

/// What is written.
#[derive(Debug, Serialize)]
struct Body<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: String,
}

impl Problem {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Rejected(rejection) => status_of(rejection),
            Self::NotAllowed(_) | Self::NotYours => StatusCode::FORBIDDEN,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body | Self::Offer(_) | Self::Refused(_) | Self::Fragment(_) | Self::Query => {
                StatusCode::BAD_REQUEST
            }
            Self::NothingSent | Self::NothingReceived | Self::NoCodec => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::NoSession => StatusCode::NOT_FOUND,
            Self::NoIfMatch => StatusCode::PRECONDITION_REQUIRED,
            Self::EtagMismatch => StatusCode::PRECONDITION_FAILED,
            Self::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NodeSilent => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// How the attempt to join counts.
    pub(crate) fn outcome(&self) -> JoinOutcome {
        match self {
            Self::Rejected(rejection) => rejection.outcome(),
            Self::NotAllowed(_) | Self::NotYours => JoinOutcome::Unauthorized,
            Self::TooOften(_) => JoinOutcome::Overloaded,
            Self::NodeSilent => JoinOutcome::Node,
            _ => JoinOutcome::BadRequest,
        }
    }

    /// Which credential failed, if one did.
    pub(crate) fn auth_failure(&self) -> Option<AuthFailure> {
        match self {
            Self::Rejected(rejection) => rejection.auth_failure(),
            Self::NotAllowed(_) | Self::NotYours => Some(AuthFailure::GrantMissing),
            _ => None,
        }
    }

    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Rejected(rejection) => rejection.retry_after(),
            Self::TooOften(after) => Some(after.as_secs().max(1)),
            Self::NodeSilent => Some(1),
            _ => None,
        }
    }
}

/// HTTP's own meaning, where LiveKit's clients expect another one.
fn status_of(rejection: &Rejection) -> StatusCode {
    match rejection {
        Rejection::NoRoomJoin | Rejection::NoPermission => StatusCode::FORBIDDEN,
        other => other.status(),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let body = Body {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: self.to_string(),
        };
        let body = serde_json::to_vec(&body).expect("texts make JSON");
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, kind, body).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Self::Method(methods) = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(methods));
        }
        response
    }
}
