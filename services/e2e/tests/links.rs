//! Real Chromium behind a bad link in a network namespace.

use std::path::Path;

use headwater_e2e::dev::Dev;

/// Seen from behind the link.
const HERE: &str = "10.231.7.1";

/// Why no namespace can be made here, if none can.
fn obstacle() -> Option<&'static str> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = status.lines().any(|line| line.starts_with("Uid:\t0\t"));
    if !root {
        return Some("making a network namespace takes root");
    }
    (!Path::new("/dev/net/tun").exists()).then_some("there is no /dev/net/tun")
}

#[test]
fn each_viewer_gets_what_its_link_carries() {
    if let Some(obstacle) = obstacle() {
        println!("skipped: {obstacle}");
        return;
    }
    let dev = Dev::start(&["--bind", "0.0.0.0", "--advertise-ip", HERE]).unwrap();
    println!("{}", dev.run("limited_link.mjs", &[]).unwrap());
    assert_eq!(dev.complaints(), Vec::<String>::new());
}
