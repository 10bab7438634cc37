//! gRPC errors in one shape: a canonical code, a sentence for people, and
//! google.rpc details for programs. Reasons are part of the public API.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::token::TokenError;

/// Domain of every `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "headwater.v1";

/// Why a call failed, for programs: `ErrorInfo.reason`. Names are never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A field of the request cannot be taken; see the BadRequest detail.
    InvalidArgument,
    /// There is no token, or it is refused; metadata `token` says why.
    TokenRefused,
    /// The token is good but lacks the grant; metadata `grant` says which.
    GrantMissing,
    /// The caller is no role of this cluster.
    ClusterCredentialRefused,
    /// What the request names does not exist; see the ResourceInfo detail.
    NotFound,
    /// What the request would make exists; see the ResourceInfo detail.
    AlreadyExists,
    /// The same request_id came with another request.
    RequestIdReused,
    /// The etag is not the newest.
    EtagStale,
    /// Somebody else changed the same thing meanwhile; try again.
    Conflict,
    /// The room has all the participants it may have.
    RoomFull,
    /// No node can take it now.
    NoCapacity,
    /// The state does not allow it.
    FailedPrecondition,
    /// The operator does not allow unmuting others.
    UnmuteNotAllowed,
    /// A limit of the server is reached; try later.
    Overloaded,
    /// The registry cannot be reached.
    RegistryUnavailable,
    /// The node that has the room cannot be reached.
    NodeUnreachable,
    /// The server is stopping; another one will answer.
    ShuttingDown,
    /// The deadline passed first.
    DeadlineExceeded,
    /// A fault of ours; it is in the log.
    Internal,
}

impl Reason {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::TokenRefused => "TOKEN_REFUSED",
            Self::GrantMissing => "GRANT_MISSING",
            Self::ClusterCredentialRefused => "CLUSTER_CREDENTIAL_REFUSED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::RequestIdReused => "REQUEST_ID_REUSED",
            Self::EtagStale => "ETAG_STALE",
            Self::Conflict => "CONFLICT",
            Self::RoomFull => "ROOM_FULL",
            Self::NoCapacity => "NO_CAPACITY",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::UnmuteNotAllowed => "UNMUTE_NOT_ALLOWED",
            Self::Overloaded => "OVERLOADED",
            Self::RegistryUnavailable => "REGISTRY_UNAVAILABLE",
            Self::NodeUnreachable => "NODE_UNREACHABLE",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Internal => "INTERNAL",
        }
    }
}

/// An error with a reason.
#[must_use]
pub fn error(code: Code, reason: Reason, message: impl Into<String>) -> Status {
    Status::with_error_details(code, message, details(reason))
}

/// Arguments that cannot be taken: (field, what is wrong with it), fields named
/// as in the `.proto`, nested ones with dots.
#[must_use]
pub fn invalid_arguments(
    violations: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
) -> Status {
    let violations: Vec<FieldViolation> = violations
        .into_iter()
        .map(|(field, description)| FieldViolation::new(field, description))
        .collect();
    let message = violations
        .iter()
        .map(|violation| format!("{} {}", violation.field, violation.description))
        .collect::<Vec<_>>()
        .join("; ");
    let mut details = details(Reason::InvalidArgument);
    details.set_bad_request(violations);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// One argument that cannot be taken; the description goes on after the
/// field's name, as in "must not be empty".
#[must_use]
pub fn invalid_argument(field: impl Into<String>, description: impl Into<String>) -> Status {
    invalid_arguments([(field, description)])
}

/// There is no such thing: its kind ("room", "participant", ...) and resource name.
#[must_use]
pub fn not_found(kind: &str, name: &str) -> Status {
    about(Code::NotFound, Reason::NotFound, (kind, name), "does not exist")
}

/// There is such a thing already.
#[must_use]
pub fn already_exists(kind: &str, name: &str) -> Status {
    about(Code::AlreadyExists, Reason::AlreadyExists, (kind, name), "exists already")
}

/// The token is refused.
#[must_use]
pub fn unauthenticated(error: TokenError) -> Status {
    let metadata = HashMap::from([("token".to_owned(), error.reason().to_owned())]);
    let details = ErrorDetails::with_error_info(Reason::TokenRefused.as_str(), DOMAIN, metadata);
    Status::with_error_details(Code::Unauthenticated, error.to_string(), details)
}

/// The token is good but does not grant this ("roomCreate", "roomAdmin", ...).
#[must_use]
pub fn permission_denied(grant: &str) -> Status {
    let metadata = HashMap::from([("grant".to_owned(), grant.to_owned())]);
    let details = ErrorDetails::with_error_info(Reason::GrantMissing.as_str(), DOMAIN, metadata);
    let message = format!("the token does not grant {grant}");
    Status::with_error_details(Code::PermissionDenied, message, details)
}

/// The state does not allow it.
#[must_use]
pub fn failed_precondition(reason: Reason, message: impl Into<String>) -> Status {
    error(Code::FailedPrecondition, reason, message)
}

/// Somebody was faster, or the caller has seen an older state.
#[must_use]
pub fn aborted(reason: Reason, message: impl Into<String>) -> Status {
    error(Code::Aborted, reason, message)
}

/// Something that this call needs is away; the same call may be tried again after a while.
#[must_use]
pub fn unavailable(reason: Reason, message: impl Into<String>, retry_after: Duration) -> Status {
    let mut details = details(reason);
    details.set_retry_info(Some(retry_after));
    Status::with_error_details(Code::Unavailable, message, details)
}

/// A limit is reached; the same call may be tried again after a while.
#[must_use]
pub fn resource_exhausted(
    reason: Reason,
    message: impl Into<String>,
    retry_after: Duration,
) -> Status {
    let mut details = details(reason);
    details.set_retry_info(Some(retry_after));
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// The deadline passed first.
#[must_use]
pub fn deadline_exceeded() -> Status {
    error(Code::DeadlineExceeded, Reason::DeadlineExceeded, "the deadline passed")
}

/// A fault of ours. Logs the error with its chain, and tells the caller nothing of it.
#[must_use]
pub fn internal(fault: &(dyn std::error::Error + 'static)) -> Status {
    tracing::error!(error = %Chain(fault), "a call failed by a fault of ours");
    error(Code::Internal, Reason::Internal, "internal error")
}

/// The status as the caller should see it: tonic reports a deadline that passed
/// on its own side as `CANCELLED`, which hides it from retry rules.
#[must_use]
pub fn normalize(status: Status) -> Status {
    let by_deadline = status.code() == Code::Cancelled && status.message() == "Timeout expired";
    if by_deadline { deadline_exceeded() } else { status }
}

/// Reason of an error that a server of ours sent.
#[must_use]
pub fn reason_of(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    (info.domain == DOMAIN).then_some(info.reason)
}

/// When the server said that the same call may be tried again.
#[must_use]
pub fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

/// Whether the same call may succeed later without any change.
#[must_use]
pub fn is_transient(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded)
}

/// A name of a status code as semantic conventions write it, `NOT_FOUND`.
#[must_use]
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// An error with all its causes, in one line.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

fn details(reason: Reason) -> ErrorDetails {
    ErrorDetails::with_error_info(reason.as_str(), DOMAIN, HashMap::new())
}

fn about(code: Code, reason: Reason, (kind, name): (&str, &str), what: &str) -> Status {
    let mut details = details(reason);
    details.set_resource_info(kind, name, "", what);
    Status::with_error_details(code, format!("{kind} {name} {what}"), details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_argument_names_the_field_in_its_details() {
        let status = invalid_argument("room.max_participants", "must not be negative");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "room.max_participants must not be negative");
        let bad = status.get_details_bad_request().unwrap();
        assert_eq!(bad.field_violations[0].field, "room.max_participants");
        assert_eq!(reason_of(&status).as_deref(), Some("INVALID_ARGUMENT"));
    }

    #[test]
    fn a_missing_thing_is_named_by_kind_and_name() {
        let status = not_found("room", "rooms/a");
        let resource = status.get_details_resource_info().unwrap();
        assert_eq!(
            (resource.resource_type.as_str(), resource.resource_name.as_str()),
            ("room", "rooms/a")
        );
    }

    #[test]
    fn a_refused_token_says_why_to_programs() {
        let status = unauthenticated(TokenError::Expired);
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["token"], "token_expired");
        assert_eq!(status.code(), Code::Unauthenticated);
    }

    #[test]
    fn what_may_be_tried_again_says_when() {
        let status = unavailable(Reason::NodeUnreachable, "gone", Duration::from_secs(2));
        assert_eq!(retry_after(&status), Some(Duration::from_secs(2)));
        assert!(is_transient(&status));
    }

    #[test]
    fn a_deadline_of_tonic_is_not_reported_as_a_cancellation() {
        assert_eq!(normalize(Status::cancelled("Timeout expired")).code(), Code::DeadlineExceeded);
        assert_eq!(normalize(Status::cancelled("by the caller")).code(), Code::Cancelled);
    }
}
