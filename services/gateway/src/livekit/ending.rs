//! How a client's signalling ends: for each reason what it counts as, what the
//! client is told and how its WebSocket is closed.

use std::collections::VecDeque;
use std::time::Duration;

use axum::extract::ws::{WebSocket, close_code};
use futures::StreamExt as _;
use futures::stream::SplitStream;
use headwater_proto::node::v1::AttachRequest;
use headwater_telemetry::metrics::SessionEnd;
use livekit_protocol::DisconnectReason;
use livekit_protocol::leave_request::Action;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::ProtocolError;

use crate::nodes::Attachment;

/// How long a client that leaves may keep its session's stream.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the last messages may take to be read, so that closing does not
/// overtake them.
const LINGER: Duration = Duration::from_secs(1);

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The client said so.
    ClientLeft,
    /// Its connection broke, or it closed it without a word.
    ClientGone,
    /// It did not read what it was sent.
    SlowClient,
    /// It sent nothing at all.
    Silent,
    /// It sent what cannot be understood.
    BadFrame,
    /// It sent more than is taken.
    TooLarge,
    /// The node closed the session, and the client has been told.
    ByNode,
    /// The stream to the node broke.
    NodeLost,
    /// This gateway stops.
    Shutdown,
    /// A test scenario wants the connection cut.
    Cut,
}

impl End {
    /// What it counts as.
    pub(crate) fn counted(self) -> SessionEnd {
        match self {
            Self::ClientLeft => SessionEnd::ClientLeft,
            Self::ClientGone | Self::Cut => SessionEnd::ConnectionLost,
            Self::SlowClient => SessionEnd::SlowClient,
            Self::Silent => SessionEnd::Silent,
            Self::BadFrame | Self::TooLarge => SessionEnd::ProtocolError,
            Self::ByNode => SessionEnd::ByNode,
            Self::NodeLost => SessionEnd::NodeLost,
            Self::Shutdown => SessionEnd::Shutdown,
        }
    }

    /// What the client is told to do.
    pub(crate) fn leave(self) -> Option<(DisconnectReason, Action)> {
        match self {
            Self::NodeLost => Some((DisconnectReason::MediaFailure, Action::Reconnect)),
            // The node keeps the participant for the gateway it comes back by.
            Self::Shutdown => Some((DisconnectReason::ServerShutdown, Action::Resume)),
            Self::ClientLeft
            | Self::ClientGone
            | Self::SlowClient
            | Self::Silent
            | Self::BadFrame
            | Self::TooLarge
            | Self::ByNode
            | Self::Cut => None,
        }
    }

    /// The WebSocket's close code. `None` closes without one.
    pub(crate) fn close_code(self) -> Option<u16> {
        match self {
            Self::ClientLeft | Self::ByNode | Self::NodeLost => Some(close_code::NORMAL),
            Self::Shutdown => Some(close_code::AWAY),
            Self::BadFrame => Some(close_code::INVALID),
            Self::TooLarge => Some(close_code::SIZE),
            Self::Cut | Self::ClientGone | Self::SlowClient | Self::Silent => None,
        }
    }

    /// Nobody reads what is still queued.
    pub(crate) fn is_unheard(self) -> bool {
        matches!(self, Self::ClientGone | Self::SlowClient | Self::Silent)
    }

    /// What a failure to read means.
    pub(crate) fn of_read_failure(error: axum::Error) -> Self {
        match error.into_inner().downcast_ref::<Error>() {
            Some(Error::Capacity(_)) => Self::TooLarge,
            Some(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => Self::ClientGone,
            Some(Error::Protocol(_) | Error::Utf8(_)) => Self::BadFrame,
            Some(_) | None => Self::ClientGone,
        }
    }
}

/// Sends the last requests, the leave among them, and waits until the node has
/// taken them: a dropped stream could overtake them.
pub(crate) async fn hand_over(attachment: Attachment, pending: VecDeque<AttachRequest>) {
    let Attachment { requests, mut events } = attachment;
    let goodbye = async {
        for request in pending {
            if requests.send(request).await.is_err() {
                return;
            }
        }
        drop(requests);
        while let Ok(Some(_)) = events.message().await {}
    };
    // A node that does not end the stream by now has had its time.
    let _ = timeout(GOODBYE_TIMEOUT, goodbye).await;
}

/// Reads on until the client has closed, too.
pub(crate) async fn linger(mut stream: SplitStream<WebSocket>) {
    let closed = async { while let Some(Ok(_)) = stream.next().await {} };
    let _ = timeout(LINGER, closed).await;
}
