//! The lite agent on its own.

use std::net::SocketAddr;
use std::sync::OnceLock;

use super::*;
use crate::path::Protocol;
use crate::stun::BindingRequest;

#[expect(clippy::disallowed_methods, reason = "the origin of virtual time")]
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

fn credentials(ufrag: &str) -> IceCredentials {
    IceCredentials { ufrag: ufrag.into(), pwd: format!("password of {ufrag} 123") }
}

fn path(port: u16) -> Path {
    Path { protocol: Protocol::Udp, remote: SocketAddr::from(([192, 0, 2, 1], port)) }
}

fn request(to: &IceCredentials, use_candidate: bool) -> Vec<u8> {
    BindingRequest {
        transaction: [1; 12],
        remote_ufrag: &to.ufrag,
        local_ufrag: "peer",
        remote_pwd: &to.pwd,
        priority: 1,
        tie_breaker: 2,
        use_candidate,
    }
    .encode()
}

fn agent() -> IceLite {
    IceLite::new(credentials("first"))
}

fn check(ice: &mut IceLite, after: u64, port: u16, use_candidate: bool) -> Option<Path> {
    let request = request(&credentials("first"), use_candidate);
    let now = origin() + Duration::from_secs(after);
    ice.handle_request(now, path(port), &request).unwrap().selected
}

#[test]
fn the_first_authentic_source_is_used_until_one_is_nominated() {
    let mut ice = agent();
    assert_eq!(check(&mut ice, 0, 1, false), Some(path(1)));
    assert_eq!(check(&mut ice, 0, 2, false), None);
    assert_eq!(check(&mut ice, 0, 2, true), Some(path(2)));
    assert_eq!(check(&mut ice, 0, 2, true), None, "no change, no event");
    assert_eq!(check(&mut ice, 0, 1, true), Some(path(1)), "the latest nomination");
    assert!(ice.is_valid(path(1)) && ice.is_valid(path(2)) && !ice.is_valid(path(3)));
}

#[test]
fn nothing_is_remembered_of_a_request_that_is_not_authentic() {
    let mut ice = agent();
    let wrong_password =
        IceCredentials { pwd: "something else entirely".into(), ..credentials("first") };
    let forged = ice.handle_request(origin(), path(1), &request(&wrong_password, true));
    assert_eq!(forged.unwrap_err(), StunError::NotAuthentic);
    let stranger = ice.handle_request(origin(), path(1), &request(&credentials("other"), true));
    assert_eq!(stranger.unwrap_err(), StunError::UnknownUsername);
    assert!(!ice.is_valid(path(1)));
    assert_eq!((ice.selected(), ice.next_expiry()), (None, None));
}

#[test]
fn paths_are_bounded_and_the_selected_one_stays() {
    let mut ice = agent();
    check(&mut ice, 0, 1, true);
    for port in 2..50 {
        check(&mut ice, u64::from(port), port, false);
    }
    assert_eq!(ice.paths.len(), PATHS_MAX);
    assert!(ice.is_valid(path(1)), "selected, though the oldest");
    assert!(ice.is_valid(path(49)) && !ice.is_valid(path(42)));
}

#[test]
fn a_path_without_consent_gives_way_to_the_most_recent_one() {
    let mut ice = agent();
    check(&mut ice, 0, 1, true);
    check(&mut ice, 10, 2, false);
    check(&mut ice, 20, 3, false);
    let at = |seconds| origin() + Duration::from_secs(seconds);
    assert_eq!(ice.next_expiry(), Some(at(30)));
    assert_eq!(ice.expire(at(29)), Expiry::Unchanged);
    assert_eq!(ice.expire(at(30)), Expiry::Moved(path(3)));
    assert_eq!(ice.expire(at(45)), Expiry::Unchanged);
    assert_eq!(ice.expire(at(50)), Expiry::NoPath);
    assert_eq!(ice.expire(at(60)), Expiry::Unchanged, "said once");
}

#[test]
fn a_restart_answers_old_and_new_until_the_new_are_used() {
    let mut ice = agent();
    check(&mut ice, 0, 1, true);
    ice.restart(credentials("unused"));
    ice.restart(credentials("second"));
    assert_eq!(ice.local_ufrags().collect::<Vec<_>>(), ["first", "second"]);
    assert_eq!(check(&mut ice, 1, 1, true), None);
    let accepted =
        ice.handle_request(origin(), path(2), &request(&credentials("second"), false)).unwrap();
    assert_eq!(accepted.selected, Some(path(2)), "the peer has moved");
    let old = ice.handle_request(origin(), path(1), &request(&credentials("first"), true));
    assert_eq!(old.unwrap_err(), StunError::UnknownUsername);
    assert_eq!(ice.local_ufrags().collect::<Vec<_>>(), ["second"]);
}
