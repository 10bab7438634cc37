//! Packet path: no allocation. Socket addresses as the kernel reads and writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Length of `sockaddr_in`.
const V4_LEN: u32 = 16;
/// Length of `sockaddr_in6`.
const V6_LEN: u32 = 28;

/// The address family of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    /// Takes IPv4 too, as mapped addresses.
    V6,
}

impl Family {
    pub(crate) fn of(address: &SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A `sockaddr_in` or `sockaddr_in6`, byte for byte.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(4))]
pub(crate) struct RawAddress {
    bytes: [u8; V6_LEN as usize],
    len: u32,
}

impl RawAddress {
    pub(crate) const EMPTY: Self = Self { bytes: [0; V6_LEN as usize], len: V6_LEN };

    /// The address in the family of the socket: an IPv4 address becomes a mapped one
    /// on an IPv6 socket. `None` for an IPv6 address on an IPv4 socket.
    pub(crate) fn encode(address: SocketAddr, family: Family) -> Option<Self> {
        let mut raw = Self::EMPTY;
        match (family, address) {
            (Family::V4, SocketAddr::V4(v4)) => {
                raw.put_family(libc::AF_INET);
                raw.bytes[4..8].copy_from_slice(&v4.ip().octets());
                raw.len = V4_LEN;
            }
            (Family::V4, SocketAddr::V6(_)) => return None,
            (Family::V6, SocketAddr::V4(v4)) => {
                raw.put_v6(&v4.ip().to_ipv6_mapped(), 0, 0);
            }
            (Family::V6, SocketAddr::V6(v6)) => {
                raw.put_v6(v6.ip(), v6.flowinfo(), v6.scope_id());
            }
        }
        raw.bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        Some(raw)
    }

    /// The address that the kernel wrote; a mapped address becomes an IPv4 one.
    pub(crate) fn decode(&self) -> Option<SocketAddr> {
        let family = i32::from(u16::from_ne_bytes([self.bytes[0], self.bytes[1]]));
        let port = u16::from_be_bytes([self.bytes[2], self.bytes[3]]);
        let quad: [u8; 4] = *self.bytes[4..].first_chunk()?;
        if family == libc::AF_INET {
            return Some(SocketAddr::from((Ipv4Addr::from(quad), port)));
        }
        if family != libc::AF_INET6 {
            return None;
        }
        let ip = Ipv6Addr::from(*self.bytes[8..].first_chunk::<16>()?);
        let scope = u32::from_ne_bytes(*self.bytes[24..].first_chunk()?);
        // The flow label is not part of who a peer is.
        Some(match ip.to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, port)),
            None => SocketAddrV6::new(ip, port, 0, scope).into(),
        })
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    fn put_family(&mut self, family: i32) {
        self.bytes[0..2].copy_from_slice(&(family as u16).to_ne_bytes());
    }

    fn put_v6(&mut self, ip: &Ipv6Addr, flow: u32, scope: u32) {
        self.put_family(libc::AF_INET6);
        self.bytes[4..8].copy_from_slice(&flow.to_be_bytes());
        self.bytes[8..24].copy_from_slice(&ip.octets());
        self.bytes[24..28].copy_from_slice(&scope.to_ne_bytes());
    }
}

/// An address without the IPv6 mapping, so that one peer has one name.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, address.port())),
            None => address,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_in_their_own_family() {
        for (text, family) in [("192.0.2.7:4711", Family::V4), ("[2001:db8::1%7]:9", Family::V6)] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(RawAddress::encode(address, family).unwrap().decode(), Some(address));
        }
    }

    #[test]
    fn ipv4_is_mapped_on_an_ipv6_socket_and_comes_back_plain() {
        let address: SocketAddr = "192.0.2.7:4711".parse().unwrap();
        let raw = RawAddress::encode(address, Family::V6).unwrap();
        assert_eq!(raw.len(), V6_LEN);
        assert_eq!(raw.decode(), Some(address));
    }

    #[test]
    fn ipv6_has_no_place_on_an_ipv4_socket() {
        let address: SocketAddr = "[2001:db8::1]:9".parse().unwrap();
        assert!(RawAddress::encode(address, Family::V4).is_none());
    }

    #[test]
    fn an_unknown_family_is_no_address() {
        assert_eq!(RawAddress::EMPTY.decode(), None);
    }
}
