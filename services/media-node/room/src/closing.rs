//! How sessions end: why, and what the client should do then.

/// The session is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Why.
    pub reason: CloseReason,
    /// What the client should do.
    pub action: CloseAction,
    /// For people.
    pub message: String,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CloseReason {
    /// Not told.
    #[default]
    Unspecified,
    /// The client wanted it.
    ClientLeft,
    /// The same identity joined again.
    DuplicateIdentity,
    /// The node stops.
    ServerShutdown,
    /// The platform removed the participant.
    Removed,
    /// The platform deleted the room.
    RoomDeleted,
    /// What the client resumes is not here.
    StateMismatch,
    /// No transport came up in time.
    JoinTimeout,
    /// The transport failed and nobody resumed.
    ConnectionLost,
    /// No gateway came back for the session.
    SignalLost,
    /// The room lives elsewhere now.
    PlanStale,
    /// The room has all the participants it may have.
    RoomFull,
    /// The client sent what cannot be understood.
    ProtocolError,
    /// The session is moved to another node.
    Migration,
    /// The room closed because it stood empty.
    RoomClosed,
}

impl CloseReason {
    /// What a client should do that is closed for this reason.
    #[must_use]
    pub const fn action(self) -> CloseAction {
        match self {
            Self::Unspecified
            | Self::ClientLeft
            | Self::DuplicateIdentity
            | Self::Removed
            | Self::RoomDeleted
            | Self::JoinTimeout
            | Self::RoomFull
            | Self::RoomClosed => CloseAction::Disconnect,
            Self::SignalLost | Self::Migration => CloseAction::Resume,
            Self::ServerShutdown
            | Self::StateMismatch
            | Self::ConnectionLost
            | Self::PlanStale
            | Self::ProtocolError => CloseAction::Reconnect,
        }
    }
}

/// What the client should do after its session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseAction {
    /// Stay away.
    Disconnect,
    /// Connect its signalling again and resume.
    Resume,
    /// Join again from the beginning.
    Reconnect,
}
