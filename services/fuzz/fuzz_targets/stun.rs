//! STUN into a transport that answers one user fragment: nothing that was not
//! signed with its password is answered or remembered.
#![no_main]

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use headwater_transport::{
    BindingRequest, DtlsIdentity, IceCredentials, Path, Protocol, Transport, TransportConfig, stun_local_ufrag,
};
use libfuzzer_sys::fuzz_target;

fn identity() -> Arc<DtlsIdentity> {
    static IDENTITY: OnceLock<Arc<DtlsIdentity>> = OnceLock::new();
    IDENTITY.get_or_init(|| DtlsIdentity::generate().expect("randomness")).clone()
}

fuzz_target!(|input: (bool, Vec<(u16, u8)>, &[u8])| {
    let (from_request, edits, bytes) = input;
    let now = Instant::now();
    let local = IceCredentials { ufrag: "frag".into(), pwd: "a password of length".into() };
    let mut transport = Transport::new(now, TransportConfig::server(identity(), local.clone()));
    let path = Path { protocol: Protocol::Udp, remote: SocketAddr::from(([192, 0, 2, 1], 1)) };
    let mut datagram = bytes.to_vec();
    if from_request {
        // A real request, signed with another password and then edited.
        let request = BindingRequest {
            transaction: [0; 12],
            remote_ufrag: "frag",
            local_ufrag: "peer",
            remote_pwd: "another password",
            priority: 1,
            tie_breaker: 2,
            use_candidate: true,
        };
        datagram = request.encode();
        for (at, value) in edits {
            let at = usize::from(at) % datagram.len();
            datagram[at] = value;
        }
    }
    let _ = stun_local_ufrag(&datagram);
    assert!(transport.handle_stun(now, path, &datagram).is_err());
    assert!(transport.poll_output().is_none());
    assert!(!transport.is_valid_path(path));
});
