//! What goes into a transport at its making and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::dtls::{DtlsIdentity, DtlsProblem, FingerprintError, SrtpPreference};
use crate::ice::IceCredentials;
use crate::path::Path;
use crate::sctp::{ChannelId, ChannelReliability, MessageKind};
use crate::srtp::SrtpProfile;

/// The longest data channel message sent or taken: 256 KiB, what browsers take.
pub const MESSAGE_MAX: usize = 256 * 1024;

/// What a peer takes if its SDP does not say (RFC 8841 §6.1).
pub(crate) const UNANNOUNCED_MESSAGE_MAX: u64 = 64 * 1024;

/// Which end of ICE, DTLS and SCTP a transport is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// ICE-lite, DTLS server, waits for SCTP: the media node.
    Server,
    /// Full controlling ICE towards one candidate, DTLS client, opens SCTP: a
    /// native client.
    Client {
        /// Makes STUN transaction ids and the tie-breaker. Different for each.
        seed: u64,
    },
}

/// How a transport is made.
#[derive(Clone)]
pub struct TransportConfig {
    /// Our certificate, shared by all transports of a node.
    pub identity: Arc<DtlsIdentity>,
    /// Our ICE credentials, as signalled.
    pub local: IceCredentials,
    /// Which SRTP profiles may be agreed on.
    pub srtp: SrtpPreference,
    /// Which end this is.
    pub role: Role,
    /// Bytes that all data channels may hold unsent or unacknowledged. At
    /// least [`MESSAGE_MAX`], or long messages never fit.
    pub buffered_bytes_max: usize,
}

impl TransportConfig {
    /// A media node's transport: GCM preferred, 1 MiB of buffered data.
    #[must_use]
    pub fn server(identity: Arc<DtlsIdentity>, local: IceCredentials) -> Self {
        Self {
            identity,
            local,
            srtp: SrtpPreference::default(),
            role: Role::Server,
            buffered_bytes_max: 1 << 20,
        }
    }

    /// A native client's transport with the same defaults.
    #[must_use]
    pub fn client(identity: Arc<DtlsIdentity>, local: IceCredentials, seed: u64) -> Self {
        Self { role: Role::Client { seed }, ..Self::server(identity, local) }
    }
}

/// What signalling tells about the peer.
///
/// The password is kept only to detect restarts (a client's transport also
/// signs its checks with it). It has no `Debug`.
#[derive(Clone)]
pub struct RemoteParameters {
    /// SHA-256 of the peer's certificate: hex bytes with colons.
    pub fingerprint_sha256: String,
    /// The peer's user fragment.
    pub ufrag: String,
    /// The peer's password.
    pub pwd: String,
    /// `a=max-message-size` in bytes: 0 is unlimited, absent is 65,536.
    pub max_message_size: Option<u64>,
}

impl std::fmt::Debug for RemoteParameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteParameters")
            .field("ufrag", &self.ufrag)
            .field("max_message_size", &self.max_message_size)
            .finish_non_exhaustive()
    }
}

/// Why remote parameters were refused. The transport goes on as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RemoteError {
    /// The fingerprint is not a SHA-256 in hex.
    #[error("malformed fingerprint")]
    BadFingerprint(#[source] FingerprintError),
    /// A peer keeps its certificate for a connection's life (RFC 8842 §4).
    #[error("the fingerprint changed on a live transport")]
    FingerprintChanged,
    /// The transport is closed or failed.
    #[error("transport is closed")]
    Closed,
}

/// What [`Transport::poll_output`](crate::Transport::poll_output) hands out.
#[derive(Debug)]
pub enum Output {
    /// Send this datagram by this path.
    Transmit {
        /// Where to.
        path: Path,
        /// One datagram: STUN or DTLS.
        datagram: Vec<u8>,
    },
    /// Something happened.
    Event(TransportEvent),
}

/// What happened on a transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportEvent {
    /// What we send goes by this path from now on.
    PathSelected(Path),
    /// The handshake is done and the certificate is the one that was signalled:
    /// SRTP keys are in place.
    Connected {
        /// The agreed profile.
        profile: SrtpProfile,
        /// Since the first authentic STUN message.
        elapsed: Duration,
    },
    /// A channel can be sent on.
    ChannelOpen {
        /// The channel.
        id: ChannelId,
        /// Its name. Not unique.
        label: String,
        /// Its order and retransmission, both directions.
        reliability: ChannelReliability,
        /// Opened by us (or agreed on beforehand), not by the peer.
        negotiated_by_us: bool,
    },
    /// A channel is gone, by either side.
    ChannelClosed {
        /// The channel.
        id: ChannelId,
    },
    /// A message arrived.
    Message {
        /// On which channel.
        id: ChannelId,
        /// Text or bytes.
        kind: MessageKind,
        /// At most [`MESSAGE_MAX`] bytes.
        data: Vec<u8>,
    },
    /// The transport is of no more use. Final; comes at most once.
    Failed(FailReason),
    /// The peer closed the connection. Final; comes at most once.
    Closed,
}

/// Why a transport failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FailReason {
    /// No connection within [`SETUP_TIMEOUT`](crate::SETUP_TIMEOUT) of the
    /// first STUN message.
    #[error("set-up timed out")]
    SetupTimeout(#[source] Option<DtlsProblem>),
    /// The peer's certificate is not the one that was signalled.
    #[error("certificate fingerprint mismatch")]
    FingerprintMismatch,
    /// No path had an authentic STUN message for 30 s (RFC 7675).
    #[error("consent expired on every path")]
    ConsentExpired,
}

/// Counters of one transport, as plain integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TransportStats {
    /// STUN messages that were not authentic or not expected.
    pub stun_refused: u64,
    /// DTLS datagrams from paths without authentic STUN.
    pub dtls_from_strangers: u64,
    /// DTLS records dropped: malformed, forged, repeated or out of place.
    pub dtls_records_discarded: u64,
    /// Datagrams that had no path to go by, or that nobody drained.
    pub datagrams_dropped: u64,
    /// SCTP packets and messages refused.
    pub sctp_refused: u64,
    /// Panics inside of the DTLS and SCTP libraries. Each is a bug, and cost
    /// this transport only.
    pub library_panics: u64,
}
