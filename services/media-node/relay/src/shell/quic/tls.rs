//! TLS and QUIC settings: both ends show a certificate of the cluster.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use super::{QuicConfig, QuicError};

/// Name of the protocol inside TLS; carries its version.
const ALPN: &[u8] = b"headwater-relay/1";
/// A connection is kept alive this often.
const KEEP_ALIVE: Duration = Duration::from_millis(400);
/// A connection over which nothing comes is gone after this. Links notice sooner by
/// themselves; this frees their connection for another attempt.
const IDLE_MAX: Duration = Duration::from_millis(1_500);
/// Round trip assumed before one is measured: nodes are near each other.
const RTT_ASSUMED: Duration = Duration::from_millis(50);
/// Links of one connection: each room that two nodes share has one.
const LINKS_MAX: u32 = 8_192;
/// Datagrams that wait for the path, in bytes: 100 ms of 20 Mbit/s. What waits longer
/// is better dropped and repeated.
const SEND_BUFFER: usize = 256 * 1024;
/// Datagrams that wait to be read, in bytes.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
/// What may be under way at first. Paths between nodes are provisioned; a keyframe of
/// each of ten speakers fits.
const WINDOW: u64 = 512 * 1024;

/// Settings of both ends of a node.
pub(super) fn configs(
    config: &QuicConfig,
) -> Result<(quinn::ServerConfig, quinn::ClientConfig), QuicError> {
    let unreadable = |what: &'static str| move |_| QuicError::Certificate(what);
    let certificates = CertificateDer::pem_slice_iter(&config.certificate_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable("the node's certificate is no PEM"))?;
    let key = || {
        PrivateKeyDer::from_pem_slice(&config.key_pem)
            .map_err(unreadable("the node's key is no PEM"))
    };
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&config.roots_pem) {
        roots.add(root.map_err(unreadable("a root is no PEM"))?)?;
    }
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = &[&rustls::version::TLS13];
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|_| QuicError::Certificate("no root can be used"))?;
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates.clone(), key()?)?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates, key()?)?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    let unfit = |_| QuicError::Certificate("TLS offers no cipher for QUIC");
    let transport = Arc::new(transport());
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(
        QuicServerConfig::try_from(server).map_err(unfit)?,
    ));
    server.transport_config(Arc::clone(&transport));
    let mut client =
        quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).map_err(unfit)?));
    client.transport_config(transport);
    Ok((server, client))
}

fn transport() -> quinn::TransportConfig {
    let mut transport = quinn::TransportConfig::default();
    let mut congestion = quinn::congestion::CubicConfig::default();
    congestion.initial_window(WINDOW);
    transport
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IDLE_MAX.try_into().ok())
        .initial_rtt(RTT_ASSUMED)
        .max_concurrent_bidi_streams(LINKS_MAX.into())
        .max_concurrent_uni_streams(0_u32.into())
        .datagram_send_buffer_size(SEND_BUFFER)
        .datagram_receive_buffer_size(Some(RECEIVE_BUFFER))
        .congestion_controller_factory(Arc::new(congestion));
    transport
}
