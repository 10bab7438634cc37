//! What the server needs to know of a ClientHello (RFC 5246 §7.4.1.2, RFC 6347
//! §4.2.1) before it hands it on, and of its own HelloVerifyRequest.

use super::record::{Fragment, HELLO_VERIFY_REQUEST, fragments, records};

const EXTENSION_USE_SRTP: u16 = 14;
const EXTENSION_EXTENDED_MASTER_SECRET: u16 = 23;

/// The parts of a ClientHello that decide how it is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientHello<'a> {
    pub cookie: &'a [u8],
    /// Everything before the cookie's length, and behind the cookie.
    around_cookie: (&'a [u8], &'a [u8]),
    /// Codes of the use_srtp extension, in the client's order.
    pub srtp_profiles: Vec<u16>,
    pub extended_master_secret: bool,
}

impl<'a> ClientHello<'a> {
    /// Reads the body of a ClientHello for DTLS 1.2.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(body);
        if reader.take(2)? != [0xfe, 0xfd] {
            return None;
        }
        reader.take(32)?; // random
        reader.vector8()?; // session id
        let before = body.len() - reader.0.len();
        let cookie = reader.vector8()?;
        let behind = reader.0;
        reader.vector16()?; // cipher suites
        reader.vector8()?; // compression methods
        let mut hello = Self {
            cookie,
            around_cookie: (&body[..before], behind),
            srtp_profiles: Vec::new(),
            extended_master_secret: false,
        };
        let mut extensions = Reader(reader.vector16()?);
        while !extensions.0.is_empty() {
            let extension = extensions.u16()?;
            let data = extensions.vector16()?;
            match extension {
                EXTENSION_USE_SRTP => {
                    let codes = Reader(data).vector16()?;
                    hello.srtp_profiles = codes
                        .chunks_exact(2)
                        .map(|code| u16::from_be_bytes([code[0], code[1]]))
                        .collect();
                }
                EXTENSION_EXTENDED_MASTER_SECRET => hello.extended_master_secret = true,
                _ => {}
            }
        }
        Some(hello)
    }

    /// The same ClientHello as it was before the cookie was known.
    pub fn without_cookie(&self) -> Vec<u8> {
        [self.around_cookie.0, &[0], self.around_cookie.1].concat()
    }
}

/// The body of a HelloVerifyRequest.
pub(super) fn verify_request(cookie: &[u8; 20]) -> Vec<u8> {
    [&[0xfe, 0xfd, cookie.len() as u8][..], cookie].concat()
}

/// The cookie of an outgoing HelloVerifyRequest, if the datagram holds one.
pub(super) fn verify_request_cookie(datagram: &[u8]) -> Option<&[u8]> {
    let first = records(datagram).next()?;
    let request: Fragment<'_> = fragments(first.body)
        .next()
        .filter(|message| message.message_type == HELLO_VERIFY_REQUEST)?;
    let mut reader = Reader(request.data);
    reader.take(2)?;
    reader.vector8()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(usize::from(length))
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client_hello(cookie: &[u8], profiles: &[u16], extended_master_secret: bool) -> Vec<u8> {
        let mut body = vec![0xfe, 0xfd];
        body.extend_from_slice(&[7; 32]);
        body.push(0);
        body.push(cookie.len() as u8);
        body.extend_from_slice(cookie);
        body.extend_from_slice(&[0, 2, 0xc0, 0x2b, 1, 0]);
        let mut extensions = Vec::new();
        if extended_master_secret {
            extensions.extend_from_slice(&[0, 23, 0, 0]);
        }
        let length = profiles.len() as u16 * 2;
        extensions.extend_from_slice(&[0, 14]);
        extensions.extend_from_slice(&(length + 3).to_be_bytes());
        extensions.extend_from_slice(&length.to_be_bytes());
        for profile in profiles {
            extensions.extend_from_slice(&profile.to_be_bytes());
        }
        extensions.push(0);
        body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
        body.extend_from_slice(&extensions);
        body
    }

    #[test]
    fn profiles_cookie_and_master_secret_are_read() {
        let body = client_hello(b"cookie", &[1, 8, 7], true);
        let hello = ClientHello::parse(&body).unwrap();
        assert_eq!(hello.cookie, b"cookie");
        assert_eq!(hello.without_cookie(), client_hello(b"", &[1, 8, 7], true));
        assert_eq!(hello.srtp_profiles, [1, 8, 7]);
        assert!(hello.extended_master_secret);
        assert!(
            !ClientHello::parse(&client_hello(b"", &[], false)).unwrap().extended_master_secret
        );
    }

    #[test]
    fn a_verify_request_reads_back() {
        let record = super::super::record::plain_message(
            0,
            HELLO_VERIFY_REQUEST,
            0,
            &verify_request(&[4; 20]),
        );
        assert_eq!(verify_request_cookie(&record), Some(&[4; 20][..]));
    }

    #[test]
    fn a_truncated_hello_is_refused_at_every_length() {
        let body = client_hello(b"cookie", &[1, 8, 7], true);
        for length in 0..body.len() {
            assert_eq!(ClientHello::parse(&body[..length]), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = ClientHello::parse(&body);
            let _ = verify_request_cookie(&body);
        }

        #[test]
        fn mutated_hellos_never_panic(at in 0usize..100, value: u8) {
            let mut body = client_hello(b"cookie", &[1, 8, 7], true);
            let length = body.len();
            body[at % length] = value;
            let _ = ClientHello::parse(&body);
        }
    }
}
