//! Which addresses clients are told to send media to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use crate::config::Config;

/// The addresses to advertise: those configured, else that of the interface
/// with the default route; loopback last, if asked for or if there is no other.
pub fn advertised(config: &Config) -> Vec<IpAddr> {
    let mut addresses = config.advertise_ips.clone();
    if addresses.is_empty() {
        addresses.extend(if config.media_ip.is_unspecified() {
            interface_address()
        } else {
            Some(config.media_ip)
        });
    }
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let wanted = config.advertise_loopback || addresses.is_empty();
    if wanted && !addresses.contains(&loopback) {
        addresses.push(loopback);
    }
    addresses
}

/// The address the system would send from to the outside. Nothing is sent: a
/// connected UDP socket only looks up the route.
fn interface_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // TEST-NET-1 (RFC 5737): never a real host.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

/// The URL gateways and the control plane are told.
pub fn rpc_url(config: &Config, bound: SocketAddr, media: &[IpAddr], tls: bool) -> String {
    if !config.advertise_url.is_empty() {
        return config.advertise_url.clone();
    }
    let ip = if bound.ip().is_unspecified() {
        media.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    } else {
        bound.ip()
    };
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{}", SocketAddr::new(ip, bound.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_addresses_win() {
        let ip = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
        let config = Config { advertise_ips: vec![ip], ..Config::default() };
        assert_eq!(advertised(&config), vec![ip]);
    }

    #[test]
    fn loopback_is_added_when_asked_for() {
        let config = Config { advertise_loopback: true, ..Config::default() };
        assert!(advertised(&config).contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }

    #[test]
    fn a_wildcard_listener_is_announced_by_a_real_address() {
        let config = Config::default();
        let bound = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7900));
        let ip = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
        assert_eq!(rpc_url(&config, bound, &[ip], false), "http://203.0.113.9:7900");
    }
}
