//! The credential that roles of one cluster show each other. The secret itself
//! never travels: a call carries the time and an HMAC of it, good for a few
//! minutes. mTLS, where configured, comes on top.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::{Either, Ready, ready};
use http::{HeaderMap, HeaderValue, Request, Response};
use ring::hmac;
use secrecy::{ExposeSecret as _, SecretString};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

use crate::status::{self, Reason};
use crate::token::unix_seconds;

/// Metadata key that carries the credential.
pub const CREDENTIAL_KEY: &str = "x-headwater-cluster";

/// How far clocks of a cluster may differ, in seconds. Also how long a proof
/// that somebody overheard can be used again.
pub const PROOF_SECONDS: u64 = 300;

/// A secret shorter than this is refused: it could be guessed.
pub const SECRET_BYTES_MIN: usize = 16;

const CONTEXT: &str = "headwater cluster v1 ";

/// The secret is too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cluster secret must have at least 16 bytes")]
pub struct SecretTooShort;

/// What the roles of one cluster know. Cheap to clone; its `Debug` shows nothing.
#[derive(Clone)]
pub struct ClusterCredential {
    /// The first signs, all verify. One or two, so that a secret can be changed
    /// role by role.
    keys: Arc<[hmac::Key]>,
}

impl fmt::Debug for ClusterCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterCredential")
    }
}

impl ClusterCredential {
    /// From the cluster's secret.
    ///
    /// # Errors
    /// If it is shorter than [`SECRET_BYTES_MIN`].
    pub fn new(secret: &SecretString) -> Result<Self, SecretTooShort> {
        Self::rotating(secret, None)
    }

    /// From the secret that signs and one that is still accepted.
    ///
    /// # Errors
    /// If either is shorter than [`SECRET_BYTES_MIN`].
    pub fn rotating(
        secret: &SecretString,
        retiring: Option<&SecretString>,
    ) -> Result<Self, SecretTooShort> {
        let keys = std::iter::once(secret)
            .chain(retiring)
            .map(|secret| {
                let bytes = secret.expose_secret().as_bytes();
                if bytes.len() < SECRET_BYTES_MIN {
                    return Err(SecretTooShort);
                }
                Ok(hmac::Key::new(hmac::HMAC_SHA256, bytes))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { keys: keys.into() })
    }

    /// Proof of knowing the secret at this time: `<seconds>.<HMAC, base64url>`.
    #[must_use]
    pub fn prove(&self, now_unix_seconds: u64) -> String {
        let key = self.keys.first().expect("a credential is made with at least one key");
        let tag = hmac::sign(key, message(now_unix_seconds).as_bytes());
        format!("{now_unix_seconds}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// Whether a proof holds at this time, compared in constant time.
    #[must_use]
    pub fn accepts(&self, proof: &str, now_unix_seconds: u64) -> bool {
        let Some((seconds, tag)) = proof.split_once('.') else {
            return false;
        };
        let Ok(seconds) = seconds.parse::<u64>() else {
            return false;
        };
        let Ok(tag) = URL_SAFE_NO_PAD.decode(tag) else {
            return false;
        };
        let message = message(seconds);
        let signed =
            self.keys.iter().any(|key| hmac::verify(key, message.as_bytes(), &tag).is_ok());
        signed && seconds.abs_diff(now_unix_seconds) <= PROOF_SECONDS
    }

    /// Checks the headers of one call.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` if the proof is absent or does not hold.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Status> {
        let proof = headers.get(CREDENTIAL_KEY).and_then(|value| value.to_str().ok());
        if proof.is_some_and(|proof| self.accepts(proof, unix_seconds())) {
            return Ok(());
        }
        Err(status::error(
            Code::Unauthenticated,
            Reason::ClusterCredentialRefused,
            "this service is for the roles of the cluster only",
        ))
    }

    /// The value a client sends now.
    pub(crate) fn header_value(&self) -> HeaderValue {
        HeaderValue::try_from(self.prove(unix_seconds()))
            .expect("digits, a dot and base64url are header text")
    }
}

/// A service that refuses calls without a good proof before they reach it.
#[derive(Debug, Clone)]
pub(crate) struct Guarded<S> {
    inner: S,
    credential: ClusterCredential,
}

impl<S> Guarded<S> {
    pub(crate) fn new(inner: S, credential: ClusterCredential) -> Self {
        Self { inner, credential }
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Err(status) = self.credential.check(request.headers()) {
            return Either::Right(ready(Ok(status.into_http())));
        }
        request.headers_mut().remove(CREDENTIAL_KEY);
        Either::Left(self.inner.call(request))
    }
}

fn message(unix_seconds: u64) -> String {
    format!("{CONTEXT}{unix_seconds}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn credential(secret: &str) -> ClusterCredential {
        ClusterCredential::new(&SecretString::from(secret)).unwrap()
    }

    #[test]
    fn a_proof_holds_for_five_minutes_either_way() {
        let credential = credential("sixteen bytes or more");
        let proof = credential.prove(NOW);
        assert!(credential.accepts(&proof, NOW + PROOF_SECONDS));
        assert!(credential.accepts(&proof, NOW - PROOF_SECONDS));
        assert!(!credential.accepts(&proof, NOW + PROOF_SECONDS + 1));
        assert!(!credential.accepts(&proof, NOW - PROOF_SECONDS - 1));
    }

    #[test]
    fn forged_proofs_are_refused() {
        let credential = credential("sixteen bytes or more");
        let other = super::tests::credential("another secret, long");
        let good = credential.prove(NOW);
        let (_, tag) = good.split_once('.').unwrap();
        let forged = [
            String::new(),
            ".".to_owned(),
            NOW.to_string(),
            format!("{NOW}."),
            format!("{}.{tag}", NOW + 1),
            format!("+{NOW}.{}", &tag[1..]),
            good[..good.len() - 1].to_owned(),
            format!("{good}="),
            "99999999999999999999.AAAA".to_owned(),
            other.prove(NOW),
        ];
        for proof in forged {
            assert!(!credential.accepts(&proof, NOW), "{proof} was accepted");
        }
        assert!(credential.accepts(&good, NOW));
    }

    #[test]
    fn a_retiring_secret_is_still_accepted() {
        let old = SecretString::from("the old secret of it");
        let new = SecretString::from("the new secret of it");
        let rotating = ClusterCredential::rotating(&new, Some(&old)).unwrap();
        assert!(rotating.accepts(&ClusterCredential::new(&old).unwrap().prove(NOW), NOW));
        assert!(ClusterCredential::new(&new).unwrap().accepts(&rotating.prove(NOW), NOW));
    }

    #[test]
    fn a_short_secret_is_refused_and_none_is_shown() {
        assert!(ClusterCredential::new(&SecretString::from("short")).is_err());
        let shown = format!("{:?}", credential("sixteen bytes or more"));
        assert_eq!(shown, "ClusterCredential");
    }
}
