//! Why a client is not let in: the HTTP status and text that LiveKit's SDKs
//! know how to read, the same on connecting and on validating.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use headwater_model::ids::NAME_BYTES_MAX;
use headwater_rpc::TokenError;
use headwater_telemetry::metrics::{AuthFailure, JoinOutcome};
use http::{HeaderValue, StatusCode, header};

use super::join_request::JoinRequestError;

/// When to try a full room again: somebody must leave first, and those who wait must not
/// ask all the time.
const FULL_RETRY_SECONDS: u64 = 5;

/// See the module. The texts are LiveKit's where it has one. SDKs tell a missing
/// room from a missing v1 by the text of the 404.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rejection {
    #[error("no permissions to access the room")]
    NoToken,
    #[error("invalid authorization header. Must start with Bearer ")]
    NotBearer,
    #[error("invalid authorization token")]
    TokenMalformed,
    #[error("invalid API key")]
    UnknownKey,
    #[error("invalid authorization token: {0}")]
    TokenInvalid(TokenError),
    #[error("permissions denied")]
    NoRoomJoin,
    #[error("no permissions to access the room")]
    NoPermission,
    #[error("identity cannot be empty")]
    NoIdentity,
    #[error("participant identity length exceeds limits: max length {NAME_BYTES_MAX}")]
    IdentityTooLong,
    #[error("participant identity must not hold control characters")]
    IdentityMalformed,
    #[error("name length exceeds limits: max length {NAME_BYTES_MAX}")]
    NameTooLong,
    #[error("metadata size exceeds limits")]
    MetadataTooLarge,
    #[error("attribute size exceeds limits")]
    AttributesTooLarge,
    #[error("no room name")]
    NoRoom,
    #[error("room name length exceeds limits: max length {NAME_BYTES_MAX}")]
    RoomNameTooLong,
    #[error("room name must not hold control characters or '/'")]
    RoomNameMalformed,
    #[error("cannot decode attributes")]
    Attributes,
    #[error("join_request is required")]
    NoJoinRequest,
    #[error("{0}")]
    JoinRequest(#[from] JoinRequestError),
    #[error("not found")]
    NotWebSocket,
    #[error("not found")]
    NoSuchDoor,
    #[error("requested room does not exist")]
    NoSuchRoom,
    #[error("room has exceeded its max participants")]
    RoomFull,
    #[error("node has exceeded its configured limit")]
    Wait(Duration),
    #[error("gateway has exceeded its configured limit")]
    GatewayFull,
    #[error("gateway is shutting down")]
    ShuttingDown,
    #[error("could not reach the control plane")]
    ControlPlaneUnreachable,
    #[error("could not reach a media node")]
    NodeUnreachable,
    #[error("join took too long")]
    Timeout,
    #[error("join was refused: {0}")]
    Refused(&'static str),
}

impl From<TokenError> for Rejection {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Missing => Self::NoToken,
            TokenError::TooLong | TokenError::Malformed => Self::TokenMalformed,
            TokenError::UnknownKey => Self::UnknownKey,
            TokenError::Algorithm
            | TokenError::BadSignature
            | TokenError::NoExpiry
            | TokenError::Expired
            | TokenError::NotYetValid => Self::TokenInvalid(error),
        }
    }
}

impl Rejection {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NoToken
            | Self::NotBearer
            | Self::TokenMalformed
            | Self::UnknownKey
            | Self::TokenInvalid(_)
            | Self::NoRoomJoin
            | Self::NoPermission => StatusCode::UNAUTHORIZED,
            Self::NoIdentity
            | Self::IdentityTooLong
            | Self::IdentityMalformed
            | Self::NameTooLong
            | Self::MetadataTooLarge
            | Self::AttributesTooLarge
            | Self::NoRoom
            | Self::RoomNameTooLong
            | Self::RoomNameMalformed
            | Self::Attributes
            | Self::NoJoinRequest
            | Self::JoinRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotWebSocket | Self::NoSuchDoor | Self::NoSuchRoom => StatusCode::NOT_FOUND,
            Self::RoomFull
            | Self::Wait(_)
            | Self::GatewayFull
            | Self::ShuttingDown
            | Self::ControlPlaneUnreachable
            | Self::NodeUnreachable
            | Self::Timeout => StatusCode::SERVICE_UNAVAILABLE,
            Self::Refused(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether this was an attempt to join at all.
    pub(crate) fn is_join(&self) -> bool {
        !matches!(self, Self::NotWebSocket | Self::NoSuchDoor)
    }

    /// How the attempt to join counts.
    pub(crate) fn outcome(&self) -> JoinOutcome {
        match self.status() {
            StatusCode::UNAUTHORIZED => return JoinOutcome::Unauthorized,
            StatusCode::BAD_REQUEST => return JoinOutcome::BadRequest,
            _ => {}
        }
        match self {
            Self::NoSuchRoom => JoinOutcome::RoomNotFound,
            Self::RoomFull => JoinOutcome::RoomFull,
            Self::Wait(_) => JoinOutcome::NoCapacity,
            Self::GatewayFull | Self::ShuttingDown => JoinOutcome::Overloaded,
            Self::ControlPlaneUnreachable => JoinOutcome::ControlPlane,
            Self::Timeout => JoinOutcome::Timeout,
            Self::NodeUnreachable | Self::Refused(_) => JoinOutcome::Node,
            _ => JoinOutcome::BadRequest,
        }
    }

    /// Which credential failed, if one did.
    pub(crate) fn auth_failure(&self) -> Option<AuthFailure> {
        match self {
            Self::NoToken | Self::NotBearer => Some(AuthFailure::TokenMissing),
            Self::TokenMalformed => Some(AuthFailure::TokenMalformed),
            Self::UnknownKey => Some(AuthFailure::KeyUnknown),
            Self::TokenInvalid(error) => AuthFailure::from_reason(error.reason()),
            Self::NoRoomJoin | Self::NoPermission => Some(AuthFailure::GrantMissing),
            _ => None,
        }
    }
}

impl Rejection {
    /// Seconds after which to try again, if that may help.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Wait(after) => Some(after.as_secs().max(1)),
            Self::RoomFull => Some(FULL_RETRY_SECONDS),
            Self::ControlPlaneUnreachable | Self::NodeUnreachable | Self::ShuttingDown => Some(1),
            _ => None,
        }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.to_string()).into_response();
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
