//! Twirp errors: a code, a sentence and the HTTP status that belongs to the code.

use std::collections::BTreeMap;

use axum::response::{IntoResponse, Response};
use headwater_telemetry::metrics::TwirpResult;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tonic::{Code, Status};

/// The codes of Twirp's specification that this gateway uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TwirpCode {
    Canceled,
    Unknown,
    InvalidArgument,
    Malformed,
    DeadlineExceeded,
    NotFound,
    BadRoute,
    AlreadyExists,
    Unauthenticated,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    #[serde(rename = "dataloss")]
    DataLoss,
}

impl TwirpCode {
    fn status(self) -> StatusCode {
        match self {
            Self::Canceled | Self::DeadlineExceeded => StatusCode::REQUEST_TIMEOUT,
            Self::InvalidArgument | Self::Malformed | Self::OutOfRange => StatusCode::BAD_REQUEST,
            Self::NotFound | Self::BadRoute => StatusCode::NOT_FOUND,
            Self::AlreadyExists | Self::Aborted => StatusCode::CONFLICT,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Self::FailedPrecondition => StatusCode::PRECONDITION_FAILED,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Unknown | Self::Internal | Self::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// An error as it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TwirpError {
    pub(crate) code: TwirpCode,
    pub(crate) msg: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) meta: BTreeMap<&'static str, String>,
    /// Set where HTTP has a better status than the code's own.
    #[serde(skip)]
    status: Option<StatusCode>,
}

impl TwirpError {
    pub(crate) fn new(code: TwirpCode, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), meta: BTreeMap::new(), status: None }
    }

    /// No such method, or not reached in the way methods are.
    pub(crate) fn bad_route(msg: impl Into<String>, method: &http::Method, path: &str) -> Self {
        let mut error = Self::new(TwirpCode::BadRoute, msg);
        error.meta.insert("twirp_invalid_route", format!("{method} {path}"));
        error
    }

    /// The body is longer than is taken.
    pub(crate) fn too_large(bytes_max: usize) -> Self {
        let msg = format!("request body is longer than {bytes_max} bytes");
        let mut error = Self::new(TwirpCode::ResourceExhausted, msg);
        error.status = Some(StatusCode::PAYLOAD_TOO_LARGE);
        error
    }
}

impl TwirpError {
    /// How the call counts.
    pub(crate) fn result(&self) -> TwirpResult {
        match self.code {
            TwirpCode::Unauthenticated => TwirpResult::Unauthorized,
            TwirpCode::InvalidArgument
            | TwirpCode::Malformed
            | TwirpCode::NotFound
            | TwirpCode::BadRoute
            | TwirpCode::AlreadyExists
            | TwirpCode::ResourceExhausted
            | TwirpCode::FailedPrecondition
            | TwirpCode::Aborted
            | TwirpCode::OutOfRange
            | TwirpCode::Unimplemented => TwirpResult::Refused,
            TwirpCode::Canceled
            | TwirpCode::Unknown
            | TwirpCode::DeadlineExceeded
            | TwirpCode::Internal
            | TwirpCode::Unavailable
            | TwirpCode::DataLoss => TwirpResult::Failed,
        }
    }
}

impl From<Status> for TwirpError {
    fn from(status: Status) -> Self {
        let code = match status.code() {
            Code::Ok | Code::Unknown => TwirpCode::Unknown,
            Code::Cancelled => TwirpCode::Canceled,
            Code::InvalidArgument => TwirpCode::InvalidArgument,
            Code::DeadlineExceeded => TwirpCode::DeadlineExceeded,
            Code::NotFound => TwirpCode::NotFound,
            Code::AlreadyExists => TwirpCode::AlreadyExists,
            // LiveKit answers a grant that lacks as it answers a token that lacks.
            Code::PermissionDenied | Code::Unauthenticated => TwirpCode::Unauthenticated,
            Code::ResourceExhausted => TwirpCode::ResourceExhausted,
            Code::FailedPrecondition => TwirpCode::FailedPrecondition,
            Code::Aborted => TwirpCode::Aborted,
            Code::OutOfRange => TwirpCode::OutOfRange,
            Code::Unimplemented => TwirpCode::Unimplemented,
            Code::Internal => TwirpCode::Internal,
            Code::Unavailable => TwirpCode::Unavailable,
            Code::DataLoss => TwirpCode::DataLoss,
        };
        Self::new(code, status.message())
    }
}

impl IntoResponse for TwirpError {
    fn into_response(self) -> Response {
        let status = self.status.unwrap_or_else(|| self.code.status());
        let body = serde_json::to_vec(&self).expect("texts make JSON");
        let mut response = (status, body).into_response();
        // Exactly this: LiveKit's Node SDK does not read an error with a charset.
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}
