//! DTLS of one transport, behind a small trait so that another implementation
//! can follow. Nothing outside of this module names a DTLS library.

mod cookie;
mod handshake;
mod hello;
mod identity;
mod library;
mod record;
mod rtc;
mod server_flight;

pub use identity::{DtlsIdentity, Fingerprint, FingerprintError, IdentityError};
pub(crate) use rtc::RtcDtls;

use std::time::Instant;

use bytes::BytesMut;

use crate::srtp::{SrtpError, SrtpProfile, SrtpSession};

/// Which SRTP profiles may be agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SrtpPreference {
    /// AES-128-GCM whenever the client offers it, then AES-256-GCM, then
    /// AES_CM_128_HMAC_SHA1_80, whatever the client's order is.
    #[default]
    GcmPreferred,
    /// AES-128-GCM or AES-256-GCM; a client without either fails.
    GcmOnly,
    /// AES_CM_128_HMAC_SHA1_80 only: about four times the cost per packet.
    CmOnly,
}

impl SrtpPreference {
    /// The acceptable profiles, best first.
    pub(crate) const fn profiles(self) -> &'static [SrtpProfile] {
        match self {
            Self::GcmPreferred => &[
                SrtpProfile::AeadAes128Gcm,
                SrtpProfile::AeadAes256Gcm,
                SrtpProfile::AesCm128HmacSha1_80,
            ],
            Self::GcmOnly => &[SrtpProfile::AeadAes128Gcm, SrtpProfile::AeadAes256Gcm],
            Self::CmOnly => &[SrtpProfile::AesCm128HmacSha1_80],
        }
    }

    /// The best acceptable profile among what the client offers, by code.
    pub(crate) fn choose(self, offered: &[u16]) -> Option<SrtpProfile> {
        self.profiles().iter().copied().find(|profile| offered.contains(&profile.code()))
    }
}

/// Why a handshake does not get anywhere. Kept until the set-up deadline: one
/// bad flight does not end a session, since anybody could have sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DtlsProblem {
    /// The client offers no SRTP profile that we accept.
    #[error("no common SRTP profile")]
    NoCommonProfile,
    /// The client does not offer the extended master secret (RFC 7627).
    #[error("no extended master secret")]
    NoExtendedMasterSecret,
    /// The ClientHello could not be read or is not DTLS 1.2.
    #[error("unusable ClientHello")]
    BadClientHello,
    /// The handshake broke off: a bad signature, certificate or message.
    #[error("handshake failed")]
    Handshake,
}

/// A finished handshake. The peer's certificate is not trusted yet.
pub(crate) struct Established {
    /// SHA-256 of the peer's certificate.
    pub peer_fingerprint: Fingerprint,
    pub srtp: SrtpSession,
}

/// What comes out of a DTLS association.
pub(crate) enum DtlsOutput {
    Transmit(BytesMut),
    Established(Box<Established>),
    Data(BytesMut),
    /// close_notify, or an authentic fatal alert.
    PeerClosed,
}

/// Why application data was not sent.
#[derive(Debug, thiserror::Error)]
#[error("DTLS association is not established")]
pub(crate) struct NotEstablished;

/// One DTLS association over whatever path the transport selects. Drain
/// [`DtlsAssociation::poll_output`] after every other call.
pub(crate) trait DtlsAssociation: Send {
    /// A client's first flight may go out now; a server needs no start.
    fn start(&mut self, now: Instant);
    /// Takes a datagram from a validated path. Bad records are dropped.
    fn handle_datagram(&mut self, now: Instant, datagram: &[u8]);
    fn handle_timeout(&mut self, now: Instant);
    fn poll_timeout(&self) -> Option<Instant>;
    fn poll_output(&mut self) -> Option<DtlsOutput>;
    /// Sends one record of application data.
    fn send(&mut self, now: Instant, data: &[u8]) -> Result<(), NotEstablished>;
    /// Sends close_notify if established; nothing is accepted afterwards.
    fn close(&mut self, now: Instant);
    /// What went wrong last, if the handshake is stuck.
    fn problem(&self) -> Option<DtlsProblem>;
    /// Records dropped before they reached the handshake or the application.
    fn discarded(&self) -> u64;
    /// Panics of the library, each of which ended a handshake or association.
    fn panics(&self) -> u64;
}

/// Splits exported keying material (RFC 5764 §4.2): client key, server key,
/// client salt, server salt.
pub(crate) fn srtp_session(
    profile: SrtpProfile,
    exported: &[u8],
    is_client: bool,
) -> Result<SrtpSession, SrtpError> {
    use crate::srtp::MasterKey;
    if exported.len() != profile.exported_len() {
        return Err(SrtpError::BadKey);
    }
    let (keys, salts) = exported.split_at(2 * profile.key_len());
    let (client_key, server_key) = keys.split_at(profile.key_len());
    let (client_salt, server_salt) = salts.split_at(profile.salt_len());
    let client = MasterKey { key: client_key, salt: client_salt };
    let server = MasterKey { key: server_key, salt: server_salt };
    if is_client {
        SrtpSession::new(profile, client, server)
    } else {
        SrtpSession::new(profile, server, client)
    }
}
