//! One peer's transport: ICE, DTLS, SRTP keys and data channels joined.

mod pump;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::dtls::{DtlsAssociation, Established, Fingerprint, RtcDtls};
use crate::event::{
    FailReason, MESSAGE_MAX, Output, RemoteError, RemoteParameters, Role, TransportConfig,
    TransportEvent, TransportStats, UNANNOUNCED_MESSAGE_MAX,
};
use crate::ice::{Expiry, IceCredentials, IceLite};
use crate::ice_client::IceClient;
use crate::path::Path;
use crate::sctp::{
    ChannelId, ChannelLimits, ChannelReliability, Channels, MessageKind, OpenChannelError,
    SendError,
};
use crate::srtp::{SrtpError, SrtpSession};
use crate::stun::StunError;

/// From the first authentic STUN message to [`TransportEvent::Connected`].
pub const SETUP_TIMEOUT: Duration = Duration::from_secs(15);

/// Data that comes before the peer's fingerprint is signalled and checked: the
/// first SCTP packets. Beyond it they are dropped and repeated by the peer.
const EARLY_DATA_MAX: usize = 8;

/// Datagrams that wait to be drained. More are dropped and counted, which to
/// DTLS and SCTP looks like loss.
const OUTPUTS_MAX: usize = 4096;

enum Ice {
    Lite(IceLite),
    Client(IceClient),
}

#[expect(
    clippy::large_enum_variant,
    reason = "one per transport, and every media packet goes through it"
)]
enum Phase {
    /// Until the handshake is done and the certificate is checked.
    Connecting {
        /// A finished handshake whose fingerprint is not signalled yet.
        unchecked: Option<Box<Established>>,
        early_data: Vec<BytesMut>,
    },
    Connected(SrtpSession),
    /// Closed by either side, or failed.
    Over,
}

/// One peer's connection. Sans-IO: datagrams, commands and the time go in;
/// [`Transport::poll_output`] hands out datagrams and events.
///
/// Contract: after every `handle_*`, `set_remote`, `open_channel`,
/// `send_message` or `close` drain `poll_output` and ask `poll_timeout` again.
/// The SRTP calls have no output. Datagrams are classified with
/// [`classify`](crate::classify) and RTP is taken from
/// [valid paths](Transport::is_valid_path) only. Cryptographic randomness (the
/// handshake, SCTP tags) comes from the system.
pub struct Transport {
    ice: Ice,
    dtls: Box<dyn DtlsAssociation>,
    phase: Phase,
    channels: Channels,
    is_client: bool,
    remote_fingerprint: Option<Fingerprint>,
    setup_started_at: Option<Instant>,
    received_at: Option<Instant>,
    outputs: VecDeque<Output>,
    stats: TransportStats,
}

impl Transport {
    /// A transport that waits: a server for STUN, a client for its remote
    /// parameters and candidate.
    #[must_use]
    pub fn new(_now: Instant, config: TransportConfig) -> Self {
        let limits = ChannelLimits {
            receive_message_max: MESSAGE_MAX,
            send_message_max: send_limit(None),
            buffered_max: config.buffered_bytes_max,
        };
        let (ice, is_client) = match config.role {
            Role::Server => (Ice::Lite(IceLite::new(config.local)), false),
            Role::Client { seed } => (Ice::Client(IceClient::new(config.local, seed)), true),
        };
        Self {
            ice,
            dtls: Box::new(RtcDtls::new(config.identity, config.srtp, is_client)),
            phase: Phase::Connecting { unchecked: None, early_data: Vec::new() },
            channels: Channels::new(is_client, limits),
            is_client,
            remote_fingerprint: None,
            setup_started_at: None,
            received_at: None,
            outputs: VecDeque::new(),
            stats: TransportStats::default(),
        }
    }

    /// Takes what signalling says about the peer; again after an ICE restart.
    /// The handshake may have finished before: it is checked now.
    ///
    /// # Errors
    /// [`RemoteError`]; the transport goes on as it was.
    pub fn set_remote(
        &mut self,
        now: Instant,
        remote: RemoteParameters,
    ) -> Result<(), RemoteError> {
        if self.is_over() {
            return Err(RemoteError::Closed);
        }
        let fingerprint: Fingerprint =
            remote.fingerprint_sha256.parse().map_err(RemoteError::BadFingerprint)?;
        if self.remote_fingerprint.is_some_and(|known| !known.matches(&fingerprint)) {
            return Err(RemoteError::FingerprintChanged);
        }
        self.remote_fingerprint = Some(fingerprint);
        self.channels.set_send_message_max(send_limit(remote.max_message_size));
        if let Ice::Client(ice) = &mut self.ice {
            ice.set_remote(now, IceCredentials { ufrag: remote.ufrag, pwd: remote.pwd });
        }
        self.check_certificate(now);
        self.pump(now);
        Ok(())
    }

    /// Client only: the server's candidate to connect to.
    pub fn set_remote_candidate(&mut self, now: Instant, candidate: Path) {
        if let Ice::Client(ice) = &mut self.ice {
            ice.set_target(now, candidate);
        }
        self.pump(now);
    }

    /// Begins an ICE restart: both old and new credentials are answered until
    /// the new ones are used. DTLS and SRTP go on (RFC 8842 §5.5).
    pub fn restart_ice(&mut self, now: Instant, credentials: IceCredentials) {
        match &mut self.ice {
            Ice::Lite(ice) => ice.restart(credentials),
            Ice::Client(ice) => ice.set_local(now, credentials),
        }
        self.pump(now);
    }

    /// The user fragments that belong to this transport, for demultiplexing: at
    /// most two.
    pub fn local_ufrags(&self) -> impl Iterator<Item = &str> {
        let (lite, client) = match &self.ice {
            Ice::Lite(ice) => (Some(ice.local_ufrags()), None),
            Ice::Client(ice) => (None, Some(ice.local_ufrag())),
        };
        lite.into_iter().flatten().chain(client)
    }

    /// Takes a STUN datagram. Nothing changes before its integrity is checked;
    /// the answer is no longer than the request.
    ///
    /// # Errors
    /// [`StunError`] for whatever was dropped.
    pub fn handle_stun(
        &mut self,
        now: Instant,
        path: Path,
        datagram: &[u8],
    ) -> Result<(), StunError> {
        if self.is_over() {
            return Err(StunError::Closed);
        }
        let result = self.handle_live_stun(now, path, datagram);
        self.stats.stun_refused += u64::from(result.is_err());
        self.pump(now);
        result
    }

    /// Whether DTLS and RTP may be taken from this path: it had an authentic
    /// STUN message within the consent time.
    #[must_use]
    pub fn is_valid_path(&self, path: Path) -> bool {
        match &self.ice {
            Ice::Lite(ice) => ice.is_valid(path),
            Ice::Client(ice) => ice.valid_path() == Some(path),
        }
    }

    /// Where to send. None before the first valid path.
    #[must_use]
    pub fn selected_path(&self) -> Option<Path> {
        match &self.ice {
            Ice::Lite(ice) => ice.selected(),
            Ice::Client(ice) => ice.valid_path(),
        }
    }

    /// Takes a DTLS datagram of any size. Drops it unless the path is valid.
    pub fn handle_dtls(&mut self, now: Instant, path: Path, datagram: &[u8]) {
        if self.is_over() {
            return;
        }
        if !self.is_valid_path(path) {
            self.stats.dtls_from_strangers += 1;
            return;
        }
        self.received_at = Some(now);
        self.dtls.handle_datagram(now, datagram);
        self.pump(now);
    }

    /// Opens an SRTP packet in place; returns the plain length. See
    /// [`SrtpSession::unprotect_rtp`].
    ///
    /// # Errors
    /// [`SrtpError`]; drop the packet.
    pub fn unprotect_rtp(&mut self, now: Instant, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let length = self.srtp()?.unprotect_rtp(packet)?;
        self.received_at = Some(now);
        Ok(length)
    }

    /// Opens an SRTCP packet in place; returns the compound's length.
    ///
    /// # Errors
    /// [`SrtpError`]; drop the packet.
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        self.srtp()?.unprotect_rtcp(packet)
    }

    /// Protects `packet[..len]` in place; returns the total. The slice has
    /// [`SRTP_OVERHEAD_MAX`](crate::SRTP_OVERHEAD_MAX) bytes of room behind
    /// `len`. See [`SrtpSession::protect_rtp`].
    ///
    /// # Errors
    /// [`SrtpError`]; do not send the packet.
    pub fn protect_rtp(
        &mut self,
        packet: &mut [u8],
        header_len: usize,
        len: usize,
    ) -> Result<usize, SrtpError> {
        self.srtp()?.protect_rtp(packet, header_len, len)
    }

    /// Bytes that [`Self::protect_rtp`] will add to a packet. 0 before the keys are there.
    #[must_use]
    pub fn rtp_overhead(&self) -> usize {
        match &self.phase {
            Phase::Connected(srtp) => srtp.profile().rtp_overhead(),
            Phase::Connecting { .. } | Phase::Over => 0,
        }
    }

    /// Protects a packet that went out before once more, to the byte the same.
    /// See [`SrtpSession::repeat_rtp`].
    ///
    /// # Errors
    /// [`SrtpError`]; do not send the packet.
    pub fn repeat_rtp(
        &mut self,
        packet: &mut [u8],
        header_len: usize,
        len: usize,
    ) -> Result<usize, SrtpError> {
        self.srtp()?.repeat_rtp(packet, header_len, len)
    }

    /// Protects an RTCP compound `packet[..len]` in place; returns the total.
    ///
    /// # Errors
    /// [`SrtpError`]; do not send the packet.
    pub fn protect_rtcp(&mut self, packet: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        self.srtp()?.protect_rtcp(packet, len)
    }

    /// Opens a data channel by DCEP, now or when SCTP is there;
    /// [`TransportEvent::ChannelOpen`] follows.
    ///
    /// # Errors
    /// [`OpenChannelError`].
    pub fn open_channel(
        &mut self,
        now: Instant,
        label: &str,
        reliability: ChannelReliability,
    ) -> Result<ChannelId, OpenChannelError> {
        if self.is_over() {
            return Err(OpenChannelError::Closed);
        }
        let id = self.channels.open(now, label, reliability)?;
        self.pump(now);
        Ok(id)
    }

    /// Opens a data channel whose id was agreed on in signalling.
    ///
    /// # Errors
    /// [`OpenChannelError`].
    pub fn open_negotiated_channel(
        &mut self,
        now: Instant,
        id: ChannelId,
        label: &str,
        reliability: ChannelReliability,
    ) -> Result<ChannelId, OpenChannelError> {
        if self.is_over() {
            return Err(OpenChannelError::Closed);
        }
        let id = self.channels.open_preset(now, id, label, reliability)?;
        self.pump(now);
        Ok(id)
    }

    /// Queues one message on an open channel.
    ///
    /// # Errors
    /// [`SendError`]; nothing was queued.
    pub fn send_message(
        &mut self,
        now: Instant,
        id: ChannelId,
        kind: MessageKind,
        data: &[u8],
    ) -> Result<(), SendError> {
        if self.is_over() {
            return Err(SendError::UnknownChannel);
        }
        self.channels.send(now, id, kind, data)?;
        self.pump(now);
        Ok(())
    }

    /// Closes one channel; unknown ids are ignored.
    pub fn close_channel(&mut self, now: Instant, id: ChannelId) {
        self.channels.close_channel(now, id);
        self.pump(now);
    }

    /// Moves time on: consent, checks, handshake and SCTP timers.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.is_over() {
            return;
        }
        match &mut self.ice {
            Ice::Lite(ice) => match ice.expire(now) {
                Expiry::Unchanged => {}
                Expiry::Moved(path) => self.emit(TransportEvent::PathSelected(path)),
                Expiry::NoPath => return self.fail(now, FailReason::ConsentExpired),
            },
            Ice::Client(ice) => {
                if ice.expire(now) {
                    return self.fail(now, FailReason::ConsentExpired);
                }
            }
        }
        if self.setup_deadline().is_some_and(|deadline| deadline <= now) {
            return self.fail(now, FailReason::SetupTimeout(self.dtls.problem()));
        }
        self.dtls.handle_timeout(now);
        self.channels.handle_timeout(now);
        self.pump(now);
    }

    /// When [`Transport::handle_timeout`] is due; none while nothing is.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let ice = match &self.ice {
            Ice::Lite(ice) => ice.next_expiry(),
            Ice::Client(ice) => ice.poll_timeout(),
        };
        [ice, self.setup_deadline(), self.dtls.poll_timeout(), self.channels.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Closes the connection: ABORT and close_notify go out, no event comes.
    pub fn close(&mut self, now: Instant) {
        if self.is_over() {
            return;
        }
        self.end(now);
    }

    /// The next datagram to send or event to handle.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When the peer last sent something authentic other than STUN and RTCP.
    #[must_use]
    pub const fn last_received(&self) -> Option<Instant> {
        self.received_at
    }

    /// The counters so far.
    #[must_use]
    pub fn stats(&self) -> TransportStats {
        TransportStats {
            dtls_records_discarded: self.dtls.discarded(),
            sctp_refused: self.channels.refused(),
            library_panics: self.dtls.panics() + self.channels.panics(),
            ..self.stats
        }
    }
}

/// The longest message to send, from the peer's `a=max-message-size`.
fn send_limit(announced: Option<u64>) -> usize {
    match announced.unwrap_or(UNANNOUNCED_MESSAGE_MAX) {
        0 => MESSAGE_MAX,
        announced => usize::try_from(announced).unwrap_or(MESSAGE_MAX).min(MESSAGE_MAX),
    }
}
