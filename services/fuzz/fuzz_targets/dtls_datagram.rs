//! DTLS datagrams into a fresh transport, one in mid-handshake and a connected
//! one, from a validated path.
#![no_main]

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use headwater_transport::{
    DtlsIdentity, IceCredentials, Output, PacketClass, Path, Protocol, RemoteParameters, Transport, TransportConfig,
    classify,
};
use libfuzzer_sys::fuzz_target;

fn identity() -> Arc<DtlsIdentity> {
    static IDENTITY: OnceLock<Arc<DtlsIdentity>> = OnceLock::new();
    IDENTITY.get_or_init(|| DtlsIdentity::generate().expect("randomness")).clone()
}

fn path(port: u16) -> Path {
    Path { protocol: Protocol::Udp, remote: SocketAddr::from(([192, 0, 2, 1], port)) }
}

fn deliver(to: &mut Transport, now: Instant, from: Path, datagram: &[u8]) {
    match classify(datagram) {
        PacketClass::Stun => drop(to.handle_stun(now, from, datagram)),
        PacketClass::Dtls => to.handle_dtls(now, from, datagram),
        PacketClass::Rtp | PacketClass::Rtcp | PacketClass::Unknown => {}
    }
}

fuzz_target!(|input: (u8, Vec<(bool, &[u8])>)| {
    let (rounds, datagrams) = input;
    let mut now = Instant::now();
    let credentials = |name: &str| IceCredentials { ufrag: name.into(), pwd: format!("password of the {name}") };
    let mut server = Transport::new(now, TransportConfig::server(identity(), credentials("server")));
    let mut client = Transport::new(now, TransportConfig::client(identity(), credentials("client"), 1));
    let remote = |name: &str| RemoteParameters {
        fingerprint_sha256: identity().fingerprint().into(),
        ufrag: name.into(),
        pwd: credentials(name).pwd,
        max_message_size: None,
    };
    server.set_remote(now, remote("client")).expect("a good fingerprint");
    client.set_remote(now, remote("server")).expect("a good fingerprint");
    client.set_remote_candidate(now, path(2));
    for _ in 0..1 + rounds % 8 {
        while let Some(output) = client.poll_output() {
            if let Output::Transmit { datagram, .. } = output {
                deliver(&mut server, now, path(1), &datagram);
            }
        }
        while let Some(output) = server.poll_output() {
            if let Output::Transmit { datagram, .. } = output {
                deliver(&mut client, now, path(2), &datagram);
            }
        }
    }
    for (to_server, datagram) in datagrams {
        if to_server {
            server.handle_dtls(now, path(1), datagram);
        } else {
            client.handle_dtls(now, path(2), datagram);
        }
        now += Duration::from_millis(30);
        server.handle_timeout(now);
        client.handle_timeout(now);
        while server.poll_output().is_some() || client.poll_output().is_some() {}
    }
    assert_eq!(server.stats().library_panics + client.stats().library_panics, 0);
});
