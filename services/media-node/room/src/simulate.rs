//! Test scenarios that a client's developer asks for. They do to the asking
//! participant only what could happen to it anyway.

use headwater_sdp::CandidateProtocol;

use crate::core::Core;
use crate::directory::ParticipantKey;
use crate::media::MediaCommand;
use crate::room::Room;
use crate::room::membership::Farewell;
use crate::session::{CloseAction, CloseReason, Scenario, TransportMode};

impl Room {
    pub(crate) fn simulate(&mut self, core: &mut Core, key: ParticipantKey, scenario: Scenario) {
        match scenario {
            Scenario::Speak { seconds } => self.pretend_speech(core, key, seconds),
            Scenario::NodeFailure => self.remove(core, key, Farewell::abandoned()),
            Scenario::ServerLeave => {
                let message = "asked for by the client".to_owned();
                let reason = CloseReason::ServerShutdown;
                let farewell = Farewell::told(reason, CloseAction::Disconnect, message);
                self.remove(core, key, farewell);
            }
            Scenario::FullReconnect => {
                let message = "asked for by the client".to_owned();
                let reason = CloseReason::StateMismatch;
                let farewell = Farewell::told(reason, CloseAction::Reconnect, message);
                self.remove(core, key, farewell);
            }
            Scenario::OnlyProtocol(protocol) => self.restrict_protocol(core, key, protocol),
            Scenario::SubscriberBandwidth(limit) => {
                let downlink = self.participants.get(&key).and_then(|one| one.downlink());
                if let Some(downlink) = downlink {
                    let transport = downlink.key;
                    core.order(MediaCommand::LimitDownlink { transport, limit });
                }
            }
        }
    }

    /// From the next negotiation on, and in the next session of the same
    /// identity: the SDKs start over right after asking.
    fn restrict_protocol(
        &mut self,
        core: &mut Core,
        key: ParticipantKey,
        protocol: CandidateProtocol,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        participant.protocols = vec![protocol];
        let (identity, mode) = (participant.identity.clone(), participant.mode);
        self.remember_protocol(&identity, protocol);
        if mode == TransportMode::Dual {
            self.restart_subscriber_transport(core, key);
        }
    }
}
