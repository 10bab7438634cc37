//! Our certificate and its fingerprint, made once per node and shared by all
//! transports, and the fingerprints of peers.

use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rtc_dtls::crypto::Certificate;
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::stun::provider;

/// The SHA-256 of a certificate, as `a=fingerprint` carries it (RFC 8122 §5).
#[derive(Debug, Clone, Copy)]
pub struct Fingerprint([u8; 32]);

/// The text is not 32 hexadecimal bytes with colons between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed SHA-256 fingerprint")]
pub struct FingerprintError;

impl Fingerprint {
    /// The fingerprint of a DER certificate.
    #[must_use]
    pub fn of_certificate(der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, der).as_ref());
        Self(bytes)
    }

    /// Compares in constant time.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        bool::from(self.0.ct_eq(&other.0))
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let mut bytes = [0; 32];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(FingerprintError)?;
            if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(FingerprintError);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| FingerprintError)?;
        }
        if parts.next().is_some() {
            return Err(FingerprintError);
        }
        Ok(Self(bytes))
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_char(':')?;
            }
            write!(f, "{byte:02X}")?;
        }
        Ok(())
    }
}

/// The certificate could not be made.
#[derive(Debug, Error)]
#[error("could not make a DTLS certificate")]
pub struct IdentityError(#[source] rtc_shared::error::Error);

/// A certificate and its private key. No `Debug`: the key is a secret.
pub struct DtlsIdentity {
    certificate: Certificate,
    fingerprint: String,
}

impl DtlsIdentity {
    /// Makes a self-signed ECDSA P-256 certificate. Draws randomness, does no I/O.
    ///
    /// # Errors
    /// [`IdentityError`] if the system has no randomness to give.
    pub fn generate() -> Result<Arc<Self>, IdentityError> {
        let certificate =
            Certificate::generate_self_signed(vec!["headwater".to_owned()], provider().crypto())
                .map_err(IdentityError)?;
        let der = certificate
            .certificate
            .first()
            .expect("a generated certificate chain has one certificate");
        let fingerprint = Fingerprint::of_certificate(der).to_string();
        Ok(Arc::new(Self { certificate, fingerprint }))
    }

    /// SHA-256 of the certificate, upper-case hex with colons, for SDP.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub(super) fn certificate(&self) -> Certificate {
        self.certificate.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_reads_back_what_it_writes() {
        let identity = DtlsIdentity::generate().unwrap();
        let fingerprint: Fingerprint = identity.fingerprint().parse().unwrap();
        assert_eq!(fingerprint.to_string(), identity.fingerprint());
        let lower: Fingerprint = identity.fingerprint().to_lowercase().parse().unwrap();
        assert!(lower.matches(&fingerprint));
        let other: Fingerprint = DtlsIdentity::generate().unwrap().fingerprint().parse().unwrap();
        assert!(!other.matches(&fingerprint));
    }

    #[test]
    fn malformed_fingerprints_are_refused() {
        let good = DtlsIdentity::generate().unwrap().fingerprint().to_owned();
        for bad in [
            String::new(),
            good[..good.len() - 3].to_owned(),
            format!("{good}:00"),
            good.replace(':', "-"),
            format!("+1{}", &good[2..]),
        ] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }
}
