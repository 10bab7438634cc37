//! Free ports on loopback.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};

/// Below those that Linux hands out to outgoing connections (32,768 and above), so
/// nothing takes a port between its choice and its use, and a server that was killed can
/// have its port again.
const RANGE: std::ops::Range<u16> = 10_240..32_000;

/// Handed out by this process; never twice.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port that is free for TCP and UDP, and that no outgoing connection takes. No port is
/// given twice by one process. Tests that start servers run one at a time.
///
/// # Panics
/// If no such port is found.
#[must_use]
pub fn free_port() -> u16 {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..10_000 {
        let port = rand::random_range(RANGE);
        let free = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
            && UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
        if free && given.insert(port) {
            return port;
        }
    }
    panic!("no port is free for both TCP and UDP");
}
