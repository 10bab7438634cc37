//! Free ports on loopback.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// A port that is free for TCP and UDP at this moment. Another process may take
/// it before it is used; tests that start servers run one at a time.
///
/// # Panics
/// If the system has no free port.
#[must_use]
pub fn free_port() -> u16 {
    for _ in 0..100 {
        let Ok(tcp) = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)) else {
            continue;
        };
        let Ok(address) = tcp.local_addr() else {
            continue;
        };
        if UdpSocket::bind((Ipv4Addr::UNSPECIFIED, address.port())).is_ok() {
            return address.port();
        }
    }
    panic!("no port is free for both TCP and UDP");
}

/// A port that stays free while nobody listens on it: it is below those that the
/// system hands out to outgoing connections, so a server that was killed can
/// have it again.
///
/// # Panics
/// If no such port is found.
#[must_use]
pub fn lasting_port() -> u16 {
    for _ in 0..1000 {
        let port = rand::random_range(10_240..32_000);
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
            && UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
        {
            return port;
        }
    }
    panic!("no port is free for both TCP and UDP");
}
