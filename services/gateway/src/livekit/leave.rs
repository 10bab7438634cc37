//! How sessions end for LiveKit clients: reasons, actions, and what older
//! clients understand of them. Pure.

use headwater_proto::node::v1::{CloseAction, CloseReason, Closed};
use livekit_protocol as lk;
use lk::leave_request::Action;

/// From this protocol on clients read an action; older ones only `can_reconnect`.
const PROTOCOL_WITH_ACTION: i32 = 13;

/// The leave message for a client, or `None` if an older client is better off
/// with a bare close, which it answers by resuming.
pub(crate) fn leave(
    protocol: i32,
    reason: lk::DisconnectReason,
    action: Action,
) -> Option<lk::LeaveRequest> {
    let reason = i32::from(reason);
    if protocol >= PROTOCOL_WITH_ACTION {
        return Some(lk::LeaveRequest { reason, action: i32::from(action), ..Default::default() });
    }
    match action {
        Action::Resume => None,
        Action::Reconnect => {
            Some(lk::LeaveRequest { can_reconnect: true, reason, ..Default::default() })
        }
        Action::Disconnect => Some(lk::LeaveRequest { reason, ..Default::default() }),
    }
}

/// What a client is told when the node closed its session. Nothing if another
/// connection took the session up: it is the same client's, which has long
/// stopped to listen here or must not be called away from there.
pub(crate) fn leave_for(protocol: i32, closed: &Closed) -> Option<lk::LeaveRequest> {
    if closed.reason() == CloseReason::SignalLost {
        return None;
    }
    let action = match (closed.reason(), closed.action()) {
        // The room goes on elsewhere: nobody is to stay away.
        (CloseReason::PlanStale | CloseReason::Migration, CloseAction::Unspecified) => {
            Action::Reconnect
        }
        (_, CloseAction::Unspecified | CloseAction::Disconnect) => Action::Disconnect,
        (_, CloseAction::Resume) => Action::Resume,
        (_, CloseAction::Reconnect) => Action::Reconnect,
    };
    leave(protocol, disconnect_reason(closed.reason()), action)
}

/// LiveKit's word for why somebody is gone.
pub(crate) fn disconnect_reason(reason: CloseReason) -> lk::DisconnectReason {
    use lk::DisconnectReason as To;
    match reason {
        CloseReason::Unspecified | CloseReason::ProtocolError => To::UnknownReason,
        CloseReason::ClientLeft => To::ClientInitiated,
        CloseReason::DuplicateIdentity => To::DuplicateIdentity,
        CloseReason::ServerShutdown => To::ServerShutdown,
        CloseReason::Removed => To::ParticipantRemoved,
        CloseReason::RoomDeleted => To::RoomDeleted,
        CloseReason::StateMismatch => To::StateMismatch,
        CloseReason::JoinTimeout | CloseReason::ConnectionLost => To::ConnectionTimeout,
        CloseReason::SignalLost => To::SignalClose,
        CloseReason::PlanStale | CloseReason::Migration => To::Migration,
        CloseReason::RoomFull => To::JoinFailure,
        CloseReason::RoomClosed => To::RoomClosed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(reason: CloseReason, action: CloseAction) -> Closed {
        Closed { reason: reason.into(), action: action.into(), message: String::new() }
    }

    #[test]
    fn newer_clients_read_the_action() {
        let leave = leave_for(16, &closed(CloseReason::RoomDeleted, CloseAction::Disconnect));
        let leave = leave.unwrap();
        assert_eq!(leave.action(), Action::Disconnect);
        assert_eq!(leave.reason(), lk::DisconnectReason::RoomDeleted);
        assert!(!leave.can_reconnect);
    }

    #[test]
    fn older_clients_read_can_reconnect_and_resume_on_a_bare_close() {
        let gone = closed(CloseReason::PlanStale, CloseAction::Reconnect);
        assert!(leave_for(12, &gone).unwrap().can_reconnect);
        assert_eq!(leave_for(12, &closed(CloseReason::ServerShutdown, CloseAction::Resume)), None);
        let removed = closed(CloseReason::Removed, CloseAction::Disconnect);
        assert!(!leave_for(12, &removed).unwrap().can_reconnect);
    }

    #[test]
    fn a_session_taken_up_elsewhere_ends_without_a_word() {
        let taken_up = closed(CloseReason::SignalLost, CloseAction::Resume);
        assert_eq!(leave_for(16, &taken_up), None);
    }

    #[test]
    fn a_moved_room_calls_its_clients_back_even_without_an_action() {
        let leave = leave_for(16, &closed(CloseReason::PlanStale, CloseAction::Unspecified));
        assert_eq!(leave.unwrap().action(), Action::Reconnect);
    }
}
