//! How the layers of a transport feed each other.

use std::time::{Duration, Instant};

use super::{EARLY_DATA_MAX, Ice, OUTPUTS_MAX, Phase, SETUP_TIMEOUT, Transport};
use crate::dtls::DtlsOutput;
use crate::event::{FailReason, Output, TransportEvent};
use crate::path::Path;
use crate::sctp::ChannelEvent;
use crate::srtp::{SrtpError, SrtpSession};
use crate::stun::StunError;

impl Transport {
    pub(super) fn handle_live_stun(
        &mut self,
        now: Instant,
        path: Path,
        datagram: &[u8],
    ) -> Result<(), StunError> {
        match &mut self.ice {
            Ice::Lite(ice) => {
                let accepted = ice.handle_request(now, path, datagram)?;
                self.setup_started_at.get_or_insert(now);
                self.transmit(Some(path), accepted.response);
                if let Some(selected) = accepted.selected {
                    self.emit(TransportEvent::PathSelected(selected));
                }
            }
            Ice::Client(ice) => {
                let newly_valid = ice.handle_response(now, path, datagram)?;
                self.setup_started_at.get_or_insert(now);
                if newly_valid {
                    self.emit(TransportEvent::PathSelected(path));
                    self.dtls.start(now);
                }
            }
        }
        Ok(())
    }

    pub(super) fn srtp(&mut self) -> Result<&mut SrtpSession, SrtpError> {
        match &mut self.phase {
            Phase::Connected(srtp) => Ok(srtp),
            Phase::Connecting { .. } | Phase::Over => Err(SrtpError::NotConnected),
        }
    }

    pub(super) const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    pub(super) fn setup_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Connecting { .. } => self.setup_started_at.map(|at| at + SETUP_TIMEOUT),
            Phase::Connected(_) | Phase::Over => None,
        }
    }

    /// Carries what each layer has ready to the next until all are quiet.
    pub(super) fn pump(&mut self, now: Instant) {
        loop {
            if let Ice::Client(ice) = &mut self.ice
                && !matches!(self.phase, Phase::Over)
                && let Some((path, check)) = ice.poll_transmit(now)
            {
                self.transmit(Some(path), check);
            } else if let Some(output) = self.dtls.poll_output() {
                self.handle_dtls_output(now, output);
            } else if let Some(event) = self.channels.poll_event() {
                self.handle_channel_event(event);
            } else if let Some(packet) = self.channels.poll_packet(now) {
                // Fails once DTLS is closed; then nobody waits for the packet.
                let _ = self.dtls.send(now, &packet);
            } else {
                return;
            }
        }
    }

    fn handle_dtls_output(&mut self, now: Instant, output: DtlsOutput) {
        match output {
            DtlsOutput::Transmit(datagram) => self.transmit(self.selected_path(), datagram.into()),
            DtlsOutput::Established(established) => {
                if let Phase::Connecting { unchecked, .. } = &mut self.phase {
                    *unchecked = Some(established);
                }
                self.check_certificate(now);
            }
            DtlsOutput::Data(data) => match &mut self.phase {
                Phase::Connected(_) => self.channels.handle_packet(now, &data),
                Phase::Connecting { early_data, .. } if early_data.len() < EARLY_DATA_MAX => {
                    early_data.push(data)
                }
                Phase::Connecting { .. } | Phase::Over => {}
            },
            DtlsOutput::PeerClosed => {
                if !self.is_over() {
                    self.phase = Phase::Over;
                    self.emit(TransportEvent::Closed);
                }
            }
        }
    }

    /// Compares the certificate of a finished handshake with the signalled
    /// fingerprint, once both are there. Keys are used only afterwards.
    pub(super) fn check_certificate(&mut self, now: Instant) {
        let Phase::Connecting { unchecked, early_data } = &mut self.phase else {
            return;
        };
        let Some(expected) = self.remote_fingerprint else {
            return;
        };
        let Some(established) = unchecked.take() else {
            return;
        };
        if !established.peer_fingerprint.matches(&expected) {
            return self.fail(now, FailReason::FingerprintMismatch);
        }
        let early_data = std::mem::take(early_data);
        let profile = established.srtp.profile();
        self.phase = Phase::Connected(established.srtp);
        let elapsed =
            self.setup_started_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.emit(TransportEvent::Connected { profile, elapsed });
        if self.is_client {
            self.channels.connect(now);
        }
        for data in early_data {
            self.channels.handle_packet(now, &data);
        }
    }

    fn handle_channel_event(&mut self, event: ChannelEvent) {
        if self.is_over() {
            return;
        }
        self.emit(match event {
            ChannelEvent::Open { id, label, reliability, negotiated_by_us } => {
                TransportEvent::ChannelOpen { id, label, reliability, negotiated_by_us }
            }
            ChannelEvent::Closed { id } => TransportEvent::ChannelClosed { id },
            ChannelEvent::Message { id, kind, data } => TransportEvent::Message { id, kind, data },
        });
    }

    pub(super) fn fail(&mut self, now: Instant, reason: FailReason) {
        self.end(now);
        self.emit(TransportEvent::Failed(reason));
    }

    /// Sends what ends the layers and refuses everything from here on.
    pub(super) fn end(&mut self, now: Instant) {
        self.phase = Phase::Over;
        self.channels.close(now);
        self.pump(now);
        self.dtls.close(now);
        self.pump(now);
    }

    pub(super) fn emit(&mut self, event: TransportEvent) {
        self.outputs.push_back(Output::Event(event));
    }

    fn transmit(&mut self, path: Option<Path>, datagram: Vec<u8>) {
        match path {
            Some(path) if self.outputs.len() < OUTPUTS_MAX => {
                self.outputs.push_back(Output::Transmit { path, datagram })
            }
            Some(_) | None => self.stats.datagrams_dropped += 1,
        }
    }
}
