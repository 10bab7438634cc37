//! What an error of etcd or of the way to it means: above all, whether a write
//! may have been done.

use std::error::Error as StdError;

use tonic::Code;

use crate::store::{Cause, LeaseId, StoreError};

/// Why a call failed.
#[derive(Debug)]
pub enum Failure {
    /// It has not been done and will not be; another try may succeed.
    Unsent(Cause),
    /// It may or may not have been done.
    Unanswered(Cause),
    /// There is no such lease.
    LeaseNotFound(Cause),
    /// The revision asked for was compacted.
    Compacted(Cause),
    /// Credentials are missing, wrong or not enough.
    Denied(Cause),
    /// The space quota is used up.
    Full,
    /// Another try would fail alike.
    Lasting(Cause),
}

/// No answer within the time of one try. tonic's own deadline reports
/// `Cancelled`, not `DeadlineExceeded`, and is not used.
#[derive(Debug, thiserror::Error)]
#[error("no answer in time")]
pub struct NoAnswer;

impl Failure {
    /// The failure behind an error of the client.
    pub fn of(error: etcd_client::Error) -> Self {
        match error {
            etcd_client::Error::GRpcStatus(status) => Self::of_status(status),
            etcd_client::Error::LeaseKeepAliveError(_) => Self::LeaseNotFound(error.into()),
            // Nothing has been sent yet where these come up.
            etcd_client::Error::TransportError(_) | etcd_client::Error::IoError(_) => {
                Self::Unsent(error.into())
            }
            // The stream ended before its first answer.
            etcd_client::Error::WatchError(_) => Self::Unanswered(error.into()),
            other => Self::Lasting(other.into()),
        }
    }

    fn of_status(status: tonic::Status) -> Self {
        let message = status.message().to_owned();
        let says = |text: &str| message.contains(text);
        match status.code() {
            Code::Unavailable if was_not_connected(&status) || says("no leader") => {
                Self::Unsent(status.into())
            }
            Code::ResourceExhausted if says("too many requests") => Self::Unsent(status.into()),
            Code::ResourceExhausted if says("database space exceeded") => Self::Full,
            Code::NotFound if says("lease not found") => Self::LeaseNotFound(status.into()),
            Code::OutOfRange if says("compacted") => Self::Compacted(status.into()),
            // Roles or users have changed: a new connection has a new token.
            Code::InvalidArgument if says("revision of auth store is old") => {
                Self::Unsent(status.into())
            }
            Code::Unauthenticated | Code::PermissionDenied => Self::Denied(status.into()),
            Code::InvalidArgument if says("auth") || says("user name") => {
                Self::Denied(status.into())
            }
            Code::FailedPrecondition if says("auth") || says("user name") => {
                Self::Denied(status.into())
            }
            // `Unknown` is what a broken connection looks like ("transport error",
            // "h2 protocol error"), `Cancelled` what tonic calls a timeout.
            Code::Unavailable
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Unknown
            | Code::Internal
            | Code::Aborted => Self::Unanswered(status.into()),
            Code::Ok
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::DataLoss => Self::Lasting(status.into()),
        }
    }

    /// Whether trying elsewhere may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unsent(_) | Self::Unanswered(_) => true,
            Self::LeaseNotFound(_)
            | Self::Compacted(_)
            | Self::Denied(_)
            | Self::Full
            | Self::Lasting(_) => false,
        }
    }

    /// The error for a call that concerned this lease.
    pub fn about(self, lease: Option<LeaseId>) -> StoreError {
        match (self, lease) {
            (Self::LeaseNotFound(_), Some(lease)) => StoreError::LeaseNotFound(lease),
            (Self::Unsent(cause), _) => StoreError::Unavailable(cause),
            (Self::Unanswered(cause), _) => StoreError::Indeterminate(cause),
            (Self::Denied(cause), _) => StoreError::Denied(cause),
            (Self::Full, _) => StoreError::Full,
            (Self::LeaseNotFound(cause) | Self::Compacted(cause) | Self::Lasting(cause), _) => {
                StoreError::Failed(cause)
            }
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        failure.about(None)
    }
}

/// Whether the connection could not even be made, so that nothing was sent.
fn was_not_connected(status: &tonic::Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Code, message: &str) -> Failure {
        Failure::of(etcd_client::Error::GRpcStatus(tonic::Status::new(code, message)))
    }

    #[test]
    fn a_broken_connection_leaves_a_write_in_doubt() {
        for (code, message) in [
            (Code::Unavailable, "error reading a body from connection"),
            (
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to previous leader failure",
            ),
            (Code::Unknown, "transport error"),
            (Code::Unknown, "h2 protocol error: broken pipe"),
            (Code::Cancelled, "Timeout expired"),
            (Code::DeadlineExceeded, "context deadline exceeded"),
        ] {
            assert!(matches!(of(code, message), Failure::Unanswered(_)), "{code}: {message}");
        }
    }

    #[test]
    fn what_etcd_refuses_before_doing_it_is_not_in_doubt() {
        for (code, message) in [
            (Code::Unavailable, "etcdserver: no leader"),
            (Code::ResourceExhausted, "etcdserver: too many requests"),
        ] {
            assert!(matches!(of(code, message), Failure::Unsent(_)), "{code}: {message}");
        }
    }

    #[test]
    fn lasting_failures_are_told_apart() {
        assert!(matches!(
            of(Code::NotFound, "etcdserver: requested lease not found"),
            Failure::LeaseNotFound(_)
        ));
        assert!(matches!(
            of(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
            Failure::Compacted(_)
        ));
        assert!(matches!(
            of(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            Failure::Full
        ));
        assert!(matches!(
            of(Code::PermissionDenied, "etcdserver: permission denied"),
            Failure::Denied(_)
        ));
        assert!(matches!(
            of(
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password"
            ),
            Failure::Denied(_)
        ));
        assert!(matches!(
            of(Code::InvalidArgument, "etcdserver: request is too large"),
            Failure::Lasting(_)
        ));
    }

    #[test]
    fn an_unanswered_write_is_indeterminate_for_the_caller() {
        let error = StoreError::from(of(Code::Cancelled, "Timeout expired"));
        assert!(matches!(error, StoreError::Indeterminate(_)));
    }
}
