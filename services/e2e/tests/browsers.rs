//! Real Chromium with the unmodified SDK, and the community page.

use headwater_e2e::dev::Dev;

/// Both pages see and hear each other; the script checks pictures and sound.
fn two_pages(version: &str, protocol: &str) {
    let dev = Dev::start(&[]).unwrap();
    let report = dev.run("two_pages.mjs", &[version, protocol]).unwrap();
    println!("{report}");
    assert_eq!(dev.complaints(), Vec::<String>::new());
}

#[test]
fn two_pages_meet_in_v1_over_udp() {
    two_pages("v1", "udp");
}

#[test]
fn two_pages_meet_in_v0_over_udp() {
    two_pages("v0", "udp");
}

#[test]
fn two_pages_meet_in_v1_over_tcp_when_udp_is_blocked() {
    two_pages("v1", "tcp");
}

#[test]
fn two_pages_meet_in_v0_over_tcp_when_udp_is_blocked() {
    two_pages("v0", "tcp");
}

#[test]
fn the_sdks_own_connection_check_passes() {
    let dev = Dev::start(&[]).unwrap();
    println!("{}", dev.run("connection_check.mjs", &[]).unwrap());
    assert_eq!(dev.complaints(), Vec::<String>::new());
}

#[test]
fn people_meet_on_the_page() {
    let dev = Dev::start(&[]).unwrap();
    println!("{}", dev.run("page.mjs", &[]).unwrap());
    assert_eq!(dev.complaints(), Vec::<String>::new());
}
