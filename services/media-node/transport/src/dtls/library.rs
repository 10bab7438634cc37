//! What `rtc-dtls` needs to be told and what is taken out of it, in our words.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rtc_crypto::RTCCryptoProvider;
use rtc_dtls::cipher_suite::CipherSuiteId;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::endpoint::Endpoint;
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;

use super::{DtlsIdentity, Established, Fingerprint, srtp_session};
use crate::srtp::SrtpProfile;

/// The library knows peers by address. Ours has one, so that a change of path
/// and TCP make no difference.
pub(super) const PEER: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 5000));

/// The client's flights are repeated by the library, at this fixed interval.
const CLIENT_FLIGHT_INTERVAL: Duration = Duration::from_millis(500);
/// Sealed records may overtake each other in bursts of data.
const RECORD_REPLAY_WINDOW: usize = 512;

pub(super) fn endpoint(server: Option<Arc<HandshakeConfig>>) -> Endpoint {
    Endpoint::new(PEER, TransportProtocol::UDP, server)
}

pub(super) fn config(
    identity: &DtlsIdentity,
    profiles: &[SrtpProfile],
    is_client: bool,
    provider: Arc<dyn RTCCryptoProvider>,
) -> rtc_shared::error::Result<HandshakeConfig> {
    ConfigBuilder::default()
        .with_crypto_provider(provider)
        .with_certificates(vec![identity.certificate()])
        .with_cipher_suites(vec![
            CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256,
            CipherSuiteId::Tls_Ecdhe_Ecdsa_With_ChaCha20_Poly1305_Sha256,
            CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_256_Cbc_Sha,
        ])
        .with_srtp_protection_profiles(
            profiles.iter().map(|profile| library_profile(*profile)).collect(),
        )
        .with_client_auth(ClientAuthType::RequireAnyClientCert)
        .with_extended_master_secret(ExtendedMasterSecretType::Require)
        // WebRTC has no certificate authorities: the fingerprint from signalling
        // is compared before the keys are used.
        .with_insecure_skip_verify(true)
        .with_flight_interval(CLIENT_FLIGHT_INTERVAL)
        .with_replay_protection_window(RECORD_REPLAY_WINDOW)
        .with_server_name("headwater".to_owned())
        .build(is_client, None)
}

const fn library_profile(profile: SrtpProfile) -> SrtpProtectionProfile {
    match profile {
        SrtpProfile::AeadAes128Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
        SrtpProfile::AeadAes256Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
        SrtpProfile::AesCm128HmacSha1_80 => SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
    }
}

pub(super) fn drain_transmits(endpoint: &mut Endpoint) -> Vec<BytesMut> {
    std::iter::from_fn(|| endpoint.poll_transmit()).map(|transmit| transmit.message).collect()
}

/// Certificate, profile and keys of a finished handshake.
pub(super) fn export(endpoint: &Endpoint, is_client: bool) -> Option<Established> {
    let state = endpoint.get_connection_state(PEER)?;
    let certificate = state.peer_certificates.first()?;
    let profile = match state.srtp_protection_profile() {
        SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => SrtpProfile::AeadAes128Gcm,
        SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm => SrtpProfile::AeadAes256Gcm,
        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => SrtpProfile::AesCm128HmacSha1_80,
        _ => return None,
    };
    let exported =
        state.export_keying_material("EXTRACTOR-dtls_srtp", &[], profile.exported_len()).ok()?;
    Some(Established {
        peer_fingerprint: Fingerprint::of_certificate(certificate),
        srtp: srtp_session(profile, exported.as_ref(), is_client).ok()?,
    })
}
