//! The few STUN messages of ICE: a strict view over a received Binding message,
//! and writers for requests and success responses. Integrity and fingerprint
//! are checked and made by `rtc-stun`.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use rtc_crypto::RTCCryptoProvider;
use rtc_stun::attributes::{
    ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME, AttrType,
};
use rtc_stun::fingerprint::{FINGERPRINT, fingerprint_value};
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter, TransactionId};
use rtc_stun::xoraddr::XorMappedAddress;
use thiserror::Error;

const HEADER: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// No ICE message comes near this; anything longer is refused unread.
const MESSAGE_MAX: usize = 1280;

const TYPE_BINDING_REQUEST: u16 = 0x0001;
const TYPE_BINDING_SUCCESS: u16 = 0x0101;
const TYPE_BINDING_ERROR: u16 = 0x0111;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT_TYPE: u16 = 0x8028;
/// Types from here on may be ignored when they are not known (RFC 8489 §14).
const COMPREHENSION_OPTIONAL: u16 = 0x8000;

/// Why a STUN datagram was dropped. None of these changes any state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StunError {
    /// Not a well-formed STUN message.
    #[error("malformed STUN message")]
    Malformed,
    /// Well-formed, but not a message that this end answers or waits for.
    #[error("unexpected STUN message type")]
    UnexpectedType,
    /// USERNAME is missing or does not start with one of our fragments.
    #[error("unknown STUN username")]
    UnknownUsername,
    /// MESSAGE-INTEGRITY is missing or wrong.
    #[error("STUN message is not authentic")]
    NotAuthentic,
    /// FINGERPRINT is there and wrong.
    #[error("STUN fingerprint mismatch")]
    BadFingerprint,
    /// A comprehension-required attribute that we do not know (RFC 8489 §6.3.1).
    #[error("unknown required STUN attribute")]
    UnknownAttribute,
    /// A response to no outstanding request.
    #[error("STUN response to no request")]
    UnknownTransaction,
    /// The transport is closed or failed.
    #[error("transport is closed")]
    Closed,
}

/// What kind of Binding message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BindingKind {
    Request,
    Success,
    Error,
}

/// A Binding message whose shape is checked and whose authenticity is not.
/// Attributes behind MESSAGE-INTEGRITY are left out (RFC 8489 §14.5).
#[derive(Debug)]
pub(crate) struct BindingView<'a> {
    pub kind: BindingKind,
    pub transaction: [u8; 12],
    pub username: Option<&'a [u8]>,
    pub use_candidate: bool,
    datagram: &'a [u8],
}

impl<'a> BindingView<'a> {
    /// Checks shape, fingerprint (if there) and required attributes.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, StunError> {
        let (kind, transaction) = header(datagram)?;
        let mut view = Self { kind, transaction, username: None, use_candidate: false, datagram };
        let mut integrity_seen = false;
        let mut attributes = Attributes::new(datagram);
        while let Some((offset, attribute, value)) = attributes.next()? {
            match attribute {
                FINGERPRINT_TYPE => {
                    let expected = fingerprint_of(&datagram[..offset]);
                    if value != expected || !attributes.at_end() {
                        return Err(StunError::BadFingerprint);
                    }
                }
                _ if integrity_seen => {}
                MESSAGE_INTEGRITY if value.len() == 20 => integrity_seen = true,
                USERNAME if view.username.is_none() => view.username = Some(value),
                USE_CANDIDATE => view.use_candidate = true,
                PRIORITY | XOR_MAPPED_ADDRESS | ERROR_CODE | UNKNOWN_ATTRIBUTES => {}
                COMPREHENSION_OPTIONAL.. => {}
                _ => return Err(StunError::UnknownAttribute),
            }
        }
        if !integrity_seen {
            return Err(StunError::NotAuthentic);
        }
        Ok(view)
    }

    /// The part of USERNAME before the colon.
    pub fn local_ufrag(&self) -> Option<&'a str> {
        self.username.and_then(ufrag_of)
    }

    /// Verifies MESSAGE-INTEGRITY with the short-term password (RFC 8489 §9.1).
    pub fn verify(&self, password: &str) -> Result<(), StunError> {
        let mut message = Message::new();
        message.unmarshal_binary(self.datagram).map_err(|_| StunError::Malformed)?;
        MessageIntegrity::check(&mut message, password.as_bytes(), provider().crypto())
            .map_err(|_| StunError::NotAuthentic)
    }
}

/// The server's user fragment of a Binding request: USERNAME up to the colon.
///
/// For demultiplexing before anything is known about the sender: no allocation,
/// no trust. `None` for anything that is not a well-formed Binding request.
#[must_use]
pub fn stun_local_ufrag(datagram: &[u8]) -> Option<&str> {
    if !matches!(header(datagram), Ok((BindingKind::Request, _))) {
        return None;
    }
    let mut attributes = Attributes::new(datagram);
    while let Ok(Some((_, attribute, value))) = attributes.next() {
        if attribute == USERNAME {
            return ufrag_of(value);
        }
    }
    None
}

/// A Binding request as a full agent sends it (RFC 8445 §7.2.2).
#[derive(Debug, Clone)]
pub struct BindingRequest<'a> {
    /// Pairs the response with this request. Unique per request.
    pub transaction: [u8; 12],
    /// The peer's user fragment, which is the first half of USERNAME.
    pub remote_ufrag: &'a str,
    /// Our user fragment, which is the second half of USERNAME.
    pub local_ufrag: &'a str,
    /// The peer's password, which keys MESSAGE-INTEGRITY.
    pub remote_pwd: &'a str,
    /// The priority a peer-reflexive candidate learned from this would get.
    pub priority: u32,
    /// The controlling agent's tie-breaker.
    pub tie_breaker: u64,
    /// Whether this nominates the pair.
    pub use_candidate: bool,
}

impl BindingRequest<'_> {
    /// The request as a datagram.
    ///
    /// # Panics
    /// Never: every attribute written here fits by construction.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let username = format!("{}:{}", self.remote_ufrag, self.local_ufrag);
        let mut setters: Vec<Box<dyn Setter + '_>> = vec![
            Box::new(BINDING_REQUEST),
            Box::new(TransactionId(self.transaction)),
            Box::new(Raw(ATTR_USERNAME, username.into_bytes())),
            Box::new(Raw(ATTR_PRIORITY, self.priority.to_be_bytes().to_vec())),
            Box::new(Raw(ATTR_ICE_CONTROLLING, self.tie_breaker.to_be_bytes().to_vec())),
        ];
        if self.use_candidate {
            setters.push(Box::new(Raw(ATTR_USE_CANDIDATE, Vec::new())));
        }
        setters.push(integrity(self.remote_pwd));
        setters.push(Box::new(FINGERPRINT));
        build(&setters)
    }
}

/// A Binding success response with XOR-MAPPED-ADDRESS, keyed with our password.
pub(crate) fn binding_success(transaction: [u8; 12], ip: IpAddr, port: u16, pwd: &str) -> Vec<u8> {
    build(&[
        Box::new(BINDING_SUCCESS),
        Box::new(TransactionId(transaction)),
        Box::new(XorMappedAddress { ip, port }),
        integrity(pwd),
        Box::new(FINGERPRINT),
    ])
}

/// The address in a verified success response.
pub(crate) fn mapped_address(datagram: &[u8]) -> Option<SocketAddr> {
    let mut message = Message::new();
    message.unmarshal_binary(datagram).ok()?;
    let mut address = XorMappedAddress::default();
    rtc_stun::message::Getter::get_from(&mut address, &message).ok()?;
    Some(SocketAddr::new(address.ip, address.port))
}

/// The crypto behind STUN, DTLS and certificates: `ring`, made once.
pub(crate) fn provider() -> &'static Arc<dyn RTCCryptoProvider> {
    static PROVIDER: OnceLock<Arc<dyn RTCCryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rtc_crypto::providers::RingProvider::new()))
}

struct Raw(AttrType, Vec<u8>);

impl Setter for Raw {
    fn add_to(&self, message: &mut Message) -> rtc_shared::error::Result<()> {
        message.add(self.0, &self.1);
        Ok(())
    }
}

fn integrity(pwd: &str) -> Box<dyn Setter + 'static> {
    Box::new(MessageIntegrity::new_short_term_integrity_with_provider(
        pwd.to_owned(),
        provider().crypto(),
    ))
}

fn build(setters: &[Box<dyn Setter + '_>]) -> Vec<u8> {
    let mut message = Message::new();
    message.build(setters).expect("fixed attributes in a fixed order always encode");
    message.raw
}

fn fingerprint_of(covered: &[u8]) -> [u8; 4] {
    fingerprint_value(covered).to_be_bytes()
}

fn ufrag_of(username: &[u8]) -> Option<&str> {
    let end = username.iter().position(|byte| *byte == b':')?;
    std::str::from_utf8(&username[..end]).ok()
}

fn header(datagram: &[u8]) -> Result<(BindingKind, [u8; 12]), StunError> {
    if datagram.len() < HEADER || datagram.len() > MESSAGE_MAX || datagram[4..8] != MAGIC_COOKIE {
        return Err(StunError::Malformed);
    }
    let length = usize::from(u16_at(datagram, 2));
    if length + HEADER != datagram.len() || length % 4 != 0 {
        return Err(StunError::Malformed);
    }
    let kind = match u16_at(datagram, 0) {
        TYPE_BINDING_REQUEST => BindingKind::Request,
        TYPE_BINDING_SUCCESS => BindingKind::Success,
        TYPE_BINDING_ERROR => BindingKind::Error,
        _ => return Err(StunError::UnexpectedType),
    };
    let mut transaction = [0; 12];
    transaction.copy_from_slice(&datagram[8..HEADER]);
    Ok((kind, transaction))
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes([bytes[offset], bytes[offset + 1]])
}

/// Walks the attributes of a message whose header has been checked.
struct Attributes<'a> {
    datagram: &'a [u8],
    offset: usize,
}

impl<'a> Attributes<'a> {
    fn new(datagram: &'a [u8]) -> Self {
        Self { datagram, offset: HEADER }
    }

    fn at_end(&self) -> bool {
        self.offset >= self.datagram.len()
    }

    /// The next attribute: its offset in the message, its type and its value.
    #[expect(clippy::type_complexity, reason = "offset, type and value of one attribute")]
    fn next(&mut self) -> Result<Option<(usize, u16, &'a [u8])>, StunError> {
        if self.at_end() {
            return Ok(None);
        }
        let start = self.offset;
        if self.datagram.len() - start < 4 {
            return Err(StunError::Malformed);
        }
        let attribute = u16_at(self.datagram, start);
        let length = usize::from(u16_at(self.datagram, start + 2));
        let end = start + 4 + length.next_multiple_of(4);
        if end > self.datagram.len() {
            return Err(StunError::Malformed);
        }
        self.offset = end;
        Ok(Some((start, attribute, &self.datagram[start + 4..start + 4 + length])))
    }
}

#[cfg(test)]
mod tests;
