//! Looks whether the ports of `dev` are free before anything is started, so
//! that a taken one is told in a sentence and not by half a system.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use anyhow::bail;

/// A port that will be wanted.
#[derive(Debug, Clone, Copy)]
pub struct Port {
    /// What for.
    pub purpose: &'static str,
    /// The flag that changes it.
    pub flag: &'static str,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where. Port 0 is always free.
    pub address: SocketAddr,
}

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// Looks at all of them.
///
/// # Errors
/// If some cannot be had; the error says for each what it is for and which flag
/// changes it.
pub fn check(ports: &[Port]) -> anyhow::Result<()> {
    let mut problems = String::new();
    for port in ports {
        let tried = match port.protocol {
            Protocol::Tcp => TcpListener::bind(port.address).map(drop),
            Protocol::Udp => UdpSocket::bind(port.address).map(drop),
        };
        let Err(error) = tried else { continue };
        let protocol = match port.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        let reason = match error.kind() {
            std::io::ErrorKind::AddrInUse => "is taken by another program".to_owned(),
            _ => format!("cannot be had ({error})"),
        };
        let _ = write!(
            problems,
            "\n  {protocol} port {} for {} {reason}; choose another one with {}",
            port.address.port(),
            port.purpose,
            port.flag,
        );
    }
    if problems.is_empty() {
        return Ok(());
    }
    bail!("not every port is free:{problems}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_taken_port_is_told_with_its_flag() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = |purpose, flag, protocol, address| Port { purpose, flag, protocol, address };
        let (tcp_address, udp_address) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let ports = [
            port("the page", "--port", Protocol::Tcp, tcp_address),
            port("media", "--udp-port", Protocol::Udp, udp_address),
            port("the API", "--api-port", Protocol::Tcp, any),
        ];
        let shown = check(&ports).unwrap_err().to_string();
        assert!(shown.contains(&format!("TCP port {} for the page is taken", tcp_address.port())));
        assert!(shown.contains("--port") && shown.contains("--udp-port"), "{shown}");
        assert!(!shown.contains("--api-port"), "{shown}");
        drop((tcp, udp));
        check(&ports).unwrap();
    }
}
