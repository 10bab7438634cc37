//! The cookie of HelloVerifyRequest (RFC 6347 §4.2.1), chosen by us and not by
//! the library, so that it can be told before the library is started.

use rtc_crypto::{CryptoError, RTCCrypto, RTCCryptoProvider, RTCRandom};

use crate::stun::provider;

/// As long as the library's.
pub(super) type Cookie = [u8; 20];

/// One association's cookie. It need only be unknown to those who cannot read
/// what goes to the peer.
pub(super) fn new_cookie() -> Cookie {
    let mut cookie = [0; 20];
    // Without randomness no handshake can follow: the zeros are never useful.
    let _ = provider().random().fill(&mut cookie);
    cookie
}

/// The crypto of everything else, with the one random value of a cookie's length
/// fixed. The front checks that the library took it for the cookie.
pub(super) struct CookieProvider {
    pub cookie: Cookie,
}

impl RTCCryptoProvider for CookieProvider {
    fn name(&self) -> &'static str {
        provider().name()
    }

    fn crypto(&self) -> &dyn RTCCrypto {
        provider().crypto()
    }

    fn random(&self) -> &dyn RTCRandom {
        self
    }
}

impl RTCRandom for CookieProvider {
    fn fill(&self, output: &mut [u8]) -> Result<(), CryptoError> {
        if output.len() == self.cookie.len() {
            output.copy_from_slice(&self.cookie);
            return Ok(());
        }
        provider().random().fill(output)
    }
}
