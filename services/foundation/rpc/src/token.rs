//! Access tokens: JWTs signed with HS256 whose claims have the shape of
//! LiveKit's, so that existing server SDKs mint them. [`KeyRing`] verifies and
//! mints; it reads no clock and draws no randomness.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use headwater_model::Grants;
use ring::hmac;
use secrecy::{ExposeSecret as _, SecretString};

mod claims;
#[cfg(test)]
mod tests;

use claims::{Claims, Header, Issuer, Object};

/// Longest token taken, in bytes. Metadata travels in tokens, so it is large;
/// HTTP servers mostly refuse longer request heads anyway.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// How far clocks may differ, in seconds.
pub const LEEWAY_SECONDS: u64 = 60;

/// Active secrets of one key: the one that signs and the one being retired.
pub const SECRETS_PER_KEY_MAX: usize = 2;

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("no token was given")]
    Missing,
    /// Longer than [`TOKEN_BYTES_MAX`].
    #[error("the token is too long")]
    TooLong,
    /// Not three parts of base64url JSON, a claim of the wrong type, or a claim twice.
    #[error("the token is malformed")]
    Malformed,
    /// The header names another algorithm than HS256, or an extension (`crit`, `b64`).
    #[error("the token is not signed with HS256")]
    Algorithm,
    /// `iss` is absent or names no key of ours.
    #[error("the token's API key is not known")]
    UnknownKey,
    /// The signature fits none of the key's secrets.
    #[error("the token's signature is not valid")]
    BadSignature,
    /// `exp` is absent.
    #[error("the token has no expiry")]
    NoExpiry,
    /// `exp` is past.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is to come.
    #[error("the token is not valid yet")]
    NotYetValid,
}

impl TokenError {
    /// A short name from a closed set, for metrics and error details.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::TooLong | Self::Malformed => "token_malformed",
            Self::Algorithm => "token_algorithm",
            Self::UnknownKey => "key_unknown",
            Self::BadSignature => "signature_invalid",
            Self::NoExpiry | Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
        }
    }
}

/// Why keys do not make a key ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// There is no key at all.
    #[error("there must be at least one API key")]
    Empty,
    /// The name of an API key is empty.
    #[error("an API key must not be empty")]
    EmptyKey,
    /// The same API key came twice.
    #[error("API key {0} is given twice")]
    DuplicateKey(String),
    /// It has no secret, an empty one, or too many.
    #[error("API key {0} needs one or two secrets, none of them empty")]
    BadSecrets(String),
}

/// What a token shall say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenRequest {
    /// Who it is for and what it allows. An empty `api_key` means the first key
    /// of the ring; `expires_at` is ignored.
    pub grants: Grants,
    /// How long it is good, in whole seconds.
    pub ttl: Duration,
}

/// Why a token could not be minted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// The request names a key that the ring does not hold.
    #[error("API key {0} is not known")]
    UnknownKey(String),
    /// The token would be longer than [`TOKEN_BYTES_MAX`].
    #[error("the token would be too long")]
    TooLong,
}

/// The API keys and their secrets. Cheap to clone; its `Debug` shows no secret.
#[derive(Clone)]
pub struct KeyRing {
    keys: Arc<BTreeMap<String, Vec<hmac::Key>>>,
    first: Arc<str>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("keys", &self.keys.keys()).finish_non_exhaustive()
    }
}

impl KeyRing {
    /// A ring of API keys, each with one or two secrets. The first secret of a
    /// key signs, both verify. The first key is the one that signs what the
    /// server mints of its own accord.
    ///
    /// # Errors
    /// If there is no key, or a key or secret is empty, or a key comes twice.
    pub fn new(
        pairs: impl IntoIterator<Item = (String, Vec<SecretString>)>,
    ) -> Result<Self, KeyRingError> {
        let mut keys = BTreeMap::new();
        let mut first: Option<Arc<str>> = None;
        for (name, secrets) in pairs {
            if name.is_empty() {
                return Err(KeyRingError::EmptyKey);
            }
            let count_is_right = (1..=SECRETS_PER_KEY_MAX).contains(&secrets.len());
            if !count_is_right || secrets.iter().any(|secret| secret.expose_secret().is_empty()) {
                return Err(KeyRingError::BadSecrets(name));
            }
            let signers = secrets
                .iter()
                .map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes()))
                .collect();
            first.get_or_insert_with(|| name.as_str().into());
            if keys.insert(name.clone(), signers).is_some() {
                return Err(KeyRingError::DuplicateKey(name));
            }
        }
        let first = first.ok_or(KeyRingError::Empty)?;
        Ok(Self { keys: Arc::new(keys), first })
    }

    /// A ring of one key with one secret.
    ///
    /// # Errors
    /// If either is empty.
    pub fn single(key: &str, secret: &str) -> Result<Self, KeyRingError> {
        Self::new([(key.to_owned(), vec![SecretString::from(secret)])])
    }

    /// The key that signs what the server mints of its own accord.
    #[must_use]
    pub fn first_key(&self) -> &str {
        &self.first
    }

    /// Checks a token and says what its bearer may do.
    ///
    /// # Errors
    /// See [`TokenError`]. Time is only looked at once the signature holds.
    pub fn verify(&self, token: &str, now_unix_seconds: u64) -> Result<Grants, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        if payload.contains('.') {
            return Err(TokenError::Malformed);
        }
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| TokenError::Malformed)?;
        let header: Header = parse(&header)?;
        if !header.is_plain_hs256() {
            return Err(TokenError::Algorithm);
        }
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| TokenError::Malformed)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
        let issuer: Issuer = parse(&payload)?;
        let signers = issuer
            .iss
            .as_deref()
            .and_then(|key| self.keys.get(key))
            .ok_or(TokenError::UnknownKey)?;
        if !signers.iter().any(|key| hmac::verify(key, signed.as_bytes(), &signature).is_ok()) {
            return Err(TokenError::BadSignature);
        }
        let claims: Claims = parse(&payload)?;
        check_time(&claims, now_unix_seconds)?;
        Ok(claims.into_grants())
    }

    /// Signs a token with the first secret of the key that the request names.
    ///
    /// # Errors
    /// If the key is not known or the token would be too long.
    pub fn mint(&self, request: &TokenRequest, now_unix_seconds: u64) -> Result<String, MintError> {
        let key = match request.grants.api_key.as_str() {
            "" => self.first_key(),
            named => named,
        };
        let signer = self
            .keys
            .get(key)
            .and_then(|signers| signers.first())
            .ok_or_else(|| MintError::UnknownKey(key.to_owned()))?;
        let claims = Claims::from_grants(&request.grants, key, now_unix_seconds, request.ttl);
        let mut token = encode(&Header::hs256());
        token.push('.');
        token.push_str(&encode(&claims));
        let signature = hmac::sign(signer, token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        if token.len() > TOKEN_BYTES_MAX {
            return Err(MintError::TooLong);
        }
        Ok(token)
    }
}

/// The token in a header's value, `Bearer <token>`; the scheme in any case (RFC 6750).
#[must_use]
pub fn from_authorization(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The token of a gRPC call.
///
/// # Errors
/// [`TokenError::Missing`] if there is none.
pub fn from_metadata(metadata: &tonic::metadata::MetadataMap) -> Result<&str, TokenError> {
    metadata
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .and_then(from_authorization)
        .ok_or(TokenError::Missing)
}

/// Seconds since the Unix epoch. For servers; cores are handed the time.
#[must_use]
pub fn unix_seconds() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

fn check_time(claims: &Claims, now: u64) -> Result<(), TokenError> {
    let expires_at = claims.exp.ok_or(TokenError::NoExpiry)?.0;
    if now > expires_at.saturating_add(LEEWAY_SECONDS) {
        return Err(TokenError::Expired);
    }
    let not_before = claims.nbf.map_or(0, |time| time.0);
    if not_before > now.saturating_add(LEEWAY_SECONDS) {
        return Err(TokenError::NotYetValid);
    }
    Ok(())
}

fn parse<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, TokenError> {
    let Object(value) = serde_json::from_slice(json).map_err(|_| TokenError::Malformed)?;
    Ok(value)
}

fn encode<T: serde::Serialize>(part: &T) -> String {
    let json = serde_json::to_vec(part).expect("text, numbers and lists always make JSON");
    URL_SAFE_NO_PAD.encode(json)
}
